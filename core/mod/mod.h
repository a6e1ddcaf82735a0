/* SPDX-License-Identifier: Apache-2.0 */
/* Modules of a process: finding, checking and loading them, and the units they
 * provide by kind and name.  No module is ever unloaded.  A table is shared by
 * all nodes of a process, because an object is mapped once only.  Main thread;
 * lookups from any thread once loading is over. */
#ifndef PD_MOD_MOD_H
#define PD_MOD_MOD_H

#include <pdplane/module.h>

#include "conf/conf.h"

#define PD_MODS_MAX 256u        /* modules in a process */
#define PD_MOD_UNITS_MAX 64u    /* units in a module */

/* What the core accepts as ops of one kind. */
struct pd_kind_member {
    const char *name;
    uint32_t offset;            /* of a function pointer in the ops struct */
};

struct pd_kind_spec {
    uint32_t kind;              /* PD_KIND_* */
    uint32_t version_min;       /* accepted range of pd_ops_head.version */
    uint32_t version_max;
    uint32_t ops_size;          /* of the ops struct, as this core has it */
    uint32_t ops_min;           /* the least a module may bring: size of version_min's struct */
    uint32_t n_required;
    const struct pd_kind_member *required;
};

/* The kinds of this core; ends with kind 0. */
const struct pd_kind_spec *pd_kinds(void);
/* "engine", "transport" ...; "unknown" for anything else. */
const char *pd_kind_name(uint32_t kind);
/* "scorer or picker" for the bits of a set; cut to size.  Returns out. */
const char *pd_kinds_text(uint64_t kinds, char *out, size_t size);

struct pd_mods;

struct pd_mod {
    const struct pd_module *module;
    char *path;                 /* of the file */
    char *name;
};

struct pd_mod_unit {
    const struct pd_unit *unit;
    const struct pd_mod *mod;
    const struct pd_ops_head *ops; /* full size copy: members a module lacks are NULL */
};

struct pd_mods_params {
    const struct pd_host_api *host;     /* given to every module; borrowed, outlives the process's modules */
    const struct pd_kind_spec *kinds;   /* NULL: pd_kinds() */
    const char *const *path;            /* folders searched in order, ended by NULL; NULL: the built-in one */
};

/* Gives: pd_mods_destroy, which calls each module's unload in reverse order. */
pd_status pd_mods_create(const struct pd_mods_params *params, struct pd_mods **out);
void pd_mods_destroy(struct pd_mods *mods);
/* Replaces the folders; copies them. */
pd_status pd_mods_set_path(struct pd_mods *mods, const char *const *dirs, size_t n);

/* Begins a configuration: from here on rows find the units of those modules only
 * that pd_mods_load is asked for, whether or not they were loaded before. */
void pd_mods_begin(struct pd_mods *mods);
/* Whether pd_mods_load was asked for the unit's module since pd_mods_begin. */
bool pd_mods_is_wanted(const struct pd_mods *mods, const struct pd_mod_unit *unit);
/* Loads "tcp" or "/path/tcp.so", unless it was loaded already (PD_OK, nothing
 * done).  Otherwise err says which check failed and what to do. */
pd_status pd_mods_load(struct pd_mods *mods, const char *name, struct pd_err *err);
/* As load, but only looks: nothing of the module runs and the table does not
 * change.  *out is valid as long as the process. */
pd_status pd_mods_inspect(struct pd_mods *mods, const char *name, const struct pd_module **out,
                          struct pd_err *err);
/* The unit behind u in a module's list; its size is 0 at the end. */
const struct pd_unit *pd_unit_next(const struct pd_unit *u);
/* The file that load would take for name, into out; PD_OK or PD_ENOENT. */
pd_status pd_mods_locate(struct pd_mods *mods, const char *name, char *out, size_t size);
/* The name of the index-th module file along the path, sorted, each name once;
 * PD_OK, PD_ENOENT at the end; others when a folder that is there cannot be read. */
pd_status pd_mods_file_at(struct pd_mods *mods, size_t index, char *out, size_t size);

/* Loaded modules in order of loading; NULL at the end. */
const struct pd_mod *pd_mods_at(const struct pd_mods *mods, size_t index);
const struct pd_mod *pd_mods_get(const struct pd_mods *mods, const char *name);
/* The unit of this kind by name or alias; NULL when there is none. */
const struct pd_mod_unit *pd_mods_unit(const struct pd_mods *mods, uint32_t kind, const char *name);
/* The index-th unit of any of these kinds in order of loading; NULL at the end. */
const struct pd_mod_unit *pd_mods_unit_at(const struct pd_mods *mods, uint64_t kinds, size_t index);

/* Looks units up for option rows; pd_conf_unit.unit is then a
 * const struct pd_mod_unit *. */
struct pd_conf_resolver pd_mods_resolver(struct pd_mods *mods);

#endif
