# SPDX-License-Identifier: Apache-2.0
# What a request, an event and a long prompt cost the router, in counts that do
# not depend on how fast the machine is: user instructions, allocations, starts and
# stops of timers and bytes moved in user space (valgrind's callgrind), system calls
# (strace).  A router
# runs a load; two runs that differ only in the number of operations are
# subtracted, so that start-up, connections and pools fall out.
#
#   make check TESTS=t/85-costs.t; cat t/85-costs.log      the figures
#   PD_KEEP=1 make check TESTS=t/85-costs.t                 keeps callgrind's files
#
# The budgets are for gcc -O2; doc/dev/benchmarks/router.md says where they go.
use strict;
use warnings;

use JSON::PP;
use POSIX ();
use Test::More;

use PDPlane::Daemon qw(port until_true);
use PDPlane::Test qw(builddir folder slurp spew run_program);

my %budget = (
    # operation => { count per operation => most }
    # A stream gives back its heads and the next one makes them anew.  Connections of a
    # load have timers, and those of the node go on meanwhile, more of them the slower
    # the machine is; one for each operation would be two, its start and its stop.
    small => { instructions => 11_650, allocations => 0.05, moved => 600, timers => 1 },
    # The same with 100 endpoints behind the router and 64 clients.
    wide  => { instructions => 12_000, allocations => 0.05, moved => 640, timers => 1 },
    event => { instructions => 850, allocations => 0.08, moved => 100, timers => 0.5 },
    long  => { instructions => 171_000, allocations => 1.4, moved => 900, timers => 1 },
);
# System calls of each operation, with so many connections.
my @calls_budget = (
    # name, most, load, how much of it the first time and the second; operations between them
    [ 'a small request, one connection',   6.1, [qw(-b 1900 -t 8 -c 1 -n)],  1000, 3000, 2000 ],
    [ 'a small request, 64 connections',   4.5, [qw(-b 1900 -t 8 -c 64 -n)], 1000, 3000, 2000 ],
    [ 'an event, one stream',              3.3, [qw(-m paced -s -b 200 -c 1 -n 1 -t)], 200, 1200, 1000 ],
    [ 'a request of 220 KB, one connection', 20, [qw(-b 220000 -t 1 -c 1 -x 8 -n)], 50, 150, 100 ],
);
my ($endpoints, $many) = (16, 100);

sub has { my ($program) = @_; return grep { -x "$_/$program" } split /:/, $ENV{PATH} }
my $pdplane = builddir() . '/pdplane';
my $pdbench = builddir() . '/pdbench';
my (undef, $version) = run_program($pdplane, '-V');
plan skip_all => 'instructions of a build with sanitizers mean nothing' if $version =~ /^sanitizers yes/m;
plan skip_all => 'a build for coverage counts in its code' if glob builddir() . '/core/base/*.gcno';
plan skip_all => 'there is neither valgrind nor strace' unless has('valgrind') || has('strace');

