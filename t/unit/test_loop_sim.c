/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator: all common cases, and faults, time and sameness. */
#include "loop_cases.h"

#include "base/mem.h"
#include "loop/sim.h"

/* ---- the common cases, over several seeds */

static bool run(struct env *e, bool (*cond)(void *arg), void *arg)
{
    struct pd_sim *sim = e->priv;

    return pd_sim_run_cond(sim, pd_sim_now(sim) + 30 * PD_SEC, cond, arg);
}

static void env_open(struct env *e, uint64_t seed, const struct pd_sim_opts *opts)
{
    struct pd_sim *sim;

    memset(e, 0, sizeof *e);
    assert_int_equal(pd_sim_create(seed, opts, &sim), PD_OK);
    e->priv = sim;
    e->run = run;
    e->host = "server";
    assert_int_equal(pd_sim_loop_create(sim, "server", "10.1.1.1", &e->server), PD_OK);
    assert_int_equal(pd_sim_loop_create(sim, "client", NULL, &e->client), PD_OK);
    assert_int_equal(pd_addr_parse(e->client, PD_STR("10.1.1.1:0"), &e->addr), PD_OK);
    assert_int_equal(pd_addr_parse(e->client, PD_STR("10.1.1.1:9"), &e->nobody), PD_OK);
}

static void loop_end(struct pd_loop *l)
{
    char names[512];

    if (pd_loop_destroy(l, names, sizeof names) != PD_OK)
        fail_msg("left open: %s", names);
}

static void env_close(struct env *e)
{
    loop_end(e->client);
    loop_end(e->server);
    assert_int_equal(pd_sim_destroy(e->priv), PD_OK);
}

/* After the ends, no kernel keeps a connection. */
static void all_gone(struct env *e)
{
    pd_sim_run_until(e->priv, pd_sim_now(e->priv) + 100 * PD_SEC);
    assert_int_equal(pd_sim_connections(e->priv), 0);
}

#define X(name)                                                                \
    static void test_##name(void **state)                                      \
    {                                                                          \
        (void)state;                                                           \
        for (uint64_t seed = 1; seed <= 5; seed++) {                           \
            struct pd_sim_opts opts = { .whole_io = seed == 5,                 \
                                        .buffer_bytes = seed == 4 ? 4096 : 0 };\
            struct env e;                                                      \
            env_open(&e, seed, &opts);                                         \
            case_##name(&e);                                                   \
            all_gone(&e);                                                      \
            env_close(&e);                                                     \
        }                                                                      \
    }
LOOP_CASES(X)
#undef X

/* The same behaviour over a bad line. */
static void test_bad_line(void **state)
{
    struct pd_sim_opts opts = { .link = { .latency_ns = PD_MS, .jitter_ns = 3 * PD_MS,
                                          .bytes_per_s = 50000000, .loss_ppm = 20000 } };

    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct env e;
        env_open(&e, seed, &opts);
        case_echo(&e);
        case_half_close(&e);
        case_thousand(&e);
        all_gone(&e);
        env_close(&e);
    }
}

/* ---- a plain pair for the faults */

struct end {
    struct pd_stream *s;
    pd_status connected, error;
    bool was_connected, is_closed, is_ended;
    uint64_t received;
    pd_time last;
    uint8_t sum;                /* of all bytes */
};

static void end_readable(struct pd_stream *s, void *arg)
{
    struct end *x = arg;
    uint8_t buf[4096];
    size_t got;
    pd_status st;

    while ((st = pd_stream_read(s, buf, sizeof buf, &got)) == PD_OK) {
        x->received += got;
        x->last = pd_loop_now(s->loop);
        for (size_t i = 0; i < got; i++)
            x->sum ^= buf[i];
    }
    if (st == PD_EEOF)
        x->is_ended = true;
    else if (st != PD_EAGAIN)
        x->error = st;
}

static void end_connected(struct pd_stream *s, pd_status st, void *arg)
{
    struct end *x = arg;

    (void)s;
    x->was_connected = true;
    x->connected = st;
}

static void end_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct end *)arg)->is_closed = true;
}

static const struct pd_stream_events end_events = {
    .name = "end", .on_connected = end_connected, .on_readable = end_readable,
    .on_closed = end_closed,
};

static void take(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct end *x = arg;

    (void)l;
    x->s = s;
    pd_stream_set_events(s, &end_events, x);
}

