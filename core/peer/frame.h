/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of the peer protocol: the fixed header, types, flags and the reasons
 * of a goodbye.  doc/guide/peer-protocol.md has the byte tables.  Pure. */
#ifndef PD_PEER_FRAME_H
#define PD_PEER_FRAME_H

#include <pdplane/types.h>

#define PD_FRAME_MAGIC 0x5044u      /* "DP" on the wire */
#define PD_FRAME_FORMAT 1u          /* of the header, not of the protocol */
#define PD_FRAME_HEADER 24u
#define PD_FRAME_MAX_PAYLOAD 65536u
#define PD_FRAME_MAX (PD_FRAME_HEADER + PD_FRAME_MAX_PAYLOAD)

enum {
    PD_FRAME_PREAMBLE = 1,
    PD_FRAME_HELLO = 2,
    PD_FRAME_READY = 3,
    PD_FRAME_GOODBYE = 4,
    PD_FRAME_HEARTBEAT = 5,
    PD_FRAME_UPDATE = 6,
    PD_FRAME_OPEN = 16,
    PD_FRAME_MESSAGE = 17,
    PD_FRAME_END = 18,
    PD_FRAME_CANCEL = 19,
    PD_FRAME_CREDIT = 20
};

enum {
    PD_FRAME_MORE = 1u << 0,    /* the message goes on in the next frame of the call */
    PD_FRAME_OPENER = 1u << 1   /* sent by the side that opened the call */
};

/* Why a link was ended.  name, number, text */
#define PD_GOODBYE_TABLE(X)                                                    \
    X(PD_GOODBYE_NONE, 0, "connection lost")                                   \
    X(PD_GOODBYE_SHUTDOWN, 1, "peer shuts down")                               \
    X(PD_GOODBYE_PROTOCOL, 2, "protocol violated")                             \
    X(PD_GOODBYE_CHECKSUM, 3, "frame damaged")                                 \
    X(PD_GOODBYE_VERSION, 4, "no protocol version in common")                  \
    X(PD_GOODBYE_AUTH, 5, "authentication failed")                             \
    X(PD_GOODBYE_SELF, 6, "connected to itself")                               \
    X(PD_GOODBYE_CLASH, 7, "another node has the same uuid")                   \
    X(PD_GOODBYE_STALE, 8, "epoch was replaced by a later one")                \
    X(PD_GOODBYE_DUPLICATE, 9, "there is a link already")                      \
    X(PD_GOODBYE_REPLACED, 10, "replaced by a newer link")                     \
    X(PD_GOODBYE_LIMIT, 11, "limit reached")                                   \
    X(PD_GOODBYE_TIMEOUT, 12, "no sign of life")                               \
    X(PD_GOODBYE_FLOW, 13, "more sent than was allowed")                       \
    X(PD_GOODBYE_IDENTITY, 14, "another node answered than was asked for")     \
    X(PD_GOODBYE_MEMORY, 15, "out of memory")

enum {
#define PD_GOODBYE_ENUM(name, number, text) name = number,
    PD_GOODBYE_TABLE(PD_GOODBYE_ENUM)
#undef PD_GOODBYE_ENUM
    PD_GOODBYES = 16
};

/* The text above; "unknown reason" for other numbers. */
const char *pd_goodbye_text(uint32_t reason);
/* The constant's name in lower case without prefix, for labels. */
const char *pd_goodbye_label(uint32_t reason);

struct pd_frame {
    uint8_t type;
    uint16_t flags;
    uint16_t kind;              /* type of a message */
    uint32_t call;              /* 0: the frame belongs to the link */
    uint32_t length;            /* of the payload */
    uint32_t crc;               /* CRC-32C of the payload; the header has its own */
};

/* Writes the header, both checksums included. */
void pd_frame_write(uint8_t out[PD_FRAME_HEADER], const struct pd_frame *frame,
                    const struct pd_iov *payload, size_t n);
/* Reads a header and checks all but the payload's checksum: PD_OK, PD_EPROTO,
 * or PD_EINTEGRITY when it was damaged. */
pd_status pd_frame_read(const uint8_t in[PD_FRAME_HEADER], struct pd_frame *out);
/* Whether the payload's checksum fits; payload has frame->length bytes. */
bool pd_frame_is_intact(const uint8_t *payload, const struct pd_frame *frame);

#endif
