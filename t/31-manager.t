# SPDX-License-Identifier: Apache-2.0
# The manager: a worker that dies is started again; a reload makes a generation in
# it and an upgrade replaces it, without a refused connection or a broken stream;
# sockets outlive workers; and what is broken changes nothing.
use strict;
use warnings;

use Fcntl;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port);
use PDPlane::Test;

our $api = port('api');
my $admin = port('admin');
my $modules = '"' . PDPlane::Daemon::modules_folder() . '"';
my $model = srcdir() . '/contrib/tinymodel/tiny.gguf';
my $pid_file = folder() . '/m.pid';
my $good = <<"EOT";
load = [ "router", "decode", "ref" ];
module_path = [ $modules ];
node = { name = "m"; };
listen = ( { address = "127.0.0.1:$api"; api = "openai"; }, { address = "127.0.0.1:$admin"; api = "admin"; } );
engine = ( { name = "tiny"; type = "ref"; model = "$model"; kv_memory = "4m"; roles = [ "decode" ];
             ms_per_token = 10.0; } );
pid_file = "$pid_file";
control = "@{[folder()]}/m.sock";
EOT
my $conf = spew 'm.conf', $good;
my $log = folder() . '/m.log';

# What systemd would give and hear: a listening socket, and a socket for news.
my $news_path = folder() . '/notify';
my $news = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $news_path) or die "notify: $!";
my $given = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $admin, Listen => 5, ReuseAddr => 1)
    or die "port $admin: $!";

my $manager = fork // die "fork: $!";
if ($manager == 0) {
    open STDERR, '>', $log or die;
    fcntl $given, F_SETFD, 0 or die "fcntl: $!";
    POSIX::dup2(fileno($given), 3);
    @ENV{qw(NOTIFY_SOCKET LISTEN_PID LISTEN_FDS)} = ($news_path, $$, 1);
    exec builddir() . '/pdplane', '-c', $conf or die;
}
END { kill 'KILL', $manager if defined $manager && $manager > 0 && waitpid($manager, WNOHANG) == 0 }

sub wait_for {
    my ($what, $code) = @_;
    my $end = time + 10;
    while (time < $end) {
        return 1 if $code->();
        sleep 0.02;
    }
    diag "timeout: $what", slurp($log);
    return 0;
}

# One request; the text, or undef and the reason.
sub ask {
    my ($tokens) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $api, Timeout => 5)
        or return (undef, "connect: $!");
    my $body = encode_json({ model => 'tiny', prompt => 'Once upon a time', temperature => 0,
            max_tokens => $tokens + 0, stream => JSON::PP::true });
    print {$s} "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        . "Connection: close\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    my $answer = do { local $/; <$s> } // '';
    return (undef, $answer) unless $answer =~ m{^HTTP/1.1 200} && $answer =~ /data: \[DONE\]/;
    return join '', map { decode_json($_)->{choices}[0]{text} } $answer =~ /^data: (\{.*\})\r?$/mg;
}

sub workers { my @w = slurp($log) =~ /worker (\d+) serves/g; return @w }
sub generation { return (slurp($log) =~ /generation (\d+) is in use/g)[-1] // 1 }

close $given;

ok wait_for('the first worker', sub { -e $log && workers() >= 1 }), 'a worker serves';
like slurp($pid_file), qr/^$manager$/, 'the pid file names the manager';
my ($expected) = ask(30);
ok defined $expected, 'it answers';

# The next news, '' when there is none for a while.
sub heard {
    my ($seconds) = @_;
    my ($text, $wait) = ('', '');
    vec($wait, fileno($news), 1) = 1;
    recv $news, $text, 4096, 0 if select $wait, undef, undef, $seconds;
    return $text;
}
like heard(5), qr/^READY=1$/m, 'readiness is told to the service manager';
my $health = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $admin, Timeout => 5);
print {$health} "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
like do { local $/; <$health> }, qr/^HTTP\/1.1 200/, 'a socket that it had opened is served';

our @news;
sub hear {
    while ((my $text = heard(0)) ne '') {
        push @news, $text;
    }
}

# A crash.
kill 'KILL', (workers())[-1];
my $t = time;
ok wait_for('the second worker', sub { workers() >= 2 }), 'a worker that was killed is started again';
cmp_ok time - $t, '<', 1, 'in less than a second';
my ($again, $why) = ask(30);
is $again, $expected, 'and answers as before' or diag $why;

