# SPDX-License-Identifier: Apache-2.0
# Nodes that come and go while the router runs, clients that leave, drain.  In all
# of this no answer may be wrong and no block may stay taken.
#
# PD_TEST_SHORT=1 makes prompts short and patience long: for builds that are slow, such as
# that with the thread sanitizer.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(topology until_true);
use PDPlane::Http qw(get post parallel open_stream choices_of json_of);
use PDPlane::Test qw(builddir run_program);

my $short = $ENV{PD_TEST_SHORT};
my $link = $short ? 'link = { heartbeat = "300ms"; suspect = "2s"; dead = "4s"; };'
    : 'link = { heartbeat = "100ms"; suspect = "400ms"; dead = "800ms"; };';
# About 50 ms for a prompt below.
my ($times, $slow) = $short ? (5, 'prefill_tokens_per_s = 1200;') : (50, 'prefill_tokens_per_s = 10000;');

# Requests with prompts of their own, so that none is in a cache.
sub ask {
    my ($n, %more) = @_;
    return [ '/v1/completions', { model => 'tiny', temperature => 0, max_tokens => $short ? 6 : 12, logprobs => 1,
        prompt => "Number $n. " . 'One day the dog saw a red ball. ' x $times, %more } ];
}
my @story = ('/v1/completions', { model => 'tiny', temperature => 1, seed => 11, max_tokens => $short ? 150 : 400,
    prompt => 'Once upon a time there was a girl who had a kite, and one day' });

# What one node answers.
my $one = topology('one');
my @expected = map { choices_of($_) } parallel($one->port, map { ask($_) } 0 .. 79);
my $story = json_of(post($one->port, @story)->{body})->{choices}[0]{text};
$one->stop;

