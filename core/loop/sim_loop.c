/* SPDX-License-Identifier: Apache-2.0 */
/* One loop of the simulator: timers, tasks, turns, statistics, its end.
 *
 * Every event of a loop is a turn: its handler runs, then what was deferred, also
 * by what was deferred.  Posted tasks and streams have a turn of their own, at once when
 * the loop is idle and at least TURN_NS after the turn before it, so that
 * virtual time moves on whatever handlers do. */
#include "loop/sim_impl.h"

#include <string.h>

#define TURN_NS PD_US
#define SLOW_NS (50 * PD_MS)
#define MAX_ROUNDS 64       /* of deferred tasks that defer others, in one turn */

/* ---- tasks */

static void tasks_init(struct pd_task *head)
{
    head->next = head->prev = head;
}

static bool is_empty(const struct pd_task *head)
{
    return head->next == head;
}

static void tasks_move(struct pd_task *to, struct pd_task *from)
{
    if (is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    tasks_init(from);
}

static bool queue_task(struct sim_loop *l, struct pd_task *head, struct pd_task *t)
{
    if (t->state != 0)
        return false;
    t->state = 1;
    t->next = head;
    t->prev = head->prev;
    head->prev->next = t;
    head->prev = t;
    l->tasks++;
    if (!l->in_turn || head == &l->posted)
        pd_loop_sim_wake(l);
    return true;
}

static bool loop_post(struct pd_loop *loop, struct pd_task *t)
{
    struct sim_loop *l = sim_of(loop);
    bool is_new = queue_task(l, &l->posted, t);

    l->st.posts += is_new;
    return is_new;
}

static void loop_defer(struct pd_loop *loop, struct pd_task *t)
{
    struct sim_loop *l = sim_of(loop);

    queue_task(l, t->ran_in == l->turn_number ? &l->later : &l->deferred, t);
}

static void unlink_task(struct sim_loop *l, struct pd_task *t)
{
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = t->prev = NULL;
    t->state = 0;
    l->tasks--;
}

static void loop_task_cancel(struct pd_loop *loop, struct pd_task *t)
{
    if (t->state != 0)
        unlink_task(sim_of(loop), t);
}

static void run_list(struct sim_loop *l, struct pd_task *from)
{
    tasks_move(&l->running, from);
    while (!is_empty(&l->running)) {
        struct pd_task *t = l->running.next;
        unlink_task(l, t);
        t->ran_in = l->turn_number;
        l->st.tasks_run++;
        t->cb(t, t->arg);
    }
}

/* ---- turns */

void pd_loop_sim_wake(struct sim_loop *l)
{
    pd_time due = PD_MAX(l->sim->now, l->last_turn + TURN_NS);

    if (l->turn.kind == 0)
        pd_loop_sim_schedule(l->sim, &l->turn, SIM_TURN, l, due);
}

void pd_loop_sim_turn_begin(struct sim_loop *l)
{
    l->base.now = l->sim->now;
    l->in_turn = true;
    l->turn_cost = 0;
}

void pd_loop_sim_turn_end(struct sim_loop *l)
{
    uint32_t i = 0;

    for (int round = 0; round < MAX_ROUNDS && !is_empty(&l->deferred); round++)
        run_list(l, &l->deferred);
    tasks_move(&l->deferred, &l->later);
    if (++l->turn_number == 0)
        l->turn_number = 1;
    l->in_turn = false;
    l->last_turn = l->sim->now;
    l->st.turns++;
    l->st.busy_ns += l->turn_cost;
    while (i < PD_LOOP_LAG_BUCKETS - 1 && l->turn_cost >= PD_US << i)
        i++;
    l->st.lag[i]++;
    l->st.slow_max_ns = PD_MAX(l->st.slow_max_ns, l->turn_cost);
    l->st.slow_turns += l->turn_cost > SLOW_NS;
    if (!is_empty(&l->deferred) || !pd_list_is_empty(&l->ready))
        pd_loop_sim_wake(l);
}

void pd_loop_sim_loop_event(struct sim_loop *l, struct pd_loop_node *n, uint32_t kind)
{
    struct pd_timer *t;

    pd_loop_sim_turn_begin(l);
    switch (kind) {
    case SIM_TIMER:
        t = pd_container_of(n, struct pd_timer, node);
        pd_loop_sim_log(l->sim, l->host, "timer", t->name, 0, 0);
        l->st.timers_fired++;
        t->cb(t, t->arg);
        break;
    case SIM_TURN:
        run_list(l, &l->posted);
        pd_loop_sim_streams_turn(l);
        break;
    case SIM_WORK_RUN:
        pd_loop_sim_work_run(l, n);
        break;
    default:
        pd_loop_sim_work_done(l, n);
        break;
    }
    pd_loop_sim_turn_end(l);
}

void pd_sim_busy(struct pd_loop *loop, pd_time ns)
{
    struct sim_loop *l = sim_of(loop);

    l->busy_until = PD_MAX(l->busy_until, l->sim->now) + ns;
    l->turn_cost += ns;
}

/* ---- time and chance */

static pd_time loop_clock(struct pd_loop *loop)
{
    return sim_of(loop)->sim->now;
}

static uint64_t loop_wall(struct pd_loop *loop)
{
    struct pd_sim *sim = sim_of(loop)->sim;

    return sim->opts.wall_start_ns + sim->now;
}

static void loop_random(struct pd_loop *loop, void *buf, size_t n)
{
    struct sim_loop *l = sim_of(loop);
    uint8_t *p = buf;

    while (n > 0) {
        uint64_t v = pd_loop_sim_rng_next(&l->rng);
        size_t part = PD_MIN(n, sizeof v);
        /* Byte by byte: the same on machines of either byte order. */
        for (size_t i = 0; i < part; i++)
            p[i] = (uint8_t)(v >> (8 * i));
        p += part;
        n -= part;
    }
}

/* A timer that is due already fires in a later turn, as it does for real. */
static void timer_start(struct pd_timer *t, pd_time due)
{
    struct sim_loop *l = sim_of(t->loop);
    pd_time earliest = l->sim->now + (l->in_turn ? 1 : 0);

    if (t->node.kind != 0)
        pd_loop_sim_unschedule(l->sim, &t->node);
    else
        l->st.timers++;
    pd_loop_sim_schedule(l->sim, &t->node, SIM_TIMER, l, PD_MAX(due, earliest));
}

static void timer_stop(struct pd_timer *t)
{
    struct sim_loop *l = sim_of(t->loop);

    l->st.timers--;
    pd_loop_sim_unschedule(l->sim, &t->node);
}

static void loop_stats(struct pd_loop *loop, struct pd_loop_stats *out, size_t size)
{
    struct sim_loop *l = sim_of(loop);

    l->st.tasks = l->tasks;
    memset(out, 0, size);
    memcpy(out, &l->st, PD_MIN(size, sizeof l->st));
}

static void loop_note(struct pd_loop *loop, const char *line)
{
    pd_loop_sim_log(sim_of(loop)->sim, sim_of(loop)->host, "note", line, 0, 0);
}

/* ---- what the simulator does not have */

static pd_status loop_run(struct pd_loop *loop)
{
    (void)loop;
    return PD_ENOSYS;
}

static void loop_stop(struct pd_loop *loop)
{
    (void)loop;
}

static pd_status watch_open(struct pd_loop *loop, int fd, uint32_t events, const char *name,
                            pd_watch_cb cb, void *arg, struct pd_watch **out)
{
    (void)loop;
    (void)fd;
    (void)events;
    (void)name;
    (void)cb;
    (void)arg;
    (void)out;
    return PD_ENOSYS;
}

static pd_status watch_set(struct pd_loop *loop, struct pd_watch *w, uint32_t events)
{
    (void)loop;
    (void)w;
    (void)events;
    return PD_ENOSYS;
}

static void watch_close(struct pd_loop *loop, struct pd_watch *w)
{
    (void)loop;
    (void)w;
}

static pd_status addr_parse(struct pd_str text, struct pd_addr *out)
{
    return pd_loop_addr_parse(text, out);
}

/* ---- life */

struct names {
    struct sim_loop *l;
    char *buf;
    size_t size;
};

static void name_timer(struct pd_loop_node *n, void *arg)
{
    struct names *to = arg;

    if (n->loop == &to->l->base && (n->kind & ~(uint32_t)SIM_HELD) == SIM_TIMER)
        pd_loop_names_add(to->buf, to->size, "timer",
                          pd_container_of(n, struct pd_timer, node)->name);
}

static uint64_t name_all(struct sim_loop *l, char *buf, size_t size)
{
    struct names to = { l, buf, size };
    uint64_t n = pd_loop_sim_work_names(l, buf, size) + l->st.timers + l->tasks;

    PD_LIST_EACH(&l->streams, link) {
        struct sim_stream *s = PD_LIST_ENTRY(link, struct sim_stream, link);
        pd_loop_names_add(buf, size, "stream", s->ev != NULL ? s->ev->name : NULL);
        n++;
    }
    PD_LIST_EACH(&l->listeners, link) {
        struct pd_listener *s = PD_LIST_ENTRY(link, struct pd_listener, link);
        pd_loop_names_add(buf, size, "listener", s->name);
        n++;
    }
    pd_loop_queue_each(&l->sim->queue, name_timer, &to);
    pd_loop_queue_each(&l->held, name_timer, &to);
    for (const struct pd_task *t = l->posted.next; t != &l->posted; t = t->next)
        pd_loop_names_add(buf, size, "task", t->name);
    for (const struct pd_task *t = l->deferred.next; t != &l->deferred; t = t->next)
        pd_loop_names_add(buf, size, "task", t->name);
    for (const struct pd_task *t = l->later.next; t != &l->later; t = t->next)
        pd_loop_names_add(buf, size, "task", t->name);
    return n;
}

void pd_loop_sim_loop_free(struct sim_loop *l)
{
    l->host->loop = NULL;
    pd_free(l);
}

/* Ends of streams and queues are told now; the rest of the simulation stands
 * still meanwhile. */
static pd_status loop_destroy(struct pd_loop *loop, char *names, size_t size)
{
    struct sim_loop *l = sim_of(loop);

    if (names != NULL && size > 0)
        names[0] = '\0';
    for (int i = 0; i < 16 && (l->closing > 0 || l->tasks > 0); i++) {
        pd_loop_sim_turn_begin(l);
        run_list(l, &l->posted);
        pd_loop_sim_streams_turn(l);
        pd_loop_sim_turn_end(l);
    }
    if (name_all(l, names, size) > 0 || l->closing > 0)
        return PD_EBUSY;
    if (l->turn.kind != 0)
        pd_loop_sim_unschedule(l->sim, &l->turn);
    pd_loop_sim_log(l->sim, l->host, "down", NULL, 0, 0);
    pd_loop_sim_loop_free(l);
    return PD_OK;
}

static const struct pd_loop_ops sim_ops = {
    .size = sizeof(struct pd_loop_ops),
    .clock = loop_clock,
    .wall = loop_wall,
    .random = loop_random,
    .timer_start = timer_start,
    .timer_stop = timer_stop,
    .post = loop_post,
    .defer = loop_defer,
    .task_cancel = loop_task_cancel,
    .workq_create = pd_loop_sim_workq_create,
    .workq_close = pd_loop_sim_workq_close,
    .work_submit = pd_loop_sim_work_submit,
    .work_cancel = pd_loop_sim_work_cancel,
    .connect = pd_loop_sim_connect,
    .adopt = pd_loop_sim_adopt,
    .listener_open = pd_loop_sim_listener_open,
    .listener_addr = pd_loop_sim_listener_addr,
    .listener_pause = pd_loop_sim_listener_pause,
    .listener_close = pd_loop_sim_listener_close,
    .watch_open = watch_open,
    .watch_set = watch_set,
    .watch_close = watch_close,
    .resolve = pd_loop_sim_resolve,
    .resolve_cancel = pd_loop_sim_resolve_cancel,
    .addr_parse = addr_parse,
    .addr_format = pd_loop_addr_format,
    .stats = loop_stats,
    .note = loop_note,
    .run = loop_run,
    .stop = loop_stop,
    .destroy = loop_destroy,
};

pd_status pd_loop_sim_loop_make(struct sim_host *h, struct pd_loop **out)
{
    struct sim_loop *l = pd_calloc(1, sizeof *l);
    uint64_t seed = h->sim->seed ^ ((uint64_t)h->life << 32) ^ (h->index + 1);

    if (l == NULL)
        return PD_ENOMEM;
    l->base.ops = &sim_ops;
    l->base.name = h->name;
    l->base.now = h->sim->now;
    l->sim = h->sim;
    l->host = h;
    l->turn.loop = &l->base;
    pd_loop_sim_rng_seed(&l->rng, seed * 0x9e3779b97f4a7c15u);
    tasks_init(&l->posted);
    tasks_init(&l->deferred);
    tasks_init(&l->later);
    l->turn_number = 1;
    tasks_init(&l->running);
    pd_list_init(&l->streams);
    pd_list_init(&l->ready);
    pd_list_init(&l->listeners);
    pd_list_init(&l->dead_listeners);
    pd_list_init(&l->workqs);
    pd_list_init(&l->lookups);
    h->loop = l;
    *out = &l->base;
    return PD_OK;
}
