/* SPDX-License-Identifier: Apache-2.0 */
/* Generations of a node: one for each configuration that it has taken into use,
 * the current one last.  A request holds the one in force when it began.  What
 * only an earlier generation uses - engines and roles that the next one does not
 * have, the configuration itself - ends with the last request of that generation
 * and of those before it.  Loop thread. */
#ifndef PD_NODE_GENERATION_H
#define PD_NODE_GENERATION_H

#include <pdplane/node.h>

#include "base/list.h"
#include "conf/conf.h"
#include "node/engines.h"
#include "node/roles.h"

struct pd_node_generation {
    struct pd_list link;                /* in node->generations, oldest first */
    struct pd_node *node;
    uint64_t number;                    /* 1, 2, ... */
    struct pd_conf *conf;
    pd_time since;
    pd_time replaced_at;                /* by the next one */
    bool is_overdue;                    /* its requests were told to end */
    uint32_t holds;                     /* requests that began in it */
    /* What the next generation does not have. */
    struct pd_node_engine_unit *engines[PD_NODE_ENGINES_MAX];
    uint32_t n_engines;
    struct pd_node_role roles[PD_NODE_ROLES_MAX];
    uint32_t n_roles;
    uint32_t n_ending;                  /* of these, those that are being destroyed */
};

/* A generation for conf that is in no list yet; NULL: out of memory. */
struct pd_node_generation *pd_node_generation_make(struct pd_node *node, struct pd_conf *conf);
/* One that never came into use. */
void pd_node_generation_drop(struct pd_node_generation *g);
/* Makes it the current one. */
void pd_node_generation_switch(struct pd_node *node, struct pd_node_generation *g);
/* Gives what the current one does not need any more to the one before it. */
void pd_node_generation_leave_engine(struct pd_node_generation *g, struct pd_node_engine_unit *e);
void pd_node_generation_leave_role(struct pd_node_generation *g, const struct pd_node_role *r);
/* Ends what can end; soon, from the loop. */
void pd_node_generations_sweep(struct pd_node *node);
/* Does that now. */
void pd_node_sweep(struct pd_node *node);
/* Ends the requests of generations that were replaced longer ago than reload_drain;
 * looks again when the next one is due.  After each switch, and by a timer. */
void pd_node_generations_overdue(struct pd_node *node);
/* For the node's own end: destroys what generations have left; true: not all of
 * it has ended, and the node's close task runs again when something has.  Engines
 * come after the KV plane. */
bool pd_node_generations_close_roles(struct pd_node *node);
bool pd_node_generations_close_engines(struct pd_node *node);
void pd_node_generations_free(struct pd_node *node);

/* For struct pd_node_api. */
struct pd_node_generation *pd_node_generation_hold(struct pd_node *node);
void pd_node_generation_release(struct pd_node_generation *g);

#endif
