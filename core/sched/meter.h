/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of the scheduler; every function does nothing without a registry. */
#ifndef PD_SCHED_METER_H
#define PD_SCHED_METER_H

#include <pdplane/metric.h>
#include <pdplane/sched.h>

struct pd_sched_meter {
    struct pd_metrics *metrics;
    struct pd_metric_family *inflight;
    struct pd_counter *decisions[3];        /* by PD_DECIDE_LOCAL ... */
    struct pd_counter *none[2];             /* no_endpoint, no_model */
    struct pd_counter *stale, *fallback;
    struct pd_counter *blocks, *matched;
    struct pd_counter *failed[2];           /* decode, prefill */
    struct pd_gauge *endpoints;
    uint64_t version;                       /* changes when gauges of endpoints go */
};

/* Where the gauge of an endpoint was found last. */
struct pd_sched_meter_seat {
    struct pd_gauge *gauge;
    uint64_t version;
};

pd_status pd_sched_meter_init(struct pd_sched_meter *m, struct pd_metrics *metrics,
                              struct pd_err *err);
void pd_sched_meter_decision(struct pd_sched_meter *m, uint32_t mode, bool stale,
                             uint32_t blocks, uint32_t matched);
/* Remote was decided, but no prefill endpoint was left. */
void pd_sched_meter_fallback(struct pd_sched_meter *m);
/* No endpoint could be chosen. */
void pd_sched_meter_none(struct pd_sched_meter *m, bool unknown_model);
void pd_sched_meter_failed(struct pd_sched_meter *m, uint32_t role);
void pd_sched_meter_endpoints(struct pd_sched_meter *m, uint32_t n);
/* Looks the gauge up by the name. */
void pd_sched_meter_seat(struct pd_sched_meter *m, const char *endpoint, struct pd_sched_meter_seat *seat);
static inline void pd_sched_meter_inflight(struct pd_sched_meter *m, const char *endpoint,
                                           struct pd_sched_meter_seat *seat, uint32_t n)
{
    if (seat->version != m->version)
        pd_sched_meter_seat(m, endpoint, seat);
    pd_gauge_set(seat->gauge, n);
}
void pd_sched_meter_gone(struct pd_sched_meter *m, const char *endpoint);

#endif
