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
use Test::More;

use PDPlane::Daemon qw(until_true);
use PDPlane::Sweep;
use PDPlane::Test qw(builddir srcdir folder module_dirs run_program slurp spew);

my $missing = PDPlane::Sweep->missing;
plan skip_all => $missing if defined $missing;
my $sweep = PDPlane::Sweep->new;
my $build = builddir();

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
    $sweep->over("pdplane @$arguments", \@command, %right);
}

my $made = folder() . '/new';
$sweep->over('pdctl module new', ["$build/pdctl", 'module', 'new', 'mine', '--kind', 'scorer', '--dir', $made],
    before => sub { system('rm', '-rf', $made); mkdir $made }, right => sub { -s "$made/mine/Makefile" });

my $small = folder() . '/sched.conf';
spew('sched.conf', <<"CONF");
module_path = [ "$modules" ];
load = [ "router" ];
listen = ( { address = "127.0.0.1:0"; api = "openai"; } );
CONF
$sweep->over('pdbench sched', ["$build/pdbench", 'sched', '-c', $small, '-e', 5, '-n', 20, '--json'], json_with('p50_ns'), by => 5);

# ---- a manager and its worker, each with its n-th
for my $kind (grep { $_ ne 'alloc' } $sweep->kinds) {
    my ($points, @bad, %ends) = 0;
    for (my $n = 1; ; $n += $kind eq 'files' ? 2 * $sweep->step('files') : $sweep->step('errors')) {
        my $node = PDPlane::Daemon->new("managed-$kind-$n", <<"CONF");
load = [ "router" ];
pid_file = "@{[ folder() ]}/managed.pid";
control = "@{[ folder() ]}/managed.sock";
listen = ( { address = "127.0.0.1:%%PORT_m_api%%"; api = "openai"; }, { address = "127.0.0.1:%%PORT_m_admin%%"; api = "admin"; } );
CONF
        {
            my %preload = $sweep->preload;
            local @ENV{ keys %preload } = values %preload;
            local $ENV{PD_FAULT_NOW} = $sweep->now($kind, $n);
            $node->start(wait => 0, manager => 1);
        }
        my $runs = until_true(60, sub { !$node->is_running || $node->log_text =~ /worker \d+ serves/ }) && $node->is_running;
        $node->signal('TERM') if $node->is_running;
        my $status = $node->wait_end(60);
        my @fired = $sweep->fired;
        my $at = "$kind $n (@fired)";
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
        last unless @fired;
        $points++;
        $ends{ $runs ? 'serves' : 'refuses' }++;
    }
    note "manager, $kind: $points points; " . join ' ', map { "$_ $ends{$_}" } sort keys %ends;
    cmp_ok $points, '>', 0, "manager, $kind: $points points";
    is join("\n", @bad), '', "manager, $kind: serves, or ends and says why";
}

done_testing;
