/* SPDX-License-Identifier: Apache-2.0 */
/* From files to one flat text that libconfig may parse.
 *
 * libconfig looks for included files in one folder only, and its versions
 * differ in what they do with large integers, leading zeros and trailing
 * commas.  So this file walks over the tokens first: it puts included files in
 * place (relative to the file that includes them), remembers where each line
 * came from, makes all versions see the same numbers, and words the errors that
 * the parser would only call syntax errors.
 *
 * Invariant: flat line n came from lines[n - 1]; nothing that is emitted
 * changes the number of a line. */
#include "conf/impl.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "os/file.h"

#define KEYS_MAX 4096u
#define WORD_MAX 127u

struct key {
    struct key *next;
    const char *name;
    uint32_t file, line;
};

struct scope {
    char open;                      /* '{' (also the top level), '(' or '[' */
    uint32_t file, line;
    struct key *keys;
    uint32_t n_keys;
};

struct scan {
    struct pd_conf *conf;
    struct pd_conf_report *report;
    struct conf_text *out;
    struct scope scopes[CONF_DEPTH_MAX + 1];
    uint32_t depth;
    uint32_t includes;              /* files open at the moment */
    char last;                      /* last token: punctuation, 's'tring, 'n'umber, 'w'ord, 0 */
    size_t comma_at;                /* offset of the last comma in the flat text */
};

/* One file being walked over. */
struct file {
    const char *name;
    uint32_t index;
    const char *p, *end;
    uint32_t line;
    bool at_line_start;             /* only blanks since the last line feed */
};

static pd_status scan_file(struct scan *s, const char *path, const struct pd_str *text,
                           const struct file *parent);

static const char *name_of(const struct scan *s, uint32_t index)
{
    return s->conf->files[index];
}

#define FAIL(s, f, ...) pd_conf_error((s)->report, (f)->name, (f)->line, __VA_ARGS__)

const char *conf_path_beside(struct pd_conf *conf, const char *beside, const char *name)
{
    const char *slash = strrchr(beside, '/');
    if (name[0] == '/' || slash == NULL)
        return pd_arena_printf(&conf->arena, "%s", name);
    return pd_arena_printf(&conf->arena, "%.*s/%s", (int)(slash == beside ? 0 : slash - beside), beside, name);
}

static void mark_line(struct scan *s, const struct file *f)
{
    struct conf_line *l = &s->out->lines[s->out->n_lines - 1];
    l->file = f->index;
    l->line = f->line;
}

static pd_status add_line(struct scan *s)
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

static pd_status emit(struct scan *s, const char *p, size_t n)
{
    return pd_buf_append(&s->out->flat, p, n);
}

/* Copies n bytes of the file, line feeds included. */
static pd_status copy(struct scan *s, struct file *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = *f->p++;
        emit(s, &c, 1);
        if (c == '\n') {
            f->line++;
            if (add_line(s) != PD_OK)
                return PD_ENOMEM;
            mark_line(s, f);
        }
    }
    return PD_OK;
}

static size_t left(const struct file *f)
{
    return (size_t)(f->end - f->p);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*';
}

static bool is_word(char c)
{
    return is_alpha(c) || is_digit(c) || c == '_' || c == '-';
}

static bool wants_value(const struct scan *s)
{
    if (s->last == '=' || s->last == ':')
        return true;
    return s->scopes[s->depth].open != '{' && (s->last == ',' || s->last == '(' || s->last == '[');
}

/* --- tokens --- */

static pd_status scan_comment(struct scan *s, struct file *f, size_t opening)
{
    uint32_t line = f->line;
    const char *p = f->p + opening;
    bool block = f->p[0] == '/' && f->p[1] == '*';
    while (p < f->end) {
        if (!block && *p == '\n')
            break;
        if (block && *p == '*' && p + 1 < f->end && p[1] == '/') {
            return copy(s, f, (size_t)(p + 2 - f->p));
        }
        p++;
    }
    if (block) {
        pd_conf_error(s->report, f->name, line, "comment is not closed");
        f->p = f->end;
        return PD_EINVAL;
    }
    return copy(s, f, (size_t)(p - f->p));
}

