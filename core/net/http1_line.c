/* SPDX-License-Identifier: Apache-2.0 */
/* The rules for single lines of a head: request line, status line, header line.
 *
 * Invariant: a line that passes holds no CR, LF, NUL or other control byte but
 * HTAB in a value, and its parts are noted as offsets into p->text. */
#include "net/http1_int.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

const unsigned char pd_http1_classes[256] = {
    ['\t'] = PD_HTTP1_VALUE, [' '] = PD_HTTP1_VALUE,
#define A PD_HTTP1_AUTHORITY
#define V (PD_HTTP1_VALUE | PD_HTTP1_TARGET)
#define T (V | PD_HTTP1_TOKEN)
#define H (T | PD_HTTP1_HOSTNAME)
#define N (H | A | PD_HTTP1_NAME_BYTE)
#define X (N | PD_HTTP1_HEX)
    ['!'] = H, ['"'] = V, ['#'] = PD_HTTP1_VALUE | PD_HTTP1_TOKEN, ['$'] = H, ['%'] = H | A,
    ['&'] = H, ['\''] = H, ['('] = V | PD_HTTP1_HOSTNAME, [')'] = V | PD_HTTP1_HOSTNAME,
    ['*'] = H, ['+'] = H, [','] = V, ['-'] = N, ['.'] = H | A, ['/'] = V,
    ['0' ... '9'] = X, [':'] = V | A, [';'] = V | PD_HTTP1_HOSTNAME, ['<'] = V,
    ['='] = V | PD_HTTP1_HOSTNAME, ['>'] = V, ['?'] = V, ['@'] = V,
    ['A' ... 'F'] = X, ['G' ... 'Z'] = N, ['['] = V | A, ['\\'] = V, [']'] = V | A,
    ['^'] = T, ['_'] = H | A, ['`'] = T, ['a' ... 'f'] = X, ['g' ... 'z'] = N,
    ['{'] = V, ['|'] = T, ['}'] = V, ['~'] = H,
    [0x80 ... 0xff] = PD_HTTP1_VALUE,
#undef A
#undef V
#undef T
#undef H
#undef N
#undef X
};

#define L(lower, upper) [lower] = lower, [upper] = lower
const unsigned char pd_http1_lower[256] = {
    L('a', 'A'), L('b', 'B'), L('c', 'C'), L('d', 'D'), L('e', 'E'), L('f', 'F'), L('g', 'G'),
    L('h', 'H'), L('i', 'I'), L('j', 'J'), L('k', 'K'), L('l', 'L'), L('m', 'M'), L('n', 'N'),
    L('o', 'O'), L('p', 'P'), L('q', 'Q'), L('r', 'R'), L('s', 'S'), L('t', 'T'), L('u', 'U'),
    L('v', 'V'), L('w', 'W'), L('x', 'X'), L('y', 'Y'), L('z', 'Z'),
    ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6',
    ['7'] = '7', ['8'] = '8', ['9'] = '9', ['!'] = '!', ['#'] = '#', ['$'] = '$', ['%'] = '%',
    ['&'] = '&', ['\''] = '\'', ['*'] = '*', ['+'] = '+', ['-'] = '-', ['.'] = '.', ['^'] = '^',
    ['_'] = '_', ['`'] = '`', ['|'] = '|', ['~'] = '~',
};
#undef L

#if defined(__SSE2__)
/* Which bytes may not stand in a value. */
static inline __m128i bad_bytes(const char *p)
{
    __m128i v, low;

    memcpy(&v, p, sizeof v);
    /* Not above 0x1f, as bytes without sign; HTAB is allowed. */
    low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    low = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), low);
    return _mm_or_si128(low, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
}
#endif

bool pd_http1_is_value(const char *p, size_t n, size_t slack)
{
    size_t i = 0;
#if defined(__SSE2__)
    __m128i bad = _mm_setzero_si128();

    for (; n - i >= 16; i += 16)
        bad = _mm_or_si128(bad, bad_bytes(p + i));
    /* The last ones are read together with some before them. */
    if (i < n && n >= 16)
        bad = _mm_or_si128(bad, bad_bytes(p + n - 16));
    if (n >= 16)
        return _mm_movemask_epi8(bad) == 0;
    if (n + slack >= 16)
        return ((unsigned)_mm_movemask_epi8(bad_bytes(p)) & ((1u << n) - 1)) == 0;
#else
    (void)slack;
#endif
    for (; i < n; i++)
        if (!pd_http1_is((unsigned char)p[i], PD_HTTP1_VALUE))
            return false;
    return true;
}

static struct pd_str offset_span(size_t off, size_t n)
{
    return (struct pd_str){ (const char *)(uintptr_t)off, n };
}

