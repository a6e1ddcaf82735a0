/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of pdbench: histograms, the fake engine and the load, in the
 * simulator, where every delay is known exactly. */
#include "net_world.h"

#include <math.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "bench/engine.h"
#include "bench/load.h"
#include "bench/plot.h"
#include "bench/trace.h"

static void test_hist(void **state)
{
    static struct pd_bench_hist h;
    (void)state;
    pd_bench_hist_init(&h);
    assert_int_equal(pd_bench_hist_at(&h, 0.5), 0);
    for (uint64_t i = 1; i <= 100000; i++)
        pd_bench_hist_add(&h, i * 1000);
    for (int p = 1; p <= 100; p++) {
        double want = (double)p * 1e6, got = (double)pd_bench_hist_at(&h, p / 100.0);
        assert_true(got >= want * 0.9999 && got <= want * 1.016);
    }
    assert_int_equal(pd_bench_hist_at(&h, 1), 100000000);
    assert_int_equal(h.min, 1000);
    assert_true(pd_bench_hist_mean(&h) > 50000000.0 && pd_bench_hist_mean(&h) < 50001000.0);
    /* Every value falls into a bucket whose end is not below it. */
    for (unsigned shift = 0; shift < 64; shift++) {
        pd_bench_hist_init(&h);
        pd_bench_hist_add(&h, 1ull << shift);
        assert_int_equal(pd_bench_hist_at(&h, 0.5), 1ull << shift);
    }
}

struct bench {
    struct world w;
    struct pd_bench_engine *engine;
    struct pd_bench_load *load;
    struct pd_bench_engine_opts engine_opts;
    struct pd_bench_load_opts opts;
    struct pd_str body;
    bool is_done;
    bool is_closed;
};

static void on_done(void *arg)
{
    ((struct bench *)arg)->is_done = true;
}

static void on_closed(void *arg)
{
    ((struct bench *)arg)->is_closed = true;
}

static bool is_done(void *arg)
{
    return ((struct bench *)arg)->is_done;
}

static bool is_closed(void *arg)
{
    return ((struct bench *)arg)->is_closed;
}

static void bench_begin(struct bench *b, bool is_sim, const char *body)
{
    memset(b, 0, sizeof *b);
    world_begin(&b->w, is_sim);
    b->engine_opts.size = sizeof b->engine_opts;
    b->opts.size = sizeof b->opts;
    b->body = pd_str_from(body);
    b->opts.bodies = &b->body;
    b->opts.n_bodies = 1;
    b->opts.concurrency = 1;
    b->opts.host = PD_STR("bench");
    b->opts.target = PD_STR("/v1/chat/completions");
    b->engine_opts.addr = world_addr(&b->w);
}

static const struct pd_bench_load_result *bench_run(struct bench *b)
{
    assert_int_equal(pd_bench_engine_create(b->w.loop, &b->engine_opts, &b->engine), PD_OK);
    if (b->opts.addr.port == 0)
        assert_int_equal(pd_bench_engine_addr(b->engine, 0, &b->opts.addr), PD_OK);
    assert_int_equal(pd_bench_load_start(b->w.loop, &b->opts, on_done, b, &b->load), PD_OK);
    assert_true(world_run(&b->w, is_done, b, 600 * PD_SEC));
    return pd_bench_load_result(b->load);
}

static void bench_end(struct bench *b)
{
    pd_bench_load_destroy(b->load);
    pd_bench_engine_close(b->engine, on_closed, b);
    assert_true(world_run(&b->w, is_closed, b, 10 * PD_SEC));
    world_end(&b->w);
}

#define STREAM_BODY "{\"messages\":[],\"stream\":true,\"max_tokens\":10,\"stream_options\":{\"include_usage\":true}}"

static void about(pd_time got, pd_time want)
{
    assert_true(got >= want);
    assert_true(got <= want + want / 50 + 3 * PD_MS);
}

