/* SPDX-License-Identifier: Apache-2.0 */
/* Score by queue length q: `ceiling` for an empty queue, falling linearly to 0
 * at `queue_threshold`.
 *
 *     score = ceiling * (1 - min(q, threshold) / threshold) */
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct la_conf {
    int64_t queue_threshold;
    double ceiling;
    bool count_dispatched;
};

struct pd_scorer {
    struct la_conf conf;
};

static const struct pd_option la_options[] = {
    PD_OPT_INT("queue_threshold", struct la_conf, queue_threshold, "128", .min = 1,
               .max = 1 << 20, .unit = "requests",
               .help = "Queue length from which the score is 0."),
    PD_OPT_ALIAS("threshold", "queue_threshold"),
    PD_OPT_NUMBER("ceiling", struct la_conf, ceiling, "0.5", .lo = 0, .hi = 1,
                  .help = "Score of an endpoint with an empty queue."),
    PD_OPT_BOOL("count_dispatched", struct la_conf, count_dispatched, "true",
                .help = "Also count requests sent from here since the endpoint's last report, so "
                        "that a burst does not go to one place."),
    PD_OPT_END
};

static pd_status la_create(const struct pd_instance_ctx *ctx, const void *conf,
                           struct pd_scorer **out, struct pd_err *err)
{
    struct pd_scorer *scorer = malloc(sizeof *scorer);

    (void)ctx;
    if (scorer == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    scorer->conf = *(const struct la_conf *)conf;
    *out = scorer;
    return PD_OK;
}

static void la_destroy(struct pd_scorer *scorer)
{
    free(scorer);
}

static void la_score(struct pd_scorer *scorer, const struct pd_sched_request *request,
                     const struct pd_endpoint_view *candidates, uint32_t n, double *score)
{
    double threshold = (double)scorer->conf.queue_threshold;

    (void)request;
    for (uint32_t i = 0; i < n; i++) {
        double q = candidates[i].waiting;
        if (scorer->conf.count_dispatched)
            q += candidates[i].dispatched;
        score[i] = scorer->conf.ceiling * (1 - (q < threshold ? q : threshold) / threshold);
    }
}

static const struct pd_scorer_ops la_ops = {
    .head = PD_OPS(pd_scorer_ops, PD_SCORER_V1),
    .create = la_create, .destroy = la_destroy, .score = la_score,
    .flags = PD_SCORER_BY_LOAD | PD_SCORER_NO_AGE,
};

static const char *const la_aliases[] = { "load-aware-scorer", NULL };

static const struct pd_unit la_units[] = {
    PD_UNIT(.kind = PD_KIND_SCORER, .name = "load_aware", .ops = &la_ops.head,
            .options = la_options, .conf_size = sizeof(struct la_conf), .aliases = la_aliases,
            .summary = "Prefers endpoints with short queues."),
    PD_UNIT_END
};

PD_MODULE(.name = "load_aware", .version = "1.0", .summary = "Scores endpoints by queue length.",
          .units = la_units)
