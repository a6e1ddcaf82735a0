/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: time, randomness, timers, tasks, work on other threads,
 * streams, listeners, foreign descriptors and names.  Stable.
 *
 * There are two kinds of loop behind these calls: the real one and the
 * simulator's (virtual clock, simulated network).  Code that uses nothing but
 * this header for time, chance and sockets runs in both, and in the simulator
 * the same seed gives the same run.
 *
 * Rules that hold everywhere:
 *  - One thread runs a loop.  Every function is for that thread only, unless
 *    it says "any thread".  Every callback comes on that thread.
 *  - No callback is ever called from inside the call that asked for it.
 *  - `name` members are static strings; the watchdog and pd_loop_destroy
 *    print them.
 *  - struct pd_timer, pd_task, pd_work, pd_resolve are the caller's memory: zeroed
 *    or initialised by the functions below, and not freed while active.  What is
 *    below "private" in them is the loop's. */
#ifndef PDPLANE_LOOP_H
#define PDPLANE_LOOP_H

#include <pdplane/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pd_loop_ops;
struct pd_stream_ops;
struct pd_stream;
struct pd_listener;
struct pd_watch;
struct pd_workq;

/* The visible head of a loop; the backend's own state follows it. */
struct pd_loop {
    const struct pd_loop_ops *ops;
    pd_time now;            /* read through pd_loop_now */
    const char *name;       /* the node's name, for logs */
};

/* ------------------------------------------------------------------------
 * Addresses */

enum {
    PD_AF_NONE = 0,
    PD_AF_UNIX = 1,         /* path */
    PD_AF_IPV4 = 4,         /* ip[0..3], port */
    PD_AF_IPV6 = 6,         /* ip[0..15], port, scope */
};

struct pd_addr {
    uint16_t family;        /* PD_AF_... */
    uint16_t port;          /* host byte order */
    uint32_t scope;         /* IPv6 link-local interface index, else 0 */
    uint8_t ip[16];         /* network byte order */
    char path[108];         /* zero-terminated; unix only */
};

/* Room for any formatted address with its final zero byte. */
#define PD_ADDR_TEXT 128

/* ------------------------------------------------------------------------
 * Timers and tasks */

struct pd_timer;
struct pd_task;
typedef void (*pd_timer_cb)(struct pd_timer *timer, void *arg);
typedef void (*pd_task_cb)(struct pd_task *task, void *arg);

/* A node of the loop's queue of things to come. */
struct pd_loop_node {
    pd_time due;
    uint64_t seq;
    struct pd_loop_node *child, *next, *prev;
    struct pd_loop *loop;
    uint32_t kind;          /* 0: not queued */
    uint32_t reserved;
};

struct pd_timer {
    struct pd_loop *loop;
    pd_timer_cb cb;
    void *arg;
    const char *name;
    /* private */
    struct pd_loop_node node;
};

struct pd_task {
    pd_task_cb cb;
    void *arg;
    const char *name;
    /* private */
    struct pd_task *next, *prev;
    uint32_t state;
    union {
        uint32_t ran_in;    /* number of the turn, 0: none yet */
        uint32_t reserved;  /* the name that the ABI 1.0 has for it */
    };
};

/* ------------------------------------------------------------------------
 * Work on other threads */

struct pd_work {
    /* Runs on a thread of the queue; may block; must touch nothing of the loop
     * but functions marked "any thread". */
    void (*run)(struct pd_work *work, void *arg);
    /* Runs on the loop: PD_OK after run, PD_ECANCELED when run never started. */
    void (*done)(struct pd_work *work, pd_status status, void *arg);
    void *arg;
    const char *name;
    /* How long the work takes in the simulator; run may change it. */
    pd_time sim_cost_ns;
    /* private */
    struct pd_workq *queue;
    struct pd_work *next, *prev;
    struct pd_loop_node node;
    uint32_t state;
    uint32_t reserved;
};

struct pd_workq_opts {
    size_t size;            /* sizeof(struct pd_workq_opts) */
    const char *name;       /* of the threads; 15 bytes are shown by the system */
    uint32_t threads;       /* at least 1 */
    uint32_t limit;         /* most works waiting, 0: 1024 */
    /* Called on each thread before its first work, to pin it; may be NULL.
     * Not called in the simulator. */
    void (*on_thread)(uint32_t index, void *arg);
    void *arg;
};

