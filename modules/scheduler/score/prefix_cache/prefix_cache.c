/* SPDX-License-Identifier: Apache-2.0 */
/* Score by how much of the prompt the endpoint probably has in its cache,
 * after the scheduler's prefix index.
 *
 *     score = w * min(1, matched tokens / scale)^2 + (1 - w) * matched / blocks */
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct pc_conf {
    double length_weight;
    int64_t length_scale;
};

struct pd_scorer {
    struct pc_conf conf;
};

static const struct pd_option pc_options[] = {
    PD_OPT_NUMBER("length_weight", struct pc_conf, length_weight, "0", .lo = 0, .hi = 1,
                  .help = "How much the length of the match counts, against its share of the "
                          "prompt."),
    PD_OPT_INT("length_scale", struct pc_conf, length_scale, "8192", .min = 1, .max = 1 << 24,
               .unit = "tokens", .help = "Length of a match that counts fully."),
    PD_OPT_END
};

static pd_status pc_create(const struct pd_instance_ctx *ctx, const void *conf,
                           struct pd_scorer **out, struct pd_err *err)
{
    struct pd_scorer *scorer = malloc(sizeof *scorer);

    (void)ctx;
    if (scorer == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    scorer->conf = *(const struct pc_conf *)conf;
    *out = scorer;
    return PD_OK;
}

static void pc_destroy(struct pd_scorer *scorer)
{
    free(scorer);
}

static void pc_score(struct pd_scorer *scorer, const struct pd_sched_request *request,
                     const struct pd_endpoint_view *candidates, uint32_t n, double *score)
{
    double w = scorer->conf.length_weight;

    if (request->prompt_blocks == 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        double matched = candidates[i].match_blocks < request->prompt_blocks
                             ? candidates[i].match_blocks : request->prompt_blocks;
        if (!(w > 0)) {
            score[i] = matched / request->prompt_blocks;
            continue;
        }
        double length = matched * request->block_tokens / (double)scorer->conf.length_scale;
        length = length > 1 ? 1 : length;
        score[i] = w * length * length + (1 - w) * matched / request->prompt_blocks;
    }
}

static const struct pd_scorer_ops pc_ops = {
    .head = PD_OPS(pd_scorer_ops, PD_SCORER_V1),
    .create = pc_create, .destroy = pc_destroy, .score = pc_score,
    .flags = PD_SCORER_BY_MATCH | PD_SCORER_NO_AGE,
};

static const char *const pc_aliases[] = { "prefix-cache-scorer", "prefix_lru", NULL };

static const struct pd_unit pc_units[] = {
    PD_UNIT(.kind = PD_KIND_SCORER, .name = "prefix_cache", .ops = &pc_ops.head,
            .options = pc_options, .conf_size = sizeof(struct pc_conf), .aliases = pc_aliases,
            .summary = "Prefers endpoints that have the prompt's prefix in their cache."),
    PD_UNIT_END
};

PD_MODULE(.name = "prefix_cache", .version = "1.0", .summary = "Scores endpoints by cached prefix.",
          .units = pc_units)
