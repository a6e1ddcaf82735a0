/* SPDX-License-Identifier: Apache-2.0 */
/* The engines of a node.  Loop thread. */
#ifndef PD_NODE_ENGINES_H
#define PD_NODE_ENGINES_H

#include <pdplane/node.h>
#include <pdplane/peer.h>

#include "conf/conf.h"
#include "kv/kv.h"
#include "node/sections.h"

#define PD_NODE_ENGINES_MAX PD_PEER_MAX_ENGINES

struct pd_node_engine_unit {
    struct pd_node_engine e;            /* what roles see */
    const struct pd_node_engine_conf *conf; /* what it was made from */
    struct pd_conf *from;               /* keeps conf and the options behind it */
    struct pd_log *log;
    struct pd_kv_region *region;        /* NULL: not in the KV plane */
    uint32_t serial;                    /* another one for each engine that is made */
    uint32_t leases, transfers;         /* that kept it from ending, when last looked at */
    char model[128];
    void (*closed)(void *arg);
    void *closed_arg;
};

/* Makes the engine; its blocks are not in the KV plane yet.  PD_OK, or err says
 * why not and at which place. */
pd_status pd_node_engine_make(struct pd_node *node, const struct pd_node_engine_conf *c,
                              struct pd_conf *conf, struct pd_node_engine_unit **out, struct pd_err *err);
/* Ends and frees it; closed(arg) is the last call.  Its region is gone. */
void pd_node_engine_destroy(struct pd_node_engine_unit *u, void (*closed)(void *arg), void *arg);
/* Whether an engine of this configuration is the same instance: its name, unit
 * and options. */
bool pd_node_engine_is(const struct pd_node_engine_unit *u, const struct pd_node_engine_conf *c);
/* What may change in an engine that stays: the served name and the roles, of
 * which those remain that the node has. */
void pd_node_engine_use(struct pd_node_engine_unit *u, const struct pd_node_engine_conf *c,
                        uint32_t node_roles);
/* How peers see it with these settings. */
void pd_node_engine_describe(const struct pd_node_engine_unit *u, const struct pd_node_engine_conf *c,
                             uint32_t node_roles, struct pd_peer_engine *out);

#endif
