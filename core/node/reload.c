/* SPDX-License-Identifier: Apache-2.0 */
/* Another configuration for a running node: a new generation.
 *
 * Everything that can fail comes first, in steps that can be taken back: what
 * the new configuration has and the node has not is made beside what runs.  Then,
 * in the same turn of the loop, the node is switched, which cannot fail.  What is
 * equal in both stays the same object: engines with their caches and registered
 * memory, endpoints with their index and what is in flight, plugins, TLS, keys,
 * sockets.  Links, transports, the KV plane and records are of the node and are
 * not touched. */
#include "node/reload_int.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

static void limits_commit(struct pd_node_next *n)
{
    const struct pd_node_kv_conf *kv = &n->root->kv;
    const struct pd_kv_limits limits = { .digests = kv->digests, .lease_ttl = kv->lease,
                                         .connect_timeout = kv->connect_timeout,
                                         .inflight_bytes = kv->inflight };
    struct pd_peers_times times = pd_node_link_times(&n->root->link);
    pd_kv_set_limits(n->node->kv, &limits);
    pd_peers_set_times(n->node->peers, &times);
    pd_reqs_set_limits(n->node->reqs, &n->root->requests);
}

/* ---- engines --------------------------------------------------------------------------- */

static pd_status engines_make(struct pd_node_next *n, struct pd_err *err)
{
    const struct pd_conf_list *list = &n->root->engines;
    struct pd_node *node = n->node;
    if (list->count > PD_NODE_ENGINES_MAX)
        return pd_err_set(err, PD_ELIMIT, "a node can have %u engines", (unsigned)PD_NODE_ENGINES_MAX);
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_node_engine_conf *c = PD_CONF_ITEM(list, struct pd_node_engine_conf, i);
        struct pd_node_engine_unit **u = &n->engines[n->n_engines];
        for (uint32_t k = 0; k < node->n_engines && *u == NULL; k++)
            *u = pd_node_engine_is(node->engines[k], c) ? node->engines[k] : NULL;
        if (*u != NULL) {
            n->n_engines++;
            continue;
        }
        pd_status status = pd_node_engine_make(node, c, n->conf, u, err);
        if (status != PD_OK)
            return status;
        n->engine_is_new[n->n_engines++] = true;
        status = pd_node_region_add(node, *u, err);
        if (status != PD_OK)
            return pd_node_at_place(err, &c->place, status);
    }
    return PD_OK;
}

/* The node shows the new engines from here on, or again those of before. */
static void engines_show(struct pd_node_next *n)
{
    struct pd_node *node = n->node;
    struct pd_node_engine_unit *before[PD_NODE_ENGINES_MAX];
    uint32_t n_before = node->n_engines;
    memcpy(before, node->engines, sizeof before);
    memcpy(node->engines, n->engines, sizeof node->engines);
    node->n_engines = n->n_engines;
    memcpy(n->engines, before, sizeof n->engines);
    n->n_engines = n_before;
    n->is_swapped = !n->is_swapped;
    const struct pd_node_conf *c = n->is_swapped ? n->root : node->root;
    for (uint32_t i = 0; i < node->n_engines; i++)
        pd_node_engine_use(node->engines[i], PD_CONF_ITEM(&c->engines, struct pd_node_engine_conf, i),
                           pd_node_roles_of(c));
}

/* ---- scheduler and peers ------------------------------------------------------------------- */

static pd_status sched_make(struct pd_node_next *n, struct pd_err *err)
{
    struct pd_node *node = n->node;
    struct pd_sched_plugins_params params = {
        .conf = &n->root->scheduler, .mods = node->mods, .loop = node->loop, .log = node->log,
        .metrics = node->metrics, .host = &node->host,
    };
    if (node->sched == NULL) {
        pd_status status = pd_node_sched_build(node, n->root, n->conf, err);
        pd_host_set_object(&node->host, PD_SCHED_TABLE, node->sched);
        return status;
    }
    if ((pd_node_roles_of(n->root) & PD_ROLE_ROUTER) == 0 ||
        pd_conf_equal(pd_sched_options, node->plugins_conf, &n->root->scheduler))
        return PD_OK;
    return pd_node_at_place(err, &n->root->scheduler.place,
                            pd_sched_plugins_create(&params, err, &n->plugins));
}

