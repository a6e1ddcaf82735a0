/* SPDX-License-Identifier: Apache-2.0 */
/* Continuous batching: steps follow each other while there is something to do.
 * What a step does is settled when it begins and happens when it ends. */
#include "whatif/engine_int.h"

static void step_begin(struct pd_whatif_engine *e);

static uint64_t blocks_of(const struct pd_whatif_engine *e, uint64_t tokens)
{
    uint64_t b = (uint64_t)e->opts.class->block_tokens;
    return (tokens + b - 1) / b;
}

/* Blocks that are left for prefixes. */
static uint64_t cache_room(const struct pd_whatif_engine *e)
{
    uint64_t all = (uint64_t)e->opts.class->kv_tokens;
    return all > e->kv_used ? (all - e->kv_used) / (uint64_t)e->opts.class->block_tokens : 0;
}

/* ---- the queue ------------------------------------------------------------------------ */

static void admit(struct pd_whatif_engine *e, struct seq *s)
{
    uint32_t block = (uint32_t)e->opts.class->block_tokens;
    pd_list_remove(&s->link);
    pd_list_append(&e->running, &s->link);
    s->is_waiting = false;
    s->is_running = true;
    e->n_waiting--;
    e->n_running++;
    e->kv_used += s->kv;
    if (s->is_transferred) {
        s->computed = s->prompt - 1;
    } else {
        e->stats.prompt_tokens += s->prompt;
        if (e->opts.class->prefix_cache)
            s->cached = pd_whatif_cache_match(&e->cache, s->hashes, s->n_hashes) * block;
        /* The last token is computed always: it gives the first of the answer. */
        s->cached = s->cached < s->prompt ? s->cached : s->prompt - 1;
        s->computed = s->cached;
        e->stats.cached_tokens += s->cached;
    }
    pd_whatif_cache_trim(&e->cache, cache_room(e));
}

static void admit_all(struct pd_whatif_engine *e)
{
    const struct pd_whatif_class *c = e->opts.class;
    while (!pd_list_is_empty(&e->waiting) && e->n_running < (uint64_t)c->slots) {
        struct seq *s = PD_LIST_ENTRY(pd_list_first(&e->waiting), struct seq, link);
        if (e->kv_used + s->kv > (uint64_t)c->kv_tokens)
            return;
        admit(e, s);
    }
}

void pd_whatif_batch_add(struct pd_whatif_engine *e, struct seq *s)
{
    s->kv = blocks_of(e, (uint64_t)s->prompt + s->wanted) * (uint64_t)e->opts.class->block_tokens;
    s->is_waiting = true;
    pd_list_append(&e->waiting, &s->link);
    e->n_waiting++;
    if (e->n_waiting > e->stats.waiting_max)
        e->stats.waiting_max = e->n_waiting;
    if (!pd_timer_is_active(&e->step))
        step_begin(e);
}

void pd_whatif_batch_remove(struct pd_whatif_engine *e, struct seq *s)
{
    pd_list_remove(&s->link);
    if (s->is_waiting)
        e->n_waiting--;
    if (s->is_running) {
        e->n_running--;
        e->kv_used -= s->kv;
    }
    s->is_waiting = s->is_running = false;
}

/* ---- steps ------------------------------------------------------------------------------ */

static void step_begin(struct pd_whatif_engine *e)
{
    const struct pd_whatif_class *c = e->opts.class;
    uint64_t decoding = 0, computing = 0, room;
    admit_all(e);
    if (e->n_running == 0)
        return;
    PD_LIST_EACH(&e->running, link) {
        struct seq *s = PD_LIST_ENTRY(link, struct seq, link);
        s->is_decoding = s->computed == s->prompt;
        decoding += s->is_decoding;
    }
    room = (uint64_t)c->step_tokens > decoding ? (uint64_t)c->step_tokens - decoding : 1;
    PD_LIST_EACH(&e->running, link) {
        struct seq *s = PD_LIST_ENTRY(link, struct seq, link);
        uint64_t left = s->prompt - s->computed;
        s->chunk = (uint32_t)(left < room - computing ? left : room - computing);
        computing += s->chunk;
    }
    double takes = (double)c->step + (double)c->per_sequence * (double)decoding +
                   (double)computing / c->prefill_tokens_per_s * (double)PD_SEC;
    takes *= e->slowness;
    e->step_began = pd_loop_clock(e->loop);
    e->step_takes = takes < 1 ? 1 : (pd_time)takes;
    e->stats.steps++;
    pd_timer_start_at(&e->step, e->step_began + e->step_takes);
}

static void seq_advance(struct pd_whatif_engine *e, struct seq *s)
{
    if (s->is_decoding) {
        pd_whatif_engine_token(s);
        return;
    }
    s->computed += s->chunk;
    if (s->computed < s->prompt)
        return;
    if (e->opts.class->prefix_cache &&
        pd_whatif_cache_add(&e->cache, s->hashes, s->n_hashes, cache_room(e)) != PD_OK)
        e->stats.short_of_memory++;
    pd_whatif_engine_computed(s);
    pd_whatif_engine_token(s);
}

static void on_step(struct pd_timer *timer, void *arg)
{
    struct pd_whatif_engine *e = arg;
    (void)timer;
    e->stats.busy += e->step_takes;
    e->stats.running_ns += (double)e->n_running * (double)e->step_takes;
    /* One that ends leaves the list; others do not change. */
    PD_LIST_EACH_SAFE(&e->running, link)
        seq_advance(e, PD_LIST_ENTRY(link, struct seq, link));
    step_begin(e);
}

void pd_whatif_batch_init(struct pd_whatif_engine *e)
{
    pd_list_init(&e->waiting);
    pd_list_init(&e->running);
    pd_whatif_cache_init(&e->cache);
    pd_timer_init(&e->step, e->loop, "step", on_step, e);
}

void pd_whatif_batch_reset(struct pd_whatif_engine *e)
{
    pd_timer_stop(&e->step);
    pd_whatif_cache_fini(&e->cache);
}
