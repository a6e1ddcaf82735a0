/* SPDX-License-Identifier: Apache-2.0 */
/* Long runs of plain bytes in strings: 128 at a time where the processor has
 * AVX2.  Most of a long prompt is one such run. */
#include "base/json_run.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* Bytes that are not plain, as a mask. */
__attribute__((target("avx2"))) static inline __m256i odd_bytes(__m256i v)
{
    __m256i quote = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('"'));
    __m256i slash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\\'));
    /* Bytes from 0x80 are negative, as in the header. */
    __m256i low = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), v);
    return _mm256_or_si256(_mm256_or_si256(quote, slash), low);
}

__attribute__((target("avx2"))) static const char *run_avx2(const char *p, const char *end)
{
    for (; end - p >= 128; p += 128) {
        const __m256i *from = (const __m256i *)(const void *)p;
        __m256i a = odd_bytes(_mm256_loadu_si256(from));
        __m256i b = odd_bytes(_mm256_loadu_si256(from + 1));
        __m256i c = odd_bytes(_mm256_loadu_si256(from + 2));
        __m256i d = odd_bytes(_mm256_loadu_si256(from + 3));
        if (_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d))) != 0)
            break;
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
