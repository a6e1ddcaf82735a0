/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for filters, scorers, pickers and deciders.  They differ in what is
 * asked; see sched_ask.c for what each answer must be. */
#include "conform/sched_ask.h"

#include <math.h>

enum { MANY = 10000 };

static void with_instance(const struct cf_unit *u, void (*fn)(struct cf_inst *i))
{
    struct cf_world w;
    struct cf_inst i;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    fn(&i);
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

static void empty(struct cf_inst *i)
{
    struct question q;

    question_open(&q, 0, 1);
    question_ask_once(i, &q);
    q.k = 0;
    question_ask_once(i, &q);
    question_close(&q);
    question_open(&q, 5, 1);
    q.k = 0;
    question_ask_once(i, &q);
    question_close(&q);
}

static void one(struct cf_inst *i)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct question q;
        question_open(&q, 1, seed);
        question_ask_once(i, &q);
        question_close(&q);
    }
}

/* Nobody is fit: roles of none, every state. */
static void unfit(struct cf_inst *i)
{
    for (uint32_t state = 0; state <= PD_ENDPOINT_DRAINING + 1; state++) {
        struct question q;
        question_open(&q, 6, state);
        for (uint32_t k = 0; k < q.n; k++) {
            q.views[k].state = state;
            q.views[k].roles = state % 2 == 0 ? PD_ROLE_ROUTER : 0;
            q.views[k].report_age_ns = PD_TIME_NEVER;
            q.totals[k] = 0;
        }
        question_ask_once(i, &q);
        question_close(&q);
    }
}

static void extremes(struct cf_inst *i)
{
    static const double odd[] = { NAN, INFINITY, -INFINITY, -1, 0, 1e308, 5e-324 };

    for (uint64_t seed = 0; seed < 200; seed++) {
        struct question q;
        uint64_t rng = seed;
        question_open(&q, 1 + (uint32_t)(seed % 9), seed);
        for (uint32_t k = 0; k < q.n; k++) {
            struct pd_endpoint_view *v = &q.views[k];
            uint32_t *all[] = { &v->running, &v->waiting, &v->inflight, &v->dispatched, &v->blocks_total,
                                &v->blocks_free, &v->match_blocks, &v->weight, &v->roles };
            for (size_t m = 0; m < sizeof(all) / sizeof(all[0]); m++)
                if (cf_random(&rng) % 3 == 0)
                    *all[m] = cf_random(&rng) % 2 == 0 ? 0 : UINT32_MAX;
            if (cf_random(&rng) % 3 == 0)
                v->inflight_tokens = UINT64_MAX;
            q.totals[k] = odd[cf_random(&rng) % 7];
        }
        if (seed % 4 == 0) {
            q.request.prompt_tokens = q.request.prompt_bytes = UINT64_MAX;
            q.request.prompt_blocks = q.request.block_tokens = q.request.max_output = UINT32_MAX;
        } else if (seed % 4 == 1) {
            struct pd_sched_request zero = { .size = sizeof(zero), .random = UINT64_MAX };
            q.request = zero;
            q.request.profile = q.request.model = q.request.session = PD_STR("");
        }
        question_ask_once(i, &q);
        question_close(&q);
    }
}

static void many(struct cf_inst *i)
{
    struct question q;
    pd_time begin, best = PD_TIME_NEVER;

    question_open(&q, MANY, 3);
    for (int n = 0; n < 5; n++) {
        pd_time took;
        begin = pd_loop_clock(i->w->loop);
        question_ask_once(i, &q);
        took = pd_loop_clock(i->w->loop) - begin;
        best = took < best ? took : best;
    }
    question_close(&q);
    cf_say("%u candidates in %llu us", MANY, (unsigned long long)(best / PD_US));
    CF_NEED(best < 100 * PD_MS, "%u candidates take %llu ms, more than 100", MANY,
            (unsigned long long)(best / PD_MS));
}

static void stable(struct cf_inst *i)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct question q;
        struct answer a, b;
        question_open(&q, 1 + (uint32_t)(seed % 12), seed);
        question_ask(i, &q, &a);
        question_ask(i, &q, &b);
        CF_NEED(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0, "the same question is answered differently");
        free(a.bytes);
        free(b.bytes);
        question_close(&q);
    }
}