/* ------------------------------------------------------------------------
 * Streams */

/* What the owner of a stream wants to hear.  Members may be NULL. */
struct pd_stream_events {
    const char *name;
    /* Once, for a stream made by pd_stream_connect.  After any status but PD_OK the
     * owner closes it: PD_EPEER (refused, reset), PD_ETIMEDOUT, PD_ENOENT (no
     * such unix socket), PD_EPERM, PD_EIO. */
    void (*on_connected)(struct pd_stream *s, pd_status status, void *arg);
    /* There are bytes, the end, or an error to read.  Comes again and again
     * until they are read or reading is paused; an owner who does neither
     * keeps the loop busy. */
    void (*on_readable)(struct pd_stream *s, void *arg);
    /* Once after each write that did not take everything. */
    void (*on_writable)(struct pd_stream *s, void *arg);
    /* At most once, only while reading is paused: the peer has closed or reset.
     * What it sent before can still be read. */
    void (*on_hangup)(struct pd_stream *s, void *arg);
    /* Once after pd_stream_close.  The stream's memory goes when it returns. */
    void (*on_closed)(struct pd_stream *s, void *arg);
};

/* The visible head of a stream.  Other layers (TLS) make streams of their own
 * with another ops table, so that their users need not care. */
struct pd_stream {
    const struct pd_stream_ops *ops;
    struct pd_loop *loop;
};

enum pd_stream_opt {
    PD_STREAM_NODELAY = 1,      /* 0 or 1; on from the start */
    PD_STREAM_KEEPALIVE = 2,    /* seconds idle before the first probe, 0: off (default) */
    PD_STREAM_USER_TIMEOUT = 3, /* milliseconds without acknowledgement, 0: system's */
    PD_STREAM_NOTSENT_LOWAT = 4,/* bytes not yet sent that make it "not writable" */
    PD_STREAM_SNDBUF = 5,       /* bytes */
    PD_STREAM_RCVBUF = 6,       /* bytes */
    PD_STREAM_LINGER_RESET = 7, /* 1: pd_stream_close sends a reset */
};

struct pd_stream_ops {
    size_t size;
    pd_status (*readv)(struct pd_stream *s, const struct pd_iov *iov, size_t n, size_t *got);
    pd_status (*writev)(struct pd_stream *s, const struct pd_iov *iov, size_t n, size_t *sent);
    void (*pause_read)(struct pd_stream *s);
    void (*resume_read)(struct pd_stream *s);
    pd_status (*shutdown_write)(struct pd_stream *s);
    void (*close)(struct pd_stream *s);
    void (*set_events)(struct pd_stream *s, const struct pd_stream_events *ev, void *arg);
    pd_status (*set_option)(struct pd_stream *s, uint32_t opt, uint64_t value);
    pd_status (*local_addr)(struct pd_stream *s, struct pd_addr *out);
    pd_status (*peer_addr)(struct pd_stream *s, struct pd_addr *out);
    pd_status (*peer_cred)(struct pd_stream *s, pid_t *pid, uid_t *uid, gid_t *gid);
    pd_status (*send_fds)(struct pd_stream *s, const struct pd_iov *iov, size_t n,
                          const int *fds, size_t nfds, size_t *sent);
    pd_status (*recv_fds)(struct pd_stream *s, const struct pd_iov *iov, size_t n, size_t *got,
                          int *fds, size_t max, size_t *nfds);
    int (*fd)(struct pd_stream *s);
};

/* A new connection.  The callee calls pd_stream_set_events(s, ...) before it
 * returns and owns s from then on; otherwise the loop closes it. */
typedef void (*pd_accept_cb)(struct pd_listener *l, struct pd_stream *s, void *arg);

struct pd_listener_opts {
    size_t size;            /* sizeof(struct pd_listener_opts) */
    const char *name;
    uint32_t backlog;       /* 0: 511 */
    uint32_t reuseport;     /* 1: several sockets share the port */
    uint32_t unix_mode;     /* permission bits of a unix socket, 0: 0660 */
    int inherited_fd;       /* a bound socket to take over (the loop closes it); used when
                             * has_inherited_fd is 1, and addr is then ignored */
    uint32_t has_inherited_fd;
};

