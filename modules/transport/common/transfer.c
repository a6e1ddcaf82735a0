/* SPDX-License-Identifier: Apache-2.0 */
/* One post: its bytes are cut into frames that lanes take in turn; each frame
 * has one answer.  The transfer ends when no frame is without answer and no
 * byte is left to send, be it that all were sent or that it was stopped.
 *
 *   stopped by   terminal status
 *   nothing      OK, all bytes are confirmed by the owner
 *   a refusal    FAILED_FENCED
 *   cancel       CANCELED_FENCED; OK when everything was confirmed anyway
 *   a lost way   FAILED_UNFENCED when WRITE frames are without answer, else
 *                FAILED_FENCED
 *
 * A READ needs no answer to be fenced: this side places the bytes, and stops. */
#include "fabric.h"
#include "link.h"

#include <stdlib.h>
#include <string.h>

static void finish(struct pd_transfer *t, uint32_t terminal)
{
    struct pd_transport_peer *peer = t->peer;

    t->is_done = true;
    t->terminal = terminal;
    pd_timer_stop(&t->delay);
    if (t->is_ready) {
        TAILQ_REMOVE(&peer->ready, t, ready);
        t->is_ready = false;
    }
    TAILQ_REMOVE(&peer->transfers, t, link);
    TAILQ_INSERT_TAIL(&peer->tp->done, t, link);
    pd_xp_wake(peer->tp);
}

static void check_end(struct pd_transfer *t)
{
    bool stopped = t->failed || t->canceled;

    if (t->is_done || t->outstanding != 0 || (!stopped && t->sent < t->segs->total))
        return;
    if (t->failed)
        finish(t, PD_TRANSFER_FAILED_FENCED);
    else if (t->acked == t->segs->total)
        finish(t, PD_TRANSFER_OK);
    else
        finish(t, PD_TRANSFER_CANCELED_FENCED);
}

/* Lanes forget a READ; what still comes for it is drained. */
static void unhand_reads(struct pd_transfer *t)
{
    struct pd_transport_peer *peer = t->peer;

    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct pd_xp_lane *lane = peer->lanes[i];
        if (lane == NULL)
            continue;
        for (uint32_t k = 0; k < lane->reads_n; k++) {
            struct pd_xp_sent *s = &lane->reads[(lane->reads_head + k) % PD_XP_MAX_READS];
            if (s->transfer == t)
                s->transfer = NULL;
        }
        if (lane->in.transfer == t) {
            lane->in.transfer = NULL;
            lane->in.sink = PD_XP_SINK_DRAIN;
        }
    }
    t->outstanding = 0;
}

void pd_xp_transfer_stop(struct pd_transfer *t)
{
    if (t->is_ready) {
        TAILQ_REMOVE(&t->peer->ready, t, ready);
        t->is_ready = false;
    }
    pd_timer_stop(&t->delay);
    if (t->op == PD_TRANSPORT_READ)
        unhand_reads(t);
    check_end(t);
}

void pd_xp_transfer_answer(struct pd_transfer *t, uint32_t bytes, pd_status status)
{
    t->outstanding--;
    if (status == PD_OK) {
        t->acked += bytes;
        check_end(t);
        return;
    }
    t->failed = true;
    pd_xp_transfer_stop(t);
}

void pd_xp_transfer_lost(struct pd_transfer *t)
{
    bool open = t->op == PD_TRANSPORT_WRITE && t->outstanding > 0;

    finish(t, open ? PD_TRANSFER_FAILED_UNFENCED : PD_TRANSFER_FAILED_FENCED);
}

void pd_xp_cancel(struct pd_transfer *t)
{
    if (t->is_done || t->canceled)
        return;
    t->canceled = true;
    pd_xp_transfer_stop(t);
}

static void become_ready(struct pd_transfer *t)
{
    struct pd_transport_peer *peer = t->peer;

    t->is_ready = true;
    TAILQ_INSERT_TAIL(&peer->ready, t, ready);
    for (uint32_t i = 0; i < peer->n_lanes; i++)
        if (peer->lanes[i] != NULL)
            pd_xp_lane_kick(peer->lanes[i]);
}

