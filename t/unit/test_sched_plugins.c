/* SPDX-License-Identifier: Apache-2.0 */
/* The plugins of the distribution, each as the .so that was built, over tables
 * of situations. */
#include "unit.h"

#include <dlfcn.h>
#include <math.h>

#include <pdplane/scheduler.h>

static const struct pd_module *load(const char *folder, const char *name)
{
    char path[1024];
    const char *dir = getenv("PD_BUILDDIR");
    snprintf(path, sizeof path, "%s/modules/scheduler/%s/%s/.libs/%s.so", dir == NULL ? "." : dir,
             folder, name, name);
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (so == NULL)
        print_error("%s\n", dlerror());
    assert_non_null(so);
    const struct pd_module *module = dlsym(so, "pd_module");
    assert_non_null(module);
    assert_int_equal(module->magic, PD_MODULE_MAGIC);
    assert_string_equal(module->name, name);
    return module;
}

static const struct pd_unit *unit_of(const struct pd_module *module, const char *name)
{
    for (const struct pd_unit *u = module->units; u->size != 0; u++) {
        if (strcmp(u->name, name) == 0)
            return u;
        for (const char *const *a = u->aliases; a != NULL && *a != NULL; a++) {
            if (strcmp(*a, name) == 0)
                return u;
        }
    }
    fail_msg("no unit %s", name);
    return NULL;
}

static const struct pd_instance_ctx ctx = { .size = sizeof ctx, .name = "test" };
static struct pd_err err;

static struct pd_sched_request request_for(uint32_t role, uint64_t random)
{
    struct pd_sched_request r;
    memset(&r, 0, sizeof r);
    r.size = sizeof r;
    r.roles = role;
    r.random = random;
    r.block_tokens = 64;
    return r;
}

/* ---- filters ---- */

struct role_case {
    const char *unit;
    uint64_t allow;             /* of the unit role; 0: by the profile */
    uint32_t looks_for;
    const char *kept;           /* of none, P, D, PD, R: 1 or 0 */
};

static void role_filter(void **state)
{
    (void)state;
    static const struct role_case cases[] = {
        { "role", 0, PD_ROLE_PREFILL, "01010" },
        { "role", 0, PD_ROLE_DECODE, "10110" },
        { "role", 1, PD_ROLE_DECODE, "01000" },
        { "role", 1 | 4, PD_ROLE_PREFILL, "01010" },
        { "role", 2 | 4 | 8, PD_ROLE_DECODE, "10111" },
        { "prefill-filter", 0, PD_ROLE_DECODE, "01010" },
        { "decode-filter", 0, PD_ROLE_PREFILL, "10111" },
        { "prefill-header-handler", 0, PD_ROLE_PREFILL, "11111" },
    };
    static const uint32_t roles[5] = { 0, PD_ROLE_PREFILL, PD_ROLE_DECODE,
                                       PD_ROLE_PREFILL | PD_ROLE_DECODE, PD_ROLE_ROUTER };
    const struct pd_module *module = load("filter", "role");
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const struct pd_unit *unit = unit_of(module, cases[c].unit);
        const struct pd_filter_ops *ops = (const struct pd_filter_ops *)(const void *)unit->ops;
        struct pd_endpoint_view views[5] = { { 0 } };
        struct pd_filter *filter = NULL;
        uint8_t keep[5] = { 1, 1, 1, 1, 1 };
        struct pd_sched_request request = request_for(cases[c].looks_for, 1);
        for (int i = 0; i < 5; i++)
            views[i].roles = roles[i];
        assert_int_equal(ops->create(&ctx, &cases[c].allow, &filter, &err), PD_OK);
        ops->apply(filter, &request, views, 5, keep);
        ops->destroy(filter);
        for (int i = 0; i < 5; i++) {
            if (keep[i] != cases[c].kept[i] - '0')
                fail_msg("case %zu candidate %d", c, i);
        }
    }
}

