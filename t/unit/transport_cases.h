/* SPDX-License-Identifier: Apache-2.0 */
/* Behaviour that every transport must show, written once and run over each of
 * them and over each kind of loop.  A case makes two nodes, `a` owns windows,
 * `b` posts; both on one loop or on a loop each.  The unit tests know the
 * transports of the distribution from inside; pdconform runs the same cases with
 * `foreign` set, over any module. */
#ifndef PD_T_TRANSPORT_CASES_H
#define PD_T_TRANSPORT_CASES_H

#ifdef PD_CONFORM_KIT
#include "conform/check.h"
#else
#include "unit.h"
#endif

#include <pdplane/loop.h>
#include <pdplane/transport.h>

struct tr_env {
    const struct pd_transport_ops *ops;
    /* Makes the options: *conf is the unit's struct with defaults; tiny asks
     * for a queue of 4 transfers and the smallest frames, or equals conf. */
    const void *conf, *conf_tiny;
    /* Given to instances; may be NULL. */
    struct pd_log *log;
    struct pd_metrics *metrics;
    struct pd_host *host;
    bool foreign;               /* what is in a blob, which codes come and what is counted is unknown */
    struct pd_loop *la, *lb;
    uint32_t scale;             /* divides the amount of work; 1: all of it */
    /* Runs until cond is true; false after 30 s without that. */
    bool (*run)(struct tr_env *e, bool (*cond)(void *arg), void *arg);
    /* Lets time pass. */
    void (*pass)(struct tr_env *e, pd_time ns);
    /* For the cases with a second process: a new real loop. */
    struct pd_loop *(*new_loop)(void);
    bool (*run_loop)(struct pd_loop *loop, bool (*cond)(void *arg), void *arg, pd_time limit);
    /* Cuts or restores the way from b to a and back. */
    void (*cut)(struct tr_env *e, bool on);
    void *priv, *world;         /* of who runs the cases */
    uint32_t passes;            /* windows that exist only to let a link in */
    uint32_t lease;             /* is added to the generations of windows */
    pid_t uuid_pid;             /* in the names of nodes; 0: this process */
};

#define TRANSPORT_CASES(X)                                                     \
    X(sizes) X(segments) X(permutation) X(many) X(again) X(refused) X(bounds)  \
    X(cancel) X(cancel_fenced) X(close_while_writing) X(twice) X(disconnects)  \
    X(stale) X(wrong_identity) X(busy) X(reconnects) X(fuzz) X(read) X(read_stop) \
    X(memory_churn)
/* Those with a second process, and those that need a way to cut. */
#define TRANSPORT_KILL_CASES(X) X(kill_owner) X(kill_poster) X(restart)
#define TRANSPORT_CUT_CASES(X) X(cut)

#define X(name) void tr_case_##name(struct tr_env *e);
TRANSPORT_CASES(X)
TRANSPORT_KILL_CASES(X)
TRANSPORT_CUT_CASES(X)
#undef X

/* ---- for tests of their own */

struct tr_node {
    struct tr_env *env;
    struct pd_loop *loop;
    struct pd_instance_ctx ctx;
    struct pd_transport *tp;
    int fd;
    uint8_t *base;
    uint64_t bytes;
    struct pd_transport_memory *memory;
    bool closed;
};

/* What a case wants to do from inside a callback; none unless set after the
 * call that began it. */
struct tr_window {
    void (*then)(struct tr_window *w);  /* bytes have landed */
    void *arg;
    struct pd_transport_window *window;
    struct tr_node *node;
    uint64_t total;             /* as last told */
    uint32_t told, closed;
    uint8_t blob[256];
    size_t blob_len;
};

struct tr_link {
    void (*then)(struct tr_link *l);    /* posts may be tried again */
    void *arg;
    struct pd_transport_peer *peer;
    struct tr_node *node;
    uint32_t ups, downs, writables;
    pd_status up_status, down_status;
    uint32_t dones;
    struct tr_window pass;      /* of the other node, open until the link is up or down */
    bool has_pass;
};

struct tr_post {
    void (*then)(struct tr_post *p);    /* it is done */
    void *arg;
    struct pd_transfer *transfer;
    uint32_t dones, terminal;
    uint64_t bytes;
};

void tr_node_open(struct tr_env *e, struct tr_node *n, struct pd_loop *loop, uint8_t tag,
                  uint64_t epoch, uint64_t bytes, const void *conf);
void tr_node_close(struct tr_env *e, struct tr_node *n);
void tr_window_open(struct tr_window *w, struct tr_node *owner, const struct pd_node_id *peer,
                    uint64_t xid, uint32_t access, const struct pd_segment *segs, uint32_t n);
void tr_window_close(struct tr_env *e, struct tr_window *w);
pd_status tr_connect_raw(struct tr_link *l, struct tr_node *from, const struct pd_node_id *node,
                         const void *address, size_t len, const void *grant, size_t grant_len);
/* Opens a window of its own for the greeting. */
pd_status tr_connect(struct tr_link *l, struct tr_node *from, struct tr_node *to);
void tr_connect_up(struct tr_env *e, struct tr_link *l, struct tr_node *from, struct tr_node *to);
void tr_disconnect(struct tr_env *e, struct tr_link *l, uint32_t how);
struct pd_transport_target *tr_target(struct tr_link *l, const struct tr_window *w);
pd_status tr_post(struct tr_node *n, struct pd_transport_target *t, struct tr_post *p,
                  uint64_t offset, const struct pd_segment *segs, uint32_t n_segs);
void tr_wait_post(struct tr_env *e, struct tr_post *p);
struct pd_transport_stats tr_stats(struct tr_node *n);
uint64_t tr_random(uint64_t *state);
/* Noise; with tr_fill_smooth every second byte has few values, so that a codec
 * makes it shorter. */
extern bool tr_fill_smooth;
void tr_fill(uint8_t *p, uint64_t n, uint64_t seed);

#endif
