/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the prefill role: the role object and its orders. */
#ifndef PD_ROLE_PREFILL_H
#define PD_ROLE_PREFILL_H

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

struct prefill_conf {
    uint32_t queue;            /* orders waiting for blocks */
};

struct order;

struct prefill {
    const struct prefill_conf *conf;
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
    struct order *orders;      /* all, newest first */
    uint32_t n_orders;
    struct order *waiting_first, *waiting_last; /* for blocks, oldest first */
    uint32_t n_waiting;
    struct pd_task retry;
    struct pd_timer retry_timer;
    bool is_draining;
    bool is_closing;
    void (*drained)(void *arg);
    void *drained_arg;
    void (*closed)(void *arg);
    void *closed_arg;
    struct pd_counter *done_ok;
    struct pd_counter *done_other;
};

/* Takes a PREFILL call of a peer; ends it at once when it cannot be served. */
void prefill_order_accept(struct prefill *p, struct pd_call *call, pd_peer_ref from, struct pd_str first);
/* Tries to give waiting orders their blocks. */
void prefill_orders_retry(struct prefill *p);
/* Ends every order. */
void prefill_orders_end(struct prefill *p, const struct pd_node_generation *generation);
/* The last steps of drain and destroy, once no order is left. */
void prefill_settle(struct prefill *p);

#endif
