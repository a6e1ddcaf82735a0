/* SPDX-License-Identifier: Apache-2.0 */
/* The structs that the files of this folder share.
 *
 *   struct pd_kv         the plane: transports, regions, ways, hand-overs
 *   struct pd_kv_way     a transport's connection to one node; shared, kept
 *   struct pd_kv_dest    a destination; owns windows and a lease
 *   struct pd_kv_source  a source; uses one way, has posts in flight
 *
 * Each hand-over has a task.  Functions of the API only note what is to be done
 * and kick it; all callbacks to users come from there, from timers or from
 * transports. */
#ifndef PD_KV_PRIV_H
#define PD_KV_PRIV_H

#include "base/buf.h"
#include "base/list.h"
#include "kv/digest.h"
#include "kv/kv.h"
#include "kv/layout.h"
#include "kv/lease.h"
#include "kv/message.h"
#include "kv/plan.h"

#define PD_KV_SLICE (1024u * 1024u)     /* bytes digested per turn of the loop */
#define PD_KV_MAX_SEGMENTS (1u << 22)   /* of one window */
#define PD_KV_SPEEDS 64
#define PD_KV_VERDICTS (PD_KV_PEER_ABORTED + 1)

struct pd_kv_transport {
    const char *name;
    const struct pd_transport_ops *ops;
    struct pd_transport *instance;
    struct pd_transport_info info;
    struct pd_counter *metric_bytes;
    struct pd_counter *metric_result[PD_KV_VERDICTS];
};

struct pd_kv_region {
    char engine[64];
    struct pd_layout layout;
    uint32_t blocks;
    uint8_t *base;
    uint64_t bytes;
    struct pd_transport_memory *memory[PD_KV_MAX_TRANSPORTS]; /* NULL: not with this one */
};

/* Digesting in slices; the plane runs one slice per turn, in turn. */
struct pd_kv_job {
    struct pd_list node;
    /* Uses up to *budget bytes; true when there is nothing more to do now. */
    bool (*run)(struct pd_kv_job *job, uint64_t *budget);
};

struct pd_kv_speed {
    pd_peer_ref peer;
    uint64_t bytes_per_s;       /* moving average */
};

/* A transfer that has ended, as listings show it. */
struct pd_kv_ended {
    struct pd_kv_transfer_row row;
    pd_time opened_at;
};

struct pd_kv {
    struct pd_kv_conf conf;
    struct pd_kv_speed speeds[PD_KV_SPEEDS];
    uint32_t next_speed;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_kv_transport transports[PD_KV_MAX_TRANSPORTS];
    uint32_t n_transports;
    struct pd_kv_region *regions[PD_KV_MAX_REGIONS];
    uint32_t n_regions;
    struct pd_leases leases;
    struct pd_list ways;
    struct pd_list dests;
    struct pd_list sources;
    uint32_t n_ways;
    uint32_t n_dests;
    uint32_t n_sources;
    struct pd_list jobs;
    struct pd_task job_task;
    struct pd_task close_task;
    bool is_closing;
    void (*on_closed)(void *arg);
    void *on_closed_arg;
    struct pd_kv_ended *history;            /* a ring of ended ones */
    uint32_t history_n;
    uint32_t history_next;
    struct pd_histogram *metric_seconds;
    struct pd_counter *metric_digest_failures;
    struct pd_gauge *metric_inflight;
    uint64_t digest_failures;
    uint64_t results[2][PD_KV_VERDICTS];    /* inbound, outbound */
};

