/* SPDX-License-Identifier: Apache-2.0 */
/* Answers: heads, framing, what is queued, errors in the form clients know.
 *
 * Invariant: bytes leave in the order of req->out; a piece is written past the
 * queue only in one writev together with all of it.  The framing always tells
 * the truth: an answer that cannot be completed cuts the connection. */
#include "net/http1_int.h"
#include "net/server_int.h"

#include "base/compiler.h"
#include "base/json.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

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
    if (sent > 0)
        req->progress = pd_loop_now(c->server->loop);
    if (sent == all.len && !req->above_high) {
        /* Mostly it takes all. */
        req->out.p = req->out.base;
        req->out.n = 0;
        st->queued_bytes -= req->counted;
        req->counted = 0;
        return true;
    }
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

/* ---- heads ---- */

#define DATE_BYTES 29           /* "Sun, 06 Nov 1994 08:49:37 GMT" */
#define HEAD_ROOM 384           /* what a head has beside the headers that were given */

static const char *date_text(struct pd_http_server *s)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    uint64_t sec = pd_loop_wall(s->loop) / PD_SEC;

    if (sec != s->date_sec || s->date[0] == '\0') {
        time_t t = (time_t)sec;
        struct tm tm;
        gmtime_r(&t, &tm);
        (void)snprintf(s->date, sizeof(s->date), "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT",
                       days + 3 * tm.tm_wday, (unsigned)tm.tm_mday % 100u,
                       months + 3 * tm.tm_mon, ((unsigned)tm.tm_year + 1900u) % 10000u,
                       (unsigned)tm.tm_hour % 100u, (unsigned)tm.tm_min % 100u,
                       (unsigned)tm.tm_sec % 100u);
        s->date_sec = sec;
    }
    return s->date;
}

/* Headers that only the server may write. */
static bool is_ours(struct pd_str name)
{
    static const struct pd_str names[] = {
        PD_STR("content-length"), PD_STR("transfer-encoding"), PD_STR("connection"), PD_STR("date"),
        PD_STR("x-request-id"), PD_STR("keep-alive"), PD_STR("upgrade"),
    };
    static const uint32_t lengths = 1u << 4 | 1u << 7 | 1u << 10 | 1u << 12 | 1u << 14 | 1u << 17;

    if (name.n > 17 || (lengths >> name.n & 1) == 0)
        return false;
    for (size_t i = 0; i < PD_ARRAY_LEN(names); i++)
        if (name.n == names[i].n && pd_str_eq_nocase(name, names[i]))
            return true;
    return false;
}

static char *put(char *to, struct pd_str s)
{
    memcpy(to, s.p, s.n);
    return to + s.n;
}

static char *put_headers(char *to, const struct pd_http_header *headers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!pd_http1_is_name(headers[i].name) || is_ours(headers[i].name) ||
            !pd_http_is_value(headers[i].value))
            continue;
        to = put(put(to, headers[i].name), PD_STR(": "));
        to = put(put(to, headers[i].value), PD_STR("\r\n"));
    }
    return to;
}

/* Bytes that these headers have at most. */
static size_t headers_room(const struct pd_http_header *headers, size_t n)
{
    size_t room = 0;

    for (size_t i = 0; i < n; i++)
        room += headers[i].name.n + headers[i].value.n + 4;
    return room;
}

static bool name_is(struct pd_str name, struct pd_str s)
{
    return name.n == s.n && memcmp(name.p, s.p, s.n) == 0;
}

/* Headers of another server's answer that belong to its connection or that we write;
 * names are in lower case. */
static bool is_hop(struct pd_str name)
{
    switch (name.n) {
    case 2:
        return name_is(name, PD_STR("te"));
    case 4:
        return name_is(name, PD_STR("date"));
    case 6:
        return name_is(name, PD_STR("server"));
    case 7:
        return name_is(name, PD_STR("trailer")) || name_is(name, PD_STR("upgrade"));
    case 10:
        return name_is(name, PD_STR("connection")) || name_is(name, PD_STR("keep-alive"));
    case 12:
        return name_is(name, PD_STR("x-request-id"));
    case 14:
        return name_is(name, PD_STR("content-length"));
    case 17:
        return name_is(name, PD_STR("transfer-encoding"));
    case 18:
        return name_is(name, PD_STR("proxy-authenticate"));
    default:
        return false;
    }
}

/* Headers that a parser of ours has read: they are legal. */
static char *put_read_headers(char *to, const struct pd_http_header *headers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct pd_http_header *h = &headers[i];
        if (is_hop(h->name))
            continue;
        to = put(put(to, h->name), PD_STR(": "));
        to = put(put(to, h->value), PD_STR("\r\n"));
    }
    return to;
}

