/* SPDX-License-Identifier: Apache-2.0 */
/* The forward pass over a batch of rows.  Invariant: whatever is computed for a
 * row depends on its token, its position and the KV of its own sequence only,
 * by a fixed sequence of operations; rows meet in the batch for speed alone, and
 * threads share out rows, heads and outputs, never one sum. */
#include "model_in.h"

#include "fmath.h"
#include "half.h"
#include "team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Less work than this (multiplications, about) is not worth a second thread. */
enum { PART_COST = 1 << 16, PARTS_PER_MEMBER = 4 };

struct ref_run {
    const struct ref_model *m;
    const struct ref_kern *k;
    struct ref_team *team;
    uint32_t max_rows, max_wanted, block_tokens;
    size_t lx, lq, lkv, lf, lv, ls;     /* row lengths in floats, padded */
    size_t l_scores, l_tile;            /* of one member */
    float *memory;
    float *x, *h, *q, *kk, *vv, *gate, *up, *rope, *logits, *scores, *tile;
    uint32_t *origin;                   /* row of the call for each row still computed */
    /* What the parts of the present piece of work are about. */
    const struct ref_kv *kv;
    const struct ref_row *rows;
    uint32_t n, layer;
};

static size_t pad(size_t n)
{
    return (n + 15) / 16 * 16;
}

pd_status ref_run_create(const struct ref_model *m, uint32_t max_rows, uint32_t max_wanted,
                         uint32_t block_tokens, uint32_t members, struct ref_run **out)
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
    r->l_scores = s->heads / s->kv_heads * r->ls;
    r->l_tile = pad((size_t)block_tokens * s->head_dim);
    n = rows * (2 * r->lx + 2 * r->lq + 2 * r->lkv + 2 * r->lf + pad(s->rope_dims)) +
        max_wanted * r->lv + members * (r->l_scores + r->l_tile);
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
    PART(scores, members * r->l_scores);
    PART(tile, members * r->l_tile);
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

