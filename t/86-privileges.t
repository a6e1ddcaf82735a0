# SPDX-License-Identifier: Apache-2.0
# A node that is started as root becomes somebody else: it keeps a port that only
# root may open, has no capability left, and reload, upgrade and pdctl still work.
use strict;
use warnings;

use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

use PDPlane::Certs qw(have_openssl authority leaf pem key);
use PDPlane::Daemon qw(port until_true);
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(get post);
use PDPlane::Test qw(folder spew slurp builddir srcdir run_program);

my ($uid, $gid) = (getpwnam 'nobody')[2, 3];
plan skip_all => 'needs to be root' if $> != 0;
plan skip_all => 'needs a user nobody' unless defined $uid;
chmod 0755, folder();
my $probe = fork // die;
if ($probe == 0) { POSIX::setgid($gid); POSIX::setuid($uid); POSIX::_exit(-r srcdir() . '/contrib/tinymodel/tiny.gguf' && -x builddir() . '/pdplane' ? 0 : 1) }
waitpid $probe, 0;
plan skip_all => 'the build is in a folder that others cannot read' if $? != 0;

my %managers;
END { kill 'TERM', keys %managers if %managers }

my @golden = golden();
my ($path, $ask) = @{ (greedy())[0] };

# A port that only root may open.
sub low_port {
    for (1 .. 200) {
        my $try = 700 + int rand 300;
        return $try if IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $try, Listen => 1, ReuseAddr => 1);
    }
    return;
}

# What the system says of a process.
sub status_of {
    my ($pid) = @_;
    my %s = map { /^(\w+):\s*(.*)$/ ? ($1 => $2) : () } split /\n/, slurp("/proc/$pid/status");
    return \%s;
}

