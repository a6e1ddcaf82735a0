/* SPDX-License-Identifier: Apache-2.0 */
/* A transport for t/12-conform.t: the module, its instances and their memory. */
#include "broken_transport.h"

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE },         { "twice", FAULT_TWICE },       { "outside", FAULT_OUTSIDE },
    { "read", FAULT_READ },         { "inside", FAULT_INSIDE },     { "leak", FAULT_LEAK },
    { "asleep", FAULT_ASLEEP },     { "chain", FAULT_CHAIN },       { "early", FAULT_EARLY },
    { "cross", FAULT_CROSS },       { "self", FAULT_SELF },         { "segments", FAULT_SEGMENTS },
    { "endless", FAULT_ENDLESS },   { "claim", FAULT_CLAIM },       { "wrap", FAULT_WRAP },
    { "fds", FAULT_FDS },           { "busy", FAULT_BUSY },         { "growth", FAULT_GROWTH },
    { "shift", FAULT_SHIFT },       { "narrow", FAULT_NARROW },     { "remove", FAULT_REMOVE },
    { "cache", FAULT_CACHE },       { "global", FAULT_GLOBAL },     { "iov", FAULT_IOV },
    { "order", FAULT_ORDER },       { "slots", FAULT_SLOTS },       { "clip", FAULT_CLIP },
    { "poison", FAULT_POISON },     { "late", FAULT_LATE },         { "sum", FAULT_SUM },
    { "address", FAULT_ADDRESS },   { "length", FAULT_LENGTH },     { "epoch", FAULT_EPOCH },
    { "generation", FAULT_GENERATION }, { "unfenced", FAULT_UNFENCED }, { "word", FAULT_WORD },
    { "mute", FAULT_MUTE },         { "abort", FAULT_ABORT },       { "trust", FAULT_TRUST },
    { "ways", FAULT_WAYS },         { "down", FAULT_DOWN },         { NULL, 0 },
};

uint32_t broken_fault;
struct pd_node_id broken_self;
uint8_t *broken_base;
uint64_t broken_bytes;
bool broken_is_gone;
struct pd_timer broken_ticks;

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

    broken_fault = c->fault;
    broken_self = ctx->node;
    broken_is_gone = false;
    pd_timer_stop(&broken_ticks);
    pd_timer_init(&broken_ticks, ctx->loop, "broken", on_tick, NULL);
    if (broken_fault == FAULT_LEAK) {
        void *volatile lost = malloc(100);
        (void)lost;
    }
    return pd_tcp_create(ctx, &c->tcp, &none, out, err);
}

static void destroy(struct pd_transport *tp, void (*on_closed)(void *arg), void *arg)
{
    broken_is_gone = true;
    pd_xp_destroy(tp, on_closed, arg);
}

static void info(struct pd_transport *tp, struct pd_transport_info *out)
{
    pd_xp_info(tp, out);
    if (broken_fault == FAULT_SEGMENTS)
        out->max_segments = 2000;
    if (broken_fault == FAULT_NARROW)
        out->max_segments = 64;
    if (broken_fault == FAULT_CLAIM)
        out->flags |= PD_TRANSPORT_NEEDS_FD;
}

static pd_status memory_add(struct pd_transport *tp, const struct pd_memory_desc *desc,
                            struct pd_transport_memory **out, struct pd_err *err)
{
    static struct {
        int fd;
        struct pd_transport_memory *memory;
    } known[16];
    static uint32_t n_known;
    pd_status st;

    for (uint32_t i = 0; i < n_known && broken_fault == FAULT_CACHE; i++) {
        if (known[i].fd == desc->fd) {
            *out = known[i].memory;
            return PD_OK;
        }
    }
    if (broken_base == NULL) {
        broken_base = desc->base;
        broken_bytes = desc->bytes;
    }
    st = pd_xp_memory_add(tp, desc, out, err);
    if (st == PD_OK && n_known < sizeof known / sizeof known[0]) {
        known[n_known].fd = desc->fd;
        known[n_known++].memory = *out;
    }
    return st;
}

static pd_status memory_remove(struct pd_transport_memory *memory)
{
    pd_status st = broken_fault == FAULT_CACHE ? PD_OK : pd_xp_memory_remove(memory);

    return st == PD_EBUSY && broken_fault == FAULT_REMOVE ? PD_OK : st;
}

static const struct pd_option options[] = {
    PD_TCP_ROWS(struct broken_conf, tcp.),
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static const struct pd_transport_ops ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = create,
    .destroy = destroy,
    .info = info,
    .stats = pd_xp_stats,
    .address = pd_xp_address,
    .memory_add = memory_add,
    .memory_remove = memory_remove,
    .window_open = broken_window_open,
    .window_export = broken_window_export,
    .window_close = broken_window_close,
    .connect = broken_connect,
    .disconnect = broken_disconnect,
    .target_open = broken_target_open,
    .target_close = pd_xp_target_close,
    .post = broken_post,
    .cancel = broken_cancel,
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "broken_transport", .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Broken on purpose.", .check = pd_tcp_check),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_transport", .version = "1.0", .summary = "Test module.", .units = units)
