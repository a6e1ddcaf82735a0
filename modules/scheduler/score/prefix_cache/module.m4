dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([prefix_cache], [scheduler scorer: prompt prefixes in the cache])
