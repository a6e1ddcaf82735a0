/* SPDX-License-Identifier: Apache-2.0 */
/* The edges of the protocol between nodes, in the simulator: descriptions, frames and
 * configurations that break one rule each, a peer that follows a script and breaks
 * one rule at its end, limits, and names that come and go.  Who breaks a rule loses
 * its link for the reason that is counted; the node goes on. */
#include "unit.h"

#include "base/mem.h"
#include "base/str.h"
#include "loop/sim.h"
#include "metric/metric.h"
#include "peer/priv.h"

static const struct pd_peer_api *api;

/* ---- what nodes tell of themselves ------------------------------------------------ */

static struct pd_peer_engine engines[2];
static struct pd_peer_transport transports[2];

static struct pd_peer_desc whole(void)
{
    struct pd_peer_desc d = { .name = "name", .version = "1", .host_id = "host", .listener = "10.0.0.1:7000",
                              .engines = engines, .n_engines = 2, .transports = transports, .n_transports = 2 };
    memset(engines, 0, sizeof engines);
    memset(transports, 0, sizeof transports);
    memset(d.id.uuid.b, 9, sizeof d.id.uuid.b);
    d.id.epoch = 1;
    for (int i = 0; i < 2; i++) {
        snprintf(engines[i].name, sizeof engines[i].name, "engine%d", i);
        snprintf(engines[i].model, sizeof engines[i].model, "model");
        snprintf(transports[i].name, sizeof transports[i].name, "transport%d", i);
        transports[i].address_len = 3;
    }
    return d;
}

#define FILL(field) memset(field, 'x', sizeof(field))

static void break_desc(struct pd_peer_desc *d, int how)
{
    switch (how) {
    case 0: d->n_engines = PD_PEER_MAX_ENGINES + 1; break;
    case 1: d->n_transports = PD_PEER_MAX_TRANSPORTS + 1; break;
    case 2: memset(&d->id.uuid, 0, sizeof d->id.uuid); break;
    case 3: d->id.epoch = 0; break;
    case 4: d->name[0] = '\0'; break;
    case 5: d->name[1] = '\n'; break;
    case 6: d->name[1] = 0x7f; break;
    case 7: FILL(d->name); break;
    case 8: FILL(d->version); break;
    case 9: FILL(d->host_id); break;
    case 10: FILL(d->listener); break;
    case 11: engines[1].name[0] = '\0'; break;
    case 12: FILL(engines[1].name); break;
    case 13: engines[0].model[0] = '\t'; break;
    case 14: memcpy(engines[1].name, engines[0].name, sizeof engines[1].name); break;
    case 15: transports[1].name[0] = '\0'; break;
    case 16: FILL(transports[0].name); break;
    case 17: transports[1].address_len = PD_PEER_MAX_ADDRESS + 1; break;
    default: break;
    }
}

