/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of many shapes: read whole and byte by byte they give the same headers, those that
 * were sent; and which lines of an answer may go on as they stand. */
#include "unit.h"

#include "base/str.h"
#include "net/http1.h"
#include "net/http1_int.h"

#define LIMIT 1000000

/* Feeds a message in pieces until its head was told or refused. */
static enum pd_http1_event feed(struct pd_http1 *p, const char *msg, size_t n, size_t piece)
{
    enum pd_http1_event ev = PD_HTTP1_MORE;

    for (size_t at = 0; ev == PD_HTTP1_MORE && at < n;) {
        size_t used, take = piece < n - at ? piece : n - at;
        struct pd_str body;
        ev = pd_http1_next(p, msg + at, take, &used, &body);
        at += used;
    }
    return ev;
}

struct shape {
    bool is_response;
    size_t count;               /* of headers, besides Host */
    size_t bytes;               /* of each value */
};

/* The name of header i: short, long, and in both cases. */
static void put_name(char *to, size_t size, size_t i, bool is_sent)
{
    static const char *const sent[] = { "X-Name-", "x-", "X-LoNg-NaMe-Of-A-hEADER-" };
    static const char *const read[] = { "x-name-", "x-", "x-long-name-of-a-header-" };

    (void)snprintf(to, size, "%s%zu", is_sent ? sent[i % 3] : read[i % 3], i);
}

static size_t put_message(char *to, size_t size, const struct shape *s, const char *value)
{
    size_t at = (size_t)snprintf(to, size, s->is_response ? "HTTP/1.1 200 OK\r\n"
                                                          : "GET /a HTTP/1.1\r\nHost: a\r\n");

    for (size_t i = 0; i < s->count; i++) {
        char name[64];
        put_name(name, sizeof(name), i, true);
        at += (size_t)snprintf(to + at, size - at, "%s: %.*s\r\n", name, (int)s->bytes, value);
    }
    return at + (size_t)snprintf(to + at, size - at, "\r\n");
}

static void check_headers(const struct pd_http1 *p, const struct shape *s, const char *value)
{
    size_t first = s->is_response ? 0 : 1;

    assert_int_equal(p->head.n_headers, s->count + first);
    for (size_t i = 0; i < s->count; i++) {
        const struct pd_http_header *h = &p->head.headers[i + first];
        char name[64];
        put_name(name, sizeof(name), i, false);
        assert_true(pd_str_is(h->name, name));
        assert_true(pd_str_eq(h->value, pd_str_of(value, s->bytes)));
    }
}

static void test_shapes(void **state)
{
    static const size_t counts[] = { 0, 1, 2, 15, 16, 17, 31, 32, 33, 61, 62, 63, 99, 100 };
    static const size_t sizes[] = { 0, 1, 13, 14, 15, 16, 17, 31, 33, 150, 250 };
    static char msg[40000], value[300];
    struct pd_http1 p;

    (void)state;
    memset(value, 'v', sizeof(value));
    for (int kind = 0; kind < 2; kind++) {
        pd_http1_init(&p, kind == 1, LIMIT);
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
            for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]) * 2; k++) {
                struct shape s = { kind == 1, counts[i], sizes[k / 2] };
                size_t n = put_message(msg, sizeof(msg), &s, value);
                enum pd_http1_event ev = feed(&p, msg, n, k % 2 == 0 ? n : 1);
                /* With the host there are too many. */
                if (s.count == 100 && !s.is_response) {
                    assert_int_equal(ev, PD_HTTP1_BAD);
                    assert_int_equal(p.reject, PD_HTTP_REJECT_HEADERS_SIZE);
                } else {
                    assert_int_equal(ev, PD_HTTP1_HEAD_DONE);
                    check_headers(&p, &s, value);
                }
                pd_http1_reset(&p);
            }
        }
        pd_http1_fini(&p);
    }
}

