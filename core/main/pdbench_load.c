/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench load: the command line of the load; finds the address, shows progress
 * and prints the result.  Bodies are made in pdbench_bodies.c. */
#include "main/pdbench.h"
#include "main/pdbench_bodies.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/units.h"
#include "bench/load.h"
#include "loop/uv.h"
#include "os/proc.h"

#define SOURCES_MAX 65536u

struct load_main {
    struct pd_loop *loop;
    struct pd_bench_load *load;
    struct pd_bench_load_opts opts;
    struct pd_resolve resolve;
    struct pd_timer progress;
    struct pd_loop_signal *signal;
    const char *url;
    struct pdbench_bodies bodies;
    struct pd_addr *sources;
    uint64_t n_sources;
    struct pd_buf target;
    char name[256];                 /* of the host, to be looked up */
    uint16_t port;
    bool is_json;
    bool is_quiet;
    bool is_help;
    bool was_interrupted;
    uint64_t shown;                 /* answers at the last progress line */
    int rc;
};

static void help(void)
{
    fputs("usage: pdbench load --url URL [OPTION...]\n"
          "\n"
          "Sends completions and tells how long clients waited: for the first token, between tokens, for the\n"
          "whole answer.  Without --rate it keeps --concurrency requests under way (closed loop).  With --rate\n"
          "requests start at times that do not depend on the server (open loop), and waiting is counted from\n"
          "the time at which each was meant to start.\n"
          "\n"
          "what to send:\n"
          "  -u, --url URL           http://HOST[:PORT][/PREFIX], without /v1\n"
          "  -m, --model NAME        [bench]\n"
          "  -e, --completions       /v1/completions instead of /v1/chat/completions\n"
          "  -s, --stream            ask for a stream of events\n"
          "  -t, --max-tokens N      [16]\n"
          "  -b, --prompt-bytes SIZE length of made prompts [2000]\n"
          "  -x, --distinct N        number of different made prompts [64]\n"
          "  -f, --prompts FILE      a prompt per line, or a whole JSON body where a line begins with \"{\"\n"
          "  -A, --trace FILE        requests of a trace at their times: JSON lines with timestamp (ms), input_length,\n"
          "                          output_length (tokens) and hash_ids (for each 512 tokens)\n"
          "  -X, --speed FACTOR      with --trace: so many times faster [1]\n"
          "  -k, --api-key KEY       sent as a bearer token [$PDBENCH_API_KEY]\n"
          "how much:\n"
          "  -c, --concurrency N     requests under way; with --rate, at most [8; with --rate 1024]\n"
          "  -r, --rate N            requests per second (open loop)\n"
          "  -C, --constant          the same distance between requests, instead of Poisson\n"
          "  -n, --requests N        end after so many\n"
          "  -d, --duration TIME     end after this time [10s, unless --requests]\n"
          "  -w, --warmup TIME       do not count requests of the beginning [0]\n"
          "  -S, --sources N         connect from so many addresses, 127.0.0.2 and the next [the system's choice]\n"
          "  -T, --timeout TIME      to the first byte and between pieces [60s]\n"
          "output:\n"
          "  -J, --json              one JSON object instead of a table\n"
          "  -q, --quiet             no progress on standard error\n"
          "  -h, --help              print this\n"
          "\n"
          "exit status: 0 every request was answered, 1 some failed, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdbench load -u http://127.0.0.1:8000 -m tiny --stream -c 32 -d 30s\n"
          "  pdbench load -u http://127.0.0.1:8000 --rate 200 --duration 60s --warmup 5s --json\n"
          "  pdbench load -u http://127.0.0.1:8000 -b 220k -n 1000      long prompts\n"
          "  pdbench load -u http://127.0.0.1:8000 -f prompts.txt -s    prompts of your own\n"
          "  pdbench load -u http://127.0.0.1:8000 -s -A conversation_trace.jsonl -X 10 --json >run.json\n",
          stdout);
}

/* ---- the command line ---------------------------------------------------------------- */

