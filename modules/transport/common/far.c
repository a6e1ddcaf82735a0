/* SPDX-License-Identifier: Apache-2.0 */
/* The far end of an accepted lane over a fabric: from WHERE to the last get, the memories
 * that it has named, and the turns in which all of them go on.
 *
 * Invariant: a far is freed when its lane and its way are gone and nothing flies or waits
 * for an answer; only pd_xp_far_run frees it. */
#include "far_int.h"

#include <stdlib.h>
#include <string.h>

void pd_xp_far_soon(struct pd_transport *tp)
{
    tp->fars_run = true;
    pd_xp_wake(tp);
}

struct pd_xp_far_memory *pd_xp_far_find(struct pd_xp_far *far, uint32_t id)
{
    for (uint32_t i = 0; i < PD_XP_MAX_MAPS; i++)
        if (far->memories[i].id == id)
            return &far->memories[i];
    return NULL;
}

/* ---- frames */

void pd_xp_far_where(struct pd_xp_lane *lane, const struct pd_xp_head *h)
{
    struct pd_transport *tp = lane->tp;
    struct pd_addr host;
    struct pd_xp_far *far;
    pd_status st;

    if (lane->far != NULL) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    far = calloc(1, sizeof(*far));
    if (far == NULL) {
        pd_xp_lane_fail(lane, PD_ENOMEM);
        return;
    }
    far->tp = tp;
    far->lane = lane;
    TAILQ_INIT(&far->copies);
    TAILQ_INIT(&far->spare);
    st = pd_xp_far_begin_probe(far, h);
    if (st == PD_OK)
        st = pd_stream_peer_addr(lane->stream, &host);
    if (st == PD_OK)
        st = pd_xp_far_ops(tp)->way_open(tp->conf.fabric, lane->small_in, h->offset, &host, far,
                                         &far->way);
    if (st != PD_OK) {
        free(far->probe);
        free(far);
        pd_log_warn(tp->log, "a peer cannot be reached over the fabric, status %d", (int)st);
        pd_xp_lane_fail(lane, st);
        return;
    }
    lane->far = far;
    TAILQ_INSERT_TAIL(&tp->fars, far, link);
    tp->n_fars++;
    st = pd_xp_far_ops(tp)->key_open(far->way, lane->small_in + h->offset, h->length - h->offset,
                                     PD_XP_BEACON, &far->beacon);
    if (st != PD_OK)
        pd_xp_lane_fail(lane, st);
    else
        pd_xp_far_soon(tp);
}

void pd_xp_far_memory(struct pd_xp_lane *lane, const struct pd_xp_head *h)
{
    struct pd_xp_far *far = lane->far;
    struct pd_xp_far_memory *m = far == NULL ? NULL : pd_xp_far_find(far, 0);
    pd_status st;

    if (m == NULL || h->id == 0 || h->xid == 0 || pd_xp_far_find(far, h->id) != NULL) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    st = pd_xp_far_ops(lane->tp)->key_open(far->way, lane->small_in, h->length, h->xid, &m->key);
    if (st != PD_OK) {
        pd_log_warn(lane->tp->log, "refused the memory of a peer, status %d", (int)st);
        pd_xp_lane_fail(lane, st);
        return;
    }
    m->id = h->id;
    m->bytes = h->xid;
}

void pd_xp_far_forget(struct pd_xp_lane *lane, uint32_t id)
{
    struct pd_xp_far *far = lane->far;
    struct pd_xp_far_memory *m = far == NULL || id == 0 ? NULL : pd_xp_far_find(far, id);
    struct pd_xp_copy *c;

    if (m == NULL)
        return;
    TAILQ_FOREACH(c, &far->copies, link)
    {
        if (c->state != PD_XP_COPY_DONE && pd_xp_copy_memory(c) == id) {
            pd_xp_lane_fail(lane, PD_EPROTO);
            return;
        }
    }
    pd_xp_far_ops(lane->tp)->key_close(m->key);
    memset(m, 0, sizeof(*m));
}

