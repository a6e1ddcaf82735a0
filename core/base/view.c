/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for people and documents for programs from one description.  A text
 * table is kept until its end, because widths are known only then; JSON goes
 * out as it comes.  Cells of a row always follow the columns in their order, so
 * that a value stands under its title and beside its key. */
#include "base/view.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/compiler.h"
#include "base/str.h"
#include "base/units.h"
#include "base/utf8.h"

#define CELLS_MAX (8u << 20)

static const struct pd_view_column object_columns[] = {
    { NULL, "", 0 }, { NULL, "", PD_VIEW_WIDE }, { NULL, NULL, 0 }
};

void pd_view_init(struct pd_view *v, enum pd_view_format format, struct pd_buf *out)
{
    memset(v, 0, sizeof *v);
    v->out = out;
    v->is_json = format == PD_VIEW_JSON;
    pd_buf_init(&v->cells, CELLS_MAX);
    if (v->is_json) {
        pd_json_writer_init(&v->json, out);
        pd_json_begin_object(&v->json, NULL);
    }
}

pd_status pd_view_fini(struct pd_view *v)
{
    if (v->is_json) {
        pd_json_end(&v->json);
        pd_buf_append_char(v->out, '\n');
    }
    pd_buf_fini(&v->cells);
    return v->status == PD_OK ? v->out->status : v->status;
}

/* ---- text --------------------------------------------------------------------------- */

static bool in_text(const struct pd_view_column *c)
{
    return c->title != NULL;
}

static bool is_last(const struct pd_view_column *c)
{
    return c->key == NULL && c->title == NULL;
}

/* A copy that a terminal shows as one line of plain characters; returns how
 * many places it takes there. */
static uint32_t clean(struct pd_str s, size_t limit, struct pd_buf *out)
{
    uint32_t width = 0;
    size_t used = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t n = pd_utf8_decode(s.p + i, s.n - i, &cp);
        bool is_plain = n > 0 && cp >= 0x20 && !(cp >= 0x7f && cp < 0xa0) &&
                        !(cp >= 0x2028 && cp <= 0x202e) && !(cp >= 0x2066 && cp <= 0x2069);
        if (n == 0)
            n = 1;
        if (used + n > limit) {
            pd_buf_append_cstr(out, "...");
            return width + 3;
        }
        if (is_plain)
            pd_buf_append(out, s.p + i, n);
        else
            pd_buf_append_char(out, '?');
        used += n;
        i += n;
        width++;
    }
    return width;
}

static void cell(struct pd_view *v, struct pd_str s)
{
    const struct pd_view_column *c = &v->columns[v->column];
    uint32_t width = clean(s, (c->flags & PD_VIEW_WIDE) != 0 ? 4096 : PD_VIEW_CELL_MAX, &v->cells);
    pd_buf_append_char(&v->cells, '\0');
    v->width[v->column] = PD_MAX(v->width[v->column], width);
    if (!pd_str_is(s, "-"))
        v->filled |= 1u << v->column;
}

