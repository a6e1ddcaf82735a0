/* SPDX-License-Identifier: Apache-2.0 */
/* Reloads in the simulator: at every stage of a request, with and without
 * changed engines, with whatever allocation failing; what is equal stays, what
 * is not ends with its last request, and a refused one changes nothing. */
#include "unit.h"

#include "sim_nodes.h"

#include "base/mem.h"
#include "base/str.h"
#include "node/report.h"

#define MODEL "contrib/tinymodel/tiny.gguf"

static const char body_story[] =
    "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":24,\"logprobs\":true,\"top_logprobs\":2,"
    "\"messages\":[{\"role\":\"user\",\"content\":\"Repeat these words: lion, lamp, river, honey, "
    "silver, goat, train.\"}]}";

/* Configurations of the three nodes, with room for what a test changes; equal
 * ones are the same text, which stays. */
static const char *text_of(const char *format, const char *first, const char *second)
{
    static char text[64][2048];
    static unsigned n;
    const char *src = getenv("PD_SRCDIR");
    assert_true(n < 64);
    char *out = text[n];
    char *p = out, *end = out + sizeof text[0];
    for (const char *f = format; *f != '\0' && p < end - 1; f++) {
        const char *put = *f != '@' ? NULL : f[1] == 'M' ? src : f[1] == '1' ? first : second;
        if (*f != '@') {
            *p++ = *f;
            continue;
        }
        p += snprintf(p, (size_t)(end - p), "%s", put != NULL ? put : ".");
        f++;
    }
    *p = '\0';
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(text[i], out) == 0)
            return text[i];
    }
    n++;
    return out;
}

static const char *router_text(const char *options, const char *listen)
{
    return text_of("load = [ \"router\" ];\n"
                   "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; },@2\n"
                   "           { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
                   "peers = ( { address = \"10.0.0.2:7000\"; }, { address = \"10.0.0.3:7000\"; } );\n"
                   "@1\n", options, listen);
}

static const char *prefill_text(const char *engine)
{
    return text_of("load = [ \"prefill\", \"ref\", \"tcp\" ];\n"
                   "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
                   "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"@M/" MODEL "\"; kv_memory = \"4m\";\n"
                   "             roles = [ \"prefill\" ]; step_tokens = 16; @1 } );\n", engine, "");
}

static const char *decode_text(const char *engine, const char *options)
{
    return text_of("load = [ \"decode\", \"ref\", \"tcp\" ];\n"
                   "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
                   "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"@M/" MODEL "\"; kv_memory = \"4m\";\n"
                   "             roles = [ \"decode\" ]; @1 } );\n@2\n", engine, options);
}

#define PREFILL_ENGINE "prefill_tokens_per_s = 2000;"
#define DECODE_ENGINE "ms_per_token = 5.0;"

static void cluster_start(struct sim_cluster *c, uint64_t seed)
{
    sim_cluster_init(c, seed, NULL);
    sim_node_start(c, "router", router_text("", ""));
    sim_node_start(c, "prefill", prefill_text(PREFILL_ENGINE));
    sim_node_start(c, "decode", decode_text(DECODE_ENGINE, ""));
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
}

static const char *choices(const struct sim_answer *a)
{
    const char *p = strstr(a->body, "\"choices\":");
    if (p == NULL)
        fail_msg("status %u: %s", a->status, a->body);
    return p;
}

/* What every answer must be, up to the figures that differ with the cache. */
static void answer_check(struct sim_answer *a)
{
    static char expected[65536];
    assert_int_equal(a->status, 200);
    char *usage = strstr(a->body, "\"usage\"");
    assert_non_null(usage);
    *usage = '\0';
    if (expected[0] == '\0') {
        assert_non_null(strstr(a->body, "Lion, lamp, river, honey, silver, goat, train."));
        snprintf(expected, sizeof expected, "%s", choices(a));
    }
    assert_string_equal(choices(a), expected);
}

static void ask(struct sim_cluster *c, uint16_t port)
{
    static struct sim_answer a;
    sim_post(c, "10.0.0.1", port, "/v1/chat/completions", body_story, 60 * PD_SEC, &a);
    answer_check(&a);
}

