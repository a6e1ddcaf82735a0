/* SPDX-License-Identifier: Apache-2.0 */
/* The candidates of one profile for one model, as its filters left them: dense arrays
 * that stay from one request to the next.  Where the filters promise that only changes
 * of endpoints change their answer (PD_FILTER_STEADY) a list holds until the table's
 * version changes or its time is over; loads come in one by one, from the table's
 * changes.  So a request costs what has changed, not what there is.  Loop thread. */
#ifndef PD_SCHED_SHORTLIST_H
#define PD_SCHED_SHORTLIST_H

#include "sched/endpoints.h"
#include "sched/pipeline.h"

#define PD_SHORTLIST_MODEL_MAX 255u
/* Explanations after which a list gets a roster: what lives shorter is not worth one. */
#define PD_SHORTLIST_ROSTER_AFTER 16u

struct pd_shortlist_drop {
    uint32_t slot;
    const char *name;
    const char *plugin;             /* that dropped it */
};

struct pd_shortlist {
    /* What it is of; version 0: nothing that may be used again. */
    uint64_t version;
    const struct pd_profile *profile;
    uint64_t family;
    size_t model_n;
    char model[PD_SHORTLIST_MODEL_MAX];
    uint64_t used;                  /* when, in requests */

    pd_time until;                  /* it holds before this moment */
    uint64_t seen;                  /* changes of the table that are in it */
    uint32_t serving;               /* endpoints that serve the model */
    uint32_t candidates;            /* before the filters */
    uint32_t n;                     /* behind them */
    bool is_stale;                  /* every report was stale and is used anyway */
    bool shows_age;                 /* a plugin looks at report_age_ns, and something reported */
    bool has_base;                  /* a scorer has PD_SCORER_BY_LOAD */
    bool has_partners;              /* the next two are known */
    uint32_t partners;
    uint64_t partners_family;

    struct pd_explain_roster *roster;   /* its names for explanations; NULL: not made */
    uint32_t explained;                 /* times, up to PD_SHORTLIST_ROSTER_AFTER */

    uint32_t cap;
    uint32_t columns;
    struct pd_endpoint_view *views; /* match_blocks 0 but for those of `matched` */
    double *base;                   /* weighted sum of scorers with PD_SCORER_BY_LOAD */
    double *scores;                 /* a column of `cap` for each scorer */
    uint32_t *matched;              /* candidates */
    uint32_t matched_n;
    struct pd_shortlist_drop *drops;    /* the first ones */
    uint32_t drops_n;
    uint32_t *at;                   /* of a slot: its candidate + 1, or one of the numbers below */
    uint32_t slots;
};

#define PD_SHORTLIST_NONE 0u                    /* not asked about */
#define PD_SHORTLIST_DROPPED UINT32_MAX
/* Dropped before any filter that looks at several candidates: without it the list
 * would be the same. */
#define PD_SHORTLIST_ALONE (UINT32_MAX - 1)

/* Room for n candidates, `columns` scorers and slots below `slots`.  PD_OK or PD_ENOMEM
 * (it is as before then). */
pd_status pd_shortlist_reserve(struct pd_shortlist *l, uint32_t n, uint32_t columns, uint32_t slots);
void pd_shortlist_fini(struct pd_shortlist *l);

/* Begins a new list, empty. */
void pd_shortlist_begin(struct pd_shortlist *l, const struct pd_profile *profile, uint32_t slots);
static inline void pd_shortlist_add(struct pd_shortlist *l, const struct pd_endpoint *e, pd_time now)
{
    pd_endpoint_view_at(e, now, &l->views[l->n++]);
    l->at[e->view.slot] = l->n;
}

/* What its filters need to hold; the time that they hold for. */
bool pd_shortlist_is_steady(const struct pd_profile *profile);
pd_time pd_shortlist_until(const struct pd_shortlist *l, const struct pd_endpoints *t, pd_time stale_ns,
                           pd_time now);

/* Runs the filters over what was added; explains at most drops_max of what they drop.
 * stale_ns: reports older than this; PD_TIME_NEVER: none is stale. */
void pd_shortlist_filter(struct pd_shortlist *l, struct pd_pipeline_scratch *s,
                         const struct pd_sched_request *request, pd_time stale_ns, uint32_t drops_max);
/* Brings loads, and ages where a plugin looks at them, to what they are now. */
void pd_shortlist_refresh(struct pd_shortlist *l, const struct pd_endpoints *t,
                          const struct pd_sched_request *request, pd_time now);

/* The roster when it is time for one and there is memory, else NULL. */
struct pd_explain_roster *pd_shortlist_roster(struct pd_shortlist *l, uint32_t drops_max);

/* The endpoint's place in the list, or a number of at least l->n. */
static inline uint32_t pd_shortlist_find(const struct pd_shortlist *l, uint32_t slot)
{
    return l->at[slot] - 1;
}

#endif
