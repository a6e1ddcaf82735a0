/* SPDX-License-Identifier: Apache-2.0 */
/* The frame header.  Every frame carries a CRC-32C, because the checksum of
 * TCP lets one damaged segment in some ten million pass, and a token that
 * changed on the way would be a wrong answer that nobody notices.  The header
 * has a checksum of its own: a damaged length would otherwise make the receiver
 * wait for bytes that never come. */
#include "peer/frame.h"

#include "base/crc32c.h"
#include "base/wire.h"

const char *pd_goodbye_text(uint32_t reason)
{
    switch (reason) {
#define PD_GOODBYE_CASE(name, number, text)                                    \
    case name:                                                                 \
        return text;
        PD_GOODBYE_TABLE(PD_GOODBYE_CASE)
#undef PD_GOODBYE_CASE
    default:
        return "unknown reason";
    }
}

const char *pd_goodbye_label(uint32_t reason)
{
    static const char *const labels[PD_GOODBYES] = {
        "lost", "shutdown", "protocol", "checksum", "version", "auth", "self", "clash",
        "stale", "duplicate", "replaced", "limit", "timeout", "flow", "identity", "memory",
    };
    return reason < PD_GOODBYES ? labels[reason] : "unknown";
}

void pd_frame_write(uint8_t out[PD_FRAME_HEADER], const struct pd_frame *frame,
                    const struct pd_iov *payload, size_t n)
{
    pd_wire_put_u16(out, PD_FRAME_MAGIC);
    out[2] = PD_FRAME_FORMAT;
    out[3] = frame->type;
    pd_wire_put_u16(out + 4, frame->flags);
    pd_wire_put_u16(out + 6, frame->kind);
    pd_wire_put_u32(out + 8, frame->call);
    pd_wire_put_u32(out + 12, frame->length);
    pd_wire_put_u32(out + 16, pd_crc32c(0, out, 16));
    uint32_t crc = 0;
    for (size_t i = 0; i < n; i++)
        if (payload[i].len > 0)
            crc = pd_crc32c(crc, payload[i].base, payload[i].len);
    pd_wire_put_u32(out + 20, crc);
}

pd_status pd_frame_read(const uint8_t in[PD_FRAME_HEADER], struct pd_frame *out)
{
    if (pd_wire_get_u16(in) != PD_FRAME_MAGIC || in[2] != PD_FRAME_FORMAT)
        return PD_EPROTO;
    if (pd_wire_get_u32(in + 16) != pd_crc32c(0, in, 16))
        return PD_EINTEGRITY;
    out->type = in[3];
    out->flags = pd_wire_get_u16(in + 4);
    out->kind = pd_wire_get_u16(in + 6);
    out->call = pd_wire_get_u32(in + 8);
    out->length = pd_wire_get_u32(in + 12);
    out->crc = pd_wire_get_u32(in + 20);
    if (out->length > PD_FRAME_MAX_PAYLOAD ||
        (out->flags & ~(PD_FRAME_MORE | PD_FRAME_OPENER)) != 0)
        return PD_EPROTO;
    bool of_call = out->type >= PD_FRAME_OPEN && out->type <= PD_FRAME_CREDIT;
    bool of_link = out->type >= PD_FRAME_PREAMBLE && out->type <= PD_FRAME_UPDATE;
    if (of_link)
        return out->flags == 0 && out->kind == 0 && out->call == 0 ? PD_OK : PD_EPROTO;
    if (!of_call || out->call == 0)
        return PD_EPROTO;
    if ((out->flags & PD_FRAME_MORE) != 0 && out->type != PD_FRAME_OPEN &&
        out->type != PD_FRAME_MESSAGE)
        return PD_EPROTO;
    return PD_OK;
}

bool pd_frame_is_intact(const uint8_t *payload, const struct pd_frame *frame)
{
    return (frame->length == 0 ? 0 : pd_crc32c(0, payload, frame->length)) == frame->crc;
}
