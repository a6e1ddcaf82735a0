/* SPDX-License-Identifier: Apache-2.0 */
/* The door to libllama's process-wide parts: version, messages, backends. */
#ifndef LL_LIB_H
#define LL_LIB_H

#include <pdplane/types.h>

enum { LL_ERROR_TEXT = 256 };

/* Fills err and gives s. */
pd_status ll_err(struct pd_err *err, pd_status s, const char *file, const char *fmt, ...) PD_PRINTF(4, 5);
/* The same with the first error of the library, if it told one. */
pd_status ll_err_lib(struct pd_err *err, pd_status s, const char *file, const char *what);

/* Once, when the module is loaded: PD_OK, or err says that the library is not the
 * one that the module was compiled for. */
pd_status ll_lib_load(struct pd_err *err);

/* Finds the backends, once in a process; folder empty: those that the library has
 * built in or finds itself. */
void ll_lib_backends(const char *folder);

/* From now on messages that the library writes in this thread go to log, at level
 * debug, since it calls an error what is none here, and the first error is kept. */
void ll_lib_messages(struct pd_log *log);
/* The first error since then, or "". */
const char *ll_lib_error(void);

#endif