static pd_status scan_string(struct scan *s, struct file *f)
{
    uint32_t line = f->line;
    const char *p = f->p + 1;
    while (p < f->end && *p != '"') {
        if (*p == '\\' && f->end - p >= 4 && memcmp(p, "\\x00", 4) == 0)
            FAIL(s, f, "a string must not contain a zero byte");
        p += *p == '\\' && p + 1 < f->end ? 2 : 1;
    }
    if (p >= f->end) {
        pd_conf_error(s->report, f->name, line, "string is not closed");
        f->p = f->end;
        return PD_EINVAL;
    }
    if (!wants_value(s) && s->last != 's')
        FAIL(s, f, "a string stands where the name of an option is expected"
             "\nwrite: name = \"value\";");
    s->last = 's';
    return copy(s, f, (size_t)(p + 1 - f->p));
}

/* What stands behind the token, blanks and line feeds skipped; 0 at the end. */
static char peek(const struct file *f, const char *p)
{
    while (p < f->end && (is_blank(*p) || *p == '\n'))
        p++;
    return p < f->end ? *p : '\0';
}

static pd_status add_key(struct scan *s, struct file *f, const char *word)
{
    struct scope *sc = &s->scopes[s->depth];
    if (sc->open != '{')
        return FAIL(s, f, "option \"%s\" stands directly in a list\nput { } around it", word);
    for (struct key *k = sc->keys; k != NULL; k = k->next) {
        if (strcmp(k->name, word) == 0)
            return FAIL(s, f, "option \"%s\" is given a second time (first at %s:%u)", word,
                        name_of(s, k->file), k->line);
    }
    if (++sc->n_keys > KEYS_MAX)
        return FAIL(s, f, "more than %u options in one group", KEYS_MAX);
    struct key *k = pd_arena_calloc(&s->conf->arena, 1, sizeof *k);
    const char *name = pd_arena_printf(&s->conf->arena, "%s", word);
    if (k == NULL || name == NULL)
        return conf_no_memory(s->report);
    *k = (struct key){ sc->keys, name, f->index, f->line };
    sc->keys = k;
    return PD_OK;
}

static pd_status scan_word(struct scan *s, struct file *f)
{
    const char *p = f->p;
    while (p < f->end && is_word(*p))
        p++;
    size_t n = (size_t)(p - f->p);
    char word[WORD_MAX + 1];
    pd_status st = PD_OK;
    if (pd_str_copy(pd_str_of(f->p, n), word, sizeof word) != PD_OK) {
        FAIL(s, f, "name is longer than %u characters", WORD_MAX);
        f->p = p;
        s->last = 'w';
        return PD_EINVAL;
    }
    char next = peek(f, p);
    if (s->scopes[s->depth].open != '{' && (next == '=' || next == ':')) {
        st = add_key(s, f, word);
    } else if (wants_value(s)) {
        struct pd_str w = pd_str_of(word, n);
        if (!pd_str_eq_nocase(w, PD_STR("true")) && !pd_str_eq_nocase(w, PD_STR("false"))) {
            bool b;
            if (pd_str_parse_bool(w, &b) == PD_OK)
                st = FAIL(s, f, "\"%s\" is no value\nwrite %s", word, b ? "true" : "false");
            else
                st = FAIL(s, f, "\"%s\" is no value\nput strings in quotes", word);
        }
    } else if (next == '=' || next == ':') {
        st = add_key(s, f, word);
    } else if (next == '{' || next == '(' || next == '[') {
        st = FAIL(s, f, "\"=\" is missing between \"%s\" and \"%c\"", word, next);
        s->last = '=';
        copy(s, f, n);
        return st;
    } else {
        st = FAIL(s, f, "\"=\" is missing behind \"%s\"", word);
        s->last = '=';
        copy(s, f, n);
        return st;
    }
    s->last = 'w';
    pd_status c = copy(s, f, n);
    return st != PD_OK ? st : c;
}

/* Decimal and hexadecimal integers: no leading zeros, and the suffix L where 32
 * bits are not enough, since old parsers cut silently. */
static pd_status check_integer(struct scan *s, struct file *f, struct pd_str text, bool *add_suffix)
{
    struct pd_str digits = text;
    bool negative = digits.p[0] == '-';
    if (digits.p[0] == '-' || digits.p[0] == '+')
        digits = pd_str_sub(digits, 1, digits.n);
    bool suffix = false;
    while (digits.n > 0 && digits.p[digits.n - 1] == 'L') {
        digits.n--;
        suffix = true;
    }
    uint64_t v;
    pd_status st;
    bool hex = digits.n > 2 && digits.p[0] == '0' && (digits.p[1] == 'x' || digits.p[1] == 'X');
    if (hex)
        st = pd_str_parse_hex(pd_str_sub(digits, 2, digits.n), &v);
    else
        st = pd_str_parse_u64(digits, &v);
    if (st == PD_EINVAL)
        return FAIL(s, f, "\"%.*s\" is no number\nvalues with a unit stand in quotes, such as \"4g\" or \"10s\"",
                    PD_STR_ARG(text));
    if (!hex && digits.n > 1 && digits.p[0] == '0')
        return FAIL(s, f, "number %.*s begins with a zero\nwrite it without, or in quotes if it is a file mode",
                    PD_STR_ARG(text));
    if (st != PD_OK || v > (uint64_t)INT64_MAX)
        return FAIL(s, f, "number %.*s is too large", PD_STR_ARG(text));
    *add_suffix = !suffix && v > (uint64_t)INT32_MAX + (negative && !hex ? 1u : 0u);
    return PD_OK;
}

