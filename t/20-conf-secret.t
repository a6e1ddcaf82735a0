# SPDX-License-Identifier: Apache-2.0
# Secrets come from files or the environment and are never printed.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

sub dump_of {
    my ($text) = @_;
    my ($rc, $out, $err) = pdplane('-T', '-c', spew('pd.conf', $text));
    return ($rc, $out, $err);
}

my $file = spew 'secret', "open sesame\n", 0600;
my ($rc, $out, $err) = dump_of('link = { secret_file = "secret"; };');
is $rc, 0, 'from a file' or diag $err;
unlike $out . $err, qr/sesame/, 'is not printed';
like $out, qr/^  secret_file = "\Q$file\E";\s+# .*pd\.conf:1$/m, 'its file is';
is((dump_of($out))[1] =~ s/#.*//gmr, $out =~ s/#.*//gmr, 'the dump reads back');

{
    local $ENV{PD_T_SECRET} = 'open sesame';
    ($rc, $out, $err) = dump_of('link = { secret = "${PD_T_SECRET}"; };');
    is $rc, 0, 'from the environment' or diag $err;
    unlike $out . $err, qr/sesame/, 'is not printed';
    like $out, qr/^  secret = "\$\{PD_T_SECRET\}";/m, 'the variable is';
    is((dump_of($out))[0], 0, 'the dump reads back');
    $ENV{PD_T_SECRET} = '';
    ($rc, $out, $err) = dump_of('link = { secret = "${PD_T_SECRET}"; };');
    is $rc, 1, 'an empty one';
    like $err, qr/secret "secret" in "link" is empty/, 'is told';
}

for my $mode (0644, 0660, 0666, 0604, 0740) {
    chmod $mode, $file;
    ($rc, $out, $err) = dump_of('link = { secret_file = "secret"; };');
    is $rc, 1, sprintf('a file of mode %04o is refused', $mode);
    like $err, qr/secret/, 'and named';
    unlike $err, qr/sesame/, 'but not shown';
}
chmod 0640, $file;
is((dump_of('link = { secret_file = "secret"; };'))[0], 0, 'a file of mode 0640 is taken');

spew 'secret', '', 0600;
($rc, $out, $err) = dump_of('link = { secret_file = "secret"; };');
like $err, qr/is empty/, 'an empty file';
spew 'secret', "a\0b", 0600;
($rc, $out, $err) = dump_of('link = { secret_file = "secret"; };');
like $err, qr/contains a zero byte/, 'a zero byte';
($rc, $out, $err) = dump_of('link = { secret_file = "none"; };');
is $rc, 1, 'a missing file';
($rc, $out, $err) = dump_of('link = { secret = "open sesame"; };');
is $rc, 1, 'in the configuration itself';
unlike $err, qr/sesame/, 'it is not repeated in the message';
($rc, $out, $err) = dump_of('link = { secret = "${HOME}"; secret_file = "secret"; };');
like $err, qr/"secret" and "secret_file" in "link" exclude each other/, 'both ways at once';
($rc, $out, $err) = dump_of('link = { secret_fil = "secret"; };');
like $err, qr/unknown option "secret_fil" in "link"/, 'a misspelt name';

done_testing;
