/* SPDX-License-Identifier: Apache-2.0 */
/* Forward pass of the ref engine: reference outputs, and equality bit by bit
 * whatever is in the batch, however prompts are cut and whatever vector width. */
#include "ref_golden.h"

#include "fmath.h"
#include "half.h"
#include "hash.h"
#include "model.h"
#include "vocab.h"

#include <math.h>

enum { BT = 16, BLOCKS = 512, ROWS = 256 };

static struct ref_gguf *gguf;
static struct ref_model *model;

static int setup(void **state)
{
    char path[512];
    struct pd_err err = { 0 };

    (void)state;
    assert_int_equal(ref_gguf_open(golden_path("tiny.gguf", path, sizeof(path)), &gguf, &err), PD_OK);
    if (ref_model_load(gguf, &model, &err) != PD_OK)
        fail_msg("%s", err.text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ref_model_free(model);
    ref_gguf_close(gguf);
    return 0;
}

static struct ref_kv make_kv(uint32_t bt, uint32_t dtype)
{
    struct ref_kv kv = { .blocks = BLOCKS * BT / bt, .block_tokens = bt, .dtype = dtype };

    kv.block_bytes = ref_model_block_bytes(model, bt, dtype);
    kv.base = aligned_alloc(64, kv.blocks * kv.block_bytes);
    assert_non_null(kv.base);
    memset(kv.base, 0xff, kv.blocks * kv.block_bytes);     /* not-a-number everywhere */
    return kv;
}

struct walk {
    struct ref_kv kv;
    struct ref_run *run;
    uint32_t blocks[BLOCKS * 2];
};

static void walk_open(struct walk *w, uint32_t bt, uint32_t dtype, uint32_t stride)
{
    w->kv = make_kv(bt, dtype);
    assert_int_equal(ref_run_create(model, ROWS, 16, bt, 1, &w->run), PD_OK);
    for (uint32_t i = 0; i < w->kv.blocks; i++)
        w->blocks[i] = i * stride % w->kv.blocks;
}

static void walk_close(struct walk *w)
{
    ref_run_free(w->run);
    free(w->kv.base);
}

/* Prompt rows [from, to) in calls of `chunk`; the last row's logits. */
static const float *prefill(struct walk *w, const uint32_t *ids, uint32_t from, uint32_t to, uint32_t chunk)
{
    struct ref_row rows[ROWS];

    for (uint32_t at = from; at < to;) {
        uint32_t n = to - at < chunk ? to - at : chunk;
        for (uint32_t i = 0; i < n; i++)
            rows[i] = (struct ref_row){ ids[at + i], at + i, w->blocks, at + i + 1 == to };
        assert_int_equal(ref_run_forward(w->run, &w->kv, rows, n, NULL, NULL), PD_OK);
        at += n;
    }
    return ref_run_logits(w->run, 0);
}

static uint32_t best(const float *lg, float *gap)
{
    uint32_t n = ref_model_shape(model)->vocab, b = 0;
    float second = -1e30f;

    for (uint32_t i = 1; i < n; i++)
        if (lg[i] > lg[b])
            b = i;
    for (uint32_t i = 0; i < n; i++)
        if (i != b && lg[i] > second)
            second = lg[i];
    *gap = lg[b] - second;
    return b;
}

static void golden_run(uint32_t bt, uint32_t dtype, double tolerance, double *worst)
{
    char path[512];
    char *text = golden_slurp(golden_path("golden.json", path, sizeof(path)), NULL);
    struct walk w;
    uint32_t ids[4096];
    size_t prompts = 0;

    walk_open(&w, bt, dtype, 7);
    for (json c = json_first(json_get(text, "prompts")); c != NULL; c = json_next(c), prompts++) {
        size_t np, n, ng;
        double *p = json_numbers(json_get(c, "prompt_ids"), &np), *want = json_numbers(json_get(c, "ids"), &n),
               *gaps = json_numbers(json_get(c, "gaps"), &ng);
        const float *lg;

        assert_int_equal(n, ng);
        for (size_t i = 0; i < np; i++)
            ids[i] = (uint32_t)p[i];
        lg = prefill(&w, ids, 0, (uint32_t)np, 64);
        for (size_t i = 0; i < n; i++) {
            float gap;
            uint32_t id = best(lg, &gap);
            assert_int_equal(id, (uint32_t)want[i]);
            if (fabs((double)gap - gaps[i]) > *worst)
                *worst = fabs((double)gap - gaps[i]);
            if (fabs((double)gap - gaps[i]) > tolerance)
                fail_msg("prompt %zu step %zu: gap %f, expected %f", prompts, i, (double)gap, gaps[i]);
            ids[np + i] = id;
            if (i + 1 < n)
                lg = prefill(&w, ids, (uint32_t)(np + i), (uint32_t)(np + i + 1), 1);
        }
        free(p);
        free(want);
        free(gaps);
    }
    assert_int_equal(prompts, 12);
    walk_close(&w);
    free(text);
}

static void golden_f32(void **state)
{
    double worst = 0;
    (void)state;
    golden_run(16, REF_F32, 0.01, &worst);
    printf("# largest gap difference with f32 KV: %.5f\n", worst);
}

static void golden_f16(void **state)
{
    double worst = 0;
    (void)state;
    golden_run(32, REF_F16, 1e9, &worst);
    printf("# largest gap difference with f16 KV: %.5f\n", worst);
}

static void some_ids(uint32_t seed, uint32_t n, uint32_t *ids)
{
    ids[0] = 1;
    for (uint32_t i = 1; i < n; i++)
        ids[i] = 261 + ((seed = seed * 1664525u + 1013904223u) >> 12) % 1000;
}

/* One prompt of 301 tokens in every cut, block size and kernel set. */
static void chunks_do_not_matter(void **state)
{
    enum { N = 301 };
    static const uint32_t cut[] = { 1, 2, 3, 7, 16, 50, 256 };
    uint32_t ids[N], vocab = ref_model_shape(model)->vocab;
    float *want = malloc(vocab * sizeof(float));

    (void)state;
    some_ids(99, N, ids);
    for (uint32_t dtype = REF_F32; dtype <= REF_F16; dtype++) {
        bool first = true;
        for (uint32_t bt = 8; bt <= 32; bt *= 2) {
            struct walk w;
            const struct ref_kern *k;
            walk_open(&w, bt, dtype, 5);
            for (unsigned s = 0; (k = ref_kern_at(s)) != NULL; s++) {
                ref_run_use(w.run, k);
                for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
                    const float *lg;
                    memset(w.kv.base, 0xff, w.kv.blocks * w.kv.block_bytes);
                    lg = prefill(&w, ids, 0, N, cut[i]);
                    if (first)
                        memcpy(want, lg, vocab * sizeof(float));
                    first = false;
                    assert_true(isfinite((double)lg[0]));
                    assert_memory_equal(lg, want, vocab * sizeof(float));
                }
            }
            walk_close(&w);
        }
    }
    free(want);
}

