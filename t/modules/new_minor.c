/* SPDX-License-Identifier: Apache-2.0 */
/* Needs something that was added after this core. */
#include "picker.h"

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "new_minor", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

T_MODULE(PD_MODULE_MAGIC, PD_ABI_MAJOR, PD_ABI_MINOR + 1, (uint32_t)sizeof(struct pd_module), "new_minor", units)
