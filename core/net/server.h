/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1.1 server on one loop: exact routes registered by their owners,
 * everything else refused; answers at once or streamed with back-pressure.
 *
 * One object, struct pd_http_req, is a request and its answer.  It belongs to
 * the server.  A handler may use it from on_request until it has ended the
 * answer (pd_http_respond, pd_http_error, pd_http_end, pd_http_abort) or
 * on_gone has returned, whichever is first; one of them always happens.
 * No callback is ever called from inside a function of this header.
 * Everything runs on the loop's thread. */
#ifndef PD_NET_SERVER_H
#define PD_NET_SERVER_H

#include "net/http1.h"

#include <pdplane/loop.h>

struct pd_arena;
struct pd_http_server;
struct pd_keys;
struct pd_tls;

struct pd_http_server_opts {
    size_t size;                /* sizeof(struct pd_http_server_opts) */
    const char *name;           /* static string, for the loop's handles; NULL: "http" */
    uint32_t max_conns;         /* 0: 8192; more get 503 */
    uint32_t max_refusing;      /* more of these at a time are closed without a word, 0: 64 */
    uint32_t half_close_ok;     /* 1: a client that ended its sending still gets its answer */
    uint64_t body_limit;        /* bytes, 0: 8 MiB */
    uint32_t high_water;        /* bytes queued per answer, 0: 256 KiB */
    uint32_t low_water;         /* 0: 64 KiB */
    uint64_t max_queued;        /* bytes queued per answer that cut it, 0: 8 MiB */
    uint64_t max_held;          /* bytes of all bodies and queued answers; more requests get 503;
                                 * 0: no limit */
    pd_time idle_ns;            /* between requests, 0: 75 s */
    pd_time head_ns;            /* first byte to end of head, 0: 10 s */
    pd_time body_ns;            /* for each 16 KiB of a body and its end, 0: 30 s */
    pd_time write_ns;           /* a client that takes nothing, 0: 60 s */
    pd_time linger_ns;          /* waiting for the client's close after ours, 0: 1 s */
};

/* What a server has done and has, for the registry; all counters grow only. */
struct pd_http_server_stats {
    uint64_t accepted;          /* connections */
    uint64_t refused;           /* connections above the limit */
    uint64_t requests;          /* complete heads that were accepted */
    uint64_t responses[6];      /* by class: [2] = 2xx; [0] aborted or never begun */
    uint64_t rejects[PD_HTTP_REJECTS];
    uint64_t not_found;
    uint64_t unauthorized;      /* no key, or none that is known */
    uint64_t method_not_allowed;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t reads;             /* calls of the stream */
    uint64_t writes;
    uint64_t idle_timeouts;
    uint64_t head_timeouts;
    uint64_t body_timeouts;
    uint64_t write_timeouts;
    uint64_t deadline_timeouts;
    uint64_t client_gone;       /* clients that left before the end of the answer */
    uint64_t queue_overflows;
    uint64_t pipelined;         /* requests that had arrived before their turn */
    uint64_t continues;         /* 100 Continue sent */
    uint64_t memory_failures;
    uint64_t overloads;         /* requests refused because of max_held */
    /* Now. */
    uint64_t conns_idle;        /* between requests */
    uint64_t conns_reading;     /* in a head or a body */
    uint64_t conns_serving;     /* the request is with its handler */
    uint64_t conns_closing;
    uint64_t queued_bytes;      /* of answers */
    uint64_t body_bytes;        /* of requests */
};

/* opts may be NULL.  PD_OK, PD_EINVAL, PD_ENOMEM.  Gives: pd_http_server_close. */
pd_status pd_http_server_create(struct pd_loop *loop, const struct pd_http_server_opts *opts,
                                struct pd_http_server **out);
/* Opens one more listener (at most 16); see pd_listener_open for addr, opts and
 * what is returned, besides PD_ELIMIT. */
pd_status pd_http_server_listen(struct pd_http_server *s, const struct pd_addr *addr,
                                const struct pd_listener_opts *opts);
/* The same with TLS (NULL: without) and keys (NULL: none needed); the server
 * holds both as long as it needs them.  With keys a request to any route but those
 * with PD_HTTP_ROUTE_ALWAYS needs one, as "Authorization: Bearer KEY" or
 * "x-api-key: KEY"; others get 401. */
