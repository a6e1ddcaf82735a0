/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of an engine instance and of its sequences, shared by llama.c (options,
 * life), context.c (model and context), kv.c (blocks and cells), seq.c (operations
 * on sequences) and step.c (what is computed when).
 *
 * KV is in two places: in cells of libllama's context while a sequence is
 * computed, and in blocks of the pool, from where others read it and where it
 * stays as a prefix.  `loaded` and `stored` of a sequence say how far each goes. */
#ifndef LL_ENGINE_IN_H
#define LL_ENGINE_IN_H

#include "blob.h"
#include "pool.h"
#include "sample.h"
#include "text.h"

#include <pdplane/engine.h>
#include <pdplane/host.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>

enum { LL_MAX_SLOTS = 255, LL_MAX_THREADS = 512 };

struct ll_conf {
    const char *model, *chat_template, *backends;
    uint64_t kv_memory;
    uint32_t block_tokens, kv_dtype, context, cells, max_running, max_sequences, step_tokens, threads, gpu_layers;
    bool flash_attention, prefix_cache;
};

enum ll_seq_state {
    LL_SEQ_OPEN,                /* blocks reserved, not started */
    LL_SEQ_QUEUED,              /* in the queue: computed in turn */
    LL_SEQ_DONE                 /* ended by itself, still holds its blocks */
};

struct pd_seq {
    struct pd_engine *e;
    struct pd_seq *prev, *next;         /* queue */
    struct pd_seq *pending_next;
    struct pd_seq_events ev;
    void *arg;
    enum ll_seq_state state;
    uint32_t mode, upto;
    bool pending;                       /* in the list of sequences with an event to tell */
    bool tell_first;
    bool closed;                        /* by the caller, but a step still computes it */
    bool ignore_eos;
    int32_t member;                     /* place in the step, -1 when in none */
    int32_t slot;                       /* its number in the context, -1: none */

    uint32_t *tokens;                   /* prompt and output known so far; room for all */
    uint32_t n, n_prompt, room;
    uint32_t given, outputs, max_output;    /* output tokens: in the prompt, in all, most */
    uint32_t stored;                    /* leading tokens whose KV is in the blocks */
    uint32_t loaded;                    /* leading tokens whose KV is in cells of its slot */
    uint32_t cells;                     /* that are set aside for it */
    uint32_t told;                      /* upto of the last on_kv */

    uint32_t *blocks;                   /* room for all tokens; never moves */
    uint32_t n_blocks;
    struct eng_hash root, chain;        /* chain: of the first n_chained blocks */
    uint32_t n_chained;

    struct eng_sampling sampling;
    uint32_t priority;
    uint64_t order;
    struct pd_token first;
    struct pd_logprob first_top[ENG_MAX_TOP];
};

/* One sequence's part in a step: KV of [load, start) is loaded from blocks, `rows`
 * tokens from start are computed, then KV of [store, store_to) is stored. */
struct ll_member {
    struct pd_seq *seq;                 /* NULL when it was closed meanwhile */
    uint32_t load, start, rows, store, store_to;
    int32_t slot;
    bool want;                          /* a token is sampled */
    int32_t logits;                     /* row of the batch that has its logits */
    pd_status status;
    struct eng_choice choice;
};

/* What a context can do with KV; made once. */
struct ll_kv {
    bool usable;                        /* blobs are understood: KV can be stored and loaded */
    struct ll_shape shape;
    uint32_t kv_heads, head_dim;
    uint32_t piece;                     /* tokens in the greatest blob */
    uint8_t *blob;                      /* room for one */
};

struct pd_engine {
    const struct ll_conf *conf;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_host *host;
    char name[128];
    struct llama_model *model;
    struct llama_context *ctx;
    struct ll_text text;
    struct ll_kv kv;
    uint32_t context, n_cells;
    struct pd_layout layout;
    struct pd_host_memory memory;
    struct ll_place place;              /* without the block table of a sequence */
    uint32_t n_blocks;
    struct eng_pool *pool;
    uint32_t sequences;                 /* open now */

