/* SPDX-License-Identifier: Apache-2.0 */
/* The cases in which the other node is another process, which is killed or
 * stopped. */
#include "transport_cases.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES ((uint64_t)8 << 20)

/* What an owner in another process tells about itself. */
struct card {
    struct pd_node_id node;
    uint32_t address_len, blob_len;
    uint8_t address[512], blob[256];
};

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void write_all(int fd, const void *p, size_t n)
{
    if (write(fd, p, n) != (ssize_t)n)
        _exit(3);
}

static void read_all(int fd, void *buf, size_t n)
{
    uint8_t *p = buf;

    while (n > 0) {
        ssize_t r = read(fd, p, n);
        if (r < 0 && errno == EINTR)
            continue;
        assert_true(r > 0);
        p += r;
        n -= (size_t)r;
    }
}

static bool child_run(struct tr_env *e, bool (*cond)(void *arg), void *arg)
{
    return e->run_loop(e->la, cond, arg, 60 * PD_SEC);
}

/* Who a node of this process will be, see tr_node_open. */
static struct pd_node_id id_of(uint8_t tag, uint64_t epoch, pid_t pid)
{
    struct pd_node_id id;

    memset(&id, 0, sizeof(id));
    memset(id.uuid.b, tag, sizeof(id.uuid.b));
    id.uuid.b[1] = (uint8_t)pid;
    id.uuid.b[2] = (uint8_t)(pid >> 8);
    id.uuid.b[3] = (uint8_t)(pid >> 16);
    id.epoch = epoch;
    return id;
}

/* A process that owns a window and waits to be killed; its node is named after the
 * process uuid_pid, 0: itself.  A library with threads
 * may not live through a fork: where bytes are to move, no node is open here. */
static pid_t start_owner(struct tr_env *e, const struct pd_node_id *poster, uint64_t epoch, pid_t uuid_pid,
                         struct card *card)
{
    int fds[2];
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct tr_env mine = *e;
        struct tr_node a;
        struct tr_window w;
        struct card c;
        struct pd_segment all = { 0, BYTES };
        size_t len = 0;
        close(fds[0]);
        memset(&c, 0, sizeof(c));
        mine.la = mine.lb = e->new_loop();
        mine.run = child_run;
        mine.uuid_pid = uuid_pid;
        tr_node_open(&mine, &a, mine.la, 0xc3, epoch, BYTES, e->conf);
        /* The tag carries the process's number; the parent must know it. */
        tr_window_open(&w, &a, poster, 1, PD_TRANSPORT_WRITE, &all, 1);
        c.node = a.ctx.node;
        if (e->ops->address(a.tp, c.address, sizeof(c.address), &len) != PD_OK)
            _exit(2);
        c.address_len = (uint32_t)len;
        memcpy(c.blob, w.blob, w.blob_len);
        c.blob_len = (uint32_t)w.blob_len;
        write_all(fds[1], &c, sizeof(c));
        close(fds[1]);
        child_run(&mine, never, NULL);
        _exit(0);
    }
    close(fds[1]);
    read_all(fds[0], card, sizeof(*card));
    close(fds[0]);
    return pid;
}

static void end_child(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static bool is_up(void *arg)
{
    return ((struct tr_link *)arg)->ups > 0;
}

static bool is_down(void *arg)
{
    return ((struct tr_link *)arg)->downs > 0;
}

/* `signal_number` hits the owner while posts are under way.  False: it came too late
 * for that, on a machine that was busy with something else. */
static bool hit_owner(struct tr_env *e, int signal_number, uint64_t seed)
{
    enum { N = 40 };
    struct tr_node b;
    struct tr_link l;
    struct tr_window w;
    struct tr_post posts[N], again;
    struct pd_transport_target *t;
    struct pd_transport_info info;
    struct pd_node_id poster;
    struct card card;
    struct pd_segment all = { 0, BYTES };
    pid_t pid;
    pd_time begin, took;

    poster = id_of(0xb2, 22, getpid());
    pid = start_owner(e, &poster, 11, 0, &card);
    tr_node_open(e, &b, e->lb, 0xb2, 22, BYTES, e->conf);
    e->ops->info(b.tp, &info);
    memset(&l, 0, sizeof(l));
    assert_int_equal(tr_connect_raw(&l, &b, &card.node, card.address, card.address_len,
                                    card.blob, card.blob_len), PD_OK);
    assert_true(e->run(e, is_up, &l));
    assert_int_equal(l.up_status, PD_OK);
    memset(&w, 0, sizeof(w));
    memcpy(w.blob, card.blob, card.blob_len);
    w.blob_len = card.blob_len;
    t = tr_target(&l, &w);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(tr_post(&b, t, &posts[i], 0, &all, 1), PD_OK);
    e->pass(e, tr_random(&seed) % (8 * PD_MS));
    kill(pid, signal_number);
    begin = pd_loop_clock(e->lb);
    assert_true(e->run(e, is_down, &l));
    took = pd_loop_clock(e->lb) - begin;
    assert_true(took <= (pd_time)info.failure_ms * PD_MS + 500 * PD_MS);
    if (signal_number == SIGKILL && !e->foreign)
        assert_true(took < PD_SEC);
    assert_int_not_equal(l.down_status, PD_OK);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(posts[i].dones, 1);
        assert_true(posts[i].terminal != PD_TRANSFER_CANCELED_FENCED);
    }
    assert_int_equal(tr_post(&b, t, &again, 0, &all, 1), PD_ESTALE);
    e->ops->target_close(t);
    end_child(pid);
    tr_node_close(e, &b);
    return posts[N - 1].terminal != PD_TRANSFER_OK;
}

