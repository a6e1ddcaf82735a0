/* SPDX-License-Identifier: Apache-2.0 */
/* One client request: parsed, split into legs, each leg sent to a decode node
 * that the scheduler chose, the tokens merged into one answer.
 *
 * This object owns the client's side of everything: when the client leaves, all
 * calls are canceled here, and whatever fails, the client hears it once: as a
 * status while nothing was sent, else as one error event without [DONE]. */
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPARE_MAX 64u

static const struct pd_http_header sse_headers[] = {
    { { "content-type", 12 }, { "text/event-stream; charset=utf-8", 32 } },
    { { "cache-control", 13 }, { "no-cache", 8 } },
};

/* A text cut to its place, ended by a zero byte. */
static void copy_text(char *out, size_t size, struct pd_str s)
{
    size_t n = s.n < size ? s.n : size - 1;
    if (n > 0)
        memcpy(out, s.p, n);
    out[n] = '\0';
}

static pd_time now_of(const struct request *q)
{
    return pd_loop_now(q->router->loop);
}

/* ---- endings ------------------------------------------------------------------------ */

static void leg_stop(struct leg *leg, uint32_t result)
{
    struct router *r = leg->request->router;
    if (leg->call != NULL)
        r->peer->call_cancel(leg->call);
    leg->call = NULL;
    leg_wait_end(leg);
    r->sched->end(r->scheds, &leg->decode, result, now_of(leg->request));
    r->sched->end(r->scheds, &leg->prefill, PD_DISPATCH_CANCELLED, now_of(leg->request));
    free(leg->output);
    leg->output = NULL;
}

static void request_free(struct request *q)
{
    struct router *r = q->router;
    forward_cancel(q);
    split_end(q);
    for (uint32_t i = 0; i < q->n_legs; i++)
        leg_stop(&q->legs[i], PD_DISPATCH_CANCELLED);
    *q->link = q->next;
    if (q->next != NULL)
        q->next->link = q->link;
    r->n_requests--;
    r->api->answer_destroy(r->apis, q->answer);
    r->api->request_free(r->apis, q->api);
    free(q->forward_body);
    relay_reset(q);
    r->node->generation_release(q->generation);
    if (q->prompts != &q->prompt)
        free(q->prompts);
    if (q->n_legs == 1 && r->n_spare < SPARE_MAX) {
        q->next = r->spare;
        r->spare = q;
        r->n_spare++;
    } else {
        free(q);
    }
    router_settle(r);
}

static void record_finish(struct request *q, uint32_t outcome, uint32_t http, const char *code)
{
    struct router *r = q->router;
    q->record->user = NULL;
    r->req->finish(r->reqs, q->record, outcome, http, (struct pd_str){ code, strlen(code) }, now_of(q));
    q->record = NULL;
}

static void http_error(struct router *r, struct pd_http_req *http, const struct pd_api_error *e)
{
    struct pd_http_error error = {
        .status = e->http, .type = e->type, .code = e->code,
        .message = { e->message, strlen(e->message) }, .param = e->param[0] != '\0' ? e->param : NULL,
        .retry_after_ms = e->retry_after_ms, .should_retry = e->no_retry != 0 ? -1 : 0,
    };
    r->net->error(http, &error);
}

/* Ends an answer that has begun with an error event, if it can hold one. */
static bool error_event(struct request *q, const struct pd_api_error *error)
{
    struct router *r = q->router;
    struct pd_str event;
    if (q->answer != NULL) {
        if (r->api->answer_error(q->answer, error, &event) != PD_OK)
            return false;
        r->net->write(q->http, event);
    } else {
        /* A body that a server announced cannot be completed. */
        if (!q->forward_sse || r->api->error_write(r->apis, error, &event) != PD_OK)
            return false;
        r->net->write(q->http, PD_STR("data: "));
        r->net->write(q->http, event);
        r->net->write(q->http, PD_STR("\n\n"));
    }
    r->net->close_after(q->http);
    r->net->end(q->http);
    return true;
}

