/* SPDX-License-Identifier: Apache-2.0 */
/* Client and server in the simulator while one allocation, or one operation of the
 * loop, fails; each of them in turn.  Every call ends once and truthfully, a fault costs the
 * calls that it meets and no others, and the server holds nothing afterwards. */
#include "unit.h"

#include "base/mem.h"
#include "base/str.h"
#include "loop/sim.h"
#include "metric/metric.h"
#include "net/client.h"
#include "net/keys.h"
#include "net/net_metric.h"
#include "net/server.h"
#include "os/file.h"

#include <stdlib.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP 5u
#else
#define STEP 1u
#endif

enum what { ECHO, STREAM, TOKENS, LARGE, FAILS, NOTHING, LATE };

static const struct spec {
    const char *path;
    enum what what;
    enum pd_http_method method;
    size_t n;                   /* bytes sent */
    size_t want;                /* bytes that come back; unchecked for errors */
    uint32_t status;
    bool fresh, pause;
    const char *with;           /* a header of its own */
} specs[] = {
    { "/echo", ECHO, PD_HTTP_POST, 10, 10, 200, false, false, NULL },
    { "/echo?q=1", ECHO, PD_HTTP_POST, 100000, 100000, 200, false, false, "expect" },
    { "/stream", STREAM, PD_HTTP_PUT, 150000, 150000, 200, false, true, NULL },
    { "/tokens", TOKENS, PD_HTTP_GET, 0, 20 * 30, 200, false, false, NULL },
    { "/large", LARGE, PD_HTTP_GET, 0, 700000, 200, true, true, NULL },
    { "/large", LARGE, PD_HTTP_HEAD, 0, 0, 200, false, false, NULL },
    { "/fails", FAILS, PD_HTTP_POST, 5, 0, 503, false, false, NULL },
    { "/none", NOTHING, PD_HTTP_GET, 0, 0, 404, false, false, NULL },
    { "/echo", NOTHING, PD_HTTP_DELETE, 0, 0, 405, false, false, NULL },
    { "/late", LATE, PD_HTTP_GET, 0, 0, 504, false, false, NULL },
    { "/echo", ECHO, PD_HTTP_POST, 3, 3, 200, false, false, "x-request-id" },
};
enum { CALLS = sizeof specs / sizeof specs[0] };

struct world;

struct one {
    struct world *w;
    const struct spec *spec;
    struct pd_http_call *call;
    uint32_t status, ends;
    size_t got;
    bool is_whole;
    struct pd_timer resume;
};

struct answer {
    struct world *w;
    struct pd_http_req *req;
    size_t left;
    struct pd_timer tick;
    bool is_used, resting;
};

struct world {
    struct pd_sim *sim;
    struct pd_loop *near, *far;
    struct pd_http_client *client;
    struct pd_http_server *server;
    struct pd_addr addr;
    struct one one;
    struct answer answers[8];
    bool client_closed, server_closed, is_chunked;
};

static char bytes[700000];

/* ---- the server's side ---------------------------------------------------------- */

static void h_echo(struct pd_http_req *req, void *arg)
{
    struct pd_http_header h[2] = { { PD_STR("x-a"), PD_STR("1") }, { PD_STR("x-b"), PD_STR("2") } };
    (void)arg;
    pd_http_respond(req, 200, h, 2, pd_http_req_body(req));
}

static struct answer *answer_new(struct world *w, struct pd_http_req *req, size_t left)
{
    for (size_t i = 0; i < 8; i++) {
        struct answer *a = &w->answers[i];
        if (!a->is_used) {
            a->is_used = true;
            a->resting = false;
            a->req = req;
            a->left = left;
            return a;
        }
    }
    fail_msg("%s", "answers leak");
    return NULL;
}

static void answer_free(struct answer *a)
{
    pd_timer_stop(&a->tick);
    a->is_used = false;
}

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    struct answer *a = arg;
    assert_ptr_equal(req, a->req);
    assert_true(why < 0);
    answer_free(a);
}

