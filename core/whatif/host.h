/* SPDX-License-Identifier: Apache-2.0 */
/* A whole node on a host of the simulator: loop, log, modules, the node.  Steps:
 * open, then a configuration is read with its mods, then start; end, and free
 * once is_closed.  Loop thread. */
#ifndef PD_WHATIF_HOST_H
#define PD_WHATIF_HOST_H

#include "loop/sim.h"
#include "node/node.h"

struct pd_whatif_host {
    const char *name;           /* borrowed */
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_mods *mods;
    struct pd_conf *conf;
    struct pd_node *node;       /* NULL: not started, or gone */
    bool owns_mods;
    bool is_closed;             /* nothing of the node is left but what free frees */
};

struct pd_whatif_host_opts {
    const char *name;           /* of host and node */
    const char *ip;             /* NULL: as pd_sim_loop_create */
    int32_t level;              /* of the log */
    void (*on_line)(void *arg, int32_t level, struct pd_str line);
    void *arg;
    struct pd_mods *mods;       /* borrowed; NULL: a table of its own */
};

/* Makes the host.  PD_OK, or err says why not; h is to be freed either way. */
pd_status pd_whatif_host_open(struct pd_sim *sim, const struct pd_whatif_host_opts *opts,
                              struct pd_whatif_host *h, struct pd_err *err);
/* Creates and starts the node.  Takes: conf, also on failure.  descriptors: see
 * struct pd_node_params.  PD_OK, or err says why not; pd_whatif_host_end then. */
pd_status pd_whatif_host_start(struct pd_whatif_host *h, struct pd_conf *conf, uint64_t descriptors,
                               struct pd_err *err);
/* The node ends at the next turns of its loop; then is_closed is set. */
void pd_whatif_host_end(struct pd_whatif_host *h);
/* The host dies at once, as pd_sim_crash says; what the node held stays allocated,
 * as a process that dies frees nothing. */
void pd_whatif_host_crash(struct pd_whatif_host *h, bool tell_peers);
/* Frees everything.  PD_OK; PD_EBUSY: names (may be NULL) gets what is still open. */
pd_status pd_whatif_host_free(struct pd_whatif_host *h, char *names, size_t size);

#endif
