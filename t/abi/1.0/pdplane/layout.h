/* SPDX-License-Identifier: Apache-2.0 */
/* What the bytes of a KV block mean.  Two engines may exchange blocks only
 * when their layouts say the same thing about the model; order, block size and
 * position may differ, the core then compiles a plan.  Stable. */
#ifndef PDPLANE_LAYOUT_H
#define PDPLANE_LAYOUT_H

#include <pdplane/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PD_DTYPE_F32 = 1,
    PD_DTYPE_F16 = 2,
    PD_DTYPE_BF16 = 3,
    PD_DTYPE_F8_E4M3 = 4
};

/* How a region of `blocks` blocks is ordered, slowest index first. */
enum {
    PD_KV_BLOCK_LAYER = 1, /* [block][layer][k,v][token][kv head][head dim] */
    PD_KV_LAYER_BLOCK = 2  /* [layer][k,v][block][token][kv head][head dim] */
};

struct pd_layout {
    uint32_t size;         /* sizeof(struct pd_layout) */
    uint32_t order;        /* PD_KV_* */
    uint32_t dtype;        /* PD_DTYPE_* */
    uint32_t layers;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t block_tokens; /* tokens in one block */
    uint32_t reserved;     /* 0 */
    uint64_t block_bytes;  /* one block over all layers, K and V */
    uint8_t model[16];     /* fingerprint of the weights that made the values */
};

#ifdef __cplusplus
}
#endif
#endif
