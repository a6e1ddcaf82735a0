/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: Speaks with servers of the OpenAI API. */
#include <stdlib.h>
#include <string.h>

#include <pdplane/adapter.h>

struct @NAME@_conf {           /* filled from the rows below */
    const char *health;
};

struct pd_adapter {              /* an instance */
    const struct @NAME@_conf *conf;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_STRING("health", struct @NAME@_conf, health, "/health", .flags = PD_OPT_NONEMPTY,
                  .help = "Path that answers 200 when the server is well."),
    PD_OPT_END
};

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_adapter **out, struct pd_err *err)
{
    struct pd_adapter *p = malloc(sizeof *p);

    (void)ctx;
    if (p == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    p->conf = conf;             /* stays until destroy has returned */
    *out = p;
    return PD_OK;
}

static void @NAME@_destroy(struct pd_adapter *p)
{
    free(p);
}

/* What to send for a request of this kind; the strings stay until destroy. */
static pd_status @NAME@_http(struct pd_adapter *p, uint32_t what, struct pd_adapter_http *out)
{
    switch (what) {
    case PD_ADAPTER_CHAT:
        out->target = PD_STR("/v1/chat/completions");
        break;
    case PD_ADAPTER_COMPLETIONS:
        out->target = PD_STR("/v1/completions");
        break;
    case PD_ADAPTER_PROBE:
        out->target = (struct pd_str){ p->conf->health, strlen(p->conf->health) };
        break;
    default:
        return PD_ENOSYS;
    }
    out->n_headers = 0;
    return PD_OK;
}

static const struct pd_adapter_ops @NAME@_ops = {
    .head = PD_OPS(pd_adapter_ops, PD_ADAPTER_V1),
    .create = @NAME@_create, .destroy = @NAME@_destroy, .http = @NAME@_http,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Speaks with servers of the OpenAI API."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Speaks with servers of the OpenAI API.",
          .units = @NAME@_units)
