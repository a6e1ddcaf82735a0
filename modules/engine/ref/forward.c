/* SPDX-License-Identifier: Apache-2.0 */
/* The forward pass over a batch of rows.  Invariant: whatever is computed for a
 * row depends on its token, its position and the KV of its own sequence only,
 * by a fixed sequence of operations; rows meet in the batch for speed alone. */
#include "model_in.h"

#include "fmath.h"
#include "half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ref_run {
    const struct ref_model *m;
    const struct ref_kern *k;
    uint32_t max_rows, max_wanted, block_tokens;
    size_t lx, lq, lkv, lf, lv, ls;     /* row lengths in floats, padded */
    float *memory;
    float *x, *h, *q, *kk, *vv, *gate, *up, *rope, *logits, *scores, *tile;
    uint32_t *origin;                   /* row of the call for each row still computed */
};

static size_t pad(size_t n)
{
    return (n + 15) / 16 * 16;
}

pd_status ref_run_create(const struct ref_model *m, uint32_t max_rows, uint32_t max_wanted,
                         uint32_t block_tokens, struct ref_run **out)
{
    const struct ref_shape *s = &m->shape;
    struct ref_run *r = calloc(1, sizeof(*r));
    size_t rows = max_rows, n;
    float *p;

    *out = NULL;
    if (r == NULL)
        return PD_ENOMEM;
    r->m = m;
    r->k = ref_kern_best();
    r->max_rows = max_rows;
    r->max_wanted = max_wanted;
    r->block_tokens = block_tokens;
    r->lx = pad(s->dim);
    r->lq = pad((size_t)s->heads * s->head_dim);
    r->lkv = pad((size_t)s->kv_heads * s->head_dim);
    r->lf = pad(s->ffn);
    r->lv = pad(s->vocab);
    r->ls = pad(s->context);
    n = rows * (2 * r->lx + 2 * r->lq + 2 * r->lkv + 2 * r->lf + pad(s->rope_dims)) +
        max_wanted * r->lv + s->heads / s->kv_heads * r->ls + pad((size_t)block_tokens * s->head_dim);
    r->memory = aligned_alloc(64, n * sizeof(float));
    r->origin = calloc(rows, sizeof(*r->origin));
    if (r->memory == NULL || r->origin == NULL) {
        ref_run_free(r);
        return PD_ENOMEM;
    }
    p = r->memory;
#define PART(name, floats) (r->name = p, p += (floats))
    PART(x, rows * r->lx);
    PART(h, rows * (r->lx + r->lq));    /* normed rows; later results of attention */
    PART(q, rows * r->lq);
    PART(kk, rows * r->lkv);
    PART(vv, rows * r->lkv);
    PART(gate, rows * r->lf);
    PART(up, rows * r->lf);
    PART(rope, rows * pad(s->rope_dims));
    PART(logits, max_wanted * r->lv);
    PART(scores, s->heads / s->kv_heads * r->ls);
    PART(tile, pad((size_t)block_tokens * s->head_dim));
#undef PART
    *out = r;
    return PD_OK;
}

void ref_run_free(struct ref_run *r)
{
    if (r == NULL)
        return;
    free(r->memory);
    free(r->origin);
    free(r);
}

void ref_run_use(struct ref_run *r, const struct ref_kern *k)
{
    r->k = k;
}

float *ref_run_logits(struct ref_run *r, uint32_t i)
{
    return r->logits + i * r->lv;
}

static pd_status check_rows(const struct ref_run *r, const struct ref_kv *kv, const struct ref_row *rows,
                            uint32_t n)
{
    uint32_t wanted = 0;

    if (kv->block_tokens != r->block_tokens || kv->block_tokens % 8 != 0)
        return PD_EINVAL;
    if (n > r->max_rows)
        return PD_ELIMIT;
    for (uint32_t i = 0; i < n; i++) {
        if (rows[i].token >= r->m->shape.vocab || rows[i].pos >= r->m->shape.context)
            return PD_EINVAL;
        for (uint32_t b = 0; b <= rows[i].pos / kv->block_tokens; b++)
            if (rows[i].blocks[b] >= kv->blocks)
                return PD_EINVAL;
        wanted += rows[i].want;
    }
    return wanted > r->max_wanted ? PD_ELIMIT : PD_OK;
}

