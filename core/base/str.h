/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers on struct pd_str, a range of bytes that somebody else owns.  All are
 * pure; any thread.  Case folding is ASCII only. */
#ifndef PD_BASE_STR_H
#define PD_BASE_STR_H

#include <string.h>

#include <pdplane/types.h>

#define PD_STR_NPOS SIZE_MAX

static inline struct pd_str pd_str_of(const void *p, size_t n)
{
    return (struct pd_str){ (const char *)p, n };
}

/* The bytes of a C string; NULL gives the empty string. */
static inline struct pd_str pd_str_from(const char *s)
{
    return (struct pd_str){ s == NULL ? "" : s, s == NULL ? 0 : strlen(s) };
}

static inline bool pd_str_eq(struct pd_str a, struct pd_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* The same for strings that are mostly of 8 to 16 bytes or 4 to 8: their ends are looked
 * at, without a call. */
static inline bool pd_str_eq_short(struct pd_str a, struct pd_str b)
{
    uint64_t x[2], y[2];
    uint32_t s[2], t[2];

    if (a.n != b.n || a.n < 4 || a.n > 16)
        return pd_str_eq(a, b);
    if (a.n < 8) {
        memcpy(&s[0], a.p, 4);
        memcpy(&s[1], a.p + a.n - 4, 4);
        memcpy(&t[0], b.p, 4);
        memcpy(&t[1], b.p + b.n - 4, 4);
        return ((s[0] ^ t[0]) | (s[1] ^ t[1])) == 0;
    }
    memcpy(&x[0], a.p, 8);
    memcpy(&x[1], a.p + a.n - 8, 8);
    memcpy(&y[0], b.p, 8);
    memcpy(&y[1], b.p + b.n - 8, 8);
    return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
}

static inline bool pd_str_is(struct pd_str a, const char *b)
{
    return pd_str_eq(a, pd_str_from(b));
}

bool pd_str_eq_nocase(struct pd_str a, struct pd_str b);
/* Byte order as memcmp, shorter first; below, equal to or above 0. */
int pd_str_cmp(struct pd_str a, struct pd_str b);
bool pd_str_starts_with(struct pd_str s, struct pd_str prefix);
bool pd_str_starts_with_nocase(struct pd_str s, struct pd_str prefix);
bool pd_str_ends_with(struct pd_str s, struct pd_str suffix);

/* Offset of the first match or PD_STR_NPOS. */
size_t pd_str_find(struct pd_str s, struct pd_str needle);
size_t pd_str_find_char(struct pd_str s, char c);

/* Without blanks, tabs, CR and LF at both ends. */
struct pd_str pd_str_trim(struct pd_str s);
/* n bytes from off; both are cut to what there is. */
struct pd_str pd_str_sub(struct pd_str s, size_t off, size_t n);
/* Cuts the part before the next sep off *rest; false when *rest was used up
 * (its p is NULL then).  "a,,b" gives "a", "", "b"; "" gives "" once. */
bool pd_str_split(struct pd_str *rest, char sep, struct pd_str *part);
/* Copies into dst with a zero byte at the end; PD_ELIMIT when it does not fit
 * (dst then holds the part that does). */
pd_status pd_str_copy(struct pd_str s, char *dst, size_t size);
/* Writes behind the first `at` bytes of the string in dst; returns how many it has then.
 * What does not fit as a whole is left out. */
size_t pd_str_addf(char *dst, size_t size, size_t at, const char *fmt, ...) PD_PRINTF(4, 5);

/* The whole string is one number, no blanks, no plus sign: PD_OK, PD_EINVAL
 * when it is none, PD_ELIMIT when it is out of range. */
pd_status pd_str_parse_u64(struct pd_str s, uint64_t *out);
pd_status pd_str_parse_i64(struct pd_str s, int64_t *out);
pd_status pd_str_parse_hex(struct pd_str s, uint64_t *out);
/* Decimal with optional fraction and exponent; no NaN, no infinity, no hex. */
pd_status pd_str_parse_double(struct pd_str s, double *out);
/* true, false, yes, no, on, off, 1, 0 in any case. */
pd_status pd_str_parse_bool(struct pd_str s, bool *out);

#endif
