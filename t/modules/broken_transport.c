/* SPDX-License-Identifier: Apache-2.0 */
/* The tcp transport behind operations that break the contract in the way that
 * the option names. */
#include "tcp.h"

#include <stdlib.h>
#include <string.h>

enum { FAULT_NONE, FAULT_TWICE, FAULT_OUTSIDE, FAULT_READ, FAULT_INSIDE, FAULT_LEAK };

struct broken_conf {
    struct pd_tcp_conf tcp;
    uint32_t fault;
};

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE }, { "twice", FAULT_TWICE },   { "outside", FAULT_OUTSIDE },
    { "read", FAULT_READ }, { "inside", FAULT_INSIDE }, { "leak", FAULT_LEAK }, { NULL, 0 },
};

/* The instances of a process are all configured alike, and the tests look at
 * one memory and one peer at a time: plain variables will do here. */
static uint32_t fault;
static uint8_t *memory_base;
static struct pd_transport_peer_events peer_events;

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_transport **out,
                        struct pd_err *err)
{
    const struct broken_conf *c = conf;
    static const struct pd_xp_hooks none;

    fault = c->fault;
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
    if (fault == FAULT_OUTSIDE)
        memory_base[0] ^= 1;     /* the owner's first byte, which no window of the tests has */
    peer_events.on_done(peer, transfer, terminal, bytes, post_arg);
    if (fault == FAULT_TWICE)
        peer_events.on_done(peer, transfer, terminal, bytes, post_arg);
}

static pd_status connect_(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                          const struct pd_transport_peer_events *events, void *arg,
                          struct pd_transport_peer **out)
{
    static struct pd_transport_peer_events mine;

    peer_events = *events;
    mine = *events;
    if (events->on_done != NULL)
        mine.on_done = on_done;
    return pd_xp_connect(tp, desc, &mine, arg, out);
}

static pd_status post(struct pd_transport_target *target, const struct pd_post *p, struct pd_transfer **out)
{
    pd_status st;

    if (fault == FAULT_READ && p->op == PD_TRANSPORT_READ)
        return PD_ENOSYS;
    st = pd_xp_post(target, p, out);
    if (st == PD_OK && fault == FAULT_INSIDE)
        peer_events.on_done(NULL, *out, PD_TRANSFER_OK, 0, p->arg);
    return st;
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
    .info = pd_xp_info,
    .stats = pd_xp_stats,
    .address = pd_xp_address,
    .memory_add = memory_add,
    .memory_remove = pd_xp_memory_remove,
    .window_open = pd_xp_window_open,
    .window_export = pd_xp_window_export,
    .window_close = pd_xp_window_close,
    .connect = connect_,
    .disconnect = pd_xp_disconnect,
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
