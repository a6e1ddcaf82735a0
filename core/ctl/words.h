/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of the control socket as words: names, arguments, help.  The node
 * and pdctl both use this table; what a command does is in commands.c.  Any
 * thread. */
#ifndef PD_CTL_WORDS_H
#define PD_CTL_WORDS_H

#include "base/buf.h"

#define PD_CTL_LINE_MAX 1024u   /* bytes of a command line without its end */
#define PD_CTL_WORDS_MAX 8u     /* words of a command line, name included */

enum pd_ctl_command {
    PD_CTL_STATUS,
    PD_CTL_NODES,
    PD_CTL_ENDPOINTS,
    PD_CTL_DISCOVERY,
    PD_CTL_REQUESTS,
    PD_CTL_EXPLAIN,
    PD_CTL_TRANSFERS,
    PD_CTL_LEASES,
    PD_CTL_MODULES,
    PD_CTL_GENERATIONS,
    PD_CTL_LOG,
    PD_CTL_RELOAD,
    PD_CTL_DRAIN,
    PD_CTL_STOP,
    PD_CTL_HELP,
    PD_CTL_COMMANDS
};

struct pd_ctl_word {
    const char *name;
    const char *args;           /* as usage shows them, may be "" */
    uint32_t min_args;
    uint32_t max_args;
    const char *summary;        /* one line, no full stop */
    const char *help;           /* sentences */
    const char *example;
};

/* The command's row; index below PD_CTL_COMMANDS. */
const struct pd_ctl_word *pd_ctl_word(uint32_t index);
/* The index of a name, PD_CTL_COMMANDS when there is none; err (may be NULL)
 * then says so and names the nearest one. */
uint32_t pd_ctl_word_find(struct pd_str name, struct pd_err *err);
/* Whether n arguments fit the command; err (may be NULL) says what it wants. */
bool pd_ctl_word_fits(uint32_t index, uint32_t n, struct pd_err *err);

/* The list of all commands, or the help of one, as text. */
void pd_ctl_words_list(struct pd_buf *out);
void pd_ctl_word_help(uint32_t index, struct pd_buf *out);

#endif
