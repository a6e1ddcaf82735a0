/* SPDX-License-Identifier: Apache-2.0 */
/* Legs that find no node while one was lost a moment ago: it may be back soon, when
 * only a connection broke or a process was started again.  They wait for a short
 * time, and are tried whenever a node comes up. */
#include "request.h"

/* Tries them again, all or only those whose time is over. */
static void try_again(struct router *r, bool all)
{
    pd_time now = pd_loop_now(r->loop), first = PD_TIME_NEVER;
    struct request *next;
    for (struct request *q = r->requests; q != NULL && r->n_waiting > 0; q = next) {
        next = q->next;
        for (uint32_t i = 0, n = q->n_legs; i < n; i++) {
            struct leg *leg = &q->legs[i];
            if (!leg->is_waiting)
                continue;
            if (!all && leg->wait_until > now) {
                first = leg->wait_until < first ? leg->wait_until : first;
                continue;
            }
            leg_wait_end(leg);
            if (all)
                leg->n_avoid = 0; /* what failed before may be what came back */
            if (!leg_send(leg))
                break; /* the request is gone */
        }
    }
    if (first != PD_TIME_NEVER && !pd_timer_is_active(&r->wait_timer))
        pd_timer_start(&r->wait_timer, first - now);
}

static void on_node(struct pd_task *task, void *arg)
{
    (void)task;
    try_again(arg, true);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    (void)timer;
    try_again(arg, false);
}

void router_wait_init(struct router *r)
{
    pd_timer_init(&r->wait_timer, r->loop, "router wait", on_timer, r);
    pd_task_init(&r->wait_task, "router wait", on_node, r);
}

void router_wait_fini(struct router *r)
{
    pd_timer_stop(&r->wait_timer);
    pd_task_cancel(r->loop, &r->wait_task);
}

void router_wait_node(struct router *r)
{
    if (r->n_waiting > 0)
        pd_loop_defer(r->loop, &r->wait_task);
}

void router_wait_lost(struct router *r)
{
    r->was_lost = true;
    r->lost_at = pd_loop_now(r->loop);
}

bool leg_wait(struct leg *leg)
{
    struct router *r = leg->request->router;
    pd_time now = pd_loop_now(r->loop);
    bool is_fresh = r->was_lost && now - r->lost_at < r->conf->wait;
    if ((leg->attempts == 0 && !is_fresh && leg->wait_until == 0) || r->is_closing)
        return false;
    if (leg->wait_until == 0)
        leg->wait_until = now + r->conf->wait;
    if (now >= leg->wait_until)
        return false;
    leg->is_waiting = true;
    r->n_waiting++;
    if (!pd_timer_is_active(&r->wait_timer))
        pd_timer_start(&r->wait_timer, leg->wait_until - now);
    r->req->note(leg->request->record, "waits for a decode node");
    return true;
}

void leg_wait_end(struct leg *leg)
{
    if (!leg->is_waiting)
        return;
    leg->is_waiting = false;
    leg->request->router->n_waiting--;
}