static void decide_end(struct pd_http_req *req, uint64_t length)
{
    const struct pd_http_head *h = &req->parser.head;
    struct pd_http_server *s = req->conn->server;
    bool is_closed = req->conn->door != NULL && req->conn->door->is_closed;

    req->is_chunked = length == PD_HTTP_UNKNOWN_LENGTH && !req->no_body &&
                      req->has_head && h->minor == 1;
    req->keep = req->has_head && req->body_done && h->keep_alive && !req->close_after &&
                !s->is_closing && !is_closed &&
                (!s->is_draining || (req->route_flags & PD_HTTP_ROUTE_ALWAYS) != 0) &&
                (req->no_body || req->is_chunked || length != PD_HTTP_UNKNOWN_LENGTH);
    req->left = length;
}

static char *put_status(char *to, uint32_t status)
{
    if (status == 200)
        return put(to, PD_STR("HTTP/1.1 200 OK\r\ndate: "));
    to = put(to, PD_STR("HTTP/1.1 "));
    for (uint32_t digit = 100; digit > 0; digit /= 10)
        *to++ = (char)('0' + status / digit % 10);
    *to++ = ' ';
    return put(put(to, pd_str_from(pd_http_status_text(status))), PD_STR("\r\ndate: "));
}

/* Queues the begin of a head, which has room for `room` bytes of headers then; framing
 * and keep-alive are decided here. */
static pd_status begin_head(struct pd_http_req *req, uint32_t *status, size_t room, uint64_t length)
{
    struct pd_http_server *s = req->conn->server;
    struct pd_buf *b = &req->out;
    char *to;

    if (*status < 200 || *status > 599)
        *status = 500;
    /* The head waits for the first write: from now on the client is given time. */
    if (b->n == 0)
        req->progress = pd_loop_now(s->loop);
    req->has_begun = true;
    req->status = *status;
    if (*status == 204 || *status == 304)
        req->no_body = true;
    decide_end(req, length);
    s->stats.responses[*status / 100]++;
    pd_http_req_make_id(req);
    if (pd_buf_reserve(b, room + HEAD_ROOM) != PD_OK)
        return b->status;
    to = put(put_status(pd_buf_tail(b), *status), pd_str_of(date_text(s), DATE_BYTES));
    to = put(put(to, PD_STR("\r\nx-request-id: ")), pd_str_of(req->id, req->id_n));
    b->n = (size_t)(put(to, PD_STR("\r\n")) - b->p);
    return PD_OK;
}

static pd_status end_head(struct pd_http_req *req, char *to, uint64_t length)
{
    struct pd_buf *b = &req->out;

    if (req->is_chunked) {
        to = put(to, PD_STR("transfer-encoding: chunked\r\n"));
    } else if (length != PD_HTTP_UNKNOWN_LENGTH && req->status != 204 && req->status != 304) {
        b->n = (size_t)(put(to, PD_STR("content-length: ")) - b->p);
        (void)pd_buf_append_u64(b, length);
        to = put(pd_buf_tail(b), PD_STR("\r\n"));
    }
    if (!req->keep)
        to = put(to, PD_STR("connection: close\r\n"));
    else if (req->parser.head.minor == 0)
        to = put(to, PD_STR("connection: keep-alive\r\n"));
    b->n = (size_t)(put(to, PD_STR("\r\n")) - b->p);
    return b->status;
}