/* The same bits on every machine and with every compiler: a hash of all logits of a
 * prompt, pinned. */
static void bits_are_pinned(void **state)
{
    enum { N = 1000 };
    static const struct eng_hash want[2] = {
        { 0x9af26d2dd46edba8, 0x3b0392fc8b6c6a63 },       /* f32 KV */
        { 0xaafbbc440b08172d, 0xf6bb2a9e50bddfd5 },       /* f16 KV */
    };
    static const uint8_t key[16] = { 0 };
    uint32_t ids[N], vocab = ref_model_shape(model)->vocab;
    uint8_t *bytes = malloc(vocab * 4);

    (void)state;
    some_ids(5, N, ids);
    for (uint32_t dtype = REF_F32; dtype <= REF_F16; dtype++) {
        struct walk w;
        const float *lg;
        struct eng_hash h;
        walk_open(&w, BT, dtype, 3);
        lg = prefill(&w, ids, 0, N, 128);
        for (uint32_t i = 0; i < vocab; i++)
            for (int k = 0; k < 4; k++)
                bytes[4 * i + (uint32_t)k] = (uint8_t)(ref_float_bits(lg[i]) >> (8 * k));
        h = eng_siphash(key, bytes, vocab * 4);
        if (h.lo != want[dtype].lo || h.hi != want[dtype].hi)
            fail_msg("dtype %u: 0x%016llx, 0x%016llx", dtype, (unsigned long long)h.lo,
                     (unsigned long long)h.hi);
        walk_close(&w);
    }
    free(bytes);
}

