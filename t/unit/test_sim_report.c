/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes in the simulator tell of themselves: every report as text and as JSON, while
 * requests run, after they ended well and badly, with peers that are lost, while an allocation
 * fails; and the pages of the admin listener with queries of all kinds. */
#include "unit.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "node/report.h"
#include "sim_nodes.h"

#define MODEL "contrib/tinymodel/tiny.gguf"

static char router_conf[1024], decode_conf[2048], prefill_conf[2048];

static int setup(void **state)
{
    const char *src = getenv("PD_SRCDIR");
    (void)state;
    snprintf(router_conf, sizeof router_conf,
             "load = [ \"router\", \"prometheus\", \"openai\", \"dns\" ];\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; },\n"
             "           { address = \"0.0.0.0:9000\"; api = \"admin\"; },\n"
             "           { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "peers = ( { address = \"10.0.0.2:7000\"; }, { address = \"10.0.0.3:7000\"; }, { address = \"10.0.0.9:7000\"; } );\n"
             "endpoints = ( { name = \"far\"; type = \"openai\"; url = \"http://10.0.0.9:1\"; models = [ \"x\", \"y\" ]; } );\n"
             "discovery = ( { name = \"s\"; type = \"dns\"; peer = \"nodes.svc:7000\"; networks = [ \"10.0.0.0/8\" ]; } );\n");
    snprintf(decode_conf, sizeof decode_conf,
             "load = [ \"decode\", \"ref\", \"tcp\" ];\n"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; }, { address = \"0.0.0.0:9000\"; api = \"admin\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"2m\";\n"
             "             roles = [ \"decode\" ]; ms_per_token = 5.0; } );\n", src != NULL ? src : ".");
    snprintf(prefill_conf, sizeof prefill_conf,
             "load = [ \"prefill\", \"ref\", \"tcp\" ];\n"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; }, { address = \"0.0.0.0:9000\"; api = \"admin\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"2m\";\n"
             "             roles = [ \"prefill\" ]; step_tokens = 16; } );\n", src != NULL ? src : ".");
    return 0;
}

static const char *const bodies[] = {
    "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":6,\"messages\":[{\"role\":\"user\",\"content\":\"Repeat: lion, lamp, river, honey, goat.\"}]}",
    "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":3,\"prompt\":\"Hi\"}",
    "{\"model\":\"tiny\",\"max_tokens\":5,\"stream\":true,\"prompt\":[\"One day\",\"Once upon\"]}",
    "{\"model\":\"x\",\"max_tokens\":5,\"prompt\":\"Hi\"}",         /* its server is not there */
    "{\"model\":\"nobody\",\"max_tokens\":5,\"prompt\":\"Hi\"}",
};

/* ---- reports --------------------------------------------------------------------- */

enum { STATUS, ENGINES, LISTEN, NODES, ENDPOINTS, MODULES, SOURCES, ENTRIES, GENERATIONS, NEWEST, SLOWEST, TRANSFERS,
       LEASES, REPORTS };

static pd_status report(struct pd_node *node, struct pd_view *v, int which, uint32_t max)
{
    switch (which) {
    case STATUS: pd_report_status(node, v); break;
    case ENGINES: pd_report_engines(node, v); break;
    case LISTEN: pd_report_listen(node, v); break;
    case NODES: pd_report_nodes(node, v); break;
    case ENDPOINTS: pd_report_endpoints(node, v); break;
    case MODULES: pd_report_modules(node, v); break;
    case SOURCES: pd_report_sources(node, v); break;
    case ENTRIES: pd_report_entries(node, v); break;
    case GENERATIONS: pd_report_generations(node, v); break;
    case NEWEST: return pd_report_requests(node, v, max, PD_REPORT_NEWEST);
    case SLOWEST: return pd_report_requests(node, v, max, PD_REPORT_SLOWEST);
    case TRANSFERS: return pd_report_transfers(node, v, max);
    default: return pd_report_leases(node, v, max);
    }
    return PD_OK;
}

static void check_json(const struct pd_buf *out)
{
    static const char *const root[] = { "" };
    struct pd_json_value value;
    assert_int_equal(pd_json_scan(pd_buf_str(out), NULL, root, 1, &value, NULL), PD_OK);
    assert_int_equal(value.type, PD_JSON_OBJECT);
}

static void look(struct pd_node *node)
{
    struct pd_buf out;
    struct pd_view v;
    for (int which = 0; which < REPORTS; which++) {
        for (int format = 0; format < 2; format++) {
            for (uint32_t max = 0; max <= 50; max += max < 2 ? 1 : 48) {
                bool is_json = format == 1;
                pd_buf_init(&out, 1 << 20);
                pd_view_init(&v, is_json ? PD_VIEW_JSON : PD_VIEW_TEXT, &out);
                assert_int_equal(report(node, &v, which, max), PD_OK);
                assert_int_equal(pd_view_fini(&v), PD_OK);
                if (is_json)
                    check_json(&out);
                pd_buf_fini(&out);
            }
        }
        /* Without memory it says so. */
        for (uint64_t n = 1; n < 40; n++) {
            pd_buf_init(&out, 1 << 20);
            pd_view_init(&v, PD_VIEW_JSON, &out);
            pd_mem_fault_set(n);
            pd_status st = report(node, &v, which, 50), written = pd_view_fini(&v);
            pd_mem_fault_set(0);
            assert_true(st == PD_OK || st == PD_ENOMEM);
            assert_true(written == PD_OK || written == PD_ENOMEM);
            if (st == PD_OK && written == PD_OK)
                check_json(&out);
            pd_buf_fini(&out);
        }
    }
}

/* Each request that a node remembers: where its time went, and why it went there. */
static uint32_t explain_all(struct pd_node *node)
{
    struct pd_buf list, out;
    struct pd_view v;
    uint32_t n = 0;
    pd_buf_init(&list, 1 << 20);
    pd_view_init(&v, PD_VIEW_JSON, &list);
    assert_int_equal(pd_report_requests(node, &v, 50, PD_REPORT_NEWEST), PD_OK);
    assert_int_equal(pd_view_fini(&v), PD_OK);
    for (const char *p = pd_buf_cstr(&list); (p = strstr(p, "\"id\":\"")) != NULL;) {
        const char *end = strchr(p += 6, '"');
        struct pd_str id = { p, (size_t)(end - p) };
        for (int format = 0; format < 2; format++) {
            pd_buf_init(&out, 1 << 20);
            pd_view_init(&v, format == 1 ? PD_VIEW_JSON : PD_VIEW_TEXT, &out);
            assert_int_equal(pd_report_explain(node, &v, id), PD_OK);
            assert_int_equal(pd_view_fini(&v), PD_OK);
            if (format == 1)
                check_json(&out);
            assert_true(pd_str_find(pd_buf_str(&out), id) != PD_STR_NPOS);
            pd_buf_fini(&out);
        }
        n++;
    }
    pd_buf_init(&out, 1 << 20);
    pd_view_init(&v, PD_VIEW_TEXT, &out);
    assert_int_equal(pd_report_explain(node, &v, PD_STR("nobody's")), PD_ENOENT);
    (void)pd_view_fini(&v);
    pd_buf_fini(&out);
    pd_buf_fini(&list);
    return n;
}

static void look_at_all(void *arg)
{
    struct sim_cluster *c = arg;
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->nodes[i].node == NULL)
            continue;
        look(c->nodes[i].node);
        (void)explain_all(c->nodes[i].node);
    }
}

