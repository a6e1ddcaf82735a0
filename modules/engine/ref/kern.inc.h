/* SPDX-License-Identifier: Apache-2.0 */
/* Body of one set of kernels; kern.c includes it once per vector width. */

typedef float NAME(vw) __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef float NAME(va) __attribute__((vector_size(AW * 4), aligned(4), may_alias));
typedef int32_t NAME(vi) __attribute__((vector_size(AW * 4), aligned(4), may_alias));
typedef uint16_t NAME(vh) __attribute__((vector_size(AW * 2), aligned(2), may_alias));
#if W == 4
typedef int32_t NAME(vwi) __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef int8_t NAME(vwb) __attribute__((vector_size(W), aligned(1), may_alias));
#endif
#define VW NAME(vw)
#define VA NAME(va)
#define VI NAME(vi)
#define VH NAME(vh)
#define INLINE static inline TARGET __attribute__((always_inline))
#define LD(p) (*(const VA *)(p))
#define ST(p) (*(VA *)(p))
#define PER_PANEL (REF_PANEL / W)
#define PER8 (8 / AW)

/* AW halves at p as floats, exactly. */
INLINE VA NAME(halves)(const uint16_t *p)
{
#if AW == 8
    return (VA)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
#else
    VI x = __builtin_convertvector(*(const VH *)p, VI);
    VI em = x & 0x7fff, u = (VI)((VA)(em << 13) * 0x1p112f);
    u |= (em >= 0x7c00) & (0x7f800000 | em << 13);
    return (VA)(u | (x & 0x8000) << 16);
#endif
}

/* W numbers of q8_0 at p, as floats. */
INLINE VW NAME(bytes)(const uint8_t *p)
{
#if W == 16
    return (VW)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
#elif W == 8
    return (VW)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
#else
    return __builtin_convertvector(__builtin_convertvector(*(const NAME(vwb) *)(const void *)p, NAME(vwi)), VW);
#endif
}

/* W weights of type T, not q8_0, from number n on. */
INLINE VW NAME(weights)(const uint8_t *w, size_t n, const int T)
{
    if (T == REF_F32)
        return *(const VW *)(const void *)(w + n * 4);
#if W == 16
    return (VW)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(w + n * 2)));
#else
    return NAME(halves)((const uint16_t *)(const void *)w + n);
#endif
}

/* R rows times P panels of type T, all sums kept in registers. */
INLINE void NAME(tile)(float *y, size_t ldy, const uint8_t *w, uint32_t in, const float *x, size_t ldx,
                       const int R, const int P, const int T)
{
    VW acc[8][2 * PER_PANEL], scale[2 * PER_PANEL];
    size_t step = ref_panel_bytes((uint32_t)T, in);
    uint32_t run = T == REF_Q8 ? REF_Q8_IN : in;

    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int p = 0; p < P * PER_PANEL; p++)
            acc[r][p] = (VW){ 0 };
    for (uint32_t base = 0; base < in; base += run, w += T == REF_Q8 ? REF_Q8_BYTES : 0) {
        if (T == REF_Q8)
            UNROLL
            for (int p = 0; p < P * PER_PANEL; p++)
                scale[p] = *(const VW *)(const void *)(w + (size_t)(p / PER_PANEL) * step +
                                                       (size_t)(p % PER_PANEL) * W * 4);
        for (uint32_t i = 0; i < run; i++) {
            UNROLL
            for (int p = 0; p < P * PER_PANEL; p++) {
                const uint8_t *panel = w + (size_t)(p / PER_PANEL) * step;
                size_t at = (size_t)i * REF_PANEL + (size_t)(p % PER_PANEL) * W;
                VW wv;
                if (T == REF_Q8)
                    wv = NAME(bytes)(panel + REF_PANEL * 4 + at) * scale[p];
                else
                    wv = NAME(weights)(panel, at, T);
                UNROLL
                for (int r = 0; r < R; r++)
                    acc[r][p] += wv * x[(size_t)r * ldx + base + i];
            }
        }
    }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int p = 0; p < P * PER_PANEL; p++)
            *(VW *)(y + (size_t)r * ldy + (size_t)p * W) = acc[r][p];
}

/* All rows times P panels, as many rows at once as there are registers. */
INLINE void NAME(panels)(float *y, size_t ldy, const uint8_t *w, uint32_t in, const float *x, size_t ldx,
                         uint32_t rows, const int P, const int T)
{
    uint32_t r = 0;

#define STEP(n) \
    for (; r + (n) <= rows; r += (n)) \
        NAME(tile)(y + r * ldy, ldy, w, in, x + r * ldx, ldx, (n), P, T)
#if ROWS >= 8
    STEP(8);
#endif
#if ROWS >= 4
    STEP(4);
#endif
    STEP(2);
    STEP(1);
#undef STEP
}

