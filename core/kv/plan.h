/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: where in a pool the KV of a token range lies, in wire order.
 *
 * Wire order of tokens [from, to) with wire blocks of w tokens (aligned to
 * multiples of w from the start of the sequence): for each wire block, for each
 * layer, K then V: its tokens within the range, kv heads, head dim.  The range
 * [a, b) of a window thus lies at bytes (a - from) * token_bytes when a and b
 * are ends of wire blocks.  Both sides compile their own pool against this
 * order, so their block sizes and orders may differ. */
#ifndef PD_KV_PLAN_H
#define PD_KV_PLAN_H

#include <pdplane/layout.h>
#include <pdplane/transport.h>

struct pd_kv_plan {
    struct pd_segment *segments;
    uint32_t n;
    uint32_t cap;
    uint64_t bytes;
};

/* A part of a sequence in a pool. */
struct pd_kv_place {
    const struct pd_layout *layout; /* checked */
    uint32_t pool_blocks;
    uint32_t first_block;       /* of the sequence, which blocks[0] stands for */
    uint32_t n_blocks;
    const uint32_t *blocks;     /* indices in the pool */
};

void pd_kv_plan_init(struct pd_kv_plan *plan);
void pd_kv_plan_fini(struct pd_kv_plan *plan);
/* Empty again, memory kept. */
void pd_kv_plan_clear(struct pd_kv_plan *plan);
/* Appends tokens [from, to) in wire order, adjacent runs merged.  PD_OK;
 * PD_EINVAL: the range is empty or not covered by the place, or an index is
 * outside the pool; PD_ELIMIT: more than max segments; PD_ENOMEM.  After an
 * error the plan is as it was before. */
pd_status pd_kv_plan_add(struct pd_kv_plan *plan, const struct pd_kv_place *place, uint32_t from,
                         uint32_t to, uint32_t wire_tokens, uint32_t max);

/* Wire blocks that tokens [from, to) touch. */
static inline uint32_t pd_kv_wire_blocks(uint32_t from, uint32_t to, uint32_t wire_tokens)
{
    return (uint32_t)(((uint64_t)to + wire_tokens - 1) / wire_tokens) - from / wire_tokens;
}

/* Tokens of the i-th of these. */
static inline void pd_kv_wire_range(uint32_t from, uint32_t to, uint32_t wire_tokens, uint32_t i,
                                    uint32_t *a, uint32_t *b)
{
    uint64_t start = ((uint64_t)from / wire_tokens + i) * wire_tokens;
    uint64_t end = start + wire_tokens;
    *a = start < from ? from : (uint32_t)start;
    *b = end > to ? to : (uint32_t)end;
}

#endif
