/* SPDX-License-Identifier: Apache-2.0 */
/* Peers: the other nodes, and calls to services on them.  Internal to the
 * distribution: bound to the exact version of pdplane.  Role modules reach
 * these functions as a table:
 *
 *     const struct pd_peer_api *api =
 *         (const struct pd_peer_api *)pd_host()->table(host, PD_PEER_TABLE, PD_PEER_VERSION);
 *
 * Between a pair of nodes there is one link.  A peer is a running node, named
 * by (uuid, epoch): when a node restarts, its old peer is gone and a new one
 * comes.  References are never used twice, so a stale one is PD_ESTALE and
 * nothing worse.  The node itself is a peer too, always up: calls to it take
 * the same way without a socket.
 *
 * A call is a two-way stream of messages between the node that opened it and
 * the service that accepted it.  The service ends it, once, with a status and
 * a last message; the opener can only cancel.  When the link breaks, every call
 * on it ends with PD_EPEER.
 *
 * Everything here: loop thread of the node.  Callbacks are never called from
 * inside a function of this header, except on_call's own accept or end. */
#ifndef PDPLANE_PEER_H
#define PDPLANE_PEER_H

#include <pdplane/engine.h>
#include <pdplane/scheduler.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_PEER_TABLE "peer"
#define PD_PEER_VERSION 1u

struct pd_peers; /* the peer table of a node */
struct pd_call;  /* one end of a call */

/* A peer; 0 is none.  Never used twice in the life of a node. */
typedef uint64_t pd_peer_ref;

enum {
    PD_PEER_CONNECTING = 1,    /* known, no link at the moment */
    PD_PEER_UP = 2,
    PD_PEER_SUSPECT = 3,       /* link there, but nothing came for a while */
    PD_PEER_DOWN = 4           /* the link is lost; may come back with the same epoch */
};

enum {
    PD_PEER_SELF = 1u << 0,        /* this very node */
    PD_PEER_DRAINING = 1u << 1,    /* takes no new work */
    PD_PEER_SAME_HOST = 1u << 2,   /* runs on this machine: same host id, same boot */
    PD_PEER_CONFIGURED = 1u << 3,  /* its address stands in the configuration */
    PD_PEER_INBOUND = 1u << 4,     /* it opened the link */
    PD_PEER_RESTING = 1u << 5      /* this node gives it no new work: discovery does not name it any more */
};

#define PD_PEER_MAX_ENGINES 16
#define PD_PEER_MAX_TRANSPORTS 16
#define PD_PEER_MAX_ADDRESS 512    /* bytes of a transport's address blob */
#define PD_PEER_MAX_SERVICE 256    /* services are numbered 1..255 */

/* Services of the distribution.  128..255 are free for third parties. */
enum {
    PD_SERVICE_REQUEST = 1,    /* decode role: one leg of a request */
    PD_SERVICE_PREFILL = 2,    /* prefill role: compute a prompt and hand it over */
    PD_SERVICE_ADMIN = 3,      /* control commands for a whole cluster */
    PD_SERVICE_TEST = 127
};

/* An engine that a node offers.  Strings end with a zero byte. */
struct pd_peer_engine {
    char name[64];             /* of the instance, unique in its node */
    char model[128];           /* as served */
    uint32_t flags;            /* PD_ENGINE_* */
    uint32_t roles;            /* PD_ROLE_* */
    uint32_t context_tokens;
    uint32_t vocab;
    uint32_t blocks;
    uint32_t max_running;
    uint64_t fingerprint[2];   /* of the layout; see kv.h */
    struct pd_layout layout;
    uint32_t serial;           /* another one when the engine was made anew in the same node */
};

/* A transport by which a node can be reached for KV. */
struct pd_peer_transport {
    char name[32];             /* of the unit: both sides need the same */
    uint32_t flags;            /* PD_TRANSPORT_* */
    uint32_t address_len;
    uint8_t address[PD_PEER_MAX_ADDRESS];
};

