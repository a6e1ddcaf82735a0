/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter for vLLM servers, with prefill and decode apart over the NixlConnector in
 * pull mode: the prefill server keeps the KV of a prompt and says in its answer where
 * it is, the decode server fetches it from there. */
#include "server.h"

enum { CONNECTOR_NONE = 0, CONNECTOR_NIXL = 1 };

struct vllm_conf {
    struct pd_server_conf server;
    uint32_t connector;
};

struct pd_adapter {
    struct pd_server server;
    uint32_t connector;
};

static void vllm_destroy(struct pd_adapter *adapter)
{
    pd_server_close(&adapter->server);
    free(adapter);
}

static pd_status vllm_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                             struct pd_err *err)
{
    const struct vllm_conf *c = conf;
    struct pd_adapter *a = calloc(1, sizeof *a);
    (void)ctx;
    if (a == NULL)
        return pd_server_refuse(err, PD_ENOMEM, "out of memory");
    if (pd_server_open(&a->server, &c->server, err) != PD_OK) {
        vllm_destroy(a);
        return err->status;
    }
    a->connector = c->connector;
    *out = a;
    return PD_OK;
}

static pd_status vllm_http(struct pd_adapter *adapter, uint32_t what, struct pd_adapter_http *out)
{
    return pd_server_http(&adapter->server, what, true, out);
}

static void edit(struct pd_adapter_edit *edits, uint32_t *n, uint32_t op, struct pd_str member,
                 struct pd_str text)
{
    edits[(*n)++] = (struct pd_adapter_edit){ .op = op, .member = member, .text = text };
}

/* The prompt alone: one token, not streamed, and nothing that asks for more of them. */
static pd_status vllm_split(struct pd_adapter *adapter, struct pd_adapter_split *out)
{
    struct pd_adapter_edit *p = out->prefill;
    uint32_t *n = &out->n_prefill;
    if (adapter->connector != CONNECTOR_NIXL)
        return PD_ENOSYS;
    out->protocol = PD_STR("vllm nixl");
    out->take = PD_STR("kv_transfer_params");
    edit(p, n, PD_ADAPTER_SET, PD_STR("kv_transfer_params"),
         PD_STR("{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,"
                "\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}"));
    edit(p, n, PD_ADAPTER_SET, PD_STR("stream"), PD_STR("false"));
    edit(p, n, PD_ADAPTER_REMOVE, PD_STR("stream_options"), PD_STR(""));
    edit(p, n, PD_ADAPTER_SET, PD_STR("max_tokens"), PD_STR("1"));
    edit(p, n, PD_ADAPTER_SET_GIVEN, PD_STR("max_completion_tokens"), PD_STR("1"));
    edit(p, n, PD_ADAPTER_REMOVE, PD_STR("min_tokens"), PD_STR(""));
    edit(p, n, PD_ADAPTER_REMOVE, PD_STR("min_completion_tokens"), PD_STR(""));
    edit(out->decode, &out->n_decode, PD_ADAPTER_SET_TAKEN, PD_STR("kv_transfer_params"), PD_STR(""));
    out->whole[out->n_whole++] = PD_STR("echo");
    out->whole[out->n_whole++] = PD_STR("prompt_logprobs");
    out->whole[out->n_whole++] = PD_STR("use_beam_search");
    return PD_OK;
}

static pd_status vllm_check(const void *conf, struct pd_err *err)
{
    return pd_server_check(&((const struct vllm_conf *)conf)->server, err);
}

static const struct pd_option_name connector_names[] = {
    { "none", CONNECTOR_NONE }, { "nixl", CONNECTOR_NIXL }, { NULL, 0 }
};

static const struct pd_option vllm_options[] = {
    PD_OPT_ENUM("connector", struct vllm_conf, connector, "none", connector_names,
                .help = "What moves KV between servers: nixl is the NixlConnector in pull mode; a prompt is "
                        "then computed by an endpoint with the role prefill and answered by one with the role "
                        "decode.  With none each server answers its requests alone."),
    PD_SERVER_OPTIONS(struct vllm_conf, server., "Where the API begins on the server; models are listed there.",
                      "/health", "Path asked to see whether the server is healthy.  Empty: no probe, the server "
                      "counts as healthy."),
    PD_OPT_END
};

static const struct pd_adapter_ops vllm_ops = {
    .head = PD_OPS(pd_adapter_ops, PD_ADAPTER_V1),
    .create = vllm_create,
    .destroy = vllm_destroy,
    .http = vllm_http,
    .split = vllm_split,
};

static const struct pd_unit vllm_units[] = {
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "vllm", .ops = &vllm_ops.head, .options = vllm_options,
            .conf_size = sizeof(struct vllm_conf), .check = vllm_check,
            .summary = "Talks to vLLM servers, with prefill and decode apart."),
    PD_UNIT_END
};

PD_MODULE(.name = "vllm", .version = "0.1.0", .summary = "Talks to vLLM servers, with prefill and decode apart.",
          .units = vllm_units)
