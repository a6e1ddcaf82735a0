/* SPDX-License-Identifier: Apache-2.0 */
/* Continuous batching.  Each step takes the first sequences of the queue, one
 * row for each that decodes and as many rows of prompts as the step has room
 * for, computes them on the worker and hands the results back on the loop.
 * Invariant: at most one step is under way; between computing flag set and
 * cleared the loop touches nothing that the worker reads.
 *
 * When blocks run out, the last sequence of the queue that is decoding (or is
 * about to) loses its blocks and is computed again later from its tokens; the
 * results are the same bits, so nobody notices but the clock.  Sequences that
 * only prefill are never thrown out, since others read their blocks. */
#include "engine_in.h"

#include <string.h>

/* Cost of a step in the simulator, of the order of the real one. */
enum { SIM_STEP_NS = 20000, SIM_ROW_NS = 30000 };
enum { THREADS_COST = 4000000 };        /* multiplications: some 200 us */

static void compose(struct pd_engine *e);

static bool samples(const struct pd_seq *seq)
{
    return seq->mode != PD_RUN_PREFILL_ONLY;
}

static uint32_t target(const struct pd_seq *seq)
{
    return samples(seq) ? seq->n : seq->upto;
}

static bool decodes(const struct pd_seq *seq)
{
    return samples(seq) && seq->computed + 1 == seq->n && seq->n > seq->n_prompt;
}

static void preempt(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    pd_log_debug(e->log, "sequence of %u tokens gives its %u blocks back, to be computed again", seq->n,
                 seq->n_blocks);
    ref_seq_drop_blocks(seq);
    e->preempted++;
    e->preemptions++;
}

/* Takes the block that the next token needs.  False when the sequence itself
 * was thrown out. */
static bool grow(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    while (seq->n > (uint64_t)seq->n_blocks * e->kv.block_tokens) {
        struct pd_seq *victim = e->tail;
        if (eng_pool_alloc(e->pool, 1, &seq->blocks[seq->n_blocks]) == PD_OK) {
            seq->n_blocks++;
            continue;
        }
        while (victim != seq && (victim->mode != PD_RUN_DECODE || victim->n_blocks == 0))
            victim = victim->prev;
        preempt(victim);
        if (victim == seq)
            return false;
    }
    return true;
}

/* Makes sure that a sequence has the blocks to go on.  *tight: one before it
 * waits for blocks, so it must not take any that it does not hold yet. */
static bool prepare(struct pd_seq *seq, uint32_t members, bool *tight)
{
    struct pd_engine *e = seq->e;

    if (seq->n_blocks == 0) {
        /* leave those before it room to grow, or they would throw it out again at once */
        if (*tight || ref_seq_reserve(seq, members) != PD_OK) {
            *tight = true;
            return false;
        }
        e->preempted--;
    }
    return grow(seq);
}

static void add_rows(struct pd_engine *e, struct ref_member *m, uint32_t n)
{
    struct pd_seq *seq = m->seq;

    m->rows = n;
    m->want = samples(seq) && seq->computed + n == seq->n;
    if (m->want)
        m->logits = e->n_wanted++;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pos = seq->computed + i;
        e->rows[e->n_rows++] = (struct ref_row){ seq->tokens[pos], pos, seq->blocks,
                                                 m->want && i + 1 == n };
    }
}

/* Worker thread: the leader. */
static void compute(struct pd_work *work, void *arg)
{
    struct pd_engine *e = ((struct ref_thread *)arg)->e;

    (void)work;
    ref_team_begin(&e->team, e->step_number, e->n_threads);
    e->step_status = ref_run_forward(e->run, &e->kv, e->rows, e->n_rows, NULL, NULL);
    ref_team_end(&e->team);
    for (uint32_t i = 0; i < e->n_members && e->step_status == PD_OK; i++) {
        struct ref_member *m = &e->members[i];
        const struct pd_seq *seq = m->seq;
        if (!m->want)
            continue;
        m->status = eng_sampler_choose(e->sampler, &seq->sampling, ref_run_logits(e->run, m->logits), seq->n,
                                       seq->tokens + seq->n_prompt - seq->given,
                                       seq->n - seq->n_prompt + seq->given, &m->choice);
    }
}

