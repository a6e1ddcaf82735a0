/* SPDX-License-Identifier: Apache-2.0 */
/* Digests of KV: 64 bits for each wire block, over its payload in wire order,
 * keyed by the model, the token range and the ids of all tokens up to its end.
 * KV of another prompt, another place or another model has another digest even
 * when its bytes arrived well. */
#ifndef PD_KV_DIGEST_H
#define PD_KV_DIGEST_H

#include "base/hash.h"
#include "kv/plan.h"

/* Fills one key for each wire block of [from, to); tokens are those of [0, to).
 * Returns a tag of all of them, the same exactly when layout's model and tokens
 * are. */
uint64_t pd_kv_digest_keys(const uint8_t model[16], const int32_t *tokens, uint32_t from,
                           uint32_t to,
                           uint32_t wire_tokens, uint64_t *keys);

/* A digest in the making over one plan after the other, a slice at a time. */
struct pd_kv_digester {
    struct pd_hasher *hasher;
    const uint8_t *base;        /* of the pool */
    struct pd_kv_plan plan;     /* of one wire block */
    uint32_t segment;
    uint64_t offset;            /* in that segment */
};

pd_status pd_kv_digester_init(struct pd_kv_digester *d, const void *base);
void pd_kv_digester_fini(struct pd_kv_digester *d);
/* Begins a block: the caller has filled d->plan. */
void pd_kv_digester_begin(struct pd_kv_digester *d, uint64_t key);
/* Reads up to *budget bytes and takes them off it; true when the block is done. */
bool pd_kv_digester_run(struct pd_kv_digester *d, uint64_t *budget, uint64_t *out);

#endif
