/* SPDX-License-Identifier: Apache-2.0 */
/* What a router spends on a request and on an event, in counts that do not
 * depend on the machine: system calls of its streams and allocations of the
 * core.  A router, a fake engine and a load run in the simulator; two runs that
 * differ in nothing but the number of requests (or of events) are subtracted,
 * so that connections and start-up fall out.  Allocations are of the whole
 * process: those of a run without the router are subtracted as well.  What
 * modules allocate is not seen. */
#include "unit.h"

#include "base/mem.h"
#include "base/str.h"
#include "bench/engine.h"
#include "bench/load.h"
#include "sim_nodes.h"

static const char conf[] = "load = [ \"router\", \"openai\" ];\n"
                           "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
                           "endpoints = ( { name = \"e\"; type = \"openai\"; url = \"http://10.1.0.1:9000\"; } );\n"
                           "role = { router = { probe_interval = \"60s\"; }; };\n"
                           "log = { level = \"warn\"; };\n";

struct counts {
    double reads, writes, polls, allocs;
};

struct rig {
    struct sim_cluster cluster;
    struct sim_node *router;
    struct pd_loop *engine_loop, *client_loop;
    struct pd_bench_engine_opts engine_opts;
    struct pd_bench_engine *engine;
};

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

static bool is_true(void *arg)
{
    return *(bool *)arg;
}

static void rig_begin(struct rig *g)
{
    struct pd_sim_opts opts = { .whole_io = 1 };
    memset(g, 0, sizeof *g);
    sim_cluster_init(&g->cluster, 11, &opts);
    assert_int_equal(pd_sim_loop_create(g->cluster.sim, "engine", "10.1.0.1", &g->engine_loop), PD_OK);
    assert_int_equal(pd_sim_loop_create(g->cluster.sim, "client", "10.1.0.2", &g->client_loop), PD_OK);
    g->engine_opts = (struct pd_bench_engine_opts){ .size = sizeof g->engine_opts, .ttft = PD_MS, .itl = PD_MS };
    pd_sim_addr(g->engine_loop, 9000, &g->engine_opts.addr);
    assert_int_equal(pd_bench_engine_create(g->engine_loop, &g->engine_opts, &g->engine), PD_OK);
    g->router = sim_node_start(&g->cluster, "router", conf);
    pd_sim_run_until(g->cluster.sim, pd_sim_now(g->cluster.sim) + 2 * PD_SEC);
}

/* One load; what the router's loop and the process spent on it. */
static struct counts run(struct rig *g, bool is_direct, uint64_t requests, const char *body)
{
    struct pd_str bodies = pd_str_from(body);
    struct pd_bench_load_opts opts = {
        .size = sizeof opts, .host = PD_STR("bench"), .target = PD_STR("/v1/chat/completions"),
        .bodies = &bodies, .n_bodies = 1, .concurrency = 1, .requests = requests,
    };
    struct pd_bench_load *load;
    struct pd_loop_stats a, b;
    bool is_done = false;
    pd_sim_addr(is_direct ? g->engine_loop : g->router->loop, is_direct ? 9000 : 8000, &opts.addr);
    pd_loop_stats_get(g->router->loop, &a);
    uint64_t allocs = pd_mem_count();
    assert_int_equal(pd_bench_load_start(g->client_loop, &opts, set_true, &is_done, &load), PD_OK);
    assert_true(pd_sim_run_cond(g->cluster.sim, pd_sim_now(g->cluster.sim) + 30 * PD_SEC, is_true, &is_done));
    assert_int_equal(pd_bench_load_result(load)->ok, requests);
    pd_loop_stats_get(g->router->loop, &b);
    struct counts c = { (double)(b.reads - a.reads), (double)(b.writes - a.writes),
                        (double)(b.polls_changed - a.polls_changed), (double)(pd_mem_count() - allocs) };
    pd_bench_load_destroy(load);
    return c;
}

static struct counts difference(struct counts a, struct counts b, double n)
{
    return (struct counts){ (b.reads - a.reads) / n, (b.writes - a.writes) / n, (b.polls - a.polls) / n,
                            (b.allocs - a.allocs) / n };
}

static void check(const char *what, struct counts c, double direct_allocs, double reads, double writes,
                  double polls, double allocs)
{
    c.allocs -= direct_allocs;
    print_message("%s: %.2f reads, %.2f writes, %.2f changed polls, %.2f allocations\n", what, c.reads, c.writes,
                  c.polls, c.allocs);
    assert_true(c.reads <= reads);
    assert_true(c.writes <= writes);
    assert_true(c.polls <= polls);
    assert_true(c.allocs <= allocs);
}

static void rig_end(struct rig *g)
{
    bool is_closed = false;
    pd_bench_engine_close(g->engine, set_true, &is_closed);
    assert_true(pd_sim_run_cond(g->cluster.sim, pd_sim_now(g->cluster.sim) + 10 * PD_SEC, is_true, &is_closed));
    pd_sim_run_until(g->cluster.sim, pd_sim_now(g->cluster.sim) + PD_SEC);
    assert_int_equal(pd_loop_destroy(g->engine_loop, NULL, 0), PD_OK);
    assert_int_equal(pd_loop_destroy(g->client_loop, NULL, 0), PD_OK);
    sim_cluster_fini(&g->cluster);
}

#define BODY(stream, tokens)                                                                  \
    "{\"model\":\"bench\",\"messages\":[{\"role\":\"user\",\"content\":\"count what I cost\"}]," \
    "\"stream\":" stream ",\"max_tokens\":" tokens "}"

static void test_request(void **state)
{
    static const char body[] = BODY("false", "8");
    struct rig g;
    (void)state;
    rig_begin(&g);
    for (int i = 0; i < 3; i++) {
        run(&g, false, 100, body);
        run(&g, true, 100, body);
    }
    struct counts few = run(&g, false, 100, body), many = run(&g, false, 300, body);
    struct counts few_direct = run(&g, true, 100, body), many_direct = run(&g, true, 300, body);
    check("small request", difference(few, many, 200), difference(few_direct, many_direct, 200).allocs,
          2.1, 2.1, 0.1, 0.1);
    rig_end(&g);
}

static void test_event(void **state)
{
    static const char few_events[] = BODY("true", "50"), many_events[] = BODY("true", "250");
    struct rig g;
    (void)state;
    rig_begin(&g);
    for (int i = 0; i < 3; i++) {
        run(&g, false, 4, many_events);
        run(&g, true, 4, many_events);
    }
    struct counts few = run(&g, false, 1, few_events), many = run(&g, false, 1, many_events);
    struct counts few_direct = run(&g, true, 1, few_events), many_direct = run(&g, true, 1, many_events);
    check("event", difference(few, many, 200), difference(few_direct, many_direct, 200).allocs, 1.1, 1.1, 0.1,
          0.1);
    rig_end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_request), cmocka_unit_test(test_event) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
