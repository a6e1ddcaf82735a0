/* SPDX-License-Identifier: Apache-2.0 */
/* A picker that cannot pick. */
#include "picker.h"

static const struct pd_picker_ops ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1), .create = t_create, .destroy = t_destroy
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "missing_op", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

PD_MODULE(.name = "missing_op", .version = "1.0", .summary = "Test module.", .units = units)
