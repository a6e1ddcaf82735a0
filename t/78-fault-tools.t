# SPDX-License-Identifier: Apache-2.0
# What the programs do that run once and end, and a manager at its start, while the
# n-th system call or allocation fails, for n = 1, 2, ... until they need fewer.  They
# end by themselves, do what they would have done or say why not, and never say that a
# thing is done which is not.
#
# PD_FAULT_STEP=1 takes each n; PD_FAULT_KIND=alloc only one kind.
use strict;
use warnings;

use JSON::PP;
use POSIX ();
use Test::More;

use PDPlane::Daemon qw(until_true);
use PDPlane::Fault;
use PDPlane::Test qw(builddir srcdir folder module_dirs run_program slurp spew);

my $fault = PDPlane::Fault->new or plan skip_all => 't/fault/inject.so is not built';
my $build = builddir();
my (undef, $version) = run_program("$build/pdplane", '-V');
plan skip_all => 'the thread sanitizer wants to be first' if $version =~ /^sanitizers .*thread/m;
my $sanitized = $version =~ /^sanitizers (?!no\b)/m;
# Calls for files and allocations are many, their places few.
my %step = (errors => $sanitized ? 3 : 1, files => $sanitized ? 37 : 13, alloc => $sanitized ? 61 : 11);
%step = map { $_ => $ENV{PD_FAULT_STEP} } keys %step if defined $ENV{PD_FAULT_STEP};
my @kinds = grep { !defined $ENV{PD_FAULT_KIND} || $_ eq $ENV{PD_FAULT_KIND} } qw(errors files alloc);
# What counts branches asks for memory at the end, and does not live without.
@kinds = grep { $_ ne 'alloc' } @kinds if glob "$build/core/base/*.gcno";

