/* SPDX-License-Identifier: Apache-2.0 */
/* Which bytes of a linear range are there: a sorted list of ranges that do not
 * touch each other, with their sum. */
#ifndef PD_XP_RANGES_H
#define PD_XP_RANGES_H

#include <pdplane/types.h>

struct pd_xp_range {
    uint64_t from, to;          /* to is one past the last byte */
};

struct pd_xp_ranges {
    struct pd_xp_range *v;
    uint32_t n, cap;
    uint32_t limit;             /* most ranges at a time */
    uint32_t reserved;
    uint64_t total;             /* bytes in all ranges */
};

void pd_xp_ranges_init(struct pd_xp_ranges *r, uint32_t limit);
void pd_xp_ranges_fini(struct pd_xp_ranges *r);
/* Adds [from, to), from < to; what is there already counts once.  PD_OK,
 * PD_ENOMEM, PD_ELIMIT: unchanged. */
pd_status pd_xp_ranges_add(struct pd_xp_ranges *r, uint64_t from, uint64_t to);
/* Takes [from, to) out, as far as it is there.  Returns as add. */
pd_status pd_xp_ranges_remove(struct pd_xp_ranges *r, uint64_t from, uint64_t to);
bool pd_xp_ranges_touch(const struct pd_xp_ranges *r, uint64_t from, uint64_t to);

#endif
