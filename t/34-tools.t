# SPDX-License-Identifier: Apache-2.0
# pdplane, pdctl and pdbench as people and scripts misuse them: what is wrong is said,
# with the exit status for it, and nothing is done by halves.
use strict;
use warnings;

use IO::Socket::UNIX;
use POSIX ();
use Test::More;

use PDPlane::Daemon qw(until_true);
use PDPlane::Terminal;
use PDPlane::Test qw(builddir srcdir folder run_program slurp spew);

my ($pdplane, $pdctl, $pdbench) = map { builddir() . "/$_" } qw(pdplane pdctl pdbench);
my $dir = folder();

# The command ends with that status, and says that (on standard output where it is 0).
sub ends {
    my ($status, $pattern, @command) = @_;
    my ($rc, $out, $err) = run_program(@command);
    my $name = join ' ', map { length > 30 ? substr($_, 0, 30) . '...' : $_ } map { s{.*/}{}r } @command;
    is $rc, $status, "$name: status $status" or diag $err;
    like $status == 0 ? $out : $err, $pattern, 'and says it';
    return ($out, $err);
}

# A full disk is noticed by all of them.
SKIP: {
    skip 'no /dev/full', 8 unless -w '/dev/full';
    for my $command ([ $pdplane, '-h' ], [ $pdplane, '-V' ], [ $pdctl, 'help' ], [ $pdctl, '-V' ], [ $pdctl, 'help', 'status' ],
        [ $pdctl, 'help', 'module' ], [ $pdbench, '-h' ], [ $pdbench, '--version' ], [ $pdbench, 'load', '--help' ]) {
        ends(1, qr/cannot write: /, 'sh', '-c', 'exec "$@" >/dev/full', 'sh', @$command);
    }
}

# ---- pdplane
my $modules = PDPlane::Daemon::modules_folder();
my $conf = spew('good.conf', qq(module_path = [ "$modules" ];\nload = [ "router" ];\n)
    . qq(listen = ( { address = "127.0.0.1:0"; api = "openai"; } );\n));
ends(2, qr/only one of -t, -T/, $pdplane, '-t', '-V');
ends(0, qr/correct/, $pdplane, '-t', '-t', '-c', $conf);
ends(0, qr/\A\z/, $pdplane, '-q', '-t', '-c', $conf);
ends(2, qr/unknown signal "relod" \(did you mean "reload"\?\)/, $pdplane, '-s', 'relod');
ends(2, qr/unknown signal "zzzzzzzzz"\n/, $pdplane, '-s', 'zzzzzzzzz');
ends(2, qr/--mdoc goes with -O only/, $pdplane, '--mdoc', '-t');
ends(0, qr/^\.It Ic listen/m, $pdplane, '--mdoc', '-O');
ends(2, qr/prefix is too long/, $pdplane, '-t', '-p', '/' . 'x' x 5000);
ends(2, qr/there is no operand "x"/, $pdplane, '-t', 'x');
ends(1, qr/names no pid_file/, $pdplane, '-s', 'stop', '-c', $conf);
ends(1, qr/none\.conf/, $pdplane, '-s', 'stop', '-c', "$dir/none.conf");
ends(1, qr/none\.conf/, $pdplane, '-M', '-c', "$dir/none.conf");
ends(1, qr/none\.conf/, $pdplane, '-O', 'x', '-c', "$dir/none.conf");
{
    local $ENV{PD_FAULT} = 'alloc:x';
    ends(2, qr/PD_FAULT is malformed/, $pdplane, '-t', '-c', $conf);
    local $ENV{PD_FAULT} = 'write:3,alloc:1';
    ends(1, qr/out of memory/, $pdplane, '-t', '-c', $conf);
    local $ENV{PD_FAULT} = 'alloc:*';
    ends(0, qr/correct/, $pdplane, '-t', '-c', $conf);
}
# What a manager would hand over.
for my $bad ([ PDPLANE_READY_FD => 'x' ], [ PDPLANE_READY_FD => '99999999999' ], [ PDPLANE_SOCKETS => 'x' ],
    [ PDPLANE_SOCKETS => 'x=127.0.0.1:1' ], [ PDPLANE_SOCKETS => '99999999999=127.0.0.1:1' ], [ PDPLANE_SOCKETS => '0=127.0.0.1:x' ],
    [ PDPLANE_SOCKETS => '987=127.0.0.1:1' ], [ PDPLANE_SOCKETS => join ',', map { "0=127.0.0.1:$_" } 1 .. 65 ]) {
    local @ENV{ 'PDPLANE_READY_FD', $bad->[0] } = (0, $bad->[1]);
    ends(1, qr/what the manager handed over is not understood/, $pdplane, '-c', $conf);
}
{
    local @ENV{qw(LISTEN_PID LISTEN_FDS)} = ('x', 'y');
    ends(1, qr/LISTEN_PID or LISTEN_FDS is malformed/, $pdplane, '-c', $conf);
    ends(1, qr/what the manager handed over is not understood/, $pdplane, '-D', '-c', $conf);
}
# A node that cannot begin says why, with and without a manager.
spew('held', '');
for my $wrong ([ 'user = "no-such-user-here";', qr/no user "no-such-user-here"/ ],
    [ "log = { file = \"$dir/none/x.log\"; };", qr/none\/x\.log/ ], [ "pid_file = \"$dir/held/x.pid\";", qr/held/ ],
    [ "control = \"$dir/held/x.sock\";", qr/held/ ]) {
    my $path = spew('wrong.conf', slurp($conf) . $wrong->[0]);
    ends(1, $wrong->[1], $pdplane, @$_, '-c', $path) for [], ['-D'];
}

