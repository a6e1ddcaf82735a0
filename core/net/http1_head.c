/* SPDX-License-Identifier: Apache-2.0 */
/* The rules that need a whole head: target, host, framing, expectation.
 *
 * Invariant: after pd_http1_finish_head says yes, all spans are pointers, body
 * framing is decided by exactly one header or by none, and where that is more
 * than a plain number llhttp has read the same bytes the same way. */
#include "net/http1_int.h"

#include "base/str.h"
#include "base/utf8.h"

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static struct pd_str resolve(const struct pd_http1 *p, struct pd_str s)
{
    return (struct pd_str){ p->text.p + (uintptr_t)s.p, s.n };
}

/* Scheme and authority of an absolute-form target; false when it is none. */
static bool split_absolute(struct pd_str target, struct pd_str *authority, struct pd_str *rest)
{
    size_t start, end;

    if (pd_str_starts_with_nocase(target, PD_STR("http://")))
        start = 7;
    else if (pd_str_starts_with_nocase(target, PD_STR("https://")))
        start = 8;
    else
        return false;
    for (end = start; end < target.n && target.p[end] != '/' && target.p[end] != '?'; end++)
        ;
    *authority = pd_str_sub(target, start, end - start);
    *rest = pd_str_sub(target, end, target.n - end);
    return true;
}

/* Whether a byte behind the first one is a dot, a backslash, a slash behind a slash, or
 * one that a target has behind its path or encodes with. */
static bool has_odd_bytes(struct pd_str path)
{
    bool is_odd = false;
#if defined(__SSE2__)
    const __m128i dot = _mm_set1_epi8('.'), back = _mm_set1_epi8('\\'), slash = _mm_set1_epi8('/');
    const __m128i percent = _mm_set1_epi8('%'), query = _mm_set1_epi8('?');

    for (size_t i = 1; path.n > 16 && i < path.n; i += 16) {
        __m128i v, before;
        i = i <= path.n - 16 ? i : path.n - 16;     /* the last ones overlap */
        memcpy(&v, path.p + i, sizeof v);
        memcpy(&before, path.p + i - 1, sizeof before);
        __m128i two = _mm_and_si128(_mm_cmpeq_epi8(v, slash), _mm_cmpeq_epi8(before, slash));
        __m128i one = _mm_or_si128(_mm_cmpeq_epi8(v, dot), _mm_cmpeq_epi8(v, back));
        __m128i more = _mm_or_si128(_mm_cmpeq_epi8(v, percent), _mm_cmpeq_epi8(v, query));
        is_odd |= _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(one, two), more)) != 0;
    }
    if (path.n > 16)
        return is_odd;
#endif
    for (size_t i = 1; i < path.n; i++)
        is_odd |= path.p[i] == '.' || path.p[i] == '\\' || path.p[i] == '%' || path.p[i] == '?' ||
                  (path.p[i] == '/' && path.p[i - 1] == '/');
    return is_odd;
}

/* No empty segment but the last one, no "." or ".." segment, no backslash. */
static bool path_is_plain(struct pd_str path)
{
    size_t from = 1;

    for (size_t i = 1; i <= path.n; i++) {
        size_t n = i - from;
        if (i < path.n && path.p[i] == '\\')
            return false;
        if (i < path.n && path.p[i] != '/')
            continue;
        if ((n == 0 && i < path.n) || (n == 1 && path.p[from] == '.') ||
            (n == 2 && path.p[from] == '.' && path.p[from + 1] == '.'))
            return false;
        from = i + 1;
    }
    return true;
}

