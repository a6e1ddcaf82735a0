/* SPDX-License-Identifier: Apache-2.0 */
/* The simulation itself: the one queue of events, hosts, crashes, the log.
 *
 * Everything that happens is a node in one queue ordered by (time, sequence),
 * so a run is a function of the seed and of the calls made; nothing here reads
 * a clock, an address of memory or a hash order.  The log is hashed event by
 * event whether or not anybody reads its text. */
#include "loop/sim_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WALL_2026 ((pd_time)1767225600 * PD_SEC)

/* ---- the queue */

void pd_loop_sim_schedule(struct pd_sim *sim, struct pd_loop_node *n, uint32_t kind,
                          struct sim_loop *l, pd_time due)
{
    n->kind = kind;
    n->loop = l != NULL ? &l->base : NULL;
    n->due = due;
    n->seq = sim->seq++;
    pd_loop_queue_add(&sim->queue, n);
}

void pd_loop_sim_unschedule(struct pd_sim *sim, struct pd_loop_node *n)
{
    if ((n->kind & SIM_HELD) != 0)
        pd_loop_queue_remove(&sim_of(n->loop)->held, n);
    else
        pd_loop_queue_remove(&sim->queue, n);
    n->kind = 0;
}

struct at_event {
    struct pd_loop_node node;
    void (*fn)(void *arg);
    void *arg;
};

static void network_event(struct pd_sim *sim, struct pd_loop_node *n, uint32_t kind)
{
    struct at_event *e;
    void (*fn)(void *arg);
    void *arg;

    if (kind == SIM_PACKET) {
        pd_loop_sim_packet_arrive(sim, n);
    } else if (kind == SIM_RETRY) {
        pd_loop_sim_retry(sim, n);
    } else {
        e = pd_container_of(n, struct at_event, node);
        fn = e->fn;
        arg = e->arg;
        pd_free(e);
        fn(arg);
    }
}

bool pd_sim_step(struct pd_sim *sim, pd_time until)
{
    struct pd_loop_node *n = sim->queue.root;
    struct sim_loop *l;
    uint32_t kind;

    if (n == NULL || n->due > until)
        return false;
    pd_loop_queue_remove(&sim->queue, n);
    if (n->due > sim->now)
        sim->now = n->due;
    kind = n->kind;
    l = n->loop != NULL ? sim_of(n->loop) : NULL;
    if (l != NULL && l->is_stopped) {
        n->kind = kind | SIM_HELD;
        pd_loop_queue_add(&l->held, n);
    } else if (l != NULL && l->busy_until > sim->now) {
        n->due = l->busy_until;     /* its sequence stays: the order holds */
        pd_loop_queue_add(&sim->queue, n);
    } else {
        n->kind = 0;
        if (l != NULL) {
            l->st.timers -= kind == SIM_TIMER;
            pd_loop_sim_loop_event(l, n, kind);
        } else {
            network_event(sim, n, kind);
        }
    }
    return true;
}

static void set_time(struct pd_sim *sim, pd_time t)
{
    if (t > sim->now)
        sim->now = t;
    for (uint32_t i = 0; i < sim->host_count; i++) {
        if (sim->hosts[i]->loop != NULL)
            sim->hosts[i]->loop->base.now = sim->now;
    }
}

uint64_t pd_sim_run_until(struct pd_sim *sim, pd_time until)
{
    uint64_t n = 0;

    while (pd_sim_step(sim, until))
        n++;
    set_time(sim, until);
    return n;
}

bool pd_sim_run_cond(struct pd_sim *sim, pd_time until, bool (*cond)(void *arg), void *arg)
{
    while (!cond(arg)) {
        if (!pd_sim_step(sim, until)) {
            set_time(sim, until);
            return cond(arg);
        }
    }
    set_time(sim, sim->now);
    return true;
}

pd_time pd_sim_now(const struct pd_sim *sim)
{
    return sim->now;
}

uint64_t pd_sim_random(struct pd_sim *sim)
{
    return pd_loop_sim_rng_next(&sim->faults);
}

pd_status pd_sim_at(struct pd_sim *sim, pd_time when, void (*fn)(void *arg), void *arg)
{
    struct at_event *e = pd_calloc(1, sizeof *e);

    if (e == NULL)
        return PD_ENOMEM;
    e->fn = fn;
    e->arg = arg;
    pd_loop_sim_schedule(sim, &e->node, SIM_AT, NULL, PD_MAX(when, sim->now));
    return PD_OK;
}

/* ---- the log */

static void mix(struct pd_sim *sim, uint64_t v)
{
    uint64_t h = sim->hash ^ v;

    h *= 0x9fb21c651e98df25u;
    h ^= h >> 32;
    sim->hash = h * 0x9e3779b97f4a7c15u;
}

static void mix_text(struct pd_sim *sim, const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; s != NULL && *s != '\0'; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    mix(sim, h);
}

