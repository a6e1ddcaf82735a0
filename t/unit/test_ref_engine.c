/* SPDX-License-Identifier: Apache-2.0 */
/* The ref engine as a whole, through its ops table, on the real loop and in the
 * simulator: tokens are the same alone, in company, after preemption, after a hand-over, after a
 * resume; blocks always come back. */
#include "ref_golden.h"

#include "loop/sim.h"
#include "loop/uv.h"

#include <pdplane/engine.h>
#include <pdplane/host.h>
#include <pdplane/loop.h>

#include "engine_in.h"

#include <math.h>

extern const struct pd_module pd_module;

enum { MAX = 4096, MAX_JOBS = 64 };

/* ---- a host and a loop for the engine */

static pd_status memory_alloc(struct pd_host *host, const char *name, uint64_t bytes,
                              struct pd_host_memory *out, struct pd_err *err)
{
    (void)host;
    (void)name;
    (void)err;
    out->fd = -1;
    out->bytes = bytes;
    out->base = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(out->base, 0xff, bytes);
    return PD_OK;
}

static void memory_free(struct pd_host *host, struct pd_host_memory *m)
{
    (void)host;
    free(m->base);
}

static const struct pd_host_api host_api = {
    .size = sizeof(host_api), .abi_major = PD_ABI_MAJOR, .abi_minor = PD_ABI_MINOR, .version = "test",
    .memory_alloc = memory_alloc, .memory_free = memory_free,
};

struct job;
static const struct job *expected(const struct job *like);

static struct pd_loop *loop, *real_loop;
static struct pd_sim *sim;              /* NULL: the real loop is used */
static const struct pd_engine_ops *ops;
static char *golden_text, model_path[512];

static int setup(void **state)
{
    char path[512];
    (void)state;
    *pd_module.host = &host_api;
    ops = (const struct pd_engine_ops *)(const void *)pd_module.units[0].ops;
    golden_path("tiny.gguf", model_path, sizeof(model_path));
    golden_text = golden_slurp(golden_path("golden.json", path, sizeof(path)), NULL);
    assert_int_equal(pd_loop_uv_create(NULL, &loop), PD_OK);
    return 0;
}

/* One turn of the loop, at most `wait` long. */
static void turn(pd_time wait)
{
    if (sim == NULL)
        assert_int_equal(pd_loop_uv_turn(loop, wait), PD_OK);
    else if (!pd_sim_step(sim, pd_sim_now(sim) + wait))
        pd_sim_run_until(sim, pd_sim_now(sim) + wait);
}

