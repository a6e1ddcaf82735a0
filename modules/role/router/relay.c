/* SPDX-License-Identifier: Apache-2.0 */
/* Events of a server on their way to the client.  Only whole events are passed
 * on, byte for byte: when the server breaks off in the middle of one, the client
 * gets an error event and not a line that it cannot read.  What is held back is
 * the beginning of one event, at most RELAY_HELD_MAX bytes. */
#include "request.h"

#include <stdlib.h>
#include <string.h>

#define RELAY_HELD_MAX (1u << 20)

/* The line that just ended: is it one of those that end an answer? */
static void line_look(struct relay *s)
{
    const char *p = s->line;
    size_t n = s->line_n < sizeof s->line ? s->line_n : sizeof s->line;
    if (n < 5 || memcmp(p, "data:", 5) != 0)
        return;
    size_t at = n > 5 && p[5] == ' ' ? 6 : 5;
    if (s->line_n == at + 6 && memcmp(p + at, "[DONE]", 6) == 0)
        s->is_done = true;
    else if (n >= at + 8 && memcmp(p + at, "{\"error\"", 8) == 0)
        s->is_error = true;
    else
        s->n_data++;
}

/* Where the line at p ends: its LF or CR, or NULL. */
static const char *line_end(const char *p, size_t n)
{
    const char *lf = memchr(p, '\n', n);
    const char *cr = memchr(p, '\r', lf != NULL ? (size_t)(lf - p) : n);
    return cr != NULL ? cr : lf;
}

/* Bytes of piece up to the end of its last whole event.  A line ends with LF,
 * CR or CR LF; an empty line ends an event. */
static size_t whole_events(struct relay *s, struct pd_str piece)
{
    size_t whole = 0;
    for (size_t i = 0; i < piece.n;) {
        if (piece.p[i] == '\n' && s->was_cr) {
            s->was_cr = false;
            i++;
            if (s->was_boundary)
                whole = i;
            continue;
        }
        const char *end = line_end(piece.p + i, piece.n - i);
        size_t n = end != NULL ? (size_t)(end - piece.p) - i : piece.n - i;
        if (s->line_n < sizeof s->line) {
            size_t room = sizeof s->line - s->line_n;
            memcpy(s->line + s->line_n, piece.p + i, n < room ? n : room);
        }
        s->line_n += n;
        i += n;
        if (n > 0)
            s->was_boundary = s->was_cr = false;
        if (end == NULL)
            break;
        s->was_cr = *end == '\r';
        i++;
        s->was_boundary = s->line_n == 0;
        if (s->was_boundary)
            whole = i;
        else
            line_look(s);
        s->line_n = 0;
    }
    return whole;
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
    size_t whole = whole_events(s, piece);
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
