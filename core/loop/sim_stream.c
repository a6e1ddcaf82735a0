/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the simulator, as their loop sees them.
 *
 * A stream about which there is something to say stands in its loop's ready
 * list; a turn takes the whole list and tells each.  A stream that is still
 * readable afterwards is put back, for the next turn.  Unless whole_io is
 * set, reads and writes take fewer bytes than they could, by chance, because
 * that is what breaks careless callers. */
#include "loop/sim_impl.h"

#include <string.h>

enum { IOV_MAX_SEEN = 64 };

static struct sim_stream *stream_of(struct pd_stream *s) { return (struct sim_stream *)s; }
static struct sim_loop *loop_of(const struct sim_stream *s) { return sim_of(s->base.loop); }
static struct sim_dir *in_of(const struct sim_stream *s) { return &s->c->dir[1 - s->side]; }
static struct sim_dir *out_of(const struct sim_stream *s) { return &s->c->dir[s->side]; }

static const char *name_of(const struct sim_stream *s)
{
    return s->ev != NULL ? s->ev->name : NULL;
}

void pd_loop_sim_stream_ready(struct sim_stream *s)
{
    struct sim_loop *l = loop_of(s);

    if (pd_list_is_empty(&s->ready))
        pd_list_append(&l->ready, &s->ready);
    pd_loop_sim_wake(l);
}

/* ---- reading and writing */

static size_t iov_bytes(const struct pd_iov *iov, size_t n)
{
    size_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += iov[i].len;
    return bytes;
}

/* How much of n bytes is moved this time. */
static size_t cut(struct pd_sim *sim, size_t n)
{
    if (sim->opts.whole_io != 0 || n < 2 || pd_loop_sim_rng_below(&sim->net, 4) == 0)
        return n;
    return 1 + (size_t)pd_loop_sim_rng_below(&sim->net, n);
}

static bool has_news(const struct sim_stream *s)
{
    const struct sim_dir *in = in_of(s);

    return in->rcv.fill > 0 || in->got_fin || s->c->end[s->side].failure != PD_OK;
}

static pd_status stream_readv(struct pd_stream *base, const struct pd_iov *iov, size_t n,
                              size_t *got)
{
    struct sim_stream *s = stream_of(base);
    struct sim_loop *l = loop_of(s);
    struct sim_dir *in;
    size_t want, done = 0;
    pd_status st;

    *got = 0;
    if (s->state != SIM_OPEN)
        return s->state == SIM_CLOSED ? PD_EPEER : PD_EAGAIN;
    in = in_of(s);
    n = PD_MIN(n, (size_t)IOV_MAX_SEEN);
    want = iov_bytes(iov, n);
    l->st.reads++;
    if (want == 0)
        return PD_EINVAL;
    if (s->c->end[s->side].failure == PD_OK && (st = pd_loop_sim_stream_admit(s, "read")) != PD_OK) {
        s->read_ended = true;
        return st;
    }
    if (in->rcv.fill == 0) {
        if (in->got_fin) {
            s->read_ended = true;
            return PD_EEOF;
        }
        if (s->c->end[s->side].failure != PD_OK) {
            s->read_ended = true;
            return s->c->end[s->side].failure;
        }
        return PD_EAGAIN;
    }
    want = cut(l->sim, PD_MIN(want, in->rcv.fill));
    for (size_t i = 0; i < n && done < want; i++) {
        size_t part = PD_MIN(iov[i].len, want - done);
        pd_loop_sim_ring_peek(&in->rcv, 0, iov[i].base, part);
        pd_loop_sim_ring_drop(&in->rcv, part);
        done += part;
    }
    *got = done;
    l->st.read_bytes += done;
    pd_loop_sim_conn_has_read(s->c, s->side);
    return PD_OK;
}

static size_t room(const struct sim_stream *s)
{
    size_t cap = loop_of(s)->sim->opts.buffer_bytes, fill = out_of(s)->snd.fill;

    return fill < cap ? cap - fill : 0;
}

static bool is_writable(const struct sim_stream *s)
{
    size_t cap = loop_of(s)->sim->opts.buffer_bytes;

    if (s->notsent_lowat != 0)
        return out_of(s)->written - out_of(s)->next < s->notsent_lowat && room(s) > 0;
    return room(s) >= cap / 3 + 1;
}