static size_t generations(const struct sim_node *n)
{
    return pd_list_count(&n->node->generations);
}

static double metric(struct sim_node *n, const char *name)
{
    double v = -1;
    pd_metrics_refresh(n->node->metrics);
    pd_metrics_read(n->node->metrics, name, NULL, &v);
    return v;
}

static const char *report(struct sim_node *n)
{
    static char text[8192];
    struct pd_buf out;
    struct pd_view v;
    pd_buf_init(&out, sizeof text);
    pd_view_init(&v, PD_VIEW_JSON, &out);
    pd_report_generations(n->node, &v);
    assert_int_equal(pd_view_fini(&v), PD_OK);
    snprintf(text, sizeof text, "%.*s", PD_STR_ARG(pd_buf_str(&out)));
    pd_buf_fini(&out);
    return text;
}

/* Nothing of an earlier generation is left anywhere. */
static void settled(struct sim_cluster *c)
{
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 8 * PD_SEC);
    for (uint32_t i = 0; i < c->n; i++) {
        struct sim_node *n = &c->nodes[i];
        if (generations(n) != 1)
            fail_msg("%s: %s", n->host, report(n));
        assert_int_equal(n->node->generation->holds, 0);
        for (uint32_t k = 0; k < n->node->n_engines; k++) {
            struct pd_node_engine_unit *e = n->node->engines[k];
            struct pd_engine_load load = { .size = sizeof load };
            e->e.ops->load(e->e.engine, &load);
            assert_int_equal(load.running + load.waiting, 0);
            assert_int_equal(load.blocks_free, load.blocks_total);
        }
    }
}

/* ---- at each stage -------------------------------------------------------------------- */

struct change {
    struct sim_cluster *c;
    const char *text[3];       /* NULL: no reload of that node */
    uint32_t times;
    uint32_t live;             /* requests that were on their way, summed up */
};

static void change_now(void *arg)
{
    struct change *ch = arg;
    struct pd_err err;
    for (uint32_t i = 0; i < 3; i++) {
        struct sim_node *n = &ch->c->nodes[i];
        uint64_t before = n->node->generation->number;
        ch->live += n->node->generation->holds;
        for (uint32_t k = 0; ch->text[i] != NULL && k < ch->times; k++) {
            if (sim_node_reload(n, ch->text[i], &err) != PD_OK)
                fail_msg("%s: %s", n->host, err.text);
            assert_int_equal(n->node->generation->number, before + k + 1);
        }
    }
}

static void at_each_stage(struct change *ch, pd_time step, pd_time until, uint64_t seed)
{
    ch->live = 0;
    for (pd_time at = 0; at < until; at += step, seed++) {
        struct sim_cluster c;
        cluster_start(&c, seed);
        ch->c = &c;
        pd_sim_at(c.sim, pd_sim_now(c.sim) + at, change_now, ch);
        ask(&c, 8000);
        ask(&c, 8000);
        settled(&c);
        sim_cluster_fini(&c);
    }
    assert_true(ch->live > 10);
}

static void test_unchanged(void **state)
{
    (void)state;
    struct change ch = { .times = 3 };
    ch.text[0] = router_text("", "");
    ch.text[1] = prefill_text(PREFILL_ENGINE);
    ch.text[2] = decode_text(DECODE_ENGINE, "");
    at_each_stage(&ch, 4 * PD_MS, 160 * PD_MS, 100);
}

static void test_changed_engines(void **state)
{
    (void)state;
    struct change decode = { .times = 1 }, prefill = { .times = 1 };
    decode.text[2] = decode_text("ms_per_token = 4.0;", "");
    at_each_stage(&decode, 3 * PD_MS, 160 * PD_MS, 200);
    prefill.text[1] = prefill_text("prefill_tokens_per_s = 3000;");
    at_each_stage(&prefill, 1 * PD_MS, 40 * PD_MS, 300);
}

