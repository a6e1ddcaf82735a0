/* SPDX-License-Identifier: Apache-2.0 */
/* Client and server over a network that loses, cuts and stops: each call ends
 * once and truthfully, nothing stays open, and the same seed gives the same run. */
#include "unit.h"

#include "base/str.h"
#include "loop/sim.h"
#include "net/client.h"
#include "net/server.h"

#define CALLS 150
#define PARALLEL 12

struct chaos;

struct one {
    struct chaos *chaos;
    struct pd_http_call *call;
    struct pd_timer cancel;
    uint64_t want, got;
    bool is_open;
};

struct stream {
    struct chaos *chaos;
    struct pd_http_req *req;
    struct pd_timer tick;
    uint64_t left;
    bool is_used;
};

struct chaos {
    struct pd_sim *sim;
    struct pd_loop *near, *far;
    struct pd_http_client *client;
    struct pd_http_server *server;
    struct pd_addr addr;
    struct one ones[PARALLEL];
    struct stream streams[64];
    uint32_t started, ended, failed, canceled;
    uint32_t fails[5];
    bool client_closed, server_closed;
};

static void start(struct one *o);

static void over(struct one *o)
{
    assert_true(o->is_open);
    o->is_open = false;
    pd_timer_stop(&o->cancel);
    if (o->chaos->started < CALLS)
        start(o);
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct one *o = arg;

    assert_ptr_equal(call, o->call);
    o->got += piece.n;
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct one *o = arg;

    (void)call;
    /* An answer that is not whole never looks whole. */
    assert_int_equal(o->got, o->want);
    o->chaos->ended++;
    over(o);
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct one *o = arg;

    (void)call;
    assert_true(why < 0 && fail >= PD_HTTP_FAIL_CONNECT && fail <= PD_HTTP_FAIL_BODY);
    o->chaos->failed++;
    o->chaos->fails[fail]++;
    over(o);
}

static void on_cancel(struct pd_timer *timer, void *arg)
{
    struct one *o = arg;

    (void)timer;
    pd_http_call_cancel(o->call);
    o->chaos->canceled++;
    over(o);
}

static const struct pd_http_call_events events = { .on_body = on_body, .on_end = on_end,
                                                   .on_error = on_error };

static void start(struct one *o)
{
    static char body[50000];
    struct chaos *c = o->chaos;
    struct pd_iov iov = { body, 0 };
    struct pd_http_call_opts opts = {
        .size = sizeof(opts), .addr = c->addr, .host = PD_STR("far"), .method = PD_HTTP_POST,
        .body = &iov, .n_body = 1, .first_byte_ns = 2 * PD_SEC, .idle_ns = 2 * PD_SEC,
        .connect_ns = 2 * PD_SEC,
    };
    uint64_t dice = pd_loop_random_u64(c->near);

    iov.len = (size_t)(dice >> 8) % sizeof(body);
    opts.target = dice % 3 == 0 ? PD_STR("/echo") : PD_STR("/stream");
    opts.is_replayable = dice % 2 == 0;
    o->want = dice % 3 == 0 ? iov.len : 200u * 20u;
    o->got = 0;
    o->is_open = true;
    c->started++;
    assert_int_equal(pd_http_call_start(c->client, &opts, &events, o, &o->call), PD_OK);
    if (dice % 5 == 0)
        pd_timer_start(&o->cancel, (dice >> 20) % (40 * PD_MS));
}

static void h_echo(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, NULL, 0, pd_http_req_body(req));
}

static void on_tick(struct pd_timer *timer, void *arg)
{
    static char token[200];
    struct stream *s = arg;

    (void)pd_http_write_str(s->req, pd_str_of(token, sizeof(token)));
    s->left--;
    if (s->left > 0) {
        pd_timer_start(timer, PD_MS);
        return;
    }
    pd_http_end(s->req);
    s->is_used = false;
}

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    struct stream *s = arg;

    assert_ptr_equal(req, s->req);
    assert_true(why < 0);
    pd_timer_stop(&s->tick);
    s->is_used = false;
}

static const struct pd_http_req_events req_events = { .on_gone = on_gone };

