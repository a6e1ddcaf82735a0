/* SPDX-License-Identifier: Apache-2.0 */
/* A router over servers of which one computes prompts and another one answers, both
 * with the request at the same time, on a virtual clock and a simulated network.  They
 * meet in rooms as SGLang servers do.  Whatever fails at whatever moment: a client gets
 * a whole answer or an honest error, both legs end, and the same seed gives the same
 * log.  Nor does an allocation or an operation of a loop that fails change that. */
#include "unit.h"

#include "base/mem.h"
#include "base/str.h"
#include "net/server.h"
#include "sim_nodes.h"

#define SERVERS 4u             /* p0 p1 d0 d1 */
#define ROOMS 512u
#define REQUESTS 12u
#define TOKENS 5u

enum { SAY_NOTHING, SAY_BUSY, SAY_BROKEN, SAY_EVENT, SAY_STALL, SAYS };

struct server {
    const char *name;
    struct pd_loop *loop;
    struct pd_http_server *http;
    bool is_prefill;
    uint32_t says;             /* SAY_*, to requests from now on */
    bool is_closed;
};

/* One leg at its server. */
struct fake_leg {
    struct room *room;
    struct server *server;
    struct pd_http_req *req;   /* NULL: over */
    struct pd_timer timer;
    uint32_t tokens;
    bool has_timer;
};

struct room {
    uint64_t number;
    struct fake_leg legs[2];   /* prefill, decode */
    bool is_stream;
    bool has_kv;
};

static struct server servers[SERVERS] = {
    { .name = "p0", .is_prefill = true }, { .name = "p1", .is_prefill = true }, { .name = "d0" }, { .name = "d1" },
};
static struct room rooms[ROOMS];
static uint32_t n_rooms;
/* Legs that should not have come: a room of an earlier attempt, another place to meet. */
static uint32_t wrong;

static const char conf[] =
    "load = [ \"router\", \"sglang\" ];\n"
    "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
    "endpoints = ( { name = \"p0\"; roles = [ \"prefill\" ]; type = \"sglang\"; url = \"http://10.1.0.1:30000\"; },\n"
    "  { name = \"p1\"; roles = [ \"prefill\" ]; type = \"sglang\"; url = \"http://10.1.0.2:30000\"; },\n"
    "  { name = \"d0\"; roles = [ \"decode\" ]; type = \"sglang\"; url = \"http://10.1.0.3:30000\"; },\n"
    "  { name = \"d1\"; roles = [ \"decode\" ]; type = \"sglang\"; url = \"http://10.1.0.4:30000\"; } );\n"
    "role = { router = { probe_interval = \"500ms\"; deadline = \"40s\"; prefill_timeout = \"3s\"; }; };\n";

/* ---- the servers ------------------------------------------------------------------------ */

static struct pd_http_header sse = { { "content-type", 12 }, { "text/event-stream", 17 } };
static struct pd_http_header json = { { "content-type", 12 }, { "application/json", 16 } };

static void leg_over(struct fake_leg *leg)
{
    if (leg->has_timer)
        pd_timer_stop(&leg->timer);
    leg->req = NULL;
}

static void leg_say(struct fake_leg *leg, const char *text)
{
    if (leg->room->is_stream)
        pd_http_write_str(leg->req, pd_str_from(text));
}

static void leg_end(struct fake_leg *leg, const char *body)
{
    struct pd_http_req *req = leg->req;
    leg_over(leg);
    if (leg->room->is_stream)
        pd_http_end(req);
    else
        pd_http_respond(req, 200, &json, 1, pd_str_from(body));
}