static bool option_take(struct load_main *m, int c, const char *arg)
{
    const char *name = "load";
    struct pd_bench_load_opts *o = &m->opts;
    uint64_t n = 0;
    switch (c) {
    case 'u': m->url = arg; return true;
    case 'm': m->bodies.model = arg; return true;
    case 'e': m->bodies.is_completions = true; return true;
    case 's': m->bodies.is_stream = true; return true;
    case 't': return pdbench_number(name, "max-tokens", arg, 1, 1000000, &m->bodies.max_tokens);
    case 'b': return pdbench_bytes(name, "prompt-bytes", arg, 64u << 20, &m->bodies.prompt_bytes);
    case 'x': return pdbench_number(name, "distinct", arg, 1, PDBENCH_BODIES_MAX, &m->bodies.distinct);
    case 'f': m->bodies.prompts = arg; return true;
    case 'A': m->bodies.trace = arg; return true;
    case 'X': return pdbench_real(name, "speed", arg, 0.001, 1e6, &m->bodies.speed);
    case 'S': return pdbench_number(name, "sources", arg, 1, SOURCES_MAX, &m->n_sources);
    case 'k': o->api_key = pd_str_from(arg); return true;
    case 'c':
        if (!pdbench_number(name, "concurrency", arg, 1, 65536, &n))
            return false;
        o->concurrency = (uint32_t)n;
        return true;
    case 'r': return pdbench_real(name, "rate", arg, 0.001, 1e6, &o->rate);
    case 'C': o->is_constant = true; return true;
    case 'n': return pdbench_number(name, "requests", arg, 1, UINT64_MAX, &o->requests);
    case 'd': return pdbench_time(name, "duration", arg, &o->duration);
    case 'w': return pdbench_time(name, "warmup", arg, &o->warmup);
    case 'T': return pdbench_time(name, "timeout", arg, &o->timeout);
    case 'J': m->is_json = true; return true;
    case 'q': m->is_quiet = true; return true;
    case 'h': m->is_help = true; return true;
    default: fputs("try \"pdbench load --help\"\n", stderr); return false;
    }
}

static bool options_parse(struct load_main *m, int argc, char **argv)
{
    static const struct option options[] = {
        { "url", required_argument, NULL, 'u' },         { "model", required_argument, NULL, 'm' },
        { "completions", no_argument, NULL, 'e' },       { "stream", no_argument, NULL, 's' },
        { "max-tokens", required_argument, NULL, 't' },  { "prompt-bytes", required_argument, NULL, 'b' },
        { "distinct", required_argument, NULL, 'x' },    { "prompts", required_argument, NULL, 'f' },
        { "trace", required_argument, NULL, 'A' },       { "speed", required_argument, NULL, 'X' },
        { "sources", required_argument, NULL, 'S' },
        { "api-key", required_argument, NULL, 'k' },     { "concurrency", required_argument, NULL, 'c' },
        { "rate", required_argument, NULL, 'r' },        { "constant", no_argument, NULL, 'C' },
        { "requests", required_argument, NULL, 'n' },    { "duration", required_argument, NULL, 'd' },
        { "warmup", required_argument, NULL, 'w' },      { "timeout", required_argument, NULL, 'T' },
        { "json", no_argument, NULL, 'J' },              { "quiet", no_argument, NULL, 'q' },
        { "help", no_argument, NULL, 'h' },              { NULL, 0, NULL, 0 },
    };
    int c;
    while ((c = getopt_long(argc, argv, "u:m:est:b:x:f:A:X:k:c:r:Cn:d:w:S:T:Jqh", options, NULL)) != -1)
        if (!option_take(m, c, optarg))
            return false;
    if (m->is_help)
        return true;
    if (optind < argc)
        return pdbench_usage("load", "there is no argument", argv[optind]) == PDBENCH_OK;
    if (m->url == NULL)
        return pdbench_usage("load", "--url is missing", NULL) == PDBENCH_OK;
    if (m->opts.concurrency == 0)
        m->opts.concurrency = m->opts.rate > 0 || m->bodies.trace != NULL ? 1024 : 8;
    if (m->bodies.trace != NULL && (m->opts.rate > 0 || m->bodies.prompts != NULL))
        return pdbench_usage("load", "--trace tells prompts and times: leave out --rate and --prompts", NULL) ==
               PDBENCH_OK;
    if (m->opts.duration == 0 && m->opts.requests == 0 && m->bodies.trace == NULL)
        m->opts.duration = 10 * PD_SEC;
    if (m->opts.duration > 0 && m->opts.warmup >= m->opts.duration)
        return pdbench_usage("load", "--warmup must be shorter than --duration", NULL) == PDBENCH_OK;
    return true;
}

