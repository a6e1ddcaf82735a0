/* SPDX-License-Identifier: Apache-2.0 */
/* A connection of TLS in the simulator while a call of OpenSSL, an allocation or an
 * operation of the loop fails, each of them in turn: contexts say what is wrong,
 * connections end on both sides with a status and a counter, bytes that arrive are
 * right, and nothing is left. */
#include "net_world.h"
#include "tls_certs.h"
#include "wrap_ssl.h"

#include "base/mem.h"
#include "net/tls.h"

#include <openssl/ssl.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP 5u
#else
#define STEP 1u
#endif

#define BYTES 30000u

struct end {
    struct pd_stream *s;
    bool is_client, is_over, is_closed, has_node, at_end;
    size_t sent, got;
    pd_status status;           /* with which it ended */
};

struct play {
    struct world w;
    struct pd_tls *server, *client;
    struct pd_listener *listener;
    struct end a, b;
    pd_status accepted;
};

static char bytes[BYTES];

static void end_over(struct end *e, pd_status status)
{
    if (!e->is_over) {
        e->is_over = true;
        e->status = status;
        pd_stream_close(e->s);
    }
}

static void push(struct end *e)
{
    while (e->sent < BYTES) {
        struct pd_iov iov[2] = { { bytes + e->sent, (BYTES - e->sent) / 2 } };
        iov[1] = (struct pd_iov){ bytes + e->sent + iov[0].len, BYTES - e->sent - iov[0].len };
        size_t n;
        pd_status st = pd_stream_writev(e->s, iov, 2, &n);
        if (st == PD_EAGAIN)
            return;
        if (st != PD_OK) {
            end_over(e, st);
            return;
        }
        e->sent += n;
    }
    if (e->at_end)
        end_over(e, PD_OK);
    else
        (void)pd_stream_shutdown_write(e->s);
}

static void on_connected(struct pd_stream *s, pd_status status, void *arg)
{
    (void)s;
    if (status != PD_OK)
        end_over(arg, status);
    else
        push(arg);
}

static void on_readable(struct pd_stream *s, void *arg)
{
    struct end *e = arg;
    char buf[5000];
    size_t n;
    pd_status st = pd_stream_read(s, buf, sizeof buf, &n);
    if (st == PD_EAGAIN)
        return;
    if (st != PD_OK) {
        struct pd_uuid node;
        e->has_node = pd_tls_stream_node(s, &node);
        /* The server closes when it has sent all and heard the end, the client at the end. */
        e->at_end = st == PD_EEOF;
        if (st != PD_EEOF || e->is_client || e->sent == BYTES)
            end_over(e, st == PD_EEOF ? PD_OK : st);
        else
            pd_stream_pause_read(s);
        return;
    }
    assert_true(e->got + n <= BYTES);
    assert_memory_equal(buf, bytes + e->got, n);
    e->got += n;
    if (!e->is_client && e->got == BYTES && !e->is_over)
        push(e);
}

static void on_writable(struct pd_stream *s, void *arg)
{
    struct end *e = arg;
    (void)s;
    if (!e->is_over && e->sent < BYTES && (e->is_client || e->got == BYTES))
        push(e);
}

static void on_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct end *)arg)->is_closed = true;
}

static const struct pd_stream_events events = { .name = "end", .on_connected = on_connected, .on_readable = on_readable,
                                                .on_writable = on_writable, .on_closed = on_closed };

static void on_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct play *x = arg;
    (void)l;
    x->accepted = pd_tls_accept(x->server, s, &s);
    if (x->accepted != PD_OK)
        return;
    x->b.s = s;
    pd_stream_set_events(s, &events, &x->b);
}

/* ---- what is played: both show certificates; only the server does; little fits into the
 * network, so that the server closes a stream with much to send to a client that has
 * ended its half ---- */

struct variant {
    const char *ca, *client, *name;     /* of the server; of the client */
    uint32_t buffer;
};

static const struct variant variants[] = {
    { "ca.pem", "client", "localhost", 0 },
    { NULL, NULL, "127.0.0.1", 0 },
    { NULL, NULL, "localhost", 4096 },
};

