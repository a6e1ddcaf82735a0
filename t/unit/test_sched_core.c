/* SPDX-License-Identifier: Apache-2.0 */
/* Endpoints, pipeline and decisions with plugins that are written here. */
#include "unit.h"

#include <math.h>

#include "base/mem.h"
#include "base/str.h"
#include "metric/metric.h"
#include "sched/endpoints.h"
#include "sched/pipeline.h"
#include "sched/scheduler.h"
#include "sched/shortlist.h"

/* ---- plugins of this test ---- */

static uint64_t looked_at;      /* candidates that any plugin was given */

static void role_apply(struct pd_filter *f, const struct pd_sched_request *r,
                       const struct pd_endpoint_view *c, uint32_t n, uint8_t *keep)
{
    (void)f;
    looked_at += n;
    for (uint32_t i = 0; i < n; i++)
        keep[i] = ((c[i].roles == 0 ? (uint32_t)PD_ROLE_DECODE : c[i].roles) & r->roles) != 0;
}

static void up_apply(struct pd_filter *f, const struct pd_sched_request *r,
                     const struct pd_endpoint_view *c, uint32_t n, uint8_t *keep)
{
    (void)f;
    (void)r;
    looked_at += n;
    for (uint32_t i = 0; i < n; i++)
        keep[i] = c[i].state == PD_ENDPOINT_UP;
}

static void prefix_score(struct pd_scorer *s, const struct pd_sched_request *r,
                         const struct pd_endpoint_view *c, uint32_t n, double *score)
{
    (void)s;
    looked_at += n;
    for (uint32_t i = 0; i < n && r->prompt_blocks > 0; i++)
        score[i] = (double)c[i].match_blocks / r->prompt_blocks;
}

static void queue_score(struct pd_scorer *s, const struct pd_sched_request *r,
                        const struct pd_endpoint_view *c, uint32_t n, double *score)
{
    (void)s;
    (void)r;
    looked_at += n;
    for (uint32_t i = 0; i < n; i++)
        score[i] = 0.5 * (1 - (c[i].waiting < 128 ? c[i].waiting : 128) / 128.0);
}

static void wild_score(struct pd_scorer *s, const struct pd_sched_request *r,
                       const struct pd_endpoint_view *c, uint32_t n, double *score)
{
    (void)s;
    (void)r;
    (void)c;
    static const double values[] = { NAN, -5, 7, INFINITY, 0.25 };
    for (uint32_t i = 0; i < n; i++)
        score[i] = values[i % 5];
}

static uint32_t best_pick(struct pd_picker *p, const struct pd_sched_request *r,
                          const struct pd_endpoint_view *c, const double *total, uint32_t n,
                          uint32_t k, uint32_t *index)
{
    uint32_t got = 0;
    (void)p;
    (void)r;
    (void)c;
    looked_at += n;
    for (; got < k && got < n; got++) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            bool taken = false;
            for (uint32_t j = 0; j < got; j++)
                taken = taken || index[j] == i;
            if (!taken && (best == n || total[i] > total[best]))
                best = i;
        }
        index[got] = best;
    }
    return got;
}

static uint32_t wild_pick(struct pd_picker *p, const struct pd_sched_request *r,
                          const struct pd_endpoint_view *c, const double *total, uint32_t n,
                          uint32_t k, uint32_t *index)
{
    (void)p;
    (void)r;
    (void)c;
    (void)total;
    for (uint32_t i = 0; i < k; i++)
        index[i] = i == 0 ? n + 7 : 0;
    return k + 1000;
}

static uint32_t no_pick(struct pd_picker *p, const struct pd_sched_request *r,
                        const struct pd_endpoint_view *c, const double *total, uint32_t n,
                        uint32_t k, uint32_t *index)
{
    (void)p;
    (void)r;
    (void)c;
    (void)total;
    (void)n;
    (void)k;
    (void)index;
    return 0;
}

static uint32_t decide_mode;
static uint64_t decide_min;
static uint32_t decide_nodes;

static void fixed_decide(struct pd_decider *d, const struct pd_sched_request *r,
                         const struct pd_endpoint_view *decode, uint32_t nodes,
                         struct pd_decision *out)
{
    (void)d;
    (void)r;
    (void)decode;
    decide_nodes = nodes;
    out->mode = decide_mode;
    out->min_tokens = decide_min;
    snprintf(out->reason, sizeof out->reason, "because");
}

static uint32_t told;           /* calls of picked */

static void told_picked(struct pd_scorer *s, const struct pd_sched_request *r,
                        const struct pd_endpoint_view *c)
{
    (void)s;
    (void)r;
    (void)c;
    told++;
}

static const struct pd_filter_ops role_ops = { .apply = role_apply };
static const struct pd_filter_ops up_ops = { .apply = up_apply };
static const struct pd_scorer_ops prefix_ops = { .score = prefix_score, .picked = told_picked };
static const struct pd_scorer_ops queue_ops = { .score = queue_score };
static const struct pd_scorer_ops wild_ops = { .score = wild_score };
static const struct pd_picker_ops best_ops = { .pick = best_pick };
static const struct pd_picker_ops wild_pick_ops = { .pick = wild_pick };
static const struct pd_picker_ops no_pick_ops = { .pick = no_pick };
static const struct pd_decider_ops decide_ops = { .decide = fixed_decide };

static void usual_profile(struct pd_profile *p, const char *name)
{
    memset(p, 0, sizeof *p);
    p->name = name;
    assert_int_equal(pd_profile_add_filter(p, "role", &role_ops, NULL), PD_OK);
    assert_int_equal(pd_profile_add_filter(p, "up", &up_ops, NULL), PD_OK);
    assert_int_equal(pd_profile_add_scorer(p, "prefix", &prefix_ops, NULL, 2), PD_OK);
    assert_int_equal(pd_profile_add_scorer(p, "queue", &queue_ops, NULL, 1), PD_OK);
    p->picker_name = "best";
    p->picker_ops = &best_ops;
}

