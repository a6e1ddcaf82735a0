# SPDX-License-Identifier: Apache-2.0
# A router over SGLang servers that compute prompts and answers apart: both get the
# request at the same time and meet in a room.  What each of them gets, and what a
# client sees when one of them fails at each stage.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::FakePD;
use PDPlane::FakeSGLang;
use PDPlane::Test qw(builddir check_text folder spew slurp run_program);
use PDPlane::Http qw(get post parallel open_stream events json_of);

PDPlane::FakeSGLang::modes();
my %s = map { $_ => PDPlane::FakeEngine->new($_, mode => /^p/ ? 'prefill' : /^d/ ? 'decode' : 'whole', models => [/^w/ ? 'w' : 'm']) } qw(p0 p1 d0 d1 w0);
PDPlane::FakeSGLang::bootstrap($s{p0}, '127.0.0.1', 8998);
PDPlane::FakeSGLang::bootstrap($s{p1}, 'p1.example', 9001);
my $key = spew('key', "sesame\n", 0600);
my $node = PDPlane::Daemon->new('router', sprintf <<"END", map { $s{$_}->port } qw(p0 p1 d0 d1 w0));
load = [ "router", "sglang" ];
control = "@{[folder()]}/ctl";
listen = ( { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; } );
endpoints = ( { name = "p0"; roles = [ "prefill" ]; type = "sglang"; url = "http://127.0.0.1:%d"; api_key_file = "$key"; },
              { name = "p1"; roles = [ "prefill" ]; type = "sglang"; url = "http://127.0.0.1:%d"; bootstrap_host = "p1.example"; bootstrap_port = 9001; },
              { name = "d0"; roles = [ "decode" ]; type = "sglang"; url = "http://127.0.0.1:%d"; },
              { name = "d1"; roles = [ "decode" ]; type = "sglang"; url = "http://127.0.0.1:%d"; },
              { name = "w0"; type = "sglang"; url = "http://127.0.0.1:%d"; } );
role = { router = { probe_interval = "100ms"; deadline = "60s"; prefill_timeout = "30s"; prefill_answer = "100k"; wait = "0s"; }; };
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
ok up(3, 3), 'all are up by their probes';

