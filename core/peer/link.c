/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to another node: its life from connecting to the end, hello,
 * frames in.  What goes out is in link_queue.c, signs of life in link_life.c.
 *
 * The loop back to ourselves is a link without a stream: what its queue holds goes
 * through the same parser, so calls know no difference.
 *
 *   initiator                          acceptor
 *   CONNECTING
 *   PREAMBLE  -- preamble -->          PREAMBLE
 *   PREAMBLE  <-- preamble --
 *   HELLO     -- hello, proof -->      HELLO      checks the proof first
 *             <-- hello, proof --      READY
 *   READY     -- ready -->             (admit.c says who has the last word)
 *   UP        <-- ready --             UP
 *
 * Nothing of a hello is looked at before its proof has been checked; the
 * acceptor shows its own only to an initiator that has proved itself. */
#include "peer/priv.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "net/digest.h"
#include "net/tls.h"

#define READS_PER_TURN 4
#define TURN_BYTES (1024u * 1024u)
/* Above the limit of what calls may queue: room for answers of the protocol. */
#define PAUSE_SLACK (256u * 1024u)

static void on_task(struct pd_task *task, void *arg);
static void on_timer(struct pd_timer *timer, void *arg);
static void parse(struct pd_link *link);

/* ---- life */

static struct pd_link *link_create(struct pd_peers *peers)
{
    struct pd_link *link = (struct pd_link *)pd_calloc(1, sizeof *link);
    if (link == NULL)
        return NULL;
    link->rx = (uint8_t *)pd_alloc(PD_FRAME_MAX);
    if (link->rx == NULL) {
        pd_free(link);
        return NULL;
    }
    link->peers = peers;
    pd_list_init(&link->node);
    pd_list_init(&link->tx);
    pd_list_init(&link->senders);
    pd_list_init(&link->ready);
    pd_calls_init(link);
    pd_task_init(&link->task, "peer link", on_task, link);
    pd_timer_init(&link->timer, peers->loop, "peer link", on_timer, link);
    link->mine.version_min = PD_HELLO_VERSION_MIN;
    link->mine.version_max = PD_HELLO_VERSION_MAX;
    link->mine.auth = peers->secret_n > 0;
    link->mine.window = peers->conf.window;
    link->mine.max_message = peers->conf.max_message;
    link->last_rx = pd_loop_now(peers->loop);
    pd_list_append(&peers->links, &link->node);
    peers->n_links++;
    return link;
}

static void link_free(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    pd_link_drop_queue(link);
    pd_calls_fini(link);
    pd_timer_stop(&link->timer);
    pd_task_cancel(peers->loop, &link->task);
    pd_list_remove(&link->node);
    peers->n_links--;
    pd_free(link->desc);
    pd_free(link->rx);
    pd_free(link);
    pd_peers_link_closed(peers);
}

static void close_now(struct pd_link *link)
{
    if (link->state == PD_LINK_CLOSED)
        return;
    link->state = PD_LINK_CLOSED;
    pd_timer_stop(&link->timer);
    pd_task_cancel(link->peers->loop, &link->task);
    if (link->stream != NULL)
        pd_stream_close(link->stream);
}

void pd_link_close_self(struct pd_link *link)
{
    pd_link_fail(link, PD_GOODBYE_NONE, "");
    link_free(link);
}

static void send_goodbye(struct pd_link *link, uint32_t reason, const char *text)
{
    uint8_t b[4 + 128];
    size_t n = strlen(text);
    n = PD_MIN(n, 128u);
    pd_wire_put_u16(b, (uint16_t)reason);
    pd_wire_put_u16(b + 2, (uint16_t)n);
    memcpy(b + 4, text, n);
    (void)pd_link_send_simple(link, PD_FRAME_GOODBYE, b, 4 + n);
    pd_peers_count_goodbye(link->peers, true, reason);
}

