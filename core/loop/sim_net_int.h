/* SPDX-License-Identifier: Apache-2.0 */
/* What sim_net.c and sim_conn.c share. */
#ifndef PD_LOOP_SIM_NET_INT_H
#define PD_LOOP_SIM_NET_INT_H

#include "loop/sim_impl.h"

static inline uint32_t pd_loop_sim_conn_buffer(const struct sim_conn *c)
{
    return c->sim->opts.buffer_bytes;
}

/* ---- sim_net.c */
bool pd_loop_sim_is_loopback(const struct pd_addr *a);
/* Whether nothing gets through between them now. */
bool pd_loop_sim_conn_is_blocked(struct sim_conn *c, struct sim_host *from, struct sim_host *to);
/* Sends a packet; without memory it is lost, like others. */
struct sim_packet *pd_loop_sim_packet_send(struct sim_conn *c, uint8_t from, uint8_t type, uint32_t len);

/* ---- sim_conn.c */
/* Nothing of what end i has sent is sent again. */
void pd_loop_sim_conn_cancel_retry(struct sim_conn *c, uint8_t i);
/* Ends end i when its owner has closed it and all is said in both directions. */
void pd_loop_sim_conn_maybe_finished(struct sim_conn *c, uint8_t i);

#endif