static void run_alike(const struct cf_unit *u)
{
    struct cf_world w;
    struct cf_inst i[2];

    cf_world_open(&w, u);
    cf_create_ok(&w, &i[0], 0);
    cf_create_ok(&w, &i[1], 1);
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct question q;
        struct answer a, b;
        question_open(&q, 1 + (uint32_t)(seed % 12), seed);
        question_ask(&i[0], &q, &a);
        question_ask(&i[1], &q, &b);
        CF_NEED(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0,
                "two instances that were asked the same answer differently");
        for (int k = 0; k < 2; k++)
            sched_picked(&i[k], &q, (uint32_t)(seed % q.n));
        free(a.bytes);
        free(b.bytes);
        question_close(&q);
    }
    cf_destroy(&w, &i[0]);
    cf_destroy(&w, &i[1]);
    cf_world_close(&w);
}

static void answer(struct cf_inst *i, struct cf_bytes *out)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct question q;
        struct answer a;
        question_open(&q, 1 + (uint32_t)seed, seed);
        question_ask(i, &q, &a);
        if (!sched_is(i->w->u, PD_KIND_PICKER))  /* which may take turns */
            cf_put(out, a.bytes, a.n);
        free(a.bytes);
        question_close(&q);
    }
}

void cf_sched_beside(const struct cf_unit *u)
{
    cf_beside(u, answer);
}

static void growth(struct cf_inst *i)
{
    struct question q;
    uint64_t before = 0, after;

    question_open(&q, 50, 5);
    for (uint32_t n = 0; n < 3000; n++) {
        question_ask_once(i, &q);
        sched_picked(i, &q, n % q.n);
        q.request.random++;
        if (n == 300)
            before = cf_memory();
    }
    after = cf_memory();
    CF_NEED(after < before + 4096, "%llu bytes are kept in 2700 calls", (unsigned long long)(after - before));
    question_close(&q);
}

/* Tables may grow while endpoints are new; then a choice takes no memory. */
static void allocates(struct cf_inst *i)
{
    uint64_t warm = 0;

    for (uint32_t n = 0; n < 2200; n++) {
        struct question q;
        question_open(&q, 1 + n % 100, n % 100);
        if (n == 200)
            warm = sched_allocations;
        question_ask_once(i, &q);
        sched_picked(i, &q, n % q.n);
        question_close(&q);
    }
    CF_NEED(sched_allocations == warm, "2000 calls after the first 200 allocate %llu times",
            (unsigned long long)(sched_allocations - warm));
}

/* The candidate alone, or with other loads, or of another request. */
static void change(struct question *q, uint64_t seed, bool loads, bool match, bool request)
{
    for (uint32_t i = 0; i < q->n; i++) {
        struct pd_endpoint_view *v = &q->views[i];
        v->report_age_ns = seed % 3 == 0 ? PD_TIME_NEVER : cf_random(&seed) % PD_SEC;
        if (match)
            v->match_blocks = (uint32_t)(cf_random(&seed) % 17);
        if (loads) {
            v->running = (uint32_t)(cf_random(&seed) % 20);
            v->waiting = (uint32_t)(cf_random(&seed) % 200);
            v->inflight = (uint32_t)(cf_random(&seed) % 30);
            v->dispatched = (uint32_t)(cf_random(&seed) % 5);
            v->blocks_free = (uint32_t)(cf_random(&seed) % 1001);
            v->inflight_tokens = cf_random(&seed) % 100000;
        }
    }
    if (!request)
        return;
    q->request.prompt_bytes = cf_random(&seed) % 4096;
    q->request.prompt_tokens = q->request.prompt_bytes / 4;
    q->request.prompt_blocks = (uint32_t)(cf_random(&seed) % 20);
    q->request.random = cf_random(&seed);
    q->request.session = PD_STR("session-2");
}

/* Bytes that an answer has for each candidate. */
static void same_alone(struct cf_inst *i, const struct question *q, const struct answer *all, size_t each,
                       const char *flag)
{
    for (uint32_t k = 0; k < q->n; k++) {
        struct question one = *q;
        struct answer a;
        one.n = 1;
        one.views = &q->views[k];
        question_ask(i, &one, &a);
        CF_NEED(memcmp(a.bytes, all->bytes + k * each, each) == 0, "%s, but candidate %u alone is judged otherwise",
                flag, k);
        free(a.bytes);
    }
}

static void same_changed(struct cf_inst *i, struct question *q, const struct answer *before, uint64_t seed,
                         const bool what[3], const char *flag)
{
    struct answer a;

    change(q, seed, what[0], what[1], what[2]);
    question_ask(i, q, &a);
    CF_NEED(a.n == before->n && memcmp(a.bytes, before->bytes, a.n) == 0,
            "%s, but what it does not depend on changes the answer", flag);
    free(a.bytes);
}

