/* SPDX-License-Identifier: Apache-2.0 */
/* Relays a request to a server behind an adapter and its answer to the client,
 * as the bytes come.  Until the first byte of an answer has gone to the client
 * the request may go to another server. */
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void dispatch_end(struct request *q, uint32_t result)
{
    struct router *r = q->router;
    r->sched->end(r->scheds, &q->legs[0].decode, result, pd_loop_now(r->loop));
}

void forward_cancel(struct request *q)
{
    if (q->forward != NULL)
        q->router->net->call_cancel(q->forward);
    q->forward = NULL;
}

/* The answer has begun, so nothing is sent again: what was kept for that goes.  A
 * stream may live long. */
static void forward_lighten(struct request *q, struct pd_http_call *call)
{
    struct router *r = q->router;
    r->sched->computed(r->scheds, &q->legs[0].decode);
    if (!r->net->call_is_sent(call))
        return;
    if (q->split != NULL)
        leg_prefill_computed(&q->legs[0]);
    split_end(q);
    request_started(q);
    free(q->forward_body);
    q->forward_body = NULL;
    r->api->request_free(r->apis, q->api);
    q->api = NULL;
    if (q->forward_sse)
        r->net->req_body_release(q->http);
}

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct request *q = arg;
    struct router *r = q->router;
    q->forward_status = head->status;
    if (head->status != 502 && head->status != 503 && split_refused(q, head->status))
        return;
    if (head->status == 429 || head->status == 502 || head->status == 503) {
        forward_cancel(q);
        dispatch_end(q, PD_DISPATCH_FAILED);
        if (leg_again(&q->legs[0], LEG_FAILED, "it is overloaded or not ready"))
            return;
        request_failf(q, q->forward_status == 429 ? 429 : 503,
                      q->forward_status == 429 ? "rate_limit_error" : "server_error",
                      q->forward_status == 429 ? "queue_full" : "overloaded", "no server can take this request now");
        return;
    }
    for (size_t i = 0; i < head->n_headers; i++) {
        const struct pd_http_header *h = &head->headers[i];
        if (h->name.n == 12 && memcmp(h->name.p, "content-type", 12) == 0 && h->value.n >= 17 &&
            memcmp(h->value.p, "text/event-stream", 17) == 0)
            q->forward_sse = true;
    }
    q->is_begun = true;
    forward_lighten(q, call);
    r->req->stage(r->reqs, q->record, PD_REQ_DECODING, pd_loop_now(r->loop));
    r->net->own_flush(q->http);
    /* An error event may have to follow what the server sends. */
    r->net->begin_with(q->http, head,
                       head->has_length && !q->forward_sse ? head->length : PD_HTTP_UNKNOWN_LENGTH);
}

static inline bool take_piece(struct request *q, struct pd_http_call *call, struct pd_str piece)
{
    struct router *r = q->router;
    size_t queued;
    if (!q->forward_sse) {
        queued = r->net->write(q->http, piece);
    } else if (!relay_piece(q, piece, &queued)) {
        forward_cancel(q);
        dispatch_end(q, PD_DISPATCH_FAILED);
        request_failf(q, 502, "server_error", "engine_protocol", "the server's answer has too long an event");
        return false;
    }
    if (queued > PD_HTTP_HIGH_WATER && !q->is_paused) {
        q->is_paused = true;
        r->net->call_pause(call);
    }
    return true;
}

bool forward_piece(struct request *q, struct pd_http_call *call, struct pd_str piece)
{
    return take_piece(q, call, piece);
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    (void)take_piece(arg, call, piece);
}

/* A token does not wait for those of other streams that came in the same turn. */
static void on_read(struct pd_http_call *call, void *arg)
{
    struct request *q = arg;
    const struct pd_net_api *net = q->router->net;
    net->flush(q->http);
    /* What only the beginning of a stream needs is used again by the next ones. */
    if (q->forward_sse && q->relay.n_reads < RELAY_LONG && ++q->relay.n_reads == RELAY_LONG &&
        !net->lighten(q->http, call))
        q->relay.n_reads = 0;
}