static int use_sim(void **state)
{
    (void)state;
    real_loop = loop;
    assert_int_equal(pd_sim_create(7, NULL, &sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(sim, "t", NULL, &loop), PD_OK);
    return 0;
}

static int leave_sim(void **state)
{
    char names[256];
    (void)state;
    for (int i = 0; i < 20; i++)
        turn(PD_MS);
    assert_int_equal(pd_loop_destroy(loop, names, sizeof(names)), PD_OK);
    assert_int_equal(pd_sim_destroy(sim), PD_OK);
    sim = NULL;
    loop = real_loop;
    return 0;
}

static int teardown(void **state)
{
    char names[256];
    (void)state;
    expected(NULL);
    free(golden_text);
    for (int i = 0; i < 20; i++)
        turn(PD_MS);
    assert_int_equal(pd_loop_destroy(loop, names, sizeof(names)), PD_OK);
    return 0;
}

static struct ref_conf defaults(void)
{
    return (struct ref_conf){ .model = model_path, .kv_memory = 16u << 20, .block_tokens = 16,
                              .kv_dtype = REF_F32, .max_running = 16, .max_sequences = 256,
                              .step_tokens = 128, .threads = 1, .prefix_cache = true };
}

static struct pd_engine *engine_open(const struct ref_conf *conf)
{
    struct pd_instance_ctx ctx = { .size = sizeof(ctx), .name = "t", .loop = loop };
    struct pd_engine *e = NULL;
    struct pd_err err = { 0 };

    if (ops->create(&ctx, conf, &e, &err) != PD_OK)
        fail_msg("%s: %s", err.file, err.text);
    return e;
}

static struct pd_engine_load load_of(struct pd_engine *e)
{
    struct pd_engine_load l = { .size = sizeof(l) };
    ops->load(e, &l);
    return l;
}

/* All blocks are back; a step that was under way may still hold some for a moment. */
static void engine_close(struct pd_engine *e)
{
    pd_time end = pd_loop_clock(loop) + 30 * PD_SEC;

    while (load_of(e).blocks_free != load_of(e).blocks_total && pd_loop_clock(loop) < end)
        turn(PD_MS);
    assert_int_equal(load_of(e).blocks_free, load_of(e).blocks_total);
    assert_true(eng_pool_verify(e->pool));
    assert_int_equal(e->sequences, 0);
    assert_int_equal(e->queued, 0);
    assert_int_equal(e->preempted, 0);
    ops->destroy(e, NULL, NULL);
    for (int i = 0; i < 5; i++)
        turn(PD_MS);
}

/* ---- jobs: one request each, and what came of it */

struct job {
    struct pd_engine *e;
    struct pd_seq *seq;
    int32_t prompt[MAX];
    uint32_t n_prompt, max_output, given, computed;
    struct pd_sampling sampling;
    struct pd_str salt;
    int32_t ids[MAX];
    float logprob[MAX];
    uint32_t n, reason, upto, kv_calls, close_at;
    pd_status status;
    bool ignore_eos, closed;
};

static void on_kv(struct pd_seq *seq, uint32_t upto, void *arg)
{
    struct job *j = arg;
    assert_ptr_equal(seq, j->seq);
    assert_true(upto > j->upto && upto <= j->n_prompt);
    j->upto = upto;
    j->kv_calls++;
}

static void on_token(struct pd_seq *seq, const struct pd_token *t, void *arg)
{
    struct job *j = arg;
    assert_ptr_equal(seq, j->seq);
    assert_int_equal(j->reason, 0);
    assert_int_equal(t->position, j->n_prompt + j->n);
    if (t->n_top > 0 && j->sampling.temperature == 0)
        assert_int_equal(t->top[0].token, t->id);
    j->ids[j->n] = t->id;
    j->logprob[j->n++] = t->logprob;
    if (j->n == j->close_at) {
        j->closed = true;
        ops->seq_close(seq);
        j->seq = NULL;
    }
}

static void on_finish(struct pd_seq *seq, uint32_t reason, pd_status status, void *arg)
{
    struct job *j = arg;
    assert_ptr_equal(seq, j->seq);
    assert_int_equal(j->reason, 0);
    j->reason = reason;
    j->status = status;
}

static const struct pd_seq_events events = { .size = sizeof(events), .on_kv = on_kv, .on_token = on_token,
                                             .on_finish = on_finish };

static pd_status job_open(struct job *j, struct pd_engine *e)
{
    struct pd_seq_params p = { .size = sizeof(p), .n_tokens = j->n_prompt, .tokens = j->prompt,
                               .cache_salt = j->salt, .sampling = j->sampling, .max_output = j->max_output,
                               .n_output_given = j->given, .ignore_eos = j->ignore_eos };
    pd_status s;

    j->e = e;
    j->n = j->reason = j->upto = j->kv_calls = 0;
    j->closed = false;
    s = ops->seq_open(e, &p, &events, j, &j->seq, &j->computed);
    if (s == PD_OK)
        assert_true(j->computed < j->n_prompt);
    return s;
}

static void job_close(struct job *j)
{
    if (j->seq != NULL)
        ops->seq_close(j->seq);
    j->seq = NULL;
}

static void job_wait(struct job *j)
{
    pd_time end = pd_loop_clock(loop) + 60 * PD_SEC;
    while (j->reason == 0 && !j->closed) {
        turn(100 * PD_MS);
        assert_true(pd_loop_clock(loop) < end);
    }
}

static void job_run(struct job *j, struct pd_engine *e)
{
    assert_int_equal(job_open(j, e), PD_OK);
    assert_int_equal(ops->seq_run(j->seq, PD_RUN_DECODE, 0, NULL), PD_OK);
    assert_int_equal(j->n, 0);          /* nothing from inside the call */
    job_wait(j);
    job_close(j);
}

static void job_same(const struct job *a, const struct job *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->reason, b->reason);
    assert_memory_equal(a->ids, b->ids, a->n * sizeof(a->ids[0]));
    assert_memory_equal(a->logprob, b->logprob, a->n * sizeof(a->logprob[0]));
}

