/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of answers: what every answer has, how its end is told, and which headers of
 * others are passed on. */
#include "net/http1_int.h"
#include "net/server_int.h"

#include "base/compiler.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define HEAD_ROOM 384           /* what a head has beside the headers that were given */
#define LINES_STEP 16           /* of what is copied from a parser's text */
#define FRONT "HTTP/1.1 200 OK\r\n"
#define FRONT_BYTES 68          /* the line, then the date and the name of the id's header */

/* How most answers begin, with the date of this second. */
static void write_front(struct pd_http_server *s)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    uint64_t wall = pd_loop_wall(s->loop);
    time_t t = (time_t)(wall / PD_SEC);
    struct tm tm;

    gmtime_r(&t, &tm);
    (void)snprintf(s->front, sizeof(s->front),
                   FRONT "date: %.3s, %02u %.3s %04u %02u:%02u:%02u GMT\r\nx-request-id: ",
                   days + 3 * tm.tm_wday, (unsigned)tm.tm_mday % 100u,
                   months + 3 * tm.tm_mon, ((unsigned)tm.tm_year + 1900u) % 10000u,
                   (unsigned)tm.tm_hour % 100u, (unsigned)tm.tm_min % 100u,
                   (unsigned)tm.tm_sec % 100u);
    s->front_until = pd_loop_now(s->loop) + (PD_SEC - wall % PD_SEC);
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
    case 16:
        return name_is(name, PD_STR("proxy-connection"));
    case 17:
        return name_is(name, PD_STR("transfer-encoding"));
    case 18:
        return name_is(name, PD_STR("proxy-authenticate"));
    default:
        return false;
    }
}

/* Whether the connection's options name headers of their own (RFC 9110, 7.6.1). */
static bool has_options(const struct pd_http_header *headers, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (name_is(headers[i].name, PD_STR("connection")) &&
            !pd_str_eq_nocase(headers[i].value, PD_STR("keep-alive")) &&
            !pd_str_eq_nocase(headers[i].value, PD_STR("close")))
            return true;
    return false;
}

static bool is_option(const struct pd_http_header *headers, size_t n, struct pd_str name)
{
    for (size_t i = 0; i < n; i++) {
        struct pd_str list = headers[i].value, option;
        if (!name_is(headers[i].name, PD_STR("connection")))
            continue;
        while (pd_str_split(&list, ',', &option)) {
            if (pd_str_eq_nocase(pd_str_trim(option), name))
                return true;
        }
    }
    return false;
}

/* Headers that a parser of ours has read: they are legal. */
static char *put_read_headers(char *to, const struct pd_http_header *headers, size_t n)
{
    bool has_more = has_options(headers, n);

    for (size_t i = 0; i < n; i++) {
        const struct pd_http_header *h = &headers[i];
        if (is_hop(h->name) || (has_more && is_option(headers, n, h->name)))
            continue;
        to = put(put(to, h->name), PD_STR(": "));
        to = put(put(to, h->value), PD_STR("\r\n"));
    }
    return to;
}

/* Lines of a head that a parser of ours has read and found to be plain, in runs. */
static char *put_lines(char *to, const struct pd_http_header *headers, uint64_t lines)
{
    while (lines != 0) {
        unsigned first = (unsigned)__builtin_ctzll(lines);
        unsigned n = (unsigned)__builtin_ctzll(~(lines >> first));
        const struct pd_http_header *last = &headers[first + n - 1];
        const char *from = headers[first].name.p, *end = last->value.p + last->value.n + 2;
        char *behind = to + (end - from);

        /* Some bytes too many are read and written; there are others behind. */
        for (; to < behind; to += LINES_STEP, from += LINES_STEP)
            memcpy(to, from, LINES_STEP);
        to = behind;
        lines &= lines + ((uint64_t)1 << first);
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

/* The status line, the date and the name of the id's header. */
static char *put_front(char *to, struct pd_http_server *s, uint32_t status)
{
    const size_t line = sizeof(FRONT) - 1;

    if (pd_loop_now(s->loop) >= s->front_until)
        write_front(s);
    if (status == 200) {
        memcpy(to, s->front, FRONT_BYTES);
        return to + FRONT_BYTES;
    }
    to = put(to, PD_STR("HTTP/1.1 "));
    for (uint32_t digit = 100; digit > 0; digit /= 10)
        *to++ = (char)('0' + status / digit % 10);
    *to++ = ' ';
    to = put(put(to, pd_str_from(pd_http_status_text(status))), PD_STR("\r\n"));
    return put(to, (struct pd_str){ s->front + line, FRONT_BYTES - line });
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
    to = put_front(pd_buf_tail(b), s, *status);
    memcpy(to, req->id, sizeof(req->id) - 1);
    b->n = (size_t)(put(to + req->id_n, PD_STR("\r\n")) - b->p);
    return PD_OK;
}

static pd_status end_head(struct pd_http_req *req, char *to, uint64_t length)
{
    struct pd_buf *b = &req->out;

    if (req->is_chunked) {
        to = put(to, PD_STR("transfer-encoding: chunked\r\n"));
    } else if (length != PD_HTTP_UNKNOWN_LENGTH && req->status != 204 && req->status != 304) {
        to = put(pd_http1_put_u64(put(to, PD_STR("content-length: ")), length), PD_STR("\r\n"));
    }
    if (!req->keep)
        to = put(to, PD_STR("connection: close\r\n"));
    else if (req->parser.head.minor == 0)
        to = put(to, PD_STR("connection: keep-alive\r\n"));
    b->n = (size_t)(put(to, PD_STR("\r\n")) - b->p);
    return b->status;
}

pd_status pd_http_req_put_head(struct pd_http_req *req, uint32_t status,
                               const struct pd_http_header *headers, size_t n, uint64_t length)
{
    pd_status st = begin_head(req, &status, headers_room(headers, n), length);

    return st != PD_OK ? st : end_head(req, put_headers(pd_buf_tail(&req->out), headers, n), length);
}

pd_status pd_http_req_pass_head(struct pd_http_req *req, const struct pd_http_head *answer,
                                uint64_t length)
{
    const struct pd_http_header *headers = answer->headers;
    size_t n = answer->n_headers, room;
    uint32_t status = answer->status;
    pd_status st;
    char *to;

    if (answer->has_lines && n > 0)
        room = (size_t)(headers[n - 1].value.p + headers[n - 1].value.n + 2 - headers[0].name.p) + LINES_STEP;
    else
        room = headers_room(headers, n);
    st = begin_head(req, &status, room, length);
    if (st != PD_OK)
        return st;
    to = pd_buf_tail(&req->out);
    to = answer->has_lines ? put_lines(to, headers, answer->lines) : put_read_headers(to, headers, n);
    return end_head(req, to, length);
}
