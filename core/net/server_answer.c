/* SPDX-License-Identifier: Apache-2.0 */
/* Answers: framing and what is queued.  Heads are in server_head.c, errors in
 * server_error.c.
 *
 * Invariant: bytes leave in the order of req->out; a piece is written past the
 * queue only in one writev together with all of it.  The framing always tells
 * the truth: an answer that cannot be completed cuts the connection. */
#include "net/server_int.h"

#include "base/compiler.h"

#include <string.h>

void pd_http_req_note_queue(struct pd_http_req *req)
{
    struct pd_http_server_stats *st = &req->conn->server->stats;

    st->queued_bytes += req->out.n - req->counted;
    req->counted = req->out.n;
}

/* Whether anything may still be written. */
static bool is_open(const struct pd_http_req *req)
{
    return !req->conn->is_dead && req->conn->state <= PD_HTTP_CONN_SERVING;
}

#define SIZE_LINE 24            /* bytes for the size of a chunk and its line end */

/* ---- writing ---- */

/* The queue is what the socket has left. */
static void after_write(struct pd_http_req *req)
{
    struct pd_http_conn *c = req->conn;

    pd_http_req_note_queue(req);
    if (req->above_high && req->out.n <= c->server->opts.low_water) {
        req->above_high = false;
        req->want_drain = true;
        pd_http_conn_wake(c);
    }
    if (req->out.n > 0)
        pd_http_conn_arm(c);
}

/* The empty queue of a stream that is flushed as it is written: the next one that has
 * something for its client uses the memory. */
static inline void lend_queue(struct pd_http_req *req)
{
    struct pd_buf *spare = &req->conn->server->spare;

    if (!req->own_flush || req->out.cap <= spare->cap)
        return;
    if (spare->base != NULL)
        pd_buf_fini(spare);
    spare->base = req->out.base;
    spare->cap = req->out.cap;
    req->out.base = NULL;
    req->out.cap = 0;
}

/* Room for so many bytes behind what is queued. */
static inline bool has_room(struct pd_http_req *req, size_t bytes)
{
    struct pd_buf *spare = &req->conn->server->spare, *b = &req->out;

    if (b->base == NULL && bytes <= spare->cap) {
        b->base = b->p = spare->base;
        b->cap = spare->cap;
        spare->base = NULL;
        spare->cap = 0;
        return true;
    }
    return (b->base != NULL && pd_buf_room(b) >= bytes) || pd_buf_reserve(b, bytes) == PD_OK;
}

/* What is queued and nothing else.  False: connection lost. */
static inline bool write_queue(struct pd_http_req *req)
{
    struct pd_http_conn *c = req->conn;
    struct pd_http_server_stats *st = &c->server->stats;
    struct pd_iov all = { req->out.p, req->out.n };
    size_t sent = 0;
    pd_status status;

    if (all.len == 0)
        return true;
    st->writes++;
    status = pd_stream_writev(c->stream, &all, 1, &sent);
    if (status == PD_EAGAIN) {
        sent = 0;
    } else if (status != PD_OK) {
        pd_http_conn_fail(c, PD_EPEER);
        return false;
    }
    st->bytes_out += sent;
    if (sent == all.len && !req->above_high) {
        /* Mostly it takes all. */
        lend_queue(req);
        req->out.p = req->out.base;
        req->out.n = 0;
        st->queued_bytes -= req->counted;
        req->counted = 0;
        return true;
    }
    if (sent > 0)
        req->progress = pd_loop_now(c->server->loop);
    pd_buf_consume(&req->out, sent);
    after_write(req);
    return true;
}

