/* SPDX-License-Identifier: Apache-2.0 */
/* Servers or nodes of a Kubernetes cluster: EndpointSlices of a service, or pods
 * by labels.  Lists, then watches from the version of the list on; when the
 * version is too old (410), or now and then anyway, lists again. */
#include "kube.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <pdplane/host.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/net.h>

#include "source.h"

#define ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount/"
#define PAGE_OBJECTS 250u
#define BODY_MAX (16u << 20)        /* of a page of a list, and of one change */
#define TOKEN_MAX 16384u
#define VERSION_MAX 128u
#define CONTINUE_MAX 4096u
#define BACKOFF_MIN (200 * PD_MS)
#define BACKOFF_MAX (30 * PD_SEC)
#define WATCH_SECONDS 240u          /* the API server ends a watch by then */
#define WATCH_IDLE (WATCH_SECONDS * PD_SEC + 30 * PD_SEC)
#define SETTLE (20 * PD_MS)         /* changes that come together are told together */

enum { IDLE, RESOLVING, LISTING, WATCHING };

struct pd_discovery {
    const struct kube_conf *conf;
    struct pd_loop *loop;
    struct pd_log *log;
    const struct pd_net_api *net;
    struct pd_net *nets;
    const struct pd_json_api *json;
    struct pd_discovery_sink *sink;
    char space[KUBE_NAME_MAX + 1];
    char host[256], authority[300];
    char api[320];
    uint16_t port;
    struct pd_tls *tls;
    struct pd_addr addr;
    struct pd_resolve resolve;
    uint32_t state;
    struct pd_http_call *call;
    uint32_t status;                    /* of the answer */
    char *body;                         /* of a list, or the part of a change that came */
    size_t body_n, body_cap;
    char version[VERSION_MAX];          /* to watch from; "": list first */
    char next[CONTINUE_MAX];            /* page */
    struct kube_objects objects;
    struct pd_timer timer;              /* the next try */
    struct pd_timer settle;
    pd_time backoff;
    pd_time listed_at;
    char authorization[TOKEN_MAX + 8];
    struct pd_task close_task;
    void (*on_closed)(void *arg);
    void *arg;
};

static void step(struct pd_discovery *d);

/* ---- files of the service account ------------------------------------------------------------ */

/* A small file in memory of the kubelet; n bytes, or -1. */
static ssize_t small_file(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, to, size - 1);
    if (fd >= 0)
        close(fd);
    while (n > 0 && (to[n - 1] == '\n' || to[n - 1] == ' '))
        n--;
    if (n >= 0)
        to[n] = '\0';
    return n;
}

/* The token changes while the pod lives: it is read for each request. */
static bool token_read(struct pd_discovery *d)
{
    memcpy(d->authorization, "Bearer ", 7);
    ssize_t n = small_file(d->conf->token_file, d->authorization + 7, TOKEN_MAX);
    for (ssize_t i = 0; i < n; i++) {
        if (d->authorization[7 + i] <= ' ' || d->authorization[7 + i] > '~')
            return false;
    }
    return n > 0;
}

/* ---- trouble ---------------------------------------------------------------------------------- */

static void retry(struct pd_discovery *d)
{
    pd_time base = d->backoff;
    d->state = IDLE;
    d->backoff = base * 2 > BACKOFF_MAX ? BACKOFF_MAX : base * 2;
    pd_timer_start(&d->timer, base / 2 + pd_loop_random_below(d->loop, base / 2 + 1));
}

static void PD_PRINTF(2, 3) trouble(struct pd_discovery *d, const char *fmt, ...)
{
    char why[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    pd_discovery_lost(d->sink, why);
    retry(d);
}

static void status_trouble(struct pd_discovery *d)
{
    const char *what = d->conf->service != NULL ? "endpointslices" : "pods";
    if (d->status == 401)
        trouble(d, "the API server does not know the token (401)");
    else if (d->status == 403)
        trouble(d, "the account may not get, list and watch %s in namespace %s (403)", what, d->space);
    else
        trouble(d, "the API server answers with status %u", d->status);
}

/* ---- requests ------------------------------------------------------------------------------------ */

/* Appends s with everything escaped that is not plain in a query. */
static size_t query_put(char *out, size_t at, size_t size, const char *s)
{
    static const char hex[] = "0123456789ABCDEF";
    for (; *s != '\0' && at + 4 < size; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c) != NULL) {
            out[at++] = (char)c;
        } else {
            out[at++] = '%';
            out[at++] = hex[c >> 4];
            out[at++] = hex[c & 15];
        }
    }
    out[at] = '\0';
    return at;
}

