/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves a lane: control frames, which wait as bytes, and at most one
 * frame with a payload, whose bytes are written straight from registered
 * memory.  Frames leave in the order of their sequence numbers: of the control
 * bytes, those that were there when the frame was begun go before it. */
#include "fabric.h"
#include "link.h"

#include <stdlib.h>
#include <string.h>

void pd_xp_lane_kick(struct pd_xp_lane *lane)
{
    if (lane->is_kicked || lane->state == PD_XP_LANE_CLOSED)
        return;
    lane->is_kicked = true;
    TAILQ_INSERT_TAIL(&lane->tp->kicked, lane, kick);
    pd_xp_wake(lane->tp);
}

static bool ctl_room(struct pd_xp_lane *lane, uint32_t need)
{
    uint32_t cap = lane->ctl_cap == 0 ? 512 : lane->ctl_cap;
    uint8_t *p;

    if (lane->ctl_head > 0) {
        memmove(lane->ctl, lane->ctl + lane->ctl_head, lane->ctl_len);
        lane->ctl_head = 0;
    }
    if (lane->ctl_len + need > 2 * PD_XP_CTL_MAX)
        return false;
    while (cap < lane->ctl_len + need)
        cap *= 2;
    if (cap == lane->ctl_cap)
        return true;
    p = realloc(lane->ctl, cap);
    if (p == NULL)
        return false;
    lane->ctl = p;
    lane->ctl_cap = cap;
    return true;
}

void pd_xp_lane_control(struct pd_xp_lane *lane, struct pd_xp_head *h, const void *payload,
                        uint32_t len)
{
    if (lane->state == PD_XP_LANE_CLOSED)
        return;
    if (lane->ctl_head + lane->ctl_len + PD_XP_HEAD_BYTES + len > lane->ctl_cap &&
        !ctl_room(lane, PD_XP_HEAD_BYTES + len)) {
        pd_xp_lane_fail(lane, PD_ENOMEM);
        return;
    }
    h->seq = lane->seq_out++;
    h->length = len;
    if (len > 0) {
        h->flags |= PD_XP_CHECKED;
        h->crc = pd_xp_crc(&lane->tp->crc, 0, payload, len);
    }
    pd_xp_head_encode(&lane->tp->crc, h, lane->ctl + lane->ctl_head + lane->ctl_len);
    lane->ctl_len += PD_XP_HEAD_BYTES;
    if (len > 0)
        memcpy(lane->ctl + lane->ctl_head + lane->ctl_len, payload, len);
    lane->ctl_len += len;
}

static uint32_t crc_of(const struct pd_transport *tp, const struct pd_xp_segs *segs, uint64_t from,
                       uint64_t len)
{
    struct pd_iov iov[PD_XP_IOV];
    uint32_t crc = 0;

    while (len > 0) {
        uint64_t covered;
        size_t n = pd_xp_segs_iov(segs, from, len, iov, PD_XP_IOV, &covered);
        for (size_t i = 0; i < n; i++)
            crc = pd_xp_crc(&tp->crc, crc, iov[i].base, iov[i].len);
        from += covered;
        len -= covered;
    }
    return crc;
}

/* Makes h, whose payload is `len` bytes of segs or of small, the next frame. */
static void begin(struct pd_xp_lane *lane, struct pd_xp_head *h, const struct pd_xp_segs *segs,
                  uint64_t from, uint32_t len)
{
    struct pd_transport *tp = lane->tp;
    const uint8_t *small = (h->flags & PD_XP_ENCODED) != 0 ? lane->pack_out : lane->small_out;

    h->seq = lane->seq_out++;
    h->length = len;
    if (segs != NULL && tp->conf.checksum) {
        h->flags |= PD_XP_CHECKED;
        h->crc = crc_of(tp, segs, from, len);
    } else if (segs == NULL && len > 0) {
        h->flags |= PD_XP_CHECKED;
        h->crc = pd_xp_crc(&tp->crc, 0, small, len);
    }
    pd_xp_head_encode(&tp->crc, h, lane->out.head);
    lane->out.active = true;
    lane->out.is_post = false;
    lane->out.id = h->id;
    lane->out.head_sent = 0;
    lane->out.segs = segs;
    lane->out.small = segs == NULL ? small : NULL;
    lane->out.from = segs == NULL ? 0 : from;
    lane->out.left = len;
    lane->out.ctl_before = lane->ctl_len;
}

