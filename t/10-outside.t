# SPDX-License-Identifier: Apache-2.0
# A module outside of the tree: the example is copied, built, checked and
# installed with nothing but an installed pdplane, and changes where a router
# sends requests.
use strict;
use warnings;

use File::Find qw(find);
use Test::More;

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::Http qw(get post json_of);
use PDPlane::Test;

delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL DESTDIR)};
my $dest = folder() . '/dest';
my ($rc, $out, $err);
for my $tool (qw(make pkg-config prove cc)) {
    ($rc) = run_program('sh', '-c', "command -v $tool");
    plan skip_all => "$tool is not installed" if $rc ne 0;
}
umask 022;
($rc, $out, $err) = run_program('make', '-s', '-C', builddir(), 'install', "DESTDIR=$dest");
is $rc, 0, 'make install' or BAIL_OUT($err);
my $pc;
find(sub { $pc = $File::Find::name if $_ eq 'pdplane.pc' }, $dest);
ok defined $pc, 'pdplane.pc is installed' or BAIL_OUT('no pdplane.pc');
(my $pcdir = $pc) =~ s{/[^/]+$}{};
$ENV{PKG_CONFIG_PATH} = $pcdir;
# The prefix is where the file lies.
my $pkg = 'pkg-config --define-prefix';
sub variable { my ($name) = @_; my $v = qx($pkg --variable=$name pdplane); chomp $v; return $v }
for my $name (qw(moduledir modmk conform program)) {
    my $path = variable($name);
    like $path, qr/^\Q$dest\E/, "$name is in the prefix";
    ok -e $path, "$name is there";
}
like variable('abi'), qr/^\d+\.\d+$/, 'abi';
like variable('confdir'), qr{/pdplane$}, 'confdir';
is qx($pkg --libs pdplane) =~ s/\s+//gr, '', 'modules link with nothing';

# ---- built from a copy, by a Makefile of three lines
my $example = folder() . '/spare_blocks';
my $from = srcdir() . '/contrib/example-module';
for my $dir ('', '/t', '/conf') {
    mkdir "$example$dir" or die $!;
    for my $file (grep { -f } glob "$from$dir/*") {
        my ($name) = $file =~ m{([^/]+)$};
        next if $name =~ /\.(?:o|d|so)$/;
        spew "$example$dir/$name", slurp($file);
    }
}
is scalar(() = slurp("$example/Makefile") =~ /\n/g), 3, 'the Makefile has three lines';
sub make { return run_program('make', '-C', $example, "PKG_CONFIG=$pkg", @_) }
($rc, $out, $err) = make('CFLAGS=-O2 -Wall -Wextra -Werror');
is $rc, 0, 'make' or diag $err;
like $out, qr/-fPIC -fvisibility=hidden/, 'compiles as modules must be';
like $out, qr/-Wl,-z,defs/, 'and links so';
my @symbols = grep { /\S/ } map { (split)[-1] } split /\n/, qx(nm -D --defined-only $example/spare_blocks.so);
is_deeply \@symbols, ['pd_module'], 'one symbol';
($rc, $out, $err) = make('check');
is $rc, 0, 'make check' or diag $out, $err;
like $out, qr/All tests successful/, 'with its tests';
($rc, $out, $err) = make('install');
is $rc, 0, 'make install' or diag $err;
my $moduledir = variable('moduledir');
ok -x "$moduledir/spare_blocks.so", 'into the folder of modules';
ok -e variable('confdir') . '/spare_blocks.conf.sample', 'with its sample';
($rc, $out, $err) = make('install', 'DESTDIR=' . folder() . '/other');
ok -x folder() . "/other$moduledir/spare_blocks.so", 'DESTDIR is honoured' or diag $err;
make('clean');
ok !-e "$example/spare_blocks.so", 'make clean';

# ---- in a running router: a decode node here, and a server that tells nothing
{
    no warnings 'redefine';
    *PDPlane::Daemon::modules_folder = sub { return $moduledir };
}
$ENV{PD_BINARY} = variable('program');
my $fake = PDPlane::FakeEngine->new('fake', models => ['tiny']);
%PDPlane::FakeEngine::answers = (ok => sub {
    $_[1]->(PDPlane::FakeEngine::plain('200 OK', 'application/json',
        '{"id":"x","object":"text_completion","choices":[{"index":0,"text":"hi","finish_reason":"stop"}]}'));
});
$fake->mode('ok');
my $sock = folder() . '/ctl.sock';

# Eight requests; how many the server got.
sub eight {
    my ($name, $scheduler) = @_;
    my $r = PDPlane::Daemon->new($name, sprintf <<"END", $sock, $fake->port, $scheduler);
load = [ "router", "decode", "ref", "openai", "round_robin", "spare_blocks" ];
control = "%s";
listen = ( { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; } );
engine = ( { name = "tiny"; type = "ref"; model = "%%%%MODEL%%%%"; } );
endpoints = ( { name = "fake"; type = "openai"; url = "http://127.0.0.1:%d"; } );
role = { router = { probe_interval = "100ms"; }; };
scheduler = { %s };
END
    $r->start;
    ok until_true(10, sub { ($r->metric('pdplane_router_decode_endpoints_up') // 0) == 2 }), "$name: two endpoints";
    $fake->forget;
    my $good = 0;
    for my $n (1 .. 8) {
        my $got = post($r->api_port, '/v1/completions', { model => 'tiny', prompt => "Once $n", max_tokens => 2 },
            headers => { 'x-request-id' => "ask-$n" });
        $good++ if $got->{status} == 200;
    }
    is $good, 8, "$name: eight answers";
    return ($r, scalar(my @n = $fake->requests));
}

my ($router, $n) = eight('plain', 'profiles = ( { name = "decode"; filter = [ "health" ]; pick = "round_robin"; } );');
cmp_ok $n, '>', 0, 'without the module some go to the server';
$router->stop;
($router, $n) = eight('scored', 'scorers = ( { module = "spare_blocks"; unknown = 0.25; } ); profiles = ( { name = "decode";
    filter = [ "health" ]; score = ( { use = "spare_blocks"; weight = 2.0; } ); pick = "max_score"; } );');
is $n, 0, 'with it none does';
(my $ctl = variable('conform')) =~ s/pdconform$/pdctl/;
($rc, $out, $err) = run_program($ctl, '-j', '-s', $sock, 'explain', 'ask-3');
is $rc, 0, 'explain' or diag $err;
my ($profile) = grep { $_->{step} eq 'profile' } @{ json_of($out)->{steps} };
my %score = map { $_->{endpoint} => $_->{scores}[0] } @{ $profile->{candidates} };
is $score{fake}{score}, 0.25, 'the server has the score of the unknown' or diag $out;
is scalar(grep { $_->{score} == 1 } values %score), 1, 'the decode node has all blocks free';
like $out, qr/"spare_blocks"/, 'and the scorer is named';
cmp_ok $router->metric('pdplane_spare_blocks_unknown_total') // 0, '>=', 8, 'its metric';
$router->stop;

done_testing;
