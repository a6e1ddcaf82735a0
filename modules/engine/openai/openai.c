/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter for servers that speak the OpenAI API: requests go to the same paths,
 * with a key when one is configured.  Such a server does prefill and decode by
 * itself. */
#include "server.h"

struct openai_conf {
    struct pd_server_conf server;
    bool cache_salt;
};

struct pd_adapter {
    struct pd_server server;
    bool has_salt;
};

static void openai_destroy(struct pd_adapter *adapter)
{
    pd_server_close(&adapter->server);
    free(adapter);
}

static pd_status openai_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                               struct pd_err *err)
{
    const struct openai_conf *c = conf;
    struct pd_adapter *a = calloc(1, sizeof *a);
    (void)ctx;
    if (a == NULL)
        return pd_server_refuse(err, PD_ENOMEM, "out of memory");
    if (pd_server_open(&a->server, &c->server, err) != PD_OK) {
        openai_destroy(a);
        return err->status;
    }
    a->has_salt = c->cache_salt;
    *out = a;
    return PD_OK;
}

/* The probe lists the models, so there is no other request for them. */
static pd_status openai_http(struct pd_adapter *adapter, uint32_t what, struct pd_adapter_http *out)
{
    if (what == PD_ADAPTER_MODELS)
        return PD_ENOSYS;
    return pd_server_http(&adapter->server, what, adapter->has_salt, out);
}

static pd_status openai_check(const void *conf, struct pd_err *err)
{
    return pd_server_check(&((const struct openai_conf *)conf)->server, err);
}

static const struct pd_option openai_options[] = {
    PD_SERVER_OPTIONS(struct openai_conf, server., "Where the API begins on the server.", "/v1/models",
                      "Path asked to see whether the server is healthy; a model list names the models it "
                      "serves.  Empty: no probe, the server counts as healthy."),
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
