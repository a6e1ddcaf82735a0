/* SPDX-License-Identifier: Apache-2.0 */
/* Lists that are kept against lists that are made for each request: two schedulers live
 * through the same, one with plugins that promise what lets the core keep answers, one
 * with the same plugins without promises.  They must choose the same and explain it with
 * the same words, one into a record of a request, which keeps the names of a list that
 * lives long once for many requests. */
#include "unit.h"

#include "base/mem.h"
#include "base/str.h"
#include "req/reqs.h"
#include "sched/scheduler.h"

#define KEYS 12u
#define OPEN 24u

/* ---- plugins ---- */

static void role_apply(struct pd_filter *f, const struct pd_sched_request *r, const struct pd_endpoint_view *c,
                       uint32_t n, uint8_t *keep)
{
    (void)f;
    for (uint32_t i = 0; i < n; i++)
        keep[i] = ((c[i].roles == 0 ? (uint32_t)PD_ROLE_DECODE : c[i].roles) & r->roles) != 0;
}

/* Suspect ones only where there is nothing better. */
static void health_apply(struct pd_filter *f, const struct pd_sched_request *r, const struct pd_endpoint_view *c,
                         uint32_t n, uint8_t *keep)
{
    bool any = false;
    (void)f;
    (void)r;
    for (uint32_t i = 0; i < n; i++)
        any = any || c[i].state == PD_ENDPOINT_UP;
    for (uint32_t i = 0; i < n; i++)
        keep[i] = c[i].state == PD_ENDPOINT_UP || (!any && c[i].state == PD_ENDPOINT_SUSPECT);
}

/* Has seven digits. */
static double rounded(double score)
{
    return (double)(int)(score * 64) / 64;
}

static void prefix_score(struct pd_scorer *s, const struct pd_sched_request *r, const struct pd_endpoint_view *c,
                         uint32_t n, double *score)
{
    (void)s;
    for (uint32_t i = 0; i < n && r->prompt_blocks > 0; i++)
        score[i] = rounded((double)c[i].match_blocks / r->prompt_blocks);
}

static void queue_score(struct pd_scorer *s, const struct pd_sched_request *r, const struct pd_endpoint_view *c,
                        uint32_t n, double *score)
{
    (void)s;
    (void)r;
    for (uint32_t i = 0; i < n; i++)
        score[i] = rounded(1.0 / (1 + c[i].waiting + c[i].dispatched + (double)c[i].inflight_tokens / 64));
}

/* Of the others, and of the age of reports. */
static void relative_score(struct pd_scorer *s, const struct pd_sched_request *r, const struct pd_endpoint_view *c,
                           uint32_t n, double *score)
{
    uint32_t most = 1;
    (void)s;
    (void)r;
    for (uint32_t i = 0; i < n; i++)
        most = c[i].running > most ? c[i].running : most;
    for (uint32_t i = 0; i < n; i++)
        score[i] = c[i].report_age_ns == PD_TIME_NEVER
                       ? 0.25 : rounded((1 - (double)c[i].running / most) / (1 + (double)c[i].report_age_ns / PD_SEC));
}

static uint32_t best_pick(struct pd_picker *p, const struct pd_sched_request *r, const struct pd_endpoint_view *c,
                          const double *total, uint32_t n, uint32_t k, uint32_t *index)
{
    uint32_t got = 0;
    (void)p;
    (void)r;
    (void)c;
    for (; got < k && got < n; got++) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            bool taken = false;
            for (uint32_t j = 0; j < got; j++)
                taken = taken || index[j] == i;
            if (!taken && (best == n || total[i] > total[best] + 1e-9))
                best = i;
        }
        index[got] = best;
    }
    return got;
}

static uint32_t mode_of_all;

static void fixed_decide(struct pd_decider *d, const struct pd_sched_request *r, const struct pd_endpoint_view *decode,
                         uint32_t nodes, struct pd_decision *out)
{
    (void)d;
    (void)r;
    out->mode = mode_of_all;
    snprintf(out->reason, sizeof out->reason, "%u others, %u blocks, age %llu", nodes, decode->match_blocks,
             (unsigned long long)decode->report_age_ns);
}

