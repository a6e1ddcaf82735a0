/* SPDX-License-Identifier: Apache-2.0 */
/* The uv backend: all common cases, and what only the real loop has. */
#include "loop_cases.h"

#include "loop/uv.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static pd_time started;

static bool run(struct env *e, bool (*cond)(void *arg), void *arg)
{
    started = pd_loop_clock(e->client);
    while (!cond(arg)) {
        if (pd_loop_clock(e->client) - started > 30 * PD_SEC)
            return false;
        pd_loop_uv_turn(e->client, 50 * PD_MS);
    }
    return true;
}

/* A port of this machine that refuses: one that was free a moment ago. */
static uint16_t free_port(void)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    close(fd);
    return ntohs(in.sin_port);
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&in6, sizeof in6) == 0;

    if (fd >= 0)
        close(fd);
    return ok;
}

static void env_open(struct env *e)
{
    memset(e, 0, sizeof *e);
    assert_int_equal(pd_loop_uv_create(NULL, &e->client), PD_OK);
    e->server = e->client;
    e->run = run;
    e->host = "localhost";
    assert_int_equal(pd_addr_parse(e->client, PD_STR("127.0.0.1:0"), &e->addr), PD_OK);
    e->nobody = e->addr;
    e->nobody.port = free_port();
    if (has_ipv6())
        assert_int_equal(pd_addr_parse(e->client, PD_STR("[::1]:0"), &e->other_family), PD_OK);
}

static void env_close(struct env *e)
{
    char names[512];

    if (pd_loop_destroy(e->client, names, sizeof names) != PD_OK)
        fail_msg("left open: %s", names);
}

#define X(name)                                                                \
    static void test_##name(void **state)                                      \
    {                                                                          \
        struct env e;                                                          \
        (void)state;                                                           \
        env_open(&e);                                                          \
        case_##name(&e);                                                       \
        env_close(&e);                                                         \
    }
LOOP_CASES(X)
#undef X

/* ---- unix streams */

static const char *unix_path(void)
{
    static char path[64];

    snprintf(path, sizeof path, "/tmp/pd-test-loop-%d.sock", (int)getpid());
    return path;
}

static void unix_addr(struct env *e)
{
    char text[100];
    int n = snprintf(text, sizeof text, "unix:%s", unix_path());

    assert_int_equal(pd_addr_parse(e->client, (struct pd_str){ text, (size_t)n }, &e->addr),
                     PD_OK);
}

static void test_unix(void **state)
{
    struct env e;
    struct stat st;

    (void)state;
    env_open(&e);
    unix_addr(&e);
    case_echo(&e);
    case_half_close(&e);
    case_hangup(&e);
    case_listener_pause(&e);
    assert_int_not_equal(stat(unix_path(), &st), 0);
    env_close(&e);
}

static void take_none(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    (void)l;
    (void)s;
    (void)arg;
}

static void test_unix_stale_path(void **state)
{
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "u", .unix_mode = 0600 };
    struct pd_listener *l, *l2;
    struct stat st;
    struct env e;
    struct pd_addr missing;
    int fd;

    (void)state;
    env_open(&e);
    unix_addr(&e);
    /* A dead socket file in the way. */
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    {
        struct { sa_family_t family; char path[108]; } un = { .family = AF_UNIX };
        strcpy(un.path, unix_path());
        assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    }
    /* Not dead as long as a process has it, even when that does not listen yet. */
    assert_int_equal(pd_listener_open(e.client, &e.addr, &opts, take_none, NULL, &l), PD_EBUSY);
    assert_int_equal(stat(unix_path(), &st), 0);
    close(fd);
    assert_int_equal(pd_listener_open(e.client, &e.addr, &opts, take_none, NULL, &l), PD_OK);
    assert_int_equal(stat(unix_path(), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    /* A live one stays. */
    assert_int_equal(pd_listener_open(e.client, &e.addr, &opts, take_none, NULL, &l2), PD_EBUSY);
    pd_listener_close(e.client, l);
    assert_int_not_equal(stat(unix_path(), &st), 0);
    /* A file that is no socket is not touched. */
    fd = open(unix_path(), O_CREAT | O_WRONLY, 0600);
    close(fd);
    assert_int_equal(pd_listener_open(e.client, &e.addr, &opts, take_none, NULL, &l), PD_EBUSY);
    unlink(unix_path());
    assert_int_equal(pd_addr_parse(e.client, PD_STR("unix:/nonexistent/x"), &missing), PD_OK);
    assert_int_equal(pd_listener_open(e.client, &missing, &opts, take_none, NULL, &l), PD_ENOENT);
    env_close(&e);
}

struct fd_peer {
    struct pd_stream *s;
    int fds[4];
    size_t nfds;
    pd_status st;
    bool got, closed;
};

static void fd_readable(struct pd_stream *s, void *arg)
{
    struct fd_peer *p = arg;
    char buf[16];
    struct pd_iov iov = { buf, sizeof buf };
    size_t got;

    p->st = pd_stream_recv_fds(s, &iov, 1, &got, p->fds, 2, &p->nfds);
    p->got = p->st != PD_EAGAIN;
}

static void fd_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct fd_peer *)arg)->closed = true;
}