# ---- the engine and the router
# One with plain answers and one whose events come apart, as tokens do.
my @engines;
my ($base, $paced) = (engine('-p', $endpoints), engine('-i', '2ms', '-m', 'paced'));
# Its first port; others may have taken one of the next ones.
sub engine {
    my @options = @_;
    for my $try (1 .. 20) {
        my $port = port("engine @options $try");
        my $err = folder() . "/engine.$port";
        my $pid = open(my $out, '-|', "exec $pdbench engine -l 127.0.0.1:$port @options 2>$err") || die "engine: $!";
        if ((readline($out) // '') =~ /^PORT /) { push @engines, [ $pid, $out ]; return $port }
        close $out;
    }
    die 'the engine did not start';
}
END { local $?; for (@engines) { kill TERM => $_->[0]; close $_->[1] } }
# Of more endpoints than the engine has ports, several have the same one.
sub list {
    return join ', ', map { qq({ name = "e$_"; type = "openai"; url = "http://127.0.0.1:@{[$base + $_ % $endpoints]}"; }) } 0 .. $_[0] - 1;
}
my $conf = <<"CONF";
load = [ "router", "openai" ];
listen = ( { address = "127.0.0.1:%%PORT_api%%"; api = "openai"; }, { address = "127.0.0.1:%%PORT_admin%%"; api = "admin"; } );
endpoints = ( %%LIST%%, { name = "paced"; type = "openai"; url = "http://127.0.0.1:$paced"; models = [ "paced" ]; } );
role = { router = { probe_interval = "10m"; }; };
log = { level = "error"; };
requests = { finished = 16; };
CONF

# Runs a router under a program with loads, one after the other.
sub under {
    my ($name, $wrapper, @loads) = @_;
    my $whole = $conf =~ s{%%LIST%%}{list($name =~ /wide/ ? $many : $endpoints)}re;
    local $ENV{PD_BINARY} = spew("$name.sh", "#!/bin/sh\nexec $wrapper $pdplane \"\$@\"\n", 0755);
    my $node = PDPlane::Daemon->new($name, $whole)->start(wait => 60);
    # It is ready with the first of them; the others are still asked what they serve.
    my $all = ($name =~ /wide/ ? $many : $endpoints) + 1;
    until_true(60, sub { ($node->metrics->{pdplane_router_decode_endpoints_up} // 0) >= $all })
        or die "$name: not all endpoints are up";
    for my $load (@loads) {
        my (undef, $out, $err) = run_program($pdbench, 'load', '-u', 'http://127.0.0.1:' . $node->api_port, '--json', '-q', @$load);
        my $r = eval { decode_json($out) } // {};
        die "a load failed: $err $out" if !$r->{ok} || $r->{failed};
    }
    $node->stop;
    return;
}

my %loads = (
    small => [qw(-b 1900 -t 8 -c 1 -n)],
    event => [qw(-m paced -s -b 200 -c 1 -n 2 -t)],
    long  => [qw(-b 220000 -t 1 -c 1 -x 8 -n)],
);
$loads{wide} = [qw(-b 1900 -t 8 -c 64 -n)];
my $warm_wide = 2000;
my @warm = ([ @{ $loads{small} }, 80 ], [ @{ $loads{event} }, 20 ], [ @{ $loads{long} }, 20 ]);
my %more = (small => 400, wide => 4000, event => 200, long => 40);   # operations of a measured load
my %per = (small => 1, wide => 1, event => 2, long => 1);           # operations for each of them

# ---- callgrind
# Sums of one run: instructions of all and of functions that move bytes, calls of
# the allocator from outside of it.
my $timer = qr/^timer_(?:start|stop)\b/;               # of the loop
my $allocator = qr/^(?:_int_|_mid_)?(?:malloc|calloc|realloc|memalign|posix_memalign|aligned_alloc)\b/;
sub sums {
    my ($file) = @_;
    my (%name, %calls, $fn, $cfn, $is_call);
    my %sum = (instructions => 0, moved => 0, allocations => 0, timers => 0);
    my $named = sub {
        my ($id, $text) = $_[0] =~ /^\((\d+)\)(?: (.*))?/;
        $name{$id} = $text if defined $text;
        return $name{$id};
    };
    for my $line (split /\n/, slurp($file)) {
        if    ($line =~ /^fn=(.*)/)         { $fn = $named->($1) }
        elsif ($line =~ /^cfn=(.*)/)        { $cfn = $named->($1) }
        elsif ($line =~ /^calls=(\d+)/)     {
            my $times = $1;
            $is_call = 1;
            $sum{timers} += $times if $cfn =~ $timer;
            $sum{allocations} += $times if $cfn =~ $allocator && $fn !~ $allocator;
        }
        elsif ($line =~ /^[-+*\d]\S* (\d+)/) {
            my $n = $1;
            if ($is_call) { $is_call = 0; next }
            $sum{instructions} += $n;
            $sum{moved} += $n if $fn =~ /^_*mem(?:cpy|move)/;
        }
    }
    return \%sum;
}
SKIP: {
    skip 'there is no valgrind', 1 unless has('valgrind');
    my $run = sub {
        my ($name, @more) = @_;
        my $file = folder() . "/callgrind.$name";
        under("cg-$name", "valgrind -q --tool=callgrind --callgrind-out-file=$file", @warm, @more);
        return sums($file);
    };
    # Each of the warm loads reaches more endpoints of a wide one before all have a connection.
    my ($none, $wide) = ($run->('none'), $run->('wide-none', [ @{ $loads{wide} }, $warm_wide ]));
    cmp_ok $none->{timers}, '>', 0, 'timers are seen: connections have some';
    for my $what (qw(small wide event long)) {
        my ($n, $most) = ($more{$what}, $budget{$what});
        my ($before, $load) = $what eq 'wide' ? ($wide, [ @{ $loads{$what} }, $warm_wide + $n ]) : ($none, [ @{ $loads{$what} }, $n ]);
        my ($ops, %least) = ($n * $per{$what});
        # What else the node does meanwhile can only add: what is too much is counted again.
        for my $try (1 .. 3) {
            my $sums = $run->($what, $load);
            for my $count (keys %$most) {
                my $each = ($sums->{$count} - $before->{$count}) / $ops;
                $least{$count} = $each if !defined $least{$count} || $each < $least{$count};
            }
            last unless grep { $least{$_} > $most->{$_} } keys %$most;
        }
        for my $count (qw(instructions allocations moved timers)) {
            note sprintf '%s: %.2f %s', $what, $least{$count}, $count;
            cmp_ok $least{$count}, '<=', $most->{$count}, sprintf '%s: at most %s %s', $what, $most->{$count}, $count;
        }
    }
}

# ---- strace
SKIP: {
    my $probe = folder() . '/strace.probe';
    my ($rc) = has('strace') ? run_program('strace', '-f', '-o', $probe, 'true') : 1;
    skip 'strace cannot trace here', 1 if $rc ne 0;
    for my $row (@calls_budget) {
        my ($name, $most, $load, @amounts) = @$row;
        my $ops = pop @amounts;
        my @n;
        for my $amount (@amounts) {
            my $file = folder() . '/strace.' . @n;
            under('strace', "strace -D -f -c -o $file", [ @$load, $amount ]);
            # strace is nobody's child here and writes a moment later.
            until_true(20, sub { -s $file });
            my ($total) = slurp($file) =~ /^\s*100\.00\s+\S+\s+(?:\S+\s+)?(\d+)\s+(?:\d+\s+)?total/m;
            push @n, $total;
            unlink $file;
        }
        my $each = ($n[1] - $n[0]) / $ops;
        note sprintf '%s: %.2f system calls', $name, $each;
        cmp_ok $each, '<=', $most, "$name: at most $most system calls";
    }
}

done_testing;
