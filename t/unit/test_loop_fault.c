/* SPDX-License-Identifier: Apache-2.0 */
/* The uv backend while a system call or an allocation fails: each scene once for each
 * call that it makes and each error of that call.  A scene ends by itself, what it
 * received is right, and no descriptor or handle stays; whoever is not told of a
 * failure has got all that he asked for. */
#include "unit.h"

#include "wrap_sys.h"

#include "base/mem.h"
#include "base/str.h"
#include "loop/hand.h"
#include "loop/uv.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BYTES (40u * 1024)
#define PATIENCE (30 * PD_SEC)

/* ---- one scene ---------------------------------------------------------------- */

struct scene {
    struct pd_loop *loop;
    bool has_failed;            /* somebody was told so */
    char path[64];
};

/* Takes note of a status that a caller would see. */
static bool is_ok(struct scene *x, pd_status status)
{
    if (status != PD_OK)
        x->has_failed = true;
    return status == PD_OK;
}

static void run(struct scene *x, bool (*cond)(void *arg), void *arg)
{
    pd_time end = pd_loop_clock(x->loop) + PATIENCE;
    while (!cond(arg)) {
        if (pd_loop_clock(x->loop) > end)
            fail_msg("the scene does not end after %s failed", wrap_disarm(&x->has_failed));
        pd_loop_uv_turn(x->loop, 20 * PD_MS);
    }
}

struct end {
    struct scene *scene;
    struct pd_stream *s;
    bool sends, is_over, is_closed, is_unix;
    size_t sent, got;
    uint32_t hangups;
    int fd;
};

static void end_over(struct end *e)
{
    e->is_over = true;
    if (e->s != NULL)
        pd_stream_close(e->s);
}

static char byte_at(size_t i)
{
    return (char)(i * 7 + i / 251);
}

static void push(struct end *e)
{
    static char bytes[BYTES];
    for (size_t i = 0; e->sent == 0 && i < BYTES; i++)
        bytes[i] = byte_at(i);
    while (e->sent < BYTES) {
        size_t left = BYTES - e->sent, n;
        struct pd_iov two[2] = { { bytes + e->sent, left / 2 }, { bytes + e->sent + left / 2, left - left / 2 } };
        pd_status st = pd_stream_writev(e->s, left % 2 == 0 ? two : (struct pd_iov[]){ { bytes + e->sent, left } },
                                        left % 2 == 0 ? 2 : 1, &n);
        if (st == PD_EAGAIN)
            return;
        if (!is_ok(e->scene, st)) {
            end_over(e);
            return;
        }
        assert_true(n > 0);
        e->sent += n;
    }
    /* What cannot be shut down is closed: the other side sees an end either way. */
    if (pd_stream_shutdown_write(e->s) != PD_OK)
        end_over(e);
}

static void end_connected(struct pd_stream *s, pd_status status, void *arg)
{
    static const uint64_t options[][2] = {
        { PD_STREAM_NODELAY, 1 }, { PD_STREAM_USER_TIMEOUT, 20000 }, { PD_STREAM_NOTSENT_LOWAT, 65536 },
        { PD_STREAM_KEEPALIVE, 30 }, { PD_STREAM_SNDBUF, 16384 }, { PD_STREAM_LINGER_RESET, 0 },
    };
    struct end *e = arg;
    struct pd_addr addr;
    if (!is_ok(e->scene, status)) {
        end_over(e);
        return;
    }
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        (void)is_ok(e->scene, pd_stream_set_option(s, (uint32_t)options[i][0], options[i][1]));
    (void)is_ok(e->scene, pd_stream_local_addr(s, &addr));
    (void)is_ok(e->scene, pd_stream_peer_addr(s, &addr));
    push(e);
}

static void end_readable(struct pd_stream *s, void *arg)
{
    struct end *e = arg;
    char bytes[2][9000];
    struct pd_iov iov[2] = { { bytes[0], sizeof bytes[0] }, { bytes[1], sizeof bytes[1] } };
    size_t n;
    pd_status st = pd_stream_readv(s, iov, 1 + e->got % 2, &n);
    if (st == PD_EAGAIN)
        return;
    if (st != PD_OK) {
        if (st != PD_EEOF)
            e->scene->has_failed = true;
        else if (!e->sends && e->got < BYTES)
            assert_true(e->scene->has_failed);
        end_over(e);
        return;
    }
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bytes[i / sizeof bytes[0]][i % sizeof bytes[0]], byte_at(e->got + i));
    e->got += n;
}

static void end_writable(struct pd_stream *s, void *arg)
{
    (void)s;
    push(arg);
}

