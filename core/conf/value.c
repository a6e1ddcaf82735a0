/* SPDX-License-Identifier: Apache-2.0 */
/* One value: from a node of the tree, or from a row's default, into a member of
 * the filled struct.  All messages about types and ranges are made here, so
 * they sound alike for every section and every module; limit.c has the words for
 * what is allowed, expand.c and secret.c what becomes of strings. */
#include "conf/impl.h"

#include <string.h>

#include "base/near.h"
#include "base/str.h"
#include "base/units.h"

pd_status conf_no_memory(struct pd_conf_report *report)
{
    report->out_of_memory = true;
    return PD_ENOMEM;
}

static pd_status wrong_type(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node)
{
    return CONF_BAD(ctx, node, "option \"%s\"%s must be %s, not %s", row->name, ctx->where, conf_type_expect(row),
               conf_node_type_text(node));
}

static pd_status out_of_range(struct conf_ctx *ctx, const struct pd_option *row,
                              const struct pd_conf_node *node, const char *value)
{
    char range[96];
    return CONF_BAD(ctx, node, "option \"%s\"%s is %s, allowed: %s", row->name, ctx->where, value,
               conf_range_text(row, range, sizeof range));
}

/* --- integers of any width --- */

int64_t conf_int_get(const struct pd_option *row, const void *member)
{
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t i64 = 0;
    /* A greatest value above the signed one tells that the member has no sign. */
    bool is_unsigned = row->width < 8 && row->max > ((int64_t)1 << (row->width * 8 - 1)) - 1;
    switch (row->width) {
    case 1:
        memcpy(&i8, member, 1);
        return is_unsigned ? (int64_t)(uint8_t)i8 : i8;
    case 2:
        memcpy(&i16, member, 2);
        return is_unsigned ? (int64_t)(uint16_t)i16 : i16;
    case 4:
        memcpy(&i32, member, 4);
        return is_unsigned ? (int64_t)(uint32_t)i32 : i32;
    default:
        memcpy(&i64, member, 8);
        return i64;
    }
}

static void int_put(const struct pd_option *row, void *member, int64_t v)
{
    uint8_t u8 = (uint8_t)v;
    uint16_t u16 = (uint16_t)v;
    uint32_t u32 = (uint32_t)v;
    switch (row->width) {
    case 1:
        memcpy(member, &u8, 1);
        break;
    case 2:
        memcpy(member, &u16, 2);
        break;
    case 4:
        memcpy(member, &u32, 4);
        break;
    default:
        memcpy(member, &v, 8);
    }
}

static pd_status set_int(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                         int64_t v, void *member)
{
    char text[32];
    struct pd_option limited = *row;
    if (row->width < 8 && row->max == 0)
        limited.max = ((int64_t)1 << (row->width * 8 - 1)) - 1;
    if (!conf_in_range(&limited, v)) {
        snprintf(text, sizeof text, "%lld", (long long)v);
        return out_of_range(ctx, &limited, node, text);
    }
    int_put(row, member, v);
    return PD_OK;
}

static pd_status set_number(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                            double v, void *member)
{
    char text[48];
    if (!(v >= row->lo) || (row->hi != 0 && v > row->hi)) {
        snprintf(text, sizeof text, "%g", v);
        return out_of_range(ctx, row, node, text);
    }
    memcpy(member, &v, sizeof v);
    return PD_OK;
}

static pd_status set_unit_text(struct conf_ctx *ctx, const struct pd_option *row,
                               const struct pd_conf_node *node, const char *text, void *member)
{
    uint64_t v = 0;
    char shown[PD_UNITS_TEXT + 64];
    struct pd_err err = { 0 };
    struct pd_str s = pd_str_from(text);
    pd_status st = row->type == PD_OPT_T_SIZE ? pd_units_parse_bytes(s, &v, &err)
                                              : pd_units_parse_duration(s, &v, &err);
    if (st != PD_OK)
        return CONF_BAD(ctx, node, "option \"%s\"%s is \"%s\", which is no %s\n%s", row->name, ctx->where, text,
                   row->type == PD_OPT_T_SIZE ? "size" : "duration", err.text);
    if (v > (uint64_t)INT64_MAX || !conf_in_range(row, (int64_t)v)) {
        snprintf(shown, sizeof shown, "\"%.60s\"", text);
        return out_of_range(ctx, row, node, shown);
    }
    memcpy(member, &v, sizeof v);
    return PD_OK;
}

/* --- strings --- */

static pd_status set_string(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                            const char *text, void *member)
{
    if (text[0] == '\0' && (row->flags & PD_OPT_NONEMPTY) != 0)
        return CONF_BAD(ctx, node, "option \"%s\"%s must not be empty", row->name, ctx->where);
    if ((row->flags & PD_OPT_PATH) != 0) {
        text = conf_path_complete(ctx, text);
        if (text == NULL)
            return conf_no_memory(ctx->report);
    }
    memcpy(member, &text, sizeof text);
    return PD_OK;
}