static const struct pd_stream_events fd_events = {
    .name = "fds", .on_readable = fd_readable, .on_closed = fd_closed,
};

static bool fd_got(void *arg) { return ((struct fd_peer *)arg)->got; }
static bool fd_is_closed(void *arg) { return ((struct fd_peer *)arg)->closed; }

static void test_fds(void **state)
{
    struct fd_peer a = { 0 }, b = { 0 };
    struct pd_iov iov = { (char[]){ "x" }, 1 };
    int pair[2], send[3];
    struct env e;
    size_t n;
    pid_t pid;
    uid_t uid;
    gid_t gid;

    (void)state;
    env_open(&e);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(pd_stream_adopt(e.client, pair[0], &fd_events, &a, &a.s), PD_OK);
    assert_int_equal(pd_stream_adopt(e.client, pair[1], &fd_events, &b, &b.s), PD_OK);
    assert_int_equal(pipe(send), 0);
    assert_int_equal(pd_stream_send_fds(a.s, &iov, 1, send, 2, &n), PD_OK);
    assert_true(run(&e, fd_got, &b));
    assert_int_equal(b.st, PD_OK);
    assert_int_equal(b.nfds, 2);
    assert_int_equal(write(b.fds[1], "hi", 2), 2);
    assert_int_equal(fcntl(b.fds[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close(b.fds[0]);
    close(b.fds[1]);
    /* More than the receiver has room for. */
    send[2] = send[0];
    b.got = false;
    assert_int_equal(pd_stream_send_fds(a.s, &iov, 1, send, 3, &n), PD_OK);
    assert_true(run(&e, fd_got, &b));
    assert_int_equal(b.st, PD_ELIMIT);
    assert_int_equal(b.nfds, 2);
    close(b.fds[0]);
    close(b.fds[1]);
    close(send[0]);
    close(send[1]);
    assert_int_equal(pd_stream_peer_cred(a.s, &pid, &uid, &gid), PD_OK);
    assert_int_equal(pid, getpid());
    assert_int_equal(uid, getuid());
    pd_stream_close(a.s);
    pd_stream_close(b.s);
    assert_true(run(&e, fd_is_closed, &a));
    assert_true(run(&e, fd_is_closed, &b));
    env_close(&e);
}

/* ---- threads */

enum { POSTERS = 4, POSTS = 2000 };

struct poster {
    struct pd_loop *loop;
    struct pd_task task;
    uint64_t value;             /* atomic; the callback must see the last one */
    uint64_t seen, runs;
    pthread_t thread;
};

static void *post_much(void *arg)
{
    struct poster *p = arg;

    for (int i = 0; i < POSTS; i++) {
        __atomic_fetch_add(&p->value, 1, __ATOMIC_RELAXED);
        pd_loop_post(p->loop, &p->task);
    }
    return NULL;
}

static void on_post(struct pd_task *t, void *arg)
{
    struct poster *p = arg;

    (void)t;
    p->seen = __atomic_load_n(&p->value, __ATOMIC_RELAXED);
    p->runs++;
}

static bool posts_seen(void *arg)
{
    struct poster *p = arg;

    for (int i = 0; i < POSTERS; i++) {
        if (p[i].seen != POSTS)
            return false;
    }
    return true;
}

static void test_post_threads(void **state)
{
    struct poster p[POSTERS];
    struct env e;

    (void)state;
    env_open(&e);
    memset(p, 0, sizeof p);
    for (int i = 0; i < POSTERS; i++) {
        p[i].loop = e.client;
        pd_task_init(&p[i].task, "post", on_post, &p[i]);
        assert_int_equal(pthread_create(&p[i].thread, NULL, post_much, &p[i]), 0);
    }
    assert_true(run(&e, posts_seen, p));
    for (int i = 0; i < POSTERS; i++)
        pthread_join(p[i].thread, NULL);
    env_close(&e);
}

static void *stop_later(void *arg)
{
    usleep(20000);
    pd_loop_stop(arg);
    return NULL;
}

static void test_run_stop(void **state)
{
    struct env e;
    pthread_t t;

    (void)state;
    env_open(&e);
    assert_int_equal(pthread_create(&t, NULL, stop_later, e.client), 0);
    assert_int_equal(pd_loop_run(e.client), PD_OK);
    pthread_join(t, NULL);
    env_close(&e);
}

/* ---- the watchdog, timers' grain, limits */

struct slow {
    pd_time handler_ns;         /* of "sleeper" */
    uint64_t count;
};

static void on_slow(void *arg, const char *handler, pd_time handler_ns, pd_time turn_ns)
{
    struct slow *s = arg;

    assert_true(turn_ns >= handler_ns);
    s->count++;
    if (strcmp(handler, "sleeper") == 0)
        s->handler_ns = handler_ns;
}

static void sleep_long(struct pd_timer *t, void *arg)
{
    (void)t;
    usleep(30000);
    *(bool *)arg = true;
}

static bool flag(void *arg) { return *(bool *)arg; }

static void test_watchdog(void **state)
{
    struct slow slow = { 0 };
    struct pd_loop_uv_opts opts = { .name = "dog", .slow_ns = 20 * PD_MS, .on_slow = on_slow,
                                    .arg = &slow };
    struct pd_loop_stats st;
    struct pd_timer t;
    struct env e = { .run = run };
    bool done = false;

    (void)state;
    assert_int_equal(pd_loop_uv_create(&opts, &e.client), PD_OK);
    pd_timer_init(&t, e.client, "sleeper", sleep_long, &done);
    pd_timer_start(&t, 0);
    assert_true(run(&e, flag, &done));
    assert_true(slow.handler_ns >= 30 * PD_MS);
    pd_loop_stats_get(e.client, &st);
    assert_int_equal(st.slow_turns, slow.count);
    assert_non_null(st.slow_name);
    assert_true(st.slow_max_ns >= 30 * PD_MS);
    env_close(&e);
}

struct stamp {
    pd_time due, fired;
    bool done;
};

static void take_stamp(struct pd_timer *t, void *arg)
{
    struct stamp *s = arg;

    s->fired = pd_loop_clock(t->loop);
    s->done = true;
}

static void test_timer_grain(void **state)
{
    struct env e;
    struct pd_timer t;
    pd_time best = PD_SEC;

    (void)state;
    env_open(&e);
    for (int i = 0; i < 20; i++) {
        struct stamp s = { .due = pd_loop_clock(e.client) + 300 * PD_US };
        pd_timer_init(&t, e.client, "grain", take_stamp, &s);
        pd_timer_start_at(&t, s.due);
        assert_true(run(&e, flag, &s.done));
        assert_true(s.fired >= s.due);
        if (s.fired - s.due < best)
            best = s.fired - s.due;
    }
    assert_true(best < PD_MS);
    env_close(&e);
}

static void count_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    (void)l;
    (void)s;
    (*(uint32_t *)arg)++;
}

static bool one_accepted(void *arg) { return *(uint32_t *)arg >= 1; }

/* Without descriptors the listener rests, and goes on afterwards. */
static void test_no_descriptors(void **state)
{
    struct rlimit old, low;
    struct pd_listener *l;
    struct pd_loop_stats st;
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct pd_addr addr;
    struct env e;
    uint32_t accepted = 0;
    int fd, last;

    (void)state;
    env_open(&e);
    addr = e.addr;
    assert_int_equal(pd_listener_open(e.client, &addr, NULL, count_accept, &accepted, &l), PD_OK);
    assert_int_equal(pd_listener_addr(e.client, l, &addr), PD_OK);
    in.sin_port = htons(addr.port);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    getrlimit(RLIMIT_NOFILE, &old);
    last = dup(0);
    close(last);
    low = old;
    low.rlim_cur = (rlim_t)last;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int i = 0; i < 20; i++)
        pd_loop_uv_turn(e.client, PD_MS);
    setrlimit(RLIMIT_NOFILE, &old);
    pd_loop_stats_get(e.client, &st);
    assert_in_range(st.accept_backoffs, 1, 5);
    assert_int_equal(st.accepts, st.accept_backoffs);
    assert_int_equal(accepted, 0);
    assert_true(run(&e, one_accepted, &accepted));
    close(fd);
    pd_listener_close(e.client, l);
    env_close(&e);
}

/* ---- foreign descriptors, signals, inherited sockets */

struct watched {
    int fd;
    uint32_t events;
    int calls;
};

static void on_watch(struct pd_watch *w, uint32_t events, void *arg)
{
    struct watched *x = arg;
    char c;

    (void)w;
    x->events |= events;
    x->calls++;
    if (events & PD_WATCH_READ)
        assert_int_equal(read(x->fd, &c, 1), 1);
}

static bool watch_called(void *arg) { return ((struct watched *)arg)->calls > 0; }

static void test_watch(void **state)
{
    struct watched x = { 0 };
    struct pd_watch *w;
    struct env e;
    int p[2];

    (void)state;
    env_open(&e);
    assert_int_equal(pipe(p), 0);
    x.fd = p[0];
    assert_int_equal(pd_watch_open(e.client, p[0], PD_WATCH_READ, "pipe", on_watch, &x, &w),
                     PD_OK);
    pd_loop_uv_turn(e.client, PD_MS);
    assert_int_equal(x.calls, 0);
    assert_int_equal(write(p[1], "ab", 2), 2);
    assert_true(run(&e, watch_called, &x));
    assert_int_equal(x.events, PD_WATCH_READ);
    x.calls = 0;
    assert_int_equal(pd_watch_set(e.client, w, 0), PD_OK);
    for (int i = 0; i < 3; i++)
        pd_loop_uv_turn(e.client, PD_MS);
    assert_int_equal(x.calls, 0);
    assert_int_equal(pd_watch_set(e.client, w, PD_WATCH_READ), PD_OK);
    assert_int_equal(write(p[1], "c", 1), 1);
    assert_true(run(&e, watch_called, &x));
    pd_watch_close(e.client, w);
    close(p[0]);
    close(p[1]);
    env_close(&e);
}

static void on_signal(int signum, void *arg)
{
    assert_int_equal(signum, SIGUSR1);
    *(bool *)arg = true;
}

static void test_signal(void **state)
{
    struct pd_loop_signal *s;
    struct env e;
    bool got = false;

    (void)state;
    env_open(&e);
    assert_int_equal(pd_loop_uv_signal_open(e.client, SIGUSR1, "usr1", on_signal, &got, &s),
                     PD_OK);
    kill(getpid(), SIGUSR1);
    assert_true(run(&e, flag, &got));
    pd_loop_uv_signal_close(s);
    env_close(&e);
}

static void test_inherited(void **state)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "inh", .has_inherited_fd = 1 };
    struct pd_listener *l;
    struct pd_addr addr;
    struct env e;
    uint32_t accepted = 0;
    int fd;

    (void)state;
    env_open(&e);
    opts.inherited_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(opts.inherited_fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(pd_listener_open(e.client, NULL, &opts, count_accept, &accepted, &l), PD_OK);
    assert_int_equal(pd_listener_addr(e.client, l, &addr), PD_OK);
    in.sin_port = htons(addr.port);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_true(run(&e, one_accepted, &accepted));
    close(fd);
    pd_listener_close(e.client, l);
    env_close(&e);
}

