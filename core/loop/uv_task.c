/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks of the uv backend: posted by any thread, deferred on the loop, run behind the
 * events of a turn.
 *
 * A non-zero `state` means "in one of the four lists".  post changes it under post_lock;
 * a task leaves its list before its state becomes 0.  The first task in `posted` wakes
 * the loop unless the loop itself posts it; `later` is empty but while tasks run. */
#include "loop/uv_impl.h"

enum {
    TASK_QUEUED = 1,
    MAX_ROUNDS = 64             /* of deferred tasks that defer others, in one turn */
};

static void list_init(struct pd_task *head)
{
    head->next = head->prev = head;
}

void pd_loop_uvl_tasks_init(struct uvl *l)
{
    list_init(&l->posted);
    list_init(&l->running);
    list_init(&l->deferred);
    list_init(&l->later);
    l->turn_number = 1;
}

static void list_append(struct pd_task *head, struct pd_task *t)
{
    t->next = head;
    t->prev = head->prev;
    head->prev->next = t;
    head->prev = t;
}

static void list_remove(struct pd_task *t)
{
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = t->prev = NULL;
}

static bool is_loop_thread(struct uvl *l)
{
    return __atomic_load_n(&l->thread, __ATOMIC_RELAXED) == (uintptr_t)pthread_self();
}

bool pd_loop_uvl_post(struct pd_loop *loop, struct pd_task *task)
{
    struct uvl *l = uvl_of(loop);
    bool was_empty = false, is_new;

    pthread_mutex_lock(&l->post_lock);
    /* A read-modify-write also when it is queued: what the caller wrote before
     * is then visible to the callback. */
    is_new = __atomic_fetch_or(&task->state, TASK_QUEUED, __ATOMIC_ACQ_REL) == 0;
    if (is_new) {
        was_empty = l->posted.next == &l->posted;
        list_append(&l->posted, task);
        __atomic_store_n(&l->any_posted, 1, __ATOMIC_RELEASE);
        l->st.posts++;
    }
    pthread_mutex_unlock(&l->post_lock);
    if (was_empty && !is_loop_thread(l))
        pd_loop_uvl_wake(l);
    return is_new;
}

void pd_loop_uvl_defer(struct pd_loop *loop, struct pd_task *task)
{
    struct uvl *l = uvl_of(loop);

    if (__atomic_fetch_or(&task->state, TASK_QUEUED, __ATOMIC_ACQ_REL) != 0)
        return;
    list_append(task->ran_in == l->turn_number ? &l->later : &l->deferred, task);
}

void pd_loop_uvl_task_cancel(struct pd_loop *loop, struct pd_task *task)
{
    struct uvl *l = uvl_of(loop);

    pthread_mutex_lock(&l->post_lock);
    if (__atomic_load_n(&task->state, __ATOMIC_ACQUIRE) != 0) {
        list_remove(task);
        __atomic_store_n(&task->state, 0, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&l->post_lock);
}

static void run_list(struct uvl *l, struct pd_task *head)
{
    do {
        struct pd_task *t = head->next;
        const char *name = t->name;
        pd_loop_uvl_enter(l);
        list_remove(t);
        t->ran_in = l->turn_number;
        (void)__atomic_exchange_n(&t->state, 0, __ATOMIC_ACQ_REL);
        l->st.tasks_run++;
        t->cb(t, t->arg);
        pd_loop_uvl_leave(l, name);
    } while (head->next != head);
}

/* `from` is not empty. */
static void move_all(struct pd_task *to, struct pd_task *from)
{
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

__attribute__((noinline)) void pd_loop_uvl_run_tasks(struct uvl *l)
{
    if (__atomic_load_n(&l->any_posted, __ATOMIC_ACQUIRE) != 0) {
        pthread_mutex_lock(&l->post_lock);
        if (l->posted.next != &l->posted)
            move_all(&l->running, &l->posted);
        __atomic_store_n(&l->any_posted, 0, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&l->post_lock);
        if (l->running.next != &l->running)
            run_list(l, &l->running);
    }
    for (int round = 0; round < MAX_ROUNDS && l->deferred.next != &l->deferred; round++) {
        move_all(&l->running, &l->deferred);
        run_list(l, &l->running);
    }
    if (l->later.next != &l->later)
        move_all(&l->deferred, &l->later);
    /* 0 is the number of tasks that have never run: deferred before the next tasks run,
     * they would stand in `later`, where no turn looks before it waits. */
    if (++l->turn_number == 0)
        l->turn_number = 1;
}

void pd_loop_uvl_count_tasks(struct uvl *l, char *names, size_t size, uint64_t *count)
{
    const struct pd_task *heads[4] = { &l->posted, &l->running, &l->deferred, &l->later };

    pthread_mutex_lock(&l->post_lock);
    for (size_t i = 0; i < PD_ARRAY_LEN(heads); i++) {
        for (const struct pd_task *t = heads[i]->next; t != heads[i]; t = t->next) {
            pd_loop_names_add(names, size, "task", t->name);
            (*count)++;
        }
    }
    pthread_mutex_unlock(&l->post_lock);
}