struct pair {
    struct env e;
    struct pd_sim *sim;
    struct pd_listener *l;
    struct pd_addr addr;
    struct end a, b;            /* a dialled b */
};

static void pair_open(struct pair *p, uint64_t seed, const struct pd_sim_opts *opts)
{
    memset(p, 0, sizeof *p);
    env_open(&p->e, seed, opts);
    p->sim = p->e.priv;
    p->addr = p->e.addr;
    p->addr.port = 80;
    assert_int_equal(pd_listener_open(p->e.server, &p->addr, NULL, take, &p->b, &p->l), PD_OK);
    assert_int_equal(pd_stream_connect(p->e.client, &p->addr, &end_events, &p->a, &p->a.s),
                     PD_OK);
    pd_sim_run_until(p->sim, pd_sim_now(p->sim) + PD_SEC);
    assert_true(p->a.was_connected && p->b.s != NULL);
}

static void pair_close(struct pair *p)
{
    pd_listener_close(p->e.server, p->l);
    pd_stream_close(p->a.s);
    pd_stream_close(p->b.s);
    pd_sim_run_until(p->sim, pd_sim_now(p->sim) + PD_SEC);
    assert_true(p->a.is_closed && p->b.is_closed);
    env_close(&p->e);
}

static void pass(struct pair *p, pd_time ns)
{
    pd_sim_run_until(p->sim, pd_sim_now(p->sim) + ns);
}

static void send_bytes(struct end *x, const void *buf, size_t n)
{
    size_t sent;

    assert_int_equal(pd_stream_write(x->s, buf, n, &sent), PD_OK);
    assert_int_equal(sent, n);
}

static const struct pd_sim_opts whole = { .whole_io = 1 };

static void test_latency_bandwidth(void **state)
{
    struct pd_sim_link slow = { .latency_ns = 10 * PD_MS, .bytes_per_s = 1000000 };
    struct pd_sim_opts opts = { .whole_io = 1, .buffer_bytes = 1 << 20 };
    static uint8_t block[500000];
    struct pair p;
    pd_time start;

    (void)state;
    pair_open(&p, 1, &opts);
    assert_int_equal(pd_sim_link_set(p.sim, "client", "server", &slow), PD_OK);
    start = pd_sim_now(p.sim);
    send_bytes(&p.a, "x", 1);
    pass(&p, PD_SEC);
    assert_in_range(p.b.last - start, 10 * PD_MS, 11 * PD_MS);
    start = pd_sim_now(p.sim);
    send_bytes(&p.a, block, sizeof block);
    pass(&p, 2 * PD_SEC);
    assert_int_equal(p.b.received, 1 + sizeof block);
    assert_in_range(p.b.last - start, 510 * PD_MS, 520 * PD_MS);
    pair_close(&p);
}

/* What is written during a partition comes after it. */
static void test_partition(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p, 2, &whole);
    assert_int_equal(pd_sim_partition(p.sim, "client", "server", true), PD_OK);
    send_bytes(&p.a, "hello", 5);
    send_bytes(&p.b, "back", 4);
    pass(&p, 5 * PD_SEC);
    assert_int_equal(p.b.received, 0);
    assert_int_equal(p.a.received, 4);      /* one-way */
    pd_sim_heal(p.sim);
    pass(&p, 6 * PD_SEC);
    assert_int_equal(p.b.received, 5);
    assert_int_equal(p.a.received, 4);      /* once, though it was sent again */
    assert_int_equal(p.a.error, PD_OK);
    pair_close(&p);
}

static void test_partition_forever(void **state)
{
    struct pd_sim_opts opts = { .whole_io = 1, .dead_ns = 20 * PD_SEC };
    struct pair p;

    (void)state;
    pair_open(&p, 3, &opts);
    pd_sim_partition(p.sim, "client", NULL, true);
    pd_sim_partition(p.sim, NULL, "client", true);
    send_bytes(&p.a, "hello", 5);
    pass(&p, 15 * PD_SEC);
    assert_int_equal(p.a.error, PD_OK);
    pass(&p, 15 * PD_SEC);
    assert_int_equal(p.a.error, PD_ETIMEDOUT);
    assert_int_equal(p.b.error, PD_OK);     /* it has nothing to send, and so cannot know */
    pair_close(&p);
}

