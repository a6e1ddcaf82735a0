dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([vllm], [adapter for vLLM servers, prefill and decode apart])
