/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts, plans and digests over random pools. */
#include "unit.h"

#include "base/wire.h"
#include "kv/digest.h"
#include "kv/layout.h"
#include "kv/message.h"
#include "kv/plan.h"

static uint64_t seed = 88172645463325252u;

static uint32_t rnd(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 11) % below);
}

static struct pd_layout make_layout(uint32_t order, uint32_t dtype, uint32_t layers, uint32_t heads,
                                    uint32_t dim, uint32_t block)
{
    struct pd_layout l = { .size = sizeof l, .order = order, .dtype = dtype, .layers = layers,
                           .kv_heads = heads, .head_dim = dim, .block_tokens = block };
    memset(l.model, 7, sizeof l.model);
    l.block_bytes = pd_kv_layout_token_bytes(&l) * block;
    return l;
}

struct pool {
    struct pd_layout layout;
    uint32_t blocks;
    uint8_t *base;
    uint32_t index[64];
    uint32_t n_index;
};

static void pool_make(struct pool *p, const struct pd_layout *l, uint32_t tokens, int fill)
{
    p->layout = *l;
    p->n_index = (tokens + l->block_tokens - 1) / l->block_tokens;
    p->blocks = p->n_index + 1 + rnd(4);
    p->base = (uint8_t *)malloc(p->blocks * l->block_bytes);
    memset(p->base, fill, p->blocks * l->block_bytes);
    uint32_t all[80];
    for (uint32_t i = 0; i < p->blocks; i++)
        all[i] = i;
    for (uint32_t i = 0; i < p->n_index; i++) {
        uint32_t k = i + rnd(p->blocks - i), t = all[i];
        all[i] = all[k];
        all[k] = t;
        p->index[i] = all[i];
    }
}

static struct pd_kv_place place_of(const struct pool *p)
{
    return (struct pd_kv_place){ .layout = &p->layout, .pool_blocks = p->blocks,
                                 .n_blocks = p->n_index,
                                 .blocks = p->index };
}

/* The value that belongs at (plane, token, byte of the row), wherever it lies. */
static uint8_t value(uint32_t plane, uint32_t token, uint64_t byte)
{
    uint64_t x = plane * UINT64_C(0x9e3779b97f4a7c15) + token * UINT64_C(0xc2b2ae3d27d4eb4f) + byte * 31;
    return (uint8_t)(x >> 17 ^ x);
}

/* Where it lies, by the definition of the orders and nothing else. */
static uint8_t *cell(const struct pool *p, uint32_t plane, uint32_t token, uint64_t byte)
{
    const struct pd_layout *l = &p->layout;
    uint64_t row = pd_kv_layout_row_bytes(l), bt = l->block_tokens;
    uint64_t idx = p->index[token / bt], in = token % bt, planes = 2 * (uint64_t)l->layers;
    uint64_t at = l->order == PD_KV_BLOCK_LAYER ? ((idx * planes + plane) * bt + in) * row
                                                : ((plane * p->blocks + idx) * bt + in) * row;
    return p->base + at + byte;
}

static void copy(const struct pool *from, const struct pd_kv_plan *a, struct pool *to,
                 const struct pd_kv_plan *b)
{
    uint64_t ao = 0, bo = 0;
    assert_true(a->bytes == b->bytes);
    for (uint32_t i = 0, k = 0; i < a->n && k < b->n;) {
        uint64_t n = a->segments[i].bytes - ao;
        if (b->segments[k].bytes - bo < n)
            n = b->segments[k].bytes - bo;
        memcpy(to->base + b->segments[k].offset + bo, from->base + a->segments[i].offset + ao, n);
        ao += n;
        bo += n;
        if (ao == a->segments[i].bytes) {
            i++;
            ao = 0;
        }
        if (bo == b->segments[k].bytes) {
            k++;
            bo = 0;
        }
    }
}

static void check_inside(const struct pool *p, const struct pd_kv_plan *plan)
{
    uint64_t sum = 0, size = p->blocks * p->layout.block_bytes;
    for (uint32_t i = 0; i < plan->n; i++) {
        assert_true(plan->segments[i].bytes > 0);
        assert_true(plan->segments[i].offset + plan->segments[i].bytes <= size);
        if (i > 0)  /* merged */
            assert_true(plan->segments[i - 1].offset + plan->segments[i - 1].bytes != plan->segments[i].offset);
        sum += plan->segments[i].bytes;
    }
    assert_true(sum == plan->bytes);
}

