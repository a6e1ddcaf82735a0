/* SPDX-License-Identifier: Apache-2.0 */
/* The inner loop that scanning and writing JSON share; private to them. */
#ifndef PD_BASE_JSON_RUN_H
#define PD_BASE_JSON_RUN_H

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
#define PD_JSON_LONG 256

/* As pd_json_plain_run, with the widest instructions of this processor; may stop
 * before the first byte that is not plain. */
const char *pd_json_plain_long(const char *p, const char *end);

#if defined(__SSE2__)
/* The bytes of v that are not plain, as a mask. */
static inline unsigned pd_json_odd_bytes(__m128i v)
{
    /* Bytes from 0x80 are negative, so one signed test finds them and the control
     * characters. */
    __m128i odd = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                                            _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))),
                               _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)));
    return (unsigned)_mm_movemask_epi8(odd);
}
#endif

/* The first byte from p that is not plain, if it is one of the first few; else NULL.
 * start: of the document, no byte before which is read. */
static inline const char *pd_json_plain_short(const char *p, const char *end, const char *start)
{
#if defined(__SSE2__)
    __m128i v;
    if (end - p >= 16) {
        memcpy(&v, p, sizeof v);
        unsigned odd = pd_json_odd_bytes(v);
        return odd != 0 ? p + __builtin_ctz(odd) : NULL;
    }
    /* The last ones of the document. */
    if (end - start >= 16) {
        memcpy(&v, end - 16, sizeof v);
        unsigned odd = pd_json_odd_bytes(v) >> (16 - (end - p));
        return odd != 0 ? p + __builtin_ctz(odd) : NULL;
    }
#else
    (void)p;
    (void)end;
    (void)start;
#endif
    return NULL;
}

/* The first byte from p that is not plain, or end. */
static inline const char *pd_json_plain_run(const char *p, const char *end)
{
#if defined(__SSE2__)
    const char *far = end - p >= PD_JSON_LONG ? p + 64 : NULL;
    while (end - p >= 16) {
        __m128i v;
        memcpy(&v, p, sizeof v);
        unsigned mask = pd_json_odd_bytes(v);
        if (mask != 0)
            return p + __builtin_ctz(mask);
        p += 16;
        if (p == far)
            p = pd_json_plain_long(p, end);
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