/* Worker threads: the others. */
static void help(struct pd_work *work, void *arg)
{
    struct ref_thread *t = arg;

    (void)work;
    ref_team_help(&t->e->team, t->e->step_number, t->member);
}

static void finish(struct pd_seq *seq, uint32_t reason, pd_status status)
{
    ref_seq_unqueue(seq);
    seq->ev.on_finish(seq, reason, status, seq->arg);
}

static bool is_over(const struct pd_seq *seq)
{
    return seq->mode == PD_RUN_PREFILL || seq->outputs >= seq->max_output || seq->n >= seq->room;
}

/* Rows of sequence and logits become tokens; alternatives are copied first because
 * the callee may do anything. */
static void take_token(struct pd_engine *e, struct ref_member *m)
{
    struct pd_seq *seq = m->seq;
    struct pd_logprob top[ENG_MAX_TOP];
    struct pd_token t = { .size = sizeof(t), .id = (int32_t)m->choice.token, .position = seq->n,
                          .logprob = m->choice.logprob, .n_top = m->choice.tops, .top = top };

    if (!seq->ignore_eos && ref_vocab_is_end(e->vocab, m->choice.token)) {
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
static void apply_member(struct pd_engine *e, struct ref_member *m)
{
    struct pd_seq *seq = m->seq;
    pd_status s = e->step_status != PD_OK ? e->step_status : m->want ? m->status : PD_OK;
    uint32_t before = seq->computed;

    if (s != PD_OK) {
        finish(seq, PD_FINISH_ERROR, s);
        return;
    }
    seq->computed += m->rows;
    /* without sampling the last token may be computed again for its logits; till then its
     * block stays private */
    ref_seq_publish(seq, samples(seq) || seq->computed < seq->n ? seq->computed : seq->n - 1);
    if (before < seq->n_prompt) {
        uint32_t upto = seq->computed < seq->n_prompt ? seq->computed : seq->n_prompt;
        e->prompt_tokens += upto - before;
        /* after a preemption the same KV comes again: not told twice */
        if (seq->ev.on_kv != NULL && upto > seq->told) {
            seq->told = upto;
            seq->ev.on_kv(seq, upto, seq->arg);
        }
        if (m->seq == NULL)
            return;
    }
    if (m->want)
        take_token(e, m);
    else if (!samples(seq) && seq->computed >= seq->upto)
        finish(seq, PD_FINISH_LENGTH, PD_OK);
}

static void apply(struct pd_engine *e)
{
    for (uint32_t i = 0; i < e->n_members; i++)
        if (e->members[i].seq != NULL && e->members[i].rows > 0)
            apply_member(e, &e->members[i]);
    for (uint32_t i = 0; i < e->n_members; i++)
        if (e->members[i].seq != NULL)
            e->members[i].seq->member = -1;
    e->n_members = 0;
    compose(e);
}

static void pace_over(struct pd_timer *timer, void *arg)
{
    struct pd_engine *e = arg;

    (void)timer;
    e->pacing = false;
    apply(e);
}

/* How long the step has to take when the configuration slows the engine down. */
static pd_time pace(const struct pd_engine *e)
{
    pd_time t = 0;

    if (e->conf->prefill_tokens_per_s > 0)
        t += e->prefill_rows * PD_SEC / e->conf->prefill_tokens_per_s;
    if (e->decode_rows > 0 && e->conf->ms_per_token > 0)
        t += (pd_time)(e->conf->ms_per_token * (double)PD_MS);
    return t;
}

/* A thread is through with the step; the last one ends it. */
static void computed(struct pd_work *work, pd_status status, void *arg)
{
    struct ref_thread *t = arg;
    struct pd_engine *e = t->e;
    pd_time due = e->step_start + pace(e);

    (void)work;
    if (status != PD_OK && t->member == 0)
        e->step_status = status;
    if (--e->n_busy > 0)
        return;
    e->computing = false;
    for (uint32_t i = 0; i < e->n_members; i++) {
        struct pd_seq *seq = e->members[i].seq;
        if (seq->closed) {
            e->members[i].seq = NULL;
            ref_seq_release(seq);
        }
    }
    if (e->closing)
        return;
    if (due > pd_loop_clock(e->loop)) {
        e->pacing = true;
        pd_timer_start_at(&e->pace, due);
    } else {
        apply(e);
    }
}

/* A step that is over sooner than a thread wakes up is computed by one. */
static uint32_t threads_for(const struct pd_engine *e)
{
    const struct ref_shape *s = ref_model_shape(e->model);
    uint64_t row = (uint64_t)s->layers * s->dim * (2 * s->heads * s->head_dim + 3 * s->ffn);

    return e->n_rows * row < THREADS_COST ? 1 : e->conf->threads;
}

static void submit(struct pd_engine *e)
{
    pd_status s;

    e->step_start = pd_loop_clock(e->loop);
    e->n_threads = threads_for(e);
    e->step_number++;
    e->threads[0].work.sim_cost_ns = SIM_STEP_NS + (pd_time)e->n_rows * SIM_ROW_NS;
    e->computing = true;
    e->n_busy = 1;
    s = pd_work_submit(e->loop, e->workq, &e->threads[0].work);
    if (s != PD_OK) {
        /* nothing runs: tell the members from the loop */
        e->computing = false;
        e->step_status = s;
        e->pacing = true;
        pd_timer_start_at(&e->pace, e->step_start);
        return;
    }
    for (uint32_t i = 1; i < e->n_threads; i++)     /* the step does without those that cannot come */
        if (pd_work_submit(e->loop, e->workq, &e->threads[i].work) == PD_OK)
            e->n_busy++;
}

/* Chooses the members and rows of the next step and starts it. */
static void compose(struct pd_engine *e)
{
    bool tight = false;

    if (e->computing || e->pacing || e->n_members > 0 || e->closing)
        return;
    e->n_rows = e->n_wanted = e->decode_rows = e->prefill_rows = 0;
    for (struct pd_seq *seq = e->head; seq != NULL && e->n_members < e->conf->max_running; seq = seq->next) {
        if (seq->pending || !prepare(seq, e->n_members, &tight))
            continue;
        seq->member = (int32_t)e->n_members;
        e->members[e->n_members++] = (struct ref_member){ .seq = seq };
    }
    e->running = e->n_members;
    for (uint32_t i = 0; i < e->n_members; i++)
        if (decodes(e->members[i].seq))
            add_rows(e, &e->members[i], 1);
    e->decode_rows = e->n_rows;
    for (uint32_t i = 0; i < e->n_members; i++) {
        struct pd_seq *seq = e->members[i].seq;
        uint32_t n = target(seq) - seq->computed, left = e->max_rows - e->n_rows;
        if (!decodes(seq))
            add_rows(e, &e->members[i], n < left ? n : left);
    }
    e->prefill_rows = e->n_rows - e->decode_rows;
    if (e->n_rows > 0)
        submit(e);
}

/* The token that another node has sampled becomes part of the sequence. */
static void tell_first(struct pd_engine *e, struct pd_seq *seq)
{
    uint64_t order = seq->order;

    seq->tell_first = false;
    if (!seq->ignore_eos && ref_vocab_is_end(e->vocab, (uint32_t)seq->first.id)) {
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
        ref_step_kick(e);
}

static void kicked(struct pd_task *task, void *arg)
{
    struct pd_engine *e = arg;

    (void)task;
    tell_pending(e);
    compose(e);
}

void ref_step_kick(struct pd_engine *e)
{
    if (!e->closing)
        pd_loop_defer(e->loop, &e->kick);
}

void ref_step_init(struct pd_engine *e)
{
    pd_task_init(&e->kick, "ref engine", kicked, e);
    pd_timer_init(&e->pace, e->loop, "ref engine pace", pace_over, e);
    for (uint32_t i = 0; i < e->conf->threads; i++) {
        struct ref_thread *t = &e->threads[i];
        t->e = e;
        t->member = i;
        t->work = (struct pd_work){ .run = i == 0 ? compute : help, .done = computed, .arg = t,
                                    .name = "ref engine step" };
    }
    e->pending_end = &e->pending;
}

bool ref_step_stop(struct pd_engine *e)
{
    e->closing = true;
    pd_task_cancel(e->loop, &e->kick);
    pd_timer_stop(&e->pace);
    e->pacing = false;
    return !e->computing;
}
