/* SPDX-License-Identifier: Apache-2.0 */
/* Containers, strings and numbers of core/base. */
#include "unit.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/ring.h"
#include "base/status.h"
#include "base/str.h"
#include "base/units.h"
#include "base/uuid.h"
#include "base/wire.h"

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void test_mem(void **state)
{
    (void)state;
    uint64_t before = pd_mem_count();
    char *s = pd_strdup("abc");
    assert_string_equal(s, "abc");
    assert_int_equal(pd_mem_count(), before + 1);
    assert_null(pd_realloc_array(NULL, SIZE_MAX, 2));
    assert_null(pd_calloc(SIZE_MAX, 2));
    pd_mem_fault_set(2);
    void *one = pd_alloc(1);
    void *two = pd_alloc(1);
    void *three = pd_alloc(0);
    assert_non_null(one);
    assert_null(two);
    assert_non_null(three);
    pd_mem_fault_set(0);
    void *aligned = pd_alloc_aligned(4096, 10);
    assert_int_equal((uintptr_t)aligned % 4096, 0);
    pd_free(aligned);
    pd_free(one);
    pd_free(three);
    pd_free(s);

    setenv("PD_FAULT", "write:3,alloc:1", 1);
    assert_int_equal(pd_mem_fault_init(), PD_OK);
    assert_null(pd_alloc(1));
    setenv("PD_FAULT", "alloc:x", 1);
    assert_int_equal(pd_mem_fault_init(), PD_EINVAL);
    unsetenv("PD_FAULT");
    assert_int_equal(pd_mem_fault_init(), PD_OK);
    pd_mem_fault_set(0);
}

static void test_str(void **state)
{
    (void)state;
    assert_true(pd_str_eq(PD_STR(""), pd_str_of(NULL, 0)));
    assert_true(pd_str_eq_short(PD_STR(""), pd_str_of(NULL, 0)));
    for (size_t n = 0; n <= 40; n++) {
        char a[40], b[40];
        memset(a, 'x', sizeof a);
        memset(b, 'x', sizeof b);
        assert_true(pd_str_eq_short(pd_str_of(a, n), pd_str_of(b, n)));
        assert_true(n == 40 || !pd_str_eq_short(pd_str_of(a, n), pd_str_of(b, n + 1)));
        for (size_t i = 0; i < n; i++) {
            b[i] = 'y';
            assert_false(pd_str_eq_short(pd_str_of(a, n), pd_str_of(b, n)));
            b[i] = 'x';
        }
    }
    assert_true(pd_str_eq_nocase(PD_STR("Content-Type"), PD_STR("content-tYPE")));
    assert_false(pd_str_eq_nocase(PD_STR("a["), PD_STR("A{")));
    assert_true(pd_str_cmp(PD_STR("a"), PD_STR("ab")) < 0);
    assert_true(pd_str_cmp(PD_STR("b"), PD_STR("ab")) > 0);
    assert_int_equal(pd_str_cmp(PD_STR("a"), PD_STR("a")), 0);
    assert_true(pd_str_starts_with(PD_STR("abc"), PD_STR("ab")));
    assert_false(pd_str_starts_with(PD_STR("a"), PD_STR("ab")));
    assert_true(pd_str_starts_with_nocase(PD_STR("Bearer x"), PD_STR("bearer ")));
    assert_true(pd_str_ends_with(PD_STR("abc"), PD_STR("bc")));
    assert_int_equal(pd_str_find(PD_STR("abcabc"), PD_STR("ca")), 2);
    assert_true(pd_str_find(PD_STR("abc"), PD_STR("x")) == PD_STR_NPOS);
    assert_true(pd_str_find(PD_STR("a"), PD_STR("aa")) == PD_STR_NPOS);
    assert_int_equal(pd_str_find_char(PD_STR("abc"), 'c'), 2);
    assert_true(pd_str_eq(pd_str_trim(PD_STR(" \t a b\r\n")), PD_STR("a b")));
    assert_int_equal(pd_str_trim(PD_STR("  ")).n, 0);
    assert_true(pd_str_eq(pd_str_sub(PD_STR("abc"), 1, 100), PD_STR("bc")));
    assert_int_equal(pd_str_sub(PD_STR("abc"), 9, 1).n, 0);

    struct pd_str rest = PD_STR("a,,b");
    struct pd_str part;
    assert_true(pd_str_split(&rest, ',', &part) && pd_str_is(part, "a"));
    assert_true(pd_str_split(&rest, ',', &part) && pd_str_is(part, ""));
    assert_true(pd_str_split(&rest, ',', &part) && pd_str_is(part, "b"));
    assert_false(pd_str_split(&rest, ',', &part));

    char text[4];
    assert_int_equal(pd_str_copy(PD_STR("abc"), text, sizeof text), PD_OK);
    assert_string_equal(text, "abc");
    assert_int_equal(pd_str_copy(PD_STR("abcd"), text, sizeof text), PD_ELIMIT);
    assert_string_equal(text, "abc");
}