/* Cosine and sine of each pair at the row's position. */
static void fill_rope(const struct ref_run *r, uint32_t pos, float *out)
{
    for (uint32_t i = 0; i < r->m->shape.rope_dims / 2; i++) {
        double s, c;
        ref_sincos(pos * r->m->freq[i], &s, &c);
        out[2 * i] = (float)c;
        out[2 * i + 1] = (float)s;
    }
}

static void rotate(const struct ref_run *r, float *x, uint32_t heads, const float *cs)
{
    for (uint32_t h = 0; h < heads; h++, x += r->m->shape.head_dim)
        for (uint32_t i = 0; i < r->m->shape.rope_dims; i += 2) {
            float a = x[i], b = x[i + 1], c = cs[i], s = cs[i + 1];
            x[i] = a * c - b * s;
            x[i + 1] = a * s + b * c;
        }
}

static uint64_t kv_offset(const struct ref_run *r, const struct ref_kv *kv, uint32_t layer, uint32_t v)
{
    uint64_t part = (uint64_t)kv->block_tokens * r->m->shape.kv_heads * r->m->shape.head_dim;
    return (2 * (uint64_t)layer + v) * part * (kv->dtype == REF_F16 ? 2 : 4);
}

/* Puts one row of K or V into its place in the pool. */
static void store(const struct ref_run *r, const struct ref_kv *kv, const struct ref_row *row,
                  uint64_t off, const float *x)
{
    size_t n = (size_t)r->m->shape.kv_heads * r->m->shape.head_dim;
    uint8_t *p = kv->base + row->blocks[row->pos / kv->block_tokens] * kv->block_bytes + off;
    size_t at = row->pos % kv->block_tokens * n;

    if (kv->dtype == REF_F16) {
        uint16_t *h = (uint16_t *)(void *)p + at;
        for (size_t i = 0; i < n; i++)
            h[i] = ref_float_to_half(x[i]);
    } else {
        memcpy((float *)(void *)p + at, x, n * sizeof(float));
    }
}

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] += y[i];
}

/* After the last layer has its KV only rows with wanted logits go on. */
static uint32_t keep_wanted(struct ref_run *r, const struct ref_row *rows, uint32_t n)
{
    uint32_t k = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (!rows[i].want)
            continue;
        if (k != i) {
            memcpy(r->x + k * r->lx, r->x + i * r->lx, r->lx * sizeof(float));
            memcpy(r->q + k * r->lq, r->q + i * r->lq, r->lq * sizeof(float));
        }
        r->origin[k++] = i;
    }
    return k;
}

static void attend(struct ref_run *r, const struct ref_kv *kv, const struct ref_row *rows, uint32_t n,
                   uint32_t layer, float *out)
{
    const struct ref_shape *s = &r->m->shape;
    struct ref_attn a = {
        .kv = kv->base, .block_bytes = kv->block_bytes, .block_tokens = kv->block_tokens,
        .dtype = kv->dtype, .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
        .k_off = kv_offset(r, kv, layer, 0), .v_off = kv_offset(r, kv, layer, 1),
        .scale = 1.0f / sqrtf((float)s->head_dim), .scores = r->scores, .score_stride = r->ls,
        .tile = r->tile,
    };

    for (uint32_t i = 0; i < n; i++) {
        a.q = r->q + i * r->lq;
        a.out = out + i * r->lq;
        a.pos = rows[r->origin[i]].pos;
        a.blocks = rows[r->origin[i]].blocks;
        r->k->attend(&a);
    }
}

