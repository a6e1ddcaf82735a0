/* SPDX-License-Identifier: Apache-2.0 */
/* A queue of pointers with a fixed number of places.  It owns no member.  One
 * thread at a time. */
#ifndef PD_BASE_RING_H
#define PD_BASE_RING_H

#include "base/mem.h"

struct pd_ring {
    void **slots;
    size_t cap;
    size_t head;            /* place of the oldest */
    size_t n;
};

/* PD_OK, PD_EINVAL when cap is 0, PD_ENOMEM. */
static inline pd_status pd_ring_init(struct pd_ring *r, size_t cap)
{
    r->slots = cap == 0 ? NULL : (void **)pd_calloc(cap, sizeof(void *));
    r->cap = r->slots == NULL ? 0 : cap;
    r->head = 0;
    r->n = 0;
    if (r->slots == NULL)
        return cap == 0 ? PD_EINVAL : PD_ENOMEM;
    return PD_OK;
}

static inline void pd_ring_fini(struct pd_ring *r)
{
    pd_free(r->slots);
    r->slots = NULL;
    r->cap = 0;
    r->n = 0;
}

/* The i-th oldest, i below n. */
static inline void *pd_ring_at(const struct pd_ring *r, size_t i)
{
    size_t at = r->head + i;
    return r->slots[at >= r->cap ? at - r->cap : at];
}

/* PD_OK, or PD_ELIMIT when it is full. */
static inline pd_status pd_ring_push(struct pd_ring *r, void *p)
{
    if (r->n == r->cap)
        return PD_ELIMIT;
    size_t at = r->head + r->n;
    r->slots[at >= r->cap ? at - r->cap : at] = p;
    r->n++;
    return PD_OK;
}

/* The oldest, or NULL; pop removes it. */
static inline void *pd_ring_peek(const struct pd_ring *r)
{
    return r->n == 0 ? NULL : r->slots[r->head];
}

static inline void *pd_ring_pop(struct pd_ring *r)
{
    if (r->n == 0)
        return NULL;
    void *p = r->slots[r->head];
    r->head = r->head + 1 == r->cap ? 0 : r->head + 1;
    r->n--;
    return p;
}

#endif
