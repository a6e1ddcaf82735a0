/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap made of linked nodes.  It is a complete tree: the path to place
 * k (counted from 1, level by level) is the binary digits of k below the first,
 * 0 for left and 1 for right. */
#include "base/heap.h"

#include "base/compiler.h"

#include <string.h>

void pd_heap_init(struct pd_heap *h)
{
    memset(h, 0, sizeof *h);
}

void pd_heap_node_init(struct pd_heap_node *node)
{
    memset(node, 0, sizeof *node);
}

static bool comes_before(const struct pd_heap_node *a, const struct pd_heap_node *b)
{
    return a->time != b->time ? a->time < b->time : a->seq < b->seq;
}

/* The link that holds place k, and the node above it. */
static struct pd_heap_node **place(struct pd_heap *h, size_t k, struct pd_heap_node **parent)
{
    struct pd_heap_node **link = &h->root;
    *parent = NULL;
    if (k <= 1)
        return link;
    int bit = (int)(sizeof(size_t) * 8) - 2 - __builtin_clzl(k);
    for (; bit >= 0; bit--) {
        *parent = *link;
        link = (k >> bit & 1) != 0 ? &(*link)->right : &(*link)->left;
    }
    return link;
}

/* Lets the node above `from`, or the root, point to `to` instead. */
static void relink_above(struct pd_heap *h, struct pd_heap_node *from, struct pd_heap_node *to)
{
    to->parent = from->parent;
    if (from->parent == NULL)
        h->root = to;
    else if (from->parent->left == from)
        from->parent->left = to;
    else
        from->parent->right = to;
}

static void set_children(struct pd_heap_node *node, struct pd_heap_node *left,
                         struct pd_heap_node *right)
{
    node->left = left;
    node->right = right;
    if (left != NULL)
        left->parent = node;
    if (right != NULL)
        right->parent = node;
}

/* Exchanges a node with its parent. */
static void rise(struct pd_heap *h, struct pd_heap_node *child)
{
    struct pd_heap_node *parent = child->parent;
    struct pd_heap_node *left = child->left;
    struct pd_heap_node *right = child->right;
    relink_above(h, parent, child);
    if (parent->left == child)
        set_children(child, parent, parent->right);
    else
        set_children(child, parent->left, parent);
    set_children(parent, left, right);
}

void pd_heap_insert(struct pd_heap *h, struct pd_heap_node *node, uint64_t time)
{
    struct pd_heap_node *parent;
    pd_assert(!node->in_heap);
    struct pd_heap_node **link = place(h, h->n + 1, &parent);
    node->left = NULL;
    node->right = NULL;
    node->parent = parent;
    node->time = time;
    node->seq = h->next_seq++;
    node->in_heap = true;
    *link = node;
    h->n++;
    while (node->parent != NULL && comes_before(node, node->parent))
        rise(h, node);
}

void pd_heap_remove(struct pd_heap *h, struct pd_heap_node *node)
{
    struct pd_heap_node *parent;
    if (!node->in_heap)
        return;
    struct pd_heap_node **link = place(h, h->n, &parent);
    struct pd_heap_node *last = *link;
    *link = NULL;
    h->n--;
    node->in_heap = false;
    if (last == node)
        return;
    relink_above(h, node, last);
    set_children(last, node->left, node->right);
    for (;;) {
        struct pd_heap_node *least = last;
        if (last->left != NULL && comes_before(last->left, least))
            least = last->left;
        if (last->right != NULL && comes_before(last->right, least))
            least = last->right;
        if (least == last)
            break;
        rise(h, least);
    }
    while (last->parent != NULL && comes_before(last, last->parent))
        rise(h, last);
}

struct pd_heap_node *pd_heap_pop(struct pd_heap *h)
{
    struct pd_heap_node *node = h->root;
    if (node != NULL)
        pd_heap_remove(h, node);
    return node;
}