/* The answer is complete as far as it can be. */
static void forward_done(struct request *q)
{
    bool is_bad = q->forward_status >= 500 || (q->forward_sse && q->relay.is_error);
    dispatch_end(q, is_bad ? PD_DISPATCH_FAILED : PD_DISPATCH_OK);
    if (q->forward_sse)
        relay_rest(q);
    if (q->forward_sse && q->relay.is_error)
        q->router->net->close_after(q->http);
    q->router->net->end(q->http);
    request_done(q, is_bad && q->forward_status < 400 ? 502 : q->forward_status);
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct request *q = arg;
    (void)call;
    q->forward = NULL;
    if (!q->forward_sse || q->relay.is_done || q->relay.is_error) {
        forward_done(q);
        return;
    }
    dispatch_end(q, PD_DISPATCH_FAILED);
    request_failf(q, 502, "server_error", "engine_protocol", "the server ended its answer early");
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct request *q = arg;
    (void)call;
    q->forward = NULL;
    if (fail == PD_HTTP_FAIL_BODY && q->forward_sse && (q->relay.is_done || q->relay.is_error)) {
        q->relay.held_n = 0;
        forward_done(q);
        return;
    }
    dispatch_end(q, PD_DISPATCH_FAILED);
    if (fail != PD_HTTP_FAIL_BODY) {
        if (leg_again(&q->legs[0], fail == PD_HTTP_FAIL_CONNECT ? LEG_UNSENT
                                   : why == PD_EPEER || why == PD_EEOF ? LEG_LOST : LEG_FAILED,
                      pd_host()->status_text(why)))
            return;
        if (why == PD_ELIMIT && fail == PD_HTTP_FAIL_CONNECT)
            request_failf(q, 503, "server_error", "overloaded", "too many connections are open");
        else
            request_failf(q, why == PD_ETIMEDOUT ? 504 : 502,
                          why == PD_ETIMEDOUT ? "timeout_error" : "server_error",
                          why == PD_ETIMEDOUT ? "deadline_exceeded" : "engine_protocol",
                          "no server answered this request");
        return;
    }
    request_failf(q, 502, "server_error", "engine_protocol", "the server broke off its answer");
}

const struct pd_http_call_events forward_events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_error = on_error,
    .on_read = on_read,
    .on_chunks = relay_chunks,
};

/* The request id for a server is always ours: some take addresses out of it. */
static struct pd_str server_id(struct request *q, const struct pd_node_endpoint *e)
{
    struct router *r = q->router;
    if (q->split == NULL && !r->net->req_id_given(q->http))
        return r->net->req_id(q->http);
    if (q->start->server_id[0] == '\0')
        forward_id_renew(q);
    r->req->note(q->record, "server \"%s\" knows it as %s", e->name, q->start->server_id);
    return (struct pd_str){ q->start->server_id, strlen(q->start->server_id) };
}

void forward_id_renew(struct request *q)
{
    struct pd_loop *loop = q->router->loop;
    snprintf(q->start->server_id, sizeof q->start->server_id, "%016llx%016llx",
             (unsigned long long)pd_loop_random_u64(loop), (unsigned long long)pd_loop_random_u64(loop));
}

uint32_t forward_what(const struct request *q)
{
    return q->kind == PD_API_CHAT ? PD_ADAPTER_CHAT : PD_ADAPTER_COMPLETIONS;
}

static bool is_same_want(const struct pd_adapter_http *a, const struct pd_adapter_http *b)
{
    return a->n_headers == b->n_headers && a->target.p == b->target.p && a->target.n == b->target.n &&
           (a->n_headers == 0 || memcmp(a->headers, b->headers, a->n_headers * sizeof a->headers[0]) == 0);
}

/* The way to the server for this kind of request, made when the adapter asks for
 * something else than before.  NULL: *status says why there is none. */
