/* SPDX-License-Identifier: Apache-2.0 */
/* The engine behind the transports.  They differ in how bytes travel: inside
 * frames (tcp), or as references to memory that the owner of the window copies
 * from, mapped (shm) or read over a fabric (far.h); everything else is here.
 *
 *   struct pd_transport         an instance: listener, clock, counters
 *   struct pd_transport_memory  registered memory
 *   struct pd_transport_window  ours, that a peer may write or read   window.c
 *   struct pd_transport_peer    a way to a node: one or more lanes    peer.c
 *   struct pd_transfer          a post on its way                     peer.c
 *   struct pd_xp_lane           one stream, of ours or accepted       in.c, out.c
 *
 * Who decides: the owner of a window.  A lane that was accepted serves windows,
 * a lane that we opened carries posts, and neither does the other's work.
 *
 * Callbacks to the user come from one place only, pd_xp_run, a task at the end
 * of a turn; so every op and every callback may call every op. */
#ifndef PD_XP_LINK_H
#define PD_XP_LINK_H

#include <pdplane/codec.h>
#include <pdplane/host.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>
#include <pdplane/net.h>
#include <pdplane/transport.h>

#include <sys/queue.h>

#include "crc.h"
#include "far.h"
#include "frame.h"
#include "ranges.h"
#include "segs.h"

#define PD_XP_IOV 64u             /* as many as the loop looks at */
#define PD_XP_MAX_LANES 16u
#define PD_XP_MAX_SENT 256u       /* WRITE or COPY frames of a lane without answer */
#define PD_XP_MAX_COPIES 32u      /* COPY frames without answer, over a fabric */
#define PD_XP_MAX_READS 64u       /* READ frames of a lane without answer */
#define PD_XP_MAX_FDS 4u          /* received, not yet named by a MEMORY frame */
#define PD_XP_MAX_MAPS 64u        /* memories of one peer */
#define PD_XP_COPY_SEGS 1024u     /* in one COPY frame */
#define PD_XP_SMALL (8u + PD_XP_COPY_SEGS * 16u)
#define PD_XP_CTL_MAX 65536u      /* bytes of answers that wait on a lane */
#define PD_XP_SCRATCH 65536u
#define PD_XP_BUCKETS 1024u
#define PD_XP_RANGES 4096u        /* holes in one window */
#define PD_XP_MAX_SEGMENTS 65536u /* in one post */
#define PD_XP_MAX_BYTES ((uint64_t)1 << 36)
#define PD_XP_READ_BUDGET ((uint64_t)2 << 20)  /* bytes of a lane in one turn */
#define PD_XP_WRITE_BUDGET ((uint64_t)4 << 20)

struct pd_xp_lane;

/* Faults on purpose, for tests of what lies above. */
struct pd_xp_hooks {
    void *arg;
    /* Owner: bytes [offset, offset + len) of a window are stored and verified,
     * at() finds them.  May change them, and may lower *count, the number of
     * bytes that count from offset on.  False: the frame is not answered. */
    bool (*stored)(void *arg, struct pd_transport_window *window, uint64_t offset, uint32_t len,
                   uint32_t *count);
    /* Poster: how often this frame is sent once more. */
    uint32_t (*copies)(void *arg);
    /* Poster: how long this post waits before its first byte, ns. */
    pd_time (*delay)(void *arg);
};

/* How lanes are encrypted; net NULL: they are not. */
struct pd_xp_tls {
    const struct pd_net_api *net;
    struct pd_tls *in, *out;
};

/* What a module's options come to. */
struct pd_xp_conf {
    uint16_t kind;                /* PD_XP_TCP ... */
    struct pd_xp_fabric *fabric;  /* NULL: none; of the transport once it is made */
    uint32_t depth;               /* gets that may fly at a time */
    bool checksum;
    uint32_t lanes;               /* per peer; 0: one on the same host, else four */
    uint32_t queue;               /* posts of a peer */
    uint32_t frame_bytes;         /* most data bytes in a frame */
    uint32_t max_windows;
    uint32_t max_links;           /* accepted lanes */
    pd_time timeout;              /* without progress */
    pd_time connect_timeout;
    pd_time keepalive;            /* 0: none */
    struct pd_addr listen;
    struct pd_addr advertise;     /* PD_AF_NONE: none */
    const struct pd_xp_hooks *hooks;
    struct pd_xp_tls tls;
    const char *codec;            /* NULL: bytes go plain */
};

