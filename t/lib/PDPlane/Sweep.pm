# SPDX-License-Identifier: Apache-2.0
# Runs a program once for each of its system calls or allocations, with that one
# failing (PDPlane::Fault), and says whether each run had an honest end.
#
#   my $sweep = PDPlane::Sweep->new or plan skip_all => ...;
#   $sweep->over('pdplane -t', [ $program, '-t' ], right => sub { $_[0] eq $want });
#   my %environment = $sweep->preload;   # for a program that the test starts itself
#
# PD_FAULT_STEP=1 takes each point, otherwise some; PD_FAULT_KIND=alloc only one kind.
package PDPlane::Sweep;

use strict;
use warnings;

use POSIX ();
use Test::More;

use PDPlane::Daemon qw(until_true);
use PDPlane::Fault;
use PDPlane::Test qw(builddir folder run_program slurp spew);

# Why there is nothing to sweep with, or undef.
sub missing {
    return 't/fault/inject.so is not built' unless -e builddir() . '/t/fault/.libs/inject.so';
    my (undef, $version) = run_program(builddir() . '/pdplane', '-V');
    return 'the thread sanitizer wants to be first' if $version =~ /^sanitizers .*thread/m;
    return;
}

sub new {
    my ($class) = @_;
    my $self = bless { fault => PDPlane::Fault->new }, $class;
    my (undef, $version) = run_program(builddir() . '/pdplane', '-V');
    $self->{is_sanitized} = $version =~ /^sanitizers (?!no\b)/m;
    my $slow = $self->{is_sanitized};
    # Calls for files and allocations are many, their places few.
    my %step = (errors => $slow ? 3 : 1, files => $slow ? 61 : 23, alloc => $slow ? 61 : 11);
    %step = map { $_ => $ENV{PD_FAULT_STEP} } keys %step if defined $ENV{PD_FAULT_STEP};
    $self->{step} = \%step;
    $self->{kinds} = [ grep { !defined $ENV{PD_FAULT_KIND} || $_ eq $ENV{PD_FAULT_KIND} } qw(errors files alloc) ];
    # What the dynamic linker keeps of libraries that stay is its own.
    my $forgiven = spew('forgiven', "leak:dl_open_worker\nleak:ld-linux\n");
    $self->{preload} = { LD_PRELOAD => $ENV{PD_FAULT_LIBRARY},
        ASAN_OPTIONS => join(':', $ENV{ASAN_OPTIONS} // (), 'verify_asan_link_order=0'),
        LSAN_OPTIONS => join(':', $ENV{LSAN_OPTIONS} // (), "suppressions=$forgiven", 'print_suppressions=0') };
    return $self;
}

sub kinds   { return @{ $_[0]{kinds} } }
sub step    { return $_[0]{step}{ $_[1] } }
sub preload { return %{ $_[0]{preload} } }
sub now     { my ($self, $kind, $n) = @_; return $self->{fault}->now($kind, $n, $n % 12) }

# The calls that failed, of all programs that ran since the last time.
sub fired {
    my ($self) = @_;
    my @fired;
    for my $page (glob "$ENV{PD_FAULT_DIR}/*") {
        my $what = $self->{fault}->disarm(undef, $page =~ m{(\d+)$});
        push @fired, $what if defined $what;
        unlink $page;
    }
    return @fired;
}

# Runs a program with a fault from its start on: exit status, output, error, and the
# calls that failed.  It has 60 seconds.  until: once it has written that, it is told
# to end (TERM).
sub run {
    my ($self, $kind, $n, $until, @command) = @_;
    my ($out, $err) = map { spew($_, '') } 'run.out', 'run.err';
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        my %preload = $self->preload;
        $ENV{$_} = $preload{$_} for keys %preload;
        $ENV{PD_FAULT_NOW} = $self->now($kind, $n);
        open STDIN,  '<', '/dev/null' or POSIX::_exit(126);
        open STDOUT, '>', $out        or POSIX::_exit(126);
        open STDERR, '>', $err        or POSIX::_exit(126);
        alarm 60;
        exec { $command[0] } @command or POSIX::_exit(127);
    }
    if (defined $until) {
        my $ended = 0;
        until_true(60, sub { ($ended = waitpid $pid, POSIX::WNOHANG()) || (slurp($out) . slurp($err)) =~ $until });
        kill TERM => $pid if !$ended;
        waitpid $pid, 0 if !$ended;
    } else {
        waitpid $pid, 0;
    }
    my $status = $? & 127 ? 'signal ' . ($? & 127) : $? >> 8;
    return ($status, slurp($out), slurp($err), $self->fired);
}

# over(NAME, COMMAND, options): before => called before each run; right => whether
# standard output is that of a run without a fault; told => whether it says what failed; after => called after each, what
# it says is wrong; until => told to end when it has written that; by => of the points that are taken, each so many; kinds => only those.
sub over {
    my ($self, $name, $command, %o) = @_;
    for my $kind (grep { my $k = $_; !$o{kinds} || grep { $_ eq $k } @{ $o{kinds} } } $self->kinds) {
        my ($points, @bad, %ends) = 0;
        my $by = $self->step($kind) * (defined $ENV{PD_FAULT_STEP} ? 1 : $o{by} // 1);
        for (my $n = 1; ; $n += $by) {
            $o{before}->() if $o{before};
            my ($status, $out, $err, @fired) = $self->run($kind, $n, $o{until}, @$command);
            push @bad, "$kind $n: $_" for grep { ($_ // '') ne '' } $o{after} ? $o{after}->($status) : ();
            if (!@fired) {
                push @bad, "without a fault: status $status: $err" if $status ne '0' || !$o{right}->($out);
                last;
            }
            $points++;
            $ends{$status}++;
            my $at = "$kind $n (@fired)";
            push @bad, "$at: ends with $status" unless $status =~ /^[012]$/;
            push @bad, "$at: status $status without a word" if $status ne '0' && $err !~ /\S/ && !($o{told} && $o{told}->($out));
            push @bad, "$at: done, but it is not: $out" if $status eq '0' && !$o{right}->($out);
            push @bad, "$at: $1" if $err =~ /(.*(?:Sanitizer|runtime error|Assertion).*)/;
        }
        note "$name, $kind: $points points; " . join ' ', map { "$_: $ends{$_}" } sort keys %ends;
        cmp_ok $points, '>', 0, "$name, $kind: $points points" unless $kind eq 'files' && $points == 0;
        is join("\n", @bad), '', "$name, $kind: an honest end each time";
    }
    return;
}

1;
