dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([planes], [lossless codec for KV],
  [PKG_CHECK_MODULES([ZSTD], [libzstd >= 1.4], [pd_have=yes], [pd_have=no])],
  [libzstd 1.4 or newer was not found (Debian: libzstd-dev)])
