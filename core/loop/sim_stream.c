/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and listeners of the simulator, as their loop sees them.
 *
 * A stream about which there is something to say stands in its loop's ready
 * list; a turn takes the whole list and tells each.  A stream that is still
 * readable afterwards is put back, for the next turn.  Unless whole_io is
 * set, reads and writes take fewer bytes than they could, by chance, because
 * that is what breaks careless callers. */
#include "loop/sim_impl.h"

#include <string.h>

enum { DEFAULT_BACKLOG = 511, IOV_MAX_SEEN = 64 };

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

static struct sim_stream *stream_make(struct sim_loop *l, uint8_t side, uint8_t state)
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
    s = stream_make(l, 0, SIM_CONNECTING);
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

/* ---- listeners */

static bool is_any(const struct pd_addr *a)
{
    for (int i = 0; i < 16; i++) {
        if (a->ip[i] != 0)
            return false;
    }
    return true;
}

struct pd_listener *pd_loop_sim_listener_find(struct sim_loop *l, const struct pd_addr *addr)
{
    PD_LIST_EACH(&l->listeners, link) {
        struct pd_listener *s = PD_LIST_ENTRY(link, struct pd_listener, link);
        if (pd_addr_equal(&s->addr, addr) ||
            (s->addr.family == addr->family && addr->family != PD_AF_UNIX &&
             s->addr.port == addr->port && is_any(&s->addr)))
            return s;
    }
    return NULL;
}

pd_status pd_loop_sim_listener_open(struct pd_loop *loop, const struct pd_addr *addr,
                                    const struct pd_listener_opts *opts, pd_accept_cb on_accept,
                                    void *arg, struct pd_listener **out)
{
    struct sim_loop *l = sim_of(loop);
    struct pd_addr at;
    struct pd_listener *s;
    pd_status st;

    if (opts != NULL && opts->has_inherited_fd != 0)
        return PD_ENOSYS;
    if (on_accept == NULL || addr == NULL || addr->family == PD_AF_NONE)
        return PD_EINVAL;
    at = *addr;
    if (at.family != PD_AF_UNIX && !is_any(&at) &&
        pd_loop_sim_host_by_ip(l->sim, l->host, &at) != l->host)
        return PD_EINVAL;
    while (at.family != PD_AF_UNIX && at.port == 0) {
        at.port = l->host->next_port++;
        if (at.port < 32768 || pd_loop_sim_listener_find(l, &at) != NULL)
            at.port = 0;
        if (l->host->next_port < 32768)
            l->host->next_port = 32768;
    }
    if (pd_loop_sim_listener_find(l, &at) != NULL && (opts == NULL || opts->reuseport == 0))
        return PD_EBUSY;
    st = SIM_ADMIT(l, "listen", PD_EBUSY, PD_EPERM, PD_ENOMEM, PD_ELIMIT, PD_EIO);
    if (st != PD_OK)
        return st;
    s = pd_calloc(1, sizeof *s);
    if (s == NULL)
        return PD_ENOMEM;
    s->l = l;
    s->addr = at;
    s->name = opts != NULL ? opts->name : NULL;
    s->backlog = opts != NULL && opts->backlog != 0 ? opts->backlog : DEFAULT_BACKLOG;
    s->on_accept = on_accept;
    s->arg = arg;
    pd_list_init(&s->waiting);
    pd_list_init(&s->link);
    pd_list_append(&l->listeners, &s->link);
    l->st.listeners++;
    pd_loop_sim_log(l->sim, l->host, "listen", s->name, at.port, 0);
    *out = s;
    return PD_OK;
}

pd_status pd_loop_sim_listener_addr(struct pd_loop *loop, struct pd_listener *s,
                                    struct pd_addr *out)
{
    (void)loop;
    *out = s->addr;
    return PD_OK;
}

void pd_loop_sim_listener_pause(struct pd_loop *loop, struct pd_listener *s, bool paused)
{
    s->is_paused = paused;
    if (!paused && s->waiting_count > 0)
        pd_loop_sim_wake(sim_of(loop));
}

static struct sim_conn *conn_of_server_end(struct sim_end *e)
{
    return pd_container_of(e, struct sim_conn, end[1]);
}

void pd_loop_sim_listener_close(struct pd_loop *loop, struct pd_listener *s)
{
    struct sim_loop *l = sim_of(loop);
    struct pd_list *link;

    if (s->is_closed)
        return;
    s->is_closed = true;
    pd_loop_sim_log(l->sim, l->host, "unlisten", s->name, s->addr.port, 0);
    while ((link = pd_list_first(&s->waiting)) != NULL) {
        struct sim_conn *c = conn_of_server_end(PD_LIST_ENTRY(link, struct sim_end, waiting));
        /* Closing takes it off the list. */
        pd_loop_sim_conn_close(c, 1, true);
    }
    pd_list_remove(&s->link);
    pd_list_append(&l->dead_listeners, &s->link);
    l->st.listeners--;
    l->closing++;
    pd_loop_sim_wake(l);
}

static void accept_one(struct pd_listener *p)
{
    struct sim_loop *l = p->l;
    struct sim_end *e = PD_LIST_ENTRY(pd_list_pop(&p->waiting), struct sim_end, waiting);
    struct sim_conn *c = conn_of_server_end(e);
    struct sim_stream *s = stream_make(l, 1, SIM_OPEN);

    p->waiting_count--;
    e->listener = NULL;
    l->st.accepts++;
    if (s == NULL) {
        pd_loop_sim_conn_close(c, 1, true);
        return;
    }
    s->c = c;
    c->refs++;
    e->s = s;
    pd_loop_sim_log(l->sim, l->host, "accept", p->name, c->id, p->addr.port);
    p->on_accept(p, &s->base, p->arg);
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

static struct pd_listener *first_to_accept(struct sim_loop *l)
{
    PD_LIST_EACH(&l->listeners, link) {
        struct pd_listener *p = PD_LIST_ENTRY(link, struct pd_listener, link);
        if (!p->is_paused && !pd_list_is_empty(&p->waiting))
            return p;
    }
    return NULL;
}

static void free_listeners(struct pd_list *list)
{
    struct pd_list *link;

    while ((link = pd_list_pop(list)) != NULL)
        pd_free(PD_LIST_ENTRY(link, struct pd_listener, link));
}

void pd_loop_sim_streams_turn(struct sim_loop *l)
{
    struct pd_list batch, *link;
    struct pd_listener *p;

    while ((p = first_to_accept(l)) != NULL)
        accept_one(p);
    pd_list_init(&batch);
    pd_list_move_all(&batch, &l->ready);
    while ((link = pd_list_pop(&batch)) != NULL) {
        struct sim_stream *s = PD_LIST_ENTRY(link, struct sim_stream, ready);
        if (s->state == SIM_CLOSED)
            deliver_closed(s);
        else
            deliver(s);
    }
    l->closing -= pd_list_count(&l->dead_listeners);
    free_listeners(&l->dead_listeners);
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
    free_listeners(&l->listeners);
    free_listeners(&l->dead_listeners);
}
