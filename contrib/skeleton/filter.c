/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: Drops endpoints whose queue is too long. */
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct @NAME@_conf {           /* filled from the rows below */
    uint32_t most;
};

struct pd_filter {              /* an instance */
    const struct @NAME@_conf *conf;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_INT("most", struct @NAME@_conf, most, "32", .max = 1 << 20, .unit = "requests",
               .help = "An endpoint where more requests wait is dropped."),
    PD_OPT_END
};

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_filter **out, struct pd_err *err)
{
    struct pd_filter *p = malloc(sizeof *p);

    (void)ctx;
    if (p == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    p->conf = conf;             /* stays until destroy has returned */
    *out = p;
    return PD_OK;
}

static void @NAME@_destroy(struct pd_filter *p)
{
    free(p);
}

/* Sets keep[i] to 0 for candidates to drop. */
static void @NAME@_apply(struct pd_filter *p, const struct pd_sched_request *request,
                         const struct pd_endpoint_view *candidates, uint32_t n, uint8_t *keep)
{
    (void)request;
    for (uint32_t i = 0; i < n; i++)
        if (candidates[i].waiting > p->conf->most)
            keep[i] = 0;
}

static const struct pd_filter_ops @NAME@_ops = {
    .head = PD_OPS(pd_filter_ops, PD_FILTER_V1),
    .create = @NAME@_create, .destroy = @NAME@_destroy, .apply = @NAME@_apply,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_FILTER, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Drops endpoints whose queue is too long."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Drops endpoints whose queue is too long.",
          .units = @NAME@_units)
