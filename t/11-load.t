# SPDX-License-Identifier: Apache-2.0
# The loader refuses each wrong module for its own reason and takes the good one.
use strict;
use warnings;

use Test::More;

use File::Copy qw(copy);
use PDPlane::Test;

my $dir = test_module_dir();
plan skip_all => 'test modules are not built' unless -e "$dir/good.so";

# The build folder may be writable for others, where loading is refused.
my $modules = module_folder($dir);
sub load {
    my (@names) = @_;
    my $list = join ', ', map {"\"$_\""} @names;
    return check_text(qq{module_path = [ "$modules" ];\nload = [ $list ];\n});
}

sub refused {
    my ($names, $message, $hint) = @_;
    my @names = ref $names ? @$names : $names;
    my ($rc, $out, $err) = load(@names);
    is $rc, 1, "@names: refused";
    like $err, qr/^pd\.conf:2: error: cannot (?:load|find) module "[^"]*$names[-1](?:\.so)?".*$message/m,
        "@names: told why";
    like $err, qr/^  hint: .*$hint/m, "@names: told what to do" if defined $hint;
}

{
    my ($rc, $out, $err) = load('router', 'good');
    is $rc, 0, 'good: taken';
    is $err, '', 'good: no word about it';
    like $out, qr/is correct/, 'good: said so';
}
{
    my ($rc) = check_text(qq{module_path = [ "$modules" ];\nload = [ "router", "$modules/good.so" ];\n});
    is $rc, 0, 'good: taken by its path';
}

refused 'bad_magic',    'pd_module begins with 0x12345678 instead of 0x50444d31', 'is no pdplane module';
refused 'old_major',    'built for ABI 0\.7, this pdplane speaks 1\.\d+',           'rebuild the module';
refused 'new_major',    'built for ABI 2\.0, this pdplane speaks 1\.\d+',           'use a newer pdplane';
refused 'new_minor',    'needs ABI 1\.\d+, this pdplane speaks 1\.\d+',             'use a newer pdplane';
refused 'short_struct', 'struct pd_module has 16 bytes, at least \d+ are needed',   'rebuild the module';
refused 'missing_op',   'picker "missing_op" lacks the operation "pick"';
refused 'short_ops',    'ops of picker "short_ops" have 16 bytes, at least \d+',    'rebuild the module';
refused 'new_ops',      'picker "new_ops" is of version 2, this pdplane takes 1 to 1', 'rebuild the module';
refused 'twice',        'it provides the picker "twice" twice';
refused ['good', 'same_unit'], 'the picker "good" is provided by module "good" already';
refused 'other_name',   'it calls itself "another"',                                'name the file another\.so';
refused 'no_unit',      'it provides no unit';
refused 'odd_kind',     'unit "odd_kind" is of the unknown kind 99',                'use a newer pdplane';
refused 'bad_rows',     'picker "bad_rows": option row "start" has a bad default.*is 9, allowed: 0 to 3';
refused 'load_fails',   'no accelerator in this machine',                           'install one';
refused 'no_symbol',    'it does not export pd_module',                             'is no pdplane module';
refused 'goood',        'in .*\(did you mean "good"\?\)',                           'pdplane -M';
refused 'nothing_here', 'in ',                                                      'pdplane -M';

{
    spew "$modules/text.so", "this is no object\n";
    chmod 0755, "$modules/text.so";
    refused 'text', '';
}
{
    copy("$dir/good.so", "$modules/good.so");
    chmod 0777, "$modules/good.so";
    refused 'good', '.*writ';
    chmod 0755, "$modules/good.so";
}
# A module in a folder of its own, put there by the code given: refused, because
# of what, and what is to be done.
my $case = 0;
sub placed {
    my ($name, $put, $why, $hint) = @_;
    my $at = folder() . '/case' . ++$case;
    mkdir $_, 0755 or die "$_: $!" for $at, "$at/mods", "$at/other";
    for my $file ("$at/mods/good.so", "$at/other/good.so") {
        copy("$dir/good.so", $file);
        chmod 0755, $file;
    }
    $put->($at);
    my ($rc, undef, $err) = check_text(qq{load = [ "router", "$at/mods/good.so" ];\nmodule_path = [ "$modules" ];\n});
    is $rc, defined $why ? 1 : 0, "$name: " . (defined $why ? 'refused' : 'taken');
    return is $err, '', "$name: no word about it" unless defined $why;
    like $err, qr{error: cannot load module "case$case/mods/good\.so": .*$why}, "$name: told why";
    like $err, qr{^  hint: .*$hint}m, "$name: told what to do";
    chmod 0755, $_ for $at, "$at/mods", "$at/other";
}
sub linked {
    my ($at, $to) = @_;
    unlink "$at/mods/good.so";
    symlink $to // "$at/other/good.so", "$at/mods/good.so" or die "symlink: $!";
}

