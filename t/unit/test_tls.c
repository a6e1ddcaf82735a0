/* SPDX-License-Identifier: Apache-2.0 */
/* TLS over streams of both loops: handshake, echo with back-pressure, half-close,
 * farewell, certificates that are refused on either side, rubbish, bytes turned
 * over on the way, changed files.  Certificates are made when the test begins. */
#include "net_world.h"
#include "tls_certs.h"

#include "base/mem.h"
#include "net/tls.h"

#include <sys/stat.h>
#include <unistd.h>

static const char *at(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *p = paths[next++ % 8];

    (void)snprintf(p, 128, "%s/%s", folder, name);
    return p;
}

/* One end of a connection. */
struct end {
    struct pd_stream *s;
    bool is_echo, is_open, is_connected, is_closed, is_shut, close_at_end, close_when_sent, hung_up;
    bool to_shut;
    pd_status connected, ended;
    char *out;
    size_t out_n, out_at, out_cap;
    char *in;
    size_t in_n, in_cap;
    size_t read_most;           /* bytes per on_readable */
    struct pd_uuid node;
    bool has_node;
};

struct site {
    struct world w;
    struct pd_listener *listener;
    struct pd_addr addr;
    struct pd_tls *server, *client;
    struct end a, b;            /* client, server */
    size_t accepted;
    /* a relay between them that turns over one bit */
    struct pd_listener *front;
    struct pd_stream *left, *right;
    struct end to_left, to_right;       /* their `out` only */
    bool left_closed, right_closed, relayed;
    size_t passed, flip;
};

static void end_send(struct end *e)
{
    while (e->out_at < e->out_n) {
        struct pd_iov iov[3];
        size_t n = 0, sent = 0, p = e->out_at;
        for (; n < 3 && p < e->out_n; n++) {
            size_t k = e->out_n - p, most = n == 0 ? 10 : n == 1 ? 777 : 100000;
            k = k < most ? k : most;
            iov[n] = (struct pd_iov){ e->out + p, k };
            p += k;
        }
        pd_status st = pd_stream_writev(e->s, iov, n, &sent);
        if (st != PD_OK) {
            assert_int_equal(sent, 0);
            return;
        }
        assert_true(sent > 0);
        e->out_at += sent;
        if (e->out_at < p)
            return;             /* on_writable follows */
    }
    if (e->close_when_sent) {
        pd_stream_close(e->s);
        e->is_open = false;
    } else if (e->to_shut && !e->is_shut) {
        e->is_shut = true;
        assert_int_equal(pd_stream_shutdown_write(e->s), PD_OK);
    }
}

static void end_append(char **p, size_t *n, size_t *cap, const char *from, size_t k)
{
    if (*n + k > *cap) {
        *cap = (*n + k) * 2;
        *p = pd_realloc(*p, *cap);
        assert_non_null(*p);
    }
    memcpy(*p + *n, from, k);
    *n += k;
}

static void e_readable(struct pd_stream *s, void *arg)
{
    struct end *e = arg;
    static char buf[70000];
    size_t got, most = e->read_most != 0 ? e->read_most : sizeof(buf);
    struct pd_iov iov[2] = { { buf, most / 3 + 1 }, { buf + most / 3 + 1, most - most / 3 - 1 } };
    pd_status st = pd_stream_readv(s, iov, 2, &got);

    if (st == PD_EAGAIN)
        return;
    if (st != PD_OK) {
        assert_int_equal(pd_stream_readv(s, iov, 2, &got), st);
        e->ended = st;
        if (st == PD_EEOF && e->is_echo) {
            e->to_shut = true;
            end_send(e);
        }
        if (e->close_at_end) {
            pd_stream_close(s);
            e->is_open = false;
        }
        return;
    }
    end_append(&e->in, &e->in_n, &e->in_cap, buf, got);
    if (e->is_echo) {
        end_append(&e->out, &e->out_n, &e->out_cap, buf, got);
        end_send(e);
    }
}

static void e_writable(struct pd_stream *s, void *arg)
{
    (void)s;
    end_send(arg);
}

static void e_connected(struct pd_stream *s, pd_status status, void *arg)
{
    struct end *e = arg;

    e->is_connected = true;
    e->connected = status;
    e->has_node = pd_tls_stream_node(s, &e->node);
    if (status != PD_OK) {
        pd_stream_close(s);
        e->is_open = false;
    } else {
        end_send(e);
    }
}

