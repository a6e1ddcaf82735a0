/* SPDX-License-Identifier: Apache-2.0 */
/* The router role: the OpenAI-shaped API for clients, over native nodes and over
 * servers behind adapters.  request.c moves one request, targets.c follows the
 * endpoints; this file owns the role's life, its routes and its options. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router.h"

void router_settle(struct router *r)
{
    if (r->n_requests > 0)
        return;
    if (r->is_draining && r->drained != NULL) {
        void (*done)(void *) = r->drained;
        r->drained = NULL;
        done(r->drained_arg);
    }
    if (r->is_closing) {
        void (*closed)(void *) = r->closed;
        void *closed_arg = r->closed_arg;
        router_targets_stop(r);
        router_requests_fini(r);
        router_wait_fini(r);
        free(r);
        closed(closed_arg);
    }
}

/* ---- routes ------------------------------------------------------------------------- */

static void on_chat(struct pd_http_req *http, void *arg)
{
    router_request(http, PD_API_CHAT, arg);
}

static void on_completions(struct pd_http_req *http, void *arg)
{
    router_request(http, PD_API_COMPLETIONS, arg);
}

static const struct pd_http_header json_type[] = {
    { { "content-type", 12 }, { "application/json", 16 } },
};

/* Largest context that any endpoint reports for the model. */
static uint32_t context_of(const struct router *r, const char *model)
{
    uint32_t n = 0;
    for (const struct target *t = r->targets; t != NULL; t = t->next) {
        if (t->peer != 0 && strcmp(t->model, model) == 0 && t->context_tokens > n)
            n = t->context_tokens;
    }
    return n;
}

static bool model_is_served(const struct router *r, const char *model)
{
    return r->sched->endpoint_count(r->scheds, PD_ROLE_DECODE, (struct pd_str){ model, strlen(model) }) > 0;
}

static void on_models(struct pd_http_req *http, void *arg)
{
    struct router *r = arg;
    struct pd_api_model models[ROUTER_MODELS_MAX];
    struct pd_str body;
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_models; i++) {
        if (!model_is_served(r, r->models[i]))
            continue;
        models[n++] = (struct pd_api_model){ .id = { r->models[i], strlen(r->models[i]) },
                                             .created = r->start_s,
                                             .context_tokens = context_of(r, r->models[i]) };
    }
    if (r->api->models_write(r->apis, models, n, &body) == PD_OK)
        r->net->respond(http, 200, json_type, 1, body);
    else
        r->net->abort(http);
}

static void on_model(struct pd_http_req *http, void *arg)
{
    struct router *r = arg;
    struct pd_str path = r->net->req_path(http);
    struct pd_str body;
    for (uint32_t i = 0; i < r->n_models; i++) {
        const char *m = r->models[i];
        if (path.n != strlen(r->model_paths[i]) || memcmp(path.p, r->model_paths[i], path.n) != 0 ||
            !model_is_served(r, m))
            continue;
        struct pd_api_model model = { .id = { m, strlen(m) }, .created = r->start_s,
                                      .context_tokens = context_of(r, m) };
        if (r->api->model_write(r->apis, &model, &body) == PD_OK) {
            r->net->respond(http, 200, json_type, 1, body);
            return;
        }
    }
    struct pd_http_error e = { .status = 404, .type = "not_found_error", .code = "model_not_found",
                               .message = PD_STR("the model does not exist"), .param = "model" };
    r->net->error(http, &e);
}

static void on_health(struct pd_http_req *http, void *arg)
{
    struct router *r = arg;
    r->net->respond(http, r->is_draining ? 503 : 200, NULL, 0, PD_STR(""));
}

bool router_model_seen(const struct router *r, struct pd_str model)
{
    for (uint32_t i = 0; i < r->n_models; i++) {
        if (strlen(r->models[i]) == model.n && memcmp(r->models[i], model.p, model.n) == 0)
            return true;
    }
    return false;
}