/* ---- a scheduler with endpoints ---- */

struct bench {
    struct pd_sched_pipeline pipeline;
    struct pd_sched *sched;
    const struct pd_sched_api *api;
    struct pd_endpoint_ref ref[16];
    uint32_t n;
    char lines[65536];          /* what was explained, as text */
};

static void bench_open(struct bench *b, uint32_t endpoints)
{
    const struct pd_sched_conf conf = {
        .prefix = { .block_tokens = 4, .blocks_per_endpoint = 1000, .max_match_blocks = 64,
                    .blocks = 10000 },
        .endpoints = endpoints, .explain_candidates = 8, .load_stale = 5 * PD_SEC, .failures = 3,
        .failure_pause = 5 * PD_SEC,
    };
    struct pd_err err = { 0 };
    memset(b, 0, sizeof *b);
    usual_profile(&b->pipeline.decode, "decode");
    usual_profile(&b->pipeline.prefill, "prefill");
    b->pipeline.decider_name = "fixed";
    b->pipeline.decider_ops = &decide_ops;
    b->api = pd_sched_api();
    assert_int_equal(pd_sched_create(&conf, &b->pipeline, NULL, &err, &b->sched), PD_OK);
    decide_mode = PD_DECIDE_REMOTE;
}

static struct pd_endpoint_ref put(struct bench *b, const char *name, uint32_t roles,
                                  const char *model)
{
    struct pd_str models[1] = { pd_str_from(model) };
    const struct pd_endpoint_info info = {
        .size = sizeof info, .roles = roles, .key = pd_str_from(name), .name = pd_str_from(name),
        .models = models, .models_n = model == NULL ? 0 : 1, .user = &b->n,
    };
    struct pd_endpoint_ref ref;
    assert_int_equal(b->api->endpoint_put(b->sched, &info, &ref), PD_OK);
    return ref;
}

static void report(struct bench *b, struct pd_endpoint_ref ref, uint32_t waiting, pd_time now)
{
    const struct pd_endpoint_load load = { .size = sizeof load, .waiting = waiting };
    assert_int_equal(b->api->endpoint_report(b->sched, ref, &load, now), PD_OK);
}

static void write_line(void *arg, const struct pd_explain_line *l)
{
    static const char *const kinds[] = { "?", "profile", "dropped", "candidate", "score", "picked",
                                         "decision", "note" };
    struct bench *b = arg;
    size_t at = strlen(b->lines);
    snprintf(b->lines + at, sizeof b->lines - at, "%s %.*s %.*s %.*s %g %g\n", kinds[l->kind],
             PD_STR_ARG(l->subject), PD_STR_ARG(l->plugin), PD_STR_ARG(l->text), l->value,
             l->extra);
}

static struct pd_sched_ask ask_of(struct bench *b, pd_time now)
{
    b->lines[0] = '\0';
    return (struct pd_sched_ask){
        .size = sizeof(struct pd_sched_ask), .prefill_max = 3, .model = PD_STR("m"),
        .prompt_bytes = 100, .random = 1, .now = now, .explain = { .line = write_line, .arg = b },
    };
}

static void hash(struct bench *b, struct pd_prompt *p, uint64_t *room, const char *text)
{
    b->api->prompt_hash(b->sched, p, PD_STR("m"), PD_STR(""), text, strlen(text), room, 64);
}

static void worked_numbers(void **state)
{
    (void)state;
    struct bench b;
    struct pd_prompt prompt;
    uint64_t room[64];
    struct pd_dispatch d;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    /* Four blocks of 16 bytes; d1 holds two of them and has 64 waiting. */
    const char *text = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd";
    struct pd_endpoint_ref d0 = put(&b, "d0", PD_ROLE_DECODE, "m");
    struct pd_endpoint_ref d1 = put(&b, "d1", 0, "m");
    struct pd_endpoint_ref p0 = put(&b, "p0", PD_ROLE_PREFILL, "m");
    struct pd_endpoint_ref p1 = put(&b, "p1", PD_ROLE_PREFILL, "m");
    struct pd_endpoint_ref x = put(&b, "x", PD_ROLE_DECODE, "other");
    report(&b, d0, 0, 1);
    report(&b, d1, 64, 1);
    report(&b, p0, 32, 1);
    report(&b, p1, 0, 1);
    (void)x;
    hash(&b, &prompt, room, "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb");
    assert_int_equal(b.api->dispatch(b.sched, d1, PD_ROLE_DECODE, &prompt, 8, 1, &d), PD_OK);
    b.api->end(b.sched, &d, PD_DISPATCH_OK, 2);
    hash(&b, &prompt, room, text);
    assert_int_equal(prompt.n, 4);

    struct pd_sched_ask ask = ask_of(&b, 3);
    ask.prompt = &prompt;
    told = 0;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    /* d0: 2 * 0 + 0.5; d1: 2 * 0.5 + 0.25 */
    assert_string_equal(plan.decode.name, "d1");
    assert_true(fabs(plan.decode.total - 1.25) < 1e-12);
    assert_int_equal(plan.decode.match_blocks, 2);
    assert_ptr_equal(plan.decode.user, &b.n);
    assert_int_equal(plan.prefill_n, 2);
    assert_string_equal(plan.prefill[0].name, "p1");
    assert_true(fabs(plan.prefill[0].total - 0.5) < 1e-12);
    assert_true(fabs(plan.prefill[1].total - 0.375) < 1e-12);
    assert_int_equal(plan.decision.mode, PD_DECIDE_REMOTE);
    assert_int_equal(decide_nodes, 2);
    assert_int_equal(told, 2);
    assert_int_equal(plan.stale, 0);
    assert_string_equal(b.lines,
                        "profile decode   4 0\n"
                        "dropped p0 role  0 0\n"
                        "dropped p1 role  0 0\n"
                        "candidate d1   1.25 2\n"
                        "score  prefix  0.5 2\n"
                        "score  queue  0.25 1\n"
                        "candidate d0   0.5 0\n"
                        "score  prefix  0 2\n"
                        "score  queue  0.5 1\n"
                        "picked d1 best  1.25 0\n"
                        "decision remote fixed because 0 0\n"
                        "profile prefill   3 0\n"
                        "dropped d0 role  0 0\n"
                        "candidate p1   0.5 0\n"
                        "score  prefix  0 2\n"
                        "score  queue  0.5 1\n"
                        "candidate p0   0.375 0\n"
                        "score  prefix  0 2\n"
                        "score  queue  0.375 1\n"
                        "picked p1 best  0.5 0\n"
                        "picked p0 best  0.375 0\n");
    pd_sched_destroy(b.sched);
}