static void target_make(struct pd_discovery *d, char *out, size_t size)
{
    const struct kube_conf *c = d->conf;
    size_t at = (size_t)snprintf(out, size, "%s/namespaces/%s/%s?labelSelector=",
                                 c->service != NULL ? "/apis/discovery.k8s.io/v1" : "/api/v1", d->space,
                                 c->service != NULL ? "endpointslices" : "pods");
    if (c->service != NULL)
        at = query_put(out, at, size, "kubernetes.io/service-name=");
    at = query_put(out, at, size, c->service != NULL ? c->service : c->selector);
    if (d->state == WATCHING) {
        at += (size_t)snprintf(out + at, size - at,
                               "&watch=1&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=", WATCH_SECONDS);
        query_put(out, at, size, d->version);
        return;
    }
    at += (size_t)snprintf(out + at, size - at, "&limit=%u", PAGE_OBJECTS);
    if (d->next[0] != '\0') {
        at += (size_t)snprintf(out + at, size - at, "&continue=");
        query_put(out, at, size, d->next);
    }
}

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct pd_discovery *d = arg;
    (void)call;
    d->status = head->status;
    if (d->status == 200 && d->state == WATCHING)
        pd_discovery_synced(d->sink);
}

static bool body_add(struct pd_discovery *d, struct pd_str piece)
{
    if (d->body_n + piece.n > BODY_MAX)
        return false;
    if (d->body_n + piece.n > d->body_cap) {
        size_t cap = d->body_cap == 0 ? 65536 : d->body_cap;
        while (cap < d->body_n + piece.n)
            cap *= 2;
        char *more = realloc(d->body, cap);
        if (more == NULL)
            return false;
        d->body = more;
        d->body_cap = cap;
    }
    memcpy(d->body + d->body_n, piece.p, piece.n);
    d->body_n += piece.n;
    return true;
}

static void body_clear(struct pd_discovery *d)
{
    free(d->body);
    d->body = NULL;
    d->body_n = d->body_cap = 0;
}

/* Ends the call in its middle. */
static void hang_up(struct pd_discovery *d)
{
    if (d->call != NULL)
        d->net->call_cancel(d->call);
    d->call = NULL;
}

static void list_again(struct pd_discovery *d)
{
    hang_up(d);
    body_clear(d);
    d->version[0] = d->next[0] = '\0';
    d->state = IDLE;
    pd_timer_start(&d->timer, 0);
}

/* ---- lists ------------------------------------------------------------------------------------------ */

static pd_status scan(struct pd_discovery *d, struct pd_str doc, const char *const *paths, size_t n,
                      struct pd_json_value *v)
{
    return d->json->scan(doc, &(struct pd_json_limits){ .depth = 64, .keys = 4096 }, paths, n, v, NULL);
}

static void objects_tell(struct pd_discovery *d)
{
    pd_timer_stop(&d->settle);
    kube_objects_tell(&d->objects, d->sink);
}

static void on_settle(struct pd_timer *timer, void *arg)
{
    (void)timer;
    objects_tell(arg);
}