static struct job *jobs_new(uint32_t n)
{
    struct job *j = calloc(n, sizeof(*j));
    assert_non_null(j);
    for (uint32_t i = 0; i < n; i++) {
        j[i].max_output = 64;
        j[i].sampling = (struct pd_sampling){ .size = sizeof(j[i].sampling), .top_p = 1, .want_logprob = 1 };
    }
    return j;
}

/* PD_TEST_SHORT leaves the prompts of more than a thousand tokens to the cases that need one,
 * and the simulator, which has one thread, out: for builds with the thread sanitizer. */
static bool short_run(void)
{
    return getenv("PD_TEST_SHORT") != NULL;
}

/* The i-th golden prompt; returns what it is expected to give. */
static json golden_job(struct job *j, uint32_t i)
{
    json c = json_first(json_get(golden_text, "prompts"));
    size_t n;
    double *p;

    while (i-- > 0)
        c = json_next(c);
    p = json_numbers(json_get(c, "prompt_ids"), &n);
    for (size_t k = 0; k < n; k++)
        j->prompt[k] = (int32_t)p[k];
    j->n_prompt = (uint32_t)n;
    free(p);
    return c;
}

/* Sixteen different requests: golden prompts, plain and sampled. */
static struct job *sixteen(void)
{
    struct job *j = jobs_new(16);

    for (uint32_t i = 0; i < 16; i++) {
        golden_job(&j[i], i % (short_run() ? 9 : 10));
        if (i >= 12 || i % 3 == 1) {
            j[i].sampling.temperature = 0.8 + 0.05 * i;
            j[i].sampling.top_p = i % 2 == 0 ? 0.95 : 1;
            j[i].sampling.seed = 1000 + i;
            j[i].sampling.frequency_penalty = i % 4 == 0 ? 0.3 : 0;
            j[i].sampling.logprobs = i % 5;
        }
    }
    return j;
}

static struct job *alone(const struct job *like, uint32_t n)
{
    struct ref_conf conf = defaults();
    struct pd_engine *e;
    struct job *j = malloc(n * sizeof(*j));

    conf.prefix_cache = false;
    e = engine_open(&conf);
    memcpy(j, like, n * sizeof(*j));
    for (uint32_t i = 0; i < n; i++)
        job_run(&j[i], e);
    engine_close(e);
    return j;
}

/* What sixteen() gives alone; made once. */
static const struct job *expected(const struct job *like)
{
    static struct job *once;

    if (like == NULL) {
        free(once);
        once = NULL;
    } else if (once == NULL) {
        once = alone(like, 16);
    }
    return once;
}

/* ---- tests */

static void golden(void **state)
{
    struct ref_conf conf = defaults();
    struct pd_engine *e = engine_open(&conf);
    struct job *j = jobs_new(1);

    (void)state;
    for (uint32_t i = 0; i < (short_run() ? 9 : 12); i++) {
        size_t n;
        json c = golden_job(j, i);
        double *want = json_numbers(json_get(c, "ids"), &n);
        bool stop = strncmp(json_get(c, "finish"), "\"stop", 5) == 0;
        job_run(j, e);
        assert_int_equal(j->reason, stop ? PD_FINISH_STOP : PD_FINISH_LENGTH);
        assert_int_equal(j->n, n - stop);
        for (uint32_t k = 0; k < j->n; k++)
            assert_int_equal(j->ids[k], (int32_t)want[k]);
        assert_int_equal(j->upto, j->n_prompt);
        free(want);
    }
    engine_close(e);
    free(j);
}

