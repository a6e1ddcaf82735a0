/* SPDX-License-Identifier: Apache-2.0 */
/* pdsim: what a router's configuration does with given traffic, in the simulator.
 * Wiring only; what is simulated is in core/whatif. */
#include "main/pdsim.h"

#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/units.h"
#include "conf/report.h"
#include "config.h"
#include "os/file.h"
#include "os/proc.h"
#include "os/signal.h"
#include "whatif/report.h"

#define TRACE_MAX (1u << 30)
#define OUT_MAX (64u << 20)
#define LABEL_MAX 512u

struct run {
    const struct pdsim_options *o;
    struct pd_whatif_setup setups[PDSIM_VARIANTS_MAX];
    struct pd_whatif_result *results[PDSIM_VARIANTS_MAX];
    char labels[PDSIM_VARIANTS_MAX][LABEL_MAX];
    struct pd_conf *classes, *usual;
    struct pd_whatif_work work;
    uint64_t shown;             /* processor time at the last progress line */
    uint32_t now;               /* variant that runs */
};

static bool out_of_memory(void)
{
    fputs("pdsim: out of memory\n", stderr);
    return false;
}

/* ---- what goes in ----------------------------------------------------------------------- */

/* Says what was found and frees the report. */
static bool report_end(struct pd_conf_report *report, pd_status status)
{
    pd_conf_report_print(report, stderr);
    if (status != PD_OK && report->n_errors == 0)
        fprintf(stderr, "pdsim: %s\n", pd_status_text(status));
    pd_conf_report_fini(report);
    return status == PD_OK;
}

static bool classes_read(struct run *run)
{
    const struct pdsim_options *o = run->o;
    struct pd_conf_report report;
    pd_status status = PD_OK;
    pd_conf_report_init(&report);
    if (o->classes != NULL)
        status = pd_whatif_classes_read(o->classes, NULL, &report, &run->classes);
    if (status == PD_OK && o->server != NULL) {
        struct pd_str text = pd_str_from(o->server);
        status = pd_whatif_classes_read("--server", &text, &report, &run->usual);
    } else if (status == PD_OK) {
        status = pd_whatif_class_default(&report, &run->usual);
    }
    return report_end(&report, status);
}

static bool setups_read(struct run *run)
{
    const struct pdsim_options *o = run->o;
    const struct pd_conf_source src = { .prefix = o->prefix };
    for (uint32_t i = 0; i < o->n_variants; i++) {
        const struct pdsim_variant *v = &o->variants[i];
        const char *changes[PDSIM_CHANGES_MAX + 1];
        struct pd_conf_report report;
        memcpy(changes, o->changes, o->n_changes * sizeof *changes);
        changes[o->n_changes] = v->change;
        snprintf(run->labels[i], LABEL_MAX, "%s%s%s", v->file, v->change != NULL ? " with " : "",
                 v->change != NULL ? v->change : "");
        for (char *p = run->labels[i]; *p != '\0'; p++)
            *p = *p == '\n' || *p == '\t' ? ' ' : *p;
        pd_conf_report_init(&report);
        pd_status status = pd_whatif_setup_open(v->file, &src, changes, o->n_changes + (v->change != NULL), &report,
                                                &run->setups[i]);
        if (!report_end(&report, status))
            return false;
    }
    return true;
}

/* The model that clients ask for. */
static const char *model_of(const struct run *run)
{
    const struct pd_node_conf *root = run->setups[0].root;
    if (run->o->model != NULL)
        return run->o->model;
    for (uint64_t i = 0; i < root->endpoints.count; i++) {
        const struct pd_conf_strings *m = &PD_CONF_ITEM(&root->endpoints, struct pd_node_endpoint_conf, i)->models;
        if (m->count > 0)
            return m->items[0];
    }
    return "model";
}

static bool work_read(struct run *run)
{
    const struct pdsim_options *o = run->o;
    struct pd_err err = { 0 };
    struct pd_buf text;
    pd_status status;
    if (o->trace == NULL) {
        status = pd_whatif_work_make(&o->work, &run->work);
        if (status != PD_OK)
            fprintf(stderr, "pdsim: the traffic cannot be made: %s\n", pd_status_text(status));
        return status == PD_OK;
    }
    pd_buf_init(&text, TRACE_MAX);
    status = pd_file_read(o->trace, TRACE_MAX, &text, NULL);
    if (status != PD_OK)
        fprintf(stderr, "pdsim: cannot read %s: %s\n", o->trace, pd_status_text(status));
    else if ((status = pd_whatif_work_read(pd_buf_str(&text), o->speed, &run->work, &err)) != PD_OK)
        fprintf(stderr, "%s:%u: error: %s\n", o->trace, err.line,
                status == PD_EINVAL ? err.text : pd_status_text(status));
    pd_buf_fini(&text);
    return status == PD_OK;
}