/* Queue, then iov; what the socket leaves is queued.  False: connection lost. */
static bool write_out(struct pd_http_req *req, const struct pd_iov *iov, size_t n)
{
    struct pd_http_conn *c = req->conn;
    struct pd_iov all[PD_HTTP_MAX_IOV + 8];
    size_t count = 0, total = 0, sent = 0, queued = req->out.n;
    pd_status status;

    if (queued > 0)
        all[count++] = (struct pd_iov){ req->out.p, queued };
    for (size_t i = 0; i < n; i++)
        if (iov[i].len > 0)
            all[count++] = iov[i];
    for (size_t i = 0; i < count; i++)
        total += all[i].len;
    if (total == 0)
        return true;
    c->server->stats.writes++;
    status = pd_stream_writev(c->stream, all, count, &sent);
    if (status == PD_EAGAIN) {
        sent = 0;
    } else if (status != PD_OK) {
        pd_http_conn_fail(c, PD_EPEER);
        return false;
    }
    c->server->stats.bytes_out += sent;
    if (sent > 0 || queued == 0)
        req->progress = pd_loop_now(c->server->loop);
    pd_buf_consume(&req->out, sent < queued ? sent : queued);
    sent = sent < queued ? 0 : sent - queued;
    for (size_t i = 0; i < n; i++) {
        if (sent >= iov[i].len) {
            sent -= iov[i].len;
            continue;
        }
        if (pd_buf_append(&req->out, (char *)iov[i].base + sent, iov[i].len - sent) != PD_OK) {
            c->server->stats.memory_failures++;
            pd_http_conn_fail(c, PD_ENOMEM);
            return false;
        }
        sent = 0;
    }
    after_write(req);
    return true;
}

void pd_http_req_flush(struct pd_http_req *req)
{
    req->want_flush = false;
    if (!is_open(req) || !write_queue(req))
        return;
    if (req->is_ended && req->out.n == 0)
        pd_http_conn_answered(req->conn);
}

void pd_http_flush(struct pd_http_req *req)
{
    if (!is_open(req) || req->is_ended)
        return;
    req->want_flush = false;
    (void)write_queue(req);
}

static void lost_memory(struct pd_http_req *req)
{
    req->conn->server->stats.memory_failures++;
    pd_http_conn_fail(req->conn, PD_ENOMEM);
}

/* ---- whole answers ---- */

static void finish(struct pd_http_req *req, const struct pd_iov *iov, size_t n)
{
    req->is_ended = true;
    req->deadline = PD_TIME_NEVER;
    req->want_flush = false;
    if ((n == 0 ? write_queue(req) : write_out(req, iov, n)) && req->out.n == 0)
        pd_http_conn_answered(req->conn);
}

void pd_http_respond_iov(struct pd_http_req *req, uint32_t status,
                         const struct pd_http_header *headers, size_t n,
                         const struct pd_iov *body, size_t n_body)
{
    uint64_t length = 0;

    if (req->has_begun || n_body > PD_HTTP_MAX_IOV) {
        pd_http_abort(req);
        return;
    }
    for (size_t i = 0; i < n_body; i++)
        length += body[i].len;
    if (!is_open(req)) {
        req->is_ended = true;
        return;
    }
    if (pd_http_req_put_head(req, status, headers, n, length) != PD_OK) {
        req->is_ended = true;
        lost_memory(req);
        return;
    }
    finish(req, body, req->no_body ? 0 : n_body);
}

void pd_http_respond(struct pd_http_req *req, uint32_t status,
                     const struct pd_http_header *headers, size_t n, struct pd_str body)
{
    struct pd_iov iov = { (void *)(uintptr_t)body.p, body.n };

    pd_http_respond_iov(req, status, headers, n, &iov, 1);
}

/* ---- streamed answers ---- */

void pd_http_own_flush(struct pd_http_req *req)
{
    req->own_flush = true;
}

static void flush_later(struct pd_http_req *req)
{
    if (req->own_flush)
        return;
    req->want_flush = true;
    pd_http_conn_wake(req->conn);
}

/* Whether a head may be queued now; *status: what to return when it may not. */
static bool may_begin(struct pd_http_req *req, pd_status *status)
{
    *status = req->has_begun ? PD_EBUSY : PD_OK;
    if (req->has_begun)
        return false;
    if (is_open(req))
        return true;
    req->has_begun = true;      /* on_gone is on its way */
    return false;
}

