/* SPDX-License-Identifier: Apache-2.0 */
/* The limits in time of a connection.
 *
 * The timer is lazy: it is moved only to come earlier, and looks at the limits again
 * when it fires; a small request on a kept connection costs no timer call. */
#include "net/server_int.h"

/* How long an idle connection is kept when the server drains. */
#define DRAIN_IDLE_NS (500 * PD_MS)

enum { DUE_NONE, DUE_IDLE, DUE_HEAD, DUE_BODY, DUE_WRITE, DUE_DEADLINE, DUE_DRAIN, DUE_LINGER };

static void sooner(pd_time *due, int *why, pd_time from, pd_time delay, int what)
{
    pd_time t = delay > PD_TIME_NEVER - from ? PD_TIME_NEVER : from + delay;
    if (t < *due) {
        *due = t;
        *why = what;
    }
}

static pd_time next_due(const struct pd_http_conn *c, int *why)
{
    const struct pd_http_server_opts *o = &c->server->opts;
    const struct pd_http_req *req = c->req;
    pd_time due = PD_TIME_NEVER;

    *why = DUE_NONE;
    if (c->state == PD_HTTP_CONN_LINGER) {
        sooner(&due, why, c->since, o->linger_ns, DUE_LINGER);
        return due;
    }
    if (req == NULL) {
        if (c->state == PD_HTTP_CONN_IDLE)
            sooner(&due, why, c->since, o->idle_ns, DUE_IDLE);
        /* A request may be on its way; it is still served. */
        if (c->state == PD_HTTP_CONN_IDLE && pd_http_conn_is_leaving(c))
            sooner(&due, why, pd_http_conn_left_at(c), DRAIN_IDLE_NS, DUE_DRAIN);
        return due;
    }
    if (!req->has_head && !req->is_ended)
        sooner(&due, why, c->since, o->head_ns, DUE_HEAD);
    else if (req->has_head && !req->body_done && !req->is_paused && !req->is_ended)
        sooner(&due, why, c->since, o->body_ns, DUE_BODY);
    if (req->out.n > 0)
        sooner(&due, why, req->progress, o->write_ns, DUE_WRITE);
    if (!req->is_ended && req->deadline != PD_TIME_NEVER)
        sooner(&due, why, req->deadline, 0, DUE_DEADLINE);
    return due;
}

void pd_http_conn_arm(struct pd_http_conn *c)
{
    int why;
    pd_time due;

    if (c->state == PD_HTTP_CONN_CLOSED)
        return;
    due = next_due(c, &why);
    if (due == PD_TIME_NEVER || (pd_timer_is_active(&c->timer) && c->armed <= due))
        return;
    c->armed = due;
    pd_timer_start_at(&c->timer, due);
}

static void on_deadline(struct pd_http_conn *c)
{
    struct pd_http_req *req = c->req;

    c->server->stats.deadline_timeouts++;
    req->deadline = PD_TIME_NEVER;
    if (req->is_dispatched && req->ev != NULL && req->ev->on_deadline != NULL) {
        req->ev->on_deadline(req, req->arg);
        return;
    }
    pd_http_req_gone(req, PD_ETIMEDOUT);
    pd_http_req_fail(req, 504, "deadline_exceeded", "The request took longer than allowed.");
}

void pd_http_conn_on_timer(struct pd_timer *timer, void *arg)
{
    struct pd_http_conn *c = arg;
    struct pd_http_server_stats *st = &c->server->stats;
    int why;
    pd_time due = next_due(c, &why);

    (void)timer;
    if (c->is_dead || c->state == PD_HTTP_CONN_CLOSED)
        return;
    if (due > pd_loop_now(c->server->loop)) {
        pd_http_conn_arm(c);
        return;
    }
    switch (why) {
    case DUE_IDLE:
        st->idle_timeouts++;
        pd_http_conn_close(c);
        return;
    case DUE_HEAD:
        st->head_timeouts++;
        pd_http_req_fail(c->req, 408, "request_timeout", "The request head took too long.");
        break;
    case DUE_BODY:
        st->body_timeouts++;
        pd_http_req_gone(c->req, PD_ETIMEDOUT);
        pd_http_req_fail(c->req, 408, "request_timeout", "The request body took too long.");
        break;
    case DUE_WRITE:
        st->write_timeouts++;
        pd_http_conn_fail(c, PD_ETIMEDOUT);
        return;
    case DUE_DEADLINE:
        on_deadline(c);
        break;
    default: /* DUE_DRAIN, DUE_LINGER */
        pd_http_conn_close(c);
        return;
    }
    pd_http_conn_arm(c);
}