/* A fault that hits nothing is a slip of the finger. */
static bool faults_check(const struct run *run)
{
    for (uint32_t i = 0; i < run->o->n_faults; i++) {
        bool is_there = false;
        for (uint32_t k = 0; k < run->o->n_variants; k++) {
            const struct pd_conf_list *list = &run->setups[k].root->endpoints;
            for (uint64_t e = 0; e < list->count; e++)
                is_there |= fnmatch(run->o->faults[i].endpoints,
                                    PD_CONF_ITEM(list, struct pd_node_endpoint_conf, e)->name, 0) == 0;
        }
        if (is_there)
            continue;
        fprintf(stderr, "pdsim: there is no endpoint \"%s\" that a fault could hit\n", run->o->faults[i].endpoints);
        return false;
    }
    return true;
}

/* ---- running ------------------------------------------------------------------------------ */

static void on_line(void *arg, pd_time now, struct pd_str line)
{
    (void)arg;
    fprintf(stderr, "%.3f %.*s\n", (double)(int64_t)now / 1e9, PD_STR_ARG(line));
}

static void on_progress(void *arg, uint64_t done, pd_time now)
{
    struct run *run = arg;
    char text[PD_UNITS_TEXT];
    pd_time cpu = pd_proc_cpu_time();
    if (cpu - run->shown < PD_SEC / 2)
        return;
    run->shown = cpu;
    fprintf(stderr, "\r\033[K%u of %u: %llu of %llu requests, %s simulated", run->now + 1, run->o->n_variants,
            (unsigned long long)done, (unsigned long long)run->work.trace.n_rows,
            pd_units_format_duration(now, text));
}

static bool run_one(struct run *run, uint32_t i)
{
    const struct pdsim_options *o = run->o;
    bool shows = !o->is_quiet && !o->is_verbose && isatty(STDERR_FILENO);
    const struct pd_whatif_classes *usual = pd_conf_root(run->usual);
    struct pd_whatif_run_opts opts = {
        .setup = &run->setups[i], .work = &run->work, .faults = o->faults, .n_faults = o->n_faults, .slo = o->slo,
        .classes = run->classes != NULL ? pd_conf_root(run->classes) : NULL,
        .usual = PD_CONF_ITEM(&usual->classes, struct pd_whatif_class, 0),
        .seed = o->work.seed, .latency = o->latency, .jitter = o->jitter, .bytes_per_s = o->bandwidth,
        .concurrency = (uint32_t)o->concurrency, .warmup = o->warmup, .timeout = o->timeout,
        .level = o->is_verbose ? PD_LOG_NOTICE : PD_LOG_ERROR, .on_line = o->is_verbose ? on_line : NULL,
        .on_progress = shows ? on_progress : NULL, .arg = run,
    };
    struct pd_err err = { 0 };
    pd_time began = pd_proc_cpu_time();
    run->now = i;
    run->results[i] = pd_calloc(1, sizeof *run->results[i]);
    if (run->results[i] == NULL)
        return out_of_memory();
    pd_status status = pd_whatif_run(&opts, run->results[i], &err);
    if (shows)
        fputs("\r\033[K", stderr);
    if (status != PD_OK) {
        fprintf(stderr, "pdsim: %s\n", run->labels[i]);
        pd_conf_err_print(stderr, &err, "error");
        return false;
    }
    double took = (double)(pd_proc_cpu_time() - began) / 1e9;
    if (o->is_verbose)
        fprintf(stderr, "pdsim: %llu requests in %.2f s of processor time, %.0f a second\n",
                (unsigned long long)run->results[i]->load.started, took,
                took > 0 ? (double)run->results[i]->load.started / took : 0);
    return true;
}

