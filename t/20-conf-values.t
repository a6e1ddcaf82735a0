# SPDX-License-Identifier: Apache-2.0
# The effective configuration: what -T prints is complete and reads back.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

sub dump_of {
    my ($text, @more) = @_;
    my $path = spew('pd.conf', $text);
    my ($rc, $out, $err) = pdplane('-T', '-c', $path, @more);
    is $rc, 0, 'good' or diag $err;
    return $out;
}

# The dump without comments, one value per line as "a.b.0.c = value".
sub values_of {
    my ($text) = @_;
    my (%value, @path, @index);
    for my $line (split /\n/, $text) {
        $line =~ s/\s+# .*$//;
        $line =~ s/^\s+//;
        next if $line eq '' || $line =~ /^#/;
        if    ($line =~ /^(\w+) = [{(]$/) { push @path, $1; push @index, 0 }
        elsif ($line eq '{')              { push @path, $index[-1]++; push @index, 0 }
        elsif ($line =~ /^[)}][;,]?$/)    { pop @path; pop @index }
        elsif ($line =~ /^(\w+) = (.*);$/) { $value{ join '.', @path, $1 } = $2 }
        else                              { fail "line \"$line\" is understood" }
    }
    return \%value;
}

my $text = <<'EOT';
# a comment
node : { name = "n1" /* inner */ }
drain = "1m30s"; // to the end
listen = (
  { address = "127.0.0.1:8000"; api = "openai"; },
  { address = "[::1]:9090"; api = "admin" },
);
log = { level = "debug", format = "json" };
limits = { connections = 0x10; };
requests = { explain = "1.5k"; };
link = { heartbeat = "500ms"; suspect = "1h"; };
peers = ( { address = "p" "1" ":7000"; } );
EOT
$text =~ s/suspect = "1h"; //;

my $dump = dump_of($text);
my $v = values_of($dump);
is $v->{'node.name'}, '"n1"', 'a string';
is $v->{drain}, '"90s"', 'a duration in its shortest form';
is $v->{'listen.0.address'}, '"127.0.0.1:8000"', 'a list';
is $v->{'listen.1.api'}, '"admin"', 'a trailing comma';
is $v->{'log.level'}, '"debug"', 'a word';
is $v->{'limits.connections'}, '16', 'a hexadecimal number';
is $v->{'requests.explain'}, '"1536"', 'a size';
is $v->{'link.heartbeat'}, '"500ms"', 'milliseconds';
is $v->{'link.dead'}, '"3500ms"', 'a default';
is $v->{'peers.0.address'}, '"p1:7000"', 'strings that follow each other are one';
like $dump, qr/^drain = "90s";\s+# \S*pd\.conf:3$/m, 'the place of a value';
like $dump, qr/^  dead = "3500ms";\s+# default$/m, 'a default is marked';
like $dump, qr/^  # secret is not set$/m, 'what is not set is marked';

is_deeply values_of(dump_of($dump)), $v, 'the dump reads back to itself';
my $empty = dump_of('');
is_deeply values_of(dump_of($empty)), values_of($empty), 'so does the dump of nothing';
is dump_of($text), $dump, 'the same file gives the same dump';

{
    local $ENV{PD_T_NAME} = 'from "outside" ${X}';
    my $d = dump_of('node = { name = "a ${PD_T_NAME} $${B}\\n"; };');
    is values_of($d)->{'node.name'}, '"a from \"outside\" $${X} $${B}\n"', 'variables, quotes and escapes';
    is_deeply values_of(dump_of($d)), values_of($d), 'read back';
}
{
    my $d = dump_of('log = { file = "x/y.log"; };');
    is values_of($d)->{'log.file'}, '"' . folder() . '/x/y.log"', 'a path beside the configuration';
    my $p = spew('other/z', '');
    my $e = dump_of('log = { file = "x/y.log"; };', '-p', folder() . '/other');
    is values_of($e)->{'log.file'}, '"' . folder() . '/other/x/y.log"', 'a path below the prefix';
    spew('other/pd.conf', 'node = { name = "by prefix"; };');
    my ($rc, $out) = pdplane('-T', '-p', folder() . '/other');
    is values_of($out)->{'node.name'}, '"by prefix"', 'the configuration below the prefix';
}
{
    my $d = dump_of("\xef\xbb\xbfnode = { name = \"\xc3\xa4\"; };\r\n");
    is values_of($d)->{'node.name'}, "\"\xc3\xa4\"", 'byte order mark, line ends of other systems, UTF-8';
}
{
    my ($rc, $out) = pdplane('-O');
    is $rc, 0, '-O';
    for my $path (sort keys %$v) {
        (my $row = $path) =~ s/\.\d+//g;
        like $out, qr/^\Q$row\E  \(/m, "-O knows $row";
    }
    my @without = grep { !/\n    \S/ } $out =~ /^(\S+  \(.*\)\n(?:    .*\n)*)/mg;
    is "@without", '', 'each option has a help text';
    ($rc, $out) = pdplane('-O', '--mdoc');
    like $out, qr/^\.Bl -tag.*^\.It Ic listen\.address\n.*^\.El$/ms, '-O --mdoc';
}
SKIP: {
    my $dir = test_module_dir();
    skip 'test modules are not built', 1 unless -e "$dir/good.so";
    mkdir folder() . '/m', 0755;
    require File::Copy;
    File::Copy::copy("$dir/good.so", folder() . '/m/good.so');
    chmod 0755, folder() . '/m/good.so';
    my $head = "module_path = [ \"m\" ]; load = [ \"good\" ];\n";
    my $d = dump_of($head . 'scheduler = { pickers = ( { module = "good-picker"; start = 3; flag = FALSE; } ); };');
    is values_of($d)->{'scheduler.pickers.0.module'}, '"good"', 'an alias of a unit';
    is values_of($d)->{'scheduler.pickers.0.start'}, '3', "a unit's option";
    is values_of($d)->{'scheduler.pickers.0.flag'}, 'false', 'false in capitals';
    is values_of($d)->{'scheduler.pickers.0.window'}, '"4k"', "a unit's default";
    is_deeply values_of(dump_of($d)), values_of($d), 'read back';
    my ($rc, $out, $err) = check_text($head . "scheduler = { pickers = (\n { module = \"good\"; strat = 3; } ); };");
    like $err, qr/^pd\.conf:3: error: unknown option "strat" in pickers number 1 of "scheduler" \(did you mean "start"\?\)/m,
        "a misspelt option of a unit";
    ($rc, $out, $err) = check_text($head . "scheduler = { pickers = (\n { module = \"good\"; start = 13; } ); };");
    like $err, qr/^pd\.conf:3: error: picker "good" does not start at 13$/m, "a unit's own check";
    for my $value ('1', '"yes"') {
        ($rc, $out, $err) = check_text($head . "scheduler = { pickers = ( { module = \"good\"; flag = $value; } ); };");
        like $err, qr/option "flag" in pickers number 1 of "scheduler" must be true or false, not an? \w+/, "no boolean: $value";
    }
    ($rc, $out, $err) = check_text($head . 'scheduler = { scorers = ( { module = "good"; } ); };');
    like $err, qr/"good" is no scorer, module "good" provides it as picker/, 'a unit of another kind';
}

done_testing;
