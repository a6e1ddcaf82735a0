/* SPDX-License-Identifier: Apache-2.0 */
/* An owner of windows against a peer that keeps to no rules: raw frames over a
 * stream of our own.  tcp in the simulator, shm over the real loop. */
#include "transport_uv.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm.h"
#include "tcp.h"

#include "loop/sim.h"

#define BYTES ((uint64_t)65536)
#define WINDOW ((uint64_t)40000)

struct rig {
    struct tr_env e;
    struct pd_sim *sim;
    struct pd_tcp_conf tcp;
    struct pd_shm_conf shm;
    char directory[40];
    struct tr_node a;
    struct tr_window w, r;      /* for writing, for reading (tcp) */
    struct pd_xp_address address;
    struct pd_xp_grant grant, read_grant;
    struct tr_window pass;      /* which greetings show */
    struct pd_xp_grant pass_grant;
    uint64_t passes;
    struct pd_node_id me;
    struct pd_xp_crc crc;
};

/* The attacker's end. */
struct raw {
    struct rig *rig;
    struct pd_stream *s;
    bool is_connected, is_over, is_gone;
    bool deaf;
    uint16_t seq;
    uint8_t got[4096];
    size_t got_n;
};

static bool sim_run(struct tr_env *e, bool (*cond)(void *arg), void *arg)
{
    return pd_sim_run_cond(e->priv, pd_sim_now(e->priv) + 120 * PD_SEC, cond, arg);
}

static void sim_pass(struct tr_env *e, pd_time ns)
{
    pd_sim_run_until(e->priv, pd_sim_now(e->priv) + ns);
}

static void rig_common(struct rig *g, const void *conf)
{
    struct pd_segment half[2] = { { 100, WINDOW / 2 }, { 30000, WINDOW / 2 } };
    uint8_t buf[512];
    size_t len;

    pd_xp_crc_init(&g->crc);
    memset(g->me.uuid.b, 0xee, sizeof(g->me.uuid.b));
    g->me.epoch = 5;
    g->e.conf = g->e.conf_tiny = conf;
    tr_node_open(&g->e, &g->a, g->e.la, 0xa1, 1, BYTES, conf);
    memset(g->a.base, 0x5a, BYTES);
    tr_window_open(&g->w, &g->a, &g->me, 1, PD_TRANSPORT_WRITE, half, 2);
    assert_int_equal(pd_xp_grant_decode(g->w.blob, g->w.blob_len, &g->grant), PD_OK);
    assert_int_equal(g->e.ops->address(g->a.tp, buf, sizeof(buf), &len), PD_OK);
    assert_int_equal(pd_xp_address_decode(buf, len, &g->address), PD_OK);
}

