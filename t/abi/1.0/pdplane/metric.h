/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of one node: counters, gauges and histograms in families with labels.
 * Families are made up front and live as long as the registry; making them and
 * finding children takes a lock, changing a value does not.
 *
 *     static const char *const labels[] = { "peer" };
 *     static const struct pd_metric_desc desc = {
 *         .size = sizeof desc, .name = "pdplane_peer_bytes_total",
 *         .help = "Bytes received from the peer.", .labels = labels, .n_labels = 1,
 *     };
 *     pd_metrics_family(m, PD_METRIC_COUNTER, &desc, err, &family);
 *     counter = pd_metrics_counter(m, family, (const char *const[]){ "d3" });
 *     pd_counter_add(counter, n);
 *
 * Names begin with "pdplane_", use a-z, 0-9 and _, and carry their unit;
 * counters end with "_total".  Everything here: any thread.  A NULL instrument
 * is allowed and counts nothing.  Stable. */
#ifndef PDPLANE_METRIC_H
#define PDPLANE_METRIC_H

#include <string.h>

#include <pdplane/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PD_METRIC_COUNTER = 1,
    PD_METRIC_GAUGE = 2,
    PD_METRIC_HISTOGRAM = 3
};

#define PD_METRIC_MAX_LABELS 8
#define PD_METRIC_MAX_BOUNDS 64

/* Upper bounds for durations in seconds, 100 us to 60 s, and for bytes. */
#define PD_METRIC_BOUNDS_SECONDS                                               \
    { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, \
      2.5, 5.0, 10.0, 30.0, 60.0 }
#define PD_METRIC_BOUNDS_BYTES                                                 \
    { 1024.0, 16384.0, 131072.0, 1048576.0, 8388608.0, 67108864.0, 536870912.0, 4294967296.0 }

/* What a family is.  Borrowed for the call. */
struct pd_metric_desc {
    size_t size;                    /* sizeof(struct pd_metric_desc) */
    const char *name;
    const char *help;               /* one sentence with a full stop */
    const char *const *labels;
    size_t n_labels;
    const double *bounds;           /* histograms: ascending, finite */
    size_t n_bounds;
    size_t max_children;            /* 0: 256; more fold into label values "other" */
};

struct pd_metric_family;

struct pd_counter {
    uint64_t v;
};

struct pd_gauge {
    uint64_t bits;                  /* of a double */
};

struct pd_histogram {
    const double *bounds;
    uint32_t n_bounds;
    uint64_t sum_bits;              /* of a double */
    uint64_t *counts;               /* n_bounds + 1, not cumulative */
};

/* A family and one of its children as they are read; borrowed for the call. */
struct pd_metric_view {
    size_t size;
    const char *name;
    const char *help;
    int32_t kind;                   /* PD_METRIC_* */
    uint32_t n_labels;
    const char *const *labels;
    const double *bounds;           /* histograms */
    size_t n_bounds;
};

struct pd_metric_sample {
    size_t size;
    const char *const *values;      /* of the labels; bytes of clients and peers, also such that are
                                       not UTF-8 */
    uint64_t count;                 /* of a counter; observations of a histogram */
    double value;                   /* of a gauge; sum of a histogram */
    const uint64_t *buckets;        /* histograms: n_bounds + 1, not cumulative, together count */
};

struct pd_metric_visitor {
    size_t size;
    /* False leaves the samples of this family out. */
    bool (*family)(const struct pd_metric_view *family, void *arg);
    void (*sample)(const struct pd_metric_view *family, const struct pd_metric_sample *sample,
                   void *arg);
};

struct pd_metrics_ops {
    size_t size;
    pd_status (*family)(struct pd_metrics *m, int32_t kind, const struct pd_metric_desc *desc,
                        struct pd_err *err, struct pd_metric_family **out);
    void *(*child)(struct pd_metrics *m, struct pd_metric_family *family, int32_t kind,
                   const char *const *values);
    pd_status (*gauge_fn)(struct pd_metrics *m, struct pd_metric_family *family,
                          const char *const *values, double (*fn)(void *arg), void *arg);
    void (*remove)(struct pd_metrics *m, struct pd_metric_family *family,
                   const char *const *values);
    void (*visit)(struct pd_metrics *m, const struct pd_metric_visitor *visitor, void *arg);
};

/* First member of every registry; the rest belongs to the core. */
struct pd_metrics {
    const struct pd_metrics_ops *ops;
};

/* Makes a family, or finds the one made before with the same description.
 * Borrowed; lives as long as the registry.  PD_OK; PD_EINVAL: name, labels or
 * bounds not legal; PD_EEXIST: other description under this name; PD_ELIMIT;
 * PD_ENOMEM.  err may be NULL. */
static inline pd_status pd_metrics_family(struct pd_metrics *m, int32_t kind,
                                          const struct pd_metric_desc *desc, struct pd_err *err,
                                          struct pd_metric_family **out)
{
    return m->ops->family(m, kind, desc, err, out);
}

/* The child with these label values (n_labels of them; NULL when there are no
 * labels), made when it is new.  Borrowed; lives until pd_metrics_remove.  When
 * the family is full this is the child whose values are all "other".  NULL when
 * memory is short or the family is of another kind. */
static inline struct pd_counter *pd_metrics_counter(struct pd_metrics *m,
                                                    struct pd_metric_family *family,
                                                    const char *const *values)
{
    return (struct pd_counter *)m->ops->child(m, family, PD_METRIC_COUNTER, values);
}

