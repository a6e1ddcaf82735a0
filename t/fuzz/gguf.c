/* SPDX-License-Identifier: Apache-2.0 */
/* Model files: every key and tensor of an accepted file lies inside it; its
 * vocabulary, chat template and weights load or are refused. */
#include "fuzz.h"

#include "chat.h"
#include "gguf.h"
#include "model.h"
#include "vocab.h"

static void keys(const struct ref_gguf *g, struct pd_str file)
{
    struct pd_str key;
    for (uint32_t i = 0; (key = ref_gguf_key_at(g, i)).n > 0; i++) {
        char name[256];
        uint32_t u;
        float f;
        bool b;
        struct pd_str s;
        struct ref_gguf_array a;
        FUZZ_CHECK(fuzz_inside(key, file));
        if (key.n >= sizeof name || memchr(key.p, '\0', key.n) != NULL)
            continue;
        memcpy(name, key.p, key.n);
        name[key.n] = '\0';
        FUZZ_CHECK(ref_gguf_has(g, name));
        (void)ref_gguf_u32(g, name, &u);
        (void)ref_gguf_f32(g, name, &f);
        (void)ref_gguf_bool(g, name, &b);
        if (ref_gguf_str(g, name, &s))
            FUZZ_CHECK(fuzz_inside(s, file));
        if (ref_gguf_array(g, name, &a)) {
            FUZZ_CHECK(fuzz_inside((struct pd_str){ (const char *)a.p, (size_t)(a.end - a.p) }, file));
            uint64_t n = 0;
            for (; a.type == REF_GGUF_STR && ref_gguf_next_str(&a, &s); n++)
                FUZZ_CHECK(fuzz_inside(s, file));
            FUZZ_CHECK(a.type != REF_GGUF_STR || a.count == 0 || n > 0);
        }
    }
}

static void tensors(const struct ref_gguf *g, struct pd_str file)
{
    for (uint32_t i = 0; i < ref_gguf_tensors(g); i++) {
        const struct ref_tensor *t = ref_gguf_tensor_at(g, i);
        float out[32];
        FUZZ_CHECK(t->dims >= 1 && t->dims <= 4 && fuzz_inside(t->name, file));
        FUZZ_CHECK(fuzz_inside((struct pd_str){ (const char *)t->data, t->bytes }, file));
        uint64_t n = t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
        if (n >= 32) {
            ref_tensor_f32(t, 0, 32, out);
            ref_tensor_f32(t, (n - 32) / 32 * 32, 32, out);
        }
    }
}

static void use(const struct ref_gguf *g)
{
    struct pd_err err = { 0 };
    struct ref_vocab *v = NULL;
    struct ref_model *m = NULL;
    struct ref_chat chat;
    struct ref_ids ids = { .limit = 4096 };
    if (ref_vocab_load(g, &v, &err) == PD_OK) {
        pd_status status = ref_vocab_encode(v, PD_STR("Hi <s> \xe2\x96\x81\xff there"), REF_ENCODE_SPECIAL | REF_ENCODE_BOS, &ids);
        FUZZ_CHECK(status == PD_OK);
        for (size_t i = 0; i < ids.n; i++)
            FUZZ_CHECK(ids.ids[i] < ref_vocab_size(v));
        if (ref_chat_load(g, v, &chat, &err) == PD_OK && chat.known)
            FUZZ_CHECK(chat.start < ref_vocab_size(v) && chat.end < ref_vocab_size(v));
        free(ids.ids);
        ref_vocab_free(v);
    }
    if (ref_model_load(g, &m, &err) == PD_OK)
        ref_model_free(m);
    else
        FUZZ_CHECK(err.text[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    struct ref_gguf *g;
    struct pd_err err = { 0 };
    size_t n;
    char *p = fuzz_rest(&in, &n);
    if (ref_gguf_parse(p, n, "f.gguf", &g, &err) == PD_OK) {
        struct pd_str file = { p, n };
        keys(g, file);
        tensors(g, file);
        use(g);
        ref_gguf_close(g);
    } else {
        FUZZ_CHECK(err.text[0] != '\0');
    }
    fuzz_back(p, n);
    return 0;
}