static void in_company(void **state)
{
    const struct job *want;
    struct job *j = sixteen();
    static const struct {
        uint32_t running, step, threads;
        bool cache;
    } c[] = { { 16, 128, 1, false }, { 16, 32, 1, true }, { 5, 7, 1, true }, { 16, 128, 3, false } };

    (void)state;
    want = expected(j);
    for (size_t k = 0; k < sizeof(c) / sizeof(c[0]); k++) {
        struct ref_conf conf = defaults();
        struct pd_engine *e;
        conf.max_running = c[k].running;
        conf.step_tokens = c[k].step;
        conf.threads = c[k].threads;
        conf.prefix_cache = c[k].cache;
        e = engine_open(&conf);
        for (uint32_t i = 0; i < 16; i++) {
            assert_int_equal(job_open(&j[i], e), PD_OK);
            assert_int_equal(ops->seq_run(j[i].seq, PD_RUN_DECODE, 0, NULL), PD_OK);
        }
        assert_int_equal(load_of(e).running + load_of(e).waiting, 16);
        for (uint32_t i = 0; i < 16; i++)
            job_wait(&j[i]);
        for (uint32_t i = 0; i < 16; i++) {
            job_same(&j[i], &want[i]);
            job_close(&j[i]);
        }
        engine_close(e);
    }
    free(j);
}

/* The pool holds a fraction of what all sequences need. */
static void short_of_blocks(void **state)
{
    struct job *want, *j = jobs_new(24);
    struct ref_conf conf = defaults();
    struct pd_engine *e;
    uint32_t refused = 0, left = 24;
    pd_time end;

    (void)state;
    for (uint32_t i = 0; i < 24; i++) {
        golden_job(&j[i], i % 5);
        j[i].max_output = 100 + 5 * i;
        j[i].ignore_eos = true;
        if (i >= 5) {
            j[i].sampling.temperature = 1;
            j[i].sampling.seed = i;
        }
    }
    want = alone(j, 24);
    conf.kv_memory = 36 * 32768;
    conf.max_running = 8;
    e = engine_open(&conf);
    assert_int_equal(load_of(e).blocks_total, 36);
    for (uint32_t i = 0; i < 24; i++)
        j[i].seq = NULL;
    end = pd_loop_clock(loop) + 60 * PD_SEC;
    while (left > 0) {
        for (uint32_t i = 0; i < 24; i++) {
            if (j[i].reason == 0 && j[i].seq == NULL) {
                pd_status s = job_open(&j[i], e);
                assert_true(s == PD_OK || s == PD_EAGAIN);
                refused += s == PD_EAGAIN;
                if (s == PD_OK)
                    assert_int_equal(ops->seq_run(j[i].seq, PD_RUN_DECODE, 0, NULL), PD_OK);
            } else if (j[i].reason != 0 && j[i].seq != NULL) {
                job_close(&j[i]);
                job_same(&j[i], &want[i]);
                left--;
            }
        }
        turn(100 * PD_MS);
        assert_true(pd_loop_clock(loop) < end);
        assert_true(eng_pool_verify(e->pool));
    }
    assert_true(refused > 0);
    assert_true(load_of(e).preemptions > 0);
    printf("# %u refusals, %u preemptions\n", refused, (unsigned)load_of(e).preemptions);
    engine_close(e);
    free(want);
    free(j);
}

/* Closing at any moment, also from inside an event. */
static void cancel(void **state)
{
    struct job *j = sixteen();
    struct ref_conf conf = defaults();
    struct pd_engine *e;
    uint32_t x = 1;

    (void)state;
    conf.step_tokens = 40;
    e = engine_open(&conf);
    for (uint32_t round = 0; round < (short_run() ? 100 : 400); round++) {
        uint32_t i = (x = x * 1664525u + 1013904223u) >> 16 & 15;
        if (j[i].seq != NULL) {
            job_close(&j[i]);
        } else if (job_open(&j[i], e) == PD_OK) {
            j[i].close_at = x >> 24 & 7;
            if ((x >> 30) != 0)
                assert_int_equal(ops->seq_run(j[i].seq, PD_RUN_DECODE, 0, NULL), PD_OK);
        }
        for (uint32_t k = x >> 20 & 3; k-- > 0;)
            turn(PD_MS);
        assert_true(eng_pool_verify(e->pool));
    }
    for (uint32_t i = 0; i < 16; i++)
        job_close(&j[i]);
    engine_close(e);
    /* and with the engine going away at once */
    e = engine_open(&conf);
    assert_int_equal(job_open(&j[0], e), PD_OK);
    j[0].close_at = 0;
    assert_int_equal(ops->seq_run(j[0].seq, PD_RUN_DECODE, 0, NULL), PD_OK);
    turn(0);
    job_close(&j[0]);
    ops->destroy(e, NULL, NULL);
    for (int i = 0; i < 5; i++)
        turn(PD_MS);
    free(j);
}

