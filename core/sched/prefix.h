/* SPDX-License-Identifier: Apache-2.0 */
/* The approximate prefix index: which endpoint probably holds the KV of which
 * leading blocks of a prompt, judged from what was sent there.  A hint: it may
 * be wrong at any time, nothing correct may rest on it.  Loop thread. */
#ifndef PD_SCHED_PREFIX_H
#define PD_SCHED_PREFIX_H

#include <pdplane/sched.h>

struct pd_prefix_conf {
    uint32_t slots;             /* endpoints, slot numbers below this */
    uint32_t entries;           /* (block, endpoint) pairs in all */
    uint32_t per_slot;          /* pairs of one endpoint */
    uint32_t max_blocks;        /* of one prompt */
    uint32_t block_bytes;       /* 16 to PD_PROMPT_BLOCK_MAX */
};

struct pd_prefix_stats {
    uint64_t entries;
    uint64_t evicted;
    uint64_t rolled_back;
    uint64_t probes;            /* entries looked at, ever */
};

/* A slot and the leading blocks of a prompt that it is expected to hold. */
struct pd_prefix_holder {
    uint32_t slot;
    uint32_t blocks;
};

struct pd_prefix;

/* Allocates everything that it will ever use.  PD_OK, PD_EINVAL, PD_ENOMEM.
 * Gives: pd_prefix_destroy. */
pd_status pd_prefix_create(const struct pd_prefix_conf *conf, struct pd_prefix **out);
void pd_prefix_destroy(struct pd_prefix *index);

/* Prompts: see struct pd_sched_api. */
uint32_t pd_prefix_room(const struct pd_prefix *index, uint64_t bytes);
void pd_prefix_prompt(const struct pd_prefix *index, struct pd_prompt *prompt, struct pd_str model,
                      struct pd_str salt, const void *bytes, size_t n, uint64_t *hashes, uint32_t room);

/* Most entries of a slot, e.g. what its cache holds; 0: the configured number,
 * which is also the limit.  Evicts what is too much. */
void pd_prefix_slot_limit(struct pd_prefix *index, uint32_t slot, uint32_t limit);
/* Leading blocks of the prompt that the slot is expected to hold. */
uint32_t pd_prefix_match(struct pd_prefix *index, uint32_t slot, const uint64_t *hashes,
                         uint32_t n);
/* All slots that are expected to hold the first block, and how many leading ones they
 * hold, in no order.  n is not 0; holders has a place for each slot of the index. */
uint32_t pd_prefix_holders(struct pd_prefix *index, const uint64_t *hashes, uint32_t n,
                           struct pd_prefix_holder *holders);
/* The slot will hold these blocks from now on.  ticket: not 0; names what this
 * call adds for pd_prefix_rollback. */
void pd_prefix_insert(struct pd_prefix *index, uint32_t slot, const uint64_t *hashes, uint32_t n,
                      uint32_t ticket);
/* Takes back what the call with this ticket added and no later call confirmed. */
void pd_prefix_rollback(struct pd_prefix *index, uint32_t slot, const uint64_t *hashes, uint32_t n,
                        uint32_t ticket);
/* Forgets all entries of a slot. */
void pd_prefix_clear(struct pd_prefix *index, uint32_t slot);
uint32_t pd_prefix_slot_entries(const struct pd_prefix *index, uint32_t slot);
void pd_prefix_stats(const struct pd_prefix *index, struct pd_prefix_stats *out);

#endif
