/* SPDX-License-Identifier: Apache-2.0 */
/* Peers and calls between nodes of one process, over sockets of this machine. */
#include "unit.h"

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/str.h"
#include "loop/uv.h"
#include "peer/priv.h"

struct net {
    struct pd_loop *loop;
    uint32_t open;              /* peer tables not closed yet */
};

struct node {
    struct net *net;
    struct pd_peers *peers;
    struct pd_peer_desc desc;
    struct pd_peer_engine engine;
    uint16_t port;
    uint32_t events[7];
    pd_peer_ref last;
    struct pd_peer_watch *watch;
};

static const struct pd_peer_api *api;

static void net_up(struct net *net)
{
    memset(net, 0, sizeof *net);
    api = pd_peer_table();
    assert_int_equal(pd_loop_uv_create(NULL, &net->loop), PD_OK);
}

static void net_down(struct net *net)
{
    char names[256] = "";
    for (int i = 0; i < 2000 && net->open > 0; i++)
        pd_loop_uv_turn(net->loop, 5 * PD_MS);
    assert_int_equal(net->open, 0);
    pd_status st = pd_loop_destroy(net->loop, names, sizeof names);
    if (st != PD_OK)
        print_message("left: %s\n", names);
    assert_int_equal(st, PD_OK);
}

static bool turns(struct net *net, bool (*cond)(void *), void *arg, pd_time limit)
{
    pd_time end = pd_loop_clock(net->loop) + limit;
    while (pd_loop_clock(net->loop) < end) {
        if (cond != NULL && cond(arg))
            return true;
        pd_loop_uv_turn(net->loop, 2 * PD_MS);
    }
    return cond != NULL && cond(arg);
}

static void on_peer(struct pd_peers *peers, pd_peer_ref peer, uint32_t what, void *arg)
{
    struct node *n = (struct node *)arg;
    (void)peers;
    if (peer == api->self(n->peers))
        return;
    n->events[what]++;
    n->last = peer;
}

static const struct pd_peer_watch_events watch_events = { .size = sizeof watch_events,
                                                          .on_peer = on_peer };

static void load(struct pd_engine_load *out, uint32_t n, void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < n; i++) {
        out[i].running = 7;
        out[i].blocks_total = 100;
        out[i].prompt_tokens = UINT64_C(1) << 40;
    }
}

static void node_up_conf(struct node *n, struct net *net, uint8_t uuid, uint64_t epoch,
                         struct pd_peers_conf *c)
{
    struct pd_err err = { 0 };
    memset(n, 0, sizeof *n);
    n->net = net;
    memset(n->desc.id.uuid.b, uuid, 16);
    n->desc.id.epoch = epoch;
    snprintf(n->desc.name, sizeof n->desc.name, "n%u", uuid);
    snprintf(n->desc.host_id, sizeof n->desc.host_id, "host");
    snprintf(n->engine.name, sizeof n->engine.name, "tiny");
    n->engine.layout.size = sizeof n->engine.layout;
    n->engine.layout.layers = 3;
    n->desc.engines = &n->engine;
    n->desc.n_engines = 1;
    n->desc.roles = PD_ROLE_DECODE;
    c->loop = net->loop;
    c->self = &n->desc;
    c->load = load;
    if (c->heartbeat == 0) {
        c->heartbeat = 40 * PD_MS;
        c->suspect = 2 * PD_SEC;
        c->dead = 3 * PD_SEC;
    }
    c->backoff_min = 10 * PD_MS;
    c->backoff_max = 50 * PD_MS;
    c->connect_timeout = 500 * PD_MS;
    assert_int_equal(pd_peers_create(c, &n->peers, &err), PD_OK);
    assert_int_equal(pd_peers_listen(n->peers, PD_STR("127.0.0.1:0"), &n->port, &err), PD_OK);
    assert_int_equal(api->watch(n->peers, &watch_events, n, &n->watch), PD_OK);
    net->open++;
}

static void node_up(struct node *n, struct net *net, uint8_t uuid, uint64_t epoch)
{
    struct pd_peers_conf c = { 0 };
    node_up_conf(n, net, uuid, epoch, &c);
}

static void on_down(void *arg)
{
    ((struct net *)arg)->open--;
}

static void node_down(struct node *n)
{
    api->unwatch(n->watch);
    pd_peers_destroy(n->peers, on_down, n->net);
    n->peers = NULL;
}

static void dial(struct node *from, struct node *to)
{
    char a[64];
    snprintf(a, sizeof a, "127.0.0.1:%u", to->port);
    assert_int_equal(pd_peers_dial(from->peers, pd_str_from(a)), PD_OK);
}

static pd_peer_ref peer_of(struct node *n, struct node *other)
{
    return api->find(n->peers, &other->desc.id);
}

static uint32_t state_of(struct node *n, struct node *other)
{
    struct pd_peer_info i;
    pd_peer_ref ref = peer_of(n, other);
    return ref != 0 && api->info(n->peers, ref, &i) == PD_OK ? i.state : 0;
}

static bool both_up(void *arg)
{
    struct node **p = (struct node **)arg;
    return state_of(p[0], p[1]) == PD_PEER_UP && state_of(p[1], p[0]) == PD_PEER_UP;
}

static void link_nodes(struct net *net, struct node *a, struct node *b)
{
    struct node *pair[2] = { a, b };
    dial(a, b);
    assert_true(turns(net, both_up, pair, 2 * PD_SEC));
}

/* ---- a service that echoes, and an end that remembers */

struct end {
    struct pd_call *call;
    uint32_t messages;
    uint64_t bytes;
    uint32_t last_type;
    uint64_t sum;               /* of the bytes, to see order and content */
    uint32_t ends;
    pd_status status;
    char text[64];
    uint32_t writable;
    bool end_at_first;
    bool cancel_at_first;
    bool echo;
    struct pd_peers *peers;
    pd_peer_ref from;
};

