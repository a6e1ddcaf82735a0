/* SPDX-License-Identifier: Apache-2.0 */
/* Router, prefill and decode nodes in one process, on a virtual clock and a
 * simulated network: the same seed gives the same event log, and whatever fails
 * between the nodes, the client gets the text of a run without faults. */
#include "unit.h"

#include "sim_nodes.h"

#define MODEL "contrib/tinymodel/tiny.gguf"

static bool is_quiet;          /* of clusters that start */
static char router_conf[4096], prefill_conf[4096], decode_conf[4096];

static const char body_story[] =
    "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":24,\"logprobs\":true,\"top_logprobs\":2,"
    "\"messages\":[{\"role\":\"user\",\"content\":\"Repeat these words: lion, lamp, river, honey, "
    "silver, goat, train.\"}]}";

static const char text_story[] = "\"content\":\"Lion, lamp, river, honey, silver, goat, train.\"";

static int setup(void **state)
{
    const char *src = getenv("PD_SRCDIR");
    (void)state;
    snprintf(router_conf, sizeof router_conf,
             "load = [ \"router\" ];\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; },\n"
             "           { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "peers = ( { address = \"10.0.0.2:7000\"; }, { address = \"10.0.0.3:7000\"; } );\n");
    snprintf(prefill_conf, sizeof prefill_conf,
             "load = [ \"prefill\", \"ref\", \"tcp\" ];\n"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"4m\";\n"
             "             roles = [ \"prefill\" ]; step_tokens = 16; prefill_tokens_per_s = 2000; } );\n",
             src != NULL ? src : ".");
    snprintf(decode_conf, sizeof decode_conf,
             "load = [ \"decode\", \"ref\", \"tcp\" ];\n"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"4m\";\n"
             "             roles = [ \"decode\" ]; ms_per_token = 5.0; } );\n",
             src != NULL ? src : ".");
    return 0;
}

static void cluster_start(struct sim_cluster *c, uint64_t seed, const struct pd_sim_opts *opts)
{
    sim_cluster_init(c, seed, opts);
    c->is_quiet = is_quiet;
    sim_node_start(c, "router", router_conf);
    sim_node_start(c, "prefill", prefill_conf);
    sim_node_start(c, "decode", decode_conf);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
}

static double metric(struct sim_node *n, const char *name)
{
    double v = -1;
    pd_metrics_read(n->node->metrics, name, NULL, &v);
    return v;
}

/* The part of an answer that says what was computed: text and logprobs. */
static const char *choices(const struct sim_answer *a)
{
    const char *p = strstr(a->body, "\"choices\":");
    assert_non_null(p);
    return p;
}

static void run_once(uint64_t seed, uint64_t *hash, uint64_t *lines, char *answer, size_t size)
{
    static struct sim_answer a;
    struct sim_cluster c;
    cluster_start(&c, seed, NULL);
    sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 60 * PD_SEC, &a);
    assert_true(a.is_over);
    assert_int_equal(a.error, PD_OK);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, text_story));
    assert_true(metric(&c.nodes[2], "pdplane_decode_handovers_valid_total") == 1);
    snprintf(answer, size, "%s", choices(&a));
    sim_cluster_fini(&c);
    (void)hash;
    (void)lines;
}

static void hash_of(uint64_t seed, uint64_t *hash, uint64_t *lines)
{
    static struct sim_answer a;
    struct sim_cluster c;
    cluster_start(&c, seed, NULL);
    sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 60 * PD_SEC, &a);
    *hash = pd_sim_hash(c.sim);
    *lines = pd_sim_lines(c.sim);
    sim_cluster_fini(&c);
}

static void test_hands_over(void **state)
{
    static char first[65536], second[65536];
    uint64_t hash, lines;
    (void)state;
    run_once(1, &hash, &lines, first, sizeof first);
    run_once(2, &hash, &lines, second, sizeof second);
    /* Another network gives the same logits, and so do nodes that log nothing. */
    assert_string_equal(first, second);
    is_quiet = true;
    run_once(1, &hash, &lines, second, sizeof second);
    is_quiet = false;
    assert_string_equal(first, second);
}

