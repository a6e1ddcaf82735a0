/* SPDX-License-Identifier: Apache-2.0 */
/* Work queues and names of the simulator.
 *
 * A work starts when one of the queue's virtual threads is free: run is called
 * then, as an event of its own, and done follows after the virtual time that
 * the work costs.  Names come from the simulation's table after a moment. */
#include "loop/sim_impl.h"

#include <string.h>

enum { IDLE, WAITING, STARTING, RUNNING, CANCELED };
enum { DEFAULT_LIMIT = 1024, LOOKUP_LIMIT = 256, MAX_HOST = 253 };
#define LOOKUP_NS (500 * PD_US)

struct pd_workq {
    struct sim_loop *l;
    struct pd_list link;
    const char *name;
    uint32_t threads, limit, busy, waiting_count;
    struct pd_work *first, *last;   /* waiting */
    struct pd_work *canceled;       /* told at the next turn */
    struct pd_task tell;
    bool is_closing;
    void (*on_closed)(void *arg);
    void *arg;
};

static void append(struct pd_workq *q, struct pd_work *w)
{
    w->next = NULL;
    w->prev = q->last;
    if (q->last != NULL)
        q->last->next = w;
    else
        q->first = w;
    q->last = w;
    q->waiting_count++;
}

static void take_out(struct pd_workq *q, struct pd_work *w)
{
    if (w->prev != NULL)
        w->prev->next = w->next;
    else
        q->first = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
    else
        q->last = w->prev;
    w->next = w->prev = NULL;
    q->waiting_count--;
}

/* Puts waiting works on free threads. */
static void start_works(struct pd_workq *q)
{
    while (q->busy < q->threads && q->first != NULL) {
        struct pd_work *w = q->first;
        take_out(q, w);
        q->busy++;
        w->state = STARTING;
        pd_loop_sim_schedule(q->l->sim, &w->node, SIM_WORK_RUN, q->l, q->l->sim->now);
    }
}

static void maybe_closed(struct pd_workq *q)
{
    struct sim_loop *l = q->l;
    void (*on_closed)(void *arg) = q->on_closed;
    void *arg = q->arg;

    if (!q->is_closing || q->busy > 0 || q->canceled != NULL)
        return;
    l->base.ops->task_cancel(&l->base, &q->tell);
    pd_list_remove(&q->link);
    pd_free(q);
    l->closing--;
    if (on_closed != NULL)
        on_closed(arg);
}

static void on_tell(struct pd_task *task, void *arg)
{
    struct pd_workq *q = arg;
    struct pd_work *w;

    (void)task;
    while ((w = q->canceled) != NULL) {
        q->canceled = w->next;
        w->next = NULL;
        w->state = IDLE;
        w->queue = NULL;
        if (w->done != NULL)
            w->done(w, PD_ECANCELED, w->arg);
    }
    maybe_closed(q);
}

static void cancel(struct pd_workq *q, struct pd_work *w)
{
    struct pd_work **at = &q->canceled;

    while (*at != NULL)
        at = &(*at)->next;
    w->state = CANCELED;
    w->next = w->prev = NULL;
    *at = w;
    pd_loop_defer(&q->l->base, &q->tell);
}

pd_status pd_loop_sim_workq_create(struct pd_loop *loop, const struct pd_workq_opts *opts,
                                   struct pd_workq **out)
{
    struct sim_loop *l = sim_of(loop);
    struct pd_workq *q;
    pd_status st;

    if (opts == NULL || opts->threads == 0)
        return PD_EINVAL;
    st = SIM_ADMIT(l, "work queue", PD_ENOMEM, PD_ELIMIT);
    if (st != PD_OK)
        return st;
    q = pd_calloc(1, sizeof *q);
    if (q == NULL)
        return PD_ENOMEM;
    q->l = l;
    q->name = opts->name;
    q->threads = opts->threads;
    q->limit = opts->limit != 0 ? opts->limit : DEFAULT_LIMIT;
    pd_task_init(&q->tell, opts->name, on_tell, q);
    pd_list_init(&q->link);
    pd_list_append(&l->workqs, &q->link);
    l->st.workqs++;
    *out = q;
    return PD_OK;
}

