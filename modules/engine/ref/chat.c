/* SPDX-License-Identifier: Apache-2.0 */
/* Chat templates.  A template is reduced to a canonical text (tags, names and
 * string contents, without layout, quotes and ways to spell the same thing) and
 * compared with the few shapes that mean ChatML; anything else is refused, since
 * a wrong guess gives wrong prompts silently.  Invariant: markers come from ids
 * of the vocabulary, never from parsing text. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATE = 16384, MAX_WORD = 256 };

/* Reads a template and writes its canonical text. */
struct reader {
    const char *p, *end;
    char *out;
    size_t n, room;
    char loop_var[64];
    bool bad;
};

static void put(struct reader *r, const char *s, size_t n)
{
    if (r->n + n > r->room) {
        r->bad = true;
        return;
    }
    memcpy(r->out + r->n, s, n);
    r->n += n;
}

static bool at(const struct reader *r, const char *s)
{
    return (size_t)(r->end - r->p) >= strlen(s) && memcmp(r->p, s, strlen(s)) == 0;
}

static bool word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static size_t word(struct reader *r, char *w)
{
    size_t n = 0;
    while (r->p < r->end && word_char(*r->p) && n < MAX_WORD - 1)
        w[n++] = *r->p++;
    w[n] = 0;
    return n;
}

/* A string literal at r->p, without quotes and with \n resolved. */
static size_t literal(struct reader *r, char *w)
{
    char quote = *r->p++;
    size_t n = 0;

    while (r->p < r->end && *r->p != quote && n < MAX_WORD - 1) {
        char c = *r->p++;
        if (c == '\\' && r->p < r->end) {
            c = *r->p++;
            if (c == 'n')
                c = '\n';
            else if (c != '\\' && c != '\'' && c != '"')
                r->bad = true;
        }
        w[n++] = c;
    }
    if (r->p == r->end || *r->p != quote)
        r->bad = true;
    else
        r->p++;
    return n;
}

/* A name, with m['role'] and m["role"] spelled m.role and the loop variable m. */
static void name(struct reader *r)
{
    char w[MAX_WORD], key[MAX_WORD];
    size_t n = word(r, w), k;

    if (strcmp(w, "for") == 0) {
        put(r, "for m ", 6);
        while (r->p < r->end && (*r->p == ' ' || *r->p == '\t'))
            r->p++;
        n = word(r, w);
        if (n >= sizeof(r->loop_var))
            r->bad = true;
        else
            memcpy(r->loop_var, w, n + 1);
        return;
    }
    if (r->loop_var[0] != 0 && strcmp(w, r->loop_var) == 0) {
        put(r, "m", 1);
        if (r->p + 1 < r->end && r->p[0] == '[' && (r->p[1] == '\'' || r->p[1] == '"')) {
            r->p++;
            k = literal(r, key);
            put(r, ".", 1);
            put(r, key, k);
            if (r->p == r->end || *r->p++ != ']')
                r->bad = true;
        } else if (r->p < r->end && *r->p == '.') {
            r->p++;
            k = word(r, key);
            put(r, ".", 1);
            put(r, key, k);
        }
    } else {
        put(r, w, n);
    }
    put(r, " ", 1);
}

/* The inside of a tag up to its close mark; + between strings disappears, so that
 * 'a' + 'b' equals 'ab'. */
static void tag(struct reader *r, const char *close)
{
    char w[MAX_WORD];
    bool plus = false, string = false;
    size_t n;

    if (r->p < r->end && *r->p == '-')
        r->p++;
    while (r->p < r->end && !r->bad) {
        if (at(r, close) || (*r->p == '-' && r->end - r->p > 2 && memcmp(r->p + 1, close, 2) == 0)) {
            r->p += *r->p == '-' ? 3 : 2;
            if (string)
                put(r, "\"", 1);
            return;
        }
        if (*r->p == ' ' || *r->p == '\n' || *r->p == '\t') {
            r->p++;
        } else if (*r->p == '+') {
            plus = true;
            r->p++;
        } else if (*r->p == '\'' || *r->p == '"') {
            n = literal(r, w);
            if (!string)
                put(r, "\"", 1);
            else if (!plus)
                r->bad = true;
            put(r, w, n);
            string = true;
            plus = false;
        } else if (word_char(*r->p)) {
            if (string)
                put(r, "\"", 1);
            string = plus = false;
            name(r);
        } else if (*r->p == '=') {
            put(r, "= ", 2);
            r->p++;
        } else {
            r->bad = true;
        }
    }
    r->bad = true;
}