/* Takes host, port and path out of the URL. */
static bool url_read(struct load_main *m)
{
    struct pd_str rest = pd_str_from(m->url), authority, host, port = PD_STR("80");
    uint64_t n = 0;
    if (!pd_str_starts_with_nocase(rest, PD_STR("http://")))
        return pdbench_usage("load", "--url must begin with http://, not", m->url) == PDBENCH_OK;
    rest = pd_str_sub(rest, 7, rest.n);
    size_t slash = pd_str_find_char(rest, '/');
    authority = pd_str_sub(rest, 0, slash == PD_STR_NPOS ? rest.n : slash);
    rest = slash == PD_STR_NPOS ? PD_STR("") : pd_str_sub(rest, slash, rest.n);
    while (rest.n > 0 && rest.p[rest.n - 1] == '/')
        rest.n--;
    host = authority;
    size_t from = pd_str_find_char(authority, ']');
    size_t colon = pd_str_find_char(pd_str_sub(authority, from == PD_STR_NPOS ? 0 : from, authority.n), ':');
    if (colon != PD_STR_NPOS) {
        colon += from == PD_STR_NPOS ? 0 : from;
        host = pd_str_sub(authority, 0, colon);
        port = pd_str_sub(authority, colon + 1, authority.n);
    }
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = pd_str_sub(host, 1, host.n - 2);
    if (host.n == 0 || pd_str_copy(host, m->name, sizeof m->name) != PD_OK ||
        pd_str_parse_u64(port, &n) != PD_OK || n < 1 || n > 65535)
        return pdbench_usage("load", "--url has no valid host and port:", m->url) == PDBENCH_OK;
    m->port = (uint16_t)n;
    m->opts.host = authority;
    pd_buf_append_str(&m->target, rest);
    pd_buf_append_cstr(&m->target, m->bodies.is_completions ? "/v1/completions" : "/v1/chat/completions");
    m->opts.target = pd_buf_str(&m->target);
    return m->target.status == PD_OK ||
           pdbench_usage("load", m->target.status == PD_ENOMEM ? "out of memory" : "--url is too long", NULL) == PDBENCH_OK;
}

/* ---- running ------------------------------------------------------------------------------ */

static void on_progress(struct pd_timer *timer, void *arg)
{
    struct load_main *m = arg;
    const struct pd_bench_load_result *r = pd_bench_load_result(m->load);
    uint64_t bad = 0;
    for (int i = 0; i < PD_BENCH_ERRORS; i++)
        bad += r->errors[i];
    fprintf(stderr, "%s%llu ok (%llu/s), %llu failed, %u under way%s", isatty(STDERR_FILENO) ? "\r\033[K" : "",
            (unsigned long long)r->ok, (unsigned long long)(r->ok - m->shown), (unsigned long long)bad,
            pd_bench_load_open(m->load), isatty(STDERR_FILENO) ? "" : "\n");
    m->shown = r->ok;
    pd_timer_start(timer, PD_SEC);
}

static void finish(struct load_main *m)
{
    pd_timer_stop(&m->progress);
    if (m->signal != NULL)
        pd_loop_uv_signal_close(m->signal);
    m->signal = NULL;
    pd_loop_stop(m->loop);
}

static pd_status put_json(struct load_main *m, struct pd_buf *out)
{
    const struct pd_bench_load_opts *o = &m->opts;
    struct pd_buf text;
    struct pd_json_writer w;
    pd_buf_init(&text, 1u << 16);
    pd_json_writer_init(&w, &text);
    pd_json_begin_object(&w, NULL);
    pdbench_conditions(m->loop, &w);
    pd_json_add_cstr(&w, "url", m->url);
    pd_json_add_str(&w, "path", o->target);
    pd_json_add_u64(&w, "concurrency", o->concurrency);
    pd_json_add_cstr(&w, "arrivals", o->arrivals != NULL ? "trace" : o->rate <= 0 ? "closed loop"
                                     : o->is_constant ? "constant" : "poisson");
    if (o->rate > 0)
        pd_json_add_double(&w, "rate", o->rate);
    if (o->arrivals != NULL) {
        pd_json_add_cstr(&w, "trace", m->bodies.trace);
        pd_json_add_double(&w, "speed", m->bodies.speed);
    }
    pd_json_add_bool(&w, "stream", m->bodies.is_stream);
    pd_json_add_u64(&w, "bodies", o->n_bodies);
    pd_json_add_u64(&w, "body_bytes_mean", m->bodies.all.n / o->n_bodies);
    pd_json_add_u64(&w, "max_tokens", m->bodies.max_tokens);
    pd_json_add_double(&w, "warmup_seconds", (double)o->warmup / 1e9);
    pd_json_add_u64(&w, "sources", m->n_sources);
    pd_json_end(&w);
    pd_status status = text.status != PD_OK ? text.status
                       : pd_bench_load_json(pd_bench_load_result(m->load), pd_proc_cpu_time(),
                                            pd_buf_str(&text), out);
    pd_buf_fini(&text);
    return status;
}

