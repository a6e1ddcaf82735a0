/* SPDX-License-Identifier: Apache-2.0 */
/* Picks the candidates with the highest totals.  Equal ones are equally likely:
 * among the m best of the same total seen so far, the m-th replaces the one
 * held with the chance 1/m. */
#include <pdplane/scheduler.h>

#include "picker.h"

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
    .create = picker_create, .destroy = picker_destroy, .pick = ms_pick,
};

static const char *const ms_aliases[] = { "max-score-picker", "max", NULL };

static const struct pd_unit ms_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "max_score", .ops = &ms_ops.head, .aliases = ms_aliases,
            .summary = "Picks the endpoint with the highest total."),
    PD_UNIT_END
};

PD_MODULE(.name = "max_score", .version = "1.0", .summary = "Picks the highest total.",
          .units = ms_units)