void pd_loop_sim_workq_close(struct pd_loop *loop, struct pd_workq *q, void (*on_closed)(void *arg),
                             void *arg)
{
    struct sim_loop *l = sim_of(loop);

    if (q->is_closing)
        return;
    q->is_closing = true;
    q->on_closed = on_closed;
    q->arg = arg;
    while (q->first != NULL) {
        struct pd_work *w = q->first;
        take_out(q, w);
        cancel(q, w);
    }
    l->st.workqs--;
    l->closing++;
    pd_loop_defer(loop, &q->tell);
}

pd_status pd_loop_sim_work_submit(struct pd_loop *loop, struct pd_workq *q, struct pd_work *w)
{
    struct sim_loop *l = sim_of(loop);

    if (w->run == NULL || w->state != IDLE)
        return PD_EINVAL;
    if (q->is_closing)
        return PD_ESTALE;
    if (q->waiting_count >= q->limit || SIM_ADMIT(l, "work", PD_ELIMIT) != PD_OK)
        return PD_ELIMIT;
    pd_loop_sim_log(l->sim, l->host, "work", w->name, q->waiting_count, q->busy);
    w->queue = q;
    w->state = WAITING;
    append(q, w);
    start_works(q);
    return PD_OK;
}

bool pd_loop_sim_work_cancel(struct pd_loop *loop, struct pd_work *w)
{
    struct pd_workq *q = w->queue;

    (void)loop;
    if (q == NULL || (w->state != WAITING && w->state != STARTING))
        return false;
    if (w->state == WAITING) {
        take_out(q, w);
    } else {
        pd_loop_sim_unschedule(q->l->sim, &w->node);
        q->busy--;
        start_works(q);
    }
    cancel(q, w);
    return true;
}

void pd_loop_sim_work_run(struct sim_loop *l, struct pd_loop_node *n)
{
    struct pd_work *w = pd_container_of(n, struct pd_work, node);

    w->state = RUNNING;
    w->run(w, w->arg);
    pd_loop_sim_schedule(l->sim, n, SIM_WORK_DONE, l, l->sim->now + w->sim_cost_ns);
}

void pd_loop_sim_work_done(struct sim_loop *l, struct pd_loop_node *n)
{
    struct pd_work *w = pd_container_of(n, struct pd_work, node);
    struct pd_workq *q = w->queue;

    pd_loop_sim_log(l->sim, l->host, "work done", w->name, w->sim_cost_ns, 0);
    w->state = IDLE;
    w->queue = NULL;
    l->st.works_run++;
    /* The thread is free before done runs, as a real one is; busy stays up
     * until then, so that done cannot lose the queue under us. */
    if (w->done != NULL)
        w->done(w, PD_OK, w->arg);
    q->busy--;
    start_works(q);
    maybe_closed(q);
}

/* ---- names */

struct lookup {
    struct sim_loop *l;
    struct pd_list link;
    struct pd_resolve *r;
    struct pd_timer timer;
    uint16_t port;
    bool is_numeric;
    struct pd_addr numeric;
    char host[];
};

static size_t find_all(struct pd_sim *sim, struct lookup *k, struct pd_addr *out)
{
    size_t n = 0;

    if (k->is_numeric) {
        out[0] = k->numeric;
        return 1;
    }
    if (strcmp(k->host, "localhost") == 0)
        return pd_loop_addr_parse_ip("127.0.0.1", k->port, out) == PD_OK ? 1 : 0;
    for (uint32_t i = 0; i < sim->host_count && n < SIM_ADDRS; i++) {
        if (strcmp(sim->hosts[i]->name, k->host) == 0)
            out[n++] = sim->hosts[i]->ip;
    }
    for (uint32_t i = 0; i < sim->name_count && n < SIM_ADDRS; i++) {
        if (strcmp(sim->names[i].name, k->host) == 0)
            out[n++] = sim->names[i].ip;
    }
    for (size_t i = 0; i < n; i++)
        out[i].port = k->port;
    return n;
}

