/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for engines: text and tokens, the life of sequences, blocks, and what
 * the flags promise. */
#include "conform/conform.h"

enum { MAX_PROMPT = 512, MAX_OUT = 64, MAX_PIECE = 4096 };

static const char *const texts[] = {
    "Once upon a time there was a little girl who lived in a house near the wood.",
    "The sun was warm. Tom and Lily went to the park to play with the big red ball.",
    "One day", "She said: \"I want to go home!\" and ran as fast as she could, and then",
};
enum { TEXTS = sizeof(texts) / sizeof(texts[0]) };

struct bench {
    struct cf_world w;
    struct cf_inst i;
    const struct pd_engine_ops *ops;
    struct pd_engine_info info;
    uint32_t inside;                /* ops that are running now */
};

struct job {
    struct bench *b;
    struct pd_seq *seq;
    int32_t prompt[MAX_PROMPT], out[MAX_OUT];
    uint32_t n_prompt, n_out, want, upto, computed, reason, close_at;
};

static void bench_start(struct bench *b, uint32_t number)
{
    b->ops = (const void *)b->w.u->ops;
    b->inside = 0;
    cf_create_ok(&b->w, &b->i, number);
    memset(&b->info, 0, sizeof(b->info));
    b->info.size = sizeof(b->info);
    b->ops->info(b->i.p, &b->info);
}

static void bench_open(struct bench *b, const struct cf_unit *u)
{
    memset(b, 0, sizeof(*b));
    cf_world_open(&b->w, u);
    bench_start(b, 0);
}

static struct pd_engine_load load_of(struct bench *b)
{
    struct pd_engine_load l;

    memset(&l, 0, sizeof(l));
    l.size = sizeof(l);
    b->ops->load(b->i.p, &l);
    return l;
}

static bool is_idle(void *arg)
{
    struct pd_engine_load l = load_of(arg);

    return l.blocks_free == l.blocks_total && l.running == 0 && l.waiting == 0;
}

static void blocks_are_back(struct bench *b)
{
    struct pd_engine_load l;
    bool idle = cf_wait(&b->w, is_idle, b, 10 * PD_SEC);

    l = load_of(b);
    CF_NEED(idle, "%u of %u blocks are free, %u sequences run and %u wait after all were closed",
            l.blocks_free, l.blocks_total, l.running, l.waiting);
}

static void bench_close(struct bench *b)
{
    blocks_are_back(b);
    cf_destroy(&b->w, &b->i);
    cf_world_close(&b->w);
}

static void on_kv(struct pd_seq *seq, uint32_t upto, void *arg)
{
    struct job *j = arg;

    (void)seq;
    CF_NEED(j->b->inside == 0, "on_kv is called from inside an op");
    CF_NEED(j->reason == 0, "on_kv comes after on_finish");
    CF_NEED(upto > j->upto && upto <= j->n_prompt, "on_kv says %u after %u of %u tokens", upto, j->upto,
            j->n_prompt);
    j->upto = upto;
}

static void job_close(struct job *j)
{
    struct pd_seq *seq = j->seq;

    j->seq = NULL;
    j->b->inside++;
    j->b->ops->seq_close(seq);
    j->b->inside--;
}

static void on_token(struct pd_seq *seq, const struct pd_token *token, void *arg)
{
    struct job *j = arg;

    CF_NEED(j->b->inside == 0, "on_token is called from inside an op");
    CF_NEED(j->seq == seq, "on_token comes for a closed sequence");
    CF_NEED(j->reason == 0, "on_token comes after on_finish");
    CF_NEED(token->id >= 0 && (uint32_t)token->id < j->b->info.vocab, "token %d of a vocabulary of %u",
            token->id, j->b->info.vocab);
    CF_NEED(token->position == j->n_prompt + j->n_out, "token of position %u, expected %u", token->position,
            j->n_prompt + j->n_out);
    CF_NEED(j->n_out < j->want, "more tokens than max_output");
    j->out[j->n_out++] = token->id;
    if (j->n_out == j->close_at)
        job_close(j);
}

