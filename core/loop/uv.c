/* SPDX-License-Identifier: Apache-2.0 */
/* The real loop: turns, time, timers, chance, statistics.
 *
 * A turn waits once for events and runs their handlers, then the last callbacks
 * of closed streams, then tasks.  `now` is read when the first handler of a turn
 * begins.  All timers stand in one queue in front of one timerfd, which is set once
 * per turn and only when an earlier timer came; a timer that is stopped leaves it
 * set, and the early wake-up sets it anew. */
#include "loop/uv_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* ---- time and chance */

static pd_time loop_clock(struct pd_loop *loop)
{
    (void)loop;
    return pd_loop_uvl_clock();
}

static uint64_t loop_wall(struct pd_loop *loop)
{
    struct timespec ts;

    (void)loop;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (pd_time)ts.tv_sec * PD_SEC + (pd_time)ts.tv_nsec;
}

static void system_random(uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        pd_assert(got > 0 || errno == EINTR);
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}

/* Small requests come from a pool, which forgets what it gave. */
static void loop_random(struct pd_loop *loop, void *buf, size_t n)
{
    struct uvl *l = uvl_of(loop);
    uint8_t *p;

    if (n > sizeof l->pool / 4) {
        system_random(buf, n);
        return;
    }
    if (l->pool_left < n) {
        system_random(l->pool, sizeof l->pool);
        l->pool_left = sizeof l->pool;
    }
    l->pool_left -= n;
    p = l->pool + l->pool_left;
    if (n == sizeof(uint64_t)) {
        memcpy(buf, p, sizeof(uint64_t));
        memset(p, 0, sizeof(uint64_t));
        return;
    }
    memcpy(buf, p, n);
    memset(p, 0, n);
}

/* ---- turns */

static void end_turn(struct uvl *l)
{
    pd_time took = l->mark - l->turn_start;
    uint32_t i;

    l->in_turn = false;
    l->st.turns++;
    l->st.busy_ns += took;
    /* Bucket i ends at 2^i us. */
    i = 63 - (uint32_t)__builtin_clzll(2 * (took / PD_US) + 1);
    i = PD_MIN(i, PD_LOOP_LAG_BUCKETS - 1u);
    l->st.lag[i]++;
    if (took > l->st.slow_max_ns)
        l->st.slow_max_ns = took;
    if (took > l->slow_ns) {
        l->st.slow_turns++;
        l->st.slow_name = l->worst_name;
        if (l->on_slow != NULL)
            l->on_slow(l->slow_arg, l->worst_name, l->worst_ns, took);
    }
}

/* ---- handles */

void pd_loop_uvl_handle_add(struct uvl *l, struct uvl_handle *h, const char *what, const char *name)
{
    h->what = what;
    h->name = name;
    pd_list_init(&h->link);
    pd_list_append(&l->handles, &h->link);
}

void pd_loop_uvl_handle_remove(struct uvl_handle *h)
{
    pd_list_remove(&h->link);
}

/* ---- timers */

static void timer_start(struct pd_timer *t, pd_time due)
{
    struct uvl *l = uvl_of(t->loop);

    if (t->node.kind != 0)
        pd_loop_queue_remove(&l->timers, &t->node);
    t->node.kind = 1;
    t->node.due = due;
    t->node.seq = l->next_seq++;
    pd_loop_queue_add(&l->timers, &t->node);
}

static void timer_stop(struct pd_timer *t)
{
    pd_loop_queue_remove(&uvl_of(t->loop)->timers, &t->node);
    t->node.kind = 0;
}