static void end_closed(struct pd_stream *s, void *arg)
{
    struct end *e = arg;
    (void)s;
    e->s = NULL;
    e->is_closed = true;
}

static const struct pd_stream_events end_events = {
    .name = "end", .on_connected = end_connected, .on_readable = end_readable,
    .on_writable = end_writable, .on_closed = end_closed,
};

static void on_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    struct end *e = arg;
    (void)l;
    assert_null(e->s);
    e->s = s;
    pd_stream_set_events(s, &end_events, e);
}

static bool end_is_closed(void *arg)
{
    return ((struct end *)arg)->is_closed;
}

/* ---- the scenes ------------------------------------------------------------- */

static void addr_of(struct scene *x, const char *text, struct pd_addr *out)
{
    assert_int_equal(pd_addr_parse(x->loop, pd_str_from(text), out), PD_OK);
}

/* Many bytes over a connection to this address, to their end.  Whether it was listened. */
static bool transfer(struct scene *x, const struct pd_addr *on, const struct pd_listener_opts *opts)
{
    struct end client = { .scene = x, .sends = true }, server = { .scene = x };
    struct pd_listener *l = NULL;
    struct pd_addr addr;
    if (!is_ok(x, pd_listener_open(x->loop, on, opts, on_accept, &server, &l)))
        return false;
    if (is_ok(x, pd_listener_addr(x->loop, l, &addr)) &&
        is_ok(x, pd_stream_connect(x->loop, &addr, &end_events, &client, &client.s))) {
        run(x, end_is_closed, &client);
        /* What was accepted ends too; what was not, never is. */
        for (int i = 0; i < 20 && server.s == NULL && !server.is_closed; i++)
            pd_loop_uv_turn(x->loop, client.sent == BYTES ? 20 * PD_MS : PD_MS);
        if (server.s != NULL)
            run(x, end_is_closed, &server);
        if (!x->has_failed)
            assert_int_equal(server.got, BYTES);
    }
    pd_listener_close(x->loop, l);
    return true;
}

static void scene_tcp(struct scene *x)
{
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "tcp", .reuseport = 1 };
    struct pd_addr addr;
    addr_of(x, "127.0.0.1:0", &addr);
    transfer(x, &addr, &opts);
}

/* A dead socket file is in the way. */
static void scene_unix(struct scene *x)
{
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "unix", .unix_mode = 0600 };
    char text[100];
    struct pd_addr addr;
    snprintf(text, sizeof text, "unix:%s", x->path);
    addr_of(x, text, &addr);
    transfer(x, &addr, &opts);
}

static void scene_inherited(struct scene *x)
{
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "inherited", .has_inherited_fd = 1 };
    struct pd_addr addr;
    int fd;
    addr_of(x, "127.0.0.1:0", &addr);
    if (!is_ok(x, pd_loop_uv_bind(&addr, &fd)))
        return;
    opts.inherited_fd = fd;
    /* Refused, it stays the caller's. */
    if (!transfer(x, NULL, &opts))
        close(fd);
}

static void scene_handed(struct scene *x)
{
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "handed" };
    struct pd_loop_uv_socket handed;
    struct pd_addr any;
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    addr_of(x, "127.0.0.1:0", &any);
    if (!is_ok(x, pd_loop_uv_bind(&any, &handed.fd)))
        return;
    if (getsockname(handed.fd, (struct sockaddr *)&in, &len) == 0) {
        handed.addr = any;
        handed.addr.port = ntohs(in.sin_port);
        pd_loop_uv_set_sockets(x->loop, &handed, 1);
        transfer(x, &handed.addr, &opts);
        pd_loop_uv_set_sockets(x->loop, NULL, 0);
    } else {
        x->has_failed = true;
    }
    close(handed.fd);
}

/* ---- descriptors over a pair of unix streams */

