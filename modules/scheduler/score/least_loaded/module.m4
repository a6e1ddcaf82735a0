dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([least_loaded], [scheduler scorer: fewest requests])
