/* SPDX-License-Identifier: Apache-2.0 */
/* A head that is there as a whole and holds nothing unusual, as nearly all are: it is
 * copied, and one pass finds its lines, their names and values, and that no control byte
 * is in them.
 *
 * Everything else is left to the reader of single lines, which also says why a head
 * is refused; both come to the same head for what this one takes.  Behind the copy stand
 * zeros, which end every search: nothing here compares with an end. */
#include "net/http1_int.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#if defined(__SSE2__)

#include <emmintrin.h>

#define WHOLE_HEADERS 62u       /* each has a bit */
#define FIRST_HEADERS 16u
#define FIRST_WINDOW 192u
#define VECTOR 16u
#define BEHIND (2 * VECTOR)     /* zeros behind a copy */

/* The first line. */
struct first {
    size_t n;                   /* CRLF left out */
    bool is_plain;              /* the rest is known */
    enum pd_http_method method;
    size_t method_n, target_n;
};

/* What the pass has found. */
struct whole {
    size_t total;
    size_t n_headers;
    uint64_t hops;              /* headers that are not passed on */
    uint64_t odd;               /* lines that are not "name: value" */
    bool is_full;               /* there are more headers than room for them */
    struct pd_http1_found found;
};

static inline __m128i load(const char *p)
{
    __m128i v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load8(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline __m128i equal(__m128i v, char c)
{
    return _mm_cmpeq_epi8(v, _mm_set1_epi8(c));
}

static inline uint32_t mask_of(__m128i v)
{
    return (uint32_t)_mm_movemask_epi8(v);
}

static inline bool is_line_end(const char *p)
{
    return memcmp(p, "\r\n", 2) == 0;
}

/* The next byte below a blank, or DEL. */
static inline char *find_control(char *p)
{
    for (;; p += VECTOR) {
        __m128i v = load(p);
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
        uint32_t mask = mask_of(_mm_or_si128(low, equal(v, 0x7f)));
        if (mask != 0)
            return p + __builtin_ctz(mask);
    }
}

/* A name that is not known as it stands: finds its end, and makes it lower case, which
 * may make it known.  Returns its bytes, of which only letters, digits and dashes are
 * taken; 0: it is another one. */
static PD_NOINLINE size_t take_name(char *p, size_t at, struct pd_http1_found *f,
                                    enum pd_http1_known *known)
{
    bool change;
    size_t n = pd_http1_lower_plain(p, &change);

    if (p[n] != ':' || n > PD_HTTP1_NAME)
        return 0;
    if (change || n >= VECTOR)
        *known = pd_http1_note(p, n, at, f);
    return n;
}

/* By a call: where its bound is known the compiler writes a string instruction out, whose
 * start takes longer than a whole head. */
static inline void copy(char *to, const char *from, size_t n)
{
    __asm__("" : "+r"(n));
    memcpy(to, from, n);
}

/* "POST /path HTTP/1.1", or with GET, whose path needs no closer look. */
static inline bool is_plain_request(const char *p, struct first *first)
{
    const __m128i slash = _mm_set1_epi8('/');
    size_t at;

    if (memcmp(p, "POST /", 6) == 0) {
        first->method = PD_HTTP_POST;
        at = 5;
    } else if (memcmp(p, "GET /", 5) == 0) {
        first->method = PD_HTTP_GET;
        at = 4;
    } else {
        return false;
    }
    /* Behind the slash: what ends a target, and what is in one that is not plain, as a slash
     * behind a slash. */
    for (size_t from = at + 1;; from += VECTOR) {
        __m128i v = load(p + from), before = load(p + from - 1);
        /* Bytes from 0x80 are negative, so one signed test finds them and those up to a blank. */
        __m128i a = _mm_or_si128(_mm_cmplt_epi8(v, _mm_set1_epi8('!')), equal(v, '#'));
        __m128i b = _mm_or_si128(equal(v, '%'), equal(v, '.'));
        __m128i c = _mm_or_si128(equal(v, '?'), equal(v, '\\'));
        __m128i d = _mm_and_si128(_mm_cmpeq_epi8(v, slash), _mm_cmpeq_epi8(before, slash));
        a = _mm_or_si128(a, equal(v, 0x7f));
        uint32_t mask = mask_of(_mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d)));
        if (mask == 0)
            continue;
        from += (size_t)__builtin_ctz(mask);
        first->method_n = at - 1;
        first->target_n = from - at;
        first->n = from + 9;
        return p[from] == ' ' && load8(p + from + 1) == load8("HTTP/1.1") && is_line_end(p + from + 9);
    }
}

static inline bool is_plain_status(const char *p, struct first *first)
{
    first->n = 15;
    return load8(p) == load8("HTTP/1.1") && load8(p + 8) == load8(" 200 OK\r") && p[16] == '\n';
}

/* Whether the first line ends; fills `first`. */
static inline bool find_first(const struct pd_http1 *p, char *text, struct first *first)
{
    first->is_plain = p->is_response ? is_plain_status(text, first) : is_plain_request(text, first);
    if (first->is_plain)
        return true;
    first->n = (size_t)(find_control(text) - text);
    return is_line_end(text + first->n);
}

