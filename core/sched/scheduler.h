/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler of a node: endpoints, prefix index and pipeline together.  Its
 * functions are those of struct pd_sched_api (pdplane/sched.h); core code calls
 * them through the table as well.  Loop thread. */
#ifndef PD_SCHED_SCHEDULER_H
#define PD_SCHED_SCHEDULER_H

#include <pdplane/metric.h>
#include <pdplane/sched.h>

#include "sched/options.h"
#include "sched/plugins.h"
#include "sched/prefix.h"

/* Limits come from conf and hold for the life of the scheduler.  The pipeline
 * is borrowed until it is replaced or the scheduler is destroyed.  metrics may
 * be NULL.  PD_OK, PD_EINVAL, PD_ENOMEM.  Gives: pd_sched_destroy. */
pd_status pd_sched_create(const struct pd_sched_conf *conf,
                          const struct pd_sched_pipeline *pipeline, struct pd_metrics *metrics,
                          struct pd_err *err, struct pd_sched **out);
/* NULL is allowed. */
void pd_sched_destroy(struct pd_sched *sched);
/* A new configuration: endpoints, what is in flight and the index stay. */
void pd_sched_set_pipeline(struct pd_sched *sched, const struct pd_sched_conf *conf,
                           const struct pd_sched_pipeline *pipeline);
/* The table that role modules get as PD_SCHED_TABLE; constant. */
const struct pd_sched_api *pd_sched_api(void);

void pd_sched_prefix_stats(const struct pd_sched *sched, struct pd_prefix_stats *out);

#endif
