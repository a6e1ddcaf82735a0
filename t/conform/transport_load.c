/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for transports: posts that begin from inside events and after a rest,
 * ways from both sides, and many bytes. */
#include "conform/transport_run.h"

#define A_TAG 0xa1
#define B_TAG 0xb2

/* As e->run; on a real loop with a limit of its own. */
static bool run_for(struct tr_env *e, bool (*cond)(void *arg), void *arg, pd_time limit)
{
    return e->run_loop != NULL ? e->run_loop(e->la, cond, arg, limit) : e->run(e, cond, arg);
}

static bool post_over(void *arg)
{
    return ((struct tr_post *)arg)->dones > 0;
}

/* ---- nobody is forgotten */

static void wakeup_case(struct tr_env *e)
{
    enum { N = 300, SLOW = 200 };
    struct cf_pair p;
    uint64_t before = 0, after, seed = 9;
    uint32_t slow = 0;

    cf_pair_open(e, &p, 1 << 20, 1 << 20, e->conf);
    for (uint32_t i = 0; i < N; i++) {
        struct pd_segment src = { i, 1 + tr_random(&seed) % (i % 4 == 0 ? 200000 : 100) };
        pd_time begin = pd_loop_clock(e->lb);
        struct tr_post post;
        assert_int_equal(tr_post(&p.b, p.t, &post, i, &src, 1), PD_OK);
        CF_NEED(run_for(e, post_over, &post, 10 * PD_SEC),
                "post %u, made when nothing moved, does not end within 10 s", i);
        CF_NEED(post.terminal == PD_TRANSFER_OK, "post %u ends with %u", i, post.terminal);
        slow += pd_loop_clock(e->lb) - begin > SLOW * PD_MS;
        if (i % 10 == 0)
            e->pass(e, i % 50 == 0 ? 20 * PD_MS : 0);
        if (i == 50)
            before = cf_memory();
    }
    CF_NEED(slow < N / 10, "%u of %u small posts, made when nothing moved, take more than %u ms", slow,
            (uint32_t)N, (uint32_t)SLOW);
    after = cf_memory();
    if (e->la == e->lb)
        CF_NEED(after < before + 16384, "%llu bytes are kept in %u posts", (unsigned long long)(after - before),
                N - 51);
    cf_pair_close(e, &p);
}

/* Each post is made by the end of one before. */
struct chain {
    struct cf_pair *p;
    uint32_t begun, done, want, most;   /* most: under way */
    struct tr_post posts[8];
    bool is_full;                       /* on_writable will come */
};

static void chain_post(struct chain *c, struct tr_post *post);

static void chain_done(struct tr_post *post)
{
    struct chain *c = post->arg;

    CF_NEED(post->terminal == PD_TRANSFER_OK, "post %u ends with %u", c->done, post->terminal);
    c->done++;
    chain_post(c, post);
}

static void chain_writable(struct tr_link *l)
{
    struct chain *c = l->arg;

    c->is_full = false;
    for (uint32_t i = 0; i < c->most; i++)
        if (c->posts[i].transfer == NULL)
            chain_post(c, &c->posts[i]);
}

static void chain_post(struct chain *c, struct tr_post *post)
{
    struct pd_segment src = { c->begun % 4096, 1 + c->begun % 3000 };
    pd_status st;

    memset(post, 0, sizeof(*post));
    if (c->is_full || c->begun == c->want)
        return;
    st = tr_post(&c->p->b, c->p->t, post, src.offset, &src, 1);
    if (st == PD_EAGAIN) {
        c->is_full = true;
        post->transfer = NULL;
        return;
    }
    CF_NEED(st == PD_OK, "post %u, made from inside an event, is answered %d", c->begun, st);
    post->then = chain_done;
    post->arg = c;
    c->begun++;
}

static bool chain_over(void *arg)
{
    struct chain *c = arg;

    return c->done == c->want;
}

static void chain_run(struct tr_env *e, const void *conf, uint32_t most, uint32_t want)
{
    struct cf_pair p;
    struct chain c = { .p = &p, .want = want, .most = most };

    cf_pair_open(e, &p, 1 << 20, 1 << 20, conf);
    p.link.then = chain_writable;
    p.link.arg = &c;
    for (uint32_t i = 0; i < most; i++)
        chain_post(&c, &c.posts[i]);
    CF_NEED(run_for(e, chain_over, &c, 20 * PD_SEC),
            "of %u posts that on_done and on_writable make, %u are made and %u done: a wake-up is lost", c.want,
            c.begun, c.done);
    p.link.then = NULL;
    cf_pair_close(e, &p);
}

static void chain_case(struct tr_env *e)
{
    chain_run(e, e->conf, 1, 1000);
    chain_run(e, e->conf, 3, 1000);
    chain_run(e, e->conf_tiny, 8, 1000);
}

