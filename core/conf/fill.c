/* SPDX-License-Identifier: Apache-2.0 */
/* From the tree to structs: walks rows and nodes side by side.
 *
 * A group may be described by several tables of rows: the section's own, and
 * those of each unit that one of its keys names.  Every table takes what it
 * knows from the group; a key that no table knows is an error. */
#include "conf/impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/near.h"
#include "conf/fill.h"

#define TABLES_MAX 8u

struct table {
    const struct pd_option *rows;
    void *base;
    struct pd_conf_found found;     /* name NULL: the section's own rows */
};

struct group {
    const struct pd_conf_node *node; /* NULL: everything is default */
    bool must;                      /* required rows must be there */
    struct pd_conf_place place;
    struct table tables[TABLES_MAX];
    uint32_t n_tables;
};

static pd_status fill_group(struct conf_ctx *ctx, struct group *g);

#define BAD(ctx, at, ...) pd_conf_error((ctx)->report, (at).file, (at).line, __VA_ARGS__)

/* --- where: the part of messages that names the group --- */

static const char *item_name(const struct pd_conf_node *node)
{
    const struct pd_conf_node *name = conf_node_child(node, "name");
    return name != NULL && name->type == NODE_STRING ? name->u.s : NULL;
}

/* index: of a list item from 0, or -1. */
static const char *where_of(struct conf_ctx *ctx, const char *key, const struct pd_conf_node *node, int64_t index)
{
    struct pd_arena *a = &ctx->conf->arena;
    const char *outer = ctx->where[0] != '\0' ? ctx->where + strlen(" in ") : NULL;
    const char *name = index >= 0 && node != NULL ? item_name(node) : NULL;
    const char *label;
    if (name != NULL)
        label = pd_arena_printf(a, " in %s \"%s\"", key, name);
    else if (index >= 0)
        label = pd_arena_printf(a, " in %s number %lld", key, (long long)index + 1);
    else
        label = pd_arena_printf(a, " in \"%s\"", key);
    if (label != NULL && outer != NULL)
        label = pd_arena_printf(a, "%s of %s", label, outer);
    return label == NULL ? "" : label;
}

/* --- origins --- */

void conf_origin_add(struct conf_ctx *ctx, const struct pd_option *row, const void *member,
                     const struct pd_conf_node *node, const char *raw, bool raw_is_file)
{
    struct pd_conf *conf = ctx->conf;
    if (conf->n_origins == conf->cap_origins) {
        size_t cap = conf->cap_origins == 0 ? 64 : conf->cap_origins * 2;
        struct conf_origin *o = pd_realloc_array(conf->origins, cap, sizeof *o);
        if (o == NULL) {
            conf_no_memory(ctx->report);
            return;
        }
        conf->origins = o;
        conf->cap_origins = cap;
    }
    conf->origins[conf->n_origins++] = (struct conf_origin){ member, row, node->place, raw, raw_is_file };
}

static int origin_cmp(const void *a, const void *b)
{
    const struct conf_origin *x = a, *y = b;
    uintptr_t mx = (uintptr_t)x->member, my = (uintptr_t)y->member;
    if (mx != my)
        return mx < my ? -1 : 1;
    uintptr_t rx = (uintptr_t)x->row, ry = (uintptr_t)y->row;
    return rx < ry ? -1 : rx > ry;
}

void conf_origins_sort(struct pd_conf *conf)
{
    if (conf->n_origins > 1)
        qsort(conf->origins, conf->n_origins, sizeof *conf->origins, origin_cmp);
}

const struct conf_origin *conf_origin_find(const struct pd_conf *conf, const struct pd_option *row,
                                           const void *member)
{
    uintptr_t m = (uintptr_t)member;
    size_t lo = 0, hi = conf->n_origins;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((uintptr_t)conf->origins[mid].member < m)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < conf->n_origins && (uintptr_t)conf->origins[lo].member == m; lo++) {
        if (row == NULL || conf->origins[lo].row == row)
            return &conf->origins[lo];
    }
    return NULL;
}

/* --- keys that nobody knows --- */

static bool is_secret_file(const struct pd_option *row, const char *key)
{
    size_t n = strlen(row->name);
    return (row->flags & PD_OPT_SECRET) != 0 && strncmp(key, row->name, n) == 0 &&
           strcmp(key + n, "_file") == 0;
}