static void test_layout(void **state)
{
    struct pd_layout l = make_layout(PD_KV_BLOCK_LAYER, PD_DTYPE_F16, 3, 2, 8, 16), m = l, got;
    uint8_t b[PD_KV_LAYOUT_BYTES];
    struct pd_err err;
    (void)state;
    assert_int_equal(pd_kv_layout_check(&l, &err), PD_OK);
    assert_true(pd_kv_layout_token_bytes(&l) == 3 * 2 * 2 * 8 * 2);
    pd_kv_layout_encode(&l, b);
    assert_int_equal(pd_kv_layout_decode(b, &got), PD_OK);
    assert_memory_equal(&got, &l, sizeof l);
    assert_true(pd_hash128_eq(pd_kv_layout_fingerprint(&l), pd_kv_layout_fingerprint(&got)));
    for (size_t i = 0; i < sizeof b; i++) {
        b[i] ^= 0x40;
        if (pd_kv_layout_decode(b, &got) == PD_OK)
            assert_false(pd_hash128_eq(pd_kv_layout_fingerprint(&l),
                                       pd_kv_layout_fingerprint(&got)));
        b[i] ^= 0x40;
    }
    m.order = PD_KV_LAYER_BLOCK;
    m.block_tokens = 4;
    m.block_bytes /= 4;
    assert_int_equal(pd_kv_layout_compatible(&l, &m, &err), PD_OK);
    m.block_bytes++;
    assert_int_equal(pd_kv_layout_compatible(&l, &m, &err), PD_EINVAL);
    struct pd_layout others[] = {
        make_layout(PD_KV_BLOCK_LAYER, PD_DTYPE_BF16, 3, 2, 8, 16), make_layout(PD_KV_BLOCK_LAYER,
                PD_DTYPE_F16, 4, 2, 8, 16),
        make_layout(PD_KV_BLOCK_LAYER, PD_DTYPE_F16, 3, 4, 4, 16), make_layout(3, PD_DTYPE_F16, 3,
                2, 8, 16),
        make_layout(PD_KV_BLOCK_LAYER, 9, 3, 2, 8, 16), make_layout(PD_KV_BLOCK_LAYER, PD_DTYPE_F16,
                                                                    0, 2, 8, 16),
        make_layout(PD_KV_BLOCK_LAYER, PD_DTYPE_F32, 4096, 4096, 65536, 1), l,
    };
    others[7].model[3]++;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_int_equal(pd_kv_layout_compatible(&l, &others[i], &err), PD_EINVAL);
}

