# SPDX-License-Identifier: Apache-2.0
# All that can be wrong with KV on its way or with the one who sends it, on real
# nodes: it is never decoded from, it is named (in the log, in a metric, by pdctl
# explain), and the request completes by other means.  The seed of the faults is 1.
use strict;
use warnings;

use IO::Select;
use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(until_true);
use PDPlane::Http qw(parallel post json_of);
use PDPlane::Kill::World;
use PDPlane::Test qw(builddir run_program slurp spew srcdir test_module_dir);

plan skip_all => 'without the transport tcp' unless -e test_module_dir() . '/tcp_fault.so';

my $asked = 0;

# Asks some at a time; how many answers are not right, and the id of the first.
sub ask {
    my ($w, $n) = @_;
    my @asks = map { [ $w->ask(++$asked) ] } 1 .. $n;
    my @r = parallel($w->{router}->api_port, map { [ '/v1/completions', $_->[0] ] } @asks);
    my @ends = map { PDPlane::Kill::World::judge($r[$_], $asks[$_][1]) } 0 .. $#asks;
    my @bad = grep { $_ ne 'complete' } @ends;
    diag "@bad" if @bad;
    return (scalar(@bad), $r[0]{headers}{'x-request-id'});
}

sub explain {
    my ($w, $id) = @_;
    my ($rc, $out) = run_program(builddir() . '/pdctl', '-s', $w->{control}, '--json', 'explain', $id);
    return json_of($out)->{request};
}

