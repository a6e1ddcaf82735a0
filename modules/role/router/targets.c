/* SPDX-License-Identifier: Apache-2.0 */
/* Where requests may go: engines of peers, which come and go with their links,
 * and servers behind adapters, which are probed.  Each is one endpoint of the
 * scheduler; its `user` is the struct target here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router.h"

#define PROBE_BODY_MAX (256u << 10)
#define MODELS_EVERY 6u            /* probes, where models are asked for apart */

static struct pd_str str_of(const char *s)
{
    return (struct pd_str){ s, strlen(s) };
}

static void readiness_tell(struct router *r)
{
    uint32_t n = r->sched->endpoint_count(r->scheds, PD_ROLE_DECODE, PD_STR(""));
    pd_gauge_set(r->decode_up, n);
    pd_gauge_set(r->prefill_up, r->sched->endpoint_count(r->scheds, PD_ROLE_PREFILL, PD_STR("")));
    r->node->ready(r->nodes, "router", n > 0, n > 0 ? "" : "no decode endpoint is up");
}

static struct target *target_add(struct router *r)
{
    struct target *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->router = r;
    t->next = r->targets;
    if (r->targets != NULL)
        r->targets->link = &t->next;
    r->targets = t;
    t->link = &r->targets;
    return t;
}

/* What was made of the server's address. */
static void ways_close(struct target *t)
{
    for (size_t i = 0; i < sizeof t->ways / sizeof t->ways[0]; i++) {
        t->router->net->way_close(t->ways[i].way);
        t->ways[i].way = NULL;
    }
}

static void target_free(struct target *t)
{
    ways_close(t);
    *t->link = t->next;
    if (t->next != NULL)
        t->next->link = t->link;
    free(t->probe_body);
    free(t);
}

/* ---- engines of peers ---------------------------------------------------------- */

static struct target *target_of(struct router *r, pd_peer_ref peer, const char *engine)
{
    for (struct target *t = r->targets; t != NULL; t = t->next) {
        if (t->peer == peer && strcmp(t->engine, engine) == 0)
            return t;
    }
    return NULL;
}

static uint32_t state_of(const struct pd_peer_info *info)
{
    if (info->flags & (PD_PEER_DRAINING | PD_PEER_RESTING))
        return PD_ENDPOINT_DRAINING;
    return info->state == PD_PEER_UP ? PD_ENDPOINT_UP
           : info->state == PD_PEER_SUSPECT ? PD_ENDPOINT_SUSPECT : PD_ENDPOINT_DOWN;
}

/* Whether the scheduler knows the engine as it is. */
static bool engine_is_known(const struct target *t, const struct pd_peer_engine *e)
{
    return t != NULL && t->serial == e->serial && t->roles == e->roles && strcmp(t->model, e->model) == 0;
}

static void engine_put(struct router *r, const struct pd_peer_info *info, uint32_t index)
{
    const struct pd_peer_engine *e = &info->desc->engines[index];
    struct target *t = target_of(r, info->ref, e->name);
    bool is_new = t == NULL, is_another = t != NULL && t->serial != e->serial;
    char key[160], name[64];
    struct pd_str model = str_of(e->model);
    int at = 0;
    if ((e->roles & (PD_ROLE_PREFILL | PD_ROLE_DECODE)) == 0)
        return;
    if (is_new)
        t = target_add(r);
    if (t == NULL)
        return;
    for (size_t i = 0; i < sizeof info->desc->id.uuid.b; i++)
        at += snprintf(key + at, sizeof key - (size_t)at, "%02x", info->desc->id.uuid.b[i]);
    snprintf(key + at, sizeof key - (size_t)at, "/%llx/%s", (unsigned long long)info->desc->id.epoch,
             e->name);
    /* A node with one engine goes by the node's name. */
    if (info->desc->n_engines == 1)
        snprintf(name, sizeof name, "%s", info->desc->name);
    else
        snprintf(name, sizeof name, "%.31s/%.30s", info->desc->name, e->name);
    t->peer = info->ref;
    t->node = info->desc->id;
    t->context_tokens = e->context_tokens;
    t->flags = e->flags;
    t->roles = e->roles;
    t->serial = e->serial;
    memcpy(t->fingerprint, e->fingerprint, sizeof t->fingerprint);
    snprintf(t->engine, sizeof t->engine, "%s", e->name);
    snprintf(t->name, sizeof t->name, "%s", info->desc->name);
    snprintf(t->address, sizeof t->address, "%s", info->listener);
    snprintf(t->model, sizeof t->model, "%s", e->model);
    struct pd_endpoint_info put = {
        .size = sizeof put, .roles = e->roles, .key = str_of(key), .name = str_of(name),
        .models = &model, .models_n = 1, .state = state_of(info), .blocks_total = e->blocks,
        .block_tokens = e->layout.block_tokens, .user = t,
    };
    pd_status status = r->sched->endpoint_put(r->scheds, &put, &t->ref);
    if (status != PD_OK) {
        pd_log_error(r->log, "engine \"%s\" of peer \"%s\" is left out: %s", e->name, info->desc->name,
                     status == PD_ENOMEM ? "out of memory" : "the table of endpoints is full");
        if (is_new)
            target_free(t);
        return;
    }
    if (is_another)
        r->sched->endpoint_forget(r->scheds, t->ref);
    router_model_add(r, model);
}

