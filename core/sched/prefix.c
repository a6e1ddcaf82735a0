/* SPDX-License-Identifier: Apache-2.0 */
/* The prefix index.  One entry is a pair (block hash, endpoint slot).  It sits
 * in a hash table of its pair, in the list of its slot and in the list of all
 * entries, both ordered by last use.  Entries of first blocks are in a second hash
 * table, of the hash alone: so a lookup costs for each endpoint that has the first
 * block, not for each that there is.
 *
 * A block's hash covers all blocks before it, so each hash has one parent.
 * Insertion goes from the last block to the first: a parent is always used
 * later than its children, and eviction, which takes the least recently used,
 * meets children before parents.  Hence the invariant that matching rests on:
 * if a slot has a block, it has all blocks before it.  The number of leading
 * blocks is then found by bisection, in log2(blocks) probes for each endpoint. */
#include "sched/prefix.h"

#include "base/compiler.h"
#include "base/hash.h"
#include "base/mem.h"

#include <string.h>

#define AHEAD 8u                /* lookups under way at a time */
#define NIL 0u                  /* entries are numbered from 1 */
#define NOT_FIRST UINT32_MAX    /* as `mate`: not the first block of a prompt */

struct link {
    uint32_t prev;
    uint32_t next;
};

struct entry {
    uint64_t hash;
    uint32_t slot;
    uint32_t ticket;            /* of the insertion that made it; 0: confirmed by another */
    uint32_t chain;             /* next in the bucket */
    struct link lru[2];         /* of the slot, of all */
    uint32_t mate;              /* next in the bucket of first blocks, or NOT_FIRST */
};

/* Ends of a list: head is the most recently used. */
struct ends {
    uint32_t head;
    uint32_t tail;
};

struct slot {
    struct ends lru;
    uint32_t n;
    uint32_t limit;
};

enum { OF_SLOT = 0, OF_ALL = 1 };

struct pd_prefix {
    struct pd_prefix_conf conf;
    struct entry *entries;      /* [1..conf.entries] */
    uint32_t *buckets;
    uint32_t *firsts;           /* as many */
    uint32_t mask;
    uint32_t fresh;             /* entries from here on were never used */
    uint32_t spare;             /* list through chain */
    struct slot *slots;
    struct ends all;
    struct pd_prefix_stats stats;
};

pd_status pd_prefix_create(const struct pd_prefix_conf *conf, struct pd_prefix **out)
{
    if (conf->slots == 0 || conf->entries == 0 || conf->entries > 1u << 28 || conf->per_slot == 0 ||
        conf->max_blocks == 0 || conf->block_bytes < 16 || conf->block_bytes > PD_PROMPT_BLOCK_MAX)
        return PD_EINVAL;
    struct pd_prefix *index = pd_calloc(1, sizeof *index);
    if (index == NULL)
        return PD_ENOMEM;
    uint32_t buckets = 64;
    while (buckets < conf->entries)
        buckets *= 2;
    index->conf = *conf;
    index->mask = buckets - 1;
    index->fresh = 1;
    index->entries = pd_calloc((size_t)conf->entries + 1, sizeof *index->entries);
    index->buckets = pd_calloc(buckets, sizeof *index->buckets);
    index->firsts = pd_calloc(buckets, sizeof *index->firsts);
    index->slots = pd_calloc(conf->slots, sizeof *index->slots);
    if (index->entries == NULL || index->buckets == NULL || index->firsts == NULL || index->slots == NULL) {
        pd_prefix_destroy(index);
        return PD_ENOMEM;
    }
    for (uint32_t i = 0; i < conf->slots; i++)
        index->slots[i].limit = conf->per_slot;
    *out = index;
    return PD_OK;
}

void pd_prefix_destroy(struct pd_prefix *index)
{
    if (index == NULL)
        return;
    pd_free(index->entries);
    pd_free(index->buckets);
    pd_free(index->firsts);
    pd_free(index->slots);
    pd_free(index);
}

/* ---- prompts ---- */

uint32_t pd_prefix_room(const struct pd_prefix *index, uint64_t bytes)
{
    uint64_t blocks = (bytes + index->conf.block_bytes - 1) / index->conf.block_bytes;
    return (uint32_t)PD_MIN(blocks, (uint64_t)index->conf.max_blocks);
}

/* A hash for each block, which covers those before it; the one before the first covers
 * salt and model. */
void pd_prefix_prompt(const struct pd_prefix *index, struct pd_prompt *prompt, struct pd_str model,
                      struct pd_str salt, const void *bytes, size_t n, uint64_t *hashes, uint32_t room)
{
    uint32_t blocks = PD_MIN(pd_prefix_room(index, n), room);
    /* The length of the model keeps ("ab", "c") and ("a", "bc") apart. */
    uint64_t chain = pd_hash64(model.p, model.n, model.n);