static void end_message(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg)
{
    struct end *e = (struct end *)arg;
    e->messages++;
    e->bytes += bytes.n;
    e->last_type = type;
    e->sum = e->sum * 31 + pd_crc32c(type, bytes.p, bytes.n);
    if (e->echo) {
        struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
        assert_int_equal(api->call_send(call, type, &iov, 1), PD_OK);
    }
    if (e->end_at_first)
        api->call_end(call, PD_EBUSY, PD_STR("enough"));
    if (e->cancel_at_first)
        api->call_cancel(call);
}

static void end_end(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    struct end *e = (struct end *)arg;
    (void)call;
    e->ends++;
    e->status = status;
    (void)pd_str_copy(bytes, e->text, sizeof e->text);
    e->call = NULL;
}

static void end_writable(struct pd_call *call, void *arg)
{
    (void)call;
    ((struct end *)arg)->writable++;
}

static const struct pd_call_events end_events = {
    .size = sizeof end_events, .on_message = end_message, .on_end = end_end, .on_writable = end_writable,
};

static void on_call(struct pd_peers *peers, struct pd_call *call, pd_peer_ref from, uint32_t type,
                    struct pd_str first, void *arg)
{
    struct end *e = (struct end *)arg;
    e->peers = peers;
    e->from = from;
    if (type == 99)
        return;     /* neither accepted nor ended */
    if (type == 98) {
        api->call_end(call, PD_EPERM, PD_STR("not you"));
        return;
    }
    api->call_accept(call, &end_events, e);
    e->call = call;
    end_message(call, type, first, e);
}

static pd_status call_open(struct node *from, pd_peer_ref to, uint32_t type, const void *p,
                           size_t n,
                           struct end *e)
{
    struct pd_iov iov = { (void *)(uintptr_t)p, n };
    return api->call_open(from->peers, to, PD_SERVICE_TEST, type, &iov, 1, &end_events, e,
                          &e->call);
}

static pd_status call_send(struct end *e, uint32_t type, const void *p, size_t n)
{
    struct pd_iov iov = { (void *)(uintptr_t)p, n };
    return api->call_send(e->call, type, &iov, 1);
}

static bool ended(void *arg)
{
    return ((struct end *)arg)->ends > 0;
}

static bool has_call(void *arg)
{
    return ((struct end *)arg)->call != NULL;
}

/* ---- tests */

static void test_frame(void **state)
{
    uint8_t b[PD_FRAME_HEADER + 5];
    struct pd_frame f = { .type = PD_FRAME_MESSAGE, .flags = PD_FRAME_MORE, .kind = 3, .call = 9,
                          .length = 5 };
    struct pd_frame g;
    (void)state;
    memcpy(b + PD_FRAME_HEADER, "hello", 5);
    struct pd_iov iov = { b + PD_FRAME_HEADER, 5 };
    pd_frame_write(b, &f, &iov, 1);
    assert_int_equal(pd_frame_read(b, &g), PD_OK);
    assert_true(g.type == f.type && g.flags == f.flags && g.kind == 3 && g.call == 9 &&
                g.length == 5);
    assert_true(pd_frame_is_intact(b + PD_FRAME_HEADER, &g));
    for (size_t i = 0; i < sizeof b; i++)
        for (int bit = 0; bit < 8; bit++) {
            b[i] ^= (uint8_t)(1u << bit);
            assert_true(pd_frame_read(b, &g) != PD_OK || g.length != 5 ||
                        !pd_frame_is_intact(b + PD_FRAME_HEADER, &g));
            b[i] ^= (uint8_t)(1u << bit);
        }
}

static void test_desc(void **state)
{
    struct pd_peer_engine engines[2] = { 0 };
    struct pd_peer_transport t = { .name = "tcp", .address_len = 3 };
    struct pd_peer_desc d = { .name = "a", .n_engines = 2, .engines = engines, .n_transports = 1,
                              .transports = &t };
    struct pd_peer_desc *got = NULL;
    uint8_t b[8192];
    size_t n = 0;
    bool draining = false;
    (void)state;
    memset(d.id.uuid.b, 1, 16);
    d.id.epoch = 5;
    memcpy(t.address, "xyz", 3);
    strcpy(engines[0].name, "e0");
    strcpy(engines[1].name, "e0");
    assert_int_equal(pd_desc_write(&d, true, b, sizeof b, &n), PD_EINVAL);
    strcpy(engines[1].name, "e1");
    assert_int_equal(pd_desc_write(&d, true, b, sizeof b, &n), PD_OK);
    assert_int_equal(pd_desc_read(b, n, &got, &draining), PD_OK);
    assert_true(draining);
    assert_int_equal(got->n_engines, 2);
    assert_string_equal(got->engines[1].name, "e1");
    assert_memory_equal(got->transports[0].address, "xyz", 3);
    pd_free(got);
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(pd_desc_read(b, cut, &got, &draining), PD_EPROTO);
    b[24] = 0xff;   /* length of the name */
    assert_int_equal(pd_desc_read(b, n, &got, &draining), PD_EPROTO);
}

