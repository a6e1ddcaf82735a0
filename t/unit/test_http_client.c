/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP client: against our server for what should work, against a scripted
 * peer for what peers do wrong; on the real loop and in the simulator. */
#include "net_world.h"

#include "base/mem.h"
#include "base/str.h"
#include "net/client.h"
#include "net/server.h"

/* One call and what became of it. */
struct outcome {
    struct pd_http_call *call;
    uint32_t status;
    char body[65536];
    size_t body_n;
    uint64_t total;
    size_t pieces;
    bool has_head, is_ended, is_failed, is_reused;
    bool pause, cancel_at_head, cancel_at_body, again;
    enum pd_http_fail fail;
    pd_status why;
    struct bench *bench;
};

/* A peer that answers each connection with the next script. */
struct script {
    const char *answers[8];     /* by request on the connection; NULL: none */
    size_t n_answers;
    bool close_after;           /* closes after the last one */
    bool reset;
    struct pd_stream *streams[8];
    size_t served[8];
    const char *rest[8];        /* of an answer that is not sent yet */
    bool ends[8];
    size_t n_streams, n_open;
    size_t n_requests;
    char in[65536];
    size_t n;
};

struct bench {
    struct world w;
    struct pd_http_client *client;
    struct pd_http_server *server;
    struct pd_listener *listener;
    struct pd_addr addr;        /* of the server */
    struct pd_addr script_addr;
    struct script script;
    bool is_closed;
    uint64_t to_write;
    struct pd_http_req *held;
    size_t gone;
};

/* ---- the scripted peer ---- */

static size_t index_of(struct script *s, struct pd_stream *stream)
{
    for (size_t i = 0; i < s->n_streams; i++)
        if (s->streams[i] == stream)
            return i;
    fail_msg("%s", "unknown stream");
    return 0;
}

static void script_push(struct script *s, size_t i)
{
    while (s->rest[i] != NULL && *s->rest[i] != '\0') {
        size_t sent;
        if (pd_stream_write(s->streams[i], s->rest[i], strlen(s->rest[i]), &sent) != PD_OK)
            return;
        s->rest[i] += sent;
    }
    if (s->ends[i]) {
        if (s->reset)
            (void)pd_stream_set_option(s->streams[i], PD_STREAM_LINGER_RESET, 1);
        pd_stream_close(s->streams[i]);
    }
}

static void script_answer(struct script *s, size_t i)
{
    size_t k = s->served[i]++;

    s->n_requests++;
    s->rest[i] = k < s->n_answers ? s->answers[k] : NULL;
    s->ends[i] = k + 1 >= s->n_answers && s->close_after;
    script_push(s, i);
}

static void script_writable(struct pd_stream *stream, void *arg)
{
    script_push(arg, index_of(arg, stream));
}

static void script_readable(struct pd_stream *stream, void *arg)
{
    struct script *s = arg;
    size_t got;
    pd_status status = pd_stream_read(stream, s->in + s->n, sizeof(s->in) - 1 - s->n, &got);

    if (status == PD_EAGAIN)
        return;
    if (status != PD_OK) {
        pd_stream_close(stream);
        return;
    }
    s->n += got;
    s->in[s->n] = '\0';
    /* The tests' requests end with an empty line or "END". */
    if (s->n >= 4 && (s->in[0] == 'P' ? memcmp(s->in + s->n - 3, "END", 3) == 0
                                      : memcmp(s->in + s->n - 4, "\r\n\r\n", 4) == 0)) {
        s->n = 0;
        script_answer(s, index_of(s, stream));
    }
}

static void script_closed(struct pd_stream *stream, void *arg)
{
    struct script *s = arg;

    /* A later stream may have the same address. */
    for (size_t i = 0; i < s->n_streams; i++)
        if (s->streams[i] == stream)
            s->streams[i] = NULL;
    s->n_open--;
}

static const struct pd_stream_events script_events = {
    .name = "script", .on_readable = script_readable, .on_writable = script_writable,
    .on_closed = script_closed,
};

static void script_accept(struct pd_listener *l, struct pd_stream *stream, void *arg)
{
    struct script *s = arg;

    (void)l;
    assert_true(s->n_streams < 8);
    s->streams[s->n_streams++] = stream;
    s->n_open++;
    pd_stream_set_events(stream, &script_events, s);
}

static void set_script(struct bench *b, bool close_after, const char *a, const char *second)
{
    struct script *s = &b->script;

    s->answers[0] = a;
    s->answers[1] = second;
    s->n_answers = second != NULL ? 2 : 1;
    s->close_after = close_after;
    s->reset = false;
    s->n_streams = 0;
    s->n_requests = 0;
    s->n = 0;
    memset(s->served, 0, sizeof(s->served));
    memset(s->rest, 0, sizeof(s->rest));
    memset(s->ends, 0, sizeof(s->ends));
    pd_http_client_forget(b->client, &b->script_addr);
    (void)world_run(&b->w, NULL, NULL, 10 * PD_MS);
}

