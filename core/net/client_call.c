/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: built from their options, queued or given to a connection, ended once.
 *
 * Invariant: a call that has told its owner about its end is not touched again;
 * the request head is written by us alone, from checked parts. */
#include "net/client_int.h"
#include "net/http1_int.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#define HEAD_LIMIT (64 * 1024)
#define KEEP_HEAD (8 * 1024)

static struct pd_http_call *get_call(struct pd_http_client *c)
{
    struct pd_list *link = pd_list_pop(&c->call_pool);
    struct pd_http_call *call;

    if (link != NULL) {
        c->n_call_pool--;
        return PD_LIST_ENTRY(link, struct pd_http_call, link);
    }
    call = pd_calloc(1, sizeof(*call));
    if (call == NULL)
        return NULL;
    pd_list_init(&call->link);
    pd_buf_init(&call->head, HEAD_LIMIT);
    pd_http1_init(&call->parser, true, 0);
    return call;
}

static void drop_body(struct pd_http_call *call)
{
    if (call->body != call->few)
        pd_free(call->body);
    call->body = NULL;
}

void pd_http_call_free(struct pd_http_call *call)
{
    pd_buf_fini(&call->head);
    pd_http1_fini(&call->parser);
    drop_body(call);
    pd_free(call);
}

static void put_call(struct pd_http_call *call)
{
    struct pd_http_client *c = call->client;
    struct pd_buf head = call->head;
    struct pd_http1 parser;

    if (c->n_call_pool >= PD_HTTP_CLIENT_POOL) {
        pd_http_call_free(call);
        return;
    }
    drop_body(call);
    pd_http1_reset(&call->parser);
    parser = call->parser;
    pd_buf_clear(&head);
    if (head.cap > KEEP_HEAD)
        pd_buf_fini(&head);
    memset(call, 0, sizeof(*call));
    call->head = head;
    call->parser = parser;
    pd_list_prepend(&c->call_pool, &call->link);
    c->n_call_pool++;
}

/* ---- the request ---- */

/* Whether every byte is of the class. */
static inline bool all_are(struct pd_str s, unsigned char class)
{
    unsigned char all = class;

    for (size_t i = 0; i < s.n; i++)
        all &= pd_http1_classes[(unsigned char)s.p[i]];
    return all != 0;
}

static bool is_target(struct pd_str s)
{
    return s.n > 0 && s.n <= PD_HTTP1_LINE - 64 && s.p[0] == '/' && all_are(s, PD_HTTP1_TARGET);
}

static bool is_host(struct pd_str s)
{
    return s.n > 0 && s.n <= 255 && all_are(s, PD_HTTP1_AUTHORITY);
}

static bool is_ours(struct pd_str name)
{
    static const struct pd_str names[] = {
        PD_STR("host"), PD_STR("content-length"), PD_STR("transfer-encoding"), PD_STR("connection"),
        PD_STR("keep-alive"), PD_STR("upgrade"), PD_STR("te"), PD_STR("trailer"), PD_STR("expect"),
        PD_STR("proxy-connection"), PD_STR("proxy-authorization"),
    };
    static const uint32_t lengths = 1u << 2 | 1u << 4 | 1u << 6 | 1u << 7 | 1u << 10 | 1u << 14 |
                                    1u << 16 | 1u << 17 | 1u << 19;

    if (name.n > 19 || (lengths >> name.n & 1) == 0)
        return false;
    for (size_t i = 0; i < PD_ARRAY_LEN(names); i++)
        if (name.n == names[i].n && pd_str_eq_nocase(name, names[i]))
            return true;
    return false;
}

static char *put(char *to, struct pd_str s)
{
    memcpy(to, s.p, s.n);
    return to + s.n;
}

/* Bytes that a head has at most. */
static size_t head_room(const struct pd_http_call_opts *o)
{
    size_t n = o->target.n + o->host.n + 96;

    for (size_t i = 0; i < o->n_headers; i++)
        n += o->headers[i].name.n + o->headers[i].value.n + 4;
    return n;
}

