/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of pdsim give each other. */
#ifndef PD_MAIN_PDSIM_H
#define PD_MAIN_PDSIM_H

#include "whatif/work.h"
#include "whatif/world.h"

enum { PDSIM_OK = 0, PDSIM_FAILED = 1, PDSIM_USAGE = 2 };

enum { PDSIM_VARIANTS_MAX = 16, PDSIM_CHANGES_MAX = 32, PDSIM_FAULTS_MAX = 64 };

struct pdsim_variant {
    const char *file;
    const char *change;         /* of --set; NULL: the file as it is */
};

struct pdsim_options {
    struct pdsim_variant variants[PDSIM_VARIANTS_MAX];
    uint32_t n_variants;
    const char *changes[PDSIM_CHANGES_MAX]; /* of --set-all */
    uint32_t n_changes;
    struct pd_whatif_fault faults[PDSIM_FAULTS_MAX];
    uint32_t n_faults;
    const char *prefix;
    const char *classes;
    const char *server;         /* text of one class */
    const char *trace;
    double speed;
    struct pd_whatif_work_opts work;
    const char *model;
    struct pd_whatif_slo slo;
    uint64_t latency, jitter, bandwidth, concurrency, warmup, timeout;
    bool is_whole, is_verbose, is_quiet, is_json, is_help, is_version, is_reference, is_mdoc;
};

/* Reads the command line; PDSIM_OK, or PDSIM_USAGE with a message written.  Faults
 * keep parts of argv, whose "@" and "=" are replaced. */
int pdsim_options_parse(struct pdsim_options *o, int argc, char **argv);
void pdsim_help(void);

#endif
