/* SPDX-License-Identifier: Apache-2.0 */
/* Fabric over UCP.  An instance has one context and two workers.
 *
 *   serve   listens and only answers; each endpoint is a guest
 *   reader  has an endpoint, a way, to the serve worker of each node it reads from
 *
 * Ways are connected by addresses of sockets, not of workers: those would let
 * UCP make one connection of two that belong to different links, and leave the
 * endpoints of the listening side open for ever.
 *
 * Both are woken by UCP's event descriptor.  Where a library forgets to signal
 * it, a clock runs while something is under way. */
#include "fabric.h"
#include "ucx.h"

#include <stdlib.h>
#include <string.h>

#include <ucp/api/ucp.h>

/* Calls of a worker between two looks at the clock, and the time of a turn. */
#define CALLS 16u
#define TURN (PD_MS / 2)
#define CLOCK (5 * PD_MS)
/* Turns in a row that a descriptor may wake us for nothing. */
#define MAX_IDLE 64u
/* Of the serve worker, while the last guests leave. */
#define LAST_CALLS 10000u
/* UCP reads addresses and keys by what is in them: bytes behind a short one must
 * be there. */
#define PADDING 65536u

struct worker {
    ucp_worker_h w;
    struct pd_watch *watch;
    uint32_t idle;
    bool is_deaf;                 /* the descriptor is not looked at until the clock */
};

struct ucx {
    struct pd_xp_fabric base;
    struct pd_loop *loop;
    struct pd_log *log;
    ucp_context_h context;
    struct worker serve, reader;
    ucp_listener_h listener;
    struct pd_ucx_where where;
    TAILQ_HEAD(, guest) guests;
    uint32_t n_guests, max_guests;
    struct pd_task task;
    struct pd_timer clock;
    TAILQ_HEAD(, pd_xp_way) ways;
    struct pd_counter *gets, *broken, *rejected;
};

/* Somebody who reads our memory. */
struct guest {
    struct ucx *u;
    TAILQ_ENTRY(guest) link;
    ucp_ep_h ep;
    bool is_failed, is_closing, is_closed;
};

struct pd_xp_region {
    ucp_mem_h mem;
    uint8_t *base;
    void *key;
    size_t key_len;
};

struct pd_xp_way {
    struct ucx *u;
    TAILQ_ENTRY(pd_xp_way) link;
    struct pd_xp_far *far;
    ucp_ep_h ep;
    bool is_failed, is_told, is_closing, is_closed;
};

struct pd_xp_key {
    ucp_rkey_h rkey;
    uint64_t base;
};

static pd_status status_of(ucs_status_t st)
{
    switch (st) {
    case UCS_OK:
        return PD_OK;
    case UCS_ERR_NO_RESOURCE:
    case UCS_ERR_BUSY:
        return PD_EAGAIN;
    case UCS_ERR_NO_MEMORY:
        return PD_ENOMEM;
    case UCS_ERR_NO_DEVICE:
        return PD_ENOENT;
    case UCS_ERR_INVALID_PARAM:
    case UCS_ERR_INVALID_ADDR:
        return PD_EPROTO;
    case UCS_ERR_TIMED_OUT:
    case UCS_ERR_ENDPOINT_TIMEOUT:
        return PD_ETIMEDOUT;
    case UCS_ERR_UNREACHABLE:
    case UCS_ERR_CONNECTION_RESET:
    case UCS_ERR_REJECTED:
    case UCS_ERR_NOT_CONNECTED:
    case UCS_ERR_CANCELED:
        return PD_EPEER;
    default:
        return PD_EIO;
    }
}

/* ---- memory */

