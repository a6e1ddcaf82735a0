/* SPDX-License-Identifier: Apache-2.0 */
/* Weights in every type of file, and several threads: the same bits as one
 * thread with the same values in f32. */
#include "ref_golden.h"

#include <pthread.h>
#include <unistd.h>

#include "half.h"
#include "model.h"
#include "team.h"

enum { BT = 16, N = 90, MEMBERS = 3, BLOCKS = N / BT + 1 };

static char folder[] = "/tmp/test_ref_weights.XXXXXX";
static struct ref_gguf *tiny;
static uint8_t *bytes;
static size_t n_bytes;

static int setup(void **state)
{
    char path[512];
    struct pd_err err = { 0 };
    (void)state;
    assert_non_null(mkdtemp(folder));
    bytes = (uint8_t *)golden_slurp(golden_path("tiny.gguf", path, sizeof path), &n_bytes);
    assert_int_equal(ref_gguf_open(path, &tiny, &err), PD_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ref_gguf_close(tiny);
    free(bytes);
    rmdir(folder);
    return 0;
}

/* ---- files: the tiny model with its matrices in another type */

static void put(FILE *f, const void *p, size_t n)
{
    assert_int_equal(fwrite(p, 1, n, f), n);
}

/* One row of 32 values as a block of q8_0. */
static void q8_block(const float *x, uint8_t *b)
{
    float most = 0;
    for (int i = 0; i < 32; i++)
        most = x[i] > most ? x[i] : -x[i] > most ? -x[i] : most;
    uint16_t d = ref_float_to_half(most / 127);
    float scale = ref_half_to_float(d);
    b[0] = (uint8_t)d;
    b[1] = (uint8_t)(d >> 8);
    for (int i = 0; i < 32; i++) {
        int q = scale == 0 ? 0 : (int)(x[i] / scale + (x[i] < 0 ? -0.5f : 0.5f));
        b[2 + i] = (uint8_t)(int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
    }
}

/* The data of a tensor in a type, and its bytes; with `as_f32` the values of
 * that type, but written as f32. */
static uint8_t *data_as(const struct ref_tensor *t, uint32_t type, bool as_f32, size_t *n)
{
    uint64_t count = t->dim[0] * t->dim[1];
    float *x = malloc(count * sizeof *x);
    uint8_t *raw = malloc(count * 4);
    struct ref_tensor view = *t;
    assert_true(x != NULL && raw != NULL);
    ref_tensor_f32(t, 0, count, x);
    if (type == REF_TENSOR_F16) {
        for (uint64_t i = 0; i < count; i++) {
            uint16_t h = ref_float_to_half(i % 97 == 0 ? x[i] * 1e-5f : x[i]);      /* some subnormal */
            memcpy(raw + 2 * i, &h, 2);
        }
        *n = count * 2;
    } else if (type == REF_TENSOR_Q8_0) {
        for (uint64_t i = 0; i < count; i += 32)
            q8_block(x + i, raw + i / 32 * 34);
        *n = count / 32 * 34;
    } else {
        memcpy(raw, x, count * 4);
        *n = count * 4;
    }
    if (as_f32) {
        view.type = type;
        view.data = raw;
        ref_tensor_f32(&view, 0, count, x);
        memcpy(raw, x, count * 4);      /* view.data is read before */
        *n = count * 4;
    }
    free(x);
    return raw;
}

static void file_write(const char *path, uint32_t type, bool as_f32)
{
    static const uint8_t zeros[32];
    struct pd_str first = ref_gguf_tensor_at(tiny, 0)->name;
    uint64_t offset = 0, at = 0;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    while (memcmp(bytes + at, first.p, first.n) != 0)
        at++;
    put(f, bytes, at - 8);              /* all before the list of tensors */
    for (uint32_t i = 0; i < ref_gguf_tensors(tiny); i++) {
        const struct ref_tensor *t = ref_gguf_tensor_at(tiny, i);
        bool is_matrix = t->dims == 2;
        uint32_t dims = t->dims, is = is_matrix && !as_f32 ? type : REF_TENSOR_F32;
        uint64_t length = t->name.n;
        size_t n;
        put(f, &length, 8);
        put(f, t->name.p, t->name.n);
        put(f, &dims, 4);
        put(f, t->dim, 8 * dims);
        put(f, &is, 4);
        put(f, &offset, 8);
        free(data_as(t, is_matrix ? type : REF_TENSOR_F32, as_f32, &n));
        offset += (n + 31) / 32 * 32;
    }
    put(f, zeros, (size_t)(-ftell(f) & 31));
    for (uint32_t i = 0; i < ref_gguf_tensors(tiny); i++) {
        const struct ref_tensor *t = ref_gguf_tensor_at(tiny, i);
        size_t n;
        uint8_t *raw = data_as(t, t->dims == 2 ? type : REF_TENSOR_F32, as_f32, &n);
        put(f, raw, n);
        put(f, zeros, (32 - n % 32) % 32);
        free(raw);
    }
    assert_int_equal(fclose(f), 0);
}

static struct ref_model *model_of(uint32_t type, bool as_f32)
{
    char path[600];
    struct pd_err err = { 0 };
    struct ref_gguf *g;
    struct ref_model *m = NULL;
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    file_write(path, type, as_f32);
    if (ref_gguf_open(path, &g, &err) != PD_OK || ref_model_load(g, &m, &err) != PD_OK)
        fail_msg("%s", err.text);
    ref_gguf_close(g);
    unlink(path);
    return m;
}

/* ---- running */

struct helper {
    struct ref_team *team;
    uint32_t member, steps;
};

static void *help(void *arg)
{
    struct helper *h = arg;
    for (uint32_t step = 1; step <= h->steps; step++)
        while (__atomic_load_n(&h->team->ended, __ATOMIC_ACQUIRE) < step)
            ref_team_help(h->team, step, h->member);
    return NULL;
}

/* Logits of each position: prompts in cuts of `cut`, by so many members. */
static float *logits_of(struct ref_model *m, const struct ref_kern *k, uint32_t cut, uint32_t members)
{
    uint32_t vocab = ref_model_shape(m)->vocab, blocks[BLOCKS], steps = (N + cut - 1) / cut;
    struct ref_kv kv = { .blocks = BLOCKS, .block_tokens = BT, .dtype = REF_F32,
                         .block_bytes = ref_model_block_bytes(m, BT, REF_F32) };
    struct ref_team team = { 0 };
    struct helper helpers[MEMBERS];
    pthread_t threads[MEMBERS];
    struct ref_row rows[N];
    struct ref_run *run;
    float *out = malloc((size_t)N * vocab * sizeof *out);
    kv.base = aligned_alloc(64, BLOCKS * kv.block_bytes);
    assert_true(out != NULL && kv.base != NULL);
    memset(kv.base, 0xff, BLOCKS * kv.block_bytes);
    assert_int_equal(ref_run_create(m, N, N, BT, members, &run), PD_OK);
    ref_run_use(run, k);
    ref_run_share(run, &team);
    for (uint32_t i = 0; i < BLOCKS; i++)
        blocks[i] = BLOCKS - 1 - i;
    for (uint32_t i = 1; i < members; i++) {
        helpers[i] = (struct helper){ &team, i, steps };
        assert_int_equal(pthread_create(&threads[i], NULL, help, &helpers[i]), 0);
    }
    for (uint32_t step = 0; step < steps; step++) {
        uint32_t from = step * cut, n = N - from < cut ? N - from : cut;
        for (uint32_t i = 0; i < n; i++)
            rows[i] = (struct ref_row){ 300 + (from + i) * 13 % 900, from + i, blocks, true };
        ref_team_begin(&team, step + 1, members);
        assert_int_equal(ref_run_forward(run, &kv, rows, n, NULL, NULL), PD_OK);
        ref_team_end(&team);
        for (uint32_t i = 0; i < n; i++)
            memcpy(out + (size_t)(from + i) * vocab, ref_run_logits(run, i), vocab * sizeof *out);
    }
    for (uint32_t i = 1; i < members; i++)
        pthread_join(threads[i], NULL);
    ref_run_free(run);
    free(kv.base);
    return out;
}

static void all_the_same(uint32_t type)
{
    struct ref_model *plain = model_of(type, true), *m = model_of(type, false);
    size_t n = (size_t)N * ref_model_shape(m)->vocab * sizeof(float);
    float *want = logits_of(plain, ref_kern_at(0), N, 1);
    const struct ref_kern *k;
    for (unsigned s = 0; (k = ref_kern_at(s)) != NULL; s++)
        for (uint32_t cut = 6; cut <= N; cut *= 15)
            for (uint32_t members = 1; members <= MEMBERS; members += MEMBERS - 1) {
                float *got = logits_of(m, k, cut, members);
                assert_true(got[0] == got[0]);
                assert_memory_equal(got, want, n);
                free(got);
            }
    free(want);
    ref_model_free(plain);
    ref_model_free(m);
}

static void f32_weights(void **state)
{
    (void)state;
    all_the_same(REF_TENSOR_F32);
}

static void f16_weights(void **state)
{
    (void)state;
    all_the_same(REF_TENSOR_F16);
}

static void q8_weights(void **state)
{
    (void)state;
    all_the_same(REF_TENSOR_Q8_0);
}

/* ---- the team alone */

enum { PIECES = 500, PARTS = 37 };

struct count {
    uint32_t done[PARTS];
    uint32_t by[MEMBERS];
};

static void count_part(void *arg, uint32_t part, uint32_t member)
{
    struct count *c = arg;
    c->done[part]++;
    c->by[member]++;
}

/* Each part of each piece once, whoever comes, and none when a step is over. */
static void parts_are_done_once(void **state)
{
    struct ref_team team = { 0 };
    struct helper helpers[MEMBERS];
    pthread_t threads[MEMBERS];
    uint32_t all = 0;
    (void)state;
    for (uint32_t i = 1; i < MEMBERS; i++) {
        helpers[i] = (struct helper){ &team, i, PIECES / 10 };
        assert_int_equal(pthread_create(&threads[i], NULL, help, &helpers[i]), 0);
    }
    for (uint32_t step = 1; step <= PIECES / 10; step++) {
        ref_team_begin(&team, step, MEMBERS);
        for (int piece = 0; piece < 10; piece++) {
            struct count c = { 0 };
            ref_team_run(&team, count_part, &c, PARTS);
            for (int i = 0; i < PARTS; i++)
                assert_int_equal(c.done[i], 1);
            for (int i = 0; i < MEMBERS; i++)
                all += c.by[i];
        }
        ref_team_end(&team);
    }
    for (uint32_t i = 1; i < MEMBERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(all, PIECES * PARTS);
    /* a helper of a step that is over, or does not come, goes */
    ref_team_help(&team, PIECES / 10, 1);
    ref_team_help(&team, PIECES, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_weights), cmocka_unit_test(f16_weights), cmocka_unit_test(q8_weights),
        cmocka_unit_test(parts_are_done_once),
    };
    if (getenv("PD_TEST") != NULL)
        cmocka_set_test_filter(getenv("PD_TEST"));
    return cmocka_run_group_tests(tests, setup, teardown);
}