static uint32_t places(const char *s)
{
    uint32_t n = 0;
    for (; *s != '\0'; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void pad(struct pd_buf *out, uint32_t n)
{
    while (n-- > 0)
        pd_buf_append_char(out, ' ');
}

/* `last` is the last column that text shows: nothing is padded behind it. */
static void put_cell(struct pd_view *v, uint32_t i, uint32_t last, const char *text, bool is_first)
{
    const struct pd_view_column *c = &v->columns[i];
    uint32_t room = v->width[i] - PD_MIN(v->width[i], places(text));
    if (!is_first)
        pad(v->out, 2);
    if ((c->flags & PD_VIEW_RIGHT) != 0)
        pad(v->out, room);
    pd_buf_append_cstr(v->out, text);
    if ((c->flags & PD_VIEW_RIGHT) == 0 && i != last)
        pad(v->out, room);
}

/* Whether a column of a finished table is worth its place. */
static bool is_shown(const struct pd_view *v, uint32_t i)
{
    const struct pd_view_column *c = &v->columns[i];
    return in_text(c) && ((c->flags & PD_VIEW_SPARSE) == 0 || (v->filled >> i & 1) != 0);
}

static void print_table(struct pd_view *v)
{
    const char *at = v->cells.p;
    uint32_t first = UINT32_MAX, last = 0;
    for (uint32_t i = 0; !is_last(&v->columns[i]); i++) {
        if (!is_shown(v, i))
            continue;
        first = PD_MIN(first, i);
        last = i;
        v->width[i] = PD_MAX(v->width[i], places(v->columns[i].title));
    }
    for (uint32_t i = first; !v->is_object && i <= last; i++) {
        if (is_shown(v, i))
            put_cell(v, i, last, v->columns[i].title, i == first);
    }
    if (!v->is_object)
        pd_buf_append_char(v->out, '\n');
    for (uint32_t row = 0; row < v->rows; row++) {
        for (uint32_t i = 0; !is_last(&v->columns[i]); i++) {
            if (!in_text(&v->columns[i]))
                continue;
            if (is_shown(v, i))
                put_cell(v, i, last, at, i == first);
            at += strlen(at) + 1;
        }
        pd_buf_append_char(v->out, '\n');
    }
}

static void above(struct pd_view *v)
{
    if (v->has_text)
        pd_buf_append_char(v->out, '\n');
    v->has_text = true;
    if (v->heading != NULL)
        pd_buf_appendf(v->out, "%s\n", v->heading);
}

/* ---- structure -------------------------------------------------------------------------- */

static void begin(struct pd_view *v, const struct pd_view_column *columns, const char *heading,
                  const char *empty, bool is_object)
{
    v->columns = columns;
    v->heading = heading;
    v->empty = empty;
    v->is_object = is_object;
    v->rows = 0;
    v->column = 0;
    v->row_open = false;
    memset(v->width, 0, sizeof v->width);
    v->filled = 0;
    pd_buf_clear(&v->cells);
}

void pd_view_table(struct pd_view *v, const char *key, const char *heading,
                   const struct pd_view_column *columns, const char *empty)
{
    begin(v, columns, heading, empty, false);
    if (v->is_json)
        pd_json_begin_array(&v->json, key);
}

/* Ends the row before: JSON closes its object, all its cells must be there. */
static void row_close(struct pd_view *v)
{
    if (!v->row_open)
        return;
    pd_assert(v->is_object || is_last(&v->columns[v->column]));
    v->row_open = false;
    if (v->is_json && !v->is_object)
        pd_json_end(&v->json);
}

void pd_view_row(struct pd_view *v)
{
    row_close(v);
    v->row_open = true;
    v->column = 0;
    v->rows++;
    if (v->is_json)
        pd_json_begin_object(&v->json, NULL);
}

void pd_view_object(struct pd_view *v, const char *key, const char *heading)
{
    begin(v, object_columns, heading, NULL, true);
    if (v->is_json)
        pd_json_begin_object(&v->json, key);
}

void pd_view_field(struct pd_view *v, const char *key, const char *title)
{
    v->field = (struct pd_view_column){ key, title, PD_VIEW_WIDE };
    v->column = 0;
    if (!v->is_json && title != NULL) {
        cell(v, pd_str_from(title));
        v->rows++;
    }
    v->column = 1;
}

void pd_view_end(struct pd_view *v)
{
    row_close(v);
    if (v->status == PD_OK)
        v->status = v->cells.status;
    if (v->is_json) {
        pd_json_end(&v->json);
    } else if (v->rows > 0 && v->cells.status == PD_OK) {
        above(v);
        print_table(v);
    } else if (v->empty != NULL) {
        above(v);
        pd_buf_appendf(v->out, "%s\n", v->empty);
    }
}

void pd_view_line(struct pd_view *v, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    if (v->is_json)
        return;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    clean((struct pd_str){ text, PD_MIN((size_t)PD_MAX(n, 0), sizeof text - 1) }, sizeof text, v->out);
    pd_buf_append_char(v->out, '\n');
    v->has_text = true;
}

/* ---- values --------------------------------------------------------------------------------- */

static const struct pd_view_column *slot(const struct pd_view *v)
{
    return v->is_object ? &v->field : &v->columns[v->column];
}

/* The key to write under; NULL when this value is not for JSON. */
static const char *json_key(const struct pd_view *v)
{
    return v->is_json ? slot(v)->key : NULL;
}

static void put_text(struct pd_view *v, struct pd_str s)
{
    if (!v->is_json && in_text(slot(v)))
        cell(v, s.n == 0 ? PD_STR("-") : s);
}

static void next(struct pd_view *v)
{
    if (!v->is_object)
        v->column++;
}

void pd_view_none(struct pd_view *v)
{
    if (json_key(v) != NULL)
        pd_json_add_null(&v->json, json_key(v));
    put_text(v, PD_STR("-"));
    next(v);
}

void pd_view_pdstr(struct pd_view *v, struct pd_str s)
{
    if (json_key(v) != NULL)
        pd_json_add_str(&v->json, json_key(v), s);
    put_text(v, s);
    next(v);
}

void pd_view_str(struct pd_view *v, const char *s)
{
    pd_view_pdstr(v, pd_str_from(s));
}

void pd_view_format(struct pd_view *v, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pd_view_str(v, text);
}

/* A number: JSON gets `json`, text gets `text`. */
static void number(struct pd_view *v, uint64_t json, const char *text)
{
    if (json_key(v) != NULL)
        pd_json_add_u64(&v->json, json_key(v), json);
    put_text(v, pd_str_from(text));
    next(v);
}

void pd_view_count(struct pd_view *v, uint64_t n)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)n);
    number(v, n, text);
}

