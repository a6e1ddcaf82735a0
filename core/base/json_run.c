/* SPDX-License-Identifier: Apache-2.0 */
/* Long runs of plain bytes in strings: 256 at a time, then 32, where the processor has
 * AVX2.  Most of a long prompt is one such run. */
#include "base/json_run.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* The quotes and backslashes: the place of a byte's low half in the table holds the
 * one of them that ends with it. */
__attribute__((target("avx2"))) static inline __m256i marks(__m256i v)
{
    const __m256i table = _mm256_setr_epi8(1, 0, '"', 0, 0, 0, 0, 0, 0, 0, 0, 0, '\\', 0, 0, 0,
                                           1, 0, '"', 0, 0, 0, 0, 0, 0, 0, 0, 0, '\\', 0, 0, 0);
    return _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, v), v);
}

/* Those and what is not ASCII or a control character, as a mask.  Both are less than a
 * space, as in the header, so the least byte tells. */
__attribute__((target("avx2"))) static inline unsigned odd_bytes(__m256i marked, __m256i least)
{
    __m256i less = _mm256_subs_epi8(least, _mm256_set1_epi8(' '));
    return (unsigned)_mm256_movemask_epi8(_mm256_or_si256(marked, less));
}

__attribute__((target("avx2"))) static inline __m256i at(const char *p)
{
    __m256i v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Whether all of the next 32 * n bytes are plain. */
__attribute__((target("avx2"))) static inline int all_plain(const char *p, int n)
{
    __m256i least = at(p), marked = marks(least);
#pragma GCC unroll 8
    for (int i = 1; i < n; i++) {
        least = _mm256_min_epi8(least, at(p + 32 * i));
        marked = _mm256_or_si256(marked, marks(at(p + 32 * i)));
    }
    return odd_bytes(marked, least) == 0;
}

/* Most runs are short. */
#define STEPS 2

__attribute__((target("avx2"))) static const char *run_avx2(const char *p, const char *end)
{
    for (int i = 0; end - p >= 32; p += 32, i++) {
        if (i == STEPS) {
            for (size_t n = (size_t)(end - p) / 256; n != 0 && all_plain(p, 8); n--)
                p += 256;
            if (end - p < 32)
                break;
        }
        __m256i v = at(p);
        unsigned odd = odd_bytes(marks(v), v);
        if (odd != 0)
            return p + __builtin_ctz(odd);
    }
    return p;
}

const char *pd_json_plain_long(const char *p, const char *end)
{
    return __builtin_cpu_supports("avx2") ? run_avx2(p, end) : p;
}
#else
const char *pd_json_plain_long(const char *p, const char *end)
{
    (void)end;
    return p;
}
#endif