static pd_status scan_number(struct scan *s, struct file *f)
{
    const char *p = f->p;
    while (p < f->end && (is_word(*p) || *p == '.' || *p == '+')) {
        bool sign = *p == '-' || *p == '+';
        if (sign && p != f->p && p[-1] != 'e' && p[-1] != 'E')
            break;
        p++;
    }
    struct pd_str text = pd_str_of(f->p, (size_t)(p - f->p));
    bool add_suffix = false;
    double d;
    bool hex = memchr(text.p, 'x', text.n) != NULL || memchr(text.p, 'X', text.n) != NULL;
    bool real = !hex && (memchr(text.p, '.', text.n) != NULL || memchr(text.p, 'e', text.n) != NULL ||
                         memchr(text.p, 'E', text.n) != NULL);
    pd_status st = PD_OK;
    if (!wants_value(s))
        st = FAIL(s, f, "number %.*s stands where the name of an option is expected", PD_STR_ARG(text));
    else if (!real)
        st = check_integer(s, f, text, &add_suffix);
    else if (pd_str_parse_double(text.p[0] == '+' ? pd_str_sub(text, 1, text.n) : text, &d) != PD_OK)
        st = FAIL(s, f, "\"%.*s\" is no number", PD_STR_ARG(text));
    s->last = 'n';
    copy(s, f, text.n);
    if (add_suffix)
        emit(s, "L", 1);
    return st;
}

static pd_status scan_open(struct scan *s, struct file *f)
{
    char c = *f->p;
    if (!wants_value(s))
        FAIL(s, f, "\"%c\" stands where the name of an option is expected", c);
    if (s->depth == CONF_DEPTH_MAX) {
        FAIL(s, f, "nested more than %u levels deep", CONF_DEPTH_MAX);
        f->p = f->end;
        return PD_EINVAL;
    }
    s->depth++;
    s->scopes[s->depth] = (struct scope){ .open = c, .file = f->index, .line = f->line };
    s->last = c;
    return copy(s, f, 1);
}

static pd_status scan_close(struct scan *s, struct file *f, uint32_t floor)
{
    char c = *f->p;
    char want = c == '}' ? '{' : c == ')' ? '(' : '[';
    struct scope *sc = &s->scopes[s->depth];
    if (s->depth == floor || sc->open != want) {
        if (s->depth == floor)
            FAIL(s, f, "\"%c\" closes nothing", c);
        else
            FAIL(s, f, "\"%c\" does not close the \"%c\" that was opened at %s:%u", c, sc->open,
                 name_of(s, sc->file), sc->line);
        f->p = f->end;
        s->depth = floor;
        return PD_EINVAL;
    }
    if (s->last == ',' && c != '}' && s->comma_at < s->out->flat.n)
        s->out->flat.p[s->comma_at] = ' ';
    s->depth--;
    s->last = c;
    return copy(s, f, 1);
}

static pd_status scan_include(struct scan *s, struct file *f, bool at_line_start)
{
    static const char word[] = "@include";
    const char *p = f->p;
    uint32_t line = f->line;
    if (left(f) < sizeof word - 1 || memcmp(p, word, sizeof word - 1) != 0) {
        FAIL(s, f, "unexpected character \"@\"");
        f->p++;
        return PD_EINVAL;
    }
    p += sizeof word - 1;
    while (p < f->end && is_blank(*p))
        p++;
    const char *q = p < f->end && *p == '"' ? memchr(p + 1, '"', (size_t)(f->end - p - 1)) : NULL;
    if (!at_line_start || q == NULL || memchr(p, '\n', (size_t)(q - p)) != NULL || q == p + 1) {
        FAIL(s, f, "@include is not understood here\nit stands alone on a line: @include \"FILE\"");
        f->p = p;
        return PD_EINVAL;
    }
    const char *name = pd_arena_printf(&s->conf->arena, "%.*s", (int)(q - p - 1), p + 1);
    const char *path = name == NULL ? NULL : conf_path_beside(s->conf, f->name, name);
    f->p = q + 1;
    if (path == NULL)
        return conf_no_memory(s->report);
    if (strpbrk(name, "*?[") != NULL)
        return pd_conf_error(s->report, f->name, line, "@include takes one file, \"%s\" is a pattern"
                             "\nwrite include = [ \"%s\" ]; at the top level", name, name);
    pd_status st = scan_file(s, path, NULL, f);
    mark_line(s, f);
    return st;
}

