/* SPDX-License-Identifier: Apache-2.0 */
/* The node as its roles see it: engines, external endpoints, readiness.  Second
 * tier: bound to the exact version of pdplane.  Loop thread. */
#ifndef PDPLANE_NODE_H
#define PDPLANE_NODE_H

#include <pdplane/adapter.h>
#include <pdplane/engine.h>
#include <pdplane/loop.h>
#include <pdplane/scheduler.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_NODE_TABLE "node"
#define PD_NODE_VERSION 1u

struct pd_node;
struct pd_tls;

/* An engine in this process. */
struct pd_node_engine {
    uint32_t size;
    uint32_t roles;            /* PD_ROLE_* it serves */
    const char *name;          /* of the instance */
    const char *model;         /* as served */
    const struct pd_engine_ops *ops;
    struct pd_engine *engine;
    struct pd_engine_info info;
};

/* A server behind an adapter.  It stays as it is until it is removed; then
 * nothing of it may be used any more. */
struct pd_node_endpoint {
    uint32_t size;
    uint32_t roles;            /* PD_ROLE_* */
    uint32_t weight;
    uint32_t reserved;
    const char *name;
    const char *host;          /* name or numeric address */
    const char *authority;     /* for the Host header, "10.0.0.1:8000" */
    uint16_t port;
    uint16_t reserved2[3];
    const char *const *models; /* ended by NULL; NULL: whatever the server lists */
    const struct pd_adapter_ops *ops;
    struct pd_adapter *adapter;
    struct pd_tls *tls;        /* for calls; NULL: plain */
    uint64_t epoch;            /* another one is another server at the same place; 0 unknown */
};

/* Endpoints come and go while a node runs.  One that changes is added in its new
 * form before the old one is removed, both with the same name. */
struct pd_node_endpoint_events {
    uint32_t size;
    uint32_t reserved;
    /* PD_OK, or why it cannot be used: nobody has it then. */
    pd_status (*added)(const struct pd_node_endpoint *endpoint, void *arg);
    /* No new work for it; calls that run may go on. */
    void (*removed)(const struct pd_node_endpoint *endpoint, void *arg);
    /* The same, but it may come back (false).  May be NULL. */
    void (*rests)(const struct pd_node_endpoint *endpoint, bool is_resting, void *arg);
};

struct pd_node_endpoint_watch; /* a registration */
struct pd_node_generation; /* a configuration, whole and immutable */

struct pd_node_api {
    uint32_t size;
    uint32_t version;          /* PD_NODE_VERSION */

    const char *(*name)(struct pd_node *node);
    /* The index-th engine; NULL at the end. */
    const struct pd_node_engine *(*engine_at)(struct pd_node *node, uint32_t index);
    /* By instance name; NULL when there is none. */
    const struct pd_node_engine *(*engine_find)(struct pd_node *node, struct pd_str name);
    /* The index-th endpoint there is now; NULL at the end. */
    const struct pd_node_endpoint *(*endpoint_at)(struct pd_node *node, uint32_t index);
    /* Says whether `part` (a role's name, literal) can do its work; /ready is
     * 200 when all parts that ever spoke can.  reason: one sentence, copied. */
    void (*ready)(struct pd_node *node, const char *part, bool is_ready, const char *reason);
    /* Tells of endpoints that come and go from now on; does not repeat what is
     * there.  events is borrowed.  PD_OK, PD_ENOMEM.  Gives: endpoint_unwatch. */
    pd_status (*endpoint_watch)(struct pd_node *node, const struct pd_node_endpoint_events *events,
                                void *arg, struct pd_node_endpoint_watch **out);
    void (*endpoint_unwatch)(struct pd_node_endpoint_watch *watch);
    /* Every request holds the generation in force when it began, from its begin
     * to its end: options and engines of then are there as long.  Gives:
     * generation_release. */
    struct pd_node_generation *(*generation_hold)(struct pd_node *node);
    void (*generation_release)(struct pd_node_generation *generation);
};

#ifdef __cplusplus
}
#endif
#endif
