/* SPDX-License-Identifier: Apache-2.0 */
/* A COPY frame waits, runs and is done.  It runs when no frame before it
 * touches the same bytes of the window; its pieces are read as gets, of which
 * `depth` may fly in an instance; when the last has ended its bytes count.
 *
 * Invariant: a copy that runs is counted in `sending` of its window, so the
 * window is not closed before its last get has ended. */
#include "far_int.h"

#include <stdlib.h>
#include <string.h>

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

uint32_t pd_xp_copy_memory(const struct pd_xp_copy *c)
{
    return get32(c->body);
}

struct pd_xp_copy *pd_xp_copy_take(struct pd_xp_far *far)
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
    c->state = PD_XP_COPY_WAITS;
    c->verdict = PD_OK;
    return c;
}

/* Reads the payload of a COPY frame, see share.c. */
static pd_status read_pieces(struct pd_xp_far *far, struct pd_xp_copy *c, uint32_t len)
{
    const struct pd_xp_far_memory *m;
    uint64_t sum = 0;

    if (len < 8 || get32(c->body) == 0)
        return PD_EPROTO;
    m = pd_xp_far_find(far, get32(c->body));
    if (m == NULL)
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
                               : pd_xp_copy_take(far);

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
        c->state = PD_XP_COPY_DONE;
    pd_xp_far_soon(lane->tp);
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
        c->state = PD_XP_COPY_DONE;
        return;
    }
    if (c->far->flying == 0)
        c->far->last_got = pd_loop_now(c->far->tp->loop);
    c->state = PD_XP_COPY_RUNS;
    w->sending++;
    pd_xp_far_ops(c->far->tp)->poke(c->far->tp->conf.fabric);
}

/* Asks for as much as may fly.  False: no more may. */
static bool ask(struct pd_xp_copy *c)
{
    struct pd_transport *tp = c->far->tp;
    size_t max = tp->conf.fabric->max_get;
    const struct pd_xp_far_memory *m = pd_xp_far_find(c->far, get32(c->body));

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
        st = pd_xp_far_ops(tp)->get(c->far->way, m->key, get64(piece) + c->skip, iov.base,
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

bool pd_xp_copy_has_ended(const struct pd_xp_copy *c)
{
    return c->flying == 0 && (c->asked == c->bytes || c->verdict != PD_OK);
}

/* Out of its window, without telling that. */
static void leave_window(struct pd_xp_copy *c)
{
    TAILQ_REMOVE(&c->window->copies, c, of_window);
    c->window = NULL;
    c->state = PD_XP_COPY_DONE;
}

void pd_xp_copy_end(struct pd_xp_copy *c)
{
    struct pd_transport_window *w = c->window;

    if (c->verdict == PD_OK)
        c->verdict = pd_xp_window_landed(w, c->offset, c->bytes);
    leave_window(c);
    pd_xp_window_unsend(w);
    pd_xp_far_soon(c->far->tp);
}

static void drop(struct pd_xp_copy *c)
{
    TAILQ_REMOVE(&c->far->copies, c, link);
    c->far->n_copies--;
    TAILQ_INSERT_HEAD(&c->far->spare, c, link);
}

void pd_xp_copies_answer(struct pd_xp_far *far)
{
    struct pd_xp_copy *c;

    while ((c = TAILQ_FIRST(&far->copies)) != NULL && c->state == PD_XP_COPY_DONE) {
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

bool pd_xp_copies_run(struct pd_xp_far *far)
{
    struct pd_xp_copy *c;
    bool more = true;

    pd_xp_far_probe(far);
    TAILQ_FOREACH(c, &far->copies, link)
    {
        if (c->state == PD_XP_COPY_WAITS && more && is_free(c))
            begin(c);
        if (c->state == PD_XP_COPY_RUNS && more)
            more = ask(c);
        if (c->state == PD_XP_COPY_RUNS && pd_xp_copy_has_ended(c))
            pd_xp_copy_end(c);
    }
    pd_xp_copies_answer(far);
    return more;
}

void pd_xp_copy_stop(struct pd_xp_copy *c, pd_status why)
{
    if (c->state == PD_XP_COPY_WAITS) {
        c->verdict = why;
        leave_window(c);
    } else if (c->state == PD_XP_COPY_RUNS) {
        c->verdict = why;
    }
}

void pd_xp_far_unhand(struct pd_transport_window *w)
{
    struct pd_xp_copy *c, *next;

    for (c = TAILQ_FIRST(&w->copies); c != NULL; c = next) {
        next = TAILQ_NEXT(c, of_window);
        w->tp->stats.dropped_stale++;
        pd_xp_copy_stop(c, PD_ESTALE);
        if (c->state == PD_XP_COPY_RUNS && c->flying == 0) {
            leave_window(c);
            w->sending--;
        }
    }
    if (w->tp->conf.fabric != NULL)
        pd_xp_far_soon(w->tp);
}