static void e_hangup(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct end *)arg)->hung_up = true;
}

static void e_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct end *)arg)->is_closed = true;
}

static const struct pd_stream_events end_events = {
    .name = "end", .on_connected = e_connected, .on_readable = e_readable,
    .on_writable = e_writable, .on_hangup = e_hangup, .on_closed = e_closed,
};

static void on_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct site *x = arg;

    (void)l;
    x->accepted++;
    if (x->server != NULL && pd_tls_accept(x->server, s, &s) != PD_OK)
        return;
    if (x->b.s != NULL) {       /* one more, of no interest */
        pd_stream_close(s);
        return;
    }
    x->b.s = s;
    x->b.is_open = true;
    pd_stream_set_events(s, &end_events, &x->b);
    if (x->b.out_n > 0)
        end_send(&x->b);
}

static struct pd_tls *context(struct site *x, bool is_server, const char *certificate, const char *ca,
                              const char *name)
{
    char key[140] = "", pem[140] = "";
    struct pd_tls_conf conf = { .is_server = is_server, .ca = ca != NULL ? at(ca) : NULL,
                                .name = name, .handshake_ns = 500 * PD_MS };
    struct pd_err err = { 0 };
    struct pd_tls *tls = NULL;

    if (certificate != NULL) {
        (void)snprintf(key, sizeof(key), "%s/%s.key", folder, certificate);
        (void)snprintf(pem, sizeof(pem), "%s/%s.pem", folder, certificate);
        conf.key = key;
        conf.certificate = pem;
    }
    if (pd_tls_create(x->w.loop, NULL, &conf, &tls, &err) != PD_OK)
        fail_msg("%s", err.text);
    return tls;
}

static void begin(struct site *x, bool is_sim)
{
    memset(x, 0, sizeof(*x));
    world_begin(&x->w, is_sim);
    x->addr = world_addr(&x->w);
    assert_int_equal(pd_listener_open(x->w.loop, &x->addr, NULL, on_accept, x, &x->listener), PD_OK);
    assert_int_equal(pd_listener_addr(x->w.loop, x->listener, &x->addr), PD_OK);
}

static void dial(struct site *x)
{
    x->a.is_open = true;
    assert_int_equal((x->client != NULL
                      ? pd_tls_connect(x->client, &x->addr, &end_events, &x->a, &x->a.s)
                      : pd_stream_connect(x->w.loop, &x->addr, &end_events, &x->a, &x->a.s)), PD_OK);
}

static bool both_closed(void *arg)
{
    struct site *x = arg;

    return (x->a.s == NULL || x->a.is_closed) && (x->b.s == NULL || x->b.is_closed);
}

static void hang_up(struct site *x)
{
    if (x->a.is_open)
        pd_stream_close(x->a.s);
    if (x->b.is_open)
        pd_stream_close(x->b.s);
    x->a.is_open = x->b.is_open = false;
    assert_true(world_run(&x->w, both_closed, x, 8 * PD_SEC));
    pd_free(x->a.in);
    pd_free(x->b.in);
    pd_free(x->b.out);
    memset(&x->a, 0, sizeof(x->a));
    memset(&x->b, 0, sizeof(x->b));
}

static void finish(struct site *x)
{
    hang_up(x);
    pd_listener_close(x->w.loop, x->listener);
    pd_tls_destroy(x->server);
    pd_tls_destroy(x->client);
    world_end(&x->w);
}

static bool a_ended(void *arg)
{
    struct site *x = arg;

    return x->a.ended != PD_OK || (x->a.is_connected && x->a.connected != PD_OK);
}

static bool b_ended(void *arg)
{
    return ((struct site *)arg)->b.ended != PD_OK;
}

static bool connected(void *arg)
{
    struct site *x = arg;

    return x->a.is_connected && x->b.s != NULL && pd_tls_stats(x->server)->ok == 1;
}

static bool c_closed(void *arg)
{
    return ((struct end *)arg)->is_closed;
}

/* ---- what goes well ---- */

