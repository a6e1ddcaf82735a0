/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums, hashes and UTF-8 of core/base. */
#include "unit.h"

#include "base/compiler.h"
#include "base/crc32c.h"
#include "base/hash.h"
#include "base/str.h"
#include "base/utf8.h"

/* RFC 3720, appendix B.4. */
static void test_crc_vectors(void **state)
{
    (void)state;
    uint8_t b[48];
    memset(b, 0, 32);
    assert_int_equal(pd_crc32c(0, b, 32), 0x8a9136aau);
    memset(b, 0xff, 32);
    assert_int_equal(pd_crc32c(0, b, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++)
        b[i] = (uint8_t)i;
    assert_int_equal(pd_crc32c(0, b, 32), 0x46dd794eu);
    for (int i = 0; i < 32; i++)
        b[i] = (uint8_t)(31 - i);
    assert_int_equal(pd_crc32c(0, b, 32), 0x113fdb5cu);
    static const uint8_t read10[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    assert_int_equal(pd_crc32c(0, read10, 48), 0xd9963a56u);
    assert_int_equal(pd_crc32c_portable(0, read10, 48), 0xd9963a56u);
    assert_int_equal(pd_crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(pd_crc32c(0, NULL, 0), 0);
}

static void test_crc_agrees(void **state)
{
    (void)state;
    enum { N = 40000 };
    uint8_t *b = (uint8_t *)malloc(N);
    uint32_t v = 1;
    for (int i = 0; i < N; i++) {
        v = v * 1664525u + 1013904223u;
        b[i] = (uint8_t)(v >> 24);
    }
    for (size_t n = 0; n < N; n += n < 1200 ? 1 : 377) {
        size_t off = n % 9 > N - n ? 0 : n % 9;
        if (off + n > N)
            break;
        uint32_t want = pd_crc32c_portable(77, b + off, n);
        assert_int_equal(pd_crc32c(77, b + off, n), want);
        size_t half = n / 3;
        uint32_t first = pd_crc32c(77, b + off, half);
        assert_int_equal(pd_crc32c(first, b + off + half, n - half), want);
        uint32_t second = pd_crc32c(0, b + off + half, n - half);
        assert_int_equal(pd_crc32c_combine(first, second, n - half), want);
    }
    free(b);
}

/* Whatever the processor has, a chain is what its definition says. */
static void test_hash_chain(void **state)
{
    static const size_t blocks[] = { 1, 16, 129, 240, 241, 256, 1000, 4096 };
    static uint8_t bytes[9000];
    uint64_t out[9000];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++) {
        for (size_t size = 1; size <= sizeof bytes; size = size * 3 + 1) {
            size_t n = (size + blocks[b] - 1) / blocks[b];
            uint64_t chain = 77;
            pd_hash_chain(bytes, size, blocks[b], chain, out, n);
            for (size_t i = 0; i < n; i++) {
                size_t at = i * blocks[b], take = size - at < blocks[b] ? size - at : blocks[b];
                uint64_t hash = take < blocks[b] && i > 0 ? pd_hash_block(bytes + size - blocks[b], blocks[b]) + take
                                                          : pd_hash_block(bytes + at, take);
                chain = pd_hash_link(hash, chain);
                assert_true(out[i] == chain);
            }
        }
    }
}

static void test_hash(void **state)
{
    (void)state;
    /* Published vectors of xxHash for the empty input. */
    assert_true(pd_hash64("", 0, 0) == 0x2d06800538d394c2u);
    struct pd_hash128 h = pd_hash128(NULL, 0, 0);
    assert_true(h.hi == 0x99aa06d3014798d8u && h.lo == 0x6001c324468d497fu);
    assert_true(pd_hash64("abc", 3, 1) != pd_hash64("abc", 3, 2));
    assert_true(pd_hash_u64(1, 0) != pd_hash_u64(2, 0));
    assert_true(pd_hash_u64(1, 0) != pd_hash_u64(1, 1));

    char text[1000];
    memset(text, 'q', sizeof text);
    for (int seed = 0; seed < 2; seed++) {
        struct pd_hasher *s = pd_hasher_create((uint64_t)seed * 12345);
        for (size_t i = 0; i < sizeof text; i += 100)
            pd_hasher_update(s, text + i, 100);
        pd_hasher_update(s, NULL, 0);
        assert_true(pd_hash128_eq(pd_hasher_digest128(s),
                                  pd_hash128(text, sizeof text, (uint64_t)seed * 12345)));
        assert_true(pd_hasher_digest64(s) == pd_hash64(text, sizeof text, (uint64_t)seed * 12345));
        pd_hasher_reset(s, 7);
        pd_hasher_update(s, "abc", 3);
        assert_true(pd_hasher_digest64(s) == pd_hash64("abc", 3, 7));
        pd_hasher_destroy(s);
    }
    pd_hasher_destroy(NULL);
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        struct pd_str s;
        size_t valid;
        size_t tail;
    } cases[] = {
        { { "", 0 }, 0, 0 },
        { { "plain ascii, long enough", 24 }, 24, 0 },
        { { "a\xc3\xa4z", 4 }, 4, 0 },
        { { "\xe2\x82\xac", 3 }, 3, 0 },
        { { "\xf0\x9f\x98\x80", 4 }, 4, 0 },
        { { "\xf4\x8f\xbf\xbf", 4 }, 4, 0 },
        { { "ab\xf0\x9f\x98", 5 }, 2, 3 },
        { { "ab\xf0\x9f", 4 }, 2, 2 },
        { { "ab\xf0", 3 }, 2, 1 },
        { { "ab\xe2\x82", 4 }, 2, 2 },
        { { "ab\xc3", 3 }, 2, 1 },
        { { "\xc0\x80", 2 }, 0, 0 },
        { { "\xc1\xbf", 2 }, 0, 0 },
        { { "\xe0\x80\x80", 3 }, 0, 0 },
        { { "\xe0\x80", 2 }, 0, 0 },
        { { "\xed\xa0\x80", 3 }, 0, 0 },
        { { "\xed\xa0", 2 }, 0, 0 },
        { { "\xf0\x80\x80\x80", 4 }, 0, 0 },
        { { "\xf4\x90\x80\x80", 4 }, 0, 0 },
        { { "\xf5\x80\x80\x80", 4 }, 0, 0 },
        { { "\xff", 1 }, 0, 0 },
        { { "\x80", 1 }, 0, 0 },
        { { "12345678\x80" "12345678", 17 }, 8, 0 },
    };
    for (size_t i = 0; i < PD_ARRAY_LEN(cases); i++) {
        assert_int_equal(pd_utf8_valid_prefix(cases[i].s.p, cases[i].s.n), cases[i].valid);
        assert_int_equal(pd_utf8_is_valid(cases[i].s.p, cases[i].s.n),
                         cases[i].valid == cases[i].s.n);
        assert_int_equal(pd_utf8_tail(cases[i].s.p, cases[i].s.n), cases[i].tail);
    }
    for (uint32_t cp = 0; cp < 0x110100; cp++) {
        char out[4];
        uint32_t back = 0;
        size_t n = pd_utf8_encode(cp, out);
        bool is_char = cp < 0x110000 && !(cp >= 0xd800 && cp <= 0xdfff);
        assert_int_equal(n != 0, is_char);
        if (is_char) {
            assert_int_equal(pd_utf8_decode(out, n, &back), n);
            assert_int_equal(back, cp);
            assert_int_equal(pd_utf8_decode(out, n - 1, &back), 0);
        }
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_crc_vectors),
    cmocka_unit_test(test_crc_agrees),
    cmocka_unit_test(test_hash), cmocka_unit_test(test_hash_chain),
    cmocka_unit_test(test_utf8),
};

PD_UNIT_MAIN(tests)