static void test_numbers(void **state)
{
    (void)state;
    uint64_t u = 7;
    int64_t i = 7;
    double d = 7;
    bool b = false;
    assert_int_equal(pd_str_parse_u64(PD_STR("18446744073709551615"), &u), PD_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(pd_str_parse_u64(PD_STR("18446744073709551616"), &u), PD_ELIMIT);
    assert_int_equal(pd_str_parse_u64(PD_STR("99999999999999999999999"), &u), PD_ELIMIT);
    assert_int_equal(pd_str_parse_u64(PD_STR(""), &u), PD_EINVAL);
    assert_int_equal(pd_str_parse_u64(PD_STR("+1"), &u), PD_EINVAL);
    assert_int_equal(pd_str_parse_u64(PD_STR(" 1"), &u), PD_EINVAL);
    assert_int_equal(pd_str_parse_u64(PD_STR("1x"), &u), PD_EINVAL);
    assert_true(u == UINT64_MAX);
    assert_int_equal(pd_str_parse_i64(PD_STR("-9223372036854775808"), &i), PD_OK);
    assert_true(i == INT64_MIN);
    assert_int_equal(pd_str_parse_i64(PD_STR("-9223372036854775809"), &i), PD_ELIMIT);
    assert_int_equal(pd_str_parse_i64(PD_STR("9223372036854775808"), &i), PD_ELIMIT);
    assert_int_equal(pd_str_parse_i64(PD_STR("-"), &i), PD_EINVAL);
    assert_int_equal(pd_str_parse_i64(PD_STR("--1"), &i), PD_EINVAL);
    assert_int_equal(pd_str_parse_hex(PD_STR("DeadBeef"), &u), PD_OK);
    assert_true(u == 0xdeadbeef);
    assert_int_equal(pd_str_parse_hex(PD_STR("00000000000000000001"), &u), PD_OK);
    assert_int_equal(pd_str_parse_hex(PD_STR("10000000000000000"), &u), PD_ELIMIT);
    assert_int_equal(pd_str_parse_hex(PD_STR("0x1"), &u), PD_EINVAL);
    assert_int_equal(pd_str_parse_double(PD_STR("-1.5e3"), &d), PD_OK);
    assert_true(d == -1500.0);
    assert_int_equal(pd_str_parse_double(PD_STR("1e400"), &d), PD_ELIMIT);
    static const char *const bad[] = { "", "-", "nan", "inf", "0x10", "1.", ".5", "1e", "1e+", " 1",
                                       "1 ", "1,5", "+1" };
    for (size_t k = 0; k < PD_ARRAY_LEN(bad); k++)
        assert_int_equal(pd_str_parse_double(pd_str_from(bad[k]), &d), PD_EINVAL);
    assert_int_equal(pd_str_parse_bool(PD_STR("On"), &b), PD_OK);
    assert_true(b);
    assert_int_equal(pd_str_parse_bool(PD_STR("0"), &b), PD_OK);
    assert_false(b);
    assert_int_equal(pd_str_parse_bool(PD_STR("2"), &b), PD_EINVAL);
}

static void test_buf(void **state)
{
    (void)state;
    struct pd_buf b;
    pd_buf_init(&b, 1000);
    assert_string_equal(pd_buf_cstr(&b), "");
    assert_int_equal(pd_buf_append_cstr(&b, "hello"), PD_OK);
    assert_int_equal(pd_buf_appendf(&b, " %d %s", 42, "x"), PD_OK);
    assert_true(pd_str_is(pd_buf_str(&b), "hello 42 x"));
    pd_buf_consume(&b, 6);
    assert_string_equal(pd_buf_cstr(&b), "42 x");
    pd_buf_truncate(&b, 2);
    assert_string_equal(pd_buf_cstr(&b), "42");
    assert_int_equal(pd_buf_appendf(&b, "%600s", "y"), PD_OK);
    assert_int_equal(b.n, 602);
    assert_int_equal(pd_buf_appendf(&b, "%600s", "y"), PD_ELIMIT);
    assert_int_equal(b.n, 602);
    assert_int_equal(b.status, PD_ELIMIT);
    assert_int_equal(pd_buf_appendf(&b, "%398s", "z"), PD_OK);
    assert_int_equal(b.n, 1000);
    assert_int_equal(pd_buf_room(&b), 0);
    assert_int_equal(pd_buf_append_char(&b, 'x'), PD_ELIMIT);
    assert_int_equal(strlen(pd_buf_cstr(&b)), 1000);
    pd_buf_consume(&b, 5000);
    assert_int_equal(b.n, 0);
    pd_buf_clear(&b);
    assert_int_equal(b.status, PD_OK);

    /* A stream that is consumed as it comes stays within its allocation. */
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(pd_buf_append(&b, "0123456789", 10), PD_OK);
        if (b.n > 300)
            pd_buf_consume(&b, 290);
        assert_true(b.cap <= 1001);
    }
    assert_int_equal(pd_buf_reserve(&b, 20), PD_OK);
    memcpy(pd_buf_tail(&b), "tail", 4);
    pd_buf_commit(&b, 4);
    assert_true(pd_str_ends_with(pd_buf_str(&b), PD_STR("9tail")));
    size_t n;
    size_t want = b.n;
    char *all = pd_buf_steal(&b, &n);
    assert_int_equal(n, want);
    assert_int_equal(strlen(all), n);
    pd_free(all);
    assert_int_equal(b.n, 0);

    pd_mem_fault_set(1);
    assert_int_equal(pd_buf_append_cstr(&b, "x"), PD_ENOMEM);
    assert_int_equal(b.status, PD_ENOMEM);
    pd_mem_fault_set(0);
    pd_buf_fini(&b);

    pd_buf_init(&b, 0);
    assert_int_equal(pd_buf_append(&b, NULL, 0), PD_OK);
    assert_int_equal(pd_buf_append(&b, "x", 1), PD_ELIMIT);
    assert_string_equal(pd_buf_cstr(&b), "");
    pd_buf_fini(&b);
}

