/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench report: runs of transport, codec and sched. */
#include "main/pdbench_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "base/units.h"

enum { ROWS_MAX = 64 };

/* The rows of a run, in its order; how many. */
static size_t rows_of(const struct pdbench_run *r, struct pd_json_value *out)
{
    struct pd_json_value list = pdbench_member(&r->root, "rows");
    struct pd_json_iter it;
    size_t n = 0;
    if (list.type != PD_JSON_ARRAY || pd_json_iter_init(&it, &list) != PD_OK)
        return 0;
    while (n < ROWS_MAX && pd_json_iter_next(&it, NULL, &out[n]))
        n++;
    return n;
}

/* Text of a member of type string. */
static void member_text(const struct pd_json_value *v, const char *name, char *out, size_t size)
{
    struct pd_json_value m = pdbench_member(v, name);
    out[0] = '\0';
    if (m.type == PD_JSON_STRING && m.text.n >= 2)
        snprintf(out, size, "%.*s", (int)(m.text.n - 2 < size - 1 ? m.text.n - 2 : size - 1), m.text.p + 1);
}

struct column {
    const char *name, *title;
};

/* One table for a run: a line for each row, named by label. */
static void put_rows(struct pd_buf *out, const struct pdbench_run *r, const struct column *columns, size_t n,
                     void (*label)(const struct pd_json_value *row, char *text, size_t size))
{
    static struct pd_json_value rows[ROWS_MAX];
    size_t count = rows_of(r, rows);
    char text[96];
    pd_buf_append_cstr(out, "<table><tr><th>");
    pd_bench_html_text(out, pd_str_from(r->name));
    pd_buf_append_cstr(out, "</th>");
    for (size_t k = 0; k < n; k++)
        pd_buf_appendf(out, "<th>%s</th>", columns[k].title);
    pd_buf_append_cstr(out, "</tr>\n");
    for (size_t i = 0; i < count; i++) {
        label(&rows[i], text, sizeof text);
        pd_buf_append_cstr(out, "<tr><th>");
        pd_bench_html_text(out, pd_str_from(text));
        pd_buf_append_cstr(out, "</th>");
        for (size_t k = 0; k < n; k++)
            pdbench_report_cell(out, pdbench_member_number(&rows[i], columns[k].name));
        pd_buf_append_cstr(out, "</tr>\n");
    }
    pd_buf_append_cstr(out, "</table>\n");
}

/* ---- transports */

static bool is_scattered(const struct pd_json_value *row)
{
    struct pd_json_value v = pdbench_member(row, "scattered");
    return v.text.n == 4;           /* true */
}

static void transport_label(const struct pd_json_value *row, char *text, size_t size)
{
    char bytes[PD_UNITS_TEXT];
    snprintf(text, size, "%s, %s", pd_units_format_bytes((uint64_t)pdbench_member_number(row, "segment"), bytes),
             is_scattered(row) ? "scattered" : "in order");
}

/* GB/s by the size of segments: the modules, and memcpy of the first run. */
static void transport_plot(struct pd_buf *out, const struct pdbench_run *runs, size_t n, bool scattered)
{
    static struct pd_json_value rows[ROWS_MAX];
    static double x[PD_BENCH_PLOT_LINES][ROWS_MAX], y[PD_BENCH_PLOT_LINES][ROWS_MAX];
    struct pd_bench_line lines[PD_BENCH_PLOT_LINES];
    struct pd_bench_plot plot = { .title = scattered ? "segments scattered" : "segments in order",
                                  .x_label = "bytes of a segment", .y_label = "GB/s", .is_x_log = true, .lines = lines };
    for (size_t i = 0; i < n + 1 && plot.n_lines < PD_BENCH_PLOT_LINES; i++) {
        const struct pdbench_run *r = &runs[i < n ? i : 0];
        size_t count = rows_of(r, rows), k = plot.n_lines++, points = 0;
        for (size_t j = 0; j < count; j++) {
            if (is_scattered(&rows[j]) != scattered)
                continue;
            x[k][points] = pdbench_member_number(&rows[j], "segment");
            y[k][points++] = pdbench_member_number(&rows[j], i < n ? "module" : "memcpy");
        }
        lines[k] = (struct pd_bench_line){ x[k], y[k], points, i < n ? r->name : "memcpy (of the first)" };
    }
    (void)pd_bench_plot_svg(&plot, out);
}