sub is_nobody {
    my ($pid, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $s = status_of($pid);
    is $s->{Uid}, join("\t", ($uid) x 4), "$name: all its user ids are nobody's";
    is $s->{Gid}, join("\t", ($gid) x 4), "$name: all its group ids";
    unlike " $s->{Groups} ", qr/ 0 /, "$name: it is in no group of root";
    is hex $s->{$_}, 0, "$name: $_ is empty" for qw(CapEff CapPrm CapInh CapAmb);
    is $s->{NoNewPrivs}, 1, "$name: no new privileges";
    my @threads = glob "/proc/$pid/task/*/status";
    is scalar(grep { slurp($_) !~ /^Uid:\t$uid\t$uid\t$uid\t$uid$/m } @threads), 0, "$name: so are its " . @threads . ' threads';
    return;
}

my ($state, $own) = (folder() . '/state', folder() . '/run');
mkdir $own;
chown $uid, $gid, $own;
my $conf = 'user = "nobody"; load = [ "router", "prefill", "decode", "ref", "shm" ];
node = { state = "' . $state . '"; };
engine = ( { name = "p"; type = "ref"; model = "%%MODEL%%"; roles = [ "prefill" ]; }, { name = "d"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; } );
scheduler = { decider = { module = "pd_threshold"; unit = "tokens"; threshold = 1; }; };
listen = ( { address = "127.0.0.1:%%PORT_NAME_admin%%"; api = "admin"; }, { address = "127.0.0.1:LOW"; api = "openai"; TLS } );
control = "' . $own . '/NAME.sock"; log = { file = "' . $own . '/NAME.log"; };
';
my $low = low_port() or plan skip_all => 'no free port below 1024';
sub conf_of { my ($name, $more) = @_; return ($conf =~ s/NAME/$name/gr =~ s/LOW/$low/r =~ s/TLS//r) . ($more // '') }

# ---- without a manager
{
    my $n = PDPlane::Daemon->new('alone', conf_of('alone'));
    $n->start;
    is_nobody($n->pid, 'alone');
    is text_of(post($low, $path, $ask)), $golden[0]{text}, "alone: the golden text, from port $low";
    is((stat "/proc/" . $n->pid . "/environ")[4], 0, 'alone: it leaves no core file and cannot be traced by others of that user');
    is((stat "$own/alone.log")[4], $uid, 'alone: the log is its own');
    is((stat "$state/node.id")[4], $uid, 'alone: and so is its identity');
    my ($rc, $out) = run_program(builddir() . '/pdctl', '-s', "$own/alone.sock", 'status');
    is $rc, 0, 'alone: pdctl works' or diag $out;
    rename "$own/alone.log", "$own/alone.1" or die $!;
    $n->signal('USR1');
    ok until_true(5, sub { -e "$own/alone.log" }), 'alone: the log can be moved';
    $n->stop;
    ok !IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $low), 'alone: its port is closed afterwards';
}

# ---- with a manager
{
    my $name = 'managed';
    my $n = PDPlane::Daemon->new($name, conf_of($name, 'pid_file = "' . folder() . "/managed.pid\";\n"));
    my $manager = fork // die;
    if ($manager == 0) {
        open STDERR, '>', folder() . '/manager.err' or die;
        exec builddir() . '/pdplane', '-c', $n->{conf} or POSIX::_exit(127);
    }
    $managers{$manager} = 1;
    # The newest child.
    my $workers = sub { return sort { $a <=> $b } map { m{/(\d+)/} ? $1 : () } grep { (eval { slurp($_) } // '') =~ /^PPid:\t$manager$/m } glob '/proc/[0-9]*/status' };
    my $worker = sub { return ($workers->())[-1] // 0 };
    ok until_true(20, sub { (get($n->admin, '/ready', timeout => 2)->{status} // 0) == 200 }), 'managed: it serves' or diag slurp("$own/managed.log");
    my $first = $worker->();
    is_nobody($manager, 'the manager');
    is_nobody($first, 'its worker');
    is text_of(post($low, $path, $ask)), $golden[0]{text}, 'managed: the golden text';
    my ($rc, $out, $err) = run_program(builddir() . '/pdctl', '-s', "$own/managed.sock", 'reload');
    is $rc, 0, 'managed: pdctl reload' or diag "$out$err";
    until_true(5, sub { (my @w = $workers->()) == 1 && (get($n->admin, '/ready', timeout => 2)->{status} // 0) == 200 });
    is text_of(post($low, $path, $ask)), $golden[0]{text}, 'managed: served after a reload';
    my $before = $worker->();
    kill 'USR2', $manager;
    ok until_true(15, sub { my $w = $worker->(); $w && $w != $before && (get($n->admin, '/ready', timeout => 2)->{status} // 0) == 200 }), 'managed: upgraded';
    is text_of(post($low, $path, $ask)), $golden[0]{text}, 'managed: served after an upgrade';
    is_nobody($worker->(), 'the worker after it');
    my $victim = $worker->();
    kill 'KILL', $victim;
    ok until_true(10, sub { my $w = $worker->(); $w && $w != $victim && (get($n->admin, '/ready', timeout => 2)->{status} // 0) == 200 }), 'managed: a worker that dies is replaced';
    is text_of(post($low, $path, $ask)), $golden[0]{text}, 'managed: and serves';
    kill 'TERM', $manager;
    ok until_true(20, sub { waitpid($manager, POSIX::WNOHANG()) == $manager }), 'managed: it ends';
    is $?, 0, 'managed: well';
    delete $managers{$manager};
}

# ---- refused
for my $bad ([ 'user = "no-such-user";', qr/there is no user "no-such-user"/ ], [ 'group = "no-such-group";', qr/there is no group "no-such-group"/ ]) {
    my $n = PDPlane::Daemon->new('bad', conf_of('bad') =~ s/user = "nobody";/$bad->[0]/r =~ s/ log = .*//r);
    $n->start(wait => 0);
    isnt $n->wait_end(10), 0, "$bad->[0] it does not start";
    like $n->log_text, $bad->[1], 'and says why';
    $n->forget;
}
SKIP: {
    skip 'there is no setpriv', 2 if system('setpriv --version >/dev/null 2>&1') != 0;
    my $n = PDPlane::Daemon->new('other', conf_of('other') =~ s/user = "nobody";/user = "daemon";/r =~ s/127\.0\.0\.1:$low/127.0.0.1:0/r =~ s/log = .*//r);
    $n->{log} = folder() . '/other.err';
    spew('other.err', '');
    chmod 0666, $n->{log};
    $n->start(wait => 0, under => [ 'setpriv', "--reuid=$uid", "--regid=$gid", '--clear-groups' ]);
    isnt $n->wait_end(10), 0, 'somebody who is not root cannot become another user';
    like $n->log_text, qr/start as root, or as the user/, 'and is told what to do';
    $n->forget;
}

done_testing;
