/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket of a node: one command per line in, text or JSON out; what
 * pdctl talks to.  doc/guide/control-protocol.md tells the protocol.  Loop
 * thread. */
#ifndef PD_CTL_CTL_H
#define PD_CTL_CTL_H

#include "node/node.h"

struct pd_ctl;

struct pd_ctl_params {
    struct pd_loop *loop;
    struct pd_log *log;        /* levels are changed on it */
    struct pd_node *node;      /* outlives the control socket */
    const char *path;          /* of the unix socket, mode 0660; borrowed for the call */
    /* The command reload: PD_OK when the configuration on disk is in use; otherwise
     * err says why not and nothing has changed.  May be NULL. */
    pd_status (*on_reload)(void *arg, struct pd_err *err);
    void (*on_drain)(void *arg);  /* the command drain; not from inside a function of this header */
    void (*on_stop)(void *arg);   /* the command stop; likewise */
    void *arg;
};

/* What the socket has done; counters only grow. */
struct pd_ctl_stats {
    uint64_t accepted;         /* connections */
    uint64_t refused;          /* connections above the limit */
    uint64_t commands;         /* answered with ok */
    uint64_t errors;           /* answered with error */
    uint64_t too_long;         /* connections closed because of a line without end */
    uint64_t timeouts;         /* connections closed because nothing moved */
    uint64_t open;             /* connections now */
};

/* PD_OK, or err says why the socket cannot be opened. */
pd_status pd_ctl_create(const struct pd_ctl_params *params, struct pd_ctl **out, struct pd_err *err);
/* Closes the socket and open connections; closed is the last call. */
void pd_ctl_destroy(struct pd_ctl *ctl, void (*closed)(void *arg), void *arg);
/* Borrowed; changes as the socket works. */
const struct pd_ctl_stats *pd_ctl_stats(const struct pd_ctl *ctl);

#endif