static void sched_commit(struct pd_node_next *n)
{
    struct pd_node *node = n->node;
    if (n->plugins == NULL)
        return;
    pd_sched_set_pipeline(node->sched, &n->root->scheduler, pd_sched_plugins_pipeline(n->plugins));
    pd_sched_plugins_destroy(node->plugins);
    pd_conf_put(node->plugins_from);
    node->plugins = n->plugins;
    node->plugins_conf = &n->root->scheduler;
    node->plugins_from = pd_conf_get(n->conf);
    n->plugins = NULL;
}

static bool peer_is_in(const struct pd_conf_list *list, const char *address)
{
    for (uint64_t i = 0; i < list->count; i++) {
        if (strcmp(PD_CONF_ITEM(list, struct pd_node_peer_conf, i)->address, address) == 0)
            return true;
    }
    return false;
}

static pd_status peers_make(struct pd_node_next *n, struct pd_err *err)
{
    const struct pd_conf_list *list = &n->root->peers;
    for (; n->n_dialled < list->count; n->n_dialled++) {
        const struct pd_node_peer_conf *p = PD_CONF_ITEM(list, struct pd_node_peer_conf, n->n_dialled);
        if (peer_is_in(&n->node->root->peers, p->address))
            continue;
        pd_status status = pd_node_dial(n->node, p, err);
        if (status != PD_OK)
            return status;
    }
    return PD_OK;
}

/* Those of `list` that are not in `kept`, the first n of them. */
static void peers_undial(struct pd_node *node, const struct pd_conf_list *list, uint64_t n,
                         const struct pd_conf_list *kept)
{
    for (uint64_t i = 0; i < n; i++) {
        const struct pd_node_peer_conf *p = PD_CONF_ITEM(list, struct pd_node_peer_conf, i);
        if (!peer_is_in(kept, p->address))
            pd_peers_undial(node->peers, pd_str_from(p->address));
    }
}

