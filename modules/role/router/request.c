/* SPDX-License-Identifier: Apache-2.0 */
/* One client request: parsed, split into legs (leg.c), begun and ended.
 *
 * This object owns the client's side of everything: when the client leaves, all
 * calls are canceled here, and whatever fails, the client hears it once: as a
 * status while nothing was sent, else as one error event without [DONE]. */
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- endings ------------------------------------------------------------------------ */

static void leg_stop(struct leg *leg, uint32_t result)
{
    struct router *r = leg->request->router;
    if (leg->call != NULL)
        r->peer->call_cancel(leg->call);
    leg->call = NULL;
    leg_wait_end(leg);
    r->sched->end(r->scheds, &leg->decode, result, now_of(leg->request));
    leg_prefill_end(leg, PD_DISPATCH_CANCELLED);
    free(leg->prefill);
    leg->prefill = NULL;
    leg->n_prefills = 0;
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
    free(q->relay.held);
    r->node->generation_release(q->generation);
    request_started(q);
    if (q->n_legs == 1 && r->n_spare < ROUTER_SPARE) {
        q->next = r->spare;
        r->spare = q;
        r->n_spare++;
    } else {
        free(q);
    }
    if (r->n_requests == 0)
        router_settle(r);
}

static void record_finish(struct request *q, uint32_t outcome, uint32_t http, struct pd_str code)
{
    struct router *r = q->router;
    q->record->user = NULL;
    r->req->finish(r->reqs, q->record, outcome, http, code, now_of(q));
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
    record_finish(q, outcome, error->http,
                  error->code != NULL ? (struct pd_str){ error->code, strlen(error->code) } : PD_STR(""));
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
                  http_status, PD_STR(""));
    request_free(q);
}

static void on_gone(struct pd_http_req *http, pd_status why, void *arg)
{
    struct request *q = arg;
    (void)http;
    (void)why;
    pd_counter_inc(q->router->client_gone);
    record_finish(q, PD_REQ_CANCELLED, 0, why == PD_ETIMEDOUT ? PD_STR("client_slow") : PD_STR("client_gone"));
    request_free(q);
}

static void on_deadline(struct pd_http_req *http, void *arg)
{
    (void)http;
    request_failf(arg, 504, "timeout_error", "deadline_exceeded", "the request took longer than allowed");
}

/* Every source of bytes waits while the client does not read. */
void request_pause(struct request *q, bool pause)
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
        request_pause(q, false);
}

static const struct pd_http_req_events http_events = {
    .on_drain = on_drain,
    .on_deadline = on_deadline,
    .on_gone = on_gone,
};

/* ---- start ------------------------------------------------------------------------------------ */

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
    request_starts_fini(r);
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
    struct pd_str label = r->net->req_label(http);
    if (r->req->begin(r->reqs, r->net->req_id(http), PD_ROLE_ROUTER, pd_loop_now(r->loop), &record) !=
            PD_OK || r->n_requests >= r->conf->max_requests) {
        r->api->error_set(&e, 429, "rate_limit_error", "queue_full", "too many requests at a time");
        e.retry_after_ms = 1000;
        refuse(r, http, record, &e);
        return;
    }
    record->api = kind == PD_API_CHAT ? PD_REQ_API_CHAT : PD_REQ_API_COMPLETIONS;
    if (label.n > 0)
        r->req->text(r->reqs, record, &record->key, label);
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
    if (r->api->request_scope(r->apis, api, r->conf->cache == ROUTER_CACHE_KEY ? label : PD_STR("")) != PD_OK) {
        r->api->error_set(&e, 503, "server_error", "overloaded", "out of memory");
        r->api->request_free(r->apis, api);
        refuse(r, http, record, &e);
        return;
    }
    r->req->text(r->reqs, record, &record->model, api->model);
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
    if (!request_start(q)) {
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