void ref_run_share(struct ref_run *r, struct ref_team *team)
{
    r->team = team;
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
        eng_sincos(pos * r->m->freq[i], &s, &c);
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

/* ---- work in parts */

/* In how many parts work of this cost is done, when it has so many units. */
static uint32_t parts_for(const struct ref_run *r, uint64_t units, uint64_t cost)
{
    uint64_t n = cost / PART_COST;
    uint64_t most = r->team == NULL ? 1 : (uint64_t)r->team->members * PARTS_PER_MEMBER;

    n = n < most ? n : most;
    n = n < units ? n : units;
    return n > 1 ? (uint32_t)n : 1;
}

/* The first unit of a part. */
static uint32_t cut(uint64_t units, uint32_t parts, uint32_t part)
{
    return (uint32_t)(units * part / parts);
}

/* Some matrices with the same input. */
struct product {
    const struct ref_run *r;
    const struct {
        float *y;
        size_t ldy;
        const struct ref_matrix *w;
    } out[3];
    const float *x;
    size_t ldx;
    uint32_t rows, pairs, parts;
};

static uint32_t pairs_of(const struct ref_matrix *w)
{
    return (ref_panels(w) + 1) / 2;
}

static void product_part(void *arg, uint32_t part, uint32_t member)
{
    const struct product *p = arg;
    uint32_t from = cut(p->pairs, p->parts, part), to = cut(p->pairs, p->parts, part + 1);

    (void)member;
    for (int i = 0; i < 3 && p->out[i].w != NULL && to > 0; i++) {
        uint32_t n = pairs_of(p->out[i].w), all = ref_panels(p->out[i].w), end = to < n ? to : n;
        if (from < n)
            p->r->k->matmul(p->out[i].y, p->out[i].ldy, p->out[i].w, 2 * from, 2 * end < all ? 2 * end : all, p->x,
                            p->ldx, p->rows);
        from = from > n ? from - n : 0;
        to -= end;
    }
}

static void product_run(struct product *p)
{
    uint64_t cost = 0;

    for (int i = 0; i < 3 && p->out[i].w != NULL; i++) {
        p->pairs += pairs_of(p->out[i].w);
        cost += (uint64_t)p->out[i].w->in * p->out[i].w->out * p->rows;
    }
    p->parts = parts_for(p->r, p->pairs, cost);
    ref_team_run(p->r->team, product_part, p, p->parts);
}

/* Work on rows one by one. */
struct by_row {
    struct ref_run *r;
    void (*fn)(struct ref_run *r, uint32_t from, uint32_t to);
    uint32_t rows, parts;
};

static void by_row_part(void *arg, uint32_t part, uint32_t member)
{
    const struct by_row *b = arg;

    (void)member;
    b->fn(b->r, cut(b->rows, b->parts, part), cut(b->rows, b->parts, part + 1));
}

/* cost: of one row. */
static void by_row_run(struct ref_run *r, void (*fn)(struct ref_run *r, uint32_t from, uint32_t to), uint32_t rows,
                       uint64_t cost)
{
    struct by_row b = { r, fn, rows, parts_for(r, rows, rows * cost) };

    ref_team_run(r->team, by_row_part, &b, b.parts);
}

/* ---- attention */

struct attention {
    const struct ref_run *r;
    struct ref_attn a;
    float *out;
    uint32_t items, parts;              /* an item is one kv head of one row */
};

static void attention_part(void *arg, uint32_t part, uint32_t member)
{
    const struct attention *w = arg;
    const struct ref_run *r = w->r;
    uint32_t heads = w->a.kv_heads, at = cut(w->items, w->parts, part), to = cut(w->items, w->parts, part + 1);
    struct ref_attn a = w->a;

    a.scores = r->scores + member * r->l_scores;
    a.tile = r->tile + member * r->l_tile;
    while (at < to) {
        uint32_t i = at / heads;
        const struct ref_row *row = &r->rows[r->origin[i]];
        a.q = r->q + i * r->lq;
        a.out = w->out + i * r->lq;
        a.pos = row->pos;
        a.blocks = row->blocks;
        a.from = at % heads;
        a.to = to - at < heads - a.from ? a.from + (to - at) : heads;
        r->k->attend(&a);
        at += a.to - a.from;
    }
}

static void attend(struct ref_run *r, float *out)
{
    const struct ref_shape *s = &r->m->shape;
    const struct ref_kv *kv = r->kv;
    uint64_t cost = 0;
    struct attention w = {
        .r = r, .out = out, .items = r->n * s->kv_heads,
        .a = { .kv = kv->base, .block_bytes = kv->block_bytes, .block_tokens = kv->block_tokens,
               .dtype = kv->dtype, .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
               .k_off = kv_offset(r, kv, r->layer, 0), .v_off = kv_offset(r, kv, r->layer, 1),
               .scale = 1.0f / sqrtf((float)s->head_dim), .score_stride = r->ls },
    };

    for (uint32_t i = 0; i < r->n; i++)
        cost += (uint64_t)(r->rows[r->origin[i]].pos + 1) * s->heads * s->head_dim * 2;
    w.parts = parts_for(r, w.items, cost);
    ref_team_run(r->team, attention_part, &w, w.parts);
}

/* ---- layers */

static void norm_rows(struct ref_run *r, const float *gain, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        r->k->norm(r->h + i * r->lx, r->x + i * r->lx, gain, r->m->shape.dim, r->m->shape.eps);
}

static void begin_rows(struct ref_run *r, uint32_t from, uint32_t to)
{
    norm_rows(r, r->m->layer[r->layer].attn_norm, from, to);
}

static void keep_rows(struct ref_run *r, uint32_t from, uint32_t to)
{
    const struct ref_shape *s = &r->m->shape;

    for (uint32_t i = from; i < to; i++) {
        const float *cs = r->rope + i * pad(s->rope_dims);
        rotate(r, r->q + i * r->lq, s->heads, cs);
        rotate(r, r->kk + i * r->lkv, s->kv_heads, cs);
        store(r, r->kv, &r->rows[i], kv_offset(r, r->kv, r->layer, 0), r->kk + i * r->lkv);
        store(r, r->kv, &r->rows[i], kv_offset(r, r->kv, r->layer, 1), r->vv + i * r->lkv);
    }
}

static void middle_rows(struct ref_run *r, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        add(r->x + i * r->lx, r->h + i * r->lx, r->m->shape.dim);
    norm_rows(r, r->m->layer[r->layer].ffn_norm, from, to);
}

static void gate_rows(struct ref_run *r, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        r->k->swiglu(r->gate + i * r->lf, r->up + i * r->lf, r->m->shape.ffn);
}

static void end_rows(struct ref_run *r, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        add(r->x + i * r->lx, r->h + i * r->lx, r->m->shape.dim);
}

/* Writes K and V of all rows in one layer and leaves rotated q. */
static void project(struct ref_run *r)
{
    const struct ref_layer *y = &r->m->layer[r->layer];
    struct product p = {
        .r = r, .x = r->h, .ldx = r->lx, .rows = r->n,
        .out = { { r->q, r->lq, &y->q }, { r->kk, r->lkv, &y->k }, { r->vv, r->lkv, &y->v } },
    };

    by_row_run(r, begin_rows, r->n, r->m->shape.dim);
    product_run(&p);
    by_row_run(r, keep_rows, r->n, r->lq + 4 * r->lkv);
}

/* The rest of a layer: attention and feed-forward, each added to x. */
static void mix(struct ref_run *r)
{
    const struct ref_layer *y = &r->m->layer[r->layer];
    float *att = r->h + r->max_rows * r->lx;
    struct product o = { .r = r, .x = att, .ldx = r->lq, .rows = r->n, .out = { { r->h, r->lx, &y->o } } };
    struct product up = { .r = r, .x = r->h, .ldx = r->lx, .rows = r->n,
                          .out = { { r->gate, r->lf, &y->gate }, { r->up, r->lf, &y->up } } };
    struct product down = { .r = r, .x = r->gate, .ldx = r->lf, .rows = r->n, .out = { { r->h, r->lx, &y->down } } };

    attend(r, att);
    product_run(&o);
    by_row_run(r, middle_rows, r->n, 2 * r->lx);
    product_run(&up);
    by_row_run(r, gate_rows, r->n, 8 * r->lf);
    product_run(&down);
    by_row_run(r, end_rows, r->n, r->lx);
}

pd_status ref_run_forward(struct ref_run *r, const struct ref_kv *kv, const struct ref_row *rows,
                          uint32_t n, ref_layer_fn *done, void *arg)
{
    const struct ref_shape *s = &r->m->shape;
    pd_status st = check_rows(r, kv, rows, n);

    if (st != PD_OK)
        return st;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(r->x + i * r->lx, r->m->embd + (size_t)rows[i].token * s->dim, s->dim * sizeof(float));
        fill_rope(r, rows[i].pos, r->rope + i * pad(s->rope_dims));
        r->origin[i] = i;
    }
    r->kv = kv;
    r->rows = rows;
    r->n = n;
    for (r->layer = 0; r->layer < s->layers; r->layer++) {
        project(r);
        if (done != NULL)
            done(arg, r->layer);
        if (r->layer + 1 == s->layers)
            r->n = keep_wanted(r, rows, n);
        mix(r);
    }
    norm_rows(r, r->m->norm, 0, r->n);
    struct product out = { .r = r, .x = r->h, .ldx = r->lx, .rows = r->n,
                           .out = { { r->logits, r->lv, &r->m->out } } };
    product_run(&out);
    return PD_OK;
}