static void test_changed_options(void **state)
{
    (void)state;
    struct change ch = { .times = 1 };
    ch.text[0] = router_text("role = { router = { retries = 0; deadline = \"5m\"; body_limit = \"1m\"; }; };\n"
                             "scheduler = { explain_candidates = 3; };", "");
    ch.text[2] = decode_text(DECODE_ENGINE, "role = { decode = { handover = \"n-1\"; }; };");
    /* The KV of n-1 gives the same text and logits. */
    at_each_stage(&ch, 8 * PD_MS, 160 * PD_MS, 400);
}

/* ---- what stays and what ends ------------------------------------------------------------- */

static void test_what_stays(void **state)
{
    struct sim_cluster c;
    struct pd_err err;
    (void)state;
    cluster_start(&c, 1);
    ask(&c, 8000);
    struct sim_node *r = &c.nodes[0], *d = &c.nodes[2];
    struct pd_node_engine_unit *engine = d->node->engines[0];
    struct pd_sched_plugins *plugins = r->node->plugins;
    struct pd_kv_region *region = engine->region;
    double links = metric(d, "pdplane_peer_links_total");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sim_node_reload(r, router_text("", ""), &err), PD_OK);
        assert_int_equal(sim_node_reload(d, decode_text(DECODE_ENGINE, ""), &err), PD_OK);
    }
    assert_ptr_equal(d->node->engines[0], engine);
    assert_ptr_equal(engine->region, region);
    assert_ptr_equal(r->node->plugins, plugins);
    assert_int_equal(metric(d, "pdplane_generation"), 4);
    assert_int_equal(metric(d, "pdplane_generations"), 4);
    ask(&c, 8000);
    settled(&c);
    /* The cache of the engine and the index of the router have outlived it. */
    struct pd_engine_load load = { .size = sizeof load };
    engine->e.ops->load(engine->e.engine, &load);
    assert_true(load.cached_tokens > 0);
    assert_true(metric(d, "pdplane_peer_links_total") == links);

    /* Roles and the served name may change in an engine that stays. */
    assert_int_equal(sim_node_reload(d, decode_text(DECODE_ENGINE "served = \"other\";", ""), &err), PD_OK);
    assert_ptr_equal(d->node->engines[0], engine);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    static struct sim_answer a;
    sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 20 * PD_SEC, &a);
    assert_int_equal(a.status, 503); /* "tiny" is not served any more */
    assert_int_equal(sim_node_reload(d, decode_text(DECODE_ENGINE, ""), &err), PD_OK);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    ask(&c, 8000);
    sim_cluster_fini(&c);
}

struct look {
    struct sim_cluster *c;
    char seen[8192];
};

static void look_now(void *arg)
{
    struct look *l = arg;
    struct sim_node *d = &l->c->nodes[2];
    struct pd_err err;
    assert_int_equal(d->node->generation->holds, 1);
    assert_int_equal(sim_node_reload(d, decode_text("ms_per_token = 4.0;", ""), &err), PD_OK);
    assert_int_equal(sim_node_reload(d, decode_text("ms_per_token = 3.0;", ""), &err), PD_OK);
    snprintf(l->seen, sizeof l->seen, "%s", report(d));
}

static void test_report(void **state)
{
    static struct look l;
    struct sim_cluster c;
    (void)state;
    cluster_start(&c, 2);
    l.c = &c;
    pd_sim_at(c.sim, pd_sim_now(c.sim) + 60 * PD_MS, look_now, &l);
    ask(&c, 8000);
    assert_non_null(strstr(l.seen, "\"generation\":1,\"state\":\"ending\""));
    assert_non_null(strstr(l.seen, "\"waits_for\":\"1 request, engine tiny\""));
    assert_non_null(strstr(l.seen, "\"waits_for\":\"generation 1, engine tiny\""));
    assert_non_null(strstr(l.seen, "\"generation\":3,\"state\":\"serving\""));
    assert_non_null(strstr(l.seen, "\"done\":2,\"refused\":0"));
    settled(&c);
    sim_cluster_fini(&c);
}

/* ---- refusals ---------------------------------------------------------------------------------- */

