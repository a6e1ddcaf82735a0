/* SPDX-License-Identifier: Apache-2.0 */
/* The manager: opens the listening sockets and the pid file, starts a worker by
 * exec, and starts it again when it dies.  It loads no module and serves
 * nothing, so that nothing that happens in a worker reaches it.
 *
 *   SIGHUP            the worker takes the configuration on disk into use; it
 *                     gives the manager the sockets that are new
 *   SIGUSR2           a new worker (of the program and the configuration as they
 *                     are on disk now) takes the sockets; once it serves, the
 *                     old one ends its requests.  When it does not come up, the
 *                     old one goes on and nothing has changed.
 *   SIGQUIT           drain, then end
 *   SIGTERM, SIGINT   end
 *
 * Sockets stay open from the first worker to the last, so no connection is
 * refused meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "loop/addr.h"
#include "loop/hand.h"
#include "loop/service.h"
#include "main/handed.h"
#include "main/main.h"
#include "log/log.h"
#include "node/sections.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/pidfile.h"
#include "os/priv.h"
#include "os/process.h"
#include "os/signal.h"

#define RESTART_MIN (50 * PD_MS)
#define RESTART_MAX (10 * PD_SEC)
#define STEADY (10 * PD_SEC)           /* a worker that ran so long was no crash loop */
#define WORKERS_MAX 8u

struct worker {
    pid_t pid;                         /* 0: free */
    pd_time started_at;
    bool is_ready;
    bool is_ending;                    /* was told to end */
    int told;                          /* the last signal it was told so with */
    int news;                          /* what it tells; -1: nothing more */
    struct pd_watch *watch;
    struct manager *manager;
};

struct manager {
    const struct pd_main_options *options;
    char program[1024];
    char **argv;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_pidfile *pidfile;
    struct pd_handed handed;           /* sockets that workers inherit */
    size_t n_given;                    /* of them, opened by a service manager */
    struct worker workers[WORKERS_MAX];
    struct worker *current;            /* that serves, or is about to be the only one */
    struct worker *next;               /* that shall replace it */
    struct pd_timer restart;
    pd_time backoff;
    struct pd_loop_signal *signals[6];
    bool has_served;                   /* a worker of this manager once did */
    bool is_stopping;
    int rc;
};

static void worker_start(struct manager *m, bool replaces);

/* ---- configuration, as far as a manager reads it ---------------------------------- */

static void sockets_close(struct manager *m)
{
    for (size_t i = 0; i < m->handed.n_sockets; i++) {
        close(m->handed.sockets[i].fd);
        if (i >= m->n_given && m->handed.sockets[i].addr.family == PD_AF_UNIX)
            unlink(m->handed.sockets[i].addr.path);
    }
}

static struct pd_conf *early_read(struct manager *m, struct pd_node_early *early)
{
    struct pd_conf_source src = { .prefix = m->options->prefix };
    struct pd_conf_report report;
    struct pd_conf *conf = NULL;
    pd_conf_report_init(&report);
    if (pd_node_conf_early(m->options->file, &src, &report, early, &conf) != PD_OK) {
        pd_conf_report_print(&report, stderr);
        conf = NULL;
    }
    pd_conf_report_fini(&report);
    return conf;
}

/* ---- workers ------------------------------------------------------------------------ */

static void worker_end(struct manager *m, struct worker *w, int number)
{
    if (w == NULL || w->pid == 0)
        return;
    w->is_ending = true;
    w->told = number;
    if (pd_process_kill(w->pid, number) != PD_OK)
        pd_log_warn(m->log, "worker %lld cannot be signalled", (long long)w->pid);
}

static void news_close(struct worker *w)
{
    if (w->news < 0)
        return;
    pd_watch_close(w->manager->loop, w->watch);
    close(w->news);
    w->news = -1;
}

static void worker_serves(struct manager *m, struct worker *w)
{
    w->is_ready = true;
    m->has_served = true;
    pd_log_notice(m->log, "worker %lld serves", (long long)w->pid);
    pd_service_notify("READY=1\nSTATUS=serving");
    if (w != m->next)
        return;
    struct worker *old = m->current;
    m->current = w;
    m->next = NULL;
    if (old != NULL) {
        /* First no new connections, then the end of what is open. */
        pd_log_notice(m->log, "worker %lld ends its requests", (long long)old->pid);
        worker_end(m, old, SIGWINCH);
        worker_end(m, old, SIGQUIT);
    }
}