pd_status pd_http_server_listen_as(struct pd_http_server *s, const struct pd_addr *addr,
                                   const struct pd_listener_opts *opts, struct pd_tls *tls,
                                   struct pd_keys *keys);
/* Makes sure that the listener on this address (as it was opened) can change.
 * PD_OK, PD_ENOENT, PD_ENOMEM. */
pd_status pd_http_server_reserve(struct pd_http_server *s, const struct pd_addr *addr);
/* Other TLS or keys for a listener that was reserved: cannot fail.  Connections
 * that are open need the new keys from their next request on; when tls is
 * another, they close after the answer they are at, or half a second later. */
void pd_http_server_relisten(struct pd_http_server *s, const struct pd_addr *addr, struct pd_tls *tls,
                             struct pd_keys *keys);
/* Closes the listener; connections that came by it close likewise.  PD_OK or
 * PD_ENOENT. */
pd_status pd_http_server_unlisten(struct pd_http_server *s, const struct pd_addr *addr);
/* Other limits of connections and held bytes; what is open stays. */
void pd_http_server_set_limits(struct pd_http_server *s, uint32_t max_conns, uint64_t max_held);
/* Other times of pd_http_server_opts, none of them 0; for what begins from now on. */
void pd_http_server_set_times(struct pd_http_server *s, pd_time head_ns, pd_time body_ns,
                              pd_time write_ns, pd_time idle_ns);
/* The address of the i-th listener.  PD_OK or PD_ENOENT. */
pd_status pd_http_server_addr(struct pd_http_server *s, size_t i, struct pd_addr *out);
/* Takes an open stream as a new connection (TLS, tests).  PD_OK; PD_ELIMIT,
 * PD_ENOMEM: the stream is closed. */
pd_status pd_http_server_adopt(struct pd_http_server *s, struct pd_stream *stream);
/* Adds a route (at most 256).  route is copied, its strings are borrowed.
 * PD_OK, PD_EINVAL, PD_EEXIST (path taken), PD_ELIMIT. */
pd_status pd_http_server_route(struct pd_http_server *s, const struct pd_http_route *route);
/* What serves GET there; NULL: nothing.  Borrowed until routes change. */
const struct pd_http_route *pd_http_server_routed(const struct pd_http_server *s, const char *path);
/* Removes the routes of that path; requests already handed over go on.  PD_OK
 * or PD_ENOENT. */
pd_status pd_http_server_unroute(struct pd_http_server *s, const char *path);
/* Stops listening, closes connections after their answer, idle ones after half a
 * second, so that a request on its way is still served; on_drained (may be NULL) follows when there is none left. */
void pd_http_server_drain(struct pd_http_server *s, void (*on_drained)(void *arg), void *arg);
/* Cuts everything; requests get on_gone (PD_ECANCELED).  s is freed just before
 * on_closed (may be NULL). */
void pd_http_server_close(struct pd_http_server *s, void (*on_closed)(void *arg), void *arg);
/* Borrowed; changes as the server works. */
const struct pd_http_server_stats *pd_http_server_stats(const struct pd_http_server *s);
struct pd_loop *pd_http_server_loop(const struct pd_http_server *s);

/* The request.  What these return is valid as long as req. */
const struct pd_http_head *pd_http_req_head(const struct pd_http_req *req);
enum pd_http_method pd_http_req_method(const struct pd_http_req *req);
struct pd_str pd_http_req_path(const struct pd_http_req *req);
/* First header with that lower-case name, or { NULL, 0 }. */
struct pd_str pd_http_req_header(const struct pd_http_req *req, const char *name);
/* The whole body, contiguous and writable; empty for streamed bodies. */
struct pd_str pd_http_req_body(const struct pd_http_req *req);
/* Frees the memory of the whole body before the answer is over. */
void pd_http_req_body_release(struct pd_http_req *req);
/* The client's x-request-id when it is plain, else one made here. */
struct pd_str pd_http_req_id(const struct pd_http_req *req);
bool pd_http_req_id_given(const struct pd_http_req *req);
/* The label of the key that the client showed; empty when none was needed. */
struct pd_str pd_http_req_label(const struct pd_http_req *req);
/* The first header with which a client could tell servers where to go, in any
 * spelling; empty: there is none. */