static void without_prefill_it_runs_aggregated(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    struct pd_sched_ask ask = ask_of(&b, 3);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_ENOENT);
    struct pd_endpoint_ref both = put(&b, "b", PD_ROLE_DECODE | PD_ROLE_PREFILL, "m");
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.prefill_n, 0);
    assert_int_equal(plan.decision.mode, PD_DECIDE_LOCAL);
    assert_int_equal(decide_nodes, 0);

    /* A prefill node that is down is none. */
    struct pd_endpoint_ref p = put(&b, "p", PD_ROLE_PREFILL, "m");
    assert_int_equal(b.api->endpoint_state(b.sched, p, PD_ENDPOINT_DOWN), PD_OK);
    ask = ask_of(&b, 4);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decision.mode, PD_DECIDE_LOCAL);
    assert_non_null(strstr(b.lines, "no prefill endpoint can take it"));
    assert_int_equal(b.api->endpoint_state(b.sched, p, PD_ENDPOINT_UP), PD_OK);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.prefill_n, 1);
    ask.prefill_max = 0;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decision.mode, PD_DECIDE_LOCAL);
    decide_mode = PD_DECIDE_LOCAL;
    ask.prefill_max = 3;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.prefill_n, 0);
    decide_mode = 99; /* a decider that says nonsense */
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decision.mode, PD_DECIDE_LOCAL);

    /* Nobody decodes. */
    assert_int_equal(b.api->endpoint_state(b.sched, both, PD_ENDPOINT_DRAINING), PD_OK);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_EAGAIN);
    ask.model = PD_STR("unknown");
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_ENOENT);
    assert_false(b.api->model_known(b.sched, PD_STR("unknown")));
    assert_true(b.api->model_known(b.sched, PD_STR("m")));
    assert_int_equal(b.api->endpoint_count(b.sched, PD_ROLE_DECODE, PD_STR("m")), 0);
    assert_int_equal(b.api->endpoint_count(b.sched, PD_ROLE_PREFILL, PD_STR("m")), 1);
    pd_sched_destroy(b.sched);
}

/* A server that takes requests as a whole is neither given a prompt that was
 * computed elsewhere nor asked to compute one. */
static void whole_servers_take_no_part_in_a_handover(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    struct pd_str model = PD_STR("m");
    struct pd_endpoint_info info = {
        .size = sizeof info, .roles = PD_ROLE_DECODE | PD_ROLE_PREFILL, .key = PD_STR("w"),
        .models = &model, .models_n = 1, .flags = PD_ENDPOINT_WHOLE,
    };
    struct pd_endpoint_ref whole;
    assert_int_equal(b.api->endpoint_put(b.sched, &info, &whole), PD_OK);
    put(&b, "p", PD_ROLE_PREFILL, "m");
    struct pd_sched_ask ask = ask_of(&b, 4);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_string_equal(plan.decode.name, "w");
    assert_int_equal(plan.decision.mode, PD_DECIDE_LOCAL);
    assert_int_equal(plan.prefill_n, 0);
    assert_string_equal(plan.decision.reason, "the server computes the prompt itself");
    assert_null(strstr(b.lines, "profile prefill"));
    /* With an engine that decodes, only what can hand over is a candidate. */
    put(&b, "d", PD_ROLE_DECODE, "m");
    ask = ask_of(&b, 4);
    ask.avoid = &whole;
    ask.avoid_n = 1;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_string_equal(plan.decode.name, "d");
    assert_int_equal(plan.prefill_n, 1);
    assert_string_equal(plan.prefill[0].name, "p");
    pd_sched_destroy(b.sched);
}

static struct pd_endpoint_ref put_server(struct bench *b, const char *name, uint32_t roles, uint32_t flags,
                                         uint64_t family)
{
    struct pd_str model = PD_STR("m");
    const struct pd_endpoint_info info = {
        .size = sizeof info, .roles = roles, .key = pd_str_from(name), .name = pd_str_from(name),
        .models = &model, .models_n = 1, .flags = flags, .family = family,
    };
    struct pd_endpoint_ref ref;
    assert_int_equal(b->api->endpoint_put(b->sched, &info, &ref), PD_OK);
    return ref;
}

