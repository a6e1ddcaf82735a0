dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([load_aware], [scheduler scorer: short queues])
