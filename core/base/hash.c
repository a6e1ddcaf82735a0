/* SPDX-License-Identifier: Apache-2.0 */
/* xxHash behind our own names.  Digests cross machines, so they depend on the
 * library's stable formats only (XXH3 since 0.8). */
#include "base/hash.h"

#include "base/mem.h"

#include <xxhash.h>

uint64_t pd_hash64(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(n == 0 ? "" : p, n, seed);
}

struct pd_hash128 pd_hash128(const void *p, size_t n, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(n == 0 ? "" : p, n, seed);
    return (struct pd_hash128){ h.low64, h.high64 };
}

struct pd_hasher {
    XXH3_state_t *state;
};

struct pd_hasher *pd_hasher_create(uint64_t seed)
{
    struct pd_hasher *h = (struct pd_hasher *)pd_calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->state = XXH3_createState();
    if (h->state == NULL) {
        pd_free(h);
        return NULL;
    }
    pd_hasher_reset(h, seed);
    return h;
}

void pd_hasher_destroy(struct pd_hasher *h)
{
    if (h == NULL)
        return;
    XXH3_freeState(h->state);
    pd_free(h);
}

void pd_hasher_reset(struct pd_hasher *h, uint64_t seed)
{
    /* Also prepares the 64-bit digest: both share their state. */
    XXH3_128bits_reset_withSeed(h->state, seed);
}

void pd_hasher_update(struct pd_hasher *h, const void *p, size_t n)
{
    if (n != 0)
        XXH3_128bits_update(h->state, p, n);
}

struct pd_hash128 pd_hasher_digest128(const struct pd_hasher *h)
{
    XXH128_hash_t d = XXH3_128bits_digest(h->state);
    return (struct pd_hash128){ d.low64, d.high64 };
}

uint64_t pd_hasher_digest64(const struct pd_hasher *h)
{
    return XXH3_64bits_digest(h->state);
}
