/* SPDX-License-Identifier: Apache-2.0 */
/* How long anybody waits, in virtual time, so that the limits are exact: for a peer
 * that hangs or cannot be reached, and for blocks whose client has left.  A fault comes
 * at each step that the books of any node note, and at moments in between. */
#include "unit.h"

#include "sim_nodes.h"

#define MODEL "contrib/tinymodel/tiny.gguf"
/* What silence costs at most (link.patience), and all that follows it. */
#define PATIENCE (2500 * PD_MS)
#define AFTERWARDS (300 * PD_MS)
#define STRIDE 3u

static char router_conf[1024], prefill_conf[2048], decode_conf[2048];

#define BODY(words)                                                                            \
    "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":12,\"stream\":true,\"messages\":["  \
    "{\"role\":\"user\",\"content\":\"Repeat these words: " words "\"}]}"
static const char body[] = BODY("lion, lamp, river, honey, silver, goat, train.");
static const char other_body[] = BODY("owl, kite.");

enum { ROUTER, PREFILL, DECODE, DECODE2, PREFILL2, NODES };

static int setup(void **state)
{
    const char *src = getenv("PD_SRCDIR");
    (void)state;
    snprintf(router_conf, sizeof router_conf,
             "load = [ \"router\" ];\n"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; },\n"
             "           { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "peers = ( { address = \"10.0.0.2:7000\"; }, { address = \"10.0.0.3:7000\"; },\n"
             "          { address = \"10.0.0.4:7000\"; }, { address = \"10.0.0.5:7000\"; } );\n");
    for (int i = 0; i < 2; i++)
        snprintf(i == 0 ? prefill_conf : decode_conf, sizeof prefill_conf,
                 "load = [ \"%s\", \"ref\", \"tcp\" ];\n"
                 "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
                 "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"2m\";\n"
                 "             roles = [ \"%s\" ]; step_tokens = 16; ms_per_token = 2.0;\n"
                 "             prefill_tokens_per_s = 2000; } );\n",
                 i == 0 ? "prefill" : "decode", src != NULL ? src : ".", i == 0 ? "prefill" : "decode");
    return 0;
}

static void cluster_start(struct sim_cluster *c, uint64_t seed)
{
    sim_cluster_init(c, seed, NULL);
    sim_node_start(c, "router", router_conf);
    sim_node_start(c, "prefill", prefill_conf);
    sim_node_start(c, "decode", decode_conf);
    sim_node_start(c, "decode2", decode_conf);
    sim_node_start(c, "prefill2", prefill_conf);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC);
}

static uint64_t live_of(const struct sim_node *n)
{
    struct pd_req_counts counts;
    pd_reqs_counts(n->node->reqs, &counts);
    return counts.outcome[PD_REQ_LIVE];
}

/* ---- something that happens at the n-th step, and some time later */

struct act {
    struct sim_cluster *cluster;
    uint32_t at;               /* the step, from 1; 0: never */
    pd_time later;
    uint32_t n;                /* steps so far */
    uint32_t stage;            /* of the step */
    void (*fn)(struct act *act);
    pd_time done_at;           /* 0: not yet */
    int kind;
};

static void act_now(void *arg)
{
    struct act *act = arg;
    act->done_at = pd_sim_now(act->cluster->sim);
    act->fn(act);
}

static void on_step(const struct pd_req *req, void *arg)
{
    struct act *act = arg;
    if (++act->n != act->at)
        return;
    act->stage = req->stage;
    assert_int_equal(pd_sim_at(act->cluster->sim, pd_sim_now(act->cluster->sim) + act->later, act_now, act),
                     PD_OK);
}

static void watch_steps(struct sim_cluster *c, struct act *act)
{
    for (uint32_t i = 0; i < c->n; i++)
        pd_reqs_watch(c->nodes[i].node->reqs, act != NULL ? on_step : NULL, act);
}

/* ---- peers that hang */

enum {
    STOP_PREFILL, CUT_PREFILL, CUT_PD, CUT_PD_ONE_WAY, STOP_ALL_PREFILL,
    STOP_DECODE, CUT_RD, CUT_DECODE, CUT_DECODE_ONE_WAY, KINDS
};

static void cut(struct sim_cluster *c, const char *a, const char *b, bool both)
{
    assert_int_equal(pd_sim_partition(c->sim, a, b, true), PD_OK);
    if (both)
        assert_int_equal(pd_sim_partition(c->sim, b, a, true), PD_OK);
}

