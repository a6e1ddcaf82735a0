/* SPDX-License-Identifier: Apache-2.0 */
/* Events of a server on their way to the client.  Only whole events are passed
 * on, byte for byte: when the server breaks off in the middle of one, the client
 * gets an error event and not a line that it cannot read.  What is held back is
 * the beginning of one event, at most RELAY_HELD_MAX bytes. */
#include "request.h"

#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define RELAY_HELD_MAX (1u << 20)

/* A line of `length` bytes that just ended, of which the first n are at p: is it
 * one of those that end an answer? */
static void line_look(struct relay *s, const char *p, size_t n, size_t length)
{
    if (n < 5 || memcmp(p, "data:", 5) != 0)
        return;
    size_t at = n > 5 && p[5] == ' ' ? 6 : 5;
    if (length == at + 6 && n >= at + 6 && memcmp(p + at, "[DONE]", 6) == 0)
        s->is_done = true;
    else if (n >= at + 8 && memcmp(p + at, "{\"error\"", 8) == 0)
        s->is_error = true;
    else
        s->n_data++;
}

/* Whether there is surely no line end in n bytes: no byte up to CR.  Blocks of the last
 * bytes overlap those before them. */
#if defined(__SSE2__)
static inline __m128i least_of_64(const char *p)
{
    __m128i a, b, c, d;
    memcpy(&a, p, sizeof a);
    memcpy(&b, p + 16, sizeof b);
    memcpy(&c, p + 32, sizeof c);
    memcpy(&d, p + 48, sizeof d);
    return _mm_min_epu8(_mm_min_epu8(a, b), _mm_min_epu8(c, d));
}

static bool is_one_line(const char *p, size_t n)
{
    const __m128i most = _mm_set1_epi8('\r');
    if (n < 64)
        return false;
    const char *last = p + n - 64;
    __m128i least = least_of_64(last);
    for (; p < last; p += 64)
        least = _mm_min_epu8(least, least_of_64(p));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(least, most), least)) == 0;
}
#else
static bool is_one_line(const char *p, size_t n)
{
    (void)p;
    (void)n;
    return false;
}
#endif

/* A line with data that the first bytes tell from the end of an answer and from an error. */
static inline bool is_plain_data(const char *p, size_t n)
{
    return n > 8 && memcmp(p, "data: {\"", 8) == 0 && p[8] != 'e';
}

/* Events that came as a whole, with lines that end with LF: the usual case. */
static bool look_at_whole(struct relay *s, struct pd_str piece)
{
    const char *p = piece.p, *end = p + piece.n;
    if (s->was_cr || s->line_n > 0 || piece.n < 2 || end[-1] != '\n' || end[-2] != '\n')
        return false;
    if (is_one_line(p, piece.n - 2)) {
        line_look(s, p, piece.n - 2, piece.n - 2);
    } else {
        if (memchr(p, '\r', piece.n) != NULL)
            return false;
        while (p < end) {
            const char *stop = memchr(p, '\n', (size_t)(end - p));
            line_look(s, p, (size_t)(stop - p), (size_t)(stop - p));
            /* Mostly an empty line follows. */
            p = stop + 1 < end && stop[1] == '\n' ? stop + 2 : stop + 1;
        }
    }
    s->was_boundary = true;
    return true;
}

/* Bytes of piece up to the end of its last whole event.  A line ends with LF,
 * CR or CR LF; an empty line ends an event. */
