/* SPDX-License-Identifier: Apache-2.0 */
/* A router in the simulator that finds its nodes by name: nodes that come and go,
 * a resolver that fails, a name that flaps.  Seed 11, except where it is said. */
#include "unit.h"

#include "sim_nodes.h"

#define MODEL "contrib/tinymodel/tiny.gguf"

static const char router_conf[] =
    "load = [ \"router\", \"dns\", \"file\", \"static\" ];\n"
    "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
    "discovery = ( { name = \"nodes\"; type = \"dns\"; peer = \"nodes.svc:7000\"; interval = \"1s\"; } );\n";

static const char body[] = "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":8,"
                           "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}";

static void node_start(struct sim_cluster *c, const char *name)
{
    static char conf[4096];
    const char *src = getenv("PD_SRCDIR");
    snprintf(conf, sizeof conf,
             "load = [ \"decode\", \"ref\" ];\n"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "engine = ( { name = \"e\"; type = \"ref\"; model = \"%s/" MODEL "\"; served = \"tiny\";\n"
             "             kv_memory = \"4m\"; } );\n", src != NULL ? src : ".");
    sim_node_start(c, name, conf);
}

/* Two nodes on 10.0.0.2 and 10.0.0.3 with one name, and the router. */
static void cluster_start(struct sim_cluster *c, uint64_t seed)
{
    sim_cluster_init(c, seed, NULL);
    sim_node_start(c, "router", router_conf);
    node_start(c, "one");
    node_start(c, "two");
    assert_int_equal(pd_sim_name_add(c->sim, "nodes.svc", "10.0.0.2"), PD_OK);
    assert_int_equal(pd_sim_name_add(c->sim, "nodes.svc", "10.0.0.3"), PD_OK);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
}

static double metric(struct sim_cluster *c, const char *name)
{
    double v = -1;
    pd_metrics_read(c->nodes[0].node->metrics, name, NULL, &v);
    return v;
}

static uint32_t state(struct sim_cluster *c)
{
    struct pd_source_info info;
    assert_true(pd_sources_info(pd_node_sources(c->nodes[0].node), 0, &info));
    return info.state;
}

static void run(struct sim_cluster *c, pd_time ns)
{
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + ns);
}

static uint32_t ask(struct sim_cluster *c)
{
    static struct sim_answer a;
    sim_post(c, "10.0.0.1", 8000, "/v1/chat/completions", body, 60 * PD_SEC, &a);
    assert_true(a.is_over);
    return a.status;
}

static void test_found(void **s)
{
    struct sim_cluster c;
    (void)s;
    cluster_start(&c, 11);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    assert_int_equal(ask(&c), 200);
    assert_int_equal(pd_sim_name_remove(c.sim, "nodes.svc", "10.0.0.3"), PD_OK);
    run(&c, 3 * PD_SEC);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 1);
    assert_int_equal(ask(&c), 200);
    assert_int_equal(pd_sim_name_add(c.sim, "nodes.svc", "10.0.0.3"), PD_OK);
    run(&c, 3 * PD_SEC);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    sim_cluster_fini(&c);
}

/* The resolver fails for 50 s: nothing happens.  For longer than stale_ok: the
 * nodes get nothing new, until it answers again. */
static void test_resolver_fails(void **s)
{
    struct sim_cluster c;
    (void)s;
    cluster_start(&c, 11);
    pd_sim_resolver_set(c.sim, PD_ETIMEDOUT);
    run(&c, 50 * PD_SEC);
    assert_int_equal(state(&c), PD_SOURCE_LOST);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    assert_int_equal(ask(&c), 200);
    pd_sim_resolver_set(c.sim, PD_OK);
    run(&c, 3 * PD_SEC);
    assert_int_equal(state(&c), PD_SOURCE_SYNCED);
    pd_sim_resolver_set(c.sim, PD_EIO);
    run(&c, 80 * PD_SEC);
    assert_int_equal(state(&c), PD_SOURCE_GIVEN_UP);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 0);
    assert_int_equal(ask(&c), 503);
    pd_sim_resolver_set(c.sim, PD_OK);
    run(&c, 10 * PD_SEC);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    assert_int_equal(ask(&c), 200);
    sim_cluster_fini(&c);
}

/* One of two addresses comes and goes every second for ten minutes, by the seeds 1
 * to 5: no request fails, and the node that stays keeps its link. */
static void test_flapping(void **s)
{
    (void)s;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct sim_cluster c;
        cluster_start(&c, seed);
        for (int i = 0; i < 600; i++) {
            if (i % 2 == 0)
                pd_sim_name_remove(c.sim, "nodes.svc", "10.0.0.3");
            else
                pd_sim_name_add(c.sim, "nodes.svc", "10.0.0.3");
            run(&c, PD_SEC);
            if (i % 60 == 0)
                assert_int_equal(ask(&c), 200);
        }
        assert_int_equal((int)metric(&c, "pdplane_router_retries_total"), 0);
        run(&c, 5 * PD_SEC);
        assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
        sim_cluster_fini(&c);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_found),
    cmocka_unit_test(test_resolver_fails),
    cmocka_unit_test(test_flapping),
};
PD_UNIT_MAIN(tests)