/* A server that computes a prompt, or a token. */
static void on_timer(struct pd_timer *timer, void *arg)
{
    struct fake_leg *leg = arg, *other = &leg->room->legs[leg->server->is_prefill];
    char text[128];
    (void)timer;
    if (leg->server->is_prefill) {
        leg->room->has_kv = true;
        leg_say(leg, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"SECRET\"}}]}\n\ndata: [DONE]\n\n");
        leg_end(leg, "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"SECRET\"}}]}");
        if (other->req != NULL)
            pd_timer_start(&other->timer, PD_MS + pd_loop_random_u64(other->server->loop) % PD_MS);
        return;
    }
    if (leg->tokens == TOKENS) {
        leg_say(leg, "data: [DONE]\n\n");
        leg_end(leg, "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"01234\"}}]}");
        return;
    }
    snprintf(text, sizeof text, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%u\"}}]}\n\n", leg->tokens++);
    leg_say(leg, text);
    pd_timer_start(&leg->timer, 5 * PD_MS);
}

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    (void)req;
    (void)why;
    leg_over(arg);
}

static const struct pd_http_req_events leg_events = { .on_gone = on_gone };

static struct room *room_of(uint64_t number)
{
    for (uint32_t i = 0; i < n_rooms; i++) {
        if (rooms[i].number == number)
            return &rooms[i];
    }
    assert_true(n_rooms < ROOMS);
    rooms[n_rooms] = (struct room){ .number = number };
    return &rooms[n_rooms++];
}

static void refuse(struct server *s, struct pd_http_req *req, bool is_stream)
{
    if (s->says == SAY_EVENT && is_stream) {
        pd_http_begin(req, 200, &sse, 1, PD_HTTP_UNKNOWN_LENGTH);
        pd_http_write_str(req, PD_STR("data: {\"error\":{\"message\":\"KV\",\"code\":500}}\n\ndata: [DONE]\n\n"));
        pd_http_end(req);
    } else {
        pd_http_error(req, s->says == SAY_BUSY ? 503 : 500, NULL, NULL, "no", NULL);
    }
}

static void on_chat(struct pd_http_req *req, void *arg)
{
    struct server *s = arg;
    char body[2048], host[32];
    unsigned long long number;
    struct pd_str b = pd_http_req_body(req);
    assert_true(b.n < sizeof body);
    memcpy(body, b.p, b.n);
    body[b.n] = '\0';
    const char *at = strstr(body, "\"bootstrap_room\":");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"bootstrap_room\":%llu", &number), 1);
    const char *where = strstr(body, "\"bootstrap_host\":");
    assert_non_null(where);
    assert_int_equal(sscanf(where, "\"bootstrap_host\":\"%31[^\"]\",\"bootstrap_port\":8998,", host), 1);
    struct room *room = room_of(number);
    struct fake_leg *leg = &room->legs[!s->is_prefill], *other = &room->legs[s->is_prefill];
    /* A leg that was sent again on another connection comes twice, at one server. */
    wrong += leg->server != NULL && leg->server != s;
    wrong += s->is_prefill && strcmp(host, s == &servers[0] ? "10.1.0.1" : "10.1.0.2") != 0;
    if (leg->req != NULL)
        leg_over(leg);
    room->is_stream = strstr(body, "\"stream\":true") != NULL;
    if (s->says == SAY_BUSY || s->says == SAY_BROKEN || s->says == SAY_EVENT) {
        refuse(s, req, room->is_stream);
        return;
    }
    *leg = (struct fake_leg){ .room = room, .server = s, .req = req, .has_timer = true };
    pd_timer_init(&leg->timer, s->loop, "leg", on_timer, leg);
    pd_http_req_set_events(req, &leg_events, leg);
    if (room->is_stream)
        pd_http_begin(req, 200, &sse, 1, PD_HTTP_UNKNOWN_LENGTH);
    if (s->says == SAY_STALL)
        return;
    /* Both are there: the prompt is computed. */
    struct fake_leg *prefill = &room->legs[0];
    if (other->req != NULL && prefill->server->says != SAY_STALL)
        pd_timer_start(&prefill->timer, 20 * PD_MS);
}

static void on_health(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, NULL, 0, PD_STR(""));
}

