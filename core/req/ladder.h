/* SPDX-License-Identifier: Apache-2.0 */
/* Bounds of a histogram in whole units, and for each power of two the bucket with which
 * the search begins; so a value is counted with a step or two.  What is counted here has
 * one writer, the loop thread: readers see each number whole. */
#ifndef PD_REQ_LADDER_H
#define PD_REQ_LADDER_H

#include <pdplane/metric.h>

#define PD_REQ_LADDER_MAX 24u

struct pd_req_ladder {
    double scale;                       /* units of the histogram's 1 */
    uint8_t first[64];                  /* by the highest bit of a value: the lowest bucket of such */
    uint64_t bound[PD_REQ_LADDER_MAX + 1];  /* the last one is above every value */
};

/* Each bound times scale is a whole number; n is at most PD_REQ_LADDER_MAX. */
void pd_req_ladder_init(struct pd_req_ladder *l, const double *bounds, uint32_t n, double scale);

/* The value in units; h may be NULL. */
static inline void pd_req_ladder_observe(const struct pd_req_ladder *l, struct pd_histogram *h, uint64_t v)
{
    if (h == NULL)
        return;
    uint32_t at = l->first[63 ^ __builtin_clzll(v | 1)];
    while (v > l->bound[at])
        at++;
    uint64_t *count = &h->counts[at], bits = __atomic_load_n(&h->sum_bits, __ATOMIC_RELAXED);
    __atomic_store_n(count, __atomic_load_n(count, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    if (v == 0)
        return;
    double sum;
    memcpy(&sum, &bits, sizeof sum);
    sum += (double)v / l->scale;
    memcpy(&bits, &sum, sizeof bits);
    __atomic_store_n(&h->sum_bits, bits, __ATOMIC_RELAXED);
}

#endif
