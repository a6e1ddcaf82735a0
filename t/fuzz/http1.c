/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 messages: however the bytes are cut, the same heads, bodies, ends
 * and refusals come out.
 *
 * Input: flags and way of cutting, seed of the cuts, then the bytes of a
 * connection. */
#include "fuzz.h"

#include "base/buf.h"
#include "base/str.h"
#include "net/http1_int.h"

enum { RESPONSE = 1, NO_BODY = 2, SMALL = 4 };
enum { WHOLE, BYTES, CUTS, CUTS_DIRECT, BYTES_DIRECT, WAYS };

struct run {
    struct pd_http1 parser;
    struct pd_buf log;          /* what came out */
    struct pd_buf body;
    uint8_t flags;
    bool over;
};

static void put(struct run *r, struct pd_str s)
{
    pd_buf_append(&r->log, &s.n, sizeof s.n);
    pd_buf_append_str(&r->log, s);
}

/* Lines that may go on as they stand are what name and value say, without a gap. */
static void check_lines(const struct pd_http_head *h)
{
    FUZZ_CHECK(h->n_headers < 64 && h->lines >> h->n_headers == 0);
    for (size_t i = 0; i < h->n_headers; i++) {
        struct pd_str name = h->headers[i].name, value = h->headers[i].value;
        if ((h->lines >> i & 1) == 0)
            continue;
        FUZZ_CHECK(name.p[name.n] == ':' && name.p[name.n + 1] == ' ' && value.p == name.p + name.n + 2);
        FUZZ_CHECK(memcmp(value.p + value.n, "\r\n", 2) == 0);
        if ((h->lines >> i & 2) != 0)
            FUZZ_CHECK(h->headers[i + 1].name.p == value.p + value.n + 2);
        FUZZ_CHECK(!pd_str_is(name, "connection") && !pd_str_is(name, "transfer-encoding") &&
                   !pd_str_is(name, "content-length") && !pd_str_is(name, "upgrade") && !pd_str_is(name, "te"));
    }
}

static void on_head(struct run *r)
{
    const struct pd_http_head *h = &r->parser.head;
    const uint64_t facts[] = { (uint64_t)h->method, h->status, h->minor, h->keep_alive, h->is_chunked,
                               h->has_length, h->has_length ? h->length : 0, h->until_close,
                               h->expect_continue };
    pd_buf_append_cstr(&r->log, "head ");
    pd_buf_append(&r->log, facts, sizeof facts);
    put(r, h->method_text);
    put(r, h->target);
    put(r, h->path);
    put(r, h->query);
    put(r, h->host);
    put(r, h->reason);
    FUZZ_CHECK(h->minor <= 1 && h->n_headers <= PD_HTTP1_HEADERS);
    FUZZ_CHECK(!(h->is_chunked && h->has_length));
    /* Another reader sees the same message. */
    FUZZ_CHECK(pd_http1_second_opinion(&r->parser) == PD_HTTP_REJECT_NONE);
    if (!(r->flags & RESPONSE)) {
        FUZZ_CHECK(h->method_text.n > 0 && h->target.n > 0 && !h->until_close);
        FUZZ_CHECK(h->path.n > 0 && (h->path.p[0] == '/' || h->path.p[0] == '*'));
        FUZZ_CHECK(memchr(h->path.p, '\0', h->path.n) == NULL);
    } else {
        FUZZ_CHECK(h->status >= 100 && h->status <= 999);
    }
    if (h->has_lines)
        check_lines(h);
    for (size_t i = 0; i < h->n_headers; i++) {
        struct pd_str name = h->headers[i].name;
        FUZZ_CHECK(name.n > 0 && name.n <= PD_HTTP1_NAME && pd_http_is_value(h->headers[i].value));
        for (size_t k = 0; k < name.n; k++)
            FUZZ_CHECK(name.p[k] > ' ' && name.p[k] < 127 && name.p[k] != ':' &&
                       !(name.p[k] >= 'A' && name.p[k] <= 'Z'));
        put(r, name);
        put(r, h->headers[i].value);
    }
}

static void flush_body(struct run *r)
{
    pd_buf_append_cstr(&r->log, "body ");
    put(r, pd_buf_str(&r->body));
    pd_buf_clear(&r->body);
}

