/* SPDX-License-Identifier: Apache-2.0 */
/* The cases that need no other process. */
#include "transport_cases.h"

#include <dirent.h>
#include <unistd.h>

#define A_TAG 0xa1
#define B_TAG 0xb2
#define GUARD 0x5a

/* Counters and codes that only the transports of the distribution promise. */
#define assert_known(e, x) assert_true((e)->foreign || (x))
#define assert_refused(e, got, code)                                           \
    do {                                                                       \
        pd_status refused_ = (got);                                            \
        if ((e)->foreign)                                                      \
            assert_int_not_equal(refused_, PD_OK);                             \
        else                                                                   \
            assert_int_equal(refused_, code);                                  \
    } while (0)

struct pair {
    struct tr_node a, b;
    struct tr_link link;
};

static void pair_open(struct tr_env *e, struct pair *p, uint64_t bytes, const void *conf)
{
    tr_node_open(e, &p->a, e->la, A_TAG, 11, bytes, conf);
    tr_node_open(e, &p->b, e->lb, B_TAG, 22, bytes, conf);
    memset(p->a.base, GUARD, bytes);
    tr_fill(p->b.base, bytes, 1);
    tr_connect_up(e, &p->link, &p->b, &p->a);
}

static void pair_close(struct tr_env *e, struct pair *p)
{
    if (p->link.peer != NULL && p->link.downs == 0)
        tr_disconnect(e, &p->link, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &p->b);
    tr_node_close(e, &p->a);
}

static bool is_guard(const uint8_t *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i] != GUARD)
            return false;
    return true;
}

struct total {
    struct tr_window *w;
    uint64_t want;
};

static bool total_is(void *arg)
{
    struct total *t = arg;
    return t->w->total >= t->want;
}

/* OK at the poster and the count at the owner; either may come first. */
static void expect_ok(struct tr_env *e, struct tr_post *p, struct tr_window *w, uint64_t bytes,
                      uint64_t total)
{
    struct total t = { w, total };

    tr_wait_post(e, p);
    assert_int_equal(p->terminal, PD_TRANSFER_OK);
    assert_true(p->bytes == bytes);
    assert_true(e->run(e, total_is, &t));
    assert_true(w->total == total);
}

void tr_case_sizes(struct tr_env *e)
{
    static const uint64_t sizes[] = { 1, 2, 63, 64, 65, 4095, 4097, 65535, 65536, 65537, 1 << 20,
                                      (1 << 20) + 1, 3000001, 16 << 20 };
    struct pair p;

    pair_open(e, &p, 17 << 20, e->conf);
    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct pd_segment dst = { 1000 + i, sizes[i] }, src = { 7 * i + 1, sizes[i] };
        struct tr_window w;
        struct tr_post post;
        struct pd_transport_target *t;
        memset(p.a.base, GUARD, p.a.bytes);
        tr_window_open(&w, &p.a, &p.b.ctx.node, 100 + i, PD_TRANSPORT_WRITE, &dst, 1);
        t = tr_target(&p.link, &w);
        assert_int_equal(tr_post(&p.b, t, &post, 0, &src, 1), PD_OK);
        assert_int_equal(post.dones, 0);
        expect_ok(e, &post, &w, sizes[i], sizes[i]);
        assert_memory_equal(p.a.base + dst.offset, p.b.base + src.offset, sizes[i]);
        assert_true(is_guard(p.a.base, dst.offset));
        assert_true(is_guard(p.a.base + dst.offset + sizes[i], 4096));
        e->ops->target_close(t);
        tr_window_close(e, &w);
    }
    if (e->ops->stats != NULL) {
        assert_true(tr_stats(&p.b).done_ok == sizeof(sizes) / sizeof(sizes[0]));
        assert_true(tr_stats(&p.a).bytes_in == tr_stats(&p.b).bytes_out);
    }
    pair_close(e, &p);
}

