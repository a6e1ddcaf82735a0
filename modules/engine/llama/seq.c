/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences: opening with reserved blocks, import, start, close.  Invariant: a
 * sequence's tokens and block table have their final size from the start and
 * never move, so a step can read them while the loop goes on; it is freed only
 * when no step computes it. */
#include "engine_in.h"

#include <stdlib.h>
#include <string.h>

static uint32_t blocks_for(const struct pd_engine *e, uint32_t tokens)
{
    return (tokens + e->conf->block_tokens - 1) / e->conf->block_tokens;
}

static void drop_blocks(struct pd_seq *seq)
{
    /* tail first, so that the beginning of a prefix is the last to be evicted */
    while (seq->n_blocks > 0)
        eng_pool_unref(seq->e->pool, seq->blocks[--seq->n_blocks]);
}

/* Takes blocks for the prompt, from the cache as far as possible. */
static pd_status reserve(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;
    uint32_t need = blocks_for(e, seq->n), have = 0;

    /* at least the last token is computed, so that there are logits */
    if (e->conf->prefix_cache && e->kv.usable)
        have = eng_pool_lookup(e->pool, seq->root, seq->tokens, seq->n - 1, seq->blocks);
    seq->n_blocks = have;
    if (eng_pool_alloc(e->pool, need - have, seq->blocks + have) != PD_OK) {
        drop_blocks(seq);
        return PD_EAGAIN;
    }
    seq->n_blocks = need;
    seq->stored = have * e->conf->block_tokens;
    for (; seq->n_chained < have; seq->n_chained++)
        seq->chain = eng_pool_chain(e->pool, seq->chain,
                                    seq->tokens + (size_t)seq->n_chained * e->conf->block_tokens);
    return PD_OK;
}

void ll_seq_publish(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    if (!e->conf->prefix_cache)
        return;
    for (; (seq->n_chained + 1) * (uint64_t)e->conf->block_tokens <= seq->stored; seq->n_chained++)
        seq->chain = eng_pool_publish(e->pool, seq->blocks[seq->n_chained], seq->chain,
                                      seq->tokens + (size_t)seq->n_chained * e->conf->block_tokens);
}

void ll_seq_release(struct pd_seq *seq)
{
    drop_blocks(seq);
    seq->e->sequences--;
    free(seq->tokens);
    free(seq->blocks);
    free(seq);
}

/* Parameters that do not depend on the state of the engine. */
static pd_status check_params(const struct pd_engine *e, const struct pd_seq_params *p, struct eng_sampling *out)
{
    const struct pd_sampling *s = &p->sampling;

    if (p->n_tokens == 0 || p->max_output == 0 || p->n_output_given >= p->n_tokens ||
        p->n_output_given >= p->max_output || s->logprobs > ENG_MAX_TOP)
        return PD_EINVAL;
    if (p->n_tokens >= e->context)
        return PD_ELIMIT;
    for (uint32_t i = 0; i < p->n_tokens; i++)
        if (p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= e->text.size)
            return PD_EINVAL;
    *out = (struct eng_sampling){
        .temperature = (float)s->temperature, .top_p = (float)s->top_p, .min_p = (float)s->min_p,
        .top_k = s->top_k, .frequency_penalty = (float)s->frequency_penalty,
        .presence_penalty = (float)s->presence_penalty, .seed = s->seed,
        .logprobs = s->logprobs > 0 || s->want_logprob != 0 ? s->logprobs + 1 : 0,
    };
    return eng_sampling_check(out);
}

static struct pd_seq *make(struct pd_engine *e, const struct pd_seq_params *p)
{
    struct pd_seq *seq = calloc(1, sizeof(*seq));
    uint64_t all = (uint64_t)p->n_tokens + p->max_output - p->n_output_given;

    if (seq == NULL)
        return NULL;
    seq->e = e;
    seq->member = seq->slot = -1;
    seq->room = all < e->context ? (uint32_t)all : e->context;
    seq->tokens = malloc(seq->room * sizeof(*seq->tokens));
    seq->blocks = malloc(blocks_for(e, seq->room) * sizeof(*seq->blocks));
    if (seq->tokens == NULL || seq->blocks == NULL) {
        free(seq->tokens);
        free(seq->blocks);
        free(seq);
        return NULL;
    }
    for (uint32_t i = 0; i < p->n_tokens; i++)
        seq->tokens[i] = (uint32_t)p->tokens[i];
    seq->n = seq->n_prompt = p->n_tokens;
    seq->given = seq->outputs = p->n_output_given;
    seq->max_output = p->max_output;
    seq->ignore_eos = p->ignore_eos != 0;
    seq->priority = p->priority;
    seq->root = seq->chain = eng_pool_root(e->pool, p->cache_salt);
    return seq;
}

