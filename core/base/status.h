/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of status codes. */
#ifndef PD_BASE_STATUS_H
#define PD_BASE_STATUS_H

#include <pdplane/types.h>

/* The sentence for a person ("timed out"); never NULL.  Any thread. */
const char *pd_status_text(pd_status status);
/* The status that stands for an errno value; PD_EIO where none fits.  Any thread. */
pd_status pd_status_from_errno(int err);

/* Fills err; text and hint as printf would, hint may be NULL.  Returns status,
 * so that a function may end with `return pd_err_set(...)`.  err may be NULL. */
pd_status pd_err_set(struct pd_err *err, pd_status status, const char *text_fmt, ...)
    PD_PRINTF(3, 4);
pd_status pd_err_hint(struct pd_err *err, const char *hint_fmt, ...) PD_PRINTF(2, 3);

#endif
