/* SPDX-License-Identifier: Apache-2.0 */
/* What a row allows, tested and in words; for messages and for references alike. */
#include "conf/impl.h"

#include <stdio.h>

#include "base/units.h"

bool conf_in_range(const struct pd_option *row, int64_t value)
{
    return value >= row->min && (row->max == 0 || value <= row->max);
}

static const char *limit_text(const struct pd_option *row, int64_t value, char out[PD_UNITS_TEXT])
{
    if (row->type == PD_OPT_T_SIZE)
        return pd_units_print_bytes((uint64_t)value, out);
    if (row->type == PD_OPT_T_DURATION)
        return pd_units_print_duration((uint64_t)value, out);
    snprintf(out, PD_UNITS_TEXT, "%lld", (long long)value);
    return out;
}

const char *conf_range_text(const struct pd_option *row, char *out, size_t size)
{
    char a[PD_UNITS_TEXT], b[PD_UNITS_TEXT];
    const char *unit = row->unit != NULL ? row->unit : "";
    const char *gap = row->unit != NULL ? " " : "";
    out[0] = '\0';
    if (row->type == PD_OPT_T_NUMBER) {
        if (row->hi != 0)
            snprintf(out, size, "%g to %g%s%s", row->lo, row->hi, gap, unit);
        else
            snprintf(out, size, "at least %g%s%s", row->lo, gap, unit);
    } else if (row->type == PD_OPT_T_INT || row->type == PD_OPT_T_SIZE || row->type == PD_OPT_T_DURATION) {
        if (row->max != 0)
            snprintf(out, size, "%s to %s%s%s", limit_text(row, row->min, a), limit_text(row, row->max, b),
                     gap, unit);
        else if (row->min > INT64_MIN)
            snprintf(out, size, "at least %s%s%s", limit_text(row, row->min, a), gap, unit);
    }
    return out;
}

const char *conf_type_expect(const struct pd_option *row)
{
    switch (row->type) {
    case PD_OPT_T_BOOL:
        return "true or false";
    case PD_OPT_T_INT:
        return "an integer";
    case PD_OPT_T_NUMBER:
        return "a number";
    case PD_OPT_T_STRING:
        return "a string";
    case PD_OPT_T_SIZE:
        return "a size in quotes such as \"512m\"";
    case PD_OPT_T_DURATION:
        return "a duration in quotes such as \"250ms\"";
    case PD_OPT_T_ENUM:
        return "one of the known words in quotes";
    case PD_OPT_T_FLAGS:
    case PD_OPT_T_STRING_LIST:
        return "strings such as [ \"a\", \"b\" ]";
    case PD_OPT_T_GROUP:
    case PD_OPT_T_UNIT_MAP:
        return "a group { }";
    case PD_OPT_T_GROUP_LIST:
        return "a list of groups such as ( { }, { } )";
    case PD_OPT_T_UNIT:
        return "the name of a module's unit in quotes";
    default:
        return "nothing";
    }
}
