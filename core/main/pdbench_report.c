/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench report: saved runs as one HTML file that needs nothing else. */
#include "main/pdbench.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "bench/plot.h"
#include "os/file.h"

#define FILE_MAX (64u << 20)
#define POINTS_MAX 8192u

struct points {
    double x[POINTS_MAX], y[POINTS_MAX];
    size_t n;
};

struct run {
    const char *path;
    const char *name;               /* of the file, without folders */
    struct pd_buf text;
    struct pd_json_value root;
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

/* Members along a path with dots; a value of type NONE when there is none. */
static struct pd_json_value member(const struct pd_json_value *v, const char *path)
{
    struct pd_str rest = pd_str_from(path), key;
    struct pd_json_value at = *v, next;
    char name[64];
    while (at.type != PD_JSON_NONE && pd_str_split(&rest, '.', &key)) {
        if (pd_str_copy(key, name, sizeof name) != PD_OK || pd_json_find(&at, name, &next) != PD_OK)
            memset(&next, 0, sizeof next);
        at = next;
    }
    return at;
}

static double number(const struct pd_json_value *v, const char *path)
{
    struct pd_json_value m = member(v, path);
    double d;
    return pd_json_get_double(&m, &d) == PD_OK ? d : NAN;
}

/* ---- plots */

/* The share of values up to x, from a histogram's buckets. */
static void cumulative(const struct run *r, const char *path, struct points *p)
{
    struct pd_json_value list = member(&r->root, path), pair, v;
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
static void timeline(const struct run *r, const char *path, double scale, bool is_rate, struct points *p)
{
    struct pd_json_value list = member(&r->root, path), v;
    double slice = number(&r->root, "timeline.slice_seconds");
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

static void put_plots(struct pd_buf *out, const struct run *runs, size_t n, struct points *points)
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

/* ---- tables */

static void put_cell(struct pd_buf *out, double v)
{
    if (isnan(v))
        pd_buf_append_cstr(out, "<td>-</td>");
    else
        pd_buf_appendf(out, "<td>%.6g</td>", v);
}

static void put_names(struct pd_buf *out, const struct run *runs, size_t n, bool has_ratio)
{
    pd_buf_append_cstr(out, "<table><tr><th></th>");
    for (size_t i = 0; i < n; i++) {
        pd_buf_append_cstr(out, "<th>");
        pd_bench_html_text(out, pd_str_from(runs[i].name));
        pd_buf_append_cstr(out, "</th>");
    }
    pd_buf_append_cstr(out, has_ratio ? "<th>second / first</th></tr>\n" : "</tr>\n");
}

static void put_figures(struct pd_buf *out, const struct run *runs, size_t n)
{
    put_names(out, runs, n, n == 2);
    for (size_t k = 0; k < FIGURES; k++) {
        double v[PD_BENCH_PLOT_LINES];
        pd_buf_appendf(out, "<tr><th>%s</th>", figures[k].title);
        for (size_t i = 0; i < n; i++) {
            v[i] = number(&runs[i].root, figures[k].path) * figures[k].scale;
            put_cell(out, v[i]);
        }
        if (n == 2)
            put_cell(out, v[0] != 0 ? v[1] / v[0] : NAN);
        pd_buf_append_cstr(out, "</tr>\n");
    }
    pd_buf_append_cstr(out, "</table>\n");
}

static void put_conditions(struct pd_buf *out, const struct run *runs, size_t n)
{
    pd_buf_append_cstr(out, "<h2>Conditions</h2>\n");
    for (size_t i = 0; i < n; i++) {
        struct pd_json_value c = member(&runs[i].root, "conditions"), key, v;
        struct pd_json_iter it;
        put_names(out, &runs[i], 1, false);
        if (c.type == PD_JSON_OBJECT && pd_json_iter_init(&it, &c) == PD_OK)
            while (pd_json_iter_next(&it, &key, &v)) {
                pd_buf_append_cstr(out, "<tr><th>");
                pd_bench_html_text(out, pd_str_sub(key.text, 1, key.text.n - 2));
                pd_buf_append_cstr(out, "</th><td>");
                pd_bench_html_text(out, v.text);
                pd_buf_append_cstr(out, "</td></tr>\n");
            }
        pd_buf_append_cstr(out, "</table>\n");
    }
}

static bool put_page(struct pd_buf *out, const struct run *runs, size_t n)
{
    struct points *points = pd_calloc(PD_BENCH_PLOT_LINES, sizeof *points);
    if (points == NULL)
        return false;
    pd_buf_append_cstr(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pdbench report</title>\n"
                            "<style>body{font:14px sans-serif;margin:2em;max-width:1320px}svg{margin:6px;font:11px sans-serif}"
                            "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:3px 8px;"
                            "text-align:right}th:first-child{text-align:left;font-weight:normal}</style></head><body>\n"
                            "<h1>pdbench report</h1>\n");
    put_figures(out, runs, n);
    put_plots(out, runs, n, points);
    put_conditions(out, runs, n);
    pd_free(points);
    return pd_buf_append_cstr(out, "</body></html>\n") == PD_OK;
}

/* ---- the command line */

static void help(void)
{
    fputs("usage: pdbench report [OPTION...] RUN...\n"
          "\n"
          "Writes saved runs (the output of pdbench load --json) as one HTML file with tables and plots, which\n"
          "needs nothing else to be shown.  Of two runs it shows the ratios, too.\n"
          "\n"
          "options:\n"
          "  -o, --output FILE   [standard output]\n"
          "  -h, --help          print this\n"
          "\n"
          "exit status: 0 done, 1 a file cannot be read, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdbench load -u http://127.0.0.1:8000 -s --json >before.json\n"
          "  pdbench report -o report.html before.json after.json\n",
          stdout);
}

static bool run_read(struct run *r, const char *path)
{
    static const char *const paths[] = { "kind", "" };
    struct pd_json_value v[2];
    struct pd_json_error error;
    const char *slash = strrchr(path, '/');
    r->path = path;
    r->name = slash != NULL ? slash + 1 : path;
    pd_buf_init(&r->text, FILE_MAX);
    pd_status status = pd_file_read(path, FILE_MAX, &r->text, NULL);
    if (status != PD_OK) {
        fprintf(stderr, "pdbench report: cannot read %s: %s\n", path, pd_status_text(status));
        return false;
    }
    if (pd_json_scan(pd_buf_str(&r->text), NULL, paths, 2, v, &error) != PD_OK) {
        fprintf(stderr, "pdbench report: %s:%u: %s\n", path, error.line, error.text);
        return false;
    }
    r->root = v[1];
    if (!pd_json_is_str(&v[0], "load")) {
        fprintf(stderr, "pdbench report: %s is no run of pdbench load --json\n", path);
        return false;
    }
    return true;
}

int pdbench_report(int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' }, { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
    };
    static struct run runs[PD_BENCH_PLOT_LINES];
    const char *path = NULL;
    struct pd_buf out;
    int c;
    while ((c = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        if (c == 'h') {
            help();
            return PDBENCH_OK;
        }
        if (c != 'o') {
            fputs("try \"pdbench report --help\"\n", stderr);
            return PDBENCH_USAGE;
        }
        path = optarg;
    }
    size_t n = (size_t)(argc - optind);
    if (n == 0 || n > PD_BENCH_PLOT_LINES)
        return pdbench_usage("report", n == 0 ? "a saved run is missing" : "at most 8 runs are shown", NULL);
    bool is_good = true;
    for (size_t i = 0; i < n && is_good; i++)
        is_good = run_read(&runs[i], argv[optind + (int)i]);
    pd_buf_init(&out, FILE_MAX);
    is_good = is_good && put_page(&out, runs, n);
    FILE *f = !is_good || path == NULL ? stdout : fopen(path, "w");
    if (f == NULL) {
        fprintf(stderr, "pdbench report: cannot write %s\n", path);
        is_good = false;
    } else if (is_good) {
        is_good = fwrite(out.p, 1, out.n, f) == out.n && (f == stdout ? fflush(f) : fclose(f)) == 0;
    }
    pd_buf_fini(&out);
    for (size_t i = 0; i < n; i++)
        pd_buf_fini(&runs[i].text);
    return is_good ? PDBENCH_OK : PDBENCH_FAILED;
}