void router_model_add(struct router *r, struct pd_str model)
{
    if (router_model_seen(r, model) || model.n == 0 || model.n >= ROUTER_MODEL_NAME)
        return;
    if (r->n_models == ROUTER_MODELS_MAX) {
        pd_log_warn(r->log, "model \"%.*s\" is served but not listed: %u models are the limit",
                    PD_STR_ARG(model), ROUTER_MODELS_MAX);
        return;
    }
    uint32_t i = r->n_models++;
    memcpy(r->models[i], model.p, model.n);
    r->models[i][model.n] = '\0';
    snprintf(r->model_paths[i], sizeof r->model_paths[i], "/v1/models/%.*s", PD_STR_ARG(model));
    struct pd_http_route route = { .path = r->model_paths[i], .methods = 1u << PD_HTTP_GET,
                                   .on_request = on_model, .arg = r };
    pd_status status = r->net->route(r->nets, PD_NET_OPENAI, &route);
    if (status != PD_OK)
        pd_log_warn(r->log, "no route for model \"%s\": %s", r->models[i], pd_host()->status_text(status));
}

/* With the limit that holds now. */
static pd_status routes_of_requests_add(struct router *r)
{
    const struct pd_http_route routes[] = {
        { .path = "/v1/chat/completions", .methods = 1u << PD_HTTP_POST, .body_limit = r->conf->body_limit,
          .on_request = on_chat, .arg = r },
        { .path = "/v1/completions", .methods = 1u << PD_HTTP_POST, .body_limit = r->conf->body_limit,
          .on_request = on_completions, .arg = r },
    };
    pd_status status = PD_OK;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0] && status == PD_OK; i++) {
        r->net->unroute(r->nets, PD_NET_OPENAI, routes[i].path);
        status = r->net->route(r->nets, PD_NET_OPENAI, &routes[i]);
    }
    return status;
}

static pd_status routes_add(struct router *r)
{
    const struct pd_http_route routes[] = {
        { .path = "/v1/models", .methods = 1u << PD_HTTP_GET, .on_request = on_models, .arg = r },
        { .path = "/health", .methods = 1u << PD_HTTP_GET, .flags = PD_HTTP_ROUTE_ALWAYS,
          .on_request = on_health, .arg = r },
    };
    pd_status status = routes_of_requests_add(r);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0] && status == PD_OK; i++)
        status = r->net->route(r->nets, PD_NET_OPENAI, &routes[i]);
    return status;
}

static void routes_remove(struct router *r)
{
    static const char *const paths[] = { "/v1/chat/completions", "/v1/completions", "/v1/models",
                                         "/health" };
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        r->net->unroute(r->nets, PD_NET_OPENAI, paths[i]);
    for (uint32_t i = 0; i < r->n_models; i++)
        r->net->unroute(r->nets, PD_NET_OPENAI, r->model_paths[i]);
}

/* ---- life --------------------------------------------------------------------------- */

static bool tables_get(struct router *r)
{
    const struct pd_host_api *h = pd_host();
    r->net = h->table(r->host, PD_NET_TABLE, PD_NET_VERSION);
    r->peer = h->table(r->host, PD_PEER_TABLE, PD_PEER_VERSION);
    r->sched = h->table(r->host, PD_SCHED_TABLE, PD_SCHED_VERSION);
    r->req = h->table(r->host, PD_REQ_TABLE, PD_REQ_VERSION);
    r->api = h->table(r->host, PD_API_TABLE, PD_API_VERSION);
    r->node = h->table(r->host, PD_NODE_TABLE, PD_NODE_VERSION);
    r->json = h->table(r->host, PD_JSON_TABLE, PD_JSON_VERSION);
    r->nets = h->object(r->host, PD_NET_TABLE);
    r->peers = h->object(r->host, PD_PEER_TABLE);
    r->scheds = h->object(r->host, PD_SCHED_TABLE);
    r->reqs = h->object(r->host, PD_REQ_TABLE);
    r->apis = h->object(r->host, PD_API_TABLE);
    r->nodes = h->object(r->host, PD_NODE_TABLE);
    return r->net != NULL && r->peer != NULL && r->sched != NULL && r->req != NULL && r->api != NULL &&
           r->node != NULL && r->json != NULL;
}

