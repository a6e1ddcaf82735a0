/* SPDX-License-Identifier: Apache-2.0 */
/* Builds what a configuration generation describes.  The order is the order of
 * needs: TLS, which transports use; transports and engines, because the node tells
 * its peers about them; then the links and the KV plane; the scheduler; roles
 * last, because they use all of it. */
#include <stdio.h>
#include <string.h>

#include <pdplane/role.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"
#include "node/node.h"
#include "os/file.h"

pd_status pd_node_at_place(struct pd_err *err, const struct pd_conf_place *place, pd_status status)
{
    if (status != PD_OK && err->file[0] == '\0' && place->file != NULL) {
        snprintf(err->file, sizeof err->file, "%s", place->file);
        err->line = place->line;
    }
    if (status != PD_OK && err->text[0] == '\0')
        pd_err_set(err, status, "%s", pd_status_text(status));
    return status;
}

static const struct pd_mod_unit *unit_of(const struct pd_conf_unit *u)
{
    return u->unit;
}

struct pd_instance_ctx pd_node_ctx(struct pd_node *node, const char *name, struct pd_log *log)
{
    return (struct pd_instance_ctx){
        .size = sizeof(struct pd_instance_ctx), .name = name, .loop = node->loop, .log = log,
        .metrics = node->metrics, .host = &node->host, .node = node->id,
    };
}

/* ---- identity ---------------------------------------------------------------------------- */

/* The uuid is kept in the state folder; the epoch grows from start to start. */
static pd_status identity_get(struct pd_node *node, struct pd_err *err)
{
    const char *state = node->root->node.state;
    struct pd_buf text;
    char path[512], id[64];
    uint8_t random[16];
    pd_status status = PD_ENOENT;
    pd_loop_random(node->loop, random, sizeof random);
    node->id.epoch = pd_loop_wall(node->loop) / PD_MS << 20 | (pd_loop_random_u64(node->loop) & 0xfffff);
    if (state == NULL || node->is_second) {
        pd_uuid_v4(random, &node->id.uuid);
        return PD_OK;
    }
    snprintf(path, sizeof path, "%s/node.id", state);
    pd_buf_init(&text, 256);
    if (pd_file_exists(path))
        status = pd_file_read(path, 200, &text, err);
    if (status == PD_OK) {
        status = pd_uuid_parse(pd_str_trim(pd_buf_str(&text)), &node->id.uuid);
        if (status != PD_OK)
            pd_err_set(err, status, "%s does not hold a node's identity", path);
    } else if (status == PD_ENOENT) {
        pd_uuid_v4(random, &node->id.uuid);
        pd_uuid_format(&node->id.uuid, id);
        status = pd_file_mkdir(state, 0750, err);
        if (status == PD_OK)
            status = pd_file_write(path, pd_str_from(id), 0640, err);
    }
    pd_buf_fini(&text);
    return status;
}

/* ---- transports and engines ----------------------------------------------------------------- */

/* Before the transports, which use them. */
static pd_status codecs_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->codecs;
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        struct pd_node_codec *c = &node->codecs[node->n_codecs];
        if (node->n_codecs == PD_HOST_CODECS_MAX)
            return pd_node_at_place(err, &u->place, pd_err_set(err, PD_ELIMIT, "a node can have %u codecs",
                                                       PD_HOST_CODECS_MAX));
        c->ops = (const struct pd_codec_ops *)(const void *)unit_of(u)->ops;
        c->log = pd_log_child(node->log, u->name);
        struct pd_instance_ctx ctx = pd_node_ctx(node, u->name, c->log);
        pd_status status = c->ops->create(&ctx, u->conf, &c->codec, err);
        if (status == PD_OK) {
            node->n_codecs++;
            status = pd_host_codec_add(&node->host, u->name, c->ops, c->codec);
        }
        if (status != PD_OK)
            return pd_node_at_place(err, &u->place, status);
    }
    return PD_OK;
}