static __attribute__((noinline)) size_t whole_events(struct relay *s, struct pd_str piece)
{
    const char *p = piece.p, *end = p + piece.n, *whole = p;
    const char *cr = memchr(p, '\r', piece.n);     /* the next one; mostly there is none */
    while (p < end) {
        const char *line = p, *stop = p;
        if (*p == '\n' && s->was_cr) {
            s->was_cr = false;
            p++;
            if (s->was_boundary)
                whole = p;
            continue;
        }
        if (*p != '\n') {
            if (cr != NULL && cr < p)
                cr = memchr(p, '\r', (size_t)(end - p));
            stop = memchr(p, '\n', (size_t)(end - p));
            if (cr != NULL && (stop == NULL || cr < stop))
                stop = cr;
        }
        size_t n = (size_t)((stop != NULL ? stop : end) - p), have = n;
        if (stop == NULL || s->line_n > 0) {
            /* The line comes in pieces: its beginning is kept. */
            size_t room = s->line_n < sizeof s->line ? sizeof s->line - s->line_n : 0;
            if (room > 0)
                memcpy(s->line + s->line_n, p, n < room ? n : room);
            s->line_n += n;
            line = s->line;
            have = s->line_n < sizeof s->line ? s->line_n : sizeof s->line;
            n = s->line_n;
        }
        if (p != stop)
            s->was_boundary = s->was_cr = false;
        if (stop == NULL)
            break;
        s->was_cr = *stop == '\r';
        p = stop + 1;
        s->was_boundary = n == 0;
        if (n == 0)
            whole = p;
        else
            line_look(s, line, have, n);
        s->line_n = 0;
    }
    return (size_t)(whole - piece.p);
}

static bool hold(struct relay *s, struct pd_str bytes)
{
    if (bytes.n == 0)
        return true;
    if (s->held_n + bytes.n > RELAY_HELD_MAX)
        return false;
    if (s->held_n + bytes.n > s->held_cap) {
        size_t cap = (s->held_n + bytes.n) * 2;
        char *p = realloc(s->held, cap);
        if (p == NULL)
            return false;
        s->held = p;
        s->held_cap = cap;
    }
    memcpy(s->held + s->held_n, bytes.p, bytes.n);
    s->held_n += bytes.n;
    return true;
}

bool relay_piece(struct request *q, struct pd_str piece, size_t *queued)
{
    struct relay *s = &q->relay;
    const struct pd_net_api *net = q->router->net;
    s->n_data = 0;
    size_t whole = look_at_whole(s, piece) ? piece.n : whole_events(s, piece);
    *queued = 0;
    /* What a server sends with one event counts as one token. */
    if (s->n_data > 0)
        q->router->req->tokens(q->router->reqs, q->record, s->n_data, pd_loop_now(q->router->loop));
    if (whole > 0) {
        if (s->held_n > 0)
            net->write(q->http, (struct pd_str){ s->held, s->held_n });
        s->held_n = 0;
        *queued = net->write(q->http, (struct pd_str){ piece.p, whole });
    }
    return hold(s, (struct pd_str){ piece.p + whole, piece.n - whole });
}

/* Whether a piece is one event of one line, of those that do not end an answer. */
static inline bool is_plain_event(struct pd_str piece)
{
    const char *end = piece.p + piece.n;
    return piece.n >= 66 && end[-1] == '\n' && end[-2] == '\n' && is_plain_data(piece.p, piece.n - 2) &&
           is_one_line(piece.p, piece.n - 2);
}

bool relay_chunks(struct pd_http_call *call, const struct pd_str *bodies, size_t n, struct pd_str chunks, void *arg)
{
    struct request *q = arg;
    struct relay *s = &q->relay;
    (void)call;
    if (!q->forward_sse || s->n_reads < RELAY_LONG || s->was_cr || s->line_n > 0 || s->held_n > 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_plain_event(bodies[i]))
            return false;
    if (!q->router->net->pass(q->http, chunks))
        return false;
    s->was_boundary = true;
    /* What a server sends with one event counts as one token. */
    for (size_t i = 0; i < n; i++)
        q->router->req->tokens(q->router->reqs, q->record, 1, pd_loop_now(q->router->loop));
    return true;
}

bool relay_look(struct relay *s, struct pd_str piece)
{
    s->n_data = 0;
    return whole_events(s, piece) > 0;
}

void relay_rest(struct request *q)
{
    if (q->relay.held_n > 0)
        q->router->net->write(q->http, (struct pd_str){ q->relay.held, q->relay.held_n });
    q->relay.held_n = 0;
}

void relay_reset(struct request *q)
{
    free(q->relay.held);
    memset(&q->relay, 0, sizeof q->relay);
}