static void test_up_and_load(void **state)
{
    struct net net;
    struct node a, b;
    struct pd_peer_info i;
    (void)state;
    net_up(&net);
    node_up(&a, &net, 1, 10);
    node_up(&b, &net, 2, 20);
    link_nodes(&net, &a, &b);
    turns(&net, NULL, NULL, 150 * PD_MS);
    assert_int_equal(api->info(a.peers, peer_of(&a, &b), &i), PD_OK);
    assert_string_equal(i.desc->name, "n2");
    assert_int_equal(i.desc->engines[0].layout.layers, 3);
    assert_int_equal(i.load[0].running, 7);
    assert_true(i.load[0].prompt_tokens == UINT64_C(1) << 40);
    assert_true(i.load_at != PD_TIME_NEVER);
    assert_true(i.rtt > 0 && i.rtt < PD_SEC);
    assert_true((i.flags & PD_PEER_SAME_HOST) != 0 && (i.flags & PD_PEER_CONFIGURED) != 0);
    assert_int_equal(a.events[PD_PEER_ON_UP], 1);
    /* Heartbeats bring loads; only what is new otherwise is a change. */
    assert_true(a.events[PD_PEER_ON_LOAD] > 0);
    assert_int_equal(a.events[PD_PEER_ON_CHANGED], 0);
    pd_peers_drain(b.peers, true);
    turns(&net, NULL, NULL, 30 * PD_MS);
    assert_int_equal(a.events[PD_PEER_ON_CHANGED], 1);
    assert_int_equal(api->info(a.peers, peer_of(&a, &b), &i), PD_OK);
    assert_true((i.flags & PD_PEER_DRAINING) != 0);
    snprintf(b.desc.name, sizeof b.desc.name, "renamed");
    assert_int_equal(pd_peers_update(b.peers, &b.desc), PD_OK);
    turns(&net, NULL, NULL, 30 * PD_MS);
    assert_int_equal(api->info(a.peers, peer_of(&a, &b), &i), PD_OK);
    assert_string_equal(i.desc->name, "renamed");
    pd_peer_ref me = api->next(a.peers, 0);
    assert_true(me == api->self(a.peers));
    assert_true(api->next(a.peers, me) == peer_of(&a, &b));
    assert_true(api->next(a.peers, peer_of(&a, &b)) == 0);
    node_down(&b);
    turns(&net, NULL, NULL, 100 * PD_MS);
    assert_int_equal(state_of(&a, &b), PD_PEER_DOWN);
    assert_int_equal(a.events[PD_PEER_ON_DOWN], 1);
    node_down(&a);
    net_down(&net);
}

static void test_secret(void **state)
{
    static const struct { const char *a, *b; bool ok; } rows[] = {
        { "s3cret", "s3cret", true }, { "s3cret", "other", false }, { "s3cret", "", false },
        { "", "s3cret", false },
    };
    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        struct net net;
        struct node a, b;
        struct pd_peers_conf ca = { .secret = pd_str_from(rows[k].a) };
        struct pd_peers_conf cb = { .secret = pd_str_from(rows[k].b) };
        net_up(&net);
        node_up_conf(&a, &net, 1, 10, &ca);
        node_up_conf(&b, &net, 2, 20, &cb);
        struct node *pair[2] = { &a, &b };
        dial(&a, &b);
        assert_int_equal(turns(&net, both_up, pair, rows[k].ok ? PD_SEC : 100 * PD_MS), rows[k].ok);
        if (!rows[k].ok) {
            assert_true(peer_of(&a, &b) == 0 && peer_of(&b, &a) == 0);
            assert_true(a.peers->count[PD_COUNT_AUTH] + b.peers->count[PD_COUNT_AUTH] > 0);
        }
        node_down(&a);
        node_down(&b);
        net_down(&net);
    }
}

static void test_simultaneous(void **state)
{
    (void)state;
    for (int round = 0; round < 10; round++) {
        struct net net;
        struct node a, b;
        net_up(&net);
        node_up(&a, &net, round % 2 ? 1 : 2, 10);
        node_up(&b, &net, round % 2 ? 2 : 1, 20);
        dial(&a, &b);
        dial(&b, &a);
        struct node *pair[2] = { &a, &b };
        assert_true(turns(&net, both_up, pair, PD_SEC));
        turns(&net, NULL, NULL, 150 * PD_MS);
        assert_true(both_up(pair));
        assert_int_equal(a.events[PD_PEER_ON_UP], 1);
        assert_int_equal(b.events[PD_PEER_ON_UP], 1);
        assert_int_equal(a.events[PD_PEER_ON_DOWN] + b.events[PD_PEER_ON_DOWN], 0);
        assert_int_equal(a.peers->n_links, 2);   /* self and b */
        node_down(&a);
        node_down(&b);
        net_down(&net);
    }
}

static void test_self_and_clash(void **state)
{
    struct net net;
    struct node a, b;
    (void)state;
    net_up(&net);
    node_up(&a, &net, 1, 10);
    node_up(&b, &net, 1, 11);
    dial(&a, &a);
    dial(&a, &b);
    turns(&net, NULL, NULL, 150 * PD_MS);
    assert_true(api->next(a.peers, api->self(a.peers)) == 0);
    assert_true(a.peers->goodbyes[0][PD_GOODBYE_SELF] + a.peers->goodbyes[1][PD_GOODBYE_SELF] > 0);
    assert_true(b.peers->goodbyes[0][PD_GOODBYE_CLASH] + b.peers->goodbyes[1][PD_GOODBYE_CLASH] > 0);
    node_down(&a);
    node_down(&b);
    net_down(&net);
}

static void test_new_epoch(void **state)
{
    struct net net;
    struct node a, b, b2, b3;
    struct end e = { 0 }, s = { 0 };
    (void)state;
    net_up(&net);
    node_up(&a, &net, 1, 10);
    node_up(&b, &net, 2, 20);
    assert_int_equal(api->serve(b.peers, PD_SERVICE_TEST, on_call, &s), PD_OK);
    link_nodes(&net, &b, &a);
    pd_peer_ref old = peer_of(&a, &b);
    assert_int_equal(call_open(&a, old, 1, "x", 1, &e), PD_OK);
    assert_true(turns(&net, has_call, &s, PD_SEC));
    node_up(&b2, &net, 2, 21);
    link_nodes(&net, &b2, &a);
    assert_int_equal(e.ends, 1);
    assert_int_equal(e.status, PD_EPEER);
    struct pd_peer_info i;
    assert_int_equal(api->info(a.peers, old, &i), PD_ESTALE);
    assert_int_equal(call_open(&a, old, 1, "x", 1, &e), PD_ESTALE);
    assert_int_equal(a.events[PD_PEER_ON_GONE], 1);
    /* The zombie tries on, and is refused. */
    turns(&net, NULL, NULL, 200 * PD_MS);
    assert_true(peer_of(&a, &b) == 0);
    assert_true(a.peers->goodbyes[1][PD_GOODBYE_STALE] > 1);
    assert_int_equal(state_of(&a, &b2), PD_PEER_UP);
    node_up(&b3, &net, 2, 5);
    link_nodes(&net, &b3, &a);
    node_down(&b);
    node_down(&b2);
    node_down(&b3);
    node_down(&a);
    net_down(&net);
}