static pd_status description_make(struct pd_node_next *n, struct pd_err *err)
{
    const struct pd_peer_desc *now = pd_peers_self(n->node->peers);
    struct pd_peer_engine *engines = pd_calloc(PD_NODE_ENGINES_MAX, sizeof *engines);
    struct pd_peer_desc desc;
    if (engines == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    pd_node_describe(n->node, n->root, n->node->engines, n->node->n_engines, engines, &desc);
    desc.transports = now->transports;
    desc.n_transports = now->n_transports;
    memcpy(desc.listener, now->listener, sizeof desc.listener);
    pd_status status = pd_peers_prepare(n->node->peers, &desc, &n->peers);
    pd_free(engines);
    return status == PD_OK ? PD_OK : pd_err_set(err, status, "peers cannot be told of the engines: %s",
                                                pd_status_text(status));
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static pd_status make(struct pd_node_next *n, struct pd_err *err)
{
    const struct pd_conf_list *endpoints = &n->root->endpoints;
    pd_status status;
    if ((status = pd_node_next_check(n, err)) != PD_OK)
        return status;
    n->generation = pd_node_generation_make(n->node, n->conf);
    if (n->generation == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    if ((status = engines_make(n, err)) != PD_OK || (status = pd_node_next_make_listeners(n, err)) != PD_OK ||
        (status = sched_make(n, err)) != PD_OK || (status = peers_make(n, err)) != PD_OK)
        return status;
    engines_show(n);
    if ((status = pd_node_next_make_roles(n, err)) != PD_OK ||
        (status = pd_node_endpoints_prepare(n->node, endpoints->items, endpoints->count, n->conf, NULL,
                                            &n->endpoints, err)) != PD_OK ||
        (status = pd_node_discovery_prepare(n->node, n->root, n->conf, &n->discovery, err)) != PD_OK ||
        (status = pd_node_exporters_prepare(n->node, n->root, n->conf, &n->exporters, err)) != PD_OK)
        return status;
    return description_make(n, err);
}

/* What was made ends as an earlier generation would. */
static void take_back(struct pd_node_next *n)
{
    struct pd_node *node = n->node;
    struct pd_node_generation *g = n->generation;
    if (n->peers != NULL)
        pd_peers_abort(n->peers);
    pd_node_exporters_abort(n->exporters);
    pd_node_discovery_abort(n->discovery);
    if (n->endpoints != NULL)
        pd_node_endpoints_abort(node, n->endpoints);
    if (n->is_swapped)
        engines_show(n);
    for (uint32_t i = 0; i < n->n_roles; i++) {
        if (n->role_is_new[i]) {
            pd_node_generation_leave_role(g, &n->roles[i]);
            pd_node_part_forget(node, n->roles[i].unit->unit->name);
        }
    }
    for (uint32_t i = 0; i < n->n_engines; i++) {
        if (!n->engine_is_new[i])
            continue;
        if (n->engines[i]->region != NULL)
            pd_kv_region_retire(node->kv, n->engines[i]->region);
        pd_node_generation_leave_engine(g, n->engines[i]);
    }
    peers_undial(node, &n->root->peers, n->n_dialled, &node->root->peers);
    pd_sched_plugins_destroy(n->plugins);
    pd_node_next_back_listeners(n);
    if (g == NULL)
        return;
    pd_list_insert_before(&node->generation->link, &g->link);
    pd_node_generations_sweep(node);
}

static void engines_commit(struct pd_node_next *n)
{
    struct pd_node *node = n->node;
    /* n->engines are those of before. */
    for (uint32_t k = 0; k < n->n_engines; k++) {
        struct pd_node_engine_unit *old = n->engines[k];
        bool stays = false;
        for (uint32_t i = 0; i < node->n_engines; i++)
            stays |= node->engines[i] == old;
        if (stays)
            continue;
        if (old->region != NULL)
            pd_kv_region_retire(node->kv, old->region);
        pd_node_generation_leave_engine(node->generation, old);
    }
}

static void commit(struct pd_node_next *n)
{
    struct pd_node *node = n->node;
    const struct pd_node_conf *before = node->root;
    pd_metrics_refresh(node->metrics);
    engines_commit(n);
    sched_commit(n);
    pd_node_next_commit_listeners(n);
    pd_node_endpoints_commit(node, n->endpoints);
    pd_node_discovery_commit(node, n->discovery);
    pd_node_exporters_commit(node, n->exporters);
    peers_undial(node, &before->peers, before->peers.count, &n->root->peers);
    pd_node_next_commit_roles(n);
    pd_node_generation_switch(node, n->generation);
    pd_node_generations_overdue(node);
    pd_node_limits_apply(node);
    limits_commit(n);
    pd_peers_commit(node->peers, n->peers);
    pd_node_metrics_rebuild(node);
    pd_node_generations_sweep(node);
    /* Names and addresses may be free that sources were refused. */
    if (pd_node_sources(node) != NULL)
        pd_sources_settle(pd_node_sources(node));
}

void pd_node_reload_refused(struct pd_node *node, const struct pd_err *err)
{
    struct pd_node_reloads *r = &node->reloads;
    char line[16] = "";
    r->refused++;
    r->refused_at = pd_loop_now(node->loop);
    if (err->line != 0)
        snprintf(line, sizeof line, ":%u", err->line);
    snprintf(r->why, sizeof r->why, "%.120s%s%s%s", err->file, line, err->file[0] != '\0' ? ": " : "",
             err->text);
    pd_log_error(node->log, "the configuration is not taken into use, nothing has changed: %s%s%s%s", r->why,
                 err->hint[0] != '\0' ? " (" : "", err->hint, err->hint[0] != '\0' ? ")" : "");
}

pd_status pd_node_reload(struct pd_node *node, struct pd_conf *conf, struct pd_err *err)
{
    pd_time begin = pd_loop_clock(node->loop);
    struct pd_node_next *n = pd_calloc(1, sizeof *n);
    pd_status status = PD_OK;
    if (n == NULL)
        status = pd_err_set(err, PD_ENOMEM, "out of memory");
    else if (node->is_draining || node->is_closing)
        status = pd_err_set(err, PD_EBUSY, "the node is ending");
    else if (node->waits_to_listen)
        status = pd_err_set(err, PD_EBUSY, "the node does not serve yet");
    if (status == PD_OK) {
        n->node = node;
        n->conf = conf;
        n->root = pd_conf_root(conf);
        status = make(n, err);
        if (status != PD_OK)
            take_back(n);
        else
            commit(n);
    }
    if (n != NULL)
        pd_free(n->is_opened);
    pd_free(n);
    if (status != PD_OK) {
        pd_node_reload_refused(node, err);
        return status;
    }
    node->reloads.done++;
    node->reloads.refused_at = PD_TIME_NEVER;
    node->reloads.took_ns = pd_loop_clock(node->loop) - begin;
    pd_log_notice(node->log, "generation %llu is in use, made in %.1f ms",
                  (unsigned long long)node->generation->number, (double)node->reloads.took_ns / 1e6);
    return PD_OK;
}