static void on_delay(struct pd_timer *timer, void *arg)
{
    (void)timer;
    become_ready(arg);
}

static pd_status check_post(const struct pd_transport_target *target, const struct pd_post *post)
{
    const struct pd_transport_peer *peer = target->peer;

    if (peer == NULL || peer->state >= PD_XP_PEER_ENDING)
        return PD_ESTALE;
    if (post->op != target->grant.access)
        return PD_EPERM;
    if (post->n_segments > PD_XP_MAX_SEGMENTS)
        return PD_ELIMIT;
    return PD_OK;
}

pd_status pd_xp_post(struct pd_transport_target *target, const struct pd_post *post,
                     struct pd_transfer **out)
{
    struct pd_transport_peer *peer = target->peer;
    const struct pd_xp_hooks *hooks = target->tp->conf.hooks;
    struct pd_transfer *t;
    pd_time delay = 0;
    pd_status st = check_post(target, post);

    if (st != PD_OK)
        return st;
    if (peer->state != PD_XP_PEER_UP || peer->n_transfers >= peer->tp->conf.queue) {
        peer->wants_writable = true;
        return PD_EAGAIN;
    }
    t = calloc(1, sizeof(*t));
    if (t == NULL)
        return PD_ENOMEM;
    st = pd_xp_segs_create(post->memory->base, post->memory->bytes, post->segments,
                           post->n_segments, &t->segs);
    if (st == PD_OK && t->segs->total > PD_XP_MAX_BYTES)
        st = PD_ELIMIT;
    if (st == PD_OK && (t->segs->total > target->grant.bytes ||
                        post->offset > target->grant.bytes - t->segs->total))
        st = PD_EINVAL;
    if (st != PD_OK) {
        free(t->segs);
        free(t);
        return st;
    }
    t->peer = peer;
    t->grant = target->grant;
    t->memory = post->memory;
    t->memory->refs++;
    t->offset = post->offset;
    t->op = post->op;
    t->arg = post->arg;
    pd_timer_init(&t->delay, peer->tp->loop, "transport delay", on_delay, t);
    TAILQ_INSERT_TAIL(&peer->transfers, t, link);
    peer->n_transfers++;
    if (peer->tp->n_posts++ == 0 && peer->tp->conf.fabric != NULL)
        peer->tp->conf.fabric->ops->poke(peer->tp->conf.fabric);
    peer->tp->stats.posts++;
    if (hooks != NULL && hooks->delay != NULL)
        delay = hooks->delay(hooks->arg);
    if (delay > 0)
        pd_timer_start(&t->delay, delay);
    else
        become_ready(t);
    *out = t;
    return PD_OK;
}

static void count(struct pd_transport *tp, const struct pd_transfer *t)
{
    if (t->terminal == PD_TRANSFER_OK)
        tp->stats.done_ok++;
    else if (t->terminal == PD_TRANSFER_CANCELED_FENCED)
        tp->stats.done_canceled++;
    else
        tp->stats.done_failed++;
    if (t->op == PD_TRANSPORT_WRITE)
        tp->stats.bytes_out += t->acked;
    else
        tp->stats.bytes_in += t->acked;
}

void pd_xp_transfer_tell(struct pd_transport *tp)
{
    struct pd_transfer *t;

    while ((t = TAILQ_FIRST(&tp->done)) != NULL) {
        struct pd_transport_peer *peer = t->peer;
        TAILQ_REMOVE(&tp->done, t, link);
        t->memory->refs--;
        count(tp, t);
        peer->n_transfers--;
        tp->n_posts--;
        if (peer->wants_writable && peer->n_transfers < tp->conf.queue)
            pd_xp_peer_event(peer, PD_XP_EV_WRITABLE);
        if (peer->state == PD_XP_PEER_ENDING)
            pd_xp_peer_ending(peer);
        if (peer->events.on_done != NULL)
            peer->events.on_done(peer, t, t->terminal, t->acked, t->arg);
        free(t->segs);
        free(t);
    }
}
