# SPDX-License-Identifier: Apache-2.0
# Kill cycles under load: 2 prefill and 2 decode nodes, always some streams under
# way, and from a seed one fault after the other, each healed before the next.  No
# client may notice any of them, because a healthy node of the kind is always there.
package PDPlane::Kill::Soak;

use strict;
use warnings;

use IO::Select;
use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(until_true);
use PDPlane::Http qw(open_stream);
use PDPlane::Kill::World;
use PDPlane::Test qw(slurp);

use constant { STREAMS => 24, TOKENS => 48, TEXTS => 200 };

# Shares of faults in percent; the rest is kill -9.
my @shares = ([ reset => 8 ], [ nap => 6 ], [ hang => 2 ], [ silence => 2 ]);

my ($w, @texts, %live, %counts, %gaps, @wrong, $now_during);

# run(SEED): PD_KILL_CYCLES kills, 1,000 without it.
sub run {
    my ($seed) = @_;
    my $kills = $ENV{PD_KILL_CYCLES} // 1000;
    srand $seed;
    $w = PDPlane::Kill::World->new('2p2d', transport => 'tcp', engine => 'ms_per_token = 15.0;')->start;
    for my $n (1 .. TEXTS) {
        my $body = $w->body($seed * 1000 + $n);
        $body->{max_tokens} = TOKENS;
        push @texts, [ $body, $w->truth($body) ];
    }
    $w->wait_up(20);
    pump(3);
    my $router = $w->{router}->worker_pid;
    my $first = memory($router);
    my @memory = ($first);
    my ($began, $cycle) = (time, 0);
    while (($counts{kill} // 0) < $kills && @wrong < 50) {
        $cycle++;
        fault();
        next if $cycle % 50;
        push @memory, memory($router);
        diag sprintf '%d cycles, %d streams, %d wrong, %.0f s, router %d KiB, %d descriptors', $cycle, $counts{streams},
            scalar @wrong, time - $began, $memory[-1], scalar(() = glob "/proc/$router/fd/*");
    }
    my $took = time - $began;
    drain();
    ok $counts{kill} >= $kills, "$counts{kill} kills among $cycle faults in " . sprintf '%.0f s', $took;
    is scalar(@wrong), 0, "$counts{streams} streams: none wrong, none failed";
    is $w->rest_within(5, @{ $w->{nodes} }), '', 'no block, lease, transfer or request is left, the books balance';
    is $router, $w->{router}->worker_pid, 'one router all the time';
    # The first records and buffers are made in the beginning.
    my $half = $memory[ @memory / 2 ];
    cmp_ok $memory[-1] - $half, '<', 2048, "the router's memory is flat: $first KiB, half way $half KiB, in the end $memory[-1] KiB";
    diag join ', ', map { "$_ $counts{$_}" } sort keys %counts;
    for my $what (sort keys %gaps) {
        my @g = sort { $a <=> $b } @{ $gaps{$what} };
        diag sprintf 'longest silence a stream had during %s: %d streams, p50 %.0f ms, p99 %.0f ms, most %.0f ms', $what,
            scalar @g, map { 1000 * $g[ $_ * $#g ] } 0.5, 0.99, 1;
    }
    is join("\n", $w->stop), '', 'the nodes stop, no complaints';
    return;
}

sub memory { return slurp("/proc/$_[0]/status") =~ /VmRSS:\s*(\d+)/ ? $1 : 0 }

sub wrong {
    my ($text) = join '', @_;
    push @wrong, $text;
    diag $text;
    return;
}

# ---- load

# Keeps the streams going for that time.
sub pump {
    my ($seconds) = @_;
    my $end = time + $seconds;
    my $looked = time;
    do {
        while (keys %live < STREAMS) {
            my $text = $texts[ rand @texts ];
            my $s;
            until_true(20, sub { $s = open_stream($w->client_port, '/v1/completions', $text->[0]) }) or die 'the router is not there';
            $live{ fileno $s->{socket} } = { stream => $s, text => $text, at => time, gap => 0, began => time, during => $now_during };
        }
        take(($end - time) < 0.05 ? $end - time : 0.05);
        # All of this may be stopped for a while, with the nodes.
        if (time - $looked > 1) { $_->{was_stopped} = 1 for values %live }
        $looked = time;
    } while time < $end;
    return;
}

sub take {
    my ($seconds) = @_;
    my $select = IO::Select->new(map { $_->{stream}{socket} } values %live);
    for my $fh ($select->can_read($seconds > 0 ? $seconds : 0)) {
        my $l = $live{ fileno $fh };
        my $now = time;
        $l->{gap} = $now - $l->{at} if $now - $l->{at} > $l->{gap};
        $l->{at} = $now;
        next if $l->{stream}->fill(0);
        delete $live{ fileno $fh };
        my $end = PDPlane::Kill::World::judge(PDPlane::Http::parse($l->{stream}{raw}), $l->{text}[1]);
        $counts{streams}++;
        wrong($end, ', ', $l->{during} // 'no fault', sprintf(', %.1f s: ', $now - $l->{began}), substr $l->{stream}{raw}, -300)
            if $end ne 'complete';
        push @{ $gaps{ $l->{during} // 'no fault' } }, $l->{gap} unless $l->{was_stopped};
        close $fh;
    }
    return;
}

# No new ones; waits for those that are there.
sub drain {
    my $end = time + 30;
    take(0.1) while %live && time < $end;
    wrong('a stream does not end') for values %live;
    return;
}

# ---- faults

sub fault {
    my $dice = rand 100;
    my $what = 'kill';
    for my $share (@shares) {
        ($dice -= $share->[1]) < 0 or next;
        $what = $share->[0];
        last;
    }
    my $role = rand 2 < 1 ? 'prefill' : 'decode';
    my $i = 1 + int rand 2;
    my $node = $w->{$role}[ $i - 1 ];
    my $name = "$what $role";
    # A stream counts for the gravest fault that it lived through.
    my %grave = (hang => 3, silence => 3, kill => 2);
    my @link = $role eq 'decode' ? ("rd$i", "kv$i") : ("rp$i", "dp$i");
    my $link = $link[ rand @link ];
    $name = "$what of a link" if $what =~ /^(?:reset|silence)$/;
    for my $l (values %live) {
        next if defined $l->{during} && ($grave{ (split ' ', $l->{during})[0] } // 1) > ($grave{$what} // 1);
        $l->{during} = $name;
    }
    $now_during = $name;
    if ($what eq 'kill') {
        $node->kill9;
        pump(rand 0.3);
        $node->start(wait => 0);
    } elsif ($what eq 'nap' || $what eq 'hang') {
        $node->signal('STOP');
        pump($what eq 'nap' ? rand 1 : 5);
        $node->signal('CONT');
    } elsif ($what eq 'reset') {
        $w->{relay}->reset($link);
    } else {
        $w->{relay}->drop($link);
        pump(5);
        $w->{relay}->heal($link);
    }
    $counts{$what}++;
    my $tries = 0;
    pump(0.1) until $w->wait_up(0) || ++$tries == 200;
    $now_during = undef;
    wrong("after $name: the router does not see all nodes") if $tries == 200;
    pump(0.1 + rand 0.4);
    return;
}

1;