static void refused(struct sim_node *n, const char *text, const char *what)
{
    struct pd_err err;
    uint64_t before = n->node->generation->number, count = n->node->reloads.refused;
    struct pd_node_engine_unit *engine = n->node->engines[0];
    assert_int_not_equal(sim_node_reload(n, text, &err), PD_OK);
    if (strstr(err.text, what) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", what, err.text);
    assert_true(err.hint[0] != '\0');
    assert_string_equal(err.file, "test.conf");
    assert_int_equal(n->node->generation->number, before);
    assert_int_equal(n->node->reloads.refused, count + 1);
    assert_ptr_equal(n->node->engines[0], engine);
    assert_non_null(strstr(n->node->reloads.why, what));
}

static void test_refused(void **state)
{
    struct sim_cluster c;
    (void)state;
    cluster_start(&c, 3);
    struct sim_node *r = &c.nodes[0], *d = &c.nodes[2];
    refused(r, router_text("link = { heartbeat = \"5s\"; };", ""), "ascending times");
    setenv("PD_T_SECRET", "sesame", 1);
    refused(r, router_text("link = { secret = \"${PD_T_SECRET}\"; };", ""), "secret and tls of \"link\"");
    refused(r, router_text("node = { name = \"x\"; };", ""), "\"node\"");
    refused(r, router_text("control = \"/tmp/x\";", ""), "\"control\"");
    refused(r, router_text("scheduler = { endpoints = 7; };", ""), "tables");
    refused(r, router_text("", "{ address = \"0.0.0.0:7001\"; api = \"peer\"; },"), "listener for peers");
    refused(d, text_of("load = [ \"decode\", \"ref\" ]; engine = ( { name = \"tiny\"; type = \"ref\";\n"
                       "model = \"@M/" MODEL "\"; } );\n", "", ""), "\"transport\"");
    refused(r, text_of("load = [ \"router\" ];\n"
                       "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n", "", ""),
            "no listener for clients");
    refused(d, text_of("load = [ \"decode\", \"ref\", \"tcp\" ];\n"
                       "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
                       "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"@M/" MODEL "\";\n"
                       "roles = [ \"prefill\" ]; } );\n", "", ""), "decode role has no engine");
    settled(&c);
    ask(&c, 8000);
    sim_cluster_fini(&c);
}

/* ---- limits of what stays ---------------------------------------------------------------------- */

static uint32_t remembered(const struct sim_node *n)
{
    const struct pd_req *req;
    uint64_t cursor = 0;
    uint32_t count = 0;
    while (pd_reqs_next(n->node->reqs, &cursor, &req))
        count++;
    return count;
}

static void test_limits(void **state)
{
    struct sim_cluster c;
    struct pd_err err;
    (void)state;
    cluster_start(&c, 6);
    struct sim_node *r = &c.nodes[0], *p = &c.nodes[1], *d = &c.nodes[2];
    for (int i = 0; i < 4; i++)
        ask(&c, 8000);
    double connects = metric(r, "pdplane_peer_connects_total"), downs = metric(r, "pdplane_peer_downs_total");
    assert_int_equal(remembered(r), 4);
    assert_true(connects == 2 && downs == 0);
    const char *times = "link = { heartbeat = \"100ms\"; suspect = \"300ms\"; dead = \"400ms\"; connect_timeout = \"500ms\"; };\n"
                        "kv = { digests = \"none\"; lease = \"2s\"; connect_timeout = \"1s\"; inflight = \"64k\"; };\n"
                        "requests = { live = 5; finished = 1; explain = \"1k\"; };\n";
    /* Together with something that cannot be, none of them is taken. */
    assert_int_equal(sim_node_reload(r, router_text(times, "{ address = \"10.0.0.77:1\"; api = \"openai\"; },"), &err),
                     PD_EINVAL);
    assert_int_equal(remembered(r), 4);
    assert_int_equal(sim_node_reload(r, router_text(times, ""), &err), PD_OK);
    assert_int_equal(sim_node_reload(p, text_of("@1@2", prefill_text(PREFILL_ENGINE), times), &err), PD_OK);
    assert_int_equal(sim_node_reload(d, decode_text(DECODE_ENGINE, times), &err), PD_OK);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 5 * PD_SEC);
    for (int i = 0; i < 4; i++)
        ask(&c, 8000);
    /* The same links, with another beat. */
    assert_true(metric(r, "pdplane_peer_connects_total") == connects);
    assert_true(metric(r, "pdplane_peer_downs_total") == 0);
    assert_int_equal(remembered(r), 1);
    assert_int_equal(remembered(d), 1);
    settled(&c);
    /* A peer that is not heard of is given up after the new time. */
    assert_int_equal(pd_sim_partition(c.sim, "router", "decode", true), PD_OK);
    assert_int_equal(pd_sim_partition(c.sim, "decode", "router", true), PD_OK);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 700 * PD_MS);
    assert_true(metric(r, "pdplane_peer_downs_total") == 1);
    assert_true(metric(d, "pdplane_peer_downs_total") == 1);
    sim_cluster_fini(&c);
}