/* What both ends have. */
struct pd_kv_end {
    struct pd_list node;        /* in kv->dests or kv->sources */
    struct pd_kv *kv;
    struct pd_kv_region *region;
    struct pd_node_id peer_id;
    pd_peer_ref peer;
    char peer_name[64];
    char request_id[64];
    char transport[32];
    struct pd_task task;
    uint64_t xid;
    uint64_t generation;
    uint32_t from;
    uint32_t to;
    uint32_t wire_tokens;
    uint32_t n_wire;            /* wire blocks */
    uint64_t bytes_expected;
    uint64_t bytes;
    uint64_t *keys;             /* of digests; NULL: none are made */
    uint64_t *digests;          /* made here (source) or received (destination) */
    uint32_t n_digests;
    struct pd_kv_digester digester;
    bool has_digester;
    bool in_block;              /* the digester is in the middle of one */
    uint32_t at_block;          /* next wire block to digest */
    struct pd_kv_job job;
    pd_time opened_at;
    pd_time first_at;           /* 0: no byte yet */
    pd_time last_at;
    pd_time verify_ns;
    uint32_t verdict;           /* 0: undecided */
    pd_status status;
    bool is_silent;             /* nothing more is to be sent */
    bool is_verified;
    bool is_fenced;
    char reason[96];
};

enum pd_kv_dest_state {
    PD_DEST_OPEN,               /* bytes may land */
    PD_DEST_CLOSING,            /* windows are being closed */
    PD_DEST_VERIFYING,
    PD_DEST_ENDED
};

struct pd_kv_window {
    struct pd_kv_dest *dest;
    uint32_t transport;         /* index */
    struct pd_transport_window *window; /* NULL: closed */
    uint64_t landed;
    uint32_t blob_len;
    uint8_t blob[PD_KV_MAX_BLOB];
};

struct pd_kv_dest {
    struct pd_kv_end e;
    enum pd_kv_dest_state state;
    struct pd_kv_dest_events events;
    void *arg;
    struct pd_lease *lease;
    uint32_t *blocks;
    uint32_t n_blocks;
    struct pd_kv_window *windows;   /* PD_KV_GRANT_WAYS of them */
    uint32_t n_windows;
    uint32_t n_open;
    bool is_done;               /* DONE came */
    uint32_t done_way;
    bool tell_abort;
    uint8_t *have;              /* one bit per wire block whose digest came */
    struct pd_buf grant;
};

enum pd_kv_source_state {
    PD_SOURCE_CONNECTING,
    PD_SOURCE_MOVING,
    PD_SOURCE_WAITING,          /* DONE said, no verdict yet; the last posts may still move */
    PD_SOURCE_STOPPING,         /* transfers end, or are being canceled */
    PD_SOURCE_FENCING,          /* the way is being torn down */
    PD_SOURCE_ENDED
};

struct pd_kv_post {
    struct pd_list node;
    struct pd_kv_source *source;
    struct pd_transfer *transfer;
    uint64_t bytes;
};

struct pd_kv_candidate {
    uint32_t transport;         /* index */
    uint32_t way;               /* index in the grant */
    uint32_t address_len;
    uint32_t blob_len;
    uint8_t address[PD_PEER_MAX_ADDRESS];
    uint8_t blob[PD_KV_MAX_BLOB];
};

struct pd_kv_source {
    struct pd_kv_end e;
    enum pd_kv_source_state state;
    struct pd_kv_source_events events;
    void *arg;
    char host[128];
    struct pd_kv_candidate *candidates;
    uint32_t n_candidates;
    uint32_t at_candidate;
    struct pd_kv_way *way;
    bool made_way;              /* the way was let in by this source's grant */
    bool made_again;
    struct pd_list way_node;    /* in way->users */
    struct pd_transport_target *target;
    pd_time ttl;
    struct pd_timer timer;      /* renewals, and the wait for the verdict */
    uint32_t ready;             /* tokens [0, ready) may be read */
    uint32_t planned;           /* wire blocks that are in `plan` or posted */
    struct pd_kv_plan plan;     /* being posted */
    uint32_t plan_segment;
    uint64_t plan_offset;
    uint64_t posted;            /* bytes, also the next offset in the target */
    uint64_t in_flight;
    struct pd_list posts;
    bool is_blocked;            /* post said PD_EAGAIN */
    bool needs_fence;           /* a transfer ended unfenced */
    bool peer_aborted;          /* owes an ABORTED */
    bool tell_abort;
    uint32_t digests_sent;
    uint32_t *index;            /* room for block indices */
    uint32_t index_cap;
};

enum pd_kv_way_state {
    PD_WAY_CONNECTING,
    PD_WAY_UP,
    PD_WAY_CLOSING
};

