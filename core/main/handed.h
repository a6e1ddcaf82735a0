/* SPDX-License-Identifier: Apache-2.0 */
/* What the manager hands to a worker through the environment. */
#ifndef PD_MAIN_HANDED_H
#define PD_MAIN_HANDED_H

#include "loop/uv.h"

#define PD_HANDED_MAX 64u
/* "FD=ADDRESS,FD=ADDRESS": listening sockets. */
#define PD_HANDED_SOCKETS "PDPLANE_SOCKETS"
/* Descriptor on which the worker writes one byte once it serves. */
#define PD_HANDED_READY "PDPLANE_READY_FD"
/* "1": another worker of the same node still ends its requests. */
#define PD_HANDED_REPLACES "PDPLANE_REPLACES"

struct pd_handed {
    struct pd_loop_uv_socket sockets[PD_HANDED_MAX];
    size_t n_sockets;
    int ready_fd;              /* -1: there is no manager */
    bool replaces;
};

/* Reads the environment; PD_OK (also when nothing was handed), PD_EINVAL. */
pd_status pd_handed_read(struct pd_handed *out);
/* Tells the manager that the node serves. */
void pd_handed_ready(struct pd_handed *handed);

#endif
