/* SPDX-License-Identifier: Apache-2.0 */
/* A picker that works, for test modules that are wrong in something else. */
#ifndef PD_T_PICKER_H
#define PD_T_PICKER_H

#include <pdplane/scheduler.h>

static inline pd_status t_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_picker **out,
                                 struct pd_err *err)
{
    (void)conf;
    (void)err;
    *out = (struct pd_picker *)(uintptr_t)ctx;
    return PD_OK;
}

static inline void t_destroy(struct pd_picker *picker)
{
    (void)picker;
}

static inline uint32_t t_pick(struct pd_picker *picker, const struct pd_sched_request *request,
                              const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                              uint32_t k, uint32_t *index)
{
    (void)picker;
    (void)request;
    (void)candidates;
    (void)total;
    if (n == 0 || k == 0)
        return 0;
    index[0] = 0;
    return 1;
}

#define T_PICKER_OPS \
    { .head = PD_OPS(pd_picker_ops, PD_PICKER_V1), .create = t_create, .destroy = t_destroy, .pick = t_pick }

/* A module struct in which the test chooses the frozen prefix itself. */
#define T_MODULE(magic_, major_, minor_, size_, name_, units_) \
    PD_MODULE_HIDDEN const struct pd_host_api *pd_host_table; \
    extern PD_MODULE_EXPORT const struct pd_module pd_module; \
    PD_MODULE_EXPORT const struct pd_module pd_module = { \
        .magic = (magic_), .abi_major = (major_), .abi_minor = (minor_), .size = (size_), \
        .host = &pd_host_table, .name = (name_), .version = "1.0", \
        .summary = "Test module.", .units = (units_) };

#endif
