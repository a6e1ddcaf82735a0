/* SPDX-License-Identifier: Apache-2.0 */
/* The poster's side: connections that this node made, and what it sends. */
#include "@NAME@.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void finish(struct pd_transfer *t, struct transfers *from, uint32_t terminal)
{
    t->terminal = terminal;
    TAILQ_REMOVE(from, t, link);
    TAILQ_INSERT_TAIL(&t->peer->tp->done, t, link);
    @NAME@_wake(t->peer->tp);
}

static void peer_close(struct pd_transport_peer *p)
{
    if (!p->is_closing)
        pd_stream_close(p->stream);
    p->is_closing = true;
    pd_timer_stop(&p->tick);
    pd_task_cancel(p->tp->loop, &p->more);
}

/* The way is lost: what was sent may still lie in the owner's kernel. */
static void peer_fail(struct pd_transport_peer *p, pd_status status)
{
    struct pd_transfer *t;

    if (p->is_closing)
        return;
    p->status = status;
    while ((t = TAILQ_FIRST(&p->sent)) != NULL)
        finish(t, &p->sent, PD_TRANSFER_FAILED_UNFENCED);
    while ((t = TAILQ_FIRST(&p->waiting)) != NULL)
        finish(t, &p->waiting, t->is_begun ? PD_TRANSFER_FAILED_UNFENCED : PD_TRANSFER_FAILED_FENCED);
    peer_close(p);
}

static void peer_rest(struct pd_transport_peer *p)
{
    if (p->is_asked && TAILQ_EMPTY(&p->waiting) && TAILQ_EMPTY(&p->sent))
        peer_close(p);
}

/* Runs only while something is under way. */
static void on_tick(struct pd_timer *timer, void *arg)
{
    struct pd_transport_peer *p = arg;

    if (p->is_up && TAILQ_EMPTY(&p->waiting) && TAILQ_EMPTY(&p->sent))
        return;
    if (pd_loop_now(p->tp->loop) - p->last >= p->tp->timeout)
        peer_fail(p, PD_ETIMEDOUT);
    else
        pd_timer_start(timer, p->tp->timeout / 4);
}

static void peer_busy(struct pd_transport_peer *p)
{
    if (p->is_closing || pd_timer_is_active(&p->tick))
        return;
    p->last = pd_loop_now(p->tp->loop);
    pd_timer_start(&p->tick, p->tp->timeout / 4);
}

/* Chooses what is sent next; false: nothing. */
static bool peer_next(struct pd_transport_peer *p)
{
    struct pd_transfer *t;

    while ((t = TAILQ_FIRST(&p->waiting)) != NULL && t->is_canceled && !t->is_begun)
        finish(t, &p->waiting, PD_TRANSFER_CANCELED_FENCED);
    peer_rest(p);
    if (t == NULL || p->is_closing)
        return false;
    p->out = t->f;
    p->out.type = t->is_canceled ? STOP : DATA;
    p->out.offset = t->offset + t->sent;
    if (!t->is_canceled) {
        p->out.bytes = (uint32_t)(t->bytes - t->sent < CHUNK ? t->bytes - t->sent : CHUNK);
        p->out.status = t->sent + p->out.bytes == t->bytes;
    }
    t->is_stopped = t->is_canceled;
    t->is_begun = p->has_out = true;
    p->out_at = 0;
    p->out_left = p->out.bytes;
    return true;
}

/* The frame is out; the transfer, too, when it was its last. */
static void peer_sent(struct pd_transport_peer *p)
{
    struct pd_transfer *t = TAILQ_FIRST(&p->waiting);

    p->has_out = false;
    if (p->out.type == HELLO)
        return;
    t->sent += p->out.bytes;
    if (p->out.type == DATA && p->out.status == 0)
        return;
    TAILQ_REMOVE(&p->waiting, t, link);
    TAILQ_INSERT_TAIL(&p->sent, t, link);
}

/* So much at a time, so that others have their turn; on_more goes on. */
static void peer_send(struct pd_transport_peer *p)
{
    while (p->is_connected && !p->is_closing && p->in_turn < TURN &&
           (p->has_out || (p->is_up && peer_next(p)))) {
        struct pd_transfer *t = TAILQ_FIRST(&p->waiting);
        struct pd_iov iov[PIECES];
        size_t n = 0, want = 0, sent = 0, head;
        pd_status st;
        if (p->out_at < sizeof p->out)
            iov[n++] = (struct pd_iov){ (uint8_t *)&p->out + p->out_at, sizeof p->out - p->out_at };
        if (p->out_left > 0)
            n += @NAME@_pieces(t->runs, t->n_runs, t->sent + p->out.bytes - p->out_left, p->out_left, iov + n, PIECES - n);
        for (size_t i = 0; i < n; i++)
            want += iov[i].len;
        st = pd_stream_writev(p->stream, iov, n, &sent);
        if (st != PD_OK && st != PD_EAGAIN)
            peer_fail(p, st);
        if (st != PD_OK)
            return;                     /* on_writable follows */
        if (p->in_turn == 0)
            pd_loop_defer(p->tp->loop, &p->more);
        p->in_turn += sent;
        p->last = pd_loop_now(p->tp->loop);
        head = sizeof p->out - p->out_at < sent ? sizeof p->out - p->out_at : sent;
        p->out_at += head;
        p->out_left -= sent - head;
        if (p->out_at == sizeof p->out && p->out_left == 0)
            peer_sent(p);
        if (sent < want)
            return;
    }
}

