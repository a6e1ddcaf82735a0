/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of a hand-over.  All numbers are little-endian. */
#include "kv/message.h"

#include "base/str.h"
#include "base/wire.h"
#include "kv/layout.h"
#include "kv/plan.h"

const char *pd_kv_verdict_text(uint32_t verdict)
{
    static const char *const text[] = {
        "none", "valid", "corrupt", "stale", "timeout", "aborted", "refused", "failed",
        "peer_aborted",
    };
    return verdict < sizeof text / sizeof text[0] ? text[verdict] : "unknown";
}

pd_status pd_kv_grant_write(const struct pd_kv_grant_full *f, struct pd_buf *out)
{
    uint8_t b[160 + PD_KV_LAYOUT_BYTES];
    struct pd_writer w;
    const struct pd_kv_grant *g = &f->g;
    pd_writer_init(&w, b, sizeof b);
    pd_writer_u8(&w, PD_KV_M_GRANT);
    pd_writer_u8(&w, PD_KV_WIRE_VERSION);
    pd_writer_u64(&w, g->xid);
    pd_writer_u64(&w, f->generation);
    pd_writer_bytes(&w, g->owner.uuid.b, sizeof g->owner.uuid.b);
    pd_writer_u64(&w, g->owner.epoch);
    pd_writer_u32(&w, g->from);
    pd_writer_u32(&w, g->to);
    pd_writer_u32(&w, g->wire_block_tokens);
    pd_writer_u32(&w, g->ttl_ms);
    pd_writer_u64(&w, g->bytes);
    pd_writer_u64(&w, f->tag);
    pd_writer_u8(&w, (uint8_t)f->digests);
    uint8_t *layout = (uint8_t *)pd_writer_take(&w, PD_KV_LAYOUT_BYTES);
    if (layout != NULL)
        pd_kv_layout_encode(&g->layout, layout);
    pd_writer_u8(&w, (uint8_t)g->n_transports);
    if (w.failed)
        return PD_ELIMIT;
    (void)pd_buf_append(out, b, w.n);
    for (uint32_t i = 0; i < g->n_transports; i++) {
        uint8_t len[2];
        pd_wire_put_u16(len, (uint16_t)f->ways[i].transport.n);
        (void)pd_buf_append(out, len, 2);
        (void)pd_buf_append_str(out, f->ways[i].transport);
        pd_wire_put_u16(len, (uint16_t)f->ways[i].blob.n);
        (void)pd_buf_append(out, len, 2);
        (void)pd_buf_append_str(out, f->ways[i].blob);
    }
    return out->status;
}

pd_status pd_kv_grant_parse(struct pd_str bytes, struct pd_kv_grant_full *f)
{
    struct pd_reader r;
    struct pd_kv_grant *g = &f->g;
    memset(f, 0, sizeof *f);
    g->size = sizeof *g;
    pd_reader_init(&r, bytes.p, bytes.n);
    if (pd_reader_u8(&r) != PD_KV_M_GRANT || pd_reader_u8(&r) != PD_KV_WIRE_VERSION)
        return PD_EPROTO;
    g->xid = pd_reader_u64(&r);
    f->generation = pd_reader_u64(&r);
    g->owner.uuid = pd_reader_uuid(&r);
    g->owner.epoch = pd_reader_u64(&r);
    g->from = pd_reader_u32(&r);
    g->to = pd_reader_u32(&r);
    g->wire_block_tokens = pd_reader_u32(&r);
    g->ttl_ms = pd_reader_u32(&r);
    g->bytes = pd_reader_u64(&r);
    f->tag = pd_reader_u64(&r);
    f->digests = pd_reader_u8(&r);
    const void *layout = pd_reader_take(&r, PD_KV_LAYOUT_BYTES);
    g->n_transports = pd_reader_u8(&r);
    if (r.failed || pd_kv_layout_decode((const uint8_t *)layout, &g->layout) != PD_OK)
        return PD_EPROTO;
    if (g->xid == 0 || g->from >= g->to || g->to > PD_KV_MAX_TOKENS || g->wire_block_tokens == 0 ||
        g->wire_block_tokens > PD_KV_MAX_BLOCK_TOKENS || g->ttl_ms == 0 || f->digests > 1 ||
        g->n_transports == 0 || g->n_transports > PD_KV_GRANT_WAYS ||
        g->bytes != (g->to - g->from) * pd_kv_layout_token_bytes(&g->layout))
        return PD_EPROTO;
    for (uint32_t i = 0; i < g->n_transports; i++) {
        f->ways[i].transport = pd_reader_str16(&r, 31);
        f->ways[i].blob = pd_reader_str16(&r, PD_KV_MAX_BLOB);
    }
    return pd_reader_finish(&r);
}

pd_status pd_kv_message_write(const struct pd_kv_message *m, const uint64_t *digests,
                              struct pd_buf *out)
{
    uint8_t b[64];
    struct pd_writer w;
    pd_writer_init(&w, b, sizeof b);
    pd_writer_u8(&w, (uint8_t)m->type);
    pd_writer_u64(&w, m->xid);
    pd_writer_u64(&w, m->generation);
    if (m->type == PD_KV_M_DIGESTS) {
        pd_writer_u32(&w, m->first);
        pd_writer_u32(&w, m->count);
    } else if (m->type == PD_KV_M_DONE) {
        pd_writer_u8(&w, (uint8_t)m->way);
        pd_writer_u32(&w, m->count);
        pd_writer_u64(&w, m->bytes);
    } else if (m->type == PD_KV_M_VERDICT || m->type == PD_KV_M_ABORT) {
        pd_writer_u8(&w, (uint8_t)m->verdict);
    } else if (m->type == PD_KV_M_ABORTED) {
        pd_writer_u8(&w, (uint8_t)m->fenced);
    }
    (void)pd_buf_append(out, b, w.n);
    for (uint32_t i = 0; m->type == PD_KV_M_DIGESTS && i < m->count; i++) {
        uint8_t d[8];
        pd_wire_put_u64(d, digests[i]);
        (void)pd_buf_append(out, d, 8);
    }
    return out->status;
}

pd_status pd_kv_message_parse(struct pd_str bytes, struct pd_kv_message *m)
{
    struct pd_reader r;
    memset(m, 0, sizeof *m);
    pd_reader_init(&r, bytes.p, bytes.n);
    m->type = pd_reader_u8(&r);
    m->xid = pd_reader_u64(&r);
    m->generation = pd_reader_u64(&r);
    switch (m->type) {
    case PD_KV_M_RENEW:
        break;
    case PD_KV_M_DIGESTS:
        m->first = pd_reader_u32(&r);
        m->count = pd_reader_u32(&r);
        if (m->count == 0 || m->count > PD_KV_DIGESTS_PER_MESSAGE)
            return PD_EPROTO;
        m->digests = (const uint8_t *)pd_reader_take(&r, 8 * (size_t)m->count);
        break;
    case PD_KV_M_DONE:
        m->way = pd_reader_u8(&r);
        m->count = pd_reader_u32(&r);
        m->bytes = pd_reader_u64(&r);
        break;
    case PD_KV_M_VERDICT:
    case PD_KV_M_ABORT:
        m->verdict = pd_reader_u8(&r);
        if (m->verdict == 0 || m->verdict > PD_KV_PEER_ABORTED)
            return PD_EPROTO;
        break;
    case PD_KV_M_ABORTED:
        m->fenced = pd_reader_u8(&r);
        break;
    default:
        return PD_EPROTO;
    }
    return pd_reader_finish(&r);
}
