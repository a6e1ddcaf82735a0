/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server against raw bytes: routing, framing, order, limits in size
 * and time, back-pressure, clients that leave, drain and close; on the real
 * loop and in the simulator. */
#include "net_raw.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "metric/metric.h"
#include "net/keys.h"
#include "net/net_metric.h"
#include "net/server.h"

struct site {
    struct world w;
    struct pd_http_server *server;
    struct pd_addr addr;
    struct pd_http_req *held;
    size_t requests, want_requests;
    size_t gone;
    pd_status why;
    size_t drains, deadlines;
    uint64_t uploaded;
    size_t pieces;
    bool pause_upload;
    uint64_t to_write;          /* of /flood */
    size_t max_queued;
    bool is_closed, is_drained;
};

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    struct site *s = arg;

    assert_ptr_equal(req, s->held);
    s->held = NULL;
    s->gone++;
    s->why = why;
}

static void on_deadline(struct pd_http_req *req, void *arg)
{
    struct site *s = arg;

    s->deadlines++;
    s->held = NULL;
    pd_http_error(req, 503, NULL, "no_decode", "custom", NULL);
}

static void flood(struct site *s, struct pd_http_req *req)
{
    static char block[20000];
    size_t queued = 0;

    while (s->to_write > 0 && queued <= 256 * 1024) {
        size_t n = s->to_write < sizeof(block) ? (size_t)s->to_write : sizeof(block);
        queued = pd_http_write_str(req, pd_str_of(block, n));
        s->to_write -= n;
        if (queued > s->max_queued)
            s->max_queued = queued;
    }
    if (s->to_write == 0) {
        s->held = NULL;
        pd_http_end(req);
    }
}

static void on_drain(struct pd_http_req *req, void *arg)
{
    struct site *s = arg;

    s->drains++;
    flood(s, req);
}

static void on_body(struct pd_http_req *req, struct pd_str piece, void *arg)
{
    struct site *s = arg;

    s->uploaded += piece.n;
    s->pieces++;
    if (s->pause_upload)
        pd_http_req_pause(req);
}

static void on_body_end(struct pd_http_req *req, void *arg)
{
    struct site *s = arg;
    char text[32];

    s->held = NULL;
    (void)snprintf(text, sizeof(text), "got %llu", (unsigned long long)s->uploaded);
    pd_http_respond(req, 200, NULL, 0, pd_str_from(text));
}

static const struct pd_http_req_events hold_events = { .on_gone = on_gone };
static const struct pd_http_req_events deadline_events = { .on_deadline = on_deadline };
static const struct pd_http_req_events flood_events = { .on_gone = on_gone,
                                                        .on_drain = on_drain };
static const struct pd_http_req_events up_events = { .on_gone = on_gone, .on_body = on_body,
                                                     .on_body_end = on_body_end };

static void h_hello(struct pd_http_req *req, void *arg)
{
    struct site *s = arg;
    struct pd_http_header headers[] = {
        { PD_STR("content-type"), PD_STR("text/plain") },
        { PD_STR("Content-Length"), PD_STR("999") },
        { PD_STR("x-bad"), PD_STR("a\r\nb") },
    };

    s->requests++;
    pd_http_respond(req, 200, headers, 3, PD_STR("hello"));
}

static void h_echo(struct pd_http_req *req, void *arg)
{
    ((struct site *)arg)->requests++;
    pd_http_respond(req, 200, NULL, 0, pd_http_req_body(req));
}

static void h_hold(struct pd_http_req *req, void *arg)
{
    struct site *s = arg;

    s->requests++;
    s->held = req;
    pd_http_req_set_events(req, &hold_events, s);
}

static void h_slow(struct pd_http_req *req, void *arg)
{
    struct site *s = arg;

    s->held = req;
    pd_http_req_set_events(req, &deadline_events, s);
}