static void split_counters(struct router *r, struct pd_metrics *metrics)
{
    static const char *const reasons[ROUTER_FALLBACKS] = { "failed", "no_params", "decode" };
    static const char *const label = "reason";
    const struct pd_metric_desc desc = {
        .size = sizeof desc, .name = "pdplane_router_prefill_fallbacks_total", .labels = &label, .n_labels = 1,
        .help = "Requests whose prompt a decode server computed although a prefill server was chosen: because "
                "all of those failed, answered without what the decode server needs, or because the "
                "decode server failed with it.",
    };
    struct pd_metric_family *family = NULL;
    r->split_failures = pd_metrics_simple_counter(metrics, "pdplane_router_prefill_failures_total",
                                                  "Prompts that a prefill server failed to compute.");
    r->split_too_long = pd_metrics_simple_counter(metrics, "pdplane_router_prefill_answers_too_long_total",
                                                  "Answers of prefill servers that were longer than prefill_answer: "
                                                  "failures too.");
    r->split_finals = pd_metrics_simple_counter(metrics, "pdplane_router_prefill_finals_total",
                                                "Requests to which a prefill server gave the whole answer, so that "
                                                "no decode server had to follow.");
    if (pd_metrics_family(metrics, PD_METRIC_COUNTER, &desc, NULL, &family) != PD_OK)
        return;
    for (uint32_t i = 0; i < ROUTER_FALLBACKS; i++)
        r->split_fallbacks[i] = pd_metrics_counter(metrics, family, &reasons[i]);
}

static pd_status router_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_role **out,
                               struct pd_err *err)
{
    struct router *r = calloc(1, sizeof *r);
    if (r == NULL) {
        err->status = PD_ENOMEM;
        strcpy(err->text, "out of memory");
        return PD_ENOMEM;
    }
    r->conf = conf;
    r->loop = ctx->loop;
    r->log = ctx->log;
    r->host = ctx->host;
    r->start_s = pd_loop_wall(ctx->loop) / PD_SEC;
    router_wait_init(r);
    if (!tables_get(r)) {
        free(r);
        err->status = PD_ENOSYS;
        strcpy(err->text, "this pdplane does not offer the tables that the role was built for");
        strcpy(err->hint, "install the module that belongs to this pdplane");
        return PD_ENOSYS;
    }
    r->retries = pd_metrics_simple_counter(ctx->metrics, "pdplane_router_retries_total",
                                           "Dispatches after a first one had failed.");
    r->prefill_up = pd_metrics_simple_gauge(ctx->metrics, "pdplane_router_prefill_endpoints_up",
                                            "Endpoints that can prefill now.");
    r->decode_up = pd_metrics_simple_gauge(ctx->metrics, "pdplane_router_decode_endpoints_up",
                                           "Endpoints that can decode now.");
    r->client_gone = pd_metrics_simple_counter(ctx->metrics, "pdplane_router_client_gone_total",
                                               "Clients that left before the end of their answer.");
    r->hints_refused = pd_metrics_simple_counter(ctx->metrics, "pdplane_router_hints_refused_total",
                                                 "Requests that told servers where to go.");
    split_counters(r, ctx->metrics);
    *out = (struct pd_role *)r;
    return PD_OK;
}

static pd_status router_start(struct pd_role *role, struct pd_err *err)
{
    struct router *r = (struct router *)role;
    pd_status status = routes_add(r);
    if (status != PD_OK) {
        err->status = status;
        strcpy(err->text, "the router role has no listener for clients");
        strcpy(err->hint, "add a listener with api = \"openai\"");
        return status;
    }
    status = router_targets_start(r);
    if (status != PD_OK) {
        err->status = status;
        strcpy(err->text, "the endpoints cannot be followed");
        if (status == PD_ELIMIT)
            strcpy(err->hint, "scheduler.endpoints says how many there can be");
    }
    return status;
}

static void router_drain(struct pd_role *role, void (*done)(void *arg), void *arg)
{
    struct router *r = (struct router *)role;
    r->is_draining = true;
    r->drained = done;
    r->drained_arg = arg;
    r->node->ready(r->nodes, "router", false, "draining");
    router_settle(r);
}

static void router_destroy(struct pd_role *role, void (*closed)(void *arg), void *arg)
{
    struct router *r = (struct router *)role;
    r->is_closing = true;
    r->closed = closed;
    r->closed_arg = arg;
    routes_remove(r);
    if (r->n_requests > 0)
        router_requests_end(r);
    else
        router_settle(r);
}

static void router_adopt(struct pd_role *role, const void *conf)
{
    struct router *r = (struct router *)role;
    r->conf = conf;
    /* A route takes the place of the one that was there. */
    (void)routes_of_requests_add(r);
}

static void router_end_generation(struct pd_role *role, const struct pd_node_generation *generation)
{
    router_requests_end_generation((struct router *)role, generation);
}

static const struct pd_option_name hint_names[] = {
    { "delete", ROUTER_HINTS_DELETE },
    { "refuse", ROUTER_HINTS_REFUSE },
    { NULL, 0 },
};

