/* SPDX-License-Identifier: Apache-2.0 */
/* Strict HTTP/1.1 messages: the head of a request or response parsed at once,
 * the body as spans of the caller's bytes, and every refusal with its status.
 *
 * A message is accepted only when our own line rules, which leave no room for two
 * readings, accept it; llhttp must agree where it is sent in chunks.
 * One thread at a time; no I/O here. */
#ifndef PD_NET_HTTP1_H
#define PD_NET_HTTP1_H

#include "base/buf.h"

#include <pdplane/net.h>

/* Hard limits of the strict profile; struct pd_http1_limits may lower some. */
#define PD_HTTP1_LINE (8 * 1024)
#define PD_HTTP1_HEAD (32 * 1024)
#define PD_HTTP1_HEADERS 100
#define PD_HTTP1_NAME 64
#define PD_HTTP1_METHOD 16
#define PD_HTTP1_CHUNK_EXT 256
#define PD_HTTP1_TRAILERS 16
/* Bytes of chunk framing that a message may waste beyond what its data excuses. */
#define PD_HTTP1_CHUNK_EXCESS (16 * 1024)

/* "GET"; "" for PD_HTTP_OTHER.  Never NULL. */
const char *pd_http_method_name(enum pd_http_method method);
/* "Not Found"; "Unknown" where there is no usual text.  Never NULL. */
const char *pd_http_status_text(uint32_t status);

/* Why a message is refused: symbol, status for the client (0: response side
 * only), code for the client, label for the counter, sentence. */
#define PD_HTTP_REJECT_TABLE(X) \
    X(LINE_END, 400, "invalid_framing", "line_end", "Lines must end with CRLF.") \
    X(REQUEST_LINE, 400, "invalid_request_line", "request_line", "The request line is malformed.") \
    X(METHOD, 501, "unknown_method", "method", "The method is not known.") \
    X(METHOD_REFUSED, 405, "method_not_allowed", "method_refused", "The method is not allowed.") \
    X(VERSION, 505, "unsupported_version", "version", \
      "Only HTTP/1.1 and HTTP/1.0 are spoken here.") \
    X(TARGET, 400, "invalid_target", "target", "The request target is malformed.") \
    X(URI_LENGTH, 414, "uri_too_long", "uri_length", "The request line is too long.") \
    X(HEADER_NAME, 400, "invalid_header", "header_name", "A header name is malformed.") \
    X(HEADER_VALUE, 400, "invalid_header", "header_value", \
      "A header value contains forbidden bytes.") \
    X(OBS_FOLD, 400, "invalid_header", "obs_fold", "Folded header lines are refused.") \
    X(HEADERS_SIZE, 431, "headers_too_large", "headers_size", "The header block is too large.") \
    X(HOST, 400, "invalid_host", "host", "Exactly one valid Host header is needed.") \
    X(CONTENT_LENGTH, 400, "invalid_content_length", "content_length", \
      "Content-Length must be one plain number.") \
    X(FRAMING_CONFLICT, 400, "invalid_framing", "framing_conflict", \
      "Content-Length and Transfer-Encoding exclude each other.") \
    X(TRANSFER_ENCODING, 501, "unsupported_transfer_encoding", "transfer_encoding", \
      "The only transfer encoding is chunked, once.") \
    X(TRANSFER_ENCODING_10, 400, "invalid_framing", "transfer_encoding_10", \
      "HTTP/1.0 has no transfer encoding.") \
    X(CONTENT_ENCODING, 415, "unsupported_encoding", "content_encoding", \
      "Encoded request bodies are not supported.") \
    X(EXPECT, 417, "expectation_failed", "expect", "The only expectation is 100-continue.") \
    X(CHUNK, 400, "invalid_chunk", "chunk", "The chunked body is malformed.") \
    X(TRAILER, 400, "invalid_trailer", "trailer", "The trailer is malformed or too large.") \
    X(BODY_SIZE, 413, "request_too_large", "body_size", "The body is too large.") \
    X(SECOND_OPINION, 400, "invalid_framing", "second_opinion", "The message is malformed.") \
    X(STATUS_LINE, 0, "engine_protocol", "status_line", "The status line is malformed.") \
    X(UPGRADE, 0, "engine_protocol", "upgrade", "The protocol must not be switched.") \
    X(TRUNCATED, 0, "engine_protocol", "truncated", "The message ended early.") \
    X(MEMORY, 503, "overloaded", "memory", "Out of memory.")

