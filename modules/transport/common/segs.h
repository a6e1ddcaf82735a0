/* SPDX-License-Identifier: Apache-2.0 */
/* A list of segments of one memory, seen as one linear range of bytes. */
#ifndef PD_XP_SEGS_H
#define PD_XP_SEGS_H

#include <pdplane/transport.h>

struct pd_xp_seg {
    uint8_t *p;
    uint64_t start;             /* in the linear range */
};

struct pd_xp_segs {
    uint64_t total;
    uint32_t n;                 /* neighbours are joined, so at most what was given */
    uint32_t reserved;
    struct pd_xp_seg v[];       /* n, and one more whose start is total */
};

/* Compiles n segments of a memory of `bytes` bytes at `base`.  Gives *out, freed
 * with free.  PD_EINVAL: empty, or outside the memory; PD_ENOMEM. */
pd_status pd_xp_segs_create(void *base, uint64_t bytes, const struct pd_segment *segments,
                            uint32_t n, struct pd_xp_segs **out);
/* Fills up to `max` buffers for the range [from, from + len), which must be
 * inside; returns how many and in *covered how many bytes they hold. */
size_t pd_xp_segs_iov(const struct pd_xp_segs *s, uint64_t from, uint64_t len, struct pd_iov *iov,
                      size_t max, uint64_t *covered);

#endif