/* A transport that declines is done without as long as another one is there: KV then moves
 * slower, and nothing else changes. */
static pd_status transports_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->transports;
    struct pd_err declined[PD_NODE_TRANSPORTS_MAX];
    const struct pd_conf_unit *who[PD_NODE_TRANSPORTS_MAX];
    uint32_t n_declined = 0;
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        struct pd_node_transport *t = &node->transports[node->n_transports];
        if (i == PD_NODE_TRANSPORTS_MAX)
            return pd_node_at_place(err, &u->place, pd_err_set(err, PD_ELIMIT, "a node can have %u transports",
                                                       PD_NODE_TRANSPORTS_MAX));
        t->name = u->name;
        t->ops = (const struct pd_transport_ops *)(const void *)unit_of(u)->ops;
        t->log = pd_log_child(node->log, u->name);
        struct pd_instance_ctx ctx = pd_node_ctx(node, t->name, t->log);
        struct pd_err why = { 0 };
        pd_status status = t->ops->create(&ctx, u->conf, &t->transport, &why);
        if (status == PD_OK) {
            node->n_transports++;
            continue;
        }
        pd_node_at_place(&why, &u->place, status);
        if (status != PD_EDECLINED) {
            *err = why;
            return status;
        }
        who[n_declined] = u;
        declined[n_declined++] = why;
    }
    if (n_declined > 0 && node->n_transports == 0) {
        *err = declined[0];
        return PD_EDECLINED;
    }
    for (uint32_t i = 0; i < n_declined; i++)
        pd_log_warn(node->log, "%s:%u: goes on without transport \"%s\": %s%s%s", declined[i].file,
                    declined[i].line, who[i]->name, declined[i].text,
                    declined[i].hint[0] != '\0' ? "; " : "", declined[i].hint);
    return PD_OK;
}

static pd_status engines_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->engines;
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_node_engine_conf *c = PD_CONF_ITEM(list, struct pd_node_engine_conf, i);
        if (node->n_engines == PD_NODE_ENGINES_MAX)
            return pd_node_at_place(err, &c->place, pd_err_set(err, PD_ELIMIT, "a node can have %u engines",
                                                               (unsigned)PD_NODE_ENGINES_MAX));
        pd_status status = pd_node_engine_make(node, c, node->generation->conf,
                                               &node->engines[node->n_engines], err);
        if (status != PD_OK)
            return status;
        pd_node_engine_use(node->engines[node->n_engines++], c, pd_node_roles_of(node->root));
    }
    return PD_OK;
}

/* ---- peers and KV ------------------------------------------------------------------------------ */

static void load_report(struct pd_engine_load *out, uint32_t n, void *arg)
{
    struct pd_node *node = arg;
    for (uint32_t i = 0; i < n && i < node->n_engines; i++) {
        out[i].size = sizeof out[i];
        node->engines[i]->e.ops->load(node->engines[i]->e.engine, &out[i]);
    }
}

static void on_peer(struct pd_peers *peers, pd_peer_ref peer, uint32_t what, void *arg)
{
    struct pd_node *node = arg;
    struct pd_peer_info info = { .size = sizeof info };
    if (what == PD_PEER_ON_GONE && pd_peer_table()->info(peers, peer, &info) == PD_OK)
        pd_kv_peer_gone(node->kv, &info.desc->id);
}

