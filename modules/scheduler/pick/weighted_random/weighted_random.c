/* SPDX-License-Identifier: Apache-2.0 */
/* Picks candidates by chance in proportion to their totals, without
 * replacement (A-Res): each gets the key U^(1/total) with U random in (0,1),
 * and the greatest keys win.  Candidates with a total of 0 or less come last;
 * when all have that, each is equally likely. */
#include <math.h>

#include <pdplane/scheduler.h>

#include "picker.h"

#define PICKS_MAX 16u

/* In (0,1), never an end. */
static double uniform(uint64_t *state)
{
    return ((double)(next_random(state) >> 11) + 0.5) / 9007199254740992.0;
}

/* Logarithms of the keys, which keep their order and do not underflow.  Those
 * without weight follow behind all others, by chance. */
static double key_of(double total, double u)
{
    return total > 0 ? log(u) / total : -1e300 * (1 + u);
}

static uint32_t wr_pick(struct pd_picker *picker, const struct pd_sched_request *request,
                        const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                        uint32_t k, uint32_t *index)
{
    uint64_t random = request->random + request->roles;
    double keys[PICKS_MAX];
    uint32_t picked = 0;

    (void)picker;
    (void)candidates;
    k = k < PICKS_MAX ? k : PICKS_MAX;
    for (uint32_t i = 0; i < n && k > 0; i++) {
        double key = key_of(total[i], uniform(&random));
        if (picked == k && key <= keys[k - 1])
            continue;
        uint32_t at = picked < k ? picked++ : k - 1;
        for (; at > 0 && keys[at - 1] < key; at--) {
            keys[at] = keys[at - 1];
            index[at] = index[at - 1];
        }
        keys[at] = key;
        index[at] = i;
    }
    return picked;
}

static const struct pd_picker_ops wr_ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
    .create = picker_create, .destroy = picker_destroy, .pick = wr_pick,
    .flags = PD_PICKER_NO_AGE,
};

static const char *const wr_aliases[] = { "weighted-random-picker", NULL };

static const struct pd_unit wr_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "weighted_random", .ops = &wr_ops.head,
            .aliases = wr_aliases, .summary = "Picks endpoints by chance, weighted by total."),
    PD_UNIT_END
};

PD_MODULE(.name = "weighted_random", .version = "1.0",
          .summary = "Picks endpoints by chance, weighted by total.", .units = wr_units)
