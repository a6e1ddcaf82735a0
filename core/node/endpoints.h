/* SPDX-License-Identifier: Apache-2.0 */
/* The servers outside of pdplane that a node knows: from its configuration, and
 * from whoever finds some while the node runs (a source).  They come and go one
 * by one or as whole sets; a role that watches them is told.  Loop thread. */
#ifndef PD_NODE_ENDPOINTS_H
#define PD_NODE_ENDPOINTS_H

#include <pdplane/node.h>

#include "base/list.h"
#include "base/map.h"
#include "conf/conf.h"
#include "node/sections.h"

#define PD_NODE_ENDPOINTS_MAX 16384u

struct pd_node_server;

/* Part of struct pd_node. */
struct pd_node_servers {
    struct pd_strmap by_name;
    struct pd_node_server **all;        /* in the order of coming */
    uint32_t n, cap;
    uint64_t round;                     /* number of the last change of a set */
    struct pd_list watches;
};

void pd_node_endpoints_init(struct pd_node *node);
/* Tells nobody: those who watched are gone. */
void pd_node_endpoints_free(struct pd_node *node);

/* Adds one endpoint.  c and its strings are copied; what its unit and tls point
 * to is of `conf`, of which a reference is kept as long as the endpoint is
 * there.  source: whose it is, NULL: the configuration's.  PD_OK; PD_EEXIST: the
 * name is taken; or err says why not and nothing has changed. */
pd_status pd_node_endpoint_add(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                               struct pd_conf *conf, const void *source, struct pd_err *err);
/* Takes one away: what was sent to it goes on, nothing more is sent.  PD_OK;
 * PD_ENOENT: the source has none of that name. */
pd_status pd_node_endpoint_remove(struct pd_node *node, struct pd_str name, const void *source);

/* Gives one a new form: what was sent to it goes on, and what is known of it
 * stays known as long as its address does.  PD_OK; PD_ENOENT: the source has
 * none of that name; or err says why not and nothing has changed. */
pd_status pd_node_endpoint_change(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                                  struct pd_conf *conf, const void *source, struct pd_err *err);
/* It gets no new work until the call with false.  PD_OK, PD_ENOENT. */
pd_status pd_node_endpoint_rest(struct pd_node *node, struct pd_str name, const void *source,
                                bool is_resting);

/* Those of one source are another's from here on. */
void pd_node_endpoints_pass(struct pd_node *node, const void *from, const void *to);
/* A set of endpoints on its way to replace all those of a source: what is equal
 * stays as it is, what has changed is made anew. */
struct pd_node_endpoints_change;

/* Makes what is new, and tells those who watch.  PD_OK; otherwise err says why
 * and nothing has changed.  Gives: commit or abort, before anything else changes
 * the endpoints. */
pd_status pd_node_endpoints_prepare(struct pd_node *node, const struct pd_node_endpoint_conf *list,
                                    size_t n, struct pd_conf *conf, const void *source,
                                    struct pd_node_endpoints_change **out, struct pd_err *err);
/* Takes away what is not in the set.  Cannot fail. */
void pd_node_endpoints_commit(struct pd_node *node, struct pd_node_endpoints_change *change);
void pd_node_endpoints_abort(struct pd_node *node, struct pd_node_endpoints_change *change);
/* Both in one step.  An empty list takes all of the source away. */
pd_status pd_node_endpoints_set(struct pd_node *node, const struct pd_node_endpoint_conf *list, size_t n,
                                struct pd_conf *conf, const void *source, struct pd_err *err);

/* For struct pd_node_api. */
const struct pd_node_endpoint *pd_node_endpoint_at(struct pd_node *node, uint32_t index);
pd_status pd_node_endpoint_watch(struct pd_node *node, const struct pd_node_endpoint_events *events,
                                 void *arg, struct pd_node_endpoint_watch **out);
void pd_node_endpoint_unwatch(struct pd_node_endpoint_watch *watch);

#endif