/* n segments of random sizes at random places, in random order, on both sides. */
static void scatter(struct tr_env *e, struct pair *p, uint32_t n, uint32_t max_bytes, uint64_t seed)
{
    struct pd_segment *dst = calloc(n, sizeof(*dst)), *src = calloc(n, sizeof(*src));
    uint8_t *linear, *image = malloc(p->a.bytes);
    uint64_t total = 0, at_a = 3, at_b = 5, left_src;
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;
    uint32_t n_src = 0;

    for (uint32_t i = 0; i < n; i++) {
        dst[i].bytes = 1 + tr_random(&seed) % max_bytes;
        dst[i].offset = at_a;
        at_a += dst[i].bytes + tr_random(&seed) % 9;
        total += dst[i].bytes;
    }
    assert_true(at_a <= p->a.bytes);
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)(tr_random(&seed) % i);
        struct pd_segment s = dst[i - 1];
        dst[i - 1] = dst[j];
        dst[j] = s;
    }
    for (left_src = total; left_src > 0; n_src++) {
        uint64_t bytes = n_src + 1 == n ? left_src : 1 + tr_random(&seed) % (2 * total / n + 1);
        if (bytes > left_src)
            bytes = left_src;
        src[n_src].bytes = bytes;
        src[n_src].offset = at_b;
        at_b += bytes + tr_random(&seed) % 5;
        left_src -= bytes;
    }
    assert_true(at_b <= p->b.bytes);
    for (uint32_t i = n_src; i > 1; i--) {
        uint32_t j = (uint32_t)(tr_random(&seed) % i);
        struct pd_segment s = src[i - 1];
        src[i - 1] = src[j];
        src[j] = s;
    }
    memset(p->a.base, GUARD, p->a.bytes);
    memset(image, GUARD, p->a.bytes);
    linear = malloc(total);
    for (uint64_t i = 0, at = 0; i < n_src; i++) {
        memcpy(linear + at, p->b.base + src[i].offset, src[i].bytes);
        at += src[i].bytes;
    }
    for (uint64_t i = 0, at = 0; i < n; i++) {
        memcpy(image + dst[i].offset, linear + at, dst[i].bytes);
        at += dst[i].bytes;
    }
    tr_window_open(&w, &p->a, &p->b.ctx.node, 5, PD_TRANSPORT_WRITE, dst, n);
    t = tr_target(&p->link, &w);
    assert_int_equal(tr_post(&p->b, t, &post, 0, src, n_src), PD_OK);
    expect_ok(e, &post, &w, total, total);
    assert_memory_equal(image, p->a.base, p->a.bytes);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    free(linear);
    free(image);
    free(dst);
    free(src);
}

void tr_case_segments(struct tr_env *e)
{
    static const uint32_t counts[] = { 1, 2, 3, 63, 64, 65, 127, 1023, 1024, 1025, 5000 };
    struct pd_transport_info info;
    struct pair p;

    pair_open(e, &p, 4 << 20, e->conf);
    e->ops->info(p.b.tp, &info);
    for (uint32_t i = 0; i < sizeof(counts) / sizeof(counts[0]) && counts[i] <= info.max_segments; i++)
        scatter(e, &p, counts[i], 600, 31 + i);
    pair_close(e, &p);
}

void tr_case_permutation(struct tr_env *e)
{
    struct pair p;

    pair_open(e, &p, 8 << 20, e->conf);
    for (uint32_t i = 0; i < 40 / e->scale; i++)
        scatter(e, &p, 1 + i * 7, 1 + i * 613, 500 + i);
    pair_close(e, &p);
}

struct all {
    struct tr_post *posts;
    uint32_t n;
};

static bool all_done(void *arg)
{
    struct all *a = arg;

    for (uint32_t i = 0; i < a->n; i++)
        if (a->posts[i].dones == 0)
            return false;
    return true;
}

/* A long post must not hold up the short ones behind it. */
void tr_case_many(struct tr_env *e)
{
    enum { N = 500, BYTES = 4096 };
    struct pair p;
    struct tr_window w;
    struct tr_post *posts = calloc(N + 1, sizeof(*posts));
    struct pd_transport_target *t;
    struct pd_segment dst = { 0, (64 << 20) + N * BYTES }, big = { N * BYTES, 64 << 20 };
    struct all short_ones = { posts, N }, all = { posts, N + 1 };
    uint32_t after = 0;

    if (e->scale > 1)
        big.bytes = 8 << 20;
    pair_open(e, &p, dst.bytes, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 9, PD_TRANSPORT_WRITE, &dst, 1);
    t = tr_target(&p.link, &w);
    assert_int_equal(tr_post(&p.b, t, &posts[N], N * BYTES, &big, 1), PD_OK);
    for (uint32_t i = 0; i < N; i++) {
        struct pd_segment s = { i * BYTES, BYTES };
        assert_int_equal(tr_post(&p.b, t, &posts[i], i * BYTES, &s, 1), PD_OK);
    }
    assert_true(e->run(e, all_done, &short_ones));
    after = posts[N].dones;
    assert_true(e->run(e, all_done, &all));
    if (e->scale == 1)
        assert_int_equal(after, 0);
    for (uint32_t i = 0; i <= N; i++)
        assert_int_equal(posts[i].terminal, PD_TRANSFER_OK);
    assert_memory_equal(p.a.base, p.b.base, N * BYTES + big.bytes);
    assert_true(w.total == N * BYTES + big.bytes);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    free(posts);
    pair_close(e, &p);
}