static void rig_tcp(struct rig *g, uint64_t seed)
{
    struct pd_segment all = { 0, BYTES };

    memset(g, 0, sizeof(*g));
    g->tcp = (struct pd_tcp_conf){ .listen = "10.0.0.1:700", .queue = 64, .windows = 16,
                                   .connections = 5, .frame = 32768, .timeout = PD_SEC,
                                   .connect_timeout = PD_SEC, .keepalive = PD_SEC,
                                   .checksum = true };
    assert_int_equal(pd_sim_create(seed, NULL, &g->sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(g->sim, "a", "10.0.0.1", &g->e.la), PD_OK);
    assert_int_equal(pd_sim_loop_create(g->sim, "b", "10.0.0.2", &g->e.lb), PD_OK);
    g->e.ops = (const struct pd_transport_ops *)uv_unit("modules/transport/tcp/.libs/tcp.so")->ops;
    g->e.run = sim_run;
    g->e.pass = sim_pass;
    g->e.priv = g->sim;
    rig_common(g, &g->tcp);
    tr_window_open(&g->r, &g->a, &g->me, 2, PD_TRANSPORT_READ, &all, 1);
    assert_int_equal(pd_xp_grant_decode(g->r.blob, g->r.blob_len, &g->read_grant), PD_OK);
}

static void rig_shm(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    uv_env(&g->e);
    snprintf(g->directory, sizeof(g->directory), "/tmp/pdplane-wire-XXXXXX");
    assert_non_null(mkdtemp(g->directory));
    g->shm = (struct pd_shm_conf){ .directory = g->directory, .queue = 16, .windows = 16,
                                   .connections = 16, .timeout = PD_SEC };
    g->e.ops = (const struct pd_transport_ops *)uv_unit("modules/transport/shm/.libs/shm.so")->ops;
    rig_common(g, &g->shm);
}

/* A fresh grant for the next greeting, on bytes that are in no other window. */
static void pass_renew(struct rig *g)
{
    struct pd_segment seg = { BYTES - 1, 1 };

    if (g->passes > 0)
        tr_window_close(&g->e, &g->pass);
    tr_window_open(&g->pass, &g->a, &g->me, 1000 + ++g->passes, PD_TRANSPORT_WRITE, &seg, 1);
    assert_int_equal(pd_xp_grant_decode(g->pass.blob, g->pass.blob_len, &g->pass_grant), PD_OK);
}

static void rig_end(struct rig *g)
{
    char names[256];

    if (g->passes > 0)
        tr_window_close(&g->e, &g->pass);
    tr_window_close(&g->e, &g->w);
    if (g->sim != NULL)
        tr_window_close(&g->e, &g->r);
    tr_node_close(&g->e, &g->a);
    if (g->sim == NULL) {
        uv_env_end(&g->e);
        assert_int_equal(rmdir(g->directory), 0);
        return;
    }
    assert_int_equal(pd_loop_destroy(g->e.la, names, sizeof(names)), PD_OK);
    assert_int_equal(pd_loop_destroy(g->e.lb, names, sizeof(names)), PD_OK);
    assert_int_equal(pd_sim_destroy(g->sim), PD_OK);
}

static void on_connected(struct pd_stream *s, pd_status status, void *arg)
{
    struct raw *r = arg;

    (void)s;
    r->is_connected = true;
    r->is_over = status != PD_OK;
}

static void on_readable(struct pd_stream *s, void *arg)
{
    struct raw *r = arg;
    uint8_t buf[4096];
    size_t n = 0;
    pd_status st;

    while ((st = pd_stream_read(s, buf, sizeof(buf), &n)) == PD_OK) {
        size_t keep = n < sizeof(r->got) - r->got_n ? n : sizeof(r->got) - r->got_n;
        memcpy(r->got + r->got_n, buf, keep);
        r->got_n += keep;
    }
    if (st != PD_EAGAIN) {
        r->is_over = true;
        pd_stream_pause_read(s);
    }
}

static void on_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct raw *)arg)->is_gone = true;
}

static bool is_connected(void *arg)
{
    return ((struct raw *)arg)->is_connected;
}

static bool is_over(void *arg)
{
    return ((struct raw *)arg)->is_over;
}

static bool is_gone(void *arg)
{
    return ((struct raw *)arg)->is_gone;
}

static bool has_frame(void *arg)
{
    struct raw *r = arg;
    return r->got_n >= PD_XP_HEAD_BYTES || r->is_over;
}

static void raw_open(struct rig *g, struct raw *r)
{
    static const struct pd_stream_events ev = { .name = "raw", .on_connected = on_connected,
                                                .on_readable = on_readable,
                                                .on_closed = on_closed };
    struct pd_addr to;

    memset(r, 0, sizeof(*r));
    memset(&to, 0, sizeof(to));
    r->rig = g;
    to.family = g->address.family;
    to.port = g->address.port;
    memcpy(to.ip, g->address.ip, sizeof(to.ip));
    memcpy(to.path, g->address.path, sizeof(to.path));
    assert_int_equal(pd_stream_connect(g->e.lb, &to, &ev, r, &r->s), PD_OK);
    assert_true(g->e.run(&g->e, is_connected, r));
}

static void raw_end(struct raw *r)
{
    pd_stream_close(r->s);
    assert_true(r->rig->e.run(&r->rig->e, is_gone, r));
    r->rig->e.pass(&r->rig->e, 5 * PD_MS);
}