# What the dynamic linker keeps of libraries that stay is its own.
my $forgiven = spew('forgiven', "leak:dl_open_worker\nleak:ld-linux\n");
my %preload = (LD_PRELOAD => $ENV{PD_FAULT_LIBRARY},
    ASAN_OPTIONS => join(':', $ENV{ASAN_OPTIONS} // (), 'verify_asan_link_order=0'),
    LSAN_OPTIONS => join(':', $ENV{LSAN_OPTIONS} // (), "suppressions=$forgiven", 'print_suppressions=0'));

# Runs a program with a fault from its start on; exit status, output, error, and the
# call that failed.  It has 60 seconds.
sub run_with {
    my ($kind, $n, @command) = @_;
    my ($out, $err) = map { folder() . "/$_" } 'run.out', 'run.err';
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        $ENV{$_} = $preload{$_} for keys %preload;
        $ENV{PD_FAULT_NOW} = $fault->now($kind, $n, $n % 12);
        open STDIN,  '<', '/dev/null' or POSIX::_exit(126);
        open STDOUT, '>', $out        or POSIX::_exit(126);
        open STDERR, '>', $err        or POSIX::_exit(126);
        alarm 60;
        exec { $command[0] } @command or POSIX::_exit(127);
    }
    waitpid $pid, 0;
    my $status = $? & 127 ? 'signal ' . ($? & 127) : $? >> 8;
    my $what = $fault->disarm(undef, $pid);
    unlink "$ENV{PD_FAULT_DIR}/$pid";
    return ($status, slurp($out), slurp($err), $what);
}

# sweep(NAME, COMMAND, options): before => called before each run; right => whether
# standard output is that of a run without a fault; all => its words on standard error.
sub sweep {
    my ($name, $command, %o) = @_;
    for my $kind (@kinds) {
        my ($points, @bad, %ends) = 0;
        for (my $n = 1; ; $n += $step{$kind} * ($o{by} // 1)) {
            $o{before}->() if $o{before};
            my ($status, $out, $err, $what) = run_with($kind, $n, @$command);
            last unless defined $what;
            $points++;
            $ends{$status}++;
            my $at = "$kind $n ($what)";
            push @bad, "$at: ends with $status" unless $status =~ /^[012]$/;
            push @bad, "$at: status $status without a word" if $status ne '0' && $err !~ /\S/;
            push @bad, "$at: done, but it is not: $out" if $status eq '0' && !$o{right}->($out);
            push @bad, "$at: $1" if $err =~ /(.*(?:Sanitizer|runtime error|Assertion).*)/;
        }
        note "$name, $kind: $points points; " . join ' ', map { "$_: $ends{$_}" } sort keys %ends;
        cmp_ok $points, '>', 0, "$name, $kind: $points points" unless $kind eq 'files' && $points == 0;
        is join("\n", @bad), '', "$name, $kind: an honest end each time";
    }
    return;
}

# The same output as without a fault.
sub same_as {
    my @command = @_;
    my ($rc, $out, $err) = run_program(@command);
    is $rc, 0, "@command[1 .. $#command]" or diag $err;
    return (right => sub { $_[0] eq $out });
}
sub json_with {
    my ($key) = @_;
    return (right => sub { my $v = eval { decode_json($_[0]) }; ref $v eq 'HASH' && exists $v->{$key} });
}

my $modules = folder() . '/whole';
mkdir $modules, 0755 or die;
for my $so (map { glob "$_/*.so" } module_dirs()) {
    symlink $so, $modules . '/' . ($so =~ m{([^/]+)$})[0];
}
$ENV{PDPLANE_DATA} = srcdir() . '/contrib';
my $model = srcdir() . '/contrib/tinymodel/tiny.gguf';
my $conf = spew('tools.conf', <<"CONF");
module_path = [ "$modules" ];
load = [ "router", "decode", "ref", "shm", "openai", "prometheus" ];
listen = ( { address = "127.0.0.1:8000"; api = "openai"; }, { address = "127.0.0.1:9090"; api = "admin"; } );
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:1"; } );
engine = ( { name = "tiny"; type = "ref"; model = "$model"; } );
scheduler = { decider = { module = "pd_threshold"; unit = "tokens"; threshold = 16; }; };
CONF

my @plane = ("$build/pdplane");
for my $arguments (['-t'], ['-T'], [qw(-O ref)], ['-M']) {
    my @command = (@plane, @$arguments, '-c', $conf);
    my %right = same_as(@command);
    # A file that cannot be looked at is no module.
    $right{right} = sub { $_[0] =~ /version/ } if $arguments->[0] eq '-M';
    sweep("pdplane @$arguments", \@command, %right);
}

my $made = folder() . '/new';
sweep('pdctl module new', ["$build/pdctl", 'module', 'new', 'mine', '--kind', 'scorer', '--dir', $made],
    before => sub { system('rm', '-rf', $made); mkdir $made }, right => sub { -s "$made/mine/Makefile" });

my $small = folder() . '/sched.conf';
spew('sched.conf', <<"CONF");
module_path = [ "$modules" ];
load = [ "router" ];
listen = ( { address = "127.0.0.1:0"; api = "openai"; } );
CONF
sweep('pdbench sched', ["$build/pdbench", 'sched', '-c', $small, '-e', 5, '-n', 20, '--json'], json_with('p50_ns'), by => 5);

# ---- a manager and its worker, each with its n-th
for my $kind (grep { $_ ne 'alloc' } @kinds) {
    my ($points, @bad, %ends) = 0;
    for (my $n = 1; ; $n += $kind eq 'files' ? 29 : $sanitized ? 3 : 1) {
        my $node = PDPlane::Daemon->new("managed-$kind-$n", <<"CONF");
load = [ "router" ];
pid_file = "@{[ folder() ]}/managed.pid";
control = "@{[ folder() ]}/managed.sock";
listen = ( { address = "127.0.0.1:%%PORT_m_api%%"; api = "openai"; }, { address = "127.0.0.1:%%PORT_m_admin%%"; api = "admin"; } );
CONF
        {
            local @ENV{ keys %preload } = values %preload;
            local $ENV{PD_FAULT_NOW} = $fault->now($kind, $n, $n % 12);
            $node->start(wait => 0, manager => 1);
        }
        my $pid = $node->pid;
        my $runs = until_true(60, sub { !$node->is_running || $node->log_text =~ /worker \d+ serves/ }) && $node->is_running;
        $node->signal('TERM') if $node->is_running;
        my $status = $node->wait_end(60);
        my $at = "$kind $n (" . ($fault->disarm(undef, $pid) // 'the worker') . ')';
        my $fired = grep { defined $fault->disarm(undef, m{(\d+)$}) } glob "$ENV{PD_FAULT_DIR}/*";
        unlink glob "$ENV{PD_FAULT_DIR}/*";
        if (!defined $status) {
            push @bad, "$at: does not end";
            $node->kill9;
        } elsif ($status & 127 || $status >> 8 > 1) {
            push @bad, "$at: ends with $status";
        } elsif ($status != 0 && $node->log_text !~ /error|cannot|memory/) {
            push @bad, "$at: ends without a word";
        }
        $node->forget;
        push @bad, "$at: $_" for grep { /Sanitizer|runtime error|Assertion/ } split /\n/, $node->log_text;
        last unless $fired;
        $points++;
        $ends{ $runs ? 'serves' : 'refuses' }++;
    }
    note "manager, $kind: $points points; " . join ' ', map { "$_ $ends{$_}" } sort keys %ends;
    cmp_ok $points, '>', 0, "manager, $kind: $points points";
    is join("\n", @bad), '', "manager, $kind: serves, or ends and says why";
}

done_testing;
