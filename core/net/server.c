/* SPDX-License-Identifier: Apache-2.0 */
/* The server as an object: options, listeners, routes, drain and close.
 *
 * Invariant: the server lives until its last connection is gone; it is freed in
 * its own deferred task, never inside a caller's call. */
#include "net/server_int.h"

#include "base/mem.h"
#include "base/str.h"
#include "net/tls.h"

#include <string.h>

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
    return value != 0 ? value : fallback;
}

static void fill_options(struct pd_http_server_opts *o)
{
    if (o->name == NULL)
        o->name = "http";
    o->max_conns = (uint32_t)or_default(o->max_conns, 8192);
    o->body_limit = or_default(o->body_limit, 8u << 20);
    o->high_water = (uint32_t)or_default(o->high_water, 256u << 10);
    o->low_water = (uint32_t)or_default(o->low_water, 64u << 10);
    o->max_queued = or_default(o->max_queued, 8u << 20);
    o->idle_ns = or_default(o->idle_ns, 75 * PD_SEC);
    o->head_ns = or_default(o->head_ns, 10 * PD_SEC);
    o->body_ns = or_default(o->body_ns, 30 * PD_SEC);
    o->write_ns = or_default(o->write_ns, 60 * PD_SEC);
    o->linger_ns = or_default(o->linger_ns, PD_SEC);
}

static void free_server(struct pd_http_server *s)
{
    struct pd_list *link;

    while ((link = pd_list_pop(&s->req_pool)) != NULL)
        pd_http_req_free(PD_LIST_ENTRY(link, struct pd_http_req, link));
    while ((link = pd_list_pop(&s->conn_pool)) != NULL)
        pd_free(PD_LIST_ENTRY(link, struct pd_http_conn, link));
    pd_buf_fini(&s->text);
    pd_free(s->scratch);
    pd_free(s);
}

static void server_task(struct pd_task *task, void *arg)
{
    struct pd_http_server *s = arg;
    void (*cb)(void *arg);
    void *cb_arg;

    (void)task;
    if (s->n_conns > 0)
        return;
    if (s->is_draining && s->on_drained != NULL) {
        cb = s->on_drained;
        s->on_drained = NULL;
        cb(s->drained_arg);
    }
    if (s->is_closing) {
        cb = s->on_closed;
        cb_arg = s->closed_arg;
        free_server(s);
        if (cb != NULL)
            cb(cb_arg);
    }
}

pd_status pd_http_server_create(struct pd_loop *loop, const struct pd_http_server_opts *opts,
                                struct pd_http_server **out)
{
    struct pd_http_server *s;

    if (opts != NULL && opts->size != sizeof(*opts))
        return PD_EINVAL;
    s = pd_calloc(1, sizeof(*s));
    if (s == NULL)
        return PD_ENOMEM;
    s->scratch = pd_alloc(PD_HTTP_SCRATCH);
    if (s->scratch == NULL) {
        pd_free(s);
        return PD_ENOMEM;
    }
    s->loop = loop;
    if (opts != NULL)
        s->opts = *opts;
    fill_options(&s->opts);
    pd_list_init(&s->conns);
    pd_list_init(&s->conn_pool);
    pd_list_init(&s->req_pool);
    pd_buf_init(&s->text, 64 << 10);
    pd_task_init(&s->task, s->opts.name, server_task, s);
    pd_http_conn_stream_events(s);
    s->id_prefix = pd_loop_random_u64(loop);
    s->id_seed = pd_loop_random_u64(loop);
    *out = s;
    return PD_OK;
}

static pd_status adopt(struct pd_http_server *s, struct pd_stream *stream, struct pd_keys *keys)
{
    pd_status status = PD_OK;

    if (s->is_draining || s->is_closing || s->n_conns >= s->opts.max_conns) {
        s->stats.refused++;
        status = PD_ELIMIT;
    }
    if (s->is_closing || s->n_conns >= (size_t)s->opts.max_conns + PD_HTTP_REFUSING) {
        pd_stream_close(stream);
        return PD_ELIMIT;
    }
    if (pd_http_conn_open(s, stream, keys, status != PD_OK) != PD_OK) {
        s->stats.memory_failures++;
        pd_stream_close(stream);
        return PD_ENOMEM;
    }
    return status;
}

static void on_accept(struct pd_listener *l, struct pd_stream *stream, void *arg)
{
    const struct pd_http_door *door = arg;

    (void)l;
    if (door->tls != NULL && pd_tls_accept(door->tls, stream, &stream) != PD_OK)
        door->server->stats.refused++;
    else
        (void)adopt(door->server, stream, door->keys);
}

pd_status pd_http_server_adopt(struct pd_http_server *s, struct pd_stream *stream)
{
    return adopt(s, stream, NULL);
}

