/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench engine: the command line of the fake engine. */
#include "main/pdbench.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>

#include "base/status.h"
#include "base/str.h"
#include "base/units.h"
#include "bench/engine.h"
#include "loop/uv.h"
#include "os/proc.h"

static void help(void)
{
    fputs("usage: pdbench engine [OPTION...]\n"
          "\n"
          "Serves /v1/chat/completions, /v1/completions, /v1/models and /health without computing anything.\n"
          "Prints \"PORT n\" when it listens; ends with SIGINT or SIGTERM and then says what it did.\n"
          "\n"
          "options:\n"
          "  -l, --listen ADDRESS   address of the first endpoint [127.0.0.1:0, port 0 takes a free one]\n"
          "  -p, --ports N          so many endpoints on this port and the next ones [1]\n"
          "  -m, --model NAME       the model it claims to serve [bench]\n"
          "  -f, --ttft TIME        from the request to the first token [0]\n"
          "  -i, --itl TIME         between tokens [0: as fast as it goes, one per turn of the loop]\n"
          "  -j, --jitter PART      how much delays vary, 0 to 1 [0]\n"
          "  -d, --spread NAME      in which way: uniform, normal, lognormal, exponential [uniform: by up to PART]\n"
          "  -t, --tokens N         of an answer when the request has no max_tokens [16]\n"
          "  -b, --pad BYTES        make each event and answer that much larger [0]\n"
          "  -S, --status CODE      answer every completion with this error [none]\n"
          "  -F, --fail-every N     answer each N-th completion with 500 [none]\n"
          "  -B, --break-after N    cut each stream after N events [none]\n"
          "  -E, --fault NAME=RATE  of completions, 0 to 1: reset, hang, slow (ten times), malformed, 429, 503,\n"
          "                         error (finish_reason), cut (half of a stream); refuse: of endpoints. Repeatable\n"
          "  -s, --seed N           of delays and faults: the n-th completion meets the same again [1]\n"
          "  -K, --need-kv          refuse a request with do_remote_prefill that names no prefill of this engine\n"
          "  -h, --help             print this\n"
          "\n"
          "examples:\n"
          "  pdbench engine -l 127.0.0.1:9000 --ttft 200ms --itl 20ms --jitter 0.2\n"
          "  pdbench engine -l 127.0.0.1:9000 --ports 1000          a thousand servers\n"
          "  pdbench engine -l 127.0.0.1:9000 --status 503          one that is always overloaded\n"
          "  pdbench engine -l 127.0.0.1:9000 --itl 5ms --break-after 20\n"
          "  pdbench engine -l 127.0.0.1:9000 --itl 20ms --spread lognormal --jitter 0.5 --fault reset=0.01 --fault 503=0.02\n",
          stdout);
}

struct engine_main {
    struct pd_loop *loop;
    struct pd_bench_engine_opts opts;
    bool is_help;
};