/* ---- exporters ----------------------------------------------------------------------------------- */

static uint32_t page(struct sim_cluster *c, const char *path, const char *what)
{
    static struct sim_answer a;
    sim_get(c, "10.0.0.1", 9000, path, 5 * PD_SEC, &a);
    if (a.status == 200)
        assert_non_null(strstr(a.body, what));
    return a.status;
}

static void test_exporters(void **state)
{
    static const char admin[] = "{ address = \"0.0.0.0:9000\"; api = \"admin\"; },";
    struct sim_cluster c;
    struct pd_err err;
    (void)state;
    cluster_start(&c, 8);
    struct sim_node *r = &c.nodes[0];
    struct pd_node_exporter *e = r->node->exporters[0];
    /* The exporter was there before the listener; a reload without news keeps it. */
    assert_int_equal(sim_node_reload(r, router_text("", admin), &err), PD_OK);
    assert_int_equal(page(&c, "/metrics", "pdplane_generation 2"), 200);
    assert_ptr_equal(r->node->exporters[0], e);
    /* Paths that are taken: nothing has changed. */
    refused(r, router_text("exporter = { prometheus = { path = \"/health\"; }; };", admin), "\"/health\"");
    refused(r, router_text("exporter = { prometheus = { path = \"/m\"; }; };\n"
                           "link = { heartbeat = \"9s\"; };", admin), "ascending");
    assert_int_equal(page(&c, "/metrics", "pdplane_generation 2"), 200);
    assert_int_equal(page(&c, "/m", ""), 404);
    assert_ptr_equal(r->node->exporters[0], e);
    /* Another path, and back. */
    assert_int_equal(sim_node_reload(r, router_text("exporter = { prometheus = { path = \"/m\"; }; };", admin), &err),
                     PD_OK);
    assert_int_equal(page(&c, "/m", "pdplane_generation 3"), 200);
    assert_int_equal(page(&c, "/metrics", ""), 404);
    assert_int_equal(page(&c, "/health", ""), 200);
    assert_int_equal(sim_node_reload(r, router_text("", admin), &err), PD_OK);
    assert_int_equal(page(&c, "/metrics", "pdplane_generation 4"), 200);
    assert_int_equal(page(&c, "/m", ""), 404);
    assert_int_equal(r->node->n_exporters_ending, 0);
    settled(&c);
    sim_cluster_fini(&c);
}

/* ---- everything at once, with an allocation that fails ------------------------------------ */

