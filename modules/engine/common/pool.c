/* SPDX-License-Identifier: Apache-2.0 */
/* Block pool and prefix cache.  Invariant: each block is in exactly one state:
 *   used    refs > 0, in no list (published or not)
 *   cached  refs = 0, published, in the list of evictable blocks
 *   free    refs = 0, not published, in the list of free blocks
 * so a block is given out only when nobody holds a reference. */
#include "pool.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct block {
    struct eng_hash hash, parent;   /* while published */
    uint64_t generation;
    uint32_t refs;
    uint32_t prev, next;            /* free or evictable list */
    uint32_t chain;                 /* next in the hash bucket */
    bool published;
};

struct list {
    uint32_t head, tail, n;
};

struct eng_pool {
    uint32_t blocks, block_tokens, mask;
    uint8_t key[16];
    struct block *block;
    uint32_t *ids;                  /* tokens of each published block */
    uint32_t *bucket;
    uint8_t *scratch;               /* what is hashed: parent and ids */
    struct list free, cached;       /* cached: least recently used at the head */
};

static void append(struct eng_pool *p, struct list *l, uint32_t b)
{
    p->block[b].prev = l->tail;
    p->block[b].next = NONE;
    if (l->tail != NONE)
        p->block[l->tail].next = b;
    else
        l->head = b;
    l->tail = b;
    l->n++;
}

static void remove_from(struct eng_pool *p, struct list *l, uint32_t b)
{
    struct block *x = &p->block[b];

    if (x->prev != NONE)
        p->block[x->prev].next = x->next;
    else
        l->head = x->next;
    if (x->next != NONE)
        p->block[x->next].prev = x->prev;
    else
        l->tail = x->prev;
    l->n--;
}

pd_status eng_pool_create(uint32_t blocks, uint32_t block_tokens, const uint8_t key[16],
                          struct eng_pool **out)
{
    struct eng_pool *p = calloc(1, sizeof(*p));
    uint32_t buckets = 16;

    *out = NULL;
    if (p == NULL)
        return PD_ENOMEM;
    while (buckets < blocks && buckets < 1u << 30)
        buckets *= 2;
    p->blocks = blocks;
    p->block_tokens = block_tokens;
    p->mask = buckets - 1;
    memcpy(p->key, key, sizeof(p->key));
    p->block = calloc(blocks, sizeof(*p->block));
    p->ids = calloc((size_t)blocks * block_tokens, sizeof(*p->ids));
    p->bucket = malloc(buckets * sizeof(*p->bucket));
    p->scratch = malloc(16 + 4 * (size_t)block_tokens);
    if (p->block == NULL || p->ids == NULL || p->bucket == NULL || p->scratch == NULL) {
        eng_pool_free(p);
        return PD_ENOMEM;
    }
    memset(p->bucket, 0xff, buckets * sizeof(*p->bucket));
    p->free = p->cached = (struct list){ NONE, NONE, 0 };
    for (uint32_t b = 0; b < blocks; b++)
        append(p, &p->free, b);
    *out = p;
    return PD_OK;
}

void eng_pool_free(struct eng_pool *p)
{
    if (p == NULL)
        return;
    free(p->block);
    free(p->ids);
    free(p->bucket);
    free(p->scratch);
    free(p);
}

struct eng_hash eng_pool_root(const struct eng_pool *p, struct pd_str salt)
{
    return eng_siphash(p->key, salt.n > 0 ? salt.p : "", salt.n);
}

struct eng_hash eng_pool_chain(const struct eng_pool *p, struct eng_hash parent, const uint32_t *ids)
{
    uint8_t *to = p->scratch;

    for (int i = 0; i < 8; i++) {
        to[i] = (uint8_t)(parent.lo >> (8 * i));
        to[8 + i] = (uint8_t)(parent.hi >> (8 * i));
    }
    for (uint32_t i = 0; i < p->block_tokens; i++)
        for (int k = 0; k < 4; k++)
            to[16 + 4 * i + (uint32_t)k] = (uint8_t)(ids[i] >> (8 * k));
    return eng_siphash(p->key, to, 16 + 4 * (size_t)p->block_tokens);
}

