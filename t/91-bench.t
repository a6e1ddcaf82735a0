# SPDX-License-Identifier: Apache-2.0
# The scripts that compare: their statistics on data with known answers, and
# each script once on a tiny scale.  What they print is not judged, only that
# they measure what they say.
use strict;
use warnings;
no warnings 'qw';   # options with lists

use Test::More;
use JSON::PP;

use PDPlane::Test qw(builddir srcdir folder run_program);
use lib srcdir() . '/contrib/bench';
use PDBench qw(median interval sign_test machine cpu_ns);

# ---- statistics

is median(3, 1, 2), 2, 'median of three';
is median(4, 1, 3, 2), 2.5, 'median of four';
is_deeply [interval((1.5) x 8)], [1.5, 1.5], 'equal values have no spread';
my @v = map { 1 + $_ / 100 } 0 .. 24;
my ($low, $high) = interval(@v);
# By order statistics the 95 % interval of a median of 25 goes from the 8th to the 18th.
cmp_ok abs($low - $v[7]), '<=', 0.021, "lower end $low";
cmp_ok abs($high - $v[17]), '<=', 0.021, "upper end $high";
is_deeply [interval(@v)], [$low, $high], 'the same each time';
ok $low < median(@v) && median(@v) < $high, 'holds the median';
cmp_ok abs(sign_test((1.1) x 8) - 2 / 256), '<', 1e-9, 'eight of one sign';
cmp_ok abs(sign_test((1.1) x 7, 0.9) - 18 / 256), '<', 1e-9, 'seven of eight';
is sign_test(1.1, 0.9), 1, 'one each';
is sign_test(1, 1), 1, 'no difference at all';
my $before = cpu_ns($$);
my $x = 0;
$x += $_ for 1 .. 300_000;
cmp_ok cpu_ns($$) - $before, '>', 1_000_000, 'time on a processor is counted';
like machine()->{text}, qr/processors, kernel \S+, load average/, 'conditions';

# ---- comparisons

sub rows {
    my ($script, @args) = @_;
    my ($rc, $out, $err) = run_program($^X, srcdir() . "/contrib/bench/$script", '--build', builddir(), '--json', @args);
    is $rc, 0, "$script @args" or diag $err;
    my $r = eval { decode_json($out) } // {};
    ok $r->{kernel} && $r->{model}, 'names the machine';
    return $r;
}
my @small = qw(--pairs 3 --leg 0.15 --only small --ports 2 --no-pin --limit 100000);
my $r = rows('compare', @small, '--peer', 'none');
my ($row) = @{ $r->{rows} // [] };
is $row->{pairs}, 3, 'three legs';
cmp_ok $row->{pdplane_us}, '>', 1, 'a request costs something';
cmp_ok $row->{client_utilisation}, '>', 0, 'what the clients took';
SKIP: {
    skip 'nginx is not installed', 5 unless -x '/usr/sbin/nginx';
    $r = rows('compare', @small, '--peer', 'nginx');
    ($row) = @{ $r->{rows} // [] };
    is $row->{peer}, 'nginx', 'beside nginx';
    like $r->{versions}{nginx}, qr{^nginx/\d}, 'which version';
    ok $row->{low} <= $row->{ratio} && $row->{ratio} <= $row->{high}, 'a ratio in its interval';
}

# ---- a hand-over between processes

SKIP: {
    skip 'roles, engine or transport are not built', 5
        if grep { !-e builddir() . "/modules/$_.so" } qw(role/decode/.libs/decode engine/ref/.libs/ref transport/shm/.libs/shm);
    $r = rows('handover', '--pairs', 1, '--requests', 2, '--tokens', 100, '--copy', '4m');
    ($row) = @{ $r->{rows} // [] };
    cmp_ok $row->{bytes}, '>=', 100 * 2048, 'the KV of the prompt crossed';
    ok abs($row->{split_us} - $row->{single_us} - $row->{tax_us}) < 1e-6, 'one pair is its own median';
    ok $row->{copy_us} > 0 && $row->{goal_us} > 300, 'beside a memcpy';
}

# ---- the engine's speed

SKIP: {
    skip 'the engine is not built', 4 unless -x builddir() . '/contrib/bench/speed_ref';
    my $shape = 'dim=64,layers=1,heads=4,kv_heads=2,ffn=128';
    $r = rows('speed', '--pairs', 1, '--threads', 2, '--only', 'tiny,f16,q8_0', '--shape', $shape);
    is_deeply [map { "$_->{model} $_->{what}" } @{ $r->{rows} }], [map { ("$_ prefill", "$_ decode") } qw(tiny f16 q8_0)], 'all models';
    is scalar(grep { $_->{ref} > 0 } @{ $r->{rows} }), 6, 'and speeds';
}

# ---- starts, reloads, idling

my $life = rows('lifecycle', qw(--only start,reload,idle,load --pairs 1 --endpoints 5 --times 1 --idle 0.2),
    qw(--reloads 3 --every 0.1 --streams 2));
is $life->{reload}{endpoints}, 5, 'reloads';
cmp_ok $life->{reload}{one_more_ms}, '>', 0, 'took a time';
is $life->{idle}{seconds}, 0.2, 'idles';
is $life->{load}{reloads}, 3, 'reloads under load';
is $life->{load}{$_}{failed}, 0, "no failure: $_" for 'streams', 'small';

done_testing;
