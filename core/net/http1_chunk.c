/* SPDX-License-Identifier: Apache-2.0 */
/* Chunked bodies: sizes, extensions and trailers byte by byte, data by spans.
 *
 * llhttp is not asked here: it gives no room for the limits on digits,
 * extensions and trailers.  Invariant: framing that exceeds what the data
 * excuses (PD_HTTP1_CHUNK_EXCESS) ends the message, so that a body of one-byte
 * chunks with long extensions costs its sender more than us. */
#include "net/http1_int.h"

static enum pd_http_reject begin_data(struct pd_http1 *p)
{
    if (p->digits == 0)
        return PD_HTTP_REJECT_CHUNK;
    p->digits = 0;
    p->ext_bytes = 0;
    if (p->left == 0) {
        p->state = PD_HTTP1_S_TRAILER_FIRST;
        p->line_bytes = 0;
        return PD_HTTP_REJECT_NONE;
    }
    if (p->left > p->body_limit - p->body_bytes)
        return PD_HTTP_REJECT_BODY_SIZE;
    p->excess = p->excess > 16 + 2 * p->left ? p->excess - 16 - 2 * p->left : 0;
    p->state = PD_HTTP1_S_CHUNK_DATA;
    return PD_HTTP_REJECT_NONE;
}

static enum pd_http_reject size_byte(struct pd_http1 *p, unsigned char c)
{
    if (pd_http1_is(c, PD_HTTP1_HEX)) {
        if (p->digits == 0)
            p->left = 0;
        if (p->digits == 8)
            return PD_HTTP_REJECT_CHUNK;
        p->left = p->left << 4 | pd_http1_hex(c);
        p->digits++;
        return PD_HTTP_REJECT_NONE;
    }
    if (p->digits == 0)
        return PD_HTTP_REJECT_CHUNK;
    if (c == '\r')
        p->state = PD_HTTP1_S_CHUNK_LF;
    else if (c == ';')
        p->state = PD_HTTP1_S_EXT_NAME_FIRST;
    else
        return PD_HTTP_REJECT_CHUNK;
    return PD_HTTP_REJECT_NONE;
}

/* After a complete extension: another one, or the end of the line. */
static enum pd_http_reject ext_next(struct pd_http1 *p, unsigned char c)
{
    if (c == ';')
        p->state = PD_HTTP1_S_EXT_NAME_FIRST;
    else if (c == '\r')
        p->state = PD_HTTP1_S_CHUNK_LF;
    else
        return PD_HTTP_REJECT_CHUNK;
    return PD_HTTP_REJECT_NONE;
}

static enum pd_http_reject ext_byte(struct pd_http1 *p, unsigned char c)
{
    bool is_token = pd_http1_is(c, PD_HTTP1_TOKEN);

    if (++p->ext_bytes > PD_HTTP1_CHUNK_EXT + 1)
        return PD_HTTP_REJECT_CHUNK;
    switch (p->state) {
    case PD_HTTP1_S_EXT_NAME_FIRST:
        p->state = PD_HTTP1_S_EXT_NAME;
        return is_token ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_CHUNK;
    case PD_HTTP1_S_EXT_NAME:
        if (is_token)
            return PD_HTTP_REJECT_NONE;
        if (c != '=')
            return ext_next(p, c);
        p->state = PD_HTTP1_S_EXT_VALUE_FIRST;
        return PD_HTTP_REJECT_NONE;
    case PD_HTTP1_S_EXT_VALUE_FIRST:
        p->state = c == '"' ? PD_HTTP1_S_EXT_QUOTED : PD_HTTP1_S_EXT_VALUE;
        return c == '"' || is_token ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_CHUNK;
    case PD_HTTP1_S_EXT_VALUE:
        return is_token ? PD_HTTP_REJECT_NONE : ext_next(p, c);
    case PD_HTTP1_S_EXT_QUOTED:
        if (c == '"')
            p->state = PD_HTTP1_S_EXT_AFTER_QUOTE;
        else if (c == '\\')
            p->state = PD_HTTP1_S_EXT_ESCAPE;
        return pd_http1_is(c, PD_HTTP1_VALUE) ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_CHUNK;
    case PD_HTTP1_S_EXT_ESCAPE:
        p->state = PD_HTTP1_S_EXT_QUOTED;
        return pd_http1_is(c, PD_HTTP1_VALUE) ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_CHUNK;
    default:
        return ext_next(p, c);
    }
}

