/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which a configuration is read: modules first, because their units bring rows
 * of their own; before them only what has to be known without any.
 *
 * A module that cannot be loaded is an error once: units that are not found because of it
 * are no news. */
#include "node/sections.h"

#include <stdio.h>
#include <string.h>

#include <pdplane/role.h>
#include <pdplane/scheduler.h>

/* The module that serves /metrics. */
#define PD_DEFAULT_EXPORTER "prometheus"

void pd_node_conf_module_path(struct pd_conf *conf, struct pd_mods *mods, struct pd_conf_report *report)
{
    struct pd_node_conf early;
    memset(&early, 0, sizeof early);
    if (pd_conf_peek(conf, pd_node_section("module_path"), &early, report) == PD_OK &&
        pd_mods_set_path(mods, early.module_path.items, (size_t)early.module_path.count) != PD_OK)
        report->out_of_memory = true;
}

static bool is_loaded(const struct pd_mods *mods, const char *name)
{
    const struct pd_mod *m;
    if (strchr(name, '/') == NULL)
        return pd_mods_get(mods, name) != NULL;
    for (size_t i = 0; (m = pd_mods_at(mods, i)) != NULL; i++) {
        if (strcmp(m->path, name) == 0)
            return true;
    }
    return false;
}

bool pd_node_conf_wants_new(struct pd_conf *conf, const struct pd_mods *mods)
{
    struct pd_node_conf early;
    struct pd_conf_report report;
    bool is_new = false;
    memset(&early, 0, sizeof early);
    pd_conf_report_init(&report);
    if (pd_conf_peek(conf, pd_node_section("load"), &early, &report) == PD_OK) {
        for (uint64_t i = 0; i < early.load.count; i++)
            is_new |= !is_loaded(mods, early.load.items[i]);
    }
    pd_conf_report_fini(&report);
    return is_new;
}

void pd_node_conf_pid_file(const char *file, const struct pd_conf_source *src, struct pd_conf_report *report,
                           char *path, size_t size)
{
    struct pd_node_conf early;
    struct pd_conf *conf;
    memset(&early, 0, sizeof early);
    path[0] = '\0';
    if (pd_conf_open(file, src, report, &conf) != PD_OK)
        return;
    if (pd_conf_peek(conf, pd_node_section("pid_file"), &early, report) == PD_OK && early.pid_file != NULL)
        snprintf(path, size, "%s", early.pid_file);
    pd_conf_put(conf);
}

pd_status pd_node_conf_early(const char *file, const struct pd_conf_source *src,
                             struct pd_conf_report *report, struct pd_node_early *early,
                             struct pd_conf **out)
{
    static const char *const names[] = { "listen", "log", "control", "pid_file", "user", "group" };
    struct pd_node_conf all;
    struct pd_conf *conf;
    memset(&all, 0, sizeof all);
    pd_status status = pd_conf_open(file, src, report, &conf);
    if (status != PD_OK)
        return status;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && status == PD_OK; i++)
        status = pd_conf_peek(conf, pd_node_section(names[i]), &all, report);
    if (status != PD_OK) {
        pd_conf_put(conf);
        return status;
    }
    *early = (struct pd_node_early){ .listen = all.listen, .log = all.log, .control = all.control,
                                     .pid_file = all.pid_file, .user = all.user, .group = all.group };
    *out = conf;
    return PD_OK;
}

/* A router needs the plugins of the pipeline that holds when none is configured. */
static void load_scheduler(struct pd_mods *mods, struct pd_conf_report *report)
{
    const struct pd_mod_unit *u;
    bool is_router = false;
    for (size_t i = 0; (u = pd_mods_unit_at(mods, PD_KIND_BIT(PD_KIND_ROLE), i)) != NULL; i++)
        is_router |= pd_mods_is_wanted(mods, u) &&
                     (((const struct pd_role_ops *)(const void *)u->ops)->role & PD_ROLE_ROUTER) != 0;
    for (size_t i = 0; is_router && pd_sched_default_modules[i] != NULL; i++) {
        struct pd_err err = { 0 };
        if (pd_mods_load(mods, pd_sched_default_modules[i], &err) != PD_OK)
            pd_conf_report_add(report, &err, NULL, 0);
    }
}

/* Whoever asks a node for figures finds them; also when a reload adds the
 * listener to ask. */
static void load_exporter(struct pd_mods *mods, struct pd_conf_report *report)
{
    struct pd_err err = { 0 };
    char path[1024];
    if (pd_mods_locate(mods, PD_DEFAULT_EXPORTER, path, sizeof path) == PD_OK &&
        pd_mods_load(mods, PD_DEFAULT_EXPORTER, &err) != PD_OK)
        pd_conf_report_add(report, &err, NULL, 0);
}

/* Returns whether all modules are there. */
static bool load_modules(struct pd_conf *conf, struct pd_mods *mods, struct pd_conf_report *report)
{
    struct pd_node_conf early;
    uint64_t before = report->total_errors;
    memset(&early, 0, sizeof early);
    pd_node_conf_module_path(conf, mods, report);
    if (pd_conf_peek(conf, pd_node_section("load"), &early, report) != PD_OK)
        return false;
    for (uint64_t i = 0; i < early.load.count; i++) {
        struct pd_err err = { 0 };
        struct pd_conf_place at = pd_conf_item_place(conf, "load", i);
        if (pd_mods_load(mods, early.load.items[i], &err) != PD_OK)
            pd_conf_report_add(report, &err, at.file, at.line);
    }
    load_scheduler(mods, report);
    load_exporter(mods, report);
    return report->total_errors == before;
}

/* When a module could not be loaded, units that are not found are no news. */
struct quiet {
    struct pd_conf_resolver inner;
    bool all_loaded;
};

static pd_status quiet_find(void *arg, uint64_t kinds, const char *name, struct pd_conf_found *out,
                            struct pd_err *err)
{
    struct quiet *q = arg;
    pd_status st = q->inner.find(q->inner.arg, kinds, name, out, err);
    if (st != PD_OK && !q->all_loaded)
        err->text[0] = '\0';
    return st;
}

static bool quiet_each(void *arg, uint64_t kinds, size_t index, struct pd_conf_found *out)
{
    struct quiet *q = arg;
    return q->inner.each(q->inner.arg, kinds, index, out);
}

pd_status pd_node_conf_read(const char *path, const struct pd_str *text, const struct pd_conf_source *src,
                            struct pd_mods *mods, struct pd_conf_report *report, struct pd_conf **out)
{
    struct pd_conf *conf;
    pd_status st = text != NULL ? pd_conf_open_text(path, *text, src, report, &conf)
                                : pd_conf_open(path, src, report, &conf);
    return st != PD_OK ? st : pd_node_conf_complete(conf, mods, report, out);
}

pd_status pd_node_conf_complete(struct pd_conf *conf, struct pd_mods *mods, struct pd_conf_report *report,
                                struct pd_conf **out)
{
    struct quiet quiet = { pd_mods_resolver(mods), true };
    struct pd_conf_resolver resolver = { quiet_find, quiet_each, &quiet };
    pd_status st;
    pd_mods_begin(mods);
    quiet.all_loaded = load_modules(conf, mods, report);
    st = pd_conf_fill(conf, pd_node_sections(), sizeof(struct pd_node_conf), &resolver, report);
    if (st == PD_OK && !pd_conf_report_ok(report))
        st = PD_EINVAL;
    if (st != PD_OK) {
        pd_conf_put(conf);
        return st;
    }
    *out = conf;
    return PD_OK;
}