static void test_stream(void **state)
{
    struct bench b;
    struct pd_bench_engine_stats s;
    (void)state;
    bench_begin(&b, true, STREAM_BODY);
    b.engine_opts.ttft = 200 * PD_MS;
    b.engine_opts.itl = 20 * PD_MS;
    b.opts.requests = 50;
    b.opts.concurrency = 5;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->ok, 50);
    assert_int_equal(r->tokens, 500);
    assert_int_equal(r->itl.n, 450);
    about(pd_bench_hist_at(&r->ttft, 0.5), 200 * PD_MS);
    about(pd_bench_hist_at(&r->itl, 0.99), 20 * PD_MS);
    about(r->seconds, 10 * 380 * PD_MS);
    pd_bench_engine_stats(b.engine, &s);
    assert_int_equal(s.answers, 50);
    assert_int_equal(s.events, 500);
    assert_int_equal(s.accepted, 5);
    bench_end(&b);
}

static void test_whole(void **state)
{
    struct bench b;
    (void)state;
    bench_begin(&b, true, "{\"max_completion_tokens\":5}");
    b.engine_opts.ttft = 100 * PD_MS;
    b.engine_opts.itl = 10 * PD_MS;
    b.opts.requests = 10;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->ok, 10);
    about(r->e2e.min, 140 * PD_MS);
    bench_end(&b);
}

/* A server that takes one request at a time is asked for twice what it can do:
 * the closed loop would not show it, the open loop does. */
static void test_open_loop(void **state)
{
    struct bench b;
    (void)state;
    bench_begin(&b, true, "{\"max_tokens\":1}");
    b.engine_opts.ttft = 100 * PD_MS;
    b.opts.concurrency = 1;
    b.opts.rate = 20;
    b.opts.is_constant = true;
    b.opts.requests = 100;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->ok, 100);
    assert_true(r->late >= 98);
    /* The i-th request is meant at i * 50 ms and ends at (i + 1) * 100 ms. */
    about(r->e2e.max, 100 * 100 * PD_MS - 99 * 50 * PD_MS);
    bench_end(&b);
}

static void test_poisson(void **state)
{
    struct bench b;
    (void)state;
    bench_begin(&b, true, "{}");
    b.opts.concurrency = 100;
    b.opts.rate = 100;
    b.opts.duration = 60 * PD_SEC;
    b.opts.warmup = 10 * PD_SEC;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_true(r->started > 5600 && r->started < 6400);
    assert_true(r->ok > 4700 && r->ok < 5300);
    about(r->seconds + PD_SEC, 50 * PD_SEC);
    bench_end(&b);
}

static void faults_case(const char *body, uint32_t status, uint32_t fail_every, uint32_t break_after,
                        enum pd_bench_error error, uint64_t failed)
{
    struct bench b;
    bench_begin(&b, true, body);
    b.engine_opts.status = status;
    b.engine_opts.fail_every = fail_every;
    b.engine_opts.break_after = break_after;
    b.opts.requests = 100;
    b.opts.concurrency = 10;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->errors[error], failed);
    assert_int_equal(r->ok, 100 - failed);
    bench_end(&b);
}

static void test_faults(void **state)
{
    (void)state;
    faults_case("{}", 503, 0, 0, PD_BENCH_ERROR_5XX, 100);
    faults_case("{}", 429, 0, 0, PD_BENCH_ERROR_429, 100);
    faults_case("{}", 0, 4, 0, PD_BENCH_ERROR_5XX, 25);
    faults_case(STREAM_BODY, 0, 0, 4, PD_BENCH_ERROR_CUT, 100);
    faults_case("nothing", 0, 0, 0, PD_BENCH_ERROR_4XX, 100);
}

