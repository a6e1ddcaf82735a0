/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing, cutting and reading numbers from byte ranges.  Nothing here trusts
 * a terminating zero byte, and an empty range may have any pointer. */
#include "base/str.h"

#include "base/compiler.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned char fold(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static bool same_nocase(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (fold(a[i]) != fold(b[i]))
            return false;
    }
    return true;
}

bool pd_str_eq_nocase(struct pd_str a, struct pd_str b)
{
    return a.n == b.n && same_nocase(a.p, b.p, a.n);
}

int pd_str_cmp(struct pd_str a, struct pd_str b)
{
    size_t n = PD_MIN(a.n, b.n);
    int diff = n == 0 ? 0 : memcmp(a.p, b.p, n);
    if (diff != 0)
        return diff;
    return a.n < b.n ? -1 : a.n > b.n;
}

bool pd_str_starts_with(struct pd_str s, struct pd_str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool pd_str_starts_with_nocase(struct pd_str s, struct pd_str prefix)
{
    return s.n >= prefix.n && same_nocase(s.p, prefix.p, prefix.n);
}

bool pd_str_ends_with(struct pd_str s, struct pd_str suffix)
{
    return s.n >= suffix.n &&
           (suffix.n == 0 || memcmp(s.p + (s.n - suffix.n), suffix.p, suffix.n) == 0);
}

size_t pd_str_find(struct pd_str s, struct pd_str needle)
{
    if (needle.n == 0)
        return 0;
    if (s.n < needle.n)
        return PD_STR_NPOS;
    const char *at = (const char *)memmem(s.p, s.n, needle.p, needle.n);
    return at == NULL ? PD_STR_NPOS : (size_t)(at - s.p);
}

size_t pd_str_find_char(struct pd_str s, char c)
{
    const char *at = s.n == 0 ? NULL : (const char *)memchr(s.p, c, s.n);
    return at == NULL ? PD_STR_NPOS : (size_t)(at - s.p);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct pd_str pd_str_trim(struct pd_str s)
{
    while (s.n != 0 && is_space(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n != 0 && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

struct pd_str pd_str_sub(struct pd_str s, size_t off, size_t n)
{
    if (off > s.n)
        off = s.n;
    if (n > s.n - off)
        n = s.n - off;
    return (struct pd_str){ off == 0 ? s.p : s.p + off, n };
}

bool pd_str_split(struct pd_str *rest, char sep, struct pd_str *part)
{
    if (rest->p == NULL)
        return false;
    size_t at = pd_str_find_char(*rest, sep);
    if (at == PD_STR_NPOS) {
        *part = *rest;
        *rest = (struct pd_str){ NULL, 0 };
    } else {
        *part = pd_str_sub(*rest, 0, at);
        *rest = pd_str_sub(*rest, at + 1, SIZE_MAX);
    }
    return true;
}

pd_status pd_str_copy(struct pd_str s, char *dst, size_t size)
{
    if (size == 0)
        return PD_ELIMIT;
    size_t n = PD_MIN(s.n, size - 1);
    if (n != 0)
        memcpy(dst, s.p, n);
    dst[n] = '\0';
    return n == s.n ? PD_OK : PD_ELIMIT;
}

size_t pd_str_addf(char *dst, size_t size, size_t at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(dst + at, size - at, fmt, ap);
    va_end(ap);
    if ((size_t)n < size - at)
        return at + (size_t)n;
    dst[at] = '\0';
    return at;
}

pd_status pd_str_parse_u64(struct pd_str s, uint64_t *out)
{
    uint64_t v = 0;
    bool over = false;
    if (s.n == 0)
        return PD_EINVAL;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';
        if (digit > 9)
            return PD_EINVAL;
        over |= __builtin_mul_overflow(v, (uint64_t)10, &v);
        over |= __builtin_add_overflow(v, (uint64_t)digit, &v);
    }
    if (over)
        return PD_ELIMIT;
    *out = v;
    return PD_OK;
}

pd_status pd_str_parse_i64(struct pd_str s, int64_t *out)
{
    bool is_negative = s.n != 0 && s.p[0] == '-';
    uint64_t v;
    pd_status status = pd_str_parse_u64(is_negative ? pd_str_sub(s, 1, SIZE_MAX) : s, &v);
    if (status != PD_OK)
        return status;
    if (v > (uint64_t)INT64_MAX + (is_negative ? 1 : 0))
        return PD_ELIMIT;
    *out = is_negative ? (int64_t)(0 - v) : (int64_t)v;
    return PD_OK;
}

pd_status pd_str_parse_hex(struct pd_str s, uint64_t *out)
{
    uint64_t v = 0;
    bool over = false;
    if (s.n == 0)
        return PD_EINVAL;
    for (size_t i = 0; i < s.n; i++) {
        char c = (char)fold(s.p[i]);
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else
            return PD_EINVAL;
        over |= v >> 60 != 0;
        v = v << 4 | digit;
    }
    if (over)
        return PD_ELIMIT;
    *out = v;
    return PD_OK;
}

/* Steps over digits; whether there was at least one. */
static bool skip_digits(struct pd_str s, size_t *i)
{
    size_t start = *i;
    while (*i < s.n && s.p[*i] >= '0' && s.p[*i] <= '9')
        (*i)++;
    return *i != start;
}

/* The grammar of pd_str_parse_double; strtod alone takes much more. */
static bool is_decimal(struct pd_str s)
{
    size_t i = s.n != 0 && s.p[0] == '-' ? 1 : 0;
    if (!skip_digits(s, &i))
        return false;
    if (i < s.n && s.p[i] == '.') {
        i++;
        if (!skip_digits(s, &i))
            return false;
    }
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        i++;
        if (i < s.n && (s.p[i] == '+' || s.p[i] == '-'))
            i++;
        if (!skip_digits(s, &i))
            return false;
    }
    return i == s.n;
}

/* The program never calls setlocale, so strtod reads a point as in "C". */
pd_status pd_str_parse_double(struct pd_str s, double *out)
{
    char text[512];
    uint64_t whole = 0;
    size_t n = 0;
    /* Numbers of up to 15 digits are exact. */
    for (; n < s.n && n < 16 && s.p[n] >= '0' && s.p[n] <= '9'; n++)
        whole = whole * 10 + (uint64_t)(s.p[n] - '0');
    if (n > 0 && n == s.n && n < 16) {
        *out = (double)whole;
        return PD_OK;
    }
    if (!is_decimal(s))
        return PD_EINVAL;
    if (pd_str_copy(s, text, sizeof text) != PD_OK)
        return PD_ELIMIT;
    double v = strtod(text, NULL);
    if (!isfinite(v))
        return PD_ELIMIT;
    *out = v;
    return PD_OK;
}

pd_status pd_str_parse_bool(struct pd_str s, bool *out)
{
    static const struct {
        struct pd_str word;
        bool value;
    } words[] = {
        { { "true", 4 }, true },   { { "yes", 3 }, true }, { { "on", 2 }, true },
        { { "1", 1 }, true },      { { "false", 5 }, false }, { { "no", 2 }, false },
        { { "off", 3 }, false },   { { "0", 1 }, false },
    };
    for (size_t i = 0; i < PD_ARRAY_LEN(words); i++) {
        if (pd_str_eq_nocase(s, words[i].word)) {
            *out = words[i].value;
            return PD_OK;
        }
    }
    return PD_EINVAL;
}
