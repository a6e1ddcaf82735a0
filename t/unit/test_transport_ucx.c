/* SPDX-License-Identifier: Apache-2.0 */
/* ucx over the real loop, by those of UCX's transports that every host has. */
#include "transport_uv.h"

#include <signal.h>

#include "ucx.h"

static const char *transports = "tcp";
static struct sigaction before[2];

static void run_case(void (*fn)(struct tr_env *e))
{
    struct pd_ucx_conf conf = { .transports = transports,
                                .f = { .listen = "127.0.0.1:0", .queue = 1024, .windows = 4096,
                                       .connections = 256, .depth = 128, .frame = 1 << 20,
                                       .timeout = PD_SEC, .connect_timeout = 5 * PD_SEC,
                                       .keepalive = PD_SEC } };
    struct pd_ucx_conf tiny = conf;
    struct tr_env e;

    tiny.f.queue = 4;
    tiny.f.frame = 4096;
    tiny.f.depth = 2;
    uv_env(&e);
    e.scale = 5;
    e.ops = (const struct pd_transport_ops *)uv_unit("modules/transport/ucx/.libs/ucx.so")->ops;
    e.conf = &conf;
    e.conf_tiny = &tiny;
    fn(&e);
    uv_env_end(&e);
}

#define X(name)                                                                \
    static void test_##name(void **state)                                      \
    {                                                                          \
        transports = *state;                                                   \
        run_case(tr_case_##name);                                              \
    }
TRANSPORT_CASES(X)
TRANSPORT_KILL_CASES(X)
#undef X

/* What the library cannot find is told by name. */
static void unknown_case(struct tr_env *e)
{
    struct pd_ucx_conf conf = *(const struct pd_ucx_conf *)e->conf;
    struct pd_instance_ctx ctx = { .size = sizeof(ctx), .name = "test", .loop = e->la,
                                   .node = { .uuid = { { 1 } }, .epoch = 1 } };
    struct pd_transport *tp = NULL;
    struct pd_err err = { 0 };

    conf.transports = "nonesuch";
    assert_int_not_equal(e->ops->create(&ctx, &conf, &tp, &err), PD_OK);
    assert_non_null(strstr(err.text, "nonesuch"));
}

static void test_unknown(void **state)
{
    (void)state;
    run_case(unknown_case);
}

/* UCX takes over signals when it is loaded; they are given back. */
static void signals_case(struct tr_env *e)
{
    struct sigaction now[2];
    struct tr_node n;

    tr_node_open(e, &n, e->la, 0xa1, 1, 4096, e->conf);
    assert_int_equal(sigaction(SIGSEGV, NULL, &now[0]), 0);
    assert_int_equal(sigaction(SIGBUS, NULL, &now[1]), 0);
    for (int i = 0; i < 2; i++)
        assert_ptr_equal(now[i].sa_sigaction, before[i].sa_sigaction);
    tr_node_close(e, &n);
}

static void test_signals(void **state)
{
    (void)state;
    assert_int_equal(sigaction(SIGSEGV, NULL, &before[0]), 0);
    assert_int_equal(sigaction(SIGBUS, NULL, &before[1]), 0);
    run_case(signals_case);
}

int main(void)
{
    static char tcp[] = "tcp", all[] = "tcp,sm,self";
    const struct CMUnitTest tests[] = {
        /* First, so that UCX is loaded inside of it. */
        cmocka_unit_test(test_signals),
#define X(name) cmocka_unit_test_prestate(test_##name, tcp),
        TRANSPORT_CASES(X) TRANSPORT_KILL_CASES(X)
#undef X
        cmocka_unit_test(test_unknown),
#define X(name) { "all_" #name, test_##name, NULL, NULL, all },
        X(sizes) X(many) X(close_while_writing) X(kill_owner) X(kill_poster)
#undef X
    };
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
