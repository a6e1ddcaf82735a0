/* SPDX-License-Identifier: Apache-2.0 */
/* Where cases of transports run: on the real loop, and in the simulator. */
#include "conform/transport_run.h"

#include "loop/sim.h"
#include "loop/uv.h"

static bool uv_run_loop(struct pd_loop *loop, bool (*cond)(void *arg), void *arg, pd_time limit)
{
    pd_time end = pd_loop_clock(loop) + limit;

    while (!cond(arg)) {
        pd_time now = pd_loop_clock(loop);
        if (now >= end)
            return false;
        assert_int_equal(pd_loop_uv_turn(loop, end - now < 10 * PD_MS ? end - now : 10 * PD_MS), PD_OK);
    }
    return true;
}

static bool uv_run(struct tr_env *e, bool (*cond)(void *arg), void *arg)
{
    return uv_run_loop(e->la, cond, arg, 30 * PD_SEC);
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void uv_pass(struct tr_env *e, pd_time ns)
{
    assert_int_equal(pd_loop_uv_turn(e->la, 0), PD_OK);
    uv_run_loop(e->la, never, NULL, ns);
}

static struct pd_loop *uv_new_loop(void)
{
    struct pd_loop *loop = NULL;

    assert_int_equal(pd_loop_uv_create(NULL, &loop), PD_OK);
    return loop;
}

static bool sim_run(struct tr_env *e, bool (*cond)(void *arg), void *arg)
{
    struct pd_sim *sim = e->priv;

    return pd_sim_run_cond(sim, pd_sim_now(sim) + 120 * PD_SEC, cond, arg);
}

static void sim_pass(struct tr_env *e, pd_time ns)
{
    pd_sim_run_until(e->priv, pd_sim_now(e->priv) + ns);
}

static void env_fill(struct tr_env *e, struct cf_world *w)
{
    memset(e, 0, sizeof(*e));
    e->ops = (const void *)w->u->ops;
    e->conf = w->u->conf;
    e->conf_tiny = w->u->conf_small;
    e->log = w->log;
    e->metrics = w->metrics;
    e->host = &w->host;
    e->foreign = true;
    e->scale = 6;
    e->world = w;
}

/* Whether the module works on this loop at all; a module may decline. */
static bool declines(struct cf_world *w, struct pd_loop *loop, char *why, size_t size)
{
    struct cf_world other = *w;
    struct cf_inst i;
    struct pd_err err;
    pd_status st;

    other.loop = loop;
    st = cf_create(&other, &i, 0, &err);
    if (st == PD_OK)
        ((const struct pd_transport_ops *)w->u->ops)->destroy(i.p, NULL, NULL);
    else
        snprintf(why, size, "%s", err.text);
    return st != PD_OK;
}

void cf_on_real_loop(const struct cf_unit *u, void (*fn)(struct tr_env *e))
{
    struct cf_world w;
    struct tr_env e;

    cf_world_open(&w, u);
    env_fill(&e, &w);
    e.la = e.lb = w.loop;
    e.run = uv_run;
    e.pass = uv_pass;
    e.new_loop = uv_new_loop;
    e.run_loop = uv_run_loop;
    fn(&e);
    cf_world_close(&w);
}

void cf_in_simulator(const struct cf_unit *u, void (*fn)(struct tr_env *e))
{
    static const struct pd_sim_opts lines = {
        .link = { .latency_ns = 200 * PD_US, .jitter_ns = PD_MS, .bytes_per_s = 2000000000,
                  .loss_ppm = 5000, .retransmit_ns = 3 * PD_MS } };
    char why[512] = "";
    struct cf_world w;
    struct tr_env e;
    struct pd_sim *sim = NULL;

    cf_world_open(&w, u);
    env_fill(&e, &w);
    assert_int_equal(pd_sim_create(7, &lines, &sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(sim, "a", "10.0.0.1", &e.la), PD_OK);
    assert_int_equal(pd_sim_loop_create(sim, "b", "10.0.0.2", &e.lb), PD_OK);
    if (declines(&w, e.la, why, sizeof(why)))
        cf_skip("declines the simulator: %s", why);
    e.run = sim_run;
    e.pass = sim_pass;
    e.priv = sim;
    pd_sim_run_until(sim, pd_sim_now(sim) + PD_SEC);
    fn(&e);
    pd_sim_run_until(sim, pd_sim_now(sim) + PD_SEC);
    cf_loop_end(e.lb);
    cf_loop_end(e.la);
    assert_int_equal(pd_sim_destroy(sim), PD_OK);
    cf_world_close(&w);
}

void cf_pair_open(struct tr_env *e, struct cf_pair *p, uint64_t bytes, uint64_t window, const void *conf)
{
    struct pd_segment all = { 0, window };

    tr_node_open(e, &p->a, e->la, 0xa1, 11, bytes, conf);
    tr_node_open(e, &p->b, e->lb, 0xb2, 22, bytes, conf);
    tr_fill(p->b.base, bytes, 1);
    tr_connect_up(e, &p->link, &p->b, &p->a);
    tr_window_open(&p->w, &p->a, &p->b.ctx.node, 1, PD_TRANSPORT_WRITE, &all, 1);
    p->t = tr_target(&p->link, &p->w);
}

void cf_pair_close(struct tr_env *e, struct cf_pair *p)
{
    e->ops->target_close(p->t);
    tr_window_close(e, &p->w);
    tr_disconnect(e, &p->link, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &p->b);
    tr_node_close(e, &p->a);
}
