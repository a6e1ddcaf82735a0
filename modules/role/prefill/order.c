/* SPDX-License-Identifier: Apache-2.0 */
/* One order on the prefill node: blocks, computing, pushing each chunk as it is
 * done, the first token, the verdict.
 *
 *   WAITING   no blocks yet, in the role's queue
 *   RUNNING   the engine computes; chunks move meanwhile
 *   CLOSING   nothing more is wanted; waits until no transfer reads our blocks
 *
 * The invariant: while the source end of the hand-over is open, the sequence
 * stays open, because transfers read its blocks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prefill.h"

enum state { WAITING, RUNNING, CLOSING };

struct order {
    struct prefill *role;
    struct order *next, **link;
    struct order *wait_next;
    enum state state;
    struct pd_call *call;              /* NULL once it is over */
    pd_peer_ref peer;
    struct pd_api_message *message;
    const struct pd_leg_order *ask;
    const struct pd_node_engine *engine;
    struct pd_req *record;
    struct pd_seq *seq;
    struct pd_kv_source *source;
    uint32_t computed;
    struct pd_node_generation *generation; /* in which it began */
    bool is_computed;                  /* the engine has finished */
    bool is_handed;                    /* the hand-over was found valid */
    struct pd_timer deadline;
};

static pd_time now_of(const struct order *o)
{
    return pd_loop_now(o->role->loop);
}

static void set_text(struct order *o, const char **text, const char *s)
{
    o->role->req->text(o->role->reqs, o->record, text, (struct pd_str){ s, strlen(s) });
}

static void record_finish(struct order *o, uint32_t outcome, const char *code)
{
    struct prefill *p = o->role;
    if (o->record == NULL)
        return;
    pd_counter_inc(outcome == PD_REQ_OK ? p->done_ok : p->done_other);
    o->record->user = NULL;
    p->req->finish(p->reqs, o->record, outcome, 0, (struct pd_str){ code, strlen(code) }, now_of(o));
    o->record = NULL;
}

static void waiting_remove(struct order *o)
{
    struct prefill *p = o->role;
    struct order *before = NULL;
    for (struct order *w = p->waiting_first; w != NULL; before = w, w = w->wait_next) {
        if (w != o)
            continue;
        if (before == NULL)
            p->waiting_first = w->wait_next;
        else
            before->wait_next = w->wait_next;
        if (p->waiting_last == w)
            p->waiting_last = before;
        p->n_waiting--;
        return;
    }
}

/* Frees the order unless a transfer still reads its blocks. */
static void order_close(struct order *o)
{
    struct prefill *p = o->role;
    if (o->state == WAITING)
        waiting_remove(o);
    o->state = CLOSING;
    pd_timer_stop(&o->deadline);
    if (o->source != NULL)
        return; /* its on_end comes back here */
    if (o->seq != NULL)
        o->engine->ops->seq_close(o->seq);
    /* The decode node may have its KV and be done before this node has told so. */
    if (o->is_handed)
        record_finish(o, PD_REQ_OK, "");
    else
        record_finish(o, PD_REQ_CANCELLED, "canceled");
    *o->link = o->next;
    if (o->next != NULL)
        o->next->link = o->link;
    p->n_orders--;
    p->api->message_free(p->apis, o->message);
    p->node->generation_release(o->generation);
    free(o);
    if (p->waiting_first != NULL)
        pd_loop_defer(p->loop, &p->retry);
    prefill_settle(p);
}

/* Ends the call with a status and a sentence, and the order with it. */
static void order_end(struct order *o, pd_status status, const char *why)
{
    struct prefill *p = o->role;
    if (o->call != NULL)
        p->peer->call_end(o->call, status, (struct pd_str){ why, strlen(why) });
    o->call = NULL;
    if (status == PD_OK)
        record_finish(o, PD_REQ_OK, "");
    else
        record_finish(o, status == PD_EAGAIN ? PD_REQ_SHED : PD_REQ_UPSTREAM_ERROR, "prefill_failed");
    if (o->source != NULL && o->state != CLOSING)
        p->kv->source_abort(o->source, true);
    order_close(o);
}

