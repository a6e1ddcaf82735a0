/* SPDX-License-Identifier: Apache-2.0 */
/* Picks the candidates with the highest totals.  Equal ones are equally likely: one
 * pass finds the highest total, a second counts who has it, chance says which of them,
 * a third finds it.  The passes look at several candidates at a time. */
#include <string.h>

#include <pdplane/scheduler.h>

#include "picker.h"

#define BLOCK 16u

typedef double pair_t __attribute__((vector_size(16)));
typedef int64_t marks_t __attribute__((vector_size(16)));

static inline double greater(double a, double b)
{
    return a > b ? a : b;
}

static double highest(const double *total, uint32_t n)
{
    double a = total[0], b = a, c = a, d = a;
    uint32_t i = 0;

    for (; i + 4 <= n; i += 4) {
        a = greater(a, total[i]);
        b = greater(b, total[i + 1]);
        c = greater(c, total[i + 2]);
        d = greater(d, total[i + 3]);
    }
    for (; i < n; i++)
        a = greater(a, total[i]);
    return greater(greater(a, b), greater(c, d));
}

/* How many of them are `best`. */
static uint32_t count(const double *total, uint32_t n, double best)
{
    const pair_t wanted = { best, best };
    marks_t found = { 0, 0 };
    uint32_t i = 0;

    for (; i + 4 <= n; i += 4) {
        pair_t a, b;
        memcpy(&a, total + i, sizeof a);
        memcpy(&b, total + i + 2, sizeof b);
        found -= (marks_t)(a == wanted) + (marks_t)(b == wanted);
    }
    uint32_t equal = (uint32_t)(found[0] + found[1]);
    for (; i < n; i++)
        equal += total[i] >= best;
    return equal;
}

/* The place of the one that `skip` others which are `best` stand before. */
static uint32_t place(const double *total, uint32_t n, double best, uint32_t skip)
{
    uint32_t i = 0;

    for (; i + BLOCK <= n; i += BLOCK) {
        uint32_t equal = count(total + i, BLOCK, best);
        if (equal > skip)
            break;
        skip -= equal;
    }
    for (; i < n; i++) {
        if (total[i] >= best && skip-- == 0)
            return i;
    }
    return 0;
}

static uint32_t pick_first(const double *total, uint32_t n, uint64_t *random)
{
    double best = highest(total, n);
    uint32_t equal = count(total, n, best);

    return place(total, n, best, equal > 1 ? (uint32_t)(next_random(random) % equal) : 0);
}

/* One of those with the highest total that are not taken yet. */
static uint32_t pick_next(const double *total, uint32_t n, const uint32_t *index, uint32_t picked,
                          uint64_t *random)
{
    uint32_t best = n, equal = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (best < n && total[i] < total[best])
            continue;
        if (is_taken(index, picked, i))
            continue;
        equal = best < n && total[i] == total[best] ? equal + 1 : 1;
        if (equal == 1)
            best = i;
    }
    if (equal == 1)
        return best;
    uint64_t skip = next_random(random) % equal;
    for (uint32_t i = best; i < n; i++) {
        if (total[i] == total[best] && !is_taken(index, picked, i) && skip-- == 0)
            return i;
    }
    return best;
}

static uint32_t ms_pick(struct pd_picker *picker, const struct pd_sched_request *request,
                        const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                        uint32_t k, uint32_t *index)
{
    uint64_t random = request->random + request->roles;
    uint32_t picked = 0;

    (void)picker;
    (void)candidates;
    for (; picked < k && picked < n; picked++)
        index[picked] = picked == 0 ? pick_first(total, n, &random)
                                    : pick_next(total, n, index, picked, &random);
    return picked;
}

static const struct pd_picker_ops ms_ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
    .create = picker_create, .destroy = picker_destroy, .pick = ms_pick,
    .flags = PD_PICKER_NO_AGE,
};

static const char *const ms_aliases[] = { "max-score-picker", "max", NULL };

static const struct pd_unit ms_units[] = {
    PD_UNIT(.kind = PD_KIND_PICKER, .name = "max_score", .ops = &ms_ops.head, .aliases = ms_aliases,
            .summary = "Picks the endpoint with the highest total."),
    PD_UNIT_END
};

PD_MODULE(.name = "max_score", .version = "1.0", .summary = "Picks the highest total.",
          .units = ms_units)