static bool writable_again(void *arg)
{
    struct tr_link *l = arg;
    return l->writables > 0;
}

void tr_case_again(struct tr_env *e)
{
    enum { N = 200, BYTES = 10000 };
    struct pair p;
    struct tr_window w;
    struct tr_post posts[N];
    struct pd_transport_target *t;
    struct pd_segment dst = { 0, N * BYTES };
    struct all all = { posts, N };
    uint32_t refusals = 0;

    pair_open(e, &p, N * BYTES, e->conf_tiny);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 9, PD_TRANSPORT_WRITE, &dst, 1);
    t = tr_target(&p.link, &w);
    for (uint32_t i = 0; i < N; i++) {
        struct pd_segment s = { i * BYTES, BYTES };
        pd_status st;
        while ((st = tr_post(&p.b, t, &posts[i], i * BYTES, &s, 1)) == PD_EAGAIN) {
            refusals++;
            p.link.writables = 0;
            assert_true(e->run(e, writable_again, &p.link));
        }
        assert_int_equal(st, PD_OK);
    }
    assert_true(refusals > 0 || e->conf_tiny == e->conf);
    assert_true(e->run(e, all_done, &all));
    assert_memory_equal(p.a.base, p.b.base, N * BYTES);
    assert_true(w.total == N * BYTES);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    pair_close(e, &p);
}

/* A post to a window that its owner has closed meanwhile. */
static void refused_by_close(struct tr_env *e, struct pair *p, const struct pd_segment *dst,
                             const struct pd_segment *src)
{
    struct pd_transport_target *t;
    struct tr_window w;
    struct tr_post post;

    tr_window_open(&w, &p->a, &p->b.ctx.node, 4, PD_TRANSPORT_WRITE, dst, 1);
    t = tr_target(&p->link, &w);
    tr_window_close(e, &w);
    assert_int_equal(tr_post(&p->b, t, &post, 0, src, 1), PD_OK);
    tr_wait_post(e, &post);
    assert_int_not_equal(post.terminal, PD_TRANSFER_OK);
    assert_true(is_guard(p->a.base, p->a.bytes));
    e->ops->target_close(t);
}

/* What a peer may forge in a blob, byte by byte: see frame.h. */
void tr_case_refused(struct tr_env *e)
{
    static const struct { size_t at; const char *what; } forged[] = {
        { 56, "xid" }, { 64, "generation" }, { 80, "token" }, { 95, "token" } };
    struct pair p;
    struct pd_segment dst = { 64, 100000 }, src = { 0, 100000 };
    struct tr_window w;
    struct tr_post post;

    pair_open(e, &p, 1 << 20, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 3, PD_TRANSPORT_WRITE, &dst, 1);
    refused_by_close(e, &p, &dst, &src);
    for (uint32_t i = 0; i < 4 && !e->foreign; i++) {
        struct tr_window bad = w;
        struct pd_transport_target *t;
        uint64_t before = tr_stats(&p.a).dropped_stale;
        bad.blob[forged[i].at] ^= 1;
        t = tr_target(&p.link, &bad);
        assert_int_equal(tr_post(&p.b, t, &post, 0, &src, 1), PD_OK);
        tr_wait_post(e, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_FAILED_FENCED);
        assert_true(post.bytes == 0);
        assert_true(tr_stats(&p.a).dropped_stale > before);
        assert_true(is_guard(p.a.base, p.a.bytes));
        e->ops->target_close(t);
    }
    /* The way still works. */
    {
        struct pd_transport_target *t = tr_target(&p.link, &w);
        assert_int_equal(tr_post(&p.b, t, &post, 0, &src, 1), PD_OK);
        expect_ok(e, &post, &w, src.bytes, src.bytes);
        e->ops->target_close(t);
    }
    tr_window_close(e, &w);
    pair_close(e, &p);
}