static void on_body(struct pd_http_req *req, struct pd_str piece, void *arg)
{
    struct answer *a = arg;
    struct pd_iov two[2] = { { (void *)(uintptr_t)piece.p, piece.n / 2 },
                             { (void *)(uintptr_t)(piece.p + piece.n / 2), piece.n - piece.n / 2 } };
    if (pd_http_write(req, two, 2) > PD_HTTP_HIGH_WATER / 4 && a->is_used && !a->resting) {
        a->resting = true;
        pd_http_req_pause(req);
        pd_timer_start(&a->tick, PD_MS);
    }
}

static void on_body_end(struct pd_http_req *req, void *arg)
{
    answer_free(arg);
    pd_http_end(req);
}

static void push_large(struct answer *a)
{
    while (a->left > 0) {
        size_t n = a->left < 70000 ? a->left : 70000, queued;
        queued = pd_http_write_str(a->req, pd_str_of(bytes + (sizeof bytes - a->left), n));
        if (!a->is_used)
            return;
        a->left -= n;
        if (queued > PD_HTTP_HIGH_WATER && a->left > 0)
            return;
    }
    struct pd_http_req *req = a->req;
    answer_free(a);
    pd_http_end(req);
}

static void on_drain(struct pd_http_req *req, void *arg)
{
    (void)req;
    push_large(arg);
}

static const struct pd_http_req_events req_events = { .on_body = on_body, .on_body_end = on_body_end,
                                                      .on_drain = on_drain, .on_gone = on_gone };

static void on_tick(struct pd_timer *timer, void *arg)
{
    struct answer *a = arg;
    struct pd_http_req *req = a->req;
    if (a->resting) {
        a->resting = false;
        pd_http_req_resume(req);
        return;
    }
    (void)pd_http_write_str(req, pd_str_of(bytes, 30));
    if (a->is_used && a->left % 2 == 0)
        pd_http_flush(req);
    if (!a->is_used)
        return;
    if (--a->left > 0) {
        pd_timer_start(timer, PD_MS);
        return;
    }
    answer_free(a);
    pd_http_end(req);
}

/* Begins a streamed answer; false: it was refused, and the client has been told. */
static bool begin(struct pd_http_req *req, struct answer *a, uint64_t length)
{
    pd_timer_init(&a->tick, a->w->far, "tick", on_tick, a);
    pd_http_req_set_events(req, &req_events, a);
    if (pd_http_begin(req, 200, NULL, 0, length) == PD_OK)
        return true;
    if (a->is_used) {
        answer_free(a);
        pd_http_req_set_events(req, NULL, NULL);
        pd_http_error(req, 500, NULL, NULL, "no memory", NULL);
    }
    return false;
}

static void h_stream(struct pd_http_req *req, void *arg)
{
    struct world *w = arg;
    (void)begin(req, answer_new(w, req, 0), PD_HTTP_UNKNOWN_LENGTH);
}

static void h_tokens(struct pd_http_req *req, void *arg)
{
    struct world *w = arg;
    struct answer *a = answer_new(w, req, 20);
    if (begin(req, a, PD_HTTP_UNKNOWN_LENGTH)) {
        pd_http_req_lighten(req);
        pd_timer_start(&a->tick, PD_MS);
    }
}

static void h_large(struct pd_http_req *req, void *arg)
{
    struct world *w = arg;
    struct answer *a = answer_new(w, req, sizeof bytes);
    if (begin(req, a, sizeof bytes))
        push_large(a);
}

static void h_fails(struct pd_http_req *req, void *arg)
{
    struct pd_http_error e = { .status = 503, .code = "busy", .message = PD_STR("later \"please\""), .param = "model",
                               .retry_after_ms = 1500, .should_retry = -1, .allow = "POST" };
    (void)arg;
    pd_http_error_full(req, &e);
}

