# SPDX-License-Identifier: Apache-2.0
# Links between nodes that a test can cut: a process that takes connections on
# some ports, passes every byte on to others, and does nothing else until told.
#
#   my $r = PDPlane::Relay->start(client => [FROM, TO], ...);   # ports of 127.0.0.1
#   $r->reset('client');    # both ends of its connections get a reset
#   $r->drop('client');     # silence: nothing is read, written or closed any more
#   $r->heal('client');     # what was dropped is reset; new connections work again
#   $r->stop;
package PDPlane::Relay;

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EINPROGRESS);
use IO::Handle;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(AF_UNIX IPPROTO_TCP PF_INET PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER TCP_NODELAY sockaddr_in inet_aton);

use constant { PIECE => 1 << 16, BEHIND => 1 << 18 };

sub start {
    my ($class, %links) = @_;
    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        close $ours;
        eval { serve($theirs, %links); 1 } or print STDERR "# $@";
        POSIX::_exit(0);
    }
    close $theirs;
    my $self = bless { pid => $pid, control => $ours }, $class;
    $self->tell('ready');
    return $self;
}

sub tell {
    my ($self, @words) = @_;
    syswrite $self->{control}, "@words\n";
    my $answer = readline $self->{control};
    die 'the relay is gone' unless defined $answer;
    return;
}

sub reset { my ($self, @names) = @_; return $self->tell('reset', @names) }
sub drop  { my ($self, @names) = @_; return $self->tell('drop',  @names) }
sub heal  { my ($self, @names) = @_; return $self->tell('heal',  @names) }

# The end of its control would come late: processes that were made since the relay may
# hold the same end.
sub stop {
    my ($self) = @_;
    close $self->{control};
    kill KILL => $self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

# ---- the process ------------------------------------------------------------

my %links;

sub serve {
    my ($control, %ports) = @_;
    $SIG{$_} = 'IGNORE' for qw(PIPE INT);
    for my $name (keys %ports) {
        my ($from, $to) = @{ $ports{$name} };
        my $l = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $from, Listen => 64, ReuseAddr => 1)
            or die "relay: port $from: $!";
        $links{$name} = { listener => $l, to => $to, dropped => 0, ends => {} };
    }
    while (1) {
        my ($r, $w) = ('', '');
        vec($r, fileno $control, 1) = 1;
        for my $l (values %links) {
            next if $l->{dropped};
            vec($r, fileno $l->{listener}, 1) = 1;
            for my $e (values %{ $l->{ends} }) {
                my $fd = fileno $e->{socket};
                vec($r, $fd, 1) = 1 if !$e->{eof} && length $e->{other}{out} < BEHIND;
                vec($w, $fd, 1) = 1 if length $e->{out};
            }
        }
        my $n = select $r, $w, undef, undef;
        next if $n < 0;
        for my $l (values %links) {
            next if $l->{dropped};
            accept_one($l) if vec $r, fileno $l->{listener}, 1;
            my @ends = values %{ $l->{ends} };
            for my $e (@ends) {
                next unless defined $e->{socket};
                my $fd = fileno $e->{socket};
                put($e) if vec $w, $fd, 1;
                get($e) if defined $e->{socket} && vec $r, $fd, 1;
            }
        }
        if (vec $r, fileno $control, 1) {
            my $line = readline $control;
            return unless defined $line;
            my ($what, @names) = split ' ', $line;
            command($what, $links{$_} // die "relay: no link $_") for @names;
            syswrite $control, "ok\n";
        }
    }
}

sub command {
    my ($what, $l) = @_;
    $l->{dropped} = $what eq 'drop';
    return if $l->{dropped};
    my @ends = values %{ $l->{ends} };
    for my $e (@ends) { cut($e) if defined $e->{socket} }
    return;
}

sub accept_one {
    my ($l) = @_;
    my $from = $l->{listener}->accept or return;
    socket my $to, PF_INET, SOCK_STREAM, IPPROTO_TCP or die "relay: socket: $!";
    my ($x, $y) = map { { socket => $_, out => '', link => $l } } $from, $to;
    ($x->{other}, $y->{other}) = ($y, $x);
    $_->{socket}->blocking(0) for $x, $y;
    setsockopt $_->{socket}, IPPROTO_TCP, TCP_NODELAY, 1 for $x, $y;
    $l->{ends}{ fileno $_->{socket} } = $_ for $x, $y;
    my $done = connect $to, sockaddr_in($l->{to}, inet_aton('127.0.0.1'));
    cut($x) unless $done || $! == EINPROGRESS;
    return;
}

sub get {
    my ($e) = @_;
    my $n = sysread $e->{socket}, my $bytes, PIECE;
    if (!defined $n) {
        cut($e) unless $! == EAGAIN || $! == EINTR;
    } elsif ($n == 0) {
        $e->{eof} = 1;
        put($e->{other});
    } else {
        $e->{other}{out} .= $bytes;
        put($e->{other});
    }
    return;
}

# Writes what waits for this end; behind the last byte it is told the end.
sub put {
    my ($e) = @_;
    while (length $e->{out}) {
        my $n = syswrite $e->{socket}, $e->{out};
        if (!defined $n) {
            cut($e) unless $! == EAGAIN || $! == EINTR || $!{ENOTCONN};
            return;
        }
        substr $e->{out}, 0, $n, '';
    }
    return unless $e->{other}{eof} && !$e->{told};
    $e->{told} = 1;
    shutdown $e->{socket}, 1;
    finish($e) if $e->{eof};
    return;
}

sub finish {
    my ($e) = @_;
    for my $end ($e, $e->{other}) {
        delete $end->{link}{ends}{ fileno $end->{socket} };
        close delete $end->{socket};
    }
    delete $e->{other}{other};
    return;
}

# Both ends get a reset.
sub cut {
    my ($e) = @_;
    setsockopt $_->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) for $e, $e->{other};
    finish($e);
    return;
}

1;
