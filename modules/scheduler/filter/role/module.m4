dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([role], [scheduler filter: endpoints with the role that is looked for])
