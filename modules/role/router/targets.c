/* SPDX-License-Identifier: Apache-2.0 */
/* Where requests may go: engines of peers, which come and go with their links,
 * and servers behind adapters, which are probed.  Each is one endpoint of the
 * scheduler; its `user` is the struct target here.  Kept here: all of them, what the
 * node and its peers tell of them, and whether the router is ready; target_engine.c and
 * target_server.c know the two kinds, target_probe.c asks servers. */
#include <stdlib.h>

#include "targets_int.h"

void targets_ready_tell(struct router *r)
{
    uint32_t n = r->sched->endpoint_count(r->scheds, PD_ROLE_DECODE, PD_STR(""));
    pd_gauge_set(r->decode_up, n);
    pd_gauge_set(r->prefill_up, r->sched->endpoint_count(r->scheds, PD_ROLE_PREFILL, PD_STR("")));
    r->node->ready(r->nodes, "router", n > 0, n > 0 ? "" : "no decode endpoint is up");
}

struct target *target_add(struct router *r)
{
    struct target *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->router = r;
    t->next = r->targets;
    if (r->targets != NULL)
        r->targets->link = &t->next;
    r->targets = t;
    t->link = &r->targets;
    return t;
}

/* What was made of the server's address. */
void target_ways_close(struct target *t)
{
    for (size_t i = 0; i < sizeof t->ways / sizeof t->ways[0]; i++) {
        t->router->net->way_close(t->ways[i].way);
        t->ways[i].way = NULL;
    }
}

void target_free(struct target *t)
{
    target_ways_close(t);
    *t->link = t->next;
    if (t->next != NULL)
        t->next->link = t->link;
    if (t->peer_link != NULL)
        *t->peer_link = t->peer_next;
    if (t->peer_next != NULL)
        t->peer_next->peer_link = t->peer_link;
    free(t->probe_body);
    free(t);
}

/* ---- what is told --------------------------------------------------------------------- */

void router_targets_peer(struct router *r, pd_peer_ref peer, uint32_t what)
{
    struct pd_peer_info info = { .size = sizeof info };
    bool has_put = false;
    if (what == PD_PEER_ON_GONE)
        target_engines_lost(r, peer);
    else if (r->peer->info(r->peers, peer, &info) == PD_OK)
        has_put = target_engines_follow(r, &info, what);
    /* From each peer each second: it must not cost more the more of them there are. */
    if (what == PD_PEER_ON_LOAD && !has_put)
        return;
    targets_ready_tell(r);
    if (what == PD_PEER_ON_UP || has_put)
        router_wait_node(r);
    else if (what == PD_PEER_ON_DOWN || what == PD_PEER_ON_GONE)
        router_wait_lost(r);
}

static void ready_task(struct pd_task *task, void *arg)
{
    (void)task;
    targets_ready_tell(arg);
}

static pd_status endpoint_added(const struct pd_node_endpoint *e, void *arg)
{
    return target_server_add(arg, e);
}

static void endpoint_removed(const struct pd_node_endpoint *e, void *arg)
{
    struct router *r = arg;
    struct target *t = target_server_find(r, e);
    if (t == NULL)
        return;
    target_server_remove(t);
    pd_loop_defer(r->loop, &r->ready_task);
}

static void endpoint_rests(const struct pd_node_endpoint *e, bool is_resting, void *arg)
{
    struct router *r = arg;
    struct target *t = target_server_find(r, e);
    if (t == NULL)
        return;
    t->is_resting = is_resting;
    target_server_state(t, t->probed, "its last probe failed");
}

/* ---- life --------------------------------------------------------------------------- */

static void on_peer(struct pd_peers *peers, pd_peer_ref peer, uint32_t what, void *arg)
{
    (void)peers;
    router_targets_peer(arg, peer, what);
}

pd_status router_targets_start(struct router *r)
{
    static const struct pd_peer_watch_events watch = { .size = sizeof watch, .on_peer = on_peer };
    static const struct pd_node_endpoint_events endpoint_events = {
        .size = sizeof endpoint_events, .added = endpoint_added, .removed = endpoint_removed,
        .rests = endpoint_rests,
    };
    const struct pd_node_endpoint *e;
    pd_task_init(&r->ready_task, "router readiness", ready_task, r);
    pd_status status = r->peer->watch(r->peers, &watch, r, &r->watch);
    if (status != PD_OK)
        return status;
    for (pd_peer_ref p = r->peer->next(r->peers, 0); p != 0; p = r->peer->next(r->peers, p)) {
        struct pd_peer_info info = { .size = sizeof info };
        if (r->peer->info(r->peers, p, &info) == PD_OK && info.state == PD_PEER_UP)
            router_targets_peer(r, p, PD_PEER_ON_UP);
    }
    for (uint32_t i = 0; (e = r->node->endpoint_at(r->nodes, i)) != NULL && status == PD_OK; i++)
        status = target_server_add(r, e);
    if (status == PD_OK)
        status = r->node->endpoint_watch(r->nodes, &endpoint_events, r, &r->endpoint_watch);
    targets_ready_tell(r);
    return status;
}

void router_targets_stop(struct router *r)
{
    if (r->watch != NULL)
        r->peer->unwatch(r->watch);
    r->watch = NULL;
    pd_task_cancel(r->loop, &r->ready_task);
    if (r->endpoint_watch != NULL)
        r->node->endpoint_unwatch(r->endpoint_watch);
    r->endpoint_watch = NULL;
    while (r->targets != NULL) {
        struct target *t = r->targets;
        if (t->endpoint != NULL)
            target_server_stop(t);
        r->sched->endpoint_remove(r->scheds, t->ref);
        target_free(t);
    }
}