static const struct pd_filter_ops role_ops[2] = {
    { .apply = role_apply }, { .apply = role_apply, .flags = PD_FILTER_STEADY | PD_FILTER_EACH }
};
static const struct pd_filter_ops health_ops[2] = {
    { .apply = health_apply }, { .apply = health_apply, .flags = PD_FILTER_STEADY }
};
static const struct pd_scorer_ops prefix_ops[2] = {
    { .score = prefix_score }, { .score = prefix_score, .flags = PD_SCORER_BY_MATCH }
};
static const struct pd_scorer_ops queue_ops[2] = {
    { .score = queue_score }, { .score = queue_score, .flags = PD_SCORER_BY_LOAD }
};
static const struct pd_scorer_ops relative_ops = { .score = relative_score };
static const struct pd_picker_ops best_ops[2] = {
    { .pick = best_pick }, { .pick = best_pick, .flags = PD_PICKER_NO_AGE }
};
static const struct pd_decider_ops decide_ops = { .decide = fixed_decide };

/* ---- two schedulers ---- */

struct side {
    struct pd_sched_pipeline pipeline;
    struct pd_sched *sched;
    struct pd_dispatch open[OPEN];
    struct pd_sched_plan plan;
    pd_status status;
    char lines[16384];
    char before[16384];         /* of the record before */
};

struct pair {
    struct side side[2];        /* without and with promises */
    struct pd_prompt prompts[8];
    uint64_t hashes[8][8];
    uint64_t random;
    pd_time now;
    uint32_t schedules, remote, none;
    struct pd_reqs *reqs;       /* explains the second side */
};

static const struct pd_sched_conf conf = {
    .prefix = { .block_tokens = 4, .blocks_per_endpoint = 12, .max_match_blocks = 8, .blocks = 64 },
    .endpoints = KEYS, .explain_candidates = 3, .load_stale = 5 * PD_SEC, .failures = 2,
    .failure_pause = 2 * PD_SEC,
};

static void profile_make(struct pd_profile *p, const char *name, bool promises, bool relative)
{
    p->name = name;
    assert_int_equal(pd_profile_add_filter(p, "role", &role_ops[promises], NULL), PD_OK);
    assert_int_equal(pd_profile_add_filter(p, "health", &health_ops[promises], NULL), PD_OK);
    assert_int_equal(pd_profile_add_scorer(p, "prefix", &prefix_ops[promises], NULL, 2), PD_OK);
    assert_int_equal(pd_profile_add_scorer(p, "queue", &queue_ops[promises], NULL, 1), PD_OK);
    if (relative)
        assert_int_equal(pd_profile_add_scorer(p, "relative", &relative_ops, NULL, 0.5), PD_OK);
    p->picker_name = "best";
    p->picker_ops = &best_ops[promises];
}

static uint64_t chance(struct pair *x, uint64_t n)
{
    x->random = x->random * 6364136223846793005u + 1442695040888963407u;
    return (x->random >> 33) % n;
}

static void write_line(void *arg, const struct pd_explain_line *l)
{
    struct side *s = arg;
    size_t at = strlen(s->lines);
    snprintf(s->lines + at, sizeof s->lines - at, "%u %.*s %.*s %.*s %.9g %g\n", l->kind, PD_STR_ARG(l->subject),
             PD_STR_ARG(l->plugin), PD_STR_ARG(l->text), l->value, l->extra);
}

static void pair_open(struct pair *x, uint64_t seed, bool relative)
{
    struct pd_err err = { 0 };
    memset(x, 0, sizeof *x);
    x->random = seed;
    x->now = PD_SEC;
    for (uint32_t i = 0; i < 2; i++) {
        struct side *s = &x->side[i];
        profile_make(&s->pipeline.decode, "decode", i == 1, relative);
        profile_make(&s->pipeline.prefill, "prefill", i == 1, relative);
        s->pipeline.decider_name = "fixed";
        s->pipeline.decider_ops = &decide_ops;
        assert_int_equal(pd_sched_create(&conf, &s->pipeline, NULL, &err, &s->sched), PD_OK);
    }
    const struct pd_reqs_conf records = { .live = 4, .finished = 8, .explain_bytes = 4096 };
    assert_int_equal(pd_reqs_create(&records, NULL, &err, &x->reqs), PD_OK);
    for (uint32_t i = 0; i < 8; i++) {
        char text[8 * 16];
        for (uint32_t b = 0; b < 8; b++)
            memset(text + b * 16, 'a' + (int)(b < 2 ? i % 2 : i), 16);
        pd_sched_api()->prompt_hash(x->side[0].sched, &x->prompts[i], PD_STR("m"), PD_STR(""), text,
                                    (1 + i) * 16, x->hashes[i], 8);
    }
}

