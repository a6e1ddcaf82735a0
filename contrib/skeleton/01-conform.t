# SPDX-License-Identifier: Apache-2.0
# pdconform: the module keeps the contract of its kind.
use strict;
use warnings;

my $kit = $ENV{PD_CONFORM} // 'pdconform';
my $module = $ENV{PD_MODULE} // die "set PD_MODULE to the path of @NAME@.so\n";
exec $kit, $module or die "$kit: $!";
