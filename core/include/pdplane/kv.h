/* SPDX-License-Identifier: Apache-2.0 */
/* The KV plane: hand-over of KV from a prefill node to a decode node.  Internal
 * to the distribution: bound to the exact version of pdplane.  Role modules
 * reach these functions as a table:
 *
 *     const struct pd_kv_api *api =
 *         (const struct pd_kv_api *)pd_host()->table(host, PD_KV_TABLE, PD_KV_VERSION);
 *
 * A hand-over has two ends, which talk by messages that the two role modules
 * carry for them inside the call of the request (opaque byte strings):
 *
 *   destination (decode node)                source (prefill node)
 *   dest_open -> dest_grant ---- GRANT ----> source_open
 *                                            source_push(upto), again and again
 *                           <--- RENEW -----
 *   (bytes land in the blocks) <--data------
 *                           <--- DIGESTS ---
 *                           <--- DONE ------ all posts OK
 *   fence, verify digests   ---- VERDICT --> on_end
 *   on_end(verdict)
 *
 * Whatever on_send gives goes to the other end's _message, in order.  Either
 * end can be aborted at any time.
 *
 * Destination: the blocks belong to the hand-over until on_end; not before it
 * may they be decoded from or given back, not even after an abort.  Only
 * PD_KV_VALID allows to decode.
 * Source: the blocks may be read until on_end; keep the sequence open.
 *
 * Everything here: loop thread of the node.  Callbacks are never called from
 * inside a function of this header. */
#ifndef PDPLANE_KV_H
#define PDPLANE_KV_H

#include <pdplane/peer.h>
#include <pdplane/transport.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_KV_TABLE "kv"
#define PD_KV_VERSION 1u

struct pd_kv;        /* the KV plane of a node */
struct pd_kv_region; /* the block pool of one engine */
struct pd_kv_dest;   /* the destination's end of a hand-over */
struct pd_kv_source; /* the source's end */

/* How a hand-over ended; one word for both ends. */
enum {
    PD_KV_VALID = 1,           /* every byte arrived and matches its digest */
    PD_KV_CORRUPT = 2,         /* bytes do not match their digest */
    PD_KV_STALE = 3,           /* the grant or lease was not the one in force */
    PD_KV_TIMEOUT = 4,         /* the lease ran out: the other end said nothing for too long */
    PD_KV_ABORTED = 5,         /* this end aborted */
    PD_KV_REFUSED = 6,         /* the other end cannot: layout, model, transport, limits */
    PD_KV_FAILED = 7,          /* a transport failed */
    PD_KV_PEER_ABORTED = 8     /* the other end aborted */
};

/* Why an engine of a peer cannot hand KV over to this node. */
enum {
    PD_KV_MATCH_OK = 0,
    PD_KV_MATCH_GONE = 1,      /* the peer is not known, or has no such engine */
    PD_KV_MATCH_TRANSPORT = 2, /* no transport in common */
    PD_KV_MATCH_MODEL = 3,     /* other weights */
    PD_KV_MATCH_LAYOUT = 4,    /* the same weights in another dtype or shape */
    PD_KV_MATCHES = 5
};

/* Figures of a finished hand-over. */
struct pd_kv_result {
    uint32_t size;
    uint32_t verdict;          /* PD_KV_VALID ... */
    pd_status status;          /* nearest status code */
    uint32_t blocks;           /* wire blocks verified (destination) or digested (source) */
    uint64_t xid;
    uint64_t bytes;            /* that landed (destination) or were sent (source) */
    uint64_t bytes_expected;
    pd_time first_byte_ns;     /* from open to the first progress; 0 none */
    pd_time transfer_ns;       /* from the first byte to the last */
    pd_time verify_ns;         /* spent on digests */
    pd_time total_ns;          /* from open to this */
    uint32_t verified;         /* 1: digests were compared */
    uint32_t fenced;           /* 1: no byte can move any more (always at the destination) */
    char transport[32];        /* which moved it; empty: none */
    char reason[96];           /* one sentence without a full stop; empty when valid */
};

