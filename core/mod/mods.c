/* SPDX-License-Identifier: Apache-2.0 */
/* The table of loaded modules: finding files, loading, units by kind and name.
 *
 * A module is added whole or not at all.  What was opened stays mapped, also
 * when a check refused it; the table just does not know it then. */
#include "mod/mod.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/near.h"
#include "base/status.h"
#include "base/str.h"
#include "mod/check.h"
#include "os/dl.h"
#include "os/file.h"

#define DIRS_MAX 16u
#define FILES_MAX 1024u
#define PATH_SIZE 1024u

struct unit {
    struct pd_mod_unit pub;
    void *ops;                      /* full size copy */
};

struct module {
    struct pd_mod pub;
    struct unit *units;
    uint32_t n_units;
    uint64_t round;                 /* of the last configuration that wants it */
};

struct pd_mods {
    const struct pd_host_api *host;
    const struct pd_kind_spec *kinds;
    char *dirs[DIRS_MAX];
    size_t n_dirs;
    struct module *modules[PD_MODS_MAX];
    size_t n_modules;
    uint64_t round;                 /* of the configuration that is read; 0: all count */
};

static void free_dirs(struct pd_mods *mods)
{
    for (size_t i = 0; i < mods->n_dirs; i++)
        pd_free(mods->dirs[i]);
    mods->n_dirs = 0;
}

pd_status pd_mods_set_path(struct pd_mods *mods, const char *const *dirs, size_t n)
{
    if (n > DIRS_MAX)
        return PD_ELIMIT;
    free_dirs(mods);
    for (size_t i = 0; i < n; i++) {
        mods->dirs[i] = pd_strdup(dirs[i]);
        if (mods->dirs[i] == NULL)
            return PD_ENOMEM;
        mods->n_dirs++;
    }
    return PD_OK;
}

pd_status pd_mods_create(const struct pd_mods_params *params, struct pd_mods **out)
{
    static const char *const standard[] = { PD_MODULEDIR, NULL };
    const char *const *path = params->path != NULL ? params->path : standard;
    size_t n = 0;
    struct pd_mods *mods = pd_calloc(1, sizeof *mods);
    if (mods == NULL)
        return PD_ENOMEM;
    mods->host = params->host;
    mods->kinds = params->kinds != NULL ? params->kinds : pd_kinds();
    while (path[n] != NULL)
        n++;
    pd_status st = pd_mods_set_path(mods, path, n);
    if (st != PD_OK) {
        pd_mods_destroy(mods);
        return st;
    }
    *out = mods;
    return PD_OK;
}

static void free_module(struct module *m)
{
    for (uint32_t i = 0; i < m->n_units; i++)
        pd_free(m->units[i].ops);
    pd_free(m->units);
    pd_free(m->pub.path);
    pd_free(m->pub.name);
    pd_free(m);
}

void pd_mods_destroy(struct pd_mods *mods)
{
    if (mods == NULL)
        return;
    while (mods->n_modules > 0) {
        struct module *m = mods->modules[--mods->n_modules];
        if (m->pub.module->unload != NULL)
            m->pub.module->unload();
        free_module(m);
    }
    free_dirs(mods);
    pd_free(mods);
}

/* --- files --- */

