/* SPDX-License-Identifier: Apache-2.0 */
/* The strict HTTP/1 profile, row by row: each message is fed whole, at every
 * split point, and byte by byte, and must give the same result each time. */
#include "unit.h"

#include "base/str.h"
#include "net/http1.h"

#define LIMIT 1000000

struct result {
    enum pd_http1_event last;
    enum pd_http_reject reject;
    size_t heads;
    size_t used;                /* bytes taken until the end of the message */
    char body[4096];
    size_t body_n;
    char path[256];
    size_t n_headers;
    bool keep_alive;
};

/* Feeds one message in pieces: cut at `cut`, or byte by byte when it is 0. */
static void feed(struct pd_http1 *p, const char *msg, size_t n, size_t cut, struct result *r)
{
    size_t at = 0;

    memset(r, 0, sizeof(*r));
    while (at < n) {
        size_t end = cut == 0 ? at + 1 : at < cut ? cut : n;
        if (end > n)
            end = n;
        while (at <= end) {
            size_t used;
            struct pd_str body;
            enum pd_http1_event ev = pd_http1_next(p, msg + at, end - at, &used, &body);
            at += used;
            r->last = ev;
            r->used = at;
            if (ev == PD_HTTP1_HEAD_DONE) {
                r->heads++;
                r->n_headers = p->head.n_headers;
                r->keep_alive = p->head.keep_alive;
                (void)pd_str_copy(p->head.path, r->path, sizeof(r->path));
            } else if (ev == PD_HTTP1_BODY) {
                assert_true(r->body_n + body.n <= sizeof(r->body));
                memcpy(r->body + r->body_n, body.p, body.n);
                r->body_n += body.n;
            } else if (ev == PD_HTTP1_BAD) {
                r->reject = p->reject;
                return;
            } else if (ev == PD_HTTP1_DONE) {
                return;
            } else {
                break;
            }
        }
    }
}

static void same(const struct result *a, const struct result *b, const char *name, size_t cut)
{
    if (a->last != b->last || a->reject != b->reject || a->heads != b->heads ||
        a->body_n != b->body_n || memcmp(a->body, b->body, a->body_n) != 0 ||
        a->n_headers != b->n_headers || strcmp(a->path, b->path) != 0 ||
        (a->last == PD_HTTP1_DONE && a->used != b->used)) {
        fail_msg("%s: cut at %zu gives another result (%d/%d, reject %d/%d)", name, cut, a->last,
                 b->last, a->reject, b->reject);
    }
}

static void run(bool is_response, bool is_head, const char *msg, size_t n, struct result *out)
{
    struct pd_http1 p;
    struct result r;

    pd_http1_init(&p, is_response, LIMIT);
    if (is_head)
        pd_http1_expect_no_body(&p);
    feed(&p, msg, n, n, out);
    for (size_t cut = 0; cut < n && n < 2000; cut++) {
        pd_http1_reset(&p);
        if (is_head)
            pd_http1_expect_no_body(&p);
        feed(&p, msg, n, cut, &r);
        same(out, &r, msg, cut);
    }
    pd_http1_fini(&p);
}

struct row {
    const char *msg;
    size_t n;
    uint32_t status;            /* 0: accepted whole; 1: accepted but unfinished */
    const char *body;
};

#define M(msg, status) { msg, sizeof(msg) - 1, status, NULL }
#define B(msg, body) { msg, sizeof(msg) - 1, 0, body }
#define H "Host: a\r\n"
#define E "\r\n"

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct result r;
        uint32_t status;

        run(false, false, rows[i].msg, rows[i].n, &r);
        status = r.last == PD_HTTP1_BAD ? pd_http_reject_info(r.reject)->status
                 : r.last == PD_HTTP1_DONE ? 0 : 1;
        if (status != rows[i].status)
            fail_msg("row %zu: \"%.60s\": status %u, not %u (%s)", i, rows[i].msg, status,
                     rows[i].status, pd_http_reject_info(r.reject)->label);
        if (rows[i].body != NULL) {
            assert_int_equal(r.body_n, strlen(rows[i].body));
            assert_memory_equal(r.body, rows[i].body, r.body_n);
        }
    }
}

#define CHECK(rows) check_rows(rows, sizeof(rows) / sizeof((rows)[0]))

/* The same header block and body as the answer of an upstream: 0 accepted, 1
 * cut short, 2 refused; -1 when the row is about what only requests have. */
