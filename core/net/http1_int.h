/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the HTTP/1 parser share. */
#ifndef PD_NET_HTTP1_INT_H
#define PD_NET_HTTP1_INT_H

#include "base/compiler.h"
#include "net/http1.h"

#include <string.h>

/* Classes of bytes, as bits. */
enum {
    PD_HTTP1_TOKEN = 1,     /* RFC 9110 tchar */
    PD_HTTP1_VALUE = 2,     /* HTAB, 0x20..0x7e, 0x80..0xff */
    PD_HTTP1_TARGET = 4,    /* 0x21..0x7e but '#' */
    PD_HTTP1_HEX = 8,
    PD_HTTP1_HOSTNAME = 16, /* letters, digits, and what a host may hold besides */
    PD_HTTP1_NAME_BYTE = 32, /* letters, digits, '-' */
    PD_HTTP1_AUTHORITY = 64 /* what a host that we call holds, with its port */
};

extern const unsigned char pd_http1_classes[256];
/* Token bytes in lower case; 0: no token byte. */
extern const unsigned char pd_http1_lower[256];

/* Whether c is in any of the classes. */
static inline bool pd_http1_is(unsigned char c, unsigned classes)
{
    return (pd_http1_classes[c] & classes) != 0;
}
/* Whether n bytes may stand in a value.  `slack`: that many bytes behind them may
 * be read, with no meaning. */
bool pd_http1_is_value(const char *p, size_t n, size_t slack);
/* Makes letters, digits and dashes lower case up to the first other byte, of which
 * there is one; returns where it stands.  Reads up to PD_HTTP1_SLACK bytes further.
 * *change: whether a letter was upper case. */
size_t pd_http1_lower_plain(char *p, bool *change);
/* What may be looked at behind a head's text. */
#define PD_HTTP1_SLACK 16u
/* Whether s is a name of letters, digits and dashes, as the names that we write are. */
static inline bool pd_http1_is_name(struct pd_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!pd_http1_is((unsigned char)s.p[i], PD_HTTP1_NAME_BYTE))
            return false;
    return s.n > 0;
}
/* Writes v, 20 digits at most, and as many bytes behind it at most; returns its end. */
static inline char *pd_http1_put_u64(char *to, uint64_t v)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    char digits[40];
    size_t at = 20;

    for (; v >= 100; v /= 100) {
        at -= 2;
        memcpy(digits + at, pairs + 2 * (v % 100), 2);
    }
    at -= 2;
    memcpy(digits + at, pairs + 2 * v, 2);
    at += v < 10;
    memcpy(to, digits + at, 20);
    return to + (20 - at);
}
/* Value of a hex digit; c must be one. */
static inline unsigned pd_http1_hex(unsigned char c)
{
    return c <= '9' ? (unsigned)c - '0' : (c | 0x20u) - 'a' + 10u;
}

/* Checks one complete line of a head, its CRLF left out, and notes where name
 * and value stand.  The first line is checked by the two functions below. */
enum pd_http_reject pd_http1_header_line(struct pd_http1 *p, size_t off, size_t n);
enum pd_http_reject pd_http1_request_line(struct pd_http1 *p, size_t off, size_t n);
enum pd_http_reject pd_http1_status_line(struct pd_http1 *p, size_t off, size_t n);
/* All lines are there: resolves spans, then the rules between headers. */
enum pd_http_reject pd_http1_finish_head(struct pd_http1 *p);

/* Headers that decide about framing, must be right, or are asked for: index and 1 of the
 * last one of a name, of the first one for the id; 0: there is none. */
struct pd_http1_found {
    uint8_t host, length, encoding, expect, content_encoding, id;
    uint8_t twice;              /* bits of those that are there more than once */
    uint8_t options;            /* bits of what Connection says */
};
enum {
    PD_HTTP1_TWICE_HOST = 1,
    PD_HTTP1_TWICE_LENGTH = 2,
    PD_HTTP1_TWICE_ENCODING = 4,
    PD_HTTP1_TWICE_EXPECT = 8,
    PD_HTTP1_TWICE_CONTENT_ENCODING = 16
};
enum { PD_HTTP1_CLOSE = 1, PD_HTTP1_KEEP = 2, PD_HTTP1_OPTIONS = 4 /* names headers */ };

/* What a name means here. */
enum pd_http1_known {
    PD_HTTP1_UNKNOWN = 0,
    PD_HTTP1_PLAIN,             /* known, and nothing to do */
    PD_HTTP1_HOP,               /* for one connection, or written anew by who passes it on */
    PD_HTTP1_CONNECTION         /* a hop whose value says more */
};

