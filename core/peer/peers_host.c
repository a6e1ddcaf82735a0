/* SPDX-License-Identifier: Apache-2.0 */
/* What the node does with its table of peers: made and ended, listening, dialling, and a
 * new description of itself. */
#include "peer/priv.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"
#include "net/tls.h"
#include "net/digest.h"

pd_status pd_peers_times_check(const struct pd_peers_times *times, struct pd_err *err)
{
    if (times->heartbeat < times->suspect && times->suspect <= times->dead)
        return PD_OK;
    pd_err_set(err, PD_EINVAL, "heartbeat, suspect and dead must be ascending times");
    pd_err_hint(err, "suspect is longer than heartbeat, dead not shorter than suspect");
    return PD_EINVAL;
}

void pd_peers_set_times(struct pd_peers *peers, const struct pd_peers_times *times)
{
    struct pd_peers_conf *c = &peers->conf;
    if (c->heartbeat == times->heartbeat && c->suspect == times->suspect && c->dead == times->dead &&
        c->connect_timeout == times->connect_timeout)
        return;
    c->heartbeat = times->heartbeat;
    c->suspect = times->suspect;
    c->dead = times->dead;
    c->connect_timeout = times->connect_timeout;
    PD_LIST_EACH(&peers->links, l)
        pd_link_times_changed(PD_LIST_ENTRY(l, struct pd_link, node));
}

static pd_status set_defaults(struct pd_peers_conf *c, struct pd_err *err)
{
#define PD_DEFAULT(member, value)                                              \
    do {                                                                       \
        if (c->member == 0)                                                    \
            c->member = (value);                                               \
    } while (0)
    PD_DEFAULT(heartbeat, 1 * PD_SEC);
    PD_DEFAULT(suspect, 2500 * PD_MS);
    PD_DEFAULT(dead, 3500 * PD_MS);
    PD_DEFAULT(patience, 2500 * PD_MS);
    PD_DEFAULT(connect_timeout, 2500 * PD_MS);
    PD_DEFAULT(backoff_min, 100 * PD_MS);
    PD_DEFAULT(backoff_max, 5 * PD_SEC);
    PD_DEFAULT(forget, 60 * PD_SEC);
    PD_DEFAULT(max_peers, 1024);
    PD_DEFAULT(max_links, 2048);
    PD_DEFAULT(max_calls, 16384);
    PD_DEFAULT(max_message, 16u << 20);
    PD_DEFAULT(window, 256u << 10);
    PD_DEFAULT(call_queue, 1u << 20);
    PD_DEFAULT(link_queue, 1u << 20);
#undef PD_DEFAULT
    const struct pd_peers_times times = { c->heartbeat, c->suspect, c->dead, c->connect_timeout };
    pd_status st = pd_peers_times_check(&times, err);
    if (st != PD_OK)
        return st;
    if (c->window < PD_HELLO_WINDOW_MIN || c->window > PD_HELLO_WINDOW_MAX ||
        c->max_message < PD_HELLO_WINDOW_MIN || c->max_message > (1u << 30) ||
        c->call_queue > (1u << 30) || c->backoff_min > c->backoff_max)
        return pd_err_set(err, PD_EINVAL, "a window, queue or message limit is out of range");
    if (c->secret.n > PD_PEER_MAX_SECRET)
        return pd_err_set(err, PD_EINVAL, "the shared secret is longer than %d bytes",
                          PD_PEER_MAX_SECRET);
    return pd_desc_check(c->self, err);
}

static void free_all(struct pd_peers *peers)
{
    struct pd_list *l;
    while ((l = pd_list_first(&peers->all)) != NULL)
        pd_peer_free(PD_LIST_ENTRY(l, struct pd_peer, node));
    while ((l = pd_list_pop(&peers->chunks)) != NULL)
        pd_free(PD_LIST_ENTRY(l, struct pd_chunk, node));
    while ((l = pd_list_pop(&peers->watches)) != NULL)
        pd_free(PD_LIST_ENTRY(l, struct pd_peer_watch, node));
    pd_idmap_fini(&peers->by_ref);
    pd_secret_wipe(peers->secret, sizeof peers->secret);
    pd_log_child_free(peers->log);
    pd_free(peers->scratch);
    pd_free(peers->self);
    pd_free(peers);
}

