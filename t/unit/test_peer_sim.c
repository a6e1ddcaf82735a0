/* SPDX-License-Identifier: Apache-2.0 */
/* Peers in the simulator: silence, half-open links, partitions, flipped bytes,
 * restarts, and random faults with calls in flight. */
#include "unit.h"

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/str.h"
#include "loop/sim.h"
#include "peer/priv.h"

#define NODES 3

struct node {
    struct world *w;
    char name[8];
    char ip[24];
    struct pd_loop *loop;
    struct pd_peers *peers;
    struct pd_peer_desc desc;
    struct pd_peer_watch *watch;
    uint32_t events[7];
    bool closed;
};

struct world {
    struct pd_sim *sim;
    struct node n[NODES];
    uint64_t epoch;
    uint64_t opened, ended, ended_ok, wrong;
    bool hasty;                 /* node 1 takes the others for dead after 1.5 s */
};

static const struct pd_peer_api *api;
struct pd_peers *pd_test_graveyard[2];  /* not static: kept although nobody reads it */

static void on_peer(struct pd_peers *peers, pd_peer_ref peer, uint32_t what, void *arg)
{
    struct node *n = (struct node *)arg;
    if (peer != api->self(peers))
        n->events[what]++;
}

static const struct pd_peer_watch_events watch_events = { .size = sizeof watch_events,
                                                          .on_peer = on_peer };

/* ---- a service that echoes each message and ends when it is told */

static void echo_message(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg)
{
    struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
    (void)arg;
    if (type == 2)
        api->call_end(call, PD_OK, PD_STR("bye"));
    else
        (void)api->call_send(call, type, &iov, 1);
}

static void echo_end(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    (void)call;
    (void)bytes;
    (void)arg;
    assert_true(status == PD_ECANCELED || status == PD_EPEER || status == PD_ENOMEM);
}

static const struct pd_call_events echo_events = {
    .size = sizeof echo_events, .on_message = echo_message, .on_end = echo_end,
};

static void on_call(struct pd_peers *peers, struct pd_call *call, pd_peer_ref from, uint32_t type,
                    struct pd_str first, void *arg)
{
    (void)peers;
    (void)from;
    api->call_accept(call, &echo_events, arg);
    echo_message(call, type, first, arg);
}

/* ---- a client that sends numbered messages and wants them back in order */

struct client {
    struct world *w;
    struct pd_call *call;
    uint32_t sent, got, want;
    uint32_t ends;
    pd_status status;
    pd_time ended_at;
};

static void client_fill(char *buf, uint32_t number, size_t *n)
{
    *n = 1 + (number * 7919u) % 3000;
    for (size_t i = 0; i < *n; i++)
        buf[i] = (char)(number * 31 + i * 7);
}

static void client_send(struct client *c)
{
    char buf[3001];
    size_t n;
    while (c->sent < c->want && c->sent < c->got + 5) {
        client_fill(buf, c->sent, &n);
        struct pd_iov iov = { buf, n };
        if (api->call_send(c->call, 1, &iov, 1) != PD_OK)
            return;
        c->sent++;
    }
    if (c->got == c->want) {
        struct pd_iov none = { buf, 0 };
        (void)api->call_send(c->call, 2, &none, 1);
    }
}

static void client_message(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg)
{
    struct client *c = (struct client *)arg;
    char buf[3001];
    size_t n;
    (void)call;
    if (type == 3)
        return;     /* the echo of the opening */
    client_fill(buf, c->got++, &n);
    if (bytes.n != n || memcmp(buf, bytes.p, n) != 0)
        c->w->wrong++;
    client_send(c);
}

static void client_end(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    struct client *c = (struct client *)arg;
    (void)call;
    c->ends++;
    c->status = status;
    c->ended_at = pd_sim_now(c->w->sim);
    c->w->ended++;
    if (status == PD_OK) {
        c->w->ended_ok++;
        if (c->got != c->want || !pd_str_is(bytes, "bye"))
            c->w->wrong++;
    } else {
        assert_true(status == PD_EPEER || status == PD_ENOMEM);
    }
    c->call = NULL;
}

static const struct pd_call_events client_events = {
    .size = sizeof client_events, .on_message = client_message, .on_end = client_end,
};

static bool client_open(struct client *c, struct world *w, int from, int to, uint32_t want)
{
    struct node *n = &w->n[from];
    struct pd_iov iov = { (void *)(uintptr_t)"open", 4 };
    memset(c, 0, sizeof *c);
    c->w = w;
    c->want = want;
    pd_peer_ref ref = api->find(n->peers, &w->n[to].desc.id);
    if (ref == 0 || api->call_open(n->peers, ref, PD_SERVICE_TEST, 3, &iov, 1, &client_events, c,
                                   &c->call) != PD_OK)
        return false;
    w->opened++;
    client_send(c);
    return true;
}

