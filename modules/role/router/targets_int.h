/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of targets share: targets.c, target_engine.c, target_server.c,
 * target_probe.c.  All on the loop of the node. */
#ifndef PD_ROLE_ROUTER_TARGETS_INT_H
#define PD_ROLE_ROUTER_TARGETS_INT_H

#include <string.h>

#include "router.h"

static inline struct pd_str str_of(const char *s)
{
    return (struct pd_str){ s, strlen(s) };
}

/* ---- targets.c */
/* An empty one in the router's list; NULL: no memory. */
struct target *target_add(struct router *r);
/* Nothing of it may go on. */
void target_free(struct target *t);
/* Drops what was made of the server's address. */
void target_ways_close(struct target *t);
/* Tells the node whether there is somebody to send requests to.  Looks at all endpoints. */
void targets_ready_tell(struct router *r);

/* ---- target_engine.c */
/* The peer is there, or says something else.  True: engines of it were put anew. */
bool target_engines_follow(struct router *r, const struct pd_peer_info *info, uint32_t what);
void target_engines_lost(struct router *r, pd_peer_ref peer);

/* ---- target_server.c */
pd_status target_server_add(struct router *r, const struct pd_node_endpoint *e);
void target_server_remove(struct target *t);
/* Ends what goes on for it. */
void target_server_stop(struct target *t);
/* The target of an endpoint; NULL: it was left out. */
struct target *target_server_find(struct router *r, const struct pd_node_endpoint *e);
/* Puts the endpoint with the models that the configuration or the server names.
 * It is known by name, address and epoch: one whose options change keeps what is known
 * of it, one that moves does not.  A new one takes nothing until its probe has
 * answered. */
pd_status target_server_put(struct target *t, const struct pd_str *models, uint32_t n);

/* ---- target_probe.c */
/* Asks the server, as the callback of its timer. */
void target_probe(struct pd_timer *timer, void *arg);
/* What the last probe, or somebody who knows better, says of it. */
void target_server_state(struct target *t, uint32_t state, const char *why);

#endif