static int as_answer(const struct row *row)
{
    static const char *const fronts[] = { "GET / HTTP/1.1\r\n" H, "POST / HTTP/1.1\r\n" H };
    static const char line[] = "HTTP/1.1 200 OK\r\n";
    char msg[4096];
    struct pd_http1 p;
    struct result r;
    size_t front = 0;

    for (size_t i = 0; i < 2; i++)
        if (row->n >= strlen(fronts[i]) && memcmp(row->msg, fronts[i], strlen(fronts[i])) == 0)
            front = strlen(fronts[i]);
    if (front == 0)
        return -1;
    size_t n = sizeof(line) - 1 + row->n - front;
    assert_true(n <= sizeof(msg));
    memcpy(msg, line, sizeof(line) - 1);
    memcpy(msg + sizeof(line) - 1, row->msg + front, row->n - front);
    run(true, false, msg, n, &r);
    if (r.last == PD_HTTP1_BAD)
        return 2;
    if (r.last != PD_HTTP1_DONE) {
        /* Without a length an answer lasts until the end of the connection. */
        pd_http1_init(&p, true, LIMIT);
        feed(&p, msg, n, n, &r);
        enum pd_http1_event end = pd_http1_end_of_input(&p);
        pd_http1_fini(&p);
        return end == PD_HTTP1_DONE ? 0 : 1;
    }
    if (row->body != NULL) {
        assert_int_equal(r.body_n, strlen(row->body));
        assert_memory_equal(r.body, row->body, r.body_n);
    }
    return 0;
}

static void check_answers(const struct row *rows, size_t n, size_t least)
{
    size_t checked = 0;

    for (size_t i = 0; i < n; i++) {
        int got = as_answer(&rows[i]);
        int want = rows[i].status > 1 ? 2 : (int)rows[i].status;
        if (got < 0)
            continue;
        checked++;
        if (got != want)
            fail_msg("row %zu as an answer: \"%.60s\": %d, not %d", i, rows[i].msg, got, want);
    }
    assert_true(checked >= least);
}

/* Towards upstreams the same rules hold for at least `least` of the rows. */
#define CHECK_ANSWERS(rows, least) check_answers(rows, sizeof(rows) / sizeof((rows)[0]), least)

