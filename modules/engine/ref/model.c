/* SPDX-License-Identifier: Apache-2.0 */
/* Loads the weights of a llama-architecture GGUF file.
 *
 * Matrices are packed into panels of 16 outputs in the type of the file (kern.h);
 * vectors and the embedding become f32.  It is a copy, so that the kernels read
 * one linear stream, and a model file that is replaced or cut short under a
 * running engine cannot hurt it.
 *
 * Invariant: a loaded model used every tensor of its file and knows every
 * architecture key; a file with anything else is refused, because ignoring it
 * would give wrong answers silently. */
#include "model_in.h"

#include "fmath.h"
#include "half.h"
#include "hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct loader {
    const struct ref_gguf *g;
    struct ref_model *m;
    struct pd_err *err;
    bool *used;
    uint8_t *next;              /* weight memory */
};

static pd_status refuse(struct loader *l, const char *what)
{
    return ref_err(l->err, PD_EINVAL, ref_gguf_name(l->g), "%s", what);
}

static bool starts(struct pd_str s, const char *z)
{
    return s.n >= strlen(z) && memcmp(s.p, z, strlen(z)) == 0;
}

/* Architecture keys that are read or have no influence on the computation. */
static pd_status check_keys(struct loader *l)
{
    static const char *const known[] = {
        "llama.vocab_size", "llama.context_length", "llama.embedding_length", "llama.block_count",
        "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.head_count_kv",
        "llama.attention.layer_norm_rms_epsilon", "llama.attention.key_length",
        "llama.attention.value_length", "llama.rope.dimension_count", "llama.rope.freq_base",
    };
    struct pd_str k, type;
    uint32_t parts;

    for (uint32_t i = 0; (k = ref_gguf_key_at(l->g, i)).n != 0; i++) {
        bool ok = !starts(k, "llama.");
        for (size_t j = 0; j < sizeof(known) / sizeof(known[0]) && !ok; j++)
            ok = k.n == strlen(known[j]) && starts(k, known[j]);
        if (k.n == 23 && starts(k, "llama.rope.scaling.type"))
            ok = ref_gguf_str(l->g, "llama.rope.scaling.type", &type) && type.n == 4 &&
                 starts(type, "none");
        if (!ok)
            return ref_err(l->err, PD_EINVAL, ref_gguf_name(l->g),
                           "key %.*s asks for something that this engine does not compute",
                           PD_STR_ARG(k));
    }
    if (ref_gguf_u32(l->g, "split.count", &parts) && parts > 1)
        return refuse(l, "the model is split over several files, join them first");
    return PD_OK;
}

static pd_status need(struct loader *l, const char *key, uint32_t least, uint32_t most, uint32_t *v)
{
    if (!ref_gguf_u32(l->g, key, v))
        return ref_err(l->err, PD_EINVAL, ref_gguf_name(l->g), "key %s is missing or no number", key);
    if (*v < least || *v > most)
        return ref_err(l->err, PD_EINVAL, ref_gguf_name(l->g), "%s is %u, not from %u to %u", key, *v,
                       least, most);
    return PD_OK;
}