static void start(struct sim_cluster *c)
{
    sim_cluster_init(c, 4, NULL);
    sim_node_start(c, "router", router_conf);
    sim_node_start(c, "decode", decode_conf);
    sim_node_start(c, "prefill", prefill_conf);
    look_at_all(c);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
}

static void test_reports(void **state)
{
    static struct sim_answer a;
    struct sim_cluster c;
    (void)state;
    start(&c);
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        for (pd_time at = 0; at < 60 * PD_MS; at += 11 * PD_MS)
            assert_int_equal(pd_sim_at(c.sim, pd_sim_now(c.sim) + at, look_at_all, &c), PD_OK);
        sim_post(&c, "10.0.0.1", 8000, strstr(bodies[i], "messages") != NULL ? "/v1/chat/completions" : "/v1/completions",
                 bodies[i], 60 * PD_SEC, &a);
        assert_true(i < 3 ? a.status == 200 : a.status >= 400);
        pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    }
    assert_true(explain_all(c.nodes[0].node) >= 4);
    assert_true(explain_all(c.nodes[1].node) >= 2);
    /* A request whose node goes away, and the peers as they are seen then. */
    for (pd_time at = 20 * PD_MS; at < 5 * PD_SEC; at += 700 * PD_MS)
        assert_int_equal(pd_sim_at(c.sim, pd_sim_now(c.sim) + at, look_at_all, &c), PD_OK);
    pd_sim_stop(c.nodes[2].loop, true);
    sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", bodies[0], 60 * PD_SEC, &a);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 10 * PD_SEC);
    look_at_all(&c);
    pd_sim_stop(c.nodes[2].loop, false);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 10 * PD_SEC);
    look_at_all(&c);
    sim_cluster_fini(&c);
}

