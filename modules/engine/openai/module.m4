dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([openai], [adapter for servers with the OpenAI API])
