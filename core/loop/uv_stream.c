/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the uv backend: a non-blocking socket of our own in the set that a
 * turn waits for.
 *
 * Interest in events is changed as rarely as it can be, because each change
 * is a system call.  `armed` is what is watched now.  Bits are added when
 * somebody needs them; a bit nobody needs is taken away only when it has fired.
 * So pausing and resuming is free while nothing arrives.
 *
 * State: CONNECTING -> OPEN -> CLOSED.  After CLOSED only pd_loop_uvl_streams_closed
 * touches the stream; it calls on_closed and frees. */
#include "loop/uv_impl.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CONNECTING, OPEN, CLOSED };

/* What can be watched. */
enum { UVS_READ = EPOLLIN, UVS_WRITE = EPOLLOUT, UVS_HANGUP = EPOLLRDHUP };

struct uvs {
    struct pd_stream base;      /* first */
    struct uvl_handle handle;
    const struct pd_stream_events *ev;
    void *arg;
    struct uvl_source source;
    struct pd_task task;        /* tells a failed connect, or that it cannot be watched */
    pd_status failure;
    int fd;
    uint16_t family;
    bool told_hangup;
    union {
        struct {
            uint16_t armed;     /* UVS_READ | UVS_WRITE | UVS_HANGUP */
            uint8_t state;
            bool paused, read_ended, wants_write;
            uint16_t unused;
        };
        uint64_t how;           /* all of these, for one look */
    };
};

_Static_assert(sizeof(struct pd_iov) == sizeof(struct iovec) &&
               offsetof(struct pd_iov, base) == offsetof(struct iovec, iov_base) &&
               offsetof(struct pd_iov, len) == offsetof(struct iovec, iov_len),
               "struct pd_iov must look like struct iovec");

static struct uvs *uvs_of(struct pd_stream *s) { return (struct uvs *)s; }
static struct uvl *loop_of(struct uvs *s) { return uvl_of(s->base.loop); }

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
    struct uvl *l = loop_of(s);
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
    struct uvl *l = loop_of(s);
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

static size_t iov_bytes(const struct pd_iov *iov, size_t n)
{
    size_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += iov[i].len;
    return bytes;
}

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
    loop_of(s)->st.read_bytes += (uint64_t)r;
    return PD_OK;
}

static __attribute__((noinline)) pd_status read_many(struct uvs *s, const struct pd_iov *iov, size_t n, size_t *got)
{
    ssize_t r;

    loop_of(s)->st.reads++;
    r = readv(s->fd, (const struct iovec *)(const void *)iov, (int)PD_MIN(n, (size_t)UVL_IOV_MAX));
    return r > 0 ? after_read(s, r, got) : read_nothing(s, r, iov_bytes(iov, n));
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
    loop_of(s)->st.reads++;
    r = recv(s->fd, iov->base, iov->len, 0);
    return r > 0 ? after_read(s, r, got) : read_nothing(s, r, iov->len);
}

/* What comes of a write that was not taken as a whole. */
static __attribute__((noinline)) pd_status after_part(struct uvs *s, ssize_t r, size_t asked, size_t *sent)
{
    struct uvl *l = loop_of(s);

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
        return after_part(s, r, asked, sent);
    *sent = (size_t)r;
    loop_of(s)->st.written_bytes += (uint64_t)r;
    return PD_OK;
}

static __attribute__((noinline)) pd_status write_many(struct uvs *s, const struct pd_iov *iov, size_t n,
                                                      size_t *sent)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov,
                          .msg_iovlen = PD_MIN(n, (size_t)UVL_IOV_MAX) };

    loop_of(s)->st.writes++;
    return after_write(s, sendmsg(s->fd, &msg, MSG_NOSIGNAL), iov_bytes(iov, n), sent);
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
    loop_of(s)->st.writes++;
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
        pd_loop_uvl_defer(&loop_of(s)->base, &s->task);
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
    struct uvl *l = loop_of(s);

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

/* ---- options and addresses */

static void stream_set_events(struct pd_stream *base, const struct pd_stream_events *ev,
                              void *arg)
{
    struct uvs *s = uvs_of(base);

    s->ev = ev;
    s->arg = arg;
    s->handle.name = ev != NULL ? ev->name : NULL;
}

static pd_status set_int(struct uvs *s, int level, int name, uint64_t value)
{
    int v = (int)value;

    if (value > INT32_MAX)
        return PD_EINVAL;
    if (setsockopt(s->fd, level, name, &v, sizeof v) != 0)
        return pd_status_from_errno(errno);
    return PD_OK;
}

