/* SPDX-License-Identifier: Apache-2.0 */
/* The registry: families by name, children by label values.  The lock guards
 * structure only; values are changed and read with relaxed atomics.
 *
 * A family has a fixed cap of children.  What comes beyond it shares one child
 * whose label values are all "other", so that no client can grow the registry
 * by inventing label values. */
#include "metric/registry.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

#include <math.h>

#define DEFAULT_FAMILIES 1024
#define DEFAULT_CHILDREN 256
#define KEY_BYTES (PD_METRIC_MAX_LABELS * (PD_METRIC_VALUE_BYTES + 1))

static struct pd_metric_registry *registry_of(struct pd_metrics *m)
{
    return pd_container_of(m, struct pd_metric_registry, metrics);
}

static bool is_word(const char *s)
{
    if (s == NULL || *s < 'a' || *s > 'z')
        return false;
    for (; *s != '\0'; s++) {
        if (!(*s >= 'a' && *s <= 'z') && !(*s >= '0' && *s <= '9') && *s != '_')
            return false;
    }
    return true;
}

static pd_status check_name(int32_t kind, const char *name, struct pd_err *err)
{
    /* Ends that the text formats give a meaning of their own. */
    static const char *const reserved[] = { "_total", "_count", "_sum", "_bucket", "_created" };
    if (!is_word(name) || !pd_str_starts_with(pd_str_from(name), PD_STR("pdplane_")) ||
        strlen(name) > 128)
        return pd_err_set(err, PD_EINVAL,
                          "expected a metric name of a-z, 0-9 and _ that begins with \"pdplane_\", "
                          "not \"%.100s\"", name == NULL ? "" : name);
    bool is_total = pd_str_ends_with(pd_str_from(name), PD_STR("_total"));
    if (kind == PD_METRIC_COUNTER)
        return is_total ? PD_OK
                        : pd_err_set(err, PD_EINVAL, "counter \"%s\" must end with \"_total\"",
                                     name);
    for (size_t i = 0; i < PD_ARRAY_LEN(reserved); i++) {
        if (pd_str_ends_with(pd_str_from(name), pd_str_from(reserved[i])))
            return pd_err_set(err, PD_EINVAL, "metric \"%s\" must not end with \"%s\"", name,
                              reserved[i]);
    }
    return PD_OK;
}

static pd_status check_desc(int32_t kind, const struct pd_metric_desc *desc, struct pd_err *err)
{
    if (desc->size < sizeof *desc)
        return pd_err_set(err, PD_EINVAL, "the description of a metric is too short");
    if (kind < PD_METRIC_COUNTER || kind > PD_METRIC_HISTOGRAM)
        return pd_err_set(err, PD_EINVAL, "unknown kind of metric %d", kind);
    pd_status status = check_name(kind, desc->name, err);
    if (status != PD_OK)
        return status;
    if (desc->help == NULL || desc->help[0] == '\0')
        return pd_err_set(err, PD_EINVAL, "metric \"%s\" has no help", desc->name);
    if (desc->n_labels > PD_METRIC_MAX_LABELS)
        return pd_err_set(err, PD_EINVAL, "metric \"%s\" has more than %d labels", desc->name,
                          PD_METRIC_MAX_LABELS);
    for (size_t i = 0; i < desc->n_labels; i++) {
        const char *label = desc->labels[i];
        if (!is_word(label) || strlen(label) > 64 || strcmp(label, "le") == 0)
            return pd_err_set(err, PD_EINVAL, "metric \"%s\" has an illegal label \"%.64s\"",
                              desc->name, label == NULL ? "" : label);
        for (size_t k = 0; k < i; k++) {
            if (strcmp(label, desc->labels[k]) == 0)
                return pd_err_set(err, PD_EINVAL, "metric \"%s\" has label \"%s\" twice",
                                  desc->name, label);
        }
    }
    if ((kind == PD_METRIC_HISTOGRAM) != (desc->n_bounds != 0) ||
        desc->n_bounds > PD_METRIC_MAX_BOUNDS)
        return pd_err_set(err, PD_EINVAL,
                          "metric \"%s\": histograms have 1 to %d bounds, others none",
                          desc->name, PD_METRIC_MAX_BOUNDS);
    for (size_t i = 0; i < desc->n_bounds; i++) {
        if (!isfinite(desc->bounds[i]) || (i > 0 && desc->bounds[i] <= desc->bounds[i - 1]))
            return pd_err_set(err, PD_EINVAL, "metric \"%s\": bounds must be finite and ascending",
                              desc->name);
    }
    return PD_OK;
}