static pd_status ucx_region_add(struct pd_xp_fabric *f, void *base, uint64_t bytes,
                                struct pd_xp_region **out, struct pd_err *err)
{
    struct ucx *u = (struct ucx *)f;
    struct pd_xp_region *r = calloc(1, sizeof(*r));
    ucp_mem_map_params_t p = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_PROT,
        .address = base, .length = bytes,
        .prot = UCP_MEM_MAP_PROT_LOCAL_READ | UCP_MEM_MAP_PROT_LOCAL_WRITE |
                UCP_MEM_MAP_PROT_REMOTE_READ,
    };
    ucs_status_t st;

    if (r == NULL) {
        pd_xp_fail(err, PD_ENOMEM, "out of memory");
        return PD_ENOMEM;
    }
    pd_ucx_log_to(u->log);
    st = ucp_mem_map(u->context, &p, &r->mem);
    if (st == UCS_OK && (st = ucp_rkey_pack(u->context, r->mem, &r->key, &r->key_len)) != UCS_OK)
        ucp_mem_unmap(u->context, r->mem);
    pd_ucx_log_to(NULL);
    if (st != UCS_OK) {
        free(r);
        pd_xp_fail(err, status_of(st), "UCX cannot register the memory: %s; is the limit of locked "
                   "memory high enough?", ucs_status_string(st));
        return status_of(st);
    }
    r->base = base;
    *out = r;
    return PD_OK;
}

static void ucx_region_remove(struct pd_xp_fabric *f, struct pd_xp_region *r)
{
    struct ucx *u = (struct ucx *)f;

    pd_ucx_log_to(u->log);
    ucp_rkey_buffer_release(r->key);
    ucp_mem_unmap(u->context, r->mem);
    pd_ucx_log_to(NULL);
    free(r);
}

/* The address of the region, then UCX's key. */
static pd_status ucx_region_key(struct pd_xp_fabric *f, struct pd_xp_region *r, void *buf,
                                size_t cap, size_t *len)
{
    uint64_t base = (uintptr_t)r->base;

    (void)f;
    *len = sizeof(base) + r->key_len;
    if (cap < *len)
        return PD_ELIMIT;
    memcpy(buf, &base, sizeof(base));
    memcpy((uint8_t *)buf + sizeof(base), r->key, r->key_len);
    return PD_OK;
}

static pd_status ucx_address(struct pd_xp_fabric *f, void *buf, size_t cap, size_t *len)
{
    struct ucx *u = (struct ucx *)f;

    *len = PD_UCX_WHERE_BYTES;
    if (cap < *len)
        return PD_ELIMIT;
    pd_ucx_where_encode(&u->where, buf);
    return PD_OK;
}

/* ---- ways */

static void on_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    struct pd_xp_way *way = arg;

    (void)ep;
    pd_log_info(way->u->log, "a way broke: %s", ucs_status_string(status));
    way->is_failed = true;
}

static void *padded(const void *p, size_t len)
{
    uint8_t *copy = calloc(1, len + PADDING);

    if (copy != NULL)
        memcpy(copy, p, len);
    return copy;
}

static pd_status ucx_way_open(struct pd_xp_fabric *f, const void *address, size_t len,
                              const struct pd_addr *host, struct pd_xp_far *far,
                              struct pd_xp_way **out)
{
    struct ucx *u = (struct ucx *)f;
    struct sockaddr_storage to;
    struct pd_ucx_where where;
    struct pd_xp_way *way;
    ucp_ep_params_t p = {
        .field_mask = UCP_EP_PARAM_FIELD_SOCK_ADDR | UCP_EP_PARAM_FIELD_FLAGS |
                      UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER, .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .sockaddr = { .addr = (struct sockaddr *)&to },
    };
    ucs_status_t st;

    if (pd_ucx_where_decode(address, len, &where) != PD_OK)
        return PD_EPROTO;
    p.sockaddr.addrlen = pd_ucx_where_sockaddr(&where, host, &to);
    if (p.sockaddr.addrlen == 0)
        return PD_EPROTO;
    if (!pd_ucx_has_descriptors())
        return PD_ELIMIT;
    way = calloc(1, sizeof(*way));
    if (way == NULL)
        return PD_ENOMEM;
    p.err_handler.cb = on_error;
    p.err_handler.arg = way;
    pd_ucx_log_to(u->log);
    st = ucp_ep_create(u->reader.w, &p, &way->ep);
    pd_ucx_log_to(NULL);
    if (st != UCS_OK) {
        free(way);
        return status_of(st);
    }
    way->u = u;
    way->far = far;
    TAILQ_INSERT_TAIL(&u->ways, way, link);
    pd_loop_defer(u->loop, &u->task);
    *out = way;
    return PD_OK;
}