void pd_node_describe(struct pd_node *node, const struct pd_node_conf *c,
                      struct pd_node_engine_unit *const *units, uint32_t n, struct pd_peer_engine *engines,
                      struct pd_peer_desc *out)
{
    *out = (struct pd_peer_desc){ .id = node->id, .roles = pd_node_roles_of(c), .n_engines = n,
                                  .engines = engines };
    snprintf(out->name, sizeof out->name, "%s", node->name);
    snprintf(out->version, sizeof out->version, "%s", pd_host_api_table()->version);
    snprintf(out->host_id, sizeof out->host_id, "%s", node->host_id);
    for (uint64_t i = 0; i < c->listen.count && out->listener[0] == '\0'; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i);
        if (l->api == PD_LISTEN_PEER && l->advertise != NULL)
            snprintf(out->listener, sizeof out->listener, "%s", l->advertise);
    }
    /* An engine serves only the roles that this node has. */
    for (uint32_t i = 0; i < n; i++)
        pd_node_engine_describe(units[i], PD_CONF_ITEM(&c->engines, struct pd_node_engine_conf, i),
                                out->roles, &engines[i]);
}

pd_status pd_node_region_add(struct pd_node *node, struct pd_node_engine_unit *u, struct pd_err *err)
{
    return pd_kv_region_add(node->kv, u->e.name, &u->e.info, &u->region, err);
}

