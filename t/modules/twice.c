/* SPDX-License-Identifier: Apache-2.0 */
/* Two units of one kind with one name. */
#include "picker.h"

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "twice", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "twice", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

PD_MODULE(.name = "twice", .version = "1.0", .summary = "Test module.", .units = units)