/* The one of two nodes that works on the request. */
static struct sim_node *busy_one(struct sim_cluster *c, uint32_t a, uint32_t b)
{
    return &c->nodes[live_of(&c->nodes[b]) > 0 && live_of(&c->nodes[a]) == 0 ? b : a];
}

static void hang(struct act *act)
{
    struct sim_cluster *c = act->cluster;
    struct sim_node *p = busy_one(c, PREFILL, PREFILL2), *d = busy_one(c, DECODE, DECODE2);
    switch (act->kind) {
    case STOP_PREFILL:
        pd_sim_stop(p->loop, true);
        break;
    case CUT_PREFILL:
        cut(c, p->host, NULL, true);
        break;
    case CUT_PD:
        cut(c, p->host, d->host, true);
        break;
    case CUT_PD_ONE_WAY:
        cut(c, p->host, d->host, false);
        break;
    case STOP_ALL_PREFILL:
        pd_sim_stop(c->nodes[PREFILL].loop, true);
        pd_sim_stop(c->nodes[PREFILL2].loop, true);
        break;
    case STOP_DECODE:
        pd_sim_stop(d->loop, true);
        break;
    case CUT_RD:
        cut(c, "router", d->host, true);
        break;
    case CUT_DECODE:
        cut(c, d->host, NULL, true);
        break;
    default:
        cut(c, d->host, "router", false);
        break;
    }
}

static void heal(struct sim_cluster *c)
{
    /* A fault that is still to come does so before. */
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 10 * PD_MS);
    pd_sim_heal(c->sim);
    for (uint32_t i = 0; i < c->n; i++)
        pd_sim_stop(c->nodes[i].loop, false);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + 15 * PD_SEC);
}

static pd_time seen_at;

static void on_event(void *arg)
{
    seen_at = pd_sim_now(((struct sim_cluster *)arg)->sim);
}

static void text_of(const struct sim_answer *a, char *out, size_t size)
{
    static const char mark[] = "\"content\":\"";
    size_t n = 0;
    for (const char *p = a->body; (p = strstr(p, mark)) != NULL;) {
        for (p += sizeof mark - 1; *p != '\0' && *p != '"' && n + 1 < size; p++)
            out[n++] = *p;
    }
    out[n] = '\0';
}

/* Runs the request; the time until its answer is complete. */
static pd_time ask(struct sim_cluster *c, char *text, size_t size, uint64_t name)
{
    static struct sim_answer a;
    pd_time from = pd_sim_now(c->sim);
    c->watch = on_event;
    sim_post(c, "10.0.0.1", 8000, "/v1/chat/completions", body, 60 * PD_SEC, &a);
    c->watch = NULL;
    if (a.status != 200 || strstr(a.body, "data: [DONE]") == NULL)
        fprintf(stderr, "# case %llu: status %u, error %d: %s\n", (unsigned long long)name, a.status,
                (int)a.error, a.body);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "data: [DONE]"));
    text_of(&a, text, size);
    return seen_at - from;
}

static char expected[4096];

/* Steps and time of a request without faults. */
static pd_time plain_run(uint32_t *steps)
{
    struct sim_cluster c;
    cluster_start(&c, 1);
    struct act act = { .cluster = &c };
    watch_steps(&c, &act);
    pd_time took = ask(&c, expected, sizeof expected, 0);
    watch_steps(&c, NULL);
    *steps = act.n;
    sim_cluster_fini(&c);
    assert_true(strlen(expected) > 20);
    return took;
}

/* Wherever a request is when a prefill or decode node hangs, or is out of reach for
 * anybody: it goes on elsewhere behind one silence, never two. */