static void scan_token(struct scan *s, struct file *f, uint32_t floor)
{
    char c = *f->p;
    char d = left(f) > 1 ? f->p[1] : '\0';
    bool at_line_start = f->at_line_start;
    if (c == '\n' || is_blank(c)) {
        f->at_line_start = c == '\n' || at_line_start;
        copy(s, f, 1);
        return;
    }
    f->at_line_start = false;
    if (c == '#') {
        scan_comment(s, f, 1);
    } else if (c == '/' && (d == '/' || d == '*')) {
        scan_comment(s, f, 2);
    } else if (c == '"') {
        scan_string(s, f);
    } else if (is_alpha(c)) {
        scan_word(s, f);
    } else if (is_digit(c) || ((c == '-' || c == '+' || c == '.') && (is_digit(d) || d == '.'))) {
        scan_number(s, f);
    } else if (c == '{' || c == '(' || c == '[') {
        scan_open(s, f);
    } else if (c == '}' || c == ')' || c == ']') {
        scan_close(s, f, floor);
    } else if (c == '=' || c == ':' || c == ';' || c == ',') {
        s->last = c == ':' ? '=' : c;
        s->comma_at = s->out->flat.n;
        copy(s, f, 1);
    } else if (c == '@') {
        scan_include(s, f, at_line_start);
    } else {
        if ((unsigned char)c > 0x20 && (unsigned char)c < 0x7f)
            FAIL(s, f, "unexpected character \"%c\"%s", c, c == '$' ? "\nput it in quotes: \"${NAME}\"" : "");
        else
            FAIL(s, f, "unexpected byte 0x%02x", (unsigned)(unsigned char)c);
        f->p++;
    }
}

static uint32_t file_index(struct scan *s, const char *path)
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

/* Reads a whole file and walks over it; text replaces the reading. */
static pd_status scan_file(struct scan *s, const char *path, const struct pd_str *text,
                           const struct file *parent)
{
    const char *from = parent != NULL ? parent->name : NULL;
    uint32_t from_line = parent != NULL ? parent->line : 0;
    if (s->includes == CONF_INCLUDE_DEPTH)
        return pd_conf_error(s->report, from, from_line, "files include each other more than %u levels deep"
                             "\ndoes a file include itself?", CONF_INCLUDE_DEPTH);
    struct file f = { .name = path, .index = file_index(s, path), .line = 1, .at_line_start = true };
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
    if (memchr(f.p, '\0', left(&f)) != NULL) {
        pd_buf_fini(&content);
        return pd_conf_error(s->report, path, 0, "the file contains a zero byte");
    }
    if (left(&f) >= 3 && memcmp(f.p, "\xef\xbb\xbf", 3) == 0)
        f.p += 3;
    mark_line(s, &f);
    s->includes++;
    uint32_t floor = s->depth;
    while (f.p < f.end)
        scan_token(s, &f, floor);
    while (s->depth > floor) {
        struct scope *sc = &s->scopes[s->depth--];
        pd_conf_error(s->report, name_of(s, sc->file), sc->line, "\"%c\" is not closed", sc->open);
    }
    s->includes--;
    emit(s, "\n", 1);
    pd_status st = add_line(s);
    if (st == PD_OK)
        mark_line(s, &f);
    pd_buf_fini(&content);
    return st;
}

pd_status conf_text_read(struct pd_conf *conf, const char *path, const struct pd_str *text,
                         struct conf_text *out, struct pd_conf_report *report)
{
    struct scan s = { .conf = conf, .report = report, .out = out };
    uint64_t before = report->total_errors;
    s.scopes[0].open = '{';
    memset(out, 0, sizeof *out);
    pd_buf_init(&out->flat, CONF_TEXT_MAX);
    if (add_line(&s) != PD_OK)
        return PD_ENOMEM;
    out->lines[0] = (struct conf_line){ 0, 1 };
    pd_status st = scan_file(&s, path, text, NULL);
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