pd_status pd_mods_locate(struct pd_mods *mods, const char *name, char *out, size_t size)
{
    if (strchr(name, '/') != NULL) {
        int n = snprintf(out, size, "%s", name);
        return n > 0 && (size_t)n < size && pd_file_exists(out) ? PD_OK : PD_ENOENT;
    }
    for (size_t i = 0; i < mods->n_dirs; i++) {
        int n = snprintf(out, size, "%s/%s.so", mods->dirs[i], name);
        if (n > 0 && (size_t)n < size && pd_file_exists(out))
            return PD_OK;
    }
    return PD_ENOENT;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A folder that is not there has no modules. */
static pd_status scan_dir(const char *dir, char **names, size_t *n)
{
    DIR *d = opendir(dir);
    pd_status st = PD_OK;
    struct dirent *e;
    if (d == NULL)
        return errno == ENOENT || errno == ENOTDIR ? PD_OK : pd_status_from_errno(errno);
    while (st == PD_OK && *n < FILES_MAX && (e = readdir(d)) != NULL) {
        struct pd_str file = pd_str_from(e->d_name);
        if (file.n <= 3 || file.p[0] == '.' || !pd_str_ends_with(file, PD_STR(".so")))
            continue;
        names[*n] = pd_str_dup(pd_str_sub(file, 0, file.n - 3));
        if (names[*n] == NULL)
            st = PD_ENOMEM;
        else
            ++*n;
    }
    closedir(d);
    return st;
}

pd_status pd_mods_file_at(struct pd_mods *mods, size_t index, char *out, size_t size)
{
    char **names = pd_calloc(FILES_MAX, sizeof *names);
    size_t n = 0, seen = 0;
    pd_status st = names == NULL ? PD_ENOMEM : PD_OK;
    for (size_t i = 0; st == PD_OK && i < mods->n_dirs; i++)
        st = scan_dir(mods->dirs[i], names, &n);
    if (n > 0)
        qsort(names, n, sizeof *names, by_name);
    if (st == PD_OK)
        st = PD_ENOENT;
    for (size_t i = 0; i < n && st == PD_ENOENT; i++) {
        if (i > 0 && strcmp(names[i], names[i - 1]) == 0)
            continue;
        if (seen++ == index)
            st = pd_str_copy(pd_str_from(names[i]), out, size);
    }
    for (size_t i = 0; i < n; i++)
        pd_free(names[i]);
    pd_free(names);
    return st;
}

static pd_status not_found(struct pd_mods *mods, const char *name, struct pd_err *err)
{
    char path[PATH_SIZE] = "", file[128];
    size_t n = 0;
    struct pd_near near;
    char best[128] = "";
    if (strchr(name, '/') != NULL) {
        pd_err_set(err, PD_ENOENT, "cannot load module \"%s\": no such file", name);
        return pd_err_hint(err, "pdplane -M lists the modules that there are");
    }
    for (size_t i = 0; i < mods->n_dirs; i++)
        n = pd_str_addf(path, sizeof path, n, "%s%s", i == 0 ? "" : ", ", mods->dirs[i]);
    pd_near_init(&near, name);
    for (size_t i = 0; i < FILES_MAX && pd_mods_file_at(mods, i, file, sizeof file) == PD_OK; i++) {
        uint32_t before = near.distance;
        pd_near_try(&near, file);
        if (near.distance < before)
            snprintf(best, sizeof best, "%s", file);
        near.best = best;
    }
    bool is_near = near.distance != UINT32_MAX && pd_near_best(&near) != NULL;
    pd_err_set(err, PD_ENOENT, "cannot find module \"%s\" in %.300s%s%s%s", name, path,
               is_near ? " (did you mean \"" : "", is_near ? best : "", is_near ? "\"?)" : "");
    return pd_err_hint(err, "pdplane -M lists the modules that there are");
}

/* --- loading --- */

static pd_status check_taken(struct pd_mods *mods, const struct pd_module *m, const char *path,
                             struct pd_err *err)
{
    const struct pd_mod *same = pd_mods_get(mods, m->name);
    if (same != NULL)
        return pd_err_set(err, PD_EEXIST, "cannot load module \"%s\": the name \"%s\" is taken by \"%s\"", path,
                          m->name, same->path);
    for (const struct pd_unit *u = m->units; u->size != 0; u = pd_unit_next(u)) {
        const struct pd_mod_unit *other = pd_mods_unit(mods, u->kind, u->name);
        for (const char *const *a = u->aliases; other == NULL && a != NULL && *a != NULL; a++)
            other = pd_mods_unit(mods, u->kind, *a);
        if (other != NULL)
            return pd_err_set(err, PD_EEXIST,
                              "cannot load module \"%s\": the %s \"%s\" is provided by module \"%s\" already",
                              path, pd_kind_name(u->kind), u->name, other->mod->name);
    }
    return PD_OK;
}

static struct module *new_module(struct pd_mods *mods, const struct pd_module *m, const char *path)
{
    uint32_t n = 0;
    struct module *mod = pd_calloc(1, sizeof *mod);
    if (mod == NULL)
        return NULL;
    for (const struct pd_unit *u = m->units; u->size != 0; u = pd_unit_next(u))
        n++;
    mod->pub.module = m;
    mod->pub.path = pd_strdup(path);
    mod->pub.name = pd_strdup(m->name);
    mod->units = pd_calloc(n, sizeof *mod->units);
    bool ok = mod->pub.path != NULL && mod->pub.name != NULL && mod->units != NULL;
    for (const struct pd_unit *u = m->units; ok && u->size != 0; u = pd_unit_next(u)) {
        const struct pd_kind_spec *k = pd_mod_kind(mods->kinds, u->kind);
        struct unit *unit = &mod->units[mod->n_units];
        unit->ops = pd_calloc(1, k->ops_size);
        ok = unit->ops != NULL;
        if (!ok)
            break;
        memcpy(unit->ops, u->ops, u->ops->size < k->ops_size ? u->ops->size : k->ops_size);
        unit->pub = (struct pd_mod_unit){ u, &mod->pub, unit->ops };
        mod->n_units++;
    }
    if (!ok) {
        free_module(mod);
        return NULL;
    }
    return mod;
}

static pd_status run_load(struct pd_mods *mods, const struct pd_module *m, const char *path, struct pd_err *err)
{
    struct pd_err inner = { 0 };
    *m->host = mods->host;
    if (m->load == NULL)
        return PD_OK;
    pd_status st = m->load(&inner);
    if (st == PD_OK)
        return PD_OK;
    pd_err_set(err, st, "cannot load module \"%s\": %s", path,
               inner.text[0] != '\0' ? inner.text : pd_status_text(st));
    return pd_err_hint(err, "%s", inner.hint);
}

/* Finds, opens and checks; path has PATH_SIZE bytes. */
static pd_status open_module(struct pd_mods *mods, const char *name, char *path, const struct pd_module **out,
                             struct pd_err *err)
{
    struct pd_dl *dl;
    if (pd_mods_locate(mods, name, path, PATH_SIZE) != PD_OK)
        return not_found(mods, name, err);
    if (path[0] != '/' && strchr(name, '/') != NULL) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": a path to a module must be absolute", name);
        return pd_err_hint(err, "write \"%.100s\" without the folder and add that to module_path",
                           strrchr(name, '/') + 1);
    }
    struct pd_err inner = { 0 };
    pd_status st = pd_dl_open(path, &inner, &dl);
    if (st != PD_OK) {
        pd_err_set(err, st, "cannot load module \"%s\": %s", path, inner.text);
        return pd_err_hint(err, "%s", inner.hint);
    }
    const struct pd_module *m = pd_dl_symbol(dl, "pd_module");
    if (m == NULL) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": it does not export pd_module", path);
        return pd_err_hint(err, "the file is no pdplane module; modules are declared with PD_MODULE");
    }
    st = pd_mod_check(m, path, mods->kinds, err);
    if (st == PD_OK)
        *out = m;
    return st;
}

