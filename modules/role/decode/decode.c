/* SPDX-License-Identifier: Apache-2.0 */
/* The decode role: offers the REQUEST service.  Each call is one leg, that is,
 * one sequence; leg.c moves it from prompt to last token.  This file owns the
 * role's life and the list of legs. */
#include <stdlib.h>
#include <string.h>

#include "decode.h"

static void retry_task(struct pd_task *task, void *arg)
{
    (void)task;
    decode_legs_retry(arg);
}

static void retry_timer(struct pd_timer *timer, void *arg)
{
    (void)timer;
    decode_legs_retry(arg);
}

static void on_request(struct pd_peers *peers, struct pd_call *call, pd_peer_ref from, uint32_t type,
                       struct pd_str first, void *arg)
{
    struct decode *d = arg;
    (void)peers;
    (void)from;
    (void)type;
    decode_leg_accept(d, call, first);
}

static void on_peer(struct pd_peers *peers, pd_peer_ref peer, uint32_t what, void *arg)
{
    (void)peers;
    decode_legs_peer(arg, peer, what);
}

/* The last steps of drain and destroy, once no leg is left. */
static void role_settle(struct decode *d)
{
    if (d->n_legs > 0)
        return;
    if (d->is_draining && d->drained != NULL) {
        void (*done)(void *) = d->drained;
        d->drained = NULL;
        done(d->drained_arg);
    }
    if (d->is_closing) {
        void (*closed)(void *) = d->closed;
        void *closed_arg = d->closed_arg;
        pd_timer_stop(&d->retry_timer);
        pd_task_cancel(d->loop, &d->retry);
        free(d);
        closed(closed_arg);
    }
}

void decode_leg_gone(struct decode *d)
{
    role_settle(d);
}

static pd_status tables_get(struct decode *d, struct pd_err *err)
{
    const struct pd_host_api *h = pd_host();
    d->peer = h->table(d->host, PD_PEER_TABLE, PD_PEER_VERSION);
    d->kv = h->table(d->host, PD_KV_TABLE, PD_KV_VERSION);
    d->req = h->table(d->host, PD_REQ_TABLE, PD_REQ_VERSION);
    d->api = h->table(d->host, PD_API_TABLE, PD_API_VERSION);
    d->node = h->table(d->host, PD_NODE_TABLE, PD_NODE_VERSION);
    d->peers = h->object(d->host, PD_PEER_TABLE);
    d->kvs = h->object(d->host, PD_KV_TABLE);
    d->reqs = h->object(d->host, PD_REQ_TABLE);
    d->apis = h->object(d->host, PD_API_TABLE);
    d->nodes = h->object(d->host, PD_NODE_TABLE);
    if (d->peer != NULL && d->kv != NULL && d->req != NULL && d->api != NULL && d->node != NULL)
        return PD_OK;
    err->status = PD_ENOSYS;
    strcpy(err->text, "this pdplane does not offer the tables that the role was built for");
    strcpy(err->hint, "install the module that belongs to this pdplane");
    return PD_ENOSYS;
}

static void metrics_add(struct decode *d, struct pd_metrics *m)
{
    static const char *const by_reason[] = { "reason" };
    static const char *const reasons[PD_KV_MATCHES] = { NULL, "gone", "transport", "model", "layout" };
    static const struct pd_metric_desc unfit = {
        .size = sizeof unfit, .name = "pdplane_decode_prefill_unfit_total",
        .help = "Prefill nodes that were passed over because what they compute cannot be used here.",
        .labels = by_reason, .n_labels = 1,
    };
    struct pd_metric_family *family;
    if (pd_metrics_family(m, PD_METRIC_COUNTER, &unfit, NULL, &family) == PD_OK)
        for (uint32_t i = PD_KV_MATCH_GONE; i < PD_KV_MATCHES; i++)
            d->unfit[i] = pd_metrics_counter(m, family, &reasons[i]);
    d->local = pd_metrics_simple_counter(m, "pdplane_decode_local_total",
                                         "Sequences whose prompt was computed on this node.");
    d->fallbacks = pd_metrics_simple_counter(
        m, "pdplane_decode_fallbacks_total",
        "Sequences whose remote prefill failed and was done again elsewhere or here.");
    d->handovers_valid = pd_metrics_simple_counter(m, "pdplane_decode_handovers_valid_total",
                                                   "Hand-overs whose digests matched.");
    d->handovers_other = pd_metrics_simple_counter(m, "pdplane_decode_handovers_failed_total",
                                                   "Hand-overs that ended in any other way.");
}

static pd_status decode_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_role **out,
                               struct pd_err *err)
{
    struct decode *d = calloc(1, sizeof *d);
    if (d == NULL) {
        err->status = PD_ENOMEM;
        strcpy(err->text, "out of memory");
        return PD_ENOMEM;
    }
    d->conf = conf;
    d->loop = ctx->loop;
    d->log = ctx->log;
    d->host = ctx->host;
    pd_task_init(&d->retry, "decode retry", retry_task, d);
    pd_timer_init(&d->retry_timer, d->loop, "decode retry", retry_timer, d);
    pd_status status = tables_get(d, err);
    if (status != PD_OK) {
        free(d);
        return status;
    }
    metrics_add(d, ctx->metrics);
    *out = (struct pd_role *)d;
    return PD_OK;
}

