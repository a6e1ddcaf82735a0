/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to an origin: connecting, sending, being kept; what comes on it is read
 * in client_read.c.
 *
 *   CONNECTING --> BUSY <--> IDLE --> CLOSED
 *
 * Invariant: a connection goes back to IDLE only after a complete request and a
 * complete answer with no byte behind it.  After CLOSED only on_closed touches
 * it. */
#include "net/client_int.h"
#include "net/http1_int.h"

#include "base/mem.h"
#include "base/str.h"
#include "net/tls.h"

#include <string.h>

static inline uint64_t *state_gauge(struct pd_http_client *c, unsigned state)
{
    switch (state) {
    case PD_HTTP_LINK_CONNECTING:
        return &c->stats.conns_connecting;
    case PD_HTTP_LINK_BUSY:
        return &c->stats.conns_busy;
    case PD_HTTP_LINK_IDLE:
        return &c->stats.conns_idle;
    default:
        return &c->n_closing;
    }
}

/* From the state that the connection is known to have. */
static inline void change(struct pd_http_link *l, unsigned from, unsigned to)
{
    struct pd_http_client *c = l->origin->client;

    --*state_gauge(c, from);
    ++*state_gauge(c, to);
    l->state = (uint8_t)to;
    l->since = pd_loop_now(c->loop);
}

static void set_state(struct pd_http_link *l, unsigned state)
{
    change(l, l->state, state);
}

/* ---- time ---- */

static pd_time next_due(const struct pd_http_link *l)
{
    const struct pd_http_call *call = l->call;
    pd_time delay;

    if (l->state == PD_HTTP_LINK_CLOSED)
        return PD_TIME_NEVER;
    if (call == NULL)
        delay = l->origin->client->opts.keep_ns;
    else if (l->state == PD_HTTP_LINK_CONNECTING)
        delay = call->connect_ns;
    else if (call->is_paused)
        return PD_TIME_NEVER;
    else
        delay = call->got_bytes ? call->idle_ns : call->first_byte_ns;
    return delay > PD_TIME_NEVER - l->since ? PD_TIME_NEVER : l->since + delay;
}

void pd_http_link_arm(struct pd_http_link *l)
{
    pd_time due = next_due(l);

    if (due == PD_TIME_NEVER || (pd_timer_is_active(&l->timer) && l->armed <= due))
        return;
    l->armed = due;
    pd_timer_start_at(&l->timer, due);
}

void pd_http_link_touch(struct pd_http_link *l)
{
    l->since = pd_loop_now(l->origin->client->loop);
    pd_http_link_arm(l);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct pd_http_link *l = arg;
    struct pd_http_client *c = l->origin->client;

    (void)timer;
    if (l->is_dead || l->state == PD_HTTP_LINK_CLOSED)
        return;
    if (next_due(l) > pd_loop_now(c->loop)) {
        pd_http_link_arm(l);
        return;
    }
    if (l->call == NULL) {
        c->stats.kept_expired++;
        pd_http_link_close(l);
        return;
    }
    if (l->state == PD_HTTP_LINK_CONNECTING)
        c->stats.connect_timeouts++;
    else if (!l->call->got_bytes)
        c->stats.first_byte_timeouts++;
    else
        c->stats.idle_timeouts++;
    pd_http_link_broken(l, PD_ETIMEDOUT);
}

/* ---- end ---- */

void pd_http_link_close(struct pd_http_link *l)
{
    struct pd_http_client *c = l->origin->client;

    if (l->state == PD_HTTP_LINK_CLOSED)
        return;
    if (l->state == PD_HTTP_LINK_IDLE) {
        pd_list_remove(&l->link);
        l->origin->n_idle--;
    }
    if (l->call != NULL)
        l->call->conn = NULL;
    l->call = NULL;
    pd_timer_stop(&l->timer);
    pd_task_cancel(c->loop, &l->task);
    set_state(l, PD_HTTP_LINK_CLOSED);
    pd_stream_close(l->stream);
}

