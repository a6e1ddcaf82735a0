# SPDX-License-Identifier: Apache-2.0
# PD_MODULE in a small configure script of its own: what is built, what is not
# and why, and that a module asked for is an error when its needs are not met.
use strict;
use warnings;

use Test::More;

use PDPlane::Test qw(folder spew slurp srcdir run_program);

plan skip_all => 'autoconf is not installed' unless `autoconf --version 2>/dev/null` =~ /^autoconf/;

my $macros = srcdir() . '/contrib/m4/pd_module.m4';
spew('configure.ac', <<"END");
AC_INIT([t], [1])
m4_define([AM_CONDITIONAL], [AS_IF([\$2], [echo "\$1 yes"], [echo "\$1 no"])])
m4_include([$macros])
pd_modules=
pd_modules_off=
PD_MODULE([plain], [needs nothing])
PD_MODULE([met], [has what it needs], [AC_CHECK_FUNC([malloc], [pd_have=yes])], [no malloc])
PD_MODULE([unmet], [lacks something], [AC_CHECK_FUNC([pd_no_such_function], [pd_have=yes])], [no such function])
PD_MODULE([silent], [does not say why], [pd_have=no])
echo "built:\$pd_modules"
echo "not built:\$pd_modules_off"
AC_OUTPUT
END
my $dir = folder();
my ($rc, undef, $err) = run_program('sh', '-c', "cd '$dir' && autoconf -f");
is $rc, 0, 'autoconf takes the macro' or diag $err;

sub configure { my ($status, $out, $errors) = run_program('sh', '-c', "cd '$dir' && ./configure -q $_[0]");
    return ($status, "$out$errors") }

($rc, my $out) = configure('');
is $rc, 0, 'without switches configure succeeds' or diag $out;
like $out, qr/^built: plain met$/m, 'and builds what can be built';
like $out, qr/^MOD_MET yes$/m, 'as automake is told';
like $out, qr/^MOD_UNMET no$/m, 'also what is not';
like $out, qr/^    unmet: no such function$/m, 'and says why not';
like $out, qr/^    silent: see config\.log$/m, 'or where to look';

($rc, $out) = configure('--with-unmet');
isnt $rc, 0, '--with-NAME that cannot be met is an error';
like $out, qr/--with-unmet was given but its needs were not met: no such function/, 'that says what was missing';
($rc, $out) = configure('--with-unmet=yes');
isnt $rc, 0, 'with =yes as well';
unlike $out, qr/^built:/m, 'and configure ends there';

($rc, $out) = configure('--with-met=yes --without-plain');
is $rc, 0, '--with-NAME that can be met is none' or diag $out;
like $out, qr/^built: met$/m, 'a module can be switched off';
like $out, qr/^    plain: switched off with --without-plain$/m, 'and the summary tells';
(undef, $out) = configure('--help');
like $out, qr/--with-unmet\s+lacks something \[auto\]/, '--help lists the switch';
done_testing;