static void prompts_stay_in_the_family(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    put(&b, "p-node", PD_ROLE_PREFILL, "m");
    struct pd_endpoint_ref d = put_server(&b, "d7", PD_ROLE_DECODE, PD_ENDPOINT_ESTIMATE, 7);
    struct pd_sched_ask ask = ask_of(&b, 4);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.prefill_n, 0);
    put_server(&b, "p8", PD_ROLE_PREFILL, PD_ENDPOINT_ESTIMATE, 8);
    put_server(&b, "p7", PD_ROLE_PREFILL, PD_ENDPOINT_ESTIMATE, 7);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.prefill_n, 1);
    assert_string_equal(plan.prefill[0].name, "p7");
    /* A node of ours gets no prompt of theirs. */
    put(&b, "d-node", PD_ROLE_DECODE, "m");
    ask.avoid = &d;
    ask.avoid_n = 1;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_string_equal(plan.decode.name, "d-node");
    assert_int_equal(plan.prefill_n, 1);
    assert_string_equal(plan.prefill[0].name, "p-node");
    pd_sched_destroy(b.sched);
}

static void servers_are_decided_for_by_estimate(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    decide_mode = PD_DECIDE_EXACT;
    put_server(&b, "d", PD_ROLE_DECODE, PD_ENDPOINT_ESTIMATE, 7);
    put_server(&b, "p", PD_ROLE_PREFILL, PD_ENDPOINT_ESTIMATE, 7);
    struct pd_sched_ask ask = ask_of(&b, 4);
    decide_min = 25;
    ask.prompt_bytes = 100;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decision.mode, PD_DECIDE_REMOTE);
    assert_string_equal(plan.decision.reason, "about 25 uncached tokens, remote from 25");
    assert_int_equal(plan.prefill_n, 1);
    ask.prompt_bytes = 96;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decision.mode, PD_DECIDE_LOCAL);
    assert_int_equal(plan.prefill_n, 0);
    decide_min = 0;
    pd_sched_destroy(b.sched);
}

/* A server that computes no prompts is chosen with one that computes them for it. */
static void pairs_are_chosen_whole(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    decide_mode = PD_DECIDE_LOCAL;
    put_server(&b, "d7", PD_ROLE_DECODE, PD_ENDPOINT_PAIRED, 7);
    struct pd_sched_ask ask = ask_of(&b, 4);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_EAGAIN);
    assert_non_null(strstr(b.lines, "no prefill endpoint is there for it"));
    assert_int_equal(b.api->endpoint_count(b.sched, PD_ROLE_DECODE, PD_STR("m")), 0);
    /* Nor with one of another family, or that is down. */
    put_server(&b, "p8", PD_ROLE_PREFILL, PD_ENDPOINT_PAIRED, 8);
    struct pd_endpoint_ref p7 = put_server(&b, "p7", PD_ROLE_PREFILL, PD_ENDPOINT_PAIRED, 7);
    assert_int_equal(b.api->endpoint_state(b.sched, p7, PD_ENDPOINT_DOWN), PD_OK);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_EAGAIN);
    /* Another server takes the request, however well the lonely one does. */
    struct pd_endpoint_ref w = put_server(&b, "w", PD_ROLE_DECODE, PD_ENDPOINT_WHOLE, 0);
    for (uint32_t i = 0; i < 4; i++) {
        struct pd_dispatch d;
        assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
        assert_string_equal(plan.decode.name, "w");
        assert_int_equal(b.api->dispatch(b.sched, w, PD_ROLE_DECODE, NULL, 0, 0, &d), PD_OK);
    }
    assert_int_equal(b.api->endpoint_count(b.sched, PD_ROLE_DECODE, PD_STR("m")), 1);
    /* With a partner the decider is not asked. */
    assert_int_equal(b.api->endpoint_state(b.sched, p7, PD_ENDPOINT_UP), PD_OK);
    ask.avoid = &w;
    ask.avoid_n = 1;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_string_equal(plan.decode.name, "d7");
    assert_int_equal(plan.decision.mode, PD_DECIDE_REMOTE);
    assert_int_equal(plan.prefill_n, 1);
    assert_string_equal(plan.prefill[0].name, "p7");
    assert_int_equal(b.api->endpoint_count(b.sched, PD_ROLE_DECODE, PD_STR("m")), 2);
    pd_sched_destroy(b.sched);
}

static void what_failed_comes_last(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    struct pd_endpoint_ref d0 = put(&b, "d0", PD_ROLE_DECODE, NULL);
    struct pd_endpoint_ref d1 = put(&b, "d1", PD_ROLE_DECODE, NULL);
    struct pd_endpoint_ref p0 = put(&b, "p0", PD_ROLE_PREFILL, NULL);
    struct pd_endpoint_ref p1 = put(&b, "p1", PD_ROLE_PREFILL, NULL);
    struct pd_endpoint_ref avoid[3] = { d0, p0, d1 };
    struct pd_sched_ask ask = ask_of(&b, 3);
    ask.avoid = avoid;
    ask.avoid_n = 2;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decode.ref.serial, d1.serial);
    assert_int_equal(plan.prefill_n, 1);
    assert_int_equal(plan.prefill[0].ref.serial, p1.serial);
    ask.avoid_n = 3;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decode.ref.serial, d0.serial);
    assert_int_equal(b.api->schedule_prefill(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.prefill_n, 1);
    b.api->endpoint_remove(b.sched, p0);
    b.api->endpoint_remove(b.sched, p1);
    assert_int_equal(b.api->schedule_prefill(b.sched, &ask, &plan), PD_EAGAIN);
    pd_sched_destroy(b.sched);
}

