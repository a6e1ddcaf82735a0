/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing with linear probing.  A removed slot stays behind as a mark
 * until the next rebuild, so that a cursor survives removals; at most three
 * quarters of the slots are used, so every probe ends at an empty one. */
#include "base/map.h"

#include "base/compiler.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#define FIRST_SLOTS 16

/* Values of slots whose member was removed point here. */
static const char removed_mark;
#define REMOVED ((void *)(uintptr_t)&removed_mark)

/* Slots to have for n members plus one; 0 when that overflows. */
static size_t slots_for(size_t n)
{
    size_t cap = FIRST_SLOTS;
    if (n > SIZE_MAX / 64)
        return 0;
    while (cap / 4 * 3 <= n + n / 2)
        cap *= 2;
    return cap;
}

static bool is_crowded(size_t used, size_t cap)
{
    return used + 1 > cap / 4 * 3;
}

void pd_strmap_init(struct pd_strmap *m, size_t max, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->max = max;
    m->seed = seed;
}

void pd_strmap_fini(struct pd_strmap *m)
{
    for (size_t i = 0; i < m->cap; i++)
        pd_free(m->slots[i].key);
    pd_free(m->slots);
    pd_strmap_init(m, m->max, m->seed);
}

static struct pd_strmap_slot *str_find(const struct pd_strmap *m, struct pd_str key, uint64_t hash)
{
    if (m->cap == 0)
        return NULL;
    for (size_t i = (size_t)hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct pd_strmap_slot *slot = &m->slots[i];
        if (slot->value == NULL)
            return NULL;
        if (slot->key != NULL && slot->hash == hash &&
            pd_str_eq(key, pd_str_of(slot->key, slot->key_len)))
            return slot;
    }
}

static pd_status str_rebuild(struct pd_strmap *m)
{
    size_t cap = slots_for(m->n);
    struct pd_strmap_slot *slots =
        cap == 0 ? NULL : (struct pd_strmap_slot *)pd_calloc(cap, sizeof *slots);
    if (slots == NULL)
        return PD_ENOMEM;
    for (size_t i = 0; i < m->cap; i++) {
        if (m->slots[i].key == NULL)
            continue;
        size_t at = (size_t)m->slots[i].hash & (cap - 1);
        while (slots[at].value != NULL)
            at = (at + 1) & (cap - 1);
        slots[at] = m->slots[i];
    }
    pd_free(m->slots);
    m->slots = slots;
    m->cap = cap;
    m->used = m->n;
    return PD_OK;
}

void *pd_strmap_get(const struct pd_strmap *m, struct pd_str key)
{
    struct pd_strmap_slot *slot =
        m->n == 0 ? NULL : str_find(m, key, pd_hash64(key.p, key.n, m->seed));
    return slot == NULL ? NULL : slot->value;
}

static pd_status str_insert(struct pd_strmap *m, struct pd_str key, uint64_t hash, void *value)
{
    if (m->n >= m->max)
        return PD_ELIMIT;
    if (is_crowded(m->used, m->cap)) {
        pd_status status = str_rebuild(m);
        if (status != PD_OK)
            return status;
    }
    char *copy = pd_str_dup(key);
    if (copy == NULL)
        return PD_ENOMEM;
    size_t at = (size_t)hash & (m->cap - 1);
    while (m->slots[at].value != NULL && m->slots[at].key != NULL)
        at = (at + 1) & (m->cap - 1);
    if (m->slots[at].value == NULL)
        m->used++;
    m->slots[at] = (struct pd_strmap_slot){ hash, copy, key.n, value };
    m->n++;
    return PD_OK;
}

pd_status pd_strmap_add(struct pd_strmap *m, struct pd_str key, void *value)
{
    pd_assert(value != NULL);
    uint64_t hash = pd_hash64(key.p, key.n, m->seed);
    if (str_find(m, key, hash) != NULL)
        return PD_EEXIST;
    return str_insert(m, key, hash, value);
}

pd_status pd_strmap_put(struct pd_strmap *m, struct pd_str key, void *value, void **old)
{
    pd_assert(value != NULL);
    uint64_t hash = pd_hash64(key.p, key.n, m->seed);
    struct pd_strmap_slot *slot = str_find(m, key, hash);
    void *before = NULL;
    if (slot != NULL) {
        before = slot->value;
        slot->value = value;
    } else {
        pd_status status = str_insert(m, key, hash, value);
        if (status != PD_OK)
            return status;
    }
    if (old != NULL)
        *old = before;
    return PD_OK;
}