static pd_status make_self(struct pd_peers *peers)
{
    struct pd_peer_desc *desc = pd_desc_copy(peers->self);
    if (desc == NULL)
        return PD_ENOMEM;
    pd_status st = pd_peers_add(peers, desc, &peers->me);
    if (st != PD_OK) {
        pd_free(desc);
        return st;
    }
    peers->me->flags = PD_PEER_SELF;
    pd_peer_set_state(peers->me, PD_PEER_UP, "");
    return pd_link_open_self(peers);
}

static void on_close_task(struct pd_task *task, void *arg);

pd_status pd_peers_create(const struct pd_peers_conf *conf, struct pd_peers **out,
                          struct pd_err *err)
{
    struct pd_peers_conf c = *conf;
    pd_status st = set_defaults(&c, err);
    if (st != PD_OK)
        return st;
    struct pd_peers *peers = (struct pd_peers *)pd_calloc(1, sizeof *peers);
    if (peers == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    peers->conf = c;
    peers->loop = c.loop;
    pd_list_init(&peers->all);
    pd_list_init(&peers->links);
    pd_list_init(&peers->dials);
    pd_list_init(&peers->watches);
    pd_list_init(&peers->chunks);
    pd_idmap_init(&peers->by_ref, (size_t)c.max_peers + 1, 0);
    pd_task_init(&peers->close_task, "peers close", on_close_task, peers);
    if (c.secret.n > 0)
        memcpy(peers->secret, c.secret.p, c.secret.n);
    peers->secret_n = c.secret.n;
    peers->conf.secret = (struct pd_str){ "", 0 };
    peers->log = pd_log_child(c.log, "peer");
    peers->scratch = (uint8_t *)pd_alloc(PD_FRAME_MAX_PAYLOAD);
    peers->self = pd_desc_copy(c.self);
    peers->conf.self = peers->self;
    pd_peers_make_metrics(peers);
    if (peers->scratch == NULL || peers->self == NULL || make_self(peers) != PD_OK) {
        free_all(peers);
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    *out = peers;
    return PD_OK;
}

static void on_close_task(struct pd_task *task, void *arg)
{
    struct pd_peers *peers = (struct pd_peers *)arg;
    struct pd_list *l;
    (void)task;
    if (peers->n_links == 0) {
        void (*closed)(void *) = peers->on_closed;
        void *closed_arg = peers->on_closed_arg;
        free_all(peers);
        closed(closed_arg);
        return;
    }
    while ((l = pd_list_first(&peers->dials)) != NULL)
        pd_dial_remove(PD_LIST_ENTRY(l, struct pd_dial, node));
    PD_LIST_EACH(&peers->all, p)
        pd_timer_stop(&PD_LIST_ENTRY(p, struct pd_peer, node)->forget);
    PD_LIST_EACH_SAFE(&peers->links, k) {
        struct pd_link *link = PD_LIST_ENTRY(k, struct pd_link, node);
        if (link->stream == NULL)
            pd_link_close_self(link);
        else
            pd_link_fail(link, PD_GOODBYE_SHUTDOWN, "");
    }
}

void pd_peers_link_closed(struct pd_peers *peers)
{
    if (peers->is_closing && peers->n_links == 0)
        pd_loop_defer(peers->loop, &peers->close_task);
}

void pd_peers_destroy(struct pd_peers *peers, void (*on_closed)(void *arg), void *arg)
{
    peers->is_closing = true;
    peers->on_closed = on_closed;
    peers->on_closed_arg = arg;
    for (uint32_t i = 0; i < peers->n_listeners; i++)
        pd_listener_close(peers->loop, peers->doors[i].listener);
    peers->n_listeners = 0;
    pd_loop_defer(peers->loop, &peers->close_task);
}

static const struct pd_stream_events refused_events = { .name = "peer refused" };

void pd_peers_accept(struct pd_peers *peers, struct pd_stream *stream)
{
    /* Owned before anything can fail. */
    pd_stream_set_events(stream, &refused_events, NULL);
    if (!pd_link_accept(peers, stream))
        pd_stream_close(stream);
}

static void on_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    const struct pd_peer_door *door = (const struct pd_peer_door *)arg;
    (void)l;
    if (door->tls != NULL && pd_tls_accept(door->tls, s, &s) != PD_OK)
        pd_peers_count(door->peers, PD_COUNT_LIMIT, 1);
    else
        pd_peers_accept(door->peers, s);
}

/* The first listener is the one that peers are told, unless the description
 * names an address already. */
static pd_status listener_tell(struct pd_peers *peers, const struct pd_addr *addr)
{
    static const uint8_t any[16];
    size_t ip_bytes = addr->family == PD_AF_IPV4 ? 4 : addr->family == PD_AF_IPV6 ? 16 : 0;
    struct pd_peer_desc desc = *peers->self;
    char text[PD_ADDR_TEXT];
    if (desc.listener[0] != '\0')
        return PD_OK;
    pd_addr_format(peers->loop, addr, text, sizeof text);
    const char *told = text;
    if (ip_bytes > 0 && memcmp(addr->ip, any, ip_bytes) == 0)
        told = strrchr(text, ':');
    if (pd_str_copy(pd_str_from(told), desc.listener, sizeof desc.listener) != PD_OK)
        return PD_OK;
    return pd_peers_update(peers, &desc);
}

pd_status pd_peers_listen(struct pd_peers *peers, struct pd_str address, uint16_t *port,
                          struct pd_err *err)
{
    return pd_peers_listen_tls(peers, address, NULL, port, err);
}

pd_status pd_peers_listen_tls(struct pd_peers *peers, struct pd_str address, struct pd_tls *tls,
                              uint16_t *port, struct pd_err *err)
{
    struct pd_addr addr;
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "peer listener" };
    struct pd_listener *l = NULL;
    if (pd_addr_parse(peers->loop, address, &addr) != PD_OK)
        return pd_err_set(err, PD_EINVAL, "\"%.*s\" is not an address with a port",
                          PD_STR_ARG(address));
    if (peers->n_listeners == PD_PEER_MAX_LISTENERS)
        return pd_err_set(err, PD_ELIMIT, "more than %d peer listeners", PD_PEER_MAX_LISTENERS);
    struct pd_peer_door *door = &peers->doors[peers->n_listeners];
    *door = (struct pd_peer_door){ .peers = peers, .tls = tls };
    pd_status st = pd_listener_open(peers->loop, &addr, &opts, on_accept, door, &l);
    if (st != PD_OK)
        return pd_err_set(err, st, "cannot listen for peers on %.*s: %s", PD_STR_ARG(address),
                          pd_status_text(st));
    door->listener = l;
    peers->n_listeners++;
    if (pd_listener_addr(peers->loop, l, &addr) != PD_OK)
        return PD_OK;
    if (port != NULL)
        *port = addr.port;
    st = listener_tell(peers, &addr);
    return st == PD_OK ? PD_OK : pd_err_set(err, st, "cannot tell peers where to reach this node: %s",
                                            pd_status_text(st));
}

