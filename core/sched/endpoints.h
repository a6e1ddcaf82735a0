/* SPDX-License-Identifier: Apache-2.0 */
/* The table of endpoints and what is in flight to each.  Loop thread. */
#ifndef PD_SCHED_ENDPOINTS_H
#define PD_SCHED_ENDPOINTS_H

#include "base/map.h"

#include "sched/meter.h"

#include <pdplane/sched.h>

/* Changes that are remembered. */
#define PD_ENDPOINTS_CHANGES 64u

struct pd_endpoint_model {
    uint64_t hash;
    size_t n;
};

struct pd_endpoint {
    struct pd_endpoint_view view;   /* counters; ages and matches are filled when asked for */
    char name[PD_ENDPOINT_NAME_MAX + 1];
    uint32_t name_n;
    struct pd_sched_meter_seat seat;    /* of the name */
    char *key;
    char **models;                  /* ended by NULL, one allocation with the texts */
    struct pd_endpoint_model *known;    /* the same, to compare with */
    uint32_t models_n;
    uint32_t failures;              /* in a row */
    uint32_t report;                /* number of the last load report */
    uint32_t block_tokens;
    uint32_t flags;                 /* PD_ENDPOINT_WHOLE ... */
    uint64_t family;
    uint32_t state_before;          /* is_leaving: to go back to */
    bool is_leaving;                /* goes with its last dispatch */
    pd_time reported;               /* PD_TIME_NEVER: nothing yet */
    pd_time suspect_until;          /* because of failures */
    uint64_t dispatched_total;
    uint64_t failed_total;
    void *user;
};

struct pd_endpoints {
    struct pd_endpoint **slots;
    uint32_t *spare;                /* free slots, a stack */
    uint32_t spare_n;
    uint32_t max;
    uint32_t used;                  /* slots below this may be in use */
    uint32_t n;
    uint64_t serial;
    uint64_t version;               /* changes when an endpoint, its models, roles or state do; not 0 */
    uint64_t changes;               /* of loads, so far */
    uint32_t changed[PD_ENDPOINTS_CHANGES]; /* slots; that of change i at i % PD_ENDPOINTS_CHANGES */
    struct pd_strmap by_key;
    uint32_t failures_max;          /* in a row until suspect */
    pd_time suspect_ns;
};

/* PD_OK, PD_EINVAL, PD_ENOMEM. */
pd_status pd_endpoints_init(struct pd_endpoints *t, uint32_t max, uint32_t failures_max,
                            pd_time suspect_ns);
void pd_endpoints_fini(struct pd_endpoints *t);

/* Adds or updates; *is_new says which.  PD_OK, PD_EINVAL, PD_ELIMIT, PD_ENOMEM;
 * on an error nothing has changed. */
pd_status pd_endpoints_put(struct pd_endpoints *t, const struct pd_endpoint_info *info,
                           struct pd_endpoint **out, bool *is_new);
void pd_endpoints_remove(struct pd_endpoints *t, struct pd_endpoint *e);
/* Marks it as leaving; whoever ends its last dispatch removes it. */
void pd_endpoints_leave(struct pd_endpoints *t, struct pd_endpoint *e);
void pd_endpoints_state(struct pd_endpoints *t, struct pd_endpoint *e, uint32_t state);
struct pd_endpoint *pd_endpoints_find(const struct pd_endpoints *t, struct pd_str key);
/* NULL when it is gone. */
static inline struct pd_endpoint *pd_endpoints_at(const struct pd_endpoints *t, struct pd_endpoint_ref ref)
{
    struct pd_endpoint *e = ref.slot < t->used ? t->slots[ref.slot] : NULL;
    return e != NULL && e->view.serial == ref.serial ? e : NULL;
}
static inline struct pd_endpoint_ref pd_endpoint_ref_of(const struct pd_endpoint *e)
{
    return (struct pd_endpoint_ref){ .slot = e->view.slot, .serial = e->view.serial };
}

bool pd_endpoint_serves(const struct pd_endpoint *e, struct pd_str model, uint64_t model_hash);
uint64_t pd_endpoint_model_hash(struct pd_str model);
/* PD_TIME_NEVER: it never reported. */
static inline pd_time pd_endpoint_age(const struct pd_endpoint *e, pd_time now)
{
    if (e->reported == PD_TIME_NEVER)
        return PD_TIME_NEVER;
    return now > e->reported ? now - e->reported : 0;
}
/* The view at this moment, match_blocks 0. */
void pd_endpoint_view_at(const struct pd_endpoint *e, pd_time now, struct pd_endpoint_view *out);

/* A report after stale_ns without one, or the first, counts as a change of state. */
void pd_endpoints_report(struct pd_endpoints *t, struct pd_endpoint *e, const struct pd_endpoint_load *load,
                         pd_time stale_ns, pd_time now);
/* Counts a dispatch and fills all of out but ticket and prompt. */
void pd_endpoints_dispatched(struct pd_endpoints *t, struct pd_endpoint *e, uint32_t role, uint64_t tokens,
                             struct pd_dispatch *out);
void pd_endpoints_computed(struct pd_endpoints *t, struct pd_endpoint *e, struct pd_dispatch *d);
void pd_endpoints_ended(struct pd_endpoints *t, struct pd_endpoint *e, struct pd_dispatch *d,
                        uint32_t result, pd_time now);

#endif
