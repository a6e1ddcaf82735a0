/* SPDX-License-Identifier: Apache-2.0 */
/* A lane is one stream: its birth, its greeting deadline, its patience, its
 * end.  Closing lets go of everything it held at once; its memory goes when
 * the loop confirms.
 *
 * A lane that we opened is dead when something waits for an answer and neither
 * a byte went out nor one came in for `timeout`.  A lane that was accepted is
 * dead when it stops in the middle of a frame, or is silent for longer than
 * its greeting said. */
#include "link.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void on_connected(struct pd_stream *s, pd_status status, void *arg);
static void on_writable(struct pd_stream *s, void *arg);
static void on_hangup(struct pd_stream *s, void *arg);
static void on_closed(struct pd_stream *s, void *arg);

static const struct pd_stream_events lane_events = {
    .name = "transport lane",
    .on_connected = on_connected,
    .on_readable = pd_xp_lane_readable,
    .on_writable = on_writable,
    .on_hangup = on_hangup,
    .on_closed = on_closed,
};

static struct pd_xp_lane *lane_new(struct pd_transport *tp)
{
    struct pd_xp_lane *lane = calloc(1, sizeof(*lane));

    if (lane == NULL)
        return NULL;
    if (pd_xp_by_name(tp)) {
        lane->small_in = malloc(PD_XP_SMALL);
        lane->small_out = malloc(PD_XP_SMALL);
        if (tp->conf.kind == PD_XP_SHM)
            lane->maps = calloc(PD_XP_MAX_MAPS, sizeof(*lane->maps));
    } else {
        lane->small_in = malloc(PD_XP_HELLO_BYTES);
    }
    if (lane->small_in == NULL ||
        (pd_xp_by_name(tp) && lane->small_out == NULL) ||
        (tp->conf.kind == PD_XP_SHM && lane->maps == NULL)) {
        free(lane->small_in);
        free(lane->small_out);
        free(lane->maps);
        free(lane);
        return NULL;
    }
    lane->tp = tp;
    lane->out.fd = -1;
    lane->opened = lane->last_in = lane->last_progress = pd_loop_now(tp->loop);
    return lane;
}

static void lane_free(struct pd_xp_lane *lane)
{
    free(lane->small_in);
    free(lane->small_out);
    free(lane->maps);
    free(lane->pack_out);
    free(lane->pack_in);
    free(lane->ctl);
    free(lane);
}

static void set_options(struct pd_xp_lane *lane)
{
    const struct pd_xp_conf *conf = &lane->tp->conf;

    if (conf->kind == PD_XP_SHM)
        return;
    pd_stream_set_option(lane->stream, PD_STREAM_NODELAY, 1);
    pd_stream_set_option(lane->stream, PD_STREAM_KEEPALIVE,
                         (conf->keepalive + PD_SEC - 1) / PD_SEC);
    pd_stream_set_option(lane->stream, PD_STREAM_USER_TIMEOUT, conf->timeout / PD_MS);
}

/* Both ends of a unix stream must belong to the same user. */
static bool is_same_user(struct pd_xp_lane *lane)
{
    pid_t pid;
    uid_t uid;
    gid_t gid;

    return lane->tp->conf.kind != PD_XP_SHM ||
           (pd_stream_peer_cred(lane->stream, &pid, &uid, &gid) == PD_OK && uid == geteuid());
}

bool pd_xp_lane_is(const struct pd_xp_lane *lane, const struct pd_node_id *node)
{
    const struct pd_xp_tls *tls = &lane->tp->conf.tls;
    struct pd_uuid named;

    return tls->net == NULL || !tls->net->tls_node(lane->stream, &named) ||
           memcmp(named.b, node->uuid.b, sizeof(named.b)) == 0;
}