pd_status pd_mods_inspect(struct pd_mods *mods, const char *name, const struct pd_module **out,
                          struct pd_err *err)
{
    char path[PATH_SIZE];
    return open_module(mods, name, path, out, err);
}

void pd_mods_begin(struct pd_mods *mods)
{
    mods->round++;
}

static bool mod_is_wanted(const struct pd_mods *mods, const struct pd_mod *mod)
{
    return mod != NULL && ((const struct module *)(const void *)mod)->round == mods->round;
}

bool pd_mods_is_wanted(const struct pd_mods *mods, const struct pd_mod_unit *unit)
{
    return mod_is_wanted(mods, unit->mod);
}

pd_status pd_mods_load(struct pd_mods *mods, const char *name, struct pd_err *err)
{
    char path[PATH_SIZE];
    const struct pd_module *m;
    for (size_t i = 0; i < mods->n_modules; i++) {
        struct module *loaded = mods->modules[i];
        if (strcmp(strchr(name, '/') == NULL ? loaded->pub.name : loaded->pub.path, name) == 0) {
            loaded->round = mods->round;
            return PD_OK;
        }
    }
    if (mods->n_modules == PD_MODS_MAX)
        return pd_err_set(err, PD_ELIMIT, "cannot load module \"%s\": %u modules are loaded already", name,
                          PD_MODS_MAX);
    pd_status st = open_module(mods, name, path, &m, err);
    if (st == PD_OK)
        st = check_taken(mods, m, path, err);
    if (st != PD_OK)
        return st;
    struct module *mod = new_module(mods, m, path);
    if (mod == NULL)
        return pd_err_set(err, PD_ENOMEM, "cannot load module \"%s\": out of memory", path);
    st = run_load(mods, m, path, err);
    if (st != PD_OK) {
        free_module(mod);
        return st;
    }
    mod->round = mods->round;
    mods->modules[mods->n_modules++] = mod;
    return PD_OK;
}

/* --- lookups --- */

const struct pd_mod *pd_mods_at(const struct pd_mods *mods, size_t index)
{
    return index < mods->n_modules ? &mods->modules[index]->pub : NULL;
}

