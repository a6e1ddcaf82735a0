/* SPDX-License-Identifier: Apache-2.0 */
/* Score by number of requests: those that the endpoint reported as running and
 * waiting, and those that were sent from here since that report, so that a
 * burst between two reports does not go to one place.  The emptiest candidate
 * gets 1, the fullest 0, all 1 when they are equal. */
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct pd_scorer {
    int unused;                 /* it has no state */
};

static pd_status ll_create(const struct pd_instance_ctx *ctx, const void *conf,
                           struct pd_scorer **out, struct pd_err *err)
{
    struct pd_scorer *scorer = calloc(1, sizeof *scorer);

    (void)ctx;
    (void)conf;
    if (scorer == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    *out = scorer;
    return PD_OK;
}

static void ll_destroy(struct pd_scorer *scorer)
{
    free(scorer);
}

/* An endpoint with the weight 200 is as full with two requests as one of 100
 * with one. */
static double load_of(const struct pd_endpoint_view *view)
{
    double requests = (double)view->running + view->waiting + view->dispatched;
    return requests * 100.0 / (view->weight == 0 ? 100.0 : view->weight);
}

static void ll_score(struct pd_scorer *scorer, const struct pd_sched_request *request,
                     const struct pd_endpoint_view *candidates, uint32_t n, double *score)
{
    double low = 0;
    double high = 0;

    (void)scorer;
    (void)request;
    for (uint32_t i = 0; i < n; i++) {
        double load = load_of(&candidates[i]);
        score[i] = load;
        low = i == 0 || load < low ? load : low;
        high = i == 0 || load > high ? load : high;
    }
    for (uint32_t i = 0; i < n; i++)
        score[i] = high > low ? (high - score[i]) / (high - low) : 1;
}

static const struct pd_scorer_ops ll_ops = {
    .head = PD_OPS(pd_scorer_ops, PD_SCORER_V1),
    .create = ll_create, .destroy = ll_destroy, .score = ll_score,
    .flags = PD_SCORER_NO_AGE,
};

static const struct pd_unit ll_units[] = {
    PD_UNIT(.kind = PD_KIND_SCORER, .name = "least_loaded", .ops = &ll_ops.head,
            .summary = "Prefers endpoints with few requests."),
    PD_UNIT_END
};

PD_MODULE(.name = "least_loaded", .version = "1.0", .summary = "Scores endpoints by requests.",
          .units = ll_units)
