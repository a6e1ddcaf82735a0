# SPDX-License-Identifier: Apache-2.0
# A router over TensorRT-LLM servers, context and generation apart: what each of them
# gets, what a client sees when a context server has said all, and when one of them fails
# at each stage.
use strict;
use warnings;

use Test::More;

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::FakePD;
use PDPlane::FakeTRTLLM;
use PDPlane::Test qw(builddir check_text folder spew slurp run_program);
use PDPlane::Http qw(get post parallel open_stream events json_of);

PDPlane::FakeTRTLLM::modes();
my %model = (o => 'old', n => 'new', w => 'w');
my %s = map {
    my ($letter, $other) = /^(.)(.)/;
    my $age = $other =~ /\d/ ? '' : { o => '_old', n => '_new' }->{$other};
    $_ => PDPlane::FakeEngine->new($_, mode => $letter eq 'p' ? "context$age" : "generation$age", models => [ $letter eq 'w' ? 'w' : $model{$other} // 'm' ]);
} qw(p0 p1 d0 d1 po do pn dn w0);
my $key = spew('key', "sesame\n", 0600);
my $node = PDPlane::Daemon->new('router', sprintf <<"END", map { $s{$_}->port } qw(p0 p1 d0 d1 po do pn dn w0));
load = [ "router", "trtllm" ];
control = "@{[folder()]}/ctl";
listen = ( { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; } );
endpoints = ( { name = "p0"; roles = [ "prefill" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; api_key_file = "$key"; },
              { name = "p1"; roles = [ "prefill" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; },
              { name = "d0"; roles = [ "decode" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; },
              { name = "d1"; roles = [ "decode" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; },
              { name = "po"; roles = [ "prefill" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; request_ids = false; },
              { name = "do"; roles = [ "decode" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; },
              { name = "pn"; roles = [ "prefill" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; context_usage = true; cache_salt = true; },
              { name = "dn"; roles = [ "decode" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; cache_salt = true; },
              { name = "w0"; roles = [ "prefill", "decode" ]; type = "trtllm"; url = "http://127.0.0.1:%d"; } );
role = { router = { probe_interval = "100ms"; deadline = "60s"; prefill_timeout = "30s"; prefill_answer = "100k"; }; };
scheduler = { failures = 1000; };
END
$node->expect_log(qr/request failed with status/, qr/endpoint "\w+" is down/, qr/endpoint "\w+" is up/);
$node->start;
my $port = $node->api_port;
my $m0 = 'pdplane_router';
sub up {
    my ($p, $d) = @_;
    return until_true(30, sub {
        my $m = $node->metrics;
        ($m->{"${m0}_prefill_endpoints_up"} // -1) == $p && ($m->{"${m0}_decode_endpoints_up"} // -1) == $d;
    });
}
ok up(5, 5), 'all are up by their probes';
is join(' ', sort map { $_->{id} } @{ json_of(get($port, '/v1/models')->{body})->{data} }), 'm new old w', 'their models are known';

my $n = 0;
# A body of which each has a prompt of its own, about 60 tokens long.
sub body {
    my ($more, %o) = @_;
    my $prompt = sprintf('%04d ', ++$n) . 'The rivers of Europe. ' x 11;
    my $what = $o{text} ? qq("prompt" : "$prompt") : qq("messages":[ {"role":"user","content":"$prompt \\u00e9"} ]);
    return sprintf '{ "model" : "%s", %s ,"seed":9007199254740993,"temperature":0%s }', $o{model} // 'm', $what, $more // '';
}
sub path { my (%o) = @_; return $o{text} ? '/v1/completions' : '/v1/chat/completions' }
sub modes { my ($p, $d) = @_; $s{$_}->mode($p)->forget for qw(p0 p1); $s{$_}->mode($d // 'generation')->forget for qw(d0 d1); return }
sub sent { my (@names) = @_; return map { $s{$_}->requests } @names }
sub choice_of { my ($r) = @_; return eval { json_of($r->{body})->{choices}[0] } // {} }
sub text_of { my ($r) = @_; my $c = choice_of($r); return $c->{text} // $c->{message}{content} // $r->{body} }
sub stream_text { my ($r) = @_; return join ' ', map { my $c = /^\{/ ? json_of($_)->{choices}[0] // {} : {}; $c->{text} // $c->{delta}{content} // () } events($r->{body}) }
sub told { my ($r) = @_; return $r->{body} =~ /^data:/ ? stream_text($r) : text_of($r) }
sub fallbacks { my ($why) = @_; return $node->metric(qq(${m0}_prefill_fallbacks_total{reason="$why"})) // 0 }
sub count { my ($what) = @_; return $node->metric("${m0}_$what") // 0 }
sub told_of {
    my ($id) = @_;
    my ($rc, $out, $err) = run_program(builddir() . '/pdctl', '-s', folder() . '/ctl', 'explain', $id);
    return $out;
}

# ---- what the two servers get
my %ids;
for my $text (0, 1) {
    my $kind = $text ? 'completions' : 'chat';
    for my $stream (0, 1) {
        my $what = "$kind, " . ($stream ? 'streamed' : 'plain');
        modes($stream ? 'context' : 'context_unfinished');
        my $more = ',"max_tokens":50,"min_tokens":5,"lora_request":{"z":1,"a":"\u00e9","big":18446744073709551615}';
        $more = ',"stream":true,"stream_options":{"include_usage":true}' . $more if $stream;
        my $body = body($more, text => $text);
        my $r = post($port, path(text => $text), $body, headers => { 'x-request-id' => "id-$kind-$stream", authorization => 'Bearer client' });
        is $r->{status}, 200, "$what: answered" or diag $r->{body};
        like told($r), qr/^remote p[01]/, "$what: with the KV of a context server";
        like $r->{body}, $stream ? qr/"usage":\{"prompt_tokens":57,"completion_tokens":3,.*data: \[DONE\]\n\n\z/s : qr/"big":9007199254740993/, "$what: as the generation server wrote it";
        unlike $r->{body}, qr/SECRET-FIRST|disaggregated|prompt_token_ids/, "$what: nothing of the context server's answer";
        my @p = sent('p0', 'p1');
        my @d = sent('d0', 'd1');
        is @p . @d, '11', "$what: one server of each kind";
        my ($hp, $bp) = PDPlane::FakePD::parts($p[0]);
        my ($hd, $bd) = PDPlane::FakePD::parts($d[0]);
        is $hp->{'x-request-id'}, $hd->{'x-request-id'}, "$what: both know it by the same id";
        isnt $hp->{'x-request-id'}, "id-$kind-$stream", "$what: which is not the client's";
        unlike "$p[0]$d[0]", qr/Bearer client/, "$what: nor its key";
        my ($head) = $p[0] =~ /^(authorization: .*?)\r?$/mi;
        is $head, sent('p0') ? 'authorization: Bearer sesame' : undef, "$what: with the key of that server";
        my ($id) = $bp =~ /"disaggregated_params":\{"request_type":"context_only","disagg_request_id":(\d+)\}/;
        $ids{ $id // '' }++;
        like $bd, qr/"disagg_request_id":$id,"ctx_dp_rank":9007199254740993[,}]/, "$what: numbers of 64 bits are the same in both";
        (my $without = $bp) =~ s/"disaggregated_params":\{[^}]*\},//;
        my $expected = $body;
        if ($stream) {
            $expected =~ s/"stream":true,"stream_options":\{"include_usage":true\},/"stream":false,/;
        } else {
            $without =~ s/"stream":false,//;
        }
        is $without, $expected, "$what: all else is the client's, byte for byte, to the one";
        ($without = $bd) =~ s/"disaggregated_params":\{[^}]*\},//;
        if ($text) {
            my ($prompt) = $body =~ /"prompt" : ("[^"]*")/;
            $without =~ s/"prompt" : \[1, 882\]/"prompt" : $prompt/;
        } else {
            $without =~ s/"prompt_token_ids":\[1, 881, 9\],//;
        }
        is $without, $body, "$what: and to the other";
    }
}
is scalar(grep { /^\d{13,19}$/ } keys %ids), 4, 'each request has an id of its own';
is fallbacks('no_params') + fallbacks('failed') + fallbacks('decode'), 0, 'nothing fell back';
is count('prefill_failures_total'), 0, 'nothing failed';
is $node->metric('pdplane_requests_total{api="chat",model="m",code="200",disagg="pd",stream="true"}'), 1, 'counted as shared';
my $why = told_of('id-chat-1');
like $why, qr/remote by pd_threshold: about \d+ uncached tokens, remote from 25/, 'explain: the decision';
like $why, qr/prefill by p[01] took [\d.]+ ms for 57 tokens, 16 of them cached/, 'explain: the prefill leg';
like $why, qr/prefill sent.*prefilled.*decode sent.*decoding/s, 'explain: the stages';
modes('context');
my @r = parallel($port, map { [ path(text => $_ % 3 == 0), body($_ % 2 ? ',"stream":true' : '', text => $_ % 3 == 0) ] } 1 .. 16);
is scalar(grep { ($_->{status} // 0) == 200 && $_->{body} =~ /remote p[01]/ } @r), 16, 'many at a time: all are answered';
is PDPlane::FakeTRTLLM::kept(), 0, 'all KV was fetched';

# ---- servers of other versions
for my $stream ('', ',"stream":true,"stream_options":{"include_usage":true}') {
    my $r = post($port, path(), body($stream, model => 'old'));
    like told($r), qr/^remote po/, 'older servers: answered' or diag $r->{body};
    unlike join('', sent('po', 'do')), qr/disagg_request_id|ctx_usage/, 'older servers: nothing that they do not know';
    for my $text (0, 1) {
        $r = post($port, path(text => $text), body($stream . ($text ? '' : ',"cache_salt":"mine"'), text => $text, model => 'new'));
        like told($r), qr/^remote pn/, 'newer servers: answered' or diag $r->{body};
        like $r->{body}, qr/"cached_tokens":16\}/, 'newer servers: the usage tells what the context server had cached';
    }
    is scalar(grep { /"cache_salt":"[0-9a-f]{16,}"/ } sent('pn', 'dn')), 2, 'newer servers: a salt in chats, to both';
    unlike join('', sent('pn', 'dn')), qr/mine/, 'newer servers: which is ours';
    $s{$_}->forget for qw(pn dn);
}

# ---- requests that are not shared
modes('context');
my $r = post($port, path(), { model => 'm', messages => [ { role => 'user', content => 'Hi' } ] });
is text_of($r), 'local', 'a short prompt is computed by the generation server';
for my $more ('"n":2', '"echo":true', '"logprobs":2', '"best_of":2,"n":2', '"use_beam_search":true', '"return_context_logits":true') {
    $r = post($port, path(text => 1), body(",$more", text => 1));
    is text_of($r), 'local', "$more: likewise";
    is_deeply [sent('p0', 'p1')], [], "$more: no context server is asked";
}
$r = post($port, path(), body('', model => 'w'));
is text_of($r), 'local', 'a server with both roles gets requests as they are';
unlike + (sent('w0'))[0], qr/disaggregated_params/, 'with nothing that says otherwise';
$r = post($port, path(), body(',"disaggregated_params":{"request_type":"generation_only","ctx_request_id":7,"ctx_info_endpoint":"tcp://10.0.0.1:1"},"disagg_request_id":8'));
like text_of($r), qr/^remote/, 'a client that says where KV is';
unlike join('', sent(qw(p0 p1 d0 d1))), qr/10\.0\.0\.1|"disagg_request_id":8[,}]/, 'is not heard';
modes('context');
is post($port, path(), body(',"stream":false,"stream":true'))->{status}, 400, 'a member twice: refused';
is_deeply [sent(qw(p0 p1 d0 d1))], [], 'nobody is asked';

# ---- context servers that have said all there is
my $finals = count('prefill_finals_total');
my $before = fallbacks('no_params');
my $asked = 0;
for my $case ([ 'context_stop', '', qr/^all by p[01]$/, 'stop' ], [ 'context_lines', '', qr/^a\nb\x{e9}$/, 'stop' ],
        [ 'context', ',"max_tokens":1', qr/^one p[01]$/, 'length' ], [ 'context_stop', ',"max_tokens":1', qr/^one p[01]$/, 'stop' ],
        [ 'context', ',"max_completion_tokens":1', qr/^one p[01]$/, 'length' ]) {
    my ($mode, $more, $expected, $reason) = @$case;
    for my $text ($more =~ /completion/ ? 0 : (0, 1)) {
        my $what = "$mode$more, " . ($text ? 'completions' : 'chat');
        modes($mode);
        $r = post($port, path(text => $text), body($more, text => $text));
        is $r->{status}, 200, "$what: answered";
        like text_of($r), $expected, "$what: by the context server";
        is choice_of($r)->{finish_reason}, $reason, "$what: with its reason";
        is eval { json_of($r->{body})->{usage}{completion_tokens} }, 1, "$what: and its usage";
        unlike $r->{body}, qr/disaggregated|prompt_token_ids/, "$what: without what is not the client's";
        is_deeply [sent('d0', 'd1')], [], "$what: no generation server is asked";
        unlike join('', sent('p0', 'p1')), qr/disaggregated_params/, "$what: an ordinary request" if $more;
        for my $usage (0, 1) {
            $r = post($port, path(text => $text), body($more . ',"stream":true' . ($usage ? ',"stream_options":{"include_usage":true}' : ''), text => $text));
            is $r->{status}, 200, "$what, streamed: answered";
            like $r->{headers}{'content-type'}, qr{^text/event-stream}, "$what, streamed: as a stream";
            my @e = events($r->{body});
            is scalar @e, 2 + $usage, "$what, streamed: its events" or diag $r->{body};
            like stream_text($r), $expected, "$what, streamed: the text";
            my $first = json_of($e[0]);
            is $first->{choices}[0]{finish_reason}, $reason, "$what, streamed: the reason";
            is $first->{object}, $text ? 'text_completion' : 'chat.completion.chunk', "$what, streamed: of its kind";
            is $first->{id}, 'x-1', "$what, streamed: the id";
            is $first->{usage}, undef, "$what, streamed: usage for those who ask";
            is_deeply [ json_of($e[1])->{usage}{prompt_tokens}, json_of($e[1])->{choices} ], [ 57, [] ], "$what, streamed: and then in an event of its own" if $usage;
            is $e[-1], '[DONE]', "$what, streamed: the end";
            unlike $r->{body}, qr/disaggregated|prompt_token_ids|"tool_calls"/, "$what, streamed: without what is not the client's";
            is_deeply [sent('d0', 'd1')], [], "$what, streamed: no generation server is asked";
        }
        $asked += 3;
    }
}
modes('context_calls');
$r = post($port, path(), body(',"stream":true'), headers => { 'x-request-id' => 'id-calls' });
is_deeply [ map { [ @$_{qw(index id)} ] } @{ json_of((events($r->{body}))[0])->{choices}[0]{delta}{tool_calls} // [] } ], [ [ 0, 't0' ], [ 1, 't1' ] ], 'calls of tools are numbered in a stream';
like told_of('id-calls'), qr/p[01] gives the whole answer/, 'explain: who answered';
is count('prefill_finals_total'), $finals + $asked + 1, 'all of them are counted';
is fallbacks('no_params'), $before, 'and are no fallbacks';
is PDPlane::FakeTRTLLM::kept(), 0, 'no KV was kept for them';

# ---- context servers that fail: another one, then none
for my $mode (qw(500 503 429 cut reset half prefill_garbage prefill_long prefill_redirect context_two context_no_choice context_twice context_text context_again)) {
    modes('context');
    $s{p0}->mode($mode);
    my $long = count('prefill_answers_too_long_total');
    @r = map { post($port, path(), body()) } 1 .. 2;
    is scalar(grep { text_of($_) =~ /^remote p1/ } @r), 2, "$mode at one: the other one computes";
    $before = fallbacks('failed');
    modes($mode);
    $r = post($port, path(), body(',"stream":true'), headers => { 'x-request-id' => "all-$mode" });
    is $r->{status}, 200, "$mode at both: answered";
    like stream_text($r), qr/^local/, "$mode at both: the generation server computes";
    is fallbacks('failed'), $before + 1, "$mode at both: counted";
    is scalar(my @d = sent('d0', 'd1')), 1, "$mode at both: it is asked once";
    cmp_ok count('prefill_answers_too_long_total') - $long, $mode eq 'prefill_long' ? '>=' : '==', $mode eq 'prefill_long' ? 2 : 0, "$mode: too long an answer, or not";
}
{
    my $text = slurp($node->{conf});
    $text =~ s/prefill_timeout = "30s"/prefill_timeout = "500ms"/;
    $text =~ s/127\.0\.0\.1:@{[$node->$_]}/127.0.0.1:%%PORT_hasty_$_%%/ for qw(api_port admin);
    $text =~ s/^(?:control|module_path) = .*//mg;
    my $hasty = PDPlane::Daemon->new('hasty', $text);
    $hasty->expect_log(qr/endpoint "\w+" is down/);
    $hasty->start;
    ok until_true(30, sub { ($hasty->metric("${m0}_prefill_endpoints_up") // 0) == 5 }), 'a router that does not wait long';
    modes('hang');
    $r = post($hasty->api_port, path(), body(), timeout => 60);
    is text_of($r), 'local', 'context servers that hang: the generation server computes';
    is $hasty->metric("${m0}_prefill_failures_total"), 2, 'both were asked';
    $hasty->stop;
}
like told_of('all-500'), qr/p[01] failed: it answers with status 500/, 'failures are explained';
modes('context');
my $its_port = $s{p0}->port;
$s{p0}->stop;
@r = map { post($port, path(), body()) } 1 .. 3;
is scalar(grep { text_of($_) =~ /^remote p1/ } @r), 3, 'a context server that is gone: the other one computes';
ok up(4, 5), 'its probe finds out';
$s{p1}->mode('unhealthy');
ok up(3, 5), 'and that the other one is not healthy';
is text_of(post($port, path(), body())), 'local', 'without any the generation server computes';
$s{p1}->mode('context');
$s{p0} = PDPlane::FakeEngine->new('p0', mode => 'context', port => $its_port);
ok up(5, 5), 'they are back';
like text_of(post($port, path(), body())), qr/^remote/, 'and used';

# ---- answers of context servers that are no failures
for my $mode (qw(context_null context_empty)) {
    $before = fallbacks('no_params');
    modes($mode);
    $r = post($port, path(), body());
    is text_of($r), 'local', "$mode: the generation server computes";
    is fallbacks('no_params'), $before + 1, "$mode: counted";
    unlike join('', sent('d0', 'd1')), qr/disaggregated_params|prompt_token_ids/, "$mode: nothing is made up";
}
modes('context');
$r = post($port, path(), body(',"x_odd":1,"stream":true'));
is $r->{status}, 400, 'a request that the context server refuses';
like $r->{body}, qr/Extra inputs are not permitted: x_odd/, 'in its words';
is_deeply [sent('d0', 'd1')], [], 'goes to nobody else';

# ---- generation servers that fail before the first byte
for my $mode (qw(503 429 cut reset)) {
    modes('context');
    $s{d0}->mode($mode);
    @r = map { post($port, path(), body()) } 1 .. 3;
    is scalar(grep { text_of($_) =~ /^remote/ } @r), 3, "$mode at one generation server: another pair answers";
    my %seen = map { /"disagg_request_id":(\d+)/ ? ($1 => 1) : () } sent('p0', 'p1');
    is scalar keys %seen, scalar(my @p = sent('p0', 'p1')), "$mode: each attempt with an id of its own";
    modes('context', $mode);
    $r = post($port, path(), body());
    is $r->{status}, $mode eq '503' ? 503 : $mode eq '429' ? 429 : 502, "$mode at both: an error";
}
$before = fallbacks('decode');
modes('context', 'generation_nokv');
$r = post($port, path(), body(',"stream":true'));
like stream_text($r), qr/^local/, 'generation servers that cannot fetch KV compute the prompt';
is fallbacks('decode'), $before + 1, 'which is counted';
modes('context', '500');
$r = post($port, path(), body());
is $r->{status}, 500, 'a generation server that fails in any case: its status';
like $r->{body}, qr/boom/, 'and its words';

# ---- behind the first byte
modes('context', 'generation_break');
$r = post($port, path(), body(',"stream":true'));
my @e = events($r->{body});
like $e[0], qr/remote p/, 'a stream that breaks off: what came';
is eval { json_of($e[-1])->{error}{code} }, 'engine_protocol', 'then an error';
unlike $r->{body}, qr/\[DONE\]/, 'no [DONE]';
is scalar(my @p = sent('p0', 'p1')), 1, 'and no second attempt';

# ---- clients that leave
sub left { my (@names) = @_; my $n = 0; $n += PDPlane::FakePD::left($s{$_}) for @names; return $n }
modes('hang');
my $left = left('p0', 'p1');
my $was = count('client_gone_total');
my $c = open_stream($port, path(), body(',"stream":true'));
ok until_true(20, sub { scalar(my @all = sent('p0', 'p1')) }), 'the context server has the prompt';
$c->close;
ok until_true(20, sub { count('client_gone_total') > $was }), 'a client that leaves meanwhile is noticed';
ok until_true(20, sub { left('p0', 'p1') > $left }), 'its context leg is closed';
is_deeply [sent('d0', 'd1')], [], 'and no generation server is asked';
modes('context', 'generation_hang');
$left = left('d0', 'd1');
$c = open_stream($port, path(), body(',"stream":true'));
like $c->event, qr/remote p/, 'the answer has begun';
$c->close;
ok until_true(20, sub { left('d0', 'd1') > $left }), 'a client that leaves then: the generation leg is closed';

# ---- the books
modes('context');
my $m = $node->metrics;
ok until_true(20, sub { $m = $node->metrics; !grep { /^pdplane_requests_running/ && $m->{$_} } keys %$m }), 'no request is left';
my $outcomes = 0;
$outcomes += $m->{$_} for grep { /^pdplane_request_outcomes_total\{role="router"/ } keys %$m;
is $outcomes, $m->{'pdplane_request_accepted_total{role="router"}'}, 'accepted are all that ended';
is scalar(grep { /^pdplane_endpoint_inflight|^pdplane_sched.*inflight/ && $m->{$_} } keys %$m), 0, 'nothing is in flight';
is_deeply [ PDPlane::FakeTRTLLM::crimes() ], [], 'no server got what it must not get';
$node->stop;

# ---- options
for my $case ([ 'request_ids = 1', qr/request_ids/ ], [ 'schedule_style = "generation_first"', qr/schedule_style/ ], [ 'probe = "health"', qr/must begin with/ ]) {
    my ($rc, undef, $err) = check_text(qq(module_path = [ "@{[PDPlane::Daemon::modules_folder()]}" ];\nload = [ "router", "trtllm" ];\nlisten = ( { address = "127.0.0.1:0"; api = "openai"; } );\n)
        . qq(endpoints = ( { name = "p0"; type = "trtllm"; url = "http://127.0.0.1:1"; $case->[0]; } );\n));
    is $rc, 1, "$case->[0]: refused";
    like $err, $case->[1], "$case->[0]: with a reason";
}
done_testing;