static void raw_send(struct raw *r, const void *p, size_t n)
{
    const uint8_t *b = p;
    size_t sent = 0;

    for (int i = 0; n > 0 && i < 10000; i++) {
        pd_status st = pd_stream_write(r->s, b, n, &sent);
        if (st == PD_OK) {
            b += sent;
            n -= sent;
        } else if (st != PD_EAGAIN || r->deaf) {
            return;
        }
        if (n > 0)
            r->rig->e.pass(&r->rig->e, 100 * PD_US);
    }
}

static void raw_frame(struct raw *r, struct pd_xp_head *h, const void *payload, uint32_t len)
{
    uint8_t buf[PD_XP_HEAD_BYTES];

    h->seq = r->seq++;
    h->length = len;
    if (len > 0 && h->crc == 0) {
        h->flags |= PD_XP_CHECKED;
        h->crc = pd_xp_crc(&r->rig->crc, 0, payload, len);
    }
    pd_xp_head_encode(&r->rig->crc, h, buf);
    raw_send(r, buf, sizeof(buf));
    raw_send(r, payload, len);
}

static struct pd_xp_head head_of(const struct pd_xp_grant *g, uint8_t type, uint64_t offset)
{
    struct pd_xp_head h = { .type = type, .xid = g->xid, .generation = g->generation,
                            .offset = offset, .id = 1 };

    memcpy(h.token, g->token, sizeof(h.token));
    return h;
}

static void raw_hello(struct raw *r, const struct pd_xp_hello *change)
{
    struct rig *g = r->rig;
    struct pd_xp_head h;
    struct pd_xp_hello hello = { .from = g->me, .to = g->a.ctx.node, .link = 7,
                                 .frame_bytes = 32768, .keepalive_ms = 1000, .lanes = 1,
                                 .kind = g->address.kind };
    uint8_t buf[PD_XP_HELLO_BYTES];

    pass_renew(g);
    h = head_of(&g->pass_grant, PD_XP_HELLO, 0);
    memcpy(hello.key, g->address.key, sizeof(hello.key));
    pd_xp_hello_encode(change != NULL ? change : &hello, buf);
    raw_frame(r, &h, buf, sizeof(buf));
}

/* Waits for one frame and takes it with its payload. */
static uint8_t raw_answer(struct raw *r, struct pd_xp_head *h)
{
    size_t n;

    assert_true(r->rig->e.run(&r->rig->e, has_frame, r));
    if (r->got_n < PD_XP_HEAD_BYTES)
        return 0;
    assert_int_equal(pd_xp_head_decode(&r->rig->crc, r->got, h), PD_OK);
    r->rig->e.pass(&r->rig->e, 2 * PD_MS);
    n = PD_XP_HEAD_BYTES + h->length;
    assert_true(r->got_n >= n);
    memmove(r->got, r->got + n, r->got_n - n);
    r->got_n -= n;
    return h->type;
}

static void raw_greeted(struct rig *g, struct raw *r)
{
    struct pd_xp_head h;

    raw_open(g, r);
    raw_hello(r, NULL);
    assert_int_equal(raw_answer(r, &h), PD_XP_HELLO_OK);
}

/* For a lane that ends by a timeout. */
static void expect_over_late(struct raw *r)
{
    assert_true(r->rig->e.run(&r->rig->e, is_over, r));
    raw_end(r);
}

/* At once, because of what was sent. */
static void expect_over(struct raw *r)
{
    for (int i = 0; i < 20 && !r->is_over; i++)
        r->rig->e.pass(&r->rig->e, PD_MS);
    assert_true(r->is_over);
    raw_end(r);
}

static bool untouched(const struct rig *g)
{
    for (uint64_t i = 0; i < BYTES; i++)
        if (g->a.base[i] != 0x5a)
            return false;
    return true;
}

/* Bytes outside the window never change. */
static bool outside_untouched(const struct rig *g)
{
    for (uint64_t i = 0; i < BYTES; i++) {
        bool in = (i >= 100 && i < 100 + WINDOW / 2) || (i >= 30000 && i < 30000 + WINDOW / 2);
        if (!in && g->a.base[i] != 0x5a)
            return false;
    }
    return true;
}