static pd_status context(struct play *x, bool is_server, const char *certificate, const char *ca, const char *name,
                         struct pd_tls **out)
{
    char key[140], pem[140], ca_path[140];
    struct pd_tls_conf conf = { .is_server = is_server, .name = name };
    struct pd_err err = { 0 };
    (void)snprintf(key, sizeof(key), "%s/%s.key", folder, certificate != NULL ? certificate : "");
    (void)snprintf(pem, sizeof(pem), "%s/%s.pem", folder, certificate != NULL ? certificate : "");
    (void)snprintf(ca_path, sizeof(ca_path), "%s/%s", folder, ca != NULL ? ca : "");
    conf.certificate = certificate != NULL ? pem : NULL;
    conf.key = certificate != NULL ? key : NULL;
    conf.ca = ca != NULL ? ca_path : NULL;
    pd_status st = pd_tls_create(x->w.loop, NULL, &conf, out, &err);
    if (st != PD_OK && err.text[0] == '\0')
        fail_msg("%s", "a context says nothing about why it cannot be made");
    return st;
}

static bool is_through(void *arg)
{
    struct play *x = arg;
    return x->a.is_closed && (x->b.s == NULL || x->b.is_closed);
}

/* Something failed: some side says so. */
static uint64_t failures(const struct pd_tls *tls)
{
    const struct pd_tls_stats *st = pd_tls_stats(tls);
    uint64_t n = st->reload_failures;
    for (size_t i = 0; i < PD_TLS_FAILS; i++)
        n += st->failed[i];
    return n;
}

enum kind { NOTHING, CALL, MEMORY, OPERATION };

static void arm(const struct play *x, enum kind kind, uint64_t n)
{
    if (kind == CALL)
        wrap_ssl_arm(n);
    else if (kind == MEMORY)
        pd_mem_fault_set(n);
    else if (kind == OPERATION)
        pd_sim_refuse(x->w.sim, n);
}

static void talk(struct play *x)
{
    struct pd_addr addr = world_addr(&x->w);
    x->a.is_client = true;
    if (pd_listener_open(x->w.loop, &addr, NULL, on_accept, x, &x->listener) != PD_OK) {
        x->a.status = PD_EIO;
        return;
    }
    assert_int_equal(pd_listener_addr(x->w.loop, x->listener, &addr), PD_OK);
    pd_status st = pd_tls_connect(x->client, &addr, &events, &x->a, &x->a.s);
    if (st != PD_OK)
        x->a.status = st;
    else if (!world_run(&x->w, is_through, x, 30 * PD_SEC))
        fail_msg("no end: client %d %d, server %d %d", x->a.is_over, x->a.is_closed, x->b.is_over, x->b.is_closed);
    pd_listener_close(x->w.loop, x->listener);
}

/* How many there were, and whether the fault was among them. */
static bool play(const struct variant *v, enum kind kind, uint64_t n)
{
    struct play x;
    const char *failed = NULL;
    struct pd_sim_opts opts = { .buffer_bytes = v->buffer };
    memset(&x, 0, sizeof x);
    assert_int_equal(pd_sim_create(7, &opts, &x.w.sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(x.w.sim, "host", NULL, &x.w.loop), PD_OK);
    uint64_t from = kind == MEMORY ? pd_mem_count() : pd_sim_operations(x.w.sim);
    arm(&x, kind, n);
    pd_status st = context(&x, true, "server", v->ca, NULL, &x.server);
    if (st == PD_OK)
        st = context(&x, false, v->client, "ca.pem", v->name, &x.client);
    if (st == PD_OK)
        talk(&x);
    uint64_t used = (kind == MEMORY ? pd_mem_count() : pd_sim_operations(x.w.sim)) - from;
    bool was_reached = kind == CALL ? wrap_ssl_disarm(&failed) >= n && n > 0 : kind != NOTHING && used >= n;
    if (kind != CALL)
        arm(&x, kind, 0);
    bool is_whole = st == PD_OK && x.a.status == PD_OK && x.a.got == BYTES && x.b.got == BYTES;
    if (!was_reached && !is_whole)
        fail_msg("without a fault: %d, client %d got %zu, server %d got %zu", st, x.a.status, x.a.got, x.b.status, x.b.got);
    if (is_whole && v->client != NULL && !was_reached)
        assert_true(x.b.has_node);
    /* Bytes that are missing are missing for a reason. */
    if (st == PD_OK && !is_whole)
        assert_true(x.a.status != PD_OK || x.b.status != PD_OK || x.accepted != PD_OK || x.b.s == NULL ||
                    failures(x.server) + failures(x.client) > 0);
    for (int i = 0; i < 2; i++) {
        const struct pd_tls *tls = i == 0 ? x.server : x.client;
        if (tls != NULL) {
            assert_int_equal(pd_tls_stats(tls)->streams, 0);
            assert_int_equal(pd_tls_stats(tls)->handshaking, 0);
        }
    }
    pd_tls_destroy(x.server);
    pd_tls_destroy(x.client);
    world_end(&x.w);
    return was_reached;
}

static void sweep(enum kind kind)
{
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        uint64_t n = 1;
        (void)play(&variants[i], NOTHING, 0);
        while (play(&variants[i], kind, n))
            n += STEP;
        fprintf(stderr, "# %llu faults\n", (unsigned long long)n - 1);
        assert_true(n > 10);
    }
}

