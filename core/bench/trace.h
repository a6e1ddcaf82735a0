/* SPDX-License-Identifier: Apache-2.0 */
/* Arrivals of a trace: one JSON object a line, as the published Mooncake traces
 * have them: timestamp (ms), input_length and output_length (tokens), hash_ids
 * (one number for each block of 512 tokens; equal beginnings have equal numbers).
 * Or made from a seed, with the same shape: sessions that grow turn by turn
 * behind one of some system prompts.  Any thread. */
#ifndef PD_BENCH_TRACE_H
#define PD_BENCH_TRACE_H

#include "base/buf.h"

#include <pdplane/types.h>

#define PD_BENCH_TRACE_BLOCK 512u       /* tokens of one hash id */
#define PD_BENCH_TRACE_ROWS 1000000u    /* more are an error */

struct pd_bench_trace_row {
    pd_time at;                 /* from the start; never smaller than that of the row before */
    uint32_t input, output;     /* tokens, at least 1 */
    uint32_t first, count;      /* of hashes */
};

struct pd_bench_trace {
    struct pd_bench_trace_row *rows;
    uint64_t *hashes;
    size_t n_rows, n_hashes;
};

/* PD_OK; PD_EINVAL: err names the line and what is wrong; PD_ELIMIT, PD_ENOMEM.
 * Gives: pd_bench_trace_free, also after an error. */
pd_status pd_bench_trace_read(struct pd_str text, struct pd_bench_trace *out, struct pd_err *err);
/* n rows at `rate` per second on average; the same for the same seed. */
pd_status pd_bench_trace_make(uint64_t seed, size_t n, double rate, struct pd_bench_trace *out);
void pd_bench_trace_free(struct pd_bench_trace *t);

/* Appends a text of about input * 4 bytes whose beginning is the same for rows
 * with the same first hash ids. */
pd_status pd_bench_trace_text(const struct pd_bench_trace *t, size_t row, struct pd_buf *out);

#endif
