/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler of a node: the table of endpoints, the prefix index and the
 * pipeline of profiles.  Second tier: bound to the exact version of pdplane.
 * The kinds of module that take part in a decision are in scheduler.h.
 *
 *     const struct pd_sched_api *s = pd_host()->table(host, PD_SCHED_TABLE, PD_SCHED_VERSION);
 *     struct pd_sched *sched = pd_host()->object(host, PD_SCHED_TABLE);
 *
 *     struct pd_prompt prompt;
 *     s->prompt_hash(sched, &prompt, model, salt, bytes, n, hashes, room);
 *     st = s->schedule(sched, &ask, &plan);        // decode, local or remote, prefill
 *     s->dispatch(sched, plan.decode.ref, PD_ROLE_DECODE, &prompt, tokens, now, &d);
 *     s->computed(sched, &d);                      // its prompt is done
 *     s->end(sched, &d, PD_DISPATCH_OK, now);      // exactly once for each dispatch
 *
 * All functions: loop thread; none blocks or calls back into its caller except
 * through the explain sink.  Times are the caller's pd_loop_now. */
#ifndef PDPLANE_SCHED_H
#define PDPLANE_SCHED_H

#include <pdplane/req.h>
#include <pdplane/scheduler.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_SCHED_TABLE "sched"
#define PD_SCHED_VERSION 1u

#define PD_SCHED_PREFILL_MAX 3u    /* prefill candidates of one plan */
#define PD_SCHED_AVOID_MAX 8u
#define PD_ENDPOINT_KEY_MAX 255u   /* bytes */
#define PD_ENDPOINT_NAME_MAX 63u
#define PD_ENDPOINT_MODELS_MAX 64u
#define PD_PROMPT_BLOCK_MAX 4096u  /* bytes of one hashed block */

/* A handle that survives the endpoint: calls with one of a removed endpoint
 * return PD_ESTALE and do nothing.  serial 0 is no endpoint. */
struct pd_endpoint_ref {
    uint32_t slot;
    uint32_t reserved;
    uint64_t serial;
};

enum {
    PD_ENDPOINT_WHOLE = 1u << 0,   /* takes a request as a whole: it computes the prompt of what it
                                      decodes, and no prompt of others */
    PD_ENDPOINT_ESTIMATE = 1u << 1,/* decodes, but cannot count tokens first: PD_DECIDE_EXACT is
                                      decided here, by an estimate */
    PD_ENDPOINT_PAIRED = 1u << 2   /* decodes only prompts that another endpoint of its family computes:
                                      without one it is not chosen */
};

/* What an endpoint is; strings are copied. */
struct pd_endpoint_info {
    uint32_t size;
    uint32_t roles;            /* PD_ROLE_*; 0 counts as decode */
    struct pd_str key;         /* unique in the table: node id and engine, or a URL */
    struct pd_str name;        /* for people; cut to 63 bytes */
    const struct pd_str *models;  /* that it serves */
    uint32_t models_n;         /* 0: any model */
    uint32_t weight;           /* 0 is 100 */
    uint32_t state;            /* PD_ENDPOINT_*; 0 leaves it as it is, UP for a new one */
    uint32_t blocks_total;     /* KV blocks; 0 unknown */
    uint32_t block_tokens;     /* tokens of one of these blocks; 0 unknown */
    uint32_t flags;            /* PD_ENDPOINT_WHOLE ... */
    void *user;                /* the owner's; comes back in plans */
    uint64_t family;           /* prompts go only between endpoints of the same one; 0: our nodes */
};

struct pd_endpoint_load {
    uint32_t size;
    uint32_t running;
    uint32_t waiting;
    uint32_t blocks_total;     /* 0 leaves it as it is */
    uint32_t blocks_free;
};

/* An endpoint as tables show it; strings are borrowed until the endpoint
 * changes or goes. */
