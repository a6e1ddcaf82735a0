/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the API server: a page of a list, or a watch, with the account's token.
 *
 * The token is in memory only while a request is made of it. */
#include <fcntl.h>
#include <unistd.h>

#include <pdplane/host.h>

#include "follow.h"
#include "source.h"

#define PAGE_OBJECTS 250u
#define WATCH_SECONDS 240u          /* the API server ends a watch by then */
#define WATCH_IDLE (WATCH_SECONDS * PD_SEC + 30 * PD_SEC)

ssize_t kube_small_file(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, to, size - 1);
    if (fd >= 0)
        close(fd);
    while (n > 0 && (to[n - 1] == '\n' || to[n - 1] == ' '))
        n--;
    if (n >= 0)
        to[n] = '\0';
    return n;
}

/* The token changes while the pod lives: it is read for each request. */
static bool token_read(struct pd_discovery *d)
{
    memcpy(d->authorization, "Bearer ", 7);
    ssize_t n = kube_small_file(d->conf->token_file, d->authorization + 7, KUBE_TOKEN_MAX);
    for (ssize_t i = 0; i < n; i++) {
        if (d->authorization[7 + i] <= ' ' || d->authorization[7 + i] > '~')
            return false;
    }
    return n > 0;
}

/* Appends s with everything escaped that is not plain in a query. */
static size_t query_put(char *out, size_t at, size_t size, const char *s)
{
    static const char hex[] = "0123456789ABCDEF";
    for (; *s != '\0' && at + 4 < size; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c) != NULL) {
            out[at++] = (char)c;
        } else {
            out[at++] = '%';
            out[at++] = hex[c >> 4];
            out[at++] = hex[c & 15];
        }
    }
    out[at] = '\0';
    return at;
}

static void target_make(struct pd_discovery *d, char *out, size_t size)
{
    const struct kube_conf *c = d->conf;
    size_t at = (size_t)snprintf(out, size, "%s/namespaces/%s/%s?labelSelector=",
                                 c->service != NULL ? "/apis/discovery.k8s.io/v1" : "/api/v1", d->space,
                                 c->service != NULL ? "endpointslices" : "pods");
    if (c->service != NULL)
        at = query_put(out, at, size, "kubernetes.io/service-name=");
    at = query_put(out, at, size, c->service != NULL ? c->service : c->selector);
    if (d->state == KUBE_WATCHING) {
        at += (size_t)snprintf(out + at, size - at,
                               "&watch=1&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=", WATCH_SECONDS);
        query_put(out, at, size, d->version);
        return;
    }
    at += (size_t)snprintf(out + at, size - at, "&limit=%u", PAGE_OBJECTS);
    if (d->next[0] != '\0') {
        at += (size_t)snprintf(out + at, size - at, "&continue=");
        query_put(out, at, size, d->next);
    }
}

void kube_call_start(struct pd_discovery *d)
{
    char target[8192];
    struct pd_http_header headers[2] = { { PD_STR("accept"), PD_STR("application/json") } };
    if (!token_read(d)) {
        kube_trouble(d, "no token can be read from %s", d->conf->token_file);
        return;
    }
    headers[1] = (struct pd_http_header){ PD_STR("authorization"), source_str(d->authorization) };
    target_make(d, target, sizeof target);
    struct pd_http_call_opts opts = {
        .size = sizeof opts, .addr = d->addr, .host = source_str(d->authority), .method = PD_HTTP_GET,
        .target = source_str(target), .headers = headers, .n_headers = 2, .connect_ns = 5 * PD_SEC,
        .first_byte_ns = 15 * PD_SEC, .idle_ns = d->state == KUBE_WATCHING ? WATCH_IDLE : 15 * PD_SEC, .tls = d->tls,
    };
    d->status = 0;
    d->body_n = 0;
    pd_status status = d->net->call_start(d->nets, &opts, &kube_call_events, d, &d->call);
    explicit_bzero(d->authorization, sizeof d->authorization);
    if (status != PD_OK) {
        d->call = NULL;
        kube_trouble(d, "the API server cannot be asked: %s", pd_host()->status_text(status));
    }
}