/* ---- the world */

static void node_start(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct pd_err err = { 0 };
    char text[32];
    memset(n, 0, sizeof *n);
    n->w = w;
    snprintf(n->name, sizeof n->name, "n%d", i);
    snprintf(n->ip, sizeof n->ip, "10.0.0.%d", i + 1);
    assert_int_equal(pd_sim_loop_create(w->sim, n->name, n->ip, &n->loop), PD_OK);
    memset(n->desc.id.uuid.b, i + 1, 16);
    n->desc.id.epoch = ++w->epoch;
    snprintf(n->desc.name, sizeof n->desc.name, "n%d", i);
    struct pd_peers_conf c = { .loop = n->loop, .self = &n->desc, .secret = PD_STR("shared") };
    if (w->hasty && i == 1) {
        c.suspect = 1200 * PD_MS;
        c.dead = 1500 * PD_MS;
    }
    assert_int_equal(pd_peers_create(&c, &n->peers, &err), PD_OK);
    snprintf(text, sizeof text, "%s:7000", n->ip);
    assert_int_equal(pd_peers_listen(n->peers, pd_str_from(text), NULL, &err), PD_OK);
    assert_int_equal(api->watch(n->peers, &watch_events, n, &n->watch), PD_OK);
    assert_int_equal(api->serve(n->peers, PD_SERVICE_TEST, on_call, n), PD_OK);
    for (int k = 0; k < NODES; k++) {
        if (k == i)
            continue;
        snprintf(text, sizeof text, "10.0.0.%d:7000", k + 1);
        assert_int_equal(pd_peers_dial(n->peers, pd_str_from(text)), PD_OK);
    }
}

static void run(struct world *w, pd_time ns)
{
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + ns);
}

static void world_make(struct world *w, uint64_t seed, bool hasty)
{
    memset(w, 0, sizeof *w);
    w->hasty = hasty;
    api = pd_peer_table();
    assert_int_equal(pd_sim_create(seed, NULL, &w->sim), PD_OK);
    for (int i = 0; i < NODES; i++)
        node_start(w, i);
    run(w, 2 * PD_SEC);
}

static void world_up(struct world *w, uint64_t seed)
{
    world_make(w, seed, false);
}

static void on_closed(void *arg)
{
    ((struct node *)arg)->closed = true;
}

static void world_down(struct world *w)
{
    for (int i = 0; i < NODES; i++)
        pd_peers_destroy(w->n[i].peers, on_closed, &w->n[i]);
    run(w, 5 * PD_SEC);
    for (int i = 0; i < NODES; i++) {
        char names[256] = "";
        assert_true(w->n[i].closed);
        pd_status st = pd_loop_destroy(w->n[i].loop, names, sizeof names);
        if (st != PD_OK)
            print_message("%s left: %s\n", w->n[i].name, names);
        assert_int_equal(st, PD_OK);
    }
    assert_int_equal(pd_sim_destroy(w->sim), PD_OK);
}

static uint32_t state_of(struct world *w, int from, int to)
{
    struct pd_peer_info i;
    pd_peer_ref ref = api->find(w->n[from].peers, &w->n[to].desc.id);
    return ref != 0 && api->info(w->n[from].peers, ref, &i) == PD_OK ? i.state : 0;
}

static void assert_all_up(struct world *w)
{
    for (int a = 0; a < NODES; a++) {
        for (int b = 0; b < NODES; b++)
            assert_int_equal(state_of(w, a, b), PD_PEER_UP);
        assert_int_equal(w->n[a].peers->n_links, NODES);    /* one per pair, and the own */
    }
}

static void test_up(void **state)
{
    struct world w;
    (void)state;
    world_up(&w, 1);
    assert_all_up(&w);
    for (int a = 0; a < NODES; a++)
        assert_int_equal(w.n[a].events[PD_PEER_ON_UP], NODES - 1);
    struct client c, me;
    assert_true(client_open(&c, &w, 0, 1, 200));
    assert_true(client_open(&me, &w, 0, 0, 200));
    run(&w, 2 * PD_SEC);
    assert_true(c.ends == 1 && me.ends == 1 && w.ended_ok == 2 && w.wrong == 0);
    world_down(&w);
}

