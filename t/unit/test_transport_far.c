/* SPDX-License-Identifier: Apache-2.0 */
/* Reading over a fabric, in the simulator: the fabric is this program's memory,
 * its reads take the time they are told to, and it can be out of order. */
#include "transport_uv.h"

#include "conf.h"
#include "fabric.h"

#include "loop/sim.h"

/* What PD_MODULE would make; no node has a host here. */
const struct pd_host_api *pd_host_table;

struct get {
    TAILQ_ENTRY(get) link;
    struct pd_xp_way *way;
    uint8_t *to;
    const uint8_t *from;
    size_t len;
    void *get;
    pd_time due;
};

struct pd_xp_region {
    TAILQ_ENTRY(pd_xp_region) link;
    uint8_t *base;
    uint64_t bytes, key;
};

struct pd_xp_way {
    TAILQ_ENTRY(pd_xp_way) link;
    struct fake *f;
    struct pd_xp_far *far;
    bool is_closing;
};

struct pd_xp_key {
    const uint8_t *base;
};

struct fake {
    struct pd_xp_fabric base;
    struct pd_loop *loop;
    struct pd_timer timer;
    TAILQ_HEAD(, get) gets;
    TAILQ_HEAD(, pd_xp_way) ways;
    bool wants_room;
};

/* What is wrong with fabrics. */
static struct {
    pd_time takes;                /* a read, at most */
    uint32_t again;               /* each so many-th read is not taken at first */
    bool hold;                    /* reads do not end */
    uint32_t fail;                /* after so many reads one fails */
    bool bad_address, bad_key, bad_beacon;
    uint64_t seed;
    uint32_t asked, flying;
} world;

static TAILQ_HEAD(, pd_xp_region) regions = TAILQ_HEAD_INITIALIZER(regions);

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct fake *f = arg;
    pd_time now = pd_loop_now(f->loop);
    struct pd_xp_way *way, *next_way;
    struct get *g, *next;

    (void)timer;
    for (g = TAILQ_FIRST(&f->gets); g != NULL; g = next) {
        bool ends = g->way->is_closing || (!world.hold && g->due <= now);
        bool fails = g->way->is_closing || (world.fail > 0 && ends && --world.fail == 0);
        next = TAILQ_NEXT(g, link);
        if (!ends)
            continue;
        TAILQ_REMOVE(&f->gets, g, link);
        world.flying--;
        if (!fails)
            memcpy(g->to, g->from, g->len);
        pd_xp_far_got(g->get, fails ? PD_EPEER : PD_OK);
        free(g);
    }
    for (way = TAILQ_FIRST(&f->ways); way != NULL; way = next_way) {
        next_way = TAILQ_NEXT(way, link);
        if (!way->is_closing)
            continue;
        TAILQ_REMOVE(&f->ways, way, link);
        pd_xp_far_closed(way->far);
        free(way);
    }
    if (f->wants_room) {
        f->wants_room = false;
        pd_xp_far_room(f->base.tp);
    }
    if (!TAILQ_EMPTY(&f->gets))
        pd_timer_start(&f->timer, 10 * PD_US);
}

static void soon(struct fake *f)
{
    if (!pd_timer_is_active(&f->timer))
        pd_timer_start(&f->timer, 10 * PD_US);
}

static void fake_destroy(struct pd_xp_fabric *b)
{
    struct fake *f = (struct fake *)b;

    assert_true(TAILQ_EMPTY(&f->gets));
    assert_true(TAILQ_EMPTY(&f->ways));
    pd_timer_stop(&f->timer);
    free(f);
}

static pd_status fake_address(struct pd_xp_fabric *b, void *buf, size_t cap, size_t *len)
{
    (void)b;
    *len = 4;
    if (cap < *len)
        return PD_ELIMIT;
    memcpy(buf, world.bad_address ? "nope" : "fake", 4);
    return PD_OK;
}