/* The codec of an instance; ops is NULL without one. */
struct pd_xp_pack {
    const struct pd_codec_ops *ops;
    struct pd_codec *codec;
    struct pd_codec_state *state;
    struct pd_codec_info info;
    char name[PD_XP_CODEC_BYTES];
    uint8_t *plain;               /* frame_bytes, to gather and to scatter */
    struct pd_counter *shrunk_from, *shrunk_to, *skipped, *decoded, *failed;
};

TAILQ_HEAD(pd_xp_lanes, pd_xp_lane);
TAILQ_HEAD(pd_xp_windows, pd_transport_window);
TAILQ_HEAD(pd_xp_peers, pd_transport_peer);
TAILQ_HEAD(pd_xp_transfers, pd_transfer);
TAILQ_HEAD(pd_xp_targets, pd_transport_target);
TAILQ_HEAD(pd_xp_memories, pd_transport_memory);

struct pd_transport {
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_node_id self;
    struct pd_xp_conf conf;
    struct pd_xp_crc crc;
    struct pd_transport_stats stats;
    struct pd_xp_pack pack;
    struct pd_listener *listener;
    struct pd_addr bound;         /* where the listener really is */
    uint8_t key[PD_XP_TOKEN_BYTES];
    uint8_t *scratch;             /* where unwanted bytes go */
    struct pd_timer tick;
    pd_time last_tick;
    struct pd_task task;          /* pd_xp_run */
    uint32_t n_lanes;             /* streams not yet closed */
    uint32_t n_accepted;
    uint32_t n_windows;
    uint32_t n_memories;
    uint32_t n_posts;             /* accepted, on_done not yet called */
    uint32_t n_fars;
    uint32_t flying;              /* gets of all of them */
    uint32_t next_memory;
    bool closing;
    struct pd_xp_lanes accepted;
    struct pd_xp_lanes kicked;    /* have something to send */
    struct pd_xp_peers peers;
    struct pd_xp_peers events;    /* something to tell */
    struct pd_xp_transfers done;  /* to tell */
    struct pd_xp_memories memories;
    struct pd_xp_windows landed;  /* on_bytes to tell */
    struct pd_xp_windows closed;  /* on_closed to tell */
    uint8_t *beacon;              /* 16 bytes that others read first, and room to read theirs to */
    struct pd_xp_region *beacon_region;
    uint32_t next_beacon;
    struct pd_xp_fars fars;
    bool fars_run;                /* some can go on */
    struct pd_xp_windows buckets[PD_XP_BUCKETS];
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

struct pd_transport_memory {
    struct pd_transport *tp;
    TAILQ_ENTRY(pd_transport_memory) link;
    uint8_t *base;
    uint64_t bytes;
    uint64_t fd_offset;
    uint32_t id;
    uint32_t refs;                /* windows and transfers */
    int fd;                       /* shm: our own, else -1 */
    struct pd_xp_region *region;  /* as a fabric knows it */
    uint32_t dtype;
    uint32_t element_bytes;
};

struct pd_transport_window {
    struct pd_transport *tp;
    TAILQ_ENTRY(pd_transport_window) bucket;
    TAILQ_ENTRY(pd_transport_window) event; /* in landed or closed */
    struct pd_transport_memory *memory;
    struct pd_xp_segs *segs;
    struct pd_xp_ranges ranges;   /* landed */
    struct pd_xp_grant grant;
    struct pd_window_events events;
    void *arg;
    uint64_t link;                /* which was let in by this grant; 0: none yet */
    uint32_t lanes;               /* of that link, a bit for each */
    struct pd_xp_copies copies;   /* read over a fabric, in the order of their frames */
    uint32_t sending;             /* DATA frames in the middle of their bytes, and copies begun */
    bool has_landed;              /* in tp->landed */
    bool closing;
};

/* A frame that waits for its answer. */
struct pd_xp_sent {
    struct pd_transfer *transfer; /* NULL: nobody cares any more */
    uint64_t from;                /* in the transfer */
    uint32_t len;
    uint32_t id;
};

/* A READ that waits for its bytes. */
struct pd_xp_asked {
    struct pd_transport_window *window; /* NULL: refused, see status */
    uint64_t offset;
    uint32_t len;
    uint32_t id;
    pd_status status;
};

/* Memory of the peer, mapped read-only. */
struct pd_xp_map {
    uint32_t id;                  /* 0: free */
    void *map;
    size_t map_len;
    const uint8_t *base;
    uint64_t bytes;
};

enum { PD_XP_LANE_CONNECTING, PD_XP_LANE_GREETING, PD_XP_LANE_UP, PD_XP_LANE_LEAVING,
       PD_XP_LANE_CLOSED };

enum { PD_XP_SINK_DRAIN, PD_XP_SINK_SEGS, PD_XP_SINK_SMALL, PD_XP_SINK_PACK };

struct pd_xp_lane {
    struct pd_transport *tp;
    struct pd_transport_peer *peer; /* NULL: accepted */
    struct pd_stream *stream;
    TAILQ_ENTRY(pd_xp_lane) link; /* in accepted */
    TAILQ_ENTRY(pd_xp_lane) kick;
    uint32_t state;
    uint16_t index;
    uint16_t seq_in, seq_out;
    bool accepted, blocked, paused, is_kicked, pinging;
    uint32_t next_id;
    struct pd_node_id remote;
    pd_time opened, last_in, last_progress;
    pd_time silence;              /* accepted: the longest that is normal, 0: any */

