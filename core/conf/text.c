/* SPDX-License-Identifier: Apache-2.0 */
/* From files to one flat text that libconfig may parse.
 *
 * libconfig looks for included files in one folder only, and its versions
 * differ in what they do with large integers, leading zeros and trailing
 * commas.  So this file walks over the tokens first: it puts included files in
 * place (relative to the file that includes them), remembers where each line
 * came from, makes all versions see the same numbers, and words the errors that
 * the parser would only call syntax errors.  Here are the files and their lines, in
 * token.c the tokens.
 *
 * Invariant: flat line n came from lines[n - 1]; nothing that is emitted
 * changes the number of a line. */
#include "conf/text_int.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "os/file.h"

const char *conf_path_beside(struct pd_conf *conf, const char *beside, const char *name)
{
    const char *slash = strrchr(beside, '/');
    if (name[0] == '/' || slash == NULL)
        return pd_arena_printf(&conf->arena, "%s", name);
    return pd_arena_printf(&conf->arena, "%.*s/%s", (int)(slash == beside ? 0 : slash - beside), beside, name);
}

void conf_scan_mark_line(struct conf_scan *s, const struct conf_file *f)
{
    struct conf_line *l = &s->out->lines[s->out->n_lines - 1];
    l->file = f->index;
    l->line = f->line;
}

static pd_status add_line(struct conf_scan *s)
{
    struct conf_text *t = s->out;
    if (t->n_lines == t->cap_lines) {
        size_t cap = t->cap_lines == 0 ? 256 : t->cap_lines * 2;
        struct conf_line *lines = pd_realloc_array(t->lines, cap, sizeof *lines);
        if (lines == NULL)
            return conf_no_memory(s->report);
        t->lines = lines;
        t->cap_lines = cap;
    }
    t->n_lines++;
    return PD_OK;
}

pd_status conf_scan_emit(struct conf_scan *s, const char *p, size_t n)
{
    return pd_buf_append(&s->out->flat, p, n);
}

pd_status conf_scan_copy(struct conf_scan *s, struct conf_file *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = *f->p++;
        conf_scan_emit(s, &c, 1);
        if (c == '\n') {
            f->line++;
            if (add_line(s) != PD_OK)
                return PD_ENOMEM;
            conf_scan_mark_line(s, f);
        }
    }
    return PD_OK;
}

static uint32_t file_index(struct conf_scan *s, const char *path)
{
    for (uint32_t i = 0; i < s->conf->n_files; i++) {
        if (strcmp(s->conf->files[i], path) == 0)
            return i;
    }
    if (s->conf->n_files == CONF_FILES_MAX)
        return UINT32_MAX;
    s->conf->files[s->conf->n_files] = path;
    return s->conf->n_files++;
}

pd_status conf_scan_file(struct conf_scan *s, const char *path, const struct pd_str *text,
                         const struct conf_file *parent)
{
    const char *from = parent != NULL ? parent->name : NULL;
    uint32_t from_line = parent != NULL ? parent->line : 0;
    if (s->includes == CONF_INCLUDE_DEPTH)
        return pd_conf_error(s->report, from, from_line, "files include each other more than %u levels deep"
                             "\ndoes a file include itself?", CONF_INCLUDE_DEPTH);
    struct conf_file f = { .name = path, .index = file_index(s, path), .line = 1, .at_line_start = true };
    if (f.index == UINT32_MAX)
        return pd_conf_error(s->report, from, from_line, "more than %u files", CONF_FILES_MAX);

    struct pd_buf content;
    struct pd_err err;
    pd_buf_init(&content, CONF_FILE_MAX);
    if (text != NULL) {
        f.p = text->p;
        f.end = text->p + text->n;
    } else {
        memset(&err, 0, sizeof err);
        if (pd_file_read(path, CONF_FILE_MAX, &content, &err) != PD_OK) {
            pd_conf_report_add(s->report, &err, from, from_line);
            pd_buf_fini(&content);
            return PD_EINVAL;
        }
        f.p = content.n > 0 ? content.p : "";
        f.end = f.p + content.n;
    }
    if (memchr(f.p, '\0', conf_scan_left(&f)) != NULL) {
        pd_buf_fini(&content);
        return pd_conf_error(s->report, path, 0, "the file contains a zero byte");
    }
    if (conf_scan_left(&f) >= 3 && memcmp(f.p, "\xef\xbb\xbf", 3) == 0)
        f.p += 3;
    conf_scan_mark_line(s, &f);
    s->includes++;
    uint32_t floor = s->depth;
    while (f.p < f.end)
        conf_scan_token(s, &f, floor);
    while (s->depth > floor) {
        struct conf_scope *sc = &s->scopes[s->depth--];
        pd_conf_error(s->report, conf_scan_name(s, sc->file), sc->line, "\"%c\" is not closed", sc->open);
    }
    s->includes--;
    conf_scan_emit(s, "\n", 1);
    pd_status st = add_line(s);
    if (st == PD_OK)
        conf_scan_mark_line(s, &f);
    pd_buf_fini(&content);
    return st;
}

pd_status conf_text_read(struct pd_conf *conf, const char *path, const struct pd_str *text,
                         struct conf_text *out, struct pd_conf_report *report)
{
    struct conf_scan s = { .conf = conf, .report = report, .out = out };
    uint64_t before = report->total_errors;
    s.scopes[0].open = '{';
    memset(out, 0, sizeof *out);
    pd_buf_init(&out->flat, CONF_TEXT_MAX);
    if (add_line(&s) != PD_OK)
        return PD_ENOMEM;
    out->lines[0] = (struct conf_line){ 0, 1 };
    pd_status st = conf_scan_file(&s, path, text, NULL);
    if (st == PD_OK && out->flat.status == PD_ELIMIT)
        st = pd_conf_error(report, path, 0, "file and includes are longer than %zu bytes", CONF_TEXT_MAX);
    else if (st == PD_OK && out->flat.status != PD_OK)
        st = conf_no_memory(report);
    if (st == PD_OK && report->total_errors != before)
        st = PD_EINVAL;
    return st;
}

void conf_text_fini(struct conf_text *t)
{
    pd_buf_fini(&t->flat);
    pd_free(t->lines);
    memset(t, 0, sizeof *t);
}

struct pd_conf_place conf_text_place(const struct pd_conf *conf, const struct conf_text *t, uint32_t line)
{
    struct pd_conf_place place = { conf->file, 0, 0 };
    if (line >= 1 && line <= t->n_lines) {
        place.file = conf->files[t->lines[line - 1].file];
        place.line = t->lines[line - 1].line;
    }
    return place;
}
