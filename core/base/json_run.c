/* SPDX-License-Identifier: Apache-2.0 */
/* Long runs of plain bytes in strings: 128 at a time, then 32, where the processor has
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

/* Those and what is not ASCII or a control character, as a mask.  Bytes from 0x80
 * are negative, as in the header, so the least one tells. */
__attribute__((target("avx2"))) static inline unsigned odd_bytes(__m256i marked, __m256i least)
{
    __m256i control = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), least);
    return (unsigned)_mm256_movemask_epi8(_mm256_or_si256(marked, control));
}

__attribute__((target("avx2"))) static const char *run_avx2(const char *p, const char *end)
{
    for (; end - p >= 128; p += 128) {
        const __m256i *from = (const __m256i *)(const void *)p;
        __m256i a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1);
        __m256i c = _mm256_loadu_si256(from + 2), d = _mm256_loadu_si256(from + 3);
        __m256i least = _mm256_min_epi8(_mm256_min_epi8(a, b), _mm256_min_epi8(c, d));
        __m256i marked = _mm256_or_si256(_mm256_or_si256(marks(a), marks(b)),
                                         _mm256_or_si256(marks(c), marks(d)));
        if (odd_bytes(marked, least) != 0)
            break;
    }
    for (; end - p >= 32; p += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
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
