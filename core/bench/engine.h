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

struct pd_bench_engine_opts {
    size_t size;            /* sizeof(struct pd_bench_engine_opts) */
    struct pd_addr addr;    /* of the first; the others have the next ports */
    uint32_t ports;         /* 0: 1 */
    const char *model;      /* borrowed; NULL: "bench" */
    pd_time ttft;           /* from the request to the first token */
    pd_time itl;            /* between tokens; 0: one per turn of the loop */
    double jitter;          /* each delay is stretched or cut by up to this part, 0 to 1 */
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
    uint64_t failed;        /* by --status and --fail-every */
    uint64_t broken;        /* by --break-after */
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