/* --- words of a list --- */

static pd_status find_name(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                           const char *word, uint64_t *out)
{
    struct pd_near near;
    pd_near_init(&near, word);
    char known[256] = "";
    size_t n = 0;
    for (const struct pd_option_name *e = row->names; e->name != NULL; e++) {
        if (strcmp(e->name, word) == 0) {
            *out = e->value;
            return PD_OK;
        }
        pd_near_try(&near, e->name);
        n = pd_str_addf(known, sizeof known, n, "%s\"%s\"", n == 0 ? "" : ", ", e->name);
    }
    const char *best = pd_near_best(&near);
    if (best != NULL)
        return CONF_BAD(ctx, node, "option \"%s\"%s does not know \"%s\" (did you mean \"%s\"?)\nknown: %s",
                   row->name, ctx->where, word, best, known);
    return CONF_BAD(ctx, node, "option \"%s\"%s does not know \"%s\"\nknown: %s", row->name, ctx->where, word,
               known);
}

static void put_bits(const struct pd_option *row, void *member, uint64_t v)
{
    uint32_t v32 = (uint32_t)v;
    if (row->width == 4)
        memcpy(member, &v32, 4);
    else
        memcpy(member, &v, 8);
}

static pd_status set_enum(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                          const char *word, void *member)
{
    uint64_t v;
    pd_status st = find_name(ctx, row, node, word, &v);
    if (st == PD_OK)
        put_bits(row, member, v);
    return st;
}

/* Strings of a node ("a", [ "a" ] or ( "a" )), expanded, into an array in the
 * arena. */
static pd_status node_strings(struct conf_ctx *ctx, const struct pd_option *row,
                              const struct pd_conf_node *node, struct pd_conf_strings *out)
{
    const struct pd_conf_node *item = node->type == NODE_STRING ? node : node->first;
    uint32_t n = node->type == NODE_STRING ? 1 : node->count;
    if (node->type != NODE_STRING && node->type != NODE_ARRAY && node->type != NODE_LIST)
        return wrong_type(ctx, row, node);
    const char **items = pd_arena_calloc(&ctx->conf->arena, (size_t)n + 1, sizeof *items);
    if (items == NULL)
        return conf_no_memory(ctx->report);
    for (uint32_t i = 0; i < n; i++, item = item->next) {
        bool used;
        if (item->type != NODE_STRING)
            return wrong_type(ctx, row, item);
        pd_status st = conf_expand(ctx, item, item->u.s, &items[i], &used);
        if (st != PD_OK)
            return st;
        if (items[i][0] == '\0' && (row->flags & PD_OPT_NONEMPTY) != 0)
            return CONF_BAD(ctx, item, "option \"%s\"%s has an empty string in it", row->name, ctx->where);
        if ((row->flags & PD_OPT_PATH) != 0)
            items[i] = conf_path_complete(ctx, items[i]);
        if (items[i] == NULL)
            return conf_no_memory(ctx->report);
    }
    out->items = items;
    out->count = n;
    return PD_OK;
}

/* "a, b" of a default. */
static pd_status default_strings(struct conf_ctx *ctx, const struct pd_option *row, const char *text,
                                 struct pd_conf_strings *out)
{
    struct pd_str rest = pd_str_from(text), part;
    size_t n = 0, max = 1;
    for (const char *p = text; *p != '\0'; p++)
        max += *p == ',';
    const char **items = pd_arena_calloc(&ctx->conf->arena, max + 1, sizeof *items);
    if (items == NULL)
        return conf_no_memory(ctx->report);
    while (text[0] != '\0' && pd_str_split(&rest, ',', &part)) {
        struct pd_str copy;
        if (pd_arena_str(&ctx->conf->arena, pd_str_trim(part), &copy) != PD_OK)
            return conf_no_memory(ctx->report);
        items[n] = copy.p;
        if ((row->flags & PD_OPT_PATH) != 0 && (items[n] = conf_path_complete(ctx, copy.p)) == NULL)
            return conf_no_memory(ctx->report);
        n++;
    }
    out->items = items;
    out->count = n;
    return PD_OK;
}

static pd_status set_strings(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                             const struct pd_conf_strings *list, void *member)
{
    uint64_t max = row->max != 0 ? (uint64_t)row->max : CONF_STRINGS_MAX;
    if ((row->flags & PD_OPT_NONEMPTY) != 0 && list->count == 0)
        return CONF_BAD(ctx, node, "option \"%s\"%s must not be empty", row->name, ctx->where);
    if (list->count < (uint64_t)row->min || list->count > max)
        return CONF_BAD(ctx, node, "option \"%s\"%s has %llu members, allowed: %lld to %llu", row->name, ctx->where,
                   (unsigned long long)list->count, (long long)row->min, (unsigned long long)max);
    if (row->type == PD_OPT_T_STRING_LIST) {
        memcpy(member, list, sizeof *list);
        return PD_OK;
    }
    uint64_t bits = 0;
    for (uint64_t i = 0; i < list->count; i++) {
        uint64_t v;
        pd_status st = find_name(ctx, row, node, list->items[i], &v);
        if (st != PD_OK)
            return st;
        bits |= v;
    }
    put_bits(row, member, bits);
    return PD_OK;
}