static void on_models(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, &json, 1, PD_STR("{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\"}]}"));
}

static void server_start(struct sim_cluster *c, struct server *s)
{
    const struct pd_http_route routes[] = {
        { .path = "/health", .methods = 1u << PD_HTTP_GET, .on_request = on_health, .arg = s },
        { .path = "/v1/models", .methods = 1u << PD_HTTP_GET, .on_request = on_models, .arg = s },
        { .path = "/v1/chat/completions", .methods = 1u << PD_HTTP_POST, .on_request = on_chat, .arg = s },
    };
    struct pd_addr addr;
    char ip[32];
    snprintf(ip, sizeof ip, "10.1.0.%u", (unsigned)(s - servers) + 1);
    s->says = SAY_NOTHING;
    s->is_closed = false;
    assert_int_equal(pd_sim_loop_create(c->sim, s->name, ip, &s->loop), PD_OK);
    assert_int_equal(pd_http_server_create(s->loop, NULL, &s->http), PD_OK);
    pd_sim_addr(s->loop, 30000, &addr);
    assert_int_equal(pd_http_server_listen(s->http, &addr, NULL), PD_OK);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        assert_int_equal(pd_http_server_route(s->http, &routes[i]), PD_OK);
}

/* What a dead process held, so that it is not taken for a leak. */
static void *dead[65536];
static uint32_t n_dead;

static void server_crash(struct server *s)
{
    assert_true(n_dead + 2 <= sizeof dead / sizeof dead[0]);
    dead[n_dead++] = s->loop;
    dead[n_dead++] = s->http;
    for (uint32_t i = 0; i < n_rooms; i++) {
        for (uint32_t k = 0; k < 2; k++) {
            if (rooms[i].legs[k].server == s)
                rooms[i].legs[k].req = NULL;
        }
    }
    pd_sim_crash(s->loop, true);
}

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

static bool is_true(void *arg)
{
    return *(bool *)arg;
}

/* ---- a run ---------------------------------------------------------------------------------- */

/* What happens to a server while the requests run. */
struct fault {
    struct sim_cluster *cluster;
    struct server *server;
    uint32_t kind;
};

enum { FAULT_RESET, FAULT_SILENT, FAULT_CRASH, FAULT_SAYS, FAULTS = FAULT_SAYS + SAYS };

static void fault_now(void *arg)
{
    struct fault *f = arg;
    struct sim_cluster *c = f->cluster;
    if (f->kind == FAULT_RESET) {
        pd_sim_reset(c->sim, "router", f->server->name);
    } else if (f->kind == FAULT_SILENT) {
        pd_sim_partition(c->sim, "router", f->server->name, true);
        pd_sim_partition(c->sim, f->server->name, "router", true);
    } else if (f->kind == FAULT_CRASH) {
        server_crash(f->server);
        server_start(c, f->server);
    } else {
        f->server->says = f->kind - FAULT_SAYS;
    }
}

static void mend_now(void *arg)
{
    struct fault *f = arg;
    pd_sim_partition(f->cluster->sim, "router", f->server->name, false);
    pd_sim_partition(f->cluster->sim, f->server->name, "router", false);
    f->server->says = SAY_NOTHING;
}

struct run {
    uint64_t hash;
    uint32_t whole, broken, refused;
    double retries;
};

