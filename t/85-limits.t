# SPDX-License-Identifier: Apache-2.0
# Each limit is reached on purpose: who comes then gets the right status, body
# and header, a counter tells, operators still get in, and afterwards all is as
# before.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep);

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(get post parallel json_of open_stream events);
use PDPlane::Test qw(folder spew slurp);

my @golden = golden();
my ($path, $ask) = @{ (greedy())[0] };

my $one = 'load = [ "router", "decode", "ref" ];
engine = ( { name = "tiny"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; ENGINE } );
listen = ( { address = "127.0.0.1:%%PORT_NAME_admin%%"; api = "admin"; }, { address = "127.0.0.1:%%PORT_NAME_api%%"; api = "openai"; } );
';
sub one {
    my ($name, $text, $engine) = @_;
    my $conf = $one =~ s/NAME/$name/gr =~ s/ENGINE/$engine \/\/ ''/er;
    return PDPlane::Daemon->new($name, $conf . $text);
}

# An answer of refusal: status, code, the four keys, retry-after.
sub refusal {
    my ($r, $status, $code, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is $r->{status}, $status, "$name: status $status" or diag explain $r;
    my $e = eval { json_of($r->{body})->{error} } // {};
    is_deeply [sort keys %$e], [qw(code message param type)], "$name: an error object with its four keys";
    is $e->{code}, $code, "$name: code $code";
    unlike $e->{message} // '', qr/127\.0\.0\.1|\/|errno/, "$name: the message names no place";
    like $r->{headers}{'retry-after'} // '', qr/^\d+$/, "$name: retry-after";
    like $r->{headers}{'retry-after-ms'} // '', qr/^\d+$/, "$name: retry-after-ms";
    return;
}

sub works { my ($port, $name) = @_; is text_of(post($port, $path, $ask)), $golden[0]{text}, "$name: the golden text" }

sub connect_to { return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $_[0], Timeout => 5) }

# What is there to read of a socket within a second; undef: nothing came.
sub said {
    my ($s) = @_;
    my $raw = '';
    while (IO::Select->new($s)->can_read(1)) { sysread($s, $raw, 1 << 16, length $raw) or last }
    return length $raw ? PDPlane::Http::parse($raw) : undef;
}

