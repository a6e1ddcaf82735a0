# SPDX-License-Identifier: Apache-2.0
# Makes the n-th system call or allocation of a running node fail
# (t/fault/inject.c).
#
#   my $f = PDPlane::Fault->new;        # for every node that is started after
#   $f->arm($node, errors => 7, 2);     # its 7th call fails, with the error no. 2
#   my $fired = $f->disarm($node);      # name of the call, or undef; also of an
#                                       # ended node: disarm(undef, PID)
#
# Kinds: errors, short (one read or write moves one byte), short_all (all of
# them), alloc (of the program and its modules), files (calls for files,
# processes and addresses, which errors has not).
package PDPlane::Fault;

use strict;
use warnings;

use PDPlane::Test qw(builddir folder);

my %mode = (off => 0, errors => 1, short => 2, short_all => 3, alloc => 4, files => 5);
my $size = 4 + 4 + 8 + 8 + 4 + 60;

sub new {
    my ($class) = @_;
    my $library = builddir() . '/t/fault/.libs/inject.so';
    return unless -e $library;
    my $dir = folder() . '/fault';
    mkdir $dir or die "$dir: $!";
    $ENV{PD_FAULT_LIBRARY} = $library;
    $ENV{PD_FAULT_DIR} = $dir;
    return bless { dir => $dir }, $class;
}

sub put {
    my ($self, $node, @values) = @_;
    my $path = "$self->{dir}/" . $node->pid;
    open my $f, '+<:raw', $path or die "$path: $!";
    # The mode last: from then on calls count.
    sysseek $f, 4, 0;
    syswrite $f, pack('VQ<Q<V x60', @values[1, 2], 0, 0);
    sysseek $f, 0, 0;
    syswrite $f, pack('V', $values[0]);
    close $f;
    return;
}

sub arm {
    my ($self, $node, $kind, $n, $variety) = @_;
    $self->put($node, $mode{$kind}, $variety // 0, $n);
    return;
}

# now(KIND, N, VARIETY): value of PD_FAULT_NOW, for a node that is started next.
sub now {
    my ($self, $kind, $n, $variety) = @_;
    return join ':', $mode{$kind}, $n, $variety // 0;
}

# Ends it; the call that was made to fail, and how many could have.
sub disarm {
    my ($self, $node, $pid) = @_;
    my $path = "$self->{dir}/" . ($pid // $node->pid);
    open my $f, '+<:raw', $path or die "$path: $!";
    syswrite $f, pack('V', 0);
    sysseek $f, 0, 0;
    my $bytes = '';
    sysread $f, $bytes, $size;
    close $f;
    my (undef, undef, undef, $count, $fired, $what) = unpack 'V V Q< Q< V Z60', $bytes;
    return wantarray ? ($fired ? $what : undef, $count) : $fired ? $what : undef;
}

1;
