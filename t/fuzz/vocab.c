/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer on the model of this repository: the tokens of a text are the
 * text again, and no text of a user makes a marker.
 *
 * Input: mode, then text; in mode 1 a chat template, in 2 and 3 only one of the
 * two checks. */
#include "fuzz.h"

#include "chat.h"
#include "gguf.h"
#include "vocab.h"

static struct ref_vocab *vocab;
static struct ref_chat chat;

static void load(void)
{
    const char *src = getenv("PD_SRCDIR");
    char path[4096];
    struct ref_gguf *g;
    struct pd_err err = { 0 };
    snprintf(path, sizeof path, "%s/contrib/tinymodel/tiny.gguf", src != NULL ? src : FUZZ_SRCDIR);
    FUZZ_CHECK(ref_gguf_open(path, &g, &err) == PD_OK);
    FUZZ_CHECK(ref_vocab_load(g, &vocab, &err) == PD_OK);
    FUZZ_CHECK(ref_chat_load(g, vocab, &chat, &err) == PD_OK && chat.known);
    ref_gguf_close(g);
}

/* U+2581 and a blank are the same to this tokenizer. */
static size_t blanks(const char *p, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        bool is = n - i >= 3 && memcmp(p + i, "\xe2\x96\x81", 3) == 0;
        out[k++] = is ? ' ' : p[i];
        i += is ? 3 : 1;
    }
    return k;
}

static void encode(struct pd_str text)
{
    static struct ref_ids ids;
    ids.n = 0;
    /* In what is not UTF-8 a blank can come back as the three bytes of U+2581. */
    static char want[FUZZ_ROOM], raw[3 * FUZZ_ROOM + 16], got[3 * FUZZ_ROOM + 16];
    size_t n = 0;
    FUZZ_CHECK(ref_vocab_encode(vocab, text, 0, &ids) == PD_OK);
    FUZZ_CHECK(ids.n >= ref_vocab_least(vocab, text.n));
    for (size_t i = 0; i < ids.n; i++) {
        struct pd_str b = ref_vocab_bytes(vocab, ids.ids[i]);
        FUZZ_CHECK(ids.ids[i] < ref_vocab_size(vocab) && b.n > 0);
        FUZZ_CHECK(ids.ids[i] != chat.start && ids.ids[i] != chat.end);
        FUZZ_CHECK(n + b.n <= 3 * text.n + 16);
        memcpy(raw + n, b.p, b.n);
        n += b.n;
    }
    size_t a = blanks(text.p, text.n, want), b = blanks(raw, n, got), skip = b > a ? 1 : 0;
    FUZZ_CHECK(b == a + skip && (skip == 0 || got[0] == ' '));
    FUZZ_CHECK(memcmp(want, got + skip, a) == 0);
}

static void talk(struct pd_str text)
{
    static struct ref_ids ids;
    ids.n = 0;
    struct ref_chat_message m[2] = { { PD_STR("system"), { text.p, text.n / 2 } },
                                     { PD_STR("user"), { text.p + text.n / 2, text.n - text.n / 2 } } };
    size_t starts = 0, ends = 0;
    FUZZ_CHECK(ref_chat_encode(&chat, vocab, m, 2, true, &ids) == PD_OK);
    for (size_t i = 0; i < ids.n; i++) {
        starts += ids.ids[i] == chat.start;
        ends += ids.ids[i] == chat.end;
    }
    FUZZ_CHECK(starts == 3 && ends == 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    if (vocab == NULL)
        load();
    uint8_t mode = fuzz_u8(&in);
    struct pd_str text;
    char *p = fuzz_rest(&in, &text.n);
    text.p = p;
    if (mode == 1) {
        (void)ref_chat_is_chatml(text);
    } else if (text.n <= FUZZ_ROOM) {
        if (mode != 2)
            encode(text);
        if (mode != 3)
            talk(text);
    }
    fuzz_back(p, text.n);
    return 0;
}
