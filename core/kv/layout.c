/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts.  A checked layout keeps every product of its numbers far below 2^63,
 * so that plans need to check sums only. */
#include "kv/layout.h"

#include <string.h>

#include "base/status.h"
#include "base/wire.h"

#define MAX_LAYERS 4096u
#define MAX_HEADS 4096u
#define MAX_HEAD_DIM 65536u
#define MAX_TOKEN_BYTES (UINT64_C(1) << 32)

uint32_t pd_kv_dtype_bytes(uint32_t dtype)
{
    switch (dtype) {
    case PD_DTYPE_F32:
        return 4;
    case PD_DTYPE_F16:
    case PD_DTYPE_BF16:
        return 2;
    case PD_DTYPE_F8_E4M3:
        return 1;
    default:
        return 0;
    }
}

uint64_t pd_kv_layout_row_bytes(const struct pd_layout *l)
{
    return (uint64_t)l->kv_heads * l->head_dim * pd_kv_dtype_bytes(l->dtype);
}

uint64_t pd_kv_layout_token_bytes(const struct pd_layout *l)
{
    return 2 * (uint64_t)l->layers * pd_kv_layout_row_bytes(l);
}

pd_status pd_kv_layout_check(const struct pd_layout *l, struct pd_err *err)
{
    if (l->order != PD_KV_BLOCK_LAYER && l->order != PD_KV_LAYER_BLOCK)
        return pd_err_set(err, PD_EINVAL, "order %u of the layout is not known", l->order);
    if (pd_kv_dtype_bytes(l->dtype) == 0)
        return pd_err_set(err, PD_EINVAL, "dtype %u of the layout is not known", l->dtype);
    if (l->layers == 0 || l->layers > MAX_LAYERS || l->kv_heads == 0 || l->kv_heads > MAX_HEADS ||
        l->head_dim == 0 || l->head_dim > MAX_HEAD_DIM || l->block_tokens == 0 ||
        l->block_tokens > PD_KV_MAX_BLOCK_TOKENS || l->reserved != 0)
        return pd_err_set(err, PD_EINVAL, "a number of the layout is out of range");
    if (pd_kv_layout_token_bytes(l) > MAX_TOKEN_BYTES)
        return pd_err_set(err, PD_EINVAL, "a token of the layout has more than 4 GiB");
    if (l->block_bytes != pd_kv_layout_token_bytes(l) * l->block_tokens)
        return pd_err_set(err, PD_EINVAL, "block_bytes of the layout is %llu, not %llu",
                          (unsigned long long)l->block_bytes,
                          (unsigned long long)(pd_kv_layout_token_bytes(l) * l->block_tokens));
    return PD_OK;
}

void pd_kv_layout_encode(const struct pd_layout *l, uint8_t out[PD_KV_LAYOUT_BYTES])
{
    pd_wire_put_u32(out, l->order);
    pd_wire_put_u32(out + 4, l->dtype);
    pd_wire_put_u32(out + 8, l->layers);
    pd_wire_put_u32(out + 12, l->kv_heads);
    pd_wire_put_u32(out + 16, l->head_dim);
    pd_wire_put_u32(out + 20, l->block_tokens);
    pd_wire_put_u64(out + 24, l->block_bytes);
    memcpy(out + 32, l->model, sizeof l->model);
}

pd_status pd_kv_layout_decode(const uint8_t in[PD_KV_LAYOUT_BYTES], struct pd_layout *out)
{
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    out->order = pd_wire_get_u32(in);
    out->dtype = pd_wire_get_u32(in + 4);
    out->layers = pd_wire_get_u32(in + 8);
    out->kv_heads = pd_wire_get_u32(in + 12);
    out->head_dim = pd_wire_get_u32(in + 16);
    out->block_tokens = pd_wire_get_u32(in + 20);
    out->block_bytes = pd_wire_get_u64(in + 24);
    memcpy(out->model, in + 32, sizeof out->model);
    return pd_kv_layout_check(out, NULL) == PD_OK ? PD_OK : PD_EPROTO;
}

struct pd_hash128 pd_kv_layout_fingerprint(const struct pd_layout *l)
{
    uint8_t b[PD_KV_LAYOUT_BYTES];
    pd_kv_layout_encode(l, b);
    return pd_hash128(b, sizeof b, 0);
}

pd_status pd_kv_layout_compatible(const struct pd_layout *a, const struct pd_layout *b,
                                  struct pd_err *err)
{
    if (pd_kv_layout_check(a, err) != PD_OK || pd_kv_layout_check(b, err) != PD_OK)
        return PD_EINVAL;
    if (memcmp(a->model, b->model, sizeof a->model) != 0)
        return pd_err_set(err, PD_EINVAL,
                          "the weights differ: KV of one model is nothing to the other");
    if (a->dtype != b->dtype)
        return pd_err_set(err, PD_EINVAL, "dtype differs: %u and %u", a->dtype, b->dtype);
    if (a->layers != b->layers || a->kv_heads != b->kv_heads || a->head_dim != b->head_dim)
        return pd_err_set(err, PD_EINVAL,
                          "layers, heads or head size differ: %u x %u x %u and %u x %u x %u",
                          a->layers, a->kv_heads, a->head_dim, b->layers, b->kv_heads, b->head_dim);
    return PD_OK;
}