static pd_status send(struct order *o, uint32_t type, struct pd_str bytes)
{
    struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
    if (o->call == NULL)
        return PD_EPEER;
    return o->role->peer->call_send(o->call, type, &iov, 1);
}

/* ---- the engine ------------------------------------------------------------- */

static void on_kv(struct pd_seq *seq, uint32_t upto, void *arg)
{
    struct order *o = arg;
    (void)seq;
    if (o->state == RUNNING && o->source != NULL)
        o->role->kv->source_push(o->source, upto < o->ask->upto ? upto : o->ask->upto);
}

static void on_token(struct pd_seq *seq, const struct pd_token *t, void *arg)
{
    struct order *o = arg;
    struct prefill *p = o->role;
    struct pd_leg_top top[PD_API_MAX_TOP];
    struct pd_leg_token out;
    struct pd_str bytes;
    (void)seq;
    if (o->state != RUNNING)
        return;
    memset(&out, 0, sizeof out);
    out.id = t->id;
    out.has_logprob = o->ask->sampling.want_logprob;
    out.logprob = t->logprob;
    out.n_top = t->n_top < PD_API_MAX_TOP ? t->n_top : PD_API_MAX_TOP;
    for (uint32_t i = 0; i < out.n_top; i++)
        top[i] = (struct pd_leg_top){ .token = t->top[i].token, .logprob = t->top[i].logprob,
                                      .bytes = { "", 0 } };
    out.top = top;
    out.text = out.bytes = (struct pd_str){ "", 0 };
    p->req->tokens(p->reqs, o->record, 1, now_of(o));
    pd_status status = p->api->token_encode(p->apis, &out, &bytes);
    if (status == PD_OK)
        status = send(o, PD_ORDER_FIRST, bytes);
    if (status != PD_OK)
        order_end(o, status, "the first token could not be sent");
}

static void on_finish(struct pd_seq *seq, uint32_t reason, pd_status status, void *arg)
{
    struct order *o = arg;
    (void)seq;
    if (o->state != RUNNING)
        return;
    if (reason == PD_FINISH_ERROR) {
        order_end(o, status == PD_OK ? PD_EIO : status, "the engine failed");
        return;
    }
    o->is_computed = true;
    o->role->req->stage(o->role->reqs, o->record, PD_REQ_PREFILLED, now_of(o));
    if (reason == PD_FINISH_STOP && o->ask->sample != 0 &&
        send(o, PD_ORDER_STOP, (struct pd_str){ "", 0 }) != PD_OK)
        order_end(o, PD_EPEER, "the end of the text could not be sent");
    else if (o->is_handed)
        order_end(o, PD_OK, "");
}

/* ---- the hand-over ----------------------------------------------------------- */

static pd_status source_blocks(struct pd_kv_source *source, uint32_t first, uint32_t count,
                               uint32_t *index, void *arg)
{
    struct order *o = arg;
    (void)source;
    return o->engine->ops->seq_blocks(o->seq, first, count, index, NULL);
}

static pd_status source_send(struct pd_kv_source *source, struct pd_str bytes, void *arg)
{
    (void)source;
    return send(arg, PD_ORDER_KV, bytes);
}

static void source_end(struct pd_kv_source *source, const struct pd_kv_result *result, void *arg)
{
    struct order *o = arg;
    struct prefill *p = o->role;
    (void)source;
    o->source = NULL;
    if (o->record != NULL) {
        o->record->kv_bytes = result->bytes;
        o->record->kv_blocks = result->blocks;
        o->record->handover_ns = result->transfer_ns;
        set_text(o, &o->record->transport, result->transport);
    }
    o->is_handed = result->verdict == PD_KV_VALID;
    if (o->state == CLOSING) {
        order_close(o);
        return;
    }
    if (o->is_handed) {
        if (o->is_computed)
            order_end(o, PD_OK, "");
        return;
    }
    pd_log_req(p->log, PD_LOG_WARN, o->ask->request_id, "hand-over ended %s: %s",
               p->kv->verdict_text(result->verdict), result->reason);
    order_end(o, result->status != PD_OK ? result->status : PD_EIO, result->reason);
}

