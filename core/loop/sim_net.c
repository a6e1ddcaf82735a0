/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated network: links, packets, and what connections do with them; sim_conn.c
 * makes and ends connections.
 *
 * A connection is a small TCP: bytes have offsets, the sender keeps them until
 * they are acknowledged, the receiver takes them in order and says how much
 * more it has room for.  What is lost (a partition, a silent host) is sent
 * again after a time that doubles, and after dead_ns without an answer the
 * sender's stream fails.  So everything a real network does to a stream comes out of
 * packets that arrive, arrive late, or do not.
 *
 * A packet carries no bytes: it names offsets, and the bytes are fetched from
 * the sender's ring when it arrives.  They are there, because the ring is cut
 * only by acknowledgements, and belongs to the connection, not to the host. */
#include "loop/sim_net_int.h"

#include <string.h>

#define RTO_MIN (200 * PD_MS)
#define RTO_MAX (5 * PD_SEC)

/* ---- who is where */

bool pd_loop_sim_is_loopback(const struct pd_addr *a)
{
    static const uint8_t v6[16] = { [15] = 1 };

    return a->family == PD_AF_UNIX || (a->family == PD_AF_IPV4 && a->ip[0] == 127) ||
           (a->family == PD_AF_IPV6 && memcmp(a->ip, v6, 16) == 0);
}

struct sim_host *pd_loop_sim_host_by_ip(struct pd_sim *sim, struct sim_host *from,
                                        const struct pd_addr *ip)
{
    if (pd_loop_sim_is_loopback(ip))
        return from;
    for (uint32_t i = 0; i < sim->host_count; i++) {
        struct sim_host *h = sim->hosts[i];
        if (h->ip.family == ip->family && memcmp(h->ip.ip, ip->ip, 16) == 0)
            return h;
    }
    return NULL;
}

static struct sim_link *link_of(struct sim_host *from, struct sim_host *to)
{
    return &from->links[to->index];
}

const struct pd_sim_link *pd_loop_sim_link_conf(struct sim_host *from, struct sim_host *to)
{
    static const struct pd_sim_link self = { .latency_ns = 5 * PD_US };
    struct sim_link *k = link_of(from, to);

    if (k->is_set)
        return &k->conf;
    return from == to ? &self : &from->sim->opts.link;
}

bool pd_loop_sim_conn_is_blocked(struct sim_conn *c, struct sim_host *from, struct sim_host *to)
{
    return c->is_half_open || link_of(from, to)->is_cut ||
           pd_loop_sim_link_conf(from, to)->blocked != 0;
}

/* ---- packets */

static struct sim_packet *packet_alloc(struct pd_sim *sim)
{
    struct sim_packet *p = sim->free_packets;

    if (p != NULL) {
        sim->free_packets = p->next_free;
        memset(p, 0, sizeof *p);
        return p;
    }
    return pd_calloc(1, sizeof *p);
}

void pd_loop_sim_packet_free(struct pd_sim *sim, struct pd_loop_node *n)
{
    struct sim_packet *p = pd_container_of(n, struct sim_packet, node);
    struct sim_conn *c = p->c;

    p->next_free = sim->free_packets;
    sim->free_packets = p;
    pd_loop_sim_conn_unref(c);
}

/* When a packet sent now arrives.  Data takes the link's time; all packets of
 * a direction but acknowledgements keep their order. */
static pd_time arrival(struct sim_conn *c, uint8_t from, uint8_t type, uint32_t len)
{
    struct pd_sim *sim = c->sim;
    struct sim_host *a = c->end[from].host, *b = c->end[1 - from].host;
    const struct pd_sim_link *conf = pd_loop_sim_link_conf(a, b);
    struct sim_link *k = link_of(a, b);
    struct sim_dir *d = &c->dir[from];
    pd_time t = sim->now;

    if (type == SIM_DATA && conf->bytes_per_s > 0) {
        if (k->busy_until > t)
            t = k->busy_until;
        t += (pd_time)((unsigned __int128)len * PD_SEC / conf->bytes_per_s);
        k->busy_until = t;
    }
    t += conf->latency_ns;
    if (conf->jitter_ns > 0)
        t += pd_loop_sim_rng_below(&sim->net, conf->jitter_ns + 1);
    if (type == SIM_DATA && sim_rng_ppm(&sim->net, conf->loss_ppm))
        t += conf->retransmit_ns;
    if (type != SIM_ACK) {
        if (t <= d->last_arrival)
            t = d->last_arrival + 1;
        d->last_arrival = t;
    }
    return t;
}