/* The headers from `line` on; false: something is unusual, or not there. */
static inline bool find_headers(struct pd_http1 *p, char *text, char *line, struct whole *w)
{
    struct pd_http_header *h = p->headers;
    uint64_t bit = 1;
    size_t i;

    w->odd = w->hops = 0;
    memset(&w->found, 0, sizeof w->found);
    for (i = 0; !is_line_end(line); i++, h++, bit <<= 1) {
        size_t n = (size_t)__builtin_ctz(mask_of(equal(load(line), ':')) | 1u << VECTOR);
        enum pd_http1_known known;
        char *from, *to;

        if (i == p->cap_headers) {
            w->is_full = true;
            return false;
        }
        known = pd_http1_note(line, n, i, &w->found);
        if (known == PD_HTTP1_UNKNOWN && (n = take_name(line, i, &w->found, &known)) == 0)
            return false;
        from = line + n + 1;
        to = find_control(from);
        if (!is_line_end(to))
            return false;
        h->name = (struct pd_str){ line, n };
        line = to + 2;
        if (from[0] == ' ' && from[1] != ' ' && to[-1] != ' ') {
            from++;
        } else {
            w->odd |= bit;
            for (; *from == ' '; from++)
                ;
            for (; to > from && to[-1] == ' '; to--)
                ;
        }
        h->value = (struct pd_str){ from, (size_t)(to - from) };
        if (known < PD_HTTP1_HOP)
            continue;
        w->hops |= bit;
        if (known == PD_HTTP1_CONNECTION)
            pd_http1_note_connection(h->value, &w->found);
    }
    w->total = (size_t)(line + 2 - text);
    w->n_headers = i;
    return true;
}

static bool make_room(struct pd_http1 *p, size_t bytes, size_t n_headers)
{
    if (pd_buf_reserve(&p->text, bytes) != PD_OK)
        return false;
    if (n_headers > p->cap_headers) {
        struct pd_http_header *more = pd_realloc_array(p->headers, n_headers, sizeof(*more));
        if (more == NULL)
            return false;
        p->headers = more;
        p->cap_headers = n_headers;
    }
    return true;
}

/* Makes room for a head that did not fit; false: that was not the reason.  n: bytes that
 * are there. */
static PD_NOINLINE bool make_more_room(struct pd_http1 *p, bool is_full, size_t n)
{
    if (is_full)
        return p->cap_headers < WHOLE_HEADERS &&
               make_room(p, 0, PD_MIN(2 * p->cap_headers, (size_t)WHOLE_HEADERS));
    if (p->window >= n ||
        pd_str_find(pd_str_of(p->text.p, p->window), PD_STR("\r\n\r\n")) != PD_STR_NPOS)
        return false;
    p->window *= 2;
    return make_room(p, p->window + BEHIND, 0);
}

static PD_NOINLINE bool make_first_room(struct pd_http1 *p)
{
    p->window = PD_MAX(p->window, FIRST_WINDOW);
    return make_room(p, p->window + BEHIND, FIRST_HEADERS);
}

static inline void put_first(struct pd_http1 *p, const struct first *first)
{
    struct pd_http_head *h = &p->head;
    char *text = p->text.p;

    h->minor = 1;
    if (p->is_response) {
        h->status = 200;
        h->reason = (struct pd_str){ text + 13, 2 };
        return;
    }
    h->method = first->method;
    h->method_text = (struct pd_str){ text, first->method_n };
    h->path = h->target = (struct pd_str){ text + first->method_n + 1, first->target_n };
}

static inline void put_lines(struct pd_http1 *p, const struct whole *w)
{
    p->head.has_lines = (w->found.options & PD_HTTP1_OPTIONS) == 0 && (w->odd & ~w->hops) == 0;
    p->head.lines = ~w->hops & (((uint64_t)1 << w->n_headers) - 1);
}

/* The text and all headers are known; false: the first line is unusual. */
static inline bool finish(struct pd_http1 *p, const struct first *first, const struct whole *w,
                          enum pd_http_reject *reject)
{
    if (first->is_plain) {
        put_first(p, first);
    } else {
        *reject = p->is_response ? pd_http1_status_line(p, 0, first->n)
                                 : pd_http1_request_line(p, 0, first->n);
        if (*reject != PD_HTTP_REJECT_NONE) {
            memset(&p->head, 0, sizeof p->head);
            return false;
        }
    }
    p->text.n = w->total;
    p->n_headers = w->n_headers;
    if (p->is_response)
        put_lines(p, w);
    *reject = pd_http1_decide(p, &w->found, first->is_plain);
    return true;
}

enum pd_http1_event pd_http1_next_whole(struct pd_http1 *p, const char *data, size_t n, size_t *used)
{
    enum pd_http_reject reject;
    size_t most = PD_MIN(n, (size_t)PD_HTTP1_LINE);
    struct first first;
    struct whole w;

    if ((p->text.cap < p->window + BEHIND || p->cap_headers == 0) && !make_first_room(p))
        return pd_http1_next_lines(p, data, n, used);
    for (;;) {
        char *text = p->text.p;
        size_t copied = PD_MIN(most, p->window);
        copy(text, data, copied);
        memset(text + copied, 0, BEHIND);
        w.is_full = false;
        if (!find_first(p, text, &first) || !find_headers(p, text, text + first.n + 2, &w)) {
            if (!make_more_room(p, w.is_full, most))
                return pd_http1_next_lines(p, data, n, used);
        } else if (!first.is_plain && p->text.cap < w.total + first.n + BEHIND) {
            /* Behind the text is room for a decoded path. */
            if (!make_room(p, w.total + first.n + BEHIND, 0))
                return pd_http1_next_lines(p, data, n, used);
        } else {
            break;
        }
    }
    if (!finish(p, &first, &w, &reject))
        return pd_http1_next_lines(p, data, n, used);
    *used = w.total;
    if (reject != PD_HTTP_REJECT_NONE)
        return pd_http1_refuse(p, reject);
    p->state = PD_HTTP1_S_READY;
    return PD_HTTP1_HEAD_DONE;
}

#else

enum pd_http1_event pd_http1_next_whole(struct pd_http1 *p, const char *data, size_t n, size_t *used)
{
    return pd_http1_next_lines(p, data, n, used);
}

#endif