static void h_stream(struct pd_http_req *req, void *arg)
{
    struct chaos *c = arg;

    for (size_t i = 0; i < 64; i++) {
        struct stream *s = &c->streams[i];
        if (s->is_used)
            continue;
        s->is_used = true;
        s->req = req;
        s->left = 20;
        pd_timer_init(&s->tick, c->far, "tick", on_tick, s);
        pd_http_req_set_events(req, &req_events, s);
        assert_int_equal(pd_http_begin(req, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
        pd_timer_start(&s->tick, PD_MS);
        return;
    }
    fail_msg("%s", "streams leak");
}

static bool all_over(void *arg)
{
    struct chaos *c = arg;
    return c->ended + c->failed + c->canceled == CALLS;
}

static void closed(void *arg)
{
    *(bool *)arg = true;
}

static bool both_closed(void *arg)
{
    return ((struct chaos *)arg)->client_closed && ((struct chaos *)arg)->server_closed;
}

static uint64_t run_chaos(uint64_t seed, uint32_t totals[5])
{
    static struct chaos c;
    struct pd_http_client_opts opts = { .size = sizeof(opts), .max_conns = 8 };
    struct pd_sim_link link = { .latency_ns = 300 * PD_US, .jitter_ns = 200 * PD_US,
                                .bytes_per_s = 50 << 20, .loss_ppm = 20000,
                                .retransmit_ns = 5 * PD_MS, .reset_ppm = 4000 };
    struct pd_sim_opts sim_opts = { .link = link };
    uint64_t hash;
    struct pd_http_route routes[2] = {
        { .path = "/echo", .methods = 1u << PD_HTTP_POST, .on_request = h_echo },
        { .path = "/stream", .methods = 1u << PD_HTTP_POST, .on_request = h_stream, .arg = &c },
    };

    memset(&c, 0, sizeof(c));
    assert_int_equal(pd_sim_create(seed, &sim_opts, &c.sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(c.sim, "near", "10.0.0.1", &c.near), PD_OK);
    assert_int_equal(pd_sim_loop_create(c.sim, "far", "10.0.0.2", &c.far), PD_OK);
    assert_int_equal(pd_http_client_create(c.near, &opts, &c.client), PD_OK);
    assert_int_equal(pd_http_server_create(c.far, NULL, &c.server), PD_OK);
    assert_int_equal(pd_addr_parse(c.near, PD_STR("10.0.0.2:80"), &c.addr), PD_OK);
    assert_int_equal(pd_http_server_listen(c.server, &c.addr, NULL), PD_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pd_http_server_route(c.server, &routes[i]), PD_OK);
    for (int i = 0; i < PARALLEL; i++) {
        c.ones[i].chaos = &c;
        pd_timer_init(&c.ones[i].cancel, c.near, "cancel", on_cancel, &c.ones[i]);
        start(&c.ones[i]);
    }
    /* Twice in between the network stops for three seconds, in one direction. */
    (void)pd_sim_run_until(c.sim, 100 * PD_MS);
    assert_int_equal(pd_sim_partition(c.sim, "near", "far", true), PD_OK);
    (void)pd_sim_run_until(c.sim, 3100 * PD_MS);
    pd_sim_heal(c.sim);
    (void)pd_sim_run_until(c.sim, 3200 * PD_MS);
    assert_int_equal(pd_sim_partition(c.sim, "far", "near", true), PD_OK);
    (void)pd_sim_run_until(c.sim, 6200 * PD_MS);
    pd_sim_heal(c.sim);
    assert_true(pd_sim_run_cond(c.sim, pd_sim_now(c.sim) + 600 * PD_SEC, all_over, &c));
    pd_http_client_close(c.client, closed, &c.client_closed);
    pd_http_server_close(c.server, closed, &c.server_closed);
    assert_true(pd_sim_run_cond(c.sim, pd_sim_now(c.sim) + 10 * PD_SEC, both_closed, &c));
    for (int i = 0; i < 64; i++)
        assert_false(c.streams[i].is_used);
    hash = pd_sim_hash(c.sim);
    assert_int_equal(pd_loop_destroy(c.near, NULL, 0), PD_OK);
    assert_int_equal(pd_loop_destroy(c.far, NULL, 0), PD_OK);
    assert_int_equal(pd_sim_destroy(c.sim), PD_OK);
    totals[0] += c.ended;
    for (int i = 1; i < 5; i++)
        totals[i] += c.fails[i];
    return hash;
}

static void test_chaos(void **state)
{
    (void)state;
    uint32_t totals[5] = { 0 };

    for (uint64_t seed = 1; seed <= 25; seed++)
        (void)run_chaos(seed, totals);
    /* The faults were real: every way to fail was taken, and most went well. */
    for (int i = 1; i < 5; i++)
        if (i != PD_HTTP_FAIL_HEAD)
            assert_true(totals[i] > 0);
    assert_true(totals[0] > 25 * CALLS / 3);
}

static void test_same_seed(void **state)
{
    (void)state;
    uint32_t totals[5] = { 0 };
    uint64_t a = run_chaos(99, totals), b = run_chaos(99, totals), c = run_chaos(98, totals);

    assert_true(a == b);
    assert_true(a != c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_chaos),
    cmocka_unit_test(test_same_seed),
};

PD_UNIT_MAIN(tests)