    /* Queue by priority and order, and sequences that have an event to tell. */
    struct pd_seq *head, *tail;
    struct pd_seq *pending, **pending_end;
    uint32_t queued;
    uint64_t next_order;
    struct pd_task kick;

    /* Slots: who has them, and which still hold cells of one who had it.  One more,
     * behind the last, is for copies. */
    struct pd_seq *slot[LL_MAX_SLOTS];
    bool dirty[LL_MAX_SLOTS];
    uint32_t cells_free, running;

    /* The step.  While `computing` the worker owns context, sampler, batch and
     * members; the loop only marks sequences as closed. */
    struct pd_workq *workq;
    struct pd_work work;
    bool computing, closing;
    int32_t abort;                      /* 1: nobody wants the step's result; atomic */
    struct eng_sampler *sampler;
    struct llama_batch batch;
    struct ll_member *members;
    uint32_t n_members, n_rows, max_rows, clean[LL_MAX_SLOTS], n_clean;
    pd_status step_status;

    uint64_t prompt_tokens, output_tokens, cached_tokens, preemptions;
    void (*on_closed)(void *arg);      /* of destroy */
    void *closed_arg;
};

/* context.c */
/* Loads model and vocabulary and makes the context. */
pd_status ll_context_open(struct pd_engine *e, struct pd_err *err);
void ll_context_close(struct pd_engine *e);

/* kv.c: on the worker, or before there is one. */
/* Looks whether KV can be stored and loaded, by doing so once. */
pd_status ll_kv_open(struct pd_engine *e, struct pd_err *err);
void ll_kv_close(struct pd_engine *e);
/* Copies KV of [from, to) from the cells of a slot into blocks: PD_OK, PD_EIO. */
pd_status ll_kv_store(struct pd_engine *e, int32_t slot, const uint32_t *blocks, uint32_t from, uint32_t to);
/* The other way, behind what the slot has: PD_OK; PD_EIO; PD_EINTEGRITY when the
 * blocks hold what is not a number. */
pd_status ll_kv_load(struct pd_engine *e, int32_t slot, const uint32_t *blocks, uint32_t from, uint32_t to);

/* seq.c: the operations of engine.h. */
pd_status ll_seq_open(struct pd_engine *e, const struct pd_seq_params *params,
                      const struct pd_seq_events *events, void *arg, struct pd_seq **out, uint32_t *computed);
pd_status ll_seq_blocks(struct pd_seq *seq, uint32_t first, uint32_t count, uint32_t *index,
                        uint64_t *generation);
pd_status ll_seq_import(struct pd_seq *seq, uint32_t upto);
pd_status ll_seq_run(struct pd_seq *seq, uint32_t mode, uint32_t upto, const struct pd_token *first);
void ll_seq_close(struct pd_seq *seq);

/* Gives back blocks and memory; the sequence is in no queue and no step. */
void ll_seq_release(struct pd_seq *seq);
/* Publishes the blocks that are full up to what is stored. */
void ll_seq_publish(struct pd_seq *seq);
/* Takes the sequence out of the queue; its slot is free then. */
void ll_seq_unqueue(struct pd_seq *seq);

/* slots.c */
/* Gives back its slot; no step computes it. */
void ll_slot_drop(struct pd_seq *seq);
/* Sees to a slot and to cells for all tokens known.  `spare` cells are left over
 * when it gets a slot.  Who is behind it in the queue may lose its slot.  False: it
 * has to wait; *tight, that others that wait must not come before it. */
bool ll_slot_take(struct pd_seq *seq, uint32_t spare, bool *tight);

/* step.c */
void ll_step_init(struct pd_engine *e);
/* Looks for something to do on the next turn of the loop. */
void ll_step_kick(struct pd_engine *e);
/* Tells the step under way to end soon, if nobody waits for it any more. */
void ll_step_forget(struct pd_engine *e);
void ll_step_stop(struct pd_engine *e);
/* Worker thread. */
void ll_step_compute(struct pd_work *work, void *arg);

#endif