static void on_closed(void *request, ucs_status_t status, void *arg)
{
    struct pd_xp_way *way = arg;

    (void)status;
    way->is_closed = true;
    ucp_request_free(request);
}

/* By force: every get ends now, with an error if it has not ended already. */
static void ucx_way_close(struct pd_xp_way *way)
{
    struct ucx *u = way->u;
    ucp_request_param_t p = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK |
                        UCP_OP_ATTR_FIELD_USER_DATA,
        .flags = UCP_EP_CLOSE_FLAG_FORCE, .cb.send = on_closed, .user_data = way,
    };
    void *request;

    way->is_closing = true;
    pd_ucx_log_to(u->log);
    request = ucp_ep_close_nbx(way->ep, &p);
    pd_ucx_log_to(NULL);
    if (!UCS_PTR_IS_PTR(request))
        way->is_closed = true;
    pd_loop_defer(u->loop, &u->task);
}

static pd_status ucx_key_open(struct pd_xp_way *way, const void *key, size_t len, uint64_t bytes,
                              struct pd_xp_key **out)
{
    struct pd_xp_key *k;
    ucs_status_t st;
    void *copy;

    if (len <= sizeof(k->base))
        return PD_EPROTO;
    k = calloc(1, sizeof(*k));
    copy = padded((const uint8_t *)key + sizeof(k->base), len - sizeof(k->base));
    if (k == NULL || copy == NULL) {
        free(k);
        free(copy);
        return PD_ENOMEM;
    }
    memcpy(&k->base, key, sizeof(k->base));
    pd_ucx_log_to(way->u->log);
    st = k->base > UINT64_MAX - bytes ? UCS_ERR_INVALID_PARAM
                                      : ucp_ep_rkey_unpack(way->ep, copy, &k->rkey);
    pd_ucx_log_to(NULL);
    free(copy);
    if (st != UCS_OK) {
        free(k);
        return status_of(st);
    }
    *out = k;
    return PD_OK;
}

static void ucx_key_close(struct pd_xp_key *key)
{
    ucp_rkey_destroy(key->rkey);
    free(key);
}

static void on_got(void *request, ucs_status_t status, void *get)
{
    pd_xp_far_got(get, status_of(status));
    ucp_request_free(request);
}

static pd_status ucx_get(struct pd_xp_way *way, struct pd_xp_key *key, uint64_t offset, void *to,
                         struct pd_xp_region *r, size_t len, void *get, bool *done)
{
    struct ucx *u = way->u;
    ucp_request_param_t p = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_MEMH,
        .cb.send = on_got, .user_data = get, .memh = r->mem,
    };
    ucs_status_ptr_t request;

    if (way->is_failed)
        return PD_EPEER;
    pd_ucx_log_to(u->log);
    request = ucp_get_nbx(way->ep, to, len, key->base + offset, key->rkey, &p);
    pd_ucx_log_to(NULL);
    if (UCS_PTR_IS_ERR(request)) {
        pd_status st = status_of(UCS_PTR_STATUS(request));
        /* UCP queues what it cannot send; if not, nothing would tell of room. */
        return st == PD_EAGAIN ? PD_ELIMIT : st;
    }
    pd_counter_inc(u->gets);
    *done = request == NULL;
    pd_loop_defer(u->loop, &u->task);
    return PD_OK;
}

/* ---- guests */

static void on_guest_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    struct guest *g = arg;

    (void)ep;
    (void)status;
    g->is_failed = true;
}

