/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes in the simulator that use TLS for links, data, clients and a server behind them,
 * with keys and an identity that is kept: what they start with while an allocation,
 * an operation of the loop or a call of OpenSSL fails.  Either the node says why it does not
 * start and leaves nothing behind, or it starts and serves with a peer whose certificate
 * names it.  PD_SWEEP=all takes each fault, not one of several. */
#include "unit.h"

#include "tls_certs.h"
#include "wrap_ssl.h"

#include "base/mem.h"
#include "sim_nodes.h"

#include <unistd.h>

#define MODEL "contrib/tinymodel/tiny.gguf"

static char all_conf[8192], other_conf[4096], changed_conf[8192];

static const char body[] = "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":4,\"prompt\":\"Once upon a time\"}";

static void all_text(char *out, size_t size, const char *certificate, const char *keys)
{
    const char *src = getenv("PD_SRCDIR");
    char tls[1024];
    (void)snprintf(tls, sizeof tls, "tls = { certificate = \"%s/%s.pem\"; key = \"%s/%s.key\"; ca = \"%s/ca.pem\"; };",
                   folder, certificate, folder, certificate, folder);
    (void)snprintf(out, size,
                   "load = [ \"router\", \"decode\", \"ref\", \"tcp\", \"openai\" ];\n"
                   "node = { state = \"%s/state\"; };\n"
                   "link = { %s };\n"
                   "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; },\n"
                   "           { address = \"0.0.0.0:8443\"; api = \"openai\"; %s %s },\n"
                   "           { address = \"0.0.0.0:9000\"; api = \"admin\"; %s },\n"
                   "           { address = \"0.0.0.0:7000\"; api = \"peer\"; advertise = \"10.0.0.2:7000\"; } );\n"
                   "peers = ( { address = \"10.0.0.1:7000\"; } );\n"
                   "endpoints = ( { name = \"a\"; type = \"openai\"; url = \"https://10.0.0.9:1\"; models = [ \"x\" ];\n"
                   "                tls = { ca = \"%s/ca.pem\"; name = \"localhost\"; }; } );\n"
                   "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"1m\";\n"
                   "             roles = [ \"decode\" ]; } );\n",
                   folder, tls, tls, keys, tls, folder, src != NULL ? src : ".");
}

static int setup(void **state)
{
    const char *src = getenv("PD_SRCDIR");
    char keys[256];
    if (make_certificates(state) != 0)
        return -1;
    shell("printf 'sha256:41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb me\\n' >keys; "
          "chmod 600 keys; cp server.pem more.pem; cp server.key more.key");
    (void)snprintf(keys, sizeof keys, "api_keys_file = \"%s/keys\";", folder);
    all_text(all_conf, sizeof all_conf, "server", keys);
    all_text(changed_conf, sizeof changed_conf, "server", "");
    (void)snprintf(other_conf, sizeof other_conf,
                   "load = [ \"prefill\", \"ref\", \"tcp\" ];\n"
                   "link = { tls = { certificate = \"%s/more.pem\"; key = \"%s/more.key\"; ca = \"%s/ca.pem\"; }; };\n"
                   "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
                   "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"1m\";\n"
                   "             roles = [ \"prefill\" ]; } );\n", folder, folder, folder, src != NULL ? src : ".");
    return 0;
}

enum kind { MEMORY, OPERATION, CALL };

struct fault {
    struct pd_sim *sim;
    enum kind kind;
    uint64_t n, from;
};

static void set(const struct fault *f, uint64_t n)
{
    if (f->kind == MEMORY)
        pd_mem_fault_set(n);
    else if (f->kind == OPERATION)
        pd_sim_refuse(f->sim, n);
    else
        wrap_ssl_arm(n);
}

static uint64_t counted(const struct fault *f)
{
    const char *failed;
    return f->kind == MEMORY ? pd_mem_count() : f->kind == OPERATION ? pd_sim_operations(f->sim) : wrap_ssl_disarm(&failed);
}

static void arm(void *arg)
{
    struct fault *f = arg;
    f->from = f->kind == CALL ? 0 : counted(f);
    set(f, f->n);
}

struct tally {
    uint32_t refused, served;
};

static void serve_one(struct sim_cluster *c, uint64_t n)
{
    static struct sim_answer a;
    sim_post(c, "10.0.0.2", 8000, "/v1/completions", body, 60 * PD_SEC, &a);
    if (a.status != 200)
        fprintf(stderr, "# number %llu: status %u: %s\n", (unsigned long long)n, a.status, a.body);
    assert_int_equal(a.status, 200);
}

/* Not by the gauge of them: a node goes on without an instrument that it has no memory for. */
static uint32_t peers_up(struct pd_peers *peers)
{
    const struct pd_peer_api *api = pd_peer_table();
    struct pd_peer_info info = { .size = sizeof info };
    uint32_t n = 0;
    for (pd_peer_ref p = api->next(peers, 0); p != 0; p = api->next(peers, p))
        n += api->info(peers, p, &info) == PD_OK && info.state == PD_PEER_UP && p != api->self(peers);
    return n;
}

