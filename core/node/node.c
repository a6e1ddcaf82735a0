/* SPDX-License-Identifier: Apache-2.0 */
/* A node's life: create, start, drain, destroy.  What is built, and in which
 * order, stands in build.c; destroy goes the other way, one step after another,
 * because most parts end asynchronously. */
#include "node/node.h"

#include <stdio.h>
#include <string.h>

#include <pdplane/role.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"

/* ---- the table for roles ------------------------------------------------------------- */

static const char *node_name(struct pd_node *node)
{
    return node->name;
}

static const struct pd_node_engine *node_engine_at(struct pd_node *node, uint32_t index)
{
    return index < node->n_engines ? &node->engines[index]->e : NULL;
}

static const struct pd_node_engine *node_engine_find(struct pd_node *node, struct pd_str name)
{
    for (uint32_t i = 0; i < node->n_engines; i++) {
        if (pd_str_is(name, node->engines[i]->e.name))
            return &node->engines[i]->e;
    }
    return NULL;
}

/* Roles that the current generation does not have are not waited for. */
static bool part_has_left(const struct pd_node *node, const char *part)
{
    PD_LIST_EACH(&node->generations, link) {
        const struct pd_node_generation *g = PD_LIST_ENTRY(link, struct pd_node_generation, link);
        for (uint32_t i = 0; i < g->n_roles; i++) {
            if (strcmp(g->roles[i].unit->unit->name, part) == 0)
                return true;
        }
    }
    return false;
}

static void node_ready(struct pd_node *node, const char *part, bool is_ready, const char *reason)
{
    struct pd_node_part *p = NULL;
    if (part_has_left(node, part))
        return;
    for (uint32_t i = 0; i < node->n_parts; i++) {
        if (strcmp(node->parts[i].name, part) == 0)
            p = &node->parts[i];
    }
    if (p == NULL) {
        if (node->n_parts == PD_NODE_PARTS_MAX)
            return;
        p = &node->parts[node->n_parts++];
        p->name = part;
        p->is_ready = !is_ready;
    }
    if (p->is_ready != is_ready) {
        if (is_ready)
            pd_log_notice(node->log, "%s is ready", part);
        else
            pd_log_notice(node->log, "%s is not ready: %s", part, reason);
    }
    p->is_ready = is_ready;
    snprintf(p->reason, sizeof p->reason, "%s", reason);
    if (node->waits_to_listen && pd_node_is_ready(node, NULL))
        pd_timer_start(&node->listen_timer, 0);
}

const struct pd_node_api *pd_node_functions(void)
{
    static const struct pd_node_api table = {
        .size = sizeof table,
        .version = PD_NODE_VERSION,
        .name = node_name,
        .engine_at = node_engine_at,
        .engine_find = node_engine_find,
        .endpoint_at = pd_node_endpoint_at,
        .ready = node_ready,
        .endpoint_watch = pd_node_endpoint_watch,
        .endpoint_unwatch = pd_node_endpoint_unwatch,
        .generation_hold = pd_node_generation_hold,
        .generation_release = pd_node_generation_release,
    };
    return &table;
}

bool pd_node_is_ready(const struct pd_node *node, const struct pd_node_part **reason)
{
    for (uint32_t i = 0; i < node->n_parts; i++) {
        if (!node->parts[i].is_ready) {
            if (reason != NULL)
                *reason = &node->parts[i];
            return false;
        }
    }
    return node->n_parts > 0;
}

static void sweep_task(struct pd_task *task, void *arg)
{
    (void)task;
    pd_node_sweep(arg);
}

static void sweep_timer(struct pd_timer *timer, void *arg)
{
    (void)timer;
    pd_node_sweep(arg);
}

static void overdue_timer(struct pd_timer *timer, void *arg)
{
    (void)timer;
    pd_node_generations_overdue(arg);
}

/* ---- create, start --------------------------------------------------------------------- */

static void listen_now(struct pd_timer *timer, void *arg)
{
    struct pd_node *node = arg;
    const struct pd_node_part *part = NULL;
    struct pd_err err = { 0 };
    pd_status status = PD_OK;
    (void)timer;
    if (node->waits_to_listen) {
        node->waits_to_listen = false;
        if (!pd_node_is_ready(node, &part) && part != NULL)
            pd_log_warn(node->log, "serving although %s is not ready: %s", part->name, part->reason);
        status = pd_node_listen_all_http(node, &err);
    }
    if (node->on_listening != NULL)
        node->on_listening(node->on_listening_arg, status, &err);
}

