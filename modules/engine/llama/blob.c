/* SPDX-License-Identifier: Apache-2.0 */
/* Sequence blobs.  Invariant: nothing is read or written by a number out of a
 * blob before that number was compared with what it must be. */
#include "blob.h"

#include <string.h>

enum { HEAD = 16, CELL = 12, K_HEAD = 12, V_HEAD_TRANSPOSED = 12 };

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        *p++ = (uint8_t)(v >> (8 * i));
    return p;
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
    return put32(put32(p, (uint32_t)v), (uint32_t)(v >> 32));
}

size_t ll_blob_size(const struct ll_shape *s, uint32_t tokens)
{
    /* heads of K and of V have the same length in both forms */
    return HEAD + (size_t)tokens * CELL + s->middle_bytes +
           (size_t)s->layers * 2 * (K_HEAD + (size_t)tokens * s->row_bytes);
}

uint64_t ll_blob_token_bytes(const struct ll_shape *s)
{
    return (uint64_t)2 * s->layers * s->row_bytes;
}

/* Whether the head of a K or V part is what it must be. */
static bool head_fits(const struct ll_shape *s, const uint8_t *p, bool transposed)
{
    if (get32(p) != s->type)
        return false;
    if (transposed)
        return get32(p + 4) == s->elem_bytes && (uint64_t)get32(p + 8) * s->elem_bytes == s->row_bytes;
    return get64(p + 4) == s->row_bytes;
}

/* Whether the layers behind the cells are of the shape.  The size was compared. */
static bool layers_fit(const struct ll_shape *s, const uint8_t *p, uint32_t tokens)
{
    size_t part = K_HEAD + (size_t)tokens * s->row_bytes;

    for (uint32_t i = 0; i < 2 * s->layers; i++)
        if (!head_fits(s, p + i * part, s->transposed && i >= s->layers))
            return false;
    return true;
}

pd_status ll_blob_learn(const uint8_t *blob, size_t n, uint32_t tokens, uint32_t elem_bytes,
                        struct ll_shape *out)
{
    size_t at = HEAD + (size_t)tokens * CELL;

    if (n < at + LL_BLOB_MIDDLE + K_HEAD || get32(blob + 8) != 1 || get32(blob + 12) != tokens)
        return PD_ENOSYS;
    for (uint32_t middle = 8; middle <= LL_BLOB_MIDDLE; middle += 8) {
        const uint8_t *p = blob + at + middle;
        struct ll_shape s = { .layers = get32(p - 4), .elem_bytes = elem_bytes,
                              .transposed = get32(blob + at) == 1, .magic = get32(blob), .type = get32(p),
                              .middle_bytes = middle };
        uint64_t row = get64(p + 4);
        if (get32(blob + at) > 1 || s.layers == 0 || s.layers > 65536 || row == 0 || row > 1u << 24 ||
            row % elem_bytes != 0)
            continue;
        s.row_bytes = (uint32_t)row;
        memcpy(s.middle, blob + at, middle);
        if (ll_blob_size(&s, tokens) == n && layers_fit(&s, p, tokens)) {
            *out = s;
            return PD_OK;
        }
    }
    return PD_ENOSYS;
}

/* Place of a layer's K (part 0) or V (part 1) of the token at a position. */
static uint8_t *row_of(const struct ll_shape *s, const struct ll_place *p, uint32_t layer, uint32_t part,
                       uint32_t position)
{
    uint8_t *block = p->base + p->blocks[position / p->block_tokens] * p->block_bytes;

    return block + ((2 * (size_t)layer + part) * p->block_tokens + position % p->block_tokens) * s->row_bytes;
}

static uint32_t position_of(const uint8_t *blob, uint32_t cell)
{
    return get32(blob + HEAD + (size_t)cell * CELL);
}

/* How many cells from `cell` on hold neighbours in one block. */
static uint32_t run_of(const struct ll_place *p, const uint8_t *blob, uint32_t cell, uint32_t cells)
{
    uint32_t first = position_of(blob, cell), n = 1;

    while (cell + n < cells && position_of(blob, cell + n) == first + n &&
           (first + n) % p->block_tokens != 0)
        n++;
    return n;
}

static void copy_elem(uint8_t *to, const uint8_t *from, uint32_t bytes)
{
    if (bytes == 2)
        memcpy(to, from, 2);
    else
        memcpy(to, from, 4);
}

static void read_transposed(const struct ll_shape *s, const uint8_t *p, const uint8_t *blob, uint32_t layer,
                            uint32_t tokens, const struct ll_place *to)
{
    uint32_t elems = s->row_bytes / s->elem_bytes;

    for (uint32_t cell = 0; cell < tokens; cell++) {
        uint8_t *row = row_of(s, to, layer, 1, position_of(blob, cell));
        for (uint32_t j = 0; j < elems; j++)
            copy_elem(row + (size_t)j * s->elem_bytes, p + ((size_t)j * tokens + cell) * s->elem_bytes,
                      s->elem_bytes);
    }
}