/* Decodes `raw` behind the head, where room was made for it. */
static bool decode_path(struct pd_http1 *p, struct pd_str raw, struct pd_str *out)
{
    char *to = p->text.p + p->text.n;
    size_t n = 0;

    for (size_t i = 0; i < raw.n; i++) {
        unsigned char c = (unsigned char)raw.p[i];
        if (c == '%') {
            if (raw.n - i < 3 || !pd_http1_is((unsigned char)raw.p[i + 1], PD_HTTP1_HEX) ||
                !pd_http1_is((unsigned char)raw.p[i + 2], PD_HTTP1_HEX))
                return false;
            c = (unsigned char)(pd_http1_hex((unsigned char)raw.p[i + 1]) << 4 |
                                pd_http1_hex((unsigned char)raw.p[i + 2]));
            if (c < 0x20 || c == 0x7f || c == '/' || c == '\\')
                return false;
            i += 2;
        }
        to[n++] = (char)c;
    }
    *out = pd_str_of(to, n);
    return pd_utf8_is_valid(to, n);
}

static enum pd_http_reject check_target(struct pd_http1 *p, struct pd_str *authority)
{
    struct pd_http_head *h = &p->head;
    struct pd_str rest = h->target;
    size_t q;

    *authority = (struct pd_str){ NULL, 0 };
    /* Most have nothing to look at closely. */
    if (rest.p[0] == '/' && !has_odd_bytes(rest)) {
        h->path = rest;
        return PD_HTTP_REJECT_NONE;
    }
    if (pd_str_is(rest, "*")) {
        h->path = rest;
        return h->method == PD_HTTP_OPTIONS ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_TARGET;
    }
    if (rest.p[0] != '/' && !split_absolute(h->target, authority, &rest))
        return PD_HTTP_REJECT_TARGET;
    q = pd_str_find_char(rest, '?');
    if (q != PD_STR_NPOS) {
        h->query = pd_str_sub(rest, q + 1, rest.n - q - 1);
        rest = pd_str_sub(rest, 0, q);
    }
    h->path = rest.n == 0 ? PD_STR("/") : rest;
    if (pd_str_find_char(h->path, '%') != PD_STR_NPOS && !decode_path(p, rest, &h->path))
        return PD_HTTP_REJECT_TARGET;
    return path_is_plain(h->path) ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_TARGET;
}

static bool port_is_valid(struct pd_str port)
{
    uint32_t v = 0;

    if (port.n == 0 || port.n > 5)
        return false;
    for (size_t i = 0; i < port.n; i++) {
        if (port.p[i] < '0' || port.p[i] > '9')
            return false;
        v = v * 10 + (uint32_t)(port.p[i] - '0');
    }
    return v <= 65535;
}

#if defined(__SSE2__)
/* Whether c is within 16 bytes of `from`, for each byte: from, from + 1, ... from + more. */
static inline __m128i in_range(__m128i v, char from, char more)
{
    __m128i x = _mm_sub_epi8(v, _mm_set1_epi8(from));

    return _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(more)), x);
}

/* A name or IPv4 of up to 16 bytes, port included, as most are; may say no where it is
 * another.  Behind the host, PD_HTTP1_SLACK bytes may be read. */
static inline bool is_short_host(struct pd_str host)
{
    __m128i v;
    memcpy(&v, host.p, sizeof v);
    __m128i digit = in_range(v, '0', 9);
    __m128i name = _mm_or_si128(in_range(_mm_or_si128(v, _mm_set1_epi8(0x20)), 'a', 25),
                                _mm_or_si128(digit, in_range(v, '-', 1)));
    uint32_t in_host = (1u << host.n) - 1, digits = (uint32_t)_mm_movemask_epi8(digit);
    uint32_t other = ~(uint32_t)_mm_movemask_epi8(name) & in_host;
    size_t end = other == 0 ? host.n : (size_t)__builtin_ctz(other), port = host.n - end;

    if (other == 0)
        return true;
    /* Four digits, or five of which the first says that they are not too many. */
    return end > 0 && host.p[end] == ':' && (~digits & in_host) >> (end + 1) == 0 &&
           (port - 2 < 4 || (port == 6 && host.p[end + 1] < '6'));
}
#endif