/* The head is queued, if status says so. */
static pd_status begun(struct pd_http_req *req, pd_status status)
{
    if (status != PD_OK) {
        lost_memory(req);
        return PD_ENOMEM;
    }
    pd_http_req_note_queue(req);
    flush_later(req);
    return PD_OK;
}

pd_status pd_http_begin(struct pd_http_req *req, uint32_t status,
                        const struct pd_http_header *headers, size_t n, uint64_t length)
{
    pd_status st;

    return may_begin(req, &st) ? begun(req, pd_http_req_put_head(req, status, headers, n, length)) : st;
}

pd_status pd_http_begin_with(struct pd_http_req *req, const struct pd_http_head *answer,
                             uint64_t length)
{
    pd_status st;

    return may_begin(req, &st) ? begun(req, pd_http_req_pass_head(req, answer, length)) : st;
}

/* "1f\r\n"; returns what follows it. */
static inline char *put_size(char *to, size_t bytes)
{
    unsigned shift = bytes == 0 ? 0 : (63u - (unsigned)__builtin_clzll(bytes)) & ~3u;

    for (;; shift -= 4) {
        *to++ = "0123456789abcdef"[bytes >> shift & 15];
        if (shift == 0)
            break;
    }
    memcpy(to, "\r\n", 2);
    return to + 2;
}

/* Frames the runs; out has room for 2 more than n.  Returns the count. */
static size_t frame(const struct pd_http_req *req, const struct pd_iov *iov, size_t n,
                    size_t bytes, char size_line[SIZE_LINE], struct pd_iov *out)
{
    size_t count = 0;

    if (req->is_chunked)
        out[count++] = (struct pd_iov){ size_line, (size_t)(put_size(size_line, bytes) - size_line) };
    for (size_t i = 0; i < n; i++)
        out[count++] = iov[i];
    if (req->is_chunked)
        out[count++] = (struct pd_iov){ (void *)(uintptr_t)"\r\n", 2 };
    return count;
}

/* Adds the runs with their frame to the queue. */
static inline void queue_up(struct pd_http_req *req, const struct pd_iov *iov, size_t n, size_t bytes)
{
    struct pd_buf *b = &req->out;
    char *to;

    if (!has_room(req, bytes + SIZE_LINE + 2)) {
        lost_memory(req);
        return;
    }
    if (b->n == 0)
        req->progress = pd_loop_now(req->conn->server->loop);
    to = pd_buf_tail(b);
    if (req->is_chunked)
        to = put_size(to, bytes);
    for (size_t i = 0; i < n; i++) {
        memcpy(to, iov[i].base, iov[i].len);
        to += iov[i].len;
    }
    if (req->is_chunked) {
        memcpy(to, "\r\n", 2);
        to += 2;
    }
    b->n = (size_t)(to - b->p);
    /* One that is flushed soon is counted then. */
    if (!req->own_flush) {
        pd_http_req_note_queue(req);
        flush_later(req);
    }
}

/* Sends the runs with their frame past the queue; false: connection lost. */
static bool write_framed(struct pd_http_req *req, const struct pd_iov *iov, size_t n, size_t bytes)
{
    struct pd_iov framed[PD_HTTP_MAX_IOV + 2];
    char size_line[SIZE_LINE];

    return write_out(req, framed, frame(req, iov, n, bytes, size_line, framed));
}

/* Bytes of the queue behind a write, looked at for the limits. */
static inline size_t keep_limits(struct pd_http_req *req)
{
    const struct pd_http_server_opts *o = &req->conn->server->opts;

    if (req->out.n > o->max_queued) {
        req->conn->server->stats.queue_overflows++;
        pd_http_conn_fail(req->conn, PD_ELIMIT);
        return 0;
    }
    if (req->out.n > o->high_water)
        req->above_high = true;
    return req->out.n;
}

