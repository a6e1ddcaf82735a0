/* SPDX-License-Identifier: Apache-2.0 */
/* Continuous batching.  Each step takes the sequences that have a slot, one row
 * for each that decodes and as many rows of prompts as the step has room for,
 * computes them on the worker and hands the results back on the loop.  Invariant:
 * at most one step is under way; meanwhile the loop touches nothing that the
 * worker reads.
 *
 * When cells run out, the last sequence of the queue loses its slot and goes on
 * later: what is in its blocks is loaded, the rest computed again. */
#include "engine_in.h"

#include "lib.h"

#include <string.h>

/* Cost of a step in the simulator. */
enum { SIM_STEP_NS = 50000, SIM_ROW_NS = 50000, SIM_LOAD_NS = 100 };
enum { LOAD_TOKENS = 1024 };            /* loaded in one step for one sequence */

static bool samples(const struct pd_seq *seq)
{
    return seq->mode != PD_RUN_PREFILL_ONLY;
}

static uint32_t target(const struct pd_seq *seq)
{
    return samples(seq) ? seq->n : seq->upto;
}

static uint32_t at_least(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t at_most(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* What is to be loaded before anything is computed: the last token is not, when its
 * logits are wanted. */
static uint32_t load_target(const struct pd_seq *seq)
{
    return at_most(seq->stored, samples(seq) ? seq->n - 1 : seq->upto);
}

/* How far the blocks shall go when KV of `upto` tokens is there: a prompt to its
 * end, an answer in whole blocks as long as there are any. */
static uint32_t store_target(struct pd_seq *seq, uint32_t upto)
{
    struct pd_engine *e = seq->e;
    uint32_t bt = e->conf->block_tokens, to = at_most(upto, seq->n_prompt);

    if (!e->kv.usable || (!e->conf->prefix_cache && seq->ev.on_kv == NULL))
        return seq->stored;
    if (e->conf->prefix_cache && upto > seq->n_prompt && seq->stored >= seq->n_prompt)
        to = at_least(seq->n_prompt, upto / bt * bt);
    while (to > (uint64_t)seq->n_blocks * bt) {
        if (eng_pool_alloc(e->pool, 1, &seq->blocks[seq->n_blocks]) != PD_OK)
            return seq->stored;
        seq->n_blocks++;
    }
    return at_least(to, seq->stored);
}

static void set_member(struct pd_engine *e, struct pd_seq *seq)
{
    uint32_t to = at_least(load_target(seq), seq->loaded);

    to = at_most(to, seq->loaded + LOAD_TOKENS);
    seq->member = (int32_t)e->n_members;
    e->members[e->n_members++] = (struct ll_member){ .seq = seq, .slot = seq->slot, .load = seq->loaded,
                                                     .start = to };
}

/* Rows that a member could have now. */
static uint32_t rows_left(const struct ll_member *m)
{
    const struct pd_seq *seq = m->seq;

    return m->start < load_target(seq) ? 0 : target(seq) - m->start;
}

static void set_rows(struct pd_engine *e, struct ll_member *m, uint32_t n)
{
    struct pd_seq *seq = m->seq;

    m->rows = n;
    m->want = n > 0 && samples(seq) && m->start + n == seq->n;
    m->store = seq->stored;
    m->store_to = n > 0 ? store_target(seq, m->start + n) : seq->stored;
    e->n_rows += n;
}

static void add_row(struct llama_batch *b, uint32_t token, uint32_t position, int32_t slot, bool want)
{
    int32_t k = b->n_tokens++;

    b->token[k] = (llama_token)token;
    b->pos[k] = (llama_pos)position;
    b->n_seq_id[k] = 1;
    b->seq_id[k][0] = slot;
    b->logits[k] = want;
}

static void fill_batch(struct pd_engine *e)
{
    e->batch.n_tokens = 0;
    for (uint32_t i = 0; i < e->n_members; i++) {
        struct ll_member *m = &e->members[i];
        if (m->start > m->load)
            m->status = ll_kv_load(e, m->slot, m->seq->blocks, m->load, m->start);
        for (uint32_t k = 0; k < m->rows && m->status == PD_OK; k++) {
            m->logits = e->batch.n_tokens;
            add_row(&e->batch, m->seq->tokens[m->start + k], m->start + k, m->slot, m->want && k + 1 == m->rows);
        }
    }
}

static void finish_member(struct pd_engine *e, struct ll_member *m)
{
    const struct pd_seq *seq = m->seq;

    if (m->status == PD_OK && m->store_to > m->store)
        m->status = ll_kv_store(e, m->slot, seq->blocks, m->store, m->store_to);
    if (m->status == PD_OK && m->want)
        m->status = eng_sampler_choose(e->sampler, &seq->sampling, llama_get_logits_ith(e->ctx, m->logits), seq->n,
                                       seq->tokens + seq->n_prompt - seq->given,
                                       seq->n - seq->n_prompt + seq->given, &m->choice);
}

void ll_step_compute(struct pd_work *work, void *arg)
{
    struct pd_engine *e = arg;
    int32_t got = 0;

    (void)work;
    ll_lib_messages(e->log);
    for (uint32_t i = 0; i < e->n_clean; i++)
        llama_memory_seq_rm(llama_get_memory(e->ctx), (llama_seq_id)e->clean[i], -1, -1);
    fill_batch(e);
    if (e->batch.n_tokens > 0)
        got = llama_decode(e->ctx, e->batch);
    /* 1: no cells, which the loop has counted; 2: told to end; else: broken */
    e->step_status = got == 0 ? PD_OK : got == 1 ? PD_ENOMEM : got == 2 ? PD_ECANCELED : PD_EIO;
    for (uint32_t i = 0; i < e->n_members && e->step_status == PD_OK; i++)
        finish_member(e, &e->members[i]);
    if (got != 2 && ll_lib_error()[0] != '\0')
        pd_log_error(e->log, "libllama: %s", ll_lib_error());
    ll_lib_messages(NULL);
}

static void finish(struct pd_seq *seq, uint32_t reason, pd_status status)
{
    ll_seq_unqueue(seq);
    seq->ev.on_finish(seq, reason, status, seq->arg);
}

static bool is_over(const struct pd_seq *seq)
{
    return seq->mode == PD_RUN_PREFILL || seq->outputs >= seq->max_output || seq->n >= seq->room;
}

/* Alternatives are copied first because the callee may do anything. */
static void take_token(struct pd_engine *e, struct ll_member *m)
{
    struct pd_seq *seq = m->seq;
    struct pd_logprob top[ENG_MAX_TOP];
    struct pd_token t = { .size = sizeof(t), .id = (int32_t)m->choice.token, .position = seq->n,
                          .logprob = m->choice.logprob, .n_top = m->choice.tops, .top = top };

    if (!seq->ignore_eos && llama_vocab_is_eog(e->text.vocab, (llama_token)m->choice.token)) {
        finish(seq, PD_FINISH_STOP, PD_OK);
        return;
    }
    for (uint32_t i = 0; i < m->choice.tops; i++)
        top[i] = (struct pd_logprob){ (int32_t)m->choice.top[i].token, m->choice.top[i].logprob };
    seq->tokens[seq->n++] = m->choice.token;
    seq->outputs++;
    e->output_tokens++;
    seq->ev.on_token(seq, &t, seq->arg);
    if (m->seq != NULL && is_over(seq))
        finish(seq, PD_FINISH_LENGTH, PD_OK);
}

/* Hands the results of one sequence over.  m->seq becomes NULL if the callee
 * closes the sequence. */
static void apply_member(struct pd_engine *e, struct ll_member *m)
{
    struct pd_seq *seq = m->seq;
    pd_status s = e->step_status != PD_OK ? e->step_status : m->status;
    uint32_t upto = at_most(m->start + m->rows, seq->n_prompt);

    if (s != PD_OK) {
        finish(seq, PD_FINISH_ERROR, s);
        return;
    }
    seq->loaded = m->start + m->rows;
    seq->stored = m->store_to;
    ll_seq_publish(seq);
    if (m->rows > 0 && m->start < upto) {
        e->prompt_tokens += upto - m->start;
        /* when it comes again after the slot was lost, it is not told twice */
        if (seq->ev.on_kv != NULL && upto > seq->told) {
            seq->told = upto;
            seq->ev.on_kv(seq, upto, seq->arg);
        }
        if (m->seq == NULL)
            return;
    }
    if (m->want)
        take_token(e, m);
    else if (m->rows > 0 && !samples(seq) && seq->loaded >= seq->upto)
        finish(seq, PD_FINISH_LENGTH, PD_OK);
}

/* Chooses the members and rows of the next step and starts it. */
static void compose(struct pd_engine *e);

static void apply(struct pd_engine *e)
{
    for (uint32_t i = 0; i < e->n_members; i++)
        if (e->members[i].seq != NULL)
            apply_member(e, &e->members[i]);
    for (uint32_t i = 0; i < e->n_members; i++)
        if (e->members[i].seq != NULL)
            e->members[i].seq->member = -1;
    e->n_members = 0;
    compose(e);
}

static void computed(struct pd_work *work, pd_status status, void *arg)
{
    struct pd_engine *e = arg;

    (void)work;
    if (status != PD_OK)
        e->step_status = status;
    e->computing = false;
    for (uint32_t i = 0; i < e->n_members; i++) {
        struct pd_seq *seq = e->members[i].seq;
        if (seq->closed) {
            e->members[i].seq = NULL;
            ll_seq_release(seq);
        }
    }
    if (!e->closing)
        apply(e);
}

static void submit(struct pd_engine *e)
{
    uint32_t loads = 0;
    pd_status s;

    e->n_clean = 0;
    for (uint32_t i = 0; i < e->conf->max_running; i++)
        if (e->dirty[i]) {
            e->dirty[i] = false;
            e->clean[e->n_clean++] = i;
        }
    for (uint32_t i = 0; i < e->n_members; i++)
        loads += e->members[i].start - e->members[i].load;
    e->work.sim_cost_ns = SIM_STEP_NS + (pd_time)e->n_rows * SIM_ROW_NS + (pd_time)loads * SIM_LOAD_NS;
    __atomic_store_n(&e->abort, 0, __ATOMIC_RELAXED);
    e->computing = true;
    s = pd_work_submit(e->loop, e->workq, &e->work);
    if (s == PD_OK)
        return;
    /* nothing runs: told from the loop */
    e->computing = false;
    for (uint32_t i = 0; i < e->n_clean; i++)
        e->dirty[e->clean[i]] = true;
    for (uint32_t i = 0; i < e->n_members; i++)
        e->members[i].status = s;
    ll_step_kick(e);
}

static void compose(struct pd_engine *e)
{
    bool tight = false;

    if (e->computing || e->n_members > 0 || e->closing)
        return;
    e->n_rows = 0;
    for (struct pd_seq *seq = e->head; seq != NULL && e->n_members < e->conf->max_running; seq = seq->next)
        if (!seq->pending && ll_slot_take(seq, e->n_members, &tight))
            set_member(e, seq);
    for (uint32_t i = 0; i < e->n_members; i++)
        if (rows_left(&e->members[i]) == 1)
            set_rows(e, &e->members[i], 1);
    for (uint32_t i = 0; i < e->n_members; i++)
        if (e->members[i].rows == 0)
            set_rows(e, &e->members[i], at_most(rows_left(&e->members[i]), e->max_rows - e->n_rows));
    if (e->n_members > 0)
        submit(e);
}

/* The token that another node has sampled becomes part of the sequence. */
static void tell_first(struct pd_engine *e, struct pd_seq *seq)
{
    uint64_t order = seq->order;

    seq->tell_first = false;
    if (!seq->ignore_eos && llama_vocab_is_eog(e->text.vocab, (llama_token)seq->first.id)) {
        finish(seq, PD_FINISH_STOP, PD_OK);
        return;
    }
    seq->tokens[seq->n++] = (uint32_t)seq->first.id;
    seq->outputs++;
    seq->ev.on_token(seq, &seq->first, seq->arg);
    /* the callee may have closed it: its number tells */
    for (seq = e->head; seq != NULL && seq->order != order;)
        seq = seq->next;
    if (seq != NULL && is_over(seq))
        finish(seq, PD_FINISH_LENGTH, PD_OK);
}

/* Events that operations have left for later; those that come meanwhile wait for
 * the next turn. */
static void tell_pending(struct pd_engine *e)
{
    uint32_t count = 0;

    for (const struct pd_seq *p = e->pending; p != NULL; p = p->pending_next)
        count++;
    while (count-- > 0 && e->pending != NULL) {
        struct pd_seq *seq = e->pending;
        e->pending = seq->pending_next;
        if (e->pending == NULL)
            e->pending_end = &e->pending;
        seq->pending = false;
        if (seq->tell_first)
            tell_first(e, seq);
        else
            finish(seq, PD_FINISH_LENGTH, PD_OK);
    }
    if (e->pending != NULL)
        ll_step_kick(e);
}

static void kicked(struct pd_task *task, void *arg)
{
    struct pd_engine *e = arg;

    (void)task;
    tell_pending(e);
    if (e->n_members > 0 && !e->computing)
        apply(e);               /* of a step that could not begin */
    else
        compose(e);
}

void ll_step_kick(struct pd_engine *e)
{
    if (!e->closing)
        pd_loop_defer(e->loop, &e->kick);
}

void ll_step_forget(struct pd_engine *e)
{
    for (uint32_t i = 0; i < e->n_members; i++)
        if (!e->members[i].seq->closed)
            return;
    __atomic_store_n(&e->abort, 1, __ATOMIC_RELAXED);
}

void ll_step_init(struct pd_engine *e)
{
    pd_task_init(&e->kick, "llama engine", kicked, e);
    e->work = (struct pd_work){ .run = ll_step_compute, .done = computed, .arg = e, .name = "llama engine step" };
    e->pending_end = &e->pending;
}

void ll_step_stop(struct pd_engine *e)
{
    e->closing = true;
    pd_task_cancel(e->loop, &e->kick);
    __atomic_store_n(&e->abort, 1, __ATOMIC_RELAXED);
}
