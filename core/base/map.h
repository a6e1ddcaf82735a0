/* SPDX-License-Identifier: Apache-2.0 */
/* Hash maps with open addressing: pd_strmap has string keys, which it copies,
 * pd_idmap has 64-bit keys.  Values are pointers that the map does not own and
 * that are never NULL.  Both hold at most `max` members.
 *
 * seed: random where keys come from peers or clients, else 0.  The order of
 * iteration follows from seed and history, never from addresses.  While a
 * cursor runs, removing is allowed, putting is not.  One thread at a time. */
#ifndef PD_BASE_MAP_H
#define PD_BASE_MAP_H

#include <pdplane/types.h>

struct pd_strmap_slot {
    uint64_t hash;
    char *key;              /* NULL: never used, or removed when value is set */
    size_t key_len;
    void *value;
};

struct pd_strmap {
    struct pd_strmap_slot *slots;
    size_t cap;             /* slots, 0 or a power of two */
    size_t n;               /* members */
    size_t used;            /* members and removed slots */
    size_t max;
    uint64_t seed;
};

struct pd_idmap_slot {
    uint64_t key;
    void *value;            /* NULL: never used */
};

struct pd_idmap {
    struct pd_idmap_slot *slots;
    size_t cap;
    size_t n;
    size_t used;
    size_t max;
    uint64_t seed;
};

/* An empty map that allocates nothing yet. */
void pd_strmap_init(struct pd_strmap *m, size_t max, uint64_t seed);
void pd_strmap_fini(struct pd_strmap *m);
/* The value or NULL. */
void *pd_strmap_get(const struct pd_strmap *m, struct pd_str key);
/* Adds; PD_OK, PD_EEXIST (nothing changed), PD_ELIMIT, PD_ENOMEM. */
pd_status pd_strmap_add(struct pd_strmap *m, struct pd_str key, void *value);
/* Adds or replaces; *old (may be NULL) gets the replaced value or NULL.
 * PD_OK, PD_ELIMIT, PD_ENOMEM. */
pd_status pd_strmap_put(struct pd_strmap *m, struct pd_str key, void *value, void **old);
/* Removes; returns the value that was there, or NULL. */
void *pd_strmap_remove(struct pd_strmap *m, struct pd_str key);
/* Start with *cursor = 0; false at the end.  key and value may be NULL. */
bool pd_strmap_next(const struct pd_strmap *m, size_t *cursor, struct pd_str *key, void **value);

/* The same for 64-bit keys, 0 included. */
void pd_idmap_init(struct pd_idmap *m, size_t max, uint64_t seed);
void pd_idmap_fini(struct pd_idmap *m);
void *pd_idmap_get(const struct pd_idmap *m, uint64_t key);
pd_status pd_idmap_add(struct pd_idmap *m, uint64_t key, void *value);
pd_status pd_idmap_put(struct pd_idmap *m, uint64_t key, void *value, void **old);
void *pd_idmap_remove(struct pd_idmap *m, uint64_t key);
bool pd_idmap_next(const struct pd_idmap *m, size_t *cursor, uint64_t *key, void **value);

#endif
