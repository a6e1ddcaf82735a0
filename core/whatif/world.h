/* SPDX-License-Identifier: Apache-2.0 */
/* One run: the router of a configuration, a simulated server for each of its
 * endpoints, and clients, each on hosts of their own in one simulation.  What the
 * router decides is decided by the real role, scheduler and modules; what the
 * network and the servers take is simulated.  Main thread. */
#ifndef PD_WHATIF_WORLD_H
#define PD_WHATIF_WORLD_H

#include "bench/load.h"
#include "whatif/engine.h"
#include "whatif/setup.h"
#include "whatif/work.h"

enum pd_whatif_fault_kind {
    PD_WHATIF_KILL = 0,
    PD_WHATIF_SLOW
};

struct pd_whatif_fault {
    const char *endpoints;      /* pattern of names */
    uint32_t kind;              /* enum pd_whatif_fault_kind */
    pd_time at;                 /* from the first request on */
    pd_time lasts;              /* 0: to the end */
    double factor;              /* SLOW: steps take so many times as long */
};

/* What a request must keep to count as good; 0: no such bound. */
struct pd_whatif_slo {
    pd_time ttft;
    pd_time itl;                /* mean of the request */
    pd_time e2e;
};

struct pd_whatif_run_opts {
    const struct pd_whatif_setup *setup;
    const struct pd_whatif_classes *classes;
    const struct pd_whatif_class *usual; /* of endpoints that no class of classes fits */
    const struct pd_whatif_work *work;
    const struct pd_whatif_fault *faults;
    uint32_t n_faults;
    struct pd_whatif_slo slo;
    uint64_t seed;
    pd_time latency;            /* one way, between any two hosts */
    pd_time jitter;
    uint64_t bytes_per_s;
    uint32_t concurrency;       /* most requests of clients under way */
    pd_time warmup;
    pd_time timeout;            /* of clients */
    int32_t level;              /* of the router's log */
    void (*on_line)(void *arg, pd_time now, struct pd_str line); /* of it; may be NULL */
    void (*on_progress)(void *arg, uint64_t done, pd_time now);  /* now and then; may be NULL */
    void *arg;
};

struct pd_whatif_server {
    const char *name;           /* borrowed from the setup */
    struct pd_whatif_engine_stats stats;
};

struct pd_whatif_result {
    struct pd_bench_load_result load;
    uint64_t output_tokens;     /* of answers that went well */
    uint64_t good;              /* requests that kept the SLO */
    uint64_t shed;              /* by the router, in the whole run: 429 and 503 at its door */
    uint64_t retries;           /* likewise */
    uint64_t prefill_failures;  /* prompts that a prefill server was to compute and did not */
    pd_time elapsed;            /* simulated */
    uint64_t n_servers;
    struct pd_whatif_server *servers;
};

/* Requests that failed, whatever the reason. */
uint64_t pd_whatif_result_failed(const struct pd_whatif_result *r);

/* PD_OK, or err says why there is no result.  Gives: pd_whatif_result_free, in both
 * cases. */
pd_status pd_whatif_run(const struct pd_whatif_run_opts *opts, struct pd_whatif_result *out,
                        struct pd_err *err);
void pd_whatif_result_free(struct pd_whatif_result *r);

#endif
