/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter for servers that speak the OpenAI API: requests go to the same paths,
 * with a key when one is configured.  Such a server does prefill and decode by
 * itself. */
#include <pdplane/adapter.h>

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct openai_conf {
    const char *api_key;
    const char *path;
    const char *probe;
    bool cache_salt;
};

struct pd_adapter {
    bool has_salt;
    char *authorization;       /* "Bearer ...", NULL without a key */
    char *chat, *completions, *probe;
};

static void openai_destroy(struct pd_adapter *adapter)
{
    if (adapter->authorization != NULL)
        explicit_bzero(adapter->authorization, strlen(adapter->authorization));
    free(adapter->authorization);
    free(adapter->chat);
    free(adapter->completions);
    free(adapter->probe);
    free(adapter);
}

static bool joined(char **out, const char *a, const char *b)
{
    return asprintf(out, "%s%s", a, b) >= 0;
}

static pd_status openai_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                               struct pd_err *err)
{
    const struct openai_conf *c = conf;
    struct pd_adapter *a = calloc(1, sizeof *a);
    (void)ctx;
    if (a == NULL || !joined(&a->chat, c->path, "/chat/completions") ||
        !joined(&a->completions, c->path, "/completions") ||
        (c->probe[0] != '\0' && !joined(&a->probe, c->probe, "")) ||
        (c->api_key != NULL && !joined(&a->authorization, "Bearer ", c->api_key))) {
        if (a != NULL)
            openai_destroy(a);
        err->status = PD_ENOMEM;
        strcpy(err->text, "out of memory");
        return PD_ENOMEM;
    }
    a->has_salt = c->cache_salt;
    *out = a;
    return PD_OK;
}

static pd_status openai_http(struct pd_adapter *adapter, uint32_t what, struct pd_adapter_http *out)
{
    const char *target = what == PD_ADAPTER_CHAT ? adapter->chat
                         : what == PD_ADAPTER_COMPLETIONS ? adapter->completions
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
    if (adapter->has_salt && out->size >= offsetof(struct pd_adapter_http, flags) + sizeof out->flags)
        out->flags |= PD_ADAPTER_SALT;
    return PD_OK;
}

static pd_status openai_check(const void *conf, struct pd_err *err)
{
    const struct openai_conf *c = conf;
    if (c->path[0] == '/' && (c->probe[0] == '\0' || c->probe[0] == '/'))
        return PD_OK;
    err->status = PD_EINVAL;
    strcpy(err->text, "\"path\" and \"probe\" must begin with \"/\"");
    return PD_EINVAL;
}

static const struct pd_option openai_options[] = {
    PD_OPT_STRING("api_key", struct openai_conf, api_key, NULL, .flags = PD_OPT_SECRET,
                  .help = "Key that the server wants, sent as \"Authorization: Bearer\"."),
    PD_OPT_STRING("path", struct openai_conf, path, "/v1",
                  .help = "Where the API begins on the server."),
    PD_OPT_STRING("probe", struct openai_conf, probe, "/v1/models",
                  .help = "Path asked to see whether the server is healthy; a model list names the "
                          "models it serves.  Empty: no probe, the server counts as healthy."),
    PD_OPT_BOOL("cache_salt", struct openai_conf, cache_salt, "false",
                .help = "The server caches prefixes apart by the member \"cache_salt\", as vLLM does: it gets "
                        "one that keeps clients with different keys apart. Servers that do not know the "
                        "member may refuse requests that have it."),
    PD_OPT_END
};

static const struct pd_adapter_ops openai_ops = {
    .head = PD_OPS(pd_adapter_ops, PD_ADAPTER_V1),
    .create = openai_create,
    .destroy = openai_destroy,
    .http = openai_http,
};

static const struct pd_unit openai_units[] = {
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "openai", .ops = &openai_ops.head, .options = openai_options,
            .conf_size = sizeof(struct openai_conf), .check = openai_check,
            .summary = "Talks to servers with the OpenAI API."),
    PD_UNIT_END
};

PD_MODULE(.name = "openai", .version = "0.1.0", .summary = "Talks to servers with the OpenAI API.",
          .units = openai_units)
