/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the uv backend: a non-blocking socket of our own in the set that a
 * turn waits for.  Its events, reading, writing and end; uv_connect.c makes those that
 * go out, uv_sockopt.c knows the options, uv_fds.c sends descriptors.
 *
 * Interest in events is changed as rarely as it can be, because each change
 * is a system call.  `armed` is what is watched now.  Bits are added when
 * somebody needs them; a bit nobody needs is taken away only when it has fired.
 * So pausing and resuming is free while nothing arrives. */
#include "loop/uv_stream_int.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(struct pd_iov) == sizeof(struct iovec) &&
               offsetof(struct pd_iov, base) == offsetof(struct iovec, iov_base) &&
               offsetof(struct pd_iov, len) == offsetof(struct iovec, iov_len),
               "struct pd_iov must look like struct iovec");

static inline uint16_t needed(const struct uvs *s)
{
    uint16_t bits = 0;

    if (s->state == CONNECTING)
        return s->failure == PD_OK ? UVS_WRITE : 0;
    if (s->state != OPEN)
        return 0;
    if (!s->read_ended && !s->paused)
        bits |= UVS_READ;
    if (!s->read_ended && s->paused && !s->told_hangup && s->ev != NULL &&
        s->ev->on_hangup != NULL)
        bits |= UVS_HANGUP;
    if (s->wants_write)
        bits |= UVS_WRITE;
    return bits;
}

static void arm(struct uvs *s, uint16_t bits)
{
    struct uvl *l = uvs_loop(s);
    int op = bits == 0 ? EPOLL_CTL_DEL : s->armed == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    pd_status st;

    l->st.polls_changed++;
    s->armed = bits;
    st = pd_loop_uvl_set_change(l, op, s->fd, bits, &s->source);
    if (st == PD_OK || bits == 0)
        return;
    /* It would hang for ever: it ends as if its socket had failed. */
    if (op == EPOLL_CTL_ADD)
        s->armed = 0;
    s->failure = st;
    s->read_ended = true;
    pd_loop_uvl_defer(&l->base, &s->task);
}

/* Adds what is needed and not watched. */
static void arm_more(struct uvs *s)
{
    uint16_t need = needed(s);

    if ((need & ~s->armed) != 0)
        arm(s, s->armed | need);
}

static pd_status stream_error(struct uvs *s)
{
    int err = 0;
    socklen_t len = sizeof err;

    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        err = errno;
    return pd_status_from_errno(err);
}

static void finish_connect(struct uvs *s)
{
    pd_status st = stream_error(s);

    if (st == PD_EAGAIN || st == PD_PENDING)
        return;
    s->failure = st;
    if (st == PD_OK)
        s->state = OPEN;
    if (s->ev != NULL && s->ev->on_connected != NULL)
        s->ev->on_connected(&s->base, st, s->arg);
}

static void deliver(struct uvs *s, uint32_t events)
{
    if ((events & UVS_READ) != 0 && !s->paused && !s->read_ended) {
        if (s->ev != NULL && s->ev->on_readable != NULL)
            s->ev->on_readable(&s->base, s->arg);
    } else if ((events & UVS_HANGUP) != 0 && s->paused && !s->read_ended && !s->told_hangup) {
        s->told_hangup = true;
        if (s->ev != NULL && s->ev->on_hangup != NULL)
            s->ev->on_hangup(&s->base, s->arg);
    }
    if (s->state == OPEN && (events & UVS_WRITE) != 0 && s->wants_write) {
        s->wants_write = false;
        if (s->ev != NULL && s->ev->on_writable != NULL)
            s->ev->on_writable(&s->base, s->arg);
    }
}

/* Watches what is needed behind an event, and what did not fire. */
static void rearm(struct uvs *s, uint16_t fired)
{
    uint16_t bits = (s->armed & (uint16_t)~fired) | needed(s);

    if (s->state != CLOSED && bits != s->armed)
        arm(s, bits);
}

static __attribute__((noinline)) void ready(struct uvs *s, uint32_t events)
{
    uint16_t fired;

    /* An error is seen by whoever reads or writes; it is told once, because the
     * kernel tells it again and again. */
    if ((events & EPOLLERR) != 0) {
        events = UVS_READ | UVS_WRITE | UVS_HANGUP;
        fired = s->armed;
    } else {
        if ((events & EPOLLHUP) != 0)
            events |= s->armed;
        fired = (uint16_t)events;
    }
    if (s->state == CONNECTING)
        finish_connect(s);
    else
        deliver(s, events);
    rearm(s, fired);
}

/* Whether it is open, read, not written behind a queue, and just that is watched. */
static inline bool only_reads(const struct uvs *s)
{
    static const struct uvs plain = { .armed = UVS_READ, .state = OPEN };

    return s->how == plain.how;
}

