# SPDX-License-Identifier: Apache-2.0
# However the work is divided, the answer is the same: every golden prompt,
# greedy and seeded, text and log probabilities to the last digit, through one
# process, 1 + 1 and 2 + 2 nodes, both transports, both sizes of hand-over; with
# prefix hits, over several turns, and with 16 requests at a time.
#
# PD_TEST_SHORT=1 takes few prompts and three topologies: for builds that are slow,
# such as that with the thread sanitizer.
use strict;
use warnings;

use Test::More;

use PDPlane::Daemon qw(topology);
use PDPlane::Golden qw(differing golden greedy seeded text_of);
use PDPlane::Http qw(parallel post choices_of);

my $short = $ENV{PD_TEST_SHORT};
my @golden = golden();
my @asks = (greedy(), seeded());
# Prompts behind which the text ends at once: whole answers, and one cut off by a
# stop string within the first token.
my $from = @asks;
for my $g (grep { $_->{finish} eq 'stop' } @golden) {
    my @ids = @{ $g->{ids} };
    pop @ids;
    push @asks, [ '/v1/completions', { model => 'tiny', temperature => 0, max_tokens => 8, logprobs => 2,
        prompt => [ @{ $g->{prompt_ids} }, @ids ] } ];
}
push @asks, [ '/v1/completions', { model => 'tiny', temperature => 0, max_tokens => 8, prompt => $golden[0]{prompt},
    stop => substr $golden[0]{text}, 0, 1 } ];

# All requests, so many at a time.
sub answers {
    my ($s, $at_a_time, @list) = @_;
    my @out;
    while (my @part = splice @list, 0, $at_a_time) {
        push @out, parallel($s->port, @part);
    }
    return @out;
}

sub turns {
    my ($s) = @_;
    my (@messages, @out);
    for my $user ('Hello! Who are you?', 'Tell me a story about a fox and a kite.', 'What is two plus three?',
        'Repeat these words: lamp, river, goat.') {
        last if $short && @out == 2;
        push @messages, { role => 'user', content => $user };
        my $r = post($s->port, '/v1/chat/completions', { model => 'tiny', messages => \@messages, temperature => 0,
            max_tokens => 40, logprobs => JSON::PP::true, top_logprobs => 2 });
        push @out, choices_of($r);
        push @messages, { role => 'assistant', content => text_of($r) };
    }
    return @out;
}

# ---- the reference: one process, nothing moved, one request at a time
my $one = topology('one');
my @first = answers($one, 1, @asks);
is text_of($first[$_]), $golden[$_]{text}, "golden prompt $_: the text of the other program" for 0 .. $#golden;
my @expected = map { choices_of($_) } @first;
like choices_of($first[$_]), qr/"text":"",.*"finish_reason":"stop"/, "request $_ ends at once" for $from .. $#asks;
my @turns = turns($one);

is differing([ map { choices_of($_) } answers($one, 16, @asks) ], \@expected), 0,
    'one process: the same with prefix hits, 16 at a time';
is differing([ turns($one) ], \@turns), 0, 'one process: the same turns again';
ok $one->wait_blocks_free, 'one process: all blocks are free';
$one->stop;

# ---- the same, divided
for my $case ($short ? (['2p2d', 'shm', 'full'], ['all', 'tcp', 'full'], ['1p1d', 'tcp', 'n-1']) :
    (['1p1d', 'shm', 'full'], ['1p1d', 'tcp', 'full'], ['2p2d', 'shm', 'full'], ['2p2d', 'tcp', 'full'],
    ['all', 'shm', 'full'], ['all', 'tcp', 'full'], ['1p1d', 'shm', 'n-1'], ['2p2d', 'tcp', 'n-1'])) {
    my ($kind, $transport, $handover) = @$case;
    my $name = "$kind over $transport, $handover";
    my $s = topology($kind, transport => $transport, handover => $handover, all => q(log = { level = "info"; };));
    is differing([ map { choices_of($_) } answers($s, 16, @asks) ], \@expected), 0,
        "$name: the same text and log probabilities, 16 at a time";
    is differing([ turns($s) ], \@turns), 0, "$name: the same over several turns";
    my $valid = $s->metric('decode', 'pdplane_decode_handovers_valid_total');
    my $bytes = $s->metric('decode', qq(pdplane_handover_bytes_total{transport="$transport"}));
    # A seeded request may find its prompt in the decode node's cache.
    cmp_ok $valid, '>=', scalar(@golden), "$name: $valid hand-overs were verified";
    cmp_ok $bytes, '>', 2048 * ($short ? 50 : 4000), "$name: $bytes bytes moved";
    is differing([ map { choices_of($_) } answers($s, 16, @asks) ], \@expected), 0, "$name: the same with prefix hits";
    is $s->metric('decode', 'pdplane_decode_handovers_failed_total'), 0, "$name: no hand-over failed";
    is $s->metric('decode', 'pdplane_decode_fallbacks_total'), 0, "$name: nothing was done twice"
        or diag map { grep { /prefill on/ } split /^/m, $_->log_text } @{ $s->{decode} };
    ok $s->wait_blocks_free, "$name: all blocks are free";
    is $s->metric('prefill', 'pdplane_request_outcomes_total{role="prefill",outcome="cancelled"}'), 0,
        "$name: an order whose KV was used counts as done";
    $s->stop;
}

done_testing;