static void test_descriptions(void **state)
{
    struct pd_err err;
    struct pd_peer_desc d, *got = NULL;
    static uint8_t b[8192], bad[8192];
    size_t n = 0;
    bool draining;
    (void)state;
    for (int how = 0; how < 18; how++) {
        d = whole();
        break_desc(&d, how);
        memset(&err, 0, sizeof err);
        assert_int_equal(pd_desc_check(&d, &err), PD_EINVAL);
        assert_true(err.text[0] != '\0');
        assert_int_equal(pd_desc_write(&d, false, b, sizeof b, &n), PD_EINVAL);
    }
    d = whole();
    assert_int_equal(pd_desc_write(&d, true, b, sizeof b, &n), PD_OK);
    for (size_t cap = 0; cap < n; cap++) {
        size_t none;
        assert_int_equal(pd_desc_write(&d, true, bad, cap, &none), PD_ELIMIT);
        assert_int_equal(pd_desc_read(b, cap, &got, &draining), PD_EPROTO);
    }
    assert_int_equal(pd_desc_read(b, n + 1, &got, &draining), PD_EPROTO);
    for (uint64_t k = 1; k <= 2; k++) {
        pd_mem_fault_set(k);
        assert_int_equal(pd_desc_read(b, n, &got, &draining), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
    assert_int_equal(pd_desc_read(b, n, &got, &draining), PD_OK);
    assert_true(draining && got->n_engines == 2 && got->transports[1].address_len == 3);
    pd_free(got);
    /* Each byte another: read as something whole, or refused. */
    for (size_t i = 0; i < n; i++) {
        static const uint8_t values[] = { 0, 2, 0x1f, 0xff };
        for (size_t k = 0; k < sizeof values; k++) {
            memcpy(bad, b, n);
            bad[i] = values[k];
            pd_status st = pd_desc_read(bad, n, &got, &draining);
            if (st == PD_OK) {
                assert_int_equal(pd_desc_check(got, &err), PD_OK);
                pd_free(got);
            } else {
                assert_int_equal(st, PD_EPROTO);
            }
        }
    }
}

static void test_preambles(void **state)
{
    static const struct pd_preamble good = { .version_min = 1, .version_max = 1, .window = PD_HELLO_WINDOW_MIN,
                                             .max_message = PD_HELLO_WINDOW_MIN };
    struct pd_preamble p, got;
    uint8_t b[PD_HELLO_PREAMBLE];
    (void)state;
    for (int how = 0; how < 7; how++) {
        p = good;
        switch (how) {
        case 1: p.version_min = 0; break;
        case 2: p.version_min = 2; break;
        case 3: p.auth = 2; break;
        case 4: p.window = PD_HELLO_WINDOW_MIN - 1; break;
        case 5: p.window = PD_HELLO_WINDOW_MAX + 1; break;
        case 6: p.max_message = PD_HELLO_WINDOW_MIN - 1; break;
        default: break;
        }
        pd_preamble_write(&p, b);
        assert_int_equal(pd_preamble_read(b, sizeof b, &got), how == 0 ? PD_OK : PD_EPROTO);
    }
    assert_int_equal(pd_preamble_read(b, sizeof b - 1, &got), PD_EPROTO);
}

static void test_heartbeats(void **state)
{
    struct pd_heartbeat h = { .n_loads = 2 }, got;
    uint8_t b[2048];
    (void)state;
    size_t n = pd_heartbeat_write(&h, b, sizeof b);
    assert_int_equal(pd_heartbeat_read(b, n, &got), PD_OK);
    assert_int_equal(pd_heartbeat_read(b, n - 1, &got), PD_EPROTO);
    assert_int_equal(pd_heartbeat_read(b, n + 1, &got), PD_EPROTO);
    b[24] = 2;                  /* draining */
    assert_int_equal(pd_heartbeat_read(b, n, &got), PD_EPROTO);
    b[24] = 0;
    b[25] = PD_PEER_MAX_ENGINES + 1;
    assert_int_equal(pd_heartbeat_read(b, n, &got), PD_EPROTO);
}

static void test_frames(void **state)
{
    static const struct {
        struct pd_frame f;
        pd_status status;
    } all[] = {
        { { .type = PD_FRAME_HEARTBEAT, .length = PD_FRAME_MAX_PAYLOAD }, PD_OK },
        { { .type = PD_FRAME_HEARTBEAT, .length = PD_FRAME_MAX_PAYLOAD + 1 }, PD_EPROTO },
        { { .type = PD_FRAME_HEARTBEAT, .flags = PD_FRAME_MORE }, PD_EPROTO },
        { { .type = PD_FRAME_HEARTBEAT, .kind = 1 }, PD_EPROTO },
        { { .type = PD_FRAME_HEARTBEAT, .call = 1 }, PD_EPROTO },
        { { .type = PD_FRAME_UPDATE + 1 }, PD_EPROTO },
        { { .type = 0 }, PD_EPROTO },
        { { .type = PD_FRAME_CREDIT + 1, .call = 1 }, PD_EPROTO },
        { { .type = PD_FRAME_MESSAGE }, PD_EPROTO },
        { { .type = PD_FRAME_MESSAGE, .call = 1, .flags = 4 }, PD_EPROTO },
        { { .type = PD_FRAME_MESSAGE, .call = 1, .flags = PD_FRAME_MORE }, PD_OK },
        { { .type = PD_FRAME_OPEN, .call = 1, .flags = PD_FRAME_MORE | PD_FRAME_OPENER }, PD_OK },
        { { .type = PD_FRAME_END, .call = 1, .flags = PD_FRAME_MORE }, PD_EPROTO },
    };
    uint8_t b[PD_FRAME_HEADER];
    struct pd_frame got;
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        pd_frame_write(b, &all[i].f, NULL, 0);
        assert_int_equal(pd_frame_read(b, &got), all[i].status);
        b[17] ^= 1;
        assert_int_equal(pd_frame_read(b, &got), PD_EINTEGRITY);
        b[0] ^= 1;
        assert_int_equal(pd_frame_read(b, &got), PD_EPROTO);
        b[0] ^= 1;
        b[2] ^= 1;
        assert_int_equal(pd_frame_read(b, &got), PD_EPROTO);
    }
    for (uint32_t r = 0; r <= PD_GOODBYES; r++) {
        assert_true((strcmp(pd_goodbye_text(r), "unknown reason") == 0) == (r == PD_GOODBYES));
        assert_true((strcmp(pd_goodbye_label(r), "unknown") == 0) == (r == PD_GOODBYES));
    }
}

/* ---- a node, and a host that speaks raw frames ---------------------------------------- */

struct node {
    struct pd_sim *sim;
    struct pd_loop *loop, *evil;
    struct pd_peers *peers;
    struct pd_metrics *metrics;
    struct pd_peer_desc desc;
    bool is_closed;
    /* the last call that a service got, or that was opened here */
    struct pd_call *call;
    bool keep, pause;           /* what the service does with it */
    uint32_t messages, ends;
    size_t bytes;
    pd_status status;
};

static void run(struct node *n, pd_time ns)
{
    pd_sim_run_until(n->sim, pd_sim_now(n->sim) + ns);
}

static void on_message(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg)
{
    struct node *n = arg;
    (void)call;
    (void)type;
    n->messages++;
    n->bytes += bytes.n;
}

static void on_end(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    struct node *n = arg;
    (void)bytes;
    n->ends++;
    n->status = status;
    if (n->call == call)
        n->call = NULL;
}

static const struct pd_call_events call_events = { .size = sizeof call_events, .on_message = on_message, .on_end = on_end };

static void on_call(struct pd_peers *peers, struct pd_call *call, pd_peer_ref from, uint32_t type, struct pd_str first,
                    void *arg)
{
    struct node *n = arg;
    (void)peers;
    (void)from;
    if (!n->keep)
        return;
    api->call_accept(call, &call_events, n);
    n->call = call;
    on_message(call, type, first, n);
    if (n->pause)
        api->call_pause(call, true);
}

static void node_up(struct node *n, struct pd_peers_conf *c, uint8_t uuid)
{
    struct pd_err err = { 0 };
    memset(n, 0, sizeof *n);
    api = pd_peer_table();
    assert_int_equal(pd_sim_create(5, NULL, &n->sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(n->sim, "n", "10.0.0.1", &n->loop), PD_OK);
    assert_int_equal(pd_sim_loop_create(n->sim, "evil", "10.0.0.2", &n->evil), PD_OK);
    assert_int_equal(pd_metrics_create(0, &n->metrics), PD_OK);
    n->desc = whole();
    memset(n->desc.id.uuid.b, uuid, sizeof n->desc.id.uuid.b);
    c->loop = n->loop;
    c->metrics = n->metrics;
    c->self = &n->desc;
    assert_int_equal(pd_peers_create(c, &n->peers, &err), PD_OK);
    assert_int_equal(pd_peers_listen(n->peers, PD_STR("10.0.0.1:7000"), NULL, &err), PD_OK);
    assert_int_equal(api->serve(n->peers, PD_SERVICE_TEST, on_call, n), PD_OK);
    n->keep = true;
}

static void on_closed(void *arg)
{
    ((struct node *)arg)->is_closed = true;
}

static void node_down(struct node *n)
{
    char names[256] = "";
    pd_peers_destroy(n->peers, on_closed, n);
    run(n, 5 * PD_SEC);
    assert_true(n->is_closed);
    pd_metrics_destroy(n->metrics);
    if (pd_loop_destroy(n->loop, names, sizeof names) != PD_OK)
        fail_msg("left: %s", names);
    assert_int_equal(pd_loop_destroy(n->evil, NULL, 0), PD_OK);
    assert_int_equal(pd_sim_destroy(n->sim), PD_OK);
}

struct rogue {
    struct pd_stream *s;
    bool is_closed;
    uint8_t in[1 << 17];
    size_t n;
};

static void rogue_readable(struct pd_stream *s, void *arg)
{
    struct rogue *r = arg;
    size_t got = 0;
    if (r->n > sizeof r->in / 2)
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
    ((struct rogue *)arg)->is_closed = true;
}

static const struct pd_stream_events rogue_events = { .name = "rogue", .on_readable = rogue_readable, .on_closed = rogue_closed };

static void rogue_send(struct rogue *r, uint8_t type, uint16_t flags, uint16_t kind, uint32_t call, const void *p, size_t size)
{
    static uint8_t b[PD_FRAME_MAX];
    struct pd_frame f = { type, flags, kind, call, (uint32_t)size, 0 };
    struct pd_iov iov = { (void *)(uintptr_t)p, size };
    size_t n = PD_FRAME_HEADER + size;
    pd_frame_write(b, &f, &iov, 1);
    if (size > 0)
        memcpy(b + PD_FRAME_HEADER, p, size);
    for (size_t at = 0, sent; at < n && !r->is_closed; at += sent)
        if (pd_stream_write(r->s, b + at, n - at, &sent) != PD_OK)
            break;
}

static void rogue_connect(struct node *n, struct rogue *r)
{
    struct pd_addr to;
    memset(r, 0, sizeof *r);
    pd_sim_addr(n->loop, 7000, &to);
    assert_int_equal(pd_stream_connect(n->evil, &to, &rogue_events, r, &r->s), PD_OK);
    run(n, 10 * PD_MS);
}

static void rogue_preamble(struct rogue *r)
{
    struct pd_preamble p = { .version_min = 1, .version_max = 1, .window = 65536, .max_message = 65536 };
    uint8_t b[PD_HELLO_PREAMBLE];
    pd_preamble_write(&p, b);
    rogue_send(r, PD_FRAME_PREAMBLE, 0, 0, 0, b, sizeof b);
}

static size_t rogue_desc(uint8_t uuid, uint64_t epoch, uint8_t *out, size_t size)
{
    struct pd_peer_desc d = { .name = "rogue" };
    size_t n = 0;
    memset(d.id.uuid.b, uuid, sizeof d.id.uuid.b);
    d.id.epoch = epoch;
    assert_int_equal(pd_desc_write(&d, false, out, size, &n), PD_OK);
    return n;
}

static void rogue_hello(struct rogue *r, uint8_t uuid, uint64_t epoch)
{
    uint8_t b[4096] = { 0 };
    size_t n = rogue_desc(uuid, epoch, b + PD_HELLO_MAC, sizeof b - PD_HELLO_MAC);
    rogue_preamble(r);
    rogue_send(r, PD_FRAME_HELLO, 0, 0, 0, b, PD_HELLO_MAC + n);
}

static void rogue_up(struct node *n, struct rogue *r, uint64_t epoch)
{
    rogue_connect(n, r);
    rogue_hello(r, 5, epoch);
    rogue_send(r, PD_FRAME_READY, 0, 0, 0, NULL, 0);
    run(n, 10 * PD_MS);
    assert_false(r->is_closed);
}

static bool rogue_is_closed(void *arg)
{
    return ((struct rogue *)arg)->is_closed;
}

static void rogue_gone(struct node *n, struct rogue *r, uint32_t reason, uint64_t before)
{
    pd_sim_run_cond(n->sim, pd_sim_now(n->sim) + 2 * PD_SEC, rogue_is_closed, r);
    if (!r->is_closed || n->peers->goodbyes[1][reason] != before + 1)
        fail_msg("closed %d, goodbyes \"%s\": %llu, before %llu", r->is_closed, pd_goodbye_label(reason),
                 (unsigned long long)n->peers->goodbyes[1][reason], (unsigned long long)before);
}

static void rogue_leave(struct node *n, struct rogue *r)
{
    if (!r->is_closed)
        pd_stream_close(r->s);
    run(n, 100 * PD_MS);
    assert_true(r->is_closed);
}

static struct rogue rogue;
static uint8_t zeros[PD_FRAME_MAX_PAYLOAD];

/* ---- rules broken before a link is up ------------------------------------------------ */

static void test_hellos(void **state)
{
    struct pd_peers_conf c = { .max_links = 3 };
    struct node n;
    uint8_t b[4096] = { 0 };
    (void)state;
    node_up(&n, &c, 1);
    const uint64_t *bye = n.peers->goodbyes[1];
    for (int how = 0; how < 8; how++) {
        uint64_t before = bye[PD_GOODBYE_PROTOCOL], clash = bye[PD_GOODBYE_CLASH], self = bye[PD_GOODBYE_SELF];
        rogue_connect(&n, &rogue);
        switch (how) {
        case 0: rogue_send(&rogue, PD_FRAME_PREAMBLE, 0, 0, 0, zeros, PD_HELLO_PREAMBLE); break;
        case 1: rogue_send(&rogue, PD_FRAME_READY, 0, 0, 0, NULL, 0); break;
        case 2:
            rogue_preamble(&rogue);
            rogue_send(&rogue, PD_FRAME_HELLO, 0, 0, 0, zeros, PD_HELLO_MAC - 1);
            break;
        case 3:
            rogue_preamble(&rogue);
            rogue_send(&rogue, PD_FRAME_HELLO, 0, 0, 0, zeros, PD_HELLO_MAC + 100);
            break;
        case 4:
            rogue_preamble(&rogue);
            rogue_preamble(&rogue);
            break;
        case 5:
            rogue_hello(&rogue, 5, 1);
            rogue_send(&rogue, PD_FRAME_HEARTBEAT, 0, 0, 0, zeros, 4);
            break;
        case 6: rogue_hello(&rogue, 1, n.desc.id.epoch + 1); break;
        default: rogue_hello(&rogue, 1, n.desc.id.epoch); break;
        }
        if (how < 6)
            rogue_gone(&n, &rogue, PD_GOODBYE_PROTOCOL, before);
        else
            rogue_gone(&n, &rogue, how == 6 ? PD_GOODBYE_CLASH : PD_GOODBYE_SELF, how == 6 ? clash : self);
    }
    /* A goodbye that is too short, or for a reason of later versions. */
    uint64_t lost = n.peers->goodbyes[0][PD_GOODBYE_NONE];
    for (size_t size = 0; size <= 2; size += 2) {
        rogue_connect(&n, &rogue);
        b[0] = 0xff;
        rogue_send(&rogue, PD_FRAME_GOODBYE, 0, 0, 0, b, size);
        run(&n, PD_SEC);
        assert_true(rogue.is_closed);
    }
    assert_int_equal(n.peers->goodbyes[0][PD_GOODBYE_NONE], lost + 2);
    /* More links than there may be: the next is closed without a word. */
    static struct rogue more[3];
    uint64_t limit = n.peers->count[PD_COUNT_LIMIT];
    for (int i = 0; i < 3; i++)
        rogue_connect(&n, &more[i]);
    assert_true(!more[0].is_closed && !more[1].is_closed && more[2].is_closed);
    assert_int_equal(n.peers->count[PD_COUNT_LIMIT], limit + 1);
    for (int i = 0; i < 3; i++)
        rogue_leave(&n, &more[i]);
    /* Without memory for a link there is none. */
    for (uint64_t k = 1; k <= 2; k++) {
        memset(&rogue, 0, sizeof rogue);
        struct pd_stream *s;
        struct pd_addr to;
        pd_sim_addr(n.loop, 7000, &to);
        assert_int_equal(pd_stream_connect(n.evil, &to, &rogue_events, &rogue, &rogue.s), PD_OK);
        s = rogue.s;
        for (uint64_t m = 1; m < 60; m++) {
            pd_mem_fault_set(m);
            run(&n, 20 * PD_US);
            pd_mem_fault_set(0);
        }
        run(&n, 5 * PD_SEC);
        assert_true(rogue.is_closed || rogue.s == s);
        rogue_leave(&n, &rogue);
    }
    node_down(&n);
}

/* Shared secrets that one side has, and the other has not. */
static void test_secrets(void **state)
{
    struct pd_peers_conf c = { .secret = PD_STR("secret") };
    struct node n;
    (void)state;
    node_up(&n, &c, 1);
    rogue_connect(&n, &rogue);
    rogue_preamble(&rogue);
    rogue_gone(&n, &rogue, PD_GOODBYE_AUTH, 0);
    assert_int_equal(n.peers->count[PD_COUNT_AUTH], 1);
    node_down(&n);
}

/* ---- rules broken by a peer that is up ------------------------------------------------- */

/* The number of the call that the node opened, as the peer sees it. */
enum { OURS = 1, THEIRS = 7 };

static void test_calls(void **state)
{
    static const struct {
        uint8_t type;
        uint16_t flags, kind;
        uint32_t call;
        size_t n;
        uint32_t reason;
        uint8_t first[2];
    } rows[] = {
        { PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 8, 2, PD_GOODBYE_PROTOCOL, { 0, 0 } },           /* no service */
        { PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 8, 2, PD_GOODBYE_PROTOCOL, { 0, 1 } },           /* 256 */
        { PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 6, 2, PD_GOODBYE_PROTOCOL, { PD_SERVICE_TEST, 0 } },  /* goes back */
        { PD_FRAME_MESSAGE, PD_FRAME_OPENER, 256, THEIRS, 2, PD_GOODBYE_PROTOCOL, { 0 } },
        { PD_FRAME_MESSAGE, PD_FRAME_OPENER | PD_FRAME_MORE, 1, THEIRS, 0, PD_GOODBYE_PROTOCOL, { 0 } },
        { PD_FRAME_END, PD_FRAME_OPENER, 0, THEIRS, 4, PD_GOODBYE_PROTOCOL, { 0 } },           /* by the opener */
        { PD_FRAME_END, 0, 1, OURS, 4, PD_GOODBYE_PROTOCOL, { 0 } },
        { PD_FRAME_END, 0, 0, OURS, 4, PD_GOODBYE_PROTOCOL, { 1, 0 } },                        /* status above 0 */
        { PD_FRAME_CANCEL, 0, 0, OURS, 0, PD_GOODBYE_PROTOCOL, { 0 } },                        /* of a call of ours */
        { PD_FRAME_CANCEL, PD_FRAME_OPENER, 0, THEIRS, 1, PD_GOODBYE_PROTOCOL, { 0 } },
        { PD_FRAME_CREDIT, PD_FRAME_OPENER, 0, THEIRS, 5, PD_GOODBYE_PROTOCOL, { 0 } },
        { PD_FRAME_CREDIT, PD_FRAME_OPENER, 0, THEIRS, 4, PD_GOODBYE_FLOW, { 0xff, 0xff } },
        { PD_FRAME_MESSAGE, PD_FRAME_OPENER, 0, 99, 0, PD_GOODBYE_PROTOCOL, { 0 } },           /* never opened */
        { PD_FRAME_PREAMBLE, 0, 0, 0, 48, PD_GOODBYE_PROTOCOL, { 0 } },
    };
    struct pd_peers_conf c = { 0 };
    struct node n;
    uint64_t epoch = 10;
    (void)state;
    node_up(&n, &c, 1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        static uint8_t b[PD_FRAME_MAX_PAYLOAD];
        struct pd_iov iov = { zeros, 3 };
        struct pd_call *ours;
        struct pd_node_id id = { .epoch = epoch };
        memset(id.uuid.b, 5, sizeof id.uuid.b);
        n.ends = 0;
        rogue_up(&n, &rogue, epoch++);
        assert_int_equal(api->call_open(n.peers, api->find(n.peers, &id), 9, 1, &iov, 1, &call_events, &n, &ours), PD_OK);
        memset(b, 0, sizeof b);
        b[0] = PD_SERVICE_TEST;
        rogue_send(&rogue, PD_FRAME_OPEN, PD_FRAME_OPENER, 1, THEIRS, b, 10);
        run(&n, 10 * PD_MS);
        b[0] = rows[i].first[0];
        b[1] = rows[i].first[1];
        if (rows[i].reason == PD_GOODBYE_FLOW)
            memset(b, 0xff, 4);
        uint64_t before = n.peers->goodbyes[1][rows[i].reason];
        rogue_send(&rogue, rows[i].type, rows[i].flags, rows[i].kind, rows[i].call, b, rows[i].n);
        rogue_gone(&n, &rogue, rows[i].reason, before);
        /* Both calls ended with the link. */
        assert_int_equal(n.ends, 2);
        assert_int_equal(n.status, PD_EPEER);
    }
    node_down(&n);
}

/* Fragments: of two kinds in one message, more than a message may have, and so many
 * that the link holds no more. */
static void test_fragments(void **state)
{
    struct pd_peers_conf c = { .max_message = 65536, .window = 262144 };
    struct node n;
    uint64_t before;
    (void)state;
    node_up(&n, &c, 1);
    zeros[0] = PD_SERVICE_TEST;
    rogue_up(&n, &rogue, 1);
    rogue_send(&rogue, PD_FRAME_OPEN, PD_FRAME_OPENER | PD_FRAME_MORE, 1, 1, zeros, 100);
    rogue_send(&rogue, PD_FRAME_MESSAGE, PD_FRAME_OPENER, 2, 1, zeros, 100);
    rogue_gone(&n, &rogue, PD_GOODBYE_PROTOCOL, 0);
    rogue_up(&n, &rogue, 2);
    before = n.peers->goodbyes[1][PD_GOODBYE_LIMIT];
    for (int i = 0; i < 3; i++)
        rogue_send(&rogue, i == 0 ? PD_FRAME_OPEN : PD_FRAME_MESSAGE, PD_FRAME_OPENER | PD_FRAME_MORE, 1, 1, zeros, 30000);
    rogue_gone(&n, &rogue, PD_GOODBYE_LIMIT, before);
    /* Each call as much as it may; the fifth is one too many, and only that. */
    rogue_up(&n, &rogue, 3);
    before = n.peers->count[PD_COUNT_LIMIT];
    for (uint32_t call = 1; call <= 5; call++) {
        rogue_send(&rogue, PD_FRAME_OPEN, PD_FRAME_OPENER | PD_FRAME_MORE, 1, call, zeros, 60002);
        run(&n, 10 * PD_MS);
    }
    rogue_send(&rogue, PD_FRAME_OPEN, PD_FRAME_OPENER, 1, 6, zeros, 2);
    run(&n, 10 * PD_MS);
    assert_true(n.call != NULL);
    for (uint32_t call = 1; call <= 4; call++)
        rogue_send(&rogue, PD_FRAME_MESSAGE, PD_FRAME_OPENER | PD_FRAME_MORE, 1, call, zeros, 5000);
    run(&n, 10 * PD_MS);
    /* One that is open already fails at the same limit. */
    for (int i = 0; i < 2; i++)
        rogue_send(&rogue, PD_FRAME_MESSAGE, PD_FRAME_OPENER | PD_FRAME_MORE, 1, 6, zeros, 30000);
    run(&n, 10 * PD_MS);
    assert_false(rogue.is_closed);
    assert_true(n.peers->count[PD_COUNT_LIMIT] >= before + 2);
    assert_int_equal(n.status, PD_ELIMIT);
    rogue_leave(&n, &rogue);
    node_down(&n);
}

/* What comes for a call whose owner rests waits, its end too. */
static void test_paused(void **state)
{
    struct pd_peers_conf c = { .window = 65536 };
    struct node n;
    struct pd_iov iov = { zeros, 3 };
    struct pd_node_id id = { .epoch = 1 };
    uint8_t b[8] = { 0 };
    (void)state;
    node_up(&n, &c, 1);
    memset(id.uuid.b, 5, sizeof id.uuid.b);
    rogue_up(&n, &rogue, 1);
    assert_int_equal(api->call_open(n.peers, api->find(n.peers, &id), 9, 1, &iov, 1, &call_events, &n, &n.call), PD_OK);
    run(&n, 10 * PD_MS);
    api->call_pause(n.call, true);
    for (int i = 0; i < 3; i++)
        rogue_send(&rogue, PD_FRAME_MESSAGE, 0, 1, OURS, zeros, 20000);
    rogue_send(&rogue, PD_FRAME_END, 0, 0, OURS, b, 4);
    run(&n, 10 * PD_MS);
    assert_true(n.messages == 0 && n.ends == 0);
    api->call_pause(n.call, false);
    api->call_pause(n.call, false);
    run(&n, 10 * PD_MS);
    assert_int_equal(n.messages, 3);
    assert_int_equal(n.bytes, 60000);
    assert_int_equal(n.ends, 1);
    assert_int_equal(n.status, PD_OK);
    /* Late for a call that is over: counted, and no more. */
    uint64_t late = n.peers->count[PD_COUNT_LATE];
    rogue_send(&rogue, PD_FRAME_MESSAGE, 0, 1, OURS, zeros, 20);
    run(&n, 10 * PD_MS);
    assert_int_equal(n.peers->count[PD_COUNT_LATE], late + 1);
    /* Without memory for what has to wait, the call fails and the link stays. */
    for (int what = 0; what < 2; what++) {
        n.ends = 0;
        assert_int_equal(api->call_open(n.peers, api->find(n.peers, &id), 9, 1, &iov, 1, &call_events, &n, &n.call), PD_OK);
        run(&n, 10 * PD_MS);
        api->call_pause(n.call, true);
        rogue_send(&rogue, what == 0 ? PD_FRAME_MESSAGE : PD_FRAME_END, 0, 0, OURS + 1 + (uint32_t)what, b, 4);
        for (uint64_t m = 1; m < 40; m++) {
            pd_mem_fault_set(m);
            run(&n, PD_US);
            pd_mem_fault_set(0);
        }
        run(&n, 10 * PD_MS);
        if (n.call != NULL) {
            api->call_pause(n.call, false);
            run(&n, 10 * PD_MS);
        }
        if (n.call != NULL)
            api->call_cancel(n.call);
        n.call = NULL;
        run(&n, 10 * PD_MS);
    }
    rogue_leave(&n, &rogue);
    node_down(&n);
}

/* Identities: one more than there may be, one that changes, one that was replaced. */
static void test_identities(void **state)
{
    struct pd_peers_conf c = { .max_peers = 2 };
    struct node n;
    static struct rogue other;
    uint8_t b[2048];
    (void)state;
    node_up(&n, &c, 1);
    rogue_up(&n, &rogue, 5);
    rogue_connect(&n, &other);
    rogue_hello(&other, 6, 1);
    rogue_gone(&n, &other, PD_GOODBYE_LIMIT, 0);
    /* A second link of the same node in the same life replaces the first. */
    rogue_connect(&n, &other);
    rogue_hello(&other, 5, 5);
    rogue_send(&other, PD_FRAME_READY, 0, 0, 0, NULL, 0);
    run(&n, PD_SEC);
    assert_true(rogue.is_closed && !other.is_closed);
    assert_int_equal(n.peers->goodbyes[1][PD_GOODBYE_REPLACED], 1);
    /* A new life ends the old one; the old one is not taken again. */
    rogue_up(&n, &rogue, 6);
    run(&n, PD_SEC);
    assert_true(other.is_closed);
    rogue_connect(&n, &other);
    rogue_hello(&other, 5, 5);
    uint64_t stale = n.peers->goodbyes[1][PD_GOODBYE_STALE];
    rogue_gone(&n, &other, PD_GOODBYE_STALE, stale);
    rogue_send(&rogue, PD_FRAME_UPDATE, 0, 0, 0, b, rogue_desc(5, 6, b, sizeof b));
    run(&n, 10 * PD_MS);
    assert_false(rogue.is_closed);
    rogue_leave(&n, &rogue);
    rogue_up(&n, &rogue, 7);
    uint64_t before = n.peers->goodbyes[1][PD_GOODBYE_PROTOCOL];
    rogue_send(&rogue, PD_FRAME_UPDATE, 0, 0, 0, b, rogue_desc(6, 6, b, sizeof b));
    rogue_gone(&n, &rogue, PD_GOODBYE_PROTOCOL, before);
    /* The side that does not decide says ready twice. */
    rogue_up(&n, &rogue, 8);
    before = n.peers->goodbyes[1][PD_GOODBYE_PROTOCOL];
    rogue_send(&rogue, PD_FRAME_READY, 0, 0, 0, NULL, 0);
    rogue_gone(&n, &rogue, PD_GOODBYE_PROTOCOL, before);
    node_down(&n);
}

/* ---- what callers may not ask for ------------------------------------------------------ */

static void test_confs(void **state)
{
    struct pd_sim *sim;
    struct pd_loop *loop;
    struct pd_peer_desc d = whole();
    struct pd_peers *peers;
    static char secret[PD_PEER_MAX_SECRET + 1];
    (void)state;
    assert_int_equal(pd_sim_create(1, NULL, &sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(sim, "n", NULL, &loop), PD_OK);
    for (int how = 0; how < 10; how++) {
        struct pd_peers_conf c = { .loop = loop, .self = &d };
        struct pd_err err = { 0 };
        switch (how) {
        case 0: c.window = PD_HELLO_WINDOW_MIN - 1; break;
        case 1: c.window = PD_HELLO_WINDOW_MAX + 1; break;
        case 2: c.max_message = PD_HELLO_WINDOW_MIN - 1; break;
        case 3: c.max_message = (1u << 30) + 1; break;
        case 4: c.call_queue = (1u << 30) + 1; break;
        case 5: c.backoff_min = 10 * PD_SEC; break;
        case 6: c.secret = (struct pd_str){ secret, sizeof secret }; break;
        case 7: c.heartbeat = 4 * PD_SEC; break;
        case 8: c.suspect = 4 * PD_SEC; break;
        default: d.id.epoch = 0; break;
        }
        assert_int_equal(pd_peers_create(&c, &peers, &err), PD_EINVAL);
        assert_true(err.text[0] != '\0');
    }
    d = whole();
    for (uint64_t k = 1;; k++) {
        struct pd_peers_conf c = { .loop = loop, .self = &d };
        struct pd_err err = { 0 };
        bool closed = false;
        pd_mem_fault_set(k);
        pd_status st = pd_peers_create(&c, &peers, &err);
        pd_mem_fault_set(0);
        if (st == PD_OK) {
            struct node n = { 0 };
            pd_peers_destroy(peers, on_closed, &n);
            pd_sim_run_until(sim, pd_sim_now(sim) + PD_SEC);
            closed = n.is_closed;
            assert_true(closed);
            break;
        }
        assert_int_equal(st, PD_ENOMEM);
        assert_true(err.text[0] != '\0' && k < 100);
    }
    assert_int_equal(pd_loop_destroy(loop, NULL, 0), PD_OK);
    assert_int_equal(pd_sim_destroy(sim), PD_OK);
}

static void on_peer(struct pd_peers *peers, pd_peer_ref peer, uint32_t what, void *arg)
{
    (void)peers;
    (void)peer;
    (void)what;
    (void)arg;
}

static void test_callers(void **state)
{
    static const struct pd_peer_watch_events watch = { .size = sizeof watch, .on_peer = on_peer };
    static const char *const bad[] = { "nowhere", ":1", "a:0", "a:70000", "a:b", "" };
    struct pd_peers_conf c = { .max_message = 65536, .max_calls = 2, .max_peers = 3 };
    struct node n;
    struct pd_peer_watch *w[PD_PEER_MAX_WATCHES + 1];
    struct pd_iov iov = { zeros, 3 };
    struct pd_node_id id = { .epoch = 1 };
    struct pd_call *call, *second;
    struct pd_peer_info info;
    pd_peer_ref ref;
    struct pd_err err = { 0 };
    char text[300];
    (void)state;
    node_up(&n, &c, 1);
    /* services */
    assert_int_equal(api->serve(n.peers, 0, on_call, &n), PD_EINVAL);
    assert_int_equal(api->serve(n.peers, PD_PEER_MAX_SERVICE, on_call, &n), PD_EINVAL);
    assert_int_equal(api->serve(n.peers, 8, NULL, &n), PD_EINVAL);
    assert_int_equal(api->serve(n.peers, PD_SERVICE_TEST, on_call, &n), PD_EEXIST);
    api->unserve(n.peers, PD_PEER_MAX_SERVICE);
    /* calls */
    ref = api->self(n.peers);
    assert_int_equal(api->call_open(n.peers, ref, 0, 1, &iov, 1, &call_events, &n, &call), PD_EINVAL);
    assert_int_equal(api->call_open(n.peers, ref, PD_PEER_MAX_SERVICE, 1, &iov, 1, &call_events, &n, &call), PD_EINVAL);
    assert_int_equal(api->call_open(n.peers, ref, PD_SERVICE_TEST, 256, &iov, 1, &call_events, &n, &call), PD_EINVAL);
    assert_int_equal(api->call_open(n.peers, ref, PD_SERVICE_TEST, 1, &iov, 1, NULL, &n, &call), PD_EINVAL);
    assert_int_equal(api->call_open(n.peers, ref + 99, PD_SERVICE_TEST, 1, &iov, 1, &call_events, &n, &call), PD_ESTALE);
    struct pd_iov large = { zeros, 65537 };
    assert_int_equal(api->call_open(n.peers, ref, PD_SERVICE_TEST, 1, &large, 1, &call_events, &n, &call), PD_ELIMIT);
    assert_int_equal(api->call_open(n.peers, ref, PD_SERVICE_TEST, 1, &iov, 1, &call_events, &n, &call), PD_OK);
    assert_int_equal(api->call_open(n.peers, ref, PD_SERVICE_TEST, 1, &iov, 1, &call_events, &n, &second), PD_OK);
    uint64_t limit = n.peers->count[PD_COUNT_LIMIT];
    struct pd_call *third;
    assert_int_equal(api->call_open(n.peers, ref, PD_SERVICE_TEST, 1, &iov, 1, &call_events, &n, &third), PD_ELIMIT);
    assert_int_equal(n.peers->count[PD_COUNT_LIMIT], limit + 1);
    assert_int_equal(api->call_send(call, 256, &iov, 1), PD_EINVAL);
    assert_int_equal(api->call_send(call, 1, &large, 1), PD_ELIMIT);
    /* What only the other side may do changes nothing. */
    api->call_accept(call, &call_events, &n);
    api->call_end(call, PD_OK, PD_STR(""));
    assert_int_equal(api->call_send(call, 1, &iov, 1), PD_OK);
    run(&n, PD_MS);
    assert_int_equal(n.messages, 3);    /* two first ones, and this */
    api->call_cancel(n.call);           /* of a served one: nothing */
    assert_true(n.call != NULL);
    api->call_cancel(call);
    api->call_cancel(second);
    run(&n, PD_MS);
    assert_int_equal(n.ends, 2);
    assert_int_equal(n.status, PD_ECANCELED);
    /* those who watch */
    for (int i = 0; i <= PD_PEER_MAX_WATCHES; i++)
        assert_int_equal(api->watch(n.peers, &watch, NULL, &w[i]), i < PD_PEER_MAX_WATCHES ? PD_OK : PD_ELIMIT);
    api->unwatch(w[0]);
    pd_mem_fault_set(1);
    assert_int_equal(api->watch(n.peers, &watch, NULL, &w[0]), PD_ENOMEM);
    pd_mem_fault_set(0);
    assert_int_equal(api->watch(n.peers, &watch, NULL, &w[0]), PD_OK);
    /* addresses */
    memset(text, 'a', sizeof text);
    memcpy(text + sizeof text - 4, ":70", 4);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(pd_peers_dial(n.peers, pd_str_from(bad[i])), PD_EINVAL);
        assert_false(pd_peers_can_dial(n.loop, pd_str_from(bad[i])));
    }
    assert_int_equal(pd_peers_dial(n.peers, pd_str_from(text)), PD_EINVAL);
    assert_false(pd_peers_can_dial(n.loop, pd_str_from(text)));
    assert_true(pd_peers_can_dial(n.loop, PD_STR("some.host:7000")));
    assert_true(pd_peers_can_dial(n.loop, PD_STR("10.0.0.3:7000")));
    assert_int_equal(pd_peers_undial(n.peers, PD_STR("10.0.0.3:7000")), PD_ENOENT);
    assert_int_equal(pd_peers_rest(n.peers, PD_STR("10.0.0.3:7000"), true), PD_ENOENT);
    assert_int_equal(pd_peers_listen(n.peers, PD_STR("nowhere"), NULL, &err), PD_EINVAL);
    for (int i = 1; i <= PD_PEER_MAX_LISTENERS; i++) {
        snprintf(text, sizeof text, "10.0.0.1:%d", 7000 + i);
        assert_int_equal(pd_peers_listen(n.peers, pd_str_from(text), NULL, &err), i < PD_PEER_MAX_LISTENERS ? PD_OK : PD_ELIMIT);
    }
    /* nodes to reach */
    struct pd_str at = PD_STR("10.0.0.2:7000");
    memset(id.uuid.b, 0, sizeof id.uuid.b);
    assert_int_equal(api->reach(n.peers, &id, at, &ref), PD_EINVAL);
    memset(id.uuid.b, 7, sizeof id.uuid.b);
    id.epoch = 0;
    assert_int_equal(api->reach(n.peers, &id, at, &ref), PD_EINVAL);
    id.epoch = 1;
    assert_int_equal(api->reach(n.peers, &id, PD_STR("nowhere"), &ref), PD_EINVAL);
    for (uint64_t k = 1; k <= 3; k++) {
        pd_mem_fault_set(k);
        assert_int_equal(api->reach(n.peers, &id, at, &ref), PD_ENOMEM);
        pd_mem_fault_set(0);
        assert_int_equal(api->find(n.peers, &id), 0);
    }
    assert_int_equal(api->reach(n.peers, &id, at, &ref), PD_PENDING);
    assert_int_equal(api->reach(n.peers, &id, at, &ref), PD_PENDING);
    struct pd_node_id others = { .epoch = 1 };
    for (uint8_t k = 8; k < 11; k++) {
        pd_peer_ref r;
        memset(others.uuid.b, k, sizeof others.uuid.b);
        assert_int_equal(api->reach(n.peers, &others, at, &r), k < 9 ? PD_PENDING : PD_ELIMIT);
    }
    /* Nobody is there: it is told, and forgotten after a while. */
    run(&n, 10 * PD_SEC);
    assert_int_equal(api->info(n.peers, ref, &info), PD_OK);
    assert_int_equal(info.state, PD_PEER_DOWN);
    assert_string_equal(info.listener, "");
    run(&n, 120 * PD_SEC);
    assert_int_equal(api->info(n.peers, ref, &info), PD_ESTALE);
    /* another description of this node */
    struct pd_peer_desc d = n.desc;
    struct pd_peers_change *change;
    d.id.epoch++;
    assert_int_equal(pd_peers_prepare(n.peers, &d, &change), PD_EINVAL);
    d = n.desc;
    d.name[0] = '\0';
    assert_int_equal(pd_peers_prepare(n.peers, &d, &change), PD_EINVAL);
    for (uint64_t k = 1; k <= 3; k++) {
        pd_mem_fault_set(k);
        assert_int_equal(pd_peers_update(n.peers, &n.desc), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
    assert_int_equal(pd_peers_update(n.peers, &n.desc), PD_OK);
    node_down(&n);
}

/* ---- addresses that are names -------------------------------------------------------- */

static void test_names(void **state)
{
    struct pd_peers_conf c = { 0 };
    struct node n;
    (void)state;
    node_up(&n, &c, 1);
    uint64_t connects = n.peers->count[PD_COUNT_CONNECTS];
    assert_int_equal(pd_peers_dial(n.peers, PD_STR("other.svc:7000")), PD_OK);
    assert_int_equal(pd_peers_dial(n.peers, PD_STR("other.svc:7000")), PD_EEXIST);
    run(&n, 10 * PD_SEC);       /* there is no such name */
    assert_int_equal(n.peers->count[PD_COUNT_CONNECTS], connects);
    pd_sim_resolver_set(n.sim, PD_EIO);
    run(&n, 10 * PD_SEC);
    assert_int_equal(n.peers->count[PD_COUNT_CONNECTS], connects);
    pd_sim_resolver_set(n.sim, PD_OK);
    /* Of its addresses one is nobody's, one is this very node. */
    assert_int_equal(pd_sim_name_add(n.sim, "other.svc", "10.0.0.9"), PD_OK);
    assert_int_equal(pd_sim_name_add(n.sim, "other.svc", "10.0.0.1"), PD_OK);
    run(&n, 60 * PD_SEC);
    assert_true(n.peers->count[PD_COUNT_CONNECTS] > connects);
    assert_int_equal(n.peers->goodbyes[0][PD_GOODBYE_SELF] + n.peers->goodbyes[1][PD_GOODBYE_SELF], 2);
    assert_int_equal(pd_peers_undial(n.peers, PD_STR("other.svc:7000")), PD_OK);
    /* Forgotten while it is looked up. */
    assert_int_equal(pd_peers_dial(n.peers, PD_STR("slow.svc:7000")), PD_OK);
    pd_sim_run_until(n.sim, pd_sim_now(n.sim) + 2 * PD_US);
    assert_int_equal(pd_peers_undial(n.peers, PD_STR("slow.svc:7000")), PD_OK);
    run(&n, PD_SEC);
    assert_int_equal(n.peers->n_links, 1);
    node_down(&n);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_descriptions), cmocka_unit_test(test_preambles), cmocka_unit_test(test_heartbeats),
    cmocka_unit_test(test_frames), cmocka_unit_test(test_hellos), cmocka_unit_test(test_secrets),
    cmocka_unit_test(test_calls), cmocka_unit_test(test_fragments), cmocka_unit_test(test_paused),
    cmocka_unit_test(test_identities), cmocka_unit_test(test_confs), cmocka_unit_test(test_callers),
    cmocka_unit_test(test_names),
};
PD_UNIT_MAIN(tests)
