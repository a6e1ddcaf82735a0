# SPDX-License-Identifier: Apache-2.0
# Runs pdplane nodes for tests: from configuration text to "stopped, nothing
# left open".
#
#   my $n = PDPlane::Daemon->new('router', $text);   # written, not started
#   $n->start;                       # and waits until /ready says so
#   $n->expect_log(qr/peer .* lost/) # warnings that belong to the test
#   $n->metric('pdplane_kv_blocks_free'), $n->metric('name{label="value"}')
#   $n->stop;                        # TERM; one test: it ended as it should
#   $n->kill9;                       # for tests of sudden death
#
# In the text %%PORT_n%% is a free port, the same one for all nodes of a test
# (n is any word); %%MODEL%% is the tiny model; modules of this build are found.
# A node that is not stopped by the test is stopped and checked at its end.
package PDPlane::Daemon;

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Http qw(get);
use PDPlane::Test qw(builddir srcdir folder spew slurp module_dirs test_module_dir);

our @EXPORT_OK = qw(port until_true topology);

my (%ports, @running, $modules);

# port(WORD): a free port on 127.0.0.1, below those that the system gives to
# clients, so that nothing else takes it between two starts of a node.
sub port {
    my ($word) = @_;
    until (defined $ports{$word}) {
        my $try = 12000 + int rand 19000;
        next if grep { $_ == $try } values %ports;
        my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $try, Listen => 1, ReuseAddr => 1);
        $ports{$word} = $try if defined $s;
    }
    return $ports{$word};
}

# until_true(SECONDS, CODE): calls CODE until it is true; its last value.
sub until_true {
    my ($seconds, $code) = @_;
    my $end = time + $seconds;
    my $value;
    until ($value = $code->()) {
        last if time > $end;
        sleep 0.02;
    }
    return $value;
}

# One folder with all modules, because module_path has room for few.
sub modules_folder {
    return $modules if defined $modules;
    $modules = folder() . '/modules';
    -d $modules or mkdir $modules or die "$modules: $!";
    for my $dir (module_dirs(), test_module_dir()) {
        for my $so (glob "$dir/*.so") {
            my ($name) = $so =~ m{([^/]+)$};
            symlink $so, "$modules/$name" unless -e "$modules/$name";
        }
    }
    return $modules;
}

sub new {
    my ($class, $name, $text) = @_;
    my $self = bless { name => $name, expected => [], port => {} }, $class;
    my $model = srcdir() . '/contrib/tinymodel/tiny.gguf';
    $text =~ s/%%PORT_(\w+)%%/port($1)/ge;
    $text =~ s/%%MODEL%%/$model/g;
    $text = sprintf qq(module_path = [ "%s" ];\n%s), modules_folder(), $text;
    $self->{admin} = $1 if $text =~ /address\s*=\s*"127\.0\.0\.1:(\d+)";\s*api\s*=\s*"admin"/;
    $self->{api}   = $1 if $text =~ /address\s*=\s*"127\.0\.0\.1:(\d+)";\s*api\s*=\s*"openai"/;
    $self->{conf} = spew("$name.conf", $text);
    $self->{log}  = folder() . "/$name.log";
    return $self;
}

sub name     { return $_[0]{name} }
sub pid      { return $_[0]{pid} }
sub api_port { return $_[0]{api} }
sub admin    { return $_[0]{admin} }
sub log_text { my ($self) = @_; return -e $self->{log} ? slurp($self->{log}) : '' }

