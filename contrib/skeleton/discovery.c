/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: Names one server that the configuration gives. */
#include <stdlib.h>
#include <string.h>

#include <pdplane/discovery.h>
#include <pdplane/loop.h>

struct @NAME@_conf {           /* filled from the rows below */
    const char *url;
};

struct pd_discovery {              /* an instance */
    const struct @NAME@_conf *conf;
    struct pd_loop *loop;
    struct pd_discovery_sink *sink; /* NULL: not started */
    struct pd_task tell;
    struct pd_task end;
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_STRING("url", struct @NAME@_conf, url, "http://127.0.0.1:8001", .flags = PD_OPT_NONEMPTY,
                  .help = "The server, as http://HOST:PORT."),
    PD_OPT_END
};

/* The last step: callbacks never come from inside an operation. */
static void on_end(struct pd_task *task, void *arg)
{
    struct pd_discovery *p = arg;
    void (*on_closed)(void *) = p->on_closed;
    void *closed_arg = p->on_closed_arg;

    (void)task;
    free(p);
    if (on_closed != NULL)
        on_closed(closed_arg);
}

/* A whole set of one entry. */
static void on_tell(struct pd_task *task, void *arg)
{
    struct pd_discovery *p = arg;
    struct pd_discovery_entry entry = { .size = sizeof entry, .what = PD_DISCOVERY_SERVER,
                                        .name = PD_STR("first"),
                                        .address = { p->conf->url, strlen(p->conf->url) } };

    (void)task;
    pd_discovery_begin(p->sink);
    pd_discovery_put(p->sink, &entry);
    pd_discovery_end(p->sink);
}

static pd_status @NAME@_start(struct pd_discovery *p, struct pd_discovery_sink *sink,
                              struct pd_err *err)
{
    (void)err;
    p->sink = sink;
    pd_loop_defer(p->loop, &p->tell);   /* never from inside an operation */
    return PD_OK;
}

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_discovery **out, struct pd_err *err)
{
    struct pd_discovery *p = calloc(1, sizeof *p);

    if (p == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    p->conf = conf;             /* stays until destroy has ended */
    p->loop = ctx->loop;
    pd_task_init(&p->end, "@NAME@ end", on_end, p);
    pd_task_init(&p->tell, "@NAME@ tell", on_tell, p);
    *out = p;
    return PD_OK;
}

static void @NAME@_destroy(struct pd_discovery *p, void (*on_closed)(void *arg), void *arg)
{
    pd_task_cancel(p->loop, &p->tell);
    p->on_closed = on_closed;
    p->on_closed_arg = arg;
    pd_loop_defer(p->loop, &p->end);
}

static const struct pd_discovery_ops @NAME@_ops = {
    .head = PD_OPS(pd_discovery_ops, PD_DISCOVERY_V1),
    .flags = 0,
    .create = @NAME@_create, .destroy = @NAME@_destroy, .start = @NAME@_start,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_DISCOVERY, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Names one server that the configuration gives."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Names one server that the configuration gives.",
          .units = @NAME@_units)