static pd_status read_shape(struct loader *l, struct ref_shape *s)
{
    struct pd_str arch;
    const struct ref_tensor *embd = ref_gguf_tensor(l->g, "token_embd.weight");
    uint32_t v;
    pd_status st;

    if (!ref_gguf_str(l->g, "general.architecture", &arch) || arch.n != 5 || !starts(arch, "llama"))
        return refuse(l, "general.architecture is not llama");
    if ((st = check_keys(l)) != PD_OK ||
        (st = need(l, "llama.embedding_length", 8, 65536, &s->dim)) != PD_OK ||
        (st = need(l, "llama.block_count", 1, 1024, &s->layers)) != PD_OK ||
        (st = need(l, "llama.feed_forward_length", 8, 1 << 20, &s->ffn)) != PD_OK ||
        (st = need(l, "llama.attention.head_count", 1, 1024, &s->heads)) != PD_OK ||
        (st = need(l, "llama.context_length", 8, 1 << 20, &s->context)) != PD_OK)
        return st;
    s->kv_heads = s->heads;
    if (ref_gguf_has(l->g, "llama.attention.head_count_kv") &&
        (st = need(l, "llama.attention.head_count_kv", 1, s->heads, &s->kv_heads)) != PD_OK)
        return st;
    s->head_dim = s->dim / s->heads;
    if (ref_gguf_has(l->g, "llama.attention.key_length") &&
        (st = need(l, "llama.attention.key_length", 8, 512, &s->head_dim)) != PD_OK)
        return st;
    if (ref_gguf_has(l->g, "llama.attention.value_length") &&
        (st = need(l, "llama.attention.value_length", s->head_dim, s->head_dim, &v)) != PD_OK)
        return st;
    s->rope_dims = s->head_dim;
    if (ref_gguf_has(l->g, "llama.rope.dimension_count") &&
        (st = need(l, "llama.rope.dimension_count", 2, s->head_dim, &s->rope_dims)) != PD_OK)
        return st;
    if (!ref_gguf_f32(l->g, "llama.attention.layer_norm_rms_epsilon", &s->eps) ||
        !(s->eps > 0 && s->eps < 1))
        return refuse(l, "llama.attention.layer_norm_rms_epsilon is missing or not between 0 and 1");
    s->rope_base = 10000;
    if (ref_gguf_has(l->g, "llama.rope.freq_base") &&
        (!ref_gguf_f32(l->g, "llama.rope.freq_base", &s->rope_base) ||
         !(s->rope_base > 1 && s->rope_base < 1e12f)))
        return refuse(l, "llama.rope.freq_base is not between 1 and 1e12");
    if (s->dim % 8 != 0 || s->ffn % 8 != 0 || s->head_dim % 8 != 0 || s->head_dim > 512 ||
        s->head_dim < 8 || s->rope_dims % 2 != 0 || s->heads % s->kv_heads != 0 ||
        s->heads / s->kv_heads > REF_MAX_GROUP || (uint64_t)s->heads * s->head_dim > 65536)
        return refuse(l, "embedding, feed-forward and head sizes do not fit together");
    if (embd == NULL || embd->dims != 2 || embd->dim[1] > 1 << 20)
        return refuse(l, "token_embd.weight is missing or has an impossible shape");
    s->vocab = (uint32_t)embd->dim[1];
    if (ref_gguf_has(l->g, "llama.vocab_size") &&
        (st = need(l, "llama.vocab_size", s->vocab, s->vocab, &v)) != PD_OK)
        return st;
    return PD_OK;
}

/* Finds a tensor of in x out values (out 1: a vector) and marks it used. */
static pd_status tensor(struct loader *l, const char *name, uint32_t in, uint32_t out,
                        const struct ref_tensor **t)
{
    *t = ref_gguf_tensor(l->g, name);
    if (*t == NULL)
        return ref_err(l->err, PD_EINVAL, ref_gguf_name(l->g), "tensor %s is missing", name);
    if ((*t)->dim[0] != in || (*t)->dim[1] != out || (*t)->dim[2] != 1 || (*t)->dim[3] != 1)
        return ref_err(l->err, PD_EINVAL, ref_gguf_name(l->g), "tensor %s is %llu x %llu, not %u x %u",
                       name, (unsigned long long)(*t)->dim[0], (unsigned long long)(*t)->dim[1], in, out);
    l->used[*t - ref_gguf_tensor_at(l->g, 0)] = true;
    return PD_OK;
}