static enum pd_http_reject trailer_byte(struct pd_http1 *p, unsigned char c)
{
    if (++p->ext_bytes > PD_HTTP1_LINE)
        return PD_HTTP_REJECT_TRAILER;
    switch (p->state) {
    case PD_HTTP1_S_TRAILER_FIRST:
        if (c == '\r') {
            p->state = PD_HTTP1_S_END_LF;
            return PD_HTTP_REJECT_NONE;
        }
        if (!pd_http1_is(c, PD_HTTP1_TOKEN) || ++p->trailers > PD_HTTP1_TRAILERS)
            return PD_HTTP_REJECT_TRAILER;
        p->line_bytes = 1;
        p->state = PD_HTTP1_S_TRAILER_NAME;
        return PD_HTTP_REJECT_NONE;
    case PD_HTTP1_S_TRAILER_NAME:
        if (c == ':')
            p->state = PD_HTTP1_S_TRAILER_VALUE;
        else if (!pd_http1_is(c, PD_HTTP1_TOKEN) || ++p->line_bytes > PD_HTTP1_NAME)
            return PD_HTTP_REJECT_TRAILER;
        return PD_HTTP_REJECT_NONE;
    case PD_HTTP1_S_TRAILER_VALUE:
        if (c == '\r')
            p->state = PD_HTTP1_S_TRAILER_LF;
        else if (!pd_http1_is(c, PD_HTTP1_VALUE))
            return PD_HTTP_REJECT_TRAILER;
        return PD_HTTP_REJECT_NONE;
    case PD_HTTP1_S_TRAILER_LF:
        p->state = PD_HTTP1_S_TRAILER_FIRST;
        return c == '\n' ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_TRAILER;
    default:                                    /* END_LF */
        p->state = PD_HTTP1_S_DONE;
        return c == '\n' ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_TRAILER;
    }
}

static enum pd_http_reject framing_byte(struct pd_http1 *p, unsigned char c)
{
    switch (p->state) {
    case PD_HTTP1_S_CHUNK_SIZE:
        return size_byte(p, c);
    case PD_HTTP1_S_CHUNK_LF:
        return c == '\n' ? begin_data(p) : PD_HTTP_REJECT_CHUNK;
    case PD_HTTP1_S_DATA_CR:
        p->state = PD_HTTP1_S_DATA_LF;
        return c == '\r' ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_CHUNK;
    case PD_HTTP1_S_DATA_LF:
        p->state = PD_HTTP1_S_CHUNK_SIZE;
        return c == '\n' ? PD_HTTP_REJECT_NONE : PD_HTTP_REJECT_CHUNK;
    default:
        return p->state >= PD_HTTP1_S_TRAILER_FIRST ? trailer_byte(p, c) : ext_byte(p, c);
    }
}

static bool is_line_end(const char *p, size_t n)
{
    return n >= 2 && memcmp(p, "\r\n", 2) == 0;
}

