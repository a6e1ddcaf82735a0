/* SPDX-License-Identifier: Apache-2.0 */
/* One module that is measured, and what an instance of it needs. */
#ifndef PD_MAIN_PDBENCH_MODULE_H
#define PD_MAIN_PDBENCH_MODULE_H

#include <pdplane/module.h>

#include "conf/conf.h"
#include "mod/host.h"
#include "mod/mod.h"

struct pdbench_module {
    const char *command;            /* of pdbench, for messages */
    const char *file;               /* a name or a path */
    const char *folder;             /* where modules are looked for, or NULL */
    const char *options;            /* as in pd.conf, or NULL */
    /* What open makes. */
    struct pd_loop *loop;
    struct pd_mods *mods;
    struct pd_conf *conf;
    struct pd_log *log;
    struct pd_metrics *metrics;
    struct pd_host host;
    const struct pd_ops_head *ops;  /* of the module's first unit of the kind */
    struct pd_instance_ctx ctx;     /* for its create */
};

/* Loads the module and reads its options; false after a message. */
bool pdbench_module_open(struct pdbench_module *m, uint32_t kind, const char *name);
/* For its create; NULL without options. */
const void *pdbench_module_conf(const struct pdbench_module *m);
/* The instance is gone. */
void pdbench_module_close(struct pdbench_module *m);
/* Says what is wrong, from err or as a text; false. */
bool pdbench_module_say(const struct pdbench_module *m, const struct pd_err *err, const char *what);

#endif