static void free_far(struct pd_xp_far *far)
{
    struct pd_transport *tp = far->tp;
    struct pd_xp_copy *c;

    for (uint32_t i = 0; i < PD_XP_MAX_MAPS; i++)
        if (far->memories[i].id != 0)
            pd_xp_far_ops(tp)->key_close(far->memories[i].key);
    if (far->beacon != NULL)
        pd_xp_far_ops(tp)->key_close(far->beacon);
    free(far->probe);
    while ((c = TAILQ_FIRST(&far->spare)) != NULL) {
        TAILQ_REMOVE(&far->spare, c, link);
        free(c);
    }
    TAILQ_REMOVE(&tp->fars, far, link);
    tp->n_fars--;
    free(far);
    pd_xp_wake(tp);
}

void pd_xp_far_run(struct pd_transport *tp)
{
    struct pd_xp_far *far, *next;
    bool more = true;

    if (!tp->fars_run)
        return;
    tp->fars_run = false;
    /* Whoever was first is last the next time. */
    far = TAILQ_FIRST(&tp->fars);
    if (far != NULL && TAILQ_NEXT(far, link) != NULL) {
        TAILQ_REMOVE(&tp->fars, far, link);
        TAILQ_INSERT_TAIL(&tp->fars, far, link);
    }
    for (far = TAILQ_FIRST(&tp->fars); far != NULL; far = next) {
        next = TAILQ_NEXT(far, link);
        if (far->broken != PD_OK && far->lane != NULL)
            pd_xp_lane_fail(far->lane, far->broken);
        if (far->lane != NULL)
            pd_xp_far_greet(far);
        if (far->lane != NULL && more)
            more = pd_xp_copies_run(far);
        else
            pd_xp_copies_answer(far);
        if (far->way == NULL && far->flying == 0 && TAILQ_EMPTY(&far->copies))
            free_far(far);
    }
}

/* ---- from the fabric */

void pd_xp_far_got(void *get, pd_status status)
{
    struct pd_xp_copy *c = get;
    struct pd_xp_far *far = c->far;

    c->flying--;
    far->flying--;
    far->tp->flying--;
    far->last_got = pd_loop_now(far->tp->loop);
    if (status != PD_OK) {
        if (c->verdict == PD_OK)
            c->verdict = status;
        pd_xp_far_broken(far, status);
    }
    if (c->state == PD_XP_COPY_PROBES)
        far->is_read = status == PD_OK;
    else if (pd_xp_copy_has_ended(c))
        pd_xp_copy_end(c);
    pd_xp_far_soon(far->tp);
}

void pd_xp_far_room(struct pd_transport *tp)
{
    pd_xp_far_soon(tp);
}

void pd_xp_far_broken(struct pd_xp_far *far, pd_status status)
{
    if (far->broken == PD_OK)
        far->broken = status;
    pd_xp_far_soon(far->tp);
}

void pd_xp_far_closed(struct pd_xp_far *far)
{
    far->way = NULL;
    pd_xp_far_soon(far->tp);
}

bool pd_xp_far_is_busy(const struct pd_transport *tp)
{
    const struct pd_transport_peer *peer;

    if (tp->flying > 0 || tp->n_posts > 0)
        return true;
    TAILQ_FOREACH(peer, &tp->peers, link)
    if (peer->state == PD_XP_PEER_CONNECTING)
        return true;
    return false;
}

/* ---- ends */

void pd_xp_far_leave(struct pd_xp_lane *lane)
{
    struct pd_xp_far *far = lane->far;
    struct pd_xp_copy *c;

    if (far == NULL)
        return;
    lane->far = NULL;
    far->lane = NULL;
    TAILQ_FOREACH(c, &far->copies, link)
    {
        pd_xp_copy_stop(c, PD_EPEER);
        if (c->state == PD_XP_COPY_RUNS && pd_xp_copy_has_ended(c))
            pd_xp_copy_end(c);
    }
    pd_xp_far_ops(far->tp)->way_close(far->way);
    pd_xp_far_soon(far->tp);
}

bool pd_xp_far_moves(const struct pd_xp_lane *lane, pd_time now, pd_time patience)
{
    return lane->far == NULL || lane->far->flying == 0 || now - lane->far->last_got <= patience;
}
