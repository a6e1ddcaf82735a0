/* SPDX-License-Identifier: Apache-2.0 */
/* The remote prefill of a leg: candidates, the order, and the KV that comes in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leg.h"

/* A prefill node whose failure was noticed only by silence has cost the request
 * this much already; what silenced it may well be on our side, so no other one is
 * tried, and the prompt is computed here. */
#define SILENCE (2 * PD_SEC)

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
    m.prefill_ns = leg_now(leg) - leg->order_at;
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
        d->req->text(d->reqs, leg->record, &leg->record->transport, m.transport);
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
            leg->is_hopeless |= leg_now(leg) - leg->order_at >= SILENCE;
        leg_next_prefill(leg, result->reason);
        return;
    }
    leg->is_valid = true;
    d->req->stage(d->reqs, leg->record, PD_REQ_VERIFIED, leg_now(leg));
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
    return d->peer->info(d->peers, leg->peer, &info) == PD_OK && leg_now(leg) - info.seen_at >= SILENCE;
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
    if (region == NULL || to <= leg->computed)
        return false;
    uint32_t match = d->kv->match(d->kvs, leg->peer, region, p->engine);
    if (match != PD_KV_MATCH_OK) {
        pd_counter_inc(d->unfit[match]);
        leg->unfit = match;
        return false;
    }
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
    leg->order_at = leg_now(leg);
    d->req->stage(d->reqs, leg->record, PD_REQ_PREFILL_SENT, leg_now(leg));
    d->req->text(d->reqs, leg->record, &leg->record->prefill, p->name);
    pd_timer_start(&leg->order_timer, leg->conf->prefill_timeout);
    if (status != PD_OK) {
        /* The windows are open: their end brings the leg to the next candidate. */
        leg->order = NULL;
        d->kv->dest_abort(leg->dest, true);
    }
    return true;
}

/* Asks this candidate, or reaches for it first.  False: it is not possible. */
bool leg_candidate_try(struct leg *leg, const struct pd_leg_prefill *p)
{
    struct decode *d = leg->role;
    pd_status status = d->peer->reach(d->peers, &p->node, p->address, &leg->peer);
    if (!leg->is_reached_again)
        leg->order_at = leg_now(leg);
    if (status == PD_PENDING) {
        leg->state = REACHING;
        pd_timer_start(&leg->order_timer, leg->conf->prefill_timeout);
        return true;
    }
    return status == PD_OK && order_open(leg);
}

static const char *unfit_text(const struct leg *leg)
{
    static const char *const text[PD_KV_MATCHES] = {
        [PD_KV_MATCH_OK] = "nothing is to be moved, or no link is there", [PD_KV_MATCH_GONE] = "it is gone",
        [PD_KV_MATCH_TRANSPORT] = "no transport in common", [PD_KV_MATCH_MODEL] = "its weights differ",
        [PD_KV_MATCH_LAYOUT] = "its layout of KV differs",
    };
    return text[leg->unfit];
}

/* Tries candidates in order; without one left the prompt is computed here.  The
 * router is told, because it was told something else before. */
void leg_next_prefill(struct leg *leg, const char *why)
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
        leg->unfit = PD_KV_MATCH_OK;
        if (!is_told && !leg_send_started(leg, p, reason))
            return;
        if (leg_candidate_try(leg, p))
            return;
        is_told = false;
        snprintf(reason, sizeof reason, "prefill on %.*s is not possible: %s", PD_STR_ARG(p->name),
                 unfit_text(leg));
        d->req->note(leg->record, "%s", reason);
    }
    pd_counter_inc(d->local);
    if (leg_send_started(leg, NULL, reason))
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
                leg_next_prefill(leg, unfit_text(leg));
        } else if (what == PD_PEER_ON_DOWN || what == PD_PEER_ON_GONE) {
            leg->is_hopeless = leg_now(leg) - leg->order_at >= SILENCE;
            leg_next_prefill(leg, "it could not be reached");
        }
    }
}

void leg_order_timeout(struct pd_timer *timer, void *arg)
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