struct pd_str pd_http_req_hint(const struct pd_http_req *req);
/* PD_OK or PD_EPEER. */
pd_status pd_http_req_peer(const struct pd_http_req *req, struct pd_addr *out);
/* When the head was complete. */
pd_time pd_http_req_start(const struct pd_http_req *req);
/* Memory that lives as long as req, at most 1 MiB. */
struct pd_arena *pd_http_req_arena(struct pd_http_req *req);
struct pd_http_server *pd_http_req_server(const struct pd_http_req *req);
/* Events and the argument of all of them; ev is borrowed as long as req. */
void pd_http_req_set_events(struct pd_http_req *req, const struct pd_http_req_events *ev,
                            void *arg);
void *pd_http_req_arg(const struct pd_http_req *req);
/* Moves the deadline to delay_ns from now; 0: none. */
void pd_http_req_set_deadline(struct pd_http_req *req, pd_time delay_ns);
/* No on_body until resumed; up to 64 KiB that were read already still come. */
void pd_http_req_pause(struct pd_http_req *req);
void pd_http_req_resume(struct pd_http_req *req);

/* Answers.  Headers are borrowed; Content-Length, Transfer-Encoding, Connection,
 * Date and x-request-id are the server's and ignored when given.  A value with
 * control bytes is left out.  For HEAD the body is left out. */

/* A whole answer with one write.  body is borrowed; what does not fit into the
 * socket is copied. */
void pd_http_respond(struct pd_http_req *req, uint32_t status,
                     const struct pd_http_header *headers, size_t n, struct pd_str body);
/* The same with the body in n_body runs (at most 32). */
void pd_http_respond_iov(struct pd_http_req *req, uint32_t status,
                         const struct pd_http_header *headers, size_t n,
                         const struct pd_iov *body, size_t n_body);

/* Begins a streamed answer; its head leaves with the first write or at the end
 * of this turn.  length: of the body in bytes, or PD_HTTP_UNKNOWN_LENGTH
 * (chunked).  PD_OK, PD_EBUSY (begun already), PD_ENOMEM. */
pd_status pd_http_begin(struct pd_http_req *req, uint32_t status,
                        const struct pd_http_header *headers, size_t n, uint64_t length);
/* The same with the headers of an answer of another server, as its parser gave them. */
pd_status pd_http_begin_with(struct pd_http_req *req, const struct pd_http_head *answer,
                             uint64_t length);
/* Adds body bytes (n at most 32 runs, borrowed).  Small pieces of one turn leave
 * in one write at its end.  Returns the bytes now queued: above the high mark
 * the handler waits for on_drain. */
size_t pd_http_write(struct pd_http_req *req, const struct pd_iov *iov, size_t n);
size_t pd_http_write_str(struct pd_http_req *req, struct pd_str bytes);
/* Sends now what was written in this turn. */
void pd_http_flush(struct pd_http_req *req);
/* The answer takes long: gives back what the request's head and, when nothing is
 * queued, the queue hold.  Headers, path and body are empty from now on. */
void pd_http_req_lighten(struct pd_http_req *req);
/* From now on the handler flushes what it writes before its turn ends, and
 * nothing is woken for it. */
void pd_http_own_flush(struct pd_http_req *req);
/* Sends whole chunks that were read with their frames, as they are, when nothing waits before
 * them; what the socket does not take is queued.  False: nothing was done. */
bool pd_http_pass(struct pd_http_req *req, struct pd_str chunks);
/* The answer is complete. */
void pd_http_end(struct pd_http_req *req);
/* Cuts the connection, so that the client can tell that the answer is not whole. */
void pd_http_abort(struct pd_http_req *req);
/* The connection closes after this answer. */
void pd_http_close_after(struct pd_http_req *req);
/* Whether a status has been given already. */
bool pd_http_has_begun(const struct pd_http_req *req);
size_t pd_http_queued(const struct pd_http_req *req);

/* Answers with an error.  When an answer has begun already, it is aborted. */
void pd_http_error(struct pd_http_req *req, uint32_t status, const char *type, const char *code,
                   const char *message, const char *param);
void pd_http_error_full(struct pd_http_req *req, const struct pd_http_error *error);
/* Appends {"error":{...}} (no line break inside), also for error events in
 * streams.  Returns what the buffer returns. */
pd_status pd_http_error_json(struct pd_buf *b, const struct pd_http_error *error);
/* "invalid_request_error" and so on; never NULL. */
const char *pd_http_error_type(uint32_t status);

#endif
