/* SPDX-License-Identifier: Apache-2.0 */
/* A kind that this core does not know. */
#include "picker.h"

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = 99, .name = "odd_kind", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

PD_MODULE(.name = "odd_kind", .version = "1.0", .summary = "Test module.", .units = units)
