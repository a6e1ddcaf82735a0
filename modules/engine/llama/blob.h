/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes in which libllama gives out and takes in the KV of one sequence
 * (llama_state_seq_get_data), and their way into and out of KV blocks.  Knows
 * bytes only and calls no library.
 *
 * Blob, little endian, without padding:
 *   u32 magic, i32 sequence, u32 streams (1), u32 cells
 *   per cell: i32 position, u32 1, i32 sequence
 *   u32 whether V is transposed, [two words in newer versions], u32 layers
 *   per layer K: i32 type, u64 row bytes, rows
 *   per layer V: the same; transposed: i32 type, u32 element bytes, u32 row
 *     elements, then for each element of a row that of every cell
 * Block: [layer][k, v][token][kv head][head dim], as PD_KV_BLOCK_LAYER. */
#ifndef LL_BLOB_H
#define LL_BLOB_H

#include <pdplane/types.h>

enum { LL_BLOB_MIDDLE = 16 };       /* most bytes between cells and layers */

/* What all blobs of a context have in common. */
struct ll_shape {
    uint32_t layers;
    uint32_t row_bytes;             /* of K or V of one token in one layer */
    uint32_t elem_bytes;            /* 2 or 4 */
    bool transposed;                /* V */
    uint32_t magic, type;
    uint32_t middle_bytes;
    uint8_t middle[LL_BLOB_MIDDLE];
};

/* The blocks of a sequence, from its first token on. */
struct ll_place {
    uint8_t *base;                  /* of the pool */
    uint64_t block_bytes;
    uint32_t block_tokens;
    const uint32_t *blocks;         /* pool indices */
};

/* Learns the shape from a blob of so many tokens.  PD_OK, or PD_ENOSYS when the
 * blob is not of this kind: layers of several shapes, quantised, another form. */
pd_status ll_blob_learn(const uint8_t *blob, size_t n, uint32_t tokens, uint32_t elem_bytes,
                        struct ll_shape *out);

/* Bytes of a blob of so many tokens. */
size_t ll_blob_size(const struct ll_shape *s, uint32_t tokens);
/* Bytes of one token in a block. */
uint64_t ll_blob_token_bytes(const struct ll_shape *s);

/* Copies KV of tokens [from, from + tokens) out of a blob.  PD_OK; PD_EPROTO when
 * the blob is not of that shape or holds other positions: nothing was copied. */
pd_status ll_blob_read(const struct ll_shape *s, const uint8_t *blob, size_t n, uint32_t from,
                       uint32_t tokens, const struct ll_place *to);

/* Makes a blob of ll_blob_size bytes. */
void ll_blob_write(const struct ll_shape *s, const struct ll_place *src, uint32_t from, uint32_t tokens,
                   uint8_t *blob);

/* Whether all values of tokens [from, from + tokens) in the blocks are numbers:
 * one that is none could spread into the answers of other sequences. */
bool ll_place_finite(const struct ll_shape *s, const struct ll_place *p, uint32_t from, uint32_t tokens,
                     bool is_bf16);

#endif
