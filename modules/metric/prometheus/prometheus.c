/* SPDX-License-Identifier: Apache-2.0 */
/* The registry as text, in the format of Prometheus (0.0.4) or OpenMetrics (1.0). */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <pdplane/exporter.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>

#include "utf8.h"

struct prom_conf {
    const char *path;
};

struct pd_exporter {
    const struct prom_conf *conf;
    struct pd_metrics *metrics;
    struct pd_loop *loop;
    struct pd_task end;
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

/* One answer; lines are collected in room. */
struct out {
    struct pd_export_answer *answer;
    bool is_open;               /* OpenMetrics */
    pd_status status;
    size_t n;
    char room[16384];
};

static const struct pd_option prom_options[] = {
    PD_OPT_STRING("path", struct prom_conf, path, "/metrics", .flags = PD_OPT_NONEMPTY,
                  .help = "Path on the admin listeners."),
    PD_OPT_END
};

static void flush(struct out *o)
{
    if (o->status == PD_OK && o->n > 0)
        o->status = pd_export_write(o->answer, o->room, o->n);
    o->n = 0;
}

static void put(struct out *o, const char *p, size_t n)
{
    if (n > sizeof(o->room) - o->n)
        flush(o);
    if (n > sizeof(o->room)) {
        if (o->status == PD_OK)
            o->status = pd_export_write(o->answer, p, n);
        return;
    }
    memcpy(o->room + o->n, p, n);
    o->n += n;
}

static void put_text(struct out *o, const char *text)
{
    put(o, text, strlen(text));
}

/* Backslash and line feed are escaped, quotes where asked for; bytes that are
 * not UTF-8 become U+FFFD. */
static void put_escaped(struct out *o, const char *s, bool quotes)
{
    while (*s != '\0') {
        size_t n = pd_utf8_char(s);
        if (n == 0)
            put_text(o, PD_UTF8_REPLACEMENT);
        else if (*s == '\n')
            put_text(o, "\\n");
        else if (*s == '\\' || (*s == '"' && quotes))
            put(o, (const char[]){ '\\', *s }, 2);
        else
            put(o, s, n);
        s += n == 0 ? 1 : n;
    }
}

static void put_count(struct out *o, uint64_t v)
{
    char text[32];

    put(o, text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, v));
}

static void put_double(struct out *o, double v)
{
    char text[32];

    if (isnan(v))
        put_text(o, "NaN");
    else if (isinf(v))
        put_text(o, v > 0 ? "+Inf" : "-Inf");
    else
        put(o, text, pd_number_text(text, v));
}

/* Bounds always show a point or an exponent, as OpenMetrics wants them. */
static void put_bound(struct out *o, double v)
{
    char text[32];
    size_t n = pd_number_text(text, v);

    put(o, text, n);
    if (memchr(text, '.', n) == NULL && memchr(text, 'e', n) == NULL)
        put_text(o, ".0");
}

/* Name, suffix and labels; le is a bound, or NULL where there is none. */
static void put_series(struct out *o, const struct pd_metric_view *f, const struct pd_metric_sample *s,
                       const char *suffix, const double *le)
{
    put_text(o, f->name);
    put_text(o, suffix);
    if (f->n_labels > 0 || le != NULL) {
        put_text(o, "{");
        for (uint32_t i = 0; i < f->n_labels; i++) {
            put_text(o, i == 0 ? "" : ",");
            put_text(o, f->labels[i]);
            put_text(o, "=\"");
            put_escaped(o, s->values[i], true);
            put_text(o, "\"");
        }
        if (le != NULL) {
            put_text(o, f->n_labels == 0 ? "le=\"" : ",le=\"");
            if (isinf(*le))
                put_text(o, "+Inf");
            else
                put_bound(o, *le);
            put_text(o, "\"");
        }
        put_text(o, "}");
    }
    put_text(o, " ");
}

static void put_histogram(struct out *o, const struct pd_metric_view *f, const struct pd_metric_sample *s)
{
    const double infinite = (double)INFINITY;
    uint64_t n = 0;

    for (size_t i = 0; i <= f->n_bounds; i++) {
        n += s->buckets[i];
        put_series(o, f, s, "_bucket", i == f->n_bounds ? &infinite : &f->bounds[i]);
        put_count(o, n);
        put_text(o, "\n");
    }
    put_series(o, f, s, "_sum", NULL);
    put_double(o, s->value);
    put_text(o, "\n");
    put_series(o, f, s, "_count", NULL);
    put_count(o, n);
    put_text(o, "\n");
}