static pd_status add_header(struct pd_http1 *p, struct pd_str name, struct pd_str value)
{
    if (p->n_headers == p->cap_headers) {
        size_t cap = p->cap_headers == 0 ? 8 : p->cap_headers * 2;
        struct pd_http_header *more = pd_realloc_array(p->headers, cap, sizeof(*more));
        if (more == NULL)
            return PD_ENOMEM;
        p->headers = more;
        p->cap_headers = cap;
    }
    p->headers[p->n_headers].name = name;
    p->headers[p->n_headers].value = value;
    p->n_headers++;
    return PD_OK;
}

size_t pd_http1_lower_plain(char *p, bool *change)
{
    size_t at = 0;

    *change = false;
#if defined(__SSE2__)
    const __m128i place = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    for (;; at += 16) {
        __m128i v;
        memcpy(&v, p + at, sizeof v);
        __m128i is_upper = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8('A' - 1)),
                                         _mm_cmplt_epi8(v, _mm_set1_epi8('Z' + 1)));
        __m128i low = _mm_or_si128(v, _mm_and_si128(is_upper, _mm_set1_epi8(0x20)));
        __m128i is_letter = _mm_and_si128(_mm_cmpgt_epi8(low, _mm_set1_epi8('a' - 1)),
                                          _mm_cmplt_epi8(low, _mm_set1_epi8('z' + 1)));
        __m128i is_digit = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8('0' - 1)),
                                         _mm_cmplt_epi8(v, _mm_set1_epi8('9' + 1)));
        __m128i is_plain = _mm_or_si128(_mm_or_si128(is_letter, is_digit),
                                        _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
        unsigned others = ~(unsigned)_mm_movemask_epi8(is_plain) & 0xffffu;
        if (others != 0) {
            int n = __builtin_ctz(others);
            unsigned upper = (unsigned)_mm_movemask_epi8(is_upper);
            if ((upper & ((1u << n) - 1)) != 0) {
                *change = true;
                __m128i before = _mm_cmplt_epi8(place, _mm_set1_epi8((char)n));
                v = _mm_or_si128(v, _mm_and_si128(_mm_and_si128(is_upper, before),
                                                  _mm_set1_epi8(0x20)));
                memcpy(p + at, &v, sizeof v);
            }
            return at + (size_t)n;
        }
        *change |= _mm_movemask_epi8(is_upper) != 0;
        memcpy(p + at, &low, sizeof low);
    }
#else
    (void)p;
    return at;
#endif
}

enum pd_http_reject pd_http1_header_line(struct pd_http1 *p, size_t off, size_t n)
{
    char *line = p->text.p + off;
    size_t colon, from, to;
    bool has_underscore = false, has_upper;

    if (line[0] == ' ' || line[0] == '\t')
        return p->n_headers == 0 ? PD_HTTP_REJECT_HEADER_NAME : PD_HTTP_REJECT_OBS_FOLD;
    /* Behind the line is its CRLF. */
    for (colon = pd_http1_lower_plain(line, &has_upper); colon < n; colon++) {
        unsigned char c = pd_http1_lower[(unsigned char)line[colon]];
        if (c == 0)
            break;
        has_underscore |= c == '_';
        line[colon] = (char)c;
    }
    if (colon == n || line[colon] != ':' || colon == 0 || colon > PD_HTTP1_NAME)
        return PD_HTTP_REJECT_HEADER_NAME;
    from = colon + 1;
    /* Mostly one blank and then the value; behind the line is its CRLF. */
    if (line[from] == ' ' && line[from + 1] > ' ')
        from++;
    else
        while (from < n && (line[from] == ' ' || line[from] == '\t'))
            from++;
    if (!pd_http1_is_value(line + from, n - from, PD_HTTP1_SLACK))
        return PD_HTTP_REJECT_HEADER_VALUE;
    to = n;
    while (to > from && (line[to - 1] == ' ' || line[to - 1] == '\t'))
        to--;
    if (++p->trailers > PD_HTTP1_HEADERS)
        return PD_HTTP_REJECT_HEADERS_SIZE;
    /* Names with an underscore look like their dashed twins to programs behind us. */
    if (has_underscore)
        return PD_HTTP_REJECT_NONE;
    if (add_header(p, offset_span(off, colon), offset_span(off + from, to - from)) != PD_OK)
        return PD_HTTP_REJECT_MEMORY;
    return PD_HTTP_REJECT_NONE;
}

