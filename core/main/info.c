/* SPDX-License-Identifier: Apache-2.0 */
/* What pdplane tells about itself and its modules: -V, -M and -O.  The output of
 * -V is lines of "key value" that programs may read; keys are never renamed. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "config.h"
#include "main/main.h"
#include "node/sections.h"

int pd_main_version(void)
{
    printf("version %s\n", PACKAGE_VERSION);
    printf("abi %d.%d\n", PD_ABI_MAJOR, PD_ABI_MINOR);
    printf("compiler %s\n", __VERSION__);
    printf("libuv %s\n", PD_BUILD_LIBUV);
    printf("libconfig %s\n", PD_BUILD_LIBCONFIG);
    printf("openssl %s\n", PD_BUILD_OPENSSL);
    printf("sanitizers %s\n", PD_BUILD_SANITIZERS);
#ifdef PD_ENABLE_TRACE
    printf("trace yes\n");
#else
    printf("trace no\n");
#endif
    printf("config %s/pd.conf\n", PD_CONFDIR);
    printf("module_path %s\n", PD_MODULEDIR);
    printf("data %s\n", PD_DATADIR);
    printf("run %s\n", PD_RUNDIR);
    printf("modules%s\n", PD_BUILD_MODULES);
    return PD_EXIT_OK;
}

/* With -c the folders that the file names, else the built-in one. */
static int take_module_path(const struct pd_main_options *o, struct pd_mods *mods)
{
    struct pd_conf_source src = { .prefix = o->prefix };
    struct pd_conf_report report;
    struct pd_conf *conf;
    int rc = PD_EXIT_OK;
    if (o->file == o->file_buffer)
        return PD_EXIT_OK;
    pd_conf_report_init(&report);
    if (pd_conf_open(o->file, &src, &report, &conf) == PD_OK) {
        pd_node_conf_module_path(conf, mods, &report);
        pd_conf_put(conf);
    }
    if (!pd_conf_report_ok(&report)) {
        pd_conf_report_print(&report, stderr);
        rc = PD_EXIT_CONF;
    }
    pd_conf_report_fini(&report);
    return rc;
}

int pd_main_modules(const struct pd_main_options *o, struct pd_mods *mods)
{
    char name[256], path[1024];
    pd_status status;
    int rc = take_module_path(o, mods);
    if (rc != PD_EXIT_OK)
        return rc;
    for (size_t i = 0; (status = pd_mods_file_at(mods, i, name, sizeof name)) == PD_OK; i++) {
        const struct pd_module *m;
        struct pd_err err = { 0 };
        if (pd_mods_inspect(mods, name, &m, &err) != PD_OK) {
            pd_conf_err_print(stderr, &err, "error");
            rc = PD_EXIT_CONF;
            continue;
        }
        if (pd_mods_locate(mods, name, path, sizeof path) != PD_OK)
            path[0] = '\0';
        printf("%-16s version %-8s abi %u.%u  %s\n", m->name, m->version, m->abi_major, m->abi_minor, path);
        for (const struct pd_unit *u = m->units; u->size != 0; u = pd_unit_next(u)) {
            printf("  %-10s %-20s v%u  %s\n", pd_kind_name(u->kind), u->name, u->ops->version, u->summary);
            for (const char *const *a = u->aliases; a != NULL && *a != NULL; a++)
                printf("             also %s\n", *a);
        }
    }
    if (status != PD_ENOENT) {
        fprintf(stderr, "pdplane: the list of modules ends here: %s\n", pd_status_text(status));
        rc = PD_EXIT_CONF;
    }
    return rc;
}

/* The other names that a configuration may use for a unit. */
static void put_aliases(const struct pd_unit *u, bool mdoc)
{
    const char *const *a = u->aliases;
    if (a == NULL || *a == NULL)
        return;
    printf("Also named \"%s\"", *a);
    while (*++a != NULL)
        printf(", \"%s\"", *a);
    puts(mdoc ? "." : ".\n");
}

int pd_main_reference(const struct pd_main_options *o, struct pd_mods *mods)
{
    const struct pd_module *m;
    struct pd_err err = { 0 };
    uint32_t format = o->mdoc ? PD_CONF_REF_MDOC : PD_CONF_REF_TEXT;
    if (o->operand == NULL) {
        pd_conf_reference(pd_node_sections(), format, stdout);
        return PD_EXIT_OK;
    }
    int rc = take_module_path(o, mods);
    if (rc != PD_EXIT_OK)
        return rc;
    if (pd_mods_inspect(mods, o->operand, &m, &err) != PD_OK) {
        pd_conf_err_print(stderr, &err, "error");
        return PD_EXIT_CONF;
    }
    for (const struct pd_unit *u = m->units; u->size != 0; u = pd_unit_next(u)) {
        if (o->mdoc)
            printf(".Ss %s \"%s\"\n%s\n", pd_kind_name(u->kind), u->name, u->summary);
        else
            printf("%s%s \"%s\": %s\n\n", u == m->units ? "" : "\n", pd_kind_name(u->kind), u->name, u->summary);
        put_aliases(u, o->mdoc);
        if (u->options != NULL && u->options->name != NULL)
            pd_conf_reference(u->options, format, stdout);
        else if (!o->mdoc)
            puts("It has no options.");
    }
    return PD_EXIT_OK;
}
