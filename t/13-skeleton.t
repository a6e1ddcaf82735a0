# SPDX-License-Identifier: Apache-2.0
# pdctl module new: for every stable kind a folder that builds and passes its
# tests untouched, with nothing but an installed pdplane.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL DESTDIR PDPLANE_DATA)};
my ($rc, $out, $err);
for my $tool (qw(make pkg-config prove cc)) {
    ($rc) = run_program('sh', '-c', "command -v $tool");
    plan skip_all => "$tool is not installed" if $rc ne 0;
}
umask 022;
my $dest = folder() . '/dest';
($rc, $out, $err) = run_program('make', '-s', '-C', builddir(), 'install', "DESTDIR=$dest");
is $rc, 0, 'make install' or BAIL_OUT($err);
my ($pc) = glob "$dest/*/lib*/pkgconfig/pdplane.pc $dest/*/*/lib*/pkgconfig/pdplane.pc $dest/*/lib*/*/pkgconfig/pdplane.pc";
($ENV{PKG_CONFIG_PATH} = $pc) =~ s{/[^/]+$}{};
my $pkg = 'pkg-config --define-prefix';
chomp(my $conform = qx($pkg --variable=conform pdplane));
(my $ctl = $conform) =~ s/pdconform$/pdctl/;
my $place = folder() . '/made';
mkdir $place or die $!;
sub new_module { return run_program($ctl, 'module', 'new', @_) }

# The kinds that the kit knows, but for roles, which belong to one version.
($rc, $out) = run_program($conform, '-l');
my %kinds = map { (split)[0] => 1 } split /\n/, $out;
delete $kinds{role};
cmp_ok scalar(keys %kinds), '>=', 9, 'kinds';
my $open = qr/: (?:check|start|handover|refreshes) # SKIP|SKIP the source |SKIP no command changes |SKIP .*with a sanitizer/;
for my $kind (sort keys %kinds) {
    my $dir = "$place/my_$kind";
    ($rc, $out, $err) = new_module("my_$kind", '--kind', $kind, '--dir', $place);
    is $rc, 0, "$kind: written" or diag $err;
    is_deeply [grep { !-e "$dir/$_" } "my_$kind.c", 'Makefile', 'README', "conf/my_$kind.conf.sample", 't/01-conform.t'],
        [], "$kind: all files";
    is scalar(() = slurp("$dir/Makefile") =~ /\n/g), 3, "$kind: the Makefile has three lines";
    unlike join(q(), map { slurp($_) } grep { -f } glob "$dir/* $dir/*/*"), qr/\@[A-Z]+\@/, "$kind: every place was filled";
    ($rc, $out, $err) = run_program('make', '-C', $dir, "PKG_CONFIG=$pkg", 'PROVE=prove -v',
        'CFLAGS=-O2 -Wall -Wextra -Werror', 'check');
    is $rc, 0, "$kind: builds and passes" or diag $out, $err;
    like $out, qr/All tests successful/, "$kind: with its tests";
    # No case is left out but those of what the skeleton does not claim, or that
    # somebody outside must bring about.
    my @skipped = grep { !/$open/ } $out =~ /^(ok .* # SKIP .*)$/mg;
    is_deeply \@skipped, [], "$kind: with all cases of pdconform";
}

# ---- what is refused
($rc, $out, $err) = new_module('my_scorer', '--kind', 'scorer', '--dir', $place);
is $rc, 1, 'a folder that is there';
like $err, qr/nothing was written/, 'stays as it is';
for my $bad ('', 'Upper', '1st', '../up', 'a-b', 'a b', 'x' x 48) {
    ($rc) = new_module($bad, '--kind', 'scorer', '--dir', $place);
    is $rc, 2, "the name \"$bad\" is none";
}
($rc, $out, $err) = new_module('other', '--kind', 'score', '--dir', $place);
is $rc, 2, 'an unknown kind';
like $err, qr/did you mean "scorer"/, 'and the nearest';
is((new_module('other', '--dir', $place))[0], 2, 'no kind');
ok !-e "$place/other", 'nothing was written';
{
    local $ENV{PDPLANE_DATA} = folder() . '/nowhere';
    ($rc, $out, $err) = new_module('other', '--kind', 'scorer', '--dir', $place);
    is $rc, 1, 'no skeletons';
    like $err, qr/PDPLANE_DATA/, 'and what to do';
}
($rc, $out) = run_program($ctl, 'help', 'module');
is $rc, 0, 'pdctl help module';
like $out, qr/^example: pdctl module new/m, 'teaches by example';

done_testing;