static void on_finish(struct pd_seq *seq, uint32_t reason, pd_status status, void *arg)
{
    struct job *j = arg;

    (void)status;
    CF_NEED(j->b->inside == 0, "on_finish is called from inside an op");
    CF_NEED(j->seq == seq, "on_finish comes for a closed sequence");
    CF_NEED(j->reason == 0, "on_finish comes twice");
    CF_NEED(reason >= PD_FINISH_STOP && reason <= PD_FINISH_ERROR, "reason %u", reason);
    j->reason = reason;
}

static uint32_t encode(struct bench *b, const char *text, int32_t *ids, uint32_t cap)
{
    struct pd_str s = { text, strlen(text) };
    size_t n = 0;
    pd_status st = b->ops->encode(b->i.p, s, ids, cap, &n);

    CF_NEED(st == PD_OK && n > 0 && n <= cap, "encode returns %d and %zu tokens", st, n);
    return (uint32_t)n;
}

static pd_status job_try(struct bench *b, struct job *j)
{
    static const struct pd_seq_events events = { .size = sizeof(events), .on_kv = on_kv,
                                                 .on_token = on_token, .on_finish = on_finish };
    struct pd_seq_params p = { .size = sizeof(p), .n_tokens = j->n_prompt, .tokens = j->prompt,
                               .max_output = j->want, .ignore_eos = 1,
                               .cache_salt = PD_STR(""), .request_id = PD_STR("conform"),
                               .sampling = { .size = sizeof(p.sampling), .top_p = 1 } };
    pd_status st;

    j->b = b;
    b->inside++;
    st = b->ops->seq_open(b->i.p, &p, &events, j, &j->seq, &j->computed);
    b->inside--;
    return st;
}

static void job_open(struct bench *b, struct job *j, const char *text, uint32_t want)
{
    pd_status st;

    memset(j, 0, sizeof(*j));
    j->n_prompt = encode(b, text, j->prompt, MAX_PROMPT);
    j->want = want;
    st = job_try(b, j);
    CF_NEED(st == PD_OK, "seq_open returns %d", st);
    CF_NEED(j->seq != NULL, "seq_open gives no sequence");
    CF_NEED(j->computed < j->n_prompt, "%u of %u tokens are said to be computed", j->computed, j->n_prompt);
}

static void job_run(struct job *j, uint32_t mode, uint32_t upto, const struct pd_token *first)
{
    pd_status st;

    j->b->inside++;
    st = j->b->ops->seq_run(j->seq, mode, upto, first);
    j->b->inside--;
    CF_NEED(st == PD_OK, "seq_run returns %d", st);
}

static bool job_over(void *arg)
{
    struct job *j = arg;

    return j->reason != 0 || j->seq == NULL;
}

static void job_wait(struct job *j)
{
    CF_NEED(cf_wait(&j->b->w, job_over, j, 60 * PD_SEC), "a sequence does not end within 60 s");
    CF_NEED(j->reason != PD_FINISH_ERROR, "a sequence ends with an error");
}

static void job_do(struct bench *b, struct job *j, const char *text, uint32_t want)
{
    job_open(b, j, text, want);
    job_run(j, PD_RUN_DECODE, 0, NULL);
    job_wait(j);
    CF_NEED(j->reason == PD_FINISH_LENGTH && j->n_out == want,
            "%u tokens and reason %u, expected %u and LENGTH", j->n_out, j->reason, want);
    job_close(j);
}

static void same_tokens(const struct job *a, const struct job *b, const char *when)
{
    CF_NEED(a->n_out == b->n_out && memcmp(a->out, b->out, a->n_out * sizeof(a->out[0])) == 0,
            "tokens differ %s", when);
}

/* ---- what it claims */

