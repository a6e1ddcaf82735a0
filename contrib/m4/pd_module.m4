# SPDX-License-Identifier: Apache-2.0
# PD_MODULE(NAME, HELP, [CHECK], [WHY]): declares the switch --with-NAME.
# CHECK sets pd_have to yes or no; without CHECK the module has no needs of
# its own.  WHY says in a few words what was missing.
AC_DEFUN([PD_MODULE],[
  AC_ARG_WITH([$1],[AS_HELP_STRING([--with-$1],[$2 @<:@auto@:>@])],[],[with_$1=auto])
  pd_have=no
  AS_IF([test "x$with_$1" != xno],[m4_ifval([$3],[$3],[pd_have=yes])])
  AS_IF([test "x$with_$1" = xyes && test $pd_have = no],
        [AC_MSG_ERROR([--with-$1 was given but its needs were not met: m4_default([$4],[see config.log])])])
  AM_CONDITIONAL([MOD_]m4_toupper([$1]),[test $pd_have = yes])
  AS_IF([test $pd_have = yes],
        [pd_modules="$pd_modules $1"],
        [AS_IF([test "x$with_$1" = xno],
               [pd_modules_off="$pd_modules_off
    $1: switched off with --without-$1"],
               [pd_modules_off="$pd_modules_off
    $1: m4_default([$4],[see config.log])"])])
])
