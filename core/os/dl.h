/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to dlopen.  Objects are never closed after they were opened. */
#ifndef PD_OS_DL_H
#define PD_OS_DL_H

#include <pdplane/types.h>

struct pd_dl;

/* Whether a file may be loaded: trust.h has the rules.  PD_OK, PD_ENOENT,
 * PD_EPERM, PD_EINVAL, PD_ELIMIT or PD_EIO with the exact reason in err.  Main
 * thread. */
pd_status pd_dl_check(const char *path, struct pd_err *err);
/* Checks path, then opens what was checked with RTLD_NOW | RTLD_LOCAL.  The handle
 * lives as long as the process.  Main thread. */
pd_status pd_dl_open(const char *path, struct pd_err *err, struct pd_dl **out);
/* The address of an exported symbol, or NULL.  Any thread. */
void *pd_dl_symbol(struct pd_dl *dl, const char *name);
/* For libraries of the system that are wanted at run time only (a driver):
 * opened by soname along the usual search path.  As pd_dl_open. */
pd_status pd_dl_open_system(const char *soname, struct pd_err *err, struct pd_dl **out);

#endif