/* Faults come as often as asked, as what they are, and again with the same seed. */
static void test_fault_rates(void **state)
{
    static const struct {
        enum pd_bench_fault fault;
        enum pd_bench_error error;
        bool is_stream;
    } c[] = {
        { PD_BENCH_FAULT_RESET, PD_BENCH_ERROR_CUT, false },    { PD_BENCH_FAULT_HANG, PD_BENCH_ERROR_TIMEOUT, true },
        { PD_BENCH_FAULT_429, PD_BENCH_ERROR_429, false },      { PD_BENCH_FAULT_503, PD_BENCH_ERROR_5XX, true },
        { PD_BENCH_FAULT_CUT, PD_BENCH_ERROR_CUT, true },
    };
    (void)state;
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        uint64_t met[3];
        for (int round = 0; round < 3; round++) {
            struct bench b;
            struct pd_bench_engine_stats s;
            bench_begin(&b, true, c[i].is_stream ? STREAM_BODY : "{}");
            b.engine_opts.faults[c[i].fault] = 0.25;
            b.engine_opts.seed = round == 2 ? 6 : 5;
            b.opts.requests = 400;
            b.opts.timeout = PD_SEC;
            const struct pd_bench_load_result *r = bench_run(&b);
            pd_bench_engine_stats(b.engine, &s);
            met[round] = r->errors[c[i].error];
            assert_in_range(s.faults[c[i].fault], 65, 175);
            /* one on a kept connection is tried again */
            if (c[i].fault == PD_BENCH_FAULT_RESET)
                assert_in_range(met[round], 1, s.faults[c[i].fault] - 1);
            else
                assert_int_equal(s.faults[c[i].fault], met[round]);
            assert_int_equal(r->ok, 400 - met[round]);
            bench_end(&b);
        }
        assert_int_equal(met[0], met[1]);
    }
}

/* Delays: slow ones, and each spread about what is set. */
static void test_spreads(void **state)
{
    (void)state;
    for (uint32_t spread = PD_BENCH_UNIFORM; spread <= PD_BENCH_EXPONENTIAL; spread++) {
        struct bench b;
        bench_begin(&b, true, "{\"stream\":true,\"max_tokens\":1}");
        b.engine_opts.ttft = 100 * PD_MS;
        b.engine_opts.jitter = 0.2;
        b.engine_opts.spread = spread;
        b.opts.requests = 2000;
        b.opts.concurrency = 10;
        const struct pd_bench_load_result *r = bench_run(&b);
        double mean = pd_bench_hist_mean(&r->ttft) / 1e8, tail = (double)pd_bench_hist_at(&r->ttft, 0.95) / 1e8;
        static const double want[] = { 1.18, 1.33, 1.39, 3.0 };
        assert_true(mean > 0.95 && mean < 1.08);
        assert_true(tail > want[spread] * 0.94 && tail < want[spread] * 1.06);
        bench_end(&b);
    }
    struct bench b;
    bench_begin(&b, true, STREAM_BODY);
    b.engine_opts.ttft = 100 * PD_MS;
    b.engine_opts.faults[PD_BENCH_FAULT_SLOW] = 1;
    b.opts.requests = 3;
    about(bench_run(&b)->ttft.min, PD_SEC);
    bench_end(&b);
}

/* A load of a trace starts each request at its time, also when some are late. */
static void test_trace_arrivals(void **state)
{
    static const pd_time at[] = { 0, 50 * PD_MS, 60 * PD_MS, 400 * PD_MS };
    struct pd_str bodies[4] = { PD_STR("{}"), PD_STR("{}"), PD_STR("{}"), PD_STR("{}") };
    struct bench b;
    (void)state;
    bench_begin(&b, true, "{}");
    b.engine_opts.ttft = 100 * PD_MS;
    b.opts.bodies = bodies;
    b.opts.n_bodies = 4;
    b.opts.arrivals = at;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->ok, 4);
    assert_int_equal(r->late, 2);
    about(r->elapsed, 500 * PD_MS);
    about(r->e2e.max, 240 * PD_MS);     /* the third waits for two */
    assert_int_equal(r->slices[1].ok + r->slices[2].ok + r->slices[3].ok, 3);
    bench_end(&b);
}

