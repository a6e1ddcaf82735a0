/* SPDX-License-Identifier: Apache-2.0 */
/* A server with the OpenAI API that computes nothing: answers come with given
 * delays, lengths and faults, so that what stands in front of it can be
 * measured.  One process may stand for thousands of servers, one port each.
 * Loop thread; works on both loops. */
#ifndef PD_BENCH_ENGINE_H
#define PD_BENCH_ENGINE_H

#include <pdplane/loop.h>

#define PD_BENCH_MAX_PORTS 8192u
#define PD_BENCH_MAX_TOKENS 1000000u

struct pd_bench_engine;

/* What may go wrong with a completion, or with an endpoint (REFUSE). */
enum pd_bench_fault {
    PD_BENCH_FAULT_REFUSE = 0,  /* the endpoint does not listen at all */
    PD_BENCH_FAULT_RESET,       /* the connection ends before an answer */
    PD_BENCH_FAULT_HANG,        /* no answer ever */
    PD_BENCH_FAULT_SLOW,        /* every delay is ten times as long */
    PD_BENCH_FAULT_MALFORMED,   /* an answer that is no JSON */
    PD_BENCH_FAULT_429,
    PD_BENCH_FAULT_503,
    PD_BENCH_FAULT_ERROR,       /* the answer ends with finish_reason "error" */
    PD_BENCH_FAULT_CUT,         /* a stream is cut after half of its tokens */
    PD_BENCH_FAULTS
};

/* "refuse", "reset" and so on; NULL above. */
const char *pd_bench_fault_name(uint32_t fault);

/* How delays are spread about what is set, by jitter. */
enum pd_bench_spread {
    PD_BENCH_UNIFORM = 0,       /* up to that part longer or shorter */
    PD_BENCH_NORMAL,            /* jitter is the standard deviation, as a part */
    PD_BENCH_LOGNORMAL,         /* jitter is the deviation of the logarithm; the median stays */
    PD_BENCH_EXPONENTIAL        /* the mean stays; jitter is of no meaning */
};

struct pd_bench_engine_opts {
    size_t size;            /* sizeof(struct pd_bench_engine_opts) */
    struct pd_addr addr;    /* of the first; the others have the next ports */
    uint32_t ports;         /* 0: 1 */
    const char *model;      /* borrowed; NULL: "bench" */
    pd_time ttft;           /* from the request to the first token */
    pd_time itl;            /* between tokens; 0: one per turn of the loop */
    double jitter;          /* how much delays vary, 0 to 1 */
    uint32_t spread;        /* enum pd_bench_spread */
    uint64_t seed;          /* of delays and faults: the n-th completion meets the same; 0: 1 */
    double faults[PD_BENCH_FAULTS]; /* how many of 1 */
    uint32_t need_kv;       /* 1: a request with do_remote_prefill must name what was handed over */
    uint32_t tokens;        /* of an answer whose request names no limit; 0: 16 */
    uint32_t pad;           /* bytes added to each event and answer */
    uint32_t status;        /* every completion fails with this status; 0: none does */
    uint32_t fail_every;    /* each n-th completion fails with 500; 0: none */
    uint32_t break_after;   /* streams are cut after so many events; 0: none */
};

struct pd_bench_engine_stats {
    uint64_t requests;      /* completions asked for */
    uint64_t answers;       /* ended whole */
    uint64_t events;        /* of streams, end marks not counted */
    uint64_t failed;        /* by status, fail_every and faults that answer */
    uint64_t broken;        /* by break_after and faults that do not */
    uint64_t faults[PD_BENCH_FAULTS];
    uint64_t prefills;      /* with kv_transfer_params.do_remote_decode: answered with its own */
    uint64_t decodes;       /* with do_remote_prefill */
    uint64_t gone;          /* clients that left */
    uint64_t accepted;      /* connections */
    uint64_t body_bytes;    /* of requests */
};

/* opts and what it borrows must last as long as the engine.  PD_OK, PD_EINVAL,
 * PD_ENOMEM, or what pd_http_server_listen gave.  Gives: pd_bench_engine_close. */
pd_status pd_bench_engine_create(struct pd_loop *loop, const struct pd_bench_engine_opts *opts,
                                 struct pd_bench_engine **out);
/* Cuts everything; e is freed just before on_closed (may be NULL). */
void pd_bench_engine_close(struct pd_bench_engine *e, void (*on_closed)(void *arg), void *arg);
/* The address of the i-th endpoint.  PD_OK or PD_ENOENT. */
pd_status pd_bench_engine_addr(const struct pd_bench_engine *e, uint32_t i, struct pd_addr *out);
void pd_bench_engine_stats(const struct pd_bench_engine *e, struct pd_bench_engine_stats *out);

#endif
