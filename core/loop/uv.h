/* SPDX-License-Identifier: Apache-2.0 */
/* The real loop: libuv, the system's sockets and clock. */
#ifndef PD_LOOP_UV_H
#define PD_LOOP_UV_H

#include <pdplane/loop.h>

/* A listening socket that somebody else has opened: a listener on an equal
 * address takes a copy of it instead of binding. */
struct pd_loop_uv_socket {
    struct pd_addr addr;
    int fd;                     /* stays the caller's */
};

struct pd_loop_uv_opts {
    const char *name;           /* of the loop, static; NULL: "loop" */
    pd_time slow_ns;            /* a longer turn is counted and told; 0: 50 ms */
    /* After a slow turn, on the loop's thread: which handler took most of it,
     * for how long, and how long the turn was.  May be NULL. */
    void (*on_slow)(void *arg, const char *handler, pd_time handler_ns, pd_time turn_ns);
    void *arg;
    const struct pd_loop_uv_socket *sockets; /* borrowed as long as the loop lives */
    size_t n_sockets;
    /* Connections to IPv4 addresses go out from these in turn (ports ignored), so
     * that more are possible than one address has ports; borrowed likewise. */
    const struct pd_addr *sources;
    size_t n_sources;
};

/* Creates a loop; opts may be NULL.  Gives it; ended by pd_loop_destroy.
 * PD_OK, PD_ENOMEM, PD_ELIMIT, PD_EIO. */
pd_status pd_loop_uv_create(const struct pd_loop_uv_opts *opts, struct pd_loop **out);

/* Other sockets that were handed to this process, for listeners that are opened
 * from now on; borrowed as long as the loop lives. */
void pd_loop_uv_set_sockets(struct pd_loop *loop, const struct pd_loop_uv_socket *sockets, size_t n);

/* Runs one turn, waiting at most max_wait_ns for something to do
 * (rounded up to milliseconds); for tests and embedding. */
pd_status pd_loop_uv_turn(struct pd_loop *loop, pd_time max_wait_ns);

/* Binds and listens without a loop, for a process that hands its sockets to
 * others.  The descriptor is not closed by exec.  Returns as pd_listener_open. */
pd_status pd_loop_uv_bind(const struct pd_addr *addr, int *fd);

/* No listener of this loop accepts any more: another process does.  What is
 * open goes on. */
void pd_loop_uv_stop_accepting(struct pd_loop *loop);

struct pd_loop_signal;
/* Calls cb on the loop for each arrival of signum.  Gives a handle, ended by
 * pd_loop_uv_signal_close. */
pd_status pd_loop_uv_signal_open(struct pd_loop *loop, int signum, const char *name,
                                 void (*cb)(int signum, void *arg), void *arg,
                                 struct pd_loop_signal **out);
void pd_loop_uv_signal_close(struct pd_loop_signal *sig);

#endif