static inline struct pd_gauge *pd_metrics_gauge(struct pd_metrics *m,
                                                struct pd_metric_family *family,
                                                const char *const *values)
{
    return (struct pd_gauge *)m->ops->child(m, family, PD_METRIC_GAUGE, values);
}

static inline struct pd_histogram *pd_metrics_histogram(struct pd_metrics *m,
                                                        struct pd_metric_family *family,
                                                        const char *const *values)
{
    return (struct pd_histogram *)m->ops->child(m, family, PD_METRIC_HISTOGRAM, values);
}

/* A gauge whose value fn gives at each exposition, on the thread that exposes,
 * with the registry locked: fn calls nothing of the registry.  fn NULL ends
 * that; afterwards fn is not called any more.  PD_OK, PD_EINVAL, PD_ELIMIT
 * (the family is full), PD_ENOMEM. */
static inline pd_status pd_metrics_gauge_fn(struct pd_metrics *m, struct pd_metric_family *family,
                                            const char *const *values, double (*fn)(void *arg),
                                            void *arg)
{
    return m->ops->gauge_fn(m, family, values, fn, arg);
}

/* Forgets a child; its owner must not use it any more.  The "other" child and
 * children that are not there stay as they are. */
static inline void pd_metrics_remove(struct pd_metrics *m, struct pd_metric_family *family,
                                     const char *const *values)
{
    m->ops->remove(m, family, values);
}

/* Reads everything: each family that has children, sorted by name, then its
 * samples in order of creation.  The registry is locked meanwhile: a visitor
 * calls nothing of it and does not wait.  Values go on changing; the buckets of
 * one sample are always its count.  Loop thread. */
static inline void pd_metrics_visit(struct pd_metrics *m, const struct pd_metric_visitor *visitor,
                                    void *arg)
{
    m->ops->visit(m, visitor, arg);
}

/* A family without labels and its one child in one step; NULL when that fails. */
static inline struct pd_counter *pd_metrics_simple_counter(struct pd_metrics *m, const char *name,
                                                           const char *help)
{
    struct pd_metric_desc desc;
    struct pd_metric_family *family = NULL;
    memset(&desc, 0, sizeof desc);
    desc.size = sizeof desc;
    desc.name = name;
    desc.help = help;
    if (pd_metrics_family(m, PD_METRIC_COUNTER, &desc, NULL, &family) != PD_OK)
        return NULL;
    return pd_metrics_counter(m, family, NULL);
}

static inline struct pd_gauge *pd_metrics_simple_gauge(struct pd_metrics *m, const char *name,
                                                       const char *help)
{
    struct pd_metric_desc desc;
    struct pd_metric_family *family = NULL;
    memset(&desc, 0, sizeof desc);
    desc.size = sizeof desc;
    desc.name = name;
    desc.help = help;
    if (pd_metrics_family(m, PD_METRIC_GAUGE, &desc, NULL, &family) != PD_OK)
        return NULL;
    return pd_metrics_gauge(m, family, NULL);
}

static inline void pd_counter_add(struct pd_counter *c, uint64_t n)
{
    if (c != NULL)
        __atomic_fetch_add(&c->v, n, __ATOMIC_RELAXED);
}

static inline void pd_counter_inc(struct pd_counter *c)
{
    pd_counter_add(c, 1);
}

static inline uint64_t pd_counter_value(const struct pd_counter *c)
{
    return c == NULL ? 0 : __atomic_load_n(&c->v, __ATOMIC_RELAXED);
}

/* Adds to a double that is kept as its bits. */
static inline void pd_metric_add_bits(uint64_t *bits, double delta)
{
    uint64_t old = __atomic_load_n(bits, __ATOMIC_RELAXED);
    uint64_t now;
    do {
        double v;
        memcpy(&v, &old, sizeof v);
        v += delta;
        memcpy(&now, &v, sizeof now);
    } while (!__atomic_compare_exchange_n(bits, &old, now, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
}

static inline void pd_gauge_set(struct pd_gauge *g, double v)
{
    if (g != NULL) {
        uint64_t bits;
        memcpy(&bits, &v, sizeof bits);
        __atomic_store_n(&g->bits, bits, __ATOMIC_RELAXED);
    }
}

static inline void pd_gauge_add(struct pd_gauge *g, double delta)
{
    if (g != NULL)
        pd_metric_add_bits(&g->bits, delta);
}

static inline double pd_gauge_value(const struct pd_gauge *g)
{
    double v = 0;
    if (g != NULL) {
        uint64_t bits = __atomic_load_n(&g->bits, __ATOMIC_RELAXED);
        memcpy(&v, &bits, sizeof v);
    }
    return v;
}

/* A value counts in the first bucket whose bound is not below it; NaN is
 * dropped. */
static inline void pd_histogram_observe(struct pd_histogram *h, double v)
{
    if (h == NULL || v != v)
        return;
    uint32_t low = 0;
    uint32_t high = h->n_bounds;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (v <= h->bounds[mid])
            high = mid;
        else
            low = mid + 1;
    }
    __atomic_fetch_add(&h->counts[low], 1, __ATOMIC_RELAXED);
    pd_metric_add_bits(&h->sum_bits, v);
}

/* A duration, in a histogram of seconds. */
static inline void pd_histogram_observe_ns(struct pd_histogram *h, pd_time ns)
{
    pd_histogram_observe(h, (double)ns / 1e9);
}

#ifdef __cplusplus
}
#endif
#endif
