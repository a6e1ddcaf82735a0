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
{
    mkdir folder() . '/open';
    copy("$dir/good.so", folder() . '/open/good.so');
    chmod 0755, folder() . '/open/good.so';
    chmod 0777, folder() . '/open';
    my ($rc, undef, $err) = check_text('load = [ "' . folder() . qq{/open/good.so" ];\n});
    is $rc, 1, 'in a folder that all may write: refused';
    like $err, qr/writ/, 'in a folder that all may write: told why';
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