void pd_loop_sim_log(struct pd_sim *sim, const struct sim_host *host, const char *what,
                     const char *name, uint64_t a, uint64_t b)
{
    char line[512];

    sim->lines++;
    mix(sim, sim->now);
    mix(sim, host != NULL ? host->index + 1 : 0);
    mix_text(sim, what);
    mix_text(sim, name);
    mix(sim, a);
    mix(sim, b);
    if (sim->opts.on_log == NULL)
        return;
    snprintf(line, sizeof line, "%llu.%09llu %s %s %s %llu %llu",
             (unsigned long long)(sim->now / PD_SEC), (unsigned long long)(sim->now % PD_SEC),
             host != NULL ? host->name : "-", what, name != NULL ? name : "-",
             (unsigned long long)a, (unsigned long long)b);
    sim->opts.on_log(sim->opts.arg, line);
}

void pd_sim_note(struct pd_loop *loop, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pd_loop_note(loop, text);
}

uint64_t pd_sim_hash(const struct pd_sim *sim)
{
    return sim->hash;
}

uint64_t pd_sim_lines(const struct pd_sim *sim)
{
    return sim->lines;
}

uint32_t pd_sim_connections(const struct pd_sim *sim)
{
    return (uint32_t)pd_list_count(&sim->conns);
}

/* ---- hosts */

static bool is_good_name(const char *name)
{
    size_t n = strnlen(name, SIM_NAME);

    return n > 0 && n < SIM_NAME && strcmp(name, "localhost") != 0;
}

static pd_status host_addr(struct pd_sim *sim, const char *ip, struct pd_addr *out)
{
    char text[32];

    if (ip != NULL)
        return pd_loop_addr_parse_ip(ip, 0, out);
    snprintf(text, sizeof text, "10.0.%u.%u", (sim->host_count + 1) / 250,
             (sim->host_count + 1) % 250 + 1);
    return pd_loop_addr_parse_ip(text, 0, out);
}

struct sim_host *pd_loop_sim_host_by_name(struct pd_sim *sim, const char *name)
{
    for (uint32_t i = 0; i < sim->host_count; i++) {
        if (strcmp(sim->hosts[i]->name, name) == 0)
            return sim->hosts[i];
    }
    return NULL;
}

static pd_status host_add(struct pd_sim *sim, const char *name, const char *ip,
                          struct sim_host **out)
{
    struct sim_host *h;
    struct pd_addr addr;

    if (!is_good_name(name) || host_addr(sim, ip, &addr) != PD_OK)
        return PD_EINVAL;
    for (uint32_t i = 0; i < sim->host_count; i++) {
        if (pd_addr_equal(&sim->hosts[i]->ip, &addr))
            return PD_EEXIST;
    }
    if (sim->host_count == SIM_HOSTS)
        return PD_ELIMIT;
    h = pd_calloc(1, sizeof *h);
    if (h == NULL)
        return PD_ENOMEM;
    h->links = pd_calloc(SIM_HOSTS, sizeof *h->links);
    if (h->links == NULL) {
        pd_free(h);
        return PD_ENOMEM;
    }
    h->sim = sim;
    h->index = sim->host_count;
    strcpy(h->name, name);
    h->ip = addr;
    h->next_port = 32768;
    sim->hosts[sim->host_count++] = h;
    *out = h;
    return PD_OK;
}

pd_status pd_sim_loop_create(struct pd_sim *sim, const char *name, const char *ip,
                             struct pd_loop **out)
{
    struct sim_host *h = pd_loop_sim_host_by_name(sim, name);
    struct pd_addr addr;
    pd_status st;

    if (h == NULL) {
        st = host_add(sim, name, ip, &h);
        if (st != PD_OK)
            return st;
    } else if (h->loop != NULL) {
        return PD_EEXIST;
    } else if (ip != NULL && (pd_loop_addr_parse_ip(ip, 0, &addr) != PD_OK ||
                              !pd_addr_equal(&addr, &h->ip))) {
        return PD_EINVAL;
    }
    h->life++;
    st = pd_loop_sim_loop_make(h, out);
    if (st != PD_OK)
        return st;
    h->is_silent = false;
    pd_loop_sim_log(sim, h, "up", NULL, h->life, 0);
    return PD_OK;
}

void pd_sim_addr(const struct pd_loop *loop, uint16_t port, struct pd_addr *out)
{
    *out = ((const struct sim_loop *)loop)->host->ip;
    out->port = port;
}

pd_status pd_sim_name_add(struct pd_sim *sim, const char *name, const char *ip)
{
    struct sim_name *n;
    struct pd_addr addr;

    if (!is_good_name(name) || pd_loop_addr_parse_ip(ip, 0, &addr) != PD_OK)
        return PD_EINVAL;
    if (sim->name_count == SIM_NAMES)
        return PD_ELIMIT;
    n = pd_realloc_array(sim->names, sim->name_count + 1, sizeof *n);
    if (n == NULL)
        return PD_ENOMEM;
    sim->names = n;
    n += sim->name_count++;
    strcpy(n->name, name);
    n->ip = addr;
    return PD_OK;
}

