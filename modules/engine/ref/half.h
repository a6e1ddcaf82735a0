/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian loads and conversions between f32 and f16, by integer
 * operations only so that every machine gives the same bits. */
#ifndef REF_HALF_H
#define REF_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint16_t ref_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t ref_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t ref_le64(const uint8_t *p)
{
    return (uint64_t)ref_le32(p) | (uint64_t)ref_le32(p + 4) << 32;
}

static inline float ref_bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline uint32_t ref_float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

/* Exact. */
static inline float ref_half_to_float(uint16_t h)
{
    uint32_t em = h & 0x7fffu;
    uint32_t u = ref_float_bits(ref_bits_float(em << 13) * 0x1p112f);
    if (em >= 0x7c00)
        u = 0x7f800000u | em << 13;
    return ref_bits_float(u | (uint32_t)(h & 0x8000u) << 16);
}

/* To nearest, ties to even; too large becomes infinite. */
static inline uint16_t ref_float_to_half(float f)
{
    uint32_t u = ref_float_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x47800000u)
        return (uint16_t)(sign | 0x7c00u);
    if (a >= 0x38800000u)       /* normal in f16; a carry may reach infinity, as it should */
        return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13));
    if (a < 0x33000000u)
        return (uint16_t)sign;
    uint32_t shift = 126u - (a >> 23), m = (a & 0x7fffffu) | 0x800000u;
    uint32_t q = m >> shift, rest = m & ((1u << shift) - 1u), mid = 1u << (shift - 1u);
    return (uint16_t)(sign | (q + (rest > mid || (rest == mid && (q & 1u)))));
}

#endif