static pd_status stream_set_option(struct pd_stream *base, uint32_t opt, uint64_t value)
{
    struct uvs *s = uvs_of(base);
    bool is_tcp = s->family != PD_AF_UNIX;
    struct linger linger = { .l_onoff = value != 0, .l_linger = 0 };
    pd_status st;

    if (s->state == CLOSED)
        return PD_EPEER;
    switch (opt) {
    case PD_STREAM_SNDBUF:
        return set_int(s, SOL_SOCKET, SO_SNDBUF, value);
    case PD_STREAM_RCVBUF:
        return set_int(s, SOL_SOCKET, SO_RCVBUF, value);
    case PD_STREAM_NODELAY:
        return is_tcp ? set_int(s, IPPROTO_TCP, TCP_NODELAY, value != 0) : PD_OK;
    case PD_STREAM_USER_TIMEOUT:
        return is_tcp ? set_int(s, IPPROTO_TCP, TCP_USER_TIMEOUT, value) : PD_OK;
    case PD_STREAM_NOTSENT_LOWAT:
        return is_tcp ? set_int(s, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value) : PD_OK;
    case PD_STREAM_LINGER_RESET:
        if (setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) != 0)
            return pd_status_from_errno(errno);
        return PD_OK;
    case PD_STREAM_KEEPALIVE:
        if (!is_tcp)
            return PD_OK;
        st = set_int(s, SOL_SOCKET, SO_KEEPALIVE, value != 0);
        if (st == PD_OK && value != 0)
            st = set_int(s, IPPROTO_TCP, TCP_KEEPIDLE, value);
        if (st == PD_OK && value != 0)
            st = set_int(s, IPPROTO_TCP, TCP_KEEPINTVL, value / 3 > 0 ? value / 3 : 1);
        if (st == PD_OK && value != 0)
            st = set_int(s, IPPROTO_TCP, TCP_KEEPCNT, 3);
        return st;
    default:
        return PD_EINVAL;
    }
}

static pd_status get_addr(struct uvs *s, int (*get)(int, struct sockaddr *, socklen_t *),
                          struct pd_addr *out)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;

    if (s->state == CLOSED || get(s->fd, (struct sockaddr *)&ss, &len) != 0)
        return PD_EPEER;
    return pd_loop_addr_from_system((struct sockaddr *)&ss, len, out);
}

static pd_status stream_local_addr(struct pd_stream *s, struct pd_addr *out)
{
    return get_addr(uvs_of(s), getsockname, out);
}

static pd_status stream_peer_addr(struct pd_stream *s, struct pd_addr *out)
{
    return get_addr(uvs_of(s), getpeername, out);
}

static pd_status stream_peer_cred(struct pd_stream *base, pid_t *pid, uid_t *uid, gid_t *gid)
{
    struct uvs *s = uvs_of(base);
    struct ucred cred;
    socklen_t len = sizeof cred;

    if (s->family != PD_AF_UNIX)
        return PD_ENOSYS;
    if (s->state == CLOSED || getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
        return PD_EPEER;
    *pid = cred.pid;
    *uid = cred.uid;
    *gid = cred.gid;
    return PD_OK;
}

/* ---- descriptors over unix streams */

union fd_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * UVL_FDS_MAX)];
};

static pd_status stream_send_fds(struct pd_stream *base, const struct pd_iov *iov, size_t n,
                                 const int *fds, size_t nfds, size_t *sent)
{
    struct uvs *s = uvs_of(base);
    union fd_control control;
    struct cmsghdr *c;
    struct msghdr msg;
    ssize_t r;

    *sent = 0;
    if (s->family != PD_AF_UNIX)
        return PD_ENOSYS;
    if (nfds == 0 || nfds > UVL_FDS_MAX || n == 0 || n > UVL_IOV_MAX || iov_bytes(iov, n) == 0)
        return PD_EINVAL;
    if (s->state != OPEN)
        return s->state == CONNECTING ? PD_EAGAIN : PD_EPEER;
    memset(&control, 0, sizeof control);
    memset(&msg, 0, sizeof msg);
    msg.msg_iov = (struct iovec *)(uintptr_t)iov;
    msg.msg_iovlen = n;
    msg.msg_control = control.bytes;
    msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
    c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    do {
        loop_of(s)->st.writes++;
        r = sendmsg(s->fd, &msg, MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    return after_write(s, r, iov_bytes(iov, n), sent);
}

/* Moves received descriptors to fds, closes those that do not fit. */
static bool take_fds(struct msghdr *msg, int *fds, size_t max, size_t *nfds)
{
    bool complete = (msg->msg_flags & MSG_CTRUNC) == 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        size_t count;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (*nfds < max) {
                fds[(*nfds)++] = fd;
            } else {
                close(fd);
                complete = false;
            }
        }
    }
    return complete;
}

