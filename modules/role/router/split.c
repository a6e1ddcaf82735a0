/* SPDX-License-Identifier: Apache-2.0 */
/* A request that two servers share.  The decode server is chosen first and kept; the
 * prefill server computes the prompt, and what it answers goes into the body of the
 * decode leg, which is then relayed as any other request to a server (forward.c).
 *
 *     chosen -> prefill sent -> answered -> decode sent -> relayed
 *                    |              |            |
 *                    |              |            refused: again, with a pair of its own
 *                    |              |  kept nothing: the decode server computes the prompt
 *                    |              nothing is left to say: the client gets that answer
 *                    failed: the next prefill server; none is left: the same
 *
 * Both legs belong to the request: whatever ends it cancels both, and nothing is sent
 * for a client that has left. */
#include "split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void split_end(struct request *q)
{
    struct split *s = q->split;
    if (s == NULL)
        return;
    if (s->prefill != NULL)
        q->router->net->call_cancel(s->prefill);
    free(s->answer);
    free(s->texts);
    free(s);
    q->split = NULL;
}

struct target *split_target(struct request *q, struct pd_endpoint_ref ref)
{
    struct router *r = q->router;
    struct pd_endpoint_status known = { .size = sizeof known };
    if (r->sched->endpoint_get(r->scheds, ref, now_of(q), &known) != PD_OK)
        return NULL;
    struct target *t = known.user;
    return t != NULL && t->endpoint != NULL ? t : NULL;
}

static const struct pd_adapter_ops *ops_of(const struct target *t)
{
    return t->endpoint->ops;
}

/* The whole request to the server that decodes: it computes the prompt too. */
static void decode_alone(struct request *q, uint32_t why)
{
    struct leg *leg = &q->legs[0];
    struct target *t = split_target(q, q->split->decode);
    pd_counter_inc(q->router->split_fallbacks[why]);
    set_name(q, &q->record->prefill, "");
    q->record->remote = 0;
    split_end(q);
    if (t != NULL) {
        forward_start(q, leg, t);
        return;
    }
    q->router->sched->end(q->router->scheds, &leg->decode, PD_DISPATCH_CANCELLED, now_of(q));
    if (!leg_again(leg, LEG_UNSENT, "it is gone"))
        request_failf(q, 503, "server_error", "no_decode", "no node can take this request now");
}

/* ---- the prefill leg ------------------------------------------------------------------ */

static void prefill_next(struct request *q);

static void prefill_failed(struct request *q, const char *why)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    struct split *s = q->split;
    r->req->note(q->record, "%s failed: %s", q->record->prefill, why);
    leg_prefill_end(leg, PD_DISPATCH_FAILED);
    pd_counter_inc(r->split_failures);
    (void)leg_avoid(leg, leg->prefill->refs[s->at]);
    s->at++;
    prefill_next(q);
}

void split_refusal(struct request *q)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    struct split *s = q->split;
    struct pd_http_header type = { PD_STR("content-type"), { s->type, strlen(s->type) } };
    r->req->note(q->record, "%s refuses the request with status %u", q->record->prefill, s->status);
    leg_prefill_end(leg, PD_DISPATCH_OK);
    r->sched->end(r->scheds, &leg->decode, PD_DISPATCH_CANCELLED, now_of(q));
    r->net->respond(q->http, s->status, &type, type.value.n > 0, (struct pd_str){ s->answer, s->answer_n });
    request_done(q, s->status);
}

static void decode_send(struct request *q);

bool split_is_failure(uint32_t status)
{
    return status == 408 || status == 429 || status < 200 || (status >= 300 && status < 400) || status >= 500;
}

void split_type(const struct pd_http_head *head, char out[SPLIT_TYPE])
{
    out[0] = '\0';
    for (size_t i = 0; i < head->n_headers; i++) {
        struct pd_str name = head->headers[i].name;
        if (name.n == 12 && memcmp(name.p, "content-type", 12) == 0)
            snprintf(out, SPLIT_TYPE, "%.*s", PD_STR_ARG(head->headers[i].value));
    }
}