/* name, IPv4 or [IPv6], each with an optional port. */
static PD_NOINLINE bool any_host_is_valid(struct pd_str host)
{
    size_t end = 0;

    if (host.n == 0 || host.n > 261)
        return false;
    if (host.p[0] == '[') {
        for (end = 1; end < host.n && host.p[end] != ']'; end++)
            if (!pd_http1_is((unsigned char)host.p[end], PD_HTTP1_HEX) && host.p[end] != ':' &&
                host.p[end] != '.')
                return false;
        if (end == host.n || end < 3)
            return false;
        end++;
    } else {
        while (end < host.n && pd_http1_is((unsigned char)host.p[end], PD_HTTP1_HOSTNAME))
            end++;
        if (end == 0)
            return false;
    }
    if (end == host.n)
        return true;
    return host.p[end] == ':' && port_is_valid(pd_str_sub(host, end + 1, host.n - end - 1));
}

static inline bool host_is_valid(struct pd_str host)
{
#if defined(__SSE2__)
    if (host.n - 1 < 16 && is_short_host(host))
        return true;
#endif
    return any_host_is_valid(host);
}

/* One plain number of up to 18 digits, with eight bytes in front of it. */
static inline bool read_length(struct pd_str s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0 || s.n > 18)
        return false;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    /* All digits at a time, with zeros for the bytes in front of them. */
    if (s.n <= 8) {
        memcpy(&v, s.p + s.n - 8, 8);
        v = (v ^ 0x3030303030303030u) & ~(uint64_t)0 << 8 * (8 - s.n);
        if (((v + 0x7676767676767676u) | v) & 0x8080808080808080u)
            return false;
        v = v * 10 + (v >> 8);
        v = ((v & 0xff000000ffu) * (100 + (1000000ull << 32)) +
             (v >> 16 & 0xff000000ffu) * (1 + (10000ull << 32))) >> 32;
        *out = v;
        return true;
    }
#endif
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';
        if (digit > 9)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

void pd_http1_note_connection(struct pd_str list, struct pd_http1_found *f)
{
    struct pd_str part;

    if (!pd_str_eq_nocase(list, PD_STR("close")) && !pd_str_eq_nocase(list, PD_STR("keep-alive")))
        f->options |= PD_HTTP1_OPTIONS;
    while (pd_str_split(&list, ',', &part)) {
        part = pd_str_trim(part);
        if (pd_str_eq_nocase(part, PD_STR("close")))
            f->options |= PD_HTTP1_CLOSE;
        if (pd_str_eq_nocase(part, PD_STR("keep-alive")))
            f->options |= PD_HTTP1_KEEP;
    }
}

/* Between a value and the end of its line.  Readers differ in whether a tab
 * belongs to a number. */
static bool tab_follows(struct pd_str value)
{
    const char *p = value.p + value.n;

    while (*p == ' ')
        p++;
    return *p == '\t';
}

static struct pd_str value_of(const struct pd_http1 *p, uint8_t place)
{
    return p->headers[place - 1].value;
}

static inline enum pd_http_reject check_framing(struct pd_http1 *p, const struct pd_http1_found *f)
{
    struct pd_http_head *h = &p->head;

    if (f->encoding != 0) {
        if (f->length != 0)
            return PD_HTTP_REJECT_FRAMING_CONFLICT;
        if (h->minor == 0)
            return PD_HTTP_REJECT_TRANSFER_ENCODING_10;
        if (f->twice & PD_HTTP1_TWICE_ENCODING)
            return PD_HTTP_REJECT_FRAMING_CONFLICT;
        if (!pd_str_eq_nocase(value_of(p, f->encoding), PD_STR("chunked")))
            return PD_HTTP_REJECT_TRANSFER_ENCODING;
        h->is_chunked = true;
    }
    if (f->length != 0) {
        struct pd_str length = value_of(p, f->length);
        if ((f->twice & PD_HTTP1_TWICE_LENGTH) || !read_length(length, &h->length) ||
            tab_follows(length))
            return PD_HTTP_REJECT_CONTENT_LENGTH;
        h->has_length = true;
    }
    return PD_HTTP_REJECT_NONE;
}

