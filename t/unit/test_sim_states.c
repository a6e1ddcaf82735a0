/* SPDX-License-Identifier: Apache-2.0 */
/* Which transitions the state machines of links, dials, peers, hand-overs and
 * requests make in whole nodes under faults, looked at after each event of the
 * simulator.  Fails when one is made that the table below does not have, and when one
 * of the table is never made.  (Leases: test_kv_lease has all pairs of state
 * and event.)
 *
 * An event may make several steps; the table has what can be seen. */
#include "unit.h"

#include "kv/priv.h"
#include "peer/priv.h"
#include "req/reqs.h"
#include "sim_nodes.h"

#define MODEL "contrib/tinymodel/tiny.gguf"

enum machine { LINK, DIAL, PEER, SOURCE, DEST, WAY, LEASE, REQUEST, MACHINES };
enum { STATES = 16, NEW = 14, GONE = 15, OBJECTS = 4096 };

static const char *const machine_names[MACHINES] = {
    "link", "dial", "peer", "source", "dest", "way", "lease", "request"
};
static const char *const names[MACHINES][STATES] = {
    [LINK] = { "connecting", "preamble", "hello", "ready", "up", "closing", "closed" },
    [DIAL] = { "waiting", "resolving", "linking", "linked", "covered", "self" },
    [PEER] = { "-", "connecting", "up", "suspect", "down" },
    [SOURCE] = { "connecting", "moving", "waiting", "stopping", "fencing", "ended" },
    [DEST] = { "open", "closing", "verifying", "ended" },
    [WAY] = { "connecting", "up", "closing" },
    [LEASE] = { "active", "settling", "verifying", "expired", "fencing", "fenced", "released" },
    [REQUEST] = { "accepted", "header", "body", "queued", "prefill_sent", "prefilling", "prefilled",
                  "decode_sent", "moving", "verified", "decoding", "finishing", "ended" },
};

static uint64_t seen[MACHINES][STATES][STATES];

static struct object {
    enum machine machine;
    const void *at;
    uint64_t id;
    uint32_t state;
    uint32_t round;
} objects[OBJECTS];
static uint32_t n_objects, looks;

static void look_at(enum machine machine, const void *at, uint64_t id, uint32_t state)
{
    for (uint32_t i = 0; i < n_objects; i++) {
        struct object *o = &objects[i];
        if (o->machine != machine || o->at != at || o->id != id)
            continue;
        if (o->state != state)
            seen[machine][o->state][state]++;
        o->state = state;
        o->round = looks;
        return;
    }
    assert_true(n_objects < OBJECTS);
    objects[n_objects++] = (struct object){ machine, at, id, state, looks };
    seen[machine][NEW][state]++;
}

static void look_at_node(const struct sim_node *n)
{
    const struct pd_peers *peers = n->node->peers;
    const struct pd_kv *kv = n->node->kv;
    if (peers != NULL) {
        PD_LIST_EACH(&peers->links, l) {
            const struct pd_link *k = PD_LIST_ENTRY(l, const struct pd_link, node);
            look_at(LINK, k, k->mine.nonce[0] | (uint64_t)k->mine.nonce[1] << 8, k->state);
        }
        PD_LIST_EACH(&peers->dials, l) {
            const struct pd_dial *d = PD_LIST_ENTRY(l, const struct pd_dial, node);
            look_at(DIAL, d, 0, d->state);
        }
        PD_LIST_EACH(&peers->all, l) {
            const struct pd_peer *p = PD_LIST_ENTRY(l, const struct pd_peer, node);
            look_at(PEER, peers, p->ref, p->state);
        }
    }
    if (kv != NULL) {
        PD_LIST_EACH(&kv->sources, l) {
            const struct pd_kv_source *s = PD_LIST_ENTRY(l, const struct pd_kv_source, e.node);
            look_at(SOURCE, kv, s->e.xid, s->state);
        }
        PD_LIST_EACH(&kv->dests, l) {
            const struct pd_kv_dest *d = PD_LIST_ENTRY(l, const struct pd_kv_dest, e.node);
            look_at(DEST, kv, d->e.xid, d->state);
        }
        PD_LIST_EACH(&kv->ways, l) {
            const struct pd_kv_way *w = PD_LIST_ENTRY(l, const struct pd_kv_way, node);
            look_at(WAY, w, w->id.epoch, w->state);
        }
        PD_LIST_EACH(&kv->leases.live, l) {
            const struct pd_lease *e = PD_LIST_ENTRY(l, const struct pd_lease, node);
            look_at(LEASE, kv, e->xid, e->state);
        }
        PD_LIST_EACH(&kv->leases.tombs, l) {
            const struct pd_lease *e = PD_LIST_ENTRY(l, const struct pd_lease, node);
            look_at(LEASE, kv, e->xid, e->state);
        }
    }
    uint64_t cursor = 0;
    const struct pd_req *r;
    while (pd_reqs_next(n->node->reqs, &cursor, &r))
        look_at(REQUEST, n->node, r->number, r->stage);
}

