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

static size_t blocks_of(size_t bytes, size_t block)
{
    return (bytes + block - 1) / block;
}

/* A chain over memory of the exact size, which a sanitizer watches. */
static void chain_of(const uint8_t *bytes, size_t n, size_t block, uint64_t chain, uint64_t *out)
{
    uint8_t *copy = malloc(n);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    pd_hash_chain(copy, n, block, chain, out, blocks_of(n, block));
    free(copy);
}

/* A block's hash is of its bytes, their number and the hash before it, not of what
 * comes behind; a change of any bit changes about half of its bits and all that follow. */
static void test_hash_chain(void **state)
{
    static const size_t sizes[] = { 1, 15, 16, 17, 63, 64, 65, 129, 240, 256, 1000 };
    static uint8_t bytes[3000];
    uint64_t whole[3000], other[3000];
    uint64_t flips = 0, tries = 0;
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++) {
        size_t block = sizes[b], n = 2 * block + (block + 1) / 2;
        chain_of(bytes, n, block, 77, whole);
        chain_of(bytes, 2 * block, block, 77, other);
        assert_memory_equal(whole, other, 2 * sizeof whole[0]);
        chain_of(bytes, n, block, 78, other);
        for (size_t i = 0; i < blocks_of(n, block); i++)
            assert_true(whole[i] != other[i]);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            size_t at = bit / 8 / block;
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            chain_of(bytes, n, block, 77, other);
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_memory_equal(whole, other, at * sizeof whole[0]);
            for (size_t i = at; i < blocks_of(n, block); i++)
                assert_true(whole[i] != other[i]);
            flips += (uint64_t)__builtin_popcountll(whole[at] ^ other[at]);
            tries++;
        }
    }
    assert_true(flips > 31 * tries && flips < 33 * tries);
    /* Zeros at the end are part of a block. */
    memset(bytes, 0, sizeof bytes);
    for (size_t n = 1; n <= 300; n++) {
        pd_hash_chain(bytes, n, 512, 0, &whole[n], 1);
        for (size_t i = 1; i < n; i++)
            assert_true(whole[i] != whole[n]);
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
