/* SPDX-License-Identifier: Apache-2.0 */
/* The structs that the files of this folder share.
 *
 *   struct pd_peers   the table: peers in order of becoming known, links, dials
 *   struct pd_peer    a known node; points to its link while it is up
 *   struct pd_link    one connection (or the loop back to ourselves)
 *   struct pd_call    one end of a call on a link
 *   struct pd_dial    an address and the attempts to reach it
 *
 * A link is freed in its stream's on_closed, a call when nobody is inside one
 * of its callbacks; so code that failed a link may still look at it. */
#ifndef PD_PEER_PRIV_H
#define PD_PEER_PRIV_H

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "peer/frame.h"
#include "peer/hello.h"
#include "base/wire.h"
#include "peer/peer.h"

#define PD_LINK_CHUNK 16384
#define PD_LINK_CHUNKS_KEPT 64
#define PD_LINK_LINGER (1 * PD_SEC)
#define PD_PEER_OLD_EPOCHS 4
#define PD_PEER_MAX_DIALS 1024
#define PD_PEER_MAX_LISTENERS 8
#define PD_PEER_MAX_WATCHES 64
#define PD_CALL_CHARGE PD_FRAME_HEADER  /* what a frame costs in credits besides its payload */
#define PD_CALL_FRAGMENT 32768u         /* payload of one fragment; keeps links fair */
#define PD_CALL_KIND_END 0x1000u        /* kinds above 255 are records of our own */
#define PD_CALL_KIND_OPEN 0x2000u

enum pd_peers_counter {
    PD_COUNT_CALLS_OPENED,
    PD_COUNT_CALLS_SERVED,
    PD_COUNT_CALLS_REFUSED,
    PD_COUNT_CALLS_CANCELED,
    PD_COUNT_LATE,              /* frames for calls that are over */
    PD_COUNT_LIMIT,             /* calls, peers, links refused at a limit */
    PD_COUNT_AUTH,              /* hellos with a wrong proof */
    PD_COUNT_BYTES_IN,
    PD_COUNT_BYTES_OUT,
    PD_COUNT_CONNECTS,
    PD_COUNT_SUSPECTS,
    PD_COUNT_DOWNS,
    PD_COUNTS
};

enum pd_link_state {
    PD_LINK_CONNECTING,
    PD_LINK_PREAMBLE,           /* waiting for the other side's preamble */
    PD_LINK_HELLO,              /* waiting for its hello */
    PD_LINK_READY,              /* waiting for its ready */
    PD_LINK_UP,
    PD_LINK_CLOSING,            /* goodbye said, bytes drain */
    PD_LINK_CLOSED              /* waiting for on_closed */
};

enum { PD_SIDE_OPENED = 0, PD_SIDE_SERVED = 1 };

struct pd_chunk {
    struct pd_list node;
    uint32_t head;
    uint32_t tail;
    uint8_t bytes[PD_LINK_CHUNK];
};

struct pd_link {
    struct pd_list node;        /* in peers->links */
    struct pd_peers *peers;
    struct pd_stream *stream;   /* NULL: self */
    struct pd_peer *peer;       /* set while UP */
    struct pd_dial *dial;       /* NULL: inbound, self, or no longer wanted */
    enum pd_link_state state;
    bool is_initiator;
    bool is_blocked;            /* the stream takes nothing now */
    bool is_paused;             /* we do not read because too much waits to be sent */
    bool is_flushing;
    bool is_draining;           /* the other side's flag */
    uint32_t fail_reason;       /* fail at the end of the turn; 0: no */
    struct pd_preamble mine;
    struct pd_preamble theirs;
    struct pd_peer_desc *desc;  /* verified, until the link is up */
    uint64_t told;              /* desc_serial of what our HELLO said */
    uint8_t *rx;                /* PD_FRAME_MAX bytes */
    size_t rx_n;
    struct pd_list tx;          /* chunks */
    size_t tx_bytes;
    struct pd_task task;        /* flush, deliver, fail */
    struct pd_timer timer;
    struct pd_idmap calls[2];   /* by PD_SIDE_* */
    struct pd_list senders;     /* calls with something to send and the credit for it */
    struct pd_list ready;       /* calls with something held to deliver */
    uint32_t last_opened;       /* ids of calls */
    uint32_t last_served;
    size_t reassembly;          /* bytes in unfinished and held messages */
    pd_time last_rx;
    pd_time busy_since;         /* since when a call is open */
    pd_time next_heartbeat;
    pd_time due;                /* of the timer */
    uint64_t echo;              /* of the last heartbeat received */
    pd_time echo_at;
    uint64_t bytes_in;
    uint64_t bytes_out;
    char address[PD_ADDR_TEXT];
};

