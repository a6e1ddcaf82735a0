/* SPDX-License-Identifier: Apache-2.0 */
/* What comes on a lane.  A header is read alone or behind the payload before
 * it, then decided on, then its payload is read straight to where it belongs:
 * segments of a window, segments of a READ, a small buffer, or the scratch
 * buffer when nobody may have it.  Every frame is checked against the state
 * and the side of the lane; one that breaks the rules ends the lane. */
#include "fabric.h"
#include "link.h"

#include <string.h>
#include <unistd.h>

static void reply(struct pd_xp_lane *lane, uint8_t type, pd_status status)
{
    struct pd_xp_head h = { .type = type, .id = lane->in.head.id,
                            .offset = (uint64_t)(-(int64_t)status) };

    pd_xp_lane_control(lane, &h, NULL, 0);
}

static pd_status status_of(const struct pd_xp_head *h)
{
    if (h->offset == 0 || h->offset > 64)
        return PD_EIO;
    return (pd_status)(-(int64_t)h->offset);
}

static bool payload_is_good(struct pd_xp_lane *lane)
{
    if ((lane->in.head.flags & PD_XP_CHECKED) == 0 || lane->in.crc == lane->in.head.crc)
        return true;
    lane->tp->stats.corrupt++;
    return false;
}

/* ---- accepted lanes */

static void refuse(struct pd_xp_lane *lane, pd_status status)
{
    pd_log_warn(lane->tp->log, "refused a peer's greeting, status %d", (int)status);
    lane->tp->stats.refused++;
    reply(lane, PD_XP_REFUSED, status);
    if (lane->state == PD_XP_LANE_CLOSED)
        return;
    lane->state = PD_XP_LANE_LEAVING;
    pd_stream_pause_read(lane->stream);
}

