/* SPDX-License-Identifier: Apache-2.0 */
/* An instance: its birth and end, registered memory, the clock, and the one
 * place from which the user is called back.
 *
 * The clock ticks only while there are lanes. */
#include "fabric.h"
#include "link.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void on_task(struct pd_task *task, void *arg);
static void on_tick(struct pd_timer *timer, void *arg);

void pd_xp_fail(struct pd_err *err, pd_status status, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return;
    err->status = status;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
}

static pd_status listen_here(struct pd_transport *tp, struct pd_err *err)
{
    struct pd_listener_opts opts;
    char text[PD_ADDR_TEXT];
    pd_status st;

    memset(&opts, 0, sizeof(opts));
    opts.size = sizeof(opts);
    opts.name = "transport";
    opts.unix_mode = 0600;
    st = pd_listener_open(tp->loop, &tp->conf.listen, &opts, pd_xp_lane_accept, tp, &tp->listener);
    if (st != PD_OK) {
        pd_addr_format(tp->loop, &tp->conf.listen, text, sizeof(text));
        pd_xp_fail(err, st, "cannot listen on \"%s\": %s", text,
                   st == PD_EBUSY    ? "somebody else does"
                   : st == PD_EPERM  ? "that is not allowed"
                   : st == PD_ENOENT ? "there is no such place"
                   : st == PD_EINVAL ? "it is no address of this machine"
                                     : "no room, or another error of the system");
        return st;
    }
    st = pd_listener_addr(tp->loop, tp->listener, &tp->bound);
    if (st != PD_OK) {
        pd_xp_fail(err, st, "the listener has no address");
        pd_listener_close(tp->loop, tp->listener);
    }
    return st;
}

pd_status pd_xp_create(const struct pd_instance_ctx *ctx, const struct pd_xp_conf *conf,
                       struct pd_transport **out, struct pd_err *err)
{
    static const struct pd_uuid nobody;
    struct pd_transport *tp;
    pd_status st;

    if (memcmp(&ctx->node.uuid, &nobody, sizeof(nobody)) == 0) {
        pd_xp_fail(err, PD_EINVAL, "the node has no identity");
        return PD_EINVAL;
    }
    tp = calloc(1, sizeof(*tp));
    if (tp == NULL || (tp->scratch = malloc(PD_XP_SCRATCH)) == NULL) {
        free(tp);
        pd_xp_fail(err, PD_ENOMEM, "out of memory");
        return PD_ENOMEM;
    }
    tp->loop = ctx->loop;
    tp->log = ctx->log;
    tp->self = ctx->node;
    tp->conf = *conf;
    tp->stats.size = sizeof(tp->stats);
    pd_xp_crc_init(&tp->crc);
    pd_loop_random(tp->loop, tp->key, sizeof(tp->key));
    TAILQ_INIT(&tp->accepted);
    TAILQ_INIT(&tp->kicked);
    TAILQ_INIT(&tp->peers);
    TAILQ_INIT(&tp->events);
    TAILQ_INIT(&tp->done);
    TAILQ_INIT(&tp->memories);
    TAILQ_INIT(&tp->landed);
    TAILQ_INIT(&tp->closed);
    TAILQ_INIT(&tp->fars);
    for (uint32_t i = 0; i < PD_XP_BUCKETS; i++)
        TAILQ_INIT(&tp->buckets[i]);
    pd_timer_init(&tp->tick, tp->loop, "transport", on_tick, tp);
    pd_task_init(&tp->task, "transport", on_task, tp);
    st = pd_xp_pack_open(tp, ctx, err);
    if (st == PD_OK) {
        st = pd_xp_far_open(tp, err);
        if (st == PD_OK && (st = listen_here(tp, err)) != PD_OK)
            pd_xp_far_close(tp);
        if (st != PD_OK)
            pd_xp_pack_close(tp);
    }
    if (st != PD_OK) {
        free(tp->scratch);
        free(tp);
        return st;
    }
    *out = tp;
    return PD_OK;
}

void pd_xp_destroy(struct pd_transport *tp, void (*on_closed)(void *arg), void *arg)
{
    struct pd_xp_lane *lane, *next;

    if (tp->closing)
        return;
    tp->closing = true;
    tp->on_closed = on_closed;
    tp->on_closed_arg = arg;
    pd_listener_close(tp->loop, tp->listener);
    for (lane = TAILQ_FIRST(&tp->accepted); lane != NULL; lane = next) {
        next = TAILQ_NEXT(lane, link);
        pd_xp_lane_close(lane);
    }
    pd_xp_wake(tp);
}

