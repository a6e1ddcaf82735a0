/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile GGUF files: cut short anywhere, with damaged bytes, with lies in the
 * header.  Loading must refuse or succeed, never crash (run under sanitizers). */
#include "ref_golden.h"

#include "chat.h"
#include "model.h"
#include "vocab.h"

static char *whole;
static size_t whole_n;

static int setup(void **state)
{
    char path[512];
    (void)state;
    whole = golden_slurp(golden_path("tiny.gguf", path, sizeof(path)), &whole_n);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(whole);
    return 0;
}

/* Loads everything from n bytes at p; they are copied to an exact allocation so
 * that a byte read too far is seen. */
static pd_status load(const char *p, size_t n, struct pd_err *err)
{
    char *copy = malloc(n > 0 ? n : 1);
    struct ref_gguf *g = NULL;
    struct ref_vocab *v = NULL;
    struct ref_model *m = NULL;
    struct ref_chat chat;
    pd_status s;

    memcpy(copy, p, n);
    memset(err, 0, sizeof(*err));
    s = ref_gguf_parse(copy, n, "x.gguf", &g, err);
    if (s == PD_OK)
        s = ref_vocab_load(g, &v, err);
    if (s == PD_OK)
        s = ref_chat_load(g, v, &chat, err);
    if (s == PD_OK)
        s = ref_model_load(g, &m, err);
    if (s != PD_OK) {
        assert_int_equal(err->status, s);
        assert_string_equal(err->file, "x.gguf");
        assert_true(strlen(err->text) > 0);
    }
    ref_model_free(m);
    ref_vocab_free(v);
    ref_gguf_close(g);
    free(copy);
    return s;
}

static void good(void **state)
{
    struct pd_err err;
    (void)state;
    assert_int_equal(load(whole, whole_n, &err), PD_OK);
}

/* Every length of the header at its start and end, and steps between. */
static void cut_short(void **state)
{
    struct pd_err err;
    (void)state;
    for (size_t n = 0; n < 31400; n += n < 2000 || n > 28000 ? 1 : 13)
        assert_int_not_equal(load(whole, n, &err), PD_OK);
    for (size_t n = 40000; n < whole_n; n += 200003)
        assert_int_not_equal(load(whole, n, &err), PD_OK);
    assert_int_not_equal(load(whole, whole_n - 1, &err), PD_OK);
}

/* A header with one byte changed, over a file without most of its data: if it is
 * accepted at all, then only by the first stage. */
static void damaged(void **state)
{
    struct pd_err err;
    char *copy = malloc(whole_n);
    uint32_t x = 1;
    (void)state;
    memcpy(copy, whole, whole_n);
    for (size_t i = 0; i < 31328; i += i < 1500 || i > 28500 ? 3 : 61) {
        char keep = copy[i];
        copy[i] = (char)(x = x * 1664525u + 1013904223u, x >> 24);
        load(copy, 40000, &err);
        copy[i] = (char)0xff;
        load(copy, 40000, &err);
        copy[i] = keep;
    }
    free(copy);
}

/* Puts n bytes at the first occurrence of a key, offset from its end. */
static void poke(char *copy, const char *key, size_t off, const void *bytes, size_t n)
{
    for (size_t i = 0; i + strlen(key) < 31328; i++)
        if (memcmp(copy + i, key, strlen(key)) == 0) {
            memcpy(copy + i + strlen(key) + off, bytes, n);
            return;
        }
    fail_msg("no %s", key);
}

