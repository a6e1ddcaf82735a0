/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the uv backend share; nobody else includes this. */
#ifndef PD_LOOP_UV_IMPL_H
#define PD_LOOP_UV_IMPL_H

#include "base/compiler.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/status.h"
#include "loop/addr.h"
#include "loop/queue.h"
#include "loop/uv.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <time.h>
#include <uv.h>

enum { UVL_RANDOM_POOL = 4096, UVL_RESOLVE_LIMIT = 256, UVL_IOV_MAX = 64, UVL_FDS_MAX = 16 };

/* Every handle stands in the loop's list until it is closed, so that
 * pd_loop_destroy can name what is left. */
struct uvl_handle {
    struct pd_list link;
    const char *what;           /* "stream", "listener" ... */
    const char *name;
};

/* A member of the set that a turn waits for. */
struct uvl_source {
    void (*on_ready)(struct uvl_source *source, uint32_t events);
};

struct uvl {
    struct pd_loop base;        /* first */
    int set;                    /* what a turn waits for */
    struct uvl_source uv_source, timer_source;
    struct pd_list closed;      /* streams whose last callback is still to come */
    uv_loop_t uv;
    bool uv_is_quiet;           /* libuv has nothing to do but what its set tells */
    uv_async_t wake;            /* also keeps libuv's loop alive */
    int timer_fd;
    pd_time timer_armed;        /* when timer_fd fires, PD_TIME_NEVER: disarmed */
    struct pd_loop_queue timers;
    uint64_t next_seq;

    pthread_mutex_t post_lock;
    struct pd_task posted;      /* list head; behind post_lock */
    uint32_t any_posted;        /* atomic: 0 when nothing is in it */
    struct pd_task running;     /* list head: posted tasks of this turn */
    struct pd_task deferred;    /* list head */
    struct pd_task later;       /* list head: deferred again in the turn that ran them */
    uint32_t turn_number;
    uintptr_t thread;           /* atomic: who runs the loop now, 0: nobody */
    uint32_t stop;              /* atomic */

    bool in_turn;
    pd_time turn_start, mark, worst_ns;
    const char *worst_name;
    pd_time slow_ns;
    void (*on_slow)(void *arg, const char *handler, pd_time handler_ns, pd_time turn_ns);
    void *slow_arg;

    const struct pd_loop_uv_socket *sockets;
    size_t n_sockets;
    const struct pd_addr *sources;
    size_t n_sources, next_source;
    bool stopped_accepting;
    struct pd_list handles;
    uint64_t closing;           /* handles whose last callback is still to come */
    struct pd_loop_stats st;
    uint8_t pool[UVL_RANDOM_POOL];
    size_t pool_left;
};

static inline struct uvl *uvl_of(struct pd_loop *loop) { return (struct uvl *)loop; }

static inline pd_time pd_loop_uvl_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (pd_time)ts.tv_sec * PD_SEC + (pd_time)ts.tv_nsec;
}

/* Around each handler: begins the turn when it has not begun, and charges the time
 * to `name`. */
static inline void pd_loop_uvl_enter(struct uvl *l)
{
    if (l->in_turn)
        return;
    l->in_turn = true;
    l->base.now = l->turn_start = l->mark = pd_loop_uvl_clock();
    l->worst_ns = 0;
    l->worst_name = NULL;
}

static inline void pd_loop_uvl_leave(struct uvl *l, const char *name)
{
    pd_time t = pd_loop_uvl_clock(), took = t - l->mark;

    l->mark = t;
    if (took >= l->worst_ns) {
        l->worst_ns = took;
        l->worst_name = name;
    }
}

/* To be called with each change of a libuv handle: the next turn asks libuv whether it
 * has something to close or to tell the kernel. */
static inline void pd_loop_uvl_touch(struct uvl *l)
{
    l->uv_is_quiet = false;
}

/* Wakes the loop, from any thread, for what the caller has written before.  libuv does
 * nothing when a wake-up is on its way already, and looks whether one is before that
 * write has to be seen by others: then the loop could take the one on its way, look
 * for what it was woken for, and wait. */
static inline void pd_loop_uvl_wake(struct uvl *l)
{
    __sync_synchronize();
    uv_async_send(&l->wake);
}

void pd_loop_uvl_handle_add(struct uvl *l, struct uvl_handle *h, const char *what,
                            const char *name);
