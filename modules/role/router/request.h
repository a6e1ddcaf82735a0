/* SPDX-License-Identifier: Apache-2.0 */
/* One client request inside the router role; shared by request.c (its life), start.c
 * (what sending it takes), leg.c (nodes) and forward.c (servers behind adapters). */
#ifndef PD_ROLE_ROUTER_REQUEST_H
#define PD_ROLE_ROUTER_REQUEST_H

#include "router.h"

#include <string.h>

#define ROUTER_AVOID_MAX PD_SCHED_AVOID_MAX
/* Hashes of a prompt for which nothing is allocated. */
#define ROUTER_HASHES 16u
/* Requests, and starts of some, that are kept for the next ones. */
#define ROUTER_SPARE 64u

/* What sending a request takes: given back once a server behind an adapter answers, and
 * kept for the next request. */
struct request_start {
    struct request_start *next;
    struct pd_prompt prompt;           /* when there is one and its hashes fit */
    uint64_t hashes[ROUTER_HASHES];
    char server_id[33];                /* the request id that servers get; empty: the record's */
};

/* The part that prefill endpoints have in a leg, when there are some. */
struct leg_prefill {
    struct pd_dispatch dispatch;
    struct pd_endpoint_ref refs[PD_SCHED_PREFILL_MAX];
};

/* One sequence of the request on its way through a decode node. */
struct leg {
    struct request *request;
    uint32_t index;
    struct pd_call *call;              /* NULL: not sent or over */
    struct pd_dispatch decode;
    struct leg_prefill *prefill;       /* NULL: none yet */
    struct pd_endpoint_ref ref;        /* where it is */
    struct pd_endpoint_ref *avoid;     /* ROUTER_AVOID_MAX; NULL until it failed somewhere */
    uint8_t n_prefills;
    uint8_t n_avoid;
    bool is_waiting;                   /* for a node */
    bool is_done;
    uint32_t attempts;                 /* since the last token that was delivered */
    uint32_t failures, losses;         /* of them, by LEG_FAILED and LEG_LOST */
    uint32_t n_splits;                 /* dispatches to prefill servers */
    uint32_t n_sent;                   /* n_output when it was sent */
    /* What was delivered so far; another node goes on behind it. */
    int32_t *output;
    uint32_t n_output, output_cap;
    uint32_t flags;                    /* of the engine that delivered it, PD_ENGINE_* */
    uint64_t fingerprint[2];
    pd_time wait_until;                /* 0: has not waited yet */
};

/* Server-sent events of a server that are passed on; see relay.c. */
#define RELAY_LONG 1u                  /* reads with which a stream is a long one */

struct relay {
    char line[24];                     /* the beginning of the line under way */
    size_t line_n;                     /* its length so far */
    bool was_cr;
    bool was_boundary;                 /* the line before was empty */
    bool is_done;                      /* data: [DONE] has come */
    bool is_error;                     /* an error event has come */
    uint32_t n_data;                   /* data lines of the piece at hand */
    uint32_t n_reads;                  /* up to RELAY_LONG */
    char *held;                        /* the beginning of an event */
    size_t held_n, held_cap;
};

struct request {
    struct router *router;
    const struct router_conf *conf;    /* of the generation in which it began */
    struct pd_node_generation *generation;
    struct request *next, **link;
    struct pd_http_req *http;
    uint32_t kind;
    struct pd_api_request *api;        /* NULL once a server answers */
    struct pd_req *record;
    struct pd_answer *answer;          /* of our own nodes; NULL: a server writes it */
    struct request_start *start;       /* NULL once a server answers, or all legs bring tokens */
    struct pd_prompt *prompts;         /* one per prompt, then their hashes; the start's when that is
                                          enough */
    uint64_t seed;                     /* for our own nodes */
    uint32_t n_done;
    bool is_begun;                     /* the answer's head was given */
    bool is_paused;
    bool has_seed;                     /* seed is set: its first leg to a node was */
    /* A server behind an adapter. */
    struct pd_http_call *forward;
    char *forward_body;                /* when it differs from the client's */
    uint32_t forward_status;
    bool forward_sse;
    struct relay relay;
    struct split *split;               /* what shares it between two servers; NULL: nothing does */
    bool is_alone;                     /* not to be shared any more */
    bool is_native;                    /* a leg went to a node of our own */
    uint32_t n_legs;
    struct leg legs[];
};

static inline pd_time now_of(const struct request *q)
{
    return pd_loop_now(q->router->loop);
}

/* A text of the record. */
static inline void set_text(struct request *q, const char **text, struct pd_str s)
{
    q->router->req->text(q->router->reqs, q->record, text, s);
}

static inline void set_name(struct request *q, const char **text, const char *name)
{
    set_text(q, text, (struct pd_str){ name, strlen(name) });
}

