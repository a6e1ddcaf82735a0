/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of @NAME@ share. */
#ifndef @NAME@_H
#define @NAME@_H

#include <sys/queue.h>

#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/transport.h>

#define MAGIC 0x31545840u               /* another byte order reads another number */
enum { CHUNK = 256 * 1024, TURN = 8 * CHUNK, QUEUE = 1024, WINDOWS = 1024, CONNS = 1024, SEGMENTS = 65536, ACKS = 64, PIECES = 32 };
enum { HELLO = 1, DATA = 2, STOP = 3, ACK = 4 };

/* What travels before bytes, and alone. */
struct frame {
    uint32_t magic, type;
    uint32_t bytes;                     /* DATA: that follow */
    int32_t status;                     /* DATA: 1 the last of its post; ACK: pd_status */
    uint64_t xid, generation, token;    /* of a window */
    uint64_t offset, id;                /* in the window; of the post */
    struct pd_node_id from, to;
};

struct blob {                           /* of window_export: frame's members, and the size */
    struct frame f;
    uint64_t bytes;
};

struct run {                            /* a segment, with its place in the linear range */
    uint8_t *at;
    uint64_t start, bytes;
};

struct range {
    uint64_t from, to;
};

struct pd_transport_memory {
    struct pd_transport *tp;
    uint8_t *base;
    uint64_t bytes;
    uint32_t refs;
};

struct pd_transport_window {
    struct pd_transport *tp;
    struct pd_transport_memory *memory;
    struct blob blob;
    struct pd_window_events events;
    void *arg;
    struct run *runs;
    struct range *landed;               /* sorted, apart from each other */
    uint32_t n_runs, n_landed;
    uint64_t total, told;
    bool is_closed, has_news;
    TAILQ_ENTRY(pd_transport_window) link, news;
};

struct pd_transfer {
    struct pd_transport_peer *peer;
    struct pd_transport_memory *memory;
    struct frame f;
    uint64_t offset, bytes, sent;
    void *arg;
    uint32_t terminal, n_runs;
    bool is_begun, is_canceled, is_stopped;
    TAILQ_ENTRY(pd_transfer) link;
    struct run runs[];
};
TAILQ_HEAD(transfers, pd_transfer);

struct pd_transport_peer {              /* the poster's side of a connection */
    struct pd_transport *tp;
    struct pd_node_id node;
    struct pd_transport_peer_events events;
    void *arg;
    struct pd_stream *stream;
    struct pd_timer tick;
    struct pd_task more;
    uint64_t in_turn;                   /* bytes sent since `more` */
    pd_time last;                       /* progress */
    struct frame grant, in, out;
    size_t in_at, out_at;               /* bytes of in and out */
    uint64_t out_left;                  /* of out's payload */
    bool has_out;
    struct transfers waiting, sent;     /* not sent whole; waiting for their ACK */
    uint32_t n_transfers;
    pd_status status;
    bool is_connected, is_up, is_told_up, is_asked, is_closing, is_closed, is_full;
    TAILQ_ENTRY(pd_transport_peer) link;
    TAILQ_HEAD(, pd_transport_target) targets;
};

struct pd_transport_target {
    struct pd_transport_peer *peer;     /* NULL: it is gone */
    struct blob blob;
    TAILQ_ENTRY(pd_transport_target) link;
};

struct conn {                           /* the owner's side */
    struct pd_transport *tp;
    struct pd_stream *stream;
    struct pd_timer timer;              /* until the greeting */
    struct pd_node_id from;
    struct frame in, acks[ACKS];
    size_t in_at, acks_at;
    uint32_t n_acks, left;
    pd_status status;                   /* of the post that comes in */
    struct pd_transport_window *w;      /* where its bytes go; NULL: nowhere */
    bool is_in, is_paused, is_refused;
    TAILQ_ENTRY(conn) link;
};

struct pd_transport {
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_node_id self;
    struct pd_listener *listener;
    struct pd_addr bound;
    struct pd_task task;
    pd_time timeout;
    uint64_t next_id;
    uint32_t n_windows, n_conns;
    TAILQ_HEAD(, pd_transport_window) windows, news;
    TAILQ_HEAD(, pd_transport_peer) peers;
    TAILQ_HEAD(, conn) conns;
    struct transfers done;
    bool is_closing;
    void (*on_closed)(void *arg);
    void *closed_arg;
    uint8_t scratch[CHUNK];             /* for bytes that go nowhere */
};

/* @NAME@.c */
void @NAME@_wake(struct pd_transport *tp);
bool @NAME@_same(const struct pd_node_id *a, const struct pd_node_id *b);
pd_status @NAME@_runs(struct run *runs, const struct pd_transport_memory *memory, const struct pd_segment *segs,
                      uint32_t n, uint64_t *total);
/* The pieces of [from, from + bytes), at most max of them. */
size_t @NAME@_pieces(const struct run *runs, uint32_t n, uint64_t from, uint64_t bytes, struct pd_iov *iov,
                     size_t max);

/* @NAME@_poster.c */
pd_status @NAME@_connect(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                         const struct pd_transport_peer_events *events, void *arg,
                         struct pd_transport_peer **out);
void @NAME@_disconnect(struct pd_transport_peer *peer, uint32_t how);
pd_status @NAME@_target_open(struct pd_transport_peer *peer, const void *blob, size_t len,
                             struct pd_transport_target **out);
void @NAME@_target_close(struct pd_transport_target *target);
pd_status @NAME@_post(struct pd_transport_target *target, const struct pd_post *post, struct pd_transfer **out);
void @NAME@_cancel(struct pd_transfer *transfer);
/* Tells what there is to tell of transfers and peers. */
void @NAME@_tell_peers(struct pd_transport *tp);

/* @NAME@_owner.c */
pd_status @NAME@_window_open(struct pd_transport *tp, const struct pd_window_desc *desc,
                             const struct pd_window_events *events, void *arg, struct pd_transport_window **out);
pd_status @NAME@_window_export(struct pd_transport_window *window, void *buf, size_t cap, size_t *len);
void @NAME@_window_close(struct pd_transport_window *window);
void @NAME@_tell_windows(struct pd_transport *tp);
void @NAME@_accept(struct pd_listener *l, struct pd_stream *s, void *arg);
void @NAME@_end_conns(struct pd_transport *tp);

#endif
