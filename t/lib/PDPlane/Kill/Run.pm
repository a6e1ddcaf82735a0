# SPDX-License-Identifier: Apache-2.0
# One cell of the kill matrix on real nodes: the request is brought to its stage
# and held there, the fault happens, the request goes on, and the end and what is
# left of it are judged.
package PDPlane::Kill::Run;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(until_true);
use PDPlane::Kill::Cells qw(expected links_of is_hung TOKENS);
use PDPlane::Kill::Client;

our @EXPORT_OK = qw(run_cell);

# Seconds.  A peer that hangs is given up after 2.5; the rest is for what follows, more
# on a machine with other work (slack).  The simulator knows these limits exactly
# (t/unit/test_sim_hung.c).
use constant { HUNG => 2.5, SLACK => 3, PAUSE => 10 };

sub slack { return SLACK * $_[0]{slow} }

my $block = 16 * 2048;          # bytes of KV in a block of the model

# run_cell(WORLD, CELL, NUMBER): what is wrong, as sentences, and figures.  NUMBER
# makes the prompt and picks among nodes; the same one repeats the cell.
sub run_cell {
    my ($w, $cell, $number) = @_;
    my @links = $cell->{fault} =~ /^(?:reset|silence)$/ ? links_of($cell->{component}, 1, $w->{n}) : ([]);
    my (@wrong, @figures);
    for my $i (0 .. $#links) {
        my ($figures, @bad) = run_one($w, $cell, $number * 4 + $i, $links[$i]);
        push @wrong, map { @{ $links[$i] } ? "@{ $links[$i] }: $_" : $_ } @bad;
        push @figures, $figures;
    }
    return (\@figures, @wrong);
}