static pd_status peers_build(struct pd_node *node, struct pd_err *err)
{
    static const struct pd_peer_watch_events watch = { .size = sizeof watch, .on_peer = on_peer };
    const struct pd_node_conf *c = node->root;
    struct pd_peer_engine *engines = pd_calloc(PD_NODE_ENGINES_MAX, sizeof *engines);
    struct pd_peer_transport *transports = pd_calloc(PD_NODE_TRANSPORTS_MAX, sizeof *transports);
    pd_status status = PD_ENOMEM;
    if (engines == NULL || transports == NULL)
        goto out;
    struct pd_peer_desc self;
    pd_node_describe(node, c, node->engines, node->n_engines, engines, &self);
    self.transports = transports;
    struct pd_peers_conf conf = {
        .loop = node->loop, .log = node->log, .metrics = node->metrics, .self = &self,
        .secret = pd_str_from(c->link.secret), .load = load_report, .load_arg = node,
        .heartbeat = c->link.heartbeat, .suspect = c->link.suspect, .dead = c->link.dead,
        .patience = c->link.patience, .connect_timeout = c->link.connect_timeout, .tls = node->link_out,
    };
    status = pd_peers_create(&conf, &node->peers, err);
    if (status != PD_OK)
        goto out;
    struct pd_kv_conf kv = {
        .loop = node->loop, .log = node->log, .metrics = node->metrics, .self = node->id,
        .peer_api = pd_peer_table(), .peers = node->peers, .digests = c->kv.digests,
        .lease_ttl = c->kv.lease, .connect_timeout = c->kv.connect_timeout,
        .inflight_bytes = c->kv.inflight,
    };
    status = pd_kv_create(&kv, &node->kv, err);
    for (uint32_t i = 0; i < node->n_transports && status == PD_OK; i++)
        status = pd_kv_transport_add(node->kv, node->transports[i].name, node->transports[i].ops,
                                     node->transports[i].transport);
    for (uint32_t i = 0; i < node->n_engines && status == PD_OK; i++)
        status = pd_node_region_add(node, node->engines[i], err);
    if (status != PD_OK)
        goto out;
    self.n_transports = pd_kv_transports(node->kv, transports);
    status = pd_peers_update(node->peers, &self);
    if (status == PD_OK)
        status = pd_peer_table()->watch(node->peers, &watch, node, &node->peer_watch);
out:
    pd_free(engines);
    pd_free(transports);
    if (status != PD_OK && err->text[0] == '\0')
        pd_err_set(err, status, "the links to other nodes cannot be set up: %s", pd_status_text(status));
    return status;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

/* Only a router schedules.  A scheduler that is there stays. */
pd_status pd_node_sched_build(struct pd_node *node, const struct pd_node_conf *c, struct pd_conf *conf,
                              struct pd_err *err)
{
    struct pd_sched_plugins_params params = {
        .conf = &c->scheduler, .mods = node->mods, .loop = node->loop, .log = node->log,
        .metrics = node->metrics, .host = &node->host,
    };
    if ((pd_node_roles_of(c) & PD_ROLE_ROUTER) == 0 || node->sched != NULL)
        return PD_OK;
    pd_status status = pd_sched_plugins_create(&params, err, &node->plugins);
    if (status == PD_OK)
        status = pd_sched_create(&c->scheduler, pd_sched_plugins_pipeline(node->plugins), node->metrics, err,
                                 &node->sched);
    if (status != PD_OK) {
        pd_sched_plugins_destroy(node->plugins);
        node->plugins = NULL;
        return pd_node_at_place(err, &c->scheduler.place, status);
    }
    node->plugins_conf = &c->scheduler;
    node->plugins_from = pd_conf_get(conf);
    return PD_OK;
}

pd_status pd_node_server(struct pd_node *node, const struct pd_node_conf *c, uint32_t api,
                         struct pd_http_server **out, struct pd_err *err)
{
    bool is_clients = api == PD_LISTEN_OPENAI;
    struct pd_http_server **at = is_clients ? &node->net.openai : &node->net.admin;
    struct pd_node_room room;
    pd_node_room_share(node, c, &room);
    struct pd_http_server_opts opts = {
        .size = sizeof opts, .name = is_clients ? "http clients" : "http admin",
        .max_conns = is_clients ? room.clients : room.operators, .max_refusing = room.refusing,
        .max_held = is_clients ? c->limits.memory : 0, .head_ns = c->limits.head_timeout,
        .body_ns = c->limits.body_timeout, .write_ns = c->limits.write_timeout,
        .idle_ns = c->limits.idle_timeout,
    };
    if (*at == NULL) {
        pd_status status = pd_http_server_create(node->loop, &opts, at);
        if (status == PD_OK && api == PD_LISTEN_ADMIN)
            status = pd_node_admin_routes(node);
        if (status == PD_OK && api == PD_LISTEN_ADMIN &&
            (status = pd_node_exporters_route(node, err)) != PD_OK)
            return status;
        if (status != PD_OK)
            return pd_err_set(err, status, "HTTP cannot be set up: %s", pd_status_text(status));
    }
    *out = *at;
    return PD_OK;
}

void pd_node_limits_apply(struct pd_node *node)
{
    struct pd_node_room room;
    pd_node_room_share(node, node->root, &room);
    if (node->net.openai != NULL)
        pd_http_server_set_limits(node->net.openai, room.clients, node->root->limits.memory);
    const struct pd_node_limits_conf *l = &node->root->limits;
    struct pd_http_server *const servers[2] = { node->net.openai, node->net.admin };
    for (int i = 0; i < 2; i++)
        if (servers[i] != NULL)
            pd_http_server_set_times(servers[i], l->head_timeout, l->body_timeout, l->write_timeout,
                                     l->idle_timeout);
    pd_http_client_set_limits(node->net.client, room.servers, room.servers);
}

static pd_status net_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_node_conf *c = node->root;
    struct pd_http_server *server;
    struct pd_node_room room;
    pd_status status = pd_node_room_find(node, err);
    pd_node_room_share(node, c, &room);
    struct pd_http_client_opts client = { .size = sizeof client, .max_conns = room.servers,
                                          .max_total = room.servers };
    for (uint64_t i = 0; i < c->listen.count && status == PD_OK; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i);
        if (l->api != PD_LISTEN_PEER)
            status = pd_node_server(node, c, l->api, &server, err);
    }
    if (status == PD_OK &&
        (status = pd_http_client_create(node->loop, &client, &node->net.client)) != PD_OK)
        pd_err_set(err, status, "HTTP cannot be set up: %s", pd_status_text(status));
    return status;
}

static pd_status table_register(struct pd_node *node, const char *name, uint32_t version,
                                const void *table, void *object, struct pd_err *err)
{
    pd_status status = pd_host_register(&node->host, name, version, table, object);
    return status == PD_OK ? PD_OK : pd_err_set(err, status, "table \"%s\": %s", name,
                                                pd_status_text(status));
}

