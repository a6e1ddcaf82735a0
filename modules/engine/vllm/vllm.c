/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter for vLLM servers, with prefill and decode apart over the NixlConnector in
 * pull mode: the prefill server keeps the KV of a prompt and says in its answer where
 * it is, the decode server fetches it from there. */
#include <pdplane/adapter.h>

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTOR_NONE = 0, CONNECTOR_NIXL = 1 };

struct vllm_conf {
    const char *api_key;
    const char *path;
    const char *probe;
    uint32_t connector;
};

struct pd_adapter {
    char *authorization;       /* "Bearer ...", NULL without a key */
    char *chat, *completions, *models, *probe;
    uint32_t connector;
};

static void vllm_destroy(struct pd_adapter *adapter)
{
    if (adapter->authorization != NULL)
        explicit_bzero(adapter->authorization, strlen(adapter->authorization));
    free(adapter->authorization);
    free(adapter->chat);
    free(adapter->completions);
    free(adapter->models);
    free(adapter->probe);
    free(adapter);
}

static bool joined(char **out, const char *a, const char *b)
{
    return asprintf(out, "%s%s", a, b) >= 0;
}

static pd_status vllm_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                             struct pd_err *err)
{
    const struct vllm_conf *c = conf;
    struct pd_adapter *a = calloc(1, sizeof *a);
    (void)ctx;
    if (a == NULL || !joined(&a->chat, c->path, "/chat/completions") ||
        !joined(&a->completions, c->path, "/completions") || !joined(&a->models, c->path, "/models") ||
        (c->probe[0] != '\0' && !joined(&a->probe, c->probe, "")) ||
        (c->api_key != NULL && !joined(&a->authorization, "Bearer ", c->api_key))) {
        if (a != NULL)
            vllm_destroy(a);
        err->status = PD_ENOMEM;
        strcpy(err->text, "out of memory");
        return PD_ENOMEM;
    }
    a->connector = c->connector;
    *out = a;
    return PD_OK;
}

static pd_status vllm_http(struct pd_adapter *adapter, uint32_t what, struct pd_adapter_http *out)
{
    const char *target = what == PD_ADAPTER_CHAT ? adapter->chat
                         : what == PD_ADAPTER_COMPLETIONS ? adapter->completions
                         : what == PD_ADAPTER_MODELS ? adapter->models
                         : what == PD_ADAPTER_PROBE ? adapter->probe : NULL;
    if (target == NULL)
        return PD_ENOSYS;
    out->target = (struct pd_str){ target, strlen(target) };
    out->n_headers = 0;
    if (adapter->authorization != NULL) {
        out->headers[0].name = PD_STR("authorization");
        out->headers[0].value =
            (struct pd_str){ adapter->authorization, strlen(adapter->authorization) };
        out->n_headers = 1;
    }
    if (out->size >= offsetof(struct pd_adapter_http, flags) + sizeof out->flags)
        out->flags |= PD_ADAPTER_SALT;
    return PD_OK;
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
    const struct vllm_conf *c = conf;
    if (c->path[0] == '/' && (c->probe[0] == '\0' || c->probe[0] == '/'))
        return PD_OK;
    err->status = PD_EINVAL;
    strcpy(err->text, "\"path\" and \"probe\" must begin with \"/\"");
    return PD_EINVAL;
}

static const struct pd_option_name connector_names[] = {
    { "none", CONNECTOR_NONE }, { "nixl", CONNECTOR_NIXL }, { NULL, 0 }
};

static const struct pd_option vllm_options[] = {
    PD_OPT_ENUM("connector", struct vllm_conf, connector, "none", connector_names,
                .help = "What moves KV between servers: nixl is the NixlConnector in pull mode; a prompt is "
                        "then computed by an endpoint with the role prefill and answered by one with the role "
                        "decode.  With none each server answers its requests alone."),
    PD_OPT_STRING("api_key", struct vllm_conf, api_key, NULL, .flags = PD_OPT_SECRET,
                  .help = "Key that the server wants, sent as \"Authorization: Bearer\"."),
    PD_OPT_STRING("path", struct vllm_conf, path, "/v1",
                  .help = "Where the API begins on the server; models are listed there."),
    PD_OPT_STRING("probe", struct vllm_conf, probe, "/health",
                  .help = "Path asked to see whether the server is healthy.  Empty: no probe, the server "
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
