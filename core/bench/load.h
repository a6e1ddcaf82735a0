/* SPDX-License-Identifier: Apache-2.0 */
/* Load on a server with the OpenAI API, and what its clients saw.
 *
 * Closed loop: so many requests are always under way.  Open loop: requests are
 * meant to start at times that do not depend on the server (constant distance,
 * Poisson or those of a trace); every delay is counted from the time that was meant, so that a
 * server that stalls cannot hide it.  Loop thread; works on both loops. */
#ifndef PD_BENCH_LOAD_H
#define PD_BENCH_LOAD_H

#include "bench/hist.h"

#include <pdplane/loop.h>

struct pd_bench_load;
struct pd_buf;

/* A load that takes more of a processor than this measures itself, too. */
#define PD_BENCH_BUSY 0.5

enum pd_bench_error {
    PD_BENCH_ERROR_CONNECT = 0, /* no connection */
    PD_BENCH_ERROR_TIMEOUT,
    PD_BENCH_ERROR_CUT,         /* the connection ended before the answer did */
    PD_BENCH_ERROR_PROTOCOL,    /* the answer is malformed */
    PD_BENCH_ERROR_4XX,
    PD_BENCH_ERROR_429,
    PD_BENCH_ERROR_5XX,
    PD_BENCH_ERROR_EVENT,       /* an error event in a stream */
    PD_BENCH_ERROR_NO_DONE,     /* a stream ended without its end mark */
    PD_BENCH_ERROR_LOCAL,       /* the request could not be started here */
    PD_BENCH_ERRORS
};

/* "connect", "timeout" and so on. */
const char *pd_bench_error_name(enum pd_bench_error error);

/* One request that is over. */
struct pd_bench_load_record {
    uint64_t index;             /* in the order of starts, from 0 */
    pd_time meant;              /* when it was to start */
    pd_time first;              /* first token or byte; 0: none came */
    pd_time last;               /* token of a stream; 0: none */
    pd_time end;
    uint32_t events;            /* of a stream, with text */
    enum pd_bench_error error;  /* PD_BENCH_ERRORS: it went well */
    bool is_counted;            /* meant to start after the warm-up */
};

struct pd_bench_load_opts {
    size_t size;                /* sizeof(struct pd_bench_load_opts) */
    struct pd_addr addr;
    struct pd_str host;         /* for the Host header */
    struct pd_str target;       /* path */
    struct pd_str api_key;      /* sent as a bearer token; may be empty */
    const struct pd_str *bodies;/* sent in turn; at least one */
    size_t n_bodies;
    uint32_t concurrency;       /* closed loop: always under way; open loop: at most under way */
    const pd_time *arrivals;    /* open loop: when each body is due, from the start, ascending;
                                   n_bodies times, each body once; NULL: by rate */
    double rate;                /* open loop: requests per second; 0: closed loop */
    bool is_constant;           /* open loop: constant distance instead of Poisson */
    uint64_t requests;          /* 0: no limit */
    pd_time duration;           /* no new requests after it; 0: no limit */
    pd_time warmup;             /* requests meant to start before it are not counted */
    pd_time timeout;            /* to the first byte, and between pieces; 0: 60 s */
    /* Makes the body of each request when it starts, instead of bodies; a failed one is
     * a local error.  May be NULL. */
    pd_status (*make_body)(void *arg, uint64_t index, struct pd_buf *out);
    /* Called at the end of each request, also of those of the warm-up; may be NULL. */
    void (*on_request)(void *arg, const struct pd_bench_load_record *record);
    void *arg;                  /* of both */
};

/* What happened when: slices of equal length, as long as needed. */
#define PD_BENCH_SLICES 256u
struct pd_bench_slice {
    uint64_t ok, failed, tokens;
    uint64_t first_n;           /* first tokens */
    double first_sum;           /* ns until them */
};

/* Counts of requests that were meant to start after the warm-up. */
struct pd_bench_load_result {
    uint64_t started;           /* also those of the warm-up */
    uint64_t ok;
    uint64_t errors[PD_BENCH_ERRORS];
    uint64_t tokens;            /* events of streams with text */
    uint64_t bytes;             /* of bodies received */
    uint64_t late;              /* open loop: started over 1 ms after the time that was meant */
    pd_time seconds;            /* ns from the end of the warm-up to the last answer */
    pd_time elapsed;            /* ns from the start to the last answer */
    struct pd_bench_hist ttft;  /* to the first token, or to the first byte of a whole answer */
    struct pd_bench_hist itl;   /* between tokens of a stream */
    struct pd_bench_hist e2e;   /* to the end */
    pd_time slice;              /* ns of a slice; the first begins with the load */
    struct pd_bench_slice slices[PD_BENCH_SLICES];
};

/* Starts at once; on_done comes when all is over.  opts and what it borrows must
 * last as long as the load.  PD_OK, PD_EINVAL, PD_ENOMEM.  Gives:
 * pd_bench_load_destroy. */
pd_status pd_bench_load_start(struct pd_loop *loop, const struct pd_bench_load_opts *opts,
                              void (*on_done)(void *arg), void *arg, struct pd_bench_load **out);
/* Starts no more; what is under way ends, at most grace_ns, then on_done. */
void pd_bench_load_stop(struct pd_bench_load *l, pd_time grace_ns);
/* Borrowed; changes while it runs. */
const struct pd_bench_load_result *pd_bench_load_result(const struct pd_bench_load *l);
uint32_t pd_bench_load_open(const struct pd_bench_load *l);
/* After on_done. */
void pd_bench_load_destroy(struct pd_bench_load *l);

/* Appends the result as a table for people or as one JSON object (times in
 * seconds; histograms as pairs of a bucket's end and its count).  cpu: processor
 * time the load itself took.  conditions: a JSON object, or empty.  Returns what the buffer returns. */
pd_status pd_bench_load_table(const struct pd_bench_load_result *r, pd_time cpu, struct pd_buf *out);
pd_status pd_bench_load_json(const struct pd_bench_load_result *r, pd_time cpu, struct pd_str conditions,
                             struct pd_buf *out);

#endif