static void stale_reports_fail_open(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    decide_mode = PD_DECIDE_LOCAL;
    struct pd_endpoint_ref d0 = put(&b, "d0", PD_ROLE_DECODE, "m");
    struct pd_endpoint_ref d1 = put(&b, "d1", PD_ROLE_DECODE, "m");
    report(&b, d0, 0, 0);
    report(&b, d1, 100, 4 * PD_SEC);
    /* d0 looks empty, but nothing was heard of it for 6 s. */
    struct pd_sched_ask ask = ask_of(&b, 6 * PD_SEC);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decode.ref.serial, d1.serial);
    assert_int_equal(plan.stale, 0);
    assert_non_null(strstr(b.lines, "dropped d0 stale load report"));
    /* All are silent: old numbers are used, and that is said. */
    ask = ask_of(&b, 60 * PD_SEC);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decode.ref.serial, d0.serial);
    assert_int_equal(plan.stale, 1);
    /* One that never reported is not stale. */
    struct pd_endpoint_ref d2 = put(&b, "d2", PD_ROLE_DECODE, "m");
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decode.ref.serial, d2.serial);
    assert_int_equal(plan.stale, 0);
    pd_sched_destroy(b.sched);
}

static void closed_endpoints_need_no_filter(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    bench_open(&b, 8);
    decide_mode = PD_DECIDE_LOCAL;
    b.pipeline.decode.filters_n = 1; /* role alone */
    struct pd_endpoint_ref d0 = put(&b, "d0", PD_ROLE_DECODE, "m");
    struct pd_endpoint_ref d1 = put(&b, "d1", PD_ROLE_DECODE, "m");
    b.api->endpoint_state(b.sched, d0, PD_ENDPOINT_DOWN);
    struct pd_sched_ask ask = ask_of(&b, 1);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    assert_int_equal(plan.decode.ref.serial, d1.serial);
    assert_non_null(strstr(b.lines, "dropped d0 down or draining"));
    b.api->endpoint_state(b.sched, d1, PD_ENDPOINT_DRAINING);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_EAGAIN);
    b.api->endpoint_state(b.sched, d1, PD_ENDPOINT_SUSPECT);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    pd_sched_destroy(b.sched);
}

static void metrics(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    struct pd_dispatch d;
    struct pd_metrics *registry = NULL;
    struct pd_err err = { 0 };
    double value = 0;
    bench_open(&b, 8);
    pd_sched_destroy(b.sched);
    assert_int_equal(pd_metrics_create(0, &registry), PD_OK);
    const struct pd_sched_conf conf = {
        .prefix = { .block_tokens = 4, .blocks_per_endpoint = 10, .max_match_blocks = 4,
                    .blocks = 100 },
        .endpoints = 4, .load_stale = PD_SEC, .failures = 3,
    };
    assert_int_equal(pd_sched_create(&conf, &b.pipeline, registry, &err, &b.sched), PD_OK);
    struct pd_sched_ask ask = ask_of(&b, 9 * PD_SEC);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_ENOENT);
    struct pd_endpoint_ref e = put(&b, "d0", PD_ROLE_DECODE, "m");
    report(&b, e, 1, 1);
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
    b.api->dispatch(b.sched, e, PD_ROLE_DECODE, NULL, 1, 1, &d);

    static const struct {
        const char *name;
        const char *label;
        double value;
    } expected[] = {
        { "pdplane_sched_decisions_total", "local", 1 },
        { "pdplane_sched_decisions_total", "remote", 0 },
        { "pdplane_sched_refused_total", "no_model", 1 },
        { "pdplane_sched_refused_total", "no_endpoint", 0 },
        { "pdplane_sched_stale_total", NULL, 1 },
        { "pdplane_sched_fallback_total", NULL, 1 },
        { "pdplane_endpoints", NULL, 1 },
        { "pdplane_endpoint_inflight", "d0", 1 },
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const char *values[1] = { expected[i].label };
        assert_int_equal(pd_metrics_read(registry, expected[i].name,
                                         expected[i].label == NULL ? NULL : values, &value), PD_OK);
        if (fabs(value - expected[i].value) > 1e-9)
            fail_msg("%s is %g", expected[i].name, value);
    }
    uint64_t allocations = pd_mem_count();
    for (int i = 0; i < 10; i++) {
        assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
        b.api->dispatch(b.sched, e, PD_ROLE_DECODE, NULL, 1, 1, &d);
        b.api->end(b.sched, &d, PD_DISPATCH_FAILED, 1);
    }
    assert_int_equal(pd_mem_count(), allocations);
    b.api->endpoint_remove(b.sched, e);
    assert_int_equal(pd_metrics_read(registry, "pdplane_endpoint_inflight",
                                     (const char *const[]){ "d0" }, &value), PD_ENOENT);
    pd_sched_destroy(b.sched);
    pd_metrics_destroy(registry);
}

static void plugins_cannot_break_it(void **state)
{
    (void)state;
    struct pd_profile p = { .name = "x", .picker_name = "wild", .picker_ops = &wild_pick_ops };
    struct pd_pipeline_scratch s;
    struct pd_shortlist l = { 0 };
    struct pd_sched_request request = { .size = sizeof request };
    struct pd_pipeline_run run = { .list = &l, .request = &request, .want = 3 };
    assert_int_equal(pd_profile_add_scorer(&p, "wild", &wild_ops, NULL, 2), PD_OK);
    assert_int_equal(pd_pipeline_scratch_init(&s, 8), PD_OK);
    assert_int_equal(pd_shortlist_reserve(&l, 8, 2, 8), PD_OK);
    for (uint32_t n = 5; n <= 5; n -= n == 5 ? 3 : 2) {
        pd_shortlist_begin(&l, &p, 8);
        for (uint32_t i = 0; i < n; i++) {
            struct pd_endpoint e = { .view = { .size = sizeof e.view, .slot = i, .state = PD_ENDPOINT_UP } };
            pd_shortlist_add(&l, &e, 0);
        }
        pd_shortlist_filter(&l, &s, &request, PD_TIME_NEVER, 8);
        pd_pipeline_run(&s, &run);
        static const double expected[5] = { 0, 0, 2, 2, 0.5 };
        for (uint32_t i = 0; i < n; i++)
            assert_true(fabs(s.total[i] - expected[i]) < 1e-12);
        assert_int_equal(run.picks, n > 0);
        assert_int_equal(s.index[0], 0);
        p.picker_ops = &no_pick_ops;
    }
    pd_shortlist_fini(&l);
    pd_pipeline_scratch_fini(&s);
    for (uint32_t i = 1; i < PD_PROFILE_SCORERS_MAX; i++)
        assert_int_equal(pd_profile_add_scorer(&p, "w", &wild_ops, NULL, 1), PD_OK);
    assert_int_equal(pd_profile_add_scorer(&p, "w", &wild_ops, NULL, 1), PD_ELIMIT);
}

