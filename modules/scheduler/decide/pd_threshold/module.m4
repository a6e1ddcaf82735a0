dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([pd_threshold], [scheduler decider: remote prefill above a threshold])
