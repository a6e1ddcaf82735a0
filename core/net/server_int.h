/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the HTTP server share.
 *
 * A connection (conn) carries one request at a time.  While a request is with
 * its handler, later bytes wait in the stash; the next request begins when the
 * answer has left.  So answers come in order and at most one is open. */
#ifndef PD_NET_SERVER_INT_H
#define PD_NET_SERVER_INT_H

#include "base/arena.h"
#include "base/list.h"
#include "net/keys.h"
#include "net/server.h"

#define PD_HTTP_SCRATCH (64 * 1024)     /* one read, shared by all connections */
#define PD_HTTP_PLACE (512 * 1024)      /* memory behind it: a body that begins in a read and fits
                                           keeps the memory, the next read gets other */
#define PD_HTTP_FIRST (16 * 1024)       /* one read where a request may begin: what of a longer body
                                           is copied to its place */
#define PD_HTTP_STASH (64 * 1024)       /* pipelined bytes that may wait */
#define PD_HTTP_PIPELINE 16             /* requests of one connection served in a row */
#define PD_HTTP_DISCARD (64 * 1024)     /* body that nobody asked for */
#define PD_HTTP_DIRECT (16 * 1024)      /* pieces from here on are not copied to coalesce */
#define PD_HTTP_BODY_STEP (16 * 1024)
#define PD_HTTP_LINGER_BYTES (1024 * 1024)
#define PD_HTTP_MAX_IOV 32
#define PD_HTTP_MAX_ROUTES 256
#define PD_HTTP_MAX_LISTENERS 16
#define PD_HTTP_POOL 256                /* objects kept for the next use */
#define PD_HTTP_KEEP_BODY (16 * 1024)   /* a request in the pool keeps a body's memory up to this */
#define PD_HTTP_BODIES 16               /* larger ones that the server keeps */
#define PD_HTTP_BODIES_BYTES (8 * 1024 * 1024)

enum pd_http_conn_state {
    PD_HTTP_CONN_IDLE = 0,
    PD_HTTP_CONN_READING,
    PD_HTTP_CONN_SERVING,
    PD_HTTP_CONN_LINGER,        /* our side is shut, the client's bytes are dropped */
    PD_HTTP_CONN_CLOSED         /* the stream is closing */
};

/* What holds for the connections that came by a listener; it is there until the
 * last of them has gone. */
struct pd_http_door {
    struct pd_tls *tls;         /* NULL: plain */
    struct pd_keys *keys;       /* NULL: none needed */
    size_t n_conns;
    bool is_closed;             /* nobody comes by it any more; who is idle goes */
    pd_time closed_at;
};

/* An open listener. */
struct pd_http_port {
    struct pd_http_server *server;
    struct pd_listener *listener;   /* NULL: a free place */
    struct pd_addr addr;            /* that was asked for */
    struct pd_http_door *door;      /* of new connections */
    struct pd_http_door *spare;     /* memory for the next one */
};

struct pd_http_conn {
    struct pd_list link;
    struct pd_http_server *server;
    struct pd_stream *stream;
    struct pd_http_door *door;  /* that it came by; NULL: by none */
    struct pd_http_req *req;
    struct pd_buf stash;
    struct pd_timer timer;
    struct pd_task task;
    pd_time since;              /* begin of the state, or last input of a body */
    pd_time armed;              /* what the timer is set to */
    uint32_t linger_bytes;
    uint32_t body_bytes;        /* since `since` was moved */
    pd_status why;              /* of is_dead */
    uint8_t state;
    bool is_dead;               /* the task buries it */
    bool in_process;
    bool eof;                   /* the client has ended its sending */
    bool is_paused;             /* the stream's reading */
};

