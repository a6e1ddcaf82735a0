/* SPDX-License-Identifier: Apache-2.0 */
/* The digests of a source: each wire block that may be read is digested once, in slices,
 * and told to the destination in messages of many.
 *
 * at_block is what is digested, digests_sent what is told; the first is never behind. */
#include "kv/source_int.h"

#include "base/compiler.h"

bool pd_kv_source_digest(struct pd_kv_job *job, uint64_t *budget)
{
    struct pd_kv_source *source = pd_container_of(job, struct pd_kv_source, e.job);
    struct pd_kv_end *e = &source->e;
    pd_time from = pd_loop_clock(e->kv->loop);
    pd_status st = PD_OK;
    while (*budget > 0 && e->verdict == 0 && pd_kv_source_is_ready(source, e->at_block)) {
        if (!e->in_block) {
            struct pd_kv_place place;
            uint32_t a, b;
            pd_kv_wire_range(e->from, e->to, e->wire_tokens, e->at_block, &a, &b);
            pd_kv_plan_clear(&e->digester.plan);
            st = pd_kv_source_place(source, a, b, &place);
            if (st == PD_OK)
                st = pd_kv_plan_add(&e->digester.plan, &place, a, b, e->wire_tokens,
                                    PD_KV_MAX_SEGMENTS);
            if (st != PD_OK) {
                pd_kv_source_give_up(source, PD_KV_FAILED, st, "the blocks cannot be read", true);
                break;
            }
            pd_kv_digester_begin(&e->digester, e->keys[e->at_block]);
            e->in_block = true;
        }
        if (!pd_kv_digester_run(&e->digester, budget, &e->digests[e->at_block]))
            break;
        e->in_block = false;
        e->at_block++;
    }
    e->verify_ns += pd_loop_clock(e->kv->loop) - from;
    if (e->at_block == e->n_wire || e->at_block - source->digests_sent >= PD_KV_DIGESTS_PER_MESSAGE)
        pd_kv_source_kick(source);
    return e->verdict != 0 || !pd_kv_source_is_ready(source, e->at_block);
}

void pd_kv_source_send_digests(struct pd_kv_source *source)
{
    struct pd_kv_end *e = &source->e;
    while (source->digests_sent < e->at_block && e->verdict == 0) {
        uint32_t n = e->at_block - source->digests_sent;
        if (n < PD_KV_DIGESTS_PER_MESSAGE && e->at_block < e->n_wire)
            return;
        struct pd_kv_message m = { .type = PD_KV_M_DIGESTS, .first = source->digests_sent,
                                   .count = PD_MIN(n, PD_KV_DIGESTS_PER_MESSAGE) };
        source->digests_sent += m.count;
        pd_kv_source_send(source, &m, e->digests + m.first);
    }
}