struct sim_packet *pd_loop_sim_packet_send(struct sim_conn *c, uint8_t from, uint8_t type, uint32_t len)
{
    struct sim_host *a = c->end[from].host, *b = c->end[1 - from].host;
    struct sim_packet *p;

    if (b == NULL || pd_loop_sim_conn_is_blocked(c, a, b))
        return NULL;
    p = packet_alloc(c->sim);
    if (p == NULL)
        return NULL;
    p->c = c;
    p->type = type;
    p->from = from;
    p->len = len;
    c->refs++;
    pd_loop_sim_schedule(c->sim, &p->node, SIM_PACKET, NULL, arrival(c, from, type, len));
    return p;
}

/* ---- sending */

static void arm_retry(struct sim_conn *c, uint8_t i)
{
    struct sim_dir *d = &c->dir[i];
    pd_time from = PD_MAX(c->sim->now, d->last_arrival);

    if (d->retry.kind != 0)
        return;
    d->armed_at = c->sim->now;
    c->refs++;
    pd_loop_sim_schedule(c->sim, &d->retry, SIM_RETRY, NULL, from + d->rto);
}

static pd_time base_rto(struct sim_conn *c)
{
    struct sim_host *a = c->end[0].host, *b = c->end[1].host;
    const struct pd_sim_link *ab = pd_loop_sim_link_conf(a, b), *ba = pd_loop_sim_link_conf(b, a);

    return RTO_MIN + 2 * (ab->latency_ns + ba->latency_ns + ab->jitter_ns + ba->jitter_ns);
}

static void send_data(struct sim_conn *c, uint8_t i, uint32_t n, bool fin)
{
    struct sim_dir *d = &c->dir[i];
    struct pd_sim *sim = c->sim;
    const struct pd_sim_link *conf = pd_loop_sim_link_conf(c->end[i].host, c->end[1 - i].host);
    struct sim_packet *p;

    p = pd_loop_sim_packet_send(c, i, SIM_DATA, n);
    if (p != NULL) {
        p->off = d->next;
        p->fin = fin;
        if (sim_rng_ppm(&sim->net, conf->reset_ppm)) {
            p->type = SIM_RST;
            pd_loop_sim_packet_send(c, 1 - i, SIM_RST, 0);
        }
    }
    d->next += n + (fin ? 1 : 0);
}

/* at_least_one: a probe goes out although the window is shut. */
static void pump(struct sim_conn *c, uint8_t i, bool at_least_one)
{
    struct sim_dir *d = &c->dir[i];
    uint64_t end = d->written + (d->fin ? 1 : 0);
    uint32_t segment = c->sim->opts.segment_bytes;

    if (!c->is_established || !c->end[i].is_open)
        return;
    while (d->next < end) {
        uint64_t left = d->written > d->next ? d->written - d->next : 0;
        uint64_t window = d->edge > d->next ? d->edge - d->next : at_least_one ? 1 : 0;
        uint64_t n = PD_MIN(PD_MIN(left, window), segment);
        bool fin = d->fin && d->next + n == d->written;
        uint64_t next = d->next;
        if (n == 0 && !fin)
            break;
        send_data(c, i, (uint32_t)n, fin);
        if (n > 0 && next >= d->edge) {
            d->next = next;     /* a probe does not count as sent */
            break;
        }
    }
    if (d->acked < end)
        arm_retry(c, i);
}

void pd_loop_sim_conn_pump(struct sim_conn *c, uint8_t i)
{
    struct sim_dir *d = &c->dir[i];

    /* Silence counts from the moment there is something to answer. */
    if (d->retry.kind == 0 && c->is_established && c->end[i].is_open) {
        d->heard = c->sim->now;
        d->rto = base_rto(c);
    }
    pump(c, i, false);
}