static void test_hung_peers(void **state)
{
    static char text[4096];
    uint32_t steps;
    uint32_t hits[KINDS] = { 0 };
    pd_time most[KINDS] = { 0 }, normal = plain_run(&steps);
    (void)state;
    assert_true(steps > 30);
    for (int kind = 0; kind < KINDS; kind++) {
        bool is_prefill = kind <= STOP_ALL_PREFILL;
        /* Prefill is over in the first third of the steps. */
        uint32_t last = is_prefill ? steps * 2 / 5 : steps, by = is_prefill ? 1 : STRIDE;
        for (uint32_t at = 1 + (uint32_t)kind % by; at <= last; at += by) {
            struct sim_cluster c;
            uint64_t name = (uint64_t)kind * 1000 + at;
            cluster_start(&c, 1000 + name);
            struct act act = { .cluster = &c, .at = at, .later = (at % 3) * 700 * PD_US, .fn = hang, .kind = kind };
            watch_steps(&c, &act);
            ask(&c, text, sizeof text, name);
            watch_steps(&c, NULL);
            assert_string_equal(text, expected);
            if (act.done_at != 0 && seen_at > act.done_at) {
                pd_time took = seen_at - act.done_at;
                most[kind] = took > most[kind] ? took : most[kind];
                if (took > PATIENCE + normal + AFTERWARDS)
                    fprintf(stderr, "# case %llu took %llu ms\n", (unsigned long long)name,
                            (unsigned long long)(took / PD_MS));
                assert_true(took <= PATIENCE + normal + AFTERWARDS);
                hits[kind] += took > PD_SEC;
            }
            heal(&c);
            sim_cluster_fini(&c);
        }
    }
    for (int kind = 0; kind < KINDS; kind++) {
        print_message("# kind %d: at most %llu ms after the fault, noticed %u times\n", kind,
                      (unsigned long long)(most[kind] / PD_MS), hits[kind]);
        assert_true(hits[kind] > 0);
    }
}

/* The same for a request that comes when the node hangs already, before anybody knows. */
static void test_hung_before(void **state)
{
    static char text[4096];
    uint32_t steps;
    pd_time normal = plain_run(&steps);
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (pd_time before = 100 * PD_MS; before < 4500 * PD_MS; before += 200 * STRIDE * PD_MS) {
            struct sim_cluster c;
            uint64_t name = 100000 + (uint64_t)kind * 10000 + before / PD_MS;
            cluster_start(&c, name);
            struct act act = { .cluster = &c, .fn = hang, .kind = kind };
            act_now(&act);
            pd_sim_run_until(c.sim, pd_sim_now(c.sim) + before);
            pd_time took = ask(&c, text, sizeof text, name);
            assert_string_equal(text, expected);
            if (took > PATIENCE + normal + AFTERWARDS)
                fprintf(stderr, "# case %llu took %llu ms\n", (unsigned long long)name, (unsigned long long)(took / PD_MS));
            assert_true(took <= PATIENCE + normal + AFTERWARDS);
            heal(&c);
            sim_cluster_fini(&c);
        }
    }
}

/* ---- peers that are slow */

enum { MANY = 16 };

static struct sim_answer many[MANY];
static pd_time over_at[MANY];

static void on_event_of_many(void *arg)
{
    for (int i = 0; i < MANY; i++) {
        if (many[i].is_over && over_at[i] == 0)
            over_at[i] = pd_sim_now(((struct sim_cluster *)arg)->sim);
    }
}

/* Sends some at once; how many are over within that time, all are right. */
static uint32_t ask_many(struct sim_cluster *c, pd_time within, pd_time *last)
{
    static char salted[MANY][512];
    const char *bodies[MANY];
    char text[4096];
    uint32_t n = 0;
    /* Nothing of one is in the cache for another, so that they go to both nodes. */
    for (int i = 0; i < MANY; i++) {
        snprintf(salted[i], sizeof salted[i], "{\"cache_salt\":\"%d\",%s", i, body + 1);
        bodies[i] = salted[i];
    }
    memset(many, 0, sizeof many);
    memset(over_at, 0, sizeof over_at);
    pd_time from = pd_sim_now(c->sim);
    c->watch = on_event_of_many;
    sim_post_many(c, "10.0.0.1", 8000, "/v1/chat/completions", bodies, MANY, 120 * PD_SEC, many);
    c->watch = NULL;
    *last = 0;
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(many[i].status, 200);
        text_of(&many[i], text, sizeof text);
        assert_string_equal(text, expected);
        pd_time took = over_at[i] == 0 ? within + 1 : over_at[i] - from;
        n += took <= within;
        *last = took > *last ? took : *last;
    }
    return n;
}

/* One decode node behind a link with room for hardly anything: its own requests take
 * long, those of the other one as long as without it, and all are right. */