static void on_done(void *arg)
{
    struct load_main *m = arg;
    const struct pd_bench_load_result *r = pd_bench_load_result(m->load);
    struct pd_buf out;
    if (!m->is_quiet && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    pd_buf_init(&out, 1u << 20);
    pd_status status = m->is_json ? put_json(m, &out) : pd_bench_load_table(r, pd_proc_cpu_time(), &out);
    if (status != PD_OK)
        fprintf(stderr, "pdbench load: cannot tell the result: %s\n", pd_status_text(status));
    else if (pdbench_print("load", &out))
        m->rc = r->ok > 0 ? PDBENCH_OK : PDBENCH_FAILED;
    for (int i = 0; i < PD_BENCH_ERRORS; i++)
        if (r->errors[i] > 0)
            m->rc = PDBENCH_FAILED;
    pd_buf_fini(&out);
    finish(m);
}

static void on_signal(int number, void *arg)
{
    struct load_main *m = arg;
    (void)number;
    if (m->load == NULL) {
        pd_resolve_cancel(m->loop, &m->resolve);
        finish(m);
        return;
    }
    /* The second time it does not wait. */
    pd_bench_load_stop(m->load, m->was_interrupted ? 0 : 5 * PD_SEC);
    m->was_interrupted = true;
}

static void on_resolved(struct pd_resolve *resolve, pd_status status, const struct pd_addr *addrs, size_t n,
                        void *arg)
{
    struct load_main *m = arg;
    (void)resolve;
    if (status == PD_OK && n > 0) {
        m->opts.addr = addrs[0];
        status = pd_bench_load_start(m->loop, &m->opts, on_done, m, &m->load);
        if (status == PD_OK) {
            if (!m->is_quiet)
                pd_timer_start(&m->progress, PD_SEC);
            return;
        }
    }
    fprintf(stderr, "pdbench load: cannot begin with %s: %s\n", m->url, pd_status_text(status));
    finish(m);
}

static int run(struct load_main *m)
{
    if (!url_read(m))
        return PDBENCH_USAGE;
    if (!pdbench_bodies_make(&m->bodies))
        return PDBENCH_FAILED;
    m->opts.bodies = m->bodies.list;
    m->opts.n_bodies = m->bodies.n;
    m->opts.arrivals = m->bodies.arrivals;
    pd_timer_init(&m->progress, m->loop, "progress", on_progress, m);
    m->resolve.cb = on_resolved;
    m->resolve.arg = m;
    m->resolve.name = "server";
    if (pd_loop_uv_signal_open(m->loop, SIGINT, "interrupt", on_signal, m, &m->signal) != PD_OK ||
        pd_resolve_start(m->loop, m->name, m->port, &m->resolve) != PD_OK) {
        fprintf(stderr, "pdbench load: cannot look up %s\n", m->name);
        finish(m);
        return PDBENCH_FAILED;
    }
    m->rc = PDBENCH_FAILED;
    (void)pd_loop_run(m->loop);
    return m->rc;
}

/* 127.0.0.2 and the next ones. */
static bool sources_make(struct load_main *m)
{
    if (m->n_sources == 0)
        return true;
    m->sources = pd_calloc(m->n_sources, sizeof *m->sources);
    if (m->sources == NULL)
        return false;
    for (uint64_t i = 0; i < m->n_sources; i++) {
        uint32_t ip = 0x7f000002u + (uint32_t)i;
        struct pd_addr *a = &m->sources[i];
        a->family = PD_AF_IPV4;
        for (int k = 0; k < 4; k++)
            a->ip[k] = (uint8_t)(ip >> (24 - 8 * k));
    }
    return true;
}

int pdbench_load(int argc, char **argv)
{
    struct load_main m = {
        .bodies = { .model = "bench", .prompt_bytes = 2000, .distinct = 64, .max_tokens = 16, .speed = 1 },
        .opts = { .size = sizeof m.opts },
    };
    int rc = PDBENCH_USAGE;
    m.opts.api_key = pd_str_from(getenv("PDBENCH_API_KEY"));
    pd_buf_init(&m.target, 4096);
    if (!options_parse(&m, argc, argv)) {
        rc = PDBENCH_USAGE;
    } else if (m.is_help) {
        help();
        rc = PDBENCH_OK;
    } else {
        struct pd_loop_uv_opts opts = { .name = "load", .n_sources = m.n_sources };
        bool is_good = sources_make(&m);
        opts.sources = m.sources;
        if (!is_good || pd_loop_uv_create(&opts, &m.loop) != PD_OK) {
            fputs("pdbench load: cannot make an event loop\n", stderr);
            rc = PDBENCH_FAILED;
        } else {
            rc = run(&m);
            if (m.load != NULL)
                pd_bench_load_destroy(m.load);
            (void)pd_loop_destroy(m.loop, NULL, 0);
        }
    }
    pdbench_bodies_free(&m.bodies);
    pd_free(m.sources);
    pd_buf_fini(&m.target);
    return rc;
}