/* ---- the server's handlers ---- */

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    struct bench *b = arg;

    (void)req;
    (void)why;
    b->held = NULL;
    b->gone++;
}

static void flood(struct bench *b, struct pd_http_req *req)
{
    static char block[30000];
    size_t queued = 0;

    while (b->to_write > 0 && queued <= 256 * 1024) {
        size_t n = b->to_write < sizeof(block) ? (size_t)b->to_write : sizeof(block);
        queued = pd_http_write_str(req, pd_str_of(block, n));
        b->to_write -= n;
    }
    if (b->to_write == 0) {
        b->held = NULL;
        pd_http_end(req);
    }
}

static void on_drain(struct pd_http_req *req, void *arg)
{
    flood(arg, req);
}

static const struct pd_http_req_events events = { .on_gone = on_gone, .on_drain = on_drain };

static void h_echo(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, NULL, 0, pd_http_req_body(req));
}

static void h_hold(struct pd_http_req *req, void *arg)
{
    struct bench *b = arg;

    b->held = req;
    pd_http_req_set_events(req, &events, b);
}

static void h_flood(struct pd_http_req *req, void *arg)
{
    struct bench *b = arg;

    h_hold(req, arg);
    assert_int_equal(pd_http_begin(req, 200, NULL, 0, PD_HTTP_UNKNOWN_LENGTH), PD_OK);
    flood(b, req);
}

static void add(struct bench *b, const char *path, void (*fn)(struct pd_http_req *, void *))
{
    struct pd_http_route route = { .path = path, .on_request = fn, .arg = b,
                                   .methods = 1u << PD_HTTP_GET | 1u << PD_HTTP_POST };

    assert_int_equal(pd_http_server_route(b->server, &route), PD_OK);
}

static void bench_begin(struct bench *b, bool is_sim, const struct pd_http_client_opts *opts)
{
    memset(b, 0, sizeof(*b));
    world_begin(&b->w, is_sim);
    assert_int_equal(pd_http_client_create(b->w.loop, opts, &b->client), PD_OK);
    assert_int_equal(pd_http_server_create(b->w.loop, NULL, &b->server), PD_OK);
    b->addr = world_addr(&b->w);
    b->script_addr = b->addr;
    assert_int_equal(pd_http_server_listen(b->server, &b->addr, NULL), PD_OK);
    assert_int_equal(pd_http_server_addr(b->server, 0, &b->addr), PD_OK);
    assert_int_equal(pd_listener_open(b->w.loop, &b->script_addr, NULL, script_accept,
                                      &b->script, &b->listener), PD_OK);
    assert_int_equal(pd_listener_addr(b->w.loop, b->listener, &b->script_addr), PD_OK);
    add(b, "/echo", h_echo);
    add(b, "/hold", h_hold);
    add(b, "/flood", h_flood);
}

static void closed(void *arg)
{
    ((struct bench *)arg)->is_closed = true;
}

static bool is_closed(void *arg)
{
    return ((struct bench *)arg)->is_closed;
}

static void close_client(struct bench *b)
{
    b->is_closed = false;
    pd_http_client_close(b->client, closed, b);
    assert_true(world_run(&b->w, is_closed, b, 5 * PD_SEC));
}

static bool script_is_over(void *arg)
{
    return ((struct bench *)arg)->script.n_open == 0;
}

static void bench_end(struct bench *b)
{
    close_client(b);
    assert_true(world_run(&b->w, script_is_over, b, 5 * PD_SEC));
    pd_listener_close(b->w.loop, b->listener);
    b->is_closed = false;
    pd_http_server_close(b->server, closed, b);
    assert_true(world_run(&b->w, is_closed, b, 5 * PD_SEC));
    world_end(&b->w);
}

/* ---- calls ---- */

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct outcome *o = arg;

    assert_ptr_equal(call, o->call);
    o->has_head = true;
    o->status = head->status;
    if (o->pause)
        pd_http_call_pause(call);
    if (o->cancel_at_head)
        pd_http_call_cancel(call);
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct outcome *o = arg;

    if (o->body_n + piece.n < sizeof(o->body)) {
        memcpy(o->body + o->body_n, piece.p, piece.n);
        o->body_n += piece.n;
        o->body[o->body_n] = '\0';
    }
    o->total += piece.n;
    o->pieces++;
    if (o->pause)
        pd_http_call_pause(call);
    if (o->cancel_at_body)
        pd_http_call_cancel(call);
}

static struct outcome o1, o2, o3;
static void start(struct bench *b, struct outcome *o, bool to_script, const char *target,
                  const char *body, bool replayable);