static pd_status tables_register(struct pd_node *node, struct pd_err *err)
{
    const struct {
        const char *name;
        uint32_t version;
        const void *table;
        void *object;
    } rows[] = {
        { PD_JSON_TABLE, PD_JSON_VERSION, pd_json_functions(), NULL },
        { PD_NODE_TABLE, PD_NODE_VERSION, pd_node_functions(), node },
        { PD_API_TABLE, PD_API_VERSION, pd_api_functions(), node->api },
        { PD_REQ_TABLE, PD_REQ_VERSION, pd_reqs_api(), node->reqs },
        { PD_SCHED_TABLE, PD_SCHED_VERSION, pd_sched_api(), node->sched },
        { PD_PEER_TABLE, PD_PEER_VERSION, pd_peer_table(), node->peers },
        { PD_KV_TABLE, PD_KV_VERSION, pd_kv_table(), node->kv },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pd_status status = table_register(node, rows[i].name, rows[i].version, rows[i].table,
                                          rows[i].object, err);
        if (status != PD_OK)
            return status;
    }
    return PD_OK;
}

static pd_status roles_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->roles;
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        if (node->n_roles == PD_NODE_ROLES_MAX)
            return pd_node_at_place(err, &u->place, pd_err_set(err, PD_ELIMIT, "a node can have %u roles",
                                                               PD_NODE_ROLES_MAX));
        pd_status status = pd_node_role_make(node, u, node->generation->conf, &node->roles[node->n_roles],
                                             err);
        if (status != PD_OK)
            return status;
        node->n_roles++;
    }
    if (node->n_roles == 0) {
        pd_err_set(err, PD_EINVAL, "the node has no role");
        pd_err_hint(err, "load one or more role modules, such as \"router\", \"prefill\" or \"decode\"");
        return PD_EINVAL;
    }
    return PD_OK;
}

static pd_status metrics_add(struct pd_node *node, struct pd_err *err)
{
    pd_status status = pd_node_metrics_add(node);
    return status == PD_OK ? PD_OK : pd_err_set(err, status, "metrics cannot be set up: %s", pd_status_text(status));
}

pd_status pd_node_build(struct pd_node *node, struct pd_err *err)
{
    pd_status status;
    if ((status = identity_get(node, err)) != PD_OK)
        return status;
    if ((status = pd_metrics_create(0, &node->metrics)) != PD_OK ||
        (status = pd_api_create(&node->api)) != PD_OK)
        return pd_err_set(err, status, "out of memory");
    if ((status = pd_reqs_create(&node->root->requests, node->metrics, err, &node->reqs)) != PD_OK ||
        (status = pd_node_tls_build(node, err)) != PD_OK ||
        (status = table_register(node, PD_NET_TABLE, PD_NET_VERSION, pd_net_functions(), &node->net,
                                 err)) != PD_OK ||
        (status = codecs_build(node, err)) != PD_OK ||
        (status = transports_build(node, err)) != PD_OK ||
        (status = engines_build(node, err)) != PD_OK ||
        (status = peers_build(node, err)) != PD_OK ||
        (status = pd_node_sched_build(node, node->root, node->generation->conf, err)) != PD_OK ||
        (status = net_build(node, err)) != PD_OK ||
        (status = pd_node_endpoints_set(node, node->root->endpoints.items, node->root->endpoints.count,
                                        node->generation->conf, NULL, err)) != PD_OK ||
        (status = metrics_add(node, err)) != PD_OK ||
        (status = tables_register(node, err)) != PD_OK ||
        (status = pd_node_exporters_build(node, err)) != PD_OK ||
        (status = pd_node_discovery_build(node, err)) != PD_OK ||
        (status = roles_build(node, err)) != PD_OK)
        return status;
    return PD_OK;
}