void pd_xp_info(struct pd_transport *tp, struct pd_transport_info *out)
{
    struct pd_transport_info info;
    bool shm = tp->conf.kind == PD_XP_SHM;

    memset(&info, 0, sizeof(info));
    info.size = sizeof(info);
    info.flags = shm ? PD_TRANSPORT_WRITE | PD_TRANSPORT_SAME_HOST | PD_TRANSPORT_NEEDS_FD
               : pd_xp_by_name(tp) ? PD_TRANSPORT_WRITE
                                   : PD_TRANSPORT_WRITE | PD_TRANSPORT_READ;
    info.max_segments = PD_XP_MAX_SEGMENTS;
    info.failure_ms = (uint32_t)((tp->conf.timeout + tp->conf.timeout / 4) / PD_MS + 1);
    info.max_bytes = PD_XP_MAX_BYTES;
    *out = info;
}

void pd_xp_stats(struct pd_transport *tp, struct pd_transport_stats *out)
{
    *out = tp->stats;
}

static bool is_any_host(const struct pd_addr *a)
{
    size_t n = a->family == PD_AF_IPV4 ? 4 : 16;

    for (size_t i = 0; i < n; i++)
        if (a->ip[i] != 0)
            return false;
    return true;
}

pd_status pd_xp_address(struct pd_transport *tp, void *buf, size_t cap, size_t *len)
{
    struct pd_xp_address a;

    memset(&a, 0, sizeof(a));
    a.kind = tp->conf.kind;
    a.port = tp->bound.port;
    memcpy(a.key, tp->key, sizeof(a.key));
    a.tls = tp->conf.tls.net != NULL;
    if (tp->bound.family == PD_AF_UNIX) {
        a.family = PD_AF_UNIX;
        memcpy(a.path, tp->bound.path, sizeof(a.path));
        a.path[sizeof(a.path) - 1] = '\0';
    } else if (tp->conf.advertise.family != PD_AF_NONE) {
        a.family = tp->conf.advertise.family;
        memcpy(a.ip, tp->conf.advertise.ip, sizeof(a.ip));
        if (tp->conf.advertise.port != 0)
            a.port = tp->conf.advertise.port;
    } else if (!is_any_host(&tp->bound)) {
        a.family = tp->bound.family;
        memcpy(a.ip, tp->bound.ip, sizeof(a.ip));
    }
    return pd_xp_address_encode(&a, buf, cap, len);
}

pd_status pd_xp_memory_add(struct pd_transport *tp, const struct pd_memory_desc *desc,
                           struct pd_transport_memory **out, struct pd_err *err)
{
    struct pd_transport_memory *m;
    bool shm = tp->conf.kind == PD_XP_SHM;
    pd_status st;

