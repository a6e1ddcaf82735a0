/* SPDX-License-Identifier: Apache-2.0 */
/* The prefill role: offers the PREFILL service.  Each call is one order of a
 * decode node: compute this prompt and write its KV into the blocks that the
 * grant names.  order.c moves it; this file owns the role's life. */
#include <stdlib.h>
#include <string.h>

#include "prefill.h"

static void retry_task(struct pd_task *task, void *arg)
{
    (void)task;
    prefill_orders_retry(arg);
}

static void retry_timer(struct pd_timer *timer, void *arg)
{
    (void)timer;
    prefill_orders_retry(arg);
}

static void on_order(struct pd_peers *peers, struct pd_call *call, pd_peer_ref from, uint32_t type,
                     struct pd_str first, void *arg)
{
    (void)peers;
    (void)type;
    prefill_order_accept(arg, call, from, first);
}

void prefill_settle(struct prefill *p)
{
    if (p->n_orders > 0)
        return;
    if (p->is_draining && p->drained != NULL) {
        void (*done)(void *) = p->drained;
        p->drained = NULL;
        done(p->drained_arg);
    }
    if (p->is_closing) {
        void (*closed)(void *) = p->closed;
        void *closed_arg = p->closed_arg;
        pd_timer_stop(&p->retry_timer);
        pd_task_cancel(p->loop, &p->retry);
        free(p);
        closed(closed_arg);
    }
}

static bool tables_get(struct prefill *p)
{
    const struct pd_host_api *h = pd_host();
    p->peer = h->table(p->host, PD_PEER_TABLE, PD_PEER_VERSION);
    p->kv = h->table(p->host, PD_KV_TABLE, PD_KV_VERSION);
    p->req = h->table(p->host, PD_REQ_TABLE, PD_REQ_VERSION);
    p->api = h->table(p->host, PD_API_TABLE, PD_API_VERSION);
    p->node = h->table(p->host, PD_NODE_TABLE, PD_NODE_VERSION);
    p->peers = h->object(p->host, PD_PEER_TABLE);
    p->kvs = h->object(p->host, PD_KV_TABLE);
    p->reqs = h->object(p->host, PD_REQ_TABLE);
    p->apis = h->object(p->host, PD_API_TABLE);
    p->nodes = h->object(p->host, PD_NODE_TABLE);
    return p->peer != NULL && p->kv != NULL && p->req != NULL && p->api != NULL && p->node != NULL;
}

static pd_status prefill_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_role **out,
                                struct pd_err *err)
{
    struct prefill *p = calloc(1, sizeof *p);
    if (p == NULL) {
        err->status = PD_ENOMEM;
        strcpy(err->text, "out of memory");
        return PD_ENOMEM;
    }
    p->conf = conf;
    p->loop = ctx->loop;
    p->log = ctx->log;
    p->host = ctx->host;
    pd_task_init(&p->retry, "prefill retry", retry_task, p);
    pd_timer_init(&p->retry_timer, p->loop, "prefill retry", retry_timer, p);
    if (!tables_get(p)) {
        free(p);
        err->status = PD_ENOSYS;
        strcpy(err->text, "this pdplane does not offer the tables that the role was built for");
        strcpy(err->hint, "install the module that belongs to this pdplane");
        return PD_ENOSYS;
    }
    p->done_ok = pd_metrics_simple_counter(ctx->metrics, "pdplane_prefill_done_total",
                                           "Prompts computed here whose KV was handed over.");
    p->done_other = pd_metrics_simple_counter(
        ctx->metrics, "pdplane_prefill_failed_total",
        "Orders that were refused, canceled or whose hand-over failed.");
    *out = (struct pd_role *)p;
    return PD_OK;
}

static pd_status prefill_start(struct pd_role *role, struct pd_err *err)
{
    struct prefill *p = (struct prefill *)role;
    const struct pd_node_engine *e;
    uint32_t usable = 0;
    for (uint32_t i = 0; (e = p->node->engine_at(p->nodes, i)) != NULL; i++)
        usable += (e->roles & PD_ROLE_PREFILL) != 0 && (e->info.flags & PD_ENGINE_EXPORT) != 0;
    if (usable == 0) {
        err->status = PD_EINVAL;
        strcpy(err->text, "the prefill role has no engine that can export KV");
        strcpy(err->hint, "add \"prefill\" to the roles of an engine");
        return PD_EINVAL;
    }
    pd_status status = p->peer->serve(p->peers, PD_SERVICE_PREFILL, on_order, p);
    if (status == PD_OK)
        p->node->ready(p->nodes, "prefill", true, "");
    else
        err->status = status;
    return status;
}

static void prefill_drain(struct pd_role *role, void (*done)(void *arg), void *arg)
{
    struct prefill *p = (struct prefill *)role;
    p->is_draining = true;
    p->drained = done;
    p->drained_arg = arg;
    p->node->ready(p->nodes, "prefill", false, "draining");
    prefill_settle(p);
}

static void prefill_destroy(struct pd_role *role, void (*closed)(void *arg), void *arg)
{
    struct prefill *p = (struct prefill *)role;
    p->is_closing = true;
    p->closed = closed;
    p->closed_arg = arg;
    p->peer->unserve(p->peers, PD_SERVICE_PREFILL);
    if (p->n_orders > 0)
        prefill_orders_end(p, NULL);
    else
        prefill_settle(p);
}

static void prefill_end_generation(struct pd_role *role, const struct pd_node_generation *generation)
{
    prefill_orders_end((struct prefill *)role, generation);
}

static void prefill_adopt(struct pd_role *role, const void *conf)
{
    ((struct prefill *)role)->conf = conf;
}

static const struct pd_option prefill_options[] = {
    PD_OPT_INT("queue", struct prefill_conf, queue, "256", .min = 0, .max = 1 << 20, .unit = "orders",
               .help = "Orders that may wait for KV blocks; more are refused, and the decode node "
                       "goes elsewhere."),
    PD_OPT_END
};

static const struct pd_role_ops prefill_ops = {
    .head = PD_OPS(pd_role_ops, PD_ROLE_V1),
    .role = PD_ROLE_PREFILL,
    .create = prefill_create,
    .start = prefill_start,
    .drain = prefill_drain,
    .destroy = prefill_destroy,
    .adopt = prefill_adopt,
    .end_generation = prefill_end_generation,
};

static const struct pd_unit prefill_units[] = {
    PD_UNIT(.kind = PD_KIND_ROLE, .name = "prefill", .ops = &prefill_ops.head, .options = prefill_options,
            .conf_size = sizeof(struct prefill_conf),
            .summary = "Computes prompts for decode nodes and hands the KV over."),
    PD_UNIT_END
};

PD_MODULE(.name = "prefill", .version = "0.1.0",
          .summary = "Computes prompts for decode nodes and hands the KV over.", .units = prefill_units)
