/* SPDX-License-Identifier: Apache-2.0 */
/* The peer table of a node: who is known, who watches, which services are
 * offered.  References count up and are never used twice; a peer that is
 * removed leaves nothing behind that could be mistaken for its successor. */
#include "peer/priv.h"

#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"
#include "net/tls.h"
#include "net/digest.h"

/* ---- counters */

void pd_peers_count(struct pd_peers *peers, enum pd_peers_counter which, uint64_t n)
{
    peers->count[which] += n;
    pd_counter_add(peers->metric[which], n);
}

void pd_peers_count_goodbye(struct pd_peers *peers, bool sent, uint32_t reason)
{
    peers->goodbyes[sent][reason]++;
    pd_counter_inc(peers->metric_goodbyes[sent][reason]);
}

static void make_metrics(struct pd_peers *peers)
{
    static const struct {
        const char *name;
        const char *help;
    } rows[PD_COUNTS] = {
        [PD_COUNT_CALLS_OPENED] = { "pdplane_peer_calls_opened_total",
                                    "Calls opened to services of peers." },
        [PD_COUNT_CALLS_SERVED] = { "pdplane_peer_calls_served_total",
                                    "Calls of peers given to a service." },
        [PD_COUNT_CALLS_REFUSED] = { "pdplane_peer_calls_refused_total",
                                     "Calls of peers refused: no such service, or a limit." },
        [PD_COUNT_CALLS_CANCELED] = { "pdplane_peer_calls_canceled_total",
                                      "Calls canceled by this node." },
        [PD_COUNT_LATE] = { "pdplane_peer_late_frames_total",
                            "Frames that came for calls already over." },
        [PD_COUNT_LIMIT] = { "pdplane_peer_limit_total",
                             "Links, peers, calls or messages refused at a limit." },
        [PD_COUNT_AUTH] = { "pdplane_peer_auth_failures_total",
                            "Peers that did not prove the shared secret." },
        [PD_COUNT_BYTES_IN] = { "pdplane_peer_received_bytes_total",
                                "Bytes received on peer links." },
        [PD_COUNT_BYTES_OUT] = { "pdplane_peer_sent_bytes_total", "Bytes sent on peer links." },
        [PD_COUNT_CONNECTS] = { "pdplane_peer_connects_total", "Connections made to peers." },
        [PD_COUNT_SUSPECTS] = { "pdplane_peer_suspects_total",
                                "Times a peer was silent for too long." },
        [PD_COUNT_DOWNS] = { "pdplane_peer_downs_total", "Times a link to a peer was lost." },
    };
    static const char *const labels[] = { "direction", "reason" };
    static const struct pd_metric_desc goodbye = {
        .size = sizeof goodbye, .name = "pdplane_peer_goodbyes_total",
        .help = "Links ended, by who said so and why.", .labels = labels, .n_labels = 2,
    };
    struct pd_metrics *m = peers->conf.metrics;
    struct pd_metric_family *family = NULL;
    if (m == NULL)
        return;
    for (int i = 0; i < PD_COUNTS; i++)
        peers->metric[i] = pd_metrics_simple_counter(m, rows[i].name, rows[i].help);
    peers->metric_up = pd_metrics_simple_gauge(m, "pdplane_peers_up",
                                               "Peers with a link, self not counted.");
    if (pd_metrics_family(m, PD_METRIC_COUNTER, &goodbye, NULL, &family) != PD_OK)
        return;
    for (int sent = 0; sent < 2; sent++)
        for (uint32_t r = 0; r < PD_GOODBYES; r++) {
            const char *values[] = { sent ? "sent" : "received", pd_goodbye_label(r) };
            peers->metric_goodbyes[sent][r] = pd_metrics_counter(m, family, values);
        }
}

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

static void peer_free(struct pd_peer *peer)
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
    peer_free(peer);
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
            peer_free(peer);
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

/* ---- the node's side */

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
        peer_free(PD_LIST_ENTRY(l, struct pd_peer, node));
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
    make_metrics(peers);
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
}