/* As begin, for bytes of registered memory; encoded when that makes them fewer. */
static void begin_bytes(struct pd_xp_lane *lane, struct pd_xp_head *h,
                        const struct pd_transport_memory *memory, const struct pd_xp_segs *segs,
                        uint64_t from, uint32_t len)
{
    uint32_t packed = pd_xp_pack_encode(lane, memory, segs, from, len);

    if (packed == 0) {
        begin(lane, h, segs, from, len);
        return;
    }
    h->flags |= PD_XP_ENCODED;
    begin(lane, h, NULL, 0, packed);
}

/* Answers to READ: the next one that has bytes. */
static bool next_answer(struct pd_xp_lane *lane)
{
    while (lane->asked_n > 0) {
        struct pd_xp_asked a = lane->asked[lane->asked_head];
        struct pd_xp_head h = { .id = a.id };
        lane->asked_head = (lane->asked_head + 1) % PD_XP_MAX_READS;
        lane->asked_n--;
        if (a.window != NULL) {
            h.type = PD_XP_DATA;
            lane->out.window = a.window;
            a.window->sending++;
            lane->tp->stats.bytes_out += a.len;
            begin_bytes(lane, &h, a.window->memory, a.window->segs, a.offset, a.len);
            return true;
        }
        h.type = PD_XP_READ_NACK;
        h.offset = (uint64_t)(-(int64_t)a.status);
        pd_xp_lane_control(lane, &h, NULL, 0);
    }
    return false;
}

/* The key of memory into lane->small_out; 0: the fabric has none, the lane fails. */
static uint32_t key_of(struct pd_xp_lane *lane, const struct pd_transport_memory *m)
{
    struct pd_xp_fabric *f = lane->tp->conf.fabric;
    size_t len = 0;
    pd_status st = f->ops->region_key(f, m->region, lane->small_out, PD_XP_FABRIC_BYTES, &len);

    if (st == PD_OK)
        return (uint32_t)len;
    pd_xp_lane_fail(lane, st);
    return 0;
}

/* Does the peer have this memory?  If not, a frame that brings it is begun. */
static bool tell_memory(struct pd_xp_lane *lane, const struct pd_transport_memory *m)
{
    struct pd_xp_head h = { .type = PD_XP_MEMORY, .id = m->id, .xid = m->bytes,
                            .offset = m->fd_offset };
    uint32_t len = 0;

    for (uint32_t i = 0; i < lane->told_n; i++)
        if (lane->told[i] == m->id)
            return false;
    if (lane->tp->conf.fabric != NULL && (len = key_of(lane, m)) == 0)
        return true;
    lane->told[lane->told_n++] = m->id;
    begin(lane, &h, NULL, 0, len);
    lane->out.fd = m->fd;
    return true;
}

static void push(struct pd_xp_sent *ring, uint32_t head, uint32_t *n, uint32_t cap,
                 const struct pd_xp_sent *s)
{
    ring[(head + *n) % cap] = *s;
    ++*n;
}

static void head_for(const struct pd_transfer *t, uint8_t type, uint64_t from, uint32_t id,
                     struct pd_xp_head *h)
{
    memset(h, 0, sizeof(*h));
    h->type = type;
    h->xid = t->grant.xid;
    h->generation = t->grant.generation;
    h->offset = t->offset + from;
    h->id = id;
    memcpy(h->token, t->grant.token, sizeof(h->token));
}

static void send_write(struct pd_xp_lane *lane, struct pd_transfer *t, uint64_t from, uint32_t *len,
                       bool is_copy)
{
    struct pd_xp_sent s = { .transfer = t, .from = from, .id = lane->next_id++ };
    struct pd_xp_head h;

    if (pd_xp_by_name(lane->tp)) {
        uint32_t n = pd_xp_share_describe(t, from, len, lane->small_out);
        head_for(t, PD_XP_COPY, from, s.id, &h);
        begin(lane, &h, NULL, 0, n);
    } else {
        head_for(t, PD_XP_WRITE, from, s.id, &h);
        begin_bytes(lane, &h, t->memory, t->segs, from, *len);
    }
    lane->out.is_post = true;
    s.len = is_copy ? 0 : *len;
    t->outstanding++;
    push(lane->sent, lane->sent_head, &lane->sent_n, PD_XP_MAX_SENT, &s);
}