/* Copies the blocks of tokens [from, upto), as a transport does. */
static void carry(struct job *from, struct job *to, uint32_t first, uint32_t upto)
{
    struct pd_engine_info a = { .size = sizeof(a) }, b = { .size = sizeof(b) };
    uint64_t bytes;

    ops->info(from->e, &a);
    ops->info(to->e, &b);
    assert_memory_equal(&a.layout, &b.layout, sizeof(a.layout));
    assert_int_equal(a.flags, PD_ENGINE_EXPORT | PD_ENGINE_IMPORT | PD_ENGINE_EXACT);
    bytes = a.layout.block_bytes;
    for (uint32_t i = first / 16; i < (upto + 15) / 16; i++) {
        uint32_t s, d;
        uint64_t gen;
        assert_int_equal(ops->seq_blocks(from->seq, i, 1, &s, NULL), PD_OK);
        assert_int_equal(ops->seq_blocks(to->seq, i, 1, &d, &gen), PD_OK);
        assert_true(gen > 0);
        memcpy((char *)b.region + d * bytes, (char *)a.region + s * bytes, bytes);
    }
}

static void hand_over(void **state)
{
    const struct job *want;
    struct job *p = sixteen(), *d = sixteen();

    (void)state;
    want = expected(p);
    for (uint32_t full = 0; full < 2; full++) {
        struct ref_conf conf = defaults();
        struct pd_engine *ep, *ed;
        conf.step_tokens = full ? 128 : 50;
        ep = engine_open(&conf);
        ed = engine_open(&conf);
        for (uint32_t i = 0; i < 16; i++) {
            uint32_t n = p[i].n_prompt - !full;
            struct pd_token first = { .size = sizeof(first) };

            assert_int_equal(job_open(&d[i], ed), PD_OK);
            assert_int_equal(job_open(&p[i], ep), PD_OK);
            assert_int_equal(ops->seq_run(p[i].seq, full ? PD_RUN_PREFILL : PD_RUN_PREFILL_ONLY, n, NULL), PD_OK);
            job_wait(&p[i]);
            assert_int_equal(p[i].reason, PD_FINISH_LENGTH);
            assert_int_equal(p[i].n, full);
            assert_true(p[i].upto == n || p[i].computed >= n);
            carry(&p[i], &d[i], d[i].computed, n);
            assert_int_equal(ops->seq_import(d[i].seq, n), PD_OK);
            if (full)
                first = (struct pd_token){ .size = sizeof(first), .id = p[i].ids[0], .position = n,
                                           .logprob = p[i].logprob[0] };
            assert_int_equal(ops->seq_run(d[i].seq, PD_RUN_DECODE, 0, full ? &first : NULL), PD_OK);
            assert_int_equal(ops->seq_import(d[i].seq, n), PD_EBUSY);
            if (i % 4 != 3)
                job_wait(&d[i]);
            job_close(&p[i]);
        }
        for (uint32_t i = 0; i < 16; i++) {
            job_wait(&d[i]);
            job_close(&d[i]);
            job_same(&d[i], &want[i]);
        }
        engine_close(ep);
        engine_close(ed);
    }
    free(p);
    free(d);
}

/* A prefill node goes on by itself when nobody takes its blocks. */
static void prefill_then_decode(void **state)
{
    const struct job *want;
    struct job *j = sixteen();
    struct ref_conf conf = defaults();
    struct pd_engine *e = engine_open(&conf);

    (void)state;
    want = expected(j);
    for (uint32_t i = 0; i < 16; i++) {
        bool only = i % 2 == 0;
        assert_int_equal(job_open(&j[i], e), PD_OK);
        assert_int_equal(ops->seq_run(j[i].seq, only ? PD_RUN_PREFILL_ONLY : PD_RUN_PREFILL, j[i].n_prompt, NULL),
                         PD_OK);
        job_wait(&j[i]);
        j[i].reason = 0;
        assert_int_equal(ops->seq_run(j[i].seq, PD_RUN_DECODE, 0, NULL), PD_OK);
        job_wait(&j[i]);
        job_same(&j[i], &want[i]);
        job_close(&j[i]);
    }
    engine_close(e);
    free(j);
}