/* ---- what was told is there */

struct watch {
    struct cf_pair *p;
    uint64_t bytes, round;
};

static void whole(struct watch *v, const char *who)
{
    CF_NEED(memcmp(v->p->a.base, v->p->b.base, v->bytes) == 0,
            "round %llu: %s tells of bytes that are not there", (unsigned long long)v->round, who);
}

static void on_landed(struct tr_window *w)
{
    struct watch *v = w->arg;

    if (w->total == v->bytes)
        whole(v, "on_bytes");
}

static void on_written(struct tr_post *post)
{
    if (post->terminal == PD_TRANSFER_OK)
        whole(post->arg, "on_done");
}

static void visible_case(struct tr_env *e)
{
    struct cf_pair p;
    struct pd_segment all = { 0, 3 << 20 };
    struct watch v = { .p = &p, .bytes = all.bytes };

    cf_pair_open(e, &p, all.bytes, 1, e->conf);
    for (v.round = 0; v.round < 40; v.round++) {
        struct pd_transport_target *t;
        struct tr_window w;
        struct tr_post post;
        tr_fill(p.b.base, all.bytes, 77 + v.round);
        tr_window_open(&w, &p.a, &p.b.ctx.node, 100 + v.round, PD_TRANSPORT_WRITE, &all, 1);
        t = tr_target(&p.link, &w);
        assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
        w.then = on_landed;
        post.then = on_written;
        w.arg = post.arg = &v;
        CF_NEED(e->run(e, post_over, &post) && post.terminal == PD_TRANSFER_OK, "a post ends with %u",
                post.terminal);
        e->ops->target_close(t);
        tr_window_close(e, &w);
    }
    cf_pair_close(e, &p);
}

/* ---- ways */

static bool links_up(void *arg)
{
    struct tr_link *l = arg;

    for (; l->node != NULL; l++)
        if (l->ups == 0)
            return false;
    return true;
}

/* Both sides connect in the same moment, several times over. */
static void both_sides_case(struct tr_env *e)
{
    enum { N = 2 };
    struct pd_segment all = { 0, 100000 };
    struct tr_node n[2];
    struct tr_link l[2 * N + 1];
    struct tr_window w[2];
    struct tr_post posts[2 * N];
    struct pd_transport_target *t[2 * N];
    uint32_t fds = 0;

    memset(l, 0, sizeof(l));
    tr_node_open(e, &n[0], e->la, A_TAG, 11, 1 << 20, e->conf);
    tr_node_open(e, &n[1], e->lb, B_TAG, 22, 1 << 20, e->conf);
    tr_fill(n[0].base + 500000, all.bytes, 3);
    tr_fill(n[1].base + 500000, all.bytes, 4);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 2 * N; i++)
            assert_int_equal(tr_connect(&l[i], &n[i % 2], &n[1 - i % 2]), PD_OK);
        CF_NEED(e->run(e, links_up, l), "two nodes that connect to each other at a time do not both come up");
        for (uint32_t i = 0; i < 2; i++)
            tr_window_open(&w[i], &n[1 - i], &n[i].ctx.node, 5 + i, PD_TRANSPORT_WRITE, &all, 1);
        for (uint32_t i = 0; i < 2 * N; i++) {
            struct pd_segment src = { 500000, all.bytes };
            CF_NEED(l[i].up_status == PD_OK, "two nodes that connect to each other at a time: on_up says %d",
                    l[i].up_status);
            t[i] = tr_target(&l[i], &w[i % 2]);
            assert_int_equal(tr_post(&n[i % 2], t[i], &posts[i], 0, &src, 1), PD_OK);
        }
        for (uint32_t i = 0; i < 2 * N; i++) {
            tr_wait_post(e, &posts[i]);
            assert_int_equal(posts[i].terminal, PD_TRANSFER_OK);
            e->ops->target_close(t[i]);
        }
        for (uint32_t i = 0; i < 2; i++) {
            assert_memory_equal(n[1 - i].base, n[i].base + 500000, all.bytes);
            tr_window_close(e, &w[i]);
        }
        for (uint32_t i = 0; i < 2 * N; i++)
            tr_disconnect(e, &l[i], i % 3 == 0 ? PD_DISCONNECT_FENCE : PD_DISCONNECT_DRAIN);
        for (uint32_t i = 0; i < 100 && (i == 0 || (round > 0 && cf_descriptors() > fds)); i++)
            e->pass(e, 10 * PD_MS);
        if (round == 0)
            fds = cf_descriptors();
        CF_NEED(cf_descriptors() <= fds, "%u descriptors are lost", cf_descriptors() - fds);
    }
    tr_node_close(e, &n[1]);
    tr_node_close(e, &n[0]);
}