static void run_info(const struct cf_unit *u)
{
    static const uint32_t widths[] = { 0, 4, 2, 2, 1 };
    struct bench b;
    const struct pd_layout *l = &b.info.layout;

    bench_open(&b, u);
    CF_NEED(b.info.model != NULL && b.info.model[0] != '\0', "no model is named");
    CF_NEED(b.info.vocab > 0 && b.info.context_tokens > 1 && b.info.max_running > 0,
            "vocab is %u, context_tokens %u, max_running %u", b.info.vocab, b.info.context_tokens,
            b.info.max_running);
    CF_NEED((b.info.flags & ~(uint32_t)(PD_ENGINE_EXPORT | PD_ENGINE_IMPORT | PD_ENGINE_EXACT)) == 0,
            "flags 0x%x are not known", b.info.flags);
    if ((b.info.flags & (PD_ENGINE_EXPORT | PD_ENGINE_IMPORT)) != 0) {
        CF_NEED(b.ops->seq_blocks != NULL, "EXPORT or IMPORT is claimed without the operation seq_blocks");
        CF_NEED((b.info.flags & PD_ENGINE_IMPORT) == 0 || b.ops->seq_import != NULL,
                "IMPORT is claimed without the operation seq_import");
        CF_NEED(b.info.region != NULL, "there is no region to read or write");
        CF_NEED(l->dtype >= PD_DTYPE_F32 && l->dtype <= PD_DTYPE_F8_E4M3, "dtype %u", l->dtype);
        CF_NEED(l->order == PD_KV_BLOCK_LAYER || l->order == PD_KV_LAYER_BLOCK, "order %u", l->order);
        CF_NEED(l->block_bytes == (uint64_t)2 * l->layers * l->kv_heads * l->head_dim * l->block_tokens *
                                      widths[l->dtype],
                "block_bytes is %llu", (unsigned long long)l->block_bytes);
        CF_NEED(b.info.region_bytes == b.info.blocks * l->block_bytes, "region_bytes is not blocks * block_bytes");
    }
    CF_NEED(load_of(&b).blocks_total == b.info.blocks, "load and info tell different numbers of blocks");
    bench_close(&b);
}

static void run_text(const struct cf_unit *u)
{
    struct bench b;
    int32_t ids[MAX_PROMPT];

    bench_open(&b, u);
    for (uint32_t t = 0; t < TEXTS; t++) {
        uint32_t n = encode(&b, texts[t], ids, MAX_PROMPT);
        struct pd_str text = { texts[t], strlen(texts[t]) };
        char back[MAX_PIECE];
        size_t len = 0, need = 0;
        for (uint32_t i = 0; i < n; i++) {
            struct pd_str piece = b.ops->piece(b.i.p, ids[i]);
            CF_NEED(len + piece.n < sizeof(back), "pieces are longer than the text");
            if (piece.n > 0)
                memcpy(back + len, piece.p, piece.n);
            len += piece.n;
        }
        back[len] = '\0';
        CF_NEED(strcmp(back + (back[0] == ' '), texts[t]) == 0, "\"%s\" comes back as \"%s\"", texts[t], back);
        CF_NEED(b.ops->encode(b.i.p, text, ids, n - 1, &need) == PD_ELIMIT && need >= n,
                "encode with little room does not answer PD_ELIMIT and the need");
    }
    bench_close(&b);
}

static void run_bad_text(const struct cf_unit *u)
{
    static const char *const bad[] = { "a\xff", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\xaf" };
    struct bench b;
    int32_t ids[MAX_PROMPT];

    bench_open(&b, u);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct pd_str s = { bad[i], strlen(bad[i]) };
        size_t n = 0;
        CF_NEED(b.ops->encode(b.i.p, s, ids, MAX_PROMPT, &n) == PD_EINVAL, "text %zu is not UTF-8 and is taken", i);
    }
    bench_close(&b);
}

static void run_pieces(const struct cf_unit *u)
{
    struct bench b;

    bench_open(&b, u);
    for (uint32_t id = 0; id < b.info.vocab; id++) {
        struct pd_str p = b.ops->piece(b.i.p, (int32_t)id), q = b.ops->piece(b.i.p, (int32_t)id);
        CF_NEED(p.p == q.p && p.n == q.n && p.n < 1024, "the piece of token %u does not stay", id);
    }
    bench_close(&b);
}

/* ---- sequences */

static void run_life(const struct cf_unit *u)
{
    struct bench b;
    struct job j;

    bench_open(&b, u);
    for (uint32_t t = 0; t < TEXTS; t++)
        job_do(&b, &j, texts[t], 8);
    job_open(&b, &j, texts[0], 8);              /* opened and closed, never run */
    job_close(&j);
    job_open(&b, &j, texts[1], 8);
    job_run(&j, PD_RUN_PREFILL, 0, NULL);
    job_wait(&j);
    CF_NEED(j.n_out == 1 && j.reason == PD_FINISH_LENGTH, "PREFILL gives %u tokens and reason %u", j.n_out,
            j.reason);
    CF_NEED(j.upto == j.n_prompt || j.computed > 0, "on_kv reports %u of %u tokens", j.upto, j.n_prompt);
    job_close(&j);
    bench_close(&b);
}

