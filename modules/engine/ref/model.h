/* SPDX-License-Identifier: Apache-2.0 */
/* A llama-architecture model: RMS norm, rotary positions on neighbouring
 * pairs, grouped-query attention over paged KV, SwiGLU. */
#ifndef REF_MODEL_H
#define REF_MODEL_H

#include "gguf.h"
#include "kern.h"

struct ref_shape {
    uint32_t vocab, dim, layers, heads, kv_heads, head_dim, ffn, context, rope_dims;
    float eps, rope_base;
};

struct ref_model;

/* Checks shape and tensors and copies the weights.  Returns PD_OK or an error
 * with *err filled.  g is borrowed for the call only.  Gives *out. */
pd_status ref_model_load(const struct ref_gguf *g, struct ref_model **out, struct pd_err *err);
void ref_model_free(struct ref_model *m);
const struct ref_shape *ref_model_shape(const struct ref_model *m);
/* 128 bits over the whole model file: equal only for equal files. */
const uint8_t *ref_model_fingerprint(const struct ref_model *m);

/* The KV pool is the caller's memory.  A block holds block_tokens positions of
 * one sequence and all layers.  Order inside a block, dense:
 *     [layer][k, v][token][kv_head][head_dim]
 * as f32 or f16 in the machine's byte order, K after rotation.  block_tokens
 * is a multiple of 8. */
struct ref_kv {
    uint8_t *base;              /* aligned to 64 bytes */
    uint64_t block_bytes;       /* ref_model_block_bytes or more (stride) */
    uint32_t blocks, block_tokens, dtype;
};

/* Bytes of a block. */
uint64_t ref_model_block_bytes(const struct ref_model *m, uint32_t block_tokens, uint32_t dtype);

/* One token of one sequence.  blocks has an entry for each position up to pos;
 * KV of the positions before it is in the pool or computed by rows of the same
 * call. */
struct ref_row {
    uint32_t token, pos;
    const uint32_t *blocks;     /* borrowed */
    bool want;                  /* logits are wanted */
};

/* Scratch memory of one forward pass at a time, for a team of so many members. */
struct ref_run;
struct ref_team;
pd_status ref_run_create(const struct ref_model *m, uint32_t max_rows, uint32_t max_wanted,
                         uint32_t block_tokens, uint32_t members, struct ref_run **out);
void ref_run_free(struct ref_run *r);
/* Shares the work out among a team, of which the caller of forward is the leader
 * (borrowed; NULL: alone). */
void ref_run_share(struct ref_run *r, struct ref_team *team);
/* Uses another set of kernels; for tests. */
void ref_run_use(struct ref_run *r, const struct ref_kern *k);

/* Called after all rows of a layer have their KV in the pool. */
typedef void ref_layer_fn(void *arg, uint32_t layer);

/* Writes the KV of n rows and computes the logits of the wanted ones.  A row's
 * results are the same bits whatever other rows are in the call and however a
 * prompt is cut into calls.  Returns PD_OK, PD_EINVAL (token, position or block
 * out of range) or PD_ELIMIT (too many rows).  done may be NULL.  Any thread, one
 * call per run and per pool at a time. */
pd_status ref_run_forward(struct ref_run *r, const struct ref_kv *kv, const struct ref_row *rows,
                          uint32_t n, ref_layer_fn *done, void *arg);

/* Logits of the i-th wanted row of the last call, vocab values; borrowed until
 * the next call. */
float *ref_run_logits(struct ref_run *r, uint32_t i);

#endif
