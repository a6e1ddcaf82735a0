/* SPDX-License-Identifier: Apache-2.0 */
/* The registry as text, in the format of Prometheus (0.0.4) or OpenMetrics
 * (1.0).  They differ in the names of counters (OpenMetrics drops "_total" from
 * HELP and TYPE), in the escaping of HELP and in the closing "# EOF".
 *
 * Buckets of a histogram are read one by one while others add; the count is
 * their sum, so a scrape never shows buckets that contradict the count. */
#include "metric/registry.h"

#include "base/compiler.h"
#include "base/json.h"
#include "base/str.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

const char *pd_metric_content_type(enum pd_metric_format format)
{
    return format == PD_METRIC_OPENMETRICS
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}

/* Backslash and line feed are escaped, quotes where asked for; bytes that are
 * not UTF-8 become U+FFFD. */
static void put_escaped(struct pd_buf *out, struct pd_str s, bool quotes)
{
    while (s.n != 0) {
        uint32_t cp;
        size_t n = pd_utf8_decode(s.p, s.n, &cp);
        if (n == 0)
            pd_buf_append(out, "\xef\xbf\xbd", 3);
        else if (cp == '\n')
            pd_buf_append(out, "\\n", 2);
        else if (cp == '\\' || (cp == '"' && quotes))
            pd_buf_appendf(out, "\\%c", (char)cp);
        else
            pd_buf_append(out, s.p, n);
        s = pd_str_sub(s, n == 0 ? 1 : n, SIZE_MAX);
    }
}

static void put_double(struct pd_buf *out, double v)
{
    if (isnan(v))
        pd_buf_append(out, "NaN", 3);
    else if (isinf(v))
        pd_buf_append(out, v > 0 ? "+Inf" : "-Inf", 4);
    else
        pd_json_put_double(out, v);
}

/* Bounds always show a point or an exponent, as OpenMetrics wants them. */
static void put_bound(struct pd_buf *out, double v)
{
    size_t before = out->n;
    pd_json_put_double(out, v);
    if (out->status == PD_OK && memchr(out->p + before, '.', out->n - before) == NULL &&
        memchr(out->p + before, 'e', out->n - before) == NULL)
        pd_buf_append(out, ".0", 2);
}

static void put_head(const struct pd_metric_family *f, enum pd_metric_format format,
                     struct pd_buf *out)
{
    static const char *const kinds[] = { "", "counter", "gauge", "histogram" };
    struct pd_str name = pd_str_from(f->name);
    bool is_open = format == PD_METRIC_OPENMETRICS;
    if (is_open && f->kind == PD_METRIC_COUNTER)
        name.n -= sizeof "_total" - 1;
    pd_buf_appendf(out, "# HELP %.*s ", PD_STR_ARG(name));
    put_escaped(out, pd_str_from(f->help), is_open);
    pd_buf_appendf(out, "\n# TYPE %.*s %s\n", PD_STR_ARG(name), kinds[f->kind]);
}

/* name, suffix and labels; le is a bound, or NULL where there is none. */
static void put_series(const struct pd_metric_family *f, const struct pd_metric_child *child,
                       const char *suffix, const double *le, struct pd_buf *out)
{
    struct pd_str rest = child->key;
    pd_buf_append_cstr(out, f->name);
    pd_buf_append_cstr(out, suffix);
    if (f->n_labels == 0 && le == NULL) {
        pd_buf_append_char(out, ' ');
        return;
    }
    pd_buf_append_char(out, '{');
    for (size_t i = 0; i < f->n_labels; i++) {
        struct pd_str value;
        pd_str_split(&rest, '\0', &value);
        pd_buf_appendf(out, "%s%s=\"", i == 0 ? "" : ",", f->labels[i]);
        put_escaped(out, value, true);
        pd_buf_append_char(out, '"');
    }
    if (le != NULL) {
        pd_buf_append_cstr(out, f->n_labels == 0 ? "le=\"" : ",le=\"");
        if (isinf(*le))
            pd_buf_append(out, "+Inf", 4);
        else
            put_bound(out, *le);
        pd_buf_append_char(out, '"');
    }
    pd_buf_append(out, "} ", 2);
}

static void put_histogram(const struct pd_metric_family *f, const struct pd_metric_child *child,
                          struct pd_buf *out)
{
    const struct pd_histogram *h = &child->u.histogram;
    const double infinite = (double)INFINITY;
    uint64_t bits = __atomic_load_n(&h->sum_bits, __ATOMIC_RELAXED);
    uint64_t n = 0;
    double sum;
    memcpy(&sum, &bits, sizeof sum);
    for (size_t i = 0; i <= f->n_bounds; i++) {
        n += __atomic_load_n(&h->counts[i], __ATOMIC_RELAXED);
        put_series(f, child, "_bucket", i == f->n_bounds ? &infinite : &f->bounds[i], out);
        pd_buf_appendf(out, "%" PRIu64 "\n", n);
    }
    put_series(f, child, "_sum", NULL, out);
    put_double(out, sum);
    pd_buf_append_char(out, '\n');
    put_series(f, child, "_count", NULL, out);
    pd_buf_appendf(out, "%" PRIu64 "\n", n);
}

static void put_child(const struct pd_metric_family *f, const struct pd_metric_child *child,
                      struct pd_buf *out)
{
    if (f->kind == PD_METRIC_HISTOGRAM) {
        put_histogram(f, child, out);
        return;
    }
    put_series(f, child, "", NULL, out);
    if (f->kind == PD_METRIC_COUNTER)
        pd_buf_appendf(out, "%" PRIu64, pd_counter_value(&child->u.counter));
    else
        put_double(out, child->fn != NULL ? child->fn(child->arg)
                                          : pd_gauge_value(&child->u.gauge));
    pd_buf_append_char(out, '\n');
}

pd_status pd_metrics_expose(struct pd_metrics *m, enum pd_metric_format format,
                            struct pd_buf *out)
{
    struct pd_metric_registry *r = pd_container_of(m, struct pd_metric_registry, metrics);
    pthread_mutex_lock(&r->lock);
    PD_LIST_EACH(&r->families, link) {
        const struct pd_metric_family *f = PD_LIST_ENTRY(link, struct pd_metric_family, link);
        if (pd_list_is_empty(&f->children))
            continue;
        put_head(f, format, out);
        PD_LIST_EACH(&f->children, child)
            put_child(f, PD_LIST_ENTRY(child, struct pd_metric_child, link), out);
    }
    pthread_mutex_unlock(&r->lock);
    if (format == PD_METRIC_OPENMETRICS)
        pd_buf_append(out, "# EOF\n", 6);
    return out->status;
}
