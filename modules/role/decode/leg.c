/* SPDX-License-Identifier: Apache-2.0 */
/* One leg: a sequence from its prompt to its last token, on the decode node.
 * This state machine owns the sequence's blocks, the hand-over and the call to
 * the prefill node; whoever goes away first, everything ends here.
 *
 *   WAITING   no blocks yet, in the role's queue
 *   REACHING  a prefill node was named, its link is not up yet
 *   MOVING    a prefill node computes and writes into our blocks
 *   RUNNING   our engine computes (rest of the prompt, tokens)
 *   CLOSING   the end is told; waits until no transfer can touch the blocks
 *
 * The invariant that is easy to break: while a hand-over is open (`dest`), the
 * sequence is neither run nor closed; its on_end is the only way on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

enum state { WAITING, REACHING, MOVING, RUNNING, CLOSING };

/* A prefill node whose failure was noticed only by silence has cost the request
 * this much already; what silenced it may well be on our side, so no other one is
 * tried, and the prompt is computed here. */
#define SILENCE (2 * PD_SEC)

struct leg {
    struct decode *role;
    const struct decode_conf *conf;    /* of the generation in which it began */
    struct pd_node_generation *generation;
    struct leg *next, **link;          /* in role->legs */
    struct leg *wait_next;             /* in role->waiting */
    enum state state;
    struct pd_call *call;              /* to the router; NULL once it is over */
    struct pd_api_message *message;
    const struct pd_leg *ask;
    const struct pd_node_engine *engine;
    struct pd_req *record;
    int32_t *tokens;
    uint32_t n_tokens;                 /* prompt, and output given by the router */
    uint32_t max_output;
    uint32_t computed;                 /* leading tokens found in our cache */
    uint32_t cached;                   /* reported: ours, or the prefill node's */
    uint32_t n_output;
    struct pd_seq *seq;
    struct pd_text *text;
    bool is_stopped;                   /* a stop string was completed */
    /* The remote prefill. */
    uint32_t candidate;                /* index of the next one to try */
    pd_peer_ref peer;
    struct pd_call *order;             /* PREFILL call; NULL when over */
    struct pd_kv_dest *dest;
    pd_time order_at;                  /* this one was asked, or is being reached since */
    bool is_hopeless;                  /* no other one is to be tried */
    bool is_reached_again;             /* this one was replaced by its next life */
    bool has_first;                    /* the first token came */
    bool is_valid;                     /* the hand-over was verified */
    bool ends_at_once;                 /* prefill: the text ends before any token */
    struct pd_token first;
    struct pd_logprob first_top[PD_API_MAX_TOP];
    struct pd_kv_result result;
    struct pd_timer order_timer;
    struct pd_timer deadline;
    /* Messages that the router's window did not take. */
    char *unsent;
    size_t unsent_n, unsent_cap;
    bool has_end;                      /* `end` waits behind them */
    struct pd_leg_end end;
};

static void leg_next_prefill(struct leg *leg, const char *why);
static void leg_run(struct leg *leg, bool with_first);
static void leg_close(struct leg *leg);
static void leg_stop(struct leg *leg, bool peer_gone);
static bool send_started(struct leg *leg, const struct pd_leg_prefill *prefill, const char *reason);

static pd_time now_of(const struct leg *leg)
{
    return pd_loop_now(leg->role->loop);
}

/* ---- the way to the router ------------------------------------------------ */

/* Unsent messages are kept as (u32 type, u32 length, bytes). */
static bool unsent_add(struct leg *leg, uint32_t type, struct pd_str bytes)
{
    size_t need = leg->unsent_n + 8 + bytes.n;
    if (need > leg->conf->unsent_max)
        return false;
    if (need > leg->unsent_cap) {
        size_t cap = leg->unsent_cap == 0 ? 4096 : leg->unsent_cap * 2;
        char *p = realloc(leg->unsent, cap < need ? need : cap);
        if (p == NULL)
            return false;
        leg->unsent = p;
        leg->unsent_cap = cap < need ? need : cap;
    }
    uint32_t head[2] = { type, (uint32_t)bytes.n };
    memcpy(leg->unsent + leg->unsent_n, head, 8);
    memcpy(leg->unsent + leg->unsent_n + 8, bytes.p, bytes.n);
    leg->unsent_n = need;
    return true;
}

static pd_status send_now(struct leg *leg, uint32_t type, struct pd_str bytes)
{
    struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
    return leg->role->peer->call_send(leg->call, type, &iov, 1);
}

static void leg_fail(struct leg *leg, uint32_t http, const char *type, const char *code,
                     const char *message);

/* Returns false when the leg was ended, it may be gone then. */
static bool leg_send(struct leg *leg, uint32_t type, struct pd_str bytes)
{
    if (leg->call == NULL)
        return true;
    pd_status status = leg->unsent_n > 0 ? PD_EAGAIN : send_now(leg, type, bytes);
    if (status == PD_OK || status == PD_EPEER)
        return true; /* PD_EPEER: the call's on_end follows */
    if (status == PD_EAGAIN && unsent_add(leg, type, bytes))
        return true;
    /* A token that cannot be sent must not be left out. */
    leg_fail(leg, 503, "server_error", "overloaded",
             status == PD_EAGAIN ? "the answer was not read fast enough" : "out of memory");
    return false;
}

