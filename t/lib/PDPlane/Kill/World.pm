# SPDX-License-Identifier: Apache-2.0
# Real nodes for the kill matrix: N prefill nodes, N decode nodes and a router
# under its manager, with a relay on every link, and a node that says what is
# right.  All are made by new, before processes are forked, so that their ports
# differ; start starts them.
package PDPlane::Kill::World;

use strict;
use warnings;

use IO::Select;
use IO::Socket::UNIX;
use JSON::PP ();
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port until_true);
use PDPlane::Http qw(post);
use PDPlane::Kill::Cells qw(TOKENS);
use PDPlane::Relay;
use PDPlane::Test qw(folder spew);

my $worlds = 0;

# What faults leave in the logs.
our @lost = (qr/peer /, qr/ kv: /, qr/hand-over ended/, qr/request failed with status/, qr/worker \d+ /,
    qr/transport /, qr/refused a peer's greeting/);

# new(TOPOLOGY, options): transport (tcp_fault); probe: 1 with probes; keeps: 1
# for nodes that keep their identity when they start again; text added to each
# engine (engine), each node of a role (decode, prefill), its transport
# (decode_transport, prefill_transport), the role router; model of the prefill nodes.
sub new {
    my ($class, $topology, %o) = @_;
    my ($n) = $topology =~ /^(\d)p\1d$/ or die "topology $topology";
    my $id = 'w' . ++$worlds;
    my $dir = folder() . "/$id";
    mkdir $dir or die "$dir: $!";
    my $self = bless { n => $n, dir => $dir, id => $id, prefill => [], decode => [], marks => [] }, $class;
    my $transport = $o{transport} // 'tcp_fault';
    my $engine = 'type = "ref"; model = "%%MODEL%%"; step_tokens = 64; ' . ($o{engine} // 'ms_per_token = 2.0;');
    my @load = $o{probe} ? 'probe' : ();
    my $conf = sub {
        my ($name, $load, @text) = @_;
        my $list = join ', ', map { qq("$_") } @$load, @load;
        my $role = join ' ', $o{probe} ? qq(probe = { dir = "$dir"; };) : (),
            $name =~ /^decode/ ? 'decode = { prefill_timeout = "60s"; };' : (),
            $name eq 'router' && $o{router} ? "router = { $o{router} };" : ();
        my $node = PDPlane::Daemon->new("$id-$name", join "\n", qq(load = [ $list ];), qq(node = { name = "$name"; ) . ($o{keeps} ? qq(state = "$dir/$name";) : '') . ' };',
            qq(pid_file = "$dir/$name.pid";), qq(role = { $role };), qq(log = { level = "info"; };), @text, '');
        $node->{short} = $name;
        $node->expect_log(@lost);
        return $node;
    };
    my $listen = sub {
        my ($name, %to) = @_;
        return 'listen = ( ' . join(', ', map {
            my $more = $_ eq 'peer' && defined $to{peer} ? qq( advertise = "127.0.0.1:$to{peer}";) : '';
            sprintf '{ address = "127.0.0.1:%d"; api = "%s";%s }', port("${id}_${name}_$_"), $_, $more
        } @{ $to{apis} }) . ' );';
    };
    my %links;
    my $link = sub {
        my ($name, $to) = @_;
        $links{$name} = [ port("${id}_link_$name"), $to ];
        return $links{$name}[0];
    };
    my $hooks = $transport eq 'tcp_fault' && $o{probe} ? qq(probe = "$dir";) : '';
    for my $i (1 .. $n) {
        my $kv = port("${id}_kv$i");
        my $tcp = $transport eq 'shm' ? '' : sprintf 'transport = { %s = { listen = "127.0.0.1:%d"; advertise = '
            . '"127.0.0.1:%d"; frame = "32k"; %s %s }; };', $transport, $kv, $link->("kv$i", $kv), $hooks, $o{decode_transport} // '';
        push @{ $self->{decode} }, $conf->("decode$i", [ 'decode', 'ref', $transport ],
            $listen->("decode$i", apis => [qw(peer admin)]), qq(engine = ( { name = "tiny"; $engine roles = [ "decode" ]; } );), $tcp, $o{decode} // ());
        $link->("rd$i", port("${id}_decode${i}_peer"));
        my $out = $transport eq 'shm' ? '' : qq(transport = { $transport = { listen = "127.0.0.1:0"; frame = "32k"; $hooks @{[ $o{prefill_transport} // '' ]} }; };);
        push @{ $self->{prefill} }, $conf->("prefill$i", [ 'prefill', 'ref', $transport ],
            $listen->("prefill$i", apis => [qw(peer admin)], peer => $link->("dp$i", port("${id}_prefill${i}_peer"))),
            qq(engine = ( { name = "tiny"; @{[ $o{model} ? $engine =~ s/%%MODEL%%/$o{model}/r : $engine ]} roles = [ "prefill" ]; } );), $out,
            $o{prefill} // ());
        $link->("rp$i", port("${id}_prefill${i}_peer"));
    }
    my $peers = join ', ', map { qq({ address = "127.0.0.1:$links{$_}[0]"; }) } map { ("rp$_", "rd$_") } 1 .. $n;
    $self->{control} = "$dir/control";
    $self->{router} = $conf->('router', ['router'], $listen->('router', apis => [qw(openai admin)]),
        qq(peers = ( $peers );), 'scheduler = { decider = { module = "pd_threshold"; unit = "tokens"; threshold = 1; }; };',
        qq(drain = "5s"; control = "$self->{control}";));
    $link->('client', $self->{router}->api_port);
    $self->{links} = \%links;
    $self->{one} = $conf->('one', [qw(router decode ref)], $listen->('one', apis => [qw(openai admin)]),
        qq(engine = ( { name = "tiny"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; } );));
    $self->{nodes} = [ @{ $self->{prefill} }, @{ $self->{decode} }, $self->{router} ];
    return $self;
}

sub start {
    my ($self) = @_;
    $self->{server} = IO::Socket::UNIX->new(Local => "$self->{dir}/mark", Listen => 8) or die "mark: $!";
    $self->{relay} = PDPlane::Relay->start(%{ $self->{links} });
    $_->start(wait => 0, manager => $_ == $self->{router}) for @{ $self->{nodes} }, $self->{one};
    for my $node (@{ $self->{nodes} }, $self->{one}) {
        # Another program may have a port of ours for a moment.
        eval { $node->wait_ready; 1 } or do { sleep 2; $node->start(manager => $node == $self->{router}) };
    }
    $self->wait_up(20) or die "$self->{id}: the router does not see all nodes";
    return $self;
}

sub stop {
    my ($self) = @_;
    my @wrong;
    for my $node (reverse @{ $self->{nodes} }, $self->{one}) {
        next unless defined $node->pid;
        $node->forget;
        $node->signal('TERM');
        if (!defined $node->wait_end(20)) { $node->kill9; push @wrong, "$node->{short} does not end"; next }
        push @wrong, map { "$node->{short}: $_" } $node->complaints;
    }
    $self->{relay}->stop;
    for my $node (@{ $self->{nodes} }) {
        push @wrong, map { "$node->{short}: $_" } grep { /Sanitizer|runtime error:|Assertion|assertion/ } split /\n/, $node->log_text;
    }
    return @wrong;
}

sub client_port { return $_[0]{links}{client}[0] }

# ---- requests

# The body of request number N: its prompt begins as no other, so that it is in no
# cache, and what is right.
sub body {
    my ($self, $n) = @_;
    my @words = qw(dog red ball girl kite tree river cat boat hill moon bird fish rain);
    my $prompt = "Number $n. One day the $words[$n % 14] saw a $words[int($n / 14) % 14]. " . 'It was a very good day and they went out to play. ' x 14;
    return { model => 'tiny', prompt => $prompt, max_tokens => TOKENS, ($n % 2 ? (temperature => 1, seed => $n) : (temperature => 0)),
        stream => JSON::PP::true, stream_options => { include_usage => JSON::PP::true } };
}

# Text, finish reason and tokens of the prompt, from one node without faults.
sub truth {
    my ($self, $body) = @_;
    my %ask = %$body;
    delete @ask{qw(stream stream_options)};
    my $r = post($self->{one}->api_port, '/v1/completions', \%ask, timeout => 60);
    die 'the node that knows does not answer' unless ($r->{status} // 0) == 200;
    my $a = PDPlane::Http::json_of($r->{body});
    return { text => $a->{choices}[0]{text}, finish => $a->{choices}[0]{finish_reason}, prompt => $a->{usage}{prompt_tokens},
        output => $a->{usage}{completion_tokens} };
}

# A body that is answered with all of the tokens, and what is right.
sub ask {
    my ($self, $n, $whole) = @_;
    while (1) {
        my $body = $self->body($n);
        my $t = time;
        my $truth = $self->truth($body);
        # How slow the machine is at the moment: an answer takes 30 ms on an idle one.
        my $slow = (time - $t) / 0.1;
        $self->{slow} = $slow < 1 ? 1 : $slow > 8 ? 8 : $slow;
        delete @$body{qw(stream stream_options)} if $whole;
        return ($body, $truth) if $truth->{output} == TOKENS;
        $n += 1_000_000;
    }
}

# judge(ANSWER, TRUTH): complete, error, cut, none, or "wrong: why".
sub judge {
    my ($r, $truth) = @_;
    return 'none' if ($r->{raw} // '') eq '';
    return defined $r->{status} ? "wrong: $r->{error}" : 'none' unless defined $r->{status};
    if (($r->{headers}{'content-type'} // '') =~ /event-stream/) { return judge_stream($r, $truth) }
    my $a = eval { PDPlane::Http::json_of($r->{body}) };
    return $r->{complete} ? 'wrong: no JSON' : 'cut' unless ref $a eq 'HASH';
    return 'cut' unless $r->{complete};
    if ($r->{status} == 200) {
        my $c = $a->{choices}[0];
        return "wrong: $c->{text}" if $c->{text} ne $truth->{text} || $c->{finish_reason} ne $truth->{finish};
        return 'wrong: usage' if $a->{usage}{prompt_tokens} != $truth->{prompt} || $a->{usage}{completion_tokens} != $truth->{output};
        return 'complete';
    }
    my $e = $a->{error};
    return "wrong: status $r->{status} without an error object"
        unless ref $e eq 'HASH' && 4 == grep { exists $e->{$_} } qw(message type param code);
    return 'error';
}

sub judge_stream {
    my ($r, $truth) = @_;
    my @events = PDPlane::Http::events($r->{body});
    # The last one may be cut off.
    pop @events if !$r->{complete} && $r->{body} !~ /\n\n\z/;
    my ($text, $finish, $done, $error, $usage) = ('');
    for my $e (@events) {
        return 'wrong: something behind the end' if $done || $error;
        if ($e eq '[DONE]') { $done = 1; next }
        my $a = eval { PDPlane::Http::json_of($e) } or return "wrong: event $e";
        $error = 1 if $a->{error};
        $usage = $a->{usage} if $a->{usage};
        $text .= $a->{choices}[0]{text} // '' if @{ $a->{choices} // [] };
        $finish = $a->{choices}[0]{finish_reason} // $finish if @{ $a->{choices} // [] };
    }
    return "wrong: text '$text'" if substr($truth->{text}, 0, length $text) ne $text;
    if ($done) {
        return 'wrong: [DONE] without all of it' if $text ne $truth->{text} || ($finish // '') ne $truth->{finish};
        return 'wrong: [DONE] without usage' unless $usage && $usage->{completion_tokens} == $truth->{output};
        return $r->{complete} ? 'complete' : 'cut';
    }
    return $finish ? 'wrong: an error behind a finish' : $r->{complete} ? 'error' : 'cut' if $error;
    return $r->{complete} ? 'wrong: ends without [DONE]' : 'cut';
}

# ---- points

# Makes the next process that comes to the point wait there.
sub arm {
    my ($self, $point) = @_;
    spew("$self->{dir}/arm.new", "$point\n");
    rename "$self->{dir}/arm.new", "$self->{dir}/arm" or die "arm: $!";
    return;
}

# { pid, prefill, decode, connection } of the process that waits there.
sub wait_mark {
    my ($self, $seconds) = @_;
    return unless IO::Select->new($self->{server})->can_read($seconds);
    my $c = $self->{server}->accept or return;
    my $line = readline $c // '';
    my ($pid) = $line =~ /^(\d+) /;
    my %mark = (pid => $pid, connection => $c, line => $line);
    $mark{$1} = $2 while $line =~ /(prefill|decode)=(\S+)/g;
    for my $node (@{ $self->{nodes} }) {
        $mark{$1} = $node->{short} if defined $node->pid && $node->pid == $pid && $node->{short} =~ /^(prefill|decode)/;
    }
    return \%mark;
}

sub disarm { my ($self) = @_; unlink "$self->{dir}/arm"; return }

# ---- the state of nodes

# What is not at rest in a node: sentences.  undef: it does not answer.
sub unrest {
    my ($self, $node) = @_;
    my $m = $node->metrics;
    return unless %$m;
    my @wrong;
    my ($accepted, $ended, $running) = (0, 0, 0);
    for my $key (keys %$m) {
        my $v = $m->{$key};
        if ($key =~ /^pdplane_kv_blocks\{/) {
            (my $free = $key) =~ s/blocks/blocks_free/;
            push @wrong, ($v - $m->{$free}) . ' blocks are taken' if $m->{$free} != $v;
        }
        $accepted += $v if $key =~ /^pdplane_request_accepted_total\b/;
        $ended    += $v if $key =~ /^pdplane_request_outcomes_total\b/;
        $running  += $v if $key =~ /^pdplane_requests_running\b/;
        push @wrong, "$key is $v" if $v > 0 && $key =~ /^pdplane_(?:requests_running|kv_leases|kv_transfer_inflight|engine_running|engine_waiting)\b/;
    }
    push @wrong, "accepted $accepted, ended $ended, running $running" if $accepted != $ended + $running;
    return (\@wrong);
}

# Whether all of these are at rest within that time: '' or what is not.
sub rest_within {
    my ($self, $seconds, @nodes) = @_;
    my @last;
    until_true($seconds, sub {
        @last = ();
        for my $node (@nodes) {
            my $wrong = $self->unrest($node);
            push @last, map { "$node->{short}: $_" } defined $wrong ? @$wrong : 'does not answer';
        }
        return !@last;
    });
    return join ', ', @last;
}

sub wait_up {
    my ($self, $seconds) = @_;
    my $n = $self->{n};
    return until_true($seconds, sub {
        my $m = $self->{router}->metrics;
        return 2 == grep { ($m->{"pdplane_router_${_}_endpoints_up"} // 0) == $n } qw(prefill decode);
    });
}

# Open descriptors of a node by kind.
sub descriptors {
    my ($self, $node) = @_;
    my $pid = $node->worker_pid;
    my %n;
    for my $fd (glob "/proc/$pid/fd/*") {
        my $to = readlink $fd // next;
        $n{ $to =~ /^(socket|pipe|anon_inode|\/memfd)/ ? $1 : 'file' }++;
    }
    return \%n;
}

1;