static void h_late(struct pd_http_req *req, void *arg)
{
    (void)req;
    (void)arg;
}

/* ---- the client's side ---------------------------------------------------------- */

static void c_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct one *o = arg;
    o->status = head->status;
    if (o->spec->pause && o->status == 200) {
        pd_http_call_pause(call);
        pd_timer_start(&o->resume, 20 * PD_MS);
    }
}

static void c_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct one *o = arg;
    (void)call;
    if (o->status == 200 && o->spec->what != TOKENS) {
        assert_true(o->got + piece.n <= o->spec->want);
        assert_memory_equal(piece.p, bytes + o->got, piece.n);
    }
    o->got += piece.n;
}

static void c_resume(struct pd_timer *timer, void *arg)
{
    struct one *o = arg;
    (void)timer;
    if (o->call != NULL)
        pd_http_call_resume(o->call);
}

static void c_end(struct pd_http_call *call, void *arg)
{
    struct one *o = arg;
    (void)call;
    o->is_whole = true;
    o->ends++;
    o->call = NULL;
}

static void c_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct one *o = arg;
    (void)call;
    assert_true(why < 0 && strcmp(pd_http_fail_name(fail), "unknown") != 0);
    o->ends++;
    o->call = NULL;
}

static const struct pd_http_call_events call_events = { .on_head = c_head, .on_body = c_body, .on_end = c_end,
                                                        .on_error = c_error };

static bool one_is_over(void *arg)
{
    return ((struct world *)arg)->one.ends > 0;
}

/* One call; whether it went as it should. */
static bool ask(struct world *w, const struct spec *s)
{
    struct one *o = &w->one;
    struct pd_iov body[2] = { { bytes, s->n / 3 }, { bytes + s->n / 3, s->n - s->n / 3 } };
    struct pd_http_header h[2] = { { PD_STR("authorization"), PD_STR("Bearer open sesame") } };
    struct pd_http_call_opts opts = { .size = sizeof opts, .addr = w->addr, .host = PD_STR("far"), .method = s->method,
                                      .target = pd_str_from(s->path), .headers = h, .n_headers = 1, .body = body,
                                      .n_body = s->n > 0 ? 2 : 0, .is_replayable = 1, .fresh = s->fresh,
                                      .first_byte_ns = 5 * PD_SEC, .idle_ns = 5 * PD_SEC };
    if (s->with != NULL) {
        bool is_expect = strcmp(s->with, "expect") == 0;
        h[1] = (struct pd_http_header){ pd_str_from(s->with), is_expect ? PD_STR("100-continue") : PD_STR("id-1") };
        opts.n_headers = 2;
    }
    memset(o, 0, sizeof *o);
    o->w = w;
    o->spec = s;
    pd_timer_init(&o->resume, w->near, "resume", c_resume, o);
    if (pd_http_call_start(w->client, &opts, &call_events, o, &o->call) != PD_OK)
        return false;
    if (!pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + 60 * PD_SEC, one_is_over, w))
        fail_msg("%s does not end", s->path);
    pd_timer_stop(&o->resume);
    assert_int_equal(o->ends, 1);
    if (!o->is_whole)
        return false;
    if (o->status != s->status) {
        /* An honest refusal. */
        assert_true(o->status == 500 || o->status == 503);
        return false;
    }
    if (s->status == 200)
        assert_int_equal(o->got, s->want);
    return true;
}

/* ---- all calls, one behind the other, with one fault ------------------------------ */

static void closed(void *arg)
{
    *(bool *)arg = true;
}

static bool both_closed(void *arg)
{
    return ((struct world *)arg)->client_closed && ((struct world *)arg)->server_closed;
}

