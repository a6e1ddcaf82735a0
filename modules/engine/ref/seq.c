/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences: opening with reserved blocks, import, start, close.  Invariant: a
 * sequence's tokens and block table have their final size from the start and
 * never move, so a step can read them while the loop goes on; its blocks are
 * given back only when no step computes it. */
#include "engine_in.h"

#include <stdlib.h>
#include <string.h>

static uint32_t blocks_for(const struct pd_engine *e, uint32_t tokens)
{
    return (tokens + e->kv.block_tokens - 1) / e->kv.block_tokens;
}

void ref_seq_drop_blocks(struct pd_seq *seq)
{
    /* tail first, so that the beginning of a prefix is the last to be evicted */
    while (seq->n_blocks > 0)
        eng_pool_unref(seq->e->pool, seq->blocks[--seq->n_blocks]);
    seq->computed = 0;
    seq->chain = seq->root;
    seq->n_chained = 0;
}

pd_status ref_seq_reserve(struct pd_seq *seq, uint32_t spare)
{
    struct pd_engine *e = seq->e;
    uint32_t need = blocks_for(e, seq->n), have = 0;

    /* at least the last token is computed, so that there are logits */
    if (e->conf->prefix_cache)
        have = eng_pool_lookup(e->pool, seq->root, seq->tokens, seq->n - 1, seq->blocks);
    seq->n_blocks = have;
    if (eng_pool_available(e->pool) < (uint64_t)need - have + spare ||
        eng_pool_alloc(e->pool, need - have, seq->blocks + have) != PD_OK) {
        ref_seq_drop_blocks(seq);
        return PD_EAGAIN;
    }
    seq->n_blocks = need;
    seq->computed = have * e->kv.block_tokens;
    for (; seq->n_chained < have; seq->n_chained++)
        seq->chain = eng_pool_chain(e->pool, seq->chain,
                                    seq->tokens + (size_t)seq->n_chained * e->kv.block_tokens);
    return PD_OK;
}

void ref_seq_publish(struct pd_seq *seq, uint32_t upto)
{
    struct pd_engine *e = seq->e;

    if (!e->conf->prefix_cache)
        return;
    for (; (seq->n_chained + 1) * (uint64_t)e->kv.block_tokens <= upto; seq->n_chained++)
        seq->chain = eng_pool_publish(e->pool, seq->blocks[seq->n_chained], seq->chain,
                                      seq->tokens + (size_t)seq->n_chained * e->kv.block_tokens);
}

void ref_seq_release(struct pd_seq *seq)
{
    ref_seq_drop_blocks(seq);
    seq->e->sequences--;
    free(seq->tokens);
    free(seq->blocks);
    free(seq);
}

/* Parameters that do not depend on the state of the engine. */
static pd_status check_params(const struct pd_engine *e, const struct pd_seq_params *p,
                              struct eng_sampling *out)
{
    const struct pd_sampling *s = &p->sampling;