static void put(struct pair *x)
{
    static const uint32_t roles[] = { 0, PD_ROLE_DECODE, PD_ROLE_PREFILL, PD_ROLE_PREFILL, PD_ROLE_DECODE | PD_ROLE_PREFILL };
    static const struct pd_str models[] = { PD_STR("m"), PD_STR("other") };
    char key[8];
    struct pd_endpoint_ref ref;
    snprintf(key, sizeof key, "e%u", (unsigned)chance(x, KEYS));
    struct pd_endpoint_info info = {
        .size = sizeof info, .key = pd_str_from(key), .name = pd_str_from(key), .models = models,
        .roles = roles[chance(x, 5)], .models_n = (uint32_t)chance(x, 3), .user = x,
        .state = (uint32_t)chance(x, 3), .flags = chance(x, 6) == 0 ? (uint32_t[]){ PD_ENDPOINT_WHOLE, PD_ENDPOINT_PAIRED }[chance(x, 2)] : 0,
        .family = chance(x, 6) == 0,
    };
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(pd_sched_api()->endpoint_put(x->side[i].sched, &info, &ref), PD_OK);
}

/* An endpoint that is there, the same in both. */
static bool any(struct pair *x, struct pd_endpoint_ref ref[2])
{
    char key[8];
    snprintf(key, sizeof key, "e%u", (unsigned)chance(x, KEYS));
    pd_status st = pd_sched_api()->endpoint_find(x->side[0].sched, pd_str_from(key), &ref[0]);
    assert_int_equal(pd_sched_api()->endpoint_find(x->side[1].sched, pd_str_from(key), &ref[1]), st);
    return st == PD_OK;
}

static void change(struct pair *x)
{
    struct pd_endpoint_ref ref[2];
    uint64_t what = chance(x, 12);
    struct pd_endpoint_load load = { .size = sizeof load, .running = (uint32_t)chance(x, 5),
                                     .waiting = (uint32_t)chance(x, 5) };
    uint32_t state = 1 + (uint32_t)chance(x, 4);
    if (!any(x, ref))
        return;
    for (uint32_t i = 0; i < 2; i++) {
        struct pd_sched *s = x->side[i].sched;
        if (what == 0)
            pd_sched_api()->endpoint_remove(s, ref[i]);
        else if (what == 1)
            pd_sched_api()->endpoint_drain(s, ref[i]);
        else if (what == 2)
            pd_sched_api()->endpoint_forget(s, ref[i]);
        else if (what < 6)
            pd_sched_api()->endpoint_state(s, ref[i], what == 3 ? state : PD_ENDPOINT_UP);
        else
            pd_sched_api()->endpoint_report(s, ref[i], &load, x->now);
    }
}

/* More of them than a table remembers. */
static void many_reports(struct pair *x)
{
    struct pd_endpoint_ref ref[2];
    for (uint32_t n = 0; n < 100; n++) {
        struct pd_endpoint_load load = { .size = sizeof load, .waiting = (uint32_t)chance(x, 9) };
        bool is_there = any(x, ref);
        for (uint32_t i = 0; i < 2 && is_there; i++)
            pd_sched_api()->endpoint_report(x->side[i].sched, ref[i], &load, x->now);
    }
}

static void end(struct pair *x)
{
    uint32_t at = (uint32_t)chance(x, OPEN), result = 1 + (uint32_t)chance(x, 3);
    bool is_computed = chance(x, 2) == 0;
    for (uint32_t i = 0; i < 2; i++) {
        struct side *s = &x->side[i];
        if (is_computed)
            pd_sched_api()->computed(s->sched, &s->open[at]);
        else
            pd_sched_api()->end(s->sched, &s->open[at], result, x->now);
    }
}