static struct pd_keys *keys_of(struct pd_loop *loop)
{
    /* sha256 of "open sesame" */
    static const char line[] = "sha256:41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb me\n";
    char path[] = "/tmp/pd-keys-XXXXXX";
    struct pd_keys *keys = NULL;
    struct pd_err err = { 0 };
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, line, sizeof line - 1), sizeof line - 1);
    close(fd);
    if (pd_keys_create(loop, NULL, path, &keys, &err) != PD_OK)
        fail_msg("%s", err.text);
    unlink(path);
    return keys;
}

enum kind { NONE, MEMORY, OPERATION };

static void world_up(struct world *w)
{
    static const struct pd_http_route routes[] = {
        { .path = "/echo", .methods = 1u << PD_HTTP_POST, .on_request = h_echo },
        { .path = "/stream", .methods = 1u << PD_HTTP_PUT, .flags = PD_HTTP_ROUTE_STREAM_BODY, .on_request = h_stream },
        { .path = "/tokens", .methods = 1u << PD_HTTP_GET, .on_request = h_tokens },
        { .path = "/large", .methods = 1u << PD_HTTP_GET, .on_request = h_large },
        { .path = "/fails", .methods = 1u << PD_HTTP_POST, .on_request = h_fails },
        { .path = "/late", .methods = 1u << PD_HTTP_GET, .deadline_ns = 100 * PD_MS, .on_request = h_late },
    };
    struct pd_http_server_opts opts = { .size = sizeof opts, .idle_ns = 20 * PD_SEC };
    struct pd_sim_opts sim = { .buffer_bytes = 65536 };
    memset(w, 0, sizeof *w);
    assert_int_equal(pd_sim_create(11, &sim, &w->sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(w->sim, "near", "10.0.0.1", &w->near), PD_OK);
    assert_int_equal(pd_sim_loop_create(w->sim, "far", "10.0.0.2", &w->far), PD_OK);
    assert_int_equal(pd_http_client_create(w->near, NULL, &w->client), PD_OK);
    assert_int_equal(pd_http_server_create(w->far, &opts, &w->server), PD_OK);
    assert_int_equal(pd_addr_parse(w->near, PD_STR("10.0.0.2:80"), &w->addr), PD_OK);
    struct pd_keys *keys = keys_of(w->far);
    assert_int_equal(pd_http_server_listen_as(w->server, &w->addr, NULL, NULL, keys), PD_OK);
    pd_keys_destroy(keys);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        struct pd_http_route r = routes[i];
        r.arg = w;
        assert_int_equal(pd_http_server_route(w->server, &r), PD_OK);
    }
    for (size_t i = 0; i < 8; i++)
        w->answers[i].w = w;
}

static void world_down(struct world *w)
{
    const struct pd_http_server_stats *st = pd_http_server_stats(w->server);
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + 10 * PD_SEC);
    for (size_t i = 0; i < 8; i++)
        assert_false(w->answers[i].is_used);
    assert_int_equal(st->queued_bytes, 0);
    assert_int_equal(st->body_bytes, 0);
    assert_int_equal(st->conns_serving, 0);
    pd_http_client_close(w->client, closed, &w->client_closed);
    pd_http_server_close(w->server, closed, &w->server_closed);
    assert_true(pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + 10 * PD_SEC, both_closed, w));
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + PD_SEC);
    assert_int_equal(pd_loop_destroy(w->near, NULL, 0), PD_OK);
    assert_int_equal(pd_loop_destroy(w->far, NULL, 0), PD_OK);
    assert_int_equal(pd_sim_destroy(w->sim), PD_OK);
}

/* Whether there were so many; *lost: how many calls did not go as they should. */
static bool play(enum kind kind, uint64_t n, uint32_t *lost)
{
    struct world w;
    world_up(&w);
    uint64_t from = kind == MEMORY ? pd_mem_count() : pd_sim_operations(w.sim), used;
    if (kind == MEMORY)
        pd_mem_fault_set(n);
    else if (kind == OPERATION)
        pd_sim_refuse(w.sim, n);
    *lost = 0;
    for (size_t i = 0; i < CALLS; i++)
        *lost += !ask(&w, &specs[i]);
    used = (kind == MEMORY ? pd_mem_count() : pd_sim_operations(w.sim)) - from;
    pd_mem_fault_set(0);
    pd_sim_refuse(w.sim, 0);
    /* As if nothing had been. */
    for (size_t i = 0; i < CALLS; i++)
        if (!ask(&w, &specs[i]))
            fail_msg("after fault %llu of kind %d: %s: status %u", (unsigned long long)n, kind, specs[i].path, w.one.status);
    world_down(&w);
    return used >= n;
}

