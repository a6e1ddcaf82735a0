/* SPDX-License-Identifier: Apache-2.0 */
/* Bookkeeping of KV blocks: who uses them, and which of them hold a prefix
 * that another sequence can use.  Memory of the blocks is elsewhere.  All
 * tables have their final size at creation.  One thread at a time. */
#ifndef ENG_POOL_H
#define ENG_POOL_H

#include "hash.h"

#include <pdplane/types.h>

struct eng_pool;

/* Gives an empty pool.  key is secret per pool, so that nobody can prepare two
 * prefixes with one hash. */
pd_status eng_pool_create(uint32_t blocks, uint32_t block_tokens, const uint8_t key[16],
                          struct eng_pool **out);
void eng_pool_free(struct eng_pool *p);

/* Start of a chain: prefixes are shared only under the same salt. */
struct eng_hash eng_pool_root(const struct eng_pool *p, struct pd_str salt);
/* Hash of a full block: its parent's and its block_tokens token ids. */
struct eng_hash eng_pool_chain(const struct eng_pool *p, struct eng_hash parent, const uint32_t *ids);

/* How many leading blocks of n tokens are cached under a root.  With blocks
 * not NULL a reference to each is taken and its index written. */
uint32_t eng_pool_lookup(struct eng_pool *p, struct eng_hash root, const uint32_t *ids, size_t n,
                         uint32_t *blocks);

/* Takes n blocks with one reference each, all or none; cached blocks that
 * nobody uses are given up, least recently used first.  Returns PD_OK or
 * PD_EAGAIN.  Each block gets a new generation. */
pd_status eng_pool_alloc(struct eng_pool *p, uint32_t n, uint32_t *blocks);

/* One more or one less user.  The last one to leave makes the block free, or
 * evictable if it is published. */
void eng_pool_ref(struct eng_pool *p, uint32_t block);
void eng_pool_unref(struct eng_pool *p, uint32_t block);

/* Makes a full, finished block findable.  The caller holds a reference.  Gives
 * its hash for the next one.  A second block of the same content stays private
 * (not an error). */
struct eng_hash eng_pool_publish(struct eng_pool *p, uint32_t block, struct eng_hash parent,
                                 const uint32_t *ids);

/* Generation: changes whenever the block is given out for new content. */
uint64_t eng_pool_generation(const struct eng_pool *p, uint32_t block);
uint32_t eng_pool_refs(const struct eng_pool *p, uint32_t block);

uint32_t eng_pool_blocks(const struct eng_pool *p);
/* Blocks that alloc could give now, and how many of these are cached. */
uint32_t eng_pool_available(const struct eng_pool *p);
uint32_t eng_pool_cached(const struct eng_pool *p);

/* Walks all tables; false when an invariant is broken.  For tests. */
bool eng_pool_verify(const struct eng_pool *p);

#endif
