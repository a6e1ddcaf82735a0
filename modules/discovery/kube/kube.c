/* SPDX-License-Identifier: Apache-2.0 */
/* Servers or nodes of a Kubernetes cluster: EndpointSlices of a service, or pods
 * by labels.  Here are the options, where the API server is, and the life of a source;
 * follow.c follows the objects, request.c asks for them, objects.c reads them. */
#include <stdlib.h>

#include <pdplane/host.h>
#include <pdplane/log.h>

#include "follow.h"
#include "source.h"

#define ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount/"
/* api or the environment: scheme, host, port. */
static pd_status api_read(struct pd_discovery *d, struct pd_err *err)
{
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    if (d->conf->api == NULL && (host == NULL || port == NULL)) {
        source_error(err, PD_ENOENT, "this is no pod of a cluster: KUBERNETES_SERVICE_HOST is not set");
        snprintf(err->hint, sizeof err->hint, "say where the API server is: api = \"https://HOST:PORT\"");
        return PD_ENOENT;
    }
    if (d->conf->api != NULL)
        snprintf(d->api, sizeof d->api, "%s", d->conf->api);
    else
        snprintf(d->api, sizeof d->api, strchr(host, ':') != NULL ? "https://[%s]:%s" : "https://%s:%s", host, port);
    struct pd_str text = source_str(d->api), rest = source_authority(text);
    bool is_tls = strncmp(d->api, "https://", 8) == 0;
    unsigned long number = is_tls ? 443 : 80;
    if (rest.p == text.p || (!is_tls && strncmp(d->api, "http://", 7) != 0) || rest.n == 0 ||
        rest.n >= sizeof d->authority || memchr(rest.p, '/', rest.n) != NULL)
        return source_error(err, PD_EINVAL, "\"%s\" is no address of an API server", d->api);
    snprintf(d->authority, sizeof d->authority, "%.*s", PD_STR_ARG(rest));
    const char *from = d->authority[0] == '[' ? d->authority + 1 : d->authority;
    size_t n = strcspn(from, d->authority[0] == '[' ? "]" : ":");
    const char *colon = strchr(from + n, ':');
    if (colon != NULL)
        number = strtoul(colon + 1, NULL, 10);
    if (n == 0 || n >= sizeof d->host || number == 0 || number > 65535)
        return source_error(err, PD_EINVAL, "\"%s\" is no address of an API server", d->api);
    snprintf(d->host, sizeof d->host, "%.*s", (int)n, from);
    d->port = (uint16_t)number;
    return is_tls ? d->net->tls_create(d->loop, d->log, "the API server", d->conf->ca_file, d->host, &d->tls, err)
                  : PD_OK;
}

static pd_status space_read(struct pd_discovery *d, struct pd_err *err)
{
    if (d->conf->space != NULL)
        snprintf(d->space, sizeof d->space, "%s", d->conf->space);
    else if (kube_small_file(ACCOUNT "namespace", d->space, sizeof d->space) <= 0)
        return source_error(err, PD_ENOENT, "no namespace is given, and none can be read from " ACCOUNT "namespace");
    for (const char *c = d->space; *c != '\0'; c++) {
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-'))
            return source_error(err, PD_EINVAL, "\"%s\" is no name of a namespace", d->space);
    }
    return PD_OK;
}

static pd_status kube_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_discovery **out,
                             struct pd_err *err)
{
    struct pd_discovery *d = calloc(1, sizeof *d);
    if (d == NULL)
        return source_error(err, PD_ENOMEM, "out of memory");
    d->conf = conf;
    d->loop = ctx->loop;
    d->log = ctx->log;
    d->backoff = KUBE_BACKOFF_MIN;
    d->json = pd_host()->table(ctx->host, PD_JSON_TABLE, PD_JSON_VERSION);
    d->net = pd_host()->table(ctx->host, PD_NET_TABLE, PD_NET_VERSION);
    d->nets = pd_host()->object(ctx->host, PD_NET_TABLE);
    d->objects = (struct kube_objects){ .json = d->json, .conf = d->conf };
    pd_timer_init(&d->timer, d->loop, "discovery kube", kube_on_timer, d);
    pd_timer_init(&d->settle, d->loop, "discovery kube settle", kube_on_settle, d);
    pd_status status = d->json != NULL && d->net != NULL && d->nets != NULL ? PD_OK
        : source_error(err, PD_ENOSYS, "this pdplane does not offer the tables that the module was built for");
    if (status == PD_OK)
        status = space_read(d, err);
    if (status == PD_OK)
        status = api_read(d, err);
    if (status != PD_OK) {
        free(d);
        return status;
    }
    *out = d;
    return PD_OK;
}