/* What a node says about itself. */
struct pd_peer_desc {
    struct pd_node_id id;
    char name[64];             /* for people and labels */
    char version[32];          /* of pdplane */
    char host_id[64];          /* names the machine and its boot; empty: unknown */
    char listener[128];        /* where it takes links: "host:port"; ":port" is on the host that
                                  its links come from; empty: nowhere */
    uint32_t roles;            /* PD_ROLE_* */
    uint32_t n_engines;
    uint32_t n_transports;
    uint32_t reserved;
    const struct pd_peer_engine *engines;       /* borrowed */
    const struct pd_peer_transport *transports; /* borrowed */
};

/* What is known of a peer now.  Pointers are borrowed until control returns to
 * the loop. */
struct pd_peer_info {
    uint32_t size;
    uint32_t state;            /* PD_PEER_UP ... */
    pd_peer_ref ref;
    uint32_t flags;            /* PD_PEER_SELF ... */
    uint32_t calls;            /* open calls on the link, both directions */
    const struct pd_peer_desc *desc;
    const struct pd_engine_load *load; /* desc->n_engines reports, in order of desc->engines */
    pd_time load_at;           /* when the last report came; PD_TIME_NEVER: none yet */
    pd_time rtt;               /* round trip of the last heartbeat; 0 unknown */
    pd_time seen_at;           /* when anything came last */
    pd_time since;             /* when `state` was entered */
    const char *address;       /* numeric address of the link, "192.0.2.1:7000"; "" for self */
    const char *listener;      /* where others can reach it, to be used with `reach`; "" unknown */
    const char *reason;        /* why it is not up; "" when it is */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint32_t suspects;         /* times it was suspect since it is known */
    uint32_t downs;            /* times it went down since it is known */
};

enum {
    PD_PEER_ON_UP = 1,         /* link made, description known */
    PD_PEER_ON_CHANGED = 2,    /* description or drain flag are new */
    PD_PEER_ON_SUSPECT = 3,    /* followed by UP or DOWN */
    PD_PEER_ON_DOWN = 4,       /* link lost; its calls ended before this */
    PD_PEER_ON_GONE = 5,       /* forgotten or replaced by a new epoch; ref is stale after this */
    PD_PEER_ON_LOAD = 6        /* load and rtt are new, nothing else; with each heartbeat */
};

struct pd_peer_watch_events {
    uint32_t size;
    uint32_t reserved;
    void (*on_peer)(struct pd_peers *peers, pd_peer_ref peer, uint32_t what, void *arg);
};

struct pd_peer_watch; /* a registration */

/* Events of one end of a call. */
struct pd_call_events {
    uint32_t size;
    uint32_t reserved;
    /* A whole message; bytes are borrowed during the event. */
    void (*on_message)(struct pd_call *call, uint32_t type, struct pd_str bytes, void *arg);
    /* The call is over; comes once, and the call is gone after it.  Opener: the
     * service's status and last message, or PD_EPEER (link lost).  Service:
     * PD_ECANCELED (the opener went away) or PD_EPEER.  Either: PD_ENOMEM or
     * PD_ELIMIT when a message cannot be kept.  Does not come after this end's
     * own call_end or call_cancel. */
    void (*on_end)(struct pd_call *call, pd_status status, struct pd_str bytes, void *arg);
    /* A send that answered PD_EAGAIN may be tried again.  May be NULL. */
    void (*on_writable)(struct pd_call *call, void *arg);
};

/* A new call for a service: accept or end it before returning; one that is
 * neither accepted nor ended is ended with PD_EDECLINED.  `from` is the peer
 * that opened it. */
typedef void (*pd_call_handler)(struct pd_peers *peers, struct pd_call *call, pd_peer_ref from,
                                uint32_t type, struct pd_str first, void *arg);

struct pd_peer_api {
    uint32_t size;
    uint32_t version;          /* PD_PEER_VERSION */