/* Eight sequences of different lengths, alone and mixed in random batches. */
static void neighbours_do_not_matter(void **state)
{
    enum { SEQS = 8, MAX = 200 };
    uint32_t ids[SEQS][MAX], len[SEQS], at[SEQS] = { 0 }, vocab = ref_model_shape(model)->vocab, left = SEQS;
    uint32_t table[SEQS][MAX / BT + 1], x = 7;
    float *want = malloc(SEQS * vocab * sizeof(float));
    struct walk w;

    (void)state;
    walk_open(&w, BT, REF_F32, 3);
    for (uint32_t s = 0; s < SEQS; s++) {
        len[s] = 40 + 22 * s;
        some_ids(s, len[s], ids[s]);
        memcpy(want + s * vocab, prefill(&w, ids[s], 0, len[s], 33), vocab * sizeof(float));
        for (uint32_t b = 0; b <= MAX / BT; b++)
            table[s][b] = s * (MAX / BT + 1) + b;
    }
    memset(w.kv.base, 0xff, w.kv.blocks * w.kv.block_bytes);
    while (left > 0) {
        struct ref_row rows[ROWS];
        uint32_t who[ROWS], n = 0, k = 0;
        for (uint32_t s = 0; s < SEQS; s++) {
            uint32_t take = (x = x * 1664525u + 1013904223u) >> 20 & 15;
            for (; take > 0 && at[s] < len[s]; take--, at[s]++, n++) {
                bool want_it = at[s] + 1 == len[s] || (x >> (take & 15) & 3) == 0;
                if (k >= 16 && at[s] + 1 < len[s])
                    want_it = false;
                k += want_it;
                who[n] = s;
                rows[n] = (struct ref_row){ ids[s][at[s]], at[s], table[s], want_it && k <= 16 };
            }
        }
        for (uint32_t i = n; i-- > 1;) {        /* order of rows is of no meaning */
            uint32_t j = (x = x * 1664525u + 1013904223u) % (i + 1), t = who[i];
            struct ref_row r = rows[i];
            rows[i] = rows[j];
            rows[j] = r;
            who[i] = who[j];
            who[j] = t;
        }
        assert_int_equal(ref_run_forward(w.run, &w.kv, rows, n, NULL, NULL), PD_OK);
        for (uint32_t i = 0, j = 0; i < n; i++) {
            if (!rows[i].want)
                continue;
            if (rows[i].pos + 1 == len[who[i]]) {
                assert_memory_equal(ref_run_logits(w.run, j), want + who[i] * vocab, vocab * sizeof(float));
                left--;
            }
            j++;
        }
    }
    walk_close(&w);
    free(want);
}

static void bad_rows(void **state)
{
    struct walk w;
    struct ref_row r = { 1, 0, NULL, true };

    (void)state;
    walk_open(&w, BT, REF_F32, 1);
    r.blocks = w.blocks;
    r.token = ref_model_shape(model)->vocab;
    assert_int_equal(ref_run_forward(w.run, &w.kv, &r, 1, NULL, NULL), PD_EINVAL);
    r.token = 1;
    r.pos = ref_model_shape(model)->context;
    assert_int_equal(ref_run_forward(w.run, &w.kv, &r, 1, NULL, NULL), PD_EINVAL);
    r.pos = 0;
    w.blocks[0] = BLOCKS;
    assert_int_equal(ref_run_forward(w.run, &w.kv, &r, 1, NULL, NULL), PD_EINVAL);
    assert_int_equal(ref_run_forward(w.run, &w.kv, &r, ROWS + 1, NULL, NULL), PD_ELIMIT);
    walk_close(&w);
}

static void mathematics(void **state)
{
    (void)state;
    for (double x = -600; x < 600; x += 0.37)
        assert_true(fabs(eng_exp(x) / exp(x) - 1) < 1e-14);
    for (double x = 1e-9; x < 1e9; x *= 1.07)
        assert_true(fabs(eng_log(x) - log(x)) < 1e-14 * (1 + fabs(log(x))));
    for (double x = 0; x < 1e6; x = x * 1.001 + 0.01) {
        double s, c;
        eng_sincos(x, &s, &c);
        assert_true(fabs(s - sin(x)) < 1e-10 && fabs(c - cos(x)) < 1e-10);
    }
    for (uint32_t h = 0; h < 65536; h++) {
        float f = ref_half_to_float((uint16_t)h);
        if (f == f)
            assert_int_equal(ref_float_to_half(f), h);
        else
            assert_true((h & 0x7fff) > 0x7c00);
    }
    assert_int_equal(ref_float_to_half(65519.0f), 0x7bff);
    assert_int_equal(ref_float_to_half(65520.0f), 0x7c00);
    assert_int_equal(ref_float_to_half(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(ref_float_to_half(1.0f + 0x3p-11f), 0x3c02);
    assert_int_equal(ref_float_to_half(0x1p-25f), 0);
    assert_int_equal(ref_float_to_half(0x1.8p-25f), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_f32), cmocka_unit_test(golden_f16), cmocka_unit_test(chunks_do_not_matter),
        cmocka_unit_test(neighbours_do_not_matter), cmocka_unit_test(bits_are_pinned),
        cmocka_unit_test(bad_rows), cmocka_unit_test(mathematics),
    };
    if (getenv("PD_TEST") != NULL)
        cmocka_set_test_filter(getenv("PD_TEST"));
    return cmocka_run_group_tests(tests, setup, teardown);
}