/* Sets the timerfd to the first timer. */
static __attribute__((noinline)) void arm_timer(struct uvl *l)
{
    struct itimerspec spec;
    pd_time due = l->timers.root->due;

    l->timer_armed = due;
    memset(&spec, 0, sizeof spec);
    spec.it_value.tv_sec = (time_t)(due / PD_SEC);
    spec.it_value.tv_nsec = (long)(due % PD_SEC);
    if (due == 0)
        spec.it_value.tv_nsec = 1;
    timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* Fires what is due.  Timers started meanwhile wait for the next turn, even
 * when they are due, so that the loop stays fair. */
static void on_timer_fd(struct uvl_source *source, uint32_t events)
{
    struct uvl *l = pd_container_of(source, struct uvl, timer_source);
    uint64_t expirations, limit = l->next_seq;
    struct pd_loop_node *n;
    pd_time now;

    (void)events;
    pd_loop_uvl_enter(l);
    now = pd_loop_uvl_clock();
    if (l->timers.root == NULL || l->timers.root->due > now) {
        /* The timer that this was for is stopped. */
        ssize_t got = read(l->timer_fd, &expirations, sizeof expirations);
        (void)got;
    }
    l->timer_armed = PD_TIME_NEVER;
    while ((n = l->timers.root) != NULL && n->due <= now && n->seq < limit) {
        struct pd_timer *t = pd_container_of(n, struct pd_timer, node);
        const char *name = t->name;
        pd_loop_queue_remove(&l->timers, n);
        n->kind = 0;
        l->st.timers_fired++;
        t->cb(t, t->arg);
        pd_loop_uvl_leave(l, name);
    }
    if (l->timers.root == NULL) {
        ssize_t got = read(l->timer_fd, &expirations, sizeof expirations);
        (void)got;
    }
}

static void on_wake(uv_async_t *h)
{
    (void)h;
}

/* ---- running */

/* Waits at most so long when there is nothing to do; -1: without a limit. */
static inline void turn(struct uvl *l, int most_ms)
{
    const struct pd_loop_node *first = l->timers.root;

    /* It would wake us too late. */
    if (first != NULL && first->due < l->timer_armed)
        arm_timer(l);
    pd_loop_uvl_set_wait(l, pd_loop_uvl_has_tasks(l) || !pd_list_is_empty(&l->closed) ? 0 : most_ms);
    if (!pd_list_is_empty(&l->closed))
        pd_loop_uvl_streams_closed(l);
    if (pd_loop_uvl_has_tasks(l))
        pd_loop_uvl_run_tasks(l);
    if (l->in_turn)
        end_turn(l);
}

static void claim_thread(struct uvl *l)
{
    __atomic_store_n(&l->thread, (uintptr_t)pthread_self(), __ATOMIC_RELAXED);
}

static void leave_thread(struct uvl *l)
{
    __atomic_store_n(&l->thread, 0, __ATOMIC_RELAXED);
}

static pd_status loop_run(struct pd_loop *loop)
{
    struct uvl *l = uvl_of(loop);

    claim_thread(l);
    l->base.now = pd_loop_uvl_clock();
    while (__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE) == 0)
        turn(l, -1);
    __atomic_store_n(&l->stop, 0, __ATOMIC_RELAXED);
    leave_thread(l);
    return PD_OK;
}

static void loop_stop(struct pd_loop *loop)
{
    struct uvl *l = uvl_of(loop);

    __atomic_store_n(&l->stop, 1, __ATOMIC_RELEASE);
    pd_loop_uvl_wake(l);
}

pd_status pd_loop_uv_turn(struct pd_loop *loop, pd_time max_wait_ns)
{
    struct uvl *l = uvl_of(loop);
    pd_time ms = max_wait_ns / PD_MS + (max_wait_ns % PD_MS != 0);

    claim_thread(l);
    turn(l, ms < INT32_MAX ? (int)ms : INT32_MAX);
    leave_thread(l);
    return PD_OK;
}

static void loop_stats(struct pd_loop *loop, struct pd_loop_stats *out, size_t size)
{
    struct uvl *l = uvl_of(loop);

    l->st.timers = l->timers.count;
    l->st.tasks = 0;
    pd_loop_uvl_count_tasks(l, NULL, 0, &l->st.tasks);
    memset(out, 0, size);
    pthread_mutex_lock(&l->post_lock);      /* posts */
    memcpy(out, &l->st, size < sizeof l->st ? size : sizeof l->st);
    pthread_mutex_unlock(&l->post_lock);
}

static void loop_note(struct pd_loop *loop, const char *line)
{
    (void)loop;
    (void)line;
}

/* ---- life */

struct names {
    char *buf;
    size_t size;
};

static void name_timer(struct pd_loop_node *n, void *arg)
{
    struct names *to = arg;

    pd_loop_names_add(to->buf, to->size, "timer",
                      pd_container_of(n, struct pd_timer, node)->name);
}

static bool is_busy(struct uvl *l, char *names, size_t size)
{
    struct names to = { names, size };
    uint64_t tasks = 0;

    if (names != NULL && size > 0)
        names[0] = '\0';
    PD_LIST_EACH(&l->handles, link) {
        struct uvl_handle *h = PD_LIST_ENTRY(link, struct uvl_handle, link);
        pd_loop_names_add(names, size, h->what, h->name);
    }
    pd_loop_queue_each(&l->timers, name_timer, &to);
    pd_loop_uvl_count_tasks(l, names, size, &tasks);
    return !pd_list_is_empty(&l->handles) || l->timers.count > 0 || tasks > 0;
}

