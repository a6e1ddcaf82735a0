dnl SPDX-License-Identifier: Apache-2.0
dnl The version is compiled in: libllama passes structs by value and changes them within one
dnl name of its shared object, so the module takes no other one.  A library that is not where
dnl the system looks is found by a run path.
PD_MODULE([llama], [engine in this process, llama.cpp],
  [PKG_CHECK_MODULES([LLAMA], [llama >= 0.5.0],
     [pd_have=yes
      PKG_CHECK_VAR([LLAMA_LIBDIR], [llama], [libdir])
      LLAMA_VERSION=`$PKG_CONFIG --modversion llama`
      pd_versions="$pd_versions
    libllama      $LLAMA_VERSION"
      LLAMA_CFLAGS=`AS_ECHO(["$LLAMA_CFLAGS"]) | sed 's/-I/-isystem /g'`
      AS_CASE([$LLAMA_LIBDIR], [/usr/lib*|/lib*|''], [],
              [LLAMA_LIBS="$LLAMA_LIBS -Wl,-rpath,$LLAMA_LIBDIR"])],
     [pd_have=no])],
  [llama.pc of llama.cpp 0.5.0 or newer was not found (Debian 14: libllama-dev)])
AC_SUBST([LLAMA_VERSION])
