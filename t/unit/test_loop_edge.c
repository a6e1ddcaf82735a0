/* SPDX-License-Identifier: Apache-2.0 */
/* What callers may not ask of a loop, owners who want to hear nothing, and streams
 * that are not open yet or not any more; on both loops. */
#include "net_world.h"

#include "base/mem.h"
#include "base/str.h"
#include "loop/addr.h"
#include "loop/hand.h"
#include "loop/service.h"
#include "loop/uv_impl.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static uint32_t count;          /* of whatever a test counts */

static bool is_counted(void *arg)
{
    return count >= *(uint32_t *)arg;
}

static void count_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    (void)arg;
    count++;
}


/* ---- listeners and connections ---------------------------------------------------- */

static const struct pd_stream_events deaf = { .name = "deaf" };
static const struct pd_stream_events last_words = { .name = "last words", .on_closed = count_closed };

static void take_deaf(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    (void)l;
    *(struct pd_stream **)arg = s;
    pd_stream_set_events(s, &deaf, NULL);
}

static bool has_stream(void *arg)
{
    return *(struct pd_stream **)arg != NULL;
}

static void refusals(bool is_sim)
{
    struct pd_listener_opts opts = { .size = sizeof opts, .backlog = UINT32_MAX };
    struct pd_stream *s = NULL, *other = NULL;
    struct pd_listener *l, *second;
    struct pd_addr addr, none = { 0 };
    struct world w;
    world_begin(&w, is_sim);
    addr = world_addr(&w);
    assert_int_equal(pd_listener_open(w.loop, &addr, NULL, NULL, NULL, &l), PD_EINVAL);
    assert_int_equal(pd_listener_open(w.loop, &none, NULL, take_deaf, &s, &l), PD_EINVAL);
    if (!is_sim)
        assert_int_equal(pd_listener_open(w.loop, &addr, &opts, take_deaf, &s, &l), PD_EINVAL);
    assert_int_equal(pd_stream_connect(w.loop, &none, &deaf, NULL, &s), PD_EINVAL);
    assert_int_equal(pd_stream_connect(w.loop, &addr, NULL, NULL, &s), PD_EINVAL);
    s = NULL;
    assert_int_equal(pd_listener_open(w.loop, &addr, NULL, take_deaf, &other, &l), PD_OK);
    assert_int_equal(pd_listener_addr(w.loop, l, &addr), PD_OK);
    assert_int_equal(pd_listener_open(w.loop, &addr, NULL, take_deaf, &other, &second), PD_EBUSY);
    pd_listener_pause(w.loop, l, true);
    pd_listener_pause(w.loop, l, true);
    assert_int_equal(pd_stream_connect(w.loop, &addr, &deaf, NULL, &s), PD_OK);
    (void)world_run(&w, NULL, NULL, 20 * PD_MS);
    assert_null(other);
    pd_listener_pause(w.loop, l, false);
    assert_true(world_run(&w, has_stream, &other, 5 * PD_SEC));
    /* Neither wants to hear a thing; what one sends waits, and the other's end too. */
    size_t n;
    assert_int_equal(pd_stream_write(s, "hello", 5, &n), PD_OK);
    pd_stream_pause_read(other);
    pd_stream_resume_read(other);
    pd_stream_resume_read(other);
    pd_stream_set_events(s, NULL, NULL);
    pd_stream_close(s);
    pd_stream_close(s);
    pd_stream_pause_read(other);
    (void)world_run(&w, NULL, NULL, 20 * PD_MS);
    count = 0;
    pd_stream_set_events(other, &last_words, NULL);
    char text[6] = "";
    assert_int_equal(pd_stream_read(other, text, sizeof text, &n), PD_OK);
    assert_string_equal(text, "hello");
    assert_int_equal(pd_stream_read(other, text, sizeof text, &n), PD_EEOF);
    assert_int_equal(pd_stream_read(other, text, sizeof text, &n), PD_EEOF);
    pd_stream_close(other);
    assert_true(world_run(&w, is_counted, &(uint32_t){ 1 }, 5 * PD_SEC));
    pd_listener_close(w.loop, l);
    pd_listener_close(w.loop, l);
    world_end(&w);
}

