/* SPDX-License-Identifier: Apache-2.0 */
/* KV between cells and blocks.  The library gives out and takes in whole
 * sequences only; a part of one becomes a sequence of its own by a copy into the
 * slot behind the last, which shares cells and moves no bytes. */
#include "engine_in.h"

#include "lib.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 8 << 20, PIECE_LEAST = 16, PIECE_MOST = 1024, PROBE_TOKENS = 7 };

static int32_t copy_slot(const struct pd_engine *e)
{
    return (int32_t)e->conf->max_running;
}

static struct ll_place place_of(const struct pd_engine *e, const uint32_t *blocks)
{
    struct ll_place p = e->place;

    p.blocks = blocks;
    return p;
}

pd_status ll_kv_store(struct pd_engine *e, int32_t slot, const uint32_t *blocks, uint32_t from, uint32_t to)
{
    llama_memory_t memory = llama_get_memory(e->ctx);
    struct ll_place place = place_of(e, blocks);

    for (uint32_t n; from < to; from += n) {
        size_t bytes, got;
        n = to - from < e->kv.piece ? to - from : e->kv.piece;
        bytes = ll_blob_size(&e->kv.shape, n);
        llama_memory_seq_cp(memory, slot, copy_slot(e), (llama_pos)from, (llama_pos)(from + n));
        got = llama_state_seq_get_data(e->ctx, e->kv.blob, bytes, copy_slot(e));
        llama_memory_seq_rm(memory, copy_slot(e), -1, -1);
        if (got != bytes || ll_blob_read(&e->kv.shape, e->kv.blob, got, from, n, &place) != PD_OK)
            return PD_EIO;
    }
    return PD_OK;
}

pd_status ll_kv_load(struct pd_engine *e, int32_t slot, const uint32_t *blocks, uint32_t from, uint32_t to)
{
    llama_memory_t memory = llama_get_memory(e->ctx);
    struct ll_place place = place_of(e, blocks);

    for (uint32_t n; from < to; from += n) {
        size_t bytes, got;
        n = to - from < e->kv.piece ? to - from : e->kv.piece;
        if (!ll_place_finite(&e->kv.shape, &place, from, n, e->conf->kv_dtype == PD_DTYPE_BF16))
            return PD_EINTEGRITY;
        bytes = ll_blob_size(&e->kv.shape, n);
        ll_blob_write(&e->kv.shape, &place, from, n, e->kv.blob);
        got = llama_state_seq_set_data(e->ctx, e->kv.blob, bytes, copy_slot(e));
        if (got == bytes)
            llama_memory_seq_cp(memory, copy_slot(e), slot, -1, -1);
        llama_memory_seq_rm(memory, copy_slot(e), -1, -1);
        if (got != bytes)
            return PD_EIO;
    }
    return PD_OK;
}

/* A blob of a few tokens in slot 0; *n is its length. */
static uint8_t *probe_blob(struct pd_engine *e, size_t *n)
{
    uint8_t *blob;

    e->batch.n_tokens = 0;
    for (int32_t i = 0; i < PROBE_TOKENS; i++) {
        int32_t k = e->batch.n_tokens++;
        e->batch.token[k] = i % (int32_t)e->text.size;
        e->batch.pos[k] = i;
        e->batch.n_seq_id[k] = 1;
        e->batch.seq_id[k][0] = 0;
        e->batch.logits[k] = i == PROBE_TOKENS - 1;
    }
    if (llama_decode(e->ctx, e->batch) != 0)
        return NULL;
    *n = llama_state_seq_get_size(e->ctx, 0);
    blob = malloc(*n + 1);
    if (blob != NULL && llama_state_seq_get_data(e->ctx, blob, *n, 0) != *n) {
        free(blob);
        return NULL;
    }
    return blob;
}

/* Whether the values of the blob come back the same after a way through blocks of
 * a few tokens, in two parts, and the context. */
static bool comes_back(struct pd_engine *e, const uint8_t *blob, size_t n)
{
    enum { BT = 3, BLOCKS = (PROBE_TOKENS + BT - 1) / BT };
    static const uint32_t order[BLOCKS] = { 2, 0, 1 };
    uint64_t block_bytes = BT * ll_blob_token_bytes(&e->kv.shape);
    uint8_t *there = calloc(BLOCKS, block_bytes), *back = calloc(BLOCKS, block_bytes);
    bool good = there != NULL && back != NULL;
    struct ll_place kept = e->place;

    e->place = (struct ll_place){ .base = there, .block_bytes = block_bytes, .block_tokens = BT,
                                  .blocks = order };
    good = good && ll_blob_read(&e->kv.shape, blob, n, 0, PROBE_TOKENS, &e->place) == PD_OK;
    llama_memory_seq_rm(llama_get_memory(e->ctx), 0, -1, -1);
    good = good && ll_kv_load(e, 0, order, 0, 4) == PD_OK && ll_kv_load(e, 0, order, 4, PROBE_TOKENS) == PD_OK;
    e->place.base = back;
    good = good && ll_kv_store(e, 0, order, 0, 2) == PD_OK && ll_kv_store(e, 0, order, 2, PROBE_TOKENS) == PD_OK;
    good = good && memcmp(there, back, BLOCKS * block_bytes) == 0;
    e->place = kept;
    free(there);
    free(back);
    return good;
}

/* Models whose memory is more than one row of K and V for each token and layer. */
static bool is_plain(const struct llama_model *m)
{
    return !llama_model_is_recurrent(m) && !llama_model_is_hybrid(m) && llama_model_n_swa(m) <= 0 &&
           llama_model_n_head_kv(m) > 0;
}

static bool fits(struct pd_engine *e, const uint8_t *blob, size_t n)
{
    uint32_t elem = e->conf->kv_dtype == PD_DTYPE_F32 ? 4 : 2;
    uint32_t heads = (uint32_t)llama_model_n_head_kv(e->model);

    if (ll_blob_learn(blob, n, PROBE_TOKENS, elem, &e->kv.shape) != PD_OK ||
        e->kv.shape.row_bytes % (heads * elem) != 0)
        return false;
    e->kv.kv_heads = heads;
    e->kv.head_dim = e->kv.shape.row_bytes / (heads * elem);
    return true;
}

pd_status ll_kv_open(struct pd_engine *e, struct pd_err *err)
{
    uint64_t piece;
    uint8_t *blob;
    size_t n = 0;

    blob = probe_blob(e, &n);
    if (blob == NULL)
        return ll_err_lib(err, PD_EINVAL, e->conf->model, "libllama cannot compute this model");
    if (is_plain(e->model) && fits(e, blob, n)) {
        piece = PIECE_BYTES / ll_blob_token_bytes(&e->kv.shape);
        piece = piece < PIECE_LEAST ? PIECE_LEAST : piece > PIECE_MOST ? PIECE_MOST : piece;
        e->kv.piece = (uint32_t)piece;
        e->kv.blob = malloc(ll_blob_size(&e->kv.shape, e->kv.piece));
        if (e->kv.blob == NULL) {
            free(blob);
            return ll_err(err, PD_ENOMEM, NULL, "out of memory");
        }
        e->kv.usable = comes_back(e, blob, n);
    }
    free(blob);
    llama_memory_clear(llama_get_memory(e->ctx), true);
    return PD_OK;
}

void ll_kv_close(struct pd_engine *e)
{
    free(e->kv.blob);
}
