/* SPDX-License-Identifier: Apache-2.0 */
/* The start of a node that has a bit of everything, with its n-th allocation failing, or
 * the n-th operation that its loop is asked for, for n = 1, 2 ... until it needs fewer.
 * Either the node says why it does not start and leaves nothing behind, or it starts and
 * serves. */
#include "unit.h"

#include "base/mem.h"
#include "sim_nodes.h"

#define MODEL "contrib/tinymodel/tiny.gguf"
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP 23u
#define OFTEN 23u
#else
/* Where nodes start nevertheless, not each is tried but the last ones, of a node that
 * runs; with PD_SWEEP=all it is. */
#define STEP 1u
#define OFTEN 3u
#endif

#define LAST 30u

static char all_conf[4096], other_conf[2048], alone_conf[2048];

static const char body[] = "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":4,\"prompt\":\"Once upon a time\"}";

static int setup(void **state)
{
    const char *src = getenv("PD_SRCDIR");
    src = src != NULL ? src : ".";
    (void)state;
    snprintf(all_conf, sizeof all_conf,
             "load = [ \"router\", \"decode\", \"ref\", \"tcp\", \"openai\", \"dns\", \"prometheus\",\n"
             "         \"role\", \"health\", \"prefix_cache\", \"load_aware\", \"max_score\", \"pd_threshold\" ];\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; },\n"
             "           { address = \"0.0.0.0:9000\"; api = \"admin\"; },\n"
             "           { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "peers = ( { address = \"10.0.0.1:7000\"; } );\n"
             "endpoints = ( { name = \"a\"; type = \"openai\"; url = \"http://10.0.0.9:1\"; models = [ \"x\" ]; } );\n"
             "discovery = ( { name = \"s\"; type = \"dns\"; peer = \"nodes.svc:7000\"; networks = [ \"10.0.0.0/8\" ]; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"1m\";\n"
             "             roles = [ \"decode\" ]; } );\n", src);
    snprintf(other_conf, sizeof other_conf,
             "load = [ \"prefill\", \"ref\", \"tcp\" ];\n"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"1m\";\n"
             "             roles = [ \"prefill\" ]; } );\n", src);
    snprintf(alone_conf, sizeof alone_conf,
             "load = [ \"router\", \"prefill\", \"decode\", \"ref\", \"tcp\" ];\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
             "engine = ( { name = \"p\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"1m\";\n"
             "             roles = [ \"prefill\" ]; },\n"
             "           { name = \"d\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"1m\";\n"
             "             roles = [ \"decode\" ]; } );\n", src, src);
    return 0;
}

struct fault {
    struct pd_sim *sim;
    bool is_memory;
    uint64_t n, from;
};

static uint64_t counted(const struct fault *f)
{
    return f->is_memory ? pd_mem_count() : pd_sim_operations(f->sim);
}

static void set(const struct fault *f, uint64_t n)
{
    if (f->is_memory)
        pd_mem_fault_set(n);
    else
        pd_sim_refuse(f->sim, n);
}

static void arm(void *arg)
{
    struct fault *f = arg;
    f->from = counted(f);
    set(f, f->n);
}

struct tally {
    uint32_t refused, served;
};

/* used: how many were counted until the node had found its peer.  Whether it started. */
static bool once(const char *conf, uint64_t n, bool is_memory, struct tally *tally, uint64_t *used)
{
    static struct sim_answer a;
    struct sim_cluster c;
    struct sim_node *node;
    struct pd_err err;
    sim_cluster_init(&c, n, NULL);
    sim_node_start(&c, "other", other_conf);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    struct fault f = { .sim = c.sim, .is_memory = is_memory, .n = n };
    pd_status status = sim_node_try(&c, "all", conf, arm, &f, &node, &err);
    if (n == 0 && status != PD_OK)
        fail_msg("%s", err.text);
    if (status != PD_OK) {
        set(&f, 0);
        tally->refused++;
        if (err.text[0] == '\0')
            fail_msg("number %llu: no reason is given", (unsigned long long)n);
        sim_cluster_fini(&c);
        return false;
    }
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 2 * PD_SEC);
    set(&f, 0);
    *used = counted(&f) - f.from;
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 20 * PD_SEC);
    sim_post(&c, "10.0.0.2", 8000, "/v1/completions", body, 60 * PD_SEC, &a);
    if (a.status != 200)
        fprintf(stderr, "# number %llu: status %u: %s\n", (unsigned long long)n, a.status, a.body);
    assert_int_equal(a.status, 200);
    tally->served++;
    sim_cluster_fini(&c);
    return true;
}

static void sweep(const char *conf, bool is_memory)
{
    struct tally tally = { 0, 0 };
    uint64_t n = 0, used;
    bool is_all = getenv("PD_SWEEP") != NULL;
    assert_true(once(conf, 0, is_memory, &tally, &n));
    for (uint64_t i = 1; i <= n;) {
        uint64_t step = once(conf, i, is_memory, &tally, &used) ? OFTEN : STEP;
        i += is_all || i + LAST > n ? 1 : step;
    }
    fprintf(stderr, "# of %llu: %u refused, %u served\n", (unsigned long long)n, tally.refused, tally.served);
    assert_true(tally.refused > 0 && tally.served > 1);
}

static void test_without_memory(void **state)
{
    (void)state;
    sweep(all_conf, true);
}

/* Nobody else speaks to it, and nothing happens but its own heartbeat. */
static void test_alone(void **state)
{
    (void)state;
    sweep(alone_conf, true);
}

static void test_without_operation(void **state)
{
    (void)state;
    sweep(all_conf, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_without_memory),
                                        cmocka_unit_test(test_without_operation), cmocka_unit_test(test_alone) };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, setup, NULL);
}
