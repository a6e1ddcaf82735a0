/* SPDX-License-Identifier: Apache-2.0 */
/* The owner's side.  A window is found by its xid; whoever asks must know the
 * generation and the token and be the node it was opened for.
 *
 * Invariant: a window in closing is in no bucket, and no lane stores into it.
 * Bytes that are being written out of a READ window cannot be stopped in the
 * middle of a frame, nor gets that fly, so its close waits for them (`sending`). */
#include "link.h"

#include <stdlib.h>
#include <string.h>

static struct pd_xp_windows *bucket_of(struct pd_transport *tp, uint64_t xid)
{
    uint64_t v = xid * 0x9e3779b97f4a7c15u;

    return &tp->buckets[(v >> 32) % PD_XP_BUCKETS];
}

static struct pd_transport_window *find(struct pd_transport *tp, uint64_t xid)
{
    struct pd_transport_window *w;

    TAILQ_FOREACH(w, bucket_of(tp, xid), bucket)
    if (w->grant.xid == xid)
        return w;
    return NULL;
}

pd_status pd_xp_window_open(struct pd_transport *tp, const struct pd_window_desc *desc,
                            const struct pd_window_events *events, void *arg,
                            struct pd_transport_window **out)
{
    struct pd_transport_window *w;
    pd_status st;

    if (desc->access != PD_TRANSPORT_WRITE && desc->access != PD_TRANSPORT_READ)
        return PD_EINVAL;
    if (desc->access == PD_TRANSPORT_READ && pd_xp_by_name(tp))
        return PD_ENOSYS;
    if (tp->closing)
        return PD_ESTALE;
    if (tp->n_windows >= tp->conf.max_windows)
        return PD_ELIMIT;
    if (find(tp, desc->xid) != NULL)
        return PD_EEXIST;
    w = calloc(1, sizeof(*w));
    if (w == NULL)
        return PD_ENOMEM;
    st = pd_xp_segs_create(desc->memory->base, desc->memory->bytes, desc->segments,
                           desc->n_segments, &w->segs);
    if (st != PD_OK) {
        free(w);
        return st;
    }
    TAILQ_INIT(&w->copies);
    w->tp = tp;
    w->memory = desc->memory;
    w->memory->refs++;
    w->events = *events;
    w->arg = arg;
    w->grant.kind = tp->conf.kind;
    w->grant.access = (uint16_t)desc->access;
    w->grant.owner = tp->self;
    w->grant.peer = desc->peer;
    w->grant.xid = desc->xid;
    w->grant.generation = desc->generation;
    w->grant.bytes = w->segs->total;
    pd_loop_random(tp->loop, w->grant.token, sizeof(w->grant.token));
    pd_xp_ranges_init(&w->ranges, PD_XP_RANGES);
    TAILQ_INSERT_HEAD(bucket_of(tp, desc->xid), w, bucket);
    tp->n_windows++;
    *out = w;
    return PD_OK;
}

pd_status pd_xp_window_export(struct pd_transport_window *w, void *buf, size_t cap, size_t *len)
{
    *len = PD_XP_WINDOW_BLOB_BYTES;
    if (cap < *len)
        return PD_ELIMIT;
    pd_xp_grant_encode(&w->grant, buf);
    return PD_OK;
}

pd_status pd_xp_window_admit(struct pd_transport *tp, const struct pd_xp_head *h,
                             const struct pd_xp_hello *hello)
{
    struct pd_transport_window *w = find(tp, h->xid);
    uint32_t lane = 1u << hello->lane;

    if (w == NULL || w->grant.generation != h->generation ||
        !pd_xp_token_equal(w->grant.token, h->token) ||
        !pd_xp_node_equal(&w->grant.peer, &hello->from))
        return PD_EPERM;
    if (hello->link == 0 || (w->link != 0 && w->link != hello->link) || (w->lanes & lane) != 0)
        return PD_EPERM;
    w->link = hello->link;
    w->lanes |= lane;
    return PD_OK;
}