static void free_child(const struct pd_metric_family *family, struct pd_metric_child *child)
{
    if (child == NULL)
        return;
    if (family->kind == PD_METRIC_HISTOGRAM)
        pd_free(child->u.histogram.counts);
    pd_free((char *)(uintptr_t)child->key.p);
    pd_free(child);
}

static void free_family(struct pd_metric_family *family)
{
    if (family == NULL)
        return;
    PD_LIST_EACH_SAFE(&family->children, link)
        free_child(family, PD_LIST_ENTRY(link, struct pd_metric_child, link));
    pd_strmap_fini(&family->by_key);
    for (size_t i = 0; i < family->n_labels; i++)
        pd_free(family->labels[i]);
    pd_free(family->bounds);
    pd_free(family->help);
    pd_free(family->name);
    pd_free(family);
}

static struct pd_metric_family *make_family(int32_t kind, const struct pd_metric_desc *desc)
{
    struct pd_metric_family *f = (struct pd_metric_family *)pd_calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    f->kind = kind;
    f->n_bounds = desc->n_bounds;
    f->max_children = desc->max_children == 0 ? DEFAULT_CHILDREN : desc->max_children;
    pd_list_init(&f->link);
    pd_list_init(&f->children);
    /* One more for "other". */
    pd_strmap_init(&f->by_key, f->max_children + 1, 0);
    f->name = pd_strdup(desc->name);
    f->help = pd_strdup(desc->help);
    bool ok = f->name != NULL && f->help != NULL;
    if (desc->n_bounds != 0) {
        f->bounds = (double *)pd_memdup(desc->bounds, desc->n_bounds * sizeof(double));
        ok = ok && f->bounds != NULL;
    }
    for (size_t i = 0; i < desc->n_labels; i++) {
        f->labels[i] = pd_strdup(desc->labels[i]);
        f->n_labels++;
        ok = ok && f->labels[i] != NULL;
    }
    if (!ok) {
        free_family(f);
        return NULL;
    }
    return f;
}

static bool is_same(const struct pd_metric_family *f, int32_t kind,
                    const struct pd_metric_desc *desc)
{
    if (f->kind != kind || f->n_labels != desc->n_labels || f->n_bounds != desc->n_bounds)
        return false;
    for (size_t i = 0; i < f->n_labels; i++) {
        if (strcmp(f->labels[i], desc->labels[i]) != 0)
            return false;
    }
    return f->n_bounds == 0 || memcmp(f->bounds, desc->bounds, f->n_bounds * sizeof(double)) == 0;
}

