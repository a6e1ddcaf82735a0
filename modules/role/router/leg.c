/* SPDX-License-Identifier: Apache-2.0 */
/* A leg of a request: sent to a decode node that the scheduler chose, its tokens merged
 * with those of the others into one answer; tried again elsewhere while that is allowed. */
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pd_http_header sse_headers[] = {
    { { "content-type", 12 }, { "text/event-stream; charset=utf-8", 32 } },
    { { "cache-control", 13 }, { "no-cache", 8 } },
};

/* ---- the answer ----------------------------------------------------------------------- */

static void answer_begin(struct request *q)
{
    struct router *r = q->router;
    struct pd_http_header headers[4];
    size_t n = 2;
    if (q->is_begun)
        return;
    memcpy(headers, sse_headers, sizeof sse_headers);
    if (q->conf->node_headers) {
        headers[n++] = (struct pd_http_header){ PD_STR("x-pdplane-decode"),
                                                { q->record->decode, strlen(q->record->decode) } };
        if (q->record->prefill[0] != '\0')
            headers[n++] = (struct pd_http_header){ PD_STR("x-pdplane-prefill"),
                                                    { q->record->prefill, strlen(q->record->prefill) } };
    }
    q->is_begun = true;
    r->net->begin(q->http, 200, headers, n, PD_HTTP_UNKNOWN_LENGTH);
}

static void answer_write(struct request *q, struct pd_str bytes)
{
    if (bytes.n == 0)
        return;
    answer_begin(q);
    if (q->router->net->write(q->http, bytes) > PD_HTTP_HIGH_WATER && !q->is_paused)
        request_pause(q, true);
}

static void answer_finish(struct request *q)
{
    static const struct pd_http_header json_type[] = {
        { { "content-type", 12 }, { "application/json", 16 } },
    };
    struct router *r = q->router;
    struct pd_str out;
    r->req->stage(r->reqs, q->record, PD_REQ_FINISHING, now_of(q));
    pd_status status = q->api->stream ? r->api->answer_done(q->answer, &out)
                                      : r->api->answer_body(q->answer, &out);
    if (status != PD_OK) {
        request_failf(q, 500, "server_error", "internal", "the answer is too large");
        return;
    }
    if (q->api->stream) {
        answer_write(q, out);
        r->net->end(q->http);
    } else {
        struct pd_http_header headers[3] = { json_type[0] };
        size_t n = 1;
        if (q->conf->node_headers)
            headers[n++] = (struct pd_http_header){ PD_STR("x-pdplane-decode"),
                                                    { q->record->decode, strlen(q->record->decode) } };
        if (q->conf->node_headers && q->record->prefill[0] != '\0')
            headers[n++] = (struct pd_http_header){ PD_STR("x-pdplane-prefill"),
                                                    { q->record->prefill, strlen(q->record->prefill) } };
        r->net->respond(q->http, 200, headers, n, out);
    }
    request_done(q, 200);
}

/* ---- messages of a decode node ---------------------------------------------------------- */

/* The prefill endpoint of the leg's plan with this name; it may be gone by now. */
static const struct pd_endpoint_ref *prefill_named(const struct leg *leg, struct pd_str name)
{
    struct router *r = leg->request->router;
    for (uint32_t i = 0; i < leg->n_prefills; i++) {
        struct pd_endpoint_status s = { .size = sizeof s };
        if (r->sched->endpoint_get(r->scheds, leg->prefill->refs[i], now_of(leg->request), &s) == PD_OK &&
            strlen(s.view.name) == name.n && memcmp(s.view.name, name.p, name.n) == 0)
            return &leg->prefill->refs[i];
    }
    return NULL;
}

