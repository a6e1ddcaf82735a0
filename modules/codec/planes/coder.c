/* SPDX-License-Identifier: Apache-2.0 */
/* A plane is worth compressing when its bytes are not spread evenly, which a
 * look at some of them tells; the planes of mantissas are, so they cost a copy
 * and no more.  KV does not repeat itself, so zstd is told hardly
 * to look for repetitions; what remains is its Huffman coder. */
#include "coder.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "split.h"

#define HEAD 4u
#define WORD 4u
#define AS_IT_IS 0x80000000u
#define SAMPLE 2048u            /* bytes that are looked at */
#define WORTH 140u              /* two bytes are equal at least once in so many pairs; 256: all noise */

struct planes_coder {
    ZSTD_CCtx *c;
    ZSTD_DCtx *d;
    uint8_t planes[PLANES_CHUNK];
    uint8_t packed[PLANES_CHUNK];   /* one plane: what becomes of it does not depend on the room */
};

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool set(ZSTD_CCtx *c, ZSTD_cParameter what, int value)
{
    return !ZSTD_isError(ZSTD_CCtx_setParameter(c, what, value));
}

static bool configure(ZSTD_CCtx *c)
{
    return set(c, ZSTD_c_contentSizeFlag, 0) && set(c, ZSTD_c_checksumFlag, 0) &&
           set(c, ZSTD_c_compressionLevel, 1) && set(c, ZSTD_c_strategy, ZSTD_fast) &&
           set(c, ZSTD_c_minMatch, 7) && set(c, ZSTD_c_hashLog, 6);
}

/* zstd makes its tables when it is used for the first time. */
static bool warm_up(struct planes_coder *c)
{
    size_t cap = ZSTD_compressBound(PLANES_CHUNK), n;
    uint8_t *out = malloc(cap);
    uint32_t x = 1;
    bool ok = out != NULL;

    for (size_t i = 0; i < PLANES_CHUNK; i++) {
        x = x * 1664525u + 1013904223u;
        c->planes[i] = (uint8_t)(x >> 24 & x >> 16);
    }
    n = ok ? ZSTD_compress2(c->c, out, cap, c->planes, PLANES_CHUNK) : 0;
    ok = ok && !ZSTD_isError(n) &&
         ZSTD_decompressDCtx(c->d, c->planes, PLANES_CHUNK, out, n) == PLANES_CHUNK;
    free(out);
    return ok;
}

pd_status planes_coder_open(struct planes_coder **out)
{
    struct planes_coder *c = malloc(sizeof(*c));

    if (c == NULL)
        return PD_ENOMEM;
    c->c = ZSTD_createCCtx();
    c->d = ZSTD_createDCtx();
    if (c->c == NULL || c->d == NULL || !configure(c->c) || !warm_up(c)) {
        planes_coder_close(c);
        return PD_ENOMEM;
    }
    *out = c;
    return PD_OK;
}

void planes_coder_close(struct planes_coder *c)
{
    ZSTD_freeCCtx(c->c);
    ZSTD_freeDCtx(c->d);
    free(c);
}

uint64_t planes_bound(uint64_t n)
{
    return HEAD + n + 4 * WORD * (n / PLANES_CHUNK + 1);
}

/* Looks at bytes from all over the plane: how often are two of them equal? */
static bool is_worth(const uint8_t *p, size_t n)
{
    uint32_t count[256] = { 0 };
    uint64_t m = 0, equal = 0;
    size_t step = n / SAMPLE + 1;

    for (size_t i = 0; i < n; i += step, m++)
        count[p[i]]++;
    for (int i = 0; i < 256; i++)
        if (count[i] > 0)
            equal += (uint64_t)count[i] * (count[i] - 1);
    return equal * WORTH >= m * (m - 1);
}

/* One plane with its word; the bytes it took, 0: no room. */
static size_t put_plane(struct planes_coder *c, const uint8_t *p, size_t n, uint8_t *out, size_t cap)
{
    size_t most = n - n / 32, k;

    if (cap < WORD)
        return 0;
    cap -= WORD;
    if (n >= 64 && is_worth(p, n)) {
        k = ZSTD_compress2(c->c, c->packed, most, p, n);
        if (!ZSTD_isError(k)) {
            if (cap < k)
                return 0;
            put32(out, (uint32_t)k);
            memcpy(out + WORD, c->packed, k);
            return WORD + k;
        }
    }
    if (cap < n)
        return 0;
    put32(out, (uint32_t)n | AS_IT_IS);
    memcpy(out + WORD, p, n);
    return WORD + n;
}

pd_status planes_encode(struct planes_coder *c, uint32_t width, const uint8_t *in, size_t n, uint8_t *out,
                        size_t cap, size_t *len)
{
    size_t at = HEAD, whole = n - n % width;

    if (n == 0 || n > PLANES_MAX)
        return PD_EINVAL;
    if (cap < HEAD)
        return PD_ELIMIT;
    out[0] = 'P';
    out[1] = PLANES_FORMAT;
    out[2] = (uint8_t)width;
    out[3] = 0;
    for (size_t from = 0; from < whole; from += PLANES_CHUNK) {
        size_t run = whole - from < PLANES_CHUNK ? whole - from : PLANES_CHUNK, count = run / width;
        planes_split(width, in + from, count, c->planes);
        for (uint32_t p = 0; p < width; p++) {
            size_t took = put_plane(c, c->planes + p * count, count, out + at, cap - at);
            if (took == 0)
                return PD_ELIMIT;
            at += took;
        }
    }
    if (cap - at < n - whole)
        return PD_ELIMIT;
    memcpy(out + at, in + whole, n - whole);
    *len = at + (n - whole);
    return PD_OK;
}

/* Finds one plane of `count` bytes; the bytes it took of in, 0: it is damaged. */
static size_t get_plane(struct planes_coder *c, const uint8_t *in, size_t n, size_t count, uint8_t *room,
                        const uint8_t **plane)
{
    uint32_t word;
    size_t k;

    if (n < WORD)
        return 0;
    word = get32(in);
    k = word & ~AS_IT_IS;
    if (k == 0 || k > n - WORD)
        return 0;
    if ((word & AS_IT_IS) != 0) {
        *plane = in + WORD;
        return k == count ? WORD + k : 0;
    }
    *plane = room;
    return ZSTD_decompressDCtx(c->d, room, count, in + WORD, k) == count ? WORD + k : 0;
}

pd_status planes_decode(struct planes_coder *c, const uint8_t *in, size_t n, uint8_t *out, size_t bytes)
{
    size_t at = HEAD, whole;
    uint32_t width;

    if (n < HEAD || bytes == 0 || in[0] != 'P' || in[1] != PLANES_FORMAT || in[3] != 0)
        return PD_EINTEGRITY;
    width = in[2];
    if (width != 1 && width != 2 && width != 4)
        return PD_EINTEGRITY;
    whole = bytes - bytes % width;
    for (size_t to = 0; to < whole; to += PLANES_CHUNK) {
        size_t run = whole - to < PLANES_CHUNK ? whole - to : PLANES_CHUNK, count = run / width;
        const uint8_t *plane[4];
        for (uint32_t p = 0; p < width; p++) {
            size_t took = get_plane(c, in + at, n - at, count, c->planes + p * count, &plane[p]);
            if (took == 0)
                return PD_EINTEGRITY;
            at += took;
        }
        planes_merge(width, plane, count, out + to);
    }
    if (n - at != bytes - whole)
        return PD_EINTEGRITY;
    memcpy(out + whole, in + at, bytes - whole);
    return PD_OK;
}