    if (salt.n > 0)
        chain = pd_hash64(salt.p, salt.n, chain);

    pd_hash_chain(bytes, n, index->conf.block_bytes, chain, hashes, blocks);
    prompt->hashes = hashes;
    prompt->n = blocks;
    prompt->bytes = n;
}

/* ---- entries ---- */

/* Hashes are mixed already; the multiple keeps the slots of one of them apart. */
static inline uint32_t *bucket_of(const struct pd_prefix *index, uint64_t hash, uint32_t slot)
{
    uint64_t both = hash ^ slot * 0x9e3779b97f4a7c15u;
    return &index->buckets[(both ^ both >> 32) & index->mask];
}

static inline uint32_t *first_bucket_of(const struct pd_prefix *index, uint64_t hash)
{
    return &index->firsts[(hash ^ hash >> 32) & index->mask];
}

static inline uint32_t find(struct pd_prefix *index, uint64_t hash, uint32_t slot)
{
    uint32_t at = *bucket_of(index, hash, slot);

    index->stats.probes++;
    while (at != NIL) {
        const struct entry *e = &index->entries[at];
        if (e->hash == hash && e->slot == slot)
            break;
        index->stats.probes++;
        at = e->chain;
    }
    return at;
}

static void list_remove(struct pd_prefix *index, struct ends *ends, uint32_t which, uint32_t at)
{
    struct link *l = &index->entries[at].lru[which];

    if (l->prev != NIL)
        index->entries[l->prev].lru[which].next = l->next;
    else
        ends->head = l->next;
    if (l->next != NIL)
        index->entries[l->next].lru[which].prev = l->prev;
    else
        ends->tail = l->prev;
}

static void list_push(struct pd_prefix *index, struct ends *ends, uint32_t which, uint32_t at)
{
    struct link *l = &index->entries[at].lru[which];

    l->prev = NIL;
    l->next = ends->head;
    if (ends->head != NIL)
        index->entries[ends->head].lru[which].prev = at;
    else
        ends->tail = at;
    ends->head = at;
}

/* Neighbours in a list, which move together. */
struct run {
    uint32_t first;
    uint32_t last;
};

static void list_to_front(struct pd_prefix *index, struct ends *ends, uint32_t which, struct run run)
{
    struct entry *entries = index->entries;

    if (ends->head == run.first)
        return;
    uint32_t prev = entries[run.first].lru[which].prev, next = entries[run.last].lru[which].next;
    entries[prev].lru[which].next = next;
    if (next != NIL)
        entries[next].lru[which].prev = prev;
    else
        ends->tail = prev;
    entries[run.first].lru[which].prev = NIL;
    entries[run.last].lru[which].next = ends->head;
    entries[ends->head].lru[which].prev = run.last;
    ends->head = run.first;
}

static void drop(struct pd_prefix *index, uint32_t at)
{
    struct entry *e = &index->entries[at];
    struct slot *slot = &index->slots[e->slot];
    uint32_t *link = bucket_of(index, e->hash, e->slot);

    while (*link != at)
        link = &index->entries[*link].chain;
    *link = e->chain;
    if (e->mate != NOT_FIRST) {
        for (link = first_bucket_of(index, e->hash); *link != at;)
            link = &index->entries[*link].mate;
        *link = e->mate;
    }
    list_remove(index, &slot->lru, OF_SLOT, at);
    list_remove(index, &index->all, OF_ALL, at);
    e->chain = index->spare;
    index->spare = at;
    slot->n--;
    index->stats.entries--;
}

static void evict(struct pd_prefix *index, uint32_t at)
{
    drop(index, at);
    index->stats.evicted++;
}

/* Always finds one: a full table gives up its least recently used entry. */
static uint32_t take(struct pd_prefix *index)
{
    if (index->spare == NIL && index->fresh <= index->conf.entries)
        return index->fresh++;
    if (index->spare == NIL)
        evict(index, index->all.tail);
    uint32_t at = index->spare;
    index->spare = index->entries[at].chain;
    return at;
}

static void add(struct pd_prefix *index, uint32_t slot_no, uint64_t hash, uint32_t ticket, bool is_first)
{
    struct slot *slot = &index->slots[slot_no];

    if (slot->n >= slot->limit)
        evict(index, slot->lru.tail);
    uint32_t at = take(index);
    struct entry *e = &index->entries[at];
    uint32_t *bucket = bucket_of(index, hash, slot_no);
    e->hash = hash;
    e->slot = slot_no;
    e->ticket = ticket;
    e->chain = *bucket;
    *bucket = at;
    e->mate = NOT_FIRST;
    if (is_first) {
        bucket = first_bucket_of(index, hash);
        e->mate = *bucket;
        *bucket = at;
    }
    list_push(index, &slot->lru, OF_SLOT, at);
    list_push(index, &index->all, OF_ALL, at);
    slot->n++;
    index->stats.entries++;
}

