/* SPDX-License-Identifier: Apache-2.0 */
/* The parts below the transports: ranges against a map of bytes, segments,
 * frames and blobs against every change of one byte, the checksum. */
#include "unit.h"

#include "frame.h"
#include "ranges.h"
#include "segs.h"

static uint64_t rng = 1;

static uint64_t next(void)
{
    uint64_t z = rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return z ^ z >> 31;
}

static void ranges_model(void **state)
{
    enum { N = 300 };

    (void)state;
    for (int round = 0; round < 200; round++) {
        struct pd_xp_ranges r;
        uint8_t map[N] = { 0 };
        pd_xp_ranges_init(&r, 1000);
        for (int i = 0; i < 60; i++) {
            uint64_t from = next() % N, to = from + 1 + next() % (N - from);
            bool add = next() % 3 != 0, touch = false;
            uint64_t total = 0, sum = 0;
            if (next() % 2)
                to = from + 1 + next() % 5 % (N - from);
            for (uint64_t k = from; k < to; k++)
                touch = touch || map[k];
            assert_true(pd_xp_ranges_touch(&r, from, to) == touch);
            memset(map + from, add, to - from);
            assert_int_equal(add ? pd_xp_ranges_add(&r, from, to)
                                 : pd_xp_ranges_remove(&r, from, to), PD_OK);
            for (int k = 0; k < N; k++)
                total += map[k];
            assert_true(r.total == total);
            for (uint32_t k = 0; k < r.n; k++) {
                assert_true(r.v[k].from < r.v[k].to);
                assert_true(k == 0 || r.v[k - 1].to < r.v[k].from);
                for (uint64_t b = r.v[k].from; b < r.v[k].to; b++)
                    assert_int_equal(map[b], 1);
                sum += r.v[k].to - r.v[k].from;
            }
            assert_true(sum == total);
        }
        pd_xp_ranges_fini(&r);
    }
}

static void ranges_limit(void **state)
{
    struct pd_xp_ranges r;

    (void)state;
    pd_xp_ranges_init(&r, 4);
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(pd_xp_ranges_add(&r, 10 * i, 10 * i + 5), PD_OK);
    assert_int_equal(pd_xp_ranges_add(&r, 100, 101), PD_ELIMIT);
    assert_int_equal(pd_xp_ranges_remove(&r, 1, 2), PD_ELIMIT);
    assert_true(r.total == 20);
    assert_int_equal(pd_xp_ranges_add(&r, 5, 10), PD_OK);
    assert_int_equal(pd_xp_ranges_add(&r, UINT64_MAX - 1, UINT64_MAX), PD_OK);
    pd_xp_ranges_fini(&r);
}

static void segments(void **state)
{
    static uint8_t memory[10000];
    struct pd_segment v[3] = { { 100, 50 }, { 150, 50 }, { 0, 7 } };
    struct pd_xp_segs *s = NULL;
    struct pd_iov iov[4];
    uint64_t covered;

    (void)state;
    assert_int_equal(pd_xp_segs_create(memory, sizeof(memory), v, 3, &s), PD_OK);
    assert_true(s->total == 107);
    assert_int_equal(s->n, 2);  /* neighbours are one */
    assert_int_equal(pd_xp_segs_iov(s, 99, 3, iov, 4, &covered), 2);
    assert_ptr_equal(iov[0].base, memory + 199);
    assert_ptr_equal(iov[1].base, memory);
    assert_true(covered == 3 && iov[0].len == 1 && iov[1].len == 2);
    assert_int_equal(pd_xp_segs_iov(s, 0, 107, iov, 1, &covered), 1);
    assert_true(covered == 100);
    free(s);
    v[2].offset = UINT64_MAX;
    assert_int_equal(pd_xp_segs_create(memory, sizeof(memory), v, 3, &s), PD_EINVAL);
    v[2].offset = 9994;
    assert_int_equal(pd_xp_segs_create(memory, sizeof(memory), v, 3, &s), PD_EINVAL);
    v[2].bytes = UINT64_MAX;
    assert_int_equal(pd_xp_segs_create(memory, sizeof(memory), v, 3, &s), PD_EINVAL);
    v[2].bytes = 0;
    assert_int_equal(pd_xp_segs_create(memory, sizeof(memory), v, 3, &s), PD_EINVAL);
    assert_int_equal(pd_xp_segs_create(memory, sizeof(memory), v, 0, &s), PD_EINVAL);
}