static pd_status stream_writev(struct pd_stream *base, const struct pd_iov *iov, size_t n,
                               size_t *sent)
{
    struct sim_stream *s = stream_of(base);
    struct sim_loop *l = loop_of(s);
    struct sim_dir *out;
    size_t asked = iov_bytes(iov, n), want, done = 0;
    pd_status st;

    *sent = 0;
    if (s->state == SIM_CONNECTING && s->c->end[s->side].failure == PD_OK) {
        s->wants_write = true;
        return PD_EAGAIN;
    }
    if (s->state != SIM_OPEN || s->did_shutdown)
        return PD_EPEER;
    if (s->c->end[s->side].failure != PD_OK)
        return s->c->end[s->side].failure;
    l->st.writes++;
    if ((st = pd_loop_sim_stream_admit(s, "write")) != PD_OK)
        return st;
    out = out_of(s);
    want = PD_MIN(iov_bytes(iov, PD_MIN(n, (size_t)IOV_MAX_SEEN)), room(s));
    want = cut(l->sim, want);
    for (size_t i = 0; i < n && done < want; i++) {
        size_t part = PD_MIN(iov[i].len, want - done);
        if (pd_loop_sim_ring_put(&out->snd, iov[i].base, part) != PD_OK)
            break;
        done += part;
    }
    out->written += done;
    *sent = done;
    l->st.written_bytes += done;
    if (done < asked) {
        s->wants_write = true;
        if (is_writable(s))
            pd_loop_sim_stream_ready(s);
    }
    if (done > 0) {
        pd_loop_sim_log(l->sim, l->host, "write", name_of(s), s->c->id, done);
        pd_loop_sim_conn_pump(s->c, s->side);
    }
    return done > 0 || asked == 0 ? PD_OK : PD_EAGAIN;
}

static void stream_pause_read(struct pd_stream *base)
{
    stream_of(base)->is_paused = true;
}

static void stream_resume_read(struct pd_stream *base)
{
    struct sim_stream *s = stream_of(base);

    if (!s->is_paused)
        return;
    s->is_paused = false;
    if (s->state == SIM_OPEN && has_news(s))
        pd_loop_sim_stream_ready(s);
}

static pd_status stream_shutdown_write(struct pd_stream *base)
{
    struct sim_stream *s = stream_of(base);

    if (s->state != SIM_OPEN || s->c->end[s->side].failure != PD_OK)
        return PD_EPEER;
    if (s->did_shutdown)
        return PD_OK;
    s->did_shutdown = true;
    out_of(s)->fin = true;
    pd_loop_sim_log(loop_of(s)->sim, loop_of(s)->host, "shutdown", name_of(s), s->c->id, 0);
    pd_loop_sim_conn_pump(s->c, s->side);
    return PD_OK;
}

static void stream_close(struct pd_stream *base)
{
    struct sim_stream *s = stream_of(base);
    struct sim_loop *l = loop_of(s);

    if (s->state == SIM_CLOSED)
        return;
    s->state = SIM_CLOSED;
    s->did_shutdown = true;
    pd_loop_sim_log(l->sim, l->host, "close", name_of(s), s->c->id, 0);
    pd_list_remove(&s->link);
    l->st.streams--;
    l->closing++;
    pd_loop_sim_conn_close(s->c, s->side, s->lingers_reset);
    pd_loop_sim_conn_unref(s->c);
    s->c = NULL;
    pd_loop_sim_stream_ready(s);
}

static void stream_set_events(struct pd_stream *base, const struct pd_stream_events *ev,
                              void *arg)
{
    struct sim_stream *s = stream_of(base);

    s->ev = ev;
    s->arg = arg;
}

