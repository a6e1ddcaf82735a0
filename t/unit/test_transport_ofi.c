/* SPDX-License-Identifier: Apache-2.0 */
/* ofi over the real loop, by those of libfabric's providers that every host has. */
#include "transport_uv.h"

#include "ofi.h"

static bool poll;

static void run_case(void (*fn)(struct tr_env *e))
{
    struct pd_ofi_conf conf = { .provider = "tcp;ofi_rxm", .poll = poll,
                                .f = { .listen = "127.0.0.1:0", .queue = 1024, .windows = 4096,
                                       .connections = 256, .depth = 128, .frame = 1 << 20,
                                       .timeout = PD_SEC, .connect_timeout = 5 * PD_SEC,
                                       .keepalive = PD_SEC } };
    struct pd_ofi_conf tiny = conf;
    struct tr_env e;

    tiny.f.queue = 4;
    tiny.f.frame = 4096;
    tiny.f.depth = 2;
    uv_env(&e);
    /* To connect takes this provider some 40 ms. */
    e.scale = 20;
    e.ops = (const struct pd_transport_ops *)uv_unit("modules/transport/ofi/.libs/ofi.so")->ops;
    e.conf = &conf;
    e.conf_tiny = &tiny;
    fn(&e);
    uv_env_end(&e);
}

#define X(name)                                                                \
    static void test_##name(void **state)                                      \
    {                                                                          \
        poll = *(bool *)*state;                                                   \
        run_case(tr_case_##name);                                              \
    }
TRANSPORT_CASES(X)
TRANSPORT_KILL_CASES(X)
#undef X

/* What the library cannot find is told by name. */
static void unknown_case(struct tr_env *e)
{
    struct pd_ofi_conf conf = *(const struct pd_ofi_conf *)e->conf;
    struct pd_instance_ctx ctx = { .size = sizeof(ctx), .name = "test", .loop = e->la,
                                   .node = { .uuid = { { 1 } }, .epoch = 1 } };
    struct pd_transport *tp = NULL;
    struct pd_err err = { 0 };

    conf.provider = "nonesuch";
    assert_int_not_equal(e->ops->create(&ctx, &conf, &tp, &err), PD_OK);
    assert_non_null(strstr(err.text, "nonesuch"));
}

static void test_unknown(void **state)
{
    (void)state;
    run_case(unknown_case);
}

int main(void)
{
    static bool no = false, yes = true;
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test_prestate(test_##name, &no),
        TRANSPORT_CASES(X) TRANSPORT_KILL_CASES(X)
#undef X
        cmocka_unit_test(test_unknown),
#define X(name) { "poll_" #name, test_##name, NULL, NULL, &yes },
        X(sizes) X(many) X(close_while_writing) X(kill_owner) X(kill_poster)
#undef X
    };
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