struct pd_kv_dest_params {
    uint32_t size;
    uint32_t n_blocks;         /* blocks of the sequence, from its first token; cover `to` */
    pd_peer_ref peer;          /* who will write */
    struct pd_kv_region *region;
    const uint32_t *blocks;    /* their indices in the pool; copied */
    const int32_t *tokens;     /* ids of tokens [0, to); copied into a digest */
    uint32_t from;             /* KV of tokens [from, to) is wanted */
    uint32_t to;
    uint32_t ttl_ms;           /* of the lease; 0: as configured */
    uint32_t reserved;
    struct pd_str request_id;  /* for logs and lists; copied */
};

struct pd_kv_dest_events {
    uint32_t size;
    uint32_t reserved;
    /* A message for the source.  Return what call_send returned; an error
     * aborts the hand-over. */
    pd_status (*on_send)(struct pd_kv_dest *dest, struct pd_str bytes, void *arg);
    /* The end: nothing can touch the blocks any more.  dest is gone after it. */
    void (*on_end)(struct pd_kv_dest *dest, const struct pd_kv_result *result, void *arg);
};

/* What a grant says, for a look before the sequence is opened. */
struct pd_kv_grant {
    uint32_t size;
    uint32_t from;
    uint32_t to;
    uint32_t wire_block_tokens;
    uint32_t ttl_ms;
    uint32_t n_transports;
    uint64_t xid;
    uint64_t bytes;
    struct pd_node_id owner;
    struct pd_layout layout;   /* of the destination */
};

struct pd_kv_source_params {
    uint32_t size;
    uint32_t n_tokens;         /* of the prompt, at least the grant's `to` */
    pd_peer_ref peer;          /* who granted */
    struct pd_kv_region *region;
    const void *grant;         /* as received; borrowed during the call */
    size_t grant_len;
    const int32_t *tokens;     /* prompt; copied into a digest */
    struct pd_str request_id;  /* for logs and lists; copied */
};

struct pd_kv_source_events {
    uint32_t size;
    uint32_t reserved;
    /* Pool indices of blocks [first, first + count) of the sequence; asked only
     * for tokens that were pushed.  Returns PD_OK. */
    pd_status (*blocks)(struct pd_kv_source *source, uint32_t first, uint32_t count,
                        uint32_t *index,
                        void *arg);
    /* A message for the destination; as in pd_kv_dest_events. */
    pd_status (*on_send)(struct pd_kv_source *source, struct pd_str bytes, void *arg);
    /* The end: the blocks are not read any more.  source is gone after it. */
    void (*on_end)(struct pd_kv_source *source, const struct pd_kv_result *result, void *arg);
};

/* Rows of pdctl.  Strings end with a zero byte. */
struct pd_kv_transfer_row {
    uint64_t xid;
    uint32_t outbound;         /* 1: this node is the source */
    uint32_t verdict;          /* 0: running */
    uint64_t bytes;
    uint64_t bytes_expected;
    pd_time age_ns;            /* since open */
    pd_time took_ns;           /* 0: running */
    uint32_t tokens;
    uint32_t verified;
    char state[16];            /* "open", "moving", "fencing", "verifying", "ended" ... */
    char transport[32];
    char peer[64];
    char request_id[64];
    char reason[96];
};

struct pd_kv_lease_row {
    uint64_t xid;
    uint64_t generation;
    char state[16];            /* "active", "settling", "expired", "fencing", "released" */
    char holder[64];           /* name of the peer */
    pd_time left_ns;           /* until it runs out; 0: it has */
    pd_time age_ns;
    uint32_t blocks;
    uint32_t renewals;
    uint32_t verdict;          /* of a released one (tombstone), PD_KV_*; 0 otherwise */
    uint32_t reserved;
};

struct pd_kv_api {
    uint32_t size;
    uint32_t version;          /* PD_KV_VERSION */