static void greetings(void **state)
{
    struct rig g;
    struct raw r;
    struct pd_xp_head h;
    struct pd_xp_hello hello;
    uint8_t junk[200];

    (void)state;
    rig_tcp(&g, 1);
    memset(junk, 'G', sizeof(junk));
    raw_open(&g, &r);
    raw_send(&r, junk, sizeof(junk));
    expect_over(&r);
    /* Work before the greeting. */
    raw_open(&g, &r);
    h = head_of(&g.grant, PD_XP_WRITE, 0);
    raw_frame(&r, &h, junk, sizeof(junk));
    expect_over(&r);
    /* Nothing, and half of something. */
    raw_open(&g, &r);
    expect_over_late(&r);
    raw_open(&g, &r);
    raw_send(&r, junk, 10);
    expect_over_late(&r);
    for (int i = 0; i < 5; i++) {
        hello = (struct pd_xp_hello){ .from = g.me, .to = g.a.ctx.node, .link = 7,
                                      .frame_bytes = 32768, .lanes = 1, .kind = PD_XP_TCP };
        memcpy(hello.key, g.address.key, sizeof(hello.key));
        if (i == 0)
            hello.key[3] ^= 1;
        else if (i == 1)
            hello.to.epoch++;
        else if (i == 2)
            hello.kind = PD_XP_SHM;
        else if (i == 3)
            hello.lane = 200;
        else
            hello.frame_bytes = 0;
        raw_open(&g, &r);
        raw_hello(&r, &hello);
        assert_int_equal(raw_answer(&r, &h), PD_XP_REFUSED);
        assert_int_equal((int)h.offset, i == 0 ? -PD_EPERM : i == 1 ? -PD_ESTALE : -PD_EPROTO);
        expect_over(&r);
    }
    /* Twice. */
    raw_greeted(&g, &r);
    raw_hello(&r, NULL);
    expect_over(&r);
    assert_true(untouched(&g));
    rig_end(&g);
}

/* Who may come in: a grant lets in one link of one node, each lane once. */
static void grants(void **state)
{
    enum { NONE, TOKEN, GENERATION, OTHER_NODE, NO_LINK, CLOSED, CASES };
    struct rig g;
    struct raw r, second;
    struct pd_xp_head h;
    struct pd_xp_hello hello;
    uint8_t buf[PD_XP_HELLO_BYTES];

    (void)state;
    rig_tcp(&g, 9);
    for (int i = 0; i < CASES; i++) {
        hello = (struct pd_xp_hello){ .from = g.me, .to = g.a.ctx.node, .link = 7,
                                      .frame_bytes = 32768, .lanes = 1, .kind = PD_XP_TCP };
        memcpy(hello.key, g.address.key, sizeof(hello.key));
        pass_renew(&g);
        h = head_of(&g.pass_grant, PD_XP_HELLO, 0);
        if (i == NONE)
            h = (struct pd_xp_head){ .type = PD_XP_HELLO };
        else if (i == TOKEN)
            h.token[15] ^= 0x80;
        else if (i == GENERATION)
            h.generation++;
        else if (i == OTHER_NODE)
            hello.from.uuid.b[2] ^= 1;
        else if (i == NO_LINK)
            hello.link = 0;
        else
            pass_renew(&g);
        pd_xp_hello_encode(&hello, buf);
        raw_open(&g, &r);
        raw_frame(&r, &h, buf, sizeof(buf));
        assert_int_equal(raw_answer(&r, &h), PD_XP_REFUSED);
        assert_int_equal((int)h.offset, -PD_EPERM);
        expect_over(&r);
        assert_int_equal(tr_stats(&g.a).refused, i + 1);
    }
    /* The same lane again, another link with it; another lane of the link is right. */
    raw_greeted(&g, &r);
    for (int i = 0; i < 3; i++) {
        hello = (struct pd_xp_hello){ .from = g.me, .to = g.a.ctx.node, .link = i == 1 ? 8 : 7,
                                      .frame_bytes = 32768, .lanes = 2, .lane = i == 0 ? 0 : 1,
                                      .kind = PD_XP_TCP };
        memcpy(hello.key, g.address.key, sizeof(hello.key));
        h = head_of(&g.pass_grant, PD_XP_HELLO, 0);
        pd_xp_hello_encode(&hello, buf);
        raw_open(&g, &second);
        raw_frame(&second, &h, buf, sizeof(buf));
        assert_int_equal(raw_answer(&second, &h), i == 2 ? PD_XP_HELLO_OK : PD_XP_REFUSED);
        if (i == 2)
            raw_end(&second);
        else
            expect_over(&second);
    }
    raw_end(&r);
    assert_true(untouched(&g));
    rig_end(&g);
}

