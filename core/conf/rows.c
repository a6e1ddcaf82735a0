/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a table of rows is sane.  Rows come from modules that were compiled
 * elsewhere, so the loader asks here before anything is filled with them; the
 * rows of the core are checked by a test. */
#include "conf/impl.h"

#include <stdarg.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

#define ROWS_MAX 256u
#define ROWS_DEPTH_MAX 8u
#define CONF_SIZE_MAX ((uint64_t)1 << 20)

static pd_status check_table(const struct pd_option *rows, uint64_t size, uint32_t depth, struct pd_err *err);

#define BAD(err, row, ...) bad_row(err, row, __VA_ARGS__)

static pd_status bad_row(struct pd_err *err, const struct pd_option *row, const char *fmt, ...) PD_PRINTF(3, 4);

static pd_status bad_row(struct pd_err *err, const struct pd_option *row, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return pd_err_set(err, PD_EINVAL, "option row \"%.64s\" %s", row->name, text);
}

static bool is_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && s[n] == '\0' && n <= 64 && s[0] >= 'a';
}

static uint32_t width_of(const struct pd_option *row)
{
    switch (row->type) {
    case PD_OPT_T_BOOL:
        return sizeof(bool);
    case PD_OPT_T_NUMBER:
        return sizeof(double);
    case PD_OPT_T_STRING:
        return sizeof(char *);
    case PD_OPT_T_SIZE:
    case PD_OPT_T_DURATION:
        return sizeof(uint64_t);
    case PD_OPT_T_ENUM:
        return sizeof(uint32_t);
    case PD_OPT_T_STRING_LIST:
        return sizeof(struct pd_conf_strings);
    case PD_OPT_T_GROUP_LIST:
    case PD_OPT_T_UNIT_MAP:
        return sizeof(struct pd_conf_list);
    case PD_OPT_T_UNIT:
        return sizeof(struct pd_conf_unit);
    case PD_OPT_T_PLACE:
        return sizeof(struct pd_conf_place);
    case PD_OPT_T_GROUP:
        return (row->flags & PD_OPT_POINTER) != 0 ? (uint32_t)sizeof(void *) : (uint32_t)row->item_size;
    default:
        return 0;
    }
}

static pd_status check_width(const struct pd_option *row, uint64_t size, struct pd_err *err)
{
    uint32_t w = row->width;
    bool fits;
    if (row->type == PD_OPT_T_INT)
        fits = w == 1 || w == 2 || w == 4 || w == 8;
    else if (row->type == PD_OPT_T_FLAGS)
        fits = w == 4 || w == 8;
    else
        fits = w == width_of(row);
    if (!fits)
        return BAD(err, row, "fills a member of %u bytes, which does not fit its type", w);
    if ((uint64_t)row->offset + w > size)
        return BAD(err, row, "lies outside of the struct");
    return PD_OK;
}

static pd_status check_limits(const struct pd_option *row, struct pd_err *err)
{
    if (row->max != 0 && row->min > row->max)
        return BAD(err, row, "has a least value above the greatest");
    if (row->type == PD_OPT_T_NUMBER && row->hi != 0 && row->lo > row->hi)
        return BAD(err, row, "has a least value above the greatest");
    if (row->type == PD_OPT_T_INT && row->width < 8 && row->max >= (int64_t)1 << (row->width * 8))
        return BAD(err, row, "allows more than its member holds");
    if ((row->type == PD_OPT_T_SIZE || row->type == PD_OPT_T_DURATION || row->type >= PD_OPT_T_FLAGS) &&
        row->min < 0)
        return BAD(err, row, "has a negative least value");
    return PD_OK;
}

static pd_status check_default(const struct pd_option *row, struct pd_err *err)
{
    struct pd_conf conf = { .file = "default" };
    struct pd_conf_report report;
    union {
        struct pd_conf_strings strings;
        uint64_t words[8];
    } member = { .words = { 0 } };
    struct pd_option at_zero = *row;
    if (row->def == NULL || row->type >= PD_OPT_T_GROUP)
        return PD_OK;
    at_zero.offset = 0;
    pd_arena_init(&conf.arena, 1024, (size_t)1 << 20);
    pd_conf_report_init(&report);
    struct conf_ctx ctx = { .conf = &conf, .report = &report, .where = "" };
    pd_status st = conf_value_set(&ctx, &at_zero, NULL, &member);
    if (st != PD_OK)
        st = BAD(err, row, "has a bad default: %s", report.n_errors > 0 ? report.errors[0].text : "no memory");
    pd_conf_report_fini(&report);
    pd_arena_fini(&conf.arena);
    return st;
}

