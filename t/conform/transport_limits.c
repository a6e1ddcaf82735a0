/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for transports: limits and their ends, memory of each kind, few
 * descriptors, and what a way costs that nobody uses. */
#include "conform/transport_run.h"

#include <sys/mman.h>

/* ---- limits */

static bool is_writable(void *arg)
{
    return ((struct tr_link *)arg)->writables > 0;
}

static void limits_segments(struct tr_env *e, const struct pd_transport_info *info)
{
    uint32_t n = info->max_segments;
    struct pd_segment *segs;
    struct tr_post post;
    struct cf_pair p;
    pd_status st;

    if (n > 1 << 22)
        return;
    cf_pair_open(e, &p, (uint64_t)n + 4096, (uint64_t)n + 1, e->conf);
    segs = calloc((size_t)n + 1, sizeof(*segs));
    assert_non_null(segs);
    for (uint32_t i = 0; i <= n; i++)
        segs[i] = (struct pd_segment){ i, 1 };
    st = tr_post(&p.b, p.t, &post, 0, segs, n + 1);
    CF_NEED(st != PD_OK && st != PD_EAGAIN, "a post of %u segments is answered %d, and max_segments is %u", n + 1,
            st, n);
    st = tr_post(&p.b, p.t, &post, 0, segs, n);
    CF_NEED(st == PD_OK, "a post of max_segments, %u, is answered %d", n, st);
    tr_wait_post(e, &post);
    assert_int_equal(post.terminal, PD_TRANSFER_OK);
    assert_memory_equal(p.a.base, p.b.base, n);
    free(segs);
    cf_pair_close(e, &p);
}

/* Posts without end, while nothing can move. */
static void limits_posts(struct tr_env *e)
{
    enum { MOST = 200000 };
    struct pd_segment one = { 5, 1 };
    struct tr_post *posts = calloc(MOST, sizeof(*posts)), extra;
    pd_status st = PD_OK;
    struct cf_pair p;
    uint32_t n;

    assert_non_null(posts);
    cf_pair_open(e, &p, 1 << 20, 1 << 20, e->conf);
    for (n = 0; n < MOST && st == PD_OK; n++)
        st = tr_post(&p.b, p.t, &posts[n], n, &one, 1);
    n -= st != PD_OK;
    CF_NEED(st == PD_EAGAIN, "%u posts are taken before anything moved, then comes %d: a queue needs an end, PD_EAGAIN",
            n, st);
    CF_NEED(e->run(e, is_writable, &p.link), "on_writable does not come after PD_EAGAIN");
    for (uint32_t i = 0; i < n; i++) {
        tr_wait_post(e, &posts[i]);
        CF_NEED(posts[i].terminal == PD_TRANSFER_OK, "post %u of many ends with %u", i, posts[i].terminal);
    }
    assert_int_equal(tr_post(&p.b, p.t, &extra, 0, &one, 1), PD_OK);
    tr_wait_post(e, &extra);
    free(posts);
    cf_pair_close(e, &p);
}

static void on_closed(struct pd_transport_window *window, void *arg)
{
    (void)window;
    (*(uint32_t *)arg)--;
}

static bool is_zero(void *arg)
{
    return *(uint32_t *)arg == 0;
}

/* A peer that asks for more and more grants must meet an end. */
static void limits_windows(struct tr_env *e)
{
    enum { MOST = 200000 };
    static const struct pd_window_events events = { .size = sizeof(events), .on_closed = on_closed };
    struct pd_transport_window **w = calloc(MOST, sizeof(struct pd_transport_window *));
    struct pd_segment one = { 0, 1 };
    pd_status st = PD_OK;
    uint32_t n, open;
    struct cf_pair p;

    assert_non_null(w);
    cf_pair_open(e, &p, 1 << 20, 1 << 20, e->conf);
    for (n = 0; n < MOST; n++) {
        struct pd_window_desc desc = { .size = sizeof(desc), .access = PD_TRANSPORT_WRITE, .peer = p.b.ctx.node,
                                       .xid = 1000 + n, .generation = 1, .memory = p.a.memory, .segments = &one,
                                       .n_segments = 1 };
        st = e->ops->window_open(p.a.tp, &desc, &events, &open, &w[n]);
        if (st != PD_OK)
            break;
    }
    open = n;
    CF_NEED(n < MOST, "%u windows are open and there is no end", n);
    CF_NEED(st == PD_ELIMIT || st == PD_EAGAIN || st == PD_ENOMEM,
            "one window too many is answered %d, expected PD_ELIMIT", st);
    for (uint32_t i = 0; i < n; i++)
        e->ops->window_close(w[i]);
    CF_NEED(e->run(e, is_zero, &open), "%u of %u windows are not closed", open, n);
    free(w);
    cf_pair_close(e, &p);
}

static void limits_case(struct tr_env *e)
{
    struct pd_transport_info info;
    struct tr_node n;

    memset(&info, 0, sizeof(info));
    info.size = sizeof(info);
    tr_node_open(e, &n, e->la, 0xa1, 1, 4096, e->conf);
    e->ops->info(n.tp, &info);
    tr_node_close(e, &n);
    limits_segments(e, &info);
    limits_posts(e);
    limits_windows(e);
}

