/* SPDX-License-Identifier: Apache-2.0 */
/* Which verified links become peers.
 *
 * Two nodes may connect to each other at the same moment, or one may come back
 * while the other has not yet noticed the loss.  Both must keep the same link,
 * so one of them decides: the node with the lower uuid.  It says READY on the
 * link it keeps.  The initiator says READY first (when it is not the one who
 * decides): "this is no second link of mine".
 *
 * A node is (uuid, epoch).  A new epoch replaces the old peer at once; the last
 * few epochs that were replaced are remembered and refused, so a zombie cannot
 * push out its successor. */
#include "peer/priv.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/uuid.h"
#include "net/tls.h"

static bool we_decide(const struct pd_link *link)
{
    const struct pd_uuid *mine = &link->peers->self->id.uuid;
    return memcmp(mine->b, link->desc->id.uuid.b, sizeof mine->b) < 0;
}

/* Whether this identity may be a peer: a PD_GOODBYE_*, 0 when it may. */
static uint32_t check_identity(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    const struct pd_node_id *id = &link->desc->id;
    struct pd_uuid named;
    if (pd_tls_stream_node(link->stream, &named) && !pd_uuid_eq(&named, &id->uuid)) {
        pd_log_warn(peers->log, "peer \"%s\" (%s) shows the certificate of another node",
                    link->desc->name, link->address);
        return PD_GOODBYE_IDENTITY;
    }
    if (pd_uuid_eq(&id->uuid, &peers->self->id.uuid))
        return id->epoch == peers->self->id.epoch ? PD_GOODBYE_SELF : PD_GOODBYE_CLASH;
    if (link->dial != NULL && link->dial->want != 0) {
        struct pd_peer *want = pd_peers_get(peers, link->dial->want);
        if (want != NULL && !pd_uuid_eq(&want->id.uuid, &id->uuid))
            return PD_GOODBYE_IDENTITY;
    }
    struct pd_peer *peer = pd_peers_by_uuid(peers, &id->uuid);
    if (peer == NULL)
        return peers->by_ref.n < peers->conf.max_peers ? 0 : PD_GOODBYE_LIMIT;
    for (int i = 0; i < PD_PEER_OLD_EPOCHS; i++)
        if (peer->old_epochs[i] == id->epoch)
            return PD_GOODBYE_STALE;
    return 0;
}

/* The peer of the link's identity, made new when it is unknown or has a new
 * epoch; takes link->desc.  NULL when memory is short. */
static struct pd_peer *peer_for(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    struct pd_peer *old = pd_peers_by_uuid(peers, &link->desc->id.uuid);
    struct pd_peer *peer = NULL;
    uint64_t epochs[PD_PEER_OLD_EPOCHS] = { 0 };
    uint32_t flags = 0;
    if (old != NULL && old->id.epoch == link->desc->id.epoch) {
        pd_free(old->desc);
        old->desc = PD_TAKE(&link->desc);
        return old;
    }
    if (old != NULL) {
        pd_log_notice(peers->log, "peer \"%s\" is back with a new epoch", link->desc->name);
        if (old->link != NULL)
            pd_link_fail(old->link, PD_GOODBYE_STALE, "");
        memcpy(epochs + 1, old->old_epochs, sizeof epochs - sizeof epochs[0]);
        epochs[0] = old->id.epoch;
        flags = old->flags & PD_PEER_CONFIGURED;
        pd_peers_remove(old);
    }
    if (pd_peers_add(peers, link->desc, &peer) != PD_OK)
        return NULL;
    link->desc = NULL;
    memcpy(peer->old_epochs, epochs, sizeof epochs);
    peer->flags |= flags;
    return peer;
}

/* The link is the one: takes it into use. */
static void make_up(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    struct pd_peer *peer = peer_for(link);
    if (peer == NULL) {
        pd_link_fail(link, PD_GOODBYE_MEMORY, "");
        return;
    }
    if (peer->link != NULL)
        pd_link_fail(peer->link, PD_GOODBYE_REPLACED, "");
    link->peer = peer;
    peer->link = link;
    peer->load_at = PD_TIME_NEVER;
    memset(peer->loads, 0, sizeof peer->loads);
    peer->rtt = 0;
    peer->seen_at = pd_loop_now(peers->loop);
    memcpy(peer->address, link->address, sizeof peer->address);
    pd_timer_stop(&peer->forget);
    if (link->dial != NULL) {
        if (link->dial->is_configured)
            peer->flags |= PD_PEER_CONFIGURED;
        if (link->dial->is_configured && !link->dial->is_resting)
            peer->flags &= ~(uint32_t)PD_PEER_RESTING;
        pd_dial_up(link->dial, &peer->id);
    }
    pd_link_set_up(link);
    pd_peer_set_state(peer, PD_PEER_UP, "");
    pd_log_notice(peers->log, "peer \"%s\" is up at %s", peer->desc->name, peer->address);
    pd_peers_emit(peers, peer, PD_PEER_ON_UP);
}

