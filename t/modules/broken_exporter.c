/* SPDX-License-Identifier: Apache-2.0 */
/* An exporter that breaks its contract in the way that its option names;
 * t/12-conform.t expects to see it found. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/exporter.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>

enum { FAULT_NONE, FAULT_LEAK, FAULT_PATH, FAULT_RAW, FAULT_SKIP, FAULT_GROWTH, FAULT_UNSTABLE, FAULT_CUT,
       FAULT_INSIDE, FAULT_TIMER,
       FAULT_FROZEN,    /* room for as many samples as there were at first */
       FAULT_GLOBAL     /* one state for all instances, which goes with the first of them */ };

struct broken_conf {
    uint32_t fault;
};
struct pd_exporter {
    struct pd_loop *loop;
    struct pd_metrics *metrics;
    uint32_t fault, calls, most;
    struct pd_timer timer;
    struct pd_task end;
    void (*on_closed)(void *arg);
    void *arg;
};

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE }, { "leak", FAULT_LEAK }, { "path", FAULT_PATH }, { "raw", FAULT_RAW },
    { "skip", FAULT_SKIP }, { "growth", FAULT_GROWTH }, { "unstable", FAULT_UNSTABLE }, { "cut", FAULT_CUT },
    { "inside", FAULT_INSIDE }, { "timer", FAULT_TIMER }, { "frozen", FAULT_FROZEN },
    { "global", FAULT_GLOBAL }, { NULL, 0 },
};

static const struct pd_exporter *the_one;

static const struct pd_option options[] = {
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static void leak(void)
{
    void *volatile lost = malloc(100);
    (void)lost;
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    (void)arg;
    pd_timer_start(timer, PD_SEC);
}

static void on_end(struct pd_task *task, void *arg)
{
    struct pd_exporter *e = arg;
    void (*on_closed)(void *) = e->on_closed;
    void *closed_arg = e->arg;
    (void)task;
    the_one = NULL;
    if (e->fault != FAULT_TIMER)
        free(e);
    on_closed(closed_arg);
}

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_exporter **out,
                        struct pd_err *err)
{
    struct pd_exporter *e = calloc(1, sizeof *e);
    (void)err;
    if (e == NULL)
        return PD_ENOMEM;
    e->loop = ctx->loop;
    e->metrics = ctx->metrics;
    e->fault = ((const struct broken_conf *)conf)->fault;
    pd_timer_init(&e->timer, ctx->loop, "broken", on_timer, e);
    pd_task_init(&e->end, "broken", on_end, e);
    if (e->fault == FAULT_LEAK)
        leak();
    the_one = e;
    *out = e;
    return PD_OK;
}

static void destroy(struct pd_exporter *e, void (*on_closed)(void *arg), void *arg)
{
    if (e->fault != FAULT_TIMER)
        pd_timer_stop(&e->timer);
    if (e->fault == FAULT_INSIDE)
        on_closed(arg);
    e->on_closed = on_closed;
    e->arg = arg;
    pd_loop_defer(e->loop, &e->end);
}

static pd_status start(struct pd_exporter *e, struct pd_err *err)
{
    (void)err;
    pd_timer_start(&e->timer, PD_SEC);
    return PD_OK;
}

static const char *path(struct pd_exporter *e)
{
    return e->fault == FAULT_PATH ? "metrics" : "/broken";
}

struct out {
    struct pd_exporter *e;
    struct pd_export_answer *answer;
    pd_status status;
    uint32_t samples;
};

static void put(struct out *o, const char *text)
{
    if (o->status == PD_OK)
        o->status = pd_export_write(o->answer, text, strlen(text));
}

static bool on_family(const struct pd_metric_view *f, void *arg)
{
    struct out *o = arg;
    return o->e->fault != FAULT_SKIP || strstr(f->name, "_7") == NULL;
}

static void on_sample(const struct pd_metric_view *f, const struct pd_metric_sample *s, void *arg)
{
    struct out *o = arg;
    o->samples++;
    put(o, f->name);
    for (uint32_t i = 0; i < f->n_labels; i++) {
        put(o, " ");
        for (const unsigned char *p = (const unsigned char *)s->values[i]; *p != 0; p++) {
            char text[8];
            snprintf(text, sizeof text, *p < 0x21 || *p > 0x7e ? "%%%02x" : "%c", *p);
            put(o, o->e->fault == FAULT_RAW ? (const char[]){ (char)*p, 0 } : text);
        }
    }
    put(o, "\n");
}

static pd_status serve(struct pd_exporter *e, const struct pd_export_request *request,
                       struct pd_export_answer *answer)
{
    static const struct pd_metric_visitor visitor = { .size = sizeof visitor, .family = on_family,
                                                      .sample = on_sample };
    struct out o = { e, answer, PD_OK, 0 };
    char text[32];
    (void)request;
    if (e->fault == FAULT_GLOBAL && the_one == NULL)
        return PD_ESTALE;
    answer->type = "text/plain";
    if (e->fault == FAULT_GROWTH)
        leak();
    snprintf(text, sizeof text, "%u\n", e->fault == FAULT_UNSTABLE ? e->calls++ : 0);
    put(&o, text);
    pd_metrics_visit(e->metrics, &visitor, &o);
    if (e->most == 0)
        e->most = o.samples;
    if (e->fault == FAULT_FROZEN && o.samples > e->most)
        return PD_ELIMIT;
    return e->fault == FAULT_CUT ? PD_OK : o.status;
}

static const struct pd_exporter_ops ops = {
    .head = PD_OPS(pd_exporter_ops, PD_EXPORTER_V1),
    .create = create, .destroy = destroy, .start = start, .path = path, .serve = serve,
};
/* Names a path and cannot serve it. */
static const struct pd_exporter_ops mute_ops = {
    .head = PD_OPS(pd_exporter_ops, PD_EXPORTER_V1),
    .create = create, .destroy = destroy, .start = start, .path = path,
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_EXPORTER, .name = "broken_exporter", .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Names and labels as lines."),
    PD_UNIT(.kind = PD_KIND_EXPORTER, .name = "mute_exporter", .ops = &mute_ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "A path without an answer."),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_exporter", .version = "1.0", .summary = "For t/12-conform.t.", .units = units)