static void read_record(const struct pd_req *req, struct side *s)
{
    struct pd_explain_line line;
    uint32_t cursor = 0;
    s->lines[0] = '\0';
    while (pd_req_explain_next(req, &cursor, &line))
        write_line(s, &line);
    assert_int_equal(pd_req_explain_lost(req), 0);
}

/* The record before says what it said, whatever became of its endpoints. */
static void read_again(struct pair *x, uint64_t number)
{
    struct side *s = &x->side[1];
    char id[24];
    snprintf(id, sizeof id, "%llu", (unsigned long long)number);
    const struct pd_req *req = number == 0 ? NULL : pd_reqs_find(x->reqs, pd_str_from(id));
    if (req != NULL) {
        read_record(req, s);
        assert_string_equal(s->lines, s->before);
    }
}

static void same(const struct pair *x)
{
    const struct side *a = &x->side[0], *b = &x->side[1];
    assert_string_equal(a->lines, b->lines);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->plan.decode.ref.serial, b->plan.decode.ref.serial);
    assert_int_equal(a->plan.decode.match_blocks, b->plan.decode.match_blocks);
    assert_int_equal(a->plan.decision.mode, b->plan.decision.mode);
    assert_string_equal(a->plan.decision.reason, b->plan.decision.reason);
    assert_int_equal(a->plan.stale, b->plan.stale);
    assert_int_equal(a->plan.prefill_n, b->plan.prefill_n);
    for (uint32_t i = 0; i < a->plan.prefill_n; i++)
        assert_int_equal(a->plan.prefill[i].ref.serial, b->plan.prefill[i].ref.serial);
}

static void schedule(struct pair *x)
{
    static const struct pd_str models[] = { PD_STR("m"), PD_STR("m"), PD_STR("other"), PD_STR(""), PD_STR("nobody") };
    struct pd_endpoint_ref avoid[2];
    const struct pd_prompt *prompt = chance(x, 5) == 0 ? NULL : &x->prompts[chance(x, 8)];
    struct pd_sched_ask ask = { .size = sizeof ask, .prefill_max = (uint32_t)chance(x, 4), .prompt = prompt,
                                .model = models[chance(x, 5)], .now = x->now };
    bool avoids = chance(x, 8) == 0 && any(x, avoid);
    uint32_t at = (uint32_t)chance(x, OPEN);
    mode_of_all = 1 + (uint32_t)chance(x, 3);
    struct pd_req *req = NULL;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(pd_sched_api()->model_known(x->side[0].sched, models[i]),
                         pd_sched_api()->model_known(x->side[1].sched, models[i]));
    assert_int_equal(pd_req_begin(x->reqs, PD_STR(""), PD_ROLE_ROUTER, x->now, &req), PD_OK);
    read_again(x, req->number - 1);
    for (uint32_t i = 0; i < 2; i++) {
        struct side *s = &x->side[i];
        s->lines[0] = '\0';
        memset(&s->plan, 0, sizeof s->plan);
        if (i == 0)
            ask.explain = (struct pd_explain_sink){ .line = write_line, .arg = s };
        else
            ask.explain = (struct pd_explain_sink){ pd_req_explain, req, pd_req_explain_table, pd_req_explain_run };
        ask.avoid = &avoid[i];
        ask.avoid_n = avoids;
        s->status = pd_sched_api()->schedule(s->sched, &ask, &s->plan);
        if (s->status == PD_OK) {
            pd_sched_api()->end(s->sched, &s->open[at], PD_DISPATCH_OK, x->now);
            pd_sched_api()->dispatch(s->sched, s->plan.decode.ref, PD_ROLE_DECODE, prompt, 32, x->now, &s->open[at]);
        }
    }
    read_record(req, &x->side[1]);
    memcpy(x->side[1].before, x->side[1].lines, sizeof x->side[1].lines);
    pd_req_finish(x->reqs, req, PD_REQ_OK, 200, PD_STR(""), x->now);
    same(x);
    x->schedules++;
    x->remote += x->side[0].plan.prefill_n > 0;
    x->none += x->side[0].status != PD_OK;
}