static void leg_started(struct leg *leg, const struct pd_leg_started *m)
{
    struct request *q = leg->request;
    struct router *r = q->router;
    struct pd_req *rec = q->record;
    rec->prompt_tokens = m->prompt_tokens;
    rec->cached_tokens = m->cached_tokens;
    rec->remote = m->remote;
    set_text(q, &q->record->reason, m->reason);
    struct pd_explain_line line = {
        .kind = PD_EXPLAIN_DECISION, .subject = m->remote ? PD_STR("remote") : PD_STR("local"),
        .plugin = PD_STR("decode node"), .text = m->reason,
    };
    r->req->explain(rec, &line);
    /* Told again when a prefill node failed: by another one, or on the decode node. */
    leg_prefill_end(leg, PD_DISPATCH_FAILED);
    set_text(q, &q->record->prefill, m->prefill);
    const struct pd_endpoint_ref *p = prefill_named(leg, m->prefill);
    if (!m->remote || p == NULL)
        return;
    r->req->stage(r->reqs, rec, PD_REQ_PREFILL_SENT, now_of(q));
    r->sched->dispatch(r->scheds, *p, PD_ROLE_PREFILL,
                       &q->prompts[leg->index / q->api->n_choices],
                       m->prompt_tokens - m->cached_tokens, now_of(q), &leg->prefill->dispatch);
}

static void leg_handover(struct leg *leg, const struct pd_leg_handover *m)
{
    struct request *q = leg->request;
    struct router *r = q->router;
    struct pd_req *rec = q->record;
    bool is_valid = m->verdict == 1;
    rec->kv_bytes += m->bytes;
    rec->kv_blocks += m->blocks;
    rec->digests += m->blocks;
    rec->handover_ns = m->transfer_ns;
    set_text(q, &q->record->transport, m->transport);
    set_text(q, &q->record->prefill, m->prefill);
    if (is_valid) {
        r->req->note(rec, "hand-over from %.*s valid: %llu bytes of %u tokens over %.*s, %u digests, "
                          "prefill %.2f ms", PD_STR_ARG(m->prefill), (unsigned long long)m->bytes,
                     m->tokens, PD_STR_ARG(m->transport), m->blocks, (double)m->prefill_ns / 1e6);
        r->req->stage(r->reqs, rec, PD_REQ_VERIFIED, now_of(q));
        leg_prefill_computed(leg);
    } else {
        r->req->note(rec, "hand-over from %.*s failed: %.*s", PD_STR_ARG(m->prefill),
                     PD_STR_ARG(m->detail));
    }
    leg_prefill_end(leg, is_valid ? PD_DISPATCH_OK : PD_DISPATCH_FAILED);
}

static bool output_add(struct leg *leg, int32_t id)
{
    if (leg->n_output == leg->output_cap) {
        uint32_t cap = leg->output_cap == 0 ? 64 : leg->output_cap * 2;
        int32_t *p = realloc(leg->output, (size_t)cap * sizeof *p);
        if (p == NULL)
            return false;
        leg->output = p;
        leg->output_cap = cap;
    }
    leg->output[leg->n_output++] = id;
    return true;
}

static void leg_token(struct leg *leg, const struct pd_leg_token *token)
{
    struct request *q = leg->request;
    struct router *r = q->router;
    struct pd_str out;
    if (token->index != leg->n_output) {
        request_failf(q, 502, "server_error", "engine_protocol", "the engine's answer has a gap");
        return;
    }
    r->req->stage(r->reqs, q->record, PD_REQ_DECODING, now_of(q));
    r->sched->computed(r->scheds, &leg->decode);
    if (!output_add(leg, token->id)) {
        request_failf(q, 503, "server_error", "overloaded", "out of memory");
        return;
    }
    if (q->start != NULL)
        request_comes(q);
    r->req->tokens(r->reqs, q->record, 1, now_of(q));
    if (r->api->answer_token(q->answer, leg->index, token, &out) != PD_OK) {
        request_failf(q, 502, "server_error", "engine_protocol", "the engine's answer was not understood");
        return;
    }
    answer_write(q, out);
}

static void on_message(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg)
{
    struct leg *leg = arg;
    struct router *r = leg->request->router;
    union {
        struct pd_leg_started started;
        struct pd_leg_handover handover;
        struct pd_leg_token token;
    } m;
    pd_status status = PD_OK;
    (void)call;
    switch (type) {
    case PD_LEG_STARTED:
        status = r->api->started_decode(r->apis, bytes, &m.started);
        if (status == PD_OK)
            leg_started(leg, &m.started);
        break;
    case PD_LEG_HANDOVER:
        status = r->api->handover_decode(r->apis, bytes, &m.handover);
        if (status == PD_OK)
            leg_handover(leg, &m.handover);
        break;
    case PD_LEG_TOKEN:
        status = r->api->token_decode(r->apis, bytes, &m.token);
        if (status == PD_OK) {
            leg_token(leg, &m.token);
            return;
        }
        break;
    default:
        break; /* a newer node may tell more */
    }
    if (status != PD_OK)
        request_failf(leg->request, 502, "server_error", "engine_protocol",
                      "the engine's answer was not understood");
}

