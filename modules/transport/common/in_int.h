/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of frames that come share: in.c, in_accepted.c, in_opened.c.  All on the
 * loop of the transport; each function may fail the lane. */
#ifndef PD_XP_IN_INT_H
#define PD_XP_IN_INT_H

#include "link.h"

/* Answers the frame that came last. */
static inline void pd_xp_in_reply(struct pd_xp_lane *lane, uint8_t type, pd_status status)
{
    struct pd_xp_head h = { .type = type, .id = lane->in.head.id,
                            .offset = (uint64_t)(-(int64_t)status) };

    pd_xp_lane_control(lane, &h, NULL, 0);
}

/* Whether its checksum is right, or it has none. */
static inline bool pd_xp_in_is_good(struct pd_xp_lane *lane)
{
    if ((lane->in.head.flags & PD_XP_CHECKED) == 0 || lane->in.crc == lane->in.head.crc)
        return true;
    lane->tp->stats.corrupt++;
    return false;
}

/* A header is there: sets where its payload goes. */
void pd_xp_in_write_begins(struct pd_xp_lane *lane);
void pd_xp_in_packed_write_begins(struct pd_xp_lane *lane);
void pd_xp_in_data_begins(struct pd_xp_lane *lane);

/* The whole frame is there. */

/* ---- in_accepted.c */
void pd_xp_in_hello_done(struct pd_xp_lane *lane);
void pd_xp_in_write_done(struct pd_xp_lane *lane);
void pd_xp_in_packed_write_done(struct pd_xp_lane *lane);
void pd_xp_in_copy_done(struct pd_xp_lane *lane);
void pd_xp_in_where_done(struct pd_xp_lane *lane);
void pd_xp_in_memory_done(struct pd_xp_lane *lane);
void pd_xp_in_read_asked(struct pd_xp_lane *lane);

/* ---- in_opened.c */
void pd_xp_in_ready(struct pd_xp_lane *lane);
void pd_xp_in_greeted(struct pd_xp_lane *lane);
void pd_xp_in_answered(struct pd_xp_lane *lane, pd_status status);
void pd_xp_in_data_done(struct pd_xp_lane *lane);
void pd_xp_in_read_answered(struct pd_xp_lane *lane, pd_status status);

#endif