struct item {
    int value;
    struct pd_list link;
    struct pd_heap_node node;
};

/* Digits as the C library writes them, around every power of ten. */
static void test_buf_digits(void **state)
{
    (void)state;
    struct pd_buf b;
    char want[32];
    pd_buf_init(&b, 64);
    for (uint64_t power = 1, last = 0; power > last; last = power, power *= 10) {
        for (uint64_t v = power - 1; v <= power + 12; v++) {
            pd_buf_clear(&b);
            assert_int_equal(pd_buf_append_u64(&b, v), PD_OK);
            snprintf(want, sizeof want, "%llu", (unsigned long long)v);
            assert_int_equal(b.n, strlen(want));
            assert_memory_equal(b.p, want, b.n);
        }
        if (power == 10000000000000000000u)
            break;
    }
    pd_buf_clear(&b);
    assert_int_equal(pd_buf_append_u64(&b, UINT64_MAX), PD_OK);
    assert_int_equal(b.n, 20);
    assert_memory_equal(b.p, "18446744073709551615", 20);
    pd_buf_fini(&b);
}

static void test_list(void **state)
{
    (void)state;
    struct pd_list a;
    struct pd_list b;
    struct item items[5];
    pd_list_init(&a);
    pd_list_init(&b);
    assert_null(pd_list_first(&a));
    assert_null(pd_list_pop(&a));
    for (int i = 0; i < 5; i++) {
        items[i].value = i;
        pd_list_append(i < 3 ? &a : &b, &items[i].link);
    }
    pd_list_move_all(&a, &b);
    assert_true(pd_list_is_empty(&b));
    pd_list_move_all(&a, &b);
    int want = 0;
    PD_LIST_EACH(&a, link)
        assert_int_equal(PD_LIST_ENTRY(link, struct item, link)->value, want++);
    assert_int_equal(want, 5);
    PD_LIST_EACH_SAFE(&a, link) {
        if (PD_LIST_ENTRY(link, struct item, link)->value % 2 == 0)
            pd_list_remove(link);
    }
    assert_int_equal(pd_list_count(&a), 2);
    pd_list_remove(&items[0].link);
    pd_list_prepend(&a, &items[0].link);
    assert_ptr_equal(pd_list_pop(&a), &items[0].link);
    assert_ptr_equal(pd_list_last(&a), &items[3].link);
}