/* Adds the members of a list of connection options. */
void pd_http1_note_connection(struct pd_str list, struct pd_http1_found *f);

/* Whether n bytes at p are this literal. */
static PD_ALWAYS_INLINE bool pd_http1_same(const char *p, const char *name, size_t n)
{
    if (n >= 8) {
        uint64_t a, b, c, d;
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
        memcpy(&c, name, 8);
        memcpy(&d, name + n - 8, 8);
        if (a != c || (n > 8 && b != d))
            return false;
        return n <= 16 || memcmp(p + 8, name + 8, n - 16) == 0;
    }
    if (n >= 4) {
        uint32_t a, b, c, d;
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
        memcpy(&c, name, 4);
        memcpy(&d, name + n - 4, 4);
        return a == c && (n == 4 || b == d);
    }
    return n == 2 && p[0] == name[0] && p[1] == name[1];
}

static inline void pd_http1_seen(uint8_t *place, size_t at, struct pd_http1_found *f, unsigned bit)
{
    if (*place != 0)
        f->twice |= (uint8_t)bit;
    *place = (uint8_t)(at + 1);
}

_Static_assert(PD_HTTP1_HEADERS < UINT8_MAX, "places of headers are kept in a byte");
#define PD_HTTP1_IS(literal) pd_http1_same(name, literal, sizeof(literal) - 1)

/* The name, in lower case, of header number `at`. */
static PD_ALWAYS_INLINE enum pd_http1_known pd_http1_note(const char *name, size_t n, size_t at,
                                                struct pd_http1_found *f)
{
    switch (n) {
    case 2:
        return PD_HTTP1_IS("te") ? PD_HTTP1_HOP : PD_HTTP1_UNKNOWN;
    case 4:
        if (PD_HTTP1_IS("host")) {
            pd_http1_seen(&f->host, at, f, PD_HTTP1_TWICE_HOST);
            return PD_HTTP1_PLAIN;
        }
        return PD_HTTP1_IS("date") ? PD_HTTP1_HOP : PD_HTTP1_UNKNOWN;
    case 6:
        if (PD_HTTP1_IS("expect")) {
            pd_http1_seen(&f->expect, at, f, PD_HTTP1_TWICE_EXPECT);
            return PD_HTTP1_PLAIN;
        }
        return PD_HTTP1_IS("server") ? PD_HTTP1_HOP : PD_HTTP1_UNKNOWN;
    case 7:
        return PD_HTTP1_IS("trailer") || PD_HTTP1_IS("upgrade") ? PD_HTTP1_HOP : PD_HTTP1_UNKNOWN;
    case 10:
        if (PD_HTTP1_IS("connection"))
            return PD_HTTP1_CONNECTION;
        return PD_HTTP1_IS("keep-alive") ? PD_HTTP1_HOP : PD_HTTP1_UNKNOWN;
    case 12:
        if (PD_HTTP1_IS("content-type"))
            return PD_HTTP1_PLAIN;
        if (!PD_HTTP1_IS("x-request-id"))
            return PD_HTTP1_UNKNOWN;
        if (f->id == 0)
            f->id = (uint8_t)(at + 1);
        return PD_HTTP1_HOP;
    case 14:
        if (!PD_HTTP1_IS("content-length"))
            return PD_HTTP1_UNKNOWN;
        pd_http1_seen(&f->length, at, f, PD_HTTP1_TWICE_LENGTH);
        return PD_HTTP1_HOP;
    case 16:
        if (PD_HTTP1_IS("content-encoding")) {
            pd_http1_seen(&f->content_encoding, at, f, PD_HTTP1_TWICE_CONTENT_ENCODING);
            return PD_HTTP1_PLAIN;
        }
        return PD_HTTP1_IS("proxy-connection") ? PD_HTTP1_HOP : PD_HTTP1_UNKNOWN;
    case 17:
        if (!PD_HTTP1_IS("transfer-encoding"))
            return PD_HTTP1_UNKNOWN;
        pd_http1_seen(&f->encoding, at, f, PD_HTTP1_TWICE_ENCODING);
        return PD_HTTP1_HOP;
    case 18:
        return PD_HTTP1_IS("proxy-authenticate") ? PD_HTTP1_HOP : PD_HTTP1_UNKNOWN;
    default:
        return PD_HTTP1_UNKNOWN;
    }
}