/* ------------------------------------------------------------------------
 * Foreign descriptors and names */

enum { PD_WATCH_READ = 1, PD_WATCH_WRITE = 2, PD_WATCH_ERROR = 4 };
/* events: which of PD_WATCH_... happened; ERROR is always reported. */
typedef void (*pd_watch_cb)(struct pd_watch *w, uint32_t events, void *arg);

#define PD_RESOLVE_MAX 256      /* addresses that one lookup gives */

struct pd_resolve;
/* n addresses (at most PD_RESOLVE_MAX), borrowed for the call; 0 unless status is PD_OK.
 * PD_ENOENT no such name, PD_ETIMEDOUT, PD_EIO the resolver failed. */
typedef void (*pd_resolve_cb)(struct pd_resolve *r, pd_status status,
                              const struct pd_addr *addrs, size_t n, void *arg);
struct pd_resolve {
    pd_resolve_cb cb;
    void *arg;
    const char *name;
    /* private */
    void *priv;
};

/* ------------------------------------------------------------------------
 * Statistics */

#define PD_LOOP_LAG_BUCKETS 24

struct pd_loop_stats {
    uint64_t turns;
    uint64_t busy_ns;           /* time spent in handlers */
    uint64_t slow_turns;        /* turns above the limit (50 ms unless set) */
    uint64_t slow_max_ns;       /* the longest turn */
    const char *slow_name;      /* the handler that took most of it, NULL: none yet */
    /* Turns by length: bucket i counts turns below 2^i microseconds that are
     * in no lower bucket; the last one counts the rest. */
    uint64_t lag[PD_LOOP_LAG_BUCKETS];
    /* System calls of the stream path, or their counterparts in the simulator. */
    uint64_t reads, writes, accepts, polls_changed;
    uint64_t read_bytes, written_bytes;
    uint64_t accept_backoffs;   /* times a listener rested for want of descriptors */
    uint64_t timers_fired, tasks_run, posts, works_run;
    /* Handles open now. */
    uint64_t streams, listeners, watches, timers, workqs, resolves, tasks;
};

/* ------------------------------------------------------------------------
 * The table.  Members are only ever added at the end. */

struct pd_loop_ops {
    size_t size;
    pd_time (*clock)(struct pd_loop *loop);
    uint64_t (*wall)(struct pd_loop *loop);
    void (*random)(struct pd_loop *loop, void *buf, size_t n);
    void (*timer_start)(struct pd_timer *timer, pd_time due);
    void (*timer_stop)(struct pd_timer *timer);
    bool (*post)(struct pd_loop *loop, struct pd_task *task);
    void (*defer)(struct pd_loop *loop, struct pd_task *task);
    void (*task_cancel)(struct pd_loop *loop, struct pd_task *task);
    pd_status (*workq_create)(struct pd_loop *loop, const struct pd_workq_opts *opts,
                              struct pd_workq **out);
    void (*workq_close)(struct pd_loop *loop, struct pd_workq *q,
                        void (*on_closed)(void *arg), void *arg);
    pd_status (*work_submit)(struct pd_loop *loop, struct pd_workq *q, struct pd_work *work);
    bool (*work_cancel)(struct pd_loop *loop, struct pd_work *work);
    pd_status (*connect)(struct pd_loop *loop, const struct pd_addr *to,
                         const struct pd_stream_events *ev, void *arg, struct pd_stream **out);
    pd_status (*adopt)(struct pd_loop *loop, int fd, const struct pd_stream_events *ev,
                       void *arg, struct pd_stream **out);
    pd_status (*listener_open)(struct pd_loop *loop, const struct pd_addr *addr,
                               const struct pd_listener_opts *opts, pd_accept_cb on_accept,
                               void *arg, struct pd_listener **out);
    pd_status (*listener_addr)(struct pd_loop *loop, struct pd_listener *l, struct pd_addr *out);
    void (*listener_pause)(struct pd_loop *loop, struct pd_listener *l, bool paused);
    void (*listener_close)(struct pd_loop *loop, struct pd_listener *l);
    pd_status (*watch_open)(struct pd_loop *loop, int fd, uint32_t events, const char *name,
                            pd_watch_cb cb, void *arg, struct pd_watch **out);
    pd_status (*watch_set)(struct pd_loop *loop, struct pd_watch *w, uint32_t events);
    void (*watch_close)(struct pd_loop *loop, struct pd_watch *w);
    pd_status (*resolve)(struct pd_loop *loop, const char *host, uint16_t port,
                         struct pd_resolve *r);
    void (*resolve_cancel)(struct pd_loop *loop, struct pd_resolve *r);
    pd_status (*addr_parse)(struct pd_str text, struct pd_addr *out);
    size_t (*addr_format)(const struct pd_addr *addr, char *buf, size_t size);
    void (*stats)(struct pd_loop *loop, struct pd_loop_stats *out, size_t size);
    void (*note)(struct pd_loop *loop, const char *line);
    pd_status (*run)(struct pd_loop *loop);
    void (*stop)(struct pd_loop *loop);
    pd_status (*destroy)(struct pd_loop *loop, char *names, size_t size);
};

