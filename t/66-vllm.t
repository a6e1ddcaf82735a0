# SPDX-License-Identifier: Apache-2.0
# A router over vLLM servers that compute prompts and answers apart: what each of
# them gets, and what a client sees when one of them fails at each stage.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::FakePD;
use PDPlane::Test qw(builddir folder spew slurp run_program);
use PDPlane::Http qw(get post open_stream events json_of);

PDPlane::FakePD::vllm();
my %s = map { $_ => PDPlane::FakeEngine->new($_, mode => /^p/ ? 'prefill' : 'decode') } qw(p0 p1 d0 d1);
my $key = spew('key', "sesame\n", 0600);
my $node = PDPlane::Daemon->new('router', sprintf <<"END", map { $s{$_}->port } qw(p0 p1 d0 d1));
load = [ "router", "vllm" ];
control = "@{[folder()]}/ctl";
listen = ( { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; } );
endpoints = ( { name = "p0"; roles = [ "prefill" ]; type = "vllm"; connector = "nixl"; url = "http://127.0.0.1:%d"; api_key_file = "$key"; },
              { name = "p1"; roles = [ "prefill" ]; type = "vllm"; connector = "nixl"; url = "http://127.0.0.1:%d"; },
              { name = "d0"; roles = [ "decode" ]; type = "vllm"; connector = "nixl"; url = "http://127.0.0.1:%d"; },
              { name = "d1"; roles = [ "decode" ]; type = "vllm"; connector = "nixl"; url = "http://127.0.0.1:%d"; } );
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
ok up(2, 2), 'all are up by their probes';
is join(' ', map { $_->{id} } @{ json_of(get($port, '/v1/models')->{body})->{data} }), 'm', 'their models are known';

