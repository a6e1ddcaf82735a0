/* SPDX-License-Identifier: Apache-2.0 */
/* The request registry: the books of accounts, the two lists, explanations. */
#include "unit.h"

#include "base/mem.h"
#include "base/str.h"
#include "metric/metric.h"
#include "req/explain.h"
#include "req/ladder.h"
#include "req/reqs.h"
#include "req/roster.h"

static struct pd_reqs *make(uint64_t live, uint64_t finished)
{
    const struct pd_reqs_conf conf = { .live = live, .finished = finished, .explain_bytes = 2048 };
    struct pd_err err = { 0 };
    struct pd_reqs *reqs = NULL;
    assert_int_equal(pd_reqs_create(&conf, NULL, &err, &reqs), PD_OK);
    return reqs;
}

static struct pd_req *begin(struct pd_reqs *reqs, const char *id)
{
    struct pd_req *req = NULL;
    assert_int_equal(pd_req_begin(reqs, pd_str_from(id), PD_ROLE_ROUTER, 5, &req), PD_OK);
    return req;
}

static uint64_t splitmix(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

enum { TEXTS = 7 };

static void texts_of(struct pd_req *req, const char **out[TEXTS])
{
    const char **all[TEXTS] = { &req->model, &req->code, &req->decode, &req->prefill, &req->reason, &req->transport,
                                &req->key };
    memcpy(out, all, sizeof all);
}

/* Whatever the one before left in its memory. */
static void a_record_begins_empty(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(1, 0);
    struct pd_req *first = begin(reqs, "the first one has a long id"), *req;
    const char **set[TEXTS];
    texts_of(first, set);
    for (uint32_t which = 0; which < TEXTS; which++)
        pd_req_text(reqs, first, set[which], PD_STR("text"));
    memset(&first->stage, 0xff, sizeof *first - offsetof(struct pd_req, stage));
    first->outcome = PD_REQ_LIVE;
    pd_req_finish(reqs, first, PD_REQ_OK, 200, PD_STR("code"), 9);
    req = begin(reqs, "b");
    assert_ptr_equal(req, first);
    assert_int_equal(req->size, sizeof *req);
    assert_int_equal(req->role, PD_ROLE_ROUTER);
    assert_string_equal(req->id, "b");
    const char *texts[] = { req->model, req->code, req->decode, req->prefill, req->reason, req->transport, req->key };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_string_equal(texts[i], "");
    assert_int_equal(req->at[PD_REQ_ACCEPTED], 5);
    for (uint32_t i = 1; i < PD_REQ_STAGES; i++)
        assert_int_equal(req->at[i], 0);
    const uint64_t numbers[] = {
        req->stage, req->outcome, req->http_status, req->first_token, req->last_token, req->api, req->stream,
        req->prompt_tokens, req->cached_tokens, req->output_tokens, req->attempts, req->decision, req->remote,
        req->kv_bytes, req->handover_ns, req->kv_blocks, req->digests, (uintptr_t)req->user,
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        assert_int_equal(numbers[i], 0);
    pd_reqs_destroy(reqs);
}

/* Against a plain copy of each text, with texts of any length in any order: they are cut
 * where they must be, and a record that has had long ones allocates nothing for the next. */
static void texts_are_copied_and_cut(void **state)
{
    char want[TEXTS][PD_REQ_TEXT_MAX + 1], text[200];
    const char **set[TEXTS];
    uint64_t random = 1, allocations = 0;
    (void)state;
    struct pd_reqs *reqs = make(1, 0);
    for (int life = 0; life < 300; life++) {
        struct pd_req *req = begin(reqs, "r");
        texts_of(req, set);
        memset(want, 0, sizeof want);
        for (int step = 0; step < 20; step++) {
            uint32_t which = (uint32_t)(splitmix(&random) % TEXTS);
            size_t n = (size_t)(splitmix(&random) % 4 == 0 ? splitmix(&random) % 200 : splitmix(&random) % 20);
            memset(text, 'a' + step, sizeof text);
            pd_req_text(reqs, req, set[which], pd_str_of(text, n));
            n = n < PD_REQ_TEXT_MAX ? n : PD_REQ_TEXT_MAX;
            memcpy(want[which], text, n);
            want[which][n] = '\0';
            for (size_t i = 0; i < TEXTS; i++)
                assert_string_equal(*set[i], want[i]);
        }
        pd_req_finish(reqs, req, PD_REQ_OK, 200, PD_STR(""), 9);
    }
    /* All at their longest: there is room for them from now on, however often. */
    for (int life = 0; life < 3; life++) {
        struct pd_req *req = begin(reqs, "r");
        texts_of(req, set);
        for (uint32_t which = 0; which < TEXTS; which++)
            pd_req_text(reqs, req, set[which], pd_str_of(text, sizeof text));
        assert_int_equal(strlen(req->model), PD_REQ_TEXT_MAX);
        pd_req_finish(reqs, req, PD_REQ_OK, 200, PD_STR(""), 9);
        if (life == 0)
            allocations = pd_mem_count();
    }
    assert_int_equal(pd_mem_count(), allocations);
    pd_reqs_destroy(reqs);
}

/* Without memory a text is empty, and the others stay what they are. */
static void a_text_without_memory_is_empty(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(1, 0);
    struct pd_req *req = begin(reqs, "r");
    char text[128];
    memset(text, 'm', sizeof text);
    pd_req_text(reqs, req, &req->decode, PD_STR("d"));
    pd_mem_fault_set(1);
    pd_req_text(reqs, req, &req->model, pd_str_of(text, sizeof text));
    pd_mem_fault_set(0);
    assert_string_equal(req->model, "");
    assert_string_equal(req->decode, "d");
    pd_req_text(reqs, req, &req->model, PD_STR("tiny"));
    assert_string_equal(req->model, "tiny");
    pd_req_finish(reqs, req, PD_REQ_OK, 200, PD_STR(""), 9);
    pd_reqs_destroy(reqs);
}

/* Each value goes where the search through all bounds puts it. */
static void ladders_count_as_histograms_do(void **state)
{
    static const double seconds[] = PD_METRIC_BOUNDS_SECONDS;
    static const double numbers[] = { 1, 4, 16, 64, 100, 128, 131072 };
    static const struct { const double *bounds; uint32_t n; double scale; } all[] = {
        { seconds, sizeof seconds / sizeof seconds[0], 1e9 }, { numbers, sizeof numbers / sizeof numbers[0], 1 },
    };
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        uint64_t a[PD_REQ_LADDER_MAX + 1] = { 0 }, b[PD_REQ_LADDER_MAX + 1] = { 0 };
        struct pd_histogram want = { .bounds = all[k].bounds, .n_bounds = all[k].n, .counts = a }, got = want;
        struct pd_req_ladder ladder;
        got.counts = b;
        pd_req_ladder_init(&ladder, all[k].bounds, all[k].n, all[k].scale);
        uint64_t values[64 * 3 + PD_REQ_LADDER_MAX * 3], n = 0;
        for (uint32_t i = 0; i < 64; i++) {
            values[n++] = 1ull << i;
            values[n++] = (1ull << i) - 1;
            values[n++] = (1ull << i) + 1;
        }
        for (uint32_t i = 0; i < all[k].n; i++) {
            uint64_t bound = (uint64_t)(all[k].bounds[i] * all[k].scale + 0.5);
            values[n++] = bound;
            values[n++] = bound - 1;
            values[n++] = bound + 1;
        }
        for (uint64_t i = 0; i < n; i++) {
            pd_histogram_observe(&want, (double)values[i] / all[k].scale);
            pd_req_ladder_observe(&ladder, &got, values[i]);
            assert_memory_equal(a, b, sizeof a);
            assert_true(want.sum_bits == got.sum_bits);
        }
        pd_req_ladder_observe(&ladder, NULL, 1);
    }
}

static void life_of_a_request(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(4, 4);
    struct pd_req *req = begin(reqs, "abc");
    assert_string_equal(req->id, "abc");
    assert_int_equal(req->number, 1);
    assert_int_equal(req->at[PD_REQ_ACCEPTED], 5);
    pd_req_stage(reqs, req, PD_REQ_DECODE_SENT, 10);
    pd_req_tokens(reqs, req, 1, 20);
    pd_req_tokens(reqs, req, 3, 50);
    assert_int_equal(req->first_token, 20);
    assert_int_equal(req->last_token, 50);
    assert_int_equal(req->output_tokens, 4);
    pd_req_finish(reqs, req, PD_REQ_UPSTREAM_ERROR, 502, PD_STR("kv_integrity"), 60);
    const struct pd_req *found = pd_reqs_find(reqs, PD_STR("abc"));
    assert_ptr_equal(found, req);
    assert_int_equal(found->outcome, PD_REQ_UPSTREAM_ERROR);
    assert_int_equal(found->stage, PD_REQ_ENDED);
    assert_int_equal(found->http_status, 502);
    assert_string_equal(found->code, "kv_integrity");
    assert_int_equal(found->at[PD_REQ_ENDED], 60);
    assert_true(pd_reqs_balanced(reqs));
    assert_string_equal(pd_req_stage_name(PD_REQ_MOVING), "moving kv");
    assert_string_equal(pd_req_outcome_name(PD_REQ_SHED), "shed");
    assert_string_equal(pd_req_outcome_name(77), "unknown");
    pd_reqs_destroy(reqs);
}

static void ids(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(8, 8);
    char longest[100];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_string_equal(begin(reqs, "")->id, "req-1");
    assert_int_equal(strlen(begin(reqs, longest)->id), PD_REQ_ID_MAX);
    assert_string_equal(begin(reqs, "a b\n\"c\x7f")->id, "a_b__c_");
    struct pd_req *twice = begin(reqs, "same");
    struct pd_req *again = begin(reqs, "same");
    assert_ptr_equal(pd_reqs_find(reqs, PD_STR("same")), again);
    pd_req_finish(reqs, again, PD_REQ_OK, 200, PD_STR(""), 9);
    assert_ptr_equal(pd_reqs_find(reqs, PD_STR("same")), twice);
    assert_ptr_equal(pd_reqs_find(reqs, PD_STR("5")), again);
    assert_null(pd_reqs_find(reqs, PD_STR("6")));
    assert_null(pd_reqs_find(reqs, PD_STR("nobody")));
    pd_reqs_destroy(reqs);
}

static void limits_shed(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(2, 3);
    struct pd_req *a = begin(reqs, "a");
    struct pd_req *more = NULL;
    begin(reqs, "b");
    assert_int_equal(pd_req_begin(reqs, PD_STR("c"), PD_ROLE_ROUTER, 6, &more), PD_ELIMIT);
    struct pd_req_counts counts;
    pd_reqs_counts(reqs, &counts);
    assert_int_equal(counts.accepted, 3);
    assert_int_equal(counts.outcome[PD_REQ_SHED], 1);
    assert_int_equal(counts.outcome[PD_REQ_LIVE], 2);
    assert_true(pd_reqs_balanced(reqs));
    pd_req_finish(reqs, a, PD_REQ_CANCELLED, 0, PD_STR(""), 7);
    assert_true(pd_reqs_balanced(reqs));
    pd_reqs_destroy(reqs);

    /* The first allocation of a slab fails. */
    reqs = make(2, 3);
    pd_mem_fault_set(1);
    assert_int_equal(pd_req_begin(reqs, PD_STR("d"), PD_ROLE_DECODE, 6, &more), PD_ENOMEM);
    pd_mem_fault_set(0);
    assert_true(pd_reqs_balanced(reqs));
    begin(reqs, "e");
    pd_reqs_destroy(reqs);
}

static void walk(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(100, 3);
    char id[16];
    char seen[128] = "";
    struct pd_req *live[8];
    for (int i = 0; i < 8; i++) {
        snprintf(id, sizeof id, "%c", 'a' + i);
        live[i] = begin(reqs, id);
    }
    for (int i = 0; i < 6; i++)
        pd_req_finish(reqs, live[i], PD_REQ_OK, 200, PD_STR(""), 100 + (pd_time)i);
    uint64_t cursor = 0;
    const struct pd_req *req = NULL;
    while (pd_reqs_next(reqs, &cursor, &req))
        strcat(seen, req->id);
    assert_false(pd_reqs_next(reqs, &cursor, &req));
    /* Live oldest first, then finished newest first; three are remembered. */
    assert_string_equal(seen, "ghfed");
    assert_null(pd_reqs_find(reqs, PD_STR("a")));
    pd_reqs_destroy(reqs);

    reqs = make(1, 0);
    cursor = 0;
    assert_false(pd_reqs_next(reqs, &cursor, &req));
    pd_req_finish(reqs, begin(reqs, "x"), PD_REQ_OK, 200, PD_STR(""), 1);
    assert_null(pd_reqs_find(reqs, PD_STR("x")));
    assert_true(pd_reqs_balanced(reqs));
    pd_reqs_destroy(reqs);
}

static void books_hold_and_nothing_is_allocated(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(32, 64);
    struct pd_req *live[32];
    uint32_t n = 0;
    uint64_t random = 42;
    uint64_t allocations = 0;
    uint64_t bytes = 0;
    for (int step = 0; step < 20000; step++) {
        if (step == 2000) {
            allocations = pd_mem_count();
            bytes = pd_reqs_bytes(reqs);
        }
        if (splitmix(&random) % 2 == 0) {
            struct pd_req *req = NULL;
            pd_status st = pd_req_begin(reqs, PD_STR("r"), PD_ROLE_DECODE, (pd_time)step, &req);
            assert_int_equal(st, n == 32 ? PD_ELIMIT : PD_OK);
            if (st == PD_OK)
                live[n++] = req;
        } else if (n > 0) {
            uint32_t at = (uint32_t)(splitmix(&random) % n);
            uint32_t outcome = PD_REQ_OK + (uint32_t)(splitmix(&random) % 5);
            pd_req_note(live[at], "step %d", step);
            pd_req_finish(reqs, live[at], outcome, 200, PD_STR("x"), (pd_time)step);
            live[at] = live[--n];
        }
        if (step % 97 == 0)
            assert_true(pd_reqs_balanced(reqs));
    }
    assert_int_equal(pd_mem_count(), allocations);
    assert_int_equal(pd_reqs_bytes(reqs), bytes);
    pd_reqs_destroy(reqs);
}

static void explanations(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(4, 4);
    struct pd_req *req = begin(reqs, "abc");
    struct pd_explain_line line = { .kind = PD_EXPLAIN_CANDIDATE, .subject = PD_STR("d0"),
                                    .value = 2.5, .extra = 3 };
    struct pd_explain_line got;
    uint32_t cursor = 0;
    pd_req_explain(req, &line);
    pd_req_note(req, "retry %d", 2);
    assert_true(pd_req_explain_next(req, &cursor, &got));
    assert_int_equal(got.kind, PD_EXPLAIN_CANDIDATE);
    assert_true(pd_str_is(got.subject, "d0"));
    assert_true(got.value > 2.4 && got.value < 2.6 && got.extra > 2.9);
    assert_true(pd_req_explain_next(req, &cursor, &got));
    assert_int_equal(got.kind, PD_EXPLAIN_NOTE);
    assert_true(pd_str_is(got.text, "retry 2"));
    assert_false(pd_req_explain_next(req, &cursor, &got));
    assert_int_equal(pd_req_explain_lost(req), 0);

    /* Many candidates leave room for the result. */
    for (int i = 0; i < 500; i++)
        pd_req_explain(req, &line);
    assert_true(pd_req_explain_lost(req) > 0);
    line = (struct pd_explain_line){ .kind = PD_EXPLAIN_SCORE, .plugin = PD_STR("p") };
    uint32_t lost = pd_req_explain_lost(req);
    pd_req_explain(req, &line);
    assert_int_equal(pd_req_explain_lost(req), lost + 1);
    line = (struct pd_explain_line){ .kind = PD_EXPLAIN_PICKED, .subject = PD_STR("d7") };
    pd_req_explain(req, &line);
    cursor = 0;
    uint32_t last = 0;
    while (pd_req_explain_next(req, &cursor, &got))
        last = got.kind;
    assert_int_equal(last, PD_EXPLAIN_PICKED);

    /* A new request in the same memory starts empty. */
    pd_reqs_destroy(reqs);
    reqs = make(1, 0);
    req = begin(reqs, "a");
    pd_req_note(req, "one");
    pd_req_finish(reqs, req, PD_REQ_OK, 200, PD_STR(""), 1);
    req = begin(reqs, "b");
    cursor = 0;
    assert_false(pd_req_explain_next(req, &cursor, &got));
    pd_reqs_destroy(reqs);
}

static void scores_stay_with_their_candidate(void **state)
{
    (void)state;
    uint8_t room[PD_EXPLAIN_RESERVE + 100];
    struct pd_explain e;
    struct pd_explain_line got;
    char name[256];
    uint32_t cursor = 0;
    memset(name, 'n', sizeof name);
    pd_explain_init(&e, room, sizeof room, sizeof room);
    struct pd_explain_line big = { .kind = PD_EXPLAIN_CANDIDATE,
                                   .subject = pd_str_of(name, sizeof name) };
    struct pd_explain_line small = { .kind = PD_EXPLAIN_SCORE, .plugin = PD_STR("p") };
    struct pd_explain_line fits = { .kind = PD_EXPLAIN_CANDIDATE, .subject = PD_STR("d") };
    pd_explain_add(&e, &big);
    pd_explain_add(&e, &small);
    pd_explain_add(&e, &fits);
    pd_explain_add(&e, &small);
    assert_int_equal(e.lost, 2);
    assert_true(pd_explain_next(&e, &cursor, &got));
    assert_int_equal(got.kind, PD_EXPLAIN_CANDIDATE);
    assert_true(pd_explain_next(&e, &cursor, &got));
    assert_int_equal(got.kind, PD_EXPLAIN_SCORE);
    assert_false(pd_explain_next(&e, &cursor, &got));
}

/* A table reads as the lines it stands for, between lines that came alone; rows
 * without room are counted line by line. */
static void tables_read_as_lines(void **state)
{
    static const struct pd_explain_column columns[] = { { PD_STR("one"), 2 }, { PD_STR("three"), 0.5 } };
    static const struct pd_explain_row rows[] = { { PD_STR("d0"), 2.5, 7 }, { PD_STR("a longer name"), 1, 0 } };
    static const double scores[] = { 1, 0.25, 0.5, 0.125 };
    static const struct pd_explain_table table = { 2, 2, rows, columns, scores };
    static const struct { uint32_t kind; const char *subject, *plugin; double value, extra; } want[] = {
        { PD_EXPLAIN_PROFILE, "decode", "", 2, 0 },
        { PD_EXPLAIN_CANDIDATE, "d0", "", 2.5, 7 },
        { PD_EXPLAIN_SCORE, "", "one", 1, 2 },
        { PD_EXPLAIN_SCORE, "", "three", 0.25, 0.5 },
        { PD_EXPLAIN_CANDIDATE, "a longer name", "", 1, 0 },
        { PD_EXPLAIN_SCORE, "", "one", 0.5, 2 },
        { PD_EXPLAIN_SCORE, "", "three", 0.125, 0.5 },
        { PD_EXPLAIN_PICKED, "d0", "", 2.5, 0 },
    };
    uint8_t room[PD_EXPLAIN_MIN];
    struct pd_explain e;
    struct pd_explain_line got;
    uint32_t cursor = 0;
    (void)state;
    pd_explain_init(&e, room, sizeof room, sizeof room);
    struct pd_explain_line first = { .kind = PD_EXPLAIN_PROFILE, .subject = PD_STR("decode"), .value = 2 };
    struct pd_explain_line last = { .kind = PD_EXPLAIN_PICKED, .subject = PD_STR("d0"), .value = 2.5 };
    pd_explain_add(&e, &first);
    pd_explain_add_table(&e, &table);
    pd_explain_add(&e, &last);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_true(pd_explain_next(&e, &cursor, &got));
        assert_int_equal(got.kind, want[i].kind);
        assert_true(pd_str_is(got.subject, want[i].subject) && pd_str_is(got.plugin, want[i].plugin));
        assert_true(got.value == want[i].value && got.extra == want[i].extra);
    }
    assert_false(pd_explain_next(&e, &cursor, &got));
    assert_int_equal(e.lost, 0);
    uint32_t n = 0;
    for (; n < 100 && e.lost == 0; n++)
        pd_explain_add_table(&e, &table);
    assert_true(n > 1 && n < 100);
    assert_true(e.lost == 3 || e.lost == 6);
    pd_explain_add(&e, &last);
    uint32_t lines = 0;
    for (cursor = 0; pd_explain_next(&e, &cursor, &got); lines++)
        ;
    assert_int_equal(lines + e.lost, 9 + 6 * n);
    assert_int_equal(got.kind, PD_EXPLAIN_PICKED);
}