static void leg_finished(struct leg *leg, const struct pd_leg_end *end)
{
    struct request *q = leg->request;
    struct router *r = q->router;
    struct pd_str out;
    leg->is_done = true;
    r->sched->end(r->scheds, &leg->decode, PD_DISPATCH_OK, now_of(q));
    if (r->api->answer_end(q->answer, leg->index, end, &out) != PD_OK) {
        request_failf(q, 502, "server_error", "engine_protocol", "the engine's answer was not understood");
        return;
    }
    answer_write(q, out);
    q->n_done++;
    if (q->n_done == q->n_legs)
        answer_finish(q);
}

static void on_end(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    struct leg *leg = arg;
    struct request *q = leg->request;
    struct router *r = q->router;
    struct pd_leg_end end;
    (void)call;
    leg->call = NULL;
    if (status == PD_OK && r->api->end_decode(r->apis, bytes, &end) == PD_OK) {
        if (end.reason != PD_FINISH_ERROR) {
            leg_finished(leg, &end);
            return;
        }
        bool is_ours = end.error.http < 500 && end.error.http != 429;
        r->sched->end(r->scheds, &leg->decode, is_ours ? PD_DISPATCH_OK : PD_DISPATCH_FAILED, now_of(q));
        /* A node that stops, stops for every request. */
        bool is_stopping = end.error.code != NULL && strcmp(end.error.code, "draining") == 0;
        if (is_ours || end.error.http == 504 ||
            !leg_again(leg, is_stopping ? LEG_LOST : LEG_FAILED, end.error.message)) {
            end.error.no_retry |= leg->n_output > 0;
            request_fail(q, &end.error);
        }
        return;
    }
    r->sched->end(r->scheds, &leg->decode, PD_DISPATCH_FAILED, now_of(q));
    if (!leg_again(leg, status == PD_EPEER ? LEG_LOST : LEG_FAILED, pd_host()->status_text(status)))
        request_failf(q, leg->n_output > 0 ? 502 : 503, "server_error",
                      leg->n_output > 0 ? "engine_protocol" : "no_decode",
                      leg->n_output > 0 ? "the node that wrote this answer was lost"
                                        : "no node is left for this request");
}

static const struct pd_call_events call_events = {
    .size = sizeof call_events,
    .on_message = on_message,
    .on_end = on_end,
};

/* ---- sending a leg ------------------------------------------------------------------------ */

static uint64_t seed_of(struct request *q, uint32_t choice)
{
    if (!q->has_seed)
        q->seed = q->api->has_seed ? q->api->sampling.seed : pd_loop_random_u64(q->router->loop);
    q->has_seed = true;
    /* Each choice samples on its own; the first one with the client's seed. */
    return q->seed + choice * UINT64_C(0x9e3779b97f4a7c15);
}

static pd_status leg_encode(const struct leg *leg, const struct target *t, const struct pd_sched_plan *plan,
                            struct pd_str *out)
{
    struct request *q = leg->request;
    const struct pd_api_request *a = q->api;
    struct router *r = q->router;
    struct pd_leg m;
    memset(&m, 0, sizeof m);
    m.size = sizeof m;
    m.kind = q->kind;
    m.request_id = (struct pd_str){ q->record->id, strlen(q->record->id) };
    m.index = leg->index;
    m.model = a->model;
    m.engine = (struct pd_str){ t->engine, strlen(t->engine) };
    m.cache_salt = a->cache_salt;
    m.sampling = a->sampling;
    m.sampling.seed = seed_of(q, leg->index % a->n_choices);
    m.max_output = a->max_output;
    m.priority = a->priority;
    m.deadline_ms = q->conf->deadline / PD_MS;
    m.n_stops = a->n_stops;
    for (uint32_t i = 0; i < a->n_stops; i++)
        m.stops[i] = a->stops[i];
    if (q->kind == PD_API_CHAT) {
        m.messages = a->messages;
        m.n_messages = a->n_messages;
    } else {
        m.prompt = a->prompts[leg->index / a->n_choices];
    }
    m.output = leg->output;
    m.n_output = leg->n_output;
    m.decide = plan->decision.mode;
    m.min_tokens = plan->decision.min_tokens;
    m.decide_reason = (struct pd_str){ plan->decision.reason, strlen(plan->decision.reason) };
    for (uint32_t i = 0; i < plan->prefill_n && m.n_prefills < PD_API_MAX_PREFILLS; i++) {
        const struct target *p = plan->prefill[i].user;
        if (p->peer == 0)
            continue;
        m.prefills[m.n_prefills++] = (struct pd_leg_prefill){
            .node = p->node, .name = { p->name, strlen(p->name) },
            .address = { p->address, strlen(p->address) }, .engine = { p->engine, strlen(p->engine) },
        };
    }
    return r->api->leg_encode(r->apis, &m, out);
}

