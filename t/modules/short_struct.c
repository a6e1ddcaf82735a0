/* SPDX-License-Identifier: Apache-2.0 */
/* Its struct ends before what version 1.0 had. */
#include "picker.h"

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "short_struct", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

T_MODULE(PD_MODULE_MAGIC, PD_ABI_MAJOR, PD_ABI_MINOR, 16, "short_struct", units)
