/* SPDX-License-Identifier: Apache-2.0 */
/* The peer table of a node: who is known, who watches, which services are
 * offered.  References count up and are never used twice; a peer that is
 * removed leaves nothing behind that could be mistaken for its successor. */
#include "peer/priv.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "base/uuid.h"

/* ---- peers */

struct pd_peer *pd_peers_get(struct pd_peers *peers, pd_peer_ref ref)
{
    return (struct pd_peer *)pd_idmap_get(&peers->by_ref, ref);
}

struct pd_peer *pd_peers_by_uuid(struct pd_peers *peers, const struct pd_uuid *uuid)
{
    PD_LIST_EACH(&peers->all, l) {
        struct pd_peer *peer = PD_LIST_ENTRY(l, struct pd_peer, node);
        if (pd_uuid_eq(&peer->id.uuid, uuid))
            return peer;
    }
    return NULL;
}

void pd_peer_set_state(struct pd_peer *peer, uint32_t state, const char *reason)
{
    bool was = peer->state == PD_PEER_UP || peer->state == PD_PEER_SUSPECT;
    bool is = state == PD_PEER_UP || state == PD_PEER_SUSPECT;
    if (was != is && peer != peer->peers->me)
        pd_gauge_add(peer->peers->metric_up, is ? 1 : -1);
    if (peer->state != state)
        peer->since = pd_loop_now(peer->peers->loop);
    peer->state = state;
    (void)pd_str_copy(pd_str_from(reason), peer->reason, sizeof peer->reason);
}

static void on_forget(struct pd_timer *timer, void *arg)
{
    struct pd_peer *peer = (struct pd_peer *)arg;
    (void)timer;
    if (peer->link == NULL)
        pd_peers_remove(peer);
}

void pd_peer_forget_later(struct pd_peer *peer, pd_time delay)
{
    if (peer->link == NULL && (peer->flags & PD_PEER_CONFIGURED) == 0 && !peer->peers->is_closing)
        pd_timer_start(&peer->forget, delay);
}

pd_status pd_peers_add(struct pd_peers *peers, struct pd_peer_desc *desc, struct pd_peer **out)
{
    struct pd_peer *peer = (struct pd_peer *)pd_calloc(1, sizeof *peer);
    if (peer == NULL)
        return PD_ENOMEM;
    peer->peers = peers;
    peer->ref = ++peers->last_ref;
    pd_status st = pd_idmap_add(&peers->by_ref, peer->ref, peer);
    if (st != PD_OK) {
        pd_free(peer);
        return st;
    }
    peer->id = desc->id;
    peer->desc = desc;
    peer->state = PD_PEER_CONNECTING;
    peer->load_at = PD_TIME_NEVER;
    peer->since = pd_loop_now(peers->loop);
    peer->seen_at = peer->since;
    pd_timer_init(&peer->forget, peers->loop, "peer forget", on_forget, peer);
    pd_list_append(&peers->all, &peer->node);
    *out = peer;
    return PD_OK;
}

void pd_peer_free(struct pd_peer *peer)
{
    pd_timer_stop(&peer->forget);
    pd_list_remove(&peer->node);
    pd_idmap_remove(&peer->peers->by_ref, peer->ref);
    pd_free(peer->desc);
    pd_free(peer);
}

void pd_peers_remove(struct pd_peer *peer)
{
    struct pd_dial *dial = pd_dial_find_want(peer->peers, peer->ref);
    if (dial != NULL)
        pd_dial_remove(dial);
    pd_peers_emit(peer->peers, peer, PD_PEER_ON_GONE);
    pd_peer_free(peer);
}

void pd_peers_load(struct pd_peers *peers, struct pd_engine_load *out)
{
    uint32_t n = peers->self->n_engines;
    memset(out, 0, sizeof *out * PD_PEER_MAX_ENGINES);
    for (uint32_t i = 0; i < n; i++)
        out[i].size = sizeof out[i];
    if (peers->conf.load != NULL)
        peers->conf.load(out, n, peers->conf.load_arg);
}

/* ---- watching */

