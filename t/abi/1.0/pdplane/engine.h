/* SPDX-License-Identifier: Apache-2.0 */
/* Engine kind: what computes tokens inside this process.  Stable.
 *
 * An engine owns one pool of KV blocks and any number of sequences.  A sequence
 * is one prompt and its continuation.  The caller (a role module) moves it
 * through its life:
 *
 *   seq_open      blocks for the whole prompt are reserved; a prefix found in
 *                 the cache is already computed
 *   seq_import    tells that KV up to a position was written into the blocks
 *                 from outside and verified
 *   seq_run       computes: the rest of the prompt, then tokens
 *   seq_close     gives everything back
 *
 * All functions and all events happen on the thread of the loop in
 * struct pd_instance_ctx; the computing itself happens elsewhere (pd_work) and
 * never delays the loop.  Events are never called from inside an op. */
#ifndef PDPLANE_ENGINE_H
#define PDPLANE_ENGINE_H

#include <pdplane/layout.h>
#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_ENGINE_V1 1u

struct pd_engine; /* an instance; the module's own */
struct pd_seq;    /* a sequence; the module's own */

enum {
    PD_ENGINE_EXPORT = 1u << 0, /* KV of a running prefill may be read block by block */
    PD_ENGINE_IMPORT = 1u << 1, /* KV may be written into reserved blocks */
    PD_ENGINE_EXACT = 1u << 2   /* tokens do not depend on what else runs, and a sequence may be
                                   continued elsewhere with identical tokens */
};

/* What an instance is; constant after create. */
struct pd_engine_info {
    uint32_t size;
    uint32_t flags;            /* PD_ENGINE_* */
    const char *model;         /* name served when the configuration gives none */
    struct pd_layout layout;
    uint32_t context_tokens;   /* longest prompt plus answer */
    uint32_t vocab;            /* token ids are 0..vocab-1 */
    uint32_t blocks;           /* in the pool */
    uint32_t max_running;      /* sequences computed at a time */
    void *region;              /* the pool's memory, host memory */
    uint64_t region_bytes;     /* blocks * layout.block_bytes */
    int32_t region_fd;         /* memfd behind it, -1 when there is none */
    uint32_t reserved;
};

/* What an instance does now. */
struct pd_engine_load {
    uint32_t size;
    uint32_t running;          /* sequences being computed */
    uint32_t waiting;          /* sequences waiting for a place in the batch */
    uint32_t blocks_total;
    uint32_t blocks_free;      /* free or evictable */
    uint32_t blocks_cached;    /* hold a prefix, evictable */
    uint64_t prompt_tokens;    /* computed since create */
    uint64_t output_tokens;    /* sampled since create */
    uint64_t cached_tokens;    /* prompt tokens found in the cache since create */
    uint64_t preemptions;      /* sequences thrown out of the batch for want of blocks */
};

struct pd_sampling {
    uint32_t size;
    uint32_t top_k;            /* 0 is off */
    double temperature;        /* 0 is greedy */
    double top_p;              /* 1 is off */
    double min_p;              /* 0 is off */
    double frequency_penalty;  /* 0 is off */
    double presence_penalty;   /* 0 is off */
    uint64_t seed;             /* sampling of the token at position p depends on (seed, p) and the
                                  logits alone */
    uint32_t logprobs;         /* alternatives to report per token, 0..20 */
    uint32_t want_logprob;     /* 1: report the chosen token's own logprob */
};

struct pd_seq_params {
    uint32_t size;
    uint32_t n_tokens;         /* of the prompt, at least 1 */
    const int32_t *tokens;     /* borrowed during the call */
    struct pd_str cache_salt;  /* prefixes are shared only under the same salt; borrowed */
    struct pd_sampling sampling;
    uint32_t max_output;       /* tokens to sample at most, at least 1 */
    uint32_t n_output_given;   /* how many of `tokens`, at the end, are output of an earlier run of
                                  the same request; counts against max_output and the penalties */
    uint32_t ignore_eos;       /* 1: end-of-text tokens do not stop the sequence */
    uint32_t priority;         /* larger runs first; 0 is usual */
    struct pd_str request_id;  /* for logs; borrowed */
};

struct pd_logprob {
    int32_t token;
    float logprob;
};

/* One sampled token. */
struct pd_token {
    uint32_t size;
    int32_t id;
    uint32_t position;         /* index in prompt plus output, from 0 */
    float logprob;             /* of the chosen token; valid when asked for */
    uint32_t n_top;            /* alternatives in `top`, best first */
    uint32_t reserved;
    const struct pd_logprob *top; /* borrowed during the event */
};

enum {
    PD_FINISH_STOP = 1,        /* end-of-text token, which is not delivered */
    PD_FINISH_LENGTH = 2,      /* max_output or the context is used up */
    PD_FINISH_ERROR = 3        /* the engine failed; status says how */
};

