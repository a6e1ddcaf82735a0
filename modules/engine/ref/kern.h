/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of the forward pass.  There is one set of kernels per vector
 * width; all give the same bits, because each result is computed by the same
 * sequence of single additions and multiplications (never fused) whatever the
 * width, the number of rows or the rows beside it:
 *   matmul   y[o] = sum over i = 0, 1, 2, ... in one accumulator
 *   others   eight partial sums by index modulo 8, then
 *            ((0+4)+(2+6)) + ((1+5)+(3+7)) */
#ifndef REF_KERN_H
#define REF_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Outputs of one weight panel; weights are packed [out / 16][in][16], missing
 * outputs are zero, and rows of results have room for a whole panel.  Weights
 * stay in the type of the file, since a token reads all of them from memory; each
 * becomes its exact f32 value in a register.  q8_0: for each 32 inputs the f32
 * scales of the 16 outputs, then 32 times 16 numbers. */
enum { REF_PANEL = 16, REF_Q8_IN = 32, REF_Q8_BYTES = REF_PANEL * 4 + REF_Q8_IN * REF_PANEL };

enum ref_dtype { REF_F32 = 0, REF_F16 = 1, REF_Q8 = 2 };

struct ref_matrix {
    const uint8_t *data;        /* aligned to 64 bytes */
    uint32_t dtype, in, out;
};

static inline uint32_t ref_panels(const struct ref_matrix *m)
{
    return (m->out + REF_PANEL - 1) / REF_PANEL;
}

/* Bytes of one panel with these inputs; q8_0 has a multiple of 32. */
static inline size_t ref_panel_bytes(uint32_t dtype, uint32_t in)
{
    return dtype == REF_Q8 ? (size_t)in / REF_Q8_IN * REF_Q8_BYTES : (size_t)in * REF_PANEL * (dtype == REF_F16 ? 2 : 4);
}

/* Attention of one row in one layer over its paged KV, kv heads [from, to). */
struct ref_attn {
    const float *q;             /* [heads][head_dim] */
    float *out;                 /* same shape */
    const uint8_t *kv;          /* pool */
    const uint32_t *blocks;     /* block table of the sequence */
    uint64_t block_bytes;
    uint64_t k_off, v_off;      /* of this layer inside a block, bytes */
    uint32_t block_tokens, dtype, heads, kv_heads, head_dim, pos, from, to;
    float scale;
    float *scores;              /* [heads / kv_heads][score_stride] */
    size_t score_stride;        /* floats, at least pos + 1 rounded up to 8 */
    float *tile;                /* [block_tokens][head_dim], for f16 */
};

struct ref_kern {
    const char *name;
    /* y[rows][ldy] = x[rows][ldx] times panels [from, to) of w; whole panels are
     * written, at their places in y. */
    void (*matmul)(float *y, size_t ldy, const struct ref_matrix *w, uint32_t from, uint32_t to, const float *x,
                   size_t ldx, uint32_t rows);
    /* y = x * g / sqrt(mean(x^2) + eps), n a multiple of 8. */
    void (*norm)(float *y, const float *x, const float *g, uint32_t n, float eps);
    /* g = silu(g) * u, n a multiple of 8. */
    void (*swiglu)(float *g, const float *u, uint32_t n);
    void (*attend)(const struct ref_attn *a);
};

/* The widest set that this processor runs. */
const struct ref_kern *ref_kern_best(void);
/* Set i of those that this processor runs, NULL after the last; for tests. */
const struct ref_kern *ref_kern_at(unsigned i);

#endif