/* Before it is connected, while it is open, and when it is closed. */
static void states(bool is_sim)
{
    struct pd_stream *s = NULL, *other = NULL;
    struct pd_listener *l;
    struct pd_addr addr, got;
    struct world w;
    char buf[100];
    struct pd_iov none[2] = { { buf, 0 }, { buf, 0 } }, many[70];
    size_t n;
    pid_t pid;
    uid_t uid;
    gid_t gid;
    for (size_t i = 0; i < 70; i++)
        many[i] = (struct pd_iov){ buf, 1 };
    world_begin(&w, is_sim);
    addr = world_addr(&w);
    assert_int_equal(pd_listener_open(w.loop, &addr, NULL, take_deaf, &other, &l), PD_OK);
    assert_int_equal(pd_listener_addr(w.loop, l, &addr), PD_OK);
    count = 0;
    assert_int_equal(pd_stream_connect(w.loop, &addr, &last_words, NULL, &s), PD_OK);
    assert_int_equal(pd_stream_read(s, buf, 1, &n), PD_EAGAIN);
    assert_int_equal(pd_stream_write(s, buf, 1, &n), PD_EAGAIN);
    assert_int_equal(pd_stream_shutdown_write(s), PD_EPEER);
    pd_stream_pause_read(s);
    pd_stream_resume_read(s);
    assert_true(world_run(&w, has_stream, &other, 5 * PD_SEC));
    (void)world_run(&w, NULL, NULL, 5 * PD_MS);
    /* open */
    assert_int_equal(pd_stream_readv(s, none, 2, &n), PD_EINVAL);
    assert_int_equal(pd_stream_writev(s, none, 2, &n), PD_OK);
    memset(buf, 'x', sizeof buf);
    assert_int_equal(pd_stream_writev(s, many, 70, &n), PD_OK);
    assert_in_range(n, 1, 64);
    assert_int_equal(pd_stream_set_option(s, 99, 1), PD_EINVAL);
    assert_int_equal(pd_stream_set_option(s, PD_STREAM_KEEPALIVE, 0), PD_OK);
    assert_int_equal(pd_stream_set_option(s, PD_STREAM_KEEPALIVE, 2), PD_OK);
    assert_int_equal(pd_stream_set_option(s, PD_STREAM_LINGER_RESET, 0), PD_OK);
    if (!is_sim)
        assert_int_equal(pd_stream_set_option(s, PD_STREAM_SNDBUF, UINT64_C(1) << 40), PD_EINVAL);
    assert_int_equal(pd_stream_peer_cred(s, &pid, &uid, &gid), PD_ENOSYS);
    assert_int_equal(pd_stream_send_fds(s, many, 1, (int[]){ 0 }, 1, &n), PD_ENOSYS);
    size_t n_fds;
    assert_int_equal(pd_stream_recv_fds(s, many, 1, &n, (int[]){ 0 }, 1, &n_fds), PD_ENOSYS);
    assert_int_equal(pd_stream_shutdown_write(s), PD_OK);
    size_t got_n = 0;
    (void)world_run(&w, NULL, NULL, 5 * PD_MS);
    while (pd_stream_readv(other, many, 70, &n) == PD_OK)
        got_n += n;
    assert_in_range(got_n, 1, 70);
    /* closed, until its last callback */
    pd_stream_close(s);
    assert_int_equal(pd_stream_read(s, buf, 1, &n), PD_EPEER);
    assert_int_equal(pd_stream_write(s, buf, 1, &n), PD_EPEER);
    assert_int_equal(pd_stream_shutdown_write(s), PD_EPEER);
    assert_int_equal(pd_stream_set_option(s, PD_STREAM_NODELAY, 1), PD_EPEER);
    assert_int_equal(pd_stream_local_addr(s, &got), PD_EPEER);
    assert_int_equal(pd_stream_peer_addr(s, &got), PD_EPEER);
    pd_stream_pause_read(s);
    pd_stream_resume_read(s);
    assert_true(world_run(&w, is_counted, &(uint32_t){ 1 }, 5 * PD_SEC));
    pd_stream_close(other);
    pd_listener_close(w.loop, l);
    world_end(&w);
}

/* A listener that is closed, or paused, by what it accepts. */
static void close_it(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    count++;
    (void)s;
    pd_listener_close(arg, l);
}

static void pause_it(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    count++;
    pd_stream_close(s);
    pd_listener_pause(arg, l, true);
}

