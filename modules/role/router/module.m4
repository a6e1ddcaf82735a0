dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([router], [router role])
