/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers with units.  A number is read as whole part and fraction, both exact
 * integers, so that "0.1s" is 100 ms and not something beside it. */
#include "base/units.h"

#include "base/compiler.h"
#include "base/status.h"
#include "base/str.h"

#include <stdio.h>

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit byte_units[] = {
    { "", 1 },
    { "k", (uint64_t)1 << 10 },
    { "m", (uint64_t)1 << 20 },
    { "g", (uint64_t)1 << 30 },
    { "t", (uint64_t)1 << 40 },
    { "p", (uint64_t)1 << 50 },
};

static const struct unit time_units[] = {
    { "ns", 1 },
    { "us", PD_US },
    { "ms", PD_MS },
    { "s", PD_SEC },
    { "m", 60 * PD_SEC },
    { "min", 60 * PD_SEC },
    { "h", 3600 * PD_SEC },
    { "d", 86400 * PD_SEC },
};

/* A decimal number at the front of a text: whole + fraction / scale. */
struct decimal {
    uint64_t whole;
    uint64_t fraction;
    uint64_t scale;
};

/* Cuts digits off the front; PD_EINVAL when there are none. */
static pd_status take_digits(struct pd_str *s, struct pd_str *digits)
{
    size_t n = 0;
    while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9')
        n++;
    *digits = pd_str_sub(*s, 0, n);
    *s = pd_str_sub(*s, n, SIZE_MAX);
    return n == 0 ? PD_EINVAL : PD_OK;
}

static pd_status take_decimal(struct pd_str *s, struct decimal *d)
{
    struct pd_str digits;
    pd_status status = take_digits(s, &digits);
    d->fraction = 0;
    d->scale = 1;
    if (status == PD_OK)
        status = pd_str_parse_u64(digits, &d->whole);
    if (status != PD_OK || s->n == 0 || s->p[0] != '.')
        return status;
    *s = pd_str_sub(*s, 1, SIZE_MAX);
    status = take_digits(s, &digits);
    if (status != PD_OK)
        return status;
    if (digits.n > 9)
        return PD_EINVAL;
    for (size_t i = 0; i < digits.n; i++)
        d->scale *= 10;
    return pd_str_parse_u64(digits, &d->fraction);
}

/* d times factor, rounded to the nearest. */
static pd_status scale_decimal(const struct decimal *d, uint64_t factor, uint64_t *out)
{
    unsigned __int128 v = (unsigned __int128)d->whole * factor;
    v += ((unsigned __int128)d->fraction * factor + d->scale / 2) / d->scale;
    if (v > UINT64_MAX)
        return PD_ELIMIT;
    *out = (uint64_t)v;
    return PD_OK;
}

static const struct unit *find_unit(const struct unit *units, size_t n, struct pd_str name)
{
    for (size_t i = 0; i < n; i++) {
        if (pd_str_eq_nocase(name, pd_str_from(units[i].name)))
            return &units[i];
    }
    return NULL;
}

static pd_status fail_bytes(struct pd_err *err, pd_status status, struct pd_str s)
{
    int n = (int)PD_MIN(s.n, (size_t)60);
    if (status == PD_ELIMIT)
        return pd_err_set(err, status, "size \"%.*s\" is too large", n, s.p);
    return pd_err_set(err, PD_EINVAL,
                      "expected a size such as \"4096\", \"512k\", \"1.5m\" or \"4g\", "
                      "not \"%.*s\"", n, s.p);
}

pd_status pd_units_parse_bytes(struct pd_str s, uint64_t *bytes, struct pd_err *err)
{
    struct pd_str rest = pd_str_trim(s);
    struct decimal d;
    uint64_t v;
    pd_status status = take_decimal(&rest, &d);
    if (status != PD_OK)
        return fail_bytes(err, status, s);
    rest = pd_str_trim(rest);
    if (rest.n > 2 && pd_str_eq_nocase(pd_str_sub(rest, 1, 2), PD_STR("ib")))
        rest.n -= 2;
    else if (rest.n != 0 && (rest.p[rest.n - 1] == 'b' || rest.p[rest.n - 1] == 'B'))
        rest.n--;
    const struct unit *unit = find_unit(byte_units, PD_ARRAY_LEN(byte_units), rest);
    if (unit == NULL || (unit->factor == 1 && d.scale != 1))
        return fail_bytes(err, PD_EINVAL, s);
    status = scale_decimal(&d, unit->factor, &v);
    if (status != PD_OK)
        return fail_bytes(err, status, s);
    *bytes = v;
    return PD_OK;
}