static void unhand(struct pd_transport_window *w)
{
    struct pd_xp_lane *lane;

    TAILQ_FOREACH(lane, &w->tp->accepted, link)
    {
        if (lane->in.window == w) {
            lane->in.window = NULL;
            lane->in.sink = lane->in.sink == PD_XP_SINK_SMALL ? PD_XP_SINK_SMALL : PD_XP_SINK_DRAIN;
            lane->in.verdict = PD_ESTALE;
            w->tp->stats.dropped_stale++;
        }
        for (uint32_t i = 0; i < lane->asked_n; i++) {
            struct pd_xp_asked *a = &lane->asked[(lane->asked_head + i) % PD_XP_MAX_READS];
            if (a->window == w) {
                a->window = NULL;
                a->status = PD_ESTALE;
                w->tp->stats.dropped_stale++;
            }
        }
    }
}

static void closed(struct pd_transport_window *w)
{
    TAILQ_INSERT_TAIL(&w->tp->closed, w, event);
    pd_xp_wake(w->tp);
}

void pd_xp_window_close(struct pd_transport_window *w)
{
    if (w->closing)
        return;
    w->closing = true;
    TAILQ_REMOVE(bucket_of(w->tp, w->grant.xid), w, bucket);
    unhand(w);
    pd_xp_far_unhand(w);
    if (w->has_landed) {
        TAILQ_REMOVE(&w->tp->landed, w, event);
        w->has_landed = false;
    }
    if (w->sending == 0)
        closed(w);
}

void pd_xp_window_unsend(struct pd_transport_window *w)
{
    if (--w->sending == 0 && w->closing)
        closed(w);
}

pd_status pd_xp_window_find(struct pd_xp_lane *lane, const struct pd_xp_head *h, uint32_t access,
                            uint64_t len, struct pd_transport_window **out)
{
    struct pd_transport *tp = lane->tp;
    struct pd_transport_window *w = find(tp, h->xid);

    if (w == NULL || w->grant.generation != h->generation ||
        !pd_xp_node_equal(&w->grant.peer, &lane->remote)) {
        tp->stats.dropped_stale++;
        return PD_ESTALE;
    }
    if (!pd_xp_token_equal(w->grant.token, h->token) || w->grant.access != access) {
        tp->stats.dropped_stale++;
        return PD_EPERM;
    }
    if (len == 0 || len > w->grant.bytes || h->offset > w->grant.bytes - len) {
        tp->stats.dropped_bounds++;
        return PD_EINVAL;
    }
    *out = w;
    return PD_OK;
}

pd_status pd_xp_window_touch(struct pd_transport_window *w, uint64_t from, uint64_t len)
{
    if (!pd_xp_ranges_touch(&w->ranges, from, from + len))
        return PD_OK;
    return pd_xp_ranges_remove(&w->ranges, from, from + len);
}

pd_status pd_xp_window_landed(struct pd_transport_window *w, uint64_t from, uint64_t len)
{
    pd_status st;

    if (len == 0)
        return PD_OK;
    st = pd_xp_ranges_add(&w->ranges, from, from + len);
    if (st != PD_OK)
        return st;
    w->tp->stats.bytes_in += len;
    if (!w->has_landed) {
        w->has_landed = true;
        TAILQ_INSERT_TAIL(&w->tp->landed, w, event);
        pd_xp_wake(w->tp);
    }
    return PD_OK;
}

uint8_t *pd_xp_window_at(struct pd_transport_window *w, uint64_t offset)
{
    struct pd_iov iov;
    uint64_t covered;

    if (offset >= w->segs->total)
        return NULL;
    pd_xp_segs_iov(w->segs, offset, 1, &iov, 1, &covered);
    return iov.base;
}

void pd_xp_window_tell(struct pd_transport *tp)
{
    struct pd_transport_window *w;

    while ((w = TAILQ_FIRST(&tp->landed)) != NULL) {
        TAILQ_REMOVE(&tp->landed, w, event);
        w->has_landed = false;
        if (w->events.on_bytes != NULL)
            w->events.on_bytes(w, w->ranges.total, w->arg);
    }
    while ((w = TAILQ_FIRST(&tp->closed)) != NULL) {
        struct pd_window_events events = w->events;
        TAILQ_REMOVE(&tp->closed, w, event);
        w->memory->refs--;
        tp->n_windows--;
        if (events.on_closed != NULL)
            events.on_closed(w, w->arg);
        pd_xp_ranges_fini(&w->ranges);
        free(w->segs);
        free(w);
    }
}
