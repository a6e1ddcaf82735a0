/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of servers: the name is looked up, then the server is asked whether it is there,
 * which models it has and how it runs.  Of a server that is down the name is looked up
 * again before each probe: it may have moved.
 *
 * One call at a time, and when it has ended one timer, so a server that is followed is
 * always asked again; each answer is read up to a limit. */
#include <stdlib.h>
#include <string.h>

#include "targets_int.h"

#define PROBE_BODY_MAX (256u << 10)
#define MODELS_EVERY 6u            /* probes, where models are asked for apart */

static void probe_again(struct target *t)
{
    pd_timer_start(&t->probe_timer, t->router->conf->probe_interval);
}

/* Failures of requests are told by the probe that follows them. */
static void tell_suspect(struct target *t, bool is_suspect, uint32_t failures)
{
    bool is_news = is_suspect != t->is_suspect;
    t->is_suspect = is_suspect;
    if (!is_news || t->probed != PD_ENDPOINT_UP)
        return;
    if (is_suspect)
        pd_log_notice(t->router->log, "endpoint \"%s\" answers its probes, but %u request%s to it failed in a row: "
                      "it steps back for a while", t->endpoint->name, failures, failures == 1 ? "" : "s");
    else
        pd_log_notice(t->router->log, "endpoint \"%s\" is in use again", t->endpoint->name);
}

void target_server_state(struct target *t, uint32_t state, const char *why)
{
    struct router *r = t->router;
    struct pd_endpoint_status now = { .size = sizeof now };
    bool is_same = false;
    t->probed = state;
    t->is_checked &= state == PD_ENDPOINT_UP;
    if (t->is_resting && state == PD_ENDPOINT_UP)
        state = PD_ENDPOINT_DRAINING;
    if (r->sched->endpoint_get(r->scheds, t->ref, pd_loop_now(r->loop), &now) == PD_OK) {
        bool is_suspect = state == PD_ENDPOINT_UP && now.view.state == PD_ENDPOINT_SUSPECT;
        is_same = now.view.state == state || is_suspect;
        tell_suspect(t, is_suspect, now.failures);
    }
    if (now.view.state != 0 && !is_same) {
        if (state == PD_ENDPOINT_UP)
            pd_log_notice(r->log, "endpoint \"%s\" is up", t->endpoint->name);
        else if (state == PD_ENDPOINT_DRAINING)
            pd_log_notice(r->log, "endpoint \"%s\" gets no new requests", t->endpoint->name);
        else
            pd_log_warn(r->log, "endpoint \"%s\" is down: %s", t->endpoint->name, why);
    }
    r->sched->endpoint_state(r->scheds, t->ref, state);
    /* Looks at all endpoints, and most probes find what the last one found. */
    if (!is_same)
        targets_ready_tell(r);
    if (state == PD_ENDPOINT_UP)
        router_wait_node(r);
}

static void probe_failed(struct target *t, const char *why)
{
    t->is_resolved = false;
    target_server_state(t, PD_ENDPOINT_DOWN, why);
}

static void probe_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct target *t = arg;
    (void)call;
    t->probe_status = head->status;
}

static void probe_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct target *t = arg;
    (void)call;
    if (t->probe_body_n + piece.n > PROBE_BODY_MAX)
        return;
    char *p = realloc(t->probe_body, t->probe_body_n + piece.n);
    if (p == NULL)
        return;
    memcpy(p + t->probe_body_n, piece.p, piece.n);
    t->probe_body = p;
    t->probe_body_n += piece.n;
}

static bool probe_start(struct target *t, uint32_t what);

/* A server that was down, or was not asked for long, may have other models. */
static bool wants_models(struct target *t)
{
    return t->endpoint->models == NULL && t->probe_what == PD_ADAPTER_PROBE &&
           (t->probed != PD_ENDPOINT_UP || ++t->n_probes >= MODELS_EVERY);
}

/* What the server says of itself came, or did not: nothing is known then. */
static void info_end(struct target *t, bool has_body)
{
    struct pd_str body = { t->probe_body, has_body ? t->probe_body_n : 0 };
    t->is_checked = true;
    if (target_fits(t, body))
        target_server_state(t, PD_ENDPOINT_UP, "");
    else
        target_server_state(t, PD_ENDPOINT_DOWN, "it runs in another mode than its roles need");
}