pd_status pd_xp_lane_connect(struct pd_transport_peer *peer, uint16_t index)
{
    struct pd_transport *tp = peer->tp;
    struct pd_xp_lane *lane = lane_new(tp);
    pd_status st;

    if (lane == NULL)
        return PD_ENOMEM;
    lane->peer = peer;
    lane->index = index;
    lane->state = PD_XP_LANE_CONNECTING;
    if (tp->conf.tls.net != NULL)
        st = tp->conf.tls.net->tls_connect(tp->conf.tls.out, &peer->addr, &lane_events, lane,
                                           &lane->stream);
    else
        st = pd_stream_connect(tp->loop, &peer->addr, &lane_events, lane, &lane->stream);
    if (st != PD_OK) {
        lane_free(lane);
        return st;
    }
    tp->n_lanes++;
    peer->open_lanes++;
    peer->lanes[index] = lane;
    return PD_OK;
}

static void greet(struct pd_xp_lane *lane)
{
    struct pd_transport *tp = lane->tp;
    struct pd_transport_peer *peer = lane->peer;
    struct pd_xp_head h = { .type = PD_XP_HELLO, .xid = peer->grant.xid,
                            .generation = peer->grant.generation };
    struct pd_xp_hello hello;
    uint8_t buf[PD_XP_HELLO_BYTES];

    memset(&hello, 0, sizeof(hello));
    hello.from = tp->self;
    hello.to = peer->node;
    memcpy(hello.key, peer->key, sizeof(hello.key));
    hello.link = peer->link_id;
    hello.frame_bytes = tp->conf.frame_bytes;
    hello.keepalive_ms = (uint32_t)(tp->conf.keepalive / PD_MS);
    hello.lane = lane->index;
    hello.lanes = (uint16_t)peer->n_lanes;
    hello.kind = tp->conf.kind;
    pd_xp_pack_offer(tp, &hello);
    pd_xp_hello_encode(&hello, buf);
    memcpy(h.token, peer->grant.token, sizeof(h.token));
    pd_xp_lane_control(lane, &h, buf, sizeof(buf));
    pd_xp_lane_flush(lane);
}

static void on_connected(struct pd_stream *s, pd_status status, void *arg)
{
    struct pd_xp_lane *lane = arg;

    (void)s;
    if (status != PD_OK) {
        pd_xp_lane_fail(lane, status);
        return;
    }
    set_options(lane);
    if (!is_same_user(lane) || !pd_xp_lane_is(lane, &lane->peer->node)) {
        pd_xp_lane_fail(lane, PD_EPERM);
        return;
    }
    lane->state = PD_XP_LANE_GREETING;
    greet(lane);
}

void pd_xp_lane_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct pd_transport *tp = arg;
    struct pd_xp_lane *lane;

    (void)l;
    if (tp->closing)
        return;
    if (tp->n_accepted >= tp->conf.max_links) {
        tp->stats.refused++;
        pd_log_warn(tp->log, "refused a connection: %u are open", tp->n_accepted);
        return;
    }
    if (tp->conf.tls.net != NULL &&
        tp->conf.tls.net->tls_accept(tp->conf.tls.in, s, &s) != PD_OK)
        return;
    lane = lane_new(tp);
    if (lane == NULL) {
        pd_stream_close(s);
        return;
    }
    lane->stream = s;
    lane->accepted = true;
    lane->state = PD_XP_LANE_GREETING;
    pd_stream_set_events(s, &lane_events, lane);
    tp->n_lanes++;
    tp->n_accepted++;
    TAILQ_INSERT_TAIL(&tp->accepted, lane, link);
    set_options(lane);
    pd_xp_tick_on(tp);
    if (!is_same_user(lane)) {
        pd_log_warn(tp->log, "refused a process of another user");
        pd_xp_lane_close(lane);
    }
}

static void on_writable(struct pd_stream *s, void *arg)
{
    struct pd_xp_lane *lane = arg;

    (void)s;
    lane->blocked = false;
    pd_xp_lane_flush(lane);
}

static void on_hangup(struct pd_stream *s, void *arg)
{
    (void)s;
    pd_xp_lane_fail(arg, PD_EPEER);
}