static void echo(bool is_sim)
{
    struct site x;
    static char text[3000000];

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 2654435761u >> 13);
    begin(&x, is_sim);
    x.server = context(&x, true, "server", NULL, NULL);
    x.client = context(&x, false, NULL, "ca.pem", "localhost");
    x.b.is_echo = true;
    x.b.read_most = 5000;
    x.a.out = text;
    x.a.out_n = sizeof(text);
    x.a.to_shut = true;
    dial(&x);
    pd_stream_pause_read(x.a.s);
    assert_true(world_run(&x.w, connected, &x, 5 * PD_SEC));
    (void)world_run(&x.w, NULL, NULL, 200 * PD_MS);
    assert_int_equal(x.a.in_n, 0);
    assert_false(x.a.hung_up);
    pd_stream_resume_read(x.a.s);
    assert_true(world_run(&x.w, a_ended, &x, 20 * PD_SEC));
    assert_int_equal(x.a.ended, PD_EEOF);
    assert_int_equal(x.b.ended, PD_EEOF);
    assert_int_equal(x.a.in_n, sizeof(text));
    assert_memory_equal(x.a.in, text, sizeof(text));
    size_t sent;
    assert_int_equal(pd_stream_write(x.a.s, "x", 1, &sent), PD_EPEER);
    assert_int_equal(pd_tls_stats(x.client)->ok, 1);
    assert_int_equal(pd_tls_stats(x.server)->streams, 1);
    finish(&x);
}

static void farewell(bool is_sim)
{
    struct site x;
    static char text[400000];

    begin(&x, is_sim);
    x.server = context(&x, true, "server", NULL, NULL);
    x.client = context(&x, false, NULL, "ca.pem", "127.0.0.1");
    memset(text, 'z', sizeof(text));
    x.b.out = text;
    x.b.out_n = sizeof(text);
    x.b.close_when_sent = true;
    dial(&x);
    assert_true(world_run(&x.w, a_ended, &x, 10 * PD_SEC));
    assert_int_equal(x.a.ended, PD_EEOF);
    assert_int_equal(x.a.in_n, sizeof(text));
    x.b.out = NULL;
    hang_up(&x);
    assert_int_equal(pd_tls_stats(x.server)->streams, 0);
    finish(&x);
}

/* An end without a farewell is not an end. */
static void cut(bool is_sim)
{
    struct site x;

    begin(&x, is_sim);
    x.server = context(&x, true, "server", NULL, NULL);
    x.client = context(&x, false, NULL, "ca.pem", "localhost");
    dial(&x);
    assert_true(world_run(&x.w, connected, &x, 5 * PD_SEC));
    assert_int_equal(pd_stream_set_option(x.a.s, PD_STREAM_LINGER_RESET, 1), PD_OK);
    pd_stream_close(x.a.s);
    x.a.is_open = false;
    assert_true(world_run(&x.w, b_ended, &x, 5 * PD_SEC));
    assert_int_equal(x.b.ended, PD_EPEER);
    finish(&x);
}

static void hangup(bool is_sim)
{
    struct site x;

    begin(&x, is_sim);
    x.server = context(&x, true, "server", NULL, NULL);
    x.client = context(&x, false, NULL, "ca.pem", "localhost");
    dial(&x);
    assert_true(world_run(&x.w, connected, &x, 5 * PD_SEC));
    pd_stream_pause_read(x.b.s);
    pd_stream_close(x.a.s);
    x.a.is_open = false;
    (void)world_run(&x.w, NULL, NULL, 200 * PD_MS);
    assert_true(x.b.hung_up);
    assert_int_equal(x.b.ended, PD_OK);
    pd_stream_resume_read(x.b.s);
    assert_true(world_run(&x.w, b_ended, &x, 5 * PD_SEC));
    assert_int_equal(x.b.ended, PD_EEOF);
    finish(&x);
}

/* ---- certificates ---- */

static void refused_by_client(bool is_sim, const char *certificate, const char *ca, const char *name,
                              enum pd_tls_fail why)
{
    struct site x;

    begin(&x, is_sim);
    x.server = context(&x, true, certificate, NULL, NULL);
    x.client = context(&x, false, NULL, ca, name);
    dial(&x);
    assert_true(world_run(&x.w, a_ended, &x, 5 * PD_SEC));
    assert_int_equal(x.a.connected, PD_EPERM);
    assert_int_equal(pd_tls_stats(x.client)->failed[why], 1);
    assert_true(world_run(&x.w, b_ended, &x, 5 * PD_SEC));
    assert_int_equal(x.b.ended, PD_EPERM);
    assert_int_equal(pd_tls_stats(x.server)->failed[PD_TLS_FAIL_REFUSED] +
                     pd_tls_stats(x.server)->ok, 1);
    finish(&x);
}

