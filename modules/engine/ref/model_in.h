/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a model, shared by loading (model.c) and computing (forward.c). */
#ifndef REF_MODEL_IN_H
#define REF_MODEL_IN_H

#include "model.h"

enum { REF_MAX_GROUP = 64 };    /* query heads per kv head; attend keeps their sums on the stack */

struct ref_layer {
    const float *attn_norm, *ffn_norm;
    struct ref_matrix q, k, v, o, gate, up, down;
};

struct ref_model {
    struct ref_shape shape;
    uint8_t fingerprint[16];
    uint8_t *weights;                   /* all of the below, one allocation */
    const float *embd;                  /* [vocab][dim] */
    const float *norm;
    struct ref_matrix out;
    struct ref_layer *layer;
    double *freq;                       /* [rope_dims / 2] */
};

#endif
