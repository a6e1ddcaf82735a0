/* SPDX-License-Identifier: Apache-2.0 */
/* A histogram of durations with a relative error below 1.6 % from 1 ns to 9
 * minutes: 64 buckets for each power of two.  One thread at a time. */
#ifndef PD_BENCH_HIST_H
#define PD_BENCH_HIST_H

#include <pdplane/types.h>

#define PD_BENCH_HIST_BITS 6u
#define PD_BENCH_HIST_TOP 40u       /* values of 2^39 ns and more share the last bucket */
#define PD_BENCH_HIST_BUCKETS ((PD_BENCH_HIST_TOP - PD_BENCH_HIST_BITS + 1u) << PD_BENCH_HIST_BITS)

struct pd_bench_hist {
    uint64_t n;
    pd_time min;
    pd_time max;
    double sum;             /* ns */
    uint64_t counts[PD_BENCH_HIST_BUCKETS];
};

void pd_bench_hist_init(struct pd_bench_hist *h);
void pd_bench_hist_add(struct pd_bench_hist *h, pd_time v);
/* The smallest value that at least q (0 to 1) of all values do not exceed, in
 * ns, rounded up to its bucket; 0 when there are none. */
pd_time pd_bench_hist_at(const struct pd_bench_hist *h, double q);
/* The next bucket from *b on that holds something: its end (ns) and count; *b
 * goes behind it.  False when there is none. */
bool pd_bench_hist_next(const struct pd_bench_hist *h, uint32_t *b, pd_time *end, uint64_t *count);
/* ns; 0 when there are none. */
double pd_bench_hist_mean(const struct pd_bench_hist *h);

#endif
