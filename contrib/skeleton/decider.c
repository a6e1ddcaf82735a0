/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: Sends long prompts to a prefill node. */
#include <stdio.h>
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct @NAME@_conf {           /* filled from the rows below */
    uint64_t tokens;
};

struct pd_decider {              /* an instance */
    const struct @NAME@_conf *conf;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_INT("tokens", struct @NAME@_conf, tokens, "256", .max = 1 << 24, .unit = "tokens",
               .help = "Prompts with so many tokens that are not cached go to a prefill node."),
    PD_OPT_END
};

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_decider **out, struct pd_err *err)
{
    struct pd_decider *p = malloc(sizeof *p);

    (void)ctx;
    if (p == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    p->conf = conf;             /* stays until destroy has returned */
    *out = p;
    return PD_OK;
}

static void @NAME@_destroy(struct pd_decider *p)
{
    free(p);
}

static void @NAME@_decide(struct pd_decider *p, const struct pd_sched_request *request,
                          const struct pd_endpoint_view *decode, uint32_t prefill_nodes,
                          struct pd_decision *out)
{
    (void)request;
    (void)decode;
    if (prefill_nodes == 0) {
        out->mode = PD_DECIDE_LOCAL;
        snprintf(out->reason, sizeof out->reason, "there is no prefill node");
        return;
    }
    out->mode = PD_DECIDE_EXACT;    /* the decode node knows what it has cached */
    out->min_tokens = p->conf->tokens;
    snprintf(out->reason, sizeof out->reason, "prefill from %llu tokens on",
             (unsigned long long)p->conf->tokens);
}

static const struct pd_decider_ops @NAME@_ops = {
    .head = PD_OPS(pd_decider_ops, PD_DECIDER_V1),
    .create = @NAME@_create, .destroy = @NAME@_destroy, .decide = @NAME@_decide,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_DECIDER, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Sends long prompts to a prefill node."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Sends long prompts to a prefill node.",
          .units = @NAME@_units)
