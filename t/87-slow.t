# SPDX-License-Identifier: Apache-2.0
# Clients that send slowly or never read cost themselves only: they are cut off in
# time, what is held for them is bounded, and others are served meanwhile.
#
#   PD_DEAF=1000 make check TESTS=t/87-slow.t      so many that never read, not 200
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::Http qw(get post json_of open_stream);
use PDPlane::Test qw(builddir slurp);

my $n_deaf = $ENV{PD_DEAF} // 200;
{
    no warnings 'once';
    $PDPlane::FakeEngine::answers{by_prompt} = sub {
        my ($request, $send) = @_;
        $send->("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n") or return 0;
        for my $i (1 .. 2) {
            $send->(PDPlane::FakeEngine::chunk(qq(data: {"choices":[{"index":0,"delta":{"content":"xxxxx"}}]}\n\n))) or return 0;
        }
        return $send->(PDPlane::FakeEngine::chunk("data: [DONE]\n\n") . "0\r\n\r\n");
    };
}
my $engine = PDPlane::FakeEngine->new('e', models => ['m'], mode => 'by_prompt');
# One that writes as fast as it is read.
my $flood = open(my $flooding, '-|', 'exec ' . builddir() . '/pdbench engine -l 127.0.0.1:0 -m flood -b 2000 -t 4000 2>/dev/null') || die "engine: $!";
END { local $?; if (defined $flood) { kill TERM => $flood; close $flooding } }
my ($flood_port) = (readline($flooding) // '') =~ /^PORT (\d+)/ or die 'the engine did not start';
my $drip = open(my $dripping, '-|', 'exec ' . builddir() . '/pdbench engine -l 127.0.0.1:0 -m drip -f 4s -i 700ms 2>/dev/null') || die "engine: $!";
END { local $?; if (defined $drip) { kill TERM => $drip; close $dripping } }
my ($drip_port) = (readline($dripping) // '') =~ /^PORT (\d+)/ or die 'the engine did not start';
my $n = PDPlane::Daemon->new('slow', sprintf 'load = [ "router", "openai" ];
limits = { head_timeout = "1s"; body_timeout = "1s"; write_timeout = "2s"; };
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; }, { name = "flood"; type = "openai"; url = "http://127.0.0.1:%d"; }, { name = "drip"; type = "openai"; url = "http://127.0.0.1:%d"; } );
listen = ( { address = "127.0.0.1:%%%%PORT_a%%%%"; api = "admin"; }, { address = "127.0.0.1:%%%%PORT_o%%%%"; api = "openai"; } );', $engine->port, $flood_port, $drip_port);
$n->expect_log(qr/request failed|client/);
$n->start;
my $path = '/v1/chat/completions';
sub body { return { model => $_[0] =~ /^(?:flood|drip)$/ ? $_[0] : 'm', stream => JSON::PP::true(), messages => [ { role => 'user', content => $_[0] } ] } }
sub served { my $t0 = time; my $r = post($n->api_port, $path, body('hello')); return ($r->{status} // 0) == 200 && $r->{body} =~ /\[DONE\]/ ? time - $t0 : 99 }
ok until_true(10, sub { served() < 99 }), 'a client is served';
ok until_true(10, sub { $n->metric('pdplane_router_decode_endpoints_up') == 3 }), 'all engines are up';
sub resident { return slurp('/proc/' . $n->pid . '/status') =~ /VmRSS:\s*(\d+)/ ? $1 * 1024 : 0 }

sub connect_small {
    my $s = IO::Socket::INET->new(Proto => 'tcp') or die;
    setsockopt $s, SOL_SOCKET, SO_RCVBUF, 4096;
    connect $s, Socket::pack_sockaddr_in($n->api_port, Socket::inet_aton('127.0.0.1')) or die "connect: $!";
    return $s;
}
sub rest_of {
    my ($s) = @_;
    my $raw = '';
    while (IO::Select->new($s)->can_read(8)) { sysread($s, $raw, 1 << 16, length $raw) or last }
    return PDPlane::Http::parse($raw);
}

# ---- heads and bodies that do not come
for my $case ([ head => "POST $path HTTP/1.1\r\nhost: x\r\ncontent-le" ],
    [ body => "POST $path HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{" ]) {
    my ($kind, $bytes) = @$case;
    my @slow = map { my $s = connect_small(); syswrite $s, $bytes; $s } 1 .. 100;
    my @times = map { served() } 1 .. 5;
    is scalar(grep { $_ < 5 } @times), 5, "100 slow in the $kind: others are served meanwhile";
    my @answers = map { rest_of($_) } @slow;
    is scalar(grep { ($_->{status} // 0) == 408 } @answers), 100, "each gets 408";
    is_deeply [ sort keys %{ json_of($answers[0]{body})->{error} } ], [qw(code message param type)], 'with the error object';
    is $answers[0]{headers}{'x-should-retry'}, 'false', 'and is told not to try again';
    is $n->metric(qq(pdplane_http_timeouts_total{listener="openai",kind="$kind"})), 100, 'each is counted';
    ok until_true(5, sub { ($n->metric('pdplane_http_open_connections{listener="openai",state="reading"}') // 1) == 0 }), 'none is left';
}

# ---- a server that trickles
{
    my @trickle = map { open_stream($n->api_port, $path, { %{ body('drip') }, max_tokens => 6 }) } 1 .. 100;
    ok until_true(10, sub { ($n->metric('pdplane_requests_running') // 0) == 100 }), '100 streams of a server that trickles';
    my @times = map { served() } 1 .. 5;
    is scalar(grep { $_ < 5 } @times), 5, 'others are served meanwhile';
    my @ends = map { my @e = $_->rest(60); $e[-1] // '' } @trickle;
    is scalar(grep { $_ eq '[DONE]' } @ends), 100, 'and each of them ends whole';
    $_->close for @trickle;
}

# ---- answers that nobody reads
my $before = resident();
my ($most, $resident) = (0, 0);
sub look {
    my $held = $n->metric('pdplane_http_held_bytes{listener="openai",kind="answers"}') // 0;
    my $now = resident();
    $most = $held if $held > $most;
    $resident = $now if $now > $resident;
    return $n->metric('pdplane_http_timeouts_total{listener="openai",kind="write"}') // 0;
}
my @deaf;
for my $i (1 .. $n_deaf) {
    push @deaf, connect_small();
    syswrite $deaf[-1], PDPlane::Http::request_text('POST', $path, body('flood'));
    look() if $i % 50 == 0;
}
my @times = map { look(); served() } 1 .. 5;
is scalar(grep { $_ < 5 } @times), 5, 'others are served meanwhile';
until_true(120, sub { look() >= $n_deaf });
is look(), $n_deaf, "$n_deaf clients that never read: each is cut off in time";
cmp_ok $most, '>', 60 * 64 * 1024, 'their answers waited';
cmp_ok $most, '<=', $n_deaf * (256 + 64 + 64) * 1024, 'what is held for one is bounded';
my $is_sanitized = `@{[ builddir() ]}/pdplane -V` =~ /^sanitizers yes/m; # which keep memory that was freed
cmp_ok $is_sanitized ? 0 : $resident - $before, '<=', $n_deaf * (256 + 64 + 64) * 1024 + (64 << 20), 'and so is the memory of the process';
diag sprintf '%d clients that never read: %.1f KiB held and %.1f KiB of memory each at most, others served within %.2f s', $n_deaf,
    $most / 1024 / $n_deaf, ($resident - $before) / 1024 / $n_deaf, (sort { $a <=> $b } @times)[-1] if $n_deaf > 200;
ok until_true(5, sub { ($n->metric('pdplane_http_held_bytes{listener="openai",kind="answers"}') // 1) == 0 }), 'nothing is held afterwards';
ok until_true(5, sub { ($n->metric('pdplane_requests_running') // 1) == 0 }), 'no request is left';
close $_ for @deaf;
cmp_ok served(), '<', 5, 'the next one is served';
$n->stop;
$engine->stop;

done_testing;