static struct pd_link *link_between(struct world *w, int from, int to)
{
    PD_LIST_EACH(&w->n[from].peers->links, l) {
        struct pd_link *link = PD_LIST_ENTRY(l, struct pd_link, node);
        if (link->stream != NULL && link->peer != NULL &&
            memcmp(&link->peer->desc->id, &w->n[to].desc.id, sizeof(struct pd_node_id)) == 0)
            return link;
    }
    return NULL;
}

/* On an idle link one end speaks once a second, and the other answers before its own
 * timer would wake it; a node speaks on all links at the same moment. */
static void test_idle(void **state)
{
    enum { STEP = 10, STEPS = 1000 };
    pd_time least[NODES][NODES], moment[NODES] = { 0 };
    struct pd_peer_info info;
    uint32_t leads = 0, answers = 0;
    struct world w;
    (void)state;
    world_up(&w, 9);
    run(&w, 3 * PD_SEC);
    memset(least, 0xff, sizeof least);
    assert_int_equal(api->info(w.n[0].peers, api->find(w.n[0].peers, &w.n[1].desc.id), &info), PD_OK);
    uint64_t bytes = info.bytes_in;
    for (int i = 0; i < STEPS; i++) {
        run(&w, STEP * PD_MS);
        for (int a = 0; a < NODES; a++)
            for (int b = 0; b < NODES; b++) {
                struct pd_link *link = a != b ? link_between(&w, a, b) : NULL;
                if (link != NULL && link->due > pd_sim_now(w.sim))
                    least[a][b] = PD_MIN(least[a][b], link->due - pd_sim_now(w.sim));
            }
    }
    for (int a = 0; a < NODES; a++)
        for (int b = 0; b < NODES; b++) {
            struct pd_link *link = a != b ? link_between(&w, a, b) : NULL;
            if (a == b)
                continue;
            assert_non_null(link);
            if (least[a][b] > 4 * STEP * PD_MS) {
                answers++;
                continue;
            }
            assert_true(least[a][b] <= STEP * PD_MS);
            leads++;
            assert_true(moment[a] == 0 || moment[a] == link->due);
            moment[a] = link->due;
        }
    assert_int_equal(leads, NODES * (NODES - 1) / 2);
    assert_int_equal(answers, NODES * (NODES - 1) / 2);
    assert_int_equal(api->info(w.n[0].peers, api->find(w.n[0].peers, &w.n[1].desc.id), &info), PD_OK);
    assert_true(info.bytes_in - bytes > 200);
    assert_all_up(&w);
    world_down(&w);
}

/* A node that is stopped is suspect after 1.5 s and out after 2.5 s while somebody waits
 * for it, after 2.5 s and 3.5 s else; it comes back. */
static void test_hung(void **state)
{
    struct world w;
    struct client c;
    (void)state;
    world_up(&w, 2);
    assert_true(client_open(&c, &w, 0, 1, 1000000));
    run(&w, 500 * PD_MS);
    assert_true(c.got > 0);
    pd_time from = pd_sim_now(w.sim);
    pd_sim_stop(w.n[1].loop, true);
    run(&w, 1450 * PD_MS);
    assert_int_equal(state_of(&w, 0, 1), PD_PEER_UP);
    run(&w, 100 * PD_MS);
    assert_int_equal(state_of(&w, 0, 1), PD_PEER_SUSPECT);
    assert_int_equal(state_of(&w, 2, 1), PD_PEER_UP);
    run(&w, 800 * PD_MS);
    assert_int_equal(state_of(&w, 0, 1), PD_PEER_SUSPECT);
    run(&w, 200 * PD_MS);
    assert_int_equal(state_of(&w, 0, 1), PD_PEER_DOWN);
    assert_int_equal(c.status, PD_EPEER);
    assert_true(c.ended_at - from > 2 * PD_SEC && c.ended_at - from <= 2510 * PD_MS);
    assert_true(state_of(&w, 2, 1) != PD_PEER_DOWN);
    run(&w, 1000 * PD_MS);
    assert_int_equal(state_of(&w, 2, 1), PD_PEER_DOWN);
    assert_int_equal(state_of(&w, 0, 2), PD_PEER_UP);
    run(&w, 10 * PD_SEC);
    pd_sim_stop(w.n[1].loop, false);
    run(&w, 12 * PD_SEC);
    assert_all_up(&w);
    assert_int_equal(w.n[0].events[PD_PEER_ON_GONE], 0);    /* the same epoch */
    world_down(&w);
}

/* Who asks a node that hangs already waits no longer than its patience, and no longer
 * than for an idle one; and one that is slow to answer, as with a long turn of its loop,
 * is not given up. */