static void test_connect_nobody(void **state)
{
    struct pair p;
    struct end x = { 0 };
    struct pd_addr nowhere;

    (void)state;
    pair_open(&p, 4, &whole);
    assert_int_equal(pd_addr_parse(p.e.client, PD_STR("10.9.9.9:80"), &nowhere), PD_OK);
    assert_int_equal(pd_stream_connect(p.e.client, &nowhere, &end_events, &x, &x.s), PD_OK);
    pass(&p, 9 * PD_SEC);
    assert_false(x.was_connected);
    pass(&p, 2 * PD_SEC);
    assert_true(x.was_connected);
    assert_int_equal(x.connected, PD_ETIMEDOUT);
    pd_stream_close(x.s);
    /* A partition that ends in time is only a delay. */
    memset(&x, 0, sizeof x);
    pd_sim_partition(p.sim, "client", "server", true);
    assert_int_equal(pd_stream_connect(p.e.client, &p.addr, &end_events, &x, &x.s), PD_OK);
    pass(&p, 2 * PD_SEC);
    pd_sim_heal(p.sim);
    pass(&p, 5 * PD_SEC);
    assert_true(x.was_connected);
    assert_int_equal(x.connected, PD_OK);
    pd_stream_close(x.s);
    pass(&p, PD_SEC);
    pd_stream_close(p.b.s);
    pass(&p, PD_SEC);
    pd_stream_close(p.a.s);
    pd_listener_close(p.e.server, p.l);
    pass(&p, PD_SEC);
    /* The first b was replaced by the second connection's end. */
    pd_sim_crash(p.e.server, true);
    loop_end(p.e.client);
    assert_int_equal(pd_sim_destroy(p.sim), PD_OK);
}

static void test_reset_half_open_flip(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p, 5, &whole);
    assert_int_equal(pd_sim_flip(p.sim, "client", "server", 1), PD_OK);
    send_bytes(&p.a, "\1\1\1\1", 4);
    pass(&p, PD_SEC);
    assert_int_equal(p.b.received, 4);
    assert_int_not_equal(p.b.sum, 0);
    assert_int_equal(__builtin_popcount(p.b.sum), 1);
    p.b.sum = 0;
    send_bytes(&p.a, "\1\1\1\1", 4);
    pass(&p, PD_SEC);
    assert_int_equal(p.b.sum, 0);
    assert_int_equal(pd_sim_half_open(p.sim, "server", "client"), 1);
    send_bytes(&p.a, "lost", 4);
    pass(&p, 10 * PD_SEC);
    assert_int_equal(p.b.received, 8);
    assert_int_equal(p.a.error, PD_OK);
    assert_int_equal(pd_sim_reset(p.sim, "client", "server"), 1);
    pass(&p, PD_SEC);
    assert_int_equal(p.a.error, PD_EPEER);
    assert_int_equal(p.b.error, PD_EPEER);
    assert_int_equal(pd_sim_reset(p.sim, NULL, NULL), 0);
    pair_close(&p);
}

static void crash_server(struct pair *p, bool tell)
{
    p->b.s = NULL;
    pd_sim_crash(p->e.server, tell);
}

static void test_crash_told(void **state)
{
    struct pair p;
    struct end x = { 0 };

    (void)state;
    pair_open(&p, 6, &whole);
    crash_server(&p, true);
    pass(&p, PD_SEC);
    assert_int_equal(p.a.error, PD_EPEER);
    assert_int_equal(pd_stream_connect(p.e.client, &p.addr, &end_events, &x, &x.s), PD_OK);
    pass(&p, PD_SEC);
    assert_int_equal(x.connected, PD_EPEER);
    pd_stream_close(x.s);
    pd_stream_close(p.a.s);
    pass(&p, PD_SEC);
    loop_end(p.e.client);
    assert_int_equal(pd_sim_destroy(p.sim), PD_OK);
}

/* The reset of a crash comes also when this program is short of memory then. */
static void test_crash_told_without_memory(void **state)
{
    static struct end x[40];
    struct pair p;

    (void)state;
    pair_open(&p, 6, &whole);
    for (int i = 0; i < 40; i++) {      /* packets that were used before are on their way again */
        memset(&x[i], 0, sizeof x[i]);
        assert_int_equal(pd_stream_connect(p.e.client, &p.addr, &end_events, &x[i], &x[i].s), PD_OK);
    }
    uint64_t before = pd_mem_count();
    pd_mem_fault_set(1);
    crash_server(&p, true);
    pd_mem_fault_set(0);
    assert_int_equal(pd_mem_count() - before, 1);
    pass(&p, PD_SEC);
    assert_int_equal(p.a.error, PD_EPEER);
    pd_stream_close(p.a.s);
    for (int i = 0; i < 40; i++)
        pd_stream_close(x[i].s);
    pass(&p, PD_SEC);
    loop_end(p.e.client);
    assert_int_equal(pd_sim_destroy(p.sim), PD_OK);
}

