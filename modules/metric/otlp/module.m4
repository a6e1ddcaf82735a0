dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([otlp], [metrics to an OpenTelemetry collector])
