/* SPDX-License-Identifier: Apache-2.0 */
/* Picks the candidates with the highest totals.  Equal ones are equally likely: one
 * pass finds the highest total, a second marks who has it in words of bits, chance says
 * which of the bits. */
#include <string.h>

#include <pdplane/scheduler.h>

#include "picker.h"

#define WORD 64u

typedef double pair_t __attribute__((vector_size(16)));
typedef uint64_t marks_t __attribute__((vector_size(16)));

static inline double greater(double a, double b)
{
    return a > b ? a : b;
}

static inline double highest(const double *total, uint32_t n)
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

static inline marks_t equal_pair(const double *total, pair_t wanted)
{
    pair_t a;

    memcpy(&a, total, sizeof a);
    return (marks_t)(a == wanted);
}

/* A bit for each of the first candidates that are `best`, at most WORD of them. */
static inline uint64_t marks_of(const double *total, uint32_t n, double best)
{
    const pair_t wanted = { best, best };
    const marks_t bits[4] = { { 1, 2 }, { 4, 8 }, { 16, 32 }, { 64, 128 } };
    marks_t found = { 0, 0 };
    uint32_t i = 0;

    n = n < WORD ? n : WORD;
    for (; i + 8 <= n; i += 8)
        found |= ((equal_pair(total + i, wanted) & bits[0]) | (equal_pair(total + i + 2, wanted) & bits[1]) |
                  (equal_pair(total + i + 4, wanted) & bits[2]) | (equal_pair(total + i + 6, wanted) & bits[3]))
                 << i;
    uint64_t marks = found[0] | found[1];
    for (; i < n; i++)
        marks |= (uint64_t)(total[i] >= best) << i;
    return marks;
}

#define EACH(byte) ((byte) * 0x0101010101010101u)

/* For each byte of the marks how many are in it and in those below. */
static inline uint64_t sums_of(uint64_t marks)
{
    marks -= marks >> 1 & EACH((uint64_t)0x55);
    marks = (marks & EACH((uint64_t)0x33)) + (marks >> 2 & EACH((uint64_t)0x33));
    return EACH((marks + (marks >> 4)) & EACH((uint64_t)0x0f));
}

/* The place of the mark with `skip` others below it; there are more than that. */
static inline uint32_t place(uint64_t marks, uint64_t sums, uint32_t skip)
{
    /* Bytes that have not more than these, together with those below. */
    uint64_t less = ((EACH((uint64_t)skip) | EACH((uint64_t)0x80)) - sums) & EACH((uint64_t)0x80);
    uint32_t shift = (uint32_t)(EACH(less >> 7) >> 56) * 8;

    skip -= (uint32_t)(sums << 8 >> shift) & 0xff;
    for (marks = marks >> shift << shift; skip > 0; skip--)
        marks &= marks - 1;
    return (uint32_t)__builtin_ctzll(marks);
}

/* Among more candidates than a word has bits for: the one that `skip` others which are
 * `best` stand before. */
static uint32_t place_in_words(const double *total, uint32_t n, double best, uint32_t skip)
{
    for (uint32_t i = 0; i < n; i += WORD) {
        uint64_t marks = marks_of(total + i, n - i, best), sums = sums_of(marks);
        if ((uint32_t)(sums >> 56) > skip)
            return i + place(marks, sums, skip);
        skip -= (uint32_t)(sums >> 56);
    }
    return 0;
}

static uint32_t pick_first(const double *total, uint32_t n, uint64_t *random)
{
    double best = highest(total, n);
    uint64_t marks = marks_of(total, n, best), sums = sums_of(marks);
    uint32_t first = (uint32_t)(sums >> 56), equal = first;

    for (uint32_t i = WORD; i < n; i += WORD)
        equal += (uint32_t)(sums_of(marks_of(total + i, n - i, best)) >> 56);
    uint32_t skip = equal > 1 ? (uint32_t)(next_random(random) % equal) : 0;
    return skip < first ? place(marks, sums, skip)
                        : n > WORD ? WORD + place_in_words(total + WORD, n - WORD, best, skip - first) : 0;
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