struct pd_call {
    struct pd_link *link;
    uint32_t id;
    uint32_t side;              /* PD_SIDE_* */
    const struct pd_call_events *events; /* NULL: not accepted */
    struct pd_call_events copy;
    void *arg;
    uint32_t busy;              /* callbacks running */
    bool is_gone;               /* for the user; freed when not busy */
    bool is_linked;             /* in the link's map */
    bool is_opening;            /* served: the first message is not complete */
    bool is_open_sent;          /* opened: the other side knows of it */
    bool is_paused;
    bool wants_writable;
    uint16_t service;
    struct pd_list sender;      /* in link->senders */
    struct pd_list ready;       /* in link->ready */
    /* to send */
    struct pd_buf out;          /* records: u32 length, u32 kind, bytes */
    uint32_t cur_kind;          /* of the record being sent */
    uint32_t cur_left;
    bool in_record;
    uint32_t credit;
    /* received */
    struct pd_buf in;           /* unfinished message */
    uint32_t in_kind;
    struct pd_buf held;         /* records as in `out`, while paused */
    uint32_t window_left;       /* what the other side may still send */
    uint32_t owed;              /* consumed and not yet granted again */
};

struct pd_peer {
    struct pd_list node;        /* in peers->all */
    struct pd_peers *peers;
    pd_peer_ref ref;
    struct pd_node_id id;
    uint32_t state;             /* PD_PEER_* */
    uint32_t flags;             /* PD_PEER_CONFIGURED, SELF */
    struct pd_peer_desc *desc;  /* never NULL */
    struct pd_link *link;       /* while up or suspect */
    struct pd_engine_load loads[PD_PEER_MAX_ENGINES];
    pd_time load_at;
    pd_time rtt;
    pd_time seen_at;
    pd_time since;
    uint32_t suspects;
    uint32_t downs;
    struct pd_timer forget;
    uint64_t old_epochs[PD_PEER_OLD_EPOCHS];
    uint64_t bytes_in;          /* of earlier links */
    uint64_t bytes_out;
    char reason[96];
    char address[PD_ADDR_TEXT];
    char listener[PD_ADDR_TEXT + 8]; /* see pd_peer_info; made when it is asked for */
};

enum pd_dial_state {
    PD_DIAL_WAITING,            /* timer runs */
    PD_DIAL_RESOLVING,
    PD_DIAL_LINKING,            /* has a link that is not up */
    PD_DIAL_LINKED,
    PD_DIAL_COVERED,            /* the node there has a link already */
    PD_DIAL_SELF                /* it is this node */
};

struct pd_dial {
    struct pd_list node;        /* in peers->dials */
    struct pd_peers *peers;
    enum pd_dial_state state;
    bool is_configured;
    bool is_resting;            /* the node behind it gets no new work */
    pd_peer_ref want;           /* of a reach; 0: whoever answers */
    struct pd_node_id covered;  /* who was last found there */
    struct pd_link *link;
    struct pd_resolve resolve;
    struct pd_timer timer;
    pd_time backoff;
    struct pd_addr addrs[16];
    uint32_t n_addrs;
    uint32_t next_addr;
    uint16_t port;
    char host[256];
    char text[288];
};

struct pd_peer_watch {
    struct pd_list node;
    struct pd_peers *peers;
    struct pd_peer_watch_events events;
    void *arg;
    bool is_dead;
};

