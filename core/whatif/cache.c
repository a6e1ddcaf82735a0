/* SPDX-License-Identifier: Apache-2.0 */
#include "whatif/cache.h"

#include "base/mem.h"

#define SLAB_BLOCKS 1024u
#define BLOCKS_MAX (1u << 28)

struct block {
    struct pd_list link;
    uint64_t hash;
};

struct slab {
    struct pd_list link;
    struct block blocks[SLAB_BLOCKS];
};

void pd_whatif_cache_init(struct pd_whatif_cache *c)
{
    pd_idmap_init(&c->map, BLOCKS_MAX, 0);
    pd_list_init(&c->used);
    pd_list_init(&c->spare);
    pd_list_init(&c->slabs);
    c->n = 0;
}

void pd_whatif_cache_fini(struct pd_whatif_cache *c)
{
    pd_idmap_fini(&c->map);
    PD_LIST_EACH_SAFE(&c->slabs, link)
        pd_free(PD_LIST_ENTRY(link, struct slab, link));
    pd_whatif_cache_init(c);
}

/* The first block of a prompt must outlive the others, so it is used last. */
static void use(struct pd_whatif_cache *c, struct block *b)
{
    pd_list_remove(&b->link);
    pd_list_append(&c->used, &b->link);
}

uint32_t pd_whatif_cache_match(struct pd_whatif_cache *c, const uint64_t *hashes, uint32_t n)
{
    uint32_t found = 0;
    while (found < n && pd_idmap_get(&c->map, hashes[found]) != NULL)
        found++;
    for (uint32_t i = found; i-- > 0;)
        use(c, pd_idmap_get(&c->map, hashes[i]));
    return found;
}

static struct block *block_new(struct pd_whatif_cache *c)
{
    if (pd_list_is_empty(&c->spare)) {
        struct slab *s = pd_alloc(sizeof *s);
        if (s == NULL)
            return NULL;
        pd_list_append(&c->slabs, &s->link);
        for (uint32_t i = 0; i < SLAB_BLOCKS; i++)
            pd_list_append(&c->spare, &s->blocks[i].link);
    }
    return PD_LIST_ENTRY(pd_list_pop(&c->spare), struct block, link);
}

void pd_whatif_cache_trim(struct pd_whatif_cache *c, uint64_t most)
{
    while (c->n > most) {
        struct block *b = PD_LIST_ENTRY(pd_list_pop(&c->used), struct block, link);
        pd_idmap_remove(&c->map, b->hash);
        pd_list_append(&c->spare, &b->link);
        c->n--;
    }
}

pd_status pd_whatif_cache_add(struct pd_whatif_cache *c, const uint64_t *hashes, uint32_t n, uint64_t most)
{
    for (uint32_t i = n < most ? n : (uint32_t)most; i-- > 0;) {
        struct block *b = pd_idmap_get(&c->map, hashes[i]);
        if (b == NULL) {
            b = block_new(c);
            if (b == NULL || pd_idmap_add(&c->map, hashes[i], b) != PD_OK) {
                if (b != NULL)
                    pd_list_append(&c->spare, &b->link);
                return PD_ENOMEM;
            }
            b->hash = hashes[i];
            c->n++;
        }
        use(c, b);
    }
    pd_whatif_cache_trim(c, most);
    return PD_OK;
}
