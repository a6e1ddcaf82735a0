/* SPDX-License-Identifier: Apache-2.0 */
/* One request through router, prefill and decode node with the N-th allocation
 * of the core failing, or the N-th operation that a loop is asked for, for many N: nothing crashes
 * or leaks, the client gets the right text or an honest failure, and the next request is
 * served as if nothing had been.  PD_SWEEP=all takes each N of the first request. */
#include "unit.h"

#include "base/mem.h"
#include "sim_nodes.h"

#define MODEL "contrib/tinymodel/tiny.gguf"
#if defined(__SANITIZE_ADDRESS__)
#define POINTS 40u
#else
#define POINTS 400u
#endif

static char router_conf[1024], decode_conf[2048], prefill_conf[2048];

static const char plain[] =
    "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":6,\"messages\":[{\"role\":\"user\","
    "\"content\":\"Repeat these words: lion, lamp, river, honey, silver, goat, train.\"}]}";
static const char stream[] =
    "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":6,\"stream\":true,\"messages\":[{\"role\":\"user\","
    "\"content\":\"Repeat these words: lion, lamp, river, honey, silver, goat, train.\"}]}";

static int setup(void **state)
{
    const char *src = getenv("PD_SRCDIR");
    (void)state;
    snprintf(router_conf, sizeof router_conf,
             "load = [ \"router\" ];\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; },\n"
             "           { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "peers = ( { address = \"10.0.0.2:7000\"; }, { address = \"10.0.0.3:7000\"; } );\n");
    snprintf(decode_conf, sizeof decode_conf,
             "load = [ \"decode\", \"ref\", \"tcp\" ];\n"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"2m\";\n"
             "             roles = [ \"decode\" ]; ms_per_token = 1.0; } );\n",
             src != NULL ? src : ".");
    snprintf(prefill_conf, sizeof prefill_conf,
             "load = [ \"prefill\", \"ref\", \"tcp\" ];\n"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"2m\";\n"
             "             roles = [ \"prefill\" ]; step_tokens = 16; } );\n",
             src != NULL ? src : ".");
    return 0;
}

static void start(struct sim_cluster *c, bool has_prefill)
{
    sim_cluster_init(c, 3, NULL);
    sim_node_start(c, "router", router_conf);
    sim_node_start(c, "decode", decode_conf);
    if (has_prefill)
        sim_node_start(c, "prefill", prefill_conf);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
}

/* The text of an answer, whatever its form: the contents one behind the other. */
static void text_of(const struct sim_answer *a, char *out, size_t size)
{
    static const char mark[] = "\"content\":\"";
    size_t n = 0;
    for (const char *p = a->body; (p = strstr(p, mark)) != NULL;) {
        for (p += sizeof mark - 1; *p != '\0' && *p != '"' && n + 1 < size; p++)
            out[n++] = *p;
    }
    out[n] = '\0';
}

static bool is_whole(const struct sim_answer *a, bool is_stream)
{
    return a->error == PD_OK && (!is_stream || strstr(a->body, "data: [DONE]") != NULL);
}

/* What a client may make of it; the text is never wrong. */
static void judge(const struct sim_answer *a, bool is_stream, const char *want, uint64_t n)
{
    static char text[65536];
    bool is_good = a->is_over;
    text_of(a, text, sizeof text);
    if (a->status == 200) {
        is_good &= strncmp(text, want, strlen(text)) == 0;
        if (is_whole(a, is_stream))
            is_good &= strcmp(text, want) == 0 && strstr(a->body, "\"error\"") == NULL;
        else    /* the connection may be cut between its last event and its end */
            is_good &= strstr(a->body, "[DONE]") == NULL || strcmp(text, want) == 0;
    } else {
        /* No status: the connection was cut before an answer. */
        is_good &= a->status == 0 ? a->error != PD_OK : a->status == 429 || a->status >= 500;
        is_good &= a->status == 0 || a->error != PD_OK || strstr(a->body, "\"error\"") != NULL;
    }
    if (!is_good)
        fprintf(stderr, "# number %llu: over %d, status %u, error %d: %s\n", (unsigned long long)n, a->is_over,
                a->status, (int)a->error, a->body);
    assert_true(is_good);
}

/* What fails: an allocation, or an operation of a loop. */
enum kind { MEMORY, OPERATION };
static enum kind kind;

struct arm {
    struct pd_sim *sim;
    uint64_t n;
    uint64_t from;
};

static uint64_t counted(const struct pd_sim *sim)
{
    return kind == MEMORY ? pd_mem_count() : pd_sim_operations(sim);
}

static void set_fault(struct pd_sim *sim, uint64_t n)
{
    if (kind == MEMORY)
        pd_mem_fault_set(n);
    else
        pd_sim_refuse(sim, n);
}

static void arm(void *arg)
{
    struct arm *a = arg;
    a->from = counted(a->sim);
    set_fault(a->sim, a->n);
}

static void check_free(struct sim_node *n)
{
    struct pd_engine_load load = { .size = sizeof load };
    n->node->engines[0]->e.ops->load(n->node->engines[0]->e.engine, &load);
    assert_int_equal(load.running + load.waiting, 0);
    assert_int_equal(load.blocks_free, load.blocks_total);
}

/* One request with the n-th failing (0: none); what the client does
 * before the connection is not meant, hence the delay. */
static uint64_t once(struct sim_cluster *c, const char *body, bool is_stream, uint64_t n, const char *want,
                     struct sim_answer *a)
{
    struct arm f = { .sim = c->sim, .n = n };
    pd_sim_at(c->sim, pd_sim_now(c->sim) + 1, arm, &f);
    sim_post(c, "10.0.0.1", 8000, "/v1/chat/completions", body, 60 * PD_SEC, a);
    uint64_t used = counted(c->sim) - f.from;
    set_fault(c->sim, 0);
    if (want != NULL)
        judge(a, is_stream, want, n);
    return used;
}

struct tally {
    uint32_t whole, refused, cut;
};

/* The n-th fails, then a request without a fault must be served. */
static void fail_at(struct sim_cluster *c, const char *body, bool is_stream, uint64_t n, const char *want,
                    struct tally *tally)
{
    static struct sim_answer a;
    static char text[65536];
    once(c, body, is_stream, n, want, &a);
    tally->whole += a.status == 200 && is_whole(&a, is_stream);
    tally->refused += a.status >= 400;
    tally->cut += a.status == 0 || (a.status == 200 && !is_whole(&a, is_stream));
    /* A link that was lost for want of memory comes back. */
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 20 * PD_SEC);
    once(c, body, is_stream, 0, NULL, &a);
    text_of(&a, text, sizeof text);
    if (a.status != 200 || strcmp(text, want) != 0)
        fprintf(stderr, "# after number %llu: status %u: %s\n", (unsigned long long)n, a.status, a.body);
    assert_int_equal(a.status, 200);
    assert_true(is_whole(&a, is_stream));
    assert_string_equal(text, want);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
    for (uint32_t i = 1; i < c->n; i++)
        check_free(&c->nodes[i]);
}

/* The first request of fresh nodes, where every buffer grows, and a later one,
 * where few do. */
static void fail_each(const char *body, bool is_stream, bool has_prefill)
{
    static struct sim_answer a;
    static char want[65536];
    struct sim_cluster c;
    struct tally tally = { 0, 0, 0 };
    start(&c, has_prefill);
    uint64_t cold = once(&c, body, is_stream, 0, NULL, &a);
    assert_int_equal(a.status, 200);
    assert_true(is_whole(&a, is_stream));
    text_of(&a, want, sizeof want);
    assert_true(want[0] != '\0');
    double moved = 0;
    pd_metrics_read(c.nodes[1].node->metrics, "pdplane_decode_handovers_valid_total", NULL, &moved);
    assert_true((moved > 0) == has_prefill);
    uint64_t warm = once(&c, body, is_stream, 0, want, &a);
    assert_true(cold > warm && warm > 10);
    for (uint64_t n = 1; n <= warm; n++)
        fail_at(&c, body, is_stream, n, want, &tally);
    sim_cluster_fini(&c);
    uint64_t step = getenv("PD_SWEEP") != NULL ? 1 : cold / POINTS + 1;
    for (uint64_t n = 1; n <= cold; n += step) {
        start(&c, has_prefill);
        fail_at(&c, body, is_stream, n, want, &tally);
        sim_cluster_fini(&c);
    }
    fprintf(stderr, "# %llu, every %llu. failed, and each of %llu of a later request: %u answers whole, "
            "%u refused, %u cut\n", (unsigned long long)cold, (unsigned long long)step, (unsigned long long)warm,
            tally.whole, tally.refused, tally.cut);
    assert_true(tally.refused + tally.cut > 0 && tally.whole > 0);
}

static void test_plain(void **state)
{
    (void)state;
    kind = MEMORY;
    fail_each(plain, false, false);
}

static void test_stream(void **state)
{
    (void)state;
    kind = MEMORY;
    fail_each(stream, true, false);
}

static void test_handover(void **state)
{
    (void)state;
    kind = MEMORY;
    fail_each(plain, false, true);
}

static void test_operations(void **state)
{
    (void)state;
    kind = OPERATION;
    fail_each(plain, false, true);
    fail_each(stream, true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_plain), cmocka_unit_test(test_stream),
                                        cmocka_unit_test(test_handover), cmocka_unit_test(test_operations) };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, setup, NULL);
}
