/* SPDX-License-Identifier: Apache-2.0 */
/* Transport over libfabric.  The module proper: its options and its ops table;
 * libfabric itself is in fabric.c, the rest in ../common. */
#include "ofi.h"

static pd_status ofi_create(const struct pd_instance_ctx *ctx, const void *conf_arg,
                            struct pd_transport **out, struct pd_err *err)
{
    const struct pd_ofi_conf *conf = conf_arg;
    struct pd_xp_fabric *fabric;
    pd_status st = pd_xp_fabric_fits(ctx, err);

    if (st == PD_OK)
        st = pd_ofi_fabric(ctx, conf, &fabric, err);
    if (st != PD_OK)
        return st;
    return pd_xp_fabric_create(ctx, &conf->f, PD_XP_OFI, fabric, out, err);
}

static pd_status ofi_check(const void *conf_arg, struct pd_err *err)
{
    const struct pd_ofi_conf *conf = conf_arg;

    return pd_xp_fabric_check(&conf->f, err);
}

static pd_status ofi_check_site(const void *conf_arg, const struct pd_unit_site *site,
                                struct pd_err *err)
{
    const struct pd_ofi_conf *conf = conf_arg;

    return pd_xp_check_tls(conf->f.tls, site, err);
}

static const struct pd_option ofi_options[] = {
    PD_OPT_STRING("provider", struct pd_ofi_conf, provider, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "libfabric's name of the provider, such as efa, cxi or verbs;ofi_rxm. "
                          "Without it the first of cxi, efa, verbs;ofi_rxm, opx, psm3, "
                          "tcp;ofi_rxm and tcp that is there. All nodes must have the same."),
    PD_OPT_STRING("domain", struct pd_ofi_conf, domain, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "libfabric's name of the device, such as mlx5_0 or eth0. Without it the "
                          "provider's first one."),
    PD_OPT_BOOL("poll", struct pd_ofi_conf, poll, "false",
                .help = "Look for ended reads in every turn of the loop instead of waiting for "
                        "them, while something is under way. Costs a processor and saves some "
                        "microseconds. Providers that cannot be waited for are always polled."),
    PD_XP_FABRIC_ROWS(struct pd_ofi_conf, f.),
    PD_OPT_END
};

static const struct pd_transport_ops ofi_ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = ofi_create,
    PD_XP_OPS,
};

static const struct pd_unit ofi_units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "ofi", .ops = &ofi_ops.head,
            .options = ofi_options, .conf_size = sizeof(struct pd_ofi_conf),
            .summary = "Moves KV between nodes by RDMA reads over EFA, Slingshot and other "
                       "networks, with libfabric.",
            .check = ofi_check, .check_site = ofi_check_site),
    PD_UNIT_END
};

PD_MODULE(.name = "ofi", .version = "1.0", .summary = "Transport over libfabric.",
          .units = ofi_units)
