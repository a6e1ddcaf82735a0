/* SPDX-License-Identifier: Apache-2.0 */
/* One scheduling profile: filters, weighted scorers and a picker; the last two run over
 * the shortlist that the filters left.  Borrows its plugins.  Loop thread. */
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
    uint8_t asked[PD_PROFILE_SCORERS_MAX];  /* scorers that each request asks: all without PD_SCORER_BY_LOAD */
    uint32_t asked_n;
    bool has_picked;                /* one of them wants to hear what was picked */
    const char *picker_name;
    const struct pd_picker_ops *picker_ops;
    struct pd_picker *picker;
};

struct pd_shortlist;
struct pd_prefix_holder;

/* Memory that runs share. */
struct pd_pipeline_scratch {
    uint8_t *keep;
    double *total;
    struct pd_prefix_holder *holders;   /* of the prompt's first block */
    uint32_t holders_n;
    uint32_t *index;
    uint32_t cap;
};

struct pd_pipeline_run {
    struct pd_shortlist *list;
    const struct pd_sched_request *request;
    uint64_t without;               /* an endpoint that the list is to be taken as not having, by its
                                       slot + 1; 0: none */
    uint32_t want;                  /* picks */
    uint32_t explain_max;           /* candidates to explain */
    struct pd_explain_sink explain;
    /* results */
    uint32_t picks;                 /* in scratch->index, best first */
};

/* PD_OK or PD_ENOMEM (nothing is held then). */
pd_status pd_pipeline_scratch_init(struct pd_pipeline_scratch *s, uint32_t cap);
void pd_pipeline_scratch_fini(struct pd_pipeline_scratch *s);

/* PD_OK or PD_ELIMIT.  Everything is borrowed; weight is finite. */
pd_status pd_profile_add_filter(struct pd_profile *p, const char *name,
                                const struct pd_filter_ops *ops, struct pd_filter *instance);
pd_status pd_profile_add_scorer(struct pd_profile *p, const char *name,
                                const struct pd_scorer_ops *ops, struct pd_scorer *instance,
                                double weight);

/* Writes the matches of scratch->holders into the views. */
void pd_pipeline_match(const struct pd_pipeline_scratch *s, struct pd_shortlist *list);
/* Scores and picks; run->picks is 0 when no candidate is left.  Allocates nothing. */
void pd_pipeline_run(struct pd_pipeline_scratch *s, struct pd_pipeline_run *run);

/* Helpers for lines of explanation; nothing happens without a sink. */
static inline void pd_explain_tell(const struct pd_explain_sink *sink, const struct pd_explain_line *line)
{
    if (sink->line != NULL)
        sink->line(sink->arg, line);
}

static inline void pd_explain_emit(const struct pd_explain_sink *sink, uint32_t kind,
                                   const char *subject, const char *plugin, const char *text,
                                   double value, double extra)
{
    const struct pd_explain_line line = {
        .kind = kind,
        .subject = pd_str_from(subject),
        .plugin = pd_str_from(plugin),
        .text = pd_str_from(text),
        .value = value,
        .extra = extra,
    };
    pd_explain_tell(sink, &line);
}

#endif