static void on_more(struct pd_task *task, void *arg)
{
    struct pd_transport_peer *p = arg;

    (void)task;
    p->in_turn = 0;
    peer_send(p);
}

static void on_connected(struct pd_stream *s, pd_status status, void *arg)
{
    struct pd_transport_peer *p = arg;

    (void)s;
    if (status != PD_OK) {
        peer_fail(p, status);
        return;
    }
    p->is_connected = p->has_out = true;
    p->out = p->grant;
    p->out.type = HELLO;
    p->out.from = p->tp->self;
    p->out.to = p->node;
    peer_send(p);
}

/* Answers come in the order of what was sent. */
static void peer_answer(struct pd_transport_peer *p)
{
    struct pd_transfer *t = TAILQ_FIRST(&p->sent);

    p->last = pd_loop_now(p->tp->loop);
    if (p->in.magic != MAGIC || p->in.type != ACK) {
        peer_fail(p, PD_EPROTO);
    } else if (!p->is_up) {
        if (p->in.status != PD_OK) {
            peer_fail(p, PD_ESTALE);
            return;
        }
        p->is_up = true;
        @NAME@_wake(p->tp);
        peer_send(p);
    } else if (t == NULL || t->f.id != p->in.id) {
        peer_fail(p, PD_EPROTO);
    } else {
        finish(t, &p->sent, p->in.status != PD_OK ? PD_TRANSFER_FAILED_FENCED
                            : t->is_stopped ? PD_TRANSFER_CANCELED_FENCED : PD_TRANSFER_OK);
        peer_rest(p);
    }
}

static void on_answer(struct pd_stream *s, void *arg)
{
    struct pd_transport_peer *p = arg;

    while (!p->is_closing) {
        size_t got = 0;
        pd_status st = pd_stream_read(s, (uint8_t *)&p->in + p->in_at, sizeof p->in - p->in_at, &got);
        if (st == PD_EAGAIN)
            return;
        if (st != PD_OK) {
            peer_fail(p, st == PD_EEOF ? PD_EPEER : st);
            return;
        }
        p->in_at += got;
        if (p->in_at == sizeof p->in) {
            p->in_at = 0;
            peer_answer(p);
        }
    }
}

static void on_room(struct pd_stream *s, void *arg)
{
    (void)s;
    peer_send(arg);
}

static void on_peer_closed(struct pd_stream *s, void *arg)
{
    struct pd_transport_peer *p = arg;

    (void)s;
    p->is_closed = true;
    @NAME@_wake(p->tp);
}

pd_status @NAME@_connect(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                                const struct pd_transport_peer_events *events, void *arg,
                                struct pd_transport_peer **out)
{
    static const struct pd_stream_events stream_events = {
        .name = "@NAME@ peer", .on_connected = on_connected, .on_readable = on_answer, .on_writable = on_room,
        .on_closed = on_peer_closed,
    };
    uint32_t address[2];
    struct pd_addr to;
    char text[96];
    struct pd_transport_peer *p;
    pd_status st;

    if (desc->address_len != sizeof address || desc->grant_len != sizeof(struct blob) || desc->host.n > 64)
        return PD_EINVAL;
    memcpy(address, desc->address, sizeof address);
    snprintf(text, sizeof text, memchr(desc->host.p, ':', desc->host.n) != NULL ? "[%.*s]:%u" : "%.*s:%u",
             PD_STR_ARG(desc->host), address[1]);
    if (address[0] != MAGIC || pd_addr_parse(tp->loop, (struct pd_str){ text, strlen(text) }, &to) != PD_OK)
        return PD_EINVAL;
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return PD_ENOMEM;
    p->tp = tp;
    p->node = desc->node;
    p->events = *events;
    p->arg = arg;
    memcpy(&p->grant, desc->grant, sizeof p->grant);
    TAILQ_INIT(&p->waiting);
    TAILQ_INIT(&p->sent);
    TAILQ_INIT(&p->targets);
    pd_timer_init(&p->tick, tp->loop, "@NAME@ tick", on_tick, p);
    pd_task_init(&p->more, "@NAME@ more", on_more, p);
    st = pd_stream_connect(tp->loop, &to, &stream_events, p, &p->stream);
    if (st != PD_OK) {
        free(p);
        return st;
    }
    TAILQ_INSERT_TAIL(&tp->peers, p, link);
    peer_busy(p);
    *out = p;
    return PD_OK;
}