pd_status pd_sim_name_remove(struct pd_sim *sim, const char *name, const char *ip)
{
    struct pd_addr addr;
    uint32_t kept = 0, before = sim->name_count;

    if (ip != NULL && pd_loop_addr_parse_ip(ip, 0, &addr) != PD_OK)
        return PD_ENOENT;
    for (uint32_t i = 0; i < before; i++) {
        if (strcmp(sim->names[i].name, name) != 0 || (ip != NULL && !pd_addr_equal(&sim->names[i].ip, &addr)))
            sim->names[kept++] = sim->names[i];
    }
    sim->name_count = kept;
    return kept < before ? PD_OK : PD_ENOENT;
}

void pd_sim_resolver_set(struct pd_sim *sim, pd_status status)
{
    sim->resolver = status;
}

/* ---- faults of hosts */

/* Takes every node of the loop out of the queue, without looking at what
 * they stand in afterwards. */
static void forget_events(struct sim_loop *l)
{
    struct pd_sim *sim = l->sim;
    struct pd_loop_queue keep = { NULL, 0 };
    struct pd_loop_node *n;

    while ((n = pd_loop_queue_pop(&sim->queue)) != NULL) {
        if (n->loop == &l->base)
            n->kind = 0;
        else
            pd_loop_queue_add(&keep, n);
    }
    while ((n = pd_loop_queue_pop(&l->held)) != NULL)
        n->kind = 0;
    sim->queue = keep;
}

void pd_sim_crash(struct pd_loop *loop, bool tell_peers)
{
    struct sim_loop *l = sim_of(loop);
    struct sim_host *h = l->host;

    pd_assert(!l->in_turn);
    pd_loop_sim_log(l->sim, h, tell_peers ? "crash" : "vanish", NULL, 0, 0);
    forget_events(l);
    pd_loop_sim_net_forget_host(h, tell_peers);
    pd_loop_sim_streams_drop(l);
    pd_loop_sim_work_drop(l);
    h->is_silent = !tell_peers;
    pd_loop_sim_loop_free(l);
}

void pd_sim_stop(struct pd_loop *loop, bool stopped)
{
    struct sim_loop *l = sim_of(loop);
    struct pd_loop_node *n;

    if (l->is_stopped == stopped)
        return;
    pd_loop_sim_log(l->sim, l->host, stopped ? "stop" : "continue", NULL, 0, 0);
    l->is_stopped = stopped;
    while (!stopped && (n = pd_loop_queue_pop(&l->held)) != NULL) {
        n->kind &= ~(uint32_t)SIM_HELD;
        n->due = l->sim->now;
        n->seq = l->sim->seq++;
        pd_loop_queue_add(&l->sim->queue, n);
    }
}

/* ---- life */

static void set_defaults(struct pd_sim_opts *o)
{
    static const struct pd_sim_link zero;

    if (memcmp(&o->link, &zero, sizeof zero) == 0) {
        o->link.latency_ns = 50 * PD_US;
        o->link.bytes_per_s = 1250000000;
    }
    if (o->link.retransmit_ns == 0)
        o->link.retransmit_ns = 200 * PD_MS;
    if (o->buffer_bytes == 0)
        o->buffer_bytes = 256 * 1024;
    if (o->segment_bytes == 0)
        o->segment_bytes = 64 * 1024;
    if (o->connect_timeout_ns == 0)
        o->connect_timeout_ns = 10 * PD_SEC;
    if (o->dead_ns == 0)
        o->dead_ns = 60 * PD_SEC;
    if (o->wall_start_ns == 0)
        o->wall_start_ns = WALL_2026;
}

pd_status pd_sim_create(uint64_t seed, const struct pd_sim_opts *opts, struct pd_sim **out)
{
    struct pd_sim *sim = pd_calloc(1, sizeof *sim);

    if (sim == NULL)
        return PD_ENOMEM;
    sim->seed = seed;
    if (opts != NULL)
        sim->opts = *opts;
    set_defaults(&sim->opts);
    sim->now = PD_SEC;
    pd_loop_sim_rng_seed(&sim->net, seed);
    pd_loop_sim_rng_seed(&sim->faults, ~seed);
    pd_list_init(&sim->conns);
    *out = sim;
    return PD_OK;
}

pd_status pd_sim_destroy(struct pd_sim *sim)
{
    struct pd_loop_node *n;
    struct pd_list *link;
    struct sim_packet *p;

    for (uint32_t i = 0; i < sim->host_count; i++) {
        if (sim->hosts[i]->loop != NULL)
            return PD_EBUSY;
    }
    while ((n = pd_loop_queue_pop(&sim->queue)) != NULL) {
        if (n->kind == SIM_PACKET)
            pd_loop_sim_packet_free(sim, n);
        else if (n->kind == SIM_AT)
            pd_free(pd_container_of(n, struct at_event, node));
    }
    while ((link = pd_list_first(&sim->conns)) != NULL)
        pd_loop_sim_conn_free(PD_LIST_ENTRY(link, struct sim_conn, link));
    while ((p = sim->free_packets) != NULL) {
        sim->free_packets = p->next_free;
        pd_free(p);
    }
    for (uint32_t i = 0; i < sim->host_count; i++) {
        pd_free(sim->hosts[i]->links);
        pd_free(sim->hosts[i]);
    }
    pd_free(sim->names);
    pd_free(sim);
    return PD_OK;
}