static inline size_t write_runs(struct pd_http_req *req, const struct pd_iov *iov, size_t n, size_t bytes)
{
    if (!is_open(req) || req->is_ended || req->no_body)
        return 0;
    if (bytes == 0)
        return req->out.n;
    if (!req->has_begun || n > PD_HTTP_MAX_IOV || bytes > req->left) {
        pd_http_conn_fail(req->conn, PD_EINVAL);
        return 0;
    }
    if (req->left != PD_HTTP_UNKNOWN_LENGTH)
        req->left -= bytes;
    if (bytes < PD_HTTP_DIRECT && req->out.n < PD_HTTP_DIRECT)
        queue_up(req, iov, n, bytes);
    else if (!write_framed(req, iov, n, bytes))
        return 0;
    return keep_limits(req);
}

size_t pd_http_write(struct pd_http_req *req, const struct pd_iov *iov, size_t n)
{
    size_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += iov[i].len;
    return write_runs(req, iov, n, bytes);
}

size_t pd_http_write_str(struct pd_http_req *req, struct pd_str bytes)
{
    struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };

    return write_runs(req, &iov, 1, bytes.n);
}

/* Chunks that the socket did not take whole. */
static __attribute__((noinline)) void passed_part(struct pd_http_req *req, struct pd_str chunks, pd_status status,
                                                  size_t sent)
{
    if (status == PD_EAGAIN) {
        sent = 0;
    } else if (status != PD_OK) {
        pd_http_conn_fail(req->conn, PD_EPEER);
        return;
    }
    req->conn->server->stats.bytes_out += sent;
    req->progress = pd_loop_now(req->conn->server->loop);
    if (pd_buf_append(&req->out, chunks.p + sent, chunks.n - sent) != PD_OK) {
        lost_memory(req);
        return;
    }
    after_write(req);
    (void)keep_limits(req);
}

bool pd_http_pass(struct pd_http_req *req, struct pd_str chunks)
{
    struct pd_http_conn *c = req->conn;
    struct pd_iov all = { (void *)(uintptr_t)chunks.p, chunks.n };
    size_t sent;
    pd_status status;

    if (!req->is_chunked || req->out.n > 0 || req->is_ended || !is_open(req))
        return false;
    c->server->stats.writes++;
    status = pd_stream_writev(c->stream, &all, 1, &sent);
    if (status == PD_OK && sent == chunks.n)
        c->server->stats.bytes_out += sent;
    else
        passed_part(req, chunks, status, sent);
    return true;
}

void pd_http_end(struct pd_http_req *req)
{
    struct pd_iov last = { (void *)(uintptr_t)"0\r\n\r\n", 5 };

    if (req->is_ended)
        return;
    if (!is_open(req)) {
        req->is_ended = true;
        return;
    }
    /* A length that was promised and not delivered must not look complete. */
    if (!req->has_begun ||
        (!req->no_body && req->left != PD_HTTP_UNKNOWN_LENGTH && req->left > 0)) {
        pd_http_abort(req);
        return;
    }
    finish(req, &last, req->is_chunked ? 1 : 0);
}

void pd_http_abort(struct pd_http_req *req)
{
    req->is_ended = true;
    req->ev = NULL;
    pd_http_conn_fail(req->conn, PD_ECANCELED);
}

void pd_http_close_after(struct pd_http_req *req)
{
    req->close_after = true;
    req->keep = false;
}

bool pd_http_has_begun(const struct pd_http_req *req)
{
    return req->has_begun;
}

size_t pd_http_queued(const struct pd_http_req *req)
{
    return req->out.n;
}

void pd_http_req_continue(struct pd_http_req *req)
{
    req->conn->server->stats.continues++;
    if (pd_buf_append_cstr(&req->out, "HTTP/1.1 100 Continue\r\n\r\n") != PD_OK)
        lost_memory(req);
    else
        (void)write_out(req, NULL, 0);
}

void pd_http_req_gone(struct pd_http_req *req, pd_status why)
{
    const struct pd_http_req_events *ev = req->ev;

    if (!req->is_dispatched || req->is_ended)
        return;
    req->is_dispatched = false;
    req->ev = NULL;
    if (ev != NULL && ev->on_gone != NULL)
        ev->on_gone(req, why, req->arg);
}