sub run_one {
    my ($w, $cell, $n, $link) = @_;
    my ($component, $fault, $point) = @$cell{qw(component fault point)};
    my @wrong;
    # Answers that may fail are also asked for whole, where the client has no events.
    my $whole = $n % 3 == 0 && $cell->{at} < 14;
    my ($body, $truth) = $w->ask($n, $whole);
    my $bytes = $truth->{prompt} * 2048;
    my %at = (first => 1, half => int($bytes / 2), most => $bytes - $block, all => $bytes);
    (my $armed = $point) =~ s/(first|half|most|all)$/$at{$1}/;
    my $before = outcomes($w);
    $w->arm($armed) unless $point eq 'client';
    my $client = PDPlane::Kill::Client->start($w->client_port, $body, $point eq 'client' ? (pause => $cell->{stage}) : ());
    my $mark = {};
    if ($point eq 'client') {
        $client->wait_paused(30) eq $cell->{stage} or push @wrong, "the client did not come to $cell->{stage}: "
            . ($client->{over} // '');
    } else {
        $mark = $w->wait_mark(30) // {};
        push @wrong, "no process came to $point" unless %$mark;
    }
    $w->disarm;
    # Its first request is over.
    $before = outcomes($w) if $cell->{stage} eq 'S12';
    # The tokens before the one that is held are on their way.
    if ($cell->{stage} =~ /^S10\.(\d+)/ && !$whole) {
        my $k = $1;
        $client->wait_for(0.5, sub { $k <= grep { /"text":/ } $_[0]->events });
    }
    my %s = (w => $w, cell => $cell, client => $client, link => $link, mark => $mark, mark_n => $n);
    choose(\%s);
    my $t0 = time;
    my $seen = @{ $client->{at} };
    inject(\%s);
    close delete $mark->{connection} if $mark->{connection};
    $client->go if $point eq 'client' && !$s{client_dead};
    push @wrong, finish(\%s, $t0, $truth);
    push @wrong, accounts(\%s, $before);
    my @after = grep { $_ >= $t0 } @{ $client->{at} };
    my %figures = (name => $cell->{name}, slow => $w->{slow}, link => "@$link", end => $s{end}, took => $s{over_at} - $t0,
        gap => @after ? $after[0] - $t0 : undef, clean => $s{clean_at} ? $s{clean_at} - $s{clean_from} : undef);
    $client->end;
    push @wrong, recover(\%s);
    $figures{up} = $s{up};
    return (\%figures, @wrong);
}

# Which node of the component: the one that has a part in the request, else any.
sub choose {
    my ($s) = @_;
    my ($w, $component) = ($s->{w}, $s->{cell}{component});
    return unless $component =~ /^(?:prefill|decode)$/;
    my $i = 1 + $s->{mark_n} % $w->{n};
    $i = $1 if ($s->{mark}{$component} // '') =~ /(\d)$/;
    $s->{node} = $w->{$component}[ $i - 1 ];
    my $links = $s->{link};
    # The links of that node.
    @$links = map { /^(rd|rp|kv|dp)1$/ && @$links == 1 ? "$1$i" : $_ } @$links;
    return;
}

sub inject {
    my ($s) = @_;
    my ($w, $component, $fault) = ($s->{w}, @{ $s->{cell} }{qw(component fault)});
    if ($fault eq 'reset' || $fault eq 'silence') {
        $w->{relay}->reset(@{ $s->{link} }) if $fault eq 'reset'   && @{ $s->{link} };
        $w->{relay}->drop(@{ $s->{link} })  if $fault eq 'silence' && @{ $s->{link} };
        return;
    }
    my %signal = (kill => 'KILL', pause => 'STOP', stop => 'STOP', term => 'TERM', drain => 'QUIT');
    my $signal = $signal{$fault};
    $s->{pid} = $component eq 'client' ? $s->{client}->pid
        : $component eq 'router'       ? $w->{router}->worker_pid
        : $component eq 'manager'      ? $w->{router}->pid
        :                                $s->{node}->pid;
    kill $signal, $s->{pid};
    $s->{stopped} = 1 if $signal eq 'STOP';
    $s->{client_dead} = $component eq 'client' && $fault =~ /^(?:kill|term|drain)$/;
    # A killed process is gone at once; one that is stopped, a moment later.
    until_true(2, sub { (eval { PDPlane::Test::slurp("/proc/$s->{pid}/stat") } // ') X') =~ /\) [TtZX]/ })
        if $fault =~ /^(?:kill|pause|stop)$/;
    return;
}

sub resume {
    my ($s) = @_;
    return unless delete $s->{stopped};
    kill 'CONT', $s->{pid};
    return;
}

# Nodes that can be asked and have to be at rest.
sub survivors {
    my ($s) = @_;
    my $w = $s->{w};
    return grep {
        my $node = $_;
        !(defined $s->{node} && $node == $s->{node} && ($s->{stopped} || $s->{cell}{fault} =~ /^(?:kill|term|drain)$/))
            && !($node == $w->{router} && $s->{cell}{component} =~ /^(?:router|manager)$/)
    } @{ $w->{nodes} };
}

# Waits for the end that the client sees and judges it and what is left.
sub finish {
    my ($s, $t0, $truth) = @_;
    my ($w, $cell, $client) = @$s{qw(w cell client)};
    my ($component, $fault) = @$cell{qw(component fault)};
    my @wrong;
    my $hung = is_hung($cell);
    my $limit = $hung ? HUNG + slack($w) : slack($w);
    my $forever = $fault eq 'stop' && $component =~ /^(?:router|client)$/
        || $fault eq 'silence' && ($s->{link}[0] // '') eq 'client';
    if ($fault eq 'pause') {
        my $over = $client->wait_for(PAUSE, sub { $_[0]->is_over });
        $s->{over_at} = time if $over;
        my $left = PAUSE - (time - $t0);
        sleep $left if $left > 0;
        resume($s);
        $client->wait_for($limit, sub { $_[0]->is_over }) unless $over;
        push @wrong, sprintf 'took %.1f s, with another node there', $s->{over_at} - $t0
            if $over && $s->{over_at} - $t0 > $limit && $component =~ /^(?:prefill|decode)$/;
    } elsif ($forever) {
        # Nothing more comes; the others must not wait for it.
        $s->{over_at} = time;
    } else {
        $client->wait_for($limit, sub { $_[0]->is_over }) or $component eq 'client' or push @wrong, sprintf "no end within %.0f s", $limit;
    }
    $s->{over_at} //= time;
    # What a client left is free a second later, behind hung nodes one after they
    # are given up.
    my $seconds = 1 + ($forever ? HUNG : 0) + slack($w);
    $s->{clean_from} = time;
    my $rest = $w->rest_within($seconds, survivors($s));
    $s->{clean_at} = time if $rest eq '';
    push @wrong, sprintf "after %.0f s: %s", $seconds, $rest if $rest ne '';
    if ($forever) {
        if ($component eq 'router' && $fault eq 'stop') {
            kill 'KILL', $s->{pid};
            delete $s->{stopped};
        }
        $client->end if $component eq 'client';
        $w->{relay}->heal('client') if $fault eq 'silence';
        $client->wait_for(slack($w), sub { $_[0]->is_over });
    }
    my $r = $client->answer;
    my $end = PDPlane::Kill::World::judge($r, $truth);
    $end = 'none' if $cell->{stage} eq 'S12' && $client->{requests} < 2 && $component ne 'client' && $end eq 'complete';
    $s->{end} = $end;
    my %may = map { $_ => 1 } expected($cell, $s->{link});
    push @wrong, "the client sees: $end, and should: " . join ' or ', sort keys %may unless $may{$end};
    return @wrong;
}

# Ended requests of the router by outcome.
sub outcomes {
    my ($w) = @_;
    my $m = $w->{router}->metrics;
    return { map { /^pdplane_request_outcomes_total\{role="router",outcome="(\w+)"\}/ ? ($1 => $m->{$_}) : () } keys %$m };
}

# A request is in the books once, as what its client saw.  Without a router that was
# there all the time there are no books.
sub accounts {
    my ($s, $before) = @_;
    my ($cell, $w) = @$s{qw(cell w)};
    return if $cell->{component} =~ /^(?:router|manager)$/;
    my %is = (complete => 'ok', error => 'upstream_error|shed|client_error', none => 'cancelled', cut => 'cancelled');
    my ($end, $now) = ($s->{end}, outcomes($w));
    my %more = map { $now->{$_} > $before->{$_} ? ($_ => $now->{$_} - $before->{$_}) : () } keys %$now;
    my $booked = join ', ', map { "$more{$_} $_" } sort keys %more;
    # A request that was not read whole is none; one whose client cannot be seen may
    # have been answered.
    my $may = $is{$end} // 'nothing';
    $may = 'cancelled|ok' if $end ne 'complete' && $cell->{component} eq 'client';
    return if $booked =~ /^1 (?:$may)$/;
    return if $booked eq '' && ($cell->{at} < 3 && $end =~ /^(?:none|cut|error)$/ || $cell->{stage} eq 'S12' && $cell->{component} eq 'client');
    return "the client sees: $end, the books of the router: $booked";
}

# Brings every node and link back.
sub recover {
    my ($s) = @_;
    my $w = $s->{w};
    my @wrong;
    my $from = time;
    resume($s);
    $w->{relay}->heal(@{ $s->{link} }) if $s->{cell}{fault} eq 'silence' && @{ $s->{link} };
    my $node = $s->{node};
    my $ends = $s->{cell}{fault} =~ /^(?:kill|term|drain)$/;
    if (defined $node && $ends) {
        $node->wait_end(10);
        push @wrong, "$node->{short} does not end" if $node->is_running;
        push @wrong, map { "$node->{short}: $_" } $node->complaints if $s->{cell}{fault} ne 'kill';
        $node->forget;
        $node->kill9;
        $from = time;
        $node->start;
    }
    # A worker that is told to end takes its manager along.
    my ($component, $fault) = @{ $s->{cell} }{qw(component fault)};
    if ($ends && ($component eq 'manager' || $component eq 'router' && $fault ne 'kill')) {
        my $router = $w->{router};
        my $worker = $w->{router}->worker_pid;
        $router->wait_end(15);
        push @wrong, 'the manager does not end' if $router->is_running;
        $router->forget;
        $router->kill9;
        kill 'KILL', $worker if $fault eq 'kill';
        until_true(3, sub { !kill 0, $worker });
        $router->start(manager => 1);
    }
    $w->wait_up(slack($w) + 5) or push @wrong, 'the router does not see all nodes again';
    if ($component eq 'router' && $fault =~ /^(?:kill|stop)$/) {
        # A manager is slower with each worker that dies young; a new one is not.
        $w->{router}->forget;
        $w->{router}->signal('TERM');
        defined $w->{router}->wait_end(10) or push @wrong, 'the manager does not end';
        $w->{router}->kill9;
        $w->{router}->start(manager => 1);
        $w->wait_up(slack($w) + 5) or push @wrong, 'the router does not see all nodes again';
    }
    $s->{up} = time - $from;
    my $rest = $w->rest_within(slack($w), @{ $w->{nodes} });
    push @wrong, "in the end: $rest" if $rest ne '';
    push @wrong, descriptors($w);
    return @wrong;
}

# A process has its descriptors of the start, and sockets for its links: with each
# node of the other kind one for requests and one for KV.
sub descriptors {
    my ($w) = @_;
    my @wrong;
    for my $node (@{ $w->{nodes} }) {
        my $pid = $node->worker_pid;
        my $first = $w->{first}{$pid} //= $w->descriptors($node);
        for my $kind (keys %{ $w->descriptors($node) }) {
            my $most = ($first->{$kind} // 0) + 1 + ($kind eq 'socket' && $node != $w->{router} ? 2 * $w->{n} : 0);
            # Old links go a moment after new ones are made.
            my $is;
            until_true(6, sub { ($is = $w->descriptors($node)->{$kind} // 0) <= $most })
                or push @wrong, "$node->{short} has $is descriptors of kind $kind, at its start " . ($first->{$kind} // 0);
        }
    }
    return @wrong;
}

1;
