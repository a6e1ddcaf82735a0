dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([health], [scheduler filter: endpoints that can take a request])