static void test_trace(void **state)
{
    struct pd_bench_trace t, again;
    struct pd_buf a, b;
    struct pd_err err;
    (void)state;
    assert_int_equal(pd_bench_trace_read(PD_STR("{\"timestamp\":3,\"input_length\":1030,\"output_length\":0,"
                                                "\"hash_ids\":[4,5,6]}\n\n{\"timestamp\":4.5,\"input_length\":1,"
                                                "\"output_length\":2}"), &t, &err), PD_OK);
    assert_int_equal(t.n_rows, 2);
    assert_int_equal(t.rows[1].at, 1500000);
    assert_int_equal(t.rows[0].count, 3);
    assert_int_equal(t.rows[0].output, 1);
    pd_bench_trace_free(&t);
    pd_bench_trace_make(9, 3000, 50, &t);
    pd_bench_trace_make(9, 3000, 50, &again);
    assert_int_equal(t.n_hashes, again.n_hashes);
    assert_memory_equal(t.hashes, again.hashes, t.n_hashes * sizeof *t.hashes);
    assert_in_range(t.rows[2999].at, 54 * PD_SEC, 66 * PD_SEC);
    /* Rows that begin with the same ids have texts that begin alike, as far and no further. */
    pd_buf_init(&a, 1u << 20);
    pd_buf_init(&b, 1u << 20);
    uint32_t shared = 0;
    for (size_t i = 1; i < 200; i++) {
        size_t same = 0, bytes = 0;
        while (same < t.rows[0].count && same < t.rows[i].count &&
               t.hashes[t.rows[0].first + same] == t.hashes[t.rows[i].first + same])
            same++;
        pd_buf_clear(&a);
        pd_buf_clear(&b);
        pd_bench_trace_text(&t, 0, &a);
        pd_bench_trace_text(&t, i, &b);
        assert_int_equal(b.n, 4 * t.rows[i].input);
        while (bytes < a.n && bytes < b.n && a.p[bytes] == b.p[bytes])
            bytes++;
        size_t least = 2048 * same < a.n ? 2048 * same : a.n;
        assert_true(bytes >= (least < b.n ? least : b.n) && bytes < 2048 * same + 40);
        shared += same > 0;
    }
    assert_in_range(shared, 10, 190);
    pd_buf_fini(&a);
    pd_buf_fini(&b);
    pd_bench_trace_free(&t);
    pd_bench_trace_free(&again);
}

static void test_nobody(void **state)
{
    struct bench b;
    (void)state;
    bench_begin(&b, true, "{}");
    b.opts.addr = b.engine_opts.addr;
    b.opts.addr.port = 1;
    b.opts.requests = 20;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->errors[PD_BENCH_ERROR_CONNECT], 20);
    bench_end(&b);
}

/* Many endpoints, on the real loop. */
static void test_ports(void **state)
{
    struct bench b;
    struct pd_addr addr;
    struct pd_buf out;
    (void)state;
    bench_begin(&b, false, STREAM_BODY);
    b.engine_opts.ports = 40;
    b.opts.requests = 200;
    b.opts.concurrency = 20;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->ok, 200);
    assert_int_equal(pd_bench_engine_addr(b.engine, 39, &addr), PD_OK);
    assert_int_equal(pd_bench_engine_addr(b.engine, 40, &addr), PD_ENOENT);
    pd_buf_init(&out, 65536);
    assert_int_equal(pd_bench_load_table(r, PD_SEC, &out), PD_OK);
    assert_true(pd_str_starts_with(pd_buf_str(&out), PD_STR("200 requests in ")));
    pd_buf_clear(&out);
    assert_int_equal(pd_bench_load_json(r, PD_SEC, PD_STR("{\"a\":1}"), &out), PD_OK);
    assert_true(pd_str_find(pd_buf_str(&out), PD_STR("\"tokens\":2000,")) != PD_STR_NPOS);
    assert_true(pd_str_find(pd_buf_str(&out), PD_STR("\"conditions\":{\"a\":1}")) != PD_STR_NPOS);
    pd_buf_fini(&out);
    bench_end(&b);
}