static void tell(struct run *r, enum pd_http1_event event)
{
    if (event == PD_HTTP1_HEAD_DONE) {
        on_head(r);
    } else if (event == PD_HTTP1_DONE) {
        flush_body(r);
        pd_buf_append_cstr(&r->log, "done\n");
        pd_http1_reset(&r->parser);
        if (r->flags & NO_BODY)
            pd_http1_expect_no_body(&r->parser);
    } else if (event == PD_HTTP1_BAD) {
        /* How much of a too large body was given out before depends on the cuts. */
        if (r->parser.reject == PD_HTTP_REJECT_BODY_SIZE)
            pd_buf_clear(&r->body);
        flush_body(r);
        const struct pd_http_reject_info *info = pd_http_reject_info(r->parser.reject);
        FUZZ_CHECK(r->parser.reject != PD_HTTP_REJECT_NONE && info->text[0] != '\0');
        FUZZ_CHECK((r->flags & RESPONSE) || info->status >= 400 || r->parser.reject == PD_HTTP_REJECT_TRUNCATED);
        pd_buf_append_cstr(&r->log, "bad ");
        pd_buf_append_cstr(&r->log, info->label);
        r->over = true;
    }
}

/* Feeds one cut. */
static void feed(struct run *r, const char *p, size_t n)
{
    char *copy = fuzz_lend(p, n);
    size_t off = 0, idle = 0;
    while (!r->over) {
        size_t used = 0;
        struct pd_str body = { NULL, 0 };
        enum pd_http1_event event = pd_http1_next(&r->parser, copy + off, n - off, &used, &body);
        FUZZ_CHECK(used <= n - off);
        if (event == PD_HTTP1_BODY) {
            FUZZ_CHECK(body.n > 0 && fuzz_inside(body, (struct pd_str){ copy + off, used }));
            pd_buf_append_str(&r->body, body);
        }
        off += used;
        tell(r, event);
        if (event == PD_HTTP1_MORE) {
            FUZZ_CHECK(off == n);
            break;
        }
        idle = used > 0 ? 0 : idle + 1;
        FUZZ_CHECK(idle < 8);
        if (event == PD_HTTP1_DONE && off == n)
            break;
    }
    fuzz_back(copy, n);
}

/* Everything at once, each byte alone, or cut by a generator; direct: bodies
 * with known length are taken past the parser. */
static void run(struct run *r, uint8_t flags, const char *p, size_t n, int way, uint32_t seed)
{
    bool direct = way == CUTS_DIRECT || way == BYTES_DIRECT, bytes = way == BYTES || way == BYTES_DIRECT;
    r->flags = flags;
    r->over = false;
    if (r->log.limit == 0) {
        pd_buf_init(&r->log, 1 << 24);
        pd_buf_init(&r->body, 1 << 24);
    }
    pd_buf_clear(&r->log);
    pd_buf_clear(&r->body);
    pd_http1_init(&r->parser, (flags & RESPONSE) != 0, flags & SMALL ? 32 : 1 << 20);
    if (flags & NO_BODY)
        pd_http1_expect_no_body(&r->parser);
    for (size_t off = 0; off < n && !r->over;) {
        size_t step = way == WHOLE ? n : bytes ? 1 : 1 + fuzz_next(&seed) % 37;
        step = step < n - off ? step : n - off;
        uint64_t known = direct ? pd_http1_direct(&r->parser) : 0;
        if (known > 0) {
            step = known < step ? (size_t)known : step;
            pd_buf_append(&r->body, p + off, step);
            pd_http1_direct_take(&r->parser, step);
            if (known == step)
                feed(r, "", 0);
        } else {
            feed(r, p + off, step);
        }
        off += step;
    }
    if (!r->over) {
        enum pd_http1_event event = pd_http1_end_of_input(&r->parser);
        FUZZ_CHECK(event == PD_HTTP1_DONE || event == PD_HTTP1_MORE || event == PD_HTTP1_BAD);
        tell(r, event);
    }
    FUZZ_CHECK(r->log.status == PD_OK && r->body.status == PD_OK);
    pd_http1_fini(&r->parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    static struct run whole, other;
    uint8_t flags = fuzz_u8(&in);
    uint32_t seed = fuzz_u8(&in);
    const char *p = (const char *)in.p;
    int chosen = 1 + (flags >> 3) % (WAYS - 1);
    run(&whole, flags, p, in.n, WHOLE, 0);
    for (int way = 1; way < WAYS; way++) {
        if (way != chosen && !fuzz_all_ways())
            continue;
        run(&other, flags, p, in.n, way, seed);
        if (!fuzz_same(pd_buf_str(&whole.log), pd_buf_str(&other.log))) {
            fprintf(stderr, "whole:\n%.*s\nway %d:\n%.*s\n", (int)whole.log.n, whole.log.p, way,
                    (int)other.log.n, other.log.p);
            FUZZ_CHECK(!"cuts change what comes out");
        }
    }
    return 0;
}
