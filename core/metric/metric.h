/* SPDX-License-Identifier: Apache-2.0 */
/* The core's side of <pdplane/metric.h>: the registry and its exposition. */
#ifndef PD_METRIC_METRIC_H
#define PD_METRIC_METRIC_H

#include "base/buf.h"

#include <pdplane/metric.h>

enum pd_metric_format {
    PD_METRIC_PROMETHEUS,   /* text 0.0.4 */
    PD_METRIC_OPENMETRICS   /* text 1.0.0 */
};

/* An empty registry of at most max_families (0: 1024).  Gives:
 * pd_metrics_destroy.  PD_OK or PD_ENOMEM. */
pd_status pd_metrics_create(size_t max_families, struct pd_metrics **out);
/* Frees families and children; nobody may use an instrument any more. */
void pd_metrics_destroy(struct pd_metrics *m);

/* Appends all families, sorted by name.  PD_OK, or what the buffer gave.  Any
 * thread. */
pd_status pd_metrics_expose(struct pd_metrics *m, enum pd_metric_format format,
                            struct pd_buf *out);
/* The Content-Type of a format. */
const char *pd_metric_content_type(enum pd_metric_format format);

/* Value of a counter or gauge, count of a histogram; values as for
 * pd_metrics_counter.  PD_OK or PD_ENOENT.  Any thread. */
pd_status pd_metrics_read(struct pd_metrics *m, const char *name, const char *const *values,
                          double *out);
/* Children that were folded into "other" so far. */
uint64_t pd_metrics_folded(struct pd_metrics *m);

#endif