static void free_lookup(struct lookup *k)
{
    pd_list_remove(&k->link);
    k->l->st.resolves--;
    pd_free(k);
}

static void on_lookup(struct pd_timer *t, void *arg)
{
    struct lookup *k = arg;
    struct pd_resolve *r = k->r;
    struct pd_addr addrs[SIM_ADDRS];
    pd_status failed = k->is_numeric ? PD_OK : k->l->sim->resolver;
    size_t n = failed == PD_OK ? find_all(k->l->sim, k, addrs) : 0;

    (void)t;
    pd_loop_sim_log(k->l->sim, k->l->host, "resolve", k->host, n, 0);
    free_lookup(k);
    r->priv = NULL;
    r->cb(r, failed != PD_OK ? failed : n > 0 ? PD_OK : PD_ENOENT, addrs, n, r->arg);
}

pd_status pd_loop_sim_resolve(struct pd_loop *loop, const char *host, uint16_t port,
                              struct pd_resolve *r)
{
    struct sim_loop *l = sim_of(loop);
    size_t len = strlen(host);
    struct lookup *k;
    pd_status st;

    if (r->cb == NULL || r->priv != NULL || len == 0 || len > MAX_HOST)
        return PD_EINVAL;
    if (l->st.resolves >= LOOKUP_LIMIT)
        return PD_ELIMIT;
    st = SIM_ADMIT(l, "resolve", PD_ENOMEM, PD_ELIMIT);
    if (st != PD_OK)
        return st;
    k = pd_calloc(1, sizeof *k + len + 1);
    if (k == NULL)
        return PD_ENOMEM;
    k->l = l;
    k->r = r;
    k->port = port;
    memcpy(k->host, host, len);
    k->is_numeric = pd_loop_addr_parse_ip(host, port, &k->numeric) == PD_OK;
    pd_list_init(&k->link);
    pd_list_append(&l->lookups, &k->link);
    l->st.resolves++;
    pd_timer_init(&k->timer, loop, r->name, on_lookup, k);
    pd_timer_start(&k->timer, k->is_numeric ? 0 : LOOKUP_NS);
    r->priv = k;
    return PD_OK;
}

void pd_loop_sim_resolve_cancel(struct pd_loop *loop, struct pd_resolve *r)
{
    struct lookup *k = r->priv;

    (void)loop;
    if (k == NULL)
        return;
    r->priv = NULL;
    pd_timer_stop(&k->timer);
    free_lookup(k);
}

/* ---- ends */

uint64_t pd_loop_sim_work_names(struct sim_loop *l, char *names, size_t size)
{
    uint64_t n = 0;

    PD_LIST_EACH(&l->workqs, link) {
        struct pd_workq *q = PD_LIST_ENTRY(link, struct pd_workq, link);
        pd_loop_names_add(names, size, "workq", q->name);
        n++;
    }
    PD_LIST_EACH(&l->lookups, link) {
        struct lookup *k = PD_LIST_ENTRY(link, struct lookup, link);
        pd_loop_names_add(names, size, "resolve", k->r->name);
        n++;
    }
    return n;
}

void pd_loop_sim_work_drop(struct sim_loop *l)
{
    struct pd_list *link;

    while ((link = pd_list_pop(&l->workqs)) != NULL)
        pd_free(PD_LIST_ENTRY(link, struct pd_workq, link));
    while ((link = pd_list_pop(&l->lookups)) != NULL)
        pd_free(PD_LIST_ENTRY(link, struct lookup, link));
}