static void test_same_seed_same_log(void **state)
{
    uint64_t hash[3], lines[3];
    (void)state;
    hash_of(7, &hash[0], &lines[0]);
    hash_of(7, &hash[1], &lines[1]);
    hash_of(8, &hash[2], &lines[2]);
    assert_true(hash[0] == hash[1]);
    assert_true(lines[0] == lines[1]);
    assert_true(lines[0] > 100);
    assert_true(hash[0] != hash[2]);
}

static void cluster_start_two(struct sim_cluster *c, uint64_t seed)
{
    char router[4096];
    snprintf(router, sizeof router, "%s", router_conf);
    char *end = strrchr(router, ')');
    assert_non_null(end);
    snprintf(end, sizeof router - (size_t)(end - router), ", { address = \"10.0.0.4:7000\"; } );\n");
    sim_cluster_init(c, seed, NULL);
    sim_node_start(c, "router", router);
    sim_node_start(c, "prefill", prefill_conf);
    sim_node_start(c, "decode", decode_conf);
    sim_node_start(c, "decode2", decode_conf);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
}

struct fault {
    struct sim_cluster *cluster;
    int kind;
};

static void fault_now(void *arg)
{
    struct fault *f = arg;
    struct sim_cluster *c = f->cluster;
    switch (f->kind) {
    case 0:
        sim_node_crash(&c->nodes[1], true);
        break;
    case 1:
        sim_node_crash(&c->nodes[1], false);
        break;
    case 2:
        pd_sim_partition(c->sim, "prefill", NULL, true);
        pd_sim_partition(c->sim, NULL, "prefill", true);
        break;
    case 3:
        pd_sim_reset(c->sim, "prefill", "decode");
        break;
    case 4:
        pd_sim_stop(c->nodes[1].loop, true);
        break;
    default:
        pd_sim_partition(c->sim, "prefill", "decode", true);
        break;
    }
}

/* Every fault of the prefill side, at many moments of a request: the text is
 * the same, no block and no lease is left. */
static void test_prefill_faults(void **state)
{
    static struct sim_answer a;
    static char expected[65536];
    uint64_t hash, lines;
    (void)state;
    run_once(1, &hash, &lines, expected, sizeof expected);
    for (int kind = 0; kind < 6; kind++) {
        for (pd_time at = 0; at < 24 * PD_MS; at += 3 * PD_MS) {
            struct sim_cluster c;
            uint64_t seed = 1000 + (uint64_t)kind * 100 + at / PD_MS;
            cluster_start(&c, seed, NULL);
            struct fault f = { &c, kind };
            pd_sim_at(c.sim, pd_sim_now(c.sim) + at, fault_now, &f);
            sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 60 * PD_SEC, &a);
            if (a.status != 200 || strcmp(choices(&a), expected) != 0)
                fprintf(stderr, "# fault %d at %llu ms, seed %llu: status %u: %s\n", kind,
                        (unsigned long long)(at / PD_MS), (unsigned long long)seed, a.status, a.body);
            assert_int_equal(a.status, 200);
            assert_string_equal(choices(&a), expected);
            pd_sim_heal(c.sim);
            if (kind == 4)
                pd_sim_stop(c.nodes[1].loop, false);
            pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 20 * PD_SEC);
            struct sim_node *d = &c.nodes[2];
            struct pd_engine_load load = { .size = sizeof load };
            d->node->engines[0]->e.ops->load(d->node->engines[0]->e.engine, &load);
            assert_int_equal(load.running + load.waiting, 0);
            assert_int_equal(load.blocks_free, load.blocks_total);
            assert_true(metric(d, "pdplane_kv_leases") == 0);
            sim_cluster_fini(&c);
        }
    }
}

struct decode_fault {
    struct sim_cluster *cluster;
    bool tell;
};

/* Hits the decode node that works. */
static void decode_fault_now(void *arg)
{
    struct decode_fault *f = arg;
    for (uint32_t i = 2; i < 4; i++) {
        struct sim_node *n = &f->cluster->nodes[i];
        struct pd_req_counts counts;
        if (n->node == NULL)
            continue;
        pd_reqs_counts(n->node->reqs, &counts);
        if (counts.outcome[PD_REQ_LIVE] > 0) {
            sim_node_crash(n, f->tell);
            return;
        }
    }
}

