/* SPDX-License-Identifier: Apache-2.0 */
/* The chain of block hashes, which a long prompt has many of.  A processor with AES
 * instructions takes sixteen bytes a round: four lanes that each go through one AES
 * round for every sixteen bytes they take in, then three rounds that join the lanes
 * and three that mix in the block before.  Others use XXH3. */
#include "base/hash.h"

#include <string.h>

#include "base/compiler.h"

static void chain_usual(const uint8_t *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out,
                        size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t take = PD_MIN(block, bytes - i * block);
        out[i] = chain = pd_hash_u64(pd_hash64(p + i * block, take, 0), chain);
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AES __attribute__((target("avx,aes")))

/* Digits of pi, as good as any. */
static const uint64_t key[8] = {
    0x243f6a8885a308d3u, 0x13198a2e03707344u, 0xa4093822299f31d0u, 0x082efa98ec4e6c89u,
    0x452821e638d01377u, 0xbe5466cf34e90c6cu, 0xc0ac29b7c97c50ddu, 0x3f84d5b5b5470917u,
};

AES static inline __m128i at(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

/* Up to 16 bytes, zeros behind them. */
AES static inline __m128i few(const uint8_t *p, size_t n)
{
    uint8_t bytes[16] = { 0 };

    memcpy(bytes, p, n);
    return at(bytes);
}

AES static inline __m128i block_hash(const uint8_t *p, size_t n)
{
    __m128i a = at(key), b = at(key + 2), c = at(key + 4), d = at(key + 6);
    const uint8_t *end = p + n;

    for (; end - p >= 64; p += 64) {
        a = _mm_aesenc_si128(a, at(p));
        b = _mm_aesenc_si128(b, at(p + 16));
        c = _mm_aesenc_si128(c, at(p + 32));
        d = _mm_aesenc_si128(d, at(p + 48));
    }
    for (; end - p >= 16; p += 16)
        a = _mm_aesenc_si128(a, at(p));
    if (p < end)
        b = _mm_aesenc_si128(b, few(p, (size_t)(end - p)));
    /* The length keeps what ends in zeros apart from what is shorter. */
    c = _mm_xor_si128(c, _mm_cvtsi64_si128((long long)n));
    return _mm_aesenc_si128(_mm_aesenc_si128(a, b), _mm_aesenc_si128(c, d));
}

AES static void chain_aes(const uint8_t *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out, size_t n)
{
    const __m128i last = at(key);

    for (size_t i = 0; i < n; i++) {
        __m128i h = block_hash(p + i * block, PD_MIN(block, bytes - i * block));
        h = _mm_aesenc_si128(h, _mm_set1_epi64x((long long)chain));
        h = _mm_aesenc_si128(_mm_aesenc_si128(h, last), last);
        out[i] = chain = (uint64_t)_mm_cvtsi128_si64(h);
    }
}

void pd_hash_chain(const void *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out, size_t n)
{
    if (__builtin_cpu_supports("aes") && __builtin_cpu_supports("avx"))
        chain_aes(p, bytes, block, chain, out, n);
    else
        chain_usual(p, bytes, block, chain, out, n);
}
#else
void pd_hash_chain(const void *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out, size_t n)
{
    chain_usual(p, bytes, block, chain, out, n);
}
#endif
