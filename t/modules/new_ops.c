/* SPDX-License-Identifier: Apache-2.0 */
/* A version of the kind that this core does not know. */
#include "picker.h"

static const struct pd_picker_ops ops = {
    .head = { (uint32_t)sizeof(struct pd_picker_ops), PD_PICKER_V1 + 1 }, .create = t_create,
    .destroy = t_destroy, .pick = t_pick
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "new_ops", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

PD_MODULE(.name = "new_ops", .version = "1.0", .summary = "Test module.", .units = units)
