/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for engines: sequences that begin from inside events and after a rest,
 * more of them than fit, and what a sleeping engine costs. */
#include "conform/engine_job.h"

/* Begins the next sequence from the end of the one before. */
struct chain {
    struct job job;                 /* first: what events give is cast back */
    uint32_t done, want;
};

static void chain_next(struct chain *c);

static void on_chain_finish(struct job *j)
{
    struct chain *c = (struct chain *)(void *)j;

    CF_NEED(j->reason == PD_FINISH_LENGTH && j->n_out == j->want, "%u tokens and reason %u, expected %u and LENGTH",
            j->n_out, j->reason, j->want);
    job_close(j);
    if (++c->done < c->want)
        chain_next(c);
}

static void chain_next(struct chain *c)
{
    struct bench *b = c->job.b;

    job_open(b, &c->job, bench_texts[c->done % BENCH_TEXTS], 1 + c->done % 3);
    c->job.on_finish = on_chain_finish;
    job_run(&c->job, PD_RUN_DECODE, 0, NULL);
}

static bool chain_over(void *arg)
{
    struct chain *c = arg;

    return c->done == c->want;
}

static void run_chain(const struct cf_unit *u)
{
    static struct chain c;
    struct bench b;

    bench_open(&b, u);
    memset(&c, 0, sizeof(c));
    c.want = 40;
    c.job.b = &b;
    chain_next(&c);
    CF_NEED(cf_wait(&b.w, chain_over, &c, 30 * PD_SEC),
            "sequence %u of %u, begun from inside on_finish of the one before, does not end", c.done, c.want);
    bench_close(&b);
}

/* Each is begun when the engine sleeps. */
static void run_wakeup(const struct cf_unit *u)
{
    struct bench b;
    struct job j;

    bench_open(&b, u);
    for (uint32_t i = 0; i < 40; i++) {
        bench_blocks_are_back(&b);
        cf_turn(&b.w, i % 8 == 0 ? 20 * PD_MS : 0);
        job_open(&b, &j, bench_texts[i % BENCH_TEXTS], 1);
        job_run(&j, PD_RUN_DECODE, 0, NULL);
        CF_NEED(cf_wait(&b.w, job_over, &j, 10 * PD_SEC),
                "sequence %u, begun when the engine was idle, does not end within 10 s", i);
        CF_NEED(j.reason == PD_FINISH_LENGTH, "a sequence ends with reason %u", j.reason);
        job_close(&j);
    }
    bench_close(&b);
}

/* A queue has an end, and says so; what it took is done. */
static void run_many(const struct cf_unit *u)
{
    enum { SURE = 64 };             /* more than the engine's own number, to meet its end if it has one */
    struct bench b;
    struct job *jobs, extra;
    uint32_t n, most;
    pd_status st = PD_OK;

    bench_open(&b, u);
    most = (b.info.max_running < 1024 ? 2 * b.info.max_running : 2048) + SURE;
    jobs = calloc(most, sizeof(*jobs));
    assert_non_null(jobs);
    for (n = 0; n < most; n++) {
        struct job *j = &jobs[n];
        j->n_prompt = bench_encode(&b, bench_texts[2], j->prompt, MAX_PROMPT);
        j->want = 2;
        st = job_try(&b, j);
        if (st != PD_OK)
            break;
    }
    CF_NEED(n > 0, "no sequence can be opened");
    CF_NEED(n == most || st == PD_EAGAIN || st == PD_ELIMIT, "sequence %u of many is answered %d, expected PD_EAGAIN",
            n, st);
    for (uint32_t i = 0; i < n; i++)
        job_run(&jobs[i], PD_RUN_DECODE, 0, NULL);
    for (uint32_t i = 0; i < n; i++) {
        job_wait(&jobs[i]);
        CF_NEED(jobs[i].n_out == 2, "sequence %u of %u gives %u tokens, expected 2", i, n, jobs[i].n_out);
        job_close(&jobs[i]);
    }
    bench_blocks_are_back(&b);
    job_do(&b, &extra, bench_texts[0], 4);
    free(jobs);
    bench_close(&b);
}

/* After work, and with a sequence open that nobody runs. */
static void run_sleeps(const struct cf_unit *u)
{
    struct bench b;
    struct job done, open;

    bench_open(&b, u);
    job_do(&b, &done, bench_texts[0], 4);
    cf_need_idle(&b.w, 5, "an engine after a sequence");
    job_open(&b, &open, bench_texts[1], 4);
    cf_need_idle(&b.w, 5, "an engine with a sequence that is not run");
    job_close(&open);
    bench_close(&b);
}

const struct cf_case cf_engine_load_cases[] = {
    { "chain", "sequences that begin from inside on_finish of the one before", run_chain },
    { "wakeup", "sequences that begin when the engine sleeps", run_wakeup },
    { "many", "more sequences than run at a time: refused, or all done", run_many },
    { "sleeps", "an engine that has nothing to compute wakes nobody", run_sleeps },
    { NULL, NULL, NULL },
};