pd_status ll_seq_open(struct pd_engine *e, const struct pd_seq_params *params,
                      const struct pd_seq_events *events, void *arg, struct pd_seq **out, uint32_t *computed)
{
    struct eng_sampling sampling;
    struct pd_seq *seq;
    pd_status s;

    *out = NULL;
    if (params->size < sizeof(*params) || events->on_token == NULL || events->on_finish == NULL)
        return PD_EINVAL;
    if ((s = check_params(e, params, &sampling)) != PD_OK)
        return s;
    if (e->sequences >= e->conf->max_sequences)
        return PD_EAGAIN;
    seq = make(e, params);
    if (seq == NULL)
        return PD_ENOMEM;
    e->sequences++;
    seq->sampling = sampling;
    memcpy(&seq->ev, events, events->size < sizeof(seq->ev) ? events->size : sizeof(seq->ev));
    seq->arg = arg;
    if (reserve(seq) != PD_OK) {
        ll_seq_release(seq);
        return PD_EAGAIN;
    }
    e->cached_tokens += seq->stored;
    if (computed != NULL)
        *computed = seq->stored;
    *out = seq;
    return PD_OK;
}

pd_status ll_seq_blocks(struct pd_seq *seq, uint32_t first, uint32_t count, uint32_t *index, uint64_t *generation)
{
    if (count > seq->n_blocks || first > seq->n_blocks - count)
        return PD_EINVAL;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t b = seq->blocks[first + i];
        if (index != NULL)
            index[i] = b;
        if (generation != NULL)
            generation[i] = eng_pool_generation(seq->e->pool, b);
    }
    return PD_OK;
}

pd_status ll_seq_import(struct pd_seq *seq, uint32_t upto)
{
    if (!seq->e->kv.usable)
        return PD_ENOSYS;
    if (seq->state != LL_SEQ_OPEN)
        return PD_EBUSY;
    if (upto > seq->n_prompt)
        return PD_EINVAL;
    if (upto > seq->stored)
        seq->stored = upto;
    ll_seq_publish(seq);
    return PD_OK;
}

static void enqueue(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;
    struct pd_seq *after = e->tail;

    while (after != NULL && after->priority < seq->priority)
        after = after->prev;
    seq->prev = after;
    seq->next = after != NULL ? after->next : e->head;
    if (seq->next != NULL)
        seq->next->prev = seq;
    else
        e->tail = seq;
    if (after != NULL)
        after->next = seq;
    else
        e->head = seq;
    e->queued++;
    seq->order = e->next_order++;
    seq->state = LL_SEQ_QUEUED;
}

void ll_seq_unqueue(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    ll_slot_drop(seq);
    if (seq->prev != NULL)
        seq->prev->next = seq->next;
    else
        e->head = seq->next;
    if (seq->next != NULL)
        seq->next->prev = seq->prev;
    else
        e->tail = seq->prev;
    seq->prev = seq->next = NULL;
    e->queued--;
    seq->state = LL_SEQ_DONE;
}

static void make_pending(struct pd_seq *seq)
{
    if (seq->pending)
        return;
    seq->pending = true;
    seq->pending_next = NULL;
    *seq->e->pending_end = seq;
    seq->e->pending_end = &seq->pending_next;
}

static void cancel_pending(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;
    struct pd_seq **at = &e->pending;

    if (!seq->pending)
        return;
    while (*at != seq)
        at = &(*at)->pending_next;
    *at = seq->pending_next;
    if (seq->pending_next == NULL)
        e->pending_end = at;
    seq->pending = false;
}

static pd_status take_first(struct pd_seq *seq, const struct pd_token *first)
{
    if (seq->stored < seq->n_prompt || seq->n != seq->n_prompt || seq->n == seq->room)
        return PD_EINVAL;
    if (first->size < sizeof(*first) || first->id < 0 || (uint32_t)first->id >= seq->e->text.size ||
        first->n_top > ENG_MAX_TOP || first->position != seq->n)
        return PD_EINVAL;
    seq->first = *first;
    if (first->n_top > 0)
        memcpy(seq->first_top, first->top, first->n_top * sizeof(*first->top));
    seq->first.top = seq->first_top;
    seq->tell_first = true;
    make_pending(seq);
    return PD_OK;
}

pd_status ll_seq_run(struct pd_seq *seq, uint32_t mode, uint32_t upto, const struct pd_token *first)
{
    bool again = seq->state == LL_SEQ_DONE && seq->mode != PD_RUN_DECODE && mode == PD_RUN_DECODE &&
                 seq->outputs < seq->max_output && seq->n < seq->room;
    pd_status s;

    if (seq->state != LL_SEQ_OPEN && !again)
        return PD_EBUSY;
    if (mode < PD_RUN_PREFILL || mode > PD_RUN_DECODE || (first != NULL && mode != PD_RUN_DECODE))
        return PD_EINVAL;
    if (mode == PD_RUN_PREFILL_ONLY && (upto == 0 || upto > seq->n_prompt))
        return PD_EINVAL;
    if (first != NULL && (s = take_first(seq, first)) != PD_OK)
        return s;
    seq->mode = mode;
    seq->upto = upto;
    if (mode == PD_RUN_PREFILL_ONLY && seq->stored >= upto)
        make_pending(seq);
    enqueue(seq);
    ll_step_kick(seq->e);
    return PD_OK;
}

void ll_seq_close(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    cancel_pending(seq);
    if (seq->state == LL_SEQ_QUEUED)
        ll_seq_unqueue(seq);
    if (seq->member >= 0 && e->computing) {
        seq->closed = true;     /* released when the step is done */
        ll_step_forget(e);
        return;
    }
    if (seq->member >= 0)
        e->members[seq->member].seq = NULL;
    ll_seq_release(seq);
    if (e->queued > 0)
        ll_step_kick(e);
}
