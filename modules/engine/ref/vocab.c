/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizer.  Text is split into characters; then the neighbouring pair whose
 * joined text is the best piece (highest score, leftmost on a tie) is joined
 * until no pair is a piece.  Candidates wait in a heap ordered by score and
 * place, so a text of n characters costs n log n.  Invariant: the heap holds
 * every pair that is a piece now; entries of pairs that have changed since are
 * recognised by their length and dropped. */
#include "vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NORMAL = 1, UNKNOWN = 2, CONTROL = 3, UNUSED = 5, BYTE = 6,
    MAX_PIECE = 4096,
    MAX_TEXT = 1 << 24,
    MAX_IDS = 1 << 24
};

struct piece {
    struct pd_str text;         /* as in the file */
    struct pd_str bytes;        /* as it decodes */
    float score;
    uint32_t kind;
    bool end;
};

struct ref_vocab {
    uint32_t n;
    struct piece *piece;
    char *text;                 /* memory of all pieces */
    uint32_t *table, mask;      /* open hash of normal pieces, id + 1 */
    size_t longest;
    uint32_t byte_id[256];
    uint32_t *special;          /* control and unknown pieces */
    uint32_t specials;
    bool add_bos, space_prefix;
    uint32_t bos;
};

struct symbol {
    uint32_t at, len;           /* len 0: joined into its left neighbour */
    uint32_t prev, next;        /* UINT32_MAX at the ends */
};

struct pair {
    float score;
    uint32_t left, len, id;     /* left symbol and joined length */
};

struct merge {
    const struct ref_vocab *v;
    const char *text;
    struct symbol *sym;
    struct pair *heap;
    uint32_t count;
};

static uint32_t hash_text(const char *p, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)p[i]) * 16777619u;
    return h ^ h >> 15;
}

/* Id of the normal piece with this text, or UINT32_MAX. */
static uint32_t find(const struct ref_vocab *v, const char *p, size_t n)
{
    if (n > v->longest)
        return UINT32_MAX;
    for (uint32_t h = hash_text(p, n); v->table[h & v->mask] != 0; h++) {
        uint32_t id = v->table[h & v->mask] - 1;
        if (v->piece[id].text.n == n && memcmp(v->piece[id].text.p, p, n) == 0)
            return id;
    }
    return UINT32_MAX;
}

