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
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "node/node.h"

/* What is made for the new generation, to be used or taken back. */
struct next {
    struct pd_node *node;
    struct pd_conf *conf;
    const struct pd_node_conf *root;
    struct pd_node_generation *generation;
    struct pd_node_engine_unit *engines[PD_NODE_ENGINES_MAX];
    bool engine_is_new[PD_NODE_ENGINES_MAX];
    uint32_t n_engines;
    struct pd_node_door *doors;         /* of root->listen */
    bool *is_opened;                    /* listeners of it that were opened */
    struct pd_sched_plugins *plugins;   /* NULL: those that run stay */
    uint64_t n_dialled;                 /* of root->peers, those before were looked at */
    struct pd_node_role roles[PD_NODE_ROLES_MAX];
    bool role_is_new[PD_NODE_ROLES_MAX];
    uint32_t n_roles;
    bool is_swapped;                    /* the node shows the new engines */
    struct pd_node_endpoints_change *endpoints;
    struct pd_node_discovery_change *discovery;
    struct pd_node_exporters_change *exporters;
    struct pd_peers_change *peers;
};

/* ---- what cannot change -------------------------------------------------------------- */

static pd_status fixed(const struct next *n, const struct pd_conf_place *place, const char *what,
                       struct pd_err *err)
{
    struct pd_conf_place whole = { pd_conf_file(n->conf), 0, 0 };
    pd_err_set(err, PD_EINVAL, "%s cannot change while the node runs", what);
    pd_err_hint(err, "\"pdplane -s upgrade\" starts a new worker with it, without a refused connection");
    return pd_node_at_place(err, place->line != 0 ? place : &whole, PD_EINVAL);
}

static pd_status sections_check(const struct next *n, struct pd_err *err)
{
    static const char *const sections[] = { "node", "transport", "codec", "control" };
    const struct pd_node_conf *a = n->node->root, *b = n->root;
    char what[80];
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        struct pd_conf_place place = { NULL, 0, 0 };
        if (pd_node_section_equal(sections[i], a, b))
            continue;
        pd_node_section_place(sections[i], n->conf, &place);
        snprintf(what, sizeof what, "\"%s\"", sections[i]);
        return fixed(n, &place, what, err);
    }
    if (!pd_node_link_equal(&a->link, &b->link)) {
        struct pd_conf_place place = { NULL, 0, 0 };
        pd_node_section_place("link", n->conf, &place);
        return fixed(n, &place, "secret and tls of \"link\"", err);
    }
    if (a->scheduler.endpoints != b->scheduler.endpoints ||
        memcmp(&a->scheduler.prefix, &b->scheduler.prefix, sizeof a->scheduler.prefix) != 0)
        return fixed(n, &b->scheduler.place, "the size of the scheduler's tables (endpoints, prefix)", err);
    return PD_OK;
}

/* Limits of what stays; those of clients are in build.c. */
static pd_status limits_check(const struct next *n, struct pd_err *err)
{
    struct pd_peers_times times = pd_node_link_times(&n->root->link);
    struct pd_conf_place place = { NULL, 0, 0 };
    pd_status status = pd_peers_times_check(&times, err);
    pd_node_section_place("link", n->conf, &place);
    return pd_node_at_place(err, &place, status);
}

static void limits_commit(struct next *n)
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

static bool addresses_equal(const struct pd_node *node, const char *a, const char *b)
{
    struct pd_addr x, y;
    if (strcmp(a, b) == 0)
        return true;
    return pd_addr_parse(node->loop, pd_str_from(a), &x) == PD_OK &&
           pd_addr_parse(node->loop, pd_str_from(b), &y) == PD_OK && pd_addr_equal(&x, &y);
}

/* The listener with this address; index behind the list: none. */
static uint64_t listen_find(const struct pd_node *node, const struct pd_conf_list *list, const char *address)
{
    uint64_t i = 0;
    while (i < list->count &&
           !addresses_equal(node, PD_CONF_ITEM(list, struct pd_node_listen_conf, i)->address, address))
        i++;
    return i;
}

static uint64_t peer_listeners(const struct pd_conf_list *list)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < list->count; i++)
        n += PD_CONF_ITEM(list, struct pd_node_listen_conf, i)->api == PD_LISTEN_PEER;
    return n;
}