static void frames(void **state)
{
    struct rig g;
    struct raw r;
    struct pd_xp_head h;
    uint8_t data[32768];

    (void)state;
    rig_tcp(&g, 2);
    memset(data, 0x77, sizeof(data));
    /* What only the other side may send, and what tcp does not know. */
    for (uint8_t type = 1; type < PD_XP_TYPES; type++) {
        if (type == PD_XP_WRITE || type == PD_XP_READ || type == PD_XP_PING)
            continue;
        raw_greeted(&g, &r);
        h = head_of(&g.grant, type, 0);
        raw_frame(&r, &h, data, type == PD_XP_COPY || type == PD_XP_DATA ? 100 : 0);
        expect_over(&r);
    }
    /* A sequence that jumps. */
    raw_greeted(&g, &r);
    r.seq += 1;
    h = head_of(&g.grant, PD_XP_PING, 0);
    raw_frame(&r, &h, NULL, 0);
    expect_over(&r);
    /* Nothing, and more than a frame may hold. */
    raw_greeted(&g, &r);
    h = head_of(&g.grant, PD_XP_WRITE, 0);
    raw_frame(&r, &h, NULL, 0);
    expect_over(&r);
    raw_greeted(&g, &r);
    h = head_of(&g.grant, PD_XP_WRITE, 0);
    h.crc = 1;
    h.flags = PD_XP_CHECKED;
    raw_frame(&r, &h, data, 32768);
    assert_int_equal(raw_answer(&r, &h), PD_XP_NACK);
    assert_true(tr_stats(&g.a).corrupt == 1);
    assert_true(g.w.total == 0);
    memset(g.a.base, 0x5a, BYTES);
    {
        uint8_t buf[PD_XP_HEAD_BYTES];
        h = head_of(&g.grant, PD_XP_WRITE, 0);
        h.seq = r.seq;
        h.length = 32769;
        pd_xp_head_encode(&g.crc, &h, buf);
        raw_send(&r, buf, sizeof(buf));
        expect_over(&r);
    }
    /* Offsets around the end, one that wraps. */
    raw_greeted(&g, &r);
    for (int i = 0; i < 4; i++) {
        static const uint64_t at[] = { WINDOW - 99, WINDOW, UINT64_MAX - 10, UINT64_MAX };
        h = head_of(&g.grant, PD_XP_WRITE, at[i]);
        raw_frame(&r, &h, data, 100);
        assert_int_equal(raw_answer(&r, &h), PD_XP_NACK);
        assert_int_equal((int)h.offset, -PD_EINVAL);
    }
    assert_true(tr_stats(&g.a).dropped_bounds == 4);
    assert_true(untouched(&g));
    h = head_of(&g.grant, PD_XP_WRITE, WINDOW - 100);
    raw_frame(&r, &h, data, 100);
    assert_int_equal(raw_answer(&r, &h), PD_XP_ACK);
    assert_true(outside_untouched(&g));
    raw_end(&r);
    rig_end(&g);
}

