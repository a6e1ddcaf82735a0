/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of pdbench share. */
#ifndef PD_MAIN_PDBENCH_H
#define PD_MAIN_PDBENCH_H

#include <pdplane/loop.h>

enum { PDBENCH_OK = 0, PDBENCH_FAILED = 1, PDBENCH_USAGE = 2 };

/* Each runs one command with its own arguments (argv[0] is its name) and
 * returns the exit status. */
int pdbench_engine(int argc, char **argv);
int pdbench_load(int argc, char **argv);
int pdbench_transport(int argc, char **argv);
int pdbench_codec(int argc, char **argv);
int pdbench_sched(int argc, char **argv);
int pdbench_report(int argc, char **argv);

struct pd_buf;
struct pd_json_writer;
/* Adds members that tell where and when a figure was taken: version, processor,
 * kernel, load of the machine. */
void pdbench_conditions(struct pd_loop *loop, struct pd_json_writer *w);
/* Writes a document to standard output; false after a message when it is not whole. */
bool pdbench_print(const char *command, const struct pd_buf *out);

/* Says what is wrong with the command line; PDBENCH_USAGE. */
int pdbench_usage(const char *command, const char *text, const char *what);
/* Read the value of an option; false after a message. */
bool pdbench_number(const char *command, const char *option, const char *text, uint64_t min, uint64_t max,
                    uint64_t *out);
bool pdbench_real(const char *command, const char *option, const char *text, double min, double max, double *out);
bool pdbench_time(const char *command, const char *option, const char *text, pd_time *out);
bool pdbench_bytes(const char *command, const char *option, const char *text, uint64_t max, uint64_t *out);

#endif
