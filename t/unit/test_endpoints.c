/* SPDX-License-Identifier: Apache-2.0 */
/* Endpoints that come, change and go while a router runs: one by one and as
 * whole sets, with requests on their way. */
#include "unit.h"

#include "sim_nodes.h"

#include "base/mem.h"
#include "base/str.h"
#include "node/endpoints.h"

#define MODEL "contrib/tinymodel/tiny.gguf"

static const char body[] = "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":24,\"prompt\":\"Once upon a\"}";

static char server_conf[2048], router_conf[2048];

static int setup(void **state)
{
    const char *src = getenv("PD_SRCDIR");
    (void)state;
    snprintf(server_conf, sizeof server_conf,
             "load = [ \"router\", \"decode\", \"ref\" ];\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"4m\";\n"
             "             roles = [ \"decode\" ]; ms_per_token = 20.0; } );\n", src != NULL ? src : ".");
    snprintf(router_conf, sizeof router_conf,
             "load = [ \"router\", \"openai\" ];\n"
             "scheduler = { endpoints = 3; };\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
             "endpoints = ( { name = \"a\"; type = \"openai\"; url = \"http://10.0.0.1:8000\";\n"
             "                roles = [ \"decode\" ]; } );\n");
    return 0;
}

/* Two servers and a router that knows the first. */
static struct sim_node *start(struct sim_cluster *c)
{
    sim_cluster_init(c, 1, NULL);
    sim_node_start(c, "s1", server_conf);
    sim_node_start(c, "s2", server_conf);
    struct sim_node *r = sim_node_start(c, "router", router_conf);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + PD_SEC);
    return r;
}

static struct pd_node_endpoint_conf configured(const struct sim_node *r)
{
    return *PD_CONF_ITEM(&r->node->root->endpoints, struct pd_node_endpoint_conf, 0);
}

/* As pdctl sees it; false: there is none. */
static bool status_of(const struct sim_node *r, const char *name, struct pd_endpoint_status *out)
{
    uint32_t cursor = 0;
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    while (pd_sched_api()->endpoint_next(r->node->sched, &cursor, pd_loop_now(r->loop), out)) {
        if (strcmp(out->view.name, name) == 0)
            return true;
    }
    return false;
}

static uint32_t count(const struct sim_node *r)
{
    struct pd_endpoint_status s = { .size = sizeof s };
    uint32_t cursor = 0, n = 0;
    while (pd_sched_api()->endpoint_next(r->node->sched, &cursor, 0, &s))
        n++;
    return n;
}

static void ask(struct sim_cluster *c, uint32_t status)
{
    static struct sim_answer a;
    sim_post(c, "10.0.0.3", 8000, "/v1/completions", body, 20 * PD_SEC, &a);
    if (a.status != status)
        fprintf(stderr, "%s\n", a.body);
    assert_int_equal(a.status, status);
}

static void come_and_go(void **state)
{
    struct sim_cluster c;
    struct pd_endpoint_status s;
    struct pd_err err = { 0 };
    (void)state;
    struct sim_node *r = start(&c);
    struct pd_node_endpoint_conf e = configured(r);
    char name[] = "b", url[] = "http://10.0.0.2:8000";
    e.name = name;
    e.url = url;
    assert_int_equal(pd_node_endpoint_add(r->node, &e, r->conf, &c, &err), PD_OK);
    /* Its strings are its own. */
    memset(name, 'x', 1);
    memset(url, 'x', sizeof url - 1);
    assert_true(status_of(r, "b", &s));
    assert_int_equal(s.view.state, PD_ENDPOINT_DOWN);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    assert_true(status_of(r, "b", &s));
    assert_int_equal(s.view.state, PD_ENDPOINT_UP);

    /* The name is taken, whoever comes; only its source takes it away. */
    e.name = "b";
    e.url = "http://10.0.0.2:8000";
    assert_int_equal(pd_node_endpoint_add(r->node, &e, r->conf, NULL, &err), PD_EEXIST);
    assert_int_equal(pd_node_endpoint_remove(r->node, PD_STR("b"), NULL), PD_ENOENT);
    assert_int_equal(pd_node_endpoint_remove(r->node, PD_STR("a"), NULL), PD_OK);
    assert_false(status_of(r, "a", &s));
    ask(&c, 200);
    assert_true(status_of(r, "b", &s));
    assert_int_equal(s.dispatched_total, 1);
    assert_int_equal(pd_node_endpoint_remove(r->node, PD_STR("b"), &c), PD_OK);
    assert_int_equal(count(r), 0);
    ask(&c, 503);
    assert_true(pd_node_endpoint_at(r->node, 0) == NULL);
    assert_int_equal(pd_node_endpoint_add(r->node, &e, r->conf, NULL, &err), PD_OK);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    ask(&c, 200);
    sim_cluster_fini(&c);
}