void *pd_strmap_remove(struct pd_strmap *m, struct pd_str key)
{
    struct pd_strmap_slot *slot =
        m->n == 0 ? NULL : str_find(m, key, pd_hash64(key.p, key.n, m->seed));
    if (slot == NULL)
        return NULL;
    void *value = slot->value;
    pd_free(slot->key);
    slot->key = NULL;
    slot->value = REMOVED;
    m->n--;
    return value;
}

bool pd_strmap_next(const struct pd_strmap *m, size_t *cursor, struct pd_str *key, void **value)
{
    for (; *cursor < m->cap; (*cursor)++) {
        const struct pd_strmap_slot *slot = &m->slots[*cursor];
        if (slot->key == NULL)
            continue;
        if (key != NULL)
            *key = pd_str_of(slot->key, slot->key_len);
        if (value != NULL)
            *value = slot->value;
        (*cursor)++;
        return true;
    }
    return false;
}

void pd_idmap_init(struct pd_idmap *m, size_t max, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->max = max;
    m->seed = seed;
}

void pd_idmap_fini(struct pd_idmap *m)
{
    pd_free(m->slots);
    pd_idmap_init(m, m->max, m->seed);
}

static struct pd_idmap_slot *id_find(const struct pd_idmap *m, uint64_t key)
{
    if (m->cap == 0)
        return NULL;
    for (size_t i = (size_t)pd_hash_u64(key, m->seed) & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct pd_idmap_slot *slot = &m->slots[i];
        if (slot->value == NULL)
            return NULL;
        if (slot->key == key && slot->value != REMOVED)
            return slot;
    }
}

static pd_status id_rebuild(struct pd_idmap *m)
{
    size_t cap = slots_for(m->n);
    struct pd_idmap_slot *slots =
        cap == 0 ? NULL : (struct pd_idmap_slot *)pd_calloc(cap, sizeof *slots);
    if (slots == NULL)
        return PD_ENOMEM;
    for (size_t i = 0; i < m->cap; i++) {
        if (m->slots[i].value == NULL || m->slots[i].value == REMOVED)
            continue;
        size_t at = (size_t)pd_hash_u64(m->slots[i].key, m->seed) & (cap - 1);
        while (slots[at].value != NULL)
            at = (at + 1) & (cap - 1);
        slots[at] = m->slots[i];
    }
    pd_free(m->slots);
    m->slots = slots;
    m->cap = cap;
    m->used = m->n;
    return PD_OK;
}

void *pd_idmap_get(const struct pd_idmap *m, uint64_t key)
{
    struct pd_idmap_slot *slot = id_find(m, key);
    return slot == NULL ? NULL : slot->value;
}

static pd_status id_insert(struct pd_idmap *m, uint64_t key, void *value)
{
    if (m->n >= m->max)
        return PD_ELIMIT;
    if (is_crowded(m->used, m->cap)) {
        pd_status status = id_rebuild(m);
        if (status != PD_OK)
            return status;
    }
    size_t at = (size_t)pd_hash_u64(key, m->seed) & (m->cap - 1);
    while (m->slots[at].value != NULL && m->slots[at].value != REMOVED)
        at = (at + 1) & (m->cap - 1);
    if (m->slots[at].value == NULL)
        m->used++;
    m->slots[at] = (struct pd_idmap_slot){ key, value };
    m->n++;
    return PD_OK;
}

pd_status pd_idmap_add(struct pd_idmap *m, uint64_t key, void *value)
{
    pd_assert(value != NULL);
    return id_find(m, key) != NULL ? PD_EEXIST : id_insert(m, key, value);
}

pd_status pd_idmap_put(struct pd_idmap *m, uint64_t key, void *value, void **old)
{
    pd_assert(value != NULL);
    struct pd_idmap_slot *slot = id_find(m, key);
    void *before = NULL;
    if (slot != NULL) {
        before = slot->value;
        slot->value = value;
    } else {
        pd_status status = id_insert(m, key, value);
        if (status != PD_OK)
            return status;
    }
    if (old != NULL)
        *old = before;
    return PD_OK;
}

void *pd_idmap_remove(struct pd_idmap *m, uint64_t key)
{
    struct pd_idmap_slot *slot = id_find(m, key);
    if (slot == NULL)
        return NULL;
    void *value = slot->value;
    slot->value = REMOVED;
    m->n--;
    return value;
}

bool pd_idmap_next(const struct pd_idmap *m, size_t *cursor, uint64_t *key, void **value)
{
    for (; *cursor < m->cap; (*cursor)++) {
        const struct pd_idmap_slot *slot = &m->slots[*cursor];
        if (slot->value == NULL || slot->value == REMOVED)
            continue;
        if (key != NULL)
            *key = slot->key;
        if (value != NULL)
            *value = slot->value;
        (*cursor)++;
        return true;
    }
    return false;
}
