# SPDX-License-Identifier: Apache-2.0
# What pdplane -t says about wrong configurations: (text, line, message [, hint]).
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

my @cases = (
    # names
    ['nodee = { };', 1, 'unknown option "nodee" at the top level (did you mean "node"?)'],
    ['xyzzy = 1;', 1, 'unknown option "xyzzy" at the top level', 'pdplane -O lists all options'],
    ["log = {\n  levle = \"info\";\n};", 2, 'unknown option "levle" in "log" (did you mean "level"?)'],
    ['level = "info";', 1, 'option "level" does not belong at the top level, it belongs in "log"'],
    ['node = { drain = "1s"; };', 1, 'option "drain" does not belong in "node", it belongs at the top level'],
    ["drain = \"1s\";\ndrain = \"2s\";", 2, 'option "drain" is given a second time (first at pd.conf:1)'],
    ['log = { level = "info"; level = "warn"; };', 1, 'option "level" is given a second time (first at pd.conf:1)'],
    ['listen = ( { api = "admin"; } );', 1, 'option "address" is missing in listen number 1', 'it is a string'],
    ['listen = ( { address = "a:1"; api = "admin"; }, { address = "a:1"; api = "peer"; } );', 1,
        'listen with address "a:1" is given a second time (first at pd.conf:1)'],
    # types
    ['manager = yes;', 1, '"yes" is no value', 'write true'],
    ['manager = OFF;', 1, '"OFF" is no value', 'write false'],
    ['drain = 30;', 1, 'option "drain" must be a duration in quotes such as "250ms", not an integer'],
    ['drain = 30s;', 1, '"30s" is no number', 'values with a unit stand in quotes, such as "4g" or "10s"'],
    ['drain = "30";', 1, 'option "drain" is "30", which is no duration'],
    ['drain = "30 parsecs";', 1, 'option "drain" is "30 parsecs", which is no duration'],
    ['drain = "2d";', 1, 'option "drain" is "2d", allowed: 0s to 1d'],
    ['requests = { explain = 4096; };', 1, 'option "explain" in "requests" must be a size in quotes such as "512m", not an integer'],
    ['requests = { explain = "1"; };', 1, 'option "explain" in "requests" is "1", allowed: 1k to 1m'],
    ['limits = { connections = 0; };', 1, 'option "connections" in "limits" is 0, allowed: 1 to 1048576 connections'],
    ['limits = { connections = 1.5; };', 1,
        'option "connections" in "limits" must be an integer, not a number with a fraction'],
    ['log = { level = "loud"; };', 1, 'option "level" in "log" does not know "loud"',
        'known: "error", "warn", "notice", "info", "debug", "trace"'],
    ['log = { level = "inof"; };', 1, 'option "level" in "log" does not know "inof" (did you mean "info"?)'],
    ['load = "";', 1, 'option "load" has an empty string in it'],
    ['load = 3;', 1, 'option "load" must be strings such as [ "a", "b" ], not an integer'],
    ['load = ( "a", 3 );', 1, 'option "load" must be strings such as [ "a", "b" ], not an integer'],
    ['log = ( );', 1, 'option "log" must be a group { }, not a list ( )'],
    ['listen = { };', 1, 'option "listen" must be a list of groups, not a group', 'put ( ) around it: listen = ( { } );'],
    ['listen = ( "127.0.0.1:80" );', 1, 'member 1 of option "listen" must be a group { }, not a string'],
    ['link = { secret = "123"; };', 1, 'option "secret" in "link" is a secret and must not stand in the configuration',
        'write secret_file = "PATH"; or secret = "${VARIABLE}";'],
    # units
    ['engine = ( { name = "x"; type = "nothing"; model = "m"; } );', 1,
        'no loaded module provides the engine "nothing"', 'pdplane -M lists the modules that there are'],
    ['load = [ "no_such_module" ];', 1, 'cannot find module "no_such_module" in '],
    # text
    ['log {', 1, '"=" is missing between "log" and "{"'],
    ['log = {', 1, '"{" is not closed'],
    ["log = {\n level = \"info\"\n);", 3, '")" does not close the "{" that was opened at pd.conf:1'],
    ['};', 1, '"}" closes nothing'],
    ['node = { name = "x; };', 1, 'string is not closed'],
    ["/* never\nclosed", 1, 'comment is not closed'],
    ['node = { name = x; };', 1, '"x" is no value', 'put strings in quotes'],
    ['node = { name "x"; };', 1, '"=" is missing behind "name"'],
    ['limits = { connections = 0100; };', 1, 'number 0100 begins with a zero',
        'write it without, or in quotes if it is a file mode'],
    ['limits = { connections = 99999999999999999999; };', 1, 'number 99999999999999999999 is too large'],
    ['limits = { connections = 0xffffffff; };', 1, 'option "connections" in "limits" is 4294967295, allowed: 1 to 1048576'],
    ['limits = { connections = 3000000000; };', 1, 'option "connections" in "limits" is 3000000000, allowed: 1 to 1048576'],
    ['node = { name = $HOME; };', 1, 'unexpected character "$"', 'put it in quotes: "${NAME}"'],
    ['node = { name = "${PD_T_UNSET}"; };', 1, 'environment variable "PD_T_UNSET" in "node" is not set'],
    ['node = { name = "${PD_T_"; };', 1, '"${" in a string in "node" is not followed by a variable\'s name and "}"',
        'write $${ for the characters themselves'],
    ['load = [ 1, "a" ];', 1, 'values of an array [ ] differ in type', 'a list ( ) may hold different types'],
    ['listen = ( address = "a:1" );', 1, 'option "address" stands directly in a list', 'put { } around it'],
    ["\n\nlog = = { };", 3, 'syntax error at this line or just before it', 'options look like: name = value;'],
    ["\x01", 1, 'unexpected byte 0x01'],
    ['a = ' . ('(' x 40) . (')' x 40) . ';', 1, 'nested more than 32 levels deep'],
);