static pd_status put_head(struct pd_http_req *req, uint32_t status,
                          const struct pd_http_header *headers, size_t n, uint64_t length)
{
    pd_status st = begin_head(req, &status, headers_room(headers, n), length);

    return st != PD_OK ? st : end_head(req, put_headers(pd_buf_tail(&req->out), headers, n), length);
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
    if (write_out(req, iov, n) && req->out.n == 0)
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
    if (put_head(req, status, headers, n, length) != PD_OK) {
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

    return may_begin(req, &st) ? begun(req, put_head(req, status, headers, n, length)) : st;
}

pd_status pd_http_begin_with(struct pd_http_req *req, const struct pd_http_head *answer,
                             uint64_t length)
{
    uint32_t status = answer->status;
    pd_status st;

    if (!may_begin(req, &st))
        return st;
    st = begin_head(req, &status, headers_room(answer->headers, answer->n_headers), length);
    if (st == PD_OK)
        st = end_head(req, put_read_headers(pd_buf_tail(&req->out), answer->headers,
                                            answer->n_headers), length);
    return begun(req, st);
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

    if ((b->base == NULL || pd_buf_room(b) < bytes + SIZE_LINE + 2) &&
        pd_buf_reserve(b, bytes + SIZE_LINE + 2) != PD_OK) {
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

static inline size_t write_runs(struct pd_http_req *req, const struct pd_iov *iov, size_t n, size_t bytes)
{
    const struct pd_http_server_opts *o = &req->conn->server->opts;

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
    if (req->out.n > o->max_queued) {
        req->conn->server->stats.queue_overflows++;
        pd_http_conn_fail(req->conn, PD_ELIMIT);
        return 0;
    }
    if (req->out.n > o->high_water)
        req->above_high = true;
    return req->out.n;
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

/* ---- errors ---- */

const char *pd_http_error_type(uint32_t status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
    case 405:
        return "not_found_error";
    case 408:
    case 504:
        return "timeout_error";
    case 429:
        return "rate_limit_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static void put_string_or_null(struct pd_buf *b, const char *key, const char *value)
{
    (void)pd_buf_append_cstr(b, key);
    if (value == NULL)
        (void)pd_buf_append_cstr(b, "null");
    else
        (void)pd_json_put_str(b, pd_str_from(value));
}

pd_status pd_http_error_json(struct pd_buf *b, const struct pd_http_error *error)
{
    (void)pd_buf_append_cstr(b, "{\"error\":{\"message\":");
    (void)pd_json_put_str(b, error->message);
    put_string_or_null(b, ",\"type\":", error->type != NULL ? error->type
                                                           : pd_http_error_type(error->status));
    put_string_or_null(b, ",\"param\":", error->param);
    put_string_or_null(b, ",\"code\":", error->code);
    (void)pd_buf_append_cstr(b, "}}");
    return b->status;
}

void pd_http_error_full(struct pd_http_req *req, const struct pd_http_error *error)
{
    struct pd_http_server *s = req->conn->server;
    struct pd_http_header headers[5];
    uint32_t after = error->retry_after_ms;
    char ms[16], sec[16];
    size_t n = 0;

    if (req->has_begun) {
        pd_http_abort(req);
        return;
    }
    if (after == 0 && (error->status == 429 || error->status == 503))
        after = 1000;
    headers[n++] = (struct pd_http_header){ PD_STR("content-type"), PD_STR("application/json") };
    if (after != 0) {
        (void)snprintf(ms, sizeof(ms), "%u", after);
        (void)snprintf(sec, sizeof(sec), "%u", after / 1000 + (after % 1000 != 0));
        headers[n++] = (struct pd_http_header){ PD_STR("retry-after-ms"), pd_str_from(ms) };
        headers[n++] = (struct pd_http_header){ PD_STR("retry-after"), pd_str_from(sec) };
    }
    if (error->should_retry != 0 || error->status == 408)
        headers[n++] = (struct pd_http_header){ PD_STR("x-should-retry"),
                                                error->should_retry > 0 ? PD_STR("true")
                                                                        : PD_STR("false") };
    if (error->allow != NULL)
        headers[n++] = (struct pd_http_header){ PD_STR("allow"), pd_str_from(error->allow) };
    if (error->close != 0)
        req->close_after = true;
    pd_buf_clear(&s->text);
    if (pd_http_error_json(&s->text, error) != PD_OK) {
        /* The longest message there is room for is none. */
        pd_buf_clear(&s->text);
        (void)pd_buf_append_cstr(&s->text, "{\"error\":{\"message\":\"\",\"type\":\"server_error\","
                                           "\"param\":null,\"code\":null}}");
    }
    pd_http_respond(req, error->status, headers, n, pd_buf_str(&s->text));
}

void pd_http_error(struct pd_http_req *req, uint32_t status, const char *type, const char *code,
                   const char *message, const char *param)
{
    struct pd_http_error error;

    memset(&error, 0, sizeof(error));
    error.status = status;
    error.type = type;
    error.code = code;
    error.message = pd_str_from(message);
    error.param = param;
    pd_http_error_full(req, &error);
}

static const char *allow_text(uint32_t methods, char out[64])
{
    size_t n = 0;

    if ((methods & 1u << PD_HTTP_GET) != 0)
        methods |= 1u << PD_HTTP_HEAD;
    out[0] = '\0';
    for (int m = PD_HTTP_GET; m < PD_HTTP_METHODS; m++)
        if ((methods & 1u << m) != 0)
            n += (size_t)snprintf(out + n, 64 - n, "%s%s", n > 0 ? ", " : "",
                                  pd_http_method_name((enum pd_http_method)m));
    return out;
}

void pd_http_req_fail(struct pd_http_req *req, uint32_t status, const char *code,
                      const char *message)
{
    struct pd_http_error error;
    char allow[64];

    memset(&error, 0, sizeof(error));
    error.status = status;
    error.code = code;
    error.message = pd_str_from(message);
    if (status == 405)
        error.allow = allow_text(req->allow, allow);
    /* Slow clients lose their connection, also with a complete message. */
    error.close = status == 408 || status == 504;
    pd_http_error_full(req, &error);
}

void pd_http_req_refuse(struct pd_http_req *req, enum pd_http_reject reject)
{
    const struct pd_http_reject_info *info = pd_http_reject_info(reject);

    req->conn->server->stats.rejects[reject]++;
    req->close_after = true;
    pd_http_req_fail(req, info->status != 0 ? info->status : 400, info->code, info->text);
}

void pd_http_req_overload(struct pd_http_req *req)
{
    req->conn->server->stats.overloads++;
    req->close_after = true;
    pd_http_req_fail(req, 503, "overloaded", "Too much is being served; try again later.");
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
