/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: reading, the life of requests on it, its limits in time, and
 * its end.
 *
 *   IDLE --byte--> READING --message whole (or streamed)--> SERVING
 *     ^                                                        |
 *     +------------- answer has left, keep-alive --------------+--> LINGER --> CLOSED
 *
 * Invariant: after CLOSED nothing but on_closed touches the connection.  The
 * timer is lazy: it is moved only to come earlier, and looks at the limits again
 * when it fires; a small request on a kept connection costs no timer call. */
#include "net/server_int.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

static uint64_t *state_gauge(struct pd_http_server *s, unsigned state)
{
    switch (state) {
    case PD_HTTP_CONN_IDLE:
        return &s->stats.conns_idle;
    case PD_HTTP_CONN_READING:
        return &s->stats.conns_reading;
    case PD_HTTP_CONN_SERVING:
        return &s->stats.conns_serving;
    default:
        return &s->stats.conns_closing;
    }
}

static void set_state(struct pd_http_conn *c, unsigned state)
{
    --*state_gauge(c->server, c->state);
    ++*state_gauge(c->server, state);
    c->state = (uint8_t)state;
    c->since = pd_loop_now(c->server->loop);
}

/* ---- time ---- */

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
    pd_time due = PD_TIME_NEVER, leaving;

    *why = DUE_NONE;
    if (c->state == PD_HTTP_CONN_LINGER) {
        sooner(&due, why, c->since, o->linger_ns, DUE_LINGER);
        return due;
    }
    if (req == NULL) {
        if (c->state == PD_HTTP_CONN_IDLE)
            sooner(&due, why, c->since, o->idle_ns, DUE_IDLE);
        /* A request may be on its way; it is still served. */
        if (c->state == PD_HTTP_CONN_IDLE && pd_http_conn_is_leaving(c, &leaving))
            sooner(&due, why, leaving, DRAIN_IDLE_NS, DUE_DRAIN);
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

static void on_timer(struct pd_timer *timer, void *arg)
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
    set_state(c, PD_HTTP_CONN_CLOSED);
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
    set_state(c, PD_HTTP_CONN_LINGER);
    (void)pd_stream_shutdown_write(c->stream);
    pd_http_conn_update_read(c);
    pd_http_conn_arm(c);
}

void pd_http_conn_answered(struct pd_http_conn *c)
{
    struct pd_http_req *req = c->req;
    bool keep = req->keep && (!c->eof || c->stash.n > 0) && !c->server->is_closing;
    bool is_clean = req->body_done && c->stash.n == 0;
    pd_time since;

    drop_req(c);
    if (!keep) {
        /* Closing with unread input would make the kernel throw the answer away. */
        if (is_clean || c->eof)
            pd_http_conn_close(c);
        else
            linger(c);
        return;
    }
    set_state(c, PD_HTTP_CONN_IDLE);
    if (c->stash.n > 0) {
        pd_http_conn_wake(c);
    } else {
        pd_buf_fini(&c->stash);
        if (pd_http_conn_is_leaving(c, &since) && !c->in_process) {
            pd_http_conn_close(c);
            return;
        }
    }
    pd_http_conn_update_read(c);
    pd_http_conn_arm(c);
}

/* ---- messages ---- */

static void dispatch(struct pd_http_conn *c, bool is_stream)
{
    struct pd_http_req *req = c->req;
    uint32_t allowed;
    const struct pd_http_server *s = c->server;
    /* Looked up again when the owner may have left while the body came. */
    const struct pd_http_route *route =
        req->routes_serial == s->routes_serial
            ? &s->routes[req->route]
            : pd_http_server_find(s, req->parser.head.path, req->parser.head.method, &allowed);

    if (route == NULL) {
        c->server->stats.not_found++;
        pd_http_req_fail(req, 404, "unknown_path", "There is nothing here.");
        return;
    }
    if (!is_stream)
        set_state(c, PD_HTTP_CONN_SERVING);
    req->is_dispatched = true;
    route->on_request(req, route->arg);
}

/* Whether the client may; fills the request's label. */
static bool has_key(struct pd_http_req *req)
{
    struct pd_keys *keys = req->conn->door == NULL ? NULL : req->conn->door->keys;
    const char *label = keys == NULL ? "" : pd_keys_find(keys, pd_keys_shown(&req->parser.head));

    if (label == NULL)
        return false;
    (void)pd_str_copy(pd_str_from(label), req->label, sizeof(req->label));
    return true;
}

static void deny(struct pd_http_req *req)
{
    if (req->deny == 401) {
        req->conn->server->stats.unauthorized++;
        pd_http_error(req, 401, "invalid_request_error", "invalid_api_key",
                      "Incorrect API key provided, or none.", NULL);
        return;
    }
    if (req->deny == 405)
        req->conn->server->stats.method_not_allowed++;
    else
        req->conn->server->stats.not_found++;
    pd_http_req_fail(req, req->deny, req->deny == 405 ? "method_not_allowed" : "unknown_path",
                     req->deny == 405 ? "The method is not allowed here."
                                      : "There is nothing here.");
}