static void call_finish(struct leg *leg)
{
    struct decode *d = leg->role;
    struct pd_str bytes;
    if (d->api->end_encode(d->apis, &leg->end, &bytes) != PD_OK)
        bytes = (struct pd_str){ "", 0 };
    d->peer->call_end(leg->call, PD_OK, bytes);
    leg->call = NULL;
}

static void call_flush(struct leg *leg)
{
    pd_status status = PD_OK;
    size_t at = 0;
    while (leg->call != NULL && at < leg->unsent_n) {
        uint32_t head[2];
        memcpy(head, leg->unsent + at, 8);
        status = send_now(leg, head[0], (struct pd_str){ leg->unsent + at + 8, head[1] });
        if (status != PD_OK)
            break;
        at += 8 + head[1];
    }
    if (at > 0)
        memmove(leg->unsent, leg->unsent + at, leg->unsent_n - at);
    leg->unsent_n -= at;
    if (status != PD_OK && status != PD_EAGAIN && status != PD_EPEER) {
        /* No event tells when to try again; the router learns that it failed. */
        leg->unsent_n = 0;
        leg->role->peer->call_end(leg->call, status, (struct pd_str){ "", 0 });
        leg->call = NULL;
        leg_stop(leg, false);
        leg_close(leg);
        return;
    }
    if (leg->call != NULL && leg->unsent_n == 0 && leg->has_end) {
        call_finish(leg);
        leg_close(leg);
    }
}

/* ---- endings -------------------------------------------------------------- */

static void record_finish(struct leg *leg, uint32_t outcome, uint32_t http, const char *code)
{
    struct decode *d = leg->role;
    if (leg->record == NULL)
        return;
    leg->record->user = NULL;
    d->req->finish(d->reqs, leg->record, outcome, http,
                   (struct pd_str){ code == NULL ? "" : code, code == NULL ? 0 : strlen(code) },
                   now_of(leg));
    leg->record = NULL;
}

/* Frees the leg unless a transfer may still touch its blocks or the router has
 * not taken everything. */
static void leg_close(struct leg *leg)
{
    struct decode *d = leg->role;
    leg->state = CLOSING;
    if (leg->order != NULL) {
        d->peer->call_cancel(leg->order);
        leg->order = NULL;
    }
    if (leg->dest != NULL)
        return; /* on_end comes back here */
    if (leg->seq != NULL)
        leg->engine->ops->seq_close(leg->seq);
    leg->seq = NULL;
    if (leg->call != NULL)
        return; /* the end is still to be sent */
    pd_timer_stop(&leg->order_timer);
    pd_timer_stop(&leg->deadline);
    record_finish(leg, PD_REQ_CANCELLED, 0, "client_gone");
    *leg->link = leg->next;
    if (leg->next != NULL)
        leg->next->link = leg->link;
    d->n_legs--;
    d->api->text_destroy(d->apis, leg->text);
    d->api->message_free(d->apis, leg->message);
    free(leg->tokens);
    free(leg->unsent);
    d->node->generation_release(leg->generation);
    free(leg);
    if (d->waiting_first != NULL)
        pd_loop_defer(d->loop, &d->retry);
    decode_leg_gone(d);
}

static void waiting_remove(struct leg *leg)
{
    struct decode *d = leg->role;
    struct leg *before = NULL;
    for (struct leg *l = d->waiting_first; l != NULL; before = l, l = l->wait_next) {
        if (l != leg)
            continue;
        if (before == NULL)
            d->waiting_first = l->wait_next;
        else
            before->wait_next = l->wait_next;
        if (d->waiting_last == l)
            d->waiting_last = before;
        d->n_waiting--;
        d->waiting_tokens -= l->n_tokens;
        return;
    }
}

/* Stops all work for the leg; its blocks go as soon as they may. */
static void leg_stop(struct leg *leg, bool peer_gone)
{
    struct decode *d = leg->role;
    if (leg->state == WAITING)
        waiting_remove(leg);
    pd_timer_stop(&leg->order_timer);
    pd_timer_stop(&leg->deadline);
    if (leg->dest != NULL && leg->state != CLOSING)
        d->kv->dest_abort(leg->dest, peer_gone);
    leg->state = CLOSING;
}

static void leg_end(struct leg *leg, const struct pd_leg_end *end)
{
    if (leg->has_end)
        return;
    leg->end = *end;
    leg->has_end = true;
    leg_stop(leg, false);
    if (end->reason == PD_FINISH_ERROR)
        record_finish(leg, end->error.http == 429 ? PD_REQ_SHED
                      : end->error.http < 500     ? PD_REQ_CLIENT_ERROR : PD_REQ_UPSTREAM_ERROR,
                      end->error.http, end->error.code);
    else
        record_finish(leg, PD_REQ_OK, 200, NULL);
    if (leg->call != NULL && leg->unsent_n == 0)
        call_finish(leg);
    leg_close(leg);
}

static void end_fill(const struct leg *leg, struct pd_leg_end *end, uint32_t reason)
{
    memset(end, 0, sizeof *end);
    end->reason = reason;
    end->prompt_tokens = leg->n_tokens - leg->ask->n_output;
    end->cached_tokens = leg->cached;
    end->output_tokens = leg->n_output;
}