/* The machine vanishes: silence, until its next life resets what it does not know. */
static void test_crash_silent_restart(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p, 7, &whole);
    crash_server(&p, false);
    send_bytes(&p.a, "anybody?", 8);
    pass(&p, 10 * PD_SEC);
    assert_int_equal(p.a.error, PD_OK);
    assert_int_equal(pd_sim_loop_create(p.sim, "server", "10.9.9.9", &p.e.server), PD_EINVAL);
    assert_int_equal(pd_sim_loop_create(p.sim, "server", NULL, &p.e.server), PD_OK);
    assert_int_equal(pd_sim_loop_create(p.sim, "server", NULL, &p.e.server), PD_EEXIST);
    pass(&p, 10 * PD_SEC);
    assert_int_equal(p.a.error, PD_EPEER);
    pd_stream_close(p.a.s);
    memset(&p.a, 0, sizeof p.a);
    assert_int_equal(pd_listener_open(p.e.server, &p.addr, NULL, take, &p.b, &p.l), PD_OK);
    assert_int_equal(pd_stream_connect(p.e.client, &p.addr, &end_events, &p.a, &p.a.s), PD_OK);
    pass(&p, PD_SEC);
    send_bytes(&p.a, "hello", 5);
    pass(&p, PD_SEC);
    assert_int_equal(p.b.received, 5);
    pair_close(&p);
}

static void ring_bell(struct pd_timer *t, void *arg)
{
    *(pd_time *)arg = pd_loop_now(t->loop);
}

static void test_crash_drops_all(void **state)
{
    struct pd_workq_opts wo = { .size = sizeof wo, .name = "w", .threads = 1 };
    struct pair p;
    struct pd_timer t;
    struct pd_workq *q;
    pd_time fired = 0;

    (void)state;
    pair_open(&p, 8, &whole);
    pd_timer_init(&t, p.e.server, "t", ring_bell, &fired);
    pd_timer_start(&t, PD_SEC);
    assert_int_equal(pd_workq_create(p.e.server, &wo, &q), PD_OK);
    pd_stream_close(p.b.s);
    crash_server(&p, true);
    pass(&p, 5 * PD_SEC);
    assert_int_equal(fired, 0);
    assert_false(p.b.is_closed);
    pd_stream_close(p.a.s);
    pass(&p, PD_SEC);
    loop_end(p.e.client);
    assert_int_equal(pd_sim_destroy(p.sim), PD_OK);
}

static void test_stop_continue(void **state)
{
    struct pair p;
    struct pd_timer t, u;
    pd_time fired = 0, never = 0, start;
    struct pd_addr at;

    (void)state;
    pair_open(&p, 9, &whole);
    pd_sim_addr(p.e.server, 80, &at);
    assert_true(pd_addr_equal(&at, &p.addr));
    pd_timer_init(&t, p.e.server, "t", ring_bell, &fired);
    pd_timer_init(&u, p.e.server, "u", ring_bell, &never);
    pd_timer_start(&t, PD_SEC);
    pd_timer_start(&u, PD_SEC);
    pd_sim_stop(p.e.server, true);
    start = pd_sim_now(p.sim);
    send_bytes(&p.a, "hello", 5);
    pass(&p, 90 * PD_SEC);
    assert_int_equal(fired, 0);
    assert_int_equal(p.b.received, 0);
    assert_int_equal(p.a.error, PD_OK);     /* its kernel answers */
    pd_timer_stop(&u);
    pd_sim_stop(p.e.server, false);
    pass(&p, PD_SEC);
    assert_true(fired >= start + 90 * PD_SEC);
    assert_int_equal(never, 0);
    assert_int_equal(p.b.received, 5);
    pair_close(&p);
}

