/* SPDX-License-Identifier: Apache-2.0 */
/* Engines and the sequences that cases run on them; every event is checked. */
#include "conform/engine_job.h"

const char *const bench_texts[BENCH_TEXTS] = {
    "Once upon a time there was a little girl who lived in a house near the wood.",
    "The sun was warm. Tom and Lily went to the park to play with the big red ball.",
    "One day", "She said: \"I want to go home!\" and ran as fast as she could, and then",
};

void bench_start(struct bench *b, uint32_t number)
{
    b->ops = (const void *)b->w.u->ops;
    b->inside = 0;
    cf_create_ok(&b->w, &b->i, number);
    memset(&b->info, 0, sizeof(b->info));
    b->info.size = sizeof(b->info);
    b->ops->info(b->i.p, &b->info);
}

void bench_open(struct bench *b, const struct cf_unit *u)
{
    memset(b, 0, sizeof(*b));
    cf_world_open(&b->w, u);
    bench_start(b, 0);
}

struct pd_engine_load bench_load(struct bench *b)
{
    struct pd_engine_load l;

    memset(&l, 0, sizeof(l));
    l.size = sizeof(l);
    b->ops->load(b->i.p, &l);
    return l;
}

static bool is_idle(void *arg)
{
    struct pd_engine_load l = bench_load(arg);

    return l.blocks_free == l.blocks_total && l.running == 0 && l.waiting == 0;
}

void bench_blocks_are_back(struct bench *b)
{
    struct pd_engine_load l;
    bool idle = cf_wait(&b->w, is_idle, b, 10 * PD_SEC);

    l = bench_load(b);
    CF_NEED(idle, "%u of %u blocks are free, %u sequences run and %u wait after all were closed",
            l.blocks_free, l.blocks_total, l.running, l.waiting);
}

void bench_close(struct bench *b)
{
    bench_blocks_are_back(b);
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

void job_close(struct job *j)
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
    if (j->on_token != NULL)
        j->on_token(j);
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
    if (j->on_finish != NULL)
        j->on_finish(j);
}

uint32_t bench_encode(struct bench *b, const char *text, int32_t *ids, uint32_t cap)
{
    struct pd_str s = { text, strlen(text) };
    size_t n = 0;
    pd_status st = b->ops->encode(b->i.p, s, ids, cap, &n);

    CF_NEED(st == PD_OK && n > 0 && n <= cap, "encode returns %d and %zu tokens", st, n);
    return (uint32_t)n;
}

const struct pd_seq_events bench_events = { .size = sizeof(bench_events), .on_kv = on_kv, .on_token = on_token,
                                            .on_finish = on_finish };

pd_status job_try(struct bench *b, struct job *j)
{
    struct pd_seq_params p = { .size = sizeof(p), .n_tokens = j->n_prompt, .tokens = j->prompt,
                               .max_output = j->want, .ignore_eos = 1,
                               .cache_salt = PD_STR(""), .request_id = PD_STR("conform"),
                               .sampling = { .size = sizeof(p.sampling), .top_p = 1 } };
    pd_status st;

    j->b = b;
    b->inside++;
    st = b->ops->seq_open(b->i.p, &p, &bench_events, j, &j->seq, &j->computed);
    b->inside--;
    return st;
}

void job_open(struct bench *b, struct job *j, const char *text, uint32_t want)
{
    pd_status st;

    memset(j, 0, sizeof(*j));
    j->n_prompt = bench_encode(b, text, j->prompt, MAX_PROMPT);
    j->want = want;
    st = job_try(b, j);
    CF_NEED(st == PD_OK, "seq_open returns %d", st);
    CF_NEED(j->seq != NULL, "seq_open gives no sequence");
    CF_NEED(j->computed < j->n_prompt, "%u of %u tokens are said to be computed", j->computed, j->n_prompt);
}

void job_run(struct job *j, uint32_t mode, uint32_t upto, const struct pd_token *first)
{
    pd_status st;

    j->b->inside++;
    st = j->b->ops->seq_run(j->seq, mode, upto, first);
    j->b->inside--;
    CF_NEED(st == PD_OK, "seq_run returns %d", st);
}

bool job_over(void *arg)
{
    struct job *j = arg;

    return j->reason != 0 || j->seq == NULL;
}

void job_wait(struct job *j)
{
    CF_NEED(cf_wait(&j->b->w, job_over, j, 60 * PD_SEC), "a sequence does not end within 60 s");
    CF_NEED(j->reason != PD_FINISH_ERROR, "a sequence ends with an error");
}

void job_do(struct bench *b, struct job *j, const char *text, uint32_t want)
{
    job_open(b, j, text, want);
    job_run(j, PD_RUN_DECODE, 0, NULL);
    job_wait(j);
    CF_NEED(j->reason == PD_FINISH_LENGTH && j->n_out == want,
            "%u tokens and reason %u, expected %u and LENGTH", j->n_out, j->reason, want);
    job_close(j);
}

void job_same_tokens(const struct job *a, const struct job *b, const char *when)
{
    CF_NEED(a->n_out == b->n_out && memcmp(a->out, b->out, a->n_out * sizeof(a->out[0])) == 0,
            "tokens differ %s", when);
}
