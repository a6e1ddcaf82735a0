/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench report: runs of load. */
#include "main/pdbench_report.h"

#include <math.h>

#include "base/mem.h"

#define POINTS_MAX 8192u

struct points {
    double x[POINTS_MAX], y[POINTS_MAX];
    size_t n;
};

/* What is shown of a load, in this order. */
static const struct {
    const char *path, *title;
    double scale;
} figures[] = {
    { "requests", "requests", 1 }, { "ok", "answered", 1 }, { "failed", "failed", 1 },
    { "requests_per_second", "requests/s", 1 }, { "tokens_per_second", "tokens/s", 1 },
    { "ttft.p50", "first token p50, ms", 1e3 }, { "ttft.p90", "first token p90, ms", 1e3 },
    { "ttft.p99", "first token p99, ms", 1e3 }, { "itl.p50", "between tokens p50, ms", 1e3 },
    { "itl.p99", "between tokens p99, ms", 1e3 }, { "e2e.p50", "whole answer p50, ms", 1e3 },
    { "e2e.p99", "whole answer p99, ms", 1e3 }, { "late", "started late", 1 },
    { "client_utilisation", "of a processor taken by the load", 1 },
};
#define FIGURES (sizeof figures / sizeof figures[0])

/* The share of values up to x, from a histogram's buckets. */
static void cumulative(const struct pdbench_run *r, const char *path, struct points *p)
{
    struct pd_json_value list = pdbench_member(&r->root, path), pair, v;
    struct pd_json_iter it, in;
    double sum = 0;
    p->n = 0;
    if (list.type != PD_JSON_ARRAY || pd_json_iter_init(&it, &list) != PD_OK)
        return;
    while (p->n < POINTS_MAX && pd_json_iter_next(&it, NULL, &pair)) {
        double end, count;
        if (pair.type != PD_JSON_ARRAY || pd_json_iter_init(&in, &pair) != PD_OK || !pd_json_iter_next(&in, NULL, &v) ||
            pd_json_get_double(&v, &end) != PD_OK || !pd_json_iter_next(&in, NULL, &v) ||
            pd_json_get_double(&v, &count) != PD_OK)
            continue;
        sum += count;
        p->x[p->n] = end * 1e3;
        p->y[p->n++] = sum;
    }
    for (size_t i = 0; i < p->n; i++)
        p->y[i] /= sum;
}

/* A list of the timeline, by its slices; what is null is left out. */
static void timeline(const struct pdbench_run *r, const char *path, double scale, bool is_rate, struct points *p)
{
    struct pd_json_value list = pdbench_member(&r->root, path), v;
    double slice = pdbench_member_number(&r->root, "timeline.slice_seconds");
    struct pd_json_iter it;
    size_t i = 0;
    p->n = 0;
    if (list.type != PD_JSON_ARRAY || !(slice > 0) || pd_json_iter_init(&it, &list) != PD_OK)
        return;
    for (; p->n < POINTS_MAX && pd_json_iter_next(&it, NULL, &v); i++) {
        double d;
        if (pd_json_get_double(&v, &d) != PD_OK)
            continue;
        p->x[p->n] = (double)i * slice;
        p->y[p->n++] = is_rate ? d / slice : d * scale;
    }
}

static void put_plots(struct pd_buf *out, const struct pdbench_run *runs, size_t n, struct points *points)
{
    static const struct {
        const char *title, *path, *x, *y;
        int kind;                   /* 0 cumulative, 1 rate, 2 milliseconds */
    } plots[] = {
        { "first token: share of requests up to a time", "ttft.buckets", "ms", "share", 0 },
        { "between tokens", "itl.buckets", "ms", "share", 0 },
        { "whole answer", "e2e.buckets", "ms", "share", 0 },
        { "answers per second", "timeline.ok", "s", "1/s", 1 },
        { "failures per second", "timeline.failed", "s", "1/s", 1 },
        { "first token, mean of a slice", "timeline.ttft", "s", "ms", 2 },
    };
    for (size_t k = 0; k < sizeof plots / sizeof plots[0]; k++) {
        struct pd_bench_line lines[PD_BENCH_PLOT_LINES];
        struct pd_bench_plot plot = { .title = plots[k].title, .x_label = plots[k].x, .y_label = plots[k].y,
                                      .is_x_log = plots[k].kind == 0, .y_max = plots[k].kind == 0 ? 1 : 0,
                                      .lines = lines, .n_lines = n };
        for (size_t i = 0; i < n; i++) {
            if (plots[k].kind == 0)
                cumulative(&runs[i], plots[k].path, &points[i]);
            else
                timeline(&runs[i], plots[k].path, 1e3, plots[k].kind == 1, &points[i]);
            lines[i] = (struct pd_bench_line){ points[i].x, points[i].y, points[i].n, runs[i].name };
        }
        (void)pd_bench_plot_svg(&plot, out);
    }
}

static void put_figures(struct pd_buf *out, const struct pdbench_run *runs, size_t n)
{
    pdbench_report_names(out, runs, n, n == 2 ? "second / first" : NULL);
    for (size_t k = 0; k < FIGURES; k++) {
        double v[PD_BENCH_PLOT_LINES];
        pd_buf_appendf(out, "<tr><th>%s</th>", figures[k].title);
        for (size_t i = 0; i < n; i++) {
            v[i] = pdbench_member_number(&runs[i].root, figures[k].path) * figures[k].scale;
            pdbench_report_cell(out, v[i]);
        }
        if (n == 2)
            pdbench_report_cell(out, v[0] != 0 ? v[1] / v[0] : NAN);
        pd_buf_append_cstr(out, "</tr>\n");
    }
    pd_buf_append_cstr(out, "</table>\n");
}

bool pdbench_report_load(struct pd_buf *out, const struct pdbench_run *runs, size_t n)
{
    struct points *points = pd_calloc(PD_BENCH_PLOT_LINES, sizeof *points);
    if (points == NULL)
        return false;
    put_figures(out, runs, n);
    put_plots(out, runs, n, points);
    pd_free(points);
    return true;
}
