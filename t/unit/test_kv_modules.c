/* SPDX-License-Identifier: Apache-2.0 */
/* A hand-over through everything there is below the roles: two nodes with a
 * peer link, a call that carries the messages, and the transports as they are
 * built, over the real loop. */
#include "transport_uv.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/str.h"
#include "kv/priv.h"
#include "peer/peer.h"
#include "shm.h"
#include "tcp.h"

#define LAYERS 8u
#define BLOCK 16u
#define BLOCKS 160u
#define TOKENS 2400u    /* 8 KiB each: 19 MB */

struct node {
    struct pair *pair;
    struct pd_instance_ctx ctx;
    struct pd_peers *peers;
    struct pd_kv *kv;
    struct pd_kv_region *region;
    struct pd_peer_desc desc;
    struct pd_peer_engine engine;
    struct pd_peer_transport shown[PD_PEER_MAX_TRANSPORTS];
    struct pd_engine_info info;
    uint32_t index[BLOCKS];
    const struct pd_transport_ops *ops[2];
    struct pd_transport *t[2];
    uint32_t n;
    uint16_t port;
};

struct pair {
    struct pd_loop *loop;
    struct node d, p;
    int32_t tokens[TOKENS];
    struct pd_call *dc, *pc;    /* both ends of the call */
    struct pd_kv_dest *dest;
    struct pd_kv_source *source;
    struct pd_kv_result dr, sr;
    uint32_t d_ends, s_ends, closed;
};

static const struct pd_peer_api *api;
static char directory[] = "/tmp/pdplane-test-XXXXXX";

static void load_transport(struct node *n, const char *name)
{
    struct pd_shm_conf shm = { .directory = directory, .queue = 1024, .windows = 4096,
                               .connections = 256, .timeout = PD_SEC };
    struct pd_tcp_conf tcp = { .listen = "0.0.0.0:0", .queue = 1024, .windows = 4096,
                               .connections = 1024, .frame = 1 << 20, .timeout = PD_SEC,
                               .connect_timeout = 5 * PD_SEC, .keepalive = 5 * PD_SEC,
                               .checksum = true };
    struct pd_err err = { 0 };
    bool is_shm = strcmp(name, "shm") == 0;
    const void *conf = is_shm ? (const void *)&shm : (const void *)&tcp;
    const char *file = is_shm ? "modules/transport/shm/.libs/shm.so"
                              : "modules/transport/tcp/.libs/tcp.so";
    uint32_t at = n->n++;
    n->ops[at] = (const struct pd_transport_ops *)uv_unit(file)->ops;
    pd_status st = n->ops[at]->create(&n->ctx, conf, &n->t[at], &err);
    if (st != PD_OK)
        print_message("%s\n", err.text);
    assert_int_equal(st, PD_OK);
    assert_int_equal(pd_kv_transport_add(n->kv, name, n->ops[at], n->t[at]), PD_OK);
}