bool pd_http1_whole_chunk(struct pd_http1 *p, const char *data, size_t n, size_t *used,
                          struct pd_str *body)
{
    /* Above zero: a hex digit's value and one. */
    static const unsigned char hex[256] = {
        ['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7, ['7'] = 8,
        ['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
        ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
    };
    const char *at = data, *most = data + (n < 8 ? n : 8);
    size_t size = 0, rest;
    unsigned digit;
    uint64_t excess = p->excess;

    while (at < most && (digit = hex[(unsigned char)*at]) != 0) {
        size = size << 4 | (digit - 1);
        at++;
    }
    rest = n - (size_t)(at - data);
    if (size == 0 || p->digits != 0 || rest < 4 || size > rest - 4 || !is_line_end(at, 2) ||
        !is_line_end(at + 2 + size, 2) || size > p->body_limit - p->body_bytes ||
        excess + 14 > PD_HTTP1_CHUNK_EXCESS)
        return false;
    excess += (size_t)(at - data) + 2;
    p->excess = (excess > 16 + 2 * size ? excess - 16 - 2 * size : 0) + 2;
    p->ext_bytes = 0;
    p->left = 0;
    p->body_bytes += size;
    *body = (struct pd_str){ at + 2, size };
    *used = (size_t)(at - data) + size + 4;
    return true;
}

size_t pd_http1_only_chunks(struct pd_http1 *p, const char *data, size_t n, struct pd_str bodies[PD_HTTP1_CHUNKS])
{
    uint64_t room = p->body_limit - p->body_bytes;
    const char *at = data, *end = data + n;
    size_t count = 0;

    if (p->state != PD_HTTP1_S_CHUNK_SIZE || p->digits != 0 || p->excess > 2)
        return 0;
    for (; at < end && count < PD_HTTP1_CHUNKS; count++) {
        size_t size = 0, most = (size_t)(end - at) < 4 ? (size_t)(end - at) : 4, digits = 0;
        while (digits < most && pd_http1_is((unsigned char)at[digits], PD_HTTP1_HEX) && (at[digits] & 0x60) != 0x40)
            size = size << 4 | pd_http1_hex((unsigned char)at[digits++]);
        at += digits;
        if (digits == 0 || at[-(ptrdiff_t)digits] == '0' || (size_t)(end - at) < size + 4 ||
            !is_line_end(at, 2) || !is_line_end(at + 2 + size, 2) || size > room)
            return 0;
        bodies[count] = (struct pd_str){ at + 2, size };
        room -= size;
        at += size + 4;
    }
    if (at < end)
        return 0;
    p->excess = 2;
    p->body_bytes = p->body_limit - room;
    return count;
}

/* What stands between the data of two chunks when nothing is unusual: CRLF after
 * the data, then a size without an extension and its CRLF.  Returns the bytes
 * that it took; the rest is for framing_byte. */
static size_t plain_framing(struct pd_http1 *p, const char *data, size_t n)
{
    size_t at = 0, digits = 0;
    uint64_t size = 0;

    if (p->excess + 12 > PD_HTTP1_CHUNK_EXCESS)
        return 0;
    if (p->state == PD_HTTP1_S_DATA_CR) {
        if (!is_line_end(data, n))
            return 0;
        at = 2;
        p->excess += 2;
        p->state = PD_HTTP1_S_CHUNK_SIZE;
    }
    if (p->state != PD_HTTP1_S_CHUNK_SIZE || p->digits != 0)
        return at;
    while (digits < 8 && at + digits < n &&
           pd_http1_is((unsigned char)data[at + digits], PD_HTTP1_HEX))
        size = size << 4 | pd_http1_hex((unsigned char)data[at + digits++]);
    if (size == 0 || !is_line_end(data + at + digits, n - at - digits) ||
        size > p->body_limit - p->body_bytes)
        return at;
    p->excess += (uint32_t)digits + 2;
    p->excess = p->excess > 16 + 2 * size ? p->excess - 16 - 2 * size : 0;
    p->left = size;
    p->ext_bytes = 0;
    p->state = PD_HTTP1_S_CHUNK_DATA;
    return at + digits + 2;
}

enum pd_http1_event pd_http1_chunked_next(struct pd_http1 *p, const char *data, size_t n,
                                          size_t *used, struct pd_str *body)
{
    size_t at = plain_framing(p, data, n);

    *used = at;
    while (at < n) {
        enum pd_http_reject reject;

        if (p->state == PD_HTTP1_S_CHUNK_DATA) {
            size_t take = p->left < n - at ? (size_t)p->left : n - at;
            *body = (struct pd_str){ data + at, take };
            *used = at + take;
            p->body_bytes += take;
            p->left -= take;
            if (p->left == 0) {
                p->state = PD_HTTP1_S_DATA_CR;
                if (is_line_end(data + *used, n - *used) && p->excess + 2 <= PD_HTTP1_CHUNK_EXCESS) {
                    p->state = PD_HTTP1_S_CHUNK_SIZE;
                    p->excess += 2;
                    *used += 2;
                }
            }
            return PD_HTTP1_BODY;
        }
        reject = framing_byte(p, (unsigned char)data[at]);
        at++;
        *used = at;
        if (reject == PD_HTTP_REJECT_NONE && ++p->excess > PD_HTTP1_CHUNK_EXCESS)
            reject = PD_HTTP_REJECT_CHUNK;
        if (reject != PD_HTTP_REJECT_NONE)
            return pd_http1_refuse(p, reject);
        if (p->state == PD_HTTP1_S_DONE)
            return PD_HTTP1_DONE;
    }
    return PD_HTTP1_MORE;
}
