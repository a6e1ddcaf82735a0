/* SPDX-License-Identifier: Apache-2.0 */
/* The cases of loop_cases.h.  Each ends with nothing open; the caller checks
 * that by destroying the loops. */
#include "loop_cases.h"

#include "base/mem.h"

/* ---- a peer: one end of a connection with the usual habits */

enum { RING = 65536 };

struct peer {
    struct env *e;
    struct pd_stream *s;
    struct pd_listener *l;      /* closed when the peer's first connection came */
    struct peer *next;          /* who accepts next */
    pd_status connected;
    bool was_connected, is_closed, is_ended, got_hangup, close_on_read, echo;
    pd_status error;
    uint64_t to_send, sent, received;
    uint64_t readable_calls;
    bool shutdown_when_sent, did_shutdown, keep_open;
    uint8_t ring[RING];         /* for echo: bytes read and not yet written */
    size_t head, fill;
    uint32_t step;
};

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)((at * 2654435761u) >> 13);
}

static void pump_send(struct peer *p)
{
    uint8_t buf[16384];
    pd_status st;

    while (p->sent < p->to_send) {
        size_t n = sizeof buf, sent;
        if (n > p->to_send - p->sent)
            n = (size_t)(p->to_send - p->sent);
        for (size_t i = 0; i < n; i++)
            buf[i] = pattern(p->sent + i);
        st = pd_stream_write(p->s, buf, n, &sent);
        if (st == PD_EAGAIN)
            return;
        if (st != PD_OK) {
            p->error = st;
            return;
        }
        p->sent += sent;
        if (sent < n)
            return;
    }
    if (p->shutdown_when_sent && !p->did_shutdown) {
        p->did_shutdown = true;
        st = pd_stream_shutdown_write(p->s);
        if (st != PD_OK)
            p->error = st;
    }
}

/* Writes what the ring holds as two pieces; reads only into free room. */
static void pump_echo(struct peer *p)
{
    while (p->fill > 0) {
        struct pd_iov iov[2];
        size_t first = p->fill < RING - p->head ? p->fill : RING - p->head, sent, n = 1;
        pd_status st;
        iov[0].base = p->ring + p->head;
        iov[0].len = first;
        if (first < p->fill) {
            iov[1].base = p->ring;
            iov[1].len = p->fill - first;
            n = 2;
        }
        st = pd_stream_writev(p->s, iov, n, &sent);
        if (st == PD_EAGAIN)
            break;
        if (st != PD_OK) {
            p->error = st;
            break;
        }
        p->head = (p->head + sent) % RING;
        p->fill -= sent;
    }
    if (p->fill < RING)
        pd_stream_resume_read(p->s);
    if (p->fill == 0 && p->is_ended && !p->did_shutdown) {
        p->did_shutdown = true;
        pd_stream_shutdown_write(p->s);
    }
}

static void peer_readable(struct pd_stream *s, void *arg)
{
    struct peer *p = arg;

    p->readable_calls++;
    if (p->close_on_read) {
        pd_stream_close(s);
        pd_stream_close(s);
        return;
    }
    for (;;) {
        uint8_t buf[20000];
        size_t room = sizeof buf, got;
        pd_status st;
        if (p->echo && room > RING - p->fill)
            room = RING - p->fill;
        if (room == 0) {
            pd_stream_pause_read(s);
            return;
        }
        st = pd_stream_read(s, buf, room, &got);
        if (st == PD_EAGAIN)
            return;
        if (st == PD_EEOF) {
            p->is_ended = true;
            if (p->echo)
                pump_echo(p);
            return;
        }
        if (st != PD_OK) {
            p->error = st;
            return;
        }
        for (size_t i = 0; i < got; i++) {
            if (p->echo)
                p->ring[(p->head + p->fill + i) % RING] = buf[i];
            else
                assert_int_equal(buf[i], pattern(p->received + i));
        }
        if (p->echo)
            p->fill += got;
        p->received += got;
        if (p->echo)
            pump_echo(p);
    }
}

static void peer_writable(struct pd_stream *s, void *arg)
{
    struct peer *p = arg;

    (void)s;
    if (p->echo)
        pump_echo(p);
    else
        pump_send(p);
}

static void peer_connected(struct pd_stream *s, pd_status st, void *arg)
{
    struct peer *p = arg;

    p->was_connected = true;
    p->connected = st;
    if (st != PD_OK)
        pd_stream_close(s);
    else
        pump_send(p);
}

static void peer_hangup(struct pd_stream *s, void *arg)
{
    struct peer *p = arg;

    (void)s;
    assert_false(p->got_hangup);
    p->got_hangup = true;
}

