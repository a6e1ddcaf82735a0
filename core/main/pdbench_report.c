/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench report: saved runs as one HTML file that needs nothing else. */
#include "main/pdbench_report.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "main/pdbench.h"
#include "os/file.h"

#define FILE_MAX (64u << 20)
enum { RUNS_MAX = 32 };

/* Kinds of runs, in the order of the page. */
static const struct {
    const char *name, *title;
    bool (*put)(struct pd_buf *out, const struct pdbench_run *runs, size_t n);
} kinds[] = {
    { "load", "Load", pdbench_report_load },
    { "transport", "Transports", pdbench_report_transport },
    { "codec", "Codecs", pdbench_report_codec },
    { "sched", "Scheduler", pdbench_report_sched },
};
#define KINDS (sizeof kinds / sizeof kinds[0])

struct pd_json_value pdbench_member(const struct pd_json_value *v, const char *path)
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

double pdbench_member_number(const struct pd_json_value *v, const char *path)
{
    struct pd_json_value m = pdbench_member(v, path);
    double d;
    return pd_json_get_double(&m, &d) == PD_OK ? d : NAN;
}

void pdbench_report_cell(struct pd_buf *out, double v)
{
    if (!isfinite(v))
        pd_buf_append_cstr(out, "<td>-</td>");
    else
        pd_buf_appendf(out, fabs(v) >= 1000 || v == floor(v) ? "<td>%.0f</td>" : "<td>%.4g</td>", v);
}

void pdbench_report_names(struct pd_buf *out, const struct pdbench_run *runs, size_t n, const char *more)
{
    pd_buf_append_cstr(out, "<table><tr><th></th>");
    for (size_t i = 0; i < n; i++) {
        pd_buf_append_cstr(out, "<th>");
        pd_bench_html_text(out, pd_str_from(runs[i].name));
        pd_buf_append_cstr(out, "</th>");
    }
    if (more != NULL)
        pd_buf_appendf(out, "<th>%s</th>", more);
    pd_buf_append_cstr(out, "</tr>\n");
}

/* Text as a JSON value stands for it. */
static struct pd_str plain(const struct pd_json_value *v)
{
    return v->type == PD_JSON_STRING ? pd_str_sub(v->text, 1, v->text.n - 2) : v->text;
}

/* A line for each condition that any run has, a column for each run. */
static void put_conditions(struct pd_buf *out, const struct pdbench_run *runs, size_t n)
{
    pd_buf_append_cstr(out, "<h2>Conditions</h2>\n");
    pdbench_report_names(out, runs, n, NULL);
    for (size_t i = 0; i < n; i++) {
        struct pd_json_value all = pdbench_member(&runs[i].root, "conditions"), key, v;
        struct pd_json_iter it;
        if (all.type != PD_JSON_OBJECT || pd_json_iter_init(&it, &all) != PD_OK)
            continue;
        while (pd_json_iter_next(&it, &key, &v)) {
            char path[96];
            bool is_known = false;
            if (snprintf(path, sizeof path, "conditions.%.*s", PD_STR_ARG(plain(&key))) >= (int)sizeof path)
                continue;
            for (size_t j = 0; j < i; j++)
                is_known |= pdbench_member(&runs[j].root, path).type != PD_JSON_NONE;
            if (is_known)
                continue;
            pd_buf_append_cstr(out, "<tr><th>");
            pd_bench_html_text(out, plain(&key));
            pd_buf_append_cstr(out, "</th>");
            for (size_t j = 0; j < n; j++) {
                struct pd_json_value c = pdbench_member(&runs[j].root, path);
                pd_buf_append_cstr(out, "<td>");
                pd_bench_html_text(out, c.type != PD_JSON_NONE ? plain(&c) : PD_STR("-"));
                pd_buf_append_cstr(out, "</td>");
            }
            pd_buf_append_cstr(out, "</tr>\n");
        }
    }
    pd_buf_append_cstr(out, "</table>\n");
}

/* Runs of one kind, as they were given; how many. */
static size_t runs_of(const struct pdbench_run *runs, size_t n, const char *kind, struct pdbench_run *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (pd_str_is(runs[i].kind, kind))
            out[k++] = runs[i];
    return k;
}

