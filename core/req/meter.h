/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of requests; every function does nothing without a registry. */
#ifndef PD_REQ_METER_H
#define PD_REQ_METER_H

#include <pdplane/metric.h>
#include <pdplane/req.h>

#include "req/ladder.h"

#define PD_REQ_METER_MODELS 16u

/* The instruments of one model, found once. */
struct pd_req_meter_model {
    char model[PD_REQ_TEXT_MAX + 1];
    bool is_used;
    struct pd_histogram *duration, *ttft, *itl, *tpot, *queue, *prefill, *transfer, *first;
    struct pd_histogram *input, *output, *cached;
    /* Counters of pdplane_requests_total that were found last. */
    struct {
        uint32_t key;                  /* of the other labels; 0: none */
        struct pd_counter *counter;
    } requests[4];
    uint32_t requests_next;
};

struct pd_req_meter {
    struct pd_metrics *metrics;
    struct pd_metric_family *requests, *accepted, *outcomes, *running, *kv_bytes;
    struct pd_metric_family *duration, *ttft, *itl, *tpot, *queue, *prefill, *transfer, *first;
    struct pd_metric_family *input, *output, *cached;
    struct pd_counter *begun[3];
    struct pd_counter *outcome[3][PD_REQ_OUTCOMES];
    struct pd_gauge *live[3];
    uint32_t live_n[3];
    struct pd_counter *retry;
    struct pd_req_ladder times, numbers;    /* of nanoseconds, of tokens */
    struct pd_req_meter_model models[PD_REQ_METER_MODELS];
    struct pd_req_meter_model *last;        /* that was asked for; NULL: none yet */
    uint32_t evict;
};

/* What is used for each token of a request. */
struct pd_req_meter_seat {
    struct pd_histogram *itl;          /* of its model; NULL: not looked for yet */
};

/* metrics may be NULL.  PD_OK, or what pd_metrics_family returned. */
pd_status pd_req_meter_init(struct pd_req_meter *m, struct pd_metrics *metrics, struct pd_err *err);
void pd_req_meter_begin(struct pd_req_meter *m, uint32_t role);
/* Refused before it had a record. */
void pd_req_meter_refused(struct pd_req_meter *m, uint32_t role);
/* A further token, gap nanoseconds after the one before; n came together. */
void pd_req_meter_gap(struct pd_req_meter *m, const struct pd_req *req, uint32_t n, pd_time gap,
                      struct pd_req_meter_seat *seat);
/* The same of one token, when the seat has its histogram. */
static inline void pd_req_meter_gap_seated(const struct pd_req_meter *m, pd_time gap,
                                           const struct pd_req_meter_seat *seat)
{
    pd_req_ladder_observe(&m->times, seat->itl, gap);
}
void pd_req_meter_end(struct pd_req_meter *m, const struct pd_req *req);

#endif