static void counts_in_flight(void **state)
{
    (void)state;
    struct bench b;
    struct pd_endpoint_status st;
    struct pd_dispatch d[4];
    bench_open(&b, 2);
    struct pd_endpoint_ref e = put(&b, "e", PD_ROLE_DECODE, "m");
    for (int i = 0; i < 3; i++)
        assert_int_equal(b.api->dispatch(b.sched, e, PD_ROLE_DECODE, NULL, 100, 1, &d[i]), PD_OK);
    assert_int_equal(b.api->endpoint_get(b.sched, e, 1, &st), PD_OK);
    assert_int_equal(st.view.inflight, 3);
    assert_int_equal(st.view.dispatched, 3);
    assert_int_equal(st.view.inflight_tokens, 300);
    assert_true(st.view.report_age_ns == PD_TIME_NEVER);
    b.api->computed(b.sched, &d[0]);
    b.api->computed(b.sched, &d[0]);
    report(&b, e, 2, 5);
    assert_int_equal(b.api->dispatch(b.sched, e, PD_ROLE_DECODE, NULL, 7, 1, &d[3]), PD_OK);
    b.api->endpoint_get(b.sched, e, 9, &st);
    assert_int_equal(st.view.dispatched, 1);
    assert_int_equal(st.view.inflight_tokens, 207);
    assert_int_equal(st.view.report_age_ns, 4);
    b.api->end(b.sched, &d[1], PD_DISPATCH_OK, 9);   /* was in the report */
    b.api->endpoint_get(b.sched, e, 9, &st);
    assert_int_equal(st.view.dispatched, 1);
    b.api->end(b.sched, &d[3], PD_DISPATCH_CANCELLED, 9);
    b.api->end(b.sched, &d[3], PD_DISPATCH_CANCELLED, 9);
    b.api->endpoint_get(b.sched, e, 9, &st);
    assert_int_equal(st.view.dispatched, 0);
    assert_int_equal(st.view.inflight, 2);
    assert_int_equal(st.view.inflight_tokens, 100);
    assert_int_equal(st.failures, 0);

    /* The endpoint goes and another takes its slot: old handles are harmless. */
    assert_int_equal(b.api->endpoint_remove(b.sched, e), PD_OK);
    assert_int_equal(b.api->endpoint_remove(b.sched, e), PD_ESTALE);
    struct pd_endpoint_ref f = put(&b, "f", PD_ROLE_DECODE, "m");
    assert_int_equal(f.slot, e.slot);
    assert_true(f.serial != e.serial);
    b.api->end(b.sched, &d[2], PD_DISPATCH_FAILED, 9);
    b.api->computed(b.sched, &d[0]);
    b.api->endpoint_get(b.sched, f, 9, &st);
    assert_int_equal(st.view.inflight, 0);
    assert_int_equal(st.failures, 0);
    assert_int_equal(b.api->dispatch(b.sched, e, PD_ROLE_DECODE, NULL, 1, 1, &d[1]), PD_ESTALE);
    b.api->end(b.sched, &d[1], PD_DISPATCH_FAILED, 9);
    assert_int_equal(b.api->endpoint_state(b.sched, e, PD_ENDPOINT_UP), PD_ESTALE);
    assert_int_equal(b.api->endpoint_state(b.sched, f, 9), PD_EINVAL);
    pd_sched_destroy(b.sched);
}

static void failures_make_suspect(void **state)
{
    (void)state;
    struct bench b;
    struct pd_endpoint_status st;
    struct pd_dispatch d;
    bench_open(&b, 2);
    struct pd_endpoint_ref e = put(&b, "e", PD_ROLE_DECODE, "m");
    for (int i = 0; i < 3; i++) {
        b.api->endpoint_get(b.sched, e, 10, &st);
        assert_int_equal(st.view.state, PD_ENDPOINT_UP);
        b.api->dispatch(b.sched, e, PD_ROLE_DECODE, NULL, 0, 10, &d);
        b.api->end(b.sched, &d, PD_DISPATCH_FAILED, 10);
    }
    b.api->endpoint_get(b.sched, e, 11, &st);
    assert_int_equal(st.view.state, PD_ENDPOINT_SUSPECT);
    assert_int_equal(st.failed_total, 3);
    b.api->endpoint_get(b.sched, e, 11 + 5 * PD_SEC, &st);
    assert_int_equal(st.view.state, PD_ENDPOINT_UP);
    b.api->dispatch(b.sched, e, PD_ROLE_DECODE, NULL, 0, 11, &d);
    b.api->end(b.sched, &d, PD_DISPATCH_OK, 12);
    b.api->endpoint_get(b.sched, e, 12, &st);
    assert_int_equal(st.view.state, PD_ENDPOINT_UP);
    assert_int_equal(st.failures, 0);
    pd_sched_destroy(b.sched);
}