static void test_slow_peer(void **state)
{
    uint32_t steps;
    pd_time last = 0, slow_last = 0;
    struct sim_cluster c;
    (void)state;
    plain_run(&steps);
    cluster_start(&c, 31);
    assert_int_equal(ask_many(&c, 60 * PD_SEC, &last), MANY);
    sim_cluster_fini(&c);
    cluster_start(&c, 31);
    struct pd_sim_link link;
    assert_int_equal(pd_sim_link_get(c.sim, "decode", "router", &link), PD_OK);
    link.bytes_per_s = 4000;
    assert_int_equal(pd_sim_link_set(c.sim, "decode", "router", &link), PD_OK);
    uint32_t n = ask_many(&c, 2 * last, &slow_last);
    print_message("# a slow peer: %u of %u within %llu ms, the last after %llu ms\n", n, (unsigned)MANY,
                  (unsigned long long)(2 * last / PD_MS), (unsigned long long)(slow_last / PD_MS));
    assert_true(n >= MANY / 4 && n < MANY);
    assert_true(slow_last > 4 * last);
    sim_cluster_fini(&c);
}

/* ---- clients that leave */

struct leaver {
    struct pd_loop *loop;
    struct pd_stream *stream;
    char bytes[1024];
    size_t n;                   /* of bytes, what is sent before it leaves or waits */
    size_t sent;
    bool is_closed;
};

static void leaver_writable(struct pd_stream *s, void *arg)
{
    struct leaver *l = arg;
    size_t n = 0;
    while (l->sent < l->n && pd_stream_write(s, l->bytes + l->sent, l->n - l->sent, &n) == PD_OK)
        l->sent += n;
}

static void leaver_connected(struct pd_stream *s, pd_status status, void *arg)
{
    assert_int_equal(status, PD_OK);
    leaver_writable(s, arg);
}

static void leaver_readable(struct pd_stream *s, void *arg)
{
    char buf[4096];
    size_t n;
    (void)arg;
    while (pd_stream_read(s, buf, sizeof buf, &n) == PD_OK)
        ;
}

static void leaver_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct leaver *)arg)->is_closed = true;
}

static const struct pd_stream_events leaver_events = {
    .name = "client", .on_connected = leaver_connected, .on_readable = leaver_readable,
    .on_writable = leaver_writable, .on_closed = leaver_closed,
};

static struct leaver leaver;
static struct sim_node *is_hung;

/* How a client leaves, and what else happens then. */
enum { FIN, RESET, HUNG };

static void leave(struct act *act)
{
    if (act->kind == HUNG) {
        is_hung = busy_one(act->cluster, PREFILL, PREFILL2);
        pd_sim_stop(is_hung->loop, true);
    }
    if (act->kind == RESET)
        assert_int_equal(pd_stream_set_option(leaver.stream, PD_STREAM_LINGER_RESET, 1), PD_OK);
    pd_stream_close(leaver.stream);
    leaver.stream = NULL;
}