static void free_loop(struct uvl *l)
{
    pthread_mutex_destroy(&l->post_lock);
    pd_loop_uvl_set_close(l);
    if (l->timer_fd >= 0)
        close(l->timer_fd);
    pd_free(l);
}

static pd_status loop_destroy(struct pd_loop *loop, char *names, size_t size)
{
    struct uvl *l = uvl_of(loop);

    claim_thread(l);
    while (l->closing > 0)
        turn(l, -1);
    turn(l, 0);
    leave_thread(l);
    if (is_busy(l, names, size))
        return PD_EBUSY;
    uv_close((uv_handle_t *)&l->wake, NULL);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    pd_assert(uv_loop_close(&l->uv) == 0);
    free_loop(l);
    return PD_OK;
}

static pd_status addr_parse(struct pd_str text, struct pd_addr *out)
{
    return pd_loop_addr_parse(text, out);
}

static const struct pd_loop_ops uv_ops = {
    .size = sizeof(struct pd_loop_ops),
    .clock = loop_clock,
    .wall = loop_wall,
    .random = loop_random,
    .timer_start = timer_start,
    .timer_stop = timer_stop,
    .post = pd_loop_uvl_post,
    .defer = pd_loop_uvl_defer,
    .task_cancel = pd_loop_uvl_task_cancel,
    .workq_create = pd_loop_uvl_workq_create,
    .workq_close = pd_loop_uvl_workq_close,
    .work_submit = pd_loop_uvl_work_submit,
    .work_cancel = pd_loop_uvl_work_cancel,
    .connect = pd_loop_uvl_connect,
    .adopt = pd_loop_uvl_adopt,
    .listener_open = pd_loop_uvl_listener_open,
    .listener_addr = pd_loop_uvl_listener_addr,
    .listener_pause = pd_loop_uvl_listener_pause,
    .listener_close = pd_loop_uvl_listener_close,
    .watch_open = pd_loop_uvl_watch_open,
    .watch_set = pd_loop_uvl_watch_set,
    .watch_close = pd_loop_uvl_watch_close,
    .resolve = pd_loop_uvl_resolve,
    .resolve_cancel = pd_loop_uvl_resolve_cancel,
    .addr_parse = addr_parse,
    .addr_format = pd_loop_addr_format,
    .stats = loop_stats,
    .note = loop_note,
    .run = loop_run,
    .stop = loop_stop,
    .destroy = loop_destroy,
};

static void init_state(struct uvl *l, const struct pd_loop_uv_opts *opts)
{
    l->base.ops = &uv_ops;
    l->base.name = "loop";
    l->base.now = pd_loop_uvl_clock();
    l->slow_ns = 50 * PD_MS;
    l->set = -1;
    l->timer_source.on_ready = on_timer_fd;
    pd_list_init(&l->closed);
    l->timer_armed = PD_TIME_NEVER;
    if (opts != NULL) {
        if (opts->name != NULL)
            l->base.name = opts->name;
        if (opts->slow_ns != 0)
            l->slow_ns = opts->slow_ns;
        l->on_slow = opts->on_slow;
        l->slow_arg = opts->arg;
        l->sockets = opts->sockets;
        l->n_sockets = opts->n_sockets;
        l->sources = opts->sources;
        l->n_sources = opts->n_sources;
    }
    pd_loop_uvl_tasks_init(l);
    pd_list_init(&l->handles);
    pthread_mutex_init(&l->post_lock, NULL);
}

pd_status pd_loop_uv_create(const struct pd_loop_uv_opts *opts, struct pd_loop **out)
{
    struct uvl *l = pd_calloc(1, sizeof *l);
    pd_status st;
    int err;

    if (l == NULL)
        return PD_ENOMEM;
    init_state(l, opts);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (l->timer_fd < 0) {
        st = pd_status_from_errno(errno);
        free_loop(l);
        return st;
    }
    err = uv_loop_init(&l->uv);
    if (err != 0) {
        free_loop(l);
        return pd_status_from_errno(-err);
    }
    err = uv_async_init(&l->uv, &l->wake, on_wake);
    if (err != 0) {
        uv_loop_close(&l->uv);
        free_loop(l);
        return pd_status_from_errno(-err);
    }
    st = pd_loop_uvl_set_open(l);
    if (st != PD_OK) {
        uv_close((uv_handle_t *)&l->wake, NULL);
        uv_run(&l->uv, UV_RUN_DEFAULT);
        uv_loop_close(&l->uv);
        free_loop(l);
        return st;
    }
    *out = &l->base;
    return PD_OK;
}
