/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the HTTP client share: client > origins > connections, and
 * calls that are on a connection or wait at their origin. */
#ifndef PD_NET_CLIENT_INT_H
#define PD_NET_CLIENT_INT_H

#include "base/list.h"
#include "base/map.h"
#include "net/client.h"

#define PD_HTTP_CALL_IOV 60
#define PD_HTTP_CALL_FEW 2              /* runs of a body for which nothing is allocated */
#define PD_HTTP_CLIENT_SCRATCH (64 * 1024)
#define PD_HTTP_CLIENT_POOL 256

struct pd_http_origin {
    struct pd_http_client *client;
    struct pd_addr addr;
    struct pd_tls *tls;         /* NULL: plain */
    struct pd_list idle;        /* the most recently used first */
    struct pd_list waiting;     /* calls */
    struct pd_list ways;        /* that know it; they are told when it goes */
    size_t n_conns, n_idle, n_waiting;
    uint32_t depth;             /* functions on the stack that still need it */
    size_t key_n;
    char key[400];
};

enum pd_http_link_state {
    PD_HTTP_LINK_CONNECTING = 0,
    PD_HTTP_LINK_BUSY,
    PD_HTTP_LINK_IDLE,
    PD_HTTP_LINK_CLOSED
};

/* One connection to an origin. */
struct pd_http_link {
    struct pd_list link;        /* in origin->idle */
    struct pd_list all;         /* in client->links */
    struct pd_http_origin *origin;
    struct pd_stream *stream;
    struct pd_http_call *call;
    struct pd_timer timer;
    struct pd_task task;
    pd_time since;              /* begin of the state, or last progress */
    pd_time armed;
    pd_status why;              /* of is_dead */
    uint8_t state;
    bool is_dead;
    bool is_reused;
    bool is_paused;
};

/* Method, host and headers of calls that are alike. */
struct pd_http_way {
    struct pd_list link;        /* in origin->ways */
    struct pd_http_client *client;
    struct pd_http_origin *origin;  /* NULL: to be looked up */
    struct pd_addr addr;
    struct pd_tls *tls;
    struct pd_str host;         /* stands in head */
    enum pd_http_method method;
    struct pd_buf head;         /* as far as it is the same for all */
};

struct pd_http_call {
    struct pd_list link;        /* in origin->waiting, or in the pool */
    struct pd_http1 parser;
    struct pd_buf head;         /* request line and headers */
    /* From here on everything is zero in the pool. */
    struct pd_http_client *client;
    struct pd_http_origin *origin;
    struct pd_http_link *conn;  /* NULL: waiting */
    const struct pd_http_call_events *ev;
    void *arg;
    struct pd_iov *body;        /* few, or allocated */
    struct pd_iov few[PD_HTTP_CALL_FEW];
    size_t n_body;
    uint64_t total;             /* bytes of the request */
    uint64_t sent;
    pd_time connect_ns, first_byte_ns, idle_ns;
    bool is_head;
    bool can_replay;
    bool was_replayed;
    bool got_bytes;
    bool has_head;              /* on_head was called */
    bool is_paused;
    bool was_reused;
};

struct pd_http_client {
    struct pd_loop *loop;
    struct pd_http_client_opts opts;
    struct pd_http_client_stats stats;
    struct pd_stream_events events;
    struct pd_strmap origins;
    struct pd_list links;
    size_t n_links;
    uint64_t n_closing;
    struct pd_list call_pool;
    size_t n_call_pool;
    struct pd_task task;
    void (*on_closed)(void *arg);
    void *closed_arg;
    bool is_closing;
    char *scratch;
};

/* client_link.c */
void pd_http_link_stream_events(struct pd_http_client *c);
/* Begins a connection for call.  PD_OK or what pd_stream_connect gives. */
pd_status pd_http_link_open(struct pd_http_origin *o, struct pd_http_call *call);
/* Gives an idle or fresh connection a call, and sends. */
void pd_http_link_assign(struct pd_http_link *l, struct pd_http_call *call);
/* Closes without a word to the call, which it forgets. */
void pd_http_link_close(struct pd_http_link *l);
void pd_http_link_update_read(struct pd_http_link *l);
/* The answer is complete; behind says whether bytes follow it. */
void pd_http_link_complete(struct pd_http_link *l, bool behind);
/* The connection has ended before the answer was complete; the call is sent again or fails. */
void pd_http_link_broken(struct pd_http_link *l, pd_status why);
void pd_http_link_touch(struct pd_http_link *l);
/* Sets the timer to the limit that holds, when that is sooner. */
void pd_http_link_arm(struct pd_http_link *l);
/* The same when the limit that holds is `delay` behind l->since. */
static inline void pd_http_link_arm_in(struct pd_http_link *l, pd_time delay)
{
    if (l->since + delay < l->armed || !pd_timer_is_active(&l->timer))
        pd_http_link_arm(l);
}

/* client_read.c */
/* As on_readable of its stream. */
void pd_http_link_readable(struct pd_stream *stream, void *arg);

/* client_call.c */
/* The call is over: tells its owner, then frees it. */
void pd_http_call_fail(struct pd_http_call *call, pd_status why);
void pd_http_call_done(struct pd_http_call *call);
void pd_http_call_free(struct pd_http_call *call);

/* client.c */
struct pd_http_origin *pd_http_origin_get(struct pd_http_client *c, const struct pd_addr *addr,
                                          struct pd_str host, struct pd_tls *tls, pd_status *why);
/* A connection has gone or become free: serves who waits, frees the origin
 * when nobody needs it. */
void pd_http_origin_pump(struct pd_http_origin *o);
void pd_http_client_link_gone(struct pd_http_client *c);
/* No way knows it any more. */
void pd_http_origin_forget_ways(struct pd_http_origin *o);
/* Whether one more connection may be opened; a kept one of another origin makes
 * room. */
bool pd_http_client_has_room(struct pd_http_client *c);

#endif
