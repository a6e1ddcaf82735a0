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

struct pd_http_client_opts {
    size_t size;                /* sizeof(struct pd_http_client_opts) */
    const char *name;           /* static string, for the loop's handles; NULL: "http client" */
    uint32_t max_origins;       /* 0: 1024 */
    uint32_t max_conns;         /* per origin, 0: 1024 */
    uint32_t max_total;         /* connections of all origins, 0: no limit */
    uint32_t max_idle;          /* kept per origin, 0: 64 */
    uint32_t max_waiting;       /* calls that wait for a connection, per origin, 0: 1024 */
    uint64_t body_limit;        /* of an answer, 0: 1 GiB */
    pd_time connect_ns;         /* 0: 5 s */
    pd_time first_byte_ns;      /* request sent to first byte, 0: 60 s */
    pd_time idle_ns;            /* between two pieces of an answer, 0: 60 s */
    pd_time keep_ns;            /* an unused connection is kept, 0: 60 s */
};

/* "connect", "sent", "head", "body". */
const char *pd_http_fail_name(enum pd_http_fail fail);

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
/* Other limits, as in the options; what is open stays. */
void pd_http_client_set_limits(struct pd_http_client *c, uint32_t max_conns, uint32_t max_total);
/* Closes the kept connections to an address (its node has gone). */
void pd_http_client_forget(struct pd_http_client *c, const struct pd_addr *addr);
const struct pd_http_client_stats *pd_http_client_stats(const struct pd_http_client *c);

/* Starts a call.  PD_OK: on_end or on_error follows.  PD_EINVAL, PD_ELIMIT,
 * PD_ENOMEM, PD_ECANCELED (closing): nothing follows.  opts is borrowed, ev
 * until the call is gone. */
pd_status pd_http_call_start(struct pd_http_client *c, const struct pd_http_call_opts *opts,
                             const struct pd_http_call_events *ev, void *arg,
                             struct pd_http_call **out);
/* What <pdplane/net.h> says of ways.  One that is open may outlive the client if it is
 * only closed then. */
pd_status pd_http_way_open(struct pd_http_client *c, const struct pd_http_call_opts *opts,
                           struct pd_http_way **out);
void pd_http_way_close(struct pd_http_way *way);
pd_status pd_http_way_call(struct pd_http_way *way, const struct pd_http_way_call *opts,
                           const struct pd_http_call_events *ev, void *arg,
                           struct pd_http_call **out);
/* Ends it without a further event; its connection closes.  call is gone. */
void pd_http_call_cancel(struct pd_http_call *call);
/* Its answer is read to the end and dropped, without a further event: what was lent for
 * the call is free again.  One whose request has not left whole is canceled.  call is
 * gone for its owner. */
void pd_http_call_leave(struct pd_http_call *call);
/* No on_body until resumed (up to 64 KiB that were read already still come);
 * the time a call is paused does not count as idle. */
void pd_http_call_pause(struct pd_http_call *call);
void pd_http_call_resume(struct pd_http_call *call);
void *pd_http_call_arg(const struct pd_http_call *call);
/* Whether the request has left whole: its body is not needed any more once an
 * answer has begun. */
bool pd_http_call_is_sent(const struct pd_http_call *call);
/* The answer takes long: gives back what the heads of both sides hold.  False: the
 * request has not left yet, or no answer has begun. */
bool pd_http_call_lighten(struct pd_http_call *call);
/* Whether it was sent on a connection that had served another call. */
bool pd_http_call_is_reused(const struct pd_http_call *call);

#endif
