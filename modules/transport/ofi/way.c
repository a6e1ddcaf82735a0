/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the memory of another node.  Each way has an endpoint of its own, so
 * that closing it ends every read of it, whatever the other side does. */
#include "fabric_in.h"

#include <stdlib.h>
#include <string.h>

struct pd_ofi_get {
    struct fi_context2 context;   /* the provider's; first, so that it names the get */
    TAILQ_ENTRY(pd_ofi_get) link; /* in flying or spare */
    void *get;
};

/* An address is a format, 4 bytes little-endian, and a name; both must be like
 * our own, for libfabric takes a name without its length. */
pd_status pd_ofi_way_open(struct pd_xp_fabric *f, const void *address, size_t len,
                          const struct pd_addr *host, struct pd_xp_far *far,
                          struct pd_xp_way **out)
{
    struct ofi *o = (struct ofi *)f;
    const uint8_t *p = address;
    struct pd_xp_way *way;
    int64_t rc;

    (void)host;
    if (len != 4 + o->name_len ||
        (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24) !=
            o->info->addr_format)
        return PD_EPROTO;
    if (!pd_ofi_has_descriptors())
        return PD_ELIMIT;
    way = calloc(1, sizeof(*way));
    if (way == NULL)
        return PD_ENOMEM;
    way->o = o;
    way->far = far;
    way->end.way = way;
    TAILQ_INIT(&way->flying);
    TAILQ_INIT(&way->spare);
    rc = pd_ofi_end_open(o, &way->end);
    if (rc == 0) {
        rc = fi_av_insert(way->end.av, p + 4, 1, &way->to, 0, NULL);
        rc = rc == 1 ? 0 : rc == 0 ? -FI_EINVAL : rc;
        if (rc != 0)
            pd_ofi_end_close(&way->end);
    }
    if (rc != 0) {
        free(way);
        return pd_ofi_status(rc);
    }
    TAILQ_INSERT_TAIL(&o->ways, way, link);
    pd_ofi_again(o);
    *out = way;
    return PD_OK;
}

void pd_ofi_way_close(struct pd_xp_way *way)
{
    pd_ofi_end_close(&way->end);
    way->is_closed = true;
    pd_ofi_again(way->o);
}

static void free_gets(struct pd_ofi_gets *list)
{
    struct pd_ofi_get *g;

    while ((g = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, g, link);
        free(g);
    }
}

void pd_ofi_ways_tell(struct ofi *o)
{
    struct pd_xp_way *way, *next;
    struct pd_ofi_get *g;

    for (way = TAILQ_FIRST(&o->ways); way != NULL; way = next) {
        next = TAILQ_NEXT(way, link);
        if (!way->is_closed)
            continue;
        TAILQ_FOREACH(g, &way->flying, link)
        pd_xp_far_got(g->get, PD_EPEER);
        free_gets(&way->flying);
        free_gets(&way->spare);
        TAILQ_REMOVE(&o->ways, way, link);
        pd_xp_far_closed(way->far);
        free(way);
    }
}

/* The key and the address that reads count from, 8 bytes each, little-endian. */
pd_status pd_ofi_key_open(struct pd_xp_way *way, const void *key, size_t len, uint64_t bytes,
                          struct pd_xp_key **out)
{
    const uint8_t *p = key;
    struct pd_xp_key *k;

    (void)way;
    if (len != 16)
        return PD_EPROTO;
    k = calloc(1, sizeof(*k));
    if (k == NULL)
        return PD_ENOMEM;
    for (uint32_t i = 0; i < 8; i++) {
        k->key |= (uint64_t)p[i] << 8 * i;
        k->base |= (uint64_t)p[8 + i] << 8 * i;
    }
    if (k->base > UINT64_MAX - bytes) {
        free(k);
        return PD_EPROTO;
    }
    *out = k;
    return PD_OK;
}

void pd_ofi_key_close(struct pd_xp_key *key)
{
    free(key);
}

pd_status pd_ofi_get(struct pd_xp_way *way, struct pd_xp_key *key, uint64_t offset, void *to,
                     struct pd_xp_region *r, size_t len, void *get, bool *done)
{
    struct pd_ofi_get *g = TAILQ_FIRST(&way->spare);
    int64_t rc;

    (void)done;
    if (g != NULL)
        TAILQ_REMOVE(&way->spare, g, link);
    else if ((g = malloc(sizeof(*g))) == NULL)
        return PD_ENOMEM;
    g->get = get;
    rc = fi_read(way->end.ep, to, len, fi_mr_desc(r->mr), way->to, key->base + offset, key->key,
                 &g->context);
    if (rc != 0) {
        TAILQ_INSERT_HEAD(&way->spare, g, link);
        if (rc != -FI_EAGAIN)
            return pd_ofi_status(rc);
        pd_counter_inc(way->o->again);
        way->o->wants_room = true;
        pd_ofi_again(way->o);
        return PD_EAGAIN;
    }
    TAILQ_INSERT_TAIL(&way->flying, g, link);
    pd_counter_inc(way->o->reads);
    pd_ofi_again(way->o);
    return PD_OK;
}

void pd_ofi_got(struct pd_xp_way *way, void *context, pd_status status)
{
    struct pd_ofi_get *g = context;

    way->is_up = true;
    TAILQ_REMOVE(&way->flying, g, link);
    TAILQ_INSERT_HEAD(&way->spare, g, link);
    pd_xp_far_got(g->get, status);
}
