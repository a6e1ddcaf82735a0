# SPDX-License-Identifier: Apache-2.0
# Hand-overs over fabrics, by those of their providers that every machine has:
# the answers are those of one process, a prefill node that is killed costs no
# answer, and nothing is left behind.
use strict;
use warnings;

use Test::More;

use PDPlane::Daemon qw(topology);
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(parallel choices_of);
use PDPlane::Test;

# A slow machine is no fault of the fabrics.
my $patient = 'kv = { connect_timeout = "60s"; lease = "60s"; };';
my $f = 'listen = "127.0.0.1:0"; timeout = "60s"; connect_timeout = "60s";';
my %fabrics = (
    ofi => qq($patient transport = { ofi = { $f provider = "tcp;ofi_rxm"; }; };),
    ucx => qq($patient transport = { ucx = { $f transports = "tcp,self"; }; };),
);
my @built = grep { -e builddir() . "/modules/transport/$_/.libs/$_.so" } sort keys %fabrics;
plan skip_all => 'no transport over a fabric is built' unless @built;

my @golden = golden();
my @asks = greedy();
my $one = topology('one');
my @expected = map { choices_of($_) } parallel($one->port, @asks);
$one->stop;

for my $transport (@built) {
    my $s = topology('2p2d', transport => $transport, prefill => $fabrics{$transport}, decode => $fabrics{$transport});
    my @got = parallel($s->port, @asks);
    is text_of($got[$_]), $golden[$_]{text}, "$transport: golden prompt $_" for 0 .. $#golden;
    is_deeply [ map { choices_of($_) } @got ], \@expected, "$transport: the same log probabilities";
    my $bytes = $s->metric('decode', qq(pdplane_handover_bytes_total{transport="$transport"}));
    cmp_ok $bytes, '>', 2048 * 1000, "$transport: $bytes bytes moved";
    cmp_ok $s->metric('decode', "pdplane_transport_${transport}_reads_total"), '>', 0, "$transport: by its reads";
    is $s->metric('decode', 'pdplane_decode_handovers_failed_total'), 0, "$transport: no hand-over failed";
    # A node that dies takes no answer with it.
    $s->{prefill}[0]->kill9;
    @got = parallel($s->port, @asks);
    is_deeply [ map { choices_of($_) } @got ], \@expected, "$transport: the same with a dead prefill node";
    ok $s->blocks_free, "$transport: all blocks are free";
    $s->stop;
}

done_testing;
