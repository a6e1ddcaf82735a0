/* SPDX-License-Identifier: Apache-2.0 */
/* The list is sorted, and between two ranges there is always a gap, so a
 * stream of bytes in order is one range.  Invariant: total is the sum. */
#include "ranges.h"

#include <stdlib.h>
#include <string.h>

void pd_xp_ranges_init(struct pd_xp_ranges *r, uint32_t limit)
{
    memset(r, 0, sizeof(*r));
    r->limit = limit;
}

void pd_xp_ranges_fini(struct pd_xp_ranges *r)
{
    free(r->v);
    memset(r, 0, sizeof(*r));
}

/* The first range that ends at or behind `at`. */
static uint32_t first_from(const struct pd_xp_ranges *r, uint64_t at)
{
    uint32_t low = 0, high = r->n;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (r->v[mid].to < at)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Opens a hole of one entry at i. */
static pd_status open_slot(struct pd_xp_ranges *r, uint32_t i)
{
    if (r->n >= r->limit)
        return PD_ELIMIT;
    if (r->n == r->cap) {
        uint32_t cap = r->cap == 0 ? 8 : r->cap * 2;
        struct pd_xp_range *v = realloc(r->v, cap * sizeof(*v));
        if (v == NULL)
            return PD_ENOMEM;
        r->v = v;
        r->cap = cap;
    }
    memmove(r->v + i + 1, r->v + i, (r->n - i) * sizeof(*r->v));
    r->n++;
    return PD_OK;
}

static void close_slots(struct pd_xp_ranges *r, uint32_t i, uint32_t count)
{
    if (count == 0)
        return;
    memmove(r->v + i, r->v + i + count, (r->n - i - count) * sizeof(*r->v));
    r->n -= count;
}

pd_status pd_xp_ranges_add(struct pd_xp_ranges *r, uint64_t from, uint64_t to)
{
    uint32_t i = first_from(r, from);
    uint32_t j = i;
    uint64_t had = 0;

    while (j < r->n && r->v[j].from <= to) {
        had += r->v[j].to - r->v[j].from;
        j++;
    }
    if (j == i) {
        pd_status st = open_slot(r, i);
        if (st != PD_OK)
            return st;
        r->v[i].from = from;
        r->v[i].to = to;
    } else {
        if (r->v[i].from < from)
            from = r->v[i].from;
        if (r->v[j - 1].to > to)
            to = r->v[j - 1].to;
        r->v[i].from = from;
        r->v[i].to = to;
        close_slots(r, i + 1, j - i - 1);
    }
    r->total += to - from - had;
    return PD_OK;
}

bool pd_xp_ranges_touch(const struct pd_xp_ranges *r, uint64_t from, uint64_t to)
{
    uint32_t i = first_from(r, from + 1);

    return i < r->n && r->v[i].from < to;
}

pd_status pd_xp_ranges_remove(struct pd_xp_ranges *r, uint64_t from, uint64_t to)
{
    uint32_t i = first_from(r, from + 1);
    uint32_t j;

    if (i == r->n || r->v[i].from >= to)
        return PD_OK;
    if (r->v[i].from < from && r->v[i].to > to) {
        pd_status st = open_slot(r, i + 1);
        if (st != PD_OK)
            return st;
        r->v[i + 1].from = to;
        r->v[i + 1].to = r->v[i].to;
        r->v[i].to = from;
        r->total -= to - from;
        return PD_OK;
    }
    if (r->v[i].from < from) {
        r->total -= r->v[i].to - from;
        r->v[i].to = from;
        i++;
    }
    for (j = i; j < r->n && r->v[j].to <= to; j++)
        r->total -= r->v[j].to - r->v[j].from;
    if (j < r->n && r->v[j].from < to) {
        r->total -= to - r->v[j].from;
        r->v[j].from = to;
    }
    close_slots(r, i, j - i);
    return PD_OK;
}
