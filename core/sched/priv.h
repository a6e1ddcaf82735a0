/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a scheduler; private to core/sched. */
#ifndef PD_SCHED_PRIV_H
#define PD_SCHED_PRIV_H

#include "sched/endpoints.h"
#include "sched/meter.h"
#include "sched/prefix.h"
#include "sched/scheduler.h"
#include "sched/shortlist.h"

/* Shortlists that are kept, for as many models (two for one that prefills elsewhere). */
#define PD_SCHED_LISTS 16u

struct pd_sched {
    struct pd_endpoints endpoints;
    struct pd_prefix *prefix;
    struct pd_pipeline_scratch scratch;
    struct pd_shortlist lists[PD_SCHED_LISTS];
    struct pd_shortlist once;       /* of one decision; with room for all from the start */
    uint64_t decisions;
    const struct pd_sched_pipeline *pipeline;
    pd_time load_stale;
    uint32_t explain_max;
    uint32_t block_tokens;
    uint64_t ticket;
    struct pd_sched_meter meter;
};

/* See struct pd_sched_api. */
pd_status pd_sched_schedule(struct pd_sched *sched, const struct pd_sched_ask *ask,
                            struct pd_sched_plan *out);
pd_status pd_sched_schedule_prefill(struct pd_sched *sched, const struct pd_sched_ask *ask,
                                    struct pd_sched_plan *out);

static inline bool pd_sched_is_alive(const struct pd_endpoint_view *view)
{
    return view->state == PD_ENDPOINT_UP || view->state == PD_ENDPOINT_SUSPECT;
}

#endif
