/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP for roles: routes on the node's listeners, answers, and calls to other
 * servers.  Second tier: bound to the exact version of pdplane.
 *
 *     const struct pd_net_api *h = pd_host()->table(host, PD_NET_TABLE, PD_NET_VERSION);
 *     struct pd_net *net = pd_host()->object(host, PD_NET_TABLE);
 *
 * A request (struct pd_http_req) belongs to the server.  A handler may use it
 * from on_request until it has ended the answer (respond, error, end, abort) or
 * on_gone has returned, whichever is first; one of them always happens.  A call
 * (struct pd_http_call) belongs to the client; its owner may use it until on_end
 * or on_error is called, or until it cancels.  No callback is ever called from
 * inside a function of the table.  Loop thread. */
#ifndef PDPLANE_NET_H
#define PDPLANE_NET_H

#include <pdplane/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_NET_TABLE "net"
#define PD_NET_VERSION 1u

struct pd_log;
struct pd_tls;       /* how to speak TLS with a server */
struct pd_net;       /* servers and client of a node */
struct pd_http_req;  /* a request and its answer */
struct pd_http_call; /* a call to another server */

enum pd_http_method {
    PD_HTTP_OTHER = 0,      /* a valid token that has no name here */
    PD_HTTP_GET,
    PD_HTTP_HEAD,
    PD_HTTP_POST,
    PD_HTTP_PUT,
    PD_HTTP_DELETE,
    PD_HTTP_OPTIONS,
    PD_HTTP_PATCH,
    PD_HTTP_METHODS
};

struct pd_http_header {
    struct pd_str name;     /* of a parsed head: lower case */
    struct pd_str value;    /* without blanks at the ends */
};

/* A parsed head.  All spans stay valid until the parser is reset. */
struct pd_http_head {
    /* Requests. */
    enum pd_http_method method;
    struct pd_str method_text;
    struct pd_str target;       /* as sent, query included */
    struct pd_str path;         /* percent-decoded, without query; "*" for OPTIONS * */
    struct pd_str query;        /* as sent, without '?' */
    struct pd_str host;
    bool expect_continue;
    /* Responses. */
    uint32_t status;
    struct pd_str reason;
    /* Both. */
    uint32_t minor;             /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;            /* what version and Connection say together */
    bool is_chunked;
    bool has_length;
    bool until_close;           /* response without any framing */
    uint64_t length;            /* of the body; valid with has_length */
    const struct pd_http_header *headers;
    size_t n_headers;
    /* For who passes the head on, if has_lines: bit i says that headers[i] may go on as it
     * stands in memory, a line "name: value" with its CRLF; lines stand in order without
     * a gap, and 16 bytes behind them may be read. */
    bool has_lines;
    uint64_t lines;
};

struct pd_http_route {
    const char *path;           /* exact, "/v1/models"; borrowed until removed */
    uint32_t methods;           /* 1u << PD_HTTP_POST ...; GET includes HEAD */
    uint32_t flags;             /* PD_HTTP_ROUTE_... */
    uint64_t body_limit;        /* bytes, 0: the server's */
    pd_time deadline_ns;        /* from the head to the end of the answer, 0: none */
    /* The request is there: with its whole body, or (STREAM_BODY) its head. */
    void (*on_request)(struct pd_http_req *req, void *arg);
    void *arg;
};

enum {
    /* on_request comes at the head; the body through on_body, on_body_end. */
    PD_HTTP_ROUTE_STREAM_BODY = 1,
    /* Routes of health checks: served also while draining without "close". */
    PD_HTTP_ROUTE_ALWAYS = 2,
};

/* Set by a handler inside on_request or later.  Members may be NULL. */
struct pd_http_req_events {
    /* A piece of a streamed body, borrowed during the call. */
    void (*on_body)(struct pd_http_req *req, struct pd_str piece, void *arg);
    void (*on_body_end)(struct pd_http_req *req, void *arg);
    /* What is queued has fallen below the low mark after it was above the high one. */
    void (*on_drain)(struct pd_http_req *req, void *arg);
    /* The route's deadline has passed.  NULL: 504 when nothing was sent, else
     * the connection is cut; on_gone (PD_ETIMEDOUT) follows in both cases. */
    void (*on_deadline)(struct pd_http_req *req, void *arg);
    /* The answer can no longer be delivered: PD_EPEER the client left,
     * PD_ETIMEDOUT it read or sent too slowly, PD_EPROTO its body was refused
     * (an error was sent), PD_ELIMIT more was queued than allowed, PD_ECANCELED
     * the server closes.  req is gone when it returns. */
    void (*on_gone)(struct pd_http_req *req, pd_status why, void *arg);
};

/* Length of a streamed answer that is not known. */
#define PD_HTTP_UNKNOWN_LENGTH UINT64_MAX

