dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([round_robin], [scheduler picker: in turn])
