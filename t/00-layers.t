# SPDX-License-Identifier: Apache-2.0
# Arrows go down only; public headers and modules see what they may see.
use strict;
use warnings;

use Test::More;

use PDPlane::House;
use PDPlane::Test;

# First that the checks can fail: a tree in which each rule is broken once.
my $bad = folder() . '/bad';
spew "$bad/doc/dev/layers", "rank 0   base\nrank 3   conf loop\nrank 5   mod\n";
spew "$bad/core/base/a.h", "#include \"mod/m.h\"\n";
spew "$bad/core/conf/c.c", "#include \"loop/l.h\"\n#include \"base/a.h\"\n#include \"near.h\"\n";
spew "$bad/core/mod/m.h", "#include \"base/a.h\"\n#include <uv.h>\n";
spew "$bad/core/odd/o.c", "\n";
spew "$bad/core/include/pdplane/x.h", "#include <stdint.h>\n#include <uv.h>\n#include <pdplane/x.h>\n";
spew "$bad/modules/role/r/r.c", "#include \"r.h\"\n#include \"base/a.h\"\n";
spew "$bad/modules/role/r/r.h", "\n";
is_deeply [layers($bad)], [
    'core/base/a.h:1: base (rank 0) includes "mod/m.h" (rank 5)',
    'core/conf/c.c:1: conf (rank 3) includes "loop/l.h" (rank 3)',
    'core/conf/c.c:3: "near.h" is not written with its folder',
    'core/odd/o.c:1: folder has no rank in doc/dev/layers',
], 'upward and sideways includes are found';
my @circles = circles($bad);
is scalar @circles, 2, 'circles are found' or diag join "\n", @circles;
is_deeply [public_includes($bad)], ['core/include/pdplane/x.h:2: a public header must not include uv.h'],
    'foreign includes of public headers are found';
is_deeply [module_includes($bad)], ['modules/role/r/r.c:2: "base/a.h" is not in the module\'s own folder'],
    'includes of modules are found';

my $root = srcdir();
my %rank = ranks($root);
cmp_ok scalar keys %rank, '>=', 16, 'the table of ranks was read';
is join("\n", layers($root)), '', 'core includes downward only';
is join("\n", circles($root)), '', 'no header includes itself';
is join("\n", public_includes($root)), '', 'public headers include public headers only';
is join("\n", module_includes($root)), '', 'modules include public headers and their own';

done_testing;
