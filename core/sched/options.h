/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the configuration section `scheduler`. */
#ifndef PD_SCHED_OPTIONS_H
#define PD_SCHED_OPTIONS_H

#include <pdplane/conf.h>

/* One plugin, under a name of its own; members of filters, scorers, pickers,
 * plugins, and the decider. */
struct pd_sched_plugin_conf {
    const char *name;              /* NULL: the name of its unit */
    struct pd_conf_unit unit;
    struct pd_conf_place place;
};

struct pd_sched_use_conf {
    const char *use;               /* name of a plugin or of a unit */
    double weight;
    struct pd_conf_place place;
};

struct pd_sched_profile_conf {
    uint32_t role;                 /* PD_ROLE_PREFILL or PD_ROLE_DECODE */
    uint32_t reserved;
    struct pd_conf_strings filters;
    struct pd_conf_list scorers;   /* struct pd_sched_use_conf */
    struct pd_conf_list plugins;   /* struct pd_sched_use_conf, of any kind */
    const char *pick;              /* may be NULL */
    struct pd_conf_place place;
};

struct pd_sched_prefix_conf {
    uint64_t block_tokens;
    uint64_t blocks_per_endpoint;
    uint64_t max_match_blocks;
    uint64_t blocks;
};

struct pd_sched_conf {
    const struct pd_sched_plugin_conf *decider;  /* NULL: not given */
    struct pd_conf_list filters;   /* struct pd_sched_plugin_conf */
    struct pd_conf_list scorers;
    struct pd_conf_list pickers;
    struct pd_conf_list plugins;
    struct pd_conf_list profiles;  /* struct pd_sched_profile_conf */
    struct pd_sched_prefix_conf prefix;
    uint64_t endpoints;            /* limit */
    uint64_t explain_candidates;
    pd_time load_stale;
    uint64_t failures;
    pd_time failure_pause;
    struct pd_conf_place place;
};

extern const struct pd_option pd_sched_options[];
/* One row, key "plugin", that fills a struct pd_sched_plugin_conf: how a unit
 * gets its defaults when a profile names it directly. */
extern const struct pd_option pd_sched_plugin_options[];

/* Units that the pipeline is made of where the configuration says nothing;
 * also the names of the modules that provide them.  Ended by NULL. */
extern const char *const pd_sched_default_modules[];
/* The decider that holds when none is given, as text for pd_sched_plugin_options. */
extern const char pd_sched_default_decider[];
/* The profile of this role that holds when none is given. */
struct pd_sched_profile_conf pd_sched_default_profile(uint32_t role);

#endif