/* An idle connection's reads and writes cost no change of interest. */
static void test_few_polls(void **state)
{
    struct fd_peer a = { 0 };
    struct pd_loop_stats before, after;
    struct env e;
    int pair[2];
    char buf[8];

    (void)state;
    env_open(&e);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(pd_stream_adopt(e.client, pair[0], &fd_events, &a, &a.s), PD_OK);
    pd_loop_stats_get(e.client, &before);
    for (int i = 0; i < 100; i++) {
        size_t n;
        a.got = false;
        assert_int_equal(write(pair[1], "q", 1), 1);
        assert_true(run(&e, fd_got, &a));
        pd_stream_pause_read(a.s);
        assert_int_equal(pd_stream_write(a.s, "r", 1, &n), PD_OK);
        pd_stream_resume_read(a.s);
        assert_int_equal(read(pair[1], buf, sizeof buf), 1);
    }
    pd_loop_stats_get(e.client, &after);
    assert_int_equal(after.polls_changed, before.polls_changed);
    pd_stream_close(a.s);
    assert_true(run(&e, fd_is_closed, &a));
    close(pair[1]);
    env_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
        LOOP_CASES(X)
#undef X
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_unix_stale_path),
        cmocka_unit_test(test_fds),
        cmocka_unit_test(test_post_threads),
        cmocka_unit_test(test_run_stop),
        cmocka_unit_test(test_watchdog),
        cmocka_unit_test(test_timer_grain),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_inherited),
        cmocka_unit_test(test_few_polls),
    };
    const char *pattern = getenv("PD_TEST");
    struct rlimit lim;

    /* The case of a thousand connections holds both ends. */
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < 4096) {
        lim.rlim_cur = lim.rlim_max < 4096 ? lim.rlim_max : 4096;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
    signal(SIGPIPE, SIG_DFL);
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