static void on_closed(struct pd_stream *s, void *arg)
{
    struct pd_xp_lane *lane = arg;
    struct pd_transport *tp = lane->tp;
    struct pd_transport_peer *peer = lane->peer;

    (void)s;
    lane_free(lane);
    tp->n_lanes--;
    if (peer != NULL)
        pd_xp_peer_lane_gone(peer);
    else
        tp->n_accepted--;
    if (tp->closing && tp->n_lanes == 0)
        pd_xp_wake(tp);
}

void pd_xp_lane_close(struct pd_xp_lane *lane)
{
    struct pd_transport *tp = lane->tp;

    if (lane->state == PD_XP_LANE_CLOSED)
        return;
    lane->state = PD_XP_LANE_CLOSED;
    if (lane->is_kicked) {
        TAILQ_REMOVE(&tp->kicked, lane, kick);
        lane->is_kicked = false;
    }
    if (lane->accepted)
        TAILQ_REMOVE(&tp->accepted, lane, link);
    if (lane->out.window != NULL) {
        pd_xp_window_unsend(lane->out.window);
        lane->out.window = NULL;
    }
    lane->out.active = false;
    lane->in.window = NULL;
    lane->in.transfer = NULL;
    pd_xp_share_drop_all(lane);
    pd_xp_far_leave(lane);
    pd_stream_close(lane->stream);
}

void pd_xp_lane_fail(struct pd_xp_lane *lane, pd_status status)
{
    if (lane->state == PD_XP_LANE_CLOSED)
        return;
    if (lane->peer != NULL) {
        pd_xp_peer_fail(lane->peer, status);
        return;
    }
    if (status != PD_EEOF)
        pd_log_info(lane->tp->log, "a lane of a peer ended with status %d", (int)status);
    pd_xp_lane_close(lane);
}

static void tick_ours(struct pd_xp_lane *lane, pd_time now)
{
    const struct pd_xp_conf *conf = &lane->tp->conf;
    bool busy = lane->sent_n > 0 || lane->reads_n > 0 || lane->out.active || lane->ctl_len > 0 ||
                lane->pinging;

    if (busy && now - lane->last_progress > conf->timeout) {
        pd_xp_lane_fail(lane, PD_ETIMEDOUT);
    } else if (!busy && conf->keepalive > 0 && now - lane->last_in >= conf->keepalive) {
        struct pd_xp_head h = { .type = PD_XP_PING };
        lane->pinging = true;
        lane->last_progress = now;
        pd_xp_lane_control(lane, &h, NULL, 0);
        pd_xp_lane_kick(lane);
    }
}

static void tick_accepted(struct pd_xp_lane *lane, pd_time now)
{
    const struct pd_xp_conf *conf = &lane->tp->conf;
    bool in_frame = lane->in_body || lane->head_have > 0;
    bool sending = lane->out.active || lane->ctl_len > 0;

    if (in_frame && !lane->paused && now - lane->last_in > conf->timeout)
        pd_xp_lane_fail(lane, PD_ETIMEDOUT);
    else if (sending && now - lane->last_progress > conf->timeout)
        pd_xp_lane_fail(lane, PD_ETIMEDOUT);
    else if (!pd_xp_far_moves(lane, now, conf->timeout))
        pd_xp_lane_fail(lane, PD_ETIMEDOUT);
    else if (lane->silence > 0 && !lane->paused && now - lane->last_in > lane->silence)
        pd_xp_lane_fail(lane, PD_ETIMEDOUT);
}

void pd_xp_lane_tick(struct pd_xp_lane *lane, pd_time now)
{
    bool waits = lane->tp->conf.fabric != NULL && lane->peer != NULL &&
                 lane->peer->state == PD_XP_PEER_CONNECTING;

    if (lane->state != PD_XP_LANE_UP || waits) {
        if (lane->state != PD_XP_LANE_CLOSED &&
            now - lane->opened > lane->tp->conf.connect_timeout)
            pd_xp_lane_fail(lane, PD_ETIMEDOUT);
        return;
    }
    if (lane->accepted)
        tick_accepted(lane, now);
    else
        tick_ours(lane, now);
}
