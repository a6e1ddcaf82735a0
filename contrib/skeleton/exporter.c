/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: Serves counters as lines of name and value. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/exporter.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>

struct @NAME@_conf {           /* filled from the rows below */
    const char *path;
};

struct pd_exporter {              /* an instance */
    const struct @NAME@_conf *conf;
    struct pd_loop *loop;
    struct pd_metrics *metrics;
    struct pd_task end;
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_STRING("path", struct @NAME@_conf, path, "/@NAME@", .flags = PD_OPT_NONEMPTY,
                  .help = "Path on the admin listeners."),
    PD_OPT_END
};

/* The last step: callbacks never come from inside an operation. */
static void on_end(struct pd_task *task, void *arg)
{
    struct pd_exporter *p = arg;
    void (*on_closed)(void *) = p->on_closed;
    void *closed_arg = p->on_closed_arg;

    (void)task;
    free(p);
    if (on_closed != NULL)
        on_closed(closed_arg);
}

struct out {
    struct pd_export_answer *answer;
    pd_status status;
};

static void put(struct out *o, const char *text, size_t n)
{
    if (o->status == PD_OK)
        o->status = pd_export_write(o->answer, text, n);
}

static bool on_family(const struct pd_metric_view *family, void *arg)
{
    (void)family;
    (void)arg;
    return true;                /* false leaves its samples out */
}

/* Labels are bytes of anybody: what is no plain character becomes '?'. */
static void put_label(struct out *o, const char *text)
{
    for (; *text != '\0'; text++)
        put(o, *text > ' ' && *text < 0x7f ? text : "?", 1);
}

static void on_sample(const struct pd_metric_view *family, const struct pd_metric_sample *sample,
                      void *arg)
{
    struct out *o = arg;
    char text[64];
    int n;

    put(o, family->name, strlen(family->name));
    for (uint32_t i = 0; i < family->n_labels; i++) {
        put(o, " ", 1);
        put(o, family->labels[i], strlen(family->labels[i]));
        put(o, "=", 1);
        put_label(o, sample->values[i]);
    }
    if (family->kind == PD_METRIC_GAUGE)
        n = snprintf(text, sizeof text, " %g\n", sample->value);
    else
        n = snprintf(text, sizeof text, " %llu\n", (unsigned long long)sample->count);
    put(o, text, (size_t)n);
}

static const char *@NAME@_path(struct pd_exporter *p)
{
    return p->conf->path;
}

static pd_status @NAME@_serve(struct pd_exporter *p, const struct pd_export_request *request,
                              struct pd_export_answer *answer)
{
    static const struct pd_metric_visitor visitor = { .size = sizeof visitor, .family = on_family,
                                                      .sample = on_sample };
    struct out o = { answer, PD_OK };

    (void)request;
    answer->type = "text/plain; charset=utf-8";
    pd_metrics_visit(p->metrics, &visitor, &o);
    return o.status;
}

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_exporter **out, struct pd_err *err)
{
    struct pd_exporter *p = calloc(1, sizeof *p);

    if (p == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    p->conf = conf;             /* stays until destroy has ended */
    p->loop = ctx->loop;
    pd_task_init(&p->end, "@NAME@ end", on_end, p);
    p->metrics = ctx->metrics;
    *out = p;
    return PD_OK;
}

static void @NAME@_destroy(struct pd_exporter *p, void (*on_closed)(void *arg), void *arg)
{
    p->on_closed = on_closed;
    p->on_closed_arg = arg;
    pd_loop_defer(p->loop, &p->end);
}

static const struct pd_exporter_ops @NAME@_ops = {
    .head = PD_OPS(pd_exporter_ops, PD_EXPORTER_V1),
    .create = @NAME@_create, .destroy = @NAME@_destroy, .path = @NAME@_path,
    .serve = @NAME@_serve,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_EXPORTER, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Serves counters as lines of name and value."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Serves counters as lines of name and value.",
          .units = @NAME@_units)
