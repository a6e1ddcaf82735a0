/* SPDX-License-Identifier: Apache-2.0 */
/* Transport over UCX.  The module proper: its options and its ops table; UCX
 * itself is in fabric.c, the rest in ../common. */
#include "ucx.h"

static pd_status ucx_create(const struct pd_instance_ctx *ctx, const void *conf_arg,
                            struct pd_transport **out, struct pd_err *err)
{
    const struct pd_ucx_conf *conf = conf_arg;
    struct pd_xp_fabric *fabric;
    pd_status st = pd_xp_fabric_fits(ctx, err);

    if (st == PD_OK)
        st = pd_ucx_fabric(ctx, conf, &fabric, err);
    if (st != PD_OK)
        return st;
    return pd_xp_fabric_create(ctx, &conf->f, PD_XP_UCX, fabric, out, err);
}

static pd_status ucx_check(const void *conf_arg, struct pd_err *err)
{
    const struct pd_ucx_conf *conf = conf_arg;

    return pd_xp_fabric_check(&conf->f, err);
}

static pd_status ucx_check_site(const void *conf_arg, const struct pd_unit_site *site,
                                struct pd_err *err)
{
    const struct pd_ucx_conf *conf = conf_arg;

    return pd_xp_check_tls(conf->f.tls, site, err);
}

static const struct pd_option ucx_options[] = {
    PD_OPT_STRING("transports", struct pd_ucx_conf, transports, "ib", .flags = PD_OPT_NONEMPTY,
                  .help = "UCX's names of the transports it may use, with commas between them, as "
                          "in UCX_TLS. ib: InfiniBand and RoCE. Others, such as tcp, are slower "
                          "than the transports tcp and shm, and serve memory to whoever reaches "
                          "their port."),
    PD_OPT_STRING("devices", struct pd_ucx_conf, devices, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "UCX's names of the network devices it may use, with commas between "
                          "them, such as mlx5_0:1. Without it UCX_NET_DEVICES of the environment, "
                          "or all of them. \\fBucx_info -d\\fR lists them."),
    PD_XP_FABRIC_ROWS(struct pd_ucx_conf, f.),
    PD_OPT_END
};

static const struct pd_transport_ops ucx_ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = ucx_create,
    PD_XP_OPS,
};

static const struct pd_unit ucx_units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "ucx", .ops = &ucx_ops.head,
            .options = ucx_options, .conf_size = sizeof(struct pd_ucx_conf),
            .summary = "Moves KV between nodes by RDMA reads over InfiniBand or RoCE, with UCX.",
            .check = ucx_check, .check_site = ucx_check_site),
    PD_UNIT_END
};

PD_MODULE(.name = "ucx", .version = "1.0", .summary = "Transport over UCX.", .units = ucx_units)