static void test_limit(void **state)
{
    struct bench b;
    (void)state;
    bench_begin(&b, true, "{}");
    b.engine_opts.ttft = 3600 * PD_SEC;
    b.opts.concurrency = 7;
    b.opts.duration = PD_SEC;
    b.opts.timeout = 2 * PD_SEC;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->ok, 0);
    assert_int_equal(r->errors[PD_BENCH_ERROR_TIMEOUT], 7);
    bench_end(&b);
}

static void test_bad_options(void **state)
{
    struct bench b;
    (void)state;
    bench_begin(&b, true, "{}");
    struct pd_bench_engine_opts good = b.engine_opts, o = good;
    o.ports = PD_BENCH_MAX_PORTS + 1;
    assert_int_equal(pd_bench_engine_create(b.w.loop, &o, &b.engine), PD_EINVAL);
    o = good, o.addr.port = 65535, o.ports = 2;
    assert_int_equal(pd_bench_engine_create(b.w.loop, &o, &b.engine), PD_EINVAL);
    o = good, o.tokens = PD_BENCH_MAX_TOKENS + 1;
    assert_int_equal(pd_bench_engine_create(b.w.loop, &o, &b.engine), PD_EINVAL);
    o = good, o.pad = 1u << 30;
    assert_int_equal(pd_bench_engine_create(b.w.loop, &o, &b.engine), PD_EINVAL);
    struct pd_bench_load_opts l = b.opts;
    l.concurrency = 0;
    assert_int_equal(pd_bench_load_start(b.w.loop, &l, on_done, &b, &b.load), PD_EINVAL);
    l.concurrency = 1u << 20;
    assert_int_equal(pd_bench_load_start(b.w.loop, &l, on_done, &b, &b.load), PD_EINVAL);
    l = b.opts, l.n_bodies = 0;
    assert_int_equal(pd_bench_load_start(b.w.loop, &l, on_done, &b, &b.load), PD_EINVAL);
    assert_null(pd_bench_fault_name(PD_BENCH_FAULTS));
    assert_string_equal(pd_bench_error_name(PD_BENCH_ERRORS), "?");
    world_end(&b.w);
}

/* One request with this body, of these options; how it ended. */
static uint64_t tokens_of(const char *target, const char *body, const struct pd_bench_engine_opts *more,
                          enum pd_bench_error error)
{
    struct bench b;
    bench_begin(&b, true, body);
    struct pd_addr addr = b.engine_opts.addr;
    if (more != NULL)
        b.engine_opts = *more, b.engine_opts.addr = addr;
    b.opts.target = pd_str_from(target);
    b.opts.requests = 1;
    const struct pd_bench_load_result *r = bench_run(&b);
    assert_int_equal(r->ok, error == PD_BENCH_ERRORS);
    if (error != PD_BENCH_ERRORS)
        assert_int_equal(r->errors[error], 1);
    uint64_t tokens = r->tokens;
    bench_end(&b);
    return tokens;
}