static void accepting(bool is_sim)
{
    for (int how = 0; how < 2; how++) {
        struct pd_stream *s[3];
        struct pd_listener *l;
        struct pd_addr addr;
        struct world w;
        world_begin(&w, is_sim);
        addr = world_addr(&w);
        count = 0;
        assert_int_equal(pd_listener_open(w.loop, &addr, NULL, how == 0 ? close_it : pause_it, w.loop, &l), PD_OK);
        assert_int_equal(pd_listener_addr(w.loop, l, &addr), PD_OK);
        for (int i = 0; i < 3; i++)
            assert_int_equal(pd_stream_connect(w.loop, &addr, &deaf, NULL, &s[i]), PD_OK);
        assert_true(world_run(&w, is_counted, &(uint32_t){ 1 }, 5 * PD_SEC));
        (void)world_run(&w, NULL, NULL, 20 * PD_MS);
        assert_int_equal(count, 1);
        for (int i = 0; i < 3; i++)
            pd_stream_close(s[i]);
        if (how == 1)
            pd_listener_close(w.loop, l);
        world_end(&w);
    }
}

/* ---- works and names --------------------------------------------------------------- */

static void work(struct pd_work *w, void *arg)
{
    (void)w;
    (void)arg;
}

static void on_works(void *arg)
{
    *(uint32_t *)arg = 1;
}

static bool is_set(void *arg)
{
    return *(uint32_t *)arg != 0;
}

static void works(bool is_sim)
{
    struct pd_workq_opts opts = { .size = sizeof opts, .threads = 1, .limit = 2 };
    struct pd_workq *q;
    struct pd_work idle = { 0 }, some[8];
    struct world w;
    uint32_t closed = 0, refused = 0;
    world_begin(&w, is_sim);
    assert_int_equal(pd_workq_create(w.loop, NULL, &q), PD_EINVAL);
    opts.threads = 0;
    assert_int_equal(pd_workq_create(w.loop, &opts, &q), PD_EINVAL);
    if (!is_sim) {
        opts.threads = 100000;
        assert_int_equal(pd_workq_create(w.loop, &opts, &q), PD_EINVAL);
    }
    opts.threads = 1;
    assert_int_equal(pd_workq_create(w.loop, &opts, &q), PD_OK);
    assert_false(pd_work_cancel(w.loop, &idle));
    assert_int_equal(pd_work_submit(w.loop, q, &idle), PD_EINVAL);
    memset(some, 0, sizeof some);
    for (int i = 0; i < 8; i++) {
        some[i].run = work;
        some[i].sim_cost_ns = 10 * PD_MS;
        pd_status st = pd_work_submit(w.loop, q, &some[i]);
        assert_true(st == PD_OK || st == PD_ELIMIT);
        refused += st == PD_ELIMIT;
    }
    if (is_sim) {
        assert_true(refused > 0);
        assert_int_equal(pd_work_submit(w.loop, q, &some[0]), PD_EINVAL);
    }
    (void)pd_work_cancel(w.loop, &some[1]);
    pd_workq_close(w.loop, q, on_works, &closed);
    memset(&idle, 0, sizeof idle);
    idle.run = work;
    assert_int_equal(pd_work_submit(w.loop, q, &idle), PD_ESTALE);
    pd_workq_close(w.loop, q, NULL, NULL);
    assert_true(world_run(&w, is_set, &closed, 5 * PD_SEC));
    /* One that nobody waits for. */
    assert_int_equal(pd_workq_create(w.loop, &opts, &q), PD_OK);
    pd_workq_close(w.loop, q, NULL, NULL);
    world_end(&w);
}

static void on_name(struct pd_resolve *r, pd_status status, const struct pd_addr *addrs, size_t n, void *arg)
{
    (void)r;
    (void)addrs;
    (void)arg;
    assert_int_equal(status, PD_OK);
    assert_true(n > 0);
    count++;
}

