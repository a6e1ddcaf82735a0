/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for transports that take long or much memory (option -L): one post as
 * large as they come, as many pieces as they take, ten thousand ways, and random
 * posts, cancellations and fences for as long as one likes. */
#include "conform/transport_run.h"

#include "base/compiler.h"

#define GUARD 0xee

uint32_t cf_long;

static bool post_over(void *arg)
{
    return ((struct tr_post *)arg)->dones > 0;
}

static struct pd_transport_info info_of(struct tr_node *n)
{
    struct pd_transport_info info = { .size = sizeof(info) };

    n->env->ops->info(n->tp, &info);
    return info;
}

/* ---- one post of 1 GiB, or of max_bytes */

static void huge_case(struct tr_env *e)
{
    enum { SOURCE = 16 << 20, TIMES = 64 };
    struct pd_segment all = { 0, 0 }, src[TIMES];
    struct tr_node a, b;
    struct tr_link l;
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;

    tr_node_open(e, &b, e->lb, 0xb2, 22, SOURCE, e->conf);
    uint64_t most = info_of(&b).max_bytes, n = most < (uint64_t)SOURCE * TIMES ? most : (uint64_t)SOURCE * TIMES;
    uint32_t n_src = 0;
    for (uint64_t left = n; left > 0; left -= src[n_src++].bytes)
        src[n_src] = (struct pd_segment){ 0, left < SOURCE ? left : SOURCE };
    tr_node_open(e, &a, e->la, 0xa1, 11, n + 2, e->conf);
    a.base[0] = a.base[n + 1] = GUARD;
    tr_fill(b.base, SOURCE, 1);
    tr_connect_up(e, &l, &b, &a);
    all = (struct pd_segment){ 1, n };
    tr_window_open(&w, &a, &b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    t = tr_target(&l, &w);
    pd_status st = tr_post(&b, t, &post, 0, src, n_src);
    CF_NEED(st == PD_OK, "a post of %llu bytes is answered %d, and max_bytes is %llu", (unsigned long long)n, st,
            (unsigned long long)most);
    CF_NEED(e->run_loop(e->la, post_over, &post, 120 * PD_SEC), "a post of %llu bytes does not end in 2 minutes",
            (unsigned long long)n);
    CF_NEED(post.terminal == PD_TRANSFER_OK && post.bytes == n, "a post of %llu bytes ends with %u after %llu",
            (unsigned long long)n, post.terminal, (unsigned long long)post.bytes);
    for (uint64_t at = 0; at < n; at += SOURCE)
        CF_NEED(memcmp(a.base + 1 + at, b.base, n - at < SOURCE ? n - at : SOURCE) == 0,
                "of a post of %llu bytes those from %llu on are wrong", (unsigned long long)n, (unsigned long long)at);
    CF_NEED(a.base[0] == GUARD && a.base[n + 1] == GUARD, "a byte beside the window was written");
    e->ops->target_close(t);
    tr_window_close(e, &w);
    tr_disconnect(e, &l, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &b);
    tr_node_close(e, &a);
}

/* ---- 100,000 pieces of odd lengths, in any order, with a guard behind each */

static void pieces_case(struct tr_env *e)
{
    enum { MOST = 100000, STRIDE = 64 };
    uint64_t seed = 5, bytes = 0, at = 0;
    struct pd_segment *dst = calloc(MOST, sizeof(*dst)), *src = calloc(MOST, sizeof(*src));
    struct tr_node a, b;
    struct tr_link l;
    struct tr_window w;
    struct tr_post post;
    struct pd_transport_target *t;

    assert_true(dst != NULL && src != NULL);
    tr_node_open(e, &a, e->la, 0xa1, 11, (uint64_t)MOST * STRIDE, e->conf);
    tr_node_open(e, &b, e->lb, 0xb2, 22, (uint64_t)MOST * STRIDE, e->conf);
    memset(a.base, GUARD, a.bytes);
    tr_fill(b.base, b.bytes, 2);
    for (uint32_t i = 0; i < MOST; i++) {
        uint32_t k = (uint32_t)(tr_random(&seed) % (i + 1));
        dst[i] = dst[k];
        dst[k] = (struct pd_segment){ (uint64_t)i * STRIDE, 1 + i % (STRIDE - 1) };
    }
    tr_connect_up(e, &l, &b, &a);
    uint32_t max = info_of(&b).max_segments, n = max < MOST ? max : MOST;
    for (uint32_t i = 0; i < n; i++)
        bytes += dst[i].bytes;
    tr_window_open(&w, &a, &b.ctx.node, 1, PD_TRANSPORT_WRITE, dst, n);
    t = tr_target(&l, &w);
    /* The source's pieces end where those of the window do not. */
    uint32_t m = 0;
    for (uint64_t left = bytes; left > 0 && m < n; left -= src[m++].bytes) {
        uint64_t len = 1 + tr_random(&seed) % 61;
        src[m] = (struct pd_segment){ (uint64_t)m * STRIDE, m + 1 == n || len > left ? left : len };
        src[m].offset = src[m].offset + src[m].bytes > b.bytes ? 0 : src[m].offset;
    }
    assert_int_equal(tr_post(&b, t, &post, 0, src, m), PD_OK);
    tr_wait_post(e, &post);
    CF_NEED(post.terminal == PD_TRANSFER_OK && post.bytes == bytes, "a post of %u pieces ends with %u after %llu of %llu bytes",
            m, post.terminal, (unsigned long long)post.bytes, (unsigned long long)bytes);
    uint32_t s = 0;
    uint64_t in = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < dst[i].bytes; k++) {
            CF_NEED(a.base[dst[i].offset + k] == b.base[src[s].offset + in], "byte %llu of piece %u of %u is wrong",
                    (unsigned long long)k, i, n);
            if (++in == src[s].bytes) {
                s++;
                in = 0;
            }
        }
        at = dst[i].offset + dst[i].bytes;
        CF_NEED(a.base[at] == GUARD, "a byte behind piece %u of %u was written", i, n);
    }
    e->ops->target_close(t);
    tr_window_close(e, &w);
    tr_disconnect(e, &l, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &b);
    tr_node_close(e, &a);
    free(dst);
    free(src);
}