static pd_status listeners_check(const struct next *n, struct pd_err *err)
{
    const struct pd_conf_list *old = &n->node->root->listen, *new = &n->root->listen;
    struct pd_conf_place nowhere = { NULL, 0, 0 };
    for (uint64_t i = 0; i < new->count; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(new, struct pd_node_listen_conf, i);
        uint64_t at = listen_find(n->node, old, l->address);
        const struct pd_node_listen_conf *was =
            at < old->count ? PD_CONF_ITEM(old, struct pd_node_listen_conf, at) : NULL;
        if (was != NULL && was->api != l->api)
            return fixed(n, &l->place, "what a listener is for", err);
        if (l->api == PD_LISTEN_PEER &&
            (was == NULL || !pd_conf_equal(pd_node_listen_rows(), was, l)))
            return fixed(n, &l->place, "a listener for peers", err);
    }
    return peer_listeners(old) == peer_listeners(new) ? PD_OK
                                                      : fixed(n, &nowhere, "a listener for peers", err);
}

/* What roles would say when they start; those that go on are not asked again. */
static pd_status roles_check(const struct next *n, struct pd_err *err)
{
    const struct pd_node_conf *c = n->root;
    uint32_t roles = pd_node_roles_of(c), served = 0;
    struct pd_conf_place whole = { pd_conf_file(n->conf), 0, 0 };
    bool has_clients = false;
    for (uint64_t i = 0; i < c->engines.count; i++)
        served |= (uint32_t)PD_CONF_ITEM(&c->engines, struct pd_node_engine_conf, i)->roles;
    for (uint64_t i = 0; i < c->listen.count; i++)
        has_clients |= PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i)->api == PD_LISTEN_OPENAI;
    if (c->roles.count == 0) {
        pd_err_set(err, PD_EINVAL, "the node has no role");
        pd_err_hint(err, "load one or more role modules, such as \"router\", \"prefill\" or \"decode\"");
    } else if ((roles & PD_ROLE_ROUTER) != 0 && !has_clients) {
        pd_err_set(err, PD_EINVAL, "the router role has no listener for clients");
        pd_err_hint(err, "add a listener with api = \"openai\"");
    } else if ((roles & (PD_ROLE_DECODE | PD_ROLE_PREFILL) & ~served) != 0) {
        bool is_decode = (roles & PD_ROLE_DECODE & ~served) != 0;
        pd_err_set(err, PD_EINVAL, "the %s role has no engine", is_decode ? "decode" : "prefill");
        pd_err_hint(err, "add \"%s\" to the roles of an engine", is_decode ? "decode" : "prefill");
    } else {
        return PD_OK;
    }
    return pd_node_at_place(err, &whole, PD_EINVAL);
}

/* ---- engines --------------------------------------------------------------------------- */

static pd_status engines_make(struct next *n, struct pd_err *err)
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
static void engines_show(struct next *n)
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

/* ---- listeners --------------------------------------------------------------------------- */

/* Its files are read in any case, so that one that is broken is told; what is
 * equal stays, and takes changed files at its next use. */
static pd_status door_make(struct next *n, uint64_t i, struct pd_err *err)
{
    struct pd_node *node = n->node;
    const struct pd_node_listen_conf *l = PD_CONF_ITEM(&n->root->listen, struct pd_node_listen_conf, i);
    uint64_t at = listen_find(node, &node->root->listen, l->address);
    struct pd_node_door *door = &n->doors[i];
    pd_status status = pd_node_door_build(node, l, door, err);
    if (status != PD_OK || at == node->root->listen.count)
        return status;
    const struct pd_node_listen_conf *was =
        PD_CONF_ITEM(&node->root->listen, struct pd_node_listen_conf, at);
    struct pd_node_door *old = &node->doors[at];
    if (l->api == PD_LISTEN_PEER || (door->tls != NULL && pd_node_tls_equal(was->tls, l->tls))) {
        if (door->tls != node->link_in)
            pd_tls_destroy(door->tls);
        door->tls = old->tls;
        pd_tls_look(door->tls);
    }
    if (door->keys != NULL && old->keys != NULL && strcmp(was->api_keys_file, l->api_keys_file) == 0) {
        pd_keys_destroy(door->keys);
        door->keys = old->keys;
        pd_keys_look(door->keys);
    }
    return PD_OK;
}

static struct pd_http_server *server_of(const struct pd_node *node, uint32_t api)
{
    return api == PD_LISTEN_OPENAI ? node->net.openai : node->net.admin;
}

