/* SPDX-License-Identifier: Apache-2.0 */
/* What comes on a connection to an origin: handed to its call, whole chunks of a body at
 * once.
 *
 * Invariant: any callback of a call may end the call; l->call is looked at again after
 * each. */
#include "net/client_int.h"
#include "net/http1_int.h"

static void refused(struct pd_http_link *l)
{
    enum pd_http_reject reject = l->call->parser.reject;

    l->call->client->stats.rejects[reject]++;
    pd_http_link_broken(l, reject == PD_HTTP_REJECT_BODY_SIZE ? PD_ELIMIT
              : reject == PD_HTTP_REJECT_MEMORY ? PD_ENOMEM
              : reject == PD_HTTP_REJECT_TRUNCATED ? PD_EPEER : PD_EPROTO);
}

/* Hands n bytes to the call; l may be another one's or closed afterwards. */
static void take(struct pd_http_link *l, const char *p, size_t n)
{
    struct pd_http_call *call = l->call;
    size_t at = 0;

    while (l->call == call) {
        struct pd_http1 *parser = &call->parser;
        struct pd_str body;
        size_t used;
        enum pd_http1_event ev = pd_http1_next(parser, p + at, n - at, &used, &body);

        at += used;
        switch (ev) {
        case PD_HTTP1_MORE:
            return;
        case PD_HTTP1_HEAD_DONE:
            if (parser->head.status < 200)
                break;
            call->has_head = true;
            if (call->ev->on_head != NULL)
                call->ev->on_head(call, &parser->head, call->arg);
            break;
        case PD_HTTP1_BODY:
            if (call->ev->on_body != NULL)
                call->ev->on_body(call, body, call->arg);
            if (l->call != call)
                return;
            if (parser->state == PD_HTTP1_S_DONE) {
                pd_http_link_complete(l, at < n);
                return;
            }
            /* Inside the body, with nothing left to parse. */
            if (at == n && parser->state > PD_HTTP1_S_READY && parser->state < PD_HTTP1_S_DONE)
                return;
            break;
        case PD_HTTP1_DONE:
            if (call->has_head) {
                pd_http_link_complete(l, at < n);
                return;
            }
            pd_http1_reset(parser);     /* 1xx: the answer is still to come */
            if (call->is_head)
                pd_http1_expect_no_body(parser);
            break;
        default:
            refused(l);
            return;
        }
    }
}

static void on_end_of_input(struct pd_http_link *l)
{
    switch (pd_http1_end_of_input(&l->call->parser)) {
    case PD_HTTP1_DONE:
        pd_http_link_complete(l, false);
        break;
    case PD_HTTP1_MORE:
        pd_http_link_broken(l, PD_EPEER);
        break;
    default:
        refused(l);
        break;
    }
}

/* Bytes, an end or an error that nobody asked for. */
static void idle_readable(struct pd_http_link *l)
{
    struct pd_http_client *c = l->origin->client;
    size_t got;
    pd_status status = pd_stream_read(l->stream, c->scratch, PD_HTTP_CLIENT_SCRATCH, &got);

    if (status == PD_EAGAIN)
        return;
    if (status == PD_OK)
        c->stats.extra_bytes++;
    pd_http_link_close(l);
}

/* A read that brought no bytes. */
static __attribute__((noinline)) void nothing_read(struct pd_http_link *l, pd_status status)
{
    if (status == PD_EEOF)
        on_end_of_input(l);
    else if (status != PD_EAGAIN)
        pd_http_link_broken(l, status);
}

/* What was read, when it is not one chunk (body) or nobody took that. */
static __attribute__((noinline)) void read_more(struct pd_http_link *l, size_t got, struct pd_str body)
{
    struct pd_http_call *call = l->call;
    char *p = l->origin->client->scratch;
    struct pd_str bodies[PD_HTTP1_CHUNKS];
    size_t n = body.n > 0 ? 1 : 0;

    bodies[0] = body;
    if (n == 0 && call->ev->on_chunks != NULL) {
        n = pd_http1_only_chunks(&call->parser, p, got, bodies);
        if (n > 0 && call->ev->on_chunks(call, bodies, n, (struct pd_str){ p, got }, call->arg))
            return;
    }
    if (n == 0)
        take(l, p, got);
    for (size_t i = 0; i < n && l->call == call; i++)
        if (call->ev->on_body != NULL)
            call->ev->on_body(call, bodies[i], call->arg);
    if (l->state == PD_HTTP_LINK_BUSY && l->call == call && call->ev->on_read != NULL)
        call->ev->on_read(call, call->arg);
}

void pd_http_link_readable(struct pd_stream *stream, void *arg)
{
    struct pd_http_link *l = arg;
    struct pd_http_client *c = l->origin->client;
    struct pd_http_call *call = l->call;
    struct pd_str body = { NULL, 0 };
    size_t got;
    pd_status status;

    if (l->is_dead || l->state == PD_HTTP_LINK_CLOSED)
        return;
    if (call == NULL) {
        idle_readable(l);
        return;
    }
    c->stats.reads++;
    status = pd_stream_read(stream, c->scratch, PD_HTTP_CLIENT_SCRATCH, &got);
    if (status != PD_OK) {
        nothing_read(l, status);
        return;
    }
    c->stats.bytes_in += got;
    l->since = pd_loop_now(c->loop);
    /* Later ones move the limit back, which the timer sees when it fires. */
    if (!call->got_bytes) {
        call->got_bytes = true;
        pd_http_link_arm_in(l, call->idle_ns);
    }
    if (call->ev->on_chunks == NULL || !pd_http1_only_chunk(&call->parser, c->scratch, got, &body) ||
        !call->ev->on_chunks(call, &body, 1, (struct pd_str){ c->scratch, got }, call->arg))
        read_more(l, got, body);
}