static bool on_family(const struct pd_metric_view *f, void *arg)
{
    static const char *const kinds[] = { "", "counter", "gauge", "histogram" };
    struct out *o = arg;
    size_t n = strlen(f->name);

    if (f->kind < PD_METRIC_COUNTER || f->kind > PD_METRIC_HISTOGRAM)
        return false;
    if (o->is_open && f->kind == PD_METRIC_COUNTER)
        n -= sizeof("_total") - 1;
    put_text(o, "# HELP ");
    put(o, f->name, n);
    put_text(o, " ");
    put_escaped(o, f->help, o->is_open);
    put_text(o, "\n# TYPE ");
    put(o, f->name, n);
    put_text(o, " ");
    put_text(o, kinds[f->kind]);
    put_text(o, "\n");
    return true;
}

static void on_sample(const struct pd_metric_view *f, const struct pd_metric_sample *s, void *arg)
{
    struct out *o = arg;

    if (f->kind == PD_METRIC_HISTOGRAM) {
        put_histogram(o, f, s);
        return;
    }
    put_series(o, f, s, "", NULL);
    if (f->kind == PD_METRIC_COUNTER)
        put_count(o, s->count);
    else
        put_double(o, s->value);
    put_text(o, "\n");
}

static bool wants_open(struct pd_str accept)
{
    static const char name[] = "application/openmetrics-text";

    return accept.n >= sizeof(name) - 1 && memmem(accept.p, accept.n, name, sizeof(name) - 1) != NULL;
}

static pd_status prom_serve(struct pd_exporter *e, const struct pd_export_request *request,
                            struct pd_export_answer *answer)
{
    static const struct pd_metric_visitor visitor = { .size = sizeof(visitor), .family = on_family,
                                                      .sample = on_sample };
    struct out o;

    o.answer = answer;
    o.is_open = wants_open(request->accept);
    o.status = PD_OK;
    o.n = 0;
    answer->type = o.is_open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                             : "text/plain; version=0.0.4; charset=utf-8";
    pd_metrics_visit(e->metrics, &visitor, &o);
    if (o.is_open)
        put_text(&o, "# EOF\n");
    flush(&o);
    return o.status;
}

static const char *prom_path(struct pd_exporter *e)
{
    return e->conf->path;
}

static pd_status prom_check(const void *conf, struct pd_err *err)
{
    const struct prom_conf *c = conf;

    if (c->path[0] == '/')
        return PD_OK;
    err->status = PD_EINVAL;
    snprintf(err->text, sizeof(err->text), "path \"%.100s\" does not begin with \"/\"", c->path);
    return PD_EINVAL;
}

static void on_end(struct pd_task *task, void *arg)
{
    struct pd_exporter *e = arg;
    void (*on_closed)(void *) = e->on_closed;
    void *closed_arg = e->on_closed_arg;

    (void)task;
    free(e);
    on_closed(closed_arg);
}

static void prom_destroy(struct pd_exporter *e, void (*on_closed)(void *arg), void *arg)
{
    e->on_closed = on_closed;
    e->on_closed_arg = arg;
    pd_loop_defer(e->loop, &e->end);
}

static pd_status prom_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_exporter **out,
                             struct pd_err *err)
{
    struct pd_exporter *e = calloc(1, sizeof(*e));

    if (e == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    e->conf = conf;
    e->metrics = ctx->metrics;
    e->loop = ctx->loop;
    pd_task_init(&e->end, "prometheus", on_end, e);
    *out = e;
    return PD_OK;
}

static const struct pd_exporter_ops prom_ops = {
    .head = PD_OPS(pd_exporter_ops, PD_EXPORTER_V1),
    .create = prom_create, .destroy = prom_destroy, .path = prom_path, .serve = prom_serve,
};

static const struct pd_unit prom_units[] = {
    PD_UNIT(.kind = PD_KIND_EXPORTER, .name = "prometheus", .ops = &prom_ops.head, .options = prom_options,
            .conf_size = sizeof(struct prom_conf),
            .summary = "Serves metrics in the text formats of Prometheus and OpenMetrics.",
            .check = prom_check),
    PD_UNIT_END
};

PD_MODULE(.name = "prometheus", .version = "1.0", .summary = "Metrics as text over HTTP.",
          .units = prom_units)
