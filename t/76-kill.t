# SPDX-License-Identifier: Apache-2.0
# The kill matrix: real nodes, each fault of each component at each stage of a
# request, held there by a probe.  Whatever fails, no text is wrong, no end is
# dishonest, a healthy node of the kind makes the request complete, and nothing is
# left: blocks, leases, transfers, descriptors, and the books balance.
#
#   make check TESTS=t/76-kill.t                   a part of it, about a minute
#   PD_KILL=all make check TESTS=t/76-kill.t       all cells
#   PD_KILL=1p1d/decode/kill/S5 ...                one cell, or all that match
#   PD_KILL=soak ...                               1,000 kill cycles under load
#   PD_KILL_SEED=N      other prompts and nodes    PD_KILL_JOBS=N  at a time
use strict;
use warnings;

use JSON::PP ();
use Test::More;
use Time::HiRes qw(time);

use PDPlane::Daemon;
use PDPlane::Kill::Cells qw(cells);
use PDPlane::Kill::Figures;
use PDPlane::Kill::Run qw(run_cell);
use PDPlane::Kill::World;
use PDPlane::Test qw(test_module_dir);

plan skip_all => 'without the transport tcp' unless -e test_module_dir() . '/tcp_fault.so';

my $what = $ENV{PD_KILL} // '';
my $seed = $ENV{PD_KILL_SEED} // 1;
if ($what eq 'soak') {
    require PDPlane::Kill::Soak;
    PDPlane::Kill::Soak::run($seed);
    done_testing;
    exit;
}
my @all = cells();
my @cells = $what eq 'all' ? @all : $what ne '' ? grep { $_->{name} =~ m{^$what(?:/|$)} } @all : part(@all);
my $jobs = $ENV{PD_KILL_JOBS} // ($what eq 'all' ? 10 : 4);
is scalar(@all), 2 * 5 * 7 * 19, 'the matrix has all of its cells' unless $what ne '' && $what ne 'all';

# One of the cells of each fault and component: every stage is there, and the
# faults that take long only a few times.
sub part {
    my @list = @_;
    my (@chosen, %n);
    for my $c (@list) {
        my $slow = $c->{fault} =~ /^(?:pause|stop|silence)$/;
        my $key = "$c->{topology} $c->{component} $c->{fault}";
        my $i = $n{$key}++;
        my $at = length($key) * 7 + ord(substr $c->{fault}, 1) + ord(substr $c->{component}, 1);
        push @chosen, $c if $slow ? $c->{fault} ne 'pause' && $i == $at % 19 : $i % 5 == $at % 5;
    }
    return @chosen;
}

# Each topology's cells in groups, each group with nodes of its own.
my @groups;
for my $t (qw(1p1d 2p2d)) {
    my @mine = grep { $_->{topology} eq $t } @cells or next;
    my $k = $jobs / 2 < @mine ? int($jobs / 2 + 0.5) : scalar @mine;
    $k = 1 if $k < 1;
    my @parts;
    # Slow and quick cells are dealt out like cards.
    my $i = 0;
    push @{ $parts[ $i++ % $k ] }, $_ for sort { $a->{fault} cmp $b->{fault} || $a->{at} <=> $b->{at} } @mine;
    push @groups, map { { cells => $_, world => PDPlane::Kill::World->new($t, probe => 1, keeps => $t eq '1p1d') } } @parts;
}
my %number = map { $all[$_]{name} => $_ + 1 } 0 .. $#all;

# In a process of its own; lines of JSON to the parent.
sub work {
    my ($group, $out) = @_;
    my $say = sub { syswrite $out, JSON::PP->new->canonical->encode($_[0]) . "\n" };
    # What is judged is said by the parent.
    my $builder = Test::More->builder;
    open my $nowhere, '>', "$group->{world}{dir}/tests" or die;
    $builder->$_($nowhere) for qw(output failure_output todo_output);
    no warnings 'redefine';
    local *PDPlane::Daemon::BAIL_OUT = sub { die @_ };
    my $w = $group->{world};
    my $ok = eval {
        $w->start;
        for my $cell (@{ $group->{cells} }) {
            my $t = time;
            my ($figures, @wrong) = eval { run_cell($w, $cell, $seed * 10_000 + $number{ $cell->{name} }) };
            my $died = $@;
            $say->({ cell => $cell->{name}, wrong => [ @wrong, $died ? "died: $died" : () ], figures => $figures, seconds => time - $t });
            last if $died;
        }
        $say->({ cell => "nodes of $w->{id}", wrong => [ $w->stop ], stop => 1 });
        1;
    };
    $say->({ cell => "nodes of $w->{id}", wrong => [ "died: $@" ], stop => 1 }) unless $ok;
    return;
}

my $began = time;
my (%pids, %in);
for my $group (@groups) {
    pipe my $r, my $w or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        close $r;
        work($group, $w);
        exit 0;
    }
    close $w;
    $in{ fileno $r } = { fh => $r, text => '', pid => $pid };
}
my ($seen, $bad) = (0, 0);
my $figures = PDPlane::Kill::Figures->new;
while (%in) {
    my $r = '';
    vec($r, $_, 1) = 1 for keys %in;
    select $r, undef, undef, undef;
    for my $fd (grep { vec $r, $_, 1 } keys %in) {
        my $in = $in{$fd};
        my $n = sysread $in->{fh}, $in->{text}, 1 << 16, length $in->{text};
        report($1) while $in->{text} =~ s/^(.*)\n//;
        next if $n;
        waitpid $in->{pid}, 0;
        is $?, 0, 'a group of cells ends' if $?;
        delete $in{$fd};
    }
}

sub report {
    my $line = JSON::PP->new->decode($_[0]);
    my @wrong = @{ $line->{wrong} };
    if ($line->{stop}) {
        ok !@wrong, "$line->{cell}: stopped, no complaints" or diag map { "  $_\n" } @wrong;
        return;
    }
    $seen++;
    my $again = "PD_KILL=$line->{cell} PD_KILL_SEED=$seed";
    ok !@wrong, sprintf '%s: %s in %.1f s', $line->{cell}, join(' ', map { $_->{end} } @{ $line->{figures} // [] }), $line->{seconds}
        or diag map { "  $_\n" } @wrong, "alone: $again make check TESTS=t/76-kill.t";
    $figures->add($_) for @{ $line->{figures} // [] };
    return;
}

if ($what eq 'all') {
    diag join "\n", 'seconds, p50 / p99 / most:', $figures->lines;
    my ($n, $most, $of) = $figures->hung;
    diag sprintf '%d answers behind a peer that hung, on a machine with time for them: at most %.2f s, %s', $n, $most, $of;
    cmp_ok $most, '<=', 4, 'a peer that hangs is out within 4 s';
}
ok scalar @cells, "there are cells of $what";
is $seen, scalar @cells, sprintf 'every cell was run, in %.0f s', time - $began;
done_testing;
