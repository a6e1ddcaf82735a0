/* SPDX-License-Identifier: Apache-2.0 */
/* Transport frames, greetings, blobs, and the two lists that peers' numbers go
 * into: ranges and segments.
 *
 * Input: which of them, then the bytes. */
#include "fuzz.h"

#include "frame.h"
#include "ranges.h"
#include "segs.h"

static struct pd_xp_crc crc;

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void head(uint8_t *p, size_t n, bool repair)
{
    struct pd_xp_head h;
    uint8_t back[PD_XP_HEAD_BYTES];
    if (n < PD_XP_HEAD_BYTES)
        return;
    if (repair) {
        p[0] = 0x50, p[1] = 0x58, p[2] = 1;
        uint32_t v = pd_xp_crc(&crc, 0, p, 44);
        put32(p + 44, pd_xp_crc(&crc, v, p + 48, PD_XP_TOKEN_BYTES));
    }
    if (pd_xp_head_decode(&crc, p, &h) != PD_OK)
        return;
    FUZZ_CHECK(h.type > 0 && h.type < PD_XP_TYPES);
    pd_xp_head_encode(&crc, &h, back);
    FUZZ_CHECK(memcmp(back, p, sizeof back) == 0);
}

static void hello(const uint8_t *p, size_t n)
{
    struct pd_xp_hello h, again;
    uint8_t back[PD_XP_HELLO_BYTES];
    if (n < PD_XP_HELLO_BYTES)
        return;
    memset(&h, 0, sizeof h);
    memset(&again, 0, sizeof again);
    pd_xp_hello_decode(p, &h);
    pd_xp_hello_encode(&h, back);
    pd_xp_hello_decode(back, &again);
    FUZZ_CHECK(memcmp(&h, &again, sizeof h) == 0);
}

static void address(const uint8_t *p, size_t n)
{
    struct pd_xp_address a;
    uint8_t back[PD_XP_ADDRESS_BYTES + PD_XP_PATH_MAX];
    size_t len;
    if (pd_xp_address_decode(p, n, &a) != PD_OK)
        return;
    FUZZ_CHECK(strlen(a.path) <= PD_XP_PATH_MAX);
    FUZZ_CHECK(pd_xp_address_encode(&a, back, sizeof back, &len) == PD_OK);
    FUZZ_CHECK(len == n && memcmp(back, p, n) == 0);
}

static void grant(const uint8_t *p, size_t n)
{
    struct pd_xp_grant g;
    uint8_t back[PD_XP_WINDOW_BLOB_BYTES];
    if (pd_xp_grant_decode(p, n, &g) != PD_OK)
        return;
    FUZZ_CHECK(g.bytes > 0);
    pd_xp_grant_encode(&g, back);
    FUZZ_CHECK(memcmp(back, p, sizeof back) == 0);
}

/* Against a map of bits. */
static void ranges(struct fuzz_in *in)
{
    struct pd_xp_ranges r;
    static uint8_t map[256], before[256];
    memset(map, 0, sizeof map);
    pd_xp_ranges_init(&r, 1 + fuzz_u8(in) % 16);
    while (in->n >= 3) {
        uint8_t op = fuzz_u8(in), a = fuzz_u8(in), b = fuzz_u8(in);
        uint64_t from = a < b ? a : b, to = a < b ? b : a, sum = 0;
        if (from == to)
            to++;
        memcpy(before, map, sizeof map);
        bool touch = false;
        for (uint64_t i = from; i < to; i++) {
            touch |= map[i] != 0;
            map[i] = (op & 1) != 0;
        }
        FUZZ_CHECK(pd_xp_ranges_touch(&r, from, to) == touch);
        pd_status status = op & 1 ? pd_xp_ranges_add(&r, from, to) : pd_xp_ranges_remove(&r, from, to);
        FUZZ_CHECK(status == PD_OK || status == PD_ELIMIT);
        if (status != PD_OK)
            memcpy(map, before, sizeof map);
        for (size_t i = 0; i < sizeof map; i++)
            sum += map[i];
        FUZZ_CHECK(r.total == sum && r.n <= r.limit);
        for (uint32_t i = 0; i < r.n; i++) {
            FUZZ_CHECK(r.v[i].from < r.v[i].to && (i == 0 || r.v[i - 1].to < r.v[i].from));
            for (uint64_t k = r.v[i].from; k < r.v[i].to; k++)
                FUZZ_CHECK(map[k] == 1);
        }
    }
    pd_xp_ranges_fini(&r);
}

/* Any list of segments either is refused or lies in the memory. */
static void segs(struct fuzz_in *in)
{
    enum { BYTES = 512 };
    static uint8_t base[BYTES];
    struct pd_segment list[32];
    struct pd_xp_segs *s;
    uint32_t n = fuzz_u8(in) % 33;
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        list[i].offset = fuzz_u16(in);
        list[i].bytes = fuzz_u8(in);
        uint8_t wild = fuzz_u8(in);
        if (wild == 255)
            list[i].offset = UINT64_MAX - list[i].offset;
        else if (wild == 254)
            list[i].bytes = UINT64_MAX - list[i].bytes;
        total += list[i].bytes;
    }
    if (pd_xp_segs_create(base, BYTES, list, n, &s) != PD_OK)
        return;
    FUZZ_CHECK(s->total == total && s->n <= n);
    while (in->n > 0) {
        struct pd_iov iov[4];
        uint64_t covered, from = fuzz_u16(in) % total, len = 1 + fuzz_u16(in) % (total - from), sum = 0;
        size_t k = pd_xp_segs_iov(s, from, len, iov, 4, &covered);
        FUZZ_CHECK(k >= 1 && k <= 4 && covered <= len);
        for (size_t i = 0; i < k; i++) {
            const uint8_t *p = iov[i].base;
            FUZZ_CHECK(p >= base && iov[i].len > 0 && p + iov[i].len <= base + BYTES);
            sum += iov[i].len;
        }
        FUZZ_CHECK(sum == covered && (covered == len || k == 4));
    }
    free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    static bool ready;
    if (!ready)
        pd_xp_crc_init(&crc);
    ready = true;
    uint8_t kind = fuzz_u8(&in) % 8;
    if (kind == 6) {
        ranges(&in);
        return 0;
    }
    if (kind == 7) {
        segs(&in);
        return 0;
    }
    size_t n;
    uint8_t *p = (uint8_t *)fuzz_rest(&in, &n);
    if (kind <= 1)
        head(p, n, kind == 1);
    else if (kind == 2)
        hello(p, n);
    else if (kind == 3)
        address(p, n);
    else if (kind == 4)
        grant(p, n);
    else
        FUZZ_CHECK(pd_xp_crc(&crc, 0, p, n) == pd_xp_crc_portable(&crc, 0, p, n));
    fuzz_back((char *)p, n);
    return 0;
}
