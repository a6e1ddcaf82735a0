# SPDX-License-Identifier: Apache-2.0
# KV that travels encoded gives the same text: between nodes that have the
# codec, and between one that has it and one that does not.
use strict;
use warnings;

use Test::More;

use PDPlane::Daemon qw(topology);
use PDPlane::Golden qw(differing golden greedy seeded);
use PDPlane::Http qw(parallel choices_of);
use PDPlane::Test;

plan skip_all => 'the codec planes is not built' unless grep { -e "$_/planes.so" } module_dirs();

my @asks = (greedy(), seeded());
my $one = topology('one');
my @expected = map { choices_of($_) } parallel($one->port, @asks);
$one->stop;

# A list that names the codec, for `load`, comes in place of the transport.
my $with = 'transport = { tcp = { codec = "planes"; }; };';
my %load = (transport => 'tcp", "planes');
for my $case (['f32', 'both', { prefill => $with, decode => $with }], ['f16', 'both', { prefill => $with, decode => $with }],
    ['f32', 'one', { decode => $with }]) {
    my ($dtype, $who, $options) = @$case;
    my $name = "$dtype, $who";
    my $s = topology('1p1d', %load, %$options, engine => qq(kv_dtype = "$dtype";));
    # With 16 bits for each number the text of 32 bits is not expected.
    my @got = map { choices_of($_) } parallel($s->port, @asks);
    is differing(\@got, \@expected), 0, "$name: the same text and log probabilities"
        if $dtype eq 'f32';
    my $plain = $s->metric('prefill', 'pdplane_transport_codec_plain_bytes_total') // 0;
    my $encoded = $s->metric('prefill', 'pdplane_transport_codec_encoded_bytes_total') // 0;
    if ($who eq 'both') {
        cmp_ok $plain, '>', 100_000, "$name: $plain bytes were encoded";
        cmp_ok $encoded, '<', 0.95 * $plain, "$name: as $encoded";
        is $s->metric('decode', 'pdplane_transport_codec_decoded_bytes_total'), $plain, "$name: and decoded";
    } else {
        is $plain, 0, "$name: bytes went plain";
    }
    is $s->metric('decode', 'pdplane_transport_codec_failures_total') // 0, 0, "$name: none failed";
    is $s->metric('decode', 'pdplane_kv_digest_failures_total'), 0, "$name: every digest was right";
    cmp_ok $s->metric('decode', 'pdplane_decode_handovers_valid_total'), '>=', scalar(golden()),
        "$name: all hand-overs were verified";
    ok $s->wait_blocks_free, "$name: all blocks are free";
    $s->stop;
}

done_testing;