static void bad_servers(bool is_sim)
{
    refused_by_client(is_sim, "expired", "ca.pem", "localhost", PD_TLS_FAIL_EXPIRED);
    refused_by_client(is_sim, "stranger", "ca.pem", "localhost", PD_TLS_FAIL_AUTHORITY);
    refused_by_client(is_sim, "server", "ca.pem", "elsewhere", PD_TLS_FAIL_NAME);
    refused_by_client(is_sim, "server", "ca.pem", "127.0.0.2", PD_TLS_FAIL_NAME);
    refused_by_client(is_sim, "server", "other.pem", "localhost", PD_TLS_FAIL_AUTHORITY);
}

static void refused_by_server(bool is_sim, const char *certificate, enum pd_tls_fail why)
{
    struct site x;

    begin(&x, is_sim);
    x.server = context(&x, true, "server", "ca.pem", NULL);
    x.client = context(&x, false, certificate, "ca.pem", "localhost");
    dial(&x);
    assert_true(world_run(&x.w, b_ended, &x, 5 * PD_SEC));
    assert_int_equal(x.b.ended, PD_EPERM);
    assert_int_equal(pd_tls_stats(x.server)->failed[why], 1);
    pd_stream_close(x.b.s);
    x.b.is_open = false;
    assert_true(world_run(&x.w, a_ended, &x, 5 * PD_SEC));
    assert_int_equal(x.a.ended, PD_EPERM);
    assert_int_equal(pd_tls_stats(x.client)->failed[PD_TLS_FAIL_REFUSED], 1);
    finish(&x);
}

static void mutual(bool is_sim)
{
    struct site x;
    struct pd_uuid node;

    refused_by_server(is_sim, NULL, PD_TLS_FAIL_NO_CERTIFICATE);
    refused_by_server(is_sim, "stranger", PD_TLS_FAIL_AUTHORITY);
    refused_by_server(is_sim, "expired", PD_TLS_FAIL_EXPIRED);
    begin(&x, is_sim);
    x.server = context(&x, true, "server", "ca.pem", NULL);
    x.client = context(&x, false, "client", "ca.pem", NULL);
    dial(&x);
    assert_true(world_run(&x.w, connected, &x, 5 * PD_SEC));
    assert_false(x.a.has_node);
    assert_true(pd_tls_stream_node(x.b.s, &node));
    assert_int_equal(node.b[0], 0x0f);
    assert_int_equal(node.b[15], 0x00);
    finish(&x);
}

static void bad_files(void **state)
{
    struct site x;
    struct pd_err err = { 0 };
    struct pd_tls *tls;
    struct pd_tls_conf conf = { .is_server = true, .certificate = at("server.pem"),
                                .key = at("loose.key") };

    (void)state;
    begin(&x, true);
    shell("cp server.key loose.key && chmod 644 loose.key && echo nothing > empty.pem && "
          "cat server.pem other.key > half.pem");
    assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &tls, &err), PD_EPERM);
    conf.key = at("client.key");
    assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &tls, &err), PD_EINVAL);
    assert_non_null(strstr(err.text, "does not belong to"));
    conf.key = at("missing.key");
    assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &tls, &err), PD_ENOENT);
    conf.key = NULL;
    assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &tls, &err), PD_EINVAL);
    conf.key = at("server.key");
    conf.certificate = at("empty.pem");
    assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &tls, &err), PD_EINVAL);
    conf.certificate = at("server.pem");
    conf.ca = at("empty.pem");
    assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &tls, &err), PD_EINVAL);
    assert_non_null(strstr(err.text, "empty.pem"));
    finish(&x);
}