struct pd_service {
    pd_call_handler handler;    /* NULL: not offered */
    void *arg;
};

struct pd_peers {
    struct pd_peers_conf conf;  /* limits and callbacks; pointers in it are not ours */
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_peer_desc *self;
    uint64_t desc_serial;       /* number of changes of self */
    uint8_t secret[PD_PEER_MAX_SECRET];
    size_t secret_n;
    bool is_draining;
    bool is_closing;
    struct pd_task close_task;
    void (*on_closed)(void *arg);
    void *on_closed_arg;
    struct pd_peer_door {
        struct pd_peers *peers;
        struct pd_listener *listener;
        struct pd_tls *tls;     /* NULL: plain */
    } doors[PD_PEER_MAX_LISTENERS];
    uint32_t n_listeners;
    struct pd_list all;         /* peers; self is the first */
    struct pd_idmap by_ref;
    pd_peer_ref last_ref;
    struct pd_peer *me;
    struct pd_list links;
    uint32_t n_links;
    struct pd_list dials;
    uint32_t n_dials;
    struct pd_list watches;
    uint32_t n_watches;
    uint32_t emitting;
    struct pd_service services[PD_PEER_MAX_SERVICE];
    struct pd_list chunks;      /* free ones */
    uint32_t n_chunks;
    uint8_t *scratch;           /* PD_FRAME_MAX_PAYLOAD bytes, for hello and heartbeat */
    uint64_t count[PD_COUNTS];
    uint64_t goodbyes[2][PD_GOODBYES]; /* received, sent */
    struct pd_counter *metric[PD_COUNTS];
    struct pd_counter *metric_goodbyes[2][PD_GOODBYES];
    struct pd_gauge *metric_up;
};

/* peers_count.c */
void pd_peers_make_metrics(struct pd_peers *peers);
void pd_peers_count(struct pd_peers *peers, enum pd_peers_counter which, uint64_t n);
void pd_peers_count_goodbye(struct pd_peers *peers, bool sent, uint32_t reason);

/* peers.c */
void pd_peers_emit(struct pd_peers *peers, struct pd_peer *peer, uint32_t what);
struct pd_peer *pd_peers_by_uuid(struct pd_peers *peers, const struct pd_uuid *uuid);
struct pd_peer *pd_peers_get(struct pd_peers *peers, pd_peer_ref ref);
/* Makes a peer in state CONNECTING; takes desc on success. */
pd_status pd_peers_add(struct pd_peers *peers, struct pd_peer_desc *desc, struct pd_peer **out);
void pd_peers_remove(struct pd_peer *peer);
/* The same without telling anybody. */
void pd_peer_free(struct pd_peer *peer);
void pd_peers_load(struct pd_peers *peers, struct pd_engine_load *out);
/* Sets or clears PD_PEER_RESTING and tells. */
void pd_peer_rest(struct pd_peer *peer, bool is_resting);
void pd_peer_set_state(struct pd_peer *peer, uint32_t state, const char *reason);
/* Forgets the peer after a while, unless it is configured or has a link by then. */
void pd_peer_forget_later(struct pd_peer *peer, pd_time delay);
/* The last link is closed: ends a destroy in progress. */
void pd_peers_link_closed(struct pd_peers *peers);

/* admit.c: which links become peers */
/* The description on the link was verified.  Either the link goes on, or it was
 * failed. */
void pd_admit_hello(struct pd_link *link);
void pd_admit_ready(struct pd_link *link);
void pd_admit_update(struct pd_link *link, struct pd_peer_desc *desc);
/* The link is lost or ended. */
void pd_admit_lost(struct pd_link *link, uint32_t reason);

/* link.c */
pd_status pd_link_open(struct pd_dial *dial, const struct pd_addr *addr);
/* False: one too many; the stream is not taken. */
bool pd_link_accept(struct pd_peers *peers, struct pd_stream *stream);
pd_status pd_link_open_self(struct pd_peers *peers);
/* Ends the link now: goodbye with this reason unless it is NONE.  Only from
 * loop callbacks. */
