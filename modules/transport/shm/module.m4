dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([shm], [transport through shared memory of one host],
  [AC_CHECK_DECL([F_GET_SEALS], [pd_have=yes], [pd_have=no], [[#define _GNU_SOURCE
#include <fcntl.h>]])], [this system has no sealed memory files])