static bool once(uint64_t n, enum kind kind, struct tally *tally, uint64_t *used)
{
    struct sim_cluster c;
    struct sim_node *node;
    struct pd_err err;
    shell("rm -rf state");
    sim_cluster_init(&c, n, NULL);
    sim_node_start(&c, "other", other_conf);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    struct fault f = { .sim = c.sim, .kind = kind, .n = n };
    pd_status status = sim_node_try(&c, "all", all_conf, arm, &f, &node, &err);
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
    *used = counted(&f) - f.from;
    set(&f, 0);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 20 * PD_SEC);
    serve_one(&c, n);
    if (peers_up(node->node->peers) != 1)
        fail_msg("number %llu: the link to the other node is not up", (unsigned long long)n);
    tally->served++;
    sim_cluster_fini(&c);
    return true;
}

static void sweep(enum kind kind, uint64_t step, uint64_t often)
{
    struct tally tally = { 0, 0 };
    uint64_t n = 0, used;
    bool is_all = getenv("PD_SWEEP") != NULL;
    assert_true(once(0, kind, &tally, &n));
    for (uint64_t i = 1; i <= n;)
        i += once(i, kind, &tally, &used) ? (is_all ? 1 : often) : (is_all ? 1 : step);
    fprintf(stderr, "# of %llu: %u refused, %u served\n", (unsigned long long)n, tally.refused, tally.served);
    assert_true(tally.refused > 0 && tally.served > 1);
}

static void test_without_memory(void **state)
{
    (void)state;
    sweep(MEMORY, 29, 61);
}

static void test_without_operation(void **state)
{
    (void)state;
    sweep(OPERATION, 7, 31);
}

static void test_without_call(void **state)
{
    (void)state;
    sweep(CALL, 11, 17);
}

/* ---- files that are wrong, and a reload that takes keys away -------------------------- */

static void test_files(void **state)
{
    static const struct {
        const char *spoil, *says;
    } rows[] = {
        { "echo nonsense >keys", "keys" },
        { "chmod 644 server.key", "0640" },
        { "echo nonsense >server.pem", "server.pem" },
        { "rm ca.pem", "ca.pem" },
        { "mkdir -p state; echo nonsense >state/node.id", "identity" },
        { "rm -rf state; echo >state", "state" },
    };
    (void)state;
    shell("mkdir good; cp *.pem *.key keys good");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sim_cluster c;
        struct sim_node *node;
        struct pd_err err;
        shell("rm -rf state; cp good/* .; chmod 600 server.key keys");
        shell(rows[i].spoil);
        sim_cluster_init(&c, 1, NULL);
        sim_node_start(&c, "spare", "load = [ \"router\" ];\n"
                                    "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n");
        assert_int_not_equal(sim_node_try(&c, "all", all_conf, NULL, NULL, &node, &err), PD_OK);
        if (strstr(err.text, rows[i].says) == NULL)
            fail_msg("\"%s\" says: %s", rows[i].spoil, err.text);
        sim_cluster_fini(&c);
    }
    shell("rm -rf state; cp good/* .; chmod 600 server.key keys");
}

static void test_reload(void **state)
{
    struct sim_cluster c;
    struct sim_node *node;
    struct pd_err err;
    struct pd_uuid id;
    (void)state;
    shell("rm -rf state");
    for (int life = 0; life < 2; life++) {
        sim_cluster_init(&c, 3, NULL);
        sim_node_start(&c, "other", other_conf);
        node = sim_node_start(&c, "all", all_conf);
        /* The identity is kept over lives. */
        if (life == 1)
            assert_memory_equal(&id, &node->node->id.uuid, sizeof id);
        id = node->node->id.uuid;
        pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 5 * PD_SEC);
        serve_one(&c, 0);
        assert_int_equal(sim_node_reload(node, changed_conf, &err), PD_OK);
        pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 5 * PD_SEC);
        serve_one(&c, 1);
        assert_int_equal(sim_node_reload(node, all_conf, &err), PD_OK);
        for (uint64_t n = 1; n < 400; n += getenv("PD_SWEEP") != NULL ? 1 : 37) {
            struct pd_conf *conf = sim_conf_read(node, n % 2 == 0 ? all_conf : changed_conf);
            assert_non_null(conf);
            memset(&err, 0, sizeof err);
            pd_mem_fault_set(n);
            pd_status st = pd_node_reload(node->node, conf, &err);
            pd_mem_fault_set(0);
            pd_conf_put(conf);
            assert_true(st == PD_OK || err.text[0] != '\0');
        }
        assert_int_equal(sim_node_reload(node, all_conf, &err), PD_OK);
        pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 5 * PD_SEC);
        serve_one(&c, 2);
        sim_cluster_fini(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_without_memory), cmocka_unit_test(test_without_operation),
                                        cmocka_unit_test(test_without_call), cmocka_unit_test(test_files),
                                        cmocka_unit_test(test_reload) };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, setup, remove_certificates);
}
