/* SPDX-License-Identifier: Apache-2.0 */
/* The message parser: collects the lines of a head, hands each to the rules as
 * soon as it is whole, and cuts bodies into spans.
 *
 * Invariant: the head is copied once, into p->text; until the head is told,
 * spans in p->head and p->headers are offsets (p holds an offset as a pointer),
 * because the text still moves.  Body bytes are never copied. */
#include "net/http1_int.h"

#include "base/mem.h"

#include <string.h>

#define KEEP_TEXT (16 * 1024)
#define KEEP_HEADERS 32
/* The decoded path stands behind the head. */
#define TEXT_LIMIT (PD_HTTP1_HEAD + PD_HTTP1_LINE + PD_HTTP1_SLACK + 16)

void pd_http1_init(struct pd_http1 *p, bool is_response, uint64_t body_limit)
{
    memset(p, 0, sizeof(*p));
    p->is_response = is_response;
    p->body_limit = body_limit;
    pd_buf_init(&p->text, TEXT_LIMIT);
}

void pd_http1_fini(struct pd_http1 *p)
{
    pd_buf_fini(&p->text);
    pd_free(p->headers);
    p->headers = NULL;
    p->cap_headers = 0;
}

/* Gives back what long heads have needed. */
static PD_NOINLINE void shrink(struct pd_http1 *p)
{
    if (p->text.cap > KEEP_TEXT)
        pd_buf_fini(&p->text);
    if (p->cap_headers > KEEP_HEADERS) {
        pd_free(p->headers);
        p->headers = NULL;
        p->cap_headers = 0;
    }
}

void pd_http1_reset(struct pd_http1 *p)
{
    if (p->text.cap > KEEP_TEXT || p->cap_headers > KEEP_HEADERS)
        shrink(p);
    p->text.p = p->text.base;
    p->text.n = 0;
    p->text.status = PD_OK;
    pd_zero(p, offsetof(struct pd_http1, body_limit));
}

void pd_http1_forget_head(struct pd_http1 *p)
{
    struct pd_http_head *h = &p->head;

    if (p->state == PD_HTTP1_S_HEAD)
        return;
    pd_http1_fini(p);
    pd_buf_init(&p->text, TEXT_LIMIT);
    p->n_headers = 0;
    h->headers = NULL;
    h->n_headers = 0;
    h->has_lines = false;
    h->method_text = h->target = h->path = h->query = h->host = h->reason = (struct pd_str){ "", 0 };
}

void pd_http1_expect_no_body(struct pd_http1 *p)
{
    p->no_body = true;
}

enum pd_http1_event pd_http1_refuse(struct pd_http1 *p, enum pd_http_reject reject)
{
    p->reject = reject;
    p->state = PD_HTTP1_S_BAD;
    return PD_HTTP1_BAD;
}

struct pd_str pd_http1_id(const struct pd_http1 *p)
{
    return p->id_at == 0 || p->id_at > p->n_headers ? (struct pd_str){ NULL, 0 }
                                                    : p->headers[p->id_at - 1].value;
}

bool pd_http1_is_inside(const struct pd_http1 *p)
{
    if (p->state == PD_HTTP1_S_HEAD)
        return p->text.n > 0 || p->saw_empty_line;
    return p->state != PD_HTTP1_S_DONE;
}

/* A whole line stands at p->line_start, its end at the end of the text. */
static enum pd_http_reject take_line(struct pd_http1 *p, bool *is_last)
{
    size_t off = p->line_start;
    size_t n = p->text.n - off;
    const char *line = p->text.p + off;

    *is_last = false;
    if (n < 2 || line[n - 2] != '\r')
        return PD_HTTP_REJECT_LINE_END;
    n -= 2;
    p->line_start = p->text.n;
    if (n == 0) {
        if (off == 0) {
            if (p->saw_empty_line || p->is_response)
                return p->is_response ? PD_HTTP_REJECT_STATUS_LINE
                                      : PD_HTTP_REJECT_REQUEST_LINE;
            p->saw_empty_line = true;
            pd_buf_clear(&p->text);
            p->line_start = 0;
            return PD_HTTP_REJECT_NONE;
        }
        *is_last = true;
        return pd_http1_finish_head(p);
    }
    if (off > 0)
        return pd_http1_header_line(p, off, n);
    return p->is_response ? pd_http1_status_line(p, off, n) : pd_http1_request_line(p, off, n);
}

static enum pd_http_reject too_long(const struct pd_http1 *p, size_t line)
{
    if (line > PD_HTTP1_LINE + 2)
        return p->line_start == 0 ? (p->is_response ? PD_HTTP_REJECT_STATUS_LINE
                                                    : PD_HTTP_REJECT_URI_LENGTH)
                                  : PD_HTTP_REJECT_HEADERS_SIZE;
    if (p->text.n > PD_HTTP1_HEAD)
        return PD_HTTP_REJECT_HEADERS_SIZE;
    return PD_HTTP_REJECT_NONE;
}

/* Another protocol on this port, such as TLS, is told at its first byte. */
static bool is_first_byte(char c)
{
    return pd_http1_is((unsigned char)c, PD_HTTP1_TOKEN) || c == '\r' || c == '\n';
}

static enum pd_http1_event refuse_first_byte(struct pd_http1 *p)
{
    return pd_http1_refuse(p, p->is_response ? PD_HTTP_REJECT_STATUS_LINE
                                             : PD_HTTP_REJECT_REQUEST_LINE);
}

enum pd_http1_event pd_http1_next_lines(struct pd_http1 *p, const char *data, size_t n, size_t *used)
{
    size_t at = 0;

