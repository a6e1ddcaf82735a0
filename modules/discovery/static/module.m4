dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([static], [discovery of servers and nodes in a list])