static pd_status put_head(struct pd_http_call *call, const struct pd_http_call_opts *o,
                          uint64_t length)
{
    struct pd_buf *b = &call->head;
    pd_status status;
    char *to;

    if (o->method == PD_HTTP_OTHER || (unsigned)o->method >= PD_HTTP_METHODS ||
        !is_target(o->target) || !is_host(o->host))
        return PD_EINVAL;
    status = pd_buf_reserve(b, head_room(o));
    if (status != PD_OK)
        return status;
    to = put(pd_buf_tail(b), pd_str_from(pd_http_method_name(o->method)));
    *to++ = ' ';
    to = put(put(to, o->target), PD_STR(" HTTP/1.1\r\nhost: "));
    to = put(put(to, o->host), PD_STR("\r\n"));
    for (size_t i = 0; i < o->n_headers; i++) {
        struct pd_str name = o->headers[i].name, value = o->headers[i].value;
        if (name.n > PD_HTTP1_NAME || !pd_http1_is_name(name) || !pd_http_is_value(value))
            return PD_EINVAL;
        if (is_ours(name))
            continue;
        to = put(put(to, name), PD_STR(": "));
        to = put(put(to, value), PD_STR("\r\n"));
    }
    b->n = (size_t)(to - b->p);
    if (length > 0 || o->method == PD_HTTP_POST || o->method == PD_HTTP_PUT ||
        o->method == PD_HTTP_PATCH) {
        (void)pd_buf_append_str(b, PD_STR("content-length: "));
        (void)pd_buf_append_u64(b, length);
        (void)pd_buf_append(b, "\r\n", 2);
    }
    (void)pd_buf_append(b, "\r\n", 2);
    return b->status;
}

static pd_status fill(struct pd_http_call *call, const struct pd_http_call_opts *o)
{
    const struct pd_http_client_opts *d = &call->client->opts;
    uint64_t length = 0;
    pd_status status;

    if (o->n_body > PD_HTTP_CALL_IOV)
        return PD_EINVAL;
    call->body = o->n_body <= PD_HTTP_CALL_FEW ? call->few
                                               : pd_realloc_array(NULL, o->n_body, sizeof(call->body[0]));
    if (call->body == NULL)
        return PD_ENOMEM;
    for (size_t i = 0; i < o->n_body; i++) {
        call->body[i] = o->body[i];
        length += o->body[i].len;
    }
    call->n_body = o->n_body;
    status = put_head(call, o, length);
    if (status != PD_OK)
        return status;
    call->total = call->head.n + length;
    call->is_head = o->method == PD_HTTP_HEAD;
    call->can_replay = o->is_replayable != 0 || o->method == PD_HTTP_GET || call->is_head;
    call->connect_ns = o->connect_ns != 0 ? o->connect_ns : d->connect_ns;
    call->first_byte_ns = o->first_byte_ns != 0 ? o->first_byte_ns : d->first_byte_ns;
    call->idle_ns = o->idle_ns != 0 ? o->idle_ns : d->idle_ns;
    call->parser.body_limit = o->body_limit != 0 ? o->body_limit : d->body_limit;
    return PD_OK;
}

static pd_status place(struct pd_http_call *call, const struct pd_http_call_opts *o)
{
    struct pd_http_client *c = call->client;
    struct pd_http_origin *origin = call->origin;
    struct pd_list *idle = o->fresh != 0 ? NULL : pd_list_first(&origin->idle);

    if (idle != NULL) {
        pd_http_link_assign(PD_LIST_ENTRY(idle, struct pd_http_link, link), call);
        return PD_OK;
    }
    if (origin->n_conns < c->opts.max_conns)
        return pd_http_client_has_room(c) ? pd_http_link_open(origin, call) : PD_ELIMIT;
    if (origin->n_waiting >= c->opts.max_waiting)
        return PD_ELIMIT;
    pd_list_append(&origin->waiting, &call->link);
    origin->n_waiting++;
    c->stats.waiting++;
    c->stats.waited++;
    return PD_OK;
}

