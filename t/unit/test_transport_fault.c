/* SPDX-License-Identifier: Apache-2.0 */
/* The transport with faults does what its options say, and nothing else. */
#include "transport_uv.h"

#include "tcp.h"

/* As in t/modules/fault.c. */
struct fault_conf {
    struct pd_tcp_conf tcp;
    uint32_t flip_every, truncate_every, drop_every, duplicate_every;
    uint64_t delay, seed;
    const char *probe;
};

struct fixture {
    struct tr_env e;
    struct fault_conf conf;
    struct tr_node a, b;
    struct tr_link link;
    struct tr_window w;
    struct pd_transport_target *t;
};

#define BYTES ((uint64_t)400000)

static void open_with(struct fixture *f, const struct fault_conf *faults)
{
    const struct pd_unit *unit = uv_unit("t/modules/.libs/tcp_fault.so");
    struct pd_segment all = { 0, BYTES };

    memset(f, 0, sizeof(*f));
    assert_int_equal(unit->conf_size, sizeof(struct fault_conf));
    uv_env(&f->e);
    f->e.ops = (const struct pd_transport_ops *)unit->ops;
    f->conf = *faults;
    f->conf.seed = 3;
    f->conf.tcp = (struct pd_tcp_conf){ .listen = "127.0.0.1:0", .lanes = 1, .queue = 1024,
                                        .windows = 16, .connections = 16, .frame = 65536,
                                        .timeout = 200 * PD_MS, .connect_timeout = PD_SEC,
                                        .keepalive = PD_SEC, .checksum = true };
    f->e.conf = f->e.conf_tiny = &f->conf;
    tr_node_open(&f->e, &f->a, f->e.la, 0xa1, 1, BYTES, &f->conf);
    tr_node_open(&f->e, &f->b, f->e.lb, 0xb2, 1, BYTES, &f->conf);
    tr_fill(f->b.base, BYTES, 1);
    tr_connect_up(&f->e, &f->link, &f->b, &f->a);
    tr_window_open(&f->w, &f->a, &f->b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    f->t = tr_target(&f->link, &f->w);
}

static void close_it(struct fixture *f)
{
    f->e.ops->target_close(f->t);
    tr_window_close(&f->e, &f->w);
    if (f->link.downs == 0)
        tr_disconnect(&f->e, &f->link, PD_DISCONNECT_DRAIN);
    tr_node_close(&f->e, &f->b);
    tr_node_close(&f->e, &f->a);
    uv_env_end(&f->e);
}

static void post_all(struct fixture *f, struct tr_post *post)
{
    struct pd_segment all = { 0, BYTES };

    assert_int_equal(tr_post(&f->b, f->t, post, 0, &all, 1), PD_OK);
    tr_wait_post(&f->e, post);
    f->e.pass(&f->e, 2 * PD_MS);
}

static uint32_t bits_changed(const struct fixture *f)
{
    uint32_t n = 0;

    for (uint64_t i = 0; i < BYTES; i++)
        n += (uint32_t)__builtin_popcount(f->a.base[i] ^ f->b.base[i]);
    return n;
}

static void flip(void **state)
{
    struct fault_conf c = { .flip_every = 3 };
    struct fixture f;
    struct tr_post post;

    (void)state;
    open_with(&f, &c);
    post_all(&f, &post);
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    assert_true(f.w.total == BYTES);
    assert_int_equal(bits_changed(&f), 2); /* frames 3 and 6 of 7 */
    assert_true(tr_stats(&f.a).corrupt == 0);
    close_it(&f);
}

static void truncate_it(void **state)
{
    struct fault_conf c = { .truncate_every = 7 };
    struct fixture f;
    struct tr_post post;

    (void)state;
    open_with(&f, &c);
    post_all(&f, &post);
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    assert_true(f.w.total < BYTES);
    close_it(&f);
}

static void drop(void **state)
{
    struct fault_conf c = { .drop_every = 4 };
    struct fixture f;
    struct tr_post post;

    (void)state;
    open_with(&f, &c);
    post_all(&f, &post);
    assert_int_equal(post.terminal, PD_TRANSFER_FAILED_UNFENCED);
    f.e.pass(&f.e, 10 * PD_MS);
    assert_int_equal(f.link.downs, 1);
    close_it(&f);
}

static void duplicate(void **state)
{
    struct fault_conf c = { .duplicate_every = 1 };
    struct fixture f;
    struct tr_post post;

    (void)state;
    open_with(&f, &c);
    for (int i = 0; i < 20; i++) {
        post_all(&f, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_OK);
        assert_true(post.bytes == BYTES);
        assert_true(f.w.total == BYTES);
        assert_int_equal(bits_changed(&f), 0);
    }
    assert_true(tr_stats(&f.a).bytes_in >= 2 * 20 * BYTES);
    close_it(&f);
}

static void delay(void **state)
{
    struct fault_conf c = { .delay = 20 * PD_MS };
    struct fixture f;
    struct tr_post post;
    struct pd_segment all = { 0, BYTES };
    pd_time begin;

    (void)state;
    open_with(&f, &c);
    begin = pd_loop_clock(f.e.la);
    for (int i = 0; i < 10; i++)
        post_all(&f, &post);
    assert_true(pd_loop_clock(f.e.la) - begin > 40 * PD_MS);
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    assert_int_equal(tr_post(&f.b, f.t, &post, 0, &all, 1), PD_OK);
    f.e.ops->cancel(post.transfer);
    tr_wait_post(&f.e, &post);
    assert_int_equal(post.terminal, PD_TRANSFER_CANCELED_FENCED);
    close_it(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flip),      cmocka_unit_test(truncate_it), cmocka_unit_test(drop),
        cmocka_unit_test(duplicate), cmocka_unit_test(delay),
    };
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