static void h_flood(struct pd_http_req *req, void *arg)
{
    struct site *s = arg;

    s->held = req;
    pd_http_req_set_events(req, &flood_events, s);
    assert_int_equal(pd_http_begin(req, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
    flood(s, req);
}

static void h_up(struct pd_http_req *req, void *arg)
{
    struct site *s = arg;

    s->held = req;
    pd_http_req_set_events(req, &up_events, s);
}

static void add(struct site *s, const char *path, uint32_t methods, uint32_t flags,
                uint64_t limit, pd_time deadline, void (*fn)(struct pd_http_req *, void *))
{
    struct pd_http_route route = { .path = path, .methods = methods, .flags = flags,
                                   .body_limit = limit, .deadline_ns = deadline,
                                   .on_request = fn, .arg = s };

    assert_int_equal(pd_http_server_route(s->server, &route), PD_OK);
    assert_int_equal(pd_http_server_route(s->server, &route), PD_EEXIST);
}

static void begin_with(struct site *s, bool is_sim, const struct pd_http_server_opts *opts)
{
    memset(s, 0, sizeof(*s));
    world_begin(&s->w, is_sim);
    assert_int_equal(pd_http_server_create(s->w.loop, opts, &s->server), PD_OK);
    s->addr = world_addr(&s->w);
    assert_int_equal(pd_http_server_listen(s->server, &s->addr, NULL), PD_OK);
    assert_int_equal(pd_http_server_addr(s->server, 0, &s->addr), PD_OK);
    add(s, "/hello", 1u << PD_HTTP_GET, 0, 0, 0, h_hello);
    add(s, "/echo", 1u << PD_HTTP_POST, 0, 6 << 20, 0, h_echo);
    add(s, "/small", 1u << PD_HTTP_POST | 1u << PD_HTTP_PUT, 0, 10, 0, h_echo);
    add(s, "/hold", 1u << PD_HTTP_GET | 1u << PD_HTTP_POST, 0, 0, 0, h_hold);
    add(s, "/flood", 1u << PD_HTTP_GET, 0, 0, 0, h_flood);
    add(s, "/up", 1u << PD_HTTP_POST, PD_HTTP_ROUTE_STREAM_BODY, 64 << 20, 0, h_up);
    add(s, "/late", 1u << PD_HTTP_GET, 0, 0, 50 * PD_MS, h_hold);
    add(s, "/late2", 1u << PD_HTTP_GET, 0, 0, 50 * PD_MS, h_slow);
}

static void site_closed(void *arg)
{
    ((struct site *)arg)->is_closed = true;
}

static bool site_is_closed(void *arg)
{
    return ((struct site *)arg)->is_closed;
}

static void finish(struct site *s)
{
    const struct pd_http_server_stats *st = pd_http_server_stats(s->server);

    (void)world_run(&s->w, NULL, NULL, 30 * PD_MS);
    assert_int_equal(st->queued_bytes, 0);
    pd_http_server_close(s->server, site_closed, s);
    assert_true(world_run(&s->w, site_is_closed, s, 5 * PD_SEC));
    world_end(&s->w);
}

#define HOST "Host: a\r\n"
#define GET(path) "GET " path " HTTP/1.1\r\n" HOST "\r\n"

static struct raw r1, r2, r3;

static void basic(bool is_sim)
{
    struct site s;
    const struct pd_http_server_stats *st;
    uint64_t allocs;

    begin_with(&s, is_sim, NULL);
    st = pd_http_server_stats(s.server);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/hello"));
    raw_expect(&s.w, &r1, "hello");
    assert_non_null(strstr(r1.in, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(r1.in, "\r\ncontent-length: 5\r\n"));
    assert_null(strstr(r1.in, "content-length: 999"));
    assert_null(strstr(r1.in, "x-bad"));
    assert_non_null(strstr(r1.in, "x-request-id: "));
    assert_non_null(strstr(r1.in, "date: "));
    assert_null(strstr(r1.in, "connection:"));
    if (!is_sim) {
        uint64_t reads = st->reads, writes = st->writes;
        allocs = 0;
        for (int i = 0; i < 20; i++) {
            if (i == 10)
                allocs = pd_mem_count();
            raw_clear(&r1);
            raw_send(&r1, "GET /hello?x=1 HTTP/1.1\r\n" HOST "X-Request-Id: my.id-1\r\n\r\n");
            raw_expect(&s.w, &r1, "hello");
            assert_non_null(strstr(r1.in, "x-request-id: my.id-1\r\n"));
        }
        assert_int_equal(st->reads - reads, 20);
        assert_int_equal(st->writes - writes, 20);
        assert_int_equal(pd_mem_count() - allocs, 0);
    }
    raw_clear(&r1);
    raw_send(&r1, "GET /hello HTTP/1.1\r\n" HOST "X-Request-Id: a b\r\nConnection: close\r\n\r\n");
    raw_expect_end(&s.w, &r1);
    assert_null(strstr(r1.in, "a b"));
    assert_non_null(strstr(r1.in, "connection: close\r\n"));
    assert_int_equal(st->accepted, 1);
    raw_close(&s.w, &r1);
    finish(&s);
}

static void errors(bool is_sim)
{
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/nothing"));
    raw_expect(&s.w, &r1, "\"code\":\"unknown_path\"}}");
    assert_non_null(strstr(r1.in, "HTTP/1.1 404 Not Found\r\n"));
    assert_non_null(strstr(r1.in, "{\"error\":{\"message\":\"There is nothing here.\","
                                  "\"type\":\"not_found_error\",\"param\":null,"));
    raw_clear(&r1);
    raw_send(&r1, "POST /nothing HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello");
    raw_expect(&s.w, &r1, "unknown_path\"}}");
    raw_clear(&r1);
    raw_send(&r1, "POST /hello HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
                  "5\r\nhello\r\n0\r\n\r\n");
    raw_expect(&s.w, &r1, "method_not_allowed\"}}");
    assert_non_null(strstr(r1.in, "405 Method"));
    assert_non_null(strstr(r1.in, "allow: GET, HEAD\r\n"));
    raw_clear(&r1);
    raw_send(&r1, "HEAD /hello HTTP/1.1\r\n" HOST "\r\n" GET("/hello?2"));
    raw_expect(&s.w, &r1, "hello");
    assert_int_equal(count_text(r1.in, "HTTP/1.1 200"), 2);
    assert_int_equal(count_text(r1.in, "content-length: 5"), 2);
    assert_int_equal(count_text(r1.in, "hello"), 1);
    raw_clear(&r1);
    raw_send(&r1, "GET /hello HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc");
    raw_expect(&s.w, &r1, "hello");
    raw_clear(&r1);
    raw_send(&r1, "GET /hello HTTP/1.1\r\n" HOST "Content-Length: 65537\r\n\r\n");
    raw_expect(&s.w, &r1, "request_too_large");
    assert_non_null(strstr(r1.in, "connection: close\r\n"));
    raw_expect_end(&s.w, &r1);
    raw_close(&s.w, &r1);
    finish(&s);
}

static void rejects(bool is_sim)
{
    static const struct {
        const char *in;
        const char *status;
        const char *code;
    } rows[] = {
        { "GET / HTTP/1.1\n" HOST "\r\n" GET("/hello"), "400", "invalid_framing" },
        { "GET / HTTP/1.1\r\n\r\n" GET("/hello"), "400", "invalid_host" },
        { "GET / HTTP/3.0\r\n" HOST "\r\n" GET("/hello"), "505", "unsupported_version" },
        { "TRACE / HTTP/1.1\r\n" HOST "\r\n" GET("/hello"), "405", "method_not_allowed" },
        { "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n\r\n" GET("/hello"), "501",
          "unsupported_transfer_encoding" },
        { "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nx\r\n" GET("/hello"),
          "400", "invalid_chunk" },
        { "POST /small HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\nhello world" GET("/hello"),
          "413", "request_too_large" },
        { "POST /small HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nb\r\nhello world"
          "\r\n0\r\n\r\n" GET("/hello"), "413", "request_too_large" },
        { "POST /echo HTTP/1.1\r\n" HOST "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"
          GET("/hello"), "415", "unsupported_encoding" },
        { "POST /echo HTTP/1.1\r\n" HOST "Expect: x\r\nContent-Length: 1\r\n\r\nx"
          GET("/hello"), "417", "expectation_failed" },
        { "\x16\x03\x01", "400", "invalid_request_line" },
    };
    struct site s;

    begin_with(&s, is_sim, NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        raw_open(&s.w, &r1, &s.addr);
        raw_send(&r1, rows[i].in);
        raw_expect_end(&s.w, &r1);
        assert_true(r1.eof);
        assert_int_equal(count_text(r1.in, "x-request-id: "), 1);
        assert_memory_equal(r1.in + 9, rows[i].status, 3);
        assert_non_null(strstr(r1.in, rows[i].code));
        assert_non_null(strstr(r1.in, "connection: close\r\n"));
        raw_close(&s.w, &r1);
    }
    assert_int_equal(s.requests, 0);
    finish(&s);
}

static bool has_requests(void *arg)
{
    return ((struct site *)arg)->requests == ((struct site *)arg)->want_requests;
}

static void pipeline(bool is_sim)
{
    struct site s;
    const char *a, *b, *c;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/hold") "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 6\r\n\r\nsecond"
                  GET("/hello"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_non_null(s.held);
    assert_int_equal(s.requests, 1);
    assert_int_equal(r1.n, 0);
    pd_http_respond(s.held, 200, NULL, 0, PD_STR("first"));
    s.held = NULL;
    raw_expect(&s.w, &r1, "hello");
    a = strstr(r1.in, "first");
    b = strstr(r1.in, "second");
    c = strstr(r1.in, "hello");
    assert_true(a != NULL && b > a && c > b);
    assert_int_equal(s.requests, 3);
    raw_close(&s.w, &r1);
    /* More than are served in one turn, and more than the stash takes. */
    for (int count = 40; count <= 4000; count *= 100) {
        static char many[4000 * 64];
        size_t n = 0;
        s.requests = 0;
        raw_open(&s.w, &r1, &s.addr);
        r1.count_only = true;
        for (int i = 0; i < count; i++)
            n += (size_t)sprintf(many + n, GET("/hello?%d"), i);
        raw_send_n(&r1, many, n);
        s.want_requests = (size_t)count;
        assert_true(world_run(&s.w, has_requests, &s, 20 * PD_SEC));
        raw_close(&s.w, &r1);
    }
    finish(&s);
}

static void expect_continue(bool is_sim)
{
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n"
                  "Content-Length: 4\r\n\r\n");
    raw_expect(&s.w, &r1, "HTTP/1.1 100 Continue\r\n\r\n");
    raw_send(&r1, "body");
    raw_expect(&s.w, &r1, "\r\n\r\nbody");
    raw_clear(&r1);
    raw_send(&r1, "POST /none HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n"
                  "Content-Length: 4\r\n\r\n");
    raw_expect_end(&s.w, &r1);
    assert_int_equal(count_text(r1.in, "HTTP/1.1 404"), 1);
    assert_int_equal(count_text(r1.in, "100 Continue"), 0);
    raw_close(&s.w, &r1);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, "POST /small HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n"
                  "Content-Length: 400\r\n\r\n");
    raw_expect_end(&s.w, &r1);
    assert_int_equal(count_text(r1.in, "HTTP/1.1 413"), 1);
    assert_int_equal(count_text(r1.in, "100 Continue"), 0);
    raw_close(&s.w, &r1);
    finish(&s);
}

static void http10(bool is_sim)
{
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    raw_expect(&s.w, &r1, "hello");
    assert_non_null(strstr(r1.in, "connection: keep-alive\r\n"));
    raw_clear(&r1);
    raw_send(&r1, "GET /hello HTTP/1.0\r\n\r\n");
    raw_expect_end(&s.w, &r1);
    assert_non_null(strstr(r1.in, "connection: close\r\n"));
    raw_close(&s.w, &r1);
    raw_open(&s.w, &r1, &s.addr);
    s.to_write = 30;
    raw_send(&r1, "GET /flood HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    raw_expect_end(&s.w, &r1);
    assert_null(strstr(r1.in, "chunked"));
    assert_non_null(strstr(r1.in, "connection: close\r\n"));
    assert_memory_equal(r1.in + r1.n - 34, "\r\n\r\n", 4);
    raw_close(&s.w, &r1);
    finish(&s);
}

/* The head of another server's answer: what belongs to its connection stays there. */
static void relayed(bool is_sim)
{
    struct site s;
    struct pd_http_header headers[] = {
        { PD_STR("te"), PD_STR("x") }, { PD_STR("date"), PD_STR("then") }, { PD_STR("server"), PD_STR("x") },
        { PD_STR("trailer"), PD_STR("x") }, { PD_STR("upgrade"), PD_STR("x") }, { PD_STR("x-a"), PD_STR("b") },
        { PD_STR("connection"), PD_STR("close, X-Gone ,x-b") }, { PD_STR("keep-alive"), PD_STR("x") },
        { PD_STR("proxy-connection"), PD_STR("x") }, { PD_STR("x-gone"), PD_STR("x") }, { PD_STR("x-b"), PD_STR("x") },
        { PD_STR("connection"), PD_STR("x-c") }, { PD_STR("x-c"), PD_STR("x") },
        { PD_STR("x-request-id"), PD_STR("theirs") }, { PD_STR("content-length"), PD_STR("99") },
        { PD_STR("transfer-encoding"), PD_STR("chunked") }, { PD_STR("proxy-authenticate"), PD_STR("x") },
        { PD_STR("content-type"), PD_STR("text/x") },
    };
    struct pd_http_head answer = {
        .status = 201, .headers = headers, .n_headers = sizeof headers / sizeof headers[0],
    };

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    for (int chunked = 0; chunked < 2; chunked++) {
        raw_clear(&r1);
        s.held = NULL;
        raw_send(&r1, GET("/hold"));
        (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
        assert_non_null(s.held);
        assert_int_equal(pd_http_begin_with(s.held, &answer, chunked ? PD_HTTP_UNKNOWN_LENGTH : 2), PD_OK);
        assert_int_equal(pd_http_begin_with(s.held, &answer, 2), PD_EBUSY);
        (void)pd_http_write_str(s.held, PD_STR("ok"));
        pd_http_end(s.held);
        raw_expect(&s.w, &r1, chunked ? "\r\n\r\n2\r\nok\r\n0\r\n\r\n" : "\r\n\r\nok");
        assert_ptr_equal(strstr(r1.in, "HTTP/1.1 201 Created\r\ndate: "), r1.in);
        assert_non_null(strstr(r1.in, "\r\nx-a: b\r\ncontent-type: text/x\r\n"));
        assert_non_null(strstr(r1.in, chunked ? "\r\ntransfer-encoding: chunked\r\n\r\n"
                                              : "\r\ncontent-length: 2\r\n\r\n"));
        assert_null(strstr(r1.in, "theirs"));
        assert_null(strstr(r1.in, ": x\r\n"));
        assert_null(strstr(r1.in, "content-length: 99"));
        assert_null(strstr(r1.in, ": x\r\n"));
    }
    s.held = NULL;
    raw_close(&s.w, &r1);
    finish(&s);
}

static void streaming(bool is_sim)
{
    struct site s;
    uint64_t writes;
    const struct pd_http_server_stats *st;

    begin_with(&s, is_sim, NULL);
    st = pd_http_server_stats(s.server);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_non_null(s.held);
    writes = st->writes;
    assert_int_equal(pd_http_begin(s.held, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
    assert_int_equal(pd_http_begin(s.held, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_EBUSY);
    (void)pd_http_write_str(s.held, PD_STR("one"));
    (void)pd_http_write_str(s.held, PD_STR("two"));
    (void)pd_http_write_str(s.held, PD_STR(""));
    (void)pd_http_write_str(s.held, PD_STR("three"));
    raw_expect(&s.w, &r1, "5\r\nthree\r\n");
    assert_non_null(strstr(r1.in, "\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n"));
    if (!is_sim)
        assert_int_equal(st->writes - writes, 1);
    (void)pd_http_write_str(s.held, PD_STR("end"));
    pd_http_end(s.held);
    s.held = NULL;
    raw_expect(&s.w, &r1, "3\r\nend\r\n0\r\n\r\n");
    /* A handler that flushes by itself: nothing leaves without it. */
    raw_clear(&r1);
    raw_send(&r1, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    pd_http_own_flush(s.held);
    assert_int_equal(pd_http_begin(s.held, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
    (void)pd_http_write_str(s.held, PD_STR("seventeen bytes.."));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(r1.n, 0);
    pd_http_flush(s.held);
    raw_expect(&s.w, &r1, "\r\n\r\n11\r\nseventeen bytes..\r\n");
    /* It goes on without what its head held. */
    assert_true(pd_http_req_header(s.held, "host").n > 0);
    pd_http_req_lighten(s.held);
    assert_int_equal(pd_http_req_header(s.held, "host").n, 0);
    assert_int_equal(pd_http_req_path(s.held).n, 0);
    (void)pd_http_write_str(s.held, PD_STR("on"));
    pd_http_flush(s.held);
    raw_expect(&s.w, &r1, "2\r\non\r\n");
    pd_http_end(s.held);
    s.held = NULL;
    raw_expect(&s.w, &r1, "\r\n0\r\n\r\n");
    /* A known length, kept; then one that is not kept to. */
    raw_clear(&r1);
    raw_send(&r1, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(pd_http_begin(s.held, 200, NULL, 0, 4), PD_OK);
    (void)pd_http_write_str(s.held, PD_STR("full"));
    pd_http_end(s.held);
    raw_expect(&s.w, &r1, "\r\n\r\nfull");
    raw_clear(&r1);
    raw_send(&r1, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(pd_http_begin(s.held, 200, NULL, 0, 9), PD_OK);
    (void)pd_http_write_str(s.held, PD_STR("part"));
    pd_http_flush(s.held);
    pd_http_end(s.held);
    raw_expect_end(&s.w, &r1);
    raw_close(&s.w, &r1);
    /* Aborted: no final chunk. */
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(pd_http_begin(s.held, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
    (void)pd_http_write_str(s.held, PD_STR("part"));
    pd_http_flush(s.held);
    pd_http_abort(s.held);
    raw_expect_end(&s.w, &r1);
    assert_null(strstr(r1.in, "0\r\n\r\n"));
    raw_close(&s.w, &r1);
    assert_int_equal(s.gone, 0);
    finish(&s);
}

static bool flood_done(void *arg)
{
    return ((struct raw *)arg)->eof || ((struct raw *)arg)->total > (64u << 20);
}

static void back_pressure(bool is_sim)
{
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    r1.count_only = true;
    s.to_write = 64u << 20;
    pd_stream_pause_read(r1.stream);
    raw_send(&r1, GET("/flood"));
    (void)world_run(&s.w, NULL, NULL, 100 * PD_MS);
    /* The reader sleeps: the handler was stopped. */
    assert_true(s.to_write > 32u << 20);
    assert_true(s.max_queued < 300 * 1024);
    assert_true(pd_http_server_stats(s.server)->queued_bytes > 0);
    pd_stream_resume_read(r1.stream);
    assert_true(world_run(&s.w, flood_done, &r1, 60 * PD_SEC));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(s.to_write, 0);
    assert_true(s.drains > 10);
    assert_true(s.max_queued < 300 * 1024);
    assert_int_equal(s.gone, 0);
    raw_close(&s.w, &r1);
    finish(&s);
}

static void overflow(bool is_sim)
{
    struct pd_http_server_opts opts = { .size = sizeof(opts), .max_queued = 1 << 20 };
    static char block[100000];
    struct site s;

    begin_with(&s, is_sim, &opts);
    raw_open(&s.w, &r1, &s.addr);
    pd_stream_pause_read(r1.stream);
    raw_send(&r1, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(pd_http_begin(s.held, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
    for (int i = 0; i < 1000; i++)
        (void)pd_http_write_str(s.held, pd_str_of(block, sizeof(block)));
    assert_int_equal(s.gone, 0);
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(s.gone, 1);
    assert_int_equal(s.why, PD_ELIMIT);
    assert_int_equal(pd_http_server_stats(s.server)->queue_overflows, 1);
    raw_close(&s.w, &r1);
    finish(&s);
}

static bool someone_gone(void *arg)
{
    return ((struct site *)arg)->gone > 0;
}

static void client_gone(bool is_sim)
{
    struct pd_http_server_opts opts = { .size = sizeof(opts), .half_close_ok = 1 };
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    raw_close(&s.w, &r1);
    assert_true(world_run(&s.w, someone_gone, &s, PD_SEC));
    assert_int_equal(s.why, PD_EPEER);
    assert_int_equal(pd_http_server_stats(s.server)->client_gone, 1);
    /* A half close counts as leaving. */
    s.gone = 0;
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(pd_stream_shutdown_write(r1.stream), PD_OK);
    assert_true(world_run(&s.w, someone_gone, &s, PD_SEC));
    raw_close(&s.w, &r1);
    /* With its body only half sent. */
    s.gone = 0;
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, "POST /up HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nhal");
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    raw_close(&s.w, &r1);
    assert_true(world_run(&s.w, someone_gone, &s, PD_SEC));
    finish(&s);

    begin_with(&s, is_sim, &opts);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/hold") GET("/hello"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(pd_stream_shutdown_write(r1.stream), PD_OK);
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(s.gone, 0);
    pd_http_respond(s.held, 200, NULL, 0, PD_STR("answer"));
    raw_expect_end(&s.w, &r1);
    assert_non_null(strstr(r1.in, "answer"));
    assert_non_null(strstr(r1.in, "hello"));
    raw_close(&s.w, &r1);
    finish(&s);
}

static void timeouts(bool is_sim)
{
    struct pd_http_server_opts opts = { .size = sizeof(opts), .idle_ns = 60 * PD_MS,
                                        .head_ns = 40 * PD_MS, .body_ns = 40 * PD_MS,
                                        .write_ns = 80 * PD_MS, .linger_ns = 20 * PD_MS };
    const struct pd_http_server_stats *st;
    struct site s;

    begin_with(&s, is_sim, &opts);
    st = pd_http_server_stats(s.server);
    raw_open(&s.w, &r1, &s.addr);
    raw_open(&s.w, &r2, &s.addr);
    raw_open(&s.w, &r3, &s.addr);
    raw_send(&r2, "GET /hello HTTP/1.1\r\nHost");
    raw_send(&r3, "POST /up HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nhal");
    raw_expect_end(&s.w, &r1);
    raw_expect_end(&s.w, &r2);
    raw_expect_end(&s.w, &r3);
    assert_int_equal(r1.n, 0);
    assert_memory_equal(r2.in, "HTTP/1.1 408 ", 13);
    assert_non_null(strstr(r2.in, "x-should-retry: false\r\n"));
    assert_memory_equal(r3.in, "HTTP/1.1 408 ", 13);
    assert_int_equal(s.gone, 1);
    assert_int_equal(s.why, PD_ETIMEDOUT);
    assert_int_equal(st->idle_timeouts, 1);
    assert_int_equal(st->head_timeouts, 1);
    assert_int_equal(st->body_timeouts, 1);
    raw_close(&s.w, &r1);
    raw_close(&s.w, &r2);
    raw_close(&s.w, &r3);
    /* A client that does not read. */
    s.gone = 0;
    raw_open(&s.w, &r1, &s.addr);
    pd_stream_pause_read(r1.stream);
    s.to_write = 64u << 20;
    raw_send(&r1, GET("/flood"));
    assert_true(world_run(&s.w, someone_gone, &s, 5 * PD_SEC));
    assert_int_equal(s.why, PD_ETIMEDOUT);
    assert_int_equal(st->write_timeouts, 1);
    raw_close(&s.w, &r1);
    /* Deadlines. */
    s.gone = 0;
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/late"));
    raw_expect_end(&s.w, &r1);
    assert_memory_equal(r1.in, "HTTP/1.1 504 ", 13);
    assert_non_null(strstr(r1.in, "\"timeout_error\""));
    assert_int_equal(s.gone, 1);
    raw_close(&s.w, &r1);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/late2"));
    raw_expect(&s.w, &r1, "custom");
    assert_non_null(strstr(r1.in, "retry-after: 1\r\n"));
    assert_int_equal(s.deadlines, 1);
    assert_int_equal(st->deadline_timeouts, 2);
    raw_close(&s.w, &r1);
    finish(&s);
}

static void limits(bool is_sim)
{
    struct pd_http_server_opts opts = { .size = sizeof(opts), .max_conns = 2 };
    struct site s;

    begin_with(&s, is_sim, &opts);
    raw_open(&s.w, &r1, &s.addr);
    raw_open(&s.w, &r2, &s.addr);
    raw_open(&s.w, &r3, &s.addr);
    raw_send(&r3, GET("/hello"));
    raw_expect_end(&s.w, &r3);
    assert_memory_equal(r3.in, "HTTP/1.1 503 ", 13);
    assert_non_null(strstr(r3.in, "\"overloaded\"}}"));
    raw_close(&s.w, &r3);
    raw_close(&s.w, &r2);
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    raw_open(&s.w, &r2, &s.addr);
    raw_send(&r2, GET("/hello"));
    raw_expect(&s.w, &r2, "hello");
    assert_int_equal(pd_http_server_stats(s.server)->refused, 1);
    raw_close(&s.w, &r1);
    raw_close(&s.w, &r2);
    finish(&s);
}

static void drained(void *arg)
{
    ((struct site *)arg)->is_drained = true;
}

static bool site_is_drained(void *arg)
{
    return ((struct site *)arg)->is_drained;
}

static void drain(bool is_sim)
{
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    raw_open(&s.w, &r2, &s.addr);
    raw_send(&r2, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    pd_http_server_drain(s.server, drained, &s);
    raw_expect_end(&s.w, &r1);
    assert_false(s.is_drained);
    pd_http_respond(s.held, 200, NULL, 0, PD_STR("last"));
    s.held = NULL;
    raw_expect_end(&s.w, &r2);
    assert_non_null(strstr(r2.in, "connection: close\r\n"));
    assert_non_null(strstr(r2.in, "last"));
    assert_true(world_run(&s.w, site_is_drained, &s, PD_SEC));
    raw_close(&s.w, &r1);
    raw_close(&s.w, &r2);
    finish(&s);
}

/* Listeners that change or go while connections are open. */
static void listeners(bool is_sim)
{
    static const char digest[] =
        "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae foo\n";
    char folder[] = "/tmp/pd-http-XXXXXX", keys_path[64];
    struct pd_addr addr = { .family = PD_AF_UNIX };
    struct pd_keys *keys;
    struct pd_err err;
    struct site s;

    assert_non_null(mkdtemp(folder));
    (void)snprintf(addr.path, sizeof(addr.path), "%s/listener", folder);
    (void)snprintf(keys_path, sizeof(keys_path), "%s/keys", folder);
    FILE *out = fopen(keys_path, "w");
    assert_non_null(out);
    assert_int_equal(fchmod(fileno(out), 0600), 0);
    fputs(digest, out);
    fclose(out);
    begin_with(&s, is_sim, NULL);
    assert_int_equal(pd_http_server_reserve(s.server, &addr), PD_ENOENT);
    assert_int_equal(pd_http_server_unlisten(s.server, &addr), PD_ENOENT);
    assert_int_equal(pd_http_server_listen(s.server, &addr, NULL), PD_OK);
    raw_open(&s.w, &r1, &addr);
    raw_send(&r1, GET("/hello"));
    raw_expect(&s.w, &r1, "hello");

    /* Keys hold from the next request of an open connection on. */
    assert_int_equal(pd_keys_create(s.w.loop, NULL, keys_path, &keys, &err), PD_OK);
    assert_int_equal(pd_http_server_reserve(s.server, &addr), PD_OK);
    pd_http_server_relisten(s.server, &addr, NULL, keys);
    pd_keys_destroy(keys);
    raw_send(&r1, GET("/hello"));
    raw_expect(&s.w, &r1, "HTTP/1.1 401");
    r1.n = 0;
    raw_send(&r1, "GET /hello HTTP/1.1\r\n" HOST "Authorization: Bearer foo\r\n\r\n");
    raw_expect(&s.w, &r1, "HTTP/1.1 200");

    /* One that is closed ends what it has begun; another listener goes on. */
    raw_open(&s.w, &r2, &addr);
    raw_send(&r2, "GET /hold HTTP/1.1\r\n" HOST "Authorization: Bearer foo\r\n\r\n");
    raw_open(&s.w, &r3, &s.addr);
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(pd_http_server_unlisten(s.server, &addr), PD_OK);
    assert_int_equal(pd_http_server_unlisten(s.server, &addr), PD_ENOENT);
    raw_expect_end(&s.w, &r1);
    pd_http_respond(s.held, 200, NULL, 0, PD_STR("last"));
    s.held = NULL;
    raw_expect_end(&s.w, &r2);
    assert_non_null(strstr(r2.in, "connection: close\r\n"));
    assert_non_null(strstr(r2.in, "last"));
    raw_send(&r3, GET("/hello"));
    raw_expect(&s.w, &r3, "hello");
    raw_close(&s.w, &r1);
    raw_close(&s.w, &r2);
    raw_close(&s.w, &r3);
    finish(&s);
    unlink(addr.path);
    unlink(keys_path);
    assert_int_equal(rmdir(folder), 0);
}

static void server_close(bool is_sim)
{
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    raw_open(&s.w, &r2, &s.addr);
    raw_send(&r2, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    pd_http_server_close(s.server, site_closed, &s);
    assert_int_equal(s.gone, 0);
    assert_true(world_run(&s.w, site_is_closed, &s, PD_SEC));
    assert_int_equal(s.gone, 1);
    assert_int_equal(s.why, PD_ECANCELED);
    raw_close(&s.w, &r1);
    raw_close(&s.w, &r2);
    world_end(&s.w);
}

static bool got_5mb(void *arg)
{
    return ((struct raw *)arg)->total > (5u << 20);
}

static void big_bodies(bool is_sim)
{
    struct site s;
    size_t n = 5u << 20;
    char *msg = malloc(n + 200);
    int head;

    assert_non_null(msg);
    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    r1.count_only = true;
    head = sprintf(msg, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", n);
    memset(msg + head, 'x', n);
    memcpy(msg + head + n, "\r\n", 2);
    raw_send_n(&r1, msg, (size_t)head + n);
    assert_true(world_run(&s.w, got_5mb, &r1, 30 * PD_SEC));
    raw_close(&s.w, &r1);
    /* The same streamed, with a handler that rests after each piece. */
    raw_open(&s.w, &r1, &s.addr);
    s.pause_upload = true;
    head = sprintf(msg, "POST /up HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", n);
    raw_send_n(&r1, msg, (size_t)head + n);
    (void)world_run(&s.w, NULL, NULL, 50 * PD_MS);
    assert_true(s.uploaded > 0 && s.uploaded < 200 * 1024);
    while (s.held != NULL) {
        pd_http_req_resume(s.held);
        (void)world_run(&s.w, NULL, NULL, PD_MS);
    }
    raw_expect(&s.w, &r1, "got 5242880");
    raw_close(&s.w, &r1);
    /* Chunked and streamed. */
    raw_open(&s.w, &r1, &s.addr);
    s.pause_upload = false;
    s.uploaded = 0;
    raw_send(&r1, "POST /up HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
                  "5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n");
    raw_expect(&s.w, &r1, "got 8");
    raw_close(&s.w, &r1);
    finish(&s);
    free(msg);
}

static void early_answer(bool is_sim)
{
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, "POST /up HTTP/1.1\r\n" HOST "Content-Length: 1000\r\n\r\nhal");
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_non_null(s.held);
    pd_http_error(s.held, 429, NULL, "queue_full", "Too much.", NULL);
    s.held = NULL;
    raw_expect(&s.w, &r1, "queue_full");
    assert_non_null(strstr(r1.in, "connection: close\r\n"));
    assert_non_null(strstr(r1.in, "retry-after-ms: 1000\r\nretry-after: 1\r\n"));
    raw_expect_end(&s.w, &r1);
    raw_close(&s.w, &r1);
    /* A bad chunk in a streamed body: refused, and the handler is told. */
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, "POST /up HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n");
    raw_expect_end(&s.w, &r1);
    assert_memory_equal(r1.in, "HTTP/1.1 400 ", 13);
    assert_int_equal(s.gone, 1);
    assert_int_equal(s.why, PD_EPROTO);
    raw_close(&s.w, &r1);
    finish(&s);
}

/* Single bytes do not keep a body alive; streamed routes take requests without one. */
static void trickle(bool is_sim)
{
    struct pd_http_server_opts opts = { .size = sizeof(opts), .body_ns = 100 * PD_MS };
    struct site s;
    int sent = 0;

    begin_with(&s, is_sim, &opts);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, "POST /up HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    raw_expect(&s.w, &r1, "got 0");
    assert_null(strstr(r1.in, "connection: close"));
    raw_clear(&r1);
    raw_send(&r1, "POST /up HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\n");
    while (!r1.eof && sent < 100) {
        raw_send(&r1, "x");
        sent++;
        (void)world_run(&s.w, NULL, NULL, 10 * PD_MS);
    }
    assert_true(sent > 3 && sent < 40);
    assert_memory_equal(r1.in, "HTTP/1.1 408 ", 13);
    assert_int_equal(s.why, PD_ETIMEDOUT);
    raw_close(&s.w, &r1);
    finish(&s);
}

/* Each allocation of a connection's life fails once: the client gets an answer
 * or an end, never silence, and the next client is served. */
static void short_of_memory(bool is_sim)
{
    static char msg[40000];
    struct site s;
    int head = sprintf(msg, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 30000\r\n\r\n");

    memset(msg + head, 'x', 30000);
    for (uint64_t n = 1; n <= 24; n++) {
        begin_with(&s, is_sim, NULL);
        raw_open(&s.w, &r1, &s.addr);
        (void)world_run(&s.w, NULL, NULL, PD_MS);
        raw_send_n(&r1, msg, (size_t)head + 30000);
        pd_mem_fault_set(n);
        r1.want = n % 2 == 0 ? "xxxx" : "HTTP/1.1 ";
        assert_true(world_run(&s.w, raw_has, &r1, 10 * PD_SEC));
        pd_mem_fault_set(0);
        raw_close(&s.w, &r1);
        raw_open(&s.w, &r1, &s.addr);
        raw_send(&r1, GET("/hello"));
        raw_expect(&s.w, &r1, "hello");
        raw_close(&s.w, &r1);
        finish(&s);
    }
}

static double metric(struct pd_metrics *m, const char *name, const char *value)
{
    const char *values[] = { "openai", value };
    double v = -1;

    (void)pd_metrics_read(m, name, values, &v);
    return v;
}

static void metrics(bool is_sim)
{
    struct pd_metrics *m;
    struct pd_net_metrics *nm;
    struct site s;

    begin_with(&s, is_sim, NULL);
    assert_int_equal(pd_metrics_create(0, &m), PD_OK);
    assert_int_equal(pd_net_metrics_create(m, "openai", s.server, NULL, &nm), PD_OK);
    raw_open(&s.w, &r1, &s.addr);
    raw_send(&r1, GET("/hello") GET("/none"));
    raw_expect(&s.w, &r1, "unknown_path");
    raw_send(&r1, "x y z\r\n");
    raw_expect_end(&s.w, &r1);
    raw_open(&s.w, &r2, &s.addr);
    raw_send(&r2, GET("/hold"));
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    pd_net_metrics_update(nm);
    assert_int_equal(metric(m, "pdplane_http_requests_total", NULL), 3);
    assert_int_equal(metric(m, "pdplane_http_responses_total", "2xx"), 1);
    assert_int_equal(metric(m, "pdplane_http_responses_total", "4xx"), 2);
    assert_int_equal(metric(m, "pdplane_http_rejects_total", "request_line"), 1);
    assert_int_equal(metric(m, "pdplane_http_rejects_total", "not_found"), 1);
    assert_int_equal(metric(m, "pdplane_http_connections", "serving"), 1);
    assert_int_equal(metric(m, "pdplane_http_accepted_total", "ok"), 2);
    raw_close(&s.w, &r1);
    raw_close(&s.w, &r2);
    finish(&s);
    pd_net_metrics_destroy(nm);
    pd_metrics_destroy(m);
}

/* A request fed byte by byte over the wire. */
static void dribble(bool is_sim)
{
    static const char msg[] = "\r\nPOST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"
                              GET("/hello?");
    struct site s;

    begin_with(&s, is_sim, NULL);
    raw_open(&s.w, &r1, &s.addr);
    for (size_t i = 0; i + 1 < sizeof(msg); i++) {
        raw_send_n(&r1, msg + i, 1);
        (void)world_run(&s.w, NULL, NULL, is_sim ? PD_MS : PD_US);
    }
    raw_expect(&s.w, &r1, "\r\n\r\nhello");
    (void)world_run(&s.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(count_text(r1.in, "HTTP/1.1 200 OK"), 2);
    raw_close(&s.w, &r1);
    finish(&s);
}

/* ---- handlers that break the rules: clients see an honest end, the server goes on ---- */

enum { MOST_RUNS = 32 };      /* of one write, see server.h */
static int misuse_how;

static void h_misuse(struct pd_http_req *req, void *arg)
{
    static struct pd_iov many[MOST_RUNS + 1];
    const struct pd_iov one = { (void *)(uintptr_t)"abc", 3 }, none = { NULL, 0 };
    (void)arg;
    switch (misuse_how) {
    case 0: pd_http_respond(req, 100, NULL, 0, PD_STR("")); break;
    case 1: pd_http_respond(req, 600, NULL, 0, PD_STR("")); break;
    case 2: pd_http_respond(req, 304, NULL, 0, PD_STR("")); break;
    case 3: pd_http_respond_iov(req, 200, NULL, 0, many, MOST_RUNS + 1); break;
    case 4:
        assert_int_equal(pd_http_begin(req, 200, NULL, 0, 2), PD_OK);
        assert_int_equal(pd_http_begin(req, 200, NULL, 0, 2), PD_EBUSY);
        (void)pd_http_write(req, &one, 1);      /* more than was promised */
        break;
    case 5:
        assert_int_equal(pd_http_begin(req, 200, NULL, 0, 9), PD_OK);
        (void)pd_http_write(req, &one, 1);
        pd_http_end(req);                       /* less than was promised */
        break;
    case 6: (void)pd_http_write(req, &one, 1); break;   /* no head */
    case 7: pd_http_end(req); break;
    case 8:
        assert_int_equal(pd_http_begin(req, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
        (void)pd_http_write(req, many, MOST_RUNS + 1);
        (void)pd_http_write(req, &none, 1);
        pd_http_respond(req, 200, NULL, 0, PD_STR("twice"));
        break;
    case 9:
        assert_int_equal(pd_http_begin(req, 204, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
        assert_int_equal(pd_http_write(req, &one, 1), 0);   /* it has no body */
        pd_http_end(req);
        break;
    default:
        assert_int_equal(pd_http_begin(req, 200, NULL, 0, 0), PD_OK);
        pd_http_error(req, 500, NULL, NULL, "late", NULL);
        break;
    }
}

static void misuse(bool is_sim)
{
    static const char *const wants[] = { "HTTP/1.1 500 ", "HTTP/1.1 500 ", "HTTP/1.1 304 ", NULL, NULL, NULL, NULL, NULL,
                                         NULL, "HTTP/1.1 204 ", NULL };
    struct site s;

    begin_with(&s, is_sim, NULL);
    add(&s, "/misuse", 1u << PD_HTTP_GET, 0, 0, 0, h_misuse);
    for (misuse_how = 0; misuse_how < 11; misuse_how++) {
        raw_open(&s.w, &r1, &s.addr);
        raw_send(&r1, GET("/misuse"));
        if (wants[misuse_how] != NULL) {
            raw_expect(&s.w, &r1, wants[misuse_how]);
            /* The connection is whole: the next request is served. */
            raw_send(&r1, GET("/hello"));
            raw_expect(&s.w, &r1, "hello");
        } else {
            raw_expect_end(&s.w, &r1);
            assert_null(strstr(r1.in, "twice"));
        }
        raw_close(&s.w, &r1);
    }
    /* Routes that are none, and too many. */
    struct pd_http_route good = { .path = "/a", .methods = 1u << PD_HTTP_GET, .on_request = h_misuse };
    for (int how = 0; how < 4; how++) {
        struct pd_http_route bad = good;
        bad.path = how == 0 ? NULL : how == 1 ? "a" : "/a";
        bad.methods = how == 2 ? 0 : bad.methods;
        bad.on_request = how == 3 ? NULL : bad.on_request;
        assert_int_equal(pd_http_server_route(s.server, &bad), PD_EINVAL);
    }
    static char paths[300][16];
    pd_status st = PD_OK;
    int n = 0;
    for (; n < 300 && st == PD_OK; n++) {
        snprintf(paths[n], sizeof paths[n], "/n%d", n);
        good.path = paths[n];
        st = pd_http_server_route(s.server, &good);
    }
    assert_int_equal(st, PD_ELIMIT);
    assert_int_equal(pd_http_server_unroute(s.server, "/nowhere"), PD_ENOENT);
    struct pd_addr any = world_addr(&s.w), got;
    for (n = 1, st = PD_OK; n < 20 && st == PD_OK; n++)
        st = pd_http_server_listen(s.server, &any, NULL);
    assert_int_equal(st, PD_ELIMIT);
    assert_int_equal(pd_http_server_addr(s.server, 3, &got), PD_OK);
    assert_int_equal(pd_http_server_addr(s.server, 30, &got), PD_ENOENT);
    finish(&s);
}

#define BOTH(name)                                                             \
    static void test_##name##_uv(void **state)                                 \
    {                                                                          \
        (void)state;                                                           \
        name(false);                                                           \
    }                                                                          \
    static void test_##name##_sim(void **state)                                \
    {                                                                          \
        (void)state;                                                           \
        name(true);                                                            \
    }
#define ROWS(name) cmocka_unit_test(test_##name##_uv), cmocka_unit_test(test_##name##_sim)

BOTH(basic)
BOTH(errors)
BOTH(rejects)
BOTH(pipeline)
BOTH(expect_continue)
BOTH(http10)
BOTH(streaming)
BOTH(relayed)
BOTH(back_pressure)
BOTH(overflow)
BOTH(client_gone)
BOTH(timeouts)
BOTH(limits)
BOTH(drain)
BOTH(listeners)
BOTH(server_close)
BOTH(big_bodies)
BOTH(early_answer)
BOTH(dribble)
BOTH(trickle)
BOTH(metrics)
BOTH(short_of_memory)
BOTH(misuse)

static const struct CMUnitTest tests[] = {
    ROWS(basic),
    ROWS(errors),
    ROWS(rejects),
    ROWS(pipeline),
    ROWS(expect_continue),
    ROWS(http10),
    ROWS(streaming),
    ROWS(relayed),
    ROWS(back_pressure),
    ROWS(overflow),
    ROWS(client_gone),
    ROWS(timeouts),
    ROWS(limits),
    ROWS(drain),
    ROWS(listeners),
    ROWS(server_close),
    ROWS(big_bodies),
    ROWS(early_answer),
    ROWS(dribble),
    ROWS(trickle),
    ROWS(metrics),
    ROWS(short_of_memory),
    ROWS(misuse),
};

PD_UNIT_MAIN(tests)