/* A decode node dies at any moment of an answer: another one goes on, and the
 * client cannot tell. */
static void decode_faults(const char *body, bool is_stream)
{
    static struct sim_answer a;
    static char expected[65536];
    uint32_t hits = 0;
    for (int round = -1; round < 30; round++) {
        struct sim_cluster c;
        cluster_start_two(&c, 500 + (uint64_t)(round + 1));
        struct decode_fault f = { &c, round % 2 == 0 };
        if (round >= 0)
            pd_sim_at(c.sim, pd_sim_now(c.sim) + (pd_time)round * 6 * PD_MS, decode_fault_now, &f);
        sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body, 60 * PD_SEC, &a);
        assert_int_equal(a.status, 200);
        if (is_stream) {
            /* Only the ids and times of two runs differ. */
            size_t out = 0;
            for (char *p = a.body; (p = strstr(p, "\"choices\":")) != NULL;) {
                char *end = strchr(p, '\n');
                memmove(a.body + out, p, (size_t)(end - p));
                out += (size_t)(end - p);
                p = end;
            }
            assert_non_null(strstr(a.body + out, "[DONE]"));
            a.body[out] = '\0';
        } else {
            *strstr(a.body, "\"usage\"") = '\0';
        }
        if (round < 0)
            snprintf(expected, sizeof expected, "%s", is_stream ? a.body : choices(&a));
        else
            assert_string_equal(is_stream ? a.body : choices(&a), expected);
        hits += c.nodes[2].node == NULL || c.nodes[3].node == NULL;
        sim_cluster_fini(&c);
    }
    assert_true(hits > 10);
}

static void test_decode_faults(void **state)
{
    (void)state;
    decode_faults(body_story, false);
}

static void test_decode_faults_stream(void **state)
{
    (void)state;
    decode_faults("{\"model\":\"tiny\",\"stream\":true,\"temperature\":0.8,\"seed\":11,\"max_tokens\":24,"
                  "\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about an owl and a lamp "
                  "and a fox and a kite that they found at the river.\"}]}", true);
}

/* ---- a node that dies again and again */

struct deaths {
    struct sim_cluster *cluster;
    uint32_t left;
    uint32_t n;
    bool is_due;
};

static void deaths_watch(struct deaths *d);

static void decode_back(void *arg)
{
    struct deaths *d = arg;
    sim_node_start(d->cluster, "decode", decode_conf);
    deaths_watch(d);
}

static void decode_dies(void *arg)
{
    struct deaths *d = arg;
    struct sim_cluster *c = d->cluster;
    sim_node_crash(&c->nodes[2], true);
    d->n++;
    d->is_due = false;
    assert_int_equal(pd_sim_at(c->sim, pd_sim_now(c->sim) + 200 * PD_MS, decode_back, d), PD_OK);
}

/* The request has come to the node: the node dies of it. */
static void on_decode_step(const struct pd_req *req, void *arg)
{
    struct deaths *d = arg;
    if (req->outcome != PD_REQ_LIVE || d->is_due || d->left == 0)
        return;
    d->left--;
    d->is_due = true;
    assert_int_equal(pd_sim_at(d->cluster->sim, pd_sim_now(d->cluster->sim), decode_dies, d), PD_OK);
}

static void deaths_watch(struct deaths *d)
{
    pd_reqs_watch(d->cluster->nodes[2].node->reqs, on_decode_step, d);
}

/* A request may lose its node as often as role.router.losses says, and no more. */
static void test_losses(void **state)
{
    static struct sim_answer a;
    static char expected[65536];
    uint64_t hash, lines;
    (void)state;
    run_once(1, &hash, &lines, expected, sizeof expected);
    *strstr(expected, "\"usage\"") = '\0';
    for (uint32_t times = 4; times <= 6; times++) {
        struct sim_cluster c;
        cluster_start(&c, 1200 + times, NULL);
        struct deaths d = { .cluster = &c, .left = times };
        deaths_watch(&d);
        sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 60 * PD_SEC, &a);
        assert_int_equal(d.n, times);
        if (times <= 5) {
            assert_int_equal(a.status, 200);
            *strstr(a.body, "\"usage\"") = '\0';
            assert_string_equal(choices(&a), expected);
        } else {
            assert_int_equal(a.status, 503);
            assert_non_null(strstr(a.body, "\"no_decode\""));
        }
        assert_true(metric(&c.nodes[0], "pdplane_router_retries_total") == (times <= 5 ? times : 5));
        /* The node that it left is not touched by what comes next. */
        pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
        sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 60 * PD_SEC, &a);
        assert_int_equal(a.status, 200);
        sim_cluster_fini(&c);
    }
}