/* One page; false: it cannot be used. */
static bool page_take(struct pd_discovery *d)
{
    static const char *const paths[] = { "metadata.resourceVersion", "metadata.continue", "items" };
    struct pd_json_value v[3], item;
    struct pd_json_iter it;
    bool is_first = d->next[0] == '\0';
    /* The version of the first page: what happens behind it comes with the watch. */
    if (scan(d, (struct pd_str){ d->body, d->body_n }, paths, 3, v) != PD_OK ||
        (is_first && d->json->get_cstr(&v[0], d->version, sizeof d->version) != PD_OK))
        return false;
    if (is_first)
        kube_objects_mark(&d->objects);
    if (v[2].type == PD_JSON_ARRAY && d->json->iter_init(&it, &v[2]) == PD_OK) {
        while (d->json->iter_next(&it, NULL, &item)) {
            if (kube_objects_put(&d->objects, &item) != PD_OK)
                return false;
        }
    }
    if (v[1].type != PD_JSON_STRING)
        d->next[0] = '\0';
    else if (d->json->get_cstr(&v[1], d->next, sizeof d->next) != PD_OK)
        return false;
    return true;
}

static void list_end(struct pd_discovery *d)
{
    if (d->status == 410) {             /* the pages were too long on their way */
        list_again(d);
        return;
    }
    if (d->status != 200) {
        d->version[0] = d->next[0] = '\0';
        body_clear(d);
        status_trouble(d);
        return;
    }
    bool is_good = page_take(d);
    body_clear(d);
    if (!is_good) {
        d->version[0] = d->next[0] = '\0';
        trouble(d, "the list of the API server cannot be read");
        return;
    }
    if (d->next[0] == '\0') {
        kube_objects_sweep(&d->objects);
        d->listed_at = pd_loop_now(d->loop);
        objects_tell(d);
    }
    step(d);
}

/* ---- changes ------------------------------------------------------------------------------------------ */

/* One line of a watch; false: list again. */
static bool change_take(struct pd_discovery *d, struct pd_str line)
{
    static const char *const paths[] = { "type", "object", "object.metadata.resourceVersion", "object.code" };
    struct pd_json_value v[4];
    uint64_t code = 0;
    if (scan(d, line, paths, 4, v) != PD_OK)
        return false;
    if (d->json->is_str(&v[0], "ERROR")) {
        (void)d->json->get_u64(&v[3], &code);
        pd_log_info(d->log, "the watch ends with code %llu", (unsigned long long)code);
        return false;
    }
    if (d->json->get_cstr(&v[2], d->version, sizeof d->version) != PD_OK)
        return false;
    d->backoff = BACKOFF_MIN;
    if (d->json->is_str(&v[0], "BOOKMARK")) {
        pd_discovery_synced(d->sink);
        return true;
    }
    if (d->json->is_str(&v[0], "DELETED"))
        kube_objects_remove(&d->objects, &v[1]);
    else if (!d->json->is_str(&v[0], "ADDED") && !d->json->is_str(&v[0], "MODIFIED"))
        return false;
    else if (kube_objects_put(&d->objects, &v[1]) != PD_OK)
        return false;
    if (!pd_timer_is_active(&d->settle))
        pd_timer_start(&d->settle, SETTLE);
    return true;
}

static void changes_take(struct pd_discovery *d)
{
    size_t from = 0;
    char *feed;
    while ((feed = memchr(d->body + from, '\n', d->body_n - from)) != NULL) {
        size_t n = (size_t)(feed - d->body) - from;
        if (n > 0 && !change_take(d, (struct pd_str){ d->body + from, n })) {
            list_again(d);
            return;
        }
        from += n + 1;
    }
    memmove(d->body, d->body + from, d->body_n - from);
    d->body_n -= from;
    if (pd_loop_now(d->loop) > d->listed_at + d->conf->resync)
        list_again(d);
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct pd_discovery *d = arg;
    (void)call;
    if (!body_add(d, piece)) {
        d->version[0] = d->next[0] = '\0';
        hang_up(d);
        body_clear(d);
        trouble(d, "an answer of the API server is too long");
    } else if (d->state == WATCHING && d->status == 200) {
        changes_take(d);
    }
}

/* The API server ended the watch, as it does after a time; one that ends again
 * and again without a word is waited for longer and longer. */