static void peer_closed(struct pd_stream *s, void *arg)
{
    struct peer *p = arg;

    assert_ptr_equal(s, p->s);
    assert_false(p->is_closed);
    p->is_closed = true;
}

static const struct pd_stream_events peer_events = {
    .name = "peer",
    .on_connected = peer_connected,
    .on_readable = peer_readable,
    .on_writable = peer_writable,
    .on_hangup = peer_hangup,
    .on_closed = peer_closed,
};

static struct peer *peer_new(struct env *e)
{
    struct peer *p = calloc(1, sizeof *p);

    p->e = e;
    return p;
}

static void on_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct peer *p = arg;

    (void)l;
    while (p->s != NULL && p->next != NULL)
        p = p->next;
    assert_null(p->s);
    p->s = s;
    pd_stream_set_events(s, &peer_events, p);
    pump_send(p);
}

static void serve(struct peer *p, struct pd_addr *addr)
{
    struct env *e = p->e;
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "server" };

    assert_int_equal(pd_listener_open(e->server, addr, &opts, on_accept, p, &p->l), PD_OK);
    assert_int_equal(pd_listener_addr(e->server, p->l, addr), PD_OK);
}

static void dial(struct peer *p, const struct pd_addr *addr)
{
    assert_int_equal(pd_stream_connect(p->e->client, addr, &peer_events, p, &p->s), PD_OK);
    assert_false(p->was_connected);
}

static bool both_closed(void *arg)
{
    struct peer **p = arg;

    return p[0]->is_closed && p[1]->is_closed;
}

static void end_pair(struct env *e, struct peer *a, struct peer *b)
{
    struct peer *both[2] = { a, b };

    if (!a->is_closed)
        pd_stream_close(a->s);
    if (!b->is_closed)
        pd_stream_close(b->s);
    assert_true(e->run(e, both_closed, both));
    free(a);
    free(b);
}

static bool both_connected(void *arg)
{
    struct peer **p = arg;

    return p[0]->was_connected && p[1]->s != NULL;
}

/* A connected pair: a dialled b. */
static void make_pair(struct env *e, struct peer *a, struct peer *b)
{
    struct pd_addr addr = e->addr;
    struct peer *both[2] = { a, b };
    struct pd_addr got;

    serve(b, &addr);
    dial(a, &addr);
    assert_true(e->run(e, both_connected, both));
    assert_int_equal(a->connected, PD_OK);
    if (pd_stream_peer_addr(a->s, &got) == PD_OK)
        assert_true(pd_addr_equal(&got, &addr));
    else
        assert_true(b->is_closed || b->close_on_read);
    if (!b->is_closed && !b->close_on_read) {
        assert_int_equal(pd_stream_local_addr(b->s, &got), PD_OK);
        assert_true(pd_addr_equal(&got, &addr));
    }
    pd_listener_close(e->server, b->l);
}


static bool is_true(void *arg)
{
    return *(bool *)arg;
}

static void set_true(struct pd_timer *t, void *arg)
{
    (void)t;
    *(bool *)arg = true;
}

/* Lets both loops run for a while. */
static void settle(struct env *e, pd_time ns)
{
    struct pd_timer t;
    bool done = false;

    pd_timer_init(&t, e->client, "settle", set_true, &done);
    pd_timer_start(&t, ns);
    assert_true(e->run(e, is_true, &done));
}

/* ---- streams */

static bool echo_done(void *arg)
{
    struct peer *p = arg;

    return p->is_ended || p->error != PD_OK;
}

static void echo_over(struct env *e, struct pd_addr addr)
{
    struct peer *a = peer_new(e), *b = peer_new(e);

    b->echo = true;
    serve(b, &addr);
    a->to_send = 8 << 20;
    a->shutdown_when_sent = true;
    dial(a, &addr);
    assert_true(e->run(e, echo_done, a));
    assert_int_equal(a->error, PD_OK);
    assert_int_equal(a->sent, a->to_send);
    assert_int_equal(a->received, a->to_send);
    assert_int_equal(b->received, a->to_send);
    pd_listener_close(e->server, b->l);
    end_pair(e, a, b);
}

void case_echo(struct env *e)
{
    echo_over(e, e->addr);
}

void case_echo_other_family(struct env *e)
{
    if (e->other_family.family != PD_AF_NONE)
        echo_over(e, e->other_family);
}

static bool client_ended(void *arg)
{
    struct peer **p = arg;

    return p[0]->is_ended && p[1]->is_ended;
}