static void names(bool is_sim)
{
    static struct pd_resolve many[300];
    struct pd_resolve r = { .name = "one" };
    struct world w;
    char text[300];
    uint32_t asked = 0;
    world_begin(&w, is_sim);
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_int_equal(pd_resolve_start(w.loop, "127.0.0.1", 1, &r), PD_EINVAL);
    r.cb = on_name;
    assert_int_equal(pd_resolve_start(w.loop, "", 1, &r), PD_EINVAL);
    assert_int_equal(pd_resolve_start(w.loop, text, 1, &r), PD_EINVAL);
    pd_resolve_cancel(w.loop, &r);
    count = 0;
    assert_int_equal(pd_resolve_start(w.loop, "127.0.0.1", 1, &r), PD_OK);
    assert_int_equal(pd_resolve_start(w.loop, "127.0.0.1", 1, &r), PD_EINVAL);
    pd_resolve_cancel(w.loop, &r);
    memset(many, 0, sizeof many);
    for (size_t i = 0; i < 300; i++) {
        many[i].cb = on_name;
        pd_status st = pd_resolve_start(w.loop, "127.0.0.1", 1, &many[i]);
        assert_true(st == PD_OK || (st == PD_ELIMIT && i >= 256));
        asked += st == PD_OK;
    }
    assert_true(asked < 300);
    assert_true(world_run(&w, is_counted, &asked, 5 * PD_SEC));
    assert_int_equal(count, asked);
    world_end(&w);
}

#define BOTH(name)                                                                                 \
    static void name##_uv(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        name(false);                                                                               \
    }                                                                                              \
    static void name##_sim(void **state)                                                           \
    {                                                                                              \
        (void)state;                                                                               \
        name(true);                                                                                \
    }
BOTH(refusals)
BOTH(states)
BOTH(accepting)
BOTH(works)
BOTH(names)

/* ---- only the real loop -------------------------------------------------------------- */

static void test_adopt(void **state)
{
    struct pd_stream *s;
    struct world w;
    int p[2];
    (void)state;
    world_begin(&w, false);
    assert_int_equal(pipe(p), 0);
    assert_int_equal(pd_stream_adopt(w.loop, p[0], &deaf, NULL, &s), PD_EINVAL);
    assert_int_equal(pd_stream_adopt(w.loop, p[1], NULL, NULL, &s), PD_EINVAL);
    assert_int_equal(pd_stream_adopt(w.loop, socket(AF_INET, SOCK_DGRAM, 0), &deaf, NULL, &s), PD_EINVAL);
    int tcp = socket(AF_INET, SOCK_STREAM, 0), six = socket(AF_INET6, SOCK_STREAM, 0);
    assert_int_equal(pd_stream_adopt(w.loop, tcp, &deaf, NULL, &s), PD_OK);
    pd_stream_close(s);
    if (six >= 0) {
        assert_int_equal(pd_stream_adopt(w.loop, six, &deaf, NULL, &s), PD_OK);
        pd_stream_close(s);
    }
    world_end(&w);
}

static void test_unix_options(void **state)
{
    struct pd_stream *a, *b;
    struct pd_iov iov = { (char[]){ "x" }, 1 }, empty = { NULL, 0 };
    struct world w;
    int pair[2], fd;
    size_t n, n_fds;
    pid_t pid;
    uid_t uid;
    gid_t gid;
    (void)state;
    world_begin(&w, false);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(pd_stream_adopt(w.loop, pair[0], &deaf, NULL, &a), PD_OK);
    assert_int_equal(pd_stream_adopt(w.loop, pair[1], &deaf, NULL, &b), PD_OK);
    for (uint32_t opt = PD_STREAM_NODELAY; opt <= PD_STREAM_LINGER_RESET; opt++)
        assert_int_equal(pd_stream_set_option(a, opt, 65536), PD_OK);
    int fds[20] = { 0 };
    assert_int_equal(pd_stream_send_fds(a, &iov, 1, fds, 0, &n), PD_EINVAL);
    assert_int_equal(pd_stream_send_fds(a, &iov, 1, fds, 20, &n), PD_EINVAL);
    assert_int_equal(pd_stream_send_fds(a, &iov, 0, fds, 1, &n), PD_EINVAL);
    assert_int_equal(pd_stream_send_fds(a, &iov, 65, fds, 1, &n), PD_EINVAL);
    assert_int_equal(pd_stream_send_fds(a, &empty, 1, fds, 1, &n), PD_EINVAL);
    assert_int_equal(pd_stream_recv_fds(a, &iov, 0, &n, &fd, 1, &n_fds), PD_EINVAL);
    assert_int_equal(pd_stream_recv_fds(a, &iov, 65, &n, &fd, 1, &n_fds), PD_EINVAL);
    assert_int_equal(pd_stream_recv_fds(a, &empty, 1, &n, &fd, 1, &n_fds), PD_EINVAL);
    /* Bytes without a descriptor, then the end. */
    assert_int_equal(pd_stream_recv_fds(a, &iov, 1, &n, &fd, 1, &n_fds), PD_EAGAIN);
    assert_int_equal(pd_stream_write(b, "y", 1, &n), PD_OK);
    assert_int_equal(pd_stream_recv_fds(a, &iov, 1, &n, &fd, 1, &n_fds), PD_OK);
    assert_true(n == 1 && n_fds == 0);
    pd_stream_close(b);
    assert_int_equal(pd_stream_recv_fds(a, &iov, 1, &n, &fd, 1, &n_fds), PD_EEOF);
    assert_int_equal(pd_stream_recv_fds(a, &iov, 1, &n, &fd, 1, &n_fds), PD_EEOF);
    pd_stream_close(a);
    assert_int_equal(pd_stream_send_fds(a, &iov, 1, fds, 1, &n), PD_EPEER);
    assert_int_equal(pd_stream_recv_fds(a, &iov, 1, &n, &fd, 1, &n_fds), PD_EPEER);
    assert_int_equal(pd_stream_peer_cred(a, &pid, &uid, &gid), PD_EPEER);
    world_end(&w);
}