static void look(void *arg)
{
    struct sim_cluster *c = arg;
    looks++;
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->nodes[i].node != NULL && !c->nodes[i].is_closed)
            look_at_node(&c->nodes[i]);
    }
    /* What was not found is no more. */
    for (uint32_t i = 0; i < n_objects; i++) {
        if (objects[i].round == looks)
            continue;
        seen[objects[i].machine][objects[i].state][GONE]++;
        objects[i--] = objects[--n_objects];
    }
}

/* ---- the table: machine, from, to.  MAY: so rare that a run may be without it. */

enum { MUST, MAY };
static const struct {
    enum machine machine;
    const char *from, *to;
    uint32_t may;
} table[] = {
    { LINK, "connecting", "closed", MUST }, { LINK, "connecting", "gone", MUST },
    { LINK, "preamble", "hello", MUST }, { LINK, "preamble", "up", MAY },
    { LINK, "preamble", "ready", MAY }, { LINK, "preamble", "closing", MAY },
    { LINK, "preamble", "closed", MUST }, { LINK, "preamble", "gone", MAY },
    { LINK, "hello", "ready", MUST }, { LINK, "hello", "up", MUST },
    { LINK, "hello", "closing", MUST }, { LINK, "hello", "closed", MUST },
    { LINK, "hello", "gone", MAY }, { LINK, "ready", "up", MUST },
    { LINK, "ready", "closing", MUST }, { LINK, "ready", "closed", MUST },
    { LINK, "up", "closing", MUST }, { LINK, "up", "closed", MUST }, { LINK, "up", "gone", MUST },
    { LINK, "closing", "closed", MUST }, { LINK, "closed", "gone", MUST },
    { LINK, "new", "connecting", MUST }, { LINK, "new", "preamble", MUST },
    { LINK, "new", "hello", MUST }, { LINK, "new", "up", MUST },
    { DIAL, "waiting", "resolving", MUST }, { DIAL, "waiting", "linking", MUST },
    { DIAL, "waiting", "gone", MUST }, { DIAL, "resolving", "linking", MUST },
    { DIAL, "linking", "waiting", MUST }, { DIAL, "linking", "linked", MUST },
    { DIAL, "linking", "covered", MUST }, { DIAL, "linking", "self", MUST },
    { DIAL, "linking", "gone", MUST }, { DIAL, "linked", "waiting", MUST },
    { DIAL, "linked", "gone", MUST }, { DIAL, "covered", "resolving", MUST },
    { DIAL, "covered", "linking", MAY }, { DIAL, "covered", "gone", MUST },
    { DIAL, "self", "gone", MUST }, { DIAL, "new", "waiting", MUST },
    { DIAL, "new", "linking", MUST }, { PEER, "connecting", "up", MUST },
    { PEER, "connecting", "down", MUST }, { PEER, "connecting", "gone", MAY },
    { PEER, "up", "suspect", MUST }, { PEER, "up", "down", MUST }, { PEER, "up", "gone", MUST },
    { PEER, "suspect", "up", MUST }, { PEER, "suspect", "down", MUST },
    { PEER, "down", "up", MUST }, { PEER, "down", "gone", MUST },
    { PEER, "new", "connecting", MUST }, { PEER, "new", "up", MUST },
    { SOURCE, "connecting", "moving", MUST }, { SOURCE, "connecting", "gone", MUST },
    { SOURCE, "moving", "waiting", MUST }, { SOURCE, "moving", "stopping", MUST },
    { SOURCE, "moving", "gone", MUST }, { SOURCE, "waiting", "gone", MUST },
    { SOURCE, "waiting", "stopping", MUST }, { SOURCE, "stopping", "fencing", MUST }, { SOURCE, "stopping", "gone", MUST },
    { SOURCE, "fencing", "gone", MUST }, { SOURCE, "new", "connecting", MUST },
    { DEST, "open", "verifying", MUST }, { DEST, "open", "gone", MUST },
    { DEST, "verifying", "gone", MUST }, { DEST, "new", "open", MUST },
    { WAY, "connecting", "up", MUST }, { WAY, "connecting", "gone", MUST },
    { WAY, "up", "closing", MUST }, { WAY, "up", "gone", MUST }, { WAY, "closing", "gone", MUST },
    { WAY, "new", "connecting", MUST }, { LEASE, "active", "settling", MUST },
    { LEASE, "settling", "verifying", MUST }, { LEASE, "settling", "released", MUST },
    { LEASE, "active", "released", MUST }, { LEASE, "active", "gone", MUST },
    { LEASE, "verifying", "released", MUST }, { LEASE, "released", "gone", MUST },
    { LEASE, "new", "active", MUST }, { REQUEST, "accepted", "prefill_sent", MUST },
    { REQUEST, "accepted", "decoding", MUST }, { REQUEST, "accepted", "ended", MAY },
    { REQUEST, "accepted", "gone", MAY }, { REQUEST, "prefill_sent", "verified", MUST },
    { REQUEST, "prefill_sent", "decoding", MUST }, { REQUEST, "prefill_sent", "ended", MUST },
    { REQUEST, "prefill_sent", "gone", MUST }, { REQUEST, "prefilling", "prefilled", MUST },
    { REQUEST, "prefilling", "ended", MUST }, { REQUEST, "prefilling", "gone", MUST },
    { REQUEST, "prefilled", "ended", MUST }, { REQUEST, "prefilled", "gone", MAY },
    { REQUEST, "decode_sent", "prefill_sent", MUST }, { REQUEST, "verified", "decoding", MUST },
    { REQUEST, "decoding", "ended", MUST }, { REQUEST, "decoding", "gone", MUST },
    { REQUEST, "ended", "gone", MUST }, { REQUEST, "new", "accepted", MUST },
    { REQUEST, "new", "prefilling", MUST }, { REQUEST, "new", "decode_sent", MUST },
};

