/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the HTTP/1 parser share. */
#ifndef PD_NET_HTTP1_INT_H
#define PD_NET_HTTP1_INT_H

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
/* What pd_http1_is_value may look at behind a head's text. */
#define PD_HTTP1_SLACK 16u
/* Whether s is a name of letters, digits and dashes, as the names that we write are. */
static inline bool pd_http1_is_name(struct pd_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!pd_http1_is((unsigned char)s.p[i], PD_HTTP1_NAME_BYTE))
            return false;
    return s.n > 0;
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

/* Headers that decide about framing or must be right. */
struct pd_http1_found {
    struct pd_str host, length, encoding, expect, content_encoding;
    uint32_t n_host, n_length, n_encoding, n_expect, n_content_encoding;
    bool close, keep;
};
/* Members of a list of connection options. */
void pd_http1_note_connection(struct pd_str list, struct pd_http1_found *f);

/* A header that one of the rules is about; its name is in lower case. */
static inline void pd_http1_note(const struct pd_http_header *h, struct pd_http1_found *f)
{
    const char *name = h->name.p;

    switch (h->name.n) {
    case 4:
        if (memcmp(name, "host", 4) == 0) {
            f->host = h->value;
            f->n_host++;
        }
        break;
    case 6:
        if (memcmp(name, "expect", 6) == 0) {
            f->expect = h->value;
            f->n_expect++;
        }
        break;
    case 10:
        if (memcmp(name, "connection", 10) == 0)
            pd_http1_note_connection(h->value, f);
        break;
    case 14:
        if (memcmp(name, "content-length", 14) == 0) {
            f->length = h->value;
            f->n_length++;
        }
        break;
    case 16:
        if (memcmp(name, "content-encoding", 16) == 0) {
            f->content_encoding = h->value;
            f->n_content_encoding++;
        }
        break;
    case 17:
        if (memcmp(name, "transfer-encoding", 17) == 0) {
            f->encoding = h->value;
            f->n_encoding++;
        }
        break;
    default:
        break;
    }
}

/* The rules between headers.  The first line's parts are still offsets, the headers
 * stand in p->headers, and behind the text is room for the target. */
enum pd_http_reject pd_http1_decide(struct pd_http1 *p, const struct pd_http1_found *f);

/* The head at data, of a parser that has seen nothing yet.  False: it is not there as
 * a whole, or unusual, and the parser has still seen nothing. */
bool pd_http1_whole_head(struct pd_http1 *p, const char *data, size_t n, size_t *used,
                         enum pd_http_reject *reject);

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

enum pd_http1_event pd_http1_refuse(struct pd_http1 *p, enum pd_http_reject reject);

#endif
