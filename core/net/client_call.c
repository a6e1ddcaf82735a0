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
#include "net/digest.h"
#include "net/tls.h"

#include <string.h>

#define HEAD_LIMIT (64 * 1024)
#define END_ROOM 64             /* what ends a head, and what is written behind it on the way */
#define KEEP_HEAD (8 * 1024)

static inline struct pd_http_call *get_call(struct pd_http_client *c)
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

    if (c->n_call_pool >= PD_HTTP_CLIENT_POOL) {
        pd_http_call_free(call);
        return;
    }
    drop_body(call);
    pd_http1_reset(&call->parser);
    pd_buf_clear(&call->head);
    if (call->head.cap > KEEP_HEAD)
        pd_buf_fini(&call->head);
    pd_zero(&call->client, sizeof(*call) - offsetof(struct pd_http_call, client));
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

static size_t headers_room(const struct pd_http_header *headers, size_t n)
{
    size_t room = 0;

    for (size_t i = 0; i < n; i++)
        room += headers[i].name.n + headers[i].value.n + 4;
    return room;
}

/* Headers that the caller gave, for which there is room; NULL: one is not legal. */
static char *put_headers(char *to, const struct pd_http_header *headers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct pd_str name = headers[i].name, value = headers[i].value;
        if (name.n > PD_HTTP1_NAME || !pd_http1_is_name(name) || !pd_http_is_value(value))
            return NULL;
        if (is_ours(name))
            continue;
        to = put(put(to, name), PD_STR(": "));
        to = put(put(to, value), PD_STR("\r\n"));
    }
    return to;
}

/* The head as far as it is the same for all calls of a way. */
static pd_status begin_head(struct pd_buf *b, const struct pd_http_call_opts *o)
{
    pd_status status;
    char *to;

    if (o->method == PD_HTTP_OTHER || (unsigned)o->method >= PD_HTTP_METHODS ||
        !is_target(o->target) || !is_host(o->host))
        return PD_EINVAL;
    status = pd_buf_reserve(b, o->target.n + o->host.n + 96 + END_ROOM + headers_room(o->headers, o->n_headers));
    if (status != PD_OK)
        return status;
    to = put(pd_buf_tail(b), pd_str_from(pd_http_method_name(o->method)));
    *to++ = ' ';
    to = put(put(to, o->target), PD_STR(" HTTP/1.1\r\nhost: "));
    to = put(put(to, o->host), PD_STR("\r\n"));
    to = put_headers(to, o->headers, o->n_headers);
    if (to == NULL)
        return PD_EINVAL;
    b->n = (size_t)(to - b->p);
    return PD_OK;
}

/* END_ROOM bytes at most. */
static inline char *end_head(char *to, enum pd_http_method method, uint64_t length)
{
    if (length > 0 || method == PD_HTTP_POST || method == PD_HTTP_PUT || method == PD_HTTP_PATCH)
        to = put(pd_http1_put_u64(put(to, PD_STR("content-length: ")), length), PD_STR("\r\n"));
    return put(to, PD_STR("\r\n"));
}

/* The body, and the end of the head that was begun and has room for it. */
static PD_ALWAYS_INLINE pd_status put_body(struct pd_http_call *call, enum pd_http_method method,
                          const struct pd_iov *body, size_t n)
{
    uint64_t length = 0;

    if (n > PD_HTTP_CALL_IOV)
        return PD_EINVAL;
    call->body = n <= PD_HTTP_CALL_FEW ? call->few : pd_realloc_array(NULL, n, sizeof(call->body[0]));
    if (call->body == NULL)
        return PD_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        call->body[i] = body[i];
        length += body[i].len;
    }
    call->n_body = n;
    call->head.n = (size_t)(end_head(pd_buf_tail(&call->head), method, length) - call->head.p);
    call->total = call->head.n + length;
    call->is_head = method == PD_HTTP_HEAD;
    return PD_OK;
}

static void put_limits(struct pd_http_call *call, pd_time connect_ns, pd_time first_byte_ns,
                       pd_time idle_ns, uint64_t body_limit)
{
    const struct pd_http_client_opts *d = &call->client->opts;

    call->connect_ns = connect_ns != 0 ? connect_ns : d->connect_ns;
    call->first_byte_ns = first_byte_ns != 0 ? first_byte_ns : d->first_byte_ns;
    call->idle_ns = idle_ns != 0 ? idle_ns : d->idle_ns;
    call->parser.body_limit = body_limit != 0 ? body_limit : d->body_limit;
}