static void hello_done(struct pd_xp_lane *lane)
{
    struct pd_transport *tp = lane->tp;
    struct pd_xp_head h = { .type = PD_XP_HELLO_OK };
    struct pd_xp_hello hello, answer;
    uint8_t buf[PD_XP_HELLO_BYTES];

    if (!payload_is_good(lane)) {
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

static void write_begins(struct pd_xp_lane *lane)
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
        reply(lane, st == PD_OK ? PD_XP_ACK : PD_XP_NACK, st);
}

static void write_done(struct pd_xp_lane *lane)
{
    struct pd_transport_window *w = lane->in.window;

    if (w != NULL && !payload_is_good(lane))
        lane->in.verdict = PD_EINTEGRITY;
    lane->in.window = NULL;
    if (lane->in.verdict == PD_OK)
        stored(lane, w, lane->in.head.length);
    else
        reply(lane, PD_XP_NACK, lane->in.verdict);
}

static void packed_write_begins(struct pd_xp_lane *lane)
{
    pd_status st = pd_xp_pack_begins(lane);

    if (st != PD_OK)
        pd_xp_lane_fail(lane, st);
}

/* As write_begins and write_done, once the whole payload is there. */
static void packed_write_done(struct pd_xp_lane *lane)
{
    const struct pd_xp_head *h = &lane->in.head;
    uint32_t len = pd_xp_pack_plain(lane);
    struct pd_transport_window *w = NULL;
    pd_status st;

    if (!payload_is_good(lane)) {
        reply(lane, PD_XP_NACK, PD_EINTEGRITY);
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
        reply(lane, PD_XP_NACK, st);
}

static void copy_done(struct pd_xp_lane *lane)
{
    const struct pd_xp_head *h = &lane->in.head;
    struct pd_transport_window *w = NULL;
    uint64_t bytes = 0;
    pd_status st;

    if (!payload_is_good(lane)) {
        reply(lane, PD_XP_NACK, PD_EINTEGRITY);
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
        reply(lane, PD_XP_NACK, st);
        return;
    }
    pd_xp_share_copy(lane, lane->small_in, h->length, w->segs, h->offset);
    lane->in.cost = bytes;
    stored(lane, w, (uint32_t)bytes);
}

static void where_done(struct pd_xp_lane *lane)
{
    if (payload_is_good(lane))
        pd_xp_far_where(lane, &lane->in.head);
    else
        pd_xp_lane_fail(lane, PD_EINTEGRITY);
}

static void memory_done(struct pd_xp_lane *lane)
{
    if (lane->tp->conf.fabric == NULL)
        pd_xp_share_take(lane, &lane->in.head);
    else if (payload_is_good(lane))
        pd_xp_far_memory(lane, &lane->in.head);
    else
        pd_xp_lane_fail(lane, PD_EINTEGRITY);
}

static void read_asked(struct pd_xp_lane *lane)
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

/* ---- lanes that we opened */

static void tell_where(struct pd_xp_lane *lane)
{
    pd_status st = pd_xp_far_tell_where(lane);

    if (st != PD_OK)
        pd_xp_lane_fail(lane, st);
}

static void ready(struct pd_xp_lane *lane)
{
    struct pd_xp_hello hello = { .frame_bytes = lane->frame_bytes };

    if (lane->peer->up_lanes > 0)
        pd_xp_lane_fail(lane, PD_EPROTO);
    else
        pd_xp_peer_lane_up(lane, &hello);
}

static void greeted(struct pd_xp_lane *lane)
{
    struct pd_transport_peer *peer = lane->peer;
    struct pd_xp_hello hello;

    if (!payload_is_good(lane)) {
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

static void answered(struct pd_xp_lane *lane, pd_status status)
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

static void data_begins(struct pd_xp_lane *lane)
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

static void read_answered(struct pd_xp_lane *lane, pd_status status)
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

static void data_done(struct pd_xp_lane *lane)
{
    const struct pd_xp_sent *s = &lane->reads[lane->reads_head];
    pd_status st = PD_OK;

    if (lane->in.transfer != NULL && !payload_is_good(lane)) {
        st = PD_EINTEGRITY;
    } else if (lane->in.transfer != NULL && (lane->in.head.flags & PD_XP_ENCODED) != 0) {
        if (pd_xp_pack_plain(lane) != s->len) {
            pd_xp_lane_fail(lane, PD_EPROTO);
            return;
        }
        st = pd_xp_pack_decode(lane, s->transfer->segs, s->from);
    }
    read_answered(lane, st);
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
        hello_done(lane);
        break;
    case PD_XP_HELLO_OK:
        greeted(lane);
        break;
    case PD_XP_REFUSED:
        pd_xp_lane_fail(lane, status_of(h));
        break;
    case PD_XP_WRITE:
        if ((h->flags & PD_XP_ENCODED) != 0)
            packed_write_done(lane);
        else
            write_done(lane);
        break;
    case PD_XP_COPY:
        copy_done(lane);
        break;
    case PD_XP_WHERE:
        where_done(lane);
        break;
    case PD_XP_READY:
        ready(lane);
        break;
    case PD_XP_READ:
        read_asked(lane);
        break;
    case PD_XP_PING:
        reply(lane, PD_XP_PONG, PD_OK);
        break;
    case PD_XP_PONG:
        lane->pinging = false;
        break;
    case PD_XP_MEMORY:
        memory_done(lane);
        break;
    case PD_XP_FORGET:
        if (lane->tp->conf.fabric != NULL)
            pd_xp_far_forget(lane, h->id);
        else
            pd_xp_share_forget(lane, h->id);
        break;
    case PD_XP_ACK:
        answered(lane, PD_OK);
        break;
    case PD_XP_NACK:
        answered(lane, status_of(h));
        break;
    case PD_XP_DATA:
        data_done(lane);
        break;
    case PD_XP_READ_NACK:
        read_answered(lane, status_of(h));
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
        packed_write_begins(lane);
    else if (h->type == PD_XP_WRITE)
        write_begins(lane);
    else if (h->type == PD_XP_DATA)
        data_begins(lane);
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
