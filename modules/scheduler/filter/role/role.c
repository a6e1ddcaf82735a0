/* SPDX-License-Identifier: Apache-2.0 */
/* Filter by role.  Without options it keeps what the profile looks for, so one
 * instance serves all profiles.  An endpoint without a role counts as decode.
 * The units role_prefill and role_decode have their role built in, for
 * configurations that come from other schedulers; `pass` keeps everything. */
#include <stdlib.h>

#include <pdplane/log.h>
#include <pdplane/scheduler.h>

enum {
    ALLOW_PREFILL = 1u << 0,    /* prefill and nothing else */
    ALLOW_DECODE = 1u << 1,
    ALLOW_BOTH = 1u << 2,
    ALLOW_UNLABELLED = 1u << 3
};

struct role_conf {
    uint64_t allow;
};

struct pd_filter {
    uint64_t allow;             /* 0: what the request looks for */
};

static const struct pd_option_name allow_names[] = {
    { "prefill", ALLOW_PREFILL },
    { "decode", ALLOW_DECODE },
    { "both", ALLOW_BOTH },
    { "unlabelled", ALLOW_UNLABELLED },
    { NULL, 0 }
};

static const struct pd_option role_options[] = {
    PD_OPT_FLAGS("allow", struct role_conf, allow, NULL, allow_names,
                 .help = "Endpoints to keep: those with the prefill role alone, the decode role "
                         "alone, both, or none.  By default what the profile looks for."),
    PD_OPT_END
};

static pd_status make(uint64_t allow, struct pd_filter **out, struct pd_err *err)
{
    struct pd_filter *filter = malloc(sizeof *filter);

    if (filter == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    filter->allow = allow;
    *out = filter;
    return PD_OK;
}

static pd_status role_create(const struct pd_instance_ctx *ctx, const void *conf,
                             struct pd_filter **out, struct pd_err *err)
{
    const struct role_conf *c = conf;

    (void)ctx;
    return make(c == NULL ? 0 : c->allow, out, err);
}

static pd_status prefill_create(const struct pd_instance_ctx *ctx, const void *conf,
                                struct pd_filter **out, struct pd_err *err)
{
    (void)ctx;
    (void)conf;
    return make(ALLOW_PREFILL | ALLOW_BOTH, out, err);
}

static pd_status decode_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_filter **out, struct pd_err *err)
{
    (void)ctx;
    (void)conf;
    return make(ALLOW_DECODE | ALLOW_BOTH | ALLOW_UNLABELLED, out, err);
}

static pd_status pass_create(const struct pd_instance_ctx *ctx, const void *conf,
                             struct pd_filter **out, struct pd_err *err)
{
    (void)conf;
    pd_log_warn(ctx->log, "\"%s\" has no effect: the router tells the decode node itself where to "
                          "prefill", ctx->name);
    return make(0, out, err);
}

static void role_destroy(struct pd_filter *filter)
{
    free(filter);
}

static uint64_t class_of(uint32_t roles)
{
    roles &= PD_ROLE_PREFILL | PD_ROLE_DECODE;
    if (roles == (PD_ROLE_PREFILL | PD_ROLE_DECODE))
        return ALLOW_BOTH;
    return roles == PD_ROLE_PREFILL ? ALLOW_PREFILL : roles == PD_ROLE_DECODE ? ALLOW_DECODE
                                                                              : ALLOW_UNLABELLED;
}

static void role_apply(struct pd_filter *filter, const struct pd_sched_request *request,
                       const struct pd_endpoint_view *candidates, uint32_t n, uint8_t *keep)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t roles = candidates[i].roles == 0 ? (uint32_t)PD_ROLE_DECODE : candidates[i].roles;
        if (filter->allow == 0)
            keep[i] = (roles & request->roles) != 0;
        else
            keep[i] = (class_of(candidates[i].roles) & filter->allow) != 0;
    }
}

static void pass_apply(struct pd_filter *filter, const struct pd_sched_request *request,
                       const struct pd_endpoint_view *candidates, uint32_t n, uint8_t *keep)
{
    (void)filter;
    (void)request;
    (void)candidates;
    (void)n;
    (void)keep;
}

static const struct pd_filter_ops role_ops = {
    .head = PD_OPS(pd_filter_ops, PD_FILTER_V1),
    .create = role_create, .destroy = role_destroy, .apply = role_apply,
    .flags = PD_FILTER_STEADY | PD_FILTER_EACH,
};

static const struct pd_filter_ops prefill_ops = {
    .head = PD_OPS(pd_filter_ops, PD_FILTER_V1),
    .create = prefill_create, .destroy = role_destroy, .apply = role_apply,
    .flags = PD_FILTER_STEADY | PD_FILTER_EACH,
};

static const struct pd_filter_ops decode_ops = {
    .head = PD_OPS(pd_filter_ops, PD_FILTER_V1),
    .create = decode_create, .destroy = role_destroy, .apply = role_apply,
    .flags = PD_FILTER_STEADY | PD_FILTER_EACH,
};

static const struct pd_filter_ops pass_ops = {
    .head = PD_OPS(pd_filter_ops, PD_FILTER_V1),
    .create = pass_create, .destroy = role_destroy, .apply = pass_apply,
    .flags = PD_FILTER_STEADY | PD_FILTER_EACH,
};

static const char *const prefill_aliases[] = { "prefill-filter", NULL };
static const char *const decode_aliases[] = { "decode-filter", NULL };
static const char *const pass_aliases[] = { "prefill-header-handler", "disagg-headers-handler",
                                            NULL };

static const struct pd_unit role_units[] = {
    PD_UNIT(.kind = PD_KIND_FILTER, .name = "role", .ops = &role_ops.head, .options = role_options,
            .conf_size = sizeof(struct role_conf),
            .summary = "Keeps endpoints with the role that the profile looks for."),
    PD_UNIT(.kind = PD_KIND_FILTER, .name = "role_prefill", .ops = &prefill_ops.head,
            .aliases = prefill_aliases, .summary = "Keeps endpoints that prefill."),
    PD_UNIT(.kind = PD_KIND_FILTER, .name = "role_decode", .ops = &decode_ops.head,
            .aliases = decode_aliases,
            .summary = "Keeps endpoints that decode, and those without a role."),
    PD_UNIT(.kind = PD_KIND_FILTER, .name = "pass", .ops = &pass_ops.head, .aliases = pass_aliases,
            .summary = "Keeps every endpoint."),
    PD_UNIT_END
};

PD_MODULE(.name = "role", .version = "1.0", .summary = "Filters endpoints by role.",
          .units = role_units)