static void engines_report(struct router *r, const struct pd_peer_info *info)
{
    for (uint32_t i = 0; i < info->desc->n_engines; i++) {
        struct target *t = target_of(r, info->ref, info->desc->engines[i].name);
        if (t == NULL)
            continue;
        r->sched->endpoint_state(r->scheds, t->ref, state_of(info));
        if (info->load == NULL || info->load_at == PD_TIME_NEVER)
            continue;
        struct pd_endpoint_load load = {
            .size = sizeof load, .running = info->load[i].running, .waiting = info->load[i].waiting,
            .blocks_total = info->load[i].blocks_total, .blocks_free = info->load[i].blocks_free,
        };
        r->sched->endpoint_report(r->scheds, t->ref, &load, info->load_at);
    }
}

static void peer_gone(struct router *r, pd_peer_ref peer)
{
    struct target *next;
    for (struct target *t = r->targets; t != NULL; t = next) {
        next = t->next;
        if (t->peer != peer)
            continue;
        r->sched->endpoint_remove(r->scheds, t->ref);
        target_free(t);
    }
}

/* The peer does not have them any more, or not for requests. */
static void engines_gone(struct router *r, const struct pd_peer_info *info)
{
    struct target *next;
    for (struct target *t = r->targets; t != NULL; t = next) {
        bool is_there = false;
        next = t->next;
        for (uint32_t i = 0; i < info->desc->n_engines && t->peer == info->ref; i++)
            is_there |= strcmp(t->engine, info->desc->engines[i].name) == 0 &&
                        (info->desc->engines[i].roles & (PD_ROLE_PREFILL | PD_ROLE_DECODE)) != 0;
        if (t->peer != info->ref || is_there)
            continue;
        r->sched->endpoint_drain(r->scheds, t->ref);
        target_free(t);
    }
}

void router_targets_peer(struct router *r, pd_peer_ref peer, uint32_t what)
{
    struct pd_peer_info info = { .size = sizeof info };
    if (what == PD_PEER_ON_GONE) {
        peer_gone(r, peer);
    } else if (r->peer->info(r->peers, peer, &info) == PD_OK) {
        if (what == PD_PEER_ON_UP || (what == PD_PEER_ON_CHANGED && info.state == PD_PEER_UP)) {
            for (uint32_t i = 0; i < info.desc->n_engines; i++) {
                const struct pd_peer_engine *e = &info.desc->engines[i];
                if (what == PD_PEER_ON_UP || !engine_is_known(target_of(r, peer, e->name), e))
                    engine_put(r, &info, i);
            }
            engines_gone(r, &info);
        }
        engines_report(r, &info);
    }
    readiness_tell(r);
    if (what == PD_PEER_ON_UP)
        router_wait_node(r);
    else if (what == PD_PEER_ON_DOWN || what == PD_PEER_ON_GONE)
        router_wait_lost(r);
}