static bool spread_take(struct pd_bench_engine_opts *o, const char *arg)
{
    static const char *const names[] = { "uniform", "normal", "lognormal", "exponential" };
    for (uint32_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (pd_str_eq(pd_str_from(arg), pd_str_from(names[i]))) {
            o->spread = i;
            return true;
        }
    fprintf(stderr, "pdbench engine: --spread takes uniform, normal, lognormal or exponential, not \"%s\"\n", arg);
    return false;
}

static bool fault_take(struct pd_bench_engine_opts *o, const char *arg)
{
    struct pd_str name = pd_str_from(arg);
    size_t at = pd_str_find_char(name, '=');
    double sum = 0;
    if (at != PD_STR_NPOS)
        name.n = at;
    for (uint32_t f = 0; f < PD_BENCH_FAULTS; f++)
        if (at != PD_STR_NPOS && pd_str_eq(name, pd_str_from(pd_bench_fault_name(f)))) {
            if (!pdbench_real("engine", "fault", arg + at + 1, 0, 1, &o->faults[f]))
                return false;
            for (uint32_t k = PD_BENCH_FAULT_REFUSE + 1; k < PD_BENCH_FAULTS; k++)
                sum += o->faults[k];
            if (sum <= 1)
                return true;
            fputs("pdbench engine: the rates of --fault are more than 1 together\n", stderr);
            return false;
        }
    fprintf(stderr, "pdbench engine: --fault takes NAME=RATE with a name of --help, not \"%s\"\n", arg);
    return false;
}

static bool option_take(struct engine_main *m, int c, const char *arg)
{
    const char *name = "engine";
    struct pd_bench_engine_opts *o = &m->opts;
    uint64_t n = 0;
    bool is_good = true;
    switch (c) {
    case 'l':
        is_good = pd_addr_parse(m->loop, pd_str_from(arg), &o->addr) == PD_OK;
        if (!is_good)
            fprintf(stderr, "pdbench engine: --listen takes an address such as 127.0.0.1:9000, not \"%s\"\n", arg);
        return is_good;
    case 'p':
        is_good = pdbench_number(name, "ports", arg, 1, PD_BENCH_MAX_PORTS, &n);
        o->ports = (uint32_t)n;
        return is_good;
    case 'm':
        o->model = arg;
        return true;
    case 'f':
        return pdbench_time(name, "ttft", arg, &o->ttft);
    case 'i':
        return pdbench_time(name, "itl", arg, &o->itl);
    case 'j':
        return pdbench_real(name, "jitter", arg, 0, 1, &o->jitter);
    case 't':
        is_good = pdbench_number(name, "tokens", arg, 1, PD_BENCH_MAX_TOKENS, &n);
        o->tokens = (uint32_t)n;
        return is_good;
    case 'b':
        is_good = pdbench_bytes(name, "pad", arg, 1u << 18, &n);
        o->pad = (uint32_t)n;
        return is_good;
    case 'S':
        is_good = pdbench_number(name, "status", arg, 400, 599, &n);
        o->status = (uint32_t)n;
        return is_good;
    case 'F':
        is_good = pdbench_number(name, "fail-every", arg, 1, UINT32_MAX, &n);
        o->fail_every = (uint32_t)n;
        return is_good;
    case 'B':
        is_good = pdbench_number(name, "break-after", arg, 1, UINT32_MAX, &n);
        o->break_after = (uint32_t)n;
        return is_good;
    case 'd':
        return spread_take(o, arg);
    case 'E':
        return fault_take(o, arg);
    case 's':
        return pdbench_number(name, "seed", arg, 1, UINT64_MAX, &o->seed);
    case 'K':
        o->need_kv = 1;
        return true;
    case 'h':
        m->is_help = true;
        return true;
    default:
        fputs("try \"pdbench engine --help\"\n", stderr);
        return false;
    }
}

static bool options_parse(struct engine_main *m, int argc, char **argv)
{
    static const struct option options[] = {
        { "listen", required_argument, NULL, 'l' },      { "ports", required_argument, NULL, 'p' },
        { "model", required_argument, NULL, 'm' },       { "ttft", required_argument, NULL, 'f' },
        { "itl", required_argument, NULL, 'i' },         { "jitter", required_argument, NULL, 'j' },
        { "tokens", required_argument, NULL, 't' },      { "pad", required_argument, NULL, 'b' },
        { "status", required_argument, NULL, 'S' },      { "fail-every", required_argument, NULL, 'F' },
        { "break-after", required_argument, NULL, 'B' }, { "fault", required_argument, NULL, 'E' },
        { "spread", required_argument, NULL, 'd' },      { "seed", required_argument, NULL, 's' },
        { "need-kv", no_argument, NULL, 'K' },           { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int c;
    while ((c = getopt_long(argc, argv, "l:p:m:f:i:j:d:t:b:S:F:B:E:s:Kh", options, NULL)) != -1)
        if (!option_take(m, c, optarg))
            return false;
    if (optind < argc)
        return pdbench_usage("engine", "there is no argument", argv[optind]) == PDBENCH_OK;
    return true;
}

static void on_signal(int number, void *arg)
{
    struct engine_main *m = arg;
    (void)number;
    pd_loop_stop(m->loop);
}

static void on_closed(void *arg)
{
    pd_loop_stop(arg);
}

static void tell(const struct pd_bench_engine *e)
{
    struct pd_bench_engine_stats s;
    char cpu[PD_UNITS_TEXT];
    pd_bench_engine_stats(e, &s);
    fprintf(stderr,
            "%llu completions on %llu connections: %llu answered, %llu failed, %llu broken, %llu clients left; "
            "%llu events; %s of processor time\n",
            (unsigned long long)s.requests, (unsigned long long)s.accepted, (unsigned long long)s.answers,
            (unsigned long long)s.failed, (unsigned long long)s.broken, (unsigned long long)s.gone,
            (unsigned long long)s.events, pd_units_format_duration(pd_proc_cpu_time(), cpu));
    for (uint32_t f = 0; f < PD_BENCH_FAULTS; f++)
        if (s.faults[f] > 0)
            fprintf(stderr, "fault %s: %llu\n", pd_bench_fault_name(f), (unsigned long long)s.faults[f]);
    if (s.prefills + s.decodes > 0)
        fprintf(stderr, "kv_transfer_params: %llu prefills, %llu decodes\n", (unsigned long long)s.prefills,
                (unsigned long long)s.decodes);
}

static int serve(struct engine_main *m)
{
    struct pd_bench_engine *e = NULL;
    struct pd_loop_signal *signals[2] = { NULL, NULL };
    struct pd_addr addr;
    pd_status status = pd_bench_engine_create(m->loop, &m->opts, &e);
    if (status != PD_OK) {
        fprintf(stderr, "pdbench engine: cannot listen: %s\n", pd_status_text(status));
        return PDBENCH_FAILED;
    }
    if (pd_loop_uv_signal_open(m->loop, SIGINT, "interrupt", on_signal, m, &signals[0]) == PD_OK &&
        pd_loop_uv_signal_open(m->loop, SIGTERM, "terminate", on_signal, m, &signals[1]) == PD_OK &&
        pd_bench_engine_addr(e, 0, &addr) == PD_OK) {
        printf("PORT %u\n", addr.port);
        fflush(stdout);
        (void)pd_loop_run(m->loop);
        tell(e);
    } else {
        fputs("pdbench engine: cannot watch signals\n", stderr);
        status = PD_EIO;
    }
    for (int i = 0; i < 2; i++)
        if (signals[i] != NULL)
            pd_loop_uv_signal_close(signals[i]);
    pd_bench_engine_close(e, on_closed, m->loop);
    (void)pd_loop_run(m->loop);
    return status == PD_OK ? PDBENCH_OK : PDBENCH_FAILED;
}

int pdbench_engine(int argc, char **argv)
{
    struct engine_main m = { .opts = { .size = sizeof m.opts } };
    int rc = PDBENCH_FAILED;
    if (pd_loop_uv_create(NULL, &m.loop) != PD_OK) {
        fputs("pdbench engine: cannot make an event loop\n", stderr);
        return rc;
    }
    (void)pd_addr_parse(m.loop, PD_STR("127.0.0.1:0"), &m.opts.addr);
    if (!options_parse(&m, argc, argv)) {
        rc = PDBENCH_USAGE;
    } else if (m.is_help) {
        help();
        rc = PDBENCH_OK;
    } else if (m.opts.ports > 1 && m.opts.addr.port != 0 && m.opts.addr.port + m.opts.ports > 65536u) {
        rc = pdbench_usage("engine", "the last port is above 65535", NULL);
    } else {
        rc = serve(&m);
    }
    (void)pd_loop_destroy(m.loop, NULL, 0);
    return rc;
}
