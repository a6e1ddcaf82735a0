/* SPDX-License-Identifier: Apache-2.0 */
/* A head that is there as a whole and holds nothing unusual, as nearly all are: one
 * pass finds its lines and that no control byte is in them, a second one the names.
 *
 * Everything else is left to the reader of single lines, which also says why a head
 * is refused; both come to the same head for what this one takes. */
#include "net/http1_int.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#if defined(__SSE2__)

#include <emmintrin.h>

#define WHOLE_LINES 64u

static inline __m128i load(const char *p)
{
    __m128i v;

    memcpy(&v, p, sizeof v);
    return v;
}

/* Bytes below a blank, and DEL, of 32. */
static inline uint32_t control_bytes(const char *p)
{
    const __m128i low = _mm_set1_epi8(0x1f), del = _mm_set1_epi8(0x7f);
    __m128i a = load(p), b = load(p + 16);
    __m128i x = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(a, low), a), _mm_cmpeq_epi8(a, del));
    __m128i y = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(b, low), b), _mm_cmpeq_epi8(b, del));

    return (uint32_t)_mm_movemask_epi8(x) | (uint32_t)_mm_movemask_epi8(y) << 16;
}

/* Ends of the lines of the head at data, behind their LF; returns how many there are.
 * 0: the head goes on behind n, is long, or has a control byte that is no line end. */
static size_t find_lines(const char *data, size_t n, uint16_t ends[WHOLE_LINES])
{
    size_t lines = 0, from = 0;
    uint32_t lf = 0;            /* 1: the next byte ends a line whose CR was seen */

    if (n > PD_HTTP1_LINE)
        n = PD_HTTP1_LINE;
    if (n < 32)
        return 0;
    for (size_t at = 0; at < n; at += 32) {
        /* The last ones are read together with some before them. */
        size_t back = n - at < 32 ? 32 - (n - at) : 0;
        uint32_t mask = control_bytes(data + at - back) >> back & ~lf;
        lf = 0;
        while (mask != 0) {
            size_t bit = (size_t)__builtin_ctz(mask), cr = at + bit;
            if (cr + 1 >= n || data[cr] != '\r' || data[cr + 1] != '\n' || lines == WHOLE_LINES)
                return 0;
            if (cr == from) {
                ends[lines] = (uint16_t)(cr + 2);
                return lines > 0 ? lines + 1 : 0;
            }
            from = cr + 2;
            ends[lines++] = (uint16_t)from;
            mask &= mask - 1;
            if (bit == 31)
                lf = 1;
            else
                mask &= ~(2u << bit);
        }
    }
    return 0;
}

_Static_assert(PD_HTTP1_LINE + 2 <= UINT16_MAX, "ends of lines are kept in 16 bits");

/* Letters, digits and dashes up to the first other byte, of which there is one;
 * *has_upper: whether a letter is upper case.  Reads up to PD_HTTP1_SLACK bytes further. */
static inline size_t name_run(const char *p, bool *has_upper)
{
    uint32_t upper = 0;

    for (size_t at = 0;; at += 16) {
        __m128i v = load(p + at);
        __m128i letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
        __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
        letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
        digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
        __m128i plain = _mm_or_si128(_mm_or_si128(letter, digit), _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
        uint32_t other = ~(uint32_t)_mm_movemask_epi8(plain) & 0xffffu;
        /* Of these bytes only letters of upper case lack the bit of 0x20. */
        uint32_t lacks = ~(uint32_t)_mm_movemask_epi8(_mm_slli_epi16(v, 2)) & 0xffffu;
        if (other != 0) {
            *has_upper = (upper | (lacks & (other - 1) & ~other)) != 0;
            return at + (size_t)__builtin_ctz(other);
        }
        upper |= lacks;
    }
}

/* A header line of n bytes, CRLF left out.  False: it is unusual. */
static inline bool take_header(char *line, size_t n, struct pd_http_header *out)
{
    const char *from, *to = line + n;
    bool has_upper;
    size_t colon = name_run(line, &has_upper);

    if (colon == 0 || line[colon] != ':' || colon > PD_HTTP1_NAME)
        return false;
    if (has_upper)
        for (size_t i = 0; i < colon; i++)
            line[i] = (char)pd_http1_lower[(unsigned char)line[i]];
    for (from = line + colon + 1; from < to && *from == ' '; from++)
        ;
    while (to > from && to[-1] == ' ')
        to--;
    out->name = (struct pd_str){ line, colon };
    out->value = (struct pd_str){ from, (size_t)(to - from) };
    return true;
}

/* Room for the lines and for a decoded path behind them, and for the headers. */
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

bool pd_http1_whole_head(struct pd_http1 *p, const char *data, size_t n, size_t *used,
                         enum pd_http_reject *reject)
{
    uint16_t ends[WHOLE_LINES];
    size_t lines = find_lines(data, n, ends);
    struct pd_http_head *h = &p->head;
    struct pd_http1_found f;
    size_t first, total;
    char *text;

    if (lines == 0)
        return false;
    first = (size_t)ends[0] - 2;
    total = ends[lines - 1];
    if (!make_room(p, total + ends[0] + PD_HTTP1_SLACK, lines - 2))
        return false;
    text = p->text.p;
    memcpy(text, data, total);
    memset(&f, 0, sizeof f);
    for (size_t i = 0; i < lines - 2; i++) {
        struct pd_http_header *header = &p->headers[i];
        if (!take_header(text + ends[i], (size_t)ends[i + 1] - 2 - ends[i], header))
            return false;
        pd_http1_note(header, &f);
    }
    *reject = p->is_response ? pd_http1_status_line(p, 0, first) : pd_http1_request_line(p, 0, first);
    if (*reject != PD_HTTP_REJECT_NONE) {
        memset(h, 0, sizeof *h);
        return false;
    }
    p->text.n = *used = total;
    p->n_headers = lines - 2;
    *reject = pd_http1_decide(p, &f);
    return true;
}

#else

bool pd_http1_whole_head(struct pd_http1 *p, const char *data, size_t n, size_t *used,
                         enum pd_http_reject *reject)
{
    (void)p;
    (void)data;
    (void)n;
    (void)used;
    (void)reject;
    return false;
}

#endif
