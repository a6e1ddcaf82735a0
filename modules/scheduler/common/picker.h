/* SPDX-License-Identifier: Apache-2.0 */
/* What the pickers without state share.  A module is one file, so everything
 * here is inline. */
#ifndef PD_MODULES_SCHEDULER_COMMON_PICKER_H
#define PD_MODULES_SCHEDULER_COMMON_PICKER_H

#include <stdlib.h>

#include <pdplane/scheduler.h>

struct pd_picker {
    int unused;                 /* it has no state */
};

static inline pd_status picker_create(const struct pd_instance_ctx *ctx, const void *conf,
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

static inline void picker_destroy(struct pd_picker *picker)
{
    free(picker);
}

/* SplitMix64: as many random numbers from a request's bits as are needed. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline bool is_taken(const uint32_t *index, uint32_t n, uint32_t i)
{
    for (uint32_t k = 0; k < n; k++) {
        if (index[k] == i)
            return true;
    }
    return false;
}

#endif
