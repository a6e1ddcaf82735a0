/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the program pdplane: what its files give each other. */
#ifndef PD_MAIN_MAIN_H
#define PD_MAIN_MAIN_H

#include "conf/conf.h"
#include "mod/mod.h"

enum { PD_EXIT_OK = 0, PD_EXIT_CONF = 1, PD_EXIT_USAGE = 2 };

enum pd_main_action {
    PD_MAIN_RUN,
    PD_MAIN_TEST,               /* -t */
    PD_MAIN_DUMP,               /* -T */
    PD_MAIN_OPTIONS,            /* -O */
    PD_MAIN_MODULES,            /* -M */
    PD_MAIN_VERSION,            /* -V */
    PD_MAIN_SIGNAL,             /* -s */
    PD_MAIN_HELP                /* -h */
};

struct pd_main_options {
    enum pd_main_action action;
    const char *file;           /* -c, or what follows from -p */
    const char *prefix;         /* -p, or NULL */
    const char *operand;        /* MODULE of -O, SIGNAL of -s */
    bool no_manager;            /* -D */
    bool quiet;                 /* -q */
    bool mdoc;                  /* --mdoc */
    char file_buffer[1024];
};

/* Reads the command line; PD_EXIT_OK, or PD_EXIT_USAGE with a message written. */
int pd_main_options_parse(struct pd_main_options *o, int argc, char **argv);
void pd_main_help(FILE *out);

/* -V, -M and -O; exit status. */
int pd_main_version(void);
int pd_main_modules(const struct pd_main_options *o, struct pd_mods *mods);
int pd_main_reference(const struct pd_main_options *o, struct pd_mods *mods);

/* Watches over workers that run the node; argv is theirs, beginning with the
 * program's name.  Exit status. */
int pd_main_manage(const struct pd_main_options *o, char **argv);
/* Runs a node until it is told to stop; exit status. */
int pd_main_run(const struct pd_main_options *o, struct pd_conf *conf, struct pd_mods *mods);

#endif
