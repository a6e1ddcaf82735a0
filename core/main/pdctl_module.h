/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of pdctl that need no node. */
#ifndef PD_MAIN_PDCTL_MODULE_H
#define PD_MAIN_PDCTL_MODULE_H

#include <stdio.h>

/* argv[0] is "module".  Returns the exit status. */
int pdctl_module(int argc, char **argv);
void pdctl_module_help(FILE *out);

#endif