/* Each side ends its direction at its own time; the other goes on. */
void case_half_close(struct env *e)
{
    struct peer *a = peer_new(e), *b = peer_new(e), *both[2] = { a, b };
    size_t got;
    uint8_t byte;

    a->to_send = 1000;
    a->shutdown_when_sent = true;
    make_pair(e, a, b);
    while (!b->is_ended)
        settle(e, PD_MS);
    assert_int_equal(b->received, 1000);
    assert_false(a->is_ended);
    b->to_send = 300000;
    b->shutdown_when_sent = true;
    pump_send(b);
    assert_true(e->run(e, client_ended, both));
    assert_int_equal(a->received, 300000);
    assert_int_equal(pd_stream_read(a->s, &byte, 1, &got), PD_EEOF);
    assert_int_equal(pd_stream_read(a->s, &byte, 1, &got), PD_EEOF);
    end_pair(e, a, b);
}

static bool has_error(void *arg)
{
    return ((struct peer *)arg)->error != PD_OK;
}

void case_reset(struct env *e)
{
    struct peer *a = peer_new(e), *b = peer_new(e);
    size_t n;
    uint8_t byte = 0;

    make_pair(e, a, b);
    assert_int_equal(pd_stream_set_option(b->s, PD_STREAM_LINGER_RESET, 1), PD_OK);
    pd_stream_close(b->s);
    assert_true(e->run(e, has_error, a));
    assert_int_equal(a->error, PD_EPEER);
    assert_int_equal(pd_stream_read(a->s, &byte, 1, &n), PD_EPEER);
    assert_int_equal(pd_stream_write(a->s, &byte, 1, &n), PD_EPEER);
    settle(e, 5 * PD_MS);
    assert_true(a->readable_calls < 10);
    end_pair(e, a, b);
}

static bool peer_is_closed(void *arg)
{
    return ((struct peer *)arg)->is_closed;
}

void case_refused(struct env *e)
{
    struct peer *a = peer_new(e);

    dial(a, &e->nobody);
    assert_true(e->run(e, peer_is_closed, a));
    assert_true(a->was_connected);
    assert_int_equal(a->connected, PD_EPEER);
    free(a);
}

void case_close_while_connecting(struct env *e)
{
    struct peer *a = peer_new(e), *b = peer_new(e);
    struct pd_addr addr = e->addr;

    serve(b, &addr);
    dial(a, &addr);
    pd_stream_close(a->s);
    assert_false(a->is_closed);
    assert_true(e->run(e, peer_is_closed, a));
    assert_false(a->was_connected);
    settle(e, 20 * PD_MS);
    pd_listener_close(e->server, b->l);
    if (b->s != NULL) {
        pd_stream_close(b->s);
        assert_true(e->run(e, peer_is_closed, b));
    }
    free(a);
    free(b);
}

void case_close_in_callbacks(struct env *e)
{
    struct peer *a = peer_new(e), *b = peer_new(e), *both[2] = { a, b };

    a->to_send = 100000;
    b->close_on_read = true;
    make_pair(e, a, b);
    while (!b->is_closed)
        settle(e, PD_MS);
    assert_int_equal(b->readable_calls, 1);
    while (a->error == PD_OK && !a->is_ended)
        settle(e, PD_MS);
    pd_stream_close(a->s);
    assert_true(e->run(e, both_closed, both));
    free(a);
    free(b);
}

void case_pause_resume(struct env *e)
{
    struct peer *a = peer_new(e), *b = peer_new(e);
    uint64_t calls, sent;

    make_pair(e, a, b);
    pd_stream_pause_read(b->s);
    a->to_send = 64 << 20;
    pump_send(a);
    settle(e, 50 * PD_MS);
    calls = b->readable_calls;
    settle(e, 20 * PD_MS);
    sent = a->sent;
    assert_int_equal(b->readable_calls, calls);
    assert_int_equal(b->received, 0);
    assert_true(sent < a->to_send);
    settle(e, 20 * PD_MS);
    assert_int_equal(a->sent, sent);
    pd_stream_resume_read(b->s);
    while (b->received < a->to_send && a->error == PD_OK && b->error == PD_OK)
        settle(e, 2 * PD_MS);
    assert_int_equal(b->received, a->to_send);
    end_pair(e, a, b);
}

static bool hung_up(void *arg)
{
    return ((struct peer *)arg)->got_hangup;
}

void case_hangup(struct env *e)
{
    struct peer *a = peer_new(e), *b = peer_new(e);

    make_pair(e, a, b);
    pd_stream_pause_read(b->s);
    a->to_send = 100;
    a->shutdown_when_sent = true;
    pump_send(a);
    assert_true(e->run(e, hung_up, b));
    assert_int_equal(b->received, 0);
    settle(e, 10 * PD_MS);
    pd_stream_resume_read(b->s);
    assert_true(e->run(e, echo_done, b));
    assert_int_equal(b->received, 100);
    assert_true(b->is_ended);
    end_pair(e, a, b);
}

