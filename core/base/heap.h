/* SPDX-License-Identifier: Apache-2.0 */
/* An intrusive binary min-heap for timers, ordered by time, then by order of
 * insertion.  It allocates nothing, so inserting cannot fail.  One thread. */
#ifndef PD_BASE_HEAP_H
#define PD_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pd_heap_node {
    struct pd_heap_node *left;
    struct pd_heap_node *right;
    struct pd_heap_node *parent;
    uint64_t time;
    uint64_t seq;
    bool in_heap;
};

struct pd_heap {
    struct pd_heap_node *root;
    size_t n;
    uint64_t next_seq;
};

void pd_heap_init(struct pd_heap *h);
/* A node that is in no heap. */
void pd_heap_node_init(struct pd_heap_node *node);
/* The node must be in no heap; it stays the caller's. */
void pd_heap_insert(struct pd_heap *h, struct pd_heap_node *node, uint64_t time);
/* Harmless when the node is in no heap. */
void pd_heap_remove(struct pd_heap *h, struct pd_heap_node *node);
/* Removes and returns the first node, or NULL. */
struct pd_heap_node *pd_heap_pop(struct pd_heap *h);

/* The node that comes first, or NULL. */
static inline struct pd_heap_node *pd_heap_min(const struct pd_heap *h)
{
    return h->root;
}

static inline bool pd_heap_has(const struct pd_heap_node *node)
{
    return node->in_heap;
}

#endif
