/* SPDX-License-Identifier: Apache-2.0 */
/* Peer protocol: headers, preambles, descriptions and heartbeats that are
 * accepted can be written, and read back as the same.
 *
 * Input: which reader, then the bytes. */
#include "fuzz.h"

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/wire.h"
#include "peer/frame.h"
#include "peer/hello.h"

static uint8_t out[PD_FRAME_MAX_PAYLOAD], out2[PD_FRAME_MAX_PAYLOAD];

static void frame(uint8_t *p, size_t n, bool repair)
{
    uint8_t back[PD_FRAME_HEADER];
    struct pd_frame f;
    if (n < PD_FRAME_HEADER)
        return;
    if (repair) {
        pd_wire_put_u16(p, PD_FRAME_MAGIC);
        p[2] = PD_FRAME_FORMAT;
        pd_wire_put_u32(p + 16, pd_crc32c(0, p, 16));
    }
    if (pd_frame_read(p, &f) != PD_OK)
        return;
    FUZZ_CHECK(f.length <= PD_FRAME_MAX_PAYLOAD);
    FUZZ_CHECK((f.call == 0) == (f.type < PD_FRAME_OPEN));
    struct pd_iov iov = { p + PD_FRAME_HEADER, n - PD_FRAME_HEADER };
    if (f.length == iov.len) {
        pd_frame_write(back, &f, &iov, 1);
        FUZZ_CHECK(memcmp(back, p, 20) == 0);
        FUZZ_CHECK((memcmp(back + 20, p + 20, 4) == 0) == pd_frame_is_intact(iov.base, &f));
    }
}

static void preamble(const uint8_t *p, size_t n)
{
    struct pd_preamble a;
    uint8_t back[PD_HELLO_PREAMBLE];
    if (pd_preamble_read(p, n, &a) != PD_OK)
        return;
    pd_preamble_write(&a, back);
    FUZZ_CHECK(memcmp(back, p, sizeof back) == 0);
    FUZZ_CHECK(pd_preamble_agree(&a, &a) == a.version_max);
}

static void desc(const uint8_t *p, size_t n)
{
    struct pd_peer_desc *d, *again;
    struct pd_err err = { 0 };
    bool draining, draining2;
    size_t k, k2;
    if (pd_desc_read(p, n, &d, &draining) != PD_OK)
        return;
    FUZZ_CHECK(pd_desc_check(d, &err) == PD_OK);
    FUZZ_CHECK(pd_desc_write(d, draining, out, sizeof out, &k) == PD_OK);
    FUZZ_CHECK(pd_desc_read(out, k, &again, &draining2) == PD_OK && draining == draining2);
    FUZZ_CHECK(pd_desc_write(again, draining2, out2, sizeof out2, &k2) == PD_OK);
    FUZZ_CHECK(k == k2 && memcmp(out, out2, k) == 0);
    pd_free(again);
    again = pd_desc_copy(d);
    FUZZ_CHECK(again != NULL && pd_desc_write(again, draining, out2, sizeof out2, &k2) == PD_OK);
    FUZZ_CHECK(k == k2 && memcmp(out, out2, k) == 0);
    pd_free(again);
    pd_free(d);
}

static void heartbeat(const uint8_t *p, size_t n)
{
    static struct pd_heartbeat a, b;
    if (pd_heartbeat_read(p, n, &a) != PD_OK)
        return;
    FUZZ_CHECK(a.n_loads <= PD_PEER_MAX_ENGINES);
    size_t k = pd_heartbeat_write(&a, out, sizeof out);
    FUZZ_CHECK(k > 0 && pd_heartbeat_read(out, k, &b) == PD_OK);
    FUZZ_CHECK(pd_heartbeat_write(&b, out2, sizeof out2) == k && memcmp(out, out2, k) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    uint8_t kind = fuzz_u8(&in);
    size_t n;
    uint8_t *p = (uint8_t *)fuzz_rest(&in, &n);
    switch (kind % 5) {
    case 0:
    case 1:
        frame(p, n, kind % 5 == 1);
        break;
    case 2:
        preamble(p, n);
        break;
    case 3:
        desc(p, n);
        break;
    default:
        heartbeat(p, n);
        break;
    }
    fuzz_back((char *)p, n);
    return 0;
}