enum { MANY = 1000 };

struct many {
    struct env *e;
    struct pd_stream *in[MANY], *out[MANY];
    uint32_t accepted, echoed, closed;
};

static void many_in_readable(struct pd_stream *s, void *arg)
{
    char buf[8];
    size_t got, sent;
    pd_status st = pd_stream_read(s, buf, sizeof buf, &got);

    (void)arg;
    if (st == PD_OK)
        assert_int_equal(pd_stream_write(s, buf, got, &sent), PD_OK);
    else if (st != PD_EAGAIN)
        pd_stream_close(s);
}

static void many_out_connected(struct pd_stream *s, pd_status st, void *arg)
{
    size_t sent;

    (void)arg;
    assert_int_equal(st, PD_OK);
    assert_int_equal(pd_stream_write(s, "x", 1, &sent), PD_OK);
}

static void many_out_readable(struct pd_stream *s, void *arg)
{
    struct many *m = arg;
    char buf[8];
    size_t got;
    pd_status st = pd_stream_read(s, buf, sizeof buf, &got);

    if (st == PD_OK) {
        m->echoed++;
        pd_stream_close(s);
    }
}

static void many_closed(struct pd_stream *s, void *arg)
{
    struct many *m = arg;

    (void)s;
    m->closed++;
}

static const struct pd_stream_events many_in = {
    .name = "in", .on_readable = many_in_readable, .on_closed = many_closed,
};
static const struct pd_stream_events many_out = {
    .name = "out", .on_connected = many_out_connected, .on_readable = many_out_readable,
    .on_closed = many_closed,
};

static void many_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct many *m = arg;

    (void)l;
    m->accepted++;
    pd_stream_set_events(s, &many_in, m);
}

static bool many_done(void *arg)
{
    struct many *m = arg;

    return m->closed == 2 * MANY;
}

void case_thousand(struct env *e)
{
    struct many *m = calloc(1, sizeof *m);
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "many", .backlog = MANY };
    struct pd_addr addr = e->addr;
    struct pd_listener *l;
    struct pd_loop_stats stats;

    m->e = e;
    assert_int_equal(pd_listener_open(e->server, &addr, &opts, many_accept, m, &l), PD_OK);
    assert_int_equal(pd_listener_addr(e->server, l, &addr), PD_OK);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(pd_stream_connect(e->client, &addr, &many_out, m, &m->out[i]), PD_OK);
    pd_loop_stats_get(e->client, &stats);
    assert_int_equal(stats.streams, MANY);
    assert_true(e->run(e, many_done, m));
    assert_int_equal(m->accepted, MANY);
    assert_int_equal(m->echoed, MANY);
    pd_listener_close(e->server, l);
    free(m);
}

static void accept_nothing(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    (void)l;
    (void)s;
    (*(uint32_t *)arg)++;
}

/* A connection that on_accept does not take is closed. */
void case_not_taken(struct env *e)
{
    struct peer *a = peer_new(e);
    struct pd_addr addr = e->addr;
    struct pd_listener *l;
    uint32_t accepted = 0;

    assert_int_equal(pd_listener_open(e->server, &addr, NULL, accept_nothing, &accepted, &l),
                     PD_OK);
    assert_int_equal(pd_listener_addr(e->server, l, &addr), PD_OK);
    dial(a, &addr);
    assert_true(e->run(e, echo_done, a));
    assert_int_equal(accepted, 1);
    pd_listener_close(e->server, l);
    pd_stream_close(a->s);
    assert_true(e->run(e, peer_is_closed, a));
    free(a);
}

void case_listener_pause(struct env *e)
{
    struct peer *a = peer_new(e), *b = peer_new(e), *both[2] = { a, b };
    struct pd_addr addr = e->addr;

    serve(b, &addr);
    pd_listener_pause(e->server, b->l, true);
    dial(a, &addr);
    settle(e, 20 * PD_MS);
    assert_null(b->s);
    pd_listener_pause(e->server, b->l, false);
    assert_true(e->run(e, both_connected, both));
    pd_listener_close(e->server, b->l);
    end_pair(e, a, b);
}

/* ---- timers */

struct order {
    struct pd_loop *loop;
    uint32_t seen[64];
    uint32_t n;
    pd_time due[64];
    struct pd_timer timers[64];
};

static void record(struct pd_timer *t, void *arg)
{
    struct order *o = arg;
    uint32_t i = (uint32_t)(t - o->timers);

    assert_false(pd_timer_is_active(t));
    assert_true(pd_loop_clock(o->loop) >= o->due[i]);
    o->seen[o->n++] = i;
}

