# SPDX-License-Identifier: Apache-2.0
# What pdbench, pdctl and a node do while the n-th system call or allocation fails,
# for n = 1, 2, ... until they need fewer: they end by themselves, do what they would
# have done or say why not, and leave nothing behind.
#
# PD_FAULT_STEP=1 takes each n; PD_FAULT_KIND=alloc only one kind.
use strict;
use warnings;

use JSON::PP;
use Test::More;

use PDPlane::Daemon qw(port until_true);
use PDPlane::Sweep;
use PDPlane::Test qw(builddir srcdir folder module_dirs run_program slurp spew);

my $missing = PDPlane::Sweep->missing;
plan skip_all => $missing if defined $missing;
my $sweep = PDPlane::Sweep->new;
my $build = builddir();
my $modules = PDPlane::Daemon::modules_folder();

sub json_where {
    my ($is_good) = @_;
    return (right => sub { my $v = eval { decode_json($_[0]) }; ref $v eq 'HASH' && $is_good->($v) });
}

# ---- pdbench
my $engine_pid = open my $engine, '-|', "$build/pdbench", 'engine' or die "engine: $!";
my ($port) = (<$engine> // '') =~ /^PORT (\d+)$/ or die 'no port';
$sweep->over('pdbench engine', [ "$build/pdbench", 'engine', '--ports', 2 ], until => qr/^PORT \d+$/m,
    right => sub { $_[0] =~ /^PORT \d+$/ });
for my $trace (0, 1) {
    my @what = $trace ? ('-s', '-A', spew('trace', join '', map { encode_json($_) . "\n" }
            { timestamp => 5000, input_length => 600, output_length => 3, hash_ids => [7, 8] },
            { timestamp => 5001, input_length => 700, output_length => 4, hash_ids => [7, 9] })) : ('-n', 2, '-c', 2, '-x', 2);
    $sweep->over('pdbench load' . ($trace ? ' of a trace' : ''),
        [ "$build/pdbench", 'load', '-u', "http://127.0.0.1:$port", '-q', '--json', '-T', '5s', '-S', 2, @what ],
        json_where(sub { $_[0]{ok} == 2 && $_[0]{failed} == 0 }), by => 3,
        told => sub { my $v = eval { decode_json($_[0]) }; $v && $v->{failed} > 0 });
}
my ($rc, $run) = run_program("$build/pdbench", 'load', '-u', "http://127.0.0.1:$port", '-s', '-n', 4, '-q', '--json');
my $saved = spew('run.json', $run);
$sweep->over('pdbench report', [ "$build/pdbench", 'report', $saved, $saved ], right => sub { $_[0] =~ m{</html>\n\z} });
my $page = folder() . '/page.html';
$sweep->over('pdbench report -o', [ "$build/pdbench", 'report', '-o', $page, $saved ],
    before => sub { unlink $page }, right => sub { slurp($page) =~ m{</html>\n\z} });
kill TERM => $engine_pid;
close $engine;

$sweep->over('pdbench codec', [ "$build/pdbench", 'codec', '-P', $modules, '-b', '64k', '-f', '32k', '-n', 1, '-d', 'bf16', '--json', 'planes' ],
    json_where(sub { @{ $_[0]{rows} } == 2 })) if -e "$modules/planes.so";
for my $module (grep { -e "$modules/$_.so" } qw(shm tcp)) {
    $sweep->over("pdbench transport $module",
        [ "$build/pdbench", 'transport', '-P', $modules, '-b', '128k', '-s', '64k', '-n', 1, '--json', $module ],
        json_where(sub { @{ $_[0]{rows} } == 2 }), kinds => [ 'files', 'alloc' ]);
}

# ---- who talks to a node
my $node = PDPlane::Daemon->new('told', <<"CONF");
load = [ "router" ];
pid_file = "@{[ folder() ]}/told.pid";
control = "@{[ folder() ]}/told.sock";
listen = ( { address = "127.0.0.1:%%PORT_told%%"; api = "openai"; }, { address = "127.0.0.1:%%PORT_admin%%"; api = "admin"; } );
CONF
$node->start(wait => 0);
until_true(60, sub { $node->log_text =~ /is running/ }) or BAIL_OUT('the node does not run');
for my $words ([ '--json', 'status' ], [ 'help' ], [ 'help', 'status' ]) {
    my @command = ("$build/pdctl", '-s', folder() . '/told.sock', @$words);
    my ($status, $out) = run_program(@command);
    is $status, 0, "pdctl @$words";
    $sweep->over("pdctl @$words", \@command,
        $words->[0] eq '--json' ? json_where(sub { $_[0]{node}{name} ne '' })
            : (kinds => [ 'files', 'alloc' ], right => sub { $_[0] eq $out }));
}
$sweep->over('pdplane -s', [ "$build/pdplane", '-s', 'reload', '-c', folder() . '/told.conf' ], right => sub { $_[0] eq '' });
$node->stop;

done_testing;
