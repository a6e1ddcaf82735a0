/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: Prefers endpoints with few requests. */
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct @NAME@_conf {           /* filled from the rows below */
    uint32_t full;
};

struct pd_scorer {              /* an instance */
    const struct @NAME@_conf *conf;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_INT("full", struct @NAME@_conf, full, "64", .min = 1, .max = 1 << 20, .unit = "requests",
               .help = "An endpoint with so many requests has score 0."),
    PD_OPT_END
};

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_scorer **out, struct pd_err *err)
{
    struct pd_scorer *p = malloc(sizeof *p);

    (void)ctx;
    if (p == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    p->conf = conf;             /* stays until destroy has returned */
    *out = p;
    return PD_OK;
}

static void @NAME@_destroy(struct pd_scorer *p)
{
    free(p);
}

/* Sets score[i], 0 to 1; more is better. */
static void @NAME@_score(struct pd_scorer *p, const struct pd_sched_request *request,
                         const struct pd_endpoint_view *candidates, uint32_t n, double *score)
{
    (void)request;
    for (uint32_t i = 0; i < n; i++) {
        double busy = ((double)candidates[i].running + candidates[i].waiting) / p->conf->full;
        score[i] = busy < 1 ? 1 - busy : 0;
    }
}

static const struct pd_scorer_ops @NAME@_ops = {
    .head = PD_OPS(pd_scorer_ops, PD_SCORER_V1),
    .create = @NAME@_create, .destroy = @NAME@_destroy, .score = @NAME@_score,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_SCORER, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Prefers endpoints with few requests."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Prefers endpoints with few requests.",
          .units = @NAME@_units)