static inline pd_status place(struct pd_http_call *call, bool is_fresh)
{
    struct pd_http_client *c = call->client;
    struct pd_http_origin *origin = call->origin;
    struct pd_list *idle = is_fresh ? NULL : pd_list_first(&origin->idle);

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

/* A call that has nothing yet. */
static inline pd_status make_call(struct pd_http_client *c, const struct pd_http_call_events *ev, void *arg,
                           struct pd_http_call **out)
{
    struct pd_http_call *call;

    if (ev->on_end == NULL || ev->on_error == NULL)
        return PD_EINVAL;
    if (c->is_closing)
        return PD_ECANCELED;
    call = get_call(c);
    if (call == NULL)
        return PD_ENOMEM;
    call->client = c;
    call->ev = ev;
    call->arg = arg;
    *out = call;
    return PD_OK;
}

/* Gives a call that is filled to its origin; status: of filling it.  *out is set when
 * there is a call, and not otherwise. */
static inline pd_status launch(struct pd_http_call *call, pd_status status, bool is_fresh,
                        struct pd_http_call **out)
{
    struct pd_http_client *c = call->client;

    if (status == PD_OK)
        status = place(call, is_fresh);
    if (status == PD_OK) {
        c->stats.calls++;
        *out = call;
        return PD_OK;
    }
    c->stats.refused += status == PD_ELIMIT;
    if (call->origin != NULL)
        pd_http_origin_pump(call->origin);
    put_call(call);
    return status;
}

pd_status pd_http_call_start(struct pd_http_client *c, const struct pd_http_call_opts *opts,
                             const struct pd_http_call_events *ev, void *arg,
                             struct pd_http_call **out)
{
    struct pd_http_call *call;
    pd_status status = opts->size != sizeof(*opts) ? PD_EINVAL : make_call(c, ev, arg, &call);

    if (status != PD_OK)
        return status;
    status = begin_head(&call->head, opts);
    if (status == PD_OK)
        status = put_body(call, opts->method, opts->body, opts->n_body);
    call->can_replay = opts->is_replayable != 0 || opts->method == PD_HTTP_GET || call->is_head;
    put_limits(call, opts->connect_ns, opts->first_byte_ns, opts->idle_ns, opts->body_limit);
    if (status == PD_OK)
        call->origin = pd_http_origin_get(c, &opts->addr, opts->host, opts->tls, &status);
    return launch(call, status, opts->fresh != 0, out);
}

/* ---- ways ---- */

pd_status pd_http_way_open(struct pd_http_client *c, const struct pd_http_call_opts *opts,
                           struct pd_http_way **out)
{
    struct pd_http_way *way;
    pd_status status;

    if (opts->size != sizeof(*opts))
        return PD_EINVAL;
    way = pd_calloc(1, sizeof(*way));
    if (way == NULL)
        return PD_ENOMEM;
    way->client = c;
    way->addr = opts->addr;
    way->tls = opts->tls;
    pd_tls_hold(way->tls);
    way->method = opts->method;
    pd_list_init(&way->link);
    pd_buf_init(&way->head, HEAD_LIMIT);
    status = begin_head(&way->head, opts);
    if (status != PD_OK) {
        pd_http_way_close(way);
        return status;
    }
    size_t at = strlen(pd_http_method_name(opts->method)) + opts->target.n + 18;
    way->host = pd_str_of(way->head.p + at, opts->host.n);
    *out = way;
    return PD_OK;
}

void pd_http_way_close(struct pd_http_way *way)
{
    if (way == NULL)
        return;
    pd_list_remove(&way->link);
    pd_tls_release(way->tls);
    /* It may hold the key that the server wants. */
    if (way->head.base != NULL)
        pd_secret_wipe(way->head.base, way->head.cap);
    pd_buf_fini(&way->head);
    pd_free(way);
}

static pd_status find_origin(struct pd_http_way *way)
{
    pd_status status = PD_OK;

    if (way->origin != NULL)
        return PD_OK;
    way->origin = pd_http_origin_get(way->client, &way->addr, way->host, way->tls, &status);
    if (way->origin == NULL)
        return status;
    pd_list_append(&way->origin->ways, &way->link);
    return PD_OK;
}

pd_status pd_http_way_call(struct pd_http_way *way, const struct pd_http_way_call *o,
                           const struct pd_http_call_events *ev, void *arg,
                           struct pd_http_call **out)
{
    struct pd_http_call *call;
    struct pd_buf *b;
    pd_status status = make_call(way->client, ev, arg, &call);
    char *to;

    if (status != PD_OK)
        return status;
    b = &call->head;
    status = pd_http1_is_value(o->id.p, o->id.n, 0) ? pd_buf_reserve(b, way->head.n + o->id.n + 32 + END_ROOM)
                                                    : PD_EINVAL;
    if (status == PD_OK) {
        to = put(pd_buf_tail(b), pd_buf_str(&way->head));
        if (o->id.n > 0)
            to = put(put(put(to, PD_STR("x-request-id: ")), o->id), PD_STR("\r\n"));
        b->n = (size_t)(to - b->p);
        status = put_body(call, way->method, o->body, o->n_body);
    }
    call->can_replay = o->is_replayable != 0 || way->method == PD_HTTP_GET || call->is_head;
    put_limits(call, 0, o->first_byte_ns, o->idle_ns, o->body_limit);
    if (status == PD_OK)
        status = find_origin(way);
    if (status == PD_OK)
        call->origin = way->origin;
    return launch(call, status, false, out);
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