const struct pd_mod *pd_mods_get(const struct pd_mods *mods, const char *name)
{
    for (size_t i = 0; i < mods->n_modules; i++) {
        if (strcmp(mods->modules[i]->pub.name, name) == 0)
            return &mods->modules[i]->pub;
    }
    return NULL;
}

const struct pd_mod_unit *pd_mods_unit_at(const struct pd_mods *mods, uint64_t kinds, size_t index)
{
    for (size_t i = 0; i < mods->n_modules; i++) {
        const struct module *m = mods->modules[i];
        for (uint32_t k = 0; k < m->n_units; k++) {
            if ((kinds & PD_KIND_BIT(m->units[k].pub.unit->kind)) != 0 && index-- == 0)
                return &m->units[k].pub;
        }
    }
    return NULL;
}

static const struct pd_mod_unit *find_unit(const struct pd_mods *mods, uint64_t kinds, const char *name)
{
    const struct pd_mod_unit *u;
    for (size_t i = 0; (u = pd_mods_unit_at(mods, kinds, i)) != NULL; i++) {
        if (pd_mod_unit_is(u->unit, name))
            return u;
    }
    return NULL;
}

/* As pd_mods_unit_at, of the modules of the configuration that is read. */
static const struct pd_mod_unit *wanted_at(const struct pd_mods *mods, uint64_t kinds, size_t index)
{
    const struct pd_mod_unit *u;
    for (size_t i = 0; (u = pd_mods_unit_at(mods, kinds, i)) != NULL; i++) {
        if (pd_mods_is_wanted(mods, u) && index-- == 0)
            return u;
    }
    return NULL;
}

const struct pd_mod_unit *pd_mods_unit(const struct pd_mods *mods, uint32_t kind, const char *name)
{
    return find_unit(mods, PD_KIND_BIT(kind), name);
}

/* --- for option rows --- */

static void to_found(const struct pd_mod_unit *u, struct pd_conf_found *out)
{
    *out = (struct pd_conf_found){ .name = u->unit->name, .rows = u->unit->options,
                                   .conf_size = u->unit->conf_size, .unit = u, .check = u->unit->check };
}

static pd_status resolver_find(void *arg, uint64_t kinds, const char *name, struct pd_conf_found *out,
                               struct pd_err *err)
{
    struct pd_mods *mods = arg;
    char text[160], file[PATH_SIZE];
    struct pd_near near;
    const struct pd_mod_unit *u = find_unit(mods, kinds, name);
    if (u != NULL && pd_mods_is_wanted(mods, u)) {
        to_found(u, out);
        return PD_OK;
    }
    pd_kinds_text(kinds, text, sizeof text);
    pd_near_init(&near, name);
    for (size_t i = 0; (u = wanted_at(mods, kinds, i)) != NULL; i++)
        pd_near_try(&near, u->unit->name);
    const char *best = pd_near_best(&near);
    const struct pd_mod_unit *other = find_unit(mods, ~(uint64_t)0, name);
    if (other != NULL && !pd_mods_is_wanted(mods, other))
        other = NULL;
    if (best != NULL)
        return pd_err_set(err, PD_ENOENT, "no loaded module provides the %s \"%s\" (did you mean \"%s\"?)", text,
                          name, best);
    if (other != NULL)
        return pd_err_set(err, PD_ENOENT, "\"%s\" is no %s, module \"%s\" provides it as %s", name, text,
                          other->mod->name, pd_kind_name(other->unit->kind));
    pd_err_set(err, PD_ENOENT, "no loaded module provides the %s \"%s\"", text, name);
    if (strchr(name, '/') == NULL && !mod_is_wanted(mods, pd_mods_get(mods, name)) &&
        pd_mods_locate(mods, name, file, sizeof file) == PD_OK)
        return pd_err_hint(err, "add \"%s\" to load = [ ... ];", name);
    return pd_err_hint(err, "pdplane -M lists the modules that there are");
}

static bool resolver_each(void *arg, uint64_t kinds, size_t index, struct pd_conf_found *out)
{
    const struct pd_mod_unit *u = wanted_at(arg, kinds, index);
    if (u == NULL)
        return false;
    to_found(u, out);
    return true;
}

struct pd_conf_resolver pd_mods_resolver(struct pd_mods *mods)
{
    return (struct pd_conf_resolver){ .find = resolver_find, .each = resolver_each, .arg = mods };
}
