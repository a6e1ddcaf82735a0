/* SPDX-License-Identifier: Apache-2.0 */
/* The lease table.  Every pair of state and event has its answer in one table;
 * nothing else changes a state. */
#include "kv/lease.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"

#define STAY 100    /* PD_OK, state as it is */
#define LATE 101    /* PD_ESTALE, counted */
#define BUSY 102    /* PD_EBUSY: not fenced, may not be released */

static const uint8_t table[PD_LEASE_STATES][PD_LEASE_EVENTS] = {
    [PD_LEASE_ACTIVE] = {
        [PD_LEASE_RENEW] = STAY, [PD_LEASE_SETTLE] = PD_LEASE_SETTLING,
        [PD_LEASE_EXPIRE] = PD_LEASE_EXPIRED, [PD_LEASE_ABORT] = PD_LEASE_FENCING,
        /* The windows closed by themselves, say because the transport went away. */
        [PD_LEASE_FENCE] = PD_LEASE_FENCED, [PD_LEASE_RELEASE] = BUSY },
    [PD_LEASE_SETTLING] = {
        [PD_LEASE_RENEW] = STAY, [PD_LEASE_SETTLE] = STAY,
        [PD_LEASE_EXPIRE] = PD_LEASE_EXPIRED, [PD_LEASE_ABORT] = PD_LEASE_FENCING,
        [PD_LEASE_FENCE] = PD_LEASE_VERIFYING, [PD_LEASE_RELEASE] = BUSY },
    [PD_LEASE_VERIFYING] = {
        [PD_LEASE_RENEW] = STAY, [PD_LEASE_SETTLE] = STAY,
        [PD_LEASE_EXPIRE] = STAY, [PD_LEASE_ABORT] = PD_LEASE_FENCED,
        [PD_LEASE_FENCE] = STAY, [PD_LEASE_RELEASE] = PD_LEASE_RELEASED },
    [PD_LEASE_EXPIRED] = {
        [PD_LEASE_RENEW] = LATE, [PD_LEASE_SETTLE] = LATE,
        [PD_LEASE_EXPIRE] = STAY, [PD_LEASE_ABORT] = STAY,
        [PD_LEASE_FENCE] = PD_LEASE_FENCED, [PD_LEASE_RELEASE] = BUSY },
    [PD_LEASE_FENCING] = {
        [PD_LEASE_RENEW] = LATE, [PD_LEASE_SETTLE] = LATE,
        [PD_LEASE_EXPIRE] = STAY, [PD_LEASE_ABORT] = STAY,
        [PD_LEASE_FENCE] = PD_LEASE_FENCED, [PD_LEASE_RELEASE] = BUSY },
    [PD_LEASE_FENCED] = {
        [PD_LEASE_RENEW] = LATE, [PD_LEASE_SETTLE] = LATE,
        [PD_LEASE_EXPIRE] = STAY, [PD_LEASE_ABORT] = STAY,
        [PD_LEASE_FENCE] = STAY, [PD_LEASE_RELEASE] = PD_LEASE_RELEASED },
    [PD_LEASE_RELEASED] = {
        [PD_LEASE_RENEW] = LATE, [PD_LEASE_SETTLE] = LATE,
        [PD_LEASE_EXPIRE] = STAY, [PD_LEASE_ABORT] = LATE,
        [PD_LEASE_FENCE] = STAY, [PD_LEASE_RELEASE] = LATE },
};

const char *pd_lease_state_text(enum pd_lease_state state)
{
    static const char *const text[PD_LEASE_STATES] = {
        "active", "settling", "verifying", "expired", "fencing", "fenced", "released",
    };
    return text[state];
}

int pd_lease_next(enum pd_lease_state state, enum pd_lease_event event, pd_status *status)
{
    uint8_t next = table[state][event];
    *status = next == LATE ? PD_ESTALE : next == BUSY ? PD_EBUSY : PD_OK;
    return next < PD_LEASE_STATES ? (int)next : -1;
}

void pd_leases_init(struct pd_leases *t, struct pd_loop *loop, struct pd_metrics *metrics,
                    uint32_t max)
{
    memset(t, 0, sizeof *t);
    t->loop = loop;
    t->max = max;
    pd_idmap_init(&t->by_xid, 2 * (size_t)max, pd_loop_random_u64(loop));
    pd_list_init(&t->live);
    pd_list_init(&t->tombs);
    if (metrics != NULL) {
        t->metric_live = pd_metrics_simple_gauge(metrics, "pdplane_kv_leases",
                                                 "KV leases in force.");
        t->metric_expired = pd_metrics_simple_counter(metrics, "pdplane_kv_lease_expired_total",
                                                      "KV leases whose holder was silent for too long.");
    }
}

static void tomb_free(struct pd_lease *lease)
{
    pd_timer_stop(&lease->timer);
    pd_list_remove(&lease->node);
    pd_idmap_remove(&lease->leases->by_xid, lease->xid);
    lease->leases->n_tombs--;
    pd_free(lease);
}

void pd_leases_fini(struct pd_leases *t)
{
    pd_assert(t->n_live == 0);
    while (t->n_tombs > 0)
        tomb_free(PD_LIST_ENTRY(t->tombs.next, struct pd_lease, node));
    pd_idmap_fini(&t->by_xid);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct pd_lease *lease = (struct pd_lease *)arg;
    (void)timer;
    if (lease->state == PD_LEASE_RELEASED) {
        tomb_free(lease);
        return;
    }
    enum pd_lease_state before = lease->state;
    (void)pd_lease_step(lease, PD_LEASE_EXPIRE, 0);
    if (lease->state == PD_LEASE_EXPIRED && before != PD_LEASE_EXPIRED && lease->on_expired != NULL)
        lease->on_expired(lease, lease->arg);
}

