/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for engines: text and tokens, the life of sequences, blocks, and what
 * the flags promise. */
#include "conform/engine_job.h"

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
    CF_NEED(bench_load(&b).blocks_total == b.info.blocks, "load and info tell different numbers of blocks");
    bench_close(&b);
}

static void run_text(const struct cf_unit *u)
{
    struct bench b;
    int32_t ids[MAX_PROMPT];

    bench_open(&b, u);
    for (uint32_t t = 0; t < BENCH_TEXTS; t++) {
        uint32_t n = bench_encode(&b, bench_texts[t], ids, MAX_PROMPT);
        struct pd_str text = { bench_texts[t], strlen(bench_texts[t]) };
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
        CF_NEED(strcmp(back + (back[0] == ' '), bench_texts[t]) == 0, "\"%s\" comes back as \"%s\"", bench_texts[t], back);
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

static uint64_t sum_of(struct pd_str s)
{
    uint64_t sum = 14695981039346656037u;

    for (size_t i = 0; i < s.n; i++)
        sum = (sum ^ (unsigned char)s.p[i]) * 1099511628211u;
    return sum;
}

static void run_pieces(const struct cf_unit *u)
{
    struct pd_str *pieces;
    uint64_t *sums;
    struct bench b;

    bench_open(&b, u);
    pieces = calloc(b.info.vocab, sizeof(*pieces));
    sums = calloc(b.info.vocab, sizeof(*sums));
    assert_true(pieces != NULL && sums != NULL);
    for (uint32_t id = 0; id < b.info.vocab; id++) {
        struct pd_str p = b.ops->piece(b.i.p, (int32_t)id), q = b.ops->piece(b.i.p, (int32_t)id);
        CF_NEED(p.p == q.p && p.n == q.n && p.n < 1024, "the piece of token %u does not stay", id);
        pieces[id] = p;
        sums[id] = sum_of(p);
    }
    /* They are borrowed until destroy. */
    for (uint32_t id = 0; id < b.info.vocab; id++)
        CF_NEED(sum_of(pieces[id]) == sums[id], "the piece of token %u is another one after others were asked for", id);
    free(pieces);
    free(sums);
    bench_close(&b);
}

/* ---- sequences */

static void run_life(const struct cf_unit *u)
{
    struct bench b;
    struct job j;

    bench_open(&b, u);
    for (uint32_t t = 0; t < BENCH_TEXTS; t++)
        job_do(&b, &j, bench_texts[t], 8);
    job_open(&b, &j, bench_texts[0], 8);              /* opened and closed, never run */
    job_close(&j);
    job_open(&b, &j, bench_texts[1], 8);
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
    bench_encode(&b, bench_texts[0], j.prompt, MAX_PROMPT);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = j.prompt[0];
    {
        struct pd_seq_params p = { .size = sizeof(p), .n_tokens = n, .tokens = tokens, .max_output = 1,
                                   .cache_salt = PD_STR(""), .request_id = PD_STR("long"),
                                   .sampling = { .size = sizeof(p.sampling), .top_p = 1 } };
        pd_status st = b.ops->seq_open(b.i.p, &p, &bench_events, &j, &j.seq, &j.computed);
        CF_NEED(st == PD_ELIMIT, "a prompt longer than the context is answered %d, expected PD_ELIMIT", st);
    }
    free(tokens);
    bench_close(&b);
}

static void run_cancel(const struct cf_unit *u)
{
    struct bench b;
    struct job j[BENCH_TEXTS];
    uint64_t rng = 3;

    bench_open(&b, u);
    for (uint32_t round = 0; round < 12; round++) {
        for (uint32_t t = 0; t < BENCH_TEXTS; t++) {
            job_open(&b, &j[t], bench_texts[t], 30);
            j[t].close_at = t % 2 == 0 ? 1 + (uint32_t)(cf_random(&rng) % 10) : 0;
            job_run(&j[t], t == 1 ? PD_RUN_PREFILL : PD_RUN_DECODE, 0, NULL);
        }
        for (uint64_t n = cf_random(&rng) % 8; n > 0; n--)
            cf_turn(&b.w, PD_MS);
        for (uint32_t t = 0; t < BENCH_TEXTS; t++) {
            if (t % 2 == 0 && round % 3 != 0)
                job_wait(&j[t]);
            if (j[t].seq != NULL)
                job_close(&j[t]);
        }
        bench_blocks_are_back(&b);
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
    struct job alone[BENCH_TEXTS], again, j[BENCH_TEXTS];

    bench_open(&b, u);
    need_exact(&b);
    for (uint32_t t = 0; t < BENCH_TEXTS; t++) {
        job_do(&b, &alone[t], bench_texts[t], 16);
        job_do(&b, &again, bench_texts[t], 16);
        job_same_tokens(&alone[t], &again, "when the prompt is known already");
    }
    cf_destroy(&b.w, &b.i);
    bench_start(&b, 1);
    for (uint32_t t = 0; t < BENCH_TEXTS; t++) {
        job_open(&b, &j[t], bench_texts[t], 16);
        job_run(&j[t], PD_RUN_DECODE, 0, NULL);
    }
    for (uint32_t t = 0; t < BENCH_TEXTS; t++) {
        job_wait(&j[t]);
        job_same_tokens(&alone[t], &j[t], "in company");
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
    job_do(&b, &alone, bench_texts[0], 12);
    cf_destroy(&b.w, &b.i);
    bench_start(&b, 1);
    job_open(&b, &part, bench_texts[0], 1);
    job_run(&part, PD_RUN_PREFILL_ONLY, part.n_prompt / 2, NULL);
    job_wait(&part);
    CF_NEED(part.n_out == 0, "PREFILL_ONLY samples a token");
    job_close(&part);
    job_do(&b, &rest, bench_texts[0], 12);
    job_same_tokens(&alone, &rest, "when the prompt is computed in two parts");
    bench_close(&b);
}

/* ---- beside another one */

static void answer(struct cf_inst *i, struct cf_bytes *out)
{
    struct bench b = { .w = *i->w, .i = *i, .ops = (const void *)i->w->u->ops, .info = { .size = sizeof(b.info) } };
    struct job j;

    b.ops->info(i->p, &b.info);
    cf_put(out, b.info.model, strlen(b.info.model));
    cf_put(out, &b.info.vocab, sizeof(b.info.vocab));
    cf_put(out, &b.info.context_tokens, sizeof(b.info.context_tokens));
    job_do(&b, &j, bench_texts[2], 4);
    cf_put(out, j.prompt, j.n_prompt * sizeof(j.prompt[0]));
    for (uint32_t k = 0; k < j.n_prompt; k++) {
        struct pd_str piece = b.ops->piece(i->p, j.prompt[k]);
        cf_put(out, piece.p, piece.n);
    }
    if ((b.info.flags & PD_ENGINE_EXACT) != 0)
        cf_put(out, j.out, j.n_out * sizeof(j.out[0]));
    bench_blocks_are_back(&b);
}

void cf_engine_beside(const struct cf_unit *u)
{
    cf_beside(u, answer);
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
    CF_NEED(p.ops->seq_blocks != NULL && p.ops->seq_import != NULL, "the operations are not there");
    bench_open(&d, u);
    job_do(&d, &alone, bench_texts[0], 16);
    cf_destroy(&d.w, &d.i);
    bench_start(&d, 1);
    job_open(&p, &from, bench_texts[0], 16);
    job_run(&from, PD_RUN_PREFILL, 0, NULL);
    job_wait(&from);
    CF_NEED(from.upto == from.n_prompt, "on_kv reports %u of %u tokens", from.upto, from.n_prompt);
    CF_NEED(from.n_out == 1, "no first token");
    job_open(&d, &to, bench_texts[0], 16);
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
        job_same_tokens(&alone, &to, "after a hand-over");
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
