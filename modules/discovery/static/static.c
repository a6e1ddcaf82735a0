/* SPDX-License-Identifier: Apache-2.0 */
/* A fixed list of servers and nodes that share one set of options: what the
 * section `endpoints` says one by one, said once for all of them. */
#include <stdlib.h>

#include <pdplane/loop.h>

#include "source.h"

struct static_conf {
    struct pd_conf_strings servers;
    struct pd_conf_strings peers;
};

struct pd_discovery {
    const struct static_conf *conf;
    struct pd_loop *loop;
    struct pd_discovery_sink *sink;
    struct pd_task task;
    void (*on_closed)(void *arg);
    void *arg;
};

static pd_status static_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_discovery **out,
                               struct pd_err *err)
{
    struct pd_discovery *d = calloc(1, sizeof *d);
    if (d == NULL)
        return source_error(err, PD_ENOMEM, "out of memory");
    d->conf = conf;
    d->loop = ctx->loop;
    *out = d;
    return PD_OK;
}

static void list_put(struct pd_discovery *d, const struct pd_conf_strings *list, uint32_t what)
{
    for (uint64_t i = 0; i < list->count; i++) {
        struct pd_discovery_entry e = { .size = sizeof e, .what = what };
        e.address = source_str(list->items[i]);
        e.name = source_authority(e.address);
        pd_discovery_put(d->sink, &e);
    }
}

static void tell(struct pd_task *task, void *arg)
{
    struct pd_discovery *d = arg;
    (void)task;
    pd_discovery_begin(d->sink);
    list_put(d, &d->conf->servers, PD_DISCOVERY_SERVER);
    list_put(d, &d->conf->peers, PD_DISCOVERY_PEER);
    pd_discovery_end(d->sink);
}

static pd_status static_start(struct pd_discovery *d, struct pd_discovery_sink *sink, struct pd_err *err)
{
    (void)err;
    d->sink = sink;
    pd_task_init(&d->task, "discovery static", tell, d);
    pd_loop_defer(d->loop, &d->task);
    return PD_OK;
}

static void closed(struct pd_task *task, void *arg)
{
    struct pd_discovery *d = arg;
    void (*on_closed)(void *) = d->on_closed;
    void *closed_arg = d->arg;
    (void)task;
    free(d);
    on_closed(closed_arg);
}

static void static_destroy(struct pd_discovery *d, void (*on_closed)(void *arg), void *arg)
{
    if (d->sink != NULL)
        pd_task_cancel(d->loop, &d->task);
    d->on_closed = on_closed;
    d->arg = arg;
    pd_task_init(&d->task, "discovery static", closed, d);
    pd_loop_defer(d->loop, &d->task);
}

static pd_status static_check(const void *conf, struct pd_err *err)
{
    const struct static_conf *c = conf;
    if (c->servers.count == 0 && c->peers.count == 0)
        return source_error(err, PD_EINVAL, "neither \"servers\" nor \"peers\" names anything");
    return PD_OK;
}

static const struct pd_option static_options[] = {
    PD_OPT_STRING_LIST("servers", struct static_conf, servers, NULL, .max = 4096,
                       .help = "Servers, http://HOST:PORT or https://HOST:PORT each. HOST:PORT is the name "
                               "of the endpoint."),
    PD_OPT_STRING_LIST("peers", struct static_conf, peers, NULL, .max = 4096,
                       .help = "Nodes, HOST:PORT of the peer listener each."),
    PD_OPT_END
};

static const struct pd_discovery_ops static_ops = {
    .head = PD_OPS(pd_discovery_ops, PD_DISCOVERY_V1),
    .flags = PD_DISCOVERY_FIXED,
    .create = static_create,
    .start = static_start,
    .destroy = static_destroy,
};

static const struct pd_unit static_units[] = {
    PD_UNIT(.kind = PD_KIND_DISCOVERY, .name = "static", .ops = &static_ops.head, .options = static_options,
            .conf_size = sizeof(struct static_conf), .check = static_check,
            .summary = "Names servers and nodes from a list in the configuration."),
    PD_UNIT_END
};

PD_MODULE(.name = "static", .version = "0.1.0",
          .summary = "Names servers and nodes from a list in the configuration.", .units = static_units)