static void send_read(struct pd_xp_lane *lane, struct pd_transfer *t, uint32_t len)
{
    struct pd_xp_sent s = { .transfer = t, .from = t->sent, .len = len, .id = lane->next_id++ };
    struct pd_xp_head h;

    head_for(t, PD_XP_READ, t->sent, s.id, &h);
    h.crc = len;
    t->outstanding++;
    push(lane->reads, lane->reads_head, &lane->reads_n, PD_XP_MAX_READS, &s);
    pd_xp_lane_control(lane, &h, NULL, 0);
}

/* Takes the next piece of the next post.  False: nothing more can be sent now. */
static bool next_piece(struct pd_xp_lane *lane)
{
    struct pd_transport_peer *peer = lane->peer;
    const struct pd_xp_hooks *hooks = lane->tp->conf.hooks;
    struct pd_transfer *t = TAILQ_FIRST(&peer->ready);
    uint32_t len = peer->frame_bytes;
    uint32_t max_sent = lane->tp->conf.fabric != NULL ? PD_XP_MAX_COPIES : PD_XP_MAX_SENT;
    uint64_t from;

    if (t == NULL)
        return false;
    if (t->op == PD_TRANSPORT_WRITE ? lane->sent_n + 1 >= max_sent
                                    : lane->reads_n >= PD_XP_MAX_READS)
        return false;
    if (pd_xp_by_name(lane->tp) && tell_memory(lane, t->memory))
        return true;
    if (lane->sent_n + lane->reads_n == 0)
        lane->last_progress = pd_loop_now(lane->tp->loop);
    from = t->sent;
    if (len > t->segs->total - from)
        len = (uint32_t)(t->segs->total - from);
    if (t->op == PD_TRANSPORT_READ)
        send_read(lane, t, len);
    else
        send_write(lane, t, from, &len, false);
    if (lane->state == PD_XP_LANE_CLOSED)
        return false;
    t->sent += len;
    TAILQ_REMOVE(&peer->ready, t, ready);
    t->is_ready = t->sent < t->segs->total;
    if (t->is_ready)
        TAILQ_INSERT_TAIL(&peer->ready, t, ready);
    if (hooks != NULL && hooks->copies != NULL && t->op == PD_TRANSPORT_WRITE &&
        hooks->copies(hooks->arg) > 0) {
        lane->out.again = t;
        lane->out.again_from = from;
        lane->out.again_len = len;
    }
    return true;
}

static bool next_frame(struct pd_xp_lane *lane)
{
    if (lane->state != PD_XP_LANE_UP)
        return false;
    if (lane->accepted)
        return next_answer(lane);
    if (lane->out.again != NULL) {
        struct pd_transfer *t = lane->out.again;
        lane->out.again = NULL;
        /* Without answer to the original the transfer is still there. */
        if (lane->sent_n > 0 && lane->sent_n < PD_XP_MAX_SENT &&
            lane->sent[(lane->sent_head + lane->sent_n - 1) % PD_XP_MAX_SENT].transfer == t) {
            send_write(lane, t, lane->out.again_from, &lane->out.again_len, true);
            return true;
        }
    }
    return next_piece(lane);
}

