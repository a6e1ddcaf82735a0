/* SPDX-License-Identifier: Apache-2.0 */
/* What requests add to the metrics.  Each phase is observed by the role that
 * does it (prefill time on the prefill leg, transfer time on the decode leg,
 * client times on the router), so a process with several roles counts nothing
 * twice.  A model becomes a label only when a request for it was sent to an
 * endpoint: names that clients invent do not make series. */
#include "req/meter.h"

#include "base/compiler.h"
#include "req/ladder.h"
#include "req/reqs.h"

#include <stdio.h>
#include <string.h>

static const double seconds[] = PD_METRIC_BOUNDS_SECONDS;
static const double tokens[] = { 1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768,
                                 65536, 131072 };
static const char *const model_label[] = { "model" };
_Static_assert(PD_ARRAY_LEN(seconds) <= PD_REQ_LADDER_MAX && PD_ARRAY_LEN(tokens) <= PD_REQ_LADDER_MAX,
               "ladders must have room for these bounds");

struct histogram_row {
    const char *name;
    const char *help;
    bool counts_tokens;
    size_t family;          /* offset in struct pd_req_meter */
    size_t child;           /* offset in struct pd_req_meter_model */
};

#define ROW(key, field, is_tokens, text)                                       \
    { "pdplane_" key, text, is_tokens, offsetof(struct pd_req_meter, field),   \
      offsetof(struct pd_req_meter_model, field) }

static const struct histogram_row rows[] = {
    ROW("request_duration_seconds", duration, false, "Time from acceptance to end of a request."),
    ROW("ttft_seconds", ttft, false, "Time from acceptance to the first token."),
    ROW("itl_seconds", itl, false, "Time between two tokens of a request."),
    ROW("tpot_seconds", tpot, false, "Mean time per token after the first one."),
    ROW("queue_seconds", queue, false, "Time from the whole body to the dispatch."),
    ROW("prefill_seconds", prefill, false, "Time to compute the prompt."),
    ROW("kv_transfer_seconds", transfer, false, "Time from first byte posted to verified KV."),
    ROW("decode_first_token_seconds", first, false, "Time from KV in place to the first token."),
    ROW("input_tokens", input, true, "Prompt tokens of a request."),
    ROW("output_tokens", output, true, "Tokens produced for a request."),
    ROW("cached_tokens", cached, true, "Prompt tokens found in a cache."),
};

static struct pd_metric_family **family_at(struct pd_req_meter *m, size_t offset)
{
    return (struct pd_metric_family **)(void *)((char *)m + offset);
}

static struct pd_histogram **child_at(struct pd_req_meter_model *m, size_t offset)
{
    return (struct pd_histogram **)(void *)((char *)m + offset);
}

static uint32_t role_index(uint32_t role)
{
    return role == PD_ROLE_ROUTER ? 0 : role == PD_ROLE_DECODE ? 1 : 2;
}

static const uint32_t role_of[3] = { PD_ROLE_ROUTER, PD_ROLE_DECODE, PD_ROLE_PREFILL };

static pd_status make_histograms(struct pd_req_meter *m, struct pd_err *err)
{
    for (size_t i = 0; i < PD_ARRAY_LEN(rows); i++) {
        struct pd_metric_desc desc = {
            .size = sizeof desc,
            .name = rows[i].name,
            .help = rows[i].help,
            .labels = model_label,
            .n_labels = 1,
            .bounds = rows[i].counts_tokens ? tokens : seconds,
            .n_bounds = rows[i].counts_tokens ? PD_ARRAY_LEN(tokens) : PD_ARRAY_LEN(seconds),
        };
        pd_status st = pd_metrics_family(m->metrics, PD_METRIC_HISTOGRAM, &desc, err,
                                         family_at(m, rows[i].family));
        if (st != PD_OK)
            return st;
    }
    return PD_OK;
}

