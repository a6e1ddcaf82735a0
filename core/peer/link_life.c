/* SPDX-License-Identifier: Apache-2.0 */
/* Signs of life of a link that is up: heartbeats, and how long silence is borne. */
#include "peer/priv.h"

#include "base/compiler.h"

void pd_link_set_timer(struct pd_link *link, pd_time due)
{
    link->due = due;
    pd_timer_start_at(&link->timer, due);
}

void pd_link_send_heartbeat(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    struct pd_heartbeat h = { 0 };
    pd_time now = pd_loop_clock(peers->loop);
    h.sent = now;
    h.echo = link->echo;
    h.held = link->echo == 0 ? 0 : now - link->echo_at;
    h.draining = peers->is_draining;
    h.n_loads = peers->self->n_engines;
    pd_peers_load(peers, h.loads);
    size_t n = pd_heartbeat_write(&h, peers->scratch, PD_FRAME_MAX_PAYLOAD);
    (void)pd_link_send_simple(link, PD_FRAME_HEARTBEAT, peers->scratch, n);
}

/* When an idle link speaks again: all of a node at the same moment, so that it wakes
 * once for them; another moment on each node. */
static pd_time next_idle_heartbeat(const struct pd_peers *peers, pd_time now)
{
    pd_time every = peers->conf.heartbeat;
    pd_time moment = now + every + peers->self->id.uuid.b[0] * every / 256;
    return now + every - moment % every;
}

/* Who is spoken to on an idle link answers when it would soon have spoken itself, and
 * then lets the other one begin: both wake once for the two. */
static void answer_heartbeat(struct pd_link *link)
{
    pd_time now = pd_loop_now(link->peers->loop), every = link->peers->conf.heartbeat;
    if (link->state != PD_LINK_UP || pd_calls_n(link) > 0 || link->peer->state != PD_PEER_UP ||
        link->next_heartbeat > now + every / 2)
        return;
    pd_link_send_heartbeat(link);
    if (link->state != PD_LINK_UP)
        return;
    link->next_heartbeat = now + every + every / 16;
    pd_link_set_timer(link, link->next_heartbeat);
}

void pd_link_got_heartbeat(struct pd_link *link, const uint8_t *p, size_t n)
{
    struct pd_peer *peer = link->peer;
    struct pd_heartbeat h;
    pd_time now = pd_loop_clock(link->peers->loop);
    if (pd_heartbeat_read(p, n, &h) != PD_OK) {
        pd_link_fail(link, PD_GOODBYE_PROTOCOL, "heartbeat");
        return;
    }
    link->echo = h.sent;
    link->echo_at = now;
    if (h.echo != 0 && h.echo <= now && h.held <= now - h.echo)
        peer->rtt = now - h.echo - h.held;
    bool is_new = link->is_draining != (h.draining != 0);
    link->is_draining = h.draining != 0;
    /* An update may be on its way that changes the number of engines. */
    if (h.n_loads == peer->desc->n_engines) {
        memcpy(peer->loads, h.loads, sizeof peer->loads);
        peer->load_at = pd_loop_now(link->peers->loop);
    }
    answer_heartbeat(link);
    pd_peers_emit(link->peers, peer, is_new ? PD_PEER_ON_CHANGED : PD_PEER_ON_LOAD);
}

void pd_link_tick_self(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    pd_time now = pd_loop_now(peers->loop);
    pd_peers_load(peers, peers->me->loads);
    pd_link_set_timer(link, next_idle_heartbeat(peers, now));
    peers->me->load_at = now;
    peers->me->seen_at = now;
    pd_peers_emit(peers, peers->me, PD_PEER_ON_LOAD);
}

/* How often to speak, and when to lose faith.  While calls are open somebody waits
 * for the answers, so both ends speak more often and silence is borne for less long;
 * what a link was silent before its first call counts as on an idle one. */
struct pace {
    pd_time heartbeat;
    pd_time suspect;
    pd_time suspect_at;
    pd_time dead_at;
};

