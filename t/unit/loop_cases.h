/* SPDX-License-Identifier: Apache-2.0 */
/* Behaviour that every loop must show, written once and run over both
 * backends.  A case uses two loops, `server` and `client`, which are the same
 * loop in the uv backend and two hosts in the simulator. */
#ifndef PD_T_LOOP_CASES_H
#define PD_T_LOOP_CASES_H

#include "unit.h"

#include <pdplane/loop.h>

struct env {
    struct pd_loop *server, *client;
    struct pd_addr addr;        /* to listen on; port 0: any */
    struct pd_addr nobody;      /* an address that refuses */
    struct pd_addr other_family;/* a second address to listen on; family NONE: none */
    const char *host;           /* a name for the server's address */
    /* Runs until cond is true; false after 30 s without that. */
    bool (*run)(struct env *e, bool (*cond)(void *arg), void *arg);
    void *priv;
};

#define LOOP_CASES(X)                                                          \
    X(echo) X(echo_other_family) X(half_close) X(reset) X(refused)             \
    X(timers_order) X(timers_stop) X(timers_self) X(deferred) X(deferred_chain) X(post_order) \
    X(work) X(work_cancel) X(close_in_callbacks) X(close_while_connecting)     \
    X(thousand) X(pause_resume) X(hangup) X(resolve) X(not_taken)              \
    X(listener_pause) X(random) X(addresses) X(busy_destroy) X(stats)     \
    X(no_memory)

#define X(name) void case_##name(struct env *e);
LOOP_CASES(X)
#undef X

#endif