static const char *name_of(enum machine m, uint32_t state)
{
    return state == NEW ? "new" : state == GONE ? "gone" : names[m][state] != NULL ? names[m][state] : "?";
}

/* ---- what happens to the nodes */

static const char ask[] =
    "{\"model\":\"tiny\",\"temperature\":0,\"max_tokens\":8,\"messages\":[{\"role\":\"user\",\"content\":"
    "\"%u. Repeat these words:%s lion, lamp, river, honey, silver, goat, train, moon, ball, red, kite, owl, fox.\"}]}";
/* More KV than a node compares in one turn. */
enum { LONG = 620 };
static char longer[LONG * 6 + 1];
static char router_conf[1024], decode_conf[2048], prefill_conf[2048];
/* For nodes that notice the silence of a lease before that of a link. */
static char hasty_conf[2300];

static int setup(void **state)
{
    const char *src = getenv("PD_SRCDIR");
    static const char link[] = "link = { heartbeat = \"200ms\"; suspect = \"600ms\"; dead = \"1200ms\"; };\n";
    (void)state;
    snprintf(router_conf, sizeof router_conf,
             "load = [ \"router\" ];\n%s"
             "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; },\n"
             "           { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "peers = ( { address = \"10.0.0.2:7000\"; }, { address = \"decode:7000\"; },\n"
             "          { address = \"10.0.0.1:7000\"; } );\n",
             link);
    snprintf(decode_conf, sizeof decode_conf,
             "load = [ \"decode\", \"ref\", \"tcp\" ];\n%s"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"2m\";\n"
             "             roles = [ \"decode\" ]; ms_per_token = 2.0; } );\n"
             "peers = ( { address = \"10.0.0.1:7000\"; } );\n"
             "role = { decode = { prefill_timeout = \"3s\"; }; };\n", link, src != NULL ? src : ".");
    snprintf(hasty_conf, sizeof hasty_conf, "%s", decode_conf);
    char *suspect = strstr(hasty_conf, "link = {");
    assert_non_null(suspect);
    snprintf(hasty_conf + (suspect - hasty_conf), sizeof hasty_conf - (size_t)(suspect - hasty_conf),
             "kv = { lease = \"300ms\"; };\n%s", strchr(decode_conf, '\n') + 1);
    suspect = strstr(hasty_conf, "link = {");
    memset(suspect, ' ', (size_t)(strchr(suspect, '\n') - suspect));
    snprintf(prefill_conf, sizeof prefill_conf,
             "load = [ \"prefill\", \"ref\", \"tcp\" ];\n%s"
             "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; } );\n"
             "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s/" MODEL "\"; kv_memory = \"2m\";\n"
             "             roles = [ \"prefill\" ]; step_tokens = 16; prefill_tokens_per_s = 4000; } );\n",
             link, src != NULL ? src : ".");
    return 0;
}

enum fault { NONE, CRASH, VANISH, CUT, ONE_WAY, RESET, STOP, DRAIN, FLIPS, LEAVE, HALF_OPEN, FAULTS };

static void drained(void *arg)
{
    (void)arg;
}

struct happening {
    struct sim_cluster *c;
    enum fault what;
    uint32_t node;
};

static void happen(void *arg)
{
    struct happening *h = arg;
    struct sim_node *n = &h->c->nodes[h->node];
    switch (h->what) {
    case CRASH:
    case VANISH:
        sim_node_crash(n, h->what == CRASH);
        break;
    case CUT:
        pd_sim_partition(h->c->sim, n->host, NULL, true);
        pd_sim_partition(h->c->sim, NULL, n->host, true);
        break;
    case ONE_WAY:
        pd_sim_partition(h->c->sim, n->host, NULL, true);
        break;
    case RESET:
        pd_sim_reset(h->c->sim, "prefill", "decode");
        break;
    case STOP:
        pd_sim_stop(n->loop, true);
        break;
    case DRAIN:
        pd_node_drain(n->node, drained, NULL);
        break;
    case FLIPS:
        pd_sim_flip(h->c->sim, "prefill", "decode", 3);
        break;
    case HALF_OPEN:
        pd_sim_half_open(h->c->sim, "prefill", "decode");
        break;
    default:
        break;
    }
}

static void run_for(struct sim_cluster *c, pd_time ns)
{
    pd_time until = pd_sim_now(c->sim) + ns;
    while (pd_sim_step(c->sim, until))
        look(c);
}

/* One request, a fault at some moment of it, another request after. */
static void once(enum fault what, uint32_t node, pd_time at, const char *decode)
{
    static struct sim_answer a;
    struct sim_cluster c;
    char body[sizeof longer + 1024];
    static uint32_t number;
    sim_cluster_init(&c, 100 + number, NULL);
    c.is_quiet = number % 2;
    c.watch = look;
    sim_node_start(&c, "router", router_conf);
    sim_node_start(&c, "prefill", prefill_conf);
    sim_node_start(&c, "decode", decode);
    run_for(&c, 3 * PD_SEC);
    /* A slow wire, so that a hand-over lasts. */
    struct pd_sim_link wire = { .latency_ns = PD_MS / 2, .bytes_per_s = 8u << 20 };
    assert_int_equal(pd_sim_link_set(c.sim, "prefill", "decode", &wire), PD_OK);
    struct happening h = { &c, what, node };
    if (what != NONE && what != LEAVE)
        pd_sim_at(c.sim, pd_sim_now(c.sim) + at, happen, &h);
    snprintf(body, sizeof body, ask, (unsigned)++number, longer);
    sim_post(&c, "10.0.0.1", 8000, "/v1/chat/completions", body, what == LEAVE ? at : 20 * PD_SEC, &a);
    assert_true(a.is_over);
    run_for(&c, 2 * PD_SEC);
    pd_sim_heal(c.sim);
    if (what == STOP)
        pd_sim_stop(c.nodes[node].loop, false);
    if (what == CRASH || what == VANISH)
        sim_node_start(&c, c.nodes[node].host, node == 1 ? prefill_conf : decode);
    run_for(&c, 8 * PD_SEC);
    sim_cluster_fini(&c);
    look(&c);
}

/* Each name stands for one state. */
static bool is_state(enum machine m, const char *name)
{
    for (uint32_t i = 0; i < STATES; i++) {
        if (strcmp(name_of(m, i), name) == 0)
            return true;
    }
    return false;
}

static void test_transitions(void **state)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_true(is_state(table[i].machine, table[i].from) && is_state(table[i].machine, table[i].to));
    uint32_t strange = 0, missed = 0;
    (void)state;
    once(NONE, 0, 0, decode_conf);
    for (enum fault what = CRASH; what < FAULTS; what++) {
        for (uint32_t node = 1; node <= 2; node++) {
            for (pd_time at = PD_MS; at < 70 * PD_MS; at += 3 * PD_MS)
                once(what, node, at, decode_conf);
        }
    }
    for (pd_time at = PD_MS; at < 70 * PD_MS; at += 3 * PD_MS) {
        once(STOP, 1, at, hasty_conf);
        once(CUT, 1, at, hasty_conf);
    }
    for (size_t i = 0; i < LONG; i++)
        memcpy(longer + 6 * i, " river", 6);
    once(NONE, 0, 0, decode_conf);
    for (uint32_t m = 0; m < MACHINES; m++)
        for (uint32_t from = 0; from < STATES; from++)
            for (uint32_t to = 0; to < STATES; to++) {
                bool listed = false, may = false;
                for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
                    bool is = table[i].machine == m && strcmp(table[i].from, name_of((enum machine)m, from)) == 0 &&
                              strcmp(table[i].to, name_of((enum machine)m, to)) == 0;
                    listed |= is;
                    may |= is && table[i].may == MAY;
                }
                if (seen[m][from][to] > 0 && !listed) {
                    fprintf(stderr, "# not in the table: %s %s -> %s (%llu times)\n", machine_names[m],
                            name_of((enum machine)m, from), name_of((enum machine)m, to), (unsigned long long)seen[m][from][to]);
                    strange++;
                }
                if (seen[m][from][to] == 0 && listed && !may) {
                    fprintf(stderr, "# never made: %s %s -> %s\n", machine_names[m],
                            name_of((enum machine)m, from), name_of((enum machine)m, to));
                    missed++;
                }
            }
    assert_int_equal(strange, 0);
    assert_int_equal(missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_transitions) };
    return cmocka_run_group_tests(tests, setup, NULL);
}
