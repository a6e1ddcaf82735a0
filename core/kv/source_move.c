/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a source on their way: wire blocks that are ready become a plan, about one
 * post's worth at a time, and the plan becomes posts within the transport's limits.
 *
 * `posted` is the next offset in the target: it grows by what each post took, in the order
 * of the tokens.  At most `inflight_bytes` and POSTS_AT_A_TIME posts are on their way. */
#include "kv/source_int.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"

#define POSTS_AT_A_TIME 64u

pd_status pd_kv_source_place(struct pd_kv_source *source, uint32_t a, uint32_t b,
                             struct pd_kv_place *place)
{
    const struct pd_layout *l = &source->e.region->layout;
    uint32_t first = a / l->block_tokens;
    uint32_t n = (b - 1) / l->block_tokens - first + 1;
    if (n > source->index_cap) {
        void *p = pd_realloc_array(source->index, n, sizeof *source->index);
        if (p == NULL)
            return PD_ENOMEM;
        source->index = (uint32_t *)p;
        source->index_cap = n;
    }
    pd_status st = source->events.blocks(source, first, n, source->index, source->arg);
    *place = (struct pd_kv_place){ .layout = l, .pool_blocks = source->e.region->blocks,
                                   .first_block = first, .n_blocks = n, .blocks = source->index };
    return st;
}

bool pd_kv_source_is_ready(const struct pd_kv_source *source, uint32_t block)
{
    uint32_t a, b;
    if (block >= source->e.n_wire)
        return false;
    pd_kv_wire_range(source->e.from, source->e.to, source->e.wire_tokens, block, &a, &b);
    return b <= source->ready;
}

/* Plans the next wire blocks that are ready, about one post of them. */
static pd_status plan_more(struct pd_kv_source *source)
{
    struct pd_kv_end *e = &source->e;
    uint32_t first = source->planned, a = 0, b = 0, unused;
    uint64_t bytes = 0, token = pd_kv_layout_token_bytes(&e->region->layout);
    struct pd_kv_place place;
    pd_kv_plan_clear(&source->plan);
    source->plan_segment = 0;
    source->plan_offset = 0;
    while (pd_kv_source_is_ready(source, source->planned) && bytes < e->kv->conf.post_bytes &&
           source->planned - first < 256) {
        pd_kv_wire_range(e->from, e->to, e->wire_tokens, source->planned++, &a, &b);
        bytes += (b - a) * token;
    }
    if (source->planned == first)
        return PD_OK;
    pd_kv_wire_range(e->from, e->to, e->wire_tokens, first, &a, &unused);
    pd_status st = pd_kv_source_place(source, a, b, &place);
    if (st == PD_OK)
        st = pd_kv_plan_add(&source->plan, &place, a, b, e->wire_tokens, PD_KV_MAX_SEGMENTS);
    return st;
}

/* Posts the next part of the plan within the transport's limits. */
static pd_status post_some(struct pd_kv_source *source)
{
    const struct pd_kv_transport *t = pd_kv_source_transport(source);
    struct pd_segment *s = &source->plan.segments[source->plan_segment];
    uint32_t left = source->plan.n - source->plan_segment, n = 0;
    uint64_t limit = PD_MIN(t->info.max_bytes, source->e.kv->conf.post_bytes), bytes = 0;
    uint32_t max = PD_MIN(left, t->info.max_segments);
    struct pd_segment cut = *s;
    while (n < max && s[n].bytes <= limit - bytes)
        bytes += s[n++].bytes;
    bool is_cut = n == 0;
    if (is_cut) {
        cut.bytes = bytes = limit;
        n = 1;
    }
    struct pd_kv_post *post = (struct pd_kv_post *)pd_calloc(1, sizeof *post);
    if (post == NULL)
        return PD_ENOMEM;
    struct pd_post desc = {
        .size = sizeof desc, .op = PD_TRANSPORT_WRITE, .offset = source->posted,
        .memory = source->e.region->memory[source->candidates[source->at_candidate].transport],
        .segments = is_cut ? &cut : s, .n_segments = n, .arg = post,
    };
    post->source = source;
    post->bytes = bytes;
    pd_list_init(&post->node);
    pd_status st = t->ops->post(source->target, &desc, &post->transfer);
    if (st != PD_OK) {
        pd_free(post);
        return st;
    }
    pd_list_append(&source->posts, &post->node);
    source->posted += bytes;
    source->in_flight += bytes;
    if (is_cut) {
        s->offset += bytes;
        s->bytes -= bytes;
    } else {
        source->plan_segment += n;
    }
    return PD_OK;
}

void pd_kv_source_move(struct pd_kv_source *source)
{
    struct pd_kv *kv = source->e.kv;
    while (!source->is_blocked && source->in_flight < kv->conf.inflight_bytes &&
           pd_list_count(&source->posts) < POSTS_AT_A_TIME) {
        pd_status st = PD_OK;
        if (source->plan_segment == source->plan.n)
            st = plan_more(source);
        if (st == PD_OK && source->plan_segment == source->plan.n)
            return;
        if (st == PD_OK)
            st = post_some(source);
        if (st == PD_EAGAIN) {
            source->is_blocked = true;
        } else if (st != PD_OK) {
            pd_kv_source_give_up(source, PD_KV_FAILED, st, "a transfer could not be posted", true);
            return;
        }
    }
}