static pd_time busy_heartbeat(const struct pd_peers_conf *conf)
{
    return PD_MIN(conf->heartbeat, conf->patience / 5);
}

static struct pace pace_of(const struct pd_link *link)
{
    const struct pd_peers_conf *conf = &link->peers->conf;
    struct pace p = { conf->heartbeat, conf->suspect, link->last_rx + conf->suspect,
                      link->last_rx + conf->dead };
    if (pd_calls_n(link) == 0)
        return p;
    pd_time from = PD_MAX(link->last_rx, link->busy_since);
    p.heartbeat = busy_heartbeat(conf);
    p.suspect = PD_MIN(conf->suspect, conf->patience / 5 * 3);
    p.suspect_at = PD_MIN(p.suspect_at, from + p.suspect);
    p.dead_at = PD_MIN(p.dead_at, from + conf->patience);
    return p;
}

void pd_link_set_busy(struct pd_link *link)
{
    pd_time now = pd_loop_now(link->peers->loop);
    pd_time next = now + busy_heartbeat(&link->peers->conf);
    link->busy_since = now;
    if (link->state != PD_LINK_UP || link->stream == NULL || link->due <= next)
        return;
    link->next_heartbeat = PD_MIN(link->next_heartbeat, next);
    pd_link_set_timer(link, next);
}

void pd_link_tick(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    pd_time now = pd_loop_now(peers->loop);
    struct pace p = pace_of(link);
    /* When we ourselves slept (stopped, swapped out), what came meanwhile still
     * waits to be read: give it a chance. */
    if (now > link->due + p.heartbeat) {
        link->last_rx = PD_MAX(link->last_rx, now - p.suspect);
        p = pace_of(link);
    }
    if (now >= p.dead_at) {
        pd_link_fail(link, PD_GOODBYE_TIMEOUT, "");
        return;
    }
    if (now >= p.suspect_at && link->peer->state == PD_PEER_UP) {
        link->peer->suspects++;
        pd_peers_count(peers, PD_COUNT_SUSPECTS, 1);
        pd_peer_set_state(link->peer, PD_PEER_SUSPECT, "nothing came from it for a while");
        pd_peers_emit(peers, link->peer, PD_PEER_ON_SUSPECT);
        if (link->state != PD_LINK_UP)
            return;
    }
    if (now >= link->next_heartbeat) {
        pd_link_send_heartbeat(link);
        link->next_heartbeat = pd_calls_n(link) > 0 ? now + p.heartbeat : next_idle_heartbeat(peers, now);
    }
    pd_time next = PD_MIN(link->next_heartbeat, p.dead_at);
    if (now < p.suspect_at)
        next = PD_MIN(next, p.suspect_at);
    pd_link_set_timer(link, next);
}

/* Of a link that is being made, the time that began goes on. */
void pd_link_times_changed(struct pd_link *link)
{
    pd_time now = pd_loop_now(link->peers->loop);
    if (link->state != PD_LINK_UP)
        return;
    link->last_rx = now;
    link->next_heartbeat = now;
    pd_link_set_timer(link, now);
}

void pd_link_set_up(struct pd_link *link)
{
    struct pd_peers *peers = link->peers;
    pd_time now = pd_loop_now(peers->loop);
    link->state = PD_LINK_UP;
    link->last_rx = now;
    link->next_heartbeat = next_idle_heartbeat(peers, now);
    pd_link_set_timer(link, link->next_heartbeat);
    if (link->stream == NULL)
        return;
    size_t n = 0;
    /* What the greeting said has changed since. */
    if (link->told != peers->desc_serial &&
        pd_desc_write(peers->self, peers->is_draining, peers->scratch, PD_FRAME_MAX_PAYLOAD, &n) == PD_OK)
        (void)pd_link_send_simple(link, PD_FRAME_UPDATE, peers->scratch, n);
    pd_link_send_heartbeat(link);
}