static void live(uint64_t seed, bool relative)
{
    struct pair x;
    pair_open(&x, seed, relative);
    for (uint32_t step = 0; step < 20000; step++) {
        uint64_t what = chance(&x, 40);
        if (what == 0)
            put(&x);
        else if (what < 4)
            change(&x);
        else if (what < 12)
            end(&x);
        else if (what == 12)
            x.now += chance(&x, 4) == 0 ? chance(&x, 7) * PD_SEC : chance(&x, PD_SEC);
        else if (what == 13 && chance(&x, 4) == 0)
            many_reports(&x);
        else if (what == 13 && chance(&x, 4) == 0)
            for (uint32_t i = 0; i < 2; i++)
                pd_sched_set_pipeline(x.side[i].sched, &conf, &x.side[i].pipeline);
        else
            schedule(&x);
    }
    assert_true(x.remote > x.schedules / 20 && x.none < x.schedules / 2);
    for (uint32_t i = 0; i < 2; i++)
        pd_sched_destroy(x.side[i].sched);
    pd_reqs_destroy(x.reqs);
}

static void kept_lists_choose_the_same(void **state)
{
    (void)state;
    live(1, false);
    live(2, false);
    live(3, true);
    live(4, true);
}

/* Once its lists are made, a decision allocates nothing and asks plugins about what
 * changed, however many endpoints there are. */
static uint64_t asked;

static void counted_score(struct pd_scorer *s, const struct pd_sched_request *r, const struct pd_endpoint_view *c,
                          uint32_t n, double *score)
{
    asked += n;
    queue_score(s, r, c, n, score);
}

static void counted_apply(struct pd_filter *f, const struct pd_sched_request *r, const struct pd_endpoint_view *c,
                          uint32_t n, uint8_t *keep)
{
    asked += n;
    role_apply(f, r, c, n, keep);
}

static void a_decision_asks_about_what_changed(void **state)
{
    static const struct pd_filter_ops filter = { .apply = counted_apply, .flags = PD_FILTER_STEADY | PD_FILTER_EACH };
    static const struct pd_scorer_ops scorer = { .score = counted_score, .flags = PD_SCORER_BY_LOAD };
    struct pd_sched_conf c = conf;
    struct pd_sched_pipeline pipeline = { .decider_ops = &decide_ops, .decider_name = "fixed" };
    struct pd_sched *sched = NULL;
    struct pd_endpoint_ref ref;
    struct pd_err err = { 0 };
    struct pd_dispatch d = { 0 };
    uint64_t allocations = 0;
    (void)state;
    c.endpoints = 500;
    pipeline.decode = pipeline.prefill = (struct pd_profile){ .name = "p", .picker_name = "best", .picker_ops = &best_ops[1] };
    assert_int_equal(pd_profile_add_filter(&pipeline.decode, "role", &filter, NULL), PD_OK);
    assert_int_equal(pd_profile_add_scorer(&pipeline.decode, "queue", &scorer, NULL, 1), PD_OK);
    assert_int_equal(pd_sched_create(&c, &pipeline, NULL, &err, &sched), PD_OK);
    for (uint32_t i = 0; i < 500; i++) {
        char key[16];
        snprintf(key, sizeof key, "e%u", i);
        struct pd_endpoint_info info = { .size = sizeof info, .key = pd_str_from(key), .name = pd_str_from(key) };
        assert_int_equal(pd_sched_api()->endpoint_put(sched, &info, &ref), PD_OK);
    }
    for (uint32_t i = 0; i < 1000; i++) {
        struct pd_sched_plan plan;
        struct pd_sched_ask ask = { .size = sizeof ask, .model = PD_STR("m"), .now = PD_SEC };
        if (i == 10) {
            asked = 0;
            allocations = pd_mem_count();
        }
        assert_int_equal(pd_sched_api()->schedule(sched, &ask, &plan), PD_OK);
        pd_sched_api()->end(sched, &d, PD_DISPATCH_OK, PD_SEC);
        assert_int_equal(pd_sched_api()->dispatch(sched, plan.decode.ref, PD_ROLE_DECODE, NULL, 1, PD_SEC, &d), PD_OK);
    }
    assert_int_equal(pd_mem_count(), allocations);
    assert_true(asked <= 990 * 2);
    pd_sched_api()->end(sched, &d, PD_DISPATCH_OK, PD_SEC);
    pd_sched_destroy(sched);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(kept_lists_choose_the_same),
    cmocka_unit_test(a_decision_asks_about_what_changed),
};

PD_UNIT_MAIN(tests)