static void leg_fail(struct leg *leg, uint32_t http, const char *type, const char *code,
                     const char *message)
{
    struct pd_leg_end end;
    end_fill(leg, &end, PD_FINISH_ERROR);
    leg->role->api->error_set(&end.error, http, type, code, "%s", message);
    if (http == 429 || http == 503)
        end.error.retry_after_ms = 1000;
    leg_end(leg, &end);
}

/* The text is complete; `reason` is the engine's or a stop string's. */
static void leg_finish(struct leg *leg, uint32_t reason)
{
    struct pd_leg_end end;
    end_fill(leg, &end, reason);
    if (leg->role->api->text_end(leg->text, &end.text) != PD_OK) {
        leg_fail(leg, 503, "server_error", "overloaded", "out of memory");
        return;
    }
    /* The text borrows from the leg, which may outlive this call only together
     * with its text object, so the pointer stays good until the end is sent. */
    leg_end(leg, &end);
}

/* ---- events of our engine -------------------------------------------------- */

static void leg_token(struct leg *leg, const struct pd_token *t)
{
    struct decode *d = leg->role;
    const struct pd_engine_ops *ops = leg->engine->ops;
    struct pd_leg_top top[PD_API_MAX_TOP];
    struct pd_leg_token out;
    struct pd_str bytes;
    uint32_t stopped = 0;
    memset(&out, 0, sizeof out);
    out.id = t->id;
    out.index = leg->n_output++;
    out.bytes = ops->piece(leg->engine->engine, t->id);
    if (d->api->text_add(leg->text, out.bytes, &out.text, &stopped) != PD_OK) {
        leg_fail(leg, 503, "server_error", "overloaded", "out of memory");
        return;
    }
    out.has_logprob = leg->ask->sampling.want_logprob;
    out.logprob = t->logprob;
    out.n_top = t->n_top < PD_API_MAX_TOP ? t->n_top : PD_API_MAX_TOP;
    for (uint32_t i = 0; i < out.n_top; i++) {
        top[i].token = t->top[i].token;
        top[i].logprob = t->top[i].logprob;
        top[i].bytes = ops->piece(leg->engine->engine, t->top[i].token);
    }
    out.top = top;
    if (leg->n_output == leg->ask->n_output + 1)
        d->req->stage(d->reqs, leg->record, PD_REQ_DECODING, now_of(leg));
    d->req->tokens(d->reqs, leg->record, 1, now_of(leg));
    if (d->api->token_encode(d->apis, &out, &bytes) != PD_OK) {
        leg_fail(leg, 503, "server_error", "overloaded", "out of memory");
        return;
    }
    if (!leg_send(leg, PD_LEG_TOKEN, bytes))
        return;
    if (stopped != 0 && leg->state == RUNNING) {
        leg->is_stopped = true;
        leg_finish(leg, PD_FINISH_STOP);
    }
}

static void on_token(struct pd_seq *seq, const struct pd_token *token, void *arg)
{
    struct leg *leg = arg;
    (void)seq;
    if (leg->state == RUNNING)
        leg_token(leg, token);
}

static void on_finish(struct pd_seq *seq, uint32_t reason, pd_status status, void *arg)
{
    struct leg *leg = arg;
    (void)seq;
    if (leg->state != RUNNING)
        return;
    if (reason != PD_FINISH_ERROR) {
        leg_finish(leg, reason);
        return;
    }
    pd_log_req(leg->role->log, PD_LOG_ERROR, leg->ask->request_id, "engine \"%s\" failed: %s",
               leg->engine->name, pd_host()->status_text(status));
    leg_fail(leg, 502, "server_error", "engine_protocol", "the engine failed");
}

/* ---- hand-over ------------------------------------------------------------- */

/* False: the leg was ended. */
static bool send_handover(struct leg *leg)
{
    struct decode *d = leg->role;
    const struct pd_kv_result *r = &leg->result;
    const struct pd_leg_prefill *p = &leg->ask->prefills[leg->candidate - 1];
    struct pd_leg_handover m;
    struct pd_str bytes;
    memset(&m, 0, sizeof m);
    m.verdict = r->verdict;
    m.blocks = r->verified != 0 ? r->blocks : 0;
    m.bytes = r->bytes;
    m.prefill_ns = now_of(leg) - leg->order_at;
    m.transfer_ns = r->transfer_ns + r->verify_ns;
    m.tokens = (leg->conf->handover == DECODE_FULL ? leg->n_tokens : leg->n_tokens - 1) - leg->computed;
    m.transport = (struct pd_str){ r->transport, strlen(r->transport) };
    m.prefill = p->name;
    m.detail = (struct pd_str){ r->reason, strlen(r->reason) };
    if (leg->record != NULL) {
        leg->record->kv_bytes = r->bytes;
        leg->record->kv_blocks = r->blocks;
        leg->record->digests = m.blocks;
        leg->record->handover_ns = m.transfer_ns;
        snprintf(leg->record->transport, sizeof leg->record->transport, "%s", r->transport);
    }
    return d->api->handover_encode(d->apis, &m, &bytes) != PD_OK || leg_send(leg, PD_LEG_HANDOVER, bytes);
}

