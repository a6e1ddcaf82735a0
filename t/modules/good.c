/* SPDX-License-Identifier: Apache-2.0 */
/* A module with nothing wrong: the loader must take it, with all its options. */
#include <stdio.h>

#include "picker.h"

struct good_conf {
    int64_t start;
    uint64_t window;
    pd_time pause;
    const char *label;
    const char *token;
    double ratio;
    bool flag;
};

static const struct pd_option good_options[] = {
    PD_OPT_INT("start", struct good_conf, start, "0", .max = 1024, .unit = "endpoints",
               .help = "Index of the first endpoint to use."),
    PD_OPT_SIZE("window", struct good_conf, window, "4k", .min = 1024, .help = "Bytes to look at."),
    PD_OPT_DURATION("pause", struct good_conf, pause, "250ms", .help = "Time between two looks."),
    PD_OPT_STRING("label", struct good_conf, label, NULL, .help = "Shown in tables."),
    PD_OPT_STRING("token", struct good_conf, token, NULL, .flags = PD_OPT_SECRET, .help = "For the other side."),
    PD_OPT_BOOL("flag", struct good_conf, flag, "true", .help = "Whether to do it."),
    PD_OPT_NUMBER("ratio", struct good_conf, ratio, "0.5", .hi = 1, .help = "Part of all."),
    PD_OPT_END
};

static pd_status good_check(const void *conf, struct pd_err *err)
{
    const struct good_conf *c = conf;
    if (c->start != 13)
        return PD_OK;
    err->status = PD_EINVAL;
    snprintf(err->text, sizeof err->text, "picker \"good\" does not start at 13");
    return PD_EINVAL;
}

static const char *const aliases[] = { "good-picker", NULL };
static const struct pd_picker_ops ops = T_PICKER_OPS;

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "good", .ops = &ops.head, .options = good_options,
            .conf_size = sizeof(struct good_conf), .summary = "Picks the first.", .aliases = aliases,
            .check = good_check),
    PD_UNIT_END
};

PD_MODULE(.name = "good", .version = "1.2", .summary = "A good module.", .units = units)
