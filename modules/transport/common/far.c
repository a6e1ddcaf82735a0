/* SPDX-License-Identifier: Apache-2.0 */
/* A COPY frame waits, runs and is done.  It runs when no frame before it
 * touches the same bytes of the window; its pieces are read as gets, of which
 * `depth` may fly in an instance; when the last has ended its bytes count.
 *
 * Invariant: a copy that runs is counted in `sending` of its window, so the
 * window is not closed before its last get has ended. */
#include "fabric.h"
#include "link.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define SLOT 16u                  /* bytes of a beacon */
#define SLOTS 4097u               /* ours, and as many as links can be */

enum { WAITS, RUNS, DONE, PROBES };

struct pd_xp_copy {
    TAILQ_ENTRY(pd_xp_copy) link;      /* in far->copies or far->spare */
    TAILQ_ENTRY(pd_xp_copy) of_window; /* while it has one */
    struct pd_xp_far *far;
    struct pd_transport_window *window;
    uint64_t offset;              /* in the window */
    uint64_t skip;                /* bytes of the next piece that are asked for */
    uint32_t bytes, asked;
    uint32_t id;
    uint32_t next, n;             /* pieces */
    uint32_t flying;
    uint32_t state;
    pd_status verdict;
    uint8_t body[PD_XP_SMALL];
};

struct far_memory {
    uint32_t id;                  /* 0: free */
    uint64_t bytes;
    struct pd_xp_key *key;
};

struct pd_xp_far {
    struct pd_transport *tp;
    struct pd_xp_lane *lane;      /* NULL: gone */
    TAILQ_ENTRY(pd_xp_far) link;
    struct pd_xp_way *way;        /* NULL: closed */
    struct pd_xp_copies copies, spare;
    uint32_t n_copies;
    uint32_t flying;
    pd_time last_got;
    pd_status broken;
    struct pd_xp_copy *probe;     /* of the beacon; NULL when it is over */
    struct pd_xp_key *beacon;
    bool is_read, is_ready;
    struct far_memory memories[PD_XP_MAX_MAPS];
};

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static const struct pd_xp_fabric_ops *ops_of(const struct pd_transport *tp)
{
    return tp->conf.fabric->ops;
}

static struct far_memory *find(struct pd_xp_far *far, uint32_t id)
{
    for (uint32_t i = 0; i < PD_XP_MAX_MAPS; i++)
        if (far->memories[i].id == id)
            return &far->memories[i];
    return NULL;
}

static void soon(struct pd_transport *tp)
{
    tp->fars_run = true;
    pd_xp_wake(tp);
}

/* ---- beacons */

pd_status pd_xp_far_open(struct pd_transport *tp, struct pd_err *err)
{
    struct pd_xp_fabric *f = tp->conf.fabric;
    size_t bytes = (size_t)SLOT * SLOTS;
    pd_status st;

    if (f == NULL)
        return PD_OK;
    bytes = (bytes + PAGE - 1) / PAGE * PAGE;
    tp->beacon = aligned_alloc(PAGE, bytes);
    if (tp->beacon == NULL) {
        pd_xp_fail(err, PD_ENOMEM, "out of memory");
        return PD_ENOMEM;
    }
    memset(tp->beacon, 0, bytes);
    pd_loop_random(tp->loop, tp->beacon, SLOT);
    f->tp = tp;
    st = f->ops->region_add(f, tp->beacon, bytes, &tp->beacon_region, err);
    if (st != PD_OK)
        free(tp->beacon);
    return st;
}

void pd_xp_far_close(struct pd_transport *tp)
{
    if (tp->conf.fabric == NULL)
        return;
    ops_of(tp)->region_remove(tp->conf.fabric, tp->beacon_region);
    free(tp->beacon);
}

pd_status pd_xp_far_tell_where(struct pd_xp_lane *lane)
{
    struct pd_transport *tp = lane->tp;
    struct pd_xp_fabric *f = tp->conf.fabric;
    struct pd_xp_head h = { .type = PD_XP_WHERE };
    size_t len = 0, key_len = 0;
    pd_status st = f->ops->address(f, lane->small_out, PD_XP_FABRIC_BYTES, &len);

    if (st == PD_OK)
        st = f->ops->region_key(f, tp->beacon_region, lane->small_out + len, PD_XP_FABRIC_BYTES,
                                &key_len);
    if (st != PD_OK)
        return st;
    h.offset = len;
    memcpy(h.token, tp->beacon, SLOT);
    pd_xp_lane_control(lane, &h, lane->small_out, (uint32_t)(len + key_len));
    f->ops->poke(f);
    return PD_OK;
}

