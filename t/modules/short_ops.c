/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that end before what version 1 had. */
#include "picker.h"

static const struct pd_picker_ops ops = {
    .head = { 16, PD_PICKER_V1 }, .create = t_create, .destroy = t_destroy, .pick = t_pick
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "short_ops", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

PD_MODULE(.name = "short_ops", .version = "1.0", .summary = "Test module.", .units = units)