/* Another engine goes on after k tokens. */
static void resume(void **state)
{
    const struct job *want;
    struct job *j = sixteen();
    struct ref_conf conf = defaults();
    struct pd_engine *e = engine_open(&conf);

    (void)state;
    want = expected(j);
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t k = want[i].n > 20 ? 20 : want[i].n / 2;
        if (k == 0)
            continue;
        memcpy(j[i].prompt + j[i].n_prompt, want[i].ids, k * sizeof(j[i].prompt[0]));
        j[i].n_prompt += k;
        j[i].given = k;
        job_run(&j[i], e);
        assert_int_equal(j[i].n, want[i].n - k);
        assert_int_equal(j[i].reason, want[i].reason);
        assert_memory_equal(j[i].ids, want[i].ids + k, j[i].n * sizeof(j[i].ids[0]));
        assert_memory_equal(j[i].logprob, want[i].logprob + k, j[i].n * sizeof(j[i].logprob[0]));
    }
    engine_close(e);
    free(j);
}

static void prefix_cache(void **state)
{
    struct job *j = jobs_new(3);
    struct ref_conf conf = defaults();
    struct pd_engine *e = engine_open(&conf);

    (void)state;
    for (int i = 0; i < 3; i++)
        golden_job(&j[i], 9);
    j[0].salt = j[1].salt = PD_STR("tenant a");
    j[2].salt = PD_STR("tenant b");
    assert_int_equal(ops->cached(e, j[0].prompt, j[0].n_prompt, j[0].salt), 0);
    job_run(&j[0], e);
    assert_int_equal(j[0].computed, 0);
    assert_int_equal(ops->cached(e, j[1].prompt, j[1].n_prompt, j[1].salt), (j[1].n_prompt - 1) / 16 * 16);
    job_run(&j[1], e);
    assert_int_equal(j[1].computed, (j[1].n_prompt - 1) / 16 * 16);
    job_run(&j[2], e);
    assert_int_equal(j[2].computed, 0);
    job_same(&j[0], &j[1]);
    job_same(&j[0], &j[2]);
    assert_int_equal(load_of(e).cached_tokens, j[1].computed);
    assert_true(load_of(e).blocks_cached > 0);
    engine_close(e);
    free(j);
}

static void pacing(void **state)
{
    struct job *j = jobs_new(2);
    struct ref_conf conf = defaults();
    struct pd_engine *e;
    pd_time t;

    (void)state;
    conf.ms_per_token = 4;
    conf.prefill_tokens_per_s = 10000;
    e = engine_open(&conf);
    golden_job(&j[0], 9);           /* more than 1000 tokens */
    golden_job(&j[1], 0);
    j[0].max_output = 1;
    j[1].max_output = 11;
    t = pd_loop_clock(loop);
    job_run(&j[0], e);
    assert_true(pd_loop_clock(loop) - t >= j[0].n_prompt * PD_SEC / 10000);
    t = pd_loop_clock(loop);
    job_run(&j[1], e);
    assert_true(pd_loop_clock(loop) - t >= 40 * PD_MS);
    /* closing while a paced step is held back */
    assert_int_equal(job_open(&j[0], e), PD_OK);
    assert_int_equal(ops->seq_run(j[0].seq, PD_RUN_DECODE, 0, NULL), PD_OK);
    for (int i = 0; i < 3; i++)
        turn(PD_MS);
    job_close(&j[0]);
    engine_close(e);
    free(j);
}