static void on_end(struct pd_http_call *call, void *arg)
{
    struct outcome *o = arg;

    o->is_reused = pd_http_call_is_reused(call);
    o->is_ended = true;
    if (o->again)
        start(o->bench, &o2, false, "/echo", "again", false);
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct outcome *o = arg;

    (void)call;
    o->is_failed = true;
    o->fail = fail;
    o->why = why;
}

static const struct pd_http_call_events call_events = { .on_head = on_head, .on_body = on_body,
                                                        .on_end = on_end, .on_error = on_error };

static void start(struct bench *b, struct outcome *o, bool to_script, const char *target,
                  const char *body, bool replayable)
{
    struct pd_http_header header = { PD_STR("Content-Type"), PD_STR("application/json") };
    struct pd_iov iov[2];
    struct pd_http_call_opts opts = {
        .size = sizeof(opts), .addr = to_script ? b->script_addr : b->addr,
        .host = PD_STR("peer:80"), .method = body != NULL ? PD_HTTP_POST : PD_HTTP_GET,
        .target = pd_str_from(target), .headers = &header, .n_headers = 1,
        .is_replayable = replayable,
    };
    struct outcome keep = *o;

    memset(o, 0, sizeof(*o));
    o->pause = keep.pause;
    o->cancel_at_head = keep.cancel_at_head;
    o->cancel_at_body = keep.cancel_at_body;
    o->again = keep.again;
    o->bench = b;
    if (body != NULL) {
        size_t half = strlen(body) / 2;
        iov[0] = (struct pd_iov){ (void *)(uintptr_t)body, half };
        iov[1] = (struct pd_iov){ (void *)(uintptr_t)(body + half), strlen(body) - half };
        opts.body = iov;
        opts.n_body = 2;
    }
    assert_int_equal(pd_http_call_start(b->client, &opts, &call_events, o, &o->call), PD_OK);
}

static bool is_over(void *arg)
{
    return ((struct outcome *)arg)->is_ended || ((struct outcome *)arg)->is_failed;
}

static void wait_for(struct bench *b, struct outcome *o)
{
    if (!world_run(&b->w, is_over, o, 30 * PD_SEC))
        fail_msg("%s", "a call did not end");
}

static void call_ok(struct bench *b, struct outcome *o, bool to_script, const char *body,
                    const char *want)
{
    start(b, o, to_script, "/echo", body, false);
    wait_for(b, o);
    if (!o->is_ended)
        fail_msg("failed: %s %d", pd_http_fail_name(o->fail), o->why);
    assert_string_equal(o->body, want);
}

static void call_fails(struct bench *b, struct outcome *o, enum pd_http_fail fail, pd_status why)
{
    start(b, o, true, "/x", NULL, false);
    wait_for(b, o);
    if (!o->is_failed || o->fail != fail || o->why != why)
        fail_msg("ended %d: %s %d, not %s %d", o->is_ended,
                 o->is_failed ? pd_http_fail_name(o->fail) : "", o->why,
                 pd_http_fail_name(fail), why);
}

static void basic(bool is_sim)
{
    static struct bench b;
    const struct pd_http_client_stats *st;

    bench_begin(&b, is_sim, NULL);
    st = pd_http_client_stats(b.client);
    call_ok(&b, &o1, false, "hello world", "hello world");
    assert_int_equal(o1.status, 200);
    assert_false(o1.is_reused);
    call_ok(&b, &o1, false, "once more", "once more");
    assert_true(o1.is_reused);
    assert_int_equal(st->connects, 1);
    assert_int_equal(st->ok, 2);
    if (!is_sim) {
        uint64_t reads = st->reads, writes = st->writes, allocs = 0;
        for (int i = 0; i < 20; i++) {
            if (i == 10)
                allocs = pd_mem_count();
            call_ok(&b, &o1, false, "abc", "abc");
        }
        assert_int_equal(pd_mem_count() - allocs, 0);
        assert_int_equal(st->reads - reads, 20);
        assert_int_equal(st->writes - writes, 20);
    }
    /* Started from inside on_end, on the connection just freed. */
    o1.again = true;
    call_ok(&b, &o1, false, "abc", "abc");
    wait_for(&b, &o2);
    assert_string_equal(o2.body, "again");
    o1.again = false;
    assert_int_equal(st->connects, 1);
    bench_end(&b);
}