struct pd_endpoint_status {
    uint32_t size;
    uint32_t failures;         /* in a row */
    struct pd_endpoint_ref ref;
    struct pd_endpoint_view view;
    const char *key;
    const char *const *models; /* ended by NULL */
    uint64_t dispatched_total;
    uint64_t failed_total;
    uint64_t index_blocks;     /* entries of the prefix index */
    void *user;
};

/* A prompt as the prefix index knows it: read-only. */
struct pd_prompt {
    const uint64_t *hashes;    /* caller's array, borrowed until the last call with this prompt */
    uint32_t n;                /* blocks hashed */
    uint32_t reserved;
    uint64_t bytes;            /* of the whole prompt */
};

struct pd_sched_ask {
    uint32_t size;
    uint32_t prefill_max;      /* candidates wanted, 0 to 3; 0: do not look for any */
    struct pd_str model;
    struct pd_str session;     /* may be empty */
    const struct pd_prompt *prompt;    /* NULL: nothing is known */
    uint64_t prompt_bytes;     /* of the text; 0 with a prompt: prompt->bytes */
    uint64_t prompt_tokens;    /* 0: estimated from prompt_bytes */
    uint32_t tokens_exact;     /* 1: prompt_tokens is exact */
    uint32_t max_output;       /* 0 unknown */
    uint64_t random;           /* fresh random bits */
    pd_time now;
    const struct pd_endpoint_ref *avoid;   /* failed for this request already; used only when
                                              nothing else is left */
    uint32_t avoid_n;          /* at most PD_SCHED_AVOID_MAX, more are ignored */
    uint32_t reserved;
    struct pd_explain_sink explain;
};

struct pd_sched_target {
    struct pd_endpoint_ref ref;
    void *user;
    const char *name;          /* borrowed until the endpoint goes */
    double total;              /* its score */
    uint32_t match_blocks;
    uint32_t name_n;           /* bytes of its name */
};

struct pd_sched_plan {
    uint32_t size;
    uint32_t prefill_n;        /* 0: the request runs aggregated on the decode endpoint; never with
                                  PD_ENDPOINT_PAIRED */
    struct pd_sched_target decode;
    struct pd_sched_target prefill[PD_SCHED_PREFILL_MAX];  /* best first, never decode */
    struct pd_decision decision;   /* mode is LOCAL whenever prefill_n is 0 */
    uint32_t stale;            /* 1: all load reports were too old, they were used anyway */
    uint32_t reserved;
};

/* A dispatch that has not ended; caller's memory, opaque. */
struct pd_dispatch {
    struct pd_endpoint_ref ref;
    uint64_t ticket;           /* 0: not open */
    uint64_t tokens;           /* not yet computed */
    const struct pd_prompt *prompt;
    uint32_t report;
    uint32_t role;
};

enum {
    PD_DISPATCH_OK = 1,
    PD_DISPATCH_FAILED = 2,    /* the endpoint's fault, counts against it; the index entries
                                  that it made go unless it was computed */
    PD_DISPATCH_CANCELLED = 3  /* nobody's fault; index entries as above */
};

struct pd_sched;

struct pd_sched_api {
    uint32_t size;
    uint32_t version;          /* PD_SCHED_VERSION */