static void a_failed_prefill_leaves_no_trace_in_the_index(void **state)
{
    (void)state;
    struct bench b;
    struct pd_prompt prompt;
    uint64_t room[64];
    struct pd_dispatch d;
    struct pd_endpoint_status st;
    bench_open(&b, 2);
    struct pd_endpoint_ref e = put(&b, "e", PD_ROLE_PREFILL, "m");
    hash(&b, &prompt, room, "a prompt of more than one block of sixteen bytes");
    b.api->dispatch(b.sched, e, PD_ROLE_PREFILL, &prompt, 9, 1, &d);
    b.api->endpoint_get(b.sched, e, 1, &st);
    assert_int_equal(st.index_blocks, 3);
    b.api->end(b.sched, &d, PD_DISPATCH_FAILED, 2);
    b.api->endpoint_get(b.sched, e, 1, &st);
    assert_int_equal(st.index_blocks, 0);
    b.api->dispatch(b.sched, e, PD_ROLE_PREFILL, &prompt, 9, 1, &d);
    b.api->computed(b.sched, &d);
    b.api->end(b.sched, &d, PD_DISPATCH_CANCELLED, 2);
    b.api->endpoint_get(b.sched, e, 1, &st);
    assert_int_equal(st.index_blocks, 3);
    b.api->endpoint_forget(b.sched, e);
    b.api->endpoint_get(b.sched, e, 1, &st);
    assert_int_equal(st.index_blocks, 0);
    pd_sched_destroy(b.sched);
}

static void the_index_believes_no_more_than_the_cache_holds(void **state)
{
    (void)state;
    struct bench b;
    struct pd_prompt prompt;
    uint64_t room[64];
    struct pd_dispatch d;
    struct pd_endpoint_status st;
    struct pd_endpoint_ref ref;
    bench_open(&b, 2);
    /* 10 engine blocks of 2 tokens are 5 of the index's blocks of 4. */
    const struct pd_endpoint_info info = { .size = sizeof info, .key = PD_STR("e"),
                                           .blocks_total = 10, .block_tokens = 2 };
    assert_int_equal(b.api->endpoint_put(b.sched, &info, &ref), PD_OK);
    char text[256];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    hash(&b, &prompt, room, text);
    assert_int_equal(prompt.n, 16);
    b.api->dispatch(b.sched, ref, PD_ROLE_DECODE, &prompt, 9, 1, &d);
    b.api->endpoint_get(b.sched, ref, 1, &st);
    assert_int_equal(st.index_blocks, 5);
    pd_sched_destroy(b.sched);
}