static void text(void **state)
{
    struct ref_conf conf = defaults();
    struct pd_engine *e = engine_open(&conf);
    struct pd_message m = { PD_STR("user"), PD_STR("Who is Ruby?") };
    int32_t ids[64];
    size_t n, k;

    (void)state;
    assert_int_equal(ops->encode(e, PD_STR("Once upon a time"), ids, 64, &n), PD_OK);
    assert_int_equal(n, 5);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 551);
    assert_int_equal(ops->encode(e, PD_STR("Once upon a time"), ids, 4, &n), PD_ELIMIT);
    assert_int_equal(n, 5);
    assert_int_equal(ops->encode(e, (struct pd_str){ golden_text, strlen(golden_text) }, ids, 64, &n), PD_ELIMIT);
    assert_true(n > 64);
    assert_int_equal(ops->encode(e, PD_STR("\xff"), ids, 64, &n), PD_EINVAL);
    assert_int_equal(ops->encode(e, PD_STR("\xed\xa0\x80"), ids, 64, &n), PD_EINVAL);
    assert_int_equal(ops->encode(e, PD_STR("\xc0\x80"), ids, 64, &n), PD_EINVAL);
    assert_int_equal(ops->encode(e, PD_STR("\xf0\x9f\x90\xb6 dog"), ids, 64, &n), PD_OK);
    assert_int_equal(n, 6);
    assert_int_equal(ops->encode_chat(e, &m, 1, ids, 64, &n), PD_OK);
    assert_int_equal(ids[1], 259);
    assert_int_equal(ids[n - 1], 13);
    assert_int_equal(ops->encode_chat(e, &m, 1, ids, 3, &k), PD_ELIMIT);
    assert_int_equal(k, n);
    m.role = PD_STR("tool");
    assert_int_equal(ops->encode_chat(e, &m, 1, ids, 64, &n), PD_EDECLINED);
    m.role = PD_STR("user");
    m.content = PD_STR("\x80");
    assert_int_equal(ops->encode_chat(e, &m, 1, ids, 64, &n), PD_EINVAL);
    assert_int_equal(ops->encode_chat(e, &m, 0, ids, 64, &n), PD_EINVAL);
    assert_int_equal(ops->piece(e, -1).n, 0);
    assert_int_equal(ops->piece(e, 260).n, 0);
    assert_int_equal(ops->piece(e, 551).n, 4);
    engine_close(e);
}

static void refusals(void **state)
{
    struct ref_conf conf = defaults();
    struct pd_engine *e;
    struct job *j = jobs_new(1);
    struct pd_token first = { .size = sizeof(first), .id = 5, .position = 5 };
    struct pd_instance_ctx ctx = { .size = sizeof(ctx), .name = "t", .loop = loop };
    struct pd_err err;

    (void)state;
    conf.context = 32;
    e = engine_open(&conf);
    golden_job(j, 0);
    j->prompt[2] = 1280;
    assert_int_equal(job_open(j, e), PD_EINVAL);
    j->prompt[2] = -1;
    assert_int_equal(job_open(j, e), PD_EINVAL);
    golden_job(j, 0);
    j->sampling.top_p = 0;
    assert_int_equal(job_open(j, e), PD_EINVAL);
    j->sampling.top_p = 1;
    j->sampling.logprobs = 21;
    assert_int_equal(job_open(j, e), PD_EINVAL);
    j->sampling.logprobs = 0;
    golden_job(j, 9);
    assert_int_equal(job_open(j, e), PD_ELIMIT);
    golden_job(j, 0);
    assert_int_equal(job_open(j, e), PD_OK);
    assert_int_equal(ops->seq_run(j->seq, PD_RUN_DECODE, 0, &first), PD_EINVAL);
    assert_int_equal(ops->seq_run(j->seq, 9, 0, NULL), PD_EINVAL);
    assert_int_equal(ops->seq_run(j->seq, PD_RUN_PREFILL_ONLY, 6, NULL), PD_EINVAL);
    assert_int_equal(ops->seq_import(j->seq, 6), PD_EINVAL);
    assert_int_equal(ops->seq_blocks(j->seq, 0, 2, NULL, NULL), PD_EINVAL);
    assert_int_equal(ops->seq_blocks(j->seq, UINT32_MAX, 1, NULL, NULL), PD_EINVAL);
    assert_int_equal(ops->seq_run(j->seq, PD_RUN_DECODE, 0, NULL), PD_OK);
    assert_int_equal(ops->seq_run(j->seq, PD_RUN_DECODE, 0, NULL), PD_EBUSY);
    job_wait(j);
    assert_int_equal(j->reason, PD_FINISH_LENGTH);      /* context */
    assert_int_equal(j->n, 27);
    job_close(j);
    engine_close(e);
    conf.model = "/nonexistent.gguf";
    assert_int_equal(ops->create(&ctx, &conf, &e, &err), PD_ENOENT);
    conf = defaults();
    conf.kv_memory = 65535;
    assert_int_equal(ops->create(&ctx, &conf, &e, &err), PD_EINVAL);
    conf = defaults();
    conf.block_tokens = 12;
    assert_int_equal(pd_module.units[0].check(&conf, &err), PD_EINVAL);
    free(j);
}

