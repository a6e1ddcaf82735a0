/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter for TensorRT-LLM servers (trtllm-serve), with context and generation apart,
 * context first: the context server computes the prompt and its first token, and what it
 * answers as disaggregated_params goes into the request to the generation server, which
 * fetches the KV and goes on behind that token. */
#include "server.h"

struct trtllm_conf {
    struct pd_server_conf server;
    bool request_ids;
    bool context_usage;
    bool cache_salt;
};

struct pd_adapter {
    struct pd_server server;
    bool has_ids, has_usage, has_salt;
};

static void trtllm_destroy(struct pd_adapter *adapter)
{
    pd_server_close(&adapter->server);
    free(adapter);
}

static pd_status trtllm_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                               struct pd_err *err)
{
    const struct trtllm_conf *c = conf;
    struct pd_adapter *a = calloc(1, sizeof *a);
    (void)ctx;
    if (a == NULL)
        return pd_server_refuse(err, PD_ENOMEM, "out of memory");
    if (pd_server_open(&a->server, &c->server, err) != PD_OK) {
        trtllm_destroy(a);
        return err->status;
    }
    a->has_ids = c->request_ids;
    a->has_usage = c->context_usage;
    a->has_salt = c->cache_salt;
    *out = a;
    return PD_OK;
}

/* Such servers refuse members that they do not know, and know a salt in chats alone. */
static pd_status trtllm_http(struct pd_adapter *adapter, uint32_t what, struct pd_adapter_http *out)
{
    return pd_server_http(&adapter->server, what, adapter->has_salt && what == PD_ADAPTER_CHAT, out);
}

static void edit(struct pd_adapter_edit *edits, uint32_t *n, uint32_t op, uint32_t flags, struct pd_str member,
                 struct pd_str text)
{
    edits[(*n)++] = (struct pd_adapter_edit){ .op = op, .flags = flags, .member = member, .text = text };
}

/* Nothing says that one token is enough: a context server stops there by itself.  Where the
 * client wants no more, the server gets an ordinary request, and keeps no KV that nobody
 * would fetch. */
static void context_leg(const struct pd_adapter *a, struct pd_adapter_split *out)
{
    struct pd_adapter_edit *e = out->prefill;
    uint32_t *n = &out->n_prefill;
    edit(e, n, PD_ADAPTER_SET, PD_ADAPTER_IF_MORE, PD_STR("disaggregated_params"),
         PD_STR("{\"request_type\":\"context_only\"}"));
    if (a->has_ids)
        edit(e, n, PD_ADAPTER_SET_ROOM, PD_ADAPTER_IF_MORE, PD_STR("disaggregated_params.disagg_request_id"),
             PD_STR(""));
    edit(e, n, PD_ADAPTER_SET, 0, PD_STR("stream"), PD_STR("false"));
    edit(e, n, PD_ADAPTER_REMOVE, 0, PD_STR("stream_options"), PD_STR(""));
}

/* The tokens of the prompt go along, so that both servers mean the same ones. */
static void generation_leg(const struct pd_adapter *a, struct pd_adapter_split *out)
{
    struct pd_adapter_edit *e = out->decode;
    uint32_t *n = &out->n_decode;
    edit(e, n, PD_ADAPTER_SET_TAKEN, 0, PD_STR("disaggregated_params"), PD_STR(""));
    edit(e, n, PD_ADAPTER_SET, 0, PD_STR("disaggregated_params.request_type"), PD_STR("\"generation_only\""));
    if (a->has_usage)
        edit(e, n, PD_ADAPTER_SET_FROM, 0, PD_STR("disaggregated_params.ctx_usage"), PD_STR("usage"));
    edit(e, n, PD_ADAPTER_SET_FROM, PD_ADAPTER_IN_CHAT, PD_STR("prompt_token_ids"), PD_STR("prompt_token_ids"));
    edit(e, n, PD_ADAPTER_SET_FROM, PD_ADAPTER_IN_TEXT, PD_STR("prompt"), PD_STR("prompt_token_ids"));
}

static pd_status trtllm_split(struct pd_adapter *adapter, struct pd_adapter_split *out)
{
    if (out->size < sizeof *out)
        return PD_ENOSYS;
    out->flags = PD_ADAPTER_APART;
    out->protocol = PD_STR("trtllm");
    out->take = PD_STR("choices[].disaggregated_params");
    out->needs = PD_STR("ctx_request_id");
    context_leg(adapter, out);
    generation_leg(adapter, out);
    /* A context server says "length" behind its token; whatever else it says is the end. */
    out->finish = PD_STR("choices[].finish_reason");
    out->follows[out->n_follows++] = PD_STR("length");
    out->follows[out->n_follows++] = PD_STR("not_finished");
    out->hidden[out->n_hidden++] = PD_STR("disaggregated_params");
    out->hidden[out->n_hidden++] = PD_STR("prompt_token_ids");
    out->hidden[out->n_hidden++] = PD_STR("prompt_token_ids_b64");
    /* Of the prompt's text, several beams and the first token's logprobs a generation server
     * knows nothing. */
    out->whole[out->n_whole++] = PD_STR("echo");
    out->whole[out->n_whole++] = PD_STR("best_of");
    out->whole[out->n_whole++] = PD_STR("use_beam_search");
    out->whole[out->n_whole++] = PD_STR("logprobs");
    out->whole[out->n_whole++] = PD_STR("return_context_logits");
    return PD_OK;
}

static pd_status trtllm_check(const void *conf, struct pd_err *err)
{
    return pd_server_check(&((const struct trtllm_conf *)conf)->server, err);
}

static const struct pd_option trtllm_options[] = {
    PD_OPT_BOOL("request_ids", struct trtllm_conf, request_ids, "true",
                .help = "The servers know \"disagg_request_id\": each request gets one that is the same on both.  "
                        "Older servers refuse the member with status 400; they want false here, on all "
                        "endpoints with the role prefill."),
    PD_OPT_BOOL("context_usage", struct trtllm_conf, context_usage, "false",
                .help = "The servers know \"ctx_usage\": generation servers get the usage of the context server, and "
                        "tell clients how much of the prompt that one had cached.  Older servers refuse the "
                        "member.  Counts for endpoints with the role prefill."),
    PD_OPT_BOOL("cache_salt", struct trtllm_conf, cache_salt, "false",
                .help = "The server knows \"cache_salt\" in chats: it gets one that keeps clients with different "
                        "keys apart.  Older servers refuse the member."),
    PD_SERVER_OPTIONS(struct trtllm_conf, server., "Where the API begins on the server; models are listed there.",
                      "/health", "Path asked to see whether the server is healthy.  Empty: no probe, the server "
                      "counts as healthy."),
    PD_OPT_END
};

static const struct pd_adapter_ops trtllm_ops = {
    .head = PD_OPS(pd_adapter_ops, PD_ADAPTER_V1),
    .create = trtllm_create,
    .destroy = trtllm_destroy,
    .http = trtllm_http,
    .split = trtllm_split,
};

static const struct pd_unit trtllm_units[] = {
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "trtllm", .ops = &trtllm_ops.head, .options = trtllm_options,
            .conf_size = sizeof(struct trtllm_conf), .check = trtllm_check,
            .summary = "Talks to TensorRT-LLM servers, with context and generation apart."),
    PD_UNIT_END
};

PD_MODULE(.name = "trtllm", .version = "0.1.0",
          .summary = "Talks to TensorRT-LLM servers, with context and generation apart.", .units = trtllm_units)