/* The rules between headers, which stand in p->headers.  is_plain: the parts of the first
 * line are spans, and its target has nothing that needs a closer look; otherwise they
 * are still offsets, and behind the text is room for the target. */
enum pd_http_reject pd_http1_decide(struct pd_http1 *p, const struct pd_http1_found *f, bool is_plain);

/* The head at data.  The first one is for a parser that has seen nothing yet; it leaves
 * what is not there as a whole, or unusual, to the second one, which reads line by line. */
enum pd_http1_event pd_http1_next_whole(struct pd_http1 *p, const char *data, size_t n, size_t *used);
enum pd_http1_event pd_http1_next_lines(struct pd_http1 *p, const char *data, size_t n, size_t *used);

/* What llhttp makes of the same head; PD_HTTP_REJECT_NONE when it agrees.  Asked
 * about heads whose framing is more than a number or nothing, and about methods
 * that we do not know; t/fuzz/http1.c asks about every head. */
enum pd_http_reject pd_http1_second_opinion(const struct pd_http1 *p);

/* Chunked bodies.  States of struct pd_http1. */
enum {
    PD_HTTP1_S_HEAD = 0,
    PD_HTTP1_S_READY,           /* head told, body not begun */
    PD_HTTP1_S_LENGTH,
    PD_HTTP1_S_UNTIL_CLOSE,
    PD_HTTP1_S_CHUNK_SIZE,
    PD_HTTP1_S_EXT_NAME_FIRST,
    PD_HTTP1_S_EXT_NAME,
    PD_HTTP1_S_EXT_VALUE_FIRST,
    PD_HTTP1_S_EXT_VALUE,
    PD_HTTP1_S_EXT_QUOTED,
    PD_HTTP1_S_EXT_ESCAPE,
    PD_HTTP1_S_EXT_AFTER_QUOTE,
    PD_HTTP1_S_CHUNK_LF,
    PD_HTTP1_S_CHUNK_DATA,
    PD_HTTP1_S_DATA_CR,
    PD_HTTP1_S_DATA_LF,
    PD_HTTP1_S_TRAILER_FIRST,
    PD_HTTP1_S_TRAILER_NAME,
    PD_HTTP1_S_TRAILER_VALUE,
    PD_HTTP1_S_TRAILER_LF,
    PD_HTTP1_S_END_LF,
    PD_HTTP1_S_DONE,
    PD_HTTP1_S_BAD
};

/* One event of a chunked body; as pd_http1_next. */
enum pd_http1_event pd_http1_chunked_next(struct pd_http1 *p, const char *data, size_t n,
                                          size_t *used, struct pd_str *body);
/* A chunk that is there with its size, both line ends and nothing unusual, read where
 * a size may begin.  False: it is read bit by bit, and nothing was used yet. */
bool pd_http1_whole_chunk(struct pd_http1 *p, const char *data, size_t n, size_t *used,
                          struct pd_str *body);
/* Whether n bytes are one chunk and nothing else, with the size line that we would write:
 * lower case, no zero in front.  Then it is read. */
static inline bool pd_http1_only_chunk(struct pd_http1 *p, const char *data, size_t n, struct pd_str *body)
{
    size_t digits = n < 5 + 0x10 ? 1 : n < 6 + 0x100 ? 2 : n < 7 + 0x1000 ? 3 : 4;
    size_t size = n - 4 - digits, left = size;

    if (p->state != PD_HTTP1_S_CHUNK_SIZE || p->digits != 0 || p->excess > 2 || n < 6 ||
        n >= 8 + 0x10000 || size > p->body_limit - p->body_bytes)
        return false;
    for (size_t i = digits; i-- > 0; left >>= 4)
        if (data[i] != "0123456789abcdef"[left & 15])
            return false;
    if (data[0] == '0' || memcmp(data + digits, "\r\n", 2) != 0 || memcmp(data + n - 2, "\r\n", 2) != 0)
        return false;
    p->excess = 2;
    p->body_bytes += size;
    *body = (struct pd_str){ data + digits + 2, size };
    return true;
}
/* The same of several, at most PD_HTTP1_CHUNKS; returns their number, 0: nothing was read. */
#define PD_HTTP1_CHUNKS 16u
size_t pd_http1_only_chunks(struct pd_http1 *p, const char *data, size_t n, struct pd_str bodies[PD_HTTP1_CHUNKS]);

enum pd_http1_event pd_http1_refuse(struct pd_http1 *p, enum pd_http_reject reject);

#endif
