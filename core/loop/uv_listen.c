/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets of the uv backend.  A ready listener accepts a limited
 * number of connections per turn.  When descriptors or memory run out it rests
 * for a while instead of being woken without end; accept_backoffs counts it. */
#include "loop/uv_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 64, DEFAULT_BACKLOG = 511 };
#define REST_NS (100 * PD_MS)

struct pd_listener {
    struct uvl *l;
    struct uvl_handle handle;
    uv_poll_t poll;
    struct pd_timer rest;
    int fd;
    uint16_t family;
    bool paused, resting, closed;
    pd_accept_cb on_accept;
    void *arg;
    char path[108];             /* to remove when closed; empty: none */
    ino_t path_inode;
    dev_t path_device;
};

static void on_poll(uv_poll_t *h, int status, int events);

static void update(struct pd_listener *s)
{
    s->l->st.polls_changed++;
    pd_loop_uvl_touch(s->l);
    if (s->paused || s->resting || s->l->stopped_accepting)
        uv_poll_stop(&s->poll);
    else
        uv_poll_start(&s->poll, UV_READABLE, on_poll);
}

static void on_rested(struct pd_timer *t, void *arg)
{
    struct pd_listener *s = arg;

    (void)t;
    s->resting = false;
    update(s);
}

static void rest(struct pd_listener *s)
{
    s->l->st.accept_backoffs++;
    s->resting = true;
    update(s);
    pd_timer_start(&s->rest, REST_NS);
}

static bool is_shortage(int err)
{
    return err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM;
}

/* One connection; false when the turn's accepting is over. */
static bool accept_one(struct pd_listener *s)
{
    struct pd_stream *stream;
    int fd;

    s->l->st.accepts++;
    fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (is_shortage(errno))
            rest(s);
        else if (errno != EAGAIN && errno != EWOULDBLOCK)
            return true;        /* that one connection failed before it was ours */
        return false;
    }
    stream = pd_loop_uvl_stream_accepted(s->l, fd, s->family);
    if (stream == NULL) {
        rest(s);
        return false;
    }
    s->on_accept(s, stream, s->arg);
    pd_loop_uvl_stream_begin(stream);
    return true;
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct pd_listener *s = h->data;
    struct uvl *l = s->l;
    const char *name = s->handle.name;

    (void)events;
    pd_loop_uvl_enter(l);
    if (status < 0) {
        rest(s);
    } else {
        for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
            if (s->closed || s->paused || s->resting || !accept_one(s))
                break;
        }
    }
    pd_loop_uvl_leave(l, name);
}

/* ---- opening */

/* A datagram socket cannot connect to one of streams, and is told so when a process has
 * the path, be it that the process does not listen yet; and nobody is woken. */
static bool nobody_has(const struct sockaddr_storage *ss, size_t len)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool dead;

    if (fd < 0)
        return false;
    dead = connect(fd, (const struct sockaddr *)ss, (socklen_t)len) != 0 &&
           errno == ECONNREFUSED;
    close(fd);
    return dead;
}

static pd_status bind_unix(int fd, const struct pd_addr *addr, const struct sockaddr_storage *ss,
                           size_t len, uint32_t mode)
{
    struct stat st;

    /* Nobody may connect between bind and chmod who may not later. */
    fchmod(fd, mode & 0700);
    if (bind(fd, (const struct sockaddr *)ss, (socklen_t)len) != 0) {
        if (errno != EADDRINUSE)
            return pd_status_from_errno(errno);
        if (lstat(addr->path, &st) != 0 || !S_ISSOCK(st.st_mode) || !nobody_has(ss, len))
            return PD_EBUSY;
        unlink(addr->path);
        if (bind(fd, (const struct sockaddr *)ss, (socklen_t)len) != 0)
            return pd_status_from_errno(errno);
    }
    return chmod(addr->path, mode) == 0 ? PD_OK : pd_status_from_errno(errno);
}

static pd_status bind_ip(int fd, const struct sockaddr_storage *ss, size_t len, bool reuseport)
{
    int one = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0)
        return pd_status_from_errno(errno);
    if (ss->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)ss, (socklen_t)len) != 0)
        return pd_status_from_errno(errno);
    return PD_OK;
}

/* Gives a bound socket. */
static pd_status open_socket(const struct pd_addr *addr, const struct pd_listener_opts *opts,
                             int *out)
{
    struct sockaddr_storage ss;
    size_t len = pd_loop_addr_to_system(addr, &ss);
    pd_status st;
    int fd;

    if (len == 0)
        return PD_EINVAL;
    fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return pd_status_from_errno(errno);
    if (addr->family == PD_AF_UNIX)
        st = bind_unix(fd, addr, &ss, len, opts->unix_mode != 0 ? opts->unix_mode & 0777 : 0660);
    else
        st = bind_ip(fd, &ss, len, opts->reuseport != 0);
    if (st != PD_OK) {
        close(fd);
        return st;
    }
    *out = fd;
    return PD_OK;
}

void pd_loop_uv_set_sockets(struct pd_loop *loop, const struct pd_loop_uv_socket *sockets, size_t n)
{
    struct uvl *l = uvl_of(loop);
    l->sockets = sockets;
    l->n_sockets = n;
}

/* A copy of the socket that was handed to this process for the address; -1:
 * there is none. */
static int handed_socket(struct uvl *l, const struct pd_addr *addr)
{
    for (size_t i = 0; i < l->n_sockets; i++) {
        if (pd_addr_equal(&l->sockets[i].addr, addr))
            return fcntl(l->sockets[i].fd, F_DUPFD_CLOEXEC, 3);
    }
    return -1;
}

