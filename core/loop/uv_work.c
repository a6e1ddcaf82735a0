/* SPDX-License-Identifier: Apache-2.0 */
/* Work queues of the uv backend: threads that run works and hand them back to
 * the loop.
 *
 * A work is in exactly one place: `waiting` (state WAITING), in a thread
 * (RUNNING), in `finished` (FINISHED or CANCELED), or nowhere (IDLE).  All of
 * it is behind the queue's lock.  `finished` is handed over by one task that
 * the threads post; the last thread to end posts it too, and then it joins
 * them. */
#include "loop/uv_impl.h"

#include <signal.h>
#include <string.h>

enum { IDLE, WAITING, RUNNING, FINISHED, CANCELED };
enum { MAX_THREADS = 1024, DEFAULT_LIMIT = 1024 };

struct worker {
    struct pd_workq *q;
    uint32_t index;
    pthread_t thread;
};

struct works {
    struct pd_work *first, *last;
};

struct pd_workq {
    struct uvl *l;
    struct uvl_handle handle;
    pthread_mutex_t lock;
    pthread_cond_t has_work;
    struct works waiting, finished;
    uint32_t waiting_count, limit, threads, alive;
    bool closing;               /* written by the loop thread, behind lock */
    struct pd_task hand_over;
    void (*on_thread)(uint32_t index, void *arg);
    void *arg;
    void (*on_closed)(void *arg);
    void *closed_arg;
    char name[16];
    struct worker workers[];
};

static void append(struct works *list, struct pd_work *w)
{
    w->next = NULL;
    w->prev = list->last;
    if (list->last != NULL)
        list->last->next = w;
    else
        list->first = w;
    list->last = w;
}

static void take_out(struct works *list, struct pd_work *w)
{
    if (w->prev != NULL)
        w->prev->next = w->next;
    else
        list->first = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
    else
        list->last = w->prev;
    w->next = w->prev = NULL;
}

/* ---- threads */

static void run_works(struct pd_workq *q)
{
    pthread_mutex_lock(&q->lock);
    for (;;) {
        struct pd_work *w;
        while (q->waiting.first == NULL && !q->closing)
            pthread_cond_wait(&q->has_work, &q->lock);
        w = q->waiting.first;
        if (w == NULL)
            break;
        take_out(&q->waiting, w);
        q->waiting_count--;
        w->state = RUNNING;
        pthread_mutex_unlock(&q->lock);
        w->run(w, w->arg);
        pthread_mutex_lock(&q->lock);
        w->state = FINISHED;
        append(&q->finished, w);
        pd_loop_uvl_post(&q->l->base, &q->hand_over);
    }
    q->alive--;
    /* Behind the lock: once it is released the loop may end the queue. */
    pd_loop_uvl_post(&q->l->base, &q->hand_over);
    pthread_mutex_unlock(&q->lock);
}

static void *thread_main(void *arg)
{
    struct worker *w = arg;
    struct pd_workq *q = w->q;

    pthread_setname_np(pthread_self(), q->name);
    if (q->on_thread != NULL)
        q->on_thread(w->index, q->arg);
    run_works(q);
    return NULL;
}

/* Threads of works get no signals; those are the loop's. */
static int start_thread(struct worker *w)
{
    sigset_t all, old;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&w->thread, NULL, thread_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return err;
}

/* ---- on the loop */

static void free_queue(struct pd_workq *q)
{
    pthread_cond_destroy(&q->has_work);
    pthread_mutex_destroy(&q->lock);
    pd_free(q);
}

static void finish_close(struct pd_workq *q)
{
    void (*on_closed)(void *arg) = q->on_closed;
    void *arg = q->closed_arg;
    struct uvl *l = q->l;

    for (uint32_t i = 0; i < q->threads; i++)
        pthread_join(q->workers[i].thread, NULL);
    /* A thread may have posted after this run of the task began. */
    pd_loop_uvl_task_cancel(&l->base, &q->hand_over);
    free_queue(q);
    l->closing--;
    if (on_closed != NULL)
        on_closed(arg);
}