static void run_limits(const struct cf_unit *u)
{
    struct bench b;
    struct job j;
    int32_t *tokens;
    uint32_t n;

    bench_open(&b, u);
    n = b.info.context_tokens + 1;
    tokens = calloc(n, sizeof(*tokens));
    assert_non_null(tokens);
    memset(&j, 0, sizeof(j));
    encode(&b, texts[0], j.prompt, MAX_PROMPT);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = j.prompt[0];
    {
        struct pd_seq_params p = { .size = sizeof(p), .n_tokens = n, .tokens = tokens, .max_output = 1,
                                   .cache_salt = PD_STR(""), .request_id = PD_STR("long"),
                                   .sampling = { .size = sizeof(p.sampling), .top_p = 1 } };
        static const struct pd_seq_events none = { .size = sizeof(none), .on_token = on_token,
                                                   .on_finish = on_finish };
        pd_status st = b.ops->seq_open(b.i.p, &p, &none, &j, &j.seq, &j.computed);
        CF_NEED(st == PD_ELIMIT, "a prompt longer than the context is answered %d, expected PD_ELIMIT", st);
    }
    free(tokens);
    bench_close(&b);
}

static void run_cancel(const struct cf_unit *u)
{
    struct bench b;
    struct job j[TEXTS];
    uint64_t rng = 3;

    bench_open(&b, u);
    for (uint32_t round = 0; round < 12; round++) {
        for (uint32_t t = 0; t < TEXTS; t++) {
            job_open(&b, &j[t], texts[t], 30);
            j[t].close_at = t % 2 == 0 ? 1 + (uint32_t)(cf_random(&rng) % 10) : 0;
            job_run(&j[t], t == 1 ? PD_RUN_PREFILL : PD_RUN_DECODE, 0, NULL);
        }
        for (uint64_t n = cf_random(&rng) % 8; n > 0; n--)
            cf_turn(&b.w, PD_MS);
        for (uint32_t t = 0; t < TEXTS; t++) {
            if (t % 2 == 0 && round % 3 != 0)
                job_wait(&j[t]);
            if (j[t].seq != NULL)
                job_close(&j[t]);
        }
        blocks_are_back(&b);
    }
    bench_close(&b);
}

static void need_exact(const struct bench *b)
{
    if ((b->info.flags & PD_ENGINE_EXACT) == 0)
        cf_skip("EXACT is not claimed");
}

static void run_batched(const struct cf_unit *u)
{
    struct bench b;
    struct job alone[TEXTS], again, j[TEXTS];

    bench_open(&b, u);
    need_exact(&b);
    for (uint32_t t = 0; t < TEXTS; t++) {
        job_do(&b, &alone[t], texts[t], 16);
        job_do(&b, &again, texts[t], 16);
        same_tokens(&alone[t], &again, "when the prompt is known already");
    }
    cf_destroy(&b.w, &b.i);
    bench_start(&b, 1);
    for (uint32_t t = 0; t < TEXTS; t++) {
        job_open(&b, &j[t], texts[t], 16);
        job_run(&j[t], PD_RUN_DECODE, 0, NULL);
    }
    for (uint32_t t = 0; t < TEXTS; t++) {
        job_wait(&j[t]);
        same_tokens(&alone[t], &j[t], "in company");
        job_close(&j[t]);
    }
    bench_close(&b);
}

/* KV that ends in the middle of a prompt, then the rest. */
static void run_chunked(const struct cf_unit *u)
{
    struct bench b;
    struct job alone, part, rest;

    bench_open(&b, u);
    need_exact(&b);
    job_do(&b, &alone, texts[0], 12);
    cf_destroy(&b.w, &b.i);
    bench_start(&b, 1);
    job_open(&b, &part, texts[0], 1);
    job_run(&part, PD_RUN_PREFILL_ONLY, part.n_prompt / 2, NULL);
    job_wait(&part);
    CF_NEED(part.n_out == 0, "PREFILL_ONLY samples a token");
    job_close(&part);
    job_do(&b, &rest, texts[0], 12);
    same_tokens(&alone, &rest, "when the prompt is computed in two parts");
    bench_close(&b);
}

/* ---- hand-over */