my $next = 0;
# The next N requests at the same time; how many of the answers are not right.
sub wrong {
    my ($s, $n) = @_;
    my @numbers = map { $next++ } 1 .. $n;
    my @r = parallel($s->port, map { ask($_) } @numbers);
    return scalar grep { choices_of($r[$_]) ne $expected[ $numbers[$_] ] } 0 .. $#r;
}
# The same in two steps.
sub send_later {
    my ($s, $n) = @_;
    return map { my $k = $next++; [ $k, open_stream($s->port, @{ ask($k) }) ] } 1 .. $n;
}
sub wrong_later {
    my $end = time + 30;
    my $bad = 0;
    for my $w (@_) {
        my ($k, $s) = @$w;
        1 while time < $end && $s->fill($end - time);
        my $got = choices_of(PDPlane::Http::parse($s->{raw}));
        $bad++ if $got ne $expected[$k];
        diag "request $k: $got" if $got ne $expected[$k];
    }
    return $bad;
}
sub valid { return $_[0]->metric('decode', 'pdplane_decode_handovers_valid_total') }
sub free_within {
    my ($s, $seconds, @nodes) = @_;
    return until_true($seconds, sub {
        $s->blocks_free(@nodes) && !grep { $_->metric('pdplane_kv_leases') } grep { defined $_->pid } @{ $s->{decode} }
    });
}
my @lost = (qr/peer /, qr/ kv: .*kv (?:from|to) peer/, qr/hand-over ended/, qr/request failed with status/,
    qr/refused a peer's greeting/);

# ---- a prefill node: absent, added, killed, restarted, hanging, drained
{
    my $s = topology('1p1d', all => $link, start => [qw(decode1 router)], engine => $slow);
    $s->expect_log(@lost);
    my $p = $s->{prefill}[0];
    is wrong($s, 4), 0, 'no prefill node: right answers';
    is valid($s), 0, 'no prefill node: nothing moved';
    $p->start;
    $s->wait_endpoints(1, 1);
    is wrong($s, 2), 0, 'added: right answers';
    is valid($s), 2, 'added: its KV moved';

    my @work = send_later($s, 8);
    sleep 0.1;
    $p->kill9;
    is wrong_later(@work), 0, 'killed at work: right answers';
    cmp_ok $s->metric('decode', 'pdplane_decode_fallbacks_total'), '>', 0, 'killed at work: some were done again';
    ok free_within($s, 1), 'killed at work: all blocks are free';
    is wrong($s, 2), 0, 'dead: right answers';

    my $before = valid($s);
    $p->start;
    $s->wait_endpoints(1, 1);
    is wrong($s, 2), 0, 'restarted: right answers';
    is valid($s), $before + 2, 'restarted: its KV moves again';

    $p->signal('STOP');
    my $t0 = time;
    is wrong($s, 2), 0, 'hanging: right answers';
    cmp_ok time - $t0, '<', $short ? 40 : 10, 'hanging: long before a prefill times out';
    ok free_within($s, 1, @{ $s->{decode} }), 'hanging: all blocks are free';
    $p->signal('CONT');
    $s->wait_endpoints(1, 1);
    is wrong($s, 2), 0, 'goes on: right answers';
    ok free_within($s, 1), 'goes on: all blocks are free, on both';

    @work = send_later($s, 4);
    sleep 0.05;
    $p->signal('QUIT');
    is wrong_later(@work), 0, 'drained at work: right answers';
    is $p->wait_end(5), 0, 'drained at work: it ends';
    is join("\n", $p->complaints), '', 'drained at work: nothing to complain about';
    $p->forget;
    is wrong($s, 2), 0, 'gone: right answers';
    $s->stop;
}

# ---- nodes that dial the router, each at its time
{
    my $s = topology('2p2d', all => $link, dial => 'router', start => ['router']);
    $s->expect_log(@lost);
    is post($s->port, @{ ask(0) })->{status}, 503, 'router alone: 503';
    my ($p1, $p2, $d1, $d2) = (@{ $s->{prefill} }, @{ $s->{decode} });
    $d1->start;
    $s->wait_endpoints(0, 1);
    is wrong($s, 2), 0, 'a decode node: right answers';
    $p1->start;
    $s->wait_endpoints(1, 1);
    is wrong($s, 2), 0, 'and a prefill node: right answers';
    is valid($s), 2, 'the decode node finds the prefill node by the address that it tells';
    $_->start for $d2, $p2;
    $s->wait_endpoints(2, 2);
    is wrong($s, 12), 0, 'two of each: right answers';
    cmp_ok $_->metric('pdplane_decode_handovers_valid_total'), '>', 0, $_->name . ' has a part in it' for $d1, $d2;
    cmp_ok $_->metric('pdplane_prefill_done_total'), '>', 0, $_->name . ' has a part in it' for $p1, $p2;
    $_->kill9 for $d1, $p2;
    is wrong($s, 4), 0, 'one of each killed: right answers';
    $_->start for $d1, $p2;
    $s->wait_endpoints(2, 2);
    is wrong($s, 4), 0, 'and started again: right answers';
    # The router itself starts again; the nodes find it.
    $s->{router}->kill9;
    ok free_within($s, 1), 'the router killed: all blocks are free';
    $s->{router}->start;
    $s->wait_endpoints(2, 2);
    is wrong($s, 4), 0, 'the router started again: right answers';
    ok free_within($s, 1), 'all blocks are free';
    $s->stop;
}

# ---- a decode node that dies behind some tokens
{
    my $s = topology('1p2d', all => $link, engine => 'ms_per_token = 2;');
    $s->expect_log(@lost);
    for my $round (1, 2) {
        my $stream = open_stream($s->port, $story[0], { %{ $story[1] }, stream => JSON::PP::true });
        my @events = map { $stream->event } 1 .. 10;
        my ($serving) = grep { $_->metric('pdplane_engine_running') > 0 } @{ $s->{decode} };
        ok defined $serving, "round $round: a decode node writes" or last;
        $serving->kill9;
        push @events, $stream->rest;
        is pop @events, '[DONE]', "round $round: killed behind tokens, the answer is complete";
        is join('', map { json_of($_)->{choices}[0]{text} // '' } @events), $story, "round $round: and right";
        $serving->start;
        $s->wait_endpoints(1, 2);
    }
    ok free_within($s, 1), 'all blocks are free';
    $s->stop;
}

# ---- another decode node goes on with the KV that the prefill node still has
{
    my $s = topology('2p2d', all => $link, engine => 'ms_per_token = 2;');
    $s->expect_log(@lost);
    my ($path, $body) = @{ ask(79, max_tokens => 120, stream => JSON::PP::true) };
    my $stream = open_stream($s->port, $path, $body);
    my @events = map { $stream->event } 1 .. 20;
    my $tokens = sub { $s->metric('prefill', qq(pdplane_engine_tokens_total{engine="tiny",kind="$_[0]"})) };
    my $computed = $tokens->('prompt');
    cmp_ok $computed, '>', 8 * $times, 'a long prompt was computed on a prefill node';
    my ($serving) = grep { $_->metric('pdplane_engine_running') > 0 } @{ $s->{decode} };
    $serving->kill9;
    push @events, $stream->rest;
    is pop @events, '[DONE]', 'killed behind tokens: the answer is complete';
    cmp_ok $tokens->('cached'), '>', $computed - 16, 'the prefill node had its KV still';
    cmp_ok $tokens->('prompt') - $computed, '<', 120 + 16, 'and computed only what was new';
    is $s->metric('decode', 'pdplane_decode_handovers_valid_total'), 1, 'it was handed over to the other decode node';
    ok free_within($s, 1), 'all blocks are free';
    $s->stop;
}

# ---- clients that leave
{
    my $s = topology('1p1d', all => $link, engine => "$slow ms_per_token = 2;");
    # The grant may have ended before the way to the decode node was there.
    $s->expect_log(qr/refused a peer's greeting/);
    for my $after (0, 0.02, 0.05, 0.1, 0.3) {
        my @streams = map { open_stream($s->port, @{ ask("left $after $_", max_tokens => 2000, stream => JSON::PP::true) }) } 1 .. 6;
        sleep $after;
        $_->close for @streams;
        ok free_within($s, 1), "clients that leave after $after s: all blocks are free within a second";
    }
    my $m = $s->{router}->metrics;
    is $s->metric('router', 'pdplane_requests_running'), 0, 'no request is left';
    is wrong($s, 4), 0, 'then right answers';
    $s->stop;
}

# ---- a client that reads late
if (!$short) {
    my $s = topology('1p1d');
    my %body = (model => 'tiny', seed => 5, temperature => 1.2, max_tokens => 300, stream => JSON::PP::true, logprobs => 20,
        prompt => [ map { "Once upon a time number $_ there was a cat and" } 1 .. 32 ]);
    # Texts by choice; log probabilities are only there to make much of it.
    my $texts = sub {
        my @c;
        for my $e (@_) {
            my ($i, $t) = $e =~ /"index":(\d+),"text":"((?:[^"\\]|\\.)*)"/ or next;
            $c[$i] .= $t;
        }
        return join '|', @c;
    };
    my @at_once = open_stream($s->port, '/v1/completions', \%body)->rest(30);
    my $late = open_stream($s->port, '/v1/completions', \%body);
    until_true(5, sub { !$s->metric('decode', 'pdplane_requests_running') });
    my @late = $late->rest(30);
    is $late[-1], '[DONE]', 'a client that reads late: gets all of it';
    is $texts->(@late), $texts->(@at_once), 'and the same';
    ok free_within($s, 1), 'all blocks are free';
    $s->stop;
}

# ---- drain
{
    my $s = topology('1p2d', all => $link, engine => 'ms_per_token = 2;');
    my @streams = map { open_stream($s->port, $story[0], { %{ $story[1] }, stream => JSON::PP::true }) } 1 .. 4;
    $_->event for @streams;
    my ($serving) = grep { $_->metric('pdplane_engine_running') > 0 } @{ $s->{decode} };
    $serving->signal('QUIT');
    ok until_true(2, sub { $s->endpoints_up('decode') == 1 }), 'a decode node drains: the router knows';
    is wrong($s, 4), 0, 'a decode node drains: new requests go elsewhere';
    my @texts = map { my @e = $_->rest; pop @e; join '', map { json_of($_)->{choices}[0]{text} // '' } @e } @streams;
    is scalar(grep { length($_) < 100 || substr($story, -length $_) ne $_ } @texts), 0, 'a decode node drains: its streams go on to their ends';
    is $serving->wait_end(5), 0, 'a decode node drains: then it ends';
    $serving->forget;

    my $stream = open_stream($s->port, $story[0], { %{ $story[1] }, stream => JSON::PP::true });
    $stream->event;
    my $router = $s->{router};
    my ($rc) = run_program(builddir() . '/pdplane', '-s', 'drain', '-c', $router->{conf});
    is $rc, 0, 'pdplane -s drain';
    ok until_true(2, sub { (get($router->admin, '/ready')->{status} // 0) == 503 }), 'the router drains: not ready';
    my $new = post($s->port, @{ ask(1) }, timeout => 3);
    ok !defined $new->{status} || $new->{status} == 503, 'the router drains: takes no new requests';
    is +($stream->rest)[-1], '[DONE]', 'the router drains: its stream goes on to its end';
    is $router->wait_end(5), 0, 'the router drains: then it ends';
    is join("\n", $router->complaints), '', 'the router drains: nothing to complain about';
    $router->forget;
    ok free_within($s, 1), 'all blocks are free';
    $s->stop;
}

# ---- stop with open requests: an honest end
{
    my $s = topology('1p1d', all => $link, engine => 'ms_per_token = 2;');
    $s->expect_log(@lost);
    my $stream = open_stream($s->port, $story[0], { %{ $story[1] }, stream => JSON::PP::true });
    $stream->event;
    $s->{router}->stop;
    my @rest = $stream->rest;
    like $rest[-1], qr/"error":.*"code":"draining"/, 'the router is stopped: an error event';
    ok !grep({ $_ eq '[DONE]' } @rest), 'and no [DONE]';
    ok free_within($s, 1), 'all blocks are free';
    $s->stop;
}

done_testing;
