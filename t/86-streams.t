# SPDX-License-Identifier: Apache-2.0
# Many streams at the same time through one router: all are under way at once, none
# fails, and what one of them costs is bounded.  The engine stands still until all
# have come.
#
#   PD_STREAMS=9500 make check TESTS=t/86-streams.t      the figure of doc/dev/benchmarks/streams.md
use strict;
use warnings;

use POSIX ();
use Test::More;
use Time::HiRes qw(time);

use PDPlane::Daemon qw(port until_true);
use PDPlane::Http qw(json_of);
use PDPlane::Test qw(builddir folder slurp);

use constant { PER_PORT => 500, TOKENS => 20 };
my $n = $ENV{PD_STREAMS} // 1000;
my $ports = POSIX::ceil($n / PER_PORT);
my $pdbench = builddir() . '/pdbench';

my ($hard) = slurp('/proc/self/limits') =~ /^Max open files\s+\S+\s+(\d+|unlimited)/m;
plan skip_all => "a process may have $hard descriptors only" if $hard ne 'unlimited' && $hard < 2 * $n + 300;

# Its first port; others may have taken one of the next ones.
my ($engine, $out, $base);
for my $try (1 .. 20) {
    $base = port("engine $try");
    my $err = folder() . '/engine.err';
    $engine = open($out, '-|', "exec $pdbench engine -l 127.0.0.1:$base -p $ports -i 50ms 2>$err") || die "engine: $!";
    last if (readline($out) // '') =~ /^PORT /;
    close $out;
    undef $engine;
}
die 'the engine did not start' unless defined $engine;
END { local $?; if (defined $engine) { kill $_ => $engine for qw(CONT TERM); close $out } }

my $list = join ', ', map { qq({ name = "e$_"; type = "openai"; url = "http://127.0.0.1:@{[$base + $_]}"; models = [ "bench" ]; }) } 0 .. $ports - 1;
my $router = PDPlane::Daemon->new('router', <<"CONF");
load = [ "router", "openai" ];
listen = ( { address = "127.0.0.1:%%PORT_api%%"; api = "openai"; }, { address = "127.0.0.1:%%PORT_admin%%"; api = "admin"; } );
endpoints = ( $list );
role = { router = { probe_interval = "1h"; max_requests = 20000; }; };
requests = { live = 20000; };
CONF
$router->start;
ok until_true(30, sub { ($router->metric('pdplane_router_decode_endpoints_up') // 0) == $ports }), "$ports servers are up";
sub resident { return slurp('/proc/' . $router->pid . '/status') =~ /VmRSS:\s*(\d+)/ ? $1 : 0 }
my $before = resident();

kill STOP => $engine;
my $answer = folder() . '/load.json';
my $load = fork // die "fork: $!";
if ($load == 0) {
    open STDOUT, '>', $answer or POSIX::_exit(127);
    exec $pdbench, 'load', '-u', 'http://127.0.0.1:' . $router->api_port, qw(-s -b 200 -T 300s -q --json), '-c', $n, '-n', $n, '-t', TOKENS
        or POSIX::_exit(127);
}
my $running = 0;
ok until_true(120, sub { $running = $router->metric('pdplane_requests_running') // 0; $running >= $n || waitpid($load, POSIX::WNOHANG()) }), "$n streams are under way";
is $running, $n, 'all at the same time';
my $began = time;
kill CONT => $engine;
my $peak = 0;
my $ended = until_true(300, sub {
    my $now = resident();
    $peak = $now if $now > $peak;
    return waitpid($load, POSIX::WNOHANG()) == $load;
});
my $status = $?;
ok $ended, 'they end' or kill KILL => $load;
is $status, 0, 'the load says that every request was answered';
my $r = eval { json_of(slurp($answer)) } // {};
is $r->{failed}, 0, 'none failed' or diag slurp($answer);
is $r->{ok}, $n, 'all are complete';
my $m = $router->metrics;
is $m->{'pdplane_request_outcomes_total{role="router",outcome="ok"}'}, $n, 'the books have them all as ok';
is $router->metric('pdplane_requests_running'), 0, 'none is left';
is $router->metric('pdplane_router_retries_total'), 0, 'none was sent twice';
my $each = ($peak - $before) * 1024 / $n;
my $is_sanitized = `@{[ builddir() ]}/pdplane -V` =~ /^sanitizers yes/m; # which keep memory that was freed
cmp_ok $is_sanitized ? 0 : $each, '<', 64 * 1024, 'one costs less than 64 KiB';
diag sprintf '%d streams of %d tokens: %.1f s behind the last one, %.1f KiB of memory each', $n, TOKENS, time - $began, $each / 1024 if $n > 1000;
$router->stop;

done_testing;
