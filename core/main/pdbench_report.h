/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench report: saved runs, and what is shown of each kind. */
#ifndef PD_MAIN_PDBENCH_REPORT_H
#define PD_MAIN_PDBENCH_REPORT_H

#include "base/buf.h"
#include "base/json.h"
#include "bench/plot.h"

struct pdbench_run {
    const char *path;
    const char *name;               /* of the file, without folders */
    struct pd_buf text;
    struct pd_json_value root;
    struct pd_str kind;             /* "load", "transport" ... */
};

/* A member along a path with dots; of type NONE when there is none. */
struct pd_json_value pdbench_member(const struct pd_json_value *v, const char *path);
/* The same as a number; NAN when it is none. */
double pdbench_member_number(const struct pd_json_value *v, const char *path);

/* One cell of a table; "-" for what is no number. */
void pdbench_report_cell(struct pd_buf *out, double v);
/* Begins a table: an empty cell, and the runs' names. */
void pdbench_report_names(struct pd_buf *out, const struct pdbench_run *runs, size_t n, const char *more);

/* Tables and plots of runs of one kind, at most PD_BENCH_PLOT_LINES; false: no memory. */
bool pdbench_report_load(struct pd_buf *out, const struct pdbench_run *runs, size_t n);
bool pdbench_report_transport(struct pd_buf *out, const struct pdbench_run *runs, size_t n);
bool pdbench_report_codec(struct pd_buf *out, const struct pdbench_run *runs, size_t n);
bool pdbench_report_sched(struct pd_buf *out, const struct pdbench_run *runs, size_t n);

#endif
