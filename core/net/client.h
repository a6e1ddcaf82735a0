/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1.1 client on one loop: a pool of kept connections per origin, calls
 * with streamed answers, strict parsing, and errors that say how far a call got.
 *
 * A call is the client's.  Its owner may use it until on_end or on_error is
 * called, or until it cancels; one of them always happens.  No callback is ever
 * called from inside a function of this header.  Everything runs on the loop's
 * thread. */
#ifndef PD_NET_CLIENT_H
#define PD_NET_CLIENT_H

#include "net/http1.h"

#include <pdplane/loop.h>

struct pd_http_client;
struct pd_http_call;

struct pd_http_client_opts {
    size_t size;                /* sizeof(struct pd_http_client_opts) */
    const char *name;           /* static string, for the loop's handles; NULL: "http client" */
    uint32_t max_origins;       /* 0: 1024 */
    uint32_t max_conns;         /* per origin, 0: 1024 */
    uint32_t max_idle;          /* kept per origin, 0: 64 */
    uint32_t max_waiting;       /* calls that wait for a connection, per origin, 0: 1024 */
    uint64_t body_limit;        /* of an answer, 0: 1 GiB */
    pd_time connect_ns;         /* 0: 5 s */
    pd_time first_byte_ns;      /* request sent to first byte, 0: 60 s */
    pd_time idle_ns;            /* between two pieces of an answer, 0: 60 s */
    pd_time keep_ns;            /* an unused connection is kept, 0: 60 s */
};

/* How far a call got before it failed; decides about a retry. */
enum pd_http_fail {
    PD_HTTP_FAIL_CONNECT = 1,   /* nothing was sent */
    PD_HTTP_FAIL_SENT,          /* at least a part was sent, nothing came back */
    PD_HTTP_FAIL_HEAD,          /* a part of the head came back, or it was malformed */
    PD_HTTP_FAIL_BODY,          /* on_head was called */
};

/* "connect", "sent", "head", "body". */
const char *pd_http_fail_name(enum pd_http_fail fail);

struct pd_http_call_events {
    /* Members other than on_end and on_error may be NULL. */
    /* The head, borrowed until on_end or on_error returns.  1xx are left out. */
    void (*on_head)(struct pd_http_call *call, const struct pd_http_head *head, void *arg);
    /* A piece of the body without its framing, borrowed during the call. */
    void (*on_body)(struct pd_http_call *call, struct pd_str piece, void *arg);
    /* The answer is complete; call is gone when it returns. */
    void (*on_end)(struct pd_http_call *call, void *arg);
    /* It is not, and will not be; call is gone when it returns.  why:
     * PD_ETIMEDOUT, PD_EPEER, PD_EPROTO (malformed), PD_ELIMIT, PD_ENOMEM,
     * PD_ECANCELED (the client closes) or what the connecting gave. */
    void (*on_error)(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg);
};

struct pd_http_call_opts {
    size_t size;                /* sizeof(struct pd_http_call_opts) */
    struct pd_addr addr;        /* where to connect; the origin is (addr, host) */
    struct pd_str host;         /* Host, such as "10.0.0.1:8000"; 255 bytes at most */
    enum pd_http_method method;
    struct pd_str target;       /* "/v1/completions"; no blanks, no control bytes */
    const struct pd_http_header *headers;   /* without Host, Content-Length, Connection */
    size_t n_headers;
    /* The body in runs (at most 60).  The runs are copied, their bytes are lent
     * until on_end, on_error or the return of pd_http_call_cancel. */
    const struct pd_iov *body;
    size_t n_body;
    /* 1: may be sent again when a kept connection turns out to be closed and
     * nothing came back.  GET and HEAD always may. */
    uint32_t is_replayable;
    uint32_t fresh;             /* 1: never on a kept connection */
    pd_time connect_ns;         /* 0: the client's */
    pd_time first_byte_ns;
    pd_time idle_ns;
    uint64_t body_limit;
};

struct pd_http_client_stats {
    uint64_t calls;
    uint64_t ok;                /* ended whole, whatever the status */
    uint64_t canceled;
    uint64_t failed[5];         /* by enum pd_http_fail */
    uint64_t connects;
    uint64_t reused;
    uint64_t stale_retries;     /* sent again on a fresh connection */
    uint64_t extra_bytes;       /* connections closed for bytes behind an answer */
    uint64_t rejects[PD_HTTP_REJECTS];
    uint64_t connect_timeouts;
    uint64_t first_byte_timeouts;
    uint64_t idle_timeouts;
    uint64_t kept_expired;
    uint64_t waited;            /* calls that waited for a connection */
    uint64_t refused;           /* calls above a limit */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t reads;
    uint64_t writes;
    /* Now. */
    uint64_t conns_connecting;
    uint64_t conns_busy;
    uint64_t conns_idle;
    uint64_t waiting;
};

/* opts may be NULL.  PD_OK, PD_EINVAL, PD_ENOMEM.  Gives: pd_http_client_close. */
pd_status pd_http_client_create(struct pd_loop *loop, const struct pd_http_client_opts *opts,
                                struct pd_http_client **out);
/* Cuts everything; calls get on_error (PD_ECANCELED).  c is freed just before
 * on_closed (may be NULL). */
void pd_http_client_close(struct pd_http_client *c, void (*on_closed)(void *arg), void *arg);
/* Closes the kept connections to an address (its node has gone). */
void pd_http_client_forget(struct pd_http_client *c, const struct pd_addr *addr);
const struct pd_http_client_stats *pd_http_client_stats(const struct pd_http_client *c);

/* Starts a call.  PD_OK: on_end or on_error follows.  PD_EINVAL, PD_ELIMIT,
 * PD_ENOMEM: nothing follows.  opts is borrowed, ev until the call is gone. */
pd_status pd_http_call_start(struct pd_http_client *c, const struct pd_http_call_opts *opts,
                             const struct pd_http_call_events *ev, void *arg,
                             struct pd_http_call **out);
/* Ends it without a further event; its connection closes.  call is gone. */
void pd_http_call_cancel(struct pd_http_call *call);
/* No on_body until resumed (up to 64 KiB that were read already still come);
 * the time a call is paused does not count as idle. */
void pd_http_call_pause(struct pd_http_call *call);
void pd_http_call_resume(struct pd_http_call *call);
void *pd_http_call_arg(const struct pd_http_call *call);
/* Whether it was sent on a connection that had served another call. */
bool pd_http_call_is_reused(const struct pd_http_call *call);

#endif
