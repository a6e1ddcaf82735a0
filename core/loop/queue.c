/* SPDX-License-Identifier: Apache-2.0 */
/* A pairing heap.  Each node knows its first child, its next sibling, and in
 * `prev` its previous sibling or, for a first child, its parent; the root has
 * no prev and no next.  A node that is in no queue has all three NULL. */
#include "loop/queue.h"

#include <stdio.h>
#include <string.h>

static bool before(const struct pd_loop_node *a, const struct pd_loop_node *b)
{
    return a->due < b->due || (a->due == b->due && a->seq < b->seq);
}

/* Joins two roots. */
static struct pd_loop_node *meld(struct pd_loop_node *a, struct pd_loop_node *b)
{
    struct pd_loop_node *t;

    if (a == NULL)
        return b;
    if (b == NULL)
        return a;
    if (before(b, a)) {
        t = a;
        a = b;
        b = t;
    }
    b->prev = a;
    b->next = a->child;
    if (a->child != NULL)
        a->child->prev = b;
    a->child = b;
    return a;
}

/* Joins a list of siblings in two passes. */
static struct pd_loop_node *meld_siblings(struct pd_loop_node *first)
{
    struct pd_loop_node *pairs = NULL, *root = NULL;

    while (first != NULL) {
        struct pd_loop_node *a = first, *b = a->next;
        first = b != NULL ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b != NULL)
            b->next = b->prev = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs != NULL) {
        struct pd_loop_node *a = pairs;
        pairs = a->next;
        a->next = NULL;
        root = meld(root, a);
    }
    return root;
}

void pd_loop_queue_add(struct pd_loop_queue *q, struct pd_loop_node *n)
{
    n->child = n->next = n->prev = NULL;
    q->root = meld(q->root, n);
    q->count++;
}

void pd_loop_queue_remove(struct pd_loop_queue *q, struct pd_loop_node *n)
{
    struct pd_loop_node *rest = meld_siblings(n->child);

    n->child = NULL;
    if (n == q->root) {
        q->root = rest;
    } else {
        if (n->prev->child == n)
            n->prev->child = n->next;
        else
            n->prev->next = n->next;
        if (n->next != NULL)
            n->next->prev = n->prev;
        q->root = meld(q->root, rest);
    }
    n->next = n->prev = NULL;
    q->count--;
}

struct pd_loop_node *pd_loop_queue_pop(struct pd_loop_queue *q)
{
    struct pd_loop_node *n = q->root;

    if (n != NULL)
        pd_loop_queue_remove(q, n);
    return n;
}

void pd_loop_queue_each(struct pd_loop_queue *q,
                        void (*fn)(struct pd_loop_node *n, void *arg), void *arg)
{
    struct pd_loop_node *n = q->root;

    while (n != NULL) {
        fn(n, arg);
        if (n->child != NULL) {
            n = n->child;
            continue;
        }
        while (n != NULL && n->next == NULL) {
            while (n->prev != NULL && n->prev->child != n)
                n = n->prev;
            n = n->prev;
        }
        if (n != NULL)
            n = n->next;
    }
}

void pd_loop_names_add(char *buf, size_t size, const char *what, const char *name)
{
    size_t at;

    if (buf == NULL || size == 0)
        return;
    at = strnlen(buf, size);
    if (at + 1 >= size)
        return;
    snprintf(buf + at, size - at, "%s%s %s", at > 0 ? ", " : "", what,
             name != NULL ? name : "(no name)");
}
