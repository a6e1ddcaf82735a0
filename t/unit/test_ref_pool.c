/* SPDX-License-Identifier: Apache-2.0 */
/* Block pool of the ref engine: states, prefix cache, random operations. */
#include "unit.h"

#include "pool.h"

enum { BT = 16 };
static const uint8_t key[16] = { 1, 2, 3 };

static void prefix_reuse(void **state)
{
    struct eng_pool *p;
    struct eng_hash root, other, h;
    uint32_t ids[4 * BT], b[4], got[4];

    (void)state;
    for (uint32_t i = 0; i < 4 * BT; i++)
        ids[i] = i * 7;
    assert_int_equal(eng_pool_create(6, BT, key, &p), PD_OK);
    root = eng_pool_root(p, PD_STR("a"));
    other = eng_pool_root(p, PD_STR("b"));
    assert_int_equal(eng_pool_lookup(p, root, ids, 4 * BT, NULL), 0);
    assert_int_equal(eng_pool_alloc(p, 4, b), PD_OK);
    h = root;
    for (uint32_t i = 0; i < 3; i++)
        h = eng_pool_publish(p, b[i], h, ids + i * BT);
    assert_int_equal(eng_pool_lookup(p, root, ids, 4 * BT, NULL), 3);
    assert_int_equal(eng_pool_lookup(p, root, ids, 3 * BT - 1, NULL), 2);
    assert_int_equal(eng_pool_lookup(p, other, ids, 4 * BT, NULL), 0);
    ids[BT]++;
    assert_int_equal(eng_pool_lookup(p, root, ids, 4 * BT, NULL), 1);
    ids[BT]--;
    for (uint32_t i = 4; i-- > 0;)
        eng_pool_unref(p, b[i]);
    assert_int_equal(eng_pool_available(p), 6);
    assert_int_equal(eng_pool_cached(p), 3);
    assert_int_equal(eng_pool_lookup(p, root, ids, 4 * BT, got), 3);
    assert_memory_equal(got, b, 3 * sizeof(*b));
    assert_int_equal(eng_pool_available(p), 3);
    assert_int_equal(eng_pool_alloc(p, 4, got), PD_EAGAIN);
    for (uint32_t i = 3; i-- > 0;)
        eng_pool_unref(p, b[i]);
    /* the tail of the chain goes first */
    assert_int_equal(eng_pool_alloc(p, 4, got), PD_OK);
    assert_int_equal(eng_pool_lookup(p, root, ids, 4 * BT, NULL), 2);
    assert_true(eng_pool_verify(p));
    eng_pool_free(p);
}

static void same_content_twice(void **state)
{
    struct eng_pool *p;
    struct eng_hash root, h1, h2;
    uint32_t ids[BT] = { 5 }, b[2], got[1];
    uint64_t gen;

    (void)state;
    assert_int_equal(eng_pool_create(2, BT, key, &p), PD_OK);
    root = eng_pool_root(p, PD_STR(""));
    assert_int_equal(eng_pool_alloc(p, 2, b), PD_OK);
    h1 = eng_pool_publish(p, b[0], root, ids);
    h2 = eng_pool_publish(p, b[1], root, ids);
    assert_memory_equal(&h1, &h2, sizeof(h1));
    gen = eng_pool_generation(p, b[0]);
    eng_pool_unref(p, b[0]);
    eng_pool_unref(p, b[1]);
    assert_int_equal(eng_pool_cached(p), 1);
    assert_int_equal(eng_pool_lookup(p, root, ids, BT, got), 1);
    assert_int_equal(got[0], b[0]);
    assert_int_equal(eng_pool_generation(p, b[0]), gen);
    eng_pool_unref(p, got[0]);
    assert_int_equal(eng_pool_alloc(p, 2, b), PD_OK);
    assert_int_equal(eng_pool_generation(p, got[0]), gen + 1);
    assert_true(eng_pool_verify(p));
    eng_pool_free(p);
}

/* Random sequences come, share prefixes and go; a model of who holds what is kept
 * beside the pool. */
static void random_operations(void **state)
{
    enum { BLOCKS = 40, SEQS = 12, LEN = 5 };
    struct eng_pool *p;
    struct {
        bool open;
        uint32_t b[LEN];
        uint64_t gen[LEN];
    } seq[SEQS] = { 0 };
    uint32_t x = 1, shortages = 0, hits = 0;

    (void)state;
    assert_int_equal(eng_pool_create(BLOCKS, BT, key, &p), PD_OK);
    for (uint32_t round = 0; round < 30000; round++) {
        uint32_t s = (x = x * 1664525u + 1013904223u) >> 8 & 0xffff, refs[BLOCKS] = { 0 };
        uint32_t kind = s / SEQS % 8, ids[LEN * BT], have;
        struct eng_hash root = eng_pool_root(p, PD_STR("s"));
        s %= SEQS;
        for (uint32_t i = 0; i < LEN * BT; i++)
            ids[i] = kind * 2 + (i >= 2 * BT && (x >> 28 & 1)) + i;
        if (seq[s].open) {
            for (uint32_t i = 0; i < LEN; i++)
                assert_int_equal(eng_pool_generation(p, seq[s].b[i]), seq[s].gen[i]);
            for (uint32_t i = LEN; i-- > 0;)
                eng_pool_unref(p, seq[s].b[i]);
            seq[s].open = false;
        } else {
            have = eng_pool_lookup(p, root, ids, LEN * BT, seq[s].b);
            hits += have;
            if (eng_pool_alloc(p, LEN - have, seq[s].b + have) == PD_OK) {
                seq[s].open = true;
                for (uint32_t i = 0; i < LEN; i++) {
                    seq[s].gen[i] = eng_pool_generation(p, seq[s].b[i]);
                    root = i < have ? eng_pool_chain(p, root, ids + i * BT)
                                    : eng_pool_publish(p, seq[s].b[i], root, ids + i * BT);
                }
            } else {
                shortages++;
                while (have-- > 0)
                    eng_pool_unref(p, seq[s].b[have]);
            }
        }
        for (uint32_t i = 0; i < SEQS; i++)
            for (uint32_t k = 0; seq[i].open && k < LEN; k++)
                refs[seq[i].b[k]]++;
        for (uint32_t b = 0; b < BLOCKS; b++)
            assert_int_equal(eng_pool_refs(p, b), refs[b]);
        assert_true(eng_pool_verify(p));
    }
    assert_true(shortages > 0 && hits > 1000);
    eng_pool_free(p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(prefix_reuse), cmocka_unit_test(same_content_twice),
    cmocka_unit_test(random_operations),
};
PD_UNIT_MAIN(tests)
