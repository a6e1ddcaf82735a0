/* SPDX-License-Identifier: Apache-2.0 */
/* The set that a turn waits for: sockets of streams, the timerfd, and libuv's own
 * set as one member.  Streams are the data path; a turn that is only theirs does
 * not enter libuv, which keeps what is rare: listeners, watches, names, signals,
 * other threads' wake-ups.  Whether libuv has something to do besides what its set
 * tells is asked after each change of its handles and each time that it ran.
 *
 * Invariant: a member stays in memory until the events of the wait that it left
 * in are through; streams are freed after them. */
#include "loop/uv_impl.h"

#include <errno.h>
#include <unistd.h>

enum { EVENTS_PER_WAIT = 128 };

static void on_uv_ready(struct uvl_source *source, uint32_t events)
{
    struct uvl *l = pd_container_of(source, struct uvl, uv_source);

    (void)events;
    pd_loop_uvl_touch(l);
    uv_run(&l->uv, UV_RUN_NOWAIT);
}

pd_status pd_loop_uvl_set_open(struct uvl *l)
{
    pd_status st;

    l->set = epoll_create1(EPOLL_CLOEXEC);
    if (l->set < 0)
        return pd_status_from_errno(errno);
    l->uv_source.on_ready = on_uv_ready;
    st = pd_loop_uvl_set_change(l, EPOLL_CTL_ADD, uv_backend_fd(&l->uv), EPOLLIN, &l->uv_source);
    if (st == PD_OK)
        st = pd_loop_uvl_set_change(l, EPOLL_CTL_ADD, l->timer_fd, EPOLLIN, &l->timer_source);
    if (st != PD_OK)
        pd_loop_uvl_set_close(l);
    return st;
}

void pd_loop_uvl_set_close(struct uvl *l)
{
    if (l->set >= 0)
        close(l->set);
    l->set = -1;
}

pd_status pd_loop_uvl_set_change(struct uvl *l, int op, int fd, uint32_t events,
                                 struct uvl_source *source)
{
    struct epoll_event ev = { .events = events, .data = { .ptr = source } };

    return epoll_ctl(l->set, op, fd, &ev) == 0 ? PD_OK : pd_status_from_errno(errno);
}

/* Lets libuv do what it has to close, or to tell the kernel; returns how long the
 * turn may wait then.  What it did may be what the caller waits for. */
static __attribute__((noinline)) int settle_uv(struct uvl *l, int most_ms)
{
    int uv_ms = uv_backend_timeout(&l->uv);

    l->uv_is_quiet = uv_ms < 0;
    if (uv_ms == 0)
        uv_run(&l->uv, UV_RUN_NOWAIT);
    return uv_ms >= 0 && (most_ms < 0 || uv_ms < most_ms) ? uv_ms : most_ms;
}

void pd_loop_uvl_set_wait(struct uvl *l, int most_ms)
{
    struct epoll_event ev[EVENTS_PER_WAIT], *end, *at = ev;
    int n;

    if (!l->uv_is_quiet)
        most_ms = settle_uv(l, most_ms);
    n = epoll_wait(l->set, ev, EVENTS_PER_WAIT, most_ms);
    if (n <= 0)
        return;
    end = ev + n;
    do {
        struct uvl_source *source = at->data.ptr;
        source->on_ready(source, at->events);
    } while (++at < end);
}
