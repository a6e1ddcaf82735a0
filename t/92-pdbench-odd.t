# SPDX-License-Identifier: Apache-2.0
# pdbench with values, files and servers that are not as it likes them: what is wrong is
# said, with the exit status for it; and what it shows while it works.
use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Test::More;

use PDPlane::Daemon qw(until_true);
use PDPlane::Terminal;
use PDPlane::Test qw(builddir srcdir folder run_program slurp spew test_module_dir);

my $pdbench = builddir() . '/pdbench';
my $dir = folder();

sub ends {
    my ($status, $pattern, @words) = @_;
    my ($rc, $out, $err) = run_program($pdbench, @words);
    my $name = join ' ', map { length > 30 ? substr($_, 0, 30) . '...' : $_ } map { s{.*/(?=.)}{}r } @words;
    is $rc, $status, "pdbench $name: status $status" or diag $err;
    like $status == 0 ? $out : $err, $pattern, 'and says it';
    return $out;
}

# ---- values
ends(0, qr/^pdbench \d/, $_) for '-V', '--version';
ends(0, qr/^usage/, '-h');
for my $case ([qw(load -c 0)], [qw(load -c x)], [qw(load -n 0)], [qw(load -t 1000001)], [qw(load -x 0)], [qw(load -S 0)], [qw(engine -p 0)],
    [qw(engine -t 0)], [qw(engine -S 200)], [qw(engine -F 0)], [qw(engine -B 0)], [qw(engine -s 0)], [qw(codec -n 0)],
    [qw(sched -e 0)], [qw(sched -n 0)], [qw(sched -s 0)], [qw(transport -n 0)]) {
    ends(2, qr/--[\w-]+ takes a number from \d+ to \d+, not "\w+"/, @$case);
}
ends(2, qr/takes a number from/, @$_) for [qw(load -X x)], [qw(load -X 0)], [qw(load -r 0)], [qw(load -r 1e7)], [qw(engine -j 2)], [qw(engine -E reset=2)],
    [qw(sched -p 1.5)];
