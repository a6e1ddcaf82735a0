dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([weighted_random], [scheduler picker: by chance, weighted by total])
