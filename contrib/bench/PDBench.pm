# SPDX-License-Identifier: Apache-2.0
package PDBench;

# What the scripts of this folder share: the statistics of paired measurements
# and the conditions that belong beside each figure.
use strict;
use warnings;

use Exporter qw(import);
use POSIX ();

our @EXPORT_OK = qw(median interval sign_test machine cpu_ns steal_ticks busy_ticks);

sub median {
    my @v = sort { $a <=> $b } @_;
    return @v % 2 ? $v[$#v / 2] : ($v[@v / 2 - 1] + $v[@v / 2]) / 2;
}

# An interval that holds the median with 95 %, by resampling.  The same values
# give the same interval.
sub interval {
    my @v = @_;
    my $x = 20261129;
    my $n = 10000;
    my @m;
    for (1 .. $n) {
        push @m, median(map { $x = ($x * 1103515245 + 12345) & 0x7fffffff; $v[($x >> 8) % @v] } @v);
    }
    @m = sort { $a <=> $b } @m;
    return @m[int(@m * 0.025), int(@m * 0.975)];
}

# How likely as many ratios on one side of 1 are when there is no difference.
sub sign_test {
    my $above = grep { $_ > 1 } @_;
    my $n = grep { $_ != 1 } @_;
    my $k = $above < $n - $above ? $above : $n - $above;
    return 1 if $n == 0;
    my ($p, $c) = (0, 1);
    for my $i (0 .. $k) {
        $p += $c;
        $c *= ($n - $i) / ($i + 1);
    }
    $p *= 2 / 2**$n;
    return $p > 1 ? 1 : $p;
}

sub slurp {
    my ($path) = @_;
    open my $f, '<', $path or return '';
    local $/;
    return scalar(<$f>) // '';
}

# Processor, kernel and load.
sub machine {
    my ($model) = slurp('/proc/cpuinfo') =~ /^model name\s*:\s*(.*)$/m;
    my $cpus = () = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;
    my $kernel = (POSIX::uname())[2];
    my ($busy) = slurp('/proc/loadavg') =~ /^(\S+)/;
    my ($governor) = slurp('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor') =~ /^(\S+)/;
    $model //= 'unknown processor';
    return { model => $model, cpus => $cpus, kernel => $kernel, load_average => $busy, governor => $governor // 'unknown',
        text => "$model, $cpus processors, kernel $kernel, load average at the start $busy" };
}

# Nanoseconds on processors, of all threads of a process and its children.
sub cpu_ns {
    my ($pid) = @_;
    my $ns = 0;
    for my $task (glob "/proc/$pid/task/*") {
        $ns += $1 if slurp("$task/schedstat") =~ /^(\d+)/;
        $ns += cpu_ns($_) for split ' ', slurp("$task/children");
    }
    return $ns;
}

# Of all processors since the start, in ticks: time that the hypervisor took
# away, and all time.
sub ticks {
    return split ' ', slurp('/proc/stat') =~ /^cpu\s+(.*)$/m ? $1 : '';
}
sub steal_ticks {
    return (ticks())[7] // 0;
}
sub busy_ticks {
    my $n = 0;
    $n += $_ for (ticks())[0 .. 7];
    return $n;
}

1;
