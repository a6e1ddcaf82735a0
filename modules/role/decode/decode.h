/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the decode role: the role object and one leg. */
#ifndef PD_ROLE_DECODE_H
#define PD_ROLE_DECODE_H

#include <pdplane/api.h>
#include <pdplane/host.h>
#include <pdplane/kv.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>
#include <pdplane/node.h>
#include <pdplane/peer.h>
#include <pdplane/req.h>
#include <pdplane/role.h>
#include <pdplane/scheduler.h>

enum {
    DECODE_FULL = 1,           /* KV of all prompt tokens and the first token come from prefill */
    DECODE_N_MINUS_1 = 2       /* the last prompt token is computed here */
};

struct decode_conf {
    uint32_t handover;         /* DECODE_FULL, DECODE_N_MINUS_1 */
    uint32_t queue;            /* legs waiting for blocks */
    uint64_t queue_tokens;     /* and their tokens */
    uint64_t prefill_timeout;  /* ns until a remote prefill is given up */
    uint64_t unsent_max;       /* bytes held for a router that does not read */
};

struct leg;

struct decode {
    const struct decode_conf *conf;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_host *host;
    const struct pd_peer_api *peer;
    const struct pd_kv_api *kv;
    const struct pd_req_api *req;
    const struct pd_api_table *api;
    const struct pd_node_api *node;
    struct pd_peers *peers;
    struct pd_kv *kvs;
    struct pd_reqs *reqs;
    struct pd_api *apis;
    struct pd_node *nodes;
    struct pd_peer_watch *watch;
    struct leg *legs;          /* all, newest first */
    uint32_t n_legs;
    struct leg *waiting_first, *waiting_last; /* for blocks, oldest first */
    uint32_t n_waiting;
    uint64_t waiting_tokens;
    struct pd_task retry;      /* looks at `waiting` again */
    struct pd_timer retry_timer;
    bool is_draining;
    bool is_closing;
    void (*drained)(void *arg);
    void *drained_arg;
    void (*closed)(void *arg);
    void *closed_arg;
    struct pd_counter *handovers_valid;
    struct pd_counter *handovers_other;
    struct pd_counter *fallbacks;
    struct pd_counter *local;
    struct pd_counter *unfit[PD_KV_MATCHES]; /* by PD_KV_MATCH_* */
};

/* Takes a REQUEST call; ends it at once when it cannot be served. */
void decode_leg_accept(struct decode *d, struct pd_call *call, struct pd_str first);
/* Tries to give waiting legs their blocks. */
void decode_legs_retry(struct decode *d);
/* A peer's state changed; legs that wait for it go on. */
void decode_legs_peer(struct decode *d, pd_peer_ref peer, uint32_t what);
/* Ends every leg with this error. */
void decode_legs_end(struct decode *d, const struct pd_node_generation *generation, const char *code,
                     const char *message);
/* Called by legs when they are gone. */
void decode_leg_gone(struct decode *d);

#endif
