/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of status codes, and the one translation from errno.  The
 * table itself stands in <pdplane/types.h>. */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *pd_status_text(pd_status status)
{
    switch (status) {
#define PD_STATUS_CASE(name, value, text)                                      \
    case name:                                                                 \
        return text;
        PD_STATUS_TABLE(PD_STATUS_CASE)
#undef PD_STATUS_CASE
    default:
        return "unknown status";
    }
}

static const struct {
    int err;
    pd_status status;
} errno_table[] = {
    { 0, PD_OK },
    { EAGAIN, PD_EAGAIN },
    { EINTR, PD_EAGAIN },
    { EINPROGRESS, PD_PENDING },
    { ECANCELED, PD_ECANCELED },
    { ETIMEDOUT, PD_ETIMEDOUT },
    { ECONNRESET, PD_EPEER },
    { ECONNREFUSED, PD_EPEER },
    { ECONNABORTED, PD_EPEER },
    { EPIPE, PD_EPEER },
    { ENOTCONN, PD_EPEER },
    { EHOSTUNREACH, PD_EPEER },
    { ENETUNREACH, PD_EPEER },
    { ENOMEM, PD_ENOMEM },
    { ENOBUFS, PD_ENOMEM },
    { EINVAL, PD_EINVAL },
    { EACCES, PD_EPERM },
    { EPERM, PD_EPERM },
    { ENOENT, PD_ENOENT },
    { EEXIST, PD_EEXIST },
    { EADDRINUSE, PD_EBUSY },
    { EBUSY, PD_EBUSY },
    { EMFILE, PD_ELIMIT },
    { ENFILE, PD_ELIMIT },
    { ENOSPC, PD_ELIMIT },
    { ENOSYS, PD_ENOSYS },
    { EOPNOTSUPP, PD_ENOSYS },
    { ESTALE, PD_ESTALE },
};

pd_status pd_status_from_errno(int err)
{
    for (size_t i = 0; i < sizeof errno_table / sizeof errno_table[0]; i++) {
        if (errno_table[i].err == err)
            return errno_table[i].status;
    }
    return PD_EIO;
}

pd_status pd_err_set(struct pd_err *err, pd_status status, const char *text_fmt, ...)
{
    if (err != NULL) {
        va_list ap;
        memset(err, 0, sizeof *err);
        err->status = status;
        va_start(ap, text_fmt);
        vsnprintf(err->text, sizeof err->text, text_fmt, ap);
        va_end(ap);
    }
    return status;
}

pd_status pd_err_hint(struct pd_err *err, const char *hint_fmt, ...)
{
    if (err == NULL)
        return PD_EINVAL;
    va_list ap;
    va_start(ap, hint_fmt);
    vsnprintf(err->hint, sizeof err->hint, hint_fmt, ap);
    va_end(ap);
    return err->status;
}
