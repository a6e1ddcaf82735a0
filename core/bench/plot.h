/* SPDX-License-Identifier: Apache-2.0 */
/* Line plots as SVG inside of HTML; nothing outside of the text is needed to
 * show them.  Any thread. */
#ifndef PD_BENCH_PLOT_H
#define PD_BENCH_PLOT_H

#include "base/buf.h"

#define PD_BENCH_PLOT_LINES 8u

struct pd_bench_line {
    const double *x, *y;        /* borrowed; points that are no numbers are left out */
    size_t n;
    const char *name;
};

struct pd_bench_plot {
    const char *title, *x_label, *y_label;
    bool is_x_log;              /* x above 0 only */
    double y_max;               /* 0: what the lines need */
    const struct pd_bench_line *lines;
    size_t n_lines;             /* at most PD_BENCH_PLOT_LINES */
};

/* Appends one svg element.  Returns what the buffer returns. */
pd_status pd_bench_plot_svg(const struct pd_bench_plot *plot, struct pd_buf *out);
struct pd_bench_bars {
    const char *title, *y_label;
    const char *const *series, *const *groups;  /* borrowed names */
    size_t n_series;            /* at most PD_BENCH_PLOT_LINES */
    size_t n_groups;
    const double *values;       /* n_series for each group; what is no number has no bar */
};

/* Bars in groups, from 0; the number stands above each. */
pd_status pd_bench_bars_svg(const struct pd_bench_bars *bars, struct pd_buf *out);
/* Appends text with what HTML would read replaced. */
void pd_bench_html_text(struct pd_buf *out, struct pd_str text);

#endif