/* ---- servers behind adapters ------------------------------------------------------ */

static void probe_again(struct target *t)
{
    pd_timer_start(&t->probe_timer, t->router->conf->probe_interval);
}

static void server_state(struct target *t, uint32_t state, const char *why)
{
    struct router *r = t->router;
    struct pd_endpoint_status now = { .size = sizeof now };
    bool is_same = false;
    t->probed = state;
    t->is_checked &= state == PD_ENDPOINT_UP;
    if (t->is_resting && state == PD_ENDPOINT_UP)
        state = PD_ENDPOINT_DRAINING;
    if (r->sched->endpoint_get(r->scheds, t->ref, pd_loop_now(r->loop), &now) == PD_OK)
        is_same = now.view.state == state;
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
        readiness_tell(r);
    if (state == PD_ENDPOINT_UP)
        router_wait_node(r);
}

/* The key of a server in the scheduler's table; 0: too long. */
static size_t server_key(const struct pd_node_endpoint *e, char out[PD_ENDPOINT_KEY_MAX + 1])
{
    int n = snprintf(out, PD_ENDPOINT_KEY_MAX + 1, e->epoch != 0 ? "%s %s%s %llx" : "%s %s%s", e->name,
                     e->authority, e->tls != NULL ? " tls" : "", (unsigned long long)e->epoch);
    return n > 0 && n <= (int)PD_ENDPOINT_KEY_MAX ? (size_t)n : 0;
}

/* The target that the scheduler has for a server now; NULL: none. */
static struct target *server_known(struct router *r, const struct pd_node_endpoint *e)
{
    char key[PD_ENDPOINT_KEY_MAX + 1];
    struct pd_str text = { key, server_key(e, key) };
    struct pd_endpoint_status known = { .size = sizeof known };
    struct pd_endpoint_ref ref;
    if (text.n == 0 || r->sched->endpoint_find(r->scheds, text, &ref) != PD_OK ||
        r->sched->endpoint_get(r->scheds, ref, pd_loop_now(r->loop), &known) != PD_OK)
        return NULL;
    return known.user;
}

/* Whether it shares requests with other servers, and with which. */
static void server_kind(struct target *t, struct pd_endpoint_info *put)
{
    const struct pd_node_endpoint *e = t->endpoint;
    struct pd_adapter_split split = { .size = sizeof split };
    bool has_both = (e->roles & PD_ROLE_PREFILL) != 0 && (e->roles & PD_ROLE_DECODE) != 0;
    t->shares = e->ops->split != NULL && e->ops->split(e->adapter, &split) == PD_OK &&
                ((split.flags & PD_ADAPTER_PAIR) == 0 || !has_both);
    put->flags = !t->shares ? PD_ENDPOINT_WHOLE
                 : (split.flags & PD_ADAPTER_PAIR) != 0 ? PD_ENDPOINT_PAIRED : PD_ENDPOINT_ESTIMATE;
    if (!t->shares)
        return;
    put->family = 14695981039346656037u;
    for (size_t i = 0; i < split.protocol.n; i++)
        put->family = (put->family ^ (unsigned char)split.protocol.p[i]) * 1099511628211u;
}

/* Puts the endpoint with the models that the configuration or the server names.
 * It is known by name, address and epoch: one whose options change keeps what is known
 * of it, one that moves does not.  A new one takes nothing until its probe has
 * answered. */