static void node_up(struct pair *pair, struct node *n, uint8_t tag, uint32_t order,
                    const char *const *transports, const char *host)
{
    struct pd_err err = { 0 };
    struct pd_layout *l = &n->info.layout;
    memset(n, 0, sizeof *n);
    n->pair = pair;
    memset(n->desc.id.uuid.b, tag, 16);
    n->desc.id.uuid.b[1] = (uint8_t)getpid();
    n->desc.id.uuid.b[2] = (uint8_t)(getpid() >> 8);
    n->desc.id.epoch = 100 + tag;
    snprintf(n->desc.name, sizeof n->desc.name, "node%u", tag);
    snprintf(n->desc.host_id, sizeof n->desc.host_id, "%s", host);
    n->ctx = (struct pd_instance_ctx){ .size = sizeof n->ctx, .name = "test", .loop = pair->loop,
                                       .node = n->desc.id };
    struct pd_peers_conf pc = { .loop = pair->loop, .self = &n->desc, .secret = PD_STR("s") };
    assert_int_equal(pd_peers_create(&pc, &n->peers, &err), PD_OK);
    assert_int_equal(pd_peers_listen(n->peers, PD_STR("127.0.0.1:0"), &n->port, &err), PD_OK);
    struct pd_kv_conf kc = { .loop = pair->loop, .self = n->desc.id, .peer_api = api,
                             .peers = n->peers, .lease_ttl = PD_SEC };
    assert_int_equal(pd_kv_create(&kc, &n->kv, &err), PD_OK);
    for (; *transports != NULL; transports++)
        load_transport(n, *transports);
    *l = (struct pd_layout){ .size = sizeof *l, .order = order, .dtype = PD_DTYPE_F16,
                             .layers = LAYERS, .kv_heads = 4, .head_dim = 64,
                             .block_tokens = BLOCK };
    l->block_bytes = pd_kv_layout_token_bytes(l) * BLOCK;
    n->info.blocks = BLOCKS;
    n->info.region_bytes = BLOCKS * l->block_bytes;
    n->info.region_fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(n->info.region_fd, (off_t)n->info.region_bytes), 0);
    assert_int_equal(fcntl(n->info.region_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    n->info.region = mmap(NULL, n->info.region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                          n->info.region_fd, 0);
    assert_true(n->info.region != MAP_FAILED);
    for (uint32_t i = 0; i < BLOCKS; i++)
        n->index[i] = (i * 37 + tag) % BLOCKS;
    assert_int_equal(pd_kv_region_add(n->kv, "tiny", &n->info, &n->region, &err), PD_OK);
    n->engine.layout = *l;
    strcpy(n->engine.name, "tiny");
    n->desc.engines = &n->engine;
    n->desc.n_engines = 1;
    n->desc.n_transports = pd_kv_transports(n->kv, n->shown);
    n->desc.transports = n->shown;
    assert_int_equal(pd_peers_update(n->peers, &n->desc), PD_OK);
}

/* ---- the call between the two, as the roles would use it */

static pd_status call_send(struct pd_call *call, struct pd_str bytes)
{
    struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
    return call == NULL ? PD_EPEER : api->call_send(call, 1, &iov, 1);
}

static pd_status dest_send(struct pd_kv_dest *dest, struct pd_str bytes, void *arg)
{
    (void)dest;
    return call_send(((struct pair *)arg)->dc, bytes);
}

static pd_status source_send(struct pd_kv_source *source, struct pd_str bytes, void *arg)
{
    (void)source;
    return call_send(((struct pair *)arg)->pc, bytes);
}

static pd_status source_blocks(struct pd_kv_source *source, uint32_t first, uint32_t count,
                               uint32_t *index, void *arg)
{
    (void)source;
    memcpy(index, ((struct pair *)arg)->p.index + first, count * sizeof *index);
    return PD_OK;
}

static void dest_end(struct pd_kv_dest *dest, const struct pd_kv_result *r, void *arg)
{
    struct pair *w = (struct pair *)arg;
    (void)dest;
    w->dr = *r;
    w->d_ends++;
    w->dest = NULL;
}

static void source_end(struct pd_kv_source *source, const struct pd_kv_result *r, void *arg)
{
    struct pair *w = (struct pair *)arg;
    (void)source;
    w->sr = *r;
    w->s_ends++;
    w->source = NULL;
    if (w->pc != NULL)
        api->call_end(w->pc, PD_OK, PD_STR(""));
    w->pc = NULL;
}

static const struct pd_kv_dest_events dest_events = {
    .size = sizeof dest_events, .on_send = dest_send, .on_end = dest_end,
};
static const struct pd_kv_source_events source_events = {
    .size = sizeof source_events, .blocks = source_blocks, .on_send = source_send,
    .on_end = source_end,
};

static void on_message(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg)
{
    struct pair *w = (struct pair *)arg;
    (void)type;
    if (call == w->dc && w->dest != NULL)
        assert_int_equal(pd_kv_table()->dest_message(w->dest, bytes), PD_OK);
    else if (call == w->pc && w->source != NULL)
        assert_int_equal(pd_kv_table()->source_message(w->source, bytes), PD_OK);
}

static void on_end(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg)
{
    struct pair *w = (struct pair *)arg;
    (void)status;
    (void)bytes;
    if (call == w->dc)
        w->dc = NULL;
    if (call == w->pc) {
        w->pc = NULL;
        if (w->source != NULL)
            pd_kv_table()->source_abort(w->source, true);
    }
}

static const struct pd_call_events call_events = {
    .size = sizeof call_events, .on_message = on_message, .on_end = on_end,
};

static void on_call(struct pd_peers *peers, struct pd_call *call, pd_peer_ref from, uint32_t type,
                    struct pd_str first, void *arg)
{
    struct pair *w = (struct pair *)arg;
    struct pd_err err = { 0 };
    struct pd_kv_source_params params = {
        .size = sizeof params, .n_tokens = TOKENS, .peer = from, .region = w->p.region,
        .grant = first.p, .grant_len = first.n, .tokens = w->tokens,
    };
    (void)peers;
    (void)type;
    pd_status st = pd_kv_table()->source_open(w->p.kv, &params, &source_events, w, &w->source,
                                              &err);
    if (st != PD_OK)
        print_message("%s\n", err.text);
    assert_int_equal(st, PD_OK);
    api->call_accept(call, &call_events, w);
    w->pc = call;
}

/* ---- the story */

static pd_peer_ref ref_of(struct node *n, struct node *other)
{
    struct pd_peer_info i;
    pd_peer_ref r = api->find(n->peers, &other->desc.id);
    return r != 0 && api->info(n->peers, r, &i) == PD_OK && i.state == PD_PEER_UP &&
                   i.desc->n_transports > 0
               ? r
               : 0;
}

static bool is_linked(void *arg)
{
    struct pair *w = (struct pair *)arg;
    return ref_of(&w->d, &w->p) != 0 && ref_of(&w->p, &w->d) != 0;
}

static bool has_source(void *arg)
{
    return ((struct pair *)arg)->source != NULL;
}

static bool is_over(void *arg)
{
    struct pair *w = (struct pair *)arg;
    return w->d_ends == 1 && w->s_ends == 1 && w->dc == NULL;
}

static void on_closed(void *arg)
{
    ((struct pair *)arg)->closed++;
}

static bool is_closed(void *arg)
{
    return ((struct pair *)arg)->closed == 2;
}

static uint8_t *cell(struct node *n, uint32_t plane, uint32_t token)
{
    const struct pd_layout *l = &n->info.layout;
    uint64_t row = pd_kv_layout_row_bytes(l), idx = n->index[token / BLOCK], in = token % BLOCK;
    uint64_t at = l->order == PD_KV_BLOCK_LAYER
                      ? ((idx * 2 * LAYERS + plane) * BLOCK + in) * row
                      : (((uint64_t)plane * BLOCKS + idx) * BLOCK + in) * row;
    return (uint8_t *)n->info.region + at;
}

static void pair_up(struct pair *w, const char *const *transports, bool same_host)
{
    char address[32];
    memset(w, 0, sizeof *w);
    api = pd_peer_table();
    w->loop = uv_new_loop();
    node_up(w, &w->d, 1, PD_KV_BLOCK_LAYER, transports, "here");
    node_up(w, &w->p, 2, PD_KV_LAYER_BLOCK, transports, same_host ? "here" : "there");
    for (uint32_t i = 0; i < TOKENS; i++)
        w->tokens[i] = (int32_t)(i * 7 % 250);
    for (uint64_t i = 0; i < w->p.info.region_bytes; i++)
        ((uint8_t *)w->p.info.region)[i] = (uint8_t)(i * 2654435761u >> 13);
    memset(w->d.info.region, 0xee, w->d.info.region_bytes);
    assert_int_equal(api->serve(w->p.peers, PD_SERVICE_PREFILL, on_call, w), PD_OK);
    snprintf(address, sizeof address, "127.0.0.1:%u", w->p.port);
    assert_int_equal(pd_peers_dial(w->d.peers, pd_str_from(address)), PD_OK);
    assert_true(uv_run_loop(w->loop, is_linked, w, 5 * PD_SEC));
}

static void pair_down(struct pair *w)
{
    struct node *nodes[2] = { &w->d, &w->p };
    char names[256] = "";
    for (int i = 0; i < 2; i++)
        pd_kv_destroy(nodes[i]->kv, on_closed, w);
    assert_true(uv_run_loop(w->loop, is_closed, w, 5 * PD_SEC));
    w->closed = 0;
    for (int i = 0; i < 2; i++)
        pd_peers_destroy(nodes[i]->peers, on_closed, w);
    assert_true(uv_run_loop(w->loop, is_closed, w, 5 * PD_SEC));
    for (uint32_t t = 0; t < w->d.n; t++) {
        w->closed = 0;
        for (int i = 0; i < 2; i++)
            nodes[i]->ops[t]->destroy(nodes[i]->t[t], on_closed, w);
        assert_true(uv_run_loop(w->loop, is_closed, w, 5 * PD_SEC));
    }
    for (int i = 0; i < 2; i++) {
        munmap(nodes[i]->info.region, nodes[i]->info.region_bytes);
        close(nodes[i]->info.region_fd);
    }
    pd_status st = pd_loop_destroy(w->loop, names, sizeof names);
    if (st != PD_OK)
        print_message("left: %s\n", names);
    assert_int_equal(st, PD_OK);
}

static void open_call(struct pair *w, uint32_t from, uint32_t to)
{
    struct pd_kv_dest_params params = {
        .size = sizeof params, .n_blocks = TOKENS / BLOCK, .peer = ref_of(&w->d, &w->p),
        .region = w->d.region, .blocks = w->d.index, .tokens = w->tokens, .from = from, .to = to,
    };
    w->d_ends = w->s_ends = 0;
    assert_int_equal(pd_kv_table()->dest_open(w->d.kv, &params, &dest_events, w, &w->dest), PD_OK);
    struct pd_str grant = pd_kv_table()->dest_grant(w->dest);
    struct pd_iov iov = { (void *)(uintptr_t)grant.p, grant.n };
    assert_int_equal(api->call_open(w->d.peers, params.peer, PD_SERVICE_PREFILL, 0, &iov, 1,
                                    &call_events, w, &w->dc), PD_OK);
    assert_true(uv_run_loop(w->loop, has_source, w, 5 * PD_SEC));
}

static void hand_over(struct pair *w, uint32_t from, uint32_t to, const char *transport)
{
    open_call(w, from, to);
    for (uint32_t t = from; w->source != NULL && t < to; t += 512) {
        pd_kv_table()->source_push(w->source, t + 512);
        assert_int_equal(pd_loop_uv_turn(w->loop, PD_MS), PD_OK);
    }
    assert_true(uv_run_loop(w->loop, is_over, w, 10 * PD_SEC));
    if (w->dr.verdict != PD_KV_VALID)
        print_message("%s | %s\n", w->dr.reason, w->sr.reason);
    assert_int_equal(w->dr.verdict, PD_KV_VALID);
    assert_int_equal(w->sr.verdict, PD_KV_VALID);
    assert_true(w->dr.verified && w->dr.bytes == (uint64_t)(to - from) * 8192);
    assert_string_equal(w->dr.transport, transport);
    print_message("%s: %llu bytes in %.1f ms, verified in %.1f ms\n", transport,
                  (unsigned long long)w->dr.bytes, (double)w->dr.total_ns / 1e6,
                  (double)w->dr.verify_ns / 1e6);
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t plane = 0; plane < 2 * LAYERS; plane++) {
            if (t >= from && t < to)
                assert_memory_equal(cell(&w->d, plane, t), cell(&w->p, plane, t), 512);
            else
                assert_true(*cell(&w->d, plane, t) == 0xee);
        }
}

