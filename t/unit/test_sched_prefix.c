/* SPDX-License-Identifier: Apache-2.0 */
/* The prefix index against a model that is slow and obvious. */
#include "unit.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "sched/prefix.h"

static uint64_t splitmix(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static struct pd_prefix *make(uint32_t slots, uint32_t entries, uint32_t per_slot, uint32_t max)
{
    const struct pd_prefix_conf conf = { .slots = slots, .entries = entries, .per_slot = per_slot,
                                         .max_blocks = max, .block_bytes = 16 };
    struct pd_prefix *index = NULL;
    assert_int_equal(pd_prefix_create(&conf, &index), PD_OK);
    return index;
}

/* ---- the model: one list of (hash, slot, ticket), newest first ---- */

#define MODEL_MAX 4096
struct pair {
    uint64_t hash;
    uint32_t slot;
    uint32_t ticket;
};
struct model {
    struct pair list[MODEL_MAX];
    uint32_t n;
    uint32_t entries;
    uint32_t limit[64];
};

static uint32_t model_find(const struct model *m, uint64_t hash, uint32_t slot)
{
    uint32_t i = 0;
    while (i < m->n && (m->list[i].hash != hash || m->list[i].slot != slot))
        i++;
    return i;
}

static void model_remove(struct model *m, uint32_t i)
{
    memmove(&m->list[i], &m->list[i + 1], (m->n - i - 1) * sizeof m->list[0]);
    m->n--;
}

static uint32_t model_count(const struct model *m, uint32_t slot)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n; i++)
        n += m->list[i].slot == slot;
    return n;
}

static void model_evict_slot(struct model *m, uint32_t slot)
{
    for (uint32_t i = m->n; i > 0; i--) {
        if (m->list[i - 1].slot == slot) {
            model_remove(m, i - 1);
            return;
        }
    }
}

static void model_insert(struct model *m, uint32_t slot, const uint64_t *h, uint32_t n,
                         uint32_t ticket)
{
    uint32_t room = m->limit[slot] < m->entries ? m->limit[slot] : m->entries;
    for (uint32_t i = n < room ? n : room; i > 0; i--) {
        struct pair p = { h[i - 1], slot, ticket };
        uint32_t at = model_find(m, p.hash, slot);
        if (at < m->n) {
            p.ticket = m->list[at].ticket == ticket ? ticket : 0;
            model_remove(m, at);
        } else {
            if (model_count(m, slot) >= m->limit[slot])
                model_evict_slot(m, slot);
            if (m->n >= m->entries)
                m->n--;
        }
        memmove(&m->list[1], &m->list[0], m->n * sizeof m->list[0]);
        m->list[0] = p;
        m->n++;
    }
}

static uint32_t model_match(const struct model *m, uint32_t slot, const uint64_t *h, uint32_t n)
{
    uint32_t have = 0;
    while (have < n && model_find(m, h[have], slot) < m->n)
        have++;
    return have;
}

static void model_rollback(struct model *m, uint32_t slot, const uint64_t *h, uint32_t n,
                           uint32_t ticket)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = model_find(m, h[i], slot);
        if (at < m->n && m->list[at].ticket == ticket)
            model_remove(m, at);
    }
}

/* ---- tests ---- */

/* Prompts that share prefixes: a random walk in a small tree. */
static uint32_t random_prompt(struct pd_prefix *index, uint64_t *random, uint64_t *hashes,
                              uint32_t room)
{
    struct pd_prompt prompt;
    char text[16 * 24];
    uint32_t blocks = 1 + (uint32_t)(splitmix(random) % 20);
    for (uint32_t b = 0; b < blocks; b++)
        memset(text + b * 16, 'a' + (int)(splitmix(random) % (b < 3 ? 2 : 3)), 16);
    uint32_t tail = (uint32_t)(splitmix(random) % 16);
    memset(text + blocks * 16, 'z', tail);
    pd_prefix_prompt(index, &prompt, PD_STR("m"), PD_STR(""), text, blocks * 16 + tail, hashes, room);
    return prompt.n;
}

