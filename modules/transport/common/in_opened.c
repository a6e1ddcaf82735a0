/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of lanes that we opened: the greeting's answer, and the answers to what was sent
 * and asked for.
 *
 * Answers come in the order of their questions; one to nothing, or to a frame that is not
 * sent whole, ends the lane.  A question whose transfer is gone waits for its answer too. */
#include "in_int.h"

static void tell_where(struct pd_xp_lane *lane)
{
    pd_status st = pd_xp_far_tell_where(lane);

    if (st != PD_OK)
        pd_xp_lane_fail(lane, st);
}

void pd_xp_in_ready(struct pd_xp_lane *lane)
{
    struct pd_xp_hello hello = { .frame_bytes = lane->frame_bytes };

    if (lane->peer->up_lanes > 0)
        pd_xp_lane_fail(lane, PD_EPROTO);
    else
        pd_xp_peer_lane_up(lane, &hello);
}

void pd_xp_in_greeted(struct pd_xp_lane *lane)
{
    struct pd_transport_peer *peer = lane->peer;
    struct pd_xp_hello hello;

    if (!pd_xp_in_is_good(lane)) {
        pd_xp_lane_fail(lane, PD_EINTEGRITY);
        return;
    }
    pd_xp_hello_decode(lane->small_in, &hello);
    if (!pd_xp_node_equal(&hello.from, &peer->node) ||
        !pd_xp_node_equal(&hello.to, &lane->tp->self)) {
        pd_xp_lane_fail(lane, PD_ESTALE);
        return;
    }
    if (hello.kind != lane->tp->conf.kind || hello.link != peer->link_id ||
        hello.frame_bytes == 0) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    lane->remote = hello.from;
    lane->packs = pd_xp_pack_agrees(lane->tp, &hello);
    lane->state = PD_XP_LANE_UP;
    lane->frame_bytes = hello.frame_bytes;
    if (lane->tp->conf.fabric != NULL)
        tell_where(lane);
    else
        pd_xp_peer_lane_up(lane, &hello);
}

void pd_xp_in_answered(struct pd_xp_lane *lane, pd_status status)
{
    struct pd_xp_sent s = lane->sent[lane->sent_head];

    if (lane->sent_n == 0 || s.id != lane->in.head.id ||
        (lane->out.active && lane->out.is_post && lane->out.id == s.id)) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    lane->sent_head = (lane->sent_head + 1) % PD_XP_MAX_SENT;
    lane->sent_n--;
    if (s.transfer != NULL)
        pd_xp_transfer_answer(s.transfer, s.len, status);
    pd_xp_lane_kick(lane);
}

void pd_xp_in_data_begins(struct pd_xp_lane *lane)
{
    const struct pd_xp_sent *s = &lane->reads[lane->reads_head];
    bool packed = (lane->in.head.flags & PD_XP_ENCODED) != 0;

    if (lane->reads_n == 0 || s->id != lane->in.head.id ||
        (!packed && s->len != lane->in.head.length)) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    if (s->transfer == NULL)
        return;
    lane->in.transfer = s->transfer;
    if (packed) {
        pd_status st = pd_xp_pack_begins(lane);
        if (st != PD_OK)
            pd_xp_lane_fail(lane, st);
        return;
    }
    lane->in.sink = PD_XP_SINK_SEGS;
    lane->in.segs = s->transfer->segs;
    lane->in.base = s->from;
}

void pd_xp_in_read_answered(struct pd_xp_lane *lane, pd_status status)
{
    struct pd_xp_sent s = lane->reads[lane->reads_head];

    if (lane->reads_n == 0 || s.id != lane->in.head.id) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    lane->reads_head = (lane->reads_head + 1) % PD_XP_MAX_READS;
    lane->reads_n--;
    lane->in.transfer = NULL;
    if (s.transfer != NULL)
        pd_xp_transfer_answer(s.transfer, s.len, status);
    pd_xp_lane_kick(lane);
}

void pd_xp_in_data_done(struct pd_xp_lane *lane)
{
    const struct pd_xp_sent *s = &lane->reads[lane->reads_head];
    pd_status st = PD_OK;

    if (lane->in.transfer != NULL && !pd_xp_in_is_good(lane)) {
        st = PD_EINTEGRITY;
    } else if (lane->in.transfer != NULL && (lane->in.head.flags & PD_XP_ENCODED) != 0) {
        if (pd_xp_pack_plain(lane) != s->len) {
            pd_xp_lane_fail(lane, PD_EPROTO);
            return;
        }
        st = pd_xp_pack_decode(lane, s->transfer->segs, s->from);
    }
    pd_xp_in_read_answered(lane, st);
}
