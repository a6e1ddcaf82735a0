/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-2-4-128 as published by its authors; little-endian result words. */
#include "hash.h"

static inline uint64_t le64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline uint64_t rotl(uint64_t x, int b)
{
    return x << b | x >> (64 - b);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static inline void absorb(uint64_t v[4], uint64_t m)
{
    v[3] ^= m;
    sip_round(v);
    sip_round(v);
    v[0] ^= m;
}

static uint64_t finish(uint64_t v[4])
{
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct eng_hash eng_siphash(const uint8_t key[16], const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t k0 = le64(key), k1 = le64(key + 8), last = (uint64_t)(n & 0xff) << 56;
    uint64_t v[4] = { k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du ^ 0xee,
                      k0 ^ 0x6c7967656e657261u, k1 ^ 0x7465646279746573u };
    struct eng_hash h;

    for (size_t i = 0; i < n / 8; i++)
        absorb(v, le64(p + 8 * i));
    for (size_t i = 0; i < n % 8; i++)
        last |= (uint64_t)p[n / 8 * 8 + i] << (8 * i);
    absorb(v, last);
    v[2] ^= 0xee;
    h.lo = finish(v);
    v[1] ^= 0xdd;
    h.hi = finish(v);
    return h;
}