INLINE void NAME(matmul_of)(float *y, size_t ldy, const struct ref_matrix *w, uint32_t from, uint32_t to,
                            const float *x, size_t ldx, uint32_t rows, const int T)
{
    uint32_t p = from;
    size_t step = ref_panel_bytes((uint32_t)T, w->in);

    if (W == 16 || rows == 1)
        for (; p + 2 <= to; p += 2)
            NAME(panels)(y + p * REF_PANEL, ldy, w->data + p * step, w->in, x, ldx, rows, 2, T);
    for (; p < to; p++)
        NAME(panels)(y + p * REF_PANEL, ldy, w->data + p * step, w->in, x, ldx, rows, 1, T);
}

static TARGET void NAME(matmul)(float *y, size_t ldy, const struct ref_matrix *w, uint32_t from, uint32_t to,
                                const float *x, size_t ldx, uint32_t rows)
{
    if (w->dtype == REF_F32)
        NAME(matmul_of)(y, ldy, w, from, to, x, ldx, rows, REF_F32);
    else if (w->dtype == REF_F16)
        NAME(matmul_of)(y, ldy, w, from, to, x, ldx, rows, REF_F16);
    else
        NAME(matmul_of)(y, ldy, w, from, to, x, ldx, rows, REF_Q8);
}

INLINE float NAME(sum8)(const VA *a)
{
    float s[8];
    memcpy(s, a, sizeof(s));
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

INLINE VA NAME(pick)(VI mask, VA a, VA b)
{
    return (VA)((mask & (VI)a) | (~mask & (VI)b));
}

/* e^x for each lane, x at most 88; below -87 the result is that of -87. */
INLINE VA NAME(exp)(VA x)
{
    VA lo = (VA){ 0 } - 87.0f, hi = (VA){ 0 } + 88.0f, t, n, r, p;
    VI e;

    x = NAME(pick)(x < lo, lo, x);
    x = NAME(pick)(x > hi, hi, x);
    t = x * 1.44269504f + 12582912.0f;
    n = t - 12582912.0f;
    e = (VI)t - 0x4b400000;
    r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    p = (VA){ 0 } + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * (VA)((e + 127) << 23);
}

static TARGET void NAME(norm)(float *y, const float *x, const float *g, uint32_t n, float eps)
{
    VA s[PER8];
    float f;

    memset(s, 0, sizeof(s));
    for (uint32_t i = 0; i < n; i += 8)
        for (int k = 0; k < PER8; k++)
            s[k] += LD(x + i + k * AW) * LD(x + i + k * AW);
    f = 1.0f / sqrtf(NAME(sum8)(s) / (float)n + eps);
    for (uint32_t i = 0; i < n; i += AW)
        ST(y + i) = LD(x + i) * f * LD(g + i);
}

static TARGET void NAME(swiglu)(float *g, const float *u, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += AW) {
        VA x = LD(g + i);
        ST(g + i) = x / (NAME(exp)(-x) + 1.0f) * LD(u + i);
    }
}

