/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a node until it is told to stop: loop, log, signals, the node itself.
 * SIGTERM and SIGINT stop at once (open requests end with an honest error),
 * SIGQUIT drains first, SIGWINCH accepts no more connections, SIGUSR1 opens the
 * log file again, SIGHUP takes the configuration on disk into use.  SIGUSR2 is
 * for the manager; here it is refused in the log, because by default it would
 * end the node. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/status.h"
#include "base/str.h"
#include "ctl/ctl.h"
#include "loop/service.h"
#include "loop/uv.h"
#include "main/handed.h"
#include "main/main.h"
#include "node/node.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/pidfile.h"
#include "os/priv.h"
#include "os/proc.h"
#include "os/process.h"
#include "os/signal.h"

#define MODULES_TRY_MS 5000u

static const int numbers[] = { SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGHUP, SIGUSR2, SIGWINCH };

struct run {
    const struct pd_main_options *options;
    struct pd_mods *mods;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_node *node;
    struct pd_ctl *ctl;
    struct pd_pidfile *pidfile;
    struct pd_timer drain_timer;
    struct pd_loop_signal *signals[PD_ARRAY_LEN(numbers)];
    struct pd_handed handed;
    bool is_managed;
    uint32_t level;            /* of the log, as last configured */
    uint64_t drain_ns;
    bool is_stopping;
    int rc;
};

static void err_print(const struct pd_err *err)
{
    if (err->file[0] != '\0' && err->line != 0)
        fprintf(stderr, "%s:%u: ", err->file, err->line);
    else if (err->file[0] != '\0')
        fprintf(stderr, "%s: ", err->file);
    fprintf(stderr, "error: %s\n", err->text);
    if (err->hint[0] != '\0')
        fprintf(stderr, "  hint: %s\n", err->hint);
}

static void node_closed(void *arg)
{
    struct run *run = arg;
    run->node = NULL;
    pd_loop_stop(run->loop);
}

static void ctl_closed(void *arg)
{
    struct run *run = arg;
    run->ctl = NULL;
    if (run->node != NULL)
        pd_node_destroy(run->node, node_closed, run);
    else
        pd_loop_stop(run->loop);
}

static void stop(struct run *run)
{
    if (run->is_stopping)
        return;
    run->is_stopping = true;
    if (!run->is_managed)
        pd_service_notify("STOPPING=1");
    pd_timer_stop(&run->drain_timer);
    for (size_t i = 0; i < PD_ARRAY_LEN(numbers); i++) {
        if (run->signals[i] != NULL)
            pd_loop_uv_signal_close(run->signals[i]);
        /* What comes now is late: it must not end the process in the middle of its
         * end.  Who runs a node without a manager can still hurry it twice. */
        if (run->is_managed || (numbers[i] != SIGTERM && numbers[i] != SIGINT))
            pd_signal_ignore(numbers[i]);
    }
    if (run->ctl != NULL)
        pd_ctl_destroy(run->ctl, ctl_closed, run);
    else
        ctl_closed(run);
}

static void drained(void *arg)
{
    stop(arg);
}

static void drain_timeout(struct pd_timer *timer, void *arg)
{
    struct run *run = arg;
    (void)timer;
    pd_log_warn(run->log, "drain time is over, what is open ends now");
    stop(run);
}

static void drain(struct run *run)
{
    if (run->is_stopping || run->node->is_draining)
        return;
    pd_timer_start(&run->drain_timer, run->drain_ns);
    pd_node_drain(run->node, drained, run);
}

/* Code that never ran here runs in a process of its own first, so that a module
 * that crashes or hangs while it is loaded costs nobody.  What else is wrong is
 * told when the configuration is read. */
static pd_status modules_try(struct run *run, struct pd_conf *conf, struct pd_err *err)
{
    const struct pd_main_options *o = run->options;
    const char *words[] = { "pdplane", "-q", "-t", "-c", o->file, o->prefix != NULL ? "-p" : NULL, o->prefix,
                            NULL };
    char *argv[sizeof words / sizeof words[0]];
    char program[1024], text[64];
    int ended = 0;
    if (!pd_node_conf_wants_new(conf, run->mods))
        return PD_OK;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        argv[i] = (char *)(uintptr_t)words[i];
    pd_status status = pd_process_self(program, sizeof program);
    if (status == PD_OK)
        status = pd_process_run(program, argv, MODULES_TRY_MS, &ended);
    if (status == PD_OK && WIFEXITED(ended))
        return PD_OK;
    snprintf(err->file, sizeof err->file, "%s", o->file);
    pd_process_status_text(ended, text, sizeof text);
    pd_err_set(err, status == PD_OK ? PD_EINVAL : status, "loading its new modules in a process of its own %s%s",
               status == PD_OK ? "ended with " : "did not work: ",
               status == PD_OK ? text : pd_status_text(status));
    pd_err_hint(err, "leave out of load what is new, one after the other, to find the broken one");
    return err->status;
}