static void on_ready(struct uvl_source *source, uint32_t events)
{
    struct uvs *s = pd_container_of(source, struct uvs, source);
    struct uvl *l = uvs_loop(s);
    const char *name = s->handle.name;

    if (s->state == CLOSED)
        return;
    pd_loop_uvl_enter(l);
    if (events == UVS_READ && only_reads(s) && s->ev != NULL && s->ev->on_readable != NULL) {
        s->ev->on_readable(&s->base, s->arg);
        if (!only_reads(s))
            rearm(s, UVS_READ);
    } else {
        ready(s, events);
    }
    pd_loop_uvl_leave(l, name);
}

/* ---- reading and writing */

/* Whether a call has done nothing and may be made again with the next event. */
static bool is_for_later(int err)
{
    return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

/* What comes of a read of n bytes that brought none. */
static __attribute__((noinline)) pd_status read_nothing(struct uvs *s, ssize_t r, size_t n)
{
    if (r < 0 && is_for_later(errno))
        return PD_EAGAIN;
    if (r == 0 && n == 0)
        return PD_EINVAL;
    s->read_ended = true;
    if (r == 0)
        return PD_EEOF;
    s->failure = pd_status_from_errno(errno);
    return s->failure;
}

static inline pd_status after_read(struct uvs *s, ssize_t r, size_t *got)
{
    *got = (size_t)r;
    uvs_loop(s)->st.read_bytes += (uint64_t)r;
    return PD_OK;
}

static __attribute__((noinline)) pd_status read_many(struct uvs *s, const struct pd_iov *iov, size_t n, size_t *got)
{
    ssize_t r;

    uvs_loop(s)->st.reads++;
    r = readv(s->fd, (const struct iovec *)(const void *)iov, (int)PD_MIN(n, (size_t)UVL_IOV_MAX));
    return r > 0 ? after_read(s, r, got) : read_nothing(s, r, uvs_iov_bytes(iov, n));
}

static pd_status stream_readv(struct pd_stream *base, const struct pd_iov *iov, size_t n,
                              size_t *got)
{
    struct uvs *s = uvs_of(base);
    ssize_t r;

    *got = 0;
    if (s->state != OPEN)
        return s->state == CLOSED ? PD_EPEER : PD_EAGAIN;
    if (s->read_ended)
        return s->failure != PD_OK ? s->failure : PD_EEOF;
    if (n != 1)
        return read_many(s, iov, n, got);
    uvs_loop(s)->st.reads++;
    r = recv(s->fd, iov->base, iov->len, 0);
    return r > 0 ? after_read(s, r, got) : read_nothing(s, r, iov->len);
}

__attribute__((noinline)) pd_status pd_loop_uvs_sent(struct uvs *s, ssize_t r, size_t asked, size_t *sent)
{
    struct uvl *l = uvs_loop(s);

    if (r < 0 && !is_for_later(errno))
        return pd_status_from_errno(errno);
    if (r < 0)
        r = 0;
    *sent = (size_t)r;
    l->st.written_bytes += (uint64_t)r;
    if ((size_t)r < asked) {
        s->wants_write = true;
        arm_more(s);
    }
    return r > 0 || asked == 0 ? PD_OK : PD_EAGAIN;
}

static inline pd_status after_write(struct uvs *s, ssize_t r, size_t asked, size_t *sent)
{
    if (r <= 0 || (size_t)r < asked)
        return pd_loop_uvs_sent(s, r, asked, sent);
    *sent = (size_t)r;
    uvs_loop(s)->st.written_bytes += (uint64_t)r;
    return PD_OK;
}

static __attribute__((noinline)) pd_status write_many(struct uvs *s, const struct pd_iov *iov, size_t n,
                                                      size_t *sent)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov,
                          .msg_iovlen = PD_MIN(n, (size_t)UVL_IOV_MAX) };

    uvs_loop(s)->st.writes++;
    return after_write(s, sendmsg(s->fd, &msg, MSG_NOSIGNAL), uvs_iov_bytes(iov, n), sent);
}

static pd_status stream_writev(struct pd_stream *base, const struct pd_iov *iov, size_t n,
                               size_t *sent)
{
    struct uvs *s = uvs_of(base);

    *sent = 0;
    if (s->state != OPEN) {
        if (s->state == CLOSED || s->failure != PD_OK)
            return PD_EPEER;
        s->wants_write = true;
        return PD_EAGAIN;
    }
    if (n != 1)
        return write_many(s, iov, n, sent);
    uvs_loop(s)->st.writes++;
    return after_write(s, send(s->fd, iov->base, iov->len, MSG_NOSIGNAL), iov->len, sent);
}

static void stream_pause_read(struct pd_stream *base)
{
    uvs_of(base)->paused = true;
}

