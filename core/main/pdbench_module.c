/* SPDX-License-Identifier: Apache-2.0 */
/* A module as a node would load it, without a node. */
#include "main/pdbench_module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/loop.h>

#include "base/str.h"
#include "log/log.h"
#include "loop/uv.h"
#include "metric/metric.h"

bool pdbench_module_say(const struct pdbench_module *m, const struct pd_err *err, const char *what)
{
    fprintf(stderr, "pdbench %s: %s: %s%s%s\n", m->command, m->file, err != NULL ? err->text : what,
            err != NULL && err->hint[0] != '\0' ? "; " : "", err != NULL ? err->hint : "");
    return false;
}

/* The module's first unit of the kind, with its options. */
static bool load(struct pdbench_module *m, uint32_t kind)
{
    const char *folders[] = { m->folder, NULL };
    struct pd_mods_params params = { .host = pd_host_api_table(), .path = m->folder != NULL ? folders : NULL };
    struct pd_err err = { 0 };
    struct pd_conf_report report;
    const struct pd_mod_unit *unit;
    char text[64], path[4096];
    const char *file = strchr(m->file, '/') != NULL && realpath(m->file, path) != NULL ? path : m->file;
    if (pd_mods_create(&params, &m->mods) != PD_OK)
        return pdbench_module_say(m, NULL, "out of memory");
    pd_mods_begin(m->mods);
    if (pd_mods_load(m->mods, file, &err) != PD_OK)
        return pdbench_module_say(m, &err, NULL);
    unit = pd_mods_unit_at(m->mods, PD_KIND_BIT(kind), 0);
    if (unit == NULL) {
        snprintf(text, sizeof text, "the module has no %s", pd_kind_name(kind));
        return pdbench_module_say(m, NULL, text);
    }
    m->ops = unit->ops;
    if (unit->unit->options == NULL || unit->unit->conf_size == 0)
        return true;
    struct pd_conf_resolver resolver = pd_mods_resolver(m->mods);
    pd_conf_report_init(&report);
    pd_status st = pd_conf_open_text("--options", pd_str_from(m->options), NULL, &report, &m->conf);
    if (st == PD_OK)
        st = pd_conf_fill(m->conf, unit->unit->options, unit->unit->conf_size, &resolver, &report);
    if (st != PD_OK)
        pd_conf_report_print(&report, stderr);
    pd_conf_report_fini(&report);
    return st == PD_OK;
}

bool pdbench_module_open(struct pdbench_module *m, uint32_t kind, const char *name)
{
    struct pd_log_config log = { .sink = PD_LOG_STDERR, .level = PD_LOG_WARN, .hide_time = true };
    struct pd_err err = { 0 };
    if (pd_loop_uv_create(NULL, &m->loop) != PD_OK || pd_log_create(&log, &err, &m->log) != PD_OK ||
        pd_metrics_create(0, &m->metrics) != PD_OK)
        return pdbench_module_say(m, NULL, "cannot begin");
    if (!load(m, kind))
        return false;
    pd_host_init(&m->host);
    m->ctx = (struct pd_instance_ctx){ .size = sizeof m->ctx, .name = name, .loop = m->loop, .log = m->log,
                                       .metrics = m->metrics, .host = &m->host };
    pd_loop_random(m->loop, &m->ctx.node, sizeof m->ctx.node);
    m->ctx.node.epoch |= 1;
    return true;
}

const void *pdbench_module_conf(const struct pdbench_module *m)
{
    return m->conf != NULL ? pd_conf_root(m->conf) : NULL;
}

void pdbench_module_close(struct pdbench_module *m)
{
    if (m->loop != NULL)
        (void)pd_loop_destroy(m->loop, NULL, 0);
    pd_conf_put(m->conf);
    if (m->mods != NULL)
        pd_mods_destroy(m->mods);
    if (m->metrics != NULL)
        pd_metrics_destroy(m->metrics);
    if (m->log != NULL)
        pd_log_destroy(m->log);
}