static bool is_full(const struct pd_http_server *s)
{
    return s->opts.max_held != 0 && s->stats.body_bytes + s->stats.queued_bytes >= s->opts.max_held;
}

static void on_head(struct pd_http_conn *c)
{
    struct pd_http_server *s = c->server;
    struct pd_http_req *req = c->req;
    const struct pd_http_head *h = &req->parser.head;
    const struct pd_http_route *route = pd_http_server_find(s, h->path, h->method, &req->allow);
    uint64_t limit = PD_HTTP_DISCARD;

    req->has_head = true;
    req->start = pd_loop_now(s->loop);
    c->since = req->start;
    c->body_bytes = 0;
    s->stats.requests++;
    pd_http_req_make_id(req);
    req->no_body = h->method == PD_HTTP_HEAD;
    if (!(route != NULL && (route->flags & PD_HTTP_ROUTE_ALWAYS) != 0) && !has_key(req)) {
        req->deny = 401;
        req->discard = true;
    } else if (route == NULL) {
        req->deny = req->allow != 0 ? 405 : 404;
        req->discard = true;
    } else {
        req->route_flags = route->flags;
        req->route = (uint32_t)(route - s->routes);
        req->routes_serial = s->routes_serial;
        if (route->deadline_ns != 0)
            pd_http_req_set_deadline(req, route->deadline_ns);
        if (h->method == PD_HTTP_GET || h->method == PD_HTTP_HEAD ||
            h->method == PD_HTTP_DELETE) {
            req->discard = true;
        } else {
            /* Without a body the request is whole already. */
            req->is_stream = (route->flags & PD_HTTP_ROUTE_STREAM_BODY) != 0 &&
                             (h->is_chunked || (h->has_length && h->length > 0));
            limit = route->body_limit != 0 ? route->body_limit : s->opts.body_limit;
        }
    }
    req->parser.body_limit = limit;
    if (req->deny == 0 && (route->flags & PD_HTTP_ROUTE_ALWAYS) == 0 && is_full(s)) {
        pd_http_req_overload(req);
        return;
    }
    if (h->has_length && h->length > limit) {
        pd_http_req_refuse(req, PD_HTTP_REJECT_BODY_SIZE);
        return;
    }
    if (h->expect_continue) {
        /* Who waits for our word gets the refusal instead of it. */
        if (req->deny != 0) {
            deny(req);
            return;
        }
        pd_http_req_continue(req);
    }
    if (req->is_stream)
        dispatch(c, true);
}

/* A long body whose first bytes stand in the memory that they were read to, with
 * room behind them, stays there. */
static bool keep_place(struct pd_http_req *req, const char *p, size_t need)
{
    struct pd_http_server *s = req->conn->server;
    size_t cap, at = (size_t)((uintptr_t)p - (uintptr_t)s->scratch);
    char *other;

    if (need <= PD_HTTP_KEEP_BODY || at >= PD_HTTP_SCRATCH || need > PD_HTTP_PLACE - at)
        return false;
    other = pd_http_body_get(s, PD_HTTP_PLACE, &cap);
    if (other == NULL)
        return false;
    pd_free(req->body_memory);
    req->body_memory = s->scratch;
    req->body = s->scratch + at;
    req->body_cap = PD_HTTP_PLACE - at;
    s->scratch = other;
    return true;
}

/* Room for the piece behind what is there. */
static pd_status make_body_room(struct pd_http_req *req, struct pd_str piece)
{
    const struct pd_http_head *h = &req->parser.head;
    size_t need = req->body_n + piece.n, cap;
    char *more;

    if (h->has_length && req->body_n == 0)
        need = (size_t)h->length;
    if (need <= req->body_cap)
        return PD_OK;
    if (h->has_length && req->body_n == 0 && keep_place(req, piece.p, need))
        return PD_OK;
    cap = req->body_cap < 4096 ? 4096 : req->body_cap;
    while (cap < need)
        cap *= 2;
    if (h->has_length)
        cap = (need + 511) & ~(size_t)511;
    if (cap > PD_HTTP_KEEP_BODY && req->body_n == 0) {
        more = pd_http_body_get(req->conn->server, cap, &cap);
        if (more != NULL)
            pd_free(req->body_memory);
    } else {
        more = pd_realloc(req->body_memory, cap);
    }
    if (more == NULL)
        return PD_ENOMEM;
    req->body = req->body_memory = more;
    req->body_cap = cap;
    return PD_OK;
}

/* n bytes have been added to the body.  False: too much, the answer says so. */
static bool hold(struct pd_http_req *req, size_t n)
{
    struct pd_http_server *s = req->conn->server;

    req->body_n += n;
    req->held += n;
    s->stats.body_bytes += n;
    if (!is_full(s))
        return true;
    pd_http_req_overload(req);
    return false;
}

