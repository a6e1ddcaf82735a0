/* SPDX-License-Identifier: Apache-2.0 */
/* Servers or nodes behind one name: each address that the name has is one entry.
 * The name is looked up again and again, because the system's resolver does not
 * tell how long an answer holds. */
#include <stdlib.h>

#include <pdplane/loop.h>

#include "source.h"

#define ANSWER_NS (5 * PD_SEC)      /* without an answer by then the source is lost */

enum { FAMILY_AUTO, FAMILY_BOTH, FAMILY_IPV4, FAMILY_IPV6 };

struct dns_conf {
    const char *server;
    const char *peer;
    uint64_t interval;
    uint32_t family;
};

struct pd_discovery {
    const struct dns_conf *conf;
    struct pd_loop *loop;
    struct pd_discovery_sink *sink;
    char host[256];
    uint16_t port;
    const char *scheme;             /* "http://", "https://", or "" for nodes */
    struct pd_timer look_timer, answer_timer;
    struct pd_resolve resolve;
    bool is_looking, look_again;
    struct pd_task close_task;
    void (*on_closed)(void *arg);
    void *arg;
};

/* Takes HOST and PORT apart; what is left out of a URL is its scheme's port. */
static pd_status target_read(const struct dns_conf *c, struct pd_discovery *d, struct pd_err *err)
{
    struct pd_str text = source_str(c->server != NULL ? c->server : c->peer);
    struct pd_str rest = c->server != NULL ? source_authority(text) : text;
    unsigned long port = 0;
    size_t n = 0;
    d->scheme = "";
    if (c->server != NULL) {
        bool is_tls = strncmp(c->server, "https://", 8) == 0;
        if (rest.p == text.p || (!is_tls && strncmp(c->server, "http://", 7) != 0))
            goto bad;
        d->scheme = is_tls ? "https://" : "http://";
        port = is_tls ? 443 : 80;
    }
    while (n < rest.n && rest.p[n] != ':')
        n++;
    if (n == 0 || n >= sizeof d->host || memchr(rest.p, '/', rest.n) != NULL ||
        memchr(rest.p, '[', rest.n) != NULL)
        goto bad;
    memcpy(d->host, rest.p, n);
    d->host[n] = '\0';
    if (n < rest.n) {
        port = 0;
        for (size_t i = n + 1; i < rest.n; i++) {
            if (rest.p[i] < '0' || rest.p[i] > '9' || port > 65535)
                goto bad;
            port = port * 10 + (unsigned long)(rest.p[i] - '0');
        }
    }
    if (port == 0 || port > 65535)
        goto bad;
    d->port = (uint16_t)port;
    return PD_OK;
bad:
    source_error(err, PD_EINVAL, "\"%.*s\" is not understood", (int)text.n, text.p);
    snprintf(err->hint, sizeof err->hint, c->server != NULL ? "write http://NAME:PORT or https://NAME:PORT"
                                                            : "write NAME:PORT");
    return PD_EINVAL;
}

static pd_status dns_check(const void *conf, struct pd_err *err)
{
    const struct dns_conf *c = conf;
    struct pd_discovery d;
    if ((c->server == NULL) == (c->peer == NULL))
        return source_error(err, PD_EINVAL, "one of \"server\" and \"peer\" is needed");
    return target_read(c, &d, err);
}

/* ---- looking --------------------------------------------------------------------------- */

static void look_later(struct pd_discovery *d)
{
    pd_time t = d->conf->interval;
    if (d->look_again)
        t = 0;
    else
        t = t - t / 10 + pd_loop_random_below(d->loop, t / 5 + 1);
    d->look_again = false;
    pd_timer_start(&d->look_timer, t);
}

static bool is_wanted(const struct pd_discovery *d, const struct pd_addr *a, bool has_v4)
{
    switch (d->conf->family) {
    case FAMILY_IPV4:
        return a->family == PD_AF_IPV4;
    case FAMILY_IPV6:
        return a->family == PD_AF_IPV6;
    case FAMILY_AUTO:
        return !has_v4 || a->family == PD_AF_IPV4;
    default:
        return true;
    }
}

static void addresses_put(struct pd_discovery *d, const struct pd_addr *addrs, size_t n)
{
    bool has_v4 = false;
    for (size_t i = 0; i < n; i++)
        has_v4 |= addrs[i].family == PD_AF_IPV4;
    pd_discovery_begin(d->sink);
    for (size_t i = 0; i < n; i++) {
        char text[PD_ADDR_TEXT], address[PD_ADDR_TEXT + 16];
        bool is_twice = false;
        for (size_t k = 0; k < i && !is_twice; k++)
            is_twice = pd_addr_equal(&addrs[k], &addrs[i]);
        if (is_twice || !is_wanted(d, &addrs[i], has_v4))
            continue;
        size_t len = pd_addr_format(d->loop, &addrs[i], text, sizeof text);
        snprintf(address, sizeof address, "%s%s", d->scheme, text);
        struct pd_discovery_entry e = {
            .size = sizeof e,
            .what = d->conf->server != NULL ? PD_DISCOVERY_SERVER : PD_DISCOVERY_PEER,
            .name = { text, len },
            .address = source_str(address),
        };
        pd_discovery_put(d->sink, &e);
    }
    pd_discovery_end(d->sink);
}