    /* Out: answers and control frames, whole ones behind each other. */
    uint8_t *ctl;
    uint32_t ctl_head, ctl_len, ctl_cap;
    /* Out: the frame that is being sent. */
    struct {
        bool active;
        bool is_post;             /* has an entry in sent */
        uint32_t id;
        uint32_t ctl_before;      /* control bytes that go before it */
        uint32_t head_sent;
        uint8_t head[PD_XP_HEAD_BYTES];
        const struct pd_xp_segs *segs;
        const uint8_t *small;     /* instead of segs */
        uint64_t from;
        uint64_t left;
        struct pd_transport_window *window; /* READ windows: counted in sending */
        struct pd_transfer *again; /* a copy of the last frame follows; hooks only */
        uint64_t again_from;
        uint32_t again_len;
        int fd;                   /* goes with the first byte, -1: none */
        uint64_t cost;            /* bytes encoded and not yet charged to a turn */
    } out;
    uint8_t *small_out;

    struct pd_xp_sent sent[PD_XP_MAX_SENT];
    uint32_t sent_head, sent_n;
    struct pd_xp_sent reads[PD_XP_MAX_READS];
    uint32_t reads_head, reads_n;
    struct pd_xp_asked asked[PD_XP_MAX_READS];
    uint32_t asked_head, asked_n;
    uint32_t told[PD_XP_MAX_MAPS]; /* ids of memories that the peer has */
    uint32_t told_n;