struct step {
    struct sim_node *r;
    struct pd_node_endpoint_conf e;
    bool back;
    uint32_t seen;
};

static void take_away(void *arg)
{
    struct step *step = arg;
    struct pd_endpoint_status s;
    assert_true(status_of(step->r, "a", &s));
    assert_int_equal(s.view.inflight, 1);
    assert_int_equal(pd_node_endpoint_remove(step->r->node, PD_STR("a"), NULL), PD_OK);
    assert_true(status_of(step->r, "a", &s));
    assert_int_equal(s.view.state, PD_ENDPOINT_DRAINING);
    assert_int_equal(s.view.inflight, 1);
    assert_null(s.user);
    step->seen++;
    if (!step->back)
        return;
    struct pd_err err = { 0 };
    assert_int_equal(pd_node_endpoint_add(step->r->node, &step->e, step->r->conf, NULL, &err), PD_OK);
    assert_true(status_of(step->r, "a", &s));
    assert_int_equal(s.view.state, PD_ENDPOINT_DOWN); /* until it is probed */
    assert_int_equal(s.view.inflight, 1);
}

/* A request outlives its endpoint, and one that comes back is the same. */
static void requests_go_on(void **state)
{
    (void)state;
    for (int back = 0; back < 2; back++) {
        struct sim_cluster c;
        struct pd_endpoint_status s;
        struct sim_node *r = start(&c);
        struct step step = { .r = r, .e = configured(r), .back = back != 0 };
        pd_sim_at(c.sim, pd_sim_now(c.sim) + 100 * PD_MS, take_away, &step);
        ask(&c, 200);
        assert_int_equal(step.seen, 1);
        assert_int_equal(count(r), (uint32_t)back);
        if (back != 0) {
            assert_true(status_of(r, "a", &s));
            assert_int_equal(s.dispatched_total, 1);
            assert_int_equal(s.view.inflight, 0);
            assert_true(s.index_blocks > 0);
            ask(&c, 200);
        }
        sim_cluster_fini(&c);
    }
}

struct changing {
    struct sim_node *r;
    struct pd_node_endpoint_conf e;
    int times;
};

static void change_weight(void *arg)
{
    struct changing *ch = arg;
    struct pd_err err = { 0 };
    ch->e.weight = 60 + ch->times++;
    assert_int_equal(pd_node_endpoints_set(ch->r->node, &ch->e, 1, ch->r->conf, NULL, &err), PD_OK);
}

