/* SPDX-License-Identifier: Apache-2.0 */
/* tcp with a codec: all common cases with bytes that it makes shorter, nodes
 * that have another codec or none, a codec that lies, and a peer that sends
 * what no codec made. */
#include "transport_uv.h"

#include "tcp.h"

#include "log/log.h"
#include "loop/sim.h"
#include "metric/metric.h"
#include "mod/host.h"
#include "mod/mod.h"

static struct pd_mods *mods;
static const struct pd_codec_ops *planes_ops;
static struct pd_codec *planes;
static const struct pd_transport_ops *tcp_ops;
static struct pd_metrics *metrics;

struct planes_options {         /* as filled from the rows of planes */
    int64_t element;
};

static const struct pd_mod_unit *load(const char *file, uint32_t kind, const char *name)
{
    const char *dir = getenv("PD_BUILDDIR");
    struct pd_err err = { 0 };
    char path[1024], full[4200];

    snprintf(path, sizeof(path), "%s/%s", dir == NULL ? "." : dir, file);
    assert_non_null(realpath(path, full));
    if (pd_mods_load(mods, full, &err) != PD_OK)
        fail_msg("%s", err.text);
    return pd_mods_unit(mods, kind, name);
}

static int setup(void **state)
{
    struct pd_mods_params params = { .host = pd_host_api_table() };
    static const struct planes_options options = { .element = 2 };
    const struct pd_instance_ctx ctx = { .size = sizeof(ctx), .name = "planes" };
    struct pd_err err = { 0 };

    (void)state;
    assert_int_equal(pd_mods_create(&params, &mods), PD_OK);
    tcp_ops = (const void *)load("modules/transport/tcp/.libs/tcp.so", PD_KIND_TRANSPORT, "tcp")->ops;
    planes_ops = (const void *)load("modules/codec/planes/.libs/planes.so", PD_KIND_CODEC, "planes")->ops;
    assert_int_equal(planes_ops->create(&ctx, &options, &planes, &err), PD_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    planes_ops->destroy(planes);
    pd_mods_destroy(mods);
    return 0;
}

static double value(const char *name)
{
    double v = -1;

    pd_metrics_read(metrics, name, NULL, &v);
    return v;
}

#define SHRUNK_FROM "pdplane_transport_codec_plain_bytes_total"
#define SHRUNK_TO "pdplane_transport_codec_encoded_bytes_total"
#define SKIPPED "pdplane_transport_codec_skipped_bytes_total"
#define DECODED "pdplane_transport_codec_decoded_bytes_total"
#define FAILED "pdplane_transport_codec_failures_total"

static struct pd_tcp_conf conf_with(const char *listen, uint32_t queue, uint64_t frame)
{
    return (struct pd_tcp_conf){ .listen = listen, .lanes = 1, .queue = queue, .windows = 4096,
                                 .connections = 1024, .frame = frame, .timeout = 2 * PD_SEC,
                                 .connect_timeout = 5 * PD_SEC, .keepalive = 5 * PD_SEC,
                                 .checksum = true, .codec = "planes" };
}

static void host_with(struct pd_host *host, const struct pd_codec_ops *ops)
{
    pd_host_init(host);
    if (ops != NULL)
        assert_int_equal(pd_host_codec_add(host, "planes", ops, planes), PD_OK);
}

static bool sim_run(struct tr_env *e, bool (*cond)(void *arg), void *arg)
{
    return pd_sim_run_cond(e->priv, pd_sim_now(e->priv) + 120 * PD_SEC, cond, arg);
}

static void sim_pass(struct tr_env *e, pd_time ns)
{
    pd_sim_run_until(e->priv, pd_sim_now(e->priv) + ns);
}

static void loop_end(struct pd_loop *l)
{
    char names[512] = "";

    if (pd_loop_destroy(l, names, sizeof(names)) != PD_OK)
        fail_msg("left open: %s", names);
}

/* What every case shows: frames went encoded and came back right. */
static void on_uv(void (*fn)(struct tr_env *e), bool shrinks)
{
    struct pd_tcp_conf conf = conf_with("127.0.0.1:0", 1024, 1 << 20), tiny = conf_with("127.0.0.1:0", 4, 4096);
    struct pd_host host;
    struct tr_env e;

    host_with(&host, planes_ops);
    assert_int_equal(pd_metrics_create(0, &metrics), PD_OK);
    uv_env(&e);
    e.scale = 4;
    e.ops = tcp_ops;
    e.conf = &conf;
    e.conf_tiny = &tiny;
    e.metrics = metrics;
    e.host = &host;
    tr_fill_smooth = true;
    fn(&e);
    tr_fill_smooth = false;
    uv_env_end(&e);
    if (shrinks) {
        assert_true(value(SHRUNK_FROM) > 0);
        assert_true(value(SHRUNK_TO) < 0.9 * value(SHRUNK_FROM));
        assert_true(value(DECODED) > 0);
    }
    assert_true(value(FAILED) == 0);
    pd_metrics_destroy(metrics);
}

struct sim_env {
    struct tr_env e;
    struct pd_sim *sim;
};

static void sim_open(struct sim_env *s, uint64_t seed, const struct pd_sim_opts *opts)
{
    memset(s, 0, sizeof(*s));
    assert_int_equal(pd_metrics_create(0, &metrics), PD_OK);
    assert_int_equal(pd_sim_create(seed, opts, &s->sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(s->sim, "a", "10.0.0.1", &s->e.la), PD_OK);
    assert_int_equal(pd_sim_loop_create(s->sim, "b", "10.0.0.2", &s->e.lb), PD_OK);
    s->e.ops = tcp_ops;
    s->e.scale = 6;
    s->e.run = sim_run;
    s->e.pass = sim_pass;
    s->e.priv = s->sim;
    s->e.metrics = metrics;
}

static void sim_close(struct sim_env *s)
{
    pd_sim_run_until(s->sim, pd_sim_now(s->sim) + PD_SEC);
    loop_end(s->e.lb);
    loop_end(s->e.la);
    assert_int_equal(pd_sim_destroy(s->sim), PD_OK);
    pd_metrics_destroy(metrics);
}

/* Bad lines cut payloads at any byte. */
static void on_sim(void (*fn)(struct tr_env *e))
{
    static const struct pd_sim_opts odd = { .buffer_bytes = 3000, .segment_bytes = 1461 };
    struct pd_tcp_conf conf = conf_with("0.0.0.0:0", 1024, 1 << 20), tiny = conf_with("0.0.0.0:0", 4, 4096);
    struct pd_host host;
    struct sim_env s;

    host_with(&host, planes_ops);
    sim_open(&s, 11, &odd);
    s.e.conf = &conf;
    s.e.conf_tiny = &tiny;
    s.e.host = &host;
    tr_fill_smooth = true;
    fn(&s.e);
    tr_fill_smooth = false;
    assert_true(value(FAILED) == 0);
    sim_close(&s);
}

#define X(name)                                                                \
    static void uv_##name(void **state)                                        \
    {                                                                          \
        (void)state;                                                           \
        on_uv(tr_case_##name, strcmp(#name, "sizes") == 0 || strcmp(#name, "read") == 0); \
    }                                                                          \
    static void sim_##name(void **state)                                       \
    {                                                                          \
        (void)state;                                                           \
        on_sim(tr_case_##name);                                                \
    }
TRANSPORT_CASES(X)
#undef X

/* ---- two nodes that differ */

static struct pd_codec_ops other;   /* planes with one thing changed */

static void other_info(struct pd_codec *codec, struct pd_codec_info *out)
{
    planes_ops->info(codec, out);
    out->format++;
}

static void lossy_info(struct pd_codec *codec, struct pd_codec_info *out)
{
    planes_ops->info(codec, out);
    out->flags = 0;
}

static pd_status lying_encode(struct pd_codec_state *state, const struct pd_codec_hint *hint, const void *in,
                              size_t n, void *out, size_t cap, size_t *len)
{
    (void)state;
    (void)hint;
    *len = n / 3 < cap ? n / 3 : cap;
    memcpy(out, in, *len);
    return PD_OK;
}

struct pair {
    struct tr_node a, b;
    struct tr_window w;
    struct tr_link l;
    struct pd_transport_target *t;
};

enum { BYTES = 300000, FROM = 1000, PART = 200000 };

/* b posts PART bytes into a's window; gives the terminal status. */
static uint32_t write_once(struct sim_env *s, const struct pd_host *of_a, const struct pd_host *of_b)
{
    struct pd_tcp_conf conf = conf_with("0.0.0.0:0", 64, 65536), plain = conf;
    struct pd_segment part = { FROM, PART };
    struct tr_post post;
    struct pair p;

    plain.codec = NULL;
    s->e.host = (struct pd_host *)(uintptr_t)of_a;
    tr_node_open(&s->e, &p.a, s->e.la, 0xa1, 1, BYTES, of_a != NULL ? &conf : &plain);
    s->e.host = (struct pd_host *)(uintptr_t)of_b;
    tr_node_open(&s->e, &p.b, s->e.lb, 0xb2, 1, BYTES, of_b != NULL ? &conf : &plain);
    memset(p.a.base, 0x5a, BYTES);
    tr_fill(p.b.base, BYTES, 9);
    tr_window_open(&p.w, &p.a, &p.b.ctx.node, 1, PD_TRANSPORT_WRITE, &part, 1);
    tr_connect_up(&s->e, &p.l, &p.b, &p.a);
    p.t = tr_target(&p.l, &p.w);
    assert_int_equal(tr_post(&p.b, p.t, &post, 0, &part, 1), PD_OK);
    tr_wait_post(&s->e, &post);
    if (post.terminal == PD_TRANSFER_OK)
        assert_memory_equal(p.a.base + FROM, p.b.base + FROM, PART);
    else
        assert_true(tr_stats(&p.a).corrupt > 0);
    for (uint32_t i = 0; i < BYTES; i++)
        assert_true((i >= FROM && i < FROM + PART) || p.a.base[i] == 0x5a);
    s->e.ops->target_close(p.t);
    tr_window_close(&s->e, &p.w);
    tr_disconnect(&s->e, &p.l, PD_DISCONNECT_DRAIN);
    tr_node_close(&s->e, &p.b);
    tr_node_close(&s->e, &p.a);
    return post.terminal;
}

static void differ(void **state)
{
    struct pd_host with, without, format;
    struct sim_env s;

    (void)state;
    host_with(&with, planes_ops);
    host_with(&without, NULL);
    other = *planes_ops;
    other.info = other_info;
    host_with(&format, &other);
    sim_open(&s, 1, NULL);
    tr_fill_smooth = true;
    assert_int_equal(write_once(&s, &with, &with), PD_TRANSFER_OK);
    assert_true(value(SHRUNK_FROM) == PART && value(DECODED) == PART);
    assert_true(value(SHRUNK_TO) > 0 && value(SHRUNK_TO) < 0.8 * PART);
    assert_int_equal(write_once(&s, &with, NULL), PD_TRANSFER_OK);
    assert_int_equal(write_once(&s, NULL, &with), PD_TRANSFER_OK);
    assert_int_equal(write_once(&s, &with, &format), PD_TRANSFER_OK);
    assert_int_equal(write_once(&s, &format, &with), PD_TRANSFER_OK);
    assert_true(value(SHRUNK_FROM) == PART && value(SKIPPED) == 0);
    tr_fill_smooth = false;
    assert_int_equal(write_once(&s, &with, &with), PD_TRANSFER_OK);
    assert_true(value(SHRUNK_FROM) == PART && value(SKIPPED) == PART);
    sim_close(&s);
}

static void lying(void **state)
{
    struct pd_host with, lies;
    struct sim_env s;

    (void)state;
    host_with(&with, planes_ops);
    other = *planes_ops;
    other.encode = lying_encode;
    host_with(&lies, &other);
    sim_open(&s, 2, NULL);
    assert_int_equal(write_once(&s, &with, &lies), PD_TRANSFER_FAILED_FENCED);
    assert_true(value(FAILED) > 0 && value(DECODED) == 0);
    sim_close(&s);
}

static void refused(void **state)
{
    struct pd_tcp_conf conf = conf_with("0.0.0.0:0", 64, 65536);
    struct pd_instance_ctx ctx = { .size = sizeof(ctx), .name = "tcp", .node = { .uuid.b[0] = 1, .epoch = 1 } };
    struct pd_transport *tp = NULL;
    struct pd_host host;
    struct pd_err err = { 0 };
    struct sim_env s;

    (void)state;
    sim_open(&s, 3, NULL);
    ctx.loop = s.e.la;
    ctx.host = &host;
    host_with(&host, NULL);
    assert_int_equal(tcp_ops->create(&ctx, &conf, &tp, &err), PD_ENOENT);
    assert_non_null(strstr(err.text, "there is no codec \"planes\""));
    other = *planes_ops;
    other.info = lossy_info;
    host_with(&host, &other);
    assert_int_equal(tcp_ops->create(&ctx, &conf, &tp, &err), PD_EINVAL);
    assert_non_null(strstr(err.text, "does not give back the same bytes"));
    assert_null(tp);
    sim_close(&s);
}

/* ---- frames that no codec made */

struct raw {
    struct pd_stream *s;
    uint8_t out[70000];
    size_t n, sent;
    bool is_over, is_gone;
};

static void raw_flush(struct raw *r)
{
    size_t n = 0;

    while (r->sent < r->n && pd_stream_write(r->s, r->out + r->sent, r->n - r->sent, &n) == PD_OK)
        r->sent += n;
}

static void raw_connected(struct pd_stream *s, pd_status status, void *arg)
{
    (void)s;
    assert_int_equal(status, PD_OK);
    raw_flush(arg);
}

static void raw_writable(struct pd_stream *s, void *arg)
{
    (void)s;
    raw_flush(arg);
}

static void raw_readable(struct pd_stream *s, void *arg)
{
    struct raw *r = arg;
    uint8_t buf[4096];
    size_t n;
    pd_status st;

    while ((st = pd_stream_read(s, buf, sizeof(buf), &n)) == PD_OK)
        continue;
    if (st != PD_EAGAIN) {
        r->is_over = true;
        pd_stream_pause_read(s);
    }
}

static void raw_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct raw *)arg)->is_gone = true;
}

static bool raw_is_gone(void *arg)
{
    return ((struct raw *)arg)->is_gone;
}

static void raw_frame(struct raw *r, const struct pd_xp_crc *crc, struct pd_xp_head *h, uint16_t seq,
                      const void *payload, uint32_t len)
{
    h->seq = seq;
    h->length = len;
    h->flags |= PD_XP_CHECKED;
    h->crc = pd_xp_crc(crc, 0, payload, len);
    pd_xp_head_encode(crc, h, r->out + r->n);
    memcpy(r->out + r->n + PD_XP_HEAD_BYTES, payload, len);
    r->n += PD_XP_HEAD_BYTES + len;
}

/* Sends one encoded frame to a window of 4096 bytes; tells whether the lane ended. */
static bool send_one(struct sim_env *s, struct tr_node *a, const char *codec, const void *payload, uint32_t len,
                     uint64_t offset)
{
    static const struct pd_stream_events ev = { .name = "raw", .on_connected = raw_connected,
                                                .on_readable = raw_readable, .on_writable = raw_writable,
                                                .on_closed = raw_closed };
    static struct raw r;
    struct pd_node_id me = { .uuid.b[0] = 0xee, .epoch = 5 };
    struct pd_xp_hello hello = { .from = me, .to = a->ctx.node, .link = 7, .frame_bytes = 65536, .lanes = 1,
                                 .kind = PD_XP_TCP, .codec_format = 1 };
    struct pd_xp_head h = { .type = PD_XP_HELLO };
    struct pd_segment part = { FROM, 4096 };
    struct pd_xp_address at;
    struct pd_xp_grant grant;
    struct pd_xp_crc crc;
    struct pd_addr to = { .family = PD_AF_IPV4, .ip = { 10, 0, 0, 1 } };
    struct tr_window w;
    uint8_t buf[512];
    size_t n;
    bool over;

    memset(&r, 0, sizeof(r));
    pd_xp_crc_init(&crc);
    tr_window_open(&w, a, &me, 1, PD_TRANSPORT_WRITE, &part, 1);
    assert_int_equal(pd_xp_grant_decode(w.blob, w.blob_len, &grant), PD_OK);
    assert_int_equal(s->e.ops->address(a->tp, buf, sizeof(buf), &n), PD_OK);
    assert_int_equal(pd_xp_address_decode(buf, n, &at), PD_OK);
    to.port = at.port;
    memcpy(hello.key, at.key, sizeof(hello.key));
    snprintf(hello.codec, sizeof(hello.codec), "%s", codec);
    pd_xp_hello_encode(&hello, buf);
    h.xid = grant.xid;
    h.generation = grant.generation;
    memcpy(h.token, grant.token, sizeof(h.token));
    raw_frame(&r, &crc, &h, 0, buf, PD_XP_HELLO_BYTES);
    h = (struct pd_xp_head){ .type = PD_XP_WRITE, .flags = PD_XP_ENCODED, .xid = grant.xid,
                             .generation = grant.generation, .offset = offset, .id = 1 };
    memcpy(h.token, grant.token, sizeof(h.token));
    raw_frame(&r, &crc, &h, 1, payload, len);
    assert_int_equal(pd_stream_connect(s->e.lb, &to, &ev, &r, &r.s), PD_OK);
    s->e.pass(&s->e, 100 * PD_MS);
    over = r.is_over;
    pd_stream_close(r.s);
    assert_true(s->e.run(&s->e, raw_is_gone, &r));
    tr_window_close(&s->e, &w);
    return over;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void hostile(void **state)
{
    struct pd_tcp_conf conf = conf_with("0.0.0.0:0", 64, 65536);
    static uint8_t plain[4096], good[8192], bad[65000];
    struct pd_codec_state *cs;
    struct pd_host host;
    struct sim_env s;
    struct tr_node a;
    uint64_t rng = 5;
    size_t len;

    (void)state;
    host_with(&host, planes_ops);
    sim_open(&s, 4, NULL);
    s.e.host = &host;
    tr_node_open(&s.e, &a, s.e.la, 0xa1, 1, BYTES, &conf);
    tr_fill_smooth = true;
    tr_fill(plain, sizeof(plain), 3);
    tr_fill_smooth = false;
    assert_int_equal(planes_ops->state_open(planes, &cs), PD_OK);
    assert_int_equal(planes_ops->encode(cs, NULL, plain, sizeof(plain), good + 4, sizeof(good) - 4, &len), PD_OK);
    planes_ops->state_close(cs);
    put32(good, sizeof(plain));
    len += 4;

    /* What is right is taken; without an agreement it ends the lane. */
    memset(a.base, 0x5a, BYTES);
    assert_false(send_one(&s, &a, "planes", good, (uint32_t)len, 0));
    assert_memory_equal(a.base + FROM, plain, sizeof(plain));
    memset(a.base, 0x5a, BYTES);
    assert_true(send_one(&s, &a, "", good, (uint32_t)len, 0));
    assert_true(send_one(&s, &a, "other", good, (uint32_t)len, 0));
    /* No bytes, more than a frame, nothing but their number. */
    put32(good, 0);
    assert_true(send_one(&s, &a, "planes", good, (uint32_t)len, 0));
    put32(good, 65537);
    assert_true(send_one(&s, &a, "planes", good, (uint32_t)len, 0));
    put32(good, UINT32_MAX);
    assert_true(send_one(&s, &a, "planes", good, (uint32_t)len, 0));
    assert_true(send_one(&s, &a, "planes", good, 4, 0));
    /* More than the window has, or beside it. */
    put32(good, sizeof(plain) + 1);
    assert_false(send_one(&s, &a, "planes", good, (uint32_t)len, 0));
    put32(good, sizeof(plain));
    assert_false(send_one(&s, &a, "planes", good, (uint32_t)len, 1));
    for (uint32_t i = 0; i < BYTES; i++)
        assert_int_equal(a.base[i], 0x5a);
    assert_true(tr_stats(&a).dropped_bounds > 0);
    /* Damage anywhere: the lane goes on, nothing outside the window changes. */
    for (int round = 0; round < 300; round++) {
        uint32_t n = (uint32_t)len;
        memcpy(bad, good, len);
        for (int k = 0; k < 3; k++)
            bad[4 + tr_random(&rng) % (len - 4)] ^= (uint8_t)(1u << tr_random(&rng) % 8);
        if (round % 3 == 0)
            n = 5 + (uint32_t)(tr_random(&rng) % (len - 5));
        if (round % 7 == 0)
            n = sizeof(bad);
        assert_false(send_one(&s, &a, "planes", bad, n, 0));
        for (uint32_t i = 0; i < BYTES; i++)
            assert_true((i >= FROM && i < FROM + 4096) || a.base[i] == 0x5a);
    }
    assert_true(value(FAILED) > 100);
    tr_node_close(&s.e, &a);
    sim_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(uv_##name), cmocka_unit_test(sim_##name),
        TRANSPORT_CASES(X)
#undef X
        cmocka_unit_test(differ), cmocka_unit_test(lying), cmocka_unit_test(refused),
        cmocka_unit_test(hostile),
    };
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, setup, teardown);
}