for my $case (@cases) {
    my ($text, $line, $message, $hint) = @$case;
    my ($rc, $out, $err) = check_text("$text\n");
    (my $title = $text) =~ s/\s+/ /g;
    $title = substr($title, 0, 60);
    is $rc, 1, "$title: exit status";
    like $err, qr/^pd\.conf:$line: error: \Q$message\E/m, "$title: message" or diag $err;
    like $err, qr/^  hint: \Q$hint\E/m, "$title: hint" if defined $hint;
    like $err, qr/^pdplane: configuration pd\.conf has \d+ errors?$/m, "$title: count";
    is $out, '', "$title: nothing on standard output";
}

{
    my ($rc, $out, $err) = check_text(<<'EOT');
load = [ "no_such_module" ];
engine = ( { name = "x"; type = "nothing"; model = "m"; } );
drain = 3;
EOT
    is scalar(() = $err =~ /error:/g), 2, 'a missing module is told once, what follows from it is not' or diag $err;
    like $err, qr/^pd\.conf:3: error: option "drain"/m, 'other errors are told all the same';
}
{
    my ($rc, $out, $err) = pdplane('-s', 'stop', '-c', spew('none.conf', ''));
    is $rc, 1, 'a signal without a pid file: exit status';
    like $err, qr/names no pid_file/, 'a signal without a pid file: told why';
    unlink folder() . '/none.conf';
    my $file = spew('run.conf', qq{load = [ "never_loaded" ];\npid_file = "run.pid";\n});
    ($rc, $out, $err) = pdplane('-s', 'stop', '-c', $file);
    is $rc, 1, 'a signal to no node: exit status';
    like $err, qr/no node runs with pid file .*run\.pid/, 'a signal to no node: told why';
}
{
    my ($rc, $out, $err) = check_text(join '', map {"wrong$_ = $_;\n"} 1 .. 25);
    my @lines = $err =~ /^pd\.conf:\d+: error: /mg;
    is scalar @lines, 20, 'twenty errors are shown';
    like $err, qr/^and 5 more errors$/m, 'the others are counted';
    like $err, qr/has 25 errors$/m, 'in the sum too';
}
{
    my ($rc, $out, $err) = check_text("# a comment\0\nwrong = 1;\n");
    is $rc, 1, 'a zero byte does not hide what follows: exit status';
    like $err, qr/^pd\.conf: error: the file contains a zero byte$/m, 'and is told';
}
{
    my ($rc, $out, $err) = pdplane('-t', '-c', folder() . '/none.conf');
    is $rc, 1, 'a file that does not exist: exit status';
    like $err, qr/none\.conf/, 'its name is told';
    ($rc) = pdplane('-t', '--bogus');
    is $rc, 2, 'an unknown switch: exit status';
    ($rc, $out, $err) = pdplane('-t', 'operand');
    is $rc, 2, 'an operand: exit status';
    ($rc, $out, $err) = pdplane('-t', '-M');
    is $rc, 2, 'two actions: exit status';
    ($rc, $out, $err) = pdplane('-s', 'drian');
    is $rc, 2, 'an unknown signal: exit status';
    like $err, qr/did you mean "drain"/, 'an unknown signal: the right one';
    ($rc, $out) = pdplane('--help');
    is $rc, 0, 'help: exit status';
    like $out, qr/examples:/, 'help has examples';
    ($rc, $out) = pdplane('-V');
    is $rc, 0, '-V: exit status';
    like $out, qr/^version \d+\.\d+\.\d+\nabi \d+\.\d+$/m, '-V: version and ABI';
    is scalar(grep { !/^[a-z_]+ \S|^modules$|^modules / } split /\n/, $out), 0, '-V: lines of key and value';
}

done_testing;