static void canonical(struct reader *r)
{
    while (r->p < r->end && !r->bad) {
        if (at(r, "{%") || at(r, "{{")) {
            bool block = r->p[1] == '%';
            r->p += 2;
            put(r, block ? "%" : "{", 1);
            tag(r, block ? "%}" : "}}");
        } else if (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t') {
            r->p++;             /* layout between tags */
        } else {
            r->bad = true;
        }
    }
}

bool ref_chat_is_chatml(struct pd_str jinja)
{
    static const char *const prefix[] = {
        "",
        "%if not add_generation_prompt is defined %set add_generation_prompt = false %endif ",
    };
    static const char body[] = "%for m in messages {\"<|im_start|>\"m.role \"\n\"m.content \"<|im_end|>\n\"%endfor "
                               "%if add_generation_prompt {\"<|im_start|>assistant\n\"%endif ";
    struct reader r = { .p = jinja.p, .end = jinja.p + jinja.n };
    bool yes = false;

    if (jinja.n > MAX_TEMPLATE)
        return false;
    r.room = 2 * jinja.n + 64;
    r.out = malloc(r.room);
    if (r.out == NULL)
        return false;
    canonical(&r);
    for (size_t i = 0; i < sizeof(prefix) / sizeof(prefix[0]) && !r.bad; i++) {
        size_t k = strlen(prefix[i]);
        yes = yes || (r.n == k + sizeof(body) - 1 && memcmp(r.out, prefix[i], k) == 0 &&
                      memcmp(r.out + k, body, sizeof(body) - 1) == 0);
    }
    free(r.out);
    return yes;
}

pd_status ref_chat_load(const struct ref_gguf *g, const struct ref_vocab *v, struct ref_chat *c,
                        struct pd_err *err)
{
    struct pd_str jinja;

    memset(c, 0, sizeof(*c));
    if (!ref_gguf_has(g, "tokenizer.chat_template"))
        return PD_OK;
    if (!ref_gguf_str(g, "tokenizer.chat_template", &jinja) || !ref_chat_is_chatml(jinja))
        return ref_err(err, PD_EINVAL, ref_gguf_name(g),
                       "the chat template of the model is not ChatML, the only kind this engine renders");
    if (!ref_vocab_special(v, "<|im_start|>", &c->start) || !ref_vocab_special(v, "<|im_end|>", &c->end))
        return ref_err(err, PD_EINVAL, ref_gguf_name(g),
                       "the chat template is ChatML, but the vocabulary lacks its markers");
    c->known = true;
    return PD_OK;
}

static bool known_role(struct pd_str s)
{
    static const char *const roles[] = { "system", "user", "assistant" };
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (s.n == strlen(roles[i]) && memcmp(s.p, roles[i], s.n) == 0)
            return true;
    return false;
}

/* One message: marker, role, line break and content as one text, marker, line break. */
static pd_status encode_message(const struct ref_chat *c, const struct ref_vocab *v,
                                const struct ref_chat_message *m, struct ref_ids *to)
{
    size_t n = m->role.n + 1 + m->content.n;
    char *text;
    pd_status s;

    if (m->content.n > MAX_TEMPLATE * 1024u)
        return PD_ELIMIT;
    text = malloc(n);
    if (text == NULL)
        return PD_ENOMEM;
    memcpy(text, m->role.p, m->role.n);
    text[m->role.n] = '\n';
    if (m->content.n > 0)
        memcpy(text + m->role.n + 1, m->content.p, m->content.n);
    s = ref_ids_add(to, c->start);
    if (s == PD_OK)
        s = ref_vocab_encode(v, (struct pd_str){ text, n }, 0, to);
    if (s == PD_OK)
        s = ref_ids_add(to, c->end);
    if (s == PD_OK)
        s = ref_vocab_encode(v, PD_STR("\n"), 0, to);
    free(text);
    return s;
}

pd_status ref_chat_encode(const struct ref_chat *c, const struct ref_vocab *v,
                          const struct ref_chat_message *m, size_t n, bool answer, struct ref_ids *to)
{
    pd_status s;

    if (!c->known)
        return PD_ENOSYS;
    for (size_t i = 0; i < n; i++)
        if (!known_role(m[i].role))
            return PD_EINVAL;
    if (n == 0)
        return PD_EINVAL;
    s = ref_vocab_encode(v, PD_STR(""), REF_ENCODE_BOS, to);
    for (size_t i = 0; i < n && s == PD_OK; i++)
        s = encode_message(c, v, &m[i], to);
    if (s == PD_OK && answer)
        s = ref_ids_add(to, c->start);
    if (s == PD_OK && answer)
        s = ref_vocab_encode(v, PD_STR("assistant\n"), 0, to);
    return s;
}