static pd_status fake_region_add(struct pd_xp_fabric *b, void *base, uint64_t bytes,
                                 struct pd_xp_region **out, struct pd_err *err)
{
    static uint64_t keys;
    struct pd_xp_region *r = calloc(1, sizeof(*r));

    (void)b;
    (void)err;
    r->base = base;
    r->bytes = bytes;
    r->key = ++keys;
    TAILQ_INSERT_TAIL(&regions, r, link);
    *out = r;
    return PD_OK;
}

static void fake_region_remove(struct pd_xp_fabric *b, struct pd_xp_region *r)
{
    (void)b;
    TAILQ_REMOVE(&regions, r, link);
    free(r);
}

static pd_status fake_region_key(struct pd_xp_fabric *b, struct pd_xp_region *r, void *buf,
                                 size_t cap, size_t *len)
{
    uint64_t key = world.bad_key ? UINT64_MAX : r->key;

    (void)b;
    *len = sizeof(key);
    if (cap < *len)
        return PD_ELIMIT;
    memcpy(buf, &key, sizeof(key));
    return PD_OK;
}

static pd_status fake_way_open(struct pd_xp_fabric *b, const void *address, size_t len,
                               const struct pd_addr *host, struct pd_xp_far *far,
                               struct pd_xp_way **out)
{
    struct pd_xp_way *way;

    assert_int_equal(host->family, PD_AF_IPV4);
    if (len != 4 || memcmp(address, "fake", 4) != 0)
        return PD_EPROTO;
    way = calloc(1, sizeof(*way));
    way->f = (struct fake *)b;
    way->far = far;
    TAILQ_INSERT_TAIL(&way->f->ways, way, link);
    *out = way;
    return PD_OK;
}

static void fake_way_close(struct pd_xp_way *way)
{
    assert_false(way->is_closing);
    way->is_closing = true;
    soon(way->f);
}

static pd_status fake_key_open(struct pd_xp_way *way, const void *key, size_t len, uint64_t bytes,
                               struct pd_xp_key **out)
{
    struct pd_xp_region *r;
    uint64_t k;

    (void)way;
    if (len != sizeof(k))
        return PD_EPROTO;
    memcpy(&k, key, sizeof(k));
    TAILQ_FOREACH(r, &regions, link)
    {
        if (r->key != k || bytes > r->bytes)
            continue;
        *out = calloc(1, sizeof(**out));
        (*out)->base = r->base;
        return PD_OK;
    }
    return PD_EPROTO;
}

static void fake_key_close(struct pd_xp_key *key)
{
    free(key);
}

static pd_status fake_get(struct pd_xp_way *way, struct pd_xp_key *key, uint64_t offset, void *to,
                          struct pd_xp_region *r, size_t len, void *get, bool *done)
{
    static const uint8_t other[16] = "another process";
    struct fake *f = way->f;
    struct get *g;

    assert_false(way->is_closing);
    assert_true((uint8_t *)to >= r->base && (uint8_t *)to + len <= r->base + r->bytes);
    soon(f);
    if (world.again > 0 && ++world.asked % world.again == 0) {
        f->wants_room = true;
        return PD_EAGAIN;
    }
    if (world.takes == 0) {
        memcpy(to, key->base + offset, len);
        *done = true;
        return PD_OK;
    }
    g = calloc(1, sizeof(*g));
    g->way = way;
    g->to = to;
    g->from = world.bad_beacon ? other : key->base + offset;
    g->len = len;
    g->get = get;
    g->due = pd_loop_now(f->loop) + tr_random(&world.seed) % world.takes;
    TAILQ_INSERT_TAIL(&f->gets, g, link);
    world.flying++;
    return PD_OK;
}

static void fake_poke(struct pd_xp_fabric *b)
{
    soon((struct fake *)b);
}

static const struct pd_xp_fabric_ops fake_ops = {
    .destroy = fake_destroy, .address = fake_address, .region_add = fake_region_add,
    .region_remove = fake_region_remove, .region_key = fake_region_key,
    .way_open = fake_way_open, .way_close = fake_way_close, .key_open = fake_key_open,
    .key_close = fake_key_close, .get = fake_get, .poke = fake_poke,
};