static bool table_knows(const struct pd_option *rows, const char *key)
{
    for (const struct pd_option *r = rows; r != NULL && r->name != NULL; r++) {
        if (r->type != PD_OPT_T_PLACE && (strcmp(r->name, key) == 0 || is_secret_file(r, key)))
            return true;
    }
    return false;
}

/* The path of the group in which key would be right, as words; false: nowhere. */
static bool right_place(const struct pd_option *rows, const char *key, const char *path, uint32_t depth,
                        char *out, size_t size)
{
    if (table_knows(rows, key)) {
        snprintf(out, size, "%s%s%s", path[0] == '\0' ? "at the top level" : "in \"", path,
                 path[0] == '\0' ? "" : "\"");
        return true;
    }
    for (const struct pd_option *r = rows; depth < CONF_DEPTH_MAX && r != NULL && r->name != NULL; r++) {
        char inner[160];
        if (r->rows == NULL)
            continue;
        snprintf(inner, sizeof inner, "%s%s%s", path, path[0] == '\0' ? "" : ".", r->name);
        if (right_place(r->rows, key, inner, depth + 1, out, size))
            return true;
    }
    return false;
}

static void unknown_key(struct conf_ctx *ctx, const struct group *g, const struct pd_conf_node *node)
{
    char place[200];
    struct pd_near near;
    pd_near_init(&near, node->name);
    for (uint32_t t = 0; t < g->n_tables; t++) {
        for (const struct pd_option *r = g->tables[t].rows; r != NULL && r->name != NULL; r++) {
            if (r->type != PD_OPT_T_PLACE)
                pd_near_try(&near, r->name);
        }
    }
    const char *best = pd_near_best(&near);
    bool elsewhere = right_place(ctx->conf->rows, node->name, "", 0, place, sizeof place);
    const char *where = ctx->where[0] == '\0' ? " at the top level" : ctx->where;
    if (best != NULL && (near.distance == 1 || !elsewhere))
        BAD(ctx, node->place, "unknown option \"%s\"%s (did you mean \"%s\"?)", node->name, where, best);
    else if (elsewhere)
        BAD(ctx, node->place, "option \"%s\" does not belong%s, it belongs %s", node->name, where, place);
    else
        BAD(ctx, node->place, "unknown option \"%s\"%s\npdplane -O lists all options", node->name, where);
}

/* --- rows --- */

/* The node that gives this row its value: under its name or an old one. */
static const struct pd_conf_node *row_node(struct conf_ctx *ctx, const struct group *g,
                                           const struct table *t, const struct pd_option *row)
{
    if (g->node == NULL)
        return NULL;
    const struct pd_conf_node *node = conf_node_child(g->node, row->name);
    for (const struct pd_option *r = t->rows; r->name != NULL; r++) {
        if (r->type != PD_OPT_T_ALIAS || strcmp(r->alias, row->name) != 0)
            continue;
        const struct pd_conf_node *old = conf_node_child(g->node, r->name);
        if (old == NULL)
            continue;
        if (node != NULL)
            BAD(ctx, old->place, "option \"%s\"%s is another name of \"%s\", which is given at %s:%u",
                r->name, ctx->where, row->name, node->place.file, node->place.line);
        else if ((r->flags & PD_OPT_QUIET) == 0)
            pd_conf_warn(ctx->report, old->place.file, old->place.line,
                         "option \"%s\"%s is an old name\nwrite \"%s\"", r->name, ctx->where, row->name);
        if (node == NULL)
            node = old;
    }
    return node;
}

static pd_status push_unit(struct conf_ctx *ctx, struct group *g, const struct pd_conf_found *found,
                           struct pd_conf_place place, struct pd_conf_unit *unit)
{
    if (g->n_tables == TABLES_MAX)
        return BAD(ctx, place, "more than %u units in one group", TABLES_MAX - 1);
    void *conf = NULL;
    if (found->conf_size > 0) {
        conf = pd_arena_calloc(&ctx->conf->arena, 1, (size_t)found->conf_size);
        if (conf == NULL)
            return conf_no_memory(ctx->report);
    }
    *unit = (struct pd_conf_unit){ .name = found->name, .unit = found->unit, .conf = conf,
                                   .rows = found->rows, .place = place };
    g->tables[g->n_tables++] = (struct table){ found->rows, conf, *found };
    return PD_OK;
}

