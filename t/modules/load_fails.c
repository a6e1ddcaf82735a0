/* SPDX-License-Identifier: Apache-2.0 */
/* Its load() finds that something it needs is missing. */
#include <stdio.h>

#include "picker.h"

static pd_status refuse(struct pd_err *err)
{
    err->status = PD_ENOENT;
    snprintf(err->text, sizeof err->text, "no accelerator in this machine");
    snprintf(err->hint, sizeof err->hint, "install one");
    return PD_ENOENT;
}

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "load_fails", .ops = &ops.head, .summary = "Test unit."),
    PD_UNIT_END
};

PD_MODULE(.name = "load_fails", .version = "1.0", .summary = "Test module.", .units = units, .load = refuse)