static enum pd_http_reject check_first_line(struct pd_http1 *p, struct pd_str *authority)
{
    struct pd_http_head *h = &p->head;

    h->method_text = resolve(p, h->method_text);
    h->target = resolve(p, h->target);
    return check_target(p, authority);
}

static inline enum pd_http_reject check_request(struct pd_http1 *p, const struct pd_http1_found *f,
                                                bool is_plain)
{
    struct pd_http_head *h = &p->head;
    struct pd_str authority = { NULL, 0 };
    enum pd_http_reject reject = is_plain ? PD_HTTP_REJECT_NONE : check_first_line(p, &authority);

    if (reject != PD_HTTP_REJECT_NONE)
        return reject;
    /* HTTP/1.0 knows no Host; health checks of balancers leave it out. */
    if (f->host != 0) {
        h->host = value_of(p, f->host);
        if ((f->twice & PD_HTTP1_TWICE_HOST) || !host_is_valid(h->host))
            return PD_HTTP_REJECT_HOST;
    } else if (h->minor != 0) {
        return PD_HTTP_REJECT_HOST;
    }
    if (authority.p != NULL && !pd_str_eq_nocase(authority, h->host))
        return PD_HTTP_REJECT_HOST;
    if (f->expect != 0 && h->minor == 1) {
        if ((f->twice & PD_HTTP1_TWICE_EXPECT) ||
            !pd_str_eq_nocase(value_of(p, f->expect), PD_STR("100-continue")))
            return PD_HTTP_REJECT_EXPECT;
        h->expect_continue = h->is_chunked || (h->has_length && h->length > 0);
    }
    if (f->content_encoding != 0 &&
        ((f->twice & PD_HTTP1_TWICE_CONTENT_ENCODING) ||
         !pd_str_eq_nocase(value_of(p, f->content_encoding), PD_STR("identity"))))
        return PD_HTTP_REJECT_CONTENT_ENCODING;
    return PD_HTTP_REJECT_NONE;
}

static inline enum pd_http_reject check_response(struct pd_http1 *p, bool is_plain)
{
    struct pd_http_head *h = &p->head;

    if (!is_plain)
        h->reason = resolve(p, h->reason);
    if (h->status == 101)
        return PD_HTTP_REJECT_UPGRADE;
    if (!p->no_body && h->status >= 200 && h->status != 204 && h->status != 304 &&
        !h->is_chunked && !h->has_length)
        h->until_close = true;
    return PD_HTTP_REJECT_NONE;
}

static void choose_body(struct pd_http1 *p)
{
    const struct pd_http_head *h = &p->head;

    if (p->is_response && (p->no_body || h->status == 204 || h->status == 304 ||
                           h->status < 200)) {
        p->body_state = PD_HTTP1_S_DONE;
    } else if (h->is_chunked) {
        p->body_state = PD_HTTP1_S_CHUNK_SIZE;
    } else if (h->until_close) {
        p->body_state = PD_HTTP1_S_UNTIL_CLOSE;
    } else if (h->has_length && h->length > 0) {
        p->body_state = PD_HTTP1_S_LENGTH;
        p->left = h->length;
    } else {
        p->body_state = PD_HTTP1_S_DONE;
    }
}

static bool is_kept(const struct pd_http_head *h, const struct pd_http1_found *f)
{
    return !h->until_close && !(f->options & PD_HTTP1_CLOSE) &&
           (h->minor == 1 || (f->options & PD_HTTP1_KEEP) != 0);
}