void tr_case_bounds(struct tr_env *e)
{
    struct pair p;
    struct pd_segment dst[2] = { { 64, 1000 }, { 5000, 24 } };
    struct pd_segment src = { 0, 2000 }, outside = { (1 << 20) - 10, 11 }, none = { 0, 0 };
    struct tr_window w, bad;
    struct tr_post post;
    struct pd_transport_target *t;

    pair_open(e, &p, 1 << 20, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 3, PD_TRANSPORT_WRITE, dst, 2);
    t = tr_target(&p.link, &w);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &src, 1), PD_EINVAL);
    src.bytes = 1024;
    assert_int_equal(tr_post(&p.b, t, &post, 1, &src, 1), PD_EINVAL);
    assert_int_equal(tr_post(&p.b, t, &post, UINT64_MAX, &src, 1), PD_EINVAL);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &outside, 1), PD_EINVAL);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &none, 1), PD_EINVAL);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &src, 0), PD_EINVAL);
    e->ops->target_close(t);
    /* The owner does not trust the poster's idea of the size. */
    bad = w;
    if (!e->foreign)
        memset(bad.blob + 72, 0xff, 4);
    src.bytes = 2000;
    t = tr_target(&p.link, &bad);
    for (uint64_t offset = 0; offset < 4000 && !e->foreign; offset += 999) {
        uint64_t before = tr_stats(&p.a).dropped_bounds;
        assert_int_equal(tr_post(&p.b, t, &post, offset, &src, 1), PD_OK);
        tr_wait_post(e, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_FAILED_FENCED);
        assert_true(tr_stats(&p.a).dropped_bounds > before);
    }
    assert_true(is_guard(p.a.base, p.a.bytes));
    e->ops->target_close(t);
    tr_window_close(e, &w);
    pair_close(e, &p);
}

static bool link_down_of(void *arg)
{
    return ((struct tr_link *)arg)->downs > 0;
}

void tr_case_cancel(struct tr_env *e)
{
    uint64_t seed = 77;
    struct pair p;
    struct pd_segment all = { 0, 6 << 20 };
    uint32_t canceled = 0;

    pair_open(e, &p, all.bytes, e->conf);
    for (uint32_t i = 0; i < 60 / e->scale; i++) {
        struct tr_window w;
        struct tr_post post;
        struct pd_transport_target *t;
        tr_window_open(&w, &p.a, &p.b.ctx.node, 40 + i, PD_TRANSPORT_WRITE, &all, 1);
        t = tr_target(&p.link, &w);
        assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
        if (i % 3 != 0)
            e->pass(e, tr_random(&seed) % (i % 2 == 0 ? 3 * PD_MS : PD_MS / 4));
        if (post.dones == 0)
            e->ops->cancel(post.transfer);
        tr_wait_post(e, &post);
        if (post.terminal == PD_TRANSFER_CANCELED_FENCED) {
            /* FENCED: no byte moves any more, on either side. */
            uint8_t *copy = malloc(all.bytes);
            canceled++;
            memcpy(copy, p.a.base, all.bytes);
            tr_fill(p.b.base, all.bytes, 900 + i);
            e->pass(e, 5 * PD_MS);
            assert_memory_equal(copy, p.a.base, all.bytes);
            free(copy);
        } else {
            assert_int_equal(post.terminal, PD_TRANSFER_OK);
            assert_memory_equal(p.a.base, p.b.base, all.bytes);
        }
        e->ops->target_close(t);
        tr_window_close(e, &w);
    }
    assert_known(e, canceled > 0);
    if (e->ops->stats != NULL)
        assert_true(tr_stats(&p.b).done_canceled == canceled);
    pair_close(e, &p);
}

/* A fence ends everything, at once and for good. */
void tr_case_cancel_fenced(struct tr_env *e)
{
    enum { N = 50, BYTES = 300000 };
    struct pair p;
    struct tr_window w;
    struct tr_post posts[N], late;
    struct pd_transport_target *t;
    struct pd_segment all = { 0, (uint64_t)N * BYTES };
    uint8_t *copy;

    pair_open(e, &p, all.bytes, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 40, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&p.link, &w);
    for (uint32_t i = 0; i < N; i++) {
        struct pd_segment s = { (uint64_t)i * BYTES, BYTES };
        assert_int_equal(tr_post(&p.b, t, &posts[i], s.offset, &s, 1), PD_OK);
    }
    e->pass(e, PD_MS / 2);
    e->ops->disconnect(p.link.peer, PD_DISCONNECT_FENCE);
    assert_int_equal(tr_post(&p.b, t, &late, 0, &all, 1), PD_ESTALE);
    assert_true(e->run(e, link_down_of, &p.link));
    assert_int_equal(p.link.downs, 1);
    assert_int_equal(p.link.down_status, PD_OK);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(posts[i].dones, 1);
        assert_int_not_equal(posts[i].terminal, PD_TRANSFER_FAILED_UNFENCED);
    }
    copy = malloc(all.bytes);
    memcpy(copy, p.a.base, all.bytes);
    e->pass(e, 20 * PD_MS);
    assert_memory_equal(copy, p.a.base, all.bytes);
    free(copy);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    pair_close(e, &p);
}