static pd_status server_put(struct target *t, const struct pd_str *models, uint32_t n)
{
    struct router *r = t->router;
    const struct pd_node_endpoint *e = t->endpoint;
    char key[PD_ENDPOINT_KEY_MAX + 1];
    struct pd_endpoint_info put = {
        .size = sizeof put, .roles = e->roles, .name = str_of(e->name), .models = models, .models_n = n,
        .weight = e->weight, .user = t,
    };
    server_kind(t, &put);
    put.key = (struct pd_str){ key, server_key(e, key) };
    if (put.key.n == 0)
        return PD_EINVAL;
    struct pd_endpoint_status known = { .size = sizeof known };
    struct pd_endpoint_ref ref;
    struct pd_str before[ROUTER_MODELS_MAX];
    if (r->sched->endpoint_find(r->scheds, put.key, &ref) != PD_OK ||
        r->sched->endpoint_get(r->scheds, ref, pd_loop_now(r->loop), &known) != PD_OK) {
        put.state = PD_ENDPOINT_DOWN;
    } else if (n == 0) {
        /* What the server said it has still holds. */
        while (known.models[put.models_n] != NULL && put.models_n < ROUTER_MODELS_MAX) {
            before[put.models_n] = str_of(known.models[put.models_n]);
            put.models_n++;
        }
        put.models = before;
    }
    pd_status status = r->sched->endpoint_put(r->scheds, &put, &t->ref);
    for (uint32_t i = 0; i < n && status == PD_OK; i++)
        router_model_add(r, models[i]);
    return status;
}

static uint32_t configured_models(const struct pd_node_endpoint *e, struct pd_str *out, uint32_t cap)
{
    uint32_t n = 0;
    while (e->models != NULL && e->models[n] != NULL && n < cap) {
        out[n] = str_of(e->models[n]);
        n++;
    }
    return n;
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
        server_state(t, PD_ENDPOINT_UP, "");
    else
        server_state(t, PD_ENDPOINT_DOWN, "it runs in another mode than its roles need");
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
            (void)server_put(t, models, n);
        if (!t->is_checked && probe_start(t, PD_ADAPTER_INFO))
            return;
        server_state(t, PD_ENDPOINT_UP, "");
    } else {
        server_state(t, PD_ENDPOINT_DOWN, "its probe did not answer with status 200");
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
        server_state(t, PD_ENDPOINT_DOWN, pd_host()->status_text(why));
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
        server_state(t, PD_ENDPOINT_UP, "");
}

static void resolved(struct pd_resolve *resolve, pd_status status, const struct pd_addr *addrs, size_t n,
                     void *arg)
{
    struct target *t = arg;
    (void)resolve;
    t->is_resolving = false;
    if (status != PD_OK || n == 0) {
        server_state(t, PD_ENDPOINT_DOWN, "its name could not be resolved");
        probe_again(t);
        return;
    }
    ways_close(t);
    t->addr = addrs[0];
    t->is_resolved = true;
    probe_first(t);
}

static void probe_timer(struct pd_timer *timer, void *arg)
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

static pd_status server_put_configured(struct target *t)
{
    struct pd_str models[ROUTER_MODELS_MAX];
    return server_put(t, models, configured_models(t->endpoint, models, ROUTER_MODELS_MAX));
}

/* A reload may change many servers at a time; those that are known to be up are in
 * use as before, so their probes need not come together. */
static pd_time first_probe_delay(const struct target *t)
{
    struct router *r = t->router;
    pd_time most = r->conf->probe_interval < PD_SEC ? r->conf->probe_interval : PD_SEC;
    if (t->replaces == NULL || t->probed != PD_ENDPOINT_UP || most == 0)
        return 0;
    return pd_loop_random_u64(r->loop) % most;
}

static pd_status server_add(struct router *r, const struct pd_node_endpoint *e)
{
    struct target *t = target_add(r);
    if (t == NULL)
        return PD_ENOMEM;
    t->endpoint = e;
    t->replaces = server_known(r, e);
    pd_timer_init(&t->probe_timer, r->loop, "router probe", probe_timer, t);
    pd_status status = server_put_configured(t);
    if (status != PD_OK) {
        target_free(t);
        return status;
    }
    if (t->replaces != NULL) {
        t->probed = t->replaces->probed;
        t->is_resting = t->replaces->is_resting;
        t->addr = t->replaces->addr;
        t->is_resolved = t->replaces->is_resolved;
    } else {
        /* One that comes back is looked up and probed again. */
        t->probed = PD_ENDPOINT_DOWN;
        r->sched->endpoint_state(r->scheds, t->ref, PD_ENDPOINT_DOWN);
    }
    pd_timer_start(&t->probe_timer, first_probe_delay(t));
    return PD_OK;
}