void pd_loop_uvl_handle_remove(struct uvl_handle *h);

/* uv_task.c */
bool pd_loop_uvl_post(struct pd_loop *loop, struct pd_task *task);
void pd_loop_uvl_defer(struct pd_loop *loop, struct pd_task *task);
void pd_loop_uvl_task_cancel(struct pd_loop *loop, struct pd_task *task);
void pd_loop_uvl_tasks_init(struct uvl *l);
/* Posted tasks first, then deferred ones and those that they defer: what a turn has
 * caused is on its way before the loop asks for more.  None runs twice. */
void pd_loop_uvl_run_tasks(struct uvl *l);
/* Adds the names of those that are queued, and their number. */
void pd_loop_uvl_count_tasks(struct uvl *l, char *names, size_t size, uint64_t *count);

static inline bool pd_loop_uvl_has_tasks(struct uvl *l)
{
    return l->deferred.next != &l->deferred || __atomic_load_n(&l->any_posted, __ATOMIC_ACQUIRE) != 0;
}

/* uv_epoll.c */
pd_status pd_loop_uvl_set_open(struct uvl *l);
void pd_loop_uvl_set_close(struct uvl *l);
/* op is one of epoll_ctl. */
pd_status pd_loop_uvl_set_change(struct uvl *l, int op, int fd, uint32_t events,
                                 struct uvl_source *source);
/* Waits, at most so long (-1: without a limit), and runs what is ready. */
void pd_loop_uvl_set_wait(struct uvl *l, int most_ms);

/* uv_stream.c */
/* The last callbacks of the streams closed up to now; there is one. */
void pd_loop_uvl_streams_closed(struct uvl *l);
/* A stream of an accepted, non-blocking socket, without handlers yet; takes fd.
 * pd_loop_uvl_stream_begin makes it live if handlers came, and closes it otherwise. */
struct pd_stream *pd_loop_uvl_stream_accepted(struct uvl *l, int fd, uint16_t family);
void pd_loop_uvl_stream_begin(struct pd_stream *s);

/* uv_connect.c */
pd_status pd_loop_uvl_connect(struct pd_loop *loop, const struct pd_addr *to,
                              const struct pd_stream_events *ev, void *arg, struct pd_stream **out);
pd_status pd_loop_uvl_adopt(struct pd_loop *loop, int fd, const struct pd_stream_events *ev,
                            void *arg, struct pd_stream **out);

/* uv_listen.c */
pd_status pd_loop_uvl_listener_open(struct pd_loop *loop, const struct pd_addr *addr,
                                    const struct pd_listener_opts *opts, pd_accept_cb on_accept,
                                    void *arg, struct pd_listener **out);
pd_status pd_loop_uvl_listener_addr(struct pd_loop *loop, struct pd_listener *l,
                                    struct pd_addr *out);
void pd_loop_uvl_listener_pause(struct pd_loop *loop, struct pd_listener *l, bool paused);
void pd_loop_uvl_listener_close(struct pd_loop *loop, struct pd_listener *l);

/* uv_work.c */
pd_status pd_loop_uvl_workq_create(struct pd_loop *loop, const struct pd_workq_opts *opts,
                                   struct pd_workq **out);
void pd_loop_uvl_workq_close(struct pd_loop *loop, struct pd_workq *q, void (*on_closed)(void *arg),
                             void *arg);
pd_status pd_loop_uvl_work_submit(struct pd_loop *loop, struct pd_workq *q, struct pd_work *work);
bool pd_loop_uvl_work_cancel(struct pd_loop *loop, struct pd_work *work);

/* uv_misc.c */
pd_status pd_loop_uvl_watch_open(struct pd_loop *loop, int fd, uint32_t events, const char *name,
                                 pd_watch_cb cb, void *arg, struct pd_watch **out);
pd_status pd_loop_uvl_watch_set(struct pd_loop *loop, struct pd_watch *w, uint32_t events);
void pd_loop_uvl_watch_close(struct pd_loop *loop, struct pd_watch *w);
pd_status pd_loop_uvl_resolve(struct pd_loop *loop, const char *host, uint16_t port,
                              struct pd_resolve *r);
void pd_loop_uvl_resolve_cancel(struct pd_loop *loop, struct pd_resolve *r);

#endif