/* ------------------------------------------------------------------------
 * Time and chance */

/* Nanoseconds on the monotonic clock, read once per turn of the loop. */
static inline pd_time pd_loop_now(const struct pd_loop *loop) { return loop->now; }

/* A fresh reading of the same clock.  Any thread. */
static inline pd_time pd_loop_clock(struct pd_loop *loop) { return loop->ops->clock(loop); }

/* Unix time in nanoseconds, for logs and certificates only.  Any thread. */
static inline uint64_t pd_loop_wall(struct pd_loop *loop) { return loop->ops->wall(loop); }

/* Fills buf with n bytes that nobody can guess; in the simulator they come from the seed. */
static inline void pd_loop_random(struct pd_loop *loop, void *buf, size_t n)
{
    loop->ops->random(loop, buf, n);
}

static inline uint64_t pd_loop_random_u64(struct pd_loop *loop)
{
    uint64_t v;
    loop->ops->random(loop, &v, sizeof(v));
    return v;
}

/* Even chance for each value below `bound` (at least 1). */
static inline uint64_t pd_loop_random_below(struct pd_loop *loop, uint64_t bound)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % bound, v;
    do
        v = pd_loop_random_u64(loop);
    while (v >= limit);
    return v % bound;
}

/* ------------------------------------------------------------------------
 * Timers.  Starting and stopping cannot fail and allocates nothing. */

/* Prepares a timer in the caller's memory.  name: static string. */
static inline void pd_timer_init(struct pd_timer *timer, struct pd_loop *loop, const char *name,
                                 pd_timer_cb cb, void *arg)
{
    timer->loop = loop;
    timer->cb = cb;
    timer->arg = arg;
    timer->name = name;
    timer->node.kind = 0;
    timer->node.loop = loop;
    timer->node.child = timer->node.next = timer->node.prev = NULL;
}

/* Calls back once, not before `due` on the loop's clock; moves a started timer.
 * Timers fire in the order of (due, start). */
static inline void pd_timer_start_at(struct pd_timer *timer, pd_time due)
{
    timer->loop->ops->timer_start(timer, due);
}

/* Calls back once, not before delay_ns from this very moment. */
static inline void pd_timer_start(struct pd_timer *timer, pd_time delay_ns)
{
    pd_time t = pd_loop_clock(timer->loop);
    timer->loop->ops->timer_start(timer, delay_ns > UINT64_MAX - t ? UINT64_MAX : t + delay_ns);
}

/* After it the timer does not fire, and its memory may go.  Harmless when idle. */
static inline void pd_timer_stop(struct pd_timer *timer)
{
    if (timer->node.kind != 0)
        timer->loop->ops->timer_stop(timer);
}

/* True from start until just before the callback. */
static inline bool pd_timer_is_active(const struct pd_timer *timer)
{
    return timer->node.kind != 0;
}

/* ------------------------------------------------------------------------
 * Tasks */

static inline void pd_task_init(struct pd_task *task, const char *name, pd_task_cb cb, void *arg)
{
    task->cb = cb;
    task->arg = arg;
    task->name = name;
    task->next = task->prev = NULL;
    task->state = 0;
    task->ran_in = 0;
}

/* Runs the task once on the loop's thread, soon, in the order of posting.
 * Returns false when it is queued already (it then runs once, and sees what the
 * caller wrote before).  Any thread; a simulation has only one. */
static inline bool pd_loop_post(struct pd_loop *loop, struct pd_task *task)
{
    return loop->ops->post(loop, task);
}