static void fds_readable(struct pd_stream *s, void *arg)
{
    struct end *e = arg;
    char byte;
    struct pd_iov iov = { &byte, 1 };
    size_t got, n_fds;
    pd_status st = pd_stream_recv_fds(s, &iov, 1, &got, &e->fd, 1, &n_fds);
    if (st == PD_EAGAIN)
        return;
    if (st == PD_EEOF) {
        assert_true(e->got > 0 || e->scene->has_failed);
        end_over(e);
        return;
    }
    if (!is_ok(e->scene, st)) {
        end_over(e);
        return;
    }
    assert_int_equal(n_fds, 1);
    assert_int_equal(fcntl(e->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close(e->fd);
    e->got++;
}

static void fds_writable(struct pd_stream *s, void *arg)
{
    struct end *e = arg;
    char byte = 'x';
    struct pd_iov iov = { &byte, 1 };
    size_t sent;
    pid_t pid;
    uid_t uid;
    gid_t gid;
    pd_status st = pd_stream_send_fds(s, &iov, 1, &e->fd, 1, &sent);
    if (st == PD_EAGAIN)
        return;
    (void)is_ok(e->scene, st);
    (void)is_ok(e->scene, pd_stream_peer_cred(s, &pid, &uid, &gid));
    end_over(e);
}

static void fds_hangup(struct pd_stream *s, void *arg)
{
    ((struct end *)arg)->hangups++;
    pd_stream_resume_read(s);
}

static const struct pd_stream_events fds_events = {
    .name = "fds", .on_readable = fds_readable, .on_writable = fds_writable, .on_hangup = fds_hangup,
    .on_closed = end_closed,
};

static void scene_fds(struct scene *x)
{
    struct end a = { .scene = x }, b = { .scene = x };
    int pair[2], pipes[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        x->has_failed = true;
        return;
    }
    assert_int_equal(pipe(pipes), 0);
    a.fd = pipes[0];
    if (is_ok(x, pd_stream_adopt(x->loop, pair[0], &fds_events, &a, &a.s))) {
        if (is_ok(x, pd_stream_adopt(x->loop, pair[1], &fds_events, &b, &b.s))) {
            pd_stream_pause_read(b.s);
            fds_writable(a.s, &a);
            run(x, end_is_closed, &a);
            run(x, end_is_closed, &b);
            assert_true(b.got == 1 || x->has_failed);
            assert_true(b.hangups == 1 || x->has_failed);
        } else {
            pd_stream_close(a.s);
            run(x, end_is_closed, &a);
        }
    } else {
        close(pair[1]);
    }
    close(pipes[0]);
    close(pipes[1]);
}

/* ---- a process and its child */

static void scene_hand(struct scene *x)
{
    char text[PD_HAND_MAX + 1];
    int ends[2], fd;
    pd_status st;
    if (!is_ok(x, pd_hand_pair(ends)))
        return;
    if (is_ok(x, pd_hand_send(ends[1], "one", ends[0]))) {
        st = pd_hand_receive(ends[0], text, &fd);
        if (is_ok(x, st)) {
            assert_string_equal(text, "one");
            assert_true(fd >= 0);
            close(fd);
        }
    }
    close(ends[1]);
    /* What was not taken before is still there. */
    while ((st = pd_hand_receive(ends[0], text, &fd)) == PD_OK && fd >= 0)
        close(fd);
    assert_true(st == PD_EEOF || x->has_failed || !is_ok(x, st));
    close(ends[0]);
}

/* ---- the small handles */

static void on_watch(struct pd_watch *w, uint32_t events, void *arg)
{
    (void)w;
    *(uint32_t *)arg |= events;
}

static bool is_set(void *arg)
{
    return *(uint32_t *)arg != 0;
}

static void on_signal(int signum, void *arg)
{
    assert_int_equal(signum, SIGUSR1);
    *(uint32_t *)arg = 1;
}

static void scene_watch(struct scene *x)
{
    struct pd_watch *w;
    struct pd_loop_signal *sig;
    uint32_t seen = 0;
    int p[2];
    assert_int_equal(pipe(p), 0);
    if (is_ok(x, pd_watch_open(x->loop, p[0], PD_WATCH_READ, "pipe", on_watch, &seen, &w))) {
        assert_int_equal(write(p[1], "a", 1), 1);
        run(x, is_set, &seen);
        assert_int_equal(seen, PD_WATCH_READ);
        pd_watch_close(x->loop, w);
        pd_watch_close(x->loop, w);
    }
    seen = 0;
    if (is_ok(x, pd_loop_uv_signal_open(x->loop, SIGUSR1, "usr1", on_signal, &seen, &sig))) {
        kill(getpid(), SIGUSR1);
        run(x, is_set, &seen);
        pd_loop_uv_signal_close(sig);
    }
    close(p[0]);
    close(p[1]);
}

struct asked {
    struct scene *scene;
    uint32_t is_over;
    size_t n;
};

static void on_names(struct pd_resolve *r, pd_status status, const struct pd_addr *addrs, size_t n, void *arg)
{
    struct asked *a = arg;
    (void)r;
    a->n = n;
    a->is_over = 1;
    assert_true((status == PD_OK) == (n > 0));
    if (is_ok(a->scene, status))
        assert_true(addrs[0].port == 80);
}

static bool asked_is_over(void *arg)
{
    return ((struct asked *)arg)->is_over != 0;
}

static void scene_names(struct scene *x)
{
    struct asked a = { .scene = x };
    struct pd_resolve r = { .cb = on_names, .arg = &a, .name = "names" };
    if (is_ok(x, pd_resolve_start(x->loop, "localhost", 80, &r)))
        run(x, asked_is_over, &a);
    /* One that nobody waits for any more. */
    if (is_ok(x, pd_resolve_start(x->loop, "localhost", 80, &r)))
        pd_resolve_cancel(x->loop, &r);
}

static void work(struct pd_work *w, void *arg)
{
    (void)w;
    __atomic_add_fetch((uint32_t *)arg, 1, __ATOMIC_RELAXED);
}

static void on_work_closed(void *arg)
{
    *(uint32_t *)arg = 1;
}

static void scene_work(struct scene *x)
{
    struct pd_workq_opts opts = { .size = sizeof opts, .name = "works", .threads = 3 };
    struct pd_workq *q;
    struct pd_work w[4];
    uint32_t done = 0, closed = 0, queued = 0;
    memset(w, 0, sizeof w);
    if (!is_ok(x, pd_workq_create(x->loop, &opts, &q)))
        return;
    for (size_t i = 0; i < 4; i++) {
        w[i].run = work;
        w[i].arg = &done;
        queued += pd_work_submit(x->loop, q, &w[i]) == PD_OK;
    }
    assert_int_equal(queued, 4);
    pd_workq_close(x->loop, q, on_work_closed, &closed);
    run(x, is_set, &closed);
    assert_true(done <= 4);
}

static const struct {
    const char *name;
    void (*play)(struct scene *x);
} scenes[] = {
    { "tcp", scene_tcp }, { "unix", scene_unix }, { "inherited", scene_inherited },
    { "handed", scene_handed }, { "fds", scene_fds }, { "hand", scene_hand }, { "watch", scene_watch },
    { "names", scene_names }, { "work", scene_work },
};

/* ---- each with a fault ------------------------------------------------------ */

static uint32_t open_descriptors(void)
{
    uint32_t n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void leave_dead_socket(const char *path)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    close(fd);
}

enum kind { CALL, MEMORY };

/* Plays a scene whose n-th call fails with an error of it.  What failed, NULL: the scene
 * makes fewer calls. */
static const char *play(size_t i, enum kind kind, uint64_t n, uint32_t variety)
{
    struct scene x = { 0 };
    char names[256] = "";
    bool was_real = n > 0;
    const char *what = NULL;
    uint32_t before = open_descriptors();
    uint64_t asked = pd_mem_count();
    snprintf(x.path, sizeof x.path, "/tmp/pd-test-fault-%d.sock", (int)getpid());
    leave_dead_socket(x.path);
    if (kind == MEMORY)
        pd_mem_fault_set(n);
    else
        wrap_arm(n, variety);
    pd_status st = pd_loop_uv_create(NULL, &x.loop);
    if (st == PD_OK)
        scenes[i].play(&x);
    if (kind == MEMORY) {
        what = n > 0 && pd_mem_count() - asked >= n ? "memory" : NULL;
        pd_mem_fault_set(0);
    } else {
        what = wrap_disarm(&was_real);
    }
    if (st == PD_OK)
        st = pd_loop_destroy(x.loop, names, sizeof names);
    else
        assert_non_null(what);
    if (st != PD_OK && names[0] != '\0')
        fail_msg("%s %llu (%s) leaves open: %s", scenes[i].name, (unsigned long long)n, what, names);
    unlink(x.path);
    /* What libuv opens once per process comes with the plays that go well. */
    if (n > 0 && open_descriptors() != before)
        fail_msg("%s %llu, variety %u (%s): %u descriptors were open, now %u", scenes[i].name, (unsigned long long)n,
                 variety, what, before, open_descriptors());
    if (what == NULL || !was_real)
        assert_false(x.has_failed);
    return what;
}

static void sweep(enum kind kind, uint32_t varieties)
{
    uint64_t points = 0;
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++)
        assert_null(play(i, kind, 0, 0));
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        for (uint32_t v = 0; v < varieties; v++) {
            uint64_t n = 1;
            while (play(i, kind, n, v) != NULL)
                n++;
            assert_true(n > 1);
            points += n - 1;
        }
    }
    fprintf(stderr, "# %llu faults\n", (unsigned long long)points);
}

static void test_calls(void **state)
{
    (void)state;
    sweep(CALL, WRAP_VARIETIES);
}

static void test_memory(void **state)
{
    (void)state;
    sweep(MEMORY, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_calls), cmocka_unit_test(test_memory) };
    const char *pattern = getenv("PD_TEST");
    signal(SIGPIPE, SIG_DFL);
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