static void table_limits(void **state)
{
    (void)state;
    struct bench b;
    struct pd_endpoint_ref ref;
    struct pd_str many[PD_ENDPOINT_MODELS_MAX + 1];
    char longest[300];
    bench_open(&b, 2);
    memset(longest, 'k', sizeof longest);
    struct pd_endpoint_info info = { .size = sizeof info };
    assert_int_equal(b.api->endpoint_put(b.sched, &info, &ref), PD_EINVAL);
    info.key = pd_str_of(longest, sizeof longest);
    assert_int_equal(b.api->endpoint_put(b.sched, &info, &ref), PD_EINVAL);
    info.key = pd_str_of(longest, PD_ENDPOINT_KEY_MAX);
    for (uint32_t i = 0; i <= PD_ENDPOINT_MODELS_MAX; i++)
        many[i] = PD_STR("m");
    info.models = many;
    info.models_n = PD_ENDPOINT_MODELS_MAX + 1;
    assert_int_equal(b.api->endpoint_put(b.sched, &info, &ref), PD_EINVAL);
    info.models_n = PD_ENDPOINT_MODELS_MAX;
    for (uint64_t n = 1; n <= 4; n++) {
        pd_mem_fault_set(n);
        assert_int_equal(b.api->endpoint_put(b.sched, &info, &ref), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
    assert_int_equal(b.api->endpoint_put(b.sched, &info, &ref), PD_OK);
    struct pd_endpoint_ref again;
    info.roles = PD_ROLE_PREFILL;
    assert_int_equal(b.api->endpoint_put(b.sched, &info, &again), PD_OK);
    assert_int_equal(again.serial, ref.serial);
    put(&b, "second", 0, NULL);
    info.key = PD_STR("third");
    assert_int_equal(b.api->endpoint_put(b.sched, &info, &ref), PD_ELIMIT);
    uint32_t cursor = 0;
    struct pd_endpoint_status st;
    assert_true(b.api->endpoint_next(b.sched, &cursor, 0, &st));
    assert_int_equal(st.view.roles, PD_ROLE_PREFILL);
    assert_true(b.api->endpoint_next(b.sched, &cursor, 0, &st));
    assert_string_equal(st.view.name, "second");
    assert_null(st.models[0]);
    assert_false(b.api->endpoint_next(b.sched, &cursor, 0, &st));
    assert_int_equal(b.api->endpoint_find(b.sched, PD_STR("second"), &ref), PD_OK);
    assert_int_equal(b.api->endpoint_find(b.sched, PD_STR("third"), &ref), PD_ENOENT);
    pd_sched_destroy(b.sched);
}

static void leaving_endpoints_go_with_their_last_dispatch(void **state)
{
    (void)state;
    struct bench b;
    struct pd_sched_plan plan;
    struct pd_dispatch d[2];
    struct pd_endpoint_status st = { .size = sizeof st };
    bench_open(&b, 4);
    struct pd_endpoint_ref one = put(&b, "one", PD_ROLE_DECODE, "m");
    struct pd_endpoint_ref two = put(&b, "two", PD_ROLE_DECODE, "m");
    struct pd_sched_ask ask = ask_of(&b, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(b.api->dispatch(b.sched, one, PD_ROLE_DECODE, NULL, 9, 2, &d[i]), PD_OK);
    assert_int_equal(b.api->endpoint_drain(b.sched, one), PD_OK);
    assert_int_equal(b.api->endpoint_get(b.sched, one, 2, &st), PD_OK);
    assert_int_equal(st.view.state, PD_ENDPOINT_DRAINING);
    assert_int_equal(b.api->endpoint_state(b.sched, one, PD_ENDPOINT_UP), PD_ESTALE);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
        assert_int_equal(plan.decode.ref.serial, two.serial);
    }
    b.api->end(b.sched, &d[0], PD_DISPATCH_OK, 3);
    assert_int_equal(b.api->endpoint_get(b.sched, one, 3, &st), PD_OK);
    b.api->end(b.sched, &d[1], PD_DISPATCH_FAILED, 3);
    assert_int_equal(b.api->endpoint_get(b.sched, one, 3, &st), PD_ESTALE);

    /* One that comes back is the same, in the state it had; an idle one goes at once. */
    assert_int_equal(b.api->dispatch(b.sched, two, PD_ROLE_DECODE, NULL, 9, 2, &d[0]), PD_OK);
    assert_int_equal(b.api->endpoint_drain(b.sched, two), PD_OK);
    assert_int_equal(b.api->endpoint_drain(b.sched, two), PD_OK);
    assert_false(b.api->model_known(b.sched, PD_STR("m")));
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_ENOENT);
    struct pd_endpoint_ref again = put(&b, "two", PD_ROLE_DECODE, "m");
    assert_int_equal(again.serial, two.serial);
    assert_int_equal(b.api->endpoint_get(b.sched, two, 3, &st), PD_OK);
    assert_int_equal(st.view.state, PD_ENDPOINT_UP);
    assert_int_equal(st.view.inflight, 1);
    b.api->end(b.sched, &d[0], PD_DISPATCH_OK, 3);
    assert_int_equal(b.api->endpoint_get(b.sched, two, 3, &st), PD_OK);
    assert_int_equal(b.api->endpoint_drain(b.sched, two), PD_OK);
    assert_int_equal(b.api->endpoint_get(b.sched, two, 3, &st), PD_ESTALE);
    assert_int_equal(b.api->endpoint_drain(b.sched, two), PD_ESTALE);
    pd_sched_destroy(b.sched);
}

static void ten_thousand_endpoints(void **state)
{
    (void)state;
    static struct bench b;
    static uint64_t room[64];
    struct pd_prompt prompt;
    struct pd_sched_plan plan;
    struct pd_prefix_stats before;
    struct pd_prefix_stats after;
    const uint32_t n = 10000;
    char name[32];
    char text[1024];
    bench_open(&b, n);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "e%u", i);
        struct pd_endpoint_ref ref = put(&b, name, i % 2 == 0 ? PD_ROLE_DECODE : PD_ROLE_PREFILL,
                                         "m");
        report(&b, ref, i % 128, 1);
    }
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    hash(&b, &prompt, room, text);
    struct pd_sched_ask ask = ask_of(&b, 2);
    ask.prompt = &prompt;
    assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);

    uint64_t allocations = pd_mem_count();
    looked_at = 0;
    pd_sched_prefix_stats(b.sched, &before);
    for (int i = 0; i < 100; i++) {
        struct pd_dispatch d;
        struct pd_dispatch p;
        b.lines[0] = '\0';
        assert_int_equal(b.api->schedule(b.sched, &ask, &plan), PD_OK);
        assert_int_equal(plan.prefill_n, 3);
        b.api->dispatch(b.sched, plan.decode.ref, PD_ROLE_DECODE, &prompt, 9, 2, &d);
        b.api->dispatch(b.sched, plan.prefill[0].ref, PD_ROLE_PREFILL, &prompt, 9, 2, &p);
        b.api->computed(b.sched, &p);
        b.api->end(b.sched, &p, PD_DISPATCH_OK, 3);
        b.api->end(b.sched, &d, PD_DISPATCH_OK, 3);
    }
    pd_sched_prefix_stats(b.sched, &after);
    assert_int_equal(pd_mem_count(), allocations);
    /* Each profile: first filter n, the others half of it. */
    assert_true(looked_at <= 100 * 2 * (n + 4 * n / 2));
    assert_true(after.probes - before.probes < 100 * (uint64_t)n);
    pd_sched_destroy(b.sched);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(worked_numbers),
    cmocka_unit_test(without_prefill_it_runs_aggregated),
    cmocka_unit_test(what_failed_comes_last),
    cmocka_unit_test(stale_reports_fail_open),
    cmocka_unit_test(closed_endpoints_need_no_filter),
    cmocka_unit_test(metrics),
    cmocka_unit_test(plugins_cannot_break_it),
    cmocka_unit_test(counts_in_flight),
    cmocka_unit_test(failures_make_suspect),
    cmocka_unit_test(a_failed_prefill_leaves_no_trace_in_the_index),
    cmocka_unit_test(the_index_believes_no_more_than_the_cache_holds),
    cmocka_unit_test(table_limits),
    cmocka_unit_test(whole_servers_take_no_part_in_a_handover),
    cmocka_unit_test(prompts_stay_in_the_family),
    cmocka_unit_test(pairs_are_chosen_whole),
    cmocka_unit_test(servers_are_decided_for_by_estimate),
    cmocka_unit_test(leaving_endpoints_go_with_their_last_dispatch),
    cmocka_unit_test(ten_thousand_endpoints),
};

PD_UNIT_MAIN(tests)
