/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator's chance (xoshiro256**, the same on every machine) and its byte
 * rings, which grow by doubling and give big memory back when they are empty:
 * thousands of idle connections cost little. */
#include "loop/sim_impl.h"

#include <string.h>

enum { RING_MIN = 1024, RING_KEEP = 16384 };

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

void pd_loop_sim_rng_seed(struct sim_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
}

uint64_t pd_loop_sim_rng_next(struct sim_rng *r)
{
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t pd_loop_sim_rng_below(struct sim_rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, v;

    do
        v = pd_loop_sim_rng_next(r);
    while (v >= limit);
    return v % n;
}

static pd_status grow(struct sim_ring *r, size_t need)
{
    size_t size = r->size != 0 ? r->size : RING_MIN;
    uint8_t *p;

    while (size < need)
        size *= 2;
    p = pd_alloc(size);
    if (p == NULL)
        return PD_ENOMEM;
    if (r->fill > 0)
        pd_loop_sim_ring_peek(r, 0, p, r->fill);
    pd_free(r->p);
    r->p = p;
    r->size = size;
    r->head = 0;
    return PD_OK;
}

pd_status pd_loop_sim_ring_put(struct sim_ring *r, const void *data, size_t n)
{
    size_t at, first;

    if (n == 0)
        return PD_OK;
    if (r->fill + n > r->size && grow(r, r->fill + n) != PD_OK)
        return PD_ENOMEM;
    at = (r->head + r->fill) & (r->size - 1);
    first = PD_MIN(n, r->size - at);
    memcpy(r->p + at, data, first);
    memcpy(r->p, (const uint8_t *)data + first, n - first);
    r->fill += n;
    return PD_OK;
}

void pd_loop_sim_ring_peek(const struct sim_ring *r, size_t at, void *out, size_t n)
{
    size_t from, first;

    if (n == 0)
        return;
    pd_assert(at + n <= r->fill);
    from = (r->head + at) & (r->size - 1);
    first = PD_MIN(n, r->size - from);
    memcpy(out, r->p + from, first);
    memcpy((uint8_t *)out + first, r->p, n - first);
}

void pd_loop_sim_ring_drop(struct sim_ring *r, size_t n)
{
    pd_assert(n <= r->fill);
    if (n == 0)
        return;
    r->head = (r->head + n) & (r->size - 1);
    r->fill -= n;
    if (r->fill == 0) {
        r->head = 0;
        if (r->size > RING_KEEP)
            pd_loop_sim_ring_free(r);
    }
}

void pd_loop_sim_ring_free(struct sim_ring *r)
{
    pd_free(r->p);
    memset(r, 0, sizeof *r);
}

pd_status pd_loop_sim_ring_copy(struct sim_ring *to, const struct sim_ring *from, size_t at,
                                size_t n, bool flip, struct sim_rng *rng)
{
    uint8_t buf[4096];
    size_t victim = flip && n > 0 ? (size_t)pd_loop_sim_rng_below(rng, n) : n;

    if (to->fill + n > to->size && grow(to, to->fill + n) != PD_OK)
        return PD_ENOMEM;
    for (size_t done = 0; done < n;) {
        size_t part = PD_MIN(n - done, sizeof buf);
        pd_loop_sim_ring_peek(from, at + done, buf, part);
        if (victim >= done && victim < done + part)
            buf[victim - done] ^= (uint8_t)(1u << pd_loop_sim_rng_below(rng, 8));
        pd_loop_sim_ring_put(to, buf, part);
        done += part;
    }
    return PD_OK;
}
