dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([max_score], [scheduler picker: highest total])