static void on_connected(struct pd_stream *s, pd_status status, void *arg)
{
    (void)s;
    *(pd_status *)arg = status;
    count++;
}

/* Connections go out from the addresses that were given; one that is none of this
 * machine's is told at once. */
static void test_sources(void **state)
{
    static const struct pd_stream_events events = { .name = "from", .on_connected = on_connected };
    struct pd_addr from = { .family = PD_AF_IPV4, .ip = { 127, 0, 0, 2 } }, addr, got;
    struct pd_loop_uv_opts opts = { .sources = &from, .n_sources = 1 };
    struct pd_stream *s, *other = NULL;
    struct pd_listener *l;
    struct world w = { 0 };
    pd_status status = PD_EIO;
    (void)state;
    assert_int_equal(pd_loop_uv_create(&opts, &w.loop), PD_OK);
    addr = world_addr(&w);
    assert_int_equal(pd_listener_open(w.loop, &addr, NULL, take_deaf, &other, &l), PD_OK);
    assert_int_equal(pd_listener_addr(w.loop, l, &addr), PD_OK);
    count = 0;
    assert_int_equal(pd_stream_connect(w.loop, &addr, &events, &status, &s), PD_OK);
    assert_true(world_run(&w, has_stream, &other, 5 * PD_SEC));
    assert_true(world_run(&w, is_counted, &(uint32_t){ 1 }, 5 * PD_SEC));
    assert_int_equal(status, PD_OK);
    assert_int_equal(pd_stream_peer_addr(other, &got), PD_OK);
    assert_int_equal(got.ip[3], 2);
    pd_stream_close(s);
    pd_stream_close(other);
    memcpy(from.ip, (uint8_t[]){ 192, 0, 2, 1 }, 4);
    assert_int_not_equal(pd_stream_connect(w.loop, &addr, &events, &status, &s), PD_OK);
    /* Who stops accepting leaves the next ones to others. */
    memcpy(from.ip, (uint8_t[]){ 127, 0, 0, 3 }, 4);
    pd_loop_uv_stop_accepting(w.loop);
    other = NULL;
    assert_int_equal(pd_stream_connect(w.loop, &addr, &events, &status, &s), PD_OK);
    (void)world_run(&w, NULL, NULL, 50 * PD_MS);
    assert_null(other);
    pd_stream_close(s);
    pd_listener_close(w.loop, l);
    world_end(&w);
}

static void on_watch(struct pd_watch *w, uint32_t events, void *arg)
{
    (void)w;
    *(uint32_t *)arg |= events;
}

