/* SPDX-License-Identifier: Apache-2.0 */
/* The tokens of a configuration: each one is checked where it stands, worded where it is
 * wrong, and put into the flat text, so that all versions of the parser see the same.
 *
 * A token that is wrong is told once and passed over: `last` is then what should have
 * stood there, so that one mistake is not ten. */
#include "conf/text_int.h"

#include <string.h>

#include "base/str.h"

#define KEYS_MAX 4096u
#define WORD_MAX 127u

#define FAIL(s, f, ...) pd_conf_error((s)->report, (f)->name, (f)->line, __VA_ARGS__)

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

static bool wants_value(const struct conf_scan *s)
{
    if (s->last == '=' || s->last == ':')
        return true;
    return s->scopes[s->depth].open != '{' && (s->last == ',' || s->last == '(' || s->last == '[');
}

static pd_status scan_comment(struct conf_scan *s, struct conf_file *f, size_t opening)
{
    uint32_t line = f->line;
    const char *p = f->p + opening;
    bool block = f->p[0] == '/' && f->p[1] == '*';
    while (p < f->end) {
        if (!block && *p == '\n')
            break;
        if (block && *p == '*' && p + 1 < f->end && p[1] == '/') {
            return conf_scan_copy(s, f, (size_t)(p + 2 - f->p));
        }
        p++;
    }
    if (block) {
        pd_conf_error(s->report, f->name, line, "comment is not closed");
        f->p = f->end;
        return PD_EINVAL;
    }
    return conf_scan_copy(s, f, (size_t)(p - f->p));
}

static pd_status scan_string(struct conf_scan *s, struct conf_file *f)
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
    return conf_scan_copy(s, f, (size_t)(p + 1 - f->p));
}

/* What stands behind the token, blanks and line feeds skipped; 0 at the end. */
static char peek(const struct conf_file *f, const char *p)
{
    while (p < f->end && (is_blank(*p) || *p == '\n'))
        p++;
    return p < f->end ? *p : '\0';
}

static pd_status add_key(struct conf_scan *s, struct conf_file *f, const char *word)
{
    struct conf_scope *sc = &s->scopes[s->depth];
    if (sc->open != '{')
        return FAIL(s, f, "option \"%s\" stands directly in a list\nput { } around it", word);
    for (struct conf_key *k = sc->keys; k != NULL; k = k->next) {
        if (strcmp(k->name, word) == 0)
            return FAIL(s, f, "option \"%s\" is given a second time (first at %s:%u)", word,
                        conf_scan_name(s, k->file), k->line);
    }
    if (++sc->n_keys > KEYS_MAX)
        return FAIL(s, f, "more than %u options in one group", KEYS_MAX);
    struct conf_key *k = pd_arena_calloc(&s->conf->arena, 1, sizeof *k);
    const char *name = pd_arena_printf(&s->conf->arena, "%s", word);
    if (k == NULL || name == NULL)
        return conf_no_memory(s->report);
    *k = (struct conf_key){ sc->keys, name, f->index, f->line };
    sc->keys = k;
    return PD_OK;
}

static pd_status scan_word(struct conf_scan *s, struct conf_file *f)
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
        conf_scan_copy(s, f, n);
        return st;
    } else {
        st = FAIL(s, f, "\"=\" is missing behind \"%s\"", word);
        s->last = '=';
        conf_scan_copy(s, f, n);
        return st;
    }
    s->last = 'w';
    pd_status c = conf_scan_copy(s, f, n);
    return st != PD_OK ? st : c;
}

/* Decimal and hexadecimal integers: no leading zeros, and the suffix L where 32
 * bits are not enough, since old parsers cut silently. */
static pd_status check_integer(struct conf_scan *s, struct conf_file *f, struct pd_str text, bool *add_suffix)
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

static pd_status scan_number(struct conf_scan *s, struct conf_file *f)
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
    conf_scan_copy(s, f, text.n);
    if (add_suffix)
        conf_scan_emit(s, "L", 1);
    return st;
}

static pd_status scan_open(struct conf_scan *s, struct conf_file *f)
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
    s->scopes[s->depth] = (struct conf_scope){ .open = c, .file = f->index, .line = f->line };
    s->last = c;
    return conf_scan_copy(s, f, 1);
}

static pd_status scan_close(struct conf_scan *s, struct conf_file *f, uint32_t floor)
{
    char c = *f->p;
    char want = c == '}' ? '{' : c == ')' ? '(' : '[';
    struct conf_scope *sc = &s->scopes[s->depth];
    if (s->depth == floor || sc->open != want) {
        if (s->depth == floor)
            FAIL(s, f, "\"%c\" closes nothing", c);
        else
            FAIL(s, f, "\"%c\" does not close the \"%c\" that was opened at %s:%u", c, sc->open,
                 conf_scan_name(s, sc->file), sc->line);
        f->p = f->end;
        s->depth = floor;
        return PD_EINVAL;
    }
    if (s->last == ',' && c != '}' && s->comma_at < s->out->flat.n)
        s->out->flat.p[s->comma_at] = ' ';
    s->depth--;
    s->last = c;
    return conf_scan_copy(s, f, 1);
}

static pd_status scan_include(struct conf_scan *s, struct conf_file *f, bool at_line_start)
{
    static const char word[] = "@include";
    const char *p = f->p;
    uint32_t line = f->line;
    if (conf_scan_left(f) < sizeof word - 1 || memcmp(p, word, sizeof word - 1) != 0) {
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
    pd_status st = conf_scan_file(s, path, NULL, f);
    conf_scan_mark_line(s, f);
    return st;
}

void conf_scan_token(struct conf_scan *s, struct conf_file *f, uint32_t floor)
{
    char c = *f->p;
    char d = conf_scan_left(f) > 1 ? f->p[1] : '\0';
    bool at_line_start = f->at_line_start;
    if (c == '\n' || is_blank(c)) {
        f->at_line_start = c == '\n' || at_line_start;
        conf_scan_copy(s, f, 1);
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
        conf_scan_copy(s, f, 1);
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