/* A node that writes to itself. */
static void itself_case(struct tr_env *e)
{
    struct pd_segment dst = { 10, 300000 }, src = { 500000, 300000 };
    struct pd_transport_target *t;
    struct tr_node n;
    struct tr_link l;
    struct tr_window w;
    struct tr_post post;

    tr_node_open(e, &n, e->la, A_TAG, 11, 1 << 20, e->conf);
    tr_fill(n.base, n.bytes, 8);
    tr_connect_up(e, &l, &n, &n);
    tr_window_open(&w, &n, &n.ctx.node, 1, PD_TRANSPORT_WRITE, &dst, 1);
    t = tr_target(&l, &w);
    assert_int_equal(tr_post(&n, t, &post, 0, &src, 1), PD_OK);
    tr_wait_post(e, &post);
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    assert_memory_equal(n.base + dst.offset, n.base + src.offset, src.bytes);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    tr_disconnect(e, &l, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &n);
}

/* ---- many bytes */

struct stream {
    struct cf_pair *p;
    uint64_t begun, done, want, piece;
    struct tr_post posts[4];
    pd_time end;
};

static void stream_post(struct stream *s, struct tr_post *post);

static void stream_done(struct tr_post *post)
{
    struct stream *s = post->arg;

    CF_NEED(post->terminal == PD_TRANSFER_OK && post->bytes == s->piece,
            "a post of %llu bytes ends with %u after %llu", (unsigned long long)s->piece, post->terminal, (unsigned long long)post->bytes);
    s->done += post->bytes;
    stream_post(s, post);
}

static void stream_post(struct stream *s, struct tr_post *post)
{
    uint64_t at = s->begun % (s->piece * 4);
    struct pd_segment src = { at, s->piece };

    if (s->begun >= s->want || (pd_loop_clock(s->p->b.loop) >= s->end && s->begun >= (uint64_t)128 << 20)) {
        s->want = s->begun;
        return;
    }
    assert_int_equal(tr_post(&s->p->b, s->p->t, post, at, &src, 1), PD_OK);
    s->begun += s->piece;
    post->then = stream_done;
    post->arg = s;
}

static bool stream_over(void *arg)
{
    struct stream *s = arg;

    return s->done == s->want;
}

/* 1 GiB through 16 MiB, or as much as 15 seconds allow. */
static void large_case(struct tr_env *e)
{
    struct cf_pair p;
    struct stream s = { .p = &p, .want = (uint64_t)1 << 30, .piece = 4 << 20 };
    uint64_t before;

    cf_pair_open(e, &p, 16 << 20, 16 << 20, e->conf);
    s.end = pd_loop_clock(e->lb) + 15 * PD_SEC;
    before = cf_memory();
    for (uint32_t i = 0; i < 4; i++)
        stream_post(&s, &s.posts[i]);
    CF_NEED(run_for(e, stream_over, &s, 60 * PD_SEC), "%llu of %llu bytes are there after a minute",
            (unsigned long long)s.done, (unsigned long long)s.want);
    CF_NEED(cf_memory() < before + (8 << 20), "%llu bytes of memory are taken on the way",
            (unsigned long long)(cf_memory() - before));
    CF_NEED(p.w.total == p.a.bytes, "%llu bytes of a window of 16 MiB have landed, each counted once",
            (unsigned long long)p.w.total);
    assert_memory_equal(p.a.base, p.b.base, p.a.bytes);
    cf_pair_close(e, &p);
}

#define REAL(name)                                                             \
    static void run_##name(const struct cf_unit *u)                            \
    {                                                                          \
        cf_on_real_loop(u, name##_case);                                       \
    }
#define BOTH(name)                                                             \
    REAL(name)                                                                 \
    static void sim_##name(const struct cf_unit *u)                            \
    {                                                                          \
        cf_in_simulator(u, name##_case);                                       \
    }
BOTH(wakeup)
BOTH(chain)
BOTH(visible)
BOTH(both_sides)
REAL(itself)
REAL(large)
#undef REAL
#undef BOTH

#define BOTH(name, what) { #name, what, run_##name }, { "sim_" #name, what " (simulator)", sim_##name }

const struct cf_case cf_transport_load_cases[] = {
    BOTH(wakeup, "posts that are made when nothing moves, 300 of them"),
    BOTH(chain, "posts that on_done and on_writable make"),
    BOTH(visible, "what on_bytes and on_done tell of is there"),
    BOTH(both_sides, "two nodes connect to each other at a time"),
    { "itself", "a node writes to itself", run_itself },
    { "large", "1 GiB through 16 MiB", run_large },
    { NULL, NULL, NULL },
};
