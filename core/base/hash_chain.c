/* SPDX-License-Identifier: Apache-2.0 */
/* The chain of block hashes, which a long prompt has many of: XXH3 compiled for
 * AVX2 beside the library's own. */
#include "base/hash.h"

#include "base/compiler.h"
#include "base/hash_secret.h"

/* Bytes of the shorter block behind n - 1 whole ones, when that is the last one of n; else
 * 0. */
static inline size_t shorter(size_t bytes, size_t block, size_t n)
{
    return n > 1 && bytes < n * block ? bytes - (n - 1) * block : 0;
}

static void chain_usual(const uint8_t *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out,
                        size_t n)
{
    size_t tail = shorter(bytes, block, n), whole = n - (tail > 0);

    for (size_t i = 0; i < whole; i++)
        out[i] = chain = pd_hash_link(pd_hash_block(p + i * block, PD_MIN(block, bytes)), chain);
    if (tail > 0)
        out[whole] = pd_hash_link(pd_hash_block(p + bytes - block, block) + tail, chain);
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define USUAL 256u              /* what blocks have where nobody says otherwise */

#pragma GCC push_options
#pragma GCC target("avx2")
#pragma GCC optimize("peel-loops")
#define XXH_INLINE_ALL
#define XXH_NO_PREFETCH         /* the processor sees that bytes are read one after the other */
#include <xxhash.h>

static inline uint64_t block_avx2(const uint8_t *p, size_t n)
{
    return XXH3_64bits_withSecret(p, n, pd_hash_secret, sizeof pd_hash_secret);
}

static void chain_avx2(const uint8_t *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out,
                       size_t n)
{
    size_t tail = shorter(bytes, block, n), whole = n - (tail > 0);

    for (size_t i = 0; i < whole; i++)
        out[i] = chain = pd_hash_link(block_avx2(p + i * block, PD_MIN(block, bytes)), chain);
    if (tail > 0)
        out[whole] = pd_hash_link(block_avx2(p + bytes - block, block) + tail, chain);
}

/* Of a length that the compiler knows.  There is at least one such block. */
static void chain_avx2_usual(const uint8_t *p, size_t bytes, uint64_t chain, uint64_t *out, size_t n)
{
    size_t tail = shorter(bytes, USUAL, n), whole = n - (tail > 0);

    for (size_t i = 0; i < whole; i++, p += USUAL)
        out[i] = chain = pd_hash_link(block_avx2(p, USUAL), chain);
    if (tail > 0)
        out[whole] = pd_hash_link(block_avx2(p + tail - USUAL, USUAL) + tail, chain);
}
#pragma GCC pop_options

void pd_hash_chain(const void *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out, size_t n)
{
    if (!__builtin_cpu_supports("avx2"))
        chain_usual(p, bytes, block, chain, out, n);
    else if (block == USUAL && bytes >= USUAL)
        chain_avx2_usual(p, bytes, chain, out, n);
    else
        chain_avx2(p, bytes, block, chain, out, n);
}
#else
void pd_hash_chain(const void *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out, size_t n)
{
    chain_usual(p, bytes, block, chain, out, n);
}
#endif
