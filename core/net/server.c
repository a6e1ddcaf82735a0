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
    o->max_refusing = (uint32_t)or_default(o->max_refusing, 64);
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
    while (s->n_bodies > 0)
        pd_free(s->bodies[--s->n_bodies].p);
    pd_buf_fini(&s->text);
    pd_buf_fini(&s->spare);
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
    s->scratch = pd_alloc(PD_HTTP_PLACE);
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
    pd_buf_init(&s->spare, 0);
    pd_task_init(&s->task, s->opts.name, server_task, s);
    pd_http_conn_stream_events(s);
    s->routes_serial = 1;
    pd_http_server_seed_ids(s);
    *out = s;
    return PD_OK;
}

static pd_status adopt(struct pd_http_server *s, struct pd_stream *stream, struct pd_http_door *door)
{
    pd_status status = PD_OK;

    if (s->is_draining || s->is_closing || s->n_conns >= s->opts.max_conns) {
        s->stats.refused++;
        status = PD_ELIMIT;
    }
    if (s->is_closing || s->n_conns >= (size_t)s->opts.max_conns + s->opts.max_refusing) {
        pd_stream_close(stream);
        return PD_ELIMIT;
    }
    if (pd_http_conn_open(s, stream, door, status != PD_OK) != PD_OK) {
        s->stats.memory_failures++;
        pd_stream_close(stream);
        return PD_ENOMEM;
    }
    return status;
}

static void on_accept(struct pd_listener *l, struct pd_stream *stream, void *arg)
{
    const struct pd_http_port *port = arg;

    (void)l;
    if (port->door->tls != NULL && pd_tls_accept(port->door->tls, stream, &stream) != PD_OK)
        port->server->stats.refused++;
    else
        (void)adopt(port->server, stream, port->door);
}

pd_status pd_http_server_adopt(struct pd_http_server *s, struct pd_stream *stream)
{
    return adopt(s, stream, NULL);
}

/* ---- listeners ---- */

static void door_free(struct pd_http_door *door)
{
    pd_tls_release(door->tls);
    pd_keys_release(door->keys);
    pd_free(door);
}

void pd_http_door_left(struct pd_http_door *door)
{
    if (door != NULL && --door->n_conns == 0 && door->is_closed)
        door_free(door);
}

pd_time pd_http_conn_left_at(const struct pd_http_conn *c)
{
    return c->server->is_draining ? c->server->drained_at : c->door->closed_at;
}

/* Nobody comes by it any more. */
static void door_close(struct pd_http_server *s, struct pd_http_door *door)
{
    door->is_closed = true;
    door->closed_at = pd_loop_clock(s->loop);
    if (door->n_conns == 0) {
        door_free(door);
        return;
    }
    PD_LIST_EACH(&s->conns, link) {
        struct pd_http_conn *c = PD_LIST_ENTRY(link, struct pd_http_conn, link);
        if (c->door == door)
            pd_http_conn_arm(c);
    }
}

static void door_fill(struct pd_http_door *door, struct pd_tls *tls, struct pd_keys *keys)
{
    pd_tls_hold(tls);
    pd_keys_hold(keys);
    *door = (struct pd_http_door){ .tls = tls, .keys = keys };
}

static struct pd_http_port *port_find(struct pd_http_server *s, const struct pd_addr *addr)
{
    for (size_t i = 0; i < PD_HTTP_MAX_LISTENERS; i++)
        if (s->ports[i].listener != NULL && pd_addr_equal(&s->ports[i].addr, addr))
            return &s->ports[i];
    return NULL;
}

static void port_close(struct pd_http_port *port)
{
    pd_listener_close(port->server->loop, port->listener);
    pd_free(port->spare);
    port->listener = NULL;
    door_close(port->server, port->door);
}