# ---- descriptors: connections of clients
{
    my $n = one('files', '');
    $n->start(under => [ 'prlimit', '--nofile=128:128' ]);
    my ($room) = $n->log_text =~ /128 file descriptors leave room for (\d+) connections of clients/;
    cmp_ok $room // 0, '>', 40, 'the log tells how many fit';
    my @open = map { connect_to($n->api_port) } 1 .. $room;
    ok until_true(5, sub { ($n->metric('pdplane_http_open_connections{listener="openai",state="idle"}') // 0) == $room }), 'that many are open';
    refusal(said(connect_to($n->api_port)), 503, 'overloaded', 'one more connection');
    is $n->metric('pdplane_http_connections_refused_total{listener="openai"}'), 1, 'is counted';
    is get($n->admin, '/ready')->{status}, 200, 'operators get in';
    my @crowd = map { connect_to($n->api_port) } 1 .. 30;
    ok !(grep { defined $_ && !defined said($_) && !eof $_ } @crowd), 'a crowd is answered or closed';
    is get($n->admin, '/ready')->{status}, 200, 'operators still get in';
    is $n->metric('pdplane_loop_accept_backoffs_total'), 0, 'accept never failed';
    syswrite $open[0], PDPlane::Http::request_text('GET', '/v1/models');
    is said($open[0])->{status}, 200, 'who was in is served';
    close $_ for @open, grep { defined } @crowd;
    ok until_true(5, sub { (get($n->api_port, '/v1/models')->{status} // 0) == 200 }), 'then others get in again';
    works($n->api_port, 'after the crowd');
    $n->stop;
}

# ---- descriptors: each stream needs two
{
    my $engine = PDPlane::FakeEngine->new('slow', models => ['m']);
    no warnings 'once';
    $PDPlane::FakeEngine::answers{slow} = undef;
    $engine->stop;
    local $PDPlane::FakeEngine::answers{slow} = sub {
        my ($request, $send) = @_;
        $send->("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n") or return 0;
        for my $i (1 .. 60) {
            $send->(PDPlane::FakeEngine::chunk(qq(data: {"choices":[{"index":0,"delta":{"content":"$i "}}]}\n\n))) or return 0;
            last if $i > 1 && -e folder() . '/finish';
            sleep 0.25;
        }
        return $send->(PDPlane::FakeEngine::chunk("data: [DONE]\n\n") . "0\r\n\r\n");
    };
    $engine = PDPlane::FakeEngine->new('slow', models => ['m'], mode => 'slow');
    my $n = PDPlane::Daemon->new('streams', sprintf 'load = [ "router", "openai" ];
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; } );
listen = ( { address = "127.0.0.1:%%%%PORT_sa%%%%"; api = "admin"; }, { address = "127.0.0.1:%%%%PORT_so%%%%"; api = "openai"; } );', $engine->port);
    $n->start(under => [ 'prlimit', '--nofile=128:128' ]);
    my ($room) = $n->log_text =~ /leave room for (\d+) connections/;
    cmp_ok $room, '>', 20, 'streams through a server: half as many fit';
    my $body = { model => 'm', stream => JSON::PP::true(), messages => [ { role => 'user', content => 'x' } ] };
    my @streams = map { open_stream($n->api_port, '/v1/chat/completions', $body) } 1 .. $room;
    is scalar(grep { defined $_ && ($_->head(10)->{status} // 0) == 200 } @streams), $room, 'all of them are served';
    refusal(said(connect_to($n->api_port)), 503, 'overloaded', 'one more');
    is get($n->admin, '/ready')->{status}, 200, 'operators get in';
    spew('finish', '');
    my @texts = map { my @e = $_->rest(20); $e[-1] // '' } @streams;
    is scalar(grep { $_ eq '[DONE]' } @texts), $room, 'and end whole';
    is $n->metric('pdplane_loop_accept_backoffs_total'), 0, 'accept never failed';
    $_->close for @streams;
    ok until_true(5, sub { (post($n->api_port, '/v1/chat/completions', $body)->{status} // 0) == 200 }), 'the next one is served';
    $n->stop;
    $engine->stop;
}

# ---- too few descriptors for anything
{
    my $n = one('few', '');
    $n->start(wait => 0, under => [ 'prlimit', '--nofile=24:24' ]);
    isnt $n->wait_end(10), 0, 'with 24 descriptors it does not start';
    like $n->log_text, qr/file descriptors are too few/, 'and says why';
    like $n->log_text, qr/LimitNOFILE|ulimit -n/, 'and what to do';
    $n->forget;
}

# ---- memory of bodies
{
    my $n = one('memory', 'limits = { memory = "1m"; };');
    $n->start;
    my $head = sub { sprintf "POST $path HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", $_[0] };
    my $want = JSON::PP->new->canonical->encode($ask);
    my $long = $want . ' ' x (600_000 - length $want);
    my @half = map { connect_to($n->api_port) } 1 .. 2;
    for my $s (@half) {
        syswrite $s, $head->(length $long);
        my $at = 0;
        while ($at < 530_000) { $at += syswrite $s, $long, 530_000 - $at, $at }
    }
    my @got = map { said($_) } @half;
    my @refused = grep { defined } @got;
    is scalar @refused, 1, 'the body that is too much is refused, the other is not';
    refusal($refused[0], 503, 'overloaded', 'a body above limits.memory');
    is $n->metric('pdplane_http_overloads_total{listener="openai"}'), 1, 'is counted';
    my ($kept) = grep { !defined $got[$_] } 0, 1;
    cmp_ok $n->metric('pdplane_http_held_bytes{listener="openai",kind="requests"}'), '>=', 530_000, 'what is held is shown';
    for (my $at = 530_000; $at < length $long;) { $at += syswrite $half[$kept], $long, length($long) - $at, $at }
    my $text = text_of(said($half[$kept]) // {});
    is $text, $golden[0]{text}, 'the other gets its answer';
    is get($n->admin, '/ready')->{status}, 200, 'operators get in';
    close $_ for @half;
    ok until_true(5, sub { ($n->metric('pdplane_http_held_bytes{listener="openai",kind="requests"}') // 1) == 0 }), 'nothing is held afterwards';
    works($n->api_port, 'after that');
    $n->stop;
}

# ---- requests at a time, and those that wait for KV blocks
for my $case (
    [ 'requests', 'role = { router = { max_requests = 2; }; };', '', 8 ],
    [ 'waiting', 'role = { decode = { queue = 1; }; };', 'kv_memory = "192k";', 24 ],
    [ 'tokens', 'role = { decode = { queue_tokens = 40; }; };', 'kv_memory = "192k";', 24 ],
) {
    my ($name, $text, $engine, $count) = @$case;
    my $n = one($name, $text, $engine);
    $n->start;
    my $blocks = $n->metric('pdplane_kv_blocks');
    my @r = parallel($n->api_port, map { [ $path, $ask ] } 1 .. $count);
    my @ok = grep { ($_->{status} // 0) == 200 } @r;
    my @full = grep { ($_->{status} // 0) == 429 } @r;
    is @ok + @full, $count, "$name: each is served or told to come back";
    cmp_ok scalar @full, '>', 0, "$name: some are told" or next;
    cmp_ok scalar @ok, '>', 0, "$name: some are served";
    is scalar(grep { text_of($_) ne $golden[0]{text} } @ok), 0, "$name: with the golden text";
    refusal($full[0], 429, 'queue_full', $name);
    is $n->metric('pdplane_request_outcomes_total{role="router",outcome="shed"}'), scalar @full, "$name: each is counted as shed";
    ok until_true(5, sub { $n->metric('pdplane_kv_blocks_free') == $blocks }), "$name: all blocks are free afterwards";
    works($n->api_port, "$name, afterwards");
    $n->stop;
}

done_testing;
