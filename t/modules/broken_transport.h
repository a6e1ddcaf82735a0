/* SPDX-License-Identifier: Apache-2.0 */
/* The tcp transport behind operations that break the contract in the way that an
 * option names: what the files of the module share. */
#ifndef PD_BROKEN_TRANSPORT_H
#define PD_BROKEN_TRANSPORT_H

#include "tcp.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FAULT_NONE, FAULT_TWICE, FAULT_OUTSIDE, FAULT_READ, FAULT_INSIDE, FAULT_LEAK,
    FAULT_ASLEEP,               /* each 40th completion waits for the next event */
    FAULT_CHAIN,                /* what on_done posts is forgotten */
    FAULT_EARLY,                /* all bytes are told of with the first */
    FAULT_CROSS,                /* one connection at a time */
    FAULT_SELF,                 /* not to this node */
    FAULT_SEGMENTS,             /* another limit than told */
    FAULT_ENDLESS,              /* a full queue takes posts, and forgets them */
    FAULT_CLAIM,                /* NEEDS_FD for nothing */
    FAULT_WRAP,                 /* counts bytes in 29 bits */
    FAULT_FDS,                  /* a descriptor is lost with a connection that fails */
    FAULT_BUSY,                 /* wakes up each millisecond */
    FAULT_GROWTH,               /* keeps a little of each connection */
    FAULT_SHIFT,                /* now and then the wrong bytes */
    /* of an instance and its memory */
    FAULT_NARROW,               /* too few segments */
    FAULT_REMOVE,               /* memory in use goes */
    FAULT_CACHE,                /* memory is known by its descriptor */
    FAULT_GLOBAL,               /* one state for all instances, which goes with the first of them */
    /* of posts */
    FAULT_IOV,                  /* what is behind 1024 segments is left out */
    FAULT_ORDER,                /* segments are sorted */
    FAULT_SLOTS,                /* posts are numbered with a byte */
    FAULT_CLIP,                 /* what is too long is shortened */
    FAULT_POISON,               /* a failure is told of all that follows */
    FAULT_LATE,                 /* what is canceled or fenced goes on */
    FAULT_SUM,                  /* bytes that come twice count twice */
    /* of windows and their blobs */
    FAULT_ADDRESS,              /* the blob says where bytes go */
    FAULT_LENGTH,               /* a blob is as long as it should be */
    FAULT_EPOCH,                /* blobs are good in any life of a node */
    FAULT_GENERATION,           /* blobs are good for any window of the same name */
    FAULT_UNFENCED,             /* a window that is closed takes bytes */
    FAULT_WORD,                 /* a window is closed when its poster has agreed */
    /* of ways */
    FAULT_MUTE,                 /* nobody learns that there is room again */
    FAULT_ABORT,                /* to drain is to fence */
    FAULT_TRUST,                /* whoever answers is the right one */
    FAULT_WAYS,                 /* a descriptor is lost with each way */
    FAULT_DOWN                  /* a way that is lost went down as it should */
};

struct broken_conf {
    struct pd_tcp_conf tcp;
    uint32_t fault;
};

/* The instances of a process are all configured alike, and the tests look at
 * one memory and one peer at a time: plain variables will do here. */
extern uint32_t broken_fault;
extern struct pd_node_id broken_self;
extern uint8_t *broken_base;    /* of the first memory, an owner's */
extern uint64_t broken_bytes;
extern bool broken_is_gone;     /* an instance has ended */
extern struct pd_timer broken_ticks;
/* As the caller gave them last. */
extern struct pd_transport_peer_events broken_peer_events;
extern struct pd_window_events broken_window_events;
extern struct pd_transport_window *broken_window;
extern uint64_t broken_posted;  /* posts of this process */
extern uint64_t broken_address; /* what the last blob said */

/* ways */
pd_status broken_connect(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                         const struct pd_transport_peer_events *events, void *arg, struct pd_transport_peer **out);
void broken_disconnect(struct pd_transport_peer *peer, uint32_t how);

/* windows */
pd_status broken_window_open(struct pd_transport *tp, const struct pd_window_desc *desc,
                             const struct pd_window_events *events, void *arg, struct pd_transport_window **out);
pd_status broken_window_export(struct pd_transport_window *window, void *buf, size_t cap, size_t *len);
void broken_window_close(struct pd_transport_window *window);
pd_status broken_target_open(struct pd_transport_peer *peer, const void *blob, size_t len,
                             struct pd_transport_target **out);

/* posts */
pd_status broken_post(struct pd_transport_target *target, const struct pd_post *p, struct pd_transfer **out);
void broken_cancel(struct pd_transfer *transfer);
void broken_on_done(struct pd_transport_peer *peer, struct pd_transfer *transfer, uint32_t terminal, uint64_t bytes,
                    void *post_arg);
/* Tells that all posts and the way itself have ended. */
void broken_end_early(struct pd_transport_peer *peer);
/* Whether that was told. */
bool broken_has_ended(const struct pd_transport_peer *peer);

#endif
