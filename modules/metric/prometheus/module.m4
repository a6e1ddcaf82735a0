dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([prometheus], [metrics as text over HTTP])