static void health_filter(void **state)
{
    (void)state;
    /* states: U up, S suspect, D down, R draining */
    static const struct {
        uint32_t suspect;       /* 1 last, 2 keep, 3 drop */
        const char *states;
        const char *kept;
    } cases[] = {
        { 1, "USDR", "1000" }, { 1, "SSDR", "1100" }, { 1, "DRDR", "0000" }, { 1, "DDSU", "0001" },
        { 2, "USDR", "1100" }, { 3, "USDR", "1000" }, { 3, "SSSS", "0000" },
    };
    const struct pd_unit *unit = unit_of(load("filter", "health"), "health");
    const struct pd_filter_ops *ops = (const struct pd_filter_ops *)(const void *)unit->ops;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct pd_endpoint_view views[4] = { { 0 } };
        struct pd_filter *filter = NULL;
        uint8_t keep[4] = { 1, 1, 1, 1 };
        struct pd_sched_request request = request_for(PD_ROLE_DECODE, 1);
        for (int i = 0; i < 4; i++) {
            char s = cases[c].states[i];
            views[i].state = s == 'U' ? PD_ENDPOINT_UP : s == 'S' ? PD_ENDPOINT_SUSPECT
                             : s == 'D' ? PD_ENDPOINT_DOWN : PD_ENDPOINT_DRAINING;
        }
        assert_int_equal(ops->create(&ctx, &cases[c].suspect, &filter, &err), PD_OK);
        ops->apply(filter, &request, views, 4, keep);
        ops->destroy(filter);
        for (int i = 0; i < 4; i++) {
            if (keep[i] != cases[c].kept[i] - '0')
                fail_msg("case %zu candidate %d", c, i);
        }
    }
}

/* ---- scorers ---- */

static void run_scorer(const char *name, const char *unit_name, const void *conf,
                       const struct pd_sched_request *request, struct pd_endpoint_view *views,
                       uint32_t n, const double *expected)
{
    const struct pd_unit *unit = unit_of(load("score", name), unit_name);
    const struct pd_scorer_ops *ops = (const struct pd_scorer_ops *)(const void *)unit->ops;
    struct pd_scorer *scorer = NULL;
    double score[8] = { 0 };
    assert_int_equal(ops->create(&ctx, conf, &scorer, &err), PD_OK);
    ops->score(scorer, request, views, n, score);
    ops->destroy(scorer);
    for (uint32_t i = 0; i < n; i++) {
        if (fabs(score[i] - expected[i]) > 1e-12)
            fail_msg("%s: candidate %u has %.15f, expected %.15f", name, i, score[i], expected[i]);
    }
}

static void load_scorers(void **state)
{
    (void)state;
    struct pd_sched_request request = request_for(PD_ROLE_DECODE, 1);
    struct pd_endpoint_view v[4] = { { 0 } };
    struct {
        int64_t threshold;
        double ceiling;
        bool count;
    } conf = { 128, 0.5, true };

    v[0].waiting = 0;
    v[1].waiting = 64;
    v[2].waiting = 128;
    v[3].waiting = 5000;
    run_scorer("load_aware", "load-aware-scorer", &conf, &request, v, 4,
               (const double[]){ 0.5, 0.25, 0, 0 });
    v[0].dispatched = 32;
    run_scorer("load_aware", "load_aware", &conf, &request, v, 4,
               (const double[]){ 0.375, 0.25, 0, 0 });
    conf.count = false;
    conf.ceiling = 1;
    conf.threshold = 5000;
    run_scorer("load_aware", "load_aware", &conf, &request, v, 4,
               (const double[]){ 1, 1 - 64.0 / 5000, 1 - 128.0 / 5000, 0 });

    memset(v, 0, sizeof v);
    run_scorer("least_loaded", "least_loaded", NULL, &request, v, 3, (const double[]){ 1, 1, 1 });
    v[0].running = 4;           /* 4 */
    v[1].waiting = 1;
    v[1].dispatched = 1;        /* 2 */
    v[2].running = 6;
    v[2].weight = 200;          /* 3 */
    run_scorer("least_loaded", "least_loaded", NULL, &request, v, 3, (const double[]){ 0, 1, 0.5 });
    run_scorer("least_loaded", "least_loaded", NULL, &request, v, 1, (const double[]){ 1 });
    run_scorer("least_loaded", "least_loaded", NULL, &request, v, 0, NULL);
}