static pd_status make_counters(struct pd_req_meter *m, struct pd_err *err)
{
    static const char *const request_labels[] = { "api", "model", "code", "disagg", "stream" };
    static const char *const outcome_labels[] = { "role", "outcome" };
    static const char *const byte_labels[] = { "transport" };
    const struct pd_metric_desc requests = {
        .size = sizeof requests, .name = "pdplane_requests_total",
        .help = "Requests of clients that have ended.",
        .labels = request_labels, .n_labels = PD_ARRAY_LEN(request_labels), .max_children = 1024,
    };
    const struct pd_metric_desc outcomes = {
        .size = sizeof outcomes, .name = "pdplane_request_outcomes_total",
        .help = "Requests and legs that have ended, by the role they had here.",
        .labels = outcome_labels, .n_labels = PD_ARRAY_LEN(outcome_labels),
    };
    const struct pd_metric_desc accepted = {
        .size = sizeof accepted, .name = "pdplane_request_accepted_total",
        .help = "Requests and legs that began, refused ones included: at any time the sum of those "
                "that are live and of all outcomes.",
        .labels = outcome_labels, .n_labels = 1,
    };
    const struct pd_metric_desc running = {
        .size = sizeof running, .name = "pdplane_requests_running",
        .help = "Requests and legs that are live.", .labels = outcome_labels, .n_labels = 1,
    };
    const struct pd_metric_desc kv_bytes = {
        .size = sizeof kv_bytes, .name = "pdplane_handover_bytes_total",
        .help = "KV bytes received for requests.", .labels = byte_labels, .n_labels = 1,
    };
    pd_status st = pd_metrics_family(m->metrics, PD_METRIC_COUNTER, &requests, err, &m->requests);
    if (st == PD_OK)
        st = pd_metrics_family(m->metrics, PD_METRIC_COUNTER, &outcomes, err, &m->outcomes);
    if (st == PD_OK)
        st = pd_metrics_family(m->metrics, PD_METRIC_COUNTER, &accepted, err, &m->accepted);
    if (st == PD_OK)
        st = pd_metrics_family(m->metrics, PD_METRIC_GAUGE, &running, err, &m->running);
    if (st == PD_OK)
        st = pd_metrics_family(m->metrics, PD_METRIC_COUNTER, &kv_bytes, err, &m->kv_bytes);
    return st;
}

pd_status pd_req_meter_init(struct pd_req_meter *m, struct pd_metrics *metrics, struct pd_err *err)
{
    memset(m, 0, sizeof *m);
    m->metrics = metrics;
    if (metrics == NULL)
        return PD_OK;
    pd_req_ladder_init(&m->times, seconds, PD_ARRAY_LEN(seconds), (double)PD_SEC);
    pd_req_ladder_init(&m->numbers, tokens, PD_ARRAY_LEN(tokens), 1);
    pd_status st = make_histograms(m, err);
    if (st == PD_OK)
        st = make_counters(m, err);
    if (st != PD_OK)
        return st;
    for (uint32_t r = 0; r < 3; r++) {
        const char *values[2] = { pd_req_role_name(role_of[r]), NULL };
        m->begun[r] = pd_metrics_counter(metrics, m->accepted, values);
        m->live[r] = pd_metrics_gauge(metrics, m->running, values);
        for (uint32_t o = 1; o < PD_REQ_OUTCOMES; o++) {
            values[1] = pd_req_outcome_name(o);
            m->outcome[r][o] = pd_metrics_counter(metrics, m->outcomes, values);
        }
    }
    m->retry = pd_metrics_simple_counter(metrics, "pdplane_request_retries_total",
                                         "Dispatches of a request after its first one.");
    return PD_OK;
}

/* The instruments of a model; a small cache, replaced in turn. */
static struct pd_req_meter_model *model_find(struct pd_req_meter *m, const char *model)
{
    for (uint32_t i = 0; i < PD_REQ_METER_MODELS; i++) {
        if (m->models[i].is_used && strcmp(m->models[i].model, model) == 0)
            return &m->models[i];
    }
    struct pd_req_meter_model *made = &m->models[m->evict++ % PD_REQ_METER_MODELS];
    const char *values[1] = { model };
    memset(made, 0, sizeof *made);
    made->is_used = true;
    snprintf(made->model, sizeof made->model, "%s", model);
    for (size_t i = 0; i < PD_ARRAY_LEN(rows); i++)
        *child_at(made, rows[i].child) =
            pd_metrics_histogram(m->metrics, *family_at(m, rows[i].family), values);
    return made;
}

/* Most requests are of the model of the one before. */
static inline struct pd_req_meter_model *model_of(struct pd_req_meter *m, const char *model)
{
    if (m->last == NULL || strcmp(m->last->model, model) != 0)
        m->last = model_find(m, model);
    return m->last;
}

static const char *label_of(const struct pd_req *req)
{
    bool sent = req->at[PD_REQ_PREFILL_SENT] != 0 || req->at[PD_REQ_DECODE_SENT] != 0 ||
                req->role != PD_ROLE_ROUTER;
    return sent ? req->model : "";
}

void pd_req_meter_begin(struct pd_req_meter *m, uint32_t role)
{
    uint32_t r = role_index(role);

    pd_counter_inc(m->begun[r]);
    pd_gauge_set(m->live[r], ++m->live_n[r]);
}

void pd_req_meter_refused(struct pd_req_meter *m, uint32_t role)
{
    pd_counter_inc(m->begun[role_index(role)]);
    pd_counter_inc(m->outcome[role_index(role)][PD_REQ_SHED]);
}