static void watches_sweep(struct pd_peers *peers)
{
    PD_LIST_EACH_SAFE(&peers->watches, l) {
        struct pd_peer_watch *w = PD_LIST_ENTRY(l, struct pd_peer_watch, node);
        if (w->is_dead) {
            pd_list_remove(&w->node);
            peers->n_watches--;
            pd_free(w);
        }
    }
}

void pd_peers_emit(struct pd_peers *peers, struct pd_peer *peer, uint32_t what)
{
    pd_peer_ref ref = peer->ref;
    peers->emitting++;
    /* What a callback adds is appended and hears this event too. */
    PD_LIST_EACH(&peers->watches, l) {
        struct pd_peer_watch *w = PD_LIST_ENTRY(l, struct pd_peer_watch, node);
        if (!w->is_dead && w->events.on_peer != NULL)
            w->events.on_peer(peers, ref, what, w->arg);
    }
    if (--peers->emitting == 0)
        watches_sweep(peers);
}

static pd_status watch(struct pd_peers *peers, const struct pd_peer_watch_events *events, void *arg,
                       struct pd_peer_watch **out)
{
    if (peers->n_watches >= PD_PEER_MAX_WATCHES)
        return PD_ELIMIT;
    struct pd_peer_watch *w = (struct pd_peer_watch *)pd_calloc(1, sizeof *w);
    if (w == NULL)
        return PD_ENOMEM;
    w->peers = peers;
    w->events = *events;
    w->arg = arg;
    pd_list_init(&w->node);
    pd_list_append(&peers->watches, &w->node);
    peers->n_watches++;
    *out = w;
    return PD_OK;
}

static void unwatch(struct pd_peer_watch *w)
{
    w->is_dead = true;
    if (w->peers->emitting == 0)
        watches_sweep(w->peers);
}

/* ---- looking up */

static pd_peer_ref self(struct pd_peers *peers)
{
    return peers->me->ref;
}

/* Where the peer takes links.  Without a host of its own in what it tells, the
 * host that its link comes from; a peer that tells nothing can be reached again
 * where this node dialled it. */
static const char *listener_of(struct pd_peer *peer)
{
    const char *told = peer->desc->listener;
    const char *port = strrchr(peer->address, ':');
    if (told[0] == '\0')
        return peer->link != NULL && peer->link->is_initiator ? peer->address : "";
    if (told[0] != ':')
        return told;
    if (port == NULL || strncmp(peer->address, "unix", 4) == 0)
        return "";
    snprintf(peer->listener, sizeof peer->listener, "%.*s%.7s", (int)(port - peer->address),
             peer->address, told);
    return peer->listener;
}

static pd_status info(struct pd_peers *peers, pd_peer_ref ref, struct pd_peer_info *out)
{
    struct pd_peer *peer = pd_peers_get(peers, ref);
    if (peer == NULL)
        return PD_ESTALE;
    bool is_me = peer == peers->me;
    const char *host = peers->self->host_id;
    if (is_me) {
        pd_peers_load(peers, peer->loads);
        peer->load_at = peer->seen_at = pd_loop_now(peers->loop);
    }
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    out->state = peer->state;
    out->ref = ref;
    out->flags = peer->flags;
    if (peer->link != NULL && !is_me && !peer->link->is_initiator)
        out->flags |= PD_PEER_INBOUND;
    if (is_me ? peers->is_draining : peer->link != NULL && peer->link->is_draining)
        out->flags |= PD_PEER_DRAINING;
    if (is_me || (host[0] != '\0' && strcmp(host, peer->desc->host_id) == 0))
        out->flags |= PD_PEER_SAME_HOST;
    out->desc = peer->desc;
    out->load = peer->loads;
    out->load_at = peer->load_at;
    out->rtt = peer->rtt;
    out->seen_at = peer->seen_at;
    out->since = peer->since;
    out->address = peer->address;
    out->listener = listener_of(peer);
    out->reason = peer->reason;
    out->bytes_in = peer->bytes_in;
    out->bytes_out = peer->bytes_out;
    out->suspects = peer->suspects;
    out->downs = peer->downs;
    if (peer->link != NULL) {
        out->calls = pd_calls_n(peer->link);
        out->bytes_in += peer->link->bytes_in;
        out->bytes_out += peer->link->bytes_out;
    }
    return PD_OK;
}

