dnl SPDX-License-Identifier: Apache-2.0
dnl One line per module, in the order of the summary.
m4_include([modules/engine/ref/module.m4])