my $n = 0;
# A body of which each has a prompt of its own, about 60 tokens long.
sub body {
    my ($more, %o) = @_;
    my $prompt = sprintf('%04d ', ++$n) . 'The rivers of Europe. ' x 11;
    my $what = $o{text} ? qq("prompt":"$prompt") : qq("messages":[ {"role":"user","content":"$prompt \\u00e9"} ]);
    return sprintf '{ "model" : "m", %s ,"x_unknown":[1,{"k":12345678901234567890,"e":1.10}],"temperature":0%s }', $what, $more // '';
}
sub path { my (%o) = @_; return $o{text} ? '/v1/completions' : '/v1/chat/completions' }
sub modes { my ($p, $d) = @_; $s{$_}->mode($p)->forget for qw(p0 p1); $s{$_}->mode($d // 'decode')->forget for qw(d0 d1); return }
sub sent { my (@names) = @_; return map { $s{$_}->requests } @names }
sub text_of { my ($r) = @_; my $c = eval { json_of($r->{body})->{choices}[0] } // {}; return $c->{text} // $c->{message}{content} // $r->{body} }
sub stream_text { my ($r) = @_; return join ' ', map { my $c = /^\{/ ? json_of($_)->{choices}[0] // {} : {}; $c->{text} // $c->{delta}{content} // () } events($r->{body}) }
sub fallbacks { my ($why) = @_; return $node->metric(qq(${m0}_prefill_fallbacks_total{reason="$why"})) // 0 }
sub told_of {
    my ($id) = @_;
    my ($rc, $out, $err) = run_program(builddir() . '/pdctl', '-s', folder() . '/ctl', 'explain', $id);
    return $out;
}

# ---- what the two servers get
for my $text (0, 1) {
    my $kind = $text ? 'completions' : 'chat';
    for my $stream (0, 1) {
        my $what = "$kind, " . ($stream ? 'streamed' : 'plain');
        modes('prefill');
        my $more = ',"max_tokens":50,"min_tokens":5,"tools_x":{"z":1,"a":"\u00e9"}';
        $more = ',"stream":true,"stream_options":{"include_usage":true}' . $more if $stream;
        $more .= ',"max_completion_tokens":40' if $text;
        my $body = body($more, text => $text);
        my $r = post($port, path(text => $text), $body, headers => { 'x-request-id' => "id-$kind-$stream", authorization => 'Bearer client' });
        is $r->{status}, 200, "$what: answered" or diag $r->{body};
        like $stream ? stream_text($r) : text_of($r), qr/^remote p[01]/, "$what: with the KV of a prefill server";
        like $r->{body}, $stream ? qr/data: \[DONE\]\n\n\z/ : qr/"big":9007199254740993/, "$what: as the decode server wrote it";
        unlike $r->{body}, qr/SECRET-FIRST|kv_transfer_params|remote_/, "$what: nothing of the prefill server's answer";
        my ($p, $d) = (sent('p0', 'p1'), sent('d0', 'd1'));
        is scalar(my @p = sent('p0', 'p1')), 1, "$what: one prefill server";
        is scalar(my @d = sent('d0', 'd1')), 1, "$what: one decode server";
        my ($hp, $bp) = PDPlane::FakePD::parts($p[0]);
        my ($hd, $bd) = PDPlane::FakePD::parts($d[0]);
        is $hp->{'x-request-id'}, $hd->{'x-request-id'}, "$what: both know it by the same id";
        isnt $hp->{'x-request-id'}, "id-$kind-$stream", "$what: which is not the client's";
        unlike "$p[0]$d[0]", qr/Bearer client/, "$what: nor its key";
        my $params = PDPlane::FakePD::params_of($bd);
        (my $without = $bd) =~ s/"kv_transfer_params":\Q$params\E,//;
        is $without, $body, "$what: the decode server gets the client's bytes and one member";
        like $bp, qr/"x_unknown":\[1,\{"k":12345678901234567890,"e":1\.10\}\]/, "$what: so does the prefill server";
        like $bp, qr/"tools_x":\{"z":1,"a":"\\u00e9"\}/, "$what: escapes and order stay";
        my ($head) = $p[0] =~ /^(authorization: .*?)\r?$/mi;
        is $head, $s{p0}->requests ? 'authorization: Bearer sesame' : undef, "$what: with the key of that server";
    }
}
is fallbacks('no_params') + fallbacks('failed') + fallbacks('decode'), 0, 'nothing fell back';
is $node->metric("${m0}_prefill_failures_total"), 0, 'nothing failed';
my $count = $node->metrics;
is $count->{'pdplane_requests_total{api="chat",model="m",code="200",disagg="pd",stream="true"}'}, 1, 'counted as shared';
my $why = told_of('id-chat-1');
like $why, qr/remote by pd_threshold: about \d+ uncached tokens, remote from 25/, 'explain: the decision';
like $why, qr/prefill by p[01] took [\d.]+ ms for 57 tokens, 16 of them cached/, 'explain: the prefill leg';
like $why, qr/prefill sent.*prefilled.*decode sent.*decoding/s, 'explain: the stages';

# ---- requests that are not shared
modes('prefill');
my $r = post($port, path(), { model => 'm', messages => [ { role => 'user', content => 'Hi' } ] });
is text_of($r), 'local', 'a short prompt is computed by the decode server';
for my $more ('"n":2', '"echo":true', '"prompt_logprobs":1', '"use_beam_search":true') {
    $r = post($port, path(text => 1), body(",$more", text => 1));
    is text_of($r), 'local', "$more: likewise";
    is_deeply [sent('p0', 'p1')], [], "$more: no prefill server is asked";
}
$r = post($port, path(), body(',"kv_transfer_params":{"do_remote_prefill":true,"remote_host":"10.0.0.1"},"bootstrap_room":1'));
like text_of($r), qr/^remote/, 'a client that says where KV is';
unlike join('', sent(qw(p0 p1 d0 d1))), qr/10\.0\.0\.1|bootstrap_room/, 'is not heard';
for my $twice ('"stream":false,"stream":true', '"max_tokens":1,"max_tokens":2', '"min_tokens":1,"min_tokens":2') {
    modes('prefill');
    is post($port, path(), body(",$twice"))->{status}, 400, "$twice: refused";
    is_deeply [sent(qw(p0 p1 d0 d1))], [], "$twice: nobody is asked";
}

# ---- prefill servers that fail: another one, then none
for my $mode (qw(500 503 429 cut reset half prefill_garbage prefill_twice prefill_long prefill_redirect)) {
    modes('prefill');
    $s{p0}->mode($mode);
    my @r = map { post($port, path(), body()) } 1 .. 2;
    is scalar(grep { text_of($_) =~ /^remote p1/ } @r), 2, "$mode at one: the other one computes";
    my $before = fallbacks('failed');
    modes($mode);
    $r = post($port, path(), body(',"stream":true'), headers => { 'x-request-id' => "all-$mode" });
    is $r->{status}, 200, "$mode at both: answered";
    like stream_text($r), qr/^local/, "$mode at both: the decode server computes";
    is fallbacks('failed'), $before + 1, "$mode at both: counted";
    is scalar(my @d = sent('d0', 'd1')), 1, "$mode at both: it is asked once";
}
{
    my $text = slurp($node->{conf});
    $text =~ s/prefill_timeout = "30s"/prefill_timeout = "500ms"/;
    $text =~ s/127\.0\.0\.1:@{[$node->$_]}/127.0.0.1:%%PORT_hasty_$_%%/ for qw(api_port admin);
    $text =~ s/^(?:control|module_path) = .*//mg;
    my $hasty = PDPlane::Daemon->new('hasty', $text);
    $hasty->expect_log(qr/endpoint "\w+" is down/);
    $hasty->start;
    ok until_true(30, sub { ($hasty->metric("${m0}_prefill_endpoints_up") // 0) == 2 }), 'a router that does not wait long';
    modes('hang');
    $r = post($hasty->api_port, path(), body(), timeout => 60);
    is text_of($r), 'local', 'prefill servers that hang: the decode server computes';
    is $hasty->metric("${m0}_prefill_failures_total"), 2, 'both were asked';
    $hasty->stop;
}
cmp_ok $node->metric("${m0}_prefill_failures_total"), '>', 20, 'failures are counted';
like told_of('all-500'), qr/p[01] failed: it answers with status 500/, 'and explained';
modes('prefill');
$s{p0}->stop;
my @r = map { post($port, path(), body()) } 1 .. 3;
is scalar(grep { text_of($_) =~ /^remote p1/ } @r), 3, 'a prefill server that is gone: the other one computes';
ok up(1, 2), 'its probe finds out';
$s{p1}->mode('unhealthy');
ok up(0, 2), 'and that the other one is not healthy';
$r = post($port, path(), body());
is text_of($r), 'local', 'without any the decode server computes';
$s{p1}->mode('prefill');
ok up(1, 2), 'one is back';
like text_of(post($port, path(), body())), qr/^remote p1/, 'and used';
$s{p0} = PDPlane::FakeEngine->new('p0', mode => 'prefill', port => $s{p0}->port);
ok up(2, 2), 'so is the other one';

# ---- answers of prefill servers that are no failures
for my $mode (qw(prefill_null prefill_none)) {
    my $before = fallbacks('no_params');
    modes($mode);
    $r = post($port, path(), body());
    is text_of($r), 'local', "$mode: the decode server computes";
    is fallbacks('no_params'), $before + 1, "$mode: counted";
    unlike join('', sent('d0', 'd1')), qr/kv_transfer_params/, "$mode: nothing is made up";
}
modes('prefill_400');
$r = post($port, path(), body(',"stream":true'));
is $r->{status}, 400, 'a request that the prefill server refuses';
like $r->{body}, qr/too long a prompt/, 'in its words';
is_deeply [sent('d0', 'd1')], [], 'goes to nobody else';

# ---- decode servers that fail before the first byte
for my $mode (qw(503 429 cut reset)) {
    modes('prefill');
    $s{d0}->mode($mode);
    my @r = map { post($port, path(), body()) } 1 .. 3;
    is scalar(grep { text_of($_) =~ /^remote/ } @r), 3, "$mode at one decode server: another pair answers";
    my %ids = map { (PDPlane::FakePD::parts($_))[0]{'x-request-id'} => 1 } sent('p0', 'p1');
    is scalar keys %ids, scalar(my @p = sent('p0', 'p1')), "$mode: each attempt with an id of its own";
    modes('prefill', $mode);
    $r = post($port, path(), body());
    is $r->{status}, $mode eq '503' ? 503 : $mode eq '429' ? 429 : 502, "$mode at both: an error";
}
my $before = fallbacks('decode');
modes('prefill', 'decode_nokv');
$r = post($port, path(), body(',"stream":true'));
like stream_text($r), qr/^local/, 'decode servers that cannot fetch KV compute the prompt';
is fallbacks('decode'), $before + 1, 'which is counted';
modes('prefill', '500');
$r = post($port, path(), body());
is $r->{status}, 500, 'a decode server that fails in any case: its status';
like $r->{body}, qr/boom/, 'and its words';

# ---- behind the first byte
modes('prefill', 'decode_break');
$r = post($port, path(), body(',"stream":true'));
my @e = events($r->{body});
like $e[0], qr/remote p/, 'a stream that breaks off: what came';
is eval { json_of($e[-1])->{error}{code} }, 'engine_protocol', 'then an error';
unlike $r->{body}, qr/\[DONE\]/, 'no [DONE]';
is scalar(my @p = sent('p0', 'p1')), 1, 'and no second attempt';

# ---- clients that leave
sub gone { return $node->metric("${m0}_client_gone_total") }
modes('hang', 'decode');
my $left = PDPlane::FakePD::left($s{p0}) + PDPlane::FakePD::left($s{p1});
my $was = gone();
my $c = open_stream($port, path(), body(',"stream":true'));
ok until_true(10, sub { scalar(my @all = sent('p0', 'p1')) }), 'the prefill server has the prompt';
$c->close;
ok until_true(10, sub { gone() > $was }), 'a client that leaves meanwhile is noticed';
ok until_true(10, sub { PDPlane::FakePD::left($s{p0}) + PDPlane::FakePD::left($s{p1}) > $left }), 'its prefill leg is closed';
is_deeply [sent('d0', 'd1')], [], 'and no decode server is asked';
modes('prefill', 'decode_hang');
$left = PDPlane::FakePD::left($s{d0}) + PDPlane::FakePD::left($s{d1});
$c = open_stream($port, path(), body(',"stream":true'));
like $c->event, qr/remote p/, 'the answer has begun';
$c->close;
ok until_true(10, sub { PDPlane::FakePD::left($s{d0}) + PDPlane::FakePD::left($s{d1}) > $left }), 'a client that leaves then: the decode leg is closed';

# ---- the books
modes('prefill');
my $m = $node->metrics;
ok until_true(10, sub { $m = $node->metrics; !grep { /^pdplane_requests_running/ && $m->{$_} } keys %$m }), 'no request is left';
my $outcomes = 0;
$outcomes += $m->{$_} for grep { /^pdplane_request_outcomes_total\{role="router"/ } keys %$m;
is $outcomes, $m->{'pdplane_request_accepted_total{role="router"}'}, 'accepted are all that ended';
is scalar(grep { /^pdplane_endpoint_inflight|^pdplane_sched.*inflight/ && $m->{$_} } keys %$m), 0, 'nothing is in flight';
$node->stop;
done_testing;
