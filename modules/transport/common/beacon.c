/* SPDX-License-Identifier: Apache-2.0 */
/* Beacons: random bytes that a node shows over the fabric and names on the lane.  Who has
 * read them knows that the fabric leads to the process at the other end of the lane.
 *
 * One region holds ours and the places where others' are read to.  A place may be another's
 * again after as many links as there are places; what is read there is compared at once. */
#include "far_int.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define SLOTS 4097u               /* ours, and as many as links can be */

pd_status pd_xp_far_open(struct pd_transport *tp, struct pd_err *err)
{
    struct pd_xp_fabric *f = tp->conf.fabric;
    size_t bytes = (size_t)PD_XP_BEACON * SLOTS;
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
    pd_loop_random(tp->loop, tp->beacon, PD_XP_BEACON);
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
    pd_xp_far_ops(tp)->region_remove(tp->conf.fabric, tp->beacon_region);
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
    memcpy(h.token, tp->beacon, PD_XP_BEACON);
    pd_xp_lane_control(lane, &h, lane->small_out, (uint32_t)(len + key_len));
    f->ops->poke(f);
    return PD_OK;
}

void pd_xp_far_probe(struct pd_xp_far *far)
{
    struct pd_transport *tp = far->tp;
    struct pd_xp_copy *c = far->probe;
    bool done = false;
    pd_status st;

    if (c == NULL || c->flying > 0 || far->is_read)
        return;
    st = pd_xp_far_ops(tp)->get(far->way, far->beacon, 0, tp->beacon + c->offset, tp->beacon_region, PD_XP_BEACON,
                         c, &done);
    if (st == PD_OK && done) {
        far->is_read = true;
        pd_xp_far_soon(tp);
    } else if (st == PD_OK) {
        c->flying++;
        far->flying++;
        tp->flying++;
        far->last_got = pd_loop_now(tp->loop);
        pd_xp_far_ops(tp)->poke(tp->conf.fabric);
    } else if (st != PD_EAGAIN) {
        pd_xp_far_broken(far, st);
    }
}

void pd_xp_far_greet(struct pd_xp_far *far)
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

pd_status pd_xp_far_begin_probe(struct pd_xp_far *far, const struct pd_xp_head *h)
{
    struct pd_transport *tp = far->tp;
    struct pd_xp_copy *c;

    if (h->offset == 0 || h->offset >= h->length)
        return PD_EPROTO;
    c = pd_xp_copy_take(far);
    if (c == NULL)
        return PD_ENOMEM;
    c->state = PD_XP_COPY_PROBES;
    c->offset = PD_XP_BEACON * (1 + tp->next_beacon++ % (SLOTS - 1));
    memset(tp->beacon + c->offset, 0, PD_XP_BEACON);
    memcpy(c->body, h->token, PD_XP_BEACON);
    far->probe = c;
    return PD_OK;
}
