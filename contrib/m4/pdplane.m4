# SPDX-License-Identifier: Apache-2.0
# PDPLANE_MODULE([MIN-VERSION]): for modules of pdplane that are built with
# automake and libtool outside of its tree.  Sets and substitutes
#   PDPLANE_CFLAGS          -I of the headers
#   PDPLANE_MODULE_LDFLAGS  for a .la in pdplanemodule_LTLIBRARIES
#   pdplanemoduledir        where modules go
#   PDPLANE_CONFORM         pdconform, for tests
#   PDPLANE_ABI             "1.0"
AC_DEFUN([PDPLANE_MODULE],[
  AC_REQUIRE([PKG_PROG_PKG_CONFIG])
  PKG_CHECK_MODULES([PDPLANE],[pdplane m4_ifval([$1],[>= $1])])
  PKG_CHECK_VAR([PDPLANE_MODULEDIR],[pdplane],[moduledir])
  PKG_CHECK_VAR([PDPLANE_CONFORM],[pdplane],[conform])
  PKG_CHECK_VAR([PDPLANE_ABI],[pdplane],[abi])
  AC_SUBST([pdplanemoduledir],[$PDPLANE_MODULEDIR])
  AC_SUBST([PDPLANE_MODULE_LDFLAGS],
    ["-module -avoid-version -shared -Wl,-z,defs -export-symbols-regex '^pd_module\$\$'"])
])
