dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([dns], [discovery of servers and nodes by name])
