/* SPDX-License-Identifier: Apache-2.0 */
/* The histogram.  Values below 64 have a bucket each; above, the highest seven
 * bits of a value choose it. */
#include "bench/hist.h"

#include <string.h>

static uint32_t bucket_of(pd_time v)
{
    if (v >> PD_BENCH_HIST_BITS == 0)
        return (uint32_t)v;
    if (v >> (PD_BENCH_HIST_TOP - 1) != 0)
        return PD_BENCH_HIST_BUCKETS - 1;
    uint32_t top = 63u - (uint32_t)__builtin_clzll(v);
    uint32_t shift = top - PD_BENCH_HIST_BITS;
    return ((shift + 1) << PD_BENCH_HIST_BITS) + (uint32_t)((v >> shift) & ((1u << PD_BENCH_HIST_BITS) - 1));
}

/* The largest value of a bucket. */
static pd_time bucket_end(uint32_t b)
{
    uint32_t row = b >> PD_BENCH_HIST_BITS;
    uint64_t low = b & ((1u << PD_BENCH_HIST_BITS) - 1);
    if (row == 0)
        return low;
    return (((1ull << PD_BENCH_HIST_BITS) + low + 1) << (row - 1)) - 1;
}

void pd_bench_hist_init(struct pd_bench_hist *h)
{
    memset(h, 0, sizeof *h);
}

void pd_bench_hist_add(struct pd_bench_hist *h, pd_time v)
{
    if (h->n == 0 || v < h->min)
        h->min = v;
    if (v > h->max)
        h->max = v;
    h->n++;
    h->sum += (double)v;
    h->counts[bucket_of(v)]++;
}

pd_time pd_bench_hist_at(const struct pd_bench_hist *h, double q)
{
    double want = q * (double)h->n;
    uint64_t seen = 0;
    if (h->n == 0)
        return 0;
    for (uint32_t b = 0; b < PD_BENCH_HIST_BUCKETS; b++) {
        seen += h->counts[b];
        if (h->counts[b] > 0 && (double)seen >= want) {
            pd_time end = bucket_end(b);
            return end < h->max && b + 1 < PD_BENCH_HIST_BUCKETS ? end : h->max;
        }
    }
    return h->max;
}

bool pd_bench_hist_next(const struct pd_bench_hist *h, uint32_t *b, pd_time *end, uint64_t *count)
{
    for (; *b < PD_BENCH_HIST_BUCKETS; (*b)++) {
        if (h->counts[*b] == 0)
            continue;
        *end = bucket_end(*b) < h->max ? bucket_end(*b) : h->max;
        *count = h->counts[(*b)++];
        return true;
    }
    return false;
}

double pd_bench_hist_mean(const struct pd_bench_hist *h)
{
    return h->n == 0 ? 0 : h->sum / (double)h->n;
}
