# SPDX-License-Identifier: Apache-2.0
# KV that was changed on the way never decodes: a transport flips one bit of each
# piece behind its own checksum.  With digests the answers stay right, and the
# failure is counted and named.  Without digests the same comparison must find
# them wrong, which proves that it can see damage.
use strict;
use warnings;

use Test::More;

use PDPlane::Daemon qw(topology);
use PDPlane::Golden qw(golden greedy seeded);
use PDPlane::Http qw(parallel post choices_of json_of);
use PDPlane::Test qw(builddir folder run_program);

my @asks = (greedy(), seeded());
my $one = topology('one');
my @expected = map { choices_of($_) } parallel($one->port, @asks);
$one->stop;

sub differing {
    my ($s, @list) = @_;
    my @got = map { choices_of($_) } parallel($s->port, @asks[@list]);
    return grep { $got[$_] ne $expected[ $list[$_] ] } 0 .. $#list;
}

my $flip = 'transport = { tcp_fault = { flip_every = %d; seed = %d; }; };';
my @greedy = 0 .. golden() - 1;

# ---- digests on
for my $case (['1p1d', 'full'], ['2p2d', 'full'], ['1p1d', 'n-1'], ['all', 'full']) {
    my ($kind, $handover) = @$case;
    my $name = "$kind, $handover, each hand-over damaged";
    my $s = topology($kind, transport => 'tcp_fault', handover => $handover, decode => sprintf $flip, 1, 1);
    $s->expect_log(qr/ kv: .*kv (?:from|to) peer .* is corrupt/, qr/ prefill: .*hand-over ended corrupt/,
        qr/digest/);
    is scalar(differing($s, 0 .. $#asks)), 0, "$name: the same text and log probabilities";
    my $m = sub { $s->metric('decode', $_[0]) };
    is $m->('pdplane_decode_handovers_valid_total'), 0, "$name: none was found valid";
    cmp_ok $m->('pdplane_decode_handovers_failed_total'), '>=', scalar(@greedy), "$name: each is counted";
    cmp_ok $m->('pdplane_kv_digest_failures_total'), '>=', scalar(@greedy), "$name: as a wrong digest";
    cmp_ok $m->('pdplane_decode_local_total'), '>=', scalar(@greedy), "$name: the prompts were computed again";
    like join('', map { $_->log_text } @{ $s->{decode} }), qr/is corrupt: \S/, "$name: the log names it";
    ok $s->wait_blocks_free, "$name: all blocks are free";
    $s->stop;
}

# What pdctl tells of a request whose prompt was computed elsewhere than was
# decided at first.
{
    my $control = folder() . '/why.sock';
    my $s = topology('2p2d', transport => 'tcp_fault', decode => sprintf($flip, 1, 3), router => qq(control = "$control";));
    $s->expect_log(qr/corrupt/, qr/digest/);
    my $r = post($s->port, @{ (greedy())[0] });
    my ($rc, $out) = run_program(builddir() . '/pdctl', '-s', $control, '--json', 'explain', $r->{headers}{'x-request-id'});
    my $why = json_of($out);
    is $why->{request}{decision}, 'local', 'explain: both prefill nodes failed, the prompt was computed on the decode node';
    is $why->{request}{prefill}, '', 'explain: no prefill node is named';
    like $why->{request}{reason}, qr/^prefill on prefill[12] failed: tokens \d+ to \d+ do not match their digest/, 'explain: it says why';
    my ($text) = (run_program(builddir() . '/pdctl', '-s', $control, 'explain', $r->{headers}{'x-request-id'}))[1];
    my @told = $text =~ /^decision (remote|local) by decode node/mg;
    is "@told", 'remote remote local', 'explain: each step is there' or diag $text;
    $s->stop;
}

# Some hand-overs damaged, two prefill nodes to choose from.
{
    my $s = topology('2p2d', transport => 'tcp_fault', decode => sprintf $flip, 5, 7);
    $s->expect_log(qr/corrupt/, qr/digest/);
    is scalar(grep { $_ } differing($s, 0 .. $#asks)), 0, 'some damaged: the same text and log probabilities';
    cmp_ok $s->metric('decode', 'pdplane_decode_handovers_failed_total'), '>', 0, 'some damaged: some were';
    cmp_ok $s->metric('decode', 'pdplane_decode_handovers_valid_total'), '>', 0, 'some damaged: some were not';
    $s->stop;
}

# ---- digests off: the control
my ($wrong, $all) = (0, 0);
for my $seed (1 .. 4) {
    my $s = topology('1p1d', transport => 'tcp_fault', decode => sprintf($flip, 1, $seed), all => 'kv = { digests = "none"; };');
    $wrong += differing($s, @greedy);
    $all += @greedy;
    is $s->metric('decode', 'pdplane_decode_handovers_failed_total'), 0, "digests off, seed $seed: nobody notices";
    cmp_ok $s->metric('decode', 'pdplane_decode_handovers_valid_total'), '>=', scalar(@greedy), "digests off, seed $seed: all were used";
    # A bit that makes a number infinite is seen by the engine.
    $s->expect_log(qr/engine "tiny" failed/, qr/the engine failed/);
    $s->stop;
}
cmp_ok $wrong, '>', $all / 2, "digests off: the comparison finds $wrong of $all damaged answers";

done_testing;