/* Asks for the beacon, again when there was no room. */
static void probe(struct pd_xp_far *far)
{
    struct pd_transport *tp = far->tp;
    struct pd_xp_copy *c = far->probe;
    bool done = false;
    pd_status st;

    if (c == NULL || c->flying > 0 || far->is_read)
        return;
    st = ops_of(tp)->get(far->way, far->beacon, 0, tp->beacon + c->offset, tp->beacon_region, SLOT,
                         c, &done);
    if (st == PD_OK && done) {
        far->is_read = true;
        soon(tp);
    } else if (st == PD_OK) {
        c->flying++;
        far->flying++;
        tp->flying++;
        far->last_got = pd_loop_now(tp->loop);
        ops_of(tp)->poke(tp->conf.fabric);
    } else if (st != PD_EAGAIN) {
        pd_xp_far_broken(far, st);
    }
}

/* The beacon is there: is it the one that was named? */
static void greet(struct pd_xp_far *far)
{
    struct pd_xp_head h = { .type = PD_XP_READY };
    struct pd_xp_copy *c = far->probe;

    if (c == NULL || !far->is_read)
        return;
    far->probe = NULL;
    if (pd_xp_token_equal(far->tp->beacon + c->offset, c->body)) {
        far->is_ready = true;
        pd_xp_lane_control(far->lane, &h, NULL, 0);
        if (far->lane != NULL)
            pd_xp_lane_kick(far->lane);
    } else {
        far->tp->stats.refused++;
        pd_log_warn(far->tp->log, "the fabric leads to another node than the peer");
        pd_xp_lane_fail(far->lane, PD_ESTALE);
    }
    free(c);
}

/* ---- frames */

static struct pd_xp_copy *take(struct pd_xp_far *far)
{
    struct pd_xp_copy *c = TAILQ_FIRST(&far->spare);

    if (c != NULL)
        TAILQ_REMOVE(&far->spare, c, link);
    else if ((c = malloc(sizeof(*c))) == NULL)
        return NULL;
    c->far = far;
    c->window = NULL;
    c->skip = 0;
    c->asked = c->next = c->flying = 0;
    c->state = WAITS;
    c->verdict = PD_OK;
    return c;
}

static pd_status begin_probe(struct pd_xp_far *far, const struct pd_xp_head *h)
{
    struct pd_transport *tp = far->tp;
    struct pd_xp_copy *c;

    if (h->offset == 0 || h->offset >= h->length)
        return PD_EPROTO;
    c = take(far);
    if (c == NULL)
        return PD_ENOMEM;
    c->state = PROBES;
    c->offset = SLOT * (1 + tp->next_beacon++ % (SLOTS - 1));
    memset(tp->beacon + c->offset, 0, SLOT);
    memcpy(c->body, h->token, SLOT);
    far->probe = c;
    return PD_OK;
}

void pd_xp_far_where(struct pd_xp_lane *lane, const struct pd_xp_head *h)
{
    struct pd_transport *tp = lane->tp;
    struct pd_addr host;
    struct pd_xp_far *far;
    pd_status st;

    if (lane->far != NULL) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    far = calloc(1, sizeof(*far));
    if (far == NULL) {
        pd_xp_lane_fail(lane, PD_ENOMEM);
        return;
    }
    far->tp = tp;
    far->lane = lane;
    TAILQ_INIT(&far->copies);
    TAILQ_INIT(&far->spare);
    st = begin_probe(far, h);
    if (st == PD_OK)
        st = pd_stream_peer_addr(lane->stream, &host);
    if (st == PD_OK)
        st = ops_of(tp)->way_open(tp->conf.fabric, lane->small_in, h->offset, &host, far,
                                  &far->way);
    if (st != PD_OK) {
        free(far->probe);
        free(far);
        pd_log_warn(tp->log, "a peer cannot be reached over the fabric, status %d", (int)st);
        pd_xp_lane_fail(lane, st);
        return;
    }
    lane->far = far;
    TAILQ_INSERT_TAIL(&tp->fars, far, link);
    tp->n_fars++;
    st = ops_of(tp)->key_open(far->way, lane->small_in + h->offset, h->length - h->offset, SLOT,
                              &far->beacon);
    if (st != PD_OK)
        pd_xp_lane_fail(lane, st);
    else
        soon(tp);
}

