# SPDX-License-Identifier: Apache-2.0
# Switches, dependencies and the closing summary of pdplane's configure.

# PD_CC_FLAG(VARIABLE, FLAG): adds FLAG to VARIABLE when the compiler takes it.
AC_DEFUN([PD_CC_FLAG],[
  AC_MSG_CHECKING([whether $CC accepts $2])
  pd_save_CFLAGS=$CFLAGS
  CFLAGS="$CFLAGS -Werror $2"
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM()],
    [AC_MSG_RESULT([yes]); $1="$$1 $2"], [AC_MSG_RESULT([no])])
  CFLAGS=$pd_save_CFLAGS
])

AC_DEFUN([PD_OPTIONS],[
  AC_ARG_ENABLE([debug], [AS_HELP_STRING([--enable-debug], [no optimisation, full debug information])], [], [enable_debug=no])
  AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [warnings are errors])], [], [enable_werror=no])
  AC_ARG_ENABLE([sanitizers], [AS_HELP_STRING([--enable-sanitizers@<:@=LIST@:>@], [address,undefined (default) or thread])], [], [enable_sanitizers=no])
  AC_ARG_ENABLE([fuzz], [AS_HELP_STRING([--enable-fuzz@<:@=fast@:>@], [build the fuzz targets with libFuzzer; fast: do not trace comparisons; needs clang])], [], [enable_fuzz=no])
  AC_ARG_ENABLE([coverage], [AS_HELP_STRING([--enable-coverage], [count what tests run, for make coverage; needs gcc and gcovr])], [], [enable_coverage=no])
  AC_ARG_ENABLE([trace], [AS_HELP_STRING([--enable-trace], [compile trace-level log lines in])], [], [enable_trace=no])
  AS_IF([test "x$enable_trace" = xyes], [pd_trace=-DPD_ENABLE_TRACE], [pd_trace=])

  PD_WARN_CFLAGS=
  m4_foreach_w([pd_flag], [-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wundef -Wpointer-arith],
    [PD_CC_FLAG([PD_WARN_CFLAGS], pd_flag)
])
  AS_IF([test "x$enable_werror" = xyes], [PD_WARN_CFLAGS="$PD_WARN_CFLAGS -Werror"])
  PD_CODE_CFLAGS="-std=gnu11 -fvisibility=hidden -fno-strict-aliasing $pd_trace"
  AS_IF([test "x$enable_debug" = xyes], [PD_CODE_CFLAGS="$PD_CODE_CFLAGS -O0 -g3"])

  PD_SAN_FLAGS=
  AS_CASE([$enable_sanitizers],
    [no], [],
    [yes], [PD_SAN_FLAGS="-fsanitize=address,undefined"],
    [PD_SAN_FLAGS="-fsanitize=$enable_sanitizers"])
  AS_CASE([$enable_fuzz],
    [yes], [PD_SAN_FLAGS="-fsanitize=fuzzer-no-link,address,undefined"],
    [fast], [PD_SAN_FLAGS="-fsanitize=address,undefined -fsanitize-coverage=inline-8bit-counters,pc-table"])
  AM_CONDITIONAL([ENABLE_FUZZ], [test "x$enable_fuzz" != xno])
  AS_IF([test -n "$PD_SAN_FLAGS"],
    [PD_SAN_FLAGS="$PD_SAN_FLAGS -fno-omit-frame-pointer -fno-sanitize-recover=all"])
  # The sanitizer runtime lives in the executable, so modules keep its symbols open.
  AS_IF([test -n "$PD_SAN_FLAGS"], [PD_ZDEFS=], [PD_ZDEFS="-no-undefined -Wl,-z,defs"])
  AS_IF([test "x$enable_coverage" = xyes], [PD_SAN_FLAGS="$PD_SAN_FLAGS --coverage -fprofile-update=atomic"])
  AM_CONDITIONAL([ENABLE_COVERAGE], [test "x$enable_coverage" = xyes])
  AC_SUBST([PD_WARN_CFLAGS])
  AC_SUBST([PD_CODE_CFLAGS])
  AC_SUBST([PD_SAN_FLAGS])
  AC_SUBST([PD_ZDEFS])
])