void tr_case_kill_owner(struct tr_env *e)
{
    uint32_t hits = 0;
    for (uint32_t i = 0; i < 5; i++)
        hits += hit_owner(e, SIGKILL, 40 + i);
    assert_true(hits > 0);
    hit_owner(e, SIGSTOP, 50);
}

static bool has_bytes(void *arg)
{
    return ((struct tr_window *)arg)->told > 3;
}

static bool is_closed(void *arg)
{
    return ((struct tr_window *)arg)->closed > 0;
}

/* The poster dies in the middle of its writing. */
void tr_case_kill_poster(struct tr_env *e)
{
    struct tr_node a;
    struct tr_window w;
    struct pd_segment all = { 0, BYTES };
    struct pd_node_id poster;
    struct pd_transport_info info;
    struct card card;
    size_t len = 0;
    int fds[2];
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct tr_env mine = *e;
        struct tr_node b;
        struct tr_link l;
        struct tr_post post;
        struct pd_transport_target *t;
        mine.la = mine.lb = e->new_loop();
        mine.run = child_run;
        tr_node_open(&mine, &b, mine.la, 0xb2, 22, BYTES, e->conf);
        read_all(fds[0], &card, sizeof(card));
        memset(&l, 0, sizeof(l));
        tr_connect_raw(&l, &b, &card.node, card.address, card.address_len, card.blob,
                       card.blob_len);
        child_run(&mine, is_up, &l);
        memcpy(w.blob, card.blob, card.blob_len);
        w.blob_len = card.blob_len;
        t = tr_target(&l, &w);
        for (;;) {
            if (tr_post(&b, t, &post, 0, &all, 1) != PD_OK)
                _exit(4);
            tr_wait_post(&mine, &post);
        }
    }
    tr_node_open(e, &a, e->la, 0xa1, 11, BYTES, e->conf);
    poster = id_of(0xb2, 22, pid);
    tr_window_open(&w, &a, &poster, 1, PD_TRANSPORT_WRITE, &all, 1);
    memset(&card, 0, sizeof(card));
    card.node = a.ctx.node;
    assert_int_equal(e->ops->address(a.tp, card.address, sizeof(card.address), &len), PD_OK);
    card.address_len = (uint32_t)len;
    memcpy(card.blob, w.blob, w.blob_len);
    card.blob_len = (uint32_t)w.blob_len;
    write_all(fds[1], &card, sizeof(card));
    assert_true(e->run(e, has_bytes, &w));
    kill(pid, SIGKILL);
    e->ops->info(a.tp, &info);
    e->ops->window_close(w.window);
    assert_int_equal(w.closed, 0);
    /* Nobody is there to agree. */
    assert_true(e->run_loop(e->la, is_closed, &w, (pd_time)info.failure_ms * PD_MS + 5 * PD_SEC));
    assert_int_equal(w.closed, 1);
    memset(a.base, 0xee, BYTES);
    e->pass(e, 50 * PD_MS);
    for (uint64_t i = 0; i < BYTES; i++)
        assert_int_equal(a.base[i], 0xee);
    end_child(pid);
    close(fds[0]);
    close(fds[1]);
    tr_node_close(e, &a);
}

/* An owner that comes back is somebody else. */
void tr_case_restart(struct tr_env *e)
{
    struct tr_node b;
    struct tr_link l;
    struct card old, now;
    struct pd_transport_target *t = NULL;
    struct pd_node_id poster;
    pid_t pid, next;

    poster = id_of(0xb2, 22, getpid());
    pid = start_owner(e, &poster, 11, getpid(), &old);
    end_child(pid);
    next = start_owner(e, &poster, 12, getpid(), &now);
    assert_memory_equal(&old.node.uuid, &now.node.uuid, sizeof(old.node.uuid));
    tr_node_open(e, &b, e->lb, 0xb2, 22, BYTES, e->conf);
    memset(&l, 0, sizeof(l));
    assert_int_equal(tr_connect_raw(&l, &b, &old.node, old.address, old.address_len, old.blob,
                                    old.blob_len), PD_OK);
    assert_true(e->run(e, is_up, &l));
    assert_int_not_equal(l.up_status, PD_OK);
    /* Its new address, asked for its old life. */
    memset(&l, 0, sizeof(l));
    assert_int_equal(tr_connect_raw(&l, &b, &old.node, now.address, now.address_len, old.blob,
                                    old.blob_len), PD_OK);
    assert_true(e->run(e, is_up, &l));
    if (e->foreign)
        assert_int_not_equal(l.up_status, PD_OK);
    else
        assert_int_equal(l.up_status, PD_ESTALE);
    memset(&l, 0, sizeof(l));
    assert_int_equal(tr_connect_raw(&l, &b, &now.node, now.address, now.address_len, now.blob,
                                    now.blob_len), PD_OK);
    assert_true(e->run(e, is_up, &l));
    assert_int_equal(l.up_status, PD_OK);
    if (e->foreign)
        assert_int_not_equal(e->ops->target_open(l.peer, old.blob, old.blob_len, &t), PD_OK);
    else
        assert_int_equal(e->ops->target_open(l.peer, old.blob, old.blob_len, &t), PD_ESTALE);
    assert_int_equal(e->ops->target_open(l.peer, now.blob, now.blob_len, &t), PD_OK);
    e->ops->target_close(t);
    end_child(next);
    assert_true(e->run(e, is_down, &l));
    tr_node_close(e, &b);
}