static void test_watches(void **state)
{
    struct pd_watch *watch;
    struct world w;
    uint32_t seen = 0;
    int p[2];
    (void)state;
    world_begin(&w, false);
    assert_int_equal(pipe(p), 0);
    assert_int_equal(pd_watch_open(w.loop, p[1], PD_WATCH_WRITE, "w", NULL, NULL, &watch), PD_EINVAL);
    assert_int_equal(pd_watch_open(w.loop, -1, PD_WATCH_WRITE, "w", on_watch, &seen, &watch), PD_EINVAL);
    assert_int_equal(pd_watch_open(w.loop, p[1], PD_WATCH_WRITE, "w", on_watch, &seen, &watch), PD_OK);
    assert_true(world_run(&w, is_set, &seen, 5 * PD_SEC));
    assert_int_equal(seen, PD_WATCH_WRITE);
    assert_int_equal(pd_watch_set(w.loop, watch, PD_WATCH_WRITE), PD_OK);
    assert_int_equal(pd_watch_set(w.loop, watch, PD_WATCH_READ | PD_WATCH_WRITE), PD_OK);
    /* Nobody reads any more: an error, which is told whatever is watched. */
    seen = 0;
    close(p[0]);
    assert_true(world_run(&w, is_set, &seen, 5 * PD_SEC));
    pd_watch_close(w.loop, watch);
    close(p[1]);
    world_end(&w);
}

static void tick(struct pd_timer *t, void *arg)
{
    (void)t;
    (void)arg;
    count++;
}

static void test_time_zero(void **state)
{
    struct pd_timer t;
    struct world w;
    (void)state;
    world_begin(&w, false);
    count = 0;
    pd_timer_init(&t, w.loop, "zero", tick, NULL);
    pd_timer_start_at(&t, 0);
    assert_true(world_run(&w, is_counted, &(uint32_t){ 1 }, 5 * PD_SEC));
    (void)pd_loop_uv_turn(w.loop, 0);
    pd_timer_start_at(&t, PD_TIME_NEVER);
    assert_int_equal(pd_loop_destroy(w.loop, NULL, 0), PD_EBUSY);
    char names[8];
    assert_int_equal(pd_loop_destroy(w.loop, names, sizeof names), PD_EBUSY);
    assert_int_equal(strlen(names), sizeof names - 1);
    assert_memory_equal(names, "timer z", 7);
    pd_timer_stop(&t);
    world_end(&w);
}

/* ---- addresses, texts to a child, the service manager -------------------------------- */

static void test_addresses(void **state)
{
    static const char *const bad[] = { "unix:", "[::1", "[]:1", "[127.0.0.1]:1", ":80", "::1:80", "a:", "1.2.3.4:70000",
                                       "1.2.3.4:99999999999", "1.2.3.4:8x", "[fe80::1%x]:1", "" };
    struct pd_addr a, b;
    struct sockaddr_storage ss;
    char text[PD_ADDR_TEXT], name[300];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(pd_loop_addr_parse(pd_str_from(bad[i]), &a), PD_EINVAL);
    assert_int_equal(pd_loop_addr_parse((struct pd_str){ "unix:a\0b", 8 }, &a), PD_EINVAL);
    assert_int_equal(pd_loop_addr_parse((struct pd_str){ "a\0b:8", 5 }, &a), PD_EINVAL);
    memset(name, 'a', sizeof name);
    memcpy(name, "unix:", 5);
    assert_int_equal(pd_loop_addr_parse((struct pd_str){ name, sizeof name }, &a), PD_EINVAL);
    memcpy(name, "aaaaa", 5);
    memcpy(name + 98, ":1", 3);
    assert_int_equal(pd_loop_addr_parse((struct pd_str){ name, 100 }, &a), PD_EINVAL);
    assert_int_equal(pd_loop_addr_parse((struct pd_str){ name + 28, 72 }, &a), PD_EINVAL);
    assert_int_equal(pd_loop_addr_parse_ip(name, 1, &a), PD_EINVAL);
    assert_int_equal(pd_loop_addr_parse_ip("fe80::1%7", 9, &a), PD_OK);
    assert_int_equal(pd_loop_addr_format(&a, text, sizeof text), strlen("[fe80::1%7]:9"));
    assert_string_equal(text, "[fe80::1%7]:9");
    assert_int_equal(pd_loop_addr_format(&a, text, 0), 0);
    assert_int_equal(pd_loop_addr_format(&a, text, 3), 2);
    assert_int_equal(pd_loop_addr_from_system((struct sockaddr *)&ss, pd_loop_addr_to_system(&a, &ss), &b), PD_OK);
    assert_true(pd_addr_equal(&a, &b));
    /* Nothing at all, families that nobody knows, and addresses cut short. */
    memset(&a, 0, sizeof a);
    assert_int_equal(pd_loop_addr_format(&a, text, sizeof text), 1);
    assert_int_equal(pd_loop_addr_to_system(&a, &ss), 0);
    a.family = PD_AF_UNIX;
    assert_int_equal(pd_loop_addr_to_system(&a, &ss), 0);
    memset(a.path, 'p', sizeof a.path);
    assert_int_equal(pd_loop_addr_to_system(&a, &ss), 0);
    memset(&ss, 0, sizeof ss);
    static const int families[] = { AF_INET, AF_INET6, AF_PACKET };
    for (size_t i = 0; i < 3; i++) {
        ss.ss_family = (sa_family_t)families[i];
        assert_int_equal(pd_loop_addr_from_system((struct sockaddr *)&ss, 3, &b), PD_EINVAL);
    }
    assert_int_equal(pd_loop_addr_from_system((struct sockaddr *)&ss, 1, &b), PD_EINVAL);
    ss.ss_family = AF_UNIX;
    memset((char *)&ss + offsetof(struct sockaddr_un, sun_path), 'q', 120);
    assert_int_equal(pd_loop_addr_from_system((struct sockaddr *)&ss, offsetof(struct sockaddr_un, sun_path) + 120, &b), PD_OK);
    assert_int_equal(strnlen(b.path, sizeof b.path), sizeof b.path - 1);
    assert_int_equal(pd_loop_addr_from_system((struct sockaddr *)&ss, offsetof(struct sockaddr_un, sun_path), &b), PD_OK);
    assert_int_equal(b.path[0], '\0');
}

