/* SPDX-License-Identifier: Apache-2.0 */
/* Roles of another configuration: those that are new start, those that are gone drain. */
#include "node/reload_int.h"

#include <string.h>

#include "base/status.h"

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

static pd_status role_add(struct pd_node_next *n, const struct pd_conf_unit *u, struct pd_err *err)
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

pd_status pd_node_next_make_roles(struct pd_node_next *n, struct pd_err *err)
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
            return pd_node_next_fixed(n, &u->place, "the options of this role", err);
        n->roles[n->n_roles++] = *same;
    }
    return PD_OK;
}

/* The node does not speak of it any more. */
void pd_node_part_forget(struct pd_node *node, const char *name)
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

void pd_node_next_commit_roles(struct pd_node_next *n)
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
        pd_node_part_forget(node, old->unit->unit->name);
    }
    memcpy(node->roles, n->roles, sizeof node->roles);
    node->n_roles = n->n_roles;
    for (uint32_t i = 0; i < n->n_roles; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(&n->root->roles, struct pd_conf_unit, i);
        if (!n->role_is_new[i] && node->roles[i].ops->adopt != NULL)
            pd_node_role_adopt(&node->roles[i], u->conf, n->conf);
    }
}