/* A socket that the worker has opened, for those that come after it. */
static void socket_take(struct manager *m, const char *address, int fd)
{
    struct pd_addr addr;
    bool is_known = fd < 0 || m->handed.n_sockets == PD_HANDED_MAX ||
                    pd_loop_addr_parse(pd_str_from(address), &addr) != PD_OK;
    for (size_t i = 0; i < m->handed.n_sockets && !is_known; i++)
        is_known = pd_addr_equal(&m->handed.sockets[i].addr, &addr);
    if (is_known || pd_fd_set_cloexec(fd, false) != PD_OK) {
        pd_fd_close(&fd);
        return;
    }
    m->handed.sockets[m->handed.n_sockets++] = (struct pd_loop_uv_socket){ .addr = addr, .fd = fd };
    pd_log_notice(m->log, "socket %s is kept", address);
}

static void socket_drop(struct manager *m, const char *address)
{
    struct pd_addr addr;
    if (pd_loop_addr_parse(pd_str_from(address), &addr) != PD_OK)
        return;
    for (size_t i = m->n_given; i < m->handed.n_sockets; i++) {
        struct pd_loop_uv_socket *s = &m->handed.sockets[i];
        if (!pd_addr_equal(&s->addr, &addr))
            continue;
        close(s->fd);
        if (addr.family == PD_AF_UNIX)
            unlink(addr.path);
        *s = m->handed.sockets[--m->handed.n_sockets];
        pd_log_notice(m->log, "socket %s is closed", address);
        return;
    }
}

static void worker_told(struct manager *m, struct worker *w, const char *text, int fd)
{
    if (strcmp(text, "ready") == 0) {
        worker_serves(m, w);
    } else if (w == m->current && strncmp(text, "open ", 5) == 0) {
        socket_take(m, text + 5, fd);
        return;
    } else if (w == m->current && strncmp(text, "close ", 6) == 0) {
        socket_drop(m, text + 6);
    } else if (strcmp(text, "reloaded") == 0) {
        pd_service_notify("READY=1\nSTATUS=serving");
    } else if (strncmp(text, "refused ", 8) == 0) {
        pd_service_notify("READY=1\nSTATUS=serving; the last reload was refused, see the log");
    }
    pd_fd_close(&fd);
}

static void on_news(struct pd_watch *watch, uint32_t events, void *arg)
{
    struct worker *w = arg;
    char text[PD_HAND_MAX + 1];
    pd_status status;
    int fd;
    (void)watch;
    (void)events;
    while ((status = pd_hand_receive(w->news, text, &fd)) == PD_OK)
        worker_told(w->manager, w, text, fd);
    if (status != PD_EAGAIN)
        news_close(w); /* it ends; its exit is told by a signal */
}

static void restart_timer(struct pd_timer *timer, void *arg)
{
    struct manager *m = arg;
    (void)timer;
    if (!m->is_stopping && m->current == NULL)
        worker_start(m, false);
}

static void worker_start(struct manager *m, bool replaces)
{
    char sockets[8192] = PD_HANDED_SOCKETS "=", ready[64], replace[64];
    const char *extra[] = { sockets, ready, replace, NULL };
    struct worker *w = NULL;
    int ends[2];
    size_t at = strlen(sockets);
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (m->workers[i].pid == 0)
            w = &m->workers[i];
    }
    if (w == NULL) {
        pd_log_error(m->log, "%u workers still end their requests, no new one is started", WORKERS_MAX);
        return;
    }
    for (size_t i = 0; i < m->handed.n_sockets; i++) {
        char text[PD_ADDR_TEXT];
        pd_loop_addr_format(&m->handed.sockets[i].addr, text, sizeof text);
        at += (size_t)snprintf(sockets + at, sizeof sockets - at, "%s%d=%s", i > 0 ? "," : "",
                               m->handed.sockets[i].fd, text);
    }
    pd_status status = pd_hand_pair(ends);
    if (status != PD_OK) {
        pd_log_error(m->log, "cannot make a pair of sockets: %s", pd_status_text(status));
        pd_timer_start(&m->restart, RESTART_MAX);
        return;
    }
    snprintf(ready, sizeof ready, PD_HANDED_READY "=%d", ends[1]);
    snprintf(replace, sizeof replace, PD_HANDED_REPLACES "=%d", replaces ? 1 : 0);
    *w = (struct worker){ .manager = m, .started_at = pd_loop_clock(m->loop), .news = ends[0] };
    status = pd_process_spawn(m->program, m->argv, extra, &w->pid);
    close(ends[1]);
    if (status == PD_OK)
        status = pd_watch_open(m->loop, w->news, PD_WATCH_READ, "worker news", on_news, w, &w->watch);
    if (status != PD_OK) {
        pd_log_error(m->log, "cannot start a worker: %s", pd_status_text(status));
        pd_fd_close(&w->news);
        w->pid = 0;
        pd_timer_start(&m->restart, RESTART_MAX);
        return;
    }
    if (replaces)
        m->next = w;
    else
        m->current = w;
}

static bool any_worker(const struct manager *m)
{
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (m->workers[i].pid != 0)
            return true;
    }
    return false;
}