void pd_link_fail(struct pd_link *link, uint32_t reason, const char *detail)
{
    struct pd_peers *peers = link->peers;
    if (link->state >= PD_LINK_CLOSING)
        return;
    bool can_talk = link->stream != NULL && link->state >= PD_LINK_PREAMBLE;
    bool polite = can_talk && reason != PD_GOODBYE_NONE && reason != PD_GOODBYE_TIMEOUT &&
                  link->fail_reason == 0;
    if (reason != PD_GOODBYE_NONE)
        pd_log_info(peers->log, "link to %s ends: %s%s%s",
                    link->address[0] ? link->address : "self",
                    pd_goodbye_text(reason), detail[0] ? ": " : "", detail);
    if (polite)
        send_goodbye(link, reason, detail);
    else if (reason != PD_GOODBYE_NONE)
        pd_peers_count_goodbye(peers, true, reason);
    link->state = PD_LINK_CLOSING;
    if (polite && pd_link_write(link) && link->tx_bytes == 0 &&
        pd_stream_shutdown_write(link->stream) == PD_OK) {
        if (link->is_paused)
            pd_stream_resume_read(link->stream);
        pd_link_set_timer(link, pd_loop_now(peers->loop) + PD_LINK_LINGER);
    } else {
        close_now(link);
    }
    pd_calls_end_all(link, PD_EPEER);
    pd_admit_lost(link, reason);
}

/* ---- hello */

static pd_status make_proof(struct pd_link *link, bool of_initiator, bool is_mine, const void *desc,
                            size_t n, uint8_t mac[PD_HELLO_MAC])
{
    static const char label[] = "pdplane peer hello 1";
    uint8_t sender[PD_HELLO_PREAMBLE], receiver[PD_HELLO_PREAMBLE];
    char role = of_initiator ? 'I' : 'A';
    pd_preamble_write(is_mine ? &link->mine : &link->theirs, sender);
    pd_preamble_write(is_mine ? &link->theirs : &link->mine, receiver);
    struct pd_iov iov[] = {
        { (void *)(uintptr_t)label, sizeof label }, { &role, 1 },
        { sender, sizeof sender }, { receiver, sizeof receiver },
        { (void *)(uintptr_t)desc, n },
    };
    return pd_hmac_sha256(link->peers->secret, link->peers->secret_n, iov, PD_ARRAY_LEN(iov), mac);
}

static void send_hello(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    uint8_t *b = peers->scratch;
    size_t n = 0;
    memset(b, 0, PD_HELLO_MAC);
    pd_status st = pd_desc_write(peers->self, peers->is_draining, b + PD_HELLO_MAC,
                                 PD_FRAME_MAX_PAYLOAD - PD_HELLO_MAC, &n);
    if (st == PD_OK && peers->secret_n > 0)
        st = make_proof(link, link->is_initiator, true, b + PD_HELLO_MAC, n, b);
    if (st != PD_OK) {
        pd_link_fail(link, PD_GOODBYE_MEMORY, "");
        return;
    }
    link->told = peers->desc_serial;
    (void)pd_link_send_simple(link, PD_FRAME_HELLO, b, PD_HELLO_MAC + n);
}

static void begin_hello(struct pd_link *link)
{
    uint8_t b[PD_HELLO_PREAMBLE];
    pd_loop_random(link->peers->loop, link->mine.nonce, sizeof link->mine.nonce);
    pd_preamble_write(&link->mine, b);
    link->state = PD_LINK_PREAMBLE;
    (void)pd_link_send_simple(link, PD_FRAME_PREAMBLE, b, sizeof b);
}

static void got_preamble(struct pd_link *link, const uint8_t *p, size_t n)
{
    if (pd_preamble_read(p, n, &link->theirs) != PD_OK) {
        pd_link_fail(link, PD_GOODBYE_PROTOCOL, "preamble");
        return;
    }
    if (pd_preamble_agree(&link->mine, &link->theirs) == 0) {
        pd_link_fail(link, PD_GOODBYE_VERSION, "");
        return;
    }
    if (link->mine.auth != link->theirs.auth) {
        pd_peers_count(link->peers, PD_COUNT_AUTH, 1);
        pd_log_warn(link->peers->log, "peer at %s %s a shared secret, this node %s", link->address,
                    link->theirs.auth ? "has" : "has not", link->mine.auth ? "has" : "has not");
        pd_link_fail(link, PD_GOODBYE_AUTH, "one side has a secret, the other has none");
        return;
    }
    link->state = PD_LINK_HELLO;
    if (link->is_initiator)
        send_hello(link);
}

