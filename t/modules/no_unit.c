/* SPDX-License-Identifier: Apache-2.0 */
/* Provides nothing. */
#include "picker.h"

static const struct pd_unit units[] = {
    PD_UNIT_END
};

PD_MODULE(.name = "no_unit", .version = "1.0", .summary = "Test module.", .units = units)