/* Writes once.  PD_OK when everything offered was taken. */
static pd_status write_some(struct pd_xp_lane *lane, uint64_t *sent_out)
{
    struct pd_iov iov[PD_XP_IOV];
    uint32_t ctl = lane->out.active ? lane->out.ctl_before : lane->ctl_len;
    uint64_t want = 0, covered = 0;
    size_t n = 0, sent = 0;
    pd_status st;

    if (ctl > 0)
        iov[n++] = (struct pd_iov){ lane->ctl + lane->ctl_head, ctl };
    want = ctl;
    if (lane->out.active) {
        uint32_t rest = PD_XP_HEAD_BYTES - lane->out.head_sent;
        if (rest > 0)
            iov[n++] = (struct pd_iov){ lane->out.head + lane->out.head_sent, rest };
        want += rest;
        if (lane->out.left > 0 && lane->out.segs != NULL) {
            n += pd_xp_segs_iov(lane->out.segs, lane->out.from, lane->out.left, iov + n,
                                PD_XP_IOV - n, &covered);
        } else if (lane->out.left > 0) {
            iov[n++] = (struct pd_iov){ (void *)(uintptr_t)(lane->out.small + lane->out.from),
                                        lane->out.left };
            covered = lane->out.left;
        }
        want += covered;
    }
    if (lane->out.active && lane->out.fd >= 0 && ctl == 0) {
        st = pd_stream_send_fds(lane->stream, iov, n, &lane->out.fd, 1, &sent);
        if (st == PD_OK)
            lane->out.fd = -1;
    } else {
        if (lane->out.active && lane->out.fd >= 0) {
            /* The descriptor goes with the first byte of its own frame. */
            n = 1;
            want = ctl;
        }
        st = pd_stream_writev(lane->stream, iov, n, &sent);
    }
    if (st != PD_OK)
        return st;
    *sent_out = sent;
    if (ctl > sent)
        ctl = (uint32_t)sent;
    lane->ctl_head += ctl;
    lane->ctl_len -= ctl;
    if (lane->ctl_len == 0)
        lane->ctl_head = 0;
    if (lane->out.active) {
        uint64_t left = sent - ctl;
        uint32_t rest = PD_XP_HEAD_BYTES - lane->out.head_sent;
        lane->out.ctl_before -= ctl;
        if (rest > left)
            rest = (uint32_t)left;
        lane->out.head_sent += rest;
        lane->out.from += left - rest;
        lane->out.left -= left - rest;
    }
    return sent < want ? PD_EAGAIN : PD_OK;
}

static void frame_sent(struct pd_xp_lane *lane)
{
    lane->out.active = false;
    if (lane->out.window != NULL) {
        pd_xp_window_unsend(lane->out.window);
        lane->out.window = NULL;
    }
}

void pd_xp_lane_flush(struct pd_xp_lane *lane)
{
    uint64_t budget = PD_XP_WRITE_BUDGET;

    if (lane->state == PD_XP_LANE_CONNECTING)
        return;
    while (lane->state != PD_XP_LANE_CLOSED && !lane->blocked) {
        uint64_t sent = 0;
        pd_status st;
        if (!lane->out.active && !next_frame(lane) && lane->ctl_len == 0)
            break;
        if (lane->state == PD_XP_LANE_CLOSED)
            return;
        /* READ frames are control frames: there may be more of them. */
        if (!lane->out.active && !lane->accepted && lane->state == PD_XP_LANE_UP &&
            lane->ctl_len < PD_XP_CTL_MAX / 2 && next_frame(lane))
            continue;
        if (lane->state == PD_XP_LANE_CLOSED)
            return;
        st = write_some(lane, &sent);
        if (sent > 0)
            lane->last_progress = pd_loop_now(lane->tp->loop);
        if (st == PD_EAGAIN) {
            lane->blocked = true;
        } else if (st != PD_OK) {
            pd_xp_lane_fail(lane, st);
            return;
        }
        if (lane->out.active && lane->out.head_sent == PD_XP_HEAD_BYTES && lane->out.left == 0)
            frame_sent(lane);
        sent += lane->out.cost;
        lane->out.cost = 0;
        if (sent >= budget) {
            pd_xp_lane_kick(lane);
            break;
        }
        budget -= sent;
    }
    if (lane->state == PD_XP_LANE_LEAVING && lane->ctl_len == 0 && !lane->out.active) {
        pd_xp_lane_close(lane);
    } else if (lane->paused && lane->state == PD_XP_LANE_UP && lane->ctl_len < PD_XP_CTL_MAX / 2) {
        lane->paused = false;
        pd_stream_resume_read(lane->stream);
    }
}
