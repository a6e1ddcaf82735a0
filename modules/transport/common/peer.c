/* SPDX-License-Identifier: Apache-2.0 */
/* The way to a node: connecting lanes, ending them, and telling the user.
 *
 *   CONNECTING --all lanes greeted--> UP --disconnect--> ENDING --> DOWN --> gone
 *        \------- any lane lost -------\--------------------\------^
 *
 * A peer is down as a whole: when one lane is lost, so are the others.  DOWN
 * waits for the streams to be closed and for every on_done to be told. */
#include "link.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pd_xp_peer_event(struct pd_transport_peer *peer, uint32_t what)
{
    if (peer->pending == 0)
        TAILQ_INSERT_TAIL(&peer->tp->events, peer, event);
    peer->pending |= what;
    pd_xp_wake(peer->tp);
}

static pd_status resolve_address(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                                 struct pd_xp_address *a, struct pd_addr *addr)
{
    char text[PD_ADDR_TEXT];
    bool v6;
    pd_status st = pd_xp_address_decode(desc->address, desc->address_len, a);

    if (st != PD_OK || a->kind != tp->conf.kind)
        return PD_EPROTO;
    memset(addr, 0, sizeof(*addr));
    if ((tp->conf.kind == PD_XP_SHM) != (a->family == PD_AF_UNIX))
        return PD_EPROTO;
    if (a->tls != (tp->conf.tls.net != NULL)) {
        pd_log_warn(tp->log, "a peer wants connections %s TLS, this node %s", a->tls ? "with" : "without",
                    a->tls ? "without" : "with");
        return PD_EINVAL;
    }
    addr->port = a->port;
    switch (a->family) {
    case PD_AF_UNIX:
        memcpy(addr->path, a->path, sizeof(a->path));
        break;
    case PD_AF_IPV4:
    case PD_AF_IPV6:
        memcpy(addr->ip, a->ip, sizeof(a->ip));
        break;
    case PD_AF_NONE:
        if (desc->host.n == 0 || desc->host.n > PD_ADDR_TEXT - 16)
            return PD_EINVAL;
        v6 = memchr(desc->host.p, ':', desc->host.n) != NULL;
        snprintf(text, sizeof(text), v6 ? "[%.*s]:%u" : "%.*s:%u", PD_STR_ARG(desc->host),
                 (unsigned)a->port);
        st = pd_addr_parse(tp->loop, (struct pd_str){ text, strlen(text) }, addr);
        return st == PD_OK ? PD_OK : PD_EINVAL;
    default:
        return PD_EPROTO;
    }
    addr->family = a->family;
    return PD_OK;
}

pd_status pd_xp_connect(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                        const struct pd_transport_peer_events *events, void *arg,
                        struct pd_transport_peer **out)
{
    struct pd_transport_peer *peer;
    struct pd_xp_address a;
    struct pd_addr addr;
    pd_status st;

    if (tp->closing)
        return PD_ESTALE;
    st = resolve_address(tp, desc, &a, &addr);
    if (st != PD_OK)
        return st;
    peer = calloc(1, sizeof(*peer));
    if (peer == NULL)
        return PD_ENOMEM;
    peer->tp = tp;
    peer->node = desc->node;
    peer->addr = addr;
    memcpy(peer->key, a.key, sizeof(peer->key));
    if (desc->size >= offsetof(struct pd_transport_peer_desc, reserved) && desc->grant != NULL)
        st = pd_xp_grant_decode(desc->grant, desc->grant_len, &peer->grant);
    if (st != PD_OK) {
        free(peer);
        return st;
    }
    peer->link_id = pd_loop_random_u64(tp->loop);
    peer->events = *events;
    peer->arg = arg;
    peer->n_lanes = tp->conf.lanes == 0 ? 1 : tp->conf.lanes;
    peer->frame_bytes = tp->conf.frame_bytes;
    TAILQ_INIT(&peer->transfers);
    TAILQ_INIT(&peer->ready);
    TAILQ_INIT(&peer->targets);
    st = pd_xp_lane_connect(peer, 0);
    if (st != PD_OK) {
        free(peer);
        return st;
    }
    TAILQ_INSERT_TAIL(&tp->peers, peer, link);
    pd_xp_tick_on(tp);
    *out = peer;
    return PD_OK;
}

