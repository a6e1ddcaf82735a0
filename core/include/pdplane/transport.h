/* SPDX-License-Identifier: Apache-2.0 */
/* Transport kind: moves bytes between the memory of two nodes.  Stable.
 *
 * The owner of memory opens a *window* on it: an ordered list of segments that
 * the other side addresses as one linear range of bytes, 0 .. bytes-1.  No
 * address of one node is ever known to another; the owner's module translates,
 * checks bounds and refuses what a window does not grant.  A window is closed
 * by its owner; when the close is confirmed, no byte can land any more
 * (a fence).  This is what makes early reuse of blocks impossible.
 *
 *   owner (decode node)                     other side (prefill node)
 *   window_open(segments) -> window
 *   window_export -> blob   --- control --> connect(address)
 *                                           target_open(blob) -> target
 *                                           post(WRITE, offset, local segments)
 *   on_bytes(window, total)                 on_done(transfer, OK)
 *   window_close -> on_closed               target_close
 *
 * With READ windows the bytes flow the other way (pull).  Everything happens
 * on the loop thread of the instance; a module with a thread of its own posts
 * results to the loop.  Callbacks never run inside an op.
 *
 * Two fences, one for each side.  The terminal status of a post protects the
 * memory of the node that posted it.  The memory of the window's owner is
 * protected by window_close alone: bytes of a post whose way was lost may still
 * be queued inside the owner's host, and its module drops them once the window
 * is closed. */
#ifndef PDPLANE_TRANSPORT_H
#define PDPLANE_TRANSPORT_H

#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_TRANSPORT_V1 1u

struct pd_transport;        /* an instance; the module's own */
struct pd_transport_memory; /* registered memory */
struct pd_transport_peer;   /* the way to one node */
struct pd_transport_window; /* opened by the owner of memory */
struct pd_transport_target; /* a window of the other side */
struct pd_transfer;         /* one posted operation */

enum {
    PD_TRANSPORT_WRITE = 1u << 0,     /* post may write into a target */
    PD_TRANSPORT_READ = 1u << 1,      /* post may read from a target */
    PD_TRANSPORT_SAME_HOST = 1u << 2, /* reaches nodes of this host only */
    PD_TRANSPORT_NEEDS_FD = 1u << 3   /* memory must come with a file descriptor */
};

struct pd_transport_info {
    uint32_t size;
    uint32_t flags;            /* PD_TRANSPORT_* */
    uint32_t max_segments;     /* per post, at least 1024 */
    uint32_t failure_ms;       /* a dead peer is noticed within this time while transfers run */
    uint64_t max_bytes;        /* per post */
    uint64_t bandwidth;        /* bytes per second to expect, 0 unknown */
    uint64_t latency_ns;       /* of an empty post, 0 unknown */
};

struct pd_memory_desc {
    uint32_t size;
    int32_t fd;                /* memfd behind the memory, sealed against shrinking and growing,
                                  -1 when there is none; borrowed during the call */
    void *base;
    uint64_t bytes;
    uint64_t fd_offset;        /* of base within fd */
    uint32_t dtype;            /* PD_DTYPE_* of its elements (layout.h), 0 unknown; a hint for codecs */
    uint32_t element_bytes;    /* of one element, 0 unknown; base and segments begin at elements */
};

/* A run of registered memory. */
struct pd_segment {
    uint64_t offset;           /* from the memory's base */
    uint64_t bytes;            /* at least 1 */
};

/* The one terminal status of a transfer. */
enum {
    PD_TRANSFER_OK = 1,               /* every byte is visible to the owner's CPU */
    PD_TRANSFER_CANCELED_FENCED = 2,  /* canceled; no byte will move any more */
    PD_TRANSFER_FAILED_FENCED = 3,    /* failed; no byte will move any more */
    PD_TRANSFER_FAILED_UNFENCED = 4   /* failed; bytes may still move until the peer is
                                         disconnected with PD_DISCONNECT_FENCE, which may be asked
                                         for from on_done, or until on_down when the way is lost
                                         already */
};

enum {
    PD_DISCONNECT_DRAIN = 1,          /* lets posted transfers end */
    PD_DISCONNECT_FENCE = 2           /* ends them; when confirmed nothing moves any more */
};

struct pd_window_desc {
    uint32_t size;
    uint32_t access;           /* PD_TRANSPORT_WRITE or PD_TRANSPORT_READ */
    struct pd_node_id peer;    /* the only node that may use the window */
    uint64_t xid;              /* names the hand-over; unique while the window lives */
    uint64_t generation;       /* of the lease; a frame with another one is dropped */
    struct pd_transport_memory *memory;
    const struct pd_segment *segments; /* copied */
    uint32_t n_segments;
    uint32_t reserved;
};

struct pd_window_events {
    uint32_t size;
    uint32_t reserved;
    /* `total` bytes of a WRITE window have landed so far, each counted once.
     * Called after the last byte of a post at the latest, at most once in a
     * turn of the loop, not for each system call. */
    void (*on_bytes)(struct pd_transport_window *window, uint64_t total, void *arg);
    /* The window is closed and fenced; it is gone after this call. */
    void (*on_closed)(struct pd_transport_window *window, void *arg);
};

