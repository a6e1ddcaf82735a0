# SPDX-License-Identifier: Apache-2.0
# Replays the corpus of every fuzz target: what once broke a parser never does
# again.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

my @names = map { m{([^/]+)$} } sort glob srcdir() . '/t/fuzz/corpus/*';
cmp_ok scalar @names, '>=', 14, 'corpora are there';
$ENV{PD_SRCDIR} = srcdir();
for my $name (@names) {
    my $program = builddir() . "/t/fuzz/$name";
    my @files = sort glob srcdir() . "/t/fuzz/corpus/$name/*";
    SKIP: {
        skip "$name is not built", 1 unless -x $program;
        my ($status, $out, $err) = run_program($program, @files);
        is $status, 0, "$name: " . @files . ' inputs' or diag substr($err, -4000);
    }
}

done_testing;
