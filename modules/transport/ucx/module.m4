dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([ucx], [transport over InfiniBand and RoCE, by UCX],
  [PKG_CHECK_MODULES([UCX], [ucx >= 1.13], [pd_have=yes], [pd_have=no])],
  [UCX 1.13 or newer was not found (Debian: libucx-dev)])