static struct pd_explain_roster *roster_of(uint32_t n)
{
    struct pd_explain_roster *r = pd_explain_roster_make(n, 2, 2, 200);
    assert_non_null(r);
    r->candidates = n + 2;
    r->drops_max = 1;
    r->is_stale = true;
    r->profile = pd_explain_roster_text(r, "decode");
    r->picker = pd_explain_roster_text(r, "best");
    r->column[0] = (struct pd_explain_column){ pd_explain_roster_text(r, "one"), 2 };
    r->column[1] = (struct pd_explain_column){ pd_explain_roster_text(r, "three"), 0.5 };
    for (uint32_t i = 0; i < n; i++)
        r->name[i] = pd_explain_roster_text(r, i == 0 ? "d0" : i == 1 ? "d1" : "dn");
    r->drop[0] = (struct pd_explain_drop){ 7, pd_explain_roster_text(r, "p0"), pd_explain_roster_text(r, "role") };
    r->drop[1] = (struct pd_explain_drop){ 9, pd_explain_roster_text(r, "p1"), pd_explain_roster_text(r, "role") };
    return r;
}

/* A run reads as the lines it stands for, what was picked first; rows without room are
 * counted line by line, and a third roster is not taken. */
static void runs_read_as_lines(void **state)
{
    static const struct pd_endpoint_view views[30] = { [1] = { .match_blocks = 3 } };
    static const double scores[60] = { [0] = 0.5, [1] = 0.1, [30] = 1, [31] = 0.2 };
    static const uint32_t picked[] = { 1 }, matched[] = { 1 };
    static const struct { uint32_t kind; const char *subject, *plugin; double value, extra; } want[] = {
        { PD_EXPLAIN_PROFILE, "decode", "", 3, 0 },
        { PD_EXPLAIN_DROPPED, "p1", "role", 0, 0 },
        { PD_EXPLAIN_NOTE, "", "", 0, 0 },
        { PD_EXPLAIN_CANDIDATE, "d1", "", 2 * 0.1 + 0.5 * 0.2, 3 },
        { PD_EXPLAIN_SCORE, "", "one", 0.1, 2 },
        { PD_EXPLAIN_SCORE, "", "three", 0.2, 0.5 },
        { PD_EXPLAIN_CANDIDATE, "d0", "", 1.5, 0 },
        { PD_EXPLAIN_SCORE, "", "one", 0.5, 2 },
        { PD_EXPLAIN_SCORE, "", "three", 1, 0.5 },
        { PD_EXPLAIN_PICKED, "d1", "best", 2 * 0.1 + 0.5 * 0.2, 0 },
        { PD_EXPLAIN_NOTE, "", "", 0, 0 },
    };
    struct pd_explain_roster *roster[3] = { roster_of(2), roster_of(30), roster_of(2) };
    struct pd_explain_run run = { .roster = roster[0], .picked = picked, .picks = 1, .rows = 8, .without = 8,
                                  .stride = 30, .views = views, .score = scores,
                                  .matched = matched, .matched_n = 1 };
    struct pd_explain_line note = { .kind = PD_EXPLAIN_NOTE, .text = PD_STR("x") }, got;
    uint8_t room[PD_EXPLAIN_MIN];
    struct pd_explain e;
    uint32_t cursor = 0, lines = 0;
    (void)state;
    pd_explain_init(&e, room, sizeof room, sizeof room);
    assert_true(pd_explain_add_run(&e, &run));
    pd_explain_add(&e, &note);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_true(pd_explain_next(&e, &cursor, &got));
        assert_int_equal(got.kind, want[i].kind);
        assert_true(pd_str_is(got.subject, want[i].subject) && pd_str_is(got.plugin, want[i].plugin));
        assert_true(got.value == want[i].value && got.extra == want[i].extra);
    }
    assert_false(pd_explain_next(&e, &cursor, &got));
    assert_int_equal(e.lost, 0);
    assert_int_equal(roster[0]->refs, 2);
    /* Now with more rows than there is room for, and all of a run when there is none. */
    run.roster = roster[1];
    run.rows = 30;
    run.without = 0;
    uint32_t total = 11;
    for (uint32_t i = 0; i < 60; i++, total += 1 + 1 + 1 + 30 * 3 + 1)
        assert_true(pd_explain_add_run(&e, &run));
    assert_int_equal(roster[1]->refs, 2);
    for (cursor = 0; pd_explain_next(&e, &cursor, &got); lines++)
        assert_true(got.kind <= PD_EXPLAIN_NOTE);
    assert_true(e.lost > 0 && e.used <= sizeof room);
    assert_int_equal(lines + e.lost, total);
    run.roster = roster[2];
    assert_false(pd_explain_add_run(&e, &run));
    pd_explain_reset(&e);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(roster[i]->refs, 1);
        pd_explain_roster_put(roster[i]);
    }
    pd_explain_roster_put(NULL);
}