sub metric { my ($w, $role, $name) = @_; return $w->{$role}[0]->metric($name) // 0 }

sub finish {
    my ($w, $name) = @_;
    is $w->rest_within(5, @{ $w->{nodes} }), '', "$name: nothing is left";
    is join("\n", $w->stop), '', "$name: the nodes stop, no complaints";
    return;
}

# ---- changed, cut off, not answered: found, named, computed again
for my $case (
    [ 'flipped', 'flip_every = 3;', 'corrupt', qr/do not match their digest/ ],
    [ 'truncated', 'truncate_every = 3;', 'timeout', qr/the source was done, but only \d+ of \d+ bytes came/ ],
    [ 'without an answer', 'drop_every = 3; timeout = "300ms";', 'failed', qr/transfer failed|the source gave up/ ],
) {
    my ($name, $fault, $result, $why) = @$case;
    my $w = PDPlane::Kill::World->new('1p1d', decode_transport => $fault, prefill_transport => 'timeout = "300ms";')->start;
    my $t = time;
    my ($bad, $id) = ask($w, 1);
    cmp_ok time - $t, '<', 4.5, "$name: before a lease would run out";
    $bad += (ask($w, 3))[0];
    is $bad, 0, "$name: the answers are right";
    my $told = explain($w, $id);
    is $told->{decision}, 'local', "$name: computed on the decode node";
    like $told->{reason}, qr/^prefill on prefill1 failed: .*$why/, "$name: pdctl explain names it";
    cmp_ok metric($w, 'decode', 'pdplane_decode_handovers_failed_total'), '>=', 1, "$name: counted";
    is metric($w, 'decode', 'pdplane_decode_handovers_valid_total'), 0, "$name: none was used";
    my $m = $w->{decode}[0]->metrics;
    cmp_ok $m->{qq(pdplane_kv_transfers_total{transport="tcp_fault",result="$result"})} // 0, '>=', 1,
        "$name: the metric has it as $result" or diag join "\n", grep { /kv_transfers/ } map { "$_ $m->{$_}" } keys %$m;
    like $w->{decode}[0]->log_text, qr/ is $result: \S/, "$name: the log names it";
    finish($w, $name);
}

# ---- twice, late, in another order: no harm
for my $case (
    [ 'twice', 'duplicate_every = 1;', '' ],
    [ 'late and in another order', 'delay = "20ms"; lanes = 4;', 'lanes = 4;' ],
) {
    my ($name, $source, $dest) = @$case;
    my $w = PDPlane::Kill::World->new('1p1d', prefill_transport => $source, decode_transport => $dest)->start;
    my $bad = 0;
    $bad += (ask($w, 6))[0] for 1 .. 3;
    is $bad, 0, "$name: the answers are right";
    is metric($w, 'decode', 'pdplane_decode_handovers_valid_total'), 18, "$name: each hand-over was found valid";
    finish($w, $name);
}

# ---- the lease runs out while a write is on its way, and its blocks are used again
{
    my $name = 'the lease ran out';
    my $w = PDPlane::Kill::World->new('1p1d', probe => 1, decode => 'kv = { lease = "200ms"; };',
        engine => 'kv_memory = "1m"; ms_per_token = 1.0;')->start;
    my ($body, $truth) = $w->ask(++$asked);
    # The prefill node stands still before the first byte; longer than the lease, for
    # less than what makes a peer suspect.
    $w->arm('kv post');
    my $late = PDPlane::Http::open_stream($w->{router}->api_port, '/v1/completions', $body);
    my $mark = $w->wait_mark(20);
    ok defined $mark, "$name: a write is about to begin";
    my @rest = $late->rest(10);
    is $rest[-1], '[DONE]', "$name: the request completes without it";
    is join('', map { my $c = json_of($_)->{choices}; @$c ? $c->[0]{text} : () } @rest[0 .. $#rest - 1]), $truth->{text}, "$name: its text is right";
    cmp_ok metric($w, 'decode', 'pdplane_kv_lease_expired_total'), '>=', 1, "$name: counted";
    my ($id) = $late->{head}{headers}{'x-request-id'};
    like explain($w, $id)->{reason}, qr/within the lease/, "$name: pdctl explain names it";
    like $w->{decode}[0]->log_text, qr/ is timeout: nothing was heard of the source within the lease/, "$name: the log names it";
    # 32 blocks, of which each of these takes 13: the old ones are among them when the
    # write goes on.
    my @asks = map { [ $w->ask(++$asked) ] } 1 .. 6;
    my @streams = map { PDPlane::Http::open_stream($w->{router}->api_port, '/v1/completions', $_->[0]) } @asks;
    sleep 0.1;
    close delete $mark->{connection};
    my $bad = 0;
    for my $i (0 .. $#streams) {
        1 while $streams[$i]->fill(10);
        my $end = PDPlane::Kill::World::judge(PDPlane::Http::parse($streams[$i]{raw}), $asks[$i][1]);
        $bad++ if $end ne 'complete';
        diag $end if $end ne 'complete';
    }
    is $bad, 0, "$name: requests that use its blocks again have the right text";
    $bad += (ask($w, 2))[0] for 1 .. 5;
    is $bad, 0, "$name: and those after them";
    finish($w, $name);
}

# ---- a prefill node that is not what it was: another epoch
{
    my $name = 'another epoch';
    my $w = PDPlane::Kill::World->new('1p1d', keeps => 1)->start;
    my ($bad) = ask($w, 2);
    my ($uuid, $epoch) = $w->{prefill}[0]->log_text =~ /\(([0-9a-f-]{36}), epoch ([0-9a-f]+)\)/;
    my $p = $w->{prefill}[0];
    for my $round (1 .. 3) {
        $p->kill9;
        $p->start;
        ok $w->wait_up(5), "$name: used again";
        $bad += (ask($w, 2))[0];
    }
    is $bad, 0, "$name: the answers are right";
    my @ids = $p->log_text =~ /\(([0-9a-f-]{36}), epoch [0-9a-f]+\)/g;
    is scalar(grep { $_ eq $uuid } @ids), 4, "$name: the same node";
    like $w->{decode}[0]->log_text, qr/peer "prefill1" is back with a new epoch/, "$name: the log names it";
    is metric($w, 'decode', 'pdplane_decode_handovers_valid_total'), 8, "$name: hand-overs go on after each start";
    finish($w, $name);
}

# ---- other weights under the same name
{
    my $name = 'another model';
    my $gguf = slurp(srcdir() . '/contrib/tinymodel/tiny.gguf');
    substr $gguf, -100, 1, chr(ord(substr $gguf, -100, 1) ^ 1);
    my $w = PDPlane::Kill::World->new('1p1d', model => spew('other.gguf', $gguf))->start;
    my ($bad, $id) = ask($w, 4);
    is $bad, 0, "$name: the answers are right";
    is metric($w, 'decode', 'pdplane_decode_handovers_valid_total'), 0, "$name: nothing was handed over";
    my $told = explain($w, $id);
    is $told->{decision}, 'local', "$name: computed on the decode node";
    like $told->{reason}, qr/prefill on prefill1 \S.*: its weights differ/, "$name: pdctl explain says why";
    is metric($w, 'decode', 'pdplane_decode_prefill_unfit_total{reason="model"}'), 4, "$name: the metric says why";
    is metric($w, 'decode', qq(pdplane_decode_prefill_unfit_total{reason="$_"})), 0, "$name: and not $_" for qw(layout transport gone);
    finish($w, $name);
}

done_testing;