static bool before(const struct pair *a, const struct pair *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void push(struct merge *m, struct pair x)
{
    uint32_t i = m->count++;
    for (; i > 0 && before(&x, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = x;
}

static struct pair pop(struct merge *m)
{
    struct pair top = m->heap[0], x = m->heap[--m->count];
    uint32_t i = 0;

    for (uint32_t c; (c = 2 * i + 1) < m->count; i = c) {
        if (c + 1 < m->count && before(&m->heap[c + 1], &m->heap[c]))
            c++;
        if (!before(&m->heap[c], &x))
            break;
        m->heap[i] = m->heap[c];
    }
    m->heap[i] = x;
    return top;
}

/* Offers the pair of symbol i and its right neighbour. */
static void offer(struct merge *m, uint32_t i)
{
    const struct symbol *s = &m->sym[i];
    uint32_t len, id;

    if (s->next == UINT32_MAX)
        return;
    len = s->len + m->sym[s->next].len;
    id = find(m->v, m->text + s->at, len);
    if (id != UINT32_MAX)
        push(m, (struct pair){ m->v->piece[id].score, i, len, id });
}

static uint32_t split(const char *text, size_t n, struct symbol *sym)
{
    uint32_t k = 0;

    for (size_t i = 0; i < n; k++) {
        uint8_t c = (uint8_t)text[i];
        size_t len = c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        if (len > n - i)
            len = n - i;
        sym[k] = (struct symbol){ (uint32_t)i, (uint32_t)len, k - 1, k + 1 };
        i += len;
    }
    sym[0].prev = UINT32_MAX;
    sym[k - 1].next = UINT32_MAX;
    return k;
}

static void join_all(struct merge *m, uint32_t count)
{
    for (uint32_t i = 0; i + 1 < count; i++)
        offer(m, i);
    while (m->count > 0) {
        struct pair p = pop(m);
        struct symbol *s = &m->sym[p.left];
        if (s->len == 0 || s->next == UINT32_MAX || s->len + m->sym[s->next].len != p.len)
            continue;
        m->sym[s->next].len = 0;
        s->len = p.len;
        s->next = m->sym[s->next].next;
        if (s->next != UINT32_MAX)
            m->sym[s->next].prev = p.left;
        offer(m, p.left);
        if (s->prev != UINT32_MAX)
            offer(m, s->prev);
    }
}

pd_status ref_ids_add(struct ref_ids *to, uint32_t id)
{
    if (to->n == to->room) {
        size_t limit = to->limit != 0 ? to->limit : MAX_IDS, room = to->room * 2 + 64;
        uint32_t *ids;
        if (to->n >= limit)
            return PD_ELIMIT;
        room = room < limit ? room : limit;
        ids = realloc(to->ids, room * sizeof(*ids));
        if (ids == NULL)
            return PD_ENOMEM;
        to->ids = ids;
        to->room = room;
    }
    to->ids[to->n++] = id;
    return PD_OK;
}

static pd_status emit(const struct ref_vocab *v, const char *p, size_t n, struct ref_ids *to)
{
    uint32_t id = find(v, p, n);
    pd_status s = PD_OK;

    if (id != UINT32_MAX)
        return ref_ids_add(to, id);
    for (size_t i = 0; i < n && s == PD_OK; i++)
        s = ref_ids_add(to, v->byte_id[(uint8_t)p[i]]);
    return s;
}

/* Text without special pieces; spaces become U+2581 first. */
static pd_status encode_plain(const struct ref_vocab *v, const char *p, size_t n, struct ref_ids *to)
{
    struct merge m = { .v = v };
    char *text = malloc(3 * n + 3);
    size_t k = 0;
    uint32_t count;
    pd_status s = PD_OK;

    if (text == NULL)
        return PD_ENOMEM;
    if (v->space_prefix) {
        memcpy(text, "\xe2\x96\x81", 3);
        k = 3;
    }
    for (size_t i = 0; i < n; i++) {
        if (p[i] == ' ') {
            memcpy(text + k, "\xe2\x96\x81", 3);
            k += 3;
        } else {
            text[k++] = p[i];
        }
    }
    m.text = text;
    m.sym = malloc(k * sizeof(*m.sym));
    if (m.sym == NULL) {
        free(text);
        return PD_ENOMEM;
    }
    count = split(text, k, m.sym);
    /* one entry per first pair and at most two per join, of which there are fewer than symbols */
    m.heap = malloc((size_t)count * 3 * sizeof(*m.heap));
    if (m.heap != NULL)
        join_all(&m, count);
    else
        s = PD_ENOMEM;
    for (uint32_t i = 0; i != UINT32_MAX && s == PD_OK; i = m.sym[i].next)
        s = emit(v, text + m.sym[i].at, m.sym[i].len, to);
    free(m.heap);
    free(m.sym);
    free(text);
    return s;
}

/* The special piece at p, or UINT32_MAX; the longest if several fit. */
static uint32_t special_at(const struct ref_vocab *v, const char *p, size_t n)
{
    uint32_t best = UINT32_MAX;
    size_t len = 0;

    for (uint32_t i = 0; i < v->specials; i++) {
        struct pd_str t = v->piece[v->special[i]].text;
        if (t.n > len && t.n <= n && t.p[0] == p[0] && memcmp(t.p, p, t.n) == 0) {
            best = v->special[i];
            len = t.n;
        }
    }
    return best;
}

pd_status ref_vocab_encode(const struct ref_vocab *v, struct pd_str text, uint32_t flags,
                           struct ref_ids *to)
{
    size_t start = 0;
    pd_status s = PD_OK;

    if (text.n > MAX_TEXT)
        return PD_ELIMIT;
    if ((flags & REF_ENCODE_BOS) != 0 && v->add_bos)
        s = ref_ids_add(to, v->bos);
    for (size_t i = 0; i < text.n && s == PD_OK && (flags & REF_ENCODE_SPECIAL) != 0;) {
        uint32_t id = special_at(v, text.p + i, text.n - i);
        if (id == UINT32_MAX) {
            i++;
            continue;
        }
        if (i > start)
            s = encode_plain(v, text.p + start, i - start, to);
        if (s == PD_OK)
            s = ref_ids_add(to, id);
        i += v->piece[id].text.n;
        start = i;
    }
    if (s == PD_OK && text.n > start)
        s = encode_plain(v, text.p + start, text.n - start, to);
    return s;
}

size_t ref_vocab_least(const struct ref_vocab *v, size_t n)
{
    return n / (v->longest > 0 ? v->longest : 1);
}

struct pd_str ref_vocab_bytes(const struct ref_vocab *v, uint32_t id)
{
    return id < v->n ? v->piece[id].bytes : (struct pd_str){ "", 0 };
}

bool ref_vocab_is_end(const struct ref_vocab *v, uint32_t id)
{
    return id < v->n && v->piece[id].end;
}

bool ref_vocab_special(const struct ref_vocab *v, const char *text, uint32_t *id)
{
    for (uint32_t i = 0; i < v->specials; i++) {
        struct pd_str t = v->piece[v->special[i]].text;
        if (v->piece[v->special[i]].kind == CONTROL && t.n == strlen(text) &&
            memcmp(t.p, text, t.n) == 0) {
            *id = v->special[i];
            return true;
        }
    }
    return false;
}

uint32_t ref_vocab_size(const struct ref_vocab *v)
{
    return v->n;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Bytes that piece i decodes to, written at to; NULL when a byte piece is malformed. */
static char *decode_piece(struct ref_vocab *v, struct piece *p, uint32_t id, char *to)
{
    char *from = to;

    if (p->kind == BYTE) {
        const char *t = p->text.p;
        if (p->text.n != 6 || memcmp(t, "<0x", 3) != 0 || t[5] != '>' || hex(t[3]) < 0 || hex(t[4]) < 0)
            return NULL;
        v->byte_id[hex(t[3]) * 16 + hex(t[4])] = id;
        *to++ = (char)(hex(t[3]) * 16 + hex(t[4]));
    } else if (p->kind == NORMAL) {
        for (size_t i = 0; i < p->text.n;) {
            bool space = p->text.n - i >= 3 && memcmp(p->text.p + i, "\xe2\x96\x81", 3) == 0;
            *to++ = space ? ' ' : p->text.p[i];
            i += space ? 3 : 1;
        }
    }
    p->bytes = (struct pd_str){ from, (size_t)(to - from) };
    return to;
}

static void insert(struct ref_vocab *v, uint32_t id)
{
    struct pd_str t = v->piece[id].text;
    uint32_t h = hash_text(t.p, t.n);

    if (t.n > v->longest)
        v->longest = t.n;
    else if (find(v, t.p, t.n) != UINT32_MAX)
        return;                 /* the lowest id counts */
    while (v->table[h & v->mask] != 0)
        h++;
    v->table[h & v->mask] = id + 1;
}

static pd_status read_pieces(struct ref_vocab *v, const struct ref_gguf *g, struct ref_gguf_array tokens,
                             const struct ref_gguf_array *scores, const struct ref_gguf_array *kinds,
                             struct pd_err *err)
{
    char *to = v->text, *bytes;
    struct pd_str s;

    for (uint32_t i = 0; i < v->n && ref_gguf_next_str(&tokens, &s); i++) {
        struct piece *p = &v->piece[i];
        p->score = ref_gguf_array_f32(scores, i);
        p->kind = ref_gguf_array_u32(kinds, i);
        if (s.n == 0 || s.n > MAX_PIECE)
            return ref_err(err, PD_EINVAL, ref_gguf_name(g), "piece %u of the vocabulary has %zu bytes", i, s.n);
        if (p->score != p->score)
            return ref_err(err, PD_EINVAL, ref_gguf_name(g), "piece %u of the vocabulary has no score", i);
        if (p->kind < NORMAL || p->kind > BYTE || p->kind == 4)
            return ref_err(err, PD_EINVAL, ref_gguf_name(g),
                           "piece %u of the vocabulary has type %u, which this engine does not read", i,
                           p->kind);
        memcpy(to, s.p, s.n);
        p->text = (struct pd_str){ to, s.n };
        bytes = decode_piece(v, p, i, to + s.n);
        if (bytes == NULL)
            return ref_err(err, PD_EINVAL, ref_gguf_name(g), "piece %u of the vocabulary is no byte piece", i);
        to = bytes;
        if (p->kind == NORMAL)
            insert(v, i);
        if (p->kind == CONTROL || p->kind == UNKNOWN)
            v->special[v->specials++] = i;
    }
    for (int i = 0; i < 256; i++)
        if (v->byte_id[i] == UINT32_MAX)
            return ref_err(err, PD_EINVAL, ref_gguf_name(g), "the vocabulary has no piece for byte 0x%02x", (unsigned)i);
    if (v->specials > 4096)
        return ref_err(err, PD_ELIMIT, ref_gguf_name(g), "the vocabulary has more than 4096 special pieces");
    return PD_OK;
}

/* End-of-text and end-of-turn ids, by key and by well-known text. */
static pd_status read_ends(struct ref_vocab *v, const struct ref_gguf *g, struct pd_err *err)
{
    static const char *const keys[] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    static const char *const texts[] = { "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end|>" };
    uint32_t id;
    bool any = false;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (!ref_gguf_u32(g, keys[i], &id))
            continue;
        if (id >= v->n)
            return ref_err(err, PD_EINVAL, ref_gguf_name(g), "%s is %u, outside the vocabulary", keys[i], id);
        any = v->piece[id].end = true;
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (ref_vocab_special(v, texts[i], &id))
            any = v->piece[id].end = true;
    if (!any)
        return ref_err(err, PD_EINVAL, ref_gguf_name(g), "the vocabulary has no end of text");
    v->add_bos = v->space_prefix = true;    /* what the format says when the keys are absent */
    ref_gguf_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos);
    ref_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &v->space_prefix);
    if (v->add_bos && (!ref_gguf_u32(g, "tokenizer.ggml.bos_token_id", &v->bos) || v->bos >= v->n))
        return ref_err(err, PD_EINVAL, ref_gguf_name(g), "tokenizer.ggml.bos_token_id is missing or outside the vocabulary");
    return PD_OK;
}

static pd_status fill(struct ref_vocab *v, const struct ref_gguf *g, struct pd_err *err)
{
    struct ref_gguf_array tokens, scores, kinds;
    struct pd_str model;
    pd_status s;

    if (!ref_gguf_str(g, "tokenizer.ggml.model", &model) || model.n != 5 || memcmp(model.p, "llama", 5) != 0)
        return ref_err(err, PD_EINVAL, ref_gguf_name(g), "tokenizer.ggml.model is not llama, the only kind this engine reads");
    if (!ref_gguf_array(g, "tokenizer.ggml.tokens", &tokens) || tokens.type != REF_GGUF_STR ||
        !ref_gguf_array(g, "tokenizer.ggml.scores", &scores) || scores.type != REF_GGUF_F32 ||
        !ref_gguf_array(g, "tokenizer.ggml.token_type", &kinds) ||
        (kinds.type != REF_GGUF_I32 && kinds.type != REF_GGUF_U32))
        return ref_err(err, PD_EINVAL, ref_gguf_name(g), "tokens, scores or token types of the vocabulary are missing");
    if (tokens.count < 257 || tokens.count > 1 << 20 || scores.count != tokens.count || kinds.count != tokens.count)
        return ref_err(err, PD_EINVAL, ref_gguf_name(g), "the vocabulary has %llu tokens, %llu scores and %llu types",
                       (unsigned long long)tokens.count, (unsigned long long)scores.count,
                       (unsigned long long)kinds.count);
    v->n = (uint32_t)tokens.count;
    for (v->mask = 1; v->mask < 2 * v->n;)
        v->mask *= 2;
    v->table = calloc(v->mask, sizeof(*v->table));
    v->mask--;
    v->piece = calloc(v->n, sizeof(*v->piece));
    v->special = calloc(v->n, sizeof(*v->special));
    v->text = malloc(2 * (size_t)(tokens.end - tokens.p) + 1);
    memset(v->byte_id, 0xff, sizeof(v->byte_id));
    if (v->table == NULL || v->piece == NULL || v->special == NULL || v->text == NULL)
        return ref_err(err, PD_ENOMEM, ref_gguf_name(g), "out of memory");
    s = read_pieces(v, g, tokens, &scores, &kinds, err);
    return s == PD_OK ? read_ends(v, g, err) : s;
}

pd_status ref_vocab_load(const struct ref_gguf *g, struct ref_vocab **out, struct pd_err *err)
{
    struct ref_vocab *v = calloc(1, sizeof(*v));
    pd_status s = v != NULL ? fill(v, g, err) : ref_err(err, PD_ENOMEM, ref_gguf_name(g), "out of memory");

    *out = NULL;
    if (s == PD_OK)
        *out = v;
    else
        ref_vocab_free(v);
    return s;
}

void ref_vocab_free(struct ref_vocab *v)
{
    if (v == NULL)
        return;
    free(v->table);
    free(v->piece);
    free(v->special);
    free(v->text);
    free(v);
}
