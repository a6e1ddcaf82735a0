/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: Picks one of the best endpoints by chance. */
#include <stdlib.h>

#include <pdplane/scheduler.h>

struct @NAME@_conf {           /* filled from the rows below */
    uint32_t among;
};

struct pd_picker {              /* an instance */
    const struct @NAME@_conf *conf;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_INT("among", struct @NAME@_conf, among, "2", .min = 1, .max = 64, .unit = "endpoints",
               .help = "The first is picked among so many of the best."),
    PD_OPT_END
};

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_picker **out, struct pd_err *err)
{
    struct pd_picker *p = malloc(sizeof *p);

    (void)ctx;
    if (p == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    p->conf = conf;             /* stays until destroy has returned */
    *out = p;
    return PD_OK;
}

static void @NAME@_destroy(struct pd_picker *p)
{
    free(p);
}

static int is_used(const uint32_t *index, uint32_t n, uint32_t i)
{
    for (uint32_t k = 0; k < n; k++)
        if (index[k] == i)
            return 1;
    return 0;
}

/* Writes up to k distinct indices, best first, and returns how many. */
static uint32_t @NAME@_pick(struct pd_picker *p, const struct pd_sched_request *request,
                            const struct pd_endpoint_view *candidates, const double *total,
                            uint32_t n, uint32_t k, uint32_t *index)
{
    uint32_t got = 0;

    (void)candidates;
    while (got < k && got < n) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            if (is_used(index, got, i))
                continue;
            if (best == n || !(total[i] <= total[best]))
                best = i;
        }
        index[got++] = best;
    }
    if (got > 1) {
        uint32_t among = p->conf->among < got ? p->conf->among : got;
        uint32_t at = (uint32_t)(request->random % among), first = index[at];
        index[at] = index[0];
        index[0] = first;
    }
    return got;
}

static const struct pd_picker_ops @NAME@_ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
    .create = @NAME@_create, .destroy = @NAME@_destroy, .pick = @NAME@_pick,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Picks one of the best endpoints by chance."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Picks one of the best endpoints by chance.",
          .units = @NAME@_units)