pd_status pd_http_server_listen(struct pd_http_server *s, const struct pd_addr *addr,
                                const struct pd_listener_opts *opts)
{
    return pd_http_server_listen_as(s, addr, opts, NULL, NULL);
}

pd_status pd_http_server_listen_as(struct pd_http_server *s, const struct pd_addr *addr,
                                   const struct pd_listener_opts *opts, struct pd_tls *tls,
                                   struct pd_keys *keys)
{
    struct pd_listener_opts mine;
    struct pd_http_door *door;
    pd_status status;

    if (s->n_listeners == PD_HTTP_MAX_LISTENERS)
        return PD_ELIMIT;
    if (opts == NULL) {
        memset(&mine, 0, sizeof(mine));
        mine.size = sizeof(mine);
        mine.name = s->opts.name;
        opts = &mine;
    }
    door = &s->doors[s->n_listeners];
    *door = (struct pd_http_door){ .server = s, .tls = tls, .keys = keys };
    status = pd_listener_open(s->loop, addr, opts, on_accept, door, &door->listener);
    if (status == PD_OK)
        s->n_listeners++;
    return status;
}

pd_status pd_http_server_addr(struct pd_http_server *s, size_t i, struct pd_addr *out)
{
    return i < s->n_listeners ? pd_listener_addr(s->loop, s->doors[i].listener, out) : PD_ENOENT;
}

pd_status pd_http_server_route(struct pd_http_server *s, const struct pd_http_route *route)
{
    if (route->path == NULL || route->path[0] != '/' || route->methods == 0 ||
        route->on_request == NULL)
        return PD_EINVAL;
    for (size_t i = 0; i < s->n_routes; i++)
        if (strcmp(s->routes[i].path, route->path) == 0 &&
            (s->routes[i].methods & route->methods) != 0)
            return PD_EEXIST;
    if (s->n_routes == PD_HTTP_MAX_ROUTES)
        return PD_ELIMIT;
    s->routes[s->n_routes++] = *route;
    return PD_OK;
}

pd_status pd_http_server_unroute(struct pd_http_server *s, const char *path)
{
    size_t kept = 0, n = s->n_routes;

    for (size_t i = 0; i < n; i++)
        if (strcmp(s->routes[i].path, path) != 0)
            s->routes[kept++] = s->routes[i];
    s->n_routes = kept;
    return kept == n ? PD_ENOENT : PD_OK;
}

const struct pd_http_route *pd_http_server_find(const struct pd_http_server *s,
                                                struct pd_str path, enum pd_http_method method,
                                                uint32_t *allowed)
{
    uint32_t bit = 1u << (method == PD_HTTP_HEAD ? PD_HTTP_GET : method);

    *allowed = 0;
    for (size_t i = 0; i < s->n_routes; i++) {
        if (!pd_str_is(path, s->routes[i].path))
            continue;
        *allowed |= s->routes[i].methods;
        if ((s->routes[i].methods & (bit | 1u << method)) != 0)
            return &s->routes[i];
    }
    return NULL;
}

static void close_listeners(struct pd_http_server *s)
{
    for (size_t i = 0; i < s->n_listeners; i++)
        pd_listener_close(s->loop, s->doors[i].listener);
    s->n_listeners = 0;
}

void pd_http_server_conn_gone(struct pd_http_server *s)
{
    if (s->n_conns == 0 && (s->is_draining || s->is_closing))
        pd_loop_defer(s->loop, &s->task);
}

void pd_http_server_drain(struct pd_http_server *s, void (*on_drained)(void *arg), void *arg)
{
    s->is_draining = true;
    s->on_drained = on_drained;
    s->drained_arg = arg;
    s->drained_at = pd_loop_clock(s->loop);
    close_listeners(s);
    PD_LIST_EACH(&s->conns, link)
        pd_http_conn_arm(PD_LIST_ENTRY(link, struct pd_http_conn, link));
    pd_http_server_conn_gone(s);
}

void pd_http_server_close(struct pd_http_server *s, void (*on_closed)(void *arg), void *arg)
{
    s->is_closing = true;
    s->on_drained = NULL;
    s->on_closed = on_closed;
    s->closed_arg = arg;
    close_listeners(s);
    PD_LIST_EACH(&s->conns, link)
        pd_http_conn_fail(PD_LIST_ENTRY(link, struct pd_http_conn, link), PD_ECANCELED);
    pd_http_server_conn_gone(s);
}

const struct pd_http_server_stats *pd_http_server_stats(const struct pd_http_server *s)
{
    return &s->stats;
}

struct pd_loop *pd_http_server_loop(const struct pd_http_server *s)
{
    return s->loop;
}