/* Ends the request with an error: a status when nothing was sent, else one
 * error event.  The request is gone after it. */
void request_fail(struct request *q, const struct pd_api_error *error);
void request_failf(struct request *q, uint32_t http, const char *type, const char *code,
                   const char *message);
/* Lets all that brings tokens wait, or go on. */
void request_pause(struct request *q, bool pause);
/* Ends it well; the answer was given already. */
void request_done(struct request *q, uint32_t http_status);
/* Sends the request, as it is, to a server.  The leg is the first one. */
void forward_start(struct request *q, struct leg *leg, struct target *t);
/* The same with a body of its own, which is lent until the call is over or its request
 * has left.  The decode dispatch may be open already. */
void forward_run(struct request *q, struct leg *leg, struct target *t, const struct pd_adapter_http *want,
                 const struct pd_iov *body, size_t n_body);
/* Cancels what they began. */
void forward_cancel(struct request *q);
/* What they do with an answer, for whoever looks at it first; on_head begins it. */
extern const struct pd_http_call_events forward_events;
/* Its on_body.  False: the request is gone. */
bool forward_piece(struct request *q, struct pd_http_call *call, struct pd_str piece);
/* PD_ADAPTER_CHAT or PD_ADAPTER_COMPLETIONS. */
uint32_t forward_what(const struct request *q);
/* Servers know the request by another id from now on. */
void forward_id_renew(struct request *q);
/* One call to a server, with the headers that its adapter wants. */
struct forward_send {
    struct target *target;
    const struct pd_adapter_http *want;
    const struct pd_iov *body;
    size_t n_body;
    const struct pd_http_call_events *events;  /* arg: the request */
    pd_time first_byte_ns;             /* and between pieces */
    uint64_t body_limit;               /* of the answer; 0: the client's */
};
pd_status forward_send(struct request *q, const struct forward_send *s, struct pd_http_call **out);
/* Shares the request between the server t and a prefill server of the plan.  False: it
 * is not shared, and nothing was done. */
bool split_start(struct request *q, struct leg *leg, struct target *t, const struct pd_sched_plan *plan);
/* The decode server answers with a status that may mean that it has no KV.  True: the
 * request goes on without that server, or is over. */
bool split_refused(struct request *q, uint32_t status);
/* Cancels the prefill leg, and frees what sharing took. */
void split_end(struct request *q);
/* Passes whole events of a piece on; *queued is what waits for the client then.
 * False: an event is too long. */
bool relay_piece(struct request *q, struct pd_str piece, size_t *queued);
/* As on_chunks of a call: sends events, each alone in its chunk, with nothing before them. */
bool relay_chunks(struct pd_http_call *call, const struct pd_str *bodies, size_t n, struct pd_str chunks, void *arg);
/* Looks at a piece that is not passed on: n_data, is_done and is_error of s.  Whether an
 * event ends in it. */
bool relay_look(struct relay *s, struct pd_str piece);
/* Passes on what is held back. */
void relay_rest(struct request *q);
void relay_reset(struct request *q);
/* start.c */
/* Hashes the prompts for the prefix index.  False: memory is short. */
bool request_start(struct request *q);
/* Gives back what only sending it takes; it is not sent again. */
void request_started(struct request *q);
/* A leg to a node has brought a token: the same once all of them bring some.  Sending one of
 * them again takes request_start. */
void request_comes(struct request *q);
void request_starts_fini(struct router *r);
/* Keeps the prefill endpoints of its plan, none of them when memory is short. */
void leg_prefills(struct leg *leg, const struct pd_sched_plan *plan);
/* Its prompt was computed there; the dispatch to one of them has ended.  Nothing when
 * there is none. */
void leg_prefill_computed(struct leg *leg);
void leg_prefill_end(struct leg *leg, uint32_t result);
/* The leg does not go there for now.  False: there is no room for one more. */
bool leg_avoid(struct leg *leg, struct pd_endpoint_ref ref);
/* leg.c, wait.c */
/* Sends the leg to a node, or lets it wait for one.  False: neither was possible
 * and the request is gone. */
bool leg_send(struct leg *leg);
/* Lets a leg wait for a node to come back, when it had one, or one was lost a moment
 * ago.  False: it may not, or has waited long enough. */
bool leg_wait(struct leg *leg);
void leg_wait_end(struct leg *leg);
/* What became of a leg that was sent: the node lives and told of a failure; it was lost
 * and the leg with it; or it never got the leg. */
enum leg_fate { LEG_FAILED, LEG_LOST, LEG_UNSENT };
/* Tries the leg elsewhere, if that is still allowed; false: it is not. */
bool leg_again(struct leg *leg, enum leg_fate fate, const char *why);

#endif