/* Every byte of the range arrives at its place, no other byte changes. */
static void test_permutation(void **state)
{
    (void)state;
    for (int round = 0; round < 3000; round++) {
        uint32_t layers = 1 + rnd(4), heads = 1 + rnd(3), dim = 1 + rnd(5), tokens = 1 + rnd(60);
        uint32_t dtype = 1 + rnd(4), from = rnd(tokens), to = from + 1 + rnd(tokens - from);
        struct pd_layout la = make_layout(1 + rnd(2), dtype, layers, heads, dim, 1 + rnd(20));
        struct pd_layout lb = make_layout(1 + rnd(2), dtype, layers, heads, dim, 1 + rnd(20));
        uint32_t wire = rnd(3) == 0 ? 1 + rnd(20) : lb.block_tokens;
        uint64_t row = pd_kv_layout_row_bytes(&la);
        struct pool a, b;
        struct pd_kv_plan pa, pb;
        pool_make(&a, &la, tokens, 0x11);
        pool_make(&b, &lb, tokens, 0xee);
        for (uint32_t plane = 0; plane < 2 * layers; plane++)
            for (uint32_t t = 0; t < tokens; t++)
                for (uint64_t i = 0; i < row; i++)
                    *cell(&a, plane, t, i) = value(plane, t, i);
        struct pd_kv_place qa = place_of(&a), qb = place_of(&b);
        pd_kv_plan_init(&pa);
        pd_kv_plan_init(&pb);
        assert_int_equal(pd_kv_plan_add(&pb, &qb, from, to, wire, UINT32_MAX), PD_OK);
        /* The source plans in parts, cut at ends of wire blocks. */
        for (uint32_t at = from; at < to;) {
            uint64_t end = ((uint64_t)at / wire + 1 + rnd(3)) * wire;
            uint32_t stop = end > to ? to : (uint32_t)end;
            assert_int_equal(pd_kv_plan_add(&pa, &qa, at, stop, wire, UINT32_MAX), PD_OK);
            at = stop;
        }
        assert_true(pa.bytes == (to - from) * pd_kv_layout_token_bytes(&la));
        check_inside(&a, &pa);
        check_inside(&b, &pb);
        copy(&a, &pa, &b, &pb);
        uint64_t changed = 0;
        for (uint64_t i = 0; i < b.blocks * lb.block_bytes; i++)
            changed += b.base[i] != 0xee;
        for (uint32_t plane = 0; plane < 2 * layers; plane++)
            for (uint32_t t = 0; t < tokens; t++)
                for (uint64_t i = 0; i < row; i++) {
                    uint8_t got = *cell(&b, plane, t, i);
                    assert_int_equal(got, t >= from && t < to ? value(plane, t, i) : 0xee);
                    changed -= got != 0xee;
                }
        assert_true(changed == 0);
        /* Digests agree over both memories, and see one changed byte. */
        uint32_t n = pd_kv_wire_blocks(from, to, wire);
        uint64_t *keys = (uint64_t *)calloc(n, sizeof *keys);
        int32_t ids[64];
        for (uint32_t i = 0; i < tokens; i++)
            ids[i] = (int32_t)rnd(1000);
        uint64_t tag = pd_kv_digest_keys(la.model, ids, from, to, wire, keys);
        struct pd_kv_digester da, db;
        assert_int_equal(pd_kv_digester_init(&da, a.base), PD_OK);
        assert_int_equal(pd_kv_digester_init(&db, b.base), PD_OK);
        uint32_t damaged = rnd(n);
        for (uint32_t k = 0; k < n; k++) {
            uint64_t x = 0, y = 0, big = UINT64_MAX, small;
            uint32_t s, e;
            pd_kv_wire_range(from, to, wire, k, &s, &e);
            pd_kv_plan_clear(&da.plan);
            pd_kv_plan_clear(&db.plan);
            assert_int_equal(pd_kv_plan_add(&da.plan, &qa, s, e, wire, UINT32_MAX), PD_OK);
            assert_int_equal(pd_kv_plan_add(&db.plan, &qb, s, e, wire, UINT32_MAX), PD_OK);
            if (k == damaged)
                *cell(&b, rnd(2 * layers), s + rnd(e - s), rnd((uint32_t)row)) ^= (uint8_t)(1u << rnd(8));
            pd_kv_digester_begin(&da, keys[k]);
            assert_true(pd_kv_digester_run(&da, &big, &x));
            pd_kv_digester_begin(&db, keys[k]);
            do
                small = 1 + rnd(50);
            while (!pd_kv_digester_run(&db, &small, &y));
            assert_int_equal(x == y, k != damaged);
        }
        /* Another prompt, other keys from the changed token on. */
        uint32_t changed_id = rnd(to);
        uint64_t before = keys[n - 1];
        ids[changed_id]++;
        assert_true(pd_kv_digest_keys(la.model, ids, from, to, wire, keys) != tag);
        assert_true(keys[n - 1] != before);
        pd_kv_digester_fini(&da);
        pd_kv_digester_fini(&db);
        pd_kv_plan_fini(&pa);
        pd_kv_plan_fini(&pb);
        free(keys);
        free(a.base);
        free(b.base);
    }
}

static void test_runs(void **state)
{
    struct pd_layout l = make_layout(PD_KV_BLOCK_LAYER, PD_DTYPE_F16, 8, 2, 8, 16);
    uint32_t blocks[8] = { 3, 4, 5, 9, 8, 7, 1, 2 };
    struct pd_kv_place p = { .layout = &l, .pool_blocks = 10, .n_blocks = 8, .blocks = blocks };
    struct pd_kv_plan plan;
    (void)state;
    pd_kv_plan_init(&plan);
    assert_int_equal(pd_kv_plan_add(&plan, &p, 0, 128, 16, 100), PD_OK);
    assert_int_equal(plan.n, 5);    /* 3-5, 9, 8, 7, 1-2 */
    pd_kv_plan_clear(&plan);
    assert_int_equal(pd_kv_plan_add(&plan, &p, 0, 128, 16, 4), PD_ELIMIT);
    assert_int_equal(plan.n, 0);
    assert_int_equal(pd_kv_plan_add(&plan, &p, 0, 16, 16, 4), PD_OK);
    assert_int_equal(pd_kv_plan_add(&plan, &p, 16, 128, 16, 4), PD_ELIMIT);
    assert_true(plan.n == 1 && plan.bytes == l.block_bytes &&
                plan.segments[0].bytes == l.block_bytes);
    l.order = PD_KV_LAYER_BLOCK;
    pd_kv_plan_clear(&plan);
    assert_int_equal(pd_kv_plan_add(&plan, &p, 0, 16, 16, 100), PD_OK);
    assert_int_equal(plan.n, 16);
    /* Bounds. */
    assert_int_equal(pd_kv_plan_add(&plan, &p, 0, 129, 16, 100), PD_EINVAL);
    assert_int_equal(pd_kv_plan_add(&plan, &p, 5, 5, 16, 100), PD_EINVAL);
    assert_int_equal(pd_kv_plan_add(&plan, &p, 0, 1, 0, 100), PD_EINVAL);
    blocks[2] = 10;
    assert_int_equal(pd_kv_plan_add(&plan, &p, 0, 32, 16, 100), PD_OK);
    assert_int_equal(pd_kv_plan_add(&plan, &p, 0, 33, 16, 100), PD_EINVAL);
    p.first_block = 4;
    assert_int_equal(pd_kv_plan_add(&plan, &p, 63, 70, 16, 100), PD_EINVAL);
    p.pool_blocks = UINT32_MAX;
    l.block_bytes = UINT64_MAX / 2;
    assert_int_equal(pd_kv_plan_add(&plan, &p, 64, 65, 16, 100), PD_EINVAL);
    pd_kv_plan_fini(&plan);
}

