/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen elements at a time where SSE2 is there, which is every x86-64. */
#include "split.h"

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static uint32_t load16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t load32(const uint8_t *p)
{
    return load16(p) | load16(p + 2) << 16;
}

static void store(uint8_t *p, uint32_t v, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static size_t split16_wide(const uint8_t *in, size_t n, uint8_t *lo, uint8_t *hi)
{
    size_t i = 0;
#if defined(__SSE2__)
    const __m128i low = _mm_set1_epi16(0xff);
    for (; i + 16 <= n; i += 16) {
        __m128i v[2];
        for (int k = 0; k < 2; k++) {
            __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(in + 2 * i) + k);
            v[k] = _mm_or_si128(_mm_slli_epi16(x, 1), _mm_srli_epi16(x, 15));
        }
        _mm_storeu_si128((__m128i *)(void *)(lo + i),
                         _mm_packus_epi16(_mm_and_si128(v[0], low), _mm_and_si128(v[1], low)));
        _mm_storeu_si128((__m128i *)(void *)(hi + i),
                         _mm_packus_epi16(_mm_srli_epi16(v[0], 8), _mm_srli_epi16(v[1], 8)));
    }
#else
    (void)in;
    (void)n;
    (void)lo;
    (void)hi;
#endif
    return i;
}

static void split16(const uint8_t *in, size_t n, uint8_t *lo, uint8_t *hi)
{
    for (size_t i = split16_wide(in, n, lo, hi); i < n; i++) {
        uint32_t v = load16(in + 2 * i);
        v = v << 1 | v >> 15;
        lo[i] = (uint8_t)v;
        hi[i] = (uint8_t)(v >> 8);
    }
}

static size_t merge16_wide(const uint8_t *lo, const uint8_t *hi, size_t n, uint8_t *out)
{
    size_t i = 0;
#if defined(__SSE2__)
    for (; i + 16 <= n; i += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(lo + i));
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(hi + i));
        __m128i v[2] = { _mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b) };
        for (int k = 0; k < 2; k++)
            _mm_storeu_si128((__m128i *)(void *)(out + 2 * i) + k,
                             _mm_or_si128(_mm_srli_epi16(v[k], 1), _mm_slli_epi16(v[k], 15)));
    }
#else
    (void)lo;
    (void)hi;
    (void)n;
    (void)out;
#endif
    return i;
}

static void merge16(const uint8_t *lo, const uint8_t *hi, size_t n, uint8_t *out)
{
    for (size_t i = merge16_wide(lo, hi, n, out); i < n; i++) {
        uint32_t v = lo[i] | (uint32_t)hi[i] << 8;
        store(out + 2 * i, v >> 1 | v << 15, 2);
    }
}

#if defined(__SSE2__)
/* Byte p of 16 elements. */
static __m128i byte_of(const __m128i *v, int p)
{
    const __m128i low = _mm_set1_epi32(0xff);
    __m128i x[4];
    for (int k = 0; k < 4; k++)
        x[k] = _mm_and_si128(_mm_srl_epi32(v[k], _mm_cvtsi32_si128(8 * p)), low);
    return _mm_packus_epi16(_mm_packs_epi32(x[0], x[1]), _mm_packs_epi32(x[2], x[3]));
}
#endif

static size_t split32_wide(const uint8_t *in, size_t n, uint8_t *out)
{
    size_t i = 0;
#if defined(__SSE2__)
    for (; i + 16 <= n; i += 16) {
        __m128i v[4];
        for (int k = 0; k < 4; k++) {
            __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(in + 4 * i) + k);
            v[k] = _mm_or_si128(_mm_slli_epi32(x, 1), _mm_srli_epi32(x, 31));
        }
        for (int p = 0; p < 4; p++)
            _mm_storeu_si128((__m128i *)(void *)(out + (size_t)p * n + i), byte_of(v, p));
    }
#else
    (void)in;
    (void)n;
    (void)out;
#endif
    return i;
}

static void split32(const uint8_t *in, size_t n, uint8_t *out)
{
    for (size_t i = split32_wide(in, n, out); i < n; i++) {
        uint32_t v = load32(in + 4 * i);
        v = v << 1 | v >> 31;
        for (size_t p = 0; p < 4; p++)
            out[p * n + i] = (uint8_t)(v >> 8 * p);
    }
}

static size_t merge32_wide(const uint8_t *const *in, size_t n, uint8_t *out)
{
    size_t i = 0;
#if defined(__SSE2__)
    for (; i + 16 <= n; i += 16) {
        __m128i b[4], v[4];
        for (int p = 0; p < 4; p++)
            b[p] = _mm_loadu_si128((const __m128i *)(const void *)(in[p] + i));
        __m128i lo0 = _mm_unpacklo_epi8(b[0], b[1]), lo1 = _mm_unpackhi_epi8(b[0], b[1]);
        __m128i hi0 = _mm_unpacklo_epi8(b[2], b[3]), hi1 = _mm_unpackhi_epi8(b[2], b[3]);
        v[0] = _mm_unpacklo_epi16(lo0, hi0);
        v[1] = _mm_unpackhi_epi16(lo0, hi0);
        v[2] = _mm_unpacklo_epi16(lo1, hi1);
        v[3] = _mm_unpackhi_epi16(lo1, hi1);
        for (int k = 0; k < 4; k++)
            _mm_storeu_si128((__m128i *)(void *)(out + 4 * i) + k,
                             _mm_or_si128(_mm_srli_epi32(v[k], 1), _mm_slli_epi32(v[k], 31)));
    }
#else
    (void)in;
    (void)n;
    (void)out;
#endif
    return i;
}

static void merge32(const uint8_t *const *in, size_t n, uint8_t *out)
{
    for (size_t i = merge32_wide(in, n, out); i < n; i++) {
        uint32_t v = 0;
        for (size_t p = 0; p < 4; p++)
            v |= (uint32_t)in[p][i] << 8 * p;
        store(out + 4 * i, v >> 1 | v << 31, 4);
    }
}

void planes_split(uint32_t width, const uint8_t *in, size_t n, uint8_t *out)
{
    if (width == 1)
        memcpy(out, in, n);
    else if (width == 2)
        split16(in, n, out, out + n);
    else
        split32(in, n, out);
}

void planes_merge(uint32_t width, const uint8_t *const *in, size_t n, uint8_t *out)
{
    if (width == 1)
        memcpy(out, in[0], n);
    else if (width == 2)
        merge16(in[0], in[1], n, out);
    else
        merge32(in, n, out);
}
