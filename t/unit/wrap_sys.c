/* SPDX-License-Identifier: Apache-2.0 */
/* See wrap_sys.h. */
#include "wrap_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <uv.h>

static uint64_t at, count;      /* at 0: nothing fails */
static uint32_t variety;
static const char *fired, *only;
static bool was_real;

void wrap_arm(uint64_t n, uint32_t which)
{
    count = 0;
    variety = which;
    fired = NULL;
    was_real = false;
    at = n;
}

const char *wrap_disarm(bool *has_failed)
{
    const char *what = fired;
    at = 0;
    *has_failed = was_real;
    return what;
}

void wrap_only(const char *name)
{
    only = name;
}

/* The error with which this call fails, or 0.  Calls of other threads count too;
 * they are few and atomic. */
static int fails(const char *name, const int *errors, size_t n)
{
    if (__atomic_load_n(&at, __ATOMIC_RELAXED) == 0 || (only != NULL && strcmp(only, name) != 0) ||
        __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED) != at)
        return 0;
    fired = name;
    if (variety >= n)
        return 0;
    was_real = true;
    return errors[variety];
}

#define ERROR_OF(name, ...)                                                                        \
    fails(name, (const int[]){ __VA_ARGS__ }, sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))

/* A call that says -1 and sets errno. */
#define WRAP(type, name, params, args, ...)                                                        \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        int err = ERROR_OF(#name, __VA_ARGS__);                                                    \
        if (err != 0) {                                                                            \
            errno = err;                                                                           \
            return -1;                                                                             \
        }                                                                                          \
        return __real_##name args;                                                                 \
    }

/* One that returns its error. */
#define WRAP_CODE(name, params, args, ...)                                                         \
    int __real_##name params;                                                                      \
    int __wrap_##name params;                                                                      \
    int __wrap_##name params                                                                       \
    {                                                                                              \
        int err = ERROR_OF(#name, __VA_ARGS__);                                                    \
        return err != 0 ? err : __real_##name args;                                                \
    }

WRAP(int, socket, (int d, int t, int p), (d, t, p), EMFILE, ENFILE, ENOBUFS)
WRAP(int, socketpair, (int d, int t, int p, int v[2]), (d, t, p, v), EMFILE)
WRAP(int, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), ECONNREFUSED, EINTR, EAGAIN, ENETUNREACH)
WRAP(int, accept4, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f), EMFILE, ECONNABORTED, EAGAIN, ENFILE, ENOMEM, ENOBUFS)
WRAP(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), EADDRINUSE, EACCES)
WRAP(int, listen, (int fd, int n), (fd, n), EADDRINUSE)
WRAP(int, shutdown, (int fd, int how), (fd, how), ENOTCONN)
WRAP(int, setsockopt, (int fd, int l, int o, const void *p, socklen_t n), (fd, l, o, p, n), ENOBUFS)
WRAP(int, getsockopt, (int fd, int l, int o, void *p, socklen_t *n), (fd, l, o, p, n), ENOBUFS)
WRAP(int, getsockname, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), ENOBUFS)
WRAP(int, getpeername, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), ENOTCONN)
WRAP(ssize_t, recv, (int fd, void *p, size_t n, int f), (fd, p, n, f), ECONNRESET, EINTR, ETIMEDOUT)
WRAP(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n), ECONNRESET, EINTR, ETIMEDOUT)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *m, int f), (fd, m, f), ECONNRESET, EINTR, ENOMEM)
WRAP(ssize_t, send, (int fd, const void *p, size_t n, int f), (fd, p, n, f), EPIPE, EINTR, EAGAIN, ENOBUFS)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int f), (fd, m, f), EPIPE, EINTR, EAGAIN, ECONNRESET, ENOBUFS)
WRAP(int, epoll_create1, (int f), (f), EMFILE)
WRAP(int, epoll_ctl, (int s, int op, int fd, struct epoll_event *e), (s, op, fd, e), ENOMEM, ENOSPC)
WRAP(int, epoll_wait, (int s, struct epoll_event *e, int n, int ms), (s, e, n, ms), EINTR)
WRAP(int, timerfd_create, (int c, int f), (c, f), EMFILE)
WRAP(int, chmod, (const char *p, mode_t m), (p, m), EPERM)
WRAP(int, stat, (const char *p, struct stat *s), (p, s), EACCES)
WRAP(int, lstat, (const char *p, struct stat *s), (p, s), EACCES)
WRAP_CODE(pthread_create, (pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg), (t, a, f, arg), EAGAIN)
WRAP_CODE(uv_loop_init, (uv_loop_t *l), (l), UV_ENOMEM, UV_EMFILE)
WRAP_CODE(uv_async_init, (uv_loop_t *l, uv_async_t *a, uv_async_cb cb), (l, a, cb), UV_EMFILE)
WRAP_CODE(uv_poll_init, (uv_loop_t *l, uv_poll_t *p, int fd), (l, p, fd), UV_EPERM)
WRAP_CODE(uv_signal_start, (uv_signal_t *s, uv_signal_cb cb, int n), (s, cb, n), UV_EINVAL)

int __real_ioctl(int fd, unsigned long request, void *p);
int __wrap_ioctl(int fd, unsigned long request, void *p);
int __wrap_ioctl(int fd, unsigned long request, void *p)
{
    int err = ERROR_OF("ioctl", ENOMEM);
    if (err == 0)
        return __real_ioctl(fd, request, p);
    errno = err;
    return -1;
}

int __real_fcntl(int fd, int command, long value);
int __wrap_fcntl(int fd, int command, long value);
int __wrap_fcntl(int fd, int command, long value)
{
    int err = ERROR_OF("fcntl", EMFILE);
    if (err == 0)
        return __real_fcntl(fd, command, value);
    errno = err;
    return -1;
}

/* ---- names: the request is refused, or its answer is an error */

static uv_getaddrinfo_cb asker;
static int answer;

static void on_answer(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    (void)status;
    uv_freeaddrinfo(res);
    asker(req, answer, NULL);
}

int __real_uv_getaddrinfo(uv_loop_t *l, uv_getaddrinfo_t *req, uv_getaddrinfo_cb cb, const char *node,
                          const char *service, const struct addrinfo *hints);
int __wrap_uv_getaddrinfo(uv_loop_t *l, uv_getaddrinfo_t *req, uv_getaddrinfo_cb cb, const char *node,
                          const char *service, const struct addrinfo *hints);
int __wrap_uv_getaddrinfo(uv_loop_t *l, uv_getaddrinfo_t *req, uv_getaddrinfo_cb cb, const char *node,
                          const char *service, const struct addrinfo *hints)
{
    int err = ERROR_OF("uv_getaddrinfo", UV_ENOMEM, UV_EINVAL, UV_EAI_AGAIN, UV_EAI_NODATA, UV_EAI_MEMORY, UV_EAI_FAIL);
    if (err == UV_ENOMEM || err == UV_EINVAL)
        return err;
    if (err != 0) {
        asker = cb;
        answer = err;
        cb = on_answer;
    }
    return __real_uv_getaddrinfo(l, req, cb, node, service, hints);
}
