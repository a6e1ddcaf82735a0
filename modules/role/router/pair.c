/* SPDX-License-Identifier: Apache-2.0 */
/* A request that two servers get at the same time: one computes the prompt and sends
 * the KV to the other one, which answers.  Each can do nothing without the other.
 *
 *     both sent --> the decode server's answer comes, and is held back
 *       |   |          |
 *       |   |          +--> it shows that the KV is there: the answer begins, and is
 *       |   |               relayed as any other (forward.c)
 *       |   +-----> the decode server fails: the request goes elsewhere
 *       +---------> the prefill server fails: the next one, with the same decode server
 *
 * Until the answer begins nothing has gone to the client, so whichever fails is replaced,
 * the other leg is canceled, and the next pair meets in rooms of its own.  The first
 * token of a single sequence shows that its prompt was computed and has arrived; with
 * several sequences the prefill server must have ended its answer.  What it says after
 * that is of no interest: it is read and dropped, because a connection that closes would
 * look like an abort to it. */
#include "split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIR_HELD_MAX (1u << 20)

/* ---- failures ------------------------------------------------------------------------- */

/* What is told to a client when no pair is left: what the last one failed with. */
static void give_up(struct request *q, uint32_t http)
{
    if (http == 429)
        request_failf(q, 429, "rate_limit_error", "queue_full", "no server can take this request now");
    else if (http == 503 || http == 502)
        request_failf(q, 503, "server_error", "overloaded", "no server can take this request now");
    else if (http == 504)
        request_failf(q, 504, "timeout_error", "deadline_exceeded", "no pair of servers answered this request");
    else
        request_failf(q, 502, "server_error", "engine_protocol", "no pair of servers answered this request");
}

static uint32_t http_of(pd_status why)
{
    return why == PD_ETIMEDOUT ? 504 : 500;
}

static enum leg_fate fate_of(enum pd_http_fail fail, pd_status why)
{
    return fail == PD_HTTP_FAIL_CONNECT          ? LEG_UNSENT
           : why == PD_EPEER || why == PD_EEOF ? LEG_LOST : LEG_FAILED;
}

static void prefill_avoid(struct leg *leg, const struct split *s)
{
    (void)leg_avoid(leg, leg->prefill->refs[s->at]);
}

static void prefill_cancel(struct request *q, uint32_t result)
{
    struct split *s = q->split;
    if (s->prefill != NULL)
        q->router->net->call_cancel(s->prefill);
    s->prefill = NULL;
    leg_prefill_end(&q->legs[0], result);
}

static void decode_cancel(struct request *q, uint32_t result)
{
    forward_cancel(q);
    q->split->head = NULL;
    q->router->sched->end(q->router->scheds, &q->legs[0].decode, result, now_of(q));
}

/* Whether the leg may be sent to one more prefill server. */
static bool may_again(struct leg *leg, enum leg_fate fate)
{
    const struct router_conf *conf = leg->request->conf;
    return !leg->request->router->is_closing &&
           (fate == LEG_FAILED ? ++leg->failures <= conf->retries
            : fate == LEG_LOST ? ++leg->losses <= conf->losses : leg->n_avoid < ROUTER_AVOID_MAX);
}

static void prefill_failed(struct request *q, enum leg_fate fate, uint32_t http, const char *why)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    r->req->note(q->record, "%s failed: %s", q->record->prefill, why);
    prefill_cancel(q, PD_DISPATCH_FAILED);
    decode_cancel(q, PD_DISPATCH_CANCELLED);
    pd_counter_inc(r->split_failures);
    prefill_avoid(leg, q->split);
    q->split->at++;
    if (!may_again(leg, fate)) {
        give_up(q, http);
        return;
    }
    pd_counter_inc(r->retries);
    q->record->attempts++;
    pair_next(q);
}

/* A server that tells of an error may do so for what the other one did: it counts
 * against both, and whoever is well shows it with its next partner. */
