/* SPDX-License-Identifier: Apache-2.0 */
/* Grants, hand-over messages, layouts and plans: what is accepted is within its
 * limits and can be written again; no plan ever leaves its pool.
 *
 * Input: which of them, then the bytes. */
#include "fuzz.h"

#include "base/wire.h"
#include "kv/layout.h"
#include "kv/message.h"
#include "kv/plan.h"

static void grant(struct pd_str bytes)
{
    struct pd_kv_grant_full g;
    struct pd_buf out;
    if (pd_kv_grant_parse(bytes, &g) != PD_OK)
        return;
    FUZZ_CHECK(pd_kv_layout_check(&g.g.layout, NULL) == PD_OK);
    FUZZ_CHECK(g.g.from < g.g.to && g.g.to <= PD_KV_MAX_TOKENS && g.g.n_transports <= PD_KV_GRANT_WAYS);
    FUZZ_CHECK(g.g.bytes == (uint64_t)(g.g.to - g.g.from) * pd_kv_layout_token_bytes(&g.g.layout));
    FUZZ_CHECK(g.g.bytes / (g.g.to - g.g.from) == pd_kv_layout_token_bytes(&g.g.layout));
    for (uint32_t i = 0; i < g.g.n_transports; i++)
        FUZZ_CHECK(fuzz_inside(g.ways[i].blob, bytes) && fuzz_inside(g.ways[i].transport, bytes));
    pd_buf_init(&out, PD_KV_MAX_GRANT);
    FUZZ_CHECK(pd_kv_grant_write(&g, &out) == PD_OK && fuzz_same(pd_buf_str(&out), bytes));
    pd_buf_fini(&out);
    /* The windows of its wire blocks are the granted range, without gaps. */
    uint32_t n = pd_kv_wire_blocks(g.g.from, g.g.to, g.g.wire_block_tokens), at = g.g.from;
    FUZZ_CHECK(n > 0);
    for (uint32_t i = 0; i < n && i < 64; i++) {
        uint32_t a, b;
        pd_kv_wire_range(g.g.from, g.g.to, g.g.wire_block_tokens, i, &a, &b);
        FUZZ_CHECK(a == at && b > a && b <= g.g.to);
        at = b;
    }
    FUZZ_CHECK(n > 64 || at == g.g.to);
}

static void message(struct pd_str bytes)
{
    struct pd_kv_message m;
    uint64_t digests[PD_KV_DIGESTS_PER_MESSAGE];
    struct pd_buf out;
    if (pd_kv_message_parse(bytes, &m) != PD_OK)
        return;
    FUZZ_CHECK(m.type != PD_KV_M_DIGESTS || (m.count > 0 && m.count <= PD_KV_DIGESTS_PER_MESSAGE));
    for (uint32_t i = 0; m.type == PD_KV_M_DIGESTS && i < m.count; i++)
        digests[i] = pd_wire_get_u64(m.digests + 8 * (size_t)i);
    pd_buf_init(&out, 1 << 20);
    FUZZ_CHECK(pd_kv_message_write(&m, digests, &out) == PD_OK && fuzz_same(pd_buf_str(&out), bytes));
    FUZZ_CHECK(pd_kv_verdict_text(m.verdict) != NULL);
    pd_buf_fini(&out);
}

static bool layout(struct fuzz_in *in, struct pd_layout *l)
{
    uint8_t bytes[PD_KV_LAYOUT_BYTES], back[PD_KV_LAYOUT_BYTES];
    struct pd_str s = fuzz_take(in, sizeof bytes);
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, s.p, s.n);
    if (pd_kv_layout_decode(bytes, l) != PD_OK)
        return false;
    pd_kv_layout_encode(l, back);
    FUZZ_CHECK(memcmp(bytes, back, sizeof back) == 0);
    FUZZ_CHECK(pd_kv_layout_compatible(l, l, NULL) == PD_OK);
    FUZZ_CHECK(l->block_bytes / l->block_tokens == pd_kv_layout_token_bytes(l));
    return true;
}

static void plan(struct fuzz_in *in)
{
    struct pd_layout l = { .size = sizeof l };
    uint32_t blocks[64];
    struct pd_kv_plan p;
    l.order = PD_KV_BLOCK_LAYER + fuzz_u8(in) % 2;
    l.dtype = PD_DTYPE_F32 + fuzz_u8(in) % 4;
    l.layers = 1 + fuzz_u8(in) % 8;
    l.kv_heads = 1 + fuzz_u8(in) % 4;
    l.head_dim = 1 + fuzz_u8(in) % 16;
    l.block_tokens = 1 + fuzz_u8(in) % 32;
    l.block_bytes = pd_kv_layout_token_bytes(&l) * l.block_tokens;
    FUZZ_CHECK(pd_kv_layout_check(&l, NULL) == PD_OK);
    struct pd_kv_place place = { .layout = &l, .blocks = blocks };
    place.pool_blocks = fuzz_u8(in);
    place.first_block = fuzz_u8(in) % 4;
    place.n_blocks = fuzz_u8(in) % 65;
    for (uint32_t i = 0; i < place.n_blocks; i++)
        blocks[i] = fuzz_u8(in) == 255 ? UINT32_MAX - fuzz_u8(in) : fuzz_u8(in);
    pd_kv_plan_init(&p);
    uint64_t pool = place.pool_blocks * l.block_bytes;
    for (uint32_t round = 0; round < 4 && in->n > 0; round++) {
        uint32_t from = fuzz_u16(in), to = fuzz_u16(in), wire = fuzz_u8(in), max = fuzz_u16(in);
        if (fuzz_u8(in) == 255)
            from = UINT32_MAX - from, to = UINT32_MAX - to;
        if (wire == 0)
            continue;
        uint64_t bytes = p.bytes;
        uint32_t n = p.n;
        pd_status status = pd_kv_plan_add(&p, &place, from, to, wire, max);
        if (status != PD_OK) {
            FUZZ_CHECK(status == PD_EINVAL || status == PD_ELIMIT);
            FUZZ_CHECK(p.bytes == bytes && p.n == n);
        } else {
            FUZZ_CHECK(p.bytes - bytes == (uint64_t)(to - from) * pd_kv_layout_token_bytes(&l));
            /* What was there before may have had another limit. */
            FUZZ_CHECK(p.n <= max || p.n <= n);
        }
        uint64_t sum = 0;
        for (uint32_t i = 0; i < p.n; i++) {
            const struct pd_segment *s = &p.segments[i];
            FUZZ_CHECK(s->bytes > 0 && s->bytes <= pool && s->offset <= pool - s->bytes);
            sum += s->bytes;
        }
        FUZZ_CHECK(sum == p.bytes);
    }
    pd_kv_plan_fini(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    struct pd_layout l, l2;
    uint8_t kind = fuzz_u8(&in) % 4;
    if (kind == 2) {
        bool one = layout(&in, &l), two = layout(&in, &l2);
        if (one && two)
            FUZZ_CHECK(pd_kv_layout_compatible(&l, &l2, NULL) == pd_kv_layout_compatible(&l2, &l, NULL));
        return 0;
    }
    if (kind == 3) {
        plan(&in);
        return 0;
    }
    size_t n;
    char *p = fuzz_rest(&in, &n);
    if (kind == 0)
        grant((struct pd_str){ p, n });
    else
        message((struct pd_str){ p, n });
    fuzz_back(p, n);
    return 0;
}
