/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench sched: how long the pipeline of a configuration takes to choose, over
 * endpoints and prompts that are made or come from a trace. */
#include "main/pdbench.h"

#include <getopt.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/units.h"
#include "bench/hist.h"
#include "bench/trace.h"
#include "log/log.h"
#include "loop/uv.h"
#include "metric/metric.h"
#include "mod/host.h"
#include "node/sections.h"
#include "os/file.h"
#include "sched/plugins.h"
#include "sched/scheduler.h"

enum { ROWS_MAX = 4096, REPORT_EVERY = 1000, OPEN_PER_ENDPOINT = 4 };

/* A prompt as the index knows it, hashed once. */
struct prompt {
    struct pd_prompt prompt;
    uint64_t *hashes;
    uint32_t output;
};

struct open_request {
    struct pd_dispatch decode, prefill;
};

struct sched_main {
    const char *conf_path, *trace_path;
    uint64_t endpoints, decisions, seed;
    double prefill;
    bool is_json, is_help;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_metrics *metrics;
    struct pd_mods *mods;
    struct pd_conf *conf;
    struct pd_host host;
    struct pd_sched_plugins *plugins;
    struct pd_sched *sched;
    struct pd_endpoint_ref *refs;
    struct prompt *prompts;
    size_t n_prompts;
    struct open_request *open;
    uint64_t n_open;
    struct pd_bench_hist hist;
    pd_time hash_ns, decide_ns;
    uint64_t hash_bytes, matched, blocks, with_prefill, none;
};

static bool say(const char *what, const char *more)
{
    fprintf(stderr, "pdbench sched: %s%s%s\n", what, more != NULL ? ": " : "", more != NULL ? more : "");
    return false;
}

/* ---- the scheduler of the configuration */

static bool sched_make(struct sched_main *m)
{
    struct pd_mods_params params = { .host = pd_host_api_table() };
    struct pd_log_config log = { .sink = PD_LOG_STDERR, .level = PD_LOG_WARN, .hide_time = true };
    struct pd_conf_source src = { 0 };
    struct pd_conf_report report;
    struct pd_err err = { 0 };
    if (pd_log_create(&log, &err, &m->log) != PD_OK || pd_metrics_create(0, &m->metrics) != PD_OK ||
        pd_mods_create(&params, &m->mods) != PD_OK)
        return say("out of memory", NULL);
    pd_host_init(&m->host);
    pd_conf_report_init(&report);
    pd_status st = pd_node_conf_read(m->conf_path, NULL, &src, m->mods, &report, &m->conf);
    pd_conf_report_print(&report, stderr);
    pd_conf_report_fini(&report);
    if (st != PD_OK)
        return say("the configuration cannot be used", m->conf_path);
    const struct pd_node_conf *c = pd_conf_root(m->conf);
    struct pd_sched_plugins_params p = { .conf = &c->scheduler, .mods = m->mods, .loop = m->loop, .log = m->log,
                                         .metrics = m->metrics, .host = &m->host };
    if (pd_sched_plugins_create(&p, &err, &m->plugins) != PD_OK ||
        pd_sched_create(&c->scheduler, pd_sched_plugins_pipeline(m->plugins), m->metrics, &err, &m->sched) != PD_OK)
        return say("the scheduler cannot be made", err.text);
    return true;
}

static bool endpoints_make(struct sched_main *m)
{
    char name[32];
    m->refs = pd_calloc(m->endpoints, sizeof *m->refs);
    m->n_open = m->endpoints * OPEN_PER_ENDPOINT;
    m->open = pd_calloc(m->n_open, sizeof *m->open);
    if (m->refs == NULL || m->open == NULL)
        return say("out of memory", NULL);
    for (uint64_t i = 0; i < m->endpoints; i++) {
        bool is_prefill = (double)i < m->prefill * (double)m->endpoints;
        snprintf(name, sizeof name, "%s%llu", is_prefill ? "p" : "d", (unsigned long long)i);
        struct pd_endpoint_info info = {
            .size = sizeof info, .roles = is_prefill ? PD_ROLE_PREFILL : PD_ROLE_DECODE, .key = pd_str_from(name),
            .name = pd_str_from(name), .blocks_total = 100000, .block_tokens = 16, .user = m,
        };
        pd_status st = pd_sched_api()->endpoint_put(m->sched, &info, &m->refs[i]);
        if (st != PD_OK)
            return say("cannot add that many endpoints", pd_status_text(st));
    }
    return true;
}