# Reload and upgrade under load: children ask all the time, one long stream runs across.
my @children;
for my $n (1 .. 3) {
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        my $bad = 0;
        my $end = time + 4;
        while (time < $end) {
            my ($text, $reason) = ask($n == 1 ? 150 : 5);
            next if defined $text && index($n == 1 ? $text : $expected, $n == 1 ? $expected : $text) == 0;
            $bad++;
            print STDERR "# ", $reason // $text, "\n";
        }
        POSIX::_exit($bad == 0 ? 0 : 1);
    }
    push @children, $pid;
}
for my $n (2 .. 4) {
    sleep 0.3;
    is +(run_program(builddir() . '/pdplane', '-s', 'reload', '-c', $conf))[0], 0, 'a reload is taken';
    ok wait_for('the generation', sub { generation() == $n }), "generation $n is in use";
    hear();
}
for my $n (1 .. 2) {
    sleep 0.3;
    my $before = workers();
    is +(run_program(builddir() . '/pdplane', '-s', 'upgrade', '-c', $conf))[0], 0, "upgrade $n is taken";
    ok wait_for('the next worker', sub { workers() > $before }), 'a new worker serves';
}
my $failed = grep { waitpid($_, 0); $? != 0 } @children;
is $failed, 0, 'no request failed and no stream broke meanwhile';

my @pdctl = (builddir() . '/pdctl', '-s', folder() . '/m.sock');
my $before = workers();
my ($rc, $out) = run_program(@pdctl, 'reload');
is $rc, 0, 'pdctl reload' or diag $out;
like $out, qr/^generation 2 is in use$/m, 'tells what is in use';
is scalar workers(), $before, 'in the same worker';

# A new listener is the manager's too, so that it outlives the worker.
my $more = port('more');
spew 'm.conf', $good =~ s/listen = \( /listen = ( { address = "127.0.0.1:$more"; api = "openai"; }, /r;
is +(run_program(@pdctl, 'reload'))[0], 0, 'a new listener';
ok wait_for('the socket', sub { slurp($log) =~ /socket 127.0.0.1:$more is kept/ }), 'is given to the manager';
kill 'KILL', (workers())[-1];
{
    local $api = $more;
    is +(ask(30))[0], $expected, 'which keeps it while the worker is started again';
}
ok wait_for('the next worker', sub { workers() > $before }), 'it is';
spew 'm.conf', $good;
is +(run_program(@pdctl, 'reload'))[0], 0, 'a listener that goes';
ok wait_for('the socket', sub { slurp($log) =~ /socket 127.0.0.1:$more is closed/ }), 'is closed';
ok !IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $more, Timeout => 5), 'everywhere';

# A broken configuration changes nothing.
spew 'm.conf', $good . "engin = ();\n";
my $now = generation();
hear();
@news = ();
kill 'HUP', $manager;
ok wait_for('the refusal', sub { slurp($log) =~ /nothing has changed/ }), 'a broken configuration is refused';
like slurp($log), qr/nothing has changed: \S*m\.conf:\d+: unknown option "engin"/, 'and the log says what is wrong';
($rc, $out, my $err) = run_program(@pdctl, 'reload');
is $rc, 1, 'pdctl fails too';
like $err, qr/m\.conf:\d+: unknown option "engin"/, 'and says where';
($rc, $out) = run_program(@pdctl, 'generations');
like $out, qr/^last refusal +\S*m\.conf:\d+: unknown option "engin"/m, 'pdctl generations remembers it';
is generation(), $now, 'the generation is the same';
is +(ask(30))[0], $expected, 'and goes on';
hear();
ok +(grep { /^STATUS=serving; the last reload was refused/m } @news), 'the service manager hears it';

# A crash while the configuration on disk is broken: tried again until it is mended.
$before = workers();
kill 'KILL', (workers())[-1];
ok wait_for('a failed start', sub { slurp($log) =~ /signal KILL(?!.*signal KILL).*exit status 1.*again in/s }),
    'a node that has served is not given up';
spew 'm.conf', $good;
ok wait_for('the mended node', sub { workers() > $before }), 'and serves again once the file is mended';

hear();
my $last = (workers())[-1];
kill 'TERM', $manager;
# Late signals must not end a worker in the middle of its end.
my $late = time + 120;
until (waitpid $manager, WNOHANG) {
    kill $_, $last for qw(TERM USR1);
    kill 'KILL', $manager, $last if time > $late;
    sleep 0.0005;
}
is $?, 0, 'the manager ends with status 0';
hear();
ok +(grep { /^RELOADING=1$/m } @news), 'reloads were told';
like $news[-1], qr/^STOPPING=1$/m, 'and the end';
$manager = 0;
ok !-e $pid_file, 'and removes the pid file';
like slurp($log), qr/worker $last has ended/, 'the worker ended by itself, whatever it was told meanwhile';
unlike slurp($log), qr/Sanitizer|crashed/, 'nothing crashed';
done_testing;