    /* Adds the endpoint with info->key, or updates it (same ref).  PD_OK,
     * PD_EINVAL, PD_ELIMIT (table full), PD_ENOMEM. */
    pd_status (*endpoint_put)(struct pd_sched *sched, const struct pd_endpoint_info *info,
                              struct pd_endpoint_ref *out);
    /* Forgets it and its index entries; open dispatches may still be ended.
     * PD_OK, PD_ESTALE. */
    pd_status (*endpoint_remove)(struct pd_sched *sched, struct pd_endpoint_ref ref);
    /* PD_OK, PD_ENOENT. */
    pd_status (*endpoint_find)(const struct pd_sched *sched, struct pd_str key,
                               struct pd_endpoint_ref *out);
    /* PD_OK, PD_ESTALE, PD_EINVAL.  state: PD_ENDPOINT_*. */
    pd_status (*endpoint_state)(struct pd_sched *sched, struct pd_endpoint_ref ref, uint32_t state);
    /* A load report arrived.  PD_OK, PD_ESTALE. */
    pd_status (*endpoint_report)(struct pd_sched *sched, struct pd_endpoint_ref ref,
                                 const struct pd_endpoint_load *load, pd_time now);
    /* The endpoint lost its cache (restart): its index entries go. */
    pd_status (*endpoint_forget)(struct pd_sched *sched, struct pd_endpoint_ref ref);
    /* PD_OK, PD_ESTALE. */
    pd_status (*endpoint_get)(const struct pd_sched *sched, struct pd_endpoint_ref ref, pd_time now,
                              struct pd_endpoint_status *out);
    /* Walks the table by slot; *cursor = 0 first, false at the end. */
    bool (*endpoint_next)(const struct pd_sched *sched, uint32_t *cursor, pd_time now,
                          struct pd_endpoint_status *out);
    /* How many endpoints with one of these roles serve the model (empty: any)
     * and are UP or SUSPECT; for readiness.  Paired ones count when a prompt can be
     * computed for them. */
    uint32_t (*endpoint_count)(const struct pd_sched *sched, uint32_t roles, struct pd_str model);
    /* Whether any endpoint, in whatever state, serves the model: else 404. */
    bool (*model_known)(const struct pd_sched *sched, struct pd_str model);

    /* Places in `hashes` that a prompt of so many bytes can use. */
    uint32_t (*prompt_room)(const struct pd_sched *sched, uint64_t bytes);
    /* Hashes a prompt, block by block, the tail too; blocks without room are left
     * out.  salt: the request's cache_salt, may be empty. */
    void (*prompt_hash)(const struct pd_sched *sched, struct pd_prompt *prompt, struct pd_str model,
                        struct pd_str salt, const void *bytes, size_t n, uint64_t *hashes,
                        uint32_t room);

    /* Chooses a decode endpoint, decides local or remote, chooses prefill
     * endpoints.  Counts nothing as sent.  PD_OK; PD_ENOENT: no endpoint
     * serves the model; PD_EAGAIN: none that does can take it now. */
    pd_status (*schedule)(struct pd_sched *sched, const struct pd_sched_ask *ask,
                          struct pd_sched_plan *out);
    /* As schedule, for further prefill endpoints after those of a plan failed
     * (ask->avoid): fills prefill and prefill_n only.  PD_OK, PD_EAGAIN. */
    pd_status (*schedule_prefill)(struct pd_sched *sched, const struct pd_sched_ask *ask,
                                  struct pd_sched_plan *out);

    /* A request was sent to the endpoint: counts it in flight and, with a
     * prompt, expects its blocks there from now on.  prompt (may be NULL) is
     * borrowed until end.  tokens: prompt tokens to compute there.  PD_OK,
     * PD_ESTALE (out is then closed, end does nothing). */
    pd_status (*dispatch)(struct pd_sched *sched, struct pd_endpoint_ref ref, uint32_t role,
                          const struct pd_prompt *prompt, uint64_t tokens, pd_time now,
                          struct pd_dispatch *out);
    /* Its prompt is computed; may be left out or repeated. */
    void (*computed)(struct pd_sched *sched, struct pd_dispatch *dispatch);
    /* It ended: PD_DISPATCH_*.  Closes the dispatch; on a closed one nothing happens. */
    void (*end)(struct pd_sched *sched, struct pd_dispatch *dispatch, uint32_t result, pd_time now);

    /* The endpoint leaves: nothing is sent to it any more and its `user` is not
     * given out; it is shown as draining until its last dispatch has ended, then
     * removed.  A put with its key brings it back, with its index and what is in
     * flight; state 0 then is the state it had.  PD_OK, PD_ESTALE. */
    pd_status (*endpoint_drain)(struct pd_sched *sched, struct pd_endpoint_ref ref);
};

#ifdef __cplusplus
}
#endif
#endif
