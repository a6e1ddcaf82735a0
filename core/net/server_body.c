/* SPDX-License-Identifier: Apache-2.0 */
/* The body of a request: where it stands, how much of it there may be, and how fast it
 * must come. */
#include "net/server_int.h"

#include "base/mem.h"

#include <string.h>

/* A long body whose first bytes stand in the memory that they were read to, with
 * room behind them, stays there. */
static bool keep_place(struct pd_http_req *req, const char *p, size_t need)
{
    struct pd_http_server *s = req->conn->server;
    size_t cap, at = (size_t)((uintptr_t)p - (uintptr_t)s->scratch);
    char *other;

    if (need <= PD_HTTP_KEEP_BODY || at >= PD_HTTP_SCRATCH || need > PD_HTTP_PLACE - at)
        return false;
    other = pd_http_body_get(s, PD_HTTP_PLACE, &cap);
    if (other == NULL)
        return false;
    pd_free(req->body_memory);
    req->body_memory = s->scratch;
    req->body = s->scratch + at;
    req->body_cap = PD_HTTP_PLACE - at;
    s->scratch = other;
    return true;
}

/* Room for the piece behind what is there. */
static pd_status make_body_room(struct pd_http_req *req, struct pd_str piece)
{
    const struct pd_http_head *h = &req->parser.head;
    size_t need = req->body_n + piece.n, cap;
    char *more;

    if (h->has_length && req->body_n == 0)
        need = (size_t)h->length;
    if (need <= req->body_cap)
        return PD_OK;
    if (h->has_length && req->body_n == 0 && keep_place(req, piece.p, need))
        return PD_OK;
    cap = req->body_cap < 4096 ? 4096 : req->body_cap;
    while (cap < need)
        cap *= 2;
    if (h->has_length)
        cap = (need + 511) & ~(size_t)511;
    if (cap > PD_HTTP_KEEP_BODY && req->body_n == 0) {
        more = pd_http_body_get(req->conn->server, cap, &cap);
        if (more != NULL)
            pd_free(req->body_memory);
    } else {
        more = pd_realloc(req->body_memory, cap);
    }
    if (more == NULL)
        return PD_ENOMEM;
    req->body = req->body_memory = more;
    req->body_cap = cap;
    return PD_OK;
}

bool pd_http_req_hold(struct pd_http_req *req, size_t n)
{
    struct pd_http_server *s = req->conn->server;

    req->body_n += n;
    req->held += n;
    s->stats.body_bytes += n;
    if (!pd_http_server_is_full(s))
        return true;
    pd_http_req_overload(req);
    return false;
}

/* A body must bring PD_HTTP_BODY_STEP bytes per body_ns; single bytes do not
 * keep a connection. */
void pd_http_conn_note_body(struct pd_http_conn *c, size_t n)
{
    c->body_bytes += (uint32_t)n;
    if (c->body_bytes < PD_HTTP_BODY_STEP)
        return;
    c->body_bytes = 0;
    c->since = pd_loop_now(c->server->loop);
}

void pd_http_conn_on_piece(struct pd_http_conn *c, struct pd_str piece)
{
    struct pd_http_req *req = c->req;

    pd_http_conn_note_body(c, piece.n);
    if (req->discard || req->is_ended)
        return;
    if (req->is_stream) {
        if (req->ev != NULL && req->ev->on_body != NULL)
            req->ev->on_body(req, piece, req->arg);
        return;
    }
    if (make_body_room(req, piece) != PD_OK) {
        c->server->stats.memory_failures++;
        pd_http_req_refuse(req, PD_HTTP_REJECT_MEMORY);
        return;
    }
    if (piece.p != req->body + req->body_n)
        memcpy(req->body + req->body_n, piece.p, piece.n);
    (void)pd_http_req_hold(req, piece.n);
}