static void finish(struct manager *m)
{
    for (size_t i = 0; i < sizeof m->signals / sizeof m->signals[0]; i++) {
        if (m->signals[i] != NULL)
            pd_loop_uv_signal_close(m->signals[i]);
    }
    pd_timer_stop(&m->restart);
    pd_loop_stop(m->loop);
}

static void current_gone(struct manager *m, const struct worker *w, int status)
{
    m->current = NULL;
    if (m->next != NULL) {
        m->current = m->next; /* it was about to take over anyhow */
        m->next = NULL;
        return;
    }
    if (!m->has_served && WIFEXITED(status)) {
        /* It said itself why it cannot run; trying again would not help.  A node
         * that has served is not given up so: what is wrong may be mended. */
        m->rc = WEXITSTATUS(status);
        m->is_stopping = true;
        return;
    }
    if (pd_loop_clock(m->loop) - w->started_at > STEADY)
        m->backoff = 0;
    pd_log_notice(m->log, "starting the worker again in %.2f s", (double)m->backoff / 1e9);
    pd_timer_start(&m->restart, m->backoff);
    m->backoff = m->backoff == 0 ? RESTART_MIN : m->backoff * 2;
    if (m->backoff > RESTART_MAX)
        m->backoff = RESTART_MAX;
}

static void worker_gone(struct manager *m, struct worker *w, int status)
{
    char text[64];
    bool is_expected = w->is_ending || m->is_stopping;
    if (w->news >= 0)
        on_news(w->watch, 0, w); /* what it said before */
    pd_process_status_text(status, text, sizeof text);
    /* One that was still starting has no handler for what it is told. */
    bool is_clean = (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
                    (!w->is_ready && WIFSIGNALED(status) && WTERMSIG(status) == w->told);
    if (is_expected && is_clean)
        pd_log_notice(m->log, "worker %lld has ended", (long long)w->pid);
    else
        pd_log_error(m->log, "worker %lld ended with %s", (long long)w->pid, text);
    news_close(w);
    w->pid = 0;
    if (w == m->next) {
        m->next = NULL;
        pd_log_error(m->log, "the new worker did not come up; nothing has changed");
        pd_service_notify("READY=1\nSTATUS=serving; the last upgrade was refused, see the log");
    } else if (w == m->current) {
        if (w->is_ending && !m->is_stopping) {
            m->is_stopping = true; /* drained by a signal or by pdctl */
        } else if (!m->is_stopping && w->is_ready && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            m->is_stopping = true; /* ended by pdctl */
        }
        if (m->is_stopping)
            m->current = NULL;
        else
            current_gone(m, w, status);
    }
}

static void reap(struct manager *m)
{
    pid_t pid;
    int status;
    while (pd_process_reap(&pid, &status) == PD_OK) {
        for (uint32_t i = 0; i < WORKERS_MAX; i++) {
            if (m->workers[i].pid == pid)
                worker_gone(m, &m->workers[i], status);
        }
    }
    if (m->is_stopping && !any_worker(m))
        finish(m);
}

/* ---- signals ------------------------------------------------------------------------ */

static void replace(struct manager *m)
{
    struct pd_node_early early;
    struct pd_err err = { 0 };
    if (m->is_stopping || m->next != NULL || m->current == NULL || !m->current->is_ready) {
        pd_log_warn(m->log, "not now: a worker is starting or the node is ending");
        return;
    }
    struct pd_conf *conf = early_read(m, &early);
    pd_status status = conf == NULL ? PD_EINVAL : pd_handed_claim(&m->handed, &early.listen, early.control, &err);
    pd_conf_put(conf);
    if (status != PD_OK) {
        pd_log_error(m->log, "the configuration is not taken into use: %s",
                     conf == NULL ? "it cannot be read" : err.text);
        return;
    }
    pd_service_notify("RELOADING=1");
    worker_start(m, true);
}

static void reload(struct manager *m)
{
    if (m->is_stopping || m->next != NULL || m->current == NULL || !m->current->is_ready) {
        pd_log_warn(m->log, "not now: a worker is starting or the node is ending");
        return;
    }
    pd_service_notify("RELOADING=1");
    if (pd_process_kill(m->current->pid, SIGHUP) != PD_OK)
        pd_log_warn(m->log, "worker %lld cannot be signalled", (long long)m->current->pid);
}

static void on_signal(int signum, void *arg)
{
    struct manager *m = arg;
    switch (signum) {
    case SIGCHLD:
        reap(m);
        return;
    case SIGHUP:
        reload(m);
        return;
    case SIGUSR2:
        pd_log_notice(m->log, "signal %s: starting a new worker", pd_signal_name(signum));
        replace(m);
        return;
    case SIGUSR1:
        pd_log_reopen(m->log, NULL);
        for (uint32_t i = 0; i < WORKERS_MAX; i++) {
            if (m->workers[i].pid != 0)
                pd_process_kill(m->workers[i].pid, SIGUSR1);
        }
        return;
    default:
        break;
    }
    pd_log_notice(m->log, "signal %s", pd_signal_name(signum));
    pd_service_notify("STOPPING=1");
    m->is_stopping = true;
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (m->workers[i].pid != 0 && (signum != SIGQUIT || !m->workers[i].is_ending))
            worker_end(m, &m->workers[i], signum == SIGQUIT ? SIGQUIT : SIGTERM);
    }
    if (!any_worker(m))
        finish(m);
}