# ---- pdctl, and what listens at its socket
my $socket = "$dir/fake.sock";
sub fake {
    my ($answer, @words) = @_;
    unlink $socket;
    my $listener = IO::Socket::UNIX->new(Local => $socket, Listen => 5) or die "$socket: $!";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        while (my $s = $listener->accept) {
            $answer->($s);
        }
        POSIX::_exit(0);
    }
    close $listener;
    my @got = run_program($pdctl, '-s', $socket, @words ? @words : 'status');
    kill KILL => $pid;
    waitpid $pid, 0;
    return @got;
}
sub says {
    my (@text) = @_;
    return sub { my ($s) = @_; my $asked = <$s>; for my $t (@text) { print {$s} $t; $s->flush; select undef, undef, undef, 0.02 } close $s };
}
for my $case ([ 1, 'no control socket of pdplane', "HTTP/1.1 400 Bad\r\n" ], [ 1, 'no control socket of pdplane', "ok many\n" ],
    [ 1, 'no control socket of pdplane', "ok 99999999999\n" ], [ 1, '^pdctl: not today$', "error not today\n" ],
    [ 1, 'before its answer was complete', "ok 10\nabc" ], [ 1, 'before its answer was complete', '' ]) {
    my ($rc, undef, $err) = fake(says($case->[2]));
    is $rc, $case->[0], 'an odd answer: ' . $case->[2] =~ s/\s+/ /gr;
    like $err, qr/$case->[1]/m, 'is told';
}
my ($rc, $out, $err) = fake(says('o', "k 1", "1\nin", ' pieces', "\n and more than that"));
is "$rc $out", "0 in pieces\n ", 'an answer that comes in pieces';
($rc, $out, $err) = fake(sub { close $_[0] });
is $rc, 1, 'a node that hangs up';
like $err, qr/closed the connection/, 'is told';
($rc, $out, $err) = fake(says("ok 1\nx"), 'explain', 'y' x 1500);
is $rc, 2, 'a command that is too long';
like $err, qr/the command is too long/, 'is told';
ends(1, qr/nobody listens there/, $pdctl, '-s', $socket, 'status');
{
    local $ENV{PDPLANE_CONTROL} = $socket;
    ends(1, qr/at \Q$socket\E: nobody listens/, $pdctl, 'status');
    local $ENV{PDPLANE_CONTROL} = '';
    ends(1, qr/cannot reach a node at .*pdplane\.sock/, $pdctl, 'status');
}
SKIP: {
    skip 'only root can become somebody else', 2 unless $> == 0 && -x '/usr/bin/setpriv';
    my $closed = "$dir/closed.sock";
    my $listener = IO::Socket::UNIX->new(Local => $closed, Listen => 1) or die;
    chmod 0600, $closed;
    chmod 0755, $dir;
    ends(1, qr/permission denied\n.*the node's user/, '/usr/bin/setpriv', '--reuid=65534', '--clear-groups', $pdctl, '-s', $closed, 'status');
}
ends(2, qr/-w takes seconds/, $pdctl, '-w', '100000', 'status');
ends(2, qr/must not be empty or have blanks/, $pdctl, 'explain', '');
# Watching: one answer behind the other, as documents or with lines between, or on a clean terminal.
for my $json (0, 1) {
    my $n = 0;
    ($rc, $out) = fake(sub { my ($s) = @_; while (defined(my $asked = <$s>)) { print {$s} ++$n < 3 ? "ok 2\n$n\n" : "error enough\n"; $s->flush } },
        '-w', '0.1', $json ? '--json' : (), 'status');
    is "$rc $out", $json ? "1 1\n2\n" : "1 1\n\n2\n", 'asks again' . ($json ? ' for documents' : '');
}
SKIP: {
    unlink $socket;
    my $listener = IO::Socket::UNIX->new(Local => $socket, Listen => 5) or die;
    my $t = PDPlane::Terminal->new($pdctl, '-s', $socket, '-w', '0.1', 'status') or skip 'no terminals', 1;
    my $s = $listener->accept;
    for my $n (1 .. 2) {
        my $asked = <$s>;
        print {$s} "ok 2\n$n\n";
        $s->flush;
    }
    like $t->until(qr/2J2/), qr/\e\[H\e\[2J1\r?\n\e\[H\e\[2J2/, 'a terminal is cleared between';
    close $s;
    is $t->status, 1, 'the end of the node is its own';
}

# ---- pdctl module
{
    local $ENV{PDPLANE_DATA} = srcdir() . '/contrib';
    my @new = ($pdctl, 'module', 'new');
    ends(0, qr/usage: pdctl module new/, $pdctl, 'module', '--help');
    ends(2, qr/.?/, @new, '--none');
    ends(2, qr/module knows "new"/, $pdctl, 'module');
    ends(2, qr/module knows "new"/, $pdctl, 'module', 'old');
    ends(2, qr/takes one NAME, not ""/, @new, '-k', 'scorer');
    ends(2, qr/takes one NAME, not "b"/, @new, '-k', 'scorer', 'a', 'b');
    ends(2, qr/did you mean "scorer"\?\n.*no skeleton of the kind "scorr"/, @new, '-k', 'scorr', 'a');
    ends(2, qr/\Apdctl: there is no skeleton of the kind "zzzzzzzzz"/, @new, '-k', 'zzzzzzzzz', 'a');
    ends(2, qr/needs --kind/, @new, 'a');
    ends(2, qr/a name has a to z/, @new, '-k', 'scorer', $_) for 'A', '', '1a', 'a-b', 'a' x 48, '{a';
    ends(2, qr/the path is too long/, @new, '-k', 'scorer', '-d', 'x' x 1200, 'a');
    ends(1, qr/held/, @new, '-k', 'scorer', '-d', "$dir/held", 'a');
    mkdir "$dir/there";
    ends(1, qr/is there already; nothing was written/, @new, '-k', 'scorer', '-d', $dir, 'there');
    ends(0, qr/: an adapter;/, @new, '-k', 'adapter', '-d', $dir, 'made_adapter');
    ends(0, qr/: a transport;/, @new, '-k', 'transport', '-d', $dir, 'made_transport');
    ok -s "$dir/made_transport/made_transport_poster.c", 'a transport has more files';
    # A part of the skeleton is missing, or has marks of its own.
    mkdir $_ for "$dir/data", "$dir/data/skeleton";
    my $from = srcdir() . '/contrib/skeleton';
    spew("data/skeleton/$_", "a\@b \@NAME\@ \@NOTHING\@ \@") for qw(scorer.c Makefile README scorer.conf 01-conform.t 02-options.t);
    local $ENV{PDPLANE_DATA} = "$dir/data";
    ends(0, qr/made_mark/, @new, '-k', 'scorer', '-d', $dir, 'made_mark');
    is slurp("$dir/made_mark/made_mark.c"), 'a@b made_mark @NOTHING@ @', 'other marks stay';
    ends(1, qr/transport\.c/, @new, '-k', 'transport', '-d', $dir, 'made_half');
    spew("data/skeleton/transport.c", ''), spew('data/skeleton/transport.conf', '');
    ends(1, qr/transport\.h/, @new, '-k', 'transport', '-d', $dir, 'made_more');
    local $ENV{PDPLANE_DATA} = "$dir/none";
    ends(1, qr/none\/skeleton is not there/, @new, '-k', 'scorer', '-d', $dir, 'x');
    local $ENV{PDPLANE_DATA} = '';
    ends(1, qr/skeleton is not there/, @new, '-k', 'scorer', '-d', $dir, 'x') unless -d '/usr/local/share/pdplane/skeleton';
}

done_testing;
