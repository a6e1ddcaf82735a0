/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C with the processor's instruction where there is one: three runs at a
 * time, because the instruction has a latency of three cycles, joined by tables
 * that advance a checksum over a run of zero bytes.  Without the instruction:
 * eight bytes at a time from tables. */
#include "crc.h"

#include <string.h>

#define POLY 0x82f63b78u
#define RUN_LONG 8192u
#define RUN_SHORT 256u

static uint32_t times(const uint32_t *matrix, uint32_t v)
{
    uint32_t sum = 0;
    for (; v != 0; v >>= 1, matrix++)
        if (v & 1)
            sum ^= *matrix;
    return sum;
}

static void square(uint32_t *out, const uint32_t *matrix)
{
    for (int i = 0; i < 32; i++)
        out[i] = times(matrix, matrix[i]);
}

/* Tables that advance a checksum over `len` zero bytes; len is a power of two. */
static void zeros(uint32_t table[4][256], uint32_t len)
{
    uint32_t even[32], odd[32];

    odd[0] = POLY;
    for (uint32_t i = 1; i < 32; i++)
        odd[i] = 1u << (i - 1);
    square(even, odd);          /* two bits */
    square(odd, even);          /* four bits */
    do {
        square(even, odd);
        len >>= 1;
        if (len == 0) {
            memcpy(odd, even, sizeof(odd));
            break;
        }
        square(odd, even);
        len >>= 1;
    } while (len != 0);
    for (uint32_t n = 0; n < 256; n++)
        for (uint32_t k = 0; k < 4; k++)
            table[k][n] = times(odd, n << (8 * k));
}

void pd_xp_crc_init(struct pd_xp_crc *c)
{
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t v = n;
        for (int k = 0; k < 8; k++)
            v = v & 1 ? v >> 1 ^ POLY : v >> 1;
        c->table[0][n] = v;
    }
    for (uint32_t n = 0; n < 256; n++)
        for (int k = 1; k < 8; k++)
            c->table[k][n] = c->table[0][c->table[k - 1][n] & 0xff] ^ c->table[k - 1][n] >> 8;
    zeros(c->shift_long, RUN_LONG);
    zeros(c->shift_short, RUN_SHORT);
    c->hardware = false;
#if defined(__x86_64__)
    c->hardware = __builtin_cpu_supports("sse4.2") != 0;
#endif
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

uint32_t pd_xp_crc_portable(const struct pd_xp_crc *c, uint32_t crc, const void *p, size_t n)
{
    const uint8_t *b = p;

    crc = ~crc;
    for (; n >= 8; n -= 8, b += 8) {
        uint32_t lo = crc ^ ((uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 |
                             (uint32_t)b[3] << 24);
        crc = c->table[7][lo & 0xff] ^ c->table[6][lo >> 8 & 0xff] ^ c->table[5][lo >> 16 & 0xff] ^
              c->table[4][lo >> 24] ^ c->table[3][b[4]] ^ c->table[2][b[5]] ^ c->table[1][b[6]] ^
              c->table[0][b[7]];
    }
    for (; n > 0; n--, b++)
        crc = c->table[0][(crc ^ *b) & 0xff] ^ crc >> 8;
    return ~crc;
}

#if defined(__x86_64__)
static uint64_t shift(const uint32_t table[4][256], uint64_t crc)
{
    return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^
           table[3][crc >> 24 & 0xff];
}

__attribute__((target("sse4.2"))) static const uint8_t *
three(const uint32_t table[4][256], uint64_t *crc, const uint8_t *b, size_t run)
{
    uint64_t crc0 = *crc, crc1 = 0, crc2 = 0;
    const uint8_t *end = b + run;

    for (; b < end; b += 8) {
        crc0 = __builtin_ia32_crc32di(crc0, load64(b));
        crc1 = __builtin_ia32_crc32di(crc1, load64(b + run));
        crc2 = __builtin_ia32_crc32di(crc2, load64(b + 2 * run));
    }
    crc0 = shift(table, crc0) ^ crc1;
    *crc = shift(table, crc0) ^ crc2;
    return b + 2 * run;
}

__attribute__((target("sse4.2"))) static uint32_t hardware(const struct pd_xp_crc *c, uint32_t crc,
                                                           const uint8_t *b, size_t n)
{
    uint64_t v = (uint32_t)~crc;

    for (; n >= 3 * RUN_LONG; n -= 3 * RUN_LONG)
        b = three(c->shift_long, &v, b, RUN_LONG);
    for (; n >= 3 * RUN_SHORT; n -= 3 * RUN_SHORT)
        b = three(c->shift_short, &v, b, RUN_SHORT);
    for (; n >= 8; n -= 8, b += 8)
        v = __builtin_ia32_crc32di(v, load64(b));
    for (; n > 0; n--, b++)
        v = __builtin_ia32_crc32qi((uint32_t)v, *b);
    return ~(uint32_t)v;
}
#endif

uint32_t pd_xp_crc(const struct pd_xp_crc *c, uint32_t crc, const void *p, size_t n)
{
#if defined(__x86_64__)
    if (c->hardware)
        return hardware(c, crc, p, n);
#endif
    return pd_xp_crc_portable(c, crc, p, n);
}
