/* SPDX-License-Identifier: Apache-2.0 */
/* The result of a load as text: the same numbers for people and programs. */
#include "bench/load.h"

#include "base/buf.h"
#include "base/json.h"
#include "base/units.h"

struct row {
    const char *key;
    const char *title;
    const struct pd_bench_hist *hist;
};

static const struct {
    const char *name;
    double q;
} quantiles[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p95", 0.95 }, { "p99", 0.99 }, { "p99.9", 0.999 } };

#define QUANTILES (sizeof quantiles / sizeof quantiles[0])

static uint64_t failed(const struct pd_bench_load_result *r)
{
    uint64_t n = 0;
    for (int i = 0; i < PD_BENCH_ERRORS; i++)
        n += r->errors[i];
    return n;
}

static double per_second(double n, const struct pd_bench_load_result *r)
{
    return r->seconds == 0 ? 0 : n * (double)PD_SEC / (double)r->seconds;
}

/* The part of one processor that the load itself took. */
static double utilisation(const struct pd_bench_load_result *r, pd_time cpu)
{
    return r->elapsed == 0 ? 0 : (double)cpu / (double)r->elapsed;
}

static void put_time(struct pd_buf *out, double ns)
{
    char text[PD_UNITS_TEXT];
    pd_buf_appendf(out, " %10s", pd_units_format_duration((pd_time)ns, text));
}

pd_status pd_bench_load_table(const struct pd_bench_load_result *r, pd_time cpu, struct pd_buf *out)
{
    const struct row rows[] = {
        { NULL, "first token", &r->ttft }, { NULL, "between tokens", &r->itl }, { NULL, "whole answer", &r->e2e },
    };
    char a[PD_UNITS_TEXT], b[PD_UNITS_TEXT];
    pd_buf_appendf(out, "%llu requests in %s: %llu ok, %llu failed\n",
                   (unsigned long long)(r->ok + failed(r)), pd_units_format_duration(r->seconds, a),
                   (unsigned long long)r->ok, (unsigned long long)failed(r));
    for (int i = 0; i < PD_BENCH_ERRORS; i++)
        if (r->errors[i] > 0)
            pd_buf_appendf(out, "  failed: %-12s %llu\n", pd_bench_error_name((enum pd_bench_error)i),
                           (unsigned long long)r->errors[i]);
    pd_buf_appendf(out, "%.1f requests/s, %.1f tokens/s, %s received, this program took %s of processor time\n",
                   per_second((double)r->ok, r), per_second((double)r->tokens, r),
                   pd_units_format_bytes(r->bytes, a), pd_units_format_duration(cpu, b));
    if (utilisation(r, cpu) > PD_BENCH_BUSY)
        pd_buf_appendf(out, "warning: this program took %.0f %% of a processor, so part of the waits is its own\n",
                       100 * utilisation(r, cpu));
    if (r->late > 0)
        pd_buf_appendf(out, "%llu requests started over 1 ms late; the wait is counted in their times\n",
                       (unsigned long long)r->late);
    pd_buf_appendf(out, "%-15s %10s %10s", "", "mean", "least");
    for (size_t q = 0; q < QUANTILES; q++)
        pd_buf_appendf(out, " %10s", quantiles[q].name);
    pd_buf_appendf(out, " %10s\n", "most");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct pd_bench_hist *h = rows[i].hist;
        if (h->n == 0)
            continue;
        pd_buf_appendf(out, "%-15s", rows[i].title);
        put_time(out, pd_bench_hist_mean(h));
        put_time(out, (double)h->min);
        for (size_t q = 0; q < QUANTILES; q++)
            put_time(out, (double)pd_bench_hist_at(h, quantiles[q].q));
        put_time(out, (double)h->max);
        pd_buf_append_char(out, '\n');
    }
    return out->status;
}