static void refused_opts(bool is_sim)
{
    static struct bench b;
    struct pd_http_header header = { PD_STR("x"), PD_STR("a\r\nb: c") };
    struct pd_http_call_opts opts = { .size = sizeof(opts), .host = PD_STR("a"),
                                      .method = PD_HTTP_GET, .target = PD_STR("/") };
    struct pd_http_call *call = NULL;

    bench_begin(&b, is_sim, NULL);
    opts.addr = b.addr;
    opts.target = PD_STR("/a b");
    assert_int_equal(pd_http_call_start(b.client, &opts, &call_events, NULL, &call), PD_EINVAL);
    assert_null(call);
    opts.target = PD_STR("x");
    assert_int_equal(pd_http_call_start(b.client, &opts, &call_events, NULL, &call), PD_EINVAL);
    opts.target = PD_STR("/");
    opts.host = PD_STR("a\r\nb");
    assert_int_equal(pd_http_call_start(b.client, &opts, &call_events, NULL, &call), PD_EINVAL);
    opts.host = PD_STR("a");
    opts.headers = &header;
    opts.n_headers = 1;
    assert_int_equal(pd_http_call_start(b.client, &opts, &call_events, NULL, &call), PD_EINVAL);
    opts.n_headers = 0;
    opts.method = PD_HTTP_OTHER;
    assert_int_equal(pd_http_call_start(b.client, &opts, &call_events, NULL, &call), PD_EINVAL);
    opts.method = PD_HTTP_GET;
    /* One rule broken at a time; nothing is counted as a call that runs. */
    static char text[9000];
    static struct pd_iov iov[100];
    memset(text, 'a', sizeof text);
    text[0] = '/';
    for (int how = 0; how < 9; how++) {
        struct pd_http_call_opts o = opts;
        struct pd_http_call_events ev = call_events;
        struct pd_http_header h = { PD_STR("x"), PD_STR("y") };
        o.headers = &h;
        o.n_headers = 1;
        switch (how) {
        case 0: o.target = pd_str_of(text, 0); break;
        case 1: o.target = pd_str_of(text, sizeof text); break;
        case 2: o.host = pd_str_of(text + 1, 0); break;
        case 3: o.host = pd_str_of(text + 1, 256); break;
        case 4: h.name = pd_str_of(text + 1, sizeof text - 1); break;
        case 5: h.name = PD_STR("a b"); break;
        case 6: o.method = PD_HTTP_METHODS; break;
        case 7: o.body = iov; o.n_body = 100; break;
        default: o.size = 1; break;
        }
        assert_int_equal(pd_http_call_start(b.client, &o, &ev, NULL, &call), PD_EINVAL);
        if (how < 2) {
            ev = call_events;
            if (how == 0)
                ev.on_end = NULL;
            else
                ev.on_error = NULL;
            assert_int_equal(pd_http_call_start(b.client, &opts, &ev, NULL, &call), PD_EINVAL);
        }
    }
    assert_int_equal(pd_http_client_stats(b.client)->conns_busy + pd_http_client_stats(b.client)->conns_connecting, 0);
    /* Headers that are ours are left out, others that look like them are not. */
    struct pd_http_header mine[] = {
        { PD_STR("Host"), PD_STR("evil") }, { PD_STR("te"), PD_STR("x") }, { PD_STR("Connection"), PD_STR("close") },
        { PD_STR("transfer-encoding"), PD_STR("chunked") }, { PD_STR("ab"), PD_STR("kept") },
        { PD_STR("proxy-authorization"), PD_STR("no") }, { PD_STR("x-long-name-of-twenty"), PD_STR("kept") },
    };
    set_script(&b, true, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", NULL);
    opts.addr = b.script_addr;
    opts.headers = mine;
    opts.n_headers = sizeof mine / sizeof mine[0];
    memset(&o1, 0, sizeof o1);
    o1.bench = &b;
    assert_int_equal(pd_http_call_start(b.client, &opts, &call_events, &o1, &o1.call), PD_OK);
    wait_for(&b, &o1);
    assert_true(o1.is_ended);
    assert_null(strstr(b.script.in, "evil"));
    assert_null(strstr(b.script.in, "chunked"));
    assert_null(strstr(b.script.in, "authorization"));
    assert_non_null(strstr(b.script.in, "ab: kept"));
    assert_non_null(strstr(b.script.in, "twenty: kept"));
    for (int fail = 0; fail <= PD_HTTP_FAIL_BODY + 1; fail++)
        assert_non_null(pd_http_fail_name((enum pd_http_fail)fail));
    bench_end(&b);
}

static void answers(bool is_sim)
{
    static struct bench b;
    const struct pd_http_client_stats *st;

    bench_begin(&b, is_sim, NULL);
    st = pd_http_client_stats(b.client);
    set_script(&b, false, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n"
                          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                          "2\r\nhi\r\n0\r\n\r\n", NULL);
    call_ok(&b, &o1, true, NULL, "hi");
    set_script(&b, true, "HTTP/1.1 200 OK\r\n\r\nuntil close", NULL);
    call_ok(&b, &o1, true, NULL, "until close");
    set_script(&b, false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
               NULL);
    call_ok(&b, &o1, true, NULL, "hi");
    set_script(&b, false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n",
               NULL);
    call_ok(&b, &o1, true, NULL, "hi");
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(st->extra_bytes, 1);
    assert_int_equal(st->conns_idle, 0);
    bench_end(&b);
}

static void failures(bool is_sim)
{
    static struct bench b;

    bench_begin(&b, is_sim, NULL);
    set_script(&b, true, NULL, NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_SENT, PD_EPEER);
    set_script(&b, true, "HTTP/1.1 200 OK\r\nContent-", NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_HEAD, PD_EPEER);
    set_script(&b, true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_BODY, PD_EPEER);
    set_script(&b, true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_BODY, PD_EPEER);
    set_script(&b, false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n", NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_BODY, PD_EPROTO);
    set_script(&b, false, "HTTP/1.1 200 OK\nContent-Length: 0\n\n", NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_HEAD, PD_EPROTO);
    set_script(&b, false, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
               NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_HEAD, PD_EPROTO);
    set_script(&b, false, "SSH-2.0-OpenSSH\r\n", NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_HEAD, PD_EPROTO);
    /* Nobody listens. */
    set_script(&b, false, NULL, NULL);
    pd_listener_close(b.w.loop, b.listener);
    (void)world_run(&b.w, NULL, NULL, 10 * PD_MS);
    call_fails(&b, &o1, PD_HTTP_FAIL_CONNECT, PD_EPEER);
    b.script_addr.port = 0;
    assert_int_equal(pd_listener_open(b.w.loop, &b.script_addr, NULL, script_accept, &b.script,
                                      &b.listener), PD_OK);
    bench_end(&b);
}

/* A kept connection that the peer closes while the next call is on its way. */
static void stale(bool is_sim)
{
    static struct bench b;
    const struct pd_http_client_stats *st;
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

    bench_begin(&b, is_sim, NULL);
    st = pd_http_client_stats(b.client);
    set_script(&b, true, ok, NULL);
    b.script.n_answers = 2;             /* the second request is answered by closing */
    b.script.answers[1] = NULL;
    call_ok(&b, &o1, true, NULL, "hi");
    call_ok(&b, &o1, true, NULL, "hi");
    assert_int_equal(st->stale_retries, 1);
    assert_int_equal(b.script.n_requests, 3);
    assert_false(o1.is_reused);
    /* The connection of the retry is kept now; a POST is not sent twice ... */
    start(&b, &o1, true, "/x", "bodyEND", false);
    wait_for(&b, &o1);
    assert_true(o1.is_failed);
    assert_int_equal(o1.fail, PD_HTTP_FAIL_SENT);
    assert_int_equal(st->stale_retries, 1);
    /* ... unless it may be. */
    call_ok(&b, &o1, true, NULL, "hi");
    start(&b, &o1, true, "/x", "bodyEND", true);
    wait_for(&b, &o1);
    assert_true(o1.is_ended);
    assert_int_equal(st->stale_retries, 2);
    /* Closed while idle: simply not used again. */
    set_script(&b, true, ok, NULL);
    call_ok(&b, &o1, true, NULL, "hi");
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(st->conns_idle, 0);
    call_ok(&b, &o1, true, NULL, "hi");
    assert_int_equal(st->stale_retries, 2);
    bench_end(&b);
}

static void timeouts(bool is_sim)
{
    struct pd_http_client_opts opts = { .size = sizeof(opts), .first_byte_ns = 40 * PD_MS,
                                        .idle_ns = 40 * PD_MS, .keep_ns = 60 * PD_MS };
    static struct bench b;
    const struct pd_http_client_stats *st;

    bench_begin(&b, is_sim, &opts);
    st = pd_http_client_stats(b.client);
    set_script(&b, false, NULL, NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_SENT, PD_ETIMEDOUT);
    assert_int_equal(st->first_byte_timeouts, 1);
    set_script(&b, false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", NULL);
    call_fails(&b, &o1, PD_HTTP_FAIL_BODY, PD_ETIMEDOUT);
    assert_int_equal(st->idle_timeouts, 1);
    /* Paused time does not count. */
    set_script(&b, false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", NULL);
    o1.pause = true;
    start(&b, &o1, true, "/x", NULL, false);
    (void)world_run(&b.w, NULL, NULL, 150 * PD_MS);
    assert_false(is_over(&o1));
    o1.pause = false;
    pd_http_call_resume(o1.call);
    wait_for(&b, &o1);
    assert_int_equal(o1.why, PD_ETIMEDOUT);
    call_ok(&b, &o1, false, "abc", "abc");
    assert_int_equal(st->conns_idle, 1);
    (void)world_run(&b.w, NULL, NULL, 100 * PD_MS);
    assert_int_equal(st->conns_idle, 0);
    assert_int_equal(st->kept_expired, 1);
    bench_end(&b);
}

static bool all_received(void *arg)
{
    return is_over(arg);
}

static void back_pressure(bool is_sim)
{
    static struct bench b;
    uint64_t before;

    bench_begin(&b, is_sim, NULL);
    b.to_write = 32u << 20;
    o1.pause = true;
    start(&b, &o1, false, "/flood", NULL, false);
    (void)world_run(&b.w, NULL, NULL, 100 * PD_MS);
    before = o1.total;
    assert_true(o1.has_head);
    assert_true(b.to_write > 8u << 20);
    (void)world_run(&b.w, NULL, NULL, 50 * PD_MS);
    assert_int_equal(o1.total, before);
    o1.pause = false;
    pd_http_call_resume(o1.call);
    assert_true(world_run(&b.w, all_received, &o1, 60 * PD_SEC));
    assert_true(o1.is_ended);
    assert_int_equal(o1.total, 32u << 20);
    bench_end(&b);
}

static bool someone_gone(void *arg)
{
    return ((struct bench *)arg)->gone > 0;
}

static void cancel(bool is_sim)
{
    static struct bench b;

    bench_begin(&b, is_sim, NULL);
    start(&b, &o1, false, "/hold", NULL, false);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_non_null(b.held);
    pd_http_call_cancel(o1.call);
    assert_true(world_run(&b.w, someone_gone, &b, PD_SEC));
    b.gone = 0;
    b.to_write = 32u << 20;
    o1.cancel_at_head = true;
    start(&b, &o1, false, "/flood", NULL, false);
    assert_true(world_run(&b.w, someone_gone, &b, PD_SEC));
    assert_int_equal(o1.total, 0);
    o1.cancel_at_head = false;
    b.gone = 0;
    b.to_write = 32u << 20;
    o1.cancel_at_body = true;
    start(&b, &o1, false, "/flood", NULL, false);
    assert_true(world_run(&b.w, someone_gone, &b, PD_SEC));
    assert_int_equal(o1.pieces, 1);
    o1.cancel_at_body = false;
    /* Before it is connected. */
    start(&b, &o1, false, "/echo", NULL, false);
    pd_http_call_cancel(o1.call);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_false(is_over(&o1));
    assert_int_equal(pd_http_client_stats(b.client)->canceled, 4);
    bench_end(&b);
}

static bool is_idle(void *arg)
{
    return pd_http_client_stats(((struct bench *)arg)->client)->conns_idle > 0;
}

/* Nobody wants the answer, but it can be ended. */
static void leave(bool is_sim)
{
    static struct bench b;
    char *body = pd_strdup("what was lent for the call");

    bench_begin(&b, is_sim, NULL);
    start(&b, &o1, false, "/hold", body, true);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_non_null(b.held);
    pd_http_call_leave(o1.call);
    pd_free(body);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(b.gone, 0);
    pd_http_respond(b.held, 200, NULL, 0, PD_STR("late"));
    assert_true(world_run(&b.w, is_idle, &b, PD_SEC));
    assert_false(o1.has_head || is_over(&o1));
    /* Its connection is used again; a paused one is read to the end. */
    b.to_write = 4u << 20;
    o1.pause = true;
    start(&b, &o1, false, "/flood", NULL, false);
    (void)world_run(&b.w, NULL, NULL, 50 * PD_MS);
    assert_true(o1.has_head);
    pd_http_call_leave(o1.call);
    uint64_t before = o1.total;
    assert_true(world_run(&b.w, is_idle, &b, 60 * PD_SEC));
    assert_int_equal(b.to_write, 0);
    assert_int_equal(o1.total, before);
    assert_int_equal(pd_http_client_stats(b.client)->connects, 1);
    assert_int_equal(pd_http_client_stats(b.client)->canceled, 0);
    o1.pause = false;
    /* One that breaks tells nobody, and is not sent again. */
    b.held = NULL;
    start(&b, &o1, false, "/hold", "x", true);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    pd_http_call_leave(o1.call);
    pd_http_abort(b.held);
    (void)world_run(&b.w, NULL, NULL, 50 * PD_MS);
    assert_false(is_over(&o1));
    assert_int_equal(pd_http_client_stats(b.client)->connects, 1);
    /* What has not left is canceled. */
    start(&b, &o1, false, "/echo", "x", false);
    pd_http_call_leave(o1.call);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_false(is_over(&o1));
    assert_int_equal(pd_http_client_stats(b.client)->canceled, 1);
    bench_end(&b);
}

static void waiting(bool is_sim)
{
    struct pd_http_client_opts opts = { .size = sizeof(opts), .max_conns = 1, .max_waiting = 2 };
    static struct bench b;
    struct pd_http_call_opts more = { .size = sizeof(more), .host = PD_STR("peer:80"),
                                      .method = PD_HTTP_GET, .target = PD_STR("/echo") };
    struct pd_http_call *call;

    bench_begin(&b, is_sim, &opts);
    start(&b, &o1, false, "/hold", NULL, false);
    start(&b, &o2, false, "/echo", "two", false);
    start(&b, &o3, false, "/echo", "three", false);
    more.addr = b.addr;
    assert_int_equal(pd_http_call_start(b.client, &more, &call_events, NULL, &call), PD_ELIMIT);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_false(is_over(&o2));
    pd_http_respond(b.held, 200, NULL, 0, PD_STR("one"));
    wait_for(&b, &o3);
    assert_string_equal(o2.body, "two");
    assert_string_equal(o3.body, "three");
    assert_int_equal(pd_http_client_stats(b.client)->connects, 1);
    /* The one in front leaves: the next gets a connection. */
    start(&b, &o1, false, "/hold", NULL, false);
    start(&b, &o2, false, "/echo", "two", false);
    start(&b, &o3, false, "/echo", "three", false);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    pd_http_call_cancel(o2.call);
    pd_http_call_cancel(o1.call);
    wait_for(&b, &o3);
    assert_string_equal(o3.body, "three");
    bench_end(&b);
}

/* A kept connection of another origin makes room; a busy one does not. */
static void total(bool is_sim)
{
    struct pd_http_client_opts opts = { .size = sizeof(opts), .max_total = 1 };
    static struct bench b;
    struct pd_http_call_opts other = { .size = sizeof(other), .host = PD_STR("other:80"),
                                       .method = PD_HTTP_GET, .target = PD_STR("/echo") };

    bench_begin(&b, is_sim, &opts);
    start(&b, &o1, false, "/echo", "one", false);
    wait_for(&b, &o1);
    assert_int_equal(pd_http_client_stats(b.client)->conns_idle, 1);
    other.addr = b.addr;
    memset(&o2, 0, sizeof(o2));
    o2.bench = &b;
    assert_int_equal(pd_http_call_start(b.client, &other, &call_events, &o2, &o2.call), PD_OK);
    wait_for(&b, &o2);
    assert_true(o2.is_ended);
    assert_int_equal(pd_http_client_stats(b.client)->connects, 2);
    start(&b, &o1, false, "/hold", NULL, false);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    assert_int_equal(pd_http_call_start(b.client, &other, &call_events, &o2, &o2.call), PD_ELIMIT);
    assert_int_equal(pd_http_client_stats(b.client)->refused, 1);
    pd_http_respond(b.held, 200, NULL, 0, PD_STR("one"));
    wait_for(&b, &o1);
    memset(&o2, 0, sizeof(o2));
    o2.bench = &b;
    assert_int_equal(pd_http_call_start(b.client, &other, &call_events, &o2, &o2.call), PD_OK);
    wait_for(&b, &o2);
    assert_true(o2.is_ended);
    bench_end(&b);
}

static void client_close(bool is_sim)
{
    struct pd_http_client_opts opts = { .size = sizeof(opts), .max_conns = 1 };
    static struct bench b;

    bench_begin(&b, is_sim, &opts);
    start(&b, &o1, false, "/hold", NULL, false);
    start(&b, &o2, false, "/echo", "two", false);
    (void)world_run(&b.w, NULL, NULL, 20 * PD_MS);
    close_client(&b);
    assert_true(o1.is_failed && o1.why == PD_ECANCELED && o1.fail == PD_HTTP_FAIL_SENT);
    assert_true(o2.is_failed && o2.why == PD_ECANCELED && o2.fail == PD_HTTP_FAIL_CONNECT);
    assert_int_equal(pd_http_client_create(b.w.loop, NULL, &b.client), PD_OK);
    bench_end(&b);
}

static void big_upload(bool is_sim)
{
    static struct bench b;
    static char body[(4 << 20) + 1];

    bench_begin(&b, is_sim, NULL);
    memset(body, 'y', sizeof(body) - 1);
    start(&b, &o1, false, "/echo", body, false);
    wait_for(&b, &o1);
    assert_true(o1.is_ended);
    assert_int_equal(o1.total, sizeof(body) - 1);
    bench_end(&b);
}

/* Each allocation of a call's life fails once: the call is refused or ends. */
static void short_of_memory(bool is_sim)
{
    struct pd_http_call_opts opts = { .size = sizeof(opts), .host = PD_STR("peer:80"),
                                      .method = PD_HTTP_POST, .target = PD_STR("/echo") };
    struct pd_iov body = { (void *)(uintptr_t)"small", 5 };
    static struct bench b;

    opts.body = &body;
    opts.n_body = 1;
    for (uint64_t n = 1; n <= 30; n++) {
        pd_status status;
        bench_begin(&b, is_sim, NULL);
        opts.addr = b.addr;
        memset(&o1, 0, sizeof(o1));
        pd_mem_fault_set(n);
        status = pd_http_call_start(b.client, &opts, &call_events, &o1, &o1.call);
        if (status == PD_OK)
            wait_for(&b, &o1);
        pd_mem_fault_set(0);
        assert_true(status == PD_OK || status == PD_ENOMEM);
        call_ok(&b, &o1, false, "after", "after");
        bench_end(&b);
    }
}

/* One call over a way; on_end or on_error follows. */
static pd_status over(struct pd_http_way *way, struct bench *b, struct outcome *o, const char *id)
{
    static char body[] = "body END";
    struct pd_iov iov = { body, sizeof body - 1 };
    struct pd_http_way_call call = { .id = pd_str_from(id), .body = &iov, .n_body = 1 };

    memset(o, 0, sizeof(*o));
    o->bench = b;
    return pd_http_way_call(way, &call, &call_events, o, &o->call);
}

/* Calls over a way have its head, share its connections, and go on when its origin
 * has gone meanwhile. */
static void ways(bool is_sim)
{
    static struct bench b;
    struct pd_http_header headers[] = { { PD_STR("authorization"), PD_STR("Bearer k") },
                                        { PD_STR("connection"), PD_STR("close") } };
    struct pd_http_call_opts opts = {
        .size = sizeof(opts), .host = PD_STR("peer:80"), .method = PD_HTTP_POST, .target = PD_STR("/v1/x"),
        .headers = headers, .n_headers = 2,
    };
    const struct pd_http_client_stats *st;
    struct pd_http_way *way = NULL, *none;

    bench_begin(&b, is_sim, NULL);
    st = pd_http_client_stats(b.client);
    opts.addr = b.script_addr;
    assert_int_equal(pd_http_way_open(b.client, &opts, &way), PD_OK);
    opts.target = PD_STR("x y");
    assert_int_equal(pd_http_way_open(b.client, &opts, &none), PD_EINVAL);
    opts.target = PD_STR("/");
    headers[0].value = PD_STR("a\nb");
    assert_int_equal(pd_http_way_open(b.client, &opts, &none), PD_EINVAL);
    opts.size--;
    assert_int_equal(pd_http_way_open(b.client, &opts, &none), PD_EINVAL);
    set_script(&b, false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
               "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    o1.call = NULL;
    assert_int_equal(over(way, &b, &o1, "a\r\nb"), PD_EINVAL);
    assert_null(o1.call);
    assert_int_equal(over(way, &b, &o1, "id-1"), PD_OK);
    wait_for(&b, &o1);
    assert_string_equal(o1.body, "ok");
    assert_string_equal(b.script.in, "POST /v1/x HTTP/1.1\r\nhost: peer:80\r\nauthorization: Bearer k\r\n"
                                     "x-request-id: id-1\r\ncontent-length: 8\r\n\r\nbody END");
    assert_int_equal(over(way, &b, &o1, ""), PD_OK);
    wait_for(&b, &o1);
    assert_string_equal(o1.body, "no");
    assert_true(o1.is_reused);
    assert_null(strstr(b.script.in, "x-request-id"));
    assert_int_equal(st->connects, 1);
    /* Its last connection goes, and its origin with it. */
    set_script(&b, false, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew", NULL);
    assert_int_equal(over(way, &b, &o1, "id-2"), PD_OK);
    wait_for(&b, &o1);
    assert_string_equal(o1.body, "new");
    assert_int_equal(st->connects, 2);
    assert_int_equal(st->calls, 3);
    pd_http_way_close(NULL);
    /* One is closed when the client is there, one when it has gone. */
    headers[0].value = PD_STR("Bearer k");
    opts.size++;
    assert_int_equal(pd_http_way_open(b.client, &opts, &none), PD_OK);
    pd_http_way_close(none);
    bench_end(&b);
    pd_http_way_close(way);
}

#define BOTH(name)                                                             \
    static void test_##name##_uv(void **state)                                 \
    {                                                                          \
        (void)state;                                                           \
        name(false);                                                           \
    }                                                                          \
    static void test_##name##_sim(void **state)                                \
    {                                                                          \
        (void)state;                                                           \
        name(true);                                                            \
    }
#define ROWS(name) cmocka_unit_test(test_##name##_uv), cmocka_unit_test(test_##name##_sim)

BOTH(basic)
BOTH(refused_opts)
BOTH(answers)
BOTH(failures)
BOTH(stale)
BOTH(timeouts)
BOTH(back_pressure)
BOTH(cancel)
BOTH(leave)
BOTH(waiting)
BOTH(total)
BOTH(client_close)
BOTH(big_upload)
BOTH(short_of_memory)
BOTH(ways)

static const struct CMUnitTest tests[] = {
    ROWS(basic),
    ROWS(refused_opts),
    ROWS(answers),
    ROWS(failures),
    ROWS(stale),
    ROWS(timeouts),
    ROWS(back_pressure),
    ROWS(cancel),
    ROWS(leave),
    ROWS(waiting),
    ROWS(total),
    ROWS(client_close),
    ROWS(big_upload),
    ROWS(short_of_memory),
    ROWS(ways),
};

PD_UNIT_MAIN(tests)