static void prefix_scorer(void **state)
{
    (void)state;
    struct pd_sched_request request = request_for(PD_ROLE_DECODE, 1);
    struct pd_endpoint_view v[3] = { { 0 } };
    struct {
        double weight;
        int64_t scale;
    } conf = { 0, 8192 };
    v[1].match_blocks = 2;
    v[2].match_blocks = 8;
    run_scorer("prefix_cache", "prefix_cache", &conf, &request, v, 3, (const double[]){ 0, 0, 0 });
    request.prompt_blocks = 8;
    run_scorer("prefix_cache", "prefix-cache-scorer", &conf, &request, v, 3,
               (const double[]){ 0, 0.25, 1 });
    conf.weight = 0.5;
    conf.scale = 256;           /* 2 blocks are 128 tokens: 1/4; 8 are more than enough: 1 */
    run_scorer("prefix_cache", "prefix_cache", &conf, &request, v, 3,
               (const double[]){ 0, 0.5 * 0.25 + 0.5 * 0.25, 1 });
}

/* ---- pickers ---- */

struct picker {
    const struct pd_picker_ops *ops;
    struct pd_picker *instance;
};

static struct picker open_picker(const char *name, const char *unit_name)
{
    const struct pd_unit *unit = unit_of(load("pick", name), unit_name);
    struct picker p = { (const struct pd_picker_ops *)(const void *)unit->ops, NULL };
    assert_int_equal(p.ops->create(&ctx, NULL, &p.instance, &err), PD_OK);
    return p;
}

static void check_distinct(const uint32_t *index, uint32_t got, uint32_t n)
{
    for (uint32_t i = 0; i < got; i++) {
        assert_true(index[i] < n);
        for (uint32_t j = 0; j < i; j++)
            assert_true(index[i] != index[j]);
    }
}

/* What holds for every picker. */
static void pickers_are_honest(void **state)
{
    (void)state;
    static const char *const names[] = { "max_score", "round_robin", "random", "weighted_random" };
    struct pd_endpoint_view v[9] = { { 0 } };
    double total[9] = { 0 };
    uint32_t index[16];
    for (size_t p = 0; p < 4; p++) {
        struct picker picker = open_picker(names[p], names[p]);
        for (uint64_t random = 0; random < 300; random++) {
            struct pd_sched_request request = request_for(PD_ROLE_DECODE, random * 77);
            uint32_t n = (uint32_t)(random % 10);
            uint32_t k = (uint32_t)(random % 4);
            for (uint32_t i = 0; i < n; i++) {
                v[i].slot = (i * 5) % 9;
                total[i] = (double)((random + i) % 3);
            }
            uint32_t got = picker.ops->pick(picker.instance, &request, v, total, n, k, index);
            assert_int_equal(got, n < k ? n : k);
            check_distinct(index, got, n);
        }
        picker.ops->destroy(picker.instance);
    }
}

static void max_score_breaks_ties_evenly(void **state)
{
    (void)state;
    struct picker p = open_picker("max_score", "max-score-picker");
    static const double total[5] = { 1, 3, 2, 3, 3 };
    struct pd_endpoint_view v[5] = { { 0 } };
    uint32_t index[4];
    uint32_t hits[5] = { 0 };
    for (uint64_t random = 0; random < 9000; random++) {
        struct pd_sched_request request = request_for(PD_ROLE_DECODE, random * 0x9e3779b97f4a7c15u);
        assert_int_equal(p.ops->pick(p.instance, &request, v, total, 5, 4, index), 4);
        hits[index[0]]++;
        assert_int_equal(index[3], 2);
    }
    assert_int_equal(hits[0] + hits[2], 0);
    for (int i = 1; i < 5; i += i == 1 ? 2 : 1)
        assert_true(hits[i] > 2800 && hits[i] < 3200);
    p.ops->destroy(p.instance);
}

