# SPDX-License-Identifier: Apache-2.0
# The option of @NAME@: known by its name, and by no other.
use strict;
use warnings;

use Test::More tests => 3;

my $pdplane = $ENV{PD_PLANE} // 'pdplane';
my $module = $ENV{PD_MODULE} // die "set PD_MODULE to the path of @NAME@.so\n";
my $text = `$pdplane -O '$module'`;
is $?, 0, 'pdplane takes the module';
like $text, qr/^@KIND@ "@NAME@": \S.*\.$/m, 'and knows the @KIND@';
like $text, qr/^@OPTION@  \(/m, 'with its option';