enum pd_http_reject {
    PD_HTTP_REJECT_NONE = 0,
#define PD_HTTP_REJECT_ENUM(sym, status, code, label, text) PD_HTTP_REJECT_##sym,
    PD_HTTP_REJECT_TABLE(PD_HTTP_REJECT_ENUM)
#undef PD_HTTP_REJECT_ENUM
    PD_HTTP_REJECTS
};

/* One row of the table; of PD_HTTP_REJECT_NONE all members are 0 or "". */
struct pd_http_reject_info {
    uint16_t status;
    const char *code;
    const char *label;
    const char *text;
};
const struct pd_http_reject_info *pd_http_reject_info(enum pd_http_reject reject);

/* The value of the first header with that name (given in lower case), or
 * { NULL, 0 }. */
struct pd_str pd_http_head_get(const struct pd_http_head *head, const char *name);
/* Whether a comma-separated list in any header of that name has this member
 * (both lower case); parameters behind ';' are ignored. */
bool pd_http_head_has_token(const struct pd_http_head *head, const char *name, const char *token);
/* Whether s may stand in a header value: no control bytes but HTAB. */
bool pd_http_is_value(struct pd_str s);

enum pd_http1_event {
    PD_HTTP1_MORE = 0,      /* everything was used, nothing to tell */
    PD_HTTP1_HEAD_DONE,     /* parser->head is valid */
    PD_HTTP1_BODY,          /* *body is a span of the given bytes */
    PD_HTTP1_DONE,          /* the message is complete; reset before the next */
    PD_HTTP1_BAD            /* parser->reject says why; final until reset */
};

struct pd_http1 {
    struct pd_http_head head;
    enum pd_http_reject reject;
    uint64_t body_bytes;        /* of this message so far */
    /* private */
    bool no_body;               /* response to HEAD */
    uint8_t state;
    uint8_t body_state;         /* that comes behind the head */
    uint8_t digits;
    uint8_t id_at;              /* x-request-id: index of its header and 1; 0: none */
    bool saw_empty_line;
    uint32_t ext_bytes;
    uint32_t trailers;
    uint32_t line_bytes;
    uint64_t excess;
    uint64_t left;              /* body or chunk bytes to come */
    size_t line_start;
    size_t n_headers;
    /* Kept by a reset.  Largest body; the caller may change it after HEAD_DONE.
     * Exceeding it gives PD_HTTP_REJECT_BODY_SIZE. */
    uint64_t body_limit;
    bool is_response;
    struct pd_buf text;         /* the raw head */
    struct pd_http_header *headers;
    size_t cap_headers;
    uint32_t window;            /* bytes in which heads were found so far */
};

/* A parser for requests, or for responses.  Allocates nothing yet. */
void pd_http1_init(struct pd_http1 *p, bool is_response, uint64_t body_limit);
void pd_http1_fini(struct pd_http1 *p);
/* Ready for the next message; keeps memory up to about 16 KiB. */
void pd_http1_reset(struct pd_http1 *p);
/* Gives back the memory of a head that was told: its texts and headers are empty
 * from now on, its numbers stay. */
void pd_http1_forget_head(struct pd_http1 *p);
/* Response side, before its bytes: the request was HEAD. */
void pd_http1_expect_no_body(struct pd_http1 *p);

/* Looks at n bytes, uses *used of them and tells one event.  Call again with
 * the rest until it says MORE (or DONE and the rest belongs to the next
 * message).  A message without a body gives HEAD_DONE, then DONE. */
enum pd_http1_event pd_http1_next(struct pd_http1 *p, const char *data, size_t n, size_t *used,
                                  struct pd_str *body);
/* The peer has closed: DONE for a response that lasts until then, MORE when no
 * byte of a message was seen, else BAD (truncated). */
enum pd_http1_event pd_http1_end_of_input(struct pd_http1 *p);

/* Body bytes with known length that are still to come and may be read straight
 * to where they belong; 0 while framing is to be parsed. */
uint64_t pd_http1_direct(const struct pd_http1 *p);
/* n bytes (at most that many) were read directly.  The next call of
 * pd_http1_next says DONE when they were the last. */
void pd_http1_direct_take(struct pd_http1 *p, uint64_t n);
/* The value of the first x-request-id of the head that was told, or { NULL, 0 }. */
struct pd_str pd_http1_id(const struct pd_http1 *p);
/* True from the first byte of a message until its end. */
bool pd_http1_is_inside(const struct pd_http1 *p);

#endif