struct pd_http_req {
    struct pd_list link;        /* in the pool */
    struct pd_http1 parser;
    struct pd_arena arena;
    struct pd_buf out;          /* what the socket has not taken */
    char *body;
    size_t body_cap;
    char *body_memory;          /* the allocation that body stands in */
    char id[65];
    char *label;                /* of the key, PD_KEYS_LABEL + 1 bytes, in the pool empty; NULL until
                                   a key has one */
    /* From here on everything is zero in the pool, but the deadline. */
    struct pd_http_conn *conn;
    size_t body_n;
    const struct pd_http_req_events *ev;
    void *arg;
    pd_time start;
    pd_time deadline;           /* PD_TIME_NEVER: none */
    pd_time progress;           /* last time the socket took something */
    uint64_t left;              /* bytes of a known length still to be written */
    uint64_t counted;           /* part of out in stats.queued_bytes */
    uint64_t held;              /* part of body in stats.body_bytes */
    uint32_t status;
    uint32_t deny;              /* answer this once the body is through */
    uint32_t allow;             /* methods, for 405 */
    uint32_t route_flags;
    uint32_t route;             /* where it was found, as long as the routes are the same */
    uint64_t routes_serial;
    uint8_t id_n;
    bool id_is_given;           /* by the client */
    bool is_stream;             /* the body goes to on_body */
    bool discard;
    bool has_head;
    bool body_done;             /* the request has been read whole */
    bool is_dispatched;
    bool is_ended;              /* the answer is complete, or nobody waits for it */
    bool has_begun;
    bool is_chunked;
    bool no_body;               /* HEAD, 204, 304 */
    bool keep;                  /* decided with the head of the answer */
    bool close_after;
    bool above_high;
    bool want_flush;
    bool own_flush;             /* the handler flushes, the turn's end does not */
    bool want_drain;
    bool is_paused;             /* by the handler */
};

struct pd_http_server {
    struct pd_loop *loop;
    struct pd_http_server_opts opts;
    struct pd_http_server_stats stats;
    struct pd_stream_events events;
    struct pd_http_route routes[PD_HTTP_MAX_ROUTES];
    size_t path_n[PD_HTTP_MAX_ROUTES];  /* bytes of their paths */
    size_t n_routes;
    uint64_t routes_serial;     /* goes up with each change of them */
    struct pd_http_port ports[PD_HTTP_MAX_LISTENERS];
    struct pd_list conns;
    size_t n_conns;
    struct pd_list conn_pool;
    size_t n_conn_pool;
    struct pd_list req_pool;
    size_t n_req_pool;
    struct { char *p; size_t cap; } bodies[PD_HTTP_BODIES]; /* the last one was used last */
    size_t n_bodies, bodies_bytes;
    struct pd_task task;
    void (*on_drained)(void *arg);
    void *drained_arg;
    void (*on_closed)(void *arg);
    void *closed_arg;
    char id_prefix[16];         /* the first half of ids that we make */
    uint64_t id_seed, id_next;
    char front[72];             /* how most answers begin */
    pd_time front_until;        /* then the date in it is another */
    bool is_draining;
    pd_time drained_at;
    bool is_closing;
    struct pd_buf text;         /* for one error body at a time */
    struct pd_buf spare;        /* the queue of whoever writes next and has none */
    char *scratch;              /* PD_HTTP_PLACE bytes, of which most are never touched */
};

/* The gauge of connections in a state. */
static inline uint64_t *pd_http_conn_gauge(struct pd_http_server *s, unsigned state)
{
    switch (state) {
    case PD_HTTP_CONN_IDLE:
        return &s->stats.conns_idle;
    case PD_HTTP_CONN_READING:
        return &s->stats.conns_reading;
    case PD_HTTP_CONN_SERVING:
        return &s->stats.conns_serving;
    default:
        return &s->stats.conns_closing;
    }
}

/* The same with the state that the connection is known to have. */
static inline void pd_http_conn_change(struct pd_http_conn *c, unsigned from, unsigned to)
{
    --*pd_http_conn_gauge(c->server, from);
    ++*pd_http_conn_gauge(c->server, to);
    c->state = (uint8_t)to;
    c->since = pd_loop_now(c->server->loop);
}

static inline void pd_http_conn_set_state(struct pd_http_conn *c, unsigned state)
{
    pd_http_conn_change(c, c->state, state);
}

/* Whether bytes of the connection may be parsed now. */
static inline bool pd_http_conn_can_process(const struct pd_http_conn *c)
{
    return !c->is_dead && c->state <= PD_HTTP_CONN_SERVING &&
           (c->req == NULL || !(c->req->body_done || (c->req->is_ended && !c->req->keep)));
}

/* Whether the connection shall go once it is idle. */
static inline bool pd_http_conn_is_leaving(const struct pd_http_conn *c)
{
    return c->server->is_draining || (c->door != NULL && c->door->is_closed);
}

/* Whether all that the server may hold for others is held. */
static inline bool pd_http_server_is_full(const struct pd_http_server *s)
{
    return s->opts.max_held != 0 && s->stats.body_bytes + s->stats.queued_bytes >= s->opts.max_held;
}

/* server_conn.c */
pd_status pd_http_conn_open(struct pd_http_server *s, struct pd_stream *stream,
                            struct pd_http_door *door, bool refuse);