static const struct pd_kv_source_events source_events = {
    .size = sizeof source_events,
    .blocks = source_blocks,
    .on_send = source_send,
    .on_end = source_end,
};

/* ---- start -------------------------------------------------------------------- */

static pd_status order_open(struct order *o)
{
    static const struct pd_seq_events events = {
        .size = sizeof events, .on_kv = on_kv, .on_token = on_token, .on_finish = on_finish
    };
    struct pd_seq_params params = {
        .size = sizeof params, .n_tokens = o->ask->n_tokens, .tokens = o->ask->tokens,
        .cache_salt = o->ask->cache_salt, .sampling = o->ask->sampling,
        .max_output = o->ask->n_output + 1, .n_output_given = o->ask->n_output,
        .priority = o->ask->priority, .request_id = o->ask->request_id,
    };
    return o->engine->ops->seq_open(o->engine->engine, &params, &events, o, &o->seq, &o->computed);
}

static void order_run(struct order *o)
{
    struct prefill *p = o->role;
    struct pd_err err;
    memset(&err, 0, sizeof err);
    struct pd_kv_source_params params = {
        .size = sizeof params, .n_tokens = o->ask->n_tokens, .peer = o->peer,
        .region = p->kv->region(p->kvs, o->engine->name), .grant = o->ask->grant.p,
        .grant_len = o->ask->grant.n, .tokens = o->ask->tokens, .request_id = o->ask->request_id,
    };
    o->state = RUNNING;
    pd_status status = params.region == NULL
                           ? PD_EINVAL
                           : p->kv->source_open(p->kvs, &params, &source_events, o, &o->source, &err);
    if (status != PD_OK) {
        order_end(o, status, err.text[0] != '\0' ? err.text : pd_host()->status_text(status));
        return;
    }
    o->record->prompt_tokens = o->ask->n_tokens;
    o->record->cached_tokens = o->computed;
    p->req->stage(p->reqs, o->record, PD_REQ_PREFILLING, now_of(o));
    if (o->computed > o->ask->from)
        p->kv->source_push(o->source, o->computed < o->ask->upto ? o->computed : o->ask->upto);
    status = o->engine->ops->seq_run(o->seq, o->ask->sample != 0 ? PD_RUN_PREFILL : PD_RUN_PREFILL_ONLY,
                                     o->ask->upto, NULL);
    if (status != PD_OK)
        order_end(o, status, "the engine cannot run this prompt");
}

void prefill_orders_retry(struct prefill *p)
{
    while (p->waiting_first != NULL) {
        struct order *o = p->waiting_first;
        pd_status status = order_open(o);
        if (status == PD_EAGAIN) {
            pd_timer_start(&p->retry_timer, 10 * PD_MS);
            return;
        }
        waiting_remove(o);
        o->state = RUNNING;
        if (status == PD_OK)
            order_run(o);
        else
            order_end(o, status, "no memory for this prompt");
    }
}

static void on_deadline(struct pd_timer *timer, void *arg)
{
    (void)timer;
    order_end(arg, PD_ETIMEDOUT, "the order took too long");
}

static void call_message(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg)
{
    struct order *o = arg;
    (void)call;
    if (type == PD_ORDER_KV && o->source != NULL)
        o->role->kv->source_message(o->source, bytes);
}

static void call_ended(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    struct order *o = arg;
    (void)call;
    (void)status;
    (void)bytes;
    o->call = NULL;
    if (o->source != NULL && o->state != CLOSING)
        o->role->kv->source_abort(o->source, true);
    order_close(o);
}

static const struct pd_call_events call_events = {
    .size = sizeof call_events,
    .on_message = call_message,
    .on_end = call_ended,
};

static void call_refuse(struct prefill *p, struct pd_call *call, pd_status status, const char *why)
{
    pd_counter_inc(p->done_other);
    p->peer->call_end(call, status, (struct pd_str){ why, strlen(why) });
}