static void test_hung_before(void **state)
{
    struct world w;
    struct client c;
    (void)state;
    for (pd_time before = 0; before <= 3400 * PD_MS; before += 200 * PD_MS) {
        world_up(&w, 20 + before);
        pd_sim_stop(w.n[1].loop, true);
        run(&w, before);
        if (client_open(&c, &w, 0, 1, 1)) {
            pd_time from = pd_sim_now(w.sim);
            run(&w, 3 * PD_SEC);
            assert_int_equal(c.status, PD_EPEER);
            assert_true(c.ended_at - from <= 2510 * PD_MS);
            assert_true(c.ended_at - from + before <= 3510 * PD_MS);
        } else {
            assert_true(before >= 2400 * PD_MS);
        }
        pd_sim_stop(w.n[1].loop, false);
        run(&w, 10 * PD_SEC);
        world_down(&w);
    }
    world_up(&w, 7);
    assert_true(client_open(&c, &w, 0, 1, 1000000));
    for (int i = 0; i < 20; i++) {
        pd_sim_stop(w.n[1].loop, true);
        run(&w, (500 + 70 * (pd_time)i) * PD_MS);
        pd_sim_stop(w.n[1].loop, false);
        run(&w, 150 * PD_MS);
    }
    assert_int_equal(c.ends, 0);
    assert_int_equal(w.n[0].events[PD_PEER_ON_DOWN] + w.n[1].events[PD_PEER_ON_DOWN], 0);
    world_down(&w);
}

/* A node that slept a little does not blame the others. */
static void test_nap(void **state)
{
    struct world w;
    (void)state;
    world_make(&w, 3, true);
    pd_sim_stop(w.n[1].loop, true);
    run(&w, 2400 * PD_MS);
    pd_sim_stop(w.n[1].loop, false);
    run(&w, 5 * PD_SEC);
    assert_all_up(&w);
    assert_int_equal(w.n[0].events[PD_PEER_ON_DOWN] + w.n[1].events[PD_PEER_ON_DOWN], 0);
    world_down(&w);
}

static void test_half_open(void **state)
{
    struct world w;
    struct client c;
    (void)state;
    for (int way = 0; way < 3; way++) {
        world_up(&w, 4 + (uint64_t)way);
        assert_true(client_open(&c, &w, 0, 1, 1000000));
        run(&w, 300 * PD_MS);
        pd_time from = pd_sim_now(w.sim);
        if (way == 0)
            assert_true(pd_sim_half_open(w.sim, "n0", "n1") > 0);
        else if (way == 1)
            assert_int_equal(pd_sim_partition(w.sim, "n0", "n1", true), PD_OK);
        else
            assert_true(pd_sim_reset(w.sim, "n0", "n1") > 0);
        run(&w, 5 * PD_SEC);
        assert_int_equal(c.ends, 1);
        assert_int_equal(c.status, PD_EPEER);
        assert_true(c.ended_at - from <= (way == 2 ? 10 * PD_MS : 2550 * PD_MS));
        pd_sim_heal(w.sim);
        run(&w, 25 * PD_SEC);
        assert_all_up(&w);
        world_down(&w);
    }
}

/* One flipped byte never becomes a message. */
static void test_flips(void **state)
{
    struct world w;
    struct client c;
    uint64_t checksums = 0;
    (void)state;
    world_up(&w, 8);
    for (int i = 0; i < 60; i++) {
        while (!client_open(&c, &w, 0, 1, 40))
            run(&w, 100 * PD_MS);
        assert_int_equal(pd_sim_flip(w.sim, i % 2 ? "n0" : "n1", i % 2 ? "n1" : "n0", 1), PD_OK);
        run(&w, 6 * PD_SEC);
        assert_int_equal(c.ends, 1);
        assert_int_equal(w.wrong, 0);
    }
    for (int a = 0; a < 2; a++)
        checksums += w.n[a].peers->goodbyes[1][PD_GOODBYE_CHECKSUM] + w.n[a].peers->goodbyes[1][PD_GOODBYE_PROTOCOL];
    assert_true(checksums > 20);
    run(&w, 20 * PD_SEC);
    assert_all_up(&w);
    world_down(&w);
}

