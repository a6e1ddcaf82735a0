dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([trtllm], [adapter for TensorRT-LLM servers, context and generation apart])