/* What a configuration may not say, and a passphrase that is none. */
static void bad_confs(void **state)
{
    struct site x;
    struct pd_tls *tls;
    static char longest[64];
    (void)state;
    begin(&x, true);
    shell("openssl pkey -in server.key -aes256 -passout pass:open -out locked.key 2>err; chmod 600 locked.key; "
          "umask 077; printf open >pass; printf other >wrong; : >none; printf 'a\\0b' >zero; "
          "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat server.pem; done >many.pem; cat server.pem err ca.pem >mixed.pem; "
          "printf -- '-----BEGIN CERTIFICATE-----\\nx\\n-----END CERTIFICATE-----\\n' >broken.pem; cat server.pem broken.pem >half.pem");
    memset(longest, 'a', sizeof longest - 1);
    for (int how = 0; how < 13; how++) {
        struct pd_tls_conf conf = { .is_server = true, .certificate = at("server.pem"), .key = at("server.key") };
        struct pd_err err = { 0 };
        pd_status want = PD_EINVAL;
        switch (how) {
        case 0: conf.certificate = NULL; break;
        case 1: conf.certificate = conf.key = NULL; break;
        case 2: conf.certificate = conf.key = NULL; conf.passphrase = at("pass"); break;
        case 3: conf.is_server = false; break;
        case 4: conf.alpn = ""; break;
        case 5: conf.alpn = longest; break;
        case 6: conf.key = at("locked.key"); break;
        case 7: conf.key = at("locked.key"); conf.passphrase = at("wrong"); break;
        case 8: conf.key = at("locked.key"); conf.passphrase = at("none"); break;
        case 9: conf.key = at("locked.key"); conf.passphrase = at("zero"); break;
        case 10: conf.certificate = at("half.pem"); break;
        case 11: conf.ca = at("half.pem"); break;
        default: conf.passphrase = at("missing"); want = PD_ENOENT; break;
        }
        assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &tls, &err), want);
        assert_true(err.text[0] != '\0');
    }
    for (int how = 0; how < 3; how++) {
        struct pd_tls_conf conf = { .is_server = true, .certificate = at("server.pem"), .key = at("server.key") };
        struct pd_err err = { 0 };
        if (how == 0) {
            conf.key = at("locked.key");
            conf.passphrase = at("pass");
        } else {
            conf.certificate = how == 1 ? at("many.pem") : at("mixed.pem");
        }
        assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &tls, &err), PD_OK);
        pd_tls_hold(tls);
        pd_tls_destroy(tls);
        pd_tls_look(tls);
        pd_tls_release(tls);
    }
    pd_tls_destroy(NULL);
    pd_tls_hold(NULL);
    pd_tls_release(NULL);
    pd_tls_look(NULL);
    finish(&x);
}

/* Streams before the handshake is through, and after the end; handshakes above the limit. */
static void not_open(bool is_sim)
{
    struct site x;
    struct pd_addr addr;
    char buf[8];
    struct pd_iov none[2] = { { buf, 0 }, { buf, 0 } };
    size_t n, n_fds;
    pid_t pid;
    uid_t uid;
    gid_t gid;

    begin(&x, is_sim);
    x.server = context(&x, true, "server", NULL, NULL);
    x.client = context(&x, false, NULL, "ca.pem", "localhost");
    dial(&x);
    assert_int_equal(pd_stream_read(x.a.s, buf, 1, &n), PD_EAGAIN);
    assert_int_equal(pd_stream_write(x.a.s, buf, 1, &n), PD_EAGAIN);
    assert_int_equal(pd_stream_shutdown_write(x.a.s), PD_EPEER);
    assert_true(world_run(&x.w, connected, &x, 5 * PD_SEC));
    assert_int_equal(pd_stream_readv(x.a.s, none, 2, &n), PD_EINVAL);
    assert_int_equal(pd_stream_writev(x.a.s, none, 2, &n), PD_OK);
    assert_int_equal(pd_stream_local_addr(x.a.s, &addr), PD_OK);
    assert_int_equal(pd_stream_peer_addr(x.a.s, &addr), PD_OK);
    assert_int_equal(pd_stream_peer_cred(x.a.s, &pid, &uid, &gid), PD_ENOSYS);
    assert_int_equal(pd_stream_send_fds(x.a.s, none, 1, (int[]){ 0 }, 1, &n), PD_ENOSYS);
    assert_int_equal(pd_stream_recv_fds(x.a.s, none, 1, &n, (int[]){ 0 }, 1, &n_fds), PD_ENOSYS);
    assert_int_equal(pd_stream_set_option(x.a.s, PD_STREAM_NODELAY, 1), PD_OK);
    pd_stream_set_events(x.a.s, NULL, NULL);
    pd_stream_set_events(x.a.s, &end_events, &x.a);
    pd_stream_resume_read(x.a.s);
    assert_false(pd_tls_stream_node(NULL, &(struct pd_uuid){ { 0 } }));
    assert_int_equal(pd_stream_shutdown_write(x.a.s), PD_OK);
    assert_int_equal(pd_stream_shutdown_write(x.a.s), PD_OK);
    assert_int_equal(pd_stream_set_option(x.a.s, PD_STREAM_LINGER_RESET, 1), PD_OK);
    pd_stream_close(x.a.s);
    pd_stream_close(x.a.s);
    x.a.is_open = false;
    assert_int_equal(pd_stream_read(x.a.s, buf, 1, &n), PD_EPEER);
    assert_int_equal(pd_stream_write(x.a.s, buf, 1, &n), PD_EPEER);
    assert_int_equal(pd_stream_set_option(x.a.s, PD_STREAM_NODELAY, 1), PD_EPEER);
    assert_int_equal(pd_stream_local_addr(x.a.s, &addr), PD_EPEER);
    assert_int_equal(pd_stream_peer_addr(x.a.s, &addr), PD_EPEER);
    assert_int_equal(pd_stream_peer_cred(x.a.s, &pid, &uid, &gid), PD_EPEER);
    assert_int_equal(pd_stream_fd(x.a.s), -1);
    finish(&x);
}