/* The piece p of block `index`: layouts differ in where a block's layers are. */
static uint8_t *block_at(const struct bench *b, uint32_t index, uint32_t part, uint32_t parts)
{
    const struct pd_layout *l = &b->info.layout;
    uint64_t bytes = l->block_bytes / parts;

    if (l->order == PD_KV_BLOCK_LAYER)
        return (uint8_t *)b->info.region + index * l->block_bytes + part * bytes;
    return (uint8_t *)b->info.region + ((uint64_t)part * b->info.blocks + index) * bytes;
}

static void blocks_of(struct job *j, uint32_t n, uint32_t *index)
{
    pd_status st;

    st = j->b->ops->seq_blocks(j->seq, 0, n, index, NULL);
    CF_NEED(st == PD_OK, "seq_blocks returns %d", st);
    for (uint32_t i = 0; i < n; i++) {
        CF_NEED(index[i] < j->b->info.blocks, "block %u of %u", index[i], j->b->info.blocks);
        for (uint32_t k = 0; k < i; k++)
            CF_NEED(index[k] != index[i], "a sequence has block %u twice", index[i]);
    }
}

static void run_handover(const struct cf_unit *u)
{
    static struct bench p, d;
    struct job alone, from, to;
    uint32_t blocks, parts, at_p[MAX_PROMPT], at_d[MAX_PROMPT];
    struct pd_token first = { .size = sizeof(first) };

    bench_open(&p, u);
    if ((p.info.flags & (PD_ENGINE_EXPORT | PD_ENGINE_IMPORT)) != (PD_ENGINE_EXPORT | PD_ENGINE_IMPORT))
        cf_skip("EXPORT and IMPORT are not both claimed");
    bench_open(&d, u);
    job_do(&d, &alone, texts[0], 16);
    cf_destroy(&d.w, &d.i);
    bench_start(&d, 1);
    job_open(&p, &from, texts[0], 16);
    job_run(&from, PD_RUN_PREFILL, 0, NULL);
    job_wait(&from);
    CF_NEED(from.upto == from.n_prompt, "on_kv reports %u of %u tokens", from.upto, from.n_prompt);
    CF_NEED(from.n_out == 1, "no first token");
    job_open(&d, &to, texts[0], 16);
    CF_NEED(to.computed == 0, "a new engine has %u tokens", to.computed);
    blocks = (from.n_prompt + p.info.layout.block_tokens - 1) / p.info.layout.block_tokens;
    blocks_of(&from, blocks, at_p);
    blocks_of(&to, blocks, at_d);
    parts = 2 * p.info.layout.layers;
    for (uint32_t i = 0; i < blocks; i++)
        for (uint32_t k = 0; k < parts; k++)
            memcpy(block_at(&d, at_d[i], k, parts), block_at(&p, at_p[i], k, parts),
                   (size_t)(p.info.layout.block_bytes / parts));
    job_close(&from);
    d.inside++;
    assert_int_equal(d.ops->seq_import(to.seq, to.n_prompt), PD_OK);
    d.inside--;
    first.id = from.out[0];
    first.position = to.n_prompt;
    job_run(&to, PD_RUN_DECODE, 0, &first);
    job_wait(&to);
    CF_NEED(to.n_out > 0 && to.out[0] == first.id, "the token that was handed over is not delivered first");
    if ((p.info.flags & PD_ENGINE_EXACT) != 0)
        same_tokens(&alone, &to, "after a hand-over");
    job_close(&to);
    bench_close(&d);
    bench_close(&p);
}

const struct cf_case cf_engine_cases[] = {
    { "info", "flags have their operations, layout and region fit", run_info },
    { "text", "text becomes tokens and text again", run_text },
    { "bad_text", "text that is not UTF-8 is refused", run_bad_text },
    { "pieces", "every token has a piece that stays", run_pieces },
    { "life", "opened, run to the end, closed; no event inside an operation", run_life },
    { "limits", "a prompt that can never fit is refused", run_limits },
    { "cancel", "closed at any time: blocks come back, no event follows", run_cancel },
    { "batched", "EXACT: the same tokens alone, again and in company", run_batched },
    { "chunked", "EXACT: the same tokens when the prompt was computed in parts", run_chunked },
    { "handover", "EXPORT and IMPORT: blocks of one engine continue in another", run_handover },
    { NULL, NULL, NULL },
};