static void got_hello(struct pd_link *link, const uint8_t *p, size_t n)
{
    struct pd_peers *peers = link->peers;
    uint8_t mac[PD_HELLO_MAC];
    if (n < PD_HELLO_MAC) {
        pd_link_fail(link, PD_GOODBYE_PROTOCOL, "hello");
        return;
    }
    if (peers->secret_n > 0) {
        pd_status st = make_proof(link, !link->is_initiator, false, p + PD_HELLO_MAC,
                                  n - PD_HELLO_MAC, mac);
        if (st != PD_OK || !pd_secret_equal(mac, p, sizeof mac)) {
            pd_peers_count(peers, PD_COUNT_AUTH, 1);
            pd_log_warn(peers->log, "peer at %s does not know the shared secret", link->address);
            pd_link_fail(link, PD_GOODBYE_AUTH, "");
            return;
        }
    }
    pd_status st = pd_desc_read(p + PD_HELLO_MAC, n - PD_HELLO_MAC, &link->desc,
                                &link->is_draining);
    if (st != PD_OK) {
        pd_link_fail(link, st == PD_ENOMEM ? PD_GOODBYE_MEMORY : PD_GOODBYE_PROTOCOL, "hello");
        return;
    }
    if (!link->is_initiator)
        send_hello(link);
    if (link->state == PD_LINK_HELLO) {
        link->state = PD_LINK_READY;
        pd_admit_hello(link);
    }
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct pd_link *link = (struct pd_link *)arg;
    (void)timer;
    if (link->state == PD_LINK_CLOSING)
        close_now(link);
    else if (link->state == PD_LINK_UP && link->stream == NULL)
        pd_link_tick_self(link);
    else if (link->state == PD_LINK_UP)
        pd_link_tick(link);
    else
        pd_link_fail(link, PD_GOODBYE_TIMEOUT, "hello");
}

/* ---- frames */

static void got_goodbye(struct pd_link *link, const uint8_t *p, size_t n)
{
    uint32_t reason = n >= 2 ? pd_wire_get_u16(p) : PD_GOODBYE_NONE;
    pd_log_info(link->peers->log, "peer at %s ends the link: %s", link->address,
                pd_goodbye_text(reason));
    if (reason == PD_GOODBYE_AUTH)
        pd_log_warn(link->peers->log, "peer at %s refuses this node: wrong shared secret",
                    link->address);
    if (reason >= PD_GOODBYES)
        reason = PD_GOODBYE_NONE;
    pd_peers_count_goodbye(link->peers, false, reason);
    link->state = PD_LINK_CLOSING;
    close_now(link);
    pd_calls_end_all(link, PD_EPEER);
    pd_admit_lost(link, reason);
}

static void got_update(struct pd_link *link, const uint8_t *p, size_t n)
{
    struct pd_peer_desc *desc = NULL;
    bool draining = false;
    pd_status st = pd_desc_read(p, n, &desc, &draining);
    if (st != PD_OK) {
        pd_link_fail(link, st == PD_ENOMEM ? PD_GOODBYE_MEMORY : PD_GOODBYE_PROTOCOL, "update");
        return;
    }
    link->is_draining = draining;
    pd_admit_update(link, desc);
}

static void got_frame(struct pd_link *link, const struct pd_frame *f, const uint8_t *p)
{
    static const uint8_t expected[] = {
        [PD_LINK_PREAMBLE] = PD_FRAME_PREAMBLE,
        [PD_LINK_HELLO] = PD_FRAME_HELLO,
        [PD_LINK_READY] = PD_FRAME_READY,
    };
    if (f->type == PD_FRAME_GOODBYE && link->stream != NULL) {
        got_goodbye(link, p, f->length);
    } else if (link->state < PD_LINK_UP) {
        if (f->type != expected[link->state])
            pd_link_fail(link, PD_GOODBYE_PROTOCOL, "frame out of order");
        else if (f->type == PD_FRAME_PREAMBLE)
            got_preamble(link, p, f->length);
        else if (f->type == PD_FRAME_HELLO)
            got_hello(link, p, f->length);
        else
            pd_admit_ready(link);
    } else if (f->type == PD_FRAME_HEARTBEAT) {
        pd_link_got_heartbeat(link, p, f->length);
    } else if (f->type == PD_FRAME_UPDATE) {
        got_update(link, p, f->length);
    } else if (f->type >= PD_FRAME_OPEN) {
        uint32_t reason = pd_calls_frame(link, f, p);
        if (reason != 0)
            pd_link_fail(link, reason, "call");
    } else {
        pd_link_fail(link, PD_GOODBYE_PROTOCOL, "frame out of order");
    }
}