static enum pd_http_reject check_version(struct pd_http1 *p, struct pd_str v,
                                         enum pd_http_reject malformed)
{
    if (v.n != 8 || memcmp(v.p, "HTTP/", 5) != 0 || v.p[6] != '.' || v.p[5] < '0' ||
        v.p[5] > '9' || v.p[7] < '0' || v.p[7] > '9')
        return malformed;
    if (v.p[5] != '1' || v.p[7] > '1')
        return PD_HTTP_REJECT_VERSION;
    p->head.minor = (uint32_t)(v.p[7] - '0');
    return PD_HTTP_REJECT_NONE;
}

static enum pd_http_method find_method(struct pd_str text)
{
    /* The two that nearly all requests have. */
    if (pd_str_is(text, "POST"))
        return PD_HTTP_POST;
    if (pd_str_is(text, "GET"))
        return PD_HTTP_GET;
    for (int m = PD_HTTP_GET; m < PD_HTTP_METHODS; m++)
        if (pd_str_is(text, pd_http_method_name((enum pd_http_method)m)))
            return (enum pd_http_method)m;
    return PD_HTTP_OTHER;
}

/* The first byte that is none of a target.  There is one: behind the line is its CRLF,
 * and behind that may be read what PD_HTTP1_SLACK says. */
static size_t target_run(const char *p)
{
    size_t at = 0;
#if defined(__SSE2__)
    for (;; at += 16) {
        __m128i v;
        memcpy(&v, p + at, sizeof v);
        /* Bytes from 0x80 are negative, so one signed test finds them and those up to a blank. */
        __m128i odd = _mm_or_si128(_mm_cmplt_epi8(v, _mm_set1_epi8('!')),
                                   _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('#')),
                                                _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f))));
        unsigned mask = (unsigned)_mm_movemask_epi8(odd);
        if (mask != 0)
            return at + (size_t)__builtin_ctz(mask);
    }
#else
    while (pd_http1_is((unsigned char)p[at], PD_HTTP1_TARGET))
        at++;
    return at;
#endif
}

enum pd_http_reject pd_http1_request_line(struct pd_http1 *p, size_t off, size_t n)
{
    const char *line = p->text.p + off;
    size_t m = 0, t, v;
    struct pd_str method;

    if (n > PD_HTTP1_LINE)
        return PD_HTTP_REJECT_URI_LENGTH;
    while (m < n && pd_http1_is((unsigned char)line[m], PD_HTTP1_TOKEN))
        m++;
    if (m == 0 || m > PD_HTTP1_METHOD || m == n || line[m] != ' ')
        return PD_HTTP_REJECT_REQUEST_LINE;
    /* A blank is no byte of a target. */
    t = m + 1 + target_run(line + m + 1);
    if (t < n && line[t] != ' ')
        return PD_HTTP_REJECT_TARGET;
    if (t == m + 1 || t == n)
        return PD_HTTP_REJECT_REQUEST_LINE;
    v = t + 1;
    enum pd_http_reject reject = check_version(p, pd_str_of(line + v, n - v),
                                               PD_HTTP_REJECT_REQUEST_LINE);
    if (reject != PD_HTTP_REJECT_NONE)
        return reject;
    method = pd_str_of(line, m);
    if (pd_str_is(method, "CONNECT") || pd_str_is(method, "TRACE"))
        return PD_HTTP_REJECT_METHOD_REFUSED;
    p->head.method = find_method(method);
    p->head.method_text = offset_span(off, m);
    p->head.target = offset_span(off + m + 1, t - m - 1);
    return PD_HTTP_REJECT_NONE;
}

enum pd_http_reject pd_http1_status_line(struct pd_http1 *p, size_t off, size_t n)
{
    const char *line = p->text.p + off;
    enum pd_http_reject reject;
    uint32_t status = 0;

    if (n < 12 || n > PD_HTTP1_LINE || line[8] != ' ' || (n > 12 && line[12] != ' '))
        return PD_HTTP_REJECT_STATUS_LINE;
    reject = check_version(p, pd_str_of(line, 8), PD_HTTP_REJECT_STATUS_LINE);
    if (reject != PD_HTTP_REJECT_NONE)
        return reject;
    for (size_t i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9')
            return PD_HTTP_REJECT_STATUS_LINE;
        status = status * 10 + (uint32_t)(line[i] - '0');
    }
    if (status < 100 || status > 599)
        return PD_HTTP_REJECT_STATUS_LINE;
    if (n > 13 && !pd_http1_is_value(line + 13, n - 13, PD_HTTP1_SLACK))
        return PD_HTTP_REJECT_STATUS_LINE;
    p->head.status = status;
    p->head.reason = n > 13 ? offset_span(off + 13, n - 13) : offset_span(off, 0);
    return PD_HTTP_REJECT_NONE;
}
