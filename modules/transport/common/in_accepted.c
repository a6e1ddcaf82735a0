/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of accepted lanes: who greets is let in or refused, what is written or copied
 * lands in a window and is answered, what is read is noted for out.c.
 *
 * Each WRITE, COPY and READ is held against the windows anew, since a window may close
 * between two frames, or between a frame's header and its end. */
#include "in_int.h"

#include <string.h>

static void refuse(struct pd_xp_lane *lane, pd_status status)
{
    pd_log_warn(lane->tp->log, "refused a peer's greeting, status %d", (int)status);
    lane->tp->stats.refused++;
    pd_xp_in_reply(lane, PD_XP_REFUSED, status);
    if (lane->state == PD_XP_LANE_CLOSED)
        return;
    lane->state = PD_XP_LANE_LEAVING;
    pd_stream_pause_read(lane->stream);
}

void pd_xp_in_hello_done(struct pd_xp_lane *lane)
{
    struct pd_transport *tp = lane->tp;
    struct pd_xp_head h = { .type = PD_XP_HELLO_OK };
    struct pd_xp_hello hello, answer;
    uint8_t buf[PD_XP_HELLO_BYTES];

    if (!pd_xp_in_is_good(lane)) {
        pd_xp_lane_fail(lane, PD_EINTEGRITY);
        return;
    }
    pd_xp_hello_decode(lane->small_in, &hello);
    if (hello.kind != tp->conf.kind || hello.lane >= PD_XP_MAX_LANES || hello.frame_bytes == 0) {
        refuse(lane, PD_EPROTO);
        return;
    }
    if (!pd_xp_token_equal(hello.key, tp->key)) {
        refuse(lane, PD_EPERM);
        return;
    }
    if (!pd_xp_node_equal(&hello.to, &tp->self)) {
        refuse(lane, PD_ESTALE);
        return;
    }
    if (!pd_xp_lane_is(lane, &hello.from) ||
        pd_xp_window_admit(tp, &lane->in.head, &hello) != PD_OK) {
        refuse(lane, PD_EPERM);
        return;
    }
    lane->remote = hello.from;
    lane->index = hello.lane;
    lane->silence = hello.keepalive_ms == 0
                        ? 0
                        : 2 * hello.keepalive_ms * PD_MS + 2 * tp->conf.timeout;
    lane->state = PD_XP_LANE_UP;
    memset(&answer, 0, sizeof(answer));
    answer.from = tp->self;
    answer.to = hello.from;
    answer.link = hello.link;
    answer.frame_bytes = tp->conf.frame_bytes;
    answer.lane = hello.lane;
    answer.lanes = hello.lanes;
    answer.kind = tp->conf.kind;
    lane->packs = pd_xp_pack_agrees(tp, &hello);
    pd_xp_pack_offer(tp, &answer);
    pd_xp_hello_encode(&answer, buf);
    pd_xp_lane_control(lane, &h, buf, sizeof(buf));
}

void pd_xp_in_write_begins(struct pd_xp_lane *lane)
{
    const struct pd_xp_head *h = &lane->in.head;
    struct pd_transport_window *w = NULL;

    lane->in.verdict = pd_xp_window_find(lane, h, PD_TRANSPORT_WRITE, h->length, &w);
    if (lane->in.verdict == PD_OK)
        lane->in.verdict = pd_xp_window_touch(w, h->offset, h->length);
    if (lane->in.verdict != PD_OK)
        return;
    lane->in.window = w;
    lane->in.sink = PD_XP_SINK_SEGS;
    lane->in.segs = w->segs;
    lane->in.base = h->offset;
}

/* The bytes are in place: count and answer them. */
static void stored(struct pd_xp_lane *lane, struct pd_transport_window *w, uint32_t len)
{
    const struct pd_xp_hooks *hooks = lane->tp->conf.hooks;
    uint64_t offset = lane->in.head.offset;
    uint32_t count = len;
    bool answer = true;
    pd_status st;

    if (hooks != NULL && hooks->stored != NULL)
        answer = hooks->stored(hooks->arg, w, offset, len, &count);
    st = pd_xp_window_landed(w, offset, count);
    if (answer)
        pd_xp_in_reply(lane, st == PD_OK ? PD_XP_ACK : PD_XP_NACK, st);
}