static pd_status kube_start(struct pd_discovery *d, struct pd_discovery_sink *sink, struct pd_err *err)
{
    (void)err;
    d->sink = sink;
    pd_timer_start(&d->timer, 0);
    return PD_OK;
}

/* A watch is hung up and begun anew by a list; what else runs ends in a list. */
static void kube_refresh(struct pd_discovery *d)
{
    if (d->state == KUBE_WATCHING || d->state == KUBE_IDLE)
        kube_list_again(d);
}

static void closed(struct pd_task *task, void *arg)
{
    struct pd_discovery *d = arg;
    void (*on_closed)(void *) = d->on_closed;
    void *closed_arg = d->arg;
    (void)task;
    d->net->tls_destroy(d->tls);
    free(d);
    on_closed(closed_arg);
}

static void kube_destroy(struct pd_discovery *d, void (*on_closed)(void *arg), void *arg)
{
    pd_timer_stop(&d->timer);
    pd_timer_stop(&d->settle);
    if (d->state == KUBE_RESOLVING)
        pd_resolve_cancel(d->loop, &d->resolve);
    kube_hang_up(d);
    kube_body_clear(d);
    kube_objects_clear(&d->objects);
    d->on_closed = on_closed;
    d->arg = arg;
    pd_task_init(&d->close_task, "discovery kube", closed, d);
    pd_loop_defer(d->loop, &d->close_task);
}

static pd_status kube_check(const void *conf, struct pd_err *err)
{
    const struct kube_conf *c = conf;
    if ((c->service == NULL) == (c->selector == NULL))
        return source_error(err, PD_EINVAL, "one of \"service\" and \"selector\" is needed");
    if (c->selector != NULL && (c->port == NULL || c->port[0] == '\0' || strspn(c->port, "0123456789") != strlen(c->port)))
        return source_error(err, PD_EINVAL, "\"selector\" needs \"port\", as a number");
    if (strlen(c->service != NULL ? c->service : c->selector) > 1000)
        return source_error(err, PD_EINVAL, "\"%s\" is too long", c->service != NULL ? "service" : "selector");
    return PD_OK;
}

static const struct pd_option kube_options[] = {
    PD_OPT_STRING("service", struct kube_conf, service, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "A service: its ready endpoints are the entries, with its labels."),
    PD_OPT_STRING("selector", struct kube_conf, selector, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Labels of pods, such as \"app=vllm,llm-d.ai/role=decode\": ready pods are the "
                          "entries, with their labels."),
    PD_OPT_STRING("port", struct kube_conf, port, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Name or number of the port; when absent, the first one of the service."),
    PD_OPT_STRING("namespace", struct kube_conf, space, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Namespace; when absent, that of this pod."),
    PD_OPT_BOOL("tls", struct kube_conf, is_tls, "false", .help = "The servers speak https."),
    PD_OPT_BOOL("peers", struct kube_conf, is_peer, "false",
                .help = "They are nodes of pdplane, and the port is that of their peer listener."),
    PD_OPT_DURATION("resync", struct kube_conf, resync, "10m", .min = (int64_t)PD_SEC, .max = 86400 * (int64_t)PD_SEC,
                    .help = "All is listed again when something comes after so long."),
    PD_OPT_STRING("api", struct kube_conf, api, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "The API server, https://HOST:PORT; when absent, that of this pod's cluster."),
    PD_OPT_STRING("token_file", struct kube_conf, token_file, ACCOUNT "token", .flags = PD_OPT_NONEMPTY | PD_OPT_PATH,
                  .help = "File with the token of the account; read for each request."),
    PD_OPT_STRING("ca_file", struct kube_conf, ca_file, ACCOUNT "ca.crt", .flags = PD_OPT_NONEMPTY | PD_OPT_PATH,
                  .help = "PEM file of the authorities of the API server."),
    PD_OPT_END
};

static const struct pd_discovery_ops kube_ops = {
    .head = PD_OPS(pd_discovery_ops, PD_DISCOVERY_V1),
    .flags = PD_DISCOVERY_REFRESH,
    .create = kube_create,
    .start = kube_start,
    .refresh = kube_refresh,
    .destroy = kube_destroy,
};

static const struct pd_unit kube_units[] = {
    PD_UNIT(.kind = PD_KIND_DISCOVERY, .name = "kube", .ops = &kube_ops.head, .options = kube_options,
            .conf_size = sizeof(struct kube_conf), .check = kube_check,
            .summary = "Names the endpoints of a service, or pods, of a Kubernetes cluster."),
    PD_UNIT_END
};

PD_MODULE(.name = "kube", .version = "0.1.0",
          .summary = "Names the endpoints of a service, or pods, of a Kubernetes cluster.", .units = kube_units)
