/* SPDX-License-Identifier: Apache-2.0 */
/* The chain of block hashes, which a long prompt has many of: XXH3 compiled for
 * AVX2 beside the library's own. */
#include "base/hash.h"

#include "base/compiler.h"

static void chain_usual(const uint8_t *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out,
                        size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t take = PD_MIN(block, bytes - i * block);
        out[i] = chain = pd_hash_u64(pd_hash64(p + i * block, take, 0), chain);
    }
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2")
#define XXH_INLINE_ALL
#include <xxhash.h>

static void chain_avx2(const uint8_t *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out,
                       size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t take = PD_MIN(block, bytes - i * block);
        out[i] = chain = pd_hash_u64(XXH3_64bits(p + i * block, take), chain);
    }
}
#pragma GCC pop_options

void pd_hash_chain(const void *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out, size_t n)
{
    if (__builtin_cpu_supports("avx2"))
        chain_avx2(p, bytes, block, chain, out, n);
    else
        chain_usual(p, bytes, block, chain, out, n);
}
#else
void pd_hash_chain(const void *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out, size_t n)
{
    chain_usual(p, bytes, block, chain, out, n);
}
#endif
