/* SPDX-License-Identifier: Apache-2.0 */
/* The tcp transport behind operations that break the contract in the way that
 * the option names. */
#include "tcp.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FAULT_NONE, FAULT_TWICE, FAULT_OUTSIDE, FAULT_READ, FAULT_INSIDE, FAULT_LEAK,
    FAULT_ASLEEP,               /* each 40th completion waits for the next event */
    FAULT_CHAIN,                /* what on_done posts is forgotten */
    FAULT_EARLY,                /* all bytes are told of with the first */
    FAULT_CROSS,                /* one connection at a time */
    FAULT_SELF,                 /* not to this node */
    FAULT_SEGMENTS,             /* another limit than told */
    FAULT_ENDLESS,              /* a full queue takes posts, and forgets them */
    FAULT_CLAIM,                /* NEEDS_FD for nothing */
    FAULT_WRAP,                 /* counts bytes in 29 bits */
    FAULT_FDS,                  /* a descriptor is lost with a connection that fails */
    FAULT_BUSY,                 /* wakes up each millisecond */
    FAULT_GROWTH,               /* keeps a little of each connection */
    FAULT_SHIFT                 /* now and then the wrong bytes */
};

struct broken_conf {
    struct pd_tcp_conf tcp;
    uint32_t fault;
};

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE },       { "twice", FAULT_TWICE },       { "outside", FAULT_OUTSIDE },
    { "read", FAULT_READ },       { "inside", FAULT_INSIDE },     { "leak", FAULT_LEAK },
    { "asleep", FAULT_ASLEEP },   { "chain", FAULT_CHAIN },       { "early", FAULT_EARLY },
    { "cross", FAULT_CROSS },     { "self", FAULT_SELF },         { "segments", FAULT_SEGMENTS },
    { "endless", FAULT_ENDLESS }, { "claim", FAULT_CLAIM },       { "wrap", FAULT_WRAP },
    { "fds", FAULT_FDS },         { "busy", FAULT_BUSY },
    { "growth", FAULT_GROWTH },   { "shift", FAULT_SHIFT },       { NULL, 0 },
};

/* The instances of a process are all configured alike, and the tests look at
 * one memory and one peer at a time: plain variables will do here. */
static uint32_t fault;
static uint8_t *memory_base;
static struct pd_transport_peer_events peer_events;
static struct pd_node_id self;
static struct pd_timer ticks;
static bool is_inside;
static void *forgotten;         /* the post whose end nobody hears */
static uint32_t dones, pending, posted;
static uint64_t moved;

static void on_tick(struct pd_timer *timer, void *arg)
{
    (void)arg;
    pd_timer_start(timer, PD_MS);
}

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_transport **out,
                        struct pd_err *err)
{
    const struct broken_conf *c = conf;
    static const struct pd_xp_hooks none;

    fault = c->fault;
    self = ctx->node;
    pd_timer_stop(&ticks);
    pd_timer_init(&ticks, ctx->loop, "broken", on_tick, NULL);
    if (fault == FAULT_LEAK) {
        void *volatile lost = malloc(100);
        (void)lost;
    }
    return pd_tcp_create(ctx, &c->tcp, &none, out, err);
}

static pd_status memory_add(struct pd_transport *tp, const struct pd_memory_desc *desc,
                            struct pd_transport_memory **out, struct pd_err *err)
{
    if (memory_base == NULL)
        memory_base = desc->base;
    return pd_xp_memory_add(tp, desc, out, err);
}

static void on_done(struct pd_transport_peer *peer, struct pd_transfer *transfer, uint32_t terminal,
                    uint64_t bytes, void *post_arg)
{
    moved += bytes;
    if ((fault == FAULT_ASLEEP && ++dones % 40 == 0) || (fault == FAULT_CHAIN && post_arg == forgotten))
        return;
    if (fault == FAULT_OUTSIDE)
        memory_base[0] ^= 1;     /* the owner's first byte, which no window of the tests has */
    if (fault == FAULT_WRAP && moved > (1u << 29))
        bytes = 0;
    is_inside = true;
    peer_events.on_done(peer, transfer, terminal, bytes, post_arg);
    is_inside = false;
    if (fault == FAULT_TWICE)
        peer_events.on_done(peer, transfer, terminal, bytes, post_arg);
}

static void on_up(struct pd_transport_peer *peer, pd_status status, void *arg)
{
    pending--;
    peer_events.on_up(peer, status, arg);
}

