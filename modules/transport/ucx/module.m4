dnl SPDX-License-Identifier: Apache-2.0
dnl Only on request: over lanes in software (tcp), UCX 1.13 ends the process when a
dnl node that reads is gone (ucp_request.inl: unexpected error).
PD_MODULE([ucx], [transport over InfiniBand and RoCE, by UCX; only with --with-ucx],
  [AS_IF([test "x$with_ucx" = xyes],
     [PKG_CHECK_MODULES([UCX], [ucx >= 1.13], [pd_have=yes], [pd_have=no])])],
  [it needs --with-ucx and UCX 1.13 or newer (Debian: libucx-dev); its README says why])