static void reads(void **state)
{
    struct rig g;
    struct raw r;
    struct pd_xp_head h;
    static uint8_t flood[200 * PD_XP_HEAD_BYTES];

    (void)state;
    rig_tcp(&g, 3);
    raw_greeted(&g, &r);
    h = head_of(&g.read_grant, PD_XP_READ, 0);
    h.crc = 0;
    raw_frame(&r, &h, NULL, 0);
    expect_over(&r);
    raw_greeted(&g, &r);
    h = head_of(&g.read_grant, PD_XP_READ, 0);
    h.crc = 32769;
    raw_frame(&r, &h, NULL, 0);
    expect_over(&r);
    /* Bounds, and a window that is for writing. */
    raw_greeted(&g, &r);
    h = head_of(&g.read_grant, PD_XP_READ, BYTES - 99);
    h.crc = 100;
    raw_frame(&r, &h, NULL, 0);
    assert_int_equal(raw_answer(&r, &h), PD_XP_READ_NACK);
    h = head_of(&g.grant, PD_XP_READ, 0);
    h.crc = 100;
    raw_frame(&r, &h, NULL, 0);
    assert_int_equal(raw_answer(&r, &h), PD_XP_READ_NACK);
    raw_end(&r);
    /* More at a time than is allowed. */
    raw_greeted(&g, &r);
    for (uint32_t i = 0; i < 200; i++) {
        h = head_of(&g.read_grant, PD_XP_READ, 0);
        h.crc = 32768;
        h.seq = r.seq++;
        pd_xp_head_encode(&g.crc, &h, flood + i * PD_XP_HEAD_BYTES);
    }
    raw_send(&r, flood, sizeof(flood));
    expect_over(&r);
    /* Asks for more and more and takes nothing: ended, not fed. */
    raw_greeted(&g, &r);
    pd_stream_pause_read(r.s);
    r.deaf = true;
    for (int i = 0; i < 3000; i++) {
        h = head_of(&g.read_grant, PD_XP_READ, 0);
        h.crc = 32768;
        raw_frame(&r, &h, NULL, 0);
    }
    g.e.pass(&g.e, 5 * PD_SEC);
    pd_stream_resume_read(r.s);
    expect_over_late(&r);
    rig_end(&g);
}

/* Writes without end and never reads an answer. */
static void deaf(void **state)
{
    struct rig g;
    struct raw r;
    struct pd_xp_head h;
    uint8_t byte = 1;

    (void)state;
    rig_tcp(&g, 4);
    raw_greeted(&g, &r);
    pd_stream_pause_read(r.s);
    r.deaf = true;
    for (int i = 0; i < 30000; i++) {
        h = head_of(&g.grant, PD_XP_WRITE, 0);
        raw_frame(&r, &h, &byte, 1);
        if (i % 64 == 0)
            g.e.pass(&g.e, PD_MS);
    }
    g.e.pass(&g.e, 10 * PD_SEC);
    pd_stream_resume_read(r.s);
    expect_over_late(&r);
    rig_end(&g);
}

/* Holes without end in one window. */
static void holes(void **state)
{
    struct rig g;
    struct raw r;
    struct pd_xp_head h = { 0 };
    uint8_t byte = 1;
    uint32_t refused = 0;

    (void)state;
    rig_tcp(&g, 5);
    raw_greeted(&g, &r);
    for (uint64_t i = 0; i < 5000; i++) {
        h = head_of(&g.grant, PD_XP_WRITE, 2 * i);
        raw_frame(&r, &h, &byte, 1);
        if (raw_answer(&r, &h) == PD_XP_NACK)
            refused++;
    }
    assert_int_equal(refused, 5000 - PD_XP_RANGES);
    assert_true(outside_untouched(&g));
    raw_end(&r);
    rig_end(&g);
}

/* Bytes that a bad frame wrote over do not count any more. */
static void spoiled(void **state)
{
    struct rig g;
    struct raw r;
    struct pd_xp_head h;
    uint8_t data[100] = { 1 };

    (void)state;
    rig_tcp(&g, 8);
    raw_greeted(&g, &r);
    h = head_of(&g.grant, PD_XP_WRITE, 0);
    raw_frame(&r, &h, data, sizeof(data));
    assert_int_equal(raw_answer(&r, &h), PD_XP_ACK);
    assert_true(g.w.total == 100);
    h = head_of(&g.grant, PD_XP_WRITE, 50);
    h.flags = PD_XP_CHECKED;
    h.crc = 1;
    raw_frame(&r, &h, data, 20);
    assert_int_equal(raw_answer(&r, &h), PD_XP_NACK);
    assert_int_equal((int)h.offset, -PD_EINTEGRITY);
    h = head_of(&g.grant, PD_XP_WRITE, 200);
    raw_frame(&r, &h, data, 10);
    assert_int_equal(raw_answer(&r, &h), PD_XP_ACK);
    assert_true(g.w.total == 90);
    raw_end(&r);
    rig_end(&g);
}