/* Goes on once both the verdict and the first token are here. */
static void leg_advance(struct leg *leg)
{
    if (leg->state != MOVING || !leg->is_valid || leg->dest != NULL)
        return;
    if (leg->ends_at_once) {
        leg_finish(leg, PD_FINISH_STOP);
        return;
    }
    if (leg->conf->handover == DECODE_FULL && !leg->has_first) {
        if (leg->order == NULL)
            leg_next_prefill(leg, "the first token did not come");
        return;
    }
    pd_timer_stop(&leg->order_timer);
    leg_run(leg, leg->has_first);
}

static pd_status dest_send(struct pd_kv_dest *dest, struct pd_str bytes, void *arg)
{
    struct leg *leg = arg;
    struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
    (void)dest;
    if (leg->order == NULL)
        return PD_EPEER;
    return leg->role->peer->call_send(leg->order, PD_ORDER_KV, &iov, 1);
}

static void dest_end(struct pd_kv_dest *dest, const struct pd_kv_result *result, void *arg)
{
    struct leg *leg = arg;
    struct decode *d = leg->role;
    (void)dest;
    leg->dest = NULL;
    leg->result = *result;
    if (leg->state == CLOSING) {
        leg_close(leg);
        return;
    }
    pd_counter_inc(result->verdict == PD_KV_VALID ? d->handovers_valid : d->handovers_other);
    if (!send_handover(leg) || leg->state != MOVING)
        return;
    if (result->verdict != PD_KV_VALID) {
        if (result->verdict == PD_KV_FAILED || result->verdict == PD_KV_TIMEOUT)
            leg->is_hopeless |= now_of(leg) - leg->order_at >= SILENCE;
        leg_next_prefill(leg, result->reason);
        return;
    }
    leg->is_valid = true;
    d->req->stage(d->reqs, leg->record, PD_REQ_VERIFIED, now_of(leg));
    leg_advance(leg);
}

static void order_first(struct leg *leg, struct pd_str bytes)
{
    struct decode *d = leg->role;
    struct pd_leg_token t;
    if (leg->has_first || d->api->token_decode(d->apis, bytes, &t) != PD_OK || t.id < 0 ||
        (uint32_t)t.id >= leg->engine->info.vocab)
        return;
    leg->first = (struct pd_token){ .size = sizeof leg->first, .id = t.id, .position = leg->n_tokens,
                                    .logprob = t.logprob, .n_top = t.n_top, .top = leg->first_top };
    for (uint32_t i = 0; i < t.n_top; i++) {
        if (t.top[i].token < 0 || (uint32_t)t.top[i].token >= leg->engine->info.vocab)
            return;
        leg->first_top[i] = (struct pd_logprob){ t.top[i].token, t.top[i].logprob };
    }
    leg->has_first = true;
    leg_advance(leg);
}

static void order_message(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg)
{
    struct leg *leg = arg;
    (void)call;
    switch (type) {
    case PD_ORDER_KV:
        if (leg->dest != NULL)
            leg->role->kv->dest_message(leg->dest, bytes);
        break;
    case PD_ORDER_FIRST:
        order_first(leg, bytes);
        break;
    case PD_ORDER_STOP:
        leg->ends_at_once = true;
        leg_advance(leg);
        break;
    default:
        break;
    }
}

/* Whether the peer had said nothing for long when its link went. */
static bool was_silent(const struct leg *leg)
{
    struct decode *d = leg->role;
    struct pd_peer_info info;
    return d->peer->info(d->peers, leg->peer, &info) == PD_OK && now_of(leg) - info.seen_at >= SILENCE;
}

static void order_end(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    struct leg *leg = arg;
    (void)call;
    leg->order = NULL;
    if (status == PD_EPEER)
        leg->is_hopeless = was_silent(leg);
    if (status != PD_OK)
        pd_log_req(leg->role->log, PD_LOG_INFO, leg->ask->request_id,
                   "prefill on \"%.*s\" ended: %s%s%.*s",
                   PD_STR_ARG(leg->ask->prefills[leg->candidate - 1].name),
                   pd_host()->status_text(status), bytes.n > 0 ? ": " : "", PD_STR_ARG(bytes));
    if (leg->dest != NULL) {
        leg->role->kv->dest_abort(leg->dest, true);
        return;
    }
    leg_advance(leg);
}

static const struct pd_call_events order_events = {
    .size = sizeof order_events,
    .on_message = order_message,
    .on_end = order_end,
};

static const struct pd_kv_dest_events dest_events = {
    .size = sizeof dest_events,
    .on_send = dest_send,
    .on_end = dest_end,
};

/* Sends the order with a grant for our blocks.  False when this candidate
 * cannot be used; nothing is held then. */
