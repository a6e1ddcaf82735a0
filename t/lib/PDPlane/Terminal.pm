# SPDX-License-Identifier: Apache-2.0
# Runs a program whose standard output and error are a terminal.
#
#   my $t = PDPlane::Terminal->new($program, @arguments);
#   $t->until(qr/done/);        # what it has written so far, once that is in it
#   $t->status;                 # waits for its end
package PDPlane::Terminal;

use strict;
use warnings;

use Fcntl qw(O_RDWR O_NOCTTY);
use POSIX ();

use PDPlane::Daemon qw(until_true);

# Of <asm-generic/ioctls.h>.
use constant { TIOCSPTLCK => 0x40045431, TIOCGPTN => 0x80045430 };

# undef where there are no terminals.
sub new {
    my ($class, @command) = @_;
    my $number = pack 'i', 0;
    sysopen my $master, '/dev/ptmx', O_RDWR | O_NOCTTY or return;
    ioctl $master, TIOCSPTLCK, $number or return;
    ioctl $master, TIOCGPTN, $number or return;
    my $name = '/dev/pts/' . unpack 'i', $number;
    return unless -e $name;
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        close $master;
        POSIX::setsid();
        open STDIN,  '<', '/dev/null' or POSIX::_exit(126);
        open STDOUT, '>', $name       or POSIX::_exit(126);
        open STDERR, '>', $name       or POSIX::_exit(126);
        exec { $command[0] } @command or POSIX::_exit(127);
    }
    $master->blocking(0);
    return bless { master => $master, pid => $pid, text => '' }, $class;
}

sub pid { return $_[0]{pid} }

sub read {
    my ($self) = @_;
    while (sysread $self->{master}, my $piece, 65536) {
        $self->{text} .= $piece;
    }
    return $self->{text};
}

sub until {
    my ($self, $pattern) = @_;
    until_true(60, sub { $self->read =~ $pattern });
    return $self->{text};
}

# The exit status, or 'signal N'.
sub status {
    my ($self) = @_;
    until_true(60, sub { $self->read; waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid} }) or kill KILL => $self->{pid};
    return $? & 127 ? 'signal ' . ($? & 127) : $? >> 8;
}

1;
