/* SPDX-License-Identifier: Apache-2.0 */
/* Picks candidates by chance, each equally likely, without looking at totals. */
#include <pdplane/scheduler.h>

#include "picker.h"

/* Floyd's sampling, then a shuffle, because the first one counts most. */
static uint32_t rnd_pick(struct pd_picker *picker, const struct pd_sched_request *request,
                         const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                         uint32_t k, uint32_t *index)
{
    uint64_t random = request->random + request->roles;
    uint32_t picked = 0;

    (void)picker;
    (void)candidates;
    (void)total;
    k = k < n ? k : n;
    for (uint32_t top = n - k; top < n; top++) {
        uint32_t i = (uint32_t)(next_random(&random) % ((uint64_t)top + 1));
        index[picked] = is_taken(index, picked, i) ? top : i;
        picked++;
    }
    for (uint32_t i = picked; i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(&random) % i);
        uint32_t other = index[j];
        index[j] = index[i - 1];
        index[i - 1] = other;
    }
    return picked;
}

static const struct pd_picker_ops rnd_ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
    .create = picker_create, .destroy = picker_destroy, .pick = rnd_pick,
    .flags = PD_PICKER_NO_AGE,
};

static const char *const rnd_aliases[] = { "random-picker", NULL };

static const struct pd_unit rnd_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "random", .ops = &rnd_ops.head, .aliases = rnd_aliases,
            .summary = "Picks endpoints by chance."),
    PD_UNIT_END
};

PD_MODULE(.name = "random", .version = "1.0", .summary = "Picks endpoints by chance.",
          .units = rnd_units)