pd_status split_keep(struct split *s, struct pd_str piece)
{
    if (s->answer_n + piece.n > s->answer_cap) {
        size_t cap = (s->answer_n + piece.n) * 2;
        char *p = realloc(s->answer, cap);
        if (p == NULL)
            return PD_ENOMEM;
        s->answer = p;
        s->answer_cap = cap;
    }
    memcpy(s->answer + s->answer_n, piece.p, piece.n);
    s->answer_n += piece.n;
    return PD_OK;
}

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct request *q = arg;
    struct split *s = q->split;
    s->status = head->status;
    if (split_is_failure(head->status)) {
        char why[48];
        q->router->net->call_cancel(call);
        s->prefill = NULL;
        snprintf(why, sizeof why, "it answers with status %u", s->status);
        prefill_failed(q, why);
        return;
    }
    split_type(head, s->type);
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct request *q = arg;
    if (split_keep(q->split, piece) == PD_OK)
        return;
    q->router->net->call_cancel(call);
    q->split->prefill = NULL;
    prefill_failed(q, "out of memory");
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct request *q = arg;
    struct router *r = q->router;
    struct split *s = q->split;
    struct leg *leg = &q->legs[0];
    (void)call;
    s->prefill = NULL;
    if (s->status >= 400) {
        split_refusal(q);
        return;
    }
    pd_status status = split_take(s);
    if (status == PD_EPROTO) {
        prefill_failed(q, "its answer cannot be read");
        return;
    }
    r->req->stage(r->reqs, q->record, PD_REQ_PREFILLED, now_of(q));
    leg_prefill_computed(leg);
    leg_prefill_end(leg, PD_DISPATCH_OK);
    r->req->note(q->record, "prefill by %s took %.2f ms for %u tokens, %u of them cached",
                 q->record->prefill, (double)(now_of(q) - s->sent) / 1e6, q->record->prompt_tokens,
                 q->record->cached_tokens);
    if (s->is_final) {
        r->req->note(q->record, "%s gives the whole answer", q->record->prefill);
        if (!split_final(q))
            decode_alone(q, ROUTER_FALLBACK_FAILED);
        return;
    }
    if (status == PD_ENOENT) {
        r->req->note(q->record, "%s answers without %s: the decode server computes the prompt",
                     q->record->prefill, s->take);
        decode_alone(q, ROUTER_FALLBACK_NO_PARAMS);
        return;
    }
    decode_send(q);
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct request *q = arg;
    (void)call;
    (void)fail;
    bool is_long = why == PD_ELIMIT && fail == PD_HTTP_FAIL_BODY;
    q->split->prefill = NULL;
    if (is_long)
        pd_counter_inc(q->router->split_too_long);
    prefill_failed(q, is_long ? "its answer is too long" : pd_host()->status_text(why));
}

static const struct pd_http_call_events prefill_events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_error = on_error,
};

/* Sends the prefill leg.  PD_OK: events follow. */
static pd_status prefill_send(struct request *q, struct target *t)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    struct split *s = q->split;
    const struct pd_node_endpoint *e = t->endpoint;
    struct pd_adapter_split from = { .size = sizeof from };
    struct pd_adapter_http want = { .size = sizeof want };
    struct pd_iov runs[SPLIT_RUNS];
    size_t n = 0;
    free(s->texts);
    s->texts = NULL;
    s->answer_n = 0;
    s->status = 0;
    s->type[0] = '\0';
    if (ops_of(t)->split == NULL)
        return PD_ENOSYS;
    pd_status status = ops_of(t)->split(e->adapter, &from);
    if (status == PD_OK)
        status = split_bodies(s, t, &from);
    if (status == PD_OK)
        status = e->ops->http(e->adapter, forward_what(q), &want);
    if (status == PD_OK)
        status = split_runs(s, 0, (want.flags & PD_ADAPTER_SALT) != 0, runs, &n);
    if (status != PD_OK)
        return status;
    forward_id_renew(q);
    struct forward_send send = {
        .target = t, .want = &want, .body = runs, .n_body = n, .events = &prefill_events,
        .first_byte_ns = q->conf->prefill_timeout, .body_limit = q->conf->prefill_answer,
    };
    s->sent = now_of(q);
    r->req->stage(r->reqs, q->record, PD_REQ_PREFILL_SENT, s->sent);
    r->sched->dispatch(r->scheds, leg->prefill->refs[s->at], PD_ROLE_PREFILL, &q->prompts[0], 0, s->sent,
                       &leg->prefill->dispatch);
    return forward_send(q, &send, &s->prefill);
}

/* To the next prefill server that is there; when none is left, without one. */
static void prefill_next(struct request *q)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    struct split *s = q->split;
    for (; s->at < leg->n_prefills; s->at++) {
        struct target *t = split_target(q, leg->prefill->refs[s->at]);
        if (t == NULL)
            continue;
        if (leg->n_splits > q->conf->retries || r->is_closing)
            break;
        if (leg->n_splits++ > 0)
            pd_counter_inc(r->retries);
        set_name(q, &q->record->prefill, t->endpoint->name);
        pd_status status = prefill_send(q, t);
        if (status == PD_OK)
            return;
        r->req->note(q->record, "%s cannot be sent to: %s", t->endpoint->name, pd_host()->status_text(status));
        leg_prefill_end(leg, PD_DISPATCH_FAILED);
    }
    r->req->note(q->record, "no prefill server is left: the decode server computes the prompt");
    decode_alone(q, ROUTER_FALLBACK_FAILED);
}

