/* SPDX-License-Identifier: Apache-2.0 */
/* The known word that a misspelt one was probably meant to be.  Any thread. */
#ifndef PD_BASE_NEAR_H
#define PD_BASE_NEAR_H

#include <pdplane/types.h>

/* Words longer than this are near nothing. */
#define PD_NEAR_MAX 64u

struct pd_near {
    const char *word;       /* what was written; borrowed */
    const char *best;       /* nearest so far, or NULL; borrowed from the caller of try */
    uint32_t distance;
};

void pd_near_init(struct pd_near *n, const char *word);
/* Offers one known word; NULL is ignored. */
void pd_near_try(struct pd_near *n, const char *known);
/* The nearest, or NULL when none is near enough to be a slip of the finger. */
const char *pd_near_best(const struct pd_near *n);
/* Insertions, deletions, replacements and swaps of neighbours that turn a into
 * b, '-' and '_' being equal; UINT32_MAX when a word is too long. */
uint32_t pd_near_distance(const char *a, const char *b);

#endif
