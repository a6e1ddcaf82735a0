/* SPDX-License-Identifier: Apache-2.0 */
/* pdplane: wiring of the daemon.  What each action does stands elsewhere; this
 * file only chooses and owns what all of them share. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "main/handed.h"
#include "loop/uv.h"
#include "main/main.h"
#include "mod/host.h"
#include "node/check.h"
#include "node/sections.h"
#include "os/pidfile.h"

/* What would fail only at the start of the node. */
static pd_status check_whole(struct pd_conf *conf, struct pd_mods *mods,
                             struct pd_conf_report *report)
{
    struct pd_loop *loop;
    pd_status st = pd_loop_uv_create(NULL, &loop);
    if (st != PD_OK)
        return pd_conf_error(report, NULL, 0, "no event loop: %s", pd_status_text(st));
    st = pd_node_conf_check(conf, mods, loop, report);
    pd_loop_destroy(loop, NULL, 0);
    return st;
}

/* Reads and fills the configuration, and checks it as a whole when asked to;
 * prints what is wrong.  NULL when something is. */
static struct pd_conf *read_conf(const struct pd_main_options *o, struct pd_mods *mods, bool whole)
{
    struct pd_conf_source src = { .prefix = o->prefix };
    struct pd_conf_report report;
    struct pd_conf *conf = NULL;
    pd_conf_report_init(&report);
    pd_status st = pd_node_conf_read(o->file, NULL, &src, mods, &report, &conf);
    if (st == PD_OK && whole && (st = check_whole(conf, mods, &report)) != PD_OK) {
        pd_conf_put(conf);
        conf = NULL;
    }
    pd_conf_report_print(&report, stderr);
    if (st != PD_OK && report.total_errors > 0)
        fprintf(stderr, "pdplane: configuration %s has %llu error%s\n", o->file,
                (unsigned long long)report.total_errors, report.total_errors == 1 ? "" : "s");
    pd_conf_report_fini(&report);
    return conf;
}

static int test(const struct pd_main_options *o, struct pd_mods *mods)
{
    struct pd_conf *conf = read_conf(o, mods, o->action != PD_MAIN_DUMP);
    if (conf == NULL)
        return PD_EXIT_CONF;
    int rc = PD_EXIT_OK;
    if (o->action == PD_MAIN_DUMP && pd_conf_dump(conf, stdout) != PD_OK) {
        fputs("pdplane: out of memory\n", stderr);
        rc = PD_EXIT_CONF;
    } else if (o->action != PD_MAIN_DUMP && !o->quiet) {
        printf("pdplane: configuration %s is correct\n", o->file);
    }
    pd_conf_put(conf);
    return rc;
}

static int run(const struct pd_main_options *o, struct pd_mods *mods)
{
    struct pd_conf *conf = read_conf(o, mods, false);
    if (conf == NULL)
        return PD_EXIT_CONF;
    int rc = pd_main_run(o, conf, mods);
    pd_conf_put(conf);
    return rc;
}

static int send_signal(const struct pd_main_options *o)
{
    static const struct {
        const char *name;
        int number;
    } table[] = { { "reload", SIGHUP }, { "drain", SIGQUIT }, { "stop", SIGTERM }, { "upgrade", SIGUSR2 } };
    struct pd_conf_source src = { .prefix = o->prefix };
    struct pd_conf_report report;
    char path[1024] = "";
    pid_t pid;
    pd_conf_report_init(&report);
    pd_node_conf_pid_file(o->file, &src, &report, path, sizeof path);
    pd_conf_report_print(&report, stderr);
    bool ok = pd_conf_report_ok(&report);
    pd_conf_report_fini(&report);
    if (!ok)
        return PD_EXIT_CONF;
    if (path[0] == '\0') {
        fprintf(stderr, "pdplane: configuration %s names no pid_file\n", o->file);
        return PD_EXIT_CONF;
    }
    if (pd_pidfile_read(path, &pid) != PD_OK) {
        fprintf(stderr, "pdplane: no node runs with pid file %s\n", path);
        return PD_EXIT_CONF;
    }
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].name, o->operand) == 0 && kill(pid, table[i].number) != 0) {
            fprintf(stderr, "pdplane: cannot signal process %lld: %s\n", (long long)pid, strerror(errno));
            return PD_EXIT_CONF;
        }
    }
    return PD_EXIT_OK;
}

static int act(const struct pd_main_options *o, struct pd_mods *mods, char **argv)
{
    switch (o->action) {
    case PD_MAIN_HELP:
        pd_main_help(stdout);
        return PD_EXIT_OK;
    case PD_MAIN_VERSION:
        return pd_main_version();
    case PD_MAIN_SIGNAL:
        return send_signal(o);
    case PD_MAIN_MODULES:
        return pd_main_modules(o, mods);
    case PD_MAIN_OPTIONS:
        return pd_main_reference(o, mods);
    case PD_MAIN_RUN:
        /* A worker is started by its manager with a descriptor to report on. */
        return o->no_manager || getenv(PD_HANDED_READY) != NULL ? run(o, mods)
                                                                : pd_main_manage(o, argv);
    default:
        return test(o, mods);
    }
}

int main(int argc, char **argv)
{
    struct pd_main_options options;
    struct pd_mods_params params = { .host = pd_host_api_table() };
    struct pd_mods *mods;
    int rc = pd_main_options_parse(&options, argc, argv);
    if (rc != PD_EXIT_OK)
        return rc;
    pd_mem_init();
    if (pd_mem_fault_init() != PD_OK) {
        fputs("pdplane: environment variable PD_FAULT is malformed\n", stderr);
        return PD_EXIT_USAGE;
    }
    if (pd_mods_create(&params, &mods) != PD_OK) {
        fputs("pdplane: out of memory\n", stderr);
        return PD_EXIT_CONF;
    }
    rc = act(&options, mods, argv);
    pd_mods_destroy(mods);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "pdplane: cannot write: %s\n", strerror(errno));
        return PD_EXIT_CONF;
    }
    return rc;
}