/* A kept connection that the other side had closed already: the call gets a
 * fresh one when sending it twice does no harm. */
static bool replay(struct pd_http_link *l, struct pd_http_call *call, pd_status why)
{
    struct pd_http_client *c = call->client;

    if (!l->is_reused || call->got_bytes || call->was_replayed || !call->can_replay ||
        why != PD_EPEER || c->is_closing)
        return false;
    call->was_replayed = true;
    call->was_reused = false;
    call->sent = 0;
    if (pd_http_link_open(call->origin, call) != PD_OK)
        return false;
    c->stats.stale_retries++;
    return true;
}

void pd_http_link_broken(struct pd_http_link *l, pd_status why)
{
    struct pd_http_call *call = l->call;

    pd_http_link_close(l);
    if (call != NULL && !replay(l, call, why))
        pd_http_call_fail(call, why);
}

static void break_later(struct pd_http_link *l, pd_status why)
{
    if (l->is_dead)
        return;
    l->is_dead = true;
    l->why = why;
    pd_loop_defer(l->origin->client->loop, &l->task);
}

static void on_task(struct pd_task *task, void *arg)
{
    struct pd_http_link *l = arg;

    (void)task;
    pd_http_link_broken(l, l->why);
}

/* ---- sending ---- */

static void send_request(struct pd_http_link *l)
{
    struct pd_http_call *call = l->call;
    struct pd_http_client *c = call->client;
    struct pd_iov iov[PD_HTTP_CALL_IOV + 1];
    uint64_t skip = call->sent;
    size_t n = 0, sent = 0;
    pd_status status;

    if (skip == call->total)
        return;
    if (skip < call->head.n) {
        iov[n++] = (struct pd_iov){ call->head.p + skip, call->head.n - (size_t)skip };
        skip = 0;
    } else {
        skip -= call->head.n;
    }
    for (size_t i = 0; i < call->n_body; i++) {
        struct pd_iov piece = call->body[i];
        if (skip >= piece.len) {
            skip -= piece.len;
            continue;
        }
        iov[n++] = (struct pd_iov){ (char *)piece.base + skip, piece.len - (size_t)skip };
        skip = 0;
    }
    c->stats.writes++;
    status = pd_stream_writev(l->stream, iov, n, &sent);
    /* What the other side said before it closed is still to be read. */
    if (status == PD_EAGAIN || status == PD_EPEER)
        return;
    if (status != PD_OK) {
        break_later(l, status);
        return;
    }
    call->sent += sent;
    c->stats.bytes_out += sent;
    l->since = pd_loop_now(c->loop);
}

void pd_http_link_update_read(struct pd_http_link *l)
{
    bool paused = l->call != NULL && l->call->is_paused;

    if (l->state == PD_HTTP_LINK_CLOSED || l->state == PD_HTTP_LINK_CONNECTING ||
        paused == l->is_paused)
        return;
    l->is_paused = paused;
    if (paused)
        pd_stream_pause_read(l->stream);
    else
        pd_stream_resume_read(l->stream);
}

void pd_http_link_assign(struct pd_http_link *l, struct pd_http_call *call)
{
    if (l->state == PD_HTTP_LINK_IDLE) {
        pd_list_remove(&l->link);
        l->origin->n_idle--;
        l->is_reused = true;
        call->was_reused = true;
        call->client->stats.reused++;
        change(l, PD_HTTP_LINK_IDLE, PD_HTTP_LINK_BUSY);
    } else {
        set_state(l, PD_HTTP_LINK_BUSY);
    }
    l->call = call;
    call->conn = l;
    /* Nothing was read for it yet: one that is sent again has got no byte. */
    if (call->is_head)
        pd_http1_expect_no_body(&call->parser);
    send_request(l);
    if (l->is_paused || call->is_paused)
        pd_http_link_update_read(l);
    pd_http_link_arm_in(l, call->first_byte_ns);
}