static void run_against_model(uint64_t seed, uint32_t slots, uint32_t entries, uint32_t per_slot)
{
    struct pd_prefix *index = make(slots, entries, per_slot, 32);
    struct model *m = calloc(1, sizeof *m);
    uint64_t random = seed;
    uint64_t hashes[32];
    uint64_t last[64][32];
    uint32_t last_n[64] = { 0 };
    uint32_t last_ticket[64] = { 0 };
    m->entries = entries;
    for (uint32_t s = 0; s < slots; s++)
        m->limit[s] = per_slot;
    for (uint32_t step = 1; step <= 4000; step++) {
        uint32_t slot = (uint32_t)(splitmix(&random) % slots);
        uint32_t n = random_prompt(index, &random, hashes, 32);
        switch (splitmix(&random) % 16) {
        case 0:
            pd_prefix_rollback(index, slot, last[slot], last_n[slot], last_ticket[slot]);
            model_rollback(m, slot, last[slot], last_n[slot], last_ticket[slot]);
            break;
        case 1:
            if (splitmix(&random) % 8 == 0) {
                pd_prefix_clear(index, slot);
                while (model_count(m, slot) > 0)
                    model_evict_slot(m, slot);
            }
            break;
        case 2: {
            uint32_t limit = 1 + (uint32_t)(splitmix(&random) % per_slot);
            pd_prefix_slot_limit(index, slot, limit);
            m->limit[slot] = limit;
            while (model_count(m, slot) > limit)
                model_evict_slot(m, slot);
            break;
        }
        case 3:
        case 4:
        case 5:
        case 6:
        case 7:
        case 8:
            pd_prefix_insert(index, slot, hashes, n, step);
            model_insert(m, slot, hashes, n, step);
            memcpy(last[slot], hashes, sizeof hashes);
            last_n[slot] = n;
            last_ticket[slot] = step;
            break;
        default:
            break;
        }
        for (uint32_t s = 0; s < slots; s++) {
            assert_int_equal(pd_prefix_match(index, s, hashes, n), model_match(m, s, hashes, n));
            assert_int_equal(pd_prefix_slot_entries(index, s), model_count(m, s));
        }
    }
    struct pd_prefix_stats stats;
    pd_prefix_stats(index, &stats);
    assert_int_equal(stats.entries, m->n);
    pd_prefix_destroy(index);
    free(m);
}

static void equals_the_model(void **state)
{
    (void)state;
    run_against_model(1, 4, 1000, 500);     /* nothing is evicted */
    run_against_model(2, 4, 1000, 12);      /* each endpoint is full */
    run_against_model(3, 6, 40, 30);        /* the table is full */
    run_against_model(4, 1, 8, 8);
    run_against_model(5, 16, 200, 1);
}

static void prompts_are_cut_into_blocks(void **state)
{
    (void)state;
    struct pd_prefix *index = make(1, 64, 64, 64);
    uint64_t whole[64], other[64];
    uint8_t text[1000];
    uint64_t random = 7;
    struct pd_prompt a, b;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)splitmix(&random);
    assert_int_equal(pd_prefix_room(index, 0), 0);
    assert_int_equal(pd_prefix_room(index, 16), 1);
    assert_int_equal(pd_prefix_room(index, 17), 2);
    assert_int_equal(pd_prefix_room(index, 1 << 20), 64);
    pd_prefix_prompt(index, &a, PD_STR("model"), PD_STR("salt"), text, sizeof text, whole, 64);
    assert_int_equal(a.n, 63);
    assert_int_equal(a.bytes, 1000);
    /* The same up to the block that differs, never behind it. */
    text[500] ^= 1;
    pd_prefix_prompt(index, &b, PD_STR("model"), PD_STR("salt"), text, sizeof text, other, 64);
    assert_memory_equal(whole, other, 500 / 16 * sizeof whole[0]);
    for (uint32_t i = 500 / 16; i < 63; i++)
        assert_true(whole[i] != other[i]);
    /* Model and salt separate; room cuts. */
    pd_prefix_prompt(index, &b, PD_STR("model"), PD_STR("other"), text, sizeof text, other, 2);
    assert_int_equal(b.n, 2);
    assert_int_equal(b.bytes, 1000);
    assert_true(other[0] != whole[0]);
    pd_prefix_prompt(index, &b, PD_STR("models"), PD_STR("alt"), text, 16, other, 2);
    assert_true(other[0] != whole[0]);
    pd_prefix_prompt(index, &b, PD_STR("model"), PD_STR("salt"), "", 0, other, 2);
    assert_int_equal(b.n, 0);
    pd_prefix_destroy(index);
}