    if (p->n_tokens == 0 || p->max_output == 0 || p->n_output_given >= p->n_tokens ||
        p->n_output_given >= p->max_output || s->logprobs > ENG_MAX_TOP)
        return PD_EINVAL;
    if (p->n_tokens >= e->context)
        return PD_ELIMIT;
    for (uint32_t i = 0; i < p->n_tokens; i++)
        if (p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= ref_vocab_size(e->vocab))
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
    seq->member = -1;
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

pd_status ref_seq_open(struct pd_engine *e, const struct pd_seq_params *params,
                       const struct pd_seq_events *events, void *arg, struct pd_seq **out,
                       uint32_t *computed)
{
    struct eng_sampling sampling;
    struct pd_seq *seq;
    pd_status s;

    *out = NULL;
    if (params->size < sizeof(*params) || events->on_token == NULL || events->on_finish == NULL)
        return PD_EINVAL;
    if ((s = check_params(e, params, &sampling)) != PD_OK)
        return s;
    /* who was thrown out comes before who is new */
    if (e->sequences >= e->conf->max_sequences || e->preempted > 0)
        return PD_EAGAIN;
    seq = make(e, params);
    if (seq == NULL)
        return PD_ENOMEM;
    e->sequences++;
    seq->sampling = sampling;
    memcpy(&seq->ev, events, events->size < sizeof(seq->ev) ? events->size : sizeof(seq->ev));
    seq->arg = arg;
    if (ref_seq_reserve(seq, 0) != PD_OK) {
        ref_seq_release(seq);
        return PD_EAGAIN;
    }
    e->cached_tokens += seq->computed;
    if (computed != NULL)
        *computed = seq->computed;
    *out = seq;
    return PD_OK;
}

pd_status ref_seq_blocks(struct pd_seq *seq, uint32_t first, uint32_t count, uint32_t *index,
                         uint64_t *generation)
{
    if (seq->n_blocks == 0)
        return PD_ESTALE;
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

pd_status ref_seq_import(struct pd_seq *seq, uint32_t upto)
{
    if (seq->state != REF_SEQ_OPEN)
        return PD_EBUSY;
    if (upto > seq->n_prompt)
        return PD_EINVAL;
    if (upto > seq->computed)
        seq->computed = upto;
    /* the last token may be computed once more for its logits: its block stays private till then */
    ref_seq_publish(seq, seq->computed < seq->n_prompt ? seq->computed : seq->n_prompt - 1);
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
    seq->state = REF_SEQ_QUEUED;
}

void ref_seq_unqueue(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

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
    if (seq->n_blocks == 0)
        e->preempted--;
    seq->state = REF_SEQ_DONE;
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
    if (seq->computed < seq->n_prompt || seq->n != seq->n_prompt || seq->n == seq->room)
        return PD_EINVAL;
    if (first->size < sizeof(*first) || first->id < 0 ||
        (uint32_t)first->id >= ref_vocab_size(seq->e->vocab) || first->n_top > ENG_MAX_TOP ||
        first->position != seq->n)
        return PD_EINVAL;
    seq->first = *first;
    if (first->n_top > 0)
        memcpy(seq->first_top, first->top, first->n_top * sizeof(*first->top));
    seq->first.top = seq->first_top;
    seq->tell_first = true;
    make_pending(seq);
    return PD_OK;
}

pd_status ref_seq_run(struct pd_seq *seq, uint32_t mode, uint32_t upto, const struct pd_token *first)
{
    bool again = seq->state == REF_SEQ_DONE && seq->mode != PD_RUN_DECODE && mode == PD_RUN_DECODE &&
                 seq->outputs < seq->max_output && seq->n < seq->room;
    pd_status s;

    if (seq->state != REF_SEQ_OPEN && !again)
        return PD_EBUSY;
    if (mode < PD_RUN_PREFILL || mode > PD_RUN_DECODE || (first != NULL && mode != PD_RUN_DECODE))
        return PD_EINVAL;
    if (mode == PD_RUN_PREFILL_ONLY && (upto == 0 || upto > seq->n_prompt))
        return PD_EINVAL;
    if (first != NULL && (s = take_first(seq, first)) != PD_OK)
        return s;
    seq->mode = mode;
    seq->upto = upto;
    if (mode == PD_RUN_PREFILL_ONLY && seq->computed >= upto)
        make_pending(seq);
    else if (mode != PD_RUN_PREFILL_ONLY && first == NULL && seq->computed == seq->n)
        seq->computed--;        /* once more, for its logits */
    enqueue(seq);
    ref_step_kick(seq->e);
    return PD_OK;
}

void ref_seq_close(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    cancel_pending(seq);
    if (seq->state == REF_SEQ_QUEUED)
        ref_seq_unqueue(seq);
    if (seq->member >= 0 && e->computing) {
        seq->closed = true;     /* released when the step is done */
        return;
    }
    if (seq->member >= 0)
        e->members[seq->member].seq = NULL;
    ref_seq_release(seq);
    if (e->queued > 0)
        ref_step_kick(e);
}