static pd_status stream_set_option(struct pd_stream *base, uint32_t opt, uint64_t value)
{
    struct sim_stream *s = stream_of(base);
    pd_status st = PD_OK;

    if (s->state == SIM_CLOSED)
        return PD_EPEER;
    if (s->state == SIM_OPEN && s->c->end[s->side].failure == PD_OK)
        st = pd_loop_sim_stream_admit(s, "option");
    if (st != PD_OK)
        return st;
    switch (opt) {
    case PD_STREAM_NOTSENT_LOWAT:
        s->notsent_lowat = value;
        return PD_OK;
    case PD_STREAM_LINGER_RESET:
        s->lingers_reset = value != 0;
        return PD_OK;
    case PD_STREAM_USER_TIMEOUT:
        s->c->end[s->side].user_timeout = value * PD_MS;
        return PD_OK;
    case PD_STREAM_NODELAY:
    case PD_STREAM_KEEPALIVE:
    case PD_STREAM_SNDBUF:
    case PD_STREAM_RCVBUF:
        return PD_OK;
    default:
        return PD_EINVAL;
    }
}

static pd_status end_addr(struct sim_stream *s, uint8_t side, struct pd_addr *out)
{
    if (s->state == SIM_CLOSED || s->c->end[s->side].failure != PD_OK)
        return PD_EPEER;
    *out = s->c->end[side].addr;
    return PD_OK;
}

static pd_status stream_local_addr(struct pd_stream *s, struct pd_addr *out)
{
    return end_addr(stream_of(s), stream_of(s)->side, out);
}

static pd_status stream_peer_addr(struct pd_stream *s, struct pd_addr *out)
{
    return end_addr(stream_of(s), 1 - stream_of(s)->side, out);
}

static pd_status stream_peer_cred(struct pd_stream *s, pid_t *pid, uid_t *uid, gid_t *gid)
{
    (void)s;
    (void)pid;
    (void)uid;
    (void)gid;
    return PD_ENOSYS;
}

static pd_status stream_send_fds(struct pd_stream *s, const struct pd_iov *iov, size_t n,
                                 const int *fds, size_t nfds, size_t *sent)
{
    (void)s;
    (void)iov;
    (void)n;
    (void)fds;
    (void)nfds;
    *sent = 0;
    return PD_ENOSYS;
}

static pd_status stream_recv_fds(struct pd_stream *s, const struct pd_iov *iov, size_t n,
                                 size_t *got, int *fds, size_t max, size_t *nfds)
{
    (void)s;
    (void)iov;
    (void)n;
    (void)fds;
    (void)max;
    *got = 0;
    *nfds = 0;
    return PD_ENOSYS;
}

static int stream_fd(struct pd_stream *s)
{
    (void)s;
    return -1;
}

static const struct pd_stream_ops stream_ops = {
    .size = sizeof(struct pd_stream_ops),
    .readv = stream_readv,
    .writev = stream_writev,
    .pause_read = stream_pause_read,
    .resume_read = stream_resume_read,
    .shutdown_write = stream_shutdown_write,
    .close = stream_close,
    .set_events = stream_set_events,
    .set_option = stream_set_option,
    .local_addr = stream_local_addr,
    .peer_addr = stream_peer_addr,
    .peer_cred = stream_peer_cred,
    .send_fds = stream_send_fds,
    .recv_fds = stream_recv_fds,
    .fd = stream_fd,
};

/* ---- making them */

struct sim_stream *pd_loop_sim_stream_make(struct sim_loop *l, uint8_t side, uint8_t state)
{
    struct sim_stream *s = pd_calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->base.ops = &stream_ops;
    s->base.loop = &l->base;
    s->side = side;
    s->state = state;
    pd_list_init(&s->ready);
    pd_list_init(&s->link);
    pd_list_append(&l->streams, &s->link);
    l->st.streams++;
    return s;
}

pd_status pd_loop_sim_connect(struct pd_loop *loop, const struct pd_addr *to,
                              const struct pd_stream_events *ev, void *arg, struct pd_stream **out)
{
    struct sim_loop *l = sim_of(loop);
    struct sim_stream *s;
    pd_status st;

    if (ev == NULL || (to->family != PD_AF_IPV4 && to->family != PD_AF_IPV6 &&
                       to->family != PD_AF_UNIX))
        return PD_EINVAL;
    st = SIM_ADMIT(l, "connect", PD_ENOMEM, PD_ELIMIT, PD_EIO);
    if (st != PD_OK)
        return st;
    s = pd_loop_sim_stream_make(l, 0, SIM_CONNECTING);
    if (s == NULL)
        return PD_ENOMEM;
    s->ev = ev;
    s->arg = arg;
    s->c = pd_loop_sim_conn_open(s, to);
    if (s->c == NULL) {
        pd_list_remove(&s->link);
        l->st.streams--;
        pd_free(s);
        return PD_ENOMEM;
    }
    pd_loop_sim_log(l->sim, l->host, "connect", ev->name, s->c->id, to->port);
    *out = &s->base;
    return PD_OK;
}

