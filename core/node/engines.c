/* SPDX-License-Identifier: Apache-2.0 */
/* Making, ending and describing engines. */
#include "node/engines.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "kv/layout.h"
#include "node/node.h"

pd_status pd_node_engine_make(struct pd_node *node, const struct pd_node_engine_conf *c,
                              struct pd_conf *conf, struct pd_node_engine_unit **out, struct pd_err *err)
{
    struct pd_node_engine_unit *u = pd_calloc(1, sizeof *u);
    const struct pd_mod_unit *unit = c->unit.unit;
    if (u == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    u->conf = c;
    u->from = pd_conf_get(conf);
    u->log = pd_log_child(node->log, c->name);
    u->serial = ++node->engine_serial;
    u->e.size = sizeof u->e;
    u->e.name = c->name;
    u->e.ops = (const struct pd_engine_ops *)(const void *)unit->ops;
    struct pd_instance_ctx ctx = pd_node_ctx(node, c->name, u->log);
    pd_status status = u->e.ops->create(&ctx, c->unit.conf, &u->e.engine, err);
    if (status != PD_OK) {
        pd_node_at_place(err, &c->place, status);
        pd_log_child_free(u->log);
        pd_conf_put(u->from);
        pd_free(u);
        return status;
    }
    u->e.info.size = sizeof u->e.info;
    u->e.ops->info(u->e.engine, &u->e.info);
    u->e.model = u->model;
    pd_node_engine_use(u, c, UINT32_MAX);
    pd_log_notice(node->log, "engine \"%s\" serves \"%s\": %u blocks of %u tokens, %.1f MiB of KV",
                  u->e.name, u->e.model, u->e.info.blocks, u->e.info.layout.block_tokens,
                  (double)u->e.info.region_bytes / 1048576.0);
    *out = u;
    return PD_OK;
}

static void engine_closed(void *arg)
{
    struct pd_node_engine_unit *u = arg;
    void (*closed)(void *) = u->closed;
    void *closed_arg = u->closed_arg;
    pd_log_child_free(u->log);
    pd_conf_put(u->from);
    pd_free(u);
    closed(closed_arg);
}

void pd_node_engine_destroy(struct pd_node_engine_unit *u, void (*closed)(void *arg), void *arg)
{
    u->closed = closed;
    u->closed_arg = arg;
    u->e.ops->destroy(u->e.engine, engine_closed, u);
}

bool pd_node_engine_is(const struct pd_node_engine_unit *u, const struct pd_node_engine_conf *c)
{
    const struct pd_mod_unit *unit = c->unit.unit;
    return strcmp(u->conf->name, c->name) == 0 && u->conf->unit.unit == unit &&
           pd_conf_equal(unit->unit->options, u->conf->unit.conf, c->unit.conf);
}

static const char *served_name(const struct pd_node_engine_unit *u, const struct pd_node_engine_conf *c)
{
    return c->served != NULL ? c->served : u->e.info.model;
}

void pd_node_engine_use(struct pd_node_engine_unit *u, const struct pd_node_engine_conf *c,
                        uint32_t node_roles)
{
    snprintf(u->model, sizeof u->model, "%s", served_name(u, c));
    u->e.roles = (uint32_t)c->roles & node_roles;
}

void pd_node_engine_describe(const struct pd_node_engine_unit *u, const struct pd_node_engine_conf *c,
                             uint32_t node_roles, struct pd_peer_engine *out)
{
    const struct pd_engine_info *info = &u->e.info;
    struct pd_hash128 fingerprint = pd_kv_layout_fingerprint(&info->layout);
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", u->e.name);
    snprintf(out->model, sizeof out->model, "%s", served_name(u, c));
    out->flags = info->flags;
    out->roles = (uint32_t)c->roles & node_roles;
    out->context_tokens = info->context_tokens;
    out->vocab = info->vocab;
    out->blocks = info->blocks;
    out->max_running = info->max_running;
    out->layout = info->layout;
    out->fingerprint[0] = fingerprint.lo;
    out->fingerprint[1] = fingerprint.hi;
    out->serial = u->serial;
}