static void retry_syn(struct sim_conn *c)
{
    struct sim_dir *d = &c->dir[0];
    pd_time limit = c->began + c->sim->opts.connect_timeout_ns;

    if (c->sim->now >= limit) {
        pd_loop_sim_conn_fail(c, 0, PD_ETIMEDOUT);
        return;
    }
    pd_loop_sim_packet_send(c, 0, SIM_SYN, 0);
    d->rto = PD_MIN(d->rto * 2, RTO_MAX);
    c->refs++;
    pd_loop_sim_schedule(c->sim, &d->retry, SIM_RETRY, NULL, PD_MIN(c->sim->now + d->rto, limit));
}

static void retry_data(struct sim_conn *c, uint8_t i)
{
    struct sim_dir *d = &c->dir[i];
    struct sim_end *e = &c->end[i];
    uint64_t end = d->written + (d->fin ? 1 : 0);
    pd_time limit = e->user_timeout != 0 ? e->user_timeout : c->sim->opts.dead_ns;

    if (d->acked >= end)
        return;
    if (d->heard > d->armed_at) {
        d->rto = base_rto(c);
    } else if (c->sim->now - d->heard >= limit) {
        pd_loop_sim_conn_fail(c, i, PD_ETIMEDOUT);
        return;
    } else {
        d->next = d->acked;
        d->rto = PD_MIN(d->rto * 2, RTO_MAX);
    }
    pump(c, i, true);
}

void pd_loop_sim_retry(struct pd_sim *sim, struct pd_loop_node *n)
{
    struct sim_dir *d = pd_container_of(n, struct sim_dir, retry);
    uint8_t i = (uint8_t)n->reserved;
    struct sim_conn *c;

    (void)sim;
    c = i == 0 ? pd_container_of(d, struct sim_conn, dir[0])
               : pd_container_of(d, struct sim_conn, dir[1]);
    if (c->end[i].is_open && c->is_established)
        retry_data(c, i);
    else if (c->end[i].is_open)
        retry_syn(c);
    pd_loop_sim_conn_unref(c);
}

static void send_ack(struct sim_conn *c, uint8_t receiver)
{
    struct sim_dir *d = &c->dir[1 - receiver];
    struct sim_packet *p;

    d->advertised = d->got + pd_loop_sim_conn_buffer(c) - d->rcv.fill;
    p = pd_loop_sim_packet_send(c, receiver, SIM_ACK, 0);
    if (p != NULL) {
        p->off = d->got;
        p->edge = d->advertised;
    }
}

void pd_loop_sim_conn_has_read(struct sim_conn *c, uint8_t i)
{
    struct sim_dir *d = &c->dir[1 - i];
    uint64_t edge = d->got + pd_loop_sim_conn_buffer(c) - d->rcv.fill;

    if (c->end[i].is_open && !d->got_fin && edge - d->advertised >= pd_loop_sim_conn_buffer(c) / 4)
        send_ack(c, i);
}

/* ---- arriving */

static void arrive_syn(struct sim_conn *c)
{
    struct sim_end *e = &c->end[1];
    struct sim_host *h = e->host;
    struct pd_listener *s;

    if (e->is_open) {
        pd_loop_sim_packet_send(c, 1, SIM_SYNACK, 0);
        return;
    }
    s = h->loop != NULL ? pd_loop_sim_listener_find(h->loop, &e->addr) : NULL;
    if (s == NULL) {
        pd_loop_sim_log(c->sim, h, "refuse", NULL, c->id, e->addr.port);
        pd_loop_sim_conn_send_reset(c, 1);
        return;
    }
    if (s->waiting_count >= s->backlog) {
        pd_loop_sim_log(c->sim, h, "backlog full", s->name, c->id, e->addr.port);
        return;
    }
    e->is_open = true;
    e->listener = s;
    c->refs++;
    s->waiting_count++;
    pd_list_append(&s->waiting, &e->waiting);
    pd_loop_sim_packet_send(c, 1, SIM_SYNACK, 0);
    if (!s->is_paused)
        pd_loop_sim_wake(s->l);
}

static void arrive_synack(struct sim_conn *c)
{
    struct sim_stream *s = c->end[0].s;

    if (c->is_established)
        return;
    c->is_established = true;
    pd_loop_sim_conn_cancel_retry(c, 0);
    if (s != NULL && s->state == SIM_CONNECTING) {
        s->tell_connected = true;
        s->connect_status = PD_OK;
        pd_loop_sim_stream_ready(s);
    }
    pd_loop_sim_conn_pump(c, 0);
    pd_loop_sim_conn_pump(c, 1);
}

