/* SPDX-License-Identifier: Apache-2.0 */
/* One scheduling profile: filters, weighted scorers and a picker, run over an
 * array of candidates.  Borrows its plugins.  Loop thread. */
#ifndef PD_SCHED_PIPELINE_H
#define PD_SCHED_PIPELINE_H

#include "base/str.h"

#include <pdplane/req.h>
#include <pdplane/scheduler.h>

#define PD_PROFILE_FILTERS_MAX 16u
#define PD_PROFILE_SCORERS_MAX 16u
#define PD_PIPELINE_PICKS_MAX 16u

struct pd_profile {
    const char *name;
    struct {
        const char *name;
        const struct pd_filter_ops *ops;
        struct pd_filter *instance;
    } filters[PD_PROFILE_FILTERS_MAX];
    struct {
        const char *name;
        const struct pd_scorer_ops *ops;
        struct pd_scorer *instance;
        double weight;
    } scorers[PD_PROFILE_SCORERS_MAX];
    uint32_t filters_n;
    uint32_t scorers_n;
    const char *picker_name;
    const struct pd_picker_ops *picker_ops;
    struct pd_picker *picker;
};

/* Memory that runs share. */
struct pd_pipeline_scratch {
    struct pd_endpoint_view *views; /* candidates; compacted by filters */
    uint8_t *keep;
    double *total;
    double *scores;                 /* scorers_max rows of `cap` */
    uint32_t *index;
    uint32_t cap;
    uint32_t scorers_max;
};

struct pd_pipeline_run {
    const struct pd_profile *profile;
    const struct pd_sched_request *request;
    uint32_t candidates;            /* that stand in scratch->views */
    uint32_t want;                  /* picks */
    pd_time stale_ns;               /* reports older than this; PD_TIME_NEVER: none is stale */
    uint32_t explain_max;           /* candidates to explain */
    struct pd_explain_sink explain;
    /* results */
    uint32_t left;                  /* candidates after the filters, first in scratch->views */
    uint32_t picks;                 /* in scratch->index, best first */
    bool stale;                     /* every report was stale and was used anyway */
};

/* PD_OK or PD_ENOMEM (nothing is held then). */
pd_status pd_pipeline_scratch_init(struct pd_pipeline_scratch *s, uint32_t cap,
                                   uint32_t scorers_max);
void pd_pipeline_scratch_fini(struct pd_pipeline_scratch *s);

/* PD_OK or PD_ELIMIT.  Everything is borrowed; weight is finite. */
pd_status pd_profile_add_filter(struct pd_profile *p, const char *name,
                                const struct pd_filter_ops *ops, struct pd_filter *instance);
pd_status pd_profile_add_scorer(struct pd_profile *p, const char *name,
                                const struct pd_scorer_ops *ops, struct pd_scorer *instance,
                                double weight);

/* Runs the profile; run->picks is 0 when no candidate is left.  Allocates
 * nothing. */
void pd_pipeline_run(struct pd_pipeline_scratch *s, struct pd_pipeline_run *run);

/* Helpers for lines of explanation; nothing happens without a sink. */
static inline void pd_explain_emit(const struct pd_explain_sink *sink, uint32_t kind,
                                   const char *subject, const char *plugin, const char *text,
                                   double value, double extra)
{
    if (sink->line == NULL)
        return;
    struct pd_explain_line line = {
        .kind = kind,
        .subject = pd_str_from(subject),
        .plugin = pd_str_from(plugin),
        .text = pd_str_from(text),
        .value = value,
        .extra = extra,
    };
    sink->line(sink->arg, &line);
}

#endif