static bool put_page(struct pd_buf *out, const struct pdbench_run *runs, size_t n)
{
    static struct pdbench_run some[RUNS_MAX];
    pd_buf_append_cstr(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pdbench report</title>\n"
                            "<style>body{font:14px sans-serif;margin:2em;max-width:1320px}svg{margin:6px;font:11px sans-serif}"
                            "svg text{paint-order:stroke;stroke:#fff;stroke-width:3px}"
                            "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:3px 8px;"
                            "text-align:right}th:first-child{text-align:left;font-weight:normal}</style></head><body>\n"
                            "<h1>pdbench report</h1>\n");
    for (size_t k = 0; k < KINDS; k++) {
        size_t count = runs_of(runs, n, kinds[k].name, some);
        if (count == 0)
            continue;
        pd_buf_appendf(out, "<h2>%s</h2>\n", kinds[k].title);
        if (!kinds[k].put(out, some, count))
            return false;
    }
    put_conditions(out, runs, n);
    pd_buf_append_cstr(out, "</body></html>\n");
    return out->status == PD_OK;
}

/* ---- the command line */

static void help(void)
{
    fputs("usage: pdbench report [OPTION...] RUN...\n"
          "\n"
          "Writes saved runs (the output of load, transport, codec and sched with --json) as one HTML file with\n"
          "tables and plots, which needs nothing else to be shown.  Of two loads it shows the ratios, too.\n"
          "\n"
          "options:\n"
          "  -o, --output FILE   [standard output]\n"
          "  -h, --help          print this\n"
          "\n"
          "exit status: 0 done, 1 a file cannot be read, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdbench load -u http://127.0.0.1:8000 -s --json >before.json\n"
          "  pdbench report -o report.html before.json after.json\n"
          "  pdbench transport --json shm >shm.json; pdbench codec --json planes >planes.json\n"
          "  pdbench report -o report.html shm.json planes.json\n",
          stdout);
}

static bool run_read(struct pdbench_run *r, const char *path)
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
    for (size_t k = 0; k < KINDS; k++)
        if (pd_json_is_str(&v[0], kinds[k].name)) {
            r->kind = pd_str_from(kinds[k].name);
            return true;
        }
    fprintf(stderr, "pdbench report: %s is no run that pdbench saved with --json\n", path);
    return false;
}

/* Of each kind a plot has room for so many. */
static bool are_too_many(const struct pdbench_run *runs, size_t n)
{
    static struct pdbench_run some[RUNS_MAX];
    for (size_t k = 0; k < KINDS; k++)
        if (runs_of(runs, n, kinds[k].name, some) > PD_BENCH_PLOT_LINES) {
            fprintf(stderr, "pdbench report: at most %u runs of %s are shown\n", PD_BENCH_PLOT_LINES, kinds[k].name);
            return true;
        }
    return false;
}

static bool say_memory(void)
{
    fputs("pdbench report: out of memory\n", stderr);
    return false;
}

static bool page_write(const char *path, const struct pd_buf *page)
{
    if (path == NULL)
        return pdbench_print("report", page);
    FILE *f = fopen(path, "w");
    bool is_good = f != NULL && fwrite(page->p, 1, page->n, f) == page->n;
    is_good = (f == NULL || fclose(f) == 0) && is_good;
    if (!is_good)
        fprintf(stderr, "pdbench report: cannot write %s: %s\n", path, strerror(errno));
    return is_good;
}

int pdbench_report(int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' }, { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
    };
    static struct pdbench_run runs[RUNS_MAX];
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
    if (n == 0 || n > RUNS_MAX)
        return pdbench_usage("report", n == 0 ? "a saved run is missing" : "at most 32 runs are shown", NULL);
    bool is_good = true;
    for (size_t i = 0; i < n && is_good; i++)
        is_good = run_read(&runs[i], argv[optind + (int)i]);
    pd_buf_init(&out, FILE_MAX);
    if (is_good && are_too_many(runs, n))
        is_good = false;
    else if (is_good && !put_page(&out, runs, n))
        is_good = say_memory();
    is_good = is_good && page_write(path, &out);
    pd_buf_fini(&out);
    for (size_t i = 0; i < n; i++)
        pd_buf_fini(&runs[i].text);
    return is_good ? PDBENCH_OK : PDBENCH_FAILED;
}