/* An error in the form of the OpenAI API, as used by clients' libraries. */
struct pd_http_error {
    uint32_t status;
    const char *type;           /* NULL: the usual one of the status */
    const char *code;           /* NULL: null */
    struct pd_str message;
    const char *param;          /* NULL: null */
    uint32_t retry_after_ms;    /* 0: none (429 and 503 then say 1 s) */
    int32_t should_retry;       /* x-should-retry: above 0 true, below 0 false, 0 none */
    const char *allow;          /* Allow, or NULL */
    uint32_t close;             /* 1: the connection closes after it */
};

/* How far a call got before it failed; decides about a retry. */
enum pd_http_fail {
    PD_HTTP_FAIL_CONNECT = 1,   /* nothing was sent */
    PD_HTTP_FAIL_SENT,          /* at least a part was sent, nothing came back */
    PD_HTTP_FAIL_HEAD,          /* a part of the head came back, or it was malformed */
    PD_HTTP_FAIL_BODY,          /* on_head was called */
};

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
    /* What one read brought was handed over by on_body: a good moment to send it on. */
    void (*on_read)(struct pd_http_call *call, void *arg);
    /* One read brought n whole chunks of the body and nothing else, framed as we do it: bodies
     * are what on_body would get, chunks all of them with their frames, for pass.  False:
     * nothing was done with them, and on_body for each and on_read follow. */
    bool (*on_chunks)(struct pd_http_call *call, const struct pd_str *bodies, size_t n,
                      struct pd_str chunks, void *arg);
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
    struct pd_tls *tls;         /* of the endpoint; NULL: plain */
};

/* What the calls to one path of one server have in common, checked and written once. */
struct pd_http_way;

/* The rest of a call, with members as in struct pd_http_call_opts. */
struct pd_http_way_call {
    struct pd_str id;           /* x-request-id; empty: none */
    const struct pd_iov *body;
    size_t n_body;
    uint32_t is_replayable;
    pd_time first_byte_ns, idle_ns;
    uint64_t body_limit;
};

/* Bytes queued for a client above which a handler should wait for on_drain. */
#define PD_HTTP_HIGH_WATER (256u * 1024u)

/* Which listeners a route is for: `api` in the configuration. */
enum {
    PD_NET_OPENAI = 1,
    PD_NET_ADMIN = 2
};

struct pd_net_api {
    uint32_t size;
    uint32_t version;          /* PD_NET_VERSION */

    /* Adds a route to all listeners of an api.  route is copied, its strings
     * are borrowed until unroute.  PD_OK, PD_EINVAL, PD_EEXIST, PD_ELIMIT. */
    pd_status (*route)(struct pd_net *net, uint32_t api, const struct pd_http_route *route);
    pd_status (*unroute)(struct pd_net *net, uint32_t api, const char *path);

    /* The request; what these return is valid as long as req. */
    enum pd_http_method (*req_method)(const struct pd_http_req *req);
    struct pd_str (*req_path)(const struct pd_http_req *req);
    /* First header with that lower-case name, or { NULL, 0 }. */
    struct pd_str (*req_header)(const struct pd_http_req *req, const char *name);
    struct pd_str (*req_body)(const struct pd_http_req *req);
    struct pd_str (*req_id)(const struct pd_http_req *req);
    pd_time (*req_start)(const struct pd_http_req *req);
    /* Events and the argument of all of them; ev is borrowed as long as req. */
    void (*req_set_events)(struct pd_http_req *req, const struct pd_http_req_events *ev, void *arg);
    /* Moves the deadline to delay_ns from now; 0: none. */
    void (*req_set_deadline)(struct pd_http_req *req, pd_time delay_ns);

    /* Answers.  Headers and bodies are borrowed; framing headers, Date and
     * x-request-id are the server's. */
    void (*respond)(struct pd_http_req *req, uint32_t status, const struct pd_http_header *headers,
                    size_t n, struct pd_str body);
    /* PD_OK, PD_EBUSY, PD_ENOMEM.  length in bytes or PD_HTTP_UNKNOWN_LENGTH. */
    pd_status (*begin)(struct pd_http_req *req, uint32_t status, const struct pd_http_header *headers,
                       size_t n, uint64_t length);
    /* Returns the bytes now queued: above PD_HTTP_HIGH_WATER wait for on_drain. */
    size_t (*write)(struct pd_http_req *req, struct pd_str bytes);
    void (*end)(struct pd_http_req *req);
    void (*abort)(struct pd_http_req *req);
    void (*close_after)(struct pd_http_req *req);
    bool (*has_begun)(const struct pd_http_req *req);
    void (*error)(struct pd_http_req *req, const struct pd_http_error *error);

