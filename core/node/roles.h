/* SPDX-License-Identifier: Apache-2.0 */
/* The roles of a node.  Loop thread. */
#ifndef PD_NODE_ROLES_H
#define PD_NODE_ROLES_H

#include <pdplane/role.h>

#include "conf/conf.h"
#include "node/sections.h"

#define PD_NODE_ROLES_MAX 16u

struct pd_node;
struct pd_node_generation;

struct pd_node_role {
    const struct pd_mod_unit *unit;
    const struct pd_role_ops *ops;
    struct pd_role *role;
    struct pd_log *log;
    const void *conf;                   /* its options */
    struct pd_conf *from;               /* keeps them */
    struct pd_node_generation *left_by; /* while it ends */
};

/* PD_ROLE_* of all roles of a configuration. */
uint32_t pd_node_roles_of(const struct pd_node_conf *c);
/* Creates the role.  PD_OK, or err says why not and at which place. */
pd_status pd_node_role_make(struct pd_node *node, const struct pd_conf_unit *u, struct pd_conf *conf,
                            struct pd_node_role *out, struct pd_err *err);
/* It goes on with these options; its unit has adopt. */
void pd_node_role_adopt(struct pd_node_role *r, const void *options, struct pd_conf *conf);
/* closed(arg) is the last call. */
void pd_node_role_destroy(struct pd_node_role *r, void (*closed)(void *arg), void *arg);
/* What is there once the role is destroyed. */
void pd_node_role_fini(struct pd_node_role *r);

#endif