static void on_request(ucp_conn_request_h request, void *arg)
{
    struct ucx *u = arg;
    bool is_room = u->n_guests < u->max_guests && pd_ucx_has_descriptors();
    struct guest *g = is_room ? calloc(1, sizeof(*g)) : NULL;
    ucp_ep_params_t p = {
        .field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .conn_request = request, .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = { .cb = on_guest_error, .arg = g },
    };

    if (g == NULL) {
        pd_counter_inc(u->rejected);
        pd_log_warn(u->log, "refused a connection of the fabric: %u are open", u->n_guests);
        ucp_listener_reject(u->listener, request);
        return;
    }
    if (ucp_ep_create(u->serve.w, &p, &g->ep) != UCS_OK) {
        free(g);
        return;
    }
    g->u = u;
    TAILQ_INSERT_TAIL(&u->guests, g, link);
    u->n_guests++;
}

static void on_guest_closed(void *request, ucs_status_t status, void *arg)
{
    struct guest *g = arg;

    (void)status;
    g->is_closed = true;
    ucp_request_free(request);
}

static void guest_close(struct guest *g)
{
    ucp_request_param_t p = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK |
                        UCP_OP_ATTR_FIELD_USER_DATA,
        .flags = UCP_EP_CLOSE_FLAG_FORCE, .cb.send = on_guest_closed, .user_data = g,
    };
    void *request;

    if (g->is_closing)
        return;
    g->is_closing = true;
    request = ucp_ep_close_nbx(g->ep, &p);
    if (!UCS_PTR_IS_PTR(request))
        g->is_closed = true;
}

/* True: some are closing and need turns. */
static bool guests_turn(struct ucx *u)
{
    struct guest *g, *next;
    bool more = false;

    for (g = TAILQ_FIRST(&u->guests); g != NULL; g = next) {
        next = TAILQ_NEXT(g, link);
        if (g->is_failed)
            guest_close(g);
        if (g->is_closed) {
            TAILQ_REMOVE(&u->guests, g, link);
            u->n_guests--;
            free(g);
        } else if (g->is_closing) {
            more = true;
        }
    }
    return more;
}

/* ---- turns */

static void tell(struct ucx *u)
{
    struct pd_xp_way *way, *next;

    for (way = TAILQ_FIRST(&u->ways); way != NULL; way = next) {
        next = TAILQ_NEXT(way, link);
        if (way->is_failed && !way->is_told && !way->is_closing) {
            way->is_told = true;
            pd_counter_inc(u->broken);
            pd_xp_far_broken(way->far, PD_EPEER);
        }
        if (way->is_closed) {
            struct pd_xp_far *far = way->far;
            TAILQ_REMOVE(&u->ways, way, link);
            free(way);
            pd_xp_far_closed(far);
        }
    }
}

/* True: there is more to do at once. */
static bool advance(struct ucx *u, struct worker *k)
{
    pd_time end = pd_loop_clock(u->loop) + TURN;
    bool worked = false;

    for (;;) {
        uint32_t n = 0;
        while (n < CALLS && ucp_worker_progress(k->w) != 0)
            n++;
        worked = worked || n > 0;
        if (n < CALLS)
            break;
        if (pd_loop_clock(u->loop) >= end)
            return true;
    }
    k->idle = worked ? 0 : k->idle + 1;
    return ucp_worker_arm(k->w) == UCS_ERR_BUSY;
}

static void deafen(struct ucx *u, struct worker *k, bool deaf)
{
    if (k->is_deaf != deaf)
        pd_watch_set(u->loop, k->watch, deaf ? 0 : PD_WATCH_READ);
    k->is_deaf = deaf;
}

static void turn(struct ucx *u)
{
    bool more;

    pd_ucx_log_to(u->log);
    more = advance(u, &u->reader);
    more = advance(u, &u->serve) || more;
    more = guests_turn(u) || more;
    pd_ucx_log_to(NULL);
    tell(u);
    if (more && u->reader.idle < MAX_IDLE && u->serve.idle < MAX_IDLE) {
        pd_loop_defer(u->loop, &u->task);
    } else if (more && !pd_timer_is_active(&u->clock)) {
        pd_timer_start(&u->clock, CLOCK);
    }
}

