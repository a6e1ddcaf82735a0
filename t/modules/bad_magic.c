/* SPDX-License-Identifier: Apache-2.0 */
/* The first four bytes are not ours. */
#include "picker.h"

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "bad_magic", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

T_MODULE(0x12345678u, PD_ABI_MAJOR, PD_ABI_MINOR, (uint32_t)sizeof(struct pd_module), "bad_magic", units)