static void judge(const struct sim_answer *a, bool is_stream, struct run *out)
{
    char text[64];
    size_t n = 0;
    assert_true(a->is_over);
    assert_null(strstr(a->body, "SECRET"));
    assert_null(strstr(a->body, "bootstrap"));
    for (const char *p = a->body; (p = strstr(p, "\"content\":\"")) != NULL && n < sizeof text - 8;) {
        for (p += 11; *p != '"' && *p != '\0' && n < sizeof text - 1; p++)
            text[n++] = *p;
    }
    text[n] = '\0';
    if (a->status == 0) {
        assert_true(a->error != PD_OK && n == 0);
        out->refused++;
        return;
    }
    bool has_done = strstr(a->body, "data: [DONE]") != NULL, has_error = strstr(a->body, "\"error\"") != NULL;
    if (a->status == 200 && !has_error && a->error == PD_OK) {
        assert_string_equal(text, "01234");
        assert_true(has_done == is_stream);
        out->whole++;
    } else if (a->status == 200) {
        /* Some of it had gone out; what a broken connection had taken may not have come. */
        assert_true(strncmp(text, "01234", n) == 0 && (n > 0 || a->error != PD_OK));
        assert_true(has_error || a->error != PD_OK);
        assert_true(!has_done || (n == TOKENS && !has_error));
        out->broken++;
    } else {
        assert_true(a->status == 429 || a->status >= 500);
        assert_true(has_error && n == 0);
        out->refused++;
    }
}

static const char plain[] = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
static const char stream[] = "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";

static struct sim_node *world_begin(struct sim_cluster *c, uint64_t seed)
{
    n_rooms = wrong = 0;
    sim_cluster_init(c, seed, NULL);
    for (uint32_t i = 0; i < SERVERS; i++)
        server_start(c, &servers[i]);
    struct sim_node *router = sim_node_start(c, "router", conf);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 3 * PD_SEC);
    return router;
}

/* Every leg has ended, at both servers, and had a room of its own. */
static void check_rooms(void)
{
    for (uint32_t i = 0; i < n_rooms; i++)
        assert_true(rooms[i].legs[0].req == NULL && rooms[i].legs[1].req == NULL);
    assert_int_equal(wrong, 0);
}

static void world_end(struct sim_cluster *c)
{
    for (uint32_t i = 0; i < SERVERS; i++) {
        struct server *s = &servers[i];
        pd_http_server_close(s->http, on_closed, &s->is_closed);
        assert_true(pd_sim_run_cond(c->sim, pd_sim_now(c->sim) + 10 * PD_SEC, is_true, &s->is_closed));
        pd_sim_run_until(c->sim, pd_sim_now(c->sim) + PD_MS);
        assert_int_equal(pd_loop_destroy(s->loop, NULL, 0), PD_OK);
    }
    sim_cluster_fini(c);
}

/* Some requests, with a fault every now and then when n_faults says so. */
static void run(uint64_t seed, uint32_t n_faults, struct run *out)
{
    static struct sim_answer answers[REQUESTS];
    struct sim_cluster c;
    struct fault faults[8];
    const char *bodies[REQUESTS];
    uint64_t dice = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    double v = 0;
    struct sim_node *router = world_begin(&c, seed);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < n_faults; i++) {
            dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407u;
            faults[i] = (struct fault){ .cluster = &c, .server = &servers[(dice >> 33) % SERVERS],
                                        .kind = (uint32_t)((dice >> 40) % FAULTS) };
            pd_time when = pd_sim_now(c.sim) + 1 + (dice >> 20) % (60 * PD_MS);
            assert_int_equal(pd_sim_at(c.sim, when, fault_now, &faults[i]), PD_OK);
            assert_int_equal(pd_sim_at(c.sim, when + PD_SEC * (1 + (dice >> 50) % 6), mend_now, &faults[i]), PD_OK);
        }
        for (uint32_t i = 0; i < REQUESTS; i++)
            bodies[i] = (i & 1) != 0 ? stream : plain;
        sim_post_many(&c, "10.0.0.1", 8000, "/v1/chat/completions", bodies, REQUESTS, 60 * PD_SEC, answers);
        for (uint32_t i = 0; i < REQUESTS; i++)
            judge(&answers[i], (i & 1) != 0, out);
        pd_sim_run_until(c.sim, pd_sim_now(c.sim) + 12 * PD_SEC);
        check_rooms();
    }
    pd_metrics_read(router->node->metrics, "pdplane_router_retries_total", NULL, &v);
    out->retries += v;
    out->hash = pd_sim_hash(c.sim);
    world_end(&c);
}