pd_status pd_peers_dial(struct pd_peers *peers, struct pd_str address)
{
    struct pd_dial *dial;
    if (pd_dial_find(peers, address) != NULL)
        return PD_EEXIST;
    return pd_dial_add(peers, address, true, 0, &dial);
}

pd_status pd_peers_undial(struct pd_peers *peers, struct pd_str address)
{
    struct pd_dial *dial = pd_dial_find(peers, address);
    if (dial == NULL)
        return PD_ENOENT;
    pd_dial_remove(dial);
    pd_peers_release(peers);
    return PD_OK;
}

void pd_peers_release(struct pd_peers *peers)
{
    PD_LIST_EACH(&peers->all, l) {
        struct pd_peer *peer = PD_LIST_ENTRY(l, struct pd_peer, node);
        if ((peer->flags & PD_PEER_CONFIGURED) == 0 || pd_dial_covers(peers, peer))
            continue;
        peer->flags &= ~PD_PEER_CONFIGURED;
        pd_peer_forget_later(peer, peers->conf.forget);
    }
}

void pd_peer_rest(struct pd_peer *peer, bool is_resting)
{
    uint32_t flags = is_resting ? peer->flags | PD_PEER_RESTING : peer->flags & ~(uint32_t)PD_PEER_RESTING;
    if (flags == peer->flags)
        return;
    peer->flags = flags;
    if (peer->state == PD_PEER_UP || peer->state == PD_PEER_SUSPECT)
        pd_peers_emit(peer->peers, peer, PD_PEER_ON_CHANGED);
}