static void test_busy(void **state)
{
    struct pd_loop_stats st;
    struct pair p;
    struct pd_timer t;
    pd_time fired = 0, start;

    (void)state;
    pair_open(&p, 10, &whole);
    start = pd_sim_now(p.sim);
    pd_timer_init(&t, p.e.server, "t", ring_bell, &fired);
    pd_timer_start(&t, 10 * PD_MS);
    pd_sim_busy(p.e.server, 100 * PD_MS);
    send_bytes(&p.a, "x", 1);
    pass(&p, 50 * PD_MS);
    assert_int_equal(fired, 0);
    assert_int_equal(p.b.received, 0);
    pass(&p, PD_SEC);
    assert_int_equal(fired, start + 100 * PD_MS);
    assert_true(p.b.last >= start + 100 * PD_MS);
    pd_loop_stats_get(p.e.server, &st);
    assert_true(st.turns > 0);
    pair_close(&p);
}

static void test_backlog(void **state)
{
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "small", .backlog = 2 };
    struct pair p;
    struct end x[3];
    struct pd_listener *l;
    struct pd_addr at;

    (void)state;
    pair_open(&p, 11, &whole);
    memset(x, 0, sizeof x);
    at = p.addr;
    at.port = 81;
    assert_int_equal(pd_listener_open(p.e.server, &at, &opts, take, &p.b, &l), PD_OK);
    pd_listener_pause(p.e.server, l, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pd_stream_connect(p.e.client, &at, &end_events, &x[i], &x[i].s), PD_OK);
    pass(&p, 5 * PD_SEC);
    assert_true(x[0].was_connected && x[1].was_connected && !x[2].was_connected);
    pd_listener_close(p.e.server, l);
    pass(&p, 10 * PD_SEC);
    assert_int_equal(x[0].error, PD_EPEER);
    assert_true(x[2].was_connected);
    assert_int_equal(x[2].connected, PD_EPEER);
    for (int i = 0; i < 3; i++)
        pd_stream_close(x[i].s);
    pair_close(&p);
}

static void test_work_time(void **state)
{
    struct pd_sim_opts opts = { .whole_io = 1 };
    struct env e;
    struct pd_sim *sim;

    (void)state;
    env_open(&e, 12, &opts);
    sim = e.priv;
    /* 100 works of 1 ms on 3 threads take 34 ms. */
    {
        pd_time start = pd_sim_now(sim);
        case_work(&e);
        assert_in_range(pd_sim_now(sim) - start, 34 * PD_MS, 35 * PD_MS);
    }
    env_close(&e);
}

static void count_at(void *arg)
{
    (*(uint32_t *)arg)++;
}

static void test_at_names_misc(void **state)
{
    struct env e;
    struct pd_sim *sim;
    struct pd_loop *more;
    uint32_t n = 0;
    uint64_t before;

    (void)state;
    env_open(&e, 13, NULL);
    sim = e.priv;
    assert_int_equal(pd_sim_at(sim, pd_sim_now(sim) + PD_SEC, count_at, &n), PD_OK);
    pd_sim_run_until(sim, pd_sim_now(sim) + 2 * PD_SEC);
    assert_int_equal(n, 1);
    assert_int_equal(pd_loop_now(e.client), pd_sim_now(sim));
    assert_int_equal(pd_sim_loop_create(sim, "client", NULL, &more), PD_EEXIST);
    assert_int_equal(pd_sim_loop_create(sim, "c2", "10.1.1.1", &more), PD_EEXIST);
    assert_int_equal(pd_sim_loop_create(sim, "localhost", NULL, &more), PD_EINVAL);
    assert_int_equal(pd_sim_loop_create(sim, "c3", "not an ip", &more), PD_EINVAL);
    assert_int_equal(pd_sim_name_add(sim, "alias", "10.1.1.1"), PD_OK);
    e.host = "alias";
    case_resolve(&e);
    assert_int_equal(pd_sim_destroy(sim), PD_EBUSY);
    before = pd_sim_hash(sim);
    pd_sim_note(e.client, "request %d done", 7);
    assert_int_not_equal(pd_sim_hash(sim), before);
    assert_int_equal(pd_loop_run(e.client), PD_ENOSYS);
    assert_int_equal(pd_sim_partition(sim, "nobody", NULL, true), PD_ENOENT);
    env_close(&e);
}

/* ---- sameness: many nodes under random traffic and faults */

enum { NODES = 50, LINKS = 4 };

struct node {
    struct world *w;
    struct pd_loop *loop;
    struct pd_listener *l;
    struct pd_timer tick;
    uint32_t index;
    struct peer_link {
        struct pd_stream *s;
        struct node *n;
        bool is_out, used;
    } links[NODES * 8];
};