    while (at < n) {
        const char *lf = memchr(data + at, '\n', n - at);
        size_t piece = lf != NULL ? (size_t)(lf - data) + 1 - at : n - at;
        size_t line = p->text.n - p->line_start + piece;
        /* More of one line than allowed is not even copied. */
        size_t take = line > PD_HTTP1_LINE + 3 ? PD_HTTP1_LINE + 3 - (line - piece) : piece;
        enum pd_http_reject reject;
        bool is_last;

        if (p->text.n + take > PD_HTTP1_HEAD + 1)
            take = PD_HTTP1_HEAD + 1 - p->text.n;
        if (pd_buf_reserve(&p->text, take + PD_HTTP1_SLACK) != PD_OK ||
            pd_buf_append(&p->text, data + at, take) != PD_OK)
            return pd_http1_refuse(p, PD_HTTP_REJECT_MEMORY);
        at += piece;
        *used = at;
        if (!is_first_byte(p->text.p[0]))
            return refuse_first_byte(p);
        reject = too_long(p, line);
        if (reject != PD_HTTP_REJECT_NONE)
            return pd_http1_refuse(p, reject);
        if (lf == NULL)
            break;
        reject = take_line(p, &is_last);
        if (reject != PD_HTTP_REJECT_NONE)
            return pd_http1_refuse(p, reject);
        if (is_last) {
            p->state = PD_HTTP1_S_READY;
            return PD_HTTP1_HEAD_DONE;
        }
    }
    return PD_HTTP1_MORE;
}

/* A span of a body that is told apart by its length, or lasts until the close. */
static inline enum pd_http1_event next_plain(struct pd_http1 *p, const char *data, size_t n,
                                             size_t *used, struct pd_str *body)
{
    size_t take = n;

    *used = 0;
    *body = (struct pd_str){ data, 0 };
    if (n == 0)
        return PD_HTTP1_MORE;
    if (p->state == PD_HTTP1_S_LENGTH && p->left < take)
        take = (size_t)p->left;
    if (take > p->body_limit - p->body_bytes)
        return pd_http1_refuse(p, PD_HTTP_REJECT_BODY_SIZE);
    p->body_bytes += take;
    *used = take;
    body->n = take;
    if (p->state == PD_HTTP1_S_LENGTH) {
        p->left -= take;
        if (p->left == 0)
            p->state = PD_HTTP1_S_DONE;
    }
    return PD_HTTP1_BODY;
}

static PD_NOINLINE enum pd_http1_event next_chunk(struct pd_http1 *p, const char *data, size_t n,
                                                  size_t *used, struct pd_str *body)
{
    if (p->state == PD_HTTP1_S_CHUNK_SIZE && pd_http1_whole_chunk(p, data, n, used, body))
        return PD_HTTP1_BODY;
    *used = 0;
    *body = (struct pd_str){ data, 0 };
    return pd_http1_chunked_next(p, data, n, used, body);
}

enum pd_http1_event pd_http1_next(struct pd_http1 *p, const char *data, size_t n, size_t *used,
                                  struct pd_str *body)
{
    /* The head was told: its body begins. */
    if (p->state == PD_HTTP1_S_READY) {
        p->state = p->body_state;
        /* A length beyond the limit is refused before its first byte. */
        if (p->state == PD_HTTP1_S_LENGTH && p->left > p->body_limit) {
            *used = 0;
            *body = (struct pd_str){ data, 0 };
            return pd_http1_refuse(p, PD_HTTP_REJECT_BODY_SIZE);
        }
    }
    switch (p->state) {
    case PD_HTTP1_S_HEAD:
        *used = 0;
        *body = (struct pd_str){ data, 0 };
        return p->text.n == 0 && !p->saw_empty_line ? pd_http1_next_whole(p, data, n, used)
                                                    : pd_http1_next_lines(p, data, n, used);
    case PD_HTTP1_S_LENGTH:
    case PD_HTTP1_S_UNTIL_CLOSE:
        return next_plain(p, data, n, used, body);
    case PD_HTTP1_S_DONE:
    case PD_HTTP1_S_BAD:
        *used = 0;
        *body = (struct pd_str){ data, 0 };
        return p->state == PD_HTTP1_S_DONE ? PD_HTTP1_DONE : PD_HTTP1_BAD;
    default:
        return next_chunk(p, data, n, used, body);
    }
}

enum pd_http1_event pd_http1_end_of_input(struct pd_http1 *p)
{
    size_t used;
    struct pd_str body;

    if (p->state == PD_HTTP1_S_READY)
        (void)pd_http1_next(p, "", 0, &used, &body);
    if (p->state == PD_HTTP1_S_UNTIL_CLOSE)
        p->state = PD_HTTP1_S_DONE;
    if (p->state == PD_HTTP1_S_DONE)
        return PD_HTTP1_DONE;
    if (!pd_http1_is_inside(p))
        return PD_HTTP1_MORE;
    if (p->state == PD_HTTP1_S_BAD)
        return PD_HTTP1_BAD;
    return pd_http1_refuse(p, PD_HTTP_REJECT_TRUNCATED);
}

uint64_t pd_http1_direct(const struct pd_http1 *p)
{
    return p->state == PD_HTTP1_S_LENGTH ? p->left : 0;
}

void pd_http1_direct_take(struct pd_http1 *p, uint64_t n)
{
    p->left -= n;
    p->body_bytes += n;
    if (p->left == 0)
        p->state = PD_HTTP1_S_DONE;
}