# Starts it; wait: seconds until it must be ready, 0 does not wait; manager: 1
# with a manager, which starts workers; under: words of a command that runs it,
# such as [ 'prlimit', '--nofile=64' ].
sub start {
    my ($self, %o) = @_;
    my $binary = $ENV{PD_BINARY} // builddir() . '/pdplane';
    die "$self->{name} runs already" if defined $self->{pid};
    $self->{log_from} = -e $self->{log} ? -s $self->{log} : 0;
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        open STDIN,  '<',  '/dev/null'  or POSIX::_exit(127);
        open STDOUT, '>>', $self->{log} or POSIX::_exit(127);
        open STDERR, '>&', \*STDOUT     or POSIX::_exit(127);
        my @command = (@{ $o{under} // [] }, $binary, $o{manager} ? () : '-D', '-c', $self->{conf});
        exec { $command[0] } @command or POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    $self->{has_manager} = $o{manager};
    push @running, $self;
    $self->wait_ready($o{wait} // 20) if $o{wait} // 1;
    return $self;
}

# The worker that its manager has started last, or the node itself.
sub worker_pid {
    my ($self) = @_;
    return $self->pid unless $self->{has_manager};
    return until_true(5, sub { (substr($self->log_text, $self->{log_from}) =~ /worker (\d+) serves/g)[-1] });
}

sub is_running {
    my ($self) = @_;
    return 0 unless defined $self->{pid};
    if (waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid}) {
        $self->{status} = $?;
        delete $self->{pid};
        return 0;
    }
    return 1;
}

sub is_ready {
    my ($self) = @_;
    return $self->log_text =~ /is running/ unless defined $self->{admin};
    my $got = get($self->{admin}, '/ready', timeout => 2);
    return ($got->{status} // 0) == 200;
}

sub wait_ready {
    my ($self, $seconds) = @_;
    my $ready = until_true($seconds // 20, sub { !$self->is_running || $self->is_ready });
    return $self if $ready && defined $self->{pid};
    my $log = substr $self->log_text, $self->{log_from};
    $self->kill9 if defined $self->{pid};
    BAIL_OUT("$self->{name} is not ready:\n$log");
}

# Lines of level warn or error that match are no failure.
sub expect_log {
    my ($self, @patterns) = @_;
    push @{ $self->{expected} }, @patterns;
    return $self;
}

# All metrics of now: { 'name{labels}' => value }.
sub metrics {
    my ($self) = @_;
    my $got = get($self->{admin}, '/metrics', timeout => 5);
    my %m;
    for my $line (split /\n/, $got->{body} // '') {
        $m{$1} = $2 if $line =~ /^([^#\s][^\s{]*(?:\{.*\})?) (\S+)$/;
    }
    return \%m;
}

# metric(NAME): the sum of all series of that name, or the one with those labels.
sub metric {
    my ($self, $name) = @_;
    my $m = $self->metrics;
    return $m->{$name} if exists $m->{$name};
    my ($sum, $seen) = (0, 0);
    for my $key (keys %$m) {
        next unless $key =~ /^\Q$name\E\{/;
        $sum += $m->{$key};
        $seen = 1;
    }
    return $seen ? $sum : undef;
}

sub signal { my ($self, $signal) = @_; kill $signal, $self->{pid} if defined $self->{pid}; return $self }

sub forget { my ($self) = @_; @running = grep { $_ != $self } @running; return }

sub kill9 {
    my ($self) = @_;
    $self->forget;
    return unless $self->is_running;
    kill 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
    delete $self->{pid};
    my @found = grep { /Sanitizer|runtime error:/ } split /\n/, substr $self->log_text, $self->{log_from};
    fail "$self->{name}: a sanitizer had something to say" or diag $self->log_text if @found;
    return;
}

# Waits for the end: exit status, or undef after that many seconds.
sub wait_end {
    my ($self, $seconds) = @_;
    until_true($seconds, sub { !$self->is_running });
    return defined $self->{pid} ? undef : $self->{status};
}

# What was wrong with the run: a list of sentences.
sub complaints {
    my ($self) = @_;
    my @wrong;
    my $text = substr $self->log_text, $self->{log_from};
    push @wrong, "ended with status $self->{status}" if $self->{status} != 0;
    push @wrong, 'does not say "stopped, nothing left open"' if $text !~ /stopped, nothing left open/;
    for my $line (split /\n/, $text) {
        if ($line =~ /Sanitizer|runtime error:|Assertion/) { push @wrong, $line; next }
        next unless $line =~ /^\S+ (?:error|warn)\b/;
        next if grep { $line =~ $_ } @{ $self->{expected} };
        # A machine with other work can make any turn long.
        push @wrong, $line unless $line =~ /a turn of the loop took/;
    }
    return @wrong;
}

# Stops it with a signal (TERM) and checks how it ended, as one test.
sub stop {
    my ($self, $signal, $seconds) = @_;
    $self->forget;
    my $was = $self->is_running;
    $self->signal($signal // 'TERM') if $was;
    if (!defined $self->wait_end($seconds // 20)) {
        $self->kill9;
        fail "$self->{name}: does not end";
        diag $self->log_text;
        return 0;
    }
    my @wrong = $self->complaints;
    push @wrong, 'had ended before' unless $was;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    ok !@wrong, "$self->{name}: stops, nothing left open, no complaints in its log"
        or diag join "\n", @wrong, $ENV{PD_KEEP} ? $self->{log} : ();
    return !@wrong;
}

sub stop_all { $_->stop for reverse @running; return }

# ---- whole systems ----------------------------------------------------------

my $systems = 0;

# topology(KIND, options): starts a system and waits until the router sees all of
# it.  KIND: "one" (router and decode in a process), "1p1d", "2p2d" (a process for
# each node), "all" (router, prefill and decode with an engine each in a process).
#   transport => 'shm' | 'tcp' | a test module      ('shm')
#   threshold => tokens from which prefill is remote (1)
#   handover => 'full' | 'n-1'
#   decode_transport, router, prefill, decode: text added to those nodes
#   all: text added to each node      engine: text added to each engine
#   type => the engine module ('ref')      decode_engine: instead of engine on decode nodes
#   dial => 'router': nodes dial the router      (the router dials them)
#   start => [names]: only these are started ("prefill1", "decode1", "router")
# Its nodes are in ->{router}, ->{prefill}[], ->{decode}[]; ->{nodes} has all.
sub topology {
    my ($kind, %o) = @_;
    my $s = bless { kind => $kind, prefill => [], decode => [], nodes => [] }, 'PDPlane::System';
    my $id = ++$systems;
    my $transport = $o{transport} // 'shm';
    my $type = $o{type} // 'ref';
    # A slow machine is no fault of the nodes.
    my $role = sprintf 'handover = "%s"; prefill_timeout = "%s";', $o{handover} // 'full', $o{prefill_timeout} // '120s';
    my $sched = sprintf 'scheduler = { decider = { module = "pd_threshold"; unit = "tokens"; threshold = %d; }; };',
        $o{threshold} // 1;
    my ($p, $d) = $kind =~ /^(\d)p(\d)d$/ ? ($1, $2) : (0, 0);
    my $engine = sub {
        return sprintf q({ name = "%s"; type = "%s"; model = "%%%%MODEL%%%%"; roles = [ "%s" ]; %s }), $_[0], $type, $_[1],
            ($_[1] eq 'decode' ? $o{decode_engine} : undef) // $o{engine} // '';
    };
    my $listen = sub {
        my ($name, @apis) = @_;
        return 'listen = ( ' . join(', ', map {
            sprintf '{ address = "127.0.0.1:%%%%PORT_%s_%s_%d%%%%"; api = "%s"; }', $name, $_, $id, $_
        } @apis) . ' );';
    };
    my $dial = sub {
        my @names = @_;
        return 'peers = ( ' . join(', ', map { qq({ address = "127.0.0.1:%%PORT_${_}_peer_$id%%"; }) } @names) . ' );';
    };
    my @to_router = ($o{dial} // '') eq 'router' ? $dial->('router') : ();
    my $node = sub {
        my ($name, @text) = @_;
        push @text, sprintf 'pid_file = "%s/%s-%d.pid";', folder(), $name, $id;
        my $n = PDPlane::Daemon->new("$name-$id", join "\n", qq(node = { name = "$name"; };), @text, $o{all} // (), '');
        push @{ $s->{nodes} }, $n;
        return $n;
    };
    if ($kind eq 'one' || $kind eq 'all') {
        my $all = $kind eq "all";
        my @engines = $all ? ($engine->("p", "prefill"), $engine->("d", "decode")) : $engine->("tiny", "decode");
        $s->{router} = $node->("all",
            $all ? qq(load = [ "router", "prefill", "decode", "$type", "$transport" ];)
                 : qq(load = [ "router", "decode", "$type" ];),
            $listen->("router", "openai", "admin"), "engine = ( " . join(", ", @engines) . " );", $sched,
            "role = { decode = { $role }; };", $o{router} // (), $o{decode} // ());
        $s->{decode} = [ $s->{router} ];
        $s->{prefill} = [ $s->{router} ] if $kind eq 'all';
        $_->start for @{ $s->{nodes} };
    } else {
        my @peers;
        for my $i (1 .. $p) {
            push @peers, "prefill$i";
            push @{ $s->{prefill} }, $node->("prefill$i", qq(load = [ "prefill", "$type", "$transport" ];),
                $listen->("prefill$i", 'peer', 'admin'), "engine = ( " . $engine->("tiny", "prefill") . " );",
                @to_router, $o{prefill} // ());
        }
        for my $i (1 .. $d) {
            push @peers, "decode$i";
            push @{ $s->{decode} }, $node->("decode$i",
                sprintf('load = [ "decode", "%s", "%s" ];', $type, $o{decode_transport} // $transport),
                $listen->("decode$i", 'peer', 'admin'), "engine = ( " . $engine->("tiny", "decode") . " );",
                "role = { decode = { $role }; };", @to_router, $o{decode} // ());
        }
        $s->{router} = $node->('router', 'load = [ "router", "openai" ];', 
            $listen->('router', 'openai', 'admin', 'peer'), $sched, @to_router ? () : $dial->(@peers), $o{router} // ());
        my %start = map { ("$_-$id" => 1) } @{ $o{start} // [ @peers, 'router' ] };
        my @now = grep { $start{ $_->name } } @{ $s->{nodes} };
        $_->start(wait => 0) for @now;
        # A router without a decode node is not ready, and that may be meant.
        $_->wait_ready for $o{start} ? () : @now;
        return $s->wait_some(@now) if $o{start};
    }
    $s->wait_endpoints(($p || ($kind eq 'all' ? 1 : 0)), $d || 1);
    return $s;
}

package PDPlane::System;

use strict;
use warnings;

sub port { return $_[0]{router}->api_port }

# Endpoints of a role that the router counts as up.
sub endpoints_up {
    my ($self, $role) = @_;
    return $self->{router}->metric("pdplane_router_${role}_endpoints_up");
}

sub wait_endpoints {
    my ($self, $p, $d) = @_;
    PDPlane::Daemon::until_true(20, sub {
        ($self->endpoints_up('prefill') // 0) >= $p && ($self->endpoints_up('decode') // 0) >= $d
    }) or Test::More::diag("the router does not see $p prefill and $d decode endpoints");
    return;
}

# Waits until these serve their admin listeners and the router sees the decode
# nodes among them.
sub wait_some {
    my ($self, @nodes) = @_;
    for my $n (@nodes) {
        PDPlane::Daemon::until_true(20, sub { defined PDPlane::Http::get($n->admin, '/health', timeout => 2)->{status} });
    }
    my %now = map { $_ => 1 } @nodes;
    $self->wait_endpoints(map { my $role = $_; scalar grep { $now{$_} } @{ $self->{$role} } } qw(prefill decode));
    return $self;
}

# The sum of a metric over the nodes of a role.
sub metric {
    my ($self, $role, $name) = @_;
    my $sum = 0;
    $sum += $_->metric($name) // 0 for ref $self->{$role} eq 'ARRAY' ? @{ $self->{$role} } : $self->{$role};
    return $sum;
}

# Whether every KV block of every engine is free (or holds only a prefix).
sub blocks_free {
    my ($self, @nodes) = @_;
    for my $n (@nodes ? @nodes : grep { defined $_->pid } @{ $self->{nodes} }) {
        my $m = $n->metrics;
        for my $all (grep { /^pdplane_kv_blocks\{/ } keys %$m) {
            (my $free = $all) =~ s/blocks/blocks_free/;
            return 0 if $m->{$free} != $m->{$all};
        }
    }
    return 1;
}

# The same, waiting for it: the last answer is out before its blocks are back.
sub wait_blocks_free {
    my ($self, @nodes) = @_;
    return PDPlane::Daemon::until_true(20, sub { $self->blocks_free(@nodes) });
}

sub expect_log { my ($self, @p) = @_; $_->expect_log(@p) for @{ $self->{nodes} }; return $self }

sub stop {
    my ($self) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    $_->stop for grep { defined $_->pid } @{ $self->{nodes} };
    return;
}

package PDPlane::Daemon;

END {
    my $status = $?;
    for my $n (@running) {
        $n->is_running or next;
        $n->signal('TERM');
        $n->kill9 unless defined $n->wait_end(5);
    }
    $? = $status;
}

1;
