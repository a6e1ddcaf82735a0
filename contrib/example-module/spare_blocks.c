/* SPDX-License-Identifier: Apache-2.0 */
/* Scores an endpoint by the share of its KV blocks that are free. */
#include <stdlib.h>

#include <pdplane/metric.h>
#include <pdplane/scheduler.h>

struct spare_conf {
    double unknown;             /* filled from the rows below */
};

struct pd_scorer {              /* an instance: ours alone */
    double unknown;
    struct pd_counter *guessed; /* the node's, lives as long as the node */
};

static const struct pd_option spare_options[] = {
    PD_OPT_NUMBER("unknown", struct spare_conf, unknown, "0.5", .lo = 0, .hi = 1,
                  .help = "Score of an endpoint that does not tell how many blocks it has."),
    PD_OPT_END
};

static pd_status spare_create(const struct pd_instance_ctx *ctx, const void *conf,
                              struct pd_scorer **out, struct pd_err *err)
{
    const struct spare_conf *c = conf;
    struct pd_scorer *scorer = malloc(sizeof *scorer);

    if (scorer == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    scorer->unknown = c->unknown;
    scorer->guessed = pd_metrics_simple_counter(ctx->metrics, "pdplane_spare_blocks_unknown_total",
                                                "Endpoints scored without knowing their blocks.");
    *out = scorer;
    return PD_OK;
}

static void spare_destroy(struct pd_scorer *scorer)
{
    free(scorer);
}

static void spare_score(struct pd_scorer *scorer, const struct pd_sched_request *request,
                        const struct pd_endpoint_view *candidates, uint32_t n, double *score)
{
    (void)request;
    for (uint32_t i = 0; i < n; i++) {
        const struct pd_endpoint_view *c = &candidates[i];
        if (c->blocks_total == 0) {
            pd_counter_inc(scorer->guessed);
            score[i] = scorer->unknown;
        } else {                /* numbers of a peer: they may be nonsense */
            score[i] = c->blocks_free >= c->blocks_total
                           ? 1 : (double)c->blocks_free / c->blocks_total;
        }
    }
}

static const struct pd_scorer_ops spare_ops = {
    .head = PD_OPS(pd_scorer_ops, PD_SCORER_V1),
    .create = spare_create, .destroy = spare_destroy, .score = spare_score,
};

static const struct pd_unit spare_units[] = {
    PD_UNIT(.kind = PD_KIND_SCORER, .name = "spare_blocks", .ops = &spare_ops.head,
            .options = spare_options, .conf_size = sizeof(struct spare_conf),
            .summary = "Prefers endpoints with free KV blocks."),
    PD_UNIT_END
};

PD_MODULE(.name = "spare_blocks", .version = "1.0",
          .summary = "Scores endpoints by free KV blocks.", .units = spare_units)