/* ---- pages -------------------------------------------------------------------------- */

static void test_pages(void **state)
{
    static struct sim_answer a;
    struct sim_cluster c;
    char id[128], path[400];
    (void)state;
    start(&c);
    sim_post(&c, "10.0.0.1", 8000, "/v1/completions", bodies[1], 60 * PD_SEC, &a);
    assert_int_equal(a.status, 200);
    static const struct {
        const char *path;
        uint32_t status;
    } rows[] = {
        { "/health", 200 }, { "/ready", 200 }, { "/status", 200 }, { "/status.json", 200 },
        { "/status/explain.json", 400 }, { "/status/explain.json?", 400 }, { "/status/explain.json?x=1", 400 },
        { "/status/explain.json?id=", 400 }, { "/status/explain.json?id=%4", 400 }, { "/status/explain.json?id=%zz", 400 },
        { "/status/explain.json?id=%4z", 400 }, { "/status/explain.json?id=%gA", 400 },
        { "/status/explain.json?id=none", 404 }, { "/status/explain.json?x=1&id=%41%6a%4Aq", 404 },
        { "/status/nothing", 404 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sim_get(&c, "10.0.0.1", 9000, rows[i].path, 10 * PD_SEC, &a);
        if (a.status != rows[i].status)
            fail_msg("%s: status %u: %s", rows[i].path, a.status, a.body);
    }
    sim_get(&c, "10.0.0.1", 9000, "/status.json", 10 * PD_SEC, &a);
    const char *p = strstr(a.body, "\"requests\":");
    assert_non_null(p);
    p = strstr(p, "\"id\":\"");
    assert_non_null(p);
    snprintf(id, sizeof id, "%.*s", (int)strcspn(p + 6, "\""), p + 6);
    /* Its first letter as a number. */
    snprintf(path, sizeof path, "/status/explain.json?id=%%%02x%s", (unsigned char)id[0], id + 1);
    sim_get(&c, "10.0.0.1", 9000, path, 10 * PD_SEC, &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, id));
    memset(path, 'i', sizeof path);
    memcpy(path, "/status/explain.json?id=", 24);
    path[sizeof path - 1] = '\0';
    sim_get(&c, "10.0.0.1", 9000, path, 10 * PD_SEC, &a);
    assert_int_equal(a.status, 404);
    sim_cluster_fini(&c);
    /* A node that waits for its peers is not ready. */
    sim_cluster_init(&c, 4, NULL);
    sim_node_start(&c, "router", router_conf);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 20 * PD_SEC);
    sim_get(&c, "10.0.0.1", 9000, "/ready", 10 * PD_SEC, &a);
    assert_true(a.status == 200 || (a.status == 503 && strstr(a.body, "not ready: ") != NULL));
    pd_node_drain(c.nodes[0].node, NULL, NULL);
    sim_get(&c, "10.0.0.1", 9000, "/ready", 10 * PD_SEC, &a);
    assert_int_equal(a.status, 503);
    sim_get(&c, "10.0.0.1", 9000, "/health", 10 * PD_SEC, &a);
    assert_int_equal(a.status, 200);
    look(c.nodes[0].node);
    sim_cluster_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_reports), cmocka_unit_test(test_pages) };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, setup, NULL);
}