static PD_NOINLINE enum pd_http_reject decide_all(struct pd_http1 *p, const struct pd_http1_found *f,
                                                  bool is_plain)
{
    struct pd_http_head *h = &p->head;
    enum pd_http_reject reject = check_framing(p, f);

    if (reject == PD_HTTP_REJECT_NONE)
        reject = p->is_response ? check_response(p, is_plain) : check_request(p, f, is_plain);
    if (reject != PD_HTTP_REJECT_NONE)
        return reject;
    h->keep_alive = is_kept(h, f);
    choose_body(p);
    return h->is_chunked || (!p->is_response && h->method == PD_HTTP_OTHER) ? pd_http1_second_opinion(p)
                                                                           : PD_HTTP_REJECT_NONE;
}

enum pd_http_reject pd_http1_decide(struct pd_http1 *p, const struct pd_http1_found *f, bool is_plain)
{
    struct pd_http_head *h = &p->head;
    bool may_last = p->is_response && !p->no_body, is_bare;

    h->headers = p->headers;
    h->n_headers = p->n_headers;
    p->id_at = f->id;
    /* A plain first line is POST or GET with HTTP/1.1, or 200. */
    if (!is_plain || (f->encoding | f->expect | f->content_encoding | f->twice) != 0)
        return decide_all(p, f, is_plain);
    if (f->length != 0) {
        if (!read_length(value_of(p, f->length), &h->length))
            return PD_HTTP_REJECT_CONTENT_LENGTH;
        h->has_length = true;
    }
    if (!p->is_response) {
        if (f->host == 0)
            return PD_HTTP_REJECT_HOST;
        h->host = value_of(p, f->host);
        if (!host_is_valid(h->host))
            return PD_HTTP_REJECT_HOST;
    }
    is_bare = may_last && !h->has_length;
    h->until_close = is_bare;
    h->keep_alive = is_kept(h, f);
    p->left = h->length;
    p->body_state = h->length > 0 && (may_last || !p->is_response) ? PD_HTTP1_S_LENGTH
                    : is_bare ? PD_HTTP1_S_UNTIL_CLOSE : PD_HTTP1_S_DONE;
    return PD_HTTP_REJECT_NONE;
}

enum pd_http_reject pd_http1_finish_head(struct pd_http1 *p)
{
    struct pd_http1_found f;

    /* Room for the decoded path; from here on the text does not move. */
    if (!p->is_response && pd_buf_reserve(&p->text, p->head.target.n) != PD_OK)
        return PD_HTTP_REJECT_MEMORY;
    memset(&f, 0, sizeof(f));
    for (size_t i = 0; i < p->n_headers; i++) {
        struct pd_http_header *h = &p->headers[i];
        h->name = resolve(p, h->name);
        h->value = resolve(p, h->value);
        if (pd_http1_note(h->name.p, h->name.n, i, &f) == PD_HTTP1_CONNECTION)
            pd_http1_note_connection(h->value, &f);
    }
    p->trailers = 0;
    return pd_http1_decide(p, &f, false);
}

struct pd_str pd_http_head_get(const struct pd_http_head *head, const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < head->n_headers; i++) {
        const struct pd_http_header *h = &head->headers[i];
        if (h->name.n == n && h->name.p[0] == name[0] && memcmp(h->name.p, name, n) == 0)
            return h->value;
    }
    return (struct pd_str){ NULL, 0 };
}

bool pd_http_head_has_token(const struct pd_http_head *head, const char *name, const char *token)
{
    struct pd_str want = pd_str_from(name), tok = pd_str_from(token), list, part;

    for (size_t i = 0; i < head->n_headers; i++) {
        if (!pd_str_eq(head->headers[i].name, want))
            continue;
        list = head->headers[i].value;
        while (pd_str_split(&list, ',', &part)) {
            size_t semi = pd_str_find_char(part, ';');
            if (semi != PD_STR_NPOS)
                part = pd_str_sub(part, 0, semi);
            if (pd_str_eq_nocase(pd_str_trim(part), tok))
                return true;
        }
    }
    return false;
}

bool pd_http_is_value(struct pd_str s)
{
    return pd_http1_is_value(s.p, s.n, 0);
}