static void test_hand(void **state)
{
    char text[PD_HAND_MAX + 1], large[PD_HAND_MAX + 2];
    int ends[2], fd;
    (void)state;
    assert_int_equal(pd_hand_pair(ends), PD_OK);
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = '\0';
    assert_int_equal(pd_hand_send(ends[1], "", -1), PD_ELIMIT);
    assert_int_equal(pd_hand_send(ends[1], large, -1), PD_ELIMIT);
    assert_int_equal(pd_hand_send(ends[1], large + 1, -1), PD_OK);
    assert_int_equal(pd_hand_receive(ends[0], text, &fd), PD_OK);
    assert_string_equal(text, large + 1);
    assert_int_equal(fd, -1);
    assert_int_equal(pd_hand_receive(ends[0], text, &fd), PD_EAGAIN);
    close(ends[1]);
    assert_int_equal(pd_hand_receive(ends[0], text, &fd), PD_EEOF);
    assert_int_equal(pd_hand_send(ends[0], "x", -1), PD_EPEER);
    close(ends[0]);
}

static void test_notify(void **state)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    char name[300], got[64];
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0), n;
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(pd_service_notify("READY=1"), PD_OK);
    memset(name, 'n', sizeof name);
    name[0] = '/';
    name[sizeof name - 1] = '\0';
    static const char *const bad[] = { "", "/", "relative" };
    for (size_t i = 0; i < 4; i++) {
        setenv("NOTIFY_SOCKET", i < 3 ? bad[i] : name, 1);
        assert_int_equal(pd_service_notify("READY=1"), PD_EINVAL);
    }
    setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
    assert_int_equal(pd_service_notify("READY=1"), PD_ENOENT);
    /* An abstract name. */
    n = snprintf(un.sun_path + 1, sizeof un.sun_path - 1, "pd-test-%d", (int)getpid());
    assert_int_equal(bind(fd, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)), 0);
    snprintf(name, sizeof name, "@%s", un.sun_path + 1);
    setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(pd_service_notify("READY=1"), PD_OK);
    assert_int_equal(recv(fd, got, sizeof got, 0), 7);
    assert_memory_equal(got, "READY=1", 7);
    unsetenv("NOTIFY_SOCKET");
    close(fd);
}

static void set_listen(const char *pid, const char *fds)
{
    if (pid != NULL)
        setenv("LISTEN_PID", pid, 1);
    else
        unsetenv("LISTEN_PID");
    if (fds != NULL)
        setenv("LISTEN_FDS", fds, 1);
    else
        unsetenv("LISTEN_FDS");
}