static pd_status check_row(const struct pd_option *row, uint64_t size, uint32_t depth, struct pd_err *err)
{
    if (row->type == PD_OPT_T_PLACE)
        return check_width(row, size, err);
    if (!is_name(row->name))
        return BAD(err, row, "has an illegal name; allowed are a to z, 0 to 9 and _");
    if (row->type == PD_OPT_T_ALIAS)
        return row->alias == NULL ? BAD(err, row, "is an alias of nothing") : PD_OK;
    if (row->type == PD_OPT_T_END || row->type > PD_OPT_T_PLACE)
        return BAD(err, row, "has the unknown type %u", row->type);
    if (row->help == NULL || row->help[0] == '\0')
        return BAD(err, row, "has no help text");
    if ((row->type == PD_OPT_T_ENUM || row->type == PD_OPT_T_FLAGS) && row->names == NULL)
        return BAD(err, row, "knows no words");
    if ((row->flags & PD_OPT_SECRET) != 0 && (row->type != PD_OPT_T_STRING || row->def != NULL))
        return BAD(err, row, "is a secret, so it must be a string without a default");
    if ((row->type == PD_OPT_T_UNIT || row->type == PD_OPT_T_UNIT_MAP) && row->kinds == 0)
        return BAD(err, row, "names no kind of unit");
    bool nests = row->type == PD_OPT_T_GROUP || row->type == PD_OPT_T_GROUP_LIST;
    if (nests && (row->rows == NULL || row->item_size == 0 || row->item_size > CONF_SIZE_MAX))
        return BAD(err, row, "is a group without rows or size");
    pd_status st = check_width(row, size, err);
    if (st == PD_OK)
        st = check_limits(row, err);
    if (st == PD_OK)
        st = check_default(row, err);
    if (st == PD_OK && nests)
        st = check_table(row->rows, row->item_size, depth + 1, err);
    return st;
}

static pd_status check_unique(const struct pd_option *rows, const struct pd_option *row, struct pd_err *err)
{
    bool target = row->type != PD_OPT_T_ALIAS;
    if (row->type == PD_OPT_T_PLACE)
        return PD_OK;
    for (const struct pd_option *r = rows; r->name != NULL; r++) {
        if (r < row && r->type != PD_OPT_T_PLACE && strcmp(r->name, row->name) == 0)
            return BAD(err, row, "stands there twice");
        if (!target && r->type != PD_OPT_T_ALIAS && strcmp(r->name, row->alias) == 0)
            target = true;
    }
    return target ? PD_OK : BAD(err, row, "is an alias of \"%.64s\", which does not exist", row->alias);
}

static pd_status check_table(const struct pd_option *rows, uint64_t size, uint32_t depth, struct pd_err *err)
{
    uint32_t n = 0;
    if (depth > ROWS_DEPTH_MAX)
        return pd_err_set(err, PD_EINVAL, "option rows are nested more than %u levels deep", ROWS_DEPTH_MAX);
    for (const struct pd_option *r = rows; r->name != NULL; r++) {
        if (++n > ROWS_MAX)
            return pd_err_set(err, PD_EINVAL, "more than %u option rows, or PD_OPT_END is missing", ROWS_MAX);
        pd_status st = check_row(r, size, depth, err);
        if (st == PD_OK)
            st = check_unique(rows, r, err);
        if (st != PD_OK)
            return st;
    }
    return PD_OK;
}

pd_status pd_conf_rows_check(const struct pd_option *rows, uint64_t conf_size, struct pd_err *err)
{
    if (rows == NULL)
        return PD_OK;
    if (conf_size == 0 || conf_size > CONF_SIZE_MAX)
        return pd_err_set(err, PD_EINVAL, "option rows fill a struct of %llu bytes, allowed: 1 to %llu",
                          (unsigned long long)conf_size, (unsigned long long)CONF_SIZE_MAX);
    return check_table(rows, conf_size, 0, err);
}