static void test_calls_on(struct net *net, struct node *a, pd_peer_ref to, struct node *server)
{
    struct end e = { 0 }, s = { .echo = true };
    assert_int_equal(api->serve(server->peers, PD_SERVICE_TEST, on_call, &s), PD_OK);
    assert_int_equal(api->serve(server->peers, PD_SERVICE_TEST, on_call, &s), PD_EEXIST);

    /* Echo, end with a text. */
    assert_int_equal(call_open(a, to, 5, "first", 5, &e), PD_OK);
    assert_int_equal(s.messages, 0);    /* nothing happens inside the function */
    assert_true(turns(net, has_call, &s, PD_SEC));
    turns(net, NULL, NULL, 20 * PD_MS);
    assert_int_equal(e.messages, 1);
    assert_int_equal(e.last_type, 5);
    for (int i = 0; i < 100; i++)
        assert_int_equal(call_send(&e, 6, "abc", i % 4), PD_OK);
    turns(net, NULL, NULL, 50 * PD_MS);
    assert_int_equal(e.messages, 101);
    assert_true(e.sum == s.sum && e.bytes == s.bytes);
    api->call_end(s.call, PD_ELIMIT, PD_STR("the end"));
    assert_true(turns(net, ended, &e, PD_SEC));
    assert_int_equal(e.status, PD_ELIMIT);
    assert_string_equal(e.text, "the end");
    assert_int_equal(s.ends, 0);

    /* Refusals. */
    struct { uint32_t type; pd_status status; } rows[] = { { 99, PD_EDECLINED }, { 98, PD_EPERM } };
    for (int k = 0; k < 2; k++) {
        struct end r = { 0 };
        assert_int_equal(call_open(a, to, rows[k].type, "", 0, &r), PD_OK);
        assert_true(turns(net, ended, &r, PD_SEC));
        assert_int_equal(r.status, rows[k].status);
    }
    struct end none = { 0 };
    assert_int_equal(api->call_open(a->peers, to, 200, 1, NULL, 0, &end_events, &none, &none.call),
                     PD_OK);
    assert_true(turns(net, ended, &none, PD_SEC));
    assert_int_equal(none.status, PD_ENOENT);

    /* Cancel reaches the service; what comes after is late. */
    struct end c = { 0 };
    s = (struct end){ 0 };
    assert_int_equal(call_open(a, to, 1, "x", 1, &c), PD_OK);
    assert_true(turns(net, has_call, &s, PD_SEC));
    assert_int_equal(call_send(&s, 2, "late", 4), PD_OK);
    api->call_cancel(c.call);
    assert_true(turns(net, ended, &s, PD_SEC));
    assert_int_equal(s.status, PD_ECANCELED);
    turns(net, NULL, NULL, 20 * PD_MS);
    assert_int_equal(c.ends + c.messages, 0);
    assert_true(a->peers->count[PD_COUNT_LATE] > 0);

    /* Ends and cancels from inside the callback of a message. */
    struct end in = { .cancel_at_first = true };
    s = (struct end){ .echo = true };
    assert_int_equal(call_open(a, to, 1, "x", 1, &in), PD_OK);
    assert_true(turns(net, ended, &s, PD_SEC));
    struct end out = { 0 };
    s = (struct end){ .end_at_first = true };
    assert_int_equal(call_open(a, to, 1, "x", 1, &out), PD_OK);
    assert_true(turns(net, ended, &out, PD_SEC));
    assert_int_equal(out.status, PD_EBUSY);
    api->unserve(server->peers, PD_SERVICE_TEST);
}

static void test_calls(void **state)
{
    struct net net;
    struct node a, b;
    (void)state;
    net_up(&net);
    node_up(&a, &net, 1, 10);
    node_up(&b, &net, 2, 20);
    link_nodes(&net, &a, &b);
    test_calls_on(&net, &a, peer_of(&a, &b), &b);
    test_calls_on(&net, &b, peer_of(&b, &a), &a);
    test_calls_on(&net, &a, api->self(a.peers), &a);
    struct pd_peer_info i;
    assert_int_equal(api->info(a.peers, peer_of(&a, &b), &i), PD_OK);
    assert_int_equal(i.calls, 0);
    node_down(&a);
    node_down(&b);
    net_down(&net);
}

struct pump {
    struct end *e;
    uint64_t want;
    uint64_t sent;
    uint64_t sum;
    uint32_t again;
};

static bool pumped(void *arg)
{
    struct pump *p = (struct pump *)arg;
    static char buf[100000];
    while (p->sent < p->want) {
        size_t n = (p->sent * 7919) % sizeof buf;
        memset(buf, (int)(p->sent & 0xff), n);
        pd_status st = call_send(p->e, 3, buf, n);
        if (st == PD_EAGAIN) {
            p->again++;
            return false;
        }
        assert_int_equal(st, PD_OK);
        p->sum = p->sum * 31 + pd_crc32c(3, buf, n);
        p->sent += n + 1;
    }
    return true;
}