static void on_task(struct pd_task *task, void *arg)
{
    (void)task;
    turn(arg);
}

static void on_event(struct pd_watch *w, uint32_t events, void *arg)
{
    struct ucx *u = arg;
    struct worker *k = w == u->serve.watch ? &u->serve : &u->reader;

    (void)events;
    turn(u);
    if (k->idle >= MAX_IDLE) {
        deafen(u, k, true);
        if (!pd_timer_is_active(&u->clock))
            pd_timer_start(&u->clock, CLOCK);
    }
}

static void on_clock(struct pd_timer *timer, void *arg)
{
    struct ucx *u = arg;

    (void)timer;
    u->serve.idle = u->reader.idle = 0;
    deafen(u, &u->serve, false);
    deafen(u, &u->reader, false);
    turn(u);
    if (pd_xp_far_is_busy(u->base.tp) && !pd_timer_is_active(&u->clock))
        pd_timer_start(&u->clock, CLOCK);
}

static void ucx_poke(struct pd_xp_fabric *f)
{
    struct ucx *u = (struct ucx *)f;

    if (!pd_timer_is_active(&u->clock))
        pd_timer_start(&u->clock, CLOCK);
    pd_loop_defer(u->loop, &u->task);
}

/* ---- birth and end */

static void worker_end(struct ucx *u, struct worker *k)
{
    if (k->watch != NULL)
        pd_watch_close(u->loop, k->watch);
    if (k->w != NULL)
        ucp_worker_destroy(k->w);
}

static void ucx_destroy(struct pd_xp_fabric *f)
{
    struct ucx *u = (struct ucx *)f;

    struct guest *g;

    pd_ucx_log_to(u->log);
    pd_task_cancel(u->loop, &u->task);
    pd_timer_stop(&u->clock);
    if (u->listener != NULL)
        ucp_listener_destroy(u->listener);
    TAILQ_FOREACH(g, &u->guests, link)
    guest_close(g);
    for (uint32_t i = 0; i < LAST_CALLS && guests_turn(u); i++)
        ucp_worker_progress(u->serve.w);
    worker_end(u, &u->reader);
    worker_end(u, &u->serve);
    while ((g = TAILQ_FIRST(&u->guests)) != NULL) {
        TAILQ_REMOVE(&u->guests, g, link);
        free(g);
    }
    if (u->context != NULL)
        ucp_cleanup(u->context);
    pd_ucx_log_to(NULL);
    free(u);
}

static const struct pd_xp_fabric_ops fabric_ops = {
    .destroy = ucx_destroy, .address = ucx_address, .region_add = ucx_region_add,
    .region_remove = ucx_region_remove, .region_key = ucx_region_key, .way_open = ucx_way_open,
    .way_close = ucx_way_close, .key_open = ucx_key_open, .key_close = ucx_key_close,
    .get = ucx_get, .poke = ucx_poke,
};

static ucs_status_t worker_begin(struct ucx *u, struct worker *k)
{
    ucp_worker_params_t p = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                              .thread_mode = UCS_THREAD_MODE_SINGLE };
    ucs_status_t st = ucp_worker_create(u->context, &p, &k->w);
    int fd = -1;

    if (st != UCS_OK) {
        k->w = NULL;
        return st;
    }
    st = ucp_worker_get_efd(k->w, &fd);
    if (st == UCS_OK && pd_watch_open(u->loop, fd, PD_WATCH_READ, "ucx", on_event, u,
                                      &k->watch) != PD_OK)
        st = UCS_ERR_IO_ERROR;
    return st;
}

static ucs_status_t context_begin(struct ucx *u, const struct pd_ucx_conf *conf)
{
    ucp_params_t p = { .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME,
                       .features = UCP_FEATURE_RMA | UCP_FEATURE_WAKEUP, .name = "pdplane" };
    ucp_config_t *config;
    ucs_status_t st = ucp_config_read(NULL, NULL, &config);

    if (st != UCS_OK)
        return st;
    st = ucp_config_modify(config, "TLS", conf->transports);
    if (st == UCS_OK && conf->devices != NULL)
        st = ucp_config_modify(config, "NET_DEVICES", conf->devices);
    if (st == UCS_OK)
        st = ucp_init(&p, config, &u->context);
    ucp_config_release(config);
    return st;
}

