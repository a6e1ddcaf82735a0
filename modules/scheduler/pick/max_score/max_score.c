/* SPDX-License-Identifier: Apache-2.0 */
/* Picks the candidates with the highest totals.  Equal ones are equally likely: one
 * pass counts the best, chance says which of them, a second pass finds it. */
#include <pdplane/scheduler.h>

#include "picker.h"

/* One of those with the highest total that are not taken yet. */
static uint32_t pick_one(const double *total, uint32_t n, const uint32_t *index, uint32_t picked,
                         uint64_t *random)
{
    uint32_t best = n, equal = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (best < n && total[i] < total[best])
            continue;
        if (picked > 0 && is_taken(index, picked, i))
            continue;
        equal = best < n && total[i] == total[best] ? equal + 1 : 1;
        if (equal == 1)
            best = i;
    }
    if (equal == 1)
        return best;
    uint64_t skip = next_random(random) % equal;
    for (uint32_t i = best; i < n; i++) {
        if (total[i] == total[best] && !(picked > 0 && is_taken(index, picked, i)) && skip-- == 0)
            return i;
    }
    return best;
}

static uint32_t ms_pick(struct pd_picker *picker, const struct pd_sched_request *request,
                        const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                        uint32_t k, uint32_t *index)
{
    uint64_t random = request->random + request->roles;
    uint32_t picked = 0;

    (void)picker;
    (void)candidates;
    for (; picked < k && picked < n; picked++)
        index[picked] = pick_one(total, n, index, picked, &random);
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
