/* SPDX-License-Identifier: Apache-2.0 */
/* What is made for another configuration of a running node, and the steps of it; files:
 * reload_check.c, reload_listen.c, reload_role.c and, for the rest and the whole, reload.c.
 * Steps that make may fail, are taken back by pd_node_reload, and change nothing that runs;
 * steps that commit cannot fail.  All on the loop of the node. */
#ifndef PD_NODE_RELOAD_INT_H
#define PD_NODE_RELOAD_INT_H

#include "node/node.h"

/* To be used or taken back. */
struct pd_node_next {
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

/* ---- reload_check.c */
/* `what` differs and stays as it is: sets the error, with the place or the file, and its remedy. */
pd_status pd_node_next_fixed(const struct pd_node_next *n, const struct pd_conf_place *place, const char *what,
                             struct pd_err *err);
pd_status pd_node_next_check(const struct pd_node_next *n, struct pd_err *err);
/* The listener with this address; index behind the list: none. */
uint64_t pd_node_listen_find(const struct pd_node *node, const struct pd_conf_list *list, const char *address);

/* ---- reload_listen.c */
pd_status pd_node_next_make_listeners(struct pd_node_next *n, struct pd_err *err);
void pd_node_next_commit_listeners(struct pd_node_next *n);
void pd_node_next_back_listeners(struct pd_node_next *n);

/* ---- reload_role.c */
pd_status pd_node_next_make_roles(struct pd_node_next *n, struct pd_err *err);
void pd_node_next_commit_roles(struct pd_node_next *n);
/* The node does not speak of this part any more. */
void pd_node_part_forget(struct pd_node *node, const char *name);

#endif
