/* SPDX-License-Identifier: Apache-2.0 */
/* The owner's side: windows on its memory, and connections that others made. */
#include "@NAME@.h"

#include <stdlib.h>
#include <string.h>

static void window_news(struct pd_transport_window *w)
{
    if (!w->has_news)
        TAILQ_INSERT_TAIL(&w->tp->news, w, news);
    w->has_news = true;
    @NAME@_wake(w->tp);
}

static struct pd_transport_window *window_find(struct pd_transport *tp, uint64_t xid)
{
    struct pd_transport_window *w;

    TAILQ_FOREACH(w, &tp->windows, link)
        if (w->blob.f.xid == xid && !w->is_closed)
            return w;
    return NULL;
}

pd_status @NAME@_window_open(struct pd_transport *tp, const struct pd_window_desc *desc,
                             const struct pd_window_events *events, void *arg, struct pd_transport_window **out)
{
    struct pd_transport_window *w;
    pd_status st;

    if (desc->access != PD_TRANSPORT_WRITE)
        return desc->access == PD_TRANSPORT_READ ? PD_ENOSYS : PD_EINVAL;
    if (tp->n_windows >= WINDOWS)
        return PD_ELIMIT;
    if (window_find(tp, desc->xid) != NULL)
        return PD_EEXIST;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return PD_ENOMEM;
    w->runs = calloc(desc->n_segments + 1, sizeof *w->runs);
    st = w->runs == NULL ? PD_ENOMEM
                         : @NAME@_runs(w->runs, desc->memory, desc->segments, desc->n_segments, &w->blob.bytes);
    if (st != PD_OK) {
        free(w->runs);
        free(w);
        return st;
    }
    w->tp = tp;
    w->memory = desc->memory;
    w->memory->refs++;
    w->n_runs = desc->n_segments;
    w->events = *events;
    w->arg = arg;
    w->blob.f = (struct frame){ .magic = MAGIC, .xid = desc->xid, .generation = desc->generation,
                                .token = pd_loop_random_u64(tp->loop), .from = tp->self, .to = desc->peer };
    TAILQ_INSERT_TAIL(&tp->windows, w, link);
    tp->n_windows++;
    *out = w;
    return PD_OK;
}

pd_status @NAME@_window_export(struct pd_transport_window *w, void *buf, size_t cap, size_t *len)
{
    *len = sizeof w->blob;
    if (cap < *len)
        return PD_ELIMIT;
    memcpy(buf, &w->blob, *len);
    return PD_OK;
}

/* From here on nobody finds it, and bytes that are on their way to it go nowhere. */
void @NAME@_window_close(struct pd_transport_window *w)
{
    struct conn *c;

    w->is_closed = true;
    TAILQ_FOREACH(c, &w->tp->conns, link)
        if (c->w == w) {
            c->w = NULL;
            c->status = PD_ESTALE;
        }
    window_news(w);
}

/* Bytes count once, however often they come: ranges that touch become one. */
static pd_status window_landed(struct pd_transport_window *w, uint64_t from, uint64_t to)
{
    uint32_t first = 0, last;

    while (first < w->n_landed && w->landed[first].to < from)
        first++;
    for (last = first; last < w->n_landed && w->landed[last].from <= to; last++) {
        from = w->landed[last].from < from ? w->landed[last].from : from;
        to = w->landed[last].to > to ? w->landed[last].to : to;
        w->total -= w->landed[last].to - w->landed[last].from;
    }
    if (first == last) {
        struct range *more = realloc(w->landed, (w->n_landed + 1) * sizeof *more);
        if (more == NULL)
            return PD_ENOMEM;
        w->landed = more;
    }
    memmove(w->landed + first + 1, w->landed + last, (w->n_landed - last) * sizeof *w->landed);
    w->landed[first] = (struct range){ from, to };
    w->n_landed = w->n_landed + 1 - (last - first);
    w->total += to - from;
    window_news(w);
    return PD_OK;
}

void @NAME@_tell_windows(struct pd_transport *tp)
{
    struct pd_transport_window *w;

    while ((w = TAILQ_FIRST(&tp->news)) != NULL) {
        TAILQ_REMOVE(&tp->news, w, news);
        w->has_news = false;
        if (w->is_closed) {
            TAILQ_REMOVE(&tp->windows, w, link);
            tp->n_windows--;
            w->memory->refs--;
            if (w->events.on_closed != NULL)
                w->events.on_closed(w, w->arg);
            free(w->landed);
            free(w->runs);
            free(w);
        } else if (w->total != w->told) {
            w->told = w->total;
            if (w->events.on_bytes != NULL)
                w->events.on_bytes(w, w->total, w->arg);
        }
    }
}

/* ---- connections */

static void conn_end(struct conn *c)
{
    c->w = NULL;
    pd_timer_stop(&c->timer);
    pd_stream_close(c->stream);
}

static void conn_answer(struct conn *c)
{
    while (c->n_acks > 0) {
        size_t sent = 0;
        pd_status st = pd_stream_write(c->stream, (uint8_t *)c->acks + c->acks_at,
                                       c->n_acks * sizeof c->acks[0] - c->acks_at, &sent);
        if (st != PD_OK && st != PD_EAGAIN)
            conn_end(c);
        if (st != PD_OK)
            return;
        c->acks_at += sent;
        if (c->acks_at < c->n_acks * sizeof c->acks[0])
            return;
        c->acks_at = c->n_acks = 0;
    }
    if (c->is_refused)
        conn_end(c);
}