static bool order_done(void *arg)
{
    return ((struct order *)arg)->n == 60;
}

void case_timers_order(struct env *e)
{
    struct order *o = calloc(1, sizeof *o);
    pd_time base = pd_loop_clock(e->client);
    uint32_t x = 12345;

    o->loop = e->client;
    for (uint32_t i = 0; i < 64; i++) {
        x = x * 1103515245u + 12345u;
        pd_timer_init(&o->timers[i], e->client, "order", record, o);
        o->due[i] = base + ((x >> 16) % 20) * PD_MS;
        pd_timer_start_at(&o->timers[i], o->due[i]);
    }
    for (uint32_t i = 60; i < 64; i++)
        pd_timer_stop(&o->timers[i]);
    assert_true(e->run(e, order_done, o));
    for (uint32_t i = 1; i < 60; i++) {
        uint32_t p = o->seen[i - 1], q = o->seen[i];
        assert_true(o->due[p] < o->due[q] || (o->due[p] == o->due[q] && p < q));
    }
    free(o);
}

void case_timers_stop(struct env *e)
{
    struct pd_timer a, b;
    bool fired_a = false, fired_b = false;

    pd_timer_init(&a, e->client, "a", set_true, &fired_a);
    pd_timer_init(&b, e->client, "b", set_true, &fired_b);
    pd_timer_stop(&a);
    pd_timer_start(&a, 3 * PD_MS);
    pd_timer_start(&b, PD_SEC * 3600);
    assert_true(pd_timer_is_active(&a));
    pd_timer_stop(&a);
    assert_false(pd_timer_is_active(&a));
    pd_timer_start(&b, 8 * PD_MS);
    assert_true(e->run(e, is_true, &fired_b));
    assert_false(fired_a);
}

struct self {
    uint32_t n;
    pd_time first;
};

static void again(struct pd_timer *t, void *arg)
{
    struct self *s = arg;

    if (++s->n < 1000)
        pd_timer_start(t, 0);
}

static bool self_done(void *arg)
{
    return ((struct self *)arg)->n == 1000;
}

/* A timer that starts itself at once does not starve others. */
void case_timers_self(struct env *e)
{
    struct self s = { 0, 0 };
    struct pd_timer t;

    pd_timer_init(&t, e->client, "self", again, &s);
    pd_timer_start(&t, 0);
    assert_true(e->run(e, self_done, &s));
}

/* ---- tasks */

struct steps {
    struct pd_loop *loop;
    struct pd_task a, b, c;
    char text[32];
};

static void step_c(struct pd_task *t, void *arg)
{
    (void)t;
    strcat(((struct steps *)arg)->text, "c");
}

static void step_b(struct pd_task *t, void *arg)
{
    (void)t;
    strcat(((struct steps *)arg)->text, "b");
}

static void step_a(struct pd_task *t, void *arg)
{
    struct steps *s = arg;

    (void)t;
    strcat(s->text, "a");
    pd_loop_defer(s->loop, &s->c);
    pd_loop_defer(s->loop, &s->c);
}

static bool steps_done(void *arg)
{
    return strlen(((struct steps *)arg)->text) >= 3;
}

void case_deferred(struct env *e)
{
    struct steps s = { .loop = e->client };
    struct pd_task gone;

    pd_task_init(&s.a, "a", step_a, &s);
    pd_task_init(&s.b, "b", step_b, &s);
    pd_task_init(&s.c, "c", step_c, &s);
    pd_task_init(&gone, "gone", step_b, &s);
    pd_loop_defer(e->client, &s.a);
    pd_loop_defer(e->client, &gone);
    pd_loop_defer(e->client, &s.b);
    pd_task_cancel(e->client, &gone);
    pd_task_cancel(e->client, &gone);
    assert_string_equal(s.text, "");
    assert_true(e->run(e, steps_done, &s));
    settle(e, PD_MS);
    assert_string_equal(s.text, "abc");
}

struct chain {
    struct pd_loop *loop;
    struct pd_task first, second;
    uint64_t first_turn[2], second_turn;
    int n;
};

static uint64_t turn_of(struct pd_loop *loop)
{
    struct pd_loop_stats st;

    pd_loop_stats_get(loop, &st);
    return st.turns;
}

static void chain_first(struct pd_task *t, void *arg)
{
    struct chain *c = arg;

    c->first_turn[c->n++] = turn_of(c->loop);
    if (c->n == 2)
        return;
    pd_loop_defer(c->loop, t);
    pd_loop_defer(c->loop, &c->second);
}