/* --- the two ways in --- */

static pd_status set_from_node(struct conf_ctx *ctx, const struct pd_option *row,
                               const struct pd_conf_node *node, void *member)
{
    const char *text = NULL;
    bool expanded = false;
    struct pd_conf_strings list;
    pd_status st;
    bool wants_text = row->type == PD_OPT_T_STRING || row->type == PD_OPT_T_SIZE ||
                      row->type == PD_OPT_T_DURATION || row->type == PD_OPT_T_ENUM;
    if (wants_text) {
        if (node->type != NODE_STRING)
            return wrong_type(ctx, row, node);
        st = conf_expand(ctx, node, node->u.s, &text, &expanded);
        if (st != PD_OK)
            return st;
    }
    switch (row->type) {
    case PD_OPT_T_BOOL:
        if (node->type != NODE_BOOL)
            return wrong_type(ctx, row, node);
        memcpy(member, &node->u.b, sizeof node->u.b);
        return PD_OK;
    case PD_OPT_T_INT:
        return node->type != NODE_INT ? wrong_type(ctx, row, node)
                                      : set_int(ctx, row, node, node->u.i, member);
    case PD_OPT_T_NUMBER:
        if (node->type == NODE_INT)
            return set_number(ctx, row, node, (double)node->u.i, member);
        return node->type != NODE_FLOAT ? wrong_type(ctx, row, node)
                                        : set_number(ctx, row, node, node->u.d, member);
    case PD_OPT_T_STRING:
        if ((row->flags & PD_OPT_SECRET) != 0)
            return conf_secret_set(ctx, row, node, text, expanded, member);
        return set_string(ctx, row, node, text, member);
    case PD_OPT_T_SIZE:
    case PD_OPT_T_DURATION:
        return set_unit_text(ctx, row, node, text, member);
    case PD_OPT_T_ENUM:
        return set_enum(ctx, row, node, text, member);
    case PD_OPT_T_FLAGS:
    case PD_OPT_T_STRING_LIST:
        st = node_strings(ctx, row, node, &list);
        return st != PD_OK ? st : set_strings(ctx, row, node, &list, member);
    default:
        return PD_EINVAL;
    }
}

static pd_status set_from_default(struct conf_ctx *ctx, const struct pd_option *row, void *member)
{
    struct pd_conf_node at = { .type = NODE_STRING, .place = { ctx->conf->file, 0, 0 } };
    const char *def = row->def;
    struct pd_conf_strings list;
    int64_t i;
    double d;
    bool b;
    pd_status st;
    switch (row->type) {
    case PD_OPT_T_BOOL:
        if (pd_str_parse_bool(pd_str_from(def), &b) != PD_OK)
            break;
        memcpy(member, &b, sizeof b);
        return PD_OK;
    case PD_OPT_T_INT:
        if (pd_str_parse_i64(pd_str_from(def), &i) != PD_OK)
            break;
        return set_int(ctx, row, &at, i, member);
    case PD_OPT_T_NUMBER:
        if (pd_str_parse_double(pd_str_from(def), &d) != PD_OK)
            break;
        return set_number(ctx, row, &at, d, member);
    case PD_OPT_T_STRING:
        return set_string(ctx, row, &at, def, member);
    case PD_OPT_T_SIZE:
    case PD_OPT_T_DURATION:
        return set_unit_text(ctx, row, &at, def, member);
    case PD_OPT_T_ENUM:
        return set_enum(ctx, row, &at, def, member);
    case PD_OPT_T_FLAGS:
    case PD_OPT_T_STRING_LIST:
        st = default_strings(ctx, row, def, &list);
        return st != PD_OK ? st : set_strings(ctx, row, &at, &list, member);
    default:
        break;
    }
    return CONF_BAD(ctx, &at, "default \"%s\" of option \"%s\"%s is not %s", def, row->name, ctx->where,
               conf_type_expect(row));
}

pd_status conf_value_set(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                         void *base)
{
    char *member = (char *)base + row->offset;
    if (node == NULL)
        return row->def == NULL ? PD_OK : set_from_default(ctx, row, member);
    pd_status st = set_from_node(ctx, row, node, member);
    if (st == PD_OK)
        conf_origin_add(ctx, row, member, node,
                        (row->flags & PD_OPT_SECRET) != 0 ? node->u.s : NULL, false);
    return st;
}
