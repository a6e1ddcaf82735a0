/* SPDX-License-Identifier: Apache-2.0 */
/* Filter by state.  Down and draining endpoints are dropped.  Suspect ones are
 * kept only where nothing better is left, so a doubt never empties the pool. */
#include <stdlib.h>

#include <pdplane/scheduler.h>

enum { SUSPECT_LAST = 1, SUSPECT_KEEP = 2, SUSPECT_DROP = 3 };

struct health_conf {
    uint32_t suspect;
};

struct pd_filter {
    uint32_t suspect;
};

static const struct pd_option_name suspect_names[] = {
    { "last", SUSPECT_LAST }, { "keep", SUSPECT_KEEP }, { "drop", SUSPECT_DROP }, { NULL, 0 }
};

static const struct pd_option health_options[] = {
    PD_OPT_ENUM("suspect", struct health_conf, suspect, "last", suspect_names,
                .help = "What to do with endpoints that missed heartbeats or failed lately: use "
                        "them when no other is left, like any other, or never."),
    PD_OPT_END
};

static pd_status health_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_filter **out, struct pd_err *err)
{
    const struct health_conf *c = conf;
    struct pd_filter *filter = malloc(sizeof *filter);

    (void)ctx;
    if (filter == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    filter->suspect = c->suspect;
    *out = filter;
    return PD_OK;
}

static void health_destroy(struct pd_filter *filter)
{
    free(filter);
}

static void health_apply(struct pd_filter *filter, const struct pd_sched_request *request,
                         const struct pd_endpoint_view *candidates, uint32_t n, uint8_t *keep)
{
    bool suspect = filter->suspect == SUSPECT_KEEP;

    (void)request;
    if (filter->suspect == SUSPECT_LAST) {
        suspect = true;
        for (uint32_t i = 0; i < n && suspect; i++)
            suspect = candidates[i].state != PD_ENDPOINT_UP;
    }
    for (uint32_t i = 0; i < n; i++)
        keep[i] = candidates[i].state == PD_ENDPOINT_UP ||
                  (suspect && candidates[i].state == PD_ENDPOINT_SUSPECT);
}

static const struct pd_filter_ops health_ops = {
    .head = PD_OPS(pd_filter_ops, PD_FILTER_V1),
    .create = health_create, .destroy = health_destroy, .apply = health_apply,
    .flags = PD_FILTER_STEADY,
};

static const struct pd_unit health_units[] = {
    PD_UNIT(.kind = PD_KIND_FILTER, .name = "health", .ops = &health_ops.head,
            .options = health_options, .conf_size = sizeof(struct health_conf),
            .summary = "Keeps endpoints that can take a request."),
    PD_UNIT_END
};

PD_MODULE(.name = "health", .version = "1.0", .summary = "Filters endpoints by state.",
          .units = health_units)
