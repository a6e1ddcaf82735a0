/* SPDX-License-Identifier: Apache-2.0 */
/* The inner loop that scanning and writing JSON share; private to them. */
#ifndef PD_BASE_JSON_RUN_H
#define PD_BASE_JSON_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* A byte that may stand in a string as it is, and is ASCII. */
static inline int pd_json_is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* With less than this to go a call is not worth it. */
#define PD_JSON_LONG 64

/* As pd_json_plain_run, with the widest instructions of this processor; may stop less
 * than 32 bytes before the first byte that is not plain, or at once. */
const char *pd_json_plain_long(const char *p, const char *end);

#if defined(__SSE2__)
/* The bytes of v that are not plain, as a mask. */
static inline unsigned pd_json_odd_bytes(__m128i v)
{
    /* Control characters are less than a space, and bytes from 0x80 are negative. */
    __m128i odd = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                                            _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))),
                               _mm_subs_epi8(v, _mm_set1_epi8(' ')));
    return (unsigned)_mm_movemask_epi8(odd);
}
#endif

#define PD_JSON_FIRST 16
/* The first byte from p that is not plain, or the one behind the next PD_JSON_FIRST, which
 * there must be. */
static inline const char *pd_json_plain_first(const char *p)
{
#if defined(__SSE2__)
    __m128i v;
    memcpy(&v, p, sizeof v);
    return p + (unsigned)__builtin_ctz(pd_json_odd_bytes(v) | 1u << PD_JSON_FIRST);
#else
    const char *end = p + PD_JSON_FIRST;
    while (p < end && pd_json_is_plain((unsigned char)*p))
        p++;
    return p;
#endif
}

/* The first byte from p that is not plain, or end. */
static inline const char *pd_json_plain_run(const char *p, const char *end)
{
#if defined(__SSE2__)
    for (bool is_long = end - p >= PD_JSON_LONG; end - p >= 16; is_long = false) {
        __m128i v;
        memcpy(&v, p, sizeof v);
        unsigned mask = pd_json_odd_bytes(v);
        if (mask != 0)
            return p + __builtin_ctz(mask);
        p += 16;
        if (is_long) {
            p = pd_json_plain_long(p, end);
            if (p < end && !pd_json_is_plain((unsigned char)*p))
                return p;
        }
    }
#else
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t tops = 0x8080808080808080u;
    while (end - p >= 8) {
        uint64_t v;
        memcpy(&v, p, sizeof v);
        uint64_t quote = v ^ ones * '"';
        uint64_t slash = v ^ ones * '\\';
        uint64_t odd = (quote - ones) & ~quote;
        odd |= (slash - ones) & ~slash;
        odd |= v - ones * 0x20;
        if (((odd | v) & tops) != 0)
            break;
        p += 8;
    }
#endif
    while (p < end && pd_json_is_plain((unsigned char)*p))
        p++;
    return p;
}

#endif