/* ---- after an answer ---- */

void pd_http_link_complete(struct pd_http_link *l, bool behind)
{
    struct pd_http_call *call = l->call;
    struct pd_http_client *c = call->client;
    struct pd_http_origin *o = l->origin;
    bool keep = call->parser.head.keep_alive && call->sent == call->total && !behind &&
                !c->is_closing;

    if (behind)
        c->stats.extra_bytes++;
    l->call = NULL;
    call->conn = NULL;
    if (keep && o->n_waiting > 0) {
        struct pd_list *next = pd_list_pop(&o->waiting);
        o->n_waiting--;
        c->stats.waiting--;
        c->stats.reused++;
        l->is_reused = true;
        PD_LIST_ENTRY(next, struct pd_http_call, link)->was_reused = true;
        pd_http_link_assign(l, PD_LIST_ENTRY(next, struct pd_http_call, link));
    } else if (keep && o->n_idle < c->opts.max_idle) {
        change(l, PD_HTTP_LINK_BUSY, PD_HTTP_LINK_IDLE);
        pd_list_prepend(&o->idle, &l->link);
        o->n_idle++;
        if (l->is_paused)
            pd_http_link_update_read(l);
        pd_http_link_arm_in(l, c->opts.keep_ns);
    } else {
        pd_http_link_close(l);
    }
    pd_http_call_done(call);
}

static void on_connected(struct pd_stream *stream, pd_status status, void *arg)
{
    struct pd_http_link *l = arg;

    (void)stream;
    if (l->state != PD_HTTP_LINK_CONNECTING || l->is_dead)
        return;
    if (status != PD_OK)
        pd_http_link_broken(l, status);
    else
        pd_http_link_assign(l, l->call);
}

static void on_writable(struct pd_stream *stream, void *arg)
{
    struct pd_http_link *l = arg;

    (void)stream;
    if (l->is_dead || l->state != PD_HTTP_LINK_BUSY)
        return;
    send_request(l);
    pd_http_link_arm(l);
}

static void on_closed(struct pd_stream *stream, void *arg)
{
    struct pd_http_link *l = arg;
    struct pd_http_origin *o = l->origin;
    struct pd_http_client *c = o->client;

    (void)stream;
    pd_list_remove(&l->all);
    pd_free(l);
    c->n_links--;
    c->n_closing--;
    o->n_conns--;
    pd_http_origin_pump(o);
    pd_http_client_link_gone(c);
}

void pd_http_link_stream_events(struct pd_http_client *c)
{
    c->events.name = c->opts.name;
    c->events.on_connected = on_connected;
    c->events.on_readable = pd_http_link_readable;
    c->events.on_writable = on_writable;
    c->events.on_closed = on_closed;
}

pd_status pd_http_link_open(struct pd_http_origin *o, struct pd_http_call *call)
{
    struct pd_http_client *c = o->client;
    struct pd_http_link *l = pd_calloc(1, sizeof(*l));
    pd_status status;

    if (l == NULL)
        return PD_ENOMEM;
    status = o->tls != NULL
                 ? pd_tls_connect(o->tls, &o->addr, &c->events, l, &l->stream)
                 : pd_stream_connect(c->loop, &o->addr, &c->events, l, &l->stream);
    if (status != PD_OK) {
        pd_free(l);
        return status;
    }
    l->origin = o;
    l->call = call;
    call->conn = l;
    pd_list_init(&l->link);
    pd_list_init(&l->all);
    pd_timer_init(&l->timer, c->loop, c->opts.name, on_timer, l);
    pd_task_init(&l->task, c->opts.name, on_task, l);
    pd_list_append(&c->links, &l->all);
    c->n_links++;
    o->n_conns++;
    c->stats.connects++;
    c->stats.conns_connecting++;
    l->since = pd_loop_now(c->loop);
    pd_http_link_arm(l);
    return PD_OK;
}