static void heads(void **state)
{
    static struct pd_xp_crc crc;
    struct pd_xp_head h = { .type = PD_XP_WRITE, .flags = PD_XP_CHECKED, .seq = 65535, .xid = 1,
                            .generation = UINT64_MAX, .offset = 77, .length = 4096, .crc = 5,
                            .id = 9, .token = "0123456789abcde" };
    struct pd_xp_head got;
    uint8_t buf[PD_XP_HEAD_BYTES];

    (void)state;
    pd_xp_crc_init(&crc);
    pd_xp_head_encode(&crc, &h, buf);
    assert_int_equal(pd_xp_head_decode(&crc, buf, &got), PD_OK);
    assert_true(got.type == h.type && got.flags == h.flags && got.seq == h.seq &&
                got.xid == h.xid && got.generation == h.generation && got.offset == h.offset &&
                got.length == h.length && got.crc == h.crc && got.id == h.id);
    assert_memory_equal(got.token, h.token, sizeof(h.token));
    for (uint32_t i = 0; i < PD_XP_HEAD_BYTES * 8; i++) {
        buf[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_not_equal(pd_xp_head_decode(&crc, buf, &got), PD_OK);
        buf[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    h.type = PD_XP_TYPES;
    pd_xp_head_encode(&crc, &h, buf);
    assert_int_equal(pd_xp_head_decode(&crc, buf, &got), PD_EPROTO);
}

static void addresses(void **state)
{
    struct pd_xp_address a = { .kind = PD_XP_SHM, .family = 1, .port = 8000, .path = "/run/x" };
    struct pd_xp_address got;
    uint8_t buf[300];
    size_t len;

    (void)state;
    assert_int_equal(pd_xp_address_encode(&a, buf, 10, &len), PD_ELIMIT);
    assert_int_equal(pd_xp_address_encode(&a, buf, sizeof(buf), &len), PD_OK);
    assert_int_equal(pd_xp_address_decode(buf, len, &got), PD_OK);
    assert_string_equal(got.path, a.path);
    assert_int_equal(got.port, 8000);
    for (size_t n = 0; n < len; n++)
        assert_int_not_equal(pd_xp_address_decode(buf, n, &got), PD_OK);
    assert_int_not_equal(pd_xp_address_decode(buf, len + 1, &got), PD_OK);
    buf[len - 1] = '\0';
    assert_int_not_equal(pd_xp_address_decode(buf, len, &got), PD_OK);
    buf[10] = 108;
    buf[11] = 0;
    assert_int_not_equal(pd_xp_address_decode(buf, PD_XP_ADDRESS_BYTES + 108, &got), PD_OK);
}

static void checksum(void **state)
{
    static struct pd_xp_crc crc;
    static uint8_t data[100000];

    (void)state;
    pd_xp_crc_init(&crc);
    assert_true(pd_xp_crc(&crc, 0, "123456789", 9) == 0xe3069283u);
    assert_true(pd_xp_crc_portable(&crc, 0, "123456789", 9) == 0xe3069283u);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)next();
    for (int i = 0; i < 300; i++) {
        size_t at = next() % 50, n = next() % (sizeof(data) - at), half = n == 0 ? 0 : next() % n;
        uint32_t whole = pd_xp_crc_portable(&crc, 0, data + at, n);
        assert_true(pd_xp_crc(&crc, 0, data + at, n) == whole);
        assert_true(pd_xp_crc(&crc, pd_xp_crc(&crc, 0, data + at, half), data + at + half,
                              n - half) == whole);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ranges_model), cmocka_unit_test(ranges_limit), cmocka_unit_test(segments),
    cmocka_unit_test(heads),        cmocka_unit_test(addresses),    cmocka_unit_test(checksum),
};

PD_UNIT_MAIN(tests)