/* A node of all roles, with servers behind it, that changes in everything that can change. */
static const char *all_text(bool is_other)
{
    return text_of("load = [ \"router\", \"decode\", \"prefill\", \"ref\", \"tcp\", \"openai\", \"static\" ];\n"
                   "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; }, @1 );\n"
                   "@2\n", is_other ? "{ address = \"0.0.0.0:8001\"; api = \"openai\"; }"
                                   : "{ address = \"0.0.0.0:9000\"; api = \"admin\"; }",
                   is_other ?
                   text_of("peers = ( { address = \"10.0.0.8:7000\"; } );\n"
                           "role = { router = { retries = 1; }; };\n"
                           "exporter = { prometheus = { path = \"/other\"; }; };\n"
                           "scheduler = { failures = 9; };\n"
                           "limits = { connections = 100; };\n"
                           "discovery = ( { name = \"k\"; type = \"static\"; peers = [ \"10.0.0.5:1\" ]; },\n"
                           "  { name = \"l\"; type = \"static\"; servers = [ \"http://10.0.0.9:4\" ]; linger = \"0s\";\n"
                           "    endpoint = ( { type = \"openai\"; models = [ \"l\" ]; weight = 3; } ); },\n"
                           "  { name = \"n\"; type = \"static\"; peers = [ \"10.0.0.6:1\" ]; } );\n"
                           "endpoints = ( { name = \"a\"; type = \"openai\"; url = \"http://10.0.0.9:1\"; models = [ \"x\" ]; },\n"
                           "  { name = \"b\"; type = \"openai\"; url = \"http://10.0.0.9:2\"; models = [ \"y\" ]; } );\n"
                           "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"@M/" MODEL "\"; kv_memory = \"4m\"; "
                           "ms_per_token = 4.0; }, { name = \"more\"; type = \"ref\"; model = \"@M/" MODEL "\";\n"
                           "kv_memory = \"2m\"; served = \"more\"; } );\n", "", "") :
                   text_of("peers = ( { address = \"10.0.0.7:7000\"; } );\n"
                           "discovery = ( { name = \"k\"; type = \"static\"; peers = [ \"10.0.0.5:1\" ]; },\n"
                           "  { name = \"l\"; type = \"static\"; servers = [ \"http://10.0.0.9:4\" ]; linger = \"0s\";\n"
                           "    endpoint = ( { type = \"openai\"; models = [ \"l\" ]; } ); },\n"
                           "  { name = \"m\"; type = \"static\"; peers = [ \"10.0.0.4:1\" ]; } );\n"
                           "endpoints = ( { name = \"a\"; type = \"openai\"; url = \"http://10.0.0.9:1\"; models = [ \"z\" ]; },\n"
                           "  { name = \"c\"; type = \"openai\"; url = \"http://10.0.0.9:3\"; models = [ \"z\" ]; } );\n"
                           "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"@M/" MODEL "\"; kv_memory = \"4m\"; "
                           "ms_per_token = 5.0; } );\n", "", ""));
}

static uint32_t endpoints_named(const struct sim_node *n, const char *names)
{
    struct pd_endpoint_status s = { .size = sizeof s };
    uint32_t cursor = 0, found = 0;
    while (pd_sched_api()->endpoint_next(n->node->sched, &cursor, 0, &s))
        found += s.view.name[1] == '\0' && strchr(names, s.view.name[0]) != NULL;
    return found;
}

struct failing {
    struct sim_cluster *c;
    struct sim_node *n;
    uint64_t at;               /* the allocation that fails */
    uint64_t count;            /* allocations of the reload */
    uint32_t refused;
    pd_status status;
};

static void failing_now(void *arg)
{
    struct failing *f = arg;
    struct sim_node *n = f->n;
    struct pd_err err = { 0 };
    struct pd_conf *conf = sim_conf_read(n, all_text(true));
    struct pd_node_engine_unit *engine = n->node->engines[0];
    assert_int_equal(n->node->generation->holds, 2); /* of router and decode */
    uint64_t before = pd_mem_count();
    pd_mem_fault_set(f->at);
    f->status = pd_node_reload(n->node, conf, &err);
    pd_mem_fault_set(0);
    f->count = pd_mem_count() - before;
    pd_conf_put(conf);
    f->refused += f->status != PD_OK;
    if (f->status == PD_OK) {
        assert_int_equal(n->node->n_engines, 2);
        assert_ptr_not_equal(n->node->engines[0], engine);
        assert_int_equal(endpoints_named(n, "ab"), 2);
        assert_int_equal(endpoints_named(n, "c"), 0);
        assert_int_equal(n->node->generation->number, 2);
        return;
    }
    assert_int_equal(f->status, PD_ENOMEM);
    assert_int_equal(n->node->n_engines, 1);
    assert_ptr_equal(n->node->engines[0], engine);
    assert_int_equal(endpoints_named(n, "ac"), 2);
    assert_int_equal(endpoints_named(n, "b"), 0);
    assert_int_equal(n->node->generation->number, 1);
    assert_int_equal(n->node->generation->holds, 2);
}

