/* SPDX-License-Identifier: Apache-2.0 */
/* From the options of tcp to the engine behind it. */
#include "tcp.h"

#include <stdio.h>
#include <string.h>

pd_status pd_tcp_check(const void *conf_arg, struct pd_err *err)
{
    const struct pd_tcp_conf *conf = conf_arg;
    struct pd_addr here, told;

    return pd_xp_addresses(conf->listen, conf->advertise, &here, &told, err);
}

pd_status pd_tcp_check_site(const void *conf, const struct pd_unit_site *site, struct pd_err *err)
{
    const struct pd_tcp_conf *c = conf;
    pd_status st = pd_xp_check_tls(c->tls, site, err);

    if (st != PD_OK)
        return st;
    if (c->codec != NULL && !site->has_unit(site, PD_KIND_CODEC, c->codec)) {
        pd_xp_fail(err, PD_ENOENT, "there is no codec \"%s\"", c->codec);
        if (err != NULL)
            snprintf(err->hint, sizeof err->hint, "add its module to load = [ ... ];");
        return PD_ENOENT;
    }
    return PD_OK;
}

pd_status pd_tcp_create(const struct pd_instance_ctx *ctx, const struct pd_tcp_conf *conf,
                        const struct pd_xp_hooks *hooks, struct pd_transport **out,
                        struct pd_err *err)
{
    struct pd_xp_conf c;
    pd_status st;

    memset(&c, 0, sizeof(c));
    st = pd_xp_addresses(conf->listen, conf->advertise, &c.listen, &c.advertise, err);
    if (st == PD_OK)
        st = pd_xp_choose_tls(ctx, conf->tls, &c.tls, err);
    if (st != PD_OK)
        return st;
    c.kind = PD_XP_TCP;
    c.checksum = conf->checksum;
    c.lanes = conf->lanes;
    c.queue = conf->queue;
    c.frame_bytes = (uint32_t)conf->frame;
    c.max_windows = conf->windows;
    c.max_links = conf->connections;
    c.timeout = conf->timeout;
    c.connect_timeout = conf->connect_timeout;
    c.keepalive = conf->keepalive;
    c.hooks = hooks;
    c.codec = conf->codec;
    return pd_xp_create(ctx, &c, out, err);
}