struct world {
    struct pd_sim *sim;
    struct node nodes[NODES];
    uint32_t count;
    uint64_t bytes;
    FILE *log;
};

static void link_readable(struct pd_stream *s, void *arg)
{
    struct peer_link *k = arg;
    uint8_t buf[2000];
    size_t got;
    pd_status st = pd_stream_read(s, buf, sizeof buf, &got);

    if (st == PD_OK)
        k->n->w->bytes += got;
    else if (st != PD_EAGAIN)
        pd_stream_close(s);
}

static void link_connected(struct pd_stream *s, pd_status st, void *arg)
{
    (void)arg;
    if (st != PD_OK)
        pd_stream_close(s);
}

static void link_closed(struct pd_stream *s, void *arg)
{
    struct peer_link *k = arg;

    (void)s;
    k->used = false;
    k->s = NULL;
}

static const struct pd_stream_events link_events = {
    .name = "link", .on_connected = link_connected, .on_readable = link_readable,
    .on_closed = link_closed,
};

static struct peer_link *free_link(struct node *n)
{
    for (size_t i = 0; i < sizeof n->links / sizeof n->links[0]; i++) {
        if (!n->links[i].used) {
            n->links[i].used = true;
            n->links[i].n = n;
            return &n->links[i];
        }
    }
    return NULL;
}

static void node_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct node *n = arg;
    struct peer_link *k = free_link(n);

    (void)l;
    if (k == NULL)
        return;
    k->s = s;
    k->is_out = false;
    pd_stream_set_events(s, &link_events, k);
}

static void node_tick(struct pd_timer *t, void *arg)
{
    struct node *n = arg;
    struct world *w = n->w;
    static const uint8_t data[30000];
    uint64_t what = pd_loop_random_below(n->loop, 10);
    uint32_t out = 0;
    size_t sent;

    for (size_t i = 0; i < sizeof n->links / sizeof n->links[0]; i++) {
        struct peer_link *k = &n->links[i];
        if (!k->used || k->s == NULL)
            continue;
        out += k->is_out;
        if (what < 5)
            pd_stream_write(k->s, data, 1 + pd_loop_random_below(n->loop, sizeof data), &sent);
        if (what == 9)
            pd_stream_close(k->s);
    }
    if (out < LINKS) {
        struct peer_link *k = free_link(n);
        char text[32];
        struct pd_addr to;
        int len = snprintf(text, sizeof text, "10.2.0.%u:700",
                           (unsigned)pd_loop_random_below(n->loop, w->count) + 1);
        assert_int_equal(pd_addr_parse(n->loop, (struct pd_str){ text, (size_t)len }, &to),
                         PD_OK);
        if (k != NULL) {
            k->is_out = true;
            assert_int_equal(pd_stream_connect(n->loop, &to, &link_events, k, &k->s), PD_OK);
        }
    }
    pd_timer_start(t, PD_MS + pd_loop_random_below(n->loop, 20 * PD_MS));
}

static void node_start(struct world *w, uint32_t i)
{
    struct node *n = &w->nodes[i];
    struct pd_addr at;
    char name[16], ip[16];

    memset(n, 0, sizeof *n);
    n->w = w;
    n->index = i;
    snprintf(name, sizeof name, "n%u", i);
    snprintf(ip, sizeof ip, "10.2.0.%u", i + 1);
    assert_int_equal(pd_sim_loop_create(w->sim, name, ip, &n->loop), PD_OK);
    assert_int_equal(pd_addr_parse(n->loop, PD_STR("0.0.0.0:700"), &at), PD_OK);
    assert_int_equal(pd_listener_open(n->loop, &at, NULL, node_accept, n, &n->l), PD_OK);
    pd_timer_init(&n->tick, n->loop, "tick", node_tick, n);
    pd_timer_start(&n->tick, PD_MS);
}

static void write_line(void *arg, const char *line)
{
    struct world *w = arg;

    if (w->log != NULL)
        fprintf(w->log, "%s\n", line);
}

