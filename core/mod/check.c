/* SPDX-License-Identifier: Apache-2.0 */
/* The checks between dlsym and the first use of a module, in their order: magic,
 * major, minor, size, names, units, ops, rows.  Nothing behind a failed check
 * is read, because its meaning depends on the earlier ones.  Each message names
 * the file, the module where it is known, and both values. */
#include "mod/check.h"

#include <string.h>

#include "base/status.h"

/* What version 1.0 had: every module brings at least this. */
#define MODULE_SIZE_MIN ((uint32_t)(offsetof(struct pd_module, unload) + sizeof(void (*)(void))))
#define UNIT_SIZE_MIN ((uint32_t)(offsetof(struct pd_unit, check) + sizeof(void (*)(void))))
#define UNIT_SIZE_MAX 4096u
#define ALIASES_MAX 16u

#define REBUILD "rebuild the module against this pdplane's headers"

static bool is_name(const char *s, bool alias)
{
    size_t n = 0;
    if (s == NULL || s[0] < 'a' || s[0] > 'z')
        return false;
    for (; s[n] != '\0'; n++) {
        char c = s[n];
        bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || (alias && c == '-');
        if (!ok || n >= 63)
            return false;
    }
    return true;
}

const struct pd_kind_spec *pd_mod_kind(const struct pd_kind_spec *kinds, uint32_t kind)
{
    for (; kinds->kind != 0; kinds++) {
        if (kinds->kind == kind)
            return kinds;
    }
    return NULL;
}

const struct pd_unit *pd_unit_next(const struct pd_unit *u)
{
    return (const struct pd_unit *)(const void *)((const char *)u + u->size);
}

bool pd_mod_unit_is(const struct pd_unit *u, const char *name)
{
    if (strcmp(u->name, name) == 0)
        return true;
    for (const char *const *a = u->aliases; a != NULL && *a != NULL; a++) {
        if (strcmp(*a, name) == 0)
            return true;
    }
    return false;
}

static pd_status check_prefix(const struct pd_module *m, const char *path, struct pd_err *err)
{
    if (m->magic != PD_MODULE_MAGIC) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": pd_module begins with 0x%08x instead of 0x%08x",
                   path, m->magic, PD_MODULE_MAGIC);
        return pd_err_hint(err, "the file is no pdplane module, or was built for another byte order");
    }
    if (m->abi_major != PD_ABI_MAJOR) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": built for ABI %u.%u, this pdplane speaks %u.%u",
                   path, m->abi_major, m->abi_minor, PD_ABI_MAJOR, PD_ABI_MINOR);
        return pd_err_hint(err, "%s", m->abi_major < PD_ABI_MAJOR ? REBUILD : "use a newer pdplane, or " REBUILD);
    }
    if (m->abi_minor > PD_ABI_MINOR) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": needs ABI %u.%u, this pdplane speaks %u.%u", path,
                   m->abi_major, m->abi_minor, PD_ABI_MAJOR, PD_ABI_MINOR);
        return pd_err_hint(err, "use a newer pdplane, or " REBUILD);
    }
    if (m->size < MODULE_SIZE_MIN) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": struct pd_module has %u bytes, at least %u are needed",
                   path, m->size, MODULE_SIZE_MIN);
        return pd_err_hint(err, REBUILD);
    }
    return PD_OK;
}

static pd_status check_module(const struct pd_module *m, const char *path, struct pd_err *err)
{
    if (!is_name(m->name, false)) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": its name \"%.64s\" is illegal", path,
                   m->name == NULL ? "" : m->name);
        return pd_err_hint(err, "allowed are a to z, 0 to 9 and _, beginning with a letter");
    }
    const char *slash = strrchr(path, '/');
    const char *file = slash == NULL ? path : slash + 1;
    size_t n = strlen(m->name);
    if (strncmp(file, m->name, n) != 0 || strcmp(file + n, ".so") != 0) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": it calls itself \"%s\"", path, m->name);
        return pd_err_hint(err, "name the file %s.so", m->name);
    }
    if (m->version == NULL || m->summary == NULL || m->host == NULL)
        return pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": it has no %s", path,
                          m->version == NULL ? "version" : m->summary == NULL ? "summary" : "room for the host");
    if (m->units == NULL || m->units->size == 0)
        return pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": it provides no unit", path);
    return PD_OK;
}