/* A body must bring PD_HTTP_BODY_STEP bytes per body_ns; single bytes do not
 * keep a connection. */
static void note_body(struct pd_http_conn *c, size_t n)
{
    c->body_bytes += (uint32_t)n;
    if (c->body_bytes < PD_HTTP_BODY_STEP)
        return;
    c->body_bytes = 0;
    c->since = pd_loop_now(c->server->loop);
}

static void on_piece(struct pd_http_conn *c, struct pd_str piece)
{
    struct pd_http_req *req = c->req;

    note_body(c, piece.n);
    if (req->discard || req->is_ended)
        return;
    if (req->is_stream) {
        if (req->ev != NULL && req->ev->on_body != NULL)
            req->ev->on_body(req, piece, req->arg);
        return;
    }
    if (make_body_room(req, piece) != PD_OK) {
        c->server->stats.memory_failures++;
        pd_http_req_refuse(req, PD_HTTP_REJECT_MEMORY);
        return;
    }
    if (piece.p != req->body + req->body_n)
        memcpy(req->body + req->body_n, piece.p, piece.n);
    (void)hold(req, piece.n);
}

static void on_message_end(struct pd_http_conn *c)
{
    struct pd_http_req *req = c->req;

    req->body_done = true;
    if (req->deny != 0) {
        deny(req);
        return;
    }
    if (req->is_stream)
        set_state(c, PD_HTTP_CONN_SERVING);
    else
        dispatch(c, false);
    /* Handlers of streamed bodies hear of an end also where there was none. */
    if (c->req == req && !req->is_ended && req->is_dispatched && req->ev != NULL &&
        (req->route_flags & PD_HTTP_ROUTE_STREAM_BODY) != 0 && req->ev->on_body_end != NULL)
        req->ev->on_body_end(req, req->arg);
}

static bool begin_req(struct pd_http_conn *c)
{
    c->req = pd_http_req_get(c->server);
    if (c->req == NULL) {
        c->server->stats.memory_failures++;
        pd_http_conn_fail(c, PD_ENOMEM);
        return false;
    }
    c->req->conn = c;
    set_state(c, PD_HTTP_CONN_READING);
    return true;
}

static bool can_process(const struct pd_http_conn *c)
{
    return !c->is_dead && c->state <= PD_HTTP_CONN_SERVING &&
           (c->req == NULL || !(c->req->body_done || (c->req->is_ended && !c->req->keep)));
}

/* Parses what it may of n bytes; returns how many were used. */
static size_t process(struct pd_http_conn *c, const char *p, size_t n)
{
    size_t at = 0, begun = 0;

    c->in_process = true;
    while (can_process(c)) {
        struct pd_http1 *parser;
        struct pd_str body;
        size_t used;

        /* Others' turn after a row of requests that were answered at once. */
        if (c->req == NULL && (at == n || begun++ == PD_HTTP_PIPELINE || !begin_req(c)))
            break;
        parser = &c->req->parser;
        enum pd_http1_event ev = pd_http1_next(parser, p + at, n - at, &used, &body);
        at += used;
        if (ev == PD_HTTP1_MORE)
            break;
        if (ev == PD_HTTP1_HEAD_DONE)
            on_head(c);
        else if (ev == PD_HTTP1_BODY)
            on_piece(c, body);
        else if (ev == PD_HTTP1_DONE)
            on_message_end(c);
        else {
            pd_http_req_gone(c->req, PD_EPROTO);
            pd_http_req_refuse(c->req, parser->reject);
        }
    }
    c->in_process = false;
    return at;
}

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
    pd_time since;

    if (c->is_dead || c->state > PD_HTTP_CONN_SERVING)
        return;
    if (pd_http_conn_is_leaving(c, &since) && c->req == NULL && c->stash.n == 0) {
        pd_http_conn_close(c);
        return;
    }
    pd_http_conn_update_read(c);
    pd_http_conn_arm(c);
    if (c->req == NULL && c->stash.n > 0)
        pd_http_conn_wake(c);
    else if (c->eof)
        settle_eof(c);
}

static void input(struct pd_http_conn *c, const char *p, size_t n)
{
    size_t used = c->stash.n == 0 ? process(c, p, n) : 0;

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

void pd_http_conn_update_read(struct pd_http_conn *c)
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
        note_body(c, skip);
        if (!hold(c->req, skip))
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
    --*state_gauge(s, c->state);
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
    if (c->state <= PD_HTTP_CONN_SERVING && c->stash.n > 0 && can_process(c)) {
        pd_buf_consume(&c->stash, process(c, c->stash.p, c->stash.n));
        after_input(c);
    }
}

/* Answers before anything was read, then lingers. */
static void send_refusal(struct pd_http_conn *c)
{
    if (begin_req(c))
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
    pd_timer_init(&c->timer, s->loop, s->opts.name, on_timer, c);
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