static size_t whole(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Takes bytes of the weight memory; the sum of all was computed before. */
static void *claim(struct loader *l, size_t bytes)
{
    uint8_t *p = l->next;
    l->next += whole(bytes);
    return p;
}

static uint32_t dtype_of(const struct ref_tensor *t)
{
    return t->type == REF_TENSOR_F32 ? REF_F32 : t->type == REF_TENSOR_F16 ? REF_F16 : REF_Q8;
}

/* Puts output o of a tensor into its place. */
static void pack_row(const struct ref_tensor *t, uint32_t in, uint32_t o, uint8_t *panel)
{
    uint32_t lane = o % REF_PANEL;
    if (t->type == REF_TENSOR_F32) {
        const uint8_t *from = t->data + (size_t)o * in * 4;
        for (uint32_t i = 0; i < in; i++) {
            float f = ref_bits_float(ref_le32(from + 4 * (size_t)i));
            memcpy(panel + ((size_t)i * REF_PANEL + lane) * 4, &f, 4);
        }
    } else if (t->type == REF_TENSOR_F16) {
        const uint8_t *from = t->data + (size_t)o * in * 2;
        for (uint32_t i = 0; i < in; i++) {
            uint16_t h = ref_le16(from + 2 * (size_t)i);
            memcpy(panel + ((size_t)i * REF_PANEL + lane) * 2, &h, 2);
        }
    } else {
        const uint8_t *from = t->data + (size_t)o * (in / REF_Q8_IN) * (REF_Q8_IN + 2);
        for (uint32_t b = 0; b < in / REF_Q8_IN; b++, from += REF_Q8_IN + 2, panel += REF_Q8_BYTES) {
            float scale = ref_half_to_float(ref_le16(from));
            memcpy(panel + lane * 4, &scale, 4);
            for (uint32_t i = 0; i < REF_Q8_IN; i++)
                panel[REF_PANEL * 4 + i * REF_PANEL + lane] = from[2 + i];
        }
    }
}

static pd_status pack(struct loader *l, const char *name, uint32_t in, uint32_t out, struct ref_matrix *w)
{
    const struct ref_tensor *t;
    pd_status s = tensor(l, name, in, out, &t);

    if (s != PD_OK)
        return s;
    *w = (struct ref_matrix){ .dtype = dtype_of(t), .in = in, .out = out };
    size_t step = ref_panel_bytes(w->dtype, in);
    uint8_t *to = claim(l, step * ref_panels(w));
    for (uint32_t o = 0; o < out; o++)
        pack_row(t, in, o, to + o / REF_PANEL * step);
    w->data = to;
    return PD_OK;
}

static pd_status plain(struct loader *l, const char *name, uint32_t in, uint32_t out, const float **w)
{
    const struct ref_tensor *t;
    pd_status s = tensor(l, name, in, out, &t);

    if (s == PD_OK) {
        float *to = claim(l, (size_t)in * out * sizeof(float));
        ref_tensor_f32(t, 0, (uint64_t)in * out, to);
        *w = to;
    }
    return s;
}

/* Vectors have w, matrices m. */
struct part {
    const char *name;
    uint32_t in, out;
    const float **w;
    struct ref_matrix *m;
};

enum { PARTS = 9 };

static void parts_of(const struct ref_shape *s, struct ref_layer *y, struct part part[PARTS])
{
    uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const struct part all[PARTS] = {
        { "attn_norm", s->dim, 1, &y->attn_norm, NULL }, { "attn_q", s->dim, q, NULL, &y->q },
        { "attn_k", s->dim, kv, NULL, &y->k }, { "attn_v", s->dim, kv, NULL, &y->v },
        { "attn_output", q, s->dim, NULL, &y->o }, { "ffn_norm", s->dim, 1, &y->ffn_norm, NULL },
        { "ffn_gate", s->dim, s->ffn, NULL, &y->gate }, { "ffn_up", s->dim, s->ffn, NULL, &y->up },
        { "ffn_down", s->ffn, s->dim, NULL, &y->down },
    };
    memcpy(part, all, sizeof(all));
}

static pd_status load_layer(struct loader *l, uint32_t i, struct ref_layer *y)
{
    struct part part[PARTS];
    char name[64];
    pd_status st = PD_OK;

    parts_of(&l->m->shape, y, part);
    for (size_t j = 0; j < PARTS && st == PD_OK; j++) {
        snprintf(name, sizeof(name), "blk.%u.%s.weight", i, part[j].name);
        st = part[j].m == NULL ? plain(l, name, part[j].in, part[j].out, part[j].w)
                               : pack(l, name, part[j].in, part[j].out, part[j].m);
    }
    return st;
}

/* Bytes that a matrix takes; one that is not in the file counts as f32. */
static size_t matrix_bytes(const struct loader *l, const char *name, uint32_t in, uint32_t out)
{
    const struct ref_tensor *t = ref_gguf_tensor(l->g, name);
    struct ref_matrix m = { .dtype = t == NULL ? REF_F32 : dtype_of(t), .in = in, .out = out };
    return whole(ref_panels(&m) * ref_panel_bytes(m.dtype, in));
}

static const char *output_name(const struct loader *l)
{
    return ref_gguf_tensor(l->g, "output.weight") != NULL ? "output.weight" : "token_embd.weight";
}

static size_t weight_bytes(const struct loader *l)
{
    const struct ref_shape *s = &l->m->shape;
    struct ref_layer none;
    struct part part[PARTS];
    char name[64];
    size_t n = whole((size_t)s->vocab * s->dim * sizeof(float)) + whole(s->dim * sizeof(float)) +
               matrix_bytes(l, output_name(l), s->dim, s->vocab);

    parts_of(s, &none, part);
    for (uint32_t i = 0; i < s->layers; i++)
        for (size_t j = 0; j < PARTS; j++) {
            snprintf(name, sizeof(name), "blk.%u.%s.weight", i, part[j].name);
            n += part[j].m == NULL ? whole(part[j].in * sizeof(float)) : matrix_bytes(l, name, part[j].in, part[j].out);
        }
    return n;
}

/* Angle per position of each rotated pair. */
static pd_status load_rope(struct loader *l)
{
    struct ref_model *m = l->m;
    uint32_t n = m->shape.rope_dims / 2;
    const struct ref_tensor *t;
    pd_status s;

    m->freq = calloc(n, sizeof(*m->freq));
    if (m->freq == NULL)
        return ref_err(l->err, PD_ENOMEM, ref_gguf_name(l->g), "out of memory");
    for (uint32_t i = 0; i < n; i++)
        m->freq[i] = eng_exp(-(2.0 * i / m->shape.rope_dims) * eng_log((double)m->shape.rope_base));
    if (ref_gguf_tensor(l->g, "rope_freqs.weight") == NULL)
        return PD_OK;
    if ((s = tensor(l, "rope_freqs.weight", n, 1, &t)) != PD_OK)
        return s;
    for (uint32_t i = 0; i < n; i++) {
        float f;
        if (t->type == REF_TENSOR_Q8_0)
            return refuse(l, "rope_freqs.weight is quantised");
        ref_tensor_f32(t, i, 1, &f);
        if (!(f >= 1 && f < 1e6f))
            return refuse(l, "rope_freqs.weight holds a factor below 1 or above 1000000");
        m->freq[i] /= (double)f;
    }
    return PD_OK;
}

/* The bytes that are needed are known from the shape, but tensors of that size
 * must be in the file before so much memory is taken. */
static pd_status check_size(struct loader *l)
{
    uint64_t have = 0, bytes = weight_bytes(l);

    for (uint32_t i = 0; i < ref_gguf_tensors(l->g); i++)
        have += ref_gguf_tensor_at(l->g, i)->bytes;
    /* at least 1 byte and a bit per value in the file, a second copy of the
     * embedding, and padding of each matrix to whole panels */
    if (bytes / 128 > have + (1 << 20))
        return refuse(l, "the shape asks for far more weights than the file holds");
    return PD_OK;
}

static pd_status load_weights(struct loader *l)
{
    struct ref_model *m = l->m;
    const struct ref_shape *s = &m->shape;
    size_t n = weight_bytes(l);
    pd_status st = check_size(l);

    if (st != PD_OK)
        return st;
    m->weights = aligned_alloc(64, n);
    m->layer = calloc(s->layers, sizeof(*m->layer));
    if (m->weights == NULL || m->layer == NULL)
        return ref_err(l->err, PD_ENOMEM, ref_gguf_name(l->g), "out of memory for %zu bytes of weights", n);
    memset(m->weights, 0, n);
    l->next = m->weights;
    if ((st = plain(l, "token_embd.weight", s->dim, s->vocab, &m->embd)) != PD_OK ||
        (st = plain(l, "output_norm.weight", s->dim, 1, &m->norm)) != PD_OK ||
        (st = pack(l, output_name(l), s->dim, s->vocab, &m->out)) != PD_OK)
        return st;
    for (uint32_t i = 0; i < s->layers && st == PD_OK; i++)
        st = load_layer(l, i, &m->layer[i]);
    return st == PD_OK ? load_rope(l) : st;
}

static pd_status check_used(struct loader *l)
{
    for (uint32_t i = 0; i < ref_gguf_tensors(l->g); i++)
        if (!l->used[i])
            return ref_err(l->err, PD_EINVAL, ref_gguf_name(l->g),
                           "tensor %.*s belongs to something that this engine does not compute",
                           PD_STR_ARG(ref_gguf_tensor_at(l->g, i)->name));
    return PD_OK;
}

pd_status ref_model_load(const struct ref_gguf *g, struct ref_model **out, struct pd_err *err)
{
    static const uint8_t key[16] = "pdplane ref v1 ";
    struct loader l = { .g = g, .err = err };
    struct pd_str all = ref_gguf_bytes(g);
    struct eng_hash h;
    pd_status s;

    *out = NULL;
    l.m = calloc(1, sizeof(*l.m));
    l.used = calloc(ref_gguf_tensors(g) + 1, sizeof(*l.used));
    s = l.m != NULL && l.used != NULL ? read_shape(&l, &l.m->shape)
                                      : ref_err(err, PD_ENOMEM, ref_gguf_name(g), "out of memory");
    if (s == PD_OK)
        s = load_weights(&l);
    if (s == PD_OK)
        s = check_used(&l);
    free(l.used);
    if (s != PD_OK) {
        ref_model_free(l.m);
        return s;
    }
    h = eng_siphash(key, all.p, all.n);
    for (int i = 0; i < 8; i++) {
        l.m->fingerprint[i] = (uint8_t)(h.lo >> (8 * i));
        l.m->fingerprint[8 + i] = (uint8_t)(h.hi >> (8 * i));
    }
    *out = l.m;
    return PD_OK;
}

void ref_model_free(struct ref_model *m)
{
    if (m == NULL)
        return;
    free(m->weights);
    free(m->layer);
    free(m->freq);
    free(m);
}

const struct ref_shape *ref_model_shape(const struct ref_model *m)
{
    return &m->shape;
}

const uint8_t *ref_model_fingerprint(const struct ref_model *m)
{
    return m->fingerprint;
}

uint64_t ref_model_block_bytes(const struct ref_model *m, uint32_t block_tokens, uint32_t dtype)
{
    return (uint64_t)m->shape.layers * 2 * block_tokens * m->shape.kv_heads * m->shape.head_dim *
           (dtype == REF_F16 ? 2 : 4);
}
