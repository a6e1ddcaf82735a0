/* SPDX-License-Identifier: Apache-2.0 */
/* Picks candidates by chance, each equally likely, without looking at totals. */
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct pd_picker {
    int unused;                 /* it has no state */
};

static pd_status rnd_create(const struct pd_instance_ctx *ctx, const void *conf,
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

static void rnd_destroy(struct pd_picker *picker)
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

static bool is_taken(const uint32_t *index, uint32_t n, uint32_t i)
{
    for (uint32_t k = 0; k < n; k++) {
        if (index[k] == i)
            return true;
    }
    return false;
}

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
    .create = rnd_create, .destroy = rnd_destroy, .pick = rnd_pick,
};

static const char *const rnd_aliases[] = { "random-picker", NULL };

static const struct pd_unit rnd_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "random", .ops = &rnd_ops.head, .aliases = rnd_aliases,
            .summary = "Picks endpoints by chance."),
    PD_UNIT_END
};

PD_MODULE(.name = "random", .version = "1.0", .summary = "Picks endpoints by chance.",
          .units = rnd_units)
