/* SPDX-License-Identifier: Apache-2.0 */
/* How a module is declared.  Stable.
 *
 * A module is one shared object that exports one symbol, the data pd_module.
 * The core learns what it offers by reading that struct, not by running code:
 *
 *     static const struct pd_picker_ops rr_ops = {
 *         .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
 *         .create = rr_create, .pick = rr_pick, .destroy = rr_destroy,
 *     };
 *
 *     static const struct pd_unit rr_units[] = {
 *         PD_UNIT(.kind = PD_KIND_PICKER, .name = "round_robin", .ops = &rr_ops.head,
 *                 .options = rr_options, .conf_size = sizeof(struct rr_conf),
 *                 .summary = "Picks endpoints in turn."),
 *         PD_UNIT_END
 *     };
 *
 *     PD_MODULE(.name = "round_robin", .version = "1.0",
 *               .summary = "Picks endpoints in turn.", .units = rr_units)
 *
 * ABI history, newest first (see also doc/dev/abi).  A member added at the end
 * of a struct raises the minor number, anything else the major number.
 *
 *   1.0  first
 */
#ifndef PDPLANE_MODULE_H
#define PDPLANE_MODULE_H

#include <pdplane/conf.h>
#include <pdplane/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_MODULE_MAGIC 0x50444d31u /* "PDM1" */
#define PD_ABI_MAJOR 1
#define PD_ABI_MINOR 0

/* What a unit is.  Its ops struct and contract stand in the kind's header. */
enum {
    PD_KIND_ROLE = 1,          /* role.h */
    PD_KIND_ENGINE = 2,        /* engine.h */
    PD_KIND_TRANSPORT = 3,     /* transport.h */
    PD_KIND_FILTER = 4,        /* scheduler.h */
    PD_KIND_SCORER = 5,        /* scheduler.h */
    PD_KIND_PICKER = 6,        /* scheduler.h */
    PD_KIND_DECIDER = 7,       /* scheduler.h */
    PD_KIND_DISCOVERY = 8,     /* discovery.h */
    PD_KIND_EXPORTER = 9,      /* exporter.h */
    PD_KIND_CODEC = 10,        /* codec.h */
    PD_KIND_ADAPTER = 11,      /* adapter.h */
    PD_KIND_LIMIT = 12         /* one more than the greatest kind */
};
#define PD_KIND_BIT(kind) ((uint64_t)1 << (kind))

/* First member of every ops struct.  The core copies the ops into a struct of
 * its own full size; what a module's shorter struct lacks is NULL there. */
struct pd_ops_head {
    uint32_t size;             /* of the whole ops struct, as the module was compiled */
    uint32_t version;          /* of the kind */
};
#define PD_OPS(type_, version_) { (uint32_t)sizeof(struct type_), (version_) }

enum {
    PD_SITE_LINK_TLS = 1u << 0  /* links between nodes use TLS */
};

/* What a unit may ask about the configuration that it stands in. */
struct pd_unit_site {
    uint32_t size;
    uint32_t flags;            /* PD_SITE_* */
    /* Whether a unit of this kind and name is loaded. */
    bool (*has_unit)(const struct pd_unit_site *site, uint32_t kind, const char *name);
};

/* One thing that a module provides.  All units of a module have the same size. */
struct pd_unit {
    uint32_t size;             /* PD_UNIT sets it; 0 ends the list */
    uint32_t kind;             /* PD_KIND_* */
    const char *name;          /* lower case letters, digits and '_'; unique within its kind */
    const struct pd_ops_head *ops;
    const struct pd_option *options;  /* rows, or NULL */
    uint64_t conf_size;        /* of the struct that the rows fill; 0 without rows */
    const char *summary;       /* one sentence */
    const char *const *aliases;       /* other names that a configuration may use, ended by NULL;
                                         letters, digits, '_' and '-'; or NULL */
    /* What rows cannot say: called for each use in a configuration, also by
     * `pdplane -t`.  Returns PD_OK, or fills err.  Must not open, connect or
     * allocate anything that stays.  May be NULL. */
    pd_status (*check)(const void *conf, struct pd_err *err);
    /* As check, for what depends on the rest of the configuration; after it.
     * PD_EDECLINED from a transport: as from its create. */
    pd_status (*check_site)(const void *conf, const struct pd_unit_site *site, struct pd_err *err);
};
#define PD_UNIT(...) { .size = (uint32_t)sizeof(struct pd_unit), __VA_ARGS__ }
#define PD_UNIT_END { .size = 0 }

struct pd_host_api;            /* host.h */

struct pd_module {
    /* These 16 bytes never change. */
    uint32_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t size;
    uint32_t flags;            /* none defined, 0 */

    const char *name;          /* equals the file name without ".so" */
    const char *version;       /* of the module */
    const char *summary;       /* one sentence */
    const struct pd_unit *units;
    const struct pd_host_api **host;  /* where the loader stores the host's table */
    /* Once per process, before any other function of the module.  Returns
     * PD_OK, or fills err: the module is then refused.  May be NULL.  Main
     * thread. */
    pd_status (*load)(struct pd_err *err);
    /* Once at the end of a process in which load succeeded.  May be NULL. */
    void (*unload)(void);
};

/* What an instance gets when it is created.  Valid until its destroy. */
struct pd_instance_ctx {
    uint32_t size;
    uint32_t reserved;
    const char *name;          /* of the instance, unique in its node and kind */
    struct pd_loop *loop;
    struct pd_log *log;        /* lines carry the instance's name */
    struct pd_metrics *metrics;
    struct pd_host *host;      /* the node, for the host table's functions */
    struct pd_node_id node;    /* who this node is; the uuid is never all zero */
};

#if defined(__GNUC__)
#define PD_MODULE_EXPORT __attribute__((visibility("default")))
#define PD_MODULE_HIDDEN __attribute__((visibility("hidden")))
#else
#define PD_MODULE_EXPORT
#define PD_MODULE_HIDDEN
#endif

/* The host's table, in all files of a module; set before load is called. */
extern PD_MODULE_HIDDEN const struct pd_host_api *pd_host_table;
static inline const struct pd_host_api *pd_host(void)
{
    return pd_host_table;
}

/* Once in each module, at file level, without a semicolon behind it.  The
 * arguments are designated members: .name, .version, .summary, .units, and
 * where needed .load and .unload. */
#define PD_MODULE(...) \
    PD_MODULE_HIDDEN const struct pd_host_api *pd_host_table; \
    extern PD_MODULE_EXPORT const struct pd_module pd_module; \
    PD_MODULE_EXPORT const struct pd_module pd_module = { \
        .magic = PD_MODULE_MAGIC, .abi_major = PD_ABI_MAJOR, .abi_minor = PD_ABI_MINOR, \
        .size = (uint32_t)sizeof(struct pd_module), .flags = 0, .host = &pd_host_table, __VA_ARGS__ };

#ifdef __cplusplus
}
#endif
#endif
