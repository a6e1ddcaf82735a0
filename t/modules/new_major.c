/* SPDX-License-Identifier: Apache-2.0 */
/* Built for an ABI that is not spoken yet. */
#include "picker.h"

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "new_major", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

T_MODULE(PD_MODULE_MAGIC, PD_ABI_MAJOR + 1, 0, (uint32_t)sizeof(struct pd_module), "new_major", units)