static void handshakes(bool is_sim)
{
    struct pd_tls_conf conf = { .is_server = true, .certificate = at("server.pem"), .key = at("server.key"),
                                .handshake_ns = 500 * PD_MS, .max_handshakes = 1 };
    struct site x;
    struct end more[3];
    struct pd_err err = { 0 };

    memset(more, 0, sizeof more);
    begin(&x, is_sim);
    assert_int_equal(pd_tls_create(x.w.loop, NULL, &conf, &x.server, &err), PD_OK);
    x.b.close_at_end = true;
    /* They say nothing, so the first is not through when the others come. */
    for (int i = 0; i < 3; i++) {
        more[i].close_at_end = true;
        assert_int_equal(pd_stream_connect(x.w.loop, &x.addr, &end_events, &more[i], &more[i].s), PD_OK);
    }
    for (int i = 0; i < 3; i++)
        assert_true(world_run(&x.w, c_closed, &more[i], 5 * PD_SEC));
    assert_int_equal(pd_tls_stats(x.server)->failed[PD_TLS_FAIL_LIMIT], 2);
    assert_int_equal(pd_tls_stats(x.server)->handshaking, 0);
    finish(&x);
}

static void changed_files(bool is_sim)
{
    struct site x;

    begin(&x, is_sim);
    shell("cp server.pem live.pem && cp server.key live.key");
    x.server = context(&x, true, "live", NULL, NULL);
    x.client = context(&x, false, NULL, "ca.pem", "localhost");
    dial(&x);
    assert_true(world_run(&x.w, connected, &x, 5 * PD_SEC));
    /* Half of a change: the old ones stay. */
    shell("cp stranger.pem live.pem");
    (void)world_run(&x.w, NULL, NULL, 3100 * PD_MS);
    hang_up(&x);
    dial(&x);
    assert_true(world_run(&x.w, a_ended, &x, 300 * PD_MS) || x.a.connected == PD_OK);
    assert_int_equal(pd_tls_stats(x.server)->reload_failures, 1);
    assert_int_equal(pd_tls_stats(x.client)->ok, 2);
    shell("cp stranger.key live.key");
    (void)world_run(&x.w, NULL, NULL, 3100 * PD_MS);
    hang_up(&x);
    dial(&x);
    assert_true(world_run(&x.w, a_ended, &x, 5 * PD_SEC));
    assert_int_equal(x.a.connected, PD_EPERM);
    assert_int_equal(pd_tls_stats(x.server)->reloads, 1);
    finish(&x);
}

static bool b_has_all(void *arg)
{
    return ((struct site *)arg)->b.in_n == 6;
}

