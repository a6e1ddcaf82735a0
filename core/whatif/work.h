/* SPDX-License-Identifier: Apache-2.0 */
/* The traffic of a run: arrivals and lengths from a trace or made from a seed.
 * Every configuration that is compared gets the same.  Any thread. */
#ifndef PD_WHATIF_WORK_H
#define PD_WHATIF_WORK_H

#include "bench/trace.h"

enum pd_whatif_arrival {
    PD_WHATIF_POISSON = 0,
    PD_WHATIF_CONSTANT,
    PD_WHATIF_BURSTY            /* squared variation 4: calm times and crowds */
};

enum pd_whatif_lengths {
    PD_WHATIF_FIXED = 0,
    PD_WHATIF_EXPONENTIAL
};

/* "poisson" and so on; NULL at the end. */
extern const char *const pd_whatif_arrivals[];
extern const char *const pd_whatif_lengths[];

struct pd_whatif_work_opts {
    uint64_t seed;
    uint64_t requests;
    double rate;                /* per second */
    uint32_t arrival;           /* enum pd_whatif_arrival */
    uint32_t lengths;           /* enum pd_whatif_lengths */
    uint64_t input, output;     /* tokens, mean */
    uint64_t shared;            /* tokens that prompts of one group begin with; whole blocks of
                                   PD_BENCH_TRACE_BLOCK */
    uint64_t groups;
    bool is_sessions;           /* conversations that grow, as pd_bench_trace_make makes them */
};

struct pd_whatif_work {
    struct pd_bench_trace trace;
    pd_time *arrivals;
    const char *model;
    bool is_whole;              /* answers that are no streams */
};

/* PD_OK, PD_EINVAL, PD_ENOMEM, PD_ELIMIT.  Gives: pd_whatif_work_free, also after an error. */
pd_status pd_whatif_work_make(const struct pd_whatif_work_opts *opts, struct pd_whatif_work *out);
/* Reads a trace; its times go `speed` times as fast.  As pd_bench_trace_read. */
pd_status pd_whatif_work_read(struct pd_str text, double speed, struct pd_whatif_work *out, struct pd_err *err);
void pd_whatif_work_free(struct pd_whatif_work *w);
/* The body of a request; work as the argument of pd_bench_load_opts.make_body. */
pd_status pd_whatif_work_body(const struct pd_whatif_work *w, uint64_t index, struct pd_buf *out);

#endif
