# SPDX-License-Identifier: Apache-2.0
# Each source file names its licence in its first line.
use strict;
use warnings;

use Test::More;

use PDPlane::House;
use PDPlane::Test;

my $bad = folder() . '/bad';
spew "$bad/core/base/a.c", "/* nothing */\n";
spew "$bad/core/base/b.c", "/* SPDX-License-Identifier: Apache-2.0 */\n";
spew "$bad/core/base/c.c", "/* SPDX-License-Identifier: GPL-2.0-only */\n";
spew "$bad/t/d.t", "#!/usr/bin/perl\n# SPDX-License-Identifier: Apache-2.0\n";
spew "$bad/Makefile.am", "";
is_deeply [map { s/:.*//r } spdx($bad)], [qw(core/base/a.c core/base/c.c Makefile.am)], 'missing lines are found';

is join("\n", spdx(srcdir())), '', 'no file is without';

done_testing;
