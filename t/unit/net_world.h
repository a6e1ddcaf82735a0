/* SPDX-License-Identifier: Apache-2.0 */
/* A loop to test on, real or simulated. */
#ifndef PD_T_NET_WORLD_H
#define PD_T_NET_WORLD_H

#include "unit.h"

#include "loop/sim.h"
#include "loop/uv.h"

struct world {
    struct pd_loop *loop;
    struct pd_sim *sim;         /* NULL: the real loop */
};

static void world_begin(struct world *w, bool is_sim)
{
    memset(w, 0, sizeof(*w));
    if (is_sim) {
        assert_int_equal(pd_sim_create(7, NULL, &w->sim), PD_OK);
        assert_int_equal(pd_sim_loop_create(w->sim, "host", NULL, &w->loop), PD_OK);
    } else {
        assert_int_equal(pd_loop_uv_create(NULL, &w->loop), PD_OK);
    }
}

/* Runs until cond or for `limit`; cond NULL: for `limit`. */
static bool world_run(struct world *w, bool (*cond)(void *arg), void *arg, pd_time limit)
{
    pd_time end;

    if (cond != NULL && cond(arg))
        return true;
    if (w->sim != NULL) {
        if (cond != NULL)
            return pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + limit, cond, arg);
        (void)pd_sim_run_until(w->sim, pd_sim_now(w->sim) + limit);
        return true;
    }
    end = pd_loop_clock(w->loop) + limit;
    while (pd_loop_clock(w->loop) < end) {
        (void)pd_loop_uv_turn(w->loop, 5 * PD_MS);
        if (cond != NULL && cond(arg))
            return true;
    }
    return cond == NULL;
}

static void world_end(struct world *w)
{
    char names[512] = "";
    pd_status status;

    (void)world_run(w, NULL, NULL, 20 * PD_MS);
    status = pd_loop_destroy(w->loop, names, sizeof(names));
    if (status != PD_OK)
        fail_msg("open handles: %s", names);
    if (w->sim != NULL)
        assert_int_equal(pd_sim_destroy(w->sim), PD_OK);
}

static struct pd_addr world_addr(struct world *w)
{
    struct pd_addr addr;

    assert_int_equal(pd_addr_parse(w->loop, (struct pd_str){ "127.0.0.1:0", 11 }, &addr), PD_OK);
    return addr;
}

#endif
