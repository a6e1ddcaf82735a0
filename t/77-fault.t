# SPDX-License-Identifier: Apache-2.0
# One request while the n-th system call of a node fails, while its n-th read or
# write is short, and while the n-th allocation of the program or a module fails:
# for n = 1, 2, ... until a request is over before the n-th.  Nothing crashes or
# hangs, the client gets the right text, an error or a cut answer, the next
# request is served, every block is free, and the nodes end without a leak.
# The same while a connection between nodes is made again, and at a start.
#
# PD_FAULT_STEP=1 takes each n everywhere; PD_FAULT_KIND=alloc only one kind.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(topology until_true);
use PDPlane::Fault;
use PDPlane::Http qw(post json_of events);
use PDPlane::Test qw(builddir run_program spew);

my $fault = PDPlane::Fault->new or plan skip_all => 't/fault/inject.so is not built';
my (undef, $version) = run_program(builddir() . '/pdplane', '-V');
plan skip_all => 'the thread sanitizer wants to be first' if $version =~ /^sanitizers .*thread/m;
my $sanitized = $version =~ /^sanitizers (?!no\b)/m;
my $step = $ENV{PD_FAULT_STEP} // ($sanitized ? 5 : 1);
my $again = $ENV{PD_FAULT_STEP} // ($sanitized ? 20 : 5);
my $start_by = $ENV{PD_FAULT_STEP} // ($sanitized ? 60 : 20);

my $number = 0;

# A prompt of its own each time, so that nothing is in a cache; a greedy answer.
sub body {
    my ($n, $stream) = @_;
    return { model => 'tiny', temperature => 0, max_tokens => 4, prompt => "Number $n. One day the dog saw a red ball.",
        $stream ? (stream => JSON::PP::true()) : () };
}
sub ask { my ($s, $n, $stream) = @_; return post($s->port, '/v1/completions', body($n, $stream), timeout => 30) }