static void test_line_ends(void **state)
{
    (void)state;
    static const struct row rows[] = {
        M("GET / HTTP/1.1\r\n" H E, 0),
        M("GET / HTTP/1.1\n" H E, 400),
        M("GET / HTTP/1.1\r\nHost: a\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "\n", 400),
        M("GET / HTTP/1.1\r\nHost: a\rb\r\n" E, 400),
        M("GET / HTTP/1.1\r" H E, 400),
        M("GET / HTTP/1.1\r\nHost: a\r\r\n" E, 400),
        M("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400),
        M("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n", 400),
        M("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\n", 400),
        M("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\n\r\n", 400),
        M("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\r\n0\r\n\r\n", 400),
    };
    CHECK(rows);
    CHECK_ANSWERS(rows, 6);
}

static void test_start(void **state)
{
    (void)state;
    static const struct row rows[] = {
        M("\r\nGET / HTTP/1.1\r\n" H E, 0),
        M("\r\n\r\nGET / HTTP/1.1\r\n" H E, 400),
        M("\nGET / HTTP/1.1\r\n" H E, 400),
        M(" GET / HTTP/1.1\r\n" H E, 400),
        M("GET / HTTP/1.1\r\n Host: a\r\n" E, 400),
        M("GET / HTTP/1.1\r\n\tHost: a\r\n" H E, 400),
        M("\x16\x03\x01\x02", 400),
        M("\0GET / HTTP/1.1\r\n" H E, 400),
    };
    CHECK(rows);
}

static void test_request_line(void **state)
{
    (void)state;
    static const struct row rows[] = {
        M("OPTIONS * HTTP/1.1\r\n" H E, 0),
        M("GET * HTTP/1.1\r\n" H E, 400),
        M("GET  / HTTP/1.1\r\n" H E, 400),
        M("GET /  HTTP/1.1\r\n" H E, 400),
        M("GET\t/ HTTP/1.1\r\n" H E, 400),
        M("GET / HTTP/1.1 \r\n" H E, 400),
        M("GET / x HTTP/1.1\r\n" H E, 400),
        M("GET /\r\n" H E, 400),
        M("GET HTTP/1.1\r\n" H E, 400),
        M("G@T / HTTP/1.1\r\n" H E, 400),
        M("ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\n" H E, 400),
        M("ABCDEFGHIJKLMNOP / HTTP/1.1\r\n" H E, 501),
        M("get / HTTP/1.1\r\n" H E, 501),
        M("PRI * HTTP/2.0\r\n\r\n", 505),
        M("GET / HTTP/1.2\r\n" H E, 505),
        M("GET / HTTP/0.9\r\n" H E, 505),
        M("GET / HTTP/2.0\r\n" H E, 505),
        M("GET / http/1.1\r\n" H E, 400),
        M("GET / HTTP/1.10\r\n" H E, 400),
        M("GET / HTTP/01.1\r\n" H E, 400),
        M("GET / HTTP/1.x\r\n" H E, 400),
        M("GET / HTTP 1.1\r\n" H E, 400),
        M("TRACE / HTTP/1.1\r\n" H E, 405),
        M("CONNECT a:80 HTTP/1.1\r\n" H E, 405),
        M("GET http://a/x HTTP/1.1\r\n" H E, 0),
        M("GET http://A HTTP/1.1\r\n" H E, 0),
        M("GET http://b/x HTTP/1.1\r\n" H E, 400),
        M("GET http://a:80/x HTTP/1.1\r\n" H E, 400),
        M("GET http://u@a/x HTTP/1.1\r\n" H E, 400),
        M("GET ftp://a/x HTTP/1.1\r\n" H E, 400),
        M("GET a HTTP/1.1\r\n" H E, 400),
        M("GET / HTTP/1.0\r\n" H E, 0),
        M("GET / HTTP/1.0\r\n" E, 0),
    };
    CHECK(rows);
}

static void test_target(void **state)
{
    (void)state;
    static const struct row rows[] = {
        M("GET /v1/models?x=/../%00 HTTP/1.1\r\n" H E, 0),
        M("GET /a/ HTTP/1.1\r\n" H E, 0),
        M("GET /#x HTTP/1.1\r\n" H E, 400),
        M("GET /\x80 HTTP/1.1\r\n" H E, 400),
        M("GET /\x7f HTTP/1.1\r\n" H E, 400),
        M("GET /\x01 HTTP/1.1\r\n" H E, 400),
        M("GET /\0 HTTP/1.1\r\n" H E, 400),
        M("GET /a%00b HTTP/1.1\r\n" H E, 400),
        M("GET /a%2fb HTTP/1.1\r\n" H E, 400),
        M("GET /a%2Fb HTTP/1.1\r\n" H E, 400),
        M("GET /a%5cb HTTP/1.1\r\n" H E, 400),
        M("GET /a\\b HTTP/1.1\r\n" H E, 400),
        M("GET /a%0ab HTTP/1.1\r\n" H E, 400),
        M("GET /%2e%2e/b HTTP/1.1\r\n" H E, 400),
        M("GET /a/../b HTTP/1.1\r\n" H E, 400),
        M("GET /a/.. HTTP/1.1\r\n" H E, 400),
        M("GET /./b HTTP/1.1\r\n" H E, 400),
        M("GET //b HTTP/1.1\r\n" H E, 400),
        M("GET /a//b HTTP/1.1\r\n" H E, 400),
        M("GET /%c0%af HTTP/1.1\r\n" H E, 400),
        M("GET /%ff HTTP/1.1\r\n" H E, 400),
        M("GET /%e2%82%ac HTTP/1.1\r\n" H E, 0),
        M("GET /%zz HTTP/1.1\r\n" H E, 400),
        M("GET /%4 HTTP/1.1\r\n" H E, 400),
        M("GET /% HTTP/1.1\r\n" H E, 400),
    };
    struct result r;
    static const char msg[] = "GET /v1/%6dodels?x HTTP/1.1\r\n" H E;

    CHECK(rows);
    run(false, false, msg, sizeof(msg) - 1, &r);
    assert_string_equal(r.path, "/v1/models");
}

static void test_headers(void **state)
{
    (void)state;
    static const struct row rows[] = {
        M("GET / HTTP/1.1\r\n" H "X : b\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H ": b\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X(: b\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X\x80: b\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X: a\0b\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X: a\x01" "b\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X: a\x7f\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X: a\x0b\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X: a\tb\x80\xff\r\n" E, 0),
        M("GET / HTTP/1.1\r\n" H "X:\r\n" E, 0),
        M("GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n" E, 400),
        M("GET / HTTP/1.1\r\n" H "X: a\r\n \r\n" E, 400),
        M("POST / HTTP/1.1\r\n" H "Transfer_Encoding: chunked\r\nContent-Length: 1\r\n\r\nx", 0),
        M("GET / HTTP/1.1\r\n" H
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: b\r\n" E, 0),
        M("GET / HTTP/1.1\r\n" H
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: b\r\n" E, 400),
    };
    struct result r;
    static const char dropped[] = "GET / HTTP/1.1\r\nX_a: 1\r\n" H "X-A: 2\r\n" E;

    CHECK(rows);
    CHECK_ANSWERS(rows, 17);
    run(false, false, dropped, sizeof(dropped) - 1, &r);
    assert_int_equal(r.last, PD_HTTP1_DONE);
    assert_int_equal(r.n_headers, 2);
}

static void test_host(void **state)
{
    (void)state;
    static const struct row rows[] = {
        M("GET / HTTP/1.1\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: [x]\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400),
        M("GET / HTTP/1.1\r\nHost: a:65535\r\n\r\n", 0),
        M("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 0),
        M("GET / HTTP/1.1\r\nHost: 10.0.0.1:8000\r\n\r\n", 0),
        M("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    };
    CHECK(rows);
}

static void test_content_length(void **state)
{
    (void)state;
#define CL(v, rest) "POST / HTTP/1.1\r\n" H "Content-Length:" v "\r\n\r\n" rest
    static const struct row rows[] = {
        B(CL(" 3", "abc"), "abc"),
        B(CL("3", "abcdef"), "abc"),
        B(CL(" 0", ""), ""),
        B(CL(" 03 ", "abc"), "abc"),
        M(CL(" 3", "ab"), 1),
        M(CL(" 3, 3", "abc"), 400),
        M(CL(" 3\r\nContent-Length: 3", "abc"), 400),
        M(CL(" 3\t", "abc"), 400),
        M(CL(" 3 \t ", "abc"), 400),
        M(CL(" +3", "abc"), 400),
        M(CL(" -3", "abc"), 400),
        M(CL(" 0x3", "abc"), 400),
        M(CL("", "abc"), 400),
        M(CL(" ", "abc"), 400),
        M(CL(" 1 2", "abc"), 400),
        M(CL(" 3.0", "abc"), 400),
        M(CL(" 1000000000000000000", "abc"), 400),
        M(CL(" 999999999999999999", "abc"), 413),
        M(CL(" 1000001", "abc"), 413),
        M(CL(" 1000000", "abc"), 1),
    };
    CHECK(rows);
    CHECK_ANSWERS(rows, 18);
}

static void test_transfer_encoding(void **state)
{
    (void)state;
#define TE(v) "POST / HTTP/1.1\r\n" H "Transfer-Encoding:" v "\r\n\r\n0\r\n\r\n"
    static const struct row rows[] = {
        M(TE(" chunked"), 0),
        M(TE(" ChunKed "), 0),
        M(TE(" gzip"), 501),
        M(TE(" gzip, chunked"), 501),
        M(TE(" chunked, chunked"), 501),
        M(TE(" chunked, identity"), 501),
        M(TE(" identity"), 501),
        M(TE(" xchunked"), 501),
        M(TE(" \"chunked\""), 501),
        M(TE(" chunked;q=1"), 501),
        M(TE(""), 501),
        M(TE(" \x0b" "chunked"), 400),
        M(TE(" chunked\r\nTransfer-Encoding: chunked"), 400),
        M(TE(" chunked\r\nContent-Length: 5"), 400),
        M("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        M("POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        M("POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    };
    CHECK(rows);
    CHECK_ANSWERS(rows, 15);
}

static void test_chunks(void **state)
{
    (void)state;
#define CH(rest) "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n" rest
    static const struct row rows[] = {
        B(CH("5\r\nhello\r\n0\r\n\r\n"), "hello"),
        B(CH("5\r\nhello\r\n6\r\n world\r\n00\r\n\r\nGET"), "hello world"),
        B(CH("A\r\n0123456789\r\n0\r\n\r\n"), "0123456789"),
        B(CH("0000000a\r\n0123456789\r\n0\r\n\r\n"), "0123456789"),
        M(CH("00000000a\r\n0123456789\r\n0\r\n\r\n"), 400),
        M(CH("5 \r\nhello\r\n0\r\n\r\n"), 400),
        M(CH(" 5\r\nhello\r\n0\r\n\r\n"), 400),
        M(CH("0x5\r\nhello\r\n0\r\n\r\n"), 400),
        M(CH("+5\r\nhello\r\n0\r\n\r\n"), 400),
        M(CH("-1\r\n"), 400),
        M(CH("\r\n"), 400),
        M(CH("g\r\n"), 400),
        M(CH("5\r\nhelloX\r\n0\r\n\r\n"), 400),
        M(CH("5\r\nhello0\r\n\r\n"), 400),
        M(CH("5\r\nhell\r\n0\r\n\r\n"), 400),
        M(CH("f4241\r\n"), 413),
        M(CH("ffffffff\r\n"), 413),
        M(CH("fffffffff\r\n"), 400),
        B(CH("5;a=b;c=\"d\\\"e f\";g\r\nhello\r\n0;x\r\n\r\n"), "hello"),
        M(CH("5;\r\nhello\r\n0\r\n\r\n"), 400),
        M(CH("5;a=\r\nhello\r\n0\r\n\r\n"), 400),
        M(CH("5;a b\r\nhello\r\n0\r\n\r\n"), 400),
        M(CH("5;a\nhello\r\n0\r\n\r\n"), 400),
        M(CH("5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n"), 400),
        M(CH("5\rhello\r\n0\r\n\r\n"), 400),
        B(CH("1\r\nx\r\n0\r\nA: b\r\nContent-Length: 5\r\n\r\n"), "x"),
        M(CH("1\r\nx\r\n0\r\nA : b\r\n\r\n"), 400),
        M(CH("1\r\nx\r\n0\r\n A: b\r\n\r\n"), 400),
        M(CH("1\r\nx\r\n0\r\nA: b\n\r\n"), 400),
        M(CH("1\r\nx\r\n0\r\nA: b\0\r\n\r\n"), 400),
        M(CH("1\r\nx\r\n0\r\nA\r\n\r\n"), 400),
        M(CH("1\r\nx\r\n0\r\nA: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\nA: 6\r\nA: 7\r\nA: 8\r\n"
             "A: 9\r\nA: 10\r\nA: 11\r\nA: 12\r\nA: 13\r\nA: 14\r\nA: 15\r\nA: 16\r\n\r\n"), 0),
        M(CH("1\r\nx\r\n0\r\nA: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\nA: 6\r\nA: 7\r\nA: 8\r\n"
             "A: 9\r\nA: 10\r\nA: 11\r\nA: 12\r\nA: 13\r\nA: 14\r\nA: 15\r\nA: 16\r\n"
             "A: 17\r\n\r\n"), 400),
        M(CH("1\r\nx\r\n0\r\n"), 1),
    };
    CHECK(rows);
    CHECK_ANSWERS(rows, 30);
}

static void test_expect(void **state)
{
    (void)state;
    static const struct row rows[] = {
        M("POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 0\r\n\r\n", 0),
        M("POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\nContent-Length: 0\r\n\r\n", 417),
        M("POST / HTTP/1.1\r\n" H "Expect: 100-continue, x\r\nContent-Length: 0\r\n\r\n", 417),
        M("POST / HTTP/1.1\r\n" H "Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 415),
        M("POST / HTTP/1.1\r\n" H "Content-Encoding: identity\r\nContent-Length: 0\r\n\r\n", 0),
    };
    CHECK(rows);
}

/* Builds a message with a filler of n bytes in the middle. */
static void sized(const char *before, size_t n, const char *after, uint32_t status)
{
    size_t total = strlen(before) + n + strlen(after);
    char *msg = malloc(total + 1);
    struct result r;
    uint32_t got;

    assert_non_null(msg);
    strcpy(msg, before);
    memset(msg + strlen(before), 'a', n);
    strcpy(msg + strlen(before) + n, after);
    run(false, false, msg, total, &r);
    got = r.last == PD_HTTP1_BAD ? pd_http_reject_info(r.reject)->status
          : r.last == PD_HTTP1_DONE ? 0 : 1;
    if (got != status)
        fail_msg("%zu bytes in \"%.30s\": status %u, not %u", n, before, got, status);
    free(msg);
}

static void test_limits(void **state)
{
    (void)state;
    char many[40000], *at;
    struct result r;

    sized("GET /", 8192 - 14, " HTTP/1.1\r\n" H E, 0);
    sized("GET /", 8192 - 13, " HTTP/1.1\r\n" H E, 414);
    sized("GET /", 100000, " HTTP/1.1\r\n" H E, 414);
    sized("GET /", 20000, "", 414);
    sized("GET / HTTP/1.1\r\n" H "X: ", 8192 - 3, "\r\n\r\n", 0);
    sized("GET / HTTP/1.1\r\n" H "X: ", 8192 - 2, "\r\n\r\n", 431);
    sized("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1;", 256,
          "\r\nx\r\n0\r\n\r\n", 0);
    sized("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1;", 257,
          "\r\nx\r\n0\r\n\r\n", 400);
    sized("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\nA: ", 9000,
          "\r\n\r\n", 400);

    for (int count = 99; count <= 100; count++) {
        at = many + sprintf(many, "GET / HTTP/1.1\r\n" H);
        for (int i = 0; i < count; i++)
            at += sprintf(at, "X: %d\r\n", i);
        strcpy(at, "\r\n");
        run(false, false, many, strlen(many), &r);
        if (count == 99)
            assert_int_equal(r.last, PD_HTTP1_DONE);
        else
            assert_int_equal(pd_http_reject_info(r.reject)->status, 431);
    }
    at = many + sprintf(many, "GET / HTTP/1.1\r\n" H);
    for (int i = 0; i < 5; i++) {
        at += sprintf(at, "X: ");
        memset(at, 'b', 7000);
        at += 7000;
        at += sprintf(at, "\r\n");
    }
    strcpy(at, "\r\n");
    run(false, false, many, strlen(many), &r);
    assert_int_equal(pd_http_reject_info(r.reject)->status, 431);
}

/* One byte per chunk with long extensions must end soon. */
static void test_chunk_excess(void **state)
{
    (void)state;
    struct pd_http1 p;
    struct result r;
    static const char head[] = CH("");
    char chunk[300];
    size_t n = (size_t)sprintf(chunk, "1;%0200d\r\nx\r\n", 1), sent = 0, used;
    struct pd_str body;
    enum pd_http1_event ev = PD_HTTP1_MORE;

    pd_http1_init(&p, false, LIMIT);
    feed(&p, head, sizeof(head) - 1, sizeof(head) - 1, &r);
    while (ev != PD_HTTP1_BAD && sent < 1000) {
        size_t at = 0;
        while (at < n && ev != PD_HTTP1_BAD) {
            ev = pd_http1_next(&p, chunk + at, n - at, &used, &body);
            at += used;
        }
        sent++;
    }
    assert_int_equal(ev, PD_HTTP1_BAD);
    assert_true(sent > 50 && sent < 200);
    pd_http1_fini(&p);
}

static void test_connection(void **state)
{
    (void)state;
    static const struct {
        const char *msg;
        bool keep;
    } rows[] = {
        { "GET / HTTP/1.1\r\n" H E, true },
        { "GET / HTTP/1.1\r\n" H "Connection: close\r\n" E, false },
        { "GET / HTTP/1.1\r\n" H "Connection: x, CLOSE\r\n" E, false },
        { "GET / HTTP/1.1\r\n" H "Connection: keep-alive\r\nConnection: close\r\n" E, false },
        { "GET / HTTP/1.0\r\n" H E, false },
        { "GET / HTTP/1.0\r\n" H "Connection: Keep-Alive\r\n" E, true },
        { "GET / HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: h2c\r\n" E, true },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct result r;
        run(false, false, rows[i].msg, strlen(rows[i].msg), &r);
        assert_int_equal(r.last, PD_HTTP1_DONE);
        assert_int_equal(r.keep_alive, rows[i].keep);
    }
}

static void test_pipeline(void **state)
{
    (void)state;
    static const char two[] = "POST /a HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc"
                              "GET /b HTTP/1.1\r\n" H E;
    struct pd_http1 p;
    struct result r;

    pd_http1_init(&p, false, LIMIT);
    feed(&p, two, sizeof(two) - 1, sizeof(two) - 1, &r);
    assert_int_equal(r.last, PD_HTTP1_DONE);
    assert_string_equal(r.path, "/a");
    size_t first = r.used;
    pd_http1_reset(&p);
    feed(&p, two + first, sizeof(two) - 1 - first, sizeof(two), &r);
    assert_int_equal(r.last, PD_HTTP1_DONE);
    assert_string_equal(r.path, "/b");
    assert_int_equal(r.used + first, sizeof(two) - 1);
    pd_http1_fini(&p);
}

static void test_direct(void **state)
{
    (void)state;
    static const char head[] = "POST /a HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc";
    struct pd_http1 p;
    struct result r;
    size_t used;
    struct pd_str body;

    pd_http1_init(&p, false, LIMIT);
    feed(&p, head, sizeof(head) - 1, sizeof(head) - 1, &r);
    assert_int_equal(r.body_n, 3);
    assert_int_equal(pd_http1_direct(&p), 7);
    pd_http1_direct_take(&p, 7);
    assert_int_equal(pd_http1_direct(&p), 0);
    assert_int_equal(pd_http1_next(&p, "", 0, &used, &body), PD_HTTP1_DONE);
    pd_http1_fini(&p);
}

struct answer_row {
    const char *msg;
    bool is_head;
    enum pd_http1_event last;       /* after all bytes and the end of input */
    const char *body;
    bool keep;
};

static void test_responses(void **state)
{
    (void)state;
    static const struct answer_row rows[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, PD_HTTP1_DONE, "hi", true },
        { "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, PD_HTTP1_DONE, "", true },
        { "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", false, PD_HTTP1_DONE, "", true },
        { "HTTP/1.1 200 OK\r\n\r\nuntil close", false, PD_HTTP1_DONE, "until close", false },
        { "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, PD_HTTP1_DONE, "hi", false },
        { "HTTP/1.1 204 No\r\n\r\n", false, PD_HTTP1_DONE, "", true },
        { "HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", false, PD_HTTP1_DONE, "", true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true, PD_HTTP1_DONE, "", true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false,
          PD_HTTP1_DONE, "hi", true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", false,
          PD_HTTP1_BAD, "hi", true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", false, PD_HTTP1_BAD, "hi", true },
        { "HTTP/1.1 100 Continue\r\n\r\n", false, PD_HTTP1_DONE, "", true },
        { "HTTP/1.1 101 Switching\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi", false, PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.1 20 OK\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.1 2000 OK\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.1 600 OK\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.1 099 OK\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.1  200 OK\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "HTTP/2.0 200 OK\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "ICY 200 OK\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "\r\nHTTP/1.1 200 OK\r\n\r\n", false, PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", false,
          PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi", false,
          PD_HTTP1_BAD, NULL, false },
        { "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, PD_HTTP1_BAD,
          NULL, false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", false, PD_HTTP1_BAD, NULL,
          false },
        { "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n", false, PD_HTTP1_BAD, NULL,
          false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct answer_row *row = &rows[i];
        struct pd_http1 p;
        struct result r;

        run(true, row->is_head, row->msg, strlen(row->msg), &r);
        pd_http1_init(&p, true, LIMIT);
        if (row->is_head)
            pd_http1_expect_no_body(&p);
        feed(&p, row->msg, strlen(row->msg), strlen(row->msg), &r);
        if (pd_http1_end_of_input(&p) != row->last)
            fail_msg("answer %zu: event %d, reject %s", i, pd_http1_end_of_input(&p),
                     pd_http_reject_info(p.reject)->label);
        if (row->body != NULL) {
            assert_int_equal(r.body_n, strlen(row->body));
            assert_memory_equal(r.body, row->body, r.body_n);
            assert_int_equal(r.keep_alive, row->keep);
        }
        pd_http1_fini(&p);
    }
}

static void test_lookup(void **state)
{
    (void)state;
    static const char msg[] = "GET / HTTP/1.1\r\n" H "ACCEPT: text/html;q=1, Text/Plain \r\n" E;
    struct pd_http1 p;
    struct result r;

    pd_http1_init(&p, false, LIMIT);
    feed(&p, msg, sizeof(msg) - 1, sizeof(msg) - 1, &r);
    assert_true(pd_str_is(pd_http_head_get(&p.head, "host"), "a"));
    assert_null(pd_http_head_get(&p.head, "x").p);
    assert_true(pd_http_head_has_token(&p.head, "accept", "text/html"));
    assert_true(pd_http_head_has_token(&p.head, "accept", "text/plain"));
    assert_false(pd_http_head_has_token(&p.head, "accept", "text"));
    assert_true(pd_str_is(p.head.method_text, "GET"));
    assert_int_equal(p.head.method, PD_HTTP_GET);
    pd_http1_fini(&p);
}

/* Damaged messages: whole, cut in two and byte by byte must agree, and what is
 * accepted must be framed alike. */
static void test_damaged(void **state)
{
    (void)state;
    static const char *const seeds[] = {
        "POST /v1/x HTTP/1.1\r\n" H "Content-Length: 5\r\nX-A: b\r\n\r\nhello",
        "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n"
        "0\r\nT: x\r\n\r\n",
        "\r\nGET /a%20b?c=d HTTP/1.0\r\n" H "Connection: keep-alive, x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    };
    static const char bytes[] = "\r\n \t:;,=0a5/%\"\\_\0\x7f\x80zH?#";
    uint64_t x = 88172645463325252u;
    size_t accepted = 0;

    for (int round = 0; round < 20000; round++) {
        char msg[512];
        size_t n = strlen(seeds[round % 4]);
        struct pd_http1 p;
        struct result whole, r;

        memcpy(msg, seeds[round % 4], n);
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        for (uint64_t k = 0, v = x; k <= x % 3; k++, v >>= 16) {
            size_t at = (size_t)(v % n);
            char b = bytes[(v >> 9) % (sizeof(bytes) - 1)];
            if ((v & 3) == 0) {
                memmove(msg + at + 1, msg + at, n - at);
                n++;
                msg[at] = b;
            } else if ((v & 3) == 1) {
                memmove(msg + at, msg + at + 1, n - at - 1);
                n--;
            } else {
                msg[at] = b;
            }
        }
        pd_http1_init(&p, false, LIMIT);
        feed(&p, msg, n, n, &whole);
        accepted += whole.last == PD_HTTP1_DONE;
        for (size_t cut = 0; cut < n; cut += 1 + (size_t)(x % 17)) {
            pd_http1_reset(&p);
            feed(&p, msg, n, cut, &r);
            same(&whole, &r, msg, cut);
        }
        pd_http1_fini(&p);
    }
    assert_true(accepted > 500 && accepted < 15000);
}

/* A head as text: what was refused, or its parts. */
static void dump_head(const char *msg, size_t n, size_t step, char *out, size_t size)
{
    struct pd_http1 p;
    size_t at = 0, len = 0;

    pd_http1_init(&p, false, LIMIT);
    while (at < n) {
        size_t used, take = n - at < step ? n - at : step;
        struct pd_str body;
        enum pd_http1_event ev = pd_http1_next(&p, msg + at, take, &used, &body);
        at += used;
        if (ev == PD_HTTP1_MORE)
            continue;
        if (ev == PD_HTTP1_BAD) {
            len += (size_t)snprintf(out, size, "%s", pd_http_reject_info(p.reject)->label);
        } else {
            len += (size_t)snprintf(out, size, "%zu %.*s|%.*s|%.*s|%llu", at, PD_STR_ARG(p.head.path),
                                    PD_STR_ARG(p.head.query), PD_STR_ARG(p.head.host),
                                    (unsigned long long)p.head.length);
            for (size_t i = 0; i < p.head.n_headers && len < size; i++)
                len += (size_t)snprintf(out + len, size - len, "|%.*s=%.*s",
                                        PD_STR_ARG(p.head.headers[i].name),
                                        PD_STR_ARG(p.head.headers[i].value));
        }
        pd_http1_fini(&p);
        assert_true(len < size);
        return;
    }
    pd_http1_fini(&p);
    snprintf(out, size, "unfinished");
}

/* Line ends, names and odd bytes at every place of what is read at once give the same
 * head as byte by byte; nothing behind the message is read. */
static void test_places(void **state)
{
    (void)state;
    static const char odd[] = "\r\n\t\0\x7f_:\x80 A";
    char whole[1024], single[1024], text[512];

    for (int shift = 0; shift < 68; shift += 3) {
        int n = snprintf(text, sizeof text, "GET /%.*s?b HTTP/1.1\r\nHost: a:1\r\nX-%.*sQ:  v w \r\n"
                         "content-length: 1\r\n\r\nb", shift / 2,
                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", shift,
                         "nameNAME-0123456789-nameNAME-0123456789-nameNAME-0123456789-nameNAME-0123");
        char *msg = malloc((size_t)n);
        memcpy(msg, text, (size_t)n);
        dump_head(msg, (size_t)n, (size_t)n, whole, sizeof whole);
        assert_non_null(strstr(whole, shift < 62 ? "|content-length=1" : "header_name"));
        for (int at = -1; at < n; at++) {
            for (size_t k = 0; k < sizeof odd - 1; k++) {
                char was = at < 0 ? 0 : msg[at];
                if (at >= 0)
                    msg[at] = odd[k];
                dump_head(msg, (size_t)n, (size_t)n, whole, sizeof whole);
                dump_head(msg, (size_t)n, 1, single, sizeof single);
                if (strcmp(whole, single) != 0)
                    fail_msg("shift %d, byte %d is %zu: %s, not %s", shift, at, k, whole, single);
                if (at >= 0)
                    msg[at] = was;
            }
        }
        free(msg);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_places),
    cmocka_unit_test(test_damaged),
    cmocka_unit_test(test_line_ends),
    cmocka_unit_test(test_start),
    cmocka_unit_test(test_request_line),
    cmocka_unit_test(test_target),
    cmocka_unit_test(test_headers),
    cmocka_unit_test(test_host),
    cmocka_unit_test(test_content_length),
    cmocka_unit_test(test_transfer_encoding),
    cmocka_unit_test(test_chunks),
    cmocka_unit_test(test_expect),
    cmocka_unit_test(test_limits),
    cmocka_unit_test(test_chunk_excess),
    cmocka_unit_test(test_connection),
    cmocka_unit_test(test_pipeline),
    cmocka_unit_test(test_direct),
    cmocka_unit_test(test_responses),
    cmocka_unit_test(test_lookup),
};

PD_UNIT_MAIN(tests)
