/* SPDX-License-Identifier: Apache-2.0 */
/* What travels between two nodes: frames with a header of 64 bytes, the
 * greeting, and the two blobs that go over the control link.  All numbers are
 * little-endian.  The header:
 *
 *    0  magic u16 | version u8 | type u8 | flags u16 | sequence u16
 *    8  xid u64
 *   16  generation u64
 *   24  offset u64
 *   32  length u32 (of the payload) | crc u32 (of the payload)
 *   40  id u32 (names a frame to its answer) | header crc u32
 *   48  token, 16 bytes
 *
 * A greeting shows a grant: xid, generation and token of a window that is open
 * for the greeting node, and the key of the address.  Both came over the control
 * link.  Without TLS whoever can read the network can read tokens; they keep
 * strangers and stale peers out, not eavesdroppers. */
#ifndef PD_XP_FRAME_H
#define PD_XP_FRAME_H

#include "crc.h"

#define PD_XP_HEAD_BYTES 64u
#define PD_XP_TOKEN_BYTES 16u
#define PD_XP_HELLO_BYTES 128u
#define PD_XP_CODEC_BYTES 32u       /* of a codec's name, with zeros behind it */
#define PD_XP_WINDOW_BLOB_BYTES 96u
#define PD_XP_ADDRESS_BYTES 48u     /* and the path behind it */
#define PD_XP_PATH_MAX 107u

enum {
    PD_XP_HELLO = 1,        /* connector: payload hello, the header names a grant */
    PD_XP_HELLO_OK = 2,     /* acceptor: payload hello */
    PD_XP_REFUSED = 3,      /* acceptor: offset holds a status, negated */
    PD_XP_WRITE = 4,        /* connector: payload goes to offset of the window */
    PD_XP_COPY = 5,         /* connector: payload names pieces of shared memory to copy there;
                             * generation as in WRITE */
    PD_XP_ACK = 6,          /* acceptor: frame `id` is stored */
    PD_XP_NACK = 7,         /* acceptor: frame `id` is not; offset holds a status, negated */
    PD_XP_READ = 8,         /* connector: wants `crc` bytes from offset of the window */
    PD_XP_DATA = 9,         /* acceptor: payload answers READ `id` */
    PD_XP_READ_NACK = 10,   /* acceptor: no bytes for READ `id` */
    PD_XP_PING = 11,        /* connector */
    PD_XP_PONG = 12,        /* acceptor */
    PD_XP_MEMORY = 13,      /* connector: id names memory of `xid` bytes.  shm: a descriptor comes with
                             * it, offset is the place in it.  A fabric: the payload is its key */
    PD_XP_FORGET = 14,      /* connector: memory `id` is gone */
    PD_XP_WHERE = 15,       /* connector: where its fabric serves memory: `offset` bytes of address,
                             * then the key of its beacon, which holds the token */
    PD_XP_READY = 16,       /* acceptor: has read the beacon */
    PD_XP_TYPES = 17
};

enum {
    PD_XP_CHECKED = 1u,     /* flag: crc holds the payload's checksum */
    PD_XP_ENCODED = 2u      /* flag, WRITE and DATA: the payload is a codec's, see pack.c */
};

struct pd_xp_head {
    uint8_t type;
    uint16_t flags;
    uint16_t seq;
    uint64_t xid, generation, offset;
    uint32_t length, crc, id;
    uint8_t token[PD_XP_TOKEN_BYTES];
};

/* buf has PD_XP_HEAD_BYTES. */
void pd_xp_head_encode(const struct pd_xp_crc *c, const struct pd_xp_head *h, uint8_t *buf);
/* PD_OK, PD_EPROTO: not a header of this version, PD_EINTEGRITY: damaged. */
pd_status pd_xp_head_decode(const struct pd_xp_crc *c, const uint8_t *buf, struct pd_xp_head *h);

struct pd_xp_hello {
    struct pd_node_id from, to;
    uint8_t key[PD_XP_TOKEN_BYTES]; /* of the acceptor's address; zero in the answer */
    uint64_t link;                  /* the same on all lanes of a link */
    uint32_t frame_bytes;           /* most data bytes that the sender takes in one frame */
    uint32_t keepalive_ms;          /* the connector is never silent for longer; 0: may be */
    uint16_t lane, lanes;
    uint16_t kind;                  /* PD_XP_TCP ... */
    uint32_t codec_format;
    char codec[PD_XP_CODEC_BYTES];  /* what the sender has; empty: none */
};

void pd_xp_hello_encode(const struct pd_xp_hello *h, uint8_t *buf);
void pd_xp_hello_decode(const uint8_t *buf, struct pd_xp_hello *h);

enum { PD_XP_TCP = 1, PD_XP_SHM = 2, PD_XP_UCX = 3, PD_XP_OFI = 4 };

struct pd_xp_address {
    uint16_t kind;
    uint16_t family;                /* PD_AF_...; PD_AF_NONE: the control link's host */
    uint16_t port;
    uint8_t ip[16];
    uint8_t key[PD_XP_TOKEN_BYTES];
    bool tls;                       /* connections are encrypted */
    char path[PD_XP_PATH_MAX + 1];  /* zero-terminated */
};

/* PD_OK, PD_ELIMIT with *len the need. */
pd_status pd_xp_address_encode(const struct pd_xp_address *a, void *buf, size_t cap, size_t *len);
/* PD_OK or PD_EPROTO. */
pd_status pd_xp_address_decode(const void *buf, size_t len, struct pd_xp_address *a);

struct pd_xp_grant {
    uint16_t kind;
    uint16_t access;
    struct pd_node_id owner, peer;
    uint64_t xid, generation, bytes;
    uint8_t token[PD_XP_TOKEN_BYTES];
};

void pd_xp_grant_encode(const struct pd_xp_grant *g, uint8_t *buf);
pd_status pd_xp_grant_decode(const void *buf, size_t len, struct pd_xp_grant *g);

/* Compares without telling by time where two tokens differ. */
bool pd_xp_token_equal(const uint8_t *a, const uint8_t *b);
bool pd_xp_node_equal(const struct pd_node_id *a, const struct pd_node_id *b);

#endif
