# SPDX-License-Identifier: Apache-2.0
# Every way in which a manager's worker ends or does not, and what signals do at each
# time; and what a node without a manager refuses while it runs.
use strict;
use warnings;

use IO::Socket::INET;
use POSIX ();
use Test::More;

use PDPlane::Daemon qw(port until_true);
use PDPlane::Test qw(builddir folder run_program slurp spew);

my $dir = folder();
my $pdctl = builddir() . '/pdctl';

# A server behind the routers, so that they are ready; it never answers a request.
my $engine_pid = open my $engine, '-|', builddir() . '/pdbench', 'engine', '--ttft', '1h' or die;
my ($engine_port) = (<$engine> // '') =~ /^PORT (\d+)$/ or die 'no port';

sub text {
    my ($name, %o) = @_;
    my $load = $o{load} // '"router", "openai"';
    return <<"CONF" . ($o{more} // '');
load = [ $load ];
control = "$dir/$name.sock";
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:$engine_port"; } );
listen = ( { address = "127.0.0.1:%%PORT_${name}%%"; api = "openai"; }, { address = "127.0.0.1:%%PORT_${name}_admin%%"; api = "admin"; } );
CONF
}
sub managed {
    my ($name, %o) = @_;
    my $n = PDPlane::Daemon->new($name, text($name, %o));
    $n->{served} = 0;
    return $n->start(wait => 0, manager => 1);
}
sub change { my ($n, $code) = @_; local $_ = slurp($n->{conf}); $code->(); return spew($n->{conf}, $_) }
sub logs {
    my ($n, $pattern) = @_;
    ok(until_true(60, sub { $n->log_text =~ $pattern }), $n->name . ": $pattern") or diag $n->log_text;
    return;
}
sub serving { my ($n) = @_; my @w = $n->log_text =~ /worker (\d+) serves/g; return @w }
sub serves_again {
    my ($n) = @_;
    my $want = ++$n->{served};
    ok(until_true(60, sub { serving($n) >= $want }), $n->name . ": worker $want serves") or diag $n->log_text;
    return;
}
# What a process has started and not yet buried.
sub children { my ($pid) = @_; open my $f, '<', "/proc/$pid/task/$pid/children" or return; return split ' ', <$f> // '' }
sub ends_with {
    my ($n, $status, $what) = @_;
    $n->forget;
    my $got = $n->wait_end(60);
    $n->kill9 unless defined $got;
    is($got, $status, $n->name . ": $what") or diag $n->log_text;
    return;
}

# ---- workers that do not end
{
    my $n = managed('many');
    serves_again($n);
    my @stopped;
    for (1 .. 7) {
        push @stopped, (serving($n))[-1];
        kill STOP => $stopped[-1];
        $n->signal('USR2');
        serves_again($n);
    }
    $n->signal('USR2');
    logs($n, qr/8 workers still end their requests, no new one is started/);
    $n->signal('QUIT');
    logs($n, qr/signal QUIT/);
    kill CONT => @stopped;
    ends_with($n, 0, 'ends when they have ended');
    is scalar(() = $n->log_text =~ /worker \d+ has ended/g), 8, 'all of them well';
}

# ---- what is refused: at a bad time, or with a bad configuration
{
    my $n = managed('refuses');
    serves_again($n);
    my $good = slurp($n->{conf});
    my $refused = sub { return scalar(() = $n->log_text =~ /not now: a worker is starting or the node is ending/g) };
    # The next worker waits some seconds for a server that is not there.
    change($n, sub { s/127\.0\.0\.1:$engine_port/127.0.0.1:1/ });
    $n->signal('USR2');
    ok until_true(60, sub { 2 == children($n->pid) }), 'a worker is starting';
    for my $signal (qw(USR2 HUP)) {
        my $before = $refused->();
        $n->signal($signal);
        ok until_true(60, sub { $refused->() > $before }), "$signal meanwhile is refused";
    }
    spew($n->{conf}, $good);
    serves_again($n);
    ok until_true(60, sub { 1 == children($n->pid) }), 'it is the only one then';
    $n->signal('USR2');
    serves_again($n);
    until_true(60, sub { 1 == children($n->pid) });
    spew($n->{conf}, 'load = [');
    $n->signal('USR2');
    logs($n, qr/the configuration is not taken into use: it cannot be read/);
    my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die;
    spew($n->{conf}, $good =~ s/listen = \(/listen = ( { address = "127.0.0.1:@{[ $taken->sockport ]}"; api = "admin"; },/r);
    $n->signal('USR2');
    logs($n, qr/not taken into use: cannot listen on 127\.0\.0\.1:\d+: the address is in use/);
    spew($n->{conf}, $good =~ s/load = \[/load = [ "no_such_module",/r);
    $n->signal('USR2');
    logs($n, qr/worker \d+ ended with exit status 1.*the new worker did not come up; nothing has changed/s);
    my ($rc, undef, $err) = run_program($pdctl, '-s', "$dir/refuses.sock", 'status');
    is $rc, 0, 'the old one serves' or diag $err;
    spew($n->{conf}, $good);
    # The old one dies while the new one starts: it is the only one then.
    my $old = (serving($n))[-1];
    $n->signal('USR2');
    until_true(60, sub { children($n->pid) > 1 || serving($n) > $n->{served} });
    kill KILL => $old;
    serves_again($n);
    ok until_true(60, sub { 1 == children($n->pid) }), 'one worker is left';
    is((run_program($pdctl, '-s', "$dir/refuses.sock", 'status'))[0], 0, 'and serves');
    run_program($pdctl, '-s', "$dir/refuses.sock", 'stop');
    ends_with($n, 0, 'pdctl stop ends the manager too');
}

# ---- a log file, and a worker that ends by itself
{
    my $n = managed('filed', more => "log = { file = \"$dir/filed.txt\"; level = \"error\"; };\n");
    ok until_true(60, sub { -S "$dir/filed.sock" && (run_program($pdctl, '-s', "$dir/filed.sock", 'status'))[0] == 0 }), 'serves';
    rename "$dir/filed.txt", "$dir/filed.old" or die;
    $n->signal('USR1');
    ok until_true(60, sub { -e "$dir/filed.txt" }), 'USR1: the log file is opened again';
    my ($old) = children($n->pid);
    $n->signal('USR2');
    ok until_true(60, sub { my @c = children($n->pid); @c == 1 && $c[0] != $old }), 'an upgrade, and nothing to say';
    ($old) = children($n->pid);
    kill KILL => $old;
    ok until_true(60, sub { my @c = children($n->pid); @c == 1 && $c[0] != $old }), 'a crash';
    like slurp("$dir/filed.txt"), qr/worker $old ended with signal KILL/, 'which is told';
    # A listener that comes, is taken over by the next worker, and goes.
    my $more = port('filed_more');
    my $answers = sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $more, Timeout => 5) };
    my $reload = sub { (run_program($pdctl, '-s', "$dir/filed.sock", 'reload'))[0] };
    my $good = slurp($n->{conf});
    ok until_true(60, sub { -S "$dir/filed.sock" && (run_program($pdctl, '-s', "$dir/filed.sock", 'status'))[0] == 0 }), 'serves again';
    spew($n->{conf}, $good =~ s/listen = \(/listen = ( { address = "127.0.0.1:$more"; api = "admin"; },/r);
    is $reload->(), 0, 'a listener more';
    ok $answers->(), 'is there';
    ($old) = children($n->pid);
    $n->signal('USR2');
    ok until_true(60, sub { my @c = children($n->pid); @c == 1 && $c[0] != $old }), 'also for the next worker';
    ok $answers->(), 'which has it from the manager';
    spew($n->{conf}, $good);
    is $reload->(), 0, 'a listener less';
    ok until_true(60, sub { !$answers->() }), 'is closed everywhere';
    spew($n->{conf}, $good . "engin = 1;\n");
    is $reload->(), 1, 'a reload that is refused';
    spew($n->{conf}, $good);
    is $reload->(), 0, 'and one that is not';
    ok until_true(60, sub { (run_program($pdctl, '-s', "$dir/filed.sock", 'drain'))[0] == 0 }), 'pdctl drain';
    ends_with($n, 0, 'ends the manager too');
    unlike slurp("$dir/filed.txt"), qr/ (?:notice|warn) \[/, 'errors only';
}

# ---- before anything serves
{
    my $n = managed('early');
    my $starting = until_true(60, sub { children($n->pid) });
    ok $starting, 'a worker starts';
    $n->signal('TERM');
    ends_with($n, 0, 'it is told to end before it serves');

    $n = managed('crash', load => '"router", "openai", "load_crashes"');
    logs($n, qr/ended with signal \w+.*starting the worker again in 0\.00 s.*starting the worker again in 0\.\d\d s.*again in [1-9]/s);
    for my $signal (qw(HUP USR2)) {
        $n->signal($signal);
        logs($n, $signal eq 'HUP' ? qr/not now/ : qr/signal USR2.*not now/s);
    }
    until_true(60, sub { !children($n->pid) });
    $n->signal('TERM');
    ends_with($n, 0, 'ends while no worker runs');
}

# ---- without a manager
{
    my $n = PDPlane::Daemon->new('alone', text('alone',
        more => "drain = \"300ms\";\nlog = { file = \"$dir/log/alone.txt\"; };\npid_file = \"$dir/alone.pid\";\n"));
    mkdir "$dir/log";
    $n->start(wait => 0);
    my $log = sub { my ($pattern) = @_; ok until_true(60, sub { -e "$dir/log/alone.txt" && slurp("$dir/log/alone.txt") =~ $pattern }), "alone: $pattern"
        or diag slurp("$dir/log/alone.txt") };
    $log->(qr/is running/);
    $n->signal('USR2');
    $log->(qr/signal USR2: only a manager can start a new worker/);
    my $good = slurp($n->{conf});
    for my $case ([ 'pid_file cannot change', sub { s/^pid_file.*//m } ], [ 'pid_file cannot change', sub { s/alone\.pid/other.pid/ } ],
        [ 'log.file or log.format cannot change', sub { s/^log = .*//m } ], [ 'log.file or log.format cannot change', sub { s/alone\.txt/other.txt/ } ],
        [ 'log.file or log.format cannot change', sub { s/log = \{/log = { format = "json";/ } ], [ 'unknown option "engin"', sub { $_ .= "engin = 1;\nthread = 2;\n" } ]) {
        change($n, $case->[1]);
        my ($rc, undef, $err) = run_program($pdctl, '-s', "$dir/alone.sock", 'reload');
        is $rc, 1, "refused: $case->[0]";
        like $err, qr/\Q$case->[0]\E/, 'and why';
        spew($n->{conf}, $good);
    }
    $log->(qr/unknown option "thread"/);
    change($n, sub { s/log = \{/log = { level = "debug";/ });
    $n->signal('HUP');
    $log->(qr/generation 2 is in use/);
    is slurp("$dir/alone.pid"), $n->pid . "\n", 'the pid file';
    rename "$dir/log", "$dir/gone" or die;
    $n->signal('USR1');
    ok until_true(60, sub { slurp("$dir/gone/alone.txt") =~ /cannot open log file/ }), 'a log file that cannot be opened again: the old one stays';
    rename "$dir/gone", "$dir/log" or die;
    my $asked = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $n->api_port) or die;
    my $body = '{"model":"bench","prompt":"x"}';
    print {$asked} "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    ok until_true(60, sub { my (undef, $out) = run_program($pdctl, '-s', "$dir/alone.sock", '--json', 'requests'); $out =~ /"id"/ }), 'a request is open';
    $n->signal('WINCH');
    $log->(qr/signal WINCH/);
    $n->signal('QUIT');
    $log->(qr/signal QUIT.*drain time is over, what is open ends now/s);
    ends_with($n, 0, 'ends in spite of it');
    like do { local $/; <$asked> }, qr/^HTTP\/1\.1 5\d\d .*"error"/s, 'with an honest answer';
    ok !-e "$dir/alone.pid" && !-e "$dir/alone.sock", 'and leaves nothing';
}

# A reload with modules that never ran here, of a file found by its prefix.
{
    my $n = PDPlane::Daemon->new('prefixed', text('prefixed'));
    mkdir "$dir/prefix";
    rename $n->{conf}, "$dir/prefix/pd.conf" or die;
    $n->{conf} = "$dir/prefix/pd.conf";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDOUT, '>', $n->{log} or POSIX::_exit(126);
        open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
        exec builddir() . '/pdplane', '-D', '-p', "$dir/prefix" or POSIX::_exit(127);
    }
    logs($n, qr/is running/);
    change($n, sub { s/"openai" \]/"openai", "prometheus", "random" ]/ });
    kill HUP => $pid;
    logs($n, qr/generation 2 is in use/);
    change($n, sub { s/"openai"/"openai", "load_crashes"/ });
    kill HUP => $pid;
    logs($n, qr/loading its new modules in a process of its own ended with signal/);
    kill INT => $pid;
    waitpid $pid, 0;
    is $?, 0, 'INT ends it';
}

kill TERM => $engine_pid;
close $engine;
done_testing;
