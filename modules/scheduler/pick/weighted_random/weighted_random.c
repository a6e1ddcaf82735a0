/* SPDX-License-Identifier: Apache-2.0 */
/* Picks candidates by chance in proportion to their totals, without
 * replacement (A-Res): each gets the key U^(1/total) with U random in (0,1),
 * and the greatest keys win.  Candidates with a total of 0 or less come last;
 * when all have that, each is equally likely. */
#include <math.h>
#include <stdlib.h>

#include <pdplane/scheduler.h>

#define PICKS_MAX 16u

struct pd_picker {
    int unused;                 /* it has no state */
};

static pd_status wr_create(const struct pd_instance_ctx *ctx, const void *conf,
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

static void wr_destroy(struct pd_picker *picker)
{
    free(picker);
}

/* SplitMix64. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

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
    .create = wr_create, .destroy = wr_destroy, .pick = wr_pick,
};

static const char *const wr_aliases[] = { "weighted-random-picker", NULL };

static const struct pd_unit wr_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "weighted_random", .ops = &wr_ops.head,
            .aliases = wr_aliases, .summary = "Picks endpoints by chance, weighted by total."),
    PD_UNIT_END
};

PD_MODULE(.name = "weighted_random", .version = "1.0",
          .summary = "Picks endpoints by chance, weighted by total.", .units = wr_units)