static void stream_resume_read(struct pd_stream *base)
{
    struct uvs *s = uvs_of(base);

    if (!s->paused)
        return;
    s->paused = false;
    if (s->state != OPEN)
        return;
    /* One that could not be watched tells it again to who was only told of a hangup. */
    if (s->read_ended && s->failure != PD_OK)
        pd_loop_uvl_defer(&uvs_loop(s)->base, &s->task);
    arm_more(s);
}

static pd_status stream_shutdown_write(struct pd_stream *base)
{
    struct uvs *s = uvs_of(base);

    if (s->state != OPEN)
        return PD_EPEER;
    return shutdown(s->fd, SHUT_WR) == 0 ? PD_OK : pd_status_from_errno(errno);
}

/* ---- closing */

void pd_loop_uvl_streams_closed(struct uvl *l)
{
    struct pd_list *last = l->closed.prev, *link;

    do {
        link = pd_list_pop(&l->closed);
        struct uvs *s = PD_LIST_ENTRY(link, struct uvs, handle.link);
        const char *name = s->handle.name;
        pd_loop_uvl_enter(l);
        pd_loop_uvl_task_cancel(&l->base, &s->task);
        l->closing--;
        if (s->ev != NULL && s->ev->on_closed != NULL)
            s->ev->on_closed(&s->base, s->arg);
        pd_free(s);
        pd_loop_uvl_leave(l, name);
    } while (link != last);
}

static void stream_close(struct pd_stream *base)
{
    struct uvs *s = uvs_of(base);
    struct uvl *l = uvs_loop(s);

    if (s->state == CLOSED)
        return;
    s->state = CLOSED;
    pd_loop_uvl_handle_remove(&s->handle);
    l->st.streams--;
    l->closing++;
    pd_list_append(&l->closed, &s->handle.link);
    /* A copy of the descriptor in another process would keep it in the set. */
    if (s->armed != 0)
        (void)pd_loop_uvl_set_change(l, EPOLL_CTL_DEL, s->fd, 0, &s->source);
    s->armed = 0;
    close(s->fd);
    s->fd = -1;
}

static void stream_set_events(struct pd_stream *base, const struct pd_stream_events *ev,
                              void *arg)
{
    struct uvs *s = uvs_of(base);

    s->ev = ev;
    s->arg = arg;
    s->handle.name = ev != NULL ? ev->name : NULL;
}

static int stream_fd(struct pd_stream *s)
{
    return uvs_of(s)->fd;
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
    .set_option = pd_loop_uvs_set_option,
    .local_addr = pd_loop_uvs_local_addr,
    .peer_addr = pd_loop_uvs_peer_addr,
    .peer_cred = pd_loop_uvs_peer_cred,
    .send_fds = pd_loop_uvs_send_fds,
    .recv_fds = pd_loop_uvs_recv_fds,
    .fd = stream_fd,
};

/* ---- making them */

static void on_failure(struct pd_task *task, void *arg)
{
    struct uvs *s = arg;

    (void)task;
    if (s->state == CLOSED || s->ev == NULL)
        return;
    if (s->state == CONNECTING) {
        if (s->ev->on_connected != NULL)
            s->ev->on_connected(&s->base, s->failure, s->arg);
    } else if (!s->paused) {
        if (s->ev->on_readable != NULL)
            s->ev->on_readable(&s->base, s->arg);
    } else if (!s->told_hangup) {
        s->told_hangup = true;
        if (s->ev->on_hangup != NULL)
            s->ev->on_hangup(&s->base, s->arg);
    }
}

pd_status pd_loop_uvs_make(struct uvl *l, int fd, uint16_t family, uint8_t state,
                           const struct pd_stream_events *ev, void *arg, struct uvs **out)
{
    struct uvs *s = pd_calloc(1, sizeof *s);

    if (s == NULL) {
        close(fd);
        return PD_ENOMEM;
    }
    s->base.ops = &stream_ops;
    s->base.loop = &l->base;
    s->fd = fd;
    s->family = family;
    s->state = state;
    s->ev = ev;
    s->arg = arg;
    s->source.on_ready = on_ready;
    pd_task_init(&s->task, "connect", on_failure, s);
    pd_loop_uvl_handle_add(l, &s->handle, "stream", ev != NULL ? ev->name : NULL);
    l->st.streams++;
    *out = s;
    return PD_OK;
}

void pd_loop_uvs_watch(struct uvs *s)
{
    arm_more(s);
}

struct pd_stream *pd_loop_uvl_stream_accepted(struct uvl *l, int fd, uint16_t family)
{
    struct uvs *s;

    if (pd_loop_uvs_make(l, fd, family, OPEN, NULL, NULL, &s) != PD_OK)
        return NULL;
    return &s->base;
}

void pd_loop_uvl_stream_begin(struct pd_stream *base)
{
    struct uvs *s = uvs_of(base);

    if (s->state == CLOSED)
        return;
    if (s->ev == NULL)
        stream_close(base);
    else
        arm_more(s);
}