/* Memory without a descriptor: taken, unless NEEDS_FD is claimed. */
static void plain_memory_case(struct tr_env *e)
{
    struct pd_memory_desc desc = { .size = sizeof(desc), .fd = -1, .bytes = 1 << 20 };
    struct pd_transport_info info = { .size = sizeof(info) };
    struct pd_transport_memory *plain = NULL, *registered;
    struct pd_segment src = { 3, 200000 };
    struct pd_err err = { 0 };
    struct tr_post post;
    struct cf_pair p;
    pd_status st;

    cf_pair_open(e, &p, 1 << 20, 1 << 20, e->conf);
    e->ops->info(p.b.tp, &info);
    desc.base = mmap(NULL, desc.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(desc.base != MAP_FAILED);
    tr_fill(desc.base, desc.bytes, 12);
    st = e->ops->memory_add(p.b.tp, &desc, &plain, &err);
    if ((info.flags & PD_TRANSPORT_NEEDS_FD) != 0) {
        CF_NEED(st != PD_OK, "NEEDS_FD is claimed, and memory without a descriptor is taken");
        CF_NEED(err.text[0] != '\0', "memory without a descriptor is refused without a text");
    } else {
        CF_NEED(st == PD_OK, "NEEDS_FD is not claimed, and memory without a descriptor is answered %d: %s", st,
                err.text);
        registered = p.b.memory;
        p.b.memory = plain;
        assert_int_equal(tr_post(&p.b, p.t, &post, 0, &src, 1), PD_OK);
        tr_wait_post(e, &post);
        assert_int_equal(post.terminal, PD_TRANSFER_OK);
        assert_memory_equal(p.a.base, (uint8_t *)desc.base + 3, src.bytes);
        p.b.memory = registered;
        assert_int_equal(e->ops->memory_remove(plain), PD_OK);
    }
    munmap(desc.base, desc.bytes);
    cf_pair_close(e, &p);
}

/* ---- descriptors */

static bool told(void *arg)
{
    struct tr_link *l = arg;

    return l->ups > 0 || l->downs > 0;
}

static void post_ok(struct tr_env *e, struct cf_pair *p, struct pd_transport_target *t, const char *when)
{
    struct pd_segment src = { 0, 5000 };
    struct tr_post post;
    pd_status st = tr_post(&p->b, t, &post, 0, &src, 1);

    CF_NEED(st == PD_OK, "a post %s is answered %d", when, st);
    tr_wait_post(e, &post);
    CF_NEED(post.terminal == PD_TRANSFER_OK, "a post %s ends with %u", when, post.terminal);
}

/* A way that is there works on; a new one is told that it cannot be, or waits;
 * later all is well again. */
static void descriptors_case(struct tr_env *e)
{
    struct cf_pair p;
    uint32_t fds, now;

    cf_descriptors_all();
    cf_pair_open(e, &p, 1 << 20, 1 << 20, e->conf);
    post_ok(e, &p, p.t, "before descriptors are short");
    e->pass(e, 20 * PD_MS);
    fds = cf_descriptors();
    for (uint32_t left = 0; left <= 6; left++) {
        struct pd_transport_target *t;
        struct tr_link l;
        pd_status st;
        cf_descriptors_leave(left);
        st = tr_connect(&l, &p.b, &p.a);
        post_ok(e, &p, p.t, "while descriptors are short");
        e->pass(e, 30 * PD_MS);
        cf_descriptors_all();
        if (st == PD_OK) {
            CF_NEED(e->run(e, told, &l), "with %u descriptors left a connection has no answer", left);
            if (l.up_status == PD_OK && l.downs == 0)
                tr_disconnect(e, &l, PD_DISCONNECT_FENCE);
        }
        tr_connect_up(e, &l, &p.b, &p.a);
        t = tr_target(&l, &p.w);
        post_ok(e, &p, t, "after descriptors were short");
        tr_disconnect(e, &l, PD_DISCONNECT_DRAIN);
        e->ops->target_close(t);
    }
    for (uint32_t i = 0; (now = cf_descriptors()) > fds && i < 200; i++)
        e->pass(e, 10 * PD_MS);
    CF_NEED(now <= fds, "%u descriptors are lost when they are short", now - fds);
    cf_pair_close(e, &p);
}

static void sleeps_case(struct tr_env *e)
{
    struct cf_pair p;

    cf_pair_open(e, &p, 1 << 20, 1 << 20, e->conf);
    post_ok(e, &p, p.t, "before the rest");
    cf_need_idle(e->world, 10, "a way between two nodes that nobody uses");
    post_ok(e, &p, p.t, "after the rest");
    cf_pair_close(e, &p);
}

/* A third node ends: a way between two others stays, and new ones come up. */
static void beside_case(struct tr_env *e)
{
    struct tr_node third;
    struct tr_link l;
    struct cf_pair p;

    tr_node_open(e, &third, e->la, 0xc3, 33, 1 << 16, e->conf);
    cf_pair_open(e, &p, 1 << 20, 1 << 20, e->conf);
    post_ok(e, &p, p.t, "beside another instance");
    tr_node_close(e, &third);
    post_ok(e, &p, p.t, "when another instance has ended");
    tr_connect_up(e, &l, &p.b, &p.a);
    tr_disconnect(e, &l, PD_DISCONNECT_DRAIN);
    cf_pair_close(e, &p);
}

void cf_transport_beside(const struct cf_unit *u)
{
    cf_on_real_loop(u, beside_case);
}

#define REAL(name)                                                             \
    static void run_##name(const struct cf_unit *u)                            \
    {                                                                          \
        cf_on_real_loop(u, name##_case);                                       \
    }
REAL(limits)
REAL(plain_memory)
REAL(descriptors)
REAL(sleeps)
#undef REAL

const struct cf_case cf_transport_limit_cases[] = {
    { "limits", "one segment, post or window too many is refused", run_limits },
    { "plain_memory", "memory without a descriptor, or NEEDS_FD", run_plain_memory },
    { "descriptors", "ways when descriptors run out, and afterwards", run_descriptors },
    { "sleeps", "a way that nobody uses wakes nobody", run_sleeps },
    { NULL, NULL, NULL },
};
