/* SPDX-License-Identifier: Apache-2.0 */
/* Its load() does what it must not. */
#include <signal.h>

#include "picker.h"

static pd_status crash(struct pd_err *err)
{
    (void)err;
    raise(SIGKILL);
    return PD_OK;
}

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "load_crashes", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

PD_MODULE(.name = "load_crashes", .version = "1.0", .summary = "Test module.", .units = units, .load = crash)
