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

pd_status pd_http_req_put_head(struct pd_http_req *req, uint32_t status,
                               const struct pd_http_header *headers, size_t n, uint64_t length)
{
    pd_status st = begin_head(req, &status, headers_room(headers, n), length);

    return st != PD_OK ? st : end_head(req, put_headers(pd_buf_tail(&req->out), headers, n), length);
}

pd_status pd_http_req_pass_head(struct pd_http_req *req, const struct pd_http_head *answer,
                                uint64_t length)
{
    uint32_t status = answer->status;
    pd_status st = begin_head(req, &status, headers_room(answer->headers, answer->n_headers), length);
    char *to;

    if (st != PD_OK)
        return st;
    to = put_read_headers(pd_buf_tail(&req->out), answer->headers, answer->n_headers);
    return end_head(req, to, length);
}