void request_fail(struct request *q, const struct pd_api_error *error)
{
    struct router *r = q->router;
    uint32_t outcome = error->http == 429                        ? PD_REQ_SHED
                       : error->http >= 500 || q->is_begun       ? PD_REQ_UPSTREAM_ERROR
                                                                 : PD_REQ_CLIENT_ERROR;
    if (outcome == PD_REQ_UPSTREAM_ERROR)
        pd_log_req(r->log, PD_LOG_WARN, r->net->req_id(q->http), "request failed with status %u: %s",
                   error->http, error->message);
    else
        pd_log_req(r->log, PD_LOG_INFO, r->net->req_id(q->http), "request refused with status %u: %s",
                   error->http, error->message);
    if (!q->is_begun)
        http_error(r, q->http, error);
    else if (!error_event(q, error))
        r->net->abort(q->http);
    record_finish(q, outcome, error->http, error->code != NULL ? error->code : "");
    request_free(q);
}

void request_failf(struct request *q, uint32_t http, const char *type, const char *code,
                   const char *message)
{
    struct pd_api_error e;
    q->router->api->error_set(&e, http, type, code, "%s", message);
    if (http == 503 || http == 429)
        e.retry_after_ms = 1000;
    request_fail(q, &e);
}

void request_done(struct request *q, uint32_t http_status)
{
    record_finish(q, http_status < 400 ? PD_REQ_OK
                     : http_status == 429 ? PD_REQ_SHED
                     : http_status < 500 ? PD_REQ_CLIENT_ERROR : PD_REQ_UPSTREAM_ERROR,
                  http_status, "");
    request_free(q);
}

static void on_gone(struct pd_http_req *http, pd_status why, void *arg)
{
    struct request *q = arg;
    (void)http;
    (void)why;
    pd_counter_inc(q->router->client_gone);
    record_finish(q, PD_REQ_CANCELLED, 0, why == PD_ETIMEDOUT ? "client_slow" : "client_gone");
    request_free(q);
}

static void on_deadline(struct pd_http_req *http, void *arg)
{
    (void)http;
    request_failf(arg, 504, "timeout_error", "deadline_exceeded", "the request took longer than allowed");
}

/* Every source of bytes waits while the client does not read. */
static void pause_all(struct request *q, bool pause)
{
    struct router *r = q->router;
    q->is_paused = pause;
    for (uint32_t i = 0; i < q->n_legs; i++) {
        if (q->legs[i].call != NULL)
            r->peer->call_pause(q->legs[i].call, pause);
    }
    if (q->forward != NULL && pause)
        r->net->call_pause(q->forward);
    else if (q->forward != NULL)
        r->net->call_resume(q->forward);
}

static void on_drain(struct pd_http_req *http, void *arg)
{
    struct request *q = arg;
    (void)http;
    if (q->is_paused)
        pause_all(q, false);
}