static void sets(void **state)
{
    struct sim_cluster c;
    struct pd_endpoint_status s, before;
    struct pd_err err = { 0 };
    (void)state;
    struct sim_node *r = start(&c);
    struct pd_node_endpoint_conf e[4];
    for (int i = 0; i < 4; i++)
        e[i] = configured(r);
    e[1].name = "b";
    e[1].url = "http://10.0.0.2:8000";
    e[2].name = "c";
    e[2].url = "http://10.0.0.2:8000/";
    e[3].name = "d";
    e[3].url = "http://10.0.0.2:8000";
    ask(&c, 200);
    const struct pd_node_endpoint *a = pd_node_endpoint_at(r->node, 0);

    /* What is equal stays the very same. */
    assert_int_equal(pd_node_endpoints_set(r->node, e, 2, r->conf, NULL, &err), PD_OK);
    assert_ptr_equal(pd_node_endpoint_at(r->node, 0), a);
    assert_non_null(pd_node_endpoint_at(r->node, 1));
    assert_int_equal(count(r), 2);

    /* Too many: nothing has changed, also not what came before the one too many. */
    e[0].weight = 50;
    assert_int_equal(pd_node_endpoints_set(r->node, e, 4, r->conf, NULL, &err), PD_ELIMIT);
    assert_non_null(strstr(err.text, "\"d\""));
    assert_ptr_equal(pd_node_endpoint_at(r->node, 0), a);
    assert_null(pd_node_endpoint_at(r->node, 2));
    assert_int_equal(count(r), 2);
    assert_true(status_of(r, "a", &s));
    assert_int_equal(s.view.weight, 100);
    e[3].name = "c";
    assert_int_equal(pd_node_endpoints_set(r->node, e, 4, r->conf, NULL, &err), PD_EEXIST);
    assert_int_equal(count(r), 2);
    e[2].url = "http://10.0.0.2:8000/path";
    assert_int_equal(pd_node_endpoints_set(r->node, e, 3, r->conf, NULL, &err), PD_EINVAL);
    assert_int_equal(count(r), 2);
    ask(&c, 200);

    /* A changed weight keeps the index, a changed address does not.  What has
     * changed takes requests at once. */
    assert_true(status_of(r, "a", &before));
    assert_true(before.index_blocks > 0);
    assert_int_equal(pd_node_endpoints_set(r->node, e, 1, r->conf, NULL, &err), PD_OK);
    assert_int_equal(count(r), 1);
    assert_true(status_of(r, "a", &s));
    assert_int_equal(s.view.weight, 50);
    assert_int_equal(s.view.state, PD_ENDPOINT_UP);
    assert_int_equal(s.view.serial, before.view.serial);
    assert_int_equal(s.index_blocks, before.index_blocks);
    assert_int_equal(s.models != NULL && s.models[0] != NULL, 1);
    struct changing changing = { .r = r, .e = e[0] };
    for (int i = 1; i <= 2000; i++)
        pd_sim_at(c.sim, pd_sim_now(c.sim) + (pd_time)i * PD_MS, change_weight, &changing);
    for (int i = 0; i < 3; i++)
        ask(&c, 200);
    assert_true(changing.times > 1000);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 3 * PD_SEC);
    assert_int_equal(pd_node_endpoints_set(r->node, e, 1, r->conf, NULL, &err), PD_OK);
    e[0].url = "http://10.0.0.2:8000";
    assert_int_equal(pd_node_endpoints_set(r->node, e, 1, r->conf, NULL, &err), PD_OK);
    assert_true(status_of(r, "a", &s));
    assert_true(s.view.serial != before.view.serial);
    assert_int_equal(s.index_blocks, 0);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    ask(&c, 200);

    /* A set of another source does not touch it. */
    assert_int_equal(pd_node_endpoints_set(r->node, &e[1], 1, r->conf, &c, &err), PD_OK);
    assert_int_equal(count(r), 2);
    assert_int_equal(pd_node_endpoints_set(r->node, NULL, 0, r->conf, &c, &err), PD_OK);
    assert_int_equal(count(r), 1);
    sim_cluster_fini(&c);
}

/* Whichever allocation fails, a set is taken whole or not at all. */
static void without_memory(void **state)
{
    struct sim_cluster c;
    struct pd_err err = { 0 };
    (void)state;
    struct sim_node *r = start(&c);
    struct pd_node_endpoint_conf e[3];
    uint64_t n = 0;
    pd_status status = PD_ENOMEM;
    for (int i = 0; i < 3; i++)
        e[i] = configured(r);
    e[0].weight = 7;
    e[1].name = "b";
    e[2].name = "c";
    while (status != PD_OK) {
        pd_mem_fault_set(++n);
        status = pd_node_endpoints_set(r->node, e, 3, r->conf, NULL, &err);
        pd_mem_fault_set(0);
        assert_int_equal(count(r), status == PD_OK ? 3 : 1);
        struct pd_endpoint_status s;
        assert_true(status_of(r, "a", &s));
        assert_int_equal(s.view.weight, status == PD_OK ? 7 : 100);
        assert_int_equal(s.view.state, PD_ENDPOINT_UP);
    }
    assert_true(n > 20);
    ask(&c, 200);
    sim_cluster_fini(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(come_and_go),
    cmocka_unit_test(requests_go_on),
    cmocka_unit_test(sets),
    cmocka_unit_test(without_memory),
};

int main(void)
{
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, setup, NULL);
}