my $n = 0;
sub body {
    my ($more, %o) = @_;
    my $prompt = sprintf('%04d ', ++$n) . 'The rivers of Europe. ' x 11;
    my $what = $o{text} ? qq("prompt":"$prompt") : qq("messages":[ {"role":"user","content":"$prompt \\u00e9"} ]);
    return sprintf '{ "model" : "m", %s ,"x_unknown":[1,{"k":12345678901234567890,"e":1.10}],"x_marker":"%04d","temperature":0%s }',
        $o{prompt} // $what, $n, $more // '';
}
sub path { my (%o) = @_; return $o{text} ? '/v1/completions' : '/v1/chat/completions' }
my $since = 0;
# From now on; a leg that was canceled before may still come late to its server.
sub modes { my ($p, $d) = @_; $since = $n; $s{$_}->mode($p) for qw(p0 p1); $s{$_}->mode($d // 'decode') for qw(d0 d1); return }
sub is_new { my ($marker) = @_; return $marker ne '' && $marker > $since }
sub sent { my (@names) = @_; return grep { is_new(PDPlane::FakeSGLang::marker_of($_)) } map { $s{$_}->requests } @names }
sub left { my (@names) = @_; return scalar(my @all = grep { is_new($_) } map { PDPlane::FakeSGLang::left($s{$_}) } @names) }
sub text_of { my ($r) = @_; my $c = eval { json_of($r->{body})->{choices}[0] } // {}; return $c->{text} // $c->{message}{content} // $r->{body} }
sub stream_text { my ($r) = @_; return join ' ', map { my $c = /^\{/ ? json_of($_)->{choices}[0] // {} : {}; $c->{text} // $c->{delta}{content} // () } events($r->{body}) }
sub rooms { return map { /"bootstrap_room":(\d+|\[[\d,]+\])/ ? $1 : () } @_ }
sub prefill_failures { return $node->metric("${m0}_prefill_failures_total") }
sub told_of {
    my ($id) = @_;
    my ($rc, $out, $err) = run_program(builddir() . '/pdctl', '-s', folder() . '/ctl', 'explain', $id);
    return $out;
}

# ---- what the two servers get
my %rooms;
for my $text (0, 1) {
    my $kind = $text ? 'completions' : 'chat';
    for my $stream (0, 1) {
        my $what = "$kind, " . ($stream ? 'streamed' : 'plain');
        modes('prefill');
        my $more = ',"max_tokens":50,"min_tokens":5,"tools_x":{"z":1,"a":"\u00e9"}';
        $more = ',"stream":true,"stream_options":{"include_usage":true}' . $more if $stream;
        my $body = body($more, text => $text);
        my $r = post($port, path(text => $text), $body, headers => { 'x-request-id' => "id-$kind-$stream", authorization => 'Bearer client' });
        is $r->{status}, 200, "$what: answered" or diag $r->{body};
        like $stream ? stream_text($r) : text_of($r), qr/^remote p[01]/, "$what: with the KV of a prefill server";
        like $r->{body}, $stream ? qr/data: \[DONE\]\n\n\z/ : qr/"big":9007199254740993/, "$what: as the decode server wrote it";
        unlike $r->{body}, qr/SECRET-FIRST|bootstrap/, "$what: nothing of the prefill server's answer";
        my (@p, @d) = ();
        @p = sent('p0', 'p1'); @d = sent('d0', 'd1');
        is @p . @d, '11', "$what: one server of each kind";
        my ($hp, $bp) = PDPlane::FakePD::parts($p[0]);
        my ($hd, $bd) = PDPlane::FakePD::parts($d[0]);
        is $bp, $bd, "$what: both get the same bytes";
        is $hp->{'x-request-id'}, $hd->{'x-request-id'}, "$what: both know it by the same id";
        isnt $hp->{'x-request-id'}, "id-$kind-$stream", "$what: which is not the client's";
        unlike "$p[0]$d[0]", qr/Bearer client/, "$what: nor its key";
        my ($where) = sent('p0') ? '"bootstrap_host":"127.0.0.1","bootstrap_port":8998' : '"bootstrap_host":"p1.example","bootstrap_port":9001';
        like $bp, qr/\Q$where\E,"bootstrap_room":\d+/, "$what: where they meet";
        (my $without = $bd) =~ s/"bootstrap_host":"[^"]*","bootstrap_port":\d+,"bootstrap_room":\d+,//;
        is $without, $body, "$what: all else is the client's, byte for byte";
        my ($head) = $p[0] =~ /^(authorization: .*?)\r?$/mi;
        is $head, sent('p0') ? 'authorization: Bearer sesame' : undef, "$what: with the key of that server";
        $rooms{$_}++ for rooms($bp);
    }
}
is scalar(keys %rooms), 4, 'each request has a room of its own';
cmp_ok scalar(grep { length > 9 } keys %rooms), '>=', 3, 'drawn from many';
is prefill_failures(), 0, 'nothing failed';
is $node->metric('pdplane_requests_total{api="chat",model="m",code="200",disagg="pd",stream="true"}'), 1, 'counted as shared';
my $why = told_of('id-chat-1');
like $why, qr/remote.*the decode server computes no prompts/, 'explain: no decision to make';
like $why, qr/prefill by p[01] took [\d.]+ ms/, 'explain: the prefill leg';
like $why, qr/prefill sent.*decode sent.*decoding/s, 'explain: the stages';
modes('prefill');
my $r = post($port, path(), { model => 'm', messages => [ { role => 'user', content => 'Hi' } ] });
like text_of($r), qr/^remote/, 'a short prompt takes the same way';
$r = post($port, path(), { model => 'w', messages => [ { role => 'user', content => 'Hi' } ] });
is text_of($r), 'whole', 'a server with both roles gets requests as they are';

# ---- batches
for my $case ([ 'several prompts', 3, '"prompt":["one", "two","three"]' ], [ 'a list of one prompt', 1, '"prompt":[ "one"]' ],
        [ 'lists of tokens', 2, '"prompt":[[1,2],[3,4,5]]' ], [ 'a prompt in tokens', 0, '"prompt":[ 1,2,3]' ],
        [ 'several choices', 2, '"prompt":"one"', ',"n":2' ], [ 'several of both', 6, '"prompt":["one","two","three"]', ',"n":2' ]) {
    my ($what, $count, $prompt, $more) = @$case;
    for my $stream ('', ',"stream":true') {
        modes('prefill');
        $r = post($port, path(text => 1), body(($more // '') . $stream, text => 1, prompt => $prompt));
        is $r->{status}, 200, "$what: answered" or diag $r->{body};
        my @rooms = map { [ /\d+/g ] } rooms(sent('p0', 'p1'));
        is scalar @{ $rooms[0] }, $count || 1, "$what: as many rooms";
        my %differ = map { $_ => 1 } @{ $rooms[0] };
        is scalar keys %differ, $count || 1, "$what: which differ";
        is + (rooms(sent('d0', 'd1')))[0], (rooms(sent('p0', 'p1')))[0], "$what: the same for both";
    }
}
modes('prefill', 'decode_first');
$r = post($port, path(text => 1), body(',"stream":true', text => 1, prompt => '"prompt":["one","two"]'));
is scalar(() = $r->{body} =~ /"remote p[01]"/g), 2, 'several prompts, streamed one by one: all answers come';
modes('prefill', 'decode_first');
$s{p0}->mode('prefill_half');
my @r = map { post($port, path(text => 1), body(',"stream":true', text => 1, prompt => qq("prompt":["one $_","two $_"]))) } 1 .. 2;
is scalar(grep { (() = $_->{body} =~ /"remote p1"/g) == 2 && $_->{body} !~ /p0|error/ } @r), 2,
    'a prefill server that fails behind the first prompt: another pair answers all of them';

# ---- what pairs cannot do, or clients may not say
modes('prefill');
$r = post($port, path(text => 1), body(',"echo":true', text => 1));
is $r->{status}, 400, 'echo: refused';
is_deeply [sent(qw(p0 p1 d0 d1))], [], 'echo: nobody is asked';
is post($port, path(text => 1), body(',"echo":false', text => 1))->{status}, 200, 'no echo: answered';
modes('prefill');
$r = post($port, path(), body(',"bootstrap_host":"10.0.0.1","bootstrap_room":1,"bootstrap_port":null'));
like text_of($r), qr/^remote/, 'a client that says where to meet';
unlike join('', sent(qw(p0 p1 d0 d1))), qr/10\.0\.0\.1|bootstrap_room":1,/, 'is not heard';

# ---- many at once
modes('prefill');
@r = parallel($port, map { [ path(), body($_ % 2 ? ',"stream":true' : '') ] } 1 .. 16);
is scalar(grep { ($_->{status} // 0) == 200 && $_->{body} =~ /remote p[01]/ } @r), 16, 'many at a time: all are answered';
%rooms = map { $_ => 1 } rooms(sent('p0', 'p1'));
is scalar keys %rooms, 16, 'each in a room of its own';

# ---- prefill servers that fail
for my $mode (qw(500 503 429 408 302 cut reset prefill_event prefill_short)) {
    my $more = $mode =~ /event|short/ ? ',"stream":true' : '';
    modes('prefill');
    $s{p0}->mode($mode);
    @r = map { post($port, path(), body($more)) } 1 .. 2;
    is scalar(grep { $_->{body} =~ /remote p1/ } @r), 2, "$mode at one prefill server: the other one computes";
    my @all = rooms(sent('d0', 'd1'));
    %rooms = map { $_ => 1 } @all;
    is scalar keys %rooms, scalar @all, "$mode at one prefill server: a new room for each attempt";
    my $before = prefill_failures();
    modes($mode);
    $r = post($port, path(), body(',"stream":true'), headers => { 'x-request-id' => "all-$mode" });
    is $r->{status}, { 503 => 503, 429 => 429 }->{$mode} // 502, "$mode at both: an error";
    unlike $r->{body}, qr/\[DONE\]|remote/, "$mode at both: and nothing else";
    cmp_ok prefill_failures(), '>=', $before + 2, "$mode at both: counted";
}
like told_of('all-500'), qr/p[01] failed: it answers with status 500/, 'failures are explained';
modes('prefill_stall');
my $c = open_stream($port, path(), body(',"stream":true'));
ok until_true(20, sub { my @all = sent('p0', 'p1'); @all == 1 && (my @d = sent('d0', 'd1')) == 1 }), 'a prefill server at work, the decode server waits';
my ($at) = grep { sent($_) } qw(p0 p1);
my $other = $at eq 'p0' ? 'p1' : 'p0';
$s{$other}->mode('prefill');
my $its_port = $s{$at}->port;
$s{$at}->stop;
like $c->event, qr/"remote $other"/, 'it is killed: another one computes, and the client hears nothing of it';
is + ($c->rest)[-1], '[DONE]', 'to the end';
ok until_true(20, sub { left('d0', 'd1') == 1 }), 'the decode server was told to stop waiting';
ok up(2, 3), 'the probe finds out';
$s{$at} = PDPlane::FakeEngine->new($at, mode => 'prefill', port => $its_port);
ok up(3, 3), 'it is back';

# ---- without a prefill server
$s{$_}->mode('unhealthy') for qw(p0 p1);
ok up(1, 1), 'without prefill servers no pair is up';
$r = post($port, path(), body());
is $r->{status}, 503, 'a request for one is refused';
is + (post($port, path(), { model => 'w', messages => [ { role => 'user', content => 'Hi' } ] }))->{status}, 200, 'others are not';
modes('prefill');
ok up(3, 3), 'they are back';
like text_of(post($port, path(), body())), qr/^remote/, 'and used';

# ---- requests that a server refuses
for my $case ([ 'prefill_400', 'decode_stall', qr/too long a prompt/ ], [ 'prefill_stall', 'decode_400', qr/no such thing/ ]) {
    my ($p, $d, $words) = @$case;
    modes($p, $d);
    $r = post($port, path(), body(',"stream":true'));
    is $r->{status}, 400, "$p: the request is refused";
    like $r->{body}, $words, "$p: in the server's words";
    ok until_true(20, sub { left('p0', 'p1', 'd0', 'd1') == 1 }), "$p: the other one is told to stop";
    is scalar(my @all = sent(qw(p0 p1 d0 d1))), 2, "$p: nobody else is asked";
}

# ---- decode servers that fail before the answer begins
for my $mode (qw(500 503 429 408 302 cut reset decode_event decode_late_event decode_short)) {
    my $more = $mode =~ /event|short/ ? ',"stream":true' : '';
    modes('prefill');
    $s{d0}->mode($mode);
    @r = map { post($port, path(), body($more)) } 1 .. 3;
    is scalar(grep { $_->{body} =~ /remote p/ && $_->{body} !~ /error/ } @r), 3, "$mode at one decode server: another pair answers";
    my @all = rooms(sent('p0', 'p1'));
    %rooms = map { $_ => 1 } @all;
    is scalar keys %rooms, scalar @all, "$mode at one decode server: in another room";
    modes('prefill', $mode);
    $r = post($port, path(), body(',"stream":true'));
    is $r->{status}, { 503 => 503, 429 => 429 }->{$mode} // 502, "$mode at both: an error";
    unlike $r->{body}, qr/\[DONE\]|remote/, "$mode at both: and nothing else";
}
modes('prefill_stall', 'decode');
$c = open_stream($port, path(), body(',"stream":true'));
ok until_true(20, sub { my @all = sent('d0', 'd1'); @all == 1 && (my @p = sent('p0', 'p1')) == 1 }), 'a decode server that waits';
$s{$_}->mode('prefill') for qw(p0 p1);
($at) = grep { sent($_) } qw(d0 d1);
$its_port = $s{$at}->port;
$s{$at}->stop;
like $c->event, qr/"remote p/, 'it is killed: another pair answers';
is + ($c->rest)[-1], '[DONE]', 'to the end';
ok until_true(20, sub { left('p0', 'p1') == 1 }), 'the prefill server was told to stop';
ok up(3, 2), 'the probe finds out';
$s{$at} = PDPlane::FakeEngine->new($at, mode => 'decode', port => $its_port);
ok up(3, 3), 'it is back';

# ---- behind the first token
modes('prefill', 'decode_break');
$r = post($port, path(), body(',"stream":true'));
my @e = events($r->{body});
like $e[0], qr/remote p/, 'a stream that breaks off: what came';
is eval { json_of($e[-1])->{error}{code} }, 'engine_protocol', 'then an error';
unlike $r->{body}, qr/\[DONE\]/, 'no [DONE]';
is scalar(my @p = sent('p0', 'p1')), 1, 'and no second attempt';
modes('prefill_hold');
my $accepted = sub { my $m = $node->metrics; return !grep { /^pdplane_requests_running/ && $m->{$_} } keys %$m };
my $ended = sub { return scalar(my @all = grep { is_new($_) } PDPlane::FakeSGLang::ended()) };
@r = map { post($port, path(), body($_)) } ',"stream":true', '';
is scalar(grep { $_->{body} =~ /remote p[01]/ } @r), 2, 'a prefill server that answers late: the client does not wait for it';
ok until_true(20, $accepted), 'the requests are over';
PDPlane::FakeSGLang::put('let-go', '');
ok until_true(20, sub { $ended->() == 2 }), 'the prefill server can end its answers';
is left('p0', 'p1'), 0, 'nobody has broken them off';
for my $k (1 .. 3) { is + (post($port, path(), body()))->{status}, 200, 'its connections can be used again' }

# ---- clients that leave
sub clients_gone { return $node->metric("${m0}_client_gone_total") }
modes('prefill_stall', 'decode');
my $was = clients_gone();
$c = open_stream($port, path(), body(',"stream":true'));
ok until_true(20, sub { my @all = sent(qw(p0 p1 d0 d1)); @all == 2 }), 'both servers have the request';
$c->close;
ok until_true(20, sub { clients_gone() > $was }), 'a client that leaves meanwhile is noticed';
ok until_true(20, sub { left('p0', 'p1') == 1 && left('d0', 'd1') == 1 }), 'both legs are closed';
modes('prefill', 'decode_hang');
$c = open_stream($port, path(), body(',"stream":true'));
like $c->event, qr/remote p/, 'the answer has begun';
$c->close;
ok until_true(20, sub { left('d0', 'd1') == 1 }), 'a client that leaves then: the decode leg is closed';

# ---- a router that does not wait long
{
    my $text = slurp($node->{conf});
    $text =~ s/prefill_timeout = "30s"/prefill_timeout = "500ms"/;
    $text =~ s/127\.0\.0\.1:@{[$node->$_]}/127.0.0.1:%%PORT_hasty_$_%%/ for qw(api_port admin);
    $text =~ s/^(?:control|module_path) = .*//mg;
    my $hasty = PDPlane::Daemon->new('hasty', $text);
    $hasty->expect_log(qr/endpoint "\w+" is down/, qr/request failed with status 504/);
    $hasty->start;
    ok until_true(30, sub { ($hasty->metric("${m0}_prefill_endpoints_up") // 0) == 3 }), 'a router that does not wait long';
    modes('prefill_stall');
    $r = post($hasty->api_port, path(), body(',"stream":true'), timeout => 60);
    is $r->{status}, 504, 'prefill servers that hang: an error';
    cmp_ok $hasty->metric("${m0}_prefill_failures_total"), '>=', 2, 'both were asked';
    $hasty->stop;
}

# ---- the books
modes('prefill');
ok until_true(20, $accepted), 'no request is left';
my $m = $node->metrics;
my $outcomes = 0;
$outcomes += $m->{$_} for grep { /^pdplane_request_outcomes_total\{role="router"/ } keys %$m;
is $outcomes, $m->{'pdplane_request_accepted_total{role="router"}'}, 'accepted are all that ended';
is scalar(grep { /^pdplane_endpoint_inflight|^pdplane_sched.*inflight/ && $m->{$_} } keys %$m), 0, 'nothing is in flight';
is_deeply [ PDPlane::FakeSGLang::crimes() ], [], 'no server got what it must not get';
$node->stop;

# ---- servers in another mode than their roles need
{
    $s{p0}->info('{"model_path":"/m","disaggregation_mode":"prefill","x":1}');
    $s{p1}->info('{"disaggregation_mode":"decode"}');
    $s{d0}->info('{"disaggregation_mode":"null"}');
    $s{d1}->info('cut');
    $s{w0}->info('{"disaggregation_mode":');
    my $text = slurp($node->{conf});
    $text =~ s/127\.0\.0\.1:@{[$node->$_]}/127.0.0.1:%%PORT_careful_$_%%/ for qw(api_port admin);
    $text =~ s/^(?:control|module_path) = .*//mg;
    my $careful = PDPlane::Daemon->new('careful', $text);
    $careful->expect_log(qr/endpoint "p1" is not used: its disaggregation_mode is "decode", and its roles need "prefill"/,
        qr/endpoint "d0" is not used: its disaggregation_mode is "null", and its roles need "decode"/,
        qr/endpoint "p1" is up/, qr/endpoint "d0" is not used/);
    $careful->start;
    my $has = sub { my ($p, $d) = @_; return until_true(30, sub { my $m = $careful->metrics; ($m->{"${m0}_prefill_endpoints_up"} // -1) == $p && ($m->{"${m0}_decode_endpoints_up"} // -1) == $d }) };
    ok $has->(2, 2), 'servers in a wrong mode are not used, those that do not tell are';
    modes('prefill');
    @r = map { post($careful->api_port, path(), body()) } 1 .. 4;
    is scalar(grep { $_->{body} =~ /remote p0/ } @r), 4, 'requests go to those in the right one';
    is_deeply [sent('p1', 'd0')], [], 'and to no others';
    $s{p1}->info('{"disaggregation_mode":"prefill"}');
    ok $has->(3, 2), 'one that was started anew, in the right mode, is used';
    is scalar(() = $careful->log_text =~ /"d0" is not used/g), 1, 'what is wrong is said once';
    $careful->stop;
}

# ---- options
for my $case ([ 'bootstrap_host = "a b"', qr/"bootstrap_host" is no name or address/ ], [ 'bootstrap_port = 70000', qr/bootstrap_port/ ], [ 'probe = "health"', qr/must begin with/ ]) {
    my ($rc, undef, $err) = check_text(qq(module_path = [ "@{[PDPlane::Daemon::modules_folder()]}" ];\nload = [ "router", "sglang" ];\nlisten = ( { address = "127.0.0.1:0"; api = "openai"; } );\n)
        . qq(endpoints = ( { name = "p0"; type = "sglang"; url = "http://127.0.0.1:1"; $case->[0]; } );\n));
    is $rc, 1, "$case->[0]: refused";
    like $err, $case->[1], "$case->[0]: with a reason";
}
done_testing;