/* Of however many candidates: only those with the highest total, and each of them. */
static void max_score_reaches_each_of_many(void **state)
{
    static const uint32_t sizes[] = { 1, 2, 3, 17, 63, 64, 65, 66, 128, 129, 200 };
    static struct pd_endpoint_view v[200];
    (void)state;
    struct picker p = open_picker("max_score", "max-score-picker");
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        for (uint32_t share = 1; share <= 7; share += 3) {
            uint32_t n = sizes[k], equal = 0, reached = 0, index, hits[200] = { 0 };
            double total[200];
            for (uint32_t i = 0; i < n; i++) {
                total[i] = (i + share / 2) % share == 0 ? 2.5 : i % 2;
                equal += total[i] > 2;
            }
            if (equal == 0)
                continue;
            for (uint64_t random = 0; random < 40u * equal; random++) {
                struct pd_sched_request request = request_for(PD_ROLE_DECODE, random * 0x9e3779b97f4a7c15u);
                assert_int_equal(p.ops->pick(p.instance, &request, v, total, n, 1, &index), 1);
                assert_true(index < n && total[index] > 2);
                reached += hits[index]++ == 0;
            }
            assert_int_equal(reached, equal);
        }
    }
    p.ops->destroy(p.instance);
}

static void round_robin_takes_turns(void **state)
{
    (void)state;
    struct picker p = open_picker("round_robin", "round_robin");
    struct pd_endpoint_view v[4] = { { 0 } };
    static const uint32_t slots[4] = { 2, 5, 7, 9 };
    struct pd_sched_request decode = request_for(PD_ROLE_DECODE, 1);
    struct pd_sched_request prefill = request_for(PD_ROLE_PREFILL, 1);
    double total[4] = { 0 };
    uint32_t index[4];
    for (int i = 0; i < 4; i++)
        v[i].slot = slots[i];
    for (uint32_t turn = 0; turn < 8; turn++) {
        p.ops->pick(p.instance, &decode, v, total, 4, 1, index);
        assert_int_equal(index[0], turn % 4);
    }
    p.ops->pick(p.instance, &prefill, v, total, 4, 2, index);
    assert_int_equal(index[0], 0);
    assert_int_equal(index[1], 1);
    /* The one whose turn it is has gone: the next one has it. */
    p.ops->pick(p.instance, &decode, v + 1, total, 3, 1, index);
    assert_int_equal(v[1 + index[0]].slot, 5);
    p.ops->pick(p.instance, &decode, v, total, 4, 1, index);
    assert_int_equal(v[index[0]].slot, 7);
    p.ops->destroy(p.instance);
}

static void chances_are_as_promised(void **state)
{
    (void)state;
    struct picker even = open_picker("random", "random");
    struct picker weighted = open_picker("weighted_random", "weighted-random-picker");
    static const double total[4] = { 1, 2, 0, 5 };
    struct pd_endpoint_view v[4] = { { 0 } };
    uint32_t index[4];
    uint32_t hits[2][4] = { { 0 } };
    for (uint64_t random = 0; random < 16000; random++) {
        struct pd_sched_request request = request_for(PD_ROLE_DECODE, random * 0x9e3779b97f4a7c15u);
        even.ops->pick(even.instance, &request, v, total, 4, 1, index);
        hits[0][index[0]]++;
        weighted.ops->pick(weighted.instance, &request, v, total, 4, 4, index);
        hits[1][index[0]]++;
        assert_int_equal(index[3], 2);
    }
    for (int i = 0; i < 4; i++) {
        double share = 16000 * total[i] / 8;
        assert_true(hits[0][i] > 3800 && hits[0][i] < 4200);
        assert_true(fabs(hits[1][i] - share) < 250);
    }
    even.ops->destroy(even.instance);
    weighted.ops->destroy(weighted.instance);
}

/* ---- decider ---- */