static void server_stop(struct target *t)
{
    struct router *r = t->router;
    pd_timer_stop(&t->probe_timer);
    if (t->is_resolving)
        pd_resolve_cancel(r->loop, &t->resolve);
    if (t->probe != NULL)
        r->net->call_cancel(t->probe);
}

static void server_remove(struct target *t)
{
    struct router *r = t->router;
    struct target *known = server_known(r, t->endpoint);
    server_stop(t);
    if (known == t && t->replaces != NULL) {
        /* Its form before is there again. */
        (void)server_put_configured(t->replaces);
    } else if (known == t) {
        r->sched->endpoint_drain(r->scheds, t->ref);
    } else {
        while (known != NULL && known->replaces != t)
            known = known->replaces;
        if (known != NULL)
            known->replaces = t->replaces;
    }
    target_free(t);
}

/* The target of an endpoint; NULL: it was left out. */
static struct target *server_find(struct router *r, const struct pd_node_endpoint *e)
{
    struct target *t = server_known(r, e);
    while (t != NULL && t->endpoint != e)
        t = t->replaces;
    return t;
}

static void ready_task(struct pd_task *task, void *arg)
{
    (void)task;
    readiness_tell(arg);
}

static pd_status endpoint_added(const struct pd_node_endpoint *e, void *arg)
{
    return server_add(arg, e);
}

static void endpoint_removed(const struct pd_node_endpoint *e, void *arg)
{
    struct router *r = arg;
    struct target *t = server_find(r, e);
    if (t == NULL)
        return;
    server_remove(t);
    pd_loop_defer(r->loop, &r->ready_task);
}

static void endpoint_rests(const struct pd_node_endpoint *e, bool is_resting, void *arg)
{
    struct router *r = arg;
    struct target *t = server_find(r, e);
    if (t == NULL)
        return;
    t->is_resting = is_resting;
    server_state(t, t->probed, "its last probe failed");
}

/* ---- life --------------------------------------------------------------------------- */

static void on_peer(struct pd_peers *peers, pd_peer_ref peer, uint32_t what, void *arg)
{
    (void)peers;
    router_targets_peer(arg, peer, what);
}

pd_status router_targets_start(struct router *r)
{
    static const struct pd_peer_watch_events watch = { .size = sizeof watch, .on_peer = on_peer };
    static const struct pd_node_endpoint_events endpoint_events = {
        .size = sizeof endpoint_events, .added = endpoint_added, .removed = endpoint_removed,
        .rests = endpoint_rests,
    };
    const struct pd_node_endpoint *e;
    pd_task_init(&r->ready_task, "router readiness", ready_task, r);
    pd_status status = r->peer->watch(r->peers, &watch, r, &r->watch);
    if (status != PD_OK)
        return status;
    for (pd_peer_ref p = r->peer->next(r->peers, 0); p != 0; p = r->peer->next(r->peers, p)) {
        struct pd_peer_info info = { .size = sizeof info };
        if (r->peer->info(r->peers, p, &info) == PD_OK && info.state == PD_PEER_UP)
            router_targets_peer(r, p, PD_PEER_ON_UP);
    }
    for (uint32_t i = 0; (e = r->node->endpoint_at(r->nodes, i)) != NULL && status == PD_OK; i++)
        status = server_add(r, e);
    if (status == PD_OK)
        status = r->node->endpoint_watch(r->nodes, &endpoint_events, r, &r->endpoint_watch);
    readiness_tell(r);
    return status;
}

void router_targets_stop(struct router *r)
{
    if (r->watch != NULL)
        r->peer->unwatch(r->watch);
    r->watch = NULL;
    pd_task_cancel(r->loop, &r->ready_task);
    if (r->endpoint_watch != NULL)
        r->node->endpoint_unwatch(r->endpoint_watch);
    r->endpoint_watch = NULL;
    while (r->targets != NULL) {
        struct target *t = r->targets;
        if (t->endpoint != NULL)
            server_stop(t);
        r->sched->endpoint_remove(r->scheds, t->ref);
        target_free(t);
    }
}