/* Whether a configured address that does not rest stands for this node. */
static bool is_wanted(struct pd_peers *peers, const struct pd_node_id *id)
{
    PD_LIST_EACH(&peers->dials, l) {
        struct pd_dial *dial = PD_LIST_ENTRY(l, struct pd_dial, node);
        if (dial->is_configured && !dial->is_resting && pd_uuid_eq(&dial->covered.uuid, &id->uuid))
            return true;
    }
    return false;
}

pd_status pd_peers_rest(struct pd_peers *peers, struct pd_str address, bool is_resting)
{
    struct pd_dial *dial = pd_dial_find(peers, address);
    struct pd_peer *peer;
    if (dial == NULL)
        return PD_ENOENT;
    dial->is_resting = is_resting;
    peer = pd_peers_by_uuid(peers, &dial->covered.uuid);
    if (peer != NULL && peer != peers->me && !(is_resting && is_wanted(peers, &peer->id)))
        pd_peer_rest(peer, is_resting);
    return PD_OK;
}

struct pd_peers_change {
    struct pd_peer_desc *mine, *shown;
};

void pd_peers_abort(struct pd_peers_change *change)
{
    pd_free(change->mine);
    pd_free(change->shown);
    pd_free(change);
}

pd_status pd_peers_prepare(struct pd_peers *peers, const struct pd_peer_desc *desc,
                           struct pd_peers_change **out)
{
    size_t n = 0;
    pd_status st = pd_desc_write(desc, peers->is_draining, peers->scratch, PD_FRAME_MAX_PAYLOAD,
                                 &n);
    if (st != PD_OK)
        return st;
    if (!pd_node_id_eq(&desc->id, &peers->self->id))
        return PD_EINVAL;
    struct pd_peers_change *change = (struct pd_peers_change *)pd_calloc(1, sizeof *change);
    if (change == NULL)
        return PD_ENOMEM;
    change->mine = pd_desc_copy(desc);
    change->shown = pd_desc_copy(desc);
    if (change->mine == NULL || change->shown == NULL) {
        pd_peers_abort(change);
        return PD_ENOMEM;
    }
    *out = change;
    return PD_OK;
}

void pd_peers_commit(struct pd_peers *peers, struct pd_peers_change *change)
{
    size_t n = 0;
    pd_free(peers->self);
    pd_free(peers->me->desc);
    peers->self = change->mine;
    peers->conf.self = change->mine;
    peers->me->desc = change->shown;
    pd_free(change);
    peers->desc_serial++;
    if (pd_desc_write(peers->self, peers->is_draining, peers->scratch, PD_FRAME_MAX_PAYLOAD, &n) == PD_OK) {
        PD_LIST_EACH(&peers->links, l) {
            struct pd_link *link = PD_LIST_ENTRY(l, struct pd_link, node);
            if (link->state == PD_LINK_UP && link->stream != NULL)
                (void)pd_link_send_simple(link, PD_FRAME_UPDATE, peers->scratch, n);
        }
    }
    pd_peers_emit(peers, peers->me, PD_PEER_ON_CHANGED);
}

pd_status pd_peers_update(struct pd_peers *peers, const struct pd_peer_desc *desc)
{
    struct pd_peers_change *change = NULL;
    pd_status st = pd_peers_prepare(peers, desc, &change);
    if (st == PD_OK)
        pd_peers_commit(peers, change);
    return st;
}

const struct pd_peer_desc *pd_peers_self(const struct pd_peers *peers)
{
    return peers->self;
}

void pd_peers_drain(struct pd_peers *peers, bool draining)
{
    peers->is_draining = draining;
    PD_LIST_EACH(&peers->links, l) {
        struct pd_link *link = PD_LIST_ENTRY(l, struct pd_link, node);
        if (link->state == PD_LINK_UP && link->stream != NULL)
            pd_link_send_heartbeat(link);
    }
    pd_peers_emit(peers, peers->me, PD_PEER_ON_CHANGED);
}