static void conn_ack(struct conn *c, pd_status status)
{
    c->acks[c->n_acks++] = (struct frame){ .magic = MAGIC, .type = ACK, .status = status, .id = c->in.id };
    c->status = PD_OK;
}

/* The window that a frame is for; NULL when it is not for the one who sent it. */
static struct pd_transport_window *conn_window(struct conn *c, const struct pd_node_id *from)
{
    struct pd_transport_window *w = window_find(c->tp, c->in.xid);

    if (w == NULL || w->blob.f.generation != c->in.generation || w->blob.f.token != c->in.token ||
        !@NAME@_same(&w->blob.f.to, from))
        return NULL;
    return w;
}

/* A frame is there, without its bytes.  False: it breaks the rules. */
static bool conn_frame(struct conn *c)
{
    const struct frame *f = &c->in;

    if (f->magic != MAGIC || (f->type == HELLO) == c->is_in)
        return false;
    if (f->type == HELLO) {
        bool is_good = @NAME@_same(&f->to, &c->tp->self) && conn_window(c, &f->from) != NULL;
        c->from = f->from;
        c->is_in = true;
        c->is_refused = !is_good;
        pd_timer_stop(&c->timer);
        conn_ack(c, is_good ? PD_OK : PD_ESTALE);
    } else if (f->type == STOP) {
        conn_ack(c, c->status);
    } else if (f->type == DATA && f->bytes > 0 && f->bytes <= CHUNK) {
        c->left = f->bytes;
        c->w = conn_window(c, &c->from);
        if (c->w != NULL && (f->offset > c->w->blob.bytes || f->bytes > c->w->blob.bytes - f->offset))
            c->w = NULL;
        if (c->w == NULL)
            c->status = PD_ESTALE;
    } else {
        return false;
    }
    return true;
}

static void conn_landed(struct conn *c)
{
    if (c->w != NULL && window_landed(c->w, c->in.offset, c->in.offset + c->in.bytes) != PD_OK)
        c->status = PD_ENOMEM;
    c->w = NULL;
    if (c->in.status == 1)
        conn_ack(c, c->status);
}

static pd_status conn_read(struct conn *c, size_t *got)
{
    struct pd_iov iov[PIECES] = { { c->tp->scratch, c->left } };
    size_t n = 1;
    pd_status st;

    if (c->left == 0) {
        st = pd_stream_read(c->stream, (uint8_t *)&c->in + c->in_at, sizeof c->in - c->in_at, got);
        if (st != PD_OK)
            return st;
        c->in_at += *got;
        if (c->in_at < sizeof c->in)
            return PD_OK;
        c->in_at = 0;
        return conn_frame(c) ? PD_OK : PD_EPROTO;
    }
    if (c->w != NULL)
        n = @NAME@_pieces(c->w->runs, c->w->n_runs, c->in.offset + c->in.bytes - c->left, c->left, iov, PIECES);
    st = pd_stream_readv(c->stream, iov, n, got);
    if (st != PD_OK)
        return st;
    c->left -= (uint32_t)*got;
    if (c->left == 0)
        conn_landed(c);
    return PD_OK;
}

/* Reads a little at a time, so that others have their turn. */
static void on_readable(struct pd_stream *s, void *arg)
{
    struct conn *c = arg;
    size_t got = 0, sum = 0;

    while (sum < 8 * CHUNK && c->n_acks < ACKS && !c->is_refused) {
        pd_status st = conn_read(c, &got);
        if (st == PD_EAGAIN)
            break;
        if (st != PD_OK) {
            conn_end(c);
            return;
        }
        sum += got;
    }
    c->is_paused = c->n_acks == ACKS || c->is_refused;
    if (c->is_paused)
        pd_stream_pause_read(s);
    conn_answer(c);
    if (c->is_paused && c->n_acks == 0 && !c->is_refused)
        pd_stream_resume_read(s);
}

static void on_writable(struct pd_stream *s, void *arg)
{
    struct conn *c = arg;

    conn_answer(c);
    if (c->is_paused && c->n_acks == 0 && !c->is_refused) {
        c->is_paused = false;
        pd_stream_resume_read(s);
    }
}

static void on_late(struct pd_timer *timer, void *arg)
{
    (void)timer;
    conn_end(arg);
}

static void on_closed(struct pd_stream *s, void *arg)
{
    struct conn *c = arg;

    (void)s;
    TAILQ_REMOVE(&c->tp->conns, c, link);
    c->tp->n_conns--;
    @NAME@_wake(c->tp);
    free(c);
}

/* Who is not taken here is closed by the loop. */
void @NAME@_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    static const struct pd_stream_events events = { .name = "@NAME@ connection", .on_readable = on_readable,
                                                    .on_writable = on_writable, .on_closed = on_closed };
    struct pd_transport *tp = arg;
    struct conn *c = tp->n_conns < CONNS ? calloc(1, sizeof *c) : NULL;

    (void)l;
    if (c == NULL) {
        pd_log_warn(tp->log, "a connection is not taken: %s",
                    tp->n_conns < CONNS ? "out of memory" : "there are too many");
        return;
    }
    c->tp = tp;
    c->stream = s;
    pd_timer_init(&c->timer, tp->loop, "@NAME@ greeting", on_late, c);
    pd_timer_start(&c->timer, tp->timeout);
    TAILQ_INSERT_TAIL(&tp->conns, c, link);
    tp->n_conns++;
    pd_stream_set_events(s, &events, c);
}

void @NAME@_end_conns(struct pd_transport *tp)
{
    struct conn *c;

    TAILQ_FOREACH(c, &tp->conns, link)
        conn_end(c);
}