static bool order_open(struct leg *leg)
{
    struct decode *d = leg->role;
    const struct pd_leg_prefill *p = &leg->ask->prefills[leg->candidate - 1];
    struct pd_kv_region *region = d->kv->region(d->kvs, leg->engine->name);
    uint32_t block_tokens = leg->engine->info.layout.block_tokens;
    uint32_t to = leg->conf->handover == DECODE_FULL ? leg->n_tokens : leg->n_tokens - 1;
    uint32_t n_blocks = (to + block_tokens - 1) / block_tokens;
    if (region == NULL || to <= leg->computed || d->kv->can_receive(d->kvs, leg->peer, region) != PD_OK)
        return false;
    uint32_t *blocks = malloc((size_t)n_blocks * sizeof *blocks);
    if (blocks == NULL)
        return false;
    pd_status status = leg->engine->ops->seq_blocks(leg->seq, 0, n_blocks, blocks, NULL);
    struct pd_kv_dest_params params = {
        .size = sizeof params, .peer = leg->peer, .region = region, .blocks = blocks,
        .n_blocks = n_blocks, .tokens = leg->tokens, .from = leg->computed, .to = to,
        .request_id = leg->ask->request_id,
    };
    if (status == PD_OK)
        status = d->kv->dest_open(d->kvs, &params, &dest_events, leg, &leg->dest);
    free(blocks);
    if (status != PD_OK)
        return false;
    struct pd_leg_order order = {
        .size = sizeof order, .request_id = leg->ask->request_id, .engine = p->engine,
        .cache_salt = leg->ask->cache_salt, .tokens = leg->tokens, .n_tokens = leg->n_tokens,
        .from = leg->computed, .upto = to, .n_output = leg->ask->n_output, .sample = leg->conf->handover == DECODE_FULL,
        .priority = leg->ask->priority, .deadline_ms = leg->conf->prefill_timeout / PD_MS,
        .sampling = leg->ask->sampling, .grant = d->kv->dest_grant(leg->dest),
    };
    struct pd_str bytes;
    status = d->api->order_encode(d->apis, &order, &bytes);
    if (status == PD_OK) {
        struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
        status = d->peer->call_open(d->peers, leg->peer, PD_SERVICE_PREFILL, 0, &iov, 1, &order_events,
                                    leg, &leg->order);
    }
    leg->state = MOVING;
    leg->order_at = now_of(leg);
    d->req->stage(d->reqs, leg->record, PD_REQ_PREFILL_SENT, now_of(leg));
    snprintf(leg->record->prefill, sizeof leg->record->prefill, "%.*s", PD_STR_ARG(p->name));
    pd_timer_start(&leg->order_timer, leg->conf->prefill_timeout);
    if (status != PD_OK) {
        /* The windows are open: their end brings the leg to the next candidate. */
        leg->order = NULL;
        d->kv->dest_abort(leg->dest, true);
    }
    return true;
}

/* Asks this candidate, or reaches for it first.  False: it is not possible. */
static bool candidate_try(struct leg *leg, const struct pd_leg_prefill *p)
{
    struct decode *d = leg->role;
    pd_status status = d->peer->reach(d->peers, &p->node, p->address, &leg->peer);
    if (!leg->is_reached_again)
        leg->order_at = now_of(leg);
    if (status == PD_PENDING) {
        leg->state = REACHING;
        pd_timer_start(&leg->order_timer, leg->conf->prefill_timeout);
        return true;
    }
    return status == PD_OK && order_open(leg);
}

/* Tries candidates in order; without one left the prompt is computed here.  The
 * router is told, because it was told something else before. */
static void leg_next_prefill(struct leg *leg, const char *why)
{
    struct decode *d = leg->role;
    char reason[96] = "no prefill node could be used";
    bool is_told = why == NULL; /* that the next candidate is asked */
    if (leg->order != NULL) {
        d->peer->call_cancel(leg->order);
        leg->order = NULL;
    }
    pd_timer_stop(&leg->order_timer);
    leg->has_first = leg->is_valid = leg->ends_at_once = false;
    if (why != NULL) {
        const struct pd_leg_prefill *p = &leg->ask->prefills[leg->candidate - 1];
        pd_counter_inc(d->fallbacks);
        snprintf(reason, sizeof reason, "prefill on %.*s failed: %s", PD_STR_ARG(p->name), why);
        pd_log_req(d->log, PD_LOG_INFO, leg->ask->request_id, "%s", reason);
        d->req->note(leg->record, "%s", reason);
    }
    while (leg->candidate < leg->ask->n_prefills && !leg->is_hopeless) {
        const struct pd_leg_prefill *p = &leg->ask->prefills[leg->candidate++];
        leg->is_reached_again = false;
        if (!is_told && !send_started(leg, p, reason))
            return;
        if (candidate_try(leg, p))
            return;
        is_told = false;
        snprintf(reason, sizeof reason, "prefill on %.*s is not possible", PD_STR_ARG(p->name));
        d->req->note(leg->record, "%s", reason);
    }
    pd_counter_inc(d->local);
    if (send_started(leg, NULL, reason))
        leg_run(leg, false);
}

void decode_legs_peer(struct decode *d, pd_peer_ref peer, uint32_t what)
{
    struct leg *next;
    for (struct leg *leg = d->legs; leg != NULL; leg = next) {
        next = leg->next;
        if (leg->state != REACHING || leg->peer != peer)
            continue;
        if (what == PD_PEER_ON_GONE && !leg->is_reached_again) {
            /* The node has started again, which the router knew before us. */
            leg->is_reached_again = true;
            leg->peer = 0;
            pd_loop_defer(d->loop, &d->retry);
        } else if (what == PD_PEER_ON_UP) {
            pd_timer_stop(&leg->order_timer);
            if (!order_open(leg))
                leg_next_prefill(leg, "no transport or no engine in common");
        } else if (what == PD_PEER_ON_DOWN || what == PD_PEER_ON_GONE) {
            leg->is_hopeless = now_of(leg) - leg->order_at >= SILENCE;
            leg_next_prefill(leg, "it could not be reached");
        }
    }
}