static void test_strmap(void **state)
{
    (void)state;
    struct pd_strmap m;
    static int values[2000];
    char key[32];
    pd_strmap_init(&m, 1500, 99);
    assert_null(pd_strmap_get(&m, PD_STR("x")));
    assert_null(pd_strmap_remove(&m, PD_STR("x")));
    for (int i = 0; i < 1500; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        assert_int_equal(pd_strmap_add(&m, pd_str_from(key), &values[i]), PD_OK);
    }
    assert_int_equal(pd_strmap_add(&m, PD_STR("key-3"), &values[0]), PD_EEXIST);
    assert_int_equal(pd_strmap_add(&m, PD_STR("more"), &values[0]), PD_ELIMIT);
    void *old;
    assert_int_equal(pd_strmap_put(&m, PD_STR("key-3"), &values[1999], &old), PD_OK);
    assert_ptr_equal(old, &values[3]);
    size_t cursor = 0;
    size_t n = 0;
    struct pd_str k;
    void *v;
    while (pd_strmap_next(&m, &cursor, &k, &v)) {
        n++;
        if ((int *)v - values < 1000)
            assert_ptr_equal(pd_strmap_remove(&m, k), v);
    }
    assert_int_equal(n, 1500);
    assert_int_equal(m.n, 501);
    for (int i = 0; i < 1500; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        void *got = pd_strmap_get(&m, pd_str_from(key));
        if (i == 3)
            assert_ptr_equal(got, &values[1999]);
        else
            assert_ptr_equal(got, i < 1000 ? NULL : &values[i]);
    }
    /* Coming and going does not grow the table. */
    for (int i = 0; i < 100000; i++) {
        snprintf(key, sizeof key, "t%d", i);
        assert_int_equal(pd_strmap_put(&m, pd_str_from(key), &values[0], NULL), PD_OK);
        assert_non_null(pd_strmap_remove(&m, pd_str_from(key)));
    }
    assert_true(m.cap <= 4096);
    assert_int_equal(pd_strmap_add(&m, PD_STR(""), &values[0]), PD_OK);
    assert_ptr_equal(pd_strmap_get(&m, pd_str_of(NULL, 0)), &values[0]);
    pd_mem_fault_set(1);
    assert_int_equal(pd_strmap_add(&m, PD_STR("nomem"), &values[0]), PD_ENOMEM);
    pd_mem_fault_set(0);
    pd_strmap_fini(&m);
}

