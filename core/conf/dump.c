/* SPDX-License-Identifier: Apache-2.0 */
/* The effective configuration as text that pdplane reads back to the same
 * values: rows in their order, each with the place it came from.  A secret is
 * printed as the reference that was written, never as its value. */
#include "conf/impl.h"

#include <string.h>

#include "base/mem.h"
#include "base/units.h"

#define COMMENT_COLUMN 56
#define LINE_LIMIT ((size_t)1 << 20)

struct dump {
    const struct pd_conf *conf;
    FILE *out;
    uint32_t depth;
    struct pd_buf line;
    bool failed;                    /* a line could not be put together */
};

static void dump_rows(struct dump *d, const struct pd_option *rows, const void *base,
                      const struct pd_option *hidden_by);

static void begin(struct dump *d)
{
    pd_buf_clear(&d->line);
    for (uint32_t i = 0; i < d->depth; i++)
        pd_buf_append_cstr(&d->line, "  ");
}

static void end(struct dump *d, const char *comment)
{
    size_t n = d->line.n;
    if (d->line.status != PD_OK)
        d->failed = true;
    fwrite(d->line.p, 1, n, d->out);
    if (comment != NULL)
        fprintf(d->out, "%*s# %s", n < COMMENT_COLUMN ? (int)(COMMENT_COLUMN - n) : 1, "", comment);
    fputc('\n', d->out);
}

static void plain(struct dump *d, const char *text)
{
    begin(d);
    pd_buf_append_cstr(&d->line, text);
    end(d, NULL);
}

static const char *origin_text(const struct dump *d, const struct pd_option *row, const void *member,
                               char *out, size_t size)
{
    const struct conf_origin *o = conf_origin_find(d->conf, row, member);
    if (o == NULL)
        return "default";
    snprintf(out, size, "%s:%u", o->place.file, o->place.line);
    return out;
}

static void put_string(struct pd_buf *b, const char *s, bool keep_variables)
{
    pd_buf_append_char(b, '"');
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            pd_buf_appendf(b, "\\%c", c);
        else if (c == '\n')
            pd_buf_append_cstr(b, "\\n");
        else if (c < 0x20 || c == 0x7f)
            pd_buf_appendf(b, "\\x%02x", c);
        else if (c == '$' && s[1] == '{' && !keep_variables)
            pd_buf_append_cstr(b, "$$");
        else
            pd_buf_append_char(b, (char)c);
    }
    pd_buf_append_char(b, '"');
}

static void put_number(struct pd_buf *b, double v)
{
    char text[40];
    snprintf(text, sizeof text, "%.15g", v);
    double back = 0;
    if (sscanf(text, "%lf", &back) != 1 || back < v || back > v)
        snprintf(text, sizeof text, "%.17g", v);
    pd_buf_append_cstr(b, text);
    if (strpbrk(text, ".en") == NULL)
        pd_buf_append_cstr(b, ".0");
}

static uint64_t get_bits(const struct pd_option *row, const void *member)
{
    uint32_t v32 = 0;
    uint64_t v = 0;
    if (row->width == 4) {
        memcpy(&v32, member, 4);
        return v32;
    }
    memcpy(&v, member, 8);
    return v;
}

static void put_flags(struct pd_buf *b, const struct pd_option *row, uint64_t bits)
{
    const char *gap = " ";
    pd_buf_append_char(b, '[');
    for (const struct pd_option_name *e = row->names; e->name != NULL; e++) {
        if (e->value == 0 || (bits & e->value) != e->value)
            continue;
        pd_buf_appendf(b, "%s\"%s\"", gap, e->name);
        bits &= ~e->value;
        gap = ", ";
    }
    pd_buf_append_cstr(b, " ]");
}

static void put_value(struct pd_buf *b, const struct pd_option *row, const void *member)
{
    char text[PD_UNITS_TEXT];
    const char *s;
    uint64_t u = 0;
    double d;
    struct pd_conf_strings list;
    switch (row->type) {
    case PD_OPT_T_BOOL:
        pd_buf_append_cstr(b, *(const bool *)member ? "true" : "false");
        break;
    case PD_OPT_T_INT:
        pd_buf_appendf(b, "%lld", (long long)conf_int_get(row, member));
        break;
    case PD_OPT_T_NUMBER:
        memcpy(&d, member, sizeof d);
        put_number(b, d);
        break;
    case PD_OPT_T_STRING:
        memcpy(&s, member, sizeof s);
        put_string(b, s, false);
        break;
    case PD_OPT_T_SIZE:
    case PD_OPT_T_DURATION:
        memcpy(&u, member, sizeof u);
        pd_buf_appendf(b, "\"%s\"", row->type == PD_OPT_T_SIZE ? pd_units_print_bytes(u, text)
                                                                : pd_units_print_duration(u, text));
        break;
    case PD_OPT_T_ENUM:
        u = get_bits(row, member);
        for (const struct pd_option_name *e = row->names; e->name != NULL; e++) {
            if (e->value == u) {
                pd_buf_appendf(b, "\"%s\"", e->name);
                break;
            }
        }
        break;
    case PD_OPT_T_FLAGS:
        put_flags(b, row, get_bits(row, member));
        break;
    case PD_OPT_T_STRING_LIST:
        memcpy(&list, member, sizeof list);
        pd_buf_append_char(b, '[');
        for (uint64_t i = 0; i < list.count; i++) {
            pd_buf_append_cstr(b, i == 0 ? " " : ", ");
            put_string(b, list.items[i], false);
        }
        pd_buf_append_cstr(b, " ]");
        break;
    default:
        break;
    }
}

