/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of things to come: an intrusive pairing heap over
 * struct pd_loop_node, ordered by (due, seq).  Nothing here allocates, so
 * nothing fails.  The caller gives each node its own seq. */
#ifndef PD_LOOP_QUEUE_H
#define PD_LOOP_QUEUE_H

#include <pdplane/loop.h>

struct pd_loop_queue {
    struct pd_loop_node *root;
    uint64_t count;
};

void pd_loop_queue_add(struct pd_loop_queue *q, struct pd_loop_node *n);
/* The node must be in this queue. */
void pd_loop_queue_remove(struct pd_loop_queue *q, struct pd_loop_node *n);
/* Removes and returns the first node; NULL when empty. */
struct pd_loop_node *pd_loop_queue_pop(struct pd_loop_queue *q);

/* Calls fn for every node, in no order; fn must not change the queue. */
void pd_loop_queue_each(struct pd_loop_queue *q,
                        void (*fn)(struct pd_loop_node *n, void *arg), void *arg);

/* Appends "what name" to a list of names in buf, with ", " between. */
void pd_loop_names_add(char *buf, size_t size, const char *what, const char *name);

#endif