/* A link of this very peer that stands in the way, NULL: none. */
static struct pd_link *standing(struct pd_link *link)
{
    struct pd_peer *peer = pd_peers_by_uuid(link->peers, &link->desc->id.uuid);
    if (peer == NULL || peer->id.epoch != link->desc->id.epoch || peer->link == link)
        return NULL;
    return peer->link;
}

static void decide(struct pd_link *link)
{
    struct pd_link *old = standing(link);
    if (old != NULL && old->is_initiator != link->is_initiator &&
        old->peer->state == PD_PEER_UP) {
        pd_link_fail(link, PD_GOODBYE_DUPLICATE, "");
        return;
    }
    /* An old link from the same side: that side has lost it, or it would not
     * have come again. */
    if (pd_link_send_simple(link, PD_FRAME_READY, NULL, 0) == PD_OK)
        make_up(link);
}

void pd_admit_hello(struct pd_link *link)
{
    uint32_t reason = check_identity(link);
    if (reason != 0) {
        if (reason == PD_GOODBYE_CLASH)
            pd_log_error(link->peers->log, "node \"%s\" at %s has the uuid of this node",
                         link->desc->name, link->address);
        if (reason == PD_GOODBYE_LIMIT)
            pd_peers_count(link->peers, PD_COUNT_LIMIT, 1);
        pd_link_fail(link, reason, "");
        return;
    }
    if (!link->is_initiator)
        return;     /* its READY comes next */
    struct pd_link *old = standing(link);
    if (old != NULL && old->is_initiator && old->peer->state == PD_PEER_UP) {
        pd_link_fail(link, PD_GOODBYE_DUPLICATE, "");
        return;
    }
    if (we_decide(link))
        decide(link);
    else
        (void)pd_link_send_simple(link, PD_FRAME_READY, NULL, 0);
}

void pd_admit_ready(struct pd_link *link)
{
    /* Things may have changed since the hello. */
    uint32_t reason = check_identity(link);
    if (reason != 0)
        pd_link_fail(link, reason, "");
    else if (we_decide(link) && !link->is_initiator)
        decide(link);
    else if (we_decide(link))
        pd_link_fail(link, PD_GOODBYE_PROTOCOL, "ready twice");
    else
        make_up(link);
}

void pd_admit_update(struct pd_link *link, struct pd_peer_desc *desc)
{
    struct pd_peer *peer = link->peer;
    if (!pd_node_id_eq(&desc->id, &peer->id)) {
        pd_free(desc);
        pd_link_fail(link, PD_GOODBYE_PROTOCOL, "identity changed");
        return;
    }
    if (desc->n_engines != peer->desc->n_engines) {
        memset(peer->loads, 0, sizeof peer->loads);
        peer->load_at = PD_TIME_NEVER;
    }
    pd_free(peer->desc);
    peer->desc = desc;
    pd_peers_emit(link->peers, peer, PD_PEER_ON_CHANGED);
}

void pd_admit_lost(struct pd_link *link, uint32_t reason)
{
    struct pd_peers *peers = link->peers;
    struct pd_peer *peer = link->peer;
    struct pd_node_id id = { 0 };
    if (peer != NULL)
        id = peer->id;
    else if (link->desc != NULL)
        id = link->desc->id;
    if (peer != NULL && peer->link == link) {
        peer->link = NULL;
        peer->bytes_in += link->bytes_in;
        peer->bytes_out += link->bytes_out;
        peer->downs++;
        pd_peers_count(peers, PD_COUNT_DOWNS, 1);
        pd_peer_set_state(peer, PD_PEER_DOWN, pd_goodbye_text(reason));
        if (peer != peers->me) {
            pd_log_notice(peers->log, "peer \"%s\" is down: %s", peer->desc->name, peer->reason);
            pd_peer_forget_later(peer, peers->conf.forget);
        }
        pd_peers_emit(peers, peer, PD_PEER_ON_DOWN);
    }
    link->peer = NULL;
    if (link->dial != NULL) {
        struct pd_dial *dial = PD_TAKE(&link->dial);
        dial->link = NULL;
        pd_dial_lost(dial, reason, &id);
    }
    if (!peers->is_closing && id.epoch != 0 && reason != PD_GOODBYE_DUPLICATE)
        pd_dial_uncover(peers, &id);
}