static void watch_end(struct pd_discovery *d)
{
    body_clear(d);
    if (d->status == 410) {
        list_again(d);
    } else if (d->status != 200) {
        status_trouble(d);
    } else {
        retry(d);
    }
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct pd_discovery *d = arg;
    (void)call;
    d->call = NULL;
    if (d->state == LISTING)
        list_end(d);
    else
        watch_end(d);
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct pd_discovery *d = arg;
    (void)call;
    (void)fail;
    d->call = NULL;
    body_clear(d);
    d->next[0] = '\0';
    if (d->state == LISTING)
        d->version[0] = '\0';
    if (d->state == WATCHING && d->status == 200 && why == PD_ETIMEDOUT) {
        d->state = IDLE;                /* nothing for long: watch on from where it was */
        pd_timer_start(&d->timer, 0);
        return;
    }
    d->addr.family = PD_AF_NONE;        /* it may have moved */
    trouble(d, "the API server at %s: %s", d->authority, pd_host()->status_text(why));
}

static const struct pd_http_call_events call_events = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_error = on_error,
};

/* ---- the next step --------------------------------------------------------------------------------------- */

static void call_start(struct pd_discovery *d)
{
    char target[8192];
    struct pd_http_header headers[2] = { { PD_STR("accept"), PD_STR("application/json") } };
    if (!token_read(d)) {
        trouble(d, "no token can be read from %s", d->conf->token_file);
        return;
    }
    headers[1] = (struct pd_http_header){ PD_STR("authorization"), source_str(d->authorization) };
    target_make(d, target, sizeof target);
    struct pd_http_call_opts opts = {
        .size = sizeof opts, .addr = d->addr, .host = source_str(d->authority), .method = PD_HTTP_GET,
        .target = source_str(target), .headers = headers, .n_headers = 2, .connect_ns = 5 * PD_SEC,
        .first_byte_ns = 15 * PD_SEC, .idle_ns = d->state == WATCHING ? WATCH_IDLE : 15 * PD_SEC, .tls = d->tls,
    };
    d->status = 0;
    d->body_n = 0;
    pd_status status = d->net->call_start(d->nets, &opts, &call_events, d, &d->call);
    explicit_bzero(d->authorization, sizeof d->authorization);
    if (status != PD_OK) {
        d->call = NULL;
        trouble(d, "the API server cannot be asked: %s", pd_host()->status_text(status));
    }
}

static void resolved(struct pd_resolve *resolve, pd_status status, const struct pd_addr *addrs, size_t n, void *arg)
{
    struct pd_discovery *d = arg;
    (void)resolve;
    if (status != PD_OK || n == 0) {
        trouble(d, "there is no address for the API server \"%s\"", d->host);
        return;
    }
    d->addr = addrs[0];
    step(d);
}

static void step(struct pd_discovery *d)
{
    if (d->addr.family == PD_AF_NONE) {
        d->state = RESOLVING;
        d->resolve = (struct pd_resolve){ .cb = resolved, .arg = d, .name = "discovery kube" };
        if (pd_resolve_start(d->loop, d->host, d->port, &d->resolve) != PD_OK)
            trouble(d, "too many names are looked up at a time");
        return;
    }
    d->state = d->version[0] != '\0' && d->next[0] == '\0' ? WATCHING : LISTING;
    call_start(d);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    (void)timer;
    step(arg);
}

/* ---- life --------------------------------------------------------------------------------------------------- */

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
    else if (small_file(ACCOUNT "namespace", d->space, sizeof d->space) <= 0)
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
    d->backoff = BACKOFF_MIN;
    d->json = pd_host()->table(ctx->host, PD_JSON_TABLE, PD_JSON_VERSION);
    d->net = pd_host()->table(ctx->host, PD_NET_TABLE, PD_NET_VERSION);
    d->nets = pd_host()->object(ctx->host, PD_NET_TABLE);
    d->objects = (struct kube_objects){ .json = d->json, .conf = d->conf };
    pd_timer_init(&d->timer, d->loop, "discovery kube", on_timer, d);
    pd_timer_init(&d->settle, d->loop, "discovery kube settle", on_settle, d);
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
    if (d->state == WATCHING || d->state == IDLE)
        list_again(d);
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
    if (d->state == RESOLVING)
        pd_resolve_cancel(d->loop, &d->resolve);
    hang_up(d);
    body_clear(d);
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
