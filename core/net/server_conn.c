/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: reading, the row of requests on it, and its end.
 *
 *   IDLE --byte--> READING --message whole (or streamed)--> SERVING
 *     ^                                                        |
 *     +------------- answer has left, keep-alive --------------+--> LINGER --> CLOSED
 *
 * Invariant: after CLOSED nothing but on_closed touches the connection. */
#include "net/server_int.h"

#include "base/mem.h"

#include <string.h>

/* ---- end ---- */

static void drop_req(struct pd_http_conn *c)
{
    struct pd_http_req *req = c->req;

    if (req == NULL)
        return;
    c->req = NULL;
    if (!req->is_ended || req->out.n > 0)
        c->server->stats.responses[0]++;
    pd_http_req_put(c->server, req);
}

void pd_http_conn_close(struct pd_http_conn *c)
{
    if (c->state == PD_HTTP_CONN_CLOSED)
        return;
    drop_req(c);
    pd_timer_stop(&c->timer);
    pd_task_cancel(c->server->loop, &c->task);
    pd_http_conn_set_state(c, PD_HTTP_CONN_CLOSED);
    pd_stream_close(c->stream);
}

void pd_http_conn_wake(struct pd_http_conn *c)
{
    if (c->state != PD_HTTP_CONN_CLOSED)
        pd_loop_defer(c->server->loop, &c->task);
}

void pd_http_conn_fail(struct pd_http_conn *c, pd_status why)
{
    if (c->is_dead || c->state == PD_HTTP_CONN_CLOSED)
        return;
    c->is_dead = true;
    c->why = why;
    pd_http_conn_wake(c);
}

static void bury(struct pd_http_conn *c)
{
    if (c->req != NULL) {
        if (c->why == PD_EPEER && (!c->req->is_ended || c->req->out.n > 0))
            c->server->stats.client_gone++;
        pd_http_req_gone(c->req, c->why);
    }
    pd_http_conn_close(c);
}

static void linger(struct pd_http_conn *c)
{
    pd_buf_fini(&c->stash);
    c->linger_bytes = 0;
    pd_http_conn_set_state(c, PD_HTTP_CONN_LINGER);
    (void)pd_stream_shutdown_write(c->stream);
    pd_http_conn_update_read(c);
    pd_http_conn_arm(c);
}

void pd_http_conn_answered(struct pd_http_conn *c)
{
    struct pd_http_req *req = c->req;
    bool keep = req->keep && (!c->eof || c->stash.n > 0) && !c->server->is_closing;
    bool is_clean = req->body_done && c->stash.n == 0;

    drop_req(c);
    if (!keep) {
        /* Closing with unread input would make the kernel throw the answer away. */
        if (is_clean || c->eof)
            pd_http_conn_close(c);
        else
            linger(c);
        return;
    }
    pd_http_conn_set_state(c, PD_HTTP_CONN_IDLE);
    if (c->stash.n > 0) {
        pd_http_conn_wake(c);
    } else {
        if (c->stash.base != NULL)
            pd_buf_fini(&c->stash);
        if (pd_http_conn_is_leaving(c)) {
            if (!c->in_process) {
                pd_http_conn_close(c);
                return;
            }
            pd_http_conn_arm(c);
        }
    }
    pd_http_conn_update_read(c);
    pd_http_conn_arm_at(c, c->since + c->server->opts.idle_ns);
}

/* ---- input ---- */

/* The client has ended its sending: what it did not finish will not come. */
static void settle_eof(struct pd_http_conn *c)
{
    const struct pd_http_req *req = c->req;

    if (req == NULL) {
        if (c->stash.n == 0)
            pd_http_conn_close(c);
        return;
    }
    /* A client that reads on after its last byte gets what is on its way. */
    if (req->is_ended || (req->body_done ? c->server->opts.half_close_ok != 0 : c->stash.n > 0))
        return;
    pd_http_conn_fail(c, PD_EPEER);
}

static void after_input(struct pd_http_conn *c)
{
    if (c->is_dead || c->state > PD_HTTP_CONN_SERVING)
        return;
    if (pd_http_conn_is_leaving(c) && c->req == NULL && c->stash.n == 0) {
        pd_http_conn_close(c);
        return;
    }
    pd_http_conn_update_read(c);
    /* Limits of a request that is there whole are armed where they begin, as those of a
     * connection without one. */
    if (c->req != NULL && !c->req->body_done)
        pd_http_conn_arm(c);
    if (c->req == NULL && c->stash.n > 0)
        pd_http_conn_wake(c);
    else if (c->eof)
        settle_eof(c);
}