static void keeps_filter(struct cf_inst *i, struct question *q, const struct answer *a, uint64_t seed)
{
    uint64_t flags = ((const struct pd_filter_ops *)(const void *)i->w->u->ops)->flags;

    if ((flags & PD_FILTER_EACH) != 0)
        same_alone(i, q, a, 1, "PD_FILTER_EACH");
    if ((flags & PD_FILTER_STEADY) != 0)
        same_changed(i, q, a, seed, (const bool[3]){ true, true, true }, "PD_FILTER_STEADY");
}

static void keeps_scorer(struct cf_inst *i, struct question *q, const struct answer *a, uint64_t seed)
{
    uint64_t flags = ((const struct pd_scorer_ops *)(const void *)i->w->u->ops)->flags;
    const double *score = (const double *)(const void *)a->bytes;

    for (uint32_t k = 0; k < q->n && (flags & PD_SCORER_BY_MATCH) != 0; k++)
        CF_NEED(q->views[k].match_blocks != 0 || !(score[k] > 0), "PD_SCORER_BY_MATCH, but a score without a match is %g",
                score[k]);
    if ((flags & (PD_SCORER_BY_LOAD | PD_SCORER_BY_MATCH)) != 0)
        same_alone(i, q, a, sizeof(double), "PD_SCORER_BY_...");
    if ((flags & PD_SCORER_BY_LOAD) != 0)
        same_changed(i, q, a, seed, (const bool[3]){ false, true, true }, "PD_SCORER_BY_LOAD");
    else if ((flags & (PD_SCORER_BY_MATCH | PD_SCORER_NO_AGE)) != 0)
        same_changed(i, q, a, seed, (const bool[3]){ false, false, false }, "PD_SCORER_NO_AGE");
}

/* What the flags of the ops say holds; other is asked where the first may not be twice. */
static void run_promises(const struct cf_unit *u)
{
    struct cf_world w;
    struct cf_inst i, other;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    cf_create_ok(&w, &other, 1);
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct question q;
        struct answer a;
        question_open(&q, 1 + (uint32_t)(seed % 12), seed);
        for (uint32_t k = 0; k < q.n && seed % 2 == 0; k++)
            q.views[k].state = 1 + (uint32_t)((seed / 2 + k) % 4);
        question_ask(&i, &q, &a);
        if (sched_is(u, PD_KIND_FILTER))
            keeps_filter(&i, &q, &a, seed);
        else if (sched_is(u, PD_KIND_SCORER))
            keeps_scorer(&i, &q, &a, seed);
        else if (sched_is(u, PD_KIND_PICKER) &&
                 (((const struct pd_picker_ops *)(const void *)u->ops)->flags & PD_PICKER_NO_AGE) != 0)
            same_changed(&other, &q, &a, seed, (const bool[3]){ false, false, false }, "PD_PICKER_NO_AGE");
        free(a.bytes);
        question_close(&q);
    }
    cf_destroy(&w, &i);
    cf_destroy(&w, &other);
    cf_world_close(&w);
}

#define RUN(name)                                                              \
    static void run_##name(const struct cf_unit *u)                            \
    {                                                                          \
        with_instance(u, name);                                                \
    }
RUN(empty)
RUN(one)
RUN(unfit)
RUN(extremes)
RUN(many)
RUN(stable)
RUN(growth)
RUN(allocates)

const struct cf_case cf_sched_cases[] = {
    { "one", "one candidate", run_one },
    { "unfit", "candidates that are all down, draining or of another role", run_unfit },
    { "extremes", "largest and smallest numbers, NaN and infinite totals: answers stay in range", run_extremes },
    { "many", "10,000 candidates in less than 100 ms", run_many },
    { "alike", "two instances asked the same answer the same", run_alike },
    { "growth", "calls keep no memory", run_growth },
    { "allocates", "after the first calls, none allocates", run_allocates },
    { NULL, NULL, NULL },
};

/* A decider is asked about the candidate that was chosen, and has no flags. */
const struct cf_case cf_sched_list_cases[] = {
    { "empty", "no candidate, none asked for", run_empty },
    { "promises", "what the flags of the ops say holds", run_promises },
    { NULL, NULL, NULL },
};

/* Pickers may take turns. */
const struct cf_case cf_sched_stable_cases[] = {
    { "stable", "the same question gives the same answer", run_stable },
    { NULL, NULL, NULL },
};