static void crowd(void **state)
{
    struct rig g;
    struct raw r[8];

    (void)state;
    rig_tcp(&g, 6);
    for (int i = 0; i < 5; i++)
        raw_greeted(&g, &r[i]);
    for (int i = 5; i < 8; i++) {
        raw_open(&g, &r[i]);
        expect_over(&r[i]);
    }
    raw_end(&r[0]);
    raw_greeted(&g, &r[0]);
    for (int i = 0; i < 5; i++)
        raw_end(&r[i]);
    rig_end(&g);
}

/* Valid sessions with a few bytes changed, and cut anywhere. */
static void fuzz(void **state)
{
    uint64_t seed = 11;
    struct rig g;
    struct raw r;
    uint8_t session[8192];

    (void)state;
    rig_tcp(&g, 7);
    for (int round = 0; round < 1500; round++) {
        struct pd_xp_head h;
        struct pd_xp_hello hello = { .from = g.me, .to = g.a.ctx.node, .link = 7,
                                     .frame_bytes = 32768, .lanes = 1, .kind = PD_XP_TCP };
        uint8_t data[500];
        size_t n = 0;
        uint16_t seq = 0;
        bool fix = round % 2 == 0;
        memcpy(hello.key, g.address.key, sizeof(hello.key));
        pass_renew(&g);
        h = head_of(&g.pass_grant, PD_XP_HELLO, 0);
        h.length = PD_XP_HELLO_BYTES;
        h.seq = seq++;
        pd_xp_head_encode(&g.crc, &h, session);
        pd_xp_hello_encode(&hello, session + 64);
        n = 64 + PD_XP_HELLO_BYTES;
        for (int k = 0; k < 6; k++) {
            uint32_t len = 1 + (uint32_t)(tr_random(&seed) % sizeof(data));
            tr_fill(data, len, seed);
            h = head_of(k % 3 == 2 ? &g.read_grant : &g.grant,
                        k % 3 == 2 ? PD_XP_READ : PD_XP_WRITE, tr_random(&seed) % WINDOW);
            h.seq = seq++;
            h.length = k % 3 == 2 ? 0 : len;
            h.crc = k % 3 == 2 ? len : pd_xp_crc(&g.crc, 0, data, len);
            h.flags = PD_XP_CHECKED;
            pd_xp_head_encode(&g.crc, &h, session + n);
            /* Changed fields under a right header checksum get further. */
            if (fix && tr_random(&seed) % 2 == 0) {
                session[n + 3 + tr_random(&seed) % 41] ^= (uint8_t)(1 + tr_random(&seed) % 255);
                uint32_t sum = pd_xp_crc(&g.crc, 0, session + n, 44);
                sum = pd_xp_crc(&g.crc, sum, session + n + 48, 16);
                memcpy(session + n + 44, &sum, 4);
            }
            n += 64;
            if (k % 3 != 2) {
                memcpy(session + n, data, len);
                n += len;
            }
        }
        for (uint64_t k = fix ? 0 : 1 + tr_random(&seed) % 4; k > 0; k--)
            session[tr_random(&seed) % n] ^= (uint8_t)(1 + tr_random(&seed) % 255);
        raw_open(&g, &r);
        raw_send(&r, session, 1 + tr_random(&seed) % n);
        g.e.pass(&g.e, PD_MS);
        raw_end(&r);
        assert_true(outside_untouched(&g));
    }
    assert_true(tr_stats(&g.a).corrupt > 0);
    rig_end(&g);
}

/* ---- shm */

