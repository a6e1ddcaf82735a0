/* SPDX-License-Identifier: Apache-2.0 */
/* COPY frames served by reading the memory of the other side over a fabric.
 * Unlike a copy out of mapped memory that takes time, so frames queue up here,
 * are read in pieces, and are answered in their order.
 *
 * Before the first of them the beacon of the other side is read: so a link is up
 * only when the fabric really leads to the process that it was made with.
 *
 * A far belongs to an accepted lane and outlives it until nothing moves. */
#ifndef PD_XP_FAR_H
#define PD_XP_FAR_H

#include <sys/queue.h>

#include <pdplane/transport.h>

struct pd_xp_copy;
struct pd_xp_far;
struct pd_xp_fabric;
struct pd_xp_head;
struct pd_xp_lane;
TAILQ_HEAD(pd_xp_copies, pd_xp_copy);
TAILQ_HEAD(pd_xp_fars, pd_xp_far);

/* PD_OK, or err says why there can be no beacon. */
pd_status pd_xp_far_open(struct pd_transport *tp, struct pd_err *err);
void pd_xp_far_close(struct pd_transport *tp);
/* Sends WHERE. */
pd_status pd_xp_far_tell_where(struct pd_xp_lane *lane);

/* The frames of a lane; each may fail it. */
void pd_xp_far_where(struct pd_xp_lane *lane, const struct pd_xp_head *h);
void pd_xp_far_memory(struct pd_xp_lane *lane, const struct pd_xp_head *h);
void pd_xp_far_forget(struct pd_xp_lane *lane, uint32_t id);
void pd_xp_far_copy(struct pd_xp_lane *lane, const struct pd_xp_head *h);
/* The lane ends; what flies is told to nobody. */
void pd_xp_far_leave(struct pd_xp_lane *lane);
/* False when gets fly and none ended for `patience`. */
bool pd_xp_far_moves(const struct pd_xp_lane *lane, pd_time now, pd_time patience);
/* Nothing more is begun in this window; w->sending tells what still flies. */
void pd_xp_far_unhand(struct pd_transport_window *w);
/* Begins what can begin, answers what is done. */
void pd_xp_far_run(struct pd_transport *tp);

#endif