static void test_windows(void **state)
{
    (void)state;
    for (int self = 0; self < 2; self++) {
        struct net net;
        struct node a, b;
        struct end e = { 0 }, s = { 0 }, e2 = { 0 }, s2 = { 0 };
        net_up(&net);
        node_up(&a, &net, 1, 10);
        node_up(&b, &net, 2, 20);
        link_nodes(&net, &a, &b);
        struct node *server = self ? &a : &b;
        pd_peer_ref to = self ? api->self(a.peers) : peer_of(&a, &b);
        assert_int_equal(api->serve(server->peers, PD_SERVICE_TEST, on_call, &s), PD_OK);

        /* A first message of 5 MB comes in one piece. */
        size_t big = 5u << 20;
        char *p = (char *)calloc(1, big);
        p[big - 1] = 'z';
        assert_int_equal(call_open(&a, to, 1, p, big, &e), PD_OK);
        assert_true(turns(&net, has_call, &s, 3 * PD_SEC));
        assert_int_equal(s.bytes, big);
        assert_true(s.sum == pd_crc32c(1, p, big));

        /* And so do the messages after it, through the window. */
        s.sum = 0;
        struct pump pump = { .e = &e, .want = 20u << 20 };
        assert_true(turns(&net, pumped, &pump, 5 * PD_SEC));
        turns(&net, NULL, NULL, 300 * PD_MS);
        assert_true(s.sum == pump.sum);
        assert_true(pump.again > 0 && e.writable > 0);

        /* A paused service holds at most its window; another call goes on. */
        s.sum = 0;
        pump = (struct pump){ .e = &e, .want = 8u << 20 };
        api->call_pause(s.call, true);
        uint64_t before = s.bytes;
        assert_false(turns(&net, pumped, &pump, 200 * PD_MS));
        assert_true(s.bytes == before);
        assert_true(server->peers->me->link->reassembly <= (1u << 20));
        api->unserve(server->peers, PD_SERVICE_TEST);
        assert_int_equal(api->serve(server->peers, PD_SERVICE_TEST, on_call, &s2), PD_OK);
        s2.echo = true;
        assert_int_equal(call_open(&a, to, 1, "x", 1, &e2), PD_OK);
        turns(&net, NULL, NULL, 50 * PD_MS);
        assert_int_equal(e2.messages, 1);
        api->call_pause(s.call, false);
        assert_true(turns(&net, pumped, &pump, 5 * PD_SEC));
        /* The end comes behind everything, also when it was asked for early. */
        turns(&net, NULL, NULL, 300 * PD_MS);
        assert_true(s.sum == pump.sum);

        struct pump back = { .e = &s, .want = 900u << 10 };
        struct end *opener = &e;
        opener->sum = 0;
        api->call_pause(e.call, true);
        assert_true(turns(&net, pumped, &back, PD_SEC));
        api->call_end(s.call, PD_OK, PD_STR("done"));
        turns(&net, NULL, NULL, 100 * PD_MS);
        assert_int_equal(e.ends, 0);
        api->call_pause(e.call, false);
        assert_true(turns(&net, ended, &e, 2 * PD_SEC));
        assert_true(e.sum == back.sum);
        assert_string_equal(e.text, "done");
        free(p);
        node_down(&a);
        node_down(&b);
        net_down(&net);
    }
}

static void test_caps(void **state)
{
    struct net net;
    struct node a, b;
    struct pd_peers_conf c = { .max_calls = 8, .max_message = 65536 };
    struct end e[10], s = { 0 };
    (void)state;
    memset(e, 0, sizeof e);
    net_up(&net);
    node_up(&a, &net, 1, 10);
    node_up_conf(&b, &net, 2, 20, &c);
    assert_int_equal(api->serve(b.peers, PD_SERVICE_TEST, on_call, &s), PD_OK);
    link_nodes(&net, &a, &b);
    pd_peer_ref to = peer_of(&a, &b);
    static char big[65537];
    assert_int_equal(call_open(&a, to, 1, big, sizeof big, &e[0]), PD_ELIMIT);
    assert_int_equal(call_open(&a, to, 256, "", 0, &e[0]), PD_EINVAL);
    for (int i = 0; i < 10; i++)
        assert_int_equal(call_open(&a, to, 1, big, 30000, &e[i]), PD_OK);
    turns(&net, NULL, NULL, 100 * PD_MS);
    assert_int_equal(s.messages, 8);
    assert_int_equal(e[8].status, PD_ELIMIT);
    assert_int_equal(e[9].status, PD_ELIMIT);
    assert_int_equal(e[7].ends, 0);
    assert_int_equal(state_of(&a, &b), PD_PEER_UP);
    /* The opening side's own cap. */
    struct end x[9];
    memset(x, 0, sizeof x);
    for (int i = 0; i < 9; i++)
        assert_int_equal(call_open(&b, peer_of(&b, &a), 1, "", 0, &x[i]),
                         i < 8 ? PD_OK : PD_ELIMIT);
    turns(&net, NULL, NULL, 50 * PD_MS);
    node_down(&b);
    turns(&net, ended, &e[0], PD_SEC);
    assert_int_equal(e[0].status, PD_EPEER);
    assert_int_equal(x[0].status, PD_ENOENT);
    node_down(&a);
    net_down(&net);
}