void pd_xp_far_memory(struct pd_xp_lane *lane, const struct pd_xp_head *h)
{
    struct pd_xp_far *far = lane->far;
    struct far_memory *m = far == NULL ? NULL : find(far, 0);
    pd_status st;

    if (m == NULL || h->id == 0 || h->xid == 0 || find(far, h->id) != NULL) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    st = ops_of(lane->tp)->key_open(far->way, lane->small_in, h->length, h->xid, &m->key);
    if (st != PD_OK) {
        pd_log_warn(lane->tp->log, "refused the memory of a peer, status %d", (int)st);
        pd_xp_lane_fail(lane, st);
        return;
    }
    m->id = h->id;
    m->bytes = h->xid;
}

void pd_xp_far_forget(struct pd_xp_lane *lane, uint32_t id)
{
    struct pd_xp_far *far = lane->far;
    struct far_memory *m = far == NULL || id == 0 ? NULL : find(far, id);
    struct pd_xp_copy *c;

    if (m == NULL)
        return;
    TAILQ_FOREACH(c, &far->copies, link)
    {
        if (c->state != DONE && get32(c->body) == id) {
            pd_xp_lane_fail(lane, PD_EPROTO);
            return;
        }
    }
    ops_of(lane->tp)->key_close(m->key);
    memset(m, 0, sizeof(*m));
}

/* Reads the payload of a COPY frame, see share.c. */
static pd_status read_pieces(struct pd_xp_far *far, struct pd_xp_copy *c, uint32_t len)
{
    const struct far_memory *m;
    uint64_t sum = 0;

    if (len < 8 || get32(c->body) == 0 || (m = find(far, get32(c->body))) == NULL)
        return PD_EPROTO;
    c->n = get32(c->body + 4);
    if (c->n == 0 || c->n > PD_XP_COPY_SEGS || len != 8 + 16 * c->n)
        return PD_EPROTO;
    for (uint32_t i = 0; i < c->n; i++) {
        uint64_t offset = get64(c->body + 8 + 16 * (size_t)i);
        uint64_t n = get64(c->body + 16 + 16 * (size_t)i);
        if (n == 0 || n > m->bytes || offset > m->bytes - n ||
            n > far->tp->conf.frame_bytes - sum)
            return PD_EPROTO;
        sum += n;
    }
    c->bytes = (uint32_t)sum;
    return PD_OK;
}