/* ---- ten thousand ways */

static void settle(struct tr_env *e, uint32_t descriptors)
{
    for (uint32_t i = 0; cf_descriptors() > descriptors && i < 200; i++)
        e->pass(e, 10 * PD_MS);
}

static void connects_case(struct tr_env *e)
{
    enum { N = 10000, FIRST = 1000 };
    struct pd_segment all = { 0, 5000 };
    uint32_t fds = 0;
    uint64_t memory = 0;
    struct tr_node a, b;
    struct tr_window w;

    tr_node_open(e, &a, e->la, 0xa1, 11, 1 << 20, e->conf);
    tr_node_open(e, &b, e->lb, 0xb2, 22, 1 << 20, e->conf);
    tr_fill(b.base, b.bytes, 3);
    tr_window_open(&w, &a, &b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    for (uint32_t i = 0; i < N; i++) {
        struct pd_segment src = { i, 5000 };
        struct pd_transport_target *t;
        struct tr_link l;
        struct tr_post post;
        tr_connect_up(e, &l, &b, &a);
        t = tr_target(&l, &w);
        assert_int_equal(tr_post(&b, t, &post, 0, &src, 1), PD_OK);
        tr_wait_post(e, &post);
        CF_NEED(post.terminal == PD_TRANSFER_OK, "over way %u a post ends with %u", i, post.terminal);
        assert_memory_equal(a.base, b.base + i, all.bytes);
        tr_disconnect(e, &l, i % 2 ? PD_DISCONNECT_FENCE : PD_DISCONNECT_DRAIN);
        e->ops->target_close(t);
        if (i == FIRST) {
            e->pass(e, 100 * PD_MS);
            fds = cf_descriptors();
            memory = cf_memory();
        }
    }
    settle(e, fds);
    CF_NEED(cf_descriptors() <= fds, "%u descriptors are lost in %u ways", cf_descriptors() - fds, N - FIRST);
    CF_NEED(cf_memory() < memory + 65536, "%llu bytes are kept in %u ways", (unsigned long long)(cf_memory() - memory),
            N - FIRST);
    tr_window_close(e, &w);
    tr_node_close(e, &b);
    tr_node_close(e, &a);
}

/* ---- whatever comes */

enum { PARTS = 64, POSTS = 12, SOAK_BYTES = 2 << 20 };

struct soak {
    struct tr_env *e;
    struct tr_node a, b;
    struct tr_link link;
    uint64_t seed, rounds, bytes, canceled, fenced;
    struct pd_segment parts[PARTS];
    uint32_t n_parts;
    uint64_t total;
    struct tr_post posts[POSTS];
    struct pd_segment sources[POSTS];
    uint32_t n_posts;
};

static uint64_t below(struct soak *s, uint64_t n)
{
    return tr_random(&s->seed) % n;
}

static void draw_window(struct soak *s)
{
    uint64_t at = 1 + below(s, 1000);

    s->n_parts = 0;
    s->total = 0;
    for (uint32_t want = 1 + (uint32_t)below(s, PARTS); s->n_parts < want;) {
        struct pd_segment part = { at, 1 + below(s, below(s, 4) == 0 ? 100000 : 3000) };
        if (part.offset + part.bytes >= s->a.bytes)
            break;
        s->parts[s->n_parts++] = part;
        s->total += part.bytes;
        at += part.bytes + 1 + below(s, 1000);
    }
    memset(s->a.base, GUARD, s->a.bytes);
}

static void post_all(struct soak *s, struct pd_transport_target *t)
{
    uint64_t at = 0;

    s->n_posts = 0;
    while (at < s->total && s->n_posts < POSTS) {
        uint32_t i = s->n_posts;
        uint64_t n = i == POSTS - 1 ? s->total - at : 1 + below(s, s->total - at);
        s->sources[i] = (struct pd_segment){ below(s, s->b.bytes - n), n };
        pd_status st = tr_post(&s->b, t, &s->posts[i], at, &s->sources[i], 1);
        if (st == PD_EAGAIN)
            break;
        CF_NEED(st == PD_OK, "round %llu: a post is answered %d", (unsigned long long)s->rounds, st);
        at += n;
        s->n_posts++;
    }
}

/* Compares what post `i`, at `at` of the window's line of bytes, was to write. */
static void check_post(struct soak *s, uint32_t i, uint64_t at)
{
    const uint8_t *from = s->b.base + s->sources[i].offset;
    uint64_t left = s->sources[i].bytes;

    for (uint32_t k = 0; left > 0; at = at > s->parts[k].bytes ? at - s->parts[k].bytes : 0, k++) {
        if (at >= s->parts[k].bytes)
            continue;
        uint64_t n = PD_MIN(s->parts[k].bytes - at, left);
        CF_NEED(memcmp(s->a.base + s->parts[k].offset + at, from, n) == 0,
                "round %llu: post %u, which ended well, is wrong in part %u of the window",
                (unsigned long long)s->rounds, i, k);
        from += n;
        left -= n;
        at = s->parts[k].bytes;
    }
}

static void check_round(struct soak *s)
{
    uint64_t at = 0, end = 0;

    for (uint32_t i = 0; i < s->n_posts; at += s->sources[i++].bytes) {
        if (s->posts[i].terminal == PD_TRANSFER_OK)
            check_post(s, i, at);
        s->bytes += s->posts[i].bytes;
    }
    for (uint32_t i = 0; i <= s->n_parts; i++) {
        uint64_t to = i < s->n_parts ? s->parts[i].offset : s->a.bytes;
        for (; end < to; end++)
            CF_NEED(s->a.base[end] == GUARD, "round %llu: byte %llu outside the window was written",
                    (unsigned long long)s->rounds, (unsigned long long)end);
        end = i < s->n_parts ? to + s->parts[i].bytes : to;
    }
}

static void soak_round(struct soak *s, uint8_t *copy)
{
    const struct pd_transport_ops *ops = s->e->ops;
    struct pd_transport_target *t;
    struct tr_window w;
    bool is_stopped = false;

    draw_window(s);
    tr_window_open(&w, &s->a, &s->b.ctx.node, ++s->rounds, PD_TRANSPORT_WRITE, s->parts, s->n_parts);
    t = tr_target(&s->link, &w);
    post_all(s, t);
    for (uint64_t turns = below(s, 4); turns > 0; turns--)
        s->e->pass(s->e, 0);
    if (s->n_posts > 0 && below(s, 4) == 0) {
        struct tr_post *p = &s->posts[below(s, s->n_posts)];
        if (p->dones == 0)
            ops->cancel(p->transfer);
        s->canceled++;
        is_stopped = true;
    }
    if (below(s, 16) == 0 && s->link.downs == 0) {
        ops->disconnect(s->link.peer, PD_DISCONNECT_FENCE);
        s->fenced++;
        is_stopped = true;
    }
    for (uint32_t i = 0; i < s->n_posts; i++) {
        CF_NEED(s->e->run_loop(s->e->la, post_over, &s->posts[i], 30 * PD_SEC), "round %llu: post %u has no end",
                (unsigned long long)s->rounds, i);
        CF_NEED(is_stopped || s->posts[i].terminal == PD_TRANSFER_OK, "round %llu: post %u ends with %u",
                (unsigned long long)s->rounds, i, s->posts[i].terminal);
    }
    ops->target_close(t);
    tr_window_close(s->e, &w);
    check_round(s);
    if (is_stopped) {
        memcpy(copy, s->a.base, s->a.bytes);
        s->e->pass(s->e, 2 * PD_MS);
        CF_NEED(memcmp(copy, s->a.base, s->a.bytes) == 0, "round %llu: bytes land after the window was closed",
                (unsigned long long)s->rounds);
    }
}

static bool is_down(void *arg)
{
    return ((struct tr_link *)arg)->downs > 0;
}

static void soak_case(struct tr_env *e)
{
    enum { FIRST = 100 };
    struct soak s = { .e = e, .seed = 1 };
    uint8_t *copy = malloc(SOAK_BYTES);
    uint64_t memory = 0;
    uint32_t fds = 0;

    assert_non_null(copy);
    tr_node_open(e, &s.a, e->la, 0xa1, 11, SOAK_BYTES, e->conf);
    tr_node_open(e, &s.b, e->lb, 0xb2, 22, SOAK_BYTES, e->conf);
    tr_fill(s.b.base, s.b.bytes, 4);
    tr_connect_up(e, &s.link, &s.b, &s.a);
    pd_time end = pd_loop_clock(e->la) + cf_long * PD_SEC;
    while (pd_loop_clock(e->la) < end || s.rounds < 2 * FIRST) {
        uint64_t fenced = s.fenced;
        soak_round(&s, copy);
        if (s.fenced != fenced)
            CF_NEED(e->run(e, is_down, &s.link), "a fence does not end");
        CF_NEED(s.fenced != fenced || s.link.downs == 0, "round %llu: the way is lost", (unsigned long long)s.rounds);
        if (s.link.downs > 0)
            tr_connect_up(e, &s.link, &s.b, &s.a);
        if (s.rounds == FIRST) {
            e->pass(e, 50 * PD_MS);
            fds = cf_descriptors();
            memory = cf_memory();
        }
    }
    settle(e, fds);
    CF_NEED(cf_descriptors() <= fds, "%u descriptors are lost", cf_descriptors() - fds);
    CF_NEED(cf_memory() < memory + 262144, "%llu bytes are kept", (unsigned long long)(cf_memory() - memory));
    cf_say("seed 1: %llu rounds, %llu bytes, %llu canceled, %llu fenced", (unsigned long long)s.rounds,
           (unsigned long long)s.bytes, (unsigned long long)s.canceled, (unsigned long long)s.fenced);
    tr_disconnect(e, &s.link, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &s.b);
    tr_node_close(e, &s.a);
    free(copy);
}

#define REAL(name)                                                             \
    static void run_##name(const struct cf_unit *u)                            \
    {                                                                          \
        cf_on_real_loop(u, name##_case);                                       \
    }
REAL(huge)
REAL(pieces)
REAL(connects)
REAL(soak)
#undef REAL

const struct cf_case cf_transport_long_cases[] = {
    { "huge", "one post of 1 GiB, or of max_bytes (-L)", run_huge },
    { "pieces", "a post of 100,000 pieces, or of max_segments (-L)", run_pieces },
    { "connects", "10,000 ways leave nothing (-L)", run_connects },
    { "soak", "random posts, cancellations and fences (-L)", run_soak },
    { NULL, NULL, NULL },
};
