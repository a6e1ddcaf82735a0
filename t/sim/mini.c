/* SPDX-License-Identifier: Apache-2.0 */
/* A model that costs next to nothing: the metadata and the tokenizer of the
 * real one, a smaller shape, random weights.  Its texts mean nothing, but each
 * token depends on all before it, which is what the laws are about. */
#include "fuzz.h"

enum { DIM = 32, LAYERS = 2, HEADS = 4, KV_HEADS = 2, HEAD = 8, FFN = 32, VOCAB = 1280, ALIGN = 32 };

struct out {
    FILE *f;
    uint64_t n;
};

static void put(struct out *o, const void *p, size_t n)
{
    o->n += n;
    (void)!fwrite(p, 1, n, o->f);
}

static void put32(struct out *o, uint32_t v)
{
    put(o, &v, 4);
}

static void put64(struct out *o, uint64_t v)
{
    put(o, &v, 8);
}

/* Bytes of one metadata value of this type at p; 0: beyond the end. */
static size_t value_size(uint32_t type, const uint8_t *p, const uint8_t *end)
{
    static const uint8_t fixed[13] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    uint64_t n, count;
    uint32_t item;
    if (type > 12)
        return 0;
    if (fixed[type] != 0)
        return fixed[type];
    if (type == 8) {
        if (end - p < 8)
            return 0;
        memcpy(&n, p, 8);
        return 8 + (size_t)n;
    }
    if (end - p < 12)
        return 0;
    memcpy(&item, p, 4);
    memcpy(&count, p + 4, 8);
    size_t at = 12;
    for (uint64_t i = 0; i < count; i++) {
        size_t one = (size_t)(end - p) > at ? value_size(item, p + at, end) : 0;
        if (one == 0 || one > (size_t)(end - p) - at)
            return 0;
        at += one;
    }
    return at;
}

static void patch(const char *key, size_t n, uint8_t *value)
{
    static const struct {
        const char *key;
        uint32_t v;
    } list[] = {
        { "llama.embedding_length", DIM }, { "llama.block_count", LAYERS },
        { "llama.feed_forward_length", FFN }, { "llama.attention.head_count", HEADS },
        { "llama.attention.head_count_kv", KV_HEADS }, { "llama.rope.dimension_count", HEAD },
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (strlen(list[i].key) == n && memcmp(key, list[i].key, n) == 0)
            memcpy(value, &list[i].v, 4);
    }
}

/* Copies the metadata with the new shape; the bytes it takes, 0: malformed. */
static size_t metadata(uint8_t *whole, size_t n, uint64_t count)
{
    size_t at = 24;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t len;
        uint32_t type;
        if (n - at < 12)
            return 0;
        memcpy(&len, whole + at, 8);
        if (len > n - at - 12)
            return 0;
        memcpy(&type, whole + at + 8 + len, 4);
        uint8_t *value = whole + at + 12 + len;
        size_t size = value_size(type, value, whole + n);
        if (size == 0 || size > (size_t)(whole + n - value))
            return 0;
        if (type == 4)
            patch((const char *)whole + at + 8, (size_t)len, value);
        at += 12 + (size_t)len + size;
    }
    return at;
}

struct tensor {
    char name[48];
    uint32_t in, out;           /* out 0: a vector of ones */
    float scale;
};

static uint32_t tensors(struct tensor *t)
{
    uint32_t n = 0;
    t[n++] = (struct tensor){ "token_embd.weight", DIM, VOCAB, 1.0f };
    for (int i = 0; i < LAYERS; i++) {
        static const struct tensor part[] = {
            { "attn_norm", DIM, 0, 0 }, { "attn_q", DIM, HEADS * HEAD, 0.5f },
            { "attn_k", DIM, KV_HEADS * HEAD, 0.5f }, { "attn_v", DIM, KV_HEADS * HEAD, 0.3f },
            { "attn_output", HEADS * HEAD, DIM, 0.3f }, { "ffn_norm", DIM, 0, 0 },
            { "ffn_gate", DIM, FFN, 0.3f }, { "ffn_up", DIM, FFN, 0.3f }, { "ffn_down", FFN, DIM, 0.3f },
        };
        for (size_t j = 0; j < sizeof part / sizeof part[0]; j++) {
            t[n] = part[j];
            snprintf(t[n].name, sizeof t[n].name, "blk.%d.%.20s.weight", i, part[j].name);
            n++;
        }
    }
    t[n++] = (struct tensor){ "output_norm.weight", DIM, 0, 0 };
    t[n++] = (struct tensor){ "output.weight", DIM, VOCAB, 0.4f };
    return n;
}

static void put_tensors(struct out *o, const struct tensor *t, uint32_t n)
{
    uint64_t offset = 0;
    struct fuzz_rng r = { 20261120 };
    for (uint32_t i = 0; i < n; i++) {
        size_t len = strlen(t[i].name);
        put64(o, len);
        put(o, t[i].name, len);
        put32(o, t[i].out == 0 ? 1 : 2);
        put64(o, t[i].in);
        if (t[i].out != 0)
            put64(o, t[i].out);
        put32(o, 0);
        put64(o, offset);
        uint64_t bytes = (uint64_t)t[i].in * (t[i].out == 0 ? 1 : t[i].out) * 4;
        offset += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    while (o->n % ALIGN != 0)
        put(o, "", 1);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < t[i].in * (t[i].out == 0 ? 1 : t[i].out); k++) {
            float v = 1;
            if (t[i].out != 0)
                v = ((float)(fuzz_next(&r) >> 40) / (float)(1 << 23) - 1.0f) * t[i].scale;
            put(o, &v, 4);
        }
        while (o->n % ALIGN != 0)
            put(o, "", 1);
    }
}

bool fuzz_mini_write(const char *from, const char *to)
{
    struct tensor list[2 + 1 + 9 * LAYERS];
    static uint8_t whole[64 << 10];
    FILE *f = fopen(from, "rb");
    uint64_t keys;
    if (f == NULL)
        return false;
    size_t n = fread(whole, 1, sizeof whole, f);
    fclose(f);
    if (n < 24)
        return false;
    memcpy(&keys, whole + 16, 8);
    size_t used = metadata(whole, n, keys);
    uint32_t count = tensors(list);
    uint64_t count64 = count;
    if (used == 0)
        return false;
    memcpy(whole + 8, &count64, 8);
    struct out o = { fopen(to, "wb"), 0 };
    if (o.f == NULL)
        return false;
    put(&o, whole, used);
    put_tensors(&o, list, count);
    return fclose(o.f) == 0;
}