/* ---- prompts */

static bool prompt_make(struct sched_main *m, const struct pd_bench_trace *t, size_t row, struct pd_buf *text)
{
    const struct pd_sched_api *api = pd_sched_api();
    struct prompt *p = &m->prompts[row];
    pd_buf_clear(text);
    if (pd_bench_trace_text(t, row, text) != PD_OK)
        return say("a prompt is too large", NULL);
    uint32_t room = api->prompt_room(m->sched, text->n);
    p->hashes = pd_calloc(room + 1, sizeof *p->hashes);
    if (p->hashes == NULL)
        return say("out of memory", NULL);
    pd_time start = pd_loop_clock(m->loop);
    api->prompt_hash(m->sched, &p->prompt, PD_STR("bench"), PD_STR(""), text->p, text->n, p->hashes, room);
    m->hash_ns += pd_loop_clock(m->loop) - start;
    m->hash_bytes += text->n;
    p->output = t->rows[row].output;
    return true;
}

static bool prompts_make(struct sched_main *m)
{
    struct pd_bench_trace trace = { 0 };
    struct pd_err err = { 0 };
    struct pd_buf text;
    pd_status st;
    bool is_good = true;
    pd_buf_init(&text, 1u << 30);
    if (m->trace_path == NULL) {
        st = pd_bench_trace_make(m->seed, ROWS_MAX / 2, 100, &trace);
    } else if ((st = pd_file_read(m->trace_path, 1u << 30, &text, NULL)) == PD_OK) {
        st = pd_bench_trace_read(pd_buf_str(&text), &trace, &err);
    }
    if (st != PD_OK)
        is_good = say(m->trace_path != NULL ? m->trace_path : "out of memory",
                      err.text[0] != '\0' ? err.text : pd_status_text(st));
    m->n_prompts = trace.n_rows < ROWS_MAX ? trace.n_rows : ROWS_MAX;
    m->prompts = is_good ? pd_calloc(m->n_prompts, sizeof *m->prompts) : NULL;
    is_good = is_good && (m->prompts != NULL || say("out of memory", NULL));
    for (size_t i = 0; i < m->n_prompts && is_good; i++)
        is_good = prompt_make(m, &trace, i, &text);
    pd_bench_trace_free(&trace);
    pd_buf_fini(&text);
    return is_good;
}

/* ---- deciding */

static void reports(struct sched_main *m, uint64_t *x)
{
    pd_time now = pd_loop_clock(m->loop);
    for (uint64_t i = 0; i < m->endpoints; i++) {
        *x = *x * 6364136223846793005u + 1442695040888963407u;
        struct pd_endpoint_load load = { .size = sizeof load, .running = (uint32_t)(*x >> 60),
                                         .waiting = (uint32_t)(*x >> 56) & 7, .blocks_total = 100000,
                                         .blocks_free = (uint32_t)(*x >> 32) % 100000 };
        (void)pd_sched_api()->endpoint_report(m->sched, m->refs[i], &load, now);
    }
}

static void decide(struct sched_main *m)
{
    const struct pd_sched_api *api = pd_sched_api();
    uint64_t x = m->seed | 1;
    pd_bench_hist_init(&m->hist);
    for (uint64_t i = 0; i < m->decisions; i++) {
        struct prompt *p = &m->prompts[i % m->n_prompts];
        struct open_request *o = &m->open[i % m->n_open];
        struct pd_sched_plan plan = { .size = sizeof plan };
        if (i % REPORT_EVERY == 0)
            reports(m, &x);
        pd_time now = pd_loop_clock(m->loop);
        api->end(m->sched, &o->decode, PD_DISPATCH_OK, now);
        api->end(m->sched, &o->prefill, PD_DISPATCH_OK, now);
        x = x * 6364136223846793005u + 1442695040888963407u;
        struct pd_sched_ask ask = { .size = sizeof ask, .prefill_max = PD_SCHED_PREFILL_MAX, .prompt = &p->prompt,
                                    .prompt_bytes = p->prompt.bytes, .max_output = p->output, .random = x, .now = now };
        pd_time start = pd_loop_clock(m->loop);
        pd_status st = api->schedule(m->sched, &ask, &plan);
        pd_time took = pd_loop_clock(m->loop) - start;
        m->decide_ns += took;
        pd_bench_hist_add(&m->hist, took);
        if (st != PD_OK) {
            m->none++;
            continue;
        }
        uint64_t tokens = p->prompt.bytes / 4;
        m->with_prefill += plan.prefill_n > 0;
        m->blocks += p->prompt.n;
        m->matched += plan.prefill_n > 0 ? plan.prefill[0].match_blocks : plan.decode.match_blocks;
        (void)api->dispatch(m->sched, plan.decode.ref, PD_ROLE_DECODE, &p->prompt, tokens, now, &o->decode);
        if (plan.prefill_n > 0)
            (void)api->dispatch(m->sched, plan.prefill[0].ref, PD_ROLE_PREFILL, &p->prompt, tokens, now, &o->prefill);
    }
}