/* What can be said of an order before anything is held for it. */
static const char *order_check(const struct order *o)
{
    if (o->engine == NULL || (o->engine->roles & PD_ROLE_PREFILL) == 0 ||
        (o->engine->info.flags & PD_ENGINE_EXPORT) == 0)
        return "no such engine here";
    if (o->ask->n_tokens > o->engine->info.context_tokens)
        return "the prompt is longer than the context";
    for (uint32_t i = 0; i < o->ask->n_tokens; i++) {
        if (o->ask->tokens[i] < 0 || (uint32_t)o->ask->tokens[i] >= o->engine->info.vocab)
            return "the prompt has tokens that the model does not know";
    }
    return NULL;
}

void prefill_order_accept(struct prefill *p, struct pd_call *call, pd_peer_ref from, struct pd_str first)
{
    if (p->is_draining || p->is_closing) {
        call_refuse(p, call, PD_EAGAIN, "draining");
        return;
    }
    struct order *o = calloc(1, sizeof *o);
    if (o == NULL) {
        call_refuse(p, call, PD_ENOMEM, "out of memory");
        return;
    }
    pd_status status = p->api->order_decode(p->apis, first, &o->message);
    if (status != PD_OK) {
        free(o);
        call_refuse(p, call, status, "the order was not understood");
        return;
    }
    o->role = p;
    o->ask = o->message->order;
    o->peer = from;
    o->engine = p->node->engine_find(p->nodes, o->ask->engine);
    const char *why = order_check(o);
    if (why == NULL && p->req->begin(p->reqs, o->ask->request_id, PD_ROLE_PREFILL, pd_loop_now(p->loop),
                                     &o->record) != PD_OK)
        why = "too many requests";
    if (why != NULL) {
        p->api->message_free(p->apis, o->message);
        free(o);
        call_refuse(p, call, PD_EINVAL, why);
        return;
    }
    set_text(o, &o->record->model, o->engine->model);
    set_text(o, &o->record->prefill, p->node->name(p->nodes));
    o->record->user = o;
    o->generation = p->node->generation_hold(p->nodes);
    pd_timer_init(&o->deadline, p->loop, "prefill deadline", on_deadline, o);
    if (o->ask->deadline_ms != 0 && o->ask->deadline_ms < UINT64_MAX / PD_MS)
        pd_timer_start(&o->deadline, o->ask->deadline_ms * PD_MS);
    o->next = p->orders;
    if (p->orders != NULL)
        p->orders->link = &o->next;
    p->orders = o;
    o->link = &p->orders;
    p->n_orders++;
    o->call = call;
    p->peer->call_accept(call, &call_events, o);
    o->state = RUNNING;
    status = p->waiting_first != NULL ? PD_EAGAIN : order_open(o);
    if (status == PD_OK) {
        order_run(o);
    } else if (status != PD_EAGAIN || p->n_waiting >= p->conf->queue) {
        order_end(o, status, status == PD_EAGAIN ? "too many orders wait for memory"
                                                 : "the prompt does not fit into memory");
    } else {
        o->state = WAITING;
        p->req->stage(p->reqs, o->record, PD_REQ_QUEUED, now_of(o));
        if (p->waiting_last != NULL)
            p->waiting_last->wait_next = o;
        else
            p->waiting_first = o;
        p->waiting_last = o;
        p->n_waiting++;
        if (!pd_timer_is_active(&p->retry_timer))
            pd_timer_start(&p->retry_timer, 10 * PD_MS);
    }
}

void prefill_orders_end(struct prefill *p, const struct pd_node_generation *generation)
{
    struct order *next;
    for (struct order *o = p->orders; o != NULL; o = next) {
        next = o->next;
        /* The role may be freed with its last order; nothing is touched after it. */
        if (o->state != CLOSING && (generation == NULL || o->generation == generation))
            order_end(o, PD_EPEER, generation == NULL ? "the server is shutting down"
                                                      : "the configuration of this order has ended");
    }
}
