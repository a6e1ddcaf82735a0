/* SPDX-License-Identifier: Apache-2.0 */
/* Collecting errors and warnings of a configuration.  The same message about
 * the same place is kept once, because early peeks look at rows that the full
 * check looks at again. */
#include "conf/report.h"

#include <stdarg.h>
#include <string.h>

#include "base/mem.h"

void pd_conf_report_init(struct pd_conf_report *r)
{
    memset(r, 0, sizeof *r);
}

void pd_conf_report_fini(struct pd_conf_report *r)
{
    pd_free(r->errors);
    pd_free(r->warnings);
    memset(r, 0, sizeof *r);
}

bool pd_conf_report_ok(const struct pd_conf_report *r)
{
    return r->total_errors == 0 && !r->out_of_memory;
}

static bool same(const struct pd_err *a, const struct pd_err *b)
{
    return a->line == b->line && strcmp(a->file, b->file) == 0 && strcmp(a->text, b->text) == 0;
}

static void keep(struct pd_conf_report *r, struct pd_err **list, uint32_t *n, uint64_t *total,
                 const struct pd_err *err)
{
    for (uint32_t i = 0; i < *n; i++) {
        if (same(&(*list)[i], err))
            return;
    }
    if (*list == NULL) {
        *list = pd_calloc(PD_CONF_ERRORS_MAX, sizeof **list);
        if (*list == NULL) {
            r->out_of_memory = true;
            return;
        }
    }
    (*total)++;
    if (*n < PD_CONF_ERRORS_MAX)
        (*list)[(*n)++] = *err;
}

static void format(struct pd_err *err, const char *file, uint32_t line, const char *fmt, va_list ap)
    PD_PRINTF(4, 0);

static void format(struct pd_err *err, const char *file, uint32_t line, const char *fmt, va_list ap)
{
    char text[sizeof err->text + sizeof err->hint];
    memset(err, 0, sizeof *err);
    err->status = PD_EINVAL;
    err->line = line;
    if (file != NULL)
        snprintf(err->file, sizeof err->file, "%s", file);
    vsnprintf(text, sizeof text, fmt, ap);
    char *hint = strchr(text, '\n');
    if (hint != NULL) {
        *hint = '\0';
        snprintf(err->hint, sizeof err->hint, "%s", hint + 1);
    }
    snprintf(err->text, sizeof err->text, "%.*s", (int)sizeof err->text - 1, text);
}

pd_status pd_conf_error(struct pd_conf_report *r, const char *file, uint32_t line, const char *fmt, ...)
{
    struct pd_err err;
    va_list ap;
    va_start(ap, fmt);
    format(&err, file, line, fmt, ap);
    va_end(ap);
    keep(r, &r->errors, &r->n_errors, &r->total_errors, &err);
    return PD_EINVAL;
}

void pd_conf_warn(struct pd_conf_report *r, const char *file, uint32_t line, const char *fmt, ...)
{
    struct pd_err err;
    va_list ap;
    va_start(ap, fmt);
    format(&err, file, line, fmt, ap);
    va_end(ap);
    keep(r, &r->warnings, &r->n_warnings, &r->total_warnings, &err);
}

void pd_conf_report_add(struct pd_conf_report *r, const struct pd_err *err, const char *file,
                        uint32_t line)
{
    struct pd_err e = *err;
    if (e.file[0] == '\0' && file != NULL) {
        snprintf(e.file, sizeof e.file, "%s", file);
        e.line = line;
    }
    keep(r, &r->errors, &r->n_errors, &r->total_errors, &e);
}

void pd_conf_err_print(FILE *out, const struct pd_err *err, const char *word)
{
    if (err->file[0] != '\0' && err->line != 0)
        fprintf(out, "%s:%u: ", err->file, err->line);
    else if (err->file[0] != '\0')
        fprintf(out, "%s: ", err->file);
    fprintf(out, "%s: %s\n", word, err->text);
    if (err->hint[0] != '\0')
        fprintf(out, "  hint: %s\n", err->hint);
}

void pd_conf_report_print(const struct pd_conf_report *r, FILE *out)
{
    for (uint32_t i = 0; i < r->n_warnings; i++)
        pd_conf_err_print(out, &r->warnings[i], "warning");
    for (uint32_t i = 0; i < r->n_errors; i++)
        pd_conf_err_print(out, &r->errors[i], "error");
    if (r->total_errors > r->n_errors)
        fprintf(out, "and %llu more errors\n", (unsigned long long)(r->total_errors - r->n_errors));
    if (r->out_of_memory)
        fprintf(out, "error: out of memory\n");
}
