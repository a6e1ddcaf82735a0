/* SPDX-License-Identifier: Apache-2.0 */
/* Where cases of transports run. */
#ifndef PD_T_CONFORM_TRANSPORT_RUN_H
#define PD_T_CONFORM_TRANSPORT_RUN_H

#include "conform/conform.h"
#include "unit/transport_cases.h"

/* Both nodes of a case are on one real loop. */
void cf_on_real_loop(const struct cf_unit *u, void (*fn)(struct tr_env *e));
/* Each node is on a loop of its own, with a line between that loses a little;
 * skipped when the module declines the simulator. */
void cf_in_simulator(const struct cf_unit *u, void (*fn)(struct tr_env *e));

/* Two nodes, a way from b to a, and a window of a that begins at its memory. */
struct cf_pair {
    struct tr_node a, b;
    struct tr_link link;
    struct tr_window w;
    struct pd_transport_target *t;
};

void cf_pair_open(struct tr_env *e, struct cf_pair *p, uint64_t bytes, uint64_t window, const void *conf);
void cf_pair_close(struct tr_env *e, struct cf_pair *p);

#endif
