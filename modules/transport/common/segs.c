/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled once per window or post: neighbours joined, starts added up, so a
 * linear offset is found by halving. */
#include "segs.h"

#include <stdlib.h>

pd_status pd_xp_segs_create(void *base, uint64_t bytes, const struct pd_segment *segments,
                            uint32_t n, struct pd_xp_segs **out)
{
    struct pd_xp_segs *s;
    uint64_t total = 0;
    uint32_t k = 0;

    if (n == 0 || segments == NULL)
        return PD_EINVAL;
    for (uint32_t i = 0; i < n; i++) {
        const struct pd_segment *g = &segments[i];
        if (g->bytes == 0 || g->bytes > bytes || g->offset > bytes - g->bytes ||
            g->bytes > UINT64_MAX - total)
            return PD_EINVAL;
        total += g->bytes;
    }
    s = malloc(sizeof(*s) + ((size_t)n + 1) * sizeof(s->v[0]));
    if (s == NULL)
        return PD_ENOMEM;
    total = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *p = (uint8_t *)base + segments[i].offset;
        if (k == 0 || s->v[k - 1].p + (total - s->v[k - 1].start) != p) {
            s->v[k].p = p;
            s->v[k].start = total;
            k++;
        }
        total += segments[i].bytes;
    }
    s->v[k].p = NULL;
    s->v[k].start = total;
    s->n = k;
    s->total = total;
    s->reserved = 0;
    *out = s;
    return PD_OK;
}

size_t pd_xp_segs_iov(const struct pd_xp_segs *s, uint64_t from, uint64_t len, struct pd_iov *iov,
                      size_t max, uint64_t *covered)
{
    uint32_t low = 0, high = s->n;
    uint64_t left = len;
    size_t k = 0;

    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (s->v[mid].start <= from)
            low = mid;
        else
            high = mid;
    }
    for (; left > 0 && k < max && low < s->n; low++, k++) {
        uint64_t skip = from - s->v[low].start;
        uint64_t run = s->v[low + 1].start - from;
        if (run > left)
            run = left;
        iov[k].base = s->v[low].p + skip;
        iov[k].len = (size_t)run;
        left -= run;
        from += run;
    }
    *covered = len - left;
    return k;
}