static void order_timeout(struct pd_timer *timer, void *arg)
{
    struct leg *leg = arg;
    (void)timer;
    if (leg->state == REACHING) {
        leg_next_prefill(leg, "it could not be reached in time");
    } else if (leg->state == MOVING) {
        if (leg->dest != NULL)
            leg->role->kv->dest_abort(leg->dest, false);
        else
            leg_next_prefill(leg, "it took too long");
    }
}

/* ---- start ------------------------------------------------------------------ */

static void leg_run(struct leg *leg, bool with_first)
{
    struct decode *d = leg->role;
    const struct pd_engine_ops *ops = leg->engine->ops;
    uint32_t to = leg->conf->handover == DECODE_FULL ? leg->n_tokens : leg->n_tokens - 1;
    pd_status status = PD_OK;
    if (leg->is_valid)
        status = ops->seq_import(leg->seq, to);
    if (status == PD_OK)
        status = ops->seq_run(leg->seq, PD_RUN_DECODE, 0, with_first ? &leg->first : NULL);
    leg->state = RUNNING;
    if (status != PD_OK) {
        pd_log_req(d->log, PD_LOG_ERROR, leg->ask->request_id, "engine \"%s\" cannot run a sequence: %s",
                   leg->engine->name, pd_host()->status_text(status));
        leg_fail(leg, 502, "server_error", "engine_protocol", "the engine failed");
    }
}

/* Tells where the prompt is computed (prefill NULL: here) and why.  False: the leg
 * was ended. */
static bool send_started(struct leg *leg, const struct pd_leg_prefill *prefill, const char *reason)
{
    struct decode *d = leg->role;
    struct pd_str bytes;
    struct pd_leg_started m = {
        .prompt_tokens = leg->n_tokens - leg->ask->n_output, .cached_tokens = leg->cached,
        .remote = prefill != NULL,
        .reason = { reason, strlen(reason) },
    };
    if (prefill != NULL)
        m.prefill = prefill->name;
    leg->record->remote = m.remote;
    leg->record->prompt_tokens = m.prompt_tokens;
    leg->record->cached_tokens = m.cached_tokens;
    snprintf(leg->record->reason, sizeof leg->record->reason, "%s", reason);
    snprintf(leg->record->prefill, sizeof leg->record->prefill, "%.*s", PD_STR_ARG(m.prefill));
    return d->api->started_encode(d->apis, &m, &bytes) != PD_OK || leg_send(leg, PD_LEG_STARTED, bytes);
}

/* Local or remote, now that the exact number of uncached tokens is known. */
static void leg_decide(struct leg *leg)
{
    const struct pd_leg *ask = leg->ask;
    uint32_t uncached = leg->n_tokens - leg->computed;
    uint32_t wanted = uncached;
    if (leg->conf->handover == DECODE_N_MINUS_1 && wanted > 0)
        wanted--; /* the last token is computed here */
    char reason[96];
    bool is_remote = false;
    leg->cached = leg->computed < leg->n_tokens - ask->n_output ? leg->computed
                                                                : leg->n_tokens - ask->n_output;
    if (ask->decide == PD_DECIDE_LOCAL)
        snprintf(reason, sizeof reason, "%.*s", PD_STR_ARG(ask->decide_reason));
    else if (ask->n_prefills == 0)
        snprintf(reason, sizeof reason, "no prefill node");
    else if (wanted == 0)
        snprintf(reason, sizeof reason, "all that could be handed over is cached here");
    else if ((leg->engine->info.flags & PD_ENGINE_IMPORT) == 0)
        snprintf(reason, sizeof reason, "this engine cannot take KV from elsewhere");
    else if (ask->decide == PD_DECIDE_EXACT && uncached < ask->min_tokens)
        snprintf(reason, sizeof reason, "%u uncached tokens, remote from %llu", uncached,
                 (unsigned long long)ask->min_tokens);
    else {
        is_remote = true;
        if (ask->decide == PD_DECIDE_EXACT)
            snprintf(reason, sizeof reason, "%u uncached tokens, remote from %llu", uncached,
                     (unsigned long long)ask->min_tokens);
        else
            snprintf(reason, sizeof reason, "%.*s", PD_STR_ARG(ask->decide_reason));
    }
    if (!send_started(leg, is_remote ? &ask->prefills[0] : NULL, reason))
        return;
    if (is_remote) {
        leg_next_prefill(leg, NULL);
    } else {
        pd_counter_inc(leg->role->local);
        leg_run(leg, false);
    }
}

/* Reserves blocks.  PD_EAGAIN: wait. */
static pd_status leg_open(struct leg *leg)
{
    static const struct pd_seq_events events = {
        .size = sizeof events, .on_token = on_token, .on_finish = on_finish
    };
    struct pd_seq_params params = {
        .size = sizeof params, .n_tokens = leg->n_tokens, .tokens = leg->tokens,
        .cache_salt = leg->ask->cache_salt, .sampling = leg->ask->sampling,
        .max_output = leg->max_output, .n_output_given = leg->ask->n_output,
        .priority = leg->ask->priority, .request_id = leg->ask->request_id,
    };
    return leg->engine->ops->seq_open(leg->engine->engine, &params, &events, leg, &leg->seq,
                                      &leg->computed);
}