static void decode_failed(struct request *q, enum leg_fate fate, uint32_t http, const char *why)
{
    struct leg *leg = &q->legs[0];
    bool is_busy = http == 429 || http == 503 || http == 502;
    bool is_both = fate == LEG_FAILED && !is_busy;
    if (is_both)
        prefill_avoid(leg, q->split);
    prefill_cancel(q, is_both ? PD_DISPATCH_FAILED : PD_DISPATCH_CANCELLED);
    decode_cancel(q, PD_DISPATCH_FAILED);
    if (!leg_again(leg, fate, why))
        give_up(q, http);
}

/* ---- the answer ------------------------------------------------------------------------- */

static bool may_begin(const struct request *q)
{
    return q->split->has_data && (q->api->n_legs == 1 || q->split->is_computed);
}

/* The prompt is computed, whoever shows it. */
static void computed(struct request *q)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    if (q->split->is_computed)
        return;
    q->split->is_computed = true;
    r->req->stage(r->reqs, q->record, PD_REQ_PREFILLED, now_of(q));
    leg_prefill_computed(leg);
    leg_prefill_end(leg, PD_DISPATCH_OK);
    r->req->note(q->record, "prefill by %s took %.2f ms", q->record->prefill,
                 (double)(now_of(q) - q->split->sent) / 1e6);
}

/* Gives the client what was held back of the call, then the piece.  False: the request is
 * gone. */
static bool answer_begin(struct request *q, struct pd_http_call *call, struct pd_str piece)
{
    struct split *s = q->split;
    if (s->answer_n > 0 && split_keep(s, piece) != PD_OK) {
        decode_failed(q, LEG_FAILED, 503, "out of memory");
        return false;
    }
    computed(q);
    if (s->prefill != NULL)
        q->router->net->call_leave(s->prefill);
    s->prefill = NULL;
    /* With the answer's begin goes what sharing took. */
    char *held = s->answer;
    struct pd_str first = s->answer_n > 0 ? (struct pd_str){ held, s->answer_n } : piece;
    s->answer = NULL;
    s->answer_n = s->answer_cap = 0;
    forward_events.on_head(call, s->head, q);
    bool is_there = first.n == 0 || forward_piece(q, call, first);
    free(held);
    return is_there;
}

static bool is_stream(const char *type)
{
    return strncmp(type, "text/event-stream", 17) == 0;
}

static void decode_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct request *q = arg;
    struct split *s = q->split;
    char type[SPLIT_TYPE];
    if (split_is_failure(head->status)) {
        char why[48];
        snprintf(why, sizeof why, "it answers with status %u", head->status);
        decode_failed(q, LEG_FAILED, head->status, why);
        return;
    }
    if (head->status >= 400) {
        /* Its word on the request is the answer. */
        prefill_cancel(q, PD_DISPATCH_CANCELLED);
        forward_events.on_head(call, head, q);
        return;
    }
    split_type(head, type);
    s->head = head;
    s->is_stream = is_stream(type);
}

static void decode_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct request *q = arg;
    struct split *s = q->split;
    if (q->is_begun) {
        (void)forward_piece(q, call, piece);
        return;
    }
    if (s->is_stream) {
        bool is_whole = relay_look(&s->seen[1], piece);
        s->has_line |= s->seen[1].n_data > 0;
        s->has_data |= s->has_line && is_whole;
        if (s->seen[1].is_error) {
            decode_failed(q, LEG_FAILED, 500, "its answer is an error");
            return;
        }
    }
    s->has_data |= !s->is_stream;
    if (may_begin(q)) {
        (void)answer_begin(q, call, piece);
        return;
    }
    if (s->answer_n + piece.n > PAIR_HELD_MAX || split_keep(s, piece) != PD_OK) {
        decode_failed(q, LEG_FAILED, 500, "its answer is too long before it begins");
        return;
    }
    /* The other prompts are still computed. */
    if (s->has_data)
        q->router->net->call_pause(call);
}