static pd_status stream_recv_fds(struct pd_stream *base, const struct pd_iov *iov, size_t n,
                                 size_t *got, int *fds, size_t max, size_t *nfds)
{
    struct uvs *s = uvs_of(base);
    struct uvl *l = loop_of(s);
    union fd_control control;
    struct msghdr msg;
    ssize_t r;

    *got = 0;
    *nfds = 0;
    if (s->family != PD_AF_UNIX)
        return PD_ENOSYS;
    if (n == 0 || n > UVL_IOV_MAX || iov_bytes(iov, n) == 0)
        return PD_EINVAL;
    if (s->state != OPEN)
        return s->state == CONNECTING ? PD_EAGAIN : PD_EPEER;
    if (s->read_ended)
        return s->failure != PD_OK ? s->failure : PD_EEOF;
    memset(&msg, 0, sizeof msg);
    msg.msg_iov = (struct iovec *)(uintptr_t)iov;
    msg.msg_iovlen = n;
    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof control.bytes;
    do {
        l->st.reads++;
        r = recvmsg(s->fd, &msg, MSG_CMSG_CLOEXEC);
    } while (r < 0 && errno == EINTR);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return PD_EAGAIN;
    if (r <= 0) {
        s->read_ended = true;
        s->failure = r < 0 ? pd_status_from_errno(errno) : PD_OK;
        return r < 0 ? s->failure : PD_EEOF;
    }
    *got = (size_t)r;
    l->st.read_bytes += (uint64_t)r;
    return take_fds(&msg, fds, max, nfds) ? PD_OK : PD_ELIMIT;
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
    .set_option = stream_set_option,
    .local_addr = stream_local_addr,
    .peer_addr = stream_peer_addr,
    .peer_cred = stream_peer_cred,
    .send_fds = stream_send_fds,
    .recv_fds = stream_recv_fds,
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

/* Takes fd, also on failure. */
static pd_status stream_make(struct uvl *l, int fd, uint16_t family, uint8_t state,
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

/* Gives a socket the next of the addresses that connections go out from.  The
 * port is chosen at connect, so that each pair of addresses has all ports. */
static pd_status bind_source(struct uvl *l, int fd, const struct pd_addr *to)
{
    struct sockaddr_storage ss;
    struct pd_addr from;
    size_t len;
    int one = 1;

    if (l->n_sources == 0 || to->family != PD_AF_IPV4)
        return PD_OK;
    from = l->sources[l->next_source++ % l->n_sources];
    from.port = 0;
    len = pd_loop_addr_to_system(&from, &ss);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    return bind(fd, (struct sockaddr *)&ss, (socklen_t)len) == 0 ? PD_OK : pd_status_from_errno(errno);
}

pd_status pd_loop_uvl_connect(struct pd_loop *loop, const struct pd_addr *to,
                              const struct pd_stream_events *ev, void *arg, struct pd_stream **out)
{
    struct uvl *l = uvl_of(loop);
    struct sockaddr_storage ss;
    size_t len = pd_loop_addr_to_system(to, &ss);
    struct uvs *s;
    pd_status st;
    int fd, r, one = 1;

    if (len == 0 || ev == NULL)
        return PD_EINVAL;
    fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return pd_status_from_errno(errno);
    if (to->family != PD_AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    st = bind_source(l, fd, to);
    if (st != PD_OK) {
        close(fd);
        return st;
    }
    st = stream_make(l, fd, to->family, CONNECTING, ev, arg, &s);
    if (st != PD_OK)
        return st;
    do
        r = connect(fd, (struct sockaddr *)&ss, (socklen_t)len);
    while (r != 0 && errno == EINTR);
    if (r != 0 && errno != EINPROGRESS) {
        /* A full backlog of a unix listener says EAGAIN; for us it is no peer. */
        s->failure = errno == EAGAIN ? PD_EPEER : pd_status_from_errno(errno);
        pd_loop_uvl_defer(loop, &s->task);
    }
    arm_more(s);
    *out = &s->base;
    return PD_OK;
}

static pd_status socket_family(int fd, uint16_t *family)
{
    int domain = 0, type = 0;
    socklen_t len = sizeof domain;

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) != 0)
        return PD_EINVAL;
    len = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM)
        return PD_EINVAL;
    *family = domain == AF_UNIX ? PD_AF_UNIX
            : domain == AF_INET ? PD_AF_IPV4
            : domain == AF_INET6 ? PD_AF_IPV6 : PD_AF_NONE;
    return *family == PD_AF_NONE ? PD_EINVAL : PD_OK;
}

pd_status pd_loop_uvl_adopt(struct pd_loop *loop, int fd, const struct pd_stream_events *ev,
                            void *arg, struct pd_stream **out)
{
    struct uvs *s;
    uint16_t family;
    pd_status st = ev != NULL ? socket_family(fd, &family) : PD_EINVAL;
    int one = 1;

    if (st == PD_OK && ioctl(fd, FIONBIO, &one) != 0)
        st = pd_status_from_errno(errno);
    if (st != PD_OK) {
        close(fd);
        return st;
    }
    if (family != PD_AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    st = stream_make(uvl_of(loop), fd, family, OPEN, ev, arg, &s);
    if (st != PD_OK)
        return st;
    arm_more(s);
    *out = &s->base;
    return PD_OK;
}

struct pd_stream *pd_loop_uvl_stream_accepted(struct uvl *l, int fd, uint16_t family)
{
    struct uvs *s;

    if (stream_make(l, fd, family, OPEN, NULL, NULL, &s) != PD_OK)
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