/* Runs the task once at the end of this turn; in the next turn when it has run in
 * this one, so that what goes on by itself lets others and new events have
 * theirs.  Harmless when queued already. */
static inline void pd_loop_defer(struct pd_loop *loop, struct pd_task *task)
{
    loop->ops->defer(loop, task);
}

/* Takes a posted or deferred task out again; after it its memory may go, if no
 * other thread may still post it. */
static inline void pd_task_cancel(struct pd_loop *loop, struct pd_task *task)
{
    loop->ops->task_cancel(loop, task);
}

/* ------------------------------------------------------------------------
 * Work */

/* Starts opts->threads threads.  Returns PD_OK, PD_EINVAL, PD_ENOMEM, PD_ELIMIT. */
static inline pd_status pd_workq_create(struct pd_loop *loop, const struct pd_workq_opts *opts,
                                        struct pd_workq **out)
{
    return loop->ops->workq_create(loop, opts, out);
}

/* Cancels what waits (done with PD_ECANCELED), lets run what runs, ends the
 * threads, calls on_closed (may be NULL).  q is gone after that. */
static inline void pd_workq_close(struct pd_loop *loop, struct pd_workq *q,
                                  void (*on_closed)(void *arg), void *arg)
{
    loop->ops->workq_close(loop, q, on_closed, arg);
}

/* Queues work.  PD_OK: done will follow; PD_ELIMIT: queue full; PD_ESTALE: closing. */
static inline pd_status pd_work_submit(struct pd_loop *loop, struct pd_workq *q,
                                       struct pd_work *work)
{
    return loop->ops->work_submit(loop, q, work);
}

/* True when run had not started: done follows with PD_ECANCELED.  False: too
 * late, done follows with PD_OK (or has come). */
static inline bool pd_work_cancel(struct pd_loop *loop, struct pd_work *work)
{
    return loop->ops->work_cancel(loop, work);
}

/* ------------------------------------------------------------------------
 * Streams */

/* Begins a connection to `to`.  PD_OK gives a stream whose on_connected follows;
 * it is the caller's until on_closed.  PD_EINVAL, PD_ENOMEM, PD_ELIMIT (no
 * descriptors), PD_EIO otherwise.  ev and arg are borrowed until on_closed. */
static inline pd_status pd_stream_connect(struct pd_loop *loop, const struct pd_addr *to,
                                          const struct pd_stream_events *ev, void *arg,
                                          struct pd_stream **out)
{
    return loop->ops->connect(loop, to, ev, arg, out);
}

/* Makes a stream of a connected socket (unix or tcp) and takes it, also on
 * failure.  PD_ENOSYS in the simulator. */
static inline pd_status pd_stream_adopt(struct pd_loop *loop, int fd,
                                        const struct pd_stream_events *ev, void *arg,
                                        struct pd_stream **out)
{
    return loop->ops->adopt(loop, fd, ev, arg, out);
}

/* Reads what is there into n (at most 64) buffers.  PD_OK with *got > 0;
 * PD_EAGAIN: on_readable follows; PD_EEOF; PD_EPEER reset; other errors.
 * After an end or error it returns the same again. */
static inline pd_status pd_stream_readv(struct pd_stream *s, const struct pd_iov *iov, size_t n,
                                        size_t *got)
{
    return s->ops->readv(s, iov, n, got);
}

/* Writes what fits now of n (at most 64 are looked at) buffers.  PD_OK with
 * *sent > 0: when less than everything, on_writable follows; PD_EAGAIN:
 * nothing taken, on_writable follows; PD_EPEER and other errors. */
static inline pd_status pd_stream_writev(struct pd_stream *s, const struct pd_iov *iov, size_t n,
                                         size_t *sent)
{
    return s->ops->writev(s, iov, n, sent);
}

static inline pd_status pd_stream_read(struct pd_stream *s, void *buf, size_t n, size_t *got)
{
    struct pd_iov iov;
    iov.base = buf;
    iov.len = n;
    return s->ops->readv(s, &iov, 1, got);
}

static inline pd_status pd_stream_write(struct pd_stream *s, const void *buf, size_t n,
                                        size_t *sent)
{
    struct pd_iov iov;
    iov.base = (void *)(uintptr_t)buf;
    iov.len = n;
    return s->ops->writev(s, &iov, 1, sent);
}