/* What is open goes on with the certificates that it began with. */
static void open_while_changed(bool is_sim)
{
    struct site x;
    struct end c;
    size_t sent;

    memset(&c, 0, sizeof(c));
    begin(&x, is_sim);
    shell("cp server.pem live.pem && cp server.key live.key");
    x.server = context(&x, true, "live", NULL, NULL);
    x.client = context(&x, false, NULL, "ca.pem", "localhost");
    dial(&x);
    assert_true(world_run(&x.w, connected, &x, 5 * PD_SEC));
    shell("cp stranger.pem live.pem && cp stranger.key live.key");
    (void)world_run(&x.w, NULL, NULL, 3100 * PD_MS);
    c.close_at_end = true;
    assert_int_equal(pd_stream_connect(x.w.loop, &x.addr, &end_events, &c, &c.s), PD_OK);
    assert_true(world_run(&x.w, c_closed, &c, 5 * PD_SEC));
    assert_int_equal(pd_tls_stats(x.server)->reloads, 1);
    assert_int_equal(pd_stream_write(x.a.s, "onward", 6, &sent), PD_OK);
    assert_true(world_run(&x.w, b_has_all, &x, 5 * PD_SEC));
    finish(&x);
}

/* ---- rubbish ---- */

static void rubbish(bool is_sim)
{
    static const char get[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    static const char half[] = "\x16\x03\x01\x02\x00\x01\x00\x01";
    static const char odd[] = "\x16\x03\x01\x00\x05\x05\x00\x00\x01\x00";
    const struct {
        const char *p;
        size_t n;
        bool shut;
        enum pd_tls_fail why;
    } all[] = {
        { get, sizeof(get) - 1, false, PD_TLS_FAIL_NOT_TLS },
        { half, sizeof(half) - 1, true, PD_TLS_FAIL_CLOSED },
        { half, sizeof(half) - 1, false, PD_TLS_FAIL_TIMEOUT },
        { odd, sizeof(odd) - 1, false, PD_TLS_FAIL_PROTOCOL },
        { "", 0, true, PD_TLS_FAIL_CLOSED },
        { "", 0, false, PD_TLS_FAIL_TIMEOUT },
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct site x;
        begin(&x, is_sim);
        x.server = context(&x, true, "server", NULL, NULL);
        x.a.out = (char *)(uintptr_t)all[i].p;
        x.a.out_n = all[i].n;
        x.a.to_shut = all[i].shut;
        dial(&x);
        assert_true(world_run(&x.w, b_ended, &x, 3 * PD_SEC));
        assert_int_equal(pd_tls_stats(x.server)->failed[all[i].why], 1);
        assert_int_equal(pd_tls_stats(x.server)->handshaking, 0);
        finish(&x);
    }
}

/* ---- bytes turned over on the way ---- */

static void relay(struct site *x, struct pd_stream *from, struct pd_stream *to, struct end *pipe,
                  bool count)
{
    char buf[4096];
    size_t got;
    pd_status st = pd_stream_read(from, buf, sizeof(buf), &got);

    if (st == PD_EAGAIN)
        return;
    if (st != PD_OK) {
        pd_stream_close(x->left);
        pd_stream_close(x->right);
        return;
    }
    if (count && x->flip >= x->passed && x->flip < x->passed + got) {
        buf[x->flip - x->passed] ^= 0x04;
        x->relayed = true;
    }
    if (count)
        x->passed += got;
    pipe->s = to;
    end_append(&pipe->out, &pipe->out_n, &pipe->out_cap, buf, got);
    end_send(pipe);
}

static void left_readable(struct pd_stream *s, void *arg)
{
    struct site *x = arg;
    relay(x, s, x->right, &x->to_right, true);
}

static void right_readable(struct pd_stream *s, void *arg)
{
    struct site *x = arg;
    relay(x, s, x->left, &x->to_left, false);
}

static void left_writable(struct pd_stream *s, void *arg)
{
    (void)s;
    end_send(&((struct site *)arg)->to_left);
}

static void right_writable(struct pd_stream *s, void *arg)
{
    (void)s;
    end_send(&((struct site *)arg)->to_right);
}

static void right_connected(struct pd_stream *s, pd_status status, void *arg)
{
    (void)s;
    assert_int_equal(status, PD_OK);
    pd_stream_resume_read(((struct site *)arg)->left);
}

static void left_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct site *)arg)->left_closed = true;
}

static void right_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct site *)arg)->right_closed = true;
}

static const struct pd_stream_events left_events = { .name = "left", .on_readable = left_readable,
                                                     .on_writable = left_writable,
                                                     .on_closed = left_closed };