static void test_idmap(void **state)
{
    (void)state;
    struct pd_idmap m;
    static int values[4096];
    uint64_t seed = 5;
    bool in[4096] = { false };
    pd_idmap_init(&m, 4096, 1);
    assert_null(pd_idmap_get(&m, 0));
    for (int i = 0; i < 200000; i++) {
        uint64_t key = next_random(&seed) % 4096;
        if (next_random(&seed) % 2 == 0) {
            pd_status status = pd_idmap_add(&m, key, &values[key]);
            assert_int_equal(status, in[key] ? PD_EEXIST : PD_OK);
            in[key] = true;
        } else {
            assert_ptr_equal(pd_idmap_remove(&m, key), in[key] ? &values[key] : NULL);
            in[key] = false;
        }
    }
    size_t n = 0;
    for (uint64_t key = 0; key < 4096; key++) {
        n += in[key];
        assert_ptr_equal(pd_idmap_get(&m, key), in[key] ? &values[key] : NULL);
    }
    assert_int_equal(m.n, n);
    size_t cursor = 0;
    uint64_t key;
    void *v;
    while (pd_idmap_next(&m, &cursor, &key, &v)) {
        n--;
        assert_ptr_equal(v, &values[key]);
    }
    assert_int_equal(n, 0);
    pd_idmap_fini(&m);
}

static void test_heap(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct item items[N];
    struct pd_heap h;
    uint64_t seed = 3;
    pd_heap_init(&h);
    assert_null(pd_heap_pop(&h));
    for (int i = 0; i < N; i++) {
        pd_heap_node_init(&items[i].node);
        pd_heap_insert(&h, &items[i].node, next_random(&seed) % 100);
        if (i % 3 == 2)
            pd_heap_remove(&h, &items[next_random(&seed) % (uint64_t)(i + 1)].node);
    }
    for (int i = 0; i < N; i += 7) {
        pd_heap_remove(&h, &items[i].node);
        assert_false(pd_heap_has(&items[i].node));
        pd_heap_insert(&h, &items[i].node, 50);
    }
    size_t n = h.n;
    struct pd_heap_node *before = NULL;
    for (struct pd_heap_node *node; (node = pd_heap_pop(&h)) != NULL; before = node) {
        n--;
        if (before != NULL)
            assert_true(before->time < node->time ||
                        (before->time == node->time && before->seq < node->seq));
    }
    assert_int_equal(n, 0);
    assert_null(pd_heap_min(&h));
}

static void test_arena(void **state)
{
    (void)state;
    struct pd_arena a;
    pd_arena_init(&a, 1024, 10000);
    char *all[100];
    for (int i = 0; i < 50; i++) {
        all[i] = (char *)pd_arena_alloc(&a, 33);
        assert_non_null(all[i]);
        assert_int_equal((uintptr_t)all[i] % _Alignof(max_align_t), 0);
        memset(all[i], i, 33);
    }
    char *big = (char *)pd_arena_calloc(&a, 50, 100);
    assert_non_null(big);
    assert_int_equal(big[4999], 0);
    for (int i = 0; i < 50; i++) {
        for (int k = 0; k < 33; k++)
            assert_int_equal(all[i][k], i);
    }
    assert_null(pd_arena_alloc(&a, 5000));
    assert_null(pd_arena_alloc(&a, SIZE_MAX));
    assert_null(pd_arena_calloc(&a, SIZE_MAX, 3));
    assert_true(a.used <= 10000);
    assert_string_equal(pd_arena_printf(&a, "%s-%d", "x", 5), "x-5");
    struct pd_str s;
    assert_int_equal(pd_arena_str(&a, PD_STR("abc"), &s), PD_OK);
    assert_string_equal(s.p, "abc");
    pd_arena_reset(&a);
    uint64_t count = pd_mem_count();
    assert_non_null(pd_arena_alloc(&a, 200));
    assert_int_equal(pd_mem_count(), count);
    while (pd_arena_alloc(&a, 24) != NULL)
        assert_true(a.used <= 10000);
    pd_arena_fini(&a);
}

