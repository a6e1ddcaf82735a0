/* SPDX-License-Identifier: Apache-2.0 */
/* The set that a turn waits for: sockets of streams, the timerfd, and libuv's own
 * set as one member.  Streams are the data path; a turn that is only theirs does
 * not enter libuv, which keeps what is rare: listeners, watches, names, signals,
 * other threads' wake-ups.
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

void pd_loop_uvl_set_wait(struct uvl *l, int most_ms)
{
    struct epoll_event ev[EVENTS_PER_WAIT];
    int uv_ms = uv_backend_timeout(&l->uv), n;

    /* It has something to close, or changes that the kernel has not heard of.
     * What that did may be what the caller waits for. */
    if (uv_ms == 0)
        uv_run(&l->uv, UV_RUN_NOWAIT);
    if (uv_ms >= 0 && (most_ms < 0 || uv_ms < most_ms))
        most_ms = uv_ms;
    n = epoll_wait(l->set, ev, EVENTS_PER_WAIT, most_ms);
    for (int i = 0; i < n; i++) {
        struct uvl_source *source = ev[i].data.ptr;
        source->on_ready(source, ev[i].events);
    }
}
