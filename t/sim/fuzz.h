/* SPDX-License-Identifier: Apache-2.0 */
/* The random fault simulator: what its files share.
 *
 *   mini.c    a very small model with random weights, made from the real one
 *   cases.c   the requests that are sent, and what a run without faults answers
 *   plan.c    a seed becomes a topology, a load and faults
 *   world.c   nodes, links and clients of one run
 *   run.c     carries a plan out and judges it by the laws
 *   pdfuzzsim.c  seeds, processes, shrinking, reports */
#ifndef PD_T_SIM_FUZZ_H
#define PD_T_SIM_FUZZ_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop/sim.h"
#include "node/node.h"
#include "whatif/host.h"

#define FUZZ_NODES 8u
#define FUZZ_REQS 40u
#define FUZZ_FAULTS 24u
#define FUZZ_CASES 64u
#define FUZZ_ROUTER_PORT 8000

/* ---- chance */

struct fuzz_rng {
    uint64_t state;
};

uint64_t fuzz_next(struct fuzz_rng *r);
/* From lo to hi, both included. */
uint64_t fuzz_range(struct fuzz_rng *r, uint64_t lo, uint64_t hi);
bool fuzz_percent(struct fuzz_rng *r, uint32_t percent);

/* ---- the model */

/* Writes the small model to `to`; `from` is the real one.  False: errno or a
 * bad file. */
bool fuzz_mini_write(const char *from, const char *to);

/* ---- requests */

struct fuzz_case {
    const char *path;
    char body[3072];
    bool stream;
    uint32_t tokens;            /* upper bound of prompt and answer of one sequence */
    uint32_t legs;
    char *expect;               /* what fuzz_normal makes of the right answer */
    size_t expect_n;
};

struct fuzz_cases {
    struct fuzz_case list[FUZZ_CASES];
    uint32_t n;
};

void fuzz_cases_make(struct fuzz_cases *c);
/* The part of a body that must not depend on where and when it was computed:
 * for each choice the text and the logprobs in order.  has_error: an error
 * object came; has_done: [DONE].  The result is freed by the caller. */
char *fuzz_normal(const char *body, size_t n, bool stream, bool *has_error, bool *has_done,
                  bool *has_finish, size_t *out_n);

/* ---- the plan */

enum {
    FUZZ_CRASH = 1,             /* peers see a reset */
    FUZZ_VANISH,                /* peers see nothing */
    FUZZ_STOP,                  /* SIGSTOP, SIGCONT */
    FUZZ_END,                   /* SIGTERM without drain */
    FUZZ_DRAIN,
    FUZZ_CUT,                   /* partition, both ways */
    FUZZ_CUT_ONE_WAY,
    FUZZ_RESET,
    FUZZ_HALF_OPEN,
    FUZZ_FLIP,
    FUZZ_SLOW,
    FUZZ_MEMORY,                /* one allocation of anybody fails */
    FUZZ_KINDS
};

struct fuzz_node {
    char host[16];
    uint32_t roles;             /* PD_ROLE_* */
    uint32_t blocks;
    uint32_t step_tokens;
    uint32_t max_running;
    uint32_t prefill_tps;
    uint32_t ms10_per_token;
    uint32_t block_tokens;
    uint32_t queue;             /* of decode and prefill */
    uint32_t sequences;
    bool prefix_cache;
    bool n_minus_1;
    bool keeps_uuid;
};

struct fuzz_req {
    pd_time at;
    pd_time abort_after;        /* 0: stays */
    pd_time pause;              /* does not read for so long after the first byte; 0: reads */
    uint32_t which;             /* case */
    bool fresh;
    bool is_off;                /* shrunk away */
};

struct fuzz_fault {
    pd_time at, len;
    uint32_t kind;
    uint32_t a, b;              /* nodes; FUZZ_NODES: all; FUZZ_NODES + 1: clients */
    uint32_t n;                 /* flips, slowness, which allocation */
    bool is_off;
};

struct fuzz_plan {
    uint64_t seed;
    struct fuzz_node nodes[FUZZ_NODES];
    uint32_t n_nodes;
    struct fuzz_req reqs[FUZZ_REQS];
    uint32_t n_reqs;
    struct fuzz_fault faults[FUZZ_FAULTS];
    uint32_t n_faults;
    struct pd_sim_opts sim;
    pd_time deadline, lease, prefill_timeout, heartbeat;
    uint32_t threshold;
    uint32_t inflight_k;        /* KiB of a hand-over on their way */
    pd_time heal_at;
    /* No fault may be seen by a client: */
    bool only_prefill;          /* all hit nodes that do nothing but prefill */
    bool only_one;              /* or at most two hit one node, the last, and others do the same */
    bool is_slow;               /* engines are paced */
    bool is_mixed;              /* block sizes differ */
    bool no_checksum;           /* of the transport: only digests see damage */
};

#define FUZZ_ALL FUZZ_NODES
#define FUZZ_CLIENTS (FUZZ_NODES + 1u)

void fuzz_plan_make(struct fuzz_plan *p, uint64_t seed, const struct fuzz_cases *cases);
void fuzz_plan_print(const struct fuzz_plan *p, const struct fuzz_cases *cases, FILE *to);
const char *fuzz_kind_name(uint32_t kind);

/* ---- one run */

struct fuzz_env {
    const char *model;          /* the small one */
    const char *folder;         /* for identities of nodes */
    FILE *trace;                /* event log; NULL: none */
    bool is_debug;
};

/* What happened, to see that a campaign reaches what it should. */
enum {
    FUZZ_SEEN_VALID,            /* hand-overs whose digests matched */
    FUZZ_SEEN_OTHER,            /* that ended otherwise */
    FUZZ_SEEN_FALLBACK,         /* prompts computed again elsewhere */
    FUZZ_SEEN_LOCAL,
    FUZZ_SEEN_RETRY,            /* by the router */
    FUZZ_SEEN_GONE,             /* clients that left */
    FUZZ_SEEN_EXPIRED,          /* leases */
    FUZZ_SEEN_PREEMPTED,
    FUZZ_SEEN_CACHED,           /* prompt tokens */
    FUZZ_SEEN_N
};

struct fuzz_result {
    char law[16];               /* "" is good; "L1", "leak" ... */
    char text[1024];
    uint64_t hash;
    pd_time virtual_ns;
    uint32_t ok, failed, aborted, lost;
    uint64_t faults;
    uint64_t seen[FUZZ_SEEN_N];
    bool is_whole;              /* no node was killed: all memory must have been freed */
};

const char *fuzz_seen_name(uint32_t i);
void fuzz_run(const struct fuzz_plan *p, struct fuzz_cases *cases, const struct fuzz_env *env,
              struct fuzz_result *out);
/* Fills `expect` of all cases by a run of one node without faults. */
bool fuzz_expect(struct fuzz_cases *cases, const struct fuzz_env *env, struct fuzz_result *out);

#endif