/* Reads the configuration on disk.  NULL: err is the first thing that is wrong,
 * the log has all of it. */
static struct pd_conf *conf_read(struct run *run, struct pd_err *err)
{
    struct pd_conf_source src = { .prefix = run->options->prefix };
    struct pd_conf_report report;
    struct pd_conf *conf = NULL;
    pd_conf_report_init(&report);
    pd_status status = pd_conf_open(run->options->file, &src, &report, &conf);
    if (status == PD_OK && modules_try(run, conf, err) != PD_OK) {
        pd_conf_put(conf);
        pd_conf_report_fini(&report);
        return NULL;
    }
    if (status == PD_OK)
        status = pd_node_conf_complete(conf, run->mods, &report, &conf);
    if (status != PD_OK) {
        conf = NULL;
        if (report.n_errors > 0)
            *err = report.errors[0];
        else
            pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < report.n_warnings; i++)
        pd_log_warn(run->log, "%s:%u: %s", report.warnings[i].file, report.warnings[i].line,
                    report.warnings[i].text);
    for (uint32_t i = 1; i < report.n_errors; i++)
        pd_log_error(run->log, "%s:%u: %s", report.errors[i].file, report.errors[i].line,
                     report.errors[i].text);
    pd_conf_report_fini(&report);
    return conf;
}

/* Settings that are the process's. */
static pd_status settings_check(const struct run *run, const struct pd_node_conf *a,
                                const struct pd_node_conf *b, struct pd_err *err)
{
    const char *what = NULL;
    if ((a->pid_file == NULL) != (b->pid_file == NULL) ||
        (a->pid_file != NULL && strcmp(a->pid_file, b->pid_file) != 0))
        what = "pid_file";
    else if (a->log.format != b->log.format || (a->log.file == NULL) != (b->log.file == NULL) ||
             (a->log.file != NULL && strcmp(a->log.file, b->log.file) != 0))
        what = "log.file or log.format";
    if (what == NULL)
        return PD_OK;
    pd_err_set(err, PD_EINVAL, "%s cannot change while the process runs", what);
    pd_err_hint(err, "stop the node and start it again");
    snprintf(err->file, sizeof err->file, "%s", run->options->file);
    return PD_EINVAL;
}

static void settings_use(struct run *run, const struct pd_node_conf *c)
{
    run->drain_ns = c->drain;
    if (run->level == c->log.level)
        return; /* pdctl may have set another one since */
    run->level = c->log.level;
    if (pd_log_set_level(run->log, "", (int32_t)c->log.level) != PD_OK)
        pd_log_warn(run->log, "the log level cannot be set");
}

static pd_status reload(struct run *run, struct pd_err *err)
{
    struct pd_conf *conf = NULL;
    pd_status status;
    if (run->is_stopping)
        return pd_err_set(err, PD_EBUSY, "the node is ending");
    pd_handed_reloading(&run->handed);
    if ((conf = conf_read(run, err)) == NULL ||
        (status = settings_check(run, run->node->root, pd_conf_root(conf), err)) != PD_OK) {
        status = err->status != PD_OK ? err->status : PD_EINVAL;
        pd_node_reload_refused(run->node, err);
    } else {
        pd_handed_open(&run->handed, run->loop, pd_conf_root(conf));
        status = pd_node_reload(run->node, conf, err);
        if (status == PD_OK) {
            pd_handed_keep(&run->handed, run->loop, pd_conf_root(conf));
            settings_use(run, pd_conf_root(conf));
        } else {
            pd_handed_forget(&run->handed, run->loop);
        }
    }
    pd_conf_put(conf);
    if (status == PD_OK)
        pd_handed_reloaded(&run->handed);
    else
        pd_handed_refused(&run->handed, err->text);
    return status;
}