static void test_reach(void **state)
{
    struct net net;
    struct node a, b, c;
    pd_peer_ref ref = 0, again = 0;
    char at[64];
    (void)state;
    net_up(&net);
    struct pd_peers_conf conf = { .forget = 300 * PD_MS };
    node_up_conf(&a, &net, 1, 10, &conf);
    node_up(&b, &net, 2, 20);
    snprintf(at, sizeof at, "127.0.0.1:%u", b.port);
    assert_int_equal(api->reach(a.peers, &b.desc.id, pd_str_from(at), &ref), PD_PENDING);
    assert_int_equal(api->reach(a.peers, &b.desc.id, pd_str_from(at), &again), PD_PENDING);
    assert_true(ref == again);
    struct node *pair[2] = { &a, &b };
    assert_true(turns(&net, both_up, pair, PD_SEC));
    assert_true(peer_of(&a, &b) == ref);
    assert_int_equal(api->reach(a.peers, &b.desc.id, pd_str_from(at), &again), PD_OK);
    /* Somebody else answers there: the one asked for is not up. */
    memset(&c, 0, sizeof c);
    memset(c.desc.id.uuid.b, 9, 16);
    c.desc.id.epoch = 3;
    assert_int_equal(api->reach(a.peers, &c.desc.id, pd_str_from(at), &ref), PD_PENDING);
    turns(&net, NULL, NULL, 100 * PD_MS);
    assert_int_equal(state_of(&a, &c), PD_PEER_DOWN);
    assert_int_equal(state_of(&a, &b), PD_PEER_UP);
    assert_int_equal(api->reach(a.peers, &c.desc.id, PD_STR("nonsense"), &ref), PD_EINVAL);
    /* A peer that nobody dials is forgotten; a configured one only when undialed. */
    struct pd_peer_info i;
    char more[64];
    struct node d;
    node_up(&d, &net, 4, 40);
    snprintf(more, sizeof more, "127.0.0.1:%u", d.port);
    link_nodes(&net, &a, &d);
    pd_peer_ref rb = peer_of(&a, &b), rd = peer_of(&a, &d);
    node_down(&b);
    node_down(&d);
    turns(&net, NULL, NULL, 600 * PD_MS);
    assert_int_equal(api->info(a.peers, rb, &i), PD_ESTALE);
    assert_int_equal(api->info(a.peers, rd, &i), PD_OK);
    assert_int_equal(i.state, PD_PEER_DOWN);
    assert_int_equal(pd_peers_undial(a.peers, pd_str_from(more)), PD_OK);
    assert_int_equal(pd_peers_undial(a.peers, pd_str_from(more)), PD_ENOENT);
    turns(&net, NULL, NULL, 450 * PD_MS);
    assert_int_equal(api->info(a.peers, rd, &i), PD_ESTALE);
    node_down(&a);
    net_down(&net);
}

/* A node that keeps no identity is another one after each start.  What it was
 * before is forgotten, although its address stands in the configuration. */
static void test_new_identity(void **state)
{
    struct net net;
    struct node a, b, next;
    char at[64];
    (void)state;
    net_up(&net);
    struct pd_peers_conf conf = { .forget = 100 * PD_MS };
    node_up_conf(&a, &net, 1, 10, &conf);
    node_up(&b, &net, 2, 20);
    snprintf(at, sizeof at, "127.0.0.1:%u", b.port);
    link_nodes(&net, &a, &b);
    for (uint8_t uuid = 3; uuid < 8; uuid++) {
        struct pd_err err = { 0 };
        struct node *pair[2] = { &a, &next };
        pd_peer_ref old = peer_of(&a, &b);
        struct pd_peer_info i;
        assert_true(old != 0);
        node_down(&b);
        turns(&net, NULL, NULL, 200 * PD_MS);
        assert_int_equal(api->info(a.peers, old, &i), PD_OK); /* it may come back as it was */
        node_up(&next, &net, uuid, 30);
        assert_int_equal(pd_peers_listen(next.peers, pd_str_from(at), NULL, &err), PD_OK);
        assert_true(turns(&net, both_up, pair, 2 * PD_SEC));
        turns(&net, NULL, NULL, 200 * PD_MS);
        assert_int_equal(api->info(a.peers, old, &i), PD_ESTALE);
        /* The watch of a node knows the node by its place. */
        api->unwatch(next.watch);
        b = next;
        assert_int_equal(api->watch(b.peers, &watch_events, &b, &b.watch), PD_OK);
    }
    node_down(&b);
    node_down(&a);
    net_down(&net);
}

/* ---- somebody who does not keep to the protocol */

struct rogue {
    struct pd_stream *s;
    bool closed;
    bool connected;
    uint8_t in[4096];
    size_t n;
};

static void rogue_connected(struct pd_stream *s, pd_status st, void *arg)
{
    (void)s;
    ((struct rogue *)arg)->connected = st == PD_OK;
}

static void rogue_readable(struct pd_stream *s, void *arg)
{
    struct rogue *r = (struct rogue *)arg;
    size_t got = 0;
    if (r->n == sizeof r->in)
        r->n = 0;
    pd_status st = pd_stream_read(s, r->in + r->n, sizeof r->in - r->n, &got);
    if (st == PD_OK)
        r->n += got;
    else if (st != PD_EAGAIN)
        pd_stream_close(s);
}

static void rogue_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct rogue *)arg)->closed = true;
}

static const struct pd_stream_events rogue_events = {
    .name = "rogue", .on_connected = rogue_connected, .on_readable = rogue_readable, .on_closed = rogue_closed,
};

static bool rogue_is_closed(void *arg)
{
    return ((struct rogue *)arg)->closed;
}

static bool rogue_is_connected(void *arg)
{
    return ((struct rogue *)arg)->connected;
}

static void rogue_send(struct rogue *r, uint8_t type, uint16_t flags, uint16_t kind, uint32_t call,
                       const void *p, size_t n)
{
    uint8_t h[PD_FRAME_HEADER];
    struct pd_frame f = { type, flags, kind, call, (uint32_t)n, 0 };
    struct pd_iov iov = { (void *)(uintptr_t)p, n };
    size_t sent;
    if (r->closed)
        return;
    pd_frame_write(h, &f, &iov, 1);
    (void)pd_stream_write(r->s, h, sizeof h, &sent);
    if (n > 0)
        (void)pd_stream_write(r->s, p, n, &sent);
}