static pd_status far_create(const struct pd_instance_ctx *ctx, const void *conf,
                            struct pd_transport **out, struct pd_err *err)
{
    struct fake *f = calloc(1, sizeof(*f));

    f->base.ops = &fake_ops;
    f->base.max_get = 100000;
    f->loop = ctx->loop;
    TAILQ_INIT(&f->gets);
    TAILQ_INIT(&f->ways);
    pd_timer_init(&f->timer, f->loop, "fake", on_timer, f);
    return pd_xp_fabric_create(ctx, conf, PD_XP_UCX, &f->base, out, err);
}

static const struct pd_transport_ops far_ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = far_create,
    PD_XP_OPS,
};

/* ---- the rig */

struct sim_env {
    struct tr_env e;
    struct pd_sim *sim;
    struct pd_xp_fabric_conf conf, tiny;
};

static bool sim_run(struct tr_env *e, bool (*cond)(void *arg), void *arg)
{
    return pd_sim_run_cond(e->priv, pd_sim_now(e->priv) + 120 * PD_SEC, cond, arg);
}

static void sim_pass(struct tr_env *e, pd_time ns)
{
    pd_sim_run_until(e->priv, pd_sim_now(e->priv) + ns);
}

static void sim_cut(struct tr_env *e, bool on)
{
    assert_int_equal(pd_sim_partition(e->priv, "a", "b", on), PD_OK);
    assert_int_equal(pd_sim_partition(e->priv, "b", "a", on), PD_OK);
}

