/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners of the simulator: addresses of a host, connections that wait there, and the
 * turn in which they are accepted.
 *
 * A connection that waits is an end of its own, known to the listener until it is accepted,
 * reset or closed with it.  A closed listener is freed at the end of a turn. */
#include "loop/sim_impl.h"

enum { DEFAULT_BACKLOG = 511 };

static bool is_any(const struct pd_addr *a)
{
    for (int i = 0; i < 16; i++) {
        if (a->ip[i] != 0)
            return false;
    }
    return true;
}

struct pd_listener *pd_loop_sim_listener_find(struct sim_loop *l, const struct pd_addr *addr)
{
    PD_LIST_EACH(&l->listeners, link) {
        struct pd_listener *s = PD_LIST_ENTRY(link, struct pd_listener, link);
        if (pd_addr_equal(&s->addr, addr) ||
            (s->addr.family == addr->family && addr->family != PD_AF_UNIX &&
             s->addr.port == addr->port && is_any(&s->addr)))
            return s;
    }
    return NULL;
}

pd_status pd_loop_sim_listener_open(struct pd_loop *loop, const struct pd_addr *addr,
                                    const struct pd_listener_opts *opts, pd_accept_cb on_accept,
                                    void *arg, struct pd_listener **out)
{
    struct sim_loop *l = sim_of(loop);
    struct pd_addr at;
    struct pd_listener *s;
    pd_status st;

    if (opts != NULL && opts->has_inherited_fd != 0)
        return PD_ENOSYS;
    if (on_accept == NULL || addr == NULL || addr->family == PD_AF_NONE)
        return PD_EINVAL;
    at = *addr;
    if (at.family != PD_AF_UNIX && !is_any(&at) &&
        pd_loop_sim_host_by_ip(l->sim, l->host, &at) != l->host)
        return PD_EINVAL;
    while (at.family != PD_AF_UNIX && at.port == 0) {
        at.port = l->host->next_port++;
        if (at.port < 32768 || pd_loop_sim_listener_find(l, &at) != NULL)
            at.port = 0;
        if (l->host->next_port < 32768)
            l->host->next_port = 32768;
    }
    if (pd_loop_sim_listener_find(l, &at) != NULL && (opts == NULL || opts->reuseport == 0))
        return PD_EBUSY;
    st = SIM_ADMIT(l, "listen", PD_EBUSY, PD_EPERM, PD_ENOMEM, PD_ELIMIT, PD_EIO);
    if (st != PD_OK)
        return st;
    s = pd_calloc(1, sizeof *s);
    if (s == NULL)
        return PD_ENOMEM;
    s->l = l;
    s->addr = at;
    s->name = opts != NULL ? opts->name : NULL;
    s->backlog = opts != NULL && opts->backlog != 0 ? opts->backlog : DEFAULT_BACKLOG;
    s->on_accept = on_accept;
    s->arg = arg;
    pd_list_init(&s->waiting);
    pd_list_init(&s->link);
    pd_list_append(&l->listeners, &s->link);
    l->st.listeners++;
    pd_loop_sim_log(l->sim, l->host, "listen", s->name, at.port, 0);
    *out = s;
    return PD_OK;
}

pd_status pd_loop_sim_listener_addr(struct pd_loop *loop, struct pd_listener *s,
                                    struct pd_addr *out)
{
    (void)loop;
    *out = s->addr;
    return PD_OK;
}

void pd_loop_sim_listener_pause(struct pd_loop *loop, struct pd_listener *s, bool paused)
{
    s->is_paused = paused;
    if (!paused && s->waiting_count > 0)
        pd_loop_sim_wake(sim_of(loop));
}

static struct sim_conn *conn_of_server_end(struct sim_end *e)
{
    return pd_container_of(e, struct sim_conn, end[1]);
}

void pd_loop_sim_listener_close(struct pd_loop *loop, struct pd_listener *s)
{
    struct sim_loop *l = sim_of(loop);
    struct pd_list *link;

    if (s->is_closed)
        return;
    s->is_closed = true;
    pd_loop_sim_log(l->sim, l->host, "unlisten", s->name, s->addr.port, 0);
    while ((link = pd_list_first(&s->waiting)) != NULL) {
        struct sim_conn *c = conn_of_server_end(PD_LIST_ENTRY(link, struct sim_end, waiting));
        /* Closing takes it off the list. */
        pd_loop_sim_conn_close(c, 1, true);
    }
    pd_list_remove(&s->link);
    pd_list_append(&l->dead_listeners, &s->link);
    l->st.listeners--;
    l->closing++;
    pd_loop_sim_wake(l);
}

static void accept_one(struct pd_listener *p)
{
    struct sim_loop *l = p->l;
    struct sim_end *e = PD_LIST_ENTRY(pd_list_pop(&p->waiting), struct sim_end, waiting);
    struct sim_conn *c = conn_of_server_end(e);
    struct sim_stream *s = pd_loop_sim_stream_make(l, 1, SIM_OPEN);

    p->waiting_count--;
    e->listener = NULL;
    l->st.accepts++;
    if (s == NULL) {
        pd_loop_sim_conn_close(c, 1, true);
        return;
    }
    s->c = c;
    c->refs++;
    e->s = s;
    pd_loop_sim_log(l->sim, l->host, "accept", p->name, c->id, p->addr.port);
    p->on_accept(p, &s->base, p->arg);
    pd_loop_sim_stream_begin(s);
}

static struct pd_listener *first_to_accept(struct sim_loop *l)
{
    PD_LIST_EACH(&l->listeners, link) {
        struct pd_listener *p = PD_LIST_ENTRY(link, struct pd_listener, link);
        if (!p->is_paused && !pd_list_is_empty(&p->waiting))
            return p;
    }
    return NULL;
}

void pd_loop_sim_listeners_accept(struct sim_loop *l)
{
    struct pd_listener *p;

    while ((p = first_to_accept(l)) != NULL)
        accept_one(p);
}

static void free_listeners(struct pd_list *list)
{
    struct pd_list *link;

    while ((link = pd_list_pop(list)) != NULL)
        pd_free(PD_LIST_ENTRY(link, struct pd_listener, link));
}

void pd_loop_sim_listeners_closed(struct sim_loop *l)
{
    l->closing -= pd_list_count(&l->dead_listeners);
    free_listeners(&l->dead_listeners);
}

void pd_loop_sim_listeners_drop(struct sim_loop *l)
{
    free_listeners(&l->listeners);
    free_listeners(&l->dead_listeners);
}
