/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to xxHash.  Not for secrets.  Results are the same on every
 * machine.  Any thread. */
#ifndef PD_BASE_HASH_H
#define PD_BASE_HASH_H

#include <pdplane/types.h>

struct pd_hash128 {
    uint64_t lo;
    uint64_t hi;
};

/* XXH3, 64 and 128 bits. */
uint64_t pd_hash64(const void *p, size_t n, uint64_t seed);
struct pd_hash128 pd_hash128(const void *p, size_t n, uint64_t seed);
/* A well mixed 64-bit value from a 64-bit value; a bijection for each seed: the finisher
 * of splitmix64 over the seeded value. */
static inline uint64_t pd_hash_u64(uint64_t v, uint64_t seed)
{
    v += seed + 0x9e3779b97f4a7c15u;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    return v ^ v >> 31;
}

/* One more link of a chain, from a hash that is well mixed already; a bijection of either. */
static inline uint64_t pd_hash_link(uint64_t hash, uint64_t chain)
{
    uint64_t v = (hash ^ chain) * 0x9e3779b97f4a7c15u;
    return v ^ v >> 32;
}

/* XXH3, 64 bits, with a secret of our own: what a block of a chain counts as. */
uint64_t pd_hash_block(const void *p, size_t n);
/* A chain over n blocks of `block` bytes each, the last one maybe shorter:
 *     out[i] = pd_hash_link(pd_hash_block(block i), out[i - 1]),   out[-1] = chain
 * A shorter one with others before it stands for the last `block` bytes instead, and its
 * length is added to their hash: so all that is hashed has one length.
 * p has `bytes` bytes; n is at most the number of blocks in them. */
void pd_hash_chain(const void *p, size_t bytes, size_t block, uint64_t chain, uint64_t *out, size_t n);

static inline bool pd_hash128_eq(struct pd_hash128 a, struct pd_hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

/* The same digests over parts.  Gives: pd_hasher_destroy; NULL when memory is
 * short.  One thread at a time. */
struct pd_hasher;
struct pd_hasher *pd_hasher_create(uint64_t seed);
void pd_hasher_destroy(struct pd_hasher *h);
void pd_hasher_reset(struct pd_hasher *h, uint64_t seed);
void pd_hasher_update(struct pd_hasher *h, const void *p, size_t n);
/* What has been fed so far; feeding may go on. */
struct pd_hash128 pd_hasher_digest128(const struct pd_hasher *h);
uint64_t pd_hasher_digest64(const struct pd_hasher *h);

#endif
