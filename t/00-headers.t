# SPDX-License-Identifier: Apache-2.0
# Each public header compiles alone, as C11 and as C++17, without a warning.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

my $root = srcdir();
my $cc = $ENV{CC} // 'cc';
my $cxx = $ENV{CXX} // 'c++';
my @flags = qw(-Wall -Wextra -Wundef -Werror -fsyntax-only);

sub compiles {
    my ($include, $header, @compiler) = @_;
    my $ending = "@compiler" =~ /c\+\+/ ? 'cc' : 'c';
    my $file = spew "header.$ending", "#include <$header>\nint header_is_alone;\n";
    return run_program('sh', '-c', "exec @compiler @flags -I'$include' '$file'");
}

sub works {
    my (@compiler) = @_;
    my $file = spew 'empty.' . ("@compiler" =~ /c\+\+/ ? 'cc' : 'c'), "int empty;\n";
    return (run_program('sh', '-c', "exec @compiler -fsyntax-only '$file'"))[0] eq 0;
}

plan skip_all => "no C compiler \"$cc\"" unless works("$cc -std=c11");
my @compilers = (["$cc -std=c11"]);
push @compilers, ["$cxx -std=c++17"] if works("$cxx -std=c++17");

my $bad = folder() . '/bad';
spew "$bad/pdplane/bad.h", "static inline int bad(struct later *p) { return p->x; }\n";
spew "$bad/pdplane/cxx.h", "static inline int *cxx(void *class) { return class; }\n";
for my $compiler (@compilers) {
    isnt((compiles($bad, 'pdplane/bad.h', @$compiler))[0], 0, "@$compiler: a bad header is found");
}
isnt((compiles($bad, 'pdplane/cxx.h', @{ $compilers[1] }))[0], 0, 'what C++ does not take is found')
    if @compilers > 1;

for my $header (sources($root, 'h', 'core/include/pdplane')) {
    (my $name = $header) =~ s{^core/include/}{};
    for my $compiler (@compilers) {
        my ($rc, $out, $err) = compiles("$root/core/include", $name, @$compiler);
        is $rc, 0, "<$name> with @$compiler" or diag $err;
    }
}

done_testing;