static pd_status check_names(const struct pd_module *m, const struct pd_unit *u, const char *path,
                             struct pd_err *err)
{
    uint32_t n = 0;
    if (!is_name(u->name, false))
        return pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": unit name \"%.64s\" is illegal", path,
                          u->name == NULL ? "" : u->name);
    for (const char *const *a = u->aliases; a != NULL && *a != NULL; a++) {
        if (++n > ALIASES_MAX || !is_name(*a, true))
            return pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": alias \"%.64s\" of unit \"%s\" is illegal",
                              path, *a, u->name);
    }
    for (const struct pd_unit *o = m->units; o != u; o = pd_unit_next(o)) {
        const char *twice = pd_mod_unit_is(o, u->name) ? u->name : NULL;
        for (const char *const *a = u->aliases; twice == NULL && a != NULL && *a != NULL; a++)
            twice = pd_mod_unit_is(o, *a) ? *a : NULL;
        if (o->kind == u->kind && twice != NULL)
            return pd_err_set(err, PD_EEXIST, "cannot load module \"%s\": it provides the %s \"%s\" twice", path,
                              pd_kind_name(u->kind), twice);
    }
    return PD_OK;
}

static pd_status check_ops(const struct pd_unit *u, const char *path, const struct pd_kind_spec *kinds,
                           struct pd_err *err)
{
    const struct pd_kind_spec *k = pd_mod_kind(kinds, u->kind);
    if (k == NULL) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": unit \"%s\" is of the unknown kind %u (%s)", path,
                   u->name, u->kind, pd_kind_name(u->kind));
        return pd_err_hint(err, "use a newer pdplane");
    }
    if (u->ops == NULL)
        return pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": %s \"%s\" has no ops", path,
                          pd_kind_name(u->kind), u->name);
    if (u->ops->version < k->version_min || u->ops->version > k->version_max) {
        pd_err_set(err, PD_EINVAL,
                   "cannot load module \"%s\": %s \"%s\" is of version %u, this pdplane takes %u to %u", path,
                   pd_kind_name(u->kind), u->name, u->ops->version, k->version_min, k->version_max);
        return pd_err_hint(err, REBUILD);
    }
    if (u->ops->size < k->ops_min) {
        pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": ops of %s \"%s\" have %u bytes, at least %u are needed",
                   path, pd_kind_name(u->kind), u->name, u->ops->size, k->ops_min);
        return pd_err_hint(err, REBUILD);
    }
    for (uint32_t i = 0; i < k->n_required; i++) {
        void *f;
        memcpy(&f, (const char *)u->ops + k->required[i].offset, sizeof f);
        if (f == NULL)
            return pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": %s \"%s\" lacks the operation \"%s\"",
                              path, pd_kind_name(u->kind), u->name, k->required[i].name);
    }
    return PD_OK;
}

static pd_status check_unit(const struct pd_module *m, const struct pd_unit *u, const char *path,
                            const struct pd_kind_spec *kinds, struct pd_err *err)
{
    struct pd_err inner = { 0 };
    pd_status st = check_names(m, u, path, err);
    if (st == PD_OK)
        st = check_ops(u, path, kinds, err);
    if (st != PD_OK)
        return st;
    if (u->summary == NULL)
        return pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": %s \"%s\" has no summary", path,
                          pd_kind_name(u->kind), u->name);
    st = pd_conf_rows_check(u->options, u->conf_size, &inner);
    if (st != PD_OK)
        return pd_err_set(err, st, "cannot load module \"%s\": %s \"%s\": %s", path, pd_kind_name(u->kind),
                          u->name, inner.text);
    return PD_OK;
}

pd_status pd_mod_check(const struct pd_module *m, const char *path, const struct pd_kind_spec *kinds,
                       struct pd_err *err)
{
    uint32_t n = 0;
    pd_status st = check_prefix(m, path, err);
    if (st == PD_OK)
        st = check_module(m, path, err);
    if (st != PD_OK)
        return st;
    for (const struct pd_unit *u = m->units; u->size != 0; u = pd_unit_next(u)) {
        if (u->size < UNIT_SIZE_MIN || u->size > UNIT_SIZE_MAX || u->size != m->units->size) {
            pd_err_set(err, PD_EINVAL, "cannot load module \"%s\": struct pd_unit has %u bytes, at least %u are needed",
                       path, u->size, UNIT_SIZE_MIN);
            return pd_err_hint(err, REBUILD);
        }
        if (++n > PD_MOD_UNITS_MAX)
            return pd_err_set(err, PD_ELIMIT, "cannot load module \"%s\": more than %u units, or PD_UNIT_END is missing",
                              path, PD_MOD_UNITS_MAX);
        st = check_unit(m, u, path, kinds, err);
        if (st != PD_OK)
            return st;
    }
    return PD_OK;
}