/* Ends the connection now; its memory goes with on_closed. */
void pd_http_conn_close(struct pd_http_conn *c);
/* Ends it at the end of this turn, telling the handler why. */
void pd_http_conn_fail(struct pd_http_conn *c, pd_status why);
/* Runs the task at the end of this turn. */
void pd_http_conn_wake(struct pd_http_conn *c);
/* Reading is on unless the handler, the stash or an end of input says no. */
void pd_http_conn_switch_read(struct pd_http_conn *c);
static inline void pd_http_conn_update_read(struct pd_http_conn *c)
{
    if (c->is_paused || c->eof || c->stash.n >= PD_HTTP_STASH || (c->req != NULL && c->req->is_paused))
        pd_http_conn_switch_read(c);
}
/* The answer has left: next request, linger or close. */
void pd_http_conn_answered(struct pd_http_conn *c);
void pd_http_conn_stream_events(struct pd_http_server *s);

/* server_time.c */
/* Sets the timer to the nearest of the limits that hold now. */
void pd_http_conn_arm(struct pd_http_conn *c);
/* The same when the limit that came last is `due`. */
static inline void pd_http_conn_arm_at(struct pd_http_conn *c, pd_time due)
{
    if (due < c->armed || !pd_timer_is_active(&c->timer))
        pd_http_conn_arm(c);
}
void pd_http_conn_on_timer(struct pd_timer *timer, void *arg);

/* server_message.c */
/* A request begins; false: there is no memory for it. */
bool pd_http_conn_begin_req(struct pd_http_conn *c);
/* Parses what it may of n bytes; returns how many were used. */
size_t pd_http_conn_process(struct pd_http_conn *c, const char *p, size_t n);

/* server_body.c */
/* A piece of the body has come. */
void pd_http_conn_on_piece(struct pd_http_conn *c, struct pd_str piece);
/* n bytes have been added to the body.  False: too much, the answer says so. */
bool pd_http_req_hold(struct pd_http_req *req, size_t n);
/* n bytes of a body have come, for its limit in time. */
void pd_http_conn_note_body(struct pd_http_conn *c, size_t n);

/* server_answer.c */
/* Writes what is queued; calls pd_http_conn_answered when that was all. */
void pd_http_req_flush(struct pd_http_req *req);
void pd_http_req_continue(struct pd_http_req *req);
void pd_http_req_note_queue(struct pd_http_req *req);
/* The handler is told once; after it nobody but the server uses req. */
void pd_http_req_gone(struct pd_http_req *req, pd_status why);

/* server_head.c */
/* Queues a head; PD_OK or PD_ENOMEM, with half of one queued. */
pd_status pd_http_req_put_head(struct pd_http_req *req, uint32_t status,
                               const struct pd_http_header *headers, size_t n, uint64_t length);
/* The same with the headers of another server's answer. */
pd_status pd_http_req_pass_head(struct pd_http_req *req, const struct pd_http_head *answer,
                                uint64_t length);

/* server_error.c */
/* Answers for a refusal of the parser, or another error of the server's own. */
void pd_http_req_refuse(struct pd_http_req *req, enum pd_http_reject reject);
void pd_http_req_fail(struct pd_http_req *req, uint32_t status, const char *code,
                      const char *message);
/* Too much is held for others: 503, and the connection closes. */
void pd_http_req_overload(struct pd_http_req *req);

/* server_req.c */
struct pd_http_req *pd_http_req_get(struct pd_http_server *s);
void pd_http_req_put(struct pd_http_server *s, struct pd_http_req *req);
void pd_http_req_free(struct pd_http_req *req);
/* Memory for a body of n bytes: *cap is its size; NULL: none is left. */
char *pd_http_body_get(struct pd_http_server *s, size_t n, size_t *cap);
/* Takes a body's memory back. */
void pd_http_body_put(struct pd_http_server *s, char *p, size_t cap);
/* Chooses what the ids of this server's requests are made of. */
void pd_http_server_seed_ids(struct pd_http_server *s);
void pd_http_req_new_id(struct pd_http_req *req);
/* Makes sure that req->id is set. */
static inline void pd_http_req_make_id(struct pd_http_req *req)
{
    if (req->id_n == 0)
        pd_http_req_new_id(req);
}

/* server.c */
const struct pd_http_route *pd_http_server_find(const struct pd_http_server *s,
                                                struct pd_str path, enum pd_http_method method,
                                                uint32_t *allowed);
void pd_http_server_conn_gone(struct pd_http_server *s);
/* A connection that came by it has gone; NULL is allowed. */
void pd_http_door_left(struct pd_http_door *door);
/* Since when one that is leaving is. */
pd_time pd_http_conn_left_at(const struct pd_http_conn *c);

#endif