static uint64_t wall_now(void *arg)
{
    return pd_loop_wall(arg);
}

/* Before the first worker, so that none of them was ever more. */
static pd_status rights_drop(const struct pd_priv *priv, const struct pd_node_early *early,
                             struct pd_err *err)
{
    pd_status status = early->log.file == NULL ? PD_OK : pd_priv_give(priv, early->log.file, err);
    if (status == PD_OK && early->control != NULL)
        status = pd_priv_give(priv, early->control, err);
    return status == PD_OK ? pd_priv_drop(priv, err) : status;
}

static pd_status manager_start(struct manager *m, struct pd_node_early *early, struct pd_err *err)
{
    static const int numbers[] = { SIGCHLD, SIGHUP, SIGUSR2, SIGUSR1, SIGTERM, SIGQUIT };
    struct pd_loop_uv_opts opts = { .name = "manager" };
    pd_status status = pd_process_self(m->program, sizeof m->program);
    if (status == PD_OK)
        status = pd_loop_uv_create(&opts, &m->loop);
    if (status != PD_OK)
        return pd_err_set(err, status, "the manager cannot start: %s", pd_status_text(status));
    pd_timer_init(&m->restart, m->loop, "worker restart", restart_timer, m);
    struct pd_log_config log = {
        .sink = early->log.file != NULL ? PD_LOG_FILE : PD_LOG_STDERR, .path = early->log.file,
        .is_json = early->log.format == PD_LOG_JSON, .level = (int32_t)early->log.level,
        .wall_ns = wall_now, .wall_arg = m->loop, .pid = (uint32_t)getpid(),
    };
    if ((status = pd_log_create(&log, err, &m->log)) != PD_OK)
        return status;
    if (early->pid_file != NULL && ((status = pd_file_parent_make(early->pid_file, err)) != PD_OK ||
                                    (status = pd_pidfile_open(early->pid_file, err, &m->pidfile)) != PD_OK))
        return status;
    status = pd_service_sockets(m->handed.sockets, PD_HANDED_MAX, &m->n_given);
    if (status != PD_OK)
        return pd_err_set(err, status, "LISTEN_PID or LISTEN_FDS is malformed");
    m->handed.n_sockets = m->n_given;
    struct pd_priv priv;
    if ((status = pd_handed_claim(&m->handed, &early->listen, early->control, err)) != PD_OK ||
        (status = pd_priv_find(early->user, early->group, &priv, err)) != PD_OK ||
        (status = rights_drop(&priv, early, err)) != PD_OK)
        return status;
    pd_signal_ignore(SIGPIPE);
    pd_signal_ignore(SIGXFSZ);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && status == PD_OK; i++)
        status = pd_loop_uv_signal_open(m->loop, numbers[i], "signal", on_signal, m, &m->signals[i]);
    return status == PD_OK ? PD_OK : pd_err_set(err, status, "cannot watch signals");
}

int pd_main_manage(const struct pd_main_options *o, char **argv)
{
    struct manager m;
    struct pd_node_early early;
    struct pd_err err = { 0 };
    struct pd_loop_signal *interrupt = NULL;
    memset(&m, 0, sizeof m);
    m.options = o;
    m.argv = argv;
    for (uint32_t i = 0; i < WORKERS_MAX; i++)
        m.workers[i].news = -1;
    struct pd_conf *conf = early_read(&m, &early);
    if (conf == NULL)
        return PD_EXIT_CONF;
    pd_status status = manager_start(&m, &early, &err);
    pd_conf_put(conf);
    if (status == PD_OK)
        status = pd_loop_uv_signal_open(m.loop, SIGINT, "signal", on_signal, &m, &interrupt);
    if (status == PD_OK) {
        worker_start(&m, false);
        pd_loop_run(m.loop);
    } else {
        fprintf(stderr, "error: %s\n", err.text);
        m.rc = PD_EXIT_CONF;
        if (m.loop != NULL)
            finish(&m);
    }
    if (interrupt != NULL)
        pd_loop_uv_signal_close(interrupt);
    if (m.log != NULL)
        pd_log_destroy(m.log);
    if (m.loop != NULL)
        pd_loop_destroy(m.loop, NULL, 0);
    sockets_close(&m);
    pd_pidfile_close(m.pidfile);
    return m.rc;
}