static void on_signal(int signum, void *arg)
{
    struct run *run = arg;
    struct pd_err err = { 0 };
    if (signum == SIGUSR1) {
        if (pd_log_reopen(run->log, &err) != PD_OK)
            pd_log_error(run->log, "%s", err.text);
        return;
    }
    if (signum == SIGUSR2) {
        pd_log_warn(run->log, "signal %s: only a manager can start a new worker, and this node runs without",
                    pd_signal_name(signum));
        return;
    }
    pd_log_notice(run->log, "signal %s", pd_signal_name(signum));
    if (signum == SIGHUP)
        (void)reload(run, &err); /* the log has it */
    else if (signum == SIGWINCH)
        pd_loop_uv_stop_accepting(run->loop);
    else if (signum == SIGQUIT)
        drain(run);
    else
        stop(run);
}

static pd_status on_reload(void *arg, struct pd_err *err)
{
    return reload(arg, err);
}

static void on_drain(void *arg)
{
    drain(arg);
}

static void on_stop(void *arg)
{
    stop(arg);
}

static uint64_t wall_now(void *arg)
{
    return pd_loop_wall(arg);
}

static void on_slow(void *arg, const char *handler, pd_time handler_ns, pd_time turn_ns)
{
    struct run *run = arg;
    pd_log_warn(run->log, "a turn of the loop took %.0f ms, of which \"%s\" %.0f ms", (double)turn_ns / 1e6,
                handler, (double)handler_ns / 1e6);
}

/* Machine and boot, so that two nodes know whether they share memory. */
static void host_id_get(char *out, size_t size)
{
    struct pd_buf boot;
    char name[64] = "";
    pd_buf_init(&boot, 256);
    pd_proc_hostname(name, sizeof name);
    if (pd_file_read("/proc/sys/kernel/random/boot_id", 128, &boot, NULL) == PD_OK) {
        struct pd_str id = pd_str_trim(pd_buf_str(&boot));
        snprintf(out, size, "%.*s", PD_STR_ARG(id));
    } else {
        out[0] = '\0';
    }
    pd_buf_fini(&boot);
}

static pd_status signals_open(struct run *run)
{
    pd_signal_ignore(SIGPIPE);
    pd_signal_ignore(SIGXFSZ); /* a log that may not grow is no reason to end */
    for (size_t i = 0; i < PD_ARRAY_LEN(numbers); i++) {
        pd_status status = pd_loop_uv_signal_open(run->loop, numbers[i], "signal", on_signal, run,
                                                  &run->signals[i]);
        if (status != PD_OK)
            return status;
    }
    return PD_OK;
}

static pd_status ctl_open(struct run *run, const struct pd_node_conf *root, struct pd_err *err)
{
    if (root->control == NULL)
        return PD_OK;
    pd_status status = pd_file_parent_make(root->control, err);
    if (status != PD_OK)
        return status;
    struct pd_ctl_params params = { .loop = run->loop, .log = run->log, .node = run->node,
                                    .path = root->control, .on_reload = on_reload, .on_drain = on_drain,
                                    .on_stop = on_stop,
                                    .arg = run };
    return pd_ctl_create(&params, &run->ctl, err);
}

/* Files that are to be written later belong to who the process becomes. */
static pd_status rights_drop(const struct pd_priv *priv, const struct pd_node_conf *root,
                             struct pd_err *err)
{
    pd_status status = PD_OK;
    char id[1024];
    if (pd_priv_is_due(priv) && root->node.state != NULL &&
        (status = pd_file_mkdir(root->node.state, 0750, err)) == PD_OK &&
        (status = pd_priv_give(priv, root->node.state, err)) == PD_OK) {
        snprintf(id, sizeof id, "%s/node.id", root->node.state);
        status = pd_priv_give(priv, id, err);
    }
    if (status == PD_OK && root->log.file != NULL)
        status = pd_priv_give(priv, root->log.file, err);
    if (status == PD_OK && root->control != NULL)
        status = pd_priv_give(priv, root->control, err);
    if (status == PD_OK)
        status = pd_priv_drop(priv, err);
    /* The tool that looks for leaks traces the process. */
#ifndef __SANITIZE_ADDRESS__
    if (status == PD_OK && !root->core_files)
        pd_priv_no_cores();
#endif
    return status;
}

static void on_listening(void *arg, pd_status status, const struct pd_err *err)
{
    struct run *run = arg;
    if (status == PD_OK) {
        pd_handed_ready(&run->handed);
        return;
    }
    pd_log_error(run->log, "%s", err->text);
    run->rc = PD_EXIT_CONF;
    stop(run);
}

