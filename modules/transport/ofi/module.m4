dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([ofi], [transport over EFA, Slingshot and others, by libfabric],
  [PKG_CHECK_MODULES([OFI], [libfabric >= 1.17], [pd_have=yes], [pd_have=no])],
  [libfabric 1.17 or newer was not found (Debian: libfabric-dev)])
