dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([file], [discovery of servers and nodes in a file])