pd_status pd_http_call_start(struct pd_http_client *c, const struct pd_http_call_opts *opts,
                             const struct pd_http_call_events *ev, void *arg,
                             struct pd_http_call **out)
{
    struct pd_http_call *call;
    pd_status status;

    if (opts->size != sizeof(*opts) || ev->on_end == NULL || ev->on_error == NULL)
        return PD_EINVAL;
    if (c->is_closing)
        return PD_ECANCELED;
    call = get_call(c);
    if (call == NULL)
        return PD_ENOMEM;
    call->client = c;
    call->ev = ev;
    call->arg = arg;
    status = fill(call, opts);
    if (status == PD_OK)
        call->origin = pd_http_origin_get(c, &opts->addr, opts->host, opts->tls, &status);
    if (status == PD_OK)
        status = place(call, opts);
    if (status != PD_OK) {
        c->stats.refused += status == PD_ELIMIT;
        if (call->origin != NULL)
            pd_http_origin_pump(call->origin);
        put_call(call);
        return status;
    }
    c->stats.calls++;
    *out = call;
    return PD_OK;
}

/* ---- the end ---- */

void pd_http_call_done(struct pd_http_call *call)
{
    call->client->stats.ok++;
    call->ev->on_end(call, call->arg);
    put_call(call);
}

void pd_http_call_fail(struct pd_http_call *call, pd_status why)
{
    enum pd_http_fail fail = call->has_head ? PD_HTTP_FAIL_BODY
                             : call->got_bytes ? PD_HTTP_FAIL_HEAD
                             : call->sent > 0 ? PD_HTTP_FAIL_SENT : PD_HTTP_FAIL_CONNECT;

    call->client->stats.failed[fail]++;
    call->ev->on_error(call, fail, why, call->arg);
    put_call(call);
}

void pd_http_call_cancel(struct pd_http_call *call)
{
    struct pd_http_client *c = call->client;

    c->stats.canceled++;
    if (call->conn != NULL) {
        pd_http_link_close(call->conn);
    } else if (!pd_list_is_empty(&call->link)) {
        pd_list_remove(&call->link);
        call->origin->n_waiting--;
        c->stats.waiting--;
        pd_http_origin_pump(call->origin);
    }
    put_call(call);
}

static void left_end(struct pd_http_call *call, void *arg)
{
    (void)call;
    (void)arg;
}

static void left_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    (void)call;
    (void)fail;
    (void)why;
    (void)arg;
}

void pd_http_call_leave(struct pd_http_call *call)
{
    static const struct pd_http_call_events nobody = { .on_end = left_end, .on_error = left_error };

    if (call->conn == NULL || !pd_http_call_is_sent(call)) {
        pd_http_call_cancel(call);
        return;
    }
    call->ev = &nobody;
    call->arg = NULL;
    call->can_replay = false;
    if (call->is_paused)
        pd_http_call_resume(call);
}

void pd_http_call_pause(struct pd_http_call *call)
{
    call->is_paused = true;
    if (call->conn != NULL)
        pd_http_link_update_read(call->conn);
}

void pd_http_call_resume(struct pd_http_call *call)
{
    call->is_paused = false;
    if (call->conn != NULL && call->conn->state == PD_HTTP_LINK_BUSY) {
        pd_http_link_update_read(call->conn);
        pd_http_link_touch(call->conn);
    }
}

void *pd_http_call_arg(const struct pd_http_call *call)
{
    return call->arg;
}

bool pd_http_call_is_sent(const struct pd_http_call *call)
{
    return call->sent == call->total;
}

bool pd_http_call_lighten(struct pd_http_call *call)
{
    if (!call->has_head || !pd_http_call_is_sent(call))
        return false;
    pd_http1_forget_head(&call->parser);
    pd_buf_fini(&call->head);
    return true;
}

bool pd_http_call_is_reused(const struct pd_http_call *call)
{
    return call->was_reused;
}