static void close_listeners(struct pd_http_server *s)
{
    for (size_t i = 0; i < PD_HTTP_MAX_LISTENERS; i++)
        if (s->ports[i].listener != NULL)
            port_close(&s->ports[i]);
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
    struct pd_http_port *port = s->ports;
    pd_status status;

    while (port < s->ports + PD_HTTP_MAX_LISTENERS && port->listener != NULL)
        port++;
    if (port == s->ports + PD_HTTP_MAX_LISTENERS)
        return PD_ELIMIT;
    if (opts == NULL) {
        memset(&mine, 0, sizeof(mine));
        mine.size = sizeof(mine);
        mine.name = s->opts.name;
        opts = &mine;
    }
    *port = (struct pd_http_port){ .server = s, .addr = *addr };
    port->door = pd_alloc(sizeof(*port->door));
    if (port->door == NULL)
        return PD_ENOMEM;
    door_fill(port->door, tls, keys);
    status = pd_listener_open(s->loop, addr, opts, on_accept, port, &port->listener);
    if (status != PD_OK) {
        port->listener = NULL;
        door_free(port->door);
    }
    return status;
}

pd_status pd_http_server_reserve(struct pd_http_server *s, const struct pd_addr *addr)
{
    struct pd_http_port *port = port_find(s, addr);

    if (port == NULL)
        return PD_ENOENT;
    if (port->spare == NULL)
        port->spare = pd_alloc(sizeof(*port->spare));
    return port->spare != NULL ? PD_OK : PD_ENOMEM;
}

void pd_http_server_relisten(struct pd_http_server *s, const struct pd_addr *addr, struct pd_tls *tls,
                             struct pd_keys *keys)
{
    struct pd_http_port *port = port_find(s, addr);
    struct pd_http_door *old = port->door;

    if (tls == old->tls) {
        pd_keys_hold(keys);
        pd_keys_release(old->keys);
        old->keys = keys;
        return;
    }
    port->door = port->spare;
    port->spare = NULL;
    door_fill(port->door, tls, keys);
    door_close(s, old);
}

pd_status pd_http_server_unlisten(struct pd_http_server *s, const struct pd_addr *addr)
{
    struct pd_http_port *port = port_find(s, addr);

    if (port == NULL)
        return PD_ENOENT;
    port_close(port);
    return PD_OK;
}

void pd_http_server_set_limits(struct pd_http_server *s, uint32_t max_conns, uint64_t max_held)
{
    s->opts.max_conns = max_conns;
    s->opts.max_held = max_held;
}

void pd_http_server_set_times(struct pd_http_server *s, pd_time head_ns, pd_time body_ns,
                              pd_time write_ns, pd_time idle_ns)
{
    s->opts.head_ns = head_ns;
    s->opts.body_ns = body_ns;
    s->opts.write_ns = write_ns;
    s->opts.idle_ns = idle_ns;
}

pd_status pd_http_server_addr(struct pd_http_server *s, size_t i, struct pd_addr *out)
{
    for (size_t k = 0; k < PD_HTTP_MAX_LISTENERS; k++)
        if (s->ports[k].listener != NULL && i-- == 0)
            return pd_listener_addr(s->loop, s->ports[k].listener, out);
    return PD_ENOENT;
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
    s->path_n[s->n_routes] = strlen(route->path);
    s->routes[s->n_routes++] = *route;
    s->routes_serial++;
    return PD_OK;
}

pd_status pd_http_server_unroute(struct pd_http_server *s, const char *path)
{
    size_t kept = 0, n = s->n_routes;

    for (size_t i = 0; i < n; i++)
        if (strcmp(s->routes[i].path, path) != 0) {
            s->path_n[kept] = s->path_n[i];
            s->routes[kept++] = s->routes[i];
        }
    s->n_routes = kept;
    s->routes_serial++;
    return kept == n ? PD_ENOENT : PD_OK;
}

const struct pd_http_route *pd_http_server_routed(const struct pd_http_server *s, const char *path)
{
    uint32_t allowed;

    return pd_http_server_find(s, pd_str_from(path), PD_HTTP_GET, &allowed);
}

const struct pd_http_route *pd_http_server_find(const struct pd_http_server *s,
                                                struct pd_str path, enum pd_http_method method,
                                                uint32_t *allowed)
{
    uint32_t bit = 1u << (method == PD_HTTP_HEAD ? PD_HTTP_GET : method);

    *allowed = 0;
    for (size_t i = 0; i < s->n_routes; i++) {
        if (path.n != s->path_n[i] || memcmp(path.p, s->routes[i].path, path.n) != 0)
            continue;
        *allowed |= s->routes[i].methods;
        if ((s->routes[i].methods & (bit | 1u << method)) != 0)
            return &s->routes[i];
    }
    return NULL;
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
