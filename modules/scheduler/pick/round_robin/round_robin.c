/* SPDX-License-Identifier: Apache-2.0 */
/* Picks endpoints in turn: the candidate with the next higher slot than the
 * one picked last, so that endpoints may come and go without others losing
 * their turn.  Each role that a profile looks for has a turn of its own. */
#include <stdlib.h>

#include <pdplane/scheduler.h>

#define TURNS 8u

struct pd_picker {
    uint32_t next[TURNS];       /* least slot to take, by role bits */
};

static pd_status rr_create(const struct pd_instance_ctx *ctx, const void *conf,
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

static void rr_destroy(struct pd_picker *picker)
{
    free(picker);
}

static uint32_t rr_pick(struct pd_picker *picker, const struct pd_sched_request *request,
                        const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                        uint32_t k, uint32_t *index)
{
    uint32_t *next = &picker->next[request->roles % TURNS];
    uint32_t first = n;
    uint32_t lowest = 0;
    uint32_t picked = 0;

    (void)total;
    /* Candidates need not stand in the order of their slots. */
    for (; picked < k && picked < n; picked++) {
        uint32_t from = picked == 0 ? *next : candidates[index[picked - 1]].slot + 1;
        first = n;
        lowest = n;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t slot = candidates[i].slot;
            if (slot >= from && (first == n || slot < candidates[first].slot))
                first = i;
            if (lowest == n || slot < candidates[lowest].slot)
                lowest = i;
        }
        index[picked] = first < n ? first : lowest;
    }
    if (picked > 0)
        *next = candidates[index[0]].slot + 1;
    return picked;
}

static const struct pd_picker_ops rr_ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
    .create = rr_create, .destroy = rr_destroy, .pick = rr_pick,
    .flags = PD_PICKER_NO_AGE,
};

static const struct pd_unit rr_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "round_robin", .ops = &rr_ops.head,
            .summary = "Picks endpoints in turn."),
    PD_UNIT_END
};

PD_MODULE(.name = "round_robin", .version = "1.0", .summary = "Picks endpoints in turn.",
          .units = rr_units)
