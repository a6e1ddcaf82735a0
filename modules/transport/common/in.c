/* SPDX-License-Identifier: Apache-2.0 */
/* What comes on a lane: reading, and which frame may come when.  What a frame does is in
 * in_accepted.c and in_opened.c, by the side of the lane.  A header is read alone or behind the payload before
 * it, then decided on, then its payload is read straight to where it belongs:
 * segments of a window, segments of a READ, a small buffer, or the scratch
 * buffer when nobody may have it.  Every frame is checked against the state
 * and the side of the lane; one that breaks the rules ends the lane. */
#include "fabric.h"
#include "in_int.h"

static pd_status status_of(const struct pd_xp_head *h)
{
    if (h->offset == 0 || h->offset > 64)
        return PD_EIO;
    return (pd_status)(-(int64_t)h->offset);
}

/* ---- frames */

static bool is_allowed(const struct pd_xp_lane *lane, const struct pd_xp_head *h)
{
    const struct pd_xp_conf *conf = &lane->tp->conf;
    bool named = pd_xp_by_name(lane->tp);
    bool far = conf->fabric != NULL;
    bool up = lane->state == PD_XP_LANE_UP;

    if ((h->flags & PD_XP_ENCODED) != 0 && !pd_xp_pack_allows(lane, h))
        return false;
    switch (h->type) {
    case PD_XP_HELLO:
        return lane->accepted && !up && h->length == PD_XP_HELLO_BYTES;
    case PD_XP_HELLO_OK:
        return !lane->accepted && !up && h->length == PD_XP_HELLO_BYTES;
    case PD_XP_REFUSED:
        return !lane->accepted && !up && h->length == 0;
    case PD_XP_WRITE:
        return lane->accepted && up && !named && h->length > 0 && h->length <= conf->frame_bytes;
    case PD_XP_COPY:
        return lane->accepted && up && named && h->length > 0 && h->length <= PD_XP_SMALL;
    case PD_XP_READ:
        return lane->accepted && up && !named && h->length == 0;
    case PD_XP_PING:
        return lane->accepted && up && h->length == 0;
    case PD_XP_WHERE:
        return lane->accepted && up && far && h->length > 0 &&
               h->length <= 2 * PD_XP_FABRIC_BYTES;
    case PD_XP_READY:
        return !lane->accepted && up && far && h->length == 0;
    case PD_XP_MEMORY:
        if (far)
            return lane->accepted && up && h->length > 0 && h->length <= PD_XP_FABRIC_BYTES;
        return lane->accepted && up && named && h->length == 0;
    case PD_XP_FORGET:
        return lane->accepted && up && named && h->length == 0;
    case PD_XP_DATA:
        return !lane->accepted && up && !named && h->length > 0;
    case PD_XP_ACK:
    case PD_XP_NACK:
    case PD_XP_PONG:
        return !lane->accepted && up && h->length == 0;
    case PD_XP_READ_NACK:
        return !lane->accepted && up && !named && h->length == 0;
    default:
        return false;
    }
}

/* The whole frame is there. */
static void frame_done(struct pd_xp_lane *lane)
{
    const struct pd_xp_head *h = &lane->in.head;

    switch (h->type) {
    case PD_XP_HELLO:
        pd_xp_in_hello_done(lane);
        break;
    case PD_XP_HELLO_OK:
        pd_xp_in_greeted(lane);
        break;
    case PD_XP_REFUSED:
        pd_xp_lane_fail(lane, status_of(h));
        break;
    case PD_XP_WRITE:
        if ((h->flags & PD_XP_ENCODED) != 0)
            pd_xp_in_packed_write_done(lane);
        else
            pd_xp_in_write_done(lane);
        break;
    case PD_XP_COPY:
        pd_xp_in_copy_done(lane);
        break;
    case PD_XP_WHERE:
        pd_xp_in_where_done(lane);
        break;
    case PD_XP_READY:
        pd_xp_in_ready(lane);
        break;
    case PD_XP_READ:
        pd_xp_in_read_asked(lane);
        break;
    case PD_XP_PING:
        pd_xp_in_reply(lane, PD_XP_PONG, PD_OK);
        break;
    case PD_XP_PONG:
        lane->pinging = false;
        break;
    case PD_XP_MEMORY:
        pd_xp_in_memory_done(lane);
        break;
    case PD_XP_FORGET:
        if (lane->tp->conf.fabric != NULL)
            pd_xp_far_forget(lane, h->id);
        else
            pd_xp_share_forget(lane, h->id);
        break;
    case PD_XP_ACK:
        pd_xp_in_answered(lane, PD_OK);
        break;
    case PD_XP_NACK:
        pd_xp_in_answered(lane, status_of(h));
        break;
    case PD_XP_DATA:
        pd_xp_in_data_done(lane);
        break;
    case PD_XP_READ_NACK:
        pd_xp_in_read_answered(lane, status_of(h));
        break;
    default:
        pd_xp_lane_fail(lane, PD_EPROTO);
    }
}