static void probe_end(struct pd_http_call *call, void *arg)
{
    struct target *t = arg;
    struct router *r = t->router;
    struct pd_str models[ROUTER_MODELS_MAX];
    uint32_t n = 0;
    (void)call;
    t->probe = NULL;
    if (t->probe_what == PD_ADAPTER_INFO) {
        info_end(t, t->probe_status == 200);
    } else if (t->probe_status == 200) {
        if (wants_models(t) && probe_start(t, PD_ADAPTER_MODELS)) {
            t->n_probes = 0;
            return;
        }
        if (t->endpoint->models == NULL && t->probe_body_n > 0 &&
            r->api->models_read(r->apis, (struct pd_str){ t->probe_body, t->probe_body_n }, models,
                                ROUTER_MODELS_MAX, &n) == PD_OK && n > 0)
            (void)target_server_put(t, models, n);
        if (!t->is_checked && probe_start(t, PD_ADAPTER_INFO))
            return;
        target_server_state(t, PD_ENDPOINT_UP, "");
    } else {
        probe_failed(t, "its probe did not answer with status 200");
    }
    probe_again(t);
}

static void probe_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct target *t = arg;
    (void)call;
    (void)fail;
    t->probe = NULL;
    if (why != PD_ECANCELED && t->probe_what == PD_ADAPTER_INFO)
        info_end(t, false);
    else if (why != PD_ECANCELED)
        probe_failed(t, pd_host()->status_text(why));
    if (!t->router->is_closing)
        probe_again(t);
}

static const struct pd_http_call_events probe_events = {
    .on_head = probe_head,
    .on_body = probe_body,
    .on_end = probe_end,
    .on_error = probe_error,
};

/* False: the server has no such thing. */
static bool probe_start(struct target *t, uint32_t what)
{
    struct router *r = t->router;
    const struct pd_node_endpoint *e = t->endpoint;
    struct pd_adapter_http want = { .size = sizeof want };
    struct pd_http_header headers[PD_ADAPTER_MAX_HEADERS];
    t->probe_what = what;
    if (e->ops->http(e->adapter, what, &want) != PD_OK)
        return false;
    for (uint32_t i = 0; i < want.n_headers; i++)
        headers[i] = (struct pd_http_header){ want.headers[i].name, want.headers[i].value };
    struct pd_http_call_opts opts = {
        .size = sizeof opts, .addr = t->addr, .host = str_of(e->authority), .method = PD_HTTP_GET,
        .target = want.target, .headers = headers, .n_headers = want.n_headers,
        .connect_ns = 2 * PD_SEC, .first_byte_ns = 3 * PD_SEC, .idle_ns = 3 * PD_SEC,
        .body_limit = PROBE_BODY_MAX, .tls = e->tls,
    };
    t->probe_body_n = 0;
    t->probe_status = 0;
    if (r->net->call_start(r->nets, &opts, &probe_events, t, &t->probe) != PD_OK)
        probe_again(t);
    return true;
}

static void probe_first(struct target *t)
{
    if (!probe_start(t, PD_ADAPTER_PROBE))
        target_server_state(t, PD_ENDPOINT_UP, "");
}

/* The address behind the one that did not answer, or the first. */
static const struct pd_addr *next_address(const struct target *t, const struct pd_addr *addrs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (pd_addr_equal(&addrs[i], &t->addr))
            return &addrs[(i + 1) % n];
    }
    return addrs;
}

static void address_take(struct target *t, const struct pd_addr *to)
{
    char text[PD_ADDR_TEXT];
    if (pd_addr_equal(&t->addr, to))
        return;
    if (t->addr.family != PD_AF_NONE) {
        pd_addr_format(t->router->loop, to, text, sizeof text);
        pd_log_info(t->router->log, "endpoint \"%s\" is looked for at %s now", t->endpoint->name, text);
    }
    target_ways_close(t);
    t->addr = *to;
}

static void resolved(struct pd_resolve *resolve, pd_status status, const struct pd_addr *addrs, size_t n,
                     void *arg)
{
    struct target *t = arg;
    (void)resolve;
    t->is_resolving = false;
    if (status != PD_OK || n == 0) {
        target_server_state(t, PD_ENDPOINT_DOWN, "its name could not be resolved");
        probe_again(t);
        return;
    }
    address_take(t, next_address(t, addrs, n));
    t->is_resolved = true;
    probe_first(t);
}

void target_probe(struct pd_timer *timer, void *arg)
{
    struct target *t = arg;
    (void)timer;
    if (t->is_resolved) {
        probe_first(t);
        return;
    }
    t->resolve = (struct pd_resolve){ .cb = resolved, .arg = t, .name = "router endpoint" };
    t->is_resolving = true;
    if (pd_resolve_start(t->router->loop, t->endpoint->host, t->endpoint->port, &t->resolve) != PD_OK) {
        t->is_resolving = false;
        probe_again(t);
    }
}