void pd_xp_in_write_done(struct pd_xp_lane *lane)
{
    struct pd_transport_window *w = lane->in.window;

    if (w != NULL && !pd_xp_in_is_good(lane))
        lane->in.verdict = PD_EINTEGRITY;
    lane->in.window = NULL;
    if (lane->in.verdict == PD_OK)
        stored(lane, w, lane->in.head.length);
    else
        pd_xp_in_reply(lane, PD_XP_NACK, lane->in.verdict);
}

void pd_xp_in_packed_write_begins(struct pd_xp_lane *lane)
{
    pd_status st = pd_xp_pack_begins(lane);

    if (st != PD_OK)
        pd_xp_lane_fail(lane, st);
}

/* As write_begins and write_done, once the whole payload is there. */
void pd_xp_in_packed_write_done(struct pd_xp_lane *lane)
{
    const struct pd_xp_head *h = &lane->in.head;
    uint32_t len = pd_xp_pack_plain(lane);
    struct pd_transport_window *w = NULL;
    pd_status st;

    if (!pd_xp_in_is_good(lane)) {
        pd_xp_in_reply(lane, PD_XP_NACK, PD_EINTEGRITY);
        return;
    }
    if (len == 0) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    st = pd_xp_window_find(lane, h, PD_TRANSPORT_WRITE, len, &w);
    if (st == PD_OK)
        st = pd_xp_window_touch(w, h->offset, len);
    if (st == PD_OK)
        st = pd_xp_pack_decode(lane, w->segs, h->offset);
    if (st == PD_OK)
        stored(lane, w, len);
    else
        pd_xp_in_reply(lane, PD_XP_NACK, st);
}

void pd_xp_in_copy_done(struct pd_xp_lane *lane)
{
    const struct pd_xp_head *h = &lane->in.head;
    struct pd_transport_window *w = NULL;
    uint64_t bytes = 0;
    pd_status st;

    if (!pd_xp_in_is_good(lane)) {
        pd_xp_in_reply(lane, PD_XP_NACK, PD_EINTEGRITY);
        return;
    }
    if (lane->tp->conf.fabric != NULL) {
        pd_xp_far_copy(lane, h);
        return;
    }
    st = pd_xp_share_read(lane, lane->small_in, h->length, &bytes);
    if (st != PD_OK || bytes > lane->tp->conf.frame_bytes) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    st = pd_xp_window_find(lane, h, PD_TRANSPORT_WRITE, bytes, &w);
    if (st == PD_OK)
        st = pd_xp_window_touch(w, h->offset, bytes);
    if (st != PD_OK) {
        pd_xp_in_reply(lane, PD_XP_NACK, st);
        return;
    }
    pd_xp_share_copy(lane, lane->small_in, h->length, w->segs, h->offset);
    lane->in.cost = bytes;
    stored(lane, w, (uint32_t)bytes);
}

void pd_xp_in_where_done(struct pd_xp_lane *lane)
{
    if (pd_xp_in_is_good(lane))
        pd_xp_far_where(lane, &lane->in.head);
    else
        pd_xp_lane_fail(lane, PD_EINTEGRITY);
}

void pd_xp_in_memory_done(struct pd_xp_lane *lane)
{
    if (lane->tp->conf.fabric == NULL)
        pd_xp_share_take(lane, &lane->in.head);
    else if (pd_xp_in_is_good(lane))
        pd_xp_far_memory(lane, &lane->in.head);
    else
        pd_xp_lane_fail(lane, PD_EINTEGRITY);
}

void pd_xp_in_read_asked(struct pd_xp_lane *lane)
{
    const struct pd_xp_head *h = &lane->in.head;
    struct pd_xp_asked a = { .offset = h->offset, .len = h->crc, .id = h->id };

    if (lane->asked_n >= PD_XP_MAX_READS || h->crc == 0 || h->crc > lane->tp->conf.frame_bytes) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    a.status = pd_xp_window_find(lane, h, PD_TRANSPORT_READ, h->crc, &a.window);
    lane->asked[(lane->asked_head + lane->asked_n) % PD_XP_MAX_READS] = a;
    lane->asked_n++;
}