static void test_without_memory(void **state)
{
    struct failing f = { .at = 0 };
    (void)state;
    /* Until the reload needs fewer allocations than the one that would fail. */
    do {
        f.at++;
        struct sim_cluster c;
        sim_cluster_init(&c, 500 + f.at, NULL);
        c.is_quiet = f.at % 2;
        f.c = &c;
        f.n = sim_node_start(&c, "all", all_text(false));
        pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
        pd_sim_at(c.sim, pd_sim_now(c.sim) + 30 * PD_MS, failing_now, &f);
        ask(&c, 8000);
        ask(&c, 8000);
        if (f.status == PD_OK)
            ask(&c, 8001);
        settled(&c);
        assert_int_equal(metric(f.n, "pdplane_reloads_total"), -1); /* it has labels */
        sim_cluster_fini(&c);
    } while (f.count >= f.at);
    assert_int_equal(f.status, PD_OK);
    assert_true(f.refused > 60);
}

/* ---- roles and listeners ----------------------------------------------------------------------- */

static const char *roles_text(const char *load, const char *roles)
{
    return text_of("load = [ @1 \"decode\", \"ref\", \"tcp\" ];\n"
                   "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; },\n"
                   "           { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
                   "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"@M/" MODEL "\"; kv_memory = \"4m\";\n"
                   "             ms_per_token = 5.0; roles = [ @2 ]; } );\n", load, roles);
}

static void drop_router(void *arg)
{
    struct sim_cluster *c = arg;
    struct pd_err err;
    assert_int_equal(sim_node_reload(&c->nodes[0], roles_text("", "\"decode\""), &err), PD_OK);
    /* It still ends its request, so it cannot come again yet. */
    assert_int_equal(sim_node_reload(&c->nodes[0], roles_text("\"router\",", "\"decode\""), &err), PD_EBUSY);
}

static void test_roles(void **state)
{
    static struct sim_answer a;
    struct sim_cluster c;
    struct pd_err err;
    (void)state;
    sim_cluster_init(&c, 4, NULL);
    struct sim_node *n = sim_node_start(&c, "node", roles_text("", "\"decode\""));
    assert_null(n->node->sched);
    assert_int_equal(sim_node_reload(n, roles_text("\"router\",", "\"decode\""), &err), PD_OK);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    ask(&c, 8000);
    assert_true(pd_node_is_ready(n->node, NULL));
    pd_sim_at(c.sim, pd_sim_now(c.sim) + 50 * PD_MS, drop_router, &c);
    ask(&c, 8000);
    settled(&c);
    assert_true(pd_node_is_ready(n->node, NULL));
    sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 20 * PD_SEC, &a);
    assert_int_equal(a.status, 404);
    if (sim_node_reload(n, roles_text("\"router\", \"prefill\",", "\"decode\", \"prefill\""), &err) != PD_OK)
        fail_msg("%s", err.text);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    ask(&c, 8000);
    settled(&c);
    sim_cluster_fini(&c);
}

static void test_listeners(void **state)
{
    static struct sim_answer a;
    struct sim_cluster c;
    struct pd_err err;
    (void)state;
    cluster_start(&c, 5);
    struct sim_node *r = &c.nodes[0];
    const char *more = "{ address = \"0.0.0.0:8100\"; api = \"openai\"; },";
    assert_int_equal(sim_node_reload(r, router_text("", more), &err), PD_OK);
    ask(&c, 8100);
    ask(&c, 8000);
    assert_int_equal(sim_node_reload(r, router_text("", ""), &err), PD_OK);
    ask(&c, 8000);
    sim_post(&c, "10.0.0.1", 8100, "/v1/chat/completions", body_story, 5 * PD_SEC, &a);
    assert_int_equal(a.status, 0);
    /* An address that is taken: nothing has changed. */
    assert_int_equal(sim_node_reload(r, router_text("", "{ address = \"0.0.0.0:8101\"; api = \"openai\"; },"
                                                        "{ address = \"10.0.0.77:1\"; api = \"openai\"; },"),
                                     &err), PD_EINVAL);
    sim_post(&c, "10.0.0.1", 8101, "/v1/chat/completions", body_story, 5 * PD_SEC, &a);
    assert_int_equal(a.status, 0);
    ask(&c, 8000);
    settled(&c);
    sim_cluster_fini(&c);
}

