/* SPDX-License-Identifier: Apache-2.0 */
/* Transport over TCP.  The module proper: its options and its ops table; the
 * work is done in ../common. */
#include "tcp.h"

static pd_status tcp_create(const struct pd_instance_ctx *ctx, const void *conf,
                            struct pd_transport **out, struct pd_err *err)
{
    return pd_tcp_create(ctx, conf, NULL, out, err);
}

static const struct pd_option tcp_options[] = { PD_TCP_ROWS(struct pd_tcp_conf, ), PD_OPT_END };

static const struct pd_transport_ops tcp_ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = tcp_create,
    PD_XP_OPS,
};

static const struct pd_unit tcp_units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "tcp", .ops = &tcp_ops.head,
            .options = tcp_options, .conf_size = sizeof(struct pd_tcp_conf),
            .summary = "Moves KV between nodes over TCP connections of its own.",
            .check = pd_tcp_check, .check_site = pd_tcp_check_site),
    PD_UNIT_END
};

PD_MODULE(.name = "tcp", .version = "1.0", .summary = "Transport over TCP.", .units = tcp_units)