placed 'as it should be', sub {};
placed 'in a folder that all may write', sub { chmod 0777, "$_[0]/mods" },
    'folder "case\d+/mods" is writable for everybody \(mode 0777\)', 'chmod go-w "case\d+/mods"';
placed 'in a folder that all may write, with the sticky bit', sub { chmod 01777, "$_[0]/mods" },
    'mods" is writable for everybody', 'chmod go-w';
placed 'in a folder that its group may write', sub { chmod 0775, "$_[0]/mods" },
    'mods" is writable for its group', 'chmod go-w';
placed 'below a folder that all may write', sub { chmod 0777, $_[0] },
    'folder "case\d+" is writable for everybody', 'chmod go-w "case\d+"';
placed 'below a folder that all may write, with the sticky bit', sub { chmod 01777, $_[0] };
placed 'by a link', sub { linked(@_) };
placed 'by a relative link', sub { linked($_[0], '../other/good.so') };
placed 'by a link to a file that all may write', sub { linked(@_); chmod 0757, "$_[0]/other/good.so" },
    'file "case\d+/other/good\.so" is writable for everybody', 'chmod go-w "case\d+/other/good';
placed 'by a link into a folder that all may write', sub { linked(@_); chmod 0777, "$_[0]/other" },
    'folder "case\d+/other" is writable', 'chmod go-w "case\d+/other"';
placed 'a folder', sub { unlink "$_[0]/mods/good.so"; mkdir "$_[0]/mods/good.so" },
    'is not a regular file', 'shared object itself';
SKIP: {
    skip 'only root can give files away', 14 unless $> == 0;
    placed 'a file of another user', sub { chown 12345, 12345, "$_[0]/mods/good.so" },
        'file "case\d+/mods/good\.so" belongs to user 12345', 'chown 0 ';
    placed 'in a folder of another user', sub { chown 12345, 12345, "$_[0]/mods" },
        'folder "case\d+/mods" belongs to user 12345', 'chown 0 ';
    placed 'by a link to a file of another user', sub { linked(@_); chown 12345, 12345, "$_[0]/other/good.so" },
        'other/good\.so" belongs to user 12345', 'chown 0 ';
    placed 'in a folder of another user, in one for all',
        sub { chmod 01777, $_[0]; chown 12345, 12345, "$_[0]/mods" }, 'mods" belongs to user 12345', 'chown 0 ';
    # Its owner can exchange what is in it at any time, so what was checked is loaded.
    placed 'below a folder of another user', sub { chown 12345, 12345, $_[0] };
}
{
    my ($rc, undef, $err) = check_text(qq{load = [ "modules/good.so" ];\n});
    is $rc, 1, 'a relative path: refused';
}
{
    my $path = spew 'list.conf', qq{module_path = [ "$modules" ];\n};
    unlink glob("$modules/[!g]*.so");
    my ($rc, $out) = pdplane('-M', '-c', $path);
    is $rc, 0, '-M: exit status';
    like $out, qr/^good\s+version 1\.2\s+abi 1\.\d+\s+\Q$modules\E\/good\.so$/m, '-M: the module';
    like $out, qr/^  picker\s+good\s+v1\s+Picks the first\.$/m, '-M: its unit';
    like $out, qr/^\s+also good-picker$/m, '-M: its other name';
    ($rc, $out) = pdplane('-O', 'good', '-c', $path);
    is $rc, 0, '-O: exit status';
    like $out, qr/^window  \(size, at least 1k, default "4k"\)\n    Bytes to look at\.$/m, '-O: an option';
    ($rc, $out) = pdplane('-O', 'good', '--mdoc', '-c', $path);
    like $out, qr/^\.It Ic start$/m, '-O --mdoc: an option';
}

done_testing;