static void rogue_connect(struct net *net, struct node *n, struct rogue *r)
{
    struct pd_addr to = { .family = PD_AF_IPV4, .port = n->port, .ip = { 127, 0, 0, 1 } };
    memset(r, 0, sizeof *r);
    assert_int_equal(pd_stream_connect(net->loop, &to, &rogue_events, r, &r->s), PD_OK);
    assert_true(turns(net, rogue_is_connected, r, PD_SEC));
}

/* Goes through the hello as node 9. */
static void rogue_hello(struct net *net, struct node *n, struct rogue *r, uint64_t epoch)
{
    struct pd_preamble pre = { .version_min = 1, .version_max = 1, .window = 65536,
                               .max_message = 65536 };
    uint8_t b[4096] = { 0 };
    struct pd_peer_desc d = { .name = "rogue" };
    size_t len = 0;
    rogue_connect(net, n, r);
    memset(d.id.uuid.b, 9, 16);
    d.id.epoch = epoch;
    pd_preamble_write(&pre, b);
    rogue_send(r, PD_FRAME_PREAMBLE, 0, 0, 0, b, PD_HELLO_PREAMBLE);
    memset(b, 0, PD_HELLO_MAC);
    assert_int_equal(pd_desc_write(&d, false, b + PD_HELLO_MAC, sizeof b - PD_HELLO_MAC, &len),
                     PD_OK);
    rogue_send(r, PD_FRAME_HELLO, 0, 0, 0, b, PD_HELLO_MAC + len);
    rogue_send(r, PD_FRAME_READY, 0, 0, 0, NULL, 0);
    turns(net, NULL, NULL, 30 * PD_MS);
    assert_false(r->closed);
}

static void rogue_close(struct rogue *r)
{
    if (!r->closed)
        pd_stream_close(r->s);
}

static void rogue_gone(struct net *net, struct rogue *r)
{
    assert_true(turns(net, rogue_is_closed, r, 2 * PD_SEC));
}

static void test_rogue(void **state)
{
    struct net net;
    struct node a;
    struct rogue r;
    struct end s = { 0 };
    uint64_t epoch = 100;
    static uint8_t zeros[PD_FRAME_MAX_PAYLOAD];
    (void)state;
    net_up(&net);
    struct pd_peers_conf c = { .heartbeat = PD_SEC, .suspect = 3 * PD_SEC, .dead = 4 * PD_SEC };
    node_up_conf(&a, &net, 1, 10, &c);
    assert_int_equal(api->serve(a.peers, PD_SERVICE_TEST, on_call, &s), PD_OK);
    zeros[0] = PD_SERVICE_TEST;

    /* Silence ends after the time for hello. */
    rogue_connect(&net, &a, &r);
    rogue_gone(&net, &r);
    /* No version in common. */
    rogue_connect(&net, &a, &r);
    struct pd_preamble pre = { .version_min = 7, .version_max = 9, .window = 65536,
                               .max_message = 65536 };
    uint8_t b[PD_HELLO_PREAMBLE];
    pd_preamble_write(&pre, b);
    rogue_send(&r, PD_FRAME_PREAMBLE, 0, 0, 0, b, sizeof b);
    rogue_gone(&net, &r);
    assert_int_equal(a.peers->goodbyes[1][PD_GOODBYE_VERSION], 1);

    struct { uint8_t type; uint16_t flags,
             kind; uint32_t call; size_t n; uint32_t reason; } rows[] = {
        { PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 5, 1, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_OPEN, 0, 1, 5, 3, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_OPEN, PD_FRAME_OPENER, 0x1000, 5, 3, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_MESSAGE, PD_FRAME_OPENER, 1, 5, 3, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_MESSAGE, 0, 1, 5, 3, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_END, 0, 0, 5, 3, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_CREDIT, 0, 0, 5, 4, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_HELLO, 0, 0, 0, 40, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_HEARTBEAT, 0, 0, 0, 3, PD_GOODBYE_PROTOCOL },
        { PD_FRAME_UPDATE, 0, 0, 0, 3, PD_GOODBYE_PROTOCOL },
        { 99, 0, 0, 0, 0, PD_GOODBYE_PROTOCOL },
    };
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        uint64_t before = a.peers->goodbyes[1][rows[k].reason];
        rogue_hello(&net, &a, &r, epoch++);
        rogue_send(&r, rows[k].type, rows[k].flags, rows[k].kind, rows[k].call, zeros, rows[k].n);
        rogue_gone(&net, &r);
        assert_int_equal(a.peers->goodbyes[1][rows[k].reason], before + 1);
    }
    /* More than the window allows. */
    rogue_hello(&net, &a, &r, epoch++);
    rogue_send(&r, PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 1, zeros, 2);
    turns(&net, NULL, NULL, 20 * PD_MS);
    api->call_pause(s.call, true);
    for (int i = 0; i < 6; i++) {
        rogue_send(&r, PD_FRAME_MESSAGE, PD_FRAME_OPENER, 1, 1, zeros, 60000);
        turns(&net, NULL, NULL, 10 * PD_MS);
    }
    rogue_gone(&net, &r);
    assert_int_equal(a.peers->goodbyes[1][PD_GOODBYE_FLOW], 1);
    assert_int_equal(s.status, PD_EPEER);
    /* A damaged length is seen at once, not when so many bytes have come. */
    rogue_hello(&net, &a, &r, epoch++);
    uint8_t head[PD_FRAME_HEADER];
    struct pd_frame damaged = { .type = PD_FRAME_OPEN, .flags = PD_FRAME_OPENER, .call = 1 };
    size_t sent;
    pd_frame_write(head, &damaged, NULL, 0);
    head[14] ^= 1;
    assert_int_equal(pd_stream_write(r.s, head, sizeof head, &sent), PD_OK);
    rogue_gone(&net, &r);
    assert_int_equal(a.peers->goodbyes[1][PD_GOODBYE_CHECKSUM], 1);
    /* One id twice. */
    rogue_hello(&net, &a, &r, epoch++);
    rogue_send(&r, PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 7, zeros, 2);
    rogue_send(&r, PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 7, zeros, 2);
    rogue_gone(&net, &r);
    node_down(&a);
    net_down(&net);
}

