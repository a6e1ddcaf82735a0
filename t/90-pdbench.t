# SPDX-License-Identifier: Apache-2.0
# pdbench as people run it: help and page agree, an engine and a load in two
# processes, what the exit status says.
use strict;
use warnings;

use Test::More;
use JSON::PP;

use PDPlane::Test qw(builddir srcdir folder slurp spew run_program test_module_dir);

my $pdbench = builddir() . '/pdbench';
my $page = slurp(srcdir() . '/doc/man/pdbench.1.in');

my ($rc, $out, $err) = run_program($pdbench, '--help');
is $rc, 0, '--help';
like $out, qr/^usage: pdbench .*^commands:\n.*^examples:\n/ms, 'teaches';
for my $command (qw(engine load transport codec sched report)) {
    ($rc, $out) = run_program($pdbench, $command, '--help');
    is $rc, 0, "$command --help";
    my ($part) = $page =~ /^\.Ss pdbench $command\n(.*?)^\.S[sh] /ms;
    my @help = $out =~ /^  -\w, --([\w-]+)/mg;
    my @man = $part =~ /^\.It Fl \w , -([\w-]+)/mg;
    is_deeply \@man, \@help, "pdbench(1) has the options of $command";
}
for my $bad ([], ['nothing'], ['engine', '-E', 'reset'], ['engine', '-E', 'x=1'], ['engine', '-E', 'cut=0.7', '-E', '503=0.4'],
             ['engine', '-d', 'x'], ['report'], ['sched'], ['codec'], ['codec', '-d', 'f12', 'x'], ['codec', '-i', 'x', 'y'], ['codec', '-f', 7, 'x'], ['sched', '-c', 'x', '-p', 2], ['transport'], ['transport', '-b', '5000', '-s', '4k', 'shm'], ['transport', '-s', 'x', 'shm'], ['load'], ['load', '--rate', 'x', '-u', 'http://127.0.0.1:1'], ['engine', '--ttft', '5'],
             ['load', '-u', 'ftp://x'], ['engine', 'x'], ['load', '-u', 'http://127.0.0.1:99999'],
             ['load', '-u', 'http://127.0.0.1:1', '-A', 'x', '-r', 5]) {
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
is_deeply [map { scalar @$_ } @{ $r->{timeline} }{qw(ok failed tokens ttft)}], [(scalar @{ $r->{timeline}{ok} }) x 4],
    'a timeline';
my $sum = sub { my $n = 0; $n += $_ for @_; $n };
is $sum->(@{ $r->{timeline}{tokens} }), 400, 'with all tokens';
is $sum->(map { $_->[1] } @{ $r->{itl}{buckets} }), 360, 'a histogram';
like $r->{conditions}{kernel}, qr/^\d/, 'the kernel';
is $r->{conditions}{arrivals}, 'closed loop', 'how requests came';
cmp_ok $r->{client_utilisation}, '>', 0, 'what the load itself took';

# Saved runs as a page: every figure of the run, nothing from elsewhere.
my $saved = spew('a<b>.json', encode_json($r));
($rc, $out, $err) = run_program($pdbench, 'report', $saved, $saved);
is $rc, 0, 'a report' or diag $err;
is scalar(() = $out =~ /<svg /g), 6, 'six plots';
is scalar(() = $out =~ /<polyline /g), 12, 'of two runs';
like $out, qr{<tr><th>answered</th><td>40</td><td>40</td><td>1</td></tr>}, 'figures and ratios';
like $out, qr/a&lt;b&gt;\.json/, 'names are text';
unlike $out, qr/https?:(?!\/\/127)|<script|<link|src=/, 'needs nothing else';
my ($share) = $out =~ /first token: share.*?<polyline [^>]*points="([^"]*)"/s;
my @y = map { (split /,/)[1] } split ' ', $share;
ok @y > 1 && !(grep { $y[$_] > $y[$_ - 1] } 1 .. $#y) && $y[-1] == 28, 'shares grow to 1';
for my $bad ('{"kind":"x"}', '{"kind"') {
    ($rc, $out, $err) = run_program($pdbench, 'report', spew('bad', $bad));
    is $rc, 1, 'no run';
    like $err, qr/bad/, 'which';
}

# Three requests of a trace, 100 ms apart, twice as fast; the first two begin alike.
my $trace = spew('trace', join '', map { encode_json($_) . "\n" }
    { timestamp => 5000, input_length => 600, output_length => 3, hash_ids => [7, 8] },
    { timestamp => 5100, input_length => 700, output_length => 4, hash_ids => [7, 9] },
    { timestamp => 5200, input_length => 10, output_length => 5, hash_ids => [1] });
($rc, $out, $err) = run_program($pdbench, 'load', @url, '-s', '-A', $trace, '-X', 2, '-S', 3, '--json');
is $rc, 0, 'a trace' or diag $err;
$r = decode_json($out);
is $r->{ok}, 3, 'each line once';
is $r->{tokens}, 12, 'with the lengths of its answers';
cmp_ok $r->{seconds}, '>=', 0.1, 'at its times';
is $r->{conditions}{body_bytes_mean} > 4 * 1310 / 3, 1, 'and of its prompts';
for my $bad ('{"timestamp":5,"input_length":1}', '{"timestamp":5', "{\"timestamp\":5,\"input_length\":9,\"output_length\":9}\n"
    . '{"timestamp":4,"input_length":9,"output_length":9}', '') {
    ($rc, $out, $err) = run_program($pdbench, 'load', @url, '-A', spew('bad', $bad));
    is $rc, 1, 'a bad trace';
    like $err, qr/bad:\d+: ./, 'names the line';
}
kill TERM => $pid;
close $engine;
is $?, 0, 'the engine ends well';
# The fields of a hand-over between servers: what a prefill answers, a decode needs.
$pid = open $engine, '-|', "exec $pdbench engine --need-kv --fault error=1 2>&1" or die "engine: $!";
($port) = (<$engine> // '') =~ /^PORT (\d+)$/ or die 'no port';
my $ask = sub { run_program('curl', '-s', "http://127.0.0.1:$port/v1/completions", '-d', encode_json($_[0])) };
($rc, $out) = $ask->({ prompt => 'x' x 400, max_tokens => 1, kv_transfer_params => { do_remote_decode => JSON::PP::true } });
my $first = decode_json($out);
cmp_ok scalar @{ $first->{kv_transfer_params}{remote_block_ids} }, '>=', 7, 'block ids of the prompt';
is $first->{choices}[0]{finish_reason}, 'error', 'the fault that was asked for';
($rc, $out) = $ask->({ prompt => 'x', kv_transfer_params => $first->{kv_transfer_params} });
ok !decode_json($out)->{error}, 'taken by a decode';
($rc, $out) = $ask->({ prompt => 'x', kv_transfer_params => { do_remote_prefill => JSON::PP::true } });
is decode_json($out)->{error}{code}, 'kv_transfer_params', 'a decode without them is refused';
kill TERM => $pid;
$out = do { local $/; <$engine> };
close $engine;
like $out, qr/^kv_transfer_params: 1 prefills, 2 decodes$/m, 'counted';

($rc, $out) = run_program($pdbench, 'load', '-u', 'http://127.0.0.1:1', '-q', '-n', 5);
is $rc, 1, 'nobody there';
like $out, qr/failed: connect +5/, 'said so';

my @saved;
my %options = (ucx => 'transports = "tcp,self";', ofi => 'provider = "tcp;ofi_rxm";');
for my $module (qw(shm tcp ucx ofi)) {
    SKIP: {
        my $file = builddir() . "/modules/transport/$module/.libs/$module.so";
        skip "$module is not built", 4 unless -e $file;
        ($rc, $out, $err) = run_program($pdbench, 'transport', map({ ('-o', $_) } $options{$module} // ()), '-b', '4m', '-s', '4k,1m', '-n', 2, '--json', $file);
        is $rc, 0, "transport $module" or diag $err;
        push @saved, spew("$module.json", $out);
        my $rows = decode_json($out)->{rows};
        is_deeply [map { "$_->{segment} " . ($_->{scattered} ? 1 : 0) } @$rows], ['4096 0', '4096 1', '1048576 0', '1048576 1'],
            'each size, in order and shuffled';
        is scalar(grep { $_->{module} > 0 && $_->{memcpy} > 0 && $_->{stream} > 0 } @$rows), 4, 'beside the floors';
        is scalar(grep { abs($_->{segments_per_second} * $_->{segment} / 1e9 / $_->{module} - 1) < 1e-6 } @$rows), 4, 'one time behind all';
    }
}
# A codec: what it gives back is what it was given, and shorter where it says so.
SKIP: {
    my $file = builddir() . '/modules/codec/planes/.libs/planes.so';
    skip 'planes is not built', 8 unless -e $file;
    ($rc, $out, $err) = run_program($pdbench, 'codec', '-b', '2m', '-f', '256k', '-n', 1, '--json', $file);
    is $rc, 0, 'codec planes' or diag $err;
    push @saved, spew('planes.json', $out);
    my $rows = decode_json($out)->{rows};
    is_deeply [map { "$_->{dtype} $_->{order}" } @$rows],
        [map { ("$_ block_layer", "$_ layer_block") } qw(f32 f16 bf16 f8)], 'each type in both orders';
    is scalar(grep { $_->{exact} && $_->{max_error} == 0 && $_->{encode} > 0 && $_->{decode} > 0 && $_->{memcpy} > 0 } @$rows), 8,
        'nothing is lost';
    is scalar(grep { abs($_->{plain_bytes} / $_->{encoded_bytes} / $_->{ratio} - 1) < 1e-6 } @$rows), 8, 'ratios of bytes';
    cmp_ok $rows->[4]{ratio}, '>', 1.2, 'bf16 gets shorter';
    my $zeros = spew('zeros', "\0" x 100_000);
    ($rc, $out) = run_program($pdbench, 'codec', '-d', 'bf16', '-i', $zeros, '-n', 1, '--json', $file);
    cmp_ok decode_json($out)->{rows}[0]{ratio}, '>', 50, 'a file of zeros nearly vanishes';
    my $lossy = test_module_dir() . '/broken_codec.so';
    ($rc, $out, $err) = run_program($pdbench, 'codec', '-b', '1m', '-n', 1, '-o', 'fault = "lossy";', $lossy);
    is $rc, 1, 'a codec that does not keep its word';
    like $err, qr/claims to lose nothing/, 'is told';
}
# Decisions of a configuration's scheduler: its index fills.
my @found = grep { -e } map { builddir() . "/modules/$_.so" } map { m{([^/]+)$} ? "$_/.libs/$1" : () }
    qw(role/router scheduler/filter/role scheduler/filter/health scheduler/score/prefix_cache scheduler/score/load_aware
       scheduler/pick/max_score scheduler/decide/pd_threshold);
my $path = folder() . '/modules';
mkdir $path;
symlink $_, "$path/" . (m{([^/]+)$})[0] for @found;
sub sched_of {
    my ($threshold, @args) = @_;
    my $conf = spew('router.conf', qq(module_path = [ "$path" ];\nload = [ "router" ];\n)
        . qq(listen = ( { address = "127.0.0.1:0"; api = "openai"; } );\n)
        . qq(scheduler = { decider = { module = "pd_threshold"; unit = "tokens"; threshold = $threshold; }; };\n));
    ($rc, $out, $err) = run_program($pdbench, 'sched', '-c', $conf, '--json', @args);
    is $rc, 0, "sched with threshold $threshold" or diag $err;
    return eval { decode_json($out) } // {};
}
my $sched = sched_of(0, '-e', 20, '-n', 3000);
is $sched->{no_endpoint}, 0, 'always an endpoint';
is $sched->{with_prefill}, 1, 'both kinds are chosen';
cmp_ok $sched->{blocks_matched}, '>', 0.3, 'sessions find what they sent before';
push @saved, spew('sched.json', encode_json($sched));

# All kinds of runs on one page: a part for each, with its figures and plots.
($rc, $out, $err) = run_program($pdbench, 'report', $saved, @saved);
is $rc, 0, 'a report of all kinds' or diag $err;
is_deeply [$out =~ m{<h2>(\w+)</h2>}g], ['Load', (grep { /shm|tcp|ucx|ofi/ } @saved) ? 'Transports' : (),
    (grep { /planes/ } @saved) ? 'Codecs' : (), 'Scheduler', 'Conditions'], 'the parts';
unlike $out, qr/nan|inf\b/, 'numbers are numbers';
for my $path (grep { /shm|tcp|ucx|ofi|planes/ } @saved) {
    my $r = decode_json(slurp($path));
    my ($table) = $out =~ m{<table><tr><th>\Q@{[ $path =~ m{([^/]+)$} ]}\E</th><th>(.*?)</table>}s;
    is scalar(() = ($table // '') =~ /<tr>/g), scalar @{ $r->{rows} }, 'a line for each row';
    my ($first) = ($table // '') =~ m{</th></tr>\n<tr><th>[^<]*</th><td>([^<]*)</td>};
    my $want = $r->{rows}[0]{ $path =~ /planes/ ? 'ratio' : 'module' };
    cmp_ok abs($first / $want - 1), '<', 1e-3, 'with its figures';
}
my ($p50) = $out =~ m{<tr><th>p50, us</th><td>([^<]*)</td></tr>};
cmp_ok abs($p50 * 1e3 / $sched->{p50_ns} - 1), '<', 1e-3, 'figures of the scheduler';
($rc, $out, $err) = run_program($pdbench, 'report', ($saved) x 9);
is $rc, 1, 'too many runs of a kind';
like $err, qr/at most 8 runs of load/, 'are told';
ok 0 < $sched->{p50_ns} && $sched->{p50_ns} <= $sched->{p99_ns} && $sched->{p99_ns} <= $sched->{'p99.9_ns'}, 'times of decisions';
is sched_of(25, '-n', 500, '-p', 0)->{with_prefill}, 0, 'no prefill node, none chosen';
($rc, $out, $err) = run_program($pdbench, 'sched', '-c', spew('wrong.conf', 'load = [ "nothing" ];'));
is $rc, 1, 'a wrong configuration';
like $err, qr/wrong\.conf:1/, 'where';

($rc, $out, $err) = run_program($pdbench, 'transport', '-b', '4m', '/nowhere/x.so');
is $rc, 1, 'no such module';
like $err, qr{/nowhere/x\.so}, 'which';

done_testing;