static void test_odd_requests(void **state)
{
    static const char chat[] = "/v1/chat/completions", text[] = "/v1/completions";
    struct pd_bench_engine_opts pad = { .size = sizeof pad, .pad = 40, .tokens = 3 };
    struct pd_bench_engine_opts broken = { .size = sizeof broken, .need_kv = 1, .faults = { [PD_BENCH_FAULT_MALFORMED] = 1 } };
    struct pd_bench_engine_opts kv = { .size = sizeof kv, .need_kv = 1 };
    (void)state;
    assert_int_equal(tokens_of(chat, "{\"stream\":true,\"max_tokens\":0}", NULL, PD_BENCH_ERRORS), 1);
    assert_int_equal(tokens_of(text, "{\"stream\":true,\"max_completion_tokens\":4}", NULL, PD_BENCH_ERRORS), 4);
    assert_int_equal(tokens_of(text, STREAM_BODY, &pad, PD_BENCH_ERRORS), 10);
    assert_int_equal(tokens_of(text, "{\"stream\":true}", &pad, PD_BENCH_ERRORS), 3);
    assert_int_equal(tokens_of(chat, "{}", &pad, PD_BENCH_ERRORS), 0);
    assert_int_equal(tokens_of(text, "{\"max_tokens\":99999999}", NULL, PD_BENCH_ERRORS), 0);
    assert_int_equal(tokens_of(chat, STREAM_BODY, &broken, PD_BENCH_ERRORS), 10);    /* one of the events means nothing */
    assert_int_equal(tokens_of(text, "{}", &broken, PD_BENCH_ERRORS), 0);
    /* A decode needs what a prefill of this engine gave. */
    tokens_of(chat, "{\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_engine_id\":\"x\",\"remote_block_ids\":[1]}}", &kv,
              PD_BENCH_ERROR_4XX);
    tokens_of(chat, "{\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_engine_id\":\"pdbench\",\"remote_block_ids\":1}}", &kv,
              PD_BENCH_ERROR_4XX);
    tokens_of(chat, "{\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_engine_id\":\"pdbench\",\"remote_block_ids\":[1]}}", &kv,
              PD_BENCH_ERRORS);
    static char prompt[40000];
    memset(prompt, 'x', sizeof prompt - 1);
    static const char head[] = "{\"kv_transfer_params\":{\"do_remote_decode\":true},\"prompt\":\"";
    memcpy(prompt, head, sizeof head - 1);
    strcpy(prompt + sizeof prompt - 3, "\"}");
    tokens_of(text, prompt, &kv, PD_BENCH_ERRORS);
    tokens_of("/v1/nothing", "{}", NULL, PD_BENCH_ERROR_4XX);
}

/* Endpoints that do not listen; the first always does. */
static void test_refuse(void **state)
{
    struct bench b;
    struct pd_bench_engine_stats s;
    (void)state;
    bench_begin(&b, true, "{}");
    b.engine_opts.ports = 5;
    b.engine_opts.faults[PD_BENCH_FAULT_REFUSE] = 1;
    b.opts.requests = 3;
    assert_int_equal(bench_run(&b)->ok, 3);
    pd_bench_engine_stats(b.engine, &s);
    assert_int_equal(s.faults[PD_BENCH_FAULT_REFUSE], 4);
    bench_end(&b);
}

/* Whichever allocation fails, of engine or load: it does not begin, or every request has an end. */
static void test_no_memory(void **state)
{
    bool failed = true;
    (void)state;
    for (uint64_t n = 1; failed; n++) {
        struct bench b;
        bench_begin(&b, true, n % 2 ? STREAM_BODY : "{\"kv_transfer_params\":{\"do_remote_decode\":true}}");
        b.opts.requests = 3;
        b.opts.api_key = PD_STR("key");
        b.opts.timeout = PD_SEC;
        uint64_t before = pd_mem_count();
        pd_mem_fault_set(n);
        pd_status st = pd_bench_engine_create(b.w.loop, &b.engine_opts, &b.engine);
        if (st == PD_OK) {
            assert_int_equal(pd_bench_engine_addr(b.engine, 0, &b.opts.addr), PD_OK);
            st = pd_bench_load_start(b.w.loop, &b.opts, on_done, &b, &b.load);
            if (st == PD_OK) {
                assert_true(world_run(&b.w, is_done, &b, 600 * PD_SEC));
                const struct pd_bench_load_result *r = pd_bench_load_result(b.load);
                uint64_t ends = r->ok;
                for (int i = 0; i < PD_BENCH_ERRORS; i++)
                    ends += r->errors[i];
                assert_int_equal(ends, 3);
                pd_bench_load_destroy(b.load);
            }
            pd_bench_engine_close(b.engine, on_closed, &b);
            assert_true(world_run(&b.w, is_closed, &b, 10 * PD_SEC));
        } else {
            world_run(&b.w, is_closed, &b, PD_SEC);
        }
        pd_mem_fault_set(0);
        failed = pd_mem_count() - before >= n;
        assert_true(st == PD_OK || failed);
        world_end(&b.w);
    }
}