static void leg_begin(struct leg *leg)
{
    struct decode *d = leg->role;
    pd_status status = d->waiting_first != NULL ? PD_EAGAIN : leg_open(leg);
    if (status == PD_OK) {
        leg_decide(leg);
        return;
    }
    if (status == PD_ELIMIT) {
        leg_fail(leg, 400, "invalid_request_error", "context_length_exceeded",
                 "the prompt needs more KV blocks than the model has");
        return;
    }
    if (status != PD_EAGAIN || d->n_waiting >= leg->conf->queue ||
        d->waiting_tokens + leg->n_tokens > leg->conf->queue_tokens) {
        leg_fail(leg, 429, "rate_limit_error", "queue_full", "too many requests wait for memory");
        return;
    }
    leg->state = WAITING;
    d->req->stage(d->reqs, leg->record, PD_REQ_QUEUED, now_of(leg));
    leg->wait_next = NULL;
    if (d->waiting_last != NULL)
        d->waiting_last->wait_next = leg;
    else
        d->waiting_first = leg;
    d->waiting_last = leg;
    d->n_waiting++;
    d->waiting_tokens += leg->n_tokens;
    if (!pd_timer_is_active(&d->retry_timer))
        pd_timer_start(&d->retry_timer, 10 * PD_MS);
}

static void legs_reach_again(struct decode *d)
{
    struct leg *next;
    for (struct leg *leg = d->legs; leg != NULL; leg = next) {
        next = leg->next;
        if (leg->state == REACHING && leg->peer == 0 &&
            !candidate_try(leg, &leg->ask->prefills[leg->candidate - 1]))
            leg_next_prefill(leg, "it could not be reached");
    }
}

void decode_legs_retry(struct decode *d)
{
    legs_reach_again(d);
    while (d->waiting_first != NULL) {
        struct leg *leg = d->waiting_first;
        pd_status status = leg_open(leg);
        if (status == PD_EAGAIN) {
            pd_timer_start(&d->retry_timer, 10 * PD_MS);
            return;
        }
        waiting_remove(leg);
        if (status == PD_OK)
            leg_decide(leg);
        else
            leg_fail(leg, 503, "server_error", "overloaded", "out of memory");
    }
}

static pd_status leg_encode(struct leg *leg)
{
    const struct pd_node_engine *e = leg->engine;
    const struct pd_leg *ask = leg->ask;
    size_t cap = e->info.context_tokens, n = 0;
    pd_status status = PD_OK;
    leg->tokens = malloc(cap * sizeof *leg->tokens);
    if (leg->tokens == NULL)
        return PD_ENOMEM;
    if (ask->kind == PD_API_CHAT) {
        status = e->ops->encode_chat(e->engine, ask->messages, ask->n_messages, leg->tokens, cap, &n);
    } else if (ask->prompt.tokens != NULL) {
        n = ask->prompt.n_tokens;
        if (n > cap)
            return PD_ELIMIT;
        for (size_t i = 0; i < n; i++) {
            if ((uint32_t)ask->prompt.tokens[i] >= e->info.vocab)
                return PD_EINVAL;
            leg->tokens[i] = ask->prompt.tokens[i];
        }
    } else {
        status = e->ops->encode(e->engine, ask->prompt.text, leg->tokens, cap, &n);
    }
    leg->n_tokens = (uint32_t)n;
    return status == PD_OK && n >= cap ? PD_ELIMIT : status;
}

/* Goes on behind what another node has delivered: its tokens are part of the
 * prompt, its text has been shown already.  All of it may be there but the end. */
static pd_status leg_resume(struct leg *leg)
{
    const struct pd_node_engine *e = leg->engine;
    const struct pd_leg *ask = leg->ask;
    uint32_t stopped = 0;
    if (ask->n_output > e->info.context_tokens - leg->n_tokens)
        return PD_ELIMIT;
    for (uint32_t i = 0; i < ask->n_output; i++) {
        struct pd_str shown;
        if (stopped != 0 || ask->output[i] < 0 || (uint32_t)ask->output[i] >= e->info.vocab)
            return PD_EINVAL;
        leg->tokens[leg->n_tokens++] = ask->output[i];
        pd_status status = leg->role->api->text_add(leg->text, e->ops->piece(e->engine, ask->output[i]),
                                                    &shown, &stopped);
        if (status != PD_OK)
            return status;
    }
    leg->n_output = ask->n_output;
    leg->is_stopped = stopped != 0;
    return PD_OK;
}

static void on_deadline(struct pd_timer *timer, void *arg)
{
    (void)timer;
    leg_fail(arg, 504, "timeout_error", "deadline_exceeded", "the request took longer than allowed");
}

static void call_ended(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    struct leg *leg = arg;
    (void)call;
    (void)status;
    (void)bytes;
    leg->call = NULL;
    leg_stop(leg, false);
    leg_close(leg);
}

static void call_writable(struct pd_call *call, void *arg)
{
    (void)call;
    call_flush(arg);
}

static const struct pd_call_events call_events = {
    .size = sizeof call_events,
    .on_end = call_ended,
    .on_writable = call_writable,
};

