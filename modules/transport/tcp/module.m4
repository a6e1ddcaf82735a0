dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([tcp], [transport over TCP])