    /* The region of an engine instance, NULL when it has none. */
    struct pd_kv_region *(*region)(struct pd_kv *kv, const char *engine);
    const struct pd_layout *(*region_layout)(const struct pd_kv_region *region);
    /* Whether KV may move between two layouts: PD_OK; PD_EINVAL with err filled
     * (may be NULL): what differs. */
    pd_status (*layout_compatible)(const struct pd_layout *a, const struct pd_layout *b,
                                   struct pd_err *err);
    /* Bytes of KV per token. */
    uint64_t (*token_bytes)(const struct pd_layout *layout);
    /* Whether a hand-over from `peer` into this node could work: PD_OK; PD_ESTALE;
     * PD_ENOENT: no transport in common, or it offers no engine of this layout. */
    pd_status (*can_receive)(struct pd_kv *kv, pd_peer_ref peer, const struct pd_kv_region *region);

    /* Opens windows on the blocks.  PD_OK; PD_EINVAL; PD_ESTALE; PD_ENOENT: no
     * transport reaches the peer; PD_ELIMIT: too many hand-overs; PD_ENOMEM.
     * Nothing is held after an error. */
    pd_status (*dest_open)(struct pd_kv *kv, const struct pd_kv_dest_params *params,
                           const struct pd_kv_dest_events *events, void *arg,
                           struct pd_kv_dest **out);
    /* The grant, for the first message to the source.  Borrowed until on_end. */
    struct pd_str (*dest_grant)(struct pd_kv_dest *dest);
    /* A message of the source.  PD_OK; PD_EPROTO: malformed, the hand-over is
     * aborted. */
    pd_status (*dest_message)(struct pd_kv_dest *dest, struct pd_str bytes);
    /* The other end lives (say, a sign of the call came): the lease begins anew.
     * DIGESTS and RENEW messages and landing bytes do this by themselves. */
    void (*dest_renew)(struct pd_kv_dest *dest);
    /* Fences and ends with PD_KV_ABORTED; on_end follows.  peer_gone: the call is
     * over, send nothing. */
    void (*dest_abort)(struct pd_kv_dest *dest, bool peer_gone);

    /* Reads a grant without acting on it: PD_OK, PD_EPROTO. */
    pd_status (*grant_read)(struct pd_str bytes, struct pd_kv_grant *out);
    /* Checks the grant against the region and begins to connect.  PD_OK;
     * PD_EPROTO: malformed; PD_EINVAL with err filled: layouts, range or tokens do
     * not fit; PD_ENOENT: no transport in common; PD_ESTALE; PD_ELIMIT; PD_ENOMEM. */
    pd_status (*source_open)(struct pd_kv *kv, const struct pd_kv_source_params *params,
                             const struct pd_kv_source_events *events, void *arg,
                             struct pd_kv_source **out, struct pd_err *err);
    /* KV of tokens [0, upto) is complete in the blocks and will not change. */
    void (*source_push)(struct pd_kv_source *source, uint32_t upto);
    /* A message of the destination.  Returns as dest_message. */
    pd_status (*source_message)(struct pd_kv_source *source, struct pd_str bytes);
    /* Cancels what moves and ends with PD_KV_ABORTED; on_end follows. */
    void (*source_abort)(struct pd_kv_source *source, bool peer_gone);

    /* Copies up to cap rows, running first, then the latest ended; returns how
     * many there are.  out may be NULL when cap is 0. */
    uint32_t (*transfers)(struct pd_kv *kv, struct pd_kv_transfer_row *out, uint32_t cap);
    uint32_t (*leases)(struct pd_kv *kv, struct pd_kv_lease_row *out, uint32_t cap);
    /* Measured bandwidth of finished transfers from or to a peer in bytes per
     * second, 0 unknown. */
    uint64_t (*bandwidth)(struct pd_kv *kv, pd_peer_ref peer);
    /* "valid", "corrupt" ...; never NULL. */
    const char *(*verdict_text)(uint32_t verdict);
    /* As can_receive, for one engine of the peer: PD_KV_MATCH_*. */
    uint32_t (*match)(struct pd_kv *kv, pd_peer_ref peer, const struct pd_kv_region *region,
                      struct pd_str engine);
};

#ifdef __cplusplus
}
#endif
#endif