static pd_status resolve(struct conf_ctx *ctx, uint64_t kinds, const char *name, struct pd_conf_place at,
                         struct pd_conf_found *found)
{
    struct pd_err err = { 0 };
    if (ctx->resolver == NULL)
        return BAD(ctx, at, "\"%s\"%s cannot be looked up before modules are loaded", name, ctx->where);
    pd_status st = ctx->resolver->find(ctx->resolver->arg, kinds, name, found, &err);
    if (st != PD_OK && err.text[0] != '\0')
        pd_conf_report_add(ctx->report, &err, at.file, at.line);
    return st;
}

static pd_status fill_unit(struct conf_ctx *ctx, struct group *g, const struct pd_option *row,
                           const struct pd_conf_node *node, struct pd_conf_unit *unit)
{
    const char *name = row->def;
    bool used;
    struct pd_conf_found found;
    struct pd_conf_place at = node != NULL ? node->place : g->place;
    if (node != NULL) {
        if (node->type != NODE_STRING)
            return BAD(ctx, node->place, "option \"%s\"%s must be %s, not %s", row->name, ctx->where,
                       conf_type_expect(row), conf_node_type_text(node));
        if (conf_expand(ctx, node, node->u.s, &name, &used) != PD_OK)
            return PD_EINVAL;
        conf_origin_add(ctx, row, unit, node, NULL, false);
    }
    if (name == NULL)
        return PD_OK;
    pd_status st = resolve(ctx, row->kinds, name, at, &found);
    return st == PD_OK ? push_unit(ctx, g, &found, g->place, unit) : st;
}

/* One unit's own group: all of its rows and nothing else. */
static pd_status fill_unit_alone(struct conf_ctx *ctx, const struct pd_conf_found *found,
                                 const struct pd_conf_node *node, struct pd_conf_unit *unit)
{
    struct group g = { .node = node, .must = true, .place = { ctx->conf->file, 0, 0 } };
    struct conf_ctx inner = *ctx;
    if (node != NULL)
        g.place = node->place;
    inner.where = where_of(ctx, found->name, NULL, -1);
    pd_status st = push_unit(&inner, &g, found, g.place, unit);
    return st == PD_OK ? fill_group(&inner, &g) : st;
}

static pd_status fill_unit_map(struct conf_ctx *ctx, const struct pd_option *row,
                               const struct pd_conf_node *node, struct pd_conf_list *list)
{
    struct pd_conf_found found;
    size_t n = 0, max = 0;
    if (node != NULL && node->type != NODE_GROUP)
        return BAD(ctx, node->place, "option \"%s\"%s must be %s, not %s", row->name, ctx->where,
                   conf_type_expect(row), conf_node_type_text(node));
    if (ctx->resolver == NULL)
        return PD_EINVAL;
    while (ctx->resolver->each(ctx->resolver->arg, row->kinds, max, &found))
        max++;
    struct pd_conf_unit *units = pd_arena_calloc(&ctx->conf->arena, max + 1, sizeof *units);
    if (units == NULL)
        return conf_no_memory(ctx->report);
    struct conf_ctx inner = *ctx;
    inner.where = where_of(ctx, row->name, NULL, -1);
    for (const struct pd_conf_node *c = node != NULL ? node->first : NULL; c != NULL; c = c->next) {
        bool twice = false;
        if (resolve(&inner, row->kinds, c->name, c->place, &found) != PD_OK)
            continue;
        for (size_t i = 0; i < n; i++)
            twice = twice || units[i].unit == found.unit;
        if (twice)
            BAD(&inner, c->place, "unit \"%s\"%s is given twice", found.name, inner.where);
        else if (c->type != NODE_GROUP)
            BAD(&inner, c->place, "option \"%s\"%s must be a group { }, not %s", c->name, inner.where,
                conf_node_type_text(c));
        else if (n < max)
            fill_unit_alone(&inner, &found, c, &units[n++]);
    }
    size_t written = n;
    for (size_t i = 0; n < max && ctx->resolver->each(ctx->resolver->arg, row->kinds, i, &found); i++) {
        bool seen = false;
        for (size_t k = 0; k < written; k++)
            seen = seen || units[k].unit == found.unit;
        if (!seen)
            fill_unit_alone(&inner, &found, NULL, &units[n++]);
    }
    *list = (struct pd_conf_list){ units, n, sizeof *units };
    return PD_OK;
}

static pd_status fill_nested(struct conf_ctx *ctx, const struct pd_option *row,
                             const struct pd_conf_node *node, void *base, bool must, int64_t index)
{
    struct group g = { .node = node, .must = must, .place = { ctx->conf->file, 0, 0 } };
    struct conf_ctx inner = *ctx;
    if (node != NULL)
        g.place = node->place;
    inner.where = where_of(ctx, row->name, node, index);
    g.tables[0] = (struct table){ .rows = row->rows, .base = base };
    g.n_tables = 1;
    return fill_group(&inner, &g);
}

