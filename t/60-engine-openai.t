# SPDX-License-Identifier: Apache-2.0
# A router over plain servers with the OpenAI API: what it relays, what it adds
# and takes away, and what clients see when a server misbehaves.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::Test qw(spew);
use PDPlane::Http qw(get post parallel open_stream events json_of);

my $answer = qq({ "id" : "x-1","object":"chat.completion","unknown":{"big":9007199254740993,"f":1.10},\n)
    . qq("choices":[{"index":0,"message":{"role":"assistant","content":"caf\\u00e9 \xc3\xa9"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3} });
my @chunks = map { qq({"id":"x-2","choices":[{"index":0,"delta":{"content":"w$_ "},"finish_reason":null}],"zzz":$_}) } 1 .. 5;
my $sse = join '', ": hello\n\n", (map { "data: $_\n\n" } @chunks),
    qq(data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n), "data: [DONE]\n\n";
my $sse_head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-engine: yes\r\n\r\n";

sub chunk { return PDPlane::FakeEngine::chunk(@_) }
sub plain { return PDPlane::FakeEngine::plain(@_) }

# A head, then events one by one.
sub alone {
    my ($send, @events) = @_;
    $send->($sse_head);
    for my $e (@events) { sleep 0.005; $send->(chunk("data: $e\n\n")) }
    return;
}

%PDPlane::FakeEngine::answers = (
    ok => sub { $_[1]->(plain('200 OK', 'application/json', $answer, 'x-engine' => 'yes', 'set-cookie' => 'a=b')) },
    stream => sub { my (undef, $send) = @_;
        $send->($sse_head);
        for my $e (split /(?<=\n\n)/, $sse) { $send->(chunk($e)); sleep 0.005 }
        $send->("0\r\n\r\n") },
    # events that come alone among others that do not
    mixed => sub { my (undef, $send) = @_;
        my @e = split /(?<=\n\n)/, $sse;
        $send->($sse_head);
        for my $piece (@e[ 0 .. 3 ], unpack('a30 a*', $e[4]), join '', @e[ 5 .. $#e ]) { $send->(chunk($piece)); sleep 0.005 }
        $send->("0\r\n\r\n") },
    # events cut at every place, several and parts in one piece
    pieces => sub { my (undef, $send) = @_;
        $send->($sse_head);
        $send->(chunk($_)) for unpack '(a7)*', $sse;
        $send->("0\r\n\r\n") },
    crlf => sub { my (undef, $send) = @_;
        (my $text = $sse) =~ s/\n/\r\n/g;
        $send->($sse_head . join('', map { chunk($_) } unpack '(a5)*', $text) . "0\r\n\r\n") },
    until_close => sub { $_[1]->("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n$sse"); 0 },
    bad_request => sub { $_[1]->(plain('400 Bad Request', 'application/json', '{"error":{"message":"engine says no","type":"x","param":null,"code":7}}')) },
    503 => sub { $_[1]->(plain('503 Service Unavailable', 'application/json', '{"error":"busy"}')) },
    429 => sub { $_[1]->(plain('429 Too Many Requests', 'application/json', '{}')) },
    500 => sub { $_[1]->(plain('500 Internal Server Error', 'application/json', '{"error":{"message":"boom"}}')) },
    slow => sub { sleep 1.2; $_[1]->(plain('200 OK', 'application/json', $answer)) },
    cut => sub { 0 },
    reset => sub { PDPlane::FakeEngine::reset_connection($_[2]) },
    garbage => sub { $_[1]->("SSH-2.0-OpenSSH_9.2\r\n"); 0 },
    break_stream => sub { my (undef, $send) = @_;
        $send->($sse_head . chunk("data: $chunks[0]\n\n") . chunk("data: $chunks[1]\n\ndata: {\"choices\":[{\"del")); sleep 0.05; 0 },
    break_reset => sub { my (undef, $send, $c) = @_;
        $send->($sse_head . chunk("data: $chunks[0]\n\n")); sleep 0.05; PDPlane::FakeEngine::reset_connection($c) },
    break_late => sub { my (undef, $send) = @_;
        alone($send, @chunks);
        $send->(chunk('data: {"choices":[{"index":0,"delta":{"content":"' . 'x' x 80)); sleep 0.05; 0 },
    no_done => sub { $_[1]->($sse_head . chunk("data: $chunks[0]\n\n") . "0\r\n\r\n") },
    cut_after_done => sub { $_[1]->($sse_head . chunk($sse)); 0 },
    own_error => sub { $_[1]->($sse_head . chunk("data: $chunks[0]\n\ndata: {\"error\":{\"message\":\"engine broke\",\"type\":\"x\",\"param\":null,\"code\":500}}\n\n") . "0\r\n\r\n") },
    late_error => sub { my (undef, $send) = @_;
        alone($send, @chunks, '{"error":{"message":"engine broke","type":"' . 'x' x 80 . '","param":null,"code":500}}');
        $send->("0\r\n\r\n") },
    short => sub { $_[1]->("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n$answer"); 0 },
    two_lengths => sub { $_[1]->("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"); 0 },
    hang => sub { sleep 30; 0 },
    hang_stream => sub { $_[1]->($sse_head . chunk("data: $chunks[0]\n\n")); sleep 30; 0 },
);

my $a = PDPlane::FakeEngine->new('a', models => [ 'm', 'only-a' ]);
my $b = PDPlane::FakeEngine->new('b', models => ['m']);
my $router = PDPlane::Daemon->new('router', sprintf <<"END", $a->port, spew("key", "sesame\n", 0600), $b->port);
load = [ "router", "openai" ];
listen = ( { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; } );
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; api_key_file = "%s"; },
              { name = "b"; type = "openai"; url = "http://127.0.0.1:%d"; } );
role = { router = { probe_interval = "100ms"; deadline = "3s"; }; };
scheduler = { failures = 1000; };
END
$router->expect_log(qr/request failed with status/, qr/endpoint "[ab]" is down/);
$router->start;
my $port = $router->api_port;
sub up { my ($n) = @_; return until_true(20, sub { ($router->metric('pdplane_router_decode_endpoints_up') // -1) == $n }) }
ok up(2), 'both servers are up by their probes';
my $body = '{ "model" : "m", "messages":[ {"role":"user","content":"Hi \u00e9"} ],"x_unknown":[1,{"k":12345678901234567890}],"temperature":0 %s}';
sub ask {
    my ($more, %o) = @_;
    return post($port, '/v1/chat/completions', sprintf($body, $more // ''), %o);
}
sub modes { $a->mode($_[0]); $b->mode($_[1] // $_[0]); $_->forget for $a, $b; return }
sub error_of { my ($r) = @_; return eval { json_of($r->{body})->{error} } // {} }

# ---- models
my $models = json_of(get($port, '/v1/models')->{body});
is join(' ', sort map { $_->{id} } @{ $models->{data} }), 'm only-a', 'the model list is that of all servers';
is get($port, '/v1/models/only-a')->{status}, 200, 'one model';
is get($port, '/v1/models/none')->{status}, 404, 'no such model';
is post($port, '/v1/chat/completions', { model => 'none', messages => [ { role => 'user', content => 'x' } ] })->{status},
    404, 'a request for a model that nobody serves';
is post($port, '/v1/chat/completions', { model => 'only-a', messages => [ { role => 'user', content => 'x' } ] })->{status},
    200, 'a model that one server serves';

# ---- plain answers
modes('ok');
my $r = ask('', headers => { 'x-request-id' => 'my-id-1', authorization => 'Bearer client-key', cookie => 'secret=1' });
is $r->{status}, 200, 'a request';
is $r->{body}, $answer, 'the answer, byte for byte';
is $r->{headers}{'x-engine'}, 'yes', 'headers of the server come along';
is $r->{headers}{'x-request-id'}, 'my-id-1', 'the request id comes back';
my ($sent) = ($a->requests, $b->requests);
my ($head, $sent_body) = split /\r\n\r\n/, $sent, 2;
is $sent_body, sprintf($body, ''), 'the request, byte for byte';
like $head, qr/^x-request-id: [0-9a-f]{32}\r?$/mi, 'the server gets an id of ours';
unlike $head, qr/my-id-1/, 'not that of the client';
unlike $head, qr/client-key|cookie/i, 'credentials of the client do not';
if ($a->requests) { like $head, qr/^authorization: Bearer sesame\r?$/mi, 'the key of the server' }
else              { unlike $head, qr/authorization/i, 'no key for a server without one' }
$_->forget for $a, $b;
$r = ask(',"kv_transfer_params":{"do_remote_prefill":true},"n":1,"kv_transfer_params_x":2');
($sent) = ($a->requests, $b->requests);
unlike $sent, qr/"kv_transfer_params"/, 'members that only a router may set are taken out';
like $sent, qr/"kv_transfer_params_x":2/, 'others stay';
is $r->{status}, 200, 'and the request is good';
is ask(',"tools":[{"type":"function","function":{"name":"f"}}],"response_format":{"type":"json_object"}')->{status}, 200,
    'what our own engine cannot do goes to servers that can';
modes('bad_request');
$r = ask();
is $r->{status}, 400, 'an error of the server';
like $r->{body}, qr/engine says no/, 'as the server said it';
is scalar(my @n = ($a->requests, $b->requests)), 1, 'is not tried again';
modes('500');
is ask()->{status}, 500, 'status 500 is the server\'s own';

# ---- streams
for my $mode (qw(stream mixed pieces until_close cut_after_done)) {
    modes($mode);
    $r = ask(',"stream":true');
    is $r->{body}, $sse, "$mode: the events, byte for byte";
    ok $r->{complete}, "$mode: ends well";
    like $r->{headers}{'content-type'}, qr{^text/event-stream}, "$mode: its type";
}
modes('crlf');
$r = ask(',"stream":true');
(my $crlf = $sse) =~ s/\n/\r\n/g;
is $r->{body}, $crlf, 'events with CR LF';
modes('stream');
my ($gaps, $firsts) = map { $router->metric("pdplane_${_}_seconds_count") } qw(itl ttft);
my $s = open_stream($port, '/v1/chat/completions', sprintf $body, ',"stream":true');
my $t0 = time;
like $s->event, qr/"w1 "/, 'the first event comes';
cmp_ok time - $t0, '<', 0.5, 'at once';
is scalar($s->rest), 6, 'then the others';
ok until_true(2, sub { $router->metric('pdplane_itl_seconds_count') == $gaps + 5 }),
    'each event of a server counts as a token: 5 times between 6 of them';
is $router->metric('pdplane_ttft_seconds_count'), $firsts + 1, 'and one time to the first of them';

# ---- failures before the first byte: tried elsewhere
for my $mode (qw(503 429 cut reset garbage two_lengths)) {
    modes($mode, 'ok');
    my @r = map { ask() } 1 .. 4;
    is scalar(grep { $_->{status} == 200 && $_->{body} eq $answer } @r), 4, "$mode: the other server answers";
    modes($mode);
    $r = ask();
    my $want = $mode eq '503' ? 503 : $mode eq '429' ? 429 : 502;
    is $r->{status}, $want, "$mode at both: $want";
    is join(' ', sort keys %{ error_of($r) }), 'code message param type', "$mode at both: all four keys";
    unlike $r->{body}, qr/127\.0\.0\.1|\d{5}/, "$mode at both: no address in it";
    ok defined $r->{headers}{'retry-after'} || $want == 502, "$mode at both: when to come back";
}
cmp_ok $router->metric('pdplane_router_retries_total'), '>', 0, 'retries are counted';
modes('ok');
$a->stop;
my $gone = $a->port;
is scalar(grep { $_->{status} == 200 } map { ask() } 1 .. 4), 4, 'a server that is gone: the other one answers';
ok up(1), 'its probe finds out';
like $router->log_text, qr/endpoint "a" is down/, 'the log says so';
is join(' ', map { $_->{id} } @{ json_of(get($port, '/v1/models')->{body})->{data} }), 'm', 'its own model is not listed';
$a = PDPlane::FakeEngine->new('a', models => [ 'm', 'only-a' ], port => $gone);
ok up(2), 'it comes back';
$b->mode('unhealthy');
ok up(1), 'a probe that is refused';
$b->mode('ok');
ok up(2), 'and accepted again';

# ---- failures after the first byte
for my $mode (qw(break_stream break_late break_reset no_done)) {
    modes($mode);
    $r = ask(',"stream":true');
    my @e = events($r->{body});
    is $r->{status}, 200, "$mode: had begun";
    is $e[0], $chunks[0], "$mode: the first event came";
    my $error = eval { json_of($e[-1])->{error} };
    is $error->{code}, 'engine_protocol', "$mode: the last one is an error";
    is scalar(grep { /"error"/ } @e), 1, "$mode: one";
    is scalar(grep { !eval { json_of($_); 1 } } @e), 0, "$mode: every event can be read";
    unlike $r->{body}, qr/\[DONE\]/, "$mode: no [DONE]";
    ok $r->{complete}, "$mode: the chunks end well";
    is scalar(my @q = ($a->requests, $b->requests)), 1, "$mode: not tried again";
}
for my $mode (qw(own_error late_error)) {
    modes($mode);
    $r = ask(',"stream":true');
    is scalar(grep { /"error"/ } events($r->{body})), 1, "$mode: an error event of the server is the only one";
    like $r->{body}, qr/engine broke/, "$mode: and comes as it is";
}
modes('short');
$r = ask();
ok !$r->{complete}, 'a body that is too short is not completed';

# ---- slow servers, deadlines, clients that leave
modes('slow');
$r = ask();
is $r->{body}, $answer, 'a slow answer';
modes('hang');
$t0 = time;
$r = ask();
is $r->{status}, 504, 'no answer within the deadline: 504';
is error_of($r)->{code}, 'deadline_exceeded', 'its code';
cmp_ok time - $t0, '<', 4, 'in time';
modes('hang_stream');
$r = ask(',"stream":true');
like +(events($r->{body}))[-1], qr/deadline_exceeded/, 'a stream that stops: an error event at the deadline';
$s = open_stream($port, '/v1/chat/completions', sprintf $body, ',"stream":true');
$s->event;
my $before = $router->metric('pdplane_router_client_gone_total');
$s->close;
ok until_true(1, sub { $router->metric('pdplane_router_client_gone_total') > $before }), 'a client that leaves is noticed';

# ---- many at a time
modes('stream');
my @r = parallel($port, map { [ '/v1/chat/completions',
    { model => "m", stream => JSON::PP::true, messages => [ { role => "user", content => "$_: " . "x" x 300 } ] } ] } 1 .. 40);
is scalar(grep { $_->{body} eq $sse } @r), 40, '40 streams at a time';
cmp_ok scalar(my @in_a = $a->requests), '>', 5, 'both servers';
cmp_ok scalar(my @in_b = $b->requests), '>', 5, 'have a part in it';

my $m = $router->metrics;
my $sum = 0;
$sum += $m->{$_} for grep { /^pdplane_requests_total/ } keys %$m;
ok !grep({ /^pdplane_requests_running/ && $m->{$_} } keys %$m), 'no request is left';
cmp_ok $sum, '>', 80, "all are counted ($sum)";
$router->stop;

# ---- a server whose probes are answered and whose requests are not
modes('cut', 'ok');
my $other = PDPlane::Daemon->new('other', sprintf <<"END", $a->port, $b->port);
load = [ "router", "openai" ];
listen = ( { address = "127.0.0.1:%%%%PORT_oapi%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_oadmin%%%%"; api = "admin"; } );
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; models = [ "m" ]; },
              { name = "b"; type = "openai"; url = "http://127.0.0.1:%d"; models = [ "m" ]; } );
role = { router = { probe_interval = "100ms"; }; };
scheduler = { failures = 2; failure_pause = "1s"; };
END
$other->expect_log(qr/request failed with status/);
$other->start;
ok until_true(20, sub { ($other->metric('pdplane_router_decode_endpoints_up') // 0) == 2 }), 'both are up';
my $asked = 0;
ok until_true(20, sub {
    post($other->api_port, '/v1/chat/completions', { model => 'm', messages => [ { role => 'user', content => ++$asked . ' times' x 100 } ] });
    $other->log_text =~ /endpoint "a" answers its probes, but \d+ requests to it failed in a row: it steps back/
}), 'the log says that it steps back, and why';
ok until_true(20, sub { $other->log_text =~ /endpoint "a" is in use again/ }), 'and when it is in use again';
is scalar(my @ups = $other->log_text =~ /endpoint "a" is up/g), 1, 'its probes tell nothing new';
$other->stop;
done_testing;