static void dump_unset(struct dump *d, const char *name)
{
    begin(d);
    pd_buf_appendf(&d->line, "# %s is not set", name);
    end(d, NULL);
}

static void dump_scalar(struct dump *d, const struct pd_option *row, const void *member)
{
    char where[400];
    const struct conf_origin *o = conf_origin_find(d->conf, row, member);
    if (o == NULL && row->def == NULL && row->type != PD_OPT_T_BOOL) {
        dump_unset(d, row->name);
        return;
    }
    begin(d);
    pd_buf_appendf(&d->line, "%s%s = ", row->name, o != NULL && o->raw_is_file ? "_file" : "");
    if (o != NULL && o->raw != NULL)
        put_string(&d->line, o->raw, !o->raw_is_file);
    else
        put_value(&d->line, row, member);
    pd_buf_append_char(&d->line, ';');
    end(d, origin_text(d, row, member, where, sizeof where));
}

static void dump_group(struct dump *d, const char *name, const struct pd_option *rows, const void *base)
{
    begin(d);
    pd_buf_appendf(&d->line, "%s = {", name);
    end(d, NULL);
    d->depth++;
    dump_rows(d, rows, base, NULL);
    d->depth--;
    plain(d, "};");
}

static void dump_list(struct dump *d, const struct pd_option *row, const struct pd_conf_list *list)
{
    if (list->count == 0) {
        dump_unset(d, row->name);
        return;
    }
    begin(d);
    pd_buf_appendf(&d->line, "%s = (", row->name);
    end(d, NULL);
    d->depth++;
    for (uint64_t i = 0; i < list->count; i++) {
        plain(d, "{");
        d->depth++;
        dump_rows(d, row->rows, (const char *)list->items + i * list->stride, NULL);
        d->depth--;
        plain(d, i + 1 < list->count ? "}," : "}");
    }
    d->depth--;
    plain(d, ");");
}

static void dump_unit_map(struct dump *d, const struct pd_option *row, const struct pd_conf_list *list)
{
    begin(d);
    pd_buf_appendf(&d->line, "%s = {", row->name);
    end(d, NULL);
    d->depth++;
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        dump_group(d, u->name, u->rows, u->conf);
    }
    d->depth--;
    plain(d, "};");
}

static void dump_unit(struct dump *d, const struct pd_option *row, const struct pd_option *rows,
                      const struct pd_conf_unit *unit)
{
    char where[400];
    if (unit->name == NULL) {
        dump_unset(d, row->name);
        return;
    }
    begin(d);
    pd_buf_appendf(&d->line, "%s = \"%s\";", row->name, unit->name);
    end(d, origin_text(d, row, unit, where, sizeof where));
    dump_rows(d, unit->rows, unit->conf, rows);
}

static bool has_row(const struct pd_option *rows, const char *name)
{
    for (; rows != NULL && rows->name != NULL; rows++) {
        if (rows->type != PD_OPT_T_PLACE && strcmp(rows->name, name) == 0)
            return true;
    }
    return false;
}

/* Rows that hidden_by has too were printed with it: both took the same value. */
static void dump_rows(struct dump *d, const struct pd_option *rows, const void *base,
                      const struct pd_option *hidden_by)
{
    for (const struct pd_option *r = rows; r != NULL && r->name != NULL; r++) {
        const char *member = (const char *)base + r->offset;
        const void *inner = member;
        if (r->type == PD_OPT_T_ALIAS || r->type == PD_OPT_T_PLACE || has_row(hidden_by, r->name))
            continue;
        switch (r->type) {
        case PD_OPT_T_GROUP:
            if ((r->flags & PD_OPT_POINTER) != 0)
                memcpy(&inner, member, sizeof inner);
            if (inner == NULL)
                dump_unset(d, r->name);
            else
                dump_group(d, r->name, r->rows, inner);
            break;
        case PD_OPT_T_GROUP_LIST:
            dump_list(d, r, (const struct pd_conf_list *)(const void *)member);
            break;
        case PD_OPT_T_UNIT:
            dump_unit(d, r, rows, (const struct pd_conf_unit *)(const void *)member);
            break;
        case PD_OPT_T_UNIT_MAP:
            dump_unit_map(d, r, (const struct pd_conf_list *)(const void *)member);
            break;
        default:
            dump_scalar(d, r, member);
        }
    }
}

pd_status pd_conf_dump(const struct pd_conf *conf, FILE *out)
{
    struct dump d = { .conf = conf, .out = out };
    if (!conf->complete)
        return PD_EINVAL;
    pd_buf_init(&d.line, LINE_LIMIT);
    fprintf(out, "# effective configuration, read from");
    for (uint32_t i = 0; i < conf->n_files; i++)
        fprintf(out, " %s", conf->files[i]);
    fputc('\n', out);
    dump_rows(&d, conf->rows, conf->filled, NULL);
    pd_buf_fini(&d.line);
    return d.failed ? PD_ENOMEM : PD_OK;
}
