# SPDX-License-Identifier: Apache-2.0
# Clients that send slowly or never read cost themselves only: they are cut off in
# time, what is held for them is bounded, and others are served meanwhile.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::Http qw(get post json_of);

my $events = 4000;
{
    no warnings 'once';
    $PDPlane::FakeEngine::answers{by_prompt} = sub {
        my ($request, $send) = @_;
        my $big = $request =~ /flood/;
        $send->("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n") or return 0;
        for my $i (1 .. ($big ? $events : 2)) {
            $send->(PDPlane::FakeEngine::chunk(sprintf qq(data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n), ('x' x ($big ? 2000 : 5)))) or return 0;
        }
        return $send->(PDPlane::FakeEngine::chunk("data: [DONE]\n\n") . "0\r\n\r\n");
    };
}
my $engine = PDPlane::FakeEngine->new('e', models => ['m'], mode => 'by_prompt');
my $n = PDPlane::Daemon->new('slow', sprintf 'load = [ "router", "openai" ];
limits = { head_timeout = "1s"; body_timeout = "1s"; write_timeout = "2s"; };
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; } );
listen = ( { address = "127.0.0.1:%%%%PORT_a%%%%"; api = "admin"; }, { address = "127.0.0.1:%%%%PORT_o%%%%"; api = "openai"; } );', $engine->port);
$n->expect_log(qr/request failed|client/);
$n->start;
my $path = '/v1/chat/completions';
sub body { return { model => 'm', stream => JSON::PP::true(), messages => [ { role => 'user', content => $_[0] } ] } }
sub served { my $t0 = time; my $r = post($n->api_port, $path, body('hello')); return ($r->{status} // 0) == 200 && $r->{body} =~ /\[DONE\]/ ? time - $t0 : 99 }
ok until_true(10, sub { served() < 99 }), 'a client is served';

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

# ---- answers that nobody reads
my @deaf = map { my $s = connect_small(); syswrite $s, PDPlane::Http::request_text('POST', $path, body('flood')); $s } 1 .. 60;
ok until_true(10, sub { ($n->metric('pdplane_http_held_bytes{listener="openai",kind="answers"}') // 0) > 60 * 64 * 1024 }), '60 clients that never read: their answers wait';
my @times = map { served() } 1 .. 5;
is scalar(grep { $_ < 5 } @times), 5, 'others are served meanwhile';
my $most = 0;
until_true(30, sub {
    my $held = $n->metric('pdplane_http_held_bytes{listener="openai",kind="answers"}') // 0;
    $most = $held if $held > $most;
    return ($n->metric('pdplane_http_timeouts_total{listener="openai",kind="write"}') // 0) == 60;
});
is $n->metric('pdplane_http_timeouts_total{listener="openai",kind="write"}'), 60, 'each is cut off in time';
cmp_ok $most, '<=', 60 * (256 + 64 + 64) * 1024, 'what is held for one is bounded';
ok until_true(5, sub { ($n->metric('pdplane_http_held_bytes{listener="openai",kind="answers"}') // 1) == 0 }), 'nothing is held afterwards';
ok until_true(5, sub { ($n->metric('pdplane_requests_running') // 1) == 0 }), 'no request is left';
close $_ for @deaf;
cmp_ok served(), '<', 5, 'the next one is served';
$n->stop;
$engine->stop;

done_testing;
