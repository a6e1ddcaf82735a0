/* SPDX-License-Identifier: Apache-2.0 */
/* Whole nodes in the simulator, for tests: made from configuration texts, one
 * host each, their log lines part of the event log. */
#ifndef PD_T_SIM_NODES_H
#define PD_T_SIM_NODES_H

#include "loop/sim.h"
#include "node/node.h"

#define SIM_NODES_MAX 8

struct sim_cluster;

struct sim_node {
    struct sim_cluster *cluster;
    const char *host;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_mods *mods;
    struct pd_conf *conf;
    struct pd_node *node;
    bool is_closed;
};

struct sim_cluster {
    struct pd_sim *sim;
    struct sim_node nodes[SIM_NODES_MAX];
    uint32_t n;
    bool is_quiet;             /* nodes that start log errors only, otherwise all */
    FILE *trace;               /* event log, when PD_SIM_TRACE names a file */
    void (*watch)(void *arg);  /* called with the cluster after each event while one waits; may be NULL */
};

/* One answer, as a client on a host of its own sees it. */
struct sim_answer {
    uint32_t status;
    bool is_over;
    pd_status error;
    char body[65536];
    size_t n;
};

void sim_cluster_init(struct sim_cluster *c, uint64_t seed, const struct pd_sim_opts *opts);
/* Closes every node and checks that nothing is left open. */
void sim_cluster_fini(struct sim_cluster *c);
/* Starts a node on 10.0.0.1, 10.0.0.2 ... in the order of first starts; text is its configuration
 * without module_path.  Fails the test when it does not start. */
struct sim_node *sim_node_start(struct sim_cluster *c, const char *host, const char *text);
/* The same for one that may not start, and then is closed by sim_cluster_fini: arm is called
 * with arg when its configuration is read, and err says why it did not start. */
pd_status sim_node_try(struct sim_cluster *c, const char *host, const char *text, void (*arm)(void *arg),
                       void *arg, struct sim_node **out, struct pd_err *err);
/* Reads a configuration for a node, as sim_node_start does; NULL: it is none, and
 * what is wrong was printed.  Gives: pd_conf_put. */
struct pd_conf *sim_conf_read(struct sim_node *n, const char *text);
/* Takes another configuration into use, in the turn that runs; what pd_node_reload says. */
pd_status sim_node_reload(struct sim_node *n, const char *text, struct pd_err *err);
/* The host dies at once. */
void sim_node_crash(struct sim_node *n, bool tell_peers);
/* Sends a POST from a new host and runs until its answer is over. */
void sim_post(struct sim_cluster *c, const char *ip, uint16_t port, const char *path, const char *body,
              pd_time limit, struct sim_answer *out);
/* The same with a GET. */
void sim_get(struct sim_cluster *c, const char *ip, uint16_t port, const char *path, pd_time limit,
             struct sim_answer *out);
/* The same for several POSTs at once; a body that is NULL makes a GET of one. */
void sim_post_many(struct sim_cluster *c, const char *ip, uint16_t port, const char *path,
                   const char *const *bodies, uint32_t n, pd_time limit, struct sim_answer *out);

#endif
