# SPDX-License-Identifier: Apache-2.0
# pdbench as people run it: help and page agree, an engine and a load in two
# processes, what the exit status says.
use strict;
use warnings;

use Test::More;
use JSON::PP;

use PDPlane::Test qw(builddir srcdir slurp spew run_program);

my $pdbench = builddir() . '/pdbench';
my $page = slurp(srcdir() . '/doc/man/pdbench.1.in');

my ($rc, $out, $err) = run_program($pdbench, '--help');
is $rc, 0, '--help';
like $out, qr/^usage: pdbench .*^commands:\n.*^examples:\n/ms, 'teaches';
for my $command (qw(engine load)) {
    ($rc, $out) = run_program($pdbench, $command, '--help');
    is $rc, 0, "$command --help";
    my ($part) = $page =~ /^\.Ss pdbench $command\n(.*?)^\.S[sh] /ms;
    my @help = $out =~ /^  -\w, --([\w-]+)/mg;
    my @man = $part =~ /^\.It Fl \w , -([\w-]+)/mg;
    is_deeply \@man, \@help, "pdbench(1) has the options of $command";
}
for my $bad ([], ['nothing'], ['load'], ['load', '--rate', 'x', '-u', 'http://127.0.0.1:1'], ['engine', '--ttft', '5'],
             ['load', '-u', 'ftp://x'], ['engine', 'x'], ['load', '-u', 'http://127.0.0.1:99999']) {
    ($rc, $out, $err) = run_program($pdbench, @$bad);
    is $rc, 2, "usage: @$bad";
    isnt $err, '', 'says why';
}

my $pid = open my $engine, '-|', $pdbench, 'engine', '--ports', 3, '--ttft', '20ms', '--itl', '1ms' or die "engine: $!";
my ($port) = (<$engine> // '') =~ /^PORT (\d+)$/ or die 'no port';
my @url = ('-u', "http://127.0.0.1:$port", '-q');
($rc, $out, $err) = run_program($pdbench, 'load', @url, '-s', '-n', 40, '-c', 8, '-t', 10, '--json');
is $rc, 0, 'streams' or diag $err;
my $r = decode_json($out);
is $r->{ok}, 40, 'all answered';
is $r->{tokens}, 400, 'all tokens';
cmp_ok $r->{ttft}{min}, '>=', 0.02, 'first tokens after the time that was set';
is $r->{itl}{count}, 360, 'times between tokens';
my $prompts = spew('prompts', qq(one\n\n{"messages":[],"max_tokens":2}\nthree\n));
($rc, $out) = run_program($pdbench, 'load', @url, '-f', $prompts, '-r', 100, '-n', 20);
is $rc, 0, 'prompts from a file, open loop';
like $out, qr/^20 requests in .*: 20 ok, 0 failed$/m, 'a table';
kill TERM => $pid;
close $engine;
is $?, 0, 'the engine ends well';
($rc, $out) = run_program($pdbench, 'load', @url, '-n', 5);
is $rc, 1, 'nobody there';
like $out, qr/failed: connect +5/, 'said so';

done_testing;