struct pd_transport_peer_desc {
    uint32_t size;
    uint32_t address_len;
    struct pd_node_id node;    /* who must answer; another identity or epoch is refused */
    const void *address;       /* what the peer's `address` gave; borrowed */
    struct pd_str host;        /* numeric address of the peer's control link, for an address that
                                  names no host; borrowed */
    const void *grant;         /* what the peer's window_export gave of a window that is open for this
                                  node: with it the owner knows that the connection comes from who it
                                  granted to. NULL: none; borrowed */
    uint32_t grant_len;
    uint32_t reserved;
};

struct pd_transport_peer_events {
    uint32_t size;
    uint32_t reserved;
    /* Once after connect: PD_OK, or why not (the peer is gone after an error). */
    void (*on_up)(struct pd_transport_peer *peer, pd_status status, void *arg);
    /* The way is lost, or disconnect is complete (PD_OK; an error when the other
     * side could not be asked in time).  Every transfer on it has had its
     * on_done.  The peer is gone after this call; its targets refuse posts with
     * PD_ESTALE until they are closed.  After a disconnect before on_up this
     * comes instead of on_up. */
    void (*on_down)(struct pd_transport_peer *peer, pd_status status, void *arg);
    /* A post answered PD_EAGAIN may be tried again. */
    void (*on_writable)(struct pd_transport_peer *peer, void *arg);
    /* The terminal status of a transfer, exactly once per accepted post;
     * transfer is gone after this call. */
    void (*on_done)(struct pd_transport_peer *peer, struct pd_transfer *transfer, uint32_t terminal,
                    uint64_t bytes, void *post_arg);
};

struct pd_post {
    uint32_t size;
    uint32_t op;               /* PD_TRANSPORT_WRITE or PD_TRANSPORT_READ */
    uint64_t offset;           /* in the target's linear range */
    struct pd_transport_memory *memory;
    const struct pd_segment *segments; /* local side, copied; their sum is the length */
    uint32_t n_segments;
    uint32_t reserved;
    void *arg;                 /* comes back in on_done */
};

struct pd_transport_stats {
    uint32_t size;
    uint32_t reserved;
    uint64_t posts, done_ok, done_canceled, done_failed;
    uint64_t bytes_out, bytes_in;
    uint64_t dropped_stale;    /* frames with a stale xid, generation or epoch: drained, never stored */
    uint64_t dropped_bounds;   /* frames outside their window */
    uint64_t corrupt;          /* frames whose checksum was wrong */
    uint64_t refused;          /* connections that were not let in */
};

struct pd_transport_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_transport_ops, PD_TRANSPORT_V1) */

    /* PD_EDECLINED: this machine does not let it work, and its configuration has no
     * mistake.  A node with another transport goes on without it and warns. */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_transport **out,
                        struct pd_err *err);
    /* All peers, windows and memory are gone; on_closed is the last callback. */
    void (*destroy)(struct pd_transport *transport, void (*on_closed)(void *arg), void *arg);
    void (*info)(struct pd_transport *transport, struct pd_transport_info *out);
    void (*stats)(struct pd_transport *transport, struct pd_transport_stats *out);

    /* Where other nodes reach this instance; opaque, sent over the
     * authenticated control link.  PD_ELIMIT with *len the need when cap is
     * too small. */
    pd_status (*address)(struct pd_transport *transport, void *buf, size_t cap, size_t *len);

    /* Memory is registered once, in large pieces. */
    pd_status (*memory_add)(struct pd_transport *transport, const struct pd_memory_desc *desc,
                            struct pd_transport_memory **out, struct pd_err *err);
    /* PD_EBUSY while a window or a transfer uses it. */
    pd_status (*memory_remove)(struct pd_transport_memory *memory);

    /* The owner's side. */
    pd_status (*window_open)(struct pd_transport *transport, const struct pd_window_desc *desc,
                             const struct pd_window_events *events, void *arg,
                             struct pd_transport_window **out);
    pd_status (*window_export)(struct pd_transport_window *window, void *buf, size_t cap, size_t *len);
    void (*window_close)(struct pd_transport_window *window);

    /* The other side.  Two nodes may connect to each other at the same time,
     * several times over, and a node to itself. */
    pd_status (*connect)(struct pd_transport *transport, const struct pd_transport_peer_desc *desc,
                         const struct pd_transport_peer_events *events, void *arg,
                         struct pd_transport_peer **out);
    void (*disconnect)(struct pd_transport_peer *peer, uint32_t how);
    pd_status (*target_open)(struct pd_transport_peer *peer, const void *blob, size_t len,
                             struct pd_transport_target **out);
    /* No transfer may be in flight on it.  Targets may outlive their peer. */
    void (*target_close)(struct pd_transport_target *target);

    /* PD_OK: accepted, on_done will follow exactly once.  PD_EAGAIN: nothing
     * happened, on_writable will follow.  Other errors: nothing happened. */
    pd_status (*post)(struct pd_transport_target *target, const struct pd_post *post,
                      struct pd_transfer **out);
    /* Asks for an early end; on_done tells what became of it. */
    void (*cancel)(struct pd_transfer *transfer);
};

#ifdef __cplusplus
}
#endif
#endif