struct pd_kv_way {
    struct pd_list node;
    struct pd_kv *kv;
    enum pd_kv_way_state state;
    uint32_t left;              /* PD_DISCONNECT_* asked for; 0: none */
    uint32_t transport;
    struct pd_node_id id;
    struct pd_transport_peer *tp;
    struct pd_list users;       /* sources */
    struct pd_timer timer;      /* connect timeout, then idle */
};

/* plane.c */
void pd_kv_job_start(struct pd_kv *kv, struct pd_kv_job *job);
void pd_kv_job_stop(struct pd_kv_job *job);
/* Something ended: a destroy in progress may go on. */
void pd_kv_check_closed(struct pd_kv *kv);
/* Fills the indices of usable transports to a peer, same host first; returns how many. */
uint32_t pd_kv_choose(struct pd_kv *kv, const struct pd_kv_region *region,
                      const struct pd_peer_info *peer, uint32_t out[PD_KV_MAX_TRANSPORTS]);
const struct pd_peer_transport *pd_kv_peer_transport(const struct pd_peer_info *peer,
                                                     const char *name);

/* end.c */
/* What both ends have in common: peer, names, range; after an error nothing is held. */
pd_status pd_kv_end_init(struct pd_kv_end *e, struct pd_kv *kv, struct pd_kv_region *region,
                         const struct pd_peer_info *peer, struct pd_str request_id);
/* Allocates keys and digests for the range and computes the keys; returns the tag. */
pd_status pd_kv_end_keys(struct pd_kv_end *e, const int32_t *tokens, bool digests, uint64_t *tag);
void pd_kv_end_fini(struct pd_kv_end *e);
/* Decides once; later calls change nothing. */
void pd_kv_end_decide(struct pd_kv_end *e, uint32_t verdict, pd_status status, const char *reason);
void pd_kv_end_moved(struct pd_kv_end *e);
/* Result, history, metrics, log line. */
void pd_kv_end_report(struct pd_kv_end *e, bool outbound, struct pd_kv_result *out);
void pd_kv_end_row(const struct pd_kv_end *e, bool outbound, const char *state,
                   struct pd_kv_transfer_row *row);

/* way.c */
/* The source joins the way to its current candidate, made when there is none. */
pd_status pd_kv_way_join(struct pd_kv_source *source);
void pd_kv_way_leave(struct pd_kv_source *source);
void pd_kv_way_fence(struct pd_kv_way *way);
void pd_kv_way_close(struct pd_kv_way *way);

/* dest.c */
pd_status pd_kv_dest_open(struct pd_kv *kv, const struct pd_kv_dest_params *params,
                          const struct pd_kv_dest_events *events, void *arg,
                          struct pd_kv_dest **out);
struct pd_str pd_kv_dest_grant(struct pd_kv_dest *dest);
pd_status pd_kv_dest_message(struct pd_kv_dest *dest, struct pd_str bytes);
void pd_kv_dest_renew(struct pd_kv_dest *dest);
void pd_kv_dest_abort(struct pd_kv_dest *dest, bool peer_gone);
const char *pd_kv_dest_state_text(const struct pd_kv_dest *dest);

/* source.c */
pd_status pd_kv_source_open(struct pd_kv *kv, const struct pd_kv_source_params *params,
                            const struct pd_kv_source_events *events, void *arg,
                            struct pd_kv_source **out, struct pd_err *err);
void pd_kv_source_push(struct pd_kv_source *source, uint32_t upto);
pd_status pd_kv_source_message(struct pd_kv_source *source, struct pd_str bytes);
void pd_kv_source_abort(struct pd_kv_source *source, bool peer_gone);
const char *pd_kv_source_state_text(const struct pd_kv_source *source);
/* From the way: it is up; it is gone; it takes posts again. */
void pd_kv_source_way_up(struct pd_kv_source *source);
void pd_kv_source_way_gone(struct pd_kv_source *source, pd_status status);
void pd_kv_source_way_writable(struct pd_kv_source *source);
void pd_kv_source_done(struct pd_kv_post *post, uint32_t terminal, uint64_t bytes);

#endif
