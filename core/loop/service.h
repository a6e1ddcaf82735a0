/* SPDX-License-Identifier: Apache-2.0 */
/* What a service manager such as systemd gives a daemon and wants to hear: the
 * datagrams of sd_notify(3) and the descriptors of sd_listen_fds(3), without its
 * library.  Main thread. */
#ifndef PD_LOOP_SERVICE_H
#define PD_LOOP_SERVICE_H

#include "loop/uv.h"

/* Sends "READY=1\nSTATUS=..." and the like to the socket that NOTIFY_SOCKET
 * names; never waits.  PD_OK, also when nobody listens; PD_EINVAL for a socket name that is
 * none; what the system said. */
pd_status pd_service_notify(const char *text);

/* The listening sockets that this process was started with (LISTEN_PID,
 * LISTEN_FDS), each with its address, at most `cap`; *n how many.  Descriptors
 * that do not listen are left out.  PD_OK; PD_EINVAL: the variables are
 * malformed.  The variables are removed, so that children do not see them. */
pd_status pd_service_sockets(struct pd_loop_uv_socket *out, size_t cap, size_t *n);

#endif
