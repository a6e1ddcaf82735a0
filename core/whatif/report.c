/* SPDX-License-Identifier: Apache-2.0 */
#include "whatif/report.h"

#include <stdio.h>

#include "base/json.h"
#include "base/str.h"
#include "base/units.h"

#define CELL 64u

static const struct {
    const char *name;
    double q;
} quantiles[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p95", 0.95 }, { "p99", 0.99 } };

#define QUANTILES (sizeof quantiles / sizeof quantiles[0])

enum { TTFT, ITL, E2E, HISTS };

static const struct pd_bench_hist *hist_of(const struct pd_whatif_result *r, int which)
{
    return which == TTFT ? &r->load.ttft : which == ITL ? &r->load.itl : &r->load.e2e;
}

static const char *const hist_titles[HISTS] = { "first token", "between tokens", "whole answer" };
static const char *const hist_keys[HISTS] = { "ttft", "itl", "e2e" };

static double seconds_of(const struct pd_whatif_result *r)
{
    return (double)r->load.seconds / 1e9;
}

static double rate_of(const struct pd_whatif_result *r, uint64_t n)
{
    return r->load.seconds == 0 ? 0 : (double)n / seconds_of(r);
}

static uint64_t all_of(const struct pd_whatif_result *r)
{
    return r->load.ok + pd_whatif_result_failed(r);
}

static double share(double part, double all)
{
    return all > 0 ? part / all : 0;
}

static struct pd_whatif_engine_stats sum_of(const struct pd_whatif_result *r)
{
    struct pd_whatif_engine_stats s = { 0 };
    for (uint64_t i = 0; i < r->n_servers; i++) {
        const struct pd_whatif_engine_stats *e = &r->servers[i].stats;
        s.requests += e->requests;
        s.prompt_tokens += e->prompt_tokens;
        s.cached_tokens += e->cached_tokens;
        s.output_tokens += e->output_tokens;
        s.busy += e->busy;
    }
    return s;
}

static double busy_of(const struct pd_whatif_result *r)
{
    return share((double)sum_of(r).busy, (double)r->elapsed * (double)r->n_servers);
}

/* ---- one run ----------------------------------------------------------------------------- */

static void put_time(struct pd_buf *out, double ns)
{
    char text[PD_UNITS_TEXT];
    pd_buf_appendf(out, " %10s", pd_units_format_duration((pd_time)ns, text));
}

static void put_slo(struct pd_buf *out, const struct pd_whatif_slo *slo)
{
    char text[PD_UNITS_TEXT];
    const char *with = " with";
    const struct {
        const char *name;
        pd_time v;
    } bounds[] = { { "first token", slo->ttft }, { "between tokens", slo->itl }, { "whole answer", slo->e2e } };
    for (size_t i = 0; i < 3; i++) {
        if (bounds[i].v == 0)
            continue;
        pd_buf_appendf(out, "%s %s within %s", with, bounds[i].name, pd_units_format_duration(bounds[i].v, text));
        with = ",";
    }
}

static void put_times(struct pd_buf *out, const struct pd_whatif_result *r)
{
    pd_buf_appendf(out, "%-15s %10s", "", "mean");
    for (size_t q = 0; q < QUANTILES; q++)
        pd_buf_appendf(out, " %10s", quantiles[q].name);
    pd_buf_appendf(out, " %10s\n", "most");
    for (int i = 0; i < HISTS; i++) {
        const struct pd_bench_hist *h = hist_of(r, i);
        if (h->n == 0)
            continue;
        pd_buf_appendf(out, "%-15s", hist_titles[i]);
        put_time(out, pd_bench_hist_mean(h));
        for (size_t q = 0; q < QUANTILES; q++)
            put_time(out, (double)pd_bench_hist_at(h, quantiles[q].q));
        put_time(out, (double)h->max);
        pd_buf_append_char(out, '\n');
    }
}

static void put_servers(struct pd_buf *out, const struct pd_whatif_result *r)
{
    int width = 8;
    for (uint64_t i = 0; i < r->n_servers; i++) {
        int n = (int)strlen(r->servers[i].name);
        width = n > width ? n : width;
    }
    width = width > 40 ? 40 : width;
    pd_buf_appendf(out, "%-*s %9s %6s %6s %7s %13s %7s %13s %7s\n", width, "endpoint", "requests", "busy", "batch",
                   "waiting", "prompt tokens", "cached", "output tokens", "gone");
    for (uint64_t i = 0; i < r->n_servers; i++) {
        const struct pd_whatif_engine_stats *s = &r->servers[i].stats;
        pd_buf_appendf(out, "%-*.40s %9llu %5.1f%% %6.1f %7u %13llu %6.1f%% %13llu %7llu\n", width,
                       r->servers[i].name, (unsigned long long)s->requests,
                       100 * share((double)s->busy, (double)r->elapsed),
                       share(s->running_ns, (double)s->busy), s->waiting_max, (unsigned long long)s->prompt_tokens,
                       100 * share((double)s->cached_tokens, (double)s->prompt_tokens),
                       (unsigned long long)s->output_tokens, (unsigned long long)s->gone);
    }
}

pd_status pd_whatif_report_run(const struct pd_whatif_variant *v, struct pd_buf *out)
{
    const struct pd_whatif_result *r = v->result;
    char text[PD_UNITS_TEXT];
    pd_buf_appendf(out, "%s: %llu endpoints\n", v->label, (unsigned long long)r->n_servers);
    pd_buf_appendf(out, "%llu requests in %s of simulated time: %llu ok, %llu failed", (unsigned long long)all_of(r),
                   pd_units_format_duration(r->load.seconds, text), (unsigned long long)r->load.ok,
                   (unsigned long long)pd_whatif_result_failed(r));
    for (int i = 0; i < PD_BENCH_ERRORS; i++)
        if (r->load.errors[i] > 0)
            pd_buf_appendf(out, ", %s %llu", pd_bench_error_name((enum pd_bench_error)i),
                           (unsigned long long)r->load.errors[i]);
    pd_buf_append_char(out, '\n');
    put_times(out, r);
    pd_buf_appendf(out, "throughput      %.2f requests/s, %.1f tokens/s\n", rate_of(r, r->load.ok),
                   rate_of(r, r->output_tokens));
    if (v->slo.ttft != 0 || v->slo.itl != 0 || v->slo.e2e != 0) {
        pd_buf_appendf(out, "goodput         %.2f requests/s, %.1f %% of all,", rate_of(r, r->good),
                       100 * share((double)r->good, (double)all_of(r)));
        put_slo(out, &v->slo);
        pd_buf_append_char(out, '\n');
    }
    if (r->load.late > 0)
        pd_buf_appendf(out, "%llu requests waited for a free client (--concurrency); it is counted in their times\n",
                       (unsigned long long)r->load.late);
    if (r->shed + r->retries + r->prefill_failures > 0)
        pd_buf_appendf(out, "the router      shed %llu, retried %llu, saw %llu failures of prefill servers\n",
                       (unsigned long long)r->shed, (unsigned long long)r->retries,
                       (unsigned long long)r->prefill_failures);
    put_servers(out, r);
    return out->status;
}

/* ---- side by side ---------------------------------------------------------------------------- */

struct figure {
    const char *title;
    bool is_time;
    bool is_percent;
    double (*get)(const struct pd_whatif_result *r, int which, double q);
    int which;
    double q;
};

static double get_quantile(const struct pd_whatif_result *r, int which, double q)
{
    return (double)pd_bench_hist_at(hist_of(r, which), q);
}

static double get_throughput(const struct pd_whatif_result *r, int which, double q)
{
    (void)q;
    return rate_of(r, which == 0 ? r->load.ok : which == 1 ? r->output_tokens : r->good);
}

static double get_share(const struct pd_whatif_result *r, int which, double q)
{
    const struct pd_whatif_engine_stats s = sum_of(r);
    (void)q;
    return 100 * (which == 0 ? share((double)s.cached_tokens, (double)s.prompt_tokens) : busy_of(r));
}

static double get_count(const struct pd_whatif_result *r, int which, double q)
{
    (void)q;
    if (which == 0)
        return (double)r->n_servers;
    return which == 1 ? (double)pd_whatif_result_failed(r) : (double)r->shed;
}

static const struct figure figures[] = {
    { "endpoints", false, false, get_count, 0, 0 },
    { "first token p50", true, false, get_quantile, TTFT, 0.5 },
    { "first token p95", true, false, get_quantile, TTFT, 0.95 },
    { "first token p99", true, false, get_quantile, TTFT, 0.99 },
    { "between tokens p50", true, false, get_quantile, ITL, 0.5 },
    { "between tokens p99", true, false, get_quantile, ITL, 0.99 },
    { "whole answer p50", true, false, get_quantile, E2E, 0.5 },
    { "whole answer p99", true, false, get_quantile, E2E, 0.99 },
    { "requests/s", false, false, get_throughput, 0, 0 },
    { "tokens/s", false, false, get_throughput, 1, 0 },
    { "goodput/s", false, false, get_throughput, 2, 0 },
    { "prompt from cache", false, true, get_share, 0, 0 },
    { "servers busy", false, true, get_share, 1, 0 },
    { "failed", false, false, get_count, 1, 0 },
    { "shed by the router", false, false, get_count, 2, 0 },
};

static void figure_text(const struct figure *f, double v, char *out, size_t size)
{
    char text[PD_UNITS_TEXT];
    if (f->is_time)
        snprintf(out, size, "%s", pd_units_format_duration((pd_time)v, text));
    else if (f->is_percent)
        snprintf(out, size, "%.1f %%", v);
    else
        snprintf(out, size, f->get == get_count ? "%.0f" : "%.2f", v);
}

/* Shares differ by points, other figures by a part of the first. */
static void difference_text(const struct figure *f, double v, double first, char *out, size_t size)
{
    if (f->is_percent)
        snprintf(out, size, "%+.1f", v - first);
    else if (f->get == get_count)
        snprintf(out, size, "%+.0f", v - first);
    else if (first > 0)
        snprintf(out, size, "%+.1f %%", 100 * (v - first) / first);
    else
        snprintf(out, size, "-");
}

pd_status pd_whatif_report_compare(const struct pd_whatif_variant *v, size_t n, struct pd_buf *out)
{
    char cell[CELL], difference[CELL];
    for (size_t i = 0; i < n; i++)
        pd_buf_appendf(out, "[%zu] %s\n", i + 1, v[i].label);
    pd_buf_appendf(out, "%-19s", "");
    for (size_t i = 0; i < n; i++)
        pd_buf_appendf(out, i == 0 ? "%10s[%zu]" : "%18s[%zu]", "", i + 1);
    pd_buf_append_char(out, '\n');
    for (size_t k = 0; k < sizeof figures / sizeof figures[0]; k++) {
        const struct figure *f = &figures[k];
        double first = f->get(v[0].result, f->which, f->q);
        pd_buf_appendf(out, "%-19s", f->title);
        for (size_t i = 0; i < n; i++) {
            double x = f->get(v[i].result, f->which, f->q);
            figure_text(f, x, cell, sizeof cell);
            difference_text(f, x, first, difference, sizeof difference);
            if (i == 0)
                pd_buf_appendf(out, " %12s", cell);
            else
                pd_buf_appendf(out, " %10s %9s", cell, difference);
        }
        pd_buf_append_char(out, '\n');
    }
    return out->status;
}

/* ---- JSON -------------------------------------------------------------------------------------- */

static void json_server(struct pd_json_writer *w, const struct pd_whatif_server *server, pd_time elapsed)
{
    const struct pd_whatif_engine_stats *s = &server->stats;
    pd_json_begin_object(w, NULL);
    pd_json_add_cstr(w, "endpoint", server->name);
    pd_json_add_u64(w, "requests", s->requests);
    pd_json_add_u64(w, "answers", s->answers);
    pd_json_add_u64(w, "gone", s->gone);
    pd_json_add_u64(w, "refused", s->refused);
    pd_json_add_u64(w, "prompt_tokens", s->prompt_tokens);
    pd_json_add_u64(w, "cached_tokens", s->cached_tokens);
    pd_json_add_u64(w, "output_tokens", s->output_tokens);
    pd_json_add_u64(w, "steps", s->steps);
    pd_json_add_double(w, "busy", share((double)s->busy, (double)elapsed));
    pd_json_add_double(w, "batch_mean", share(s->running_ns, (double)s->busy));
    pd_json_add_u64(w, "waiting_max", s->waiting_max);
    pd_json_end(w);
}

static void json_hist(struct pd_json_writer *w, const char *key, const struct pd_bench_hist *h)
{
    pd_json_begin_object(w, key);
    pd_json_add_u64(w, "count", h->n);
    pd_json_add_double(w, "mean", pd_bench_hist_mean(h) / 1e9);
    pd_json_add_double(w, "min", (double)h->min / 1e9);
    for (size_t q = 0; q < QUANTILES; q++)
        pd_json_add_double(w, quantiles[q].name, (double)pd_bench_hist_at(h, quantiles[q].q) / 1e9);
    pd_json_add_double(w, "max", (double)h->max / 1e9);
    pd_json_end(w);
}

static void json_run(struct pd_json_writer *w, const struct pd_whatif_variant *v)
{
    const struct pd_whatif_result *r = v->result;
    const struct pd_whatif_engine_stats s = sum_of(r);
    pd_json_begin_object(w, NULL);
    pd_json_add_cstr(w, "label", v->label);
    pd_json_add_u64(w, "requests", all_of(r));
    pd_json_add_u64(w, "ok", r->load.ok);
    pd_json_add_u64(w, "failed", pd_whatif_result_failed(r));
    pd_json_add_u64(w, "shed", r->shed);
    pd_json_begin_object(w, "errors");
    for (int i = 0; i < PD_BENCH_ERRORS; i++)
        pd_json_add_u64(w, pd_bench_error_name((enum pd_bench_error)i), r->load.errors[i]);
    pd_json_end(w);
    pd_json_add_double(w, "seconds", seconds_of(r));
    for (int i = 0; i < HISTS; i++)
        json_hist(w, hist_keys[i], hist_of(r, i));
    pd_json_add_double(w, "requests_per_second", rate_of(r, r->load.ok));
    pd_json_add_double(w, "tokens_per_second", rate_of(r, r->output_tokens));
    pd_json_add_u64(w, "good", r->good);
    pd_json_add_double(w, "goodput_per_second", rate_of(r, r->good));
    pd_json_add_double(w, "cached_share", share((double)s.cached_tokens, (double)s.prompt_tokens));
    pd_json_add_double(w, "busy_share", busy_of(r));
    pd_json_add_u64(w, "retries", r->retries);
    pd_json_add_u64(w, "prefill_failures", r->prefill_failures);
    pd_json_add_u64(w, "late", r->load.late);
    pd_json_begin_array(w, "servers");
    for (uint64_t i = 0; i < r->n_servers; i++)
        json_server(w, &r->servers[i], r->elapsed);
    pd_json_end(w);
    pd_json_end(w);
}

pd_status pd_whatif_report_json(const struct pd_whatif_variant *v, size_t n, struct pd_str conditions,
                                struct pd_buf *out)
{
    struct pd_json_writer w;
    pd_json_writer_init(&w, out);
    pd_json_begin_object(&w, NULL);
    pd_json_add_cstr(&w, "kind", "simulation");
    pd_json_add_raw(&w, "conditions", conditions);
    pd_json_begin_array(&w, "runs");
    for (size_t i = 0; i < n; i++)
        json_run(&w, &v[i]);
    pd_json_end(&w);
    pd_json_end(&w);
    pd_buf_append_char(out, '\n');
    return out->status;
}
