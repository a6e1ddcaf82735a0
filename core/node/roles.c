/* SPDX-License-Identifier: Apache-2.0 */
/* Making and ending roles. */
#include "node/roles.h"

#include "base/status.h"
#include "node/node.h"

static const struct pd_role_ops *ops_of(const struct pd_conf_unit *u)
{
    return (const struct pd_role_ops *)(const void *)((const struct pd_mod_unit *)u->unit)->ops;
}

uint32_t pd_node_roles_of(const struct pd_node_conf *c)
{
    uint32_t roles = 0;
    for (uint64_t i = 0; i < c->roles.count; i++)
        roles |= ops_of(PD_CONF_ITEM(&c->roles, struct pd_conf_unit, i))->role;
    return roles;
}

pd_status pd_node_role_make(struct pd_node *node, const struct pd_conf_unit *u, struct pd_conf *conf,
                            struct pd_node_role *out, struct pd_err *err)
{
    const struct pd_mod_unit *unit = u->unit;
    *out = (struct pd_node_role){ .unit = unit, .ops = ops_of(u), .conf = u->conf };
    out->log = pd_log_child(node->log, unit->unit->name);
    struct pd_instance_ctx ctx = pd_node_ctx(node, unit->unit->name, out->log);
    pd_status status = out->ops->create(&ctx, u->conf, &out->role, err);
    if (status != PD_OK) {
        pd_log_child_free(out->log);
        *out = (struct pd_node_role){ 0 };
        return pd_node_at_place(err, &u->place, status);
    }
    out->from = pd_conf_get(conf);
    return PD_OK;
}

void pd_node_role_adopt(struct pd_node_role *r, const void *options, struct pd_conf *conf)
{
    struct pd_conf *before = r->from;
    r->ops->adopt(r->role, options);
    r->conf = options;
    r->from = pd_conf_get(conf);
    pd_conf_put(before);
}

void pd_node_role_destroy(struct pd_node_role *r, void (*closed)(void *arg), void *arg)
{
    r->ops->destroy(r->role, closed, arg);
}

void pd_node_role_fini(struct pd_node_role *r)
{
    pd_log_child_free(r->log);
    pd_conf_put(r->from);
}