void pd_req_meter_gap(struct pd_req_meter *m, const struct pd_req *req, uint32_t n, pd_time gap,
                      struct pd_req_meter_seat *seat)
{
    if (m->metrics == NULL || req->role != PD_ROLE_ROUTER)
        return;
    /* Tokens that came together stand for n intervals of the same length; at
     * most a few are worth an observation each. */
    uint32_t times = PD_MIN(n, 8u);
    if (seat->itl == NULL)
        seat->itl = model_of(m, label_of(req))->itl;
    gap = n > 1 ? gap / n : gap;
    for (uint32_t i = 0; i < times; i++)
        pd_req_ladder_observe(&m->times, seat->itl, gap);
}

static inline void observe_span(const struct pd_req_meter *m, struct pd_histogram *h, pd_time from, pd_time to)
{
    if (from != 0 && to >= from)
        pd_req_ladder_observe(&m->times, h, to - from);
}

/* The counter of this request's labels; looking one up by name is slow. */
static struct pd_counter *requests_counter(struct pd_req_meter *m, struct pd_req_meter_model *model,
                                           const struct pd_req *req)
{
    uint32_t key = 1u << 31 | req->http_status << 8 | req->api << 2 | (req->remote != 0 ? 2u : 0u) |
                   (req->stream != 0 ? 1u : 0u);
    for (uint32_t i = 0; i < PD_ARRAY_LEN(model->requests); i++) {
        if (model->requests[i].key == key)
            return model->requests[i].counter;
    }
    char code[16];
    snprintf(code, sizeof code, "%u", (unsigned)req->http_status);
    const char *values[5] = { pd_req_api_name(req->api), label_of(req), code,
                              req->remote != 0 ? "pd" : "decode_only",
                              req->stream != 0 ? "true" : "false" };
    uint32_t at = model->requests_next++ % PD_ARRAY_LEN(model->requests);
    model->requests[at].key = key;
    model->requests[at].counter = pd_metrics_counter(m->metrics, m->requests, values);
    return model->requests[at].counter;
}

static void end_router(struct pd_req_meter *m, struct pd_req_meter_model *model,
                       const struct pd_req *req)
{
    pd_counter_inc(requests_counter(m, model, req));
    if (req->attempts > 1)
        pd_counter_add(m->retry, req->attempts - 1);

    pd_time ready = req->at[PD_REQ_QUEUED] != 0 ? req->at[PD_REQ_QUEUED] : req->at[PD_REQ_BODY];
    pd_time sent = req->at[PD_REQ_PREFILL_SENT] != 0 ? req->at[PD_REQ_PREFILL_SENT]
                                                     : req->at[PD_REQ_DECODE_SENT];
    observe_span(m, model->duration, req->at[PD_REQ_ACCEPTED], req->at[PD_REQ_ENDED]);
    observe_span(m, model->ttft, req->at[PD_REQ_ACCEPTED], req->first_token);
    observe_span(m, model->queue, ready, sent);
    if (req->output_tokens > 1)
        pd_req_ladder_observe(&m->times, model->tpot,
                              (req->last_token - req->first_token) / (req->output_tokens - 1));
    if (req->outcome == PD_REQ_OK) {
        pd_req_ladder_observe(&m->numbers, model->input, req->prompt_tokens);
        pd_req_ladder_observe(&m->numbers, model->output, req->output_tokens);
        pd_req_ladder_observe(&m->numbers, model->cached, req->cached_tokens);
    }
}

void pd_req_meter_end(struct pd_req_meter *m, const struct pd_req *req)
{
    uint32_t role = role_index(req->role);

    if (m->metrics == NULL)
        return;
    pd_gauge_set(m->live[role], --m->live_n[role]);
    pd_counter_inc(m->outcome[role][req->outcome]);
    struct pd_req_meter_model *model = model_of(m, label_of(req));
    if (req->role == PD_ROLE_ROUTER) {
        end_router(m, model, req);
    } else if (req->role == PD_ROLE_PREFILL) {
        observe_span(m, model->prefill, req->at[PD_REQ_PREFILLING], req->at[PD_REQ_PREFILLED]);
    } else {
        if (req->handover_ns != 0) {
            const char *values[1] = { req->transport };
            pd_req_ladder_observe(&m->times, model->transfer, req->handover_ns);
            pd_counter_add(pd_metrics_counter(m->metrics, m->kv_bytes, values), req->kv_bytes);
        }
        pd_time ready = req->at[PD_REQ_VERIFIED] != 0 ? req->at[PD_REQ_VERIFIED]
                                                      : req->at[PD_REQ_PREFILLED];
        observe_span(m, model->first, ready, req->first_token);
    }
}
