/* SPDX-License-Identifier: Apache-2.0 */
/* What the scheduler adds to the metrics. */
#include "sched/meter.h"

#include "base/compiler.h"

#include <string.h>

static pd_status counters(struct pd_metrics *m, const char *name, const char *help,
                          const char *label, const char *const *values, struct pd_counter **out,
                          size_t n, struct pd_err *err)
{
    struct pd_metric_family *family = NULL;
    const struct pd_metric_desc desc = {
        .size = sizeof desc, .name = name, .help = help, .labels = &label, .n_labels = 1,
    };
    pd_status st = pd_metrics_family(m, PD_METRIC_COUNTER, &desc, err, &family);

    for (size_t i = 0; i < n && st == PD_OK; i++)
        out[i] = pd_metrics_counter(m, family, &values[i]);
    return st;
}

pd_status pd_sched_meter_init(struct pd_sched_meter *m, struct pd_metrics *metrics,
                              struct pd_err *err)
{
    static const char *const modes[] = { "local", "remote", "exact" };
    static const char *const whys[] = { "no_endpoint", "no_model" };
    static const char *const roles[] = { "decode", "prefill" };
    static const char *const endpoint_label[] = { "endpoint" };
    const struct pd_metric_desc inflight = {
        .size = sizeof inflight, .name = "pdplane_endpoint_inflight",
        .help = "Requests sent to the endpoint from here that have not ended.",
        .labels = endpoint_label, .n_labels = 1, .max_children = 4096,
    };

    memset(m, 0, sizeof *m);
    m->version = 1;
    m->metrics = metrics;
    if (metrics == NULL)
        return PD_OK;
    pd_status st = pd_metrics_family(metrics, PD_METRIC_GAUGE, &inflight, err, &m->inflight);
    if (st == PD_OK)
        st = counters(metrics, "pdplane_sched_decisions_total", "Decisions of the scheduler.",
                      "mode", modes, m->decisions, 3, err);
    if (st == PD_OK)
        st = counters(metrics, "pdplane_sched_refused_total",
                      "Requests for which no endpoint could be chosen.", "reason", whys, m->none, 2,
                      err);
    if (st == PD_OK)
        st = counters(metrics, "pdplane_endpoint_failures_total", "Dispatches that failed.", "role",
                      roles, m->failed, 2, err);
    if (st != PD_OK)
        return st;
    m->stale = pd_metrics_simple_counter(metrics, "pdplane_sched_stale_total",
                                         "Decisions made although every load report was stale.");
    m->fallback = pd_metrics_simple_counter(metrics, "pdplane_sched_fallback_total",
                                            "Requests run aggregated: no prefill endpoint.");
    m->blocks = pd_metrics_simple_counter(metrics, "pdplane_prefix_blocks_total",
                                          "Prompt blocks looked up in the prefix index.");
    m->matched = pd_metrics_simple_counter(metrics, "pdplane_prefix_matched_blocks_total",
                                           "Prompt blocks expected at the chosen decode endpoint.");
    m->endpoints = pd_metrics_simple_gauge(metrics, "pdplane_endpoints",
                                           "Endpoints that are known.");
    return PD_OK;
}

void pd_sched_meter_decision(struct pd_sched_meter *m, uint32_t mode, bool stale,
                             uint32_t blocks, uint32_t matched)
{
    pd_counter_inc(m->decisions[mode - PD_DECIDE_LOCAL]);
    if (stale)
        pd_counter_inc(m->stale);
    pd_counter_add(m->blocks, blocks);
    pd_counter_add(m->matched, matched);
}

void pd_sched_meter_fallback(struct pd_sched_meter *m)
{
    pd_counter_inc(m->fallback);
}

void pd_sched_meter_none(struct pd_sched_meter *m, bool unknown_model)
{
    pd_counter_inc(m->none[unknown_model]);
}

void pd_sched_meter_failed(struct pd_sched_meter *m, uint32_t role)
{
    pd_counter_inc(m->failed[role == PD_ROLE_PREFILL]);
}

void pd_sched_meter_endpoints(struct pd_sched_meter *m, uint32_t n)
{
    pd_gauge_set(m->endpoints, n);
}

/* Looked up by name whenever any gauge went: two endpoints may share a name and
 * then share the gauge of the last change, which is the operator's to mend. */
void pd_sched_meter_seat(struct pd_sched_meter *m, const char *endpoint, struct pd_sched_meter_seat *seat)
{
    const char *values[1] = { endpoint };

    seat->gauge = m->metrics != NULL ? pd_metrics_gauge(m->metrics, m->inflight, values) : NULL;
    seat->version = m->version;
}

void pd_sched_meter_gone(struct pd_sched_meter *m, const char *endpoint)
{
    const char *values[1] = { endpoint };

    m->version++;
    if (m->metrics != NULL)
        pd_metrics_remove(m->metrics, m->inflight, values);
}