static struct pd_http_way *way_of(struct request *q, struct target *t, const struct pd_adapter_http *want,
                                  pd_status *status)
{
    struct router *r = q->router;
    const struct pd_node_endpoint *e = t->endpoint;
    struct target_way *w = &t->ways[q->kind == PD_API_CHAT ? 0 : 1];
    struct pd_http_header headers[PD_ADAPTER_MAX_HEADERS + 1];
    size_t n = 0;
    if (w->way != NULL && is_same_want(&w->want, want))
        return w->way;
    r->net->way_close(w->way);
    w->way = NULL;
    headers[n++] = (struct pd_http_header){ PD_STR("content-type"), PD_STR("application/json") };
    for (uint32_t i = 0; i < want->n_headers; i++)
        headers[n++] = (struct pd_http_header){ want->headers[i].name, want->headers[i].value };
    struct pd_http_call_opts opts = {
        .size = sizeof opts, .addr = t->addr, .host = { e->authority, strlen(e->authority) },
        .method = PD_HTTP_POST, .target = want->target, .headers = headers, .n_headers = n, .tls = e->tls,
    };
    *status = r->net->way_open(r->nets, &opts, &w->way);
    if (*status != PD_OK)
        w->way = NULL;
    w->want = *want;
    return w->way;
}

pd_status forward_send(struct request *q, const struct forward_send *s, struct pd_http_call **out)
{
    pd_status status = PD_OK;
    struct pd_http_way *way = way_of(q, s->target, s->want, &status);
    if (way == NULL)
        return status;
    struct pd_http_way_call call = {
        .id = server_id(q, s->target->endpoint), .body = s->body, .n_body = s->n_body, .is_replayable = 1,
        .first_byte_ns = s->first_byte_ns, .idle_ns = s->first_byte_ns, .body_limit = s->body_limit,
    };
    return q->router->net->way_call(way, &call, s->events, q, out);
}

void forward_run(struct request *q, struct leg *leg, struct target *t, const struct pd_adapter_http *want,
                 const struct pd_iov *body, size_t n_body)
{
    struct router *r = q->router;
    struct forward_send send = {
        .target = t, .want = want, .body = body, .n_body = n_body, .events = &forward_events,
        .first_byte_ns = q->conf->deadline,
    };
    q->forward_sse = false;
    q->forward_status = 0;
    relay_reset(q);
    r->req->stage(r->reqs, q->record, PD_REQ_DECODE_SENT, pd_loop_now(r->loop));
    if (leg->decode.ticket == 0)
        r->sched->dispatch(r->scheds, leg->ref, PD_ROLE_DECODE, &q->prompts[0], 0, pd_loop_now(r->loop),
                           &leg->decode);
    pd_status status = forward_send(q, &send, &q->forward);
    if (status != PD_OK) {
        dispatch_end(q, PD_DISPATCH_FAILED);
        if (!leg_again(leg, LEG_UNSENT, pd_host()->status_text(status)))
            request_failf(q, 503, "server_error", "overloaded", "the request cannot be sent");
    }
}

void forward_start(struct request *q, struct leg *leg, struct target *t)
{
    struct router *r = q->router;
    const struct pd_node_endpoint *e = t->endpoint;
    struct pd_adapter_http want;
    struct pd_str body;
    want.size = sizeof want;
    want.n_headers = want.flags = want.reserved = 0;
    pd_status status = e->ops->http(e->adapter, forward_what(q), &want);
    if (status == PD_OK)
        status = r->api->request_forward(r->apis, q->api, PD_STR(""), (want.flags & PD_ADAPTER_SALT) != 0, &body);
    free(q->forward_body);
    q->forward_body = NULL;
    if (status == PD_OK && body.p != q->api->body.p) {
        q->forward_body = malloc(body.n + 1);
        if (q->forward_body == NULL)
            status = PD_ENOMEM;
        else
            memcpy(q->forward_body, body.p, body.n);
        body.p = q->forward_body;
    }
    if (status != PD_OK) {
        request_failf(q, 503, "server_error", "overloaded", "the request cannot be sent");
        return;
    }
    struct pd_iov iov = { (void *)(uintptr_t)body.p, body.n };
    forward_run(q, leg, t, &want, &iov, 1);
}