/* At the address of the control connections, with a port of its own. */
static ucs_status_t listen_here(struct ucx *u, const struct pd_ucx_conf *conf)
{
    struct sockaddr_storage at;
    ucp_listener_params_t p = {
        .field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER,
        .sockaddr = { .addr = (struct sockaddr *)&at },
        .conn_handler = { .cb = on_request, .arg = u },
    };
    ucp_listener_attr_t attr = { .field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR };
    struct pd_addr here, told;
    ucs_status_t st;

    if (pd_xp_addresses(conf->f.listen, conf->f.advertise, &here, &told, NULL) != PD_OK)
        return UCS_ERR_INVALID_PARAM;
    pd_ucx_where_at(&here, &told, &u->where);
    here.port = 0;
    p.sockaddr.addrlen = pd_ucx_sockaddr(&here, &at);
    st = ucp_listener_create(u->serve.w, &p, &u->listener);
    if (st != UCS_OK) {
        u->listener = NULL;
        return st;
    }
    st = ucp_listener_query(u->listener, &attr);
    if (st == UCS_OK)
        u->where.port = pd_ucx_port(&attr.sockaddr);
    return st;
}

static struct pd_counter *counter(const struct pd_instance_ctx *ctx, const char *name,
                                  const char *help)
{
    return ctx->metrics == NULL ? NULL : pd_metrics_simple_counter(ctx->metrics, name, help);
}

pd_status pd_ucx_fabric(const struct pd_instance_ctx *ctx, const struct pd_ucx_conf *conf,
                        struct pd_xp_fabric **out, struct pd_err *err)
{
    struct ucx *u = calloc(1, sizeof(*u));
    ucs_status_t st;

    if (u == NULL) {
        pd_xp_fail(err, PD_ENOMEM, "out of memory");
        return PD_ENOMEM;
    }
    if (!pd_ucx_has_descriptors()) {
        free(u);
        pd_xp_fail(err, PD_ELIMIT, "no descriptors left: UCX needs up to %d", PD_UCX_DESCRIPTORS);
        return PD_ELIMIT;
    }
    u->base.ops = &fabric_ops;
    u->loop = ctx->loop;
    u->log = ctx->log;
    TAILQ_INIT(&u->ways);
    TAILQ_INIT(&u->guests);
    u->max_guests = conf->f.connections;
    pd_task_init(&u->task, "ucx", on_task, u);
    pd_timer_init(&u->clock, u->loop, "ucx", on_clock, u);
    u->gets = counter(ctx, "pdplane_transport_ucx_reads_total", "Reads of remote memory.");
    u->broken = counter(ctx, "pdplane_transport_ucx_broken_total",
                        "Ways to other nodes that UCX gave up.");
    u->rejected = counter(ctx, "pdplane_transport_ucx_rejected_total",
                          "Nodes that were not let in by UCX's listener: too many.");
    pd_ucx_quiet();
    pd_ucx_log_to(u->log);
    st = context_begin(u, conf);
    if (st == UCS_OK)
        st = worker_begin(u, &u->serve);
    if (st == UCS_OK)
        st = worker_begin(u, &u->reader);
    if (st == UCS_OK)
        st = listen_here(u, conf);
    pd_ucx_log_to(NULL);
    if (st != UCS_OK) {
        pd_xp_fail(err, status_of(st),
                   "UCX finds no way with transports \"%s\" and devices \"%s\": %s",
                   conf->transports, conf->devices == NULL ? "all" : conf->devices,
                   ucs_status_string(st));
        ucx_destroy(&u->base);
        return status_of(st);
    }
    pd_loop_defer(u->loop, &u->task);
    *out = &u->base;
    return PD_OK;
}