/* ---- the decode leg ------------------------------------------------------------------- */

static void decode_send(struct request *q)
{
    struct leg *leg = &q->legs[0];
    struct split *s = q->split;
    struct target *t = split_target(q, s->decode);
    struct pd_adapter_http want = { .size = sizeof want };
    struct pd_iov runs[SPLIT_RUNS];
    size_t n = 0;
    pd_status status = PD_ESTALE;
    if (t != NULL)
        status = ops_of(t)->http(t->endpoint->adapter, forward_what(q), &want);
    if (status == PD_OK)
        status = split_runs(s, 1, (want.flags & PD_ADAPTER_SALT) != 0, runs, &n);
    if (status != PD_OK) {
        q->router->sched->end(q->router->scheds, &leg->decode, PD_DISPATCH_CANCELLED, now_of(q));
        if (!leg_again(leg, LEG_UNSENT, t == NULL ? "it is gone" : pd_host()->status_text(status)))
            request_failf(q, 503, "server_error", "overloaded", "the request cannot be sent");
        return;
    }
    s->is_handed = true;
    q->record->remote = 1;
    forward_run(q, leg, t, &want, runs, n);
}

/* A decode server that fails although it was handed everything may not have got the KV:
 * the next attempt does without. */
bool split_refused(struct request *q, uint32_t status)
{
    struct router *r = q->router;
    struct leg *leg = &q->legs[0];
    if (q->split == NULL || !q->split->is_handed || status < 500 || r->is_closing ||
        leg->failures >= q->conf->retries)
        return false;
    forward_cancel(q);
    r->sched->end(r->scheds, &leg->decode, PD_DISPATCH_FAILED, now_of(q));
    pd_counter_inc(r->split_fallbacks[ROUTER_FALLBACK_DECODE]);
    q->is_alone = true;
    char why[64];
    snprintf(why, sizeof why, "it answers with status %u, maybe for want of KV", status);
    if (!leg_again(leg, LEG_FAILED, why))
        request_failf(q, 502, "server_error", "engine_protocol", "no server answered this request");
    return true;
}

/* ---- start ------------------------------------------------------------------------------ */

/* Why the request is not shared, or NULL. */
static const char *obstacle(struct request *q, const struct pd_adapter_split *from)
{
    struct router *r = q->router;
    bool is_pair = (from->flags & PD_ADAPTER_PAIR) != 0;
    if (q->is_alone && !is_pair)
        return "an attempt with a prefill server has failed";
    if (q->api->n_legs > 1 && !is_pair)
        return "it asks for several sequences";
    for (uint32_t i = 0; i < from->n_whole && i < PD_ADAPTER_MAX_WHOLE; i++) {
        char key[PD_ADAPTER_MAX_MEMBER + 1];
        snprintf(key, sizeof key, "%.*s", PD_STR_ARG(from->whole[i]));
        if (r->api->request_has(r->apis, q->api, key))
            return "it asks for what only a server that computes the prompt can give";
    }
    return NULL;
}

bool split_start(struct request *q, struct leg *leg, struct target *t, const struct pd_sched_plan *plan)
{
    struct router *r = q->router;
    struct pd_adapter_split from = { .size = sizeof from };
    split_end(q);
    q->record->decision = plan->decision.mode;
    q->record->remote = 0;
    set_name(q, &q->record->prefill, "");
    set_name(q, &q->record->reason, plan->decision.reason);
    if (plan->prefill_n == 0 || t->endpoint->ops->split == NULL ||
        t->endpoint->ops->split(t->endpoint->adapter, &from) != PD_OK)
        return false;
    const char *why = obstacle(q, &from);
    if (why != NULL) {
        r->req->note(q->record, "not shared: %s", why);
        if ((from.flags & PD_ADAPTER_PAIR) == 0)
            return false;
        request_failf(q, 400, "invalid_request_error", "unsupported", why);
        return true;
    }
    q->split = calloc(1, sizeof *q->split);
    if (q->split == NULL)
        return false;
    q->split->request = q;
    q->split->decode = leg->ref;
    leg_prefills(leg, plan);
    if ((from.flags & PD_ADAPTER_PAIR) != 0) {
        pair_next(q);
        return true;
    }
    r->sched->dispatch(r->scheds, leg->ref, PD_ROLE_DECODE, &q->prompts[0], 0, now_of(q), &leg->decode);
    prefill_next(q);
    return true;
}