static void chain_second(struct pd_task *t, void *arg)
{
    struct chain *c = arg;

    (void)t;
    c->second_turn = turn_of(c->loop);
}

static bool chain_done(void *arg)
{
    return ((struct chain *)arg)->n == 2;
}

/* What a deferred task defers runs in the same turn, but no task twice. */
void case_deferred_chain(struct env *e)
{
    struct chain c = { .loop = e->client };

    pd_task_init(&c.first, "first", chain_first, &c);
    pd_task_init(&c.second, "second", chain_second, &c);
    pd_loop_defer(e->client, &c.first);
    assert_true(e->run(e, chain_done, &c));
    assert_int_equal(c.second_turn, c.first_turn[0]);
    assert_true(c.first_turn[1] > c.first_turn[0]);
}

void case_post_order(struct env *e)
{
    struct steps s = { .loop = e->client };

    pd_task_init(&s.a, "a", step_a, &s);
    pd_task_init(&s.b, "b", step_b, &s);
    pd_task_init(&s.c, "c", step_c, &s);
    assert_true(pd_loop_post(e->client, &s.b));
    assert_false(pd_loop_post(e->client, &s.b));
    assert_true(pd_loop_post(e->client, &s.a));
    assert_true(e->run(e, steps_done, &s));
    assert_string_equal(s.text, "bac");
}

/* ---- work */

struct job {
    struct pd_work w;
    uint64_t in, out;
    pd_status status;
    bool is_done;
};

static void job_run(struct pd_work *w, void *arg)
{
    struct job *j = arg;

    (void)w;
    j->out = j->in * j->in;
}

static void job_done(struct pd_work *w, pd_status st, void *arg)
{
    struct job *j = arg;

    (void)w;
    assert_false(j->is_done);
    j->status = st;
    j->is_done = true;
}

static bool jobs_done(void *arg)
{
    struct job *j = arg;

    for (int i = 0; i < 100; i++) {
        if (!j[i].is_done)
            return false;
    }
    return true;
}

static void queue_closed(void *arg)
{
    *(bool *)arg = true;
}

static void job_init(struct job *j, uint64_t in, pd_time cost)
{
    memset(j, 0, sizeof *j);
    j->in = in;
    j->w.run = job_run;
    j->w.done = job_done;
    j->w.arg = j;
    j->w.name = "job";
    j->w.sim_cost_ns = cost;
}

void case_work(struct env *e)
{
    struct job *jobs = calloc(100, sizeof *jobs);
    struct pd_workq_opts opts = { .size = sizeof opts, .name = "jobs", .threads = 3 };
    struct pd_workq *q;
    bool closed = false;

    assert_int_equal(pd_workq_create(e->client, &opts, &q), PD_OK);
    for (uint64_t i = 0; i < 100; i++) {
        job_init(&jobs[i], i, PD_MS);
        assert_int_equal(pd_work_submit(e->client, q, &jobs[i].w), PD_OK);
        assert_int_equal(pd_work_submit(e->client, q, &jobs[i].w), PD_EINVAL);
    }
    assert_true(e->run(e, jobs_done, jobs));
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(jobs[i].status, PD_OK);
        assert_int_equal(jobs[i].out, i * i);
    }
    pd_workq_close(e->client, q, queue_closed, &closed);
    assert_true(e->run(e, is_true, &closed));
    free(jobs);
}

void case_work_cancel(struct env *e)
{
    struct job j[3];
    struct pd_workq_opts opts = { .size = sizeof opts, .name = "jobs", .threads = 1, .limit = 2 };
    struct pd_workq *q;
    bool closed = false, early;
    int cancelled = 0;

    assert_int_equal(pd_workq_create(e->client, &opts, &q), PD_OK);
    for (uint64_t i = 0; i < 3; i++)
        job_init(&j[i], i, 5 * PD_MS);
    assert_int_equal(pd_work_submit(e->client, q, &j[0].w), PD_OK);
    assert_int_equal(pd_work_submit(e->client, q, &j[1].w), PD_OK);
    early = pd_work_cancel(e->client, &j[1].w);
    while (!j[0].is_done || !j[1].is_done)
        settle(e, PD_MS);
    assert_int_equal(j[1].status, early ? PD_ECANCELED : PD_OK);
    assert_false(pd_work_cancel(e->client, &j[1].w));
    for (uint64_t i = 0; i < 3; i++) {
        job_init(&j[i], i, 5 * PD_MS);
        if (pd_work_submit(e->client, q, &j[i].w) != PD_OK)
            j[i].is_done = true;
    }
    pd_workq_close(e->client, q, queue_closed, &closed);
    assert_true(e->run(e, is_true, &closed));
    for (int i = 0; i < 3; i++) {
        assert_true(j[i].is_done);
        cancelled += j[i].status == PD_ECANCELED;
    }
    assert_true(cancelled <= 2);
}