static uint64_t rng(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Random frames with good checksums, and random bytes, in every state. */
static void test_garbage(void **state)
{
    struct net net;
    struct node a;
    struct rogue r;
    struct end s = { .echo = true };
    uint64_t x = 0x9e3779b97f4a7c15u, epoch = 1000;
    uint8_t junk[600];
    (void)state;
    net_up(&net);
    struct pd_peers_conf c = { .heartbeat = PD_SEC, .suspect = 3 * PD_SEC, .dead = 4 * PD_SEC };
    node_up_conf(&a, &net, 1, 10, &c);
    assert_int_equal(api->serve(a.peers, PD_SERVICE_TEST, on_call, &s), PD_OK);
    for (int round = 0; round < 60; round++) {
        if (round % 3 == 0)
            rogue_connect(&net, &a, &r);
        else
            rogue_hello(&net, &a, &r, epoch++);
        for (int k = 0; k < 60 && !r.closed; k++) {
            size_t n = rng(&x) % sizeof junk, sent;
            for (size_t i = 0; i < n; i++)
                junk[i] = (uint8_t)rng(&x);
            static const uint8_t types[] = { 1, 2, 3, 5, 6, 16, 17, 18, 19, 20, 16, 17, 17, 20 };
            uint8_t type = types[rng(&x) % sizeof types];
            junk[0] = PD_SERVICE_TEST;
            junk[1] = 0;
            if (round % 3 == 0 && rng(&x) % 4 == 0)
                (void)pd_stream_write(r.s, junk, n, &sent);
            else if (type >= 16)
                rogue_send(&r, type, (uint16_t)(rng(&x) % 4), (uint16_t)(rng(&x) % 3),
                           1 + (uint32_t)(rng(&x) % 6), junk, type == 20 ? 4 : n);
            else if (rng(&x) % 8 == 0)
                rogue_send(&r, type, 0, 0, 0, junk, n);
            pd_loop_uv_turn(net.loop, 0);
        }
        rogue_close(&r);
        rogue_gone(&net, &r);
        s = (struct end){ .echo = true };
    }
    turns(&net, NULL, NULL, 50 * PD_MS);
    assert_int_equal(a.peers->n_links, 1);
    node_down(&a);
    net_down(&net);
}

static void test_dead(void **state)
{
    struct net net;
    struct node a;
    struct rogue r;
    struct end s = { 0 };
    static uint8_t open_bytes[2] = { PD_SERVICE_TEST, 0 };
    (void)state;
    net_up(&net);
    struct pd_peers_conf c = { .heartbeat = 40 * PD_MS, .suspect = 120 * PD_MS,
                               .dead = 200 * PD_MS };
    node_up_conf(&a, &net, 1, 10, &c);
    assert_int_equal(api->serve(a.peers, PD_SERVICE_TEST, on_call, &s), PD_OK);
    rogue_hello(&net, &a, &r, 1);
    rogue_send(&r, PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 1, open_bytes, 2);
    pd_time from = pd_loop_clock(net.loop);
    assert_true(turns(&net, ended, &s, PD_SEC));
    pd_time took = pd_loop_clock(net.loop) - from;
    assert_int_equal(s.status, PD_EPEER);
    assert_int_equal(a.events[PD_PEER_ON_SUSPECT], 1);
    assert_int_equal(a.events[PD_PEER_ON_DOWN], 1);
    assert_true(took >= 190 * PD_MS && took < 900 * PD_MS);
    assert_int_equal(a.peers->goodbyes[1][PD_GOODBYE_TIMEOUT], 1);
    rogue_close(&r);
    rogue_gone(&net, &r);
    node_down(&a);
    net_down(&net);
}

static void test_steady_state(void **state)
{
    struct net net;
    struct node a, b;
    struct end e = { 0 }, s = { 0 };
    (void)state;
    net_up(&net);
    node_up(&a, &net, 1, 10);
    node_up(&b, &net, 2, 20);
    assert_int_equal(api->serve(b.peers, PD_SERVICE_TEST, on_call, &s), PD_OK);
    link_nodes(&net, &a, &b);
    assert_int_equal(call_open(&a, peer_of(&a, &b), 1, "x", 1, &e), PD_OK);
    assert_true(turns(&net, has_call, &s, PD_SEC));
    for (int warm = 0; warm < 2; warm++) {
        uint64_t before = pd_mem_count();
        for (int i = 0; i < 200; i++) {
            for (int k = 0; k < 10; k++)
                assert_int_equal(call_send(&s, 2, "a token frame of usual size", 27), PD_OK);
            pd_loop_uv_turn(net.loop, 1 * PD_MS);
        }
        if (warm)
            assert_int_equal(pd_mem_count() - before, 0);
    }
    turns(&net, NULL, NULL, 50 * PD_MS);
    assert_int_equal(e.messages, 4000);
    node_down(&a);
    node_down(&b);
    net_down(&net);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_frame),
    cmocka_unit_test(test_desc),
    cmocka_unit_test(test_up_and_load),
    cmocka_unit_test(test_secret),
    cmocka_unit_test(test_simultaneous),
    cmocka_unit_test(test_self_and_clash),
    cmocka_unit_test(test_new_epoch),
    cmocka_unit_test(test_calls),
    cmocka_unit_test(test_windows),
    cmocka_unit_test(test_caps),
    cmocka_unit_test(test_reach),
    cmocka_unit_test(test_new_identity),
    cmocka_unit_test(test_rogue),
    cmocka_unit_test(test_garbage),
    cmocka_unit_test(test_dead),
    cmocka_unit_test(test_steady_state),
};
PD_UNIT_MAIN(tests)