static void links_reset(void *arg)
{
    struct sim_cluster *c = arg;
    pd_sim_reset(c->sim, "router", "decode");
    if (c->n > 3)
        pd_sim_reset(c->sim, "router", "decode2");
}

/* All connections between router and decode nodes break at any moment: the nodes
 * live, so the request waits for the first to be back and goes on. */
static void all_links_reset(void (*start)(struct sim_cluster *c, uint64_t seed), uint32_t rounds)
{
    static struct sim_answer a;
    static char expected[65536];
    uint64_t hash, lines;
    double waited = 0;
    run_once(1, &hash, &lines, expected, sizeof expected);
    *strstr(expected, "\"usage\"") = '\0';
    for (uint32_t round = 0; round < rounds; round++) {
        struct sim_cluster c;
        start(&c, 900 + round);
        pd_sim_at(c.sim, pd_sim_now(c.sim) + (pd_time)round * 8 * PD_MS, links_reset, &c);
        sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 60 * PD_SEC, &a);
        if (a.status != 200)
            fprintf(stderr, "# round %u: %s\n", round, a.body);
        assert_int_equal(a.status, 200);
        *strstr(a.body, "\"usage\"") = '\0';
        assert_string_equal(choices(&a), expected);
        waited += metric(&c.nodes[0], "pdplane_router_retries_total");
        sim_cluster_fini(&c);
    }
    assert_true(waited > rounds / 2);
}

static void start_one(struct sim_cluster *c, uint64_t seed)
{
    cluster_start(c, seed, NULL);
}

static void test_all_links_reset(void **state)
{
    (void)state;
    all_links_reset(start_one, 20);
    all_links_reset(cluster_start_two, 20);
}

/* Bytes that change on the way never decode. */
static void test_flipped_bytes(void **state)
{
    static struct sim_answer a;
    static char expected[65536];
    uint64_t hash, lines;
    (void)state;
    run_once(1, &hash, &lines, expected, sizeof expected);
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sim_cluster c;
        cluster_start(&c, seed, NULL);
        struct pd_sim_link link;
        assert_int_equal(pd_sim_link_get(c.sim, "prefill", "decode", &link), PD_OK);
        link.flip_ppm = 200000;
        assert_int_equal(pd_sim_link_set(c.sim, "prefill", "decode", &link), PD_OK);
        sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body_story, 60 * PD_SEC, &a);
        if (a.status != 200)
            fprintf(stderr, "# seed %llu: %s\n", (unsigned long long)seed, a.body);
        assert_int_equal(a.status, 200);
        assert_string_equal(choices(&a), expected);
        sim_cluster_fini(&c);
    }
}

static void test_many_at_once(void **state)
{
    static struct sim_answer a[16];
    static char expected[65536];
    const char *bodies[16];
    struct sim_cluster c;
    uint64_t hash, lines;
    (void)state;
    run_once(1, &hash, &lines, expected, sizeof expected);
    cluster_start(&c, 5, NULL);
    for (int i = 0; i < 16; i++)
        bodies[i] = body_story;
    sim_post_many(&c, "10.0.0.1", 8000, "/v1/chat/completions", bodies, 16, 60 * PD_SEC, a);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(a[i].status, 200);
        /* usage differs with the cache; text and logprobs do not */
        const char *end = strstr(expected, "\"usage\"");
        assert_memory_equal(choices(&a[i]), expected, (size_t)(end - expected));
    }
    sim_cluster_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hands_over),
        cmocka_unit_test(test_same_seed_same_log),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_prefill_faults),
        cmocka_unit_test(test_decode_faults),
        cmocka_unit_test(test_decode_faults_stream),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_all_links_reset),
    };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, setup, NULL);
}