AC_DEFUN([PD_DEPENDENCIES],[
  PKG_CHECK_MODULES([UV], [libuv >= 1.44], [],
    [AC_MSG_ERROR([libuv 1.44 or newer is needed (Debian: libuv1-dev)])])
  PKG_CHECK_MODULES([CONFIG], [libconfig >= 1.5], [],
    [AC_MSG_ERROR([libconfig 1.5 or newer is needed (Debian: libconfig-dev)])])
  PKG_CHECK_MODULES([CRYPTO], [openssl >= 3.0], [],
    [AC_MSG_ERROR([OpenSSL 3.0 or newer is needed (Debian: libssl-dev)])])
  PKG_CHECK_MODULES([XXHASH], [libxxhash >= 0.8], [],
    [AC_MSG_ERROR([xxHash 0.8 or newer is needed (Debian: libxxhash-dev)])])
  PKG_CHECK_MODULES([CMOCKA], [cmocka >= 1.1.5], [have_cmocka=yes], [have_cmocka=no])
  AM_CONDITIONAL([HAVE_CMOCKA], [test $have_cmocka = yes])

  # llhttp comes as a library or, on Debian 12, as generated C in node-llhttp.
  AC_ARG_WITH([llhttp-src],
    [AS_HELP_STRING([--with-llhttp-src=DIR], [folder with llhttp's generated api.c, http.c, llhttp.c @<:@/usr/share/llhttp@:>@])],
    [], [with_llhttp_src=auto])
  have_llhttp=no
  AS_IF([test "x$with_llhttp_src" = xauto],
    [PKG_CHECK_MODULES([LLHTTP], [libllhttp], [have_llhttp=library], [with_llhttp_src=/usr/share/llhttp])])
  AS_IF([test $have_llhttp = no],
    [AS_IF([test -r "$with_llhttp_src/llhttp.c"],
      [have_llhttp=source
       LLHTTP_SRC=$with_llhttp_src
       AS_IF([test -r "$with_llhttp_src/llhttp.h"], [LLHTTP_CFLAGS="-I$with_llhttp_src"],
             [LLHTTP_CFLAGS="-I/usr/share/include/llhttp"])
       LLHTTP_LIBS=],
      [AC_MSG_ERROR([llhttp is needed (Debian: libllhttp-dev, or node-llhttp on Debian 12, or --with-llhttp-src=DIR)])])])
  AC_SUBST([LLHTTP_SRC])
  AC_SUBST([LLHTTP_CFLAGS])
  AC_SUBST([LLHTTP_LIBS])
  AM_CONDITIONAL([LLHTTP_FROM_SOURCE], [test $have_llhttp = source])
  AC_DEFINE_UNQUOTED([PD_BUILD_LIBUV], ["`$PKG_CONFIG --modversion libuv`"], [version of libuv])
  AC_DEFINE_UNQUOTED([PD_BUILD_LIBCONFIG], ["`$PKG_CONFIG --modversion libconfig`"], [version of libconfig])
  AC_DEFINE_UNQUOTED([PD_BUILD_OPENSSL], ["`$PKG_CONFIG --modversion openssl`"], [version of OpenSSL])
  AC_DEFINE_UNQUOTED([PD_BUILD_SANITIZERS], ["$enable_sanitizers"], [sanitizers compiled in])
  AC_SEARCH_LIBS([dlopen], [dl], [], [AC_MSG_ERROR([dlopen is needed])])
  AC_SEARCH_LIBS([pthread_create], [pthread], [], [AC_MSG_ERROR([POSIX threads are needed])])
])

AC_DEFUN([PD_SUMMARY],[
  pd_libuv=`$PKG_CONFIG --modversion libuv`
  pd_libconfig=`$PKG_CONFIG --modversion libconfig`
  pd_openssl=`$PKG_CONFIG --modversion openssl`
  AC_MSG_NOTICE([
  pdplane $PACKAGE_VERSION
    prefix        $prefix
    compiler      $CC $CFLAGS $PD_SAN_FLAGS
    libuv         $pd_libuv
    libconfig     $pd_libconfig
    OpenSSL       $pd_openssl
    llhttp        $have_llhttp$pd_versions
    unit tests    $have_cmocka (cmocka)
    modules      $pd_modules
    not built:$pd_modules_off
])
])
