/* SPDX-License-Identifier: Apache-2.0 */
/* tcp over TLS: all cases of the contract.  With PD_BENCH set to a number of
 * MiB, also how fast that many go with and without TLS. */
#include "transport_uv.h"

#include <stdlib.h>
#include <unistd.h>

#include "mod/host.h"
#include "net/net.h"
#include "tcp.h"

static char folder[64];
static struct pd_net net;

static int make_certificates(void **state)
{
    static const char script[] =
        "umask 077; new() { f=$1; shift; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
        "-nodes -days 30 -keyout $f.key -out $f.pem -subj /CN=$f \"$@\" 2>err || { cat err; exit 1; }; }; "
        "new ca; new node -CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE "
        "-addext subjectAltName=DNS:node";
    char line[1024];

    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/pd-transport-tls-XXXXXX");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(line, sizeof(line), "cd %s && %s", folder, script);
    assert_int_equal(system(line), 0);
    return 0;
}

static int remove_certificates(void **state)
{
    char line[128];

    (void)state;
    (void)snprintf(line, sizeof(line), "rm -rf %s", folder);
    return system(line);
}

static struct pd_tls *context(struct pd_loop *loop, bool is_server)
{
    char certificate[96], key[96], ca[96];
    struct pd_tls_conf conf = { .is_server = is_server, .certificate = certificate, .key = key,
                                .ca = ca, .alpn = "pdplane-data" };
    struct pd_err err = { 0 };
    struct pd_tls *tls = NULL;

    (void)snprintf(certificate, sizeof(certificate), "%s/node.pem", folder);
    (void)snprintf(key, sizeof(key), "%s/node.key", folder);
    (void)snprintf(ca, sizeof(ca), "%s/ca.pem", folder);
    if (pd_tls_create(loop, NULL, &conf, &tls, &err) != PD_OK)
        fail_msg("%s", err.text);
    return tls;
}

static void contexts_on(struct pd_loop *loop)
{
    net.peer_in = context(loop, true);
    net.peer_out = context(loop, false);
}

/* In a child: what belongs to the parent's loop is of no use there. */
static struct pd_loop *new_loop(void)
{
    struct pd_loop *loop = uv_new_loop();

    contexts_on(loop);
    return loop;
}

static void env_open(struct tr_env *e, struct pd_host *host)
{
    const struct pd_unit *unit = uv_unit("modules/transport/tcp/.libs/tcp.so");
    const struct pd_module *module = NULL;
    Dl_info info;

    assert_int_not_equal(dladdr(unit, &info), 0);
    module = dlsym(dlopen(info.dli_fname, RTLD_NOW | RTLD_LOCAL), "pd_module");
    assert_non_null(module);
    *module->host = pd_host_api_table();
    pd_host_init(host);
    assert_int_equal(pd_host_register(host, PD_NET_TABLE, PD_NET_VERSION, pd_net_functions(), &net),
                     PD_OK);
    uv_env(e);
    e->ops = (const struct pd_transport_ops *)unit->ops;
    e->host = host;
    e->new_loop = new_loop;
    e->scale = 4;
    contexts_on(e->la);
}

static void env_close(struct tr_env *e)
{
    uint64_t streams = pd_tls_stats(net.peer_in)->streams + pd_tls_stats(net.peer_out)->streams;

    assert_int_equal(streams, 0);
    pd_tls_destroy(net.peer_in);
    pd_tls_destroy(net.peer_out);
    uv_env_end(e);
}

static struct pd_tcp_conf conf_with(uint32_t lanes, uint32_t queue, uint64_t frame, uint32_t tls)
{
    struct pd_tcp_conf c = { .listen = "127.0.0.1:0", .lanes = lanes, .queue = queue,
                             .windows = 4096, .connections = 1024, .frame = frame,
                             .timeout = PD_SEC, .connect_timeout = 5 * PD_SEC,
                             .keepalive = 5 * PD_SEC, .tls = tls };
    return c;
}