/* scores[0..8) = scale * q . k[t] for eight tokens. */
INLINE void NAME(dot8)(const float *q, const float *k, size_t stride, uint32_t n, float scale,
                       float *scores)
{
    VA a[8][PER8];

    UNROLL
    for (int t = 0; t < 8; t++)
        UNROLL
        for (int h = 0; h < PER8; h++)
            a[t][h] = (VA){ 0 };
    for (uint32_t j = 0; j < n; j += 8)
        UNROLL
        for (int h = 0; h < PER8; h++) {
            VA qv = LD(q + j + h * AW);
            UNROLL
            for (int t = 0; t < 8; t++)
                a[t][h] += qv * LD(k + (size_t)t * stride + j + h * AW);
        }
#define SHUF __builtin_shufflevector
#if AW == 8
    VA b[4], c[2];
    UNROLL
    for (int t = 0; t < 4; t++)
        b[t] = SHUF(a[t][0], a[t + 4][0], 0, 1, 2, 3, 8, 9, 10, 11) +
               SHUF(a[t][0], a[t + 4][0], 4, 5, 6, 7, 12, 13, 14, 15);
    UNROLL
    for (int t = 0; t < 2; t++)
        c[t] = SHUF(b[2 * t], b[2 * t + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               SHUF(b[2 * t], b[2 * t + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    ST(scores) = (SHUF(c[0], c[1], 0, 2, 8, 10, 4, 6, 12, 14) +
                  SHUF(c[0], c[1], 1, 3, 9, 11, 5, 7, 13, 15)) * scale;
#else
    VA b[8], c[4];
    UNROLL
    for (int t = 0; t < 8; t++)
        b[t] = a[t][0] + a[t][1];
    UNROLL
    for (int t = 0; t < 4; t++)
        c[t] = SHUF(b[2 * t], b[2 * t + 1], 0, 1, 4, 5) + SHUF(b[2 * t], b[2 * t + 1], 2, 3, 6, 7);
    UNROLL
    for (int t = 0; t < 2; t++)
        ST(scores + 4 * t) = (SHUF(c[2 * t], c[2 * t + 1], 0, 2, 4, 6) +
                              SHUF(c[2 * t], c[2 * t + 1], 1, 3, 5, 7)) * scale;
#endif
#undef SHUF
}

/* scores[0..n) become weights that are not yet divided; returns their sum. */
INLINE float NAME(soften)(float *s, uint32_t n)
{
    uint32_t n8 = (n + 7) & ~7u;
    float m = s[0];
    VA z[PER8];
    VA mv = (VA){ 0 } + m;
    float lane[AW];

    for (uint32_t t = n; t < n8; t++)
        s[t] = m;
    for (uint32_t t = 0; t < n8; t += AW)
        mv = NAME(pick)(LD(s + t) > mv, LD(s + t), mv);
    memcpy(lane, &mv, sizeof(lane));
    for (int t = 0; t < AW; t++)
        m = lane[t] > m ? lane[t] : m;
    memset(z, 0, sizeof(z));
    for (uint32_t t = 0; t < n8; t += AW)
        ST(s + t) = NAME(exp)(LD(s + t) - m);
    for (uint32_t t = n; t < n8; t++)
        s[t] = 0;
    for (uint32_t t = 0; t < n8; t += 8)
        for (int k = 0; k < PER8; k++)
            z[k] += LD(s + t + k * AW);
    return NAME(sum8)(z);
}

/* out[0..C) += sum over t of p[t] * v[t][0..C), one token after another. */
INLINE void NAME(mix)(float *out, const float *p, const float *v, size_t stride, uint32_t n, const int C)
{
    VA acc[32 / AW];

    UNROLL
    for (int c = 0; c < C / AW; c++)
        acc[c] = LD(out + c * AW);
    for (uint32_t t = 0; t < n; t++)
        UNROLL
        for (int c = 0; c < C / AW; c++)
            acc[c] += LD(v + (size_t)t * stride + c * AW) * p[t];
    UNROLL
    for (int c = 0; c < C / AW; c++)
        ST(out + c * AW) = acc[c];
}

/* Head g of block b as f32: in place, or converted into the tile. */
INLINE const float *NAME(block)(const struct ref_attn *a, uint32_t b, uint64_t off, uint32_t g, size_t *stride)
{
    const uint8_t *p = a->kv + (uint64_t)a->blocks[b] * a->block_bytes + off;
    size_t row = (size_t)a->kv_heads * a->head_dim;

    if (a->dtype == REF_F32) {
        *stride = row;
        return (const float *)(const void *)p + (size_t)g * a->head_dim;
    }
    for (uint32_t t = 0; t < a->block_tokens; t++) {
        const uint16_t *h = (const uint16_t *)(const void *)p + t * row + (size_t)g * a->head_dim;
        for (uint32_t j = 0; j < a->head_dim; j += AW)
            ST(a->tile + (size_t)t * a->head_dim + j) = NAME(halves)(h + j);
    }
    *stride = a->head_dim;
    return a->tile;
}

static TARGET void NAME(attend)(const struct ref_attn *a)
{
    uint32_t group = a->heads / a->kv_heads, hd = a->head_dim, n = a->pos + 1, bt = a->block_tokens;
    size_t stride;

    for (uint32_t g = a->from; g < a->to; g++) {
        const float *q = a->q + (size_t)g * group * hd;
        float *out = a->out + (size_t)g * group * hd;

        for (uint32_t b = 0; b * bt < n; b++) {
            const float *k = NAME(block)(a, b, a->k_off, g, &stride);
            for (uint32_t t = 0; t < bt && b * bt + t < n; t += 8)
                for (uint32_t h = 0; h < group; h++)
                    NAME(dot8)(q + h * hd, k + t * stride, stride, hd, a->scale,
                               a->scores + h * a->score_stride + b * bt + t);
        }
        memset(out, 0, (size_t)group * hd * sizeof(float));
        float z[64];
        for (uint32_t h = 0; h < group; h++)
            z[h] = NAME(soften)(a->scores + h * a->score_stride, n);
        for (uint32_t b = 0; b * bt < n; b++) {
            const float *v = NAME(block)(a, b, a->v_off, g, &stride);
            uint32_t m = n - b * bt < bt ? n - b * bt : bt;
            for (uint32_t h = 0; h < group; h++) {
                const float *p = a->scores + h * a->score_stride + b * bt;
                uint32_t c = 0;
                for (; c + 32 <= hd; c += 32)
                    NAME(mix)(out + h * hd + c, p, v + c, stride, m, 32);
                for (; c < hd; c += 8)
                    NAME(mix)(out + h * hd + c, p, v + c, stride, m, 8);
            }
        }
        for (uint32_t h = 0; h < group; h++)
            for (uint32_t j = 0; j < hd; j += AW)
                ST(out + h * hd + j) = LD(out + h * hd + j) / z[h];
    }
}

static const struct ref_kern NAME(kern) = {
    .name = W == 4 ? "4 lanes" : W == 8 ? "8 lanes" : "16 lanes",
    .matmul = NAME(matmul),
    .norm = NAME(norm),
    .swiglu = NAME(swiglu),
    .attend = NAME(attend),
};

#undef VW
#undef VA
#undef VI
#undef VH
#undef INLINE
#undef LD
#undef ST
#undef PER_PANEL
#undef PER8
#undef W
#undef AW
#undef ROWS
#undef NAME
#undef TARGET