static void metrics(void **state)
{
    (void)state;
    const struct pd_reqs_conf conf = { .live = 8, .finished = 8, .explain_bytes = 2048 };
    struct pd_metrics *registry = NULL;
    struct pd_reqs *reqs = NULL;
    struct pd_err err = { 0 };
    struct pd_req *req = NULL;
    uint64_t allocations = 0;
    assert_int_equal(pd_metrics_create(0, &registry), PD_OK);
    assert_int_equal(pd_reqs_create(&conf, registry, &err, &reqs), PD_OK);
    for (int i = 0; i < 20; i++) {
        if (i == 15)
            allocations = pd_mem_count();
        assert_int_equal(pd_req_begin(reqs, PD_STR("r"), PD_ROLE_ROUTER, 1, &req), PD_OK);
        pd_req_text(reqs, req, &req->model, PD_STR("tiny"));
        req->api = PD_REQ_API_CHAT;
        req->remote = 1;
        req->stream = 1;
        req->attempts = 2;
        pd_req_stage(reqs, req, PD_REQ_BODY, 2);
        pd_req_stage(reqs, req, PD_REQ_DECODE_SENT, 3);
        pd_req_tokens(reqs, req, 1, 10);
        pd_req_tokens(reqs, req, 2, 20);
        pd_req_finish(reqs, req, PD_REQ_OK, 200, PD_STR(""), 30);
        /* A decode leg of the same node counts its transfer, not the client's times. */
        assert_int_equal(pd_req_begin(reqs, PD_STR("r"), PD_ROLE_DECODE, 1, &req), PD_OK);
        pd_req_text(reqs, req, &req->model, PD_STR("tiny"));
        pd_req_text(reqs, req, &req->transport, PD_STR("shm"));
        req->handover_ns = 5;
        req->kv_bytes = 100;
        pd_req_finish(reqs, req, PD_REQ_OK, 0, PD_STR(""), 30);
    }
    assert_int_equal(pd_mem_count(), allocations);
    /* A name that no endpoint was found for makes no series. */
    assert_int_equal(pd_req_begin(reqs, PD_STR("r"), PD_ROLE_ROUTER, 1, &req), PD_OK);
    pd_req_text(reqs, req, &req->model, PD_STR("invented"));
    pd_req_finish(reqs, req, PD_REQ_CLIENT_ERROR, 404, PD_STR("model_not_found"), 30);

    double v = 0;
    static const char *const total[] = { "chat", "tiny", "200", "pd", "true" };
    static const char *const missing[] = { "peer", "", "404", "decode_only", "false" };
    static const char *const tiny[] = { "tiny" };
    static const char *const invented[] = { "invented" };
    assert_int_equal(pd_metrics_read(registry, "pdplane_requests_total", total, &v), PD_OK);
    assert_true(v > 19.5 && v < 20.5);
    assert_int_equal(pd_metrics_read(registry, "pdplane_requests_total", missing, &v), PD_OK);
    assert_true(v > 0.5 && v < 1.5);
    static const struct {
        const char *name;
        double n;
    } counts[] = {
        { "pdplane_ttft_seconds", 20 }, { "pdplane_request_duration_seconds", 20 },
        { "pdplane_itl_seconds", 40 }, { "pdplane_tpot_seconds", 20 },
        { "pdplane_queue_seconds", 20 }, { "pdplane_kv_transfer_seconds", 20 },
        { "pdplane_output_tokens", 20 }, { "pdplane_prefill_seconds", 0 },
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        assert_int_equal(pd_metrics_read(registry, counts[i].name, tiny, &v), PD_OK);
        if (v > counts[i].n + 0.5 || v < counts[i].n - 0.5)
            fail_msg("%s counts %g", counts[i].name, v);
    }
    assert_int_equal(pd_metrics_read(registry, "pdplane_ttft_seconds", invented, &v), PD_ENOENT);
    assert_int_equal(pd_metrics_read(registry, "pdplane_request_retries_total", NULL, &v), PD_OK);
    assert_true(v > 19.5 && v < 20.5);
    assert_int_equal(pd_metrics_read(registry, "pdplane_handover_bytes_total",
                                     (const char *const[]){ "shm" }, &v), PD_OK);
    assert_true(v > 1999 && v < 2001);
    assert_int_equal(pd_metrics_read(registry, "pdplane_requests_running",
                                     (const char *const[]){ "router" }, &v), PD_OK);
    assert_true(v > -0.5 && v < 0.5);
    assert_int_equal(pd_metrics_read(registry, "pdplane_request_accepted_total",
                                     (const char *const[]){ "router" }, &v), PD_OK);
    assert_true(v > 20.5 && v < 21.5);
    pd_reqs_destroy(reqs);
    pd_metrics_destroy(registry);
}