static void read_rows(const struct ll_shape *s, const uint8_t *p, const uint8_t *blob, uint32_t layer,
                      uint32_t part, uint32_t tokens, const struct ll_place *to)
{
    for (uint32_t cell = 0, n; cell < tokens; cell += n) {
        n = run_of(to, blob, cell, tokens);
        memcpy(row_of(s, to, layer, part, position_of(blob, cell)), p + (size_t)cell * s->row_bytes,
               (size_t)n * s->row_bytes);
    }
}

pd_status ll_blob_read(const struct ll_shape *s, const uint8_t *blob, size_t n, uint32_t from,
                       uint32_t tokens, const struct ll_place *to)
{
    const uint8_t *p = blob + HEAD + (size_t)tokens * CELL;
    size_t part_bytes = K_HEAD + (size_t)tokens * s->row_bytes;

    if (n != ll_blob_size(s, tokens) || get32(blob) != s->magic || get32(blob + 8) != 1 ||
        get32(blob + 12) != tokens || memcmp(p, s->middle, s->middle_bytes) != 0 ||
        !layers_fit(s, p + s->middle_bytes, tokens))
        return PD_EPROTO;
    for (uint32_t cell = 0; cell < tokens; cell++)
        if (position_of(blob, cell) < from || position_of(blob, cell) - from >= tokens)
            return PD_EPROTO;
    p += s->middle_bytes;
    for (uint32_t i = 0; i < 2 * s->layers; i++, p += part_bytes) {
        uint32_t part = i >= s->layers;
        if (part == 1 && s->transposed)
            read_transposed(s, p + V_HEAD_TRANSPOSED, blob, i - s->layers, tokens, to);
        else
            read_rows(s, p + K_HEAD, blob, i - part * s->layers, part, tokens, to);
    }
    return PD_OK;
}

static uint8_t *write_rows(const struct ll_shape *s, const struct ll_place *src, uint32_t layer, uint32_t part,
                           uint32_t from, uint32_t tokens, uint8_t *p)
{
    p = put64(put32(p, s->type), s->row_bytes);
    for (uint32_t at = from, n; at < from + tokens; at += n) {
        n = src->block_tokens - at % src->block_tokens;
        n = n < from + tokens - at ? n : from + tokens - at;
        memcpy(p, row_of(s, src, layer, part, at), (size_t)n * s->row_bytes);
        p += (size_t)n * s->row_bytes;
    }
    return p;
}

static uint8_t *write_transposed(const struct ll_shape *s, const struct ll_place *src, uint32_t layer,
                                 uint32_t from, uint32_t tokens, uint8_t *p)
{
    uint32_t elems = s->row_bytes / s->elem_bytes;

    p = put32(put32(put32(p, s->type), s->elem_bytes), elems);
    for (uint32_t cell = 0; cell < tokens; cell++) {
        const uint8_t *row = row_of(s, src, layer, 1, from + cell);
        for (uint32_t j = 0; j < elems; j++)
            copy_elem(p + ((size_t)j * tokens + cell) * s->elem_bytes, row + (size_t)j * s->elem_bytes,
                      s->elem_bytes);
    }
    return p + (size_t)tokens * s->row_bytes;
}

void ll_blob_write(const struct ll_shape *s, const struct ll_place *src, uint32_t from, uint32_t tokens,
                   uint8_t *blob)
{
    uint8_t *p = put32(put32(put32(put32(blob, s->magic), 0), 1), tokens);

    for (uint32_t i = 0; i < tokens; i++)
        p = put32(put32(put32(p, from + i), 1), 0);
    memcpy(p, s->middle, s->middle_bytes);
    p += s->middle_bytes;
    for (uint32_t layer = 0; layer < s->layers; layer++)
        p = write_rows(s, src, layer, 0, from, tokens, p);
    for (uint32_t layer = 0; layer < s->layers; layer++)
        p = s->transposed ? write_transposed(s, src, layer, from, tokens, p)
                          : write_rows(s, src, layer, 1, from, tokens, p);
}

/* All bits of the exponent set: infinite or not a number. */
static bool finite16(const uint8_t *p, size_t n, uint32_t exponent)
{
    uint32_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, p + 2 * i, sizeof(v));
        bad |= (v & exponent) == exponent;
    }
    return bad == 0;
}

static bool finite32(const uint8_t *p, size_t n)
{
    uint32_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + 4 * i, sizeof(v));
        bad |= (v & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

bool ll_place_finite(const struct ll_shape *s, const struct ll_place *p, uint32_t from, uint32_t tokens,
                     bool is_bf16)
{
    size_t elems = s->row_bytes / s->elem_bytes;

    for (uint32_t i = 0; i < 2 * s->layers; i++)
        for (uint32_t at = from, n; at < from + tokens; at += n) {
            const uint8_t *row = row_of(s, p, i / 2, i % 2, at);
            n = p->block_tokens - at % p->block_tokens;
            n = n < from + tokens - at ? n : from + tokens - at;
            if (!(s->elem_bytes == 4 ? finite32(row, n * elems)
                                     : finite16(row, n * elems, is_bf16 ? 0x7f80u : 0x7c00u)))
                return false;
        }
    return true;
}