pd_status pd_lease_grant(struct pd_leases *t, const struct pd_node_id *holder,
                         const char *holder_name,
                         pd_time ttl, uint32_t blocks, pd_lease_expired on_expired, void *arg,
                         struct pd_lease **out)
{
    if (t->n_live >= t->max) {
        t->refused++;
        return PD_ELIMIT;
    }
    struct pd_lease *lease = (struct pd_lease *)pd_calloc(1, sizeof *lease);
    if (lease == NULL)
        return PD_ENOMEM;
    do
        lease->xid = pd_loop_random_u64(t->loop);
    while (lease->xid == 0 || pd_idmap_get(&t->by_xid, lease->xid) != NULL);
    pd_status st = pd_idmap_add(&t->by_xid, lease->xid, lease);
    if (st != PD_OK) {
        pd_free(lease);
        return st;
    }
    lease->leases = t;
    lease->generation = ++t->generation;
    lease->state = PD_LEASE_ACTIVE;
    lease->holder = *holder;
    (void)pd_str_copy(pd_str_from(holder_name), lease->holder_name, sizeof lease->holder_name);
    lease->ttl = ttl;
    lease->granted_at = pd_loop_now(t->loop);
    lease->due = lease->granted_at + ttl;
    lease->blocks = blocks;
    lease->on_expired = on_expired;
    lease->arg = arg;
    pd_timer_init(&lease->timer, t->loop, "kv lease", on_timer, lease);
    pd_timer_start_at(&lease->timer, lease->due);
    pd_list_init(&lease->node);
    pd_list_append(&t->live, &lease->node);
    t->n_live++;
    t->granted++;
    pd_gauge_set(t->metric_live, t->n_live);
    *out = lease;
    return PD_OK;
}

static void make_tomb(struct pd_lease *lease, uint32_t verdict)
{
    struct pd_leases *t = lease->leases;
    lease->verdict = verdict;
    lease->on_expired = NULL;
    lease->arg = NULL;
    lease->due = pd_loop_now(t->loop) + 2 * lease->ttl;
    pd_timer_start_at(&lease->timer, lease->due);
    pd_list_remove(&lease->node);
    pd_list_append(&t->tombs, &lease->node);
    t->n_live--;
    t->n_tombs++;
    pd_gauge_set(t->metric_live, t->n_live);
    /* Room for the live ones comes first. */
    if (t->n_tombs > t->max)
        tomb_free(PD_LIST_ENTRY(t->tombs.next, struct pd_lease, node));
}

pd_status pd_lease_step(struct pd_lease *lease, enum pd_lease_event event, uint32_t verdict)
{
    struct pd_leases *t = lease->leases;
    pd_status st;
    int next = pd_lease_next(lease->state, event, &st);
    if (st == PD_ESTALE)
        t->stale++;
    if (st == PD_OK && event == PD_LEASE_RENEW && lease->state == PD_LEASE_ACTIVE) {
        lease->renewals++;
        lease->due = pd_loop_now(t->loop) + lease->ttl;
        pd_timer_start_at(&lease->timer, lease->due);
    }
    if (next < 0)
        return st;
    lease->state = (enum pd_lease_state)next;
    if (lease->state == PD_LEASE_EXPIRED) {
        t->expired++;
        pd_counter_inc(t->metric_expired);
    } else if (lease->state == PD_LEASE_SETTLING) {
        /* The holder's posts have ended well, so bytes that have not landed are at
         * most a moment behind, or lost. */
        lease->due = pd_loop_now(t->loop) + PD_MIN(lease->ttl, PD_LEASE_LAND);
        pd_timer_start_at(&lease->timer, lease->due);
    } else if (lease->state == PD_LEASE_RELEASED) {
        make_tomb(lease, verdict);
    }
    return PD_OK;
}

uint32_t pd_lease_verdict(const struct pd_leases *t, uint64_t xid)
{
    const struct pd_lease *lease = (const struct pd_lease *)pd_idmap_get(&t->by_xid, xid);
    return lease == NULL || lease->state != PD_LEASE_RELEASED ? 0 : lease->verdict;
}

static void fill_row(const struct pd_lease *lease, pd_time now, struct pd_kv_lease_row *row)
{
    memset(row, 0, sizeof *row);
    row->xid = lease->xid;
    row->generation = lease->generation;
    (void)pd_str_copy(pd_str_from(pd_lease_state_text(lease->state)), row->state,
                      sizeof row->state);
    memcpy(row->holder, lease->holder_name, sizeof row->holder);
    row->left_ns = lease->due > now ? lease->due - now : 0;
    row->age_ns = now - lease->granted_at;
    row->blocks = lease->blocks;
    row->renewals = lease->renewals;
    row->verdict = lease->verdict;
}

uint32_t pd_leases_list(const struct pd_leases *t, struct pd_kv_lease_row *out, uint32_t cap)
{
    pd_time now = pd_loop_now(t->loop);
    uint32_t n = 0;
    PD_LIST_EACH(&t->live, l) {
        if (n < cap)
            fill_row(PD_LIST_ENTRY(l, struct pd_lease, node), now, &out[n]);
        n++;
    }
    for (const struct pd_list *l = t->tombs.prev; l != &t->tombs; l = l->prev) {
        if (n < cap)
            fill_row(PD_LIST_ENTRY(l, struct pd_lease, node), now, &out[n]);
        n++;
    }
    return n;
}