static void input(struct pd_http_conn *c, const char *p, size_t n)
{
    size_t used = c->stash.n == 0 ? pd_http_conn_process(c, p, n) : 0;

    if (used < n && !c->is_dead && c->state <= PD_HTTP_CONN_SERVING &&
        !(c->req != NULL && c->req->is_ended && !c->req->keep)) {
        if (c->stash.n == 0)
            c->server->stats.pipelined++;
        if (pd_buf_append(&c->stash, p + used, n - used) != PD_OK)
            pd_http_conn_fail(c, PD_ENOMEM);
    }
    after_input(c);
}

/* ---- stream events ---- */

void pd_http_conn_switch_read(struct pd_http_conn *c)
{
    bool paused = false;

    if (c->state == PD_HTTP_CONN_CLOSED)
        return;
    if (c->state != PD_HTTP_CONN_LINGER)
        paused = c->eof || c->stash.n >= PD_HTTP_STASH ||
                 (c->req != NULL && c->req->is_paused && !c->req->body_done);
    if (paused == c->is_paused)
        return;
    c->is_paused = paused;
    if (paused)
        pd_stream_pause_read(c->stream);
    else
        pd_stream_resume_read(c->stream);
}

static void on_end_of_input(struct pd_http_conn *c)
{
    c->eof = true;
    pd_http_conn_update_read(c);
    settle_eof(c);
}

static void linger_read(struct pd_http_conn *c)
{
    size_t got;
    pd_status status = pd_stream_read(c->stream, c->server->scratch, PD_HTTP_SCRATCH, &got);

    if (status == PD_EAGAIN)
        return;
    if (status == PD_OK) {
        c->linger_bytes += (uint32_t)got;
        if (c->linger_bytes < PD_HTTP_LINGER_BYTES)
            return;
    }
    pd_http_conn_close(c);
}

static void on_readable(struct pd_stream *stream, void *arg)
{
    struct pd_http_conn *c = arg;
    struct pd_http_server *s = c->server;
    struct pd_iov iov[2] = { { NULL, 0 }, { s->scratch, PD_HTTP_SCRATCH } };
    size_t got, skip = 0;
    pd_status status;

    if (c->is_dead || c->state == PD_HTTP_CONN_CLOSED)
        return;
    if (c->state == PD_HTTP_CONN_LINGER) {
        linger_read(c);
        return;
    }
    /* A body of known length is read to where it stays. */
    if (c->req != NULL && c->req->body_n > 0 && !c->req->is_stream && !c->req->discard &&
        !c->req->is_ended) {
        uint64_t direct = pd_http1_direct(&c->req->parser);
        if (direct > c->req->body_cap - c->req->body_n)
            direct = c->req->body_cap - c->req->body_n;
        iov[0].base = c->req->body + c->req->body_n;
        iov[0].len = (size_t)direct;
    } else if (c->req == NULL && c->stash.n == 0) {
        iov[1].len = PD_HTTP_FIRST;
    } else if (c->stash.n > 0 && c->stash.n < PD_HTTP_STASH) {
        iov[1].len = PD_HTTP_STASH - c->stash.n;
    }
    s->stats.reads++;
    status = pd_stream_readv(stream, iov[0].len > 0 ? iov : iov + 1, iov[0].len > 0 ? 2 : 1,
                             &got);
    if (status == PD_EAGAIN)
        return;
    if (status == PD_EEOF) {
        on_end_of_input(c);
        return;
    }
    if (status != PD_OK) {
        pd_http_conn_fail(c, PD_EPEER);
        return;
    }
    s->stats.bytes_in += got;
    if (iov[0].len > 0) {
        skip = got < iov[0].len ? got : iov[0].len;
        pd_http1_direct_take(&c->req->parser, skip);
        pd_http_conn_note_body(c, skip);
        if (!pd_http_req_hold(c->req, skip))
            return;
    }
    input(c, s->scratch, got - skip);
}