/* Writes K and V of all rows in one layer and leaves rotated q. */
static void project(struct ref_run *r, const struct ref_kv *kv, const struct ref_row *rows, uint32_t n,
                    uint32_t layer)
{
    const struct ref_shape *s = &r->m->shape;
    const struct ref_layer *y = &r->m->layer[layer];
    const struct ref_kern *k = r->k;
    uint32_t nkv = s->kv_heads * s->head_dim;

    for (uint32_t i = 0; i < n; i++)
        k->norm(r->h + i * r->lx, r->x + i * r->lx, y->attn_norm, s->dim, s->eps);
    k->matmul(r->q, r->lq, y->q, s->heads * s->head_dim, s->dim, r->h, r->lx, n);
    k->matmul(r->kk, r->lkv, y->k, nkv, s->dim, r->h, r->lx, n);
    k->matmul(r->vv, r->lkv, y->v, nkv, s->dim, r->h, r->lx, n);
    for (uint32_t i = 0; i < n; i++) {
        const float *cs = r->rope + i * pad(s->rope_dims);
        rotate(r, r->q + i * r->lq, s->heads, cs);
        rotate(r, r->kk + i * r->lkv, s->kv_heads, cs);
        store(r, kv, &rows[i], kv_offset(r, kv, layer, 0), r->kk + i * r->lkv);
        store(r, kv, &rows[i], kv_offset(r, kv, layer, 1), r->vv + i * r->lkv);
    }
}

/* The rest of a layer: attention and feed-forward, each added to x. */
static void mix(struct ref_run *r, const struct ref_kv *kv, const struct ref_row *rows, uint32_t n,
                uint32_t layer)
{
    const struct ref_shape *s = &r->m->shape;
    const struct ref_layer *y = &r->m->layer[layer];
    const struct ref_kern *k = r->k;
    float *att = r->h + r->max_rows * r->lx, *sum = r->h;

    attend(r, kv, rows, n, layer, att);
    k->matmul(sum, r->lx, y->o, s->dim, s->heads * s->head_dim, att, r->lq, n);
    for (uint32_t i = 0; i < n; i++) {
        add(r->x + i * r->lx, sum + i * r->lx, s->dim);
        k->norm(r->h + i * r->lx, r->x + i * r->lx, y->ffn_norm, s->dim, s->eps);
    }
    k->matmul(r->gate, r->lf, y->gate, s->ffn, s->dim, r->h, r->lx, n);
    k->matmul(r->up, r->lf, y->up, s->ffn, s->dim, r->h, r->lx, n);
    for (uint32_t i = 0; i < n; i++)
        k->swiglu(r->gate + i * r->lf, r->up + i * r->lf, s->ffn);
    k->matmul(sum, r->lx, y->down, s->dim, s->ffn, r->gate, r->lf, n);
    for (uint32_t i = 0; i < n; i++)
        add(r->x + i * r->lx, sum + i * r->lx, s->dim);
}

pd_status ref_run_forward(struct ref_run *r, const struct ref_kv *kv, const struct ref_row *rows,
                          uint32_t n, ref_layer_fn *done, void *arg)
{
    const struct ref_shape *s = &r->m->shape;
    pd_status st = check_rows(r, kv, rows, n);
    uint32_t live = n;

    if (st != PD_OK)
        return st;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(r->x + i * r->lx, r->m->embd + (size_t)rows[i].token * s->dim, s->dim * sizeof(float));
        fill_rope(r, rows[i].pos, r->rope + i * pad(s->rope_dims));
        r->origin[i] = i;
    }
    for (uint32_t l = 0; l < s->layers; l++) {
        project(r, kv, rows, n, l);
        if (done != NULL)
            done(arg, l);
        if (l + 1 == s->layers)
            live = keep_wanted(r, rows, n);
        mix(r, kv, rows, live, l);
    }
    for (uint32_t i = 0; i < live; i++)
        r->k->norm(r->h + i * r->lx, r->x + i * r->lx, r->m->norm, s->dim, s->eps);
    r->k->matmul(r->logits, r->lv, r->m->out, s->vocab, s->dim, r->h, r->lx, live);
    return PD_OK;
}