static void lies(void **state)
{
    static const uint64_t huge = 0xffffffffffffffe0u, many = 1u << 30, odd = 33, zero = 0;
    static const uint32_t two = 2, bf16 = 30, big = 1000000;
    static const struct {
        const char *key;
        size_t off;
        const void *bytes;
        size_t n;
        const char *text;
    } lie[] = {
        { "GGUF", 0, &two, 4, "version 2" },
        { "GGUF", 4, &huge, 8, "more than" },
        { "GGUF", 4, &many, 8, "more than" },
        { "GGUF", 12, &huge, 8, "more than" },
        { "general.alignment", 4, &two, 4, "general.alignment" },
        { "general.name", 4, &huge, 8, "the file ends" },
        { "general.architecture", 12, "gemma", 5, "not llama" },
        { "tokenizer.ggml.tokens", 8, &huge, 8, "the file ends" },
        { "tokenizer.ggml.scores", 8, &many, 8, "the file ends" },
        { "tokenizer.ggml.bos_token_id", 4, &big, 4, "bos_token_id" },
        { "tokenizer.ggml.eos_token_id", 4, &big, 4, "outside the vocabulary" },
        { "tokenizer.ggml.model", 12, "gpt-2", 5, "tokenizer.ggml.model" },
        { "tokenizer.chat_template", 12, "{%- if", 6, "chat template" },
        { "llama.embedding_length", 4, &two, 4, "embedding_length" },
        { "llama.vocab_size", 4, &two, 4, "vocab_size" },
        { "llama.attention.head_count", 4, &big, 4, "head_count" },
        { "llama.context_length", 4, &zero, 4, "context_length" },
        { "llama.block_count", 4, &big, 4, "block_count" },
        { "llama.rope.freq_bas", 0, "x", 1, "does not compute" },
        { "token_embd.weight", 4, &huge, 8, "impossible shape" },
        { "token_embd.weight", 4, &zero, 8, "impossible shape" },
        { "token_embd.weight", 20, &bf16, 4, "type 30" },
        { "blk.1.attn_q.weight", 0, &huge, 4, "dimensions" },
        { "blk.1.attn_q.weight", 4, &odd, 8, "not 128 x 128" },
        { "blk.1.attn_q.weight", 24, &odd, 8, "not aligned" },
        { "blk.1.attn_q.weight", 24, &huge, 8, "past the end" },
        { "blk.", 0, "1", 1, "stands twice" },
        { "blk.3.ffn_u", 0, "x", 1, "missing" },
        { "output_norm", 0, ".weighs", 7, "missing" },
    };
    struct pd_err err;
    (void)state;
    for (size_t i = 0; i < sizeof(lie) / sizeof(lie[0]); i++) {
        char *copy = malloc(whole_n);
        memcpy(copy, whole, whole_n);
        poke(copy, lie[i].key, lie[i].off, lie[i].bytes, lie[i].n);
        if (load(copy, whole_n, &err) == PD_OK)
            fail_msg("case %zu was accepted", i);
        if (strstr(err.text, lie[i].text) == NULL)
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.text, lie[i].text);
        free(copy);
    }
}

static void no_file(void **state)
{
    struct ref_gguf *g;
    struct pd_err err;
    (void)state;
    assert_int_equal(ref_gguf_open("/nonexistent/x.gguf", &g, &err), PD_ENOENT);
    assert_string_equal(err.file, "/nonexistent/x.gguf");
    assert_int_equal(ref_gguf_open("/dev/null", &g, &err), PD_EINVAL);
    assert_int_equal(ref_gguf_open("/", &g, &err), PD_EINVAL);
}

/* The three tensor types give the values that the format defines. */
static void tensor_types(void **state)
{
    uint8_t q8[68] = { 0x00, 0x38 }, h[4] = { 0x00, 0x3c, 0x00, 0xc0 };
    struct ref_tensor t = { .type = REF_TENSOR_Q8_0, .data = q8 };
    float out[64];
    (void)state;
    for (int i = 0; i < 32; i++) {
        q8[2 + i] = (uint8_t)(i - 16);
        q8[36 + i] = 1;
    }
    q8[35] = 0x40;                  /* 2.0 */
    ref_tensor_f32(&t, 0, 64, out);
    for (int i = 0; i < 32; i++) {
        assert_true(out[i] == 0.5f * (float)(i - 16));
        assert_true(out[32 + i] == 2.0f);
    }
    ref_tensor_f32(&t, 32, 32, out);
    assert_true(out[0] == 2.0f);
    t = (struct ref_tensor){ .type = REF_TENSOR_F16, .data = h };
    ref_tensor_f32(&t, 0, 2, out);
    assert_true(out[0] == 1.0f && out[1] == -2.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good), cmocka_unit_test(cut_short), cmocka_unit_test(damaged),
        cmocka_unit_test(lies), cmocka_unit_test(no_file), cmocka_unit_test(tensor_types),
    };
    if (getenv("PD_TEST") != NULL)
        cmocka_set_test_filter(getenv("PD_TEST"));
    return cmocka_run_group_tests(tests, setup, teardown);
}