/* Damaged KV ends in an error, not in tokens, and does not hurt others. */
static void damaged_kv(void **state)
{
    struct ref_conf conf = defaults();
    struct pd_engine *e = engine_open(&conf);
    struct pd_engine_info i = { .size = sizeof(i) };
    struct job *j = jobs_new(2);
    uint32_t b;

    (void)state;
    ops->info(e, &i);
    golden_job(&j[0], 9);
    golden_job(&j[1], 0);
    assert_int_equal(job_open(&j[0], e), PD_OK);
    assert_int_equal(ops->seq_import(j[0].seq, j[0].n_prompt - 1), PD_OK);
    assert_int_equal(ops->seq_blocks(j[0].seq, 0, 1, &b, NULL), PD_OK);
    memset((char *)i.region + b * i.layout.block_bytes, 0xff, i.layout.block_bytes);
    assert_int_equal(ops->seq_run(j[0].seq, PD_RUN_DECODE, 0, NULL), PD_OK);
    job_run(&j[1], e);
    job_wait(&j[0]);
    assert_int_equal(j[0].reason, PD_FINISH_ERROR);
    assert_int_equal(j[0].status, PD_EINTEGRITY);
    assert_int_equal(j[0].n, 0);
    assert_int_equal(j[1].reason, PD_FINISH_LENGTH);
    job_close(&j[0]);
    engine_close(e);
    free(j);
}

/* Virtual time depends on the work alone: the same run takes the same time. */
static void sim_repeats(void **state)
{
    struct job *j = sixteen();
    pd_time took[2];

    (void)state;
    for (int round = 0; round < 2; round++) {
        struct ref_conf conf = defaults();
        struct pd_engine *e;
        pd_time t = pd_loop_clock(loop);
        conf.max_running = 6;
        conf.ms_per_token = 20;
        conf.prefill_tokens_per_s = 3000;
        e = engine_open(&conf);
        for (uint32_t i = 0; i < 16; i++) {
            assert_int_equal(job_open(&j[i], e), PD_OK);
            assert_int_equal(ops->seq_run(j[i].seq, PD_RUN_DECODE, 0, NULL), PD_OK);
        }
        for (uint32_t i = 0; i < 16; i++)
            job_wait(&j[i]);
        took[round] = pd_loop_clock(loop) - t;
        for (uint32_t i = 0; i < 16; i++)
            job_close(&j[i]);
        engine_close(e);
    }
    assert_true(took[0] > 2 * PD_SEC);
    assert_true(took[0] == took[1]);
    free(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden), cmocka_unit_test(in_company), cmocka_unit_test(short_of_blocks),
        cmocka_unit_test(cancel), cmocka_unit_test(hand_over), cmocka_unit_test(prefill_then_decode),
        cmocka_unit_test(resume), cmocka_unit_test(prefix_cache), cmocka_unit_test(pacing),
        cmocka_unit_test(text), cmocka_unit_test(refusals), cmocka_unit_test(damaged_kv),
        { "sim_in_company", in_company, use_sim, leave_sim, NULL },
        { "sim_short_of_blocks", short_of_blocks, use_sim, leave_sim, NULL },
        { "sim_cancel", cancel, use_sim, leave_sim, NULL },
        { "sim_hand_over", hand_over, use_sim, leave_sim, NULL },
        { "sim_pacing", pacing, use_sim, leave_sim, NULL },
        { "sim_repeats", sim_repeats, use_sim, leave_sim, NULL },
    };
    if (short_run())
        cmocka_set_skip_filter("sim_*");
    if (getenv("PD_TEST") != NULL)
        cmocka_set_test_filter(getenv("PD_TEST"));
    return cmocka_run_group_tests(tests, setup, teardown);
}
