/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes, links, windows and posts for the transport tests. */
#include "transport_cases.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t tr_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

bool tr_fill_smooth;

void tr_fill(uint8_t *p, uint64_t n, uint64_t seed)
{
    uint8_t *begin = p;
    uint64_t bytes = n;

    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v = tr_random(&seed);
        memcpy(p, &v, 8);
    }
    for (; n > 0; n--)
        *p++ = (uint8_t)tr_random(&seed);
    for (uint64_t i = 1; tr_fill_smooth && i < bytes; i += 2)
        begin[i] &= 7;
}

static void on_node_closed(void *arg)
{
    struct tr_node *n = arg;
    n->closed = true;
}

void tr_node_open(struct tr_env *e, struct tr_node *n, struct pd_loop *loop, uint8_t tag,
                  uint64_t epoch, uint64_t bytes, const void *conf)
{
    pid_t pid = e->uuid_pid != 0 ? e->uuid_pid : getpid();
    struct pd_memory_desc desc;
    struct pd_err err;
    pd_status st;

    memset(n, 0, sizeof(*n));
    memset(&err, 0, sizeof(err));
    n->env = e;
    n->loop = loop;
    n->ctx.size = sizeof(n->ctx);
    n->ctx.name = "test";
    n->ctx.loop = loop;
    n->ctx.log = e->log;
    n->ctx.metrics = e->metrics;
    n->ctx.host = e->host;
    memset(n->ctx.node.uuid.b, tag, sizeof(n->ctx.node.uuid.b));
    /* Tests that run side by side must not meet at a path. */
    n->ctx.node.uuid.b[1] = (uint8_t)pid;
    n->ctx.node.uuid.b[2] = (uint8_t)(pid >> 8);
    n->ctx.node.uuid.b[3] = (uint8_t)(pid >> 16);
    n->ctx.node.epoch = epoch;
    st = e->ops->create(&n->ctx, conf, &n->tp, &err);
    if (st != PD_OK)
        print_message("create: %s\n", err.text);
    assert_int_equal(st, PD_OK);
    n->bytes = bytes;
    n->fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(n->fd >= 0);
    assert_int_equal(ftruncate(n->fd, (off_t)bytes), 0);
    assert_int_equal(fcntl(n->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    n->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, n->fd, 0);
    assert_true(n->base != MAP_FAILED);
    memset(&desc, 0, sizeof(desc));
    desc.size = sizeof(desc);
    desc.fd = n->fd;
    desc.base = n->base;
    desc.bytes = bytes;
    assert_int_equal(e->ops->memory_add(n->tp, &desc, &n->memory, &err), PD_OK);
}

static bool node_is_closed(void *arg)
{
    return ((struct tr_node *)arg)->closed;
}

static bool no_passes(void *arg)
{
    return ((struct tr_env *)arg)->passes == 0;
}

void tr_node_close(struct tr_env *e, struct tr_node *n)
{
    assert_true(e->run(e, no_passes, e));
    assert_int_equal(e->ops->memory_remove(n->memory), PD_OK);
    e->ops->destroy(n->tp, on_node_closed, n);
    assert_false(n->closed);
    assert_true(e->run(e, node_is_closed, n));
    munmap(n->base, n->bytes);
    close(n->fd);
}

static void on_bytes(struct pd_transport_window *window, uint64_t total, void *arg)
{
    struct tr_window *w = arg;

    assert_ptr_equal(window, w->window);
    assert_int_equal(w->closed, 0);
    w->total = total;
    w->told++;
    if (w->then != NULL)
        w->then(w);
}

static void on_window_closed(struct pd_transport_window *window, void *arg)
{
    struct tr_window *w = arg;

    assert_ptr_equal(window, w->window);
    w->closed++;
}

void tr_window_open(struct tr_window *w, struct tr_node *owner, const struct pd_node_id *peer,
                    uint64_t xid, uint32_t access, const struct pd_segment *segs, uint32_t n)
{
    static const struct pd_window_events events = { .size = sizeof(events), .on_bytes = on_bytes,
                                                    .on_closed = on_window_closed };
    const struct pd_transport_ops *ops = owner->env->ops;
    struct pd_window_desc desc;

    memset(w, 0, sizeof(*w));
    memset(&desc, 0, sizeof(desc));
    desc.size = sizeof(desc);
    desc.access = access;
    desc.peer = *peer;
    desc.xid = xid;
    desc.generation = 7000 + xid + owner->env->lease;
    desc.memory = owner->memory;
    desc.segments = segs;
    desc.n_segments = n;
    w->node = owner;
    assert_int_equal(ops->window_open(owner->tp, &desc, &events, w, &w->window), PD_OK);
    assert_int_equal(ops->window_export(w->window, w->blob, 1, &w->blob_len), PD_ELIMIT);
    assert_int_equal(ops->window_export(w->window, w->blob, sizeof(w->blob), &w->blob_len), PD_OK);
}

static bool window_is_closed(void *arg)
{
    return ((struct tr_window *)arg)->closed > 0;
}

void tr_window_close(struct tr_env *e, struct tr_window *w)
{
    e->ops->window_close(w->window);
    assert_int_equal(w->closed, 0);
    assert_true(e->run(e, window_is_closed, w));
    assert_int_equal(w->closed, 1);
}

static void on_pass_closed(struct pd_transport_window *window, void *arg)
{
    (void)window;
    ((struct tr_env *)arg)->passes--;
}

static void pass_open(struct tr_link *l, struct tr_node *from, struct tr_node *to)
{
    static const struct pd_window_events events = { .size = sizeof(events),
                                                    .on_closed = on_pass_closed };
    static uint64_t xid = (uint64_t)1 << 50;
    struct tr_env *e = to->env;
    struct pd_segment seg = { 0, 1 };
    struct pd_transport_info info = { .size = sizeof(info) };
    struct pd_window_desc desc = { .size = sizeof(desc), .peer = from->ctx.node, .xid = ++xid,
                                   .generation = 1, .memory = to->memory, .segments = &seg,
                                   .n_segments = 1 };

    e->ops->info(to->tp, &info);
    desc.access = (info.flags & PD_TRANSPORT_WRITE) != 0 ? PD_TRANSPORT_WRITE : PD_TRANSPORT_READ;
    memset(l, 0, sizeof(*l));
    assert_int_equal(e->ops->window_open(to->tp, &desc, &events, e, &l->pass.window), PD_OK);
    l->pass.node = to;
    l->has_pass = true;
    e->passes++;
    assert_int_equal(e->ops->window_export(l->pass.window, l->pass.blob, sizeof(l->pass.blob),
                                           &l->pass.blob_len), PD_OK);
}

static void pass_close(struct tr_link *l)
{
    if (l->has_pass)
        l->node->env->ops->window_close(l->pass.window);
    l->has_pass = false;
}

static void on_up(struct pd_transport_peer *peer, pd_status status, void *arg)
{
    struct tr_link *l = arg;

    (void)peer;
    l->ups++;
    l->up_status = status;
    pass_close(l);
}

static void on_down(struct pd_transport_peer *peer, pd_status status, void *arg)
{
    struct tr_link *l = arg;

    (void)peer;
    l->downs++;
    l->down_status = status;
    pass_close(l);
}

static void on_writable(struct pd_transport_peer *peer, void *arg)
{
    struct tr_link *l = arg;

    (void)peer;
    assert_int_equal(l->downs, 0);
    l->writables++;
    if (l->then != NULL)
        l->then(l);
}

static void on_done(struct pd_transport_peer *peer, struct pd_transfer *transfer, uint32_t terminal,
                    uint64_t bytes, void *post_arg)
{
    struct tr_post *p = post_arg;

    (void)peer;
    assert_ptr_equal(transfer, p->transfer);
    assert_int_equal(p->dones, 0);
    p->dones++;
    p->terminal = terminal;
    p->bytes = bytes;
    if (p->then != NULL)
        p->then(p);
}

pd_status tr_connect_raw(struct tr_link *l, struct tr_node *from, const struct pd_node_id *node,
                         const void *address, size_t len, const void *grant, size_t grant_len)
{
    static const struct pd_transport_peer_events events = {
        .size = sizeof(events), .on_up = on_up, .on_down = on_down, .on_writable = on_writable,
        .on_done = on_done,
    };
    struct pd_transport_peer_desc desc;

    memset(&desc, 0, sizeof(desc));
    desc.size = sizeof(desc);
    desc.grant = grant;
    desc.grant_len = (uint32_t)grant_len;
    desc.node = *node;
    desc.address = address;
    desc.address_len = (uint32_t)len;
    desc.host = PD_STR("127.0.0.1");
    if (from->env->la != from->env->lb)
        desc.host = from->loop == from->env->la ? PD_STR("10.0.0.2") : PD_STR("10.0.0.1");
    l->node = from;
    return from->env->ops->connect(from->tp, &desc, &events, l, &l->peer);
}

pd_status tr_connect(struct tr_link *l, struct tr_node *from, struct tr_node *to)
{
    const struct pd_transport_ops *ops = from->env->ops;
    uint8_t address[512];
    size_t len = 0;

    assert_int_equal(ops->address(to->tp, address, 1, &len), PD_ELIMIT);
    assert_int_equal(ops->address(to->tp, address, sizeof(address), &len), PD_OK);
    pass_open(l, from, to);
    pd_status st = tr_connect_raw(l, from, &to->ctx.node, address, len, l->pass.blob,
                                  l->pass.blob_len);
    if (st != PD_OK)
        pass_close(l);
    return st;
}

static bool link_is_up(void *arg)
{
    return ((struct tr_link *)arg)->ups > 0;
}

void tr_connect_up(struct tr_env *e, struct tr_link *l, struct tr_node *from, struct tr_node *to)
{
    assert_int_equal(tr_connect(l, from, to), PD_OK);
    assert_int_equal(l->ups, 0);
    assert_true(e->run(e, link_is_up, l));
    assert_int_equal(l->up_status, PD_OK);
    assert_true(e->run(e, no_passes, e));
}

static bool link_is_down(void *arg)
{
    return ((struct tr_link *)arg)->downs > 0;
}

void tr_disconnect(struct tr_env *e, struct tr_link *l, uint32_t how)
{
    e->ops->disconnect(l->peer, how);
    assert_int_equal(l->downs, 0);
    assert_true(e->run(e, link_is_down, l));
    assert_int_equal(l->downs, 1);
}

struct pd_transport_target *tr_target(struct tr_link *l, const struct tr_window *w)
{
    struct pd_transport_target *t = NULL;

    assert_int_equal(l->node->env->ops->target_open(l->peer, w->blob, w->blob_len, &t), PD_OK);
    return t;
}

pd_status tr_post(struct tr_node *n, struct pd_transport_target *t, struct tr_post *p,
                  uint64_t offset, const struct pd_segment *segs, uint32_t n_segs)
{
    struct pd_post post;

    memset(p, 0, sizeof(*p));
    memset(&post, 0, sizeof(post));
    post.size = sizeof(post);
    post.op = PD_TRANSPORT_WRITE;
    post.offset = offset;
    post.memory = n->memory;
    post.segments = segs;
    post.n_segments = n_segs;
    post.arg = p;
    return n->env->ops->post(t, &post, &p->transfer);
}

static bool post_is_done(void *arg)
{
    return ((struct tr_post *)arg)->dones > 0;
}

void tr_wait_post(struct tr_env *e, struct tr_post *p)
{
    assert_true(e->run(e, post_is_done, p));
}

struct pd_transport_stats tr_stats(struct tr_node *n)
{
    struct pd_transport_stats s;

    memset(&s, 0, sizeof(s));
    s.size = sizeof(s);
    n->env->ops->stats(n->tp, &s);
    return s;
}