/* No on_readable until resumed; the peer is slowed down once buffers are full. */
static inline void pd_stream_pause_read(struct pd_stream *s) { s->ops->pause_read(s); }
static inline void pd_stream_resume_read(struct pd_stream *s) { s->ops->resume_read(s); }

/* Ends our direction after what was written; reading goes on. */
static inline pd_status pd_stream_shutdown_write(struct pd_stream *s)
{
    return s->ops->shutdown_write(s);
}

/* Ends both directions.  No event but on_closed comes after it; calling it
 * again is harmless until then.  What was written is still delivered, unless
 * bytes that came in were left unread: then the peer gets a reset and may lose
 * the end of what we wrote, so read to the end first where that matters. */
static inline void pd_stream_close(struct pd_stream *s) { s->ops->close(s); }

/* Gives the stream to another owner's handlers. */
static inline void pd_stream_set_events(struct pd_stream *s, const struct pd_stream_events *ev,
                                        void *arg)
{
    s->ops->set_events(s, ev, arg);
}

/* opt: PD_STREAM_...  PD_OK, also where it means nothing (unix, simulator); PD_EINVAL. */
static inline pd_status pd_stream_set_option(struct pd_stream *s, uint32_t opt, uint64_t value)
{
    return s->ops->set_option(s, opt, value);
}

/* PD_OK, or PD_EPEER when the connection is gone. */
static inline pd_status pd_stream_local_addr(struct pd_stream *s, struct pd_addr *out)
{
    return s->ops->local_addr(s, out);
}
static inline pd_status pd_stream_peer_addr(struct pd_stream *s, struct pd_addr *out)
{
    return s->ops->peer_addr(s, out);
}

/* Process and user at the other end of a unix stream; PD_ENOSYS for others. */
static inline pd_status pd_stream_peer_cred(struct pd_stream *s, pid_t *pid, uid_t *uid,
                                            gid_t *gid)
{
    return s->ops->peer_cred(s, pid, uid, gid);
}

/* As writev and readv, with up to 16 descriptors beside the first byte; unix
 * streams only, else PD_ENOSYS.  Descriptors sent stay the caller's; those
 * received become the caller's (close-on-exec).  More than max: the rest are
 * closed and the call returns PD_ELIMIT with what fitted. */
static inline pd_status pd_stream_send_fds(struct pd_stream *s, const struct pd_iov *iov, size_t n,
                                           const int *fds, size_t nfds, size_t *sent)
{
    return s->ops->send_fds(s, iov, n, fds, nfds, sent);
}
static inline pd_status pd_stream_recv_fds(struct pd_stream *s, const struct pd_iov *iov, size_t n,
                                           size_t *got, int *fds, size_t max, size_t *nfds)
{
    return s->ops->recv_fds(s, iov, n, got, fds, max, nfds);
}

/* The descriptor, still the stream's, for socket options; -1: none. */
static inline int pd_stream_fd(struct pd_stream *s) { return s->ops->fd(s); }

/* Listens.  opts may be NULL.  addr with port 0 takes a free port, see pd_listener_addr.
 * A unix path that nobody listens on is replaced.  PD_OK, PD_EINVAL, PD_EBUSY
 * (address in use), PD_EPERM, PD_ENOMEM, PD_ELIMIT, PD_EIO. */
static inline pd_status pd_listener_open(struct pd_loop *loop, const struct pd_addr *addr,
                                         const struct pd_listener_opts *opts,
                                         pd_accept_cb on_accept, void *arg,
                                         struct pd_listener **out)
{
    return loop->ops->listener_open(loop, addr, opts, on_accept, arg, out);
}
static inline pd_status pd_listener_addr(struct pd_loop *loop, struct pd_listener *l,
                                         struct pd_addr *out)
{
    return loop->ops->listener_addr(loop, l, out);
}
/* While paused, connections wait in the backlog. */
static inline void pd_listener_pause(struct pd_loop *loop, struct pd_listener *l, bool paused)
{
    loop->ops->listener_pause(loop, l, paused);
}
/* No on_accept after it; l is gone. */
static inline void pd_listener_close(struct pd_loop *loop, struct pd_listener *l)
{
    loop->ops->listener_close(loop, l);
}