static pd_status fill_one_group(struct conf_ctx *ctx, const struct pd_option *row,
                                const struct pd_conf_node *node, void *member)
{
    if (node != NULL && node->type != NODE_GROUP)
        return BAD(ctx, node->place, "option \"%s\"%s must be %s, not %s", row->name, ctx->where,
                   conf_type_expect(row), conf_node_type_text(node));
    if ((row->flags & PD_OPT_POINTER) != 0) {
        void *base;
        if (node == NULL)
            return PD_OK;
        base = pd_arena_calloc(&ctx->conf->arena, 1, (size_t)row->item_size);
        if (base == NULL)
            return conf_no_memory(ctx->report);
        memcpy(member, &base, sizeof base);
        member = base;
    }
    return fill_nested(ctx, row, node, member, node != NULL, -1);
}

/* No two groups of a list may agree in a row that is marked unique. */
static void check_unique(struct conf_ctx *ctx, const struct pd_option *list_row, const struct pd_option *row,
                         const struct pd_conf_list *list, const struct pd_conf_node *first)
{
    struct pd_strmap seen;
    pd_strmap_init(&seen, CONF_LIST_MAX, 0);
    for (uint64_t i = 0; i < list->count && first != NULL; i++, first = first->next) {
        const char *value;
        memcpy(&value, (const char *)list->items + i * list->stride + row->offset, sizeof value);
        if (value == NULL)
            continue;
        struct pd_str key = { value, strlen(value) };
        const struct pd_conf_node *other = pd_strmap_get(&seen, key);
        if (other != NULL) {
            BAD(ctx, first->place, "%s with %s \"%s\" is given a second time (first at %s:%u)",
                list_row->name, row->name, value, other->place.file, other->place.line);
        } else if (pd_strmap_add(&seen, key, (void *)(uintptr_t)first) != PD_OK) {
            conf_no_memory(ctx->report);
            break;
        }
    }
    pd_strmap_fini(&seen);
}

static pd_status fill_list(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                           struct pd_conf_list *out)
{
    uint64_t max = row->max != 0 ? (uint64_t)row->max : CONF_LIST_MAX;
    if (node == NULL)
        return PD_OK;
    if (node->type == NODE_GROUP)
        return BAD(ctx, node->place, "option \"%s\"%s must be a list of groups, not a group"
                   "\nput ( ) around it: %s = ( { } );", row->name, ctx->where, row->name);
    if (node->type != NODE_LIST && !(node->type == NODE_ARRAY && node->count == 0))
        return BAD(ctx, node->place, "option \"%s\"%s must be %s, not %s", row->name, ctx->where,
                   conf_type_expect(row), conf_node_type_text(node));
    if (node->count > max || node->count < (uint64_t)row->min)
        return BAD(ctx, node->place, "option \"%s\"%s has %u members, allowed: %lld to %llu", row->name,
                   ctx->where, node->count, (long long)row->min, (unsigned long long)max);
    char *items = pd_arena_calloc(&ctx->conf->arena, (size_t)node->count + 1, (size_t)row->item_size);
    if (items == NULL)
        return conf_no_memory(ctx->report);
    uint64_t i = 0;
    for (const struct pd_conf_node *c = node->first; c != NULL; c = c->next, i++) {
        if (c->type != NODE_GROUP)
            BAD(ctx, c->place, "member %llu of option \"%s\"%s must be a group { }, not %s",
                (unsigned long long)i + 1, row->name, ctx->where, conf_node_type_text(c));
        else
            fill_nested(ctx, row, c, items + i * row->item_size, true, (int64_t)i);
    }
    *out = (struct pd_conf_list){ items, node->count, row->item_size };
    for (const struct pd_option *r = row->rows; r->name != NULL; r++) {
        if ((r->flags & PD_OPT_UNIQUE) != 0 && r->type == PD_OPT_T_STRING)
            check_unique(ctx, row, r, out, node->first);
    }
    return PD_OK;
}