static void fault(struct world *w)
{
    uint32_t i = (uint32_t)(pd_sim_random(w->sim) % w->count);
    char a[16], b[16];

    snprintf(a, sizeof a, "n%u", i);
    snprintf(b, sizeof b, "n%u", (unsigned)(pd_sim_random(w->sim) % w->count));
    switch (pd_sim_random(w->sim) % 7) {
    case 0:
        pd_sim_crash(w->nodes[i].loop, pd_sim_random(w->sim) % 2 == 0);
        node_start(w, i);
        break;
    case 1:
        pd_sim_partition(w->sim, a, b, true);
        break;
    case 2:
        pd_sim_heal(w->sim);
        break;
    case 3:
        pd_sim_half_open(w->sim, a, b);
        break;
    case 4:
        pd_sim_reset(w->sim, a, b);
        break;
    case 5:
        pd_sim_stop(w->nodes[i].loop, true);
        break;
    default:
        for (uint32_t k = 0; k < w->count; k++)
            pd_sim_stop(w->nodes[k].loop, false);
        break;
    }
}

static uint64_t live(uint64_t seed, uint32_t count, FILE *log, uint64_t *bytes)
{
    struct pd_sim_opts opts = { .link = { .latency_ns = 200 * PD_US, .jitter_ns = 100 * PD_US,
                                          .bytes_per_s = 100000000, .loss_ppm = 1000,
                                          .reset_ppm = 100, .flip_ppm = 100 } };
    struct world *w = calloc(1, sizeof *w);
    uint64_t hash;

    w->count = count;
    w->log = log;
    opts.on_log = log != NULL ? write_line : NULL;
    opts.arg = w;
    assert_int_equal(pd_sim_create(seed, &opts, &w->sim), PD_OK);
    for (uint32_t i = 0; i < count; i++)
        node_start(w, i);
    for (int i = 0; i < 100; i++) {
        pd_sim_run_until(w->sim, pd_sim_now(w->sim) + 50 * PD_MS);
        fault(w);
    }
    hash = pd_sim_hash(w->sim);
    *bytes = w->bytes;
    for (uint32_t i = 0; i < count; i++)
        pd_sim_crash(w->nodes[i].loop, true);
    assert_int_equal(pd_sim_destroy(w->sim), PD_OK);
    free(w);
    return hash;
}

static void test_same_seed(void **state)
{
    char *one = NULL, *two = NULL;
    size_t n1, n2;
    uint64_t h1, h2, h3, h4, bytes;
    FILE *f;

    (void)state;
    f = open_memstream(&one, &n1);
    h1 = live(42, 6, f, &bytes);
    fclose(f);
    f = open_memstream(&two, &n2);
    h2 = live(42, 6, f, &bytes);
    fclose(f);
    assert_true(h1 == h2);
    assert_int_equal(n1, n2);
    assert_memory_equal(one, two, n1);
    assert_true(n1 > 10000);
    h3 = live(42, 6, NULL, &bytes);     /* nobody reads: the same hash */
    assert_true(h1 == h3);
    h4 = live(43, 6, NULL, &bytes);
    assert_true(h1 != h4);
    assert_true(bytes > 1000000);
    free(one);
    free(two);
}

static void test_fifty_nodes(void **state)
{
    uint64_t a, b, h1 = live(7, NODES, NULL, &a), h2 = live(7, NODES, NULL, &b);

    (void)state;
    assert_true(h1 == h2);
    assert_true(a == b && a > 10000000);
    print_message("50 nodes: %llu bytes, hash %016llx\n", (unsigned long long)a,
                  (unsigned long long)h1);
}

static void test_many_seeds(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 130; seed++) {
        uint64_t bytes;
        live(seed, 4, NULL, &bytes);
        assert_true(bytes > 0);
    }
}

static const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
    LOOP_CASES(X)
#undef X
    cmocka_unit_test(test_bad_line),
    cmocka_unit_test(test_latency_bandwidth),
    cmocka_unit_test(test_partition),
    cmocka_unit_test(test_partition_forever),
    cmocka_unit_test(test_connect_nobody),
    cmocka_unit_test(test_reset_half_open_flip),
    cmocka_unit_test(test_crash_told), cmocka_unit_test(test_crash_told_without_memory),
    cmocka_unit_test(test_crash_silent_restart),
    cmocka_unit_test(test_crash_drops_all),
    cmocka_unit_test(test_stop_continue),
    cmocka_unit_test(test_busy),
    cmocka_unit_test(test_backlog),
    cmocka_unit_test(test_work_time),
    cmocka_unit_test(test_at_names_misc),
    cmocka_unit_test(test_same_seed),
    cmocka_unit_test(test_fifty_nodes),
    cmocka_unit_test(test_many_seeds),
};

PD_UNIT_MAIN(tests)