static void decode_end(struct pd_http_call *call, void *arg)
{
    struct request *q = arg;
    struct split *s = q->split;
    if (q->is_begun) {
        forward_events.on_end(call, q);
        return;
    }
    q->forward = NULL;
    if (s->is_stream && (!s->has_data || !s->seen[1].is_done)) {
        decode_failed(q, LEG_FAILED, 500, "it ended its answer early");
        return;
    }
    /* Whole, so every prompt was computed. */
    if (answer_begin(q, call, PD_STR("")))
        forward_events.on_end(call, q);
}

static void decode_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct request *q = arg;
    if (q->is_begun) {
        forward_events.on_error(call, fail, why, q);
        return;
    }
    q->forward = NULL;
    decode_failed(q, fate_of(fail, why), http_of(why), pd_host()->status_text(why));
}

static void decode_read(struct pd_http_call *call, void *arg)
{
    struct request *q = arg;
    if (q->is_begun)
        forward_events.on_read(call, q);
}

static bool decode_chunks(struct pd_http_call *call, const struct pd_str *bodies, size_t n, struct pd_str chunks,
                          void *arg)
{
    struct request *q = arg;
    return q->is_begun && relay_chunks(call, bodies, n, chunks, q);
}

static const struct pd_http_call_events decode_events = {
    .on_head = decode_head,
    .on_body = decode_body,
    .on_end = decode_end,
    .on_error = decode_error,
    .on_read = decode_read,
    .on_chunks = decode_chunks,
};

/* ---- the prefill server's answer ----------------------------------------------------------- */

static void prefill_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct request *q = arg;
    struct split *s = q->split;
    (void)call;
    s->status = head->status;
    if (split_is_failure(head->status)) {
        char why[48];
        snprintf(why, sizeof why, "it answers with status %u", head->status);
        prefill_failed(q, LEG_FAILED, head->status, why);
        return;
    }
    split_type(head, s->type);
    s->is_prefill_stream = is_stream(s->type);
    if (head->status >= 400) {
        s->is_refused = true;
        s->answer_n = 0;
        decode_cancel(q, PD_DISPATCH_CANCELLED);
    }
}

static void prefill_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct request *q = arg;
    struct split *s = q->split;
    (void)call;
    if (s->is_refused) {
        if (s->answer_n + piece.n > q->conf->prefill_answer || split_keep(s, piece) != PD_OK)
            prefill_failed(q, LEG_FAILED, 500, "its answer is too long");
    } else if (s->is_prefill_stream) {
        relay_look(&s->seen[0], piece);
        if (s->seen[0].is_error)
            prefill_failed(q, LEG_FAILED, 500, "its answer is an error");
    }
}

static void prefill_end(struct pd_http_call *call, void *arg)
{
    struct request *q = arg;
    struct router *r = q->router;
    struct split *s = q->split;
    (void)call;
    s->prefill = NULL;
    if (s->is_refused) {
        split_refusal(q);
        return;
    }
    if (s->is_prefill_stream && !s->seen[0].is_done) {
        prefill_failed(q, LEG_FAILED, 500, "it ended its answer early");
        return;
    }
    computed(q);
    if (q->forward == NULL || s->head == NULL || !may_begin(q))
        return;
    if (!answer_begin(q, q->forward, PD_STR("")))
        return;
    r->net->flush(q->http);
    if (!q->is_paused)
        r->net->call_resume(q->forward);
}

static void prefill_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct request *q = arg;
    (void)call;
    q->split->prefill = NULL;
    prefill_failed(q, fate_of(fail, why), http_of(why), pd_host()->status_text(why));
}

static const struct pd_http_call_events prefill_events = {
    .on_head = prefill_head,
    .on_body = prefill_body,
    .on_end = prefill_end,
    .on_error = prefill_error,
};

/* ---- sending ------------------------------------------------------------------------------- */