static pd_status leg_schedule(struct leg *leg, struct pd_sched_plan *plan)
{
    struct request *q = leg->request;
    struct router *r = q->router;
    const struct pd_prompt *prompt = &q->prompts[leg->index / q->api->n_choices];
    struct pd_sched_ask ask = {
        .size = sizeof ask, .prefill_max = PD_SCHED_PREFILL_MAX, .model = q->api->model,
        .session = q->api->session, .prompt = prompt, .max_output = q->api->max_output,
        .random = pd_loop_random_u64(r->loop), .now = now_of(q), .avoid = leg->avoid,
        .avoid_n = leg->n_avoid, .explain = { r->req->explain, q->record, r->req->explain_table,
                                            r->req->explain_run },
    };
    if (q->kind == PD_API_COMPLETIONS && q->api->prompts[leg->index / q->api->n_choices].tokens != NULL) {
        ask.prompt_tokens = q->api->prompts[leg->index / q->api->n_choices].n_tokens;
        ask.tokens_exact = 1;
    }
    plan->size = sizeof *plan;
    return r->sched->schedule(r->scheds, &ask, plan);
}

static bool answer_create(struct request *q)
{
    struct router *r = q->router;
    char id[96];
    if (q->answer != NULL)
        return true;
    int n = snprintf(id, sizeof id, "%s-%s", q->kind == PD_API_CHAT ? "chatcmpl" : "cmpl", q->record->id);
    return r->api->answer_create(r->apis, q->api, (struct pd_str){ id, (size_t)n }, q->api->model,
                                 pd_loop_wall(r->loop) / PD_SEC, &q->answer) == PD_OK;
}

static bool is_avoided(const struct leg *leg)
{
    for (uint32_t i = 0; i < leg->n_avoid; i++) {
        if (leg->avoid[i].slot == leg->ref.slot && leg->avoid[i].serial == leg->ref.serial)
            return true;
    }
    return false;
}

