/* SPDX-License-Identifier: Apache-2.0 */
/* The blocks of earlier prompts that a simulated server still has, the least
 * recently used ones going first.  A block is named by the hash of all that is
 * before its end.  One thread at a time. */
#ifndef PD_WHATIF_CACHE_H
#define PD_WHATIF_CACHE_H

#include "base/list.h"
#include "base/map.h"

struct pd_whatif_cache {
    struct pd_idmap map;        /* hash -> struct block */
    struct pd_list used;        /* least recently used first */
    struct pd_list spare;
    struct pd_list slabs;
    uint64_t n;
};

void pd_whatif_cache_init(struct pd_whatif_cache *c);
void pd_whatif_cache_fini(struct pd_whatif_cache *c);
/* How many blocks from the first on it has; they count as used now. */
uint32_t pd_whatif_cache_match(struct pd_whatif_cache *c, const uint64_t *hashes, uint32_t n);
/* Adds what it has not, then drops the oldest above `most`.  PD_OK or PD_ENOMEM. */
pd_status pd_whatif_cache_add(struct pd_whatif_cache *c, const uint64_t *hashes, uint32_t n, uint64_t most);
/* Drops the oldest above `most`. */
void pd_whatif_cache_trim(struct pd_whatif_cache *c, uint64_t most);

#endif