/* The first lane knows where the other side is. */
static uint32_t choose_lanes(const struct pd_transport_peer *peer)
{
    struct pd_addr here, there;

    if (peer->tp->conf.lanes != 0)
        return peer->tp->conf.lanes;
    if (peer->addr.family == PD_AF_UNIX)
        return 1;
    if (pd_stream_local_addr(peer->lanes[0]->stream, &here) != PD_OK ||
        pd_stream_peer_addr(peer->lanes[0]->stream, &there) != PD_OK)
        return 1;
    there.port = here.port;
    return pd_addr_equal(&here, &there) ? 1 : 4;
}

void pd_xp_peer_lane_up(struct pd_xp_lane *lane, const struct pd_xp_hello *hello)
{
    struct pd_transport_peer *peer = lane->peer;

    if (hello->frame_bytes < peer->frame_bytes)
        peer->frame_bytes = hello->frame_bytes;
    peer->up_lanes++;
    if (peer->state != PD_XP_PEER_CONNECTING)
        return;
    if (lane->index == 0) {
        peer->n_lanes = choose_lanes(peer);
        for (uint32_t i = 1; i < peer->n_lanes; i++) {
            pd_status st = pd_xp_lane_connect(peer, (uint16_t)i);
            if (st != PD_OK) {
                pd_xp_peer_fail(peer, st);
                return;
            }
        }
    }
    if (peer->up_lanes == peer->n_lanes) {
        peer->state = PD_XP_PEER_UP;
        pd_xp_peer_event(peer, PD_XP_EV_UP);
    }
}

void pd_xp_peer_fail(struct pd_transport_peer *peer, pd_status status)
{
    struct pd_transfer *t;

    if (peer->state == PD_XP_PEER_DOWN)
        return;
    peer->state = PD_XP_PEER_DOWN;
    peer->status = status;
    /* First the transfers: their fate depends on what is without answer. */
    while ((t = TAILQ_FIRST(&peer->transfers)) != NULL)
        pd_xp_transfer_lost(t);
    for (uint32_t i = 0; i < PD_XP_MAX_LANES; i++)
        if (peer->lanes[i] != NULL) {
            pd_xp_lane_close(peer->lanes[i]);
            peer->lanes[i] = NULL;
        }
    if (peer->open_lanes == 0)
        pd_xp_peer_event(peer, PD_XP_EV_DOWN);
}

void pd_xp_peer_lane_gone(struct pd_transport_peer *peer)
{
    if (--peer->open_lanes == 0 && peer->state == PD_XP_PEER_DOWN)
        pd_xp_peer_event(peer, PD_XP_EV_DOWN);
}

void pd_xp_peer_ending(struct pd_transport_peer *peer)
{
    if (peer->state == PD_XP_PEER_ENDING && peer->n_transfers == 0)
        pd_xp_peer_fail(peer, PD_OK);
}

void pd_xp_disconnect(struct pd_transport_peer *peer, uint32_t how)
{
    struct pd_transport *tp = peer->tp;
    struct pd_transfer *t, *next;

    if (peer->state == PD_XP_PEER_DOWN) {
        peer->was_up = true;
        return;
    }
    if (peer->state != PD_XP_PEER_ENDING)
        peer->end_by = PD_TIME_NEVER;
    if (how == PD_DISCONNECT_FENCE && peer->end_by == PD_TIME_NEVER) {
        peer->end_by = pd_loop_now(tp->loop) + tp->conf.timeout;
        for (t = TAILQ_FIRST(&peer->transfers); t != NULL; t = next) {
            next = TAILQ_NEXT(t, link);
            pd_xp_cancel(t);
        }
    }
    peer->was_up = true;
    peer->state = PD_XP_PEER_ENDING;
    pd_xp_peer_ending(peer);
}