static void on_writable(struct pd_stream *stream, void *arg)
{
    struct pd_http_conn *c = arg;
    struct pd_http_req *req = c->req;

    (void)stream;
    if (c->is_dead || c->state == PD_HTTP_CONN_CLOSED || req == NULL)
        return;
    pd_http_req_flush(req);
    if (c->req == req && req->want_drain && !c->is_dead) {
        req->want_drain = false;
        if (!req->is_ended && req->ev != NULL && req->ev->on_drain != NULL)
            req->ev->on_drain(req, req->arg);
    }
}

static void on_hangup(struct pd_stream *stream, void *arg)
{
    struct pd_http_conn *c = arg;

    (void)stream;
    if (c->is_dead || c->eof || c->state == PD_HTTP_CONN_CLOSED)
        return;
    /* Input that the handler has paused may still be whole; reading will tell. */
    if (c->req != NULL && c->req->body_done && c->stash.n > 0)
        on_end_of_input(c);
}

static void on_closed(struct pd_stream *stream, void *arg)
{
    struct pd_http_conn *c = arg;
    struct pd_http_server *s = c->server;

    (void)stream;
    --*pd_http_conn_gauge(s, c->state);
    pd_buf_fini(&c->stash);
    pd_list_remove(&c->link);
    pd_http_door_left(c->door);
    s->n_conns--;
    if (s->n_conn_pool < PD_HTTP_POOL) {
        pd_list_prepend(&s->conn_pool, &c->link);
        s->n_conn_pool++;
    } else {
        pd_free(c);
    }
    pd_http_server_conn_gone(s);
}

void pd_http_conn_stream_events(struct pd_http_server *s)
{
    s->events.name = s->opts.name;
    s->events.on_readable = on_readable;
    s->events.on_writable = on_writable;
    s->events.on_hangup = on_hangup;
    s->events.on_closed = on_closed;
}

static void on_task(struct pd_task *task, void *arg)
{
    struct pd_http_conn *c = arg;
    struct pd_http_req *req = c->req;

    (void)task;
    if (c->is_dead) {
        bury(c);
        return;
    }
    if (req != NULL && req->want_flush) {
        pd_http_req_flush(req);
        if (c->state == PD_HTTP_CONN_CLOSED)
            return;
        if (c->is_dead) {
            bury(c);
            return;
        }
    }
    if (c->req == req && req != NULL && req->want_drain) {
        req->want_drain = false;
        if (!req->is_ended && req->ev != NULL && req->ev->on_drain != NULL)
            req->ev->on_drain(req, req->arg);
    }
    if (c->state <= PD_HTTP_CONN_SERVING && c->stash.n > 0 && pd_http_conn_can_process(c)) {
        pd_buf_consume(&c->stash, pd_http_conn_process(c, c->stash.p, c->stash.n));
        after_input(c);
    }
}

/* Answers before anything was read, then lingers. */
static void send_refusal(struct pd_http_conn *c)
{
    if (pd_http_conn_begin_req(c))
        pd_http_req_fail(c->req, 503, "overloaded", "Too many connections.");
    pd_http_conn_arm(c);
}

pd_status pd_http_conn_open(struct pd_http_server *s, struct pd_stream *stream,
                            struct pd_http_door *door, bool refuse)
{
    struct pd_list *link = pd_list_pop(&s->conn_pool);
    struct pd_http_conn *c;

    if (link != NULL) {
        s->n_conn_pool--;
        c = PD_LIST_ENTRY(link, struct pd_http_conn, link);
    } else {
        c = pd_alloc(sizeof(*c));
        if (c == NULL)
            return PD_ENOMEM;
    }
    memset(c, 0, sizeof(*c));
    c->server = s;
    c->stream = stream;
    c->door = door;
    if (door != NULL)
        door->n_conns++;
    /* A read that began below the mark may go one scratch beyond it. */
    pd_buf_init(&c->stash, PD_HTTP_STASH + PD_HTTP_SCRATCH);
    pd_timer_init(&c->timer, s->loop, s->opts.name, pd_http_conn_on_timer, c);
    pd_task_init(&c->task, s->opts.name, on_task, c);
    pd_list_init(&c->link);
    pd_list_append(&s->conns, &c->link);
    s->n_conns++;
    s->stats.conns_idle++;
    c->since = pd_loop_now(s->loop);
    pd_stream_set_events(stream, &s->events, c);
    if (refuse) {
        send_refusal(c);
        return PD_OK;
    }
    s->stats.accepted++;
    pd_http_conn_arm(c);
    return PD_OK;
}