/* Two histograms of seconds as they are read. */
struct two {
    const char *name[2];
    uint64_t buckets[2][PD_METRIC_MAX_BOUNDS + 1];
    double sum[2];
    size_t n[2];
};

static bool every_family(const struct pd_metric_view *family, void *arg)
{
    (void)family;
    (void)arg;
    return true;
}

static void read_two(const struct pd_metric_view *family, const struct pd_metric_sample *sample, void *arg)
{
    struct two *t = arg;
    for (int i = 0; i < 2; i++) {
        if (strcmp(family->name, t->name[i]) != 0)
            continue;
        t->n[i] = family->n_bounds + 1;
        t->sum[i] = sample->value;
        memcpy(t->buckets[i], sample->buckets, t->n[i] * sizeof t->buckets[i][0]);
    }
}

/* Gaps fall where pd_histogram_observe_ns puts them: at each bound and each power of two,
 * and beside them. */
static void gaps_fall_into_their_buckets(void **state)
{
    (void)state;
    static const double seconds[] = PD_METRIC_BOUNDS_SECONDS;
    const struct pd_reqs_conf conf = { .live = 4, .finished = 4, .explain_bytes = 1024 };
    const struct pd_metric_desc desc = { .size = sizeof desc, .name = "pdplane_ref_seconds", .help = "Same.",
                                         .bounds = seconds, .n_bounds = sizeof seconds / sizeof seconds[0] };
    struct pd_metrics *registry = NULL;
    struct pd_metric_family *family = NULL;
    struct pd_reqs *reqs = NULL;
    struct pd_req *req = NULL;
    assert_int_equal(pd_metrics_create(0, &registry), PD_OK);
    assert_int_equal(pd_reqs_create(&conf, registry, NULL, &reqs), PD_OK);
    assert_int_equal(pd_metrics_family(registry, PD_METRIC_HISTOGRAM, &desc, NULL, &family), PD_OK);
    struct pd_histogram *ref = pd_metrics_histogram(registry, family, NULL);
    assert_int_equal(pd_req_begin(reqs, PD_STR("r"), PD_ROLE_ROUTER, 1, &req), PD_OK);
    pd_req_tokens(reqs, req, 1, 10);
    pd_time now = 10;
    for (size_t i = 0; i < desc.n_bounds + 40; i++) {
        pd_time middle = i < desc.n_bounds ? (pd_time)(seconds[i] * 1e9 + 0.5) : (pd_time)1 << (i - desc.n_bounds);
        for (pd_time gap = middle - 1; gap <= middle + 1; gap++) {
            now += gap;
            pd_req_tokens(reqs, req, 1, now);
            pd_histogram_observe_ns(ref, gap);
        }
    }
    /* Of many together a few stand for all. */
    pd_req_tokens(reqs, req, 100, now + 100 * PD_MS);
    for (int i = 0; i < 8; i++)
        pd_histogram_observe_ns(ref, PD_MS);
    const struct pd_metric_visitor visitor = { .size = sizeof visitor, .family = every_family, .sample = read_two };
    struct two t = { .name = { "pdplane_itl_seconds", "pdplane_ref_seconds" } };
    pd_metrics_visit(registry, &visitor, &t);
    assert_int_equal(t.n[0], desc.n_bounds + 1);
    assert_int_equal(t.n[1], desc.n_bounds + 1);
    assert_memory_equal(t.buckets[0], t.buckets[1], t.n[0] * sizeof t.buckets[0][0]);
    assert_memory_equal(&t.sum[0], &t.sum[1], sizeof t.sum[0]);
    for (size_t i = 0; i < t.n[0]; i++)
        assert_true(t.buckets[0][i] > 0);
    pd_req_finish(reqs, req, PD_REQ_OK, 200, PD_STR(""), now);
    pd_reqs_destroy(reqs);
    pd_metrics_destroy(registry);
}