static pd_status inherited_family(int fd, uint16_t *family)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    struct pd_addr addr;

    if (getsockname(fd, (struct sockaddr *)&ss, &len) != 0 ||
        pd_loop_addr_from_system((struct sockaddr *)&ss, len, &addr) != PD_OK)
        return PD_EINVAL;
    *family = addr.family;
    return PD_OK;
}

static void remember_path(struct pd_listener *s, const struct pd_addr *addr)
{
    struct stat st;

    if (addr->family != PD_AF_UNIX || stat(addr->path, &st) != 0)
        return;
    memcpy(s->path, addr->path, sizeof s->path);
    s->path_inode = st.st_ino;
    s->path_device = st.st_dev;
}

static pd_status start(struct uvl *l, struct pd_listener *s, uint32_t backlog, const char *name)
{
    int err, one = 1;

    if (listen(s->fd, backlog != 0 ? (int)backlog : DEFAULT_BACKLOG) != 0)
        return pd_status_from_errno(errno);
    /* Accepted sockets have it from the listener. */
    if (s->family != PD_AF_UNIX)
        setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    err = uv_poll_init(&l->uv, &s->poll, s->fd);
    if (err != 0)
        return pd_status_from_errno(-err);
    s->poll.data = s;
    pd_timer_init(&s->rest, &l->base, "listener rest", on_rested, s);
    pd_loop_uvl_handle_add(l, &s->handle, "listener", name);
    l->st.listeners++;
    update(s);
    return PD_OK;
}

pd_status pd_loop_uvl_listener_open(struct pd_loop *loop, const struct pd_addr *addr,
                                    const struct pd_listener_opts *opts, pd_accept_cb on_accept,
                                    void *arg, struct pd_listener **out)
{
    static const struct pd_listener_opts no_opts = { .size = sizeof no_opts };
    struct uvl *l = uvl_of(loop);
    struct pd_listener *s;
    pd_status st;
    int fd = -1;

    if (opts == NULL)
        opts = &no_opts;
    if (on_accept == NULL || opts->backlog > INT32_MAX)
        return PD_EINVAL;
    s = pd_calloc(1, sizeof *s);
    if (s == NULL)
        return PD_ENOMEM;
    s->l = l;
    s->on_accept = on_accept;
    s->arg = arg;
    if (opts->has_inherited_fd != 0) {
        fd = opts->inherited_fd;
        st = inherited_family(fd, &s->family);
    } else if ((fd = handed_socket(l, addr)) >= 0) {
        st = inherited_family(fd, &s->family);
    } else {
        st = open_socket(addr, opts, &fd);
        if (st == PD_OK) {
            s->family = addr->family;
            remember_path(s, addr);
        }
    }
    s->fd = fd;
    if (st == PD_OK)
        st = start(l, s, opts->backlog, opts->name);
    if (st != PD_OK) {
        if (fd >= 0 && opts->has_inherited_fd == 0)
            close(fd);
        pd_free(s);
        return st;
    }
    *out = s;
    return PD_OK;
}

pd_status pd_loop_uv_bind(const struct pd_addr *addr, int *out)
{
    static const struct pd_listener_opts opts = { .size = sizeof opts };
    int fd;
    pd_status st = open_socket(addr, &opts, &fd);
    if (st != PD_OK)
        return st;
    if (listen(fd, DEFAULT_BACKLOG) != 0 || fcntl(fd, F_SETFD, 0) != 0) {
        st = pd_status_from_errno(errno);
        close(fd);
        return st;
    }
    *out = fd;
    return PD_OK;
}

void pd_loop_uv_stop_accepting(struct pd_loop *loop)
{
    struct uvl *l = uvl_of(loop);

    l->stopped_accepting = true;
    PD_LIST_EACH (&l->handles, link) {
        struct uvl_handle *h = pd_container_of(link, struct uvl_handle, link);
        if (strcmp(h->what, "listener") == 0)
            update(pd_container_of(h, struct pd_listener, handle));
    }
}

pd_status pd_loop_uvl_listener_addr(struct pd_loop *loop, struct pd_listener *s,
                                    struct pd_addr *out)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;

    (void)loop;
    if (getsockname(s->fd, (struct sockaddr *)&ss, &len) != 0)
        return pd_status_from_errno(errno);
    return pd_loop_addr_from_system((struct sockaddr *)&ss, len, out);
}

void pd_loop_uvl_listener_pause(struct pd_loop *loop, struct pd_listener *s, bool paused)
{
    (void)loop;
    if (s->paused == paused)
        return;
    s->paused = paused;
    update(s);
}

static void on_poll_closed(uv_handle_t *h)
{
    struct pd_listener *s = h->data;

    s->l->closing--;
    pd_free(s);
}

void pd_loop_uvl_listener_close(struct pd_loop *loop, struct pd_listener *s)
{
    struct uvl *l = uvl_of(loop);
    struct stat st;

    if (s->closed)
        return;
    s->closed = true;
    pd_timer_stop(&s->rest);
    pd_loop_uvl_handle_remove(&s->handle);
    l->st.listeners--;
    l->closing++;
    if (s->path[0] != '\0' && stat(s->path, &st) == 0 && st.st_ino == s->path_inode &&
        st.st_dev == s->path_device)
        unlink(s->path);
    pd_loop_uvl_touch(l);
    uv_close((uv_handle_t *)&s->poll, on_poll_closed);
    close(s->fd);
}
