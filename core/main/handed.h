/* SPDX-License-Identifier: Apache-2.0 */
/* What the manager hands to a worker through the environment. */
#ifndef PD_MAIN_HANDED_H
#define PD_MAIN_HANDED_H

#include "loop/uv.h"
#include "node/sections.h"

#define PD_HANDED_MAX 64u
/* "FD=ADDRESS,FD=ADDRESS": listening sockets. */
#define PD_HANDED_SOCKETS "PDPLANE_SOCKETS"
/* Descriptor (loop/hand.h) on which the worker tells its manager what happens:
 *   ready            it serves
 *   reloaded         it has taken another configuration into use
 *   refused WHY      it has not
 *   open ADDRESS     a listening socket (sent along) that later workers need
 *   close ADDRESS    one that they do not need any more */
#define PD_HANDED_READY "PDPLANE_READY_FD"
/* "1": another worker of the same node still ends its requests. */
#define PD_HANDED_REPLACES "PDPLANE_REPLACES"

struct pd_handed {
    struct pd_loop_uv_socket sockets[PD_HANDED_MAX];
    size_t n_sockets;
    size_t n_kept;             /* of them, those that the manager has */
    int manager;               /* descriptor to tell it; -1: there is none */
    bool replaces;
};

/* Reads the environment; PD_OK (also when nothing was handed), PD_EINVAL. */
pd_status pd_handed_read(struct pd_handed *out);
/* Opens the sockets of a configuration that are not there yet, while the process
 * still may: listeners (struct pd_node_listen_conf) and, unless NULL, the control
 * socket.  PD_OK, or err.  A process without manager gives: pd_handed_forget. */
pd_status pd_handed_claim(struct pd_handed *handed, const struct pd_conf_list *listen,
                          const char *control, struct pd_err *err);
/* Tells the manager, or where there is none the service manager. */
void pd_handed_ready(struct pd_handed *handed);
void pd_handed_reloading(struct pd_handed *handed);
void pd_handed_reloaded(struct pd_handed *handed);
void pd_handed_refused(struct pd_handed *handed, const char *why);

/* Under a manager listening sockets outlive a worker: opens those of a
 * configuration that are not open yet, so that the listeners of the loop take
 * them.  What cannot be opened is left to the listener to tell.  Gives: keep or
 * forget. */
void pd_handed_open(struct pd_handed *handed, struct pd_loop *loop, const struct pd_node_conf *c);
/* The configuration is in use: the manager gets what is new and closes what is
 * not in it any more. */
void pd_handed_keep(struct pd_handed *handed, struct pd_loop *loop, const struct pd_node_conf *c);
/* It is not: closes what was opened for it. */
void pd_handed_forget(struct pd_handed *handed, struct pd_loop *loop);

#endif