struct seen {
    uint32_t n;
    uint32_t stage[8];
    uint32_t tokens[8];
};

static void on_step(const struct pd_req *req, void *arg)
{
    struct seen *s = arg;
    assert_true(s->n < 8);
    s->stage[s->n] = req->stage;
    s->tokens[s->n++] = req->output_tokens;
}

static void an_observer_sees_each_step(void **state)
{
    (void)state;
    struct pd_reqs *reqs = make(4, 4);
    struct seen s = { 0 };
    pd_reqs_watch(reqs, on_step, &s);
    struct pd_req *req = begin(reqs, "a");
    pd_req_stage(reqs, req, PD_REQ_DECODE_SENT, 10);
    pd_req_tokens(reqs, req, 2, 20);
    pd_reqs_watch(reqs, NULL, NULL);
    pd_req_stage(reqs, req, PD_REQ_FINISHING, 30);
    pd_req_finish(reqs, req, PD_REQ_OK, 200, PD_STR(""), 40);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.stage[0], PD_REQ_ACCEPTED);
    assert_int_equal(s.stage[1], PD_REQ_DECODE_SENT);
    assert_int_equal(s.tokens[1], 0);
    assert_int_equal(s.tokens[2], 2);
    pd_reqs_destroy(reqs);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tables_read_as_lines),
    cmocka_unit_test(runs_read_as_lines),
    cmocka_unit_test(an_observer_sees_each_step),
    cmocka_unit_test(gaps_fall_into_their_buckets),
    cmocka_unit_test(life_of_a_request),
    cmocka_unit_test(a_record_begins_empty),
    cmocka_unit_test(texts_are_copied_and_cut),
    cmocka_unit_test(a_text_without_memory_is_empty),
    cmocka_unit_test(ladders_count_as_histograms_do),
    cmocka_unit_test(ids),
    cmocka_unit_test(limits_shed),
    cmocka_unit_test(walk),
    cmocka_unit_test(books_hold_and_nothing_is_allocated),
    cmocka_unit_test(metrics),
    cmocka_unit_test(explanations),
    cmocka_unit_test(scores_stay_with_their_candidate),
};

PD_UNIT_MAIN(tests)