void pd_xp_far_copy(struct pd_xp_lane *lane, const struct pd_xp_head *h)
{
    struct pd_xp_far *far = lane->far;
    struct pd_xp_copy *c = far == NULL || !far->is_ready || far->n_copies >= PD_XP_MAX_COPIES
                               ? NULL
                               : take(far);

    if (c == NULL) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    memcpy(c->body, lane->small_in, h->length);
    c->offset = h->offset;
    c->id = h->id;
    if (read_pieces(far, c, h->length) != PD_OK) {
        free(c);
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    TAILQ_INSERT_TAIL(&far->copies, c, link);
    far->n_copies++;
    c->verdict = pd_xp_window_find(lane, h, PD_TRANSPORT_WRITE, c->bytes, &c->window);
    if (c->verdict == PD_OK)
        TAILQ_INSERT_TAIL(&c->window->copies, c, of_window);
    else
        c->state = DONE;
    soon(lane->tp);
}

/* ---- from waiting to done */

static bool is_free(const struct pd_xp_copy *c)
{
    const struct pd_xp_copy *o;

    TAILQ_FOREACH(o, &c->window->copies, of_window)
    {
        if (o == c)
            break;
        if (o->offset < c->offset + c->bytes && c->offset < o->offset + o->bytes)
            return false;
    }
    return true;
}

static void begin(struct pd_xp_copy *c)
{
    struct pd_transport_window *w = c->window;

    c->verdict = pd_xp_window_touch(w, c->offset, c->bytes);
    if (c->verdict != PD_OK) {
        TAILQ_REMOVE(&w->copies, c, of_window);
        c->window = NULL;
        c->state = DONE;
        return;
    }
    if (c->far->flying == 0)
        c->far->last_got = pd_loop_now(c->far->tp->loop);
    c->state = RUNS;
    w->sending++;
    ops_of(c->far->tp)->poke(c->far->tp->conf.fabric);
}

/* Asks for as much as may fly.  False: no more may. */
static bool ask(struct pd_xp_copy *c)
{
    struct pd_transport *tp = c->far->tp;
    size_t max = tp->conf.fabric->max_get;
    const struct far_memory *m = find(c->far, get32(c->body));

    while (c->asked < c->bytes && c->verdict == PD_OK) {
        const uint8_t *piece = c->body + 8 + 16 * (size_t)c->next;
        uint64_t left = get64(piece + 8) - c->skip, run;
        struct pd_iov iov;
        bool done = false;
        pd_status st;
        if (tp->flying >= tp->conf.depth)
            return false;
        if (max > 0 && left > max)
            left = max;
        pd_xp_segs_iov(c->window->segs, c->offset + c->asked, left, &iov, 1, &run);
        st = ops_of(tp)->get(c->far->way, m->key, get64(piece) + c->skip, iov.base,
                             c->window->memory->region, iov.len, c, &done);
        if (st == PD_EAGAIN)
            return false;
        if (st != PD_OK) {
            pd_xp_far_broken(c->far, st);
            c->verdict = st;
            break;
        }
        if (!done) {
            c->flying++;
            c->far->flying++;
            tp->flying++;
        }
        c->asked += (uint32_t)run;
        c->skip += run;
        if (c->skip == get64(piece + 8)) {
            c->skip = 0;
            c->next++;
        }
    }
    return true;
}

static bool has_ended(const struct pd_xp_copy *c)
{
    return c->flying == 0 && (c->asked == c->bytes || c->verdict != PD_OK);
}

/* Out of its window, without telling that. */
static void leave_window(struct pd_xp_copy *c)
{
    TAILQ_REMOVE(&c->window->copies, c, of_window);
    c->window = NULL;
    c->state = DONE;
}

static void end(struct pd_xp_copy *c)
{
    struct pd_transport_window *w = c->window;

    if (c->verdict == PD_OK)
        c->verdict = pd_xp_window_landed(w, c->offset, c->bytes);
    leave_window(c);
    pd_xp_window_unsend(w);
    soon(c->far->tp);
}

static void drop(struct pd_xp_copy *c)
{
    TAILQ_REMOVE(&c->far->copies, c, link);
    c->far->n_copies--;
    TAILQ_INSERT_HEAD(&c->far->spare, c, link);
}

static void answer(struct pd_xp_far *far)
{
    struct pd_xp_copy *c;

    while ((c = TAILQ_FIRST(&far->copies)) != NULL && c->state == DONE) {
        struct pd_xp_head h = { .type = c->verdict == PD_OK ? PD_XP_ACK : PD_XP_NACK, .id = c->id,
                                .offset = (uint64_t)(-(int64_t)c->verdict) };
        drop(c);
        if (far->lane == NULL)
            continue;
        pd_xp_lane_control(far->lane, &h, NULL, 0);
        if (far->lane != NULL)
            pd_xp_lane_kick(far->lane);
    }
}

/* False: nothing more may fly. */
static bool run_one(struct pd_xp_far *far)
{
    struct pd_xp_copy *c;
    bool more = true;

    probe(far);
    TAILQ_FOREACH(c, &far->copies, link)
    {
        if (c->state == WAITS && more && is_free(c))
            begin(c);
        if (c->state == RUNS && more)
            more = ask(c);
        if (c->state == RUNS && has_ended(c))
            end(c);
    }
    answer(far);
    return more;
}

static void free_far(struct pd_xp_far *far)
{
    struct pd_transport *tp = far->tp;
    struct pd_xp_copy *c;

    for (uint32_t i = 0; i < PD_XP_MAX_MAPS; i++)
        if (far->memories[i].id != 0)
            ops_of(tp)->key_close(far->memories[i].key);
    if (far->beacon != NULL)
        ops_of(tp)->key_close(far->beacon);
    free(far->probe);
    while ((c = TAILQ_FIRST(&far->spare)) != NULL) {
        TAILQ_REMOVE(&far->spare, c, link);
        free(c);
    }
    TAILQ_REMOVE(&tp->fars, far, link);
    tp->n_fars--;
    free(far);
    pd_xp_wake(tp);
}

void pd_xp_far_run(struct pd_transport *tp)
{
    struct pd_xp_far *far, *next;
    bool more = true;

    if (!tp->fars_run)
        return;
    tp->fars_run = false;
    /* Whoever was first is last the next time. */
    far = TAILQ_FIRST(&tp->fars);
    if (far != NULL && TAILQ_NEXT(far, link) != NULL) {
        TAILQ_REMOVE(&tp->fars, far, link);
        TAILQ_INSERT_TAIL(&tp->fars, far, link);
    }
    for (far = TAILQ_FIRST(&tp->fars); far != NULL; far = next) {
        next = TAILQ_NEXT(far, link);
        if (far->broken != PD_OK && far->lane != NULL)
            pd_xp_lane_fail(far->lane, far->broken);
        if (far->lane != NULL)
            greet(far);
        if (far->lane != NULL && more)
            more = run_one(far);
        else
            answer(far);
        if (far->way == NULL && far->flying == 0 && TAILQ_EMPTY(&far->copies))
            free_far(far);
    }
}

/* ---- from the fabric */

void pd_xp_far_got(void *get, pd_status status)
{
    struct pd_xp_copy *c = get;
    struct pd_xp_far *far = c->far;

    c->flying--;
    far->flying--;
    far->tp->flying--;
    far->last_got = pd_loop_now(far->tp->loop);
    if (status != PD_OK) {
        if (c->verdict == PD_OK)
            c->verdict = status;
        pd_xp_far_broken(far, status);
    }
    if (c->state == PROBES)
        far->is_read = status == PD_OK;
    else if (has_ended(c))
        end(c);
    soon(far->tp);
}

void pd_xp_far_room(struct pd_transport *tp)
{
    soon(tp);
}

void pd_xp_far_broken(struct pd_xp_far *far, pd_status status)
{
    if (far->broken == PD_OK)
        far->broken = status;
    soon(far->tp);
}

void pd_xp_far_closed(struct pd_xp_far *far)
{
    far->way = NULL;
    soon(far->tp);
}

bool pd_xp_far_is_busy(const struct pd_transport *tp)
{
    const struct pd_transport_peer *peer;

    if (tp->flying > 0 || tp->n_posts > 0)
        return true;
    TAILQ_FOREACH(peer, &tp->peers, link)
    if (peer->state == PD_XP_PEER_CONNECTING)
        return true;
    return false;
}

/* ---- ends */

static void stop(struct pd_xp_copy *c, pd_status why)
{
    if (c->state == WAITS) {
        c->verdict = why;
        leave_window(c);
    } else if (c->state == RUNS) {
        c->verdict = why;
    }
}

void pd_xp_far_leave(struct pd_xp_lane *lane)
{
    struct pd_xp_far *far = lane->far;
    struct pd_xp_copy *c;

    if (far == NULL)
        return;
    lane->far = NULL;
    far->lane = NULL;
    TAILQ_FOREACH(c, &far->copies, link)
    {
        stop(c, PD_EPEER);
        if (c->state == RUNS && has_ended(c))
            end(c);
    }
    ops_of(far->tp)->way_close(far->way);
    soon(far->tp);
}

bool pd_xp_far_moves(const struct pd_xp_lane *lane, pd_time now, pd_time patience)
{
    return lane->far == NULL || lane->far->flying == 0 || now - lane->far->last_got <= patience;
}

void pd_xp_far_unhand(struct pd_transport_window *w)
{
    struct pd_xp_copy *c, *next;

    for (c = TAILQ_FIRST(&w->copies); c != NULL; c = next) {
        next = TAILQ_NEXT(c, of_window);
        w->tp->stats.dropped_stale++;
        stop(c, PD_ESTALE);
        if (c->state == RUNS && c->flying == 0) {
            leave_window(c);
            w->sending--;
        }
    }
    if (w->tp->conf.fabric != NULL)
        soon(w->tp);
}
