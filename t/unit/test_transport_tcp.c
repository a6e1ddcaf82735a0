/* SPDX-License-Identifier: Apache-2.0 */
/* tcp over the real loop: one lane, and three. */
#include "transport_uv.h"

#include <unistd.h>

#include "tcp.h"

static struct pd_tcp_conf conf_with(uint32_t lanes, uint32_t queue, uint64_t frame, bool checksum)
{
    struct pd_tcp_conf c = { .listen = "127.0.0.1:0", .lanes = lanes, .queue = queue,
                             .windows = 4096, .connections = 1024, .frame = frame,
                             .timeout = PD_SEC, .connect_timeout = 5 * PD_SEC,
                             .keepalive = 5 * PD_SEC, .checksum = checksum };
    return c;
}

static void run_case(void (*fn)(struct tr_env *e), uint32_t lanes, bool checksum)
{
    struct pd_tcp_conf conf = conf_with(lanes, 1024, 1 << 20, checksum);
    struct pd_tcp_conf tiny = conf_with(lanes, 4, 4096, checksum);
    struct tr_env e;

    uv_env(&e);
    e.ops = (const struct pd_transport_ops *)uv_unit("modules/transport/tcp/.libs/tcp.so")->ops;
    e.conf = &conf;
    e.conf_tiny = &tiny;
    fn(&e);
    uv_env_end(&e);
}

#define X(name)                                                                \
    static void one_##name(void **state)                                       \
    {                                                                          \
        (void)state;                                                           \
        run_case(tr_case_##name, 0, true);                                     \
    }                                                                          \
    static void three_##name(void **state)                                     \
    {                                                                          \
        (void)state;                                                           \
        run_case(tr_case_##name, 3, false);                                    \
    }
TRANSPORT_CASES(X)
TRANSPORT_KILL_CASES(X)
#undef X

static bool post_over(void *arg)
{
    return ((struct tr_post *)arg)->dones > 0;
}

/* This process sleeps for longer than its patience, and blames nobody.  What is under way
 * is with the kernel of the receiver: more than that has room for would be the kernel's to
 * give up, which knows that one of the ends slept, and not that both did. */
static void asleep_case(struct tr_env *e)
{
    struct pd_segment all = { 0, 32 << 10 };
    struct pd_transport_stats stats = { .size = sizeof(stats) };
    struct pd_loop_stats before, after;
    struct tr_node a, b;
    struct tr_link l;
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;

    tr_node_open(e, &a, e->la, 0xa1, 1, all.bytes, e->conf);
    tr_node_open(e, &b, e->lb, 0xb2, 1, all.bytes, e->conf);
    tr_connect_up(e, &l, &b, &a);
    tr_window_open(&w, &a, &b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&l, &w);
    assert_int_equal(tr_post(&b, t, &post, 0, &all, 1), PD_OK);
    pd_loop_stats_get(e->la, &before);
    e->pass(e, 0);
    pd_loop_stats_get(e->la, &after);
    assert_true(after.written_bytes - before.written_bytes > all.bytes);
    e->ops->stats(a.tp, &stats);
    assert_true(stats.bytes_in == 0 && post.dones == 0);
    usleep(1500000);
    assert_true(e->run(e, post_over, &post));
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    assert_int_equal(l.downs, 0);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    tr_disconnect(e, &l, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &b);
    tr_node_close(e, &a);
}

static void asleep(void **state)
{
    (void)state;
    run_case(asleep_case, 1, true);
}

static void options(void **state)
{
    const struct pd_unit *unit = uv_unit("modules/transport/tcp/.libs/tcp.so");
    struct pd_tcp_conf c = conf_with(0, 1, 4096, true);
    static const char *const bad[] = { "", "1.2.3.4", "1.2.3.4:", "1.2.3.4:70000", "host:1",
                                       "[::1]",
                                       "[::1", "1.2.3.4:1x", "::1:80" };
    static const char *const good[] = { "0.0.0.0:0", "[::]:9000", "127.0.0.1:65535" };
    struct pd_err err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        c.listen = bad[i];
        assert_int_equal(unit->check(&c, &err), PD_EINVAL);
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        c.listen = good[i];
        assert_int_equal(unit->check(&c, &err), PD_OK);
    }
    c.advertise = "10.0.0.1";
    assert_int_equal(unit->check(&c, &err), PD_OK);
    c.advertise = "2001:db8::1";
    assert_int_equal(unit->check(&c, &err), PD_OK);
    c.advertise = "somewhere";
    assert_int_equal(unit->check(&c, &err), PD_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(one_##name), cmocka_unit_test(three_##name),
        TRANSPORT_CASES(X) TRANSPORT_KILL_CASES(X)
#undef X
        cmocka_unit_test(options),
        cmocka_unit_test(asleep),
    };
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