static pd_status decode_start(struct pd_role *role, struct pd_err *err)
{
    static const struct pd_peer_watch_events watch = { .size = sizeof watch, .on_peer = on_peer };
    struct decode *d = (struct decode *)role;
    uint32_t usable = 0;
    const struct pd_node_engine *e;
    for (uint32_t i = 0; (e = d->node->engine_at(d->nodes, i)) != NULL; i++)
        usable += (e->roles & PD_ROLE_DECODE) != 0;
    if (usable == 0) {
        err->status = PD_EINVAL;
        strcpy(err->text, "the decode role has no engine");
        strcpy(err->hint, "add \"decode\" to the roles of an engine");
        return PD_EINVAL;
    }
    pd_status status = d->peer->watch(d->peers, &watch, d, &d->watch);
    if (status == PD_OK)
        status = d->peer->serve(d->peers, PD_SERVICE_REQUEST, on_request, d);
    if (status == PD_OK)
        d->node->ready(d->nodes, "decode", true, "");
    else
        err->status = status;
    return status;
}

static void decode_drain(struct pd_role *role, void (*done)(void *arg), void *arg)
{
    struct decode *d = (struct decode *)role;
    d->is_draining = true;
    d->drained = done;
    d->drained_arg = arg;
    d->node->ready(d->nodes, "decode", false, "draining");
    role_settle(d);
}

static void decode_destroy(struct pd_role *role, void (*closed)(void *arg), void *arg)
{
    struct decode *d = (struct decode *)role;
    d->is_closing = true;
    d->closed = closed;
    d->closed_arg = arg;
    d->peer->unserve(d->peers, PD_SERVICE_REQUEST);
    if (d->watch != NULL)
        d->peer->unwatch(d->watch);
    d->watch = NULL;
    if (d->n_legs > 0)
        decode_legs_end(d, NULL, "draining", "the server is shutting down");
    else
        role_settle(d);
}

static void decode_end_generation(struct pd_role *role, const struct pd_node_generation *generation)
{
    decode_legs_end((struct decode *)role, generation, "draining",
                    "the configuration of this request has ended");
}

static void decode_adopt(struct pd_role *role, const void *conf)
{
    ((struct decode *)role)->conf = conf;
}

static const struct pd_option_name handover_names[] = {
    { "full", DECODE_FULL },
    { "n-1", DECODE_N_MINUS_1 },
    { NULL, 0 },
};

static const struct pd_option decode_options[] = {
    PD_OPT_ENUM("handover", struct decode_conf, handover, "full", handover_names,
                .help = "What a prefill node hands over: \"full\" is the KV of all prompt tokens and "
                        "the first token; with \"n-1\" the last prompt token is computed here."),
    PD_OPT_INT("queue", struct decode_conf, queue, "1024", .min = 0, .max = 1 << 20, .unit = "sequences",
               .help = "Sequences that may wait for KV blocks; more are refused with status 429."),
    PD_OPT_INT("queue_tokens", struct decode_conf, queue_tokens, "16777216", .min = 1, .unit = "tokens",
               .help = "Tokens of the prompts that may wait for KV blocks; more are refused with status "
                       "429."),
    PD_OPT_DURATION("prefill_timeout", struct decode_conf, prefill_timeout, "30s", .min = 1000000,
                    .help = "A remote prefill that has not handed over by then is given up and the "
                            "prompt computed elsewhere or here."),
    PD_OPT_SIZE("unsent_max", struct decode_conf, unsent_max, "4m", .min = 65536,
                .help = "Bytes of tokens held for a router that does not read; a sequence above it "
                        "ends with an error."),
    PD_OPT_END
};

static const struct pd_role_ops decode_ops = {
    .head = PD_OPS(pd_role_ops, PD_ROLE_V1),
    .role = PD_ROLE_DECODE,
    .create = decode_create,
    .start = decode_start,
    .drain = decode_drain,
    .destroy = decode_destroy,
    .adopt = decode_adopt,
    .end_generation = decode_end_generation,
};

static const struct pd_unit decode_units[] = {
    PD_UNIT(.kind = PD_KIND_ROLE, .name = "decode", .ops = &decode_ops.head, .options = decode_options,
            .conf_size = sizeof(struct decode_conf),
            .summary = "Decodes tokens; takes the KV of prompts from prefill nodes or computes it."),
    PD_UNIT_END
};

PD_MODULE(.name = "decode", .version = "0.1.0",
          .summary = "Decodes tokens; takes the KV of prompts from prefill nodes or computes it.",
          .units = decode_units)
