# SPDX-License-Identifier: Apache-2.0
# A module exports pd_module and nothing else.
use strict;
use warnings;

use Test::More;

use PDPlane::House;
use PDPlane::Test;

my $cc = $ENV{CC} // 'cc';
my $source = spew 'bad.c', "int pd_module; int helper(void); int helper(void) { return 1; }\n";
my ($rc) = run_program('sh', '-c', "exec $cc -shared -fPIC -o '" . folder() . "/bad.so' '$source'");
plan skip_all => "no C compiler \"$cc\"" if $rc ne 0;
my $names = exported_symbols(folder() . '/bad.so');
plan skip_all => 'nm cannot be run' unless defined $names;
is_deeply [sort @$names], [qw(helper pd_module)], 'a symbol too many is found';

my @modules = map { glob "$_/*.so" } module_dirs(), grep { -d } test_module_dir();
for my $file (@modules) {
    my ($name) = $file =~ m{([^/]+)\.so$};
    next if $name eq 'no_symbol';
    is_deeply exported_symbols($file), ['pd_module'], "$name exports pd_module alone";
}

done_testing;
