/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the router role. */
#ifndef PD_ROLE_ROUTER_H
#define PD_ROLE_ROUTER_H

#include <pdplane/api.h>
#include <pdplane/host.h>
#include <pdplane/json.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>
#include <pdplane/net.h>
#include <pdplane/node.h>
#include <pdplane/peer.h>
#include <pdplane/req.h>
#include <pdplane/role.h>
#include <pdplane/sched.h>

#define ROUTER_MODELS_MAX 64u
#define ROUTER_MODEL_NAME 128u

struct router_conf {
    uint64_t deadline;         /* ns, of a whole request */
    uint64_t body_limit;
    uint32_t retries;          /* after failures that a node told of */
    uint32_t losses;           /* nodes that a request may lose */
    uint32_t max_requests;     /* live at a time */
    uint32_t max_choices;
    uint32_t max_prompts;
    uint64_t max_output;
    uint64_t probe_interval;   /* ns, of servers behind adapters */
    uint32_t hints;            /* ROUTER_HINTS_DELETE, ROUTER_HINTS_REFUSE */
    uint32_t cache;            /* ROUTER_CACHE_KEY, ROUTER_CACHE_SHARED */
    bool node_headers;         /* answers name their nodes */
    uint64_t wait;             /* ns for a lost node to be back */
    uint64_t prefill_timeout;  /* ns, of a prefill server */
    uint64_t prefill_answer;   /* largest answer of one */
};

/* Why a decode server computed a prompt that was meant for a prefill server. */
enum { ROUTER_FALLBACK_FAILED = 0, ROUTER_FALLBACK_NO_PARAMS = 1, ROUTER_FALLBACK_DECODE = 2,
       ROUTER_FALLBACKS = 3 };
enum { ROUTER_HINTS_DELETE = 0, ROUTER_HINTS_REFUSE = 1 };
enum { ROUTER_PEER_BUCKETS = 256 };
enum { ROUTER_CACHE_KEY = 0, ROUTER_CACHE_SHARED = 1 };

struct router;
struct request;

/* What the scheduler's `user` points to: a way to an endpoint. */
struct target {
    struct router *router;
    struct target *next, **link;
    struct pd_endpoint_ref ref;
    /* An engine of a peer. */
    pd_peer_ref peer;          /* 0: a server behind an adapter */
    struct target *peer_next, **peer_link; /* in the router's by_peer */
    struct pd_node_id node;
    char engine[64];
    char name[64];             /* of the node */
    char address[128];         /* where other nodes reach it */
    uint32_t context_tokens;
    uint32_t flags;            /* PD_ENGINE_* */
    uint32_t roles;            /* PD_ROLE_* */
    uint32_t serial;           /* of the instance */
    uint64_t fingerprint[2];   /* of its layout */
    char model[ROUTER_MODEL_NAME];
    /* A server. */
    const struct pd_node_endpoint *endpoint;
    struct target *replaces;   /* its form before, while both are there */
    struct pd_addr addr;
    struct target_way {
        struct pd_http_way *way;       /* NULL: none was needed yet */
        struct pd_adapter_http want;   /* what it was made for */
    } ways[2];                 /* of chats, of completions */
    struct pd_resolve resolve;
    struct pd_timer probe_timer;
    struct pd_http_call *probe;
    uint32_t probe_what;       /* PD_ADAPTER_PROBE, PD_ADAPTER_MODELS, PD_ADAPTER_INFO */
    uint32_t n_probes;         /* since the models were asked for */
    uint32_t probe_status;
    char *probe_body;
    size_t probe_body_n;
    bool is_resolved;
    bool is_resolving;
    bool shares;               /* requests with a server of the same protocol */
    bool is_checked;           /* since it was down last */
    bool is_unfit;             /* it runs otherwise than its roles need */
    bool is_suspect;           /* its requests failed, though its probes do not */
    bool is_resting;           /* gets no new requests whatever its probe says */
    uint32_t probed;           /* PD_ENDPOINT_UP, PD_ENDPOINT_DOWN */
};

struct router {
    const struct router_conf *conf;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_host *host;
    const struct pd_net_api *net;
    const struct pd_peer_api *peer;
    const struct pd_sched_api *sched;
    const struct pd_req_api *req;
    const struct pd_api_table *api;
    const struct pd_node_api *node;
    const struct pd_json_api *json;
    struct pd_net *nets;
    struct pd_peers *peers;
    struct pd_sched *scheds;
    struct pd_reqs *reqs;
    struct pd_api *apis;
    struct pd_node *nodes;
    struct pd_peer_watch *watch;
    struct pd_node_endpoint_watch *endpoint_watch;
    struct pd_task ready_task; /* tells readiness once for many changes */
    struct target *targets;
    struct target *by_peer[ROUTER_PEER_BUCKETS];
    struct request *requests;
    uint32_t n_requests;
    struct request *spare;     /* requests with one leg, for the next ones */
    uint32_t n_spare;
    struct request_start *spare_start;
    uint32_t n_spare_start;
    uint32_t n_waiting;        /* legs that wait for a node */
    pd_time lost_at;           /* when a node was lost last */
    bool was_lost;
    struct pd_timer wait_timer;
    struct pd_task wait_task;
    uint64_t start_s;          /* unix seconds, "created" of models */
    /* Models whose /v1/models/ID route is registered. */
    char models[ROUTER_MODELS_MAX][ROUTER_MODEL_NAME];
    char model_paths[ROUTER_MODELS_MAX][ROUTER_MODEL_NAME + 16];
    uint32_t n_models;
    bool is_draining;
    bool is_closing;
    void (*drained)(void *arg);
    void *drained_arg;
    void (*closed)(void *arg);
    void *closed_arg;
    struct pd_gauge *prefill_up, *decode_up;
    struct pd_counter *retries;
    struct pd_counter *client_gone;
    struct pd_counter *hints_refused;
    struct pd_counter *split_failures;
    struct pd_counter *split_too_long;
    struct pd_counter *split_finals;
    struct pd_counter *split_fallbacks[ROUTER_FALLBACKS];
};

/* targets.c */
/* Begins to follow peers and configured servers. */
pd_status router_targets_start(struct router *r);
void router_targets_stop(struct router *r);
/* Peer events. */
void router_targets_peer(struct router *r, pd_peer_ref peer, uint32_t what);
/* A model became known: its route is added. */
void router_model_add(struct router *r, struct pd_str model);
/* Whether the model was ever known. */
bool router_model_seen(const struct router *r, struct pd_str model);

/* fit.c */
/* Whether the server runs as the endpoint's roles need, by what it says of itself; tells
 * once when it does not. */
bool target_fits(struct target *t, struct pd_str info);

/* request.c */
void router_request(struct pd_http_req *http, uint32_t kind, struct router *r);
/* Ends every request with an error. */
void router_requests_end(struct router *r);
void router_requests_end_generation(struct router *r, const struct pd_node_generation *generation);
/* Frees what is kept for further requests. */
void router_requests_fini(struct router *r);
/* wait.c */
void router_wait_init(struct router *r);
void router_wait_fini(struct router *r);
/* A node was lost. */
void router_wait_lost(struct router *r);
/* A node came up: legs that wait for one are tried soon. */
void router_wait_node(struct router *r);
/* The last steps of drain and destroy, once no request is left (router.c). */
void router_settle(struct router *r);

#endif