pd_status pd_node_create(const struct pd_node_params *params, struct pd_node **out, struct pd_err *err)
{
    struct pd_node *node = pd_calloc(1, sizeof *node);
    if (node == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    node->loop = params->loop;
    node->log = params->log;
    node->mods = params->mods;
    pd_list_init(&node->generations);
    node->reloads.refused_at = PD_TIME_NEVER;
    pd_task_init(&node->sweep_task, "generations", sweep_task, node);
    pd_timer_init(&node->sweep_timer, node->loop, "generations", sweep_timer, node);
    pd_timer_init(&node->overdue_timer, node->loop, "overdue generations", overdue_timer, node);
    struct pd_node_generation *g = pd_node_generation_make(node, params->conf);
    if (g == NULL) {
        pd_free(node);
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    pd_node_generation_switch(node, g);
    node->first = pd_conf_get(params->conf);
    node->is_second = params->is_second;
    node->descriptors_given = params->descriptors;
    node->on_listening = params->on_listening;
    node->on_listening_arg = params->arg;
    pd_timer_init(&node->listen_timer, node->loop, "listen", listen_now, node);
    node->started_at = pd_loop_now(params->loop);
    snprintf(node->name, sizeof node->name, "%s",
             node->root->node.name != NULL ? node->root->node.name : params->name);
    snprintf(node->host_id, sizeof node->host_id, "%s", params->host_id != NULL ? params->host_id : "");
    pd_host_init(&node->host);
    pd_node_endpoints_init(node);
    *out = node;
    return pd_node_build(node, err);
}

pd_status pd_node_start(struct pd_node *node, struct pd_err *err)
{
    char id[64];
    for (uint32_t i = 0; i < node->n_roles; i++) {
        struct pd_node_role *r = &node->roles[i];
        pd_status status = r->ops->start(r->role, err);
        if (status != PD_OK && err->text[0] == '\0')
            pd_err_set(err, status, "the %s role cannot start: %s", r->unit->unit->name, pd_status_text(status));
        if (status != PD_OK)
            return status;
    }
    pd_status status = pd_node_exporters_start(node, err);
    if (status == PD_OK)
        status = pd_node_listen_peers(node, err);
    if (status == PD_OK && !node->is_second)
        status = pd_node_listen_all_http(node, err);
    if (status == PD_OK)
        status = pd_node_discovery_start(node, err);
    if (status != PD_OK)
        return status;
    /* Another worker serves meanwhile: clients that came here now would find no
     * endpoint that has been seen up. */
    node->waits_to_listen = node->is_second;
    pd_timer_start(&node->listen_timer, !node->is_second || pd_node_is_ready(node, NULL) ? 0 : PD_NODE_READY_WAIT);
    pd_uuid_format(&node->id.uuid, id);
    pd_log_notice(node->log, "node \"%s\" (%s, epoch %llx) is running", node->name, id,
                  (unsigned long long)node->id.epoch);
    return PD_OK;
}

/* ---- drain ------------------------------------------------------------------------------ */

static void role_drained(void *arg)
{
    struct pd_node *node = arg;
    if (--node->n_undrained > 0)
        return;
    pd_log_notice(node->log, "drained");
    void (*done)(void *) = node->drained;
    node->drained = NULL;
    if (done != NULL)
        done(node->drained_arg);
}

static void clients_drained(void *arg)
{
    struct pd_node *node = arg;
    pd_peers_drain(node->peers, true);
    /* One more than the roles, so that the last step comes after all of them. */
    node->n_undrained = node->n_roles + 1;
    for (uint32_t i = 0; i < node->n_roles; i++)
        node->roles[i].ops->drain(node->roles[i].role, role_drained, node);
    role_drained(node);
}

void pd_node_drain(struct pd_node *node, void (*done)(void *arg), void *arg)
{
    struct pd_req_counts counts;
    uint32_t leases = 0, transfers = 0;
    if (node->is_draining)
        return;
    node->is_draining = true;
    node->drained = done;
    node->drained_arg = arg;
    pd_timer_stop(&node->listen_timer);
    pd_reqs_counts(node->reqs, &counts);
    if (node->kv != NULL)
        pd_kv_uses(node->kv, &leases, &transfers);
    pd_log_notice(node->log, "draining: %llu requests, %u leases and %u transfers are open",
                  (unsigned long long)counts.outcome[PD_REQ_LIVE], leases, transfers);
    /* Clients first: requests that are on their way are still served, also by
     * this node's own engines. */
    if (node->net.openai != NULL)
        pd_http_server_drain(node->net.openai, clients_drained, node);
    else
        clients_drained(node);
}

/* ---- destroy ----------------------------------------------------------------------------- */

static void close_next(void *arg)
{
    struct pd_node *node = arg;
    pd_loop_defer(node->loop, &node->close_task);
}

static bool close_role(struct pd_node *node)
{
    if (node->n_roles == 0)
        return false;
    pd_node_role_destroy(&node->roles[--node->n_roles], close_next, node);
    return true;
}

static bool close_transport(struct pd_node *node)
{
    if (node->n_transports == 0)
        return false;
    struct pd_node_transport *t = &node->transports[--node->n_transports];
    t->ops->destroy(t->transport, close_next, node);
    return true;
}

static bool close_engine(struct pd_node *node)
{
    if (node->n_engines == 0)
        return false;
    pd_node_engine_destroy(node->engines[--node->n_engines], close_next, node);
    return true;
}

static void codecs_free(struct pd_node *node)
{
    while (node->n_codecs > 0) {
        struct pd_node_codec *c = &node->codecs[--node->n_codecs];
        c->ops->destroy(c->codec);
    }
    for (uint32_t i = 0; i < PD_HOST_CODECS_MAX; i++)
        pd_log_child_free(node->codecs[i].log);
}

static void node_free(struct pd_node *node)
{
    void (*closed)(void *) = node->closed;
    void *closed_arg = node->closed_arg;
    /* Those that were closed one after another keep their place. */
    for (uint32_t i = 0; i < PD_NODE_ROLES_MAX; i++)
        pd_node_role_fini(&node->roles[i]);
    for (uint32_t i = 0; i < PD_NODE_TRANSPORTS_MAX; i++)
        pd_log_child_free(node->transports[i].log);
    codecs_free(node);
    pd_conf_put(node->first);
    pd_node_endpoints_free(node);
    pd_node_tls_free(node);
    pd_node_metrics_free(node);
    pd_sched_destroy(node->sched);
    pd_sched_plugins_destroy(node->plugins);
    pd_reqs_destroy(node->reqs);
    pd_api_destroy(node->api);
    pd_metrics_destroy(node->metrics);
    pd_conf_put(node->plugins_from);
    pd_node_generations_free(node);
    pd_free(node);
    if (closed != NULL)
        closed(closed_arg);
}

static void kv_closed(void *arg)
{
    struct pd_node *node = arg;
    node->kv = NULL;
    close_next(node);
}

static void peers_closed(void *arg)
{
    struct pd_node *node = arg;
    node->peers = NULL;
    close_next(node);
}

/* One asynchronous part per call; each calls close_next when it has ended. */
static void close_step(struct pd_task *task, void *arg)
{
    struct pd_node *node = arg;
    (void)task;
    switch (node->close_step) {
    case 0: /* sources, which would go on changing the rest */
        node->close_step++;
        if (node->discovery != NULL) {
            pd_node_discovery_close(node, close_next, node);
            return;
        }
        /* fall through */
    case 1: /* roles, the last created first */
        if (close_role(node) || pd_node_generations_close_roles(node))
            return;
        node->close_step++;
        /* fall through */
    case 2:
        node->close_step++;
        if (node->net.openai != NULL) {
            pd_http_server_close(node->net.openai, close_next, node);
            return;
        }
        /* fall through */
    case 3:
        node->close_step++;
        if (node->net.admin != NULL) {
            pd_http_server_close(node->net.admin, close_next, node);
            return;
        }
        /* fall through */
    case 4: /* nobody asks them any more; they may still use the client */
        if (pd_node_exporters_close(node))
            return;
        node->close_step++;
        /* fall through */
    case 5:
        node->close_step++;
        if (node->net.client != NULL) {
            pd_http_client_close(node->net.client, close_next, node);
            return;
        }
        /* fall through */
    case 6:
        node->close_step++;
        if (node->kv != NULL) {
            pd_kv_destroy(node->kv, kv_closed, node);
            return;
        }
        /* fall through */
    case 7:
        node->close_step++;
        if (node->peer_watch != NULL)
            pd_peer_table()->unwatch(node->peer_watch);
        if (node->peers != NULL) {
            pd_peers_destroy(node->peers, peers_closed, node);
            return;
        }
        /* fall through */
    case 8:
        if (close_transport(node))
            return;
        node->close_step++;
        /* fall through */
    case 9:
        if (close_engine(node) || pd_node_generations_close_engines(node))
            return;
        node->close_step++;
        /* fall through */
    default:
        node_free(node);
    }
}

void pd_node_destroy(struct pd_node *node, void (*closed)(void *arg), void *arg)
{
    node->closed = closed;
    node->closed_arg = arg;
    node->is_closing = true;
    pd_task_cancel(node->loop, &node->sweep_task);
    pd_timer_stop(&node->sweep_timer);
    pd_timer_stop(&node->overdue_timer);
    pd_timer_stop(&node->listen_timer);
    if (node->metrics != NULL)
        pd_metrics_set_refresh(node->metrics, NULL, NULL);
    pd_task_init(&node->close_task, "node close", close_step, node);
    pd_loop_defer(node->loop, &node->close_task);
}