void pd_xp_peer_tick(struct pd_transport_peer *peer, pd_time now)
{
    if (peer->state == PD_XP_PEER_ENDING && now >= peer->end_by) {
        pd_xp_peer_fail(peer, PD_ETIMEDOUT);
        return;
    }
    for (uint32_t i = 0; i < peer->n_lanes && peer->state != PD_XP_PEER_DOWN; i++)
        if (peer->lanes[i] != NULL)
            pd_xp_lane_tick(peer->lanes[i], now);
}

/* The last word about a peer. */
static void gone(struct pd_transport_peer *peer)
{
    struct pd_transport_target *target;
    pd_status st = peer->status;

    while ((target = TAILQ_FIRST(&peer->targets)) != NULL) {
        TAILQ_REMOVE(&peer->targets, target, link);
        target->peer = NULL;
    }
    TAILQ_REMOVE(&peer->tp->peers, peer, link);
    if (peer->was_up) {
        if (peer->events.on_down != NULL)
            peer->events.on_down(peer, st, peer->arg);
    } else if (peer->events.on_up != NULL) {
        peer->events.on_up(peer, st == PD_OK ? PD_EPEER : st, peer->arg);
    }
    free(peer);
}

void pd_xp_peer_tell(struct pd_transport *tp)
{
    struct pd_transport_peer *peer, *again = NULL;

    pd_xp_transfer_tell(tp);
    while ((peer = TAILQ_FIRST(&tp->events)) != NULL && peer != again) {
        uint32_t what = peer->pending;
        TAILQ_REMOVE(&tp->events, peer, event);
        peer->pending = 0;
        if ((what & PD_XP_EV_UP) != 0 && !peer->was_up && peer->state == PD_XP_PEER_UP) {
            peer->was_up = true;
            if (peer->events.on_up != NULL)
                peer->events.on_up(peer, PD_OK, peer->arg);
        }
        if (peer->wants_writable && peer->state == PD_XP_PEER_UP &&
            peer->n_transfers < tp->conf.queue) {
            peer->wants_writable = false;
            if (peer->events.on_writable != NULL)
                peer->events.on_writable(peer, peer->arg);
        }
        if ((what & PD_XP_EV_DOWN) == 0)
            continue;
        if (peer->n_transfers == 0) {
            gone(peer);
        } else {
            /* Transfers that ended just now are told first. */
            pd_xp_peer_event(peer, PD_XP_EV_DOWN);
            if (again == NULL)
                again = peer;
        }
    }
}

pd_status pd_xp_target_open(struct pd_transport_peer *peer, const void *blob, size_t len,
                            struct pd_transport_target **out)
{
    struct pd_transport *tp = peer->tp;
    struct pd_transport_target *target;
    struct pd_xp_grant g;
    pd_status st;

    if (peer->state >= PD_XP_PEER_ENDING)
        return PD_ESTALE;
    st = pd_xp_grant_decode(blob, len, &g);
    if (st != PD_OK)
        return st;
    if (g.kind != tp->conf.kind ||
        (g.access != PD_TRANSPORT_WRITE && (g.access != PD_TRANSPORT_READ || pd_xp_by_name(tp))))
        return PD_EPROTO;
    if (!pd_xp_node_equal(&g.owner, &peer->node))
        return PD_ESTALE;
    if (!pd_xp_node_equal(&g.peer, &tp->self))
        return PD_EPERM;
    target = calloc(1, sizeof(*target));
    if (target == NULL)
        return PD_ENOMEM;
    target->tp = tp;
    target->peer = peer;
    target->grant = g;
    TAILQ_INSERT_TAIL(&peer->targets, target, link);
    *out = target;
    return PD_OK;
}

void pd_xp_target_close(struct pd_transport_target *target)
{
    if (target->peer != NULL)
        TAILQ_REMOVE(&target->peer->targets, target, link);
    free(target);
}
