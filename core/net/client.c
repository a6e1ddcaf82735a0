/* SPDX-License-Identifier: Apache-2.0 */
/* The client as an object, and its origins.
 *
 * Invariant: an origin exists while it has a connection or a waiting call; the
 * client lives until its last connection is gone and is freed in its own task. */
#include "net/client_int.h"

#include "base/mem.h"
#include "base/str.h"
#include "net/tls.h"

#include <string.h>

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
    return value != 0 ? value : fallback;
}

static void fill_options(struct pd_http_client_opts *o)
{
    if (o->name == NULL)
        o->name = "http client";
    o->max_origins = (uint32_t)or_default(o->max_origins, 1024);
    o->max_conns = (uint32_t)or_default(o->max_conns, 1024);
    o->max_idle = (uint32_t)or_default(o->max_idle, 64);
    o->max_waiting = (uint32_t)or_default(o->max_waiting, 1024);
    o->body_limit = or_default(o->body_limit, 1u << 30);
    o->connect_ns = or_default(o->connect_ns, 5 * PD_SEC);
    o->first_byte_ns = or_default(o->first_byte_ns, 60 * PD_SEC);
    o->idle_ns = or_default(o->idle_ns, 60 * PD_SEC);
    o->keep_ns = or_default(o->keep_ns, 60 * PD_SEC);
}

static size_t make_key(const struct pd_addr *addr, struct pd_str host, const struct pd_tls *tls,
                       char *out, size_t size)
{
    size_t n = 0;

    memcpy(out, &addr->family, sizeof(addr->family));
    n += sizeof(addr->family);
    memcpy(out + n, &tls, sizeof(tls));
    n += sizeof(tls);
    if (addr->family == PD_AF_UNIX) {
        size_t len = strnlen(addr->path, sizeof(addr->path) - 1) + 1;
        memcpy(out + n, addr->path, len - 1);
        out[n + len - 1] = '\0';
        n += len;
    } else {
        size_t len = addr->family == PD_AF_IPV4 ? 4 : 16;
        memcpy(out + n, addr->ip, len);
        memcpy(out + n + len, &addr->port, sizeof(addr->port));
        memcpy(out + n + len + sizeof(addr->port), &addr->scope, sizeof(addr->scope));
        n += len + sizeof(addr->port) + sizeof(addr->scope);
    }
    if (host.n > size - n)
        return 0;
    memcpy(out + n, host.p, host.n);
    return n + host.n;
}

void pd_http_origin_forget_ways(struct pd_http_origin *o)
{
    struct pd_list *link;

    while ((link = pd_list_pop(&o->ways)) != NULL)
        PD_LIST_ENTRY(link, struct pd_http_way, link)->origin = NULL;
}

static void origin_free(struct pd_http_origin *o)
{
    pd_http_origin_forget_ways(o);
    pd_tls_release(o->tls);
    pd_free(o);
}

struct pd_http_origin *pd_http_origin_get(struct pd_http_client *c, const struct pd_addr *addr,
                                          struct pd_str host, struct pd_tls *tls, pd_status *why)
{
    char key[sizeof(((struct pd_http_origin *)0)->key)];
    size_t n = make_key(addr, host, tls, key, sizeof(key));
    struct pd_http_origin *o;

    if (n == 0) {
        *why = PD_EINVAL;
        return NULL;
    }
    o = pd_strmap_get(&c->origins, pd_str_of(key, n));
    if (o != NULL)
        return o;
    o = pd_calloc(1, sizeof(*o));
    if (o == NULL) {
        *why = PD_ENOMEM;
        return NULL;
    }
    o->client = c;
    o->addr = *addr;
    o->tls = tls;
    pd_tls_hold(tls);
    pd_list_init(&o->idle);
    pd_list_init(&o->waiting);
    pd_list_init(&o->ways);
    memcpy(o->key, key, n);
    o->key_n = n;
    *why = pd_strmap_add(&c->origins, pd_str_of(o->key, n), o);
    if (*why != PD_OK) {
        origin_free(o);
        return NULL;
    }
    return o;
}

bool pd_http_client_has_room(struct pd_http_client *c)
{
    if (c->opts.max_total == 0 || c->n_links - c->n_closing < c->opts.max_total)
        return true;
    PD_LIST_EACH(&c->links, link) {
        struct pd_http_link *l = PD_LIST_ENTRY(link, struct pd_http_link, all);
        if (l->state == PD_HTTP_LINK_IDLE) {
            pd_http_link_close(l);
            return true;
        }
    }
    return false;
}

