/* SPDX-License-Identifier: Apache-2.0 */
/* Options that several transports have. */
#include "conf.h"
#include "fabric.h"

#include <pdplane/host.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pd_status pd_xp_addr(const char *text, bool needs_port, struct pd_addr *out)
{
    char host[64];
    const char *port = NULL;
    size_t n = strlen(text);
    unsigned long v = 0;
    char *end;

    memset(out, 0, sizeof(*out));
    if (text[0] == '[') {
        const char *close = strchr(text, ']');
        if (close == NULL || (close[1] != '\0' && close[1] != ':'))
            return PD_EINVAL;
        n = (size_t)(close - text) - 1;
        text++;
        port = close[1] == ':' ? close + 2 : NULL;
    } else {
        const char *colon = strchr(text, ':');
        if (colon != NULL && strchr(colon + 1, ':') == NULL) {
            n = (size_t)(colon - text);
            port = colon + 1;
        }
    }
    if (n == 0 || n >= sizeof(host) || (port == NULL && needs_port))
        return PD_EINVAL;
    memcpy(host, text, n);
    host[n] = '\0';
    if (port != NULL) {
        if (port[0] < '0' || port[0] > '9')
            return PD_EINVAL;
        v = strtoul(port, &end, 10);
        if (*end != '\0' || v > 65535)
            return PD_EINVAL;
    }
    out->port = (uint16_t)v;
    if (inet_pton(AF_INET, host, out->ip) == 1)
        out->family = PD_AF_IPV4;
    else if (inet_pton(AF_INET6, host, out->ip) == 1)
        out->family = PD_AF_IPV6;
    else
        return PD_EINVAL;
    return PD_OK;
}

pd_status pd_xp_addresses(const char *listen, const char *advertise, struct pd_addr *here,
                          struct pd_addr *told, struct pd_err *err)
{
    memset(told, 0, sizeof(*told));
    if (listen == NULL || pd_xp_addr(listen, true, here) != PD_OK) {
        pd_xp_fail(err, PD_EINVAL, "\"%s\" is not a numeric address with a port",
                   listen == NULL ? "" : listen);
        return PD_EINVAL;
    }
    if (advertise != NULL && pd_xp_addr(advertise, false, told) != PD_OK) {
        pd_xp_fail(err, PD_EINVAL, "\"%s\" is not a numeric address", advertise);
        return PD_EINVAL;
    }
    return PD_OK;
}

const struct pd_option_name pd_xp_tls_names[] = {
    { "link", PD_XP_TLS_LINK },
    { "required", PD_XP_TLS_REQUIRED },
    { "off", PD_XP_TLS_OFF },
    { NULL, 0 },
};

static pd_status no_tls(struct pd_err *err)
{
    pd_xp_fail(err, PD_EINVAL, "tls is \"required\", but the node has no link.tls");
    if (err != NULL)
        snprintf(err->hint, sizeof err->hint, "set certificate, key and ca in link = { tls = { }; };, "
                                              "or tls to \"link\" or \"off\" here");
    return PD_EINVAL;
}

pd_status pd_xp_check_tls(uint32_t how, const struct pd_unit_site *site, struct pd_err *err)
{
    if (how == PD_XP_TLS_REQUIRED && (site->flags & PD_SITE_LINK_TLS) == 0)
        return no_tls(err);
    return PD_OK;
}

pd_status pd_xp_choose_tls(const struct pd_instance_ctx *ctx, uint32_t how, struct pd_xp_tls *out,
                           struct pd_err *err)
{
    const struct pd_net_api *net = NULL;
    struct pd_net *object = NULL;

    memset(out, 0, sizeof(*out));
    if (how == PD_XP_TLS_OFF)
        return PD_OK;
    if (ctx->host != NULL) {
        net = pd_host()->table(ctx->host, PD_NET_TABLE, PD_NET_VERSION);
        object = pd_host()->object(ctx->host, PD_NET_TABLE);
    }
    if (net != NULL && object != NULL) {
        out->in = net->peer_tls(object, true);
        out->out = net->peer_tls(object, false);
    }
    if (out->in != NULL && out->out != NULL) {
        out->net = net;
    } else if (how == PD_XP_TLS_REQUIRED) {
        return no_tls(err);
    }
    return PD_OK;
}

pd_status pd_xp_fabric_check(const struct pd_xp_fabric_conf *conf, struct pd_err *err)
{
    struct pd_addr here, told;

    return pd_xp_addresses(conf->listen, conf->advertise, &here, &told, err);
}

static void nothing(struct pd_watch *w, uint32_t events, void *arg)
{
    (void)w;
    (void)events;
    (void)arg;
}

pd_status pd_xp_fabric_fits(const struct pd_instance_ctx *ctx, struct pd_err *err)
{
    struct pd_watch *w;
    int fds[2];
    pd_status st = PD_ELIMIT;

    if (pipe(fds) == 0) {
        st = pd_watch_open(ctx->loop, fds[0], PD_WATCH_READ, "fabric probe", nothing, NULL, &w);
        if (st == PD_OK)
            pd_watch_close(ctx->loop, w);
        close(fds[0]);
        close(fds[1]);
    }
    if (st != PD_OK)
        pd_xp_fail(err, st, st == PD_ENOSYS ? "a fabric cannot be simulated; use tcp"
                                            : "no descriptors left");
    return st;
}

pd_status pd_xp_fabric_create(const struct pd_instance_ctx *ctx,
                              const struct pd_xp_fabric_conf *conf, uint16_t kind,
                              struct pd_xp_fabric *fabric, struct pd_transport **out,
                              struct pd_err *err)
{
    struct pd_xp_conf c;
    pd_status st;

    memset(&c, 0, sizeof(c));
    st = pd_xp_addresses(conf->listen, conf->advertise, &c.listen, &c.advertise, err);
    if (st == PD_OK)
        st = pd_xp_choose_tls(ctx, conf->tls, &c.tls, err);
    c.kind = kind;
    c.fabric = fabric;
    c.depth = conf->depth;
    c.lanes = 1;
    c.queue = conf->queue;
    c.frame_bytes = (uint32_t)conf->frame;
    c.max_windows = conf->windows;
    c.max_links = conf->connections;
    c.timeout = conf->timeout;
    c.connect_timeout = conf->connect_timeout;
    c.keepalive = conf->keepalive;
    if (st == PD_OK)
        st = pd_xp_create(ctx, &c, out, err);
    if (st != PD_OK)
        fabric->ops->destroy(fabric);
    return st;
}
