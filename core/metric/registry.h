/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the registry; private to core/metric. */
#ifndef PD_METRIC_REGISTRY_H
#define PD_METRIC_REGISTRY_H

#include "base/list.h"
#include "base/map.h"
#include "metric/metric.h"

#include <pthread.h>

#define PD_METRIC_VALUE_BYTES 128   /* of one label value; longer ones are cut */

struct pd_metric_child {
    struct pd_list link;            /* in family->children */
    struct pd_str key;              /* label values, a zero byte behind each */
    double (*fn)(void *arg);        /* gauges only */
    void *arg;
    union {
        struct pd_counter counter;
        struct pd_gauge gauge;
        struct pd_histogram histogram;
    } u;
};

struct pd_metric_family {
    struct pd_list link;            /* in registry->families, sorted by name */
    int32_t kind;
    char *name;
    char *help;
    size_t n_labels;
    char *labels[PD_METRIC_MAX_LABELS];
    double *bounds;
    size_t n_bounds;
    size_t max_children;
    struct pd_strmap by_key;
    struct pd_list children;        /* in order of creation */
    struct pd_metric_child *other;  /* not counted against max_children */
};

struct pd_metric_registry {
    struct pd_metrics metrics;
    pthread_mutex_t lock;
    struct pd_strmap by_name;
    struct pd_list families;
    struct pd_counter *folded;
    void (*refresh)(void *arg);     /* before everything is read; may be NULL */
    void *refresh_arg;
};

#endif
