/* SPDX-License-Identifier: Apache-2.0 */
/* Where the collector is. */
#include "otlp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pd_status fail(struct pd_err *err, const char *text, const char *url)
{
    err->status = PD_EINVAL;
    snprintf(err->text, sizeof(err->text), "url \"%.200s\" %s", url, text);
    snprintf(err->hint, sizeof(err->hint), "write http://HOST:PORT/v1/metrics");
    return PD_EINVAL;
}

pd_status otlp_url_parse(const char *text, struct otlp_url *out, struct pd_err *err)
{
    static const char scheme[] = "http://";
    const char *host, *end, *port = NULL;
    size_t n;
    unsigned long v = 80;

    memset(out, 0, sizeof(*out));
    if (strncmp(text, scheme, sizeof(scheme) - 1) != 0)
        return fail(err, "does not begin with http://", text);
    host = text + sizeof(scheme) - 1;
    n = strcspn(host, "/");
    if (n == 0 || n >= sizeof(out->authority))
        return fail(err, "has no host", text);
    memcpy(out->authority, host, n);
    if (strlen(host + n) >= sizeof(out->target))
        return fail(err, "is too long", text);
    strcpy(out->target, host[n] == '\0' || strcmp(host + n, "/") == 0 ? "/v1/metrics" : host + n);
    end = host + n;
    if (host[0] == '[') {
        const char *close = memchr(host, ']', n);
        if (close == NULL || (close + 1 != end && close[1] != ':'))
            return fail(err, "has no legal host", text);
        port = close + 1 == end ? NULL : close + 2;
        host++;
        n = (size_t)(close - host);
    } else if ((port = memchr(host, ':', n)) != NULL) {
        n = (size_t)(port - host);
        port++;
    }
    if (n == 0 || n >= sizeof(out->host))
        return fail(err, "has no legal host", text);
    memcpy(out->host, host, n);
    if (port != NULL) {
        char *stop;
        v = *port >= '0' && *port <= '9' ? strtoul(port, &stop, 10) : 0;
        if (v == 0 || v > 65535 || stop != end)
            return fail(err, "has no legal port", text);
    }
    for (const char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || *p == '"' || *p == '#')
            return fail(err, "has a character that must be escaped", text);
    out->port = (uint16_t)v;
    return PD_OK;
}