    /* A call; see pd_http_call_opts.  PD_OK: on_end or on_error follows.
     * PD_EINVAL, PD_ELIMIT, PD_ENOMEM: nothing follows.  opts is borrowed, ev
     * until the call is gone. */
    pd_status (*call_start)(struct pd_net *net, const struct pd_http_call_opts *opts,
                            const struct pd_http_call_events *ev, void *arg, struct pd_http_call **out);
    void (*call_cancel)(struct pd_http_call *call);
    void (*call_pause)(struct pd_http_call *call);
    void (*call_resume)(struct pd_http_call *call);

    /* The label of the key that the client showed; empty when none was needed. */
    struct pd_str (*req_label)(const struct pd_http_req *req);
    /* Gives back the memory of the request's body before the answer is over. */
    void (*req_body_release)(struct pd_http_req *req);
    /* Whether the request of a call has left whole: with the head of its answer the
     * body is not needed any more. */
    bool (*call_is_sent)(const struct pd_http_call *call);
    /* Sends now what was written, instead of at the end of this turn. */
    void (*flush)(struct pd_http_req *req);

    /* The first header with which clients could tell servers where to go, such as
     * x-prefiller-host-port; empty: there is none. */
    struct pd_str (*req_hint)(const struct pd_http_req *req);

    /* TLS for connections to other nodes beside the link, as link.tls says:
     * certificates both ways.  is_server: for what is accepted.  NULL: link.tls
     * is not given.  Borrowed as long as the node lives. */
    struct pd_tls *(*peer_tls)(struct pd_net *net, bool is_server);
    /* Wraps an accepted stream, instead of its pd_stream_set_events: takes inner
     * in any case; the caller sets the events of *out.  A failed handshake is the
     * error of a read.  PD_OK, PD_ENOMEM, PD_ELIMIT. */
    pd_status (*tls_accept)(struct pd_tls *tls, struct pd_stream *inner, struct pd_stream **out);
    /* As pd_stream_connect; on_connected comes after the handshake, also with
     * PD_EPERM (a certificate was refused) and PD_EPROTO. */
    pd_status (*tls_connect)(struct pd_tls *tls, const struct pd_addr *to,
                             const struct pd_stream_events *ev, void *arg,
                             struct pd_stream **out);
    /* The node that the other side's certificate names; false: none. */
    bool (*tls_node)(const struct pd_stream *s, struct pd_uuid *out);

    /* How to speak TLS with a server of one's own choice, for call opts.  ca: PEM
     * file of its authorities, NULL: the system's; read again when it changes.
     * name: that its certificate must have.  Strings are copied, log is borrowed.
     * PD_OK, or err says which file is wrong.  Gives: tls_destroy, behind the last
     * call with it. */
    pd_status (*tls_create)(struct pd_loop *loop, struct pd_log *log, const char *what, const char *ca,
                            const char *name, struct pd_tls **out, struct pd_err *err);
    void (*tls_destroy)(struct pd_tls *tls);

    /* From now on whoever answers calls flush before its turn ends; without this
     * what was written is sent at the end of the turn. */
    void (*own_flush)(struct pd_http_req *req);
    /* A relayed answer takes long: gives back what the heads of req and call hold.
     * Headers, path and body of req are empty from now on.  False: too early. */
    bool (*lighten)(struct pd_http_req *req, struct pd_http_call *call);
    /* Nobody wants the call any more, but the other side shall be able to end its
     * answer: it is read and dropped.  What was lent for the call is free again, and
     * no event follows; a request that has not left whole is canceled. */
    void (*call_leave)(struct pd_http_call *call);

    /* A way for many calls: address, host, method, target, headers and TLS of opts are
     * copied, the rest is not looked at.  PD_OK, PD_EINVAL, PD_ENOMEM.  Gives: way_close,
     * which calls on their way outlive, while the net is there. */
    pd_status (*way_open)(struct pd_net *net, const struct pd_http_call_opts *opts,
                          struct pd_http_way **out);
    void (*way_close)(struct pd_http_way *way);
    /* As call_start. */
    pd_status (*way_call)(struct pd_http_way *way, const struct pd_http_way_call *opts,
                          const struct pd_http_call_events *ev, void *arg, struct pd_http_call **out);
    /* As begin, with the headers of the answer of a server: those that belong to its
     * connection or are ours are left out. */
    pd_status (*begin_with)(struct pd_http_req *req, const struct pd_http_head *answer, uint64_t length);
    /* Sends chunks that on_chunks brought, as they are; what the socket does not take is queued.
     * False: the answer is not chunked, or bytes wait before them; nothing was done. */
    bool (*pass)(struct pd_http_req *req, struct pd_str chunks);
    /* Whether the id of the request is one that the client has given it. */
    bool (*req_id_given)(const struct pd_http_req *req);
};

#ifdef __cplusplus
}
#endif
#endif