ends(2, qr/takes a time such as/, @$_) for [qw(load -d x)], [qw(load -w 8d)], [qw(load -T x)], [qw(engine -i 1000h)];
ends(2, qr/takes a size such as/, @$_) for [qw(load -b x)], [qw(load -b 65m)], [qw(engine -b 1m)], [qw(codec -b 17g)], [qw(codec -f 2g)], [qw(transport -b x)];
ends(2, qr/--help/, $_, '--no-such-option') for qw(engine load transport codec sched report);
ends(2, qr/there is no argument "x"/, @$_) for [qw(load -u http://127.0.0.1:1 x)], [qw(engine x)], [qw(sched x)];
ends(2, qr/one module, not also "b"/, $_, 'a', 'b') for qw(codec transport);
ends(2, qr/--warmup must be shorter/, qw(load -u http://127.0.0.1:1 -d 1s -w 1s));
ends(2, qr/leave out --rate and --prompts/, qw(load -u http://127.0.0.1:1 -A x -f y));
ends(2, qr/--listen takes an address/, qw(engine -l nonsense));
ends(2, qr/last port is above 65535/, qw(engine -l 127.0.0.1:65535 -p 2));
ends(2, qr/--owner is for this program itself/, qw(transport --owner x shm));
ends(2, qr/at most \d+ sizes/, 'transport', '-s', join(',', ('4k') x 20), 'shm');
ends(2, qr/multiples of 8/, @$_) for [qw(codec -b 0 x)], [qw(codec -b 20 x)], [qw(codec -f 12 x)];
for my $url (qw(http:// http://:80 http://[::1 http://127.0.0.1: http://127.0.0.1:0 http://127.0.0.1:x), 'http://' . 'x' x 300) {
    ends(2, qr/--url has no valid host and port/, 'load', '-u', $url);
}
ends(2, qr/--url is too long/, 'load', '-u', 'http://127.0.0.1:1/' . 'x' x 5000);
ends(1, qr/cannot (?:begin with|look up)/, 'load', '-q', '-u', 'http://a..b');

# ---- files
ends(1, qr/cannot read .*none/, 'load', '-u', 'http://127.0.0.1:1', '-f', "$dir/none");
ends(1, qr/there is no prompt in/, 'load', '-u', 'http://127.0.0.1:1', '-f', spew('blank', "\n  \n"));
for my $line ('x', '[]', '{"timestamp":-1,"input_length":1,"output_length":1}', '{"timestamp":1e13,"input_length":1,"output_length":1}',
    '{"timestamp":1,"input_length":0,"output_length":1}', '{"timestamp":1,"input_length":1e9,"output_length":1}',
    '{"timestamp":1,"input_length":1}', '{"timestamp":1,"input_length":1,"output_length":1e9}',
    '{"timestamp":1,"input_length":1,"output_length":1,"hash_ids":3}', '{"timestamp":1,"input_length":1,"output_length":1,"hash_ids":["x"]}') {
    ends(1, qr/trace:2: ./, 'load', '-u', 'http://127.0.0.1:1', '-A',
        spew('trace', qq({"timestamp":0,"input_length":1,"output_length":0}\n$line\n)));
}
my $lossy = test_module_dir() . '/broken_codec.so';
ends(1, qr/cannot open.*none/, 'codec', '-d', 'bf16', '-i', "$dir/none", $lossy);
ends(1, qr/it has no bytes/, 'codec', '-d', 'bf16', '-i', spew('short', 'abc'), $lossy);
ends(1, qr/--options:\d+: .*unknown option "x"/s, 'codec', '-o', 'x = 1;', $lossy);
ends(1, qr/has no codec/, 'codec', test_module_dir() . '/good.so');
ends(1, qr/has no transport/, 'transport', '-b', '4m', test_module_dir() . '/good.so');
ends(1, qr/cannot read .*none/, 'report', "$dir/none");
ends(2, qr/at most 32 runs/, 'report', ('x') x 33);
# Runs that lack figures, or have other things there: shown as "-".
for my $run ('{"kind":"load"}', '{"kind":"load","conditions":3,"ttft":{"buckets":[3,[],[1],["x",1],[1,"x"],[0.5,2]]},"timeline":{"slice_seconds":0.1,"ok":[1,"x",2]}}',
    '{"kind":"load","conditions":{"a":1,"' . 'n' x 100 . '":2,"b":"text"},"timeline":{"slice_seconds":0,"ok":[1]},"requests":0}',
    '{"kind":"transport"}', '{"kind":"transport","rows":3}', '{"kind":"transport","rows":[{"scattered":true},{}]}', '{"kind":"codec","rows":[{"dtype":3,"order":"x"}]}',
    '{"kind":"codec"}', '{"kind":"sched"}', '{"kind":"sched","p50_ns":"x","p99.9_ns":7}') {
    my $path = spew('odd.json', $run);
    unlike ends(0, qr{</html>\n\z}, 'report', $path), qr/\bnan\b|\binf\b/, 'no number is none';
    ends(0, qr{</html>\n\z}, 'report', $path, spew('other.json', '{"kind":"load","conditions":{"a":5},"requests":1500,"ok":2.5,"late":0}'), $path);
}
ends(0, qr/\A\z/, 'report', '-o', "$dir/page.html", "$dir/other.json");
like slurp("$dir/page.html"), qr{<td>1500</td>.*</html>}s, 'written to a file';
ends(1, qr/cannot write/, 'report', '-o', "$dir/none/page.html", "$dir/other.json");
ends(1, qr/cannot write/, 'report', '-o', '/dev/full', "$dir/other.json") if -w '/dev/full';

# ---- tables
my $planes = builddir() . '/modules/codec/planes/.libs/planes.so';
if (-e $planes) {
    like ends(0, qr/\A64 KiB of made KV/, 'codec', '-b', '64k', '-f', '24k', '-n', 3, '-d', 'bf16,f8', $planes), qr/^bf16 +block_layer .* none +none$/m, 'a table';
    ends(0, qr/as given/, 'codec', '-d', 'f32', '-n', 2, '-i', spew('kv', "\1\2\3\4" x 1000), $planes);
}
my $shm = builddir() . '/modules/transport/shm/.libs/shm.so';
ends(0, qr/64/, 'transport', '-b', '128k', '-s', '64k,32k', '-n', 3, '-P', $dir, '-o', '', $shm) if -e $shm;
my $conf = spew('sched.conf', qq(module_path = [ "@{[ PDPlane::Daemon::modules_folder() ]}" ];\nload = [ "router" ];\n)
    . qq(listen = ( { address = "127.0.0.1:0"; api = "openai"; } );\n));
my $good = spew('good.trace', qq({"timestamp":0,"input_length":600,"output_length":3,"hash_ids":[7,8]}\n{"timestamp":1,"input_length":700,"output_length":1}\n));
like ends(0, qr/^50 decisions over 4 endpoints/, 'sched', '-c', $conf, '-e', 4, '-n', 50, '-s', 7), qr/^hashing: [\d.]+ GB\/s/m, 'lines';
is decode_json(ends(0, qr/"decisions":9/, 'sched', '-c', $conf, '-e', 4, '-n', 9, '-A', $good, '-J'))->{conditions}{trace}, $good, 'of a trace';
is decode_json(ends(0, qr/"no_endpoint":9/, 'sched', '-c', $conf, '-e', 4, '-p', 1, '-n', 9, '-J'))->{no_endpoint}, 9, 'nobody decodes';
ends(1, qr/none/, 'sched', '-c', $conf, '-A', "$dir/none");
ends(1, qr/timestamp/, 'sched', '-c', $conf, '-A', spew('bad.trace', "{}\n"));

# ---- an engine, and loads on it
my @engine;
sub engine {
    my (@words) = @_;
    my $pid = open my $out, '-|', "exec $pdbench engine @words 2>&1" or die "engine: $!";
    my ($port) = (<$out> // '') =~ /^PORT (\d+)$/ or die 'no port';
    push @engine, [ $pid, $out ];
    return $port;
}
my $port = engine(qw(--ttft 5ms --itl 1ms --spread normal --jitter 0.3 --pad 10 --tokens 3 --model m --fail-every 3 --break-after 2 --seed 9));
my @load = ('load', '-q', '-J', '-m', 'm', '-u', "http://127.0.0.1:$port/");
my $r = decode_json(ends(1, qr/\A\z/, @load, '-n', 6, '-c', 1));
is_deeply [ @$r{qw(ok failed)}, $r->{errors}{'5xx'} ], [ 4, 2, 2 ], 'each third fails';
$r = decode_json(ends(1, qr/\A\z/, @load, '-n', 2, '-c', 1, '-s'));
is $r->{errors}{cut}, 2, 'streams are cut';
$port = engine(qw(--spread lognormal --jitter 0.1));
@load = ('load', '-J', '-u', "http://127.0.0.1:$port");
is decode_json(ends(0, qr/constant/, @load, '-q', '-n', 5, '-r', 200, '-C', '-e', '-k', 'key'))->{conditions}{arrivals}, 'constant', 'constant distances';
is decode_json(ends(0, qr/poisson/, @load, '-q', '-d', '200ms', '-w', '1ms', '-r', 100))->{conditions}{arrivals}, 'poisson', 'or chance';
SKIP: {
    my $probe = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die;
    my ($rc, undef, $err) = run_program($pdbench, 'load', '-q', '-n', 1, '-u', 'http://[::1]:' . $probe->sockport . '/');
    is $rc, 1, 'an address in brackets';
    unlike $err, qr/no valid host/, 'is one';
}
# Progress, a line a second, or one that is written again; and interrupted, once or twice.
my $slow = engine(qw(--ttft 1h));
for my $times (1, 2) {
    my ($out, $err) = map { spew($_, '') } 'load.out', 'load.err';
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDOUT, '>', $out or POSIX::_exit(126);
        open STDERR, '>', $err or POSIX::_exit(126);
        exec $pdbench, 'load', '-c', 2, '-d', '1h', $times == 2 ? () : ('-T', '500ms'), '-u', "http://127.0.0.1:" . ($times == 2 ? $slow : $port) or POSIX::_exit(127);
    }
    until_true(60, sub { slurp($err) =~ /under way/ });
    like slurp($err), qr/^\d+ ok \(\d+\/s\), 0 failed, \d under way\n/m, 'progress';
    kill INT => $pid;
    until_true(60, sub {
        return 1 if waitpid($pid, POSIX::WNOHANG()) == $pid;
        kill INT => $pid if $times == 2;
        return 0;
    });
    is $?, $times == 2 ? 1 << 8 : 0, $times == 2 ? 'interrupted twice: what was under way has failed' : 'interrupted';
    like slurp($out), qr/^\d+ requests in /, 'and tells what was until then';
}
my $t = PDPlane::Terminal->new($pdbench, 'load', '-d', '1h', '-c', 1, '-u', "http://127.0.0.1:$port");
SKIP: {
    skip 'no terminals', 2 unless $t;
    like $t->until(qr/\e\[K\d+ ok .*\e\[K\d+ ok/s), qr/\r\e\[K\d+ ok \(\d+\/s\), 0 failed, \d under way\r\e\[K\d/, 'on a terminal it is one line';
    kill INT => $t->pid;
    is $t->status, 0, 'that is gone at the end';
}
for my $e (@engine) {
    kill TERM => $e->[0];
    close $e->[1];
}
done_testing;
