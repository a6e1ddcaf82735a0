/* SPDX-License-Identifier: Apache-2.0 */
/* The core's side of <pdplane/metric.h>: the registry. */
#ifndef PD_METRIC_METRIC_H
#define PD_METRIC_METRIC_H

#include <pdplane/metric.h>

/* An empty registry of at most max_families (0: 1024).  Gives:
 * pd_metrics_destroy.  PD_OK or PD_ENOMEM. */
pd_status pd_metrics_create(size_t max_families, struct pd_metrics **out);
/* Frees families and children; nobody may use an instrument any more. */
void pd_metrics_destroy(struct pd_metrics *m);

/* Calls refresh before everything is read (pd_metrics_visit), to bring in what is
 * kept elsewhere; NULL ends that. */
void pd_metrics_set_refresh(struct pd_metrics *m, void (*refresh)(void *arg), void *arg);
/* Calls it. */
void pd_metrics_refresh(struct pd_metrics *m);

/* Value of a counter or gauge, count of a histogram; values as for
 * pd_metrics_counter.  PD_OK or PD_ENOENT.  Any thread. */
pd_status pd_metrics_read(struct pd_metrics *m, const char *name, const char *const *values,
                          double *out);
/* Children that were folded into "other" so far. */
uint64_t pd_metrics_folded(struct pd_metrics *m);

#endif