/* ---- the limit --------------------------------------------------------------------------------- */

#define SLOW "ms_per_token = 100.0;"

struct overdue {
    struct sim_cluster *c;
    const char *text;
    uint32_t node;
};

static void overdue_now(void *arg)
{
    struct overdue *o = arg;
    struct sim_node *n = &o->c->nodes[o->node];
    struct pd_err err;
    assert_int_equal(n->node->generation->holds, 1);
    if (sim_node_reload(n, o->text, &err) != PD_OK)
        fail_msg("%s", err.text);
    /* Another one behind it does not put the end of the first off. */
    assert_int_equal(sim_node_reload(n, o->text, &err), PD_OK);
}

/* A request of 24 tokens takes 2.4 s; the node takes another configuration after
 * half a second. */
static pd_time overdue_ask(struct sim_cluster *c, struct overdue *o, const char *body, struct sim_answer *a)
{
    pd_time begin = pd_sim_now(c->sim);
    o->c = c;
    pd_sim_at(c->sim, begin + 500 * PD_MS, overdue_now, o);
    sim_post(c, "10.0.0.1", 8000, "/v1/chat/completions", body, 60 * PD_SEC, a);
    return pd_sim_now(c->sim) - begin;
}

static void overdue_start(struct sim_cluster *c, uint64_t seed)
{
    sim_cluster_init(c, seed, NULL);
    sim_node_start(c, "router", router_text("", ""));
    sim_node_start(c, "prefill", prefill_text(PREFILL_ENGINE));
    sim_node_start(c, "decode", decode_text(SLOW, ""));
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
}

static void test_overdue(void **state)
{
    static struct sim_answer a;
    static char stream[1024];
    struct sim_cluster c;
    (void)state;
    snprintf(stream, sizeof stream, "{\"stream\":true,%s", body_story + 1);
    /* Within the limit nothing is ended. */
    overdue_start(&c, 700);
    struct sim_node *r = &c.nodes[0], *d = &c.nodes[2];
    struct overdue router = { .node = 0, .text = router_text("reload_drain = \"10s\";", "") };
    overdue_ask(&c, &router, body_story, &a);
    answer_check(&a);
    settled(&c);
    assert_true(metric(r, "pdplane_generation_requests_ended_total") == 0);
    /* Above it, a request ends with an error, a stream without [DONE]. */
    router.text = router_text("reload_drain = \"300ms\";", "");
    assert_in_range(overdue_ask(&c, &router, body_story, &a), 790 * PD_MS, 900 * PD_MS);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "the configuration of this request has ended"));
    assert_true(metric(r, "pdplane_generation_requests_ended_total") == 1);
    overdue_ask(&c, &router, stream, &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "\"error\":{"));
    assert_null(strstr(a.body, "[DONE]"));
    assert_true(metric(r, "pdplane_generation_requests_ended_total") == 2);
    settled(&c);
    /* What a decode node ends goes on elsewhere, here with its new engine. */
    struct pd_node_engine_unit *engine = d->node->engines[0];
    struct overdue decode = { .node = 2, .text = decode_text("ms_per_token = 5.0;", "reload_drain = \"300ms\";") };
    assert_true(overdue_ask(&c, &decode, body_story, &a) < 2 * PD_SEC);
    answer_check(&a);
    assert_true(metric(d, "pdplane_generation_requests_ended_total") == 1);
    assert_ptr_not_equal(d->node->engines[0], engine);
    settled(&c);
    sim_cluster_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_stays),
        cmocka_unit_test(test_unchanged),
        cmocka_unit_test(test_changed_engines),
        cmocka_unit_test(test_changed_options),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_exporters),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_listeners),
        cmocka_unit_test(test_overdue),
    };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