static bool same(struct eng_hash a, struct eng_hash b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

/* The published block of this hash, parent and tokens, or NONE. */
static uint32_t find(const struct eng_pool *p, struct eng_hash h, struct eng_hash parent, const uint32_t *ids)
{
    uint32_t b = p->bucket[h.lo & p->mask];

    for (; b != NONE; b = p->block[b].chain)
        if (same(p->block[b].hash, h) && same(p->block[b].parent, parent) &&
            memcmp(p->ids + (size_t)b * p->block_tokens, ids, p->block_tokens * sizeof(*ids)) == 0)
            return b;
    return NONE;
}

uint32_t eng_pool_lookup(struct eng_pool *p, struct eng_hash root, const uint32_t *ids, size_t n,
                         uint32_t *blocks)
{
    struct eng_hash parent = root;
    uint32_t found = 0;

    for (; n >= p->block_tokens; n -= p->block_tokens, ids += p->block_tokens) {
        struct eng_hash h = eng_pool_chain(p, parent, ids);
        uint32_t b = find(p, h, parent, ids);
        if (b == NONE)
            break;
        if (blocks != NULL) {
            eng_pool_ref(p, b);
            blocks[found] = b;
        }
        found++;
        parent = h;
    }
    return found;
}

static void unpublish(struct eng_pool *p, uint32_t b)
{
    uint32_t *at = &p->bucket[p->block[b].hash.lo & p->mask];

    while (*at != b)
        at = &p->block[*at].chain;
    *at = p->block[b].chain;
    p->block[b].published = false;
}

pd_status eng_pool_alloc(struct eng_pool *p, uint32_t n, uint32_t *blocks)
{
    if (n > p->free.n + p->cached.n)
        return PD_EAGAIN;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t b = p->free.head;
        if (b != NONE) {
            remove_from(p, &p->free, b);
        } else {
            b = p->cached.head;
            remove_from(p, &p->cached, b);
            unpublish(p, b);
        }
        p->block[b].refs = 1;
        p->block[b].generation++;
        blocks[i] = b;
    }
    return PD_OK;
}

void eng_pool_ref(struct eng_pool *p, uint32_t block)
{
    if (p->block[block].refs++ == 0)
        remove_from(p, &p->cached, block);
}

void eng_pool_unref(struct eng_pool *p, uint32_t block)
{
    if (--p->block[block].refs == 0)
        append(p, p->block[block].published ? &p->cached : &p->free, block);
}

struct eng_hash eng_pool_publish(struct eng_pool *p, uint32_t block, struct eng_hash parent,
                                 const uint32_t *ids)
{
    struct eng_hash h = eng_pool_chain(p, parent, ids);
    struct block *x = &p->block[block];
    uint32_t *bucket = &p->bucket[h.lo & p->mask];

    if (x->published || find(p, h, parent, ids) != NONE)
        return h;
    x->hash = h;
    x->parent = parent;
    memcpy(p->ids + (size_t)block * p->block_tokens, ids, p->block_tokens * sizeof(*ids));
    x->chain = *bucket;
    *bucket = block;
    x->published = true;
    return h;
}

uint64_t eng_pool_generation(const struct eng_pool *p, uint32_t block)
{
    return p->block[block].generation;
}

uint32_t eng_pool_refs(const struct eng_pool *p, uint32_t block)
{
    return p->block[block].refs;
}

uint32_t eng_pool_blocks(const struct eng_pool *p)
{
    return p->blocks;
}

uint32_t eng_pool_available(const struct eng_pool *p)
{
    return p->free.n + p->cached.n;
}

uint32_t eng_pool_cached(const struct eng_pool *p)
{
    return p->cached.n;
}

static bool verify_list(const struct eng_pool *p, const struct list *l, bool published)
{
    uint32_t n = 0, prev = NONE;

    for (uint32_t b = l->head; b != NONE; b = p->block[b].next, n++) {
        if (n > p->blocks || p->block[b].refs != 0 || p->block[b].published != published ||
            p->block[b].prev != prev)
            return false;
        prev = b;
    }
    return n == l->n && l->tail == prev;
}

bool eng_pool_verify(const struct eng_pool *p)
{
    uint32_t used = 0, published = 0, found = 0;

    for (uint32_t b = 0; b < p->blocks; b++) {
        used += p->block[b].refs > 0;
        published += p->block[b].published;
    }
    for (uint32_t i = 0; i <= p->mask; i++)
        for (uint32_t b = p->bucket[i]; b != NONE && found <= p->blocks; b = p->block[b].chain, found++)
            if (!p->block[b].published || (p->block[b].hash.lo & p->mask) != i)
                return false;
    return found == published && used + p->free.n + p->cached.n == p->blocks &&
           verify_list(p, &p->free, false) && verify_list(p, &p->cached, true);
}