void tr_case_close_while_writing(struct tr_env *e)
{
    uint64_t seed = 5;
    struct pair p;
    struct pd_segment all = { 0, 6 << 20 };
    uint32_t failed = 0;

    pair_open(e, &p, all.bytes, e->conf);
    for (uint32_t i = 0; i < 60 / e->scale; i++) {
        struct tr_window w;
        struct tr_post post;
        struct pd_transport_target *t;
        tr_window_open(&w, &p.a, &p.b.ctx.node, 40 + i, PD_TRANSPORT_WRITE, &all, 1);
        t = tr_target(&p.link, &w);
        assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
        if (i % 4 != 0)
            e->pass(e, tr_random(&seed) % (i % 2 == 0 ? 3 * PD_MS : PD_MS / 4));
        tr_window_close(e, &w);
        memset(p.a.base, GUARD, all.bytes);
        tr_wait_post(e, &post);
        e->pass(e, 2 * PD_MS);
        assert_true(is_guard(p.a.base, all.bytes));
        if (post.terminal != PD_TRANSFER_OK) {
            assert_int_equal(post.terminal, PD_TRANSFER_FAILED_FENCED);
            failed++;
        }
        e->ops->target_close(t);
    }
    assert_known(e, failed > 0);
    assert_known(e, tr_stats(&p.a).dropped_stale > 0);
    pair_close(e, &p);
}

/* Bytes that come twice count once, and the last ones stay. */
void tr_case_twice(struct tr_env *e)
{
    struct pair p;
    struct pd_segment all = { 0, 100000 }, part = { 200000, 30000 };
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;

    pair_open(e, &p, 1 << 20, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&p.link, &w);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(tr_post(&p.b, t, &post, 20000, &part, 1), PD_OK);
        expect_ok(e, &post, &w, 30000, 30000);
    }
    assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
    expect_ok(e, &post, &w, 100000, 100000);
    assert_memory_equal(p.a.base, p.b.base, 100000);
    assert_int_equal(tr_post(&p.b, t, &post, 50000, &part, 1), PD_OK);
    expect_ok(e, &post, &w, 30000, 100000);
    assert_memory_equal(p.a.base + 50000, p.b.base + 200000, 30000);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    pair_close(e, &p);
}

void tr_case_disconnects(struct tr_env *e)
{
    struct pair p;
    struct pd_segment all = { 0, 4 << 20 };
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;
    struct tr_link early;

    pair_open(e, &p, all.bytes, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&p.link, &w);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
    tr_disconnect(e, &p.link, PD_DISCONNECT_DRAIN);
    assert_int_equal(post.dones, 1);
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    assert_memory_equal(p.a.base, p.b.base, all.bytes);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_ESTALE);
    e->ops->target_close(t);
    /* Before it is up: on_down instead of on_up. */
    assert_int_equal(tr_connect(&early, &p.b, &p.a), PD_OK);
    tr_disconnect(e, &early, PD_DISCONNECT_FENCE);
    assert_int_equal(early.ups, 0);
    tr_window_close(e, &w);
    pair_close(e, &p);
}

/* The lease has ended, and a later one uses the same name. */
static void stale_generation(struct tr_env *e, struct pair *p)
{
    struct pd_segment all = { 0, 100000 };
    struct tr_window first, second;
    struct tr_post post;
    struct pd_transport_target *t;

    tr_window_open(&first, &p->a, &p->b.ctx.node, 2, PD_TRANSPORT_WRITE, &all, 1);
    tr_window_close(e, &first);
    memset(p->a.base, GUARD, p->a.bytes);
    e->lease++;
    tr_window_open(&second, &p->a, &p->b.ctx.node, 2, PD_TRANSPORT_WRITE, &all, 1);
    e->lease--;
    t = tr_target(&p->link, &first);
    assert_int_equal(tr_post(&p->b, t, &post, 0, &all, 1), PD_OK);
    tr_wait_post(e, &post);
    assert_int_not_equal(post.terminal, PD_TRANSFER_OK);
    assert_true(is_guard(p->a.base, p->a.bytes));
    assert_true(second.total == 0);
    e->ops->target_close(t);
    tr_window_close(e, &second);
}