/* Finds or makes; the registry is locked. */
static pd_status find_family(struct pd_metric_registry *r, int32_t kind,
                             const struct pd_metric_desc *desc, struct pd_err *err,
                             struct pd_metric_family **out)
{
    struct pd_str name = pd_str_from(desc->name);
    struct pd_metric_family *f = (struct pd_metric_family *)pd_strmap_get(&r->by_name, name);
    if (f != NULL) {
        if (!is_same(f, kind, desc))
            return pd_err_set(err, PD_EEXIST, "metric \"%s\" exists with another description",
                              desc->name);
        *out = f;
        return PD_OK;
    }
    f = make_family(kind, desc);
    if (f == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    pd_status status = pd_strmap_add(&r->by_name, name, f);
    if (status != PD_OK) {
        free_family(f);
        return pd_err_set(err, status, "cannot add metric \"%s\": %s", desc->name,
                          pd_status_text(status));
    }
    struct pd_list *place = r->families.next;
    while (place != &r->families &&
           strcmp(PD_LIST_ENTRY(place, struct pd_metric_family, link)->name, f->name) < 0)
        place = place->next;
    pd_list_insert_before(place, &f->link);
    *out = f;
    return PD_OK;
}

static pd_status op_family(struct pd_metrics *m, int32_t kind, const struct pd_metric_desc *desc,
                           struct pd_err *err, struct pd_metric_family **out)
{
    struct pd_metric_registry *r = registry_of(m);
    pd_status status = check_desc(kind, desc, err);
    if (status != PD_OK)
        return status;
    pthread_mutex_lock(&r->lock);
    status = find_family(r, kind, desc, err, out);
    pthread_mutex_unlock(&r->lock);
    return status;
}

/* The label values as one key; all "other" when values is NULL. */
static struct pd_str make_key(const struct pd_metric_family *f, const char *const *values,
                              char key[KEY_BYTES])
{
    size_t n = 0;
    for (size_t i = 0; i < f->n_labels; i++) {
        const char *value = values == NULL ? "other" : values[i];
        size_t len = value == NULL ? 0 : strnlen(value, PD_METRIC_VALUE_BYTES);
        if (len != 0)
            memcpy(key + n, value, len);
        n += len;
        key[n++] = '\0';
    }
    return pd_str_of(key, n);
}

static struct pd_metric_child *add_child(struct pd_metric_family *f, struct pd_str key)
{
    struct pd_metric_child *child = (struct pd_metric_child *)pd_calloc(1, sizeof *child);
    if (child == NULL)
        return NULL;
    pd_list_init(&child->link);
    char *copy = pd_str_dup(key);
    child->key = pd_str_of(copy, key.n);
    bool ok = copy != NULL;
    if (f->kind == PD_METRIC_HISTOGRAM) {
        child->u.histogram.bounds = f->bounds;
        child->u.histogram.n_bounds = (uint32_t)f->n_bounds;
        child->u.histogram.counts = (uint64_t *)pd_calloc(f->n_bounds + 1, sizeof(uint64_t));
        ok = ok && child->u.histogram.counts != NULL;
    }
    if (!ok || pd_strmap_add(&f->by_key, key, child) != PD_OK) {
        free_child(f, child);
        return NULL;
    }
    pd_list_append(&f->children, &child->link);
    return child;
}

/* Finds or makes, "other" when the family is full; the registry is locked. */
static struct pd_metric_child *find_child(struct pd_metric_registry *r, struct pd_metric_family *f,
                                          const char *const *values)
{
    char bytes[KEY_BYTES];
    if (f->n_labels != 0 && values == NULL)
        return NULL;
    struct pd_str key = make_key(f, values, bytes);
    struct pd_metric_child *child = (struct pd_metric_child *)pd_strmap_get(&f->by_key, key);
    if (child != NULL)
        return child;
    size_t counted = f->by_key.n - (f->other != NULL ? 1 : 0);
    if (counted < f->max_children)
        return add_child(f, key);
    pd_counter_inc(r->folded);
    if (f->other == NULL) {
        key = make_key(f, NULL, bytes);
        child = (struct pd_metric_child *)pd_strmap_get(&f->by_key, key);
        f->other = child != NULL ? child : add_child(f, key);
    }
    return f->other;
}

static void *op_child(struct pd_metrics *m, struct pd_metric_family *f, int32_t kind,
                      const char *const *values)
{
    struct pd_metric_registry *r = registry_of(m);
    if (f == NULL || f->kind != kind)
        return NULL;
    pthread_mutex_lock(&r->lock);
    struct pd_metric_child *child = find_child(r, f, values);
    pthread_mutex_unlock(&r->lock);
    return child == NULL ? NULL : (void *)&child->u;
}

static pd_status op_gauge_fn(struct pd_metrics *m, struct pd_metric_family *f,
                             const char *const *values, double (*fn)(void *arg), void *arg)
{
    struct pd_metric_registry *r = registry_of(m);
    pd_status status = PD_OK;
    if (f == NULL || f->kind != PD_METRIC_GAUGE || (f->n_labels != 0 && values == NULL))
        return PD_EINVAL;
    pthread_mutex_lock(&r->lock);
    struct pd_metric_child *child = find_child(r, f, values);
    if (child == NULL) {
        status = PD_ENOMEM;
    } else if (child == f->other) {
        status = PD_ELIMIT;
    } else {
        child->fn = fn;
        child->arg = arg;
    }
    pthread_mutex_unlock(&r->lock);
    return status;
}

static void op_remove(struct pd_metrics *m, struct pd_metric_family *f, const char *const *values)
{
    struct pd_metric_registry *r = registry_of(m);
    char bytes[KEY_BYTES];
    if (f == NULL || (f->n_labels != 0 && values == NULL))
        return;
    pthread_mutex_lock(&r->lock);
    struct pd_str key = make_key(f, values, bytes);
    struct pd_metric_child *child = (struct pd_metric_child *)pd_strmap_get(&f->by_key, key);
    if (child != NULL && child != f->other) {
        pd_strmap_remove(&f->by_key, key);
        pd_list_remove(&child->link);
        free_child(f, child);
    }
    pthread_mutex_unlock(&r->lock);
}

/* Buckets of a histogram are read one by one while others add; the count is
 * their sum, so nobody sees buckets that contradict the count. */
static void read_child(const struct pd_metric_family *f, const struct pd_metric_child *child,
                       uint64_t *buckets, struct pd_metric_sample *out)
{
    if (f->kind == PD_METRIC_COUNTER) {
        out->count = pd_counter_value(&child->u.counter);
    } else if (f->kind == PD_METRIC_GAUGE) {
        out->value = child->fn != NULL ? child->fn(child->arg) : pd_gauge_value(&child->u.gauge);
    } else {
        const struct pd_histogram *h = &child->u.histogram;
        uint64_t bits = __atomic_load_n(&h->sum_bits, __ATOMIC_RELAXED);
        memcpy(&out->value, &bits, sizeof bits);
        for (size_t i = 0; i <= f->n_bounds; i++) {
            buckets[i] = __atomic_load_n(&h->counts[i], __ATOMIC_RELAXED);
            out->count += buckets[i];
        }
        out->buckets = buckets;
    }
}

static void visit_family(const struct pd_metric_family *f, const struct pd_metric_visitor *visitor,
                         void *arg)
{
    struct pd_metric_view view = { .size = sizeof view, .name = f->name, .help = f->help, .kind = f->kind,
                                   .labels = (const char *const *)f->labels, .n_labels = (uint32_t)f->n_labels,
                                   .bounds = f->bounds, .n_bounds = f->n_bounds };
    const char *values[PD_METRIC_MAX_LABELS];
    uint64_t buckets[PD_METRIC_MAX_BOUNDS + 1];
    if (!visitor->family(&view, arg))
        return;
    PD_LIST_EACH(&f->children, link) {
        const struct pd_metric_child *child = PD_LIST_ENTRY(link, struct pd_metric_child, link);
        struct pd_metric_sample sample = { .size = sizeof sample, .values = values };
        const char *value = child->key.p;
        for (size_t i = 0; i < f->n_labels; i++) {
            values[i] = value;
            value += strlen(value) + 1;
        }
        read_child(f, child, buckets, &sample);
        visitor->sample(&view, &sample, arg);
    }
}

void pd_metrics_refresh(struct pd_metrics *m)
{
    struct pd_metric_registry *r = registry_of(m);
    if (r->refresh != NULL)
        r->refresh(r->refresh_arg);
}

static void op_visit(struct pd_metrics *m, const struct pd_metric_visitor *visitor, void *arg)
{
    struct pd_metric_registry *r = registry_of(m);
    pd_metrics_refresh(m);
    pthread_mutex_lock(&r->lock);
    PD_LIST_EACH(&r->families, link) {
        const struct pd_metric_family *f = PD_LIST_ENTRY(link, struct pd_metric_family, link);
        if (!pd_list_is_empty(&f->children))
            visit_family(f, visitor, arg);
    }
    pthread_mutex_unlock(&r->lock);
}

void pd_metrics_set_refresh(struct pd_metrics *m, void (*refresh)(void *arg), void *arg)
{
    struct pd_metric_registry *r = registry_of(m);
    r->refresh = refresh;
    r->refresh_arg = arg;
}

static const struct pd_metrics_ops registry_ops = { sizeof registry_ops, op_family, op_child,
                                                    op_gauge_fn, op_remove, op_visit };

pd_status pd_metrics_create(size_t max_families, struct pd_metrics **out)
{
    struct pd_metric_registry *r = (struct pd_metric_registry *)pd_calloc(1, sizeof *r);
    if (r == NULL)
        return PD_ENOMEM;
    r->metrics.ops = &registry_ops;
    pthread_mutex_init(&r->lock, NULL);
    pd_strmap_init(&r->by_name, max_families == 0 ? DEFAULT_FAMILIES : max_families, 0);
    pd_list_init(&r->families);
    r->folded = pd_metrics_simple_counter(&r->metrics, "pdplane_metric_folded_total",
                                          "Look-ups of label values folded into \"other\".");
    if (r->folded == NULL) {
        pd_metrics_destroy(&r->metrics);
        return PD_ENOMEM;
    }
    *out = &r->metrics;
    return PD_OK;
}

void pd_metrics_destroy(struct pd_metrics *m)
{
    if (m == NULL)
        return;
    struct pd_metric_registry *r = registry_of(m);
    PD_LIST_EACH_SAFE(&r->families, link)
        free_family(PD_LIST_ENTRY(link, struct pd_metric_family, link));
    pd_strmap_fini(&r->by_name);
    pthread_mutex_destroy(&r->lock);
    pd_free(r);
}

static double child_value(const struct pd_metric_family *f, const struct pd_metric_child *child)
{
    uint64_t n = 0;
    if (f->kind == PD_METRIC_COUNTER)
        return (double)pd_counter_value(&child->u.counter);
    if (f->kind == PD_METRIC_GAUGE)
        return child->fn != NULL ? child->fn(child->arg) : pd_gauge_value(&child->u.gauge);
    for (size_t i = 0; i <= f->n_bounds; i++)
        n += __atomic_load_n(&child->u.histogram.counts[i], __ATOMIC_RELAXED);
    return (double)n;
}

pd_status pd_metrics_read(struct pd_metrics *m, const char *name, const char *const *values,
                          double *out)
{
    struct pd_metric_registry *r = registry_of(m);
    struct pd_metric_child *child = NULL;
    char bytes[KEY_BYTES];
    pthread_mutex_lock(&r->lock);
    struct pd_metric_family *f =
        (struct pd_metric_family *)pd_strmap_get(&r->by_name, pd_str_from(name));
    if (f != NULL && (f->n_labels == 0 || values != NULL))
        child = (struct pd_metric_child *)pd_strmap_get(&f->by_key, make_key(f, values, bytes));
    if (child != NULL)
        *out = child_value(f, child);
    pthread_mutex_unlock(&r->lock);
    return child == NULL ? PD_ENOENT : PD_OK;
}

uint64_t pd_metrics_folded(struct pd_metrics *m)
{
    return pd_counter_value(registry_of(m)->folded);
}