static void test_ring(void **state)
{
    (void)state;
    struct pd_ring r;
    int v[8];
    assert_int_equal(pd_ring_init(&r, 0), PD_EINVAL);
    assert_int_equal(pd_ring_init(&r, 3), PD_OK);
    assert_null(pd_ring_pop(&r));
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 3; i++)
            assert_int_equal(pd_ring_push(&r, &v[i]), PD_OK);
        assert_int_equal(pd_ring_push(&r, &v[3]), PD_ELIMIT);
        assert_ptr_equal(pd_ring_at(&r, 2), &v[2]);
        assert_ptr_equal(pd_ring_pop(&r), &v[0]);
        assert_int_equal(pd_ring_push(&r, &v[4]), PD_OK);
        assert_ptr_equal(pd_ring_pop(&r), &v[1]);
        assert_ptr_equal(pd_ring_peek(&r), &v[2]);
        assert_ptr_equal(pd_ring_pop(&r), &v[2]);
        assert_ptr_equal(pd_ring_pop(&r), &v[4]);
    }
    pd_ring_fini(&r);
}

static void test_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        pd_status status;
        uint64_t value;
    } sizes[] = {
        { "0", PD_OK, 0 },
        { "4096", PD_OK, 4096 },
        { "512k", PD_OK, 524288 },
        { "1.5m", PD_OK, 1572864 },
        { "4g", PD_OK, (uint64_t)4 << 30 },
        { "4 GiB", PD_OK, (uint64_t)4 << 30 },
        { "2TB", PD_OK, (uint64_t)2 << 40 },
        { "17b", PD_OK, 17 },
        { "16383p", PD_OK, (uint64_t)16383 << 50 },
        { "16384p", PD_ELIMIT, 0 },
        { "99999999999999999999", PD_ELIMIT, 0 },
        { "", PD_EINVAL, 0 },
        { "k", PD_EINVAL, 0 },
        { "-1k", PD_EINVAL, 0 },
        { "1.5", PD_EINVAL, 0 },
        { "1.k", PD_EINVAL, 0 },
        { "1x", PD_EINVAL, 0 },
        { "1kk", PD_EINVAL, 0 },
        { "1k 2", PD_EINVAL, 0 },
    }, times[] = {
        { "0", PD_OK, 0 },
        { "100ns", PD_OK, 100 },
        { "3us", PD_OK, 3000 },
        { "250ms", PD_OK, 250 * PD_MS },
        { "0.1s", PD_OK, 100 * PD_MS },
        { "10s", PD_OK, 10 * PD_SEC },
        { "5m", PD_OK, 300 * PD_SEC },
        { "1h30m", PD_OK, 5400 * PD_SEC },
        { "1 h 30 min", PD_OK, 5400 * PD_SEC },
        { "2d", PD_OK, 172800 * PD_SEC },
        { "1", PD_EINVAL, 0 },
        { "", PD_EINVAL, 0 },
        { "s", PD_EINVAL, 0 },
        { "1.5ns", PD_EINVAL, 0 },
        { "1y", PD_EINVAL, 0 },
        { "-1s", PD_EINVAL, 0 },
        { "1s2", PD_EINVAL, 0 },
        { "1000000d", PD_ELIMIT, 0 },
        { "213503d200000d", PD_ELIMIT, 0 },
    };
    struct pd_err err;
    uint64_t v;
    for (size_t i = 0; i < PD_ARRAY_LEN(sizes); i++) {
        v = 0;
        pd_status status = pd_units_parse_bytes(pd_str_from(sizes[i].text), &v, &err);
        if (status != sizes[i].status || v != sizes[i].value)
            fail_msg("size %s: %s %llu", sizes[i].text, pd_status_text(status),
                     (unsigned long long)v);
    }
    for (size_t i = 0; i < PD_ARRAY_LEN(times); i++) {
        v = 0;
        pd_status status = pd_units_parse_duration(pd_str_from(times[i].text), &v, &err);
        if (status != times[i].status || v != times[i].value)
            fail_msg("time %s: %s %llu", times[i].text, pd_status_text(status),
                     (unsigned long long)v);
    }
    pd_units_parse_duration(PD_STR("5 apples"), &v, &err);
    assert_non_null(strstr(err.text, "expected a duration"));
    assert_non_null(strstr(err.text, "5 apples"));

    char out[PD_UNITS_TEXT];
    assert_string_equal(pd_units_format_bytes(0, out), "0 B");
    assert_string_equal(pd_units_format_bytes(1023, out), "1023 B");
    assert_string_equal(pd_units_format_bytes(1536, out), "1.5 KiB");
    assert_string_equal(pd_units_format_bytes(10 << 20, out), "10 MiB");
    assert_string_equal(pd_units_format_bytes(UINT64_MAX, out), "16384 PiB");
    assert_string_equal(pd_units_format_duration(250 * PD_MS, out), "250 ms");
    assert_string_equal(pd_units_format_duration(1500 * PD_MS, out), "1.5 s");
    assert_string_equal(pd_units_format_duration(90 * PD_SEC, out), "1.5 min");
    assert_string_equal(pd_units_format_duration(PD_TIME_NEVER, out), "never");
    assert_string_equal(pd_units_print_bytes(524288, out), "512k");
    assert_string_equal(pd_units_print_bytes(0, out), "0");
    assert_string_equal(pd_units_print_duration(1500 * PD_MS, out), "1500ms");
    assert_string_equal(pd_units_print_duration(90 * PD_SEC, out), "90s");
    assert_string_equal(pd_units_print_duration(120 * PD_SEC, out), "2m");
    assert_string_equal(pd_units_print_duration(0, out), "0s");
}

