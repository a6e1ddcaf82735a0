/* SPDX-License-Identifier: Apache-2.0 */
/* Digests.  XXH3 guards against accidents, not against a peer that lies about
 * its own KV: such a peer could compute the digest as well. */
#include "kv/digest.h"

#include "base/compiler.h"
#include "base/wire.h"

static uint64_t hash_tokens(const int32_t *tokens, uint32_t n, uint64_t seed)
{
    uint8_t b[4 * 256];
    while (n > 0) {
        uint32_t k = PD_MIN(n, 256u);
        for (uint32_t i = 0; i < k; i++)
            pd_wire_put_u32(b + 4 * i, (uint32_t)tokens[i]);
        seed = pd_hash64(b, 4 * (size_t)k, seed);
        tokens += k;
        n -= k;
    }
    return seed;
}

uint64_t pd_kv_digest_keys(const uint8_t model[16], const int32_t *tokens, uint32_t from,
                           uint32_t to,
                           uint32_t wire_tokens, uint64_t *keys)
{
    uint32_t n = pd_kv_wire_blocks(from, to, wire_tokens);
    uint64_t chain = hash_tokens(tokens, from, pd_hash64(model, 16, 0));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a, b;
        pd_kv_wire_range(from, to, wire_tokens, i, &a, &b);
        chain = hash_tokens(tokens + a, b - a, chain);
        keys[i] = pd_hash_u64((uint64_t)a << 32 | b, chain);
    }
    return chain;
}

pd_status pd_kv_digester_init(struct pd_kv_digester *d, const void *base)
{
    pd_kv_plan_init(&d->plan);
    d->base = (const uint8_t *)base;
    d->segment = 0;
    d->offset = 0;
    d->hasher = pd_hasher_create(0);
    return d->hasher == NULL ? PD_ENOMEM : PD_OK;
}

void pd_kv_digester_fini(struct pd_kv_digester *d)
{
    pd_hasher_destroy(d->hasher);
    d->hasher = NULL;
    pd_kv_plan_fini(&d->plan);
}

void pd_kv_digester_begin(struct pd_kv_digester *d, uint64_t key)
{
    pd_hasher_reset(d->hasher, key);
    d->segment = 0;
    d->offset = 0;
}

bool pd_kv_digester_run(struct pd_kv_digester *d, uint64_t *budget, uint64_t *out)
{
    while (d->segment < d->plan.n && *budget > 0) {
        const struct pd_segment *s = &d->plan.segments[d->segment];
        uint64_t n = PD_MIN(s->bytes - d->offset, *budget);
        pd_hasher_update(d->hasher, d->base + s->offset + d->offset, (size_t)n);
        d->offset += n;
        *budget -= n;
        if (d->offset == s->bytes) {
            d->segment++;
            d->offset = 0;
        }
    }
    if (d->segment < d->plan.n)
        return false;
    *out = pd_hasher_digest64(d->hasher);
    return true;
}
