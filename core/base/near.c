/* SPDX-License-Identifier: Apache-2.0 */
/* Edit distance between a misspelt word and the known ones.  Three rows of the
 * usual table are enough, the third one for swapped neighbours. */
#include "base/near.h"

#include <string.h>

#include "base/compiler.h"

/* No word further away than this is a suggestion. */
#define FAR 3u

static char fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return c == '-' ? '_' : c;
}

uint32_t pd_near_distance(const char *a, const char *b)
{
    size_t na = strnlen(a, PD_NEAR_MAX + 1);
    size_t nb = strnlen(b, PD_NEAR_MAX + 1);
    if (na > PD_NEAR_MAX || nb > PD_NEAR_MAX)
        return UINT32_MAX;

    uint32_t rows[3][PD_NEAR_MAX + 1];
    uint32_t *before = rows[0], *last = rows[1], *now = rows[2];
    memset(before, 0, sizeof rows[0]);
    for (size_t j = 0; j <= nb; j++)
        last[j] = (uint32_t)j;
    for (size_t i = 1; i <= na; i++) {
        now[0] = (uint32_t)i;
        for (size_t j = 1; j <= nb; j++) {
            uint32_t cost = fold(a[i - 1]) == fold(b[j - 1]) ? 0 : 1;
            uint32_t d = PD_MIN(PD_MIN(last[j] + 1, now[j - 1] + 1), last[j - 1] + cost);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) && fold(a[i - 2]) == fold(b[j - 1]))
                d = PD_MIN(d, before[j - 2] + 1);
            now[j] = d;
        }
        uint32_t *t = before;
        before = last;
        last = now;
        now = t;
    }
    return last[nb];
}

void pd_near_init(struct pd_near *n, const char *word)
{
    n->word = word;
    n->best = NULL;
    n->distance = UINT32_MAX;
}

void pd_near_try(struct pd_near *n, const char *known)
{
    if (known == NULL || n->word == NULL)
        return;
    /* Words whose lengths differ by more are further away than that. */
    size_t a = strlen(n->word), b = strlen(known);
    if ((a > b ? a - b : b - a) > FAR)
        return;
    uint32_t d = pd_near_distance(n->word, known);
    if (d < n->distance) {
        n->distance = d;
        n->best = known;
    }
}

const char *pd_near_best(const struct pd_near *n)
{
    if (n->best == NULL)
        return NULL;
    /* One slip in short words, up to three in long ones. */
    size_t len = strnlen(n->word, PD_NEAR_MAX);
    uint32_t allowed = len < 4 ? 1 : len < 8 ? 2 : FAR;
    return n->distance <= allowed ? n->best : NULL;
}