static pd_status fail_duration(struct pd_err *err, pd_status status, struct pd_str s)
{
    int n = (int)PD_MIN(s.n, (size_t)60);
    if (status == PD_ELIMIT)
        return pd_err_set(err, status, "duration \"%.*s\" is too long", n, s.p);
    return pd_err_set(err, PD_EINVAL,
                      "expected a duration such as \"250ms\", \"10s\", \"5m\" or \"1h\", "
                      "not \"%.*s\"", n, s.p);
}

/* One "number unit" of a duration. */
static pd_status take_duration(struct pd_str *rest, uint64_t *out)
{
    struct decimal d;
    size_t n = 0;
    pd_status status = take_decimal(rest, &d);
    if (status != PD_OK)
        return status;
    *rest = pd_str_trim(*rest);
    while (n < rest->n && (rest->p[n] < '0' || rest->p[n] > '9') && rest->p[n] != ' ')
        n++;
    const struct unit *unit =
        find_unit(time_units, PD_ARRAY_LEN(time_units), pd_str_sub(*rest, 0, n));
    if (unit == NULL || (unit->factor == 1 && d.scale != 1))
        return PD_EINVAL;
    *rest = pd_str_trim(pd_str_sub(*rest, n, SIZE_MAX));
    return scale_decimal(&d, unit->factor, out);
}

pd_status pd_units_parse_duration(struct pd_str s, pd_time *ns, struct pd_err *err)
{
    struct pd_str rest = pd_str_trim(s);
    uint64_t sum = 0;
    if (pd_str_is(rest, "0")) {
        *ns = 0;
        return PD_OK;
    }
    if (rest.n == 0)
        return fail_duration(err, PD_EINVAL, s);
    while (rest.n != 0) {
        uint64_t part = 0;
        pd_status status = take_duration(&rest, &part);
        if (status == PD_OK && __builtin_add_overflow(sum, part, &sum))
            status = PD_ELIMIT;
        if (status != PD_OK)
            return fail_duration(err, status, s);
    }
    if (sum == PD_TIME_NEVER)
        return fail_duration(err, PD_ELIMIT, s);
    *ns = sum;
    return PD_OK;
}

/* v / factor with at most two digits behind the point and three in all. */
static const char *format_scaled(uint64_t v, uint64_t factor, const char *unit,
                                 char out[PD_UNITS_TEXT])
{
    double scaled = (double)v / (double)factor;
    int digits = scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0;
    snprintf(out, PD_UNITS_TEXT, "%.*f", digits, scaled);
    size_t n = strlen(out);
    if (digits != 0) {
        while (out[n - 1] == '0')
            n--;
        if (out[n - 1] == '.')
            n--;
    }
    snprintf(out + n, PD_UNITS_TEXT - n, " %s", unit);
    return out;
}

const char *pd_units_format_bytes(uint64_t bytes, char out[PD_UNITS_TEXT])
{
    static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    size_t i = 0;
    while (i + 1 < PD_ARRAY_LEN(byte_units) && bytes >= byte_units[i + 1].factor)
        i++;
    return format_scaled(bytes, byte_units[i].factor, names[i], out);
}

const char *pd_units_format_duration(pd_time ns, char out[PD_UNITS_TEXT])
{
    static const struct unit shown[] = {
        { "d", 86400 * PD_SEC }, { "h", 3600 * PD_SEC }, { "min", 60 * PD_SEC }, { "s", PD_SEC },
        { "ms", PD_MS },         { "us", PD_US },        { "ns", 1 },
    };
    if (ns == PD_TIME_NEVER) {
        snprintf(out, PD_UNITS_TEXT, "never");
        return out;
    }
    if (ns == 0) {
        snprintf(out, PD_UNITS_TEXT, "0 s");
        return out;
    }
    size_t i = 0;
    while (ns < shown[i].factor)
        i++;
    return format_scaled(ns, shown[i].factor, shown[i].name, out);
}

/* The largest unit that divides v. */
static const char *print_exact(uint64_t v, const struct unit *units, size_t n,
                               char out[PD_UNITS_TEXT])
{
    const struct unit *best = &units[0];
    for (size_t i = 1; i < n; i++) {
        if (v != 0 && v % units[i].factor == 0 && units[i].factor > best->factor)
            best = &units[i];
    }
    snprintf(out, PD_UNITS_TEXT, "%llu%s", (unsigned long long)(v / best->factor), best->name);
    return out;
}

const char *pd_units_print_bytes(uint64_t bytes, char out[PD_UNITS_TEXT])
{
    return print_exact(bytes, byte_units, PD_ARRAY_LEN(byte_units), out);
}

const char *pd_units_print_duration(pd_time ns, char out[PD_UNITS_TEXT])
{
    if (ns == 0) {
        snprintf(out, PD_UNITS_TEXT, "0s");
        return out;
    }
    return print_exact(ns, time_units, PD_ARRAY_LEN(time_units), out);
}