/* Hosts and lengths about the sizes that are checked at once. */
static void test_numbers(void **state)
{
    static const struct {
        const char *host, *length;
        enum pd_http_reject reject;
        uint64_t value;
    } rows[] = {
        { "a", "1", PD_HTTP_REJECT_NONE, 1 },
        { "127.0.0.1:8000", "12345678", PD_HTTP_REJECT_NONE, 12345678 },
        { "127.0.0.1:65535", "123456789", PD_HTTP_REJECT_NONE, 123456789 },
        { "127.0.0.1:65536", "1", PD_HTTP_REJECT_HOST, 0 },
        { "127.0.0.1:59999", "00000010", PD_HTTP_REJECT_NONE, 10 },
        { "127.0.0.1:", "1", PD_HTTP_REJECT_HOST, 0 },
        { "127.0.0.1:a", "1", PD_HTTP_REJECT_HOST, 0 },
        { "127.0.0.1:1:2", "1", PD_HTTP_REJECT_HOST, 0 },
        { ":80", "1", PD_HTTP_REJECT_HOST, 0 },
        { "a_b.example:80", "1", PD_HTTP_REJECT_NONE, 1 },
        { "a/b", "1", PD_HTTP_REJECT_HOST, 0 },
        { "a b", "1", PD_HTTP_REJECT_HOST, 0 },
        { "0123456789abcdef", "99999999", PD_HTTP_REJECT_NONE, 99999999 },
        { "0123456789abcdefg", "100000000", PD_HTTP_REJECT_NONE, 100000000 },
        { "0123456789abcd:8", "7", PD_HTTP_REJECT_NONE, 7 },
        { "[::1]:80", "1", PD_HTTP_REJECT_NONE, 1 },
        { "a", "", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
        { "a", "1a", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
        { "a", "/1", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
        { "a", "1:", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
        { "a", "+1", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
        { "a", "1 1", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
        { "a", "\x80", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
        { "a", "1234567\xb0", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
        { "a", "999999999999999999", PD_HTTP_REJECT_NONE, 999999999999999999u },
        { "a", "1000000000000000000", PD_HTTP_REJECT_CONTENT_LENGTH, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) * 2; i++) {
        char msg[256];
        int n = snprintf(msg, sizeof(msg), "POST /v1/chat HTTP/1.1\r\nHost: %s\r\nContent-Length: %s\r\n\r\n",
                         rows[i / 2].host, rows[i / 2].length);
        struct pd_http1 p;
        pd_http1_init(&p, false, LIMIT);
        (void)feed(&p, msg, (size_t)n, i % 2 == 0 ? (size_t)n : 1);
        if (p.reject != rows[i / 2].reject ||
            (p.reject == PD_HTTP_REJECT_NONE && p.head.length != rows[i / 2].value))
            fail_msg("row %zu: %s, %llu", i / 2, pd_http_reject_info(p.reject)->label,
                     (unsigned long long)p.head.length);
        pd_http1_fini(&p);
    }
}

/* A name that differs in one byte from one that means something is another name. */
static void test_names(void **state)
{
    static const char *const names[] = { "te", "host", "date", "expect", "server", "trailer", "upgrade",
        "connection", "keep-alive", "content-type", "x-request-id", "content-length", "content-encoding",
        "proxy-connection", "transfer-encoding", "proxy-authenticate" };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct pd_http1_found f = { 0 }, none = { 0 };
        size_t n = strlen(names[i]);
        char name[32];
        memcpy(name, names[i], n);
        assert_int_not_equal(pd_http1_note(name, n, 0, &f), PD_HTTP1_UNKNOWN);
        memset(&f, 0, sizeof(f));
        for (size_t k = 0; k < n; k++) {
            name[k] ^= 1;
            assert_int_equal(pd_http1_note(name, n, 0, &f), PD_HTTP1_UNKNOWN);
            name[k] ^= 1;
        }
        assert_memory_equal(&f, &none, sizeof(f));
    }
}

/* Two bodies' lengths, one of them under a name that only looks like the other framing. */
static void test_almost_framing(void **state)
{
    static const char msg[] = "POST /a HTTP/1.1\r\nHost: a\r\nTransferXEncoding: chunked\r\nContent-Length: 1\r\n\r\nx";
    struct pd_http1 p;
    struct pd_str body;
    size_t used;

    (void)state;
    pd_http1_init(&p, false, LIMIT);
    assert_int_equal(pd_http1_next(&p, msg, sizeof(msg) - 1, &used, &body), PD_HTTP1_HEAD_DONE);
    assert_int_equal(pd_http1_next(&p, msg + used, sizeof(msg) - 1 - used, &used, &body), PD_HTTP1_BODY);
    assert_true(pd_str_is(body, "x"));
    pd_http1_fini(&p);
}

#if defined(__SSE2__)
static void test_lines(void **state)
{
    static const struct {
        const char *headers;
        bool has_lines;
        uint64_t lines;
    } rows[] = {
        { "Content-Type: text/plain\r\nX-A: 1\r\n", true, 3 },
        { "Date: now\r\nX-A: 1\r\nServer: x\r\nx-b: 2\r\n", true, 10 },
        { "X-Request-Id: 1\r\nKeep-Alive: 5\r\nTE: x\r\nUpgrade: x\r\nTrailer: x\r\n", true, 0 },
        { "Proxy-Connection: x\r\nProxy-Authenticate: x\r\nx-a: 1\r\n", true, 4 },
        { "Connection: keep-alive\r\nx-a: 1\r\n", true, 2 },
        { "Connection: Close\r\nx-a: 1\r\n", true, 2 },
        { "Connection: close, x-a\r\nx-a: 1\r\n", false, 0 },
        { "Connection: x-a\r\nx-a: 1\r\n", false, 0 },
        /* One that is written another way may not go on; one that does not go on may be. */
        { "x-a:1\r\nx-b: 1\r\n", false, 0 },
        { "x-a: 1 \r\nx-b: 1\r\n", false, 0 },
        { "x-a:  1\r\nx-b: 1\r\n", false, 0 },
        { "x-a: \r\nx-b: 1\r\n", false, 0 },
        { "x_a: 1\r\nx-b: 1\r\n", false, 0 },
        { "x-a: 1\t2\r\nx-b: 1\r\n", false, 0 },
        { "Date:x\r\nx-b: 1\r\n", true, 2 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char msg[512];
        int n = snprintf(msg, sizeof(msg), "HTTP/1.1 200 OK\r\n%sContent-Length: 0\r\n\r\n", rows[i].headers);
        struct pd_http1 p;
        pd_http1_init(&p, true, LIMIT);
        assert_int_equal(feed(&p, msg, (size_t)n, (size_t)n), PD_HTTP1_HEAD_DONE);
        if (p.head.has_lines != rows[i].has_lines || (rows[i].has_lines && p.head.lines != rows[i].lines))
            fail_msg("row %zu: %d, lines %llx", i, p.head.has_lines, (unsigned long long)p.head.lines);
        pd_http1_forget_head(&p);
        assert_false(p.head.has_lines);
        pd_http1_fini(&p);
    }
}
#endif

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_shapes),
    cmocka_unit_test(test_numbers),
#if defined(__SSE2__)
    cmocka_unit_test(test_names),
    cmocka_unit_test(test_almost_framing),
    cmocka_unit_test(test_lines),
#endif
};

PD_UNIT_MAIN(tests)