/* ------------------------------------------------------------------------
 * Foreign descriptors, for transports; PD_ENOSYS in the simulator */

/* Calls cb while fd (the caller's) is ready for events, level-triggered. */
static inline pd_status pd_watch_open(struct pd_loop *loop, int fd, uint32_t events,
                                      const char *name, pd_watch_cb cb, void *arg,
                                      struct pd_watch **out)
{
    return loop->ops->watch_open(loop, fd, events, name, cb, arg, out);
}
static inline pd_status pd_watch_set(struct pd_loop *loop, struct pd_watch *w, uint32_t events)
{
    return loop->ops->watch_set(loop, w, events);
}
/* No cb after it; w is gone, fd may be closed at once. */
static inline void pd_watch_close(struct pd_loop *loop, struct pd_watch *w)
{
    loop->ops->watch_close(loop, w);
}

/* ------------------------------------------------------------------------
 * Names and addresses */

/* Looks host up (name or numeric address, zero-terminated) and calls r->cb
 * later.  r: cb, arg, name set by the caller, rest zero.  PD_OK, PD_EINVAL,
 * PD_ENOMEM, PD_ELIMIT (too many at a time). */
static inline pd_status pd_resolve_start(struct pd_loop *loop, const char *host, uint16_t port,
                                         struct pd_resolve *r)
{
    return loop->ops->resolve(loop, host, port, r);
}
/* No callback after it; r's memory may go.  Harmless when idle. */
static inline void pd_resolve_cancel(struct pd_loop *loop, struct pd_resolve *r)
{
    loop->ops->resolve_cancel(loop, r);
}

/* Reads "127.0.0.1:80", "[::1]:80" or "unix:/path" (no names).  PD_OK or
 * PD_EINVAL.  Any thread. */
static inline pd_status pd_addr_parse(struct pd_loop *loop, struct pd_str text,
                                      struct pd_addr *out)
{
    return loop->ops->addr_parse(text, out);
}
/* Writes the same form with a final zero byte (cut when size is below
 * PD_ADDR_TEXT); returns its length without it.  Any thread. */
static inline size_t pd_addr_format(struct pd_loop *loop, const struct pd_addr *addr, char *buf,
                                    size_t size)
{
    return loop->ops->addr_format(addr, buf, size);
}

/* Same family, bytes and port (or path). */
static inline bool pd_addr_equal(const struct pd_addr *a, const struct pd_addr *b)
{
    size_t i;
    if (a->family != b->family)
        return false;
    if (a->family == PD_AF_UNIX) {
        for (i = 0; i < sizeof(a->path); i++) {
            if (a->path[i] != b->path[i])
                return false;
            if (a->path[i] == '\0')
                return true;
        }
        return true;
    }
    for (i = 0; i < (a->family == PD_AF_IPV4 ? 4u : 16u); i++)
        if (a->ip[i] != b->ip[i])
            return false;
    return a->port == b->port && a->scope == b->scope;
}

/* ------------------------------------------------------------------------
 * The loop itself */

static inline void pd_loop_stats_get(struct pd_loop *loop, struct pd_loop_stats *out)
{
    loop->ops->stats(loop, out, sizeof(*out));
}

/* Adds a line to the simulator's event log, where it takes part in the run's
 * hash; nothing elsewhere.  Zero-terminated, borrowed. */
static inline void pd_loop_note(struct pd_loop *loop, const char *line)
{
    loop->ops->note(loop, line);
}

/* Owner of the loop only: runs until pd_loop_stop.  PD_ENOSYS in the
 * simulator, which runs all its loops itself. */
static inline pd_status pd_loop_run(struct pd_loop *loop) { return loop->ops->run(loop); }

/* Ends pd_loop_run at the end of its turn.  Any thread. */
static inline void pd_loop_stop(struct pd_loop *loop) { loop->ops->stop(loop); }

/* Owner of the loop only: ends what was closed, then frees the loop.  PD_EBUSY
 * when handles are open: the loop stays, and their names are in `names`
 * ("stream http, timer heartbeat"; may be NULL). */
static inline pd_status pd_loop_destroy(struct pd_loop *loop, char *names, size_t size)
{
    return loop->ops->destroy(loop, names, size);
}

#ifdef __cplusplus
}
#endif
#endif