static void alive(struct pd_link *link)
{
    link->last_rx = pd_loop_now(link->peers->loop);
    if (link->peer == NULL)
        return;
    link->peer->seen_at = link->last_rx;
    if (link->state == PD_LINK_UP && link->peer->state == PD_PEER_SUSPECT) {
        pd_peer_set_state(link->peer, PD_PEER_UP, "");
        pd_peers_emit(link->peers, link->peer, PD_PEER_ON_UP);
    }
}

/* Handles all whole frames in rx. */
static void parse(struct pd_link *link)
{
    size_t at = 0;
    while (link->rx_n - at >= PD_FRAME_HEADER) {
        struct pd_frame f;
        const uint8_t *in = link->rx + at;
        pd_status st = pd_frame_read(in, &f);
        if (st != PD_OK) {
            pd_link_fail(link, st == PD_EINTEGRITY ? PD_GOODBYE_CHECKSUM : PD_GOODBYE_PROTOCOL,
                         "frame header");
            return;
        }
        if (link->rx_n - at - PD_FRAME_HEADER < f.length)
            break;
        if (!pd_frame_is_intact(in + PD_FRAME_HEADER, &f)) {
            pd_link_fail(link, PD_GOODBYE_CHECKSUM, "");
            return;
        }
        got_frame(link, &f, in + PD_FRAME_HEADER);
        if (link->state >= PD_LINK_CLOSING)
            return;
        at += PD_FRAME_HEADER + f.length;
    }
    link->rx_n -= at;
    if (at > 0 && link->rx_n > 0)
        memmove(link->rx, link->rx + at, link->rx_n);
}

static void on_readable(struct pd_stream *s, void *arg)
{
    struct pd_link *link = (struct pd_link *)arg;
    for (int i = 0; i < READS_PER_TURN && !link->is_paused; i++) {
        size_t got = 0;
        bool discard = link->state >= PD_LINK_CLOSING;
        if (discard)
            link->rx_n = 0;
        size_t room = PD_FRAME_MAX - link->rx_n;
        pd_status st = pd_stream_read(s, link->rx + link->rx_n, room, &got);
        if (st == PD_EAGAIN)
            return;
        if (st != PD_OK) {
            if (discard)
                close_now(link);
            else
                pd_link_fail(link, PD_GOODBYE_NONE, "");
            return;
        }
        if (discard)
            continue;
        link->rx_n += got;
        link->bytes_in += got;
        pd_peers_count(link->peers, PD_COUNT_BYTES_IN, got);
        alive(link);
        if (link->state < PD_LINK_CLOSING)
            parse(link);
        if (link->state == PD_LINK_CLOSED || got < room)
            return;
    }
}

/* ---- the end of a turn */

static void flush_self(struct pd_link *link)
{
    size_t todo = PD_MIN(link->tx_bytes, TURN_BYTES);
    while (todo > 0 && link->state == PD_LINK_UP) {
        struct pd_chunk *c = PD_LIST_ENTRY(link->tx.next, struct pd_chunk, node);
        size_t n = c->tail - c->head, room = PD_FRAME_MAX - link->rx_n;
        n = PD_MIN(n, PD_MIN(room, todo));
        memcpy(link->rx + link->rx_n, c->bytes + c->head, n);
        link->rx_n += n;
        todo -= n;
        pd_link_consume(link, n);
        parse(link);
    }
    pd_calls_pump(link);
    if (link->tx_bytes > 0 && link->state == PD_LINK_UP)
        pd_loop_defer(link->peers->loop, &link->task);
}

static void flush_stream(struct pd_link *link)
{
    size_t before = link->bytes_out;
    for (;;) {
        if (link->state == PD_LINK_UP)
            pd_calls_pump(link);
        if (link->tx_bytes == 0 || link->is_blocked)
            break;
        if (!pd_link_write(link)) {
            pd_link_fail(link, PD_GOODBYE_NONE, "");
            return;
        }
        if (link->bytes_out - before > TURN_BYTES) {
            pd_loop_defer(link->peers->loop, &link->task);
            break;
        }
    }
    size_t limit = link->peers->conf.link_queue;
    if (!link->is_paused && link->tx_bytes > limit + PAUSE_SLACK) {
        link->is_paused = true;
        pd_stream_pause_read(link->stream);
    } else if (link->is_paused && link->tx_bytes <= limit) {
        link->is_paused = false;
        pd_stream_resume_read(link->stream);
    }
}

