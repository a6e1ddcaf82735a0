/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of an engine instance and of its sequences, shared by ref.c (life),
 * seq.c (operations on sequences) and step.c (what is computed when). */
#ifndef REF_ENGINE_IN_H
#define REF_ENGINE_IN_H

#include "chat.h"
#include "model.h"
#include "pool.h"
#include "sample.h"
#include "team.h"
#include "vocab.h"

#include <pdplane/engine.h>
#include <pdplane/host.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>

struct ref_conf {
    const char *model;
    uint64_t kv_memory;
    uint32_t block_tokens, kv_dtype, context, max_running, max_sequences, step_tokens, threads;
    bool prefix_cache;
    uint32_t prefill_tokens_per_s;
    double ms_per_token;
};

enum ref_seq_state {
    REF_SEQ_OPEN,               /* blocks reserved, not started */
    REF_SEQ_QUEUED,             /* in the queue: computed in turn */
    REF_SEQ_DONE                /* ended by itself, still holds its blocks */
};

struct pd_seq {
    struct pd_engine *e;
    struct pd_seq *prev, *next;         /* queue */
    struct pd_seq *pending_next;
    struct pd_seq_events ev;
    void *arg;
    enum ref_seq_state state;
    uint32_t mode, upto;
    bool pending;                       /* in the list of sequences with an event to tell */
    bool tell_first;
    bool closed;                        /* by the caller, but a step still computes it */
    int32_t member;                     /* place in the step, -1 when in none */

    uint32_t *tokens;                   /* prompt and output known so far; room for all */
    uint32_t n, n_prompt, room;
    uint32_t given, outputs, max_output;    /* output tokens: in the prompt, in all, most */
    uint32_t computed;                  /* tokens whose KV is in the blocks */
    uint32_t told;                      /* upto of the last on_kv */
    bool ignore_eos;

    uint32_t *blocks;                   /* room for all tokens; never moves */
    uint32_t n_blocks;                  /* 0: thrown out, to be computed again */
    struct eng_hash root, chain;        /* chain: of the first n_chained blocks */
    uint32_t n_chained;

    struct eng_sampling sampling;
    uint32_t priority;
    uint64_t order;
    struct pd_token first;
    struct pd_logprob first_top[ENG_MAX_TOP];
};

/* One sequence's part in a step. */
struct ref_member {
    struct pd_seq *seq;                 /* NULL when it was closed meanwhile */
    uint32_t rows;
    bool want;                          /* a token is sampled */
    uint32_t logits;                    /* which of the wanted rows is its own */
    pd_status status;                   /* of sampling */
    struct eng_choice choice;
};

/* The work of one thread in a step; the first is the leader's. */
struct ref_thread {
    struct pd_engine *e;
    struct pd_work work;
    uint32_t member;
};

struct pd_engine {
    const struct ref_conf *conf;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_host *host;
    struct ref_model *model;
    struct ref_vocab *vocab;
    struct ref_chat chat;
    char name[128];
    uint32_t context;
    struct pd_layout layout;
    struct pd_host_memory memory;
    struct ref_kv kv;
    struct eng_pool *pool;
    uint32_t sequences;                 /* open now */

    /* Queue by priority and order, and sequences that have an event to tell. */
    struct pd_seq *head, *tail;
    struct pd_seq *pending, **pending_end;
    uint32_t queued, preempted;
    uint64_t next_order;
    struct pd_task kick;

    /* The step.  While `computing` the worker owns run, sampler, rows and
     * members; the loop only marks sequences as closed. */
    struct pd_workq *workq;
    struct ref_thread *threads;
    struct ref_team team;
    uint32_t n_threads;                 /* of the step under way, and how many of */
    uint32_t n_busy;                    /* them have not told their end */
    uint32_t step_number;
    struct pd_timer pace;
    bool computing, pacing, closing;
    struct ref_run *run;
    struct eng_sampler *sampler;
    struct ref_row *rows;
    uint32_t max_rows, n_rows, n_wanted, n_members, prefill_rows, decode_rows;
    struct ref_member *members;
    pd_status step_status;
    pd_time step_start;
    uint32_t running;

    uint64_t prompt_tokens, output_tokens, cached_tokens, preemptions;
    void (*on_closed)(void *arg);      /* of destroy */
    void *closed_arg;
};

/* seq.c: the operations of engine.h. */
pd_status ref_seq_open(struct pd_engine *e, const struct pd_seq_params *params,
                       const struct pd_seq_events *events, void *arg, struct pd_seq **out,
                       uint32_t *computed);
pd_status ref_seq_blocks(struct pd_seq *seq, uint32_t first, uint32_t count, uint32_t *index,
                         uint64_t *generation);
pd_status ref_seq_import(struct pd_seq *seq, uint32_t upto);
pd_status ref_seq_run(struct pd_seq *seq, uint32_t mode, uint32_t upto, const struct pd_token *first);
void ref_seq_close(struct pd_seq *seq);

/* Gives back blocks and memory; the sequence is in no queue and no step. */
void ref_seq_release(struct pd_seq *seq);
/* Gives back the blocks only. */
void ref_seq_drop_blocks(struct pd_seq *seq);
/* Takes blocks for all tokens known, from the cache as far as possible, and
 * sets computed.  Returns PD_OK or PD_EAGAIN; `spare` blocks are left over. */
pd_status ref_seq_reserve(struct pd_seq *seq, uint32_t spare);
/* Publishes the blocks that are full up to a token count. */
void ref_seq_publish(struct pd_seq *seq, uint32_t upto);
/* Takes the sequence out of the queue. */
void ref_seq_unqueue(struct pd_seq *seq);

/* step.c */
/* Looks for something to do on the next turn of the loop. */
void ref_step_kick(struct pd_engine *e);
void ref_step_init(struct pd_engine *e);
/* Ends pacing; true when no step is being computed. */
bool ref_step_stop(struct pd_engine *e);

#endif