pd_status pd_loop_sim_adopt(struct pd_loop *loop, int fd, const struct pd_stream_events *ev,
                            void *arg, struct pd_stream **out)
{
    (void)loop;
    (void)fd;
    (void)ev;
    (void)arg;
    (void)out;
    return PD_ENOSYS;
}

void pd_loop_sim_stream_begin(struct sim_stream *s)
{
    if (s->state == SIM_OPEN && s->ev == NULL)
        stream_close(&s->base);
    else if (s->state == SIM_OPEN && has_news(s))
        pd_loop_sim_stream_ready(s);
}

/* ---- turns */

static void deliver_closed(struct sim_stream *s)
{
    struct sim_loop *l = loop_of(s);

    l->closing--;
    if (s->ev != NULL && s->ev->on_closed != NULL)
        s->ev->on_closed(&s->base, s->arg);
    pd_free(s);
}

static void deliver_connected(struct sim_stream *s)
{
    s->tell_connected = false;
    if (s->connect_status == PD_OK)
        s->state = SIM_OPEN;
    pd_loop_sim_log(loop_of(s)->sim, loop_of(s)->host, "connected", name_of(s), s->c->id,
                    (uint64_t)(int64_t)s->connect_status);
    if (s->ev->on_connected != NULL)
        s->ev->on_connected(&s->base, s->connect_status, s->arg);
}

/* Tells the owner what there is; s may be closed, but is not freed, by its
 * handlers. */
static void deliver(struct sim_stream *s)
{
    if (s->state == SIM_CONNECTING && s->tell_connected)
        deliver_connected(s);
    if (s->state == SIM_OPEN && !s->is_paused && !s->read_ended && has_news(s)) {
        if (s->ev != NULL && s->ev->on_readable != NULL)
            s->ev->on_readable(&s->base, s->arg);
    } else if (s->state == SIM_OPEN && s->is_paused && !s->read_ended && !s->told_hangup &&
               (in_of(s)->got_fin || s->c->end[s->side].failure != PD_OK)) {
        s->told_hangup = true;
        if (s->ev != NULL && s->ev->on_hangup != NULL)
            s->ev->on_hangup(&s->base, s->arg);
    }
    if (s->state == SIM_OPEN && s->wants_write &&
        (is_writable(s) || s->c->end[s->side].failure != PD_OK)) {
        s->wants_write = false;
        if (s->ev != NULL && s->ev->on_writable != NULL)
            s->ev->on_writable(&s->base, s->arg);
    }
    if (s->state == SIM_OPEN && !s->is_paused && !s->read_ended && has_news(s) &&
        s->ev != NULL && s->ev->on_readable != NULL)
        pd_loop_sim_stream_ready(s);
}

void pd_loop_sim_streams_turn(struct sim_loop *l)
{
    struct pd_list batch, *link;

    pd_loop_sim_listeners_accept(l);
    pd_list_init(&batch);
    pd_list_move_all(&batch, &l->ready);
    while ((link = pd_list_pop(&batch)) != NULL) {
        struct sim_stream *s = PD_LIST_ENTRY(link, struct sim_stream, ready);
        if (s->state == SIM_CLOSED)
            deliver_closed(s);
        else
            deliver(s);
    }
    pd_loop_sim_listeners_closed(l);
}

void pd_loop_sim_streams_drop(struct sim_loop *l)
{
    struct pd_list *link;

    while ((link = pd_list_pop(&l->streams)) != NULL) {
        struct sim_stream *s = PD_LIST_ENTRY(link, struct sim_stream, link);
        pd_list_remove(&s->ready);
        s->c->end[s->side].s = NULL;
        pd_loop_sim_conn_unref(s->c);
        pd_free(s);
    }
    while ((link = pd_list_pop(&l->ready)) != NULL)     /* closed, and not yet told */
        pd_free(PD_LIST_ENTRY(link, struct sim_stream, ready));
    pd_loop_sim_listeners_drop(l);
}