/* ---- names, addresses, chance, ends */

struct found {
    struct pd_resolve r;
    pd_status st;
    size_t n;
    struct pd_addr first;
    bool is_done;
};

static void on_found(struct pd_resolve *r, pd_status st, const struct pd_addr *addrs, size_t n,
                     void *arg)
{
    struct found *f = arg;

    (void)r;
    f->st = st;
    f->n = n;
    if (n > 0)
        f->first = addrs[0];
    f->is_done = true;
}

static void resolve(struct env *e, struct found *f, const char *host)
{
    memset(f, 0, sizeof *f);
    f->r.cb = on_found;
    f->r.arg = f;
    f->r.name = "lookup";
    assert_int_equal(pd_resolve_start(e->client, host, 80, &f->r), PD_OK);
    assert_false(f->is_done);
}

void case_resolve(struct env *e)
{
    struct found f;
    struct pd_addr want;

    assert_int_equal(pd_addr_parse(e->client, PD_STR("192.0.2.7:80"), &want), PD_OK);
    resolve(e, &f, "192.0.2.7");
    assert_true(e->run(e, is_true, &f.is_done));
    assert_int_equal(f.st, PD_OK);
    assert_int_equal(f.n, 1);
    assert_true(pd_addr_equal(&f.first, &want));
    resolve(e, &f, e->host);
    assert_true(e->run(e, is_true, &f.is_done));
    assert_int_equal(f.st, PD_OK);
    assert_true(f.n >= 1);
    assert_int_equal(f.first.port, 80);
    resolve(e, &f, e->host);
    pd_resolve_cancel(e->client, &f.r);
    pd_resolve_cancel(e->client, &f.r);
    settle(e, 20 * PD_MS);
    assert_false(f.is_done);
    resolve(e, &f, "192.0.2.7");
    pd_resolve_cancel(e->client, &f.r);
    settle(e, PD_MS);
    assert_false(f.is_done);
}

void case_addresses(struct env *e)
{
    static const char *good[] = {
        "127.0.0.1:80", "0.0.0.0:0", "[::1]:65535", "[2001:db8::1]:1", "[fe80::1%2]:8080",
        "unix:/run/x.sock",
    };
    static const char *bad[] = {
        "", ":", "80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:+1",
        "127.0.0.1:8 ", "::1:80", "[::1]", "[::1:80", "[127.0.0.1]:80", "host:80", "[]:1",
        "256.0.0.1:80", "unix:", "1.2.3.4:99999999999", "[::1%x]:80",
    };
    char text[PD_ADDR_TEXT], name[200];
    struct pd_addr a, b;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct pd_str s = { good[i], strlen(good[i]) };
        assert_int_equal(pd_addr_parse(e->client, s, &a), PD_OK);
        assert_int_equal(pd_addr_format(e->client, &a, text, sizeof text), s.n);
        assert_string_equal(text, good[i]);
        assert_int_equal(pd_addr_parse(e->client, s, &b), PD_OK);
        assert_true(pd_addr_equal(&a, &b));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pd_str s = { bad[i], strlen(bad[i]) };
        assert_int_equal(pd_addr_parse(e->client, s, &a), PD_EINVAL);
    }
    memset(name, 'x', sizeof name);
    memcpy(name, "unix:/", 6);
    assert_int_equal(pd_addr_parse(e->client, (struct pd_str){ name, sizeof name }, &a),
                     PD_EINVAL);
    assert_int_equal(pd_addr_format(e->client, &b, text, 4), 3);
}

void case_random(struct env *e)
{
    uint64_t ones = 0, below[10] = { 0 };
    uint8_t big[5000];

    for (int i = 0; i < 1000; i++) {
        ones += (uint64_t)__builtin_popcountll(pd_loop_random_u64(e->client));
        below[pd_loop_random_below(e->client, 10)]++;
    }
    assert_in_range(ones, 30000, 34000);
    for (int i = 0; i < 10; i++)
        assert_in_range(below[i], 40, 200);
    memset(big, 0, sizeof big);
    pd_loop_random(e->client, big, sizeof big);
    ones = 0;
    for (size_t i = 0; i < sizeof big; i++)
        ones += big[i] == 0;
    assert_in_range(ones, 1, 100);
}

