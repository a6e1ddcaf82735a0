/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing two filled structs by their rows, for a reload that wants to keep
 * what did not change.  Places are not compared: moving a line changes nothing. */
#include "conf/impl.h"

#include <string.h>

static bool equal_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool equal_unit(const struct pd_conf_unit *a, const struct pd_conf_unit *b)
{
    return a->unit == b->unit && equal_text(a->name, b->name) && pd_conf_equal(a->rows, a->conf, b->conf);
}

static bool equal_list(const struct pd_option *row, const struct pd_conf_list *a, const struct pd_conf_list *b)
{
    if (a->count != b->count)
        return false;
    for (uint64_t i = 0; i < a->count; i++) {
        const char *x = (const char *)a->items + i * a->stride;
        const char *y = (const char *)b->items + i * b->stride;
        if (row->type == PD_OPT_T_UNIT_MAP
                ? !equal_unit((const struct pd_conf_unit *)(const void *)x,
                              (const struct pd_conf_unit *)(const void *)y)
                : !pd_conf_equal(row->rows, x, y))
            return false;
    }
    return true;
}

static bool equal_row(const struct pd_option *row, const void *a, const void *b)
{
    const char *s, *t;
    const void *p, *q;
    struct pd_conf_strings x, y;
    switch (row->type) {
    case PD_OPT_T_ALIAS:
    case PD_OPT_T_PLACE:
        return true;
    case PD_OPT_T_STRING:
        memcpy(&s, a, sizeof s);
        memcpy(&t, b, sizeof t);
        return equal_text(s, t);
    case PD_OPT_T_STRING_LIST:
        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        if (x.count != y.count)
            return false;
        for (uint64_t i = 0; i < x.count; i++) {
            if (!equal_text(x.items[i], y.items[i]))
                return false;
        }
        return true;
    case PD_OPT_T_GROUP:
        if ((row->flags & PD_OPT_POINTER) == 0)
            return pd_conf_equal(row->rows, a, b);
        memcpy(&p, a, sizeof p);
        memcpy(&q, b, sizeof q);
        return p == NULL || q == NULL ? p == q : pd_conf_equal(row->rows, p, q);
    case PD_OPT_T_GROUP_LIST:
    case PD_OPT_T_UNIT_MAP:
        return equal_list(row, a, b);
    case PD_OPT_T_UNIT:
        return equal_unit(a, b);
    default:
        return memcmp(a, b, row->width) == 0;
    }
}

bool pd_conf_equal(const struct pd_option *rows, const void *a, const void *b)
{
    if (rows == NULL || a == b)
        return true;
    for (const struct pd_option *r = rows; r->name != NULL; r++) {
        if (!equal_row(r, (const char *)a + r->offset, (const char *)b + r->offset))
            return false;
    }
    return true;
}