static void on_answer(struct pd_resolve *resolve, pd_status status, const struct pd_addr *addrs, size_t n,
                      void *arg)
{
    struct pd_discovery *d = arg;
    char why[400];
    (void)resolve;
    d->is_looking = false;
    pd_timer_stop(&d->answer_timer);
    if (status == PD_OK) {
        if (n == PD_RESOLVE_MAX)
            pd_discovery_broken(d->sink, "the name has more addresses than can be followed");
        else
            addresses_put(d, addrs, n);
    } else {
        snprintf(why, sizeof why, "%s \"%s\"",
                 status == PD_ENOENT ? "there is no name" : "the resolver does not answer for", d->host);
        pd_discovery_lost(d->sink, why);
    }
    look_later(d);
}

static void on_no_answer(struct pd_timer *timer, void *arg)
{
    struct pd_discovery *d = arg;
    char why[400];
    (void)timer;
    snprintf(why, sizeof why, "the resolver does not answer for \"%s\"", d->host);
    pd_discovery_lost(d->sink, why);
}

static void look(struct pd_timer *timer, void *arg)
{
    struct pd_discovery *d = arg;
    (void)timer;
    d->resolve = (struct pd_resolve){ .cb = on_answer, .arg = d, .name = "discovery dns" };
    if (pd_resolve_start(d->loop, d->host, d->port, &d->resolve) != PD_OK) {
        pd_discovery_lost(d->sink, "too many names are looked up at a time");
        look_later(d);
        return;
    }
    d->is_looking = true;
    pd_timer_start(&d->answer_timer, ANSWER_NS);
}

/* ---- life -------------------------------------------------------------------------------- */

static pd_status dns_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_discovery **out,
                            struct pd_err *err)
{
    struct pd_discovery *d = calloc(1, sizeof *d);
    if (d == NULL)
        return source_error(err, PD_ENOMEM, "out of memory");
    d->conf = conf;
    d->loop = ctx->loop;
    pd_status status = target_read(d->conf, d, err);
    if (status != PD_OK) {
        free(d);
        return status;
    }
    pd_timer_init(&d->look_timer, d->loop, "discovery dns", look, d);
    pd_timer_init(&d->answer_timer, d->loop, "discovery dns answer", on_no_answer, d);
    *out = d;
    return PD_OK;
}

static pd_status dns_start(struct pd_discovery *d, struct pd_discovery_sink *sink, struct pd_err *err)
{
    (void)err;
    d->sink = sink;
    pd_timer_start(&d->look_timer, 0);
    return PD_OK;
}

static void dns_refresh(struct pd_discovery *d)
{
    if (d->is_looking)
        d->look_again = true;
    else
        pd_timer_start(&d->look_timer, 0);
}

static void closed(struct pd_task *task, void *arg)
{
    struct pd_discovery *d = arg;
    void (*on_closed)(void *) = d->on_closed;
    void *closed_arg = d->arg;
    (void)task;
    free(d);
    on_closed(closed_arg);
}

static void dns_destroy(struct pd_discovery *d, void (*on_closed)(void *arg), void *arg)
{
    pd_timer_stop(&d->look_timer);
    pd_timer_stop(&d->answer_timer);
    if (d->is_looking)
        pd_resolve_cancel(d->loop, &d->resolve);
    d->on_closed = on_closed;
    d->arg = arg;
    pd_task_init(&d->close_task, "discovery dns", closed, d);
    pd_loop_defer(d->loop, &d->close_task);
}

static const struct pd_option_name families[] = {
    { "auto", FAMILY_AUTO }, { "both", FAMILY_BOTH }, { "ipv4", FAMILY_IPV4 },
    { "ipv6", FAMILY_IPV6 }, { NULL, 0 },
};

static const struct pd_option dns_options[] = {
    PD_OPT_STRING("server", struct dns_conf, server, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "http://NAME:PORT or https://NAME:PORT: each address of the name is a server at "
                          "that port. The endpoint is called ADDRESS:PORT."),
    PD_OPT_STRING("peer", struct dns_conf, peer, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "NAME:PORT: each address of the name is a node with its peer listener there."),
    PD_OPT_DURATION("interval", struct dns_conf, interval, "5s", .min = 100 * (int64_t)PD_MS,
                    .max = 3600 * (int64_t)PD_SEC,
                    .help = "How often the name is looked up; a tenth more or less by chance."),
    PD_OPT_ENUM("family", struct dns_conf, family, "auto", families,
                .help = "Which addresses count: auto is those of IPv4, or of IPv6 when there are no others, so "
                        "that a server with both counts once."),
    PD_OPT_END
};

static const struct pd_discovery_ops dns_ops = {
    .head = PD_OPS(pd_discovery_ops, PD_DISCOVERY_V1),
    .flags = PD_DISCOVERY_REFRESH,
    .create = dns_create,
    .start = dns_start,
    .refresh = dns_refresh,
    .destroy = dns_destroy,
};

static const struct pd_unit dns_units[] = {
    PD_UNIT(.kind = PD_KIND_DISCOVERY, .name = "dns", .ops = &dns_ops.head, .options = dns_options,
            .conf_size = sizeof(struct dns_conf), .check = dns_check,
            .summary = "Names the servers or nodes behind a name in DNS."),
    PD_UNIT_END
};

PD_MODULE(.name = "dns", .version = "0.1.0", .summary = "Names the servers or nodes behind a name in DNS.",
          .units = dns_units)