    /* The node itself as a peer. */
    pd_peer_ref (*self)(struct pd_peers *peers);
    /* PD_OK, PD_ESTALE. */
    pd_status (*info)(struct pd_peers *peers, pd_peer_ref peer, struct pd_peer_info *out);
    /* The peer after `after` (0: the first), 0 at the end.  Self comes first;
     * order of becoming known.  Peers may come and go meanwhile. */
    pd_peer_ref (*next)(struct pd_peers *peers, pd_peer_ref after);
    /* The peer with this identity, 0 when it is not known.  Epoch 0 matches
     * the latest epoch of the uuid. */
    pd_peer_ref (*find)(struct pd_peers *peers, const struct pd_node_id *id);
    /* Makes sure that there is a link to a node that a trusted peer named.
     * PD_OK with *out: it is up.  PD_PENDING with *out: connecting, an event
     * tells (DOWN or GONE when it fails); asked twice it is one attempt.
     * address: "host:port", numeric or a name.  PD_EINVAL, PD_ELIMIT, PD_ENOMEM. */
    pd_status (*reach)(struct pd_peers *peers, const struct pd_node_id *id, struct pd_str address,
                       pd_peer_ref *out);

    /* Tells of all changes from now on; does not repeat what is known.  Gives: unwatch. */
    pd_status (*watch)(struct pd_peers *peers, const struct pd_peer_watch_events *events, void *arg,
                       struct pd_peer_watch **out);
    void (*unwatch)(struct pd_peer_watch *watch);

    /* Offers a service to all peers, self included.  PD_OK, PD_EEXIST,
     * PD_EINVAL, PD_ENOMEM. */
    pd_status (*serve)(struct pd_peers *peers, uint32_t service, pd_call_handler handler,
                       void *arg);
    /* Ends the offer.  Calls accepted before stay. */
    void (*unserve)(struct pd_peers *peers, uint32_t service);

    /* Opens a call with a first message (type and n parts, copied).  PD_OK;
     * PD_ESTALE; PD_EPEER: not up; PD_ELIMIT: too many calls on the link or the
     * message is too long; PD_ENOMEM.  on_end follows exactly once unless the
     * call is canceled. */
    pd_status (*call_open)(struct pd_peers *peers, pd_peer_ref peer, uint32_t service,
                           uint32_t type,
                           const struct pd_iov *iov, uint32_t n,
                           const struct pd_call_events *events, void *arg, struct pd_call **out);
    /* The service takes the call (only inside its handler). */
    void (*call_accept)(struct pd_call *call, const struct pd_call_events *events, void *arg);
    /* Sends a message, type 0..255, parts copied.  PD_OK; PD_EAGAIN: too much is
     * waiting already, nothing was taken, on_writable follows; PD_ELIMIT: longer
     * than a message may be; PD_ENOMEM; PD_EPEER: the call is over, its on_end
     * is about to come. */
    pd_status (*call_send)(struct pd_call *call, uint32_t type, const struct pd_iov *iov,
                           uint32_t n);
    /* The service ends the call behind everything it sent.  bytes are copied,
     * at most PD_CALL_MAX_END of them (more are cut off).  The call is gone for
     * the caller. */
    void (*call_end)(struct pd_call *call, pd_status status, struct pd_str bytes);
    /* The opener gives up: no event follows, the service gets on_end with
     * PD_ECANCELED.  The call is gone for the caller. */
    void (*call_cancel)(struct pd_call *call);
    /* Pauses on_message (true) until resumed (false); what is in the window
     * waits here, then the sender gets PD_EAGAIN. */
    void (*call_pause)(struct pd_call *call, bool pause);
    /* Bytes taken by call_send and not yet sent. */
    uint64_t (*call_pending)(const struct pd_call *call);
    pd_peer_ref (*call_peer)(const struct pd_call *call);
};

#define PD_CALL_MAX_END 65000

#ifdef __cplusplus
}
#endif
#endif