static void threshold_decider(void **state)
{
    (void)state;
    enum { TOKENS = 1, CHARS = 2, LOCAL = PD_DECIDE_LOCAL, REMOTE = PD_DECIDE_REMOTE,
           EXACT = PD_DECIDE_EXACT };
    static const struct {
        uint32_t unit, when;    /* when: 1 local, 2 remote */
        uint64_t threshold, min_prompt;
        uint32_t nodes, blocks, match, exact;
        uint64_t bytes, tokens;
        uint32_t mode;
    } cases[] = {
        /* chars, as pd-profile-handler with threshold 100 */
        { CHARS, 1, 100, 0, 1, 4, 0, 0, 99, 25, LOCAL },
        { CHARS, 1, 100, 0, 1, 4, 0, 0, 100, 25, REMOTE },
        { CHARS, 1, 100, 0, 1, 4, 3, 0, 868, 217, REMOTE },   /* 868 - 3 * 256 = 100 */
        { CHARS, 1, 100, 0, 1, 4, 3, 0, 867, 217, LOCAL },
        { CHARS, 1, 100, 0, 1, 4, 4, 0, 900, 225, LOCAL },    /* more cached than there is */
        { CHARS, 1, 100, 0, 0, 4, 0, 0, 9000, 2250, LOCAL },  /* nobody to prefill */
        { CHARS, 1, 0, 0, 1, 4, 4, 0, 10, 3, REMOTE },        /* threshold 0 */
        { CHARS, 1, 0, 11, 1, 4, 4, 0, 10, 3, LOCAL },
        { CHARS, 1, 100, 500, 1, 4, 0, 0, 499, 125, LOCAL },
        { CHARS, 1, 100, 500, 1, 4, 0, 0, 500, 125, REMOTE },
        { CHARS, 1, 100, 0, 1, 0, 0, 0, 5000, 1250, LOCAL },  /* no index */
        { CHARS, 2, 100, 0, 1, 0, 0, 0, 5000, 1250, REMOTE },
        /* tokens, known here */
        { TOKENS, 1, 25, 0, 1, 4, 0, 1, 100, 24, LOCAL },
        { TOKENS, 1, 25, 0, 1, 4, 0, 1, 100, 25, REMOTE },
        { TOKENS, 1, 25, 0, 1, 4, 2, 1, 900, 153, REMOTE },   /* 153 - 2 * 64 = 25 */
        { TOKENS, 1, 25, 0, 1, 4, 2, 1, 900, 152, LOCAL },
        /* tokens, the decode node counts */
        { TOKENS, 1, 25, 0, 1, 4, 2, 0, 900, 152, EXACT },
        { TOKENS, 1, 25, 0, 1, 0, 0, 0, 10, 3, EXACT },
        { TOKENS, 1, 25, 10, 1, 0, 0, 0, 10, 3, LOCAL },
        { TOKENS, 1, 25, 0, 0, 4, 0, 0, 10, 3, LOCAL },
    };
    const struct pd_unit *unit = unit_of(load("decide", "pd_threshold"), "pd-profile-handler");
    const struct pd_decider_ops *ops = (const struct pd_decider_ops *)(const void *)unit->ops;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct {
            uint32_t unit, when;
            uint64_t threshold, min_prompt;
        } conf = { cases[c].unit, cases[c].when, cases[c].threshold, cases[c].min_prompt };
        struct pd_sched_request request = request_for(PD_ROLE_DECODE, 1);
        struct pd_endpoint_view view = { .match_blocks = cases[c].match };
        struct pd_decision decision = { .size = sizeof decision };
        struct pd_decider *decider = NULL;
        assert_int_equal(unit->conf_size, sizeof conf);
        request.prompt_bytes = cases[c].bytes;
        request.prompt_tokens = cases[c].tokens;
        request.tokens_exact = cases[c].exact;
        request.prompt_blocks = cases[c].blocks;
        assert_int_equal(ops->create(&ctx, &conf, &decider, &err), PD_OK);
        ops->decide(decider, &request, &view, cases[c].nodes, &decision);
        ops->destroy(decider);
        if (decision.mode != cases[c].mode)
            fail_msg("case %zu: mode %u, %s", c, decision.mode, decision.reason);
        assert_int_equal(decision.min_tokens, decision.mode == EXACT ? 25 : 0);
        assert_true(decision.reason[0] != '\0');
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(role_filter),
    cmocka_unit_test(health_filter),
    cmocka_unit_test(load_scorers),
    cmocka_unit_test(prefix_scorer),
    cmocka_unit_test(pickers_are_honest),
    cmocka_unit_test(max_score_breaks_ties_evenly),
    cmocka_unit_test(max_score_reaches_each_of_many),
    cmocka_unit_test(round_robin_takes_turns),
    cmocka_unit_test(chances_are_as_promised),
    cmocka_unit_test(threshold_decider),
};

PD_UNIT_MAIN(tests)