/* A header is complete: decides where the payload goes. */
static void head_done(struct pd_xp_lane *lane)
{
    struct pd_xp_head *h = &lane->in.head;
    pd_status st = pd_xp_head_decode(&lane->tp->crc, lane->head_buf, h);

    lane->head_have = 0;
    if (st == PD_EINTEGRITY)
        lane->tp->stats.corrupt++;
    if (st == PD_OK && (h->seq != lane->seq_in || !is_allowed(lane, h)))
        st = PD_EPROTO;
    if (st != PD_OK) {
        pd_xp_lane_fail(lane, st);
        return;
    }
    lane->seq_in++;
    lane->in.sink = PD_XP_SINK_DRAIN;
    lane->in.window = NULL;
    lane->in.transfer = NULL;
    lane->in.done = 0;
    lane->in.crc = 0;
    lane->in.verdict = PD_OK;
    lane->in_body = h->length > 0;
    if (!lane->in_body)
        frame_done(lane);
    else if (h->type == PD_XP_WRITE && (h->flags & PD_XP_ENCODED) != 0)
        pd_xp_in_packed_write_begins(lane);
    else if (h->type == PD_XP_WRITE)
        pd_xp_in_write_begins(lane);
    else if (h->type == PD_XP_DATA)
        pd_xp_in_data_begins(lane);
    else
        lane->in.sink = PD_XP_SINK_SMALL;
}

/* Where the next bytes go; *body is how many of them are payload. */
static size_t make_room(struct pd_xp_lane *lane, struct pd_iov *iov, uint64_t *body)
{
    uint64_t left = lane->in.head.length - lane->in.done;
    size_t n = 0;

    *body = 0;
    if (lane->in_body) {
        switch (lane->in.sink) {
        case PD_XP_SINK_SEGS:
            n = pd_xp_segs_iov(lane->in.segs, lane->in.base + lane->in.done, left, iov,
                               PD_XP_IOV - 1, body);
            break;
        case PD_XP_SINK_PACK:
            iov[n++] = (struct pd_iov){ lane->pack_in + lane->in.done, left };
            *body = left;
            break;
        case PD_XP_SINK_SMALL:
            iov[n++] = (struct pd_iov){ lane->small_in + lane->in.done, left };
            *body = left;
            break;
        default:
            *body = left < PD_XP_SCRATCH ? left : PD_XP_SCRATCH;
            iov[n++] = (struct pd_iov){ lane->tp->scratch, *body };
        }
        if (*body < left)
            return n;
    }
    iov[n++] = (struct pd_iov){ lane->head_buf + lane->head_have,
                                PD_XP_HEAD_BYTES - lane->head_have };
    return n;
}

static void body_came(struct pd_xp_lane *lane, const struct pd_iov *iov, uint64_t n)
{
    lane->in.done += (uint32_t)n;
    if ((lane->in.head.flags & PD_XP_CHECKED) != 0 && lane->in.sink != PD_XP_SINK_DRAIN) {
        uint64_t left = n;
        for (; left > 0; iov++) {
            size_t run = iov->len < left ? iov->len : (size_t)left;
            lane->in.crc = pd_xp_crc(&lane->tp->crc, lane->in.crc, iov->base, run);
            left -= run;
        }
    }
    if (lane->in.done == lane->in.head.length) {
        lane->in_body = false;
        frame_done(lane);
    }
}

static pd_status receive(struct pd_xp_lane *lane, const struct pd_iov *iov, size_t n, size_t *got)
{
    size_t nfds = 0;
    pd_status st;

    if (lane->tp->conf.kind != PD_XP_SHM || !lane->accepted)
        return pd_stream_readv(lane->stream, iov, n, got);
    st = pd_stream_recv_fds(lane->stream, iov, n, got, lane->fds + lane->n_fds,
                            PD_XP_MAX_FDS - lane->n_fds, &nfds);
    lane->n_fds += (uint32_t)nfds;
    return st;
}

/* One read and what follows from it.  PD_OK, or why to stop. */
static pd_status read_once(struct pd_xp_lane *lane, uint64_t *cost)
{
    struct pd_iov iov[PD_XP_IOV];
    uint64_t body;
    size_t got = 0;
    size_t n = make_room(lane, iov, &body);
    pd_status st = receive(lane, iov, n, &got);

    if (st != PD_OK)
        return st;
    lane->last_in = lane->last_progress = pd_loop_now(lane->tp->loop);
    lane->in.cost = 0;
    *cost = got;
    if (body > got)
        body = got;
    if (body > 0)
        body_came(lane, iov, body);
    if (got > body && lane->state != PD_XP_LANE_CLOSED && lane->state != PD_XP_LANE_LEAVING) {
        lane->head_have += (uint32_t)(got - body);
        if (lane->head_have == PD_XP_HEAD_BYTES)
            head_done(lane);
    }
    *cost += lane->in.cost;
    return PD_OK;
}

static bool is_reading(const struct pd_xp_lane *lane)
{
    return !lane->paused &&
           (lane->state == PD_XP_LANE_UP || lane->state == PD_XP_LANE_GREETING);
}

void pd_xp_lane_readable(struct pd_stream *s, void *arg)
{
    struct pd_xp_lane *lane = arg;
    uint64_t budget = PD_XP_READ_BUDGET;

    (void)s;
    while (is_reading(lane)) {
        uint64_t cost = 0;
        pd_status st = read_once(lane, &cost);
        if (st == PD_EAGAIN)
            break;
        if (st != PD_OK) {
            bool clean = st == PD_EEOF && lane->accepted && !lane->in_body && lane->head_have == 0;
            pd_xp_lane_fail(lane, clean ? PD_EEOF : st == PD_EEOF ? PD_EPEER : st);
            return;
        }
        if (lane->state == PD_XP_LANE_UP && lane->ctl_len >= PD_XP_CTL_MAX) {
            lane->paused = true;
            pd_stream_pause_read(lane->stream);
        }
        if (cost >= budget)
            break;
        budget -= cost;
    }
    if (lane->state != PD_XP_LANE_CLOSED && (lane->ctl_len > 0 || lane->asked_n > 0))
        pd_xp_lane_flush(lane);
}