static void sweep(enum kind kind)
{
    uint32_t lost, total = 0;
    uint64_t n = 1;
    (void)play(NONE, 0, &lost);
    assert_int_equal(lost, 0);
    while (play(kind, n, &lost)) {
        assert_true(lost <= 2);
        total += lost;
        n += STEP;
    }
    fprintf(stderr, "# %llu faults, %u calls lost\n", (unsigned long long)(n - 1) / STEP, total);
    assert_true(n > 20 && total > 0);
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

/* Neither is made by halves. */
static void test_create(void **state)
{
    struct pd_sim *sim;
    struct pd_loop *loop;
    struct pd_http_client *client;
    struct pd_http_server *server;
    struct pd_http_client_opts bad_client = { .size = 1 };
    struct pd_http_server_opts bad_server = { .size = 1 };
    (void)state;
    assert_int_equal(pd_sim_create(1, NULL, &sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(sim, "n", NULL, &loop), PD_OK);
    assert_int_equal(pd_http_client_create(loop, &bad_client, &client), PD_EINVAL);
    assert_int_equal(pd_http_server_create(loop, &bad_server, &server), PD_EINVAL);
    for (uint64_t n = 1; n <= 2; n++) {
        pd_mem_fault_set(n);
        assert_int_equal(pd_http_client_create(loop, NULL, &client), PD_ENOMEM);
        pd_mem_fault_set(n);
        assert_int_equal(pd_http_server_create(loop, NULL, &server), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
    /* Their counters as metrics: all of them, or a status. */
    struct pd_metrics *m;
    struct pd_net_metrics *nm;
    bool is_closed = false, is_made = false;
    double value = -1;
    assert_int_equal(pd_http_client_create(loop, NULL, &client), PD_OK);
    assert_int_equal(pd_http_server_create(loop, NULL, &server), PD_OK);
    assert_int_equal(pd_metrics_create(0, &m), PD_OK);
    for (uint64_t n = 1; !is_made; n++) {
        pd_mem_fault_set(n);
        pd_status st = pd_net_metrics_create(m, "l", server, client, &nm);
        pd_mem_fault_set(0);
        assert_true(n < 2000 && (st == PD_OK || st == PD_ENOMEM));
        is_made = st == PD_OK;
    }
    pd_net_metrics_update(nm);
    pd_metrics_read(m, "pdplane_http_client_waiting", NULL, &value);
    assert_true(value == 0.0);
    pd_net_metrics_destroy(nm);
    assert_int_equal(pd_net_metrics_create(m, "l", NULL, NULL, &nm), PD_OK);
    pd_net_metrics_update(nm);
    pd_net_metrics_destroy(nm);
    pd_metrics_destroy(m);
    pd_http_client_close(client, NULL, NULL);
    pd_http_server_close(server, closed, &is_closed);
    pd_sim_run_until(sim, pd_sim_now(sim) + PD_SEC);
    assert_true(is_closed);
    assert_int_equal(pd_loop_destroy(loop, NULL, 0), PD_OK);
    assert_int_equal(pd_sim_destroy(sim), PD_OK);
}

static const struct CMUnitTest tests[] = { cmocka_unit_test(test_memory), cmocka_unit_test(test_operations),
                                           cmocka_unit_test(test_create) };

int main(void)
{
    const char *pattern = getenv("PD_TEST");
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)('a' + i % 23);
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
