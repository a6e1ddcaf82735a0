/* SPDX-License-Identifier: Apache-2.0 */
/* The plan compiler.  No segment ever leaves the pool and none covers a token
 * outside the range: the bytes of other tokens in a first or last block are
 * neither read nor written. */
#include "kv/plan.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "kv/layout.h"

void pd_kv_plan_init(struct pd_kv_plan *plan)
{
    plan->segments = NULL;
    plan->n = 0;
    plan->cap = 0;
    plan->bytes = 0;
}

void pd_kv_plan_fini(struct pd_kv_plan *plan)
{
    pd_free(plan->segments);
    pd_kv_plan_init(plan);
}

void pd_kv_plan_clear(struct pd_kv_plan *plan)
{
    plan->n = 0;
    plan->bytes = 0;
}

static pd_status append(struct pd_kv_plan *plan, uint64_t offset, uint64_t bytes,
                        uint32_t max)
{
    if (plan->n > 0) {
        struct pd_segment *last = &plan->segments[plan->n - 1];
        if (last->offset + last->bytes == offset) {
            last->bytes += bytes;
            plan->bytes += bytes;
            return PD_OK;
        }
    }
    if (plan->n >= max)
        return PD_ELIMIT;
    if (plan->n == plan->cap) {
        uint32_t cap = plan->cap == 0 ? 64 : plan->cap * 2;
        void *p = pd_realloc_array(plan->segments, cap, sizeof *plan->segments);
        if (p == NULL)
            return PD_ENOMEM;
        plan->segments = (struct pd_segment *)p;
        plan->cap = cap;
    }
    plan->segments[plan->n++] = (struct pd_segment){ offset, bytes };
    plan->bytes += bytes;
    return PD_OK;
}

/* Tokens [a, b) of one layer, K or V (plane). */
static pd_status add_plane(struct pd_kv_plan *plan, const struct pd_kv_place *p, uint32_t a,
                           uint32_t b, uint64_t plane, uint32_t max)
{
    const struct pd_layout *l = p->layout;
    uint64_t row = pd_kv_layout_row_bytes(l);
    uint32_t bt = l->block_tokens;
    for (uint32_t t = a; t < b;) {
        uint32_t block = t / bt;
        uint64_t end = ((uint64_t)block + 1) * bt;
        uint32_t stop = end > b ? b : (uint32_t)end;
        uint64_t index = p->blocks[block - p->first_block];
        uint64_t start = l->order == PD_KV_BLOCK_LAYER
                             ? index * l->block_bytes + (plane * bt + t % bt) * row
                             : ((plane * p->pool_blocks + index) * bt + t % bt) * row;
        pd_status st = append(plan, start, (stop - t) * row, max);
        if (st != PD_OK)
            return st;
        t = stop;
    }
    return PD_OK;
}

static pd_status add_wire_block(struct pd_kv_plan *plan, const struct pd_kv_place *p, uint32_t a,
                                uint32_t b, uint32_t max)
{
    const struct pd_layout *l = p->layout;
    /* A whole block that lies in one piece. */
    if (l->order == PD_KV_BLOCK_LAYER && a % l->block_tokens == 0 && b - a == l->block_tokens) {
        uint64_t index = p->blocks[a / l->block_tokens - p->first_block];
        return append(plan, index * l->block_bytes, l->block_bytes, max);
    }
    for (uint64_t plane = 0; plane < 2 * (uint64_t)l->layers; plane++) {
        pd_status st = add_plane(plan, p, a, b, plane, max);
        if (st != PD_OK)
            return st;
    }
    return PD_OK;
}

static bool is_covered(const struct pd_kv_place *p, uint32_t from, uint32_t to)
{
    const struct pd_layout *l = p->layout;
    uint32_t first = from / l->block_tokens, last = (to - 1) / l->block_tokens;
    /* The pool as a whole must be addressable. */
    if (p->pool_blocks == 0 || l->block_bytes > (UINT64_MAX >> 2) / p->pool_blocks)
        return false;
    if (first < p->first_block || last - p->first_block >= p->n_blocks)
        return false;
    for (uint32_t i = first; i <= last; i++)
        if (p->blocks[i - p->first_block] >= p->pool_blocks)
            return false;
    return true;
}

pd_status pd_kv_plan_add(struct pd_kv_plan *plan, const struct pd_kv_place *place, uint32_t from,
                         uint32_t to, uint32_t wire_tokens, uint32_t max)
{
    uint32_t before = plan->n;
    uint64_t bytes = plan->bytes;
    uint64_t tail = before > 0 ? plan->segments[before - 1].bytes : 0;
    if (from >= to || wire_tokens == 0 || !is_covered(place, from, to))
        return PD_EINVAL;
    uint32_t n = pd_kv_wire_blocks(from, to, wire_tokens);
    pd_status st = PD_OK;
    for (uint32_t i = 0; i < n && st == PD_OK; i++) {
        uint32_t a, b;
        pd_kv_wire_range(from, to, wire_tokens, i, &a, &b);
        /* Runs merge across calls too. */
        st = add_wire_block(plan, place, a, b, max);
    }
    if (st != PD_OK) {
        plan->n = before;
        plan->bytes = bytes;
        if (before > 0)
            plan->segments[before - 1].bytes = tail;
    }
    return st;
}
