/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a leg from its call on: what it is asked, its blocks, local or remote. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leg.h"

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
    if (!leg_send_started(leg, is_remote ? &ask->prefills[0] : NULL, reason))
        return;
    if (is_remote) {
        leg_next_prefill(leg, NULL);
    } else {
        pd_counter_inc(leg->role->local);
        leg_run(leg, false);
    }
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
    d->req->stage(d->reqs, leg->record, PD_REQ_QUEUED, leg_now(leg));
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
            !leg_candidate_try(leg, &leg->ask->prefills[leg->candidate - 1]))
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
        leg_waiting_remove(leg);
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
    leg_call_flush(arg);
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
    pd_timer_init(&leg->order_timer, d->loop, "decode prefill timeout", leg_order_timeout, leg);
    if (d->req->begin(d->reqs, leg->ask->request_id, PD_ROLE_DECODE, pd_loop_now(d->loop),
                      &leg->record) != PD_OK ||
        d->api->text_create(d->apis, leg->ask->stops, leg->ask->n_stops, &leg->text) != PD_OK) {
        leg_record_finish(leg, PD_REQ_SHED, 429, "queue_full");
        d->api->message_free(d->apis, message);
        free(leg);
        call_refuse(d, call, 429, "rate_limit_error", "queue_full", "too many requests");
        return;
    }
    leg->generation = d->node->generation_hold(d->nodes);
    leg->record->api = PD_REQ_API_NONE;
    d->req->text(d->reqs, leg->record, &leg->record->model, leg->ask->model);
    const char *name = d->node->name(d->nodes);
    d->req->text(d->reqs, leg->record, &leg->record->decode, (struct pd_str){ name, strlen(name) });
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

void decode_legs_end(struct decode *d, const struct pd_node_generation *generation, const char *code,
                     const char *message)
{
    struct leg *next;
    for (struct leg *leg = d->legs; leg != NULL; leg = next) {
        next = leg->next;
        if (generation != NULL && leg->generation != generation)
            continue;
        /* The role may be freed with its last leg; nothing is touched after it. */
        if (!leg->has_end) {
            leg_fail(leg, 503, "server_error", code, message);
        } else if (leg->call != NULL) {
            /* Tokens are lost with this, so it is no good end. */
            leg->unsent_n = 0;
            leg_end_fill(leg, &leg->end, PD_FINISH_ERROR);
            d->api->error_set(&leg->end.error, 503, "server_error", code, "%s", message);
            leg_call_finish(leg);
            leg_close(leg);
        }
    }
}