static void leaver_start(struct sim_cluster *c, size_t n)
{
    struct pd_addr addr;
    memset(&leaver, 0, sizeof leaver);
    assert_int_equal(pd_sim_loop_create(c->sim, "client", "10.9.9.9", &leaver.loop), PD_OK);
    size_t all = (size_t)snprintf(leaver.bytes, sizeof leaver.bytes,
                                  "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                                  "content-length: %zu\r\n\r\n%s", strlen(body), body);
    leaver.n = n < all ? n : all;
    assert_int_equal(pd_addr_parse(leaver.loop, PD_STR("10.0.0.1:8000"), &addr), PD_OK);
    assert_int_equal(pd_stream_connect(leaver.loop, &addr, &leaver_events, &leaver, &leaver.stream), PD_OK);
}

static double metric(struct sim_node *n, const char *name)
{
    double v = -1;
    pd_metrics_read(n->node->metrics, name, NULL, &v);
    return v;
}

/* Nothing of the request is left on any node that runs. */
static bool is_at_rest(void *arg)
{
    struct sim_cluster *c = arg;
    const struct pd_http_server_stats *s = pd_http_server_stats(c->nodes[ROUTER].node->net.openai);
    if (!leaver.is_closed || s->conns_idle + s->conns_reading + s->conns_serving + s->conns_closing > 0 ||
        s->body_bytes + s->queued_bytes > 0)
        return false;
    for (uint32_t i = 0; i < c->n; i++) {
        struct sim_node *n = &c->nodes[i];
        struct pd_engine_load load = { .size = sizeof load };
        if (n == is_hung)
            continue;
        if (live_of(n) > 0 || metric(n, "pdplane_kv_leases") != 0 || metric(n, "pdplane_kv_transfer_inflight") != 0)
            return false;
        if (i == ROUTER)
            continue;
        n->node->engines[0]->e.ops->load(n->node->engines[0]->e.engine, &load);
        if (load.running + load.waiting > 0 || load.blocks_free != load.blocks_total)
            return false;
    }
    return true;
}

static bool has_left(void *arg)
{
    return ((struct act *)arg)->done_at != 0;
}

/* One client that sends n bytes and leaves at a step (0: `later` after its start); how
 * long it took until nothing was left.  False: the request was over before. */
static bool leave_once(uint32_t at, pd_time later, size_t n, int kind, uint32_t *stage, pd_time *took)
{
    static struct sim_answer warm;
    struct sim_cluster c;
    pd_time limit = kind == HUNG ? PATIENCE + AFTERWARDS : PD_SEC;
    cluster_start(&c, 7000 + at);
    is_hung = NULL;
    /* The ways between the nodes are there. */
    for (int i = 0; i < 2; i++)
        sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", other_body, 60 * PD_SEC, &warm);
    struct act act = { .cluster = &c, .at = at, .later = later, .fn = leave, .kind = kind };
    watch_steps(&c, &act);
    leaver_start(&c, n);
    if (at == 0)
        assert_int_equal(pd_sim_at(c.sim, pd_sim_now(c.sim) + later, act_now, &act), PD_OK);
    bool was_there = pd_sim_run_cond(c.sim, pd_sim_now(c.sim) + 5 * PD_SEC, has_left, &act);
    if (was_there) {
        bool is_free = pd_sim_run_cond(c.sim, act.done_at + limit, is_at_rest, &c);
        if (!is_free)
            fprintf(stderr, "# after a client left at step %u (stage %u, kind %d) something is left\n", at,
                    act.stage, kind);
        assert_true(is_free);
        *took = pd_sim_now(c.sim) - act.done_at;
        *stage = act.stage;
    } else {
        leave(&act);
        pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_SEC);
    }
    watch_steps(&c, NULL);
    if (is_hung != NULL)
        heal(&c);
    pd_sim_run_until(c.sim, pd_sim_now(c.sim) + PD_MS);
    assert_int_equal(pd_loop_destroy(leaver.loop, NULL, 0), PD_OK);
    sim_cluster_fini(&c);
    return was_there;
}

/* Whatever is under way when a client leaves, blocks, leases, transfers, requests and
 * connections of all nodes are free within a second. */
static void test_clients_leave(void **state)
{
    uint32_t seen = 0, stage = 0, at = 1;
    pd_time most = 0, took = 0;
    (void)state;
    for (; leave_once(at, (at % 4) * 300 * PD_US, 1024, at % 2 == 1 ? RESET : FIN, &stage, &took); at++) {
        seen |= 1u << stage;
        most = took > most ? took : most;
    }
    assert_true(at > 30);
    /* In the middle of its head and of its body, and before it said anything. */
    for (size_t n = 0; n < 300; n += 60) {
        assert_true(leave_once(0, 20 * PD_MS, n, n % 120 == 0 ? RESET : FIN, &stage, &took));
        most = took > most ? took : most;
    }
    uint32_t want = 1u << PD_REQ_ACCEPTED | 1u << PD_REQ_QUEUED | 1u << PD_REQ_PREFILL_SENT |
                    1u << PD_REQ_PREFILLING | 1u << PD_REQ_PREFILLED | 1u << PD_REQ_DECODE_SENT |
                    1u << PD_REQ_VERIFIED | 1u << PD_REQ_DECODING | 1u << PD_REQ_FINISHING;
    assert_int_equal(seen & want, want);
    print_message("# all is free at most %llu us after a client left\n", (unsigned long long)(most / PD_US));
    /* The prefill node hangs at that moment: the others do not wait longer for it than
     * for any peer. */
    most = 0;
    for (at = 1; leave_once(at, (at % 4) * 300 * PD_US, 1024, HUNG, &stage, &took); at += STRIDE)
        most = took > most ? took : most;
    print_message("# and %llu us when the prefill node hangs\n", (unsigned long long)(most / PD_US));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hung_peers),
        cmocka_unit_test(test_hung_before),
        cmocka_unit_test(test_slow_peer),
        cmocka_unit_test(test_clients_leave),
    };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, setup, NULL);
}
