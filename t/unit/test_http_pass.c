/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks that go through a relay as they came: which ones do, that the bytes are the same
 * whatever way they take, and what becomes of a client that does not read. */
#include "net_world.h"

#include "base/str.h"
#include "net/client.h"
#include "net/server.h"

#include <stdio.h>

struct rig {
    struct world w;
    struct pd_http_server *server;
    struct pd_http_client *client;
    struct pd_listener *listener;
    struct pd_addr addr, peer_addr;
    struct pd_stream *user, *peer;  /* the two ends of the relay */
    size_t peer_bytes;              /* that came to it */
    struct pd_http_req *req;
    struct pd_http_call *call;
    uint64_t body_limit;
    bool refuses;                   /* on_chunks does nothing */
    size_t chunks, passed, bodies, reads, n_closed, body_bytes, stalled_passes;
    pd_status gone, failed;
    char got[1 << 20];              /* what the user read, and no test has looked at yet */
    size_t got_n;
};

/* ---- the relay */

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct rig *r = arg;

    (void)call;
    pd_http_own_flush(r->req);
    assert_int_equal(pd_http_begin_with(r->req, head, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
    pd_http_flush(r->req);
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct rig *r = arg;

    (void)call;
    r->bodies++;
    r->body_bytes += piece.n;
    if (r->req != NULL)
        (void)pd_http_write_str(r->req, piece);
}

static void on_read(struct pd_http_call *call, void *arg)
{
    struct rig *r = arg;

    (void)call;
    r->reads++;
    if (r->req != NULL)
        pd_http_flush(r->req);
}

static bool on_chunks(struct pd_http_call *call, const struct pd_str *bodies, size_t n, struct pd_str chunks,
                      void *arg)
{
    struct rig *r = arg;
    const char *at = chunks.p;

    (void)call;
    r->chunks++;
    for (size_t i = 0; i < n; i++) {
        char frame[16];
        int len = snprintf(frame, sizeof frame, "%zx\r\n", bodies[i].n);
        assert_memory_equal(at, frame, (size_t)len);
        assert_ptr_equal(bodies[i].p, at + len);
        at = bodies[i].p + bodies[i].n + 2;
        assert_memory_equal(at - 2, "\r\n", 2);
    }
    assert_ptr_equal(at, chunks.p + chunks.n);
    if (r->refuses || r->req == NULL || !pd_http_pass(r->req, chunks))
        return false;
    r->passed += n;
    for (size_t i = 0; i < n; i++)
        r->body_bytes += bodies[i].n;
    if (r->req != NULL && pd_http_queued(r->req) > 0)
        r->stalled_passes++;
    return true;
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct rig *r = arg;

    (void)call;
    r->call = NULL;
    if (r->req != NULL)
        pd_http_end(r->req);
    r->req = NULL;
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct rig *r = arg;

    (void)call;
    (void)fail;
    r->call = NULL;
    r->failed = why;
    if (r->req != NULL)
        pd_http_abort(r->req);
    r->req = NULL;
}

static const struct pd_http_call_events call_events = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_error = on_error, .on_read = on_read,
    .on_chunks = on_chunks,
};

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    struct rig *r = arg;

    (void)req;
    r->gone = why;
    r->req = NULL;
}

static const struct pd_http_req_events req_events = { .on_gone = on_gone };

static void on_request(struct pd_http_req *req, void *arg)
{
    struct rig *r = arg;
    struct pd_http_call_opts opts = {
        .size = sizeof opts, .addr = r->peer_addr, .host = PD_STR("peer"), .method = PD_HTTP_GET,
        .target = PD_STR("/"), .body_limit = r->body_limit,
    };

    r->req = req;
    pd_http_req_set_events(req, &req_events, r);
    assert_int_equal(pd_http_call_start(r->client, &opts, &call_events, r, &r->call), PD_OK);
}

/* ---- its two ends */

static void peer_readable(struct pd_stream *s, void *arg)
{
    struct rig *r = arg;
    char buf[4096];
    size_t got;

    if (pd_stream_read(s, buf, sizeof buf, &got) == PD_OK) {
        r->peer_bytes += got;
    } else {
        r->peer = NULL;
        pd_stream_close(s);
    }
}

