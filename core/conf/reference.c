/* SPDX-License-Identifier: Apache-2.0 */
/* The reference of rows: for `pdplane -O`, and as an mdoc list for the manual
 * pages, so that both always say what the parser does. */
#include "conf/impl.h"

#include <string.h>

#include "base/str.h"

#define PATH_SIZE 256u

static const char *type_word(const struct pd_option *row)
{
    switch (row->type) {
    case PD_OPT_T_BOOL:
        return "boolean";
    case PD_OPT_T_INT:
        return "integer";
    case PD_OPT_T_NUMBER:
        return "number";
    case PD_OPT_T_STRING:
        return (row->flags & PD_OPT_SECRET) != 0 ? "secret" : (row->flags & PD_OPT_PATH) != 0 ? "path" : "string";
    case PD_OPT_T_SIZE:
        return "size";
    case PD_OPT_T_DURATION:
        return "duration";
    case PD_OPT_T_ENUM:
        return "word";
    case PD_OPT_T_FLAGS:
        return "list of words";
    case PD_OPT_T_STRING_LIST:
        return (row->flags & PD_OPT_PATH) != 0 ? "list of paths" : "list of strings";
    case PD_OPT_T_GROUP:
        return "group";
    case PD_OPT_T_GROUP_LIST:
        return "list of groups";
    case PD_OPT_T_UNIT:
        return "name of a module's unit, whose options follow";
    case PD_OPT_T_UNIT_MAP:
        return "group with one group of options per module's unit";
    default:
        return "";
    }
}

/* "integer, required, 1 to 64 tokens, default 8" */
static void facts(const struct pd_option *row, char *out, size_t size)
{
    char range[96] = "";
    size_t n = pd_str_addf(out, size, 0, "%s%s", type_word(row),
                           (row->flags & PD_OPT_REQUIRED) != 0 ? ", required" : "");
    bool limited = row->type == PD_OPT_T_NUMBER ? row->lo != 0 || row->hi != 0 : row->min != 0 || row->max != 0;
    if (limited)
        conf_range_text(row, range, sizeof range);
    if (range[0] != '\0')
        n = pd_str_addf(out, size, n, ", %s", range);
    else if (row->unit != NULL)
        n = pd_str_addf(out, size, n, ", %s", row->unit);
    for (const struct pd_option_name *e = row->names; e != NULL && e->name != NULL; e++)
        n = pd_str_addf(out, size, n, "%s\"%s\"", e == row->names ? ": " : ", ", e->name);
    if (row->def != NULL) {
        bool text = row->type == PD_OPT_T_STRING || row->type == PD_OPT_T_SIZE ||
                    row->type == PD_OPT_T_DURATION || row->type == PD_OPT_T_ENUM || row->type == PD_OPT_T_UNIT;
        bool list = row->type == PD_OPT_T_FLAGS || row->type == PD_OPT_T_STRING_LIST;
        (void)pd_str_addf(out, size, n, text ? ", default \"%s\"" : list ? ", default [ %s ]" : ", default %s",
                 row->def);
    }
}

static void put_text(const char *path, const struct pd_option *row, FILE *out)
{
    char line[1024];
    facts(row, line, sizeof line);
    fprintf(out, "%s  (%s)\n", path, line);
    const char *p = row->help != NULL ? row->help : "";
    /* Words wrapped at 76 columns, four to the right. */
    size_t column = 0;
    while (*p != '\0') {
        size_t n = strcspn(p, " \n");
        if (column > 0 && column + 1 + n > 72) {
            fputc('\n', out);
            column = 0;
        }
        fprintf(out, "%s%.*s", column == 0 ? "    " : " ", (int)n, p);
        column += n + (column > 0);
        p += n;
        while (*p == ' ' || *p == '\n')
            p++;
    }
    if (column > 0)
        fputc('\n', out);
}

static void put_mdoc_word(const char *p, size_t n, bool at_start, FILE *out)
{
    /* No macro at the start of a line. */
    if (at_start && (p[0] == '.' || p[0] == '\''))
        fputs("\\&", out);
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\')
            fputs("\\e", out);
        else
            fputc(p[i], out);
    }
}

/* Lines of at most 76 bytes; each sentence begins one, as mdoc wants it. */
static void put_mdoc_text(const char *p, FILE *out)
{
    size_t column = 0;
    while (*p != '\0') {
        size_t n = strcspn(p, " \n");
        if (column > 0 && column + 1 + n > 76) {
            fputc('\n', out);
            column = 0;
        }
        if (column > 0)
            fputc(' ', out);
        put_mdoc_word(p, n, column == 0, out);
        column += n + (column > 0);
        if (n > 0 && p[n - 1] == '.' && p[n] != '\0') {
            fputc('\n', out);
            column = 0;
        }
        p += n;
        while (*p == ' ' || *p == '\n')
            p++;
    }
    if (column > 0)
        fputc('\n', out);
}

static void put_mdoc(const char *path, const struct pd_option *row, FILE *out)
{
    char line[1024];
    facts(row, line, sizeof line);
    fprintf(out, ".It Ic %s\n", path);
    put_mdoc_text(line, out);
    fputs(".Pp\n", out);
    if (row->help != NULL)
        put_mdoc_text(row->help, out);
}

static void walk(const struct pd_option *rows, const char *prefix, uint32_t depth, uint32_t format, FILE *out)
{
    for (const struct pd_option *r = rows; r != NULL && r->name != NULL; r++) {
        char path[PATH_SIZE];
        if (r->type == PD_OPT_T_PLACE || r->type == PD_OPT_T_ALIAS)
            continue;
        snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", r->name);
        if (format == PD_CONF_REF_MDOC)
            put_mdoc(path, r, out);
        else
            put_text(path, r, out);
        if (r->rows != NULL && depth < CONF_DEPTH_MAX)
            walk(r->rows, path, depth + 1, format, out);
    }
}

void pd_conf_reference(const struct pd_option *rows, uint32_t format, FILE *out)
{
    if (format == PD_CONF_REF_MDOC)
        fputs(".Bl -tag -width Ds\n", out);
    walk(rows, "", 0, format, out);
    if (format == PD_CONF_REF_MDOC)
        fputs(".El\n", out);
}