void pd_link_fail(struct pd_link *link, uint32_t reason, const char *detail);
void pd_link_close_self(struct pd_link *link);

/* link_queue.c */
/* Queues a frame; PD_OK or PD_ENOMEM (the link then fails at the end of the turn). */
pd_status pd_link_send(struct pd_link *link, const struct pd_frame *frame,
                       const struct pd_iov *payload, size_t n);
pd_status pd_link_send_simple(struct pd_link *link, uint8_t type, const void *payload, size_t n);
bool pd_link_may_send(const struct pd_link *link);
/* Something is to be done at the end of the turn. */
void pd_link_kick(struct pd_link *link);
/* Writes what is queued; false when the stream failed. */
bool pd_link_write(struct pd_link *link);
/* n bytes of the queue have gone; n is at most tx_bytes. */
void pd_link_consume(struct pd_link *link, size_t n);
void pd_link_drop_queue(struct pd_link *link);

/* link_life.c */
void pd_link_set_up(struct pd_link *link);
void pd_link_set_timer(struct pd_link *link, pd_time due);
/* The time is up of a link that is up; of the one back to ourselves. */
void pd_link_tick(struct pd_link *link);
void pd_link_tick_self(struct pd_link *link);
/* The first call is opened on the link. */
void pd_link_set_busy(struct pd_link *link);
void pd_link_send_heartbeat(struct pd_link *link);
/* The payload of a heartbeat frame. */
void pd_link_got_heartbeat(struct pd_link *link, const uint8_t *p, size_t n);
void pd_link_times_changed(struct pd_link *link);

/* call.c */
void pd_calls_init(struct pd_link *link);
void pd_calls_fini(struct pd_link *link);
/* Returns a PD_GOODBYE_* when the frame breaks the rules, 0 otherwise. */
uint32_t pd_calls_frame(struct pd_link *link, const struct pd_frame *frame, const uint8_t *payload);
/* Moves what calls want to send into the link's queue. */
void pd_calls_pump(struct pd_link *link);
/* Delivers what was held and is not paused any more. */
void pd_calls_deliver(struct pd_link *link);
void pd_calls_end_all(struct pd_link *link, pd_status status);
uint32_t pd_calls_n(const struct pd_link *link);
pd_status pd_call_open(struct pd_peers *peers, pd_peer_ref peer, uint32_t service, uint32_t type,
                       const struct pd_iov *iov, uint32_t n, const struct pd_call_events *events,
                       void *arg, struct pd_call **out);
void pd_call_accept(struct pd_call *call, const struct pd_call_events *events, void *arg);
pd_status pd_call_send(struct pd_call *call, uint32_t type, const struct pd_iov *iov, uint32_t n);
void pd_call_end(struct pd_call *call, pd_status status, struct pd_str bytes);
void pd_call_cancel(struct pd_call *call);
void pd_call_pause(struct pd_call *call, bool pause);
uint64_t pd_call_pending(const struct pd_call *call);
pd_peer_ref pd_call_peer(const struct pd_call *call);

/* dial.c */
pd_status pd_dial_add(struct pd_peers *peers, struct pd_str address, bool is_configured,
                      pd_peer_ref want, struct pd_dial **out);
void pd_dial_remove(struct pd_dial *dial);
struct pd_dial *pd_dial_find(struct pd_peers *peers, struct pd_str address);
struct pd_dial *pd_dial_find_want(struct pd_peers *peers, pd_peer_ref want);
void pd_dial_up(struct pd_dial *dial, const struct pd_node_id *id);
/* Whether a configured address was last seen to be this node's. */
bool pd_dial_covers(struct pd_peers *peers, const struct pd_peer *peer);
/* Peers that no configured address stands for any more may be forgotten. */
void pd_peers_release(struct pd_peers *peers);
/* The dial's link is gone; reason PD_GOODBYE_*. */
void pd_dial_lost(struct pd_dial *dial, uint32_t reason, const struct pd_node_id *id);
/* A node's link broke: dials that it covered try again. */
void pd_dial_uncover(struct pd_peers *peers, const struct pd_node_id *id);

#endif