/* Takes the new part of the packet's bytes, as far as there is room. */
static void take_bytes(struct sim_conn *c, struct sim_packet *p)
{
    struct sim_dir *d = &c->dir[p->from];
    struct sim_host *a = c->end[p->from].host, *b = c->end[1 - p->from].host;
    struct sim_link *k = link_of(a, b);
    uint64_t skip = d->got - p->off, n;
    bool flip = false;

    if (d->got_fin || skip > p->len)
        return;
    n = PD_MIN(p->len - skip, pd_loop_sim_conn_buffer(c) - d->rcv.fill);
    if (n > 0) {
        flip = sim_rng_ppm(&c->sim->net, pd_loop_sim_link_conf(a, b)->flip_ppm);
        if (k->flips > 0) {
            k->flips--;
            flip = true;
        }
        if (pd_loop_sim_ring_copy(&d->rcv, &d->snd, (size_t)(d->got - d->acked), (size_t)n, flip,
                                  &c->sim->net) != PD_OK)
            return;
        if (flip)
            pd_loop_sim_log(c->sim, b, "flip", NULL, c->id, n);
        d->got += n;
    }
    if (p->fin && d->got == p->off + p->len) {
        d->got_fin = true;
        d->got++;
    }
}

static void arrive_data(struct sim_conn *c, struct sim_packet *p)
{
    uint8_t to = 1 - p->from;
    struct sim_end *e = &c->end[to];
    struct sim_dir *d = &c->dir[p->from];
    uint64_t before = d->got;

    if (e->is_orphan && p->off + p->len > d->got) {
        /* Nobody will read it. */
        pd_loop_sim_conn_send_reset(c, to);
        pd_loop_sim_conn_fail(c, to, PD_EPEER);
        return;
    }
    if (p->off <= d->got)
        take_bytes(c, p);
    pd_loop_sim_log(c->sim, e->host, p->fin ? "data end" : "data", NULL, c->id, d->got);
    send_ack(c, to);
    if (d->got != before && e->s != NULL)
        pd_loop_sim_stream_ready(e->s);
    pd_loop_sim_conn_maybe_finished(c, to);
}

static void arrive_ack(struct sim_conn *c, struct sim_packet *p)
{
    uint8_t i = 1 - p->from;
    struct sim_dir *d = &c->dir[i];

    d->heard = c->sim->now;
    if (p->edge > d->edge)
        d->edge = p->edge;
    if (p->off > d->acked) {
        uint64_t bytes = PD_MIN(p->off, d->written) - PD_MIN(d->acked, d->written);
        pd_loop_sim_ring_drop(&d->snd, (size_t)bytes);
        d->acked = p->off;
        if (d->next < d->acked)
            d->next = d->acked;
    }
    pump(c, i, false);
    if (c->end[i].s != NULL && c->end[i].s->wants_write)
        pd_loop_sim_stream_ready(c->end[i].s);
    pd_loop_sim_conn_maybe_finished(c, i);
}

void pd_loop_sim_packet_arrive(struct pd_sim *sim, struct pd_loop_node *n)
{
    struct sim_packet *p = pd_container_of(n, struct sim_packet, node);
    struct sim_conn *c = p->c;
    uint8_t to = 1 - p->from;
    struct sim_end *e = &c->end[to];
    struct sim_host *h = e->host;

    if (pd_loop_sim_conn_is_blocked(c, c->end[p->from].host, h) || (h->loop == NULL && h->is_silent)) {
        pd_loop_sim_packet_free(sim, n);
        return;
    }
    if (p->type == SIM_RST) {
        if (e->is_open)
            pd_loop_sim_conn_fail(c, to, PD_EPEER);
    } else if (p->type == SIM_SYN) {
        arrive_syn(c);
    } else if (!e->is_open && c->dir[p->from].got_fin) {
        /* It ended in order; the sender may not know yet. */
        if (p->type == SIM_DATA)
            send_ack(c, to);
    } else if (!e->is_open) {
        pd_loop_sim_conn_send_reset(c, to);
    } else if (p->type == SIM_SYNACK) {
        arrive_synack(c);
    } else if (p->type == SIM_DATA) {
        arrive_data(c, p);
    } else {
        arrive_ack(c, p);
    }
    pd_loop_sim_packet_free(sim, n);
}