/* Ends a call for which there is no leg. */
static void call_refuse(struct decode *d, struct pd_call *call, uint32_t http, const char *type,
                        const char *code, const char *message)
{
    struct pd_leg_end end;
    struct pd_str bytes;
    memset(&end, 0, sizeof end);
    end.reason = PD_FINISH_ERROR;
    d->api->error_set(&end.error, http, type, code, "%s", message);
    if (http == 503 || http == 429)
        end.error.retry_after_ms = 1000;
    if (d->api->end_encode(d->apis, &end, &bytes) != PD_OK)
        bytes = (struct pd_str){ "", 0 };
    d->peer->call_end(call, PD_OK, bytes);
}

void decode_leg_accept(struct decode *d, struct pd_call *call, struct pd_str first)
{
    struct pd_api_message *message;
    if (d->is_draining || d->is_closing) {
        call_refuse(d, call, 503, "server_error", "draining", "this node takes no new requests");
        return;
    }
    pd_status status = d->api->leg_decode(d->apis, first, &message);
    if (status != PD_OK) {
        call_refuse(d, call, 502, "server_error", "engine_protocol", "the request was not understood");
        return;
    }
    const struct pd_node_engine *engine = d->node->engine_find(d->nodes, message->leg->engine);
    struct leg *leg = engine != NULL && (engine->roles & PD_ROLE_DECODE) != 0 ? calloc(1, sizeof *leg)
                                                                              : NULL;
    if (leg == NULL) {
        d->api->message_free(d->apis, message);
        call_refuse(d, call, 503, "server_error", "no_decode", "the model is not served here");
        return;
    }
    leg->role = d;
    leg->conf = d->conf;
    leg->message = message;
    leg->ask = message->leg;
    leg->engine = engine;
    pd_timer_init(&leg->deadline, d->loop, "decode deadline", on_deadline, leg);
    pd_timer_init(&leg->order_timer, d->loop, "decode prefill timeout", order_timeout, leg);
    if (d->req->begin(d->reqs, leg->ask->request_id, PD_ROLE_DECODE, pd_loop_now(d->loop),
                      &leg->record) != PD_OK ||
        d->api->text_create(d->apis, leg->ask->stops, leg->ask->n_stops, &leg->text) != PD_OK) {
        record_finish(leg, PD_REQ_SHED, 429, "queue_full");
        d->api->message_free(d->apis, message);
        free(leg);
        call_refuse(d, call, 429, "rate_limit_error", "queue_full", "too many requests");
        return;
    }
    leg->generation = d->node->generation_hold(d->nodes);
    leg->record->api = PD_REQ_API_NONE;
    snprintf(leg->record->model, sizeof leg->record->model, "%.*s", PD_STR_ARG(leg->ask->model));
    snprintf(leg->record->decode, sizeof leg->record->decode, "%s", d->node->name(d->nodes));
    leg->record->user = leg;
    leg->next = d->legs;
    if (d->legs != NULL)
        d->legs->link = &leg->next;
    d->legs = leg;
    leg->link = &d->legs;
    d->n_legs++;
    leg->call = call;
    d->peer->call_accept(call, &call_events, leg);
    if (leg->ask->deadline_ms != 0 && leg->ask->deadline_ms < PD_TIME_NEVER / PD_MS)
        pd_timer_start(&leg->deadline, leg->ask->deadline_ms * PD_MS);
    status = leg_encode(leg);
    if (status == PD_OK && leg->n_tokens > 0 && leg->ask->n_output > 0)
        status = leg_resume(leg);
    if (status == PD_ELIMIT) {
        leg_fail(leg, 400, "invalid_request_error", "context_length_exceeded",
                 "the prompt is longer than the model's context");
    } else if (status == PD_EINVAL || status == PD_EDECLINED) {
        leg_fail(leg, 400, "invalid_request_error", "invalid_value",
                 status == PD_EINVAL ? "the prompt is not valid text or has unknown tokens"
                                     : "a message has a role that the model does not know");
    } else if (status != PD_OK || leg->n_tokens == 0) {
        leg_fail(leg, status == PD_OK ? 400 : 503, status == PD_OK ? "invalid_request_error" : "server_error",
                 status == PD_OK ? "invalid_value" : "overloaded",
                 status == PD_OK ? "the prompt is empty" : "out of memory");
    } else {
        uint32_t room = engine->info.context_tokens - leg->n_tokens + leg->ask->n_output;
        leg->max_output = leg->ask->max_output != 0 && leg->ask->max_output < room ? leg->ask->max_output
                                                                                    : room;
        if (leg->is_stopped || leg->n_output >= leg->max_output)
            leg_finish(leg, leg->is_stopped ? PD_FINISH_STOP : PD_FINISH_LENGTH);
        else
            leg_begin(leg);
    }
}

void decode_legs_end(struct decode *d, const char *code, const char *message)
{
    struct leg *next;
    for (struct leg *leg = d->legs; leg != NULL; leg = next) {
        next = leg->next;
        /* The role may be freed with its last leg; nothing is touched after it. */
        if (!leg->has_end) {
            leg_fail(leg, 503, "server_error", code, message);
        } else if (leg->call != NULL) {
            /* Tokens are lost with this, so it is no good end. */
            leg->unsent_n = 0;
            end_fill(leg, &leg->end, PD_FINISH_ERROR);
            d->api->error_set(&leg->end.error, 503, "server_error", code, "%s", message);
            call_finish(leg);
            leg_close(leg);
        }
    }
}