static pd_status fill_secret(struct conf_ctx *ctx, const struct group *g, const struct pd_option *row,
                             const struct pd_conf_node **node, void *base)
{
    char key[160];
    snprintf(key, sizeof key, "%s_file", row->name);
    const struct pd_conf_node *file = g->node != NULL ? conf_node_child(g->node, key) : NULL;
    if (file == NULL)
        return PD_EDECLINED;
    if (*node != NULL)
        return BAD(ctx, file->place, "\"%s\" and \"%s\"%s exclude each other", row->name, key, ctx->where);
    *node = file;
    return conf_secret_file(ctx, row, file, base);
}

static pd_status fill_row(struct conf_ctx *ctx, struct group *g, uint32_t table_index,
                          const struct pd_option *row)
{
    struct table *t = &g->tables[table_index];
    char *member = (char *)t->base + row->offset;
    if (row->type == PD_OPT_T_ALIAS)
        return PD_OK;
    if (row->type == PD_OPT_T_PLACE) {
        memcpy(member, &g->place, sizeof g->place);
        return PD_OK;
    }
    const struct pd_conf_node *node = row_node(ctx, g, t, row);
    pd_status st = PD_EDECLINED;
    if ((row->flags & PD_OPT_SECRET) != 0)
        st = fill_secret(ctx, g, row, &node, t->base);
    if (node == NULL && (row->flags & PD_OPT_REQUIRED) != 0 && g->must)
        return BAD(ctx, g->place, "option \"%s\" is missing%s\nit is %s", row->name,
                   ctx->where[0] != '\0' ? ctx->where : " at the top level", conf_type_expect(row));
    if (st != PD_EDECLINED)
        return st;
    switch (row->type) {
    case PD_OPT_T_GROUP:
        return fill_one_group(ctx, row, node, member);
    case PD_OPT_T_GROUP_LIST:
        return fill_list(ctx, row, node, (struct pd_conf_list *)(void *)member);
    case PD_OPT_T_UNIT:
        return fill_unit(ctx, g, row, node, (struct pd_conf_unit *)(void *)member);
    case PD_OPT_T_UNIT_MAP:
        return fill_unit_map(ctx, row, node, (struct pd_conf_list *)(void *)member);
    default:
        return conf_value_set(ctx, row, node, t->base);
    }
}

static pd_status fill_group(struct conf_ctx *ctx, struct group *g)
{
    uint64_t before = ctx->report->total_errors;
    bool unit_failed = false;
    for (uint32_t t = 0; t < g->n_tables; t++) {
        for (const struct pd_option *r = g->tables[t].rows; r != NULL && r->name != NULL; r++) {
            pd_status st = fill_row(ctx, g, t, r);
            unit_failed = unit_failed || (r->type == PD_OPT_T_UNIT && st != PD_OK);
        }
    }
    for (const struct pd_conf_node *c = g->node != NULL ? g->node->first : NULL; c != NULL; c = c->next) {
        bool known = false;
        for (uint32_t t = 0; t < g->n_tables; t++)
            known = known || table_knows(g->tables[t].rows, c->name);
        /* Keys of a unit that was not found cannot be judged. */
        if (!known && !unit_failed)
            unknown_key(ctx, g, c);
    }
    for (uint32_t t = 0; t < g->n_tables; t++) {
        struct table *table = &g->tables[t];
        struct pd_err err = { 0 };
        if (table->found.check != NULL && ctx->report->total_errors == before &&
            table->found.check(table->base, &err) != PD_OK)
            pd_conf_report_add(ctx->report, &err, g->place.file, g->place.line);
    }
    return ctx->report->total_errors == before ? PD_OK : PD_EINVAL;
}

pd_status conf_fill_root(struct conf_ctx *ctx, const struct pd_option *rows, void *base)
{
    struct group g = { .node = ctx->conf->root, .must = true, .place = { ctx->conf->file, 0, 0 } };
    g.tables[0] = (struct table){ .rows = rows, .base = base };
    g.n_tables = 1;
    return fill_group(ctx, &g);
}

pd_status conf_fill_single(struct conf_ctx *ctx, const struct pd_option *row, void *base)
{
    struct group g = { .node = ctx->conf->root, .must = false, .place = { ctx->conf->file, 0, 0 } };
    const struct pd_option one[] = { *row, PD_OPT_END };
    uint64_t before = ctx->report->total_errors;
    if (row->type == PD_OPT_T_UNIT || row->type == PD_OPT_T_UNIT_MAP)
        return PD_EINVAL;
    g.tables[0] = (struct table){ .rows = one, .base = base };
    g.n_tables = 1;
    fill_row(ctx, &g, 0, &one[0]);
    return ctx->report->total_errors == before ? PD_OK : PD_EINVAL;
}