static void test_tcp(void **state)
{
    static const char *const names[] = { "tcp", NULL };
    struct pair w;
    (void)state;
    pair_up(&w, names, false);
    hand_over(&w, 100, 2300, "tcp");
    hand_over(&w, 16, 2399, "tcp");
    pair_down(&w);
}

static void test_shm(void **state)
{
    static const char *const names[] = { "tcp", "shm", NULL };
    struct pair w;
    (void)state;
    pair_up(&w, names, true);
    hand_over(&w, 7, 2400, "shm");
    pair_down(&w);
    /* Not of this host: shm is out of the question. */
    pair_up(&w, names, false);
    hand_over(&w, 7, 2400, "tcp");
    pair_down(&w);
}

/* The destination aborts in the middle; its blocks stay as they are afterwards. */
static void test_abort(void **state)
{
    static const char *const both[2][2] = { { "tcp", NULL }, { "shm", NULL } };
    (void)state;
    for (int kind = 0; kind < 2; kind++)
        for (int turns = 0; turns < 12; turns++) {
            struct pair w;
            pair_up(&w, both[kind], true);
            open_call(&w, 0, TOKENS);
            pd_kv_table()->source_push(w.source, TOKENS);
            for (int i = 0; i < turns; i++)
                assert_int_equal(pd_loop_uv_turn(w.loop, PD_MS), PD_OK);
            if (w.dest != NULL)
                pd_kv_table()->dest_abort(w.dest, false);
            assert_true(uv_run_loop(w.loop, is_over, &w, 10 * PD_SEC));
            uint8_t *copy = (uint8_t *)malloc(w.d.info.region_bytes);
            memcpy(copy, w.d.info.region, w.d.info.region_bytes);
            uv_run_loop(w.loop, uv_no, NULL, 30 * PD_MS);
            assert_memory_equal(copy, w.d.info.region, w.d.info.region_bytes);
            free(copy);
            pair_down(&w);
        }
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_shm),
        cmocka_unit_test(test_abort),
    };
    const char *pattern = getenv("PD_TEST");
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
