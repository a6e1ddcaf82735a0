/* SPDX-License-Identifier: Apache-2.0 */
/* The plugins of one configuration generation, made and wired into profiles. */
#ifndef PD_SCHED_PLUGINS_H
#define PD_SCHED_PLUGINS_H

#include "mod/mod.h"
#include "sched/options.h"
#include "sched/pipeline.h"

/* What the scheduler runs; everything is borrowed from its maker. */
struct pd_sched_pipeline {
    struct pd_profile decode;
    struct pd_profile prefill;
    const char *decider_name;
    const struct pd_decider_ops *decider_ops;
    struct pd_decider *decider;
};

struct pd_sched_plugins_params {
    const struct pd_sched_conf *conf;   /* must outlive the plugins */
    struct pd_mods *mods;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_metrics *metrics;
    struct pd_host *host;
};

struct pd_sched_plugins;

/* Creates all plugins that profiles and decider need.  PD_OK, or err says what
 * is wrong and where.  Gives: pd_sched_plugins_destroy.  Loop thread. */
pd_status pd_sched_plugins_create(const struct pd_sched_plugins_params *params, struct pd_err *err,
                                  struct pd_sched_plugins **out);
/* Nobody may run the pipeline any more.  NULL is allowed. */
void pd_sched_plugins_destroy(struct pd_sched_plugins *plugins);
/* Borrowed; lives as long as the plugins. */
const struct pd_sched_pipeline *pd_sched_plugins_pipeline(const struct pd_sched_plugins *plugins);

#endif