static void test_uuid(void **state)
{
    (void)state;
    struct pd_uuid u;
    struct pd_uuid back;
    char out[PD_UUID_TEXT];
    uint8_t random[16];
    memset(random, 0xff, sizeof random);
    pd_uuid_v4(random, &u);
    assert_string_equal(pd_uuid_format(&u, out), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_int_equal(pd_uuid_parse(PD_STR("FFFFFFFF-ffff-4FFF-bfff-ffffffffffff"), &back), PD_OK);
    assert_true(pd_uuid_eq(&u, &back));
    assert_false(pd_uuid_is_zero(&u));
    memset(&u, 0, sizeof u);
    assert_true(pd_uuid_is_zero(&u));
    assert_int_equal(pd_uuid_parse(PD_STR(""), &back), PD_EINVAL);
    assert_int_equal(pd_uuid_parse(PD_STR("ffffffff-ffff-4fff-bfff-fffffffffff"), &back),
                     PD_EINVAL);
    assert_int_equal(pd_uuid_parse(PD_STR("ffffffff-ffff-4fff-bfff-fffffffffffg"), &back),
                     PD_EINVAL);
    assert_int_equal(pd_uuid_parse(PD_STR("ffffffffffff-4fff-bfff-ffffffffffff----"), &back),
                     PD_EINVAL);
}

static void test_wire(void **state)
{
    (void)state;
    uint8_t bytes[64];
    struct pd_writer w;
    struct pd_uuid u = { { 1, 2, 3 } };
    size_t n;
    pd_writer_init(&w, bytes, sizeof bytes);
    pd_writer_u8(&w, 0x12);
    pd_writer_u16(&w, 0x3456);
    pd_writer_u32(&w, 0x789abcde);
    pd_writer_u64(&w, 0x1122334455667788u);
    pd_writer_i64(&w, -5);
    pd_writer_double(&w, -0.25);
    pd_writer_str16(&w, PD_STR("abc"));
    pd_writer_uuid(&w, &u);
    assert_int_equal(pd_writer_finish(&w, &n), PD_OK);
    assert_int_equal(n, 1 + 2 + 4 + 8 + 8 + 8 + 5 + 16);
    assert_memory_equal(bytes, "\x12\x56\x34\xde\xbc\x9a\x78\x88\x77", 9);

    struct pd_reader r;
    pd_reader_init(&r, bytes, n);
    assert_int_equal(pd_reader_u8(&r), 0x12);
    assert_int_equal(pd_reader_u16(&r), 0x3456);
    assert_int_equal(pd_reader_u32(&r), 0x789abcde);
    assert_true(pd_reader_u64(&r) == 0x1122334455667788u);
    assert_true(pd_reader_i64(&r) == -5);
    assert_true(pd_reader_double(&r) == -0.25);
    assert_true(pd_str_is(pd_reader_str16(&r, 10), "abc"));
    assert_int_equal(pd_reader_finish(&r), PD_EPROTO);
    struct pd_uuid back = pd_reader_uuid(&r);
    assert_true(pd_uuid_eq(&u, &back));
    assert_int_equal(pd_reader_finish(&r), PD_OK);
    assert_int_equal(pd_reader_u8(&r), 0);
    assert_int_equal(pd_reader_finish(&r), PD_EPROTO);

    pd_reader_init(&r, "\x05\x00hello", 7);
    assert_int_equal(pd_reader_str16(&r, 4).n, 0);
    assert_true(r.failed);
    pd_reader_init(&r, "\xff\xff\xff\xffxx", 6);
    assert_int_equal(pd_reader_str32(&r, SIZE_MAX).n, 0);
    assert_true(r.failed);
    pd_reader_init(&r, NULL, 0);
    assert_int_equal(pd_reader_finish(&r), PD_OK);

    pd_writer_init(&w, bytes, 3);
    pd_writer_u32(&w, 1);
    pd_writer_u8(&w, 1);
    assert_int_equal(pd_writer_finish(&w, &n), PD_ELIMIT);
}

/* Each status has a sentence of its own. */
static void test_status(void **state)
{
    static const pd_status all[] = {
#define VALUE(name, value, text) name,
        PD_STATUS_TABLE(VALUE)
#undef VALUE
    };
    const char *none = pd_status_text(-1000);
    (void)state;
    assert_true(none[0] != '\0');
    for (size_t i = 0; i < PD_ARRAY_LEN(all); i++) {
        assert_true(pd_status_text(all[i])[0] != '\0');
        assert_string_not_equal(pd_status_text(all[i]), none);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(pd_status_text(all[i]), pd_status_text(all[k]));
    }
    assert_int_equal(pd_err_set(NULL, PD_ELIMIT, "no place for %s", "this"), PD_ELIMIT);
    assert_int_equal(pd_err_hint(NULL, "nor for this"), PD_EINVAL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_status),
    cmocka_unit_test(test_mem),    cmocka_unit_test(test_str),
    cmocka_unit_test(test_numbers), cmocka_unit_test(test_buf), cmocka_unit_test(test_buf_digits),
    cmocka_unit_test(test_list),   cmocka_unit_test(test_strmap),
    cmocka_unit_test(test_idmap),  cmocka_unit_test(test_heap),
    cmocka_unit_test(test_arena),  cmocka_unit_test(test_ring),
    cmocka_unit_test(test_units),  cmocka_unit_test(test_uuid),
    cmocka_unit_test(test_wire),
};

PD_UNIT_MAIN(tests)
