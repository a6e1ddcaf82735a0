/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the simulator share; nobody else includes this.
 *
 * Two worlds meet here.  The network (hosts' kernels, connections, packets)
 * goes on whatever the loops do: its events have node.loop NULL.  A loop's
 * events (timers, turns, works) have node.loop set; they wait while the loop
 * is busy or stopped, and vanish when it crashes. */
#ifndef PD_LOOP_SIM_IMPL_H
#define PD_LOOP_SIM_IMPL_H

#include "base/compiler.h"
#include "base/list.h"
#include "base/mem.h"
#include "loop/addr.h"
#include "loop/queue.h"
#include "loop/sim.h"

enum { SIM_HOSTS = 256, SIM_NAMES = 1024, SIM_NAME = 64, SIM_ADDRS = PD_RESOLVE_MAX };

/* What a queued node is (pd_loop_node.kind).  SIM_HELD is added while its loop
 * is stopped and the node stands in the loop's own queue. */
enum {
    SIM_TIMER = 1, SIM_TURN, SIM_WORK_RUN, SIM_WORK_DONE, SIM_PACKET, SIM_RETRY, SIM_AT,
    SIM_HELD = 0x100,
};

/* ---- chance */

struct sim_rng {
    uint64_t s[4];
};
void pd_loop_sim_rng_seed(struct sim_rng *r, uint64_t seed);
uint64_t pd_loop_sim_rng_next(struct sim_rng *r);
/* 0 to n - 1; n at least 1. */
uint64_t pd_loop_sim_rng_below(struct sim_rng *r, uint64_t n);
static inline bool sim_rng_ppm(struct sim_rng *r, uint32_t ppm)
{
    return ppm > 0 && pd_loop_sim_rng_below(r, 1000000) < ppm;
}

/* ---- a byte ring that grows up to what is put in */

struct sim_ring {
    uint8_t *p;
    size_t size, head, fill;
};
pd_status pd_loop_sim_ring_put(struct sim_ring *r, const void *data, size_t n);
/* Copies n bytes from `at` bytes behind the head; they must be there. */
void pd_loop_sim_ring_peek(const struct sim_ring *r, size_t at, void *out, size_t n);
void pd_loop_sim_ring_drop(struct sim_ring *r, size_t n);
void pd_loop_sim_ring_free(struct sim_ring *r);
/* Moves n bytes from `at` of one ring to the end of another; flip: one byte
 * of them is changed. */
pd_status pd_loop_sim_ring_copy(struct sim_ring *to, const struct sim_ring *from, size_t at,
                                size_t n, bool flip, struct sim_rng *rng);

/* ---- hosts and links */

struct sim_link {
    struct pd_sim_link conf;
    bool is_set, is_cut;
    uint32_t flips;             /* segments still to change */
    pd_time busy_until;         /* the last byte sent leaves then */
};

struct sim_loop;

struct sim_host {
    struct pd_sim *sim;
    uint32_t index;
    char name[SIM_NAME];
    struct pd_addr ip;          /* port 0 */
    struct sim_loop *loop;      /* NULL: down */
    uint32_t life;              /* which start of the host this is */
    bool is_silent;             /* down, and nothing answers for it */
    uint16_t next_port;
    struct sim_link *links;     /* to host i */
};

struct sim_name {
    char name[SIM_NAME];
    struct pd_addr ip;
};

/* ---- connections */

struct sim_stream;
struct sim_conn;

/* One direction.  Offsets count bytes; the end of the direction (FIN) has the
 * offset `written` and counts as one. */
struct sim_dir {
    struct sim_ring snd;        /* sender: bytes acked..written */
    uint64_t acked, next, written, edge;
    bool fin;                   /* the sender will write no more */
    struct sim_ring rcv;        /* receiver: taken and not yet read */
    uint64_t got, advertised;
    bool got_fin;
    pd_time last_arrival;       /* packets of a direction keep their order */
    pd_time heard;              /* the sender last heard of the receiver, or began */
    pd_time armed_at, rto;
    struct pd_loop_node retry;  /* kind SIM_RETRY */
};

/* One end, as the host's kernel knows it. */
struct sim_end {
    struct sim_host *host;      /* NULL: no such host */
    struct pd_addr addr;
    bool is_open;               /* the kernel answers for it */
    bool is_orphan;             /* the owner has closed it */
    pd_status failure;          /* not PD_OK: reset or timed out */
    struct sim_stream *s;
    struct pd_listener *listener;   /* waits there to be accepted */
    struct pd_list waiting;
    pd_time user_timeout;
};

struct sim_conn {
    struct pd_sim *sim;
    struct pd_list link;        /* in sim->conns */
    uint64_t id;
    uint32_t refs;              /* open ends, streams, packets, running retries */
    bool is_established, is_half_open;
    pd_time began;
    struct sim_end end[2];      /* 0 dialled */
    struct sim_dir dir[2];      /* dir[i] carries what end i sends */
};

enum { SIM_SYN, SIM_SYNACK, SIM_DATA, SIM_ACK, SIM_RST };

struct sim_packet {
    struct pd_loop_node node;
    struct sim_conn *c;
    struct sim_packet *next_free;
    uint8_t type, from;
    bool fin;
    uint32_t len;
    uint64_t off;               /* data: first byte; ack: next byte wanted */
    uint64_t edge;              /* ack: how far the sender may go */
};

/* ---- streams and listeners, as their loop knows them */

enum { SIM_CONNECTING, SIM_OPEN, SIM_CLOSED };

struct sim_stream {
    struct pd_stream base;      /* first */
    struct pd_list link;        /* in loop->streams */
    struct pd_list ready;       /* in loop->ready */
    const struct pd_stream_events *ev;
    void *arg;
    struct sim_conn *c;
    uint8_t side, state;
    bool is_paused, read_ended, wants_write, told_hangup, did_shutdown, lingers_reset;
    bool tell_connected;
    pd_status connect_status;
    uint64_t notsent_lowat;
};

struct pd_listener {
    struct sim_loop *l;
    struct pd_list link;        /* in loop->listeners */
    const char *name;
    struct pd_addr addr;
    uint32_t backlog, waiting_count;
    struct pd_list waiting;     /* of struct sim_end */
    bool is_paused, is_closed;
    pd_accept_cb on_accept;
    void *arg;
};

struct sim_loop {
    struct pd_loop base;        /* first */
    struct pd_sim *sim;
    struct sim_host *host;
    struct sim_rng rng;
    struct pd_loop_queue held;  /* events that wait while the loop is stopped */
    struct pd_loop_node turn;
    pd_time last_turn, busy_until, turn_cost;
    bool is_stopped, in_turn;
    struct pd_task posted, deferred, later, running;    /* list heads */
    uint32_t turn_number;
    uint64_t tasks;
    struct pd_list streams, ready, listeners, dead_listeners, workqs, lookups;
    uint64_t closing;
    struct pd_loop_stats st;
};

struct pd_sim {
    uint64_t seed;
    struct pd_sim_opts opts;
    pd_time now;
    uint64_t seq, next_conn;
    struct pd_loop_queue queue;
    struct sim_rng net, faults;
    struct sim_host *hosts[SIM_HOSTS];
    uint32_t host_count;
    struct sim_name *names;
    uint32_t name_count;
    uint64_t operations, refuse_at;     /* so far; the one that fails, 0: none */
    pd_status resolver;         /* PD_OK, or why lookups of names fail */
    struct pd_list conns;
    struct sim_packet *free_packets;
    uint64_t hash, lines;
};

static inline struct sim_loop *sim_of(struct pd_loop *loop) { return (struct sim_loop *)loop; }

/* Queues a node; loop NULL for the network's. */
void pd_loop_sim_schedule(struct pd_sim *sim, struct pd_loop_node *n, uint32_t kind,
                          struct sim_loop *l, pd_time due);
/* Takes it out again, wherever it stands. */
void pd_loop_sim_unschedule(struct pd_sim *sim, struct pd_loop_node *n);
/* Sees to it that the loop has a turn soon. */
void pd_loop_sim_wake(struct sim_loop *l);
/* Runs fn's effects as part of a turn of l. */
void pd_loop_sim_turn_begin(struct sim_loop *l);
void pd_loop_sim_turn_end(struct sim_loop *l);

/* One event of the log: who (a host or NULL), what happened, to which
 * thing, and two numbers. */
void pd_loop_sim_log(struct pd_sim *sim, const struct sim_host *host, const char *what,
                     const char *name, uint64_t a, uint64_t b);

/* sim.c */
struct sim_host *pd_loop_sim_host_by_name(struct pd_sim *sim, const char *name);

/* sim_fault.c */
/* Counts an operation of a loop: PD_OK, or one of the n ways in which it may end
 * when it is the one that fails. */
pd_status pd_loop_sim_admit(struct sim_loop *l, const char *what, const pd_status *ends, size_t n);
#define SIM_ADMIT(l, what, ...)                                                \
    pd_loop_sim_admit(l, what, (const pd_status[]){ __VA_ARGS__ },             \
                      sizeof((const pd_status[]){ __VA_ARGS__ }) / sizeof(pd_status))
/* The same for an operation of an open stream, which is lost then. */
pd_status pd_loop_sim_stream_admit(struct sim_stream *s, const char *what);

/* sim_net.c */
/* What holds for the link now: its own record, or the default. */
const struct pd_sim_link *pd_loop_sim_link_conf(struct sim_host *from, struct sim_host *to);
struct sim_host *pd_loop_sim_host_by_ip(struct pd_sim *sim, struct sim_host *from,
                                        const struct pd_addr *ip);
void pd_loop_sim_packet_arrive(struct pd_sim *sim, struct pd_loop_node *n);
void pd_loop_sim_packet_free(struct pd_sim *sim, struct pd_loop_node *n);
void pd_loop_sim_retry(struct pd_sim *sim, struct pd_loop_node *n);
/* sim_conn.c, and sim_net.c for pump and has_read */
struct sim_conn *pd_loop_sim_conn_open(struct sim_stream *s, const struct pd_addr *to);
void pd_loop_sim_conn_unref(struct sim_conn *c);
void pd_loop_sim_conn_free(struct sim_conn *c);
/* Sends what may be sent of what end i has written. */
void pd_loop_sim_conn_pump(struct sim_conn *c, uint8_t i);
/* The owner of end i has read: tells the peer when its window grew enough. */
void pd_loop_sim_conn_has_read(struct sim_conn *c, uint8_t i);
/* The owner of end i closes; is_reset: with a reset. */
void pd_loop_sim_conn_close(struct sim_conn *c, uint8_t i, bool is_reset);
/* Ends end i with an error for its owner; tells the peer nothing. */
void pd_loop_sim_conn_fail(struct sim_conn *c, uint8_t i, pd_status st);
void pd_loop_sim_conn_send_reset(struct sim_conn *c, uint8_t i);
/* The host's kernel forgets all its connections; tell_peers: with resets. */
void pd_loop_sim_net_forget_host(struct sim_host *h, bool tell_peers);

/* sim_stream.c */
pd_status pd_loop_sim_connect(struct pd_loop *loop, const struct pd_addr *to,
                              const struct pd_stream_events *ev, void *arg, struct pd_stream **out);
pd_status pd_loop_sim_adopt(struct pd_loop *loop, int fd, const struct pd_stream_events *ev,
                            void *arg, struct pd_stream **out);
/* Something about the stream changed that its owner may want to hear. */
void pd_loop_sim_stream_ready(struct sim_stream *s);
/* A stream of this end without a connection yet; NULL: no memory. */
struct sim_stream *pd_loop_sim_stream_make(struct sim_loop *l, uint8_t side, uint8_t state);
/* An accepted one, behind on_accept: closed when nobody took it. */
void pd_loop_sim_stream_begin(struct sim_stream *s);
/* Accepts and delivers what is ready; part of a turn. */
void pd_loop_sim_streams_turn(struct sim_loop *l);
/* Frees streams and listeners without a word. */
void pd_loop_sim_streams_drop(struct sim_loop *l);

/* sim_listen.c */
pd_status pd_loop_sim_listener_open(struct pd_loop *loop, const struct pd_addr *addr,
                                    const struct pd_listener_opts *opts, pd_accept_cb on_accept,
                                    void *arg, struct pd_listener **out);
pd_status pd_loop_sim_listener_addr(struct pd_loop *loop, struct pd_listener *s,
                                    struct pd_addr *out);
void pd_loop_sim_listener_pause(struct pd_loop *loop, struct pd_listener *s, bool paused);
void pd_loop_sim_listener_close(struct pd_loop *loop, struct pd_listener *s);
struct pd_listener *pd_loop_sim_listener_find(struct sim_loop *l, const struct pd_addr *addr);
/* Accepts all that waits where accepting is not paused. */
void pd_loop_sim_listeners_accept(struct sim_loop *l);
/* Frees those that were closed. */
void pd_loop_sim_listeners_closed(struct sim_loop *l);
void pd_loop_sim_listeners_drop(struct sim_loop *l);

/* sim_work.c */
pd_status pd_loop_sim_workq_create(struct pd_loop *loop, const struct pd_workq_opts *opts,
                                   struct pd_workq **out);
void pd_loop_sim_workq_close(struct pd_loop *loop, struct pd_workq *q, void (*on_closed)(void *arg),
                             void *arg);
pd_status pd_loop_sim_work_submit(struct pd_loop *loop, struct pd_workq *q, struct pd_work *work);
bool pd_loop_sim_work_cancel(struct pd_loop *loop, struct pd_work *work);
void pd_loop_sim_work_run(struct sim_loop *l, struct pd_loop_node *n);
void pd_loop_sim_work_done(struct sim_loop *l, struct pd_loop_node *n);
pd_status pd_loop_sim_resolve(struct pd_loop *loop, const char *host, uint16_t port,
                              struct pd_resolve *r);
void pd_loop_sim_resolve_cancel(struct pd_loop *loop, struct pd_resolve *r);
/* Names of open queues and lookups; count of them. */
uint64_t pd_loop_sim_work_names(struct sim_loop *l, char *names, size_t size);
void pd_loop_sim_work_drop(struct sim_loop *l);

/* sim_loop.c */
/* Gives a loop for the host, which is up from then on. */
pd_status pd_loop_sim_loop_make(struct sim_host *h, struct pd_loop **out);
/* The event that n is happens on its loop. */
void pd_loop_sim_loop_event(struct sim_loop *l, struct pd_loop_node *n, uint32_t kind);
/* Frees the loop and all it has, without callbacks. */
void pd_loop_sim_loop_free(struct sim_loop *l);

#endif