static void test_calls(void **state)
{
    (void)state;
    sweep(CALL);
}

static void test_memory(void **state)
{
    (void)state;
    sweep(MEMORY);
}

static void test_operations(void **state)
{
    (void)state;
    sweep(OPERATION);
}

/* ---- what OpenSSL says of a handshake, and what is counted and told for it ---- */

static void test_reasons(void **state)
{
    static const struct {
        int reason;
        enum pd_tls_fail fail;
        pd_status status;
    } all[] = {
        { SSL_R_WRONG_VERSION_NUMBER, PD_TLS_FAIL_NOT_TLS, PD_EPROTO },
        { SSL_R_HTTP_REQUEST, PD_TLS_FAIL_NOT_TLS, PD_EPROTO },
        { SSL_R_HTTPS_PROXY_REQUEST, PD_TLS_FAIL_NOT_TLS, PD_EPROTO },
        { SSL_R_PACKET_LENGTH_TOO_LONG, PD_TLS_FAIL_NOT_TLS, PD_EPROTO },
        { SSL_R_NO_SHARED_CIPHER, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_NO_SUITABLE_KEY_SHARE, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_UNSUPPORTED_PROTOCOL, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_UNKNOWN_PROTOCOL, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_VERSION_TOO_LOW, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_NO_APPLICATION_PROTOCOL, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_TLSV1_ALERT_INSUFFICIENT_SECURITY, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_AD_REASON_OFFSET + TLS1_AD_NO_APPLICATION_PROTOCOL, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, PD_TLS_FAIL_NOTHING_SHARED, PD_EPROTO },
        { SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, PD_TLS_FAIL_NO_CERTIFICATE, PD_EPERM },
        { SSL_R_UNEXPECTED_EOF_WHILE_READING, PD_TLS_FAIL_CLOSED, PD_EPEER },
        { SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, PD_TLS_FAIL_REFUSED, PD_EPERM },
        { SSL_R_BAD_EXTENSION, PD_TLS_FAIL_PROTOCOL, PD_EPROTO },
        { 0, PD_TLS_FAIL_MEMORY, PD_ENOMEM },
    };
    (void)state;
    wrap_ssl_only("SSL_do_handshake");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct play x;
        const char *failed;
        memset(&x, 0, sizeof x);
        world_begin(&x.w, true);
        assert_int_equal(context(&x, true, "server", NULL, NULL, &x.server), PD_OK);
        assert_int_equal(context(&x, false, NULL, "ca.pem", "localhost", &x.client), PD_OK);
        wrap_ssl_reason(all[i].reason);
        wrap_ssl_arm(1);
        talk(&x);
        (void)wrap_ssl_disarm(&failed);
        assert_non_null(failed);
        if (x.a.status != all[i].status || pd_tls_stats(x.client)->failed[all[i].fail] != 1)
            fail_msg("reason %d: status %d", all[i].reason, x.a.status);
        assert_string_not_equal(pd_tls_fail_label(all[i].fail), "unknown");
        pd_tls_destroy(x.server);
        pd_tls_destroy(x.client);
        world_end(&x.w);
    }
    assert_string_equal(pd_tls_fail_label(PD_TLS_FAILS), "unknown");
    wrap_ssl_reason(0);
    wrap_ssl_only(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_calls), cmocka_unit_test(test_memory), cmocka_unit_test(test_operations),
    cmocka_unit_test(test_reasons),
};

int main(void)
{
    const char *pattern = getenv("PD_TEST");
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (char)(i * 2654435761u >> 13);
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
