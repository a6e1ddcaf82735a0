/* SPDX-License-Identifier: Apache-2.0 */
/* An option row whose default is out of its range. */
#include "picker.h"

struct bad_conf {
    int64_t start;
};

static const struct pd_option options[] = {
    PD_OPT_INT("start", struct bad_conf, start, "9", .max = 3, .help = "Where to start."),
    PD_OPT_END
};

static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "bad_rows", .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct bad_conf), .summary = "Test unit."),
    PD_UNIT_END
};

PD_MODULE(.name = "bad_rows", .version = "1.0", .summary = "Test module.", .units = units)