static const struct pd_option_name cache_names[] = {
    { "per_key", ROUTER_CACHE_KEY },
    { "shared", ROUTER_CACHE_SHARED },
    { NULL, 0 },
};

static const struct pd_option router_options[] = {
    PD_OPT_DURATION("deadline", struct router_conf, deadline, "10m", .min = 1000000,
                    .help = "A request that is not answered by then ends with status 504, or with an "
                            "error event when its answer has begun."),
    PD_OPT_SIZE("body_limit", struct router_conf, body_limit, "8m", .min = 1024, .max = 1 << 30,
                .help = "Largest body of a request; larger ones get status 413."),
    PD_OPT_INT("retries", struct router_conf, retries, "2", .max = 8,
               .help = "How often a request that a node refused or failed is sent elsewhere; behind tokens, "
                       "it counts anew with each one that was delivered."),
    PD_OPT_INT("losses", struct router_conf, losses, "5", .max = 8, .unit = "nodes",
               .help = "How often a request is sent elsewhere because its node was lost with it: died, "
                       "hung or was stopped; counted as retries are. It bounds what a request costs that "
                       "makes nodes die. One that could not be sent to a node has lost none."),
    PD_OPT_DURATION("wait", struct router_conf, wait, "1s", .max = 60 * (int64_t)PD_SEC,
                    .help = "How long a request waits for a node to be back, when one was lost and there is "
                            "no other. 0 does not wait."),
    PD_OPT_INT("max_requests", struct router_conf, max_requests, "10000", .min = 1, .max = 1 << 20,
               .unit = "requests", .help = "Requests at a time; more get status 429."),
    PD_OPT_INT("max_choices", struct router_conf, max_choices, "8", .min = 1, .max = 128,
               .help = "Largest \"n\" of a request."),
    PD_OPT_INT("max_prompts", struct router_conf, max_prompts, "64", .min = 1, .max = 1024,
               .help = "Most prompts in one request to /v1/completions."),
    PD_OPT_INT("max_output", struct router_conf, max_output, "1048576", .min = 1, .unit = "tokens",
               .help = "Largest \"max_tokens\" of a request."),
    PD_OPT_DURATION("probe_interval", struct router_conf, probe_interval, "5s", .min = 10000000,
                    .help = "How often servers behind adapters are probed."),
    PD_OPT_ENUM("hints", struct router_conf, hints, "delete", hint_names,
                .help = "What happens to headers and members of requests that tell servers where to go or "
                        "where KV is, such as x-prefiller-host-port and kv_transfer_params: delete keeps "
                        "them from servers, refuse answers with status 403."),
    PD_OPT_ENUM("cache", struct router_conf, cache, "per_key", cache_names,
                .help = "Who shares cached prefixes. With per_key only clients whose keys have the same label, "
                        "so that nobody learns from the time of a first token, or from cached_tokens, what "
                        "others have asked. With shared all clients do. A cache_salt that a client sends parts "
                        "them further."),
    PD_OPT_DURATION("prefill_timeout", struct router_conf, prefill_timeout, "2m", .min = 1000000,
                    .help = "A prefill server behind an adapter that is silent for so long has failed: another one is "
                            "asked, or the decode server computes the prompt."),
    PD_OPT_SIZE("prefill_answer", struct router_conf, prefill_answer, "1m", .min = 1024, .max = 64 << 20,
                .help = "Longest answer that is read from such a server."),
    PD_OPT_BOOL("node_headers", struct router_conf, node_headers, "false",
                .help = "Answers tell in headers x-pdplane-decode and x-pdplane-prefill which nodes "
                        "made them."),
    PD_OPT_END
};

static const struct pd_role_ops router_ops = {
    .head = PD_OPS(pd_role_ops, PD_ROLE_V1),
    .role = PD_ROLE_ROUTER,
    .create = router_create,
    .start = router_start,
    .drain = router_drain,
    .destroy = router_destroy,
    .adopt = router_adopt,
    .end_generation = router_end_generation,
};

static const struct pd_unit router_units[] = {
    PD_UNIT(.kind = PD_KIND_ROLE, .name = "router", .ops = &router_ops.head, .options = router_options,
            .conf_size = sizeof(struct router_conf),
            .summary = "Serves clients and sends their requests to the best endpoints."),
    PD_UNIT_END
};

PD_MODULE(.name = "router", .version = "0.1.0",
          .summary = "Serves clients and sends their requests to the best endpoints.",
          .units = router_units)
