/* SPDX-License-Identifier: Apache-2.0 */
/* Picks the candidates with the highest totals.  Equal ones are equally likely:
 * among the m best of the same total seen so far, the m-th replaces the one
 * held with the chance 1/m. */
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct pd_picker {
    int unused;                 /* it has no state */
};

static pd_status ms_create(const struct pd_instance_ctx *ctx, const void *conf,
                           struct pd_picker **out, struct pd_err *err)
{
    struct pd_picker *picker = calloc(1, sizeof *picker);

    (void)ctx;
    (void)conf;
    if (picker == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    *out = picker;
    return PD_OK;
}

static void ms_destroy(struct pd_picker *picker)
{
    free(picker);
}

/* SplitMix64: as many random numbers from a request's bits as are needed. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static bool is_taken(const uint32_t *index, uint32_t n, uint32_t i)
{
    for (uint32_t k = 0; k < n; k++) {
        if (index[k] == i)
            return true;
    }
    return false;
}

static uint32_t ms_pick(struct pd_picker *picker, const struct pd_sched_request *request,
                        const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                        uint32_t k, uint32_t *index)
{
    uint64_t random = request->random + request->roles;
    uint32_t picked = 0;

    (void)picker;
    (void)candidates;
    for (; picked < k && picked < n; picked++) {
        uint32_t best = n;
        uint64_t equal = 0;
        for (uint32_t i = 0; i < n; i++) {
            if ((best < n && total[i] < total[best]) || is_taken(index, picked, i))
                continue;
            equal = best < n && total[i] == total[best] ? equal + 1 : 1;
            if (equal == 1 || next_random(&random) % equal == 0)
                best = i;
        }
        index[picked] = best;
    }
    return picked;
}

static const struct pd_picker_ops ms_ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
    .create = ms_create, .destroy = ms_destroy, .pick = ms_pick,
};

static const char *const ms_aliases[] = { "max-score-picker", "max", NULL };

static const struct pd_unit ms_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "max_score", .ops = &ms_ops.head, .aliases = ms_aliases,
            .summary = "Picks the endpoint with the highest total."),
    PD_UNIT_END
};

PD_MODULE(.name = "max_score", .version = "1.0", .summary = "Picks the highest total.",
          .units = ms_units)