    /* In: the header, then the payload and, behind it, the next header. */
    uint8_t head_buf[PD_XP_HEAD_BYTES];
    uint32_t head_have;
    bool in_body;
    struct {
        struct pd_xp_head head;
        uint32_t sink;
        const struct pd_xp_segs *segs;
        uint64_t base;            /* in segs */
        uint32_t done;            /* payload bytes so far */
        uint32_t crc;
        struct pd_transport_window *window;
        struct pd_transfer *transfer;
        uint64_t cost;            /* bytes copied for the frame just done */
        pd_status verdict;        /* what the answer will be */
    } in;
    uint8_t *small_in;
    /* Encoded payloads, frame_bytes each, made when the first one comes. */
    bool packs;                   /* the other side has the same codec */
    uint32_t pack_misses, pack_skip;
    uint8_t *pack_out, *pack_in;
    int fds[PD_XP_MAX_FDS];
    uint32_t n_fds;
    struct pd_xp_map *maps;       /* PD_XP_MAX_MAPS, or NULL */
    struct pd_xp_far *far;        /* accepted, over a fabric; NULL until WHERE came */
    uint32_t frame_bytes;         /* ours, over a fabric: what the greeting named */
};

struct pd_transport_target {
    struct pd_transport *tp;
    struct pd_transport_peer *peer; /* NULL: gone */
    TAILQ_ENTRY(pd_transport_target) link;
    struct pd_xp_grant grant;
};

struct pd_transfer {
    struct pd_transport_peer *peer;
    TAILQ_ENTRY(pd_transfer) link;  /* in peer->transfers or tp->done */
    TAILQ_ENTRY(pd_transfer) ready;
    struct pd_xp_grant grant;
    struct pd_transport_memory *memory;
    struct pd_xp_segs *segs;
    struct pd_timer delay;
    uint64_t offset;              /* in the window */
    uint64_t sent;                /* given to lanes */
    uint64_t acked;               /* answered well */
    uint32_t outstanding;         /* frames without answer */
    uint32_t op;
    uint32_t terminal;
    bool is_ready;                /* in peer->ready */
    bool failed, canceled, is_done;
    void *arg;
};

enum { PD_XP_PEER_CONNECTING, PD_XP_PEER_UP, PD_XP_PEER_ENDING, PD_XP_PEER_DOWN };
enum { PD_XP_EV_UP = 1, PD_XP_EV_WRITABLE = 2, PD_XP_EV_DOWN = 4 };

struct pd_transport_peer {
    struct pd_transport *tp;
    TAILQ_ENTRY(pd_transport_peer) link;
    TAILQ_ENTRY(pd_transport_peer) event;
    struct pd_node_id node;
    struct pd_addr addr;
    uint8_t key[PD_XP_TOKEN_BYTES];
    struct pd_xp_grant grant;     /* shown in greetings; xid 0 and a zero token: none */
    uint64_t link_id;
    struct pd_transport_peer_events events;
    void *arg;
    struct pd_xp_lane *lanes[PD_XP_MAX_LANES];
    uint32_t n_lanes;             /* wanted */
    uint32_t open_lanes;          /* streams not yet closed */
    uint32_t up_lanes;
    uint32_t frame_bytes;
    uint32_t state;
    uint32_t pending;             /* PD_XP_EV_... */
    bool was_up;                  /* on_up was told, or disconnect was asked */
    bool wants_writable;
    pd_status status;             /* why down */
    pd_time end_by;               /* ENDING with a fence: when patience ends */
    uint32_t n_transfers;         /* accepted, on_done not yet called */
    struct pd_xp_transfers transfers; /* running */
    struct pd_xp_transfers ready; /* with bytes nobody has sent */
    struct pd_xp_targets targets;
};

/* link.c */
pd_status pd_xp_create(const struct pd_instance_ctx *ctx, const struct pd_xp_conf *conf,
                       struct pd_transport **out, struct pd_err *err);
void pd_xp_fail(struct pd_err *err, pd_status status, const char *fmt, ...) PD_PRINTF(3, 4);
void pd_xp_wake(struct pd_transport *tp);
void pd_xp_tick_on(struct pd_transport *tp);
/* All members but head and create. */
#define PD_XP_OPS                                                                                  \
    .destroy = pd_xp_destroy, .info = pd_xp_info, .stats = pd_xp_stats, .address = pd_xp_address,  \
    .memory_add = pd_xp_memory_add, .memory_remove = pd_xp_memory_remove,                          \
    .window_open = pd_xp_window_open, .window_export = pd_xp_window_export,                        \
    .window_close = pd_xp_window_close, .connect = pd_xp_connect,                                  \
    .disconnect = pd_xp_disconnect, .target_open = pd_xp_target_open,                              \
    .target_close = pd_xp_target_close, .post = pd_xp_post, .cancel = pd_xp_cancel
void pd_xp_destroy(struct pd_transport *tp, void (*on_closed)(void *arg), void *arg);
void pd_xp_info(struct pd_transport *tp, struct pd_transport_info *out);
void pd_xp_stats(struct pd_transport *tp, struct pd_transport_stats *out);
pd_status pd_xp_address(struct pd_transport *tp, void *buf, size_t cap, size_t *len);
pd_status pd_xp_memory_add(struct pd_transport *tp, const struct pd_memory_desc *desc,
                           struct pd_transport_memory **out, struct pd_err *err);
pd_status pd_xp_memory_remove(struct pd_transport_memory *memory);

/* window.c */
pd_status pd_xp_window_open(struct pd_transport *tp, const struct pd_window_desc *desc,
                            const struct pd_window_events *events, void *arg,
                            struct pd_transport_window **out);
pd_status pd_xp_window_export(struct pd_transport_window *window, void *buf, size_t cap,
                              size_t *len);
void pd_xp_window_close(struct pd_transport_window *window);
void pd_xp_window_unsend(struct pd_transport_window *window);
/* May a lane come in that shows this grant?  A grant lets in one link, each of
 * its lanes once.  PD_OK, PD_EPERM. */
pd_status pd_xp_window_admit(struct pd_transport *tp, const struct pd_xp_head *h,
                             const struct pd_xp_hello *hello);
/* May the sender of h do this to `len` bytes?  PD_OK with the window, PD_ESTALE,
 * PD_EPERM, PD_EINVAL (bounds); refusals are counted. */
pd_status pd_xp_window_find(struct pd_xp_lane *lane, const struct pd_xp_head *h, uint32_t access,
                            uint64_t len, struct pd_transport_window **out);
/* Bytes begin to change; they count again after pd_xp_window_landed. */
pd_status pd_xp_window_touch(struct pd_transport_window *window, uint64_t from, uint64_t len);
pd_status pd_xp_window_landed(struct pd_transport_window *window, uint64_t from, uint64_t len);
/* The byte at `offset`; for hooks. */
uint8_t *pd_xp_window_at(struct pd_transport_window *window, uint64_t offset);
/* Tells what is to be told about windows. */
void pd_xp_window_tell(struct pd_transport *tp);

/* peer.c */
pd_status pd_xp_connect(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                        const struct pd_transport_peer_events *events, void *arg,
                        struct pd_transport_peer **out);
void pd_xp_disconnect(struct pd_transport_peer *peer, uint32_t how);
pd_status pd_xp_target_open(struct pd_transport_peer *peer, const void *blob, size_t len,
                            struct pd_transport_target **out);
void pd_xp_target_close(struct pd_transport_target *target);
void pd_xp_peer_lane_up(struct pd_xp_lane *lane, const struct pd_xp_hello *hello);
void pd_xp_peer_lane_gone(struct pd_transport_peer *peer);
void pd_xp_peer_fail(struct pd_transport_peer *peer, pd_status status);
void pd_xp_peer_tick(struct pd_transport_peer *peer, pd_time now);
void pd_xp_peer_event(struct pd_transport_peer *peer, uint32_t what);
void pd_xp_peer_ending(struct pd_transport_peer *peer);
void pd_xp_peer_tell(struct pd_transport *tp);

/* transfer.c */
pd_status pd_xp_post(struct pd_transport_target *target, const struct pd_post *post,
                     struct pd_transfer **out);
void pd_xp_cancel(struct pd_transfer *transfer);
/* The answer to a frame: bytes are 0 unless all is well. */
void pd_xp_transfer_answer(struct pd_transfer *t, uint32_t bytes, pd_status status);
void pd_xp_transfer_stop(struct pd_transfer *t);
/* The way is lost. */
void pd_xp_transfer_lost(struct pd_transfer *t);
void pd_xp_transfer_tell(struct pd_transport *tp);

/* lane.c */
pd_status pd_xp_lane_connect(struct pd_transport_peer *peer, uint16_t index);
void pd_xp_lane_accept(struct pd_listener *l, struct pd_stream *s, void *arg);
void pd_xp_lane_close(struct pd_xp_lane *lane);
/* Ends a lane that broke the rules or whose stream broke. */
void pd_xp_lane_fail(struct pd_xp_lane *lane, pd_status status);
void pd_xp_lane_tick(struct pd_xp_lane *lane, pd_time now);
/* False when the certificate of the other side is another node's. */
bool pd_xp_lane_is(const struct pd_xp_lane *lane, const struct pd_node_id *node);

/* out.c */
void pd_xp_lane_flush(struct pd_xp_lane *lane);
void pd_xp_lane_kick(struct pd_xp_lane *lane);
/* Queues a control frame with an optional payload, and fills in its sequence and
 * checksums.  Fails the lane when memory is short. */
void pd_xp_lane_control(struct pd_xp_lane *lane, struct pd_xp_head *h, const void *payload,
                        uint32_t len);

/* pack.c */
/* PD_OK, also without a codec; else err says why not. */
pd_status pd_xp_pack_open(struct pd_transport *tp, const struct pd_instance_ctx *ctx, struct pd_err *err);
void pd_xp_pack_close(struct pd_transport *tp);
void pd_xp_pack_offer(const struct pd_transport *tp, struct pd_xp_hello *hello);
bool pd_xp_pack_agrees(const struct pd_transport *tp, const struct pd_xp_hello *hello);
/* Puts a payload for [from, from + len) of segs into lane->pack_out and returns
 * its bytes; 0: they go plain. */
uint32_t pd_xp_pack_encode(struct pd_xp_lane *lane, const struct pd_transport_memory *memory,
                           const struct pd_xp_segs *segs, uint64_t from, uint32_t len);
/* May this header, with PD_XP_ENCODED, come on this lane? */
bool pd_xp_pack_allows(const struct pd_xp_lane *lane, const struct pd_xp_head *h);
/* The payload goes to lane->pack_in.  PD_OK, PD_ENOMEM. */
pd_status pd_xp_pack_begins(struct pd_xp_lane *lane);
/* The plain bytes that a payload claims to stand for; 0: not a number for a frame. */
uint32_t pd_xp_pack_plain(const struct pd_xp_lane *lane);
/* Decodes them to `to` of segs, where they must have room.  PD_OK, PD_EINTEGRITY. */
pd_status pd_xp_pack_decode(struct pd_xp_lane *lane, const struct pd_xp_segs *segs, uint64_t to);

/* Frames name pieces of memory instead of bringing bytes. */
static inline bool pd_xp_by_name(const struct pd_transport *tp)
{
    return tp->conf.kind != PD_XP_TCP;
}

/* in.c */
void pd_xp_lane_readable(struct pd_stream *s, void *arg);

/* share.c */
pd_status pd_xp_share_check(int fd, uint64_t end, struct pd_err *err);
void pd_xp_share_take(struct pd_xp_lane *lane, const struct pd_xp_head *h);
void pd_xp_share_forget(struct pd_xp_lane *lane, uint32_t id);
void pd_xp_share_drop_all(struct pd_xp_lane *lane);
/* The payload of a COPY frame for [from, from + *len) of a transfer, into buf of
 * PD_XP_SMALL bytes; *len is lowered when there are too many pieces. */
uint32_t pd_xp_share_describe(const struct pd_transfer *t, uint64_t from, uint32_t *len,
                              uint8_t *buf);
/* Reads such a payload: its data bytes in *bytes.  PD_OK, PD_EPROTO. */
pd_status pd_xp_share_read(const struct pd_xp_lane *lane, const uint8_t *buf, uint32_t n,
                           uint64_t *bytes);
/* Copies what a checked payload names to `to` of segs. */
void pd_xp_share_copy(const struct pd_xp_lane *lane, const uint8_t *buf, uint32_t n,
                      const struct pd_xp_segs *segs, uint64_t to);

#endif