bool leg_send(struct leg *leg)
{
    struct request *q = leg->request;
    struct router *r = q->router;
    struct pd_sched_plan plan;
    struct pd_str bytes;
    if (q->start == NULL && !request_start(q)) {
        request_failf(q, 503, "server_error", "overloaded", "out of memory");
        return false;
    }
    for (;;) {
        pd_status status = leg_schedule(leg, &plan);
        if ((status == PD_ENOENT || status == PD_EAGAIN) && leg_wait(leg))
            return true;
        if (status != PD_OK) {
            request_failf(q, 503, "server_error", "no_decode", "no node can take this request now");
            return false;
        }
        struct target *t = plan.decode.user;
        leg->ref = plan.decode.ref;
        leg->attempts++;
        q->record->attempts++;
        set_text(q, &q->record->decode, (struct pd_str){ plan.decode.name, plan.decode.name_n });
        if (t->endpoint != NULL && q->is_native) {
            /* A server takes a request as a whole, and parts of this one are elsewhere. */
            if (!leg_avoid(leg, leg->ref)) {
                request_failf(q, 503, "server_error", "no_decode", "no node can take this request now");
                return false;
            }
            continue;
        }
        if (t->endpoint != NULL) {
            if (!t->shares || !split_start(q, leg, t, &plan))
                forward_start(q, leg, t);
            return false;
        }
        if (r->api->request_texts(r->apis, q->api) != PD_OK || !answer_create(q)) {
            request_failf(q, 503, "server_error", "overloaded", "out of memory");
            return false;
        }
        if (q->api->unsupported.http != 0) {
            request_fail(q, &q->api->unsupported);
            return false;
        }
        if (leg->n_output == 0) {
            leg->flags = t->flags;
            memcpy(leg->fingerprint, t->fingerprint, sizeof leg->fingerprint);
        } else if (memcmp(leg->fingerprint, t->fingerprint, sizeof leg->fingerprint) != 0) {
            if (!leg_avoid(leg, leg->ref)) {
                request_failf(q, 502, "server_error", "engine_protocol",
                              "no other node can go on with this answer");
                return false;
            }
            continue;
        }
        q->record->decision = plan.decision.mode;
        leg_prefills(leg, &plan);
        status = leg_encode(leg, t, &plan, &bytes);
        struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
        if (status == PD_OK)
            status = r->peer->call_open(r->peers, t->peer, PD_SERVICE_REQUEST, 0, &iov, 1, &call_events,
                                        leg, &leg->call);
        if (status == PD_OK) {
            r->sched->dispatch(r->scheds, leg->ref, PD_ROLE_DECODE,
                               &q->prompts[leg->index / q->api->n_choices], 0, now_of(q), &leg->decode);
            r->req->stage(r->reqs, q->record, PD_REQ_DECODE_SENT, now_of(q));
            q->is_native = true;
            leg->wait_until = 0;
            leg->n_sent = leg->n_output;
            return true;
        }
        r->req->note(q->record, "%s cannot be sent to: %s", plan.decode.name,
                     pd_host()->status_text(status));
        /* Nothing was sent, so it is no attempt. */
        leg->attempts--;
        q->record->attempts--;
        if (status == PD_EPEER || status == PD_ESTALE)
            router_wait_lost(r);
        if (is_avoided(leg) || !leg_avoid(leg, leg->ref)) {
            if (leg_wait(leg))
                return true;
            request_failf(q, 503, "server_error", "no_decode", "no node can take this request now");
            return false;
        }
    }
}

/* Whether the leg may be sent once more, and not to where it was. */
static bool may_again(struct leg *leg, enum leg_fate fate)
{
    const struct router_conf *conf = leg->request->conf;
    if (fate == LEG_FAILED && ++leg->failures > conf->retries)
        return false;
    if (fate == LEG_LOST && ++leg->losses > conf->losses)
        return false;
    if (leg->n_avoid == ROUTER_AVOID_MAX && fate == LEG_UNSENT)
        return false;
    if (leg->n_avoid == ROUTER_AVOID_MAX) /* the oldest may have changed since */
        memmove(leg->avoid, leg->avoid + 1, --leg->n_avoid * sizeof *leg->avoid);
    return leg_avoid(leg, leg->ref);
}

bool leg_again(struct leg *leg, enum leg_fate fate, const char *why)
{
    struct request *q = leg->request;
    struct router *r = q->router;
    bool was_whole = !q->is_native;
    if (leg->n_output > leg->n_sent) {
        /* It has come forward since it was sent, so it is no failure in a row. */
        leg->attempts = 1;
        leg->failures = leg->losses = leg->n_avoid = 0;
    }
    r->req->note(q->record, "%s failed: %s", q->record->decode, why);
    /* Behind delivered tokens only an engine goes on that would have written
     * the same ones. */
    if ((leg->n_output > 0 && (leg->flags & PD_ENGINE_EXACT) == 0) || r->is_closing ||
        !may_again(leg, fate))
        return false;
    if (leg->n_output > 0)
        r->req->note(q->record, "goes on behind %u tokens", leg->n_output);
    leg_prefill_end(leg, PD_DISPATCH_CANCELLED);
    pd_counter_inc(r->retries);
    if (!leg_send(leg))
        return true;
    /* What a server had as a whole is now in the hands of our own nodes. */
    for (uint32_t i = 0, n = q->n_legs; was_whole && i < n; i++) {
        if (&q->legs[i] != leg && !leg_send(&q->legs[i]))
            break;
    }
    return true;
}
