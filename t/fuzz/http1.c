/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 messages: however the bytes are cut, the same heads, bodies, ends
 * and refusals come out.
 *
 * Input: flags, seed of the cuts, then the bytes of a connection. */
#include "fuzz.h"

#include "base/buf.h"
#include "net/http1.h"

enum { RESPONSE = 1, NO_BODY = 2, SMALL = 4 };

struct run {
    struct pd_http1 parser;
    struct pd_buf log;          /* what came out, in words */
    struct pd_buf body;
    uint8_t flags;
    bool over;
};

static void put(struct run *r, struct pd_str s)
{
    pd_buf_appendf(&r->log, "%zu ", s.n);
    pd_buf_append_str(&r->log, s);
    pd_buf_append_char(&r->log, '\n');
}

static void on_head(struct run *r)
{
    const struct pd_http_head *h = &r->parser.head;
    pd_buf_appendf(&r->log, "head %d status %u minor %u keep %d chunked %d length %d %llu close %d expect %d\n",
                   (int)h->method, h->status, h->minor, h->keep_alive, h->is_chunked, h->has_length,
                   (unsigned long long)(h->has_length ? h->length : 0), h->until_close, h->expect_continue);
    put(r, h->method_text);
    put(r, h->target);
    put(r, h->path);
    put(r, h->query);
    put(r, h->host);
    put(r, h->reason);
    FUZZ_CHECK(h->minor <= 1 && h->n_headers <= PD_HTTP1_HEADERS);
    FUZZ_CHECK(!(h->is_chunked && h->has_length));
    if (!(r->flags & RESPONSE)) {
        FUZZ_CHECK(h->method_text.n > 0 && h->target.n > 0 && !h->until_close);
        FUZZ_CHECK(h->path.n > 0 && (h->path.p[0] == '/' || h->path.p[0] == '*'));
        FUZZ_CHECK(memchr(h->path.p, '\0', h->path.n) == NULL);
    } else {
        FUZZ_CHECK(h->status >= 100 && h->status <= 999);
    }
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
        pd_buf_appendf(&r->log, "bad %s\n", info->label);
        r->over = true;
    }
}

/* Feeds one cut. */
static void feed(struct run *r, const char *p, size_t n)
{
    char *copy = malloc(n + (n == 0));
    size_t off = 0, idle = 0;
    FUZZ_CHECK(copy != NULL);
    if (n > 0)
        memcpy(copy, p, n);
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
    free(copy);
}

/* cut 0: everything at once, 1: each byte alone, else by a generator; direct:
 * bodies with known length are taken past the parser. */
static void run(struct run *r, uint8_t flags, const char *p, size_t n, uint32_t cut, bool direct)
{
    memset(r, 0, sizeof *r);
    r->flags = flags;
    pd_buf_init(&r->log, 1 << 24);
    pd_buf_init(&r->body, 1 << 24);
    pd_http1_init(&r->parser, (flags & RESPONSE) != 0, flags & SMALL ? 32 : 1 << 20);
    if (flags & NO_BODY)
        pd_http1_expect_no_body(&r->parser);
    for (size_t off = 0; off < n && !r->over;) {
        size_t step = cut == 0 ? n - off : 1;
        if (cut > 1) {
            cut = cut * 1664525u + 1013904223u;
            step = 1 + (cut >> 24) % 37;
            cut |= 2;
        }
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
}

static void run_end(struct run *r)
{
    pd_http1_fini(&r->parser);
    pd_buf_fini(&r->log);
    pd_buf_fini(&r->body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    static struct run whole, other;
    uint8_t flags = fuzz_u8(&in);
    uint32_t seed = fuzz_u8(&in);
    const char *p = (const char *)in.p;
    run(&whole, flags, p, in.n, 0, false);
    for (uint32_t i = 0; i < 4; i++) {
        run(&other, flags, p, in.n, i == 0 ? 1 : seed * 2 + 2, i >= 2);
        if (!fuzz_same(pd_buf_str(&whole.log), pd_buf_str(&other.log))) {
            fprintf(stderr, "whole:\n%.*s\ncut %u:\n%.*s\n", (int)whole.log.n, whole.log.p, i,
                    (int)other.log.n, other.log.p);
            FUZZ_CHECK(!"cuts change what comes out");
        }
        run_end(&other);
        if (i == 1)
            seed = seed * 7 + 3;
    }
    run_end(&whole);
    return 0;
}
