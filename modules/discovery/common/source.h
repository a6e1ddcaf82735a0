/* SPDX-License-Identifier: Apache-2.0 */
/* What modules of this kind share. */
#ifndef PD_DISCOVERY_COMMON_H
#define PD_DISCOVERY_COMMON_H

#include <pdplane/discovery.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static inline struct pd_str source_str(const char *s)
{
    return (struct pd_str){ s, strlen(s) };
}

/* Fills err and returns status. */
static inline pd_status PD_PRINTF(3, 4)
source_error(struct pd_err *err, pd_status status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err->status = status;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return status;
}

/* HOST:PORT of http://HOST:PORT/ or https://; the text itself when it is no URL. */
static inline struct pd_str source_authority(struct pd_str url)
{
    const char *colon = memchr(url.p, ':', url.n);
    size_t at = colon == NULL ? url.n : (size_t)(colon - url.p);
    if (at + 3 > url.n || memcmp(url.p + at, "://", 3) != 0)
        return url;
    url = (struct pd_str){ url.p + at + 3, url.n - at - 3 };
    if (url.n > 0 && url.p[url.n - 1] == '/')
        url.n--;
    return url;
}

#endif
