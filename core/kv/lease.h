/* SPDX-License-Identifier: Apache-2.0 */
/* Leases of an owner on its own clock: the right of one peer to write into a
 * set of blocks for a time.
 *
 *   ACTIVE     the holder may write; each renewal begins the time anew
 *   SETTLING   the holder said that it is done; what has not landed has a moment
 *              to do so, then the fence is closed
 *   VERIFYING  fenced; digests are compared
 *   EXPIRED    the time ran out; the fence is being closed
 *   FENCING    aborted; the fence is being closed
 *   FENCED     nothing can write any more
 *   RELEASED   a tombstone: xid and verdict, kept for two times the ttl
 *
 * Blocks are free only in RELEASED, and there is no way to it but through
 * VERIFYING or FENCED.  Loop thread. */
#ifndef PD_KV_LEASE_H
#define PD_KV_LEASE_H

#include "base/list.h"
#include "base/map.h"

#include <pdplane/kv.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>

#define PD_LEASE_LAND PD_SEC        /* most that a done transfer may take to land */

enum pd_lease_state {
    PD_LEASE_ACTIVE,
    PD_LEASE_SETTLING,
    PD_LEASE_VERIFYING,
    PD_LEASE_EXPIRED,
    PD_LEASE_FENCING,
    PD_LEASE_FENCED,
    PD_LEASE_RELEASED,
    PD_LEASE_STATES
};

enum pd_lease_event {
    PD_LEASE_RENEW,             /* sign of life of the holder */
    PD_LEASE_SETTLE,            /* the holder says it is done */
    PD_LEASE_EXPIRE,            /* the time ran out */
    PD_LEASE_ABORT,             /* the owner or the holder gave up */
    PD_LEASE_FENCE,             /* nothing can write any more */
    PD_LEASE_RELEASE,           /* the verdict is known */
    PD_LEASE_EVENTS
};

struct pd_lease;
/* The lease ran out: it is EXPIRED now; the owner closes the fence. */
typedef void (*pd_lease_expired)(struct pd_lease *lease, void *arg);

struct pd_leases {
    struct pd_loop *loop;
    struct pd_idmap by_xid;     /* tombstones included */
    struct pd_list live;        /* oldest first */
    struct pd_list tombs;       /* oldest first */
    uint32_t n_live;
    uint32_t n_tombs;
    uint32_t max;               /* of each */
    uint64_t generation;        /* the last one given */
    uint64_t granted;
    uint64_t expired;
    uint64_t stale;             /* events that came too late */
    uint64_t refused;           /* at the limit */
    struct pd_gauge *metric_live;
    struct pd_counter *metric_expired;
};

struct pd_lease {
    struct pd_list node;
    struct pd_leases *leases;
    uint64_t xid;
    uint64_t generation;
    enum pd_lease_state state;
    struct pd_node_id holder;
    char holder_name[64];
    pd_time ttl;
    pd_time granted_at;
    pd_time due;                /* runs out, or tombstone goes */
    uint32_t blocks;
    uint32_t renewals;
    uint32_t verdict;
    struct pd_timer timer;
    pd_lease_expired on_expired;
    void *arg;
};

void pd_leases_init(struct pd_leases *t, struct pd_loop *loop, struct pd_metrics *metrics,
                    uint32_t max);
/* No lease may be live. */
void pd_leases_fini(struct pd_leases *t);
/* A new lease with a random xid and the next generation.  PD_OK, PD_ELIMIT,
 * PD_ENOMEM.  Borrowed until RELEASED; then the table keeps the tombstone. */
pd_status pd_lease_grant(struct pd_leases *t, const struct pd_node_id *holder,
                         const char *holder_name,
                         pd_time ttl, uint32_t blocks, pd_lease_expired on_expired, void *arg,
                         struct pd_lease **out);
/* What the table says: the next state, or -1 with *status the answer (PD_OK:
 * nothing to do; PD_ESTALE: too late; PD_EBUSY: not fenced).  Pure. */
int pd_lease_next(enum pd_lease_state state, enum pd_lease_event event, pd_status *status);
/* Makes the step.  PD_OK; PD_ESTALE; PD_EBUSY.  For RELEASE, verdict is PD_KV_*. */
pd_status pd_lease_step(struct pd_lease *lease, enum pd_lease_event event, uint32_t verdict);
/* The verdict of a released lease; 0: unknown or live. */
uint32_t pd_lease_verdict(const struct pd_leases *t, uint64_t xid);
const char *pd_lease_state_text(enum pd_lease_state state);
/* Live ones first, then tombstones, latest first; returns how many there are. */
uint32_t pd_leases_list(const struct pd_leases *t, struct pd_kv_lease_row *out, uint32_t cap);

#endif