static void user_readable(struct pd_stream *s, void *arg)
{
    struct rig *r = arg;
    size_t got;

    assert_true(r->got_n < sizeof r->got);
    if (pd_stream_read(s, r->got + r->got_n, sizeof r->got - r->got_n, &got) == PD_OK) {
        r->got_n += got;
    } else {
        r->user = NULL;
        pd_stream_close(s);
    }
}

static void end_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct rig *)arg)->n_closed++;
}

static const struct pd_stream_events peer_events = {
    .name = "peer", .on_readable = peer_readable, .on_closed = end_closed,
};
static const struct pd_stream_events user_events = {
    .name = "user", .on_readable = user_readable, .on_closed = end_closed,
};

static void on_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct rig *r = arg;

    (void)l;
    assert_null(r->peer);
    r->peer = s;
    pd_stream_set_events(s, &peer_events, r);
}

static bool peer_was_asked(void *arg)
{
    return ((struct rig *)arg)->peer_bytes > 0;
}

static void put(struct rig *r, struct pd_stream *s, const char *text, size_t n)
{
    while (n > 0) {
        size_t sent = 0;
        pd_status st = pd_stream_write(s, text, n, &sent);
        assert_true(st == PD_OK || st == PD_EAGAIN);
        text += sent;
        n -= sent;
        if (n > 0)
            (void)world_run(&r->w, NULL, NULL, PD_MS);
    }
}

/* A request through the relay up to the head of its answer. */
static struct rig *rig_begin(bool is_sim, uint64_t max_queued, uint64_t body_limit, const char *version)
{
    struct pd_sim_opts sim = { .whole_io = 1 };
    struct pd_http_server_opts opts = { .size = sizeof opts, .max_queued = max_queued };
    struct pd_http_route route = { .path = "/", .on_request = on_request, .methods = 1u << PD_HTTP_GET };
    struct rig *r = calloc(1, sizeof *r);
    char request[64];

    assert_non_null(r);
    r->body_limit = body_limit;
    if (is_sim) {
        assert_int_equal(pd_sim_create(3, &sim, &r->w.sim), PD_OK);
        assert_int_equal(pd_sim_loop_create(r->w.sim, "host", NULL, &r->w.loop), PD_OK);
    } else {
        world_begin(&r->w, false);
    }
    assert_int_equal(pd_http_client_create(r->w.loop, NULL, &r->client), PD_OK);
    assert_int_equal(pd_http_server_create(r->w.loop, &opts, &r->server), PD_OK);
    r->addr = r->peer_addr = world_addr(&r->w);
    assert_int_equal(pd_http_server_listen(r->server, &r->addr, NULL), PD_OK);
    assert_int_equal(pd_http_server_addr(r->server, 0, &r->addr), PD_OK);
    assert_int_equal(pd_listener_open(r->w.loop, &r->peer_addr, NULL, on_accept, r, &r->listener), PD_OK);
    assert_int_equal(pd_listener_addr(r->w.loop, r->listener, &r->peer_addr), PD_OK);
    route.arg = r;
    assert_int_equal(pd_http_server_route(r->server, &route), PD_OK);
    assert_int_equal(pd_stream_connect(r->w.loop, &r->addr, &user_events, r, &r->user), PD_OK);
    snprintf(request, sizeof request, "GET / HTTP/%s\r\nhost: x\r\n\r\n", version);
    (void)world_run(&r->w, NULL, NULL, 5 * PD_MS);
    put(r, r->user, request, strlen(request));
    assert_true(world_run(&r->w, peer_was_asked, r, 20 * PD_SEC));
    put(r, r->peer, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 47);
    return r;
}

static bool has_head(void *arg)
{
    struct rig *r = arg;

    r->got[r->got_n] = '\0';
    return strstr(r->got, "\r\n\r\n") != NULL;
}