static void test_messages(void **state)
{
    struct pd_kv_grant_full g = { .generation = 5, .tag = 6, .digests = 1 }, h;
    struct pd_buf b, cut;
    (void)state;
    g.g.layout = make_layout(PD_KV_BLOCK_LAYER, PD_DTYPE_F16, 3, 2, 8, 16);
    g.g.xid = 77;
    g.g.from = 3;
    g.g.to = 40;
    g.g.wire_block_tokens = 16;
    g.g.ttl_ms = 1000;
    g.g.n_transports = 2;
    g.g.bytes = 37 * pd_kv_layout_token_bytes(&g.g.layout);
    g.ways[0].transport = PD_STR("shm");
    g.ways[0].blob = PD_STR("blob one");
    g.ways[1].transport = PD_STR("tcp");
    g.ways[1].blob = PD_STR("");
    pd_buf_init(&b, 8192);
    pd_buf_init(&cut, 8192);
    assert_int_equal(pd_kv_grant_write(&g, &b), PD_OK);
    assert_int_equal(pd_kv_grant_parse(pd_buf_str(&b), &h), PD_OK);
    assert_true(h.g.xid == 77 && h.generation == 5 && h.tag == 6 && h.g.from == 3 &&
                h.g.n_transports == 2);
    assert_memory_equal(h.ways[0].blob.p, "blob one", 8);
    for (size_t n = 0; n < b.n; n++)
        assert_int_equal(pd_kv_grant_parse((struct pd_str){ b.p, n }, &h), PD_EPROTO);
    for (int i = 0; i < 200000; i++) {
        pd_buf_clear(&cut);
        assert_int_equal(pd_buf_append(&cut, b.p, b.n), PD_OK);
        for (uint32_t k = 1 + rnd(3); k > 0; k--)
            cut.p[rnd((uint32_t)cut.n)] = (char)rnd(256);
        if (pd_kv_grant_parse(pd_buf_str(&cut), &h) == PD_OK) {
            assert_true(h.g.from < h.g.to && h.g.n_transports <= PD_KV_GRANT_WAYS);
            assert_true(h.g.bytes == (h.g.to - h.g.from) * pd_kv_layout_token_bytes(&h.g.layout));
        }
    }
    struct pd_kv_message m = { .type = PD_KV_M_DIGESTS, .xid = 1, .generation = 2, .first = 3,
                               .count = 2 }, q;
    uint64_t digests[2] = { 8, 9 };
    pd_buf_clear(&b);
    assert_int_equal(pd_kv_message_write(&m, digests, &b), PD_OK);
    assert_int_equal(pd_kv_message_parse(pd_buf_str(&b), &q), PD_OK);
    assert_true(q.first == 3 && q.count == 2 && pd_wire_get_u64(q.digests + 8) == 9);
    for (size_t n = 0; n < b.n; n++)
        assert_int_equal(pd_kv_message_parse((struct pd_str){ b.p, n }, &q), PD_EPROTO);
    pd_buf_fini(&b);
    pd_buf_fini(&cut);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_layout),
    cmocka_unit_test(test_permutation),
    cmocka_unit_test(test_runs),
    cmocka_unit_test(test_messages),
};
PD_UNIT_MAIN(tests)