# The text of an answer, and whether it says that it is whole (-1: goes on after that).
sub text_of {
    my ($r, $stream) = @_;
    if (!$stream) {
        my $v = eval { json_of($r->{body}) } or return ('', 0);
        return ($v->{choices}[0]{text} // '', $r->{complete} && defined $v->{choices}[0]{finish_reason} ? 1 : 0);
    }
    my ($text, $done) = ('', 0);
    for my $e (events($r->{body} // '')) {
        if ($e eq '[DONE]') { $done = 1; next }
        my $v = eval { json_of($e) } or next;
        $text .= $v->{choices}[0]{text} // '';
        return ($text, -1) if $done;
    }
    return ($text, $done);
}

# What is wrong with an answer during a fault, or ''.
sub dishonest {
    my ($r, $stream, $want) = @_;
    my $status = $r->{status};
    if (!defined $status) {
        return ($r->{error} // '') eq 'timeout' ? 'no answer within 30 s' : '';
    }
    if ($status == 200) {
        my ($text, $done) = text_of($r, $stream);
        return 'something after [DONE]' if $done < 0;
        return $text eq $want ? '' : "says it is whole: $text" if $done;
        return 'a whole answer without an end' if $r->{complete} && !$stream;
        return index($want, $text) == 0 ? '' : "wrong text: $text";
    }
    return "status $status" unless $status >= 400;
    return '' unless $r->{complete};
    my $v = eval { json_of($r->{body}) };
    return defined $v && ref $v->{error} eq 'HASH' ? '' : "status $status without an error: $r->{body}";
}

my %want;
my $oracle = topology('one');
sub want {
    my ($n) = @_;
    $want{$n} //= (text_of(ask($oracle, $n), 0))[0];
    return $want{$n};
}

# What a fault may do to one node while `work` runs: n = first, first + by ...
# until the n-th call is not reached.  The points, and what was wrong.
sub sweep {
    my ($s, $node, $kind, $by, $variety, $work) = @_;
    my (%seen, @bad, %answers);
    my $points = 0;
    for (my $n = 1 + int rand $by; ; $n += $by) {
        my $id = $number++;
        my $stream = $id % 2;
        my $want = want($id);
        $fault->arm($node, $kind, $n, $variety // int rand 12);
        my $r = $work->($s, $id, $stream);
        last if !$node->is_running && push @bad, "$kind $n: the node ended, status $node->{status}";
        my $what = $fault->disarm($node);
        last if !defined $what;
        $points++;
        $seen{ $what =~ s/ .*//r }++;
        my $wrong = dishonest($r, $stream, $want);
        $answers{ $r->{status} // 'cut' }++;
        push @bad, "$kind $n ($what): $wrong" if $wrong ne '';
        # What was lost comes back.
        my $after;
        my $ok = until_true(20, sub {
            $after = ask($s, $id, 0);
            return ($after->{status} // 0) == 200 && (text_of($after, 0))[0] eq $want;
        });
        if (!$ok) {
            push @bad, "$kind $n ($what): afterwards " . ($after->{status} // $after->{error}) . ' ' . ($after->{body} // '');
            last;
        }
        last if $kind eq 'short_all';
    }
    push @bad, 'blocks are not free' unless until_true(10, sub { $s->blocks_free });
    note "$kind on " . $node->name . ": $points points; calls: "
        . join(' ', map { "$_ $seen{$_}" } sort keys %seen) . '; answers: '
        . join(' ', map { "$_ $answers{$_}" } sort keys %answers);
    return ($points, @bad);
}

# The prefill node restarts, so that its peers connect anew, and a request after it.
sub reconnect {
    my ($s, $id, $stream) = @_;
    my $p = $s->{prefill}[0];
    $p->kill9;
    $p->start;
    sleep 0.3;
    return ask($s, $id, $stream);
}

my $seed = $ENV{PD_FAULT_SEED} // int(time) ^ $$;
srand $seed;
my $link = 'link = { heartbeat = "100ms"; suspect = "400ms"; dead = "800ms"; };';
my @kinds = ([ errors => 0 ], [ errors => 1 ], [ errors => 2 ], [ errors => 3 ], ['errors'], ['short'], ['short_all'], ['alloc']);
@kinds = grep { $_->[0] eq $ENV{PD_FAULT_KIND} } @kinds if defined $ENV{PD_FAULT_KIND};

sub preloaded {
    my ($code) = @_;
    local $ENV{LD_PRELOAD} = $ENV{PD_FAULT_LIBRARY};
    local $ENV{ASAN_OPTIONS} = join ':', $ENV{ASAN_OPTIONS} // (), 'verify_asan_link_order=0';
    # The leak check forgives the dynamic linker what it asks for directly; here it asks through inject.so.
    my $forgiven = spew('forgiven', "leak:dl_open_worker\n");
    local $ENV{LSAN_OPTIONS} = join ':', $ENV{LSAN_OPTIONS} // (), "suppressions=$forgiven", 'print_suppressions=0';
    return $code->();
}

sub check {
    my ($name, $s, $node, $kind, $by, $work) = @_;
    my ($points, @bad);
    # Links that the sweep before broke may not be back: the node takes no part yet.
    until_true(20, sub {
        ($points, @bad) = sweep($s, $node, $kind->[0], $by, $kind->[1], $work);
        return $points > 0 || @bad > 0;
    });
    $name .= ', ' . join(' ', @$kind) . ' on ' . $node->name;
    cmp_ok $points, '>', 0, "$name: $points points";
    is join("\n", @bad), '', "$name: seed $seed";
    return;
}

# ---- a request, over three nodes and over one with all modules
for my $topology ('1p1d', 'all') {
    my $s = preloaded(sub { topology($topology, all => $link, transport => $topology eq 'all' ? 'shm' : 'tcp') });
    $s->expect_log(qr/./);      # all that a fault may leave in a log
    my %nodes = (router => $s->{router}, $topology eq 'all' ? () : map { $_ => $s->{$_}[0] } qw(decode prefill));
    for my $role (sort keys %nodes) {
        check($topology, $s, $nodes{$role}, $_, $_->[0] =~ /short|errors/ && $sanitized ? 2 : $step, \&ask) for @kinds;
    }
    $s->stop;
}

# ---- a connection that is made again
{
    my $s = preloaded(sub { topology('1p1d', all => $link, transport => 'tcp') });
    $s->expect_log(qr/./);
    preloaded(sub {
        check('reconnect', $s, $_->[0], [ $_->[1] ], $again, \&reconnect)
            for map { my $n = $_; map { [ $n, $_ ] } qw(errors alloc) } $s->{router}, $s->{decode}[0];
    });
    $s->stop;
}

# ---- a start: it works, or says why not
for my $kind (qw(errors alloc)) {
    my ($points, @bad, %ends) = 0;
    my $by = $kind eq "errors" ? 1 : $start_by;
    for (my $n = 1 + int rand $by; ; $n += $by) {
        my $node = PDPlane::Daemon->new("start-$kind-$n", <<"CONF");
load = [ "router", "prefill", "decode", "ref", "shm" ];
listen = ( { address = "127.0.0.1:%%PORT_start_api%%"; api = "openai"; },
           { address = "127.0.0.1:%%PORT_start_admin%%"; api = "admin"; } );
engine = ( { name = "p"; type = "ref"; model = "%%MODEL%%"; roles = [ "prefill" ]; },
           { name = "d"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; } );
CONF
        preloaded(sub { local $ENV{PD_FAULT_NOW} = $fault->now($kind, $n, int rand 12); $node->start(wait => 0) });
        my $pid = $node->pid;
        my $ready = until_true(30, sub { !$node->is_running || $node->is_ready });
        my $runs = $node->is_running;
        my $what = $fault->disarm(undef, $pid);
        my $name = "$n (" . ($what // '') . ')';
        $node->forget;
        if ($runs) {
            push @bad, "$name: neither ready nor ended" unless $ready;
            my $r = post($node->api_port, '/v1/completions', body($n, 0), timeout => 30);
            push @bad, "$name: status " . ($r->{status} // $r->{error}) if ($r->{status} // 0) != 200;
            $node->signal('TERM');
            my $status = $node->wait_end(20);
            $node->kill9 unless defined $status;
            push @bad, "$name: ends with " . ($status // 'nothing') if ($status // 1) != 0;
        } else {
            push @bad, "$name: ended with status $node->{status}" unless $node->{status} == 1 << 8;
            push @bad, "$name: without a word" unless $node->log_text =~ /error|memory/;
        }
        push @bad, "$name: $_" for grep { /Sanitizer|runtime error/ } split /\n/, $node->log_text;
        last unless defined $what;
        $points++;
        $ends{ $runs ? 'ran' : 'refused' }++;
    }
    note "$kind at a start: $points points; " . join ' ', map { "$_ $ends{$_}" } sort keys %ends;
    cmp_ok $points, '>', 0, "start, $kind: $points points";
    is join("\n", @bad), '', "start, $kind: seed $seed";
}
$oracle->stop;

done_testing;