/* From here on got has the body only. */
static void skip_head(struct rig *r)
{
    assert_true(world_run(&r->w, has_head, r, 20 * PD_SEC));
    assert_memory_equal(r->got + r->got_n - 4, "\r\n\r\n", 4);
    r->got_n = 0;
}

static bool all_closed(void *arg)
{
    return ((struct rig *)arg)->n_closed == 2;
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

static bool is_true(void *arg)
{
    return *(bool *)arg;
}

static void rig_end(struct rig *r)
{
    bool client = false, server = false;

    if (r->user != NULL)
        pd_stream_close(r->user);
    pd_http_client_close(r->client, set_true, &client);
    assert_true(world_run(&r->w, is_true, &client, 20 * PD_SEC));
    pd_http_server_close(r->server, set_true, &server);
    assert_true(world_run(&r->w, is_true, &server, 20 * PD_SEC));
    pd_listener_close(r->w.loop, r->listener);
    assert_true(world_run(&r->w, all_closed, r, 20 * PD_SEC));
    world_end(&r->w);
    free(r);
}

struct want {
    struct rig *r;
    size_t bytes;
};

static bool has_bytes(void *arg)
{
    struct want *w = arg;

    return w->r->body_bytes >= w->bytes;
}

static bool has_got(void *arg)
{
    struct want *w = arg;

    return w->r->got_n >= w->bytes;
}

/* Sends what brings n bytes of body, and waits until the relay has read it. */
static void send_piece(struct rig *r, const char *text, size_t n_text, size_t n)
{
    struct want w = { r, r->body_bytes + n };

    put(r, r->peer, text, n_text);
    assert_true(world_run(&r->w, has_bytes, &w, 20 * PD_SEC));
}

/* What the user got meanwhile. */
static void expect(struct rig *r, const char *text, size_t n)
{
    struct want w = { r, n };

    assert_true(world_run(&r->w, has_got, &w, 20 * PD_SEC));
    assert_int_equal(r->got_n, n);
    assert_memory_equal(r->got, text, n);
    r->got_n = 0;
}

static void one(struct rig *r, const char *text, size_t n, const char *to_user, size_t passed, size_t bodies)
{
    size_t chunks_before = r->passed, bodies_before = r->bodies;

    send_piece(r, text, strlen(text), n);
    expect(r, to_user, strlen(to_user));
    assert_int_equal(r->passed - chunks_before, passed);
    assert_int_equal(r->bodies - bodies_before, bodies);
}

/* ---- cases */

static void which_ones(bool is_sim)
{
    static const size_t sizes[] = { 1, 5, 6, 15, 16, 17, 255, 256, 257, 4095, 4096, 4097 };
    struct rig *r = rig_begin(is_sim, 0, 0, "1.1");
    static char text[5000], data[5000];

    skip_head(r);
    memset(data, 'x', sizeof data - 1);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        snprintf(text, sizeof text, "%zx\r\n%.*s\r\n", sizes[i], (int)sizes[i], data);
        one(r, text, sizes[i], text, 1, 0);
    }
    /* Frames that are not written as we do it come in our own. */
    one(r, "A\r\n0123456789\r\n", 10, "a\r\n0123456789\r\n", 0, 1);
    one(r, "05\r\nhello\r\n", 5, "5\r\nhello\r\n", 0, 1);
    one(r, "0f\r\n0123456789abcde\r\n", 15, "f\r\n0123456789abcde\r\n", 0, 1);
    one(r, "5;x=1\r\nhello\r\n", 5, "5\r\nhello\r\n", 0, 1);
    /* The one behind an extension is still counted byte by byte. */
    one(r, "5\r\nhello\r\n", 5, "5\r\nhello\r\n", 0, 1);
    one(r, "5\r\nhello\r\n11\r\n0123456789abcdefg\r\n", 22, "5\r\nhello\r\n11\r\n0123456789abcdefg\r\n", 2, 0);
    one(r, "5\r\nhello\r\nA\r\n0123456789\r\n", 15, "5\r\nhello\r\na\r\n0123456789\r\n", 0, 2);
    one(r, "5\r\nhello\r\n05\r\nworld\r\n", 10, "5\r\nhello\r\n5\r\nworld\r\n", 0, 2);
    one(r, "5\r\nhello\r\n5;x\r\nworld\r\n", 10, "5\r\nhello\r\n5\r\nworld\r\n", 0, 2);
    one(r, "5\r\nhello\r\n", 5, "5\r\nhello\r\n", 0, 1);
    /* As many as are looked at together, and one more. */
    for (size_t n = 16; n <= 17; n++) {
        size_t at = 0;
        for (size_t i = 0; i < n; i++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%zx\r\n%.*s\r\n", 9 + i, (int)(9 + i), data);
        one(r, text, n * 9 + n * (n - 1) / 2, text, n == 16 ? n : 0, n == 16 ? 0 : n);
    }
    one(r, "5\r\nhel", 3, "3\r\nhel\r\n", 0, 1);
    one(r, "lo\r\n", 2, "2\r\nlo\r\n", 0, 1);
    one(r, "5\r\nhello\r\n", 5, "5\r\nhello\r\n", 1, 0);
    one(r, "5\r\nhello\r\n6", 5, "5\r\nhello\r\n", 0, 1);
    one(r, "\r\nhello.\r\n", 6, "6\r\nhello.\r\n", 0, 1);
    /* An extension longer than its data excuses is remembered for a while. */
    one(r, "1;0123456789012345678901234567890123456789\r\nx\r\n", 1, "1\r\nx\r\n", 0, 1);
    one(r, "1\r\nx\r\n", 1, "1\r\nx\r\n", 0, 1);
    one(r, "32\r\n01234567890123456789012345678901234567890123456789\r\n", 50,
        "32\r\n01234567890123456789012345678901234567890123456789\r\n", 0, 1);
    one(r, "1\r\nx\r\n", 1, "1\r\nx\r\n", 1, 0);
    /* Who does not want it gets it the other way. */
    r->refuses = true;
    r->reads = 0;
    one(r, "5\r\nhello\r\n", 5, "5\r\nhello\r\n", 0, 1);
    assert_int_equal(r->reads, 1);
    one(r, "5\r\nhello\r\n5\r\nworld\r\n", 10, "5\r\nhello\r\n5\r\nworld\r\n", 0, 2);
    assert_int_equal(r->reads, 2);
    put(r, r->peer, "0\r\n\r\n", 5);
    expect(r, "0\r\n\r\n", 5);
    rig_end(r);
}

static void other_framing(bool is_sim)
{
    struct rig *r = rig_begin(is_sim, 0, 0, "1.0");

    skip_head(r);
    one(r, "5\r\nhello\r\n", 5, "hello", 0, 1);
    assert_int_equal(r->chunks, 1);
    rig_end(r);
}

static bool has_failed(void *arg)
{
    return ((struct rig *)arg)->failed != PD_OK;
}

static void refused(bool is_sim, const char *text, uint64_t limit, pd_status why)
{
    struct rig *r = rig_begin(is_sim, 0, limit, "1.1");

    skip_head(r);
    one(r, "8\r\nfits in.\r\n", 8, "8\r\nfits in.\r\n", 1, 0);
    put(r, r->peer, text, strlen(text));
    assert_true(world_run(&r->w, has_failed, r, 20 * PD_SEC));
    assert_int_equal(r->failed, why);
    assert_int_equal(r->chunks, 1);
    rig_end(r);
}

static void limits(bool is_sim)
{
    refused(is_sim, "1\r\nx\r\n", 8, PD_ELIMIT);
    refused(is_sim, "4\r\nhell\r\n8\r\no, world\r\n", 16, PD_ELIMIT);
    refused(is_sim, "5\r\nhelloxx", 0, PD_EPROTO);
    refused(is_sim, "5\r\rhello\r\n", 0, PD_EPROTO);
    refused(is_sim, "4\r\nhello\r\n", 0, PD_EPROTO);
    refused(is_sim, "g\r\nhello\r\n", 0, PD_EPROTO);
}

/* The i-th piece of a long answer. */
static size_t numbered(char *out, size_t size, size_t i)
{
    return (size_t)snprintf(out, size, "%x\r\n%08zu%0*d\r\n", 4000, i, 4000 - 8, 0);
}

static bool is_queued(struct rig *r)
{
    return r->req != NULL && pd_http_queued(r->req) > 0;
}

static void slow_client(bool is_sim)
{
    struct rig *r = rig_begin(is_sim, 0, 0, "1.1");
    char piece[4100];
    size_t n = 0, len = 0, more = 20, read_n = 0;

    skip_head(r);
    pd_stream_pause_read(r->user);
    /* Until the socket is full, then some more. */
    while (!is_queued(r) || more-- > 0) {
        len = numbered(piece, sizeof piece, n++);
        send_piece(r, piece, len, 4000);
        assert_true(n < 20000);
    }
    assert_true(r->bodies >= 20);
    if (is_sim)
        assert_int_equal(r->stalled_passes, 1);
    pd_stream_resume_read(r->user);
    for (size_t i = 0; i < n; i++) {
        struct want w = { r, len };
        (void)numbered(piece, sizeof piece, i);
        while (r->got_n - read_n < len) {
            /* What was looked at makes room. */
            memmove(r->got, r->got + read_n, r->got_n - read_n);
            r->got_n -= read_n;
            read_n = 0;
            assert_true(world_run(&r->w, has_got, &w, 20 * PD_SEC));
        }
        assert_memory_equal(r->got + read_n, piece, len);
        read_n += len;
    }
    assert_int_equal(r->got_n, read_n);
    r->got_n = 0;
    assert_false(is_queued(r));
    /* It goes straight again. */
    one(r, "5\r\nhello\r\n", 5, "5\r\nhello\r\n", 1, 0);
    rig_end(r);
}

static bool is_gone(void *arg)
{
    return ((struct rig *)arg)->gone != PD_OK;
}

/* What is left of a chunk counts for the limit of what may be queued. */
static void queue_limit(bool is_sim)
{
    struct rig *r = rig_begin(is_sim, 1, 0, "1.1");
    char piece[4100];
    size_t n = 0;

    skip_head(r);
    pd_stream_pause_read(r->user);
    while (r->gone == PD_OK && n < 20000) {
        size_t len = numbered(piece, sizeof piece, n++);
        send_piece(r, piece, len, 4000);
        (void)world_run(&r->w, is_gone, r, is_sim ? PD_MS : 0);
    }
    assert_int_equal(r->gone, PD_ELIMIT);
    if (is_sim)
        assert_int_equal(r->passed, n);
    assert_int_equal(pd_http_server_stats(r->server)->queue_overflows, 1);
    rig_end(r);
}

/* The client leaves, and then a chunk comes. */
static void client_leaves(bool is_sim)
{
    struct rig *r = rig_begin(is_sim, 0, 0, "1.1");

    skip_head(r);
    one(r, "5\r\nhello\r\n", 5, "5\r\nhello\r\n", 1, 0);
    pd_stream_set_option(r->user, PD_STREAM_LINGER_RESET, 1);
    pd_stream_close(r->user);
    r->user = NULL;
    put(r, r->peer, "5\r\nhello\r\n", 10);
    assert_true(world_run(&r->w, is_gone, r, 20 * PD_SEC));
    assert_int_equal(r->gone, PD_EPEER);
    rig_end(r);
}

#define BOTH(name)                                                             \
    static void name##_uv(void **state)                                        \
    {                                                                          \
        (void)state;                                                           \
        name(false);                                                           \
    }                                                                          \
    static void name##_sim(void **state)                                       \
    {                                                                          \
        (void)state;                                                           \
        name(true);                                                            \
    }
#define ROWS(name) cmocka_unit_test(name##_uv), cmocka_unit_test(name##_sim)

BOTH(which_ones)
BOTH(other_framing)
BOTH(limits)
BOTH(slow_client)
BOTH(queue_limit)
BOTH(client_leaves)

static const struct CMUnitTest tests[] = {
    ROWS(which_ones), ROWS(other_framing), ROWS(limits), ROWS(slow_client), ROWS(queue_limit),
    ROWS(client_leaves),
};

PD_UNIT_MAIN(tests)
