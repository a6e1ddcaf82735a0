/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter for SGLang servers, with prefill and decode apart: both get the same request
 * at the same time, with the place where they meet: the bootstrap server of the prefill
 * server, and a room there. */
#include "server.h"

#include <pdplane/scheduler.h>

#define BOOTSTRAP_HOST_MAX 255u

struct sglang_conf {
    struct pd_server_conf server;
    const char *info;          /* "": not asked */
    const char *bootstrap_host;
    uint32_t bootstrap_port;
};

struct pd_adapter {
    struct pd_server server;
    char *host;                /* of the bootstrap server, as JSON; NULL: that of the url */
    char port[8];
    struct pd_str info;        /* the configuration's */
};

static void sglang_destroy(struct pd_adapter *adapter)
{
    pd_server_close(&adapter->server);
    free(adapter->host);
    free(adapter);
}

static pd_status sglang_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                               struct pd_err *err)
{
    const struct sglang_conf *c = conf;
    struct pd_adapter *a = calloc(1, sizeof *a);
    (void)ctx;
    if (a == NULL)
        return pd_server_refuse(err, PD_ENOMEM, "out of memory");
    if (c->bootstrap_host != NULL && asprintf(&a->host, "\"%s\"", c->bootstrap_host) < 0) {
        a->host = NULL;
        pd_server_refuse(err, PD_ENOMEM, "out of memory");
        sglang_destroy(a);
        return PD_ENOMEM;
    }
    if (pd_server_open(&a->server, &c->server, err) != PD_OK) {
        sglang_destroy(a);
        return err->status;
    }
    snprintf(a->port, sizeof a->port, "%u", c->bootstrap_port);
    a->info = (struct pd_str){ c->info, strlen(c->info) };
    *out = a;
    return PD_OK;
}

static pd_status sglang_http(struct pd_adapter *adapter, uint32_t what, struct pd_adapter_http *out)
{
    bool is_info = what == PD_ADAPTER_INFO && adapter->info.n > 0;
    pd_status status = pd_server_http(&adapter->server, is_info ? PD_ADAPTER_CHAT : what, true, out);
    if (is_info)
        out->target = adapter->info;
    return status;
}

/* Nothing else differs from what the client sent: a prefill server stops by itself. */
static pd_status sglang_split(struct pd_adapter *adapter, struct pd_adapter_split *out)
{
    const struct pd_adapter_edit meeting[] = {
        { .op = adapter->host != NULL ? PD_ADAPTER_SET : PD_ADAPTER_SET_HOST, .flags = PD_ADAPTER_EACH,
          .member = PD_STR("bootstrap_host"),
          .text = { adapter->host != NULL ? adapter->host : "", adapter->host != NULL ? strlen(adapter->host) : 0 } },
        { .op = PD_ADAPTER_SET, .flags = PD_ADAPTER_EACH, .member = PD_STR("bootstrap_port"),
          .text = { adapter->port, strlen(adapter->port) } },
        { .op = PD_ADAPTER_SET_ROOM, .flags = PD_ADAPTER_EACH, .member = PD_STR("bootstrap_room"),
          .text = { "", 0 } },
    };
    out->flags = PD_ADAPTER_PAIR;
    out->protocol = PD_STR("sglang");
    out->n_prefill = out->n_decode = sizeof meeting / sizeof meeting[0];
    memcpy(out->prefill, meeting, sizeof meeting);
    memcpy(out->decode, meeting, sizeof meeting);
    /* Logprobs of the prompt stay on the prefill server. */
    out->whole[out->n_whole++] = PD_STR("echo");
    return PD_OK;
}

/* The roles of an endpoint are the mode that its server must run in. */
static pd_status sglang_expects(struct pd_adapter *adapter, uint32_t roles, struct pd_adapter_expects *out)
{
    (void)adapter;
    out->items[0].member = PD_STR("disaggregation_mode");
    out->items[0].value = roles == PD_ROLE_PREFILL  ? PD_STR("prefill")
                          : roles == PD_ROLE_DECODE ? PD_STR("decode") : PD_STR("null");
    out->n = 1;
    return PD_OK;
}

/* What a host's name or address consists of, also in brackets. */
static bool is_host(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n <= BOOTSTRAP_HOST_MAX &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:%[]") == n;
}

static pd_status sglang_check(const void *conf, struct pd_err *err)
{
    const struct sglang_conf *c = conf;
    if (c->bootstrap_host != NULL && !is_host(c->bootstrap_host))
        return pd_server_refuse(err, PD_EINVAL, "\"bootstrap_host\" is no name or address of a host");
    if (c->info[0] != '\0' && c->info[0] != '/')
        return pd_server_refuse(err, PD_EINVAL, "\"info\" must begin with \"/\"");
    return pd_server_check(&c->server, err);
}

static const struct pd_option sglang_options[] = {
    PD_OPT_INT("bootstrap_port", struct sglang_conf, bootstrap_port, "8998", .min = 1, .max = 65535,
               .help = "Port of the prefill server's bootstrap server, its --disaggregation-bootstrap-port. "
                       "Decode servers connect to it."),
    PD_OPT_STRING("bootstrap_host", struct sglang_conf, bootstrap_host, NULL,
                  .help = "Host of the prefill server as decode servers reach it; by default that of url."),
    PD_SERVER_OPTIONS(struct sglang_conf, server., "Where the API begins on the server; models are listed there.",
                      "/health", "Path asked to see whether the server is healthy.  Empty: no probe, the server "
                      "counts as healthy."),
    PD_OPT_STRING("info", struct sglang_conf, info, "/server_info",
                  .help = "Path asked, when the server comes up, in which mode it runs: one whose mode does "
                          "not fit the endpoint's roles is not used.  A server that does not answer there is "
                          "taken as it is; older ones do at \"/get_server_info\".  Empty: not asked."),
    PD_OPT_END
};

static const struct pd_adapter_ops sglang_ops = {
    .head = PD_OPS(pd_adapter_ops, PD_ADAPTER_V1),
    .create = sglang_create,
    .destroy = sglang_destroy,
    .http = sglang_http,
    .split = sglang_split,
    .expects = sglang_expects,
};

static const struct pd_unit sglang_units[] = {
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "sglang", .ops = &sglang_ops.head, .options = sglang_options,
            .conf_size = sizeof(struct sglang_conf), .check = sglang_check,
            .summary = "Talks to SGLang servers, with prefill and decode apart."),
    PD_UNIT_END
};

PD_MODULE(.name = "sglang", .version = "0.1.0",
          .summary = "Talks to SGLang servers, with prefill and decode apart.", .units = sglang_units)
