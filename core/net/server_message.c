/* SPDX-License-Identifier: Apache-2.0 */
/* Messages on a connection: a head finds its route, a body goes to its place, and a whole
 * request to its handler. */
#include "net/server_int.h"

#include "base/mem.h"
#include "base/str.h"

static void dispatch(struct pd_http_conn *c, bool is_stream)
{
    struct pd_http_req *req = c->req;
    uint32_t allowed;
    const struct pd_http_server *s = c->server;
    /* Looked up again when the owner may have left while the body came. */
    const struct pd_http_route *route =
        req->routes_serial == s->routes_serial
            ? &s->routes[req->route]
            : pd_http_server_find(s, req->parser.head.path, req->parser.head.method, &allowed);

    if (route == NULL) {
        c->server->stats.not_found++;
        pd_http_req_fail(req, 404, "unknown_path", "There is nothing here.");
        return;
    }
    if (!is_stream)
        pd_http_conn_change(c, PD_HTTP_CONN_READING, PD_HTTP_CONN_SERVING);
    req->is_dispatched = true;
    route->on_request(req, route->arg);
}

/* 0: the client may, and the request has its label; else the status that says no. */
static uint32_t look_at_key(struct pd_http_req *req)
{
    struct pd_keys *keys = req->conn->door == NULL ? NULL : req->conn->door->keys;
    const char *label;

    if (keys == NULL)
        return 0;
    label = pd_keys_find(keys, pd_keys_shown(&req->parser.head));
    if (label == NULL)
        return 401;
    if (req->label == NULL)
        req->label = pd_alloc(PD_KEYS_LABEL + 1);
    if (req->label == NULL)
        return 503;
    (void)pd_str_copy(pd_str_from(label), req->label, PD_KEYS_LABEL + 1);
    return 0;
}

static void deny(struct pd_http_req *req)
{
    if (req->deny == 401) {
        req->conn->server->stats.unauthorized++;
        pd_http_error(req, 401, "invalid_request_error", "invalid_api_key",
                      "Incorrect API key provided, or none.", NULL);
        return;
    }
    if (req->deny == 503) {
        req->conn->server->stats.memory_failures++;
        pd_http_req_overload(req);
        return;
    }
    if (req->deny == 405)
        req->conn->server->stats.method_not_allowed++;
    else
        req->conn->server->stats.not_found++;
    pd_http_req_fail(req, req->deny, req->deny == 405 ? "method_not_allowed" : "unknown_path",
                     req->deny == 405 ? "The method is not allowed here."
                                      : "There is nothing here.");
}

static void on_head(struct pd_http_conn *c)
{
    struct pd_http_server *s = c->server;
    struct pd_http_req *req = c->req;
    const struct pd_http_head *h = &req->parser.head;
    const struct pd_http_route *route = pd_http_server_find(s, h->path, h->method, &req->allow);
    uint64_t limit = PD_HTTP_DISCARD;

    req->has_head = true;
    req->start = pd_loop_now(s->loop);
    c->since = req->start;
    c->body_bytes = 0;
    s->stats.requests++;
    pd_http_req_make_id(req);
    req->no_body = h->method == PD_HTTP_HEAD;
    if (!(route != NULL && (route->flags & PD_HTTP_ROUTE_ALWAYS) != 0))
        req->deny = look_at_key(req);
    if (req->deny != 0) {
        req->discard = true;
    } else if (route == NULL) {
        req->deny = req->allow != 0 ? 405 : 404;
        req->discard = true;
    } else {
        req->route_flags = route->flags;
        req->route = (uint32_t)(route - s->routes);
        req->routes_serial = s->routes_serial;
        if (route->deadline_ns != 0)
            pd_http_req_set_deadline(req, route->deadline_ns);
        if (h->method == PD_HTTP_GET || h->method == PD_HTTP_HEAD ||
            h->method == PD_HTTP_DELETE) {
            req->discard = true;
        } else {
            /* Without a body the request is whole already. */
            req->is_stream = (route->flags & PD_HTTP_ROUTE_STREAM_BODY) != 0 &&
                             (h->is_chunked || (h->has_length && h->length > 0));
            limit = route->body_limit != 0 ? route->body_limit : s->opts.body_limit;
        }
    }
    req->parser.body_limit = limit;
    if (req->deny == 0 && (route->flags & PD_HTTP_ROUTE_ALWAYS) == 0 && pd_http_server_is_full(s)) {
        pd_http_req_overload(req);
        return;
    }
    if (h->has_length && h->length > limit) {
        pd_http_req_refuse(req, PD_HTTP_REJECT_BODY_SIZE);
        return;
    }
    if (h->expect_continue) {
        /* Who waits for our word gets the refusal instead of it. */
        if (req->deny != 0) {
            deny(req);
            return;
        }
        pd_http_req_continue(req);
    }
    if (req->is_stream)
        dispatch(c, true);
}

static void on_message_end(struct pd_http_conn *c)
{
    struct pd_http_req *req = c->req;

    req->body_done = true;
    if (req->deny != 0) {
        deny(req);
        return;
    }
    if (req->is_stream)
        pd_http_conn_set_state(c, PD_HTTP_CONN_SERVING);
    else
        dispatch(c, false);
    /* Handlers of streamed bodies hear of an end also where there was none. */
    if (c->req == req && !req->is_ended && req->is_dispatched && req->ev != NULL &&
        (req->route_flags & PD_HTTP_ROUTE_STREAM_BODY) != 0 && req->ev->on_body_end != NULL)
        req->ev->on_body_end(req, req->arg);
}

bool pd_http_conn_begin_req(struct pd_http_conn *c)
{
    c->req = pd_http_req_get(c->server);
    if (c->req == NULL) {
        c->server->stats.memory_failures++;
        pd_http_conn_fail(c, PD_ENOMEM);
        return false;
    }
    c->req->conn = c;
    pd_http_conn_change(c, PD_HTTP_CONN_IDLE, PD_HTTP_CONN_READING);
    return true;
}

size_t pd_http_conn_process(struct pd_http_conn *c, const char *p, size_t n)
{
    size_t at = 0, begun = 0;

    c->in_process = true;
    while (pd_http_conn_can_process(c)) {
        struct pd_http1 *parser;
        struct pd_str body;
        size_t used;

        /* Others' turn after a row of requests that were answered at once. */
        if (c->req == NULL && (at == n || begun++ == PD_HTTP_PIPELINE || !pd_http_conn_begin_req(c)))
            break;
        parser = &c->req->parser;
        enum pd_http1_event ev = pd_http1_next(parser, p + at, n - at, &used, &body);
        at += used;
        if (ev == PD_HTTP1_MORE)
            break;
        if (ev == PD_HTTP1_HEAD_DONE)
            on_head(c);
        else if (ev == PD_HTTP1_BODY)
            pd_http_conn_on_piece(c, body);
        else if (ev == PD_HTTP1_DONE)
            on_message_end(c);
        else {
            pd_http_req_gone(c->req, PD_EPROTO);
            pd_http_req_refuse(c->req, parser->reject);
        }
    }
    c->in_process = false;
    return at;
}
