# SPDX-License-Identifier: Apache-2.0
# What a stream that has begun holds in a router: two loads of as many streams, one
# behind the other; what the process has allocated with both less what it had with one is
# the second one's.  Pools and what is made once fall out.
use strict;
use warnings;

use Test::More;

use PDPlane::Daemon qw(port until_true);
use PDPlane::Test qw(builddir folder slurp);

use constant { STREAMS => 300, MOST => 3600 };
my $pdbench = builddir() . '/pdbench';
my ($hard) = slurp('/proc/self/limits') =~ /^Max open files\s+\S+\s+(\d+|unlimited)/m;
plan skip_all => "a process may have $hard descriptors only" if $hard ne 'unlimited' && $hard < 4 * STREAMS + 300;
plan skip_all => 'an allocator of sanitizers is another one' if `@{[ builddir() ]}/pdplane -V` =~ /^sanitizers yes/m;

my @started;
END { local $?; for (@started) { kill TERM => $_->[0]; close $_->[1] } }
# Its first port; others may have taken the next one.
sub engine {
    for my $try (1 .. 20) {
        my $port = port("engine $try");
        my $err = folder() . '/engine.err';
        my $pid = open(my $out, '-|', "exec $pdbench engine -l 127.0.0.1:$port -p 2 -i 400ms 2>$err") || die "engine: $!";
        if ((readline($out) // '') =~ /^PORT /) { push @started, [ $pid, $out ]; return $port }
        close $out;
    }
    die 'the engine did not start';
}
my $base = engine();
my $list = join ', ', map { qq({ name = "e$_"; type = "openai"; url = "http://127.0.0.1:@{[$base + $_]}"; models = [ "bench" ]; }) } 0, 1;
my $router = PDPlane::Daemon->new('router', <<"CONF");
load = [ "router", "openai" ];
listen = ( { address = "127.0.0.1:%%PORT_api%%"; api = "openai"; }, { address = "127.0.0.1:%%PORT_admin%%"; api = "admin"; } );
endpoints = ( $list );
role = { router = { probe_interval = "1h"; }; };
CONF
$router->start;
ok until_true(30, sub { ($router->metric('pdplane_router_decode_endpoints_up') // 0) == 2 }), 'both servers are up';

# Streams of a load that are under way, each with some events: they all have the same pace.
sub load {
    my ($running) = @_;
    my $before = $router->metric('pdplane_itl_seconds_count') // 0;
    my $pid = open(my $out, '-|', "exec $pdbench load -u http://127.0.0.1:@{[ $router->api_port ]} -s -b 200 -t 2000 -T 300s -q -c @{[ STREAMS ]} -n @{[ STREAMS ]} 2>/dev/null")
        || die "load: $!";
    push @started, [ $pid, $out ];
    ok until_true(120, sub { ($router->metric('pdplane_requests_running') // 0) == $running }), "$running streams are under way";
    ok until_true(120, sub { ($router->metric('pdplane_itl_seconds_count') // 0) >= $before + 5 * $running }), 'all have some events';
    return $router->metric('pdplane_process_heap_bytes');
}
my $one = load(STREAMS);
my $two = load(2 * STREAMS);
SKIP: {
    skip 'this system does not tell what is allocated', 1 unless $two;
    my $each = ($two - $one) / STREAMS;
    note sprintf '%.0f bytes for each stream', $each;
    cmp_ok $each, '<=', MOST, 'a stream that has begun holds at most ' . MOST . ' bytes';
}
kill TERM => $_->[0] for @started[ 1, 2 ];
ok until_true(60, sub { ($router->metric('pdplane_requests_running') // 1) == 0 }), 'none is left';
$router->stop;

done_testing;