/* Forgets what the last pair said. */
static void pair_reset(struct request *q)
{
    struct split *s = q->split;
    free(s->texts);
    s->texts = NULL;
    s->answer_n = 0;
    s->status = 0;
    s->type[0] = '\0';
    s->head = NULL;
    s->is_stream = s->is_prefill_stream = s->has_line = s->has_data = s->is_computed = s->is_refused = false;
    memset(s->seen, 0, sizeof s->seen);
    q->forward_sse = false;
    q->forward_status = 0;
    relay_reset(q);
}

/* One of the two legs (0: prefill, 1: decode). */
static pd_status leg_call(struct request *q, uint32_t leg, struct target *t, struct pd_http_call **out)
{
    struct pd_adapter_http want = { .size = sizeof want };
    struct pd_iov runs[SPLIT_RUNS];
    struct forward_send send = {
        .target = t, .want = &want, .body = runs,
        .events = leg == 0 ? &prefill_events : &decode_events,
        .first_byte_ns = leg == 0 ? q->conf->prefill_timeout : q->conf->deadline,
    };
    pd_status status = t->endpoint->ops->http(t->endpoint->adapter, forward_what(q), &want);
    if (status == PD_OK)
        status = split_runs(q->split, leg, (want.flags & PD_ADAPTER_SALT) != 0, runs, &send.n_body);
    return status == PD_OK ? forward_send(q, &send, out) : status;
}

/* Sends both legs.  PD_OK: events follow; otherwise nothing was sent. */
static pd_status pair_send(struct request *q, struct target *prefill, struct target *decode)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    struct split *s = q->split;
    struct pd_adapter_split from = { .size = sizeof from };
    pd_status status = PD_ENOSYS;
    pair_reset(q);
    if (prefill->endpoint->ops->split != NULL)
        status = prefill->endpoint->ops->split(prefill->endpoint->adapter, &from);
    if (status == PD_OK)
        status = (from.flags & PD_ADAPTER_PAIR) != 0 ? split_bodies(s, prefill, &from) : PD_EINVAL;
    if (status != PD_OK)
        return status;
    forward_id_renew(q);
    status = leg_call(q, 0, prefill, &s->prefill);
    if (status != PD_OK)
        return status;
    status = leg_call(q, 1, decode, &q->forward);
    if (status != PD_OK) {
        r->net->call_cancel(s->prefill);
        s->prefill = NULL;
        return status;
    }
    s->sent = now_of(q);
    r->req->stage(r->reqs, q->record, PD_REQ_PREFILL_SENT, s->sent);
    r->req->stage(r->reqs, q->record, PD_REQ_DECODE_SENT, s->sent);
    r->sched->dispatch(r->scheds, leg->prefill->refs[s->at], PD_ROLE_PREFILL, &q->prompts[0], 0, s->sent,
                       &leg->prefill->dispatch);
    r->sched->dispatch(r->scheds, s->decode, PD_ROLE_DECODE, &q->prompts[0], 0, s->sent, &leg->decode);
    return PD_OK;
}

void pair_next(struct request *q)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    struct split *s = q->split;
    struct target *decode = split_target(q, s->decode);
    q->record->remote = 1;
    for (; decode != NULL && s->at < leg->n_prefills; s->at++) {
        struct target *prefill = split_target(q, leg->prefill->refs[s->at]);
        if (prefill == NULL)
            continue;
        set_name(q, &q->record->prefill, prefill->endpoint->name);
        pd_status status = pair_send(q, prefill, decode);
        if (status == PD_OK)
            return;
        r->req->note(q->record, "%s and %s cannot be sent to: %s", prefill->endpoint->name,
                     decode->endpoint->name, pd_host()->status_text(status));
    }
    if (!leg_again(leg, LEG_UNSENT, decode == NULL ? "it is gone" : "no prefill server is left for it"))
        request_failf(q, 503, "server_error", "no_prefill", "no server can compute this prompt now");
}