static pd_status listener_make(struct next *n, uint64_t i, struct pd_err *err)
{
    struct pd_node *node = n->node;
    const struct pd_node_listen_conf *l = PD_CONF_ITEM(&n->root->listen, struct pd_node_listen_conf, i);
    struct pd_http_server *server;
    struct pd_addr addr;
    pd_status status = door_make(n, i, err);
    if (status != PD_OK || l->api == PD_LISTEN_PEER ||
        (status = pd_node_server(node, n->root, l->api, &server, err)) != PD_OK)
        return status;
    if (listen_find(node, &node->root->listen, l->address) < node->root->listen.count) {
        status = pd_addr_parse(node->loop, pd_str_from(l->address), &addr);
        if (status == PD_OK)
            status = pd_http_server_reserve(server, &addr);
        return status == PD_OK ? PD_OK : pd_err_set(err, status, "listener %s: %s", l->address,
                                                    pd_status_text(status));
    }
    status = pd_node_listen_http(node, l, &n->doors[i], err);
    n->is_opened[i] = status == PD_OK;
    return status;
}

static pd_status listeners_make(struct next *n, struct pd_err *err)
{
    pd_status status = PD_OK;
    n->doors = pd_calloc((size_t)n->root->listen.count + 1, sizeof *n->doors);
    n->is_opened = pd_calloc((size_t)n->root->listen.count + 1, sizeof *n->is_opened);
    if (n->doors == NULL || n->is_opened == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    for (uint64_t i = 0; i < n->root->listen.count && status == PD_OK; i++)
        status = listener_make(n, i, err);
    return status;
}

static void listener_close(struct pd_node *node, const struct pd_node_listen_conf *l)
{
    struct pd_addr addr;
    if (pd_addr_parse(node->loop, pd_str_from(l->address), &addr) == PD_OK)
        pd_http_server_unlisten(server_of(node, l->api), &addr);
}

/* Frees what of `doors` is not in `kept`. */
static void doors_free(struct pd_node *node, struct pd_node_door *doors, uint64_t n_doors,
                       const struct pd_node_door *kept, uint64_t n_kept)
{
    for (uint64_t i = 0; doors != NULL && i < n_doors; i++) {
        for (uint64_t k = 0; k < n_kept; k++) {
            if (doors[i].tls == kept[k].tls)
                doors[i].tls = NULL;
            if (doors[i].keys == kept[k].keys)
                doors[i].keys = NULL;
        }
        pd_node_door_free(node, &doors[i]);
    }
    pd_free(doors);
}

static void listeners_commit(struct next *n)
{
    struct pd_node *node = n->node;
    const struct pd_conf_list *old = &node->root->listen, *new = &n->root->listen;
    struct pd_addr addr;
    for (uint64_t i = 0; i < old->count; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(old, struct pd_node_listen_conf, i);
        uint64_t at = listen_find(node, new, l->address);
        if (l->api == PD_LISTEN_PEER)
            continue;
        if (at == new->count) {
            listener_close(node, l);
            pd_log_notice(node->log, "not listening on %s any more", l->address);
        } else if (pd_addr_parse(node->loop, pd_str_from(l->address), &addr) == PD_OK) {
            pd_http_server_relisten(server_of(node, l->api), &addr, n->doors[at].tls, n->doors[at].keys);
        }
    }
    doors_free(node, node->doors, old->count, n->doors, new->count);
    node->doors = n->doors;
    n->doors = NULL;
}

/* ---- scheduler and peers ------------------------------------------------------------------- */

static pd_status sched_make(struct next *n, struct pd_err *err)
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

static void sched_commit(struct next *n)
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

static pd_status peers_make(struct next *n, struct pd_err *err)
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

static pd_status description_make(struct next *n, struct pd_err *err)
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

/* ---- roles ----------------------------------------------------------------------------------- */

static bool role_still_ends(const struct pd_node *node, const struct pd_mod_unit *unit)
{
    PD_LIST_EACH(&node->generations, link) {
        const struct pd_node_generation *g = PD_LIST_ENTRY(link, struct pd_node_generation, link);
        for (uint32_t i = 0; i < g->n_roles; i++) {
            if (g->roles[i].unit == unit)
                return true;
        }
    }
    return false;
}

static pd_status role_add(struct next *n, const struct pd_conf_unit *u, struct pd_err *err)
{
    const struct pd_mod_unit *unit = u->unit;
    struct pd_node_role *r = &n->roles[n->n_roles];
    if (role_still_ends(n->node, unit)) {
        pd_err_set(err, PD_EBUSY, "the %s role of an earlier generation still ends its requests",
                   unit->unit->name);
        pd_err_hint(err, "reload again once \"pdctl generations\" does not show it any more");
        return pd_node_at_place(err, &u->place, PD_EBUSY);
    }
    pd_status status = pd_node_role_make(n->node, u, n->conf, r, err);
    if (status != PD_OK)
        return status;
    n->role_is_new[n->n_roles++] = true;
    return pd_node_at_place(err, &u->place, r->ops->start(r->role, err));
}

static pd_status roles_make(struct next *n, struct pd_err *err)
{
    const struct pd_conf_list *list = &n->root->roles;
    struct pd_node *node = n->node;
    if (list->count > PD_NODE_ROLES_MAX)
        return pd_err_set(err, PD_ELIMIT, "a node can have %u roles", PD_NODE_ROLES_MAX);
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        const struct pd_node_role *same = NULL;
        for (uint32_t k = 0; k < node->n_roles; k++) {
            if (node->roles[k].unit == u->unit)
                same = &node->roles[k];
        }
        if (same == NULL) {
            pd_status status = role_add(n, u, err);
            if (status != PD_OK)
                return status;
            continue;
        }
        if (same->ops->adopt == NULL &&
            !pd_conf_equal(same->unit->unit->options, same->conf, u->conf))
            return fixed(n, &u->place, "the options of this role", err);
        n->roles[n->n_roles++] = *same;
    }
    return PD_OK;
}