void @NAME@_cancel(struct pd_transfer *t)
{
    t->is_canceled = true;              /* too late when all of it is sent: its ACK comes */
    peer_send(t->peer);
}

void @NAME@_disconnect(struct pd_transport_peer *p, uint32_t how)
{
    struct pd_transfer *t;

    p->is_asked = true;
    if (how == PD_DISCONNECT_FENCE)
        TAILQ_FOREACH(t, &p->waiting, link)
            t->is_canceled = true;
    peer_rest(p);
    peer_send(p);
}

pd_status @NAME@_target_open(struct pd_transport_peer *p, const void *blob, size_t len,
                                    struct pd_transport_target **out)
{
    struct pd_transport_target *t;

    if (len != sizeof t->blob)
        return PD_EINVAL;
    t = calloc(1, sizeof *t);
    if (t == NULL)
        return PD_ENOMEM;
    memcpy(&t->blob, blob, len);
    if (t->blob.f.magic != MAGIC || !@NAME@_same(&t->blob.f.from, &p->node) || !@NAME@_same(&t->blob.f.to, &p->tp->self)) {
        free(t);
        return PD_ESTALE;
    }
    t->peer = p;
    TAILQ_INSERT_TAIL(&p->targets, t, link);
    *out = t;
    return PD_OK;
}

void @NAME@_target_close(struct pd_transport_target *t)
{
    if (t->peer != NULL)
        TAILQ_REMOVE(&t->peer->targets, t, link);
    free(t);
}

pd_status @NAME@_post(struct pd_transport_target *target, const struct pd_post *post, struct pd_transfer **out)
{
    struct pd_transport_peer *p = target->peer;
    uint64_t room = target->blob.bytes;
    struct pd_transfer *t;

    if (p == NULL || p->is_asked || p->is_closing)
        return PD_ESTALE;
    if (post->op != PD_TRANSPORT_WRITE)
        return PD_ENOSYS;
    if (post->n_segments == 0 || post->n_segments > SEGMENTS)
        return PD_EINVAL;
    if (!p->is_up || p->n_transfers >= QUEUE) {
        p->is_full = true;
        return PD_EAGAIN;
    }
    t = calloc(1, sizeof *t + post->n_segments * sizeof t->runs[0]);
    if (t == NULL)
        return PD_ENOMEM;
    if (@NAME@_runs(t->runs, post->memory, post->segments, post->n_segments, &t->bytes) != PD_OK ||
        post->offset > room || t->bytes > room - post->offset) {
        free(t);
        return PD_EINVAL;
    }
    t->peer = p;
    t->memory = post->memory;
    t->memory->refs++;
    t->f = target->blob.f;
    t->f.id = ++p->tp->next_id;
    t->offset = post->offset;
    t->n_runs = post->n_segments;
    t->arg = post->arg;
    p->n_transfers++;
    TAILQ_INSERT_TAIL(&p->waiting, t, link);
    peer_busy(p);
    peer_send(p);
    *out = t;
    return PD_OK;
}

/* The transfers that are over: each is told of once, and gone. */
static void tell_transfers(struct pd_transport *tp)
{
    struct pd_transfer *t;

    while ((t = TAILQ_FIRST(&tp->done)) != NULL) {
        struct pd_transport_peer *p = t->peer;
        TAILQ_REMOVE(&tp->done, t, link);
        t->memory->refs--;
        p->n_transfers--;
        p->events.on_done(p, t, t->terminal, t->terminal == PD_TRANSFER_OK ? t->bytes : 0, t->arg);
        free(t);
    }
}

static void peer_gone(struct pd_transport_peer *p)
{
    struct pd_transport_target *t;
    pd_status status = p->is_asked && p->status == PD_OK ? PD_OK : p->status;

    TAILQ_REMOVE(&p->tp->peers, p, link);
    while ((t = TAILQ_FIRST(&p->targets)) != NULL) {
        TAILQ_REMOVE(&p->targets, t, link);
        t->peer = NULL;                 /* its owner closes it */
    }
    if (p->is_told_up || p->is_asked)
        p->events.on_down(p, status, p->arg);
    else
        p->events.on_up(p, status, p->arg);
    free(p);
}

void @NAME@_tell_peers(struct pd_transport *tp)
{
    struct pd_transport_peer *p, *next;

    tell_transfers(tp);
    for (p = TAILQ_FIRST(&tp->peers); p != NULL; p = next) {
        if (p->is_up && !p->is_told_up && !p->is_asked) {
            p->is_told_up = true;
            p->events.on_up(p, PD_OK, p->arg);
        }
        if (p->is_up && p->is_full && p->n_transfers < QUEUE && !p->is_asked && !p->is_closing) {
            p->is_full = false;
            p->events.on_writable(p, p->arg);
        }
        next = TAILQ_NEXT(p, link);
        if (p->is_closed && p->n_transfers == 0)
            peer_gone(p);
    }
}