struct shortage {
    struct pd_sim *sim;
    bool is_memory;
    uint64_t n, from;
};

static uint64_t counted(const struct shortage *s)
{
    return s->is_memory ? pd_mem_count() : pd_sim_operations(s->sim);
}

static void shortage_set(struct shortage *s, uint64_t n)
{
    if (s->is_memory)
        pd_mem_fault_set(n);
    else
        pd_sim_refuse(s->sim, n);
}

static void shortage_now(void *arg)
{
    struct shortage *s = arg;
    s->from = counted(s);
    shortage_set(s, s->n);
}

/* One request with the n-th failing; 0: none.  How many there were. */
static uint64_t run_short(struct sim_cluster *c, bool is_memory, bool is_stream, uint64_t n, struct run *out)
{
    static struct sim_answer a;
    struct shortage s = { .sim = c->sim, .is_memory = is_memory, .n = n };
    assert_int_equal(pd_sim_at(c->sim, pd_sim_now(c->sim) + 1, shortage_now, &s), PD_OK);
    sim_post(c, "10.0.0.1", 8000, "/v1/chat/completions", is_stream ? stream : plain, 60 * PD_SEC, &a);
    uint64_t used = counted(&s) - s.from;
    shortage_set(&s, 0);
    judge(&a, is_stream, out);
    /* A server that was taken for dead comes back. */
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 8 * PD_SEC);
    check_rooms();
    return used;
}

static void test_without_faults(void **state)
{
    struct run r = { 0 };
    (void)state;
    run(1, 0, &r);
    assert_int_equal(r.whole, 3 * REQUESTS);
    assert_true(r.retries == 0);
    assert_int_equal(n_rooms, 3 * REQUESTS);
}

static void test_same_seed_same_log(void **state)
{
    struct run a = { 0 }, b = { 0 }, other = { 0 };
    (void)state;
    run(7, 3, &a);
    run(7, 3, &b);
    run(8, 3, &other);
    assert_true(a.hash == b.hash);
    assert_true(a.hash != other.hash);
}

static void test_faults(void **state)
{
    struct run r = { 0 };
    const char *more = getenv("PD_SEEDS");
    uint64_t n = more != NULL ? strtoull(more, NULL, 10) : 12;
    (void)state;
    for (uint64_t seed = 1; seed <= n; seed++)
        run(100 + seed, 4, &r);
    fprintf(stderr, "# %u answers whole, %u broken off, %u refused, %.0f retries\n", r.whole, r.broken, r.refused,
            r.retries);
    assert_int_equal(r.whole + r.broken + r.refused, n * 3 * REQUESTS);
    /* Most are mended by another pair. */
    assert_true(r.retries > n && r.whole > n * 3 * REQUESTS / 2);
}

static void test_shortages(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 4; kind++) {
        struct run bad = { 0 }, good = { 0 };
        bool is_memory = (kind & 1) != 0, is_stream = (kind & 2) != 0;
        struct sim_cluster c;
        world_begin(&c, 5);
        uint64_t cold = run_short(&c, is_memory, is_stream, 0, &good), n = 1;
        for (; n <= cold; n++) {
            if (n_rooms > ROOMS - 16)
                n_rooms = 0;
            run_short(&c, is_memory, is_stream, n, &bad);
            run_short(&c, is_memory, is_stream, 0, &good);
        }
        world_end(&c);
        assert_true(cold > 10);
        assert_int_equal(good.whole, cold + 1);
        fprintf(stderr, "# %s, %s: %llu failed in turn: %u answers whole, %u broken off, %u refused\n",
                is_memory ? "memory" : "operations", is_stream ? "stream" : "plain", (unsigned long long)cold,
                bad.whole, bad.broken, bad.refused);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_without_faults),
                                        cmocka_unit_test(test_same_seed_same_log),
                                        cmocka_unit_test(test_faults), cmocka_unit_test(test_shortages) };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
