/* SPDX-License-Identifier: Apache-2.0 */
/* What a test does to the simulated network: links, partitions, resets, silent
 * connections, changed bytes; and operations that the system refuses.  All of it
 * shows in the log.  Faults of hosts are in sim.c. */
#include "loop/sim_impl.h"

/* ---- links */

/* Calls fn for each pair of different hosts that the names stand for. */
static pd_status each_link(struct pd_sim *sim, const char *from, const char *to,
                           void (*fn)(struct sim_link *k, const void *arg), const void *arg)
{
    struct sim_host *a = from != NULL ? pd_loop_sim_host_by_name(sim, from) : NULL;
    struct sim_host *b = to != NULL ? pd_loop_sim_host_by_name(sim, to) : NULL;

    if ((from != NULL && a == NULL) || (to != NULL && b == NULL))
        return PD_ENOENT;
    for (uint32_t i = 0; i < sim->host_count; i++) {
        for (uint32_t j = 0; j < sim->host_count; j++) {
            if ((a != NULL && a->index != i) || (b != NULL && b->index != j))
                continue;
            if (i != j || (a != NULL && a == b))
                fn(&sim->hosts[i]->links[j], arg);
        }
    }
    return PD_OK;
}

static void set_conf(struct sim_link *k, const void *arg)
{
    k->conf = *(const struct pd_sim_link *)arg;
    k->is_set = true;
}

pd_status pd_sim_link_set(struct pd_sim *sim, const char *from, const char *to,
                          const struct pd_sim_link *link)
{
    if (from == NULL && to == NULL)
        sim->opts.link = *link;
    pd_loop_sim_log(sim, NULL, "link", from, link->latency_ns, link->bytes_per_s);
    return each_link(sim, from, to, set_conf, link);
}

pd_status pd_sim_link_get(struct pd_sim *sim, const char *from, const char *to,
                          struct pd_sim_link *out)
{
    struct sim_host *a = pd_loop_sim_host_by_name(sim, from);
    struct sim_host *b = pd_loop_sim_host_by_name(sim, to);

    if (a == NULL || b == NULL)
        return PD_ENOENT;
    *out = *pd_loop_sim_link_conf(a, b);
    return PD_OK;
}

static void set_cut(struct sim_link *k, const void *arg)
{
    k->is_cut = *(const bool *)arg;
}

pd_status pd_sim_partition(struct pd_sim *sim, const char *from, const char *to, bool on)
{
    pd_loop_sim_log(sim, NULL, on ? "partition from" : "join from", from, 0, 0);
    pd_loop_sim_log(sim, NULL, on ? "partition to" : "join to", to, 0, 0);
    return each_link(sim, from, to, set_cut, &on);
}

void pd_sim_heal(struct pd_sim *sim)
{
    bool off = false;

    pd_loop_sim_log(sim, NULL, "heal", NULL, 0, 0);
    each_link(sim, NULL, NULL, set_cut, &off);
    for (uint32_t i = 0; i < sim->host_count; i++) {
        sim->hosts[i]->links[i].is_cut = false;
        for (uint32_t j = 0; j < sim->host_count; j++)
            sim->hosts[i]->links[j].flips = 0;
    }
}

/* ---- connections */

static bool is_between(const struct sim_conn *c, const struct sim_host *a,
                       const struct sim_host *b)
{
    const struct sim_host *x = c->end[0].host, *y = c->end[1].host;

    if (x == NULL || y == NULL || (!c->end[0].is_open && !c->end[1].is_open))
        return false;
    return ((a == NULL || a == x) && (b == NULL || b == y)) ||
           ((a == NULL || a == y) && (b == NULL || b == x));
}

uint32_t pd_sim_reset(struct pd_sim *sim, const char *a, const char *b)
{
    struct sim_host *x = a != NULL ? pd_loop_sim_host_by_name(sim, a) : NULL;
    struct sim_host *y = b != NULL ? pd_loop_sim_host_by_name(sim, b) : NULL;
    uint32_t n = 0;

    PD_LIST_EACH_SAFE(&sim->conns, link) {
        struct sim_conn *c = PD_LIST_ENTRY(link, struct sim_conn, link);
        if (!is_between(c, x, y) || !c->is_established)
            continue;
        c->refs++;
        pd_loop_sim_conn_fail(c, 0, PD_EPEER);
        pd_loop_sim_conn_fail(c, 1, PD_EPEER);
        link_next = link->next;
        pd_loop_sim_conn_unref(c);
        n++;
    }
    return n;
}

uint32_t pd_sim_half_open(struct pd_sim *sim, const char *a, const char *b)
{
    struct sim_host *x = a != NULL ? pd_loop_sim_host_by_name(sim, a) : NULL;
    struct sim_host *y = b != NULL ? pd_loop_sim_host_by_name(sim, b) : NULL;
    uint32_t n = 0;

    PD_LIST_EACH(&sim->conns, link) {
        struct sim_conn *c = PD_LIST_ENTRY(link, struct sim_conn, link);
        if (is_between(c, x, y) && !c->is_half_open) {
            pd_loop_sim_log(sim, c->end[0].host, "half open", NULL, c->id, 0);
            c->is_half_open = true;
            n++;
        }
    }
    return n;
}

static void add_flips(struct sim_link *k, const void *arg)
{
    k->flips += *(const uint32_t *)arg;
}

pd_status pd_sim_flip(struct pd_sim *sim, const char *from, const char *to, uint32_t count)
{
    return each_link(sim, from, to, add_flips, &count);
}

/* ---- operations */

void pd_sim_refuse(struct pd_sim *sim, uint64_t n)
{
    sim->refuse_at = n == 0 ? 0 : sim->operations + n;
}

uint64_t pd_sim_operations(const struct pd_sim *sim)
{
    return sim->operations;
}

pd_status pd_loop_sim_admit(struct sim_loop *l, const char *what, const pd_status *ends, size_t n)
{
    pd_status st;

    if (++l->sim->operations != l->sim->refuse_at)
        return PD_OK;
    st = ends[pd_loop_sim_rng_below(&l->sim->faults, n)];
    pd_loop_sim_log(l->sim, l->host, "refuse", what, l->sim->operations, (uint64_t)st);
    return st;
}

pd_status pd_loop_sim_stream_admit(struct sim_stream *s, const char *what)
{
    pd_status st = SIM_ADMIT(sim_of(s->base.loop), what, PD_EPEER, PD_ETIMEDOUT);

    if (st == PD_OK)
        return PD_OK;
    pd_loop_sim_conn_send_reset(s->c, s->side);
    pd_loop_sim_conn_fail(s->c, s->side, st);
    return st;
}