static void run_case(void (*fn)(struct tr_env *e), uint32_t lanes)
{
    struct pd_tcp_conf conf = conf_with(lanes, 1024, 1 << 20, PD_XP_TLS_REQUIRED);
    struct pd_tcp_conf tiny = conf_with(lanes, 4, 4096, PD_XP_TLS_REQUIRED);
    struct pd_host host;
    struct tr_env e;
    uint64_t handshakes;

    env_open(&e, &host);
    e.conf = &conf;
    e.conf_tiny = &tiny;
    fn(&e);
    handshakes = pd_tls_stats(net.peer_in)->ok + pd_tls_stats(net.peer_out)->ok;
    assert_true(handshakes > 0);
    env_close(&e);
}

#define X(name)                                                                \
    static void one_##name(void **state)                                       \
    {                                                                          \
        (void)state;                                                           \
        run_case(tr_case_##name, 1);                                           \
    }
TRANSPORT_CASES(X)
TRANSPORT_KILL_CASES(X)
#undef X

static double seconds_for(uint64_t mib, uint32_t lanes, uint32_t tls)
{
    struct pd_tcp_conf conf = conf_with(lanes, 1024, 1 << 20, tls);
    struct pd_segment all = { 0, 64 << 20 };
    struct pd_host host;
    struct tr_env e;
    struct tr_node a, b;
    struct tr_link l;
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;
    pd_time begin = 0, took;

    env_open(&e, &host);
    e.conf = e.conf_tiny = &conf;
    tr_node_open(&e, &a, e.la, 0xa1, 11, all.bytes, e.conf);
    tr_node_open(&e, &b, e.lb, 0xb2, 22, all.bytes, e.conf);
    tr_fill(b.base, b.bytes, 3);
    tr_connect_up(&e, &l, &b, &a);
    tr_window_open(&w, &a, &b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&l, &w);
    for (uint64_t done = 0; done <= mib; done += 64) {
        if (done <= 64)
            begin = pd_loop_clock(e.la);    /* the first is to warm up */
        assert_int_equal(tr_post(&b, t, &post, 0, &all, 1), PD_OK);
        tr_wait_post(&e, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_OK);
    }
    took = pd_loop_clock(e.la) - begin;
    assert_memory_equal(a.base, b.base, all.bytes);
    e.ops->target_close(t);
    tr_window_close(&e, &w);
    tr_disconnect(&e, &l, PD_DISCONNECT_DRAIN);
    tr_node_close(&e, &b);
    tr_node_close(&e, &a);
    env_close(&e);
    return (double)took / PD_SEC;
}

static void cost(void **state)
{
    const char *mib = getenv("PD_BENCH");
    uint64_t n = mib == NULL ? 0 : strtoull(mib, NULL, 10) / 64 * 64;

    (void)state;
    assert_true(n > 0);
    for (int round = 0; round < 3; round++) {
        double plain = seconds_for(n, 1, PD_XP_TLS_OFF), tls = seconds_for(n, 1, PD_XP_TLS_LINK);
        print_message("# %llu MiB, one lane, one thread for both nodes: clear %.2f GB/s, TLS %.2f GB/s, "
                      "ratio %.2f\n", (unsigned long long)n, (double)n * 1.048576e-3 / plain,
                      (double)n * 1.048576e-3 / tls, plain / tls);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(one_##name),
        TRANSPORT_CASES(X) TRANSPORT_KILL_CASES(X)
#undef X
    };
    const struct CMUnitTest figures[] = { cmocka_unit_test(cost) };
    const char *pattern = getenv("PD_TEST");

    if (system("openssl version >/dev/null 2>&1") != 0)
        return 77;
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    if (getenv("PD_BENCH") != NULL)
        return cmocka_run_group_tests(figures, make_certificates, remove_certificates);
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