/* Events of one sequence.  None comes after on_finish or after seq_close. */
struct pd_seq_events {
    uint32_t size;
    uint32_t reserved;
    /* KV of tokens [0, upto) is complete in the blocks and will not change;
     * called after each prefill chunk, in order.  May be NULL. */
    void (*on_kv)(struct pd_seq *seq, uint32_t upto, void *arg);
    /* A token was sampled. */
    void (*on_token)(struct pd_seq *seq, const struct pd_token *token, void *arg);
    /* The sequence ended by itself; it still holds its blocks. */
    void (*on_finish)(struct pd_seq *seq, uint32_t reason, pd_status status, void *arg);
};

struct pd_message {
    struct pd_str role;        /* "system", "user", "assistant", "tool" */
    struct pd_str content;     /* UTF-8 */
};

struct pd_engine_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_engine_ops, PD_ENGINE_V1) */

    /* Life of an instance.  conf is the unit's conf_size bytes, filled from
     * its rows, valid until destroy.  create may take seconds (it loads the
     * model).  destroy comes when no sequence is open; on_closed is the last
     * callback, ctx and what it points to stay valid until then. */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_engine **out,
                        struct pd_err *err);
    void (*destroy)(struct pd_engine *engine, void (*on_closed)(void *arg), void *arg);
    void (*info)(struct pd_engine *engine, struct pd_engine_info *out);
    void (*load)(struct pd_engine *engine, struct pd_engine_load *out);

    /* Text to token ids, beginning-of-text token included.  Special pieces in
     * the text are ordinary text.  Returns PD_OK and *n; PD_ELIMIT when cap is
     * too small, with *n the count needed (for a text that is far too long
     * just a count above cap); PD_EINVAL for bad UTF-8. */
    pd_status (*encode)(struct pd_engine *engine, struct pd_str text, int32_t *ids, size_t cap, size_t *n);
    /* A conversation through the model's chat template, ready for the
     * assistant to answer.  Returns as encode; PD_EDECLINED for a role the
     * template does not know. */
    pd_status (*encode_chat)(struct pd_engine *engine, const struct pd_message *messages, size_t count,
                             int32_t *ids, size_t cap, size_t *n);
    /* The bytes a token adds to the text; an empty string for control tokens.
     * May be part of a UTF-8 character.  Borrowed until destroy. */
    struct pd_str (*piece)(struct pd_engine *engine, int32_t id);

    /* How many leading tokens of a prompt the cache holds (whole blocks). */
    uint32_t (*cached)(struct pd_engine *engine, const int32_t *tokens, uint32_t n, struct pd_str cache_salt);

    /* Reserves blocks for the prompt.  *computed tells how many leading tokens
     * are in place already (from the cache, less than n_tokens).  PD_EAGAIN
     * when blocks are short now, PD_ELIMIT when the prompt can never fit. */
    pd_status (*seq_open)(struct pd_engine *engine, const struct pd_seq_params *params,
                          const struct pd_seq_events *events, void *arg, struct pd_seq **out,
                          uint32_t *computed);
    /* Pool indices of the prompt's blocks [first, first + count), and the
     * generation of each (either output may be NULL).  Valid until seq_close;
     * for a running prefill valid for tokens that on_kv has reported. */
    pd_status (*seq_blocks)(struct pd_seq *seq, uint32_t first, uint32_t count, uint32_t *index,
                            uint64_t *generation);
    /* KV of tokens [0, upto) is in the blocks now, written from outside and
     * verified.  Only before seq_run; upto at most n_tokens. */
    pd_status (*seq_import)(struct pd_seq *seq, uint32_t upto);
    /* Starts computing.  PD_RUN_PREFILL: the prompt and its first token, then
     * on_finish with PD_FINISH_LENGTH unless the first token ended the text.
     * PD_RUN_PREFILL_ONLY: the prompt up to token `upto`, no sampling.
     * PD_RUN_DECODE: to the end.  When KV of the whole prompt was imported,
     * `first` is the token that the other side sampled; it is delivered by
     * on_token like any other. */
    pd_status (*seq_run)(struct pd_seq *seq, uint32_t mode, uint32_t upto, const struct pd_token *first);
    /* Ends the sequence at any time, gives its blocks back as soon as no
     * computation can touch them; prefix blocks that were computed or imported
     * stay cached.  No event follows; seq is gone for the caller. */
    void (*seq_close)(struct pd_seq *seq);
};

enum {
    PD_RUN_PREFILL = 1,
    PD_RUN_PREFILL_ONLY = 2,
    PD_RUN_DECODE = 3
};

#ifdef __cplusplus
}
#endif
#endif