/* The chain as prefix.c defines it, computed step by step. */
static void the_chain_is_the_documented_one(void **state)
{
    (void)state;
    struct pd_prefix *index = make(1, 64, 64, 64);
    const char *text = "0123456789abcdef" "tail";
    uint64_t hashes[4];
    uint64_t chain = pd_hash64("s", 1, pd_hash64("m", 1, 1));
    struct pd_prompt p;
    pd_prefix_prompt(index, &p, PD_STR("m"), PD_STR("s"), text, strlen(text), hashes, 4);
    assert_int_equal(p.n, 2);
    for (int b = 0; b < 2; b++) {
        chain = pd_hash_link(b == 0 ? pd_hash_block(text, 16) : pd_hash_block(text + 4, 16) + 4, chain);
        assert_true(hashes[b] == chain);
    }
    pd_prefix_destroy(index);
}

static void rollback_keeps_what_others_confirmed(void **state)
{
    (void)state;
    struct pd_prefix *index = make(2, 64, 64, 64);
    uint64_t h[6] = { 11, 12, 13, 14, 15, 16 };
    pd_prefix_insert(index, 0, h, 2, 1);
    pd_prefix_insert(index, 0, h, 4, 2);   /* adds 13, 14 */
    pd_prefix_rollback(index, 0, h, 4, 2);
    assert_int_equal(pd_prefix_match(index, 0, h, 6), 2);
    pd_prefix_insert(index, 0, h, 4, 3);
    pd_prefix_insert(index, 0, h, 6, 4);   /* confirms 13, 14; adds 15, 16 */
    pd_prefix_rollback(index, 0, h, 4, 3);
    assert_int_equal(pd_prefix_match(index, 0, h, 6), 6);
    pd_prefix_rollback(index, 0, h, 6, 4);
    assert_int_equal(pd_prefix_match(index, 0, h, 6), 4);
    assert_int_equal(pd_prefix_match(index, 1, h, 6), 0);
    pd_prefix_destroy(index);
}

static void cost_is_bounded_and_nothing_is_allocated(void **state)
{
    (void)state;
    struct pd_prefix *index = make(1000, 1 << 16, 4096, 2048);
    uint64_t *h = calloc(2048, sizeof *h);
    uint64_t random = 3;
    struct pd_prefix_stats before;
    struct pd_prefix_stats after;
    uint64_t allocations = pd_mem_count();
    for (uint32_t i = 0; i < 2048; i++)
        h[i] = splitmix(&random);
    for (uint32_t s = 0; s < 1000; s++)
        pd_prefix_insert(index, s, h, 2048, s + 1);
    pd_prefix_stats(index, &before);
    assert_int_equal(before.entries, 1 << 16);
    for (uint32_t s = 0; s < 1000; s++)
        pd_prefix_match(index, s, h, 2048);
    pd_prefix_stats(index, &after);
    /* 1 + log2(2048) lookups for each, and short chains. */
    assert_true(after.probes - before.probes < 1000 * 12 * 4);
    assert_int_equal(pd_mem_count(), allocations);
    pd_prefix_destroy(index);
    free(h);
}

static void refuses_nonsense(void **state)
{
    (void)state;
    struct pd_prefix_conf conf = { .slots = 1, .entries = 8, .per_slot = 8, .max_blocks = 8,
                                   .block_bytes = 8 };
    struct pd_prefix *index = NULL;
    assert_int_equal(pd_prefix_create(&conf, &index), PD_EINVAL);
    conf.block_bytes = PD_PROMPT_BLOCK_MAX + 1;
    assert_int_equal(pd_prefix_create(&conf, &index), PD_EINVAL);
    conf.block_bytes = 64;
    for (uint64_t n = 1; n <= 4; n++) {
        pd_mem_fault_set(n);
        assert_int_equal(pd_prefix_create(&conf, &index), PD_ENOMEM);
    }
    pd_mem_fault_set(0);
    pd_prefix_destroy(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(equals_the_model),
    cmocka_unit_test(prompts_are_cut_into_blocks),
    cmocka_unit_test(the_chain_is_the_documented_one),
    cmocka_unit_test(rollback_keeps_what_others_confirmed),
    cmocka_unit_test(cost_is_bounded_and_nothing_is_allocated),
    cmocka_unit_test(refuses_nonsense),
};

PD_UNIT_MAIN(tests)
