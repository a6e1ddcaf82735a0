/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/discovery: source.c keeps what one source says, settle.c decides which
 * of it is used, sources.c has all of them. */
#ifndef PD_DISCOVERY_PRIV_H
#define PD_DISCOVERY_PRIV_H

#include "base/map.h"
#include "discovery/sources.h"

/* What a source says under one name. */
struct pd_source_item {
    struct pd_entry *entry;
    char *why;                 /* NULL, or why it is not used */
};

/* Why entries are refused; labels of the metric. */
enum {
    PD_REFUSED_INVALID = 0,
    PD_REFUSED_DUPLICATE = 1,
    PD_REFUSED_LIMIT = 2,
    PD_REFUSED_UNUSABLE = 3,
    PD_REFUSED_KINDS = 4
};

struct pd_source {
    struct pd_discovery_sink sink;      /* first */
    struct pd_sources *sources;
    struct pd_source_conf conf;
    struct pd_discovery *instance;
    struct pd_log *log;
    struct pd_strmap items;             /* what holds: name to struct pd_source_item */
    struct pd_strmap next;              /* the set that was begun */
    bool has_begun;
    bool is_started;
    bool is_closing;
    uint32_t state;
    uint32_t used, leaving;             /* kept by settle.c */
    uint64_t updates, refused, losses, round;
    pd_time synced_at;                  /* PD_TIME_NEVER: never */
    struct pd_timer stale_timer;
    pd_time stale_due;                  /* of the timer, while it runs */
    struct pd_idmap told;               /* refusals that the log has: hash to round */
    char why[200];
    struct pd_task end_task;            /* frees it, once its instance has closed */
    struct pd_counter *m_updates, *m_refused[PD_REFUSED_KINDS], *m_losses;
    struct pd_gauge *m_entries, *m_used, *m_state;
};

/* An entry in use, or leaving. */
struct pd_used {
    struct pd_entry *entry;
    struct pd_source *source;
    uint64_t round;                     /* of the last settling that wanted it */
    bool is_leaving;
    bool is_passed;                     /* from another source: it is looked at again */
    pd_time until;                      /* is_leaving: forgotten then */
};

struct pd_sources {
    struct pd_sources_params params;
    struct pd_source *all[PD_SOURCES_MAX];
    uint32_t n;
    struct pd_strmap used;              /* by name: struct pd_used */
    struct pd_strmap by_address;        /* the same by kind and address */
    struct pd_timer settle_timer;
    pd_time settle_due;                 /* of the timer, while it runs */
    pd_time settled_at;
    uint64_t round;
    bool has_settled;
    bool is_closing;
    uint32_t n_open;                    /* instances that have not closed */
    uint32_t n_ending;                  /* of sources that are in the set no more */
    struct pd_task close_task;
    void (*on_closed)(void *arg);
    void *closed_arg;
};

/* source.c */
pd_status pd_source_make(struct pd_sources *sources, const struct pd_source_conf *conf,
                         struct pd_source **out, struct pd_err *err);
/* Frees what is left once the instance has ended. */
void pd_source_free(struct pd_source *source);
/* Takes over what another source of the same name knows. */
void pd_source_inherit(struct pd_source *source, struct pd_source *from);
/* Says how old it is in metrics, where another one of its name may have said so. */
void pd_source_age_show(struct pd_source *source);
/* Counts a refusal; the log gets it once as long as it stays the same. */
void pd_source_refuse(struct pd_source *source, uint32_t kind, struct pd_str name, const char *why);

/* settle.c */
/* What sources say has changed. */
void pd_sources_changed(struct pd_sources *sources);
void pd_sources_on_settle(struct pd_timer *timer, void *arg);
struct pd_used *pd_used_by_name(const struct pd_sources *sources, const struct pd_entry *entry);
/* Takes it out of the tables and frees it; tell: the node too. */
void pd_used_drop(struct pd_sources *sources, struct pd_used *used, bool tell);
/* What is in use of a source that ends is that of another one, or is not in use any more (NULL). */
void pd_used_pass_on(struct pd_sources *sources, struct pd_source *from, struct pd_source *to);

#endif
