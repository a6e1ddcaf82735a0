/* SPDX-License-Identifier: Apache-2.0 */
/* A peer that speaks raw bytes, for tests of the server. */
#ifndef PD_T_NET_RAW_H
#define PD_T_NET_RAW_H

#include "net_world.h"

/* A peer that sends and receives bytes as they are. */
struct raw {
    struct pd_stream *stream;
    char in[1 << 18];
    size_t n;
    uint64_t total;
    bool is_connected, eof, is_closed, is_lost;
    bool hold;                  /* does not read */
    bool count_only;
    const char *want;
    char *rest;                 /* to be sent */
    size_t rest_n, rest_at;
};

static void raw_connected(struct pd_stream *s, pd_status status, void *arg)
{
    struct raw *r = arg;

    (void)s;
    r->is_connected = status == PD_OK;
    r->is_lost = status != PD_OK;
}

static void raw_readable(struct pd_stream *s, void *arg)
{
    struct raw *r = arg;
    size_t got;
    char *to = r->count_only ? r->in : r->in + r->n;
    size_t room = sizeof(r->in) - 1 - (r->count_only ? 0 : r->n);
    pd_status status;

    if (room == 0) {
        fail_msg("%s", "a raw peer got too much");
        return;
    }
    status = pd_stream_read(s, to, room, &got);
    if (status == PD_OK) {
        r->total += got;
        if (!r->count_only) {
            r->n += got;
            r->in[r->n] = '\0';
        }
    } else if (status != PD_EAGAIN) {
        r->eof = status == PD_EEOF;
        r->is_lost = status != PD_EEOF;
        pd_stream_pause_read(s);
    }
}

static void raw_push(struct raw *r)
{
    while (r->rest_at < r->rest_n) {
        size_t sent;
        pd_status status = pd_stream_write(r->stream, r->rest + r->rest_at,
                                           r->rest_n - r->rest_at, &sent);
        if (status != PD_OK) {
            if (status != PD_EAGAIN)
                r->rest_at = r->rest_n;
            return;
        }
        r->rest_at += sent;
    }
}

static void raw_writable(struct pd_stream *s, void *arg)
{
    (void)s;
    raw_push(arg);
}

static void raw_on_closed(struct pd_stream *s, void *arg)
{
    struct raw *r = arg;

    (void)s;
    r->stream = NULL;
    r->is_closed = true;
}

static const struct pd_stream_events raw_events = {
    .name = "raw", .on_connected = raw_connected, .on_readable = raw_readable,
    .on_writable = raw_writable, .on_closed = raw_on_closed,
};

static bool raw_is_connected(void *arg)
{
    return ((struct raw *)arg)->is_connected || ((struct raw *)arg)->is_lost;
}

static void raw_open(struct world *w, struct raw *r, const struct pd_addr *addr)
{
    memset(r, 0, sizeof(*r));
    assert_int_equal(pd_stream_connect(w->loop, addr, &raw_events, r, &r->stream), PD_OK);
    assert_true(world_run(w, raw_is_connected, r, 5 * PD_SEC));
    assert_true(r->is_connected);
}

static void raw_send_n(struct raw *r, const char *text, size_t n)
{
    free(r->rest);
    r->rest = malloc(n == 0 ? 1 : n);
    assert_non_null(r->rest);
    memcpy(r->rest, text, n);
    r->rest_n = n;
    r->rest_at = 0;
    raw_push(r);
}

static void raw_send(struct raw *r, const char *text)
{
    raw_send_n(r, text, strlen(text));
}

static bool raw_has(void *arg)
{
    struct raw *r = arg;
    return strstr(r->in, r->want) != NULL || r->eof || r->is_lost;
}

/* Waits for a text in what was received. */
static void raw_expect(struct world *w, struct raw *r, const char *want)
{
    r->want = want;
    (void)world_run(w, raw_has, r, 10 * PD_SEC);
    if (strstr(r->in, want) == NULL)
        fail_msg("no \"%s\" in \"%s\"", want, r->in);
}

static bool raw_is_over(void *arg)
{
    return ((struct raw *)arg)->eof || ((struct raw *)arg)->is_lost;
}

static void raw_expect_end(struct world *w, struct raw *r)
{
    if (!world_run(w, raw_is_over, r, 10 * PD_SEC))
        fail_msg("no end after \"%s\"", r->in);
}

static void raw_clear(struct raw *r)
{
    r->n = 0;
    r->in[0] = '\0';
}

static bool raw_is_gone(void *arg)
{
    return ((struct raw *)arg)->is_closed;
}

static void raw_close(struct world *w, struct raw *r)
{
    if (r->stream != NULL) {
        pd_stream_close(r->stream);
        assert_true(world_run(w, raw_is_gone, r, 5 * PD_SEC));
    }
    free(r->rest);
    r->rest = NULL;
}

static size_t count_text(const char *in, const char *what)
{
    size_t n = 0;

    for (const char *p = in; (p = strstr(p, what)) != NULL; p += strlen(what))
        n++;
    return n;
}

#endif