bool pdbench_report_transport(struct pd_buf *out, const struct pdbench_run *runs, size_t n)
{
    static const struct column columns[] = {
        { "module", "module, GB/s" }, { "memcpy", "memcpy, GB/s" }, { "process_vm_readv", "readv, GB/s" },
        { "stream", "plain stream, GB/s" }, { "of_memcpy", "module / memcpy" },
        { "segments_per_second", "segments/s" }, { "cpu_seconds_per_gb_here", "CPU s/GB here" },
        { "cpu_seconds_per_gb_there", "there" },
    };
    for (size_t i = 0; i < n; i++)
        put_rows(out, &runs[i], columns, sizeof columns / sizeof columns[0], transport_label);
    transport_plot(out, runs, n, false);
    transport_plot(out, runs, n, true);
    return true;
}

/* ---- codecs */

static void codec_label(const struct pd_json_value *row, char *text, size_t size)
{
    char dtype[32], order[32];
    member_text(row, "dtype", dtype, sizeof dtype);
    member_text(row, "order", order, sizeof order);
    snprintf(text, size, "%s, %s", dtype, order);
}

bool pdbench_report_codec(struct pd_buf *out, const struct pdbench_run *runs, size_t n)
{
    static const struct column columns[] = {
        { "ratio", "ratio" }, { "encode", "encode, GB/s" }, { "decode", "decode, GB/s" }, { "memcpy", "memcpy, GB/s" },
        { "encode_of_memcpy", "encode / memcpy" }, { "decode_of_memcpy", "decode / memcpy" },
        { "max_error", "largest error" }, { "mean_error", "mean error" },
    };
    static const char *const series[] = { "encode", "decode", "memcpy" };
    static struct pd_json_value rows[ROWS_MAX];
    static char names[ROWS_MAX][96];
    static double v[ROWS_MAX * 3];
    const char *groups[ROWS_MAX];
    for (size_t i = 0; i < n; i++) {
        size_t count = rows_of(&runs[i], rows);
        struct pd_bench_bars bars = { .title = runs[i].name, .y_label = "plain GB/s of a core", .series = series,
                                      .n_series = 3, .groups = groups, .n_groups = count, .values = v };
        put_rows(out, &runs[i], columns, sizeof columns / sizeof columns[0], codec_label);
        for (size_t j = 0; j < count; j++) {
            codec_label(&rows[j], names[j], sizeof names[j]);
            groups[j] = names[j];
            for (size_t k = 0; k < 3; k++)
                v[j * 3 + k] = pdbench_member_number(&rows[j], series[k]);
        }
        (void)pd_bench_bars_svg(&bars, out);
    }
    return true;
}

/* ---- scheduler */

static const struct {
    const char *path, *title;
    double scale;
} figures[] = {
    { "endpoints", "endpoints", 1 }, { "decisions", "decisions", 1 }, { "decisions_per_second", "decisions/s", 1 },
    { "mean_ns", "mean, us", 1e-3 }, { "p50_ns", "p50, us", 1e-3 }, { "p99_ns", "p99, us", 1e-3 },
    { "p99.9_ns", "p99.9, us", 1e-3 }, { "with_prefill", "part with a prefill node", 1 },
    { "blocks_matched", "part of blocks found in the index", 1 }, { "no_endpoint", "without an endpoint", 1 },
    { "hash_gb_per_second", "hashing of prompts, GB/s", 1 },
};

/* A member whose name may have a dot in it. */
static double figure(const struct pdbench_run *r, const char *name)
{
    struct pd_json_value v;
    double d;
    return pd_json_find(&r->root, name, &v) == PD_OK && pd_json_get_double(&v, &d) == PD_OK ? d : NAN;
}

bool pdbench_report_sched(struct pd_buf *out, const struct pdbench_run *runs, size_t n)
{
    static const char *const series[] = { "p50", "p99", "p99.9" };
    static char names[PD_BENCH_PLOT_LINES][96];
    double v[PD_BENCH_PLOT_LINES * 3];
    const char *groups[PD_BENCH_PLOT_LINES];
    struct pd_bench_bars bars = { .title = "one decision", .y_label = "us", .series = series, .n_series = 3,
                                  .groups = groups, .n_groups = n, .values = v };
    pdbench_report_names(out, runs, n, NULL);
    for (size_t k = 0; k < sizeof figures / sizeof figures[0]; k++) {
        pd_buf_appendf(out, "<tr><th>%s</th>", figures[k].title);
        for (size_t i = 0; i < n; i++)
            pdbench_report_cell(out, figure(&runs[i], figures[k].path) * figures[k].scale);
        pd_buf_append_cstr(out, "</tr>\n");
    }
    pd_buf_append_cstr(out, "</table>\n");
    for (size_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "%.40s", runs[i].name);
        groups[i] = names[i];
        for (size_t k = 0; k < 3; k++) {
            char path[16];
            snprintf(path, sizeof path, "%s_ns", series[k]);
            v[i * 3 + k] = figure(&runs[i], path) / 1e3;
        }
    }
    (void)pd_bench_bars_svg(&bars, out);
    return true;
}