static void on_task(struct pd_task *task, void *arg)
{
    struct pd_link *link = (struct pd_link *)arg;
    (void)task;
    if (link->state >= PD_LINK_CLOSING)
        return;
    if (link->fail_reason != 0) {
        pd_link_fail(link, link->fail_reason, "");
        return;
    }
    if (link->state == PD_LINK_CONNECTING)
        return;
    pd_calls_deliver(link);
    if (link->state >= PD_LINK_CLOSING)
        return;
    if (link->stream == NULL) {
        flush_self(link);
    } else {
        link->is_flushing = true;
        flush_stream(link);
        link->is_flushing = false;
    }
    if (link->state < PD_LINK_CLOSING && link->fail_reason != 0)
        pd_loop_defer(link->peers->loop, &link->task);
}

static void on_writable(struct pd_stream *s, void *arg)
{
    struct pd_link *link = (struct pd_link *)arg;
    (void)s;
    link->is_blocked = false;
    if (link->state == PD_LINK_CLOSING)
        return;
    on_task(&link->task, link);
}

static void on_connected(struct pd_stream *s, pd_status status, void *arg)
{
    struct pd_link *link = (struct pd_link *)arg;
    (void)s;
    if (link->state != PD_LINK_CONNECTING)
        return;
    if (status != PD_OK) {
        pd_link_fail(link, PD_GOODBYE_NONE, "");
        return;
    }
    pd_peers_count(link->peers, PD_COUNT_CONNECTS, 1);
    begin_hello(link);
}

static void on_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    link_free((struct pd_link *)arg);
}

static const struct pd_stream_events link_events = {
    .name = "peer link",
    .on_connected = on_connected,
    .on_readable = on_readable,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

pd_status pd_link_open(struct pd_dial *dial, const struct pd_addr *addr)
{
    struct pd_peers *peers = dial->peers;
    if (peers->n_links >= peers->conf.max_links) {
        pd_peers_count(peers, PD_COUNT_LIMIT, 1);
        return PD_ELIMIT;
    }
    struct pd_link *link = link_create(peers);
    if (link == NULL)
        return PD_ENOMEM;
    link->is_initiator = true;
    link->state = PD_LINK_CONNECTING;
    pd_addr_format(peers->loop, addr, link->address, sizeof link->address);
    pd_status st = peers->conf.tls != NULL
        ? pd_tls_connect(peers->conf.tls, addr, &link_events, link, &link->stream)
        : pd_stream_connect(peers->loop, addr, &link_events, link, &link->stream);
    if (st != PD_OK) {
        link_free(link);
        return st;
    }
    pd_link_set_timer(link, pd_loop_now(peers->loop) + peers->conf.connect_timeout);
    link->dial = dial;
    dial->link = link;
    return PD_OK;
}

bool pd_link_accept(struct pd_peers *peers, struct pd_stream *stream)
{
    struct pd_addr addr;
    if (peers->is_closing || peers->n_links >= peers->conf.max_links) {
        pd_peers_count(peers, PD_COUNT_LIMIT, 1);
        return false;
    }
    struct pd_link *link = link_create(peers);
    if (link == NULL)
        return false;
    link->stream = stream;
    pd_stream_set_events(stream, &link_events, link);
    if (pd_stream_peer_addr(stream, &addr) == PD_OK)
        pd_addr_format(peers->loop, &addr, link->address, sizeof link->address);
    pd_link_set_timer(link, pd_loop_now(peers->loop) + peers->conf.connect_timeout);
    begin_hello(link);
    return true;
}

pd_status pd_link_open_self(struct pd_peers *peers)
{
    struct pd_link *link = link_create(peers);
    if (link == NULL)
        return PD_ENOMEM;
    link->theirs = link->mine;
    link->peer = peers->me;
    peers->me->link = link;
    pd_link_set_up(link);
    return PD_OK;
}