static void on_hand_over(struct pd_task *task, void *arg)
{
    struct pd_workq *q = arg;
    struct pd_work *w;
    bool ended;

    (void)task;
    pthread_mutex_lock(&q->lock);
    while ((w = q->finished.first) != NULL) {
        pd_status st = w->state == CANCELED ? PD_ECANCELED : PD_OK;
        take_out(&q->finished, w);
        w->state = IDLE;
        w->queue = NULL;
        pthread_mutex_unlock(&q->lock);
        if (st == PD_OK)
            q->l->st.works_run++;
        if (w->done != NULL)
            w->done(w, st, w->arg);
        pthread_mutex_lock(&q->lock);
    }
    ended = q->closing && q->alive == 0;
    pthread_mutex_unlock(&q->lock);
    if (ended)
        finish_close(q);
}

void pd_loop_uvl_workq_close(struct pd_loop *loop, struct pd_workq *q, void (*on_closed)(void *arg),
                             void *arg)
{
    struct uvl *l = uvl_of(loop);
    struct pd_work *w;

    pthread_mutex_lock(&q->lock);
    if (q->closing) {
        pthread_mutex_unlock(&q->lock);
        return;
    }
    q->on_closed = on_closed;
    q->closed_arg = arg;
    q->closing = true;
    while ((w = q->waiting.first) != NULL) {
        take_out(&q->waiting, w);
        w->state = CANCELED;
        append(&q->finished, w);
    }
    q->waiting_count = 0;
    pthread_cond_broadcast(&q->has_work);
    pthread_mutex_unlock(&q->lock);
    pd_loop_uvl_handle_remove(&q->handle);
    l->st.workqs--;
    l->closing++;
    pd_loop_uvl_post(loop, &q->hand_over);
}

pd_status pd_loop_uvl_work_submit(struct pd_loop *loop, struct pd_workq *q, struct pd_work *w)
{
    pd_status st = PD_OK;

    (void)loop;
    pthread_mutex_lock(&q->lock);
    if (w->run == NULL || w->state != IDLE) {
        st = PD_EINVAL;
    } else if (q->closing) {
        st = PD_ESTALE;
    } else if (q->waiting_count >= q->limit) {
        st = PD_ELIMIT;
    } else {
        w->queue = q;
        w->state = WAITING;
        append(&q->waiting, w);
        q->waiting_count++;
        pthread_cond_signal(&q->has_work);
    }
    pthread_mutex_unlock(&q->lock);
    return st;
}

bool pd_loop_uvl_work_cancel(struct pd_loop *loop, struct pd_work *w)
{
    struct pd_workq *q = w->queue;
    bool early = false;

    if (q == NULL)
        return false;
    pthread_mutex_lock(&q->lock);
    if (w->state == WAITING) {
        take_out(&q->waiting, w);
        q->waiting_count--;
        w->state = CANCELED;
        append(&q->finished, w);
        early = true;
    }
    pthread_mutex_unlock(&q->lock);
    if (early)
        pd_loop_uvl_post(loop, &q->hand_over);
    return early;
}

static void init_queue(struct uvl *l, struct pd_workq *q, const struct pd_workq_opts *opts)
{
    q->l = l;
    q->limit = opts->limit != 0 ? opts->limit : DEFAULT_LIMIT;
    q->on_thread = opts->on_thread;
    q->arg = opts->arg;
    strncpy(q->name, opts->name != NULL ? opts->name : "work", sizeof q->name - 1);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->has_work, NULL);
    pd_task_init(&q->hand_over, opts->name != NULL ? opts->name : "work", on_hand_over, q);
}

pd_status pd_loop_uvl_workq_create(struct pd_loop *loop, const struct pd_workq_opts *opts,
                                   struct pd_workq **out)
{
    struct uvl *l = uvl_of(loop);
    struct pd_workq *q;

    if (opts == NULL || opts->threads == 0 || opts->threads > MAX_THREADS)
        return PD_EINVAL;
    q = pd_calloc(1, sizeof *q + opts->threads * sizeof q->workers[0]);
    if (q == NULL)
        return PD_ENOMEM;
    init_queue(l, q, opts);
    pd_loop_uvl_handle_add(l, &q->handle, "workq", opts->name);
    l->st.workqs++;
    for (uint32_t i = 0; i < opts->threads; i++) {
        q->workers[i].q = q;
        q->workers[i].index = i;
        pthread_mutex_lock(&q->lock);
        q->alive++;
        pthread_mutex_unlock(&q->lock);
        if (start_thread(&q->workers[i]) != 0) {
            pthread_mutex_lock(&q->lock);
            q->alive--;
            pthread_mutex_unlock(&q->lock);
            pd_loop_uvl_workq_close(loop, q, NULL, NULL);
            return PD_ELIMIT;
        }
        q->threads++;
    }
    *out = q;
    return PD_OK;
}