static const struct pd_http_req_events http_events = {
    .on_drain = on_drain,
    .on_deadline = on_deadline,
    .on_gone = on_gone,
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
        pause_all(q, true);
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
        if (r->sched->endpoint_get(r->scheds, leg->prefills[i].ref, now_of(leg->request), &s) == PD_OK &&
            strlen(s.view.name) == name.n && memcmp(s.view.name, name.p, name.n) == 0)
            return &leg->prefills[i].ref;
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
    snprintf(rec->reason, sizeof rec->reason, "%.*s", PD_STR_ARG(m->reason));
    struct pd_explain_line line = {
        .kind = PD_EXPLAIN_DECISION, .subject = m->remote ? PD_STR("remote") : PD_STR("local"),
        .plugin = PD_STR("decode node"), .text = m->reason,
    };
    r->req->explain(rec, &line);
    /* Told again when a prefill node failed: by another one, or on the decode node. */
    r->sched->end(r->scheds, &leg->prefill, PD_DISPATCH_FAILED, now_of(q));
    snprintf(rec->prefill, sizeof rec->prefill, "%.*s", PD_STR_ARG(m->prefill));
    const struct pd_endpoint_ref *p = prefill_named(leg, m->prefill);
    if (!m->remote || p == NULL)
        return;
    r->req->stage(r->reqs, rec, PD_REQ_PREFILL_SENT, now_of(q));
    r->sched->dispatch(r->scheds, *p, PD_ROLE_PREFILL,
                       &q->prompts[leg->index / q->api->n_choices],
                       m->prompt_tokens - m->cached_tokens, now_of(q), &leg->prefill);
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
    snprintf(rec->transport, sizeof rec->transport, "%.*s", PD_STR_ARG(m->transport));
    snprintf(rec->prefill, sizeof rec->prefill, "%.*s", PD_STR_ARG(m->prefill));
    if (is_valid) {
        r->req->note(rec, "hand-over from %.*s valid: %llu bytes of %u tokens over %.*s, %u digests, "
                          "prefill %.2f ms", PD_STR_ARG(m->prefill), (unsigned long long)m->bytes,
                     m->tokens, PD_STR_ARG(m->transport), m->blocks, (double)m->prefill_ns / 1e6);
        r->req->stage(r->reqs, rec, PD_REQ_VERIFIED, now_of(q));
        r->sched->computed(r->scheds, &leg->prefill);
    } else {
        r->req->note(rec, "hand-over from %.*s failed: %.*s", PD_STR_ARG(m->prefill),
                     PD_STR_ARG(m->detail));
    }
    r->sched->end(r->scheds, &leg->prefill, is_valid ? PD_DISPATCH_OK : PD_DISPATCH_FAILED, now_of(q));
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

static uint64_t seed_of(const struct request *q, uint32_t choice)
{
    /* Each choice samples on its own; the first one with the client's seed. */
    return q->seed + choice * UINT64_C(0x9e3779b97f4a7c15);
}

static pd_status leg_encode(const struct leg *leg, const struct target *t, const struct pd_sched_plan *plan,
                            struct pd_str *out)
{
    const struct request *q = leg->request;
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
        copy_text(q->record->decode, sizeof q->record->decode,
                  (struct pd_str){ plan.decode.name, strlen(plan.decode.name) });
        if (t->endpoint != NULL && q->is_native) {
            /* A server takes a request as a whole, and parts of this one are elsewhere. */
            if (leg->n_avoid == ROUTER_AVOID_MAX) {
                request_failf(q, 503, "server_error", "no_decode", "no node can take this request now");
                return false;
            }
            leg->avoid[leg->n_avoid++] = leg->ref;
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
            if (leg->n_avoid == ROUTER_AVOID_MAX) {
                request_failf(q, 502, "server_error", "engine_protocol",
                              "no other node can go on with this answer");
                return false;
            }
            leg->avoid[leg->n_avoid++] = leg->ref;
            continue;
        }
        q->record->decision = plan.decision.mode;
        leg->n_prefills = plan.prefill_n;
        memcpy(leg->prefills, plan.prefill, sizeof leg->prefills);
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
        if (is_avoided(leg) || leg->n_avoid == ROUTER_AVOID_MAX) {
            if (leg_wait(leg))
                return true;
            request_failf(q, 503, "server_error", "no_decode", "no node can take this request now");
            return false;
        }
        leg->avoid[leg->n_avoid++] = leg->ref;
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
    leg->avoid[leg->n_avoid++] = leg->ref;
    return true;
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
    r->sched->end(r->scheds, &leg->prefill, PD_DISPATCH_CANCELLED, now_of(q));
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

/* ---- start ------------------------------------------------------------------------------------ */

/* What the prefix index knows a prompt by. */
static struct pd_str prompt_bytes(const struct request *q, uint32_t i)
{
    const struct pd_api_request *a = q->api;
    if (q->kind == PD_API_CHAT)
        return a->prompt_json;
    if (a->prompts[i].tokens != NULL)
        return (struct pd_str){ (const char *)a->prompts[i].tokens,
                                (size_t)a->prompts[i].n_tokens * sizeof(int32_t) };
    return a->prompts[i].json;
}

/* Hashes the prompts for the prefix index. */
static bool prompts_hash(struct request *q)
{
    struct router *r = q->router;
    const struct pd_api_request *a = q->api;
    uint64_t *hashes = q->hashes;
    size_t room = 0;
    for (uint32_t i = 0; i < a->n_prompts; i++)
        room += r->sched->prompt_room(r->scheds, prompt_bytes(q, i).n);
    q->prompts = &q->prompt;
    if (a->n_prompts > 1 || room > ROUTER_HASHES) {
        q->prompts = malloc((size_t)a->n_prompts * sizeof *q->prompts + room * sizeof(uint64_t));
        if (q->prompts == NULL)
            return false;
        hashes = (uint64_t *)(void *)(q->prompts + a->n_prompts);
    }
    for (uint32_t i = 0; i < a->n_prompts; i++) {
        struct pd_str bytes = prompt_bytes(q, i);
        uint32_t n = r->sched->prompt_room(r->scheds, bytes.n);
        r->sched->prompt_hash(r->scheds, &q->prompts[i], a->model, a->cache_salt, bytes.p, bytes.n, hashes, n);
        hashes += n;
    }
    return true;
}

static void refuse(struct router *r, struct pd_http_req *http, struct pd_req *record,
                   const struct pd_api_error *e)
{
    http_error(r, http, e);
    if (record != NULL)
        r->req->finish(r->reqs, record,
                       e->http == 429 || e->http == 503 ? PD_REQ_SHED : PD_REQ_CLIENT_ERROR, e->http,
                       (struct pd_str){ e->code, strlen(e->code) }, pd_loop_now(r->loop));
}

/* A request with everything zero. */
static struct request *request_new(struct router *r, uint32_t n_legs)
{
    size_t bytes = sizeof(struct request) + n_legs * sizeof(struct leg);
    struct request *q = n_legs == 1 ? r->spare : NULL;
    if (q != NULL) {
        r->spare = q->next;
        r->n_spare--;
    } else {
        q = malloc(bytes);
    }
    if (q != NULL)
        memset(q, 0, bytes);
    return q;
}

void router_requests_fini(struct router *r)
{
    struct request *next;
    for (struct request *q = r->spare; q != NULL; q = next) {
        next = q->next;
        free(q);
    }
    r->spare = NULL;
    r->n_spare = 0;
}

/* Whether the client tells servers where to go; e says with what. */
static bool has_hint(struct router *r, struct pd_http_req *http, const struct pd_api_request *api,
                     struct pd_api_error *e)
{
    struct pd_str header = r->net->req_hint(http);
    struct pd_str member = header.n > 0 ? (struct pd_str){ "", 0 } : r->api->request_hint(r->apis, api);
    if (header.n == 0 && member.n == 0)
        return false;
    r->api->error_set(e, 403, "permission_error", "forbidden_route", "the %s '%.*s' is not allowed here",
                      header.n > 0 ? "header" : "member",
                      (int)(header.n > 0 ? (header.n < 64 ? header.n : 64) : member.n < 64 ? member.n : 64),
                      header.n > 0 ? header.p : member.p);
    return true;
}

void router_request(struct pd_http_req *http, uint32_t kind, struct router *r)
{
    struct pd_api_limits limits = {
        .size = sizeof limits, .max_choices = r->conf->max_choices, .max_prompts = r->conf->max_prompts,
        .max_messages = 4096, .max_output = r->conf->max_output,
    };
    struct pd_api_request *api;
    struct pd_api_error e;
    struct pd_req *record = NULL;
    if (r->req->begin(r->reqs, r->net->req_id(http), PD_ROLE_ROUTER, pd_loop_now(r->loop), &record) !=
            PD_OK || r->n_requests >= r->conf->max_requests) {
        r->api->error_set(&e, 429, "rate_limit_error", "queue_full", "too many requests at a time");
        e.retry_after_ms = 1000;
        refuse(r, http, record, &e);
        return;
    }
    record->api = kind == PD_API_CHAT ? PD_REQ_API_CHAT : PD_REQ_API_COMPLETIONS;
    copy_text(record->key, sizeof record->key, r->net->req_label(http));
    if (r->is_draining || r->is_closing) {
        r->api->error_set(&e, 503, "server_error", "draining", "this server takes no new requests");
        e.retry_after_ms = 1000;
        refuse(r, http, record, &e);
        return;
    }
    if (r->api->request_parse(r->apis, kind, r->net->req_body(http), &limits, &api, &e) != PD_OK) {
        refuse(r, http, record, &e);
        return;
    }
    /* From here on the salt is ours: what keeps tenants apart, and no text of theirs. */
    if (r->api->request_scope(r->apis, api, r->conf->cache == ROUTER_CACHE_KEY ? r->net->req_label(http)
                                                                                : PD_STR("")) != PD_OK) {
        r->api->error_set(&e, 503, "server_error", "overloaded", "out of memory");
        r->api->request_free(r->apis, api);
        refuse(r, http, record, &e);
        return;
    }
    copy_text(record->model, sizeof record->model, api->model);
    record->stream = api->stream;
    if (r->conf->hints == ROUTER_HINTS_REFUSE && has_hint(r, http, api, &e)) {
        pd_counter_inc(r->hints_refused);
        r->api->request_free(r->apis, api);
        refuse(r, http, record, &e);
        return;
    }
    if (!r->sched->model_known(r->scheds, api->model)) {
        /* Before the first node has come, or after the last one of a model has gone
         * for good, a client should come back and not give up. */
        if (r->n_models == 0 || router_model_seen(r, api->model)) {
            r->api->error_set(&e, 503, "server_error", "no_decode", "no node can take this request now");
            e.retry_after_ms = 1000;
        } else {
            r->api->error_set(&e, 404, "not_found_error", "model_not_found",
                              "the model '%.*s' does not exist",
                              (int)(api->model.n < 100 ? api->model.n : 100), api->model.p);
            snprintf(e.param, sizeof e.param, "model");
        }
        r->api->request_free(r->apis, api);
        refuse(r, http, record, &e);
        return;
    }
    struct request *q = request_new(r, api->n_legs);
    if (q == NULL) {
        r->api->error_set(&e, 503, "server_error", "overloaded", "out of memory");
        r->api->request_free(r->apis, api);
        refuse(r, http, record, &e);
        return;
    }
    q->router = r;
    q->conf = r->conf;
    q->generation = r->node->generation_hold(r->nodes);
    q->http = http;
    q->kind = kind;
    q->api = api;
    q->record = record;
    record->user = q;
    q->seed = api->has_seed ? api->sampling.seed : pd_loop_random_u64(r->loop);
    q->n_legs = api->n_legs;
    for (uint32_t i = 0; i < q->n_legs; i++) {
        q->legs[i].request = q;
        q->legs[i].index = i;
    }
    q->next = r->requests;
    if (r->requests != NULL)
        r->requests->link = &q->next;
    r->requests = q;
    q->link = &r->requests;
    r->n_requests++;
    r->net->req_set_events(http, &http_events, q);
    r->net->req_set_deadline(http, q->conf->deadline);
    if (!prompts_hash(q)) {
        request_failf(q, 503, "server_error", "overloaded", "out of memory");
        return;
    }
    r->req->stage(r->reqs, record, PD_REQ_QUEUED, now_of(q));
    for (uint32_t i = 0, n = q->n_legs; i < n; i++) {
        if (!leg_send(&q->legs[i]))
            return;
    }
}

void router_requests_end_generation(struct router *r, const struct pd_node_generation *generation)
{
    struct request *next;
    for (struct request *q = r->requests; q != NULL; q = next) {
        next = q->next;
        if (q->generation == generation)
            request_failf(q, 503, "server_error", "draining", "the configuration of this request has ended");
    }
}

void router_requests_end(struct router *r)
{
    struct request *next;
    for (struct request *q = r->requests; q != NULL; q = next) {
        next = q->next;
        /* The role may be freed with its last request; nothing is touched after it. */
        request_failf(q, 503, "server_error", "draining", "the server is shutting down");
    }
}