static void env_open(struct sim_env *s)
{
    memset(s, 0, sizeof(*s));
    s->conf = (struct pd_xp_fabric_conf){ .listen = "0.0.0.0:0", .queue = 1024, .windows = 4096,
                                          .connections = 1024, .frame = 1 << 20, .depth = 16,
                                          .timeout = 5 * PD_SEC, .connect_timeout = 5 * PD_SEC,
                                          .keepalive = 5 * PD_SEC };
    s->tiny = s->conf;
    s->tiny.queue = 4;
    s->tiny.frame = 4096;
    s->tiny.depth = 1;
    assert_int_equal(pd_sim_create(7, NULL, &s->sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(s->sim, "a", "10.0.0.1", &s->e.la), PD_OK);
    assert_int_equal(pd_sim_loop_create(s->sim, "b", "10.0.0.2", &s->e.lb), PD_OK);
    s->e.ops = &far_ops;
    s->e.conf = &s->conf;
    s->e.conf_tiny = &s->tiny;
    s->e.scale = 6;
    s->e.run = sim_run;
    s->e.pass = sim_pass;
    s->e.cut = sim_cut;
    s->e.priv = s->sim;
    memset(&world, 0, sizeof(world));
    world.takes = 50 * PD_US;
}

static void env_close(struct sim_env *s)
{
    char names[512] = "";

    if (pd_loop_destroy(s->e.lb, names, sizeof(names)) != PD_OK ||
        pd_loop_destroy(s->e.la, names, sizeof(names)) != PD_OK)
        fail_msg("left open: %s", names);
    assert_int_equal(pd_sim_destroy(s->sim), PD_OK);
    assert_true(TAILQ_EMPTY(&regions));
}

static void run_case(void (*fn)(struct tr_env *e), pd_time takes, uint32_t again)
{
    struct sim_env s;

    env_open(&s);
    world.takes = takes;
    world.again = again;
    fn(&s.e);
    env_close(&s);
}

#define X(name)                                                                \
    static void test_##name(void **state)                                      \
    {                                                                          \
        (void)state;                                                           \
        run_case(tr_case_##name, 50 * PD_US, 0);                               \
        run_case(tr_case_##name, 200 * PD_US, 3);                              \
        run_case(tr_case_##name, 0, 0);                                        \
    }
TRANSPORT_CASES(X)
TRANSPORT_CUT_CASES(X)
#undef X

struct pair {
    struct sim_env s;
    struct tr_node a, b;
    struct tr_link l;
    struct tr_window w;
    struct pd_transport_target *t;
};

#define BYTES ((uint64_t)(1 << 20))

static void pair_open(struct pair *p)
{
    struct pd_segment all = { 0, BYTES };

    env_open(&p->s);
    tr_node_open(&p->s.e, &p->a, p->s.e.la, 0xa1, 1, BYTES, &p->s.conf);
    tr_node_open(&p->s.e, &p->b, p->s.e.lb, 0xb2, 1, BYTES, &p->s.conf);
    tr_fill(p->b.base, BYTES, 3);
    tr_connect_up(&p->s.e, &p->l, &p->b, &p->a);
    tr_window_open(&p->w, &p->a, &p->b.ctx.node, 9, PD_TRANSPORT_WRITE, &all, 1);
    p->t = tr_target(&p->l, &p->w);
}

static void pair_close(struct pair *p)
{
    p->s.e.ops->target_close(p->t);
    if (p->l.downs == 0)
        tr_disconnect(&p->s.e, &p->l, PD_DISCONNECT_DRAIN);
    tr_node_close(&p->s.e, &p->b);
    tr_node_close(&p->s.e, &p->a);
    env_close(&p->s);
}

static bool some_fly(void *arg)
{
    (void)arg;
    return world.flying > 0;
}

static bool is_down(void *arg)
{
    return ((struct tr_link *)arg)->downs > 0;
}

/* Frames for the same bytes are read one behind the other. */
static void overlapping(void **state)
{
    struct pd_segment first = { 0, 5000 }, second = { 5000, 5000 }, apart = { 10000, 100 };
    struct tr_post posts[3];
    struct pair p;

    (void)state;
    pair_open(&p);
    world.hold = true;
    assert_int_equal(tr_post(&p.b, p.t, &posts[0], 0, &first, 1), PD_OK);
    assert_int_equal(tr_post(&p.b, p.t, &posts[1], 4999, &second, 1), PD_OK);
    assert_int_equal(tr_post(&p.b, p.t, &posts[2], 20000, &apart, 1), PD_OK);
    p.s.e.pass(&p.s.e, 10 * PD_MS);
    assert_int_equal(world.flying, 2);
    world.hold = false;
    for (int i = 0; i < 3; i++) {
        tr_wait_post(&p.s.e, &posts[i]);
        assert_int_equal(posts[i].terminal, PD_TRANSFER_OK);
    }
    assert_memory_equal(p.a.base, p.b.base, 4999);
    assert_memory_equal(p.a.base + 4999, p.b.base + 5000, 5000);
    tr_window_close(&p.s.e, &p.w);
    assert_true(p.w.total == 9999 + 100);
    pair_close(&p);
}

/* A window is closed when its last read has ended, not before. */
static void fence(void **state)
{
    struct pd_segment all = { 0, BYTES };
    struct tr_post post;
    struct pair p;

    (void)state;
    pair_open(&p);
    world.hold = true;
    assert_int_equal(tr_post(&p.b, p.t, &post, 0, &all, 1), PD_OK);
    assert_true(p.s.e.run(&p.s.e, some_fly, NULL));
    p.s.e.ops->window_close(p.w.window);
    p.s.e.pass(&p.s.e, 100 * PD_MS);
    assert_int_equal(p.w.closed, 0);
    assert_true(world.flying > 0);
    world.hold = false;
    tr_wait_post(&p.s.e, &post);
    p.s.e.pass(&p.s.e, PD_MS);
    assert_int_equal(p.w.closed, 1);
    assert_int_equal(world.flying, 0);
    assert_int_equal(post.terminal, PD_TRANSFER_FAILED_FENCED);
    pair_close(&p);
}

/* A fabric that says nothing for `timeout` is given up, and so are its reads. */
static void silent(void **state)
{
    struct pd_segment all = { 0, BYTES };
    struct tr_post post;
    struct pair p;

    (void)state;
    pair_open(&p);
    world.hold = true;
    assert_int_equal(tr_post(&p.b, p.t, &post, 0, &all, 1), PD_OK);
    p.s.e.pass(&p.s.e, PD_MS);
    p.s.e.ops->window_close(p.w.window);
    assert_true(p.s.e.run(&p.s.e, is_down, &p.l));
    assert_int_equal(post.terminal, PD_TRANSFER_FAILED_UNFENCED);
    p.s.e.pass(&p.s.e, 2 * PD_SEC);
    assert_int_equal(p.w.closed, 1);
    assert_int_equal(world.flying, 0);
    pair_close(&p);
}

/* A read that fails ends the link; what it was for does not count. */
static void failing(void **state)
{
    struct pd_segment all = { 0, BYTES };
    struct tr_post post;
    struct pair p;

    (void)state;
    pair_open(&p);
    world.fail = 3;
    assert_int_equal(tr_post(&p.b, p.t, &post, 0, &all, 1), PD_OK);
    assert_true(p.s.e.run(&p.s.e, is_down, &p.l));
    assert_int_equal(post.terminal, PD_TRANSFER_FAILED_UNFENCED);
    assert_true(p.w.total == 0);
    tr_window_close(&p.s.e, &p.w);
    pair_close(&p);
}

/* The poster goes while its memory is read. */
static void leaving(void **state)
{
    struct pd_segment all = { 0, BYTES };
    struct tr_post post;
    struct pair p;

    (void)state;
    pair_open(&p);
    world.hold = true;
    assert_int_equal(tr_post(&p.b, p.t, &post, 0, &all, 1), PD_OK);
    assert_true(p.s.e.run(&p.s.e, some_fly, NULL));
    sim_cut(&p.s.e, true);
    assert_true(p.s.e.run(&p.s.e, is_down, &p.l));
    sim_cut(&p.s.e, false);
    assert_int_equal(post.terminal, PD_TRANSFER_FAILED_UNFENCED);
    tr_window_close(&p.s.e, &p.w);
    assert_int_equal(world.flying, 0);
    pair_close(&p);
}

static bool told_up(void *arg)
{
    return ((struct tr_link *)arg)->ups > 0;
}

/* Words of a peer that lead nowhere, or to somebody else. */
static void refused(void **state)
{
    struct pd_segment all = { 0, BYTES };
    struct tr_post post;
    struct pair p;

    (void)state;
    pair_open(&p);
    for (int i = 0; i < 3; i++) {
        struct tr_link l;
        world.bad_address = i == 0;
        world.bad_key = i == 1;
        world.bad_beacon = i == 2;
        assert_int_equal(tr_connect(&l, &p.b, &p.a), PD_OK);
        assert_true(p.s.e.run(&p.s.e, told_up, &l));
        assert_int_not_equal(l.up_status, PD_OK);
        assert_int_equal(l.downs, 0);
        world.bad_address = world.bad_key = world.bad_beacon = false;
    }
    assert_true(tr_stats(&p.a).refused > 0);
    /* A key of memory that is no key, on a link that is up. */
    world.bad_key = true;
    assert_int_equal(tr_post(&p.b, p.t, &post, 0, &all, 1), PD_OK);
    assert_true(p.s.e.run(&p.s.e, is_down, &p.l));
    assert_int_equal(post.dones, 1);
    assert_int_not_equal(post.terminal, PD_TRANSFER_OK);
    assert_true(p.w.total == 0);
    tr_window_close(&p.s.e, &p.w);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
        TRANSPORT_CASES(X) TRANSPORT_CUT_CASES(X)
#undef X
        cmocka_unit_test(overlapping), cmocka_unit_test(fence), cmocka_unit_test(silent),
        cmocka_unit_test(failing), cmocka_unit_test(leaving), cmocka_unit_test(refused),
    };
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