/* ---- operations ---- */

void pd_prefix_slot_limit(struct pd_prefix *index, uint32_t slot_no, uint32_t limit)
{
    struct slot *slot = &index->slots[slot_no];

    slot->limit = limit == 0 ? index->conf.per_slot : PD_MIN(limit, index->conf.per_slot);
    while (slot->n > slot->limit)
        evict(index, slot->lru.tail);
}

/* Leading blocks of n that the slot has, when it has the first one. */
static uint32_t match_rest(struct pd_prefix *index, uint32_t slot, const uint64_t *hashes, uint32_t n)
{
    n = PD_MIN(n, index->slots[slot].n);
    /* The whole prompt, as when it is sent again. */
    if (n > 1 && find(index, hashes[n - 1], slot) != NIL)
        return n;
    uint32_t have = 1;
    n -= n > 1;
    while (have < n) {
        uint32_t middle = have + (n - have + 1) / 2;
        if (find(index, hashes[middle - 1], slot) != NIL)
            have = middle;
        else
            n = middle - 1;
    }
    return have;
}

uint32_t pd_prefix_match(struct pd_prefix *index, uint32_t slot, const uint64_t *hashes, uint32_t n)
{
    if (n == 0 || index->slots[slot].n == 0 || find(index, hashes[0], slot) == NIL)
        return 0;
    return match_rest(index, slot, hashes, n);
}

uint32_t pd_prefix_holders(struct pd_prefix *index, const uint64_t *hashes, uint32_t n,
                           struct pd_prefix_holder *holders)
{
    uint32_t found = 0;

    for (uint32_t at = *first_bucket_of(index, hashes[0]); at != NIL; at = index->entries[at].mate) {
        const struct entry *e = &index->entries[at];
        index->stats.probes++;
        if (e->hash == hashes[0])
            holders[found++] = (struct pd_prefix_holder){ e->slot, match_rest(index, e->slot, hashes, n) };
    }
    return found;
}

/* The last block of some at `at`; it and those before it that stand before it in both
 * lists, as what was inserted together does, go to the front.  How many these are. */
static uint32_t refresh(struct pd_prefix *index, struct slot *slot, uint32_t at, const uint64_t *hashes,
                        uint32_t n, uint32_t ticket)
{
    struct run run = { at, at };
    struct entry *e = &index->entries[at];
    uint32_t left = n;

    for (;;) {
        if (e->ticket != ticket)
            e->ticket = 0;
        at = e->lru[OF_SLOT].prev;
        if (--left == 0 || at != e->lru[OF_ALL].prev || at == NIL)
            break;
        e = &index->entries[at];
        if (e->hash != hashes[left - 1])
            break;
        run.first = at;
    }
    list_to_front(index, &slot->lru, OF_SLOT, run);
    list_to_front(index, &index->all, OF_ALL, run);
    index->stats.probes += n - left;
    return n - left;
}

/* Block by block every entry would go to the front.  Neighbours go as a run: that costs a
 * look at each of them. */
void pd_prefix_insert(struct pd_prefix *index, uint32_t slot_no, const uint64_t *hashes, uint32_t n,
                      uint32_t ticket)
{
    struct slot *slot = &index->slots[slot_no];
    uint32_t room = PD_MIN(slot->limit, index->conf.entries);

    for (uint32_t i = PD_MIN(n, room); i > 0;) {
        /* Each step waits for memory of its own. */
        if (i > AHEAD)
            __builtin_prefetch(bucket_of(index, hashes[i - 1 - AHEAD], slot_no));
        uint32_t at = find(index, hashes[i - 1], slot_no);
        if (at != NIL) {
            i -= refresh(index, slot, at, hashes, i, ticket);
            continue;
        }
        add(index, slot_no, hashes[i - 1], ticket, i == 1);
        i--;
    }
}

void pd_prefix_rollback(struct pd_prefix *index, uint32_t slot, const uint64_t *hashes, uint32_t n,
                        uint32_t ticket)
{
    for (uint32_t i = n; i > 0; i--) {
        uint32_t at = find(index, hashes[i - 1], slot);
        if (at == NIL || index->entries[at].ticket != ticket)
            continue;
        drop(index, at);
        index->stats.rolled_back++;
    }
}

void pd_prefix_clear(struct pd_prefix *index, uint32_t slot)
{
    while (index->slots[slot].n > 0)
        drop(index, index->slots[slot].lru.tail);
}

uint32_t pd_prefix_slot_entries(const struct pd_prefix *index, uint32_t slot)
{
    return index->slots[slot].n;
}

void pd_prefix_stats(const struct pd_prefix *index, struct pd_prefix_stats *out)
{
    *out = index->stats;
}