/* ---- output */

static double part(uint64_t n, uint64_t of)
{
    return of == 0 ? 0 : (double)n / (double)of;
}

static bool tell(struct sched_main *m)
{
    double per_s = m->decide_ns == 0 ? 0 : (double)m->decisions * 1e9 / (double)m->decide_ns;
    double hash_rate = m->hash_ns == 0 ? 0 : (double)m->hash_bytes / (double)m->hash_ns;
    static const struct {
        const char *name;
        double q;
    } q[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p99.9", 0.999 } };
    struct pd_prefix_stats index;
    struct pd_buf out;
    struct pd_json_writer w;
    pd_sched_prefix_stats(m->sched, &index);
    if (!m->is_json) {
        printf("%llu decisions over %llu endpoints: %.0f/s\n", (unsigned long long)m->decisions,
               (unsigned long long)m->endpoints, per_s);
        printf("ns a decision: mean %.0f", pd_bench_hist_mean(&m->hist));
        for (size_t i = 0; i < sizeof q / sizeof q[0]; i++)
            printf(", %s %llu", q[i].name, (unsigned long long)pd_bench_hist_at(&m->hist, q[i].q));
        printf(", most %llu\n", (unsigned long long)m->hist.max);
        printf("%.1f %% with a prefill endpoint, %.1f %% of the blocks expected in a cache, %llu without an endpoint\n",
               100 * part(m->with_prefill, m->decisions), 100 * part(m->matched, m->blocks), (unsigned long long)m->none);
        printf("hashing: %.2f GB/s, %.0f bytes a prompt\n", hash_rate, part(m->hash_bytes, m->n_prompts));
        return fflush(stdout) == 0;
    }
    pd_buf_init(&out, 1u << 20);
    pd_json_writer_init(&w, &out);
    pd_json_begin_object(&w, NULL);
    pd_json_add_cstr(&w, "kind", "sched");
    pd_json_begin_object(&w, "conditions");
    pdbench_conditions(m->loop, &w);
    pd_json_add_cstr(&w, "config", m->conf_path);
    pd_json_add_cstr(&w, "trace", m->trace_path != NULL ? m->trace_path : "made");
    pd_json_add_u64(&w, "seed", m->seed);
    pd_json_end(&w);
    pd_json_add_u64(&w, "endpoints", m->endpoints);
    pd_json_add_u64(&w, "decisions", m->decisions);
    pd_json_add_double(&w, "decisions_per_second", per_s);
    pd_json_add_double(&w, "mean_ns", pd_bench_hist_mean(&m->hist));
    for (size_t i = 0; i < sizeof q / sizeof q[0]; i++) {
        char name[16];
        snprintf(name, sizeof name, "%s_ns", q[i].name);
        pd_json_add_u64(&w, name, pd_bench_hist_at(&m->hist, q[i].q));
    }
    pd_json_add_double(&w, "with_prefill", part(m->with_prefill, m->decisions));
    pd_json_add_double(&w, "blocks_matched", part(m->matched, m->blocks));
    pd_json_add_u64(&w, "no_endpoint", m->none);
    pd_json_add_double(&w, "hash_gb_per_second", hash_rate);
    pd_json_end(&w);
    pd_buf_append_char(&out, '\n');
    bool is_good = pdbench_print("sched", &out);
    pd_buf_fini(&out);
    return is_good;
}

/* ---- the command line */

static void help(void)
{
    fputs("usage: pdbench sched --config FILE [OPTION...]\n"
          "\n"
          "Makes endpoints, gives them loads, and asks the scheduler of a configuration where to send the\n"
          "requests of a trace; tells how long it takes.  What was sent fills the prefix index.\n"
          "\n"
          "options:\n"
          "  -c, --config FILE      of a router; its modules, section scheduler and limits are used\n"
          "  -e, --endpoints N      [100]\n"
          "  -p, --prefill PART     of the endpoints, 0 to 1; the others decode [0.25]\n"
          "  -n, --decisions N      [20000]\n"
          "  -A, --trace FILE       requests, as for pdbench load [made ones: sessions with shared beginnings]\n"
          "  -s, --seed N           of loads, chance and made requests [1]\n"
          "  -J, --json             one JSON object instead of lines\n"
          "  -h, --help             print this\n"
          "\n"
          "exit status: 0 done, 1 the configuration or the trace cannot be used, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdbench sched -c /etc/pdplane/router.conf -e 1000\n",
          stdout);
}

static bool option_take(struct sched_main *m, int c, const char *arg)
{
    switch (c) {
    case 'c': m->conf_path = arg; return true;
    case 'e': return pdbench_number("sched", "endpoints", arg, 1, 100000, &m->endpoints);
    case 'p': return pdbench_real("sched", "prefill", arg, 0, 1, &m->prefill);
    case 'n': return pdbench_number("sched", "decisions", arg, 1, 1000000000, &m->decisions);
    case 'A': m->trace_path = arg; return true;
    case 's': return pdbench_number("sched", "seed", arg, 1, UINT32_MAX, &m->seed);
    case 'J': m->is_json = true; return true;
    case 'h': m->is_help = true; return true;
    default: fputs("try \"pdbench sched --help\"\n", stderr); return false;
    }
}

static void clean(struct sched_main *m)
{
    for (uint64_t i = 0; m->sched != NULL && m->open != NULL && i < m->n_open; i++) {
        pd_sched_api()->end(m->sched, &m->open[i].decode, PD_DISPATCH_OK, pd_loop_clock(m->loop));
        pd_sched_api()->end(m->sched, &m->open[i].prefill, PD_DISPATCH_OK, pd_loop_clock(m->loop));
    }
    pd_sched_destroy(m->sched);
    pd_sched_plugins_destroy(m->plugins);
    for (size_t i = 0; m->prompts != NULL && i < m->n_prompts; i++)
        pd_free(m->prompts[i].hashes);
    pd_free(m->prompts);
    pd_free(m->refs);
    pd_free(m->open);
    pd_conf_put(m->conf);
    if (m->mods != NULL)
        pd_mods_destroy(m->mods);
    if (m->metrics != NULL)
        pd_metrics_destroy(m->metrics);
    if (m->log != NULL)
        pd_log_destroy(m->log);
    (void)pd_loop_destroy(m->loop, NULL, 0);
}

int pdbench_sched(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' },    { "endpoints", required_argument, NULL, 'e' },
        { "prefill", required_argument, NULL, 'p' },   { "decisions", required_argument, NULL, 'n' },
        { "trace", required_argument, NULL, 'A' },     { "seed", required_argument, NULL, 's' },
        { "json", no_argument, NULL, 'J' },            { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    static struct sched_main m = { .endpoints = 100, .decisions = 20000, .seed = 1, .prefill = 0.25 };
    int c;
    while ((c = getopt_long(argc, argv, "c:e:p:n:A:s:Jh", options, NULL)) != -1)
        if (!option_take(&m, c, optarg))
            return PDBENCH_USAGE;
    if (m.is_help) {
        help();
        return PDBENCH_OK;
    }
    if (optind < argc)
        return pdbench_usage("sched", "there is no argument", argv[optind]);
    if (m.conf_path == NULL)
        return pdbench_usage("sched", "--config is missing", NULL);
    if (pd_loop_uv_create(NULL, &m.loop) != PD_OK)
        return say("cannot make an event loop", NULL) ? PDBENCH_OK : PDBENCH_FAILED;
    bool is_good = sched_make(&m) && endpoints_make(&m) && prompts_make(&m);
    if (is_good) {
        decide(&m);
        is_good = tell(&m);
    }
    clean(&m);
    return is_good ? PDBENCH_OK : PDBENCH_FAILED;
}