static void test_activation(void **state)
{
    struct pd_loop_uv_socket s[2];
    char me[32];
    size_t n;
    (void)state;
    snprintf(me, sizeof me, "%d", (int)getpid());
    const struct {
        const char *pid, *fds;
        pd_status status;
    } rows[] = { { NULL, NULL, PD_OK }, { me, NULL, PD_OK }, { NULL, "1", PD_OK }, { "x", "1", PD_EINVAL },
                 { me, "x", PD_EINVAL }, { me, "1025", PD_EINVAL }, { "1", "1", PD_OK } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set_listen(rows[i].pid, rows[i].fds);
        assert_int_equal(pd_service_sockets(s, 2, &n), rows[i].status);
        assert_int_equal(n, 0);
    }
    /* Descriptor 3 listens, 4 is a socket that does not, and 5 is none. */
    int keep[3];
    for (int fd = 3; fd < 6; fd++)
        keep[fd - 3] = fcntl(fd, F_DUPFD_CLOEXEC, 60);
    int fd = socket(AF_INET, SOCK_STREAM, 0), idle = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(listen(fd, 1), 0);
    int high = fcntl(fd, F_DUPFD, 50), high_idle = fcntl(idle, F_DUPFD, 50);
    close(fd);
    close(idle);
    assert_int_equal(dup2(high, 3), 3);
    assert_int_equal(dup2(high_idle, 4), 4);
    close(5);
    set_listen(me, "3");
    assert_int_equal(pd_service_sockets(s, 2, &n), PD_OK);
    assert_int_equal(n, 1);
    assert_int_equal(s[0].fd, 3);
    assert_true(s[0].addr.family == PD_AF_IPV4 && s[0].addr.port != 0);
    assert_null(getenv("LISTEN_FDS"));
    set_listen(me, "3");
    assert_int_equal(pd_service_sockets(s, 0, &n), PD_OK);
    assert_int_equal(n, 0);
    close(high);
    close(high_idle);
    for (fd = 3; fd < 6; fd++) {
        close(fd);
        if (keep[fd - 3] >= 0) {
            assert_int_equal(dup2(keep[fd - 3], fd), fd);
            close(keep[fd - 3]);
        }
    }
}

/* ---- numbers of turns ------------------------------------------------------------- */

static void count_task(struct pd_task *task, void *arg)
{
    (void)task;
    (void)arg;
    count++;
}

/* Numbers begin anew after some hours of a busy loop.  A task that has never run is
 * deferred in a turn of any number, and nothing else wakes the loop. */
static void test_numbers_end(void **state)
{
    struct pd_task other, fresh;
    struct pd_loop *loop;
    (void)state;
    assert_int_equal(pd_loop_uv_create(NULL, &loop), PD_OK);
    uvl_of(loop)->turn_number = UINT32_MAX - 2;
    pd_task_init(&other, "other", count_task, NULL);
    pd_loop_post(loop, &other);
    pd_loop_uv_turn(loop, 0);
    for (uint32_t i = 0; i < 6; i++) {
        count = 0;
        pd_task_init(&fresh, "fresh", count_task, NULL);
        pd_loop_defer(loop, &fresh);
        pd_loop_uv_turn(loop, 0);
        assert_int_equal(count, 1);
        pd_loop_post(loop, &other);
        pd_loop_uv_turn(loop, 0);
        assert_int_equal(count, 2);
    }
    assert_int_equal(pd_loop_destroy(loop, NULL, 0), PD_OK);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(refusals_uv), cmocka_unit_test(refusals_sim), cmocka_unit_test(states_uv),
    cmocka_unit_test(states_sim), cmocka_unit_test(accepting_uv), cmocka_unit_test(accepting_sim),
    cmocka_unit_test(works_uv), cmocka_unit_test(works_sim), cmocka_unit_test(names_uv), cmocka_unit_test(names_sim),
    cmocka_unit_test(test_adopt), cmocka_unit_test(test_unix_options), cmocka_unit_test(test_sources),
    cmocka_unit_test(test_watches), cmocka_unit_test(test_time_zero), cmocka_unit_test(test_addresses),
    cmocka_unit_test(test_numbers_end),
    cmocka_unit_test(test_hand), cmocka_unit_test(test_notify), cmocka_unit_test(test_activation),
};
PD_UNIT_MAIN(tests)