static void put_conditions(const struct run *run, struct pd_buf *out)
{
    const struct pdsim_options *o = run->o;
    struct pd_json_writer w;
    pd_json_writer_init(&w, out);
    pd_json_begin_object(&w, NULL);
    pd_json_add_cstr(&w, "version", PACKAGE_VERSION);
    pd_json_add_u64(&w, "seed", o->work.seed);
    pd_json_add_cstr(&w, "model", run->work.model);
    pd_json_add_u64(&w, "requests", run->work.trace.n_rows);
    if (o->trace != NULL) {
        pd_json_add_cstr(&w, "trace", o->trace);
        pd_json_add_double(&w, "speed", o->speed);
    } else {
        pd_json_add_double(&w, "rate", o->work.rate);
        pd_json_add_cstr(&w, "arrival", pd_whatif_arrivals[o->work.arrival]);
        pd_json_add_cstr(&w, "lengths", pd_whatif_lengths[o->work.lengths]);
        pd_json_add_u64(&w, "input", o->work.input);
        pd_json_add_u64(&w, "output", o->work.output);
        pd_json_add_u64(&w, "shared", o->work.shared);
        pd_json_add_u64(&w, "groups", o->work.groups);
        pd_json_add_bool(&w, "sessions", o->work.is_sessions);
    }
    pd_json_add_double(&w, "latency_seconds", (double)o->latency / 1e9);
    pd_json_add_double(&w, "jitter_seconds", (double)o->jitter / 1e9);
    pd_json_add_u64(&w, "bytes_per_second", o->bandwidth);
    pd_json_add_double(&w, "warmup_seconds", (double)o->warmup / 1e9);
    pd_json_add_double(&w, "slo_ttft_seconds", (double)o->slo.ttft / 1e9);
    pd_json_add_double(&w, "slo_itl_seconds", (double)o->slo.itl / 1e9);
    pd_json_add_double(&w, "slo_e2e_seconds", (double)o->slo.e2e / 1e9);
    pd_json_end(&w);
}

static bool print(const struct run *run)
{
    struct pd_whatif_variant v[PDSIM_VARIANTS_MAX];
    uint32_t n = run->o->n_variants;
    struct pd_buf out, conditions;
    pd_buf_init(&out, OUT_MAX);
    pd_buf_init(&conditions, OUT_MAX);
    for (uint32_t i = 0; i < n; i++)
        v[i] = (struct pd_whatif_variant){ run->labels[i], run->o->slo, run->results[i] };
    if (run->o->is_json) {
        put_conditions(run, &conditions);
        pd_whatif_report_json(v, n, pd_buf_str(&conditions), &out);
    } else {
        for (uint32_t i = 0; i < n; i++) {
            pd_whatif_report_run(&v[i], &out);
            if (n > 1)
                pd_buf_append_char(&out, '\n');
        }
        if (n > 1)
            pd_whatif_report_compare(v, n, &out);
    }
    bool is_whole = out.status == PD_OK;
    bool is_good = is_whole && fwrite(out.p, 1, out.n, stdout) == out.n && fflush(stdout) == 0;
    if (!is_good)
        fprintf(stderr, "pdsim: cannot write: %s\n", is_whole ? strerror(errno) : pd_status_text(out.status));
    pd_buf_fini(&out);
    pd_buf_fini(&conditions);
    return is_good;
}

static int run(const struct pdsim_options *o)
{
    struct run *run = pd_calloc(1, sizeof *run);
    if (run == NULL) {
        out_of_memory();
        return PDSIM_FAILED;
    }
    run->o = o;
    bool is_good = classes_read(run) && setups_read(run) && work_read(run) && faults_check(run);
    if (is_good) {
        run->work.model = model_of(run);
        run->work.is_whole = o->is_whole;
    }
    for (uint32_t i = 0; i < o->n_variants && is_good; i++)
        is_good = run_one(run, i);
    is_good = is_good && print(run);
    for (uint32_t i = 0; i < o->n_variants; i++) {
        if (run->results[i] != NULL)
            pd_whatif_result_free(run->results[i]);
        pd_free(run->results[i]);
        pd_whatif_setup_close(&run->setups[i]);
    }
    pd_whatif_work_free(&run->work);
    pd_conf_put(run->classes);
    pd_conf_put(run->usual);
    pd_free(run);
    return is_good ? PDSIM_OK : PDSIM_FAILED;
}

/* What was printed may still be refused. */
static int finish(void)
{
    if (ferror(stdout) == 0 && fflush(stdout) == 0)
        return PDSIM_OK;
    fprintf(stderr, "pdsim: cannot write: %s\n", strerror(errno));
    return PDSIM_FAILED;
}

int main(int argc, char **argv)
{
    static struct pdsim_options options;
    int rc = pdsim_options_parse(&options, argc, argv);
    if (rc != PDSIM_OK)
        return rc;
    pd_mem_init();
    if (pd_mem_fault_init() != PD_OK) {
        fputs("pdsim: environment variable PD_FAULT is malformed\n", stderr);
        return PDSIM_USAGE;
    }
    pd_signal_ignore(SIGPIPE);
    if (options.is_help)
        pdsim_help();
    else if (options.is_version)
        puts("pdsim " PACKAGE_VERSION);
    else if (options.is_reference)
        pd_conf_reference(pd_whatif_class_rows(), options.is_mdoc ? PD_CONF_REF_MDOC : PD_CONF_REF_TEXT, stdout);
    else
        return run(&options);
    return finish();
}