static pd_peer_ref next(struct pd_peers *peers, pd_peer_ref after)
{
    /* The list is in order of references. */
    struct pd_peer *at = pd_peers_get(peers, after);
    struct pd_list *l = at != NULL ? at->node.next : peers->all.next;
    for (; l != &peers->all; l = l->next) {
        struct pd_peer *peer = PD_LIST_ENTRY(l, struct pd_peer, node);
        if (peer->ref > after)
            return peer->ref;
    }
    return 0;
}

static pd_peer_ref find(struct pd_peers *peers, const struct pd_node_id *id)
{
    struct pd_peer *peer = pd_peers_by_uuid(peers, &id->uuid);
    if (peer == NULL || (id->epoch != 0 && id->epoch != peer->id.epoch))
        return 0;
    return peer->ref;
}

static pd_status reach(struct pd_peers *peers, const struct pd_node_id *id, struct pd_str address,
                       pd_peer_ref *out)
{
    struct pd_peer *peer = pd_peers_by_uuid(peers, &id->uuid);
    struct pd_dial *dial = NULL;
    if (id->epoch == 0 || pd_uuid_is_zero(&id->uuid) || peers->is_closing)
        return PD_EINVAL;
    if (peer != NULL && peer->link != NULL && peer->id.epoch == id->epoch) {
        *out = peer->ref;
        return PD_OK;
    }
    if (peer != NULL && peer->id.epoch != id->epoch && peer->link != NULL)
        return PD_ESTALE;   /* named in another life; a later one comes by itself */
    if (peer != NULL && pd_dial_find_want(peers, peer->ref) != NULL) {
        *out = peer->ref;
        return PD_PENDING;
    }
    bool is_new = peer == NULL;
    if (is_new) {
        struct pd_peer_desc blank = { .id = *id };
        if (peers->by_ref.n >= peers->conf.max_peers) {
            pd_peers_count(peers, PD_COUNT_LIMIT, 1);
            return PD_ELIMIT;
        }
        struct pd_peer_desc *desc = pd_desc_copy(&blank);
        if (desc == NULL)
            return PD_ENOMEM;
        pd_status made = pd_peers_add(peers, desc, &peer);
        if (made != PD_OK) {
            pd_free(desc);
            return made;
        }
    }
    pd_status st = pd_dial_add(peers, address, false, peer->ref, &dial);
    if (st != PD_OK) {
        if (is_new)
            pd_peer_free(peer);
        return st;
    }
    pd_timer_stop(&peer->forget);
    pd_peer_set_state(peer, PD_PEER_CONNECTING, "connecting");
    *out = peer->ref;
    return PD_PENDING;
}

static pd_status serve(struct pd_peers *peers, uint32_t service, pd_call_handler handler, void *arg)
{
    if (service == 0 || service >= PD_PEER_MAX_SERVICE || handler == NULL)
        return PD_EINVAL;
    if (peers->services[service].handler != NULL)
        return PD_EEXIST;
    peers->services[service].handler = handler;
    peers->services[service].arg = arg;
    return PD_OK;
}

static void unserve(struct pd_peers *peers, uint32_t service)
{
    if (service < PD_PEER_MAX_SERVICE)
        memset(&peers->services[service], 0, sizeof peers->services[service]);
}

const struct pd_peer_api *pd_peer_table(void)
{
    static const struct pd_peer_api table = {
        .size = sizeof table,
        .version = PD_PEER_VERSION,
        .self = self,
        .info = info,
        .next = next,
        .find = find,
        .reach = reach,
        .watch = watch,
        .unwatch = unwatch,
        .serve = serve,
        .unserve = unserve,
        .call_open = pd_call_open,
        .call_accept = pd_call_accept,
        .call_send = pd_call_send,
        .call_end = pd_call_end,
        .call_cancel = pd_call_cancel,
        .call_pause = pd_call_pause,
        .call_pending = pd_call_pending,
        .call_peer = pd_call_peer,
    };
    return &table;
}