/* Handles of an earlier life are refused, at the poster and at the owner. */
void tr_case_stale(struct tr_env *e)
{
    struct pair p;
    struct pd_segment all = { 0, 100000 };
    struct tr_window w, w2;
    struct tr_post post;
    struct pd_transport_target *t, *none = NULL;
    struct tr_node old;

    pair_open(e, &p, 1 << 20, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    /* The poster restarts: the window was for its earlier life. */
    tr_disconnect(e, &p.link, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &p.b);
    tr_node_open(e, &p.b, e->lb, B_TAG, 23, 1 << 20, e->conf);
    tr_connect_up(e, &p.link, &p.b, &p.a);
    assert_refused(e, e->ops->target_open(p.link.peer, w.blob, w.blob_len, &none), PD_EPERM);
    if (!e->foreign) {
        struct tr_window forged = w;
        memcpy(forged.blob + 32 + 16, &p.b.ctx.node.epoch, 8);
        t = tr_target(&p.link, &forged);
        assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
        tr_wait_post(e, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_FAILED_FENCED);
        assert_true(tr_stats(&p.a).dropped_stale > 0);
        assert_true(is_guard(p.a.base, p.a.bytes));
        e->ops->target_close(t);
    }
    tr_window_close(e, &w);
    /* The owner restarts: the blob is of its earlier life. */
    tr_disconnect(e, &p.link, PD_DISCONNECT_DRAIN);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    tr_window_close(e, &w);
    old = p.a;
    tr_node_close(e, &p.a);
    tr_node_open(e, &p.a, e->la, A_TAG, 12, 1 << 20, e->conf);
    tr_connect_up(e, &p.link, &p.b, &p.a);
    assert_refused(e, e->ops->target_open(p.link.peer, w.blob, w.blob_len, &none), PD_ESTALE);
    assert_true(old.ctx.node.epoch != p.a.ctx.node.epoch);
    tr_window_open(&w2, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&p.link, &w2);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
    expect_ok(e, &post, &w2, all.bytes, all.bytes);
    e->ops->target_close(t);
    tr_window_close(e, &w2);
    stale_generation(e, &p);
    pair_close(e, &p);
}

static bool told_up(void *arg)
{
    return ((struct tr_link *)arg)->ups > 0;
}

void tr_case_wrong_identity(struct tr_env *e)
{
    struct pair p;
    struct tr_link l;
    struct tr_node other;

    pair_open(e, &p, 1 << 20, e->conf);
    /* The node at that address is of another epoch, or another node. */
    other = p.a;
    other.ctx.node.epoch++;
    assert_int_equal(tr_connect(&l, &p.b, &other), PD_OK);
    assert_true(e->run(e, told_up, &l));
    assert_refused(e, l.up_status, PD_ESTALE);
    other = p.a;
    other.ctx.node.uuid.b[5] ^= 1;
    assert_int_equal(tr_connect(&l, &p.b, &other), PD_OK);
    assert_true(e->run(e, told_up, &l));
    assert_refused(e, l.up_status, PD_ESTALE);
    assert_int_equal(l.downs, 0);
    pair_close(e, &p);
}

void tr_case_busy(struct tr_env *e)
{
    struct pair p;
    struct pd_segment all = { 0, 1 << 20 };
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;
    struct pd_window_desc desc;
    struct pd_window_events no_events = { .size = sizeof(no_events) };
    struct pd_transport_window *none = NULL;

    pair_open(e, &p, all.bytes, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    assert_int_equal(e->ops->memory_remove(p.a.memory), PD_EBUSY);
    memset(&desc, 0, sizeof(desc));
    desc.size = sizeof(desc);
    desc.access = PD_TRANSPORT_WRITE;
    desc.xid = 1;
    desc.memory = p.a.memory;
    desc.segments = &all;
    desc.n_segments = 1;
    assert_int_equal(e->ops->window_open(p.a.tp, &desc, &no_events, NULL, &none), PD_EEXIST);
    desc.xid = 2;
    all.offset = 1;
    assert_int_equal(e->ops->window_open(p.a.tp, &desc, &no_events, NULL, &none), PD_EINVAL);
    all.offset = 0;
    t = tr_target(&p.link, &w);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
    assert_int_equal(e->ops->memory_remove(p.b.memory), PD_EBUSY);
    expect_ok(e, &post, &w, all.bytes, all.bytes);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    pair_close(e, &p);
}

static uint32_t open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint32_t n = 0;

    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

void tr_case_reconnects(struct tr_env *e)
{
    struct pair p;
    struct pd_segment all = { 0, 5000 };
    struct tr_window w;
    uint32_t before = 0, now = 0, idle = 0;

    pair_open(e, &p, 1 << 20, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    for (uint32_t i = 0; i < 1000 / e->scale; i++) {
        struct tr_link l;
        struct tr_post post;
        struct pd_transport_target *t;
        tr_connect_up(e, &l, &p.b, &p.a);
        t = tr_target(&l, &w);
        assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
        tr_wait_post(e, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_OK);
        tr_disconnect(e, &l, i % 2 ? PD_DISCONNECT_FENCE : PD_DISCONNECT_DRAIN);
        e->ops->target_close(t);
        if (i == 10)
            before = open_descriptors();
    }
    /* The owner's side learns of the last ends a little later. */
    do {
        e->pass(e, 10 * PD_MS);
        now = open_descriptors();
    } while (now > before && ++idle < 100);
    assert_true(now <= before);
    tr_window_close(e, &w);
    pair_close(e, &p);
}

void tr_case_fuzz(struct tr_env *e)
{
    uint64_t seed = 321;
    struct pair p;
    struct pd_segment all = { 0, 5000 };
    struct tr_window w;
    struct pd_transport_target *t = NULL;
    uint8_t address[512];
    size_t len;

    pair_open(e, &p, 1 << 20, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    for (size_t n = 0; n < w.blob_len; n++)
        assert_int_not_equal(e->ops->target_open(p.link.peer, w.blob, n, &t), PD_OK);
    for (uint32_t i = 0; i < 2000; i++) {
        uint8_t blob[256];
        memcpy(blob, w.blob, sizeof(blob));
        for (uint32_t k = 0; k < 1 + i % 4; k++)
            blob[tr_random(&seed) % w.blob_len] ^= (uint8_t)(1 + tr_random(&seed) % 255);
        if (e->ops->target_open(p.link.peer, blob, w.blob_len, &t) == PD_OK)
            e->ops->target_close(t);
    }
    assert_int_equal(e->ops->address(p.a.tp, address, sizeof(address), &len), PD_OK);
    for (size_t n = 0; n < len; n++) {
        struct pd_transport_peer_desc desc = { .size = sizeof(desc), .address = address,
                                               .address_len = (uint32_t)n, .node = p.a.ctx.node };
        struct pd_transport_peer *peer = NULL;
        assert_int_not_equal(e->ops->connect(p.b.tp, &desc,
                                             &(struct pd_transport_peer_events){ 0 }, NULL, &peer),
                             PD_OK);
    }
    tr_window_close(e, &w);
    pair_close(e, &p);
}

static pd_status post_read(struct tr_node *n, struct pd_transport_target *t, struct tr_post *p,
                           uint64_t offset, const struct pd_segment *segs, uint32_t n_segs)
{
    struct pd_post post;

    memset(p, 0, sizeof(*p));
    memset(&post, 0, sizeof(post));
    post.size = sizeof(post);
    post.op = PD_TRANSPORT_READ;
    post.offset = offset;
    post.memory = n->memory;
    post.segments = segs;
    post.n_segments = n_segs;
    post.arg = p;
    return n->env->ops->post(t, &post, &p->transfer);
}

static bool has_read(struct tr_env *e, struct tr_node *n)
{
    struct pd_transport_info info;

    e->ops->info(n->tp, &info);
    assert_true(info.max_segments >= 1024);
    return (info.flags & PD_TRANSPORT_READ) != 0;
}

void tr_case_read(struct tr_env *e)
{
    static const uint64_t sizes[] = { 1, 65, 4097, 65537, 3000001, 9 << 20 };
    struct pair p;
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;

    pair_open(e, &p, 10 << 20, e->conf);
    for (uint32_t i = 0; has_read(e, &p.b) && i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct pd_segment src[2] = { { 99, sizes[i] }, { 5, 10 } };
        struct pd_segment dst[2] = { { 3 + i, sizes[i] / 2 + 1 },
                                     { (5 << 20) + 4096, sizes[i] / 2 + 9 } };
        uint64_t n = dst[0].bytes + dst[1].bytes <= sizes[i] + 10 ? 2 : 1;
        tr_fill(p.a.base, p.a.bytes, i);
        memset(p.b.base, GUARD, p.b.bytes);
        tr_window_open(&w, &p.a, &p.b.ctx.node, 70 + i, PD_TRANSPORT_READ, src, 2);
        t = tr_target(&p.link, &w);
        assert_refused(e, tr_post(&p.b, t, &post, 0, dst, 1), PD_EPERM);
        assert_int_equal(post_read(&p.b, t, &post, 0, dst, (uint32_t)n), PD_OK);
        tr_wait_post(e, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_OK);
        assert_memory_equal(p.b.base + dst[0].offset, p.a.base + 99,
                            dst[0].bytes < sizes[i] ? dst[0].bytes : sizes[i]);
        if (n == 2 && sizes[i] > dst[0].bytes)
            assert_memory_equal(p.b.base + dst[1].offset, p.a.base + 99 + dst[0].bytes,
                                sizes[i] - dst[0].bytes);
        assert_true(is_guard(p.b.base, dst[0].offset));
        e->ops->target_close(t);
        /* A window for writing cannot be read, and the other way round. */
        if (!e->foreign) {
            struct tr_window forged = w;
            forged.blob[6] = PD_TRANSPORT_WRITE;
            t = tr_target(&p.link, &forged);
            assert_int_equal(tr_post(&p.b, t, &post, 0, dst, 1), PD_OK);
            tr_wait_post(e, &post);
            assert_int_equal(post.terminal, PD_TRANSFER_FAILED_FENCED);
            e->ops->target_close(t);
        }
        tr_window_close(e, &w);
    }
    pair_close(e, &p);
}

/* Cancel, or the owner's close, in the middle of a READ. */
void tr_case_read_stop(struct tr_env *e)
{
    uint64_t seed = 99;
    struct pair p;
    struct pd_segment all = { 0, 6 << 20 };

    pair_open(e, &p, all.bytes, e->conf);
    for (uint32_t i = 0; has_read(e, &p.b) && i < 60 / e->scale; i++) {
        struct tr_window w;
        struct tr_post post;
        struct pd_transport_target *t;
        tr_fill(p.a.base, all.bytes, i);
        tr_window_open(&w, &p.a, &p.b.ctx.node, 40 + i, PD_TRANSPORT_READ, &all, 1);
        t = tr_target(&p.link, &w);
        assert_int_equal(post_read(&p.b, t, &post, 0, &all, 1), PD_OK);
        e->pass(e, tr_random(&seed) % (3 * PD_MS));
        if (i % 2 == 0 && post.dones == 0) {
            e->ops->cancel(post.transfer);
            /* No need to wait for the other side. */
            e->pass(e, PD_US);
            assert_int_equal(post.dones, 1);
            assert_int_equal(post.terminal, PD_TRANSFER_CANCELED_FENCED);
            memset(p.b.base, GUARD, all.bytes);
            e->pass(e, 3 * PD_MS);
            assert_true(is_guard(p.b.base, all.bytes));
            tr_window_close(e, &w);
        } else {
            tr_window_close(e, &w);
            /* What is reported as read was read before the close. */
            tr_fill(p.a.base, all.bytes, 5000);
            tr_wait_post(e, &post);
            if (post.terminal == PD_TRANSFER_OK) {
                uint8_t *image = malloc(all.bytes);
                tr_fill(image, all.bytes, i);
                assert_memory_equal(image, p.b.base, all.bytes);
                free(image);
            } else {
                assert_int_equal(post.terminal, PD_TRANSFER_FAILED_FENCED);
            }
        }
        e->ops->target_close(t);
    }
    pair_close(e, &p);
}

/* Memories come and go while the link stays. */
void tr_case_memory_churn(struct tr_env *e)
{
    struct pair p;
    struct pd_segment all = { 0, 50000 };
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;
    uint32_t before = 0;

    pair_open(e, &p, 1 << 20, e->conf);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&p.link, &w);
    for (uint32_t i = 0; i < 200; i++) {
        struct pd_memory_desc desc = { .size = sizeof(desc), .fd = p.b.fd,
                                       .base = p.b.base + 4096 * (i % 7),
                                       .fd_offset = 4096 * (i % 7), .bytes = 60000 + i };
        struct tr_node shadow = p.b;
        assert_int_equal(e->ops->memory_add(p.b.tp, &desc, &shadow.memory, NULL), PD_OK);
        assert_int_equal(tr_post(&shadow, t, &post, 0, &all, 1), PD_OK);
        tr_wait_post(e, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_OK);
        assert_memory_equal(p.a.base, desc.base, all.bytes);
        assert_int_equal(e->ops->memory_remove(shadow.memory), PD_OK);
        if (i == 10)
            before = open_descriptors();
    }
    e->pass(e, 10 * PD_MS);
    assert_true(open_descriptors() <= before + 1);
    e->ops->target_close(t);
    tr_window_close(e, &w);
    pair_close(e, &p);
}

/* A way that is cut silently is noticed in the time that info promises. */
void tr_case_cut(struct tr_env *e)
{
    struct pair p;
    struct pd_segment all = { 0, 4 << 20 };
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;
    struct pd_transport_info info;

    pair_open(e, &p, all.bytes, e->conf);
    e->ops->info(p.b.tp, &info);
    tr_window_open(&w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&p.link, &w);
    e->cut(e, true);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_OK);
    e->pass(e, (pd_time)info.failure_ms * PD_MS + PD_MS);
    assert_int_equal(p.link.downs, 1);
    assert_int_equal(p.link.down_status, PD_ETIMEDOUT);
    assert_int_equal(post.dones, 1);
    assert_int_equal(post.terminal, PD_TRANSFER_FAILED_UNFENCED);
    assert_int_equal(tr_post(&p.b, t, &post, 0, &all, 1), PD_ESTALE);
    e->ops->target_close(t);
    e->cut(e, false);
    tr_window_close(e, &w);
    tr_connect_up(e, &p.link, &p.b, &p.a);
    /* An idle link is found dead too. */
    e->cut(e, true);
    e->pass(e, 60 * PD_SEC);
    assert_int_equal(p.link.downs, 1);
    e->cut(e, false);
    pair_close(e, &p);
}
