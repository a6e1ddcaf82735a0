/* SPDX-License-Identifier: Apache-2.0 */
/* Built for an ABI that is no longer spoken. */
#include "picker.h"

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "old_major", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

T_MODULE(PD_MODULE_MAGIC, PD_ABI_MAJOR - 1, 7, (uint32_t)sizeof(struct pd_module), "old_major", units)