static int memory_file(uint64_t bytes, int seals)
{
    int fd = memfd_create("peer", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void send_memory(struct raw *r, int fd, uint32_t id, uint64_t offset, uint64_t bytes)
{
    struct pd_xp_head h = { .type = PD_XP_MEMORY, .id = id, .offset = offset, .xid = bytes,
                            .seq = r->seq++ };
    uint8_t buf[PD_XP_HEAD_BYTES];
    struct pd_iov iov = { buf, sizeof(buf) };
    size_t sent = 0;

    pd_xp_head_encode(&r->rig->crc, &h, buf);
    if (fd < 0) {
        raw_send(r, buf, sizeof(buf));
        return;
    }
    assert_int_equal(pd_stream_send_fds(r->s, &iov, 1, &fd, 1, &sent), PD_OK);
    assert_int_equal(sent, sizeof(buf));
}

static void send_copy(struct raw *r, uint32_t id, uint64_t to, uint64_t offset, uint64_t bytes)
{
    struct pd_xp_head h = head_of(&r->rig->grant, PD_XP_COPY, to);
    uint32_t pair[2] = { id, 1 };
    uint64_t piece[2] = { offset, bytes };
    uint8_t buf[24];

    memcpy(buf, pair, 8);
    memcpy(buf + 8, piece, 16);
    raw_frame(r, &h, buf, sizeof(buf));
}

static void shared_memory(void **state)
{
    const int sealed = F_SEAL_SHRINK | F_SEAL_GROW;
    struct rig g;
    struct raw r;
    struct pd_xp_head h;
    int good = memory_file(65536, sealed), loose = memory_file(65536, F_SEAL_GROW);
    static const uint64_t bad[][3] = {
        { 1, 65536, 1 }, { 1, 65535, 2 }, { 1, UINT64_MAX, 2 }, { 1, 0, 0 }, { 1, 0, UINT64_MAX },
        { 2, 0, 10 }, { 0, 0, 10 } };
    int noise[3];

    (void)state;
    rig_shm(&g);
    /* Not sealed; smaller than said; no descriptor; twice the same name. */
    raw_greeted(&g, &r);
    send_memory(&r, loose, 1, 0, 65536);
    expect_over(&r);
    raw_greeted(&g, &r);
    send_memory(&r, good, 1, 0, 65537);
    expect_over(&r);
    raw_greeted(&g, &r);
    send_memory(&r, good, 1, UINT64_MAX, 2);
    expect_over(&r);
    raw_greeted(&g, &r);
    send_memory(&r, -1, 1, 0, 65536);
    expect_over(&r);
    raw_greeted(&g, &r);
    send_memory(&r, good, 1, 0, 65536);
    send_memory(&r, good, 1, 0, 65536);
    expect_over(&r);
    /* Pieces outside. */
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        raw_greeted(&g, &r);
        send_memory(&r, good, 1, 0, 65536);
        send_copy(&r, (uint32_t)bad[i][0], 0, bad[i][1], bad[i][2]);
        expect_over(&r);
    }
    /* Outside the window; then a good one. */
    raw_greeted(&g, &r);
    send_memory(&r, good, 1, 4096, 65536 - 4096);
    send_copy(&r, 1, WINDOW - 9, 0, 10);
    assert_int_equal(raw_answer(&r, &h), PD_XP_NACK);
    assert_true(untouched(&g));
    assert_int_equal(pwrite(good, "0123456789", 10, 4096 + 7), 10);
    send_copy(&r, 1, WINDOW - 10, 7, 10);
    assert_int_equal(raw_answer(&r, &h), PD_XP_ACK);
    assert_memory_equal(g.a.base + 50000 - 10, "0123456789", 10);
    assert_true(outside_untouched(&g));
    /* Descriptors that nobody asked for. */
    for (int i = 0; i < 3; i++)
        noise[i] = good;
    for (int i = 0; i < 3 && !r.is_over; i++) {
        uint8_t buf[PD_XP_HEAD_BYTES];
        struct pd_iov iov = { buf, sizeof(buf) };
        size_t sent = 0;
        h = (struct pd_xp_head){ .type = PD_XP_PING, .seq = r.seq++ };
        pd_xp_head_encode(&g.crc, &h, buf);
        pd_stream_send_fds(r.s, &iov, 1, noise, 3, &sent);
        g.e.pass(&g.e, 2 * PD_MS);
    }
    assert_true(r.is_over);
    raw_end(&r);
    close(good);
    close(loose);
    rig_end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greetings), cmocka_unit_test(frames), cmocka_unit_test(reads),
        cmocka_unit_test(deaf),      cmocka_unit_test(holes),  cmocka_unit_test(crowd),
        cmocka_unit_test(fuzz),      cmocka_unit_test(shared_memory),
        cmocka_unit_test(grants),
        cmocka_unit_test(spoiled),
    };
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