    if (desc->base == NULL || desc->bytes == 0 ||
        (uintptr_t)desc->base > UINTPTR_MAX - desc->bytes) {
        pd_xp_fail(err, PD_EINVAL, "memory without bytes");
        return PD_EINVAL;
    }
    if (pd_xp_by_name(tp) && tp->n_memories >= PD_XP_MAX_MAPS) {
        pd_xp_fail(err, PD_ELIMIT, "more than %u memories", PD_XP_MAX_MAPS);
        return PD_ELIMIT;
    }
    if (shm) {
        if (desc->fd_offset > UINT64_MAX - desc->bytes) {
            pd_xp_fail(err, PD_EINVAL, "memory outside its descriptor");
            return PD_EINVAL;
        }
        st = pd_xp_share_check(desc->fd, desc->fd_offset + desc->bytes, err);
        if (st != PD_OK)
            return st;
    }
    m = calloc(1, sizeof(*m));
    if (m == NULL) {
        pd_xp_fail(err, PD_ENOMEM, "out of memory");
        return PD_ENOMEM;
    }
    m->tp = tp;
    m->base = desc->base;
    m->bytes = desc->bytes;
    m->fd_offset = desc->fd_offset;
    if (desc->size >= sizeof(*desc)) {
        m->dtype = desc->dtype;
        m->element_bytes = desc->element_bytes;
    }
    m->fd = shm ? fcntl(desc->fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (shm && m->fd < 0) {
        free(m);
        pd_xp_fail(err, PD_ELIMIT, "no descriptors left");
        return PD_ELIMIT;
    }
    if (tp->conf.fabric != NULL) {
        st = tp->conf.fabric->ops->region_add(tp->conf.fabric, m->base, m->bytes, &m->region, err);
        if (st != PD_OK) {
            free(m);
            return st;
        }
    }
    m->id = ++tp->next_memory;
    tp->n_memories++;
    TAILQ_INSERT_TAIL(&tp->memories, m, link);
    *out = m;
    return PD_OK;
}

/* Tells everybody who has it mapped. */
static void forget(struct pd_transport_memory *m)
{
    struct pd_transport_peer *peer;

    TAILQ_FOREACH(peer, &m->tp->peers, link)
    {
        for (uint32_t i = 0; i < peer->n_lanes; i++) {
            struct pd_xp_lane *lane = peer->lanes[i];
            for (uint32_t k = 0; lane != NULL && k < lane->told_n; k++) {
                struct pd_xp_head h = { .type = PD_XP_FORGET, .id = m->id };
                if (lane->told[k] != m->id)
                    continue;
                lane->told[k] = lane->told[--lane->told_n];
                pd_xp_lane_control(lane, &h, NULL, 0);
                break;
            }
        }
    }
}

pd_status pd_xp_memory_remove(struct pd_transport_memory *m)
{
    if (m->refs != 0)
        return PD_EBUSY;
    if (pd_xp_by_name(m->tp))
        forget(m);
    if (m->fd >= 0)
        close(m->fd);
    if (m->region != NULL)
        m->tp->conf.fabric->ops->region_remove(m->tp->conf.fabric, m->region);
    TAILQ_REMOVE(&m->tp->memories, m, link);
    m->tp->n_memories--;
    free(m);
    return PD_OK;
}

void pd_xp_wake(struct pd_transport *tp)
{
    pd_loop_defer(tp->loop, &tp->task);
}

/* Sends for everybody who has something to send.  Lanes that are kicked
 * meanwhile wait for the next turn. */
static void flush_kicked(struct pd_transport *tp)
{
    struct pd_xp_lane *lane, *last = TAILQ_LAST(&tp->kicked, pd_xp_lanes);
    bool is_last = last == NULL;

    while (!is_last && (lane = TAILQ_FIRST(&tp->kicked)) != NULL) {
        is_last = lane == last;
        TAILQ_REMOVE(&tp->kicked, lane, kick);
        lane->is_kicked = false;
        pd_xp_lane_flush(lane);
        /* A failing peer takes its other lanes off the list, perhaps the last one too. */
        if (!is_last && !last->is_kicked)
            break;
    }
    if (!TAILQ_EMPTY(&tp->kicked))
        pd_xp_wake(tp);
}

/* The only caller of the user's callbacks. */
static void on_task(struct pd_task *task, void *arg)
{
    struct pd_transport *tp = arg;

    (void)task;
    pd_xp_far_run(tp);
    flush_kicked(tp);
    pd_xp_window_tell(tp);
    pd_xp_peer_tell(tp);
    if (tp->closing && tp->n_lanes == 0 && tp->n_fars == 0 && TAILQ_EMPTY(&tp->events) && TAILQ_EMPTY(&tp->closed) &&
        TAILQ_EMPTY(&tp->done)) {
        void (*on_closed)(void *) = tp->on_closed;
        void *closed_arg = tp->on_closed_arg;
        pd_timer_stop(&tp->tick);
        pd_task_cancel(tp->loop, &tp->task);
        pd_xp_pack_close(tp);
        pd_xp_far_close(tp);
        if (tp->conf.fabric != NULL)
            tp->conf.fabric->ops->destroy(tp->conf.fabric);
        free(tp->scratch);
        free(tp);
        if (on_closed != NULL)
            on_closed(closed_arg);
    }
}

static pd_time tick_step(const struct pd_transport *tp)
{
    pd_time step = tp->conf.timeout / 4;

    if (step > PD_SEC)
        return PD_SEC;
    return step < 10 * PD_MS ? 10 * PD_MS : step;
}

void pd_xp_tick_on(struct pd_transport *tp)
{
    if (pd_timer_is_active(&tp->tick))
        return;
    tp->last_tick = pd_loop_now(tp->loop);
    pd_timer_start(&tp->tick, tick_step(tp));
}

/* When this process itself slept, nobody else is to blame. */
static void forgive(struct pd_transport *tp, pd_time now)
{
    struct pd_transport_peer *peer;
    struct pd_xp_lane *lane;

    TAILQ_FOREACH(lane, &tp->accepted, link)
    lane->last_in = lane->last_progress = now;
    TAILQ_FOREACH(peer, &tp->peers, link)
    {
        for (uint32_t i = 0; i < peer->n_lanes; i++)
            if (peer->lanes[i] != NULL)
                peer->lanes[i]->last_in = peer->lanes[i]->last_progress = now;
    }
}

static void on_tick(struct pd_timer *timer, void *arg)
{
    struct pd_transport *tp = arg;
    struct pd_transport_peer *peer, *next_peer;
    struct pd_xp_lane *lane, *next;
    pd_time now = pd_loop_now(tp->loop);

    (void)timer;
    if (now - tp->last_tick > 3 * tick_step(tp))
        forgive(tp, now);
    for (peer = TAILQ_FIRST(&tp->peers); peer != NULL; peer = next_peer) {
        next_peer = TAILQ_NEXT(peer, link);
        pd_xp_peer_tick(peer, now);
    }
    for (lane = TAILQ_FIRST(&tp->accepted); lane != NULL; lane = next) {
        next = TAILQ_NEXT(lane, link);
        pd_xp_lane_tick(lane, now);
    }
    if (tp->n_lanes > 0)
        pd_xp_tick_on(tp);
}
