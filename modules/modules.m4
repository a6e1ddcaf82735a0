dnl SPDX-License-Identifier: Apache-2.0
dnl One line per module, in the order of the summary.