static const struct pd_stream_events right_events = { .name = "right", .on_connected = right_connected,
                                                      .on_readable = right_readable,
                                                      .on_writable = right_writable,
                                                      .on_closed = right_closed };

static void front_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct site *x = arg;

    (void)l;
    x->left = s;
    pd_stream_set_events(s, &left_events, x);
    pd_stream_pause_read(s);
    assert_int_equal(pd_stream_connect(x->w.loop, &x->addr, &right_events, x, &x->right), PD_OK);
}

static bool relay_closed(void *arg)
{
    struct site *x = arg;

    return x->left_closed && x->right_closed && both_closed(x);
}

static void flips(void **state)
{
    static char text[2000];
    size_t flipped = 0;

    (void)state;
    memset(text, 'q', sizeof(text));
    for (size_t flip = 0; flip < 2600; flip += flip < 400 ? 7 : 61) {
        struct site x;
        struct pd_addr back;
        begin(&x, true);
        x.flip = flip;
        x.server = context(&x, true, "server", NULL, NULL);
        x.client = context(&x, false, NULL, "ca.pem", "localhost");
        struct pd_addr front = world_addr(&x.w);
        assert_int_equal(pd_listener_open(x.w.loop, &front, NULL, front_accept, &x, &x.front), PD_OK);
        assert_int_equal(pd_listener_addr(x.w.loop, x.front, &front), PD_OK);
        x.a.out = text;
        x.a.out_n = sizeof(text);
        x.a.to_shut = true;
        x.a.close_at_end = x.b.close_at_end = true;
        x.b.is_echo = true;
        back = x.addr;
        x.addr = front;
        dial(&x);
        x.addr = back;
        if (!world_run(&x.w, relay_closed, &x, 2 * PD_SEC)) {
            if (x.left != NULL) {
                pd_stream_close(x.left);
                pd_stream_close(x.right);
            }
        }
        /* Only ever a prefix of what was sent. */
        assert_true(x.b.in_n <= sizeof(text));
        assert_memory_equal(x.b.in_n > 0 ? x.b.in : "", text, x.b.in_n);
        /* The headers of the first records are not protected: few go unnoticed. */
        if (x.relayed && (x.b.ended != PD_EEOF || x.b.in_n < sizeof(text)))
            flipped++;
        pd_listener_close(x.w.loop, x.front);
        pd_free(x.to_left.out);
        pd_free(x.to_right.out);
        finish(&x);
    }
    if (flipped <= 60)
        fail_msg("only %zu changes were noticed", flipped);
}

#define BOTH(name)                                       \
    static void name##_uv(void **state)                  \
    {                                                    \
        (void)state;                                     \
        name(false);                                     \
    }                                                    \
    static void name##_sim(void **state)                 \
    {                                                    \
        (void)state;                                     \
        name(true);                                      \
    }

BOTH(echo)
BOTH(farewell)
BOTH(cut)
BOTH(hangup)
BOTH(bad_servers)
BOTH(mutual)
BOTH(changed_files)
BOTH(open_while_changed)
BOTH(rubbish)
BOTH(not_open)
BOTH(handshakes)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(echo_uv), cmocka_unit_test(echo_sim),
    cmocka_unit_test(farewell_uv), cmocka_unit_test(farewell_sim),
    cmocka_unit_test(cut_uv), cmocka_unit_test(cut_sim),
    cmocka_unit_test(hangup_uv), cmocka_unit_test(hangup_sim),
    cmocka_unit_test(bad_servers_uv), cmocka_unit_test(bad_servers_sim),
    cmocka_unit_test(mutual_uv), cmocka_unit_test(mutual_sim),
    cmocka_unit_test(bad_files),
    cmocka_unit_test(changed_files_uv), cmocka_unit_test(changed_files_sim),
    cmocka_unit_test(open_while_changed_uv), cmocka_unit_test(open_while_changed_sim),
    cmocka_unit_test(rubbish_uv), cmocka_unit_test(rubbish_sim),
    cmocka_unit_test(bad_confs), cmocka_unit_test(not_open_uv), cmocka_unit_test(not_open_sim),
    cmocka_unit_test(handshakes_uv), cmocka_unit_test(handshakes_sim),
    cmocka_unit_test(flips),
};

int main(void)
{
    const char *pattern = getenv("PD_TEST");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
