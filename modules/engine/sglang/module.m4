dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([sglang], [adapter for SGLang servers, prefill and decode apart])