void pd_view_bytes(struct pd_view *v, uint64_t n)
{
    char text[PD_UNITS_TEXT];
    number(v, n, pd_units_format_bytes(n, text));
}

void pd_view_rate(struct pd_view *v, uint64_t n)
{
    char text[PD_UNITS_TEXT], rate[PD_UNITS_TEXT + 4];
    if (n == 0) {
        pd_view_none(v);
        return;
    }
    snprintf(rate, sizeof rate, "%s/s", pd_units_format_bytes(n, text));
    number(v, n, rate);
}

void pd_view_number(struct pd_view *v, double x)
{
    char text[48] = "-";
    if (isfinite(x))
        snprintf(text, sizeof text, "%.3f", x);
    if (json_key(v) != NULL)
        pd_json_add_double(&v->json, json_key(v), x);
    put_text(v, pd_str_from(text));
    next(v);
}

void pd_view_bool(struct pd_view *v, bool b)
{
    if (json_key(v) != NULL)
        pd_json_add_bool(&v->json, json_key(v), b);
    put_text(v, b ? PD_STR("yes") : PD_STR("no"));
    next(v);
}

void pd_view_duration(struct pd_view *v, pd_time ns)
{
    char text[PD_UNITS_TEXT];
    if (ns == PD_TIME_NEVER) {
        pd_view_none(v);
        return;
    }
    if (json_key(v) != NULL)
        pd_json_add_double(&v->json, json_key(v), (double)ns / 1e9);
    put_text(v, pd_str_from(pd_units_format_duration(ns, text)));
    next(v);
}

void pd_view_set(struct pd_view *v, uint64_t bits, const char *const *names)
{
    char text[PD_VIEW_CELL_MAX] = "";
    size_t n = 0;
    if (json_key(v) != NULL)
        pd_json_begin_array(&v->json, json_key(v));
    for (uint32_t i = 0; names[i] != NULL; i++) {
        if ((bits >> i & 1) == 0)
            continue;
        if (json_key(v) != NULL)
            pd_json_add_cstr(&v->json, NULL, names[i]);
        if (n + strlen(names[i]) + 2 < sizeof text)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n > 0 ? "," : "", names[i]);
    }
    if (json_key(v) != NULL)
        pd_json_end(&v->json);
    put_text(v, pd_str_from(text));
    next(v);
}