void pd_http_origin_pump(struct pd_http_origin *o)
{
    struct pd_http_client *c = o->client;

    if (o->depth > 0)
        return;
    o->depth++;
    while (o->n_waiting > 0 && o->n_conns < c->opts.max_conns && !c->is_closing) {
        struct pd_http_call *call = PD_LIST_ENTRY(pd_list_pop(&o->waiting),
                                                  struct pd_http_call, link);
        pd_status status;
        o->n_waiting--;
        c->stats.waiting--;
        status = pd_http_client_has_room(c) ? pd_http_link_open(o, call) : PD_ELIMIT;
        if (status != PD_OK)
            pd_http_call_fail(call, status);
    }
    o->depth--;
    if (o->n_waiting > 0 || o->n_conns > 0)
        return;
    (void)pd_strmap_remove(&c->origins, pd_str_of(o->key, o->key_n));
    origin_free(o);
}

static void free_client(struct pd_http_client *c)
{
    struct pd_list *link;

    while ((link = pd_list_pop(&c->call_pool)) != NULL)
        pd_http_call_free(PD_LIST_ENTRY(link, struct pd_http_call, link));
    pd_strmap_fini(&c->origins);
    pd_free(c->scratch);
    pd_free(c);
}

/* Ends all calls; each callback may end others. */
static void cancel_all(struct pd_http_client *c)
{
    size_t cursor = 0;
    void *value;

    while (pd_strmap_next(&c->origins, &cursor, NULL, &value)) {
        struct pd_http_origin *o = value;
        o->depth++;
        while (o->n_waiting > 0) {
            struct pd_list *link = pd_list_pop(&o->waiting);
            o->n_waiting--;
            c->stats.waiting--;
            pd_http_call_fail(PD_LIST_ENTRY(link, struct pd_http_call, link), PD_ECANCELED);
        }
        o->depth--;
        if (o->n_conns == 0) {
            (void)pd_strmap_remove(&c->origins, pd_str_of(o->key, o->key_n));
            origin_free(o);
        }
    }
    PD_LIST_EACH(&c->links, link) {
        struct pd_http_link *l = PD_LIST_ENTRY(link, struct pd_http_link, all);
        struct pd_http_call *call = l->call;
        pd_http_link_close(l);
        if (call != NULL)
            pd_http_call_fail(call, PD_ECANCELED);
    }
}

static void on_task(struct pd_task *task, void *arg)
{
    struct pd_http_client *c = arg;
    void (*cb)(void *arg) = c->on_closed;
    void *cb_arg = c->closed_arg;

    (void)task;
    cancel_all(c);
    if (c->n_links > 0)
        return;
    free_client(c);
    if (cb != NULL)
        cb(cb_arg);
}

void pd_http_client_link_gone(struct pd_http_client *c)
{
    if (c->is_closing && c->n_links == 0)
        pd_loop_defer(c->loop, &c->task);
}

pd_status pd_http_client_create(struct pd_loop *loop, const struct pd_http_client_opts *opts,
                                struct pd_http_client **out)
{
    struct pd_http_client *c;

    if (opts != NULL && opts->size != sizeof(*opts))
        return PD_EINVAL;
    c = pd_calloc(1, sizeof(*c));
    if (c == NULL)
        return PD_ENOMEM;
    c->scratch = pd_alloc(PD_HTTP_CLIENT_SCRATCH);
    if (c->scratch == NULL) {
        pd_free(c);
        return PD_ENOMEM;
    }
    c->loop = loop;
    if (opts != NULL)
        c->opts = *opts;
    fill_options(&c->opts);
    pd_strmap_init(&c->origins, c->opts.max_origins, 0);
    pd_list_init(&c->links);
    pd_list_init(&c->call_pool);
    pd_task_init(&c->task, c->opts.name, on_task, c);
    pd_http_link_stream_events(c);
    *out = c;
    return PD_OK;
}

void pd_http_client_close(struct pd_http_client *c, void (*on_closed)(void *arg), void *arg)
{
    c->is_closing = true;
    c->on_closed = on_closed;
    c->closed_arg = arg;
    pd_loop_defer(c->loop, &c->task);
}

void pd_http_client_set_limits(struct pd_http_client *c, uint32_t max_conns, uint32_t max_total)
{
    c->opts.max_conns = (uint32_t)or_default(max_conns, 1024);
    c->opts.max_total = max_total;
}

void pd_http_client_forget(struct pd_http_client *c, const struct pd_addr *addr)
{
    PD_LIST_EACH(&c->links, link) {
        struct pd_http_link *l = PD_LIST_ENTRY(link, struct pd_http_link, all);
        if (l->state == PD_HTTP_LINK_IDLE && pd_addr_equal(&l->origin->addr, addr))
            pd_http_link_close(l);
    }
}

const struct pd_http_client_stats *pd_http_client_stats(const struct pd_http_client *c)
{
    return &c->stats;
}

const char *pd_http_fail_name(enum pd_http_fail fail)
{
    switch (fail) {
    case PD_HTTP_FAIL_CONNECT:
        return "connect";
    case PD_HTTP_FAIL_SENT:
        return "sent";
    case PD_HTTP_FAIL_HEAD:
        return "head";
    case PD_HTTP_FAIL_BODY:
        return "body";
    }
    return "unknown";
}
