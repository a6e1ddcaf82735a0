/* SPDX-License-Identifier: Apache-2.0 */
/* From the options of tcp to the engine behind it. */
#include "tcp.h"

#include <pdplane/host.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pd_status pd_tcp_addr(const char *text, bool needs_port, struct pd_addr *out)
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

static pd_status addresses(const struct pd_tcp_conf *conf, struct pd_addr *here,
                           struct pd_addr *told, struct pd_err *err)
{
    memset(told, 0, sizeof(*told));
    if (conf->listen == NULL || pd_tcp_addr(conf->listen, true, here) != PD_OK) {
        pd_xp_fail(err, PD_EINVAL, "\"%s\" is not a numeric address with a port",
                   conf->listen == NULL ? "" : conf->listen);
        return PD_EINVAL;
    }
    if (conf->advertise != NULL && pd_tcp_addr(conf->advertise, false, told) != PD_OK) {
        pd_xp_fail(err, PD_EINVAL, "\"%s\" is not a numeric address", conf->advertise);
        return PD_EINVAL;
    }
    return PD_OK;
}

const struct pd_option_name pd_tcp_tls_names[] = {
    { "link", PD_TCP_TLS_LINK },
    { "required", PD_TCP_TLS_REQUIRED },
    { "off", PD_TCP_TLS_OFF },
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

static pd_status choose_tls(const struct pd_instance_ctx *ctx, uint32_t how, struct pd_xp_tls *out,
                            struct pd_err *err)
{
    const struct pd_net_api *net = NULL;
    struct pd_net *object = NULL;

    memset(out, 0, sizeof(*out));
    if (how == PD_TCP_TLS_OFF)
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
    } else if (how == PD_TCP_TLS_REQUIRED) {
        return no_tls(err);
    }
    return PD_OK;
}

pd_status pd_tcp_check(const void *conf, struct pd_err *err)
{
    struct pd_addr here, told;

    return addresses(conf, &here, &told, err);
}

pd_status pd_tcp_check_site(const void *conf, const struct pd_unit_site *site, struct pd_err *err)
{
    const struct pd_tcp_conf *c = conf;

    if (c->tls == PD_TCP_TLS_REQUIRED && (site->flags & PD_SITE_LINK_TLS) == 0)
        return no_tls(err);
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
    st = addresses(conf, &c.listen, &c.advertise, err);
    if (st == PD_OK)
        st = choose_tls(ctx, conf->tls, &c.tls, err);
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
