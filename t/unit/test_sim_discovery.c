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

/* ---- another set of sources ------------------------------------------------------------------ */

static const char *sources_text(const char *sources)
{
    static char text[4096];
    snprintf(text, sizeof text,
             "load = [ \"router\", \"dns\", \"file\", \"static\", \"openai\" ];\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
             "discovery = ( %s );\n", sources);
    return text;
}

#define NODES(more) "{ name = \"nodes\"; type = \"dns\"; peer = \"nodes.svc:7000\"; interval = \"1s\"; " more " }"
#define SERVERS(weight, more)                                                                        \
    "{ name = \"servers\"; type = \"static\"; servers = [ \"http://10.9.9.9:80\" ]; " \
    "endpoint = ( { type = \"openai\"; models = [ \"m\" ]; weight = " weight "; } ); " more " }"

static void taken(struct sim_cluster *c, const char *sources)
{
    struct pd_err err;
    if (sim_node_reload(&c->nodes[0], sources_text(sources), &err) != PD_OK)
        fail_msg("%s", err.text);
}

static const char *source_at(struct sim_cluster *c, uint32_t index)
{
    struct pd_source_info info;
    return pd_sources_info(pd_node_sources(c->nodes[0].node), index, &info) ? info.name : "";
}

/* The weight of the server that a source names; 0: there is none. */
static uint32_t weight(struct sim_cluster *c)
{
    struct pd_node *node = c->nodes[0].node;
    const struct pd_node_endpoint *e = pd_node_endpoint_at(node, 0);
    return e == NULL ? 0 : e->weight;
}

static void test_reload(void **s)
{
    struct sim_cluster c;
    (void)s;
    cluster_start(&c, 11);
    double connects = metric(&c, "pdplane_peer_connects_total");
    assert_int_equal((int)connects, 2);
    /* Other options: what was named stays, links too, and no request fails. */
    taken(&c, NODES("stale_ok = \"20s\";"));
    assert_int_equal(state(&c), PD_SOURCE_STARTING);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    assert_int_equal(ask(&c), 200);
    run(&c, 3 * PD_SEC);
    assert_int_equal(state(&c), PD_SOURCE_SYNCED);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    /* Nothing new, and one more beside it. */
    taken(&c, NODES("stale_ok = \"20s\";"));
    assert_int_equal(state(&c), PD_SOURCE_SYNCED);
    taken(&c, SERVERS("7", "") ", " NODES("stale_ok = \"20s\";"));
    assert_string_equal(source_at(&c, 0), "servers");
    assert_string_equal(source_at(&c, 1), "nodes");
    run(&c, PD_SEC);
    assert_int_equal(weight(&c), 7);
    assert_int_equal(ask(&c), 200);
    /* The same entry, used in another way. */
    taken(&c, SERVERS("9", "") ", " NODES("stale_ok = \"20s\";"));
    run(&c, PD_SEC);
    assert_int_equal(weight(&c), 9);
    /* Refused: nothing has changed, whatever was begun. */
    struct pd_err err;
    assert_int_equal(sim_node_reload(&c.nodes[0], sources_text(NODES("linger = \"1s\";") ", " SERVERS("3", "networks = [ \"x\" ];")),
                                     &err), PD_EINVAL);
    assert_non_null(strstr(err.text, "no network"));
    run(&c, 3 * PD_SEC);
    assert_int_equal(weight(&c), 9);
    assert_string_equal(source_at(&c, 0), "servers");
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    assert_true(metric(&c, "pdplane_peer_connects_total") == connects);
    /* While the resolver fails, a source that changes keeps what it knew for its stale_ok. */
    pd_sim_resolver_set(c.sim, PD_ETIMEDOUT);
    taken(&c, NODES("stale_ok = \"30s\";"));
    run(&c, 20 * PD_SEC);
    assert_int_equal(weight(&c), 0);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    assert_int_equal(ask(&c), 200);
    assert_true(metric(&c, "pdplane_peer_connects_total") == connects);
    run(&c, 30 * PD_SEC);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 0);
    pd_sim_resolver_set(c.sim, PD_OK);
    run(&c, 10 * PD_SEC);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    /* Networks are a matter of security: what was named before does not stay. */
    taken(&c, NODES("networks = [ \"10.0.0.2/32\" ]; linger = \"0s\";"));
    run(&c, 3 * PD_SEC);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 1);
    /* Without the source nothing of it stays; a new one brings it back. */
    taken(&c, "");
    run(&c, PD_SEC);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 0);
    assert_int_equal(ask(&c), 503);
    taken(&c, NODES(""));
    run(&c, 8 * PD_SEC);
    assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
    assert_int_equal(ask(&c), 200);
    assert_int_equal(pd_list_count(&c.nodes[0].node->generations), 1);
    sim_cluster_fini(&c);
}

/* Every second another set, in the middle of whatever the sources do. */
static void test_reload_often(void **s)
{
    struct sim_cluster c;
    (void)s;
    cluster_start(&c, 12);
    for (int i = 0; i < 60; i++) {
        char text[1024];
        snprintf(text, sizeof text, "%s%s{ name = \"nodes\"; type = \"dns\"; peer = \"nodes.svc:7000\"; interval = \"%ds\"; }",
                 i % 3 == 0 ? SERVERS("5", "") : "", i % 3 == 0 ? ", " : "", 1 + i % 2);
        pd_sim_resolver_set(c.sim, i % 5 == 0 ? PD_EIO : PD_OK);
        taken(&c, text);
        run(&c, (pd_time)(i % 7) * 200 * PD_MS + 1);
        assert_int_equal((int)metric(&c, "pdplane_router_decode_endpoints_up"), 2);
        if (i % 6 == 0)
            assert_int_equal(ask(&c), 200);
    }
    assert_int_equal((int)metric(&c, "pdplane_peer_connects_total"), 2);
    sim_cluster_fini(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_found),
    cmocka_unit_test(test_reload),
    cmocka_unit_test(test_reload_often),
    cmocka_unit_test(test_resolver_fails),
    cmocka_unit_test(test_flapping),
};
PD_UNIT_MAIN(tests)
