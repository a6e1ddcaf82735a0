/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that look like a model's keys and values, in the types of KV. */
#include "main/pdbench_kv.h"

#include <math.h>
#include <string.h>

#include "base/str.h"

/* Of a model of some eight billion parameters, with fewer layers. */
enum { LAYERS = 8, HEADS = 8, DIM = 128, TOKENS = 16, CHANNELS = HEADS * DIM };

static const struct {
    const char *name;
    uint32_t dtype, width;
} types[] = {
    { "f32", PD_DTYPE_F32, 4 }, { "f16", PD_DTYPE_F16, 2 }, { "bf16", PD_DTYPE_BF16, 2 }, { "f8", PD_DTYPE_F8_E4M3, 1 },
};
#define TYPES (sizeof types / sizeof types[0])

uint32_t pdbench_kv_dtype(struct pd_str name)
{
    for (size_t i = 0; i < TYPES; i++)
        if (pd_str_is(name, types[i].name))
            return types[i].dtype;
    return 0;
}

const char *pdbench_kv_dtype_name(uint32_t dtype)
{
    return types[dtype - 1].name;
}

uint32_t pdbench_kv_width(uint32_t dtype)
{
    return types[dtype - 1].width;
}

const char *pdbench_kv_order_name(uint32_t order)
{
    return order == PD_KV_BLOCK_LAYER ? "block_layer" : "layer_block";
}

static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* To the nearest number with so many bits of exponent and mantissa, the even
 * one of two; what is too large becomes the largest. */
static uint32_t narrow(float f, int exponent, int mantissa, uint32_t largest)
{
    uint32_t u = float_bits(f), sign = u >> 31, bias = (1u << (exponent - 1)) - 1;
    int e = (int)(u >> 23 & 255) - 127;
    uint32_t m = (u & 0x7fffff) | 0x800000, out;
    int shift = 23 - mantissa, least = 1 - (int)bias;
    if (e < least)
        shift += least - e;
    if (shift > 24)
        return sign << (exponent + mantissa);
    m += (1u << (shift - 1)) - 1 + (m >> shift & 1);
    m >>= shift;
    out = e < least ? m : (uint32_t)(e - least) * (1u << mantissa) + m;
    return sign << (exponent + mantissa) | (out > largest ? largest : out);
}

static float widen(uint32_t u, int exponent, int mantissa)
{
    uint32_t e = u >> mantissa & ((1u << exponent) - 1), m = u & ((1u << mantissa) - 1);
    int bias = (1 << (exponent - 1)) - 1;
    float f = e == 0 ? ldexpf((float)m, 1 - bias - mantissa) : ldexpf((float)(m | 1u << mantissa), (int)e - bias - mantissa);
    return u >> (exponent + mantissa) & 1 ? -f : f;
}

static void element_put(uint8_t *to, uint32_t dtype, float f)
{
    uint32_t u = dtype == PD_DTYPE_F32 ? float_bits(f) : dtype == PD_DTYPE_F16 ? narrow(f, 5, 10, 0x7bff)
                 : dtype == PD_DTYPE_BF16 ? narrow(f, 8, 7, 0x7f7f) : narrow(f, 4, 3, 0x7e);
    for (uint32_t i = 0; i < pdbench_kv_width(dtype); i++)
        to[i] = (uint8_t)(u >> 8 * i);
}

static float element_get(const uint8_t *p, uint32_t dtype)
{
    uint32_t u = 0;
    float f;
    for (uint32_t i = 0; i < pdbench_kv_width(dtype); i++)
        u |= (uint32_t)p[i] << 8 * i;
    if (dtype == PD_DTYPE_F32) {
        memcpy(&f, &u, sizeof f);
        return f;
    }
    return dtype == PD_DTYPE_F16 ? widen(u, 5, 10) : dtype == PD_DTYPE_BF16 ? widen(u, 8, 7) : widen(u, 4, 3);
}

static uint32_t chance(uint64_t *x)
{
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*x >> 33);
}

/* A sum of four: near enough to normal. */
static float normal(uint64_t *x)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)chance(x) / 2147483648.0f - 0.5f;
    return sum * 1.7320508f;
}

struct channel {
    float middle, size;
};

static void channels_make(struct channel *c, uint32_t layer, bool is_key)
{
    uint64_t x = 77 + 2 * layer + is_key;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        float size = expf(0.5f * normal(&x)) * (is_key ? 1.0f : 0.4f);
        bool is_large = is_key && chance(&x) % 32 == 0;
        c[i] = (struct channel){ (is_large ? 8.0f : 0.3f) * size * normal(&x), is_large ? 2 * size : size };
    }
}

void pdbench_kv_make(void *to, uint64_t bytes, uint32_t dtype, uint32_t order)
{
    static struct channel table[LAYERS][2][CHANNELS];
    uint64_t width = pdbench_kv_width(dtype), run = (uint64_t)TOKENS * CHANNELS * width, x = 1;
    uint64_t blocks = bytes / (run * 2 * LAYERS) + 1;
    for (uint32_t l = 0; l < LAYERS; l++)
        for (uint32_t k = 0; k < 2; k++)
            channels_make(table[l][k], l, k == 0);
    for (uint64_t at = 0; at + width <= bytes; at += width) {
        uint64_t part = at / run;           /* of one layer's K or V of a block */
        uint64_t which = order == PD_KV_BLOCK_LAYER ? part % (2 * LAYERS) : part / blocks % (2 * LAYERS);
        const struct channel *c = &table[which / 2][which % 2][at / width % CHANNELS];
        element_put((uint8_t *)to + at, dtype, c->middle + c->size * normal(&x));
    }
}

struct pdbench_kv_error pdbench_kv_compare(const void *want, const void *got, uint64_t bytes, uint32_t dtype)
{
    uint64_t width = pdbench_kv_width(dtype);
    double most = 0, value = 0, off = 0, squares = 0;
    for (uint64_t at = 0; at + width <= bytes; at += width) {
        double a = element_get((const uint8_t *)want + at, dtype), b = element_get((const uint8_t *)got + at, dtype);
        double d = fabs(a - b);
        most = d > most ? d : most;
        value = fabs(a) > value ? fabs(a) : value;
        off += d * d;
        squares += a * a;
    }
    return (struct pdbench_kv_error){ value > 0 ? most / value : 0, squares > 0 ? sqrt(off / squares) : 0 };
}
