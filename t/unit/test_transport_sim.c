/* SPDX-License-Identifier: Apache-2.0 */
/* tcp over the simulator: all common cases on good and bad lines, faults of the
 * network, and chaos from seeds. */
#include "transport_uv.h"

#include "tcp.h"

#include "loop/sim.h"

struct sim_env {
    struct tr_env e;
    struct pd_sim *sim;
    struct pd_tcp_conf conf, tiny;
};

static bool sim_run(struct tr_env *e, bool (*cond)(void *arg), void *arg)
{
    struct pd_sim *sim = e->priv;

    return pd_sim_run_cond(sim, pd_sim_now(sim) + 120 * PD_SEC, cond, arg);
}

static void sim_pass(struct tr_env *e, pd_time ns)
{
    struct pd_sim *sim = e->priv;

    pd_sim_run_until(sim, pd_sim_now(sim) + ns);
}

static void sim_cut(struct tr_env *e, bool on)
{
    assert_int_equal(pd_sim_partition(e->priv, "a", "b", on), PD_OK);
    assert_int_equal(pd_sim_partition(e->priv, "b", "a", on), PD_OK);
}

static void env_open(struct sim_env *s, uint64_t seed, const struct pd_sim_opts *opts,
                     uint32_t lanes)
{
    struct pd_tcp_conf c = { .listen = "0.0.0.0:0", .lanes = lanes, .queue = 1024, .windows = 4096,
                             .connections = 1024, .frame = 1 << 20, .timeout = 5 * PD_SEC,
                             .connect_timeout = 5 * PD_SEC, .keepalive = 5 * PD_SEC,
                             .checksum = true };

    memset(s, 0, sizeof(*s));
    s->conf = s->tiny = c;
    s->tiny.queue = 4;
    s->tiny.frame = 4096;
    assert_int_equal(pd_sim_create(seed, opts, &s->sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(s->sim, "a", "10.0.0.1", &s->e.la), PD_OK);
    assert_int_equal(pd_sim_loop_create(s->sim, "b", "10.0.0.2", &s->e.lb), PD_OK);
    s->e.ops = (const struct pd_transport_ops *)uv_unit("modules/transport/tcp/.libs/tcp.so")->ops;
    s->e.conf = &s->conf;
    s->e.conf_tiny = &s->tiny;
    s->e.scale = 6;
    s->e.run = sim_run;
    s->e.pass = sim_pass;
    s->e.cut = sim_cut;
    s->e.priv = s->sim;
}

static void loop_end(struct pd_loop *l)
{
    char names[512] = "";

    if (pd_loop_destroy(l, names, sizeof(names)) != PD_OK)
        fail_msg("left open: %s", names);
}

static void env_close(struct sim_env *s)
{
    loop_end(s->e.lb);
    loop_end(s->e.la);
    assert_int_equal(pd_sim_destroy(s->sim), PD_OK);
}

static const struct pd_sim_opts good = { .whole_io = 1 };
static const struct pd_sim_opts odd = { .buffer_bytes = 3000, .segment_bytes = 1461 };
static const struct pd_sim_opts bad = { .link = { .latency_ns = 200 * PD_US, .jitter_ns = PD_MS,
                                                  .bytes_per_s = 2000000000, .loss_ppm = 5000,
                                                  .retransmit_ns = 3 * PD_MS } };

static void run_case(void (*fn)(struct tr_env *e), const struct pd_sim_opts *opts, uint32_t lanes,
                     uint32_t scale)
{
    struct sim_env s;

    env_open(&s, 7, opts, lanes);
    s.e.scale = scale;
    fn(&s.e);
    env_close(&s);
}

#define X(name)                                                                \
    static void good_##name(void **state)                                      \
    {                                                                          \
        (void)state;                                                           \
        run_case(tr_case_##name, &good, 0, 6);                                 \
    }                                                                          \
    static void bad_##name(void **state)                                       \
    {                                                                          \
        (void)state;                                                           \
        run_case(tr_case_##name, &bad, 2, 6);                                  \
    }
TRANSPORT_CASES(X)
TRANSPORT_CUT_CASES(X)
#undef X

/* Reads and writes of a few bytes each. */
static void small_pieces(void **state)
{
    (void)state;
    run_case(tr_case_segments, &odd, 1, 20);
    run_case(tr_case_again, &odd, 2, 20);
    run_case(tr_case_refused, &odd, 1, 20);
    run_case(tr_case_bounds, &odd, 1, 20);
    run_case(tr_case_close_while_writing, &odd, 1, 20);
    run_case(tr_case_read_stop, &odd, 3, 20);
}

static bool post_over(void *arg)
{
    return ((struct tr_post *)arg)->dones > 0;
}

/* A byte that the network changes is never taken for a good one. */
static void flipped(void **state)
{
    struct pd_segment all = { 0, 2 << 20 };
    uint32_t failed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct sim_env s;
        struct tr_node a, b;
        struct tr_link l;
        struct tr_window w;
        struct tr_post post;
        struct pd_transport_target *t;
        env_open(&s, seed, NULL, 1);
        tr_node_open(&s.e, &a, s.e.la, 0xa1, 1, all.bytes, &s.conf);
        tr_node_open(&s.e, &b, s.e.lb, 0xb2, 1, all.bytes, &s.conf);
        tr_fill(b.base, all.bytes, seed);
        tr_connect_up(&s.e, &l, &b, &a);
        tr_window_open(&w, &a, &b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
        t = tr_target(&l, &w);
        assert_int_equal(tr_post(&b, t, &post, 0, &all, 1), PD_OK);
        assert_int_equal(seed % 4 == 0 ? pd_sim_flip(s.sim, "a", "b", 1)
                                       : pd_sim_flip(s.sim, "b", "a", 1), PD_OK);
        assert_true(s.e.run(&s.e, post_over, &post));
        if (post.terminal == PD_TRANSFER_OK) {
            assert_memory_equal(a.base, b.base, all.bytes);
        } else {
            failed++;
            assert_true(tr_stats(&a).corrupt + tr_stats(&b).corrupt > 0 || l.downs > 0 ||
                        post.terminal == PD_TRANSFER_FAILED_UNFENCED);
        }
        assert_true(w.total <= all.bytes);
        s.e.ops->target_close(t);
        tr_window_close(&s.e, &w);
        s.e.pass(&s.e, PD_SEC);
        if (l.downs == 0)
            tr_disconnect(&s.e, &l, PD_DISCONNECT_DRAIN);
        tr_node_close(&s.e, &b);
        tr_node_close(&s.e, &a);
        env_close(&s);
    }
    assert_true(failed > 20);
}

/* A host that sleeps for less than the patience of the others loses nothing;
 * one that slept itself does not blame the others. */
static void asleep(void **state)
{
    struct pd_segment all = { 0, 4 << 20 };
    struct sim_env s;
    struct tr_node a, b;
    struct tr_link l;
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;

    (void)state;
    env_open(&s, 3, NULL, 2);
    tr_node_open(&s.e, &a, s.e.la, 0xa1, 1, all.bytes, &s.conf);
    tr_node_open(&s.e, &b, s.e.lb, 0xb2, 1, all.bytes, &s.conf);
    tr_fill(b.base, all.bytes, 4);
    tr_connect_up(&s.e, &l, &b, &a);
    tr_window_open(&w, &a, &b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&l, &w);
    assert_int_equal(tr_post(&b, t, &post, 0, &all, 1), PD_OK);
    s.e.pass(&s.e, PD_MS);
    pd_sim_stop(s.e.la, true);
    s.e.pass(&s.e, 3 * PD_SEC);
    assert_int_equal(post.dones, 0);
    pd_sim_stop(s.e.la, false);
    assert_true(s.e.run(&s.e, post_over, &post));
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    assert_memory_equal(a.base, b.base, all.bytes);
    pd_sim_stop(s.e.lb, true);
    s.e.pass(&s.e, 12 * PD_SEC);
    pd_sim_stop(s.e.lb, false);
    s.e.pass(&s.e, 20 * PD_SEC);
    assert_int_equal(l.downs, 0);
    /* Both at once, in the middle of something. */
    assert_int_equal(tr_post(&b, t, &post, 0, &all, 1), PD_OK);
    s.e.pass(&s.e, PD_MS);
    pd_sim_stop(s.e.la, true);
    pd_sim_stop(s.e.lb, true);
    s.e.pass(&s.e, 12 * PD_SEC);
    pd_sim_stop(s.e.lb, false);
    pd_sim_stop(s.e.la, false);
    assert_true(s.e.run(&s.e, post_over, &post));
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    /* For longer: given up. */
    assert_int_equal(tr_post(&b, t, &post, 0, &all, 1), PD_OK);
    pd_sim_stop(s.e.la, true);
    s.e.pass(&s.e, 7 * PD_SEC);
    assert_int_equal(l.downs, 1);
    pd_sim_stop(s.e.la, false);
    s.e.ops->target_close(t);
    tr_window_close(&s.e, &w);
    tr_node_close(&s.e, &b);
    tr_node_close(&s.e, &a);
    env_close(&s);
}

/* ---- chaos */

enum { N_WINDOWS = 6, CHAOS_BYTES = 1 << 20 };

struct chaos {
    struct sim_env s;
    struct tr_node a, b;
    struct tr_link link;
    bool has_link;
    struct tr_window w[N_WINDOWS];
    struct pd_transport_target *t[N_WINDOWS];
    struct tr_post post[N_WINDOWS];
    bool is_open[N_WINDOWS], has_post[N_WINDOWS];
    uint64_t rng, xid;
    uint32_t ok, canceled, failed, unfenced, downs;
};

static void chaos_link(struct chaos *c)
{
    if (c->has_link && (c->link.downs > 0 || (c->link.ups > 0 && c->link.up_status != PD_OK))) {
        c->has_link = false;
        c->downs++;
        for (uint32_t i = 0; i < N_WINDOWS; i++) {
            if (c->t[i] == NULL)
                continue;
            c->s.e.ops->target_close(c->t[i]);
            c->t[i] = NULL;
        }
    }
    if (!c->has_link)
        c->has_link = tr_connect(&c->link, &c->b, &c->a) == PD_OK;
}

static void chaos_slot(struct chaos *c, uint32_t i)
{
    const uint64_t piece = CHAOS_BYTES / N_WINDOWS;
    struct pd_segment seg = { i * piece, piece };

    if (c->has_post[i] && c->post[i].dones > 0) {
        c->has_post[i] = false;
        if (c->post[i].terminal == PD_TRANSFER_OK) {
            c->ok++;
            if (c->is_open[i])
                assert_memory_equal(c->a.base + seg.offset, c->b.base + seg.offset, piece);
        } else if (c->post[i].terminal == PD_TRANSFER_CANCELED_FENCED) {
            c->canceled++;
        } else if (c->post[i].terminal == PD_TRANSFER_FAILED_FENCED) {
            c->failed++;
        } else {
            c->unfenced++;
        }
    }
    switch (tr_random(&c->rng) % 6) {
    case 0:
        if (c->is_open[i]) {
            uint8_t *mine = c->a.base + seg.offset;
            tr_window_close(&c->s.e, &c->w[i]);
            c->is_open[i] = false;
            memset(mine, 0xee, piece);
            c->s.e.pass(&c->s.e, tr_random(&c->rng) % (5 * PD_MS));
            for (uint64_t k = 0; k < piece; k++)
                assert_int_equal(mine[k], 0xee);
        }
        break;
    case 1:
        if (c->has_post[i] && c->post[i].dones == 0)
            c->s.e.ops->cancel(c->post[i].transfer);
        break;
    default:
        if (!c->is_open[i] && !c->has_post[i] && c->t[i] == NULL) {
            tr_window_open(&c->w[i], &c->a, &c->b.ctx.node, ++c->xid, PD_TRANSPORT_WRITE, &seg, 1);
            c->is_open[i] = true;
        }
        if (!c->has_post[i] && c->t[i] != NULL && !c->is_open[i]) {
            c->s.e.ops->target_close(c->t[i]);
            c->t[i] = NULL;
        }
        if (c->has_link && c->link.ups > 0 && c->link.downs == 0 && c->is_open[i] &&
            c->t[i] == NULL)
            c->t[i] = tr_target(&c->link, &c->w[i]);
        if (c->t[i] != NULL && c->is_open[i] && !c->has_post[i]) {
            tr_fill(c->b.base + seg.offset, piece, tr_random(&c->rng));
            c->has_post[i] = tr_post(&c->b, c->t[i], &c->post[i], 0, &seg, 1) == PD_OK;
        }
    }
}

static bool chaos_idle(void *arg)
{
    struct chaos *c = arg;

    for (uint32_t i = 0; i < N_WINDOWS; i++)
        if (c->has_post[i] && c->post[i].dones == 0)
            return false;
    return c->link.ups > 0 || c->link.downs > 0;
}

static uint64_t chaos(uint64_t seed, uint32_t *ok, uint32_t *downs)
{
    struct pd_sim_opts opts = { .link = { .latency_ns = 100 * PD_US, .jitter_ns = 300 * PD_US,
                                          .bytes_per_s = 1000000000, .loss_ppm = 3000,
                                          .retransmit_ns = 2 * PD_MS, .flip_ppm = 300,
                                          .reset_ppm = 200 },
                                .buffer_bytes = seed % 3 == 0 ? 5000 : 0 };
    struct chaos *c = calloc(1, sizeof(*c));
    uint64_t hash;

    env_open(&c->s, seed, &opts, (uint32_t)(seed % 4));
    c->s.conf.frame = 65536;
    c->s.conf.timeout = PD_SEC;
    c->rng = seed;
    tr_node_open(&c->s.e, &c->a, c->s.e.la, 0xa1, 1, CHAOS_BYTES, &c->s.conf);
    tr_node_open(&c->s.e, &c->b, c->s.e.lb, 0xb2, 1, CHAOS_BYTES, &c->s.conf);
    for (uint32_t i = 0; i < 600; i++) {
        chaos_link(c);
        chaos_slot(c, (uint32_t)(tr_random(&c->rng) % N_WINDOWS));
        if (tr_random(&c->rng) % 100 == 0)
            sim_cut(&c->s.e, true);
        if (tr_random(&c->rng) % 150 == 0)
            pd_sim_half_open(c->s.sim, "a", "b");
        if (tr_random(&c->rng) % 8 == 0)
            pd_sim_heal(c->s.sim);
        c->s.e.pass(&c->s.e, tr_random(&c->rng) % (4 * PD_MS));
    }
    pd_sim_heal(c->s.sim);
    assert_true(c->s.e.run(&c->s.e, chaos_idle, c));
    for (uint32_t i = 0; i < N_WINDOWS; i++) {
        if (c->t[i] != NULL)
            c->s.e.ops->target_close(c->t[i]);
        if (c->is_open[i])
            tr_window_close(&c->s.e, &c->w[i]);
    }
    if (c->has_link && c->link.downs == 0 && (c->link.ups == 0 || c->link.up_status == PD_OK))
        tr_disconnect(&c->s.e, &c->link, PD_DISCONNECT_FENCE);
    tr_node_close(&c->s.e, &c->b);
    tr_node_close(&c->s.e, &c->a);
    *ok += c->ok;
    *downs += c->downs;
    hash = pd_sim_hash(c->s.sim);
    env_close(&c->s);
    free(c);
    return hash;
}

static void chaos_seeds(void **state)
{
    uint32_t ok = 0, downs = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++)
        chaos(seed, &ok, &downs);
    assert_true(ok > 100);
    assert_true(downs > 20);
}

static void same_seed_same_run(void **state)
{
    uint32_t ok = 0, downs = 0;

    (void)state;
    assert_true(chaos(5, &ok, &downs) == chaos(5, &ok, &downs));
    assert_true(chaos(5, &ok, &downs) != chaos(6, &ok, &downs));
}

/* shm says what it cannot do. */
static void shm_declines(void **state)
{
    const struct pd_unit *unit = uv_unit("modules/transport/shm/.libs/shm.so");
    const struct pd_transport_ops *ops = (const struct pd_transport_ops *)unit->ops;
    uint64_t conf[16] = { 0 };
    struct pd_instance_ctx ctx;
    struct pd_transport *tp = NULL;
    struct pd_err err;
    struct sim_env s;

    (void)state;
    env_open(&s, 1, NULL, 0);
    memset(&ctx, 0, sizeof(ctx));
    memset(&err, 0, sizeof(err));
    ctx.size = sizeof(ctx);
    ctx.loop = s.e.la;
    ctx.node.uuid.b[0] = 1;
    assert_true(unit->conf_size <= sizeof(conf));
    assert_int_equal(ops->create(&ctx, conf, &tp, &err), PD_EDECLINED);
    assert_non_null(strstr(err.text, "simulated"));
    env_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(good_##name), cmocka_unit_test(bad_##name),
        TRANSPORT_CASES(X) TRANSPORT_CUT_CASES(X)
#undef X
        cmocka_unit_test(small_pieces),  cmocka_unit_test(flipped),
        cmocka_unit_test(asleep),
        cmocka_unit_test(chaos_seeds),   cmocka_unit_test(same_seed_same_run),
        cmocka_unit_test(shm_declines),
    };
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
