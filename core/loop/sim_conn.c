/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of the simulated network, how they begin and end.
 *
 * A connection stays while anything refers to it: an open end, a stream, a packet, a
 * retry.  An end that is open is answered for by its host's kernel, also when its owner
 * has closed it and what he wrote is still on its way. */
#include "loop/sim_net_int.h"

#define SYN_RTO PD_SEC

struct sim_conn *pd_loop_sim_conn_open(struct sim_stream *s, const struct pd_addr *to)
{
    struct sim_loop *l = sim_of(s->base.loop);
    struct pd_sim *sim = l->sim;
    struct sim_conn *c = pd_calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->sim = sim;
    c->id = ++sim->next_conn;
    c->began = sim->now;
    c->refs = 2;                /* end 0, the stream */
    c->end[0].host = l->host;
    c->end[0].is_open = true;
    c->end[0].s = s;
    c->end[0].addr = pd_loop_sim_is_loopback(to) ? *to : l->host->ip;
    c->end[0].addr.port = to->family == PD_AF_UNIX ? 0 : l->host->next_port++;
    if (l->host->next_port < 32768)
        l->host->next_port = 32768;
    c->end[1].host = pd_loop_sim_host_by_ip(sim, l->host, to);
    c->end[1].addr = *to;
    for (int i = 0; i < 2; i++) {
        c->dir[i].edge = c->dir[i].advertised = pd_loop_sim_conn_buffer(c);
        pd_list_init(&c->end[i].waiting);
    }
    pd_list_init(&c->link);
    pd_list_append(&sim->conns, &c->link);
    c->dir[1].retry.reserved = 1;
    c->dir[0].rto = SYN_RTO;
    pd_loop_sim_packet_send(c, 0, SIM_SYN, 0);
    c->dir[0].armed_at = sim->now;
    c->refs++;
    pd_loop_sim_schedule(sim, &c->dir[0].retry, SIM_RETRY, NULL,
                         sim->now + PD_MIN(SYN_RTO, sim->opts.connect_timeout_ns));
    return c;
}

void pd_loop_sim_conn_free(struct sim_conn *c)
{
    pd_list_remove(&c->link);
    for (int i = 0; i < 2; i++) {
        pd_loop_sim_ring_free(&c->dir[i].snd);
        pd_loop_sim_ring_free(&c->dir[i].rcv);
    }
    pd_free(c);
}

void pd_loop_sim_conn_unref(struct sim_conn *c)
{
    if (--c->refs == 0)
        pd_loop_sim_conn_free(c);
}

void pd_loop_sim_conn_cancel_retry(struct sim_conn *c, uint8_t i)
{
    if (c->dir[i].retry.kind == 0)
        return;
    pd_loop_sim_unschedule(c->sim, &c->dir[i].retry);
    pd_loop_sim_conn_unref(c);
}

/* The kernel of end i forgets it. */
static void end_gone(struct sim_conn *c, uint8_t i)
{
    struct sim_end *e = &c->end[i];

    if (!e->is_open)
        return;
    e->is_open = false;
    if (e->listener != NULL) {
        pd_list_remove(&e->waiting);
        e->listener->waiting_count--;
        e->listener = NULL;
    }
    c->refs++;
    pd_loop_sim_conn_cancel_retry(c, i);
    pd_loop_sim_conn_unref(c);
    pd_loop_sim_conn_unref(c);
}

void pd_loop_sim_conn_fail(struct sim_conn *c, uint8_t i, pd_status st)
{
    struct sim_end *e = &c->end[i];
    struct sim_stream *s = e->s;

    if (!e->is_open)
        return;
    pd_loop_sim_log(c->sim, e->host, st == PD_ETIMEDOUT ? "timeout" : "reset",
                    s != NULL && s->ev != NULL ? s->ev->name : NULL, c->id, i);
    e->failure = st;
    if (s != NULL && s->state == SIM_CONNECTING) {
        s->tell_connected = true;
        s->connect_status = st;
    }
    if (s != NULL)
        pd_loop_sim_stream_ready(s);
    end_gone(c, i);
}

void pd_loop_sim_conn_send_reset(struct sim_conn *c, uint8_t i)
{
    pd_loop_sim_packet_send(c, i, SIM_RST, 0);
}

/* The system tells the peers of a process that is gone, also when this program is
 * short of memory: then at once. */
static void reset_surely(struct sim_conn *c, uint8_t i)
{
    struct sim_host *a = c->end[i].host, *b = c->end[1 - i].host;

    if (pd_loop_sim_packet_send(c, i, SIM_RST, 0) == NULL && b != NULL &&
        !pd_loop_sim_conn_is_blocked(c, a, b))
        pd_loop_sim_conn_fail(c, 1 - i, PD_EPEER);
}

void pd_loop_sim_conn_maybe_finished(struct sim_conn *c, uint8_t i)
{
    struct sim_dir *d = &c->dir[i];

    if (c->end[i].is_open && c->end[i].is_orphan && d->fin && d->acked == d->written + 1 &&
        c->dir[1 - i].got_fin)
        end_gone(c, i);
}

void pd_loop_sim_conn_close(struct sim_conn *c, uint8_t i, bool is_reset)
{
    struct sim_end *e = &c->end[i];
    struct sim_dir *in = &c->dir[1 - i];

    e->s = NULL;
    if (!e->is_open)
        return;
    e->is_orphan = true;
    if (!c->is_established && i == 0) {
        end_gone(c, i);
    } else if (is_reset || in->rcv.fill > 0) {
        pd_loop_sim_ring_free(&in->rcv);
        pd_loop_sim_conn_send_reset(c, i);
        end_gone(c, i);
    } else {
        c->dir[i].fin = true;
        c->refs++;
        pd_loop_sim_conn_pump(c, i);
        pd_loop_sim_conn_maybe_finished(c, i);
        pd_loop_sim_conn_unref(c);
    }
}

void pd_loop_sim_net_forget_host(struct sim_host *h, bool tell_peers)
{
    PD_LIST_EACH_SAFE(&h->sim->conns, link) {
        struct sim_conn *c = PD_LIST_ENTRY(link, struct sim_conn, link);
        c->refs++;
        for (uint8_t i = 0; i < 2; i++) {
            if (c->end[i].host != h || !c->end[i].is_open)
                continue;
            if (tell_peers && c->is_established)
                reset_surely(c, i);
            end_gone(c, i);
        }
        link_next = link->next;
        pd_loop_sim_conn_unref(c);
    }
}
