# SPDX-License-Identifier: Apache-2.0
# t/guard: what ends a test that hangs, and what becomes of processes that one leaves.
use strict;
use warnings;

use Config;
use Test::More;

use PDPlane::Daemon qw(until_true);
use PDPlane::Test qw(folder run_program slurp srcdir);

my $guard = srcdir() . '/t/guard';
my $dir = folder();
sub guarded { my ($limit, $code) = @_; local $ENV{PD_TEST_LIMIT} = $limit; return run_program($^X, $guard, 'sh', '-c', $code) }
sub is_gone { my ($name) = @_; my $pid = slurp("$dir/$name"); return until_true(10, sub { !kill 0, $pid }) }

my ($rc, $out) = guarded(60, 'echo ok 1; exit 3');
is $rc, 3, 'a test that ends: its status';
is $out, "ok 1\n", 'and its output, with nothing of another';
($rc, $out) = guarded(60, 'kill -SEGV $$');
is $rc, 128 + 11, 'a signal';
like $out, qr/^# ended by signal 11$/m, 'is told';

($rc, $out) = guarded(1, "sleep 300 & echo \$! >$dir/hangs; wait");
is $rc, 99, 'a test that hangs is an error';
like $out, qr/^Bail out! no end within 1 s$/m, 'which says so';
like $out, qr/^# process \d+: sleep 300/m, 'and what of it hangs';
ok is_gone('hangs'), 'that is ended';

# Nobody is its parent any more.
SKIP: {
skip "t/guard does not know the system calls of $Config{archname}", 4
    unless $Config{archname} =~ /^(?:x86_64|aarch64|riscv64|powerpc64le|s390x)-/;
($rc, $out) = guarded(60, "(sleep 300 & echo \$! >$dir/left) >/dev/null 2>&1; exit 0");
is $rc, 99, 'a test that leaves a process behind is an error';
like $out, qr/^Bail out! the test ended and left 1 process$/m, 'which says so';
like $out, qr/^# process \d+: sleep 300/m, 'and which';
ok is_gone('left'), 'that is ended';
}

done_testing;
