/* SPDX-License-Identifier: Apache-2.0 */
/* An intrusive, circular, doubly linked list.  The same struct is the head and
 * the link inside a member; the list owns nothing.  One thread at a time. */
#ifndef PD_BASE_LIST_H
#define PD_BASE_LIST_H

#include "base/compiler.h"

#include <stdbool.h>

struct pd_list {
    struct pd_list *prev;
    struct pd_list *next;
};

#define PD_LIST_ENTRY(link, type, member) pd_container_of(link, type, member)

/* `link` runs over the list; the list must not change meanwhile. */
#define PD_LIST_EACH(head, link)                                               \
    for (struct pd_list *link = (head)->next; link != (head); link = link->next)

/* As PD_LIST_EACH; the body may remove `link` (and nothing else). */
#define PD_LIST_EACH_SAFE(head, link)                                          \
    for (struct pd_list *link = (head)->next, *link##_next = link->next;       \
         link != (head); link = link##_next, link##_next = link->next)

/* An empty head, or a link that is in no list. */
static inline void pd_list_init(struct pd_list *l)
{
    l->prev = l;
    l->next = l;
}

/* Of a head: has no members.  Of a link: is in no list. */
static inline bool pd_list_is_empty(const struct pd_list *l)
{
    return l->next == l;
}

static inline void pd_list_insert_before(struct pd_list *place, struct pd_list *link)
{
    link->prev = place->prev;
    link->next = place;
    place->prev->next = link;
    place->prev = link;
}

static inline void pd_list_append(struct pd_list *head, struct pd_list *link)
{
    pd_list_insert_before(head, link);
}

static inline void pd_list_prepend(struct pd_list *head, struct pd_list *link)
{
    pd_list_insert_before(head->next, link);
}

/* Takes an initialised link out of its list; harmless when it is in none. */
static inline void pd_list_remove(struct pd_list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    pd_list_init(link);
}

static inline struct pd_list *pd_list_first(const struct pd_list *head)
{
    return head->next == head ? NULL : head->next;
}

static inline struct pd_list *pd_list_last(const struct pd_list *head)
{
    return head->prev == head ? NULL : head->prev;
}

/* Removes and returns the first link, or NULL. */
static inline struct pd_list *pd_list_pop(struct pd_list *head)
{
    struct pd_list *link = pd_list_first(head);
    if (link != NULL)
        pd_list_remove(link);
    return link;
}

/* Moves all members of `from` behind those of `to`. */
static inline void pd_list_move_all(struct pd_list *to, struct pd_list *from)
{
    if (pd_list_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    pd_list_init(from);
}

/* Members, counted one by one. */
static inline size_t pd_list_count(const struct pd_list *head)
{
    size_t n = 0;
    for (const struct pd_list *l = head->next; l != head; l = l->next)
        n++;
    return n;
}

#endif