static pd_status start(struct run *run, struct pd_conf *conf, struct pd_err *err)
{
    const struct pd_node_conf *root = pd_conf_root(conf);
    pd_status status = pd_handed_read(&run->handed);
    if (status != PD_OK)
        return pd_err_set(err, status, "what the manager handed over is not understood");
    run->is_managed = run->handed.manager >= 0;
    struct pd_priv priv;
    if ((status = pd_priv_find(root->user, root->group, &priv, err)) != PD_OK)
        return status;
    /* Who will not be root any more opens first what only root may. */
    if (pd_priv_is_due(&priv) &&
        (status = pd_handed_claim(&run->handed, &root->listen, root->control, err)) != PD_OK)
        return status;
    for (size_t i = run->handed.n_kept; i < run->handed.n_sockets; i++)
        pd_fd_set_cloexec(run->handed.sockets[i].fd, true);
    struct pd_loop_uv_opts opts = { .name = "main", .on_slow = on_slow, .arg = run,
                                    .sockets = run->handed.sockets,
                                    .n_sockets = run->handed.n_sockets };
    char host[64] = "node", host_id[64];
    status = pd_loop_uv_create(&opts, &run->loop);
    if (status != PD_OK)
        return pd_err_set(err, status, "cannot make an event loop: %s", pd_status_text(status));
    struct pd_log_config log = {
        .sink = root->log.file != NULL ? PD_LOG_FILE : PD_LOG_STDERR, .path = root->log.file,
        .is_json = root->log.format == PD_LOG_JSON, .level = (int32_t)root->log.level,
        .wall_ns = wall_now, .wall_arg = run->loop, .pid = (uint32_t)getpid(), .rate_lines = 100,
    };
    if ((status = pd_log_create(&log, err, &run->log)) != PD_OK)
        return status;
    /* Under a manager the file is the manager's. */
    if (root->pid_file != NULL && !run->is_managed &&
        ((status = pd_file_parent_make(root->pid_file, err)) != PD_OK ||
         (status = pd_pidfile_open(root->pid_file, err, &run->pidfile)) != PD_OK))
        return status;
    if ((status = rights_drop(&priv, root, err)) != PD_OK)
        return status;
    pd_timer_init(&run->drain_timer, run->loop, "drain", drain_timeout, run);
    run->drain_ns = root->drain;
    run->level = root->log.level;
    pd_proc_hostname(host, sizeof host);
    host_id_get(host_id, sizeof host_id);
    struct pd_node_params params = { .loop = run->loop, .log = run->log, .mods = run->mods, .conf = conf,
                                     .name = host, .host_id = host_id,
                                     .is_second = run->handed.replaces,
                                     .on_listening = on_listening, .arg = run };
    if ((status = pd_node_create(&params, &run->node, err)) != PD_OK ||
        (status = ctl_open(run, root, err)) != PD_OK || (status = pd_node_start(run->node, err)) != PD_OK)
        return status;
    if (!run->is_managed)
        pd_handed_forget(&run->handed, run->loop);
    status = signals_open(run);
    return status == PD_OK ? PD_OK : pd_err_set(err, status, "cannot watch signals");
}

int pd_main_run(const struct pd_main_options *options, struct pd_conf *conf, struct pd_mods *mods)
{
    struct run run;
    struct pd_err err;
    char open[256];
    memset(&run, 0, sizeof run);
    memset(&err, 0, sizeof err);
    run.options = options;
    run.mods = mods;
    run.rc = PD_EXIT_OK;
    pd_signal_report_crashes();
    uint64_t descriptors;
    pd_fd_raise_limit(&descriptors);
    if (start(&run, conf, &err) != PD_OK) {
        err_print(&err);
        run.rc = PD_EXIT_CONF;
        if (run.loop != NULL)
            stop(&run);
    }
    if (run.loop != NULL)
        pd_loop_run(run.loop);
    /* The log reads the loop's clock, so it goes first. */
    if (run.log != NULL)
        pd_log_destroy(run.log);
    if (run.loop != NULL && pd_loop_destroy(run.loop, open, sizeof open) != PD_OK) {
        fprintf(stderr, "pdplane: error: handles are still open: %s\n", open);
        run.rc = PD_EXIT_CONF;
    } else if (run.loop != NULL && run.rc == PD_EXIT_OK) {
        fprintf(stderr, "pdplane: stopped, nothing left open\n");
    }
    pd_pidfile_close(run.pidfile);
    return run.rc;
}
