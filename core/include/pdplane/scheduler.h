/* SPDX-License-Identifier: Apache-2.0 */
/* Scheduler kinds: filter, scorer, picker and decider.  Stable.
 *
 * For each request the core runs a profile: filters shrink the set of
 * endpoints, scorers give each a value in 0..1 that is multiplied with the
 * profile's weight and summed, a picker takes one or several.  The decode
 * profile runs first; a decider then says whether the prompt is prefilled
 * elsewhere; if so the prefill profile runs.
 *
 * All ops run on the loop thread, must not block and must not allocate after
 * their first calls.  Arrays are indexed by candidate, 0..n-1. */
#ifndef PDPLANE_SCHEDULER_H
#define PDPLANE_SCHEDULER_H

#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_FILTER_V1 1u
#define PD_SCORER_V1 1u
#define PD_PICKER_V1 1u
#define PD_DECIDER_V1 1u

enum {
    PD_ROLE_PREFILL = 1u << 0,
    PD_ROLE_DECODE = 1u << 1,
    PD_ROLE_ROUTER = 1u << 2
};

enum {
    PD_ENDPOINT_UP = 1,
    PD_ENDPOINT_SUSPECT = 2,   /* missed heartbeats or recent failures */
    PD_ENDPOINT_DOWN = 3,
    PD_ENDPOINT_DRAINING = 4   /* takes no new request */
};

/* One candidate as the core knows it at this moment. */
struct pd_endpoint_view {
    uint32_t size;
    uint32_t slot;             /* stable small number of the endpoint, for tables of one's own */
    uint64_t serial;           /* unique; a slot that is used again has a new serial */
    const char *name;
    uint32_t roles;            /* PD_ROLE_*; 0 counts as decode */
    uint32_t state;            /* PD_ENDPOINT_* */
    uint32_t running;          /* reported by the endpoint */
    uint32_t waiting;          /* reported by the endpoint */
    uint32_t inflight;         /* dispatched from here and not ended */
    uint32_t dispatched;       /* of these, sent since the last report */
    uint32_t blocks_total;     /* KV blocks; 0 unknown */
    uint32_t blocks_free;
    uint64_t inflight_tokens;  /* prompt tokens dispatched from here and not yet computed */
    uint64_t report_age_ns;    /* PD_TIME_NEVER when nothing was ever reported */
    uint32_t match_blocks;     /* leading prompt blocks that the prefix index expects there */
    uint32_t weight;           /* operator's weight, 100 is usual */
};

struct pd_sched_request {
    uint32_t size;
    uint32_t roles;            /* the role this profile looks for, PD_ROLE_* */
    struct pd_str profile;     /* "prefill", "decode" or the operator's name */
    struct pd_str model;
    struct pd_str session;     /* client's session key, may be empty */
    uint64_t prompt_bytes;
    uint64_t prompt_tokens;    /* exact when tokens are known here, else an estimate */
    uint32_t tokens_exact;     /* 1 when prompt_tokens is exact */
    uint32_t max_output;
    uint32_t prompt_blocks;    /* blocks hashed for the prefix index */
    uint32_t block_tokens;     /* tokens that one such block stands for */
    uint64_t random;           /* fresh random bits for this request */
};

/* Flags of ops are promises.  The core keeps answers that they say cannot have changed
 * and does not ask about every candidate of every request; without them, and for a
 * module that was compiled before there were any, it always asks about all. */
enum {
    PD_FILTER_STEADY = 1u << 0,    /* looks at nothing but request->roles, and of candidates at slot,
                                      serial, name, roles, state and weight */
    PD_FILTER_EACH = 1u << 1,      /* what it says of one candidate does not depend on the others */
    PD_SCORER_BY_LOAD = 1u << 0,   /* a candidate's score depends on nothing but its view, and there
                                      not on match_blocks and report_age_ns */
    PD_SCORER_BY_MATCH = 1u << 1,  /* a candidate's score is 0 when its match_blocks are, and depends on
                                      nothing but the request and its view without report_age_ns */
    PD_SCORER_NO_AGE = 1u << 2,    /* never looks at report_age_ns */
    PD_PICKER_NO_AGE = 1u << 0     /* the same */
};

struct pd_filter;
struct pd_filter_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_filter_ops, PD_FILTER_V1) */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_filter **out,
                        struct pd_err *err);
    void (*destroy)(struct pd_filter *filter);
    /* Sets keep[i] to 0 for candidates to drop; it is 1 before. */
    void (*apply)(struct pd_filter *filter, const struct pd_sched_request *request,
                  const struct pd_endpoint_view *candidates, uint32_t n, uint8_t *keep);
    uint64_t flags;            /* PD_FILTER_* */
};

struct pd_scorer;
struct pd_scorer_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_scorer_ops, PD_SCORER_V1) */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_scorer **out,
                        struct pd_err *err);
    void (*destroy)(struct pd_scorer *scorer);
    /* Sets score[i]; the core clamps it to 0..1 and takes NaN as 0.  It is 0 before. */
    void (*score)(struct pd_scorer *scorer, const struct pd_sched_request *request,
                  const struct pd_endpoint_view *candidates, uint32_t n, double *score);
    /* The request went to this candidate.  May be NULL. */
    void (*picked)(struct pd_scorer *scorer, const struct pd_sched_request *request,
                   const struct pd_endpoint_view *candidate);
    uint64_t flags;            /* PD_SCORER_* */
};

struct pd_picker;
struct pd_picker_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_picker_ops, PD_PICKER_V1) */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_picker **out,
                        struct pd_err *err);
    void (*destroy)(struct pd_picker *picker);
    /* Writes up to k distinct indices, best first, and returns how many. */
    uint32_t (*pick)(struct pd_picker *picker, const struct pd_sched_request *request,
                     const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                     uint32_t k, uint32_t *index);
    uint64_t flags;            /* PD_PICKER_* */
};

enum {
    PD_DECIDE_LOCAL = 1,       /* the decode node computes the prompt itself */
    PD_DECIDE_REMOTE = 2,      /* a prefill node computes it */
    PD_DECIDE_EXACT = 3        /* the decode node decides: remote when at least min_tokens prompt
                                  tokens are not in its cache */
};

struct pd_decision {
    uint32_t size;
    uint32_t mode;             /* PD_DECIDE_* */
    uint64_t min_tokens;       /* for PD_DECIDE_EXACT */
    char reason[96];           /* for pdctl explain, one sentence without a full stop */
};

struct pd_decider;
struct pd_decider_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_decider_ops, PD_DECIDER_V1) */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_decider **out,
                        struct pd_err *err);
    void (*destroy)(struct pd_decider *decider);
    /* decode is the decode profile's first choice; prefill_nodes the number of
     * healthy candidates with the prefill role (may be 0). */
    void (*decide)(struct pd_decider *decider, const struct pd_sched_request *request,
                   const struct pd_endpoint_view *decode, uint32_t prefill_nodes,
                   struct pd_decision *out);
};

#ifdef __cplusplus
}
#endif
#endif