void case_busy_destroy(struct env *e)
{
    struct peer *b = peer_new(e);
    struct pd_addr addr = e->addr;
    struct pd_timer t;
    char names[256];
    bool fired = false;

    serve(b, &addr);
    pd_timer_init(&t, e->server, "sleepy", set_true, &fired);
    pd_timer_start(&t, PD_SEC * 3600);
    assert_int_equal(pd_loop_destroy(e->server, names, sizeof names), PD_EBUSY);
    assert_non_null(strstr(names, "listener server"));
    assert_non_null(strstr(names, "timer sleepy"));
    assert_int_equal(pd_loop_destroy(e->server, NULL, 0), PD_EBUSY);
    pd_timer_stop(&t);
    pd_listener_close(e->server, b->l);
    free(b);
}

void case_stats(struct env *e)
{
    struct peer *a = peer_new(e), *b = peer_new(e);
    struct pd_loop_stats s;
    uint64_t sum = 0;

    a->to_send = 10;
    make_pair(e, a, b);
    do
        settle(e, PD_MS);
    while (b->received < 10);
    pd_loop_stats_get(e->server, &s);
    assert_true(s.accepts >= 1 && s.reads >= 1 && s.turns >= 1);
    assert_true(s.read_bytes >= 10);
    assert_true(s.streams >= 1);
    assert_int_equal(s.listeners, 0);
    for (int i = 0; i < PD_LOOP_LAG_BUCKETS; i++)
        sum += s.lag[i];
    assert_int_equal(sum, s.turns);
    pd_loop_stats_get(e->client, &s);
    assert_true(s.writes >= 1 && s.written_bytes >= 10 && s.timers_fired >= 1);
    end_pair(e, a, b);
    pd_loop_stats_get(e->server, &s);
    assert_int_equal(s.streams, 0);
}

/* ---- short of memory */

struct short_of {
    struct env *e;
    struct peer *a, *b;
    struct job job;
    struct found found;
    bool timed_out, has_job, has_lookup;
};

static bool short_done(void *arg)
{
    struct short_of *x = arg;
    bool ok = x->a->is_ended || x->a->error != PD_OK || x->a->is_closed;

    return x->timed_out ||
           (ok && (!x->has_job || x->job.is_done) && (!x->has_lookup || x->found.is_done));
}

static void use_all(struct short_of *x, struct pd_workq **q)
{
    struct pd_workq_opts opts = { .size = sizeof opts, .name = "jobs", .threads = 2 };
    struct pd_addr addr = x->e->addr;
    struct pd_timer t;

    x->found.r.cb = on_found;
    x->found.r.arg = &x->found;
    x->found.r.name = "lookup";
    x->has_lookup = pd_resolve_start(x->e->client, "192.0.2.7", 80, &x->found.r) == PD_OK;
    if (pd_workq_create(x->e->client, &opts, q) != PD_OK)
        *q = NULL;
    job_init(&x->job, 3, PD_MS);
    x->has_job = *q != NULL && pd_work_submit(x->e->client, *q, &x->job.w) == PD_OK;
    if (pd_listener_open(x->e->server, &addr, NULL, on_accept, x->b, &x->b->l) != PD_OK)
        return;
    assert_int_equal(pd_listener_addr(x->e->server, x->b->l, &addr), PD_OK);
    if (pd_stream_connect(x->e->client, &addr, &peer_events, x->a, &x->a->s) != PD_OK)
        return;
    pd_timer_init(&t, x->e->client, "limit", set_true, &x->timed_out);
    pd_timer_start(&t, PD_SEC);
    assert_true(x->e->run(x->e, short_done, x));
    pd_timer_stop(&t);
}

/* Whatever allocation fails, calls say so or connections end; nothing leaks and
 * nothing stays open. */
void case_no_memory(struct env *e)
{
    for (uint64_t n = 1; n <= 40; n++) {
        struct short_of x = { .e = e, .a = peer_new(e), .b = peer_new(e) };
        struct pd_workq *q = NULL;
        bool closed = false;

        x.b->echo = true;
        x.a->to_send = 3000;
        x.a->shutdown_when_sent = true;
        pd_mem_fault_set(n);
        use_all(&x, &q);
        pd_mem_fault_set(0);
        if (q != NULL) {
            pd_workq_close(e->client, q, queue_closed, &closed);
            assert_true(e->run(e, is_true, &closed));
        }
        pd_resolve_cancel(e->client, &x.found.r);
        if (x.b->l != NULL)
            pd_listener_close(e->server, x.b->l);
        if (x.a->s != NULL && !x.a->is_closed)
            pd_stream_close(x.a->s);
        if (x.b->s != NULL && !x.b->is_closed)
            pd_stream_close(x.b->s);
        settle(e, 20 * PD_MS);
        assert_true(x.a->s == NULL || x.a->is_closed);
        assert_true(x.b->s == NULL || x.b->is_closed);
        free(x.a);
        free(x.b);
    }
}
