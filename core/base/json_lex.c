/* SPDX-License-Identifier: Apache-2.0 */
/* What is not told in line of the tokens of JSON. */
#include "base/json_lex.h"

#include "base/str.h"
#include "base/utf8.h"

#include <stdio.h>

const char *pd_json_fail(struct pd_json_lex *l, pd_status status, const char *at, const char *expected)
{
    struct pd_json_error *e = l->error;
    l->status = status;
    if (e == NULL)
        return NULL;
    e->status = status;
    e->offset = (size_t)(at - l->start);
    e->line = 1;
    const char *line = l->start;
    for (const char *q = line; q < at; q++) {
        if (*q == '\n') {
            e->line++;
            line = q + 1;
        }
    }
    e->column = (uint32_t)(at - line) + 1;
    if (status != PD_EPROTO)
        snprintf(e->text, sizeof e->text, "%s", expected);
    else if (at == l->end)
        snprintf(e->text, sizeof e->text, "expected %s, found the end of the document", expected);
    else if (*at > ' ' && *at < 0x7f)
        snprintf(e->text, sizeof e->text, "expected %s, found '%c'", expected, *at);
    else
        snprintf(e->text, sizeof e->text, "expected %s, found byte 0x%02x", expected,
                 (unsigned char)*at);
    return NULL;
}

const char *pd_json_space(const char *p, const char *end)
{
    /* A new line and its indent. */
    if (p < end && *p == '\n')
        p++;
    while (end - p >= 8 && memcmp(p, "        ", 8) == 0)
        p += 8;
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* Four hex digits; -1 when they are not. */
static int32_t hex4(const char *p, const char *end)
{
    uint64_t v;
    if (end - p < 4 || pd_str_parse_hex(pd_str_of(p, 4), &v) != PD_OK)
        return -1;
    return (int32_t)v;
}

/* The escape at p (a backslash); returns what follows it. */
static const char *escape(struct pd_json_lex *l, const char *p)
{
    if (l->end - p < 2)
        return pd_json_fail(l, PD_EPROTO, l->end, "the rest of an escape");
    switch (p[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return p + 2;
    case 'u':
        break;
    default:
        return pd_json_fail(l, PD_EPROTO, p + 1, "one of \"\\/bfnrtu after a backslash");
    }
    int32_t unit = hex4(p + 2, l->end);
    if (unit < 0)
        return pd_json_fail(l, PD_EPROTO, PD_MIN(p + 2, l->end), "four hex digits after \\u");
    if (unit < 0xd800 || unit > 0xdfff)
        return p + 6;
    if (unit > 0xdbff)
        return pd_json_fail(l, PD_EPROTO, p, "a high surrogate before this low one");
    int32_t low = l->end - p >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, l->end) : -1;
    if (low < 0xdc00 || low > 0xdfff)
        return pd_json_fail(l, PD_EPROTO, p + 6, "a low surrogate escape after a high one");
    return p + 12;
}

/* The common characters of three bytes, as most of Chinese is made of. */
static bool is_usual_three(const char *p, const char *end)
{
    const unsigned char *u = (const unsigned char *)p;
    return end - p >= 3 && (u[0] & 0xf0) == 0xe0 && u[0] != 0xe0 && u[0] != 0xed &&
           (u[1] & 0xc0) == 0x80 && (u[2] & 0xc0) == 0x80;
}

/* The run of characters beyond ASCII at p, one by one. */
static const char *wide_run(struct pd_json_lex *l, const char *p)
{
    do {
        uint32_t cp;
        size_t n = is_usual_three(p, l->end) ? 3 : pd_utf8_decode(p, (size_t)(l->end - p), &cp);
        if (n == 0)
            return pd_json_fail(l, PD_EPROTO, p, "valid UTF-8");
        p += n;
    } while (p < l->end && (unsigned char)*p >= 0x80);
    return p;
}

/* The string goes on at p, with a byte that is not plain, or at its end. */
static const char *odd_text(struct pd_json_lex *l, const char *p, bool *is_plain)
{
    const char *end = l->end;
    while (p != NULL) {
        p = pd_json_plain_run(p, end);
        if (p == end)
            return pd_json_fail(l, PD_EPROTO, p, "the closing quote of a string");
        if (*p == '"')
            return p + 1;
        if (*p == '\\') {
            *is_plain = false;
            p = escape(l, p);
        } else if ((unsigned char)*p < 0x20) {
            return pd_json_fail(l, PD_EPROTO, p, "an escape instead of a control character");
        } else {
            p = wide_run(l, p);
        }
    }
    return NULL;
}

const char *pd_json_text_rest(struct pd_json_lex *l, const char *p, bool *is_plain)
{
    const char *end = l->end;

    *is_plain = true;
    if (end - p >= PD_JSON_LONG && pd_json_is_plain((unsigned char)*p))
        p = pd_json_plain_long(p, end);
    return p < end && *p == '"' ? p + 1 : odd_text(l, p, is_plain);
}

static const char *digits(struct pd_json_lex *l, const char *p, const char *what)
{
    const char *first = p;
    while (p < l->end && *p >= '0' && *p <= '9')
        p++;
    return p == first ? pd_json_fail(l, PD_EPROTO, p, what) : p;
}

const char *pd_json_any_number(struct pd_json_lex *l, const char *p)
{
    if (*p == '-')
        p++;
    if (p < l->end && *p == '0') {
        p++;
        if (p < l->end && *p >= '0' && *p <= '9')
            return pd_json_fail(l, PD_EPROTO, p, "no digit after a leading zero");
    } else if ((p = digits(l, p, "a digit")) == NULL) {
        return NULL;
    }
    if (p < l->end && *p == '.' && (p = digits(l, p + 1, "a digit after the point")) == NULL)
        return NULL;
    if (p < l->end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < l->end && (*p == '+' || *p == '-'))
            p++;
        p = digits(l, p, "a digit of the exponent");
    }
    return p;
}

const char *pd_json_word(struct pd_json_lex *l, const char *p, struct pd_str word)
{
    if (!pd_str_starts_with(pd_str_of(p, (size_t)(l->end - p)), word))
        return pd_json_fail(l, PD_EPROTO, p, "a value");
    return p + word.n;
}