/* A crash without a word, and a restart on the same address. */
static void test_restart(void **state)
{
    struct world w;
    struct client c;
    (void)state;
    for (int tell = 0; tell < 2; tell++) {
        world_up(&w, 10 + (uint64_t)tell);
        assert_true(client_open(&c, &w, 0, 1, 1000000));
        run(&w, 300 * PD_MS);
        struct pd_node_id old = w.n[1].desc.id;
        pd_peer_ref ref = api->find(w.n[0].peers, &old);
        /* What the dead process had is nobody's any more; this keeps it from being a leak. */
        pd_test_graveyard[tell] = w.n[1].peers;
        pd_sim_crash(w.n[1].loop, tell == 1);
        node_start(&w, 1);
        run(&w, 6 * PD_SEC);
        assert_int_equal(c.ends, 1);
        assert_int_equal(c.status, PD_EPEER);
        assert_true(api->find(w.n[0].peers, &old) == 0);
        struct pd_peer_info i;
        assert_int_equal(api->info(w.n[0].peers, ref, &i), PD_ESTALE);
        run(&w, 10 * PD_SEC);
        assert_all_up(&w);
        world_down(&w);
    }
}

/* Memory runs out at each point of connecting and calling: no crash, each call
 * ends, and all is well afterwards. */
static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 400; n += n < 120 ? 1 : 7) {
        struct world w;
        struct client c;
        world_up(&w, 20);
        (void)pd_sim_reset(w.sim, "n0", "n1");
        pd_mem_fault_set(n);
        run(&w, 700 * PD_MS);
        bool open = client_open(&c, &w, 0, 1, 60);
        run(&w, PD_SEC);
        pd_mem_fault_set(0);
        run(&w, 20 * PD_SEC);
        assert_true(!open || c.ends == 1);
        assert_int_equal(w.wrong, 0);
        assert_all_up(&w);
        world_down(&w);
    }
}

#define CLIENTS 12

static uint64_t random_run(uint64_t seed, uint64_t *ok)
{
    struct world w;
    static struct client c[CLIENTS];
    world_up(&w, seed);
    memset(c, 0, sizeof c);
    static const char *const names[] = { "n0", "n1", "n2" };
    for (int step = 0; step < 120; step++) {
        uint64_t r = pd_sim_random(w.sim);
        const char *a = names[r % 3], *b = names[(r / 3 + 1 + r % 3) % 3];
        struct client *k = &c[(r >> 8) % CLIENTS];
        if (k->call == NULL)
            (void)client_open(k, &w, (int)((r >> 16) % 3), (int)((r >> 18) % 3),
                              (uint32_t)((r >> 20) % 200));
        else if ((r >> 30) % 8 == 0) {
            api->call_cancel(k->call);
            k->call = NULL;
            w.ended++;
        }
        switch ((r >> 40) % 16) {
        case 0: (void)pd_sim_reset(w.sim, a, b); break;
        case 1: (void)pd_sim_half_open(w.sim, a, b); break;
        case 2: (void)pd_sim_partition(w.sim, a, b, true); break;
        case 3: case 4: pd_sim_heal(w.sim); break;
        case 5: (void)pd_sim_flip(w.sim, a, b, 1); break;
        case 6: pd_sim_stop(w.n[r % 3].loop, true); break;
        case 7: case 8: pd_sim_stop(w.n[r % 3].loop, false); break;
        default: break;
        }
        run(&w, (r >> 48) % 800 * PD_MS);
    }
    pd_sim_heal(w.sim);
    for (int i = 0; i < NODES; i++)
        pd_sim_stop(w.n[i].loop, false);
    run(&w, 60 * PD_SEC);
    assert_all_up(&w);
    run(&w, 60 * PD_SEC);
    assert_int_equal(w.wrong, 0);
    assert_true(w.opened == w.ended);       /* each call ends once */
    for (int i = 0; i < CLIENTS; i++)
        assert_true(c[i].call == NULL);
    *ok += w.ended_ok;
    for (int i = 0; i < NODES; i++) {
        struct pd_peer_info info;
        for (pd_peer_ref p = api->next(w.n[i].peers, 0); p != 0; p = api->next(w.n[i].peers, p))
            if (api->info(w.n[i].peers, p, &info) == PD_OK)
                assert_int_equal(info.calls, 0);
        assert_int_equal(w.n[i].peers->me->link->reassembly, 0);
    }
    uint64_t hash = pd_sim_hash(w.sim);
    world_down(&w);
    return hash;
}

static void test_random(void **state)
{
    uint64_t ok = 0;
    (void)state;
    for (uint64_t seed = 100; seed < 140; seed++) {
        uint64_t first = random_run(seed, &ok);
        if (seed % 10 == 0)
            assert_true(first == random_run(seed, &ok));
    }
    assert_true(ok > 100);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_up), cmocka_unit_test(test_idle),
    cmocka_unit_test(test_hung),
    cmocka_unit_test(test_hung_before),
    cmocka_unit_test(test_nap),
    cmocka_unit_test(test_half_open),
    cmocka_unit_test(test_flips),
    cmocka_unit_test(test_restart),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_random),
};
PD_UNIT_MAIN(tests)