/* The node does not speak of it any more. */
static void part_forget(struct pd_node *node, const char *name)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < node->n_parts; i++) {
        if (strcmp(node->parts[i].name, name) != 0)
            node->parts[kept++] = node->parts[i];
    }
    node->n_parts = kept;
}

static void role_drained(void *arg)
{
    (void)arg; /* it ends with its generation */
}

static void roles_commit(struct next *n)
{
    struct pd_node *node = n->node;
    for (uint32_t k = 0; k < node->n_roles; k++) {
        struct pd_node_role *old = &node->roles[k];
        bool stays = false;
        for (uint32_t i = 0; i < n->n_roles; i++)
            stays |= n->roles[i].role == old->role;
        if (stays)
            continue;
        pd_node_generation_leave_role(node->generation, old);
        old->ops->drain(old->role, role_drained, node);
        part_forget(node, old->unit->unit->name);
    }
    memcpy(node->roles, n->roles, sizeof node->roles);
    node->n_roles = n->n_roles;
    for (uint32_t i = 0; i < n->n_roles; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(&n->root->roles, struct pd_conf_unit, i);
        if (!n->role_is_new[i] && node->roles[i].ops->adopt != NULL)
            pd_node_role_adopt(&node->roles[i], u->conf, n->conf);
    }
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static pd_status make(struct next *n, struct pd_err *err)
{
    const struct pd_conf_list *endpoints = &n->root->endpoints;
    pd_status status;
    if ((status = sections_check(n, err)) != PD_OK || (status = limits_check(n, err)) != PD_OK || (status = listeners_check(n, err)) != PD_OK ||
        (status = roles_check(n, err)) != PD_OK)
        return status;
    n->generation = pd_node_generation_make(n->node, n->conf);
    if (n->generation == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    if ((status = engines_make(n, err)) != PD_OK || (status = listeners_make(n, err)) != PD_OK ||
        (status = sched_make(n, err)) != PD_OK || (status = peers_make(n, err)) != PD_OK)
        return status;
    engines_show(n);
    if ((status = roles_make(n, err)) != PD_OK ||
        (status = pd_node_endpoints_prepare(n->node, endpoints->items, endpoints->count, n->conf, NULL,
                                            &n->endpoints, err)) != PD_OK ||
        (status = pd_node_discovery_prepare(n->node, n->root, n->conf, &n->discovery, err)) != PD_OK ||
        (status = pd_node_exporters_prepare(n->node, n->root, n->conf, &n->exporters, err)) != PD_OK)
        return status;
    return description_make(n, err);
}

/* What was made ends as an earlier generation would. */
static void take_back(struct next *n)
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
            part_forget(node, n->roles[i].unit->unit->name);
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
    for (uint64_t i = 0; n->is_opened != NULL && i < n->root->listen.count; i++) {
        if (n->is_opened[i])
            listener_close(node, PD_CONF_ITEM(&n->root->listen, struct pd_node_listen_conf, i));
    }
    doors_free(node, n->doors, n->root->listen.count, node->doors, node->root->listen.count);
    if (g == NULL)
        return;
    pd_list_insert_before(&node->generation->link, &g->link);
    pd_node_generations_sweep(node);
}

static void engines_commit(struct next *n)
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

static void commit(struct next *n)
{
    struct pd_node *node = n->node;
    const struct pd_node_conf *before = node->root;
    pd_metrics_refresh(node->metrics);
    engines_commit(n);
    sched_commit(n);
    listeners_commit(n);
    pd_node_endpoints_commit(node, n->endpoints);
    pd_node_discovery_commit(node, n->discovery);
    pd_node_exporters_commit(node, n->exporters);
    peers_undial(node, &before->peers, before->peers.count, &n->root->peers);
    roles_commit(n);
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
    struct next *n = pd_calloc(1, sizeof *n);
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