static bool is_self(const struct pd_node_id *node)
{
    return memcmp(&node->uuid, &self.uuid, sizeof self.uuid) == 0;
}

static pd_status connect_(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                          const struct pd_transport_peer_events *events, void *arg,
                          struct pd_transport_peer **out)
{
    static struct pd_transport_peer_events mine;
    int fd = fault == FAULT_FDS ? dup(STDIN_FILENO) : -1;
    pd_status st;

    if (fault == FAULT_GROWTH) {
        void *volatile lost = malloc(40);
        (void)lost;
    }
    if ((fault == FAULT_CROSS && pending > 0) || (fault == FAULT_SELF && is_self(&desc->node)))
        return PD_EBUSY;
    peer_events = *events;
    mine = *events;
    mine.on_done = on_done;
    mine.on_up = on_up;
    st = pd_xp_connect(tp, desc, &mine, arg, out);
    pending += st == PD_OK;
    if (st == PD_OK && fault == FAULT_BUSY)
        pd_timer_start(&ticks, PD_MS);
    if (st == PD_OK && fd >= 0)
        close(fd);
    return st;
}

static void disconnect(struct pd_transport_peer *peer, uint32_t how)
{
    pd_timer_stop(&ticks);
    pd_xp_disconnect(peer, how);
}

static void info(struct pd_transport *tp, struct pd_transport_info *out)
{
    pd_xp_info(tp, out);
    if (fault == FAULT_SEGMENTS)
        out->max_segments = 2000;
    if (fault == FAULT_CLAIM)
        out->flags |= PD_TRANSPORT_NEEDS_FD;
}

static struct pd_window_events window_events;
static uint64_t window_bytes;

static void on_bytes(struct pd_transport_window *window, uint64_t total, void *arg)
{
    window_events.on_bytes(window, fault == FAULT_EARLY ? window_bytes : total, arg);
}

static pd_status window_open(struct pd_transport *tp, const struct pd_window_desc *desc,
                             const struct pd_window_events *events, void *arg,
                             struct pd_transport_window **out)
{
    static struct pd_window_events mine;

    if (events->on_bytes == NULL)
        return pd_xp_window_open(tp, desc, events, arg, out);
    window_events = *events;
    mine = *events;
    mine.on_bytes = on_bytes;
    window_bytes = 0;
    for (uint32_t i = 0; i < desc->n_segments; i++)
        window_bytes += desc->segments[i].bytes;
    return pd_xp_window_open(tp, desc, &mine, arg, out);
}

static pd_status post(struct pd_transport_target *target, const struct pd_post *p, struct pd_transfer **out)
{
    pd_status st;

    if (fault == FAULT_READ && p->op == PD_TRANSPORT_READ)
        return PD_ENOSYS;
    if (fault == FAULT_SHIFT && ++posted % 50 == 0 && p->segments[0].offset > 0) {
        struct pd_segment *moved_by_one = calloc(p->n_segments, sizeof *moved_by_one);
        struct pd_post other = *p;
        if (moved_by_one == NULL)
            return PD_ENOMEM;
        memcpy(moved_by_one, p->segments, p->n_segments * sizeof *moved_by_one);
        moved_by_one[0].offset--;
        other.segments = moved_by_one;
        st = pd_xp_post(target, &other, out);
        free(moved_by_one);
        return st;
    }
    st = pd_xp_post(target, p, out);
    if (st == PD_OK && fault == FAULT_INSIDE)
        peer_events.on_done(NULL, *out, PD_TRANSFER_OK, 0, p->arg);
    if (st == PD_OK && is_inside)
        forgotten = p->arg;
    return st == PD_EAGAIN && fault == FAULT_ENDLESS ? PD_OK : st;
}

static const struct pd_option options[] = {
    PD_TCP_ROWS(struct broken_conf, tcp.),
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static const struct pd_transport_ops ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = create,
    .destroy = pd_xp_destroy,
    .info = info,
    .stats = pd_xp_stats,
    .address = pd_xp_address,
    .memory_add = memory_add,
    .memory_remove = pd_xp_memory_remove,
    .window_open = window_open,
    .window_export = pd_xp_window_export,
    .window_close = pd_xp_window_close,
    .connect = connect_,
    .disconnect = disconnect,
    .target_open = pd_xp_target_open,
    .target_close = pd_xp_target_close,
    .post = post,
    .cancel = pd_xp_cancel,
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "broken_transport", .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Broken on purpose.", .check = pd_tcp_check),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_transport", .version = "1.0", .summary = "Test module.", .units = units)