static void put_slices(struct pd_json_writer *w, const struct pd_bench_load_result *r)
{
    uint64_t n = r->elapsed / r->slice + 1;
    n = n < PD_BENCH_SLICES ? n : PD_BENCH_SLICES;
    pd_json_begin_object(w, "timeline");
    pd_json_add_double(w, "slice_seconds", (double)r->slice / 1e9);
    static const char *const names[] = { "ok", "failed", "tokens", "ttft" };
    for (int k = 0; k < 4; k++) {
        pd_json_begin_array(w, names[k]);
        for (uint64_t i = 0; i < n; i++) {
            const struct pd_bench_slice *s = &r->slices[i];
            if (k < 3)
                pd_json_add_u64(w, NULL, k == 0 ? s->ok : k == 1 ? s->failed : s->tokens);
            else if (s->first_n > 0)
                pd_json_add_double(w, NULL, s->first_sum / (double)s->first_n / 1e9);
            else
                pd_json_add_null(w, NULL);
        }
        pd_json_end(w);
    }
    pd_json_end(w);
}

pd_status pd_bench_load_json(const struct pd_bench_load_result *r, pd_time cpu, struct pd_str conditions,
                             struct pd_buf *out)
{
    const struct row rows[] = { { "ttft", NULL, &r->ttft }, { "itl", NULL, &r->itl }, { "e2e", NULL, &r->e2e } };
    struct pd_json_writer w;
    pd_json_writer_init(&w, out);
    pd_json_begin_object(&w, NULL);
    pd_json_add_cstr(&w, "kind", "load");
    if (conditions.n > 0)
        pd_json_add_raw(&w, "conditions", conditions);
    pd_json_add_u64(&w, "requests", r->ok + failed(r));
    pd_json_add_u64(&w, "ok", r->ok);
    pd_json_add_u64(&w, "failed", failed(r));
    pd_json_begin_object(&w, "errors");
    for (int i = 0; i < PD_BENCH_ERRORS; i++)
        pd_json_add_u64(&w, pd_bench_error_name((enum pd_bench_error)i), r->errors[i]);
    pd_json_end(&w);
    pd_json_add_u64(&w, "started", r->started);
    pd_json_add_u64(&w, "late", r->late);
    pd_json_add_u64(&w, "tokens", r->tokens);
    pd_json_add_u64(&w, "bytes", r->bytes);
    pd_json_add_double(&w, "seconds", (double)r->seconds / 1e9);
    pd_json_add_double(&w, "requests_per_second", per_second((double)r->ok, r));
    pd_json_add_double(&w, "tokens_per_second", per_second((double)r->tokens, r));
    pd_json_add_double(&w, "client_cpu_seconds", (double)cpu / 1e9);
    pd_json_add_double(&w, "client_utilisation", utilisation(r, cpu));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct pd_bench_hist *h = rows[i].hist;
        pd_json_begin_object(&w, rows[i].key);
        pd_json_add_u64(&w, "count", h->n);
        pd_json_add_double(&w, "mean", pd_bench_hist_mean(h) / 1e9);
        pd_json_add_double(&w, "min", (double)h->min / 1e9);
        for (size_t q = 0; q < QUANTILES; q++)
            pd_json_add_double(&w, quantiles[q].name, (double)pd_bench_hist_at(h, quantiles[q].q) / 1e9);
        pd_json_add_double(&w, "max", (double)h->max / 1e9);
        pd_json_begin_array(&w, "buckets");
        pd_time end;
        uint64_t count;
        for (uint32_t b = 0; pd_bench_hist_next(h, &b, &end, &count);) {
            pd_json_begin_array(&w, NULL);
            pd_json_add_double(&w, NULL, (double)end / 1e9);
            pd_json_add_u64(&w, NULL, count);
            pd_json_end(&w);
        }
        pd_json_end(&w);
        pd_json_end(&w);
    }
    put_slices(&w, r);
    pd_json_end(&w);
    pd_buf_append_char(out, '\n');
    return out->status;
}