static bool has(const struct pd_buf *out, const char *text)
{
    return pd_str_find(pd_buf_str(out), pd_str_from(text)) != PD_STR_NPOS;
}

/* Points that are none are left out, and what is outside of the frame stays on its edge. */
static void test_plots(void **state)
{
    static const double x[] = { 5, 1, 0, -3, NAN, 20000, 7 }, y[] = { 1, 9, 1, 1, 1, 2e9, INFINITY };
    static const double many_x[40], many_y[40];
    struct pd_bench_line lines[9] = { { x, y, 7, "a<b>&\"c" }, { many_x, many_y, 40, "dense" } };
    struct pd_bench_plot plot = { .title = "t", .x_label = "x", .y_label = "y", .lines = lines, .n_lines = 1 };
    struct pd_buf out;
    (void)state;
    pd_buf_init(&out, 1 << 20);
    assert_int_equal(pd_bench_plot_svg(&plot, &out), PD_OK);
    assert_true(has(&out, "a&lt;b&gt;&amp;&quot;c") && has(&out, ">2G<") && has(&out, ">20k<"));
    assert_false(has(&out, "nan") || has(&out, "inf"));
    pd_buf_clear(&out);
    plot.is_x_log = true, plot.y_max = 1.5, plot.n_lines = 2;
    assert_int_equal(pd_bench_plot_svg(&plot, &out), PD_OK);
    assert_true(has(&out, ",28.0 "));           /* at the upper edge */
    assert_false(has(&out, "nan") || has(&out, "inf"));
    pd_buf_clear(&out);
    lines[0].n = 0;
    assert_int_equal(pd_bench_plot_svg(&plot, &out), PD_OK);
    assert_int_equal(out.n, 0);                 /* nothing to show on a logarithm */
    static const double low[] = { -1, -2 };
    lines[0] = (struct pd_bench_line){ x, low, 2, "low" };
    plot.is_x_log = false, plot.y_max = 0, plot.n_lines = 1;
    assert_int_equal(pd_bench_plot_svg(&plot, &out), PD_OK);
    assert_false(has(&out, "nan"));
    pd_buf_clear(&out);
    const char *const series[] = { "s", "t" }, *const groups[] = { "g" };
    double values[] = { NAN, 0 };
    struct pd_bench_bars bars = { .title = "b", .y_label = "y", .series = series, .n_series = 2, .groups = groups,
                                  .n_groups = 1, .values = values };
    assert_int_equal(pd_bench_bars_svg(&bars, &out), PD_OK);
    assert_false(has(&out, "nan"));
    bars.n_groups = 0;
    assert_int_equal(pd_bench_bars_svg(&bars, &out), PD_OK);
    pd_buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_options), cmocka_unit_test(test_odd_requests), cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_no_memory),   cmocka_unit_test(test_plots),
        cmocka_unit_test(test_hist),      cmocka_unit_test(test_stream), cmocka_unit_test(test_whole),
        cmocka_unit_test(test_open_loop), cmocka_unit_test(test_poisson), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_fault_rates), cmocka_unit_test(test_spreads), cmocka_unit_test(test_trace),
        cmocka_unit_test(test_trace_arrivals),
        cmocka_unit_test(test_nobody),    cmocka_unit_test(test_ports),  cmocka_unit_test(test_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
