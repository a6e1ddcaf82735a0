/* SPDX-License-Identifier: Apache-2.0 */
/* The KV plane of a node, for the core.  The rest of its functions, and the
 * struct types, are in <pdplane/kv.h>; pd_kv_table() gives them.
 *
 * Everything here: loop thread. */
#ifndef PD_KV_KV_H
#define PD_KV_KV_H

#include <pdplane/kv.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>

enum {
    PD_KV_DIGESTS_FULL = 0,
    PD_KV_DIGESTS_NONE = 1
};

#define PD_KV_MAX_TRANSPORTS PD_PEER_MAX_TRANSPORTS
#define PD_KV_MAX_REGIONS PD_PEER_MAX_ENGINES
#define PD_KV_LEASE_MIN (10 * PD_MS)  /* a source renews three times in each */

/* What pd_kv_create needs.  Zero numbers stand for the defaults named. */
struct pd_kv_conf {
    struct pd_loop *loop;
    struct pd_log *log;                /* may be NULL */
    struct pd_metrics *metrics;        /* may be NULL */
    struct pd_node_id self;
    const struct pd_peer_api *peer_api; /* where peers are looked up: pd_peer_table() */
    struct pd_peers *peers;
    uint32_t digests;                  /* PD_KV_DIGESTS_FULL */
    uint32_t max_handovers;            /* per direction, 4096 */
    pd_time lease_ttl;                 /* 5 s */
    pd_time lease_max;                 /* 60 s: longest ttl that a source believes */
    pd_time connect_timeout;           /* 2 s per transport, then the next one */
    pd_time idle;                      /* 60 s: an unused transport connection is closed */
    uint64_t inflight_bytes;           /* per hand-over, 32 MiB */
    uint64_t post_bytes;               /* per post, 8 MiB */
    uint32_t history;                  /* ended transfers kept for listing, 256 */
};

/* What hand-overs that begin from here on follow. */
struct pd_kv_limits {
    uint32_t digests;
    pd_time lease_ttl, connect_timeout;
    uint64_t inflight_bytes;
};
void pd_kv_set_limits(struct pd_kv *kv, const struct pd_kv_limits *limits);

pd_status pd_kv_create(const struct pd_kv_conf *conf, struct pd_kv **out, struct pd_err *err);
/* Aborts everything, closes every connection, removes regions from transports;
 * on_closed is the last callback.  The transports are destroyed by their owner
 * afterwards. */
void pd_kv_destroy(struct pd_kv *kv, void (*on_closed)(void *arg), void *arg);

/* Adds a transport instance, in order of preference; before any region.  ops,
 * instance and name must outlive the plane.  PD_OK, PD_ELIMIT, PD_EEXIST. */
pd_status pd_kv_transport_add(struct pd_kv *kv, const char *name,
                              const struct pd_transport_ops *ops,
                              struct pd_transport *instance);
/* What to tell peers: fills up to PD_KV_MAX_TRANSPORTS, returns how many. */
uint32_t pd_kv_transports(struct pd_kv *kv, struct pd_peer_transport *out);

/* Registers the pool of an engine instance with every transport.  A transport
 * that cannot take it is left out, with a warning.  PD_OK or err filled. */
pd_status pd_kv_region_add(struct pd_kv *kv, const char *engine, const struct pd_engine_info *info,
                           struct pd_kv_region **out, struct pd_err *err);
/* No hand-over begins with the region any more: its engine's name is free for
 * another one. */
void pd_kv_region_retire(struct pd_kv *kv, struct pd_kv_region *region);
/* Hand-overs that use the region: leases of its blocks, transfers that read them. */
/* Hand-overs that are open: as the one that leases, and as the one that sends. */
void pd_kv_uses(const struct pd_kv *kv, uint32_t *leases, uint32_t *transfers);
void pd_kv_region_uses(const struct pd_kv *kv, const struct pd_kv_region *region, uint32_t *leases,
                       uint32_t *transfers);
/* Takes the region from every transport.  PD_OK: it is gone; PD_EBUSY: something
 * still uses it, to be tried again. */
pd_status pd_kv_region_remove(struct pd_kv *kv, struct pd_kv_region *region);
/* A peer is gone (down for good or replaced): closes the ways to it. */
void pd_kv_peer_gone(struct pd_kv *kv, const struct pd_node_id *id);

/* The functions of <pdplane/kv.h>. */
const struct pd_kv_api *pd_kv_table(void);

#endif
